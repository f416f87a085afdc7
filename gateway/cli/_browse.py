"""`guantong browse` and `guantong test-read`: look at a machine before anything is configured."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.contract import AdapterError
from gateway.cli._output import fail, language, say, show, with_fix
from gateway.cli._points import ForceOption, form_of, save
from gateway.cli.app import ConfigOption, JsonOption, app, load
from schemas.bilingual import Bilingual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.opcua import LinkSettings
    from adapters.opcua.discovery import Endpoint, Found

EndpointArgument = Annotated[str, typer.Argument(help="opc.tcp://HOST:PORT")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that an answer may take.")]
UserOption = Annotated[str | None, typer.Option(help="User name; anonymous without it.")]
PasswordOption = Annotated[
    str | None, typer.Option(help="Environment variable that holds the password.", metavar="NAME")
]
SecurityOption = Annotated[
    str, typer.Option(help="none, auto (the strongest that the server offers), or a policy such as Basic256Sha256.")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        help="PEM or DER file; without it the gateway's own certificate and its trusted ones count (guantong certs)."
    ),
]
ClearOption = Annotated[
    bool, typer.Option("--allow-clear-password", help="Send the password in clear if the server knows no other way.")
]


def _settings(
    endpoint: str,
    timeout: float,
    user: str | None,
    password_env: str | None,
    security: str,
    certificate: Path | None,
    key: Path | None,
    server_certificate: Path | None,
    allow_clear_password: bool,
) -> LinkSettings:
    import os

    from adapters.opcua import LinkSettings
    from schemas.documents import DocumentError, validate

    data: dict[str, Any] = {
        "endpoint": endpoint, "timeout": timeout, "security": security, "allow_clear_password": allow_clear_password,
    }  # fmt: skip
    if security != "none":
        data["security"] = {
            "policy": security, "certificate": certificate, "key": key, "server_certificate": server_certificate,
        }  # fmt: skip
    if user is not None:
        data["user"] = user
    if password_env is not None:
        if password_env not in os.environ:
            fail(say(f"没有环境变量 {password_env}", f"there is no environment variable {password_env}"), 2)
        data["password"] = os.environ[password_env]
    try:
        return validate(data, LinkSettings, "options")
    except DocumentError as error:
        fail("; ".join(problem.text(language()) for problem in error.problems), 2)


def _place(settings: LinkSettings, config: Path | None) -> dict[str, Any]:
    """Where the gateway's certificates lie, for an Explorer that needs them; without a configuration the default data directory."""
    from gateway.config.plan import PKI

    if settings.security.policy == "none":
        return {}
    loaded = load(config)
    return {"pki": loaded.data_dir / PKI, "gateway": loaded.gateway.id}


def _said(error: AdapterError) -> str:
    return with_fix(error, Bilingual(error.fix_en, error.fix_zh))


@contextmanager
def _told() -> Iterator[None]:
    """An error of the link ends the command with its fix."""
    try:
        yield
    except AdapterError as error:
        fail(_said(error))


@app.command(
    epilog="Examples: guantong browse opc.tcp://192.168.1.20:4840 --filter '*Temperature*'    "
    "guantong browse opc.tcp://192.168.1.20:4840 --filter 'Machine/*' --pick --table points.xlsx"
)
def browse(
    endpoint: EndpointArgument,
    node: Annotated[str | None, typer.Option(help="NodeId to begin below; the Objects folder by default.")] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Only variables whose name, path or NodeId fits; * and ? match many.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, max=100, help="Levels to go down.")] = 20,
    pick: Annotated[
        bool, typer.Option("--pick", help="Write the variables shown as a profile, or as a point table with --table.")
    ] = False,
    table: Annotated[Path | None, typer.Option(help="With --pick: the point table to write (.xlsx or .csv).")] = None,
    profile: Annotated[Path | None, typer.Option(help="With --pick: the profile to write.")] = None,
    device: Annotated[str, typer.Option(help="With --pick: id of the device.")] = "device-1",
    timeout: TimeoutOption = 10.0,
    user: UserOption = None,
    password_env: PasswordOption = None,
    security: SecurityOption = "none",
    certificate: FileOption = None,
    key: FileOption = None,
    server_certificate: FileOption = None,
    allow_clear_password: ClearOption = False,
    config: ConfigOption = None,
    endpoints_only: Annotated[bool, typer.Option("--endpoints", help="Only the endpoints and their security.")] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Show what an OPC UA server offers: endpoints, known address spaces, and its tree with live values. Ctrl-C shows what was found."""
    from gateway.points.browsing import matches

    settings = _settings(
        endpoint, timeout, user, password_env, security, certificate, key, server_certificate, allow_clear_password
    )  # fmt: skip
    place = _place(settings, config)
    target = _target(pick, table, profile, device, force)
    with _told():
        offered = asyncio.run(_endpoints(settings))
    if not json:
        _show_endpoints(offered)
    if endpoints_only:
        if json:
            show([_endpoint_row(e) for e in offered], {}, as_json=True)
        return
    found: list[Found] = []
    namespaces: list[str] = []
    trouble = ""
    try:
        asyncio.run(_walk(settings, place, node, depth, found, namespaces))
    except KeyboardInterrupt:
        trouble = say("已中断", "interrupted")
    except AdapterError as error:
        trouble = _said(error)
    finally:
        _progress_done()
    chosen = [f for f in found if f.node_class == "Variable" and (filter_ is None or matches(f, filter_))]
    if not json:
        _show_known(namespaces)
    _show_tree(chosen, json)
    if not json:
        typer.echo(
            say(
                f"{len(found)} 个节点，显示 {len(chosen)} 个变量", f"{len(found)} nodes, {len(chosen)} variables shown"
            ),
            err=True,
        )
    if pick and chosen:
        assert target is not None
        _write(chosen, settings, device, target, table is not None, user, password_env, force)
    if trouble:
        fail(say(f"地址空间未读完：{trouble}", f"the address space was not read to its end: {trouble}"))


def _target(pick: bool, table: Path | None, profile: Path | None, device: str, force: bool) -> Path | None:
    """Where --pick writes; whatever stands in its way is told before the walk and not after it."""
    import re

    from schemas.model import ID_PATTERN

    if not pick:
        if table is not None or profile is not None:
            fail(say("--table 和 --profile 需要 --pick", "--table and --profile need --pick"), 2)
        return None
    if not re.fullmatch(ID_PATTERN, device):
        fail(
            say(
                f"--device {device!r}：只能用小写字母、数字、- 和 _",
                f"--device {device!r}: lower-case letters, digits, - and _ only",
            ),
            2,
        )
    if table is not None:
        form_of(table)
    target = table or profile or Path(f"{device}.yaml")
    if target.exists() and not force:
        fail(say(f"{target} 已存在；加 --force 覆盖", f"{target} exists: overwrite it with --force"))
    return target


async def _endpoints(settings: LinkSettings) -> list[Endpoint]:
    from adapters.opcua.discovery import endpoints

    return await endpoints(settings.endpoint, settings.timeout)


async def _walk(
    settings: LinkSettings,
    place: dict[str, Any],
    node: str | None,
    depth: int,
    found: list[Found],
    namespaces: list[str],
) -> None:
    from adapters.opcua.discovery import Explorer

    shown = time.monotonic()
    async with Explorer(settings, **place) as explorer:
        namespaces += explorer.namespaces
        async for one in explorer.walk(node, depth=depth):
            found.append(one)
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                _progress(len(found), explorer.requests)


def _progress(nodes: int, requests: int) -> None:
    if sys.stderr.isatty():
        text = say(
            f"{nodes} 个节点，{requests} 次请求；Ctrl-C 显示已找到的",
            f"{nodes} nodes, {requests} requests; Ctrl-C shows what was found",
        )
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _progress_done() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _endpoint_row(e: Endpoint) -> dict[str, Any]:
    return {
        "url": e.url,
        "policy": e.policy,
        "mode": e.mode,
        "users": ", ".join(e.users),
        "server": e.server,
        "sha1": e.fingerprint,
    }


def _show_endpoints(offered: list[Endpoint]) -> None:
    columns = {
        "url": say("端点", "endpoint"), "policy": say("安全策略", "security policy"), "mode": say("模式", "mode"),
        "users": say("登录方式", "users"), "server": say("服务器", "server"), "sha1": "SHA-1",
    }  # fmt: skip
    show([_endpoint_row(e) for e in offered], columns, as_json=False)
    typer.echo()


def _show_known(namespaces: list[str]) -> None:
    from gateway.points.browsing import recognise

    for known in recognise(namespaces):
        line = say(f"识别到 {known.name.zh}", f"Recognised: {known.name.en}") + f" ({known.uri})"
        if known.profile:
            line += say(f"；可用设备模板 {known.profile}", f"; shipped profile: {known.profile}")
        note = say(known.note.zh, known.note.en)
        typer.echo(line + (f" — {note}" if note else ""))


def _show_tree(chosen: list[Found], as_json: bool) -> None:
    from gateway.collect.courtesy import json_value
    from gateway.points.browsing import tree_row
    from schemas.status import info
    from schemas.times import to_rfc3339

    rows = []
    for found in chosen:
        at = found.source_ts if found.source_ts is not None else found.server_ts
        row = tree_row(found, to_rfc3339(at) if at is not None else "")
        row["value"] = json_value(found.value)
        row["status"] = info(found.status).name
        if found.status and found.value is None:
            row["value"] = row["status"] if not as_json else None
        if not as_json and isinstance(row["value"], list | dict | str):
            text = str(row["value"])
            row["value"] = text if len(text) <= 40 else text[:37] + "…"
        rows.append(row)
    columns = {
        "path": say("路径", "path"), "value": say("当前值", "value"), "unit": say("单位", "unit"), "type": say("类型", "type"),
        "time": say("时间", "time"), "node": "NodeId",
    }  # fmt: skip
    show(rows, columns, as_json=as_json)


def _write(
    chosen: list[Found],
    settings: LinkSettings,
    device: str,
    target: Path,
    as_table: bool,
    user: str | None,
    password_env: str | None,
    force: bool,
) -> None:
    from gateway.points import files
    from gateway.points._grid import TableError
    from gateway.points.browsing import imported, rows_of
    from gateway.points.exporting import write
    from gateway.points.importing import profile_of

    security = settings.security
    link: dict[str, Any] = {"security": security.policy}
    if security.policy != "none":
        if security.policy != "auto":
            link["mode"] = security.mode
        files_named = {name: getattr(security, name) for name in ("certificate", "key", "server_certificate")}
        link |= {name: str(path) for name, path in files_named.items() if path is not None}
    link |= {name: value for name, value in (("user", user), ("password_env", password_env)) if value is not None}
    rows = rows_of(settings.endpoint, device, chosen, link)
    if as_table:
        save(write(rows, form_of(target), say("zh", "en")), target, force)
        then = f"guantong points import {target}"
    else:
        try:
            text = files.to_yaml(
                profile_of(imported(rows), device, settings.endpoint), f"guantong browse {settings.endpoint}"
            )
            problems = [problem.text(language()) for problem in files.save_profile(text, target)]
        except TableError as error:
            problems = [problem.told(say("zh", "en")) for problem in error.problems]
        except OSError as error:
            problems = [f"{target}: {error.strerror}"]
        if problems:
            fail("; ".join(problems))
        then = f"profile: ./{target}"
    typer.echo(
        say(
            f"已写入 {target}（{len(rows[1])} 个点位）。下一步：{then}",
            f"Wrote {target} ({len(rows[1])} points). Next: {then}",
        ),
        err=True,
    )


# ----------------------------------------------------------------------------------------------------------- test-read

test_read = typer.Typer(
    name="test-read",
    help="Read one point of a device that is not configured: what arrived, and what it means.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(test_read)


@test_read.command(
    epilog="Example: guantong test-read modbus 192.168.1.30 --unit 1 --address 0x1000 --type float32 --order CDAB"
)
def modbus(
    host: Annotated[str, typer.Argument(help="HOST or HOST:PORT.")],
    address: Annotated[str | None, typer.Option(help="Address on the wire, from 0; 0x1000 is understood.")] = None,
    number: Annotated[str | None, typer.Option(help="Number as printed in manuals, from 1, instead.")] = None,
    unit: Annotated[int, typer.Option(min=0, max=255, help="Unit id (station number).")] = 1,
    table: Annotated[str, typer.Option(help="holding, input, coil or discrete.")] = "holding",
    type_: Annotated[str | None, typer.Option("--type", help="int16, uint16, int32, float32, …")] = None,
    order: Annotated[str, typer.Option(help="ABCD, CDAB, BADC or DCBA.")] = "ABCD",
    length: Annotated[int | None, typer.Option(help="Registers of a string or of bytes.")] = None,
    transport: Annotated[str, typer.Option(help="tcp or rtu-over-tcp.")] = "tcp",
    timeout: TimeoutOption = 1.0,
    json: JsonOption = False,
) -> None:
    """Read one Modbus point: its registers, its value, and what other types and byte orders would give."""
    from adapters.modbus import ModbusLinkSettings
    from gateway.collect.courtesy import json_value
    from gateway.points.testread import read_modbus, written
    from schemas.documents import DocumentError, validate
    from schemas.profile import ModbusAddress
    from schemas.status import info, is_bad

    name, colon, port = host.rpartition(":")
    link: dict[str, Any] = {"host": host, "transport": transport}
    if colon and port.isdecimal() and (":" not in name or name.startswith("[")):
        link |= {"host": name.strip("[]"), "port": int(port)}
    where: dict[str, Any] = {"table": table, "order": order.upper(), "length": length}
    where["type"] = type_ or ("bool" if table in ("coil", "discrete") else "uint16")
    where |= {key: value for key, value in (("address", address), ("number", number)) if value is not None}
    try:
        place = validate(where, ModbusAddress, "options")
        settings = validate(link, ModbusLinkSettings, "options")
    except DocumentError as error:
        fail("; ".join(problem.text(language()) for problem in error.problems), 2)
    with _told():
        found = asyncio.run(read_modbus(settings, unit, place, timeout=timeout))
    told = info(found.status)
    rows = [{"type": place.type, "order": place.order, "value": json_value(found.value), "chosen": "*"}]
    rows += [{"type": r.type, "order": r.order, "value": json_value(r.value), "chosen": ""} for r in found.others]
    if json:
        show(
            [{"status": told.name, "registers": list(found.registers), "raw": found.raw.hex(), "values": rows}], {}, as_json=True
        )  # fmt: skip
    elif is_bad(found.status):
        fail(f"{host} {table} {place.wire}: {told.name}. {say(told.fix_zh, told.fix_en)}")
    else:
        if found.registers:
            words = " ".join(f"{word:04X}" for word in found.registers)
            typer.echo(say(f"寄存器 {words}（地址 {place.wire} 起）", f"registers {words} (from address {place.wire})"))
        typer.echo(say(f"值 {written(found.value)}", f"value {written(found.value)}"))
        if found.others:
            typer.echo(say("按其他类型和字节序：", "as other types and byte orders:"))
            shown = [{"type": r.type, "order": r.order, "value": written(r.value)} for r in found.others]
            show(
                shown,
                {"type": say("类型", "type"), "order": say("字节序", "order"), "value": say("值", "value")},
                as_json=False,
            )
    if is_bad(found.status):
        raise typer.Exit(1)


@test_read.command(epilog='Example: guantong test-read opcua opc.tcp://192.168.1.20:4840 \'ns=3;s="DB"."Count"\'')
def opcua(
    endpoint: EndpointArgument,
    node: Annotated[str, typer.Argument(help="NodeId: nsu=URI;s=NAME, ns=2;s=NAME or i=2258.")],
    timeout: TimeoutOption = 5.0,
    user: UserOption = None,
    password_env: PasswordOption = None,
    security: SecurityOption = "none",
    certificate: FileOption = None,
    key: FileOption = None,
    server_certificate: FileOption = None,
    allow_clear_password: ClearOption = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Read one OPC UA node: the DataValue as it came, its type and unit."""
    from gateway.collect.courtesy import json_value
    from gateway.points.browsing import value_type
    from schemas.status import info, is_bad
    from schemas.times import to_rfc3339

    settings = _settings(
        endpoint, timeout, user, password_env, security, certificate, key, server_certificate, allow_clear_password
    )  # fmt: skip
    place = _place(settings, config)
    with _told():
        found = asyncio.run(_read_node(settings, place, node))
    told = info(found.status)
    row = {
        "node": found.node, "name": found.name, "value": json_value(found.value), "unit": found.unit, "type": found.type,
        "signal_type": value_type(found), "status": told.name,
        "source_time": to_rfc3339(found.source_ts) if found.source_ts is not None else None,
        "server_time": to_rfc3339(found.server_ts) if found.server_ts is not None else None,
    }  # fmt: skip
    if json:
        show([row], {}, as_json=True)
    else:
        for name, value in row.items():
            typer.echo(f"{name:12} {'-' if value is None or value == '' else value}")
    if is_bad(found.status):
        fail(f"{node}: {told.name}. {say(told.fix_zh, told.fix_en)}")


async def _read_node(settings: LinkSettings, place: dict[str, Any], node: str) -> Found:
    from adapters.opcua.discovery import Explorer

    async with Explorer(settings, **place) as explorer:
        return await explorer.read(node)
