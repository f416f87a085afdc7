"""Secrets that somebody typed on the page: one file each in `data_dir/secrets`, of which the configuration holds only the path."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from gateway.apply.history import History
from gateway.apply.owner import inherit, make_folder

FOLDER: Final = "secrets"
_DAY: Final = 86_400.0


@dataclass(frozen=True)
class SecretFile:
    """A secret and the file that is to hold it. Each has a name of its own, so that one which is never applied replaces none in use."""

    path: Path
    text: str = field(repr=False)

    @classmethod
    def new(cls, data_dir: Path, name: str, text: str) -> Self:
        """A file for `text`; `name` only tells people what it is for."""
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)[:60]
        return cls(data_dir / FOLDER / f"{plain}-{secrets.token_hex(4)}.secret", text)

    def reference(self, base: Path) -> str:
        """How a configuration in `base` names the file: relative where it lies below."""
        path = self.path.absolute()
        base = base.absolute()
        return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)

    def write(self) -> None:
        """Writes it, readable by this user alone. Raises OSError."""
        make_folder(self.path.parent, 0o700)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.text + "\n")
            file.flush()
            os.fsync(file.fileno())
        inherit(self.path)


def forget_unused(data_dir: Path, config_file: Path) -> None:
    """Removes the files of drafts that were not applied within a day: neither the configuration nor a kept one names them."""
    found = [path for path in (data_dir / FOLDER).glob("*.secret") if time.time() - path.stat().st_mtime > _DAY]
    if not found:
        return
    history = History(data_dir)
    texts = [config_file.read_text(encoding="utf-8-sig", errors="replace")]
    for kept in history.list():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts.append(history.files(kept).text)
    for path in found:
        if not any(path.name in text for text in texts):
            path.unlink(missing_ok=True)
