"""Configurations and profiles as YAML files: written whole beside their place, checked, and then moved there."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.load import check_config
from gateway.points.importing import Imported
from schemas.documents import DocumentError, Problem, read_yaml
from schemas.library import load_profile

_LIKE_A_NUMBER: Final = re.compile(r"[-+]?(?:0[ox])?[0-9a-fA-F.]+(?:[eE][-+]?\d+)?")


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what YAML 1.2 would read as a number although YAML 1.1 does not."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: anchors and aliases puzzle readers."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _LIKE_A_NUMBER.fullmatch(text) and "\n" not in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(data: Any, comment: str = "") -> str:
    """YAML as `schemas.documents` reads it, with a comment before it."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.dump(
        data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120, default_flow_style=False
    )


def configuration(imported: Imported, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration with the links of a table; of `base` (a configuration's data) everything else stays, also links of other ids."""
    data = dict(base or {})
    ids = {link["id"] for link in imported.links}
    data["links"] = [link for link in data.get("links") or [] if link.get("id") not in ids] + imported.links
    known = {asset.get("id") for asset in data.get("assets") or []} | {
        d["id"] for link in data["links"] for d in link.get("devices", ()) if "asset" not in d
    }
    assets = [*(data.get("assets") or []), *(asset for asset in imported.assets if asset["id"] not in known)]
    if assets:
        data["assets"] = assets
    return data


def base_data(path: Path) -> dict[str, Any]:
    """The data of an existing configuration. Raises DocumentError."""
    data = read_yaml(path).data
    return data if isinstance(data, dict) else {}


def save_configuration(text: str, target: Path) -> list[Problem]:
    """Writes a configuration to `target`, if it is sound; else nothing is written and its problems are returned. Raises OSError."""
    with _beside(target, text) as written:
        problems = check_config(written)
        if not problems:
            os.replace(written, target)
    return _of(problems, written, target)


def save_profile(text: str, target: Path) -> list[Problem]:
    """Writes a profile to `target`, if it is sound; else nothing is written and its problems are returned. Raises OSError."""
    with _beside(target, text) as written:
        try:
            load_profile(str(written))
        except DocumentError as error:
            return _of(error.problems, written, target)
        os.replace(written, target)
    return []


def _of(problems: list[Problem], written: Path, target: Path) -> list[Problem]:
    """The problems of the file that would have been written, under its name."""
    return [replace(p, file=str(target)) if p.file == str(written) else p for p in problems]


@contextlib.contextmanager
def _beside(target: Path, text: str) -> Any:
    """A file with `text` in the target's directory, so that relative paths mean the same and the move is one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".yaml", prefix=f".{target.stem}-", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        os.chmod(name, mode)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
