"""HistoryRead of raw values (OPC 10000-4 §5.11.3, OPC 10000-11 §6.5.3), within the server's limits and to the end of each range."""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from asyncua import ua

from adapters.opcua._decode import HistoryPart
from adapters.opcua._errors import EXPECTED
from adapters.opcua._limits import HISTORY
from adapters.opcua._session import Row, Session
from schemas import status as codes

log = logging.getLogger("guantong.opcua")

_ACCESS_LEVEL: Final = 17
_USER_ACCESS_LEVEL: Final = 18
_HISTORIZING: Final = 20
_HISTORY_READ: Final = 0x04
"""Bit HistoryRead of AccessLevel (OPC 10000-3 §8.57)."""
VALUES: Final = 1_000
"""Values of one node in one answer: a message of some 30 kB for each node in it."""
DISORDERED: Final = "the history is not in the order of time"
"""Problem of a node of which only a part was given, and nobody knows which: a server ended an answer at the number of values asked for,
the answer does not show where to go on, and it does so for ever shorter ranges."""
_NARROWEST: Final = 1_000
"""µs: a range with more values than an answer holds, in no order, is halved no further."""
_FRUITLESS: Final = 3
"""Answers in a row that bring nothing, after which a node's history is given up."""
_NO_CONTINUATION_POINTS: Final = 0x804B0000
_NO_DATA: Final = frozenset({0x809B0000, 0x00A50000})
"""BadNoData, GoodNoData: the range is empty."""
_EARLIEST: Final = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Take = Callable[[int, list[Row]], Awaitable[None]]
"""Is given (position of the node, rows in the order of time) piece by piece."""


class OutOfTimeError(Exception):
    """The caller's time for the whole of it is over."""


@dataclass(slots=True)
class _Node:
    """How far the history of one node is read."""

    place: int
    node: Any
    start: int
    end: int
    later: list[int] = field(default_factory=list)
    """Where the ranges end that are read after this one, the last of them first."""
    continuation: bytes | None = None
    at_start: int = 0
    """Rows with the very time `start` that were given already."""
    fruitless: int = 0
    problem: str | None = None
    done: bool = False


async def kept(session: Session, nodes: Sequence[Any]) -> list[bool]:
    """Of which nodes the server keeps a history that this user may read: Historizing, and the bit HistoryRead of UserAccessLevel
    (AccessLevel where the server does not tell the user's)."""
    attributes = (_HISTORIZING, _USER_ACCESS_LEVEL, _ACCESS_LEVEL)
    rows = await session.read_attributes([(node, a) for node in nodes for a in attributes], timestamps=False)

    def level(row: Row) -> int | None:
        return row[0] if isinstance(row[0], int) and not codes.is_bad(row[1]) else None

    found = []
    for i in range(0, len(rows), len(attributes)):
        historizing, user, anybody = rows[i : i + len(attributes)]
        access = level(user) if level(user) is not None else level(anybody)
        found.append(historizing[0] is True and bool((access or 0) & _HISTORY_READ))
    return found


def _no_hurry() -> None:
    pass


async def before(
    session: Session, nodes: Sequence[Any], at: int, in_time: Callable[[], None] = _no_hurry
) -> list[Row | None]:
    """The newest value of each node in its history that is not later than `at` (µs, server's clock); None without one. `in_time` as in `raw`."""

    async def call(piece: Sequence[Any]) -> list[HistoryPart]:
        in_time()
        wanted = [_Node(i, node, at, at) for i, node in enumerate(piece)]
        return await _ask(session, wanted, _time(at), _EARLIEST, 1)

    parts = await session.limits.calls(HISTORY, list(nodes), call)
    await _release(session, list(nodes), parts)
    rows = [part.rows[0] if part.rows and not codes.is_bad(part.status) else None for part in parts]
    return [row if row is not None and row[2] is not None and row[2] <= at else None for row in rows]


async def raw(
    session: Session, nodes: Sequence[Any], start: int, end: int, take: Take, in_time: Callable[[], None] = _no_hurry
) -> list[str | None]:
    """Gives `take` every value of each node from `start` to `end` (µs, server's clock, both inclusive); for each node what kept it
    from being read to the end, None if nothing did.

    A server that ends an answer at the number of values asked for, without a continuation point, is asked again from there; where that
    answer is in no order, for half of the range, and half of that, until an answer holds all of its range.
    `in_time` is called before each request, and raises OutOfTimeError when there shall be no more of them.
    Raises asyncua's and the network's errors, and whatever `take` raises. Continuation points are given back where the time is over.
    """
    states = [_Node(i, node, start, end) for i, node in enumerate(nodes)]
    size = session.limits.of(HISTORY)
    for first in range(0, len(states), size):
        batch = states[first : first + size]
        try:
            await _batch(session, batch, take, in_time)
        except OutOfTimeError:
            await _give_back(session, batch)
            raise
    return [state.problem for state in states]


async def _batch(session: Session, batch: list[_Node], take: Take, in_time: Callable[[], None]) -> None:
    """Some nodes to their ends, so that few continuation points are open at the server."""
    alone = False
    while open_ones := [state for state in batch if not state.done]:
        by_range: dict[tuple[int, int], list[_Node]] = defaultdict(list)
        for state in open_ones[:1] if alone else open_ones:
            by_range[state.start, state.end].append(state)
        refused = False
        for states in by_range.values():

            async def call(piece: Sequence[_Node]) -> list[HistoryPart]:
                in_time()
                return await _ask(session, piece, _time(piece[0].start), _time(piece[0].end), VALUES)

            for state, part in zip(states, await session.limits.calls(HISTORY, states, call), strict=True):
                if part.status & codes.CODE_MASK == _NO_CONTINUATION_POINTS and not alone:
                    refused = True  # the server keeps fewer of them than there are nodes here
                    continue
                await _one(state, part, take)
        alone = alone or refused


async def _one(state: _Node, part: HistoryPart, take: Take) -> None:
    status = part.status & codes.CODE_MASK
    if codes.is_bad(part.status) and status not in _NO_DATA:
        state.problem, state.done = f"{codes.info(status).name}: {codes.info(status).text_en}", True
        return
    cut = part.continuation is None and len(part.rows) >= VALUES
    if cut and any((b[2] or 0) < (a[2] or 0) for a, b in pairwise(part.rows)) and state.end - state.start > _NARROWEST:
        state.later.append(state.end)
        state.end, state.at_start = (state.start + state.end) // 2, 0
        return
    rows = sorted((row for row in part.rows if row[2] is not None), key=lambda row: row[2] or 0)
    known = state.at_start
    if known and rows and not state.continuation:
        rows = [row for i, row in enumerate(rows) if row[2] != state.start or i >= known]
    if rows:
        await take(state.place, rows)
    state.fruitless = 0 if rows else state.fruitless + 1
    state.continuation = part.continuation
    if part.continuation is None and not cut and state.later:
        state.start, state.end, state.at_start, state.fruitless = state.end, state.later.pop(), 0, 0
    elif part.continuation is None and not cut:
        state.done = True
    elif state.fruitless >= _FRUITLESS or (part.continuation is None and not rows):
        state.problem, state.done = "the server's answers bring nothing more, and it says that there is more", True
    elif part.continuation is None and any((b[2] or 0) < (a[2] or 0) for a, b in pairwise(part.rows)):
        state.problem, state.done = DISORDERED, True
    elif part.continuation is None:
        last = rows[-1][2] or 0
        same = sum(row[2] == last for row in rows)
        state.at_start = same + (known if last == state.start else 0)
        state.start = last


async def _ask(
    session: Session, piece: Sequence[_Node], start: dt.datetime, end: dt.datetime, values: int
) -> list[HistoryPart]:
    request = ua.HistoryReadRequest()
    parameters = request.Parameters
    parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(
        IsReadModified=False, StartTime=start, EndTime=end, NumValuesPerNode=values, ReturnBounds=False
    )
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
    parameters.ReleaseContinuationPoints = False
    parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=state.node, ContinuationPoint=state.continuation) for state in piece
    ]
    return session.decoder.history_response(await session.send(request))


async def _release(session: Session, nodes: Sequence[Any], parts: Sequence[HistoryPart]) -> None:
    """Gives continuation points back that will not be used."""
    states = [
        _Node(i, node, 0, 0, continuation=part.continuation)
        for i, (node, part) in enumerate(zip(nodes, parts, strict=True))
        if part.continuation is not None
    ]
    await _give_back(session, states)


async def _give_back(session: Session, states: Sequence[_Node]) -> None:
    kept_open = [state for state in states if state.continuation is not None and not state.done]
    if not kept_open:
        return
    request = ua.HistoryReadRequest()
    parameters = request.Parameters
    parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(
        IsReadModified=False, StartTime=_EARLIEST, EndTime=_EARLIEST, NumValuesPerNode=1, ReturnBounds=False
    )
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
    parameters.ReleaseContinuationPoints = True
    parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=state.node, ContinuationPoint=state.continuation) for state in kept_open
    ]
    try:
        await session.send(request)
    except EXPECTED as error:
        log.debug("%s: continuation points are left to the session: %s", session.settings.endpoint, error)


def _time(at: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=at)
