"""Point tables: what is exported comes in again; what people and Excel write is understood or named by sheet and cell."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from gateway.config.models import Config, LinkSettings
from gateway.points._grid import TableError
from gateway.points.columns import COMBINED, DEVICES, POINTS, folded
from gateway.points.exporting import Form, comparable, export_table, template, write
from gateway.points.importing import Imported, import_table, profile_of
from schemas.profile import Profile

FORMS: tuple[Form, ...] = ("xlsx", "csv", "csv-gbk")

# -------------------------------------------------------------------------------------------------- export and import


def _subset(draw: st.DrawFn, options: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    return {key: draw(strategy) for key, strategy in options.items() if draw(st.booleans())}


WORDS = st.text(
    st.characters(codec="gb18030", exclude_categories=["Cc", "Cs", "Co", "Cn", "Z", "Cf"]), min_size=1, max_size=12
)
IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,6}(/[a-z0-9][a-z0-9_-]{0,6}){0,2}", fullmatch=True)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: abs(x) > 1e-6)
PERIODS = st.integers(1, 100_000).map(lambda ms: ms / 1000)
TEXTS = st.fixed_dictionaries({}, optional={"zh": WORDS, "en": WORDS})
UNITS = st.sampled_from(["kWh", "℃", "件", "m³/h", "kvarh", "r/min", "%"])


@st.composite
def modbus_addresses(draw: st.DrawFn) -> dict[str, Any]:
    table = draw(st.sampled_from(["coil", "discrete", "input", "holding"]))
    address: dict[str, Any] = {"table": table}
    if draw(st.booleans()):
        address["address"] = draw(st.integers(0, 60_000))
    else:
        address["number"] = draw(st.integers(1, 60_000))
    if table in ("coil", "discrete"):
        return address | {"type": draw(st.sampled_from(["bool", "uint16"]))}
    address["type"] = draw(
        st.sampled_from(["int16", "uint16", "int32", "uint64", "float32", "float64", "string", "bytes"])
    )
    address["order"] = draw(st.sampled_from(["ABCD", "BADC", "CDAB", "DCBA"]))
    if address["type"] in ("string", "bytes"):
        return address | {"length": draw(st.integers(1, 125)), "encoding": draw(st.sampled_from(["utf-8", "gbk"]))}
    if draw(st.booleans()):
        return address | _meaning_of_registers(draw, table)
    bad = st.sampled_from(["BadSensorFailure", "UncertainSensorNotAccurate"])
    return address | _subset(draw, {"sentinels": st.dictionaries(st.integers(0, 2**64 - 1), bad, max_size=3)})


def _meaning_of_registers(draw: st.DrawFn, table: str) -> dict[str, Any]:
    texts = st.fixed_dictionaries({"zh": WORDS, "en": WORDS})
    factors = ["ct/ratio", "holding 6 uint16", "input 49 int16 exponent", "holding 6 uint32 CDAB *0.1"]
    bits = st.tuples(st.integers(0, 8), st.integers(1, 8)) | st.integers(0, 15)
    factor = _subset(
        draw,
        {"atomic": IDS, "ratio": st.lists(IDS, max_size=3), "scale_by": st.sampled_from(factors)},
    )
    if table == "holding" and " " not in factor.get("scale_by", ""):  # a register as factor would be another record's
        factor |= _subset(draw, {"select": st.sampled_from(["0x200=3", {"address": 7, "value": 65535}])})
    return draw(
        st.sampled_from(
            [
                {"type": "uint8", "byte": "high"},
                {"type": "uint16", "fields": draw(st.dictionaries(IDS, bits, min_size=1, max_size=4))},
                {"type": "bcd32", **factor},
                {"type": "int32", "count": draw(st.integers(2, 40)), **factor},
                {"type": "datetime", "layout": "bcd6", "zone": "Asia/Shanghai"},
                {"type": "string", "length": 4, "padding": draw(st.sampled_from(["nul", "both", "ff"]))},
                {"type": "int16", "sentinels": {7: "BadSensorFailure"}, "faults": {7: draw(texts)}},
            ]
        )
    )


@st.composite
def opcua_addresses(draw: st.DrawFn) -> dict[str, Any]:
    where = draw(st.sampled_from(["nsu=http://example.org/机器;", "ns=2;", ""]))
    node = draw(st.one_of(WORDS.map(lambda s: f's="{s}"."x;y"'), st.integers(1, 10**9).map(lambda i: f"i={i}")))
    address: dict[str, Any] = (
        {"node": where + node} if draw(st.booleans()) else {"path": f"di:{draw(IDS)}/2:{draw(IDS)}"}
    )
    return address | _subset(draw, {"sampling": PERIODS, "queue": st.integers(1, 1000)})


@st.composite
def signals(draw: st.DrawFn, adapter: str, groups: list[str]) -> dict[str, Any]:
    address = draw(modbus_addresses() if adapter == "modbus" else opcua_addresses())
    textual = address.get("type") in ("bool", "string", "bytes")
    signal: dict[str, Any] = {
        "name": draw(NAMES), "address": address, "group": draw(st.sampled_from(groups)),
        "type": address["type"] if textual else draw(st.sampled_from(["float64", "int32", "uint64"])),
    }  # fmt: skip
    signal |= _subset(draw, {
        "description": TEXTS, "store": st.sampled_from(["change", "every"]), "silence": PERIODS, "semantic_id": WORDS,
        "enum": st.dictionaries(st.integers(-5, 10**6), TEXTS, min_size=1, max_size=4), "asset": IDS,
    })  # fmt: skip
    if not textual:
        signal |= _subset(
            draw,
            {
                "unit": UNITS,
                "scale": NUMBERS,
                "offset": NUMBERS,
                "deadband": st.builds(lambda x: {"absolute": abs(x)}, NUMBERS),
            },
        )
        if draw(st.booleans()):
            low = draw(NUMBERS)
            signal |= {
                "range": [low, low + 10 + draw(st.integers(0, 5))],
                "deadband": {"percent": draw(st.floats(0.001, 100))},
            }
        if draw(st.booleans()):
            signal["kind"] = "counter"
            signal["counter"] = {"counts": draw(WORDS)} | _subset(draw, {
                "per_count": st.floats(0.001, 1e6), "modulus": st.integers(2, 2**64), "may_decrease": st.booleans(),
                "resets_on": st.lists(st.sampled_from(["job", "shift", "power", "operator"]), unique=True), "max_rate": st.floats(0.1, 1e6),
            })  # fmt: skip
        else:
            signal |= _subset(draw, {"kind": st.sampled_from(["measurement", "state", "alarm", "setting"])})
            if address.get("type") == "uint16":
                signal |= draw(st.sampled_from([{}, {"bit": 3}, {"bits": [4, 3]}]))
    return signal


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    links: list[dict[str, Any]] = []
    used: set[str] = set()
    for link_id in draw(st.lists(IDS, min_size=1, max_size=3, unique=True)):
        adapter = draw(st.sampled_from(["opcua", "modbus"]))
        link_settings: dict[str, Any]
        if adapter == "opcua":
            link_settings = {"endpoint": f"opc.tcp://{draw(IDS)}:4840", "security": "none"}
        else:
            link_settings = {"host": draw(IDS)} | _subset(
                draw, {"port": st.integers(1, 65535), "transport": st.sampled_from(["tcp", "rtu-over-tcp"])}
            )
            if draw(st.booleans()):
                link_settings = {"serial": f"/dev/{draw(IDS)}"} | _subset(
                    draw,
                    {
                        "baud": st.sampled_from([9600, 19200]),
                        "parity": st.sampled_from("NEO"),
                        "stop": st.sampled_from([1, 2]),
                    },
                )
        devices = []
        for name in draw(st.lists(IDS.filter(lambda i: i not in used), min_size=1, max_size=3, unique=True)):
            used.add(name)
            groups = ["default", *draw(st.lists(st.sampled_from(["fast", "slow"]), unique=True))]
            points = draw(st.lists(signals(adapter, groups), min_size=1, max_size=4, unique_by=lambda s: s["name"]))
            in_use = sorted({s["group"] for s in points})
            device = {
                "id": name, "signals": points, "groups": {g: {"period": draw(PERIODS)} for g in in_use},
                **_subset(draw, {"name": TEXTS, "asset": IDS}),
            }  # fmt: skip
            if adapter == "modbus":
                device |= _subset(draw, {"settings": st.fixed_dictionaries({"unit": st.integers(1, 247)})})
                ratios = {name for s in points for name in s["address"].get("ratio", ())}
                if ratios:
                    device["rules"] = {"ratios": {name: draw(NUMBERS) for name in sorted(ratios)}}
            else:
                device |= {"rules": {"namespaces": {"di": "http://example.org/a=b;c|d"}}}
            devices.append(device)
        links.append({"id": link_id, "adapter": adapter, "settings": link_settings, "devices": devices})
    assets = {d.get("asset", d["id"]) for k in links for d in k["devices"]} | {
        s["asset"] for k in links for d in k["devices"] for s in d["signals"] if "asset" in s
    }
    return Config.model_validate({"links": links, "assets": [{"id": a} for a in sorted(assets)]})


@pytest.mark.parametrize("form", FORMS)
@given(config=configurations(), language=st.sampled_from(["zh", "en"]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_exported_comes_in_again(form: Form, config: Config, language: str) -> None:
    data, notices = export_table(config, form, language)
    assert [notice.en for notice in notices] == []
    again = [LinkSettings.model_validate(link) for link in import_table(data, file="t").links]
    assert [comparable(link) for link in again] == [comparable(link) for link in config.links]
    assert [d.id for link in again for d in link.devices] == [d.id for link in config.links for d in link.devices]
    assert [s.name for k in again for d in k.devices for s in d.signals] == [
        s.name for k in config.links for d in k.devices for s in d.signals
    ]


def test_export_names_what_a_table_cannot_hold() -> None:
    link = {
        "id": "line", "adapter": "modbus", "settings": {"host": "10.0.0.1", "pause": 0.1},
        "devices": [{"id": "m-1", "profile": "eastron-sdm630", "clock": {"offset": "+8h"}, "override": {"voltage/l1": {"disabled": True}}}],
    }  # fmt: skip
    _, notices = export_table(Config.model_validate({"links": [link]}))
    told = " ".join(notice.en for notice in notices)
    assert "line.settings.pause" in told
    assert "override" in told
    assert "clock.offset" in told


# ------------------------------------------------------------------------------------------------------------ templates


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("form", FORMS)
def test_the_examples_of_a_template_are_left_out_and_are_right(form: Form, language: str) -> None:
    data = template(form, language)
    with pytest.raises(TableError) as failed:
        import_table(data, file="t")
    assert [p.text.en for p in failed.value.problems] == ["there is no device in the table"]
    if form == "xlsx":
        book = load_workbook(io.BytesIO(data))
        for sheet in book.worksheets:
            for row in sheet.iter_rows(min_row=2, max_col=1):
                row[0].value = str(row[0].value).removeprefix("示例-").removeprefix("(example) ")
        imported = import_table(_saved(book), file="t")
    else:
        encoding = "gb18030" if form == "csv-gbk" else "utf-8-sig"
        text = data.decode(encoding).replace("示例-", "").replace("(example) ", "")
        imported = import_table(text.encode(encoding), file="t")
    assert [link["id"] for link in imported.links] == ["plc-1", "meter-1", "meter-2"]
    assert imported.points == 4
    assert imported.links[2]["settings"] == {
        "serial": "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0",
        "baud": 9600,
        "parity": "E",
        "stop": 1,
    }
    signal = imported.links[1]["devices"][0]["signals"][0]
    assert signal["address"] == {
        "table": "holding",
        "address": 4096,
        "sentinels": {0x8000: "BadSensorFailure"},
        "type": "int16",
    }


def test_a_template_has_drop_downs_in_both_sheets() -> None:
    book = load_workbook(io.BytesIO(template()))
    assert book.sheetnames == ["设备", "点位"]
    for sheet, columns in ((book["设备"], DEVICES.columns), (book["点位"], POINTS.columns)):
        lists = {str(v.sqref).split(":")[0]: v.formula1 for v in sheet.data_validations.dataValidation}
        headings = {cell.value: cell.coordinate.replace("1", "2") for cell in sheet[1]}
        for column in columns:
            if column.kind == "choice":
                assert lists[headings[column.zh]] == '"' + ",".join(column.choices) + '"'


def test_no_heading_or_synonym_means_two_columns() -> None:
    for columns in (DEVICES.columns, POINTS.columns, COMBINED):
        seen: dict[str, str] = {}
        for column in columns:
            for text in (column.zh, column.en):
                assert seen.setdefault(folded(text), column.key) == column.key


# ----------------------------------------------------------------------------------------------- what people write


def _saved(book: Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _book(devices: list[list[Any]], points: list[list[Any]]) -> Workbook:
    book = Workbook()
    book.remove(book.active)
    for title, rows in (("设备", devices), ("点位", points)):
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return book


METER = [["设备编号", "协议", "连接地址", "站号"], ["meter-1", "modbus", "10.0.0.9", 1]]
HEAD = ["设备编号", "信号名", "寄存器区", "地址", "数据类型", "单位"]


def _points(*rows: list[Any], head: list[Any] = HEAD, devices: list[list[Any]] = METER) -> Imported:
    return import_table(_saved(_book(devices, [head, *rows])), file="t.xlsx")


def _problems(
    *rows: list[Any], head: list[Any] = HEAD, devices: list[list[Any]] = METER
) -> dict[str, tuple[str, str, str]]:
    with pytest.raises(TableError) as failed:
        _points(*rows, head=head, devices=devices)
    return {p.place: (p.found, p.text.zh, p.text.en) for p in failed.value.problems}


def _signals(imported: Imported) -> list[dict[str, Any]]:
    return [s for link in imported.links for d in link["devices"] for s in d.get("signals", [])]


def test_full_width_digits_and_letters_chinese_words_and_trailing_blanks() -> None:
    (signal,) = _signals(
        _points(["ｍｅｔｅｒ－１ ", " ｐｏｗｅｒ／ｌ１\u3000", "保持寄存器", "０ｘ１０００", "单精度 ", "ｋＷ"])
    )
    assert signal["name"] == "power/l1"
    assert signal["address"] == {"table": "holding", "address": 0x1000, "type": "float32"}
    assert signal["unit"] == "ｋＷ"  # the units know it themselves


@pytest.mark.parametrize(
    "heading", ["Register Address", "寄存器地址", "地址（十进制）", "地 址", "ADDRESS", "地址/Address", "*地址："]
)
def test_headings_and_their_synonyms(heading: str) -> None:
    head = ["Device ID", "Tag", "功能码", heading, "Data Type", "Units"]
    (signal,) = _signals(_points(["meter-1", "p", "03", 12, "REAL", "kW"], head=head))
    assert signal["address"]["address"] == 12


def test_a_title_and_headings_merged_over_rows_and_columns() -> None:
    book = _book(METER, [])
    sheet = book["点位"]
    for row in (
        ["二号车间点表"],
        ["设备编号", "信号名", "说明", None, "寄存器", None, None],
        [None, None, "中文", "英文", "寄存器区", "地址", "数据类型"],
        ["meter-1", "a", "甲", "A", "input", 1, "int16"],
        [None, "b", "乙", "B", "input", 2, "int16"],
        ["meter-1", "c", None, None, "input", 3, "int16"],
    ):
        sheet.append(row)
    for merge in ("A1:G1", "A2:A3", "B2:B3", "C2:D2", "E2:G2", "A4:A5"):
        sheet.merge_cells(merge)
    found = _signals(import_table(_saved(book), file="t"))
    assert [s["name"] for s in found] == ["a", "b", "c"]
    assert found[1]["description"] == {"zh": "乙", "en": "B"}
    assert found[2]["address"]["address"] == 3


def test_ids_that_excel_mangled() -> None:
    devices = [["设备编号", "协议", "连接地址", "资产编号"], ["meter-1", "modbus", "10.0.0.9", 123456789012345678]]
    found = _problems(
        ["meter-1", "1.23E+17", "input", 1, "int16", ""],
        [dt.date(2026, 3, 1), "p", "input", 1, "int16", ""],
        devices=devices,
    )
    assert "文本" in found["设备!D2"][1]
    assert "Text" in found["点位!B2"][2]
    assert "日期" in found["点位!A3"][1]
    padded = Workbook()
    sheet = padded.active
    sheet.append(["设备编号", "协议", "连接地址", "信号名", "寄存器区", "地址"])
    sheet.append([7, "modbus", "10.0.0.9", "p", "input", 1])
    sheet["A2"].number_format = "000"
    assert import_table(_saved(padded), file="t").links[0]["id"] == "007"


def test_every_bad_row_is_named_by_its_cell_and_all_at_once() -> None:
    found = _problems(
        ["meter-1", "Power L1", "holding", 1, "int16", "kW"],
        ["metre-1", "a", "holding", 1, "int16", "kW"],
        ["meter-1", "b", "holdng", 1, "int16", "kW"],
        ["meter-1", "c", "holding", "1A0F", "int16", "kW"],
        ["meter-1", "d", "holding", 400012, "int16", "kW"],
        ["meter-1", "e", "holding", 1, "bool", "kW"],
        ["meter-1", "f", "holding", 1, "int16", "度"],
        ["meter-1", "f", "holding", 1, "string", ""],
        ["meter-1", "g", "", "", "int16", ""],
        ["meter-1", "h", "holding", "#REF!", "int16", ""],
    )
    assert list(found) == [
        "点位!B2", "点位!A3", "点位!C4", "点位!D5", "点位!D6", "点位!E7", "点位!F8", "点位!B9", "点位!9:9",
        "点位!C10", "点位!D10", "点位!D11",
    ]  # fmt: skip
    assert "power_l1" in found["点位!B2"][1]
    assert "meter-1" in found["点位!A3"][2]
    assert "holding" in found["点位!C4"][1].rpartition("是否")[2]
    assert "0x1A0F" in found["点位!D5"][1]
    assert "12" in found["点位!D6"][2]
    assert "kWh" in found["点位!F8"][1]
    assert all(zh and en for _, zh, en in found.values())


def test_what_the_models_find_is_told_at_its_cell() -> None:
    found = _problems(["meter-1", "a", "holding", 65535, "float32", "kW"])
    assert "65535" in found["点位!D2"][2]


def test_columns_of_the_other_protocol_are_refused() -> None:
    found = _problems(["meter-1", "a", "holding", 1, "int16", "", "ns=2;s=A"], head=[*HEAD, "节点"])
    assert list(found) == ["点位!G2"]


@pytest.mark.parametrize(
    ("protocol", "host", "better"),
    [
        ("opcua", "192.168.1.20", "opc.tcp://192.168.1.20:4840"),
        ("modbus", "192.168.1.20:502", "192.168.1.20"),
        ("modbus", "tcp://192.168.1.20", "192.168.1.20"),
    ],
)  # fmt: skip
def test_addresses_of_hosts(protocol: str, host: str, better: str) -> None:
    found = _problems(devices=[["设备编号", "协议", "连接地址", "模板"], ["a", protocol, host, "eastron-sdm630"]])
    assert better in found["设备!C2"][2]


def test_an_unknown_heading_near_a_known_one_is_a_mistake_and_a_far_one_is_not() -> None:
    found = _problems(["meter-1", "a", "holding", 1, "int16", "", 3], head=[*HEAD, "每计数当亮"])
    assert "每计数当量" in found["点位!G1"][1]
    imported = _points(["meter-1", "a", "holding", 1, "int16", "", "张三"], head=[*HEAD, "责任人"])
    assert [notice.place for notice in imported.notices] == ["点位!G1"]


def test_a_formula_without_a_value() -> None:
    found = _problems(["meter-1", "a", "holding", "=1+1", "int16", ""])
    assert "粘贴为值" in found["点位!D2"][1]


def test_two_devices_of_one_serial_server_share_a_link() -> None:
    devices = [
        ["设备编号", "协议", "连接地址", "传输方式", "站号"],
        ["a", "modbus", "10.0.0.9", "rtu", 1],
        ["b", "modbus", "10.0.0.9", "rtu", 2],
    ]
    imported = _points(["a", "p", "input", 1, "int16", ""], ["b", "p", "input", 1, "int16", ""], devices=devices)
    (link,) = imported.links
    assert link["settings"] == {"host": "10.0.0.9", "transport": "rtu-over-tcp"}
    assert [d["settings"]["unit"] for d in link["devices"]] == [1, 2]


def test_devices_of_one_link_agree_about_it() -> None:
    devices = [
        ["设备编号", "链路编号", "协议", "连接地址"],
        ["a", "x", "modbus", "10.0.0.9"],
        ["b", "x", "modbus", "10.0.0.8"],
    ]
    found = _problems(["a", "p", "input", 1, "int16", ""], ["b", "p", "input", 1, "int16", ""], devices=devices)
    assert "设备!D2" in found["设备!D3"][2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_any_encoding(encoding: str, delimiter: str) -> None:
    rows = [
        "设备编号,协议,连接地址,信号名,寄存器区,地址,说明",
        "m-1,modbus,10.0.0.9,a,输入寄存器,１２,电压",
        ",,,b,输入寄存器,13,电流",
    ]
    data = "\r\n".join(rows).replace(",", delimiter).encode(encoding)
    imported = import_table(data, file="t.csv")
    assert [s["description"] for s in _signals(imported)] == [{"zh": "电压"}, {"zh": "电流"}]


def test_mistakes_in_csv_are_named_by_cell() -> None:
    with pytest.raises(TableError) as failed:
        import_table(
            "设备编号,协议,连接地址,信号名,寄存器区,地址\nm-1,modbus,10.0.0.9,a,input,x".encode("gbk"), file="t.csv"
        )
    (problem,) = failed.value.problems
    assert problem.place == "F2"
    assert problem.told("zh").startswith("t.csv: F2: 填的是 'x'：请填写数字")


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04broken", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\x81", b"hello", "甲,乙\n1,2".encode()]
)
def test_files_that_are_no_tables(data: bytes) -> None:
    with pytest.raises(TableError) as failed:
        import_table(data, file="t")
    assert all(p.text.zh and p.text.en for p in failed.value.problems)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    with pytest.raises(TableError):
        import_table(data, file="t")


def test_a_text_that_begins_like_a_formula_stays_a_text() -> None:
    rows = (
        [{"device": "m", "protocol": "opcua", "host": "opc.tcp://h:4840"}],
        [{"device": "m", "name": "a", "node": "ns=2;s=A", "description_zh": "=1+1"}],
    )
    assert _signals(import_table(write(rows, "xlsx"), file="t"))[0]["description"] == {"zh": "=1+1"}


def test_a_profile_of_the_only_device() -> None:
    profile = Profile.model_validate(
        profile_of(_points(["meter-1", "p", "input", 1, "float32", "kW"]), "our-meter", "t.xlsx")
    )
    assert profile.signals[0].name == "p"
    devices = [*METER, ["meter-2", "modbus", "10.0.0.8", 1]]
    both = _points(
        ["meter-1", "p", "input", 1, "int16", ""], ["meter-2", "p", "input", 1, "int16", ""], devices=devices
    )
    with pytest.raises(TableError):
        profile_of(both, "ours", "t.xlsx")


# ------------------------------------------------------------------------------------------------------ very large sheets


def _one_sheet(*rows: list[Any]) -> Workbook:
    book = Workbook()
    sheet = book.active
    sheet.title = "点位"
    for row in rows:
        sheet.append(row)
    return book


def _saved(book: Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_a_colour_at_the_end_of_the_sheet_costs_nothing() -> None:
    device = ["m1", "modbus", "10.0.0.1", 502, 1, "eastron-sdm630"]
    keys = ("device", "protocol", "host", "port", "unit_id", "profile")
    book = _one_sheet([next(c for c in COMBINED if c.key == key).zh for key in keys], device)
    book.active.title = "设备"
    book.active.cell(row=1_048_576, column=16_384).number_format = "0.00"
    imported = import_table(_saved(book), file="t.xlsx")
    assert [d["id"] for link in imported.links for d in link["devices"]] == ["m1"]


def test_what_lies_too_far_away_is_named_and_not_left_out() -> None:
    far = _one_sheet(["设备编号", "信号"])
    far.active.cell(row=200_001, column=2).value = "a"
    wide = _one_sheet(["设备编号", "信号"])
    wide.active.cell(row=2, column=1_001).value = "b"
    for data, place in (
        (_saved(far), "点位!B200001"),
        (_saved(wide), "点位!ALM2"),
        ("设备编号,信号\n".encode() + b"\n" * 200_000 + b"c,d\n", "200002:200002"),
        ("设备编号,信号".encode() + b"," * 2_000_000 + b"e\n", "1:1"),
    ):
        with pytest.raises(TableError) as raised:
            import_table(data, file="t")
        assert place in [problem.place for problem in raised.value.problems]
