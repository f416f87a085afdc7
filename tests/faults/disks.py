"""Small disks that fill up: a tmpfs each, where we are root and may mount it."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
from pathlib import Path

_mounted: list[Path] = []


class Disk:
    """A file system of `megabytes` at `folder`, or, where that cannot be made (`small` is False), only the folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.small = False
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "guantong-fault", str(folder)]
            self.small = subprocess.run(command, capture_output=True, check=False).returncode == 0
        if self.small:
            _mounted.append(folder)
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Not a byte is left."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))

    def free(self) -> None:
        """What filled it is gone. Does nothing when it was not full."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what still has files open there keeps them until it ends."""
        if self.small:
            self.small = False
            _mounted.remove(self.folder)
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


@atexit.register
def _unmount_all() -> None:
    for folder in _mounted:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
