"""Power cuts: what may be on the disk when the power goes, from a record of everything that processes wrote and synced.

    recording = Recording(folder, tmp_path / "record")        # takes the folder's state as what is on the disk
    ...                                                       # processes run under environment(below=folder, record=recording.record)
    for cut in recording.cuts(recording.positions(300, rng), rng):
        cut.write_to(somewhere)                               # the folder as the next boot finds it
        cut.marks                                             # what `shim.mark` had entered before the cut

The model. A cut falls between two entries of the record, at one moment for all files and processes. Of a file, what was written before the
begin of its last finished fsync (or fdatasync) is there. Of what was written later, each sector of 512 bytes has one of the contents that it had since then, and each file
one of its sizes: as the cut's style has it, none of it, all of it, what was written up to some moment, or chosen for each page of 4 kB or for each sector alone (writes are
reordered and torn). A hole is zeros. What is cut off a file is gone before anything is written behind it.

Names (creating, renaming, linking, removing) become durable in their order. With `names="posix"` only an fsync of their folder makes them so, each folder for itself, as POSIX
promises no more. With `names="ext4"` an fsync of a file also brings all that happened to names before its own last change of name or size: ext4's journal is one, in
order (data=ordered). `posix` is the harder one, and the default.

Not modelled: a disk that lies about its cache, sectors that break beside the one being written, writable shared mappings (an error; SQLite's -shm excepted).
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal

SECTOR = 512
PAGE = 4096

Names = Literal["posix", "ext4"]
STYLES = ("none", "all", "prefix", "page", "sector")


class RecordError(Exception):
    """The record cannot be understood: something was done that the library does not see."""


class Op(IntEnum):
    """As `enum op` in shim.c."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC_BEGIN = 4
    SYNC_END = 5
    UNLINK = 6
    RENAME = 7
    MKDIR = 8
    RMDIR = 9
    LINK = 10
    SYMLINK = 11
    MAP = 12
    MARK = 13


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `at` in ns since the epoch, `offset` and `inode` as in shim.c."""

    op: Op
    pid: int
    at: int
    inode: int
    offset: int
    path: str
    second: str
    data: bytes


_HEAD = struct.Struct("=IBBHHHIiiqQq")
_MAGIC = 0x4C544146


def read_record(path: Path) -> list[Entry]:
    """All entries in their order. A process that was killed while it wrote one may have left half of the last."""
    raw = path.read_bytes()
    entries: list[Entry] = []
    place = 0
    while place + _HEAD.size <= len(raw):
        magic, op, _, first, second, _, length, pid, _, at, inode, offset = _HEAD.unpack_from(raw, place)
        if magic != _MAGIC:
            raise RecordError(f"{path}: no entry at {place}")
        start = place + _HEAD.size
        end = start + first + second + length
        if end > len(raw):
            break
        names = raw[start : start + first].decode(), raw[start + first : start + first + second].decode()
        entries.append(Entry(Op(op), pid, at, inode, offset, *names, raw[end - length : end]))
        place = end
    return entries


# ------------------------------------------------------------------------------------------------------------ the model


@dataclass(slots=True)
class _File:
    disk: bytearray
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """(number of the entry, offset, data) of writes; data None: a truncation to `offset`."""
    size: int = 0
    changed: int = -1
    """The entry that last changed its name or size."""

    def add(self, index: int, offset: int, data: bytes | None) -> None:
        size = offset if data is None else max(self.size, offset + len(data))
        if size != self.size:
            self.size, self.changed = size, index
        self.pending.append((index, offset, data))

    def sync(self, before: int) -> None:
        done = [op for op in self.pending if op[0] < before]
        self.pending = self.pending[len(done) :]
        for _, offset, data in done:
            _apply(self.disk, offset, data)

    def content(self, rng: random.Random) -> bytes:
        """What is there after the cut."""
        if not self.pending:
            return bytes(self.disk)
        count = len(self.pending)
        style = rng.choice(STYLES)
        whole = {"none": 0, "all": count}.get(style, rng.randint(0, count))
        """So many of the pending operations are in the size; and in the data, unless each page or sector has its own number."""
        grain = {"page": PAGE, "sector": SECTOR}.get(style)
        bound, size, after = count, len(self.disk), len(self.disk)
        for number, (_, offset, data) in enumerate(self.pending):
            shrinks = data is None and offset < after
            after = offset if data is None else max(after, offset + len(data))
            if number < whole:
                size = after
            elif shrinks:  # not done: nothing behind it is, either
                bound = number
                break
        chosen: dict[int, int] = {}

        def limit(place: int) -> int:
            if grain is None:
                return whole
            key = place // grain
            if key not in chosen:
                chosen[key] = rng.randint(0, bound)
            return chosen[key]

        found = bytearray(self.disk)
        for number, (_, offset, data) in enumerate(self.pending[:bound]):
            if data is None:
                if number < whole:
                    del found[offset:]
                continue
            for start, end in _sectors(offset, len(data)):
                if number < limit(start):
                    _apply(found, start, data[start - offset : end - offset])
        _apply(found, size, None)
        return bytes(found)


def _sectors(offset: int, length: int) -> Iterator[tuple[int, int]]:
    place = offset
    while place < offset + length:
        end = min((place // SECTOR + 1) * SECTOR, offset + length)
        yield place, end
        place = end


def _apply(found: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del found[offset:]
    if len(found) < offset:
        found.extend(bytes(offset - len(found)))
    if data is not None:
        found[offset : offset + len(data)] = data


@dataclass(slots=True)
class _Folder:
    disk: dict[str, _Node] = field(default_factory=dict)
    live: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Symlink:
    target: str


_Node = _File | _Folder | _Symlink


@dataclass(frozen=True, slots=True)
class _Naming:
    """One change of names in one folder."""

    index: int
    folder: _Folder
    changes: tuple[tuple[str, _Node | None], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut. `position` entries of the record had happened; `at` is when (ns since the epoch)."""

    position: int
    at: int
    marks: list[str]
    _replay: _Replay
    _seed: int

    def write_to(self, target: Path) -> None:
        """Make `target` the folder as it is found after the cut; what was there goes. Valid until the next cut is taken."""
        shutil.rmtree(target, ignore_errors=True)
        self._replay.write(target, random.Random(self._seed))


class Recording:
    """See the module. `folder` is taken as it is now, all of it on the disk; what is recorded later is read at `cuts`."""

    def __init__(self, folder: Path, record: Path, names: Names = "posix") -> None:
        self.folder = folder.resolve(strict=True)
        self.record = record
        self.names: Names = names
        record.touch()
        self._base: list[tuple[str, int, bytes | None]] = []
        for path in sorted(self.folder.rglob("*")):
            relative = str(path.relative_to(self.folder))
            self._base.append((relative, path.stat().st_ino, None if path.is_dir() else path.read_bytes()))

    def entries(self) -> list[Entry]:
        """What was recorded so far."""
        return read_record(self.record)

    def positions(self, count: int, rng: random.Random, entries: Sequence[Entry] | None = None) -> list[int]:
        """Where to cut: half of them anywhere, half just after something became durable or was reported."""
        entries = self.entries() if entries is None else entries
        told = [i for i, e in enumerate(entries) if e.op in (Op.SYNC_END, Op.MARK)]
        found = [rng.randint(0, len(entries)) for _ in range(count)]
        for number in range(0, count, 2):
            if told:
                found[number] = min(rng.choice(told) + rng.choice((1, 1, 2, 3, 6)), len(entries))
        return sorted(found)

    def cuts(
        self, positions: Iterable[int], rng: random.Random, entries: Sequence[Entry] | None = None
    ) -> Iterator[Cut]:
        """A cut for each of these positions, in their order. Raises RecordError for what cannot be modelled."""
        entries = self.entries() if entries is None else entries
        replay = _Replay(self.folder, self._base, self.names)
        done, at = 0, 0
        marks: list[str] = []
        for position in sorted(positions):
            for index in range(done, position):
                entry = entries[index]
                at = entry.at
                if entry.op == Op.MARK:
                    marks.append(entry.path)
                else:
                    replay.step(index, entry)
            done = position
            yield Cut(position, at, list(marks), replay, rng.getrandbits(64))


class _Replay:
    """The disk and what is on its way to it, entry by entry."""

    def __init__(self, root: Path, base: Sequence[tuple[str, int, bytes | None]], names: Names) -> None:
        self._root, self._names = str(root), names
        self._top = _Folder()
        self._inodes: dict[int, _File | _Folder] = {root.stat().st_ino: self._top}
        self._syncs: dict[int, int] = {}
        self._namings: list[_Naming] = []
        for path, inode, content in base:
            node: _File | _Folder = _Folder() if content is None else _File(bytearray(content), size=len(content))
            self._inodes[inode] = node
            folder, name = self._place(f"{self._root}/{path}")
            folder.live[name] = folder.disk[name] = node

    def _place(self, path: str) -> tuple[_Folder, str]:
        if not path.startswith(self._root + "/"):
            raise RecordError(f"{path or 'a name elsewhere'}: not below {self._root}")
        *folders, name = path[len(self._root) + 1 :].split("/")
        at = self._top
        for part in folders:
            below = at.live.get(part)
            if not isinstance(below, _Folder):
                raise RecordError(f"{path}: the folder {part} was never seen")
            at = below
        return at, name

    def _file(self, inode: int) -> _File:
        node = self._inodes.get(inode)
        if not isinstance(node, _File):
            raise RecordError(f"inode {inode}: a file whose making was not seen")
        return node

    def step(self, index: int, entry: Entry) -> None:
        """The next entry has happened."""
        match entry.op:
            case Op.CREATE:
                self._create(index, entry)
            case Op.WRITE:
                self._file(entry.inode).add(index, entry.offset, entry.data)
            case Op.TRUNCATE:
                self._file(entry.inode).add(index, entry.offset, None)
            case Op.SYNC_BEGIN:
                self._syncs[entry.offset] = index
            case Op.SYNC_END:
                self._sync(entry.inode, self._syncs.pop(entry.offset))
            case Op.MKDIR:
                self._inodes[entry.inode] = made = _Folder()
                self._name(index, entry.path, made)
            case Op.SYMLINK:
                self._name(index, entry.path, _Symlink(entry.second))
            case Op.LINK:
                self._name(index, entry.path, self._file(entry.inode))
            case Op.UNLINK | Op.RMDIR:
                self._name(index, entry.path, None)
            case Op.RENAME:
                self._rename(index, entry)
            case Op.MAP:
                raise RecordError(f"{entry.path}: written through a shared mapping")
            case Op.MARK:
                pass

    def _create(self, index: int, entry: Entry) -> None:
        folder, name = self._place(entry.path)
        there = folder.live.get(name)
        if there is not None and there is self._inodes.get(entry.inode):
            return  # two processes made it at the same time
        made = _File(bytearray(), changed=index)
        self._inodes[entry.inode] = made
        self._name(index, entry.path, made)

    def _name(self, index: int, path: str, node: _Node | None) -> None:
        folder, name = self._place(path)
        self._change(index, folder, (name, node))

    def _change(self, index: int, folder: _Folder, *changes: tuple[str, _Node | None]) -> None:
        self._namings.append(_Naming(index, folder, changes))
        _rename_in(folder.live, changes)

    def _rename(self, index: int, entry: Entry) -> None:
        if entry.offset:
            raise RecordError(f"{entry.path}: renamed with flags {entry.offset}")
        (source, old), (target, new) = self._place(entry.path), self._place(entry.second)
        node = source.live.get(old)
        if node is None:
            raise RecordError(f"{entry.path}: renamed, and was never seen")
        if isinstance(node, _File):
            node.changed = index
        if source is target:
            self._change(index, source, (old, None), (new, node))
        else:
            self._change(index, target, (new, node))
            self._change(index, source, (old, None))

    def _sync(self, inode: int, begun: int) -> None:
        node = self._inodes.get(inode)
        if node is None:
            raise RecordError(f"inode {inode}: synced, and its making was not seen")
        if isinstance(node, _File):
            changed = node.changed if node.changed < begun else -1
            node.sync(begun)
            if self._names == "ext4":
                self._settle([n for n in self._namings if n.index <= changed])
        elif self._names == "ext4":
            self._settle([n for n in self._namings if n.index < begun])
        else:
            self._settle([n for n in self._namings if n.folder is node and n.index < begun])

    def _settle(self, namings: list[_Naming]) -> None:
        for naming in namings:
            _rename_in(naming.folder.disk, naming.changes)
        gone = {id(naming) for naming in namings}
        self._namings = [n for n in self._namings if id(n) not in gone]

    def write(self, target: Path, rng: random.Random) -> None:
        """The folder after a cut that falls now."""
        names: dict[int, dict[str, _Node]] = {}
        orders: dict[int, list[_Naming]] = {}
        for naming in self._namings:
            orders.setdefault(0 if self._names == "ext4" else id(naming.folder), []).append(naming)
        for order in orders.values():
            for naming in order[: rng.choice((0, len(order), rng.randint(0, len(order))))]:
                disk = names.setdefault(id(naming.folder), dict(naming.folder.disk))
                _rename_in(disk, naming.changes)
        self._write(self._top, target, names, {}, rng)

    def _write(
        self,
        folder: _Folder,
        target: Path,
        names: dict[int, dict[str, _Node]],
        contents: dict[int, bytes],
        rng: random.Random,
    ) -> None:
        target.mkdir(parents=True)
        for name, node in names.get(id(folder), folder.disk).items():
            if isinstance(node, _Folder):
                self._write(node, target / name, names, contents, rng)
            elif isinstance(node, _Symlink):
                (target / name).symlink_to(node.target)
            else:
                if id(node) not in contents:
                    contents[id(node)] = node.content(rng)
                (target / name).write_bytes(contents[id(node)])


def _rename_in(names: dict[str, _Node], changes: Iterable[tuple[str, _Node | None]]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
