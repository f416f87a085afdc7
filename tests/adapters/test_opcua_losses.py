"""What is seen of the losses of a living link at one look: neither one that still grows nor one that came since, and never less than was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import DeviceSpec, Interrupted, Item, Lost, Missed, Refilled, Samples, SystemClock
from adapters.opcua import DeviceSettings, LinkSettings, _history, _losses
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._backfill import INCOMPLETE, NOT_TO_LIVE
from adapters.opcua._losses import Losses
from adapters.opcua._monitoring import Item as MonitoredItem
from adapters.opcua._outlet import Outlet
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Row
from adapters.opcua._subscription import Group
from schemas.profile import OpcUaRules
from schemas.wire import Cause
from tests.adapters.opcua_collector import node, points

CLOCK = SystemClock()
SECOND = 1_000_000
ROW: Row = (7, 0, CLOCK.now() - SECOND, None)


class Rig:
    """The losses of one group on a session that gives what the test wants."""

    def __init__(self, points_of_group: int = 2) -> None:
        self.group = Group("press", "fast", 0.0)
        self.outlet = Outlet(100_000, Acknowledgements(), lambda _: None)
        self.told: list[Item] = []
        self.tasks: list[asyncio.Task[None]] = []
        spec = points([node(f"v{i}") for i in range(points_of_group)])
        device = DeviceSpec("press", DeviceSettings(), OpcUaRules(), {"fast": 0.0}, spec)
        self.items = {
            each.id: MonitoredItem(device, each, self.group, node=ua.NodeId(each.id, 1), item_id=each.id + 1)
            for each in spec
        }
        self.settings = LinkSettings.model_validate({"endpoint": "opc.tcp://here", "security": "none"})
        self.on_read: Callable[[], None] = lambda: None
        server_clock = ServerClock()
        self.losses = Losses(self, self.outlet, CLOCK, server_clock, lambda: self.items, self.spawn)  # type: ignore[arg-type]  # of a session it needs `read`
        self.group.on_loss = self.losses.take

    async def read(self, nodes: Sequence[Any]) -> list[Row]:
        """As a session's."""
        self.on_read()
        return [ROW] * len(nodes)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))

    def lose(self, *lost: int, ago: float = 10.0, end: int | None = None) -> Lost:
        """A loss of these points, until now unless `end` says otherwise."""
        now = CLOCK.now()
        hole = Lost(
            "press", list(lost), now - round(ago * SECOND), now if end is None else end, Cause.LOST, detail="gone"
        )
        self.group.lose(hole)
        return hole

    async def answer(self) -> Refilled:
        """The next one."""
        async with asyncio.timeout(10):
            while True:
                item = await self.outlet.get()
                assert item is not None
                self.told.append(item)
                if isinstance(item, Refilled):
                    return item


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Points of which the server keeps a history, one that holds the value before and the present one."""
    kept_points: set[int] = set()

    async def kept(session: Any, nodes: Sequence[Any]) -> list[bool]:
        return [each.Identifier in kept_points for each in nodes]

    async def before(session: Any, nodes: Sequence[Any], at: int, *_: Any) -> list[Row | None]:
        return [(1, 0, at - SECOND, None) for _ in nodes]

    async def raw(session: Any, nodes: Sequence[Any], start: int, end: int, take: Any, *_: Any) -> list[str | None]:
        for place in range(len(nodes)):
            await take(place, [ROW])
        return [None] * len(nodes)

    for name, function in (("kept", kept), ("before", before), ("raw", raw)):
        monkeypatch.setattr(_history, name, function)
    return kept_points


async def test_a_loss_that_began_while_another_waited_is_told_to_its_end(keeping: set[int]) -> None:
    """The server ends a subscription while the history of another group is read: the loss goes on until it is made anew."""
    keeping.add(0)
    rig = Rig()
    first = rig.lose(0)
    async with rig.losses._one:
        await asyncio.sleep(0.01)  # the task stands before the lock
        rig.group.growing += 1
        second = Lost("press", [0], first.end, CLOCK.now(), Cause.LOST, detail="ended")
        rig.group.holes.append(second)
    await rig.losses._one.acquire()  # the task has had its turn
    rig.losses._one.release()
    await asyncio.sleep(0.01)
    assert rig.group.holes == [first, second]
    second.end = CLOCK.now()
    rig.group.growing -= 1
    rig.group.on_loss(rig.group, second)
    answer = await rig.answer()
    assert list(answer.lost) == [first, second]
    assert [item for item in rig.told if isinstance(item, Refilled)] == [answer]


async def test_a_loss_that_came_while_the_present_values_were_read_waits_for_the_next_ones(keeping: set[int]) -> None:
    """Those were read before it: that the history goes on to them says nothing of it."""
    keeping.update({0, 1})
    rig = Rig()
    came: list[Lost] = []

    def read() -> None:
        if not came:
            came.append(rig.lose(0, 1, ago=0.0))

    rig.on_read = read
    first = rig.lose(0)
    answers = [await rig.answer(), await rig.answer()]
    assert [list(answer.lost) for answer in answers] == [[first], came]
    assert [answer.rest for answer in answers] == [[], []]


async def test_the_rest_of_a_loss_goes_to_its_end_also_where_that_is_ahead(keeping: set[int]) -> None:
    """A server that is half a minute ahead, within the tolerance: the readings have its own times, and so has the loss."""
    keeping.add(0)
    rig = Rig()
    ahead = CLOCK.now() + 30 * SECOND
    hole = rig.lose(0, 1, end=ahead)
    answer = await rig.answer()
    assert [(lost.points, lost.start, lost.end) for lost in answer.rest] == [([1], hole.start, ahead)]


async def test_a_broken_link_keeps_losses_and_witnesses(keeping: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a history must hold to be believed is not forgotten with the first attempt."""

    async def kept(session: Any, nodes: Sequence[Any]) -> list[bool]:
        raise ConnectionResetError

    monkeypatch.setattr(_history, "kept", kept)
    rig = Rig()
    hole = rig.lose(0, 1)
    seen = (5, 0, CLOCK.now())
    rig.group.witnesses, rig.group.unwitnessed = {0: [seen]}, {1}
    with pytest.raises(ConnectionResetError):
        await rig.tasks[0]
    assert rig.group.holes == [hole]
    assert rig.group.witnesses == {0: [seen]}
    assert rig.group.unwitnessed == {1}


async def test_witnesses_are_used_once(keeping: set[int]) -> None:
    """And those of a loss that came since wait for its own turn."""
    keeping.update({0, 1})
    rig = Rig()
    now = CLOCK.now()
    rig.lose(0)
    rig.group.witnesses, rig.group.unwitnessed = {0: [(5, 0, now)]}, set()
    waiting: list[tuple[Any, Any]] = []

    def read() -> None:
        if waiting:
            waiting.append((dict(rig.group.witnesses), set(rig.group.unwitnessed)))
            return
        waiting.append(({}, set()))
        rig.lose(0, 1, ago=0.0)
        rig.group.witnesses[0].append((6, 0, now))
        rig.group.unwitnessed = {1}

    rig.on_read = read
    first, second = await rig.answer(), await rig.answer()
    assert [lost.detail for lost in first.rest] == [f"gone; {INCOMPLETE}"]
    assert waiting[1] == ({}, {1})  # both came before the first history was read, which had to hold both
    assert second.rest == []
    assert not rig.group.witnesses
    assert not rig.group.unwitnessed


def test_points_of_one_fate_are_one_gap() -> None:
    """Ten thousand points, each with a history that ends elsewhere, are not ten thousand gaps."""
    many = 10_000
    holes = [Lost("press", range(many), i, i + 1_000, Cause.OVERRUN, detail="full") for i in range(0, 5_000, 1_000)]
    missed = [Missed((point,), point, 10_000, NOT_TO_LIVE) for point in range(many)]
    rest = _losses._rest(holes, missed)
    assert [(lost.points, lost.start, lost.end) for lost in rest] == [
        (list(range(many)), hole.start, hole.end) for hole in holes
    ]


def test_a_clock_that_was_set_back_hides_no_loss() -> None:
    hole = Lost("press", [0, 1], 2_000, 1_000, Cause.LOST, detail="gone")
    missed = [Missed((0,), 500, 1_500, NOT_TO_LIVE), Missed((1,), 500, 1_500, "no history")]
    rest = _losses._rest([hole], missed)
    assert [(lost.points, lost.start, lost.end) for lost in rest] == [([0], 1_000, 1_000), ([1], 1_000, 1_000)]


async def test_present_values_are_handed_on_where_there_is_no_history(keeping: set[int]) -> None:
    rig = Rig()
    hole = rig.lose(0, 1)
    answer = await rig.answer()
    assert list(answer.rest) == [hole]
    assert [type(item) for item in rig.told] == [Interrupted, Samples, Refilled]
    (samples,) = [item for item in rig.told if isinstance(item, Samples)]
    assert list(samples.values) == [7, 7]
