"""Point tables, inside serve's child process: a file that somebody uploaded is opened here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from gateway.config.secrets import holds_secret
from gateway.looking.questions import Export, FailedLookError, Language, Mistake, Table
from gateway.looking.shapes import Document, Notice, TableDraft
from gateway.points._grid import TableError, TableProblem
from gateway.points.splicing import Edit, spliced
from schemas.bilingual import chinese, of_error
from schemas.documents import DocumentError, parse_yaml

NAMES: Final = {"xlsx": "points.xlsx", "csv": "points.csv", "csv-gbk": "points-gbk.csv"}


def imported(question: Table) -> TableDraft:
    """See `questions.Table`. Raises FailedLookError with every mistake."""
    from gateway.points.importing import import_table

    file, lang = Path(question.file), question.lang
    text, data = configuration(file)
    try:
        found = import_table(question.data, file=question.name or "points", base=file.parent)
    except TableError as error:
        raise _invalid(error.problems, lang) from None
    links = list(data.get("links") or [])
    places = {link.get("id"): i for i, link in enumerate(links) if isinstance(link, dict)}
    edits = []
    for link in found.links:
        at = places.get(link["id"])
        if at is None or links[at] != link:
            edits.append(Edit(("links",), at, link))
    known = {asset.get("id") for asset in data.get("assets") or [] if isinstance(asset, dict)}
    devices = {d["id"] for link in found.links for d in link.get("devices", ()) if "asset" not in d}
    edits += [Edit(("assets",), None, asset) for asset in found.assets if asset["id"] not in known | devices]
    made, kept = spliced(text, edits, data)
    notices = [Notice(n.place, n.found, n.text.get(lang)) for n in found.notices]
    count = sum(len(link["devices"]) for link in found.links)
    return TableDraft(made, count, found.points, [*notices, *rewritten(kept, lang)])


def _invalid(problems: list[TableProblem], lang: Language) -> FailedLookError:
    mistakes = [Mistake(p.found or None, p.text.get(lang), place=p.place) for p in problems]
    return FailedLookError(
        "invalid_table",
        f"{len(mistakes)} mistakes in the table; nothing was changed.",
        f"点表有 {len(mistakes)} 处错误；未作任何更改。",
        fix_en="Correct the cells that are named and upload the table again.",
        fix_zh="请按所列单元格改正后重新上传。",
        mistakes=mistakes,
    )


def rewritten(kept: bool, lang: Language) -> list[Notice]:
    """A notice where the file had to be written anew as a whole."""
    if kept:
        return []
    text = {
        "en": "The file's form does not permit changing it in places: it is written anew as a whole, without its comments.",
        "zh": "该文件的写法无法局部修改：将整体重写，注释会丢失。",
    }
    return [Notice("", "", text[lang])]


def exported(question: Export) -> Document:
    """See `questions.Export`. Raises FailedLookError."""
    from gateway.config.load import load_config
    from gateway.points.exporting import export_table, template

    form, lang = question.form, question.lang
    if question.file is None:
        return Document(template(form, lang), f"template-{NAMES[form]}", [])
    try:
        config = load_config(Path(question.file))
    except DocumentError as error:
        raise unreadable(error) from error
    data, notices = export_table(config, form, lang)
    return Document(data, NAMES[form], [Notice("", "", notice.get(lang)) for notice in notices])


def configuration(file: Path) -> tuple[str, dict[str, Any]]:
    """The text and the data of the configuration file. Raises FailedLookError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = parse_yaml(text, str(file)).data
    except (OSError, UnicodeDecodeError) as error:
        raise FailedLookError("failed", f"{file}: {error}", f"{file}：{error}") from error
    except DocumentError as error:
        raise unreadable(error) from error
    if data is not None and not isinstance(data, dict):
        raise FailedLookError("failed", f"{file}: the file is no mapping", f"{file}：文件内容不是映射")
    if holds_secret(data):  # the draft would hand it to whoever may ask
        raise FailedLookError(
            "config_broken", f"{file}: a secret stands in the file in clear", f"{file}：文件中有明文密码",
            fix_en="Put it into the environment or into a file ({env: NAME} or {file: PATH}), and change it.",
            fix_zh="请移到环境变量或文件中（{env: 变量名} 或 {file: 路径}），并更换该密码。",
        )  # fmt: skip
    return text, data or {}


def unreadable(error: DocumentError) -> FailedLookError:
    """The configuration that is there has a mistake of its own."""
    text = of_error(error)
    return FailedLookError(
        "config_broken", str(text), chinese(text),
        fix_en="Mend the configuration first (`guantong check`), or roll back.", fix_zh="请先修正现有配置（guantong check），或回退。",
    )  # fmt: skip
