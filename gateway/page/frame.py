"""The frame of the page, rendered on the server, and the files beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway import __version__
from gateway.api.language import Language
from gateway.page.texts import HTML_TEXTS, SCRIPT_TEXTS
from schemas.modbus import LAYOUTS, STORED_AS, LongOrder, ModbusType, Order

_TYPES: Final = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

VIEWS: Final = ("devices", "values", "trend", "happenings", "completeness", "connect", "tables", "changes", "wall")
"""The views, in the order of the navigation. Each has a template `_NAME.html`, a module `static/NAME.js` and the text `view_NAME`."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that the page needs: its content and its media type."""

    body: bytes
    media_type: str


@cache
def assets() -> dict[str, Asset]:
    """The files of the page by their names. Read once for a process."""
    found = {}
    for file in sorted(files("gateway.page").joinpath("static").iterdir(), key=lambda item: item.name):
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = Asset(file.read_bytes(), kind)
    return found


_NEEDS: Final = {
    "string": "length", "bytes": "length", "int8": "byte", "uint8": "byte", "datetime": "layout",
}  # fmt: skip
"""Type of registers -> what else has to be said of them."""


@cache
def digest() -> str:
    """Hash of all files (12 hex digits). It stands in their URL, so that browsers keep them for as long as they are the same."""
    total = hashlib.sha256()
    for name, asset in assets().items():
        total.update(f"{name} {len(asset.body)}\n".encode())
        total.update(asset.body)
    return total.hexdigest()[:12]


@cache
def render(language: Language) -> str:
    """The HTML of the frame in one language. Its links are relative to `/`."""
    environment = Environment(
        loader=PackageLoader("gateway.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def text(name: str) -> str:
        return HTML_TEXTS[name].get(language) if name in HTML_TEXTS else SCRIPT_TEXTS[name].get(language)

    return environment.get_template("page.html").render(
        t=text,
        language=language,
        tag="zh-CN" if language == "zh" else "en",
        views=VIEWS,
        version=__version__,
        assets=f"page/{digest()}",
        modules=[name for name in assets() if name.endswith(".js")],
        texts={name: words.get(language) for name, words in SCRIPT_TEXTS.items()},
        types=[(name, STORED_AS.get(name, name), _NEEDS.get(name, "")) for name in get_args(ModbusType)],
        orders=(*get_args(Order), *get_args(LongOrder)),
        layouts=list(LAYOUTS),
    )
