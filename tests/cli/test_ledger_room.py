"""`guantong ledger` tells for how long the outbox has room, as the running collector reckons it."""

from __future__ import annotations

import pytest

from gateway.cli._ledger import _room

FIGURES = {"guantong_outbox_waiting_bytes": {"": 2e7}, "guantong_outbox_budget_bytes": {"": 8.58e9}}
ROOM = {"guantong_outbox_room_seconds": {"": 62 * 86_400.0}}


def test_room_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUANTONG_LANGUAGE", "en")
    assert _room({}) == ""
    assert _room(FIGURES) == "the outbox holds 0.02 GB of 8.58 GB"
    expected = "the outbox holds 0.02 GB of 8.58 GB; room for 62 days at the present rate if the store is away"
    assert _room(FIGURES | ROOM) == expected
    monkeypatch.setenv("GUANTONG_LANGUAGE", "zh")
    assert _room(FIGURES | ROOM) == "发件箱已有 0.02 GB，共 8.58 GB；若存储不可用，按目前的速度还可保存 62 天"
