"""`guantong backup` and `guantong restore`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli._output import fail, say, told, with_fix
from gateway.cli.app import ConfigOption, app

_FORCE = typer.Option("--force", help="Replace what is there.")


def _config_file(config: Path | None) -> Path:
    given = config or (Path(os.environ["GUANTONG_CONFIG"]) if os.environ.get("GUANTONG_CONFIG") else None)
    if given is None:
        fail(say("请用 --config 指定配置文件", "name the configuration file with --config"), 2)
    return given


@app.command(epilog="Example: guantong backup --config workshop.yaml /mnt/usb/guantong-monday.tar.zst")
def backup(
    file: Annotated[Path, typer.Argument(help="Where to: ends with .tar.zst or .tar.gz.")],
    config: ConfigOption = None,
    force: Annotated[bool, _FORCE] = False,
) -> None:
    """Save configuration, profiles, certificates, keys and store to one file, while the gateway runs; read it again to be sure."""
    from gateway.backup.archive import BackupError
    from gateway.backup.write import backup as write_backup
    from gateway.store.dump import DumpError
    from schemas.documents import DocumentError

    try:
        manifest = write_backup(_config_file(config), file, time.time_ns() // 1000, force=force)
    except BackupError as error:
        fail(say(error.zh, error.en))
    except DumpError as error:
        fail(with_fix(error, error.fix))
    except DocumentError as error:
        fail(told(error), 2)
    except OSError as error:
        fail(f"{error.filename or file}: {error.strerror or error}")
    size = file.stat().st_size / 1e6
    typer.echo(
        say(
            f"已写入并核对 {file}：{len(manifest.members)} 个文件，存储 {manifest.store}，{size:.1f} MB",
            f"Wrote and verified {file}: {len(manifest.members)} files, store {manifest.store}, {size:.1f} MB",
        )
    )
    typer.echo(
        say(
            "其中可能含有私钥：请妥善保管。不含 outbox，它只是在途数据。",
            "It may hold private keys: keep it safe. The outbox is not in it: that is only what is on its way.",
        ),
        err=True,
    )
    for path in manifest.left_out:
        typer.echo(say(f"未包含（在 data_dir 之外）：{path}", f"not included (outside of data_dir): {path}"), err=True)


@app.command(epilog="Example: guantong restore --config workshop.yaml /mnt/usb/guantong-monday.tar.zst")
def restore(
    file: Annotated[Path, typer.Argument(help="A file that guantong backup has written.")],
    config: ConfigOption = None,
    force: Annotated[bool, _FORCE] = False,
) -> None:
    """Restore a backup while the gateway is stopped. Nothing that is there is replaced without --force."""
    from gateway.backup.archive import BackupError
    from gateway.backup.restore import restore as restore_backup
    from gateway.store.dump import DumpError
    from schemas.documents import DocumentError

    target = _config_file(config)
    try:
        manifest, loaded = restore_backup(file, target, force=force)
    except BackupError as error:
        fail(say(error.zh, error.en))
    except DumpError as error:
        fail(with_fix(error, error.fix))
    except DocumentError as error:
        fail(told(error), 2)
    except OSError as error:
        fail(f"{error.filename or file}: {error.strerror or error}")
    typer.echo(
        say(
            f"已恢复 {manifest.time} 的备份：配置 {target}，数据 {loaded.data_dir}",
            f"Restored the backup of {manifest.time}: configuration {target}, data {loaded.data_dir}",
        )
    )
    typer.echo(
        say(
            "outbox 未改动：它属于原来的机器。请勿复制旧机器的 outbox；旧机器若仍运行，请先停止，或改用另一个 gateway.id。",
            "The outbox was not touched: it belongs to the box where it was written. Do not copy the old box's; if that still "
            "runs, stop it, or give one of the two another gateway.id.",
        ),
        err=True,
    )
    for path in manifest.left_out:
        typer.echo(
            say(f"备份不含此文件，请自行放回：{path}", f"not in the backup, put it back yourself: {path}"), err=True
        )
