"""The adapter of docs/writing-an-adapter.md passes the contract's tests, and the page shows it as it is."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adapters.conformance import AdapterContract, Harness
from adapters.contract import Adapter, DeviceSpec, LinkSpec, Point
from tests.servers.processes import HOST, free_port
from tests.servers.waiting import eventually_async

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = DOCS / "examples/scale.py"


def example() -> ModuleType:
    """The example as a module; it is not part of the package."""
    spec = importlib.util.spec_from_file_location("scale_example", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scale = example()


class Scale:
    """A scale; without `values` it accepts connections and never answers."""

    def __init__(self, values: dict[str, float] | None) -> None:
        self.values = values
        self.port = 0
        self.links: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await eventually_async(lambda: not self.links, what="the end of every connection")

    def cut(self) -> None:
        for writer in list(self.links):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links.add(writer)
        try:
            while line := await reader.readline():
                if self.values is not None:
                    writer.write(f"{self.values.get(line.decode().strip(), '?')}\n".encode())
        except ConnectionError:
            pass
        finally:
            self.links.discard(writer)
            writer.close()


class ScaleHarness(Harness):
    adapter: type[Adapter] = scale.ScaleAdapter

    def __init__(self) -> None:
        self.device = Scale({"weight": 12.5, "tare": 0.5, "battery": 98.0})
        self.deaf = Scale(None)

    def _spec(self, port: int, *, bad: bool = False) -> LinkSpec:
        names = ["weight", "tare", "battery", *(["colour"] if bad else [])]
        points = tuple(
            Point(i, "scale-01", name, "default", scale.Address(name=name), "float64") for i, name in enumerate(names)
        )
        device = DeviceSpec("scale-01", scale.Nothing(), scale.Nothing(), {"default": 0.05}, points)
        return LinkSpec("scale", scale.LinkSettings(host=HOST, port=port, timeout=0.5), (device,))

    def spec(self, *, bad: bool = False) -> LinkSpec:
        return self._spec(self.device.port, bad=bad)

    def dead(self) -> LinkSpec:
        return self._spec(free_port())

    def silent(self) -> LinkSpec:
        return self._spec(self.deaf.port)

    async def change(self) -> None:
        assert self.device.values is not None
        self.device.values = {name: value + 1.25 for name, value in self.device.values.items()}

    async def cut(self) -> None:
        self.device.cut()

    async def down(self) -> None:
        await self.device.down()

    async def up(self) -> None:
        await self.device.up()

    async def open_links(self) -> int:
        return len(self.device.links) + len(self.deaf.links)


@pytest.fixture
async def harness() -> AsyncIterator[ScaleHarness]:
    made = ScaleHarness()
    await made.device.up()
    await made.deaf.up()
    yield made
    await made.device.down()
    await made.deaf.down()


class TestContract(AdapterContract):
    pass


async def test_an_answer_that_comes_late_is_not_taken_for_the_next_one(harness: ScaleHarness) -> None:
    adapter: Any = harness.adapter(harness.silent())
    await adapter.connect()
    with pytest.raises(scale.TransientError):
        await adapter.read([0])
    harness.deaf.values = {"weight": 1.0, "tare": 2.0}
    with pytest.raises(scale.TransientError):
        await adapter.read([1])
    await adapter.disconnect()


def test_the_part_that_speaks_to_the_scale_has_about_thirty_lines() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    part = source.split("thirty lines that speak to the scale\n")[1].split("# -----")[0]
    assert 28 <= sum(bool(line.strip()) for line in part.splitlines()) <= 34


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (DOCS / "writing-an-adapter.md").read_text(encoding="utf-8")
    assert f"```python\n{SOURCE.read_text(encoding='utf-8')}```" in page
