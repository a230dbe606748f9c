"""Types of numbers on the command lines of training. Runs nothing."""

from __future__ import annotations

import argparse

__all__ = ["one_or_more", "zero_or_more"]


def zero_or_more(text: str) -> int:
    """A whole number from 0 on.

    Raises:
        ArgumentTypeError: it is something else.

    >>> zero_or_more("0")
    0
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def one_or_more(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        ArgumentTypeError: it is something else.

    >>> one_or_more("2")
    2
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)
