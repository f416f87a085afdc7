"""X.509 as OPC UA uses it (OPC 10000-6 §6.2): reading certificates and chains, what stands in them, and the gateway's own one."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import socket
from typing import Final

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS: Final = 20
"""How long the gateway's certificate is valid: an offline box outlives the usual five."""
EARLIEST: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""Before this the software did not exist: a clock that shows less is wrong (a box without a battery clock starts in 1970)."""
KEY_BITS: Final = 2048
"""The least that every current policy accepts, and the most that the deprecated ones do (OPC 10000-7 §6.6)."""
_MOST_ADDRESSES: Final = 16
_MOST_IN_CHAIN: Final = 10


class NotACertificateError(ValueError):
    """The bytes are no X.509 certificate, or one whose key is not RSA."""


def read_certificate(data: bytes) -> x509.Certificate:
    """The first certificate in PEM or DER bytes. Raises NotACertificateError."""
    try:
        if data.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(_pieces(data)[0])
    except (ValueError, IndexError) as error:
        raise NotACertificateError(f"no X.509 certificate in PEM or DER: {error}") from error


def read_chain(data: bytes) -> list[x509.Certificate]:
    """A server's certificate and the issuers that it sends behind it (OPC 10000-6 §6.2.6). Raises NotACertificateError."""
    try:
        chain = [x509.load_der_x509_certificate(piece) for piece in _pieces(data)[:_MOST_IN_CHAIN]]
    except (ValueError, IndexError) as error:
        raise NotACertificateError(f"no X.509 certificate: {error}") from error
    if not chain:
        raise NotACertificateError("no certificate at all")
    return chain


def read_crl(data: bytes) -> x509.CertificateRevocationList:
    """A revocation list in PEM or DER. Raises NotACertificateError."""
    try:
        if data.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
    except ValueError as error:
        raise NotACertificateError(f"no revocation list in PEM or DER: {error}") from error


def _pieces(data: bytes) -> list[bytes]:
    """DER values one behind the other, by the length that stands at the beginning of each (X.690 §8.1.3)."""
    pieces = []
    while data:
        if data[0] != 0x30:
            raise ValueError("it does not begin as a certificate does")
        length, header = data[1], 2
        if length >= 0x80:
            header = 2 + (length & 0x7F)
            length = int.from_bytes(data[2:header], "big")
        pieces.append(data[: header + length])
        data = data[header + length :]
    return pieces


def der(certificate: x509.Certificate) -> bytes:
    """Its DER encoding."""
    return certificate.public_bytes(serialization.Encoding.DER)


def sha256(certificate: x509.Certificate) -> str:
    """Its fingerprint in hex, by which it is told apart."""
    return hashlib.sha256(der(certificate)).hexdigest()


def sha1(certificate: x509.Certificate) -> str:
    """Its thumbprint in hex, as OPC UA tools and servers show it."""
    return hashlib.sha1(der(certificate)).hexdigest()


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, or the whole subject without one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def application_uris(certificate: x509.Certificate) -> list[str]:
    """The URIs in its subject alternative name, of which the first is the application URI (OPC 10000-6 §6.2.2)."""
    names = _alternative_names(certificate)
    return [] if names is None else [str(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]


def host_names(certificate: x509.Certificate) -> list[str]:
    """DNS names and addresses for which it is made."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [str(name) for name in names.get_values_for_type(x509.DNSName)] + addresses


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue others."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` may issue certificates and has signed this one."""
    if not is_authority(issuer) or certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001  a wrong signature, an unknown algorithm or an odd key: all mean no
        return False
    return True


def self_signed(certificate: x509.Certificate) -> bool:
    """Whether it names itself as its issuer."""
    return certificate.issuer == certificate.subject


def for_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether it is made for this host name or address; case does not matter, 127.0.0.1 and localhost are the same."""
    local = {"localhost", "127.0.0.1", "::1"}
    wanted = host.lower()
    names = {name.lower() for name in host_names(certificate)}
    return wanted in names or (wanted in local and bool(names & local))


def weakness(certificate: x509.Certificate) -> str:
    """What makes it too weak for the current policies (OPC 10000-7 §6.6), empty for nothing."""
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return "its key is not RSA"
    if key.key_size < KEY_BITS:
        return f"its key has {key.key_size} bits, fewer than {KEY_BITS}"
    algorithm = certificate.signature_hash_algorithm
    if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
        return f"it is signed with {algorithm.name.upper()}"
    return ""


def validity(now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """notBefore and notAfter of a certificate made at `now`: a day back, so that a server whose clock is a little behind takes it.

    A box whose clock is evidently wrong gets one that begins where the right time cannot be earlier.
    """
    begin = max(now, EARLIEST) - dt.timedelta(days=1)
    return begin, begin.replace(year=begin.year + YEARS, day=min(begin.day, 28))


def make_own(gateway: str, now: dt.datetime) -> tuple[x509.Certificate, bytes]:
    """A new key and a self-signed application certificate for it (OPC 10000-6 §6.2.2); the key as unprotected PKCS #8 PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Guantong gateway {gateway}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Guantong"),
        ]
    )
    begin, end = validity(now)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # asked for where a certificate signs itself
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_our_names(gateway)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate, text


def our_uri(gateway: str) -> str:
    """The gateway's application URI."""
    return f"urn:{_host()}:guantong:{gateway}"


def _host() -> str:
    """This machine's name with nothing in it that a URI or a DNS name cannot hold."""
    name = socket.gethostname().encode("ascii", "ignore").decode().lower()
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name).strip("-.") or "gateway"


def _our_names(gateway: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(our_uri(gateway)), x509.DNSName(_host())]
    found = set()
    try:
        interfaces = psutil.net_if_addrs()
    except OSError:
        interfaces = {}  # a sandbox without netlink: servers look at a client's URI, seldom at its addresses
    for addresses in interfaces.values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                address = ipaddress.ip_address(one.address.partition("%")[0])
                if not address.is_loopback and not address.is_link_local:
                    found.add(address)
    ordered = sorted(found, key=lambda address: (address.version, int(address)))
    return names + [x509.IPAddress(address) for address in ordered[:_MOST_ADDRESSES]]
