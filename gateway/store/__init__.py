"""The store: SQLite, PostgreSQL or TimescaleDB behind one writer (ingest) and one reader (serve, the command).

`records` has what the reader gives back. This package alone imports SQLAlchemy and psycopg.
"""

from gateway.store.reader import Reader, open_reader
from gateway.store.writer import Writer, open_writer

__all__ = ["Reader", "Writer", "open_reader", "open_writer"]
