"""Reading some points of a device once, beside the schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from adapters.contract import Clock, Samples
from adapters.modbus._codec import Request, Response
from adapters.modbus._device import FUNCTIONS, Block, Device
from adapters.modbus._errors import unit_silent
from adapters.modbus._harvest import BUSY_FIRST, BUSY_MOST, PASSING
from adapters.modbus._isolate import ILLEGAL_ADDRESS, ILLEGAL_VALUE
from adapters.modbus._link import Link, NoAnswerError
from adapters.modbus._plan import Value
from adapters.modbus._settings import ModbusLinkSettings
from schemas.status import (
    BAD_CONFIGURATION_ERROR,
    BAD_DECODING_ERROR,
    BAD_NO_COMMUNICATION,
    modbus_exception,
)


async def read_once(link: Link, device: Device, points: Sequence[int], clock: Clock) -> Samples:
    """The present values of these points of `device`, in any order, with a status where there is none.

    `received` is that of the last response. Raises TransientError when the link is lost, ClosingError when it is closed.
    """
    rows: dict[int, tuple[Any, int]] = {}
    tables: dict[str, list[Value]] = {}
    for point in points:
        if point in device.unreadable:
            rows[point] = (None, BAD_CONFIGURATION_ERROR)
            continue
        for needed in (point, device.source(point)):
            if needed is not None and device.value(needed) not in tables.setdefault(device.table(needed), []):
                tables[device.table(needed)].append(device.value(needed))
    received: int | None = None
    waiting = device.blocks(tables)
    silent = False
    while waiting:
        block = waiting.pop(0)
        if silent:
            rows.update((point, (None, BAD_NO_COMMUNICATION)) for point in block.points)
            continue
        try:
            response = await _patiently(link, block.request, device.rules.timeout)
        except NoAnswerError:
            silent = True
            waiting.insert(0, block)
            continue
        received = response.received
        if (response.short or response.code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE)) and len(block.read.values) > 1:
            waiting[:0] = [single for value in block.read.values for single in device.blocks({block.table: [value]})]
            continue
        rows.update(_rows(device, block, response))
    wanted = set(points)
    order = [point for point in rows if point in wanted]
    return Samples(
        device.id,
        device.groups[points[0]],
        received if received is not None else clock.now(),
        order,
        [rows[point][0] for point in order],
        status=[rows[point][1] for point in order],
    )


async def read_plain(
    link: Link, settings: ModbusLinkSettings, unit: int, table: str, address: int, count: int, timeout: float
) -> tuple[int, bytes, int]:
    """Exception code (0: none), bytes as received, and when (µs). Raises TransientError, ClosingError."""
    try:
        response = await _patiently(link, Request(unit, FUNCTIONS[table], address, count), timeout)
    except NoAnswerError:
        raise unit_silent(settings, unit) from None
    return response.code, b"" if response.code else response.data, response.received


async def _patiently(link: Link, request: Request, timeout: float) -> Response:
    """The answer; a device that says that it is busy is asked again for as long as an answer may take, and for a second at least."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + max(timeout, 1.0), BUSY_FIRST
    while True:
        response = await link.request(request, timeout)
        if response.code not in PASSING or loop.time() + pause >= end:
            return response
        await asyncio.sleep(pause)
        pause = min(2 * pause, BUSY_MOST)


def _rows(device: Device, block: Block, response: Response) -> list[tuple[int, tuple[Any, int]]]:
    points = block.points
    if response.code or response.short:
        status = modbus_exception(response.code).status if response.code else BAD_DECODING_ERROR
        return [(point, (None, status)) for point in points]
    got = device.decoded(block, response.data)
    return [
        (point, (value, status))
        for point, value, status in zip(got.points, got.values, got.status or (0,) * len(got.points), strict=True)
    ]
