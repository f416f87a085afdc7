"""A profile to begin with, made of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from gateway.explore.proposal import Proposal
from gateway.explore.words import quantity, reasons
from schemas.profile import ModbusAddress, Profile


def profile_yaml(proposals: Sequence[Proposal], name: str, *, longest: int) -> str:
    """The text of a profile (`schemas.profile`) with each proposal but the spare registers; valid, and verified by nobody.

    `longest` is the longest read, in registers, that the device answered. The texts say why each is proposed; signals are called after their place.
    """
    document = {
        "profile": name,
        "protocol": "modbus",
        "name": {"zh": f"由 explain 推测：{name}", "en": f"Proposed by explain: {name}"},
        "source": {
            "document": "guantong explain modbus",
            "note": "Proposed from live values. Compare with the manual.",
        },
        "verified": "none",
        "licence": "unspecified",
        "rules": {"max_registers": max(1, min(longest, 125))},
        "signals": [_signal(one) for one in proposals if not one.spare],
    }
    checked = Profile.model_validate(document)
    for signal in checked.signals:
        ModbusAddress.model_validate(signal.address)
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=120)


def _signal(one: Proposal) -> dict[str, Any]:
    address: dict[str, Any] = {"table": one.table, "address": one.address, "type": one.type}
    if one.order != "ABCD":
        address["order"] = one.order
    if one.type == "string":
        address |= {"length": one.width, "encoding": "ascii"}
    signal: dict[str, Any] = {"name": f"{one.table}/{one.address}", "type": one.type if one.scale == 1.0 else "float64"}
    texts = {}
    for language, chinese in (("zh", True), ("en", False)):
        hint = f"{quantity(one.guess.quantity, chinese=chinese)}? " if one.guess is not None else ""
        texts[language] = f"{hint}{reasons(one.reasons, chinese=chinese)} ({one.confidence:.0%})"
    signal["description"] = texts
    if one.type == "string":
        signal["kind"] = "text"
    if one.guess is not None:
        signal |= {"unit": one.guess.unit, "scale": one.guess.scale}
    return signal | {"address": address}
