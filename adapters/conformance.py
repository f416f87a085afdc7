"""The contract tests that every adapter must pass, over a real device on loopback.

Write a `Harness` for your device, a pytest fixture `harness` that yields one, and a class:

    class TestContract(AdapterContract):
        pass

The tests are coroutines (pytest-asyncio, asyncio_mode=auto). They wait for conditions with deadlines and never assert a speed except where the
contract names one (`disconnect` within two seconds).
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from adapters.contract import (
    Adapter,
    AdapterError,
    AuthError,
    BrowseNode,
    ConfigError,
    Counters,
    DeadbandHeld,
    DeviceEvent,
    DeviceState,
    EventTrouble,
    Identity,
    Interrupted,
    Item,
    LinkSpec,
    LinkTrouble,
    Lost,
    PointTrouble,
    Recovered,
    Refilled,
    Samples,
    TransientError,
    WritesDisabledError,
)
from schemas.wire import Cause

DEADLINE = 20.0
"""Seconds that anything may take which the contract does not bound: long for a loaded machine, short for a person."""
QUICKLY = 10.0
"""Seconds within which a connect to nobody must fail."""
CLOSING = 2.0
"""Seconds that `disconnect` may take (adapters.contract.Adapter.disconnect)."""

PLAIN = (bool, int, float, str, bytes, list, dict, type(None))
"""What a raw value may be; times are integer microseconds."""


class Harness(ABC):
    """A running device, and what a test may do to it. Periods of groups should be 0.1 s or less."""

    adapter: type[Adapter]

    @abstractmethod
    def spec(self, *, bad: bool = False) -> LinkSpec:
        """A link to the device with one `DeviceSpec` of at least two readable points in one group; with `bad` there is one
        more point, the last, that the device does not have."""

    @abstractmethod
    def dead(self) -> LinkSpec:
        """The same, where nothing listens."""

    @abstractmethod
    def silent(self) -> LinkSpec:
        """The same, where a connection is accepted and nothing ever answered; time-outs of a second or less."""

    @abstractmethod
    async def change(self) -> None:
        """Gives every readable point a value that it did not have before."""

    @abstractmethod
    async def cut(self) -> None:
        """Breaks every open link; a new one is accepted at once."""

    @abstractmethod
    async def down(self) -> None:
        """The device is switched off: links break, new ones are refused."""

    @abstractmethod
    async def up(self) -> None:
        """The device is switched on again."""

    @abstractmethod
    async def open_links(self) -> int:
        """How many sessions and connections the device (and the silent listener) hold open for somebody."""


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, deadline: float = DEADLINE) -> None:
    """Returns when `condition` holds. Raises AssertionError that says `what` when it does not within `deadline` seconds."""
    end = asyncio.get_running_loop().time() + deadline
    while not await condition():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def connected(harness: Harness, spec: LinkSpec) -> AsyncIterator[Adapter]:
    """A connected adapter, which is disconnected at the end."""
    adapter = harness.adapter(spec)
    await connect(adapter)
    try:
        yield adapter
    finally:
        await disconnect(adapter)


async def connect(adapter: Adapter) -> None:
    """`connect` with a deadline."""
    async with asyncio.timeout(DEADLINE):
        await adapter.connect()


async def disconnect(adapter: Adapter) -> None:
    """`disconnect` within the time that the contract gives it, with some room for a loaded machine."""
    async with asyncio.timeout(CLOSING + 1.0):
        await adapter.disconnect()


async def gather(adapter: Adapter, until: Callable[[list[Item]], bool], *, ack: bool = True) -> list[Item]:
    """Iterates `items` until `until` holds for what has been yielded. Fails after the deadline, or if `items` ends first."""
    got: list[Item] = []
    iterator = adapter.items()
    try:
        async with asyncio.timeout(DEADLINE):
            async for item in iterator:
                check_item(item)
                got.append(item)
                token = getattr(item, "token", None)
                if ack and token is not None:
                    adapter.ack(token)
                if until(got):
                    return got
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE} s; the last items were {got[-5:]}") from None
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
    raise AssertionError(f"items ended early, after {got[-5:]}")


def check_item(item: Item) -> None:
    """What holds for every single item."""
    if isinstance(item, Samples):
        rows = len(item.points)
        assert len(item.values) == rows, f"{len(item.values)} values for {rows} points"
        for name in ("source_ts", "status", "flags"):
            column = getattr(item, name)
            assert column is None or len(column) == rows, f"column {name} has {len(column)} rows, points has {rows}"
        assert isinstance(item.received, int)
        assert item.complete_to is None or item.complete_to <= item.received
        for status in item.status or ():
            assert 0 <= status <= 0xFFFFFFFF, f"status {status} is not an unsigned 32-bit StatusCode"
        for value in item.values:
            check_plain(value)
    elif isinstance(item, Lost):
        assert item.cause in set(Cause), f"{item.cause!r} is not a cause of schemas.wire.Cause"
        assert item.start <= item.end
    elif isinstance(item, Refilled):
        for lost in (*item.lost, *item.rest):
            check_item(lost)
    else:
        kinds = (
            DeviceEvent
            | DeviceState
            | PointTrouble
            | EventTrouble
            | LinkTrouble
            | DeadbandHeld
            | Recovered
            | Interrupted
            | Identity
        )
        assert isinstance(item, kinds), f"{type(item).__name__} is no item"


def check_plain(value: Any) -> None:
    """A raw value is built of Python's own types alone: no object of a library crosses the contract."""
    assert type(value) in PLAIN, f"{value!r} is a {type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, list):
        for element in value:
            check_plain(element)
    elif isinstance(value, dict):
        for key, element in value.items():
            assert type(key) is str
            check_plain(element)


def good_points(spec: LinkSpec, *, bad: bool = False) -> set[int]:
    """The readable points of a harness's spec."""
    points = [point.id for device in spec.devices for point in device.points]
    return set(points[:-1] if bad else points)


def seen_good(items: list[Item]) -> set[int]:
    """The points that have at least one Good row."""
    seen: set[int] = set()
    for item in items:
        if isinstance(item, Samples):
            if item.status is None:
                seen.update(item.points)
            else:
                seen.update(p for p, s in zip(item.points, item.status, strict=True) if s >> 30 == 0)
    return seen


def rows_of(items: list[Item], point: int) -> list[tuple[Any, int]]:
    """(value, status) of each row of one point, in order."""
    rows: list[tuple[Any, int]] = []
    for item in items:
        if isinstance(item, Samples):
            for i, p in enumerate(item.points):
                if p == point:
                    rows.append((item.values[i], 0 if item.status is None else item.status[i]))
    return rows


class AdapterContract:
    """Subclass it as `class TestContract(AdapterContract)`, with a fixture `harness`."""

    # ------------------------------------------------------------------------------------------------- construction

    async def test_models_are_pydantic(self, harness: Harness) -> None:
        adapter = harness.adapter
        assert adapter.protocol
        for model in (adapter.LinkSettings, adapter.DeviceSettings, adapter.Address, adapter.Rules):
            assert issubclass(model, BaseModel)
            model.model_json_schema()

    async def test_constructor_opens_nothing_and_needs_no_loop(self, harness: Harness) -> None:
        def build() -> Adapter:
            assert asyncio._get_running_loop() is None
            return harness.adapter(harness.spec())

        adapter = await asyncio.to_thread(build)
        assert isinstance(adapter, Adapter)
        assert await harness.open_links() == 0
        assert adapter.counters() == Counters()

    async def test_endpoint_is_for_people(self, harness: Harness) -> None:
        spec = harness.spec()
        assert "://" in harness.adapter(spec).endpoint(spec.devices[0].id)

    # ------------------------------------------------------------------------------------------------------- reading

    async def test_every_point_is_yielded_and_follows_changes(self, harness: Harness) -> None:
        spec = harness.spec()
        good = good_points(spec)
        async with connected(harness, spec) as adapter:
            first = await gather(adapter, lambda items: seen_good(items) >= good)
            before = {point: rows_of(first, point)[-1][0] for point in good}
            await harness.change()
            await gather(
                adapter,
                lambda items: all(any(v != before[p] for v, s in rows_of(items, p) if s >> 30 == 0) for p in good),
            )
            assert adapter.counters().values >= 2 * len(good)
            assert adapter.counters().requests > 0

    async def test_points_are_known_and_received_is_monotone(self, harness: Harness) -> None:
        spec = harness.spec()
        groups = {
            (d.id, p.group): {q.id for q in d.points if q.group == p.group} for d in spec.devices for p in d.points
        }
        begin = spec.clock.now()
        async with connected(harness, spec) as adapter:

            def enough(items: list[Item]) -> bool:
                return sum(isinstance(item, Samples) for item in items) >= 3

            items = await gather(adapter, enough)
        last = begin
        for item in items:
            if isinstance(item, Samples):
                assert set(item.points) <= groups[item.device, item.group]
                assert last <= item.received <= spec.clock.now()
                last = item.received

    async def test_complete_to_advances_and_never_goes_back(self, harness: Harness) -> None:
        spec = harness.spec()

        def marks(items: list[Item]) -> list[int]:
            return [i.complete_to for i in items if isinstance(i, Samples) and i.complete_to is not None]

        async with connected(harness, spec) as adapter:
            items = await gather(adapter, lambda items: len(set(marks(items))) >= 3)
        found: dict[tuple[str, str], int] = {}
        for item in items:
            if isinstance(item, Samples) and item.complete_to is not None:
                key = (item.device, item.group)
                assert item.complete_to >= found.get(key, 0)
                assert item.complete_to <= spec.clock.now()
                found[key] = item.complete_to

    async def test_read_gives_the_points_asked_for(self, harness: Harness) -> None:
        spec = harness.spec()
        asked = sorted(good_points(spec), reverse=True)
        async with connected(harness, spec) as adapter:
            samples = await adapter.read(asked)
        check_item(samples)
        assert sorted(samples.points) == sorted(asked)
        assert all(status >> 30 == 0 for status in samples.status or ())
        assert all(value is not None for value in samples.values)

    async def test_one_bad_point_costs_nobody(self, harness: Harness) -> None:
        spec = harness.spec(bad=True)
        good = good_points(spec, bad=True)
        (bad,) = {p.id for d in spec.devices for p in d.points} - good

        def done(items: list[Item]) -> bool:
            return (
                seen_good(items) >= good
                and any(status >> 30 == 2 for _, status in rows_of(items, bad))
                and any(isinstance(item, PointTrouble) and item.point == bad and item.problem for item in items)
            )

        async with connected(harness, spec) as adapter:
            items = await gather(adapter, done)
            assert not any(isinstance(item, PointTrouble) and item.point in good for item in items)
            assert not any(isinstance(item, DeviceState) and not item.up for item in items)
            await harness.change()
            await gather(adapter, lambda items: seen_good(items) >= good)

    # --------------------------------------------------------------------------------------------------- acknowledging

    async def test_ack_never_raises(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        unknown: list[Any] = [None, 0, -1, "unknown", (1, 2, 3), (0, 0, 0), (-1, 2**40, "x"), frozenset({1})]
        for token in unknown:
            adapter.ack(token)
        await connect(adapter)
        items = await gather(adapter, lambda items: seen_good(items) >= good_points(spec), ack=False)
        tokens = [item.token for item in items if isinstance(item, Samples) and item.token is not None]
        for token in (*unknown, *tokens, *tokens):
            adapter.ack(token)
        await harness.change()
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await disconnect(adapter)
        await connect(adapter)
        for token in tokens:  # of an earlier session
            adapter.ack(token)
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await disconnect(adapter)
        for token in tokens:
            adapter.ack(token)

    # ------------------------------------------------------------------------------------- connecting, disconnecting

    async def test_connects_again_after_disconnect(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        for _ in range(3):
            await connect(adapter)
            await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
            await disconnect(adapter)
            await self._nothing_open(harness)

    async def test_disconnect_is_idempotent(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.spec())
        await disconnect(adapter)
        await connect(adapter)
        await disconnect(adapter)
        await disconnect(adapter)
        await asyncio.gather(disconnect(adapter), disconnect(adapter))
        await self._nothing_open(harness)

    async def test_disconnect_ends_the_iteration(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.spec())
        await connect(adapter)
        started = asyncio.Event()

        async def iterate() -> None:
            async for _ in adapter.items():
                started.set()

        task = asyncio.create_task(iterate())
        async with asyncio.timeout(DEADLINE):
            await started.wait()
        await disconnect(adapter)
        async with asyncio.timeout(DEADLINE):
            await task  # ends, and does not raise
        await self._nothing_open(harness)

    async def test_iteration_may_be_cancelled(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        await connect(adapter)

        async def iterate() -> None:
            async for _ in adapter.items():
                pass

        task = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await disconnect(adapter)
        await self._nothing_open(harness)

    async def test_cancelled_connect_leaves_nothing_open(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.spec())
        finished = False
        steps = 0
        while not finished:
            task = asyncio.create_task(adapter.connect())
            for _ in range(steps):
                if task.done():
                    break
                await asyncio.sleep(0.001)
            task.cancel()
            try:
                await task
                finished = True
            except asyncio.CancelledError:
                await self._nothing_open(harness)
            steps += 3
        await disconnect(adapter)
        await self._nothing_open(harness)

    async def test_dead_endpoint_is_transient_and_quick(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.dead())
        for _ in range(2):
            error = await self._fails(adapter, QUICKLY)
            assert isinstance(error, TransientError)
            assert error.reason
            assert error.fix_en
            assert error.fix_zh
        await disconnect(adapter)

    async def test_silent_endpoint_is_transient(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.silent())
        error = await self._fails_somewhere(adapter)
        assert isinstance(error, TransientError)
        await disconnect(adapter)
        await self._nothing_open(harness)

    async def test_cancelled_connect_to_silent_endpoint(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.silent())
        task = asyncio.create_task(adapter.connect())
        for _ in range(5):
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await disconnect(adapter)
        await self._nothing_open(harness)

    # ------------------------------------------------------------------------------------------------------- trouble

    async def test_a_cut_link_is_transient_and_heals(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        await connect(adapter)
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await harness.cut()
        error = await self._iteration_fails(adapter)
        assert error is None or isinstance(error, TransientError)
        await disconnect(adapter)
        await connect(adapter)
        await harness.change()
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await disconnect(adapter)
        await self._nothing_open(harness)

    async def test_a_device_off_and_on_again(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        await connect(adapter)
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await harness.down()
        error = await self._iteration_fails(adapter)
        await disconnect(adapter)
        assert error is None or isinstance(error, TransientError)
        error = await self._fails_somewhere(adapter)
        assert error is None or isinstance(error, TransientError)
        await disconnect(adapter)
        await harness.up()
        await connect(adapter)
        await gather(adapter, lambda items: seen_good(items) >= good_points(spec))
        await disconnect(adapter)
        await self._nothing_open(harness)

    async def test_disconnect_from_a_device_that_is_gone(self, harness: Harness) -> None:
        adapter = harness.adapter(harness.spec())
        await connect(adapter)
        await harness.down()
        await disconnect(adapter)
        await harness.up()

    async def test_read_without_a_link_is_transient(self, harness: Harness) -> None:
        spec = harness.spec()
        adapter = harness.adapter(spec)
        for _ in range(2):
            try:
                async with asyncio.timeout(DEADLINE):
                    await adapter.read(sorted(good_points(spec)))
                raise AssertionError("read without a link returned")
            except TransientError:
                pass
            await connect(adapter)
            await disconnect(adapter)

    async def test_write_is_refused(self, harness: Harness) -> None:
        spec = harness.spec()
        async with connected(harness, spec) as adapter:
            refusal: WritesDisabledError | None = None
            try:
                await adapter.write(min(good_points(spec)), 1)
            except WritesDisabledError as error:
                refusal = error
            assert refusal is not None, "a write was not refused"
            assert refusal.fix_en
            assert refusal.fix_zh

    async def test_browse_yields_nodes_or_says_that_it_cannot(self, harness: Harness) -> None:
        async with connected(harness, harness.spec()) as adapter:
            count = 0
            try:
                async with asyncio.timeout(DEADLINE):
                    async for node in adapter.browse():
                        assert isinstance(node, BrowseNode)
                        assert node.node
                        check_plain(node.value)
                        count += 1
            except ConfigError:
                return
            assert count > 0

    # -------------------------------------------------------------------------------------------------------- pieces

    async def _nothing_open(self, harness: Harness) -> None:
        async def none() -> bool:
            return await harness.open_links() == 0

        await eventually(none, "the device sees no link of ours", deadline=5.0)

    async def _fails(self, adapter: Adapter, within: float) -> AdapterError:
        try:
            async with asyncio.timeout(within):
                await adapter.connect()
        except AdapterError as error:
            return error
        raise AssertionError("connect to nobody succeeded")

    async def _fails_somewhere(self, adapter: Adapter) -> AdapterError | None:
        """What `connect` or, where that only opens a port, the iteration says of a device that does not answer."""
        try:
            async with asyncio.timeout(DEADLINE):
                await adapter.connect()
        except AdapterError as error:
            return error
        return await self._iteration_fails(adapter)

    async def _iteration_fails(self, adapter: Adapter) -> AdapterError | None:
        """The error with which `items` ends; None when a `DeviceState` said instead that the device is down."""
        try:
            async with asyncio.timeout(DEADLINE):
                async for item in adapter.items():
                    check_item(item)
                    if isinstance(item, DeviceState) and not item.up:
                        return None
        except (AuthError, ConfigError) as error:
            raise AssertionError(f"a link that is lost is weather, not {type(error).__name__}") from error
        except AdapterError as error:
            return error
        raise AssertionError("items ended although nobody disconnected")
