"""What comes of a response: values, what a device says of them, and what it refuses and thereby teaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adapters.contract import Clock, Item, PointTrouble, Samples
from adapters.modbus._codec import Response
from adapters.modbus._device import PROBE_MOST, Answered, Block, Device, Hunt, Refused, Scan
from adapters.modbus._isolate import ILLEGAL_ADDRESS, ILLEGAL_VALUE, BadSpan, Defect, isolate
from schemas.bilingual import Bilingual, chinese
from schemas.status import BAD_DECODING_ERROR, modbus_exception

PASSING = (5, 6)
"""Exceptions that pass by themselves: acknowledge, busy (V1.1b3 §7)."""
BUSY_FIRST = 0.1
"""Seconds for which a device that says that it is busy is left alone; doubled each time, up to `BUSY_MOST`."""
BUSY_MOST = 1.0


class Harvest:
    """Turns responses into items. `values` and `overruns` are running totals."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.values = 0
        self.overruns = 0
        self.on_learned: Callable[[], None] = lambda: None
        """Called after a device has taught something about its registers, or about itself."""

    # ----------------------------------------------------------------------------------------------------------- scans

    def scanned(self, device: Device, scan: Scan, response: Response) -> Iterator[Item]:
        block = scan.pending[0]
        if response.code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) or response.short:
            code = response.code or ILLEGAL_VALUE  # a device that cuts its answer off means that too much was asked for
            yield from self._hunt(device, scan, block, code, response)
            return
        if response.code:
            yield self._exception(device, scan, block, response)
            if response.code not in PASSING:
                yield from self._troubled(device, block, response.code)
            return
        if device.identification.gave_values(response.received):
            self.on_learned()
        got = device.decoded(block, response.data)
        self.values += len(got.values)
        yield Samples(
            device.id, scan.group, response.received, got.points, got.values, status=got.status,
            complete_to=self._done(scan, response),
        )  # fmt: skip
        if device.troubles or got.told:
            yield from self._told(device, got)

    def _told(self, device: Device, got: Answered) -> Iterator[Item]:
        """What the values of a block say in words, and the end of what was said before."""
        for point in got.points:
            problem = got.told.get(point)
            if device.troubles.get(point) != problem:
                if problem is None:
                    del device.troubles[point]
                else:
                    device.troubles[point] = problem
                yield PointTrouble(device.id, point, problem)

    def _done(self, scan: Scan, response: Response) -> int | None:
        """The first block of the scan is done; the time up to which all is complete if it was the last."""
        scan.pending.popleft()
        scan.waits = 0
        if scan.pending:
            return None
        scan.reckon()
        self.overruns += scan.advance(self._clock.monotonic())
        scan.complete_to = response.received
        return response.received

    def _exception(self, device: Device, scan: Scan, block: Block, response: Response) -> Samples:
        points = block.points
        self.values += len(points)
        code = modbus_exception(response.code).status if response.code else BAD_DECODING_ERROR
        return Samples(
            device.id, scan.group, response.received, points, (None,) * len(points), status=(code,) * len(points),
            complete_to=self._done(scan, response),
        )  # fmt: skip

    def _troubled(self, device: Device, block: Block, code: int) -> Iterator[Item]:
        why, read = _explain(code), block.read
        problem = Bilingual(
            f"{block.table} registers {read.start:#06x} to {read.start + read.size - 1:#06x}: {why}",
            f"{block.table} 寄存器 {read.start:#06x} 至 {read.start + read.size - 1:#06x}：{chinese(why)}",
        )
        for point in block.points:
            if device.troubles.get(point) != problem:
                device.troubles[point] = problem
                yield PointTrouble(device.id, point, problem)

    # ------------------------------------------------------------------------------------- what the device refuses to give

    def _hunt(self, device: Device, scan: Scan, block: Block, code: int, response: Response) -> Iterator[Item]:
        """A block was refused: begin to look for the reason."""
        if scan.vain > 1:  # refused again and again, and each time nothing is found: a mood of the device
            yield self._exception(device, scan, block, response)
            return
        steps = isolate(sorted({value.span for value in block.read.values}), code)
        try:
            probe = next(steps)
        except StopIteration as found:
            yield from self._found(device, scan, block, found.value, response.received)
        else:
            scan.hunt = Hunt(block, code, steps, device.request(block.table, *probe))

    def hunted(self, device: Device, scan: Scan, hunt: Hunt, response: Response) -> Iterator[Item]:
        """The answer to one step of the search."""
        code = ILLEGAL_VALUE if response.short else response.code
        if code not in (0, ILLEGAL_ADDRESS, ILLEGAL_VALUE):
            scan.hunt = None
            yield self._exception(device, scan, hunt.block, response)
            return
        try:
            probe = hunt.steps.send(code)
        except StopIteration as found:
            scan.hunt = None
            yield from self._found(device, scan, hunt.block, found.value, response.received)
        else:
            hunt.request = device.request(hunt.block.table, *probe)

    def _found(self, device: Device, scan: Scan, block: Block, defect: Defect | None, received: int) -> Iterator[Item]:
        if defect is None:
            scan.vain += 1
            return
        if isinstance(defect, BadSpan):
            refused = device.quarantine(block.table, defect, self._clock.monotonic())
            yield from self.refused_rows(device, refused, received)
        else:
            device.learn(block.table, defect)
            device.taught_at = self._clock.now()
        self.on_learned()
        device.replan()
        device.continue_with(scan)
        if not scan.pending and scan.blocks:  # the refused block was the last, and nothing of it is left
            self.overruns += scan.advance(self._clock.monotonic())

    def refused_rows(self, device: Device, refused: Refused, received: int) -> Iterator[Item]:
        status = modbus_exception(refused.code).status
        problem = refusal(refused.table, *refused.span, refused.code)
        for group, value in refused.values:
            if value.point < 0:
                device.factors[value.point] = (None, status)
                continue
            yield Samples(device.id, group, received, (value.point,), (None,), status=(status,))
            yield PointTrouble(device.id, value.point, problem)

    def tried_again(self, device: Device, refused: Refused, response: Response) -> Iterator[Item]:
        now = self._clock.monotonic()
        if response.code or response.short:
            refused.delay = min(refused.delay * 2, PROBE_MOST)
            refused.due = now + refused.delay
            return
        device.release(refused, now)
        self.on_learned()
        device.replan()
        by_group: dict[str, list[int]] = {}
        for group, value in refused.values:
            by_group.setdefault(group, []).append(value.point)
            if value.point >= 0:
                yield PointTrouble(device.id, value.point, None)
        for group in by_group:
            tables = {refused.table: [value for own, value in refused.values if own == group]}
            for block in device.blocks(tables):
                got = device.decoded(block, response.data)
                self.values += len(got.values)
                yield Samples(device.id, group, response.received, got.points, got.values, status=got.status)


def refusal(table: str, start: int, size: int, code: int) -> Bilingual:
    """What people are told of a span that the device refuses on its own."""
    why = _explain(code)
    return Bilingual(
        f"{table} register {start:#06x} ({size} long): {why}",
        f"{table} 寄存器 {start:#06x}（长度 {size}）：{chinese(why)}",
    )


def _explain(code: int) -> str:
    exception = modbus_exception(code)
    return Bilingual(
        f"exception {code}, {exception.name}. {exception.text_en} {exception.fix_en}".strip(),
        f"异常码 {code}（{exception.name}）。{exception.text_zh}{exception.fix_zh}",
    )
