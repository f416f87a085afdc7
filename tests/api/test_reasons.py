"""Every short word by which an adapter says why a device is away has a text and a fix in both languages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway.api.reasons import explain

ROOT = Path(__file__).parent.parent.parent
_NOT_OF_DEVICES = {"writes_disabled", "not_browsable", "points"}
"""What is answered to whoever asked for it, and never a state."""


def reasons() -> Iterator[tuple[str, str]]:
    """Every reason in the source of the adapters and of collect, with its file."""
    for folder in ("adapters", "gateway/collect", "gateway/config", "gateway/supervisor.py"):
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                given: list[ast.expr] = [word.value for word in node.keywords if word.arg == "reason"]
                if node.func.id == "_Meaning":
                    given += node.args[1:2]
                elif node.func.id in ("Trouble", "RootError", "lost"):
                    given += node.args[{"Trouble": 0, "RootError": 1, "lost": 2}[node.func.id] :][:1]
                for value in given:
                    # a choice between two counts as both
                    for part in ast.walk(value):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.islower():
                            yield part.value, file.name


def test_every_reason_is_explained() -> None:
    found = dict(reasons())
    assert {
        "no_answer",
        "certificate_untrusted",
        "root_not_found",
        "subscription_silent",
        "adapter_failed",
        "unreachable",
    } <= found.keys()
    missing = sorted(
        f"{reason} ({file})"
        for reason, file in found.items()
        if reason not in _NOT_OF_DEVICES and explain(reason).text.en == reason
    )
    assert not missing, f"explain them in gateway/api/reasons.py: {', '.join(missing)}"
