"""The table of the usual ways for docs/reliability.md, from the results of `python -m tests.faults.usual`."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tests.faults import thingsboard
from tests.faults.report import machine
from tests.faults.usual import FAULTS, GUANTONG, PROJECT, WAYS

MARKERS = "<!-- usual: begin -->", "<!-- usual: end -->"
TEXTS = {
    "en": {
        "sum": "{runs} runs, 40 signals for each way, each read once a second, {served} numbers handed out in all. Each cell: lost / twice. Of what is there twice, {keyed} would be "
        "left by a table with a key over device, signal and time. Machine: {machine}, busy with other work. Versions: {versions}. Commands: {commands}.",
        "fault": "Fault", "runs": "Runs", "none": "not run",
        "ways": ["Guantong", "QoS 1 and forget", "ThingsBoard Gateway, memory (default)", "ThingsBoard Gateway, SQLite"],
        "cell": "{lost} / {twice}", "gaps": "recorded", "no": "never back within 90 s: {n}",
    },
    "zh": {
        "sum": "共 {runs} 次，每种方式 40 个信号，每秒各读一次，设备共给出 {served} 个数。每格为：丢失 / 重复。若数据表以设备、信号与时间为键，重复的还会剩下 {keyed} 个。"
        "机器：{machine}，同时有其他工作。版本：{versions}。命令：{commands}。",
        "fault": "故障", "runs": "次数", "none": "未运行",
        "ways": ["贯通", "QoS 1 发布即忘", "ThingsBoard Gateway，内存（默认）", "ThingsBoard Gateway，SQLite"],
        "cell": "{lost} / {twice}", "gaps": "有记录", "no": "90 秒内未恢复：{n}",
    },
}  # fmt: skip


def versions() -> dict[str, str]:
    """What took part, by name."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    found = {"guantong": commit.stdout.strip() or "unknown"}
    found |= {name: version(name) for name in ("paho-mqtt", "pymodbus")}
    told = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False).stdout
    found["Mosquitto"] = (re.search(r"version (\S+)", told) or [told, "unknown"])[1]
    python = thingsboard.installed(PROJECT)
    if python is not None:
        program = "from importlib.metadata import version; print(version('thingsboard-gateway'))"
        told = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False).stdout
        found["thingsboard-gateway"] = told.strip()
    return found


def table(results: Sequence[Mapping[str, Any]], language: str) -> str:
    """What stands between the markers."""
    texts: dict[str, Any] = TEXTS[language]
    seeds = Counter(result["seed"] for result in results)
    told = {f"{name} {number}" for result in results for name, number in result["versions"].items()}
    figures = [one for result in results for one in result["figures"].values()]
    lines = [
        texts["sum"].format(
            runs=len(results), served=f"{sum(one['served'] for one in figures):,}", machine=machine(),
            keyed=sum(one["twice_keyed"] for one in figures), versions=", ".join(sorted(told)),
            commands=", ".join(f"`make chaos-usual SEED={seed} RUNS={runs}`" for seed, runs in sorted(seeds.items())),
        ),
        "",
        f"| {texts['fault']} | {texts['runs']} | {' | '.join(texts['ways'])} |",
        "|---|---:|" + "---:|" * len(WAYS),
    ]  # fmt: skip
    for name in FAULTS:
        some = [result for result in results if result["fault"] == name]
        if some:
            cells = [_cell([r["figures"][way] for r in some if way in r["figures"]], way, texts) for way in WAYS]
            lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures: Sequence[Mapping[str, Any]], way: str, texts: Mapping[str, Any]) -> str:
    if not figures:
        return str(texts["none"])
    lost, twice, kept = (sum(one[name] for one in figures) for name in ("lost", "twice", "in_gaps"))
    cell = str(texts["cell"]).format(lost=lost, twice=twice)
    if way == GUANTONG and kept:
        cell += f" ({texts['gaps']} {kept})"
    late = sum(not one["recovered"] for one in figures)
    return f"{cell}; {str(texts['no']).format(n=late)}" if late else cell
