"""The host of a link, over an adapter that does what the test says, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from adapters.contract import (
    AuthError,
    ConfigError,
    Counters,
    DeviceEvent,
    DeviceState,
    EventTrouble,
    LinkSpec,
    LinkTrouble,
    Lost,
    Missed,
    PointTrouble,
    Recovered,
    Samples,
    TransientError,
)
from gateway.collect._device_events import event_id
from gateway.collect.items import DeviceStatus, Events, Gaps, Item, Readings
from gateway.collect.link import LinkHost, SinkError
from gateway.config.plan import PlannedLink
from schemas import status as codes
from schemas.bilingual import Bilingual, chinese
from schemas.profile import EventClause
from schemas.wire import Flag, Gap, Link, Progress
from tests.collect.plans import FIRST, INDEX, Address, planned
from tests.virtual_time import START, VirtualTime, settle

S = 1_000_000


class ScriptedAdapter:
    """Gives what is put into `queue`: items; an exception is raised."""

    protocol: ClassVar[str] = "fake"
    LinkSettings: ClassVar[type[BaseModel]] = Address
    DeviceSettings: ClassVar[type[BaseModel]] = Address
    Address: ClassVar[type[BaseModel]] = Address
    Rules: ClassVar[type[BaseModel]] = Address
    made: ClassVar[list[ScriptedAdapter]] = []

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.refusals: list[Exception] = []
        self.acked: list[Hashable] = []
        self.connects = self.disconnects = 0
        self.ended = False
        self.made.append(self)

    async def connect(self) -> None:
        self.connects += 1
        if self.refusals:
            raise self.refusals.pop(0)

    async def items(self) -> AsyncIterator[Any]:
        self.ended = False
        try:
            while True:
                item = await self.queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.ended = True

    def ack(self, token: Hashable) -> None:
        self.acked.append(token)

    async def disconnect(self) -> None:
        self.disconnects += 1

    def endpoint(self, device: str) -> str:
        return f"fake://{device}"

    def counters(self) -> Counters:
        return Counters(requests=7)


class ListSink:
    """Keeps what it is given; `durable` makes it so. `hold` lets `put` wait."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.waiting: list[Callable[[], None]] = []
        self.hold: asyncio.Event | None = None
        self.error: Exception | None = None

    async def put(self, item: Item, on_durable: Callable[[], None] | None = None) -> None:
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            await self.hold.wait()
        self.items.append(item)
        if on_durable is not None:
            self.waiting.append(on_durable)

    def durable(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()

    def taken(self, kind: type) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]

    def ups_and_downs(self) -> list[tuple[str, bool, float, str]]:
        return [(i.device, i.up, (i.at - START) / S, i.reason) for i in self.taken(Link)]

    def gaps(self) -> list[Gap]:
        return [gap for item in self.taken(Gaps) for gap in item.gaps]


class Rig:
    def __init__(
        self, *devices: Any, adapter: type | None = ScriptedAdapter, broken: ConfigError | None = None
    ) -> None:
        self.time = VirtualTime()
        self.sink = ListSink()
        self.told: list[DeviceStatus] = []
        self.devices = devices or (planned([{"type": "int16"}, {"type": "int16", "group": "slow"}]),)
        link = PlannedLink("link", "fake", adapter, Address() if adapter else None, self.devices, broken)
        self.host = LinkHost(
            link, self.sink, clock=self.time, on_status=self.told.append, sleep=self.time.sleep, chance=lambda: 0.5
        )

    @property
    def adapter(self) -> Any:
        return ScriptedAdapter.made[-1]

    def state(self, device: str = "d") -> str:
        return next(s.state for s in self.host.statuses() if s.device == device)

    async def give(self, *items: Any) -> None:
        for item in items:
            self.adapter.queue.put_nowait(item)
        await settle()

    async def poll(self, *values: Any, group: str = "default", first: int = 0, after: float = 1.0, **more: Any) -> None:
        await self.time.advance(after)
        points = range(FIRST + first, FIRST + first + len(values))
        more.setdefault("complete_to", self.time.now())
        await self.give(Samples("d", group, self.time.now(), points, values, **more))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.host.run())
        await settle()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def lost(reason: str = "cut") -> TransientError:
    return TransientError("the link is cut", reason=reason, fix_en="Check the cable.", fix_zh="检查电缆。")


# ------------------------------------------------------------------------------------------------- readings and progress


async def test_readings_go_to_the_sink_and_only_changes_do() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
        await rig.poll(5)
        await rig.poll(6)
    readings = rig.sink.taken(Readings)
    assert [(r.points, r.values, r.ts) for r in readings] == [
        ([INDEX], [5], [START + S]),
        ([INDEX], [6], [START + 3 * S]),
    ]
    assert rig.sink.ups_and_downs() == [("d", True, 1.0, "")]
    assert isinstance(rig.sink.items[0], Link)


async def test_what_is_durable_is_acknowledged_and_what_is_unchanged_at_once() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5, token="a")
        assert rig.adapter.acked == []
        await rig.poll(5, token="b")
        assert rig.adapter.acked == ["b"]
        rig.sink.durable()
        assert rig.adapter.acked == ["b", "a"]


async def test_progress_once_a_second_after_what_it_speaks_of() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5, after=0.5)
        await rig.poll(1, group="slow", first=1, after=0.1)
        await rig.poll(6, after=0.1)
        await rig.time.advance(10)
    (progress,) = rig.sink.taken(Progress)
    assert {(d.group, d.complete_to) for d in progress.done} == {
        ("default", START + 700_000),
        ("slow", START + 600_000),
    }
    assert rig.sink.items[-1] is progress


async def test_a_slow_outbox_holds_the_adapter_back_and_progress_waits_for_it() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5, after=0.5)
        rig.sink.hold = asyncio.Event()
        await rig.poll(6, after=0.1)
        await rig.poll(7, after=0.1)
        assert rig.adapter.queue.qsize() == 1
        await rig.time.advance(5)
        rig.sink.hold.set()
        await settle()
    values = [r.values[0] for r in rig.sink.taken(Readings)]
    assert values == [5, 6, 7]
    first = next(i for i, item in enumerate(rig.sink.items) if isinstance(item, Progress))
    complete = rig.sink.taken(Progress)[0].done[0].complete_to
    told = [item for item in rig.sink.items[:first] if isinstance(item, Readings)]
    assert complete <= max(r.received for r in told)


async def test_the_longest_silence_passes_without_samples() -> None:
    rig = Rig(planned([{"type": "float64", "silence": 5, "deadband": {"absolute": 1}}]))
    async with rig.running():
        await rig.poll(5.0, source_ts=[START])
        await rig.poll(5.5, source_ts=[START + S])
        await rig.time.advance(10)
    assert [r.values for r in rig.sink.taken(Readings)] == [[5.0], [5.5]]


# ------------------------------------------------------------------------------------------------------ coming and going


async def test_a_lost_link_takes_its_devices_down_since_they_were_last_alive_and_leaves_one_gap() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
        await rig.poll(1, group="slow", first=1)
        await rig.time.advance(3)
        rig.adapter.refusals = [lost() for _ in range(3)]
        await rig.give(lost())
        assert rig.state() == "recovering"
        await rig.time.advance(16)
        await rig.poll(5)
        await rig.poll(1, group="slow", first=1)
        assert rig.state() == "ok"
    back = (rig.sink.taken(Link)[-1].at - START) / S
    assert rig.sink.ups_and_downs() == [("d", True, 1.0, ""), ("d", False, 2.0, "cut"), ("d", True, back, "")]
    assert [r.values for r in rig.sink.taken(Readings)] == [[5], [1]]  # good again without a new row
    assert [(g.points, g.cause, (g.start - START) / S, (g.end - START) / S) for g in rig.sink.gaps()] == [
        ([INDEX], "disconnected", 1.0, back),
        ([INDEX + 1], "disconnected", 2.0, back + 1),
    ]
    assert rig.adapter.connects == 5
    assert rig.adapter.disconnects == 5  # after a refusal too: nothing stays open
    assert len(ScriptedAdapter.made) >= 1


async def test_a_device_overnight_is_one_interval_and_no_rows() -> None:
    rig = Rig(planned([{"type": "int16"}]))
    async with rig.running():
        await rig.poll(5)
        rig.adapter.refusals = [lost() for _ in range(2000)]
        await rig.give(lost())
        items = len(rig.sink.items)
        await rig.time.advance(8 * 3600)
        assert len(rig.sink.items) == items
        rig.adapter.refusals.clear()
        await rig.time.advance(120)
        await rig.poll(5)
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True, False, True]
    assert len(rig.sink.taken(Readings)) == 1
    (gap,) = rig.sink.gaps()
    assert gap.points is None


async def test_a_link_that_never_came_is_down_from_the_start() -> None:
    rig = Rig()
    ScriptedAdapter.made[-1].refusals = [lost("refused")] * 3
    async with rig.running():
        await rig.time.advance(30)
        await rig.poll(5)
    assert [(up, reason) for _, up, _, reason in rig.sink.ups_and_downs()] == [(False, "refused"), (True, "")]
    assert rig.sink.gaps() == []  # before the start of the collector is not the link's


async def test_a_dead_unit_on_a_living_link_is_down_alone_until_the_adapter_says_otherwise() -> None:
    first = planned([{"type": "int16"}])
    second = planned([{"type": "int16"}], device="e")
    rig = Rig(first, second)
    async with rig.running():
        await rig.poll(5)
        await rig.give(DeviceState("e", False, START + S, "no_answer", "Check it.", "请检查。"))
        bad = [codes.BAD_NO_COMMUNICATION]
        await rig.give(Samples("e", "default", START + 2 * S, [FIRST], [None], status=bad))
        await rig.give(Samples("e", "default", START + 3 * S, [], [], complete_to=START + 3 * S))
        assert (rig.state("d"), rig.state("e")) == ("ok", "recovering")
        status = next(s for s in rig.host.statuses() if s.device == "e")
        assert (status.reason, status.fix_en, status.fix_zh) == ("no_answer", "Check it.", "请检查。")
        await rig.time.advance(60)
        assert rig.state("e") == "recovering"
        await rig.give(DeviceState("e", True, START + 70 * S))
        assert rig.state("e") == "ok"
    assert rig.sink.ups_and_downs() == [
        ("d", True, 1.0, ""),
        ("e", False, 1.0, "no_answer"),
        ("e", True, 70.0, ""),
    ]
    assert [r.device for r in rig.sink.taken(Readings)] == ["d"]


async def test_states_are_told_once() -> None:
    rig = Rig()
    async with rig.running():
        for _ in range(3):
            await rig.give(DeviceState("d", True, START))
        for _ in range(3):
            await rig.give(DeviceState("d", False, START, "no_answer"))
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True, False]


async def test_only_bad_samples_are_no_proof_of_life() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(None, status=[codes.BAD_TIMEOUT], complete_to=None)
        assert rig.state() == "starting"
        await rig.poll(7, complete_to=None)
        assert rig.state() == "ok"


async def test_a_device_of_which_nothing_is_said_counts_as_up() -> None:
    rig = Rig()
    async with rig.running():
        await rig.time.advance(9)
        assert rig.state() == "starting"
        await rig.time.advance(3)
        assert rig.state() == "ok"


# ---------------------------------------------------------------------------------------------------------------- errors


async def test_who_is_refused_does_not_hammer() -> None:
    rig = Rig()
    ScriptedAdapter.made[-1].refusals = [
        AuthError("bad password", reason="auth", fix_en="Set it.", fix_zh="请设置。")
    ] * 3
    async with rig.running():
        await rig.time.advance(0)
        assert rig.state() == "failed"
        assert rig.host.statuses()[0].fix_zh == "请设置。"
        await rig.time.advance(59)
        assert rig.adapter.connects == 1
        await rig.time.advance(1000)
        assert rig.adapter.connects == 4
    assert [s for s in rig.time.slept if s > 30] == [60, 120, 240]


async def test_who_is_refused_goes_on_as_soon_as_a_person_has_cured_it() -> None:
    rig = Rig()
    trusted: list[bool] = []
    refusal = AuthError("unknown certificate", reason="auth", cured=lambda: bool(trusted))
    ScriptedAdapter.made[-1].refusals = [refusal]
    async with rig.running():
        await rig.time.advance(30)
        assert (rig.adapter.connects, rig.state()) == (1, "failed")
        trusted.append(True)
        await rig.time.advance(4)
        assert rig.adapter.connects == 2


async def test_a_wrong_configuration_fails_until_restart() -> None:
    rig = Rig()
    ScriptedAdapter.made[-1].refusals = [ConfigError("no such node", reason="config")]
    async with rig.running():
        await rig.time.advance(10_000)
        assert (rig.adapter.connects, rig.state()) == (1, "failed")


async def test_an_adapter_that_cannot_be_loaded_or_made_costs_its_own_link() -> None:
    class Impossible(ScriptedAdapter):
        def __init__(self, spec: LinkSpec) -> None:
            raise ZeroDivisionError("a bug of theirs")

    for rig, reason in (
        (Rig(adapter=None, broken=ConfigError("broken", reason="adapter_broken")), "adapter_broken"),
        (Rig(adapter=Impossible), "adapter_failed"),
    ):
        async with rig.running():
            await rig.time.advance(100)
            assert rig.state() == "failed"
            assert rig.host.supervised.condition.reason == reason
            assert rig.host.endpoint("d") == ""
            assert rig.host.counters() == Counters()


async def test_a_bug_of_the_adapter_is_a_state_and_the_link_comes_back() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
        await rig.give(KeyError("their bug"))
        assert rig.state() == "failed"
        await rig.poll(6, after=5)
        assert rig.state() == "ok"
        await rig.give(Samples("d", "default", rig.time.now(), [FIRST + 99], [1]))
        assert rig.state() == "failed"
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True, False, True, False]


async def test_a_link_that_just_ends_is_lost() -> None:
    class Ending(ScriptedAdapter):
        async def items(self) -> AsyncIterator[Any]:
            return
            yield

    rig = Rig(adapter=Ending)
    async with rig.running():
        assert (rig.state(), rig.host.supervised.condition.reason) == ("recovering", "link_ended")


async def test_a_failing_sink_ends_the_host_and_is_not_blamed_on_the_device() -> None:
    rig = Rig()
    async with rig.running() as task:
        await rig.poll(5)
        rig.sink.error = OSError("disk")
        await rig.poll(6)
        with pytest.raises(SinkError, match="OSError: disk"):
            await task
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True]
    assert rig.adapter.disconnects == 1


async def test_stopping_closes_the_link_and_records_no_outage() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True]
    assert (rig.adapter.disconnects, rig.adapter.ended) == (1, True)
    assert [s.state for s in rig.told][-2:] == ["stopping", "stopped"]


async def test_a_disconnect_that_fails_hides_nothing() -> None:
    class Stubborn(ScriptedAdapter):
        async def disconnect(self) -> None:
            raise RuntimeError("cannot")

    rig = Rig(adapter=Stubborn)
    async with rig.running():
        await rig.give(lost())
        assert rig.host.supervised.condition.reason == "cut"


# ---------------------------------------------------------------------------------------------- events, losses, troubles


def with_events() -> Any:
    from dataclasses import replace

    clause = EventClause(name="cycle", type="i=2041", severity=300, description="循环")
    return replace(planned([{"type": "int16"}]), events=(clause,))


async def test_an_event_sent_again_has_the_same_id() -> None:
    rig = Rig(with_events())
    event = DeviceEvent(
        "d", "cycle", START + S, START, 500, event_id="0a1b", type="nsu=u;i=1", fields={"n": 1}, token="t"
    )
    async with rig.running():
        await rig.give(event, event, DeviceEvent("d", "cycle", START + S, None, 5000))
        rig.sink.durable()
        assert rig.adapter.acked == ["t", "t"]
    first, second, other = (item.events[0] for item in rig.sink.taken(Events))
    assert first == second
    assert first.id == event_id("d", "0a1b") != event_id("e", "0a1b")
    assert (first.type, first.severity, first.ts, first.message_zh) == ("cycle", 300, START, "循环")
    assert first.fields == {"n": 1, "event_type": "nsu=u;i=1"}
    assert other.id != first.id
    assert (other.ts, other.flags) == (START + S, Flag.NO_SOURCE_TIME)
    assert [up for _, up, _, _ in rig.sink.ups_and_downs()] == [True]


async def test_an_event_of_a_clock_that_was_never_set_has_the_gateways_time() -> None:
    rig = Rig(with_events())
    async with rig.running():
        await rig.give(DeviceEvent("d", "cycle", START + S, 0, 500))
    (event,) = rig.sink.taken(Events)[0].events
    assert (event.ts, event.source_ts, event.flags) == (START + S, 0, Flag.GATEWAY_TIME)


async def test_fields_that_cannot_travel_do_not_cost_the_event() -> None:
    rig = Rig(with_events())
    fields = {
        "good": 1,
        "odd": object(),
        "long": "x" * 40_000,
        "huge": 2**70,
        "wide": "y" * 30_000,
        "tall": "z" * 20_000,
    }
    async with rig.running():
        await rig.give(DeviceEvent("d", "cycle", START, START, 0, fields=fields))
    (event,) = rig.sink.taken(Events)[0].events
    assert event.fields["good"] == 1
    assert len(event.fields["long"]) < 2000
    assert "wide" not in event.fields
    assert event.fields["tall"] == fields["tall"]
    assert event.severity == 300


async def test_what_the_adapter_lost_is_a_gap() -> None:
    rig = Rig()
    async with rig.running():
        await rig.give(
            Lost("d", [FIRST + 1], START, START + S, "overrun", 12, "queue", token="t"),
            Lost("d", None, START, START + S, "lost"),
        )
        rig.sink.durable()
        assert rig.adapter.acked == ["t"]
    assert rig.sink.gaps() == [
        Gap("d", [INDEX + 1], START, START + S, "overrun", 12, "queue"),
        Gap("d", None, START, START + S, "lost"),
    ]


async def test_trouble_of_points_is_in_the_state_and_goes_away() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
        before = len(rig.told)
        await rig.give(PointTrouble("d", FIRST, "BadNodeIdUnknown"), PointTrouble("d", FIRST + 1, "illegal address"))
        await rig.time.advance(1)
        (status,) = rig.told[before:]
        assert (status.state, status.reason) == ("degraded", "s0: BadNodeIdUnknown (+1)")
        assert status.troubles == {"s0": "BadNodeIdUnknown", "s1": "illegal address"}
        await rig.give(PointTrouble("d", FIRST, None), PointTrouble("d", FIRST + 1, None))
        await rig.time.advance(1)
        assert rig.told[-1].state == "ok"


async def test_trouble_of_an_event_is_in_the_state_with_its_fix_and_goes_away() -> None:
    rig = Rig(with_events())
    async with rig.running():
        await rig.poll(5)
        problem = Bilingual("the server refuses the field cushion", "服务器拒绝字段 cushion")
        await rig.give(EventTrouble("d", "cycle", problem, "Look.", "请查看。"))
        await rig.time.advance(1)
        status = rig.told[-1]
        assert (status.state, status.reason) == ("degraded", "event cycle: the server refuses the field cushion")
        assert chinese(status.reason) == "事件 cycle：服务器拒绝字段 cushion"
        assert (status.fix_en, status.fix_zh) == ("Look.", "请查看。")
        assert status.troubles == {"event cycle": "the server refuses the field cushion. Look."}
        assert chinese(status.troubles["event cycle"]) == "服务器拒绝字段 cushion。请查看。"
        await rig.give(EventTrouble("d", "cycle", None))
        await rig.time.advance(1)
        assert (rig.told[-1].state, rig.told[-1].fix_en) == ("ok", "")


async def test_trouble_of_the_link_is_in_the_state_of_its_devices_with_its_fix_and_goes_away() -> None:
    rig = Rig()
    async with rig.running():
        await rig.poll(5)
        problem = Bilingual("the line is 140 % busy", "总线占用 140 %")
        await rig.give(LinkTrouble("d", problem, "Lengthen the periods.", "请加长周期。"))
        await rig.time.advance(1)
        status = rig.told[-1]
        assert (status.state, status.reason) == ("degraded", "the link: the line is 140 % busy")
        assert chinese(status.reason) == "链路：总线占用 140 %"
        assert (status.fix_en, status.fix_zh) == ("Lengthen the periods.", "请加长周期。")
        await rig.give(LinkTrouble("d", None), LinkTrouble("d", None))
        await rig.time.advance(1)
        assert (rig.told[-1].state, rig.told[-1].fix_en) == ("ok", "")


async def test_what_the_normaliser_notices_is_written_too() -> None:
    rig = Rig(planned([{"type": "string"}]))
    async with rig.running():
        late = START + 600 * S
        await rig.poll("x" * 40_000, source_ts=[late], server_ts=late)
        await rig.poll("y" * 40_000, source_ts=[late], server_ts=late + S)
    assert [e.type for item in rig.sink.taken(Events) for e in item.events] == ["device_clock"]
    assert [gap.cause for gap in rig.sink.gaps()] == ["dropped", "dropped"]  # the second when the host ends


# ---------------------------------------------------------------------------------------------------- what was missed


class ResumableAdapter(ScriptedAdapter):
    """One that is asked."""

    def __init__(self, spec: LinkSpec) -> None:
        super().__init__(spec)
        self.asked: list[dict[tuple[str, str], float]] = []

    def resume(self, since: Mapping[tuple[str, str], int]) -> None:
        self.asked.append({key: (at - START) / S for key, at in since.items()})


def one_group(**device: Any) -> Rig:
    return Rig(
        planned([{"type": "int16", "deadband": {"absolute": 2}}, {"type": "int16"}], **device), adapter=ResumableAdapter
    )


def progress(rig: Rig) -> list[tuple[float, float | None]]:
    return [
        ((done.complete_to - START) / S, None if done.back_to is None else (done.back_to - START) / S)
        for item in rig.sink.taken(Progress)
        for done in item.done
    ]


def gaps(rig: Rig) -> list[tuple[list[int] | None, float, float, str]]:
    return [(gap.points, (gap.start - START) / S, (gap.end - START) / S, gap.cause) for gap in rig.sink.gaps()]


async def stamped(rig: Rig, *values: Any, ago: float = 0.0, after: float = 1.0, first: int = 0, **more: Any) -> None:
    """Values with source times of their own; complete up to now unless `ago` says that they are read from the history."""
    await rig.time.advance(after)
    at = rig.time.now()
    if ago:
        more |= {"flags": [int(Flag.HISTORICAL)] * len(values)}
    else:
        more.setdefault("complete_to", at)
    points = range(FIRST + first, FIRST + first + len(values))
    stamps = [at - round(ago * S)] * len(values)
    await rig.give(Samples("d", "default", at, points, list(values), source_ts=stamps, **more))


async def outage(rig: Rig) -> None:
    """Values at 1 and 2 s, cut at 3, back at 4 and a bit: the next value is the first live one."""
    await stamped(rig, 5, 5)
    await stamped(rig, 6, 6)
    await rig.give(lost())
    await rig.time.advance(2)


async def test_an_outage_that_was_filled_leaves_no_gap() -> None:
    rig = one_group()
    async with rig.running():
        await outage(rig)
        assert rig.adapter.asked == [{}, {("d", "default"): 2.0}]
        await stamped(rig, 9, 9)  # live, and complete: nobody hears of it yet
        await rig.time.advance(2)
        assert max(done for done, _ in progress(rig)) == 2.0
        await stamped(rig, 8, ago=3, after=0)
        assert rig.sink.gaps() == []
        await rig.give(Recovered("d", "default", rig.time.now()))
        await rig.time.advance(2)
        assert rig.sink.gaps() == []
        assert progress(rig)[-1][0] > 4.0
        assert all(back_to is None for _, back_to in progress(rig))  # the store has no gap of it either


async def test_what_could_not_be_fetched_is_the_gap() -> None:
    rig = one_group()
    async with rig.running():
        await outage(rig)
        await stamped(rig, 9, 9)
        part = Missed([FIRST + 1], START + 2 * S, rig.time.now(), "no history")
        await rig.give(Recovered("d", "default", rig.time.now(), [part, Missed((), START, rig.time.now(), "events")]))
        await rig.time.advance(1)
        now = (rig.time.now() - START) / S - 1
        assert gaps(rig) == [([INDEX + 1], 2.0, now, "disconnected"), ([], 2.0, now, "disconnected")]


async def test_nothing_fetched_is_the_gap_of_ever() -> None:
    rig = one_group()
    async with rig.running():
        await outage(rig)
        await rig.give(Recovered("d", "default", START, None))
        await stamped(rig, 9, 9)
        (gap,) = gaps(rig)
        assert gap == (None, 2.0, (rig.time.now() - START) / S, "disconnected")


async def test_the_gap_of_a_clock_that_is_ahead_ends_where_its_values_do() -> None:
    """What was lost has the device's time, up to that of the first values after the outage, though they may be unchanged."""
    rig = one_group()
    async with rig.running():
        await outage(rig)
        await rig.give(Recovered("d", "default", START, None))
        await rig.time.advance(1)
        at = rig.time.now()
        stamps = [at + 20 * S, at - 9 * S]
        await rig.give(Samples("d", "default", at, [FIRST, FIRST + 1], [6, 6], source_ts=stamps, complete_to=at))
        (gap,) = gaps(rig)
        assert gap == (None, 2.0, (at - START) / S + 20, "disconnected")


async def test_an_outage_within_the_filling_asks_from_its_first_begin() -> None:
    rig = one_group()
    async with rig.running():
        await outage(rig)
        await stamped(rig, 9, 9)
        await rig.give(lost())
        await rig.time.advance(3)
        assert rig.adapter.asked[-1] == {("d", "default"): 2.0}
        await rig.give(Recovered("d", "default", START, None))
        await stamped(rig, 10, 10)
        assert [gap[:2] for gap in gaps(rig)] == [(None, 2.0)]


async def test_a_history_of_a_wrong_clock_fills_nothing() -> None:
    """Live values have the gateway's time then; those of the history would lie elsewhere."""
    rig = one_group()
    async with rig.running():
        await outage(rig)
        wrong = rig.time.now() + 600 * S
        for _ in range(5):
            await stamped(rig, 9, 9, server_ts=wrong)
        rows = len(rig.sink.taken(Readings))
        await stamped(rig, 7, ago=3, after=0)
        assert len(rig.sink.taken(Readings)) == rows
        await rig.give(Recovered("d", "default", rig.time.now()))
        await stamped(rig, 9, 9, server_ts=wrong)
        ((_, start, _, cause),) = gaps(rig)
        assert (start, cause) == (2.0, "disconnected")


async def test_present_values_of_a_wrong_clock_are_not_stored_in_its_time() -> None:
    """They follow an outage that nothing had to be read for. One that is ten minutes ahead would be the newest value for ten minutes."""
    rig = one_group()
    async with rig.running():
        await outage(rig)
        ahead = rig.time.now() + 600 * S
        for _ in range(5):
            await stamped(rig, 9, 9, server_ts=ahead)
        await rig.give(Recovered("d", "default", rig.time.now(), timed=False))
        rows = len(rig.sink.taken(Readings))
        await stamped(rig, 30, 30, ago=-600, after=0)
        assert len(rig.sink.taken(Readings)) == rows
        await stamped(rig, 30, 30, server_ts=ahead)
        live = rig.sink.taken(Readings)[-1]
        assert live.values == [30, 30]
        assert max(live.ts) <= rig.time.now()
        assert rig.sink.gaps() == []


async def test_what_was_missed_while_the_gateway_was_down() -> None:
    """The gap itself is the store's, by the new stream: it is told from when on it was filled."""
    rig = one_group()
    rig.host.resume_after_restart({"d": {"default": START - 60 * S, "gone": 5}, "x": {"default": 1}})
    async with rig.running():
        assert rig.adapter.asked == [{("d", "default"): -60.0}]
        await stamped(rig, 9, 9)
        await stamped(rig, 9, 9, ago=30, after=0)  # as the live ones: the first of them is stored all the same
        await stamped(rig, 10, 20, ago=20, after=0)  # the first within its deadband
        (historical,) = [r for r in rig.sink.taken(Readings) if r.flags and r.ts[0] < START - 25 * S]
        assert historical.values == [9, 9]
        part = Missed([FIRST], START - 50 * S, START - 40 * S)
        await rig.give(Recovered("d", "default", rig.time.now(), [part]))
        await rig.time.advance(2)
        assert gaps(rig) == [([INDEX], -50.0, -40.0, "collector_down")]
        assert progress(rig)[0][1] == -60.0
        assert all(back_to is None for _, back_to in progress(rig)[1:])
        rows = [v for r in rig.sink.taken(Readings) for p, v in zip(r.points, r.values, strict=True) if p == INDEX]
        assert rows == [9, 9]


async def test_a_gateway_that_was_down_and_fetched_nothing() -> None:
    rig = one_group()
    rig.host.resume_after_restart({"d": {"default": START - 60 * S}})
    async with rig.running():
        await rig.give(Recovered("d", "default", START, None))
        await stamped(rig, 9, 9)
        await rig.time.advance(2)
        assert rig.sink.gaps() == []
        assert [back_to for _, back_to in progress(rig)] == [None]


async def test_an_answer_that_nobody_asked_for_is_passed_over() -> None:
    rig = one_group()
    async with rig.running():
        await stamped(rig, 9, 9)
        await rig.give(Recovered("d", "default", rig.time.now() + 99 * S))
        await rig.time.advance(2)
        assert max(done for done, _ in progress(rig)) < 5
        assert rig.sink.gaps() == []


async def test_the_gateways_clock_is_set() -> None:
    rig = Rig()
    async with rig.running():
        rig.host.clock_stepped(0)
        await rig.poll(5)
        assert rig.state() == "ok"


async def test_after_the_gateways_clock_was_set_back_progress_goes_on_and_an_outage_has_its_gap() -> None:
    """An hour ahead at first. Were the old clock's times kept, nothing would be complete for an hour, and a loss in it would be no gap."""
    rig = Rig(planned([{"type": "int16"}]))
    async with rig.running():
        rig.time.offset = 3600 * S
        await rig.poll(5)
        await rig.time.advance(2)
        rig.time.offset = 0
        rig.host.clock_stepped(-3600 * S)
        await rig.poll(5)
        await rig.time.advance(2)
        assert (rig.sink.taken(Progress)[-1].done[0].complete_to - START) / S == 4.0
        await rig.give(lost())
        await rig.time.advance(2)
        await rig.poll(5)
        await rig.time.advance(2)
    down, up = rig.sink.ups_and_downs()[-2:]
    assert (down[1], up[1]) == (False, True)
    assert 0 < down[2] < up[2] < 20
    assert [(g.cause, (g.start - START) / S) for g in rig.sink.gaps()] == [("disconnected", 4.0)]


async def test_what_was_on_its_way_while_the_gateways_clock_was_set_back_stops_no_progress() -> None:
    """Received by the clock that was an hour ahead, taken by the host after it was set back: kept, its time would be the progress for an hour."""
    rig = Rig(planned([{"type": "int16"}]))
    async with rig.running():
        rig.time.offset = 3600 * S
        await rig.poll(5)
        await rig.time.advance(2)
        on_its_way = rig.time.now()
        rig.time.offset = 0
        rig.host.clock_stepped(-3600 * S)
        await rig.give(Samples("d", "default", on_its_way, [FIRST], [6], complete_to=on_its_way))
        await rig.give(DeviceState("d", False, on_its_way, "no_answer"))
        await rig.poll(7)
        await rig.give(DeviceState("d", True, rig.time.now()))
        await rig.poll(7)
        await rig.time.advance(2)
    assert [round((done.complete_to - START) / S - 3600) for done in rig.sink.taken(Progress)[0].done] == [1]
    assert [done for done, _ in progress(rig)][-1] == 5.0
    assert [(at, is_up) for _, is_up, at, _ in rig.sink.ups_and_downs()[1:]] == [(3.0, False), (4.0, True)]
    assert [(g.cause, (g.start - START) / S) for g in rig.sink.gaps()] == [("disconnected", 3.0)]


async def test_a_loss_that_began_before_the_gateways_clock_was_set_back_keeps_its_length() -> None:
    rig = Rig(planned([{"type": "int16"}]))
    async with rig.running():
        rig.time.offset = 3600 * S
        await rig.poll(5)
        began = rig.time.now()
        await rig.time.advance(2)
        rig.time.offset = 0
        rig.host.clock_stepped(-3600 * S)
        await rig.time.advance(1)
        await rig.give(Lost("d", None, began, rig.time.now(), "overrun"))
    assert [((g.start - START) / S, (g.end - START) / S) for g in rig.sink.gaps()] == [(1.0, 4.0)]


async def test_the_spec_and_the_texts_for_people() -> None:
    rig = Rig()
    assert rig.host.endpoint("d") == "fake://d"
    assert rig.host.counters().requests == 7
    assert rig.adapter.spec.clock is rig.time
    assert not rig.adapter.spec.writes
    assert rig.state() == "starting"
