"""OPC UA servers whose clocks are wrong: whole processes that live in another time, on two stacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.servers.foreign import NodeOpcUaServer, TruthfulServer
from tests.servers.timescale import NPM
from tests.servers.waiting import eventually

PROGRAM = Path(__file__).with_name("skewed_asyncua.py")


class WrongClock(Protocol):
    """What a test needs of either."""

    port: int
    first: dict[str, Any]
    truth: list[dict[str, Any]]

    @property
    def node(self) -> str:
        """NodeId of a variable, with its namespace URI."""

    def change(self, value: int, time: str | None = None) -> None:
        """Gives it a value; `time` is its source time in ISO 8601, the server's own present one without. Told in `truth`, with `time`."""


class SkewedAsyncua(TruthfulServer):
    """asyncua's server in a process that is `ahead` (µs) of the time."""

    def __init__(self, ahead: int = 0) -> None:
        super().__init__()
        self._ahead = ahead

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, PROGRAM, str(self.port), str(self._ahead)]

    @property
    def node(self) -> str:
        return f"nsu={self.first['namespace']};s=v0"

    def change(self, value: int, time: str | None = None) -> None:
        self.command(json.dumps({"set": [value], "time": time}))

    def set_clock(self, ahead: int) -> None:
        """Sets its clock, and returns when it is set."""
        told = len(self.truth)
        self.command(json.dumps({"ahead": ahead}))
        eventually(lambda: len(self.truth) > told, 30, what="the clock is set")


class SkewedNodeOpcUa(NodeOpcUaServer):
    """node-opcua's server in a process that is `ahead` (µs, in whole milliseconds) of the time."""

    def __init__(self, folder: Path, ahead: int = 0) -> None:
        super().__init__(folder)
        self._ahead = ahead

    def _command(self) -> Sequence[str | Path]:
        node, *rest = super()._command()
        return [node, "--import", NPM / "clock.mjs", *rest, str(self._ahead // 1_000)]

    @property
    def node(self) -> str:
        return f"nsu={self.namespace};i=1020"

    def change(self, value: int, time: str | None = None) -> None:
        self.set("Counter", value, time=time)
