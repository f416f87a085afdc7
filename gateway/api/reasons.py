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
_DIAGNOSTICS: Final = Words("Look into the server's own diagnostics.", "请查看服务器自身的诊断信息。")
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
    "server_certificate_untrusted": Reason(
        Words("The server's certificate is not trusted yet.", "服务器证书尚未受信任。"),
        Words(
            "Compare its fingerprint with the one that the server shows, then trust it: `guantong certs list`, `guantong certs trust`.",
            "请与服务器上显示的指纹核对，然后信任它：guantong certs list，guantong certs trust。",
        ),
    ),
    "server_certificate_changed": Reason(
        Words("The server shows another certificate than before.", "服务器证书与之前的不同。"),
        Words(
            "Find out why; if it is right, trust the new one with `guantong certs trust`, or set `server_certificate` anew.",
            "请查明原因；确认无误后用 guantong certs trust 信任新证书，或更新 server_certificate。",
        ),
    ),
    "server_certificate_invalid": Reason(
        Words("What the server shows as its certificate cannot be used.", "服务器出示的证书无法使用。"),
        Words("Make the server's certificate anew.", "请在服务器上重新生成证书。"),
    ),
    "security_downgrade": Reason(
        Words("The server no longer offers the protection that was agreed on.", "服务器不再提供先前约定的安全保护。"),
        Words(
            "Find out who changed the server's security, or who answers in its place; if it is meant: `guantong certs unpin LINK`.",
            "请查明是谁更改了服务器的安全设置，或是否有人冒充服务器；若属有意更改：guantong certs unpin LINK。",
        ),
    ),
    "security_none_offered": Reason(
        Words("The server offers no protection that counts.", "服务器未提供有效的安全保护。"),
        Words(
            "Switch Basic256Sha256 or better on in the server, or write `security: none`.",
            "请在服务器上启用 Basic256Sha256 或更强的策略，或写 security: none。",
        ),
    ),
    "discovery_tampered": Reason(
        Words("Somebody between gateway and server changes messages.", "网关与服务器之间有人篡改报文。"),
        Words("Look at the network between them.", "请检查两者之间的网络。"),
    ),
    "pki_unusable": Reason(
        Words("The gateway's own folder of certificates cannot be used.", "网关自己的证书文件夹无法使用。"),
        Words(
            "The folder `pki` in data_dir must be writable for the gateway's user; the log says more.",
            "data_dir 下的 pki 文件夹须对网关用户可写；详见日志。",
        ),
    ),
    "password_in_clear": Reason(
        Words("The server takes the password only unprotected, so it was not sent.", "服务器只接收未加密的密码，因此未发送。"),
        Words(
            "Use a protected channel (`security: auto`), or have the server encrypt passwords.",
            "请使用加密连接（security: auto），或在服务器上启用密码加密。",
        ),
    ),
    "identity_unsupported": Reason(
        Words("The server does not let anybody sign in this way.", "服务器不支持这种登录方式。"),
        Words(
            "Set `user` and `password`, `user_certificate`, or neither, as the server offers.",
            "请按服务器支持的方式设置 user/password、user_certificate 或匿名。",
        ),
    ),
    "gateway_clock_wrong": Reason(
        Words("The gateway's clock is wrong, so that a certificate's dates do not fit.", "网关时钟有误，证书日期因此不符。"),
        Words("Set the gateway's clock; nothing is wrong with the certificate.", "请校准网关时钟；证书本身没有问题。"),
    ),
    "server_certificate_expired": Reason(
        Words("The server's certificate has expired.", "服务器证书已过期。"),
        Words(
            "Renew it in the server and trust the new one; until then `security: {accept: [expired]}`.",
            "请在服务器上更新证书并重新信任；在此之前可写 security: {accept: [expired]}。",
        ),
    ),
    "server_certificate_not_yet_valid": Reason(
        Words("The server's certificate is not valid yet.", "服务器证书尚未生效。"),
        Words("Check both clocks; make the certificate anew if the machine's was wrong.", "请检查双方时钟；若设备时钟曾有误，请重新生成证书。"),
    ),
    "server_certificate_uri": Reason(
        Words("The application URI in the server's certificate is not the server's.", "服务器证书中的应用程序 URI 与服务器不符。"),
        Words(
            "Make the certificate anew; or `security: {accept: [application_uri]}`.",
            "请重新生成证书；或写 security: {accept: [application_uri]}。",
        ),
    ),
    "server_certificate_host": Reason(
        Words("The server's certificate is made for another host.", "服务器证书适用于其他主机。"),
        Words(
            "Write its host name in `endpoint`, or trust the certificate by itself: `guantong certs trust`.",
            "请在 endpoint 中使用证书内的主机名，或单独信任该证书：guantong certs trust。",
        ),
    ),
    "server_certificate_weak": Reason(
        Words("The server's certificate is too weak.", "服务器证书强度不足。"),
        Words(
            "Make it anew with an RSA key of 2048 bits and SHA-256; or `security: {accept: [weak]}`.",
            "请用 2048 位 RSA 密钥与 SHA-256 重新生成；或写 security: {accept: [weak]}。",
        ),
    ),
    "server_certificate_revoked": Reason(
        Words("The server's certificate was revoked by its authority.", "服务器证书已被颁发机构吊销。"),
        Words("Ask whoever runs the authority.", "请联系证书颁发机构管理员。"),
    ),
    "revocation_unknown": Reason(
        Words("There is no revocation list of the authority.", "没有该颁发机构的吊销列表。"),
        Words(
            "Take it in with `guantong certs trust FILE.crl`; or `security: {accept: [revocation_unknown]}`.",
            "请执行 guantong certs trust 文件.crl；或写 security: {accept: [revocation_unknown]}。",
        ),
    ),
    "channel_refused": Reason(
        Words(
            "The server refuses the secure channel: most likely it does not trust the gateway's certificate.",
            "服务器拒绝建立安全通道：很可能不信任网关证书。",
        ),
        _CERTIFICATE,
    ),
    "server_failed": Reason(Words("The server says of itself that it has failed.", "服务器自报故障。"), _DIAGNOSTICS),
    "server_no_configuration": Reason(
        Words("The server says that it has no configuration.", "服务器自报没有配置。"), _DIAGNOSTICS
    ),
    "server_suspended": Reason(Words("The server says that it is suspended.", "服务器自报已暂停。"), _DIAGNOSTICS),
    "server_communication_fault": Reason(
        Words("The server cannot reach the machine behind it.", "服务器自报与其后的设备通信故障。"), _DIAGNOSTICS
    ),
    "root_not_found": Reason(
        Words("The device's root is not found in the server.", "在服务器中找不到该设备的根节点。"),
        Words(
            "Look with `guantong browse` how the server names this machine, and set `root:` in the device's settings.",
            "请用 guantong browse 确认服务器对该设备的命名，并在设备设置中填写 root。",
        ),
    ),
    "root_ambiguous": Reason(
        Words("The device's root fits several nodes of the server.", "设备的根节点在服务器中匹配到多个节点。"),
        Words("Set `root:` in the device's settings to one of them.", "请在设备设置中将 root 设为其中之一。"),
    ),
    "subscription_lost": Reason(
        Words("The server ends the subscription again and again.", "服务器反复结束订阅。"),
        Words("Look into the server's log; use longer periods or fewer signals.", "请查看服务器日志；并加大周期或减少点位。"),
    ),
    "subscription_silent": Reason(
        Words("The server no longer sends anything of a subscription.", "服务器不再发送订阅消息。"), _WAIT
    ),
    "service_level_low": Reason(
        Words("The server says of itself that it is not healthy.", "服务器自述状态不健康。"),
        Words(
            "Look into the server's own diagnostics; the gateway takes a better one of redundant servers by itself.",
            "请查看服务器自身的诊断信息；有更好的冗余服务器时网关会自动切换。",
        ),
    ),
    "connect_timeout": Reason(Words("The connection could not be made in time.", "未能及时建立连接。"), _CABLE),
    "link_ended": Reason(Words("The link ended without a reason.", "链路无故结束。"), _WAIT),
    "ended": Reason(Words("It ended without being asked to.", "意外结束。"), _WAIT),
    "garbled": Reason(
        Words("Bytes came, but no answer that can be read.", "收到字节，但无法识别为应答。"),
        Words("Check baud rate, parity, and that no two units have one number.", "请检查波特率、校验位，以及站号是否重复。"),
    ),
    "not_dialled_in": Reason(
        Words("The unit has not connected to the gateway.", "设备尚未接入网关。"),
        Words(
            "Check the gateway's address, the port and the registration in the unit, its SIM card, and the firewall.",
            "请检查设备中的网关地址、端口和注册包、SIM 卡以及防火墙。",
        ),
    ),
    "registration_taken": Reason(
        Words("Two links have the same registration.", "两条链路使用了相同的注册包。"),
        Words("Give each unit a registration of its own.", "请为每台设备设置不同的注册包。"),
    ),
    "listen_failed": Reason(
        Words("The gateway cannot listen on this port.", "网关无法监听该端口。"),
        Words("Choose a port that is free and not below 1024.", "请改用未被占用且不小于 1024 的端口。"),
    ),
    "foreign_master": Reason(
        Words("Another master speaks on this serial line.", "串行总线上有其他主站在通信。"),
        Words("A serial line bears one master: stop the other one.", "串行总线上只能有一个主站：请停用另一个主站。"),
    ),
    "unit": Reason(
        Words("This unit number cannot be asked on a serial line.", "串行总线上不能访问该站号。"),
        Words("Write the station number that is set at the device, 1 to 247.", "请填写设备上设置的站号（1 至 247）。"),
    ),
    "address_invalid": Reason(
        Words("An address is not valid.", "地址无效。"),
        Words("Correct the address in the profile or the device's settings.", "请修正模板或设备设置中的地址。"),
    ),
    "adapter_unknown": Reason(
        Words("No adapter is registered under this name.", "没有以此名称注册的适配器。"),
        Words("Correct `adapter:`, or install the package that brings it.", "请更正 adapter，或安装提供它的软件包。"),
    ),
    "adapter_broken": Reason(
        Words("The adapter cannot be imported.", "适配器无法导入。"),
        Words("Reinstall or remove the package that brings it.", "请重新安装或卸载提供它的软件包。"),
    ),
    "adapter_failed": Reason(
        Words("The adapter failed in a way that nobody expected.", "适配器发生意外错误。"),
        Words("See the log of the role collect, and report it to who made the adapter.", "请查看 collect 的日志，并反馈给适配器的提供方。"),
    ),
    "model": Reason(
        Words("Settings of another adapter.", "设置属于其他适配器。"),
        Words("Check the configuration with `guantong check`.", "请用 guantong check 检查配置。"),
    ),
    "link_broken": Reason(
        Words("The link has no usable settings.", "链路没有可用的设置。"),
        Words("Check the configuration with `guantong check`.", "请用 guantong check 检查配置。"),
    ),
}  # fmt: skip

_OTHER_FIX: Final = Words("See the log of the role collect.", "请查看 collect 的日志。")


def explain(reason: str) -> Reason:
    """What a reason means; one that is not listed stands for itself."""
    return _REASONS.get(reason) or Reason(Words(reason or "not connected", reason or "未连接"), _OTHER_FIX)
