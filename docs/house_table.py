"""Prints how the package was laid out at some commits: files, lines, circles of imports, long lines.

python docs/house_table.py [COMMIT ...] [--circles]

Without commits: the last one before the package was divided into rooms, and HEAD. Files are read from git. `--circles`
also lists the modules that import each other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE = "23e24c3"
HOUR = ("predictor", "stream", "memory/bank", "memory/policy", "memory/fusion", "memory/read")


def git(*arguments: str) -> str:
    """The output of a git command in this repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def sources(commit: str) -> dict[str, str]:
    """Text of every Python file of a commit, by its path."""
    paths = [path for path in git("ls-tree", "-r", "--name-only", commit).splitlines() if path.endswith(".py")]
    return {path: git("show", f"{commit}:{path}") for path in paths}


def module_of(path: str) -> str:
    """The dotted name of a file of the package."""
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a module but those that only type checkers see."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            waiting.extend(ast.iter_child_nodes(node))


def imports(package: dict[str, str]) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, anywhere in the file, packages left out."""
    modules = {module_of(path): text for path, text in package.items()}
    folders = {module_of(path) for path in package if path.endswith("__init__.py")}
    found: dict[str, set[str]] = {}
    for name, text in modules.items():
        names = set()
        for node in statements(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (full & set(modules)) or {node.module}
        found[name] = {other for other in names if other in modules and other != name and other not in folders}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - found
            found |= new
            waiting.extend(new)
        return found

    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def column(commit: str) -> dict[str, str]:
    """What the table says of a commit."""
    files = sources(commit)
    package = {path: text for path, text in files.items() if path.startswith("stmemory/")}
    graph = imports(package)
    importers = Counter(other for name, others in graph.items() for other in others)
    lines = {path: len(text.splitlines()) for path, text in package.items()}
    long = sum(len(row) > 120 for text in files.values() for row in text.splitlines())
    hour = [lines.get(f"stmemory/{name}.py", 0) for name in HOUR]
    found = circles(graph)
    return {
        "files": f"{len(package):,}",
        "lines": f"{sum(lines.values()):,}",
        "files directly in `stmemory/`": str(sum(path.count("/") == 1 for path in package)),
        "circles of imports (inside functions too): groups; modules in them": f"{len(found)}; {sum(map(len, found))}",
        "files that exactly one other file imports": str(sum(number == 1 for number in importers.values())),
        "lines over 120 columns, in all Python files": f"{long:,}",
        "lines of the six files to read": f"{sum(hour):,} ({', '.join(map(str, hour))})",
    }


def main(commits: list[str]) -> None:
    """Print a Markdown table with a column for each commit."""
    columns = [column(commit) for commit in commits]
    named = [git("rev-parse", "--short", commit).strip() for commit in commits]
    print(f"| | {' | '.join(named)} |\n|---{'|---' * len(commits)}|")
    for row in columns[0]:
        print(f"| {row} | {' | '.join(each[row] for each in columns)} |")
    if "--circles" in sys.argv:
        for commit in commits:
            package = {path: text for path, text in sources(commit).items() if path.startswith("stmemory/")}
            for circle in circles(imports(package)):
                print(f"{commit}: {', '.join(circle)}")


if __name__ == "__main__":
    main([argument for argument in sys.argv[1:] if argument != "--circles"] or [BEFORE, "HEAD"])
