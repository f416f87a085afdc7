"""Prometheus metrics of collect: http://METRICS_HOST:COLLECT_PORT/metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.api.reasons import explain
from gateway.collect.forwarder import twin_text
from gateway.collect.items import DeviceStatus
from gateway.config.models import MetricsSettings
from gateway.diagnosis.box_clock import FIX_EN, FIX_ZH, BoxClock, ClockWatch
from gateway.diagnosis.faults import Faults
from gateway.diagnosis.frame_server import FrameServer
from gateway.metrics import bus_metrics, bus_part, process_metrics, served
from gateway.role_health import Device, Look, Part
from gateway.tasks import together
from schemas.bilingual import Bilingual
from schemas.times import to_rfc3339

if TYPE_CHECKING:
    from gateway.collect.role import Collect


class CollectMetrics(Collector):
    """Reads the running totals when it is asked; the hot path counts only what it needs anyhow."""

    def __init__(self, collect: Collect, clock: BoxClock) -> None:
        self._role, self._clock = collect, clock

    def collect(self) -> Iterator[Metric]:
        yield from self._clock.metrics()
        yield from self._devices()
        yield from self._links()
        yield from self._outbox()
        yield from bus_metrics(self._role.bus)
        yield from process_metrics("collect")

    def _devices(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "guantong_device_state", "1 for the device's present state", labels=["device", "state", "reason"]
        )
        troubles = GaugeMetricFamily(
            "guantong_device_troubles",
            "Signals and events in trouble by themselves, such as addresses that it refuses",
            labels=["device"],
        )
        readings = CounterMetricFamily("guantong_device_readings", "Readings recorded", labels=["device"])
        for host in self._role.hosts:
            for status in host.statuses():
                state.add_metric([status.device, status.state, status.reason], 1)
                troubles.add_metric([status.device], len(status.troubles))
        for device, count in self._role.readings.items():
            readings.add_metric([device], count)
        yield state
        yield troubles
        yield readings

    def _links(self) -> Iterator[Metric]:
        reconnects = CounterMetricFamily("guantong_link_reconnects", "Times a link came back", labels=["link"])
        requests = CounterMetricFamily(
            "guantong_link_requests", "Requests sent, or notifications taken", labels=["link"]
        )
        overruns = CounterMetricFamily(
            "guantong_link_overruns", "Scans that were due before the last was done", labels=["link"]
        )
        busy = CounterMetricFamily(
            "guantong_link_busy_seconds",
            "Seconds for which the wire was taken; its rate is the utilisation",
            labels=["link"],
        )
        load = GaugeMetricFamily(
            "guantong_link_load",
            "What the schedule asks of a wire that bears one request at a time, as a share of its time; more than 1 does not fit",
            labels=["link"],
        )
        values = CounterMetricFamily("guantong_link_values", "Values received", labels=["link"])
        errors = CounterMetricFamily("guantong_link_errors", "Errors by kind", labels=["link", "kind"])
        for host in self._role.hosts:
            link, counters = host.link.id, host.counters()
            reconnects.add_metric([link], max(host.supervised.numbers.ups - 1, 0))
            requests.add_metric([link], counters.requests)
            overruns.add_metric([link], counters.overruns)
            busy.add_metric([link], counters.busy)
            if counters.busy:
                load.add_metric([link], counters.load)
            values.add_metric([link], counters.values)
            for kind, count in counters.errors.items():
                errors.add_metric([link, kind], count)
        yield from (reconnects, requests, overruns, busy, load, values, errors)

    def _outbox(self) -> Iterator[Metric]:
        role, outbox = self._role, self._role.outbox
        numbers, sender = role.recorder.numbers, role.sender
        yield GaugeMetricFamily(
            "guantong_outbox_bytes", "Bytes of the file in use, confirmed messages included", outbox.size
        )
        budget = role.recorder.budget
        yield GaugeMetricFamily("guantong_outbox_budget_bytes", "Bytes of the file that may be in use", budget.allowed)
        yield GaugeMetricFamily("guantong_outbox_disk_bytes", "Bytes of file and write-ahead log", outbox.on_disk)
        yield GaugeMetricFamily("guantong_outbox_waiting_bytes", "About how many wait for the store", outbox.waiting)
        rate, room = budget.rate, budget.room(outbox.waiting)
        if rate is not None:
            yield GaugeMetricFamily(
                "guantong_outbox_filling_bytes_per_second", "What is written now, over ten minutes", rate
            )
        if room is not None:
            yield GaugeMetricFamily(
                "guantong_outbox_room_seconds", "Until the budget is spent if the store confirms nothing", room
            )
        streams = outbox.streams()
        waiting = sum(max(s.high - s.confirmed, 0) for s in streams)
        yield GaugeMetricFamily(
            "guantong_outbox_unconfirmed_messages", "Messages that the store has not confirmed", waiting
        )
        sent = GaugeMetricFamily("guantong_ledger_sent", "Highest number sent", labels=["stream"])
        confirmed = GaugeMetricFamily("guantong_ledger_confirmed", "Highest number confirmed", labels=["stream"])
        for stream in streams:
            cursor = sender.cursor(stream.id)
            sent.add_metric([stream.id], max((cursor or 1) - 1, stream.confirmed))
            confirmed.add_metric([stream.id], stream.confirmed)
        yield sent
        yield confirmed
        for name, text, value in (
            ("readings", "Readings recorded", numbers.readings),
            ("messages", "Messages made durable", numbers.messages),
            ("commits", "Group commits", numbers.commits),
            ("written_bytes", "Bytes of bodies made durable", numbers.bytes),
            ("dropped", "Readings dropped because the budget was spent", numbers.dropped),
        ):
            yield CounterMetricFamily(f"guantong_outbox_{name}", text, value)
        for name, text, value in (
            ("syncs", "Times the collector asked where the store is", sender.numbers.syncs),
            ("sent", "Messages sent", sender.numbers.sent),
            ("resent", "Messages sent again", sender.numbers.resent),
            ("replays", "Replays asked for by ingest", sender.numbers.replays),
            ("forks", "Streams that somebody else had continued", sender.numbers.forks),
        ):
            yield CounterMetricFamily(f"guantong_sender_{name}", text, value)
        up = GaugeMetricFamily("guantong_outbox_ok", "1 while the outbox takes everything", labels=["state", "reason"])
        up.add_metric(
            [role.recorder.health.state, role.recorder.health.reason], float(role.recorder.health.state == "ok")
        )
        yield up


class Measured:
    """Collect, what watches it, and its metrics, until cancelled."""

    def __init__(self, collect: Collect, settings: MetricsSettings) -> None:
        self._collect, self._settings = collect, settings
        self._watch = ClockWatch(collect)
        self._frames = FrameServer(collect)
        collect.status_listeners.append(
            Faults(collect.config.data_dir, lambda: collect.hosts, collect.thread.submit).status
        )

    def _look(self) -> Look:
        """How collect is, for /health: it is ready while the outbox takes what the devices say."""
        health = self._collect.recorder.health
        bad = [s for host in self._collect.hosts for s in host.statuses() if s.state != "ok"]
        parts = {
            "outbox": Part(health.state, health.reason, health.fix),
            "bus": bus_part(self._collect.bus),
            "devices": _devices(bad, len(self._collect.plan.devices)),
            "clock": _clock(self._watch.clock),
        }
        if (twin := self._collect.sender.twin) is not None:
            parts["gateway_id"] = Part("failed", *twin_text(self._collect.plan.gateway.id, twin))
        devices = tuple(
            Device(s.device, s.state, _meaning(s.reason), Bilingual(s.fix_en, s.fix_zh) if s.fix_en else "", s.troubles)
            for s in bad
        )
        return Look(parts, frozenset({"outbox"}), devices)

    async def run(self) -> None:
        """Runs all."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(CollectMetrics(self._collect, self._watch.clock))
        async with served(registry, self._settings, self._settings.collect_port, "collect", self._look):
            await together(self._collect.run(), self._watch.run(), self._frames.run())


def _meaning(reason: str) -> str:
    """What a short word means; a sentence stays what it is."""
    if isinstance(reason, Bilingual) or not reason:
        return reason
    known = explain(reason).text
    return Bilingual(f"{reason}: {known.en}", f"{reason}：{known.zh}") if known.en != reason else reason


def _devices(bad: list[DeviceStatus], all_devices: int) -> Part:
    if not bad:
        return Part()
    names = ", ".join(status.device for status in bad[:5]) + (", …" if len(bad) > 5 else "")
    return Part(
        "degraded",
        Bilingual(
            f"{len(bad)} of {all_devices} devices are not well: {names}",
            f"{all_devices} 个设备中 {len(bad)} 个异常：{names}",
        ),
        Bilingual(
            "See `devices` below, each with its reason and fix.", "见下方 devices，其中有各设备的原因与处理办法。"
        ),
    )


def _clock(clock: BoxClock) -> Part:
    """`clock_behind` is the state of a start whose clock is behind the last time that was stored."""
    behind = clock.behind
    if behind:
        last = to_rfc3339(clock.last)
        reason = Bilingual(
            f"clock_behind: the clock is {behind:.0f} s behind the last time stored, {last}",
            f"clock_behind：时钟比已存储的最后时间 {last} 慢 {behind:.0f} 秒",
        )
    elif clock.unsynced:
        reason = Bilingual(
            "unsynced: the clock is not synchronised; readings stamped by it are flagged",
            "unsynced：时钟未同步；由其标记时间的读数带有标志",
        )
    else:
        return Part()
    return Part("degraded", reason, Bilingual(FIX_EN, FIX_ZH))
