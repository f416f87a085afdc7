"""Wires that stay open: a serial port, listened to before it is used, and the connection of one who has dialled in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from adapters.modbus._dial_in import DialledIn, Seat
from adapters.modbus._errors import ForeignMasterError
from adapters.modbus._port import SerialPort
from adapters.modbus._serial import SerialPlace
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._wire import of_unit

T = TypeVar("T")


class ClosingError(Exception):
    """The link was closed meanwhile."""


async def unless_closing(closing: asyncio.Event, doing: Coroutine[Any, Any, T]) -> T:
    """What `doing` gives or raises; it is cancelled, and ClosingError raised, when `closing` is set first."""
    task = asyncio.ensure_future(doing)
    told_to_close = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait((task, told_to_close), return_when=asyncio.FIRST_COMPLETED)
        if closing.is_set():
            raise ClosingError
        return task.result()
    finally:
        task.cancel()
        told_to_close.cancel()


def place_of(settings: ModbusLinkSettings) -> SerialPlace:
    """The port of a link with `serial`, and how it is set."""
    assert settings.serial is not None
    ascii_frames = settings.framing == "ascii"
    return SerialPlace(settings.serial, settings.baud, settings.parity, settings.stop, settings.bits, ascii_frames)


async def listened_to(
    settings: ModbusLinkSettings,
    monotonic: Callable[[], float],
    closing: asyncio.Event,
    *,
    listen: float,
    asked: int | None,
) -> SerialPort:
    """The port, open, and `listen` seconds later, if nobody spoke there but perhaps the unit that was `asked` last, late.

    Raises TransientError, and ForeignMasterError where another master speaks; ClosingError. Nothing is open then.
    """
    port = SerialPort(place_of(settings), monotonic)
    silent = False
    try:
        heard = await unless_closing(closing, port.listen(listen))
        if heard and not of_unit(heard, asked, settings.frames):
            raise ForeignMasterError(settings.place, len(heard))
        silent = True
    finally:
        if not silent:
            port.close()
    return port


async def dialled_in(seat: Seat, place: str, closing: asyncio.Event) -> DialledIn:
    """The connection of the unit, when it has come. Raises TransientError, ClosingError."""
    here = False
    try:
        wire = await unless_closing(closing, seat.wire(place))
        here = True
    finally:
        if not here:
            seat.leave()
    return wire
