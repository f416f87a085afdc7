"""Environment variables that override the configuration file, as containers and systemd units set them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Variable:
    """`name` overrides the key at `place`."""

    name: str
    place: tuple[str, ...]
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("GUANTONG_GATEWAY_ID", ("gateway", "id")),
    Variable("GUANTONG_TIMEZONE", ("gateway", "timezone")),
    Variable("GUANTONG_DATA_DIR", ("data_dir",)),
    Variable("GUANTONG_LOG_LEVEL", ("log_level",)),
    Variable("GUANTONG_BUS_HOST", ("bus", "host")),
    Variable("GUANTONG_BUS_PORT", ("bus", "port")),
    Variable("GUANTONG_BUS_ROOT", ("bus", "root")),
    Variable("GUANTONG_BUS_USERNAME", ("bus", "username")),
    Variable("GUANTONG_BUS_PASSWORD", ("bus", "password"), secret=True),
    Variable("GUANTONG_STORE_URL", ("store", "url")),
    Variable("GUANTONG_STORE_PASSWORD", ("store", "password"), secret=True),
    Variable("GUANTONG_API_HOST", ("api", "host")),
    Variable("GUANTONG_API_PORT", ("api", "port")),
    Variable("GUANTONG_METRICS_HOST", ("metrics", "host")),
    Variable("GUANTONG_METRICS_COLLECT_PORT", ("metrics", "collect_port")),
    Variable("GUANTONG_METRICS_INGEST_PORT", ("metrics", "ingest_port")),
)
CONFIG = "GUANTONG_CONFIG"
"""Names the configuration file where the command line does not."""


def overridden(data: Any, environ: Mapping[str, str], cwd: Path) -> tuple[Any, dict[tuple[str, ...], Variable]]:
    """The data with what the environment overrides, and which places those are. An empty variable overrides nothing.

    A relative GUANTONG_DATA_DIR is relative to `cwd`, since it was not written in the file.
    """
    used = {v.place: v for v in VARIABLES if environ.get(v.name)}
    if not used or not isinstance(data, dict):
        return data, used if isinstance(data, dict) else {}
    data = deepcopy(data)
    for place, variable in used.items():
        part = data
        for key in place[:-1]:
            if not isinstance(part.get(key), dict):
                part[key] = {}
            part = part[key]
        value: Any = environ[variable.name]
        if variable.secret:
            value = {"env": variable.name}
        elif place == ("data_dir",):
            value = str(cwd / Path(value).expanduser())
        part[place[-1]] = value
    return data, used
