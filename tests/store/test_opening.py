"""Where the store is, its schema, and which errors are which."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import gateway.store
from gateway.config.models import Secret, StoreSettings
from gateway.ledger.steps import StoreFailedError
from gateway.store import _migrate, open_reader, tables
from gateway.store._engine import make_engine, place_of
from gateway.store._errors import sort_of
from tests.store.conftest import Target


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of(StoreSettings(), tmp_path).url.database == str(tmp_path / "store.sqlite")
    assert place_of(StoreSettings(url="sqlite:///my.db"), tmp_path).url.database == str(tmp_path / "my.db")
    assert place_of(StoreSettings(url="sqlite:////x/my.db"), tmp_path).url.database == "/x/my.db"
    monkeypatch.setenv("STORE_PASSWORD", "se:c@ret")
    settings = StoreSettings(url="postgresql://me@db:5433/shop?sslmode=require", password=Secret(env="STORE_PASSWORD"))
    place = place_of(settings, tmp_path)
    assert (place.url.drivername, place.url.password, place.url.query["sslmode"]) == (
        "postgresql+psycopg",
        "se:c@ret",
        "require",
    )
    assert (place.copy, place.single) == (True, False)
    assert "ret" not in place.text
    assert place.text.startswith("postgresql://me:***@db:5433/shop")
    (tmp_path / "password").write_text("from file\nx\n")
    settings = StoreSettings(
        url="postgres://me@db/shop?copy=off&connections=1", password=Secret(file=tmp_path / "password")
    )
    place = place_of(settings, tmp_path)
    assert (place.url.password, place.copy, place.single, dict(place.url.query)) == ("from file", False, True, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (StoreSettings(url="mysql://x/y"), "found mysql"),
        (StoreSettings(url="nonsense"), "expected sqlite:///PATH"),
        (StoreSettings(url="sqlite://"), "needs a file"),
        (StoreSettings(url="sqlite:///:memory:"), "needs a file"),
        (StoreSettings(url="postgresql://x/y", password=Secret(env="GUANTONG_NOT_SET")), "GUANTONG_NOT_SET is not set"),
        (StoreSettings(url="postgresql://x/y", password=Secret(file=Path("/nowhere"))), "/nowhere"),
    ],
)  # fmt: skip
def test_places_that_are_none(tmp_path: Path, settings: StoreSettings, message: str) -> None:
    with pytest.raises(StoreFailedError, match=message) as error:
        place_of(settings, tmp_path)
    assert error.value.fix


def test_migrations_make_the_tables(target: Target) -> None:
    """The revisions and the tables that the queries use are the same, and opening again changes nothing."""
    writer = target.open_writer()
    place = place_of(target.settings, target.folder)
    # reflection reads PostgreSQL's catalogue as text, which our own connections do not
    engine = make_engine(place, writer=True) if place.sqlite else sa.create_engine(place.url)
    wanted = sa.MetaData()
    for metadata in (tables.metadata, *([tables.tail_metadata] if target.kind == "sqlite" else [])):
        for table in metadata.sorted_tables:
            table.to_metadata(wanted)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_schemas": False})
        difference = compare_metadata(context, wanted)
        assert difference == []
        assert _migrate.version(connection) == _migrate.HEAD
    engine.dispose()
    assert writer.timescale == (target.kind == "timescale")
    assert target.open_writer().store_id == writer.store_id


def test_the_newest_revision_is_the_one_that_the_code_expects() -> None:
    folder = Path(gateway.store.__file__).parent / "migrations"
    script = ScriptDirectory(str(folder))
    assert script.get_heads() == [_migrate.HEAD]
    assert {revision.revision for revision in script.walk_revisions()} == set(_migrate._KNOWN)


def test_a_newer_schema_is_refused(target: Target) -> None:
    target.open_writer()
    target.altered = True
    engine = make_engine(place_of(target.settings, target.folder), writer=True)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreFailedError, match="9999"):
        target.open_writer()
    with pytest.raises(StoreFailedError, match="9999"):
        target.reader().snapshot()


def test_a_store_that_is_not_there_is_weather(tmp_path: Path) -> None:
    from gateway.ledger.steps import StoreWeatherError
    from tests.servers.processes import free_port

    reader = open_reader(StoreSettings(url=f"postgresql://me@127.0.0.1:{free_port()}/shop"), tmp_path)
    with pytest.raises(StoreWeatherError, match=r"127\.0\.0\.1"):
        reader.check()
    reader.close()


@pytest.mark.parametrize(
    ("state", "sort"),
    [
        ("22003", "data"), ("23505", "data"), ("08006", "weather"), ("40001", "weather"), ("53100", "weather"),
        ("55P03", "weather"), ("57P01", "weather"), ("58030", "weather"), ("42P01", "failed"), ("XX000", "failed"),
        ("28P01", "failed"),
    ],
)  # fmt: skip
def test_sorts_of_postgresql_errors(state: str, sort: str) -> None:
    assert sort_of(psycopg.errors.lookup(state)("x")) == sort
    assert sort_of(sa.exc.DBAPIError("SELECT", {}, psycopg.errors.lookup(state)("x"))) == sort


def test_sorts_of_other_errors() -> None:
    assert sort_of(psycopg.OperationalError("server closed the connection unexpectedly")) == "weather"
    assert sort_of(psycopg.DataError("a value has no form")) == "data"
    assert sort_of(psycopg.ProgrammingError("ours")) == "failed"
    assert sort_of(sqlite3.ProgrammingError("ours")) == "failed"
    assert sort_of(sa.exc.TimeoutError()) == "weather"
    assert sort_of(OverflowError()) == "data"
    assert sort_of(ValueError()) == "failed"
