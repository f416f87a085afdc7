"""A certificate authority for tests: made at run time, valid for a day, never a file of the repository."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Certificate:
    """PEM files of one certificate and its private key."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """Issues server and client certificates (ECDSA P-256, RFC 5280) into `folder`; `certificate` is what to trust."""

    def __init__(self, folder: Path, name: str = "Guantong test CA") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            self._builder(self._name, self._key.public_key(), days=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, client: bool = False, days: float = 1.0, address: str = "127.0.0.1") -> Certificate:
        """A certificate with the common name `name`, for the address and `localhost`; `days` below 0 gives an expired one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address))],
        )
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            self._builder(subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        paths = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        paths.key.chmod(0o600)
        return paths

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, days: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(authority_key, critical=False)
        )


def application_certificate(
    folder: Path,
    name: str,
    uri: str,
    *,
    host: str = "127.0.0.1",
    bits: int = 2048,
    begin: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    issuer: tuple[Path, Path] | None = None,
    authority: bool = False,
) -> tuple[Path, Path]:
    """An OPC UA application certificate (DER) with its RSA key (PEM), signed by itself or by `issuer`; valid for a day around now."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issued_by = key, subject
    if issuer is not None:
        signed_with = serialization.load_pem_private_key(issuer[1].read_bytes(), None)
        assert isinstance(signed_with, rsa.RSAPrivateKey)
        signer, issued_by = signed_with, x509.load_der_x509_certificate(issuer[0].read_bytes()).subject
    try:
        address: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        address = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin or now - datetime.timedelta(days=1))
        .not_valid_after(end or now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), address]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    paths = folder / f"{name}.der", folder / f"{name}.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


class ApplicationAuthority:
    """Issues OPC UA application certificates and revocation lists; `certificate` is what to trust."""

    def __init__(self, folder: Path, name: str = "Test authority", issuer: tuple[Path, Path] | None = None) -> None:
        self.folder, self.name = folder, name
        self._files = application_certificate(folder, name, f"urn:{name}", issuer=issuer, authority=True)
        self.certificate = x509.load_der_x509_certificate(self._files[0].read_bytes())

    def issue(self, name: str, uri: str, *, host: str = "127.0.0.1") -> tuple[Path, Path]:
        """A certificate and its key, for an application at `host`."""
        return application_certificate(self.folder, name, uri, host=host, issuer=self._files)

    def authority(self, folder: Path, name: str) -> ApplicationAuthority:
        """An authority below this one."""
        return ApplicationAuthority(folder, name, self._files)

    def crl(self, *revoked: tuple[Path, Path]) -> x509.CertificateRevocationList:
        """Its revocation list, with these certificates in it."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - datetime.timedelta(hours=1))
            .next_update(now + datetime.timedelta(days=1))
        )
        for files in revoked:
            number = x509.load_der_x509_certificate(files[0].read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(one)
        key = serialization.load_pem_private_key(self._files[1].read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return builder.sign(key, hashes.SHA256())
