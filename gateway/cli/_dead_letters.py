"""`guantong dead-letters`: what arrived and could not be stored, and what shall become of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from gateway.cli._output import fail, say, show, told, with_fix
from gateway.cli.app import ConfigOption, JsonOption, app, load
from schemas.bilingual import Bilingual

if TYPE_CHECKING:
    from gateway.config.models import Config
    from gateway.store import Reader
    from gateway.store.records import DeadLetter

letters_app = typer.Typer(
    help="What arrived and could not be stored: the reason of each, and what is in it.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(
    letters_app,
    name="dead-letters",
    epilog="Examples: guantong dead-letters    guantong dead-letters show 7    guantong dead-letters replay --all",
)

_POLL: Final = 0.2
_HEX: Final = 64
_PIECE: Final = 500
STATES: Final = {
    "waiting": Bilingual("waiting", "待处理"),
    "requested": Bilingual("replay asked for", "已请求重放"),
    "replayed": Bilingual("replayed", "已重放"),
    "discarded": Bilingual("discarded", "已丢弃"),
}

IdsArgument = Annotated[list[int] | None, typer.Argument(help="Numbers of dead letters, as the list shows them.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that wait.")]


@letters_app.callback()
def dead_letters(
    context: typer.Context,
    config: ConfigOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were replayed or discarded.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what could not be stored: since when, from which stream and number, and why."""
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    states = None if every else ("waiting", "requested")
    with _reading(load(config)) as reader:
        rows = [_row(letter, as_json=json) for letter in _all(reader, states)]
    columns = {
        "id": say("编号", "number"), "at": say("时间", "time"), "gateway": say("网关", "gateway"), "stream": say("流", "stream"),
        "seq": say("消息编号", "message"), "kind": say("种类", "kind"), "count": say("数量", "count"), "state": say("状态", "state"),
        "reason": say("原因", "reason"), "note": say("备注", "note"),
    }  # fmt: skip
    show(rows, columns, as_json=json)


@letters_app.command(name="show", epilog="Example: guantong dead-letters show 7 --json")
def show_one(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="Number of the dead letter.")],
    json: JsonOption = False,
) -> None:
    """Show one: what is in it, decoded as far as possible, and its bytes."""
    from gateway.api.values import to_plain
    from gateway.store.letters import content

    with _reading(load(context.obj)) as reader:
        (letter,) = _known(reader, [number])
        points = reader.points(letter.stream)
    held = to_plain(content(letter))
    document = _row(letter, as_json=True) | {"content": held, "raw": letter.raw.hex()}
    if letter.kind == 2 and isinstance(held, dict):
        document["signals"] = {str(point): points.get(point) for point in sorted(set(held["points"]))}
    if json:
        _print_json(document)
        return
    names = {
        "id": say("编号", "number"), "at": say("时间", "time"), "gateway": say("网关", "gateway"), "stream": say("流", "stream"),
        "seq": say("消息编号", "message"), "kind": say("种类", "kind"), "count": say("数量", "count"), "state": say("状态", "state"),
        "settled_at": say("处理时间", "settled"), "reason": say("原因", "reason"), "note": say("备注", "note"),
    }  # fmt: skip
    shown = _row(letter, as_json=False)
    for key, name in names.items():
        if shown.get(key) not in (None, ""):
            typer.echo(f"{name}: {shown[key]}")
    for point, signal in document.get("signals", {}).items():
        typer.echo(f"{say('点', 'point')} {point}: {signal or say('该流中没有', 'unknown in this stream')}")
    if held is not None:
        typer.echo(f"{say('内容', 'content')}:")
        _print_json(held)
    else:
        typer.echo(say("内容：不是 MessagePack，无法解码", "content: no MessagePack, it cannot be decoded"))
    typer.echo(f"{say('字节', 'bytes')} ({len(letter.raw)}):")
    for start in range(0, len(letter.raw), _HEX // 2):
        typer.echo(f"  {start:05x}  {letter.raw[start : start + _HEX // 2].hex(' ')}")


@letters_app.command(epilog="Examples: guantong dead-letters replay 7 8    guantong dead-letters replay --all")
def replay(
    context: typer.Context,
    numbers: IdsArgument = None,
    every: AllOption = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for ingest; 0: only ask.")] = 30.0,
    json: JsonOption = False,
) -> None:
    """Try to store them again, after an upgrade or a repair. Ingest does it, each exactly once; what still cannot be stored waits on."""
    chosen = _chosen(numbers, every)
    config = load(context.obj)
    with _reading(config) as reader, _deciding(config) as letters:
        if chosen is not None:
            _known(reader, chosen)
        asked = letters.request(chosen)
        deadline = time.monotonic() + wait
        letters_by_id = {letter.id: letter for letter in _of(reader, asked)}
        while (waiting := _requested(letters_by_id.values())) and time.monotonic() < deadline:
            time.sleep(_POLL)
            letters_by_id |= {letter.id: letter for letter in _of(reader, waiting)}
        found = list(letters_by_id.values())
    if json:
        _print_json([_row(letter, as_json=True) for letter in found])
    for letter in found if not json else ():
        typer.echo(f"{letter.id}: {told(_outcome(letter))}")
    if not asked and not json:
        typer.echo(say("没有待处理的死信", "no dead letter waits"))
    raise typer.Exit(0 if all(letter.state == "replayed" for letter in found) else 1)


@letters_app.command(epilog="Example: guantong dead-letters discard 7 --reason 'a test of the maker'")
def discard(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    numbers: IdsArgument = None,
    every: AllOption = False,
) -> None:
    """Never store them. They stay in the store, with the reason, and are no longer counted as waiting."""
    chosen = _chosen(numbers, every)
    if not reason.strip():
        fail(say("--reason：请写明原因", "--reason: say why"), 2)
    config = load(context.obj)
    with _reading(config) as reader, _deciding(config) as letters:
        if chosen is not None:
            _known(reader, chosen)
        gone = letters.discard(chosen, reason.strip())
    typer.echo(say(f"已丢弃 {len(gone)} 条", f"{len(gone)} discarded"))
    left = sorted(set(chosen or ()) - set(gone))
    if left:
        listed = ", ".join(map(str, left))
        fail(say(f"不在待处理状态，未改动：{listed}", f"not waiting, and left as they are: {listed}"))


# ------------------------------------------------------------------------------------------------------------- internal


def _chosen(numbers: list[int] | None, every: bool) -> list[int] | None:
    if bool(numbers) == every:
        fail(say("请写出编号，或写 --all", "name the numbers, or --all"), 2)
    return None if every else sorted(set(numbers or ()))


@contextmanager
def _reading(config: Config) -> Iterator[Reader]:
    from gateway.ledger.steps import StoreError
    from gateway.store import open_reader

    try:
        reader = open_reader(config.store, config.data_dir)
        try:
            yield reader
        finally:
            reader.close()
    except StoreError as error:
        fail(with_fix(error, error.fix))


@contextmanager
def _deciding(config: Config) -> Iterator[Any]:
    from gateway.store.letters import open_letters

    letters = open_letters(config.store, config.data_dir)
    try:
        yield letters
    finally:
        letters.close()


def _all(reader: Reader, states: Any) -> Iterator[DeadLetter]:
    after = 0
    while page := reader.dead_letters(after=after, states=states):
        yield from page
        after = page[-1].id


def _of(reader: Reader, ids: list[int]) -> list[DeadLetter]:
    """A few at a time: a flood may have left more than a database takes in one list."""
    pieces = [ids[start : start + _PIECE] for start in range(0, len(ids), _PIECE)]
    return [letter for piece in pieces for letter in reader.dead_letters(ids=piece, limit=len(piece))]


def _requested(some: Iterable[DeadLetter]) -> list[int]:
    return [letter.id for letter in some if letter.state == "requested"]


def _known(reader: Reader, ids: list[int]) -> list[DeadLetter]:
    found = _of(reader, ids)
    missing = sorted(set(ids) - {letter.id for letter in found})
    if missing:
        listed = ", ".join(map(str, missing))
        fail(
            say(
                f"没有编号为 {listed} 的死信；见 guantong dead-letters --all",
                f"there is no dead letter {listed}; see guantong dead-letters --all",
            )
        )
    return found


def _row(letter: DeadLetter, *, as_json: bool) -> dict[str, Any]:
    from gateway.store.letters import kind_name
    from schemas.times import to_rfc3339

    return {
        "id": letter.id,
        "at": to_rfc3339(letter.at),
        "gateway": letter.gateway,
        "stream": letter.stream,
        "seq": letter.seq,
        "kind": kind_name(letter.kind),
        "count": letter.count,
        "state": letter.state if as_json else told(STATES[letter.state]),
        "reason": letter.reason,
        "note": letter.note,
        "settled_at": None if letter.settled_at is None else to_rfc3339(letter.settled_at),
    }


def _outcome(letter: DeadLetter) -> str:
    if letter.state == "replayed":
        return Bilingual(f"replayed: {letter.note}", f"已重放：{letter.note}")
    if letter.state == "requested":
        return Bilingual(
            "asked for; ingest does it when it runs and holds the store's lease",
            "已请求；ingest 运行并持有存储租约时执行",
        )
    return Bilingual(f"still cannot be stored: {letter.note}", f"仍无法入库：{letter.note}")


def _print_json(document: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
