"""The collector's half of apply: takes requests, checks the configuration, answers the difference, and has the collector reconfigured.

Looks at machines come the same way, and are made beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.apply import requests
from gateway.apply.difference import Difference, difference, restart_sections
from gateway.apply.history import Files, History, read_files
from gateway.apply.requests import Answer, LookRequest, Request, Told
from gateway.config.load import check_config, load_config
from gateway.config.resolve import resolve
from gateway.looking.collector import Looking
from schemas.documents import DocumentError

if TYPE_CHECKING:
    from gateway.collect.role import Collect
    from gateway.config.models import Config
    from gateway.config.plan import Plan

log = logging.getLogger("guantong.apply")

_LOOK = 0.5
"""Seconds between two looks into the folder;"""
_SOON, _LIVELY = 0.05, 60.0
"""and while somebody looks at machines, who opens one branch of a tree after the other."""
_MOST_LOOKS = 16


@dataclass(frozen=True, slots=True)
class _Checked:
    """A configuration that may be applied. `plan` is numbered only as the answer to an apply."""

    config: Config
    plan: Plan
    files: Files
    difference: Difference


class Receiver:
    """See the module. `run` goes on until it is cancelled; one request at a time, looks beside it."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect
        self._data_dir = collect.config.data_dir
        self._history = History(self._data_dir)
        self._looking = Looking(collect)
        self._looks: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[str, Request | None]] = deque()
        self._changing: asyncio.Task[None] | None = None
        self._looked = float("-inf")

    async def run(self) -> None:
        """Answers requests. A folder that cannot be used costs applying, not collecting."""
        await asyncio.to_thread(self._begin)
        try:
            await self._take()
        finally:
            tasks = [*self._looks, *([] if self._changing is None else [self._changing])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._looking.close()

    async def _take(self) -> None:
        told = ""
        clock = self._collect.clock
        while True:
            try:
                for name, request in await asyncio.to_thread(requests.take, self._data_dir):
                    if isinstance(request, LookRequest):
                        self._looked = clock.monotonic()
                        self._look(name, request)
                        continue
                    self._waiting.append((name, request))
                self._next_change()
                told = ""
            except OSError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("requests to apply a configuration cannot be taken: %s", told)
            await asyncio.sleep(_SOON if clock.monotonic() - self._looked < _LIVELY else _LOOK)

    def _next_change(self) -> None:
        """One configuration at a time, and beside the taking of requests: who asks meanwhile must not hear that no collector runs. Raises
        what the last one could not handle."""
        if self._changing is not None and self._changing.done():
            changed, self._changing = self._changing, None
            changed.result()
        if self._changing is None and self._waiting:
            self._changing = asyncio.create_task(self._change(*self._waiting.popleft()))

    async def _change(self, name: str, request: Request | None) -> None:
        answer = await self._answer(request)
        try:
            await asyncio.to_thread(requests.reply, self._data_dir, name, answer)
        except OSError as error:
            log.warning("what came of a configuration cannot be told: %s", error)

    def _look(self, name: str, request: LookRequest) -> None:
        if len(self._looks) >= _MOST_LOOKS:  # nobody waits that long; who asked is told by its own patience
            return
        task = asyncio.create_task(self._looks_at(name, request))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _looks_at(self, name: str, request: LookRequest) -> None:
        seen = await self._looking.answer(request.question)
        self._looked = self._collect.clock.monotonic()
        try:
            await asyncio.to_thread(requests.reply, self._data_dir, name, seen)
        except OSError as error:
            log.warning("what was seen cannot be told: %s", error)

    def _begin(self) -> None:
        """What was asked of an earlier life is gone, and what runs now is kept."""
        file = self._file()
        try:
            requests.clear(self._data_dir)
            if file is not None:
                self._history.keep(read_files(file), self._collect.clock.now())
        except (OSError, UnicodeDecodeError, DocumentError) as error:
            log.warning("the configuration that runs cannot be kept in %s: %s", self._history.folder, error)

    def _file(self) -> Path | None:
        """The file that the running configuration came from."""
        file = Path(self._collect.config.document.file)
        return file.absolute() if file.is_file() else None

    async def _answer(self, request: Request | None) -> Answer:
        if request is None:
            return Answer("failed", "the request cannot be read", "无法读取该请求")
        mine = self._file()
        if mine is None or not _same_file(mine, request.file):
            runs = str(mine) if mine is not None else "no file"
            return Answer(
                "other_file",
                f"the collector runs by {runs}, not by {request.file}",
                f"采集进程使用的配置是 {runs}，不是 {request.file}",
            )
        try:
            checked = await asyncio.to_thread(self._check, mine, request)
        except DocumentError as error:
            told = [Told(str(p.file), p.path, p.line, p.text("en"), p.text("zh")) for p in error.problems]
            return Answer(
                "problems",
                f"{len(told)} mistakes in the configuration; nothing was changed",
                f"配置有 {len(told)} 处错误；未作任何更改",
                told,
            )
        except Exception as error:  # a third party's adapter may fail at its settings; what runs is not touched by that
            log.exception("the configuration cannot be checked")
            return Answer("failed", f"{mine}: {error}", f"{mine}：{error}")
        if request.action == "difference":
            return Answer(difference=checked.difference)
        return await self._apply(checked)

    def _check(self, file: Path, request: Request) -> _Checked:
        """In a worker thread: thousands of signals take a while, and nobody shall wait. Raises DocumentError, OSError."""
        files = read_files(file, request.text)
        problems = check_config(file, text=files.text)
        if problems:
            raise DocumentError(problems)
        config = load_config(file, text=files.text)
        plan = replace(resolve(config), gateway=self._collect.plan.gateway)  # who the gateway is, a start decides
        if request.action == "apply":
            plan = self._collect.points.number(plan)
            compared = plan
        else:
            compared = self._collect.points.preview(plan)
        return _Checked(config, plan, files, self._difference(config, compared))

    def _difference(self, config: Config, plan: Plan) -> Difference:
        from gateway.collect.role import same_link

        before = self._collect.plan
        old = {link.id: link for link in before.links}
        new = {link.id: link for link in plan.links}
        links = set(old.keys() ^ new.keys())
        links |= {name for name in old.keys() & new.keys() if not same_link(old[name], new[name])}
        return difference(before, plan, links, restart_sections(self._collect.config, config))

    async def _apply(self, checked: _Checked) -> Answer:
        await self._collect.reconfigure(checked.plan)
        try:
            kept = await asyncio.to_thread(self._history.keep, checked.files, self._collect.clock.now())
        except OSError as error:
            log.warning("applied, but not kept for a rollback: %s", error)
            return Answer(difference=checked.difference)
        changed = checked.difference
        log.info(
            "applied configuration %d: %d changes, links begun anew: %s",
            kept.number, len(changed.changes), ", ".join(changed.links) or "none",
        )  # fmt: skip
        return Answer(difference=changed, number=kept.number)


def _same_file(one: Path, other: str) -> bool:
    return one.resolve() == Path(other).resolve()
