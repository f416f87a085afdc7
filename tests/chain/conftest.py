"""Fixtures of the end-to-end tests; the logs of all processes are shown when a test fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chain.installation import Installation, Workshop

_INSTALLED = pytest.StashKey[list[Installation]]()
InstallationFactory = Callable[..., Installation]
WorkshopFactory = Callable[..., Workshop]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the processes wrote last to the report of a failure."""
    report = yield
    if report.failed:
        for installation in item.stash.get(_INSTALLED, []):
            report.sections += [(f"log of {name}", text) for name, text in installation.logs().items()]
    return report


@pytest.fixture
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InstallationFactory]:
    """Makes installations with the parameters of `Installation`; ended after the test."""
    made = request.node.stash.setdefault(_INSTALLED, [])
    with ExitStack() as stack:

        def factory(*parameters: object, **more: object) -> Installation:
            folder = tmp_path / f"gateway-{len(made)}"
            folder.mkdir()
            installation = stack.enter_context(Installation(folder, *parameters, **more))  # type: ignore[arg-type]
            made.append(installation)
            return installation

        yield factory


@pytest.fixture
def open_workshop(tmp_path: Path) -> Iterator[WorkshopFactory]:
    """Makes and starts workshops with the parameters of `Workshop`; ended after the test."""
    with ExitStack() as stack:

        def factory(**parameters: object) -> Workshop:
            workshop = Workshop(tmp_path, **parameters)  # type: ignore[arg-type]
            stack.callback(workshop.process.kill)
            workshop.start()
            return workshop

        yield factory
