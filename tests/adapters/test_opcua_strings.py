"""Strings that are not UTF-8: nothing is lost, and a profile may say what they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.contract import Samples
from adapters.opcua._strings import settle, text
from gateway.collect._signal_rules import SignalRules
from gateway.config.plan import PlannedSignal
from schemas import status as codes
from schemas.model import Signal
from schemas.profile import OpcUaAddress, OpcUaRules
from schemas.wire import Flag

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
