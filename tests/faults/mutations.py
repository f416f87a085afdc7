"""Each mechanism of the promise, taken out: the test named beside it then fails.

    python -m tests.faults.mutations                # all of them, in a copy of the project; writes a table
    python -m tests.faults.mutations fence window   # those whose name contains one of these words
    python -m tests.faults.mutations --write docs/mechanisms.md

A mutation is a change of the source's text that takes one mechanism out and leaves everything else. It is killed when its test fails, and survives when the test passes
all the same: then nothing proves the mechanism. CI checks that each text is still in the source, once, and that each test is still there (test_mutations.py); the run itself takes
some minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- mechanisms: begin -->", "<!-- mechanisms: end -->"


@dataclass(frozen=True, slots=True)
class Mutation:
    """`old` stands once in `file` and becomes `new`; `test` is a pytest node id (or several, separated by spaces, of which one must fail)."""

    name: str
    mechanism: str
    file: str
    old: str
    new: str
    test: str


_OUTBOX, _FILE = "gateway/ledger/outbox.py", "gateway/ledger/_outbox_file.py"
_OVERFLOW = "gateway/ledger/_overflow.py"
_SENDER, _RECEIVER = "gateway/ledger/sender.py", "gateway/ledger/receiver.py"
_RECORDER, _LINK = "gateway/collect/recorder.py", "gateway/collect/link.py"
_INGEST = "gateway/ingest/role.py"
_TRANSACTION, _WRITER, _ENGINE = (
    "gateway/store/_transaction.py", "gateway/store/writer.py", "gateway/store/_engine.py"
)  # fmt: skip
_GAPS = "gateway/store/_gaps.py"
_POWER = "tests/faults/test_power.py"
_TEST_OUTBOX, _TEST_SENDER = "tests/ledger/test_outbox.py", "tests/ledger/test_sender.py"
_TEST_RECEIVER = "tests/ledger/test_receiver.py"
_TEST_STORE, _TEST_INGEST = "tests/store/test_ledger.py", "tests/ingest/test_role.py"

MUTATIONS = [
    # ----------------------------------------------------------------------------------------------- the outbox
    Mutation(
        "outbox-fsync", "At level `power` a commit of the outbox is fsynced", _FILE,
        "'FULL' if durability == 'power' else 'NORMAL'", "'NORMAL'",
        f"{_POWER}::test_an_outbox_holds_what_commit_called_durable[power]",
    ),
    Mutation(
        "outbox-sound-at-process", "At level `process` a power cut costs the tail and nothing else", _FILE,
        "'FULL' if durability == 'power' else 'NORMAL'", "'FULL' if durability == 'power' else 'OFF'",
        f"{_POWER}::test_an_outbox_holds_what_commit_called_durable[process]",
    ),
    Mutation(
        "full-disk-keeps", "What a full disk refused stays pending, under its numbers", _OUTBOX,
        "            with self._transaction():\n                self._db.executemany(INSERT",
        "            self._pending = []\n            with self._transaction():\n                self._db.executemany(INSERT",
        f"{_TEST_OUTBOX}::test_a_full_disk_keeps_what_is_pending",
    ),
    Mutation(
        "new-stream", "Each start begins a new stream, so that no number is used twice", _OUTBOX,
        "            self._forget([s for s in self._streams.values() if not s.high])\n",
        "            self._forget([s for s in self._streams.values() if not s.high])\n"
        "            if self._streams:\n"
        "                self._current = last = list(self._streams.values())[-1]\n"
        "                self._pending, self._next_seq, self._next_prev = [], last.high + 1, last.hash\n"
        "                return last.id\n",
        f"{_TEST_OUTBOX}::test_a_start_begins_a_new_stream_and_says_where_the_old_one_ended",
    ),
    Mutation(
        "closed", "A new stream says where the older ones ended", _OUTBOX,
        "            for old in ended:\n", "            for old in ended[:0]:\n",
        f"{_POWER}::test_an_outbox_holds_what_commit_called_durable[power]",
    ),
    Mutation(
        "chain", "Messages are chained by hash across commits and restarts", _OUTBOX,
        "            self._next_seq, self._next_prev = seq + 1, end\n",
        "            self._next_seq, self._next_prev = seq + 1, ZERO_HASH\n",
        f"{_TEST_OUTBOX}::test_the_chain_holds_across_commits_and_a_restart",
    ),
    Mutation(
        "tombstone-chain", "A tombstone carries the chain over what it replaces", _OVERFLOW,
        "    body = msgspec.msgpack.encode(Tombstone(end, gaps))\n    if len(body)",
        "    body = msgspec.msgpack.encode(Tombstone(bytes(32), gaps))\n    if len(body)",
        f"{_TEST_OUTBOX}::test_overflow_keeps_the_numbers_the_chain_and_everything_but_readings",
    ),
    Mutation(
        "only-readings-drop", "Births, links, events and gaps are never dropped by an overflow", _OVERFLOW,
        "    if row.kind not in (Kind.READINGS, Kind.TOMBSTONE, Kind.PROGRESS):\n        return None\n",
        "    if row.kind not in (Kind.READINGS, Kind.TOMBSTONE, Kind.PROGRESS):\n        return []\n",
        f"{_TEST_OUTBOX}::test_overflow_keeps_the_numbers_the_chain_and_everything_but_readings",
    ),
    Mutation(
        "keep-confirmed", "Confirmed messages are kept for a time, for a store that is restored", _OUTBOX,
        "self._confirmed_at[0][0] <= before and", "True and",
        f"{_TEST_OUTBOX}::test_confirmed_messages_are_kept_for_their_time_and_births_with_their_stream",
    ),
    Mutation(
        "unconfirmed-stays", "Only what the store has confirmed is deleted", _OUTBOX,
        "                upto = min(seq, stream.low + _TRIM_CHUNK - 1)\n                deleted",
        "                upto = min(stream.high, stream.low + _TRIM_CHUNK - 1)\n                deleted",
        f"{_TEST_OUTBOX}::test_confirmed_messages_are_kept_for_their_time_and_births_with_their_stream",
    ),
    # ---------------------------------------------------------------------------------------------- the recorder
    Mutation(
        "ack-after-durable", "A device's notification is acknowledged only once its readings are durable", _RECORDER,
        "        bodies, callbacks = list(self._ready), self._callbacks\n",
        "        bodies, callbacks = list(self._ready), self._callbacks\n"
        "        for early in callbacks:\n"
        "            early()\n",
        "tests/collect/test_recorder.py::test_one_order_and_durable_when_it_is_said",
    ),
    Mutation(
        "ack-by-token", "The host acknowledges what is durable and not what has arrived", _LINK,
        "    return None if token is None else lambda: adapter.ack(token)\n",
        "    if token is not None:\n        adapter.ack(token)\n    return None\n",
        "tests/collect/test_link.py::test_what_is_durable_is_acknowledged_and_what_is_unchanged_at_once",
    ),
    Mutation(
        "opcua-ack", "An OPC UA server is told of what is durable and of nothing else", "adapters/opcua/_acknowledgements.py",
        "        self._given[token] = tuple(notifications)\n",
        "        self._given[token] = ()\n        self._durable.extend(notifications)\n",
        "tests/adapters/test_opcua_continuity.py::test_the_server_keeps_what_is_not_acknowledged",
    ),
    Mutation(
        "holds-since", "What holds since it was dropped goes along in the newest tombstone", _OVERFLOW,
        "        body = msgspec.msgpack.encode(Tombstone(end, gaps, found))\n", "        pass\n",
        f"{_TEST_OUTBOX}::test_what_holds_since_it_was_dropped_is_kept",
    ),
    Mutation(
        "holds-stored", "And is stored like any reading", _TRANSACTION,
        "                    self._batch(index, step, body.newest)\n", "                    pass\n",
        f"{_TEST_STORE}::test_what_a_tombstone_keeps_is_stored_like_any_reading[sqlite]",
    ),
    Mutation(
        "refused-before-alive", "No sign of life goes ahead of what was refused", _RECORDER,
        " or any(kind == Kind.PROGRESS for kind, _ in self._ready)", "",
        "tests/collect/test_budget.py::test_a_sign_of_life_never_goes_ahead_of_what_was_refused",
    ),
    Mutation(
        "refused-and-holds", "What was refused and holds since then is told once there is room", _RECORDER,
        "        for readings in newest:\n            self._columns.extend(readings)\n", "",
        "tests/collect/test_budget.py::test_what_holds_since_it_was_refused_is_told_when_there_is_room",
    ),
    Mutation(
        "complete-to-behind", "What is remembered as complete is never ahead of what is durable", _RECORDER,
        "        self.outbox.commit()\n        if remember is not None:",
        "        if remember is not None:\n            self.outbox.set_meta(COMPLETE_TO, remember)\n        self.outbox.commit()\n"
        "        if remember is not None:",
        "tests/collect/test_remembered.py::test_what_is_remembered_as_complete_is_not_ahead_of_a_full_disk",
    ),
    Mutation(
        "heartbeat-gap", "A collector that stood still records the gap", "gateway/collect/standstill.py",
        "        if late <= LONGEST:\n", "        if late <= LONGEST or late:\n",
        "tests/collect/test_standstill.py::test_a_late_heartbeat_is_a_gap_of_all_devices_from_the_beat_before_the_last",
    ),
    Mutation(
        "disconnected-gap", "A link that was lost leaves a gap", _LINK,
        "        if start is not None and complete_to > start:\n            end =",
        "        if start is not None and complete_to < start:\n            end =",
        "tests/collect/test_link.py::test_a_lost_link_takes_its_devices_down_since_they_were_last_alive_and_leaves_one_gap",
    ),
    # ------------------------------------------------------------------------------------------------ the sender
    Mutation(
        "sync-first", "Nothing is sent before ingest has said where the store is", _SENDER,
        "        if self._nonce is None:\n            return list(self._next(now))\n",
        "        if self._nonce is None or self.outbox.pending == 0:\n            return list(self._next(now))\n",
        f"{_TEST_SENDER}::test_nothing_is_sent_before_the_answer_to_ones_own_question",
    ),
    Mutation(
        "nonce", "Only the answer to the collector's own question counts", _SENDER,
        "self._nonce is not None and message.nonce == self._nonce and", "self._nonce is not None and",
        f"{_TEST_SENDER}::test_nothing_is_sent_before_the_answer_to_ones_own_question",
    ),
    Mutation(
        "pin", "One store is pinned; another confirms nothing", _SENDER,
        "        if self.outbox.store is None or store == self.outbox.store:\n",
        "        if self.outbox.store is None or store:\n",
        f"{_TEST_SENDER}::test_only_the_store_that_was_first_confirms",
    ),
    Mutation(
        "pin-confirmed", "A confirmation of another store counts for nothing", _SENDER,
        "        if not self._connected or message.store != self.outbox.store:\n", "        if not self._connected:\n",
        f"{_TEST_SENDER}::test_only_the_store_that_was_first_confirms",
    ),
    Mutation(
        "pin-durable", "The pin is durable", _OUTBOX,
        "                self._set_meta(STORE, store)\n", "",
        f"{_TEST_SENDER}::test_only_the_store_that_was_first_confirms",
    ),
    Mutation(
        "another-ingest", "Another ingest is asked before it is believed", _SENDER,
        "        elif message.ingest != self._ingest:\n", "        elif message.ingest == '':\n",
        f"{_TEST_SENDER}::test_another_ingest_is_asked_first",
    ),
    Mutation(
        "restored-store", "A store that was restored is filled again from what is kept", _OUTBOX,
        "            stream.confirmed = seq\n", "            stream.confirmed = max(seq, stream.confirmed)\n",
        f"{_TEST_SENDER}::test_the_answer_says_where_to_go_on",
    ),
    Mutation(
        "window", "A bounded window of messages is unconfirmed", _SENDER,
        "            room = self._window_messages - len(flying)\n", "            room = 10_000\n",
        f"{_TEST_SENDER}::test_no_more_than_the_window_is_unconfirmed",
    ),
    Mutation(
        "window-bytes", "A bounded window of bytes is unconfirmed", _SENDER,
        "            room_bytes = self._window_bytes - sum(size for _, size in flying)\n",
        "            room_bytes = 10**9\n",
        f"{_TEST_SENDER}::test_no_more_than_the_windows_bytes_are_unconfirmed",
    ),
    Mutation(
        "order", "Later streams wait for a stuck older one", _SENDER,
        "                return []  # later streams wait for this one: order beats freshness\n",
        "                continue\n",
        f"{_TEST_SENDER}::test_order_beats_freshness",
    ),
    Mutation(
        "replay", "What ingest misses is sent again", _SENDER,
        "        self._cursor[message.stream] = max(message.seq, 1)\n", "        pass\n",
        f"{_TEST_SENDER}::test_a_replay_moves_back_only_and_once_a_second",
    ),
    Mutation(
        "replay-back", "A replay request moves the cursor back only", _SENDER,
        "message.seq >= cursor or now", "now",
        f"{_TEST_SENDER}::test_a_replay_moves_back_only_and_once_a_second",
    ),
    Mutation(
        "replay-rate", "A replay request counts once a second", _SENDER,
        "message.seq >= cursor or now - self._replayed_at < REPLAY_INTERVAL:", "message.seq >= cursor:",
        f"{_TEST_SENDER}::test_a_replay_moves_back_only_and_once_a_second",
    ),
    Mutation(
        "ask-again", "Without a confirmation the collector asks where the store is", _SENDER,
        "self._unconfirmed() and now - self._heard_at > CONFIRM_TIMEOUT:", "False:",
        f"{_TEST_SENDER}::test_without_a_word_it_asks_again",
    ),
    Mutation(
        "fork-by-number", "A stream whose numbers somebody else has used goes on under a new id", _SENDER,
        "        if seq > stream.high:\n", "        if seq > stream.high and False:\n",
        "tests/ledger/test_fork.py::test_set_back_while_running",
    ),
    Mutation(
        "fork-by-hash", "Another history of a stream is found by its hash", _SENDER,
        "        return ours is not None and end != ZERO_HASH and ours != end\n", "        return False\n",
        "tests/ledger/test_fork.py::test_set_back_while_running",
    ),
    # ---------------------------------------------------------------------------------------------- the receiver
    Mutation(
        "fork-told", "A message that does not continue the stored chain is written, and an alarm", _RECEIVER,
        "        fork = envelope.seq == first and stream.hash != ZERO_HASH and envelope.prev != stream.hash\n",
        "        fork = False\n",
        "tests/ledger/test_fork.py::test_a_chain_that_does_not_continue_is_written_and_told",
    ),
    Mutation(
        "hole", "What is ahead of a hole waits, and the hole is asked for", _RECEIVER,
        "                if min(stream.ahead) > stream.seq + 1:\n                    self._want(",
        "                if min(stream.ahead) < stream.seq + 1:\n                    self._want(",
        f"{_TEST_INGEST}::test_a_hole_is_asked_for",
    ),
    Mutation(
        "no-skip", "What is ahead of a hole is not written", _RECEIVER,
        "            if seq > first:\n                break\n",
        "            if seq > first:\n                first = seq\n",
        f"{_TEST_RECEIVER}::test_what_is_ahead_of_a_hole_waits_for_it",
    ),
    Mutation(
        "twice", "What is stored already is skipped, whatever part of it a message repeats", _RECEIVER,
        "            if envelope.last_seq >= first:\n", "            if envelope.last_seq >= 0:\n",
        f"{_TEST_RECEIVER}::test_what_was_overtaken_is_not_written_again",
    ),
    Mutation(
        "learned", "A stream is taken only after a sync was answered", _RECEIVER,
        "            self.numbers.unknown += 1\n            return False\n",
        "            stream = self._streams[envelope.stream] = _Stream(0, ZERO_HASH)\n",
        f"{_TEST_RECEIVER}::test_a_stream_that_was_not_learned_is_refused",
    ),
    Mutation(
        "lost", "What the outbox cannot hold any more is a gap, and the watermark jumps over it", _RECEIVER,
        "        if first < low:\n", "        if first < low and False:\n",
        f"{_TEST_RECEIVER}::test_what_the_outbox_cannot_hold_any_more_is_a_gap",
    ),
    Mutation(
        "undecodable", "A number that cannot be read is given up after three replays", _RECEIVER,
        "GIVE_UP_AFTER = 3\n", "GIVE_UP_AFTER = 10**9\n",
        f"{_TEST_RECEIVER}::test_what_is_garbled_each_time_is_given_up",
    ),
    Mutation(
        "not-at-once", "A number that cannot be read once is asked for again first", _RECEIVER,
        "stream.unreadable > GIVE_UP_AFTER and hopeless and stream.asked == first",
        "stream.unreadable > 0",
        f"{_TEST_RECEIVER}::test_what_was_garbled_once_is_asked_for",
    ),
    Mutation(
        "rubbish", "Somebody else's rubbish makes no gap of a message that is only slow", _RECEIVER,
        "hopeless = stream.passed >= GIVE_UP_AFTER", "hopeless = stream.replays >= GIVE_UP_AFTER",
        f"{_TEST_RECEIVER}::test_rubbish_of_somebody_else_makes_no_gap_of_what_is_slow",
    ),
    Mutation(
        "one-answer", "Replays that were asked for before an answer came are answered once", _RECEIVER,
        "            stream.answered = stream.replays\n", "            pass\n",
        f"{_TEST_RECEIVER}::test_what_is_held_comes_again_in_one_go_however_often_it_was_asked_for",
    ),
    Mutation(
        "newer-version", "A newer version stops its stream, and nothing of it is confirmed", _RECEIVER,
        "                stream.newer = stream.seq + 1\n            return True\n",
        "                stream.newer = stream.seq + 1\n",
        f"{_TEST_INGEST}::test_a_version_from_the_future_stops_the_stream_and_says_so",
    ),
    Mutation(
        "newer-layout", "Also one whose envelope looks otherwise", _RECEIVER,
        "version > self._supports:\n                self.too_new, self._otherwise = version, True\n            return None\n",
        "version > self._supports:\n                pass\n            return None\n",
        f"{_TEST_RECEIVER}::test_a_newer_envelope_that_looks_otherwise_is_no_garbage",
    ),
    Mutation(
        "newer-never-given-up", "What is too new is never given up as unreadable", _RECEIVER,
        " and not waits_for_newer:\n", ":\n", f"{_TEST_RECEIVER}::test_what_is_too_new_is_never_given_up",
    ),
    Mutation(
        "receiver-bound", "Ingest holds no more than twice the window, whatever arrives", _RECEIVER,
        "        if envelope.seq > following and (full or far):\n", "        if False:\n",
        "tests/ingest/test_pressure.py::test_a_receiver_holds_no_more_than_twice_the_window_whatever_comes",
    ),
    # -------------------------------------------------------------------------------------------------- ingest
    Mutation(
        "confirm-after-commit", "Confirmed is said only after the commit", _INGEST,
        "                applied = await self._in_thread(store.apply, steps)\n",
        "                for step in steps:\n"
        "                    self._tell(step.gateway, Confirmed(VERSION, store.store_id, self.id, Mark(step.stream, step.last)))\n"
        "                applied = await self._in_thread(store.apply, steps)\n",
        f"{_TEST_INGEST}::test_bad_weather_is_waited_for_and_nothing_is_confirmed_meanwhile",
    ),
    Mutation(
        "weather", "Bad weather of the database is waited for, with the same steps", _INGEST,
        "                pause = min(pause * 2, LONGEST_PAUSE)\n", "                return None\n",
        f"{_TEST_INGEST}::test_bad_weather_is_waited_for_and_nothing_is_confirmed_meanwhile",
    ),
    Mutation(
        "watermark-moved", "When the store is not where ingest believed, everybody is asked again", _INGEST,
        "                    gateway.receiver.reset()\n                    self._greet(name)\n",
        "                    self._greet(name)\n",
        f"{_TEST_INGEST}::test_a_watermark_that_moved_makes_everybody_ask_again",
    ),
    Mutation(
        "stand-down", "An ingest that has lost the lease forgets what it held", _INGEST,
        "        self._leased = False\n        for gateway in self._gateways.values():\n            gateway.receiver.reset()\n",
        "        pass\n",
        "tests/ingest/test_lease.py::test_what_was_held_under_a_lost_lease_is_forgotten",
    ),
    Mutation(
        "epoch", "A restored store begins a new epoch", _INGEST,
        "            await self._in_thread(store.raise_epoch)\n", "            pass\n",
        f"{_TEST_INGEST}::test_a_store_behind_what_it_had_confirmed_was_restored",
    ),
    # --------------------------------------------------------------------------------------------------- the store
    Mutation(
        "store-fsync", "A commit of the SQLite store is fsynced before it is confirmed", _ENGINE,
        'connection.execute("PRAGMA synchronous=FULL")', 'connection.execute("PRAGMA synchronous=NORMAL")',
        f"{_POWER}::test_a_store_has_the_rows_of_its_watermark_and_every_watermark_that_it_told",
    ),
    Mutation(
        "postgres-fsync", "The PostgreSQL store commits synchronously, whatever the server's default", "gateway/store/_psycopg.py",
        'connection.execute("SET synchronous_commit TO on")', 'connection.execute("SET synchronous_commit TO off")',
        "tests/store/test_atomic.py::test_a_commit_is_on_the_disk_whatever_the_servers_default_is[postgresql]",
    ),
    Mutation(
        "next-only", "A step is applied only where the watermark is just before it", _TRANSACTION,
        "        if step.first != watermark + 1 or step.last < step.first:\n", "        if step.last < step.first:\n",
        f"{_TEST_STORE}::test_a_step_that_is_not_the_next_changes_nothing[sqlite]",
    ),
    Mutation(
        "compare-and-set", "The watermark moves by compare-and-set", _TRANSACTION,
        "                .where(t.stream.c.id == stream, t.stream.c.watermark == watermark)\n",
        "                .where(t.stream.c.id == stream)\n",
        "tests/store/test_atomic.py::test_the_watermark_moves_only_from_where_it_was_seen[sqlite]",
    ),
    Mutation(
        "one-transaction", "Watermark and rows are one transaction", _TRANSACTION,
        "        self._write_watermarks()\n        if self._dead:\n",
        '        self._connection.exec_driver_sql("COMMIT")\n        self._connection.exec_driver_sql("BEGIN IMMEDIATE")\n'
        "        self._write_watermarks()\n        if self._dead:\n",
        f"{_TEST_STORE}::test_a_failure_at_any_statement_leaves_nothing[sqlite]",
    ),
    Mutation(
        "letter-with-watermark", "A dead letter and the watermark are one transaction", _TRANSACTION,
        "        if self._dead:\n            self._connection.execute(",
        "        if self._dead:\n"
        '            self._connection.exec_driver_sql("COMMIT")\n            self._connection.exec_driver_sql("BEGIN IMMEDIATE")\n'
        "            self._connection.execute(",
        "tests/store/test_atomic.py::test_a_dead_letter_comes_with_its_watermark_or_not_at_all[sqlite]",
    ),
    Mutation(
        "poison", "A body that cannot be decoded is a dead letter", _TRANSACTION,
        '            self._dead_letter(step, step.poison, step.raw if step.raw is not None else b"", 1)\n', "            pass\n",
        f"{_TEST_STORE}::test_poison_is_a_dead_letter_and_a_gap_and_the_watermark[sqlite]",
    ),
    Mutation(
        "bisect", "What the database refuses is halved until the one reading is found", _TRANSACTION,
        "                if middle == 0:\n                    self._refuse(columns, 0,",
        "                if middle >= 0:\n                    self._refuse(columns, 0,",
        f"{_TEST_STORE}::test_the_one_reading_that_the_database_refuses[sqlite-bad0]",
    ),
    Mutation(
        "fence", "A writer that has slept through its lease is fenced off", _WRITER,
        "                    .where(t.store.c.fence == self._fenced(), t.store.c.holder.is_not(None))\n",
        "                    .where(t.store.c.holder.is_not(None))\n",
        f"{_TEST_STORE}::test_a_holder_that_slept_is_fenced_off[sqlite]",
    ),
    Mutation(
        "fence-rises", "Each lease has a number of its own", "gateway/store/_lease.py",
        '        "UPDATE store SET holder = :holder, fence = fence + 1, lease_until = :now + :ttl"\n',
        '        "UPDATE store SET holder = :holder, lease_until = :now + :ttl"\n',
        f"{_TEST_STORE}::test_a_holder_that_slept_is_fenced_off[sqlite]",
    ),
    Mutation(
        "one-ingest", "One ingest holds the lease at a time", "gateway/store/_lease.py",
        '        " WHERE holder IS NULL OR holder = :holder OR lease_until < :now OR lease_until > :now + :longest RETURNING fence"\n',
        '        " WHERE :longest > 0 RETURNING fence"\n',
        f"{_TEST_STORE}::test_one_ingest_at_a_time[sqlite]",
    ),
    Mutation(
        "stream-owner", "A stream is its gateway's", _TRANSACTION,
        "            if known is not None and known.gateway != step.gateway:\n", "            if False:\n",
        f"{_TEST_STORE}::test_a_stream_of_another_gateway_is_refused[sqlite]",
    ),
    Mutation(
        "merge-whole", "A merge of SQLite's tail shows each row once at every moment", "gateway/store/_sqlite.py",
        "            connection.execute(store.update().values(merge_signal=to))\n            if final:\n",
        "            if final:\n",
        "tests/store/test_sqlite.py::test_readers_see_each_row_once_at_each_moment_of_a_merge",
    ),
    # ----------------------------------------------------------------------------------------------------- the gaps
    Mutation(
        "collector-down", "A new stream begins the gap `collector_down`", _TRANSACTION,
        "                self._open_gaps(step, Cause.COLLECTOR_DOWN)\n", "                pass\n",
        "tests/store/test_catalog.py::test_collector_down[sqlite]",
    ),
    Mutation(
        "gap-from-complete", "A gap begins where everything was complete, and not later", _GAPS,
        "        start = born_at if complete_to is None else complete_to\n", "        start = step.at\n",
        "tests/store/test_catalog.py::test_collector_down[sqlite]",
    ),
    Mutation(
        "tombstone-gap", "What a tombstone stands for is a gap", _TRANSACTION,
        "            case Tombstone():\n                self._gaps(step, body.gaps)\n",
        "            case Tombstone():\n                pass\n",
        f"{_TEST_STORE}::test_tombstone[sqlite]",
    ),
    Mutation(
        "closed-missing", "What had not arrived of a closed stream is a gap", _TRANSACTION,
        "        if missing:\n            detail", "        if missing and False:\n            detail",
        f"{_TEST_STORE}::test_closed_streams[sqlite]",
    ),
    Mutation(
        "too-late", "A reading older than the raw retention is a gap", _TRANSACTION,
        "            self._gap_of(step, signal, min(times), max(times), Cause.TOO_LATE, len(rows))\n", "            pass\n",
        "tests/store/test_rollups.py::test_a_reading_before_the_horizon_is_too_late[sqlite]",
    ),
]  # fmt: skip


def problems(mutation: Mutation, root: Path = ROOT) -> list[str]:
    """Why it cannot be tried: its text is not in the source, once, or a test of it is not there."""
    found = (root / mutation.file).read_text(encoding="utf-8").count(mutation.old)
    wrong = [] if found == 1 else [f"{mutation.name}: its text stands {found} times in {mutation.file}"]
    for test in mutation.test.split():
        path, *names = test.split("::")
        text = (root / path).read_text(encoding="utf-8") if (root / path).exists() else ""
        wrong += [f"{mutation.name}: {test} is not there" for name in names[:1] if name.partition("[")[0] not in text]
        if not text:
            wrong.append(f"{mutation.name}: {path} is not there")
    return wrong


@dataclass(frozen=True, slots=True)
class Result:
    """`killed` when a test failed."""

    mutation: Mutation
    killed: bool
    seconds: float
    output: str


class Copy:
    """A copy of the project in which the text is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        for modules in ("tests/servers/npm/node_modules", "tests/page/npm/node_modules"):
            if (ROOT / modules).exists():
                (folder / modules).symlink_to(ROOT / modules)

    def run(self, tests: Iterable[str], timeout: float = 300.0) -> tuple[bool, str]:
        """Whether they pass, and what pytest said."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
        env = {
            **os.environ,
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / ".hypothesis"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_SHRINK": "1",
        }
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return False, f"no end within {timeout} s"
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.returncode == 0, done.stdout

    def try_one(self, mutation: Mutation) -> Result:
        """Take the mechanism out, run its tests, and put it back."""
        file = self.folder / mutation.file
        text = file.read_text(encoding="utf-8")
        assert text.count(mutation.old) == 1, mutation.name
        began = time.monotonic()
        file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            passed, output = self.run(mutation.test.split())
        finally:
            file.write_text(text, encoding="utf-8")
        return Result(mutation, not passed, time.monotonic() - began, output)


def table(results: Sequence[Result]) -> str:
    """For the documentation."""
    lines = ["| Mechanism | Taken out of | Test that fails without it |", "|---|---|---|"]
    for result in results:
        mutation = result.mutation
        tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in mutation.test.split())
        lines.append(f"| {mutation.mechanism} | `{mutation.file}` | {tests if result.killed else 'none'} |")
    return "\n".join(lines)


def write_table(page: Path, results: Sequence[Result]) -> None:
    """Put the table between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page}: the markers {BEGIN} and {END} are not there")
    page.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


def say(*lines: str) -> None:
    """To whoever runs it, at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutations whose name contains one of these")
    parser.add_argument("--write", type=Path, help="the page into which the table goes")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(word in m.name for word in options.words)]
    wrong = [problem for mutation in chosen for problem in problems(mutation)]
    if wrong:
        say(*wrong)
        return 2
    results = []
    with tempfile.TemporaryDirectory(prefix="guantong-mutations-") as folder:
        copy = Copy(Path(folder))
        passed, output = copy.run(sorted({test for m in chosen for test in m.test.split()}), 3_600.0)
        if not passed:
            say("the tests fail without any mutation:", output)
            return 2
        for mutation in chosen:
            result = copy.try_one(mutation)
            results.append(result)
            say(f"{'killed  ' if result.killed else 'SURVIVED'} {result.seconds:6.1f} s  {mutation.name}")
    survived = [result for result in results if not result.killed]
    say(f"mutations={len(results)} killed={len(results) - len(survived)} survived={len(survived)}")
    if options.write is not None:
        write_table(options.write, results)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
