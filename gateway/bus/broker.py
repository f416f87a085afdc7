"""The embedded broker: rumqttd from the `iotcore` wheel, in a process of its own, on loopback, MQTT 3.1.1.

`python -m gateway.bus.broker CONFIG.toml` runs it until its standard input closes, so that it never outlives its parent. It keeps
nothing on disk and nothing rests on it: after a restart collectors and ingest agree again by themselves.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from schemas.wire import MAX_MESSAGE

_LOG = (256 * 1024, 8)
"""Bytes of a segment, and segments, of the log that the broker keeps for each subscribed filter. It fills up with everything that
passes, whether anybody is behind or not."""
_LOGS = {
    "ledger/#": (64 * 1024, 10),
    "committed/#": (64 * 1024, 12),
    "confirmed/#": (1024, 8),
    "sync/#": (1024, 8),
    "commands/#": (1024, 8),
    "events/#": (16 * 1024, 8),
    "status/#": (16 * 1024, 8),
}
"""Other logs, below `{root}/v1/`. A message in a log keeps the whole buffer in memory in which it arrived, and what else was in it:
topics of small messages must hold few of them, or each confirmation keeps the transaction that came with it."""
WINDOW = 512 * 1024
"""Unconfirmed bytes that a collector may have on the way here. It is less than a log holds: ingest then misses none of them."""


def write_config(path: Path, port: int, root: str = "guantong") -> Path:
    """Writes the broker's TOML for a listener on 127.0.0.1:`port` and returns `path`. `root`: the first levels of our topics.

    The payload limit is above the ledger's largest message: rumqttd's own default of 20 kB cuts the connection of whoever
    sends more, again and again.
    """
    logs = "".join(
        f'[router.custom_segment."{root}/v1/{name}"]\nmax_segment_size = {size}\nmax_segment_count = {count}\n'
        for name, (size, count) in _LOGS.items()
    )
    path.write_text(
        f"""id = 0
[router]
id = 0
max_connections = 200
max_outgoing_packet_count = 200
max_segment_size = {_LOG[0]}
max_segment_count = {_LOG[1]}
{logs}[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 10000
max_payload_size = {4 * MAX_MESSAGE}
max_inflight_count = 500
dynamic_filters = "true"
""",
        encoding="utf-8",
    )
    return path


def command(config: Path) -> list[str]:
    """The command line of the broker's process; give it a pipe as standard input and close it to end the broker."""
    return [sys.executable, "-m", "gateway.bus.broker", str(config)]


def _exit_when_input_closes() -> None:
    try:
        while sys.stdin.buffer.read(4096):
            pass
    finally:
        os._exit(0)


def main() -> None:
    """Runs the broker in this process."""
    import logging

    from iotcore.iotcore import IotCoreBroker

    # rumqttd writes a record at level ERROR for every packet (its spans); they mean nothing to a person
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    threading.Thread(target=_exit_when_input_closes, daemon=True).start()
    IotCoreBroker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
