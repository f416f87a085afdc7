"""The columns of a point table: headings in Chinese and English with what else people write, and what a cell may hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from schemas.modbus import LAYOUTS, LongOrder, ModbusType
from schemas.model import Kind, Text, ValueType

CellKind = Literal[
    "id", "signal", "text", "code", "node", "path", "int", "register", "number", "duration", "choice", "bool",
    "enum", "pairs", "deadband", "sentinels", "bits", "resets", "fields", "words", "factor", "selector", "ratios",
]  # fmt: skip
Choices = dict[str, tuple[str, ...]]
"""What is stored -> what else is understood."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `key` is unique over both sheets, `protocol` names the only protocol it is for."""

    key: str
    zh: str
    en: str
    kind: CellKind
    synonyms: tuple[str, ...] = ()
    choices: Choices = field(default_factory=dict)
    note: Text = field(default_factory=Text)
    protocol: Literal["", "modbus", "opcua"] = ""
    width: int = 12

    def heading(self, language: str) -> str:
        """What stands in the first row."""
        return self.zh if language.startswith("zh") else self.en


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of the workbook."""

    key: Literal["devices", "points"]
    zh: str
    en: str
    synonyms: tuple[str, ...]
    columns: tuple[Column, ...]

    def title(self, language: str) -> str:
        """Its name in the workbook."""
        return self.zh if language.startswith("zh") else self.en


def _t(zh: str, en: str) -> Text:
    return Text(zh=zh, en=en)


_PROTOCOLS: Final[Choices] = {
    "opcua": ("opc ua", "opc-ua", "ua"),
    "modbus": ("modbus tcp", "modbustcp", "modbus-tcp", "modbus rtu"),
}
_TRANSPORTS: Final[Choices] = {
    "tcp": ("modbus tcp", "以太网"),
    "rtu-over-tcp": ("rtu over tcp", "rtu", "串口服务器", "透传"),
    "ascii-over-tcp": ("ascii over tcp", "ascii"),
    "udp": ("modbus udp",),
}
TABLES: Final[Choices] = {
    "holding": ("保持寄存器", "holding register", "holding registers", "4x", "03", "3", "fc3"),
    "input": ("输入寄存器", "input register", "input registers", "3x", "04", "4", "fc4"),
    "coil": ("线圈", "coils", "0x", "01", "1", "fc1"),
    "discrete": ("离散输入", "离散量输入", "discrete input", "discrete inputs", "1x", "02", "2", "fc2"),
}
_MODBUS_TYPES: Final[Choices] = {
    **dict.fromkeys(get_args(ModbusType), ()),
    "uint16": ("word", "u16", "ushort", "unsigned short", "无符号16位", "无符号16位整数", "16位无符号"),
    "int16": ("short", "i16", "s16", "有符号16位", "有符号16位整数", "16位有符号"),
    "uint32": ("dword", "u32", "ulong", "无符号32位", "无符号32位整数", "32位无符号"),
    "int32": ("dint", "i32", "s32", "long", "有符号32位", "有符号32位整数", "32位有符号"),
    "float32": ("float", "real", "f32", "single", "浮点", "浮点数", "单精度", "32位浮点"),
    "float64": ("double", "lreal", "f64", "双精度", "64位浮点"),
    "uint64": ("ulint", "lword", "u64", "无符号64位"),
    "int64": ("lint", "i64", "s64", "有符号64位"),
    "int8": ("i8", "s8", "sbyte", "有符号8位"),
    "uint8": ("byte", "u8", "无符号8位"),
    "bcd16": ("bcd", "bcd码", "16位bcd"),
    "bcd32": ("32位bcd", "双字bcd"),
    "datetime": ("时间", "日期时间", "date time", "timestamp"),
    "bool": ("bit", "boolean", "布尔", "开关量"),
    "string": ("字符串", "文本", "str"),
    "bytes": ("字节", "原始字节"),
}
_ORDERS: Final[Choices] = {
    "ABCD": ("1234", "大端", "big endian", "big-endian", "高字在前"),
    "CDAB": ("3412", "低字在前", "字交换", "word swap"),
    "BADC": ("2143", "字节交换", "byte swap"),
    "DCBA": ("4321", "小端", "little endian", "little-endian"),
    **dict.fromkeys(get_args(LongOrder), ()),
}
_PARITIES: Final[Choices] = {
    "N": ("无", "无校验", "none", "no"), "E": ("偶", "偶校验", "even"), "O": ("奇", "奇校验", "odd"),
}  # fmt: skip
REFERENCE: Final = "reference"
"""The column of numbers whose first digit names the table."""
_BYTES: Final[Choices] = {"low": ("低", "低字节", "lsb", "lo"), "high": ("高", "高字节", "msb", "hi")}
_PADDINGS: Final[Choices] = {
    "end": ("末尾", "尾部"), "nul": ("到nul为止", "c字符串", "c string"), "both": ("两端", "首尾"), "ff": ("0xff",),
}  # fmt: skip
_KINDS: Final[Choices] = {
    **dict.fromkeys(get_args(Kind), ()),
    "measurement": ("测量值", "测量", "模拟量"),
    "counter": ("计数器", "计数", "累计", "累计量"),
    "state": ("状态", "状态量"),
    "alarm": ("报警", "告警"),
    "setting": ("设定", "设定值", "参数"),
    "text": ("文本",),
    "record": ("记录",),
}
_VALUE_TYPES: Final[Choices] = {
    **dict.fromkeys(get_args(ValueType), ()),
    "bool": ("boolean", "布尔"),
    "float64": ("double", "lreal", "双精度"),
    "float32": ("float", "real", "single", "单精度"),
    "uint8": ("byte",),
    "int8": ("sbyte",),
    "string": ("字符串", "文本"),
    "datetime": ("utctime", "日期时间", "时间"),
}
_STORES: Final[Choices] = {"change": ("变化", "变化存储", "变化时"), "every": ("全部", "每次", "每次存储")}
_SECURITY: Final[Choices] = {
    "none": ("无", "不加密", "nosecurity"),
    "auto": ("自动",),
    "Basic256Sha256": (),
    "Aes128Sha256RsaOaep": (),
    "Aes256Sha256RsaPss": (),
}
_MODES: Final[Choices] = {"SignAndEncrypt": ("签名并加密", "签名和加密"), "Sign": ("签名",)}

DEVICE: Final = Column(
    "device", "设备编号", "device id", "id", ("设备", "设备id", "设备号", "设备编码", "device", "deviceid", "machine"),
    note=_t("小写字母、数字、- 和 _", "lower-case letters, digits, - and _"), width=16,
)  # fmt: skip

DEVICES: Final = Sheet(
    "devices", "设备", "devices", ("device", "设备表", "设备清单", "设备列表"),
    (
        DEVICE,
        Column("name_zh", "设备名称（中文）", "device name (zh)", "text", ("设备名称", "名称", "名称中文", "中文名称"), width=18),
        Column("name_en", "设备名称（英文）", "device name (en)", "text", ("device name", "名称英文", "英文名称", "name"), width=18),
        Column("link", "链路编号", "link id", "id", ("链路", "link", "连接", "通道", "channel"),
               note=_t("同一连接或串口上的设备填写相同编号；不填则按地址归并", "the same for devices on one connection or serial line; by address if empty")),
        Column("protocol", "协议", "protocol", "choice", ("通信协议", "通讯协议", "adapter", "驱动"), _PROTOCOLS),
        Column("host", "连接地址", "host", "code", ("ip", "ip地址", "主机", "endpoint", "服务器地址", "端点", "url", "设备地址", "connection"),
               note=_t("OPC UA：opc.tcp://IP:4840；Modbus：IP 或主机名", "OPC UA: opc.tcp://IP:4840; Modbus: IP or name"), width=30),
        Column("port", "端口", "port", "int", ("端口号", "tcp端口"), protocol="modbus"),
        Column("transport", "传输方式", "transport", "choice", ("传输", "模式"), _TRANSPORTS, protocol="modbus"),
        Column("serial", "串口", "serial port", "code", ("串口号", "串行口", "serial", "com"), protocol="modbus",
               note=_t("代替连接地址，如 /dev/serial/by-id/…（Modbus RTU）", "instead of a host, such as /dev/serial/by-id/… (Modbus RTU)"), width=26),
        Column("baud", "波特率", "baud rate", "int", ("baud", "速率"), protocol="modbus", note=_t("串口用；不填为 9600", "of a serial port; 9600 if empty")),
        Column("parity", "校验位", "parity", "choice", ("校验", "奇偶校验"), _PARITIES, protocol="modbus", note=_t("串口用；N 无、E 偶、O 奇；不填为 N", "of a serial port: N none, E even, O odd; N if empty")),
        Column("stop", "停止位", "stop bits", "int", ("stop",), protocol="modbus", note=_t("串口用；不填为 1", "of a serial port; 1 if empty")),
        Column("unit_id", "站号", "unit id", "int", ("从站地址", "从站号", "从站", "单元号", "unitid", "slave", "slave id", "station", "站地址"), protocol="modbus"),
        Column("security", "安全策略", "security policy", "choice", ("安全", "security"), _SECURITY, protocol="opcua", width=18),
        Column("mode", "安全模式", "security mode", "choice", ("消息安全模式",), _MODES, protocol="opcua"),
        Column("certificate", "证书文件", "certificate", "text", ("证书", "客户端证书"), protocol="opcua"),
        Column("key", "私钥文件", "private key", "text", ("私钥", "key"), protocol="opcua"),
        Column("server_certificate", "服务器证书文件", "server certificate", "text", ("服务器证书",), protocol="opcua"),
        Column("user", "用户名", "user", "text", ("用户", "username", "账号"), protocol="opcua"),
        Column("password_env", "密码的环境变量", "password variable", "code", ("密码变量", "password env"), protocol="opcua",
               note=_t("只填环境变量名，密码不写在表里", "the name of an environment variable; never the password itself")),
        Column("root", "根节点", "root", "text", ("根路径", "起始节点"), protocol="opcua"),
        Column("namespaces", "命名空间", "namespaces", "pairs", ("名称空间",), protocol="opcua",
               note=_t("浏览路径中的前缀，如 di=http://opcfoundation.org/UA/DI/", "prefixes of browse paths, such as di=http://opcfoundation.org/UA/DI/"), width=24),
        Column("ratio_values", "变比数值", "ratio values", "ratios", ("变比值", "互感器变比"), protocol="modbus",
               note=_t("点位或模板中变比名称的数值，如 ct=40; pt=1", "the numbers of the ratios that points or profile name, such as ct=40; pt=1"), width=14),
        Column("profile", "设备模板", "profile", "code", ("模板", "设备描述", "设备描述文件", "型号模板"), width=20),
        Column("asset", "资产编号", "asset", "id", ("资产", "所属资产", "assetid"), width=14),
    ),
)  # fmt: skip

POINTS: Final = Sheet(
    "points", "点位", "points", ("点表", "点位表", "信号", "signals", "point", "tags", "变量", "测点"),
    (
        DEVICE,
        Column("name", "信号名", "signal", "signal", ("信号", "信号名称", "点名", "点位名", "点位名称", "变量名", "标签", "标签名", "tag", "signal name", "point", "测点"),
               note=_t("小写，如 cycle/last_time", "lower case, such as cycle/last_time"), width=22),
        Column("description_zh", "说明（中文）", "description (zh)", "text", ("说明", "描述", "中文说明", "描述中文", "中文描述", "点位描述"), width=20),
        Column("description_en", "说明（英文）", "description (en)", "text", ("description", "英文说明", "描述英文", "英文描述"), width=20),
        Column("node", "节点", "node", "node", ("nodeid", "node id", "节点id", "节点号", "节点标识"), protocol="opcua",
               note=_t("ns=2;s=名称 或 nsu=URI;s=名称；与“浏览路径”二选一", "ns=2;s=NAME or nsu=URI;s=NAME; or a browse path instead"), width=34),
        Column("path", "浏览路径", "browse path", "path", ("路径", "path"), protocol="opcua", width=24),
        Column("sampling", "采样间隔", "sampling", "duration", ("采样周期", "sampling interval"), protocol="opcua"),
        Column("queue", "队列长度", "queue", "int", ("队列", "queue size"), protocol="opcua"),
        Column("table", "寄存器区", "table", "choice", ("寄存器类型", "区", "功能码", "function", "function code", "register type", "寄存器区域"), TABLES, protocol="modbus", width=14),
        Column("address", "地址（从0起）", "address (from 0)", "register", ("地址", "address", "寄存器地址", "register address", "register", "寄存器", "偏移地址", "地址从0开始", "协议地址", "wire address"),
               protocol="modbus", note=_t("报文中的地址，可写 0x1000 或 1000H", "as on the wire; 0x1000 and 1000H are understood")),
        Column("number", "编号（从1起）", "number (from 1)", "register", ("number", "寄存器编号", "编号", "地址从1起", "register number"),
               protocol="modbus", note=_t("手册上从 1 起的编号，不带 4x 前缀；与地址二选一", "as printed in manuals, from 1, without the 4x digit; or an address instead")),
        Column(REFERENCE, "4x编号", "4x number", "code", ("modicon", "modicon地址", "modicon address", "4xxxxx", "4x地址", "4x address"), protocol="modbus",
               note=_t("首位表示寄存器区的编号，如 40001、400001、30011；代替寄存器区和地址", "a number whose first digit is the table, such as 40001, 400001, 30011; instead of table and address")),
        Column("data_type", "寄存器数据类型", "data type", "choice", ("数据类型", "类型", "格式"), _MODBUS_TYPES, protocol="modbus", width=16),
        Column("order", "字节序", "byte order", "choice", ("字节顺序", "字序", "endian", "order", "word order"), _ORDERS, protocol="modbus"),
        Column("length", "寄存器个数", "length", "int", ("长度", "registers", "寄存器数"), protocol="modbus"),
        Column("byte", "高低字节", "byte of register", "choice", ("字节", "byte"), _BYTES, protocol="modbus",
               note=_t("int8、uint8 用：low 或 high", "for int8 and uint8: low or high")),
        Column("count", "数组个数", "array size", "int", ("数组长度", "count"), protocol="modbus",
               note=_t("连续多少个同类型数值，合为一个数组", "so many numbers of the type after each other make one array")),
        Column("encoding", "字符编码", "encoding", "code", ("编码",), protocol="modbus"),
        Column("padding", "填充字符", "padding", "choice", ("填充", "字符串填充"), _PADDINGS, protocol="modbus",
               note=_t("end 去掉末尾的空格和 NUL；nul 到第一个 NUL 为止；both 首尾都去；ff 连 0xFF 也去", "end: blanks and NULs at the end; nul: up to the first NUL; both: in front too; ff: 0xFF as well")),
        Column("layout", "时间格式", "date-time layout", "choice", ("日期时间格式", "layout"), dict.fromkeys(LAYOUTS, ()), protocol="modbus", width=14),
        Column("zone", "设备时区", "time zone", "code", ("时区", "zone"), protocol="modbus", note=_t("如 Asia/Shanghai；不填为 UTC", "such as Asia/Shanghai; UTC if empty"), width=14),
        Column("fields", "位字段", "named bits", "fields", ("命名位", "fields"), protocol="modbus",
               note=_t("如 running=0; mode=4,3（起始位,位数），合为一个对象", "such as running=0; mode=4,3 (first bit,number of bits), which make one object"), width=22),
        Column("atomic", "同时读取", "read together", "code", ("原子组", "atomic"), protocol="modbus",
               note=_t("写同一个词的点位来自同一个应答", "points with the same word come from one response")),
        Column("ratio", "变比名称", "ratios", "words", ("变比", "ct pt", "ratio"), protocol="modbus",
               note=_t("设备规则 ratios 中的名称，如 ct,pt", "names of the ratios in the device's rules, such as ct,pt")),
        Column("scale_by", "系数来源", "scaled by", "factor", ("倍率寄存器", "scale by"), protocol="modbus",
               note=_t("信号名，或如 holding 6 uint16 *0.1、input 49 int16 exponent", "a signal, or such as holding 6 uint16 *0.1, input 49 int16 exponent"), width=22),
        Column("select", "选择寄存器", "selector", "selector", ("选择", "select"), protocol="modbus",
               note=_t("读取前写入，如 0x200=3；须 writes: enabled", "written before the read, such as 0x200=3; needs writes: enabled")),
        Column("faults", "故障说明", "fault texts", "enum", ("故障值说明", "faults"), protocol="modbus",
               note=_t("故障值（十进制）的文字，如 32770=断线|Open circuit", "fault values (decimal) in words, such as 32770=断线|Open circuit"), width=24),
        Column("sentinels", "故障值", "fault values", "sentinels", ("无效值", "sentinels"), protocol="modbus",
               note=_t("如 0x7FFF=BadSensorFailure；多个用分号隔开", "such as 0x7FFF=BadSensorFailure; separated by semicolons"), width=18),
        Column("type", "信号类型", "signal type", "choice", ("值类型", "value type", "type"), _VALUE_TYPES),
        Column("unit", "单位", "unit", "code", ("工程单位", "units", "engineering unit"), width=9),
        Column("source_unit", "原始单位", "source unit", "code", ("设备单位",), width=9),
        Column("scale", "比例", "scale", "number", ("倍率", "系数", "缩放", "比例系数", "factor", "乘数"), width=9),
        Column("offset", "偏移", "offset", "number", ("偏移量", "加数"), width=9),
        Column("bit", "位", "bit", "int", ("位号", "bit number"), width=6),
        Column("bits", "位段", "bits", "bits", ("位域",), note=_t("起始位,位数，如 4,3", "first bit,number of bits, such as 4,3"), width=8),
        Column("kind", "类别", "kind", "choice", ("信号类别", "点类型", "种类"), _KINDS),
        Column("counts", "计数内容", "counts", "text", ("计数对象",), note=_t("类别为计数器时必填，如 good part", "required for a counter, such as good part")),
        Column("per_count", "每计数当量", "per count", "number", ("脉冲当量",)),
        Column("modulus", "翻转值", "modulus", "int", ("回绕值", "rollover")),
        Column("resets_on", "清零条件", "resets on", "resets", ("清零",), note=_t("job, shift, power, operator", "job, shift, power, operator")),
        Column("may_decrease", "可减少", "may decrease", "bool", ()),
        Column("max_rate", "最大速率", "max rate", "number", ("最大增速",)),
        Column("low", "下限", "low", "number", ("量程下限", "最小值", "min", "minimum", "range low"), width=9),
        Column("high", "上限", "high", "number", ("量程上限", "最大值", "max", "maximum", "range high"), width=9),
        Column("deadband", "死区", "deadband", "deadband", ("变化阈值",), note=_t("如 0.5 或 1%", "such as 0.5 or 1%"), width=9),
        Column("enum", "枚举", "enumeration", "enum", ("枚举值", "enum", "取值"), note=_t("如 0=停止|Stopped; 1=运行|Running", "such as 0=停止|Stopped; 1=运行|Running"), width=26),
        Column("silence", "最长静默", "silence", "duration", ()),
        Column("store", "存储", "store", "choice", ("存储方式",), _STORES),
        Column("group", "采集组", "group", "code", ("组", "扫描组", "scan group")),
        Column("period", "采集周期", "period", "duration", ("周期", "扫描周期", "采集间隔", "周期s", "interval", "scan period"),
               note=_t("如 500ms、1s；同组相同", "such as 500ms, 1s; one for a group")),
        Column("signal_asset", "信号所属资产", "signal asset", "id", ("信号资产",)),
        Column("semantic_id", "语义编号", "semantic id", "text", ("语义id",)),
    ),
)  # fmt: skip

SHEETS: Final = (DEVICES, POINTS)
IGNORED: Final = frozenset({"备注", "序号", "no", "remark", "remarks", "note", "notes", "编辑人", "comment", "index"})
"""Headings that people add for themselves."""

_DROP: Final = re.compile(r"[\s()\[\]{}:;,_\-/.·、，*#'\"“”<>《》|=]+")


def folded(text: str) -> str:
    """A heading as it is compared: no width, case, blanks, brackets and punctuation."""
    return _DROP.sub("", unicodedata.normalize("NFKC", text).casefold())


def by_heading(columns: Sequence[Column]) -> dict[str, Column]:
    """Folded heading or synonym -> column; the first column that claims a word has it."""
    found: dict[str, Column] = {}
    for column in columns:
        for text in (column.zh, column.en, column.key):
            found.setdefault(folded(text), column)
    for column in columns:
        for text in column.synonyms:
            found.setdefault(folded(text), column)
    return found


COMBINED: Final = (*DEVICES.columns, *POINTS.columns[1:])
"""The columns of a table in one file: a row is a point with its device."""
