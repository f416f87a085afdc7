"""The StatusCode table against the list that asyncua generates from the OPC Foundation's, and what `info` explains."""

import subprocess
import sys

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from schemas import status

STANDARD = {name: value for name, value in vars(ua.StatusCodes).items() if not name.startswith("_")}
U32 = st.integers(0, 0xFFFFFFFF)


def test_every_code_of_the_standard_is_there_with_its_name_and_no_other() -> None:
    assert {entry.name: code for code, entry in status.table().items()} == STANDARD


def test_table_is_in_ascending_order_and_without_information_bits() -> None:
    codes = list(status.table())
    assert codes == sorted(codes)
    assert all(code & ~status.CODE_MASK == 0 for code in codes)


def test_severity_is_the_top_two_bits_and_agrees_with_the_name() -> None:
    for code, entry in status.table().items():
        assert entry.severity == {0: "good", 1: "uncertain", 2: "bad"}[code >> 30]
        assert entry.name.lower().startswith(entry.severity)


def test_every_text_exists_in_both_languages_and_is_tidy() -> None:
    for entry in status.table().values():
        assert entry.text_en.endswith("."), entry
        assert entry.text_zh.endswith(("。", "）。")), entry
        assert any("\u4e00" <= char <= "\u9fff" for char in entry.text_zh), entry
        assert entry.text_en.isascii(), entry
        assert bool(entry.fix_en) == bool(entry.fix_zh), entry
        for text in entry[3:]:
            assert text == text.strip()


def test_texts_are_distinct_enough_to_tell_codes_apart() -> None:
    texts = [(entry.text_en, entry.fix_en, entry.severity) for entry in status.table().values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    "name",
    [
        "BadNoCommunication",
        "BadCommunicationError",
        "BadTimeout",
        "BadConnectionRejected",
        "BadCertificateUntrusted",
        "BadCertificateTimeInvalid",
        "BadUserAccessDenied",
        "BadIdentityTokenRejected",
        "BadNodeIdUnknown",
        "BadNodeIdInvalid",
        "BadTooManyOperations",
        "BadTooManyMonitoredItems",
        "BadTooManySessions",
        "BadEncodingLimitsExceeded",
        "BadSensorFailure",
        "BadDeviceFailure",
        "BadOutOfRange",
        "UncertainEngineeringUnitsExceeded",
        "UncertainLastUsableValue",
        "BadNoData",
        "BadDataLost",
        "BadWaitingForInitialData",
    ],
)
def test_codes_that_operators_meet_have_a_fix(name: str) -> None:
    entry = status.info(status.by_name(name))
    assert entry.fix_en
    assert entry.fix_zh


def test_texts_are_our_own() -> None:
    documentation = {code: text for code, (_, text) in ua.status_codes.code_to_name_doc.items()}
    same = [entry.name for code, entry in status.table().items() if entry.text_en == documentation[code]]
    assert same == []


def constant_names() -> list[str]:
    return [name for name in vars(status) if name.split("_")[0] in {"GOOD", "UNCERTAIN", "BAD"}]


def test_constants_are_the_codes_they_are_named_after() -> None:
    names = constant_names()
    assert len(names) > 30
    by_letters = {name.lower(): value for name, value in STANDARD.items()}
    for name in names:
        assert getattr(status, name) == by_letters[name.replace("_", "").lower()], name


@given(U32)
def test_quality_is_the_top_two_bits_and_nothing_else(code: int) -> None:
    assert status.quality(code) == status.quality(code & 0xC0000000)
    assert status.quality(code) == ["good", "uncertain", "bad", "bad"][code >> 30]
    assert [status.is_good(code), status.is_uncertain(code), status.is_bad(code)].count(True) == 1
    assert {"good": status.is_good, "uncertain": status.is_uncertain, "bad": status.is_bad}[status.quality(code)](code)


@given(U32)
def test_any_status_is_explained_in_both_languages(code: int) -> None:
    entry = status.info(code)
    assert entry.code == code
    assert entry.severity == status.quality(code)
    assert entry.text_en
    assert entry.text_zh
    known = status.table().get(code & status.CODE_MASK)
    assert entry.name == (known.name if known else f"0x{code & status.CODE_MASK:08X}")
    if known and code & 0xFFFF not in (0, 0x0400):  # the latter only says that the bits below are of a data value
        assert entry.text_en != known.text_en
        assert entry.text_zh != known.text_zh


def test_an_unlisted_code_says_so() -> None:
    entry = status.info(0x8FFF0000)
    assert entry.severity == "bad"
    assert "0x8FFF0000 is not in the OPC UA list" in entry.text_en
    assert "0x8FFF0000 不在" in entry.text_zh
    assert entry.fix_en
    assert entry.fix_zh


def test_reserved_severity_counts_as_bad() -> None:
    assert status.info(0xC0000000).severity == "bad"


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x0480, "lost in a full queue"),
        (0x0500, "lower limit"),
        (0x0600, "upper limit"),
        (0x0700, "constant"),
        (0x0401, "calculated"),
        (0x0402, "interpolated"),
        (0x0403, "reserved bits 0x0003"),
        (0x0404, "incomplete interval"),
        (0x0408, "hidden"),
        (0x0410, "several values"),
        (0x0420, "reserved bits 0x0020"),
        (0x8000, "structure"),
        (0x4000, "unit, range or meaning"),
        (0x1000, "reserved bits 0x1000"),
        (0x0080, "reserved bits 0x0080"),  # without its kind bits an overflow bit means nothing
    ],
)
def test_information_bits_are_named(bits: int, expected: str) -> None:
    entry = status.info(status.BAD_NODE_ID_UNKNOWN | bits)
    assert entry.name == "BadNodeIdUnknown"
    assert expected in entry.text_en
    assert entry.text_en.count("reserved") == ("reserved" in expected)


def test_a_plain_data_value_marker_adds_nothing() -> None:
    assert status.info(0x00000400)._replace(code=0) == status.info(0)


@pytest.mark.parametrize("code", [-1, 2**32, -(2**31)])
def test_what_is_not_an_unsigned_32_bit_integer_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="unsigned 32-bit"):
        status.info(code)


@pytest.mark.parametrize("name", STANDARD)
def test_names_lead_to_their_codes(name: str) -> None:
    assert status.info(status.by_name(name)).name == name


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'badNodeIdUnknwon'.*nearest is 'BadNodeIdUnknown'"):
        status.by_name("badNodeIdUnknwon")


def test_modbus_exceptions_1_to_11_have_a_status_that_is_never_good_and_texts() -> None:
    assert list(status.MODBUS_EXCEPTIONS) == list(range(1, 12))
    for code, exception in status.MODBUS_EXCEPTIONS.items():
        assert exception.code == code
        assert status.is_bad(exception.status)
        assert exception.status in status.table()
        assert all(exception[3:])


def test_modbus_exceptions_that_matter() -> None:
    assert status.modbus_exception(2).status == status.BAD_NODE_ID_UNKNOWN
    assert status.modbus_exception(4).status == status.BAD_DEVICE_FAILURE
    assert status.modbus_exception(11).status == status.BAD_NO_COMMUNICATION


@given(st.integers(0, 255))
def test_every_modbus_exception_code_has_an_answer(code: int) -> None:
    exception = status.modbus_exception(code)
    assert exception.code == code
    assert status.is_bad(exception.status)
    if code not in status.MODBUS_EXCEPTIONS:
        assert str(code) in exception.text_en
        assert str(code) in exception.text_zh


def test_import_reads_no_table_and_pulls_in_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); import schemas.status as s; "
        "assert s.table.cache_info().currsize == 0; "
        "print(sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("'csv'", "'difflib'", "'pandas'", "'asyncua'", "'msgspec'", "'pydantic'", "'dataclasses'"):
        assert heavy not in loaded
