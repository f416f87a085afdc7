"""The site: every page in both languages, with navigation; a dictionary of paths to bodies, served or written."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway import __version__
from gateway.api.language import Language
from gateway.documentation import markdown
from gateway.documentation.source import CHINESE, Page, Source, load, sections
from gateway.documentation.texts import TEXTS

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
_STYLE: Final = "style/docs.css"
_ICON: Final = "style/icon.svg"
_SUMMARY: Final = 180


@dataclass(frozen=True, slots=True)
class Answer:
    """What lies at a path."""

    body: bytes
    media_type: str


class Site:
    """The documentation as HTML. Paths are relative to where the site lies (`/docs/`, or a folder): `en/operating.html`,
    `zh/index.html`, `images/architecture.svg`, `style/docs.css`.

    `served`: beside the API, whose interactive documentation at `api` and page at `..` are then linked to.
    """

    def __init__(self, source: Source, *, served: bool) -> None:
        self._source = source
        self._served = served
        self._answers: dict[str, Answer] = {}
        self._summaries: dict[tuple[str, Language], str] = {}
        self._anchors: dict[str, frozenset[str]] = {}
        environment = Environment(
            loader=PackageLoader("gateway.documentation"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._page = environment.get_template("page.html")
        self._index = environment.get_template("index.html")

    def paths(self) -> list[str]:
        """Every path that has an answer."""
        names = ["index", *self._source.pages]
        return [
            *(f"{language}/{name}.html" for language in LANGUAGES for name in names),
            *self._source.files,
            _STYLE,
            _ICON,
        ]

    def names(self) -> list[str]:
        """The names of all pages: those of decisions have a slash."""
        return ["index", *self._source.pages]

    def answer(self, path: str) -> Answer | None:
        """What lies at `path`, None where nothing does. Made at the first call; may be called from any thread."""
        found = self._answers.get(path)
        if found is None:
            found = self._make(path)
            if found is not None:
                self._answers[path] = found
        return found

    def write(self, folder: Path) -> int:
        """Writes everything below `folder`, with an `index.html` that offers the languages; returns the number of files."""
        paths = self.paths()
        for path in paths:
            answer = self.answer(path)
            assert answer is not None
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(answer.body)
        choice = "".join(
            f'<p><a lang="{tag}" href="{language}/index.html">{name}</a></p>'
            for language, tag, name in (("zh", "zh-CN", "中文文档"), ("en", "en", "Documentation in English"))
        )
        (folder / "index.html").write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Guantong 贯通 {__version__}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
            f'<link rel="icon" href="{_ICON}" type="image/svg+xml"><link rel="stylesheet" href="{_STYLE}"></head><body><main><h1>Guantong 贯通 {__version__}</h1>{choice}</main></body></html>\n',
            encoding="utf-8",
        )
        return len(paths) + 1

    def _make(self, path: str) -> Answer | None:
        if path == _STYLE:
            return Answer(files("gateway.documentation").joinpath("static", "docs.css").read_bytes(), "text/css")
        if path == _ICON:
            return Answer(files("gateway.page").joinpath("static", "icon.svg").read_bytes(), "image/svg+xml")
        if path in self._source.files:
            return Answer((self._source.root / "docs" / path).read_bytes(), self._source.files[path])
        language, _, rest = path.partition("/")
        name, dot, suffix = rest.rpartition(".")
        if not dot or suffix != "html" or language not in LANGUAGES:
            return None
        shown: Language = "zh" if language == "zh" else "en"
        if name == "index":
            body = self._make_index(shown)
        elif name in self._source.pages:
            body = self._make_page(self._source.pages[name], shown)
        else:
            return None
        return Answer(body.encode(), "text/html")

    def _make_index(self, language: Language) -> str:
        entries = [
            (title.get(language), [(self._entry(page, language), self._summary(page, language)) for page in pages])
            for title, pages in sections(self._source)
        ]
        return self._index.render(
            **self._frame(language, "index", TEXTS["title"].get(language)),
            sections=entries,
        )

    def _make_page(self, page: Page, language: Language) -> str:
        shown = page.shown(language)
        made = self._render(page, language)
        contents = [heading for heading in made.headings if heading.level == 2]
        return self._page.render(
            **self._frame(language, page.name, _title(page, language)),
            sections=[
                (title.get(language), [self._entry(other, language) for other in pages])
                for title, pages in sections(self._source)
            ],
            body=made.html,
            contents=contents if len(contents) > 2 else [],
            content_tag=_tag("en" if page.bilingual else shown),
            only_english=shown != language and not page.bilingual,
        )

    def _frame(self, language: Language, name: str, title: str) -> dict[str, Any]:
        up = "../" * (1 + name.count("/"))
        return {
            "t": lambda key: TEXTS[key].get(language),
            "language": language,
            "tag": _tag(language),
            "title": title,
            "version": __version__,
            "here": name,
            "up": up,
            "style": up + _STYLE,
            "icon": up + _ICON,
            "switch": {other: f"{up}{other}/{name}.html" for other in LANGUAGES},
            "index": f"{up}{language}/index.html",
            "served": self._served,
        }

    def _entry(self, page: Page, language: Language) -> dict[str, Any]:
        shown = page.shown(language)
        return {
            "name": page.name,
            "href": f"{language}/{page.name}.html",
            "title": _title(page, language),
            "tag": _tag(language if page.bilingual else shown),
            "foreign": shown != language and not page.bilingual,
        }

    def _summary(self, page: Page, language: Language) -> str:
        key = page.name, language
        if key not in self._summaries:
            spoken = language if page.bilingual else page.shown(language)
            self._summaries[key] = _sentence(self._render(page, language).summary, chinese=spoken == "zh")
        return self._summaries[key]

    def _render(self, page: Page, language: Language) -> markdown.Document:
        source = page.sources[page.shown(language)]
        return markdown.render(
            self._source.text(source), lambda target: self._target(page, page.shown(language), language, target)
        )

    def _target(self, page: Page, written: Language, language: Language, target: str) -> str | None:
        """Where a link of `page` leads, whose source in the language `written` is shown to a reader of `language`."""
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            return target
        path, _, anchor = unquote(target).partition("#")
        if not path:
            return target
        origin = f"{language}/{page.name}.html"
        place = posixpath.normpath(posixpath.join(posixpath.dirname(page.sources[written]), path))
        if place == "docs/decisions":
            return _relative(origin, f"{language}/index.html", "decisions")
        inside = place.removeprefix("docs/")
        if place.startswith("docs/") and inside in self._source.files:
            return _relative(origin, inside, "")
        found = self._source.find(place)
        if found is None:
            return None
        other, meant = found
        # a link to the same page is the way to the other language; every other link stays in the reader's
        if other.name != page.name and meant == "en":
            meant = language
        if anchor and anchor not in self._anchors_of(other.sources[other.shown(meant)]):
            meant = found[1]
        return _relative(origin, f"{meant}/{other.name}.html", anchor)

    def _anchors_of(self, source: str) -> frozenset[str]:
        if source not in self._anchors:
            self._anchors[source] = frozenset(
                heading.anchor for heading in markdown.headings(self._source.text(source))
            )
        return self._anchors[source]


@cache
def site(*, served: bool = True) -> Site:
    """The documentation of this installation.

    Raises:
        DocumentationMissingError: it has none.
    """
    return Site(load(), served=served)


def _relative(origin: str, path: str, anchor: str) -> str:
    made = quote(posixpath.relpath(path, posixpath.dirname(origin)))
    return f"{made}#{quote(anchor)}" if anchor else made


def _tag(language: Language) -> str:
    return "zh-CN" if language == "zh" else "en"


def _title(page: Page, language: Language) -> str:
    """A page's first heading; of `Troubleshooting · 故障处理` the half in the reader's language."""
    heading = page.titles[page.shown(language)].replace("`", "")
    if page.bilingual:
        english, _, chinese = heading.partition(" · ")
        heading = (chinese or english) if language == "zh" else english
    return heading


def _sentence(text: str, *, chinese: bool) -> str:
    """The first sentence of a paragraph, shortened at a word: a single word such as *Context.* is none, and where both languages are
    spoken it is the first one of the reader's."""
    sentences = [part for part in re.split(r"(?<=[。！？])|(?<=[.!?]) ", text) if part.strip()] or [""]
    fit = [
        part for part in sentences if bool(CHINESE.search(part)) is chinese and re.search(r"\s|[^\W\d_a-zA-Z]", part)
    ]
    sentence = (fit or sentences)[0].strip().rstrip(":：")
    if len(sentence) <= _SUMMARY:
        return sentence
    return sentence[:_SUMMARY].rsplit(" ", 1)[0] + " …"
