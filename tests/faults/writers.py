"""Programs that write under the record of a power cut, and say in the record what they hold to be durable.

`python -m tests.faults.writers NAME FOLDER ARGUMENT…` runs one; each ends without closing anything, as if it was killed.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

from tests.faults.shim import mark


def say(**told: Any) -> None:
    """Into the record."""
    mark(json.dumps(told))


def rows(folder: Path, level: str) -> None:
    """A row for each commit of an SQLite database; says each when its commit has returned."""
    db = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
    journal, _, synchronous = level.partition("-")
    db.execute(f"PRAGMA journal_mode={journal}")
    db.execute(f"PRAGMA synchronous={synchronous}")
    db.execute("PRAGMA wal_autocheckpoint=20")
    db.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, body BLOB)")
    for number in range(1, 61):
        db.execute("INSERT INTO t VALUES (?, ?)", (number, os.urandom(3000)))
        say(row=number)


def file(folder: Path, steps: str) -> None:
    """A file written anew and put into the place of the old one; `steps` may leave out `file` or `folder`, what is to be synced."""
    for number in range(1, 31):
        fresh = folder / "fresh"
        with fresh.open("wb") as out:
            out.write(b"%06d" % number * 1000)
            out.flush()
            if "file" in steps:
                os.fsync(out.fileno())
        fresh.rename(folder / "named")
        if "folder" in steps:
            opened = os.open(folder, os.O_RDONLY)
            os.fsync(opened)
            os.close(opened)
        say(file=number)


def outbox(folder: Path, level: str, seed: str, first: str) -> None:
    """An outbox in use: appends, commits, confirmations, trimming, tombstones; `first` is its first message's number."""
    import msgspec

    from gateway.ledger.outbox import Outbox
    from schemas.wire import Batch, Kind, Link

    rng = random.Random(int(seed))
    box = Outbox(folder / "outbox.sqlite", "process" if level == "process" else "power")
    box._db.execute("PRAGMA wal_autocheckpoint=30")  # so that few messages meet many checkpoints
    stream = box.begin()
    box.commit()
    number = int(first)
    for _ in range(45):
        for _ in range(rng.randint(1, 4)):
            number += 1
            link = rng.random() < 0.1
            body = (
                Link(str(number), True, number) if link else Batch(number, [number], [0], ["x" * rng.randint(1, 4000)])
            )
            seq = box.append(Kind.LINK if link else Kind.READINGS, msgspec.msgpack.encode(body))
            say(number=number, stream=stream, seq=seq, link=link)
        say(durable=box.commit(), stream=stream)
        match rng.randint(0, 9):
            case 0 | 1 | 2:
                held = rng.choice(box.streams())
                seq = rng.randint(held.confirmed, held.high)
                say(confirmed=seq, stream=held.id)
                box.set_confirmed(held.id, seq, 0.0)
            case 3 | 4:
                box.trim(0.0)
            case 5:
                say(dropping=True)
                box.drop_oldest(box.size * 2 // 3)
            case 6:
                box.set_meta("complete_to", str(number))
                say(complete_to=number)


def salvage(folder: Path) -> None:
    """The start of a collector on an outbox that is damaged."""
    from gateway.ledger.opening import open_or_salvage

    _, saved = open_or_salvage(folder / "outbox.sqlite", "power", 0)
    assert saved is not None
    say(saved=saved.messages)


def store(folder: Path, seed: str, first: str) -> None:
    """A store in use: readings of six signals at one time for each step, and merges between; says each watermark."""
    import gateway.store._sqlite as sqlite
    from gateway.config.models import StoreSettings
    from gateway.store import open_writer
    from schemas.wire import Mark
    from tests.store.feed import Feed, signal

    sqlite.MERGE_ROWS = sqlite.MERGE_ROWS_MOST = 60
    sqlite.PIECE_ROWS = 20
    rng = random.Random(int(seed))
    writer = open_writer(StoreSettings(), folder, "Asia/Shanghai")
    with writer._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_autocheckpoint=60")
    assert writer.acquire("ingest", 60.0)
    feed = Feed(stream := f"stream-{first}")
    second = int(first)
    steps = [feed.birth(*(signal(point, f"t{point}") for point in range(1, 7)))]
    say(birth=second, stream=stream)
    for _ in range(40):
        for _ in range(rng.randint(1, 4)):
            second += 1
            steps.append(feed.rows(*((point, second, float(second)) for point in range(1, 7))))
        applied = writer.apply(steps)
        assert applied.marks == [Mark(stream, feed.seq, feed.hash)]
        say(watermark=feed.seq, stream=stream)
        steps = []


if __name__ == "__main__":
    program = {"rows": rows, "file": file, "outbox": outbox, "salvage": salvage, "store": store}[sys.argv[1]]
    program(Path(sys.argv[2]), *sys.argv[3:])
    os._exit(0)
