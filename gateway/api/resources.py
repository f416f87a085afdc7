"""Assets, devices and signals: what the workshop consists of."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cursors, shapes
from gateway.api.catalog import Catalog, public_id
from gateway.api.context import ROOT, Api, answer, etag_of, language_of, next_link
from gateway.api.language import Language, Words
from gateway.api.parameters import AssetQuery, ConnectionQuery, DeviceQuery, OneQuery, SignalQuery
from gateway.api.problems import not_found
from gateway.api.reasons import explain
from gateway.store.records import AssetRecord, Connection, DeviceRecord, Revision, SignalRecord
from schemas.times import to_rfc3339

DevicePath = Annotated[str, Path(description="A device's id.", examples=["imm-01"])]
NamePath = Annotated[
    str, Path(description="A signal's name; its slashes stand in the URL as they are.", examples=["cycle/last_time"])
]


def time_of(us: int | None) -> str | None:
    """RFC 3339, or None."""
    return None if us is None else to_rfc3339(us)


def routes(api: Api) -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix=ROOT)

    # ------------------------------------------------------------------------------------------------------- assets

    @router.get("/assets", name="assets", tags=["Workshop"])
    async def assets(request: Request, query: Annotated[AssetQuery, Query()]) -> Response:
        """The assets, as a list or as a tree."""
        catalog, language = api.catalog(), language_of(request, query)
        if query.parent:
            api.check(assets=[query.parent])
        etag = etag_of("assets", catalog.digest, query, language)
        top = catalog.children.get(query.parent or None, [])
        if query.view == "tree":
            return answer(request, shapes.AssetTree(_nodes(catalog, top, language)), language, etag=etag)
        wanted = sorted(catalog.assets) if query.parent is None else sorted(top)
        items = [_asset(catalog, catalog.assets[name], language) for name in wanted]
        return answer(request, shapes.Assets(items), language, etag=etag)

    @router.get("/assets/{asset}", name="asset", tags=["Workshop"])
    async def asset(
        request: Request,
        asset: Annotated[str, Path(description="An asset's id.", examples=["imm"])],
        query: Annotated[OneQuery, Query()],
    ) -> Response:
        """One asset, with its children and its signals."""
        catalog, language = api.catalog(), language_of(request, query)
        record = catalog.assets.get(asset)
        if record is None:
            raise not_found(Words("the asset", "资产"), asset, catalog.nearest_assets(asset))
        plain = _asset(catalog, record, language)
        signals = [name for name in catalog.ordered if catalog.signals[catalog.by_name[name]].asset == asset]
        detail = shapes.AssetDetail(
            **{name: getattr(plain, name) for name in plain.__struct_fields__},
            children=sorted(catalog.children.get(asset, [])),
            signals=[name for name in signals if not catalog.signals[catalog.by_name[name]].retired],
        )
        return answer(request, detail, language, etag=etag_of("asset", catalog.digest, asset, language))

    # ------------------------------------------------------------------------------------------------------ devices

    @router.get("/devices", name="devices", tags=["Workshop"])
    async def devices(request: Request, query: Annotated[DeviceQuery, Query()]) -> Response:
        """The devices, with their state, its reason, and what a person can do."""
        catalog, language = api.catalog(), language_of(request, query)
        api.check(assets=query.asset)
        below = catalog.below(query.asset) if query.asset else None
        after = cursors.load(query.cursor, cursors.NameCursor).after if query.cursor else ""
        found: list[shapes.Device] = []
        more = None
        for name in sorted(catalog.devices):
            record = catalog.devices[name]
            if name <= after or (below is not None and record.asset not in below):
                continue
            if record.retired and not (query.retired or query.state == "retired"):
                continue
            if query.state is not None and api.live.view(record).state != query.state:
                continue
            if len(found) == query.limit:
                more = next_link(request, cursors.NameCursor(found[-1].id))
                break
            found.append(_device(api, catalog, record, language))
        etag = etag_of("devices", found, more)
        return answer(request, shapes.Devices(found, more), language, next=more, etag=etag)

    def known_device(name: str) -> DeviceRecord:
        catalog = api.catalog()
        record = catalog.devices.get(name)
        if record is None:
            raise not_found(Words("the device", "设备"), name, catalog.nearest_devices(name))
        return record

    @router.get("/devices/{device}", name="device", tags=["Workshop"])
    async def device(request: Request, device: DevicePath, query: Annotated[OneQuery, Query()]) -> Response:
        """One device: who it is, how it is, and when it was last seen."""
        language = language_of(request, query)
        item = _device(api, api.catalog(), known_device(device), language)
        return answer(request, item, language, etag=etag_of("device", item))

    @router.get("/devices/{device}/connections", name="connections", tags=["Workshop"])
    async def connections(request: Request, device: DevicePath, query: Annotated[ConnectionQuery, Query()]) -> Response:
        """The intervals in which the device was not connected, the newest first."""
        language = language_of(request, query)
        known_device(device)
        start, end = api.bounds(query.start, query.end)
        order, after = query.order, None
        if query.cursor:
            cursor = cursors.load(query.cursor, cursors.ConnectionCursor)
            start, end, after = cursor.start, cursor.end, (cursor.ts, cursor.id)
            if cursor.order != order:
                raise cursors.bad_cursor(query.cursor)
        rows = await api.ask(
            lambda: api.reader.connections(device, start, end, limit=query.limit + 1, after=after, order=order)
        )
        more = None
        if len(rows) > query.limit:
            rows = rows[: query.limit]
            more = next_link(request, cursors.ConnectionCursor(order, start, end, rows[-1].start, rows[-1].id))
        items = [interval(row, language) for row in rows]
        return answer(request, shapes.Intervals(items, more), language, next=more)

    # ------------------------------------------------------------------------------------------------------ signals

    @router.get("/signals", name="signals", tags=["Workshop"])
    async def signals(request: Request, query: Annotated[SignalQuery, Query()]) -> Response:
        """The signals: type, unit, meaning."""
        catalog, language = api.catalog(), language_of(request, query)
        etag = etag_of("signals", catalog.digest, query, language)
        numbers = api.select(query, match=query.match, retired=query.retired)
        if query.cursor:
            numbers = tuple(catalog.after(numbers, cursors.load(query.cursor, cursors.NameCursor).after))
        text = query.q.casefold() if query.q else ""
        found: list[SignalRecord] = []
        more = None
        for number in numbers:
            record = catalog.signals[number]
            if query.kind and record.kind not in query.kind:
                continue
            if text and text not in _searchable(record):
                continue
            if len(found) == query.limit:
                more = next_link(request, cursors.NameCursor(public_id(found[-1])))
                break
            found.append(record)
        items = [_signal(catalog, record, language) for record in found]
        return answer(request, shapes.Signals(items, more), language, next=more, etag=etag)

    @router.get("/signals/{number:int}", name="signal_by_number", tags=["Workshop"])
    async def signal_by_number(
        request: Request, number: Annotated[int, Path(ge=0, examples=[1])], query: Annotated[OneQuery, Query()]
    ) -> Response:
        """One signal, by the store's number of it."""
        return signal_answer(api, request, api.signal(str(number)), language_of(request, query))

    @router.get("/signals/{device}/{name:path}", name="signal", tags=["Workshop"])
    async def signal(
        request: Request, device: DevicePath, name: NamePath, query: Annotated[OneQuery, Query()]
    ) -> Response:
        """One signal: what its numbers mean, now and in its earlier revisions."""
        return signal_answer(api, request, api.signal(f"{device}/{name}"), language_of(request, query))

    return router


def _nodes(catalog: Catalog, names: list[str], language: Language) -> list[shapes.AssetNode]:
    """The trees below these assets. The catalogue has no circles."""
    found = []
    for name in sorted(names):
        plain = _asset(catalog, catalog.assets[name], language)
        children = _nodes(catalog, catalog.children.get(name, []), language)
        found.append(
            shapes.AssetNode(**{key: getattr(plain, key) for key in plain.__struct_fields__}, children=children)
        )
    return found


def _asset(catalog: Catalog, record: AssetRecord, language: Language) -> shapes.Asset:
    path = catalog.path(record.id)
    return shapes.Asset(
        record.id, Words(record.name_en, record.name_zh).get(language) or record.id, record.level,
        path[-2] if len(path) > 1 else None, path, catalog.devices_of.get(record.id, []), record.gateway,
    )  # fmt: skip


def _device(api: Api, catalog: Catalog, record: DeviceRecord, language: Language) -> shapes.Device:
    view = api.live.view(record)
    reason = explain(view.reason) if view.reason else None
    signals = catalog.signals_of.get(record.id, [])
    return shapes.Device(
        id=record.id,
        name=Words(record.name_en, record.name_zh).get(language) or record.id,
        asset=record.asset,
        gateway=record.gateway,
        protocol=record.protocol,
        profile=record.profile,
        endpoint=record.endpoint,
        identity=record.identity or {},
        signals=sum(not catalog.signals[number].retired for number in signals),
        state=view.state,
        reason=view.reason,
        text="" if reason is None else reason.text.get(language),
        fix="" if reason is None else reason.fix.get(language),
        since=time_of(view.since),
        last_seen=time_of(api.live.last_seen(record.id)),
        born_at=to_rfc3339(record.born_at),
        changed_at=to_rfc3339(record.changed_at),
    )


def interval(row: Connection, language: Language) -> shapes.Interval:
    """An interval without connection, for people."""
    reason = explain(row.reason)
    return shapes.Interval(
        row.device,
        to_rfc3339(row.start),
        time_of(row.end),
        row.reason,
        reason.text.get(language),
        reason.fix.get(language),
    )


def _searchable(record: SignalRecord) -> str:
    return f"{record.device}/{record.name}\n{record.description_en}\n{record.description_zh}".casefold()


def history_url(catalog: Catalog, record: SignalRecord) -> str:
    """The URL of a signal's history, relative to the host; by number where another signal's name ends with `history`."""
    path = f"{ROOT}/signals/{public_id(record)}/history"
    return f"{ROOT}/signals/{record.id}/history" if f"{public_id(record)}/history" in catalog.by_name else path


def _texts(enum: dict[int, tuple[str, str]] | None, language: Language) -> list[shapes.EnumText] | None:
    if enum is None:
        return None
    return [shapes.EnumText(number, Words(en, zh).get(language)) for number, (zh, en) in sorted(enum.items())]


def _signal(catalog: Catalog, record: SignalRecord, language: Language) -> shapes.Signal:
    return shapes.Signal(
        id=public_id(record),
        number=record.id,
        device=record.device,
        name=record.name,
        asset=record.asset,
        kind=record.kind,
        type=record.type,
        unit=record.unit,
        description=Words(record.description_en, record.description_zh).get(language),
        enum=_texts(record.enum, language),
        range=record.range,
        counter=record.counter,
        semantic_id=record.semantic_id,
        retired=record.retired,
        history=history_url(catalog, record),
    )


def revision(item: Revision, language: Language) -> shapes.SignalRevision:
    """A revision, for people."""
    return shapes.SignalRevision(
        to_rfc3339(item.valid_from), item.revision, item.type, item.unit, item.kind, item.scale, item.offset, item.address,
        _texts(item.enum, language), item.counter,
    )  # fmt: skip


def signal_answer(api: Api, request: Request, record: SignalRecord, language: Language) -> Response:
    """The answer about one signal."""
    catalog = api.catalog()
    etag = etag_of("signal", catalog.digest, record.id, language)
    return answer(request, _signal_detail(catalog, record, language), language, etag=etag)


def _signal_detail(catalog: Catalog, record: SignalRecord, language: Language) -> shapes.SignalDetail:
    plain = _signal(catalog, record, language)
    return shapes.SignalDetail(
        **{name: getattr(plain, name) for name in plain.__struct_fields__},
        group=record.group,
        deadband=record.deadband,
        silence=record.silence,
        born_at=to_rfc3339(record.born_at),
        revisions=[revision(item, language) for item in record.revisions],
    )
