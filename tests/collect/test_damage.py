"""A damaged outbox as collect tells it: an event, a state, and an end of the process when it is found while it runs."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.collect.damage import Damage
from gateway.collect.recorder import Recorder
from gateway.collect.role import open_outbox
from gateway.config.models import Config, GatewaySettings
from gateway.ledger.opening import open_or_salvage
from gateway.ledger.outbox import Outbox, OutboxDamagedError, OutboxError, OutboxFullError
from gateway.roles import CannotStartError
from schemas.bilingual import chinese
from schemas.wire import Kind, Link
from tests.collect.test_recorder import noise, recording


def damaged(path: Path) -> None:
    """An outbox of three messages, of which one is torn."""
    box = Outbox(path)
    box.begin()
    for _ in range(3):
        box.append(Kind.PROGRESS, b"\x92\x01\x90")
    box.commit()
    box.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE message SET body = x'c0' WHERE seq = 2")
    db.commit()
    db.close()


def test_it_is_told_once_and_shown_until_the_file_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    damaged(path)
    box, salvaged = open_or_salvage(path, "power", 1_000_000)
    box.close()
    damage = Damage(salvaged, path)
    event = damage.event(5)
    assert event is not None
    assert (event.type, event.ts, event.severity) == ("outbox_damaged", 5, 800)
    assert "2 messages saved, 1 known to be missing" in event.message_en
    assert "已保存 2 条消息，已知缺少 1 条" in event.message_zh
    assert event.fields["file"] == "outbox.sqlite.damaged-19700101T000001Z"
    later = Damage(None, path)
    assert later.event(6) is None, "told once only"
    for one in (damage, later):
        notice = one.notice()
        assert notice is not None
        assert notice.state == "degraded"
        assert "damaged-19700101T000001Z" in notice.fix
        assert "删除" in chinese(notice.fix)
    (tmp_path / "outbox.sqlite.damaged-19700101T000001Z").unlink()
    assert damage.notice() is None
    assert later.notice() is None
    assert Damage(None, path).notice() is None


async def test_the_state_shows_it_while_all_is_well_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    damaged(path)
    box, salvaged = open_or_salvage(path, "power", 1_000_000)
    box.close()
    async with recording(tmp_path) as recorder:
        recorder.notice = Damage(salvaged, path).notice()
        await recorder.put(noise(0, 10))
        await recorder.commit()
        assert recorder.health is recorder.notice
        recorder.notice = None
        await recorder.put(noise(10, 10))
        await recorder.commit()
        assert recorder.health.state == "ok"


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [(OutboxFullError("full", "free space"), OutboxFullError), (OutboxError("newer", "go back"), CannotStartError)],
    ids=["a full disk is tried again", "a newer version needs a person"],
)
def test_what_ends_the_gateway_and_what_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: OutboxError, becomes: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise raised

    monkeypatch.setattr("gateway.collect.role.open_or_salvage", refuse)
    config = Config(gateway=GatewaySettings(id="gw"))
    with pytest.raises(becomes):
        open_outbox(tmp_path, config)


async def test_damage_found_by_a_commit_ends_the_process_and_does_not_try_for_ever(tmp_path: Path) -> None:
    """The next start mends it; until then nothing was called durable that is not."""
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.begin()
    outbox.commit()
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    outbox._db.execute("PRAGMA cache_size=0")
    with path.open("r+b") as file:  # every page but the first
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    durable: list[int] = []
    with ThreadPoolExecutor(1) as thread:
        recorder = Recorder(outbox, thread, budget=10**9, policy="oldest", now_us=lambda: 7)
        task = asyncio.create_task(recorder.run())
        await recorder.put(Link("d", True, 1), lambda: durable.append(1))
        with pytest.raises(OutboxDamagedError, match="malformed"):
            async with asyncio.timeout(10):
                await task
    outbox.close()
    assert durable == []
    assert (tmp_path / "outbox.sqlite.damaged").exists()
    box, salvaged = open_or_salvage(path, "power", 1_000_000)
    box.close()
    assert salvaged is not None
