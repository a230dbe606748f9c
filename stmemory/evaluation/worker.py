"""One clip's evaluation into a folder, the same wherever it runs: here, in another process, on another machine.

Owns what is written when, so that an interruption loses nothing finished. Knows nothing of how clips are spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError, StmemoryError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.protocol import ClipResult, Predictor, evaluate_clip
from stmemory.evaluation.run_folder import RunFolder
from stmemory.inventory import usable_device
from stmemory.memory.learned import LearnedPolicy
from stmemory.options import TrackingOptions
from stmemory.palette import write_palette_png
from stmemory.predictor import VOSPredictor

__all__ = ["News", "Setup", "evaluate_and_tell", "evaluate_into"]

# What ends one clip's evaluation and not the run.
FAILURES = (StmemoryError, OSError, MemoryError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to make the predictor; plain values, so that it can travel.

    Attributes:
        weights: bundled name, folder or repository; None is the default.
        options: how to track.
        device: where to compute.
        threads: of torch on the CPU; None leaves them as they are.
        revision: of a repository; `run_evaluation` makes it a commit, so that all load the same.
    """

    weights: str | None
    options: TrackingOptions
    device: str = "cpu"
    threads: int | None = None
    revision: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Travel with a learned policy as plain arrays: tensors would go through shared memory, which not every machine
        has."""
        policy, options, arrays = self.options.policy, self.options, None
        if isinstance(policy, LearnedPolicy):
            options = dataclasses.replace(options, policy="learned")
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in policy.state_dict().items()}
        return _arrived, (Setup, (self.weights, options, self.device, self.threads, self.revision), arrays)

    def predictor(self) -> VOSPredictor:
        """Make the predictor, and set the threads of this process.

        Raises:
            WeightsError: there are no such weights.
            OptionError: there is no such device.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = usable_device(self.device)
        return VOSPredictor.from_pretrained(self.weights, options=self.options, device=device, revision=self.revision)


def _arrived(kind: type[Setup], fields: tuple[Any, ...], arrays: Mapping[str, NDArray[np.float32]] | None) -> Setup:
    """A setup that has travelled."""
    setup = kind(*fields)
    if arrays is None:
        return setup
    policy = LearnedPolicy(hidden=len(arrays["remove_score.0.bias"])).eval()
    policy.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return dataclasses.replace(setup, options=dataclasses.replace(setup.options, policy=policy))


@dataclass(frozen=True)
class News:
    """What a worker tells.

    Attributes:
        clip: the clip's name.
        frames: frames of it that are done.
        result: its scores, which are on disk; None while it is under way.
        error: why it was given up; None unless it was.
    """

    clip: str
    frames: int
    result: ClipResult | None = None
    error: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing more will be told of the clip."""
        return self.result is not None or self.error is not None


def evaluate_and_tell(
    predictor: Predictor, clip: Clip, folder: RunFolder, *, on_frame: Callable[[int], None] | None = None
) -> News:
    """Evaluate a clip as `evaluate_into` does, and say how it ended, well or not.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        folder: of the run.
        on_frame: called with the number of frames done.

    Returns:
        The last news of the clip. Errors that are not of one clip alone are raised.

    >>> from pathlib import Path
    >>> evaluate_and_tell(None, Clip("walk", (), (), ()), RunFolder(Path("no/such/folder"))).last
    True
    """
    try:
        return News(clip.name, len(clip), evaluate_into(predictor, clip, folder, on_frame=on_frame))
    except FAILURES as error:
        return News(clip.name, len(clip), error=str(error) or type(error).__name__)


def evaluate_into(
    predictor: Predictor, clip: Clip, folder: RunFolder, *, on_frame: Callable[[int], None] | None = None
) -> ClipResult:
    """Evaluate a clip, write its masks as they come, and its scores when all is done.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        folder: of the run; what is there of the clip is replaced.
        on_frame: called with the number of frames done.

    Returns:
        The scores.

    Raises:
        StmemoryError: see `evaluate_clip`.
        OptionError: the run's folder is not to be seen from here.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as path:
    ...     evaluate_into(None, Clip("walk", (), (), ()), RunFolder(Path(path)))
    Traceback (most recent call last):
    stmemory.errors.OptionError: run.json: expected it in the output folder, got none there; all machines must see that
    folder under the same path
    """
    if not folder.record.is_file():
        raise OptionError(
            f"{folder.record.name}: expected it in the output folder, got none there; all machines must see that "
            "folder under the "
            "same path"
        )
    folder.clear(clip.name)

    def keep(index: int, ids: NDArray[np.int32]) -> None:
        if clip.asked is None or index in clip.asked:
            write_palette_png(folder.mask_of(clip, index), ids)
        if on_frame is not None:
            on_frame(index + 1)

    result = evaluate_clip(predictor, clip, on_frame=keep)
    folder.finish(clip, result)
    return result
