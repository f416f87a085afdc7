from __future__ import annotations

import pytest

from tests.config.adapters import register


@pytest.fixture(autouse=True)
def adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
