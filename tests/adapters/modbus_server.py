"""A small Modbus server of our own for tests: right by default, and as wrong as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from adapters.contract import AdapterError, DeviceSpec, DeviceState, Item, LinkSpec, Point, PointTrouble, Samples
from adapters.modbus import ModbusAdapter, ModbusDeviceSettings, ModbusLinkSettings
from schemas.profile import ModbusAddress, ModbusRules
from simulators.modbus.framing import MBAP, rtu_frame, tcp_frame
from tests.servers.waiting import eventually_async

HOST = "127.0.0.1"


@dataclass(slots=True)
class Ask:
    """A request as it arrived."""

    connection: int
    transaction: int
    unit: int
    function: int
    address: int
    count: int
    writer: asyncio.StreamWriter
    rtu: bool
    at: float
    selected: tuple[int, int] | None = None
    """What function 23 writes: address and word."""

    def frame(self, pdu: bytes, *, unit: int | None = None, transaction: int | None = None) -> bytes:
        """The PDU in the framing of this request; `unit` and `transaction` lie about where it comes from."""
        number = self.unit if unit is None else unit
        if self.rtu:
            return rtu_frame(number, pdu)
        return tcp_frame(self.transaction if transaction is None else transaction, number, pdu)

    def send(self, data: bytes) -> None:
        """Writes bytes as they are."""
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    def refuse(self, code: int) -> None:
        """Answers with an exception."""
        self.send(self.frame(bytes((self.function | 0x80, code))))

    def words(self, words: list[int]) -> None:
        """Answers with registers."""
        self.send(self.frame(bytes((self.function, len(words) * 2)) + b"".join(w.to_bytes(2, "big") for w in words)))


Hook = Callable[[Ask], Awaitable[bool] | bool]


@dataclass
class Server:
    """Holding registers, input registers and bits of any units; what is not in `memory` gets exception 2, what is too much 3.

    `hook` sees each request first; true means that it has been dealt with. Questions who a unit is (43/14) are kept apart in
    `questions`: `identity` has the objects of the units that know the function, all others give exception 1.
    """

    rtu: bool = False
    memory: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    """(unit, function) -> address -> word or bit."""
    max_registers: int = 125
    hook: Hook | None = None
    identity: dict[int, dict[int, bytes]] = field(default_factory=dict)
    """Unit -> object -> text."""
    room: int = 100
    """Bytes of objects that fit into one response to 43/14."""
    conformity: int = 0x82
    records: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    """(address, word) that function 23 writes -> what the registers hold then."""
    question_hook: Hook | None = None
    questions: list[Ask] = field(default_factory=list)
    """`address` is the object asked for, `count` the read code."""
    asks: list[Ask] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def holds(self, unit: int, words: dict[int, int] | range, function: int = 3) -> Self:
        """Gives a unit registers: a dict, or a range whose words are their own addresses."""
        memory = self.memory.setdefault((unit, function), {})
        memory.update(words if isinstance(words, dict) else {address: address for address in words})
        return self

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    @property
    def links(self) -> int:
        """Connections that are open now."""
        return len(self._writers)

    async def up(self) -> None:
        """Listens, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuses new connections and breaks those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Breaks the connections that are open; new ones are accepted."""
        for writer in self._writers:
            writer.transport.abort()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Does something after a while, unless the server goes down before."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            action()

        task = asyncio.ensure_future(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        connection = self.connections
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    if self.rtu:
                        frame = await reader.readexactly(7)
                        frame += await reader.readexactly({0x2B: 0, 23: 8}.get(frame[1], 1))
                        transaction, unit, pdu = 0, frame[0], frame[1:-2]
                    else:
                        transaction, _, length, unit = MBAP.unpack(await reader.readexactly(MBAP.size))
                        pdu = await reader.readexactly(length - 1)
                    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
                    at = asyncio.get_running_loop().time()
                    ask = Ask(connection, transaction, unit, pdu[0], address, count, writer, self.rtu, at)
                    if ask.function == 0x2B:
                        ask.address, ask.count = pdu[3], pdu[2]
                    (self.questions if ask.function == 0x2B else self.asks).append(ask)
                    if ask.function == 23:  # writes first, then reads (V1.1b3 §6.17)
                        ask.selected = (int.from_bytes(pdu[5:7], "big"), int.from_bytes(pdu[10:12], "big"))
                    hook = self.question_hook if ask.function == 0x2B else self.hook
                    done = hook(ask) if hook is not None else False
                    if not (await done if isinstance(done, Awaitable) else done):
                        self.answer(ask)
        except asyncio.CancelledError:
            pass  # down() cancels; asyncio.streams of Python 3.11 would report it as an error
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    def answer(self, ask: Ask) -> None:
        """The right answer."""
        if ask.function == 0x2B:
            self._say_who(ask)
            return
        memory = self.memory.get((ask.unit, ask.function))
        if ask.selected is not None:
            memory = self.records.get(ask.selected, self.memory.get((ask.unit, 3)))
        if memory is None:
            if not any(unit == ask.unit for unit, _ in self.memory):
                return  # nobody there
            ask.refuse(1)
        elif ask.function >= 3 and ask.count > self.max_registers:
            ask.refuse(3)
        elif any(address not in memory for address in range(ask.address, ask.address + ask.count)):
            ask.refuse(2)
        else:
            words = [memory[address] for address in range(ask.address, ask.address + ask.count)]
            if ask.function <= 2:
                packed = bytes(
                    sum(bit << i for i, bit in enumerate(words[at : at + 8])) for at in range(0, len(words), 8)
                )
                ask.send(ask.frame(bytes((ask.function, len(packed))) + packed))
            else:
                ask.words(words)

    def _say_who(self, ask: Ask) -> None:
        """As the standard has it (V1.1b3 §6.21): as many objects as fit, and with which to go on."""
        known = self.identity.get(ask.unit)
        if known is None:
            if any(unit == ask.unit for unit, _ in self.memory):
                ask.refuse(1)
            return
        body, number, more = b"", 0, 0
        for one in sorted(n for n in known if n >= ask.address and (n < 3 or ask.count >= 2)):
            if body and len(body) + len(known[one]) + 2 > self.room:
                more = one
                break
            body += bytes((one, len(known[one]))) + known[one]
            number += 1
        head = bytes((0x2B, 0x0E, ask.count, self.conformity, 0xFF if more else 0, more, number))
        ask.send(ask.frame(head + body))


def holding(address: int, kind: Any = "uint16", **more: Any) -> ModbusAddress:
    """The address of a holding register."""
    return ModbusAddress(table="holding", address=address, type=kind, **more)


@dataclass
class Spec:
    """Builds a `LinkSpec`, numbering the points as the host does."""

    port: int
    rtu: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    devices: list[DeviceSpec] = field(default_factory=list)
    count: int = 0

    def device(
        self,
        unit: int,
        addresses: list[ModbusAddress] | dict[str, list[ModbusAddress]],
        *,
        period: float | dict[str, float] = 0.05,
        **rules: Any,
    ) -> Self:
        """Adds the device `unit-N` with points for these addresses, in one group `fast` or in several."""
        groups = addresses if isinstance(addresses, dict) else {"fast": addresses}
        periods = period if isinstance(period, dict) else dict.fromkeys(groups, period)
        name = f"unit-{unit}"
        points = []
        for group, members in groups.items():
            for address in members:
                points.append(
                    Point(
                        self.count,
                        name,
                        f"s{self.count}",
                        group,
                        address,
                        "bool" if address.type == "bool" else "float64",
                    )
                )
                self.count += 1
        rules = {"timeout": 0.3, **rules}
        self.devices.append(
            DeviceSpec(name, ModbusDeviceSettings(unit=unit), ModbusRules(**rules), periods, tuple(points))
        )
        return self

    def build(self) -> LinkSpec:
        """The finished link."""
        transport = "rtu-over-tcp" if self.rtu else "tcp"
        given = {"host": HOST, "port": self.port, "transport": transport, "timeout": 2.0, **self.settings}
        settings = ModbusLinkSettings(**given)
        return LinkSpec("line", settings, tuple(self.devices))


class Running:
    """Iterates an adapter's items in the background, as the host does, and keeps what came."""

    def __init__(self, adapter: ModbusAdapter) -> None:
        self.adapter = adapter
        self.items: list[Item] = []
        self.error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(10):
            await self.adapter.connect()
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(2):
            await self.adapter.disconnect()
        if self._task is not None:
            async with asyncio.timeout(2):
                await self._task

    def start(self) -> None:
        """Iterates from now on; `error` is what ends it."""

        async def iterate() -> None:
            try:
                async for item in self.adapter.items():
                    self.items.append(item)
            except AdapterError as error:
                self.error = error

        self._task = asyncio.ensure_future(iterate())

    async def until(self, condition: Callable[[], object], what: str = "", timeout: float = 10.0) -> None:
        """Waits for a condition; the end of the iteration fails it at once."""

        def look() -> object:
            if condition():
                return True
            assert self._task is not None
            if self._task.done():
                raise RuntimeError(f"items ended: {self.error!r}; last {self.items[-3:]}")
            return False

        await eventually_async(look, timeout, what=what, interval=0.005)

    async def ended(self, timeout: float = 10.0) -> BaseException | None:
        """Waits for the end of the iteration, and says why."""
        assert self._task is not None
        async with asyncio.timeout(timeout):
            await asyncio.wait({self._task})
        return self.error

    async def cancel(self) -> None:
        """Cancels the iteration wherever it stands."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    def samples(self, device: str | None = None) -> list[Samples]:
        """All samples, or those of one device."""
        return [i for i in self.items if isinstance(i, Samples) and device in (None, i.device)]

    def rows(self, point: int) -> list[tuple[Any, int]]:
        """(value, status) of each row of a point."""
        return [
            (value, s.status[row] if s.status else 0)
            for s in self.samples()
            for row, (p, value) in enumerate(zip(s.points, s.values, strict=True))
            if p == point
        ]

    def states(self, device: str) -> list[DeviceState]:
        """The comings and goings of a device."""
        return [i for i in self.items if isinstance(i, DeviceState) and i.device == device]

    def troubles(self, point: int) -> list[str | None]:
        """What was said of a point."""
        return [i.problem for i in self.items if isinstance(i, PointTrouble) and i.point == point]
