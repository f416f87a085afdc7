"""Restoring a backup: first everything is read and compared, then it is looked whether something stands in the way, then it is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from gateway.apply.owner import inherit, make_folder
from gateway.backup import archive
from gateway.backup.archive import BackupError, Manifest, Member
from gateway.config.load import load_config
from gateway.config.models import Config
from gateway.platform import FileLock, LockedError
from gateway.store import dump


def restore(file: Path, config_file: Path, *, force: bool = False) -> tuple[Manifest, Config]:
    """Restores `file`; the configuration goes to `config_file`, all else to where that says. With `force`, what is there is replaced.

    Nothing is written before all of the archive was compared with its checksums. The gateway must not run. Raises BackupError,
    DumpError, DocumentError, OSError.
    """
    target_folder = config_file.absolute().parent
    target_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=target_folder) as place:
        folder = Path(place)
        manifest = archive.read(file, folder)
        config = _config(file, folder, manifest, config_file)
        make_folder(config.data_dir)
        try:
            lock = FileLock(config.data_dir / "outbox.lock")
            inherit(config.data_dir / "outbox.lock")
        except LockedError:
            raise BackupError(
                f"a gateway runs in {config.data_dir}: stop it first", f"网关正在 {config.data_dir} 中运行：请先停止"
            ) from None
        try:
            _write(folder, manifest, config, config_file, force=force)
        finally:
            lock.release()
    return manifest, config


def _config(file: Path, folder: Path, manifest: Manifest, config_file: Path) -> Config:
    member = next((m for m in manifest.members if m.role == "config"), None)
    if member is None:
        raise BackupError(f"{file} holds no configuration", f"{file} 中没有配置文件")
    return load_config(config_file, text=(folder / member.path).read_text(encoding="utf-8-sig"))


def _write(folder: Path, manifest: Manifest, config: Config, config_file: Path, *, force: bool) -> None:
    places = _places(folder, manifest, config, config_file)
    store = next((m for m in manifest.members if m.role == "store"), None)
    there = [str(path) for member, path in places if _differs(folder / member.path, path)]
    if store is not None:
        kind = dump.kind_of(config.store, config.data_dir)
        if kind != manifest.store:
            raise BackupError(
                f"the backup holds a store of the kind {manifest.store}, and store.url names {kind}",
                f"备份中的存储类型为 {manifest.store}，而 store.url 指向 {kind}",
            )
        dump.check(folder / store.path, kind)
        there += [found] if (found := dump.occupied(config.store, config.data_dir)) else []
    if there and not force:
        listed = ", ".join(there[:5]) + (" …" if len(there) > 5 else "")
        raise BackupError(
            f"this exists and is not overwritten (--force): {listed}", f"以下内容已存在，不会覆盖（--force）：{listed}"
        )
    if store is not None:
        dump.make(config.store, config.data_dir, folder / store.path)
        if (made := dump.sqlite_file(config.store, config.data_dir)) is not None:
            inherit(made)
    for member, path in places:
        _copy(folder / member.path, path, private=member.role == "data")


def _places(folder: Path, manifest: Manifest, config: Config, config_file: Path) -> list[tuple[Member, Path]]:
    """Where each file goes. A profile goes to where the configuration names it, and to nowhere else; the configuration last, so
    that a gateway that is half restored does not start by it."""
    source = next(m for m in manifest.members if m.role == "config")
    names = _named_profiles(config)
    found: list[tuple[Member, Path]] = []
    for member in manifest.members:
        if member.role == "profile":
            if member.name not in names or not member.name.endswith((".yaml", ".yml")):
                raise BackupError(
                    f"the configuration does not name the profile {member.name!r}",
                    f"配置中未引用 profile {member.name!r}",
                )
            found.append((member, config_file.absolute().parent / Path(member.name).expanduser()))
        elif member.role == "data":
            found.append((member, config.data_dir / member.name))
    return [*found, (source, config_file)]


def _named_profiles(config: Config) -> set[str]:
    return {device.profile for link in config.links for device in link.devices if device.profile is not None}


def _differs(source: Path, target: Path) -> bool:
    return target.exists() and not (target.is_file() and archive.digest(source) == archive.digest(target))


def _copy(source: Path, target: Path, *, private: bool) -> None:
    """At once; what lies in the data directory is this user's alone."""
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o640)
        with os.fdopen(descriptor, "wb") as out, source.open("rb") as content:
            shutil.copyfileobj(content, out)
            out.flush()
            os.fsync(out.fileno())
        inherit(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
