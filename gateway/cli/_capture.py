"""`guantong capture`: what the gateway and a device say to each other, from the running collector."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli._output import fail, say, told
from gateway.cli.app import ConfigOption, app, load

_EVERY = 0.2


@app.command(
    epilog="Examples: guantong capture meter-01    guantong capture meter-01 --for 10m --out meter.pcapng    guantong capture imm-01 --for 0s"
)
def capture(
    device: Annotated[str, typer.Argument(help="Id of the device; the frames are those of its whole link.")],
    for_: Annotated[str, typer.Option("--for", help="How long: 30s, 10m, 1h; 0s: only what memory holds.")] = "10s",
    out: Annotated[
        Path | None, typer.Option("--out", help="A .txt or .pcapng (Wireshark) file; standard output without.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show the last 500 frames of a device's link and those that follow, each with its meaning. Nothing is sent to the device."""
    from adapters.frames import Frame
    from gateway.diagnosis.captured import as_pcapng, as_text
    from gateway.diagnosis.frame_server import FrameClient, NoFramesError, Question
    from schemas.documents import nearest
    from schemas.model import parse_duration

    try:
        seconds = parse_duration(for_)
    except ValueError as error:
        fail(f"--for {for_!r}: {told(error)}", 2)
    if out is not None and out.suffix not in (".txt", ".pcapng"):
        fail(say(f"--out {out}：请写 .txt 或 .pcapng", f"--out {out}: write a name that ends in .txt or .pcapng"), 2)
    loaded = load(config)
    try:
        client = FrameClient(loaded.data_dir)
    except NoFramesError as error:
        fail(
            say(
                f"采集进程未运行：{told(error)}。请先执行 guantong run",
                f"no collector runs: {told(error)}. Start guantong run first",
            )
        )
    frames: list[Frame] = []
    last, missed, wire, link = -1, 0, None, ""
    end = time.monotonic() + seconds
    try:
        while True:
            answer = client.ask(Question(device, last))
            if answer.wire is None:
                near = nearest(device, answer.devices)
                fail(
                    say(f"设备 {device!r} 没有报文记录", f"no frames are kept of a device {device!r}")
                    + (f"; {near}?" if near else ""),
                    2,
                )
            wire, link = answer.wire, answer.link
            if answer.frames and 0 <= last < answer.frames[0].number - 1:
                missed += answer.frames[0].number - 1 - last
            for kept in answer.frames:
                frame = Frame(kept.number, kept.at, kept.direction, kept.data, kept.size, kept.meaning)
                last = frame.number
                if out is None:
                    typer.echo(as_text(frame))
                else:
                    frames.append(frame)
            if time.monotonic() >= end:
                break
            time.sleep(min(_EVERY, max(end - time.monotonic(), 0)))
    except KeyboardInterrupt:
        typer.echo(err=True)  # what was captured so far is kept
    except NoFramesError as error:
        typer.echo(told(error), err=True)
    finally:
        client.close()
    if missed:
        typer.echo(say(f"有 {missed} 帧来得太快，未能记录", f"{missed} frames came too fast and are missing"), err=True)
    if out is None or wire is None:
        return
    try:
        if out.suffix == ".pcapng":
            out.write_bytes(b"".join(as_pcapng(frames, wire, link)))
        else:
            out.write_text("".join(f"{as_text(frame)}\n" for frame in frames), encoding="utf-8")
    except OSError as error:
        fail(f"{out}: {error.strerror}")
    typer.echo(say(f"{len(frames)} 帧已写入 {out}", f"{len(frames)} frames in {out}"), err=True)
