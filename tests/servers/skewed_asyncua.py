"""A process with an OPC UA server on asyncua that lives in another time: `skewed_asyncua.py PORT MICROSECONDS` (ahead; below 0: behind).

It prints a line of JSON with its endpoint, then one for each change, and takes commands, one JSON object a line:
  {"set": [VALUE, …], "time": ISO}   new values of v0, v1 …; `time` is their source time, the process's own without
  {"ahead": MICROSECONDS}            its clock is set
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from copy import copy
from pathlib import Path
from typing import Any

_Right = dt.datetime
_ahead = dt.timedelta()


class _Kind(type):
    """What is a date for the libraries is one of either kind."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Right)


class _Skewed(_Right, metaclass=_Kind):
    """The time of this process, whoever asks for it."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _Right.now(tz) + _ahead

    @classmethod
    def utcnow(cls) -> Any:
        return _Right.now(dt.UTC).replace(tzinfo=None) + _ahead


def say(told: object) -> None:
    """One line for whoever started this."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def tell_time(internal: Any) -> None:
    """Writes CurrentTime."""
    status = copy(await internal.server_status_node.read_value())
    status.CurrentTime = _Skewed.now(dt.UTC)
    await internal.server_status_node.write_value(status)
    await internal.current_time_node.write_value(status.CurrentTime)


def main() -> None:
    """Serves until its standard input closes."""
    global _ahead
    port, microseconds = int(sys.argv[1]), int(sys.argv[2])
    _ahead = dt.timedelta(microseconds=microseconds)
    dt.datetime = _Skewed  # type: ignore[misc]  # before asyncua takes the name
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.adapters.opcua_server import MACHINE, SmallServer

    with SmallServer(port=port) as server:
        say({"endpoint": server.endpoint, "namespace": MACHINE})
        for line in sys.stdin:
            command = json.loads(line)
            if "ahead" in command:
                _ahead = dt.timedelta(microseconds=command["ahead"])
                server.run(tell_time(server.server.iserver))  # which it does by itself each second
                say(command)
                continue
            time = _Right.fromisoformat(command["time"]) if command.get("time") else _Skewed.now(dt.UTC)
            for i, value in enumerate(command["set"]):
                server.write(f"v{i}", value, SourceTimestamp=time)
            say({"change": command["set"], "time": time.isoformat()})


if __name__ == "__main__":
    main()
