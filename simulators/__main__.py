"""``python -m simulators``: the workshop as a program."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from schemas.bilingual import Bilingual, spoken, terminal_language
from simulators.device import DeviceType, FaultArgument, FaultError
from simulators.registry import device_types
from simulators.workshop import BASE_PORT, Workshop, WorkshopError

__all__ = ["main"]

PROFILE_PORT = 48480

EPILOG = """\
examples:
  python -m simulators                                  all devices, ten times as fast as real ones
  python -m simulators --devices imm-01,meter-01 --speed 1
  python -m simulators --list                           which devices and faults there are
  python -m simulators --truth /tmp/truth               each device writes what it hands out
  python -m simulators --fault imm-01:slow,delay=2 --fault temp-01:off
  python -m simulators --count 3 --base-port 50000      three of each, on other ports
  python -m simulators --profile chint-dtsu666 --port 5020     a Modbus device made from a profile, shipped or your own

while running, one command a line on standard input:
  fault DEVICE KIND [name=value ...]     such as: fault plc-01 bad node=DB_Line/Placed status=BadSensorFailure
  clear DEVICE                           ends all faults of a device
  quit
The end of standard input ends nothing. Ctrl-C or SIGTERM stops the workshop.
"""


_EPILOG_ZH = """\
示例：
  python -m simulators                                  全部设备，比实际快十倍
  python -m simulators --devices imm-01,meter-01 --speed 1
  python -m simulators --list                           有哪些设备与故障
  python -m simulators --truth /tmp/truth               每个设备记录自己给出的值
  python -m simulators --fault imm-01:slow,delay=2 --fault temp-01:off
  python -m simulators --count 3 --base-port 50000      每种三台，使用其他端口
  python -m simulators --profile chint-dtsu666 --port 5020     由设备模板（内置或自己的文件）生成的 Modbus 设备

运行时可从标准输入逐行输入命令：
  fault DEVICE KIND [name=value ...]     例如：fault plc-01 bad node=DB_Line/Placed status=BadSensorFailure
  clear DEVICE                           结束该设备的全部故障
  quit
标准输入关闭不会结束运行。按 Ctrl-C 或发送 SIGTERM 停止车间。
"""
_OWN_WORDS = {
    "usage: ": "用法：", "options:": "选项：", "show this help message and exit": "显示本帮助并退出",
}  # fmt: skip
"""What argparse says by itself, and the same in Chinese."""


class _Parser(argparse.ArgumentParser):
    """A parser whose help is in the terminal's language throughout."""

    def format_help(self) -> str:
        text = super().format_help()
        if terminal_language(os.environ) == "zh":
            for en, zh in _OWN_WORDS.items():
                text = text.replace(en, zh)
        return text


def _parser() -> argparse.ArgumentParser:
    def say(zh: str, en: str) -> str:
        return spoken(Bilingual(en, zh), terminal_language(os.environ))

    parser = _Parser(
        prog="python -m simulators",
        description=say("模拟车间：设备会正常工作，也会出故障，并知道真值。", "A simulated workshop: devices that behave, misbehave and know the truth."),
        epilog=say(_EPILOG_ZH, EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--devices", default="all", metavar="LIST",
        help=say("设备 id，以逗号分隔；all 为全部（默认）", "device ids separated by commas, or all (default)"))  # fmt: skip
    add("--profile", action="append", default=[], metavar="NAME|FILE",
        help=say("不运行车间，而运行由该 Modbus 设备模板生成的设备；可重复，端口依次加一",
                 "instead of the workshop, a device made from this Modbus profile; several get ports in turn"))  # fmt: skip
    add("--port", type=int, default=PROFILE_PORT, metavar="PORT",
        help=say(f"--profile 的端口（默认 {PROFILE_PORT}）；0 表示选用空闲端口",
                 f"port of --profile (default {PROFILE_PORT}); 0 chooses a free one"))  # fmt: skip
    add("--unit", type=int, default=1, help=say("--profile 的站号（默认 1）", "unit number of --profile (default 1)"))
    add("--rtu", action="store_true",
        help=say("--profile 使用 RTU over TCP 报文", "--profile speaks RTU frames over TCP"))  # fmt: skip
    add("--speed", type=float, default=10.0,
        help=say("每秒真实时间对应的过程秒数（默认 10）", "process seconds a real second (default 10)"))  # fmt: skip
    add("--count", type=int, default=1, help=say("每种设备的台数（默认 1）", "how many of each device (default 1)"))
    add("--seed", type=int, default=1,
        help=say("过程只取决于该种子（默认 1）", "what the processes do depends on it alone (default 1)"))  # fmt: skip
    add("--host", default="127.0.0.1", help=say("监听地址（默认 127.0.0.1）", "address to bind (default 127.0.0.1)"))
    add("--base-port", type=int, default=BASE_PORT, metavar="PORT",
        help=say(f"端口由此起算（默认 {BASE_PORT}）；0 表示选用空闲端口",
                 f"ports are counted from here (default {BASE_PORT}); 0 chooses free ones"))  # fmt: skip
    add("--truth", metavar="DIR",
        help=say("将各设备给出的值写入 DIR/<设备>.ndjson", "write what each device hands out to DIR/<device>.ndjson"))  # fmt: skip
    add("--fault", action="append", default=[], metavar="DEVICE:KIND[,name=value...]",
        help=say("启动时即有的故障；可重复", "a fault to begin with; may be given several times"))  # fmt: skip
    add(
        "--list", action="store_true", help=say("列出设备、端口与故障后结束", "list devices, ports and faults, and end")
    )
    add("--json", action="store_true", help=say("以 JSON 列出", "the list as JSON"))
    add("--end-with-stdin", action="store_true",
        help=say("标准输入关闭时结束，如同其他程序的子进程",
                 "end when standard input closes, as a child of another program does"))  # fmt: skip
    return parser


def _value(text: str) -> FaultArgument:
    """A fault's argument: a number or a truth value where it looks like one, else text."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _arguments(words: Sequence[str]) -> dict[str, FaultArgument]:
    """``name=value`` words as a fault's arguments.

    Raises:
        FaultError: a word is not of that form.
    """
    pairs = [word.partition("=") for word in words]
    for (name, equals, _), word in zip(pairs, words, strict=True):
        if not name or not equals:
            raise FaultError(f"{word!r} is not of the form name=value")
    return {name: _value(value) for name, _, value in pairs}


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _list(types: dict[str, DeviceType], base_port: int, as_json: bool) -> None:
    if as_json:
        for kind in types.values():
            faults = dict(kind.faults)
            port = base_port + kind.port
            _say(device=kind.id, protocol=kind.protocol, port=port, summary=kind.summary, faults=faults)
        return
    lines: list[str] = []
    for kind in types.values():
        lines.append(f"{kind.id:<10} {kind.protocol:<20} port {base_port + kind.port}  {kind.summary}")
        lines += [f"    {name:<14} {what}" for name, what in kind.faults.items()]
    sys.stdout.write("\n".join(lines) + "\n")


def _profiled(profiles: Sequence[str], unit: int, rtu: bool) -> list[DeviceType]:
    """A device type for each profile. Raises ValueError for one that is not there, is wrong, or is not of Modbus."""
    from schemas.documents import DocumentError
    from simulators.modbus.profiled import profiled

    language = terminal_language(os.environ)
    try:
        return [
            profiled(name, number=number, framing="rtu" if rtu else "tcp", unit=unit)
            for number, name in enumerate(profiles)
        ]
    except DocumentError as error:
        raise ValueError("\n".join(problem.text(language) for problem in error.problems)) from error


async def _initial_fault(workshop: Workshop, text: str) -> None:
    target, *words = text.split(",")
    device, colon, kind = target.partition(":")
    if not colon or not kind:
        raise FaultError(f"--fault {text}: write DEVICE:KIND, such as imm-01:off or imm-01:slow,delay=2")
    await workshop.fault(device, kind, **_arguments(words))


async def _command(workshop: Workshop, line: str) -> bool:
    """Do what *line* says; whether to go on."""
    match line.split():
        case []:
            pass
        case ["quit"]:
            return False
        case ["fault", device, kind, *words]:
            await workshop.fault(device, kind, **_arguments(words))
            _say(done="fault", device=device, kind=kind)
        case ["clear", device]:
            await workshop.clear(device)
            _say(done="clear", device=device)
        case _:
            raise FaultError(
                f"{line!r} is no command; there are: fault DEVICE KIND [name=value ...], clear DEVICE, quit"
            )
    return True


def _read_input(tell: Callable[[str], object], end: bool) -> None:
    """Hand each line of standard input to *tell* until it ends, and then, if *end*, the command to quit. Runs in a thread
    that nobody waits for.

    It reads the descriptor itself: a daemon thread inside ``sys.stdin`` would hold its lock when Python ends.
    """
    rest = b""
    while True:
        try:
            data = os.read(0, 4096)
        except OSError:
            return
        if not data:
            if end:
                tell("quit")
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            tell(line.decode("utf-8", "replace"))


async def _serve(workshop: Workshop, faults: Sequence[str], end_with_stdin: bool) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        try:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        except RuntimeError:
            pass  # the loop has ended; so does the process

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, "quit")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if hasattr(signal, "SIGTTIN"):
        # in the background of a terminal, reading from it would stop us
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    async with workshop:
        for text in faults:
            await _initial_fault(workshop, text)
        for name, device in workshop.devices.items():
            _say(device=name, protocol=device.protocol, endpoint=device.endpoint, ready=True)
        _say(ready="all")
        if sys.stdin is not None:  # None when descriptor 0 was closed: it may be something else by now
            threading.Thread(target=_read_input, args=(tell, end_with_stdin), daemon=True, name="commands").start()
        going = True
        while going:
            try:
                going = await _command(workshop, await lines.get())
            except FaultError as error:
                _say(error=str(error))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workshop until told to stop; the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.list:
        _list(device_types(), options.base_port, options.json)
        return 0
    chosen: list[str | DeviceType] | None = None
    base_port = options.base_port
    if options.profile:
        if not 0 <= options.unit <= 255:
            sys.stderr.write(f"simulators: --unit {options.unit} is not a unit number from 0 to 255\n")
            return 1
        try:
            chosen = [*_profiled(options.profile, options.unit, options.rtu)]
        except ValueError as error:  # of the profile
            sys.stderr.write(f"simulators: {error}\n")
            return 1
        base_port = options.port
    elif options.devices != "all":
        chosen = [name.strip() for name in options.devices.split(",")]
    try:
        workshop = Workshop(
            chosen,
            speed=options.speed,
            seed=options.seed,
            host=options.host,
            truth_dir=options.truth,
            base_port=base_port or None,
            count=options.count,
        )
        asyncio.run(_serve(workshop, options.fault, options.end_with_stdin))
    except (WorkshopError, FaultError) as error:
        sys.stderr.write(f"simulators: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
