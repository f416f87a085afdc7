"""Dead letters: replayed exactly once, or discarded, and what is in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from gateway.config.models import StoreSettings
from gateway.ledger.steps import LeaseLostError, StoreFailedError, StoreWeatherError
from gateway.store import Reader, Writer
from gateway.store._rows import N_MAX
from gateway.store.letters import Letters, content, open_letters
from gateway.store.records import Reading
from schemas.wire import Batch, Closed, Extra, Gap, Kind, Link
from tests.store.conftest import Target
from tests.store.feed import SECOND, T0, Feed, birth, event, signal
from tests.store.test_ledger import refuse_readings, run_sql

Read = Callable[..., list[Reading]]


def letters_of(target: Target) -> Letters:
    """For decisions, beside the writer."""
    made = open_letters(target.settings, target.folder)
    target.made.append(made)  # type: ignore[arg-type]
    return made


def allow_readings(target: Target) -> None:
    """Undo `refuse_readings`."""
    if target.kind == "sqlite":
        run_sql(target, "DROP TRIGGER refuse")
    else:
        run_sql(target, "ALTER TABLE reading DROP CONSTRAINT refuse")


def test_a_refused_reading_is_stored_when_its_letter_is_replayed(
    target: Target, writer: Writer, reader: Reader, history: Read
) -> None:
    feed, letters = Feed(), letters_of(target)
    writer.apply([feed.birth(signal(1, "t")), feed.done(0)])
    refuse_readings(target, 1000)
    writer.apply([feed.rows((1, 1, 1.0), (1, 2, 5000.0), (1, 3, 3.0), extra={1: Extra(T0, 77)}), feed.done(9)])
    (letter,) = reader.dead_letters(states=["waiting"])
    assert (letter.kind, letter.state, writer.open_letters()) == (0, "waiting", 1)
    assert content(letter)[:4] == [1, T0 + 2 * SECOND, 0, 5000.0]
    assert [gap.cause for gap in reader.gaps(signal=1)] == ["undecodable"]

    assert writer.replay() == [], "nobody has asked for it"
    assert letters.request([letter.id, 999]) == [letter.id]
    assert letters.request(None) == []
    assert writer.replay() == [], "the database still refuses it"
    (again,) = reader.dead_letters()
    assert (again.state, again.settled_at) == ("waiting", None)
    assert again.note
    assert len(history()) == 2
    after = Feed("s2")
    after.at = feed.at
    writer.apply([after.birth(signal(1, "t")), after.step(Closed("s1", feed.seq, feed.hash))])
    assert reader.points("s1") == {1: "press/t"}, "kept for the letter"

    allow_readings(target)
    assert letters.request(None) == [letter.id]
    (applied,) = writer.replay()
    assert (applied.rows, applied.duplicates) == (1, 0)
    assert [row.value for row in applied.committed.rows] == [5000.0]
    assert applied.committed.commit_no == writer.commit_no == reader.snapshot().commit_no
    found = history()[1]
    assert (found.value, found.source_ts, found.raw) == (5000.0, T0, 77)
    (settled,) = reader.dead_letters(states=["replayed"])
    assert settled.settled_at is not None
    assert "stored 1" in settled.note
    assert [gap.cause for gap in reader.gaps(signal=1)] == ["collector_down"], "the other gap was that reading"
    assert (writer.replay(), letters.request(None), letters.discard(None, "x"), writer.open_letters()) == (
        [],
        [],
        [],
        0,
    )
    assert reader.points("s1") == {}, "nobody needs them any more"
    assert writer.apply([after.rows((1, 4, 4.0))]).rows == 1
    assert len(history()) == 4


def test_a_message_that_a_newer_version_reads(target: Target, writer: Writer, reader: Reader, history: Read) -> None:
    """The stream has ended since, and its points are kept for the letter."""
    feed, letters = Feed(), letters_of(target)
    body = msgspec.msgpack.encode(Batch(T0, [1, 1], [0, SECOND], [1.5, 2.5]))
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.5))])
    writer.apply(
        [feed.step(poison="encoding 1 is not known", raw=body, kind=Kind.READINGS, enc=99), feed.rows((1, 5, 5.0))]
    )
    after = Feed("s2")
    after.at = feed.at
    writer.apply([after.birth(signal(1, "t")), after.step(Closed("s1", feed.seq, feed.hash))])
    assert reader.points("s1") == {1: "press/t"}
    letters.request(None)
    assert writer.replay() == []
    assert "99" in reader.dead_letters()[0].note
    assert len(history()) == 2
    run_sql(target, "UPDATE dead_letter SET enc = 0")
    letters.request(None)
    (applied,) = writer.replay()
    assert (applied.rows, applied.duplicates, applied.late) == (1, 1, 1)
    assert [row.value for row in history()] == [1.5, 2.5, 5.0]
    assert [gap.cause for gap in reader.gaps()].count("undecodable") == 1, "what else was lost with it is not known"


def test_births_events_and_gaps_of_a_device_that_was_anothers(
    target: Target, writer: Writer, reader: Reader, history: Read
) -> None:
    owner, feed, letters = Feed("s0", "line0"), Feed(), letters_of(target)
    writer.apply([owner.birth(signal(1, "t"))])
    writer.apply(
        [
            feed.birth(signal(7, "t"), signal(8, "u")),
            feed.rows((7, 1, 1.0), (8, 2, 2.0)),
            feed.step([event("e1")]),
            feed.step([Gap("press", None, T0, T0 + SECOND, "overrun")]),
            feed.link(False, 3),
        ]
    )
    assert [letter.kind for letter in reader.dead_letters()] == [
        Kind.BIRTH, Kind.READINGS, Kind.READINGS, Kind.EVENT, Kind.GAP, Kind.LINK,
    ]  # fmt: skip
    letters.request(None)
    assert writer.replay() == []
    # the owner was renamed; the device has been born of the new one, later
    run_sql(target, "UPDATE device SET gateway = 'line1'")
    fresh = Feed("s3")
    fresh.at = feed.at
    fresh_writer = target.writer()
    fresh_writer.apply([fresh.step(birth("press", signal(1, "t"), at=T0, name_en="New"))])
    asked = letters.request(None)
    done = fresh_writer.replay()
    assert [one.rows for one in done] == [0, 1, 1, 0, 0]
    assert [(row.signal, row.value) for row in history(1, 2)] == [(1, 1.0), (2, 2.0)]
    assert [item.id for item in reader.events()] == ["e1"]
    assert [gap.cause for gap in reader.gaps() if gap.cause == "overrun"] == ["overrun"]
    assert reader.devices()[0].name_en == "New", "an older birth takes nothing back"
    (link,) = reader.dead_letters(states=["waiting"])
    assert (link.id, link.kind) == (asked[-1], Kind.LINK)
    assert "discard" in link.note
    assert reader.snapshot().connections == []
    assert letters.discard([link.id], "it was off that day") == [link.id]
    assert reader.dead_letters(states=["discarded"])[0].note == "it was off that day"


def test_a_replay_that_is_cut_is_done_again_or_not_at_all(
    target: Target, writer: Writer, reader: Reader, history: Read
) -> None:
    feed, letters = Feed(), letters_of(target)
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))])
    writer.apply([feed.rows((2, 1, 2.0))])
    writer.apply([feed.step(birth("press", signal(2, "t")))])
    letters.request(None)
    run_sql(target, "ALTER TABLE gap RENAME TO elsewhere")
    assert writer.replay() == []
    run_sql(target, "ALTER TABLE elsewhere RENAME TO gap")
    (letter,) = reader.dead_letters()
    assert (len(history()), letter.state, "gap" in letter.note) == (1, "waiting", True)
    letters.request(None)

    def cut(*_: object) -> None:
        raise StoreWeatherError("cut")

    sa.event.listen(writer._engine, "commit", cut)
    with pytest.raises(StoreWeatherError):
        writer.replay()
    sa.event.remove(writer._engine, "commit", cut)
    assert (len(history()), reader.dead_letters()[0].state) == (1, "requested")
    other = target.writer("ingest-1")
    with pytest.raises(LeaseLostError):
        writer.replay()
    assert (len(history()), reader.dead_letters()[0].state) == (1, "requested")
    assert [one.rows for one in other.replay()] == [1]
    assert [row.value for row in history()] == [1.0, 2.0]
    assert letters.withdraw([1]) == []


def test_what_is_asked_for_can_be_taken_back(target: Target, writer: Writer, reader: Reader) -> None:
    feed, letters = Feed(), letters_of(target)
    writer.apply([feed.birth(signal(1, "t")), feed.step(poison="?", raw=b"\xc1", kind=2**40, enc=0)])
    (letter,) = reader.dead_letters()
    assert (letter.kind, content(letter)) == (None, None)
    assert letters.request(None) == [letter.id]
    assert letters.discard(None, "x") == [], "ingest may be at it"
    assert letters.withdraw([letter.id]) == [letter.id]
    assert letters.discard(None, "nobody can read it") == [letter.id]
    assert writer.open_letters() == 0


def test_no_n_is_left_again(writer: Writer, reader: Reader, target: Target) -> None:
    """What cannot be stored the second time either waits on, and leaves no second letter."""
    feed, letters = Feed(), letters_of(target)
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0, 0, 0, N_MAX)), feed.rows((1, 0, 2.0, 0, 0, N_MAX))])
    letters.request(None)
    assert writer.replay() == []
    (letter,) = reader.dead_letters()
    assert (letter.state, letter.note) == ("waiting", "no n is left for this ts")


def test_there_is_no_store_to_decide_in(tmp_path: Path) -> None:
    with pytest.raises(StoreFailedError, match="no such file"):
        open_letters(StoreSettings(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_contents_are_shown_by_the_names_of_their_fields(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([Feed("s0", "line0").birth(signal(1, "t")), feed.step(Link("press", True, 5, "why"))])
    (letter,) = reader.dead_letters()
    assert content(letter) == {"device": "press", "up": True, "at": 5, "reason": "why"}
