"""Markdown to HTML: CommonMark with tables, headings with anchors as GitHub makes them, links as the caller wants them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_WIDE: Final = re.compile("[\u2014\u201c\u201d\u2026\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
"""A Chinese character or its punctuation."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its level (1 to 6), its anchor, its text."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """What a page's Markdown becomes."""

    html: str
    headings: tuple[Heading, ...]
    summary: str
    """The text of the first paragraph."""


def render(text: str, link: Callable[[str], str | None]) -> Document:
    """The document. `link` turns the target of a link or an image, as it is written, into the URL of the answer; None when
    there is nothing to lead to: the link's text then stays without the link."""
    parser = _parser()
    tokens = parser.parse(text)
    headings = _number(tokens)
    summary = ""
    for before, token in pairwise(tokens):
        if token.type == "inline":
            _lead(token.children or [], link)
            _close_up(token.children or [])
            if not summary and before.type == "paragraph_open" and before.level == 0:
                summary = _plain(token)
    html = parser.renderer.render(tokens, parser.options, {})
    return Document(html, tuple(headings), summary)


def headings(text: str) -> tuple[Heading, ...]:
    """The headings of a Markdown text."""
    return tuple(_number(_parser().parse(text)))


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}, renderer_cls=_Html).enable(["table", "strikethrough"])


def _number(tokens: Sequence[Token]) -> list[Heading]:
    """Gives each heading its anchor: a second one of the same text gets `-1`, the next `-2`."""
    found: list[Heading] = []
    given: dict[str, int] = {}
    for token, inner in pairwise(tokens):
        if token.type != "heading_open":
            continue
        plain = _plain(inner)
        name = anchor(plain)
        times = given[name] = given.get(name, -1) + 1
        name = f"{name}-{times}" if times else name
        token.attrSet("id", name)
        found.append(Heading(int(token.tag[1]), name, plain))
    return found


def _plain(inline: Token) -> str:
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in inline.children or []
        if child.type in ("text", "code_inline", "softbreak", "hardbreak")
    )


def _lead(children: list[Token], link: Callable[[str], str | None]) -> None:
    """Rewrites the targets of links and images in place."""
    open_links: list[Token] = []
    for child in children:
        if child.type == "image":
            child.attrSet("src", link(str(child.attrGet("src"))) or "")
        elif child.type == "link_open":
            open_links.append(child)
            target = link(str(child.attrGet("href")))
            if target is None:
                child.tag, child.attrs = "span", {"class": "elsewhere"}
            else:
                child.attrSet("href", target)
        elif child.type == "link_close":
            child.tag = open_links.pop().tag


def _close_up(children: list[Token]) -> None:
    """Takes out the line breaks of the source between two Chinese characters, which a browser would show as spaces."""
    shown = [child for child in children if child.type == "softbreak" or child.content]
    for before, token, after in zip(shown, shown[1:], shown[2:], strict=False):
        if token.type == "softbreak" and _WIDE.search(before.content[-1:]) and _WIDE.search(after.content[:1]):
            token.type = "text"


class _Html(RendererHTML):
    """Wide things scroll in themselves, headings can be linked to, and HTML in the source is text: only its comments go."""

    def heading_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        opened = tokens[idx - 2]
        name = escape(str(opened.attrGet("id")))
        mark = "" if opened.tag == "h1" else f' <a class="anchor" href="#{name}" aria-hidden="true" tabindex="-1">#</a>'
        return f"{mark}</{opened.tag}>\n"

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="wide" tabindex="0">\n<table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table>\n</div>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        language = escape(tokens[idx].info.split(" ")[0])
        kind = f' class="language-{language}"' if language else ""
        return f'<pre tabindex="0"><code{kind}>{escape(tokens[idx].content, quote=False)}</code></pre>\n'

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return f'<pre tabindex="0"><code>{escape(tokens[idx].content, quote=False)}</code></pre>\n'

    def html_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return escape(_COMMENT.sub("", tokens[idx].content).strip(), quote=False)

    def html_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        return escape(_COMMENT.sub("", tokens[idx].content), quote=False)
