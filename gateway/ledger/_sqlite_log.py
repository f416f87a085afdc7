"""Whether a write-ahead log holds commits behind a place that SQLite does not read past.

SQLite takes the frames up to the first one whose checksum is wrong, and says nothing of the rest: right after a power cut, which
tears the last transaction, and wrong where a frame in the middle was damaged. Layout and checksum:
https://www.sqlite.org/fileformat2.html, sections 4.1 to 4.3.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = 0x377F0682
_HEADER, _FRAME = 32, 24
_MASK = 0xFFFFFFFF
_TORN = 1
"""Commits behind a damaged frame that a power cut explains: that of the transaction that was being written."""


def unread_commits(log: Path) -> int:
    """Transactions of the log that are whole by their look, and that SQLite will not read; what a power cut explains is not counted.

    0 for a log that is missing. `log` is read whole: 8 MB while nobody holds the file open in one long transaction.
    """
    try:
        data = log.read_bytes()
    except FileNotFoundError:
        return 0
    if len(data) < _HEADER + _FRAME + 512:
        return 0
    magic, _version, size = struct.unpack(">III", data[:12])
    salts = data[16:24]
    order = ">" if magic & 1 else "<"
    sound = magic & ~1 == _MAGIC and size in (1 << n for n in range(9, 17))
    check = _checksum(data[:24], order, (0, 0))
    sound = sound and struct.pack(">II", *check) == data[24:32]
    if not sound:
        salts, size = b"", size if size in (1 << n for n in range(9, 17)) else 4096
    valid, behind = sound, 0
    for at in range(_HEADER, len(data) - _FRAME - size + 1, _FRAME + size):
        head = data[at : at + _FRAME]
        if salts and head[8:16] != salts:
            if valid:
                return 0  # what follows is of an older round of the log
            continue
        salts = salts or head[8:16]
        if valid:
            check = _checksum(head[:8], order, check)
            check = _checksum(data[at + _FRAME : at + _FRAME + size], order, check)
            valid = struct.pack(">II", *check) == head[16:24]
        if not valid and head[4:8] != bytes(4):  # the size of the database after a commit; 0 in the frames before
            behind += 1
    return max(behind - _TORN, 0)


def _checksum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    """Section 4.2: two running sums over pairs of 32-bit words."""
    one, two = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = one + first + two & _MASK
        two = two + second + one & _MASK
    return one, two
