"""The flight recorder of a link: the ring, and what the frames of both protocols say."""

from __future__ import annotations

import struct
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from adapters.frames import LARGEST, FrameLog, Record
from adapters.modbus._frames import frame_log as modbus_log
from adapters.modbus._frames import tracer
from adapters.opcua import _frames as opcua

REQUEST = bytes.fromhex("0007 0000 0006 11 03 006b 0003".replace(" ", ""))
ANSWER = bytes.fromhex("0007 0000 0009 11 03 06 022b 0000 0064".replace(" ", ""))
"""The example of V1.1b3 §6.3, with an MBAP header."""


def meanings(log: FrameLog) -> list[str]:
    return [frame.meaning for frame in log.frames()]


def test_the_ring_keeps_the_newest_and_their_numbers() -> None:
    log = FrameLog("modbus-tcp", lambda record: (record.content, record.content.decode()), keep=3)
    for number in range(5):
        log.add(number, "sent", b"%d" % number)
    assert [(f.number, f.meaning) for f in log.frames()] == [(2, "2"), (3, "3"), (4, "4")]
    assert [f.number for f in log.frames(after=3)] == [4]
    log.note(9, "closed")
    (note,) = log.frames(after=4)
    assert (note.direction, note.meaning, note.data, log.total) == ("note", "closed", b"", 6)


def test_modbus_tcp_frames_are_named() -> None:
    log = modbus_log("mbap")
    trace = tracer(log, lambda: 5)
    assert trace(True, REQUEST) is REQUEST
    trace(False, ANSWER[:10])
    trace(False, ANSWER)
    trace(False, bytes.fromhex("000700000003118302"))
    trace(False, b"HTTP/1.1 400")
    asked, piece, answered, refused, foreign = meanings(log)
    assert asked == "transaction 7, unit 17: Read Holding Registers (3), address 107, count 3"
    assert "5 bytes still to come" in piece
    assert answered == "transaction 7, unit 17: Read Holding Registers (3), 3 registers: 555 0 100"
    assert refused.endswith("exception 2 illegal data address")
    assert "no Modbus TCP frame" in foreign
    assert [frame.data for frame in log.frames()][:2] == [REQUEST, ANSWER[:10]]


def test_rtu_frames_are_named_and_their_checksum_is_looked_at() -> None:
    log = modbus_log("rtu")
    trace = tracer(log, lambda: 5)
    trace(True, bytes.fromhex("010300000001840a"))
    trace(False, bytes.fromhex("0103020005ffff"))
    asked, answered = meanings(log)
    assert asked == "unit 1: Read Holding Registers (3), address 0, count 1"
    assert answered.endswith("1 registers: 5 (checksum wrong, or incomplete)")


def test_large_frames_are_kept_in_part() -> None:
    log = modbus_log("mbap")
    tracer(log, lambda: 5)(False, bytes(LARGEST + 9))
    (frame,) = log.frames()
    assert (len(frame.data), frame.size) == (LARGEST, LARGEST + 9)


def test_an_opc_ua_request_is_shown_without_the_token_of_the_session() -> None:
    request = ua.ReadRequest()
    request.RequestHeader.AuthenticationToken = ua.NodeId("secret-token", 1)
    request.RequestHeader.RequestHandle = 8
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=ua.NodeId(2258)) for _ in range(2)]
    log = opcua.frame_log()
    opcua.sent(log, 5, request)
    (frame,) = log.frames()
    assert frame.meaning.startswith("ReadRequest, handle 8, 2 nodes, ")
    assert b"secret-token" not in frame.data
    assert b"secret-token" in struct_to_binary(request)
    assert frame.data[:4] == b"MSGF"
    assert struct.unpack_from("<I", frame.data, 4)[0] == len(frame.data) == frame.size


def test_a_request_of_very_many_parts_is_not_held() -> None:
    request = ua.ReadRequest()
    request.Parameters.NodesToRead = [ua.ReadValueId()] * 101
    log = opcua.frame_log()
    opcua.sent(log, 5, request)
    ((_, record),) = log.records()
    assert record.content == "ReadRequest, 101 nodes"


class _Publish:
    """Builds PublishResponses with asyncua, as a server would."""

    @staticmethod
    def of(notifications: list[Any]) -> bytes:
        answer = ua.PublishResponse()
        answer.ResponseHeader.RequestHandle = 3
        answer.Parameters.SubscriptionId = 77
        answer.Parameters.AvailableSequenceNumbers = [4, 5]
        answer.Parameters.NotificationMessage.SequenceNumber = 5
        answer.Parameters.NotificationMessage.NotificationData = notifications
        return bytes(struct_to_binary(answer))


def test_what_a_publish_response_brings() -> None:
    items = [ua.MonitoredItemNotification(n, ua.DataValue(ua.Variant(n))) for n in range(6)]
    log = opcua.frame_log()
    opcua.received(log, 5, _Publish.of([ua.DataChangeNotification(MonitoredItems=items)]))
    opcua.received(log, 5, _Publish.of([]))
    changes, alive = meanings(log)
    assert changes.startswith("PublishResponse, handle 3, Good, ")
    assert changes.endswith(": subscription 77, sequence 5, 6 data changes")
    assert alive.endswith(": subscription 77, sequence 5, keep-alive")


def test_a_response_that_is_cut_off_is_still_told() -> None:
    body = _Publish.of([])
    for length in range(len(body)):
        told = opcua._explain(Record(5, "received", body[:length], length + 24))
        assert told[1]
