"""A session that its connection, or its process, has left behind on the server, and what it takes to close it.

A server keeps a session until its time-out; one with few of them refuses the next. So the next connection takes the old session over
and closes it, also after the process was killed: what that needs lies in a file, under a lock that ends with the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, nodeid_to_binary

from adapters.opcua._trust import Identity

log = logging.getLogger("guantong.opcua")

FOLDER: Final = "sessions"
"""Folder below that of the certificates; not in a backup, since a copy of the gateway must not take sessions from the original."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A session that was not closed."""

    endpoint: str
    token: Any
    """Authentication token (a NodeId)."""
    nonce: Any
    """What the server gave last to be signed."""
    policies: list[Any]
    """The token policy by which the session was activated."""
    certificate: bytes | None
    """The server's."""


class _Kept(msgspec.Struct, array_like=True):
    endpoint: str
    token: bytes
    nonce: bytes | None
    policies: list[tuple[str, int, str]]
    certificate: bytes | None


class SessionFile:
    """The file of one link's session at one endpoint, held by one process at a time. Trouble with it costs no connection."""

    def __init__(self, file: io.BufferedRandom, endpoint: str) -> None:
        self._file, self._endpoint = file, endpoint

    @classmethod
    def claim(cls, identity: Identity, endpoint: str) -> SessionFile | None:
        """None if this gateway keeps no files, or if another process holds it: then the session in it lives, and is no orphan."""
        if identity.pki is None or not identity.link or sys.platform == "win32":
            return None
        import fcntl

        name = f"{identity.link}-{hashlib.sha256(endpoint.encode()).hexdigest()[:12]}"
        path = identity.pki.folder / FOLDER / name
        try:
            _private_folder(path.parent)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
            _inherit(path)
        except OSError as error:
            log.debug("%s: sessions are not kept: %s", endpoint, error)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return cls(file, endpoint)

    def read(self) -> Orphan | None:
        """The session of a process that was killed."""
        try:
            self._file.seek(0)
            data = self._file.read()
            if not data:
                return None
            kept = msgspec.msgpack.decode(data, type=_Kept)
            token = nodeid_from_binary(Buffer(kept.token))
        except Exception as error:  # noqa: BLE001  a torn file may hold anything; the session then ends by its time-out
            log.debug("%s: the kept session cannot be read: %r", self._endpoint, error)
            return None
        policies = [
            ua.UserTokenPolicy(PolicyId=name, TokenType=ua.UserTokenType(kind), SecurityPolicyUri=uri)
            for name, kind, uri in kept.policies
        ]
        return (
            Orphan(kept.endpoint, token, kept.nonce, policies, kept.certificate)
            if kept.endpoint == self._endpoint
            else None
        )

    def write(self, orphan: Orphan) -> None:
        """Remembers the session that has just been activated."""
        policies = [(str(p.PolicyId or ""), int(p.TokenType), str(p.SecurityPolicyUri or "")) for p in orphan.policies]
        kept = _Kept(orphan.endpoint, nodeid_to_binary(orphan.token), orphan.nonce, policies, orphan.certificate)
        self._replace(msgspec.msgpack.encode(kept))

    def clear(self) -> None:
        """The session was closed."""
        self._replace(b"")

    def _replace(self, data: bytes) -> None:
        try:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(data)
            self._file.flush()
        except OSError as error:  # a full disk: then a killed process leaves its session to the time-out
            log.debug("%s: the session is not kept: %s", self._endpoint, error)

    def release(self) -> None:
        """Lets go of the file; the next connection, of whatever process, may claim it."""
        with contextlib.suppress(OSError):
            self._file.close()


def _private_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _inherit(folder)


def _inherit(path: Path) -> None:
    """`sudo guantong check` must not lock the gateway's user out."""
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid)
