"""The libraries alone on the same servers: they read and throw away. What that costs is the yardstick of the chain.

`python -m benchmarks._yardsticks modbus PORT UNITS REGISTERS PERIOD SECONDS` and `… opcua ENDPOINT VARIABLES MACHINES PERIOD SECONDS` print
`{"values", "cpu"}`: how many values came in the measured time, and the seconds of CPU of this process meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

from benchmarks._opcua_load import NAMESPACE, node
from benchmarks._processes import HOST

_FIRST_UNIT = 101
"""Units that the gateway does not read."""


async def modbus(port: int, units: int, registers: int, period: float, seconds: float) -> tuple[int, float]:
    """A bare pymodbus loop, on uvloop where that is installed: each unit's block, once a period."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient(HOST, port=port)
    await client.connect()
    values = 0
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        due = time.monotonic() + period
        for unit in range(_FIRST_UNIT, _FIRST_UNIT + units):
            answer = await client.read_holding_registers(0, count=registers, device_id=unit)
            values += len(answer.registers)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    spent = time.process_time() - cpu
    client.close()
    return values, spent


class _Empty:
    """A handler that counts."""

    values = 0

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        self.values += 1


async def opcua(endpoint: str, variables: int, machines: int, period: float, seconds: float) -> tuple[int, float]:
    """asyncua's own subscription with an empty handler."""
    from asyncua import Client, ua

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    async with Client(endpoint) as client:
        index = await client.get_namespace_index(NAMESPACE)
        handler = _Empty()
        subscription = await client.create_subscription(period * 1000, handler)
        for m in range(machines):
            names = [ua.NodeId(node(m, v), index) for v in range(variables // machines)]
            await subscription.subscribe_data_change([client.get_node(name) for name in names], queuesize=10)
        await asyncio.sleep(2 * period)
        before, cpu = handler.values, time.process_time()
        await asyncio.sleep(seconds)
        return handler.values - before, time.process_time() - cpu


def main() -> None:
    """See the module."""
    which, where, *numbers = sys.argv[1:]
    first, second, period, seconds = int(numbers[0]), int(numbers[1]), float(numbers[2]), float(numbers[3])
    if which == "modbus":
        try:
            import uvloop
        except ImportError:
            run: Any = asyncio.run
        else:
            run = uvloop.run
        values, cpu = run(modbus(int(where), first, second, period, seconds))
    else:
        values, cpu = asyncio.run(opcua(where, first, second, period, seconds))
    print(json.dumps({"values": values, "cpu": cpu}), flush=True)


if __name__ == "__main__":
    main()
