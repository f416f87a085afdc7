"""`guantong certs`: the gateway's own OPC UA certificate, and whom it trusts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli._output import fail, say, show, told
from gateway.cli.app import ConfigOption, JsonOption, app, load

if TYPE_CHECKING:
    from cryptography import x509

    from adapters.opcua.pki import Pki

certs_app = typer.Typer(
    help="OPC UA certificates: the gateway's own, and whom it trusts.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(certs_app, name="certs")

FingerprintArgument = Annotated[
    str,
    typer.Argument(
        help="SHA-256 or SHA-1 of the certificate in hex, at least the first 8 digits; see guantong certs list."
    ),
]
_SOON = dt.timedelta(days=60)


def _pki(config: Path | None) -> Pki:
    from adapters.opcua.pki import Pki
    from gateway.config.plan import PKI

    loaded = load(config)
    return Pki(loaded.data_dir / PKI, loaded.gateway.id)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@contextmanager
def _told() -> Iterator[None]:
    from adapters.opcua.pki import PkiError

    try:
        yield
    except PkiError as error:
        fail(told(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _row(store: str, certificate: x509.Certificate, links: list[str]) -> dict[str, Any]:
    from adapters.opcua import certificates as x

    now = _now()
    end = certificate.not_valid_after_utc
    note = ""
    if now < certificate.not_valid_before_utc:
        note = say("尚未生效", "not yet valid")
    elif now > end:
        note = say("已过期", "expired")
    elif end - now < _SOON:
        note = say(f"{(end - now).days} 天后过期", f"expires in {(end - now).days} days")
    if x.is_authority(certificate):
        note = ", ".join(part for part in (say("颁发机构", "authority"), note) if part)
    return {
        "store": store,
        "name": x.common_name(certificate),
        "sha1": x.sha1(certificate),
        "sha256": x.sha256(certificate),
        "not_before": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "not_after": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "application_uri": next(iter(x.application_uris(certificate)), ""),
        "hosts": x.host_names(certificate),
        "issuer": certificate.issuer.rfc4514_string(),
        "links": links,
        "note": note,
    }


def _links_of(pki: Pki) -> dict[str, list[str]]:
    """Fingerprint -> the links that have pinned it."""
    found: dict[str, list[str]] = {}
    for link in pki.pinned_links():
        for pin in pki.pins(link).values():
            found.setdefault(pin.sha256, []).append(link)
    return found


def _rows(pki: Pki) -> list[dict[str, Any]]:
    from adapters.opcua import certificates as x
    from adapters.opcua.pki import STORES

    links = _links_of(pki)
    rows = []
    if pki.has_own:
        rows.append(_row("own", pki.own(_now()).certificate, []))
    for store in STORES:
        rows += [_row(store, k.certificate, links.get(x.sha256(k.certificate), [])) for k in pki.certificates(store)]
    return rows


@certs_app.command("list", epilog="Example: guantong certs list --json")
def list_(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the gateway's own certificate, those that are trusted, their issuers, and those that were rejected."""
    with _told():
        rows = _rows(_pki(config))
    columns = {
        "store": say("存放处", "store"), "name": say("名称", "name"), "sha1": "SHA-1", "not_after": say("有效期至", "valid until"),
        "links": say("链路", "links"), "note": say("备注", "note"),
    }  # fmt: skip
    if not json:
        for row in rows:
            row["links"] = ", ".join(row["links"])
    show(rows, columns, as_json=json)


@certs_app.command("show", epilog="Examples: guantong certs show own    guantong certs show 3f8a12c4")
def show_one(
    fingerprint: Annotated[str, typer.Argument(help="`own`, or the fingerprint of any other.")] = "own",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything in a certificate; the gateway's own is made if there is none yet."""
    pki = _pki(config)
    with _told():
        if fingerprint == "own":
            row = _row("own", pki.own(_now()).certificate, [])
        else:
            kept = pki.find(fingerprint)
            row = _row(kept.store, kept.certificate, _links_of(pki).get(kept.sha256, []))
    if json:
        show([row], {}, as_json=True)
        return
    names = {
        "store": say("存放处", "store"), "name": say("名称", "name"), "sha1": "SHA-1", "sha256": "SHA-256",
        "not_before": say("生效时间", "valid from"), "not_after": say("有效期至", "valid until"),
        "application_uri": say("应用程序 URI", "application URI"), "hosts": say("主机名", "host names"),
        "issuer": say("颁发者", "issuer"), "links": say("链路", "links"), "note": say("备注", "note"),
    }  # fmt: skip
    for key, name in names.items():
        value = row[key]
        typer.echo(f"{name:16} {', '.join(value) if isinstance(value, list) else value or '-'}")


@certs_app.command(
    epilog="Examples: guantong certs trust 3f8a12c4    guantong certs trust server.der    guantong certs trust company-ca.crl"
)
def trust(
    what: Annotated[
        str, typer.Argument(help="Fingerprint of a rejected certificate, or a file: .der, .pem, .crt, .crl.")
    ],
    issuer: Annotated[
        bool,
        typer.Option(
            "--issuer", help="An authority that only completes a chain: what it issues is not trusted by itself."
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Trust a server, or an authority and all that it issues. Links that wait for it connect within seconds."""
    pki = _pki(config)
    store: Any = "issuers" if issuer else "trusted"
    with _told():
        file = Path(what)
        if file.is_file():
            _take_in(pki, store, file)
            return
        certificate = pki.find(what).certificate
        pki.put(store, certificate)
    _done(store, certificate)


def _take_in(pki: Pki, store: Any, file: Path) -> None:
    from adapters.opcua import certificates as x

    data = file.read_bytes()
    try:
        certificate = x.read_certificate(data)
    except x.NotACertificateError as error:
        try:
            crl = x.read_crl(data)
        except x.NotACertificateError:
            fail(
                say(
                    f"{file}：不是证书，也不是吊销列表（{error}）",
                    f"{file}: neither a certificate nor a revocation list ({error})",
                )
            )
        path = pki.put_crl(store, crl)
        typer.echo(say(f"吊销列表已存入 {path}", f"the revocation list lies in {path}"))
        return
    pki.put(store, certificate)
    _done(store, certificate)


def _done(store: str, certificate: x509.Certificate) -> None:
    from adapters.opcua import certificates as x

    said = {
        "trusted": say("已信任", "trusted"),
        "issuers": say("已加入颁发机构", "kept as issuer"),
        "rejected": say("不再信任", "no longer trusted"),
    }
    typer.echo(f"{said[store]}: {x.common_name(certificate)}, SHA-1 {x.sha1(certificate)}")


@certs_app.command(epilog="Example: guantong certs reject 3f8a12c4")
def reject(fingerprint: FingerprintArgument, config: ConfigOption = None) -> None:
    """Trust a certificate no longer; an open connection stays until it is made anew."""
    pki = _pki(config)
    with _told():
        certificate = pki.find(fingerprint, ("trusted", "issuers")).certificate
        pki.put("rejected", certificate)
    _done("rejected", certificate)


@certs_app.command(epilog="Example: guantong certs remove 3f8a12c4")
def remove(fingerprint: FingerprintArgument, config: ConfigOption = None) -> None:
    """Delete a certificate, wherever it lies."""
    pki = _pki(config)
    with _told():
        kept = pki.find(fingerprint)
        pki.remove(kept)
    typer.echo(say(f"已删除 {kept.path}", f"{kept.path} is deleted"))


@certs_app.command(epilog="Example: guantong certs unpin press-1")
def unpin(link: Annotated[str, typer.Argument(help="Id of the link.")], config: ConfigOption = None) -> None:
    """Forget which protection and certificate a link has agreed on: its next connection is a first contact."""
    pki = _pki(config)
    with _told():
        there = pki.unpin(link)
        known = ", ".join(pki.pinned_links()) or "-"
    if not there:
        fail(say(f"链路 {link} 没有记录；已有：{known}", f"link {link} has pinned nothing; there is: {known}"))
    typer.echo(say(f"链路 {link} 的记录已清除", f"what link {link} had pinned is forgotten"))


@certs_app.command(epilog="Example: guantong certs renew --yes")
def renew(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, config: ConfigOption = None) -> None:
    """Make a new key and certificate for the gateway. Every server must trust the new one before the gateway gets in again."""
    pki = _pki(config)
    if not yes and not typer.confirm(
        say("所有服务器都需要重新信任新证书。继续？", "Every server must trust the new certificate. Go on?"), err=True
    ):
        raise typer.Exit(1)
    with _told():
        own = pki.renew(_now())
    from adapters.opcua import certificates as x

    typer.echo(
        say(
            f"新证书 SHA-1 {x.sha1(own.certificate)}，下次连接时启用；旧证书保留为 {own.path.name}.old",
            f"the new certificate has SHA-1 {x.sha1(own.certificate)} and is used from the next connection on; the old one is kept as "
            f"{own.path.name}.old",
        )
    )


@certs_app.command(epilog="Example: guantong certs export guantong.der")
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it: .der, or .pem and .crt as text.")] = Path(
        "guantong.der"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write the gateway's certificate, without its key, to be imported into a server; it is made if there is none yet."""
    from cryptography.hazmat.primitives.serialization import Encoding

    pki = _pki(config)
    if file.exists() and not force:
        fail(say(f"{file} 已存在；加 --force 覆盖", f"{file} exists: overwrite it with --force"))
    with _told():
        certificate = pki.own(_now()).certificate
        text = file.suffix.lower() in (".pem", ".crt")
        file.write_bytes(certificate.public_bytes(Encoding.PEM if text else Encoding.DER))
    typer.echo(say(f"已写入 {file}", f"wrote {file}"))
