"""Whole maps over a real connection: at least nine in ten registers named rightly, by type and byte order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from adapters.modbus.probe import Prober, TcpPlace
from gateway.explore.proposal import explain
from gateway.explore.watch import Seen, Span, watch
from simulators.modbus.server import ModbusServer
from simulators.truth import TruthLog
from tests.explore.devices import Device, Register, always
from tests.explore.fourth_unseen import FOURTH_UNSEEN
from tests.explore.judging import Score, judge
from tests.explore.known import KNOWN
from tests.explore.more_known import MORE_KNOWN
from tests.explore.once_unseen import ONCE_UNSEEN
from tests.explore.second_unseen import SECOND_UNSEEN
from tests.explore.third_unseen import THIRD_UNSEEN
from tests.explore.unseen import UNSEEN

TUNED = KNOWN | MORE_KNOWN | ONCE_UNSEEN | SECOND_UNSEEN | THIRD_UNSEEN | FOURTH_UNSEEN

LOOKS = 90


def spans(device: Device) -> Iterator[Span]:
    """The whole map, from the first register on, in reads of at most 40 and none across a hole."""
    first = last = device.map[0].address
    for one in [*device.map, Register(1 << 17, "end", "spare", always(0))]:
        if one.address != last:
            for start in range(first, last, 40):
                yield Span("holding", start, min(40, last - start))
            first = one.address
        last = one.address + one.width


async def named(device: Device, truth: Path) -> Score:
    """Watches the device over Modbus TCP on loopback and judges what is said of it."""
    server = ModbusServer("tcp", {1: device}, TruthLog(truth, "device"))
    port = await server.open("127.0.0.1", 0)
    parts = list(spans(device))
    found = Seen(parts, [], [])
    try:
        async with Prober(TcpPlace("127.0.0.1", port), pause=0.0) as prober:
            await watch(prober, 1, parts, rounds=LOOKS, period=0.0, seen=found)
    finally:
        await server.close()
        server.truth.close()
    assert len(found.rows) == LOOKS
    return judge(device.truth(), await asyncio.to_thread(explain, found.series()))


async def test_the_maps_on_which_the_rules_were_tuned_do_not_get_worse(tmp_path: Path) -> None:
    """Of all their registers, strictly, and with signed numbers that never went below zero called unsigned."""
    scores = {name: await named(create(), tmp_path / name) for name, create in TUNED.items()}
    total = sum(score.total for score in scores.values())
    right = sum(score.right for score in scores.values())
    alike = sum(score.unsigned for score in scores.values())
    wrong = {name: score.wrong for name, score in scores.items()}
    assert right / total >= 0.93, wrong
    assert (right + alike) / total >= 0.97, wrong


async def test_nine_in_ten_registers_of_six_unseen_maps_are_named_rightly(tmp_path: Path) -> None:
    """Strictly, type and order, of all registers of the six; the figures of each map stand in docs/discover-modbus.md."""
    scores = {name: await named(create(), tmp_path / name) for name, create in UNSEEN.items()}
    total = sum(score.total for score in scores.values())
    right = sum(score.right for score in scores.values())
    assert right / total >= 0.9, {name: score.wrong for name, score in scores.items()}
