"""A serial port in raw mode, by the operating system's own means (POSIX termios).

pyserial would bring nothing here but a dependency: a few speeds, three parities, eight data bits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import termios
from dataclasses import dataclass

from adapters.contract import TransientError
from adapters.modbus._settings import Parity
from schemas.bilingual import Bilingual, chinese

_SPEEDS = {
    1200: termios.B1200, 2400: termios.B2400, 4800: termios.B4800, 9600: termios.B9600, 19200: termios.B19200,
    38400: termios.B38400, 57600: termios.B57600, 115200: termios.B115200,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SerialPlace:
    """A serial port and its setting: parity none, even or odd, one or two stop bits; seven data bits for ASCII frames (`ascii`) alone.

    `path` is best one of /dev/serial/by-id, which does not change when cables are moved.
    """

    path: str
    baud: int = 9600
    parity: Parity = "N"
    stop: int = 1
    bits: int = 8
    ascii: bool = False

    def __post_init__(self) -> None:
        known = self.baud in _SPEEDS and self.stop in (1, 2) and self.parity in ("N", "E", "O")
        if not known or self.bits not in ((7, 8) if self.ascii else (8,)):
            raise ValueError(
                f"{self.baud} baud, {self.bits} data bits, parity {self.parity}, {self.stop} stop bits: expected one of {sorted(_SPEEDS)}, "
                "8 (of ASCII frames also 7), N, E or O, and 1 or 2"
            )

    @property
    def setting(self) -> str:
        """Such as `9600 8N1`."""
        return f"{self.baud} {self.bits}{self.parity}{self.stop}"

    @property
    def character(self) -> float:
        """Seconds that one character takes: start bit, data bits, parity, stop bits."""
        return (1 + self.bits + (self.parity != "N") + self.stop) / self.baud

    @property
    def silence(self) -> float:
        """Seconds of silence between two frames: 3.5 characters, above 19200 baud 1.75 ms (Serial Line V1.02 §2.5.1.1). ASCII frames
        are told apart by their characters (§2.5.2): none."""
        if self.ascii:
            return 0.0
        return 3.5 * self.character if self.baud <= 19200 else 0.00175


def open_port(place: SerialPlace) -> int:
    """The file descriptor of the port: raw, not blocking, and nobody else's while it is open. Raises TransientError."""
    descriptor = -1
    try:
        descriptor = os.open(place.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _raw(descriptor, place)
        with contextlib.suppress(OSError):  # a driver may not know it; the lock stands
            fcntl.ioctl(descriptor, termios.TIOCEXCL)
    except (OSError, termios.error) as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise _failed(place.path, error) from error
    return descriptor


def close_port(descriptor: int) -> None:
    """Closes what `open_port` has opened."""
    with contextlib.suppress(OSError):  # a port that was unplugged
        fcntl.ioctl(descriptor, termios.TIOCNXCL)
    os.close(descriptor)


def _raw(descriptor: int, place: SerialPlace) -> None:
    attributes = termios.tcgetattr(descriptor)
    control = (termios.CS7 if place.bits == 7 else termios.CS8) | termios.CREAD | termios.CLOCAL
    if place.parity != "N":
        control |= termios.PARENB
    if place.parity == "O":
        control |= termios.PARODD
    if place.stop == 2:
        control |= termios.CSTOPB
    checked = termios.INPCK if place.parity != "N" else 0
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
