"""An OPC UA server for load, made with asyncua: variables that all take a new value and a new source time at every tick.

`python -m benchmarks._opcua_load VARIABLES MACHINES PERIOD`: the variables lie in so many machines, which tick one after the other within
each period (seconds). At tick k variable v of a machine is the double `1000 * v + k`. Prints its endpoint as JSON when it is ready; answers
`hold` on its input by standing still and telling each machine's last tick. Ends when its input closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from datetime import UTC, datetime

from asyncua import Server, ua

from benchmarks._processes import HOST, free_port

NAMESPACE = "urn:example:load"


def node(machine: int, variable: int) -> str:
    """The name of a variable, the string of its NodeId."""
    return f"m{machine}.v{variable}"


async def serve(variables: int, machines: int, period: float) -> None:
    """Until the input closes."""
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    server = Server()
    await server.init()
    endpoint = f"opc.tcp://{HOST}:{free_port()}/load"
    server.set_endpoint(endpoint)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    nodes = [[ua.NodeId(node(m, v), index) for v in range(variables // machines)] for m in range(machines)]
    for m in range(machines):
        folder = await server.nodes.objects.add_folder(ua.NodeId(f"m{m}", index), f"{index}:m{m}")
        for v, name in enumerate(nodes[m]):
            await folder.add_variable(name, f"{index}:v{v}", 1000.0 * v)
    ticks = [0] * machines
    held, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def change(machine: int) -> None:
        ticks[machine] += 1
        now = datetime.now(UTC)
        for v, name in enumerate(nodes[machine]):
            variant = ua.Variant(1000.0 * v + ticks[machine], ua.VariantType.Double)
            value = ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
            await server.iserver.aspace.write_attribute_value(name, ua.AttributeIds.Value, value)

    async def tick() -> None:
        started, step = loop.time(), 0
        while not held.is_set():
            await asyncio.sleep(max(0.0, started + step * period / machines - loop.time()))
            if not held.is_set():
                await change(step % machines)
            step += 1

    async def hold() -> None:
        held.set()
        await ticking
        print(json.dumps({"ticks": ticks}), flush=True)

    def listen() -> None:
        for _ in sys.stdin:
            asyncio.run_coroutine_threadsafe(hold(), loop)
        loop.call_soon_threadsafe(over.set)

    async with server:
        ticking = asyncio.create_task(tick())
        print(json.dumps({"endpoint": endpoint}), flush=True)
        threading.Thread(target=listen, daemon=True).start()
        await over.wait()
        ticking.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
