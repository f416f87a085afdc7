"""Numbers multiplied by ratios of the configuration, and by what other registers hold; values that belong together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapters.modbus import ModbusAdapter
from adapters.modbus._device import Device
from adapters.modbus._scaling import Factor, constant, times
from schemas.modbus import ScaleBy
from schemas.status import BAD_NODE_ID_UNKNOWN, BAD_OUT_OF_RANGE, BAD_SENSOR_FAILURE, BAD_WAITING_FOR_INITIAL_DATA
from tests.adapters.modbus_server import Ask, Running, Server, Spec, holding


def running(spec: Spec) -> Running:
    return Running(ModbusAdapter(spec.build()))


@pytest.mark.parametrize(
    ("value", "factor", "product"),
    [
        (2**53 + 1, 1.0, 2**53 + 1),
        (2**53 + 1, 40.0, (2**53 + 1) * 40),
        (3, 0.1, 0.3),
        (3, 10**-2, 0.03),
        (7, 2.5, 17.5),
        ([1, 3], 0.1, [0.1, 0.3]),
        (5, -0.5, -2.5),
        (3, float("inf"), float("inf")),
        (0, 5e-324, 0.0),
        (1, 1.7e308, 1.7e308),
    ],
)
def test_products_are_exact_where_they_can_be(value: Any, factor: float, product: Any) -> None:
    assert times(value, factor) == product
    assert type(times(value, factor)) is type(product)


@pytest.mark.parametrize(
    ("factor", "source", "expected"),
    [
        (Factor(1.0, 5), (40, 0), (40.0, 0)),
        (Factor(0.1, 5), (400, 0), (40.0, 0)),
        (Factor(1.0, 5, exponent=True), (-2, 0), (0.01, 0)),
        (Factor(1.0, 5, exponent=True), (3, 0), (1000, 0)),
        (Factor(1.0, 5, exponent=True), (-32768, 0), (1, BAD_OUT_OF_RANGE)),
        (Factor(1.0, 5), (0, 0), (1, BAD_OUT_OF_RANGE)),
        (Factor(1.0, 5), (float("nan"), 0), (1, BAD_OUT_OF_RANGE)),
        (Factor(10.0, 5), (1.7e308, 0), (1, BAD_OUT_OF_RANGE)),
        (Factor(0.1, 5), (5e-324, 0), (1, BAD_OUT_OF_RANGE)),
        (Factor(1.0, 5), (None, BAD_NODE_ID_UNKNOWN), (1, BAD_NODE_ID_UNKNOWN)),
    ],
)
def test_factors(factor: Factor, source: Any, expected: tuple[Any, int]) -> None:
    assert factor.of(source) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "ct/ratio",
        "holding 6 uint16",
        "input 49 int16 exponent",
        "holding 6 uint32 CDAB *0.1",
        "ct/ratio *-2.5",
        "ct/ratio *1e+20",
    ],
)
def test_a_factor_in_one_line_is_written_as_it_is_read(text: str) -> None:
    assert str(ScaleBy.model_validate(text)) == text
    assert ScaleBy.model_validate(str(ScaleBy.model_validate(text))) == ScaleBy.model_validate(text)


@pytest.mark.parametrize("text", ["holding 6 *1.2.3", "holding 6 *.", "holding 6 *1e999", "holding 6 *0"])
def test_a_factor_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"scale|is not understood"):
        ScaleBy.model_validate(text)


@pytest.mark.parametrize("ratio", [0, float("inf"), float("nan")])
def test_a_ratio_that_is_no_number_is_a_mistake_of_its_points(ratio: float) -> None:
    told = constant(holding(5, ratio=("ct", "pt")), {"ct": 40, "pt": ratio})
    assert isinstance(told, str)
    assert "ct, pt" in told


async def test_a_factor_beyond_all_numbers_costs_its_own_value() -> None:
    """Rubbish in the register of a factor: 0x7FEF… is 1.8e308."""
    async with Server().holds(1, range(20)).holds(1, {0: 0x7FEF, 1: 0xFFFF, 2: 0xFFFF, 3: 0xFFFF}) as server:
        spec = Spec(server.port).device(1, [holding(5, scale_by="holding 0 float64 *10"), holding(6)])
        async with running(spec) as line:
            await line.until(lambda: len(line.rows(1)) > 3)
        assert set(line.rows(0)) == {(5, BAD_OUT_OF_RANGE)}
        assert {value for value, _ in line.rows(1)} == {6}


async def test_ratios_of_the_configuration() -> None:
    async with Server().holds(1, range(20)) as server:
        spec = Spec(server.port).device(
            1, [holding(5, ratio=("ct",)), holding(7, ratio=("ct", "pt")), holding(7)], ratios={"ct": 40, "pt": 0.1}
        )
        async with running(spec) as line:
            await line.until(lambda: line.rows(2))
        assert [line.rows(p)[0] for p in range(3)] == [(200, 0), (28, 0), (7, 0)]


async def test_a_ratio_without_a_number_costs_its_own_points() -> None:
    async with Server().holds(1, range(20)) as server:
        spec = Spec(server.port).device(1, [holding(5, ratio=("ct",)), holding(6)], ratios={"pt": 1})
        async with running(spec) as line:
            await line.until(lambda: line.rows(1))
        assert line.rows(1)[0] == (6, 0)
        assert "'ct'" in str(line.troubles(0)[0])
        assert {value for value, _ in line.rows(0)} == {None}


async def test_a_factor_far_away_is_read_first_and_with_every_scan() -> None:
    async with Server().holds(1, {5: 3, 900: 40}) as server:
        spec = Spec(server.port).device(1, [holding(5, scale_by="holding 900")], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: line.rows(0))
            assert line.rows(0)[0] == (120, 0)
            server.holds(1, {900: 50})
            await line.until(lambda: line.rows(0)[-1] == (150, 0))
            assert all(set(samples.points) <= {0} for samples in line.samples())
            read = await line.adapter.read([0])
            assert (list(read.points), list(read.values)) == ([0], [150])


async def test_exponents_and_values_of_one_response_belong_together() -> None:
    async with Server().holds(1, {0: 1234, 1: 65534}) as server:
        spec = Spec(server.port).device(1, [holding(0, scale_by="holding 1 int16 exponent")], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: line.rows(0))
            server.holds(1, {0: 12, 1: 0})
            await line.until(lambda: line.rows(0)[-1] == (12, 0))
        assert {value for value, _ in line.rows(0)} == {12.34, 12}
        assert len({(ask.address, ask.count) for ask in server.asks}) == 1


async def test_another_signal_is_the_factor() -> None:
    """The second signal is in a group of its own, and is given as it is as well."""
    async with Server().holds(1, {0: 7, 300: 20}) as server:
        groups = {"fast": [holding(0, scale_by="s1 *0.1")], "slow": [holding(300)]}
        spec = Spec(server.port).device(1, groups, period={"fast": 0.02, "slow": 0.05})
        async with running(spec) as line:
            await line.until(lambda: (14, 0) in line.rows(0) and line.rows(1))
        assert line.rows(1)[0] == (20, 0)
        assert set(line.rows(0)) <= {(14, 0), (7, BAD_WAITING_FOR_INITIAL_DATA)}


async def test_a_factor_that_the_device_refuses_or_that_was_never_set_is_said_in_words() -> None:
    async with Server().holds(1, {0: 7, 20: 0}) as server:
        addresses = [holding(0, scale_by="holding 20"), holding(0, scale_by="holding 500"), holding(0)]
        spec = Spec(server.port).device(1, addresses, period=0.02)
        async with running(spec) as line:
            await line.until(lambda: line.troubles(0) and line.troubles(1))
            assert line.rows(0)[-1] == (7, BAD_OUT_OF_RANGE)
            await line.until(lambda: line.rows(1)[-1] == (7, BAD_NODE_ID_UNKNOWN))
            assert line.rows(2)[-1] == (7, 0)
            assert "holding 20" in str(line.troubles(0)[-1])
            server.holds(1, {20: 2})
            await line.until(lambda: line.rows(0)[-1] == (14, 0))
            assert line.troubles(0)[-1] is None


async def test_what_a_sentinel_means_is_told_as_long_as_it_lasts() -> None:
    async with Server().holds(1, {0: 0x8002, 1: 5}) as server:
        address = holding(0, "int16", sentinels={0x8002: "BadOutOfService"}, faults={0x8002: "no sensor"})
        spec = Spec(server.port).device(1, [address, holding(1)], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: line.troubles(0))
            assert "no sensor" in str(line.troubles(0)[0])
            server.holds(1, {0: 21})
            await line.until(lambda: line.rows(0)[-1] == (21, 0) and line.troubles(0)[-1] is None)
        assert len(line.troubles(0)) == 2
        assert not line.troubles(1)


def test_a_factor_that_cannot_be_is_told_without_a_device() -> None:
    addresses = [
        holding(0, scale_by="nobody"),
        holding(1, scale_by="s2"),
        holding(2, "string", length=2),
        holding(3, scale_by="holding 50"),
    ]
    (spec,) = Spec(1).device(1, addresses, holes=((50, 50),)).devices
    device = Device(spec)
    assert set(device.unreadable) == {0, 1, 3}
    assert "nobody" in device.unreadable[0]
    assert "s2" in device.unreadable[1]
    assert "holes" in device.unreadable[3]


async def test_an_atomic_group_comes_from_one_response_though_it_lies_apart() -> None:
    """Words 0 and 60 change together with every request; `max_gap` would read them apart."""
    clock = 0

    def tick(ask: Ask) -> bool:
        nonlocal clock
        clock += 1
        server.holds(1, {0: clock, 60: clock})
        return False

    async with Server(hook=tick).holds(1, range(80)) as server:
        addresses = [holding(0, atomic="count"), holding(60, atomic="count"), holding(75)]
        spec = Spec(server.port).device(1, addresses, period=0.02, max_gap=2)
        async with running(spec) as line:
            await line.until(lambda: len(line.rows(0)) > 5 and line.rows(2))
            assert line.rows(0)[:5] == line.rows(1)[:5]
            read = await line.adapter.read([0, 1])
            assert read.values[0] == read.values[1]
        assert {(ask.address, ask.count) for ask in server.asks} == {(0, 61), (75, 1)}


async def test_an_atomic_group_with_a_bad_register_is_refused_as_a_whole_and_its_neighbours_live() -> None:
    async with Server().holds(1, range(80)) as server:
        del server.memory[1, 3][21]
        addresses = [holding(10), holding(20, atomic="a"), holding(21, atomic="a"), holding(22)]
        spec = Spec(server.port).device(1, addresses, period=0.02)
        async with running(spec) as line:
            await line.until(lambda: all(line.rows(p) for p in range(4)))
            assert line.rows(0)[0] == (10, 0)
            assert line.rows(3)[0] == (22, 0)
            for point in (1, 2):
                assert line.rows(point) == [(None, BAD_NODE_ID_UNKNOWN)]
                assert "2 long" in str(line.troubles(point)[0])


def test_the_bytes_of_the_last_response_say_what_they_said_then() -> None:
    """A sentinel in words too, and no longer once other bytes have come."""
    words = holding(0, sentinels={0x7FFF: "BadSensorFailure"}, faults={0x7FFF: {"en": "no probe", "zh": "无探头"}})
    device = Device(Spec(1).device(1, [words, holding(1)]).build().devices[0])
    (block,) = device.scans["fast"].blocks
    first = device.decoded(block, bytes.fromhex("7fff0005"))
    again = device.decoded(block, bytes.fromhex("7fff0005"))
    assert again is first
    assert (again.status, list(again.values)[1], "no probe" in again.told[0]) == ([BAD_SENSOR_FAILURE, 0], 5, True)
    other = device.decoded(block, bytes.fromhex("00070005"))
    assert (list(other.values), other.status, other.told) == ([7, 5], None, {})
