"""Who takes the notifications of `_opcua_replay` in a benchmark, a process each.

`python -m benchmarks._opcua_client KIND ENDPOINT ITEMS PERIOD SECONDS`, KIND being `gateway` (adapter, normaliser, and an outbox with durability
`power`), `handler` (asyncua's own subscription with an empty handler) or `iterator` (the same, iterated). Prints `{"values", "cpu", "wall"}`
of the measured time, waits for a line, and then prints what came of each tick: `{"missing", "wrong"}` of a gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._opcua_replay import NAMESPACE, node

_WARM_UP = 3.0
_AT_ONCE = 500


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def measured(values: Callable[[], int], seconds: float) -> None:
    """Waits for the stream to run, then measures."""
    while values() == 0:  # noqa: ASYNC110  the stream begins when it likes
        await asyncio.sleep(0.05)
    await asyncio.sleep(_WARM_UP)
    before, cpu, began = values(), time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    spent, wall = time.process_time() - cpu, time.monotonic() - began
    say(values=values() - before, cpu=spent, wall=wall)


async def told_to_end() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def handler(endpoint: str, items: int, period: float, seconds: float) -> None:
    """asyncua's subscription with a handler that counts."""
    from asyncua import Client, ua

    class Empty:
        values = 0

        def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
            self.values += 1

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    async with Client(endpoint, timeout=60) as client:
        index = await client.get_namespace_index(NAMESPACE)
        nodes = [client.get_node(ua.NodeId(node(v), index)) for v in range(items)]
        empty = Empty()
        subscription = await client.create_subscription(period * 1000, empty)
        for first in range(0, items, _AT_ONCE):
            await subscription.subscribe_data_change(nodes[first : first + _AT_ONCE], queuesize=10)
        await measured(lambda: max(0, empty.values - items), seconds)
        await told_to_end()


async def iterator(endpoint: str, items: int, period: float, seconds: float) -> None:
    """asyncua's subscription, iterated."""
    from asyncua import Client, ua

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    async with Client(endpoint, timeout=60) as client:
        index = await client.get_namespace_index(NAMESPACE)
        nodes = [client.get_node(ua.NodeId(node(v), index)) for v in range(items)]
        subscription = await client.create_subscription(period * 1000, queue_maxsize=20 * items)
        for first in range(0, items, _AT_ONCE):
            await subscription.subscribe_data_change(nodes[first : first + _AT_ONCE], queuesize=10)
        came = 0

        async def take() -> None:
            nonlocal came
            async for _ in subscription:
                came += 1

        task = asyncio.create_task(take())
        await measured(lambda: max(0, came - items), seconds)
        await told_to_end()
        task.cancel()


async def gateway(endpoint: str, items: int, period: float, seconds: float) -> None:
    """The gateway's own way from the notification to the durable outbox, with all that belongs to it."""
    from adapters.contract import SystemClock
    from gateway.collect.link import LinkHost
    from gateway.collect.recorder import Recorder
    from gateway.config.load import load_config
    from gateway.config.resolve import resolve
    from gateway.ledger.bodies import decode_body
    from gateway.ledger.outbox import Outbox

    with tempfile.TemporaryDirectory() as folder:
        plan = resolve(load_config(configuration(Path(folder), endpoint, items, period)))
        outbox, thread = Outbox(Path(folder, "outbox.sqlite"), "power"), ThreadPoolExecutor(1)
        outbox.begin()
        clock = SystemClock()
        recorder = Recorder(outbox, thread, budget=1 << 40, policy="oldest", now_us=clock.now)
        host = LinkHost(plan.links[0], recorder, clock=clock)
        tasks = [asyncio.create_task(recorder.run()), asyncio.create_task(host.run())]
        await measured(lambda: max(0, recorder.numbers.readings - items), seconds)
        await told_to_end()
        await recorder.commit()
        say(**await asyncio.to_thread(looked_through, outbox, decode_body, items), errors=host.counters().errors)
        for task in reversed(tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        thread.shutdown()
        outbox.close()


def configuration(folder: Path, endpoint: str, items: int, period: float) -> Path:
    """A gateway with one device, and its profile beside it."""
    signals = [
        {"name": f"v{v}", "type": "float64", "unit": "1", "address": {"node": f"nsu={NAMESPACE};s={node(v)}"}}
        for v in range(items)
    ]
    profile = {
        "profile": "replay", "protocol": "opcua", "name": {"en": "Replay"}, "licence": "Apache-2.0",
        "source": {"document": "benchmarks/_opcua_client.py"}, "verified": "simulator",
        "groups": {"default": {"period": period}}, "signals": signals,
    }  # fmt: skip
    link = {
        "id": "l", "adapter": "opcua", "settings": {"endpoint": endpoint, "security": "none"},
        "devices": [{"id": "d", "profile": "replay.yaml"}],
    }  # fmt: skip
    file = folder / "guantong.yaml"
    (folder / "replay.yaml").write_text(json.dumps(profile), encoding="utf-8")
    file.write_text(json.dumps({"gateway": {"id": "bench"}, "links": [link]}), encoding="utf-8")
    return file


def looked_through(outbox: Any, decode: Callable[[int, bytes, int], Any], items: int) -> dict[str, Any]:
    """Of the ticks from the first of each signal to its last, how many values are not in the outbox, or there twice."""
    from schemas.wire import Kind

    ticks: list[Counter[int]] = [Counter() for _ in range(items)]
    seq, gaps = 1, 0
    while envelopes := outbox.read(outbox.current, seq, 500, 1 << 26):
        for envelope in envelopes:
            seq = envelope.last_seq + 1
            if envelope.kind == Kind.READINGS:
                batch = decode(envelope.kind, envelope.body, envelope.enc)
                for point, value in zip(batch.points, batch.values, strict=True):
                    if value:
                        ticks[point][int(value)] += 1
            gaps += envelope.kind == Kind.GAP
    missing = sum(max(t) - min(t) + 1 - len(t) for t in ticks if t)
    return {
        "missing": missing,
        "twice": sum(n - 1 for t in ticks for n in t.values()),
        "empty": sum(not t for t in ticks),
        "gaps": gaps,
    }


if __name__ == "__main__":
    kind, where, *numbers = sys.argv[1:]
    work = {"gateway": gateway, "handler": handler, "iterator": iterator}[kind](
        where, int(numbers[0]), float(numbers[1]), float(numbers[2])
    )
    if kind == "gateway":
        from gateway.platform import run

        async def done() -> int:
            await work
            return 0

        run(done())
    else:
        asyncio.run(work)
