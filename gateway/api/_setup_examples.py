"""Examples of requests and answers of `/api/v1/setup`, for the OpenAPI document. A test holds them against their shapes."""

from __future__ import annotations

from typing import Any, Final

_PLC: Final = {
    "adapter": "opcua",
    "settings": {"endpoint": "opc.tcp://192.168.1.20:4840", "security": "none", "user": "mes", "password": "…"},
}
_METER: Final = {"adapter": "modbus", "settings": {"host": "192.168.1.30", "port": 502, "transport": "tcp"}}
_NODE: Final = 'nsu=urn:plc;s="DB_Line"."Placed"'
_YAML: Final = "gateway: {id: line1}\nlinks:\n- id: plc-01\n  adapter: opcua\n"

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "setup_endpoints": {"server": {"url": "opc.tcp://192.168.1.20:4840"}},
    "setup_browse": {
        "objects": {"link": _PLC, "node": None},
        "filter": {"link": {"id": "plc-01"}, "node": None, "filter": "*Temp*", "limit": 200},
    },
    "setup_test_read": {
        "node": {"link": _PLC, "node": _NODE},
        "registers": {
            "link": _METER,
            "unit": 1,
            "address": {"table": "input", "address": 52, "type": "float32", "order": "ABCD"},
        },
        "serial": {
            "link": {
                "adapter": "modbus",
                "settings": {"serial": "/dev/serial/by-id/usb-RS485", "baud": 9600, "parity": "N", "stop": 1},
            },
            "unit": 3,
            "address": {"table": "holding", "address": 4096, "type": "int16"},
        },
        "signal": {"signal": "imm-01/cycle/last_time"},
    },
    "setup_device": {
        "nodes": {
            "device": {"id": "plc-01", "name": {"zh": "1号线PLC", "en": "PLC of line 1"}},
            "link": _PLC,
            "nodes": [
                {
                    "node": _NODE,
                    "path": "Line/DB_Line/Placed",
                    "name": "Placed",
                    "type": "UInt32",
                    "unit": "",
                    "class": "Variable",
                }
            ],
        },
        "profile": {"device": {"id": "meter-01"}, "link": _METER, "unit": 1, "profile": "eastron-sdm630"},
        "signals": {
            "device": {"id": "temp-01"},
            "link": {"id": "meter-01"},
            "unit": 2,
            "signals": [
                {
                    "name": "temperature",
                    "type": "int16",
                    "unit": "℃",
                    "scale": 0.1,
                    "address": {"table": "holding", "address": 4096, "type": "int16"},
                }
            ],
        },
    },
    "setup_removal": {"device": {"device": "plc-01"}},
}
"""Operation -> name -> body."""

ANSWERS: Final[dict[str, Any]] = {
    "setup_profiles": {
        "profiles": [
            {
                "name": "eastron-sdm630", "protocol": "modbus", "title": "Eastron SDM630 energy meter", "vendor": "Eastron",
                "verified": "simulator", "source": "SDM630 Modbus protocol, V1.7", "signals": 41,
            }
        ]
    },
    "setup_endpoints": {
        "endpoints": [
            {
                "url": "opc.tcp://192.168.1.20:4840", "policy": "Basic256Sha256", "mode": "SignAndEncrypt", "users": ["UserName"],
                "fingerprint": "0f7c…", "server": "SIMATIC.S7-1500.OPC-UA.Application:PLC_1",
            }
        ]
    },
    "setup_browse": {
        "nodes": [
            {
                "node": _NODE, "path": "Line/DB_Line/Placed", "name": "Placed", "class": "Variable", "type": "UInt32",
                "picked_type": "uint32", "value": 1204, "unit": "", "status": 0, "status_name": "Good", "quality": "good",
                "source_ts": "2026-11-22T08:30:00.000001Z", "has_children": False, "enum": None,
            }
        ],
        "namespaces": ["http://opcfoundation.org/UA/", "urn:plc"],
        "known": [
            {"uri": "http://www.siemens.com/simatic-s7-opcua", "name": "Siemens S7 PLC", "profile": "siemens-s7-1500-line", "note": ""}
        ],
        "truncated": False,
    },
    "setup_test_read": {
        "status": 0, "status_name": "Good", "status_text": "The value is good.", "quality": "good", "fix": "", "value": 3.25,
        "text": "3.25", "type": "float32", "signal_type": "float32", "unit": "", "name": "", "node": "", "source_ts": None,
        "server_ts": None, "received_at": "2026-11-22T08:30:00.000001Z", "registers": [16464, 0], "raw": "40500000",
        "raw_value": None, "others": [{"type": "float32", "order": "CDAB", "value": 2.3, "text": "2.3"}],
    },
    "setup_import_table": {"yaml": _YAML, "devices": 1, "points": 12, "notices": []},
    "setup_device": {"yaml": _YAML, "device": "plc-01", "link": "plc-01", "signals": 1, "notices": []},
    "setup_removal": {"yaml": "gateway: {id: line1}\nlinks: []\n", "notices": []},
    "device_troubles": {
        "device": "meter-01", "state": "degraded", "reason": "power/l3: holding register 0x0007 (1 long): exception 2, ILLEGAL DATA ADDRESS.",
        "items": [{"signal": "power/l3", "text": "holding register 0x0007 (1 long): exception 2, ILLEGAL DATA ADDRESS."}],
    },
}  # fmt: skip
"""Operation -> an answer."""
