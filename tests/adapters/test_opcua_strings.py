"""Strings that are not UTF-8: nothing is lost, and a profile may say what they are."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from adapters.contract import Samples
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._decode import decode_publish_response
from adapters.opcua._events import EventItem, to_event
from adapters.opcua._outlet import Outlet
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._strings import settle, text
from adapters.opcua._subscription import Group, Subscription
from gateway.collect._signal_rules import SignalRules
from gateway.config.plan import PlannedSignal
from schemas import status as codes
from schemas.model import Signal
from schemas.profile import EventClause, EventField, OpcUaAddress, OpcUaRules
from schemas.wire import Flag
from tests.adapters.opcua_collector import device
from tests.adapters.test_opcua_decode import response

U = codes.UNCERTAIN


def arrived(raw: bytes) -> str:
    """As the decoder gives it."""
    return raw.decode(errors="surrogateescape")


def settled(values: list[Any], status: list[int] | None, encoding: str) -> tuple[list[Any], list[int] | None]:
    samples = Samples("d", "g", 0, list(range(len(values))), values, status=status)
    settle(samples, encoding)
    return list(samples.values), None if samples.status is None else list(samples.status)


def test_utf8_devices_keep_the_bytes_of_what_is_none() -> None:
    gbk = "停机".encode("gbk")
    values = [1, "ok", arrived(gbk), ["满", arrived(gbk)], {"a": arrived(gbk)}, {"UaBody": b"\xff"}]
    assert settled(values, [0, 0, U, U, U, U], "utf-8") == (
        [1, "ok", gbk, ["满", gbk], {"a": gbk}, {"UaBody": b"\xff"}],
        [0, 0, U, U, U, U],
    )


def test_a_profile_says_what_they_are() -> None:
    assert settled([arrived("停机".encode("gbk")), 5], [U, 0], "gbk") == (["停机", 5], None)
    # GBK that happens to be UTF-8 as well
    unlucky = "模".encode("gbk").decode()
    assert unlucky != "模"
    assert settled([unlucky], None, "gbk") == (["模"], None)
    assert settled([arrived(b"\xff\xff")], [U], "gbk") == ([b"\xff\xff"], [U])
    assert settled([arrived("满".encode("gbk"))], [codes.UNCERTAIN_LAST_USABLE_VALUE], "gbk") == (
        ["满"],
        [codes.UNCERTAIN_LAST_USABLE_VALUE],
    )


@given(st.text(alphabet=st.characters(codec="gbk")), st.sampled_from(["gbk", "gb18030"]))
def test_any_gbk_text_comes_back(wanted: str, encoding: str) -> None:
    raw = wanted.encode(encoding)
    try:
        came, status = raw.decode(), 0
    except UnicodeDecodeError:
        came, status = arrived(raw), U
    assert settled([came], [status], encoding) == ([wanted], None)


def test_fields_of_events_stay_text() -> None:
    assert text(arrived("料筒".encode("gbk")), "gbk") == "料筒"
    assert text(arrived(b"a\xff"), "utf-8") == "a\ufffd"
    assert text([arrived(b"\xff"), {"x": arrived(b"\xfe")}], "utf-8") == ["\ufffd", {"x": "\ufffd"}]
    assert text(b"\xff", "gbk") == b"\xff"


def test_the_stored_text_is_what_can_be_read_beside_the_bytes() -> None:
    signal = Signal(name="text", type="string", kind="text")
    address = OpcUaAddress(node="i=1")
    rules = SignalRules(PlannedSignal(0, 0, "d", signal, "g", address, "", "", "a", "", 1.0, 0.0, "string"))
    raw = b"No. 7 \xff"
    assert rules.full(raw, U) == ("No. 7 \ufffd", U, raw, Flag.RAW_KEPT)
    assert rules.full(raw, 0)[1] == codes.BAD_TYPE_MISMATCH  # a ByteString that is one
    value, status, *_ = rules.full(b"\xff" * 100_000, U)
    assert (value, status) == (None, codes.BAD_ENCODING_LIMITS_EXCEEDED)


def test_encodings_are_checked() -> None:
    assert OpcUaRules(encoding="GBK").encoding == "gbk"
    for wrong in ("klingon", "base64", "utf-16-nothing"):
        with pytest.raises(ValueError, match="not a text encoding"):
            OpcUaRules(encoding=wrong)


@pytest.mark.parametrize(
    ("encoding", "value", "status"), [("gbk", "停机", None), ("utf-8", "停机".encode("gbk"), [0, U])]
)
async def test_on_its_way_to_the_host(encoding: str, value: Any, status: list[int] | None) -> None:
    """A notification as it comes from the wire, in whose middle a text is GBK."""
    data = response(
        ua.DataValue(ua.Variant(1, ua.VariantType.Byte)), ua.DataValue(ua.Variant("XXXX", ua.VariantType.String))
    )
    message = decode_publish_response(data.replace(b"XXXX", "停机".encode("gbk"))).message
    outlet = Outlet(100, Acknowledgements(), lambda _: None)
    group = Group("press", "fast", 1.0, encoding=encoding)
    Subscription(8, group, 1.0, 1.0, ServerClock(), outlet, heard=0.0, points={0, 1}).deliver(message, False, 70)
    samples = await outlet.get()
    assert isinstance(samples, Samples)
    assert (list(samples.values), samples.status) == ([1, value], status)


def test_an_event_in_gbk() -> None:
    item = EventItem(
        device(encoding="gbk"), EventClause(name="x", type="i=2041", fields={"part": EventField(path="P")}), 0
    )
    raw = arrived("料筒超温".encode("gbk"))
    event = to_event(item, [b"\1", "i=2041", None, None, 5, 6, raw, 300, raw], 7)
    assert (event.message, event.fields) == ("料筒超温", {"part": "料筒超温"})
