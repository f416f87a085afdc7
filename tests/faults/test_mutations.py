"""The list of mutations belongs to the source as it is."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS, ROOT, Copy, Mutation, problems


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_tried(mutation: Mutation) -> None:
    """Whoever changes a mechanism's text, or renames its test, mends the list and runs `python -m tests.faults.mutations NAME`."""
    assert problems(mutation) == []
    assert mutation.old != mutation.new
    source = (ROOT / mutation.file).read_text(encoding="utf-8").replace(mutation.old, mutation.new)
    compile(source, mutation.file, "exec")


def test_names_are_distinct() -> None:
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1


def test_the_tests_are_collected() -> None:
    """A name in a file may be a comment: pytest itself must know each of them."""
    tests = sorted({test for mutation in MUTATIONS for test in mutation.test.split()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mechanism_that_is_taken_out_is_missed(tmp_path: Path) -> None:
    """The runner finds what the tests find, and puts the text back."""
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == "replay-back")
    copy = Copy(tmp_path)
    passed, output = copy.run(mutation.test.split())
    assert passed, output
    assert copy.try_one(mutation).killed
    assert problems(mutation, copy.folder) == []
