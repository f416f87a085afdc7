"""Readings and buckets as JSON objects, NDJSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.api import shapes
from gateway.api.values import flag_names, to_plain
from gateway.store import records
from schemas.status import quality
from schemas.times import to_datetime, to_rfc3339

_encoder = msgspec.json.Encoder()
READING_COLUMNS = ("signal", "ts", "value", "unit", "quality", "status", "n", "flags", "source_ts")
BUCKET_COLUMNS = (
    "signal", "start", "end", "unit", "good", "uncertain", "bad", "covered", "min", "max", "first", "last", "sum", "average",
)  # fmt: skip
_BOM = b"\xef\xbb\xbf"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Form(NamedTuple):
    """How an export is written. `bom`: for Excel, which also runs texts that look like formulas: these get an apostrophe."""

    csv: bool
    bom: bool = False
    int64_text: bool = False
    timezone: str | None = None

    @property
    def zone(self) -> tzinfo | None:
        """The time zone of the column `local`."""
        return None if self.timezone is None else ZoneInfo(self.timezone)


def local_time(us: int, zone: tzinfo | None) -> str | None:
    """`2026-11-22T16:30:00.000000+08:00`; None without a zone, and for a time that the zone puts beyond the year 9999."""
    if zone is None:
        return None
    try:
        return to_datetime(us).astimezone(zone).isoformat(timespec="microseconds")
    except OverflowError:
        return None


def reading(row: records.Reading, int64_text: bool, zone: tzinfo | None) -> shapes.Reading:
    """A stored reading as an answer shows it."""
    return shapes.Reading(
        to_rfc3339(row.ts),
        to_plain(row.value, int64_text=int64_text),
        row.status,
        quality(row.status),
        row.n,
        flag_names(row.flags),
        None if row.source_ts is None else to_rfc3339(row.source_ts),
        to_plain(row.raw, int64_text=int64_text),
        local_time(row.ts, zone),
    )


def bucket(row: records.Bucket, zone: tzinfo | None) -> shapes.Bucket:
    """A bucket as an answer shows it."""
    return shapes.Bucket(
        to_rfc3339(row.start),
        to_rfc3339(row.end),
        row.good,
        row.uncertain,
        row.bad,
        row.covered / 1_000_000,
        row.min,
        row.max,
        row.first,
        None if row.first_ts is None else to_rfc3339(row.first_ts),
        row.last,
        None if row.last_ts is None else to_rfc3339(row.last_ts),
        to_plain(row.sum),
        to_plain(row.average),
        local_time(row.start, zone),
    )


def head(form: Form, columns: Sequence[str]) -> bytes:
    """What comes before the first row."""
    if not form.csv:
        return b""
    names = [*columns, "local"] if form.timezone is not None else list(columns)
    return (_BOM if form.bom else b"") + (",".join(names) + "\r\n").encode()


def readings(signal: str, unit: str, rows: Sequence[records.Reading], form: Form) -> bytes:
    """The rows as lines."""
    zone = form.zone
    if not form.csv:
        return b"".join(_line(signal, reading(row, form.int64_text, zone)) for row in rows)
    lines = []
    for row in rows:
        line = [
            signal, to_rfc3339(row.ts), _cell(row.value, form), unit, quality(row.status), row.status, row.n,
            " ".join(flag_names(row.flags)), "" if row.source_ts is None else to_rfc3339(row.source_ts),
        ]  # fmt: skip
        lines.append(line if zone is None else [*line, _wall(row.ts, zone)])
    return _lines(lines)


def buckets(signal: str, unit: str, rows: Sequence[records.Bucket], form: Form) -> bytes:
    """The buckets as lines."""
    zone = form.zone
    if not form.csv:
        return b"".join(_line(signal, bucket(row, zone)) for row in rows)
    lines = []
    for row in rows:
        numbers = (_cell(number, form) for number in (row.min, row.max, row.first, row.last, row.sum, row.average))
        line = [
            signal, to_rfc3339(row.start), to_rfc3339(row.end), unit, row.good, row.uncertain, row.bad,
            row.covered / 1_000_000, *numbers,
        ]  # fmt: skip
        lines.append(line if zone is None else [*line, _wall(row.start, zone)])
    return _lines(lines)


def _line(signal: str, item: msgspec.Struct) -> bytes:
    """A line of NDJSON: the item's object, with the signal before."""
    return b'{"signal":' + _encoder.encode(signal) + b"," + _encoder.encode(item)[1:] + b"\n"


def _wall(us: int, zone: tzinfo) -> str:
    """What the clock on the wall showed, in the form that spreadsheets read."""
    text = local_time(us, zone)
    return "" if text is None else text[:26].replace("T", " ")


def _cell(value: Any, form: Form) -> Any:
    plain = to_plain(value, int64_text=form.int64_text)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, list | dict):
        return _encoder.encode(plain).decode()
    if isinstance(plain, str) and isinstance(value, str) and form.bom and plain.startswith(_FORMULA):
        return "'" + plain
    return plain


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    """CSV after RFC 4180: CRLF, quotes where needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")
