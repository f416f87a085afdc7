"""Which of the two languages an answer is in."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from schemas.bilingual import Bilingual, chinese, of_error, spoken

Language = Literal["en", "zh"]


class Words(NamedTuple):
    """A text in both languages."""

    en: str
    zh: str

    def get(self, language: Language) -> str:
        """The text in `language`; where that is empty, the other one. A half may itself be a `schemas.bilingual.Bilingual`."""
        return spoken((self.zh or self.en) if language == "zh" else (self.en or self.zh), language)


@lru_cache(maxsize=256)
def preferred(accept_language: str) -> Language:
    """zh or en by the header Accept-Language (RFC 9110 §12.5.4); en when it names neither."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept_language.split(",")[:20]:
        tag, _, parameters = part.partition(";")
        primary = tag.strip().lower().split("-")[0]
        if primary not in ("zh", "en"):
            continue
        weight = _weight(parameters)
        if weight > best[0]:
            best = (weight, "zh" if primary == "zh" else "en")
    return best[1]


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0


def words(text: str | BaseException) -> Words:
    """A text of ours, or what an exception says, in both languages."""
    said: str | Bilingual = text if isinstance(text, str) else of_error(text)
    return Words(str(said), chinese(said))


NO_WORDS = Words("", "")
