"""`latest` as JSON: a piece of bytes for each signal that is kept until its reading changes, joined when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.api.catalog import Catalog
from gateway.api.language import Language
from gateway.api.live import Entry, Live
from gateway.api.shapes import LastReading, Quality
from gateway.api.shapes import Latest as Item
from gateway.api.values import flag_names, to_plain
from gateway.store.records import SignalRecord
from schemas import status as codes
from schemas.times import to_rfc3339

_encode = msgspec.json.Encoder().encode
_SEEN = b',"seen_at":"'
_END = b'"}'


class Form(NamedTuple):
    """In which form readings are wanted."""

    language: Language = "en"
    int64_text: bool = False


@lru_cache(maxsize=4096)
def status_texts(status: int, language: Language) -> tuple[str, str]:
    """Name and text of a StatusCode."""
    info = codes.info(status)
    return info.name, info.text_zh if language == "zh" else info.text_en


class LatestView:
    """Renders what `live` knows."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._seen: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._empty: dict[tuple[int, Form], bytes] = {}
        self._empty_of: Catalog | None = None

    def items(self, numbers: Sequence[int], form: Form) -> list[bytes]:
        """The JSON of the latest reading of each of the signals, in their order."""
        live = self._live
        entries, signals, seen = live.entries, live.catalog.signals, live.seen
        found = []
        for number in numbers:
            signal = signals[number]
            entry = entries.get(number)
            if entry is None:
                found.append(self._waiting(signal, form))
                continue
            rendered = entry.rendered.get(form)
            if rendered is None:
                rendered = entry.rendered[form] = self._render(signal, entry, form)
            ts = entry.row.ts
            complete_to = seen.get(signal.device, _NOTHING).get(signal.group, ts)
            if complete_to <= ts:
                found.append(rendered + to_rfc3339(ts).encode() + _END)
            else:
                found.append(rendered + self._seen_at(signal, complete_to))
        return found

    def _seen_at(self, signal: SignalRecord, complete_to: int) -> bytes:
        """One text for all the signals of a scan group."""
        key = (signal.device, signal.group)
        known = self._seen.get(key)
        if known is None or known[0] != complete_to:
            known = self._seen[key] = (complete_to, to_rfc3339(complete_to).encode() + _END)
        return known[1]

    def _render(self, signal: SignalRecord, entry: Entry, form: Form) -> bytes:
        """All but the end of the text, which `seen_at` makes."""
        row = entry.row
        value, status, ts, n = to_plain(row.value, int64_text=form.int64_text), row.status, to_rfc3339(row.ts), row.n
        flags, reason, last = flag_names(row.flags), "", None
        down = self._live.down.get(signal.device)
        device = self._live.catalog.devices.get(signal.device)
        if down is not None:
            last = LastReading(value, status, codes.quality(status), ts, n)
            value, status, n, flags = None, codes.BAD_NO_COMMUNICATION, 0, []
            ts, reason = to_rfc3339(down[0]), down[1]
        elif device is not None and self._live.is_quiet(device.gateway):
            reason = "collector_silent"
            if not codes.is_bad(status):
                last = LastReading(value, status, codes.quality(status), ts, n)
                status = codes.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
        return self._text(signal, value, status, ts, n, flags, reason, last, form.language)[:-1] + _SEEN

    @staticmethod
    def _text(
        signal: SignalRecord, value: object, status: int, ts: str | None, n: int, flags: list[str], reason: str,
        last: LastReading | None, language: Language,
    ) -> bytes:  # fmt: skip
        name, text = status_texts(status, language)
        item = _Item(
            f"{signal.device}/{signal.name}", value, status, name, text, codes.quality(status), ts, signal.unit,
            n, flags, reason, last,
        )  # fmt: skip
        return _encode(item)

    def _waiting(self, signal: SignalRecord, form: Form) -> bytes:
        """A signal that has no reading yet."""
        if self._empty_of is not self._live.catalog or len(self._empty) > 100_000:
            self._empty_of = self._live.catalog
            self._empty.clear()
        down = self._live.down.get(signal.device)
        if down is not None:
            start = to_rfc3339(down[0])
            text = self._text(signal, None, codes.BAD_NO_COMMUNICATION, start, 0, [], down[1], None, form.language)
            return text[:-1] + b',"seen_at":null}'
        known = self._empty.get((signal.id, form))
        if known is None:
            status = codes.BAD_WAITING_FOR_INITIAL_DATA
            known = self._text(signal, None, status, None, 0, [], "", None, form.language)[:-1] + b',"seen_at":null}'
            self._empty[signal.id, form] = known
        return known


class _Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """`shapes.Latest` without `seen_at`, which changes every second and is put at the end."""

    signal: str
    value: object
    status: int
    status_name: str
    status_text: str
    quality: Quality
    ts: str | None
    unit: str
    n: int = 0
    flags: list[str] = msgspec.field(default_factory=list)
    reason: str = ""
    last: LastReading | None = None


assert {*_Item.__struct_fields__, "seen_at"} == set(Item.__struct_fields__)

_NOTHING: dict[str, int] = {}
