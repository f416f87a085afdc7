"""One example of each wire type: published in the JSON Schema files and in docs/wire-format.md, and validated in the tests."""

from __future__ import annotations

from typing import Any

from schemas import wire

STREAM = "6f1c1c1e-7a43-4be4-9b52-6f1b3b1f2c55"
STORE = "0b54f4a1-6b30-4e33-a1f7-7c6d5a1b9d10"
INGEST = "c8f0f5a2-2f0e-4c8a-8a55-0f6c1d6f7f11"
T = 1_795_336_200_000_000
"""2026-11-22T08:30:00Z"""
HASH = bytes(range(32))

_gap = wire.Gap("meter-01", None, T, T + 5_000_000, wire.Cause.DISCONNECTED, detail="timeout")
_event = wire.Event(
    id="3f0c6f0e-3a1d-5d6b-9a67-1d1f0b6a8f01",
    ts=T,
    source_ts=None,
    asset="press-01",
    device="imm-01",
    type="cycle",
    severity=100,
    message_zh="循环结束",
    message_en="Cycle ended",
    fields={"JobCycleCounter": 4711},
)
_signal = wire.SignalBirth(
    point=0,
    name="power/total",
    revision="5f2a9c1e77b0d3aa",
    type="float32",
    unit="W",
    kind="measurement",
    asset="press-01",
    group="fast",
    description_zh="总有功功率",
    description_en="Total active power",
    address="input 52 float32",
)
_birth = wire.Birth(
    at=T,
    device="meter-01",
    asset="press-01",
    name_zh="电表",
    name_en="Meter",
    protocol="modbus",
    profile="eastron-sdm630",
    endpoint="modbus+tcp://192.168.1.21:502/unit/1",
    assets=[
        wire.AssetBirth("hall-1", "一号车间", "Hall 1", None, "area"),
        wire.AssetBirth("press-01", parent="hall-1"),
    ],
    signals=[_signal],
)
_progress = wire.Progress(T, [wire.Done("meter-01", "fast", T)])
_mark = wire.Mark(STREAM, 41, HASH)

EXAMPLES: dict[type, Any] = {
    wire.Envelope: wire.Envelope(1, wire.Kind.PROGRESS, STREAM, 42, 42, 7, HASH, 0, b"\x92\x00\x90"),
    wire.Batch: wire.Batch(
        base=T,
        points=[0, 1, 0],
        offsets=[0, 0, 1_000_000],
        values=[1523.5, None, float(1530)],
        status=[0, 0x808B0000, 0],
        flags=[0, wire.Flag.RAW_KEPT, 0],
        extra={1: wire.Extra(None, 0x8002)},
    ),
    wire.Birth: _birth,
    wire.Link: wire.Link("meter-01", up=False, at=T, reason="timeout"),
    wire.Event: _event,
    wire.Gap: _gap,
    wire.Progress: _progress,
    wire.Closed: wire.Closed(STREAM, 41, HASH),
    wire.Tombstone: wire.Tombstone(
        HASH,
        [wire.Gap("meter-01", [0, 1], T, T + 60_000_000, wire.Cause.DROPPED, 120)],
        wire.Batch(T, [0, 1], [59_000_000, 60_000_000], [1523.5, 2]),
    ),
    wire.SyncRequest: wire.SyncRequest(1, "gateway", "n-1", None, [wire.Held(STREAM, 7, 42)]),
    wire.SyncAnswer: wire.SyncAnswer(1, "n-1", STORE, INGEST, [_mark]),
    wire.Confirmed: wire.Confirmed(1, STORE, INGEST, _mark),
    wire.Replay: wire.Replay(1, STORE, INGEST, STREAM, 42),
    wire.Hello: wire.Hello(1, STORE, INGEST),
    wire.Committed: wire.Committed(
        1, 815, [wire.Row(12, T, 0, 1523.5)], [wire.Link("meter-01", up=True, at=T)], [wire.Done("meter-01", "fast", T)]
    ),
    wire.Readings: wire.Readings(
        "gateway",
        "meter-01",
        [
            wire.Reading("power/total", "2026-11-22T08:30:00.000000Z", 1523.5, unit="W"),
            wire.Reading(
                "temperature",
                "2026-11-22T08:30:00.000000Z",
                None,
                status=0x808B0000,
                quality="bad",
                unit="Cel",
                flags=["raw_kept"],
                raw=0x8002,
            ),
        ],
    ),
    wire.EventMessage: wire.EventMessage(
        gateway="gateway",
        device="imm-01",
        id=_event.id,
        ts="2026-11-22T08:30:00.000000Z",
        type="cycle",
        severity=100,
        asset="press-01",
        message={"zh": "循环结束", "en": "Cycle ended"},
        fields={"JobCycleCounter": 4711},
    ),
    wire.BirthMessage: wire.BirthMessage(
        gateway="gateway",
        device="meter-01",
        at="2026-11-22T08:30:00.000000Z",
        asset="press-01",
        name={"zh": "电表", "en": "Meter"},
        protocol="modbus",
        profile="eastron-sdm630",
        signals=[
            wire.BirthSignal(
                "power/total",
                "float32",
                "W",
                "measurement",
                "press-01",
                {"zh": "总有功功率", "en": "Total active power"},
            )
        ],
    ),
    wire.Status: wire.Status(
        gateway="gateway",
        device="meter-01",
        state="recovering",
        since="2026-11-22T08:30:00.000000Z",
        reason="timeout",
        fix={"zh": "检查电缆和设备电源。", "en": "Check the cable and the power of the device."},
    ),
}

ADDRESSES: dict[str, list[dict[str, Any]]] = {
    "ModbusAddress": [
        {"table": "input", "address": 52, "type": "float32"},
        {"table": "holding", "address": 4096, "type": "int16", "sentinels": {"32770": "BadSensorFailure"}},
        {"table": "holding", "number": 45100, "type": "float32", "order": "CDAB"},
        {"table": "coil", "address": 5, "type": "bool"},
        {"table": "holding", "address": 12, "type": "uint16", "fields": {"running": 0, "mode": [4, 3]}},
        {"table": "holding", "address": 60, "type": "datetime", "layout": "bcd6", "zone": "Asia/Shanghai"},
        {
            "table": "input",
            "address": 8,
            "type": "int16",
            "scale_by": "input 9 int16 exponent",
        },
    ],
    "OpcUaAddress": [
        {"node": 'nsu=http://www.siemens.com/simatic-s7-opcua;s="DB_Line"."Placed"'},
        {"path": "em77:Jobs/em77:ActiveJobValues/em83:JobCycleCounter", "sampling": "200ms"},
        {"node": "i=2258"},
    ],
}
PROFILE: dict[str, Any] = {
    "profile": "our-meter",
    "version": 1,
    "protocol": "modbus",
    "name": {"zh": "电表", "en": "Meter"},
    "source": {"document": "Installation manual", "version": "1.4", "page": "12"},
    "verified": "manual",
    "licence": "CC0-1.0",
    "anchor": {"signal": "frequency", "min": 49, "max": 51},
    "groups": {"fast": {"period": "1s"}, "slow": {"period": "1min"}},
    "rules": {"max_registers": 80},
    "signals": [
        {
            "name": "frequency",
            "group": "fast",
            "unit": "Hz",
            "type": "float32",
            "address": {"table": "input", "address": 70, "type": "float32"},
        },
        {
            "name": "energy/import",
            "group": "slow",
            "kind": "counter",
            "counter": {"counts": "energy"},
            "unit": "kWh",
            "type": "float32",
            "address": {"table": "input", "address": 72, "type": "float32"},
        },
    ],
}
