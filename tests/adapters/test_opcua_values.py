"""Values, times, statuses, addresses and limits against asyncua's server."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import ConfigError, DeviceState, Samples
from adapters.opcua import OpcUaAdapter
from schemas import status as codes
from schemas.wire import Flag
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import MACHINE, OTHER, SIZE, SmallServer
from tests.servers.processes import free_port

T = ua.VariantType
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LATE = dt.datetime(9998, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
EARLY = dt.datetime(1601, 1, 2, tzinfo=dt.UTC)
PREFIXES = {"m": MACHINE, "o": OTHER}
BAD_NO_MATCH = 0x806F0000


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(server: SmallServer) -> Iterator[None]:
    server.limits.clear()
    server.counts.clear()
    server.calls.clear()
    yield
    server.end_sessions()


# --------------------------------------------------------------------------------------------------------------- values


async def test_every_type_arrives_as_plain_python(server: SmallServer) -> None:
    guid = uuid.uuid4()
    time = dt.datetime(1969, 7, 20, 20, 17, 40, 123456, tzinfo=dt.UTC)
    wanted: dict[str, tuple[Any, Any, Any]] = {
        "t_u64": (2**64 - 1, T.UInt64, 2**64 - 1),
        "t_i64": (-(2**63), T.Int64, -(2**63)),
        "t_bool": (True, T.Boolean, True),
        "t_float": (0.1, T.Float, 0.10000000149011612),
        "t_text": ("停机 ⚙", T.String, "停机 ⚙"),
        "t_bytes": (b"\x00\xff", T.ByteString, b"\x00\xff"),
        "t_time": (time, T.DateTime, (time - EPOCH) // dt.timedelta(microseconds=1)),
        "t_guid": (guid, T.Guid, str(guid)),
        "t_local": (ua.LocalizedText("满"), T.LocalizedText, "满"),
        "t_node": (ua.NodeId("A", server.index(OTHER)), T.NodeId, f"nsu={OTHER};s=A"),
        "t_array": ([1.5, 2.5], T.Double, [1.5, 2.5]),
        "t_range": (ua.Range(1.0, 2.0), T.ExtensionObject, {"Low": 1.0, "High": 2.0}),
        "t_late": (LATE, T.DateTime, (LATE - EPOCH) // dt.timedelta(microseconds=1)),
        "t_early": (EARLY, T.DateTime, (EARLY - EPOCH) // dt.timedelta(microseconds=1)),
        "t_qualified": (ua.QualifiedName("Placed", 2), T.QualifiedName, "Placed"),
        "t_expanded": (ua.ExpandedNodeId("A", server.index(OTHER)), T.ExpandedNodeId, f"nsu={OTHER};s=A"),
        "t_status": (ua.StatusCode(codes.BAD_TIMEOUT), T.StatusCode, codes.BAD_TIMEOUT),
        "t_xml": (ua.XmlElement("<a>停</a>"), T.XmlElement, "<a>停</a>"),
        "t_matrix": ([[1, 2, 3], [4, 5, 6]], T.Int16, [[1, 2, 3], [4, 5, 6]]),
        "t_texts": (["停", ""], T.String, ["停", ""]),
        "t_empty": ("", T.String, ""),
    }
    for name, (value, kind, _) in wanted.items():
        server.add(name, value, kind)
    spec = link(server.endpoint, device([node(name) for name in wanted]))
    async with Collector(spec) as host:
        await host.until(lambda: all(host.rows(i) for i in range(len(wanted))))
        for i, (name, (_, _, expected)) in enumerate(wanted.items()):
            row = host.rows(i)[0]
            assert (row["value"], row["status"]) == (expected, 0), name
            assert type(row["value"]) is type(expected), name
        read = await host.adapter.read(range(len(wanted)))
        assert list(read.values) == [expected for _, _, expected in wanted.values()]


async def test_a_time_that_means_none_is_none(server: SmallServer) -> None:
    for name, time in (
        ("t_first", dt.datetime(1601, 1, 1, tzinfo=dt.UTC)),
        ("t_last", dt.datetime.max.replace(tzinfo=dt.UTC)),
    ):
        server.add(name, time, T.DateTime)
    async with Collector(link(server.endpoint, device([node("t_first"), node("t_last")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert [host.rows(i)[0]["value"] for i in range(2)] == [None, None]


async def test_reading_raises_neither_for_uncertain_nor_for_bad(server: SmallServer) -> None:
    """asyncua's own read_value raises for both."""
    server.write("v6", 5, StatusCode=ua.StatusCode(codes.UNCERTAIN_LAST_USABLE_VALUE))
    server.write("v7", None, T.Null, StatusCode=ua.StatusCode(codes.BAD_SENSOR_FAILURE))
    async with Collector(link(server.endpoint, device([node("v6"), node("v7")]))) as host:
        read = await host.adapter.read([0, 1])
        assert (list(read.values), list(read.status or ())) == (
            [5, None], [codes.UNCERTAIN_LAST_USABLE_VALUE, codes.BAD_SENSOR_FAILURE],
        )  # fmt: skip
        # whole notifications at INFO would be half of the cost of a value, and a full disk
        assert not logging.getLogger("asyncua.client").isEnabledFor(logging.INFO)


async def test_source_times_statuses_and_initial_flag(server: SmallServer) -> None:
    old = dt.datetime(2020, 2, 3, 4, 5, 6, 789_000, tzinfo=dt.UTC)
    server.write("v0", 11, SourceTimestamp=old)
    async with Collector(link(server.endpoint, device([node("v0"), node("v1")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        (first,) = host.rows(0)
        assert first["value"] == 11
        assert first["source"] == (old - EPOCH) // dt.timedelta(microseconds=1)
        assert first["flags"] == Flag.INITIAL
        server.write("v0", None, T.Null, StatusCode=ua.StatusCode(codes.BAD_SENSOR_FAILURE))
        server.write("v1", 5, StatusCode=ua.StatusCode(codes.UNCERTAIN_LAST_USABLE_VALUE))
        await host.until(lambda: len(host.rows(0)) == 2 and len(host.rows(1)) == 2)
        assert (host.rows(0)[1]["value"], host.rows(0)[1]["status"]) == (None, codes.BAD_SENSOR_FAILURE)
        assert (host.rows(1)[1]["value"], host.rows(1)[1]["status"]) == (5, codes.UNCERTAIN_LAST_USABLE_VALUE)
        assert host.rows(1)[1]["flags"] == 0
        assert not host.troubles()


async def test_without_source_time_the_servers_is_taken_and_said(server: SmallServer) -> None:
    stamp = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    async with Collector(link(server.endpoint, device([node("v0"), node("v1")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        server.write("v0", 12, SourceTimestamp=None, ServerTimestamp=stamp)
        server.write("v1", 13, SourceTimestamp=None, ServerTimestamp=None)
        await host.until(lambda: host.last(0) == 12 and host.last(1) == 13)
        assert host.rows(0)[-1]["source"] == (stamp - EPOCH) // dt.timedelta(microseconds=1)
        assert host.rows(0)[-1]["flags"] == Flag.NO_SOURCE_TIME
        assert host.rows(1)[-1]["source"] is None
        assert host.rows(1)[-1]["flags"] == Flag.NO_SOURCE_TIME
        read = await host.adapter.read([0])
        assert list(read.flags or []) == [Flag.NO_SOURCE_TIME]


async def test_overflow_bit_is_a_flag_and_a_loss(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device([node("v0"), node("v1")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        server.write("v0", 21, StatusCode=ua.StatusCode(0x00000480))
        server.write("v1", 22, StatusCode=ua.StatusCode(0x00000580))
        await host.until(lambda: host.last(0) == 21 and host.last(1) == 22)
        assert host.rows(0)[-1]["flags"] == Flag.OVERFLOW
        assert host.rows(0)[-1]["status"] == 0
        assert host.rows(1)[-1]["status"] == 0x00000500  # the limit bits stay
        await host.until(lambda: {point for loss in host.lost() for point in loss.points or ()} == {0, 1})
        losses = host.lost()
        assert all(loss.cause == "overrun" and loss.start <= loss.end for loss in losses)
        before = host.rows(0)[0]["received"]
        assert losses[0].start <= before
        assert losses[-1].end >= max(host.rows(point)[-1]["source"] for point in (0, 1))


async def test_several_values_between_two_publishes_stay_in_order(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device([node("v2")], period=0.2))) as host:
        await host.until(lambda: host.rows(0))
        written = list(range(1000, 1008))
        for value in written:
            server.write("v2", value)
        await host.until(lambda: host.last(0) == written[-1])
        assert host.values(0)[1:] == written
        assert not host.lost()


# ------------------------------------------------------------------------------------------------------------ addresses


async def test_paths_prefixes_and_wildcard_root(server: SmallServer) -> None:
    one = device(["m:Data/m:v3"], root="o:Hall/m:Press_*", namespaces=PREFIXES)
    two = device([node("v4")], name="other", first=1)
    async with Collector(link(server.endpoint, one, two)) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert {(item.device, item.group) for item in host.of(Samples)} == {("press", "fast"), ("other", "fast")}
        assert host.adapter.endpoint("other") == server.endpoint


async def test_escaped_names(server: SmallServer) -> None:
    server.add("a/b:c&d", 77, T.Int32)
    async with Collector(link(server.endpoint, device(["m:a&/b&:c&&d"], namespaces=PREFIXES))) as host:
        await host.until(lambda: host.last(0) == 77)


async def test_a_path_to_nowhere_costs_only_its_point(server: SmallServer) -> None:
    spec = link(server.endpoint, device(["o:Hall/m:Nope", "o:Hall/m:Press_A/m:Data/m:v1"], namespaces=PREFIXES))
    async with Collector(spec) as host:
        await host.until(lambda: host.rows(0) and host.rows(1) and host.troubles())
        assert host.rows(0)[0]["status"] == BAD_NO_MATCH
        assert "o:Hall/m:Nope" in (host.troubles()[0][1] or "")
        read = await host.adapter.read([1, 0])
        assert [status >> 30 for status in read.status or ()] == [0, 2]


async def test_an_unknown_namespace_costs_only_its_points(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(["nsu=urn:nobody;s=x", node("v1")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1) and host.troubles())
        assert host.rows(0)[0]["status"] == codes.BAD_NODE_ID_UNKNOWN
        assert "urn:nobody" in (host.troubles()[0][1] or "")


async def test_a_missing_root_is_a_device_that_is_down_until_it_comes(server: SmallServer) -> None:
    lost = device(["m:Level"], root="m:Tank_*", name="tank", namespaces=PREFIXES)
    good = device([node("v1")], first=1)
    async with Collector(link(server.endpoint, lost, good, item_retry=0.1)) as host:
        await host.until(lambda: host.rows(1) and host.of(DeviceState))
        (state,) = host.of(DeviceState)
        assert (state.device, state.up, state.reason) == ("tank", False, "root_not_found")
        assert state.fix_en
        assert state.fix_zh

        async def build() -> None:
            tank = await server.server.nodes.objects.add_object(server.index(MACHINE), "Tank_7")
            await tank.add_variable(server.node("level"), server.name("Level"), ua.Variant(3.5, T.Double))

        server.run(build())
        await host.until(lambda: host.last(0) == 3.5)
        assert [state.up for state in host.of(DeviceState)] == [False, True]


async def test_an_ambiguous_root_names_the_choices(server: SmallServer) -> None:
    async def build() -> None:
        for name in ("Saw_1", "Saw_2"):
            await server.server.nodes.objects.add_object(server.index(MACHINE), name)

    server.run(build())
    async with Collector(link(server.endpoint, device(["m:x"], root="m:Saw_*", namespaces=PREFIXES))) as host:
        await host.until(lambda: host.of(DeviceState))
        (state,) = host.of(DeviceState)
        assert state.reason == "root_ambiguous"
        assert "Saw_1, Saw_2" in state.fix_en


@pytest.mark.parametrize(
    ("address", "root", "found"),
    [
        ({"path": "x:Data"}, None, "'x'"),
        ({"path": "m:Data//m:v"}, None, "empty name"),
        ({"node": "g=123456789012345678901234567890123456"}, None, "is not a NodeId"),
        ({"path": "m:Data"}, "q:Root", "'q'"),
    ],
)
def test_what_is_wrong_without_a_server_is_said_at_once(address: dict[str, str], root: str | None, found: str) -> None:
    spec = link("opc.tcp://127.0.0.1:1/", device([address], root=root, namespaces=PREFIXES))
    with pytest.raises(ConfigError, match=found) as caught:
        OpcUaAdapter(spec)
    assert "press" in str(caught.value)


async def test_namespaces_may_be_numbered_otherwise_after_a_restart() -> None:
    port = free_port()
    both = device([node("v1"), "o:Hall/m:Press_A/m:Data/m:v2"], namespaces=PREFIXES)
    host = Collector(link(f"opc.tcp://127.0.0.1:{port}/", both))
    for order in ((MACHINE, OTHER), (OTHER, "urn:new", MACHINE)):
        with SmallServer(namespaces=order, port=port):
            async with host:
                await host.until(lambda: host.values(0) == [1] and host.values(1) == [2])
                assert all(row["status"] == 0 for row in host.rows(0) + host.rows(1))


# --------------------------------------------------------------------------------------------------------------- limits


async def test_announced_limits_are_kept(server: SmallServer) -> None:
    for i in range(35):
        server.add(f"n{i}", i, T.Int32)
    server.announce(
        MaxNodesPerRead=10, MaxNodesPerBrowse=10, MaxMonitoredItemsPerCall=10,
        MaxNodesPerTranslateBrowsePathsToNodeIds=10,
    )  # fmt: skip
    try:
        paths = [f"m:n{i}" for i in range(35)]
        async with Collector(link(server.endpoint, device(paths, namespaces=PREFIXES))) as host:
            await host.until(lambda: all(host.rows(i) for i in range(35)))
            read = await host.adapter.read(range(35))
            assert list(read.values) == list(range(35))
            found = [each async for each in host.adapter.browse(depth=4)]
            assert {f"m:n{i}" for i in range(35)} <= {each.path for each in found}
        assert server.counts["items"] == 10
        assert all(count <= 10 for count in server.counts.values()), server.counts
        assert server.calls["items"] == 4
    finally:
        server.announce(
            MaxNodesPerRead=0, MaxNodesPerBrowse=0, MaxMonitoredItemsPerCall=0,
            MaxNodesPerTranslateBrowsePathsToNodeIds=0,
        )  # fmt: skip


async def test_unannounced_limits_are_learned_and_remembered(server: SmallServer) -> None:
    for i in range(35):
        server.add(f"u{i}", i, T.Int32)
    server.limits.update(items=10, translate=10)
    host = Collector(link(server.endpoint, device([f"m:u{i}" for i in range(35)], namespaces=PREFIXES)))
    async with host:
        await host.until(lambda: all(host.rows(i) for i in range(35)))
    refused = server.counts["items"]
    assert refused > 10
    server.counts.clear()
    async with host:
        await host.until(lambda: all(host.rows(i) for i in range(35)))
    assert server.counts["items"] <= 10
    assert server.counts["translate"] <= 10


async def test_more_items_than_one_subscription_may_have(server: SmallServer) -> None:
    spec = link(server.endpoint, device([node(f"v{i}") for i in range(SIZE)]), items_per_subscription=3)
    async with Collector(spec) as host:
        await host.until(lambda: all(host.rows(i) for i in range(SIZE)))
        assert len(server.subscriptions) == 3
        server.write_all()
        await host.until(lambda: all(host.last(i) == server.value + i for i in range(SIZE)))
        marks = [item.complete_to for item in host.of(Samples) if item.complete_to is not None]
        assert marks == sorted(marks)
    assert not server.subscriptions


# --------------------------------------------------------------------------------------------------------------- browse


async def test_browse_gives_paths_types_and_values(server: SmallServer) -> None:
    spec = link(server.endpoint, device([node("v0")], namespaces=PREFIXES))
    async with Collector(spec) as host:
        top = {each.path: each async for each in host.adapter.browse()}
        assert top["o:Hall"].has_children
        assert top["o:Hall"].node_class == "Object"
        deep = {each.path: each async for each in host.adapter.browse(top["o:Hall"].node, depth=3)}
        leaf = deep["m:Press_A/m:Data/m:v5"]
        assert (leaf.node, leaf.type, leaf.node_class) == (node("v5"), "Int64", "Variable")
        assert leaf.value is not None
        assert not leaf.has_children
        again = await host.adapter.read([0])
        assert again.values
        for nowhere in ("nsu=urn:nobody;i=1", node("nobody"), "nobody"):
            with pytest.raises(ConfigError, match="nobody"):
                async for _ in host.adapter.browse(nowhere):
                    pass
