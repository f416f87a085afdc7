"""A serial port in raw mode, by the operating system's own means (POSIX termios).

pyserial would bring nothing here but a dependency: two speeds, three formats, eight data bits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from dataclasses import dataclass
from typing import Literal

from adapters.contract import TransientError
from schemas.bilingual import Bilingual, chinese

Parity = Literal["N", "E"]
_SPEEDS = {9600: termios.B9600, 19200: termios.B19200}


@dataclass(frozen=True, slots=True)
class SerialPlace:
    """A serial port and its setting: eight data bits, parity none or even, one or two stop bits.

    `path` is best one of /dev/serial/by-id, which does not change when cables are moved.
    """

    path: str
    baud: int = 9600
    parity: Parity = "N"
    stop: int = 1

    def __post_init__(self) -> None:
        if self.baud not in _SPEEDS or self.stop not in (1, 2):
            raise ValueError(f"{self.baud} baud, {self.stop} stop bits: expected 9600 or 19200, and 1 or 2")

    @property
    def setting(self) -> str:
        """Such as `9600 8N1`."""
        return f"{self.baud} 8{self.parity}{self.stop}"


def open_port(place: SerialPlace) -> int:
    """The file descriptor of the port: raw, not blocking, locked against other programs that lock. Raises TransientError."""
    descriptor = -1
    try:
        descriptor = os.open(place.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _raw(descriptor, place)
    except (OSError, termios.error) as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise _failed(place.path, error) from error
    return descriptor


def _raw(descriptor: int, place: SerialPlace) -> None:
    attributes = termios.tcgetattr(descriptor)
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    if place.parity == "E":
        control |= termios.PARENB
    if place.stop == 2:
        control |= termios.CSTOPB
    checked = termios.INPCK if place.parity == "E" else 0
    speed = _SPEEDS[place.baud]
    characters = attributes[6]
    characters[termios.VMIN], characters[termios.VTIME] = 0, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [checked, 0, control, 0, speed, speed, characters])
    termios.tcflush(descriptor, termios.TCIOFLUSH)


def _failed(path: str, error: Exception) -> TransientError:
    number = error.args[0] if error.args else None
    if number in (errno.EACCES, errno.EPERM):
        why, fix_en, fix_zh = (
            Bilingual("permission denied", "没有权限"),
            "Add the user to the group that owns the port: sudo usermod -aG dialout $USER, then log in again.",
            "请将用户加入串口所属的组：sudo usermod -aG dialout $USER，然后重新登录。",
        )
    elif number in (errno.EAGAIN, errno.EBUSY):
        why, fix_en, fix_zh = (
            Bilingual("another program uses the port", "串口被其他程序占用"),
            "Stop the other program, or stop the gateway's link on this port, and try again.",
            "请停用占用该串口的程序（或网关在该串口上的链路）后重试。",
        )
    elif number in (errno.ENOTTY, errno.EINVAL):
        why, fix_en, fix_zh = (
            Bilingual("this is no serial port", "这不是串口"),
            "Name a serial port; ls /dev/serial/by-id shows those that are plugged in.",
            "请指定串口；用 ls /dev/serial/by-id 查看已连接的串口。",
        )
    else:
        why, fix_en, fix_zh = (
            _system(os.strerror(number) if isinstance(number, int) else str(error)),
            "Look whether the adapter is plugged in: ls /dev/serial/by-id",
            "请检查转换器是否已插好：ls /dev/serial/by-id",
        )
    said = Bilingual(f"{path}: {why}", f"{path}：{chinese(why)}")
    return TransientError(said, reason="open_failed", fix_en=fix_en, fix_zh=fix_zh)


def _system(message: str) -> Bilingual:
    return Bilingual(message, f"无法打开串口（{message}）")
