"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["by_name", "lazy_names"]


def by_name(module: str, name: str) -> Any:
    """What a module defines, imported now; for a room that must not depend on a later one.

    >>> by_name("stmemory.errors", "OptionError").__name__
    'OptionError'
    """
    return getattr(importlib.import_module(module), name)


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A `__getattr__` for a package.

    Args:
        package: its name.
        homes: the module that defines each name.

    Returns:
        A function that imports what is asked for: one of these names, or a module of the package.

    >>> lazy_names("stmemory", {"OptionError": "stmemory.errors"})("OptionError").__name__
    'OptionError'
    """

    def get(name: str) -> object:
        if name in homes:
            found: object = by_name(homes[name], name)
            setattr(sys.modules[package], name, found)
            return found
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
