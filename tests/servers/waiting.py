"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

INTERVAL = 0.02
"""Seconds between two looks at a condition, unless told otherwise."""


class ConditionNotMet(AssertionError):
    """The condition did not become true before the deadline; the message says what was last seen."""


def eventually(
    predicate: Callable[[], T],
    timeout: float = 5.0,
    *,
    what: str = "",
    interval: float = INTERVAL,
) -> T:
    """Call `predicate` until what it returns is true, and return that.

    `timeout` and `interval` are in seconds; the predicate is called at least once, and once more after the deadline
    has passed. `what` names the condition for the message. An AssertionError of the predicate counts as "not yet".
    Raises ConditionNotMet with the last value (or the last AssertionError) when the deadline passes.
    """
    deadline = time.monotonic() + timeout
    while True:
        last_look = time.monotonic() >= deadline
        seen: object
        try:
            value = predicate()
            if value:
                return value
            seen = value
        except AssertionError as not_yet:
            seen = not_yet
        if last_look:
            raise ConditionNotMet(_message(what, timeout, seen))
        time.sleep(interval)


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[T]], timeout: float = ..., *, what: str = ..., interval: float = ...
) -> T: ...


@overload
async def eventually_async(
    predicate: Callable[[], T], timeout: float = ..., *, what: str = ..., interval: float = ...
) -> T: ...


async def eventually_async(
    predicate: Callable[[], object],
    timeout: float = 5.0,
    *,
    what: str = "",
    interval: float = INTERVAL,
) -> object:
    """Like `eventually`, for a coroutine: the event loop runs on between two looks.

    The predicate may be a plain function or return an awaitable; one look may itself take longer than the timeout only
    if it is not cancellable. Raises ConditionNotMet when the deadline passes.
    """
    deadline = time.monotonic() + timeout
    while True:
        last_look = time.monotonic() >= deadline
        seen: object
        try:
            answer = predicate()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            seen = value
        except AssertionError as not_yet:
            seen = not_yet
        if last_look:
            raise ConditionNotMet(_message(what, timeout, seen))
        await asyncio.sleep(interval)


def _message(what: str, timeout: float, seen: object) -> str:
    return f"{what or 'the condition'} did not come true within {timeout:g} s; last seen: {seen!r}"
