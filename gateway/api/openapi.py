"""The OpenAPI 3.1 document: what FastAPI knows of paths and parameters, with the shapes of answers, problems and real examples."""

from __future__ import annotations

import json
import re
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from gateway.api import _setup_examples, config, problems, setup, shapes
from gateway.looking import shapes as looks

_EXAMPLES = Path(__file__).with_name("examples.json")
_REF = "#/components/schemas/"

DESCRIPTION = cleandoc("""
    What the machines of a workshop say and said, for MES and ERP: assets, devices, signals, latest values, history, events, gaps,
    and a live stream. 面向 MES/ERP 的车间数据接口。

    - **Ids**: a signal is `device/name`, such as `imm-01/cycle/last_time`; its slashes stand in URLs as they are. `signals/12` (the
      store's number) works too, and is never ambiguous.
    - **Times** are UTC with six decimals and `Z`. `start` and `end` take RFC 3339 with an offset, `now`, or an age such as `-24h`.
    - **Values** are exact. NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`; with `int64=string` integers beyond 2^53
      are strings. `status` is an OPC UA StatusCode, `quality` its top two bits.
    - **Pages** have a `next` link (also in the header `Link`) with an opaque cursor; rows that are added meanwhile shift nothing.
    - **Errors** are problem documents (RFC 9457) that name the parameter, what was found and what was expected.
    - **Languages**: texts are English or Chinese, by `Accept-Language` or `lang=`.
    - **Keys**: needed unless the server listens on loopback and has none: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
    - **Writes** to devices are refused in this version. `config` can be changed, with the role engineer or admin where there are keys.
""")

TAGS = [
    {"name": "Workshop", "description": "Assets, devices and signals · 资产、设备与信号"},
    {"name": "Readings", "description": "Latest values, history and the live stream · 最新值、历史与实时流"},
    {"name": "Happenings", "description": "Events, gaps and completeness · 事件、数据缺口与完整率"},
    {"name": "Gateway", "description": "The gateway itself · 网关自身"},
    {"name": "Setup", "description": "Connecting machines: endpoints, browsing, test-reads, point tables · 接入设备"},
]

ANSWERS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "assets": (shapes.Assets, shapes.AssetTree),
    "asset": (shapes.AssetDetail,),
    "devices": (shapes.Devices,),
    "device": (shapes.Device,),
    "connections": (shapes.Intervals,),
    "signals": (shapes.Signals,),
    "signal": (shapes.SignalDetail,),
    "signal_by_number": (shapes.SignalDetail,),
    "latest": (shapes.LatestValues,),
    "history": (shapes.History, shapes.Buckets),
    "history_by_number": (shapes.History, shapes.Buckets),
    "events": (shapes.Events,),
    "gaps": (shapes.Gaps,),
    "completeness": (shapes.CompletenessAnswer,),
    "dead_letters": (shapes.DeadLetters,),
    "ledger": (shapes.Ledger,),
    "health": (shapes.Health, shapes.Alive),
    "health_ready": (shapes.Health, shapes.Alive),
    "health_live": (shapes.Alive,),
}
"""Operation -> the shapes of its JSON answers."""

CONFIGURING: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "config": (config.ConfigState,),
    "change_config": (config.Changed,),
    "replace_config": (config.Changed,),
    "setup_profiles": (looks.ProfileChoices,),
    "setup_endpoints": (looks.Offered,),
    "setup_browse": (looks.Browsed,),
    "setup_test_read": (looks.TestRead,),
    "setup_import_table": (looks.TableDraft,),
    "setup_device": (looks.DeviceDraft,),
    "setup_removal": (looks.Draft,),
    "device_troubles": (looks.DeviceTroubles,),
}
"""The same, of the operations of a server that knows its configuration file."""

_PROBLEMS: dict[str, tuple[str, ...]] = {
    "401": ("unauthorized",),
    "403": ("forbidden", "writes-disabled"),
    "404": ("not-found",),
    "422": ("invalid-parameter",),
    "429": ("too-many-requests",),
    "503": ("store-unavailable", "store-failed", "busy", "keys-unreadable"),
}


_SETUP_PROBLEMS: dict[str, tuple[str, ...]] = {
    "400": ("bad-request",),
    "403": ("forbidden", "cross-origin"),
    "409": ("port-in-use", "config-unwritable"),
    "413": ("too-large",),
    "415": ("unsupported-media-type",),
    "422": ("invalid-parameter", "invalid-table", "invalid-configuration"),
    "429": ("look-busy", "too-many-requests"),
    "502": ("look-failed",),
    "503": ("no-collector", "busy", "keys-unreadable"),
    "504": ("look-timeout",),
}


def parameters_of(route: object) -> list[str]:
    """The names of all query parameters of a route."""
    found: list[str] = []
    dependant = getattr(route, "dependant", None)
    for parameter in getattr(dependant, "query_params", ()):
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            found += model.model_fields
        else:
            found.append(parameter.alias)
    return found


@cache
def examples() -> dict[str, list[dict[str, Any]]]:
    """Operation -> requests with the answers that were given to them, as recorded by the tests."""
    found: dict[str, list[dict[str, Any]]] = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    return found


def document(app: FastAPI) -> dict[str, Any]:
    """The document of this application; made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _make(app)
    return app.openapi_schema


def _make(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        description=app.description,
        license_info=app.license_info,
        tags=app.openapi_tags,
        routes=app.routes,
    )
    made["servers"] = [{"url": "/"}]
    made["security"] = [{}, {"bearer": []}, {"key": []}]
    made["components"] = {
        "schemas": _schemas(),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
    }
    for path in made["paths"].values():
        for operation in path.values():
            _complete(operation)
    return made


def _schemas() -> dict[str, Any]:
    kinds: list[Any] = [shape for several in [*ANSWERS.values(), *CONFIGURING.values()] for shape in several]
    kinds += [shapes.StreamChange, shapes.StreamSnapshot, problems.ProblemDocument, *setup.BODIES.values()]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    return dict(sorted(schemas.items()))


def _complete(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    operation["summary"] = re.split(r"(?<=[.;:]) ", operation.get("description", name), maxsplit=1)[0].rstrip(".;:")
    for parameter in operation.get("parameters", ()):
        # each has its own, which FastAPI repeats
        parameter["schema"].pop("title", None)
        if parameter["schema"].get("default", 0) == []:
            parameter["schema"].pop("default")
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": _content(name)}}
    if "application/json" in responses["200"]["content"] and name in _CACHED:
        responses["304"] = {"description": "The client has this already (`If-None-Match`)."}
    for status, kinds in (_PROBLEMS | (_SETUP_PROBLEMS if name.startswith("setup_") else {})).items():
        titles = "; ".join(problems.kinds()[kind][1].en for kind in kinds)
        responses[status] = {
            "description": f"{titles}.",
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF + "ProblemDocument"}}},
        }
    if name == "events":
        responses["410"] = {
            "description": "The cursor is of another life of the store.",
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF + "ProblemDocument"}}},
        }
    operation["responses"] = responses


_CACHED = ("assets", "asset", "devices", "device", "signals", "signal", "signal_by_number")


def _content(name: str) -> dict[str, Any]:
    given = {
        str(number): {"summary": f"GET {example['request']}", "value": example["answer"]}
        for number, example in enumerate(examples().get(name, ()), 1)
    }
    if name in _setup_examples.ANSWERS:
        given["1"] = {"value": _setup_examples.ANSWERS[name]}
    if name in ("setup_export_table", "setup_template"):
        return {media.partition(";")[0]: {"schema": {"type": "string"}} for media in setup.MEDIA.values()}
    if name == "metrics":
        return {"text/plain": {"schema": {"type": "string"}}}
    if name == "stream":
        return {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "Events `snapshot` (StreamSnapshot), `change` (StreamChange) and `reset`, whose data is JSON.",
                }
            }
        }
    refs = [{"$ref": _REF + shape.__name__} for shape in ANSWERS.get(name) or CONFIGURING[name]]
    content: dict[str, Any] = {
        "application/json": {
            "schema": refs[0] if len(refs) == 1 else {"anyOf": refs},
            **({"examples": given} if given else {}),
        }
    }
    if name.startswith("history"):
        line = {"type": "string", "description": "One JSON object a line: a reading or a bucket, with its signal."}
        content["application/x-ndjson"] = {"schema": line}
        content["text/csv"] = {"schema": {"type": "string"}}
    return content
