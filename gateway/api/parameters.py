"""Query parameters: what each request may say, and the problem that tells what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from gateway.api.problems import ParameterError, shorten
from schemas.bilingual import Bilingual, chinese, of_error
from schemas.model import parse_duration
from schemas.times import from_rfc3339
from schemas.wire import Cause

_RELATIVE = re.compile(r"now|-\d+(\.\d+)?(ms|s|min|m|h|d)")
TS_MIN, TS_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999
_EXPECTED_TIME = Bilingual(
    "an RFC 3339 time with an offset such as 2026-11-22T08:30:00Z, or now, or an age such as -24h",
    "带时差的 RFC 3339 时间，如 2026-11-22T08:30:00Z，或 now，或时长如 -24h",
)


def _check_moment(text: str) -> str:
    resolve_moment(text, 0)
    return text


def resolve_moment(text: str, now: int) -> int:
    """µs since the epoch of a time as a client may write it; `now` in µs. Raises ValueError."""
    if _RELATIVE.fullmatch(text):
        age = 0 if text == "now" else round(parse_duration(text[1:]) * 1_000_000)
        return min(max(now - age, TS_MIN), TS_MAX)
    if len(text) > 64:
        raise ValueError(_EXPECTED_TIME)
    # a plus sign in a query string arrives as a blank
    try:
        moment = from_rfc3339(re.sub(r" (?=\d\d:\d\d$)", "+", text))
    except (ValueError, OverflowError):
        raise ValueError(_EXPECTED_TIME) from None
    if not TS_MIN <= moment <= TS_MAX:
        raise ValueError(Bilingual("a time in the years 1 to 9999", "公元 1 年至 9999 年的时间"))
    return moment


Moment = Annotated[
    str,
    AfterValidator(_check_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-11-22T08:00:00Z", "-24h", "now"]}),
]


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(Bilingual("an IANA time zone such as Asia/Shanghai", "IANA 时区，如 Asia/Shanghai")) from None
    return name


Zone = Annotated[str, Field(max_length=64), AfterValidator(_check_zone)]


def _check_width(text: str) -> str:
    bucket_width(text)
    return text


def bucket_width(text: str) -> float | Literal["day"]:
    """Seconds, or "day" for 1d. Raises ValueError."""
    if text == "1d":
        return "day"
    match = re.fullmatch(r"(\d{1,6})(s|min|m|h)", text)
    seconds = parse_duration(text) if match else 0.0
    if not 1 <= seconds <= 86_400:
        raise ValueError(
            Bilingual(
                "a width of 1s to 24h such as 15m or 1h, or 1d for days of the time zone",
                "1s 至 24h 的宽度，如 15m 或 1h；1d 表示时区内的自然日",
            )
        )
    return seconds


Width = Annotated[
    str, AfterValidator(_check_width), WithJsonSchema({"type": "string", "examples": ["15m", "1h", "1d"]})
]

ShortText = Annotated[str, Field(max_length=200)]
Several = Annotated[list[ShortText], Field(max_length=200)]
Many = Annotated[list[ShortText], Field(max_length=2000)]
Cursor = Annotated[str, Field(max_length=500, description="From a `next` link; opaque.")]
Language = Annotated[
    Literal["en", "zh"] | None,
    Field(description="The language of texts; by default that of the header `Accept-Language`, else en."),
]
Int64 = Annotated[
    Literal["number", "string"],
    Field(description="`string`: integers beyond 2^53 come as strings, for clients that keep all numbers as float64."),
]
Order = Literal["asc", "desc"]
Kind = Literal["measurement", "counter", "state", "alarm", "setting", "text", "record"]


def limit(default: int, most: int) -> Any:
    """The parameter `limit`."""
    return Field(default=default, ge=1, le=most, description=f"The most entries on a page, up to {most:,}.")


_START = Field(
    default=None, description="From here on, inclusive: RFC 3339 with offset, `now`, or an age such as `-24h`."
)
_END = Field(default=None, description="Up to here, exclusive.")


class Query(BaseModel):
    """Base of all: a parameter that is not known is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lang: Language = None


class Selection(Query):
    """Which signals."""

    device: Several = Field(default=[], description="Only of these devices.")
    asset: Several = Field(default=[], description="Only of these assets and what lies below them.")


class AssetQuery(Query):
    view: Literal["flat", "tree"] = Field(default="flat", description="`tree`: each asset with its children.")
    parent: ShortText | None = Field(
        default=None,
        description="Only the children of this asset (with `view=tree`: the tree below it); empty: the roots.",
    )


class DeviceQuery(Query):
    asset: Several = Field(default=[], description="Only of these assets and what lies below them.")
    state: Literal["connected", "disconnected", "unknown", "retired"] | None = None
    retired: bool = Field(default=False, description="Also devices that are not configured any more.")
    limit: int = limit(1000, 10_000)
    cursor: Cursor | None = None


class OneQuery(Query):
    """Nothing but the language."""


class ConnectionQuery(Query):
    start: Moment | None = _START
    end: Moment | None = _END
    order: Order = "desc"
    limit: int = limit(1000, 10_000)
    cursor: Cursor | None = None


class SignalQuery(Selection):
    kind: Annotated[list[Kind], Field(max_length=7)] = []
    q: ShortText | None = Field(default=None, description="Only signals with this text in their id or description.")
    match: Several = Field(default=[], description="Only signals whose id matches, e.g. `imm-01/cycle/*`.")
    retired: bool = Field(default=False, description="Also signals that are not configured any more.")
    limit: int = limit(1000, 10_000)
    cursor: Cursor | None = None


class LatestQuery(Selection):
    signal: Many = Field(default=[], description="These signals, by their ids.")
    match: Several = Field(default=[], description="Signals whose id matches, e.g. `imm-01/*`; `*` also matches `/`.")
    int64: Int64 = "number"
    limit: int = limit(10_000, 10_000)
    cursor: Cursor | None = None


class HistoryQuery(Query):
    start: Moment | None = _START
    end: Moment | None = _END
    buckets: Width | None = Field(
        default=None, description="Numbers of each piece of time, of this width, instead of single readings."
    )
    tz: Zone | None = Field(
        default=None, description="The time zone of days and of the column `local`; times stay UTC besides."
    )
    order: Order = "asc"
    format: Literal["json", "ndjson", "csv"] = "json"
    bom: bool = Field(
        default=False, description="CSV begins with a byte order mark, and texts that Excel would run are defused."
    )
    int64: Int64 = "number"
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None,
        description="The most rows: JSON 1,000 by default and 10,000 at most on a page; NDJSON and CSV the whole range by default.",
    )
    cursor: Cursor | None = None


class EventQuery(Selection):
    start: Moment | None = _START
    end: Moment | None = _END
    type: Several = Field(default=[], description="Only of these types.")
    min_severity: int | None = Field(default=None, ge=0, le=1000, description="Only as severe or more (1 to 1000).")
    order: Literal["asc", "desc", "commit"] = Field(
        default="desc",
        description="By time, or `commit`: in the order in which they were stored. That list has no end: each page has a `next`, by "
        "which a client reads each event once.",
    )
    int64: Int64 = "number"
    limit: int = limit(1000, 10_000)
    cursor: Cursor | None = None


class GapQuery(Selection):
    start: Moment | None = _START
    end: Moment | None = _END
    cause: Annotated[list[Cause], Field(max_length=len(Cause))] = Field(
        default=[], description="Only gaps with one of these causes."
    )
    signal: ShortText | None = Field(default=None, description="Only gaps that cover this signal.")
    limit: int = limit(1000, 10_000)
    cursor: Cursor | None = None


class CompletenessQuery(Selection):
    start: Moment = Field(default="-24h", description="From here on, inclusive.")
    end: Moment | None = Field(
        default=None,
        description="Up to here, exclusive, and never beyond now. Without it the period ends where everything is settled.",
    )
    signal: Many = Field(default=[], description="These signals, by their ids.")
    by: Literal["signal", "device", "asset"] | None = Field(
        default=None, description="Also one by one: each signal, each device, or each asset with all below it."
    )
    buckets: Width | None = Field(default=None, description="Also for each piece of the period, of this width.")
    tz: Zone | None = Field(default=None, description="The time zone of days; by default the site's.")


class DeadLetterQuery(Query):
    state: Annotated[list[Literal["waiting", "requested", "replayed", "discarded"]], Field(max_length=4)] = Field(
        default=["waiting", "requested"],
        description="Only in these states; by default those that nobody has decided about.",
    )
    limit: int = limit(100, 1_000)
    cursor: Cursor | None = None


class StreamQuery(Selection):
    match: Several = Field(default=[], description="Signals whose id matches, e.g. `imm-01/*`.")
    signal: Many = Field(default=[], description="These signals, by their ids.")
    int64: Int64 = "number"
    seen: bool = Field(
        default=False, description="Also tell up to when everything of a device is known, once a second."
    )
    last_event_id: ShortText | None = Field(
        default=None, description="For clients that cannot set the header `Last-Event-ID`."
    )


class Nothing(Query):
    """No parameters at all but the language."""


def explain(errors: Sequence[Any], known: Sequence[str]) -> list[ParameterError]:
    """What pydantic found wrong, parameter by parameter; `known` are the parameters that there are."""
    return [_explain(error, known) for error in errors[:20]]


def _explain(error: Any, known: Sequence[str]) -> ParameterError:
    place = [str(part) for part in error.get("loc", ()) if part not in ("query", "path", "header", "body")]
    name = place[0] if place else "request"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(name[:64], known, n=1)
        hint = Bilingual(f"; the nearest is {near[0]}", f"；最接近的是 {near[0]}") if near else ""
        listed = ", ".join(sorted(known))
        among = Bilingual(f"one of the parameters {listed}{hint}", f"以下参数之一：{listed}{chinese(hint)}")
        return ParameterError(name[:64], shorten(error.get("input")), among)
    message = str(error.get("msg", ""))
    if error["type"] == "value_error":
        message = message.removeprefix("Value error, ")
    message = re.sub(r"^Input should be ", "", message)
    raised = (error.get("ctx") or {}).get("error")
    said = of_error(raised) if isinstance(raised, BaseException) else message
    message = said if isinstance(said, Bilingual) else Bilingual(message, f"有效的值（{message}）")
    found = None if error["type"] == "missing" else shorten(error.get("input"))
    return ParameterError(name[:64], found, message)
