"""`guantong support`: one file for whoever helps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli._output import fail, say
from gateway.cli.app import ConfigOption, app, load


@app.command(
    epilog="Examples: guantong support    guantong support --out /media/usb/line-3.zip --log /var/log/guantong.log"
)
def support(
    out: Annotated[
        Path | None, typer.Option("--out", help="The zip file; by default guantong-support-TIME.zip here.")
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option("--log", help="A log file to put in as well; may be repeated.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Pack logs, configuration without secrets, versions, states, ledger, frames and doctor's findings into one file."""
    from gateway.diagnosis.parcel import pack

    loaded = load(config)
    path = out or Path(time.strftime("guantong-support-%Y%m%dT%H%M%SZ.zip", time.gmtime()))

    def ledger() -> str:
        command = [sys.executable, "-c", "from gateway.cli import main; main()", "ledger", "--json"]
        if config is not None:
            command += ["--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    for file in log or []:
        if not file.is_file():
            fail(say(f"--log {file}：没有这个文件", f"--log {file}: there is no such file"), 2)
    try:
        names = pack(loaded, path, environ=os.environ, ledger=ledger, logs=log or [])
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    typer.echo(
        say(
            f"{path}：{len(names)} 个文件，已去除密码与密钥。发送前可自行打开查看。",
            f"{path}: {len(names)} files, without passwords and keys. Open it and look before you send it.",
        )
    )
