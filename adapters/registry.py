"""Adapters by name, from entry points of the group `guantong.adapters`. The built-in ones register the same way."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from adapters.contract import Adapter, ConfigError
from schemas.bilingual import Bilingual

GROUP = "guantong.adapters"


def available() -> dict[str, EntryPoint]:
    """Every registered adapter, not yet imported."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load(name: str) -> type[Adapter]:
    """The adapter class registered as `name`.

    Raises ConfigError, naming the nearest registered name, for an unknown one, or one whose package cannot be imported: such a
    plug-in costs its own links and nothing else.
    """
    entries = available()
    entry = entries.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, entries, n=1)
        known = ", ".join(sorted(entries)) or "none"
        raise ConfigError(
            Bilingual(
                f"no adapter is registered as {name!r}; there are {known}", f"没有名为 {name!r} 的适配器；现有：{known}"
            ),
            reason="adapter_unknown",
            fix_en=f"Write adapter: {near[0]}." if near else "Install the package that brings this adapter.",
            fix_zh=f"请写 adapter: {near[0]}。" if near else "请安装提供该适配器的软件包。",
        )
    try:
        loaded = entry.load()
    except Exception as error:  # a third party's import may raise anything, and must not cost the other links
        raise ConfigError(
            Bilingual(
                f"adapter {name!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}",
                f"适配器 {name!r}（{entry.value}）无法导入：{type(error).__name__}: {error}",
            ),
            reason="adapter_broken",
            fix_en="Reinstall or remove the package that brings this adapter.",
            fix_zh="请重新安装或卸载提供该适配器的软件包。",
        ) from error
    if not isinstance(loaded, type) or not hasattr(loaded, "LinkSettings"):
        raise ConfigError(
            Bilingual(
                f"adapter {name!r} ({entry.value}) is not an adapter class",
                f"适配器 {name!r}（{entry.value}）不是适配器类",
            ),
            reason="adapter_broken",
            fix_en="See docs/writing-an-adapter.md for the contract.",
            fix_zh="接口约定见 docs/writing-an-adapter.md。",
        )
    return loaded
