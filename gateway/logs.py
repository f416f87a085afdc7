"""Structured logs: one JSON object a line, or text for people when standard error is a terminal.

Written on the standard library alone: a logging package would bring colours, and with them three to eight megabytes to each role.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from schemas.times import to_rfc3339

_QUIET = ("asyncua", "pymodbus", "paho", "uvicorn.access", "alembic", "sqlalchemy")
"""Libraries that tell at level INFO what each message held: it doubles the cost of a message and fills disks."""
_COLOUR = {"DEBUG": "2", "INFO": "0", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class JsonLines(logging.Formatter):
    """`{"event", "logger", "level", "timestamp", "role"}`, with `exception` and `stack` where there is one."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line, in UTF-8 as it is written."""
        fields = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": to_rfc3339(int(record.created * 1e6)),
            "role": self._role,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps(fields, ensure_ascii=False)


class Lines(logging.Formatter):
    """For people: local time, role, logger and what happened, coloured by how bad it is."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{at} {self._role:7} {record.levelname.lower():8} {record.name}: {record.getMessage()}"
        colour = _COLOUR.get(record.levelname, "0") if "NO_COLOR" not in os.environ else "0"
        line = text if colour == "0" else f"\x1b[{colour}m{text}\x1b[0m"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            line += "\n" + self.formatStack(record.stack_info)
        return line


def configure(role: str, level: str = "info") -> None:
    """Sends everything that is logged to standard error, with time (UTC), level, logger and role."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(role) if sys.stderr.isatty() else JsonLines(role))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # it warns of every answer that comes after the request was given up, as at each stop
    logging.getLogger("asyncua.client.ua_client.UASocketProtocol").setLevel(logging.ERROR)
