"""OPC UA values as the truth log writes them: JSON, without loss."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any
from uuid import UUID

from asyncua import ua

__all__ = ["data_value_record", "microseconds", "node_text", "plain", "status_code"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime | None) -> int | None:
    """*time* (aware, UTC) in microseconds since the epoch; ``None`` stays ``None``."""
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def node_text(node: Any, namespaces: Sequence[str]) -> str:
    """A NodeId as text with its namespace URI (OPC 10000-6 §5.1.12): ``nsu=http://…;s=Name``, ``i=2258``."""
    kind = {int: "i", str: "s", UUID: "g", bytes: "b"}[type(node.Identifier)]
    identifier = base64.b64encode(node.Identifier).decode() if kind == "b" else node.Identifier
    prefix = f"nsu={namespaces[node.NamespaceIndex]};" if node.NamespaceIndex else ""
    return f"{prefix}{kind}={identifier}"


def plain(value: Any, namespaces: Sequence[str]) -> Any:
    """A value of OPC UA as plain Python that the truth log can write.

    Times become microseconds, texts with a locale their text, NodeIds text, enumerations and status codes integers,
    structures dictionaries by field; byte strings and floats stay, the log tags them.
    """
    if value is None or isinstance(value, bool | str | float | bytes):
        return value
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        return microseconds(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item, namespaces) for item in value]
    if isinstance(value, ua.NodeId):
        return node_text(value, namespaces)
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, ua.QualifiedName):
        return value.Name
    if isinstance(value, ua.StatusCode):
        return int(value.value)
    if isinstance(value, ua.Variant):
        return plain(value.Value, namespaces)
    if dataclasses.is_dataclass(value):
        return {
            item.name: plain(getattr(value, item.name), namespaces)
            for item in dataclasses.fields(value)
            if item.name not in ("Encoding", "data_type")
        }
    return str(value)


def data_value_record(node: str, value: Any, namespaces: Sequence[str]) -> dict[str, Any]:
    """The fields that a DataValue has in the truth log; absent status means Good (OPC 10000-6 §5.2.2.17)."""
    variant = value.Value
    return {
        "node": node,
        "value": plain(variant.Value, namespaces) if variant is not None else None,
        "type": variant.VariantType.name if variant is not None else "Null",
        "status": int(value.StatusCode.value) if value.StatusCode is not None else 0,
        "source_ts": microseconds(value.SourceTimestamp),
        "server_ts": microseconds(value.ServerTimestamp),
    }


def status_code(text: str | int) -> Any:
    """A StatusCode from its name (``BadSensorFailure``) or its number (``0x808C0000``, decimal).

    Raises:
        ValueError: no StatusCode has that name or number.
    """
    number: Any
    if isinstance(text, int):
        number = text
    elif text[:1].isdigit():
        number = int(text, 0)
    else:
        number = getattr(ua.StatusCodes, text, None)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 0xFFFFFFFF:
        raise ValueError(
            f"{text!r} is no StatusCode; write a name such as BadSensorFailure or a number such as 0x808C0000"
        )
    return ua.StatusCode(number)
