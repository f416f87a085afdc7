"""Devices, assets, signals and their revisions; connection intervals, progress, gaps and events."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gateway.ledger.steps import Step
from gateway.store import Reader, Writer
from gateway.store.records import AssetRecord, Connection, Reading, Revision
from schemas.wire import AssetBirth, Done, Gap, Progress
from tests.store.conftest import Target
from tests.store.feed import SECOND, T0, Feed, birth, event, signal

Read = Callable[..., list[Reading]]


def at(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


# ------------------------------------------------------------------------------------------------------------- births


def test_births_make_devices_assets_and_signals(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    assets = [AssetBirth("hall", "一号车间", "Hall 1", None, "site"), AssetBirth("press", "注塑机", "Press", "hall")]
    counter = {"counts": "cycle", "modulus": 65536}
    rich = signal(
        2, "cycle/count", type="uint64", unit="1", kind="counter", group="fast", description_zh="循环", description_en="Cycles",
        scale=0.1, offset=-5.0, address="ns=2;s=x", enum={0: ("停", "off"), 1: ("开", "on")}, counter=counter,
        range=(0.0, 100.5), deadband={"absolute": 0.5}, silence=60.0, semantic_id="0173-1#02", asset="mould",
    )  # fmt: skip
    born = birth(
        "press", signal(1, "t"), rich, name_zh="注塑机", name_en="Press", protocol="opcua", profile="euromap77",
        endpoint="opc.tcp://x", identity={"serial": "1"}, assets=assets,
    )  # fmt: skip
    assert writer.apply([feed.step(born)]).committed.births
    assert reader.assets() == [
        AssetRecord("hall", "line1", "一号车间", "Hall 1", None, "site"),
        AssetRecord("mould", "line1", "", "", None, "machine"),
        AssetRecord("press", "line1", "注塑机", "Press", "hall", "machine"),
    ]
    (device,) = reader.devices()
    assert (device.id, device.gateway, device.asset, device.name_zh, device.name_en) == (
        "press",
        "line1",
        "press",
        "注塑机",
        "Press",
    )
    assert (device.protocol, device.profile, device.endpoint, device.identity) == (
        "opcua",
        "euromap77",
        "opc.tcp://x",
        {"serial": "1"},
    )
    assert (device.retired, device.born_at, device.changed_at) == (False, at(-10), at(-10))
    plain, full = reader.signals()
    assert (plain.id, plain.name, plain.group, plain.range, plain.enum) == (1, "t", "default", None, None)
    assert (full.id, full.device, full.name, full.asset, full.group) == (2, "press", "cycle/count", "mould", "fast")
    assert (full.description_zh, full.description_en, full.semantic_id) == ("循环", "Cycles", "0173-1#02")
    assert (full.range, full.deadband, full.silence) == ((0.0, 100.5), {"absolute": 0.5}, 60.0)
    enum = {0: ("停", "off"), 1: ("开", "on")}
    revision = Revision(at(-10), "r1", "uint64", "1", "counter", 0.1, -5.0, "ns=2;s=x", enum, counter)
    assert full.revisions == [revision]
    assert (full.enum, full.counter) == (enum, counter)


def test_signal_ids_stay_across_streams_and_points(
    target: Target, writer: Writer, reader: Reader, history: Read
) -> None:
    first, second = Feed("s1"), Feed("s2")
    writer.apply([first.birth(signal(1, "a"), signal(2, "b")), first.rows((1, 0, 1.0), (2, 0, 2.0))])
    writer.apply([second.birth(signal(1, "b"), signal(2, "c")), second.birth(signal(3, "a"))])
    writer.close()
    again = target.writer()
    again.apply([second.rows((1, 1, 2.5), (3, 1, 1.5), (2, 1, 3.0)), first.rows((1, 2, 9.0))])
    assert [(row.id, row.name) for row in reader.signals()] == [(1, "a"), (2, "b"), (3, "c")]
    assert [(row.signal, row.value) for row in history(1, 2, 3)] == [
        (1, 1.0),
        (1, 1.5),
        (1, 9.0),
        (2, 2.0),
        (2, 2.5),
        (3, 3.0),
    ]


def test_revisions(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t", description_en="old"), at=at(0))])
    # the same again, as at each start: no revision; a text may change without one
    writer.apply([feed.birth(signal(1, "t", description_en="new"), at=at(100))])
    assert [(row.valid_from, row.revision) for row in reader.signals()[0].revisions] == [(at(0), "r1")]
    assert (reader.signals()[0].description_en, reader.signals()[0].born_at) == ("new", at(0))
    # a change of meaning is a new point and a new revision
    writer.apply([feed.birth(signal(2, "t", revision="r2", unit="K", scale=2.0, type="int16"), at=at(200))])
    # the gateway's clock went back: the order of revisions stays that of their births
    writer.apply([feed.birth(signal(3, "t", revision="r1"), at=at(150))])
    (one,) = reader.signals()
    assert [(row.valid_from, row.revision, row.unit, row.scale) for row in one.revisions] == [
        (at(0), "r1", "Cel", 1.0),
        (at(200), "r2", "K", 2.0),
        (at(200) + 1, "r1", "Cel", 1.0),
    ]
    assert (one.revision, one.unit, one.type) == ("r1", "Cel", "float64")


def test_retired_and_back(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u")), feed.link(False, 0)])
    writer.apply([feed.birth(signal(2, "u", retired=True))])
    assert [row.retired for row in reader.signals()] == [False, True]
    writer.apply([feed.step(birth("press", retired=True, at=at(50)))])
    assert ([row.retired for row in reader.signals()], reader.devices()[0].retired) == ([True, True], True)
    writer.apply([feed.birth(signal(3, "t"))])
    assert ([row.retired for row in reader.signals()], reader.devices()[0].retired) == ([False, True], False)
    assert [row.id for row in reader.signals()] == [1, 2]


def test_a_device_of_another_gateway_is_refused(writer: Writer, reader: Reader, history: Read) -> None:
    mine, theirs = Feed("s1", "line1"), Feed("s2", "line2")
    writer.apply([mine.birth(signal(1, "t")), mine.rows((1, 0, 1.0))])
    applied = writer.apply(
        [
            theirs.birth(signal(1, "stolen"), name_en="stolen"),
            theirs.rows((1, 1, 666.0)),
            theirs.link(False, 1),
            theirs.step([event("e1"), event("e2", device="")]),
            theirs.step([Gap("press", None, at(0), at(1), "bad")]),
            theirs.done(3),
            theirs.birth(signal(2, "t"), device="oven"),
            theirs.rows((2, 1, 5.0)),
        ]
    )
    assert (applied.rows, applied.dead_letters, applied.committed.events) == (1, 5, ["e2"])
    assert sum("belongs to gateway line1" in problem for problem in applied.problems) == 5
    assert [letter.seq for letter in reader.dead_letters()] == [1, 2, 3, 4, 5]
    assert [(row.id, row.gateway, row.name_en) for row in reader.devices()] == [
        ("oven", "line2", ""),
        ("press", "line1", ""),
    ]
    assert [(row.signal, row.value) for row in history(1, 2, 3)] == [(1, 1.0), (2, 5.0)]
    assert (reader.snapshot().progress, reader.connections()) == ([], [])
    assert all(gap.device != "press" for gap in reader.gaps())


# ------------------------------------------------------------------------------------------------------- connections


def test_connection_intervals_across_streams(writer: Writer, reader: Reader) -> None:
    first, second = Feed("s1"), Feed("s2")
    applied = writer.apply(
        [
            first.birth(signal(1, "t")),
            first.link(True, 0),
            first.link(False, 10, reason="timeout"),
            first.link(False, 12, reason="again"),
        ]
    )
    assert [(link.up, link.at) for link in applied.committed.links] == [(True, at(0)), (False, at(10)), (False, at(12))]
    open_one = Connection(1, "press", at(10), None, "again")
    assert reader.connections() == [open_one]
    assert reader.snapshot().connections == [open_one]
    writer.apply([second.birth(signal(1, "t")), second.link(True, 3600)])
    assert reader.snapshot().connections == []
    writer.apply([second.link(False, 4000), second.link(True, 3999), second.link(True, 5000), second.link(False, 6000)])
    closed = Connection(1, "press", at(10), at(3600), "again")
    rest = [Connection(2, "press", at(4000), at(4000), ""), Connection(3, "press", at(6000), None, "")]
    assert reader.connections("press") == [closed, *rest]
    assert reader.connections("oven") == []
    assert reader.connections("press", at(3599), at(3601)) == [closed]
    assert reader.connections("press", at(3600), at(3700)) == []
    assert reader.connections(start=at(9_000_000)) == rest[1:]
    assert reader.connections(limit=1) == [closed]
    assert reader.connections(limit=1, after=(closed.start, closed.id)) == rest[:1]
    assert reader.connections(order="desc", limit=2) == [rest[1], rest[0]]
    assert reader.connections(order="desc", after=(rest[0].start, rest[0].id)) == [closed]


# ------------------------------------------------------------------------------------------------- progress and gaps


def test_progress(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    both = Progress(at(6), [Done("press", "fast", at(5)), Done("press", "slow", at(1))])
    applied = writer.apply([feed.birth(signal(1, "t")), feed.done(4, "fast"), feed.step(both)])
    assert applied.committed.progress == both.done
    assert reader.snapshot().progress == both.done
    writer.apply([feed.done(6, "fast")])
    assert reader.snapshot().progress == [Done("press", "fast", at(6)), Done("press", "slow", at(1))]


def gaps_of(reader: Reader) -> list[tuple[str | None, list[int] | None, float, float | None, str]]:
    return [
        (
            gap.device,
            gap.signals,
            (gap.start - T0) / SECOND,
            None if gap.end is None else (gap.end - T0) / SECOND,
            gap.cause,
        )
        for gap in reader.gaps()
    ]


def test_collector_down(writer: Writer, reader: Reader) -> None:
    """From the last complete_to of each group to the first one of the new stream: not less, whatever happens between."""
    first, second = Feed("s1"), Feed("s2")
    groups = [signal(1, "a", group="fast"), signal(2, "b", group="fast"), signal(3, "c", group="slow")]
    writer.apply([first.birth(*groups), first.done(10, "fast"), first.done(5, "slow"), first.rows((1, 11, 1.0))])
    assert reader.gaps() == []
    writer.apply([second.birth(*groups), second.link(True, 90), second.rows((1, 100, 1.0))])
    assert gaps_of(reader) == [
        ("press", [1, 2], 10, None, "collector_down"),
        ("press", [3], 5, None, "collector_down"),
    ]
    writer.apply([second.done(101, "fast"), second.done(102, "fast")])
    assert [gap[3] for gap in gaps_of(reader)] == [101, None]
    writer.apply([second.done(160, "slow"), second.done(200, "fast")])
    assert [gap[3] for gap in gaps_of(reader)] == [101, 160]


def filled(feed: Feed, seconds: float, back_to: float, group: str) -> Step:
    """Progress that says that what was missed has been fetched."""
    return feed.step(Progress(feed.at, [Done("press", group, at(seconds), at(back_to))]))


def test_collector_down_that_was_filled_afterwards_is_withdrawn(writer: Writer, reader: Reader) -> None:
    """What is left of it has been told by a gap of its own; one that was filled only from some time on ends there."""
    first, second = Feed("s1"), Feed("s2")
    births = [signal(1, "a", group="fast"), signal(2, "b", group="slow"), signal(3, "c", group="other")]
    writer.apply([first.birth(*births), first.done(10, "fast"), first.done(5, "slow"), first.done(7, "other")])
    rest = Gap("press", [1], at(20), at(30), "collector_down")
    writer.apply([second.birth(*births)])
    assert len([gap for gap in reader.gaps() if gap.end is None]) == 3
    writer.apply(
        [
            second.step([rest]),
            filled(second, 100, 8, "fast"),
            filled(second, 100, 50, "slow"),
            second.done(100, "other"),
        ]
    )
    assert sorted(gaps_of(reader), key=lambda gap: gap[2]) == [
        ("press", [2], 5, 50, "collector_down"),
        ("press", [3], 7, 100, "collector_down"),
        ("press", [1], 20, 30, "collector_down"),
    ]


def test_messages_that_were_lost_are_not_filled_by_a_device(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "a")), feed.done(10), feed.lost(3), filled(feed, 100, 5, "default")])
    assert gaps_of(reader) == [("press", None, 10, 100, "lost")]


def test_collector_down_again_before_the_first_progress(writer: Writer, reader: Reader) -> None:
    first, second, third = Feed("s1"), Feed("s2"), Feed("s3")
    born = signal(1, "t")
    writer.apply([first.birth(born), first.done(10)])
    writer.apply([second.birth(born)])
    writer.apply([third.birth(born), third.done(300)])
    assert gaps_of(reader) == [("press", None, 10, 300, "collector_down")]


def test_collector_down_with_other_groups_afterwards(writer: Writer, reader: Reader) -> None:
    """A group that is gone: its signals are elsewhere now, so its gap ends when all groups of the device have reported."""
    first, second = Feed("s1"), Feed("s2")
    writer.apply([first.birth(signal(1, "a"), signal(2, "b")), first.done(10)])
    writer.apply([second.birth(signal(1, "a", group="fast"), signal(2, "b", group="slow"))])
    writer.apply([second.done(100, "fast")])
    assert gaps_of(reader) == [("press", None, 10, None, "collector_down")]
    writer.apply([second.done(160, "slow")])
    assert gaps_of(reader) == [("press", None, 10, 160, "collector_down")]


def test_collector_down_ends_for_a_retired_device(writer: Writer, reader: Reader) -> None:
    first, second, third = Feed("s1"), Feed("s2"), Feed("s3")
    writer.apply([first.birth(signal(1, "t")), first.done(10)])
    writer.apply([second.step(birth("press", retired=True, at=at(50)))])
    assert gaps_of(reader) == [("press", None, 10, 50, "collector_down")]
    writer.apply([third.birth(signal(1, "u"), device="oven")])
    assert len(gaps_of(reader)) == 1


def test_a_new_stream_of_another_gateway_is_no_gap(writer: Writer, reader: Reader) -> None:
    writer.apply([Feed("s1").birth(signal(1, "t"))])
    writer.apply([Feed("s2", "line2").birth(signal(1, "t"), device="oven")])
    assert reader.gaps() == []


def test_gaps_by_device_signal_and_range(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    oven = Feed("s2", "line2")
    writer.apply([feed.birth(signal(1, "a"), signal(2, "b")), oven.birth(signal(1, "t"), device="oven")])
    writer.apply(
        [
            feed.step(
                [Gap("press", [1], at(0), at(10), "overrun", 5, "queue"), Gap("press", None, at(20), at(30), "stale")]
            ),
            feed.step([Gap(None, None, at(40), at(50), "overrun"), Gap("press", [], at(60), at(55), "bad")]),
            oven.step([Gap("oven", [1], at(0), at(10), "bad")]),
        ]
    )
    ids = [gap.id for gap in reader.gaps()]
    one, two, three, four, five = ids
    assert reader.gaps()[0].detail == "queue"
    assert (reader.gaps()[3].start, reader.gaps()[3].end) == (at(60), at(60))
    found = {
        "press": [gap.id for gap in reader.gaps(devices=["press"])],
        "oven": [gap.id for gap in reader.gaps(devices=["oven"])],
        "a": [gap.id for gap in reader.gaps(signal=1)],
        "b": [gap.id for gap in reader.gaps(signal=2)],
        "t": [gap.id for gap in reader.gaps(signal=3)],
        "unknown": [gap.id for gap in reader.gaps(signal=99)],
        "range": [gap.id for gap in reader.gaps(at(10), at(20), devices=["press"])],
    }
    assert found == {
        "press": [one, two, three, four], "oven": [five], "a": [one, two, three], "b": [two, three], "t": [five],
        "unknown": [], "range": [one],
    }  # fmt: skip
    pages = (
        [gap.id for gap in reader.gaps(signal=1, limit=1)],
        [gap.id for gap in reader.gaps(signal=1, limit=2, after=one)],
    )
    assert pages == ([one], [two, three])


# ------------------------------------------------------------------------------------------------------------ events


def test_events_are_idempotent_and_numbered(target: Target, writer: Writer, reader: Reader) -> None:
    feed = Feed()
    rich = event(
        "e2",
        at(5),
        condition="c1",
        state="active",
        fields={"part": "门", "limit": math.inf},
        flags=4,
        message_zh="高温",
    )
    writer.apply([feed.birth(signal(1, "t"))])
    assert writer.apply([feed.step([event("e1"), rich, event("e1")])]).committed.events == ["e1", "e2"]
    assert writer.apply([feed.step([event("e2", at(99)), event("e3", at(-5))])]).committed.events == ["e3"]
    writer.close()
    target.writer().apply([feed.step([event("e4", at(7))])])
    assert [(row.no, row.id) for row in reader.event_feed()] == [(1, "e1"), (2, "e2"), (3, "e3"), (4, "e4")]
    assert [row.id for row in reader.event_feed(2, limit=1)] == ["e3"]
    (stored,) = reader.event_by_id(["e2"])
    assert (stored.ts, stored.condition, stored.state, stored.flags, stored.message_zh) == (
        at(5),
        "c1",
        "active",
        4,
        "高温",
    )
    assert stored.fields == {"part": "门", "limit": math.inf}
    assert (stored.gateway, stored.asset, stored.device, stored.type, stored.severity) == (
        "line1",
        "press",
        "press",
        "alarm",
        500,
    )


def test_events_by_time(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.birth(signal(2, "t"), device="oven")])
    writer.apply(
        [
            feed.step(
                [event(f"e{number}", at(number // 2), type="even" if number % 2 == 0 else "odd") for number in range(8)]
            )
        ]
    )
    writer.apply([feed.step([event("x", at(1), device="oven")])])

    def ids(**query: object) -> list[str]:
        return [row.id for row in reader.events(**query)]  # type: ignore[arg-type]

    assert ids() == ["e0", "e1", "e2", "e3", "x", "e4", "e5", "e6", "e7"]
    assert ids(start=at(1), end=at(2)) == ["e2", "e3", "x"]
    assert ids(devices=["oven"]) == ["x"]
    assert ids(types=["odd"], order="desc") == ["e7", "e5", "e3", "e1"]
    assert ids(assets=["press"], min_severity=501) == []
    seen: list[str] = []
    for order in ("asc", "desc"):
        page = reader.events(limit=4, order=order)
        while page:
            seen += [row.id for row in page]
            page = reader.events(limit=4, order=order, after=(page[-1].ts, page[-1].no))
    assert seen == [*ids(), *reversed(ids())]


@pytest.mark.parametrize("empty", [[], None])
def test_bodies_without_content(writer: Writer, reader: Reader, empty: list[Gap] | None) -> None:
    feed = Feed()
    assert writer.apply([feed.step(empty if empty is not None else Progress(at(0)))]).rows == 0
    assert writer.apply([]).committed.commit_no == 2
    assert reader.streams()[0].watermark == 1
