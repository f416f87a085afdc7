"""What explains a gap, and what does not: each fault its own causes in its own time, the busy machine only what belongs to devices."""

from __future__ import annotations

import pytest

from tests.faults.campaign import FAULTS
from tests.faults.oracle import Fell, Window, judge

S = 1_000_000
CUT = Fell(FAULTS["cut: device - collect"], 100 * S, 103 * S)
KILL = Fell(FAULTS["kill -9: collect"], 102 * S, 104 * S)
SERVE = Fell(FAULTS["kill -9: serve"], 100 * S, 103 * S)
RUN, STARVED = Window(90 * S, 130 * S), Window(90 * S, 130 * S, starved=True)


@pytest.mark.parametrize(
    ("cause", "start", "end", "fell", "window", "judged"),
    [
        ("disconnected", 98, 106, [CUT], RUN, "fault"),
        ("disconnected", 96, 106, [CUT], RUN, "other time"),
        ("disconnected", 98, 124, [CUT], RUN, "other time"),
        ("disconnected", 98, 124, [CUT], STARVED, "machine"),
        ("disconnected", 96, 106, [SERVE], RUN, "unexplained"),
        ("disconnected", 96, 106, [SERVE], STARVED, "machine"),
        ("disconnected", 70, 106, [SERVE], STARVED, "unexplained"),
        ("disconnected", 98, None, [CUT], STARVED, "unexplained"),
        (None, 98, 106, [CUT], RUN, "fault"),
        (None, 98, 106, [SERVE], RUN, "unexplained"),
        (None, 98, 106, [SERVE], STARVED, "machine"),
        ("collector_down", 98, 101, [SERVE], STARVED, "unexplained"),
        ("collector_down", 100, 112, [CUT, KILL], RUN, "fault"),
        ("collector_down", 98, 112, [CUT, KILL], RUN, "other time"),
        ("collector_down", 100, 128, [KILL], STARVED, "machine"),
        ("dropped", 100, 101, [CUT], STARVED, "unexplained"),
        ("overrun", 100, 101, [SERVE], RUN, "fault"),
    ],
)
def test_what_explains_a_gap(
    cause: str | None, start: int, end: int | None, fell: list[Fell], window: Window, judged: str
) -> None:
    assert judge(cause, start * S, None if end is None else end * S, fell, window) == judged


def test_what_sends_by_itself_may_have_been_silent_for_a_keep_alive_more() -> None:
    assert judge("disconnected", 95 * S, 106 * S, [CUT], RUN, subscribed=True) == "fault"
    assert judge("disconnected", 93 * S, 106 * S, [CUT], RUN, subscribed=True) == "other time"
