"""`guantong certs`: what it moves is what a link trusts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner, Result

from adapters.opcua import certificates as x
from adapters.opcua.pki import Pin, Pki
from gateway.cli.app import app
from tests.servers.certificates import ApplicationAuthority, application_certificate


class Certs:
    """Runs the command; `pki` is what a link would see."""

    def __init__(self, folder: Path) -> None:
        self.pki = Pki(folder / "pki", "gateway")
        self._runner = CliRunner()

    def __call__(self, *arguments: str, code: int = 0, answer: str | None = None) -> Result:
        result = self._runner.invoke(app, ["certs", *arguments], input=answer)
        assert result.exit_code == code, result.output
        return result

    def stores(self) -> dict[str, list[str]]:
        """Store -> fingerprints, as the command lists them."""
        found: dict[str, list[str]] = {}
        for row in json.loads(self("list", "--json").stdout):
            found.setdefault(row["store"], []).append(row["sha256"])
        return found


@pytest.fixture
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certs:
    monkeypatch.setenv("GUANTONG_LANGUAGE", "en")
    monkeypatch.setenv("GUANTONG_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("GUANTONG_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return Certs(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> x509.Certificate:
    files = application_certificate(tmp_path / "made", "PLC 1", "urn:plc:1", bits=1024)
    return x.read_certificate(files[0].read_bytes())


def test_from_rejected_to_trusted_and_back(certs: Certs, server: x509.Certificate) -> None:
    certs.pki.put("rejected", server)
    fingerprint = x.sha256(server)
    assert certs.stores() == {"rejected": [fingerprint]}
    assert x.sha1(server) in certs("trust", fingerprint).stdout
    assert certs.stores() == {"trusted": [fingerprint]}
    assert [k.sha256 for k in certs.pki.certificates("trusted")] == [fingerprint]
    certs("reject", x.sha1(server)[:10].upper())
    assert certs.stores() == {"rejected": [fingerprint]}
    certs("remove", fingerprint)
    assert certs.stores() == {}


def test_files_are_taken_in(certs: Certs, server: x509.Certificate, tmp_path: Path) -> None:
    authority = ApplicationAuthority(tmp_path / "authority")
    for name, data in {
        "server.pem": server.public_bytes(Encoding.PEM),
        "ca.der": authority.certificate.public_bytes(Encoding.DER),
        "ca.crl": authority.crl().public_bytes(Encoding.PEM),
        "notes.txt": b"hello",
    }.items():
        (tmp_path / name).write_bytes(data)
    certs("trust", "server.pem")
    certs("trust", "ca.der", "--issuer")
    certs("trust", "ca.crl", "--issuer")
    assert certs.stores() == {"trusted": [x.sha256(server)], "issuers": [x.sha256(authority.certificate)]}
    assert [crl.issuer for crl in certs.pki.crls()] == [authority.certificate.subject]
    assert "neither a certificate" in certs("trust", "notes.txt", code=1).stderr


def test_the_gateways_own(certs: Certs, tmp_path: Path) -> None:
    assert certs.stores() == {}
    told = certs("show", "own").stdout
    (own,) = certs.stores()["own"]
    assert own in told
    assert ":guantong:gateway" in told
    certs("export", "ours.der")
    certs("export", "ours.pem")
    for name in ("ours.der", "ours.pem"):
        data = (tmp_path / name).read_bytes()
        assert x.sha256(x.read_certificate(data)) == own
        assert b"PRIVATE" not in data
    assert "--force" in certs("export", "ours.der", code=1).stderr
    certs("renew", code=1, answer="n\n")
    assert certs.stores()["own"] == [own]
    certs("renew", "--yes")
    assert certs.stores()["own"] != [own]
    (row,) = json.loads(certs("show", "own", "--json").stdout)
    assert row["application_uri"].endswith(":guantong:gateway")
    assert "sha1" in row


def test_a_link_that_pinned(certs: Certs, server: x509.Certificate) -> None:
    certs.pki.put("trusted", server)
    pin = Pin("Basic256Sha256", "Sign", x.sha256(server), x.sha1(server), "PLC 1", "2026-01-01T00:00:00Z")
    certs.pki.set_pin("press-1", "opc.tcp://plc:4840", pin)
    (row,) = json.loads(certs("list", "--json").stdout)
    assert row["links"] == ["press-1"]
    assert "press-1" in certs("unpin", "press-2", code=1).stderr
    certs("unpin", "press-1")
    assert certs.pki.pins("press-1") == {}


def test_what_cannot_be_is_said_in_both_languages(certs: Certs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "certs list" in certs("trust", "0123456789abcdef", code=1).stderr
    assert "at least 8" in certs("remove", "0123", code=1).stderr
    monkeypatch.setenv("GUANTONG_LANGUAGE", "zh")
    assert "没有指纹为" in certs("trust", "0123456789abcdef", code=1).stderr
