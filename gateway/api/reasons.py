"""Why a device is not connected, for operators: the short words of the adapters' errors and ours, with a text and a fix."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.api.language import Words


class Reason(NamedTuple):
    """What it means, and what a person can do."""

    text: Words
    fix: Words


COLLECTOR_SILENT: Final = "collector_silent"
NEVER_HEARD: Final = "never_heard"
RETIRED: Final = "retired"

_WAIT: Final = Words("Nothing to do: the gateway connects again by itself.", "无需处理：网关会自动重新连接。")
_CABLE: Final = Words(
    "Check that the device is on, the network cable, the switch, and the address.",
    "请检查设备是否通电、网线与交换机是否正常、地址是否正确。",
)
_NAME: Final = Words("Write the device's IP address, or check the DNS server.", "请改写为设备的 IP 地址，或检查 DNS。")
_CERTIFICATE: Final = Words(
    "Accept the gateway's certificate in the server (move it from rejected to trusted); check its dates and both clocks.",
    "请在服务器中信任网关证书（由“已拒绝”移到“受信任”），并检查证书有效期与双方时间。",
)
_MASTERS: Final = Words(
    "Another master may use the device: many permit only one to four connections.",
    "可能有其他主站占用：许多设备只允许 1 至 4 个连接。",
)

_REASONS: Final[dict[str, Reason]] = {
    COLLECTOR_SILENT: Reason(
        Words("Nothing is heard from the collector of this device; nobody knows how it is.", "采集进程没有消息，设备状态未知。"),
        Words(
            "See whether the role collect runs (`guantong ledger`, its log) and reaches the broker.",
            "请检查 collect 进程是否运行（guantong ledger 与日志），以及能否连接 MQTT 代理。",
        ),
    ),
    NEVER_HEARD: Reason(
        Words("The device is configured, and has not been heard of yet.", "设备已配置，但尚未收到任何消息。"),
        Words("Wait for the first connection; `guantong check` reaches each device.", "请等待首次连接；可用 guantong check 检查设备。"),
    ),
    RETIRED: Reason(
        Words("The device is not configured any more.", "设备已从配置中移除。"),
        Words("Nothing to do; its history stays.", "无需处理；历史数据仍保留。"),
    ),
    "reconfigured": Reason(
        Words("Its configuration was changed; the link is begun anew.", "配置已更改，正在重新建立链路。"), _WAIT
    ),
    "timeout": Reason(Words("No answer in time.", "应答超时。"), _CABLE),
    "refused": Reason(
        Words("The connection is refused: nothing listens there.", "连接被拒绝：该地址没有服务监听。"),
        Words("Check that the server runs and that host and port are right.", "请检查服务是否运行、主机与端口是否正确。"),
    ),
    "reset": Reason(Words("The connection broke while it was opened.", "建立连接时被中断。"), _MASTERS),
    "closed": Reason(Words("The device ended the connection.", "设备关闭了连接。"), _MASTERS),
    "unreachable": Reason(
        Words("There is no way to the device in the network.", "网络不可达。"),
        Words("Check the cable, the IP address, the network mask and the route.", "请检查网线、IP 地址、子网掩码与路由。"),
    ),
    "open_failed": Reason(Words("The connection could not be opened.", "无法建立连接。"), _CABLE),
    "host_unknown": Reason(Words("The host name is not known.", "主机名无法解析。"), _NAME),
    "dns": Reason(Words("The host name has no address.", "主机名无法解析。"), _NAME),
    "not_connected": Reason(Words("The link is not open.", "链路未连接。"), _WAIT),
    "connection_lost": Reason(Words("The connection broke.", "连接中断。"), _CABLE),
    "no_answer": Reason(
        Words("The connection stands, but the device does not answer.", "连接正常，但设备没有应答。"),
        Words(
            "Check the unit's power, wiring (A and B), address and baud rate.", "请检查站点的电源、接线（A/B）、站号和波特率。"
        ),
    ),
    "gateway_no_answer": Reason(
        Words("The serial server works; the unit behind it does not answer.", "串口服务器正常，其后的站点没有应答。"),
        Words(
            "Check the unit's power, wiring (A and B), address and baud rate.", "请检查站点的电源、接线（A/B）、站号和波特率。"
        ),
    ),
    "certificate_untrusted": Reason(
        Words("The server does not trust the gateway's certificate.", "服务器不信任网关证书。"), _CERTIFICATE
    ),
    "certificate_rejected": Reason(
        Words("The server rejects the gateway's certificate.", "服务器拒绝网关证书。"), _CERTIFICATE
    ),
    "certificate_invalid": Reason(Words("A certificate is not valid.", "证书无效。"), _CERTIFICATE),
    "certificate_missing": Reason(Words("A certificate is missing.", "缺少证书。"), _CERTIFICATE),
    "identity_rejected": Reason(
        Words("The server rejects the user.", "服务器拒绝该用户。"),
        Words("Check `user` and `password`.", "请检查 user 与 password。"),
    ),
    "access_denied": Reason(
        Words("The user lacks the right to read.", "用户没有读取权限。"),
        Words("Give the user read access in the server.", "请在服务器中授予读取权限。"),
    ),
    "security_mismatch": Reason(
        Words("The server does not offer this security policy and mode.", "服务器不提供该安全策略与模式。"),
        Words("Set `security:` to one that the server offers.", "请将 security 改为服务器支持的组合。"),
    ),
    "too_many_sessions": Reason(
        Words("The server has no session free.", "服务器会话数已满。"),
        Words("Close unused clients, or raise the server's limit.", "请关闭不用的客户端，或提高服务器上限。"),
    ),
    "too_many_subscriptions": Reason(
        Words("The server allows no further subscription.", "服务器订阅数已满。"),
        Words("Use fewer groups on this link, or raise the server's limit.", "请减少该连接上的分组，或提高服务器上限。"),
    ),
    "session_lost": Reason(Words("The server has ended the session.", "服务器已结束会话。"), _WAIT),
    "server_shutdown": Reason(Words("The server is shutting down.", "服务器正在停机。"), _WAIT),
    "server_busy": Reason(
        Words("The server is overloaded.", "服务器过载。"),
        Words("Use longer periods or fewer signals if this stays.", "若持续出现，请加大采集周期或减少点位。"),
    ),
    "server_fault": Reason(
        Words("The server reports a fault.", "服务器报告故障。"),
        Words("Look into the server's log if it stays.", "若持续出现，请查看服务器日志。"),
    ),
    "endpoint_unknown": Reason(
        Words("The server does not know this endpoint.", "服务器没有该端点。"),
        Words("Copy the endpoint URL, with its path, from the server's settings.", "请从服务器设置中复制完整的端点 URL。"),
    ),
    "too_large": Reason(Words("The server refused the size of a request.", "服务器拒绝了过大的请求。"), _WAIT),
    "protocol_error": Reason(
        Words("The answer is not of the protocol that was expected.", "应答不符合协议规范。"),
        Words("Check that host and port belong to a server of this protocol.", "请确认主机与端口属于该协议的服务器。"),
    ),
    "service_unsupported": Reason(
        Words("The server lacks a service that is needed.", "服务器不支持所需服务。"),
        Words("Check the server's version and licence.", "请检查服务器版本与授权。"),
    ),
}  # fmt: skip

_OTHER_FIX: Final = Words("See the log of the role collect.", "请查看 collect 的日志。")


def explain(reason: str) -> Reason:
    """What a reason means; one that is not listed stands for itself."""
    return _REASONS.get(reason) or Reason(Words(reason or "not connected", reason or "未连接"), _OTHER_FIX)
