"""What collect says of itself at /health."""

from __future__ import annotations

from gateway.collect import metrics
from gateway.collect.items import DeviceStatus
from gateway.diagnosis.box_clock import BoxClock
from schemas.bilingual import Bilingual, chinese

NOW = 1_760_000_000_000_000


def test_the_clock_is_behind_the_last_time_stored() -> None:
    part = metrics._clock(BoxClock(lambda: NOW, NOW + 90_000_000, probe=lambda: "unsynced"))
    assert part.state == "degraded"
    assert part.reason.startswith("clock_behind: the clock is 90 s behind")
    assert chinese(part.reason).startswith("clock_behind：时钟比已存储的最后时间")
    assert "chrony" in part.fix
    assert "chrony" in chinese(part.fix)


def test_a_clock_that_nobody_keeps_is_told_and_one_that_is_kept_is_not() -> None:
    assert metrics._clock(BoxClock(lambda: NOW, 0, probe=lambda: "unsynced")).reason.startswith("unsynced: ")
    for answer in ("synced", "unknown"):
        assert metrics._clock(BoxClock(lambda: NOW, 0, probe=lambda answer=answer: answer)).state == "ok"  # type: ignore[misc]


def test_devices_that_are_not_well_are_counted_and_named() -> None:
    assert metrics._devices([], 7).state == "ok"
    bad = [DeviceStatus(f"m{i}", "recovering", NOW, "no_answer") for i in range(7)]
    part = metrics._devices(bad, 12)
    assert part.state == "degraded"
    assert part.reason == "7 of 12 devices are not well: m0, m1, m2, m3, m4, …"
    assert chinese(part.reason) == "12 个设备中 7 个异常：m0, m1, m2, m3, m4, …"


def test_a_short_word_is_explained_and_a_sentence_stays() -> None:
    assert metrics._meaning("no_answer").startswith("no_answer: The connection stands")
    assert chinese(metrics._meaning("no_answer")).startswith("no_answer：连接正常")
    sentence = Bilingual("voltage: no such register", "voltage：没有该寄存器")
    assert metrics._meaning(sentence) is sentence
    assert metrics._meaning("") == ""
    assert metrics._meaning("third_party_word") == "third_party_word"
