"""The site made of the documentation: pages, languages, links, and what Markdown becomes."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from gateway.api.language import Language
from gateway.documentation import markdown
from gateway.documentation.__main__ import main
from gateway.documentation.site import Site, site
from gateway.documentation.source import MORE, SECTIONS, DocumentationMissingError, load, sections

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """The targets of links, images and styles of a page, and its anchors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                assert value, f"an empty {name} of <{tag}>"
                self.targets.append(value)
            elif name == "id" and value:
                assert value not in self.anchors, f"two ids {value}"
                self.anchors.add(value)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a few pages."""
    for name, text in {
        "docs/quick-start.md": "# Quick start\n\nFirst. Second.\n\n[more](other.md#one), [中文](zh/quick-start.md), [made](../Makefile)\n",
        "docs/zh/quick-start.md": "# 快速上手\n\n第一句。第二句。\n\n[其他](../other.md) [其他](../other.md#one) [English](../quick-start.md)\n",
        "docs/other.md": "# Other `x`\n\nText\n\n## One\n\n## One\n\n[back](quick-start.md) [it](zh/quick-start.md)\n\n<!-- unseen -->\n<script>alert(1)</script>\n",
        "docs/both.md": "# Both · 双语\n\nText\n",
        "docs/decisions/0001-first.md": "# 1. First\n\n[begin](../quick-start.md)\n",
        "docs/images/a.svg": "<svg/>",
        "deploy/README.md": "# Deployment\n\n![a](../docs/images/a.svg) [all](../docs/decisions/)\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def html(made: Site, path: str) -> str:
    answer = made.answer(path)
    assert answer is not None, path
    return answer.body.decode()


def targets(made: Site, path: str) -> list[str]:
    """The links inside the article of a page."""
    return Links(html(made, path).partition("<article")[2].partition("</article>")[0]).targets


def test_links_stay_in_the_language_of_the_reader(small: Path) -> None:
    made = Site(load(small), served=True)
    assert targets(made, "en/quick-start.html") == ["other.html#one", "../zh/quick-start.html"]
    assert targets(made, "zh/quick-start.html") == ["other.html", "other.html#one", "../en/quick-start.html"]
    assert targets(made, "zh/other.html")[-2:] == ["quick-start.html", "quick-start.html"]
    assert targets(made, "en/other.html")[-2:] == ["quick-start.html", "../zh/quick-start.html"]
    assert targets(made, "zh/decisions/0001-first.html") == ["../quick-start.html"]
    assert targets(made, "zh/deployment.html") == ["../images/a.svg", "index.html#decisions"]


def test_a_link_to_what_does_not_ship_is_text(small: Path) -> None:
    assert '<span class="elsewhere">made</span>' in html(Site(load(small), served=True), "en/quick-start.html")


def test_an_anchor_that_the_translation_lacks_leads_to_the_original(small: Path) -> None:
    (small / "docs/zh/other.md").write_text("# 其他\n", encoding="utf-8")
    made = Site(load(small), served=True)
    assert targets(made, "zh/quick-start.html") == ["other.html", "../en/other.html#one", "../en/quick-start.html"]


def test_a_page_without_translation_says_so(small: Path) -> None:
    made = Site(load(small), served=True)
    notice = "本页暂无中文版"
    assert notice in html(made, "zh/other.html")
    assert '<article lang="en">' in html(made, "zh/other.html")
    for path in ("zh/quick-start.html", "zh/both.html", "en/other.html", "zh/index.html"):
        assert notice not in html(made, path), path


def test_html_in_a_page_is_text_and_comments_go(small: Path) -> None:
    text = html(Site(load(small), served=True), "en/other.html")
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "unseen" not in text


def test_headings_get_the_anchors_that_github_makes() -> None:
    found = markdown.headings("# A heading, and more: `x` (1)\n\n## 中文 标题\n\n## One\n\n## One\n")
    assert [heading.anchor for heading in found] == ["a-heading-and-more-x-1", "中文-标题", "one", "one-1"]


def test_what_is_wide_scrolls_in_itself_and_code_is_kept_as_it_is() -> None:
    made = markdown.render("| a |\n|---|\n| b |\n\n```yaml check\na: <b> & 'c'\n```\n", lambda target: target).html
    assert '<div class="wide" tabindex="0">\n<table>' in made
    assert '<pre tabindex="0"><code class="language-yaml">a: &lt;b&gt; &amp; \'c\'\n</code></pre>' in made


def test_the_first_sentence_stands_in_the_list(small: Path) -> None:
    made = Site(load(small), served=True)
    assert '<p lang="en">First.</p>' in html(made, "en/index.html")
    assert '<p lang="zh-CN">第一句。</p>' in html(made, "zh/index.html")


def test_of_a_page_in_both_languages_the_list_shows_the_half_of_the_reader(small: Path) -> None:
    (small / "docs/both.md").write_text("# Both · 双语\n\nIn code. See. `代码`里。完。\n", encoding="utf-8")
    made = Site(load(small), served=True)
    english, chinese = html(made, "en/index.html"), html(made, "zh/index.html")
    assert ">Both</a>" in english
    assert '<p lang="en">In code.</p>' in english
    assert ">双语</a>" in chinese
    assert '<p lang="zh-CN">代码里。</p>' in chinese
    assert "英文" not in chinese.partition(">双语</a>")[2].partition("</li>")[0]


def test_one_word_is_not_what_a_page_is_about(small: Path) -> None:
    (small / "docs/decisions/0001-first.md").write_text(
        "# 1. First\n\n**Context.** It is so. More.\n", encoding="utf-8"
    )
    made = Site(load(small), served=True)
    for path in ("en/index.html", "zh/index.html"):
        assert '<p lang="en">It is so.</p>' in html(made, path)


def test_a_line_break_between_chinese_characters_is_no_space() -> None:
    made = markdown.render("一，\n二。\n`x`\nand y\nz三\n**四**\n五\n", lambda target: target)
    assert made.html == "<p>一，二。\n<code>x</code>\nand y\nz三<strong>四</strong>五</p>\n"
    assert made.summary == "一，二。 x and y z三四五"


def test_there_is_no_documentation(tmp_path: Path) -> None:
    with pytest.raises(DocumentationMissingError, match=re.escape(str(tmp_path / "docs"))):
        load(tmp_path)


def test_every_page_has_one_place_in_the_navigation() -> None:
    source = load()
    listed = [page.name for _, pages in sections(source) for page in pages]
    assert sorted(listed) == sorted(source.pages)
    assert {"quick-start", "operating", "deployment", "changelog", "decisions/0004-page"} <= set(listed)


def test_the_navigation_knows_every_page_and_no_other() -> None:
    """A new page gets a place of its own in `SECTIONS`; it is not left to the heading for what nobody placed."""
    source = load()
    assert [title for title, _ in sections(source) if title == MORE] == []
    listed = [name for _, names in SECTIONS for name in names]
    assert sorted(set(listed)) == sorted(listed), "a page that is listed twice"
    assert [name for name in listed if name not in source.pages] == []
    assert (
        "opcua"
        in dict(zip((title.en for title, _ in SECTIONS), (names for _, names in SECTIONS), strict=True))[
            "Connect machines"
        ]
    )


def test_a_page_that_nobody_placed_is_listed_all_the_same(small: Path) -> None:
    source = load(small)
    assert [page.name for page in dict(sections(source))[MORE]] == ["both", "other"]


def test_a_page_outside_of_docs_has_its_chinese_in_docs(small: Path) -> None:
    (small / "docs/zh/deployment.md").write_text("# 部署\n\n[架构](../other.md)\n", encoding="utf-8")
    made = Site(load(small), served=True)
    assert load(small).pages["deployment"].sources == {"zh": "docs/zh/deployment.md", "en": "deploy/README.md"}
    assert targets(made, "zh/deployment.html") == ["other.html"]
    assert '<h1 id="部署">' in html(made, "zh/deployment.html")


def test_every_source_of_the_repository_is_a_page() -> None:
    source = load()
    sources = {path for page in source.pages.values() for path in page.sources.values()}
    assert sources == {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")
    } | {"deploy/README.md", "CHANGELOG.md"}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_link_of_every_page_leads_somewhere(language: Language) -> None:
    """On the site as it lies in a folder; the running server is asked in tests/api."""
    made = site(served=False)
    known = {path: Links(html(made, path)) for path in made.paths() if path.endswith(".html")}
    broken = []
    for path, links in known.items():
        if not path.startswith(language):
            continue
        for target in links.targets:
            where = urlsplit(urljoin(f"http://site/{path}", target))
            if where.netloc != "site":
                continue
            place = unquote(where.path[1:])
            anchors = known[place].anchors if place in known else set()
            if place not in made.paths() or (where.fragment and unquote(where.fragment) not in anchors):
                broken.append(f"{path}: {target}")
    assert broken == []


def test_the_site_is_written_for_a_browser_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert f"{len(files)} files in" in capsys.readouterr().out
    begin = (tmp_path / "index.html").read_text(encoding="utf-8")
    for target in Links(begin).targets:
        assert (tmp_path / target).is_file(), target
    text = (tmp_path / "zh/quick-start.html").read_text(encoding="utf-8")
    assert "接口文档" not in text.partition("</header>")[0], "the interactive documentation needs the server"
    for file in files:
        if file.suffix == ".html":
            targets_here = [to for to in Links(file.read_text(encoding="utf-8")).targets if not to.startswith("http")]
            assert [to for to in targets_here if to.startswith("/") or to.endswith(("/", ".."))] == [], file
