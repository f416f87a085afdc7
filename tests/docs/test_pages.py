"""All pages: links lead somewhere, configurations are sound, nothing of one machine or one registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from gateway.config.load import check_config, load_config
from gateway.config.resolve import resolve_all

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CHECKED = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml check\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    )
]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(plain)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", _FENCED.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
        elif ROOT not in target.parents:
            broken.append(f"{link} (outside of the repository)")
    assert broken == []


def test_anchors_are_those_of_headings(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# A heading, and more: `x` (1)\n")
    assert anchors(page) == {"a-heading-and-more-x-1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_of_one_machine_or_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for what in (
        r"/wor[k]/",
        r"/roo[t]/",
        r"/home/\w",
        r"py[p]i\.org",
        r"npm[j]s",
        r"python[h]osted",
        r"deb\.debia[n]\.org",
        r"docker\.io",
        r"ghcr\.io",
        r"TOD[O]",
    ):
        assert not re.search(what, text), what


@pytest.mark.parametrize("text", CHECKED)
def test_a_configuration_that_is_shown_is_sound(text: str, tmp_path: Path) -> None:
    file = tmp_path / "guantong.yaml"
    file.write_text(text, encoding="utf-8")
    assert [str(problem) for problem in check_config(file, {})] == []


def test_pages_show_configurations() -> None:
    assert len(CHECKED) >= 6


def test_the_configuration_of_the_containers_is_sound() -> None:
    config = load_config(ROOT / "deploy/guantong.yaml", {})
    plan, problems = resolve_all(config, None)
    assert [str(problem) for problem in problems] == []
    assert plan is not None
    assert len(plan.devices) == 12


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "configuration.md" not in p.name], ids=lambda p: str(p.relative_to(ROOT))
)
def test_fences_are_closed_and_shell_blocks_parse(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        told = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert told.returncode == 0, f"{block}\n{told.stderr}"


def test_both_readmes_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
        return [line.split(" #")[0].rstrip() for block in blocks for line in block.splitlines()]

    assert commands("README.md") == commands("README.zh.md")
    assert len(commands("README.md")) == 9


@pytest.mark.parametrize("name", [str(page.relative_to(ROOT)) for page in PAGES])
def test_the_commands_that_are_named_exist(name: str) -> None:
    import typer

    from gateway.cli.app import app

    group = typer.main.get_command(app)
    known = set(group.commands)  # type: ignore[attr-defined]
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|/|^)guantong ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE)) - {"demo"}
    assert named <= known
    assert {
        "run",
        "check",
        "demo",
        "simulate",
        "devices",
        "tail",
        "read",
        "ledger",
        "key",
        "schema",
        "init",
        "version",
    } <= known
