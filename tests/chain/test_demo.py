"""`guantong demo` as somebody types it: it starts, stores, stops on Ctrl-C, and goes on when it is started again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreWeatherError
from gateway.store import open_reader
from simulators.registry import device_types
from tests.chain.installation import free_base_port
from tests.servers.processes import HOST, ChildProcess, free_port
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

GUANTONG = Path(sys.executable).with_name("guantong")


@pytest.fixture
def ports() -> dict[str, int]:
    base = free_base_port([kind.port for kind in device_types().values()])
    return {"--api-port": free_port(), "--mqtt-port": free_port(), "--base-port": base}


class Demo:
    """One run of the demonstration."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        options = [text for name, value in ports.items() for text in (name, str(value))]
        environment = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self.child = ChildProcess([GUANTONG, "demo", "--dir", folder, *options, "--plain"], env=environment)
        self.family: list[psutil.Process] = []

    def stored(self, more_than: int = 0) -> int:
        """Waits until more rows than that are stored; how many there are."""

        def count() -> int:
            assert self.child.running, self.child.output()
            rows = stored_rows(self.folder)
            return rows if rows > more_than else 0

        return eventually(count, 40, what=f"more than {more_than} rows", interval=0.2)

    def interrupt(self) -> float:
        """Ctrl-C; the seconds that it took to end. The process is the leader of what it started."""
        self.family = psutil.Process(self.child.pid).children(recursive=True)
        assert len(self.family) >= 5, "broker, three roles and the workshop"
        begun = time.monotonic()
        code = self.child.stop(15, by=signal.SIGINT)
        assert code == 0, self.child.output()
        return time.monotonic() - begun

    def end(self) -> None:
        """Whatever happened, nothing is left."""
        if self.child.running:
            self.family = psutil.Process(self.child.pid).children(recursive=True)
        self.child.kill()
        for process in self.family:
            if process.is_running():
                process.kill()


def stored_rows(folder: Path) -> int:
    reader = open_reader(StoreSettings(), folder)
    try:
        return sum(len(piece) for piece in reader.history([signal.id for signal in reader.signals()]))
    except StoreWeatherError:
        return 0
    finally:
        reader.close()


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    running: list[Demo] = []
    yield running
    for demo in running:
        demo.end()


def test_it_stops_within_five_seconds_and_goes_on_afterwards(
    tmp_path: Path, ports: dict[str, int], demos: list[Demo]
) -> None:
    first = Demo(tmp_path / "demo", ports)
    demos.append(first)
    rows = first.stored(200)
    took = first.interrupt()
    assert took < 5, f"it took {took:.1f} s"
    _, alive = psutil.wait_procs(first.family, timeout=0)
    assert not alive, f"still there: {[process.cmdline() for process in alive]}"
    assert any(f"http://127.0.0.1:{ports['--api-port']}/docs" in line for line in first.child.lines)
    rows = stored_rows(tmp_path / "demo")

    second = Demo(tmp_path / "demo", ports)
    demos.append(second)
    second.stored(rows + 200)
    reader = open_reader(StoreSettings(), tmp_path / "demo")
    try:
        old, new = reader.streams()
        assert old.closed_at is not None
        assert new.closed_at is None
        assert old.lost == new.lost == 0
        assert {gap.cause for gap in reader.gaps()} == {"collector_down"}
    finally:
        reader.close()
    assert second.interrupt() < 5


@pytest.mark.parametrize("option", ["--api-port", "--mqtt-port", "--base-port"])
def test_a_taken_port_is_named_with_its_option(
    option: str, tmp_path: Path, ports: dict[str, int], demos: list[Demo]
) -> None:
    taken = ports[option] + (11 if option == "--base-port" else 0)
    with socket.socket() as listener:
        listener.bind((HOST, taken))
        listener.listen()
        demo = Demo(tmp_path / "demo", ports)
        demos.append(demo)
        eventually(lambda: not demo.child.running, 20, what="it ends")
    assert demo.child.stop() == 1
    said = demo.child.output()
    assert str(taken) in said
    assert option in said
    assert not (tmp_path / "demo").exists()
