"""A server on node-opcua for the tests of reading: `tests/servers/npm/reading.mjs`, which tells its commands."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tests.servers.foreign import TruthfulServer
from tests.servers.needs import require
from tests.servers.timescale import NPM, node_package


class ReadingServer(TruthfulServer):
    """`count` variables i=10000 and up, a structure, an alarm, and nodes that come and go."""

    def __init__(self, folder: Path, count: int = 0) -> None:
        super().__init__()
        self._node = require("node")
        node_package("node-opcua")
        self._folder, self._count = folder, count

    def _command(self) -> Sequence[str | Path]:
        return [self._node, NPM / "reading.mjs", self._folder, str(self.port), str(self._count)]

    @property
    def endpoint(self) -> str:
        return str(self.first["endpoint"])

    def node(self, number: int) -> str:
        """NodeId text of one of its variables."""
        return f"nsu={self.first['namespace']};i={number}"

    def do(self, **command: object) -> None:
        """Gives a command, and returns when it is done."""
        before = len(self.truth)
        self.command(json.dumps(command, ensure_ascii=False))
        end = time.monotonic() + 10
        while len(self.truth) == before:
            assert time.monotonic() < end, f"{command} is not done; {self.output()}"
            time.sleep(0.002)
