"""Puts the documentation into the wheel, where `gateway.documentation.source` finds it.

Not into an editable install: that one reads it in the checkout, and a copy would grow old.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGES = "gateway/documentation/pages"


class Documentation(BuildHookInterface):  # type: ignore[type-arg]
    """Run by hatchling before it builds the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds what `/docs` shows; `version` is `standard` or `editable`."""
        if version == "standard":
            for path in ("docs", "deploy/README.md", "CHANGELOG.md"):
                build_data["force_include"][path] = f"{PAGES}/{path}"
