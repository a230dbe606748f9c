"""The fuzzer of structured files (`fuzz_files.py`), in small: it finds nothing, and it would find something."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fuzz_files import TARGETS, Target, fuzz, outcome, written

from stmemory.errors import OptionError


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_undamaged_files_are_read(target: Target, tmp_path: Path) -> None:
    """What is damaged is what the library reads, so a case that is refused was refused for its damage."""
    target.make(tmp_path)

    assert ("read", "") == outcome(target, tmp_path)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_are_errors_of_the_library(target: Target) -> None:
    """Of some damaged files of each kind none raises anything else, takes long, or has a file beside it deleted."""
    assert {} == dict(fuzz(12, seed=3, targets=[target]).faults)


def _raise_raw(folder: Path) -> None:
    raise KeyError(folder)


def _raise_ours(folder: Path) -> None:
    raise OptionError("expected a file, got another")


def _delete_beside(folder: Path) -> None:
    (folder / ".." / "victim" / "photo.txt").unlink()


@pytest.mark.parametrize(
    ("read", "faults"), [(_raise_raw, 5), (_delete_beside, 5), (_raise_ours, 0)], ids=["raw", "deletes", "ours"]
)
def test_faults_are_found(read: object, faults: int) -> None:
    """A reader with a fault has one in each case, a reader without has none."""
    target = Target("a list", lambda folder: written(folder / "a.json", [1, 2]), read)

    assert faults == sum(fuzz(5, targets=[target]).faults.values())


def test_equal_seeds_give_equal_cases() -> None:
    """What was found can be found again."""
    seen: list[bytes] = []
    target = Target(
        "a list",
        lambda folder: written(folder / "a.json", [1, 2, 3]),
        lambda folder: seen.append((folder / "a.json").read_bytes()),
    )
    for seed in (0, 0, 1):
        fuzz(20, seed=seed, targets=[target])

    assert seen[:20] == seen[20:40] != seen[40:]
    assert 5 < len(Counter(seen[:20]))
