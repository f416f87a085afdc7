"""Network lines that break: TCP proxies in a process of their own, so that what measures does not delay what is measured.

`python -m tests.faults.lines NAME=LISTEN:TARGET …` makes a proxy between two ports of loopback for each, prints `{"ready": true}`, and then does what
its input says, a line at a time: `cut NAMES`, `half_open NAMES`, `refuse NAMES`, `restore NAMES`, `delay SECONDS NAMES`, `rate BYTES NAMES` (bytes a
second in each direction). NAMES are separated by commas. Each line is answered by `{"done": …}`. It ends when its input closes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Mapping

from tests.servers.fault_proxy import FaultProxy
from tests.servers.processes import ChildProcess, free_port
from tests.servers.waiting import eventually


class Lines:
    """The proxies of an installation by name. Leaving it ends them."""

    def __init__(self, targets: Mapping[str, int]) -> None:
        """`targets`: name of each line, and the port of 127.0.0.1 to which it leads."""
        self.ports = {name: free_port() for name in targets}
        arguments = [f"{name}={self.ports[name]}:{port}" for name, port in targets.items()]
        self._child = ChildProcess([sys.executable, "-m", "tests.faults.lines", *arguments], keep=1_000_000)
        self._child.first_json()

    def cut(self, names: Iterable[str]) -> None:
        """Reset what is open, once."""
        self._say("cut", names)

    def half_open(self, names: Iterable[str]) -> None:
        """Deliver nothing more and keep everything open: what is sent meanwhile is delivered at `restore`."""
        self._say("half_open", names)

    def refuse(self, names: Iterable[str]) -> None:
        """Refuse new connections."""
        self._say("refuse", names)

    def restore(self, names: Iterable[str]) -> None:
        """As if nothing had been; what waits is delivered."""
        self._say("restore", names)

    def delay(self, seconds: float, names: Iterable[str]) -> None:
        """Deliver everything later, in each direction."""
        self._say(f"delay {seconds}", names)

    def rate(self, bytes_a_second: float, names: Iterable[str]) -> None:
        """Deliver no more than this, in each direction."""
        self._say(f"rate {bytes_a_second}", names)

    def close(self) -> None:
        """End them all."""
        self._child.kill()

    def _say(self, command: str, names: Iterable[str]) -> None:
        before = len(self._child.lines)
        line = f"{command} {','.join(names)}"
        self._child.write_line(line)
        answer = eventually(lambda: self._child.lines[before:], 15, what=line)
        assert '"done"' in answer[0], f"{line}: {answer}"


def _do(proxies: Mapping[str, FaultProxy], line: str) -> None:
    what, *amounts, names = line.split()
    for name in names.split(","):
        proxy = proxies[name]
        match what:
            case "cut":
                proxy.cut()
            case "half_open":
                proxy.half_open()
            case "refuse":
                proxy.refuse()
            case "restore":
                proxy.restore()
            case "delay":
                proxy.delay(float(amounts[0]))
            case "rate":
                proxy.rate(float(amounts[0]))
            case _:
                raise ValueError(f"{line!r}: no such fault of a line")


def _say(**told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(targets: list[str]) -> None:
    """Serve until the input closes."""
    proxies: dict[str, FaultProxy] = {}
    for target in targets:
        name, _, ports = target.partition("=")
        listen, _, to = ports.partition(":")
        proxies[name] = FaultProxy(int(to))
        proxies[name].port = int(listen)
        # Else an answer to a question that was given up would count as handed out.
        proxies[name].forgets = True
    with contextlib.ExitStack() as stack:
        for proxy in proxies.values():
            stack.enter_context(proxy)
        _say(ready=True)
        for line in sys.stdin:
            _do(proxies, line)
            _say(done=line.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
