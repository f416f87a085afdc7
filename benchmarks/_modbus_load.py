"""A Modbus TCP server for load: any unit, any holding registers, and every answer carries other values than the one before.

Register `a` of the k-th answer of a unit is `(100 * a + k) mod 65536`, so that a store can be searched for holes and doubles.
`python -m benchmarks._modbus_load` prints its port as JSON, answers `hold` on its input by repeating the last values from then on,
and tells how many different answers each unit has given. It ends when its input closes.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import threading

from benchmarks._processes import HOST

_ADU = struct.Struct(">HHHBBHH")
_HEAD = struct.Struct(">HHHBBB")


class Load:
    """What all connections share: the number of the last answer of each unit."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.held = False


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _ADU.size:
            transaction, _, _, unit, function, address, count = _ADU.unpack_from(self._received)
            self._received = self._received[_ADU.size :]
            if function != 3 or not 1 <= count <= 125:
                self._transport.write(_HEAD.pack(transaction, 0, 3, unit, function | 0x80, 1))
                continue
            answers = self._load.answers
            number = answers.get(unit, 0) + (not self._load.held)
            answers[unit] = number
            first = 100 * address + number
            words = [value & 0xFFFF for value in range(first, first + 100 * count, 100)]
            head = _HEAD.pack(transaction, 0, 3 + 2 * count, unit, function, 2 * count)
            self._transport.write(head + struct.pack(f">{count}H", *words))


async def serve() -> None:
    """Until the input closes."""
    loop = asyncio.get_running_loop()
    load, over = Load(), asyncio.Event()
    server = await loop.create_server(lambda: Connection(load), HOST, 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)

    def hold() -> None:
        load.held = True
        print(json.dumps({"answers": load.answers}), flush=True)

    def listen() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(hold)
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=listen, daemon=True).start()
    await over.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
