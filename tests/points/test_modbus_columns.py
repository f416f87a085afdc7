"""Columns of Modbus devices: serial ports, ratios, selectors, and numbers whose first digit names the table."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from adapters.modbus._settings import Transport
from gateway.points._grid import TableError
from gateway.points.columns import COMBINED
from gateway.points.importing import Imported, import_table
from schemas.modbus import ModbusType
from tests.points.test_tables import METER, _points, _problems, _signals


def addresses(imported: Imported) -> list[tuple[str, int | None, int | None]]:
    return [
        (s["address"]["table"], s["address"].get("address"), s["address"].get("number")) for s in _signals(imported)
    ]


# ------------------------------------------------------------------------------------------------- the digit of the table


@pytest.mark.parametrize("heading", ["地址", "编号", "register address"])
def test_a_whole_column_of_six_digits_is_in_that_notation(heading: str) -> None:
    head = ["设备编号", "信号名", heading, "数据类型"]
    rows = [["meter-1", "a", 400001, "int16"], ["meter-1", "b", "300011", "int16"], ["meter-1", "c", "000007", "bool"],
            ["meter-1", "d", 165536, "bool"], ["meter-1", "e", "４６５５３６", "int16"]]  # fmt: skip
    assert addresses(_points(*rows, head=head)) == [
        ("holding", None, 1), ("input", None, 11), ("coil", None, 7), ("discrete", None, 65536), ("holding", None, 65536),
    ]  # fmt: skip


def test_one_number_that_does_not_fit_and_the_notation_is_not_meant() -> None:
    head = ["设备编号", "信号名", "寄存器区", "编号", "数据类型"]
    found = _problems(["meter-1", "a", "holding", 400001, "int16"], ["meter-1", "b", "holding", 12, "int16"], head=head)
    assert set(found) == {"点位!D2"}
    assert "write 1 under number" in found["点位!D2"][2]


def test_zeros_in_front_are_no_table() -> None:
    head = ["设备编号", "信号名", "寄存器区", "地址", "数据类型"]
    assert addresses(_points(["meter-1", "a", "holding", "000012", "int16"], head=head)) == [("holding", 12, None)]


def test_the_digit_and_the_table_must_agree() -> None:
    head = ["设备编号", "信号名", "寄存器区", "编号", "数据类型"]
    found = _problems(["meter-1", "a", "input", 400001, "int16"], head=head)
    assert "means holding" in found["点位!C2"][2]
    same = _points(["meter-1", "a", "保持寄存器", 400001, "int16"], head=head)
    assert addresses(same) == [("holding", None, 1)]


def test_the_column_that_says_so_takes_five_digits_too() -> None:
    head = ["设备编号", "信号名", "4x编号", "地址", "寄存器区", "数据类型"]
    rows = [["meter-1", "a", 40001, None, None, "int16"], ["meter-1", "b", "300011", None, None, "int16"],
            ["meter-1", "c", None, 40001, "holding", "int16"]]  # fmt: skip
    assert addresses(_points(*rows, head=head)) == [("holding", None, 1), ("input", None, 11), ("holding", 40001, None)]
    found = _problems(
        ["meter-1", "a", 50001, None, None, "int16"], ["meter-1", "b", 40001, 7, None, "int16"], head=head
    )
    assert "40001 or 400001" in found["点位!C2"][2]
    assert "one of address, number and 4x number" in found["点位!C3"][2]


def test_five_digits_under_number_are_the_register_itself_and_a_notice_says_so() -> None:
    """iEM3000: register 45100 of the manual is holding register 45100."""
    head = ["设备编号", "信号名", "寄存器区", "编号", "数据类型"]
    imported = _points(["meter-1", "a", "holding", 45100, "float32"], head=head)
    assert addresses(imported) == [("holding", None, 45100)]
    assert "4x number" in imported.notices[0].text.en
    assert not _points(
        ["meter-1", "a", "holding", 45100, "float32"], ["meter-1", "b", "holding", 7, "int16"], head=head
    ).notices


def test_in_one_file() -> None:
    text = "device id,protocol,host,signal,4x number,data type\nm-1,modbus,h,a,40001,int16\n,,,b,30002,int16\n"
    assert addresses(import_table(text.encode(), file="t.csv")) == [("holding", None, 1), ("input", None, 2)]


# ------------------------------------------------------------------------------------------------ serial ports and ratios

SERIAL = ["设备编号", "协议", "连接地址", "串口", "波特率", "校验位", "停止位", "站号", "变比数值"]
PORT = "/dev/serial/by-id/usb-1"


def serial(*rows: list[Any]) -> Imported:
    points = [[row[0], "a", "holding", 1, "int16", ""] for row in rows]
    return _points(*points, devices=[SERIAL, *rows])


def test_devices_on_a_serial_port_share_its_link() -> None:
    imported = serial(
        ["m-1", "modbus", None, PORT, 19200, "偶", None, 1, "ct=40； pt = 1.5"],
        ["m-2", "modbus", None, PORT, 19200, "even", None, 2, None],
        ["m-3", "modbus", None, "/dev/ttyS1", None, None, 2, 1, None],
    )  # fmt: skip
    assert [(link["id"], link["settings"], len(link["devices"])) for link in imported.links] == [
        ("m-1", {"serial": PORT, "baud": 19200, "parity": "E"}, 2),
        ("m-3", {"serial": "/dev/ttyS1", "stop": 2}, 1),
    ]
    assert imported.links[0]["devices"][0]["rules"] == {"ratios": {"ct": 40.0, "pt": 1.5}}


def test_what_is_wrong_with_a_serial_port_is_told_at_its_cell() -> None:
    with pytest.raises(TableError) as failed:
        serial(
            ["m-1", "modbus", "10.0.0.1", PORT, 9600, "N", 1, 1, None],
            ["m-2", "modbus", None, "COM3", 9600, "N", 1, 1, None],
            ["m-3", "modbus", "10.0.0.2", None, 9600, None, None, 1, "ct"],
            ["m-4", "modbus", None, None, None, None, None, 1, None],
            ["m-5", "modbus", None, "/dev/ttyS4", None, "X", None, 1, None],
        )
    told = {p.place: p.text.en for p in failed.value.problems}
    assert set(told) == {"设备!C2", "设备!D3", "设备!E4", "设备!I4", "设备!C5", "设备!F6"}
    assert "serial port" in told["设备!C5"]
    assert "/dev/serial/by-id" in told["设备!D3"]


def test_two_settings_of_one_port_are_told() -> None:
    with pytest.raises(TableError) as failed:
        serial(
            ["m-1", "modbus", None, PORT, 9600, None, None, 1, None],
            ["m-2", "modbus", None, PORT, 19200, None, None, 2, None],
        )
    assert [p.place for p in failed.value.problems] == ["设备!E3"]


def test_a_baud_rate_that_no_port_has_is_told_at_its_cell() -> None:
    with pytest.raises(TableError) as failed:
        serial(["m-1", "modbus", None, PORT, 9601, None, None, 1, None])
    assert [p.place for p in failed.value.problems] == ["设备!E2"]


def test_a_selector_is_understood_or_named() -> None:
    head = ["设备编号", "信号名", "寄存器区", "地址", "数据类型", "选择寄存器"]
    (signal,) = _signals(_points(["meter-1", "a", "holding", 1, "int16", "0x200 = 3"], head=head))
    assert signal["address"]["select"] == "0x0200=3"
    assert set(_problems(["meter-1", "a", "holding", 1, "int16", "512"], head=head)) == {"点位!F2"}


def test_every_type_and_transport_has_its_place_in_the_drop_downs() -> None:
    columns = {column.key: column for column in COMBINED}
    assert set(columns["data_type"].choices) == set(get_args(ModbusType))
    assert set(columns["transport"].choices) == set(get_args(Transport))
    assert METER[0][0] == columns["device"].zh
