"""How a benchmark tells its result: a readable line as it goes, and at the end one line of JSON for each figure."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

SHORT = bool(os.environ.get("SHORT"))
"""Whether the benchmark is to end within a minute."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `ratio` is value by yardstick; a yardstick is measured in the same run, an aim is what design asks for."""

    name: str
    value: float
    unit: str
    yardstick: float | None = None
    aim: float | None = None

    def line(self) -> str:
        """`{"name", "value", "yardstick", "ratio", "aim", "unit"}`, numbers with four digits."""
        ratio = self.value / self.yardstick if self.yardstick else None
        fields = {**asdict(self), "ratio": ratio}
        order = ("name", "value", "yardstick", "ratio", "aim", "unit")
        return json.dumps({key: _rounded(fields[key]) for key in order}, ensure_ascii=False)


def _rounded(value: float | str | None) -> float | str | None:
    return float(f"{value:.4g}") if isinstance(value, float) and abs(value) < 1e4 else value


def say(text: str) -> None:
    """A line for whoever watches; standard output is the figures' alone."""
    print(text, file=sys.stderr, flush=True)


def tell(figures: list[Figure]) -> None:
    """The figures, as the last lines of the benchmark."""
    for figure in figures:
        print(figure.line(), flush=True)


def load_average() -> str:
    """What else kept this machine busy in the last minute, as a warning beside the figures."""
    return f"load average of the last minute {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
