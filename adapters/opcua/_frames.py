"""What an OPC UA service request or response says, on one line (OPC 10000-6 §5.2 for the encoding, OPC 10000-4 for the services).

The bytes shown are the plain message, before it was encrypted and after it was decrypted, in one chunk of which the channel, token and
sequence numbers are zero, and without the session's authentication token: whoever is given a capture cannot use the session.
"""

from __future__ import annotations

import copy
import struct
from typing import Any, Final

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from adapters.frames import LARGEST, FrameLog, Record
from schemas import status as codes

_TYPE_IDS: Final = {
    397: "ServiceFault", 431: "BrowseResponse", 536: "BrowseNextResponse", 557: "TranslateBrowsePathsToNodeIdsResponse",
    634: "ReadResponse", 667: "HistoryReadResponse", 676: "WriteResponse", 715: "CallResponse", 754: "CreateMonitoredItemsResponse",
    766: "ModifyMonitoredItemsResponse", 784: "DeleteMonitoredItemsResponse", 790: "CreateSubscriptionResponse",
    796: "ModifySubscriptionResponse", 829: "PublishResponse", 835: "RepublishResponse", 850: "DeleteSubscriptionsResponse",
}  # fmt: skip
"""Ids of the binary encodings (OPC 10000-6, Annex A, NodeIds.csv)."""
_PUBLISH: Final = 829
_NOTIFICATIONS: Final = {811: "data changes", 916: "events", 820: "status change"}


_LISTS: Final = {
    "NodesToRead": "nodes", "NodesToBrowse": "nodes", "ItemsToCreate": "items", "MonitoredItemIds": "items",
    "SubscriptionAcknowledgements": "acknowledgements", "BrowsePaths": "paths", "SubscriptionIds": "subscriptions",
}  # fmt: skip
_MANY: Final = 100
_HEADER: Final = 24
"""Bytes of a chunk before the body of its message."""


def frame_log() -> FrameLog:
    """An empty log of an OPC UA link: `content` is the request object that was sent, or the response's bytes from its type id on."""
    return FrameLog("opcua", _explain)


def sent(log: FrameLog, at: int, request: Any) -> None:
    """Records a request, by reference; of one with very many parts only its name and numbers, which would else stay in memory for long."""
    parameters = getattr(request, "Parameters", None)
    parts = max(
        (len(listed) for name in _LISTS if isinstance(listed := getattr(parameters, name, None), list)), default=0
    )
    log.add(at, "sent", request if parts <= _MANY else f"{type(request).__name__}{_asked(request)}")


def received(log: FrameLog, at: int, body: bytes) -> None:
    """Records a response; `body` from its type id on."""
    log.add(at, "received", body if len(body) <= LARGEST else body[:LARGEST], _HEADER + len(body))


def _explain(record: Record) -> tuple[bytes, str]:
    if record.direction == "received":
        body: bytes = record.content
        return _chunk(body, record.size - _HEADER)[:LARGEST], _response(body, record.size - _HEADER)
    request = record.content
    if isinstance(request, str):
        return b"", request
    name = type(request).__name__
    try:
        bare = copy.copy(request)
        bare.RequestHeader = copy.copy(request.RequestHeader)
        bare.RequestHeader.AuthenticationToken = ua.NodeId()
        body = struct_to_binary(bare)
    except Exception as error:  # noqa: BLE001  asyncua raises anything for a value that it cannot write; the name is still true
        return b"", f"{name} (cannot be shown: {error})"
    return _chunk(body, len(body))[:LARGEST], f"{name}{_asked(request)}, {len(body)} bytes"


def _chunk(body: bytes, size: int) -> bytes:
    """One MSG chunk (OPC 10000-6 §6.7.2) around the body of a message."""
    return b"MSGF" + struct.pack("<IIIII", _HEADER + size, 0, 0, 0, 0) + body


def _asked(request: Any) -> str:
    parameters = getattr(request, "Parameters", None)
    told = []
    for field, what in _LISTS.items():
        listed = getattr(parameters, field, None)
        if isinstance(listed, list):
            told.append(f"{len(listed)} {what}")
    handle = getattr(getattr(request, "RequestHeader", None), "RequestHandle", None)
    return "".join(f", {each}" for each in ([f"handle {handle}"] if handle else []) + told)


def _response(body: bytes, size: int) -> str:
    try:
        return _told(body, size)
    except (struct.error, IndexError):
        return f"a response, {size} bytes"


def _told(body: bytes, size: int) -> str:
    if body[0] != 1:  # every standard type has a four-byte NodeId
        return f"a response, {size} bytes"
    (type_id,) = struct.unpack_from("<H", body, 2)
    name = _TYPE_IDS.get(type_id, f"response of type {type_id}")
    handle, result, diagnostics, strings = struct.unpack_from("<IIBi", body, 12)
    text = f"{name}, handle {handle}, {codes.info(result).name}, {size} bytes"
    plain = not diagnostics and strings <= 0 and body[25:28] == b"\0\0\0"
    return text + _published(body) if type_id == _PUBLISH and not result and plain else text


def _published(body: bytes) -> str:
    """What a PublishResponse brings (OPC 10000-4 §5.14.5), from its head alone."""
    subscription, available = struct.unpack_from("<Ii", body, 28)
    place = 36 + 4 * max(available, 0) + 1
    sequence, _, count = struct.unpack_from("<IqI", body, place)
    place += 16
    text = f": subscription {subscription}, sequence {sequence}"
    if not 0 < count < 1 << 31:
        return f"{text}, keep-alive"
    mark, _, kind, _, _, items = struct.unpack_from("<BBHBii", body, place)
    if mark != 1 or kind not in _NOTIFICATIONS:
        return f"{text}, {count} notifications"
    what = _NOTIFICATIONS[kind]
    return f"{text}, {what}" if kind == 820 else f"{text}, {items} {what}"
