"""API keys: `keys.json` in the data directory, readable by its owner alone, with hashes and never a key.

A key is `gt_{id}_{secret}`, the secret 256 bits of the system's randomness. Its hash is one SHA-256: slow hashes (scrypt,
argon2) make guessing of what people choose expensive, and nobody can guess 256 random bits, so that slowness would only cost each
request time. The comparison takes the same time wherever the first difference is.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from typing import Literal

import msgspec

from schemas.bilingual import Bilingual, chinese
from schemas.times import to_rfc3339

Role = Literal["viewer", "operator", "engineer", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "engineer", "admin")
"""Each may do what those before it may; in this version all may only read."""

_NAME = re.compile(r"[\w.@ -]{1,64}")
_KEY = re.compile(r"gt_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_LOOK = 1.0
_NOBODY = hashlib.sha256(b"").hexdigest()


class KeyFileError(Exception):
    """The file of keys cannot be read or written; `fix` says what a person can do."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class Key(msgspec.Struct, frozen=True):
    """A key as it is stored: `hash` is the SHA-256 of its secret, in hex."""

    id: str
    name: str
    role: Role
    hash: str
    created: str


class _File(msgspec.Struct, frozen=True):
    version: int
    keys: list[Key]


class KeyFile:
    """The keys in `data_dir/keys.json`. A change of the file is seen within a second, without a restart."""

    def __init__(self, data_dir: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = data_dir / "keys.json"
        self._monotonic = monotonic
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._broken: KeyFileError | None = None

    # --------------------------------------------------------------------------------------------- for the command

    def list(self) -> list[Key]:
        """All keys, the oldest first. Raises KeyFileError."""
        return _load(self.path)

    def add(self, name: str, role: Role = "viewer", *, now_us: int | None = None) -> str:
        """Makes a key and returns it: this is the only moment in which it can be seen.

        Raises KeyFileError; ValueError for a name or a role that is not possible.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(
                Bilingual(
                    f"{name!r} is not a name for a key: 1 to 64 letters, digits, blanks, . _ - @",
                    f"{name!r} 不能作为密钥名称：1 至 64 个字母、数字、空格、. _ - @",
                )
            )
        if role not in ROLES:
            raise ValueError(
                Bilingual(
                    f"{role!r} is not a role: expected one of {', '.join(ROLES)}",
                    f"{role!r} 不是角色：应为 {', '.join(ROLES)} 之一",
                )
            )
        keys = _load(self.path)
        if any(key.name == name for key in keys):
            raise ValueError(
                Bilingual(
                    f"there is a key named {name!r} already: revoke it first, or choose another name",
                    f"已有名为 {name!r} 的密钥：请先作废，或换一个名称",
                )
            )
        ident = secrets.token_hex(4)
        while any(key.id == ident for key in keys):
            ident = secrets.token_hex(4)
        secret = secrets.token_urlsafe(32)
        created = to_rfc3339(time.time_ns() // 1000 if now_us is None else now_us)
        _save(self.path, [*keys, Key(ident, name, role, _hash(secret), created)])
        return f"gt_{ident}_{secret}"

    def revoke(self, name_or_id: str) -> Key:
        """Takes a key out. Raises KeyFileError; KeyError when there is none of this name or id."""
        keys = _load(self.path)
        for key in keys:
            if name_or_id in (key.name, key.id):
                _save(self.path, [other for other in keys if other is not key])
                return key
        raise KeyError(name_or_id)

    # ------------------------------------------------------------------------------------------------ for the server

    def any(self) -> bool:
        """Whether there is a key. Raises KeyFileError when the file is there and cannot be read."""
        self._look()
        if self._broken is not None:
            raise self._broken
        return bool(self._keys)

    def verify(self, text: str) -> Key | None:
        """The key that `text` is, or None. Raises KeyFileError when the file cannot be read."""
        self._look()
        if self._broken is not None:
            raise self._broken
        match = _KEY.fullmatch(text)
        known = self._keys.get(match[1]) if match else None
        given = _hash(match[2] if match else text)
        same = compare_digest(given, known.hash if known is not None else _NOBODY)
        return known if same and match else None

    def _look(self) -> None:
        now = self._monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            self._stamp, self._keys, self._broken = None, {}, None
            return
        except OSError as error:
            self._broken = _unreadable(self.path, str(error))
            return
        if stamp == self._stamp and self._broken is None:
            return
        try:
            self._keys = {key.id: key for key in _load(self.path)}
            self._stamp, self._broken = stamp, None
        except KeyFileError as error:
            self._broken = error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _unreadable(path: Path, why: str) -> KeyFileError:
    return KeyFileError(
        Bilingual(f"{path}: {why}", f"{path}：{chinese(why)}"),
        fix=Bilingual(
            "Mend the file or its permissions, or move it away and make new keys: guantong key add NAME.",
            "请修复该文件或其权限，或移开后重新生成密钥：guantong key add NAME。",
        ),
    )


def _load(path: Path) -> list[Key]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    try:
        return msgspec.json.decode(content, type=_File).keys
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(
            path,
            Bilingual(
                f"found {error}, expected the keys as `guantong key add` writes them",
                f"发现 {error}，应为 `guantong key add` 写出的密钥",
            ),
        ) from error


def _save(path: Path, keys: list[Key]) -> None:
    """Replaces the file at once: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KeyFileError(
            Bilingual(f"{path}: {error}", f"无法写入 {path}：{error}"),
            fix=Bilingual("Give this user the right to write there.", "请授予该用户写入权限。"),
        ) from error
