"""`python -m tests.faults --seed N`: see docs/reliability.md."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.faults.campaign import FAULTS, Plan, Result, campaign, plans
from tests.faults.rig import KINDS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults, and what they leave.")
    add = parser.add_argument
    add("--seed", type=int, default=1, help="what happens depends on it alone")
    add("--runs", type=int, default=12, help="how many runs (default 12)")
    add("--first", type=int, default=1, help="the number of the first run (default 1)")
    add("--kind", choices=KINDS, help="only this installation")
    add("--fault", action="append", default=[], metavar="NAME", help="these faults in each run, instead of seeded ones")
    add("--log", type=Path, help="append each result as a line of JSON; runs that are there and held are not repeated")
    add("--keep", type=Path, help="keep what a failed installation leaves in this folder")
    add("--list", action="store_true", help="the faults by name, and end")
    add("--version-of", default="", help="what to write as the version into the log (default: the commit)")
    return parser


def _version() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def _chosen(options: argparse.Namespace) -> list[Plan]:
    if options.fault:
        unknown = [name for name in options.fault if name not in FAULTS]
        if unknown:
            sys.exit(f"no such fault: {', '.join(unknown)}; --list shows them")
        kinds = set(KINDS).intersection(*(FAULTS[name].kinds for name in options.fault))
        kind = options.kind or next(kind for kind in KINDS if kind in kinds)
        numbers = range(options.first, options.first + options.runs)
        return [Plan(options.seed, number, kind, tuple(options.fault)) for number in numbers]
    last = options.first - 1 + options.runs
    return list(itertools.islice(plans(options.seed, options.kind), options.first - 1, last))


def main() -> int:
    """The command; 0 when everything held."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    options = _parser().parse_args()
    if options.list:
        sys.stdout.write("\n".join(FAULTS) + "\n")
        return 0
    version = options.version_of or _version()
    done = set()
    if options.log is not None and options.log.exists():
        lines = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]
        done = {(line["seed"], line["number"]) for line in lines if not line["wrong"]}
    some = [plan for plan in _chosen(options) if (plan.seed, plan.number) not in done]
    results: list[Result] = []
    sys.stdout.write(f"seed {options.seed}, {len(some)} runs, version {version}\n")

    def tell(result: Result) -> None:
        result.version = version
        results.append(result)
        sys.stdout.write(result.line() + "\n")
        for wrong in result.wrong:
            sys.stdout.write(f"       {wrong}\n")
        if result.wrong:
            sys.stdout.write(f"       again: {result.command}\n")
        sys.stdout.flush()
        if options.log is not None:
            with options.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(result), ensure_ascii=False) + "\n")

    campaign(some, tell, keep=options.keep)
    gaps: Counter[str] = Counter()
    for result in results:
        gaps.update(result.gaps)
    told = ",".join(f"{cause}:{count}" for cause, count in sorted(gaps.items())) or "0"
    failed = sum(not result.holds for result in results)
    lost, twice = sum(result.lost for result in results), sum(result.twice for result in results)
    excused = sum(result.excused for result in results)
    sys.stdout.write(f"runs={len(results)} lost={lost} twice={twice} gaps={told} excused={excused} failed={failed}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
