"""Files that a command writes for the gateway's processes belong to them, also when root has typed the command (`sudo`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def inherit(path: Path) -> None:
    """As root: gives a file or folder to whom its folder belongs. Does nothing for anybody else. Raises OSError."""
    if sys.platform != "win32" and os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """A folder with all above it; those that are new belong to whom the first one that was there belongs to. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    inherit(path)
