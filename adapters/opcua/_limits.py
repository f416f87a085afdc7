"""What a server takes and can: read from the server, learned from its refusals, remembered for as long as the adapter lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from adapters.opcua._binary import DecodingError
from adapters.opcua._errors import EXPECTED, TOO_MANY, fault_name

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

READ: Final = "read"
BROWSE: Final = "browse"
TRANSLATE: Final = "translate"
MONITOR: Final = "monitor"
HISTORY: Final = "history"

LIMIT_NODES: Final[dict[str, int]] = {READ: 11705, BROWSE: 11710, TRANSLATE: 11712, MONITOR: 11714, HISTORY: 12165}
"""NodeIds of MaxNodesPerRead, …PerBrowse, …PerTranslateBrowsePathsToNodeIds, MaxMonitoredItemsPerCall, MaxNodesPerHistoryReadData
(OPC 10000-5 §6.3.11)."""
MAX_ITEMS_PER_SUBSCRIPTION: Final = 24104
"""NodeId of ServerCapabilities.MaxMonitoredItemsPerSubscription (OPC 10000-5 §6.3.2)."""

_DEFAULTS: Final[dict[str, int]] = {READ: 500, BROWSE: 100, TRANSLATE: 200, MONITOR: 500, HISTORY: 20}
"""For servers that say nothing (or 0, "no limit"): small enough for a message of 64 kB."""
_SUSPICIOUS: Final = 50
"""A connection that breaks during a call of more operations than this is taken for a refusal of its size."""


class Limits:
    """Operations per call, by kind of call."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._learned: dict[str, int] = {}
        self.transfers = True
        """Whether a transferred subscription lives: one that fell silent did not."""
        self.items_per_subscription: int | None = None
        """As the server tells or as its refusals show; None while unknown."""
        self.held: set[int] = set()
        """Points whose deadband the host was told to leave to the server."""
        self.deadbands: bool | None = None
        """Whether the server's deadband compares with the value reported last, so that it keeps slow drifts; None while unknown."""

    def tell(self, kind: str, limit: int | None) -> None:
        """What the server's OperationLimits say; 0 and None mean that it names none."""
        if limit:
            self._told[kind] = limit
        else:
            self._told.pop(kind, None)

    def of(self, kind: str) -> int:
        """How many operations the next call of this kind may have."""
        limit = min(self._told.get(kind, _DEFAULTS[kind]), 2 * _DEFAULTS[kind])
        return max(1, min(limit, self._learned.get(kind, limit)))

    def halve(self, kind: str, tried: int) -> None:
        """A call with `tried` operations was too much."""
        self._learned[kind] = max(1, min(self.of(kind), tried) // 2)

    async def calls(
        self,
        kind: str,
        items: Sequence[_Item],
        call: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result]]],
    ) -> list[_Result]:
        """`call` for all items in pieces that the server takes; the results in the order of the items.

        A piece that is refused for its size is halved and tried again. Raises what `call` raises otherwise; a connection that
        broke at a large piece is remembered as a refusal too.
        """
        results: list[_Result] = []
        while len(results) < len(items):
            piece = items[len(results) : len(results) + self.of(kind)]
            try:
                answer = await call(piece)
            except EXPECTED as error:
                too_large = fault_name(error) in TOO_MANY
                broken = isinstance(error, ConnectionError) and len(piece) > _SUSPICIOUS
                if too_large or broken:
                    self.halve(kind, len(piece))
                if too_large and len(piece) > 1 and not _fatal(error):
                    continue
                raise
            if len(answer) != len(piece):
                raise DecodingError(f"the server gave {len(answer)} results for {len(piece)} operations")
            results.extend(answer)
        return results


def _fatal(error: BaseException) -> bool:
    """Whether the server closes the connection with this error, so that trying again on it is useless (OPC 10000-6 §7.1.5)."""
    return fault_name(error) == "BadTcpMessageTooLarge"
