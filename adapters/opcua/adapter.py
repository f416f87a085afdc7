"""The OPC UA adapter: one session to one server, on which many devices may sit."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from adapters.contract import (
    BrowseNode,
    ConfigError,
    Counters,
    Item,
    LinkSpec,
    Point,
    Samples,
    TransientError,
    WritesDisabledError,
)
from adapters.opcua import _browse, _frames, _resolve
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._addresses import AddressError, UnknownNamespaceError, lacking, node_id
from adapters.opcua._conditions import Conditions
from adapters.opcua._errors import EXPECTED, translate
from adapters.opcua._limits import Limits
from adapters.opcua._link import Link
from adapters.opcua._orphans import Orphan
from adapters.opcua._redundancy import open_first
from adapters.opcua._resolve import Unresolved
from adapters.opcua._session import quiet_asyncua
from adapters.opcua._strings import UTF8, settle
from adapters.opcua._types import enumerations
from adapters.opcua.settings import DeviceSettings, LinkSettings
from schemas import status as codes
from schemas.bilingual import Bilingual
from schemas.profile import OpcUaAddress, OpcUaRules
from schemas.wire import Flag

log = logging.getLogger("guantong.opcua")

_TOTALS = ("requests", "values", "overruns")


class OpcUaAdapter:
    """See `adapters.contract.Adapter`. Values come with source times and StatusCodes; an unacknowledged notification stays at the
    server until `ack`, as long as the server keeps it."""

    protocol: ClassVar[str] = "opcua"
    LinkSettings: ClassVar[type[BaseModel]] = LinkSettings
    DeviceSettings: ClassVar[type[BaseModel]] = DeviceSettings
    Address: ClassVar[type[BaseModel]] = OpcUaAddress
    Rules: ClassVar[type[BaseModel]] = OpcUaRules

    def __init__(self, spec: LinkSpec) -> None:
        """Raises ConfigError for an address that cannot be right and for certificates that cannot be read."""
        assert isinstance(spec.settings, LinkSettings)
        self._spec = spec
        self._settings = spec.settings
        self._limits = Limits()
        self._points: dict[int, tuple[str, Point]] = {p.id: (d.id, p) for d in spec.devices for p in d.points}
        self._totals: Counter[str] = Counter()
        self._acks = Acknowledgements()
        self._lost: Link | None = None
        """The link that was lost last, while its subscriptions may still live on the server."""
        self._link: Link | None = None
        self._orphan: Orphan | None = None
        self._logged: dict[str, str] = {}
        self._conditions: dict[str, Conditions] = {}
        self._since: dict[tuple[str, str], int] = {}
        self.frames = _frames.frame_log()
        self._lock: asyncio.Lock | None = None
        for device in spec.devices:
            try:
                _resolve.check(device)
            except AddressError as error:
                raise translate(error, f"device {device.id}") from None
        self._check_files()

    def _check_files(self) -> None:
        settings, security = self._settings, self._settings.security
        named = {name: getattr(settings, name) for name in ("user_certificate", "user_key")}
        if security.policy != "none":
            named |= {f"security.{n}": getattr(security, n) for n in ("certificate", "key", "server_certificate")}
        for name, path in named.items():
            if path is None:
                continue
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigError(
                    Bilingual(
                        f"{settings.endpoint}: {name}: {path}: {error.strerror}",
                        f"{settings.endpoint}：{name}：{path}：{error.strerror}",
                    ),
                    reason="certificate_missing",
                    fix_en="Put the file there, readable for the gateway's user, or correct the path.",
                    fix_zh="请将文件放到该路径并保证网关用户可读，或修正路径。",
                ) from None

    # ---------------------------------------------------------------------------------------------- connect, disconnect

    def resume(self, since: Mapping[tuple[str, str], int]) -> None:
        """See `adapters.contract.Resumable`: the next session fills these outages from the server's history, where it keeps one."""
        self._since = dict(since)

    async def connect(self) -> None:
        """Opens the session and subscribes everything; see the contract."""
        quiet_asyncua()
        async with self._mutex():
            await self._close()
            tried: list[Link] = []

            def made(endpoint: str) -> Link:
                orphan = self._orphan if self._orphan is not None and self._orphan.endpoint == endpoint else None
                lost = (
                    self._lost if self._lost is not None and self._lost.session.settings.endpoint == endpoint else None
                )
                link = Link(
                    self._spec,
                    self._settings.at(endpoint),
                    self._limits,
                    self._count,
                    orphan,
                    self._logged,
                    self._since,
                    self._acks,
                    lost,
                )
                link.monitored.conditions = self._conditions
                link.session.frames, link.session.now = self.frames, self._spec.clock.now
                self.frames.note(self._spec.clock.now(), f"connecting to {endpoint}")
                tried.append(link)
                return link

            try:
                link = await open_first(self._settings.endpoints, made)
            except EXPECTED as error:
                self.frames.note(self._spec.clock.now(), f"not connected: {error}")
                raise self._translated(error) from error
            finally:
                self._orphan = next((one.session.orphan for one in tried if one.session.orphan is not None), None)
            self._link, self._lost = link, None

    async def disconnect(self) -> None:
        """Closes the session, its subscriptions with it; the iteration ends after what has already come."""
        async with self._mutex():
            await self._close()

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
            self._orphan = link.session.orphan
            self._lost = link if link.resumable else None
            if link.transferred and getattr(link.outlet.error, "reason", "") == "subscription_silent":
                self._limits.transfers = False

    def _mutex(self) -> asyncio.Lock:
        # made here, since the constructor may run without an event loop and a host may use another one later
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    def _translated(self, error: BaseException) -> Exception:
        translated = translate(error, self._settings.endpoint)
        self._count(translated.reason, 1)
        return translated

    # ------------------------------------------------------------------------------------------------------ iterating

    async def items(self) -> AsyncIterator[Item]:
        """Yields what the server sends; ends at `disconnect`, raises TransientError or AuthError when the link is lost."""
        link = self._link
        if link is None:
            raise self._not_connected()
        while (item := await self._next(link)) is not None:
            yield item

    async def _next(self, link: Link) -> Item | None:
        try:
            return await link.outlet.get()
        except ConfigError as error:  # what was right when we connected is weather now
            raise TransientError(str(error), reason=error.reason, fix_en=error.fix_en, fix_zh=error.fix_zh) from error

    def ack(self, token: Hashable) -> None:
        """Acknowledges to the server, with the next PublishRequest, what the item with this token came with."""
        self._acks.ack(token)

    # ------------------------------------------------------------------------------------------ read, write and browse

    async def read(self, points: Sequence[int]) -> Samples:
        """Reads the points, which belong to one device, within the server's limits. A refused one is a bad row."""
        link = self._connected()
        known = [self._points[point] for point in points]
        device = known[0][0] if known else ""
        group = known[0][1].group if known else ""
        nodes = [link.node_of(point) for point in points]
        wanted = [i for i, node in enumerate(nodes) if node is not None and not isinstance(node, Unresolved)]
        try:
            rows = await link.session.read([nodes[i] for i in wanted])
        except EXPECTED as error:
            raise self._weather(error) from error
        received = self._spec.clock.now()
        read = dict(zip(wanted, rows, strict=True))
        values: list[Any] = []
        source_ts: list[int | None] = []
        status: list[int] = []
        flags: list[int] = []
        for i, node in enumerate(nodes):
            if i in read:
                value, code, source, server = read[i]
                values.append(value)
                status.append(code)
                source_ts.append(source if source is not None else server)
                flags.append(0 if source is not None else int(Flag.NO_SOURCE_TIME))
            else:
                values.append(None)
                status.append(node.status if isinstance(node, Unresolved) else codes.BAD_NODE_ID_UNKNOWN)
                source_ts.append(None)
                flags.append(0)
        samples = Samples(device, group, received, list(points), values, source_ts, status, flags)
        spec = next((each for each in self._spec.devices if each.id == device), None)
        settle(samples, UTF8 if spec is None else _resolve.rules_of(spec).encoding)
        return samples

    async def write(self, point: int, value: Any) -> None:
        """Raises WritesDisabledError: this version only reads."""
        device, known = self._points[point]
        raise WritesDisabledError(f"device {device}: signal {known.signal}")

    async def browse(self, node: str | None = None, *, depth: int = 1) -> AsyncIterator[BrowseNode]:
        """The server's nodes below `node` (a NodeId; the Objects folder by default), level by level, with types and values."""
        session = self._connected().session
        prefixes = {uri: name for d in self._spec.devices for name, uri in _resolve.rules_of(d).namespaces.items()}
        try:
            start = _browse.OBJECTS if node is None else node_id(node, session.namespaces)
            async for found in _browse.walk(session, start, depth, prefixes, enumerations):
                yield found
        except UnknownNamespaceError as error:
            raise translate(lacking(node, error), self._settings.endpoint) from None
        except AddressError as error:
            raise translate(error, self._settings.endpoint) from None
        except EXPECTED as error:
            raise self._weather(error) from error

    # ---------------------------------------------------------------------------------------------------------- telling

    def endpoint(self, device: str) -> str:
        """The endpoint URL, which holds no secrets; of redundant servers the one that is used."""
        return self._link.session.settings.endpoint if self._link is not None else self._settings.endpoint

    def counters(self) -> Counters:
        """Requests sent, values received, values that did not fit, and faults by name."""
        errors = {name: n for name, n in self._totals.items() if name not in _TOTALS and n}
        return Counters(self._totals["requests"], errors, self._totals["overruns"], self._totals["values"])

    def _count(self, what: str, n: int) -> None:
        self._totals[what] += n

    def _connected(self) -> Link:
        if self._link is None:
            raise self._not_connected()
        return self._link

    def _not_connected(self) -> TransientError:
        return TransientError(
            Bilingual(f"{self._settings.endpoint}: not connected", f"{self._settings.endpoint}：未连接"),
            reason="not_connected",
            fix_en="The gateway is connecting; its state says what is in the way.",
            fix_zh="网关正在连接，请查看其状态了解原因。",
        )

    def _weather(self, error: BaseException) -> Exception:
        """A fault of one call on an open link: the host may try again, whatever it was."""
        translated = self._translated(error)
        if isinstance(translated, ConfigError):
            return TransientError(
                str(translated), reason=translated.reason, fix_en=translated.fix_en, fix_zh=translated.fix_zh
            )
        return translated
