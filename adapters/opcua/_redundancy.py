"""Redundant servers (OPC 10000-4 §6.6.2): several endpoints for one link, of which one is used.

They are tried in the order of the configuration. A server whose ServiceLevel is 200 or more is healthy and taken at once; of others the
one with the highest level is taken. What the servers tell of each other (ServerUriArray) is a hint for people and nothing else: an
endpoint that nobody configured is not connected to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from asyncua import ua

from adapters.contract import AdapterError, AuthError, TransientError
from adapters.opcua._errors import EXPECTED, translate
from adapters.opcua._session import STATE, Session
from schemas.bilingual import Bilingual, chinese, of_error

log = logging.getLogger("guantong.opcua")

HEALTHY: Final = 200
"""ServiceLevel from which a server is healthy (OPC 10000-4 §6.6.2.4.2, table of ServiceLevel ranges)."""
SHUTDOWN: Final = 4
_SERVICE_LEVEL: Final = 2267
_SUPPORT: Final = 3709
_URIS: Final = 11314
"""Nodes of the Server object (OPC 10000-5 §6.3.1, §6.3.7)."""
_UNKNOWN: Final = 255
"""What a server without a ServiceLevel counts as: it is not redundant, and all that there is."""


class LowServiceLevel(TransientError):
    """The server is not healthy; `level` says how much it is worth."""

    def __init__(self, where: str, level: int) -> None:
        super().__init__(
            Bilingual(f"{where}: the server's service level is {level}", f"{where}：服务器的服务级别为 {level}"),
            reason="service_level_low",
            fix_en="Look into the server's own diagnostics; the gateway takes another of the redundant servers if one is better.",
            fix_zh="请查看服务器自身的诊断信息；若其他冗余服务器更好，网关会自动切换。",
        )
        self.level = level


class Opened(Protocol):
    """What is opened at an endpoint."""

    async def open(self, least: int = 0) -> None:
        """Raises LowServiceLevel below `least`; leaves nothing open when it raises."""


T = TypeVar("T", bound=Opened)


async def service_level(session: Session) -> int:
    """The server's ServiceLevel, 0 while it is shutting down."""
    level, state = await session.read([ua.NodeId(_SERVICE_LEVEL), ua.NodeId(STATE)])
    if state[0] == SHUTDOWN:
        return 0
    return level[0] if isinstance(level[0], int) and not level[1] >> 31 else _UNKNOWN


async def open_first(endpoints: Sequence[str], make: Callable[[str], T]) -> T:
    """Opens what `make` makes for an endpoint, at the first that is healthy, else at the best.

    Raises asyncua's and the network's errors for a single endpoint, an AdapterError for several.
    """
    if len(endpoints) == 1:
        only = make(endpoints[0])
        await only.open()
        return only
    failed: list[AdapterError] = []
    low: dict[str, int] = {}
    for endpoint in endpoints:
        one = make(endpoint)
        try:
            await one.open(HEALTHY)
        except LowServiceLevel as error:
            low[endpoint] = error.level
        except EXPECTED as error:
            failed.append(translate(error, endpoint))
        except AdapterError as error:
            failed.append(error)
        else:
            return one
    for endpoint in sorted(low, key=lambda e: -low[e]):
        one = make(endpoint)
        try:
            await one.open()
        except EXPECTED as error:
            failed.append(translate(error, endpoint))
        except AdapterError as error:
            failed.append(error)
        else:
            return one
    raise _together(failed)


def _together(failed: list[AdapterError]) -> AdapterError:
    """One error for all endpoints: one that may pass by itself, if there is any, since then trying on is right."""
    first = next((e for e in failed if isinstance(e, TransientError)), failed[0])
    text = Bilingual("; ".join(str(e) for e in failed), "；".join(chinese(of_error(e)) for e in failed))
    if isinstance(first, TransientError):
        return TransientError(
            text, reason=first.reason, fix_en=first.fix_en, fix_zh=first.fix_zh, retry_after=first.retry_after
        )
    cured = [e.cured for e in failed if isinstance(e, AuthError) and e.cured is not None]
    if cured or isinstance(first, AuthError):
        return AuthError(
            text, reason=first.reason, fix_en=first.fix_en, fix_zh=first.fix_zh, details=first.details,
            cured=(lambda: any(one() for one in cured)) if cured else None,
        )  # fmt: skip
    return type(first)(text, reason=first.reason, fix_en=first.fix_en, fix_zh=first.fix_zh, details=first.details)


async def better(level: int, others: Sequence[str], session: Callable[[str], Session]) -> str | None:
    """An endpoint among `others` whose server has a higher ServiceLevel; each is asked over a session of its own, which is closed."""
    best: tuple[int, str | None] = (level, None)
    for endpoint in others:
        probe = session(endpoint)
        try:
            await probe.open()
            best = max(best, (await service_level(probe), endpoint), key=lambda pair: pair[0])
        except (AdapterError, *EXPECTED) as error:
            log.debug("%s: no better server: %s", endpoint, error)
        finally:
            await probe.close()
    return best[1]


async def partners(session: Session) -> list[str]:
    """The application URIs of the servers that this one says it is redundant with; empty if it says nothing."""
    support, uris = await session.read([ua.NodeId(_SUPPORT), ua.NodeId(_URIS)])
    told: Any = uris[0]
    if not isinstance(support[0], int) or support[0] == 0 or not isinstance(told, list):
        return []
    return [str(uri) for uri in told if isinstance(uri, str)]
