"""What a look at the box finds: a place, a state, and the fix, in both languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix_*` are empty where nothing is to be done."""

    check: str
    """A short stable word: clock, clock.last, disk.space, network, port, device, rights.data_dir, …"""
    state: FindingState
    zh: str
    en: str
    fix_zh: str = ""
    fix_en: str = ""


def exit_code(findings: list[Finding]) -> int:
    """0 when nothing failed (warnings are told and pass), 1 when something did."""
    return 1 if any(finding.state == "fail" for finding in findings) else 0
