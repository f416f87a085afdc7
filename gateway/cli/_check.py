"""`guantong check` and `guantong read`: does it work as configured, and what does a device answer right now?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.contract import Adapter, AdapterError, Samples
from gateway.cli._output import fail, say, show
from gateway.cli.app import ConfigOption, JsonOption, app, load

if TYPE_CHECKING:
    from gateway.config.models import Config
    from gateway.config.plan import Plan, PlannedDevice, PlannedLink

_CONNECT = 10.0
_READ = 10.0
_COLUMNS = {"what": "what", "state": "state", "detail": "detail", "fix": "fix"}


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
        rows = [_row(f"{p.file}", "failed", str(p)) for p in problems]
        if json:
            show(rows, _COLUMNS, as_json=True)
        else:
            for problem in problems:
                typer.echo(str(problem), err=True)
            typer.echo(
                say(f"配置有 {len(problems)} 处错误", f"{len(problems)} mistakes in the configuration"), err=True
            )
        raise typer.Exit(2)
    with _quiet():
        rows = asyncio.run(_check(load(config)))
    show(rows, _COLUMNS, as_json=json)
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
    rows = [_row("configuration", "ok", f"{len(plan.devices)} devices, {len(plan.signals)} signals")]
    rows += [row for link in links for row in link]
    return [*rows, await _check_bus(config), await asyncio.to_thread(_check_store, config)]


async def _check_link(link: PlannedLink) -> list[dict[str, Any]]:
    if link.adapter is None:
        assert link.broken is not None
        return [_row(f"link {link.id}", "failed", str(link.broken), _fix(link.broken))]
    adapter = link.adapter(link.spec())
    try:
        async with asyncio.timeout(_CONNECT):
            await adapter.connect()
    except AdapterError as error:
        return [_row(f"link {link.id}", "failed", str(error), _fix(error))]
    except TimeoutError:
        return [
            _row(
                f"link {link.id}", "failed", f"no connection within {_CONNECT:.0f} s", "Check address, cable and power."
            )
        ]
    try:
        return [await _check_device(adapter, device) for device in link.devices]
    finally:
        await adapter.disconnect()


async def _check_device(adapter: Adapter, device: PlannedDevice) -> dict[str, Any]:
    from schemas.status import info, is_bad

    what = f"device {device.id}"
    try:
        async with asyncio.timeout(_READ):
            samples = await adapter.read([signal.point for signal in device.signals])
    except AdapterError as error:
        return _row(what, "failed", str(error), _fix(error))
    except TimeoutError:
        return _row(
            what, "failed", f"no answer within {_READ:.0f} s", "Check the unit number, the wiring and the power."
        )
    first = device.first
    bad = {
        device.signals[point - first].signal.name: status
        for point, status in zip(samples.points, samples.status or [], strict=False)
        if is_bad(status)
    }
    if len(bad) == len(device.signals) and bad:
        told = info(next(iter(bad.values())))
        return _row(what, "failed", f"{adapter.endpoint(device.id)}: {told.name}", say(told.fix_zh, told.fix_en))
    if bad:
        listed = ", ".join(f"{name} ({info(status).name})" for name, status in list(bad.items())[:3])
        told = info(next(iter(bad.values())))
        return _row(
            what,
            "degraded",
            f"{len(bad)} of {len(device.signals)} signals are bad: {listed}",
            say(told.fix_zh, told.fix_en),
        )
    clock = _clock_of(samples, device)
    if clock is not None:
        return clock
    return _row(what, "ok", f"{adapter.endpoint(device.id)}: {len(device.signals)} signals")


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
            f"device {device.id}", "degraded", f"its clock is {hours:+g} h off: local time sent as UTC",
            f"Write clock: {{offset: {sign}{abs(hours):g}h}} at this device, or set its time zone.",
        )  # fmt: skip
    return _row(
        f"device {device.id}", "degraded", f"its clock is {off:+.0f} s off; the gateway's time is used",
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
            return _row("bus", "ok", f"embedded broker on {where}, started by guantong run")
        return _row("bus", "failed", bus.health.reason, say(bus.health.fix_zh, bus.health.fix_en))
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
        return _row("store", "failed", str(error))
    if config.store.url is None and not any(data_dir.glob("*.sqlite*")):
        return _row("store", "ok", f"SQLite in {data_dir}, made by guantong run")
    reader = open_reader(config.store, data_dir)
    try:
        reader.check()
    except StoreError as error:
        return _row("store", "failed", str(error), error.fix)
    finally:
        reader.close()
    return _row("store", "ok", config.store.url or f"SQLite in {data_dir}")


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
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        fail(say("配置有误", "the configuration has mistakes"), 2)
    show(
        asyncio.run(_read(plan, device, signal)),
        {"signal": "signal", "value": "value", "unit": "unit", "quality": "quality", "status": "status", "raw": "raw", "ts": "time", "address": "address"},
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
        fail(f"{error}. {_fix(error)}")
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
