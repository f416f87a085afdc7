"""Asking the collector: its answer as the body of ours, and its failures as problems."""

from __future__ import annotations

from pathlib import Path

from gateway.api.language import Words
from gateway.api.problems import ParameterError, ProblemError, shorten
from gateway.apply import requests
from gateway.apply.requests import NoCollectorError
from gateway.looking.questions import Failure, Machine, Seen
from schemas.bilingual import Bilingual


async def asked(data_dir: Path, question: Machine) -> bytes:
    """What the collector of this data directory answers. Raises ProblemError."""
    try:
        return told(await requests.look(data_dir, question))
    except NoCollectorError as error:
        fix = Words("Start the gateway (`guantong run`).", "请启动网关（guantong run）。")
        raise ProblemError("no-collector", Words(error.en, error.zh), fix=fix, headers={"Retry-After": "5"}) from error
    except OSError as error:
        why = f"{error.filename or data_dir}: {error.strerror or error}"
        raise ProblemError("no-collector", Words(why, why)) from error


def told(seen: Seen) -> bytes:
    """The body of an answer. Raises the problem that a failure is."""
    if seen.failure is not None:
        raise problem_of(seen.failure)
    return bytes(seen.body)


_KINDS: dict[str, str] = {
    "invalid": "invalid-parameter", "invalid_table": "invalid-table", "config_broken": "invalid-configuration",
    "unknown_link": "not-found", "unknown_signal": "not-found", "unknown_device": "not-found",
    "busy": "look-busy", "too_slow": "look-timeout", "port_in_use": "port-in-use",
}  # fmt: skip
"""Reason of a failure -> kind of problem; every other reason is a machine's or an adapter's: `look-failed`."""


def problem_of(failure: Failure) -> ProblemError:
    """A failure as the API tells it."""
    errors = [
        ParameterError(found=shorten(m.found), place=m.place, detail=Bilingual(m.detail, m.detail_zh or m.detail))
        if m.place
        else ParameterError(m.parameter, shorten(m.found), Bilingual(m.detail, m.detail_zh or m.detail))
        for m in failure.mistakes
    ]
    return ProblemError(
        _KINDS.get(failure.reason, "look-failed"),
        Words(failure.en, failure.zh),
        fix=Words(failure.fix_en, failure.fix_zh),
        errors=errors,
        headers={"Retry-After": "2"} if failure.reason == "busy" else None,
        reason=failure.reason,
        details=failure.details,
    )
