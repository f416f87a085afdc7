"""Which database errors are about the data, which are weather, and which are failures.

SQLSTATE classes: PostgreSQL documentation, appendix A. Result codes of SQLite: https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from gateway.ledger.steps import StoreError, StoreFailedError, StoreWeatherError
from schemas.bilingual import Bilingual

Sort = Literal["data", "weather", "failed"]

_DATA = ("22", "23")
_WEATHER = ("08", "40", "53", "55", "57", "58")
_SQLITE_WEATHER = (
    "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY",
    "SQLITE_NOMEM", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT",
)  # fmt: skip
_SQLITE_DATA = ("SQLITE_CONSTRAINT", "SQLITE_TOOBIG", "SQLITE_MISMATCH")


class DataError(Exception):
    """The database refused some of the data of a transaction; the store finds out which."""


def sort_of(error: BaseException) -> Sort:
    """What an error of psycopg, of sqlite3 or of SQLAlchemy is about."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return "weather"
        return "failed" if error.orig is None else sort_of(error.orig)
    if isinstance(error, StatementError):
        # a parameter that has no form in the database
        return "data" if isinstance(error.orig, OverflowError | TypeError | ValueError) else "failed"
    if isinstance(error, OverflowError):
        return "data"
    if isinstance(error, PoolTimeoutError):
        return "weather"
    psycopg = sys.modules.get("psycopg")  # whoever has not imported it, as with SQLite, has none of its errors
    if psycopg is not None and isinstance(error, psycopg.Error):
        if error.sqlstate is None:
            # psycopg itself: the link is gone (OperationalError, InterfaceError), or a value has no form (DataError)
            if isinstance(error, psycopg.DataError):
                return "data"
            return "weather" if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) else "failed"
        if error.sqlstate[:2] in _DATA:
            return "data"
        return "weather" if error.sqlstate[:2] in _WEATHER else "failed"
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_SQLITE_DATA):
            return "data"
        return "weather" if name.startswith(_SQLITE_WEATHER) else "failed"
    return "failed"


def translate(error: BaseException, place: str) -> StoreError | DataError:
    """Our error for theirs; `place` names the store (without its password)."""
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    match sort_of(error):
        case "data":
            return DataError(text)
        case "weather":
            return StoreWeatherError(
                Bilingual(f"store {place}: {text}", f"存储 {place}：{text}"),
                fix=Bilingual(
                    "Start the database, or free what it lacks (disk, connections, lock); it is tried again by itself.",
                    "请启动数据库，或释放其所缺资源（磁盘、连接、锁）；会自动重试。",
                ),
            )
    return StoreFailedError(
        Bilingual(f"store {place}: {type(cause).__name__}: {text}", f"存储 {place}：{type(cause).__name__}: {text}"),
        fix=Bilingual(
            "Read the database's log; if the schema was changed by hand, undo that. Nothing was confirmed, nothing is lost.",
            "请查看数据库日志；若曾手工改过表结构，请改回。未确认任何数据，也没有丢失。",
        ),
    )


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Let only errors of the store's interface (and `DataError`) out."""
    try:
        yield
    except _errors_of_databases() as error:
        raise translate(error, place) from error


def _errors_of_databases() -> tuple[type[Exception], ...]:
    psycopg = sys.modules.get("psycopg")
    return (SQLAlchemyError, sqlite3.Error, OverflowError, *(() if psycopg is None else (psycopg.Error,)))
