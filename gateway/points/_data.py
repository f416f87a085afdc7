"""From the values of a table's columns to the data of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.points._rules import Values
from schemas.modbus import STORED_AS


def link_settings(values: Values) -> dict[str, Any]:
    """`settings:` of a link from the columns of a device."""
    if values.get("protocol") == "opcua":
        settings: dict[str, Any] = {"endpoint": values.get("host", "")}
        policy = values.get("security", "none")
        if policy == "none":
            settings["security"] = "none"
        else:
            settings["security"] = {"policy": policy}
            settings["security"] |= {
                k: values[k] for k in ("mode", "certificate", "key", "server_certificate") if k in values
            }
        if "user" in values:
            settings["user"] = values["user"]
        if "password_env" in values:
            settings["password"] = {"env": values["password_env"]}
        return settings
    return {
        key: values[key] for key in ("host", "port", "transport", "serial", "baud", "parity", "stop") if key in values
    }


def device_data(values: Values, points: Sequence[Values]) -> dict[str, Any]:
    """A device of the configuration from its columns and its points."""
    data: dict[str, Any] = {"id": values["device"]}
    name = _text(values, "name")
    if name:
        data["name"] = name
    data |= {key: values[key] for key in ("asset", "profile") if key in values}
    settings = {to: values[key] for key, to in (("unit_id", "unit"), ("root", "root")) if key in values}
    if settings:
        data["settings"] = settings
    rules = {to: values[key] for key, to in (("namespaces", "namespaces"), ("ratio_values", "ratios")) if key in values}
    if rules:
        data["rules"] = rules
    groups = {p.get("group", "default"): {"period": p["period"]} for p in points if "period" in p}
    if groups:
        data["groups"] = groups
    if points:
        data["signals"] = [signal_data(point, values.get("protocol", "")) for point in points]
    return data


_SIGNAL_KEYS: Final = (
    "unit",
    "source_unit",
    "kind",
    "semantic_id",
    "scale",
    "offset",
    "bit",
    "bits",
    "enum",
    "deadband",
    "silence",
    "store",
    "group",
)
_ADDRESS_KEYS: Final = {
    "modbus": (
        "table",
        "address",
        "number",
        "order",
        "length",
        "byte",
        "count",
        "encoding",
        "padding",
        "layout",
        "zone",
        "fields",
        "atomic",
        "ratio",
        "scale_by",
        "select",
        "sentinels",
        "faults",
    ),
    "opcua": ("node", "path", "sampling", "queue"),
}


def signal_data(values: Values, protocol: str) -> dict[str, Any]:
    """A signal of the configuration from the columns of a point."""
    data: dict[str, Any] = {"name": values.get("name", "")}
    kind = values.get("type") or _type_of(values, protocol)
    if kind:
        data["type"] = kind
    description = _text(values, "description")
    if description:
        data["description"] = description
    data |= {key: values[key] for key in _SIGNAL_KEYS if key in values}
    if "low" in values and "high" in values:
        data["range"] = [values["low"], values["high"]]
    counter = {
        key: values[key] for key in ("counts", "per_count", "modulus", "resets_on", "may_decrease", "max_rate") if key in values
    }  # fmt: skip
    if counter:
        data["counter"] = counter
    if "signal_asset" in values:
        data["asset"] = values["signal_asset"]
    address = {key: values[key] for key in _ADDRESS_KEYS.get(protocol, ()) if key in values}
    if protocol == "modbus":
        address["type"] = values.get("data_type") or (
            "bool" if values.get("table") in ("coil", "discrete") else "uint16"
        )
    data["address"] = address
    return data


def _type_of(values: Values, protocol: str) -> str | None:
    """The type of a Modbus signal that does not name one: that of its registers, or of the bit that is taken."""
    if protocol != "modbus":
        return None
    if "bit" in values or values.get("table") in ("coil", "discrete"):
        return "bool"
    if "count" in values:
        return "array"
    if "fields" in values:
        return "object"
    kind = str(values.get("data_type", "uint16"))
    if "scale_by" in values or "ratio" in values:
        return "float64"
    return STORED_AS.get(kind, kind)


def _text(values: Values, key: str) -> dict[str, str]:
    return {lang: values[f"{key}_{lang}"] for lang in ("zh", "en") if f"{key}_{lang}" in values}
