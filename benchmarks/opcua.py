"""OPC UA from the notification to the durable outbox, beside asyncua's own subscription with an empty handler and iterated.

The server is a process of its own that offers every value ten times a second: 1,000 items (10,000 values/s) and 10,000 items (100,000
values/s). All three clients take the same stream, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._processes import Told, end, module, start

SECONDS = 8.0 if SHORT else 30.0
PERIOD = 0.1
SIZES = (1_000, 10_000)
AIM = 1 / 6
"""CPU for each value, as a part of that of the empty handler."""


def one(kind: str, items: int) -> dict[str, Any]:
    """Runs one client against a server of its own; what it measured, and what the server and the outbox say of loss."""
    server = Told("benchmarks._opcua_replay", str(items), str(PERIOD))
    client = start(
        module("benchmarks._opcua_client", kind, server.ready["endpoint"], str(items), str(PERIOD), str(SECONDS))
    )
    try:
        measured = _line(client)
        told = server.ask("hold")
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
        found = _line(client) if kind == "gateway" else {}
        lost = sum(lost * size for _, size, lost in told["streams"])
        return {**measured, **found, "lost": lost, "offered": sum(size for _, size, _ in told["streams"]) / PERIOD}
    finally:
        end(client)
        server.end()


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise RuntimeError(f"the client ended with {process.wait()}")


def main() -> int:
    """Exit code 1 when the gateway lost or doubled a value."""
    say(load_average())
    figures, broken = [], False
    for items in SIZES:
        runs = {}
        for kind in ("handler", "iterator", "gateway"):
            run = runs[kind] = one(kind, items)
            cpu, rate = 1e6 * run["cpu"] / max(run["values"], 1), run["values"] / run["wall"]
            say(
                f"{items} items, {kind}: {rate:,.0f} of {run['offered']:,.0f} values/s, {cpu:.2f} µs CPU a value, "
                f"{100 * run['cpu'] / run['wall']:.0f} % of a core; {run['lost']} lost in the server's queues"
                + (f"; outbox: {run['missing']} missing, {run['twice']} twice" if kind == "gateway" else "")
            )
        per_value = {kind: 1e6 * run["cpu"] / max(run["values"], 1) for kind, run in runs.items()}
        ours = runs["gateway"]
        name = f"opcua.{items}"
        figures += [
            Figure("opcua.cpu_per_value" if items == SIZES[-1] else f"{name}.cpu_per_value", per_value["gateway"], "µs", per_value["handler"], AIM),
            Figure(f"{name}.cpu_per_value.iterator", per_value["gateway"], "µs", per_value["iterator"]),
            Figure(f"{name}.rate", ours["values"] / ours["wall"], "values/s", None, items / PERIOD),
            Figure(f"{name}.lost", float(ours["lost"] + ours["missing"]), "values", None, 0.0),
            Figure(f"{name}.lost.handler", float(runs["handler"]["lost"]), "values"),
            Figure(f"{name}.lost.iterator", float(runs["iterator"]["lost"]), "values"),
        ]  # fmt: skip
        broken = broken or bool(ours["lost"] or ours["missing"] or ours["twice"] or ours["empty"])
    say(load_average())
    tell(figures)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
