"""Errors of the database by their class (SQLSTATE): of data, of weather, and those that need a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.ledger.steps import StoreFailedError, StoreWeatherError
from gateway.store import Reader, Writer
from gateway.store.records import Reading
from schemas.wire import Mark
from tests.store.conftest import Target
from tests.store.feed import Feed, signal
from tests.store.test_ledger import run_sql

Read = Callable[..., list[Reading]]

_RAISE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger AS $$
BEGIN
    IF NEW.num > 1000 THEN RAISE EXCEPTION 'refused' USING ERRCODE = TG_ARGV[0]; END IF;
    RETURN NEW;
END $$ LANGUAGE plpgsql
"""


@pytest.mark.parametrize("target", ["postgresql"], indirect=True)
def test_each_class_is_treated_as_what_it_is(target: Target, writer: Writer, reader: Reader, history: Read) -> None:
    """The database itself raises each of them, for one reading among many."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    run_sql(target, _RAISE)
    letters = 0
    for base, state in enumerate(("22003", "22P05", "23505", "23514")):
        run_sql(
            target, f"CREATE TRIGGER refuse BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION refuse('{state}')"
        )
        rows = [(1, 10 * base + number, 5000.0 if number == 3 else 1.0) for number in range(10)]
        applied = writer.apply([feed.rows(*rows)])
        letters += 1
        assert (applied.rows, applied.dead_letters, len(reader.dead_letters())) == (9, 1, letters), state
        run_sql(target, "DROP TRIGGER refuse ON reading")
    held, stored = feed.rows((1, 100, 1.0), (1, 101, 5000.0), (1, 102, 3.0)), len(history())
    mark = writer.marks("line1", ["s1"])
    for state in ("08006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P03", "58030"):
        run_sql(
            target, f"CREATE TRIGGER refuse BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION refuse('{state}')"
        )
        with pytest.raises(StoreWeatherError, match="refused"):
            writer.apply([held])
        run_sql(target, "DROP TRIGGER refuse ON reading")
    for state in ("42P01", "42501", "25006", "P0001", "XX001", "0A000"):
        run_sql(
            target, f"CREATE TRIGGER refuse BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION refuse('{state}')"
        )
        with pytest.raises(StoreFailedError, match="refused") as error:
            writer.apply([held])
        assert error.value.fix
        run_sql(target, "DROP TRIGGER refuse ON reading")
    assert (len(history()), len(reader.dead_letters()), writer.marks("line1", ["s1"])) == (stored, letters, mark)
    assert writer.apply([held]).rows == 3, "when it is over, the same steps go through"
    assert writer.marks("line1", ["s1"]) == [Mark("s1", feed.seq, feed.hash)]
