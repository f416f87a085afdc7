"""The last configurations that ran, each with the profiles it names: `data_dir/configs/NUMBER/`."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.apply.owner import inherit, make_folder
from schemas.documents import parse_yaml
from schemas.times import to_rfc3339

FOLDER = "configs"
KEPT = 20
_INFO = "info.json"
_CONFIG = "config.yaml"


class Profile(msgspec.Struct, frozen=True):
    """A profile of the site's own: how the configuration names it, where it lay, under which name it is kept."""

    name: str
    file: str
    kept_as: str


class Kept(msgspec.Struct, frozen=True):
    """A configuration that ran. `time` is when it began to, `hash` the SHA-256 of its text and profiles."""

    number: int
    time: str
    hash: str
    file: str
    profiles: list[Profile] = msgspec.field(default_factory=list)
    shipped: list[str] = msgspec.field(default_factory=list)
    """Names of the shipped profiles that it uses; they are part of the program and not kept."""


class Files(msgspec.Struct, frozen=True):
    """The text of a configuration and of each profile of the site's own that it names: (name, file, text)."""

    file: Path
    text: str
    profiles: list[tuple[str, Path, str]]
    shipped: list[str]

    @property
    def hash(self) -> str:
        """The SHA-256 of all of it, in hex."""
        parts = [self.text, *(part for name, _, text in self.profiles for part in (name, text)), *self.shipped]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_files(file: Path, text: str | None = None) -> Files:
    """The configuration in `file` (or `text` instead of it) with its profiles. A profile that cannot be read is left out.

    Raises OSError, and DocumentError for what is no YAML.
    """
    text = file.read_bytes().decode("utf-8-sig") if text is None else text
    names = sorted(_profile_names(parse_yaml(text, str(file)).data))
    profiles: list[tuple[str, Path, str]] = []
    for name in names:
        if _is_file(name):
            path = file.absolute().parent / Path(name).expanduser()
            if path.is_file():
                profiles.append((name, path, path.read_bytes().decode("utf-8-sig")))
    return Files(file.absolute(), text, profiles, [name for name in names if not _is_file(name)])


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def _profile_names(data: Any) -> set[str]:
    found: set[str] = set()
    links = data.get("links") if isinstance(data, dict) else None
    for link in links if isinstance(links, list) else ():
        devices = link.get("devices") if isinstance(link, dict) else None
        for device in devices if isinstance(devices, list) else ():
            if isinstance(device, dict) and isinstance(device.get("profile"), str):
                found.add(device["profile"])
    return found


class History:
    """The configurations kept in a data directory; one process writes, any may read."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def list(self) -> list[Kept]:
        """All that are kept, the newest first."""
        found = []
        for path in self.folder.glob(f"*/{_INFO}"):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Kept))
            except (OSError, msgspec.MsgspecError):  # half removed, or not ours
                continue
        return sorted(found, key=lambda kept: kept.number, reverse=True)

    def keep(self, files: Files, now_us: int) -> Kept:
        """Keeps what runs from now on, and drops what is older than the last `KEPT`. The same again is not kept twice."""
        there = self.list()
        if there and there[0].hash == files.hash:
            return there[0]
        number = there[0].number + 1 if there else 1
        profiles = [
            Profile(name, str(path), f"profile-{i}.yaml") for i, (name, path, _) in enumerate(files.profiles, 1)
        ]
        kept = Kept(number, to_rfc3339(now_us), files.hash, str(files.file), profiles, files.shipped)
        temporary = self.folder / f".{number}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, mode=0o700)
        (temporary / _CONFIG).write_bytes(files.text.encode())
        for profile, (_, _, text) in zip(profiles, files.profiles, strict=True):
            (temporary / profile.kept_as).write_bytes(text.encode())
        (temporary / _INFO).write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        os.replace(temporary, self.folder / str(number))
        for old in there[KEPT - 1 :]:
            shutil.rmtree(self.folder / str(old.number), ignore_errors=True)
        return kept

    def files(self, kept: Kept) -> Files:
        """The texts of a kept configuration. Raises OSError."""
        folder = self.folder / str(kept.number)
        text = (folder / _CONFIG).read_bytes().decode()
        profiles = [(p.name, Path(p.file), (folder / p.kept_as).read_bytes().decode()) for p in kept.profiles]
        return Files(Path(kept.file), text, profiles, kept.shipped)


def write_files(files: Files, file: Path) -> dict[Path, str | None]:
    """Writes the configuration to `file` and its profiles to where they lay, each at once. Returns what was there before (None:
    nothing) of each file that was written, for `put_back`.

    Raises OSError; then nothing is changed.
    """
    before: dict[Path, str | None] = {}
    try:
        for path, text in [*((path, text) for _, path, text in files.profiles), (file, files.text)]:
            there = path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else None
            if there != text:
                write_text(path, text)
                before[path] = there
    except OSError:
        put_back(before)
        raise
    return before


def put_back(before: Mapping[Path, str | None]) -> None:
    """Undoes `write_files`. Raises OSError."""
    for path, text in before.items():
        if text is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, text)


def data_dir_of_text(file: Path, environ: Mapping[str, str]) -> Path:
    """The data directory of a configuration file that may be wrong in any way, even no YAML: from the environment, from its line
    `data_dir:`, or the default. Raises OSError."""
    if environ.get("GUANTONG_DATA_DIR"):
        return Path(environ["GUANTONG_DATA_DIR"]).expanduser().absolute()
    text = file.read_text(encoding="utf-8", errors="replace")
    line = re.search(r"^data_dir:[ \t]*([^#\n]*)", text, re.MULTILINE)
    written = line[1].strip().strip("'\"") if line else ""
    return file.absolute().parent / Path(written or "var").expanduser()


def write_text(path: Path, text: str) -> None:
    """Replaces a file at once, with the permissions and the owner that it had. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    make_folder(path.parent)
    before = path.stat() if path.exists() else None
    mode = before.st_mode & 0o777 if before is not None else 0o640
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if before is None:
            inherit(temporary)
        elif sys.platform != "win32" and os.geteuid() == 0:
            os.chown(temporary, before.st_uid, before.st_gid)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
