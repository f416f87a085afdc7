"""Structured logs: one JSON object a line, or text for people when standard error is a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

_QUIET = ("asyncua", "pymodbus", "paho", "uvicorn.access", "alembic", "sqlalchemy")
"""Libraries that tell at level INFO what each message held: it doubles the cost of a message and fills disks."""


def configure(role: str, level: str = "info") -> None:
    """Sends everything that is logged to standard error, with time (UTC), level, logger and role."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]

    def add_role(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    tty = sys.stderr.isatty()
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if tty:
        final.append(structlog.dev.ConsoleRenderer(colors=True))
    else:
        final += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*shared, add_role], processors=final),
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # it warns of every answer that comes after the request was given up, as at each stop
    logging.getLogger("asyncua.client.ua_client.UASocketProtocol").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, add_role, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
