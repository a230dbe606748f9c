"""Facts about the example that measures SAM 2's session beside a stream. Needs the extras `sam2` and `plot`."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_examples import _load


def test_the_growth_example_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over twelve frames the session gains a picture at least at each; the stream has the same bytes from the ninth
    on."""
    pytest.importorskip("transformers", reason="needs the extra `sam2`")
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    ours, theirs = _load("sam2_growth").main(str(tmp_path), frames=12, side=128).values()

    assert 1 == len(set(ours.bank_bytes[8:].tolist()))
    assert min(theirs.bank_bytes[1:] - theirs.bank_bytes[:-1]) > 3 * 4 * 128**2
    assert (tmp_path / "growth.png").is_file() and "a frame (median)" in capsys.readouterr().out
