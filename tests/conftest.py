"""What every test starts from: one thread, since steps are tiny, and the same random numbers; and signals for those
that send some."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM as a terminal's programs have them, here and in processes that are started: in a shell's
    background SIGINT is ignored, and processes inherit that."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before:
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
