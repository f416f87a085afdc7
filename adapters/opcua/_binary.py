"""The bytes of OPC UA Binary (OPC 10000-6 §5.2): scalars, arrays, NodeIds, and what is only skipped.

Every function takes the message and a position and gives back what it decoded, with the position after it. They raise DecodingError, or
struct.error and IndexError where the message ends too early.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

from schemas import status as codes

_U16: Final = struct.Struct("<H")
I32: Final = struct.Struct("<i")
U32: Final = struct.Struct("<I")
I64: Final = struct.Struct("<q")
_TICKS_1970: Final = 116_444_736_000_000_000
"""100 ns intervals from 1601-01-01 to 1970-01-01 (OPC 10000-6 §5.2.2.5)."""
_TICKS_9999: Final = 2_650_467_743_990_000_000
"""9999-12-31T23:59:59: from here on a DateTime means "the latest time", and is no time."""
DEPTH: Final = 100
"""How deep Variants, DataValues and DiagnosticInfos may nest: as deep as the standard asks of a decoder (OPC 10000-6 §5.2.2.16), no deeper."""


class DecodingError(ValueError):
    """The message is not what the standard says; nothing in it can be trusted from there on."""


class Undecoded:
    """A value that cannot be decoded, but whose end is known: `status` says why, `raw` is what arrived, as far as it can be said."""

    __slots__ = ("raw", "status")

    def __init__(self, status: int, raw: Any) -> None:
        self.status = status
        self.raw = raw


def microseconds(ticks: int) -> int | None:
    """Microseconds since the epoch of a DateTime; None for the earliest and the latest time, which mean "none"."""
    if ticks <= 0 or ticks >= _TICKS_9999:
        return None
    return (ticks - _TICKS_1970) // 10


# ------------------------------------------------------------------------------------------------------- scalars, arrays


def fixed(layout: str) -> Callable[[bytes, int], tuple[Any, int]]:
    packed = struct.Struct(layout)
    unpack, size = packed.unpack_from, packed.size

    def decode(data: bytes, pos: int) -> tuple[Any, int]:
        return unpack(data, pos)[0], pos + size

    return decode


def boolean(data: bytes, pos: int) -> tuple[bool, int]:
    return data[pos] != 0, pos + 1


def byte_string(data: bytes, pos: int) -> tuple[bytes | None, int]:
    (length,) = I32.unpack_from(data, pos)
    pos += 4
    if length < 0:
        return None, pos
    end = pos + length
    if end > len(data):
        raise DecodingError(f"a string of {length} bytes where {len(data) - pos} are left")
    return data[pos:end], end


def string(data: bytes, pos: int) -> tuple[Any, int]:
    raw, pos = byte_string(data, pos)
    if raw is None:
        return None, pos
    try:
        return raw.decode(), pos
    except UnicodeDecodeError:
        return Undecoded(codes.UNCERTAIN, raw.decode(errors="surrogateescape")), pos


def date_time(data: bytes, pos: int) -> tuple[int | None, int]:
    return microseconds(I64.unpack_from(data, pos)[0]), pos + 8


def guid(data: bytes, pos: int) -> tuple[str, int]:
    raw = data[pos : pos + 16]
    if len(raw) < 16:
        raise DecodingError("a Guid is cut short")
    return str(uuid.UUID(bytes_le=raw)), pos + 16


def qualified_name(data: bytes, pos: int) -> tuple[Any, int]:
    return string(data, pos + 2)


def localized_text(data: bytes, pos: int) -> tuple[Any, int]:
    """The text of a LocalizedText (OPC 10000-6 §5.2.2.14); its locale is not kept."""
    mask = data[pos]
    pos += 1
    if mask & 0x01:
        pos = skip_bytes(data, pos)
    if mask & 0x02:
        return string(data, pos)
    return None, pos


def diagnostic_value(data: bytes, pos: int) -> tuple[None, int]:
    return None, skip_diagnostic(data, pos, 0)


def u32_array(data: bytes, pos: int) -> tuple[list[int], int]:
    (count,) = I32.unpack_from(data, pos)
    pos += 4
    if count <= 0:
        return [], pos
    if count * 4 > len(data) - pos:
        raise DecodingError(f"an array of {count} numbers in {len(data) - pos} bytes")
    return list(struct.unpack_from(f"<{count}I", data, pos)), pos + 4 * count


def matrix(flat: list[Any], dimensions: list[int]) -> list[Any]:
    """Nested lists of a Variant with ArrayDimensions; flat as it came when they do not multiply to its length."""
    size = 1
    for dimension in dimensions:
        size *= dimension
    if len(dimensions) < 2 or size != len(flat) or not flat:
        return flat
    for dimension in reversed(dimensions[1:]):
        flat = [flat[i : i + dimension] for i in range(0, len(flat), dimension)]
    return flat


# ------------------------------------------------------------------------------------------- NodeIds, and what is skipped


def expanded_node_id(data: bytes, pos: int) -> tuple[int, int | str | bytes | uuid.UUID, str | None, int]:
    """Namespace index, identifier, namespace URI or None, and where it ends (OPC 10000-6 §5.2.2.9, §5.2.2.10)."""
    encoding = data[pos]
    form = encoding & 0x3F
    index = 0
    identifier: int | str | bytes | uuid.UUID
    if form == 0:
        identifier, pos = data[pos + 1], pos + 2
    elif form == 1:
        index = data[pos + 1]
        (identifier,) = _U16.unpack_from(data, pos + 2)
        pos += 4
    elif form == 2:
        index, identifier = struct.unpack_from("<HI", data, pos + 1)
        pos += 7
    elif form in (3, 4, 5):
        (index,) = _U16.unpack_from(data, pos + 1)
        if form == 4:
            raw = data[pos + 3 : pos + 19]
            if len(raw) < 16:
                raise DecodingError("a Guid is cut short")
            identifier, pos = uuid.UUID(bytes_le=raw), pos + 19
        else:
            content, pos = byte_string(data, pos + 3)
            content = content or b""
            identifier = content.decode(errors="replace") if form == 3 else content
    else:
        raise DecodingError(f"a NodeId of form {form}")
    uri: str | None = None
    if encoding & 0x80:
        text, pos = byte_string(data, pos)
        uri = None if text is None else text.decode(errors="replace")
    if encoding & 0x40:
        pos += 4
    return index, identifier, uri, pos


def skip_node_id(data: bytes, pos: int) -> int:
    return expanded_node_id(data, pos)[3]


def encoding_id(data: bytes, pos: int) -> tuple[int, int]:
    """The numeric type id of an ExtensionObject and where its encoding byte lies; 0 for one that is not numeric."""
    index, identifier, _, pos = expanded_node_id(data, pos)
    return (identifier if isinstance(identifier, int) and index == 0 else 0), pos


def skip_bytes(data: bytes, pos: int) -> int:
    (length,) = I32.unpack_from(data, pos)
    pos += 4 + max(length, 0)
    if pos > len(data):
        raise DecodingError(f"a string of {length} bytes reaches beyond the message")
    return pos


def skip_extension_object(data: bytes, pos: int) -> int:
    pos = skip_node_id(data, pos)
    return skip_bytes(data, pos + 1) if data[pos] else pos + 1


def skip_diagnostic(data: bytes, pos: int, depth: int) -> int:
    """Skips a DiagnosticInfo (OPC 10000-6 §5.2.2.12)."""
    if depth > DEPTH:
        raise DecodingError(f"DiagnosticInfo nested deeper than {DEPTH}")
    mask = data[pos]
    pos += 1
    for bit in (0x01, 0x02, 0x08, 0x04):
        if mask & bit:
            pos += 4
    if mask & 0x10:
        pos = skip_bytes(data, pos)
    if mask & 0x20:
        pos += 4
    if mask & 0x40:
        pos = skip_diagnostic(data, pos, depth + 1)
    return pos
