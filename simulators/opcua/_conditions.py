"""Alarms as conditions of OPC UA (OPC 10000-9)."""

from __future__ import annotations

from typing import Any

from asyncua import ua

from simulators.opcua._events import FieldPath

__all__ = ["condition_fields"]


def _two_state(name: str, state: bool, texts: tuple[str, str]) -> dict[FieldPath, Any]:
    """A TwoStateVariable as event fields: its text and its Id (OPC 10000-9 §5.2)."""
    text = ua.LocalizedText(texts[0] if state else texts[1], "en")
    return {
        ((0, name),): ua.Variant(text, ua.VariantType.LocalizedText),
        ((0, name), (0, "Id")): ua.Variant(state, ua.VariantType.Boolean),
    }


def condition_fields(condition: Any, name: str, *, active: bool, acked: bool, severity: int) -> dict[FieldPath, Any]:
    """The fields that an event of AlarmConditionType adds to those of every event (OPC 10000-9 §5.5.2, §5.7.2, §5.8.2).

    *condition* is the NodeId of the condition: selected by an empty path and the NodeId attribute.
    """
    t = ua.VariantType
    plain = {
        "ConditionClassId": (ua.NodeId(ua.ObjectIds.ProcessConditionClassType), t.NodeId),
        "ConditionClassName": (ua.LocalizedText("ProcessConditionClassType"), t.LocalizedText),
        "ConditionName": (name, t.String),
        "BranchId": (ua.NodeId(), t.NodeId),
        "Retain": (active or not acked, t.Boolean),
        "Quality": (ua.StatusCode(), t.StatusCode),
        "LastSeverity": (severity, t.UInt16),
        "Comment": (ua.LocalizedText(""), t.LocalizedText),
        "ClientUserId": ("", t.String),
        "InputNode": (ua.NodeId(), t.NodeId),
        "SuppressedOrShelved": (False, t.Boolean),
    }
    return {
        (): ua.Variant(condition, t.NodeId),
        **{((0, key),): ua.Variant(value, kind) for key, (value, kind) in plain.items()},
        **_two_state("EnabledState", True, ("Enabled", "Disabled")),
        **_two_state("ActiveState", active, ("Active", "Inactive")),
        **_two_state("AckedState", acked, ("Acknowledged", "Unacknowledged")),
    }
