"""`guantong ledger`: where every message is, from outbox to store."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import typer

from gateway.cli._output import fail, say, show, told, with_fix
from gateway.cli.app import ConfigOption, JsonOption, app, load

if TYPE_CHECKING:
    from gateway.config.models import Config

ledger_app = typer.Typer(
    help="Per stream: in the outbox, sent, confirmed, stored, gaps.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(
    ledger_app,
    name="ledger",
    epilog="Examples: guantong ledger    guantong ledger --json    guantong ledger --verify    guantong ledger adopt STORE-ID",
)


def _columns() -> dict[str, str]:
    return {
        "stream": say("流", "stream"), "gateway": say("网关", "gateway"), "outbox": say("发件箱中", "in outbox"),
        "high": say("最后编号", "last number"), "sent": say("已发送", "sent"), "confirmed": say("已确认", "confirmed"),
        "stored": say("已入库", "stored"), "gaps": say("缺口", "gaps"), "closed": say("已结束", "closed"),
    }  # fmt: skip


@ledger_app.callback()
def ledger(
    context: typer.Context,
    config: ConfigOption = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Walk outbox, hash chain, store and gaps against each other; changes nothing. Exit code 1: something is wrong.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show each stream: how many messages the outbox holds, its last number, how far it is sent, confirmed and stored, its gaps."""
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    if verify:
        _verify(load(config), as_json=json)
        return
    from gateway.ledger.steps import StoreError
    from gateway.store import open_reader

    loaded = load(config)
    rows: dict[str, dict[str, Any]] = {}
    path = loaded.data_dir / "outbox.sqlite"
    if path.exists():
        for row in _held(path):
            rows[row["stream"]] = {"gateway": loaded.gateway.id, **row}
    figures = _figures(f"http://{loaded.metrics.host}:{loaded.metrics.collect_port}/metrics")
    for stream, (sent, confirmed) in _sent(figures).items():
        if stream in rows:
            rows[stream] |= {"sent": sent, "confirmed": confirmed}
    reader = open_reader(loaded.store, loaded.data_dir)
    try:
        for record in reader.streams():
            rows.setdefault(record.id, {"stream": record.id, "outbox": 0}).update(
                gateway=record.gateway, stored=record.watermark, gaps=record.gaps, closed=record.closed_at is not None
            )
    except StoreError as error:
        typer.echo(f"{say('存储不可用', 'the store cannot be read')}: {with_fix(error, error.fix)}", err=True)
    finally:
        reader.close()
    show(list(rows.values()), _columns(), as_json=json)
    if not json and (room := _room(figures)):
        typer.echo(room)


def _verify(config: Config, *, as_json: bool) -> None:
    """Prints what was walked and what was found; ends with 1 when something was, or when the store cannot be read."""
    from gateway.ledger.steps import StoreError
    from gateway.ledger.verify import verify
    from gateway.store import open_reader
    from gateway.store.witness import Witness

    path = config.data_dir / "outbox.sqlite"
    outbox = path if path.exists() else None
    reader = open_reader(config.store, config.data_dir)
    unread = ""
    try:
        found = verify(outbox, Witness(reader), config.gateway.id)
    except StoreError as error:
        unread = with_fix(error, error.fix)
        found = verify(outbox, None, config.gateway.id)
    finally:
        reader.close()
    walked = {
        name: getattr(found, name) for name in ("streams", "messages", "readings", "events", "gaps", "dead_letters")
    }
    findings = [{"code": one.code, "stream": one.stream, "text": told(one.text)} for one in found.findings]
    if as_json:
        document = {"outbox": str(path), "store_read": not unread, "walked": walked, "findings": findings}
        typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        if outbox is None:
            typer.echo(say(f"没有发件箱 {path}：只检查存储", f"there is no outbox {path}: only the store is checked"))
        for one in findings:
            where = "" if one["stream"] is None else say(f"流 {one['stream']}：", f"stream {one['stream']}: ")
            typer.echo(f"{one['code']}: {where}{one['text']}")
        typer.echo(
            say(
                "已核对：{streams} 个流，{messages} 条消息，{readings} 个读数，{events} 个事件，{gaps} 个缺口；待处理死信 {dead_letters} 条；{n} 处问题",
                "walked: {streams} streams, {messages} messages, {readings} readings, {events} events, {gaps} gaps; {dead_letters} dead "
                "letters wait; {n} findings",
            ).format(n=len(findings), **walked)
        )
    if unread:
        fail(f"{say('存储不可用，只检查了发件箱', 'the store cannot be read, only the outbox was checked')}: {unread}")
    if findings:
        raise typer.Exit(1)


def _held(path: Path) -> list[dict[str, Any]]:
    """The outbox's streams, read beside a running collector."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            found = db.execute(
                "SELECT s.id, count(m.seq), s.high, s.confirmed FROM stream s LEFT JOIN message m USING (pos) GROUP BY s.pos ORDER BY s.pos"
            ).fetchall()
        finally:
            db.close()
    except sqlite3.Error as error:
        fail(f"{path}: {error}")
    return [
        {"stream": stream, "outbox": count, "high": high, "confirmed": confirmed}
        for stream, count, high, confirmed in found
    ]


def _figures(url: str) -> dict[str, dict[str, float]]:
    """What the running collector says of itself: name -> stream (or nothing) -> value; empty when it does not run."""
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    except OSError:
        return {}
    values: dict[str, dict[str, float]] = {}
    for family in families:
        for sample in family.samples:
            values.setdefault(sample.name, {})[sample.labels.get("stream", "")] = sample.value
    return values


def _sent(figures: dict[str, dict[str, float]]) -> dict[str, tuple[int, int]]:
    """Of each stream: how far the running collector has sent and knows confirmed."""
    sent, confirmed = (figures.get(f"guantong_ledger_{what}", {}) for what in ("sent", "confirmed"))
    return {
        stream: (int(sent.get(stream, 0)), int(confirmed.get(stream, 0))) for stream in sent.keys() | confirmed.keys()
    }


def _room(figures: dict[str, dict[str, float]]) -> str:
    """How full the outbox is, and for how long there is room; nothing where no collector says so."""
    from gateway.collect.budget import days

    waiting, budget = (figures.get(f"guantong_outbox_{name}_bytes", {}).get("") for name in ("waiting", "budget"))
    if waiting is None or budget is None:
        return ""
    room = figures.get("guantong_outbox_room_seconds", {}).get("")
    text = say(
        f"发件箱已有 {waiting / 1e9:.3g} GB，共 {budget / 1e9:.3g} GB",
        f"the outbox holds {waiting / 1e9:.3g} GB of {budget / 1e9:.3g} GB",
    )
    if room is None:
        return text
    return text + say(
        f"；若存储不可用，按目前的速度还可保存 {days(room, chinese=True)}",
        f"; room for {days(room)} at the present rate if the store is away",
    )


@ledger_app.command(epilog="Example: guantong ledger adopt 3f0c…    (stop the collector first)")
def adopt(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Id of the store that shall confirm from now on.")],
) -> None:
    """Give the outbox to another store: what the new one lacks and the outbox still holds is sent to it."""
    from gateway.ledger.outbox import Outbox, OutboxError
    from gateway.platform import FileLock, LockedError

    try:
        store = str(UUID(store))
    except ValueError:
        fail(
            say(
                f"{store} 不是存储编号；编号形如 3f0c2a9e-…，见 /health 或日志中的提示",
                f"{store} is not the id of a store, such as 3f0c2a9e-…: /health and the log name the store that answers",
            )
        )
    loaded = load(context.obj)
    path = loaded.data_dir / "outbox.sqlite"
    if not path.exists():
        fail(say(f"没有找到 {path}", f"there is no {path}"))
    try:
        lock = FileLock(loaded.data_dir / "outbox.lock")
    except LockedError:
        fail(say("采集进程正在运行；请先停止网关", "the collector runs; stop the gateway first"))
    try:
        outbox = Outbox(path)
        before = outbox.store
        outbox.pin(store)
        outbox.close()
    except OutboxError as error:
        fail(with_fix(error, error.fix))
    finally:
        lock.release()
    typer.echo(
        say(
            f"发件箱现在属于存储 {store}（原为 {before}）",
            f"the outbox now belongs to store {store} (before: {before})",
        )
    )
