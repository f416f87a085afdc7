"""A simulated Modbus device: one server, the process behind it, and the faults it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from simulators.device import COMMON_FAULTS, DeviceSettings, FaultArgument, FaultError, ProtocolName
from simulators.modbus.server import Framing, LinkFaults, ModbusServer, UnitFault
from simulators.modbus.unit import DEVICE_FAILURE, Unit
from simulators.pace import run_at_pace

__all__ = ["MODBUS_FAULTS", "Instrument", "ModbusDevice", "faults_of"]

MODBUS_FAULTS: Mapping[str, str] = {
    "silent": "unit=N (default all) does not answer, the connection stays",
    "exception": "reads get exception code=N (default 4), of unit=N only, or only where they touch address=N",
    "short": "answers lack their last bytes=N (default the half), of unit=N only",
    "late": "answers leave after delay=SECONDS (default 1.5) while the line is free, so that they meet the next request",
    "hole": "count=N (default 1) addresses from address=N on, of unit=N only, get exception 2",
    "reset": "all counters fall to zero, at once and once",
    "stop": "the machine stands still",
    "sentinel": "a value is replaced by the word that means a fault: value=N",
}


def faults_of(*own: str) -> dict[str, str]:
    """The common faults, those of :data:`MODBUS_FAULTS` that every Modbus device knows, and *own* of it."""
    known = [kind for kind in MODBUS_FAULTS if kind not in _SOME_KNOW or kind in own]
    return {**COMMON_FAULTS, **{kind: MODBUS_FAULTS[kind] for kind in known}}


_SOME_KNOW = frozenset({"reset", "sentinel"})


class Instrument(Protocol):
    """What is behind the server: the units with their memory, and the process that fills it."""

    units: Mapping[int, Unit]
    dead: frozenset[int]
    """Units that never answer."""

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass and put the new values into the units' memory."""
        ...

    def reset(self) -> None:
        """All counters to zero."""
        ...

    def halt(self, halted: bool) -> None:
        """Bring the machine to a standstill, or let it go on."""
        ...

    def sentinel(self, word: int | None) -> None:
        """Answer with the fault *word* in place of a value; 0 means the usual one, None ends it.

        Raises:
            FaultError: the device has no such word.
        """
        ...


class ModbusDevice:
    """Implements :class:`simulators.device.Device` for an :class:`Instrument`."""

    def __init__(
        self,
        settings: DeviceSettings,
        instrument: Instrument,
        framing: Framing,
        faults: Mapping[str, str],
        *,
        baud: int | None = None,
    ) -> None:
        """*baud* lets the bytes of an RTU line take their time; None is as fast as TCP."""
        self._settings = settings
        self.instrument = instrument
        """What is behind the server."""
        self._known = faults
        self._server = ModbusServer(framing, instrument.units, settings.truth, instrument.dead, baud)
        self._host = ""
        self._port = 0
        self._process: asyncio.Task[None] | None = None
        self._off = False
        self._begin: Mapping[str, Callable[[dict[str, FaultArgument]], None]] = {
            "slow": self._slow,
            "half_open": self._half_open,
            "silent": self._silent,
            "exception": self._exception,
            "short": self._short,
            "late": self._late,
            "hole": self._hole,
            "reset": self._reset,
            "stop": self._stop,
            "sentinel": self._sentinel,
        }

    @property
    def id(self) -> str:
        """Its id, such as ``meter-01``."""
        return self._settings.device

    @property
    def protocol(self) -> ProtocolName:
        """``modbus-tcp`` or ``modbus-rtu-over-tcp``."""
        return "modbus-tcp" if self._server.framing == "tcp" else "modbus-rtu-over-tcp"

    @property
    def endpoint(self) -> str:
        """``tcp://HOST:PORT``."""
        return f"tcp://{self._host}:{self._port}"

    async def start(self, host: str, port: int) -> int:
        """Bind, write ``up`` and run the process; see :meth:`simulators.device.Device.start`."""
        self.instrument.advance(0.0)
        self._port = await self._server.open(host, port)
        self._host = host
        self._settings.truth.write("up", reason="started")
        self._process = asyncio.create_task(
            run_at_pace(self.instrument.advance, self._settings.speed), name=f"process of {self.id}"
        )
        return self._port

    async def stop(self) -> None:
        """Cut connections, free the port, write ``down``, end the process; may be called twice.

        An error that ended the process before is raised here, after everything is closed.
        """
        process, self._process = self._process, None
        if process is None:
            self._settings.truth.close()
            return
        process.cancel()
        (outcome,) = await asyncio.gather(process, return_exceptions=True)
        await self._server.close()
        if not self._off:
            self._settings.truth.write("down", reason="stopped")
        self._settings.truth.close()
        if isinstance(outcome, Exception):
            raise outcome

    async def fault(self, kind: str, **args: FaultArgument) -> None:
        """Begin to misbehave; the faults and their arguments are those of ``DeviceType.faults``.

        Numbers may also be given as text, hexadecimal with ``0x``.

        Raises:
            FaultError: a fault that this device does not know, or arguments that do not fit.
        """
        if kind not in self._known:
            raise FaultError(f"{self.id} does not know the fault {kind!r}; it knows {', '.join(self._known)}")
        left = dict(args)
        if kind == "off":
            _no_more(kind, left)
            await self._switch_off()
        else:
            self._begin[kind](left)

    async def clear(self) -> None:
        """End all faults; a closed port is bound again under the same number. A ``reset`` is not undone."""
        self._server.faults = LinkFaults()
        for unit in self.instrument.units.values():
            unit.punch(())
        self.instrument.halt(False)
        self.instrument.sentinel(None)
        if self._off:
            await self._server.open(self._host, self._port)
            self._off = False
            self._settings.truth.write("up", reason="fault off cleared")

    async def _switch_off(self) -> None:
        if not self._off:
            self._off = True
            await self._server.close()
            self._settings.truth.write("down", reason="fault off")

    # ------------------------------------------------------------------------------------------------ single faults

    def _unit(self, args: dict[str, FaultArgument]) -> int | None:
        number = _integer(args, "unit", None)
        if number is not None and number not in self.instrument.units and number not in self.instrument.dead:
            raise FaultError(f"{self.id} has no unit {number}; it has {sorted(self.instrument.units)}")
        return number

    def _slow(self, args: dict[str, FaultArgument]) -> None:
        delay = _seconds(args, "delay", 1.0)
        _no_more("slow", args)
        self._server.faults.slow = delay

    def _half_open(self, args: dict[str, FaultArgument]) -> None:
        _no_more("half_open", args)
        self._server.faults.half_open = True

    def _silent(self, args: dict[str, FaultArgument]) -> None:
        fault = UnitFault(self._unit(args))
        _no_more("silent", args)
        self._server.faults.silent = fault

    def _exception(self, args: dict[str, FaultArgument]) -> None:
        code = _integer(args, "code", DEVICE_FAILURE)
        assert code is not None
        if not 1 <= code <= 255:
            raise FaultError(f"exception: code={code} is not a byte from 1 to 255")
        fault = UnitFault(self._unit(args), code=code, address=_integer(args, "address", None))
        _no_more("exception", args)
        self._server.faults.exception = fault

    def _short(self, args: dict[str, FaultArgument]) -> None:
        fault = UnitFault(self._unit(args), cut=_integer(args, "bytes", None))
        _no_more("short", args)
        self._server.faults.short = fault

    def _late(self, args: dict[str, FaultArgument]) -> None:
        fault = UnitFault(self._unit(args), delay=_seconds(args, "delay", 1.5))
        _no_more("late", args)
        self._server.faults.late = fault

    def _hole(self, args: dict[str, FaultArgument]) -> None:
        address = _integer(args, "address", None)
        count = _integer(args, "count", 1)
        number = self._unit(args)
        _no_more("hole", args)
        if address is None or count is None:
            raise FaultError("hole: needs address=N, the wire address of the hole")
        for unit_number, unit in self.instrument.units.items():
            if number in (None, unit_number):
                unit.punch(range(address, address + count))

    def _reset(self, args: dict[str, FaultArgument]) -> None:
        _no_more("reset", args)
        self.instrument.reset()

    def _stop(self, args: dict[str, FaultArgument]) -> None:
        _no_more("stop", args)
        self.instrument.halt(True)

    def _sentinel(self, args: dict[str, FaultArgument]) -> None:
        word = _integer(args, "value", 0)
        _no_more("sentinel", args)
        self.instrument.sentinel(word)


def _integer(args: dict[str, FaultArgument], name: str, default: int | None) -> int | None:
    value = args.pop(name, default)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        return int(value, 0) if isinstance(value, str) else _whole(value)
    except ValueError:
        raise FaultError(f"{name}={value!r} is not a whole number such as 3 or 0x1000") from None


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(value)
    return int(value)


def _seconds(args: dict[str, FaultArgument], name: str, default: float) -> float:
    value = args.pop(name, default)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise FaultError(f"{name}={value!r} is not a number of seconds between 0 and 3600")
    return seconds


def _no_more(kind: str, args: dict[str, FaultArgument]) -> None:
    if args:
        raise FaultError(
            f"{kind}: does not know {', '.join(sorted(args))}; {MODBUS_FAULTS.get(kind) or COMMON_FAULTS[kind]}"
        )
