"""Who reads the registers of `_modbus_server.c` in a benchmark, a process each.

`python -m benchmarks._modbus_client KIND PORT LINKS UNITS BLOCKS PERIOD SECONDS`, KIND being `gateway` (adapter, normaliser, recorder, and an outbox
with durability `power`; each link a connection, each of its units a device, read once a PERIOD) or `pymodbus` (for each link a bare loop
over the blocks of its units that throws the answers away). Prints `{"blocks", "cpu", "wall"}` of the measured time. The gateway then waits for a line, by which the server
repeats its values, reads each of them once more, waits for another line with what the server tells of its answers, and prints what
came of them: `{"compared", "missing", "twice"}` in values, and the errors and overruns of the link.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._processes import HOST

SIZE = 125
"""Registers of a block: the most that one response carries (MODBUS Application Protocol V1.1b3, 6.3)."""
_WARM_UP = 3.0
_WITHIN = 60.0


def say(**fields: Any) -> None:
    """A line for the benchmark."""
    print(json.dumps(fields), flush=True)


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def pymodbus(port: int, links: int, units: int, blocks: int, seconds: float) -> None:
    """pymodbus alone, as fast as it goes."""
    from pymodbus.client import AsyncModbusTcpClient

    clients = [AsyncModbusTcpClient(HOST, port=port) for _ in range(links)]
    for client in clients:
        if not await client.connect():
            raise RuntimeError(f"no connection to {HOST}:{port}")
    began, cpu = time.monotonic(), time.process_time()

    async def read(client: AsyncModbusTcpClient, mine: range) -> int:
        done = 0
        while time.monotonic() - began < seconds:
            for unit in mine:
                for start in range(0, blocks * SIZE, SIZE):
                    answer = await client.read_holding_registers(start, count=SIZE, device_id=unit)
                    if answer.isError() or len(answer.registers) != SIZE:
                        raise RuntimeError(f"unit {unit}, address {start}: {answer}")
                    done += 1
        return done

    counts = await asyncio.gather(*map(read, clients, _numbers(links, units)))
    say(blocks=sum(counts), cpu=time.process_time() - cpu, wall=time.monotonic() - began)
    for client in clients:
        client.close()


def _numbers(links: int, units: int) -> list[range]:
    """The unit numbers of each link; no two links ask for the same."""
    return [range(1 + link * units, 1 + (link + 1) * units) for link in range(links)]


async def gateway(port: int, links: int, units: int, blocks: int, period: float, seconds: float) -> None:
    """The gateway's own way from the request to the durable outbox, with all that belongs to it."""
    from adapters.contract import SystemClock
    from gateway.collect.link import LinkHost
    from gateway.collect.recorder import Recorder
    from gateway.config.load import load_config
    from gateway.config.resolve import resolve
    from gateway.ledger.bodies import decode_body
    from gateway.ledger.outbox import Outbox

    with tempfile.TemporaryDirectory() as folder:
        plan = resolve(load_config(configuration(Path(folder), port, links, units, blocks, period)))
        outbox, thread = Outbox(Path(folder, "outbox.sqlite"), "power"), ThreadPoolExecutor(1)
        outbox.begin()
        clock = SystemClock()
        recorder = Recorder(outbox, thread, budget=1 << 40, policy="oldest", now_us=clock.now)
        hosts = [LinkHost(link, recorder, clock=clock) for link in plan.links]
        tasks = [asyncio.create_task(work) for work in (recorder.run(), *(host.run() for host in hosts))]
        await _until(lambda: recorder.numbers.readings >= links * units * blocks * SIZE)
        await asyncio.sleep(_WARM_UP)
        before, cpu, began = recorder.numbers.readings, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        spent, wall = time.process_time() - cpu, time.monotonic() - began
        say(blocks=(recorder.numbers.readings - before) / SIZE, cpu=spent, wall=wall)
        await _line()
        asked = [host.counters().requests for host in hosts]  # what does not change is not put
        for host, requests in zip(hosts, asked, strict=True):
            await _until(lambda host=host, least=requests + 2 * units * blocks: host.counters().requests > least)  # type: ignore[misc]
        counters = [host.counters() for host in hosts]
        errors = sum((Counter(each.errors) for each in counters), Counter[str]())
        for task in reversed(tasks):  # the recorder last: it makes durable what is left
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        last = {(unit, start): k for unit, start, k in json.loads(await _line())["last"]}
        where = {
            signal.index: (unit, address)
            for unit, device in enumerate(plan.devices, start=1)
            for address, signal in enumerate(device.signals)
        }
        say(
            **looked_through(outbox, decode_body, where, last),
            errors=errors,
            overruns=sum(each.overruns for each in counters),
        )
        thread.shutdown()
        outbox.close()


async def _until(reached: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(_WITHIN):
        while not reached():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)


def configuration(folder: Path, port: int, links: int, units: int, blocks: int, period: float) -> Path:
    """A gateway with so many links, and the profile of its devices beside it."""
    signals = [
        {"name": f"r{a}", "type": "uint16", "unit": "1", "address": {"table": "holding", "address": a}}
        for a in range(blocks * SIZE)
    ]
    profile = {
        "profile": "blocks", "protocol": "modbus", "name": {"en": "Blocks"}, "licence": "Apache-2.0",
        "source": {"document": "benchmarks/_modbus_client.py"}, "verified": "simulator",
        "groups": {"default": {"period": period}}, "signals": signals,
    }  # fmt: skip
    settings = {"host": HOST, "port": port}
    all_links = [
        {
            "id": f"l{number}", "adapter": "modbus", "settings": settings,
            "devices": [{"id": f"u{u}", "profile": "blocks.yaml", "settings": {"unit": u}} for u in mine],
        }
        for number, mine in enumerate(_numbers(links, units))
    ]  # fmt: skip
    file = folder / "guantong.yaml"
    (folder / "blocks.yaml").write_text(json.dumps(profile), encoding="utf-8")
    file.write_text(json.dumps({"gateway": {"id": "bench"}, "links": all_links}), encoding="utf-8")
    return file


def looked_through(
    outbox: Any,
    decode: Callable[[int, bytes, int], Any],
    where: dict[int, tuple[int, int]],
    last: dict[tuple[int, int], int],
) -> dict[str, int]:
    """Of the answers from the first that is in the outbox to the server's last, block by block, how many values are not there, or twice.

    `where`: signal -> (unit, address), `last`: (unit, first address of a block) -> number of its last answer. A value tells the number of its
    answer: see the server. The last answer was repeated, so that it may be there any number of times.
    """
    from schemas.wire import Kind

    found: dict[tuple[int, int], Counter[int]] = {block: Counter() for block in last}
    block_of = {
        index: (found[unit, address - address % SIZE], address % SIZE) for index, (unit, address) in where.items()
    }
    seq, gaps = 1, 0
    while envelopes := outbox.read(outbox.current, seq, 500, 1 << 26):
        for envelope in envelopes:
            seq = envelope.last_seq + 1
            if envelope.kind == Kind.READINGS:
                batch = decode(envelope.kind, envelope.body, envelope.enc)
                for point, value in zip(batch.points, batch.values, strict=True):
                    if value is not None:
                        answers, offset = block_of[point]
                        answers[value - offset & 0xFFFF] += 1
            gaps += envelope.kind == Kind.GAP
    missing = twice = compared = 0
    for block, answers in found.items():
        if last[block] > 0xFFFF:
            raise RuntimeError("an answer's number went round: run for a shorter time")
        wanted = range(min(answers, default=1), last[block] + 1)
        compared += SIZE * len(wanted)
        missing += sum(max(0, SIZE - answers[k]) for k in wanted)
        twice += sum(max(0, n - SIZE) for k, n in answers.items() if k != last[block])
    return {"compared": compared, "missing": missing, "twice": twice, "gaps": gaps}


if __name__ == "__main__":
    from gateway.platform import run

    kind, port, links, units, blocks, period, seconds = sys.argv[1:]
    if kind == "gateway":
        work = gateway(int(port), int(links), int(units), int(blocks), float(period), float(seconds))
    else:
        work = pymodbus(int(port), int(links), int(units), int(blocks), float(seconds))

    async def done() -> int:
        """The loop of the platform is that of the gateway, for both."""
        await work
        return 0

    run(done())
