"""Strings that are not UTF-8 (OPC 10000-6 §5.2.2.4 asks for it, and Chinese controllers send GBK).

The decoder keeps the bytes of such a string as lone surrogates (PEP 383), with the status Uncertain, so that nothing is lost until
it is known whose string it is. Here it becomes the text that the device's `encoding` says, or the bytes that arrived.
"""

from __future__ import annotations

from typing import Any

from adapters.contract import Samples
from schemas import status as codes

UTF8 = "utf-8"


def settle(samples: Samples, encoding: str) -> None:
    """Puts the strings of freshly decoded samples right, in place: text in the device's `encoding`, and Good; bytes, and Uncertain,
    where they are not in it either."""
    status = samples.status
    if encoding == UTF8 and (status is None or codes.UNCERTAIN not in status):
        return
    values, changed = list(samples.values), list(status) if status is not None else None
    for i, value in enumerate(values):
        if not isinstance(value, str | list | dict):
            continue
        text, whole = _settled(value, encoding)
        if text is value:
            continue
        values[i] = text
        if changed is not None and whole and changed[i] == codes.UNCERTAIN:
            changed[i] = 0
        elif not whole:
            changed = changed if changed is not None else [0] * len(values)
            changed[i] = changed[i] or codes.UNCERTAIN
    samples.values = values
    samples.status = changed if changed is not None and any(changed) else None


def text(value: Any, encoding: str) -> Any:
    """The same for one value, a field of an event, whose strings stay strings: what cannot be decoded becomes U+FFFD."""
    if isinstance(value, bytes) or not isinstance(value, str | list | dict):
        return value
    settled, whole = _settled(value, encoding)
    return settled if whole else _replaced(settled)


def _settled(value: Any, encoding: str) -> tuple[Any, bool]:
    """The value with its strings in `encoding`, itself where nothing changes, and whether all of them were."""
    if isinstance(value, str):
        if value.isascii() or (encoding == UTF8 and not _escaped(value)):
            return value, True
        raw = value.encode(UTF8, "surrogateescape")
        try:
            return raw.decode(encoding), True
        except UnicodeDecodeError:
            return raw, False
    if isinstance(value, list):
        pairs = [_settled(element, encoding) for element in value]
        if all(new is old for (new, _), old in zip(pairs, value, strict=True)):
            return value, True
        return [element for element, _ in pairs], all(whole for _, whole in pairs)
    if isinstance(value, dict):
        fields = {key: _settled(element, encoding) for key, element in value.items()}
        if all(fields[key][0] is element for key, element in value.items()):
            return value, True
        return {key: element for key, (element, _) in fields.items()}, all(whole for _, whole in fields.values())
    return value, True


def _escaped(value: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in value)


def _replaced(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_replaced(element) for element in value]
    if isinstance(value, dict):
        return {key: _replaced(element) for key, element in value.items()}
    return value
