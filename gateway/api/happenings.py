"""Events, gaps and the ledger: what happened, what is missing, what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cursors, shapes
from gateway.api.catalog import Catalog
from gateway.api.context import ROOT, Api, answer, language_of, next_link
from gateway.api.language import Language, Words
from gateway.api.parameters import EventQuery, GapQuery, OneQuery
from gateway.api.problems import ProblemError, invalid
from gateway.api.resources import time_of
from gateway.api.values import flag_names, to_plain
from gateway.store.records import EventRecord, GapRecord
from schemas.bilingual import Bilingual
from schemas.times import to_rfc3339
from schemas.wire import Cause

_FEED_PIECE = 1_000
_FEED_PIECES = 20

CAUSES: Final[dict[str, Words]] = {
    Cause.DISCONNECTED: Words("The device was not connected.", "设备未连接。"),
    Cause.STALE: Words("The device gave nothing new although it should have.", "设备未按时更新数据。"),
    Cause.BAD: Words("The device gave only bad values.", "设备只给出了无效值。"),
    Cause.OVERRUN: Words("The device or the gateway could not keep up.", "设备或网关来不及处理。"),
    Cause.DROPPED: Words("The outbox was full and readings were dropped.", "本地缓存已满，部分数据被丢弃。"),
    Cause.COLLECTOR_DOWN: Words("The collector was not running.", "采集进程未运行。"),
    Cause.TOO_LATE: Words("Readings came when their time was not kept any more.", "数据到达过晚，已超出保留期。"),
    Cause.UNDECODABLE: Words("A message could not be read.", "有消息无法解析。"),
    Cause.FORK: Words("Two histories of one stream: an outbox was copied or restored.", "数据流出现分叉：发件箱被复制或恢复过。"),
    Cause.LOST: Words("Messages were lost for good.", "有消息永久丢失。"),
}  # fmt: skip


def routes(api: Api) -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix=ROOT)

    @router.get("/events", name="events", tags=["Happenings"])
    async def events(request: Request, query: Annotated[EventQuery, Query()]) -> Response:
        """Alarms, cycles and other events; with `order=commit` a feed that gives a client each event once."""
        language = language_of(request, query)
        api.check(devices=query.device, assets=query.asset)
        if query.order == "commit":
            return await _feed(api, request, query, language)
        start, end = api.bounds(query.start, query.end)
        order, after = query.order, None
        if query.cursor:
            cursor = cursors.load(query.cursor, cursors.EventCursor)
            if cursor.order != order:
                raise cursors.bad_cursor(query.cursor)
            start, end, after = cursor.start, cursor.end, (cursor.ts, cursor.no)
        below = sorted(api.catalog().below(query.asset)) if query.asset else None
        rows = await api.ask(
            lambda: api.reader.events(
                start, end, devices=query.device or None, assets=below, types=query.type or None,
                min_severity=query.min_severity, limit=query.limit + 1, after=after, order=order,
            )
        )  # fmt: skip
        more = None
        if len(rows) > query.limit:
            rows = rows[: query.limit]
            more = next_link(request, cursors.EventCursor(order, start, end, rows[-1].ts, rows[-1].no))
        items = [event(row, language, query.int64 == "string") for row in rows]
        return answer(request, shapes.Events(items, more), language, next=more)

    @router.get("/gaps", name="gaps", tags=["Happenings"])
    async def gaps(request: Request, query: Annotated[GapQuery, Query()]) -> Response:
        """What is missing in a range of time, and why. Never understated, maybe overstated."""
        language = language_of(request, query)
        catalog = api.catalog()
        api.check(devices=query.device, assets=query.asset)
        numbers: Sequence[int] | None = None
        if query.signal is not None:
            for name, given in (("device", query.device), ("asset", query.asset)):
                if given:
                    raise invalid(
                        name,
                        given[0],
                        Bilingual(
                            "nothing beside signal: a signal has its device",
                            "与 signal 同用时不应填写：信号已属于某个设备",
                        ),
                    )
            numbers = [api.signal(query.signal).id]
        elif query.asset:
            numbers = api.select(query, retired=True)
        start, end = api.bounds(query.start, query.end)
        after = None
        if query.cursor:
            cursor = cursors.load(query.cursor, cursors.GapCursor)
            start, end, after = cursor.start, cursor.end, cursor.id
        rows = await api.ask(
            lambda: api.reader.gaps(
                start, end, devices=query.device or None, signals=numbers, causes=query.cause or None,
                limit=query.limit + 1, after=after,
            )
        )  # fmt: skip
        more = None
        if len(rows) > query.limit:
            rows = rows[: query.limit]
            more = next_link(request, cursors.GapCursor(start, end, rows[-1].id))
        return answer(request, shapes.Gaps([_gap(catalog, row, language) for row in rows], more), language, next=more)

    @router.get("/ledger", name="ledger", tags=["Gateway"])
    async def ledger(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """What is stored of each stream of the ledger."""
        api.catalog()
        streams = await api.ask(api.reader.streams)
        body = shapes.Ledger(
            api.live.store_id,
            api.live.epoch,
            api.live.commit_no,
            [
                shapes.Stream(
                    item.id, item.gateway, item.watermark, item.lost, item.gaps, to_rfc3339(item.opened_at),
                    to_rfc3339(item.seen_at), time_of(item.closed_at),
                )
                for item in streams
            ],
        )  # fmt: skip
        return answer(request, body, language_of(request, query))

    return router


async def _feed(api: Api, request: Request, query: EventQuery, language: Language) -> Response:
    """Events in the order of their commits. There is always a next page, and maybe nothing on it yet."""
    if query.start is not None or query.end is not None:
        name = "start" if query.start is not None else "end"
        raise invalid(
            name,
            query.start or query.end,
            Bilingual("nothing with order=commit: its place is the cursor", "order=commit 时不应填写：位置由游标给出"),
        )
    catalog, epoch, at = api.catalog(), api.live.epoch, 0
    if query.cursor:
        cursor = cursors.load(query.cursor, cursors.FeedCursor)
        if cursor.epoch != epoch:
            raise ProblemError(
                "cursor-gone",
                Words(
                    "The store was restored from a backup since this cursor was given: events may have other numbers now.",
                    "自该游标生成后存储曾从备份恢复，事件编号可能已改变。",
                ),
                fix=Words(
                    "Begin without a cursor, and know events by their id.", "请不带游标重新开始，并按事件 id 去重。"
                ),
            )
        at = cursor.no
    below = catalog.below(query.asset) if query.asset else None
    found: list[EventRecord] = []
    for _ in range(_FEED_PIECES):
        most = query.limit if not (query.device or below or query.type or query.min_severity) else _FEED_PIECE
        rows = await api.ask(lambda at=at, most=most: api.reader.event_feed(at, limit=most))  # type: ignore[misc]
        for row in rows:
            if len(found) == query.limit:
                break
            at = row.no
            if _wanted(row, query, below):
                found.append(row)
        if len(found) == query.limit or len(rows) < most:
            break
    more = next_link(request, cursors.FeedCursor(epoch, at))
    items = [event(row, language, query.int64 == "string") for row in found]
    return answer(request, shapes.Events(items, more), language, next=more)


def _wanted(row: EventRecord, query: EventQuery, below: set[str] | None) -> bool:
    return (
        (not query.device or row.device in query.device)
        and (below is None or row.asset in below)
        and (not query.type or row.type in query.type)
        and (query.min_severity is None or row.severity >= query.min_severity)
    )


def event(row: EventRecord, language: Language, int64_text: bool = False) -> shapes.Event:
    """An event as an answer shows it."""
    return shapes.Event(
        row.id, row.no, to_rfc3339(row.ts), row.device, row.asset, row.type, row.severity,
        Words(row.message_en, row.message_zh).get(language), to_plain(row.fields, int64_text=int64_text),
        time_of(row.source_ts), row.condition, row.state, flag_names(row.flags),
    )  # fmt: skip


def _names(catalog: Catalog, numbers: Sequence[int]) -> list[str]:
    return [catalog.names.get(number, str(number)) for number in numbers]


def _gap(catalog: Catalog, row: GapRecord, language: Language) -> shapes.Gap:
    text = CAUSES.get(row.cause)
    return shapes.Gap(
        row.id, row.gateway, to_rfc3339(row.start), time_of(row.end), row.cause,
        row.cause if text is None else text.get(language), row.device,
        None if row.signals is None else _names(catalog, row.signals), row.count, row.detail,
    )  # fmt: skip
