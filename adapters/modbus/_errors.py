"""What goes wrong with a Modbus link or unit, in words that help: reason, English and Chinese fix."""

from __future__ import annotations

import errno
import re
import socket

from adapters.contract import ConfigError, TransientError
from adapters.modbus._settings import ModbusLinkSettings
from schemas.bilingual import Bilingual, chinese

NO_ANSWER_FIX_EN = "Check that the device is on, its unit number, and on a serial line the wiring (A and B), baud rate, parity and termination."
NO_ANSWER_FIX_ZH = "请检查设备是否通电、站号是否正确；串行总线还要检查接线（A/B）、波特率、校验位和终端电阻。"
GATEWAY_FIX_EN = (
    "The gateway answers, the unit behind it does not: check the unit's power, wiring, number and baud rate."
)
GATEWAY_FIX_ZH = "网关有应答，但其后的站点无应答：请检查该站点的电源、接线、站号和波特率。"


def _place(settings: ModbusLinkSettings) -> str:
    return settings.place


def not_connected(settings: ModbusLinkSettings) -> TransientError:
    """A request without a link."""
    return TransientError(
        Bilingual(f"{_place(settings)}: the link is not open", f"{_place(settings)}：链路未打开"),
        reason="not_connected",
        fix_en="Wait until the link is connected; its state says why it is not.",
        fix_zh="请等待链路连接；未连接的原因见链路状态。",
    )


def closed_by_peer(settings: ModbusLinkSettings, why: str) -> TransientError:
    """The peer ended the connection."""
    return TransientError(
        Bilingual(f"{_place(settings)}: connection lost: {why}", f"{_place(settings)}：连接中断：{chinese(why)}"),
        reason="closed",
        fix_en="The device may have restarted. If it happens again and again, another master may use it: many devices permit only one "
        "to four connections.",
        fix_zh="设备可能刚重启。如反复出现，可能有其他主站占用：许多设备只允许 1 至 4 个连接。",
    )


def no_answer(settings: ModbusLinkSettings, units: int) -> TransientError:
    """The connection stands, and nobody on it answers."""
    who = Bilingual(f"none of {units} units answers", f"{units} 个站点均无应答")
    if units == 1:
        who = Bilingual("the unit does not answer", "站点无应答")
    framing = (
        ("rtu-over-tcp", "RTU over TCP") if settings.transport == "tcp" else ("tcp", "Modbus TCP")
    )  # the other one, a common mistake
    other = Bilingual(
        f" If none has ever answered, try `transport: {framing[0]}`: the other end may speak {framing[1]}.",
        f"如果从未有过应答，请试 `transport: {framing[0]}`：对端可能使用 {framing[1]}。",
    )
    if settings.serial is not None:
        setting = f"{settings.baud} {settings.bits}{settings.parity}{settings.stop}"
        other = Bilingual(
            f" This port is set to {setting}; `guantong discover modbus --serial {settings.serial}` tries the usual settings.",
            f"本串口参数为 {setting}；可用 `guantong discover modbus --serial {settings.serial}` 逐一尝试常用参数。",
        )
    return TransientError(
        Bilingual(f"{_place(settings)}: connected, but {who}", f"{_place(settings)}：已连接，但{chinese(who)}"),
        reason="no_answer",
        fix_en=f"{NO_ANSWER_FIX_EN}{other}",
        fix_zh=f"{NO_ANSWER_FIX_ZH}{chinese(other)}",
    )


class ForeignMasterError(TransientError):
    """Somebody else asks on this serial line."""

    def __init__(self, path: str, heard: int) -> None:
        super().__init__(
            Bilingual(
                f"{path}: {heard} bytes were heard that nobody here asked for: another master speaks on this line",
                f"{path}：收到 {heard} 个并非本机请求的字节：总线上有其他主站在通信",
            ),
            reason="foreign_master",
            fix_en="A serial line bears one master. Stop the other one (panel, PLC, serial server), or give the gateway a line of its own.",
            fix_zh="串行总线上只能有一个主站。请先停用另一个主站（触摸屏、PLC、串口服务器），或改接独立的总线。",
        )


def unit_silent(settings: ModbusLinkSettings, unit: int) -> TransientError:
    """A unit that was asked once, beside the schedule, and did not answer."""
    return TransientError(
        Bilingual(f"{_place(settings)}: unit {unit} does not answer", f"{_place(settings)}：站号 {unit} 无应答"),
        reason="no_answer",
        fix_en=NO_ANSWER_FIX_EN,
        fix_zh=NO_ANSWER_FIX_ZH,
    )


def open_failed(settings: ModbusLinkSettings, error: OSError | None) -> TransientError:
    """The connection could not be opened; `error` None means that nobody answered in time."""
    place = _place(settings)
    if error is None or isinstance(error, TimeoutError):
        return TransientError(
            Bilingual(
                f"{place}: no connection within {settings.timeout:g} s", f"{place}：{settings.timeout:g} 秒内未能连接"
            ),
            reason="timeout",
            fix_en="Check that the device is on, the network cable, and the address.",
            fix_zh="请检查设备是否通电、网线是否连接、地址是否正确。",
        )
    if isinstance(error, socket.gaierror):
        return TransientError(
            Bilingual(
                f"{place}: the name {settings.host!r} is not known: {error.strerror or error}",
                f"{place}：无法解析主机名 {settings.host!r}：{error.strerror or error}",
            ),
            reason="host_unknown",
            fix_en="Correct `host`, or write the device's IP address.",
            fix_zh="请更正 `host`，或直接填写设备的 IP 地址。",
        )
    number = _number(error)
    if number == errno.ECONNREFUSED:
        return TransientError(
            Bilingual(f"{place}: the connection was refused", f"{place}：连接被拒绝"),
            reason="refused",
            fix_en="Check `port` (502 is usual) and that Modbus TCP is switched on in the device; it may also be at its number of connections.",
            fix_zh="请检查 `port`（一般为 502），并确认设备已启用 Modbus TCP；也可能已达到最大连接数。",
        )
    if isinstance(error, ConnectionError) or number in (errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE):
        return TransientError(
            Bilingual(
                f"{place}: the connection broke while it was opened: {error}", f"{place}：建立连接时被中断：{error}"
            ),
            reason="reset",
            fix_en="Another master may use the device: many permit only one to four connections.",
            fix_zh="可能有其他主站占用设备：许多设备只允许 1 至 4 个连接。",
        )
    unreachable = number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
    what = str(error.strerror or error)
    told = Bilingual(what, f"网络不可达（{what}）" if unreachable else f"无法打开连接（{what}）")
    return TransientError(
        Bilingual(f"{place}: {told}", f"{place}：{chinese(told)}"),
        reason="unreachable" if unreachable else "open_failed",
        fix_en="Check address, network mask and route of this gateway and of the device.",
        fix_zh="请检查网关与设备的 IP 地址、子网掩码和路由。",
    )


def _number(error: OSError) -> int | None:
    """The errno, also of the error in which asyncio gathers those of a name's several addresses."""
    if error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]", str(error))
    return int(found[1]) if found else None


def bad_unit(device: str, unit: int) -> ConfigError:
    """A unit number that no serial line has."""
    return ConfigError(
        Bilingual(
            f"device {device}: unit {unit} cannot be asked on a serial line; 0 is the broadcast, which nobody answers",
            f"设备 {device}：串行总线上不能访问站号 {unit}；0 为广播，无人应答",
        ),
        reason="unit",
        fix_en="Write the station number that is set at the device, 1 to 247.",
        fix_zh="请填写设备上设置的站号（1 至 247）。",
    )


def bad_model(what: str, found: object, expected: type) -> ConfigError:
    """Settings, rules or an address of another adapter."""
    return ConfigError(
        Bilingual(
            f"{what}: found {type(found).__name__}, expected {expected.__name__}",
            f"{what}：发现 {type(found).__name__}，应为 {expected.__name__}",
        ),
        reason="model",
        fix_en="Validate the configuration with the models of the modbus adapter.",
        fix_zh="请使用 modbus 适配器的模型校验配置。",
    )


def no_browse() -> ConfigError:
    """Modbus has no address space to look at."""
    return ConfigError(
        Bilingual(
            "Modbus devices cannot be browsed: the protocol has no description of its registers",
            "Modbus 设备无法浏览：该协议不提供寄存器说明",
        ),
        reason="not_browsable",
        fix_en="Take the register map from the device's manual, or a profile.",
        fix_zh="请从设备手册或设备描述文件（profile）获取寄存器表。",
    )


def unknown_points(points: object) -> ConfigError:
    """A read of points that are not of one device of this link."""
    return ConfigError(
        Bilingual(f"points {points} are not of one device of this link", f"点 {points} 不属于本链路的同一个设备"),
        reason="points",
        fix_en="Read the points of one device at a time.",
        fix_zh="每次只能读取一个设备的点。",
    )
