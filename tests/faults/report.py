"""The table of docs/reliability.md from the results of a campaign: `python -m tests.faults.report LOG … --write docs/reliability.md docs/zh/reliability.md`.

A run of two faults counts for both of them. Runs that did not hold are counted as such, and make the command fail.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.campaign import FAULTS

BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"
TEXTS = {
    "en": {
        "head": "| Fault | Runs | Lost | Twice | Gaps by cause | Recovered, median and worst, s |",
        "sum": "{runs} runs on {kinds} kinds of installation, {readings} values and events compared after the last run of each installation; lost {lost}, twice {twice}; {failed} runs did not hold. "
        "{busy} of the runs fell on a machine that had other work to do; {excused}. Machine: {machine}. Versions: {versions}. Commands:",
        "excused": "{runs} runs had gaps that only the busy machine explains",
        "uncounted": "in how many of them only the busy machine explains gaps was not counted yet",
        "none": "none",
        "interval": "without connection",
    },
    "zh": {
        "head": "| 故障 | 次数 | 丢失 | 重复 | 各原因的缺口 | 恢复时间（中位、最长），秒 |",
        "sum": "共 {runs} 次，{kinds} 种安装方式，每套安装最后一次运行后合计比对 {readings} 个值与事件；丢失 {lost}，重复 {twice}；未通过 {failed} 次。其中 {busy} 次运行时机器另有繁重工作；{excused}。"
        "机器：{machine}。版本：{versions}。命令：",
        "excused": "{runs} 次运行存在只能由机器繁忙解释的缺口",
        "uncounted": "其中多少次存在只能由机器繁忙解释的缺口，当时尚未统计",
        "none": "无",
        "interval": "未连接",
    },
}


def read(logs: Iterable[Path]) -> list[dict[str, Any]]:
    """The last result of each run, in order."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for log in logs:
        for line in log.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            found[result["seed"], result["number"]] = result
    return [found[key] for key in sorted(found)]


def machine() -> str:
    """Processors, memory and system of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} CPU, {memory:.0f} GB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def table(results: Sequence[Mapping[str, Any]], language: str) -> str:
    """What stands between the markers."""
    texts = TEXTS[language]
    by_fault: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        for name in result["faults"]:
            by_fault[name].append(result)
    lines = [
        _summary(results, texts),
        "",
        "```sh",
        *_commands(results),
        "```",
        "",
        texts["head"],
        "|---|---:|---:|---:|---|---:|",
    ]
    for name in FAULTS:
        some = by_fault.get(name)
        if some:
            alone = [result for result in some if len(result["faults"]) == 1] or some
            gaps: Counter[str] = Counter()
            for result in alone:
                gaps.update(result["gaps"])
            told = ", ".join(f"{texts.get(cause, cause)} {count}" for cause, count in sorted(gaps.items()))
            recovered = [result["recovery"] for result in some]
            lost, twice = sum(r["lost"] for r in some), sum(r["twice"] for r in some)
            lines.append(
                f"| {name} | {len(some)} | {lost} | {twice} | {told or texts['none']} | {median(recovered):.1f}, {max(recovered):.1f} |"
            )
    return "\n".join(lines)


def _summary(results: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> str:
    last: dict[tuple[int, int], int] = {}
    for result in results:
        group = result["seed"], (result["number"] - 1) // 8
        last[group] = max(last.get(group, 0), result["compared"])
    counted = all("in_gaps" in result for result in results)  # older logs do not say it
    excused = texts["excused"].format(runs=sum(r["excused"] for r in results)) if counted else texts["uncounted"]
    return texts["sum"].format(
        excused=excused,
        runs=len(results), kinds=len({result["kind"] for result in results}), readings=f"{sum(last.values()):,}",
        lost=sum(r["lost"] for r in results), twice=sum(r["twice"] for r in results),
        failed=sum(bool(r["wrong"]) for r in results), busy=sum(r.get("starved", False) for r in results), machine=machine(),
        versions=", ".join(sorted({result["version"] for result in results})),
    )  # fmt: skip


def _commands(results: Sequence[Mapping[str, Any]]) -> list[str]:
    count = Counter(result["seed"] for result in results)
    return [f"make chaos SEED={seed} RUNS={runs}" for seed, runs in sorted(count.items())]


def write(page: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the text between the markers of a page. Raises ValueError where it has none."""
    old = page.read_text(encoding="utf-8")
    begin, end = markers
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if pattern.search(old) is None:
        raise ValueError(f"{page}: there is no {begin} … {end}; put both where the table shall be")
    page.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", old), encoding="utf-8")


def main() -> int:
    """The command; 0 when all runs held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description="The table of a campaign.")
    parser.add_argument("logs", nargs="+", type=Path, help="what --log has written")
    parser.add_argument(
        "--write", nargs="+", type=Path, default=[], help="pages to put it into; in a folder zh: in Chinese"
    )
    options = parser.parse_args()
    results = read(options.logs)
    for page in options.write:
        write(page, table(results, "zh" if page.parent.name == "zh" else "en"))
    if not options.write:
        sys.stdout.write(table(results, "en") + "\n")
    wrong = [result for result in results if result["wrong"]]
    for result in wrong:
        sys.stderr.write(f"did not hold: {result['command']}: {result['wrong'][0]}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
