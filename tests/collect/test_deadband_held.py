"""What a device leaves out itself, and values of another type than the signal's."""

from __future__ import annotations

from typing import Any

from adapters.contract import DeadbandHeld, PointTrouble
from gateway.collect.items import Readings
from gateway.config.plan import raw_deadband
from schemas.status import BAD_TYPE_MISMATCH
from schemas.wire import Flag
from tests.collect.test_link import Rig
from tests.collect.test_normalise import FIRST, Feeder, T, one
from tests.collect.test_normalise import planned as planned_device


def deadband_of(**signal: Any) -> float:
    return raw_deadband(planned_device([signal]).signals[0])


def test_a_deadband_of_raw_values() -> None:
    assert deadband_of(type="float64", deadband={"absolute": 2}) == 2
    assert deadband_of(type="int16", deadband={"absolute": 2}, scale=0.1) == 20
    assert deadband_of(type="int16", deadband={"absolute": 2}, scale=-4) == 0.5
    assert deadband_of(type="float64", deadband={"percent": 5}, range=(-50, 150)) == 10
    for signal in ({"type": "float64"}, {"type": "uint16", "bit": 3, "deadband": {"absolute": 1}},
                   {"type": "float64", "store": "every", "deadband": {"absolute": 1}}, {"type": "string", "deadband": {"absolute": 1}}):  # fmt: skip
        assert deadband_of(**signal) == 0


def test_one_deadband_at_a_time() -> None:
    for slow in (False, True):
        feeder = Feeder({"type": "float64", "deadband": {"absolute": 1}}, slow=slow)
        feeder.notify(10.0, T)
        assert feeder.notify(10.9, T + 1, flags=Flag.INITIAL) is None
        feeder.normaliser.deadbands([FIRST], True)
        # what the device reported last is what the next ones are measured from: it is stored, or they would be two deadbands away
        assert one(feeder.notify(10.9, T + 1, flags=Flag.INITIAL)) == (10.9, 0)
        assert feeder.notify(10.9, T + 1, flags=Flag.INITIAL) is None
        assert one(feeder.notify(11.0, T + 2)) == (11.0, 0)
        feeder.normaliser.deadbands([FIRST], False)
        assert feeder.notify(11.9, T + 3) is None
        assert one(feeder.notify(12.0, T + 4)) == (12.0, 0)


def test_history_keeps_its_own_deadband() -> None:
    feeder = Feeder({"type": "float64", "deadband": {"absolute": 1}})
    feeder.notify(10.0, T)
    feeder.normaliser.deadbands([FIRST], True)
    assert feeder.notify(10.5, T + 1, flags=Flag.HISTORICAL) is None


def test_values_of_another_type_are_told_until_one_fits() -> None:
    feeder = Feeder({"type": "int16", "name": "speed"})
    feeder.poll(5)
    assert feeder.normaliser.misfits() == {}
    assert one(feeder.poll("fast")) == (None, BAD_TYPE_MISMATCH)
    for _ in range(2):
        (problem,) = feeder.normaliser.misfits().values()
        assert problem == "BadTypeMismatch: the device sends a text, the signal is int16"
        assert problem is not None
        assert "文本" in problem.zh
    feeder.poll(6)
    assert feeder.normaliser.misfits() == {"speed": None}
    assert feeder.normaliser.misfits() == {}


async def test_the_device_says_so() -> None:
    rig = Rig(planned_device([{"type": "float64", "name": "level", "deadband": {"absolute": 1}}]))
    async with rig.running():
        await rig.poll(1.0)
        await rig.give(DeadbandHeld("d", [FIRST], True))
        await rig.poll(1.5)
        await rig.poll("two")
        await rig.time.advance(2.1)
        assert rig.state() == "degraded"
        assert "BadTypeMismatch" in rig.host.statuses()[0].troubles["level"]
        await rig.poll(2.5)
        await rig.give(PointTrouble("d", FIRST, "BadNodeIdUnknown: gone"))
        await rig.time.advance(2.1)
        assert rig.host.statuses()[0].troubles == {"level": "BadNodeIdUnknown: gone"}  # the adapter's own stays
        assert [value for item in rig.sink.items if isinstance(item, Readings) for value in item.values] == [
            1.0,
            1.5,
            None,
            2.5,
        ]
