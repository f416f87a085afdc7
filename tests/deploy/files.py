"""The shipped deployment, as the tests read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRETS = ("mqtt_collect", "mqtt_ingest", "mqtt_serve", "mqtt_reader", "postgres", "store_ingest", "store_serve")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*):-(?P<default>[^}]*)\}|\$(?P<other>\{[^}]*\}|\w+)")


def interpolated(text: str) -> str:
    """The text with each `${NAME:-default}` replaced by its default (Compose Specification, Interpolation), as without an .env file."""

    def default(match: re.Match[str]) -> str:
        assert match["other"] is None, f"{match[0]} has no default: the file could not be used without an .env"
        return match["default"]

    return _VARIABLE.sub(default, text)


def compose() -> dict[str, Any]:
    """docker-compose.yml with defaults and merged anchors."""
    text = interpolated((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
