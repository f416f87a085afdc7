"""`latest` and `history`: what the signals read, now and before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import closing
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api import cursors, export, shapes
from gateway.api.catalog import public_id
from gateway.api.completeness import history_share
from gateway.api.compression import Encoded, chosen
from gateway.api.context import ROOT, Api, answer, busy, language_of, next_link
from gateway.api.language import Language
from gateway.api.latest import Form
from gateway.api.parameters import TS_MAX, TS_MIN, HistoryQuery, LatestQuery, bucket_width
from gateway.api.problems import invalid
from gateway.api.resources import DevicePath, NamePath, revision, signal_answer, time_of
from gateway.store import records
from gateway.store.records import SignalRecord
from schemas.bilingual import Bilingual
from schemas.times import to_rfc3339

_MOST_GAPS = 1_000
_PAGE, _LARGEST_PAGE = 1_000, 10_000
_CHUNK = 5_000
_YEARS = Bilingual("a time in the years 2 to 9998", "公元 2 年至 9998 年的时间")
_MOST_BUCKETS = 1_000_000
_YEAR = 366 * 86_400_000_000
_CACHED = 64
_HISTORY_ONLY = HistoryQuery.model_fields.keys() - {"lang"}


class _Cache:
    """Bodies of `latest` that are right until something changes, each in the encodings that were asked for."""

    def __init__(self) -> None:
        self._version = -1
        self._bodies: dict[tuple[bytes, str], Encoded] = {}

    def get(self, version: int, key: tuple[bytes, str]) -> Encoded | None:
        if version != self._version:
            self._bodies.clear()
            self._version = version
        return self._bodies.get(key)

    def put(self, version: int, key: tuple[bytes, str], body: Encoded) -> None:
        if version == self._version and len(self._bodies) < _CACHED:
            self._bodies[key] = body


def routes(api: Api) -> APIRouter:
    """The routes of this module; they come before those of `resources`, whose paths are wider."""
    router = APIRouter(prefix=ROOT)
    cache = _Cache()

    @router.get("/latest", name="latest", tags=["Readings"])
    async def latest(request: Request, query: Annotated[LatestQuery, Query()]) -> Response:
        """The newest reading of each signal, with when it was last known to hold."""
        language = language_of(request, query)
        version = api.live.version
        key = (request.scope["query_string"], language)
        encoded = cache.get(version, key)
        if encoded is None:
            numbers: Sequence[int] = api.select(query, names=query.signal, match=query.match)
            if query.cursor:
                after = cursors.load(query.cursor, cursors.NameCursor).after
                numbers = api.catalog().after(numbers, after)
            more = None
            if len(numbers) > query.limit:
                numbers = numbers[: query.limit]
                more = next_link(request, cursors.NameCursor(api.catalog().names[numbers[-1]]))
            items = api.view.items(numbers, Form(language, query.int64 == "string"))
            stream = f"{api.live.epoch}.{api.live.commit_no}".encode()
            end = b'],"stream":"' + stream + b'","next":' + (b"null" if more is None else f'"{more}"'.encode()) + b"}"
            encoded = Encoded(b'{"items":[' + b",".join(items) + end, link=more)
            cache.put(version, key, encoded)
        encoding = chosen(request.headers.get("accept-encoding", ""))
        headers: dict[str, str] = {}
        if encoding != "identity" and len(encoded.plain) >= 500:
            headers["Content-Encoding"] = encoding
            return answer(request, await encoded.get(encoding), language, next=encoded.link, headers=headers)
        return answer(request, encoded.plain, language, next=encoded.link, headers=headers)

    @router.get("/signals/{number:int}/history", name="history_by_number", tags=["Readings"])
    async def history_by_number(
        request: Request,
        number: Annotated[int, Path(ge=0, examples=[1])],
        query: Annotated[HistoryQuery, Query()],
    ) -> Response:
        """The history of a signal, by the store's number of it."""
        return await either(request, f"{number}/history", str(number), query)

    @router.get("/signals/{device}/{name:path}/history", name="history", tags=["Readings"])
    async def history(
        request: Request, device: DevicePath, name: NamePath, query: Annotated[HistoryQuery, Query()]
    ) -> Response:
        """The history of a signal: readings as they were stored, or buckets; with what is missing beside."""
        return await either(request, f"{device}/{name}/history", f"{device}/{name}", query)

    async def either(request: Request, longer: str, shorter: str, query: HistoryQuery) -> Response:
        """A signal whose name ends with `history` is itself; it hides the history of the signal before it."""
        language = language_of(request, query)
        if longer in api.catalog().by_name:
            given = sorted(query.model_fields_set & _HISTORY_ONLY)
            if given:
                raise invalid(
                    given[0],
                    request.query_params.get(given[0]),
                    Bilingual(
                        f"nothing: {longer} is a signal; see its `history`",
                        f"不应填写：{longer} 是信号；见其 `history`",
                    ),
                )
            return signal_answer(api, request, api.signal(longer), language)
        signal = api.signal(shorter)
        if query.format != "json":
            return await _export(api, request, signal, query, language)
        if query.limit is not None and query.limit > _LARGEST_PAGE:
            raise invalid(
                "limit",
                query.limit,
                Bilingual(
                    f"at most {_LARGEST_PAGE} with format json; ndjson and csv give the whole range",
                    f"格式为 json 时最多 {_LARGEST_PAGE}；ndjson 与 csv 给出整个范围",
                ),
            )
        if query.buckets is not None:
            return await _buckets(api, request, signal, query, language)
        return await _history(api, request, signal, query, language)

    return router


# ------------------------------------------------------------------------------------------------------------ readings


async def _history(
    api: Api, request: Request, signal: SignalRecord, query: HistoryQuery, language: Language
) -> Response:
    start, end, after = _range(api, signal, query)
    most = query.limit or _PAGE
    rows, completeness = await api.ask(
        lambda: (
            _read(api, signal.id, start, end, after, query.order, most + 1),
            completeness_of(api, signal, start, end),
        )
    )
    more = None
    if len(rows) > most:
        rows = rows[:most]
        more = next_link(request, cursors.HistoryCursor(signal.id, query.order, start, end, rows[-1].ts, rows[-1].n))
    zone = None if query.tz is None else ZoneInfo(query.tz)
    text = query.int64 == "string"
    body = shapes.History(
        public_id(signal),
        signal.unit,
        time_of(start),
        time_of(end),
        [export.reading(row, text, zone) for row in rows],
        completeness,
        _revisions(signal, start, end, language),
        more,
    )
    return answer(request, body, language, next=more)


def _range(
    api: Api, signal: SignalRecord, query: HistoryQuery
) -> tuple[int | None, int | None, tuple[int, int, int] | None]:
    """Bounds and the place to go on from."""
    if query.cursor is None:
        return *api.bounds(query.start, query.end), None
    cursor = cursors.load(query.cursor, cursors.HistoryCursor)
    if (cursor.signal, cursor.order) != (signal.id, query.order):
        raise cursors.bad_cursor(query.cursor)
    return cursor.start, cursor.end, (signal.id, cursor.ts, cursor.n)


def _read(
    api: Api,
    signal: int,
    start: int | None,
    end: int | None,
    after: tuple[int, int, int] | None,
    order: Literal["asc", "desc"],
    most: int,
) -> list[records.Reading]:
    found: list[records.Reading] = []
    for piece in api.reader.history([signal], start, end, limit=most, after=after, order=order):
        found += piece
    return found


def _revisions(
    signal: SignalRecord, start: int | None, end: int | None, language: Language
) -> list[shapes.SignalRevision]:
    """The revisions that are valid somewhere in the range."""
    found: list[shapes.SignalRevision] = []
    for item, following in zip(signal.revisions, [*signal.revisions[1:], None], strict=True):
        if end is not None and item.valid_from >= end and found:
            continue
        if following is not None and start is not None and following.valid_from <= start:
            continue
        found.append(revision(item, language))
    return found


def completeness_of(api: Api, signal: SignalRecord, start: int | None, end: int | None) -> shapes.Completeness:
    """What is missing of a signal in a range. Asks the store; belongs into a worker thread."""
    gaps = api.reader.gaps(start, end, signal=signal.id, limit=_MOST_GAPS + 1)
    lost = api.reader.connections(signal.device, start, end, limit=_MOST_GAPS + 1)
    known_to = api.live.seen.get(signal.device, {}).get(signal.group)
    device = api.live.catalog.devices.get(signal.device)
    settled = signal.retired or (known_to is not None and (end is None or known_to >= end))
    if end is None and device is not None and not device.retired and api.live.is_quiet(device.gateway):
        settled = False
    steady = settled and signal.device not in api.live.down and not any(gap.end is None for gap in gaps)
    share = history_share(api, signal, start, end, known_to, steady=steady)
    return shapes.Completeness(
        complete=not gaps and not lost and settled and not share.missing,
        share=share.share,
        known_to=time_of(known_to),
        gaps=[
            shapes.Missing(gap.id, to_rfc3339(gap.start), time_of(gap.end), gap.cause, gap.count, gap.detail)
            for gap in gaps[:_MOST_GAPS]
        ],
        disconnected=[
            shapes.Disconnected(to_rfc3339(item.start), time_of(item.end), item.reason) for item in lost[:_MOST_GAPS]
        ],
        more=len(gaps) > _MOST_GAPS or len(lost) > _MOST_GAPS,
    )


# ------------------------------------------------------------------------------------------------------------- buckets


def _bucket_range(api: Api, signal: SignalRecord, query: HistoryQuery) -> tuple[int, int]:
    if query.order != "asc":
        raise invalid(
            "order", query.order, Bilingual("asc: buckets come in the order of time", "asc：分段按时间顺序给出")
        )
    if query.cursor is not None:
        cursor = cursors.load(query.cursor, cursors.BucketCursor)
        inside = cursor.start >= TS_MIN + _YEAR and cursor.end <= TS_MAX - _YEAR
        if (cursor.signal, cursor.width) != (signal.id, query.buckets) or not inside:
            raise cursors.bad_cursor(query.cursor)
        return cursor.start, cursor.end
    start, end = api.bounds(query.start, query.end)
    if start is None:
        raise invalid(
            "start",
            None,
            Bilingual("a time: buckets need a start, such as start=-24h", "时间：分段需要起点，如 start=-24h"),
        )
    last = api.now() if end is None else end
    # days of a time zone reach beyond the range, which must not lead out of the calendar
    if start < TS_MIN + _YEAR:
        raise invalid("start", query.start, _YEARS)
    if last > TS_MAX - _YEAR:
        raise invalid("end", query.end, _YEARS)
    width = bucket_width(query.buckets or "")
    seconds = 86_400.0 if width == "day" else width
    if query.format != "json" and (last - start) / 1e6 / seconds > _MOST_BUCKETS:
        raise invalid(
            "buckets",
            query.buckets,
            Bilingual(
                f"a width that divides the range into at most {_MOST_BUCKETS} buckets",
                f"能将范围分成最多 {_MOST_BUCKETS} 段的宽度",
            ),
        )
    return start, last


def _fold(
    api: Api, signal: SignalRecord, query: HistoryQuery, start: int, end: int, most: int
) -> tuple[list[records.Bucket], int | None]:
    """Up to `most` buckets, fewer when it takes too long, and where the next one begins. Belongs into a worker thread."""
    assert query.buckets is not None
    width = bucket_width(query.buckets)
    deadline = api.monotonic() + api.limits.bucket_seconds
    found: list[records.Bucket] = []
    buckets = api.reader.buckets(signal.id, start, end, width, timezone=query.tz)
    assert isinstance(buckets, Generator)  # it holds a connection until it is closed
    with closing(buckets):
        for bucket in buckets:
            if len(found) == most or (found and api.monotonic() > deadline):
                return found, bucket.start
            found.append(bucket)
    return found, None


async def _buckets(
    api: Api, request: Request, signal: SignalRecord, query: HistoryQuery, language: Language
) -> Response:
    start, end = _bucket_range(api, signal, query)
    (rows, following), completeness = await api.ask(
        lambda: (
            _fold(api, signal, query, start, end, query.limit or _PAGE),
            completeness_of(api, signal, start, end),
        )
    )
    more = None
    if following is not None:
        more = next_link(request, cursors.BucketCursor(signal.id, query.buckets or "", following, end))
    zone = None if query.tz is None else ZoneInfo(query.tz)
    body = shapes.Buckets(
        public_id(signal),
        signal.unit,
        query.buckets or "",
        query.tz,
        to_rfc3339(start),
        to_rfc3339(end),
        [export.bucket(row, zone) for row in rows],
        completeness,
        _revisions(signal, start, end, language),
        more,
    )
    return answer(request, body, language, next=more)


# -------------------------------------------------------------------------------------------------------------- export


async def _export(
    api: Api, request: Request, signal: SignalRecord, query: HistoryQuery, language: Language
) -> Response:
    """NDJSON or CSV of the whole range, a chunk at a time: neither memory nor a transaction grows with the range."""
    form = export.Form(query.format == "csv", query.bom, query.int64 == "string", query.tz)
    if query.buckets is None:
        start, end, after = _range(api, signal, query)
        completeness = await api.ask(lambda: completeness_of(api, signal, start, end))
        pieces = _readings(api, signal, query, start, end, after, form)
    else:
        first, last = _bucket_range(api, signal, query)
        completeness = await api.ask(lambda: completeness_of(api, signal, first, last))
        pieces = _bucket_pieces(api, signal, query, first, last, form)
    if api.exports >= api.limits.exports:
        raise busy("too many exports at the same time", "同时进行的导出过多")
    missing = len(completeness.gaps) + len(completeness.disconnected)
    headers = {
        "Content-Language": language,
        "Cache-Control": "no-store",
        "Guantong-Complete": "true"
        if completeness.complete
        else f"false; missing={missing}; share={_number(completeness.share)}",
        "Link": f'<{ROOT}/gaps?signal={public_id(signal)}>; rel="related"; title="gaps"',
        "Vary": "Accept-Language, Accept-Encoding",
    }
    if form.csv:
        name = public_id(signal).replace("/", "_")
        headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    media = "text/csv; charset=utf-8" if form.csv else "application/x-ndjson"
    return StreamingResponse(_counted(api, pieces), media_type=media, headers=headers)


def _number(share: float | None) -> str:
    """A share as a header says it; never rounded up to 1."""
    return "unknown" if share is None else f"{share:.6f}" if share < 0.999999 else repr(share)


async def _counted(api: Api, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    api.exports += 1
    try:
        async for piece in pieces:
            yield piece
    finally:
        api.exports -= 1


async def _readings(
    api: Api,
    signal: SignalRecord,
    query: HistoryQuery,
    start: int | None,
    end: int | None,
    after: tuple[int, int, int] | None,
    form: export.Form,
) -> AsyncIterator[bytes]:
    left = query.limit
    yield export.head(form, export.READING_COLUMNS)
    while left is None or left > 0:
        most = _CHUNK if left is None else min(left, _CHUNK)

        def read(after: tuple[int, int, int] | None = after, most: int = most) -> tuple[list[records.Reading], bytes]:
            rows = _read(api, signal.id, start, end, after, query.order, most)
            return rows, export.readings(public_id(signal), signal.unit, rows, form)

        rows, text = await api.ask(read)
        if text:
            yield text
        if len(rows) < most:
            return
        if left is not None:
            left -= len(rows)
        after = (signal.id, rows[-1].ts, rows[-1].n)


async def _bucket_pieces(
    api: Api, signal: SignalRecord, query: HistoryQuery, start: int, end: int, form: export.Form
) -> AsyncIterator[bytes]:
    left = query.limit
    following: int | None = start
    yield export.head(form, export.BUCKET_COLUMNS)
    while following is not None and (left is None or left > 0):
        most = _PAGE if left is None else min(left, _PAGE)

        def read(at: int = following, most: int = most) -> tuple[int, int | None, bytes]:
            rows, then = _fold(api, signal, query, at, end, most)
            return len(rows), then, export.buckets(public_id(signal), signal.unit, rows, form)

        count, following, text = await api.ask(read)
        if left is not None:
            left -= count
        if text:
            yield text
