"""`completeness`: which share of a period is there, of signals, devices and assets; the definition is `gateway.store.completeness`'s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import shapes
from gateway.api.context import ROOT, Api, answer, language_of
from gateway.api.parameters import TS_MAX, TS_MIN, CompletenessQuery, bucket_width, resolve_moment
from gateway.api.problems import invalid
from gateway.store.buckets import edges
from gateway.store.completeness import Share, total
from gateway.store.records import SignalRecord
from schemas.bilingual import Bilingual
from schemas.times import to_rfc3339

FRESH = 120_000_000
"""A scan group whose `complete_to` is older than this (µs) does not decide where a period without an end ends: it is late."""
_MOST_BUCKETS, _MOST_SHARES = 1_000, 200_000
_YEAR = 366 * 86_400_000_000


def routes(api: Api) -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix=ROOT)

    @router.get("/completeness", name="completeness", tags=["Happenings"])
    async def completeness(request: Request, query: Annotated[CompletenessQuery, Query()]) -> Response:
        """Which share of a period is there: the values known and not bad, of signals, devices or assets.

        Of each signal, the period counts from its birth on. Missing is what is in a gap, what its device was not connected for, the
        time after a bad reading, and what is not settled yet. Of several signals the share is the mean, weighted by the time in which
        each was expected.
        """
        catalog = api.catalog()
        numbers = api.select(query, names=query.signal, retired=True)
        start = resolve_moment(query.start, api.now())
        end = period_end(api, [catalog.signals[number] for number in numbers], query.end)
        if end < start:
            raise invalid(
                "end", query.end, Bilingual(f"a time after start ({query.start})", f"start（{query.start}）之后的时间")
            )
        bounds = await _bounds(api, query, start, end)
        if len(numbers) * len(bounds) > _MOST_SHARES:
            raise invalid(
                "buckets",
                query.buckets,
                Bilingual(
                    f"at most {_MOST_SHARES:,} pieces: there are {len(numbers)} signals and {len(bounds) - 1} buckets",
                    f"最多 {_MOST_SHARES:,} 段：现有 {len(numbers)} 个信号、{len(bounds) - 1} 个分段",
                ),
            )
        shares = await api.ask(lambda: api.reader.completeness(numbers, bounds))
        pieces = list(pairwise(bounds))
        body = shapes.CompletenessAnswer(
            to_rfc3339(start),
            to_rfc3339(end),
            share_of(total(share for several in shares.values() for share in several)),
            len(shares),
            [
                shapes.CompletenessItem(
                    name, share_of(total(share for one in members for share in shares.get(one, ())))
                )
                for name, members in _members(api, query, numbers)
            ],
            [
                shapes.CompletenessBucket(
                    to_rfc3339(first), to_rfc3339(last), share_of(total(several[number] for several in shares.values()))
                )
                for number, (first, last) in enumerate(pieces)
            ]
            if query.buckets is not None
            else None,
        )
        return answer(request, body, language_of(request, query))

    return router


def period_end(api: Api, signals: Iterable[SignalRecord], end: str | None) -> int:
    """Where a period ends (µs): as it was asked for, but never after now; without an end, where all that is fresh is settled."""
    groups = {(signal.device, signal.group) for signal in signals if not signal.retired}
    known = [ts for device, group in groups if (ts := api.live.seen.get(device, {}).get(group)) is not None]
    if end is not None:
        return min(resolve_moment(end, api.now()), _now(api, known))
    return min((ts for ts in known if ts >= api.now() - FRESH), default=api.now())


def _now(api: Api, known: Iterable[int]) -> int:
    """The moment, or what is known already where a collector's clock is ahead of ours."""
    return max([api.now(), *known])


def share_of(share: Share) -> shapes.CompletenessShare:
    """As an answer shows it."""
    return shapes.CompletenessShare(
        share.share,
        share.expected / 1e6,
        share.disconnected / 1e6,
        share.gap / 1e6,
        share.bad / 1e6,
        share.unknown / 1e6,
    )


async def _bounds(api: Api, query: CompletenessQuery, start: int, end: int) -> list[int]:
    if query.buckets is None or start >= end:
        return [start, end]
    if start < TS_MIN + _YEAR or end > TS_MAX - _YEAR:
        raise invalid("start", query.start, Bilingual("a time in the years 2 to 9998", "公元 2 年至 9998 年的时间"))
    width = bucket_width(query.buckets)
    seconds = 86_400.0 if width == "day" else width
    if (end - start) / 1e6 / seconds > _MOST_BUCKETS:
        raise invalid(
            "buckets",
            query.buckets,
            Bilingual(
                f"a width that divides the range into at most {_MOST_BUCKETS} buckets",
                f"能将范围分成最多 {_MOST_BUCKETS} 段的宽度",
            ),
        )
    zone = query.tz
    if zone is None:
        zone = await api.ask(api.reader.site_timezone) if width == "day" else "UTC"
    return sorted({start, end, *(edge for edge in edges(start, end, width, zone) if start < edge < end)})


def _members(api: Api, query: CompletenessQuery, numbers: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The items that were asked for, each with its signals."""
    catalog = api.catalog()
    if query.by is None:
        return []
    if query.by == "signal":
        return [(catalog.names[number], [number]) for number in numbers]
    found: dict[str, list[int]] = {}
    if query.by == "device":
        for number in numbers:
            found.setdefault(catalog.signals[number].device, []).append(number)
        return sorted(found.items())
    for number in numbers:
        for asset in catalog.path(catalog.signals[number].asset):
            found.setdefault(asset, []).append(number)
    wanted = catalog.below(query.asset) if query.asset else set(found)
    return sorted((asset, members) for asset, members in found.items() if asset in wanted)


def history_share(
    api: Api, signal: SignalRecord, start: int | None, end: int | None, known_to: int | None, *, steady: bool
) -> Share:
    """Of the range of a history. Asks the store.

    An open side reaches from the signal's birth, and to where it is known, if that is recent or (`steady`) nothing is known to be
    amiss; else to now.
    """
    now = _now(api, () if known_to is None else (known_to,))
    first = signal.born_at if start is None else start
    if end is None:
        end = known_to if known_to is not None and (steady or now - FRESH <= known_to) else now
    last = min(end, now)
    if first >= last:
        return Share()
    return total(api.reader.completeness([signal.id], [first, last]).get(signal.id, ()))
