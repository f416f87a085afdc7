"""Opening the outbox at a start: a damaged file is put aside, what can be read of it is saved, and the start goes on.

Nobody is needed for that. A file of a newer version is left alone, since the newer version can read it; so are locks, missing rights
and a full disk, which are no damage.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from gateway.ledger._outbox_file import WAL_LIMIT, Durability, OutboxDamagedError, OutboxFullError, is_full, marker_of
from gateway.ledger.outbox import Outbox, OutboxError
from gateway.ledger.salvage import Salvaged, salvage
from schemas.bilingual import Bilingual

log = logging.getLogger("guantong.outbox")

_ASIDE = ".damaged-"


def open_or_salvage(
    path: Path, durability: Durability, now_us: int, log_limit: int = WAL_LIMIT
) -> tuple[Outbox, Salvaged | None]:
    """The outbox, and what was done when it was damaged. To be called under the lock of the outbox. `now_us` in µs UTC.

    The damaged file is kept beside it as `NAME.damaged-YYYYMMDDTHHMMSSZ`, one at a time: an older one goes. Raises OutboxError for what
    is not damage, OutboxFullError when there is no room for what is saved; nothing is changed then.
    """
    marker, part, ready = marker_of(path), _beside(path, ".part"), _beside(path, ".salvaged")
    if ready.exists():  # the process, or the power, ended between the renames: what was saved is whole
        _take_place(path, ready, now_us)
    if marker.exists():
        why = marker.read_text(encoding="utf-8", errors="replace")
        return _saved(path, durability, log_limit, now_us, why, part, ready)
    try:
        return Outbox(path, durability, log_limit), None
    except OutboxDamagedError as error:
        log.error("%s", error)
        return _saved(path, durability, log_limit, now_us, str(error), part, ready)


def _saved(
    path: Path, durability: Durability, log_limit: int, now_us: int, why: str, part: Path, ready: Path
) -> tuple[Outbox, Salvaged]:
    try:
        for leftover in (part, ready):
            leftover.unlink(missing_ok=True)
        found = salvage(path, part, now_us, why)
        os.replace(part, ready)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot(path, error) from error
    except sqlite3.Error as error:
        part.unlink(missing_ok=True)
        if is_full(error):
            raise OutboxFullError(
                Bilingual(
                    f"the outbox {path} is damaged, and there is no space to save what can be read",
                    f"发件箱 {path} 已损坏，且磁盘空间不足，无法抢救可读取的内容",
                ),
                Bilingual(
                    "Free as much space on the disk of data_dir as the outbox takes.",
                    "请在 data_dir 所在磁盘腾出与发件箱同样大小的空间。",
                ),
            ) from error
        raise
    found.aside = _take_place(path, ready, now_us)
    log.error(
        "the outbox was damaged (%s): %d messages of %d streams saved, %d numbers missing; the damaged file is %s",
        why, found.messages, found.streams, found.lost, found.aside,
    )  # fmt: skip
    return Outbox(path, durability, log_limit), found


def _take_place(path: Path, ready: Path, now_us: int) -> Path:
    """Puts what was saved into the place of the damaged file. May be cut anywhere: the next start goes on. Raises OutboxError."""
    try:
        aside = _put_aside(path, now_us)
        os.replace(ready, path)
        marker_of(path).unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise _cannot(path, error) from error
    return aside


def _cannot(path: Path, error: OSError) -> OutboxError:
    return OutboxError(
        Bilingual(
            f"the outbox {path} is damaged and cannot be saved: {error}",
            f"发件箱 {path} 已损坏，且无法抢救：{error}",
        ),
        Bilingual("Check the disk of data_dir and its permissions.", "请检查 data_dir 所在磁盘及其权限。"),
    )


def damaged_files(path: Path) -> list[Path]:
    """Damaged files that were put aside, the oldest first."""
    return sorted(
        file for file in path.parent.glob(f"{path.name}{_ASIDE}*") if not file.name.endswith(("-wal", "-shm"))
    )


def _put_aside(path: Path, now_us: int) -> Path:
    """Renames the file and its log; an older one that was put aside goes."""
    stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = _beside(path, f"{_ASIDE}{stamp}")
    if not path.exists():  # it was put aside before
        return next(reversed(damaged_files(path)), aside)
    for old in damaged_files(path):
        for suffix in ("", "-wal"):
            _beside(old, suffix).unlink(missing_ok=True)
    wal = _beside(path, "-wal")
    if wal.exists():
        os.replace(wal, _beside(aside, "-wal"))
    _beside(path, "-shm").unlink(missing_ok=True)
    os.replace(path, aside)  # last: as long as it stands here, its log is not taken for that of another file
    return aside


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync(folder: Path) -> None:
    """Makes the renames durable, where a folder can be synchronised (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
