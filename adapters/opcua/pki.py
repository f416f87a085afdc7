"""The gateway's certificates on disk, in the folders that OPC UA tools use (OPC 10000-12 §7.8, as one directory store each):

    own/certs        the gateway's application certificate        own/private      its key, for the gateway's user alone
    trusted/certs    servers and authorities that are trusted     trusted/crl      revocation lists of trusted authorities
    issuers/certs    authorities only needed to complete a chain  issuers/crl      their revocation lists
    rejected/certs   what was shown and not trusted               pinned           what each link has met first

A file that a person copies into one of them by hand counts as one that the command moved there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from adapters.opcua.certificates import (
    NotACertificateError,
    application_uris,
    common_name,
    der,
    make_own,
    read_certificate,
    read_crl,
    sha1,
    sha256,
)
from schemas.bilingual import Bilingual

Store = Literal["trusted", "issuers", "rejected"]
STORES: Final[tuple[Store, ...]] = ("trusted", "issuers", "rejected")
MOST_REJECTED: Final = 50
"""Rejected certificates kept; the oldest goes first, so that nobody can fill the disk with them."""
_LARGEST: Final = 1_000_000
"""Bytes of a file beyond which it is no certificate and no revocation list."""
_SHORTEST: Final = 8
"""Hex digits of a fingerprint that a person must write at least."""


class PkiError(Exception):
    """What cannot be done with the certificates, in English and Chinese."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(Bilingual(en, zh))
        self.en, self.zh = en, zh


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate in one of the stores."""

    store: Store
    path: Path
    certificate: x509.Certificate

    @property
    def sha256(self) -> str:
        """Fingerprint in hex."""
        return sha256(self.certificate)

    @property
    def sha1(self) -> str:
        """Thumbprint in hex, as OPC UA tools show it."""
        return sha1(self.certificate)


@dataclass(frozen=True, slots=True)
class Own:
    """The gateway's certificate and where its key lies."""

    certificate: x509.Certificate
    path: Path
    key: Path

    @property
    def uri(self) -> str:
        """The application URI in it."""
        return application_uris(self.certificate)[0]


class Pin(msgspec.Struct, frozen=True):
    """What a link met at an endpoint when it first came to an agreement with it; `since` in RFC 3339.

    `policy` and `mode` are empty where they are configured and not chosen. `used_for` says what the certificate protects.
    """

    policy: str
    mode: str
    sha256: str
    sha1: str
    subject: str
    since: str
    used_for: Literal["channel", "password"] = "channel"
    uri: str = ""


class Pki:
    """See the module. Reading finds what is there at that moment; nothing is kept in memory. `gateway` is the gateway's id."""

    def __init__(self, folder: Path, gateway: str) -> None:
        self.folder, self.gateway = folder, gateway

    # ------------------------------------------------------------------------------------------------- our own certificate

    @property
    def _own_certificate(self) -> Path:
        return self.folder / "own" / "certs" / "guantong.der"

    @property
    def _own_key(self) -> Path:
        return self.folder / "own" / "private" / "guantong.pem"

    @property
    def has_own(self) -> bool:
        """Whether the gateway's certificate has been made yet."""
        return self._own_key.exists()

    def own(self, now: dt.datetime) -> Own:
        """The gateway's certificate, made at the first need and never renewed by itself. Raises PkiError, OSError."""
        try:
            return self._read_own()
        except FileNotFoundError:
            pass
        with self._lock():
            try:
                return self._read_own()  # another process was quicker
            except FileNotFoundError:
                return self._make_own(now)

    def renew(self, now: dt.datetime) -> Own:
        """A new key and certificate; the old ones are kept with `.old`. Every server must trust the new one. Raises PkiError, OSError."""
        with self._lock():
            for path in (self._own_certificate, self._own_key):
                if path.exists():
                    path.replace(path.with_suffix(f"{path.suffix}.old"))
            return self._make_own(now)

    def _read_own(self) -> Own:
        if not self._own_key.exists():
            raise FileNotFoundError(self._own_key)
        try:
            certificate = read_certificate(self._own_certificate.read_bytes())
            key = serialization.load_pem_private_key(self._own_key.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise _broken(self._own_certificate, str(error)) from None
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
            raise _broken(self._own_certificate, f"the key in {self._own_key} is not this certificate's")
        if not application_uris(certificate):
            raise _broken(self._own_certificate, "its subject alternative name has no URI")
        return Own(certificate, self._own_certificate, self._own_key)

    def _make_own(self, now: dt.datetime) -> Own:
        certificate, key = make_own(self.gateway, now)
        _write(self._own_certificate, der(certificate))
        _write(self._own_key, key, private=True)  # last: without it the certificate counts as not made yet
        return Own(certificate, self._own_certificate, self._own_key)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time makes the certificate; the system gives the lock back when a process dies."""
        path = self.folder / ".lock"
        _make_folder(self.folder)
        with path.open("ab") as file:
            _inherit(path)
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --------------------------------------------------------------------------------------------------------- the stores

    def certificates(self, store: Store) -> list[Kept]:
        """What lies in a store; files that are no certificates are passed over."""
        found = []
        for path in self._files(store, "certs"):
            with contextlib.suppress(NotACertificateError, OSError):
                found.append(Kept(store, path, read_certificate(path.read_bytes())))
        return found

    def crls(self) -> list[x509.CertificateRevocationList]:
        """The revocation lists of trusted and of issuing authorities."""
        found = []
        for store in ("trusted", "issuers"):
            for path in self._files(store, "crl"):
                with contextlib.suppress(NotACertificateError, OSError):
                    found.append(read_crl(path.read_bytes()))
        return found

    def _files(self, store: str, kind: str) -> list[Path]:
        folder = self.folder / store / kind
        if not folder.is_dir():
            return []
        return sorted(
            p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.stat().st_size < _LARGEST
        )

    def find(self, fingerprint: str, stores: Iterable[Store] = STORES) -> Kept:
        """The one certificate whose SHA-256 or SHA-1 begins with `fingerprint` (hex; colons and blanks do not count). Raises PkiError."""
        wanted = re.sub(r"[:\s]", "", fingerprint).lower()
        if len(wanted) < _SHORTEST or not re.fullmatch(r"[0-9a-f]+", wanted):
            raise PkiError(
                f"{fingerprint!r} is no fingerprint: write at least {_SHORTEST} of its hex digits (guantong certs list)",
                f"{fingerprint!r} 不是指纹：请至少写出 {_SHORTEST} 位十六进制数字（guantong certs list）",
            )
        searched = list(stores)
        found = [
            k
            for s in searched
            for k in self.certificates(s)
            if k.sha256.startswith(wanted) or k.sha1.startswith(wanted)
        ]
        if not found:
            listed = ", ".join(searched)
            raise PkiError(
                f"no certificate with the fingerprint {fingerprint} in {self.folder} ({listed}); see guantong certs list, and name the "
                "gateway's configuration with --config if this is not its folder",
                f"{self.folder}（{listed}）中没有指纹为 {fingerprint} 的证书；见 guantong certs list；若不是网关的文件夹，请用 --config 指定配置",
            )
        if len({k.sha256 for k in found}) > 1:
            raise PkiError(
                f"{len(found)} certificates begin with {fingerprint}: write more of it",
                f"有 {len(found)} 个证书以 {fingerprint} 开头：请多写几位",
            )
        return found[0]

    def put(self, store: Store, certificate: x509.Certificate) -> Path:
        """Writes a certificate into a store and takes it out of the others. Where it lies. Raises OSError."""
        path = self.folder / store / "certs" / _file_name(certificate)
        already = [k for s in STORES for k in self.certificates(s) if k.certificate == certificate]
        if any(k.store == store for k in already):
            path = next(k.path for k in already if k.store == store)
            if store == "rejected":
                path.touch()
        else:
            _write(path, der(certificate))
        for kept in already:
            if kept.store != store:
                kept.path.unlink(missing_ok=True)
        if store == "rejected":
            self._bound_rejected()
        return path

    def put_crl(self, store: Literal["trusted", "issuers"], crl: x509.CertificateRevocationList) -> Path:
        """Writes a revocation list; an older one of the same authority is replaced. Raises OSError."""
        name = crl.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        path = self.folder / store / "crl" / f"{_plain(str(name[0].value) if name else 'issuer')}.crl"
        _write(path, crl.public_bytes(serialization.Encoding.DER))
        return path

    def remove(self, kept: Kept) -> None:
        """Takes a certificate away for good. Raises OSError."""
        kept.path.unlink(missing_ok=True)

    def _bound_rejected(self) -> None:
        files = sorted(self._files("rejected", "certs"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-MOST_REJECTED]:
            path.unlink(missing_ok=True)

    def stamp(self, link: str = "") -> tuple[int, ...]:
        """Changes when somebody trusts, removes or renews, or unpins the link; what is merely rejected does not count."""
        places = [self.folder / s / k for s in ("trusted", "issuers") for k in ("certs", "crl")]
        places += [self.folder / "own" / "certs", self._pin_file(link)]
        times = []
        for place in places:
            try:
                times.append(place.stat().st_mtime_ns)
            except OSError:
                times.append(0)
        return tuple(times)

    # ----------------------------------------------------------------------------------------------------------- the pins

    def pins(self, link: str) -> dict[str, Pin]:
        """What a link has pinned, by endpoint. Raises PkiError for a file that was damaged: a pin must not get lost in silence."""
        path = self._pin_file(link)
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Pin])
        except FileNotFoundError:
            return {}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise PkiError(
                f"{path}: {error}; restore it from a backup, or begin anew with: guantong certs unpin {link}",
                f"{path}：{error}；请从备份恢复，或重新开始：guantong certs unpin {link}",
            ) from None

    def pinned_links(self) -> list[str]:
        """The links that have pinned something."""
        return sorted(path.stem for path in (self.folder / "pinned").glob("*.json"))

    def set_pin(self, link: str, endpoint: str, pin: Pin) -> None:
        """Remembers what the link met at the endpoint. Raises PkiError, OSError."""
        pins = self.pins(link)
        if pins.get(endpoint) != pin:
            _write(self._pin_file(link), msgspec.json.format(msgspec.json.encode({**pins, endpoint: pin})) + b"\n")

    def unpin(self, link: str) -> bool:
        """Forgets it: the next connection is a first contact. False if there was nothing. Raises OSError."""
        path = self._pin_file(link)
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    def _pin_file(self, link: str) -> Path:
        return self.folder / "pinned" / f"{_plain(link)}.json"


def _broken(path: Path, what: str) -> PkiError:
    return PkiError(
        f"{path}: {what}; restore both files from a backup, or make new ones with: guantong certs renew",
        f"{path}：{what}；请从备份恢复证书与私钥，或重新生成：guantong certs renew",
    )


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:60].strip(".") or "unnamed"


def _file_name(certificate: x509.Certificate) -> str:
    return f"{_plain(common_name(certificate))} [{sha1(certificate).upper()}].der"


def _write(path: Path, data: bytes, *, private: bool = False) -> None:
    """At once, durably, and as root for whom the folder belongs to (`sudo guantong …` must not lock the gateway out)."""
    _make_folder(path.parent, private=private)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        _inherit(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _make_folder(folder: Path, *, private: bool = False) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700 if private else 0o755, exist_ok=True)
        _inherit(folder)


def _inherit(path: Path) -> None:
    if sys.platform != "win32" and os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid, follow_symlinks=False)
