"""Profiles by name or path: the shipped library (`schemas/profiles/*.yaml`) and a workshop's own files.

A profile is checked whole: its form, and for the built-in protocols every address and the rules as well.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from schemas.bilingual import Bilingual
from schemas.documents import (
    MAX_BYTES,
    Document,
    DocumentError,
    Problem,
    check_part,
    nearest,
    parse_yaml,
    read_yaml,
    validate,
)
from schemas.profile import BUILT_IN_ADDRESSES, BUILT_IN_RULES, Profile, ProfileSignal

_OWN_KEY: Final = re.compile(
    rb"(?:^|[{,])(?:\xef\xbb\xbf)?[ \t]*[\"']?(?:profile|protocol|signals)[\"']?[ \t]*:", re.MULTILINE
)


@lru_cache(maxsize=1)
def shipped() -> tuple[str, ...]:
    """The names of the shipped profiles, sorted."""
    names = (entry.name for entry in (files("schemas") / "profiles").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_profile(name_or_path: str, base: Path | None = None) -> Document:
    """The document of a shipped profile (`eastron-sdm630`) or of a file (`profiles/ours.yaml`, relative to `base`).

    Raises DocumentError; for an unknown name it names the nearest shipped one.
    """
    if "/" not in name_or_path and not name_or_path.endswith((".yaml", ".yml")):
        if name_or_path in shipped():
            resource = files("schemas") / "profiles" / f"{name_or_path}.yaml"
            return parse_yaml(resource.read_text(encoding="utf-8"), f"profile {name_or_path}")
        near = nearest(name_or_path, shipped())
        there = ", ".join(shipped())
        fix = Bilingual(
            f"Shipped are {there}; a file of your own is written with its path, e.g. ./ours.yaml.",
            f"内置：{there}；自己的文件请写路径，如 ./ours.yaml。",
        )
        problem = Problem(
            "", "", None, Bilingual(f"the profile {name_or_path!r}", f"设备模板 {name_or_path!r}"),
            Bilingual("the name of a shipped profile or a path", "内置设备模板的名称或路径"), near, fix,
        )  # fmt: skip
        raise DocumentError([problem])
    path = Path(name_or_path)
    path = path if path.is_absolute() or base is None else base / path
    _check_is_profile(path)
    return read_yaml(path)


def _check_is_profile(path: Path) -> None:
    """Raises DocumentError for a file that is evidently none, without a word of what it holds: who may write a configuration over the
    API shall not read any other file of the box by its mistakes, nor have a device read that never ends. Does nothing where `read_yaml` knows more."""
    found: str = Bilingual("no regular file", "不是普通文件")
    try:
        if path.is_file():
            if path.stat().st_size > MAX_BYTES or _OWN_KEY.search(path.read_bytes()):
                return
            found = Bilingual("a file without any key of a profile", "不含设备模板任何键的文件")
        elif not path.exists() or path.is_dir():
            return
    except OSError:
        return
    expected = Bilingual(
        "a profile, with the keys profile, protocol and signals", "设备模板，包含 profile、protocol 与 signals 键"
    )
    raise DocumentError([Problem(str(path), "", None, found, expected)])


def load_profile(name_or_path: str, base: Path | None = None) -> Profile:
    """The profile, checked. `base` is the directory that a relative path starts from (default: the working directory).

    Raises DocumentError with every problem at once. Addresses and rules are checked for the built-in protocols only: for
    a third party's the adapter's own models have the word (`check_addresses`).
    """
    document = read_profile(name_or_path, base)
    profile = validate(document, Profile)
    problems = check_addresses(
        document, profile, BUILT_IN_ADDRESSES.get(profile.protocol), BUILT_IN_RULES.get(profile.protocol)
    )
    if problems:
        raise DocumentError(problems)
    return profile


def check_addresses(
    document: Document, profile: Profile, address: type[BaseModel] | None, rules: type[BaseModel] | None
) -> list[Problem]:
    """The problems of a profile's addresses and rules by these models; a model that is None is not applied."""
    problems: list[Problem] = []
    if rules is not None:
        problems += check_part(document, ["rules"], profile.rules, rules)[1]
    if address is not None:
        for index, signal in enumerate(profile.signals):
            problems += check_part(document, ["signals", index, "address"], signal.address, address)[1]
    return problems


def parsed_address(protocol: str, signal: ProfileSignal) -> Any:
    """A signal's address as the model of a built-in protocol (ModbusAddress, OpcUaAddress); the plain mapping for any other.

    Raises pydantic's ValidationError for an address that does not fit; one of a loaded profile always does.
    """
    model = BUILT_IN_ADDRESSES.get(protocol)
    return signal.address if model is None else model.model_validate(signal.address)
