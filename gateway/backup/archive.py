"""The archive: a tar file compressed with zstd or gzip, whose first member, `manifest.json`, names every other with its SHA-256.

An archive is believed only as far as its manifest goes: members that it does not name, that are no plain files, or whose names
would leave the folder are refused.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

import msgspec
import zstandard

MANIFEST = "manifest.json"
FORMAT = 1
_LARGEST_MANIFEST = 16 * 1024 * 1024
_PIECE = 1024 * 1024


class BackupError(Exception):
    """It cannot be done; in English and Chinese."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh


class Member(msgspec.Struct, frozen=True):
    """A file of the archive. `role` says what it is; `name` for a profile as the configuration names it, for a file of the data
    directory its path there."""

    path: str
    role: Literal["config", "profile", "data", "store"]
    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What the archive holds. `file` is where the configuration lay, `left_out` what it refers to and is not in here."""

    format: int
    version: str
    time: str
    gateway: str
    file: str
    store: Literal["sqlite", "postgresql", "none"]
    members: list[Member]
    left_out: list[str] = msgspec.field(default_factory=list)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(file: Path) -> None:
    """Raises BackupError for a name that tells no kind of compression."""
    if not file.name.endswith((".tar.zst", ".tar.gz")):
        raise BackupError(
            f"{file.name}: expected a name that ends with .tar.zst or .tar.gz",
            f"{file.name}：文件名应以 .tar.zst 或 .tar.gz 结尾",
        )


def write(file: Path, folder: Path, manifest: Manifest) -> None:
    """Writes the members from `folder` to `file`, readable by this user alone. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with _compressed(raw, file) as out, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in (MANIFEST, *(member.path for member in manifest.members)):
                tar.add(folder / name, name, recursive=False, filter=_plain)
        raw.flush()
        os.fsync(raw.fileno())


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


def read(file: Path, folder: Path | None) -> Manifest:
    """Reads the whole archive, compares every member with the manifest, and unpacks it into `folder` if one is given.

    Raises BackupError for an archive that is damaged, incomplete or not ours; OSError.
    """
    check_name(file)
    try:
        with file.open("rb") as raw, _expanded(raw, file) as source, tarfile.open(fileobj=source, mode="r|") as tar:
            return _members(file, tar, folder)
    except (tarfile.TarError, zstandard.ZstdError, gzip.BadGzipFile, EOFError) as error:
        raise _damaged(file, str(error)) from error


def _members(file: Path, tar: tarfile.TarFile, folder: Path | None) -> Manifest:
    manifest: Manifest | None = None
    left: dict[str, Member] = {}
    for info in tar:
        content = tar.extractfile(info) if info.isfile() else None
        if content is None:
            raise _damaged(file, f"{info.name} is no plain file")
        if manifest is None:
            manifest = _manifest(file, info, content)
            left = {member.path: member for member in manifest.members}
            continue
        member = left.pop(info.name, None)
        if member is None:
            raise _damaged(file, f"{info.name} is not in the manifest")
        _copy(file, member, content, folder)
    if manifest is None or left:
        missing = ", ".join(left) or MANIFEST
        raise _damaged(file, f"missing: {missing}")
    return manifest


def _manifest(file: Path, info: tarfile.TarInfo, content: IO[bytes]) -> Manifest:
    if info.name != MANIFEST or info.size > _LARGEST_MANIFEST:
        raise BackupError(f"{file} is not a backup of Guantong", f"{file} 不是贯通的备份文件")
    try:
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise _damaged(file, f"{MANIFEST}: {error}") from error
    if manifest.format > FORMAT:
        raise BackupError(
            f"{file} was made by a newer version ({manifest.version}); restore it with that one",
            f"{file} 由更新的版本（{manifest.version}）创建，请用该版本恢复",
        )
    for member in manifest.members:
        path = PurePosixPath(member.path)
        inside = PurePosixPath(member.name)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in member.path or path.as_posix() == MANIFEST
        if unsafe or (member.role == "data" and (inside.is_absolute() or ".." in inside.parts or "\\" in member.name)):
            raise _damaged(file, f"the name {member.path!r} leaves the folder")
    return manifest


def _copy(file: Path, member: Member, content: IO[bytes], folder: Path | None) -> None:
    seen, size = hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        out = None
        if folder is not None:
            target = folder / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            out = stack.enter_context(target.open("wb"))
        while piece := content.read(_PIECE):
            seen.update(piece)
            size += len(piece)
            if out is not None:
                out.write(piece)
    if size != member.size or seen.hexdigest() != member.sha256:
        raise _damaged(file, f"{member.path} is not what the manifest says")


def _damaged(file: Path, what: str) -> BackupError:
    return BackupError(f"{file} is damaged: {what}", f"{file} 已损坏：{what}")


@contextlib.contextmanager
def _compressed(raw: IO[bytes], file: Path) -> Iterator[IO[bytes]]:
    if file.name.endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw) as out:
            yield cast(IO[bytes], out)
    else:
        with zstandard.ZstdCompressor(level=6, write_checksum=True).stream_writer(raw, closefd=False) as out:
            yield cast(IO[bytes], out)


@contextlib.contextmanager
def _expanded(raw: IO[bytes], file: Path) -> Iterator[IO[bytes]]:
    if file.name.endswith(".gz"):
        with gzip.GzipFile(mode="rb", fileobj=raw) as source:
            yield cast(IO[bytes], source)
    else:
        with zstandard.ZstdDecompressor().stream_reader(raw, closefd=False) as source:
            yield cast(IO[bytes], source)
