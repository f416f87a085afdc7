"""`guantong doctor`: each finding from a box that is made to be so."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from adapters.opcua.certificates import read_certificate
from adapters.opcua.pki import Pki
from gateway.cli.app import app
from gateway.config.load import load_config
from gateway.config.models import Config
from gateway.diagnosis import doctor, site
from gateway.diagnosis.box_clock import LAST
from gateway.diagnosis.certificates import certificates
from gateway.diagnosis.findings import Finding, exit_code
from gateway.diagnosis.kernel_clock import Synchronisation
from gateway.ledger.outbox import Outbox
from tests.servers.certificates import application_certificate

YEAR_2026 = 1_780_000_000.0


def config_in(tmp_path: Path, text: str = "") -> Config:
    file = tmp_path / "workshop.yaml"
    file.write_text(f"data_dir: data\n{text}", encoding="utf-8")
    (tmp_path / "data").mkdir(exist_ok=True)
    return load_config(file, {})


def one(findings: Iterable[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def test_a_year_that_cannot_be_is_a_failure() -> None:
    found = one(doctor.clock(lambda: "synced", lambda: 86_400.0), "clock")
    assert found.state == "fail"
    assert "1970-01-02" in found.en
    assert "date -u -s" in found.fix_zh


@pytest.mark.parametrize(("answer", "state"), [("synced", "ok"), ("unsynced", "warn"), ("unknown", "warn")])
def test_synchronisation_of_the_clock(answer: Synchronisation, state: str) -> None:
    found = one(doctor.clock(lambda: answer, lambda: YEAR_2026), "clock")
    assert found.state == state
    assert bool(found.fix_en) == (state != "ok")


def test_a_clock_behind_the_outbox_is_told(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    outbox = Outbox(config.data_dir / "outbox.sqlite")
    outbox.set_meta(LAST, str(int(YEAR_2026 * 1e6)))
    outbox.close()
    found = one(site.last_times(config, lambda: YEAR_2026 - 500), "clock.last")
    assert found.state == "fail"
    assert "500 s behind" in found.en
    assert one(site.last_times(config, lambda: YEAR_2026 + 5), "clock.last").state == "ok"


def test_a_budget_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    assert one(site.disk(config_in(tmp_path, "outbox: {budget: 900000T}\n")), "disk.budget").state == "warn"
    assert one(site.disk(config_in(tmp_path, "outbox: {budget: 1M}\n")), "disk.budget").state == "ok"


def test_keys_that_others_may_read(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    keys = config.data_dir / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o644)
    found = one(site.rights(config), "rights.keys")
    assert (found.state, found.fix_en) == ("fail", f"chmod 600 {keys}")
    keys.chmod(0o600)
    assert one(site.rights(config), "rights.keys").state == "ok"


def test_certificates_whose_end_is_near(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    assert not list(certificates(config))
    now = datetime.now(UTC)
    pki = Pki(config.data_dir / "pki", config.gateway.id)
    own = pki.own(now)
    assert one(certificates(config), "certificates").state == "ok"
    files = application_certificate(tmp_path / "made", "PLC 1", "urn:plc:1", bits=1024, end=now + timedelta(days=20))
    pki.put("trusted", read_certificate(files[0].read_bytes()))
    found = one(certificates(config), "certificates")
    assert found.state == "warn"
    assert "PLC 1" in found.zh
    assert one(certificates(config, now + timedelta(days=21)), "certificates").state == "fail"
    (kept,) = pki.certificates("trusted")
    pki.remove(kept)
    own.key.chmod(0o640)
    found = next(iter(certificates(config)))
    assert (found.state, found.fix_en) == ("fail", f"chmod 600 {own.key}")


def test_a_serial_device_that_is_not_there(tmp_path: Path) -> None:
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    (by_id / "usb-FTDI").symlink_to(tmp_path / "ttyUSB-unplugged")
    found = one(site.serial_rights(config_in(tmp_path), by_id), "rights.serial")
    assert found.state == "fail"
    assert "usb-FTDI" in found.zh


def test_a_port_that_somebody_else_holds(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = config_in(tmp_path, f"api: {{port: {port}}}\nmetrics: {{enabled: false}}\nbus: {{host: broker}}\n")
        found = one(site.ports(config), "port")
        assert found.state in ("warn", "fail")
        assert f"api.port 127.0.0.1:{port} is taken" in found.en
    assert one(site.ports(config), "port").state == "ok"


def test_the_port_on_which_a_unit_dials_in_is_looked_at_once(tmp_path: Path) -> None:
    signals = "[{name: a, type: int32, address: {register: 0, type: uint16}}]"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        links = "".join(
            f"- {{id: l{n}, adapter: modbus, settings: {{listen: {{port: {port}, bind: 127.0.0.1, registration: DTU{n}}}}}, "
            f"devices: [{{id: d{n}, signals: {signals}}}]}}\n"
            for n in range(2)
        )
        config = config_in(tmp_path, f"metrics: {{enabled: false}}\nbus: {{host: broker}}\nlinks:\n{links}")
        (found,) = [finding for finding in site.ports(config) if "listen" in finding.en]
        assert found.state in ("warn", "fail")
        assert f"links.l0.settings.listen.port 127.0.0.1:{port} is taken" in found.en


def test_devices_are_reached_by_tcp_alone(tmp_path: Path) -> None:
    with socket.socket() as machine, socket.socket() as closed:
        machine.bind(("127.0.0.1", 0))
        machine.listen()
        closed.bind(("127.0.0.1", 0))
        signals = "[{name: a, type: int32, address: {register: 0, type: uint16}}]"
        links = "links:\n" + "".join(
            f"- {{id: l{n}, adapter: modbus, settings: {{host: 127.0.0.1, port: {s.getsockname()[1]}}}, "
            f"devices: [{{id: d{n}, signals: {signals}}}]}}\n"
            for n, s in enumerate((machine, closed))
        )
        config = Config.model_validate({"links": yaml.safe_load(links)["links"]})
        reached, refused = site.devices(config)
        connection, _ = machine.accept()
        with connection:
            assert connection.recv(1) == b""
    assert (reached.state, refused.state) == ("ok", "fail")
    assert "refuses" in refused.en


def test_an_opc_ua_endpoint_is_a_target() -> None:
    link = {"id": "x", "adapter": "opcua", "devices": [{"id": "d", "profile": "p"}]}
    for endpoint in ("opc.tcp://192.0.2.1/press", ["opc.tcp://192.0.2.1", "opc.tcp://192.0.2.2"]):
        config = Config.model_validate({"links": [link | {"settings": {"endpoint": endpoint}}]})
        assert site.target(config.links[0]) == ("192.0.2.1", 4840)


def test_every_failing_finding_names_a_fix_in_both_languages(tmp_path: Path) -> None:
    for finding in doctor.examine(config_in(tmp_path)):
        assert finding.zh
        assert finding.en
        if finding.state != "ok":
            assert finding.fix_zh, finding
            assert finding.fix_en, finding


def test_a_check_that_fails_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise OSError("no /proc here")

    monkeypatch.setattr(doctor, "memory", broken)
    findings = doctor.examine(None)
    assert one(findings, "broken").state == "warn"
    assert one(findings, "versions").state == "ok"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_in(tmp_path, "api: {port: 0}\nmetrics: {enabled: false}\nbus: {host: broker}\noutbox: {budget: 1M}\n")
    runner, arguments = CliRunner(), ["doctor", "--config", str(tmp_path / "workshop.yaml")]
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    answer = runner.invoke(app, [*arguments, "--json"])
    findings = [Finding(**row) for row in json.loads(answer.output)]
    assert answer.exit_code == exit_code(findings)
    assert {
        "clock",
        "time_service",
        "disk.space",
        "disk.inodes",
        "rights.data_dir",
        "network",
        "memory",
        "versions",
    } <= {finding.check for finding in findings}
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert re.search("项目.*状态", runner.invoke(app, arguments).output)
    (tmp_path / "workshop.yaml").write_text("nonsense: 1\n")
    answer = runner.invoke(app, arguments)
    assert answer.exit_code == 1
    assert "nonsense" in answer.output
