"""Compressed bodies: they come back as they were, and nothing that a frame claims fills the memory."""

from __future__ import annotations

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.bodies import PoisonError, decode_body, plain_body
from gateway.ledger.compression import SMALLEST, Compressor
from gateway.ledger.receiver import Receiver
from schemas.wire import MAX_MESSAGE, PLAIN, VERSION, ZERO_HASH, ZSTD, Batch, Envelope, Held, Kind, Mark, version_of

_encode = msgspec.msgpack.encode


@given(st.binary(max_size=2000) | st.binary(min_size=1, max_size=20).map(lambda part: part * 100))
@settings(max_examples=200, deadline=None)
def test_a_body_comes_back_and_is_never_larger(body: bytes) -> None:
    enc, stored = Compressor().pack(body)
    assert plain_body(stored, enc) == body
    assert len(stored) <= len(body)
    assert enc == PLAIN or len(body) >= SMALLEST


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    assert len(bomb) < MAX_MESSAGE
    with pytest.raises(PoisonError, match="a compressed body of 134217728 bytes; one of 1 to 65536 is expected"):
        plain_body(bomb, ZSTD)


def liar(claimed: int, content: bytes) -> bytes:
    """A frame whose header says another size than it has (RFC 8878, 3.1.1.1.4: one segment, four bytes of size)."""
    frame = zstandard.ZstdCompressor(write_content_size=False, write_checksum=False).compress(content)
    blocks = frame[6:]  # magic, descriptor, window
    return frame[:4] + bytes([0xA0]) + claimed.to_bytes(4, "little") + blocks


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"no frame at all", zstandard.ZstdCompressor().compress(b"x" * 500)[:-3],
        zstandard.ZstdCompressor().compress(b"x" * 500) + b"more", zstandard.ZstdCompressor().compress(b""),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 500), liar(400, b"x" * 500), liar(600, b"x" * 500),
        liar(600, bytes(1 << 26)),
    ],
    ids=["empty", "garbage", "cut", "followed", "of nothing", "without size", "says less", "says more", "bomb that lies"],
)  # fmt: skip
def test_a_broken_frame_is_poison(frame: bytes) -> None:
    with pytest.raises(PoisonError):
        decode_body(Kind.READINGS, frame, ZSTD)


def test_an_encoding_that_is_not_known_is_poison() -> None:
    with pytest.raises(PoisonError, match="encoding 7"):
        decode_body(Kind.READINGS, b"\x90", 7)


def test_an_older_ingest_stops_at_a_compressed_body_and_buries_nothing() -> None:
    """One role is upgraded before the other: what was plain is stored, the rest waits, nothing becomes a dead letter or a gap."""
    receiver = Receiver("gw", supports=1)
    receiver.learn([Held("s", 1, 3)], [Mark("s", 0)])
    enc, packed = Compressor().pack(_encode(Batch(0, [1] * 100, [0] * 100, [1] * 100)))
    assert (enc, version_of(enc)) == (ZSTD, VERSION)
    first = Envelope(1, int(Kind.READINGS), "s", 1, 1, 1, ZERO_HASH, PLAIN, _encode(Batch(0, [1], [0], [1])))
    second = Envelope(version_of(enc), int(Kind.READINGS), "s", 2, 2, 1, first.hash(), enc, packed)
    third = Envelope(1, int(Kind.READINGS), "s", 3, 3, 1, second.hash(), PLAIN, _encode(Batch(0, [1], [5], [1])))
    for now in range(20):
        for message in (first, second, third):
            assert receiver.offer(_encode(message), 0, float(now))
        receiver.nudge(float(now))
        steps = receiver.take(100, 0)
        assert [(step.first, step.poison, step.gap) for step in steps] == ([(1, None, None)] if now == 0 else [])
    assert receiver.too_new == VERSION
    upgraded = Receiver("gw")
    upgraded.learn([Held("s", 1, 3)], [Mark("s", 1, first.hash())])
    for message in (second, third):
        upgraded.offer(_encode(message), 0, 0.0)
    assert [(step.first, step.poison, step.gap) for step in upgraded.take(1000, 0)] == [
        (2, None, None),
        (3, None, None),
    ]
