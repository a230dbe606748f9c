"""Files that are written: whole or not at all, on the disk before they take their name, with a digest of every byte."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pictures import pack_tiny
from safetensors.torch import save_file
from tiny import tiny_network, tiny_prediction_network

from stmemory.errors import FileError, OptionError, StmemoryError, WeightsError
from stmemory.io.files import whole_file
from stmemory.memory import FusionCell, LearnedPolicy, MemoryBank, load_bank, save_bank
from stmemory.options import PredictionOptions, TrackingOptions
from stmemory.prediction.stream import FrameStream
from stmemory.stream import VOSStream
from stmemory.training.run_state import read_state, write_state
from stmemory.weights import load_part, save_part
from stmemory.weights.checkpoint import read_config
from stmemory.weights.tensors import load_policy, read_tensor_file, save_policy, write_tensor_file

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="needs os.fork and its locks of files"
)


def bank_of(seed: int) -> MemoryBank:
    """A bank of two rows that hold two templates each."""
    bank, generator = MemoryBank(3), torch.Generator().manual_seed(seed)
    for frame in range(2):
        with torch.no_grad():
            bank.write(torch.rand(2, 4, 3, 3, generator=generator), frame=frame)
    return bank


# All that is saved and read again: how it is written, and what it is when it is read.
WRITERS: dict[str, Callable[[Path, int], object]] = {
    "tensors": lambda path, seed: write_tensor_file(path, {"x": torch.full((40,), float(seed))}, {"words": str(seed)}),
    "bank": lambda path, seed: save_bank(bank_of(seed), path),
    "policy": lambda path, seed: save_policy(LearnedPolicy(hidden=4, seed=seed), path),
    "state": lambda path, seed: write_state(path, {"average": {"w": torch.full((40,), float(seed))}, "step": seed}),
}


def loaded_bank(path: Path) -> MemoryBank:
    bank = MemoryBank(3)
    load_bank(bank, path)
    return bank


READERS: dict[str, Callable[[Path], list[float]]] = {
    "tensors": lambda path: read_tensor_file(path, "tensors").tensors["x"].tolist(),
    "bank": lambda path: loaded_bank(path).templates.flatten().tolist(),
    "policy": lambda path: [value for t in load_policy(path).parameters() for value in t.flatten().tolist()],
    "state": lambda path: [*read_state(path)["average"]["w"].tolist(), read_state(path)["step"]],
}
each_kind = pytest.mark.parametrize("kind", WRITERS)


def in_a_child(work: Callable[[], object]) -> int:
    """Run it in a forked process, which then ends; the signal that ended it, 0 for none."""
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(process, 0)[1])


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@each_kind
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    """The same comes back, and equal content makes equal bytes."""
    WRITERS[kind](tmp_path / "a", 1)
    WRITERS[kind](tmp_path / "b", 1)
    WRITERS[kind](tmp_path / "c", 2)
    assert READERS[kind](tmp_path / "a") == READERS[kind](tmp_path / "b") != READERS[kind](tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@each_kind
def test_every_byte_counts(kind: str, tmp_path: Path) -> None:
    """A flipped bit, wherever in the file, is an error, or it changes nothing of what is read."""
    path, rng = tmp_path / "file", torch.Generator().manual_seed(0)
    WRITERS[kind](path, 1)
    whole, content = path.read_bytes(), READERS[kind](path)
    refused, places = 0, sorted({int(p) for p in torch.randint(len(whole), (300,), generator=rng)})
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert content == READERS[kind](path)
        except WeightsError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 0.9 * len(places)


def saved_stream(path: Path) -> None:
    stream, mask = VOSStream(tiny_network().eval(), TrackingOptions(memory_size=2)), torch.zeros(32, 32).long()
    mask[8:24, 8:24] = 1
    stream.step(torch.rand(3, 32, 32), mask)
    stream.save(path)


def saved_prediction(path: Path) -> None:
    stream = FrameStream(tiny_prediction_network().eval(), PredictionOptions(memory_size=2))
    stream.step(torch.rand(1, 32, 32))
    stream.save(path)


# Every file of tensors that the package writes.
SAVERS: dict[str, Callable[[Path], object]] = {
    **{kind: lambda path, kind=kind: WRITERS[kind](path, 1) for kind in WRITERS},
    "stream": saved_stream,
    "prediction stream": saved_prediction,
    "network": lambda path: save_part(tiny_network(), path),
    "fusion cell": lambda path: save_part(FusionCell(4), path),
    "material": lambda path: pack_tiny(path.with_name("images")),
}


@pytest.mark.parametrize("kind", SAVERS)
def test_rights_are_those_of_a_new_file(kind: str, tmp_path: Path) -> None:
    """What is saved can be read by whom the umask lets read it."""
    before = os.umask(0o027)
    try:
        SAVERS[kind](tmp_path / "file")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files and {0o640} == {stat.S_IMODE(file.stat().st_mode) for file in files}


@each_kind
def test_a_full_disk_is_an_error_that_names_the_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is stmemory's own and an OSError too; what was there before stays, and nothing else does."""
    path = tmp_path / "file"
    WRITERS[kind](path, 1)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="file: .* No space left") as error:
        WRITERS[kind](path, 2)
    assert isinstance(error.value, OSError) and isinstance(error.value, StmemoryError)
    assert [path] == list(tmp_path.iterdir()) and before == path.read_bytes()


@each_kind
def test_a_place_that_cannot_be_written_is_an_error(kind: str, tmp_path: Path) -> None:
    """A folder of that name, or a file where a folder should be, is an error that names the place."""
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "text").write_text("not a folder")
    for path in (tmp_path / "text" / "file", *([tmp_path / "folder"] if kind != "policy" else [])):
        with pytest.raises(FileError, match=str(path)):
            WRITERS[kind](path, 1)
    assert "not a folder" == (tmp_path / "text").read_text()
    assert ["folder", "text"] == sorted(file.name for file in tmp_path.iterdir())


@pytest.mark.parametrize("path", [io.BytesIO(), None, 3, "", "a\0b"], ids=["buffer", "None", "number", "empty", "NUL"])
def test_what_is_no_name_of_a_file_is_an_error(path: object) -> None:
    """An open file, None, a number, and names that no file can have are refused, for writing and for reading."""
    for use in (lambda p: save_bank(bank_of(1), p), lambda p: loaded_bank(p), lambda p: read_tensor_file(p, "tensors")):
        with pytest.raises(OptionError, match="expected the name of a file"):
            use(path)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file systems there take no such names")
@each_kind
def test_names_that_are_no_unicode(kind: str, tmp_path: Path) -> None:
    """What was saved under a Latin-1 name is read again from there."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xe4rz"))
    WRITERS[kind](path, 1)
    assert READERS[kind](path)


def test_names_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    """A name of 255 bytes can be written: the part beside it has a shorter one."""
    with whole_file(tmp_path / ("n" * 255)) as part:
        part.write_text("all")
    assert ["n" * 255] == [file.name for file in tmp_path.iterdir()]


def test_a_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is flushed, then the file renamed, then its folder flushed, and a folder that was made in its
    parent."""
    calls: list[tuple[str, str]] = []
    sync, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        calls.append(("sync", "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"))
        sync(handle)

    def replace(source: Path, target: Path) -> None:
        calls.append(("rename", target.name))
        rename(source, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", replace)
    with whole_file(tmp_path / "new" / "a.txt") as part:
        part.write_text("all")
    assert [("sync", "file"), ("rename", "a.txt"), *[("sync", "folder")] * 2] == calls


@needs_fork
@each_kind
def test_the_part_of_a_killed_save_goes_with_the_next(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before the rename leaves one part, however often; the next save removes it."""
    with monkeypatch.context() as dying:
        dying.setattr("os.replace", die)
        assert {signal.SIGKILL} == {in_a_child(lambda: WRITERS[kind](tmp_path / "file", 1)) for _ in range(3)}
    assert 1 == len(list(tmp_path.iterdir()))
    WRITERS[kind](tmp_path / "file", 2)
    assert ["file"] == [file.name for file in tmp_path.iterdir()]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Each writes to a part of its own, and the last to end gives the file."""
    path, parts = tmp_path / "a", []

    def other() -> None:
        with whole_file(path) as part:
            parts.append(part)
            part.write_text("other")

    with whole_file(path) as mine:
        mine.write_text("mine")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "other" == path.read_text() and "mine" == mine.read_text()
    assert [mine] != parts and "mine" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_lies_at_the_name_of_a_part_is_let_be(kind: str, tmp_path: Path) -> None:
    """A link there is not followed, a folder or a pipe not touched; the file is written all the same."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with whole_file(tmp_path / "a") as part:
        pass
    if kind == "link":
        part.symlink_to(victim)
    elif kind == "folder":
        part.mkdir()
    else:
        os.mkfifo(part)
    with whole_file(tmp_path / "a") as other:
        other.write_text("all")
    assert ("precious", "all") == (victim.read_text(), (tmp_path / "a").read_text())
    assert part.is_symlink() == (kind == "link") and os.path.lexists(part)


def test_errors_of_what_is_read_meanwhile_stay_what_they_are(tmp_path: Path) -> None:
    """A file that is missing while another is written is not said to be the one that cannot be written."""
    with pytest.raises(FileNotFoundError) as error, whole_file(tmp_path / "a"):
        (tmp_path / "missing").read_text()
    assert not isinstance(error.value, FileError)
    assert [] == list(tmp_path.iterdir())


# Files of earlier versions.


def test_banks_of_version_1_are_read(tmp_path: Path) -> None:
    """A file without a digest, as version 1 wrote it, gives the same bank."""
    bank = bank_of(1)
    about = {"format": "stmemory.bank", "version": "1", "capacity": "3", "policy": "least_similar"}
    save_file(bank.contents(), tmp_path / "bank", metadata=about)
    assert torch.equal(bank.templates, loaded_bank(tmp_path / "bank").templates)


def test_policies_of_version_1_are_read(tmp_path: Path) -> None:
    """A file without a digest, as version 1 wrote it, gives the same policy."""
    policy = LearnedPolicy(hidden=4, temperature=0.5, seed=3)
    about = {"format": "stmemory.policy", "version": "1", "temperature": "0.5"}
    save_file(policy.state_dict(), tmp_path / "policy", metadata=about)
    again = load_policy(tmp_path / "policy")
    assert 0.5 == again.temperature
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))


def test_states_of_runs_without_a_digest_are_read(tmp_path: Path) -> None:
    """What torch.save wrote is read as it was before there were digests."""
    torch.save({"average": {"w": torch.ones(3)}}, tmp_path / "state.pt")
    assert [1.0] * 3 == read_state(tmp_path / "state.pt")["average"]["w"].tolist()


def test_states_of_runs_are_read_by_torch_alone(tmp_path: Path) -> None:
    """The digest does not keep other programs from reading the file."""
    write_state(tmp_path / "state.pt", {"average": {"w": torch.ones(3)}})
    assert [1.0] * 3 == torch.load(tmp_path / "state.pt", weights_only=True)["average"]["w"].tolist()


@pytest.mark.parametrize("kind", ["bank", "policy"])
def test_a_file_that_lost_its_digest_is_refused(kind: str, tmp_path: Path) -> None:
    """A file of today's version without a digest is damaged."""
    WRITERS[kind](tmp_path / "file", 1)
    file = read_tensor_file(tmp_path / "file", "tensors")
    save_file(file.tensors, tmp_path / "file", metadata=file.about)
    with pytest.raises(WeightsError, match="digest"):
        READERS[kind](tmp_path / "file")


# Folders of weights.


def saved_scale(folder: Path) -> float:
    """What tells the cells below apart: a weight, and the width that the config holds."""
    cell = load_part(FusionCell, folder)
    return float(next(cell.parameters()).detach().flatten()[0]) + cell.channels


def cell_of(channels: int) -> FusionCell:
    cell = FusionCell(channels)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(0.5)
    return cell


@needs_fork
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_save_leaves_the_old_weights_or_the_new_ones(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before or after any rename of a save leaves weights that load, of one network whole; the next
    save tidies up."""
    rename, renames = os.replace, []

    def counted(source: Path, target: Path) -> None:
        renames.append(target)
        rename(source, target)

    with monkeypatch.context() as counting:
        counting.setattr("os.replace", counted)
        save_part(cell_of(4), tmp_path / "whole")
    found = []
    for fatal in range(len(renames)):
        folder = tmp_path / f"{when} {fatal}"
        save_part(cell_of(4), folder)

        def save() -> None:
            seen: list[Path] = []

            def replace(source: Path, target: Path) -> None:
                seen.append(target)
                if when == "before" and len(seen) > fatal:
                    die()
                rename(source, target)
                if len(seen) > fatal:
                    die()

            os.replace = replace
            save_part(cell_of(8), folder)

        assert signal.SIGKILL == in_a_child(save)
        found.append(saved_scale(folder))
        save_part(cell_of(6), folder)
        assert 6.5 == saved_scale(folder)
        assert ["README.md", "config.json", "model.safetensors"] == sorted(file.name for file in folder.iterdir())
        assert read_config(folder, "x").card == hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
    assert {4.5, 8.5} == set(found) and found == sorted(found)
