"""The documentation runs: every Python block of README.md, CONTRIBUTING.md and docs/pages is executed, one namespace a
page.

A block with `<!-- not run: reason -->` on the line before it is left out. The files that the pages use, a clip and the
mask of its first frame, are made in a temporary folder, which is the working directory.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import runpy
import shutil
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_house import ROOMS

import stmemory
from stmemory.io.palette import write_palette_png
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.synthesis.clips import ClipConfig

ROOT = Path(__file__).parents[1]
SITE = sorted((ROOT / "docs" / "pages").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
HEIGHT, WIDTH, FRAMES = 48, 64, 7

FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is in, where it begins (line of its code, from 1), and whether it is to be run."""

    language: str
    code: str
    line: int
    run: bool


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        run = NOT_RUN.search(before) is None
        found.append(Block(match["language"].strip(), match["code"], before.count("\n") + 2, run))
    return found


def python_blocks(page: Path) -> list[Block]:
    """What is executed of a page."""
    return [block for block in blocks_of(page.read_text(encoding="utf-8")) if block.language == "python" and block.run]


def name(page: Path) -> str:
    """A page's path below the root."""
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `clip.mp4`, `frames/` and `first.png`, a bright square that moves over grey, and the like in
    `demo/`."""
    pytest.importorskip("av", reason="the pages read a video file, which needs the extra `video`")
    from stmemory.io.video import write_video

    pictures = np.full((FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8)
    for t in range(FRAMES):
        pictures[t, 12:32, 10 + 3 * t : 30 + 3 * t] = (230, 60, 40)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[12:32, 10:30] = 1
    write_video(tmp_path / "clip.mp4", list(pictures))
    (tmp_path / "frames").mkdir()
    for t, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{t:05d}.png")
    write_palette_png(tmp_path / "first.png", mask)
    (tmp_path / "demo").mkdir()
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "demo" / "clip.mp4")
    write_palette_png(tmp_path / "demo" / "first.png", mask * 5)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are tiny
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=name)
def test_page_runs(page: Path, working_folder: Path) -> None:
    """Every Python block of a page runs after those before it, and does what its asserts say."""
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in python_blocks(page):
        code = compile("\n" * (block.line - 1) + block.code, name(page), "exec", dont_inherit=True)
        exec(code, namespace)


def test_readme_tracks_a_clip(working_folder: Path) -> None:
    """The first lines of the README leave a mask for every frame of the clip."""
    exec(python_blocks(ROOT / "README.md")[0].code, {"__name__": "__page__"})

    assert [f"{t:05d}.png" for t in range(FRAMES)] == sorted(path.name for path in (working_folder / "masks").iterdir())


def test_readme_has_two_commands() -> None:
    """The README has the two set-up commands, one line each, behind the markers that the checks look for."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^<!-- command: (\w+) -->\n```sh\n([^\n]+)\n```$", text, re.MULTILINE)

    assert ["demo", "test"] == [marker for marker, _ in found]
    assert [True, True] == [command.startswith("python3 -m venv .venv && ") for _, command in found]


def test_every_page_is_in_the_navigation() -> None:
    """No page of the documentation is left out of its table of contents."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs" / "pages").as_posix() for page in SITE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page is there."""
    text = COMMENT.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]

    assert [] == [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]


def documented(path: str) -> object:
    """The module, class or function that a directive `::: path` of the API page names."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        owner, _, member = path.rpartition(".")
        return getattr(documented(owner), member)


API_PAGE = (ROOT / "docs" / "pages" / "api.md").read_text(encoding="utf-8")
API_PACKAGES = re.findall(
    r"`(stmemory[\w.]*)`", API_PAGE.partition("These packages are public: ")[2].partition("\n")[0]
)


@pytest.mark.parametrize("package", API_PACKAGES)
def test_the_api_page_documents_every_public_name(package: str) -> None:
    """Each name in `__all__` of the packages that the API page lists is documented there."""
    shown: set[int] = set()
    for path in re.findall(r"^::: (\S+)$", API_PAGE, re.MULTILINE):
        found = documented(path)
        members = (
            [getattr(found, member) for member in found.__all__] if isinstance(found, types.ModuleType) else [found]
        )
        shown |= {id(member) for member in members}
    names = importlib.import_module(package)
    missing = [name for name in names.__all__ if name != "__version__" and id(getattr(names, name)) not in shown]
    constants = [name for name in names.__all__ if not callable(getattr(names, name))]

    assert [] == missing
    assert [] == [name for name in constants if f"| `{package}.{name}` |" not in API_PAGE]


def test_the_api_page_documents_nothing_twice() -> None:
    """Each directive of the API page stands there once, and the page names the public packages."""
    directives = re.findall(r"^::: (\S+)$", API_PAGE, re.MULTILINE)

    assert sorted(set(directives)) == sorted(directives)
    assert {"stmemory", "stmemory.memory", "stmemory.weights", "stmemory.formats", "stmemory.evaluation"} < set(
        API_PACKAGES
    )


def settings_tables() -> dict[str, dict[str, str]]:
    """Names and defaults of the tables of the page of settings, by heading."""
    text = (ROOT / "docs" / "pages" / "guide" / "training-settings.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        heading: dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", body, re.MULTILINE))
        for heading, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize(
    ("heading", "record", "elsewhere"),
    [
        ("The run", TrainingConfig(), set()),
        ("A phase", Phase(), set()),
        ("A source", Source(), set()),
        ("What clips look like", ClipConfig(), {"size", "frames", "max_objects", "gap"}),
    ],
    ids=["run", "phase", "source", "clips"],
)
def test_the_page_of_settings_has_all_of_them(heading: str, record: Any, elsewhere: set[str]) -> None:
    """Every field of a configuration stands in its table with its default; the fields of clips that a phase has stand
    there."""
    expected = {
        f.name: json.dumps(getattr(record, f.name))
        for f in dataclasses.fields(record)
        if f.name not in elsewhere and f.name != "phases"
    }
    if heading == "The run":
        expected |= {"phases": "one", "sources": "[]"}

    assert expected == settings_tables()[heading]


def test_the_page_on_contributing_is_the_file_at_the_root() -> None:
    """The built page on contributing has the text of CONTRIBUTING.md, with links that are right in docs/pages."""
    hook = runpy.run_path(str(ROOT / "docs" / "include_contributing.py"))["on_page_markdown"]
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="contributing.md"))
    text = hook("a pointer", page=page)
    other = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="index.md"))

    assert "## Add an update policy" in text
    assert [] == [
        target
        for target in re.findall(r"\]\(([^)\s#]+)", COMMENT.sub("", FENCE.sub("", text)))
        if not (ROOT / "docs" / "pages" / target).exists()
    ]
    assert "another page" == hook("another page", page=other)


def test_the_hour_of_reading() -> None:
    """The README's list of files to read names files that exist, with their lines to within 10 %."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Read the code")[2].partition("\n## ")[0]
    listed = re.findall(r"^\d\. \[`([^`]+)`\]\(([^)]+)\), (\d+) lines", text, re.MULTILINE)
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for _, path, _ in listed}
    total = re.search(r"([\d,]+) lines in all", text)

    assert ["predictor", "stream", "memory/bank", "memory/policy", "memory/fusion", "memory/read"] == [
        path.removeprefix("stmemory/").removesuffix(".py") for path in lines
    ]
    assert all(name == path for name, path, _ in listed)
    assert [] == [(path, lines[path]) for _, path, said in listed if abs(int(said) - lines[path]) > lines[path] / 10]
    assert total is not None
    assert abs(int(total[1].replace(",", "")) - sum(lines.values())) <= sum(lines.values()) / 10


def test_the_map_of_rooms_has_every_room() -> None:
    """The table of rooms in CONTRIBUTING.md names each folder and each file of the package, in the order of rooms."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    cells = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))
    named = re.findall(r"`(\w+(?:/|\.py))`", cells)
    package = ROOT / "stmemory"
    expected = {f"{path.parent.name}/" for path in package.glob("*/*.py")}
    expected |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    rooms = [name.removesuffix("/") for name in named if name.endswith("/")]

    assert sorted(expected) == sorted(named)
    assert rooms == sorted(rooms, key=ROOMS.index)


def test_the_changelog_has_a_heading_for_the_version() -> None:
    """The first heading of CHANGELOG.md is for changes to come, the second for this version, whose faults that no
    release had are not listed as fixed."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert ["Unreleased", stmemory.__version__] == re.findall(r"^## \[([^]]+)\]", text, re.MULTILINE)[:2]
    assert "### Fixed" not in text.partition("## [0.1.0]")[2]


def test_circles_are_groups_of_modules_that_import_each_other() -> None:
    """The table of the layout counts a circle once, however many ways lead around it, and no chain."""
    circles = runpy.run_path(str(ROOT / "docs" / "house_table.py"))["circles"]

    assert [["a", "b", "c"], ["d", "e"]] == circles(
        {"a": {"b"}, "b": {"a", "c"}, "c": {"a"}, "d": {"e"}, "e": {"d", "a"}, "f": {"a"}}
    )


CASES = [
    ("```python\na = 1\n```\n", [("python", "a = 1\n", 2, True)]),
    ("one\n\n<!-- not run: needs a camera -->\n```python\na\n```\n", [("python", "a\n", 5, False)]),
    ("<!-- not run: -->\n```python\na\n```\n", [("python", "a\n", 3, True)]),
    ("<!-- not run: far -->\nwords\n```python\na\n```\n", [("python", "a\n", 4, True)]),
    ("```sh\nls\n```\n\n```python\nb\n```\n", [("sh", "ls\n", 2, True), ("python", "b\n", 6, True)]),
    ("words, `code` and no block\n", []),
]


@pytest.mark.parametrize(
    ("text", "expected"), CASES, ids=["plain", "not-run", "without-reason", "marker-not-just-before", "two", "none"]
)
def test_blocks(text: str, expected: list[tuple[str, str, int, bool]]) -> None:
    """Blocks are found with their language and line, and left out only with a reason just before them."""
    assert expected == [(block.language, block.code, block.line, block.run) for block in blocks_of(text)]


def test_policies_are_drawn() -> None:
    """The picture of the update policies is drawn by the policies themselves."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_pictures.py"))
    drawn = script["draw_policies"]()
    with Image.open(ROOT / "docs" / "pages" / "images" / "policies.png") as shown:
        assert shown.size == drawn.size
