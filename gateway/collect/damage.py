"""That the outbox was damaged, and what became of it: an event in the history, and a state for as long as the damaged file lies there."""

from __future__ import annotations

import uuid
from pathlib import Path

from gateway.collect.budget import Health
from gateway.ledger.opening import damaged_files
from gateway.ledger.salvage import Salvaged
from schemas.bilingual import Bilingual
from schemas.wire import Event


class Damage:
    """See the module. `salvaged`: what was done at this start, if anything; `path`: the outbox."""

    def __init__(self, salvaged: Salvaged | None, path: Path) -> None:
        self._salvaged = salvaged
        found = damaged_files(path)
        self._aside = found[-1] if found else None
        self._notice: Health | None = None
        if self._aside is not None:
            self._notice = Health("degraded", self._reason(self._aside), _fix(self._aside))

    def notice(self) -> Health | None:
        """A state with reason and fix until a person has taken the damaged file away."""
        if self._notice is not None and self._aside is not None and not self._aside.exists():
            self._notice = None
        return self._notice

    def event(self, now: int) -> Event | None:
        """What is told once, at the start that found it. `now` in µs."""
        found = self._salvaged
        if found is None:
            return None
        reason = self._reason(found.aside)
        fields = {"messages": found.messages, "missing": found.lost, "file": found.aside.name, "why": str(found.why)}
        return Event(str(uuid.uuid4()), now, None, "", "", "outbox_damaged", 800, reason.zh, str(reason), fields)

    def _reason(self, aside: Path) -> Bilingual:
        found = self._salvaged
        if found is None:
            return Bilingual(
                f"the outbox was damaged at an earlier start; the damaged file is {aside}",
                f"发件箱在以前某次启动时已损坏；损坏的文件是 {aside}",
            )
        return Bilingual(
            f"the outbox was damaged: {found.messages} messages saved, {found.lost} known to be missing (gap lost); the damaged file is {aside}",
            f"发件箱曾损坏：已保存 {found.messages} 条消息，已知缺少 {found.lost} 条（缺口 lost）；损坏的文件是 {aside}",
        )


def _fix(aside: Path) -> Bilingual:
    return Bilingual(
        f"Collecting goes on. Check the disk; then delete {aside.name}, or keep it elsewhere.",
        f"采集仍在继续。请检查磁盘，然后删除 {aside.name} 或移到别处。",
    )
