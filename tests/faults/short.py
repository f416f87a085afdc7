"""The short form: runs that are written down, on a third of the load, as tests."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.faults.campaign import RECOVERED_WITHIN, Plan, Result, run
from tests.faults.oracle import Oracle, now_us
from tests.faults.rig import Kind, Rig, Settings

SEED = 2026
COPIES = 1


class Installation:
    """One installation for all runs of a module; after a failure the next run gets a fresh one."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._stack = ExitStack()
        self._number = 0
        self._rig: Rig | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _fresh(self) -> Rig:
        self._stack.close()
        folder = Path(tempfile.mkdtemp(prefix="guantong-chaos-"))
        folder.chmod(0o755)  # the database runs as another user
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        rig = self._rig = self._stack.enter_context(Rig(folder, Settings(self._kind, SEED, COPIES)))
        rig.settle(now_us(), RECOVERED_WITHIN)
        self.oracle = Oracle(rig)
        return rig

    @property
    def rig(self) -> Rig:
        """The installation, started."""
        return self._rig or self._fresh()

    def _run(self, *faults: str) -> Result:
        rig = self.rig
        self._number += 1
        return run(rig, self.oracle, Plan(SEED, self._number, self._kind, faults))

    def run(self, *faults: str) -> Result:
        """Let these faults fall together; fails with what is not as promised, and with what the processes said.

        A run in which the machine let the collector stand still, and nothing else was wrong, says nothing about the fault: it is played once more.
        """
        result = self._run(*faults)
        if result.stood and result.stood == len(result.wrong):
            result = self._run(*faults)
        rig = self.rig
        if not result.holds:
            logs = "\n".join(f"---- {name}\n{text}" for name, text in rig.logs().items())
            self._rig = None
            pytest.fail("\n".join([result.line(), *result.wrong, logs]), pytrace=False)
        return result
