"""Whether the clock of this machine is kept right by anybody: one question to the kernel, some microseconds.

`adjtimex` with no modes set reads (Linux, adjtimex(2)): chrony, ntpd and systemd-timesyncd clear STA_UNSYNC while they keep the clock, and the
kernel sets it again when its error bound has grown past 16 seconds, about nine hours after they stopped. A container asks its host's
kernel and gets the right answer. Where the call is refused or missing, the answer is `unknown`.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Final, Literal

Synchronisation = Literal["synced", "unsynced", "unknown"]

_STA_UNSYNC: Final = 0x0040
TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")
"""Made by systemd-timesyncd once it has set the clock since the boot. Beside a hardware clock in local time it leaves STA_UNSYNC set."""


class _Timex(ctypes.Structure):
    """The head of `struct timex`; what follows is only room for the kernel's answer."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def synchronisation(timesyncd: Path = TIMESYNCD) -> Synchronisation:
    """`synced` when somebody keeps the machine's clock, `unsynced` when nobody does, `unknown` where that cannot be told."""
    status = _kernel_status()
    if status is None:
        return "synced" if timesyncd.exists() else "unknown"
    return "synced" if not status & _STA_UNSYNC or timesyncd.exists() else "unsynced"


def _kernel_status() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    buffer = _Timex()
    try:
        answer: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(buffer))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else buffer.status
