"""Points of a stream, kept configurations, and requests to the collector."""

from __future__ import annotations

import os
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.apply import requests
from gateway.apply.difference import Change, difference
from gateway.apply.history import KEPT, Files, History, data_dir_of_text, put_back, read_files, write_files, write_text
from gateway.apply.owner import make_folder
from gateway.apply.requests import Answer, NoCollectorError, Request
from gateway.collect.points import PointBook
from gateway.collect.role import same_link
from gateway.config.models import GatewaySettings
from gateway.config.plan import Plan, PlannedLink
from schemas.model import Text
from tests.collect.plans import planned
from tests.servers.needs import missing
from tests.servers.waiting import eventually


def plan(*signals: dict[str, Any], device: str = "d") -> Plan:
    made = planned([{"type": "float64", **signal} for signal in signals], device=device)
    return Plan(GatewaySettings(id="gw"), (PlannedLink("link", "fake", None, None, (made,)),))


def points(numbered: Plan) -> dict[str, int]:
    return {signal.signal.name: signal.index for signal in numbered.signals}


A, B, C = {"name": "a"}, {"name": "b"}, {"name": "c"}


def test_a_point_is_kept_or_new_and_never_used_again() -> None:
    book = PointBook()
    first = points(book.number(plan(A, B)))
    assert first == {"a": 0, "b": 1}
    assert points(book.number(plan(A, B))) == first
    assert points(book.preview(plan(A, C))) == {"a": 0, "c": 2}
    changed = points(book.number(plan(A, {**B, "scale": 2.0}, C)))
    assert changed == {"a": 0, "b": 2, "c": 3}
    assert points(book.number(plan(A, C))) != changed  # c stands elsewhere in its device, and its address is another
    assert points(book.number(plan(A, B)))["b"] > 3  # what it was once is not what it is now
    assert book.new() not in first.values()


def test_where_a_signal_stands_is_not_what_it_is() -> None:
    book = PointBook()
    before = plan(A, B)
    assert points(book.number(before)) == {"a": 0, "b": 1}
    (link,) = before.links
    (device,) = link.devices
    turned = tuple(replace(s, point=point) for point, s in enumerate(reversed(device.signals), device.first))
    after = replace(before, links=(replace(link, devices=(replace(device, signals=turned),)),))
    assert points(book.number(after)) == {"a": 0, "b": 1}


def test_names_restart_nothing() -> None:
    (one,) = plan(A).links
    (device,) = one.devices
    assert same_link(one, replace(one, devices=(replace(device, name=Text(en="New")),)))
    assert not same_link(one, replace(one, devices=(replace(device, asset="other"),)))
    assert not same_link(one, plan(A, B).links[0])


def test_the_difference_names_keys_and_no_values() -> None:
    found = difference(plan(A, B), plan({**A, "scale": 7.5, "unit": "kW"}, C), ["link"], [])
    assert found.changes == [
        Change("signal", "d/b", "removed"),
        Change("signal", "d/a", "changed", ["scale", "unit"]),
        Change("signal", "d/c", "added"),
    ]
    assert "7.5" not in str(found)


def files(folder: Path, text: str, profile: str = "one") -> Files:
    return Files(folder / "g.yaml", text, [("p/x.yaml", folder / "p" / "x.yaml", profile)], ["delta-dtb"])


def test_the_last_twenty_are_kept_with_their_profiles(tmp_path: Path) -> None:
    history = History(tmp_path / "data")
    assert history.list() == []
    for number in range(1, KEPT + 6):
        assert history.keep(files(tmp_path, f"n: {number}"), number).number == number
    assert history.keep(files(tmp_path, f"n: {KEPT + 5}"), 0).number == KEPT + 5  # the same again
    assert history.keep(files(tmp_path, f"n: {KEPT + 5}", "two"), 0).number == KEPT + 6  # another profile
    kept = history.list()
    assert [k.number for k in kept] == list(range(KEPT + 6, 6, -1))
    assert len(list(history.folder.iterdir())) == KEPT
    again = history.files(kept[0])
    assert again.text == f"n: {KEPT + 5}"
    assert again.profiles == [("p/x.yaml", tmp_path / "p" / "x.yaml", "two")]
    assert again.hash == kept[0].hash


def test_files_are_written_and_put_back(tmp_path: Path) -> None:
    config = tmp_path / "g.yaml"
    config.write_bytes(b"broken: \xff\r\n")
    config.chmod(0o600)
    before = write_files(files(tmp_path, "n: 1\n"), config)
    assert read_files(config).text == "n: 1\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert (tmp_path / "p" / "x.yaml").read_text() == "one"
    put_back(before)
    assert config.read_bytes() == b"broken: \xff\r\n"
    assert not (tmp_path / "p" / "x.yaml").exists()


def test_the_data_directory_of_a_broken_file(tmp_path: Path) -> None:
    config = tmp_path / "g.yaml"
    config.write_text('links: [\ndata_dir: "far/away"  # here\n')
    assert data_dir_of_text(config, {}) == tmp_path / "far/away"
    assert data_dir_of_text(config, {"GUANTONG_DATA_DIR": "/else"}) == Path("/else")
    config.write_text("links: [\n")
    assert data_dir_of_text(config, {}) == tmp_path / "var"


def test_a_request_is_taken_answered_or_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(requests.ask(tmp_path, Request("apply", "/x"))))
    asking.start()
    ((name, request),) = eventually(lambda: requests.take(tmp_path), 5, what="the request")
    assert request == Request("apply", "/x")
    requests.reply(tmp_path, name, Answer(number=3))
    asking.join(5)
    assert answers == [Answer(number=3)]
    folder = tmp_path / requests.FOLDER
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(requests, "TAKEN_WITHIN", 0.1)
    with pytest.raises(NoCollectorError, match="no collector runs"):
        requests.ask(tmp_path, Request("apply", "/x"))
    assert requests.take(tmp_path) == []
    (folder / "request-1.json").write_text("{")
    assert requests.take(tmp_path) == [("1", None)]
    (folder / "answer-old.json").write_text("{}")
    requests.clear(tmp_path)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="files have no owner to be given to")
def test_what_root_writes_belongs_to_the_gateway(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, who can give files away", "running the tests as root")
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 4711, 4712)
    make_folder(data / "new" / "deeper")
    config = data / "new" / "g.yaml"
    write_text(config, "n: 1\n")
    os.chown(config, 4713, 4714)
    write_text(config, "n: 2\n")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in data.rglob("*")}
    assert owners == {"new": (4711, 4712), "deeper": (4711, 4712), "g.yaml": (4713, 4714)}
