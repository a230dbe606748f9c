"""Names, paths, JSON and arrays of files: what is taken, and what is refused with an error that says why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from stmemory.errors import OptionError
from stmemory.formats.base import spool_beside
from stmemory.io.files import whole_file
from stmemory.io.untrusted import (
    checked_name,
    checked_path,
    expect_below,
    parse_json,
    read_array,
    read_json,
    shown,
    whole,
)

HOSTILE = {
    "empty": "",
    "itself": ".",
    "above": "..",
    "points and blanks": ".. .",
    "a folder in it": "a/b",
    "up": "../x",
    "up within": "a/../../x",
    "absolute": "/some/where",
    "of Windows": "..\\x",
    "a drive": "C:x",
    "a null": "a\0b",
    "two lines": "a\nb",
    "half a character": "a\ud800",
    "too long": "a" * 256,
    "too long in bytes": "é" * 128,
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_name_of_one_file_is_refused(name: str) -> None:
    """The message shows what was named, and where."""
    with pytest.raises(OptionError, match="meta.json: a clip: expected the name of one file"):
        checked_name(name, what="meta.json: a clip")


@pytest.mark.parametrize("name", [None, 3, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_no_name(name: object) -> None:
    """Whatever a file has in a name's place."""
    with pytest.raises(OptionError, match="is no text"):
        checked_name(name, what="a clip")


@pytest.mark.parametrize(
    "name", ["walk", "a b", ".hidden", "a..b", "..a", "12:30:15", "naïve", "日本", "a" * 255, os.fsdecode(b"\xff")]
)
def test_names_of_files_are_names(name: str) -> None:
    """Names that file systems have are taken as they are, those that are no UTF-8 too."""
    assert name == checked_name(name, what="a clip")


def test_an_ending_counts_for_the_length() -> None:
    """What is put after a name must fit too."""
    checked_name("a" * 251, what="a frame", ending=".png")
    with pytest.raises(OptionError, match="too long"):
        checked_name("a" * 252, what="a frame", ending=".png")


@pytest.mark.parametrize("path", [*HOSTILE.values(), "/a", "a//b", "a/./b", 3])
def test_paths_of_files_go_down_only(path: object) -> None:
    """A path that leads up, or begins at the root of a disk, is refused; so is one with a part that is no name."""
    if path == "a/b":
        assert Path("a/b") == checked_path(path, what="a picture")
    else:
        with pytest.raises(OptionError, match="a picture: expected a path below"):
            checked_path(path, what="a picture")


def test_links_are_followed_before_anything_is_written(tmp_path: Path) -> None:
    """A link that leads out of the folder is refused; one that stays inside is not, nor a folder that is one itself."""
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "out" / "away").symlink_to(tmp_path / "else")
    (tmp_path / "out" / "inside").symlink_to(tmp_path / "out" / "a")
    (tmp_path / "out" / "round").symlink_to(tmp_path / "out" / "round")
    (tmp_path / "other").symlink_to(tmp_path / "out")
    for name in ("away", "away/new", "../else"):
        with pytest.raises(OptionError, match="expected a place below"):
            expect_below(tmp_path / "out" / name, tmp_path / "out")
    expect_below(tmp_path / "out" / "inside" / "new", tmp_path / "out")

    expect_below(tmp_path / "other" / "a", tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "something else"),
        ("{", "something else"),
        ("[" * 100_000, "nested"),
        ("[" * 65 + "]" * 65, "nested deeper"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "too large"),
        (f"[{2**64}]", "64 bits"),
        ("9" * 10_000, "64 bits"),
        (b"\xff\xfe\xfd", "something else"),
        (b'["\xe9"]', "something else"),
        ('["a\nb"]', "something else"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, said: str) -> None:
    """Whatever Python's own reader takes, or fails at in its own words."""
    with pytest.raises(OptionError, match=f"expected JSON.*{said}"):
        parse_json(text)


def test_brackets_in_texts_are_no_levels() -> None:
    """Only lists and objects count, however many brackets stand in names and values."""
    values = {"[" * 100: ["]" * 100, "\\" * 7 + '"' + "{" * 100]}

    assert values == parse_json(json.dumps(values))
    with pytest.raises(OptionError, match="nested deeper"):
        parse_json('{"' + "]" * 100 + '": ' + "[" * 65 + "]" * 65 + "}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_files_are_read_as_editors_write_them(encoding: str, tmp_path: Path) -> None:
    """UTF-8 with or without a mark, and the encodings of Windows' tools."""
    (tmp_path / "a.json").write_bytes('{"a": "é", "b": [18446744073709551615, -0.5]}'.encode(encoding))

    assert {"a": "é", "b": [2**64 - 1, -0.5]} == read_json(tmp_path / "a.json")


def test_a_file_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    """A pipe is not waited for, a large file not held, and one that is not there is Python's own error."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("[1, 2, 3]")
    with pytest.raises(OptionError, match="pipe"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OptionError, match="at most 5 bytes"):
        read_json(tmp_path / "large", most=5)
    with pytest.raises(OptionError, match="null"):
        read_json("a\0b")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@pytest.mark.parametrize(
    "value",
    [None, True, "x", "1.5", "-1", "9" * 30, 1.5, -1, 2**31, float("inf"), float("nan"), [1], 10**400],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_count_is_refused(value: object) -> None:
    """The message says what was counted."""
    with pytest.raises(OptionError, match="height: expected a whole number from 0"):
        whole(value, what="height")


@pytest.mark.parametrize("value", [7, 7.0, "7", "007"])
def test_counts_are_whole_numbers(value: object) -> None:
    """Other tools write them as floats and as texts too."""
    assert 7 == whole(value, what="height", least=7, most=7)


@pytest.mark.parametrize("damage", [b"(alse", b"\0\0\0\0\0", b"[[[[[", b"'a':1"])
def test_a_damaged_array_is_told(damage: bytes, tmp_path: Path) -> None:
    """Whatever numpy raises for its header, a part of Python's grammar."""
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"False", damage))
    with pytest.raises(OptionError, match="a.npy: expected a .npy file"):
        read_array(tmp_path / "a.npy")


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    """Several arrays are told from one."""
    np.savez(tmp_path / "a.npz", a=np.zeros(1))
    with pytest.raises(OptionError, match="several arrays"):
        read_array(tmp_path / "a.npz")


@pytest.mark.parametrize("value", ["a" * 10_000, ["a"] * 10_000, {"a" * 10_000: 1}])
def test_messages_stay_short(value: object) -> None:
    """However long a value is."""
    assert len(shown(value)) < 100


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "a" * 229])
def test_every_name_that_the_disk_takes_can_be_written(name: str, tmp_path: Path) -> None:
    """A file is written under another name first, which fits as well; nothing else is left."""
    with whole_file(tmp_path / name) as part:
        part.write_text("all of it")
    with spool_beside(tmp_path / name) as spool:
        spool.append("7", [0])

    assert [name] == [path.name for path in tmp_path.iterdir()]


def test_files_of_long_names_do_not_mix(tmp_path: Path) -> None:
    """Two that differ at the end alone are written at the same time."""
    first, second = tmp_path / ("a" * 254 + "1"), tmp_path / ("a" * 254 + "2")
    with whole_file(first) as one, whole_file(second) as two:
        one.write_text("1")
        two.write_text("2")

    assert ["1", "2"] == [path.read_text() for path in (first, second)]
