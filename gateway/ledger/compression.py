"""Bodies as the outbox stores them: compressed where it pays. What is stored is what is hashed, sent and counted.

Zstandard (RFC 8878), one frame with its content size and without a dictionary. Level and threshold were measured on bodies of the
demonstration and of the load servers (`make bench-outbox`): level 3 takes 6 µs for 300 bytes and 0.05 µs a reading for full
messages; a higher one saves 3 % more at twice the time, and below some hundred bytes there is nothing to be had.
"""

from __future__ import annotations

import threading

import zstandard

from schemas.wire import MAX_MESSAGE, PLAIN, ZSTD

LEVEL = 3
SMALLEST = 96
"""Bytes of a body below which it is stored as it is."""
_WORTH = 0.92
"""A body that does not become smaller than this share is stored as it is: it costs every reader a little."""


class PoisonError(Exception):
    """A body that cannot be what its envelope says."""


class Compressor:
    """Packs bodies; to be used by one thread at a time."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(
            level=LEVEL, write_checksum=False, write_content_size=True, write_dict_id=False
        )

    def pack(self, body: bytes) -> tuple[int, bytes]:
        """(`enc`, the bytes to be stored) of a plain body."""
        if len(body) < SMALLEST:
            return PLAIN, body
        packed = self._zstd.compress(body)
        return (ZSTD, packed) if len(packed) < _WORTH * len(body) else (PLAIN, body)


class _Local(threading.local):
    """A decompressor of zstandard must not be used by two threads at once."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor(max_window_size=1 << 17)


_local = _Local()


def plain_body(body: bytes, enc: int) -> bytes:
    """The MessagePack of a stored body. Never more than `MAX_MESSAGE` bytes, whatever the frame claims (a bomb).

    Raises PoisonError for an encoding that is not known, and for a frame that is broken, too large, without its size, or followed by
    something.
    """
    if enc == PLAIN:
        return body
    if enc != ZSTD:
        raise PoisonError(f"encoding {enc} is not known")
    try:
        size = zstandard.frame_content_size(body)
        if not 0 < size <= MAX_MESSAGE:
            raise PoisonError(f"a compressed body of {size} bytes; one of 1 to {MAX_MESSAGE} is expected")
        plain: bytes = _local.zstd.decompress(body, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PoisonError(f"ZstdError: {error}") from error
    if len(plain) != size:
        raise PoisonError(f"a compressed body of {len(plain)} bytes that says {size}")
    return plain
