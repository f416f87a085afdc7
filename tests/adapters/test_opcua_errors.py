"""Every reason that the OPC UA adapter may give is explained in the documentation, in both languages, and says what to do in both."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.opcua import _errors

ROOT = Path(__file__).parents[2]
_PLACES = {"_Meaning": 1, "lost": 2, "RootError": 1, "Fault": 0}
"""Where a reason stands among the arguments of what takes one."""


def reasons() -> Iterator[str]:
    """All that are written in the adapter's modules."""
    for module in sorted((ROOT / "adapters" / "opcua").glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            place = _PLACES.get(node.func.id if isinstance(node.func, ast.Name) else "")
            if place is not None and len(node.args) > place:
                given.append(node.args[place])
            yield from (value.value for value in given if isinstance(value, ast.Constant))


@pytest.mark.parametrize("page", ["docs/opcua.md", "docs/zh/opcua.md"])
def test_each_reason_is_explained(page: str) -> None:
    known = set(reasons())
    assert {"refused", "subscription_silent", "root_not_found", "server_certificate_expired"} <= known
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    told = {reason for row in rows for reason in re.findall(r"`([a-z_]+)`", row)}
    assert known - told == set()


@pytest.mark.parametrize("reason", ["server_shutdown", "subscription_silent", "subscription_lost", "service_level_low"])
def test_what_the_adapter_finds_itself_has_a_cure_of_its_own(reason: str) -> None:
    error = _errors.lost("opc.tcp://press:4840", "it happened", reason)
    cable = _errors.translate(ConnectionResetError(), "opc.tcp://press:4840")
    assert error.reason == reason
    assert error.fix_en != cable.fix_en
    assert error.fix_zh != cable.fix_zh
