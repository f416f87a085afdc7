"""Looks at machines by the process that looks: protected servers, sessions that end, serial ports, and what the collector itself says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from asyncua import ua

from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _link
from adapters.opcua import LinkSettings
from gateway.collect.role import Collect
from gateway.config.models import Config
from gateway.config.plan import PlannedLink
from gateway.looking import collector, machines
from gateway.looking.collector import Looking
from gateway.looking.looker import Looker
from gateway.looking.machines import Machines
from gateway.looking.questions import Browse, FailedLookError, Link, ReadNode, ReadRegisters, ReadSignal, Seen
from tests.adapters.modbus_peer import peer
from tests.adapters.modbus_server import Server
from tests.adapters.opcua_server import SmallServer, write_certificates
from tests.adapters.test_opcua_security import SecureServer


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


def link_to(server: SmallServer, **more: Any) -> Link:
    return Link("opcua", {"endpoint": server.endpoint, "security": "none", **more})


async def test_an_untrusted_server_is_named_with_the_command_that_trusts_it(tmp_path: Path) -> None:
    with SecureServer(*write_certificates(tmp_path, "urn:test:server", "server")) as server:
        looking = Machines()
        link = link_to(server, security="auto")
        with pytest.raises(FailedLookError) as caught:
            await looking.browse(Browse(link=link, pki=str(tmp_path / "pki"), gateway="line1"))
    failure = caught.value.failure
    assert failure.reason == "server_certificate_untrusted"
    assert failure.details["fingerprint"].lower().replace(":", "") in failure.details["command"].lower().replace(
        ":", ""
    )
    assert failure.details["command"] in failure.fix_en
    assert failure.details["command"] in failure.fix_zh


async def test_one_session_for_a_tree_and_none_afterwards(server: SmallServer) -> None:
    looking = Machines()
    for _ in range(3):
        seen = await looking.browse(Browse(link=link_to(server)))
    assert server.sessions() == 1
    assert seen.namespaces[0] == "http://opcfoundation.org/UA/"
    # a session that the server has ended is opened once more, unseen
    server.end_sessions()
    node = f"ns={server.index('http://example.org/machine')};s=v2"
    assert (await looking.read_node(ReadNode(link=link_to(server), node=node))).value == 2
    # another link, another session
    await looking.browse(Browse(link=link_to(server, timeout=4)))
    assert server.sessions() == 1
    await looking.close()
    assert server.sessions() == 0


async def test_values_of_every_kind_are_told(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, tuple[Any, Any, Any, str]] = {
        "huge": (2**60, ua.VariantType.Int64, str(2**60), "int64"),
        "nan": (float("nan"), ua.VariantType.Double, "NaN", "float64"),
        "text": ("中" * 1000, ua.VariantType.String, "中" * 200 + "…", "string"),
        "array": (list(range(100)), ua.VariantType.Int32, [*range(20), "…"], "array"),
        "truth": (True, ua.VariantType.Boolean, True, "bool"),
    }
    for name, (value, kind, _, _) in values.items():
        server.add(name, value, kind)
    looking = Machines()
    seen = await looking.browse(Browse(link=link_to(server)))
    found = {node.name: node for node in seen.nodes}
    for name, (_, _, shown, picked) in values.items():
        assert found[name].value == shown, name
        assert found[name].picked_type == picked, name
    msgspec.json.encode(seen)
    # a search that takes too long ends with what it has
    monkeypatch.setattr(machines, "WALK", -1.0)
    assert (await looking.browse(Browse(link=link_to(server), filter="v*"))).truncated
    await looking.close()


# ------------------------------------------------------------------------------------------------- the collector's side


class Asked(Looker):
    """Remembers what the child would be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Any] = []

    async def ask(self, question: Any, within: float | None = None) -> Seen:
        self.questions.append(question)
        return Seen(msgspec.Raw(b"{}"))


class Host:
    """As much of a link's host as a look needs."""

    def __init__(self, link: PlannedLink, adapter: Any = None) -> None:
        self.link, self.connected = link, adapter
        self.device_ids: list[str] = []


def looking_of(tmp_path: Path, *hosts: Host) -> tuple[Looking, Asked]:
    config = Config(data_dir=tmp_path)
    config._base = tmp_path
    collect = SimpleNamespace(
        config=config, hosts=list(hosts), plan=SimpleNamespace(signals=(), gateway=SimpleNamespace(id="gw"))
    )
    child = Asked()
    return Looking(cast(Collect, collect), child), child


REGISTER = {"table": "holding", "address": 1}


async def test_secrets_of_a_configured_link_reach_the_child_alone(tmp_path: Path) -> None:
    settings = LinkSettings.model_validate(
        {"endpoint": "opc.tcp://plc", "security": "none", "user": "mes", "password": "geheim"}
    )
    looking, child = looking_of(tmp_path, Host(PlannedLink("plc", "opcua", None, settings, ())))
    await looking.answer(Browse(link=Link(id="plc")))
    (asked,) = child.questions
    assert asked.link.settings["password"] == "geheim"
    assert LinkSettings.model_validate(asked.link.settings) == settings
    assert (asked.gateway, asked.pki) == ("gw", str(tmp_path / "pki"))
    unknown = await looking.answer(Browse(link=Link(id="plx"), lang="zh"))
    assert unknown.failure is not None
    assert (unknown.failure.reason, unknown.failure.fix_zh) == ("unknown_link", "是否指 plc？")
    # a typed link's certificates lie where the configuration's would
    typed = Link(
        "opcua", {"endpoint": "opc.tcp://plc", "security": {"policy": "Basic256Sha256", "certificate": "own.der"}}
    )
    await looking.answer(Browse(link=typed))
    assert child.questions[-1].link.settings["security"]["certificate"] == str(tmp_path / "own.der")
    await looking.answer(Browse(link=Link("opcua", {"user_key": "~nobody-here/own.pem"})))
    assert child.questions[-1].link.settings == {"user_key": "~nobody-here/own.pem"}


async def test_a_serial_port_that_the_gateway_uses_is_refused(tmp_path: Path) -> None:
    port = tmp_path / "by-id"
    port.symlink_to("/dev/tty")

    class Settings(ModbusLinkSettings):
        device: str = "/dev/tty"

    looking, child = looking_of(tmp_path, Host(PlannedLink("line", "acme", None, Settings(host="x"), ())))
    question = ReadRegisters(link=Link("modbus", {"serial": str(port)}), unit=1, address=REGISTER)
    seen = await looking.answer(question)
    assert seen.failure is not None
    assert seen.failure.reason == "port_in_use"
    assert "line" in seen.failure.en
    assert seen.failure.fix_zh
    assert child.questions == []
    await looking.answer(msgspec.structs.replace(question, link=Link("modbus", {"serial": "/dev/null"})))
    assert len(child.questions) == 1


async def test_a_serial_line_and_its_settings() -> None:
    for settings, parameter in (
        ({"serial": "COM3"}, "link.settings.serial"),
        ({"serial": "/dev/x", "parity": "X"}, "link.settings.parity"),
        ({"serial": "/dev/x", "baud": 4801}, "link.settings.baud"),
        ({"serial": "/dev/x", "speed": 9600}, "link.settings.speed"),
        ({"host": ""}, "link.settings.host"),
    ):
        with pytest.raises(FailedLookError) as caught:
            await machines.read_registers(ReadRegisters(link=Link("modbus", settings), unit=1, address=REGISTER))
        assert caught.value.failure.mistakes[0].parameter == parameter
        assert not caught.value.failure.zh.isascii()


async def test_a_serial_device_answers() -> None:
    """A pair of pseudo terminals is a serial line; the device at its other end answers one request."""
    from adapters.modbus.probe import crc16

    device, port = os.openpty()
    path = os.ttyname(port)
    heard = asyncio.Event()

    def answer() -> None:
        if len(os.read(device, 256)) < 8:
            return
        body = bytes((3, 3, 8)) + bytes.fromhex("0102030405060708")
        os.write(device, body + crc16(body).to_bytes(2, "little"))
        heard.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(device, answer)
    try:
        address = {"table": "holding", "address": 16, "type": "uint32", "order": "CDAB"}
        link = Link("modbus", {"serial": path, "baud": 19200, "parity": "E"})
        read = await machines.read_registers(ReadRegisters(link=link, unit=3, address=address))
        assert heard.is_set()
        assert (read.value, read.registers, read.raw) == (0x03040102, [0x0102, 0x0304], "01020304")
        assert ("uint64", "ABCD") in {(other.type, other.order) for other in read.others}
    finally:
        loop.remove_reader(device)
        os.close(device)
        os.close(port)


async def test_a_device_that_speaks_ascii_is_asked_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "LISTEN", 0.05)
    async with peer("ascii on a port") as made:
        link = Link("modbus", made.settings.model_dump(mode="json", exclude_unset=True))
        read = await machines.read_registers(
            ReadRegisters(link=link, unit=1, address={"table": "holding", "address": 16})
        )
    assert (read.value, read.registers) == (1016, [1016])


async def test_a_register_that_another_one_selects_is_not_test_read(tmp_path: Path) -> None:
    """Without its selector, any record would be shown: neither by the running link nor by the child."""

    class Running:
        async def read_registers(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("asked")

        def reads_at(self, _: object) -> bool:
            return True

    selected = {**REGISTER, "select": "0x200=3"}
    question = ReadRegisters(link=Link("modbus", {"host": "h"}), unit=1, address=selected)
    plan = PlannedLink("x", "modbus", None, ModbusLinkSettings(host="h"), ())
    looking, child = looking_of(tmp_path, Host(plan, Running()))
    seen = await looking.answer(question)
    assert seen.failure is not None
    assert seen.failure.mistakes[0].parameter == "address.select"
    assert not seen.failure.zh.isascii()
    assert child.questions == []
    with pytest.raises(FailedLookError, match=r"address\.select"):
        await machines.read_registers(question)


async def test_what_an_adapter_does_wrong_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        async def read_registers(self, *_: Any, **__: Any) -> Any:
            if self.slow:
                await asyncio.Event().wait()
            raise ZeroDivisionError("its own mistake")

        def reads_at(self, _: object) -> bool:
            return True

        slow = False

    odd = Odd()
    looking, child = looking_of(tmp_path, Host(PlannedLink("x", "acme", None, ModbusLinkSettings(host="h"), ()), odd))
    question = ReadRegisters(link=Link("modbus", {"host": "h"}), unit=1, address=REGISTER)
    seen = await looking.answer(question)
    assert seen.failure is not None
    assert (seen.failure.reason, "ZeroDivisionError" in seen.failure.en) == ("failed", True)
    monkeypatch.setattr(collector, "_THROUGH_ADAPTER", 0.05)
    odd.slow = True
    late = await looking.answer(question)
    assert late.failure is not None
    assert late.failure.reason == "too_slow"
    gone = await looking.answer(ReadSignal(signal="a/b"))
    assert gone.failure is not None
    assert gone.failure.reason == "unknown_signal"
    assert child.questions == []


async def test_a_silent_unit_on_a_running_line_is_told_and_the_line_goes_on() -> None:
    from adapters.contract import LinkSpec, TransientError
    from gateway.looking.collector import ReadsRegisters

    async with Server() as server:
        server.holds(1, {1: 7})
        settings = ModbusLinkSettings(host="127.0.0.1", port=server.port)
        adapter = ModbusAdapter(LinkSpec("x", settings, ()))
        assert isinstance(adapter, ReadsRegisters)
        assert adapter.reads_at(settings)
        assert not adapter.reads_at(ModbusLinkSettings(host="127.0.0.1", port=1))
        with pytest.raises(TransientError) as closed:
            await adapter.read_registers(1, "holding", 1, 1)
        assert closed.value.reason == "not_connected"
        await adapter.connect()
        with pytest.raises(TransientError) as silent:
            await adapter.read_registers(9, "holding", 1, 1, timeout=0.1)
        assert silent.value.reason == "no_answer"
        code, data, received = await adapter.read_registers(1, "holding", 1, 1)
        assert (code, data) == (0, b"\x00\x07")
        assert received > 0
        assert (await adapter.read_registers(1, "holding", 500, 1))[0] == 2
        await adapter.disconnect()
