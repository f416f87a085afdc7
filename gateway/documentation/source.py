"""Where the documentation lies, which pages it has, and in which languages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.api.language import Language, Words

_SHIPPED: Final = Path(__file__).with_name("pages")
"""In the wheel; `pyproject.toml` puts it there."""
_CHECKOUT: Final = Path(__file__).parents[2]

_OUTSIDE: Final = {"deploy/README.md": "deployment", "CHANGELOG.md": "changelog"}
"""Pages whose English does not lie in docs/, and their names; their Chinese lies in docs/zh/ under that name."""
_FILES: Final = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".py": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""What else ships below docs/: suffix -> media type."""

SECTIONS: Final[tuple[tuple[Words, tuple[str, ...]], ...]] = (
    (Words("Begin", "入门"), ("quick-start", "first-hour", "offline", "page")),
    (
        Words("Connect machines", "接入设备"),
        ("opcua", "modbus", "profiles", "points", "discover-modbus", "configuration", "apply", "setup-api"),
    ),
    (
        Words("Run", "运行与维护"),
        ("operating", "completeness", "reliability", "troubleshooting", "diagnosis", "clock", "backup", "deployment"),
    ),
    (Words("How it works", "原理与开发"), ("architecture", "wire-format", "writing-an-adapter", "changelog")),
)
"""The order of the navigation. A page that stands here and is not there is left out; one that is there and stands nowhere comes under `MORE`."""
MORE: Final = Words("More", "其他")
DECISIONS: Final = Words("Why it is so: decisions", "设计决策记录")

CHINESE: Final = re.compile("[\u4e00-\u9fff]")
"""A Chinese character."""
_HEADING: Final = re.compile(r"^# (.+)$", re.MULTILINE)


class DocumentationMissingError(Exception):
    """The pages are neither beside this package nor in a checkout around it."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `name` is its place below a language, such as `operating` or `decisions/0004-page`."""

    name: str
    sources: dict[Language, str]
    """Language -> path below the root, with slashes. English is always there."""
    titles: dict[Language, str]
    """Language -> first heading, as it is written."""

    def shown(self, language: Language) -> Language:
        """The language in which a reader of `language` gets the page."""
        return language if language in self.sources else "en"

    @property
    def bilingual(self) -> bool:
        """True when the one source speaks both languages, as its heading shows."""
        return CHINESE.search(self.titles["en"]) is not None


@dataclass(frozen=True, slots=True)
class Source:
    """All that there is below `root`."""

    root: Path
    pages: dict[str, Page]
    files: dict[str, str]
    """Path below docs/ -> media type, of images and examples."""

    def text(self, path: str) -> str:
        """The Markdown of a source."""
        return (self.root / path).read_text(encoding="utf-8")

    def find(self, path: str) -> tuple[Page, Language] | None:
        """The page whose source lies at `path` below the root, and the language of that source."""
        for page in self.pages.values():
            for language, source in page.sources.items():
                if source == path:
                    return page, language
        return None


@cache
def load(root: Path | None = None) -> Source:
    """The documentation below `root`, by default that of this installation.

    Raises:
        DocumentationMissingError: there is none.
    """
    if root is None:
        root = _SHIPPED if _SHIPPED.is_dir() else _CHECKOUT
    docs = root / "docs"
    if not (docs / "quick-start.md").is_file():
        raise DocumentationMissingError(str(docs))
    sources: dict[str, dict[Language, str]] = {}
    for file in sorted(docs.rglob("*.md")):
        path = PurePosixPath(file.relative_to(docs).as_posix())
        language: Language = "zh" if path.parts[0] == "zh" else "en"
        name = (path.relative_to("zh") if language == "zh" else path).with_suffix("").as_posix()
        sources.setdefault(name, {})[language] = f"docs/{path}"
    for outside, name in _OUTSIDE.items():
        if (root / outside).is_file():
            sources.setdefault(name, {})["en"] = outside
    pages = {}
    for name, languages in sources.items():
        if "en" not in languages:
            continue
        titles: dict[Language, str] = {}
        for language, source in languages.items():
            heading = _HEADING.search((root / source).read_text(encoding="utf-8"))
            titles[language] = heading[1].strip() if heading else name
        pages[name] = Page(name, languages, titles)
    files = {
        file.relative_to(docs).as_posix(): _FILES[file.suffix]
        for file in sorted(docs.rglob("*"))
        if file.suffix in _FILES and file.is_file()
    }
    return Source(root, pages, files)


def sections(source: Source) -> list[tuple[Words, list[Page]]]:
    """The pages in the order of the navigation, each once."""
    listed = {name for _, names in SECTIONS for name in names}
    made = [(title, [source.pages[name] for name in names if name in source.pages]) for title, names in SECTIONS]
    decisions = [page for name, page in source.pages.items() if name.startswith("decisions/")]
    more = [page for name, page in source.pages.items() if name not in listed and page not in decisions]
    return [(title, pages) for title, pages in [*made, (MORE, more), (DECISIONS, decisions)] if pages]
