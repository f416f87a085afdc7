"""The table of profiles in the documentation is that of the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.library import load_profile, shipped

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/profiles.md", "docs/zh/profiles.md"])
def test_every_shipped_profile_stands_there_with_how_far_it_is_verified(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|[^|\n]*\|[^|\n]*\| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {name: load_profile(name).verified for name in shipped()}
