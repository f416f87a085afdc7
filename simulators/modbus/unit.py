"""One unit on a Modbus link: its memory, with holes, and how it answers a request.

Sources: MODBUS Application Protocol V1.1b3, 6.1 to 6.4 (reads) and clause 7 (exception codes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from simulators.modbus.map_entry import MapEntry, Table, Value, encode

__all__ = [
    "DEVICE_FAILURE",
    "GATEWAY_TARGET_FAILED",
    "ILLEGAL_ADDRESS",
    "ILLEGAL_FUNCTION",
    "ILLEGAL_VALUE",
    "Reply",
    "Unit",
]

ILLEGAL_FUNCTION = 0x01
ILLEGAL_ADDRESS = 0x02
ILLEGAL_VALUE = 0x03
DEVICE_FAILURE = 0x04
GATEWAY_TARGET_FAILED = 0x0B

_FUNCTION_OF: Mapping[Table, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_PROTOCOL_LIMIT = {1: 2000, 2: 2000, 3: 125, 4: 125}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a unit answers: data or an exception code, never both."""

    function: int
    address: int
    """Wire address of the request; 0 when the request was too short to hold one."""
    count: int
    values: tuple[int, ...] = ()
    """Registers, or bits for functions 1 and 2."""
    code: int | None = None

    def pdu(self) -> bytes:
        """The answer's PDU."""
        if self.code is not None:
            return bytes((self.function | 0x80, self.code))
        if self.function in (1, 2):
            data = bytearray((len(self.values) + 7) // 8)
            for place, bit in enumerate(self.values):
                data[place >> 3] |= bit << (place & 7)
        else:
            data = bytearray()
            for word in self.values:
                data += word.to_bytes(2, "big")
        return bytes((self.function, len(data))) + data


@dataclass(slots=True)
class Unit:
    """The memory of one unit. What was never set is a hole: a read that touches it gets exception 0x02.

    The simulated devices are read-only: each function but the reads of its tables gets exception 0x01.
    """

    max_registers: int = 125
    """Largest read of functions 3 and 4; a larger one gets exception 0x03."""
    max_bits: int = 2000
    pairs_only: bool = False
    """Every value takes two registers from an even address, and a read that cuts one gets exception 0x02."""
    _memory: dict[int, dict[int, int]] = field(default_factory=dict)
    _punched: set[int] = field(default_factory=set)

    def set(self, entry: MapEntry, value: Value) -> None:
        """Put *value*, in the entry's unit, where the map says. Bits of a word are not set one by one."""
        memory = self._memory.setdefault(_FUNCTION_OF[entry.table], {})
        for offset, word in enumerate(encode(entry, value)):
            memory[entry.address + offset] = word

    def set_word(self, table: Table, address: int, word: int) -> None:
        """Put the raw *word* (or bit) at the wire address *address*."""
        self._memory.setdefault(_FUNCTION_OF[table], {})[address] = word

    def word(self, table: Table, address: int) -> int | None:
        """The raw word at *address*, ``None`` for a hole."""
        return None if address in self._punched else self._memory.get(_FUNCTION_OF[table], {}).get(address)

    def punch(self, addresses: Iterable[int]) -> None:
        """Make these wire addresses holes in every table, in place of the ones punched before."""
        self._punched = set(addresses)

    def answer(self, pdu: bytes) -> Reply:
        """Answer the request *pdu* (at least its function code) in the order of checks of V1.1b3, figures 11 to 14."""
        function = pdu[0]
        memory = self._memory.get(function)
        if len(pdu) < 5 or memory is None:
            return Reply(function, int.from_bytes(pdu[1:3], "big"), 0, code=ILLEGAL_FUNCTION)
        address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        own_limit = self.max_bits if function in (1, 2) else self.max_registers
        if len(pdu) != 5 or not 1 <= count <= min(own_limit, _PROTOCOL_LIMIT[function]):
            return Reply(function, address, count, code=ILLEGAL_VALUE)
        if self.pairs_only and (address | count) & 1:
            return Reply(function, address, count, code=ILLEGAL_ADDRESS)
        wanted = range(address, address + count)
        if not self._punched.isdisjoint(wanted):
            return Reply(function, address, count, code=ILLEGAL_ADDRESS)
        try:
            return Reply(function, address, count, tuple([memory[place] for place in wanted]))
        except KeyError:
            return Reply(function, address, count, code=ILLEGAL_ADDRESS)
