"""Read Device Identification (function 43, MEI type 14): what a device says of itself, by which an exchanged one is noticed.

Source: MODBUS Application Protocol V1.1b3 §6.21. It is asked after the first values of a connection, and anew when a
unit comes back. Many devices do not know the function; most say so (exception 1), some say nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adapters.contract import TransientError
from adapters.modbus._codec import Request, Response
from adapters.modbus._lanes import Lane
from adapters.modbus._link import Link, NoAnswerError, NotNowError

FUNCTION: Final = 0x2B
_MEI: Final = 0x0E
_BASIC: Final = 1
_REGULAR: Final = 2
_FIRST_REGULAR: Final = 3
"""The first object that belongs to the regular identification alone."""
_LAST: Final = 6
"""The last one that the standard names; what follows is the maker's own, and may be anything."""
_MOST_REQUESTS: Final = 12
_FINAL: Final = (0, 1, 2, 3)
"""No exception, and those by which a device says that it does not have the function, or these objects (V1.1b3 §6.21)."""
_STRIKES: Final = 2
"""So many units that fell silent, or connections that ended, over the question are no accident."""
_MOST_TEXT: Final = 245
"""Bytes of an object that fit into a response."""
OBJECTS: Final[Mapping[int, str]] = {
    0: "vendor", 1: "product", 2: "revision", 3: "url", 4: "product_name", 5: "model", 6: "application",
}  # fmt: skip
"""Object id -> name (V1.1b3 §6.21, table of objects)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One response: `more` is the object to go on with, None at the end; `regular` whether the device has the regular objects."""

    objects: dict[int, str]
    more: int | None
    regular: bool


def parsed(data: bytes) -> Part | None:
    """The part that these bytes behind function and MEI type hold (read code, conformity level, …); None for what is none."""
    if len(data) < 5:
        return None
    _, conformity, follows, following, number = data[:5]
    rest = data[5:]
    objects: dict[int, str] = {}
    for _ in range(number):
        if len(rest) < 2 or len(rest) < 2 + rest[1]:
            return None
        objects[rest[0]] = _text(rest[2 : 2 + rest[1]])
        rest = rest[2 + rest[1] :]
    return Part(objects, following if follows == 0xFF else None, conformity & 0x7F in (2, 3))


def named(objects: Mapping[int, str]) -> dict[str, str]:
    """The objects that say something, by name, in the order of their numbers."""
    return {OBJECTS.get(number, f"object_{number}"): objects[number] for number in sorted(objects) if objects[number]}


def _text(data: bytes) -> str:
    data = data[:_MOST_TEXT]
    try:
        text = data.decode("utf-8")  # ASCII by the standard
    except UnicodeDecodeError:
        text = data.decode("gb18030", "replace")
    return "".join(character for character in text if character.isprintable()).strip()


class Identified(Response):
    """The response to 43/14, whose length only its objects tell."""

    @classmethod
    def calculateRtuFrameSize(cls, data: bytes) -> int:
        """Bytes of the RTU frame that begins with `data`; 0 while that cannot be known yet."""
        size = 8
        if len(data) < size:
            return 0
        for _ in range(data[7]):
            if len(data) < size + 2:
                return 0
            size += 2 + data[size + 1]
        return size + 2


class IdentifyRequest(Request):
    """43/14, stream access from object `first` (V1.1b3 §6.21)."""

    answered_by = Identified
    may_be_refused = True

    def __init__(self, unit: int, code: int, first: int) -> None:
        super().__init__(unit, FUNCTION, first, 1)
        self._code = code
        self._encoded = bytes((_MEI, code, first))

    def begins(self, data: bytes) -> bool:
        """Whether a response may begin with these bytes, of which the first two are right."""
        return len(data) < 3 or data[2] == _MEI

    def judge(self, answer: Response) -> str | None:
        """What is wrong with a response of this function."""
        pdu = answer.pdu
        return None if len(pdu) > 1 and pdu[1] == _MEI and parsed(pdu[2:]) is not None else "its objects are not whole"


@dataclass(slots=True)
class Identification:
    """What is still to be asked of one unit. Devices with the same unit number share it."""

    enabled: bool = True
    mute_since: int = 0
    """When it was found (µs) that it lives and does not answer this function, or ends the connection over it; 0: not. Such a
    device is not asked any more."""
    wanted: bool = False
    """It has given values on this connection, and is to be asked now."""
    _due: bool = False
    _silent: bool = False
    _strikes: int = 0
    _objects: dict[int, str] = field(default_factory=dict)
    _code: int = _BASIC
    _first: int = 0
    _requests: int = 0

    def begin(self) -> None:
        """A new connection, or the unit is back: it may be another one now."""
        self._due = self.enabled and not self.mute_since
        self.wanted = self._silent = False
        self._objects, self._code, self._first, self._requests = {}, _BASIC, 0, 0

    def gave_values(self, at: int) -> bool:
        """A read was answered with data, at `at` (µs). Returns whether that shows it to be mute."""
        self.wanted = self._due
        if not self._silent and self._strikes < _STRIKES:
            return False
        self._silent, self._strikes = False, 0
        self.wanted = self._due = False
        self.mute_since = at
        return True

    async def step(self, link: Link, unit: int, timeout: float) -> dict[str, str] | None:
        """Asks for one part. Returns all objects by name once they are complete, and there are any.

        Raises TransientError when the link is lost over it, ClosingError, and NotNowError where the unit is not to be asked yet.
        """
        self._requests += 1
        self.wanted = False
        try:
            response = await link.request(IdentifyRequest(unit, self._code, self._first), timeout, Lane.SCAN)
        except NotNowError:
            self._requests -= 1
            self.wanted = True
            raise
        except NoAnswerError:
            self._strikes += 1
            self._silent, self._due = True, False  # it may have died just now: its next answer tells
            return None
        except TransientError as error:
            if error.reason == "closed":  # some end the connection over a function that they do not know
                self._strikes += 1
            raise
        self._strikes = 0
        if (
            response.code not in _FINAL
        ):  # busy, or out of order: what it has said until now is not all, and would look like another device
            self._due = False
            return None
        part = None if response.code else parsed(response.pdu[2:])
        if part is not None and self._took(part):
            self.wanted = True
            return None
        self._due = False
        return named(self._objects) or None

    def _took(self, part: Part) -> bool:
        """Whether there is more to ask for."""
        self._objects.update((n, text) for n, text in part.objects.items() if n <= _LAST)
        if self._requests >= _MOST_REQUESTS:
            return False
        if part.more is not None and self._first < part.more <= _LAST:
            self._first = part.more
            return True
        if self._code == _BASIC and part.regular and max(part.objects, default=0) < _FIRST_REGULAR:
            self._code, self._first = _REGULAR, _FIRST_REGULAR
            return True
        return False
