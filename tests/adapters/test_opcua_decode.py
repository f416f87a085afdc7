"""The decoder: equal to asyncua's on everything that both can say, exact where asyncua is not, and bounded on hostile bytes."""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.opcua._binary import DecodingError, microseconds
from adapters.opcua._decode import Decoder, Message, decode_publish_response, plain
from schemas import status as codes

NAMESPACES = ["http://opcfoundation.org/UA/", "urn:server", "http://example.org/m;100%"]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
T = ua.VariantType


def response(*changes: Any, events: Any = None, **parameters: Any) -> bytes:
    """A PublishResponse as asyncua's server would send it."""
    answer = ua.PublishResponse()
    answer.Parameters.SubscriptionId = parameters.get("subscription", 7)
    answer.Parameters.AvailableSequenceNumbers = parameters.get("available", [3, 4])
    answer.Parameters.MoreNotifications = parameters.get("more", False)
    answer.Parameters.Results = [ua.StatusCode(code) for code in parameters.get("results", [])]
    message = answer.Parameters.NotificationMessage
    message.SequenceNumber = parameters.get("sequence", 4)
    message.PublishTime = parameters.get("publish_time", EPOCH + dt.timedelta(microseconds=1_700_000_000_123_456))
    if changes:
        notification = ua.DataChangeNotification()
        for handle, value in enumerate(changes):
            item = ua.MonitoredItemNotification()
            item.ClientHandle, item.Value = handle, value
            notification.MonitoredItems.append(item)
        message.NotificationData.append(notification)
    if events is not None:
        message.NotificationData.append(events)
    return bytes(struct_to_binary(answer))


def one(value: Any, kind: Any, **more: Any) -> tuple[Any, int]:
    """(value, status) of one encoded Variant."""
    data = ua.DataValue(ua.Variant(value, kind, **more))
    message = decode_publish_response(response(data), NAMESPACES).message
    assert message.undecodable == ""
    (change,) = message.changes
    return change.values[0], change.status[0]


def test_header_rows_and_times() -> None:
    source = EPOCH + dt.timedelta(microseconds=1_600_000_000_000_001)
    server = EPOCH + dt.timedelta(microseconds=1_600_000_000_000_002)
    full = ua.DataValue(
        ua.Variant(1.5, T.Double), StatusCode=ua.StatusCode(codes.UNCERTAIN), SourceTimestamp=source,
        ServerTimestamp=server,
    )  # fmt: skip
    bad = ua.DataValue(StatusCode=ua.StatusCode(codes.BAD_NOT_CONNECTED))
    decoded = decode_publish_response(
        response(full, bad, ua.DataValue(ua.Variant(2, T.Int16)), results=[0, 0x80780000], more=True), NAMESPACES
    )
    assert (decoded.subscription, decoded.available, decoded.more) == (7, [3, 4], True)
    assert decoded.results == [0, 0x80780000]
    assert decoded.message.sequence == 4
    assert decoded.message.publish_time == 1_700_000_000_123_456
    assert not decoded.message.keep_alive
    (change,) = decoded.message.changes
    assert change.handles == [0, 1, 2]
    assert change.values == [1.5, None, 2]
    assert change.status == [codes.UNCERTAIN, codes.BAD_NOT_CONNECTED, 0]
    assert change.source == [1_600_000_000_000_001, None, None]
    assert change.server == [1_600_000_000_000_002, None, None]


def test_picoseconds_follow_their_timestamps() -> None:
    """OPC 10000-6 §5.2.2.17; asyncua writes both timestamps first."""
    ticks = 116_444_736_000_000_000
    data = b"\x3f" + b"\x03\x07" + struct.pack("<IqHqH", codes.UNCERTAIN, ticks + 10, 5, ticks + 20, 6)
    assert Decoder()._data_value(data, 0) == (7, codes.UNCERTAIN, 1, 2, len(data))


def test_keep_alive() -> None:
    decoded = decode_publish_response(response(sequence=9))
    assert decoded.message == Message(9, 1_700_000_000_123_456, keep_alive=True)


def test_status_change_and_events() -> None:
    events = ua.EventNotificationList()
    fields = ua.EventFieldList()
    fields.ClientHandle = 5
    fields.EventFields = [ua.Variant(b"\x01\x02", T.ByteString), ua.Variant(ua.LocalizedText("满"), T.LocalizedText)]
    events.Events = [fields]
    message = decode_publish_response(response(events=events)).message
    assert [(event.handle, event.fields) for event in message.events] == [(5, [b"\x01\x02", "满"])]
    change = ua.StatusChangeNotification()
    change.Status = ua.StatusCode(codes.BAD_TIMEOUT)
    assert decode_publish_response(response(events=change)).message.status_change == codes.BAD_TIMEOUT


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, T.Boolean), (-128, T.SByte), (255, T.Byte), (-32768, T.Int16), (65535, T.UInt16), (-(2**31), T.Int32),
        (2**32 - 1, T.UInt32), (-(2**63), T.Int64), (2**64 - 1, T.UInt64), (0.5, T.Float), (1e308, T.Double),
        (float("inf"), T.Double), ("料筒温度", T.String), ("", T.String), (None, T.String), (b"\x00\xff", T.ByteString),
    ],
)  # fmt: skip
def test_scalars(value: Any, kind: Any) -> None:
    decoded, status = one(value, kind)
    assert status == 0
    assert decoded == value
    assert type(decoded) is type(value)


def test_other_builtin_types() -> None:
    guid = uuid.uuid4()
    assert one(guid, T.Guid) == (str(guid), 0)
    assert one(ua.QualifiedName("Placed", 2), T.QualifiedName) == ("Placed", 0)
    assert one(ua.LocalizedText("停机", "zh"), T.LocalizedText) == ("停机", 0)
    assert one(ua.LocalizedText(None, "zh"), T.LocalizedText) == (None, 0)
    assert one(ua.StatusCode(codes.BAD_TIMEOUT), T.StatusCode) == (codes.BAD_TIMEOUT, 0)
    assert one(ua.NodeId("A", 2), T.NodeId) == ("nsu=http://example.org/m%3B100%25;s=A", 0)
    assert one(ua.NodeId(85), T.NodeId) == ("i=85", 0)
    assert one(ua.NodeId(), T.NodeId) == (None, 0)
    assert one(ua.NodeId(5, 9), T.NodeId) == ("ns=9;i=5", 0)
    assert one(ua.NodeId(b"\x01", 1, ua.NodeIdType.ByteString), T.NodeId) == ("nsu=urn:server;b=AQ==", 0)
    assert one(ua.NodeId(guid, 0), T.NodeId) == (f"g={guid}", 0)
    expanded = ua.ExpandedNodeId("A", 0, ua.NodeIdType.String, "urn:other", 3)
    assert Decoder()._variant(b"\x10" + struct.pack("<i", 4) + b"<a/>", 0) == ("<a/>", 0, 9)
    assert one(expanded, T.ExpandedNodeId) == ("nsu=urn:other;s=A", 0)
    assert one([ua.Variant(1, T.Byte), ua.Variant("x", T.String)], T.Variant) == ([1, "x"], 0)


def test_a_dropped_float32_stays_what_it_was() -> None:
    assert one(0.1, T.Float)[0] == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    value, status = one(float("nan"), T.Double)
    assert value != value
    assert status == 0


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (0, None), (-1, None), (2**63 - 1, None), (116_444_736_000_000_000, 0), (116_444_736_000_000_009, 0),
        (116_444_735_999_999_990, -1), (10, -11_644_473_599_999_999), (165_000_000_000_000_000, 4_855_526_400_000_000),
    ],
)  # fmt: skip
def test_times(ticks: int, expected: int | None) -> None:
    assert microseconds(ticks) == expected


def test_times_before_1970_and_after_2038() -> None:
    for year in (1601, 1969, 2039, 2262, 2500):
        time = dt.datetime(year, 3, 4, 5, 6, 7, 89, tzinfo=dt.UTC)
        assert one(time, T.DateTime) == ((time - EPOCH) // dt.timedelta(microseconds=1), 0)


def test_arrays_and_matrices() -> None:
    assert one([1, 2, 3], T.Int32) == ([1, 2, 3], 0)
    assert one([], T.Double, is_array=True) == ([], 0)
    assert one([True, False], T.Boolean) == ([True, False], 0)
    assert one(["a", None], T.String) == (["a", None], 0)
    assert one([[1, 2, 3], [4, 5, 6]], T.Int16, Dimensions=[2, 3]) == ([[1, 2, 3], [4, 5, 6]], 0)
    assert one([[[1], [2]], [[3], [4]]], T.Int16, Dimensions=[2, 2, 1]) == ([[[1], [2]], [[3], [4]]], 0)


def test_dimensions_that_do_not_fit_leave_the_array_flat() -> None:
    body = response(ua.DataValue(ua.Variant([1, 2, 3], T.Byte, Dimensions=[1, 3])))
    odd = body.replace(struct.pack("<iii", 2, 1, 3), struct.pack("<iii", 2, 900_000, 900_000))
    assert odd != body
    assert decode_publish_response(odd).message.changes[0].values == [[1, 2, 3]]


def test_invalid_utf8_costs_only_its_own_value() -> None:
    gbk = "温度".encode("gbk")
    data = response(*(ua.DataValue(ua.Variant(v, k)) for v, k in ((1, T.Byte), ("XXXX", T.String), (2, T.Byte))))
    message = decode_publish_response(data.replace(b"XXXX", gbk)).message
    assert message.undecodable == ""
    kept = gbk.decode(errors="surrogateescape")
    assert kept.encode(errors="surrogateescape") == gbk
    assert message.changes[0].values == [1, kept, 2]
    assert message.changes[0].status == [0, codes.UNCERTAIN, 0]
    arrays = response(ua.DataValue(ua.Variant(["ok", "XXXX"], T.String)), ua.DataValue(ua.Variant(3, T.Byte)))
    change = decode_publish_response(arrays.replace(b"XXXX", gbk)).message.changes[0]
    assert change.values == [["ok", kept], 3]
    assert change.status == [codes.UNCERTAIN, 0]


def test_structures() -> None:
    limits = ua.Range(Low=1.0, High=2.5)
    assert one(limits, T.ExtensionObject) == ({"Low": 1.0, "High": 2.5}, 0)
    unit = ua.EUInformation("http://u", 4408652, ua.LocalizedText("°C"), ua.LocalizedText("degree Celsius"))
    assert one(unit, T.ExtensionObject)[0] == {
        "NamespaceUri": "http://u", "UnitId": 4408652, "DisplayName": "°C", "Description": "degree Celsius",
    }  # fmt: skip
    unknown = ua.ExtensionObject(ua.NodeId(3000, 2), b"\x01\x02\x03")
    assert one(unknown, T.ExtensionObject) == (
        {"UaTypeId": "nsu=http://example.org/m%3B100%25;i=3000", "UaEncoding": 1, "UaBody": b"\x01\x02\x03"},
        codes.UNCERTAIN,
    )
    assert one([limits, limits], T.ExtensionObject)[0] == [{"Low": 1.0, "High": 2.5}] * 2
    assert one(None, T.ExtensionObject) == (None, 0)


def test_a_structure_cut_short_costs_only_its_own_value() -> None:
    data = response(
        ua.DataValue(ua.Variant(ua.Range(1.0, 2.0), T.ExtensionObject)), ua.DataValue(ua.Variant(7, T.Byte))
    )
    body = struct.pack("<dd", 1.0, 2.0)
    cut = data.replace(struct.pack("<i", 16) + body, struct.pack("<i", 12) + body[:12])
    outer = struct.unpack_from("<i", data, data.index(body) - 0)  # the body is there once
    assert outer
    message = decode_publish_response(_shortened(cut, 4)).message
    assert message.changes[0].values == [{"UaTypeId": "i=886", "UaEncoding": 1, "UaBody": body[:12]}, 7]
    assert message.changes[0].status == [codes.UNCERTAIN, 0]


def _shortened(data: bytes, by: int) -> bytes:
    """Corrects the length of the one DataChangeNotification in `data`."""
    type_id = b"\x01\x00" + struct.pack("<H", 811) + b"\x01"
    at = data.index(type_id) + len(type_id)
    (length,) = struct.unpack_from("<i", data, at)
    return data[:at] + struct.pack("<i", length - by) + data[at + 4 :]


scalars = st.one_of(
    st.tuples(st.booleans(), st.just(T.Boolean)),
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.just(T.Int64)),
    st.tuples(st.integers(0, 2**64 - 1), st.just(T.UInt64)),
    st.tuples(st.integers(-128, 127), st.just(T.SByte)),
    st.tuples(st.floats(allow_nan=False), st.just(T.Double)),
    st.tuples(st.floats(width=32, allow_nan=False), st.just(T.Float)),
    st.tuples(st.text(), st.just(T.String)),
    st.tuples(st.binary(), st.just(T.ByteString)),
    st.tuples(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.just(T.Int32)),
    st.tuples(st.lists(st.text(), min_size=1), st.just(T.String)),
    st.tuples(st.lists(st.booleans(), min_size=1), st.just(T.Boolean)),
    st.tuples(st.uuids(), st.just(T.Guid)),
    st.tuples(st.builds(ua.LocalizedText, st.text(), st.text()), st.just(T.LocalizedText)),
    st.tuples(st.builds(ua.NodeId, st.integers(1, 2**32 - 1), st.integers(0, 2)), st.just(T.NodeId)),
    st.tuples(st.builds(ua.NodeId, st.text(min_size=1), st.integers(0, 2)), st.just(T.NodeId)),
    st.tuples(st.builds(ua.Range, st.floats(allow_nan=False), st.floats(allow_nan=False)), st.just(T.ExtensionObject)),
)
times = st.none() | st.integers(-11_600_000_000, 220_000_000_000).map(lambda s: EPOCH + dt.timedelta(seconds=s))
statuses = st.sampled_from([0, codes.UNCERTAIN, codes.BAD_SENSOR_FAILURE, 0x480])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(scalars, statuses, times, times), min_size=1, max_size=12))
def test_equal_to_asyncua(rows: list[Any]) -> None:
    data = response(
        *(
            ua.DataValue(
                ua.Variant(value, kind), StatusCode=ua.StatusCode(code), SourceTimestamp=source, ServerTimestamp=server
            )
            for (value, kind), code, source, server in rows
        )
    )
    change = decode_publish_response(data, NAMESPACES).message.changes[0]
    theirs = struct_from_binary(ua.PublishResponse, Buffer(data))
    items = theirs.Parameters.NotificationMessage.NotificationData[0].MonitoredItems
    assert len(change.values) == len(items)
    for i, item in enumerate(items):
        assert change.values[i] == plain(item.Value.Value.Value, NAMESPACES)
        assert change.status[i] == item.Value.StatusCode.value
        for ours, their in (
            (change.source[i], item.Value.SourceTimestamp),
            (change.server[i], item.Value.ServerTimestamp),
        ):
            assert ours == (None if their is None else (their - EPOCH) // dt.timedelta(microseconds=1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hostile_bytes_raise_nothing_else(data: st.DataObject) -> None:
    good = bytearray(
        response(
            ua.DataValue(ua.Variant(["a", "bc"], T.String)), ua.DataValue(ua.Variant(ua.Range(1, 2), T.ExtensionObject)),
            ua.DataValue(ua.Variant([[1, 2], [3, 4]], T.Int64, Dimensions=[2, 2])), results=[0],
        )
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        decode_publish_response(bytes(good[:cut]))
    except (DecodingError, ua.UaStatusCodeError):
        pass


def test_a_length_that_lies_allocates_nothing() -> None:
    data = response(ua.DataValue(ua.Variant([1, 2, 3], T.Double)))
    lying = data.replace(struct.pack("<id", 3, 1.0), struct.pack("<id", 2**31 - 1, 1.0))
    message = decode_publish_response(lying).message
    assert "array" in message.undecodable
    assert message.changes == []


def test_values_nested_for_ever_are_refused() -> None:
    deep = b"\x18" * 5_000 + b"\x00"  # a Variant in a Variant in a Variant …
    with pytest.raises(DecodingError, match="nested"):
        Decoder()._variant(deep, 0)
    assert Decoder()._variant(b"\x18" * 5 + b"\x03\x07", 0)[0] == 7


def test_reserved_types_are_bytes() -> None:
    assert Decoder()._variant(bytes([26]) + struct.pack("<i", 2) + b"ab", 0)[0] == b"ab"
    with pytest.raises(DecodingError, match="type 40"):
        Decoder()._variant(bytes([40]) + b"\x00" * 8, 0)


def test_bad_service_result_is_an_error() -> None:
    answer = ua.PublishResponse()
    answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadNoSubscription)
    with pytest.raises(ua.UaStatusCodeError):
        decode_publish_response(bytes(struct_to_binary(answer)))


def test_diagnostics_are_skipped() -> None:
    info = ua.DiagnosticInfo(SymbolicId=1, AdditionalInfo="why", InnerStatusCode=ua.StatusCode(codes.BAD_TIMEOUT))
    data = response(ua.DataValue(ua.Variant(info, T.DiagnosticInfo)), ua.DataValue(ua.Variant(5, T.Byte)))
    assert decode_publish_response(data).message.changes[0].values == [None, 5]
