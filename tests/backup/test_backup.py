"""Backup and restore: there and back on SQLite and PostgreSQL, and what is refused."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
import zstandard
from typer.testing import CliRunner

from gateway.api.keys import KeyFile
from gateway.apply.history import History, read_files
from gateway.backup import archive
from gateway.backup.archive import BackupError, Manifest
from gateway.backup.restore import restore
from gateway.backup.write import backup
from gateway.cli.app import app
from gateway.config.models import StoreSettings
from gateway.platform import FileLock
from gateway.store import open_reader, open_writer
from gateway.store.dump import DumpError
from gateway.store.records import Reading
from tests.api.shop import ZONE, imm
from tests.servers.postgresql import Postgres
from tests.store.feed import T0, Feed

PROFILE = "profile: ours\n"  # only `check` looks into it


class Box:
    """A gateway's folder: configuration, certificate, keys, kept configurations, an outbox, and a store with readings."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.config = folder / "guantong.yaml"
        self.data = folder / "data"
        self.settings = StoreSettings(url=url)

    def fill(self) -> None:
        self.data.mkdir(parents=True)
        document = {
            "gateway": {"id": "line1"},
            "data_dir": "data",
            **({"store": {"url": self.settings.url}} if self.settings.url else {}),
            "links": [
                {
                    "id": "a", "adapter": "modbus", "settings": {"host": "127.0.0.1"},
                    "devices": [{"id": "d", "profile": "profiles/ours.yaml", "settings": {"unit": 1}}],
                }
            ],
        }  # fmt: skip
        self.config.write_text("# 车间\n" + yaml.safe_dump(document), encoding="utf-8")
        (self.folder / "profiles").mkdir()
        (self.folder / "profiles" / "ours.yaml").write_text(PROFILE, encoding="utf-8")
        (self.data / "pki").mkdir()
        (self.data / "pki" / "own.key").write_text("private")
        (self.data / "pki" / "pinned").mkdir()
        (self.data / "pki" / "sessions").mkdir()
        (self.data / "pki" / "sessions" / "press-1").write_text("a copy must not take it over")
        (self.data / "pki" / "pinned" / "press-1.json").write_text("{}")
        (self.data / "secrets").mkdir()
        (self.data / "secrets" / "plc-1.secret").write_text("typed")
        (self.data / "outbox.sqlite").write_text("what is on its way")
        (self.data / "collect.log").write_text("log")
        KeyFile(self.data).add("mes")
        History(self.data).keep(read_files(self.config), T0)
        writer = open_writer(self.settings, self.data, ZONE)
        assert writer.acquire("test", 60)
        feed = Feed(gateway="line1")
        with contextlib.closing(writer):
            writer.apply([feed.step(imm()), feed.rows(*((1, i, float(i)) for i in range(500)))])

    def readings(self) -> list[Reading]:
        with contextlib.closing(open_reader(self.settings, self.data)) as reader:
            ids = [signal.id for signal in reader.signals()]
            return [reading for piece in reader.history(ids) for reading in piece]


@pytest.fixture
def new_database(postgres: Postgres) -> Iterator[Callable[[], str]]:
    """Makes empty databases, dropped after the test."""
    made: list[str] = []

    def new() -> str:
        made.append(postgres.new_database())
        return made[-1]

    yield new
    for url in made:
        postgres.drop_database(url)


def there_and_back(tmp_path: Path, name: str, urls: tuple[str | None, str | None]) -> None:
    """A backup of one box, restored to another place: configuration, profile, keys, certificate and every reading are the same."""
    old, new = Box(tmp_path / "old", urls[0]), Box(tmp_path / "new", urls[1])
    old.folder.mkdir()
    old.fill()
    file = tmp_path / name
    manifest = backup(old.config, file, T0)
    assert manifest.gateway == "line1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["old", file.name])  # nothing is left beside it
    before = old.readings()
    assert len(before) == 500
    if urls[1] is not None:  # the new box has a database of its own, and its YAML would say so
        manifest = with_store(file, urls[1])
    restore(file, new.config)
    assert new.readings() == before
    kept = (
        "data/keys.json",
        "data/pki/own.key",
        "data/pki/pinned/press-1.json",
        "data/secrets/plc-1.secret",
        "data/configs/1/config.yaml",
    )
    for part in ("profiles/ours.yaml", *kept):
        assert (new.folder / part).read_bytes() == (old.folder / part).read_bytes(), part
    assert stat.S_IMODE((new.data / "pki" / "own.key").stat().st_mode) == 0o600
    assert not (new.data / "outbox.sqlite").exists()
    assert not (new.data / "collect.log").exists()
    assert not (new.data / "pki" / "sessions").exists()
    if urls[0] is None:
        assert new.config.read_bytes() == old.config.read_bytes()
    # what is there is not replaced, unless it is told to be
    with pytest.raises(BackupError, match="is not overwritten"):
        restore(file, new.config)
    (new.data / "keys.json").write_text("other")
    restore(file, new.config, force=True)
    assert new.readings() == before
    assert (new.data / "keys.json").read_bytes() == (old.data / "keys.json").read_bytes()


def with_store(file: Path, url: str) -> Manifest:
    """The archive with another `store.url` in its configuration."""
    folder = file.parent / "changed"
    manifest = archive.read(file, folder)
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    document["store"]["url"] = url
    (folder / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return rewrite(file, folder, manifest)


def rewrite(file: Path, folder: Path, manifest: Manifest, **changes: Any) -> Manifest:
    """Writes the archive anew from `folder`, with checksums that are right."""
    members = [
        msgspec.structs.replace(m, size=(folder / m.path).stat().st_size, sha256=archive.digest(folder / m.path))
        for m in manifest.members
    ]
    changed = msgspec.structs.replace(manifest, **{"members": members, **changes})
    (folder / archive.MANIFEST).write_bytes(msgspec.json.encode(changed))
    archive.write(file, folder, changed)
    return changed


@pytest.mark.parametrize("name", ["monday.tar.zst", "monday.tar.gz"])
def test_there_and_back_on_sqlite(tmp_path: Path, name: str) -> None:
    there_and_back(tmp_path, name, (None, None))


def test_there_and_back_on_postgresql(tmp_path: Path, new_database: Callable[[], str]) -> None:
    there_and_back(tmp_path, "monday.tar.zst", (new_database(), new_database()))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A box with everything, on SQLite."""
    made = Box(tmp_path / "box")
    made.folder.mkdir()
    made.fill()
    return made


def test_a_backup_while_the_store_is_written(box: Box, tmp_path: Path) -> None:
    with contextlib.closing(open_writer(box.settings, box.data, ZONE)) as writer:
        assert writer.acquire("test", 60)
        feed = Feed("s2")
        writer.apply([feed.step(imm()), feed.rows((1, 1000, 1.0))])
        backup(box.config, tmp_path / "a.tar.gz", T0)
        writer.apply([feed.rows((1, 1001, 2.0))])
    other = Box(tmp_path / "other")
    restore(tmp_path / "a.tar.gz", other.config)
    assert len(other.readings()) == 501
    assert len(box.readings()) == 502


def test_a_running_gateway_is_not_restored(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.zst"
    backup(box.config, file, T0)
    lock = FileLock(box.data / "outbox.lock")
    with pytest.raises(BackupError, match="stop it first"):
        restore(file, box.config, force=True)
    lock.release()
    with contextlib.closing(open_reader(box.settings, box.data)) as reader:
        reader.check()
        with pytest.raises(DumpError, match="is in use"):  # serve or ingest alone
            restore(file, box.config, force=True)
    restore(file, box.config, force=True)
    assert (box.data / "outbox.sqlite").read_text() == "what is on its way"
    assert len(box.readings()) == 500


def test_a_damaged_archive_changes_nothing(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.zst"
    backup(box.config, file, T0)
    whole = file.read_bytes()
    other = Box(tmp_path / "other")
    for broken in (whole[: len(whole) // 2], whole[:-9], b"PK" + whole, b""):
        file.write_bytes(broken)
        with pytest.raises(BackupError):
            restore(file, other.config)
    plain = bytearray(zstandard.ZstdDecompressor().stream_reader(whole).read())
    at = plain.index(b"private")
    plain[at : at + 7] = b"PRIVATE"
    file.write_bytes(zstandard.ZstdCompressor().compress(bytes(plain)))
    with pytest.raises(BackupError, match=r"own\.key is not what the manifest says"):
        restore(file, other.config)
    assert not other.config.exists()
    assert not other.data.exists()


@pytest.mark.parametrize(
    ("role", "name"), [("data", "../../evil.pem"), ("data", "/etc/evil.pem"), ("profile", "../../evil.yaml")]
)
def test_an_archive_writes_nowhere_else(box: Box, tmp_path: Path, role: str, name: str) -> None:
    file, folder = tmp_path / "a.tar.gz", tmp_path / "unpacked"
    backup(box.config, file, T0)
    manifest = archive.read(file, folder)
    members = [msgspec.structs.replace(m, name=name) if m.role == role else m for m in manifest.members]
    rewrite(file, folder, manifest, members=members)
    other = Box(tmp_path / "other")
    with pytest.raises(BackupError):
        restore(file, other.config)
    assert not list(tmp_path.rglob("evil.*"))


def test_links_in_an_archive_are_refused(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        info = tarfile.TarInfo(archive.MANIFEST)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    with pytest.raises(BackupError, match="no plain file"):
        restore(file, tmp_path / "other" / "guantong.yaml")


def test_a_damaged_store_is_not_backed_up(box: Box, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(box.data / "store.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray((box.data / "store.sqlite").read_bytes())
    for page in range(4096 * 3, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    (box.data / "store.sqlite").write_bytes(content)
    with pytest.raises(DumpError):
        backup(box.config, tmp_path / "a.tar.zst", T0)
    assert not (tmp_path / "a.tar.zst").exists()


def test_without_the_programs_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    box = Box(tmp_path / "box", postgres_url)
    box.folder.mkdir()
    box.fill()
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["backup", "--config", str(box.config), str(tmp_path / "a.tar.zst")])
    assert result.exit_code == 1
    assert "pg_dump is not found" in result.stderr
    assert "postgresql-client" in result.stderr
    assert not (tmp_path / "a.tar.zst").exists()


def test_the_commands_in_both_languages(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p")
    text = box.config.read_text(encoding="utf-8")
    box.config.write_text(
        text + f"bus: {{host: broker, username: u, password: {{file: {secret}}}}}\n", encoding="utf-8"
    )
    file, target = tmp_path / "a.tar.zst", tmp_path / "new" / "guantong.yaml"
    runner = CliRunner()
    made = runner.invoke(app, ["backup", "-c", str(box.config), str(file)], env={"LC_ALL": "C"})
    assert made.exit_code == 0, made.output
    assert "Wrote and verified" in made.stdout
    assert f"not included (outside of data_dir): {secret}" in made.stderr
    again = runner.invoke(app, ["backup", "-c", str(box.config), str(file)], env={"LC_ALL": "zh_CN.UTF-8"})
    assert again.exit_code == 1
    assert "不会覆盖" in again.stderr
    back = runner.invoke(app, ["restore", "-c", str(target), str(file)], env={"LC_ALL": "zh_CN.UTF-8"})
    assert back.exit_code == 0, back.output
    assert "outbox 未改动" in back.stderr
    wrong = runner.invoke(app, ["backup", "-c", str(box.config), str(tmp_path / "a.zip")], env={"LC_ALL": "C"})
    assert "expected a name that ends with .tar.zst or .tar.gz" in wrong.stderr
