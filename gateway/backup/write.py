"""Making a backup, also while the gateway runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway import __version__
from gateway.apply import history, requests
from gateway.backup import archive
from gateway.backup.archive import FORMAT, MANIFEST, BackupError, Manifest, Member
from gateway.config.load import load_config
from gateway.config.models import Config
from gateway.config.plan import PKI
from gateway.store import dump
from schemas.times import to_rfc3339

_SUFFIXES = frozenset({".pem", ".der", ".crt", ".cer", ".key", ".crl", ".p12", ".pfx"})
"""Certificates and keys, as TLS and OPC UA name them."""
_NEVER = frozenset({requests.FOLDER})


def backup(config_file: Path, file: Path, now_us: int, *, force: bool = False) -> Manifest:
    """Writes a backup of the gateway with this configuration to `file`, reads it again and compares.

    `file` ends with .tar.zst or .tar.gz. Raises BackupError, DumpError, DocumentError, OSError; then there is no such file.
    """
    archive.check_name(file)
    if file.exists() and not force:
        raise BackupError(f"{file} exists and is not overwritten (--force)", f"{file} 已存在，不会覆盖（--force）")
    config = load_config(config_file)
    part = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as place:
            folder = Path(place)
            manifest = _gather(config_file, config, folder, now_us)
            (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
            archive.write(part, folder, manifest)
        if archive.read(part, None) != manifest:
            raise BackupError(f"{file}: what was written reads otherwise", f"{file}：写入内容与读回内容不一致")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return manifest


def _gather(config_file: Path, config: Config, folder: Path, now_us: int) -> Manifest:
    members: list[Member] = []

    def add(
        path: str, role: Literal["config", "profile", "data", "store"], name: str, source: Path | None = None
    ) -> None:
        target = folder / path
        if source is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        members.append(Member(path, role, name, target.stat().st_size, archive.digest(target)))

    try:
        files = history.read_files(config_file)
    except UnicodeDecodeError as error:
        raise BackupError(f"{config_file}: {error}", f"{config_file}：{error}") from error
    add("config.yaml", "config", config_file.name, config_file)
    for number, (name, path, _) in enumerate(files.profiles, 1):
        add(f"profiles/{number}.yaml", "profile", name, path)
    store_file = dump.sqlite_file(config.store, config.data_dir)
    for path in _data_files(config.data_dir, store_file):
        inside = path.relative_to(config.data_dir).as_posix()
        add(f"data/{inside}", "data", inside, path)
    saved = folder / "store.saved"
    kind: Literal["sqlite", "postgresql", "none"] = "none"
    if dump.save(config.store, config.data_dir, saved):
        kind = dump.kind_of(config.store, config.data_dir)
        add("store.saved", "store", kind)
    return Manifest(
        FORMAT, __version__, to_rfc3339(now_us), config.gateway.id, str(config_file.absolute()), kind, members,
        _left_out(config),
    )  # fmt: skip


def _data_files(data_dir: Path, store_file: Path | None) -> list[Path]:
    """The API's keys, the kept configurations, typed passwords, certificates and their keys. Nothing else: no outbox, no log, no store."""
    found = [data_dir / "keys.json", *(data_dir / "secrets").glob("*.secret")]
    found += (data_dir / history.FOLDER).glob("*/*")
    found += (path for path in data_dir.rglob("*") if path.suffix.lower() in _SUFFIXES)
    found += (p for p in (data_dir / PKI).rglob("*") if not p.name.startswith(".") and p.parent.name != "sessions")
    plain = {path for path in found if path.is_file() and not path.is_symlink() and path != store_file}
    return sorted(path for path in plain if path.relative_to(data_dir).parts[0] not in _NEVER)


def _left_out(config: Config) -> list[str]:
    """Files that the configuration names outside of the data directory: secrets and certificates of the site."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Path):
            if value.is_file() and config.data_dir.absolute() not in value.absolute().parents:
                found.add(str(value))
        elif isinstance(value, dict):
            for key, inner in value.items():
                secret = key == "file" or Path(str(inner)).suffix.lower() in _SUFFIXES
                walk(config.base / inner if isinstance(inner, str) and secret else inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(config.model_dump(exclude={"data_dir"}))
    return sorted(found)
