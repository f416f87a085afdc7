"""`guantong devices` and `guantong tail`: what the running gateway says, over its API."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from gateway.cli._output import chinese, fail, say, show
from gateway.cli.app import ConfigOption, JsonOption, app, load

ApiOption = Annotated[
    str | None,
    typer.Option("--api", help="Address of the API; that of the configuration by default.", envvar="GUANTONG_API"),
]
KeyOption = Annotated[str | None, typer.Option("--key", help="Key of the API.", envvar="GUANTONG_API_KEY")]


_FIRST = 3
"""So much of what is in trouble of one device is in the table; all of it is in the JSON."""


def _get(
    base: str, path: str, key: str | None, *, accept: str = "application/json", timeout: float = 10
) -> HTTPResponse:
    try:
        return _asked(base, path, key, accept=accept, timeout=timeout)
    except urllib.error.HTTPError as error:
        _refused(error)
    except (OSError, ValueError) as error:
        fail(
            say(
                f"{base} 无法访问：{error}。网关在运行吗？", f"{base} cannot be reached: {error}. Does the gateway run?"
            )
        )


def _asked(base: str, path: str, key: str | None, *, accept: str, timeout: float) -> HTTPResponse:
    request = urllib.request.Request(base.rstrip("/") + path, headers={"Accept": accept})
    request.add_header("Accept-Language", "zh" if chinese() else "en")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    return answer


def _refused(error: urllib.error.HTTPError) -> NoReturn:
    try:
        problem = msgspec.json.decode(error.read())
        text = f"{problem.get('title', '')}: {problem.get('detail', '')}"
    except (msgspec.MsgspecError, AttributeError, OSError):
        text = str(error)
    if error.code == 401:
        text += say("；请用 --key 或 GUANTONG_API_KEY 给出密钥", "; give a key with --key or GUANTONG_API_KEY")
    fail(text)


def _base(api: str | None, config: Any) -> str:
    if api:
        return api
    settings = load(config).api
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _pages(base: str, path: str, key: str | None) -> Iterator[dict[str, Any]]:
    while path:
        with _get(base, path, key) as answer:
            page = msgspec.json.decode(answer.read())
        yield from page["items"]
        following = page.get("next") or ""
        path = following.removeprefix(base)


def _troubles(base: str, device: str, key: str | None) -> list[dict[str, str]] | None:
    """What is wrong with single signals and events of a device that is connected; None where nobody can say, as without a collector."""
    path = f"/api/v1/devices/{urllib.parse.quote(device, safe='')}/troubles"
    try:
        with _asked(base, path, key, accept="application/json", timeout=10) as answer:
            items: list[dict[str, str]] = msgspec.json.decode(answer.read())["items"]
    except (OSError, ValueError, KeyError):
        return None
    return items


def _why(row: dict[str, Any]) -> str:
    """Reason and fix of a device in one cell, or the first of what is in trouble of it."""
    told = [f"{item['signal']}: {item['text']}" for item in row["troubles"]]
    more = [f"(+{len(told) - _FIRST})"] if len(told) > _FIRST else []
    return "; ".join(text for text in (row["text"] or row["reason"], row["fix"], *told[:_FIRST], *more) if text)


@app.command(epilog="Examples: guantong devices    guantong devices --json")
def devices(
    config: ConfigOption = None, api: ApiOption = None, key: KeyOption = None, json: JsonOption = False
) -> None:
    """List the devices with state, reason and fix."""
    base = _base(api, config)
    rows = list(_pages(base, "/api/v1/devices", key))
    known = True
    for row in rows:
        found = _troubles(base, row["id"], key) if known and row["state"] == "connected" else []
        known = found is not None  # who cannot say it of one device is not asked of all
        row["troubles"] = found or []
    if not json:
        for row in rows:
            row["why"] = _why(row)
    columns = {
        "id": say("设备", "device"),
        "state": say("状态", "state"),
        "name": say("名称", "name"),
        "signals": say("信号数", "signals"),
        "last_seen": say("最后收到", "last seen"),
        "why": say("原因与处理", "reason and fix"),
    }
    show(rows, columns, as_json=json)


@app.command(epilog="Examples: guantong tail    guantong tail 'imm-01/*'    guantong tail '*/voltage/*' --json | head")
def tail(
    match: Annotated[
        str, typer.Argument(metavar="SIGNAL-GLOB", help="Which signals: DEVICE/NAME, * and ? match.")
    ] = "*",
    config: ConfigOption = None,
    api: ApiOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Show readings as they are stored, until Ctrl-C."""
    path = "/api/v1/stream?" + urllib.parse.urlencode({"match": match})
    with _get(_base(api, config), path, key, accept="text/event-stream", timeout=60) as answer:
        try:
            for kind, data in _events(answer):
                if kind in ("readings", "snapshot"):
                    for reading in msgspec.json.decode(data)["items"]:
                        _print(reading, as_json=json)
        except KeyboardInterrupt:
            return
        except BrokenPipeError:  # whoever reads what is printed has gone; the gateway has not
            raise
        except (TimeoutError, OSError) as error:
            fail(say(f"连接中断：{error}", f"the connection was lost: {error}"))


def _events(answer: HTTPResponse) -> Iterator[tuple[str, str]]:
    """Server-sent events (WHATWG HTML §9.2) as (event, data)."""
    kind = "message"
    data: list[str] = []
    for raw in answer:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def _print(reading: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(reading).decode())
        return
    quality = reading["quality"]
    mark = "" if quality == "good" else f"  [{quality}: {reading.get('status_name', reading['status'])}]"
    value = "-" if reading["value"] is None else reading["value"]
    typer.echo(f"{reading['ts'] or '-':27}  {reading['signal']}  {value} {reading.get('unit', '')}{mark}".rstrip())
