"""The configuration from its file and the environment, checked: every mistake is told in one run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config._check import check
from gateway.config._environment import CONFIG, Variable, overridden
from gateway.config._salvage import salvage
from gateway.config.models import Config, Secret
from gateway.config.resolve import resolve_all
from gateway.config.secrets import resolve_secret
from schemas.bilingual import Bilingual
from schemas.documents import Document, DocumentError, Problem, parse_yaml, path_text, read_yaml, validate


def load_config(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, text: str | None = None
) -> Config:
    """The configuration in the file `path` (else the one that GUANTONG_CONFIG names, else nothing but defaults), with what the
    environment overrides. With `text`: as if the file had this content.

    Checked are its form and what can be seen without adapters and profiles; `gateway.config.resolve` checks those for the role that
    needs them. Raises DocumentError; it then holds every problem that can be found, those of adapters and profiles as well.
    """
    environ = os.environ if environ is None else environ
    config, problems = _read(path, environ, text)
    if problems:
        if config is not None:
            problems += [p for p in resolve_all(config, None)[1] if p not in problems]
        raise DocumentError(problems)
    assert config is not None
    return config


def check_config(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, text: str | None = None
) -> list[Problem]:
    """Every problem of the configuration, its profiles and its secrets, in the order of the file; empty for a sound one.
    With `text`: as if the file had this content."""
    environ = os.environ if environ is None else environ
    try:
        config, problems = _read(path, environ, text)
    except DocumentError as error:
        return error.problems
    if config is not None:
        problems += [p for p in resolve_all(config, environ)[1] if p not in problems]
        problems += _unreadable_secrets(config, environ)
    return DocumentError(problems).problems


def _read(
    path: Path | None, environ: Mapping[str, str], text: str | None = None
) -> tuple[Config | None, list[Problem]]:
    """The configuration, or what could be salvaged of it, and the problems. Raises DocumentError for what is no YAML."""
    if path is None and environ.get(CONFIG):
        path = Path(environ[CONFIG])
    if path is None:
        document = Document("configuration", {})
    else:
        document = read_yaml(path) if text is None else parse_yaml(text, str(path))
    base = Path.cwd() if path is None else path.absolute().parent
    data, variables = overridden(document.data, environ, Path.cwd())
    document = replace(document, data=data)
    context: dict[str, Any] = {"base": base}
    problems: list[Problem] = []
    config: Config | None
    try:
        config = validate(document, Config, context=context)
        config._base, config._document = base, document
    except DocumentError as error:
        problems = [_of_environment(problem, variables) for problem in error.problems]
        config = salvage(document, context)
    if config is not None:
        known = {asset.id for asset in config.assets}
        unfinished = frozenset(_asset_ids(data) - known)
        problems += [_of_environment(p, variables) for p in check(config, variables, unfinished=unfinished)]
    return config, problems


def _asset_ids(data: Any) -> set[str]:
    assets = data.get("assets") if isinstance(data, dict) else None
    return {str(a["id"]) for a in assets if isinstance(a, dict) and "id" in a} if isinstance(assets, list) else set()


def _of_environment(problem: Problem, variables: Mapping[tuple[str, ...], Variable]) -> Problem:
    """The problem of a value that came from the environment names the variable instead of a line of the file."""
    for place, variable in variables.items():
        if problem.path == path_text(place):
            where = Bilingual(f"environment variable {variable.name}", f"环境变量 {variable.name}")
            return replace(problem, file=where, path="", line=None)
    return problem


def _unreadable_secrets(config: Config, environ: Mapping[str, str]) -> list[Problem]:
    secrets: list[tuple[list[str], Secret | None]] = [
        (["bus", "password"], config.bus.password),
        (["bus", "tls", "key_password"], config.bus.tls.key_password if config.bus.tls is not None else None),
        (["store", "password"], config.store.password),
    ]
    problems: list[Problem] = []
    for place, secret in secrets:
        if secret is None:
            continue
        try:
            resolve_secret(secret, environ, document=config.document, place=place)
        except DocumentError as error:
            problems += error.problems
    return problems
