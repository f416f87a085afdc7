"""Commands whose reader goes away, as that of `guantong tail | head`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app

DEADLINE = 60.0


class Api(BaseHTTPRequestHandler):
    """A stream of readings that does not end, and a list of very many devices; with a key of one that has troubles."""

    def do_GET(self) -> None:
        """Answers."""
        self.send_response(200)
        self.end_headers()
        if self.path.startswith("/api/v1/stream"):
            reading = {
                "signal": "press/count",
                "ts": "2026-01-01T00:00:00Z",
                "value": 1,
                "quality": "good",
                "status": 0,
            }
            text = f"event: readings\ndata: {json.dumps({'items': [reading] * 100})}\n\n"
            try:
                while True:
                    self.wfile.write(text.encode())
            except OSError:
                return  # the command has ended
        if self.path.endswith("/troubles"):
            items = [{"signal": "event cycle/end", "text": "comes without the field cushion"}] * 5
            self.wfile.write(json.dumps({"items": items}).encode())
            return
        device = {
            "id": "press",
            "state": "ok",
            "name": "x" * 200,
            "signals": 1,
            "last_seen": "",
            "text": "",
            "reason": "",
            "fix": "",
        }
        count = 2_000
        if self.headers["Authorization"]:
            device, count = {**device, "state": "connected"}, 1
        self.wfile.write(json.dumps({"items": [device] * count}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("command", "language"),
    [
        (["tail"], "en"),
        (["tail"], "zh"),
        (["tail", "--json"], "en"),
        (["devices"], "en"),
        (["devices", "--json"], "zh"),
    ],
)
def test_it_ends_quietly_when_nobody_reads_any_more(api: str, command: list[str], language: str) -> None:
    program = [sys.executable, "-c", "from gateway.cli import main; main()", *command, "--api", api]
    environment = {**os.environ, "GUANTONG_LANGUAGE": language}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.wait(DEADLINE) == 141  # as a program that SIGPIPE has ended
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_what_is_in_trouble_of_a_connected_device_is_told(api: str) -> None:
    """Also an event of which the machine refuses a field."""
    told = CliRunner().invoke(app, ["devices", "--api", api, "--key", "one-device"])
    assert told.exit_code == 0, told.output
    assert "; event cycle/end: comes without the field cushion; (+2)" in told.output
    listed = json.loads(CliRunner().invoke(app, ["devices", "--api", api, "--key", "one-device", "--json"]).stdout)
    assert [len(device["troubles"]) for device in listed] == [5]
