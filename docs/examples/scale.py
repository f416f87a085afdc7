"""An adapter for a weighing scale that speaks lines of text over TCP: it is asked `weight`, and answers `12.5`, or `?` for what it lacks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Any

from adapters.contract import (
    BrowseNode,
    ConfigError,
    Counters,
    Item,
    LinkSpec,
    PointTrouble,
    Samples,
    TransientError,
    WritesDisabledError,
)
from schemas.model import Strict
from schemas.status import BAD_NOT_FOUND, GOOD


class LinkSettings(Strict):
    host: str
    port: int = 4001
    timeout: float = 1.0


class Address(Strict):
    name: str


class Nothing(Strict):
    pass


class ScaleAdapter:
    protocol, LinkSettings, DeviceSettings, Address, Rules = "scale", LinkSettings, Nothing, Address, Nothing

    def __init__(self, spec: LinkSpec) -> None:
        assert isinstance(spec.settings, LinkSettings)
        self._spec, self._settings = spec, spec.settings
        self._points = {point.id: point for device in spec.devices for point in device.points}
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn, self._closing = asyncio.Lock(), asyncio.Event()
        self._requests = self._values = 0

    # ------------------------------------------------------------------------ thirty lines that speak to the scale

    async def connect(self) -> None:
        self._closing.clear()
        try:
            async with asyncio.timeout(self._settings.timeout):
                self._link = await asyncio.open_connection(self._settings.host, self._settings.port)
        except OSError as error:  # TimeoutError is one of them
            raise self._lost("unreachable", error) from error

    async def disconnect(self) -> None:
        self._closing.set()
        link, self._link = self._link, None
        if link is not None:
            link[1].close()
            with contextlib.suppress(OSError):
                await link[1].wait_closed()

    async def _ask(self, name: str) -> str:
        if self._link is None:
            raise self._lost("not_connected", "the link is not open")
        reader, writer = self._link
        self._requests += 1
        try:
            async with asyncio.timeout(self._settings.timeout):
                writer.write(f"{name}\n".encode())
                return (await reader.readuntil(b"\n")).decode().strip()
        except BaseException as error:
            writer.close()  # an answer that comes late must never be taken for that of the next question
            if isinstance(error, OSError | EOFError | ValueError):
                raise self._lost("no_answer", error) from error
            raise

    # ----------------------------------------------------------------------------------- what the host is given

    async def items(self) -> AsyncIterator[Item]:
        scans = [
            (device, period, [point.id for point in device.points if point.group == group])
            for device in self._spec.devices
            for group, period in device.groups.items()
        ]
        due = {number: 0.0 for number, (_, _, points) in enumerate(scans) if points}
        troubled: set[int] = set()
        while not self._closing.is_set():
            number = min(due, key=lambda number: due[number])
            with contextlib.suppress(TimeoutError):  # ends early when the host disconnects
                await asyncio.wait_for(self._closing.wait(), max(0.0, due[number] - self._spec.clock.monotonic()))
                return
            device, period, points = scans[number]
            due[number] = self._spec.clock.monotonic() + period
            try:
                samples = await self.read(points)
            except TransientError:
                if self._closing.is_set():
                    return
                raise
            for point, status in zip(samples.points, samples.status or (), strict=True):
                if (status != GOOD) != (point in troubled):
                    troubled ^= {point}
                    yield PointTrouble(device.id, point, "the scale does not know this name" if status else None)
            yield samples

    async def read(self, points: Sequence[int]) -> Samples:
        async with self._turn:  # one question at a time
            answers = [await self._ask(self._points[point].address.name) for point in points]  # type: ignore[attr-defined]
        now, first = self._spec.clock.now(), self._points[points[0]]
        values = [None if answer == "?" else float(answer) for answer in answers]
        status = [BAD_NOT_FOUND if answer == "?" else GOOD for answer in answers]
        self._values += len(values)
        return Samples(first.device, first.group, now, list(points), values, status=status, complete_to=now)

    def ack(self, token: Hashable) -> None:
        """A scale repeats nothing, so there is nothing to acknowledge."""

    async def write(self, point: int, value: Any) -> None:
        raise WritesDisabledError(f"write of {value!r} to {self._points[point].signal}")

    def browse(self, node: str | None = None, *, depth: int = 1) -> AsyncIterator[BrowseNode]:
        raise ConfigError("a scale cannot be browsed", reason="browse_unsupported")

    def endpoint(self, device: str) -> str:
        return f"scale+tcp://{self._settings.host}:{self._settings.port}"

    def counters(self) -> Counters:
        return Counters(requests=self._requests, values=self._values)

    def _lost(self, reason: str, error: object) -> TransientError:
        return TransientError(
            f"{self.endpoint('')}: {error or 'no answer in time'}", reason=reason,
            fix_en="Check that the scale is on, and its cable.", fix_zh="请检查秤是否开机、网线是否接好。",
        )  # fmt: skip
