"""Errors as RFC 9457 problem documents (`application/problem+json`): what is wrong, what was found, what was expected, the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.api.language import NO_WORDS, Language, Words
from schemas.bilingual import chinese, spoken

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:guantong:problem:"
_LONGEST = 200

_TITLES: Final[dict[str, tuple[int, Words]]] = {
    "invalid-parameter": (422, Words("A parameter is not valid", "参数无效")),
    "bad-request": (400, Words("The request cannot be understood", "无法理解该请求")),
    "not-found": (404, Words("There is no such thing", "未找到")),
    "method-not-allowed": (405, Words("This method is not possible here", "不支持该方法")),
    "cursor-gone": (410, Words("The cursor is of another life of the store", "游标已失效：存储已被恢复")),
    "too-large": (413, Words("The request is too large", "请求过大")),
    "wrong-host": (421, Words("The request was meant for another host", "请求的主机名不被接受")),
    "unauthorized": (401, Words("An API key is needed", "需要 API 密钥")),
    "forbidden": (403, Words("The key's role does not permit this", "该密钥的角色无此权限")),
    "writes-disabled": (403, Words("Writes are disabled in this version", "本版本禁止写操作")),
    "cross-origin": (403, Words("The request comes from another site's page", "请求来自其他网站的页面")),
    "config-unwritable": (409, Words("The configuration file cannot be written", "无法写入配置文件")),
    "config-refused": (409, Words("The configuration was not taken over", "配置未被应用")),
    "precondition-failed": (412, Words("The configuration was changed meanwhile", "配置已被他人更改")),
    "unsupported-media-type": (415, Words("The body has another type than expected", "请求体类型不受支持")),
    "invalid-configuration": (422, Words("The configuration has mistakes", "配置有错误")),
    "precondition-required": (428, Words("The request must say what it changes", "请求必须说明其更改的版本")),
    "invalid-table": (422, Words("The point table has mistakes", "点表有错误")),
    "port-in-use": (409, Words("The gateway itself uses this port", "网关正在使用该串口")),
    "look-busy": (429, Words("Another look is under way", "正在处理另一个请求")),
    "look-failed": (502, Words("The machine could not be read", "无法读取设备")),
    "look-timeout": (504, Words("This took too long", "耗时过长")),
    "no-collector": (503, Words("No collector runs", "没有正在运行的采集进程")),
    "too-many-requests": (429, Words("Too many requests", "请求过多")),
    "headers-too-large": (431, Words("The header of the request is too large", "请求头过大")),
    "internal-error": (500, Words("An error of the gateway itself", "网关内部错误")),
    "keys-unreadable": (503, Words("The file of API keys cannot be read", "无法读取 API 密钥文件")),
    "store-unavailable": (503, Words("The store cannot be read at the moment", "暂时无法读取存储")),
    "store-failed": (503, Words("The store cannot be read", "无法读取存储")),
    "busy": (503, Words("The gateway is busy", "网关繁忙")),
}


class ParameterError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter that is wrong; or a cell of a table by its `place` (点位!D7), with what to write instead in `detail`.

    `expected` and `detail` may be `schemas.bilingual.Bilingual`.
    """

    parameter: str = ""
    found: Any = None
    expected: str = ""
    place: str = ""
    detail: str = ""


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457). `fix` says what the caller or the operator can do.

    `reason` is a short stable word for what a machine says (such as `certificate_untrusted`), `details` what programs may use of it
    (such as `fingerprint` and `command`).
    """

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    fix: str = ""
    errors: list[ParameterError] = msgspec.field(default_factory=list)
    reason: str = ""
    details: dict[str, str] = msgspec.field(default_factory=dict)


class ProblemError(Exception):
    """What a route raises to answer with a problem of one of the kinds above."""

    def __init__(
        self,
        kind: str,
        detail: Words = NO_WORDS,
        *,
        fix: Words = NO_WORDS,
        errors: Sequence[ParameterError] = (),
        headers: Mapping[str, str] | None = None,
        reason: str = "",
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail.en or kind)
        self.kind = kind
        self.status = _TITLES[kind][0]
        self.detail, self.fix = detail, fix
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.reason, self.details = reason, dict(details or {})

    def document(self, language: Language, instance: str = "") -> ProblemDocument:
        """The document in `language`; `instance` is the path that was asked for."""
        return ProblemDocument(
            TYPE_PREFIX + self.kind,
            _TITLES[self.kind][1].get(language),
            self.status,
            self.detail.get(language),
            instance[:_LONGEST],
            self.fix.get(language),
            [
                ParameterError(e.parameter, e.found, spoken(e.expected, language), e.place, spoken(e.detail, language))
                for e in self.errors
            ],
            self.reason,
            self.details,
        )

    def body(self, language: Language, instance: str = "") -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self.document(language, instance))


def kinds() -> dict[str, tuple[int, Words]]:
    """All kinds of problems: status and title."""
    return dict(_TITLES)


def invalid(parameter: str, found: Any, expected: str) -> ProblemError:
    """One parameter that is not valid."""
    return invalid_all([ParameterError(parameter, shorten(found), expected)])


def invalid_all(errors: Sequence[ParameterError]) -> ProblemError:
    """Parameters that are not valid."""
    first = errors[0]
    return ProblemError(
        "invalid-parameter",
        Words(
            f"{first.parameter}: found {show(first.found)}, expected {first.expected}",
            f"参数 {first.parameter}：收到 {show(first.found)}，应为 {chinese(first.expected)}",
        ),
        errors=errors,
    )


def not_found(what: Words, name: str, nearest: Sequence[str] = ()) -> ProblemError:
    """There is no `what` with this name; `nearest` are names that there are."""
    fix = NO_WORDS
    if nearest:
        fix = Words(f"Did you mean {' or '.join(nearest)}?", f"是否指 {' 或 '.join(nearest)}？")
    return ProblemError(
        "not-found", Words(f"{what.en} {shorten(name)!r} is not known", f"没有{what.zh} {shorten(name)!r}"), fix=fix
    )


def shorten(found: Any) -> Any:
    """What was found, short enough for a message and certain to have a form in JSON."""
    if found is None or isinstance(found, bool | int | float):
        return found if not isinstance(found, int) or abs(found) < 1 << 63 else str(found)[:_LONGEST]
    text = found if isinstance(found, str) else str(found)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def show(found: Any) -> str:
    """As it stands in a sentence."""
    return "nothing" if found is None else repr(found)
