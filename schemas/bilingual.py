"""Texts of the gateway itself for people, in both of its languages.

`schemas.model.Text` is what people write into files; this is what the gateway says: a string that may be logged and compared as English,
and that carries its Chinese where somebody reads Chinese.
"""

from __future__ import annotations

import locale
from collections.abc import Mapping
from typing import Literal, Self

Language = Literal["en", "zh"]


class Bilingual(str):
    """An English text with its Chinese one in `zh`. Everything that takes a string takes it as the English text; whatever is made of it
    (slices, f-strings) is English alone, so that a sentence is always put together in both languages."""

    __slots__ = ("zh",)
    zh: str

    def __new__(cls, en: str, zh: str) -> Self:
        text = super().__new__(cls, en)
        text.zh = zh
        return text

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # typeshed: that of str itself
        return str(self), self.zh


def chinese(text: str) -> str:
    """The Chinese of a text; one that has none (a name, a number, a library's own words) stands for itself."""
    return text.zh if isinstance(text, Bilingual) else text


def spoken(text: str, language: str) -> str:
    """The text in `language`: zh, or English for any other."""
    return chinese(text) if language == "zh" else str(text)


def terminal_language(environ: Mapping[str, str]) -> Language:
    """The language of whoever sits at the terminal: GUANTONG_LANGUAGE, else LC_ALL, LC_MESSAGES, LANG (POSIX.1-2017 §8.2), else the
    system's; the first that is set counts."""
    for name in ("GUANTONG_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


def of_error(error: BaseException) -> str:
    """What an exception says: the Bilingual text that it was raised with, else its words."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Bilingual) else str(error)
