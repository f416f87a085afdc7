"""A unit number on the link: when it is asked next, and whether it lives."""

from __future__ import annotations

import math
from collections.abc import Iterator

from adapters.modbus._device import Device, Refused, Scan

BACKOFF_FIRST = 1.0
"""Seconds that a silent unit is left alone; doubled each time."""
BACKOFF_MOST = 60.0
IDENTIFY_WITHIN = 1.0
"""Seconds for which the question who a device is gives way to values."""
TRIAL_WITHIN = 1.0
"""Seconds for which the trial of a refused address gives way to values."""
PATIENCE_MOST = 10.0
"""Seconds for which the trial of a silent unit waits at most for a time when it costs the others nothing."""


class Unit:
    """One unit number on the link, with the devices that sit behind it."""

    def __init__(self, number: int, devices: list[Device]) -> None:
        self.number = number
        self.devices = devices
        self.identification = devices[0].identification
        self.identification.enabled = all(device.identification.enabled for device in devices)
        for device in devices:
            device.identification = self.identification
        self.pause = max(device.rules.pause for device in devices)
        self.timeout = max(device.rules.timeout for device in devices)
        scans = [(device, scan) for device in devices for scan in device.scans.values()]
        self._only = scans[0] if len(scans) == 1 else None
        """Nothing has to be chosen while the device refuses nothing."""
        self.misses = 0
        self.delay = BACKOFF_FIRST
        self.down = False
        self.by_time_out = False
        """It is down by silence, not by what a gateway says of it."""
        self.hung_up = False
        """The peer closed the connection when it was asked, as some gateways do for a unit that they do not reach."""
        self.last_life: int | None = None
        """When it answered last, in µs."""
        self.retry_at = 0.0
        self.patience = 0.0
        """When it is asked again even if that costs the others their time."""
        self.free_at = 0.0
        self.turn = 0
        """Its last turn among those of all units."""
        self.wake = math.inf
        """When it has something to do next, in monotonic seconds."""

    @property
    def readable(self) -> bool:
        """Whether there is anything to ask it for."""
        return any(device.refused or any(scan.blocks for scan in device.scans.values()) for device in self.devices)

    def scans(self) -> list[Scan]:
        """The scans of all of its devices."""
        return [scan for device in self.devices for scan in device.scans.values()]

    def begin(self) -> None:
        """A new session: everything is tried at once, except what may have ended the last one."""
        if not self.hung_up:
            self.retry_at = 0.0
            self.delay = BACKOFF_FIRST
        self.free_at = self.patience = 0.0
        self.identification.begin()
        for device in self.devices:
            for refused in device.refused.values():
                if refused.recalled:
                    refused.recalled = False
                    continue
                refused.due = 0.0  # a device that was away may have been loaded with another program

    def settle(self) -> None:
        """Reckons `wake` anew, after anything of it has changed."""
        due = min(device.next_due() for device in self.devices)
        if self.identification.wanted:
            due = 0.0
        self.wake = max(due, self.retry_at, self.free_at)

    def next_work(self, now: float) -> tuple[Device, Scan | Refused]:
        """What has the earliest deadline; of what is late, what has waited longest. Only when `wake` has come."""
        if self._only is not None and not self._only[0].refused:
            return self._only
        best: tuple[float, float, Device, Scan | Refused] | None = None
        for device in self.devices:
            for scan in device.scans.values():
                if scan.due <= now:
                    deadline = max(scan.due + scan.period, now)
                    if best is None or (deadline, scan.due) < best[:2]:
                        best = (deadline, scan.due, device, scan)
            for refused in device.refused.values():
                if refused.due <= now:
                    deadline = max(refused.due + TRIAL_WITHIN, now)
                    if best is None or (deadline, refused.due) < best[:2]:
                        best = (deadline, refused.due, device, refused)
        assert best is not None, "wake is never before the first slot"
        return best[2], best[3]

    def deadline(self, now: float) -> float:
        """Until when it should be asked, at least `now`: what is late is late. Only when `wake` has come."""
        if self.identification.wanted and min(device.next_due() for device in self.devices) > now:
            return now + IDENTIFY_WITHIN  # once it has values to give, it is asked in their place
        _, work = self.next_work(now)
        return max(work.due + (TRIAL_WITHIN if isinstance(work, Refused) else work.period), now)

    def answered(self, received: int, now: float) -> bool:
        """It lives, since `received` (µs). Returns whether it was down until now. Slots of an outage are left behind, and are no overruns."""
        self.last_life = received
        self.hung_up = False
        if not self.misses and not self.down:
            return False
        self.misses = 0
        self.delay = BACKOFF_FIRST
        self.retry_at = 0.0
        for scan in self.scans():
            scan.unanswered = 0
            if scan.due != math.inf:
                scan.skip(now)
        was_down, self.down = self.down, False
        if was_down:
            self.identification.begin()
        return was_down

    def passed_by(self, now: float) -> Iterator[tuple[Device, Scan, int]]:
        """The scans of which values may be lost, since it did not answer in time and was not down yet, and how many: those are in no outage.

        Slots that went by, or answers that came too late for their request, which the device had read and handed out all the same.
        """
        if self.misses and not self.down:
            for device in self.devices:
                for scan in device.scans.values():
                    if lost := max(scan.over(now), scan.unanswered):
                        yield device, scan, lost

    def missed(self, now: float, jitter: float, *, by_time_out: bool) -> None:
        """It did not answer: it is left alone for a while (times `jitter`), and its scans begin again after that.

        One that has lived until now is asked again at once, so that a dead one is found soon, and a lost frame costs little.
        """
        self.misses += 1
        self.by_time_out = by_time_out
        if self.misses == 1 and self.last_life is not None and not self.down:
            self.retry_at = self.patience = now
        else:
            self.retry_at = now + self.delay * jitter
            self.patience = self.retry_at + min(self.delay, PATIENCE_MOST)
            self.delay = min(self.delay * 2, BACKOFF_MOST)
        for scan in self.scans():
            scan.restart()
