"""The collector's side of a look: which link is meant, who reads it already, and what its running adapter can tell."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec
from pydantic import BaseModel, SecretStr

from adapters.contract import Adapter, AdapterError
from gateway.collect._signal_rules import SignalRules
from gateway.config.plan import PKI, PlannedSignal
from gateway.looking import told
from gateway.looking.child import too_slow
from gateway.looking.looker import WAIT, Looker, busy
from gateway.looking.questions import (
    Browse,
    Endpoints,
    FailedLookError,
    Failure,
    Link,
    Machine,
    Mistake,
    ReadNode,
    ReadRegisters,
    ReadSignal,
    Seen,
    Troubles,
)
from gateway.looking.shapes import DeviceTroubles, SignalTrouble, TestRead
from schemas.bilingual import chinese, spoken
from schemas.documents import DocumentError, nearest, validate
from schemas.profile import ModbusAddress
from schemas.status import is_bad, modbus_exception

if TYPE_CHECKING:
    from gateway.collect.link import LinkHost
    from gateway.collect.role import Collect

log = logging.getLogger("guantong.looking")

_THROUGH_ADAPTER: Final = 8.0
"""Seconds that a running adapter has for a reading beside its schedule."""


@runtime_checkable
class ReadsRegisters(Protocol):
    """What an adapter has that can be asked for any register (`adapters.modbus`)."""

    async def read_registers(
        self, unit: int, table: str, address: int, count: int, *, timeout: float = 1.0
    ) -> tuple[int, bytes, int]: ...

    def reads_at(self, settings: object) -> bool: ...


class Looking:
    """Answers looks at machines, one at a time. `close` at the end."""

    def __init__(self, collect: Collect, looker: Looker | None = None) -> None:
        self._collect = collect
        self._looker = looker or Looker()
        self._turn = asyncio.Lock()

    async def answer(self, question: Machine) -> Seen:
        """What is seen, or the failure. Never raises for what a machine or an adapter does."""
        try:
            if isinstance(question, Troubles):
                return _seen(self._troubles(question))
            async with self._alone():
                match question:
                    case ReadSignal():
                        return _seen(await self._signal(question))
                    case ReadRegisters():
                        return await self._registers(question)
                    case Endpoints():
                        return await self._looker.ask(question)
                    case Browse() | ReadNode():
                        return await self._looker.ask(self._completed(question))
        except FailedLookError as error:
            return Seen(failure=error.failure)
        except AdapterError as error:
            return Seen(failure=told.failure_of(error))
        except Exception as error:  # a third party's adapter may raise anything, and must not end the collector's role
            log.exception("a look failed")
            what = f"{type(error).__name__}: {error}"
            return Seen(failure=Failure("failed", f"This could not be read: {what}", f"无法读取：{what}"))

    async def close(self) -> None:
        """Ends the child."""
        await self._looker.close()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT):
                await self._turn.acquire()
        except TimeoutError:
            failed = FailedLookError("busy", "", "")
            failed.failure = busy()
            raise failed from None
        try:
            yield
        finally:
            self._turn.release()

    def _troubles(self, question: Troubles) -> DeviceTroubles:
        """What the host of a device knows; no machine is asked."""
        name = question.device
        for host in self._collect.hosts:
            for status in host.statuses():
                if status.device == name:
                    items = [SignalTrouble(s, spoken(text, question.lang)) for s, text in status.troubles.items()]
                    return DeviceTroubles(name, status.state, spoken(status.reason, question.lang), items)
        raise FailedLookError("unknown_device", f"the device {name!r} is not collected", f"没有采集设备 {name!r}")

    # ------------------------------------------------------------------------------------------------ which link is meant

    def _completed(self, question: Any) -> Any:
        """The question with the settings of its link, certificates and all."""
        data_dir = self._collect.config.data_dir
        return msgspec.structs.replace(
            question, link=self._link(question.link), pki=str(data_dir / PKI), gateway=self._collect.plan.gateway.id
        )

    def _link(self, link: Link) -> Link:
        """A link with its settings ready for its adapter's model. Raises FailedLookError."""
        if link.id is None:
            return Link(link.adapter, _absolute(link.settings, self._collect.config.base))
        host = self._host(link.id)
        settings = host.link.settings
        return Link(host.link.protocol, _plain(settings) if settings is not None else {})

    def _host(self, link_id: str) -> LinkHost:
        hosts = {host.link.id: host for host in self._collect.hosts}
        if link_id not in hosts:
            near = nearest(link_id, hosts)
            raise FailedLookError(
                "unknown_link", f"the link {link_id!r} is not configured", f"没有配置链路 {link_id!r}",
                fix_en=f"Did you mean {near}?" if near else "", fix_zh=f"是否指 {near}？" if near else "",
            )  # fmt: skip
        return hosts[link_id]

    # ------------------------------------------------------------------------------------------------- a configured signal

    async def _signal(self, question: ReadSignal) -> TestRead:
        name = question.signal
        signals = {f"{s.device}/{s.signal.name}": s for s in self._collect.plan.signals}
        planned = signals.get(name)
        if planned is None:
            near = nearest(name, signals)
            raise FailedLookError(
                "unknown_signal", f"the signal {name!r} is not configured", f"没有配置信号 {name!r}",
                fix_en=f"Did you mean {near}?" if near else "", fix_zh=f"是否指 {near}？" if near else "",
            )  # fmt: skip
        # none in the moment in which another configuration is taken over
        host = next((h for h in self._collect.hosts if planned.device in h.device_ids), None)
        if host is None:
            raise FailedLookError(
                "not_connected", f"{planned.device} is not connected: its link is being begun", f"设备 {planned.device} 未连接：链路正在启动",
                fix_en="Try again in a few seconds.", fix_zh="请几秒后重试。",
            )  # fmt: skip
        adapter = host.connected
        if adapter is None:
            condition = host.supervised.condition
            raise FailedLookError(
                "not_connected",
                f"{planned.device} is not connected: {condition.message or condition.reason or condition.state}",
                f"设备 {planned.device} 未连接：{chinese(condition.message) or condition.reason or condition.state}",
                fix_en=condition.fix_en, fix_zh=condition.fix_zh,
            )  # fmt: skip
        try:
            async with asyncio.timeout(_THROUGH_ADAPTER):
                samples = await adapter.read([planned.point])
                raw = await self._raw(host, adapter, planned)
        except TimeoutError:
            raise FailedLookError(
                "too_slow", f"{planned.device} did not answer in time", f"设备 {planned.device} 应答超时",
                fix_en="Try again; if it happens again, look at the device's state.", fix_zh="请重试；若反复出现，请查看设备状态。",
            ) from None  # fmt: skip
        status = samples.status[0] if samples.status is not None and samples.points else 0
        came = samples.values[0] if samples.points else None
        value = came
        if not is_bad(status):
            value, status, _, _ = SignalRules(planned).full(came, status)
        read = told.reading(
            question.lang, status, value, samples.received, type=planned.signal.type, signal_type=planned.type,
            unit=planned.unit, name=planned.signal.name, node=planned.address_text,
            source_ts=samples.source_ts[0] if samples.source_ts is not None and samples.points else None,
            server_ts=samples.server_ts, raw_value=told.shown(came, told.WHOLE), **raw,
        )  # fmt: skip
        texts = planned.signal.enum or {}
        if isinstance(value, int) and value in texts:
            read = msgspec.structs.replace(read, text=f"{read.text} {texts[value].get(question.lang)}")
        return read

    async def _raw(self, host: LinkHost, adapter: Adapter, planned: PlannedSignal) -> dict[str, Any]:
        """Registers and bytes as they came, and what else they could be, where the adapter can tell."""
        address = planned.address
        if not isinstance(adapter, ReadsRegisters) or not isinstance(address, ModbusAddress):
            return {}
        if address.select is not None:  # read without its selector, the registers would show something else
            return {}
        device = next(d for d in host.link.devices if d.id == planned.device)
        unit = getattr(device.settings, "unit", 1)
        found = await _read(adapter, unit, address, getattr(device.rules, "timeout", 1.0))
        read = told.of_modbus("en", found)
        return {"registers": read.registers, "raw": read.raw, "others": read.others}

    # ------------------------------------------------------------------------------------------------------- any registers

    async def _registers(self, question: ReadRegisters) -> Seen:
        """Through the running link where the gateway reads that place already, else by the child."""
        link = self._link(question.link)
        if link.adapter != "modbus":
            raise FailedLookError(
                "invalid", f"link.adapter: found {link.adapter!r}, expected modbus", f"link.adapter：收到 {link.adapter!r}，应为 modbus",
                mistakes=[Mistake(link.adapter, "modbus", parameter="link.adapter")],
            )  # fmt: skip
        running = await self._running(link, question)
        if running is not None:
            return running
        if "serial" in link.settings:
            self._refuse_port(str(link.settings["serial"]))
        return await self._looker.ask(msgspec.structs.replace(question, link=link))

    def _refuse_port(self, port: str) -> None:
        """A serial line bears one master."""
        for host in self._collect.hosts:
            settings = host.link.settings
            values = settings.model_dump().values() if settings is not None else ()
            paths = [str(v) for v in values if isinstance(v, str | Path) and str(v).startswith("/dev/")]
            if any(os.path.realpath(path) == os.path.realpath(port) for path in paths):
                raise FailedLookError(
                    "port_in_use", f"{port}: the gateway's link {host.link.id} uses this port", f"{port}：网关链路 {host.link.id} 正在使用该串口",
                    fix_en="A serial line bears one master: wait until that link is connected, which then reads for you, or take the link out of the configuration first.",
                    fix_zh="串行总线上只能有一个主站：请等该链路连接后再试（届时由该链路代读），或先从配置中移除该链路。",
                )  # fmt: skip

    async def _running(self, link: Link, question: ReadRegisters) -> Seen | None:
        from adapters.modbus import ModbusLinkSettings

        try:
            settings = validate(link.settings, ModbusLinkSettings, "")
            address = validate(question.address, ModbusAddress, "")
        except DocumentError:
            return None  # the child tells every mistake
        if address.select is not None:
            raise told.needs_selector(address.select)
        for host in self._collect.hosts:
            adapter = host.connected
            if adapter is None or not isinstance(adapter, ReadsRegisters) or not adapter.reads_at(settings):
                continue
            try:
                async with asyncio.timeout(_THROUGH_ADAPTER):
                    found = await _read(adapter, question.unit, address, 1.0)
            except TimeoutError:
                return Seen(failure=too_slow())
            return _seen(told.of_modbus(question.lang, found))
        return None


async def _read(adapter: ReadsRegisters, unit: int, address: ModbusAddress, timeout: float) -> Any:
    """The address and what lies behind it; alone where the device refuses more."""
    from gateway.points.testread import longest_read, tested

    code, data, received = 0, b"", 0
    for count in dict.fromkeys((longest_read(address), address.registers)):
        code, data, received = await adapter.read_registers(unit, address.table, address.wire, count, timeout=timeout)
        if not code:
            break
    return tested(address, data, modbus_exception(code).status if code else 0, received)


def _seen(body: object) -> Seen:
    return Seen(msgspec.Raw(msgspec.json.encode(body)))


def _plain(settings: BaseModel) -> dict[str, Any]:
    """The settings that were written, as data that their own model reads, secrets in clear."""
    return {
        name: _value(getattr(settings, name))
        for name in type(settings).model_fields
        if name in settings.model_fields_set
    }


def _value(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return _plain(value)
    if isinstance(value, dict):
        return {key: _value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inner) for inner in value]
    return value


_PATHS: Final = frozenset({"certificate", "key", "server_certificate", "user_certificate", "user_key"})


def _absolute(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    """Typed settings; paths of certificates start from the configuration's folder, as they would in the file."""
    made: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            made[key] = _absolute(value, base)
        else:
            made[key] = _from(base, value) if key in _PATHS and isinstance(value, str) else value
    return made


def _from(base: Path, path: str) -> str:
    try:
        return str(base / Path(path).expanduser())
    except RuntimeError:  # the home of nobody: told as a file that cannot be read
        return path
