"""`guantong check` and `guantong read`: does it work as configured, and what does a device answer right now?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.contract import Adapter, AdapterError, Reckons, Refuses, Samples
from gateway.cli._output import fail, say, show, tell_problems, told, with_fix
from gateway.cli.app import ConfigOption, JsonOption, app, load
from schemas.bilingual import Bilingual

if TYPE_CHECKING:
    from gateway.config.models import Config
    from gateway.config.plan import Plan, PlannedDevice, PlannedLink

_CONNECT = 10.0
_READ = 10.0
_REFUSED_SHOWN = 5
"""Refused addresses of a device that are listed for people; JSON has all of them."""


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    headings = {
        "what": say("项目", "what"), "state": say("状态", "state"), "detail": say("说明", "detail"), "fix": say("处理", "fix"),
    }  # fmt: skip
    if not as_json:
        rows = [{**row, "what": _what(row["what"])} for row in rows]
    show(rows, headings, as_json=as_json)


def _what(text: str) -> str:
    """What was looked at, for people; in JSON it is a stable word."""
    kind, blank, name = text.partition(" ")
    words = {"configuration": "配置", "link": "链路", "device": "设备", "bus": "总线", "store": "存储"}
    return f"{say(words.get(kind, kind), kind)}{blank}{name}"


def _row(what: str, state: str, detail: str = "", fix: str = "") -> dict[str, Any]:
    return {"what": what, "state": state, "detail": detail, "fix": fix}


@app.command(
    epilog="Example: guantong check --config workshop.yaml    (exit code 0: all well; 1: something is not; 2: configuration)"
)
def check(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check the configuration, reach each device, the bus and the store; say what is wrong and how to mend it."""
    from gateway.config.load import check_config

    problems = check_config(config)
    if problems:
        if json:
            _show([_row(told(p.file), "failed", p.text(say("zh", "en"))) for p in problems], as_json=True)
        else:
            tell_problems(problems)
            typer.echo(
                say(f"配置有 {len(problems)} 处错误", f"{len(problems)} mistakes in the configuration"), err=True
            )
        raise typer.Exit(2)
    with _quiet():
        rows = asyncio.run(_check(load(config)))
    _show(rows, as_json=json)
    raise typer.Exit(0 if all(row["state"] == "ok" for row in rows) else 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No log beside the answer: what is wrong stands in it."""
    logger = logging.getLogger("guantong")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


async def _check(config: Config) -> list[dict[str, Any]]:
    from gateway.config.resolve import resolve

    plan = resolve(config)
    links = await asyncio.gather(*(_check_link(link) for link in plan.links))
    rows = [_row("configuration", "ok", _count(len(plan.devices), len(plan.signals)))]
    rows += [row for link in links for row in link]
    return [*rows, await _check_bus(config), await asyncio.to_thread(_check_store, config)]


def _count(devices: int, signals: int) -> str:
    return say(f"{devices} 个设备，{signals} 个信号", f"{devices} devices, {signals} signals")


async def _check_link(link: PlannedLink) -> list[dict[str, Any]]:
    if link.adapter is None:
        assert link.broken is not None
        return [_row(f"link {link.id}", "failed", told(link.broken), _fix(link.broken))]
    adapter = link.adapter(link.spec())
    rows = _load_of(link.id, adapter)
    try:
        async with asyncio.timeout(_CONNECT):
            await adapter.connect()
    except AdapterError as error:
        return [*rows, _row(f"link {link.id}", "failed", told(error), _fix(error))]
    except TimeoutError:
        return [
            *rows,
            _row(
                f"link {link.id}",
                "failed",
                say(f"{_CONNECT:.0f} 秒内未能连接", f"no connection within {_CONNECT:.0f} s"),
                say("请检查地址、网线和电源。", "Check address, cable and power."),
            ),
        ]
    try:
        return [
            *rows,
            *[_with_refused(adapter, device, await _check_device(adapter, device)) for device in link.devices],
        ]
    finally:
        await adapter.disconnect()


def _load_of(link: str, adapter: Adapter) -> list[dict[str, Any]]:
    """How full the line will be, where the adapter can reckon it."""
    load = adapter.expected_load() if isinstance(adapter, Reckons) else None
    if load is None:
        return []
    reckoned = say(f"按波特率与帧长估算：{told(load.text)}", f"by speed and lengths of frames: {told(load.text)}")
    return [_row(f"link {link}", "ok" if load.fits else "degraded", reckoned, say(load.fix_zh, load.fix_en))]


def _with_refused(adapter: Adapter, device: PlannedDevice, row: dict[str, Any]) -> dict[str, Any]:
    """The row, with the addresses that the device has refused to the gateway before, as far as the adapter remembers them."""
    refused = [told(text) for text in adapter.refused(device.id)] if isinstance(adapter, Refuses) else []
    if refused:
        more = f" (+{len(refused) - _REFUSED_SHOWN})" if len(refused) > _REFUSED_SHOWN else ""
        listed = say("；", "; ").join(refused[:_REFUSED_SHOWN])
        row["detail"] += say(f"；设备拒绝的地址：{listed}{more}", f"; it refuses: {listed}{more}")
        row["refused"] = refused
    return row


async def _check_device(adapter: Adapter, device: PlannedDevice) -> dict[str, Any]:
    from schemas.status import info, is_bad

    what = f"device {device.id}"
    try:
        async with asyncio.timeout(_READ):
            samples = await adapter.read([signal.point for signal in device.signals])
    except AdapterError as error:
        return _row(what, "failed", told(error), _fix(error))
    except TimeoutError:
        return _row(
            what, "failed", say(f"{_READ:.0f} 秒内没有应答", f"no answer within {_READ:.0f} s"),
            say("请检查站号、接线和电源。", "Check the unit number, the wiring and the power."),
        )  # fmt: skip
    first = device.first
    bad = {
        device.signals[point - first].signal.name: status
        for point, status in zip(samples.points, samples.status or [], strict=False)
        if is_bad(status)
    }
    if len(bad) == len(device.signals) and bad:
        meaning = info(next(iter(bad.values())))
        return _row(
            what, "failed", f"{adapter.endpoint(device.id)}: {meaning.name}", say(meaning.fix_zh, meaning.fix_en)
        )
    if bad:
        listed = ", ".join(f"{name} ({info(status).name})" for name, status in list(bad.items())[:3])
        meaning = info(next(iter(bad.values())))
        return _row(
            what,
            "degraded",
            say(
                f"{len(device.signals)} 个信号中 {len(bad)} 个不良：{listed}",
                f"{len(bad)} of {len(device.signals)} signals are bad: {listed}",
            ),
            say(meaning.fix_zh, meaning.fix_en),
        )
    from gateway.cli._anchor import violation

    implausible = await violation(adapter, device, samples)
    if implausible is not None:
        return _row(what, "degraded", told(implausible.text), told(implausible.fix))
    clock = _clock_of(samples, device)
    if clock is not None:
        return clock
    return _row(what, "ok", f"{adapter.endpoint(device.id)}: {_signals(len(device.signals))}")


def _signals(count: int) -> str:
    return say(f"{count} 个信号", f"{count} signals")


def _clock_of(samples: Samples, device: PlannedDevice) -> dict[str, Any] | None:
    """Whether the device's clock is off by more than its tolerance; one that runs whole hours off has a known cause."""
    times = [samples.server_ts] if samples.server_ts is not None else []
    if not times:
        return None
    off = (statistics.median(times) - samples.received) / 1e6
    configured = device.clock.offset if isinstance(device.clock.offset, int | float) else 0.0
    if abs(off - configured) <= device.clock.tolerance:
        return None
    hours = round(off / 1800) / 2
    if hours and abs(off - hours * 3600) <= device.clock.tolerance:
        sign = "+" if hours > 0 else "-"
        return _row(
            f"device {device.id}", "degraded",
            say(
                f"设备时钟相差 {hours:+g} 小时：把本地时间当作 UTC 发送",
                f"its clock is {hours:+g} h off: local time sent as UTC",
            ),
            say(
                f"请在该设备处写 clock: {{offset: {sign}{abs(hours):g}h}}，或设置设备的时区。",
                f"Write clock: {{offset: {sign}{abs(hours):g}h}} at this device, or set its time zone.",
            ),
        )  # fmt: skip
    return _row(
        f"device {device.id}", "degraded",
        say(f"设备时钟相差 {off:+.0f} 秒；改用网关时间", f"its clock is {off:+.0f} s off; the gateway's time is used"),
        say("请校准设备时钟（或让设备使用 NTP）。", "Set the device's clock, or let it use NTP."),
    )  # fmt: skip


async def _check_bus(config: Config) -> dict[str, Any]:
    from gateway.roles import bus_of

    bus = bus_of(config, "check")
    task = asyncio.create_task(bus.run())
    try:
        for _ in range(60):
            if bus.connected:
                break
            if bus.health.state in ("failed", "recovering") and bus.health.reason:
                break
            await asyncio.sleep(0.1)
        where = f"{bus.options.host}:{bus.options.port}"
        if bus.connected:
            return _row("bus", "ok", f"{where}, MQTT {bus.options.protocol}")
        if config.bus.embedded and "nothing listens" in bus.health.reason:
            return _row(
                "bus",
                "ok",
                say(
                    f"内置代理位于 {where}，由 guantong run 启动",
                    f"embedded broker on {where}, started by guantong run",
                ),
            )
        return _row("bus", "failed", told(bus.health.reason), say(bus.health.fix_zh, bus.health.fix_en))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check_store(config: Config) -> dict[str, Any]:
    from gateway.ledger.steps import StoreError
    from gateway.roles import CannotStartError, data_dir_of
    from gateway.store import open_reader

    try:
        data_dir = data_dir_of(config)
    except CannotStartError as error:
        return _row("store", "failed", told(error))
    if config.store.url is None and not any(data_dir.glob("*.sqlite*")):
        return _row(
            "store",
            "ok",
            say(f"SQLite 位于 {data_dir}，由 guantong run 创建", f"SQLite in {data_dir}, made by guantong run"),
        )
    reader = open_reader(config.store, data_dir)
    try:
        reader.check()
    except StoreError as error:
        return _row("store", "failed", told(error), told(error.fix))
    finally:
        reader.close()
    return _row("store", "ok", config.store.url or say(f"SQLite 位于 {data_dir}", f"SQLite in {data_dir}"))


def _fix(error: AdapterError) -> str:
    return say(error.fix_zh, error.fix_en)


# ------------------------------------------------------------------------------------------------------------------ read


@app.command(epilog="Examples: guantong read meter-01 voltage/l1    guantong read imm-01 'cycle/*' --json")
def read(
    device: Annotated[str, typer.Argument(help="Id of the device.")],
    signal: Annotated[str, typer.Argument(help="Name of the signal; * and ? match many.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Read signals of a device once, now, over a connection of this command's own: what arrived and what it means."""
    from gateway.config.resolve import resolve
    from schemas.documents import DocumentError

    loaded = load(config)
    try:
        plan = resolve(loaded)
    except DocumentError as error:
        tell_problems(error.problems)
        fail(say("配置有误", "the configuration has mistakes"), 2)
    show(
        asyncio.run(_read(plan, device, signal)),
        {
            "signal": say("信号", "signal"), "value": say("值", "value"), "unit": say("单位", "unit"), "quality": say("质量", "quality"),
            "status": say("状态", "status"), "raw": say("原始值", "raw"), "ts": say("时间", "time"), "address": say("地址", "address"),
        },
        as_json=json,
    )  # fmt: skip


async def _read(plan: Plan, device_id: str, pattern: str) -> list[dict[str, Any]]:
    from fnmatch import fnmatchcase

    from gateway.collect._signal_rules import SignalRules
    from gateway.collect.courtesy import json_value
    from schemas.documents import nearest
    from schemas.status import info, quality
    from schemas.times import to_rfc3339

    link = next((k for k in plan.links if any(d.id == device_id for d in k.devices)), None)
    if link is None or link.adapter is None:
        near = nearest(device_id, [d.id for d in plan.devices])
        fail(say(f"没有设备 {device_id!r}", f"there is no device {device_id!r}") + (f"; {near}?" if near else ""), 2)
    device = plan.device(device_id)
    chosen = [s for s in device.signals if fnmatchcase(s.signal.name, pattern)]
    if not chosen:
        near = nearest(pattern, [s.signal.name for s in device.signals])
        fail(
            say(f"设备 {device_id} 没有信号 {pattern!r}", f"device {device_id} has no signal {pattern!r}")
            + (f"; {near}?" if near else ""),
            2,
        )
    adapter = link.adapter(link.spec())
    try:
        async with asyncio.timeout(_CONNECT + _READ):
            await adapter.connect()
            samples = await adapter.read([s.point for s in chosen])
    except AdapterError as error:
        fail(with_fix(error, Bilingual(error.fix_en, error.fix_zh)))
    except TimeoutError:
        fail(say("设备没有应答", "the device does not answer"))
    finally:
        await adapter.disconnect()
    planned = {s.point: (s, SignalRules(s)) for s in chosen}
    rows = []
    for i, point in enumerate(samples.points):
        signal, rules = planned[point]
        raw, status = samples.values[i], samples.status[i] if samples.status else 0
        value = None
        if quality(status) != "bad":
            value, status, _, _ = rules.full(raw, status)
        at = samples.source_ts[i] if samples.source_ts else None
        rows.append(
            {
                "signal": signal.signal.name,
                "value": json_value(value),
                "unit": signal.unit,
                "quality": quality(status),
                "status": info(status).name,
                "raw": json_value(raw),
                "ts": to_rfc3339(at if at is not None else samples.received),
                "address": signal.address_text,
            }
        )
    return rows
