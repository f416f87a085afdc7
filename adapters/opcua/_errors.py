"""What asyncua, the network and the server say, in the words of the contract: reason, and what a person can do, in English and Chinese."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from asyncua import ua
from cryptography.exceptions import InvalidSignature

from adapters.contract import AdapterError, AuthError, ConfigError, TransientError
from adapters.opcua._addresses import AddressError
from adapters.opcua._binary import DecodingError
from schemas import status
from schemas.bilingual import Bilingual, chinese, of_error


@dataclass(frozen=True, slots=True)
class _Meaning:
    """How a fault is told: `kind` says what the host may do; `retry_after` (s) only with `transient`."""

    kind: type[AdapterError]
    reason: str
    en: str
    zh: str
    retry_after: float | None = None


_TRUST: Final = _Meaning(
    AuthError, "certificate_untrusted",
    "The server does not trust the gateway's certificate: accept it in the server's certificate store (move it from rejected "
    "to trusted), then it connects by itself.",
    "服务器不信任网关证书：请在服务器的证书管理中将其由“已拒绝”移到“受信任”，之后会自动连接。",
)  # fmt: skip
_CERTIFICATE: Final = _Meaning(
    AuthError, "certificate_rejected",
    "The server rejects the gateway's certificate: check its dates, the host name and application URI in it, and the clocks of both machines.",
    "服务器拒绝网关证书：请检查证书有效期、其中的主机名与应用程序 URI，以及双方的系统时间。",
)  # fmt: skip
_IDENTITY: Final = _Meaning(
    AuthError, "identity_rejected",
    "The server rejects the user: check `user` and `password`, and whether the server allows this way of signing in.",
    "服务器拒绝该用户：请检查 user 与 password，以及服务器是否允许这种登录方式。",
)  # fmt: skip
_ACCESS: Final = _Meaning(
    AuthError, "access_denied",
    "The server's user lacks the right to do this: give it read access.",
    "该用户权限不足：请在服务器中授予读取权限。",
)  # fmt: skip
_POLICY: Final = _Meaning(
    ConfigError, "security_mismatch",
    "The server does not offer this security policy and mode: set `security:` to one of those that it offers, or enable it there.",
    "服务器不提供该安全策略与模式：请将 security 改为服务器支持的组合，或在服务器上启用。",
)  # fmt: skip
_SESSIONS: Final = _Meaning(
    TransientError, "too_many_sessions",
    "The server has no session free: close unused clients, or raise its limit. Old sessions end by themselves after their time-out.",
    "服务器会话数已满：请关闭不用的客户端或提高上限；旧会话超时后会自动释放。", 30.0,
)  # fmt: skip
_SUBSCRIPTIONS: Final = _Meaning(
    TransientError, "too_many_subscriptions",
    "The server allows no further subscription: use fewer groups on this link, or raise its limit.",
    "服务器订阅数已满：请减少该连接上的分组，或提高服务器上限。", 60.0,
)  # fmt: skip
_SESSION_LOST: Final = _Meaning(
    TransientError, "session_lost",
    "The server has ended the session; it is opened again by itself.",
    "服务器已结束会话；网关会自动重新连接。",
)  # fmt: skip
_SHUTDOWN: Final = _Meaning(
    TransientError, "server_shutdown",
    "The server is shutting down; the gateway connects again by itself.",
    "服务器正在停机；网关会自动重新连接。", 5.0,
)  # fmt: skip
_BUSY: Final = _Meaning(
    TransientError, "server_busy",
    "The server is overloaded: use longer periods or fewer signals if this stays.",
    "服务器过载：若持续出现，请加大采集周期或减少点位。", 10.0,
)  # fmt: skip
_ENDPOINT: Final = _Meaning(
    ConfigError, "endpoint_unknown",
    "The server does not know this endpoint: copy the endpoint URL, with its path, from the server's settings.",
    "服务器没有该端点：请从服务器设置中复制完整的端点 URL（含路径）。",
)  # fmt: skip
_TIMEOUT: Final = _Meaning(
    TransientError, "timeout",
    "No answer in time: check that the server runs, the cable, the firewall, and `timeout:` for a slow line.",
    "应答超时：请检查服务器是否运行、网线、防火墙；线路较慢时可加大 timeout。",
)  # fmt: skip
_TOO_LARGE: Final = _Meaning(
    TransientError, "too_large",
    "The server refused the size of a request; the gateway remembers it and asks for less next time.",
    "服务器拒绝了过大的请求；网关已记住并会减小请求。",
)  # fmt: skip
_PROTOCOL: Final = _Meaning(
    TransientError, "protocol_error",
    "The answer is not OPC UA as the standard has it: check that the port belongs to an OPC UA server (opc.tcp).",
    "应答不符合 OPC UA 规范：请确认端口属于 OPC UA 服务器（opc.tcp）。",
)  # fmt: skip
_UNSUPPORTED: Final = _Meaning(
    ConfigError, "service_unsupported",
    "The server lacks a service that is needed: check its version and its licence for OPC UA.",
    "服务器不支持所需服务：请检查其版本与 OPC UA 授权。",
)  # fmt: skip
_LOST: Final = _Meaning(
    TransientError, "connection_lost",
    "The connection broke: check cable, switch and server if it happens often.",
    "连接中断：若频繁发生，请检查网线、交换机与服务器。",
)  # fmt: skip
_OF_THE_ADAPTER: Final = {
    meaning.reason: meaning
    for meaning in (
        _SHUTDOWN,
        _Meaning(
            TransientError, "subscription_silent",
            "The server told nothing more although it should; the gateway connects again by itself. If it happens often, look at the "
            "server's load, and use longer periods or fewer groups.",
            "服务器不再上报数据；网关会自动重新连接。若频繁发生，请检查服务器负载，并加大周期或减少分组。",
        ),
        _Meaning(
            TransientError, "subscription_lost",
            "The server ends what the gateway subscribes, again and again: look into its log, and at its limits and its licence.",
            "服务器反复结束订阅：请查看服务器日志及其订阅上限与授权。",
        ),
        _Meaning(
            TransientError, "service_level_low",
            "The server says that it is not well, and the other one is better; the gateway goes there. Look into this server's log.",
            "该服务器自报状态不佳，网关已转到更好的一台。请查看该服务器的日志。",
        ),
    )
}  # fmt: skip
"""With what a link is lost although no call failed."""
_REFUSED: Final = _Meaning(
    TransientError, "refused",
    "Nothing listens there: check that the server runs and that host and port are right.",
    "该地址没有服务监听：请检查服务器是否运行、主机与端口是否正确。",
)  # fmt: skip
_UNREACHABLE: Final = _Meaning(
    TransientError, "unreachable",
    "No way to the host: check the cable, the IP address and the network mask.",
    "主机不可达：请检查网线、IP 地址与子网掩码。",
)  # fmt: skip
_DNS: Final = _Meaning(
    TransientError, "dns",
    "The host name has no address: write the IP address, or check the DNS server.",
    "主机名无法解析：请改写为 IP 地址，或检查 DNS。",
)  # fmt: skip
_FAULT: Final = _Meaning(
    TransientError, "server_fault",
    "The server reports a fault; look into its log if it stays.",
    "服务器报告故障；若持续出现，请查看服务器日志。",
)  # fmt: skip

_CHANNEL: Final = _Meaning(
    AuthError, "channel_refused",
    "Most likely the server does not trust the gateway's certificate: accept it in the server's certificate store (move it from rejected "
    "to trusted), or import the file of `guantong certs export`.",
    "服务器很可能不信任网关证书：请在服务器的证书管理中将其由“已拒绝”移到“受信任”，或导入 guantong certs export 生成的文件。",
)  # fmt: skip

_BY_NAME: Final[dict[str, _Meaning]] = {
    "BadCertificateUntrusted": _TRUST,
    "BadSecurityChecksFailed": _TRUST,  # all that a server may tell of a rejected certificate (OPC 10000-4 §6.1.3)
    "BadCertificateInvalid": _CERTIFICATE,
    "BadCertificateTimeInvalid": _CERTIFICATE,
    "BadCertificateIssuerTimeInvalid": _CERTIFICATE,
    "BadCertificateHostNameInvalid": _CERTIFICATE,
    "BadCertificateUriInvalid": _CERTIFICATE,
    "BadCertificateUseNotAllowed": _CERTIFICATE,
    "BadCertificateIssuerUseNotAllowed": _CERTIFICATE,
    "BadCertificateRevoked": _CERTIFICATE,
    "BadCertificateIssuerRevoked": _CERTIFICATE,
    "BadCertificateRevocationUnknown": _CERTIFICATE,
    "BadCertificateIssuerRevocationUnknown": _CERTIFICATE,
    "BadCertificateChainIncomplete": _CERTIFICATE,
    "BadCertificatePolicyCheckFailed": _CERTIFICATE,
    "BadApplicationSignatureInvalid": _CERTIFICATE,
    "BadIdentityTokenInvalid": _IDENTITY,
    "BadIdentityTokenRejected": _IDENTITY,
    "BadUserSignatureInvalid": _IDENTITY,
    "BadIdentityChangeNotSupported": _IDENTITY,
    "BadNoValidCertificates": _CERTIFICATE,
    "BadUserAccessDenied": _ACCESS,
    "BadLicenseExpired": _UNSUPPORTED,
    "BadLicenseNotAvailable": _UNSUPPORTED,
    "BadLicenseLimitsExceeded": _SESSIONS,
    "BadSecurityPolicyRejected": _POLICY,
    "BadSecurityModeRejected": _POLICY,
    "BadSecurityModeInsufficient": _POLICY,
    "BadTooManySessions": _SESSIONS,
    "BadTcpNotEnoughResources": _SESSIONS,
    "BadTooManySubscriptions": _SUBSCRIPTIONS,
    "BadSessionIdInvalid": _SESSION_LOST,
    "BadSessionClosed": _SESSION_LOST,
    "BadSessionNotActivated": _SESSION_LOST,
    "BadSecureChannelIdInvalid": _SESSION_LOST,
    "BadSecureChannelClosed": _SESSION_LOST,
    "BadSecureChannelTokenUnknown": _SESSION_LOST,
    "BadTcpSecureChannelUnknown": _SESSION_LOST,
    "BadSubscriptionIdInvalid": _SESSION_LOST,
    "BadNoSubscription": _SESSION_LOST,
    "BadConnectionClosed": _LOST,
    "BadCommunicationError": _LOST,
    "BadShutdown": _SHUTDOWN,
    "BadServerHalted": _SHUTDOWN,
    "BadTcpServerTooBusy": _BUSY,
    "BadServerTooBusy": _BUSY,
    "BadOutOfMemory": _BUSY,
    "BadResourceUnavailable": _BUSY,
    "BadTooManyPublishRequests": _BUSY,
    "BadTcpEndpointUrlInvalid": _ENDPOINT,
    "BadServerUriInvalid": _ENDPOINT,
    "BadServerNameMissing": _ENDPOINT,
    "BadTimeout": _TIMEOUT,
    "BadRequestTimeout": _TIMEOUT,
    "BadTooManyOperations": _TOO_LARGE,
    "BadEncodingLimitsExceeded": _TOO_LARGE,
    "BadTcpMessageTooLarge": _TOO_LARGE,
    "BadRequestTooLarge": _TOO_LARGE,
    "BadResponseTooLarge": _TOO_LARGE,
    "BadTcpMessageTypeInvalid": _PROTOCOL,
    "BadProtocolVersionUnsupported": _PROTOCOL,
    "BadDecodingError": _PROTOCOL,
    "BadServiceUnsupported": _UNSUPPORTED,
}

TOO_MANY: Final = frozenset(name for name, meaning in _BY_NAME.items() if meaning is _TOO_LARGE)
"""Faults of a request that asks for too much at once."""


class ChannelRefusedError(ConnectionError):
    """The server closed the connection instead of answering to OpenSecureChannel with the gateway's certificate in it."""


EXPECTED: Final = (ua.UaError, OSError, TimeoutError, InvalidSignature, DecodingError, AddressError)
"""What a server that answers wrongly or not at all makes us raise."""

_ODD: Final = (struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError)


@contextlib.contextmanager
def asyncua_decodes(what: str) -> Iterator[None]:
    """Around asyncua's decoding of a server's answer: at odd bytes it raises Python's own errors, which become DecodingError."""
    try:
        yield
    except EXPECTED:
        raise
    except _ODD as error:
        raise DecodingError(f"{what}: {type(error).__name__}: {error}") from error


def fault_name(error: BaseException) -> str:
    """The name of the StatusCode in an asyncua error, empty for any other."""
    code = getattr(error, "code", None)
    return status.info(code).name if isinstance(code, int) and 0 <= code <= 0xFFFFFFFF else ""


def translate(error: BaseException, where: str) -> AdapterError:
    """The contract's error for what went wrong at `where` (an endpoint, with the step that failed)."""
    if isinstance(error, AdapterError):
        return error
    meaning, what = _meaning(error)
    message = Bilingual(f"{where}: {what}", f"{where}：{chinese(what)}")
    if meaning.kind is TransientError:
        return TransientError(
            message, reason=meaning.reason, fix_en=meaning.en, fix_zh=meaning.zh, retry_after=meaning.retry_after
        )
    if meaning in (_TRUST, _CERTIFICATE, _CHANNEL):
        # put right on the server, where the gateway cannot see it: it looks in again soon
        soon = after(20.0 if meaning is _CHANNEL else 60.0)
        return AuthError(message, reason=meaning.reason, fix_en=meaning.en, fix_zh=meaning.zh, cured=soon)
    return meaning.kind(message, reason=meaning.reason, fix_en=meaning.en, fix_zh=meaning.zh)


def after(seconds: float) -> Callable[[], bool]:
    """For `AuthError.cured` where the cure is made elsewhere and cannot be seen from here: try again after a while."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def lost(where: str, what: str, reason: str, *, retry_after: float | None = None) -> TransientError:
    """The link is lost although no call failed: a silent subscription, an announced shutdown. `reason` is one of `_OF_THE_ADAPTER`."""
    meaning = _OF_THE_ADAPTER[reason]
    return TransientError(
        Bilingual(f"{where}: {what}", f"{where}：{chinese(what)}"),
        reason=reason,
        fix_en=meaning.en,
        fix_zh=meaning.zh,
        retry_after=retry_after if retry_after is not None else meaning.retry_after,
    )


def _meaning(error: BaseException) -> tuple[_Meaning, str]:
    name = fault_name(error)
    if name:
        meaning = _BY_NAME.get(name, _FAULT)
        info = status.info(int(getattr(error, "code")))  # noqa: B009  asyncua's errors are not typed
        return meaning, Bilingual(f"{name}: {info.text_en}", f"{name}：{info.text_zh}")
    if isinstance(error, ua.UaError) and "No matching endpoints" in str(error):
        return _POLICY, str(error)
    if isinstance(error, ua.UaError) and "certificate mismatch" in str(error):
        return _Meaning(
            AuthError, "server_certificate_changed",
            "The server shows another certificate than the pinned one: find out why, then set `server_certificate` to the new one.",
            "服务器证书与固定的不一致：请查明原因后再更新 server_certificate。",
        ), str(error)  # fmt: skip
    if isinstance(error, AddressError):
        return _Meaning(
            ConfigError, "address_invalid", "Correct the address in the profile or the device's settings.",
            "请修正模板或设备设置中的地址。",
        ), of_error(error)  # fmt: skip
    if isinstance(error, DecodingError):
        return _PROTOCOL, str(error)
    if isinstance(error, socket.gaierror):
        why = error.strerror
        return _DNS, Bilingual(f"the host name cannot be resolved ({why})", f"主机名无法解析（{why}）")
    if isinstance(error, TimeoutError):
        return _TIMEOUT, Bilingual("no answer within the time-out", "在超时时间内没有应答")
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return _REFUSED, Bilingual("connection refused", "连接被拒绝")
    if isinstance(error, ChannelRefusedError):
        return _CHANNEL, Bilingual(
            "the server closed the connection when the gateway showed its certificate", "网关出示证书后服务器关闭了连接"
        )
    if isinstance(error, OSError):
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
            return _UNREACHABLE, Bilingual("no route to the host", "没有到主机的路由")
        why = str(error)
        return _LOST, Bilingual(
            f"connection lost ({why})" if why else "connection lost", f"连接中断（{why}）" if why else "连接中断"
        )
    if isinstance(error, InvalidSignature):
        return _CERTIFICATE, Bilingual(
            "the server's signature does not fit its certificate", "服务器的签名与其证书不符"
        )
    return _PROTOCOL, f"{type(error).__name__}: {error}"
