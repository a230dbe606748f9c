"""Strips: clips side by side in one picture, to be looked at. Makes no clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.training.clips import Clip

__all__ = ["clip_strips"]

_COLOURS = ((255, 40, 40), (40, 220, 40), (60, 110, 255), (255, 200, 0), (240, 60, 240), (0, 220, 220))


def clip_strips(clips: Sequence[Clip], path: str | Path, *, masks: bool = True) -> None:
    """Write clips as a picture, one row each, with masks tinted over the frames.

    Args:
        clips: clips of one size and length.
        path: the file to write, whole or not at all; its suffix says its format, and PNG is any other.
        masks: tint the objects.

    Raises:
        OptionError: there is no clip.

    Example:
        >>> import torch
        >>> import tempfile
        >>> clip = Clip(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 8, 8, dtype=torch.uint8), "made")
        >>> target = Path(tempfile.mkdtemp()) / "sheet.png"
        >>> clip_strips([clip], target)
        >>> with Image.open(target) as sheet:
        ...     sheet.size
        (16, 8)
    """
    if not clips:
        raise OptionError("clips: expected at least one, got none")
    colours = np.array([(0, 0, 0), *(_COLOURS[i % len(_COLOURS)] for i in range(255))], dtype=np.float32)
    rows = []
    for clip in clips:
        frames = clip.frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
        ids = clip.ids.numpy()
        tinted = np.where((ids > 0)[..., None], 0.5 * frames + 0.5 * colours[ids], frames) if masks else frames
        rows.append(np.concatenate(list(tinted), axis=1))
    sheet, kind = (
        Image.fromarray(np.concatenate(rows).round().astype(np.uint8)),
        Image.registered_extensions().get(Path(path).suffix.lower()),
    )
    with whole_file(path) as part:
        sheet.save(part, kind or "PNG")
