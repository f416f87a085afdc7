"""OPC UA Binary (OPC 10000-6 §5.2): what the server publishes and reads, decoded into columns of plain Python values.

Only what a gateway takes in is decoded here: PublishResponse, RepublishResponse, ReadResponse, and the values in them. Times become
integer microseconds since the epoch, integers stay exact, and a value that cannot be decoded costs only itself: its row says so by its
status and keeps the bytes that arrived.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from adapters.opcua._addresses import node_text, written
from adapters.opcua._binary import (
    DEPTH,
    I32,
    I64,
    U32,
    DecodingError,
    Undecoded,
    boolean,
    byte_string,
    date_time,
    diagnostic_value,
    encoding_id,
    expanded_node_id,
    fixed,
    guid,
    localized_text,
    matrix,
    microseconds,
    qualified_name,
    skip_bytes,
    skip_diagnostic,
    skip_extension_object,
    skip_node_id,
    string,
    u32_array,
)
from adapters.opcua._runs import DataChange, take
from adapters.opcua._structures import Key, Types
from schemas import status as codes

DATA_CHANGE: Final = 811
EVENT_LIST: Final = 916
STATUS_CHANGE: Final = 820
"""The DefaultBinary encoding ids of the NotificationData types (OPC 10000-6 Annex A.3)."""
HISTORY_DATA: Final = 658
HISTORY_MODIFIED_DATA: Final = 664
"""Those of what HistoryRead gives (OPC 10000-11 §6.5.2); a server that answers the second has put more behind the same values."""

HOSTILE: Final = (RuntimeError, struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What asyncua's decoder raises at odd bytes (its own UaError and RecursionError are RuntimeErrors)."""


@dataclass(slots=True)
class EventFields:
    """One EventFieldList: the client handle and the selected fields in the order of the select clauses."""

    handle: int
    fields: list[Any]


@dataclass(slots=True)
class Message:
    """A NotificationMessage (OPC 10000-4 §7.26). A keep-alive has no data, and `sequence` is the next number to come.

    `publish_time` (µs, server's clock) is the response's time for a server that gives no PublishTime (node-opcua does not).

    `undecodable` says what is wrong when some of its data could not be decoded; the rest is there.
    """

    sequence: int
    publish_time: int | None
    changes: list[DataChange] = field(default_factory=list)
    events: list[EventFields] = field(default_factory=list)
    status_change: int | None = None
    undecodable: str = ""
    keep_alive: bool = False


@dataclass(slots=True)
class PublishResponse:
    """What `decode_publish_response` gives. `results` answer the acknowledgements of the request, in their order."""

    subscription: int
    available: list[int]
    more: bool
    message: Message
    results: list[int]


@dataclass(slots=True)
class HistoryPart:
    """One HistoryReadResult: its status, the continuation point (None: that is all), and rows as of `Decoder.read_response`."""

    status: int
    continuation: bytes | None
    rows: list[tuple[Any, int, int | None, int | None]] = field(default_factory=list)


class Decoder:
    """Decodes with the namespaces of one session, since a NodeId on the wire carries only an index."""

    def __init__(self, namespaces: Sequence[str] = ()) -> None:
        self.namespaces = tuple(namespaces)
        self._scalars: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
            1: boolean, 2: fixed("<b"), 3: fixed("<B"), 4: fixed("<h"), 5: fixed("<H"), 6: fixed("<i"),
            7: fixed("<I"), 8: fixed("<q"), 9: fixed("<Q"), 10: fixed("<f"), 11: fixed("<d"), 12: string,
            13: date_time, 14: guid, 15: byte_string, 16: string, 17: self._node_id, 18: self._node_id,
            19: fixed("<I"), 20: qualified_name, 21: localized_text, 22: self._extension_object,
            23: self._nested_data_value, 24: self._nested_variant, 25: diagnostic_value,
        }  # fmt: skip
        self._depth = 0
        self.types = Types(self._scalars)
        """The server's own structures, as far as they have been read."""
        self.on_unknown: Callable[[Key], None] = lambda _: None
        """Told the type id of each structure that could not be decoded by `types`."""
        self.answered: int | None = None
        """When the server sent the last ReadResponse (µs, its own clock)."""

    # ----------------------------------------------------------------------------------------------------- messages

    def publish_response(self, data: bytes) -> PublishResponse:
        """A PublishResponse (OPC 10000-4 §5.14.5) from its type id on. Raises DecodingError."""
        try:
            pos, sent = self._response_header(data, 0)
            (subscription,) = U32.unpack_from(data, pos)
            available, pos = u32_array(data, pos + 4)
            more = data[pos] != 0
            message, pos = self._notification_message(data, pos + 1)
            if message.publish_time is None:
                message.publish_time = sent
            results, _ = u32_array(data, pos)
            return PublishResponse(subscription, available, more, message, results)
        except (struct.error, IndexError) as error:
            raise DecodingError(f"PublishResponse of {len(data)} bytes is cut short: {error}") from None

    def republish_response(self, data: bytes) -> Message:
        """A RepublishResponse (OPC 10000-4 §5.14.6) from its type id on. Raises DecodingError."""
        try:
            return self._notification_message(data, self._response_header(data, 0)[0])[0]
        except (struct.error, IndexError) as error:
            raise DecodingError(f"RepublishResponse of {len(data)} bytes is cut short: {error}") from None

    def read_response(self, data: bytes) -> list[tuple[Any, int, int | None, int | None]]:
        """(value, status, source µs, server µs) for each node of a ReadResponse (OPC 10000-4 §5.11.2). Raises DecodingError."""
        try:
            pos, self.answered = self._response_header(data, 0)
            (count,) = I32.unpack_from(data, pos)
            pos += 4
            rows = []
            for _ in range(count):
                value, status, source, server, pos = self._data_value(data, pos)
                rows.append((value, status, source, server))
            return rows
        except (struct.error, IndexError) as error:
            raise DecodingError(f"ReadResponse of {len(data)} bytes is cut short: {error}") from None

    def history_response(self, data: bytes) -> list[HistoryPart]:
        """The results of a HistoryReadResponse (OPC 10000-4 §5.11.3) of raw values (OPC 10000-11 §6.4.3). Raises DecodingError."""
        try:
            pos, _ = self._response_header(data, 0)
            (count,) = I32.unpack_from(data, pos)
            pos += 4
            parts = []
            for _ in range(count):
                (status,) = U32.unpack_from(data, pos)
                continuation, pos = byte_string(data, pos + 4)
                kind, after = encoding_id(data, pos)
                end = skip_extension_object(data, pos)
                part = HistoryPart(status, continuation or None)
                if data[after] and kind not in (HISTORY_DATA, HISTORY_MODIFIED_DATA):
                    raise DecodingError(f"history of type {kind}, expected HistoryData ({HISTORY_DATA})")
                if data[after]:
                    (rows,) = I32.unpack_from(data, after + 5)
                    pos = after + 9
                    for _ in range(rows):
                        value, code, source, server, pos = self._data_value(data, pos)
                        part.rows.append((value, code, source, server))
                parts.append(part)
                pos = end
            return parts
        except (struct.error, IndexError) as error:
            raise DecodingError(f"HistoryReadResponse of {len(data)} bytes is cut short: {error}") from None

    def _response_header(self, data: bytes, pos: int) -> tuple[int, int | None]:
        """Where the ResponseHeader (OPC 10000-4 §7.33) after the type id ends, and its Timestamp (µs)."""
        pos = skip_node_id(data, pos)
        sent = microseconds(I64.unpack_from(data, pos)[0])
        (result,) = U32.unpack_from(data, pos + 12)
        if result >> 30 == 2:
            raise ua.UaStatusCodeError(result)
        pos = skip_diagnostic(data, pos + 16, 0)
        (count,) = I32.unpack_from(data, pos)
        pos += 4
        for _ in range(count):
            pos = skip_bytes(data, pos)
        return skip_extension_object(data, pos), sent

    def _notification_message(self, data: bytes, pos: int) -> tuple[Message, int]:
        sequence, publish_ticks = struct.unpack_from("<Iq", data, pos)
        message = Message(sequence, microseconds(publish_ticks))
        (count,) = I32.unpack_from(data, pos + 12)
        pos += 16
        message.keep_alive = count <= 0
        for _ in range(count):
            kind, after = encoding_id(data, pos)
            encoding = data[after]
            if encoding != 1:
                raise DecodingError(f"NotificationData {kind} has encoding {encoding}, expected 1 (a byte string)")
            (length,) = I32.unpack_from(data, after + 1)
            pos, end = after + 5, after + 5 + length
            if length < 0 or end > len(data):
                raise DecodingError(f"NotificationData {kind} claims {length} bytes, {len(data) - pos} are left")
            try:
                self._notification_data(kind, data, pos, message)
            except (struct.error, IndexError, DecodingError) as error:
                message.undecodable = f"NotificationData {kind}: {error}"
            pos = end
        return message, pos

    def _notification_data(self, kind: int, data: bytes, pos: int, message: Message) -> None:
        if kind == DATA_CHANGE:
            message.changes.append(self._data_change(data, pos))
        elif kind == EVENT_LIST:
            (count,) = I32.unpack_from(data, pos)
            pos += 4
            for _ in range(count):
                (handle,) = U32.unpack_from(data, pos)
                values, pos = self._variants(data, pos + 4)
                message.events.append(EventFields(handle, values))
        elif kind == STATUS_CHANGE:
            (message.status_change,) = U32.unpack_from(data, pos)
        else:
            raise DecodingError(f"type {kind} is none of {DATA_CHANGE}, {EVENT_LIST}, {STATUS_CHANGE}")

    def _data_change(self, data: bytes, pos: int) -> DataChange:
        change = DataChange()
        (count,) = I32.unpack_from(data, pos)
        pos += 4
        while True:
            pos, count = take(data, pos, count, change)
            if count <= 0:
                return change
            (handle,) = U32.unpack_from(data, pos)
            value, status, source, server, pos = self._data_value(data, pos + 4)
            change.handles.append(handle)
            change.values.append(value)
            change.status.append(status)
            change.source.append(source)
            change.server.append(server)
            count -= 1

    # ------------------------------------------------------------------------------------------------------- values

    def _data_value(self, data: bytes, pos: int) -> tuple[Any, int, int | None, int | None, int]:
        """A DataValue (OPC 10000-6 §5.2.2.17): value, status, source time, server time, and where it ends."""
        mask = data[pos]
        pos += 1
        value: Any = None
        status = 0
        fault = 0
        source: int | None = None
        server: int | None = None
        if mask & 0x01:
            value, fault, pos = self._variant(data, pos)
        if mask & 0x02:
            (status,) = U32.unpack_from(data, pos)
            pos += 4
        if mask & 0x04:
            source = microseconds(I64.unpack_from(data, pos)[0])
            pos += 8
        if mask & 0x10:
            pos += 2
        if mask & 0x08:
            server = microseconds(I64.unpack_from(data, pos)[0])
            pos += 8
        if mask & 0x20:
            pos += 2
        if fault and status >> 30 != 2:
            status = fault
        return value, status, source, server, pos

    def _variants(self, data: bytes, pos: int) -> tuple[list[Any], int]:
        (count,) = I32.unpack_from(data, pos)
        pos += 4
        values = []
        for _ in range(count):
            value, fault, pos = self._variant(data, pos)
            values.append(None if codes.is_bad(fault) else value)
        return values, pos

    def _variant(self, data: bytes, pos: int) -> tuple[Any, int, int]:
        """A Variant (OPC 10000-6 §5.2.2.16): the value, 0 or the status of its fault, and where it ends."""
        mask = data[pos]
        pos += 1
        kind = mask & 0x3F
        if kind == 0:
            return None, 0, pos
        if 25 < kind < 32:
            kind = 15  # reserved types are decoded as ByteString (§5.2.2.16)
        decode = self._scalars.get(kind)
        if decode is None:
            raise DecodingError(f"a Variant of type {kind}")
        if not mask & 0x80:
            value, pos = decode(data, pos)
            if type(value) is Undecoded:
                return value.raw, value.status, pos
            return value, 0, pos
        (count,) = I32.unpack_from(data, pos)
        pos += 4
        if count > len(data) - pos:
            raise DecodingError(f"an array of {count} elements in {len(data) - pos} bytes")
        fault = 0
        elements: list[Any] = []
        for _ in range(count):
            element, pos = decode(data, pos)
            if type(element) is Undecoded:
                fault = element.status
                element = element.raw
            elements.append(element)
        if mask & 0x40:
            dimensions, pos = u32_array(data, pos)
            elements = matrix(elements, dimensions)
        return elements, fault, pos

    def _nested_variant(self, data: bytes, pos: int) -> tuple[Any, int]:
        with self._nesting():
            value, fault, pos = self._variant(data, pos)
            return (Undecoded(fault, value) if fault else value), pos

    def _nested_data_value(self, data: bytes, pos: int) -> tuple[Any, int]:
        with self._nesting():
            value, status, _, _, pos = self._data_value(data, pos)
            return (None if status >> 30 == 2 else value), pos

    def _nesting(self) -> Decoder:
        if self._depth >= DEPTH:
            raise DecodingError(f"values nested deeper than {DEPTH}")
        return self

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1

    def _node_id(self, data: bytes, pos: int) -> tuple[str | None, int]:
        """A NodeId or ExpandedNodeId as `nsu=URI;s=NAME`; the null NodeId is None (OPC 10000-6 §5.2.2.9)."""
        index, identifier, uri, pos = expanded_node_id(data, pos)
        if index == 0 and uri is None and identifier == 0:
            return None, pos
        return written(identifier, index, uri, self.namespaces), pos

    def _extension_object(self, data: bytes, pos: int) -> tuple[Any, int]:
        """A structure as a dict, if its type is one of the standard's or `types` has it; else what arrived, as uncertain."""
        index, identifier, uri, pos = expanded_node_id(data, pos)
        if uri is not None and uri in self.namespaces:
            index = self.namespaces.index(uri)
        encoding = data[pos]
        pos += 1
        if encoding == 0:
            return None, pos
        body, pos = byte_string(data, pos)
        if encoding != 1 or body is None:
            return self._undecoded(index, identifier, encoding, body), pos
        key = (index, identifier)
        try:
            if self.types.knows(key):
                value, fault = self.types.decode(key, body)
                return (Undecoded(fault, value) if fault else value), pos
            cls = ua.extension_objects_by_typeid.get(ua.NodeId(identifier, index)) if index == 0 else None
            if cls is not None:
                return plain(struct_from_binary(cls, Buffer(body)), self.namespaces), pos
            self.on_unknown(key)
        except (DecodingError, struct.error, IndexError):
            self.on_unknown(key)
        except HOSTILE:
            return self._undecoded(index, identifier, encoding, body), pos
        return self._undecoded(index, identifier, encoding, body), pos

    def _undecoded(self, index: int, identifier: Any, encoding: int, body: bytes | None) -> Undecoded:
        """A structure that is not understood, in the form of OPC 10000-6 §5.4.2.16: its type id, and its body as it came."""
        told = {
            "UaTypeId": written(identifier, index, None, self.namespaces),
            "UaEncoding": encoding,
            "UaBody": body or b"",
        }
        return Undecoded(codes.UNCERTAIN, told)


def decode_publish_response(data: bytes, namespaces: Sequence[str] = ()) -> PublishResponse:
    """Decodes a PublishResponse from its type id on; NodeIds among the values are written with the URIs of `namespaces`.

    Raises DecodingError for bytes that are no PublishResponse.
    """
    return Decoder(namespaces).publish_response(data)


def plain(value: Any, namespaces: Sequence[str] = ()) -> Any:
    """An asyncua object as plain Python values: dataclasses become dicts, times µs, NodeIds text."""
    if value is None or isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, int):  # enumerations and StatusCodes' numbers are subclasses
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        return [plain(element, namespaces) for element in value]
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, ua.NodeId):
        return None if value.is_null() else node_text(value, namespaces)
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, ua.QualifiedName):
        return value.Name
    if isinstance(value, ua.StatusCode):
        return int(value.value)
    if isinstance(value, ua.Variant):
        return plain(value.Value, namespaces)
    if hasattr(value, "timestamp"):
        return microseconds(ua.datetime_to_win_epoch(value))
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {str(name): plain(getattr(value, name), namespaces) for name in fields if name != "Encoding"}
    return str(value)
