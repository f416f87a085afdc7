"""Secrets: from an environment variable or from a file, never from the configuration file itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from gateway.config.models import Secret
from schemas._explain import members_of
from schemas.bilingual import Bilingual, chinese
from schemas.documents import Document, DocumentError, Place, Problem, nearest

MAX_SECRET = 16 * 1024
_SECRET_KEY = re.compile(r"(^|_)(password|passphrase|secret|token|api_?key)$", re.IGNORECASE)


def resolve_secret(
    secret: Secret, environ: Mapping[str, str] | None = None, *, document: Document | None = None, place: Place = ()
) -> str:
    """The secret's text. `document` and `place` only say where it is written, for the message.

    Raises DocumentError where the variable is not set, the file cannot be read, or either is empty.
    """
    environ = os.environ if environ is None else environ
    document = document or Document("configuration", {})
    if secret.env is not None:
        text = environ.get(secret.env, "")
        if text:
            return text
        what = Bilingual("is empty", "为空") if secret.env in environ else Bilingual("is not set", "未设置")
        raise DocumentError(
            [
                document.problem(
                    place,
                    found=Bilingual(
                        f"the environment variable {secret.env}, which {what}",
                        f"环境变量 {secret.env}，{chinese(what)}",
                    ),
                    expected=Bilingual("the secret in it", "其中含有密码或密钥"),
                    nearest=nearest(secret.env, [name for name in environ if name != secret.env]),
                    fix=Bilingual(
                        f"Set {secret.env} where the gateway is started (systemd: EnvironmentFile=).",
                        f"请在启动网关处设置 {secret.env}（systemd：EnvironmentFile=）。",
                    ),
                )
            ]
        )
    path = secret.file or Path()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET).decode().split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        what = Bilingual(f"which cannot be read ({why})", f"无法读取（{why}）")
        raise DocumentError([_file_problem(document, place, path, what)]) from None
    if not text:
        raise DocumentError([_file_problem(document, place, path, Bilingual("whose first line is empty", "首行为空"))])
    return text


def _file_problem(document: Document, place: Place, path: Path, what: str) -> Problem:
    return document.problem(
        place, found=Bilingual(f"the secret's file {path}, {what}", f"密码文件 {path}，{chinese(what)}"),
        expected=Bilingual("the secret in its first line", "首行为密码或密钥"),
        fix=Bilingual(
            "Create the file, readable by the gateway's user alone (chmod 600).", "请创建该文件，仅允许网关用户读取（chmod 600）。"
        ),
    )  # fmt: skip


def settings_with_secrets(
    data: Any,
    model: type[BaseModel],
    *,
    base: Path,
    environ: Mapping[str, str] | None,
    document: Document,
    place: Place,
) -> tuple[Any, list[Problem]]:
    """An adapter's settings ready for its model: `{env: …}` and `{file: …}` replaced by the secrets they name, relative
    paths made absolute. A secret in clear is a problem. `environ` None leaves secrets unread (a placeholder stands for them)."""
    problems: list[Problem] = []

    def walk(value: Any, types: list[Any], where: tuple[str | int, ...]) -> Any:
        key = str(where[-1]) if where else ""
        secret = SecretStr in types or bool(_SECRET_KEY.search(key))
        if isinstance(value, dict) and (secret or Path not in types) and set(value) in ({"env"}, {"file"}):
            if not secret and str not in types:
                return value
            if not isinstance(next(iter(value.values())), str):
                nameless = Bilingual("a secret without a name", "未写名称的密码")
                problems.append(document.problem(where, found=nameless, expected="{env: NAME}"))
                return "-"
            reference = Secret.model_validate(value, context={"base": base})
            if environ is None:
                return "-"
            try:
                return resolve_secret(reference, environ, document=document, place=where)
            except DocumentError as error:
                problems.extend(error.problems)
                return "-"
        if secret and isinstance(value, str | int | float) and not isinstance(value, bool):
            problems.append(
                document.problem(
                    where, found=Bilingual("a secret in clear", "明文密码"),
                    expected=Bilingual("{env: NAME} or {file: PATH}", "{env: NAME} 或 {file: PATH}"),
                    fix=Bilingual(
                        "Put it into the environment or into a file, and change it: this file was not meant to hold it.",
                        "请移到环境变量或文件中，并更换该密码：本文件不应保存密码。",
                    ),
                )
            )  # fmt: skip
            return "-"
        if Path in types and isinstance(value, str):
            return str(base / Path(value).expanduser())
        if isinstance(value, dict):
            models = [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]
            return {k: walk(v, [t for m in models for t in _types_of(m, k)], (*where, k)) for k, v in value.items()}
        return value

    return walk(data, [model], tuple(place)), problems


def _types_of(model: type[BaseModel], key: Any) -> list[Any]:
    info = model.model_fields.get(str(key))
    return members_of(info.annotation) if info is not None else []


def holds_secret(data: Any) -> bool:
    """Whether a secret stands in clear somewhere in a configuration's data, judged by its keys; also a password in a URL."""
    return _holds(data, "")


def _holds(data: Any, key: str) -> bool:
    if isinstance(data, dict):
        return any(_holds(value, str(name)) for name, value in data.items())
    if isinstance(data, list):
        return any(_holds(value, key) for value in data)
    if data is None or isinstance(data, bool):
        return False
    if _SECRET_KEY.search(key):
        return True
    try:
        return isinstance(data, str) and "://" in data and urlsplit(data).password is not None
    except ValueError:
        return True
