"""What the cells of one row must be together, in Chinese and English; the models have the last word afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.points._cells import shown
from gateway.points.columns import DEVICES, POINTS
from schemas import units
from schemas.bilingual import chinese, of_error

Values = dict[str, Any]
"""Column key -> the cell's value."""
Finding = tuple[str, str, str, str]
"""Column key, what was found, and what to write instead in Chinese and English."""

_FOREIGN: Final = {
    protocol: tuple(c for c in (*DEVICES.columns, *POINTS.columns) if c.protocol not in ("", protocol))
    for protocol in ("opcua", "modbus")
}


def check_device(values: Values, filled: set[str]) -> Iterator[Finding]:
    """The mistakes of a device's row. `filled` are the columns that are not blank; `protocol` is put into `values` if it is plain."""
    host = str(values.get("host", ""))
    if "protocol" not in values and "protocol" not in filled:
        if host.lower().startswith("opc.tcp://"):
            values["protocol"] = "opcua"
        else:
            yield "protocol", "", "请填写协议：opcua 或 modbus", "write the protocol: opcua or modbus"
    protocol = values.get("protocol")
    if "serial" in filled and protocol != "opcua":
        yield from _serial(values, filled)
    elif "host" not in filled:
        yield (
            "host",
            "",
            "请填写连接地址；串口设备请填写“串口”",
            "write the host, or the serial port of a device on one",
        )
    elif protocol == "opcua" and host and not host.lower().startswith("opc.tcp://"):
        plain = host.rpartition("//")[2].rstrip("/")
        better = f"opc.tcp://{plain if ':' in plain else plain + ':4840'}"
        yield "host", repr(host), f"OPC UA 的地址请写成 {better}", f"write an OPC UA address as {better}"
    elif protocol == "modbus" and ("//" in host or (":" in host.strip("[]") and host.count(":") == 1)):
        plain = host.rpartition("//")[2].rstrip("/")
        name, _, port = plain.partition(":")
        zh = f"Modbus 只填 IP 或主机名：{name}" + (f"，端口 {port} 填在“端口”列" if port else "")
        en = f"for Modbus write the IP address or name alone: {name}" + (f", and {port} under port" if port else "")
        yield "host", repr(host), zh, en
    unit = values.get("unit_id")
    if unit is not None and not 0 <= unit <= 255:
        yield (
            "unit_id",
            str(unit),
            "站号为 0 至 255（串行总线 1 至 247）",
            "a unit id is 0 to 255 (1 to 247 on a serial line)",
        )
    for key in ("baud", "parity", "stop"):
        if key in filled and "serial" not in filled and protocol == "modbus":
            yield key, "", "只用于填写了“串口”的设备；请清空", "is for devices on a serial port only: clear this cell"
    number = values.get("port")
    if number is not None and not 1 <= number <= 65535:
        yield "port", str(number), "端口为 1 至 65535", "a port is 1 to 65535"
    for key, other in (("certificate", "key"), ("key", "certificate")):
        if other in filled and key not in filled:
            yield key, "", f"与 {other} 须同时填写，或两者都留空", f"goes with {other}: write both or neither"
    yield from _foreign(protocol, filled)


def _serial(values: Values, filled: set[str]) -> Iterator[Finding]:
    """A device on a serial port of the gateway."""
    port = values.get("serial")
    if port is not None and not str(port).startswith("/dev/"):
        yield (
            "serial", repr(port), "串口请写设备文件，最好是 /dev/serial/by-id/ 下的名称",
            "write the port's device file, best its name under /dev/serial/by-id/",
        )  # fmt: skip
    for key in ("host", "port", "transport"):
        if key in filled:
            yield key, "", "填写了串口，此处请留空", "leave it empty: the device is on a serial port"


def _foreign(protocol: Any, filled: set[str]) -> Iterator[Finding]:
    for column in _FOREIGN.get(protocol, ()):
        if column.key in filled:
            other = "Modbus" if column.protocol == "modbus" else "OPC UA"
            yield (
                column.key, "", f"“{column.zh}”只用于 {other} 设备；请清空", f"{column.en} is for {other} devices only: clear this cell"
            )  # fmt: skip


def check_point(values: Values, filled: set[str], protocol: Any) -> Iterator[Finding]:
    """The mistakes of a point's row."""
    if "name" not in filled:
        yield "name", "", "请填写信号名，如 cycle/last_time", "write the signal's name, such as cycle/last_time"
    yield from _foreign(protocol, filled - {"unit_id"})
    if protocol == "opcua":
        yield from _one_of(filled, "node", "path", "请填写“节点”或“浏览路径”", "write a node or a browse path")
    elif protocol == "modbus":
        yield from _modbus(values, filled)
    yield from _units(values)
    yield from _meaning(values, filled)


def _one_of(filled: set[str], first: str, second: str, zh: str, en: str) -> Iterator[Finding]:
    if (first in filled) == (second in filled):
        both = first in filled
        yield (
            second if both else first,
            "",
            zh + ("，只填其一" if both else ""),
            en + (", one of the two" if both else ""),
        )


def _modbus(values: Values, filled: set[str]) -> Iterator[Finding]:
    yield from _one_of(
        filled, "address", "number", "请填写“地址（从0起）”或“编号（从1起）”", "write an address (from 0) or a number (from 1)"
    )  # fmt: skip
    if "table" not in filled:
        yield (
            "table",
            "",
            "请填写寄存器区：holding、input、coil 或 discrete",
            "write the table: holding, input, coil or discrete",
        )
    table, kind = values.get("table"), values.get("data_type")
    if table in ("coil", "discrete") and kind not in (None, "bool", "uint16"):
        yield (
            "data_type",
            repr(kind),
            "线圈和离散输入只有一位；请填写 bool",
            "a coil or discrete input is one bit: write bool",
        )
    if table in ("holding", "input") and kind == "bool":
        yield (
            "data_type",
            "'bool'",
            "寄存器有 16 位；请填写 uint16，并在“位”填写位号",
            "a register has 16 bits: write uint16, and the bit under bit",
        )
    length = values.get("length")
    if kind in ("string", "bytes") and "length" not in filled:
        yield "length", "", f"{kind} 请填写寄存器个数", f"a {kind} needs its length in registers"
    if length is not None and not 1 <= length <= 125:
        yield "length", str(length), "寄存器个数为 1 至 125", "a length is 1 to 125 registers"
    number, address = values.get("number"), values.get("address")
    if number is not None and not 1 <= number <= 65536:
        yield "number", str(number), "编号从 1 起，最大 65536", "a number is 1 to 65536"
    if address is not None and address > 65535:
        yield "address", str(address), "地址最大为 65535", "an address is at most 65535"


def _units(values: Values) -> Iterator[Finding]:
    known: dict[str, units.Unit] = {}
    for key in ("unit", "source_unit"):
        text = values.get(key)
        if text is None:
            continue
        try:
            known[key] = units.resolve(text)
        except units.UnitError as error:
            ambiguous = units.AMBIGUOUS.get(units.normalise(text))
            zh = chinese(of_error(error))
            if ambiguous:
                zh = f"单位有多种含义；请写成 {' 或 '.join(map(chinese, ambiguous))}"
            yield key, repr(text), zh, str(error)
    if len(known) == 2:
        try:
            units.conversion(known["source_unit"], known["unit"])
        except units.UnitError as error:
            yield (
                "source_unit",
                shown(values["source_unit"]),
                f"与单位 {values['unit']} 不是同一种量（{chinese(of_error(error))}）",
                str(error),
            )


def _meaning(values: Values, filled: set[str]) -> Iterator[Finding]:
    kind = values.get("kind")
    if kind == "counter" and "counts" not in filled:
        yield "counts", "", "计数器请填写计数内容，如 good part", "a counter needs what it counts, such as good part"
    counting = {"per_count", "modulus", "resets_on", "may_decrease", "max_rate"} & filled
    if counting and "counts" not in filled and kind != "counter":
        yield (
            "counts",
            "",
            "填写了计数器的列，还须填写计数内容",
            "columns of a counter are filled: write what it counts as well",
        )
    if ("low" in filled) != ("high" in filled):
        yield ("high" if "low" in filled else "low"), "", "上限和下限请都填写", "write both low and high"
    low, high = values.get("low"), values.get("high")
    if low is not None and high is not None and not low < high:
        yield "high", shown(high), f"上限须大于下限 {low:g}", f"high is above low ({low:g})"
    if "percent" in values.get("deadband", {}) and not {"low", "high"} <= filled:
        yield "deadband", "", "百分比死区需要上限和下限", "a deadband in percent needs low and high"
    if {"bit", "bits"} <= filled:
        yield "bits", "", "“位”和“位段”只填其一", "write bit or bits, one of the two"
    bit = values.get("bit")
    if bit is not None and not 0 <= bit <= 63:
        yield "bit", str(bit), "位号为 0 至 63", "a bit is 0 to 63"
