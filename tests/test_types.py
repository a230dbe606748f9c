"""The named types of inputs as facts: what a type checker takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import stmemory

HEAD = """\
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory import FramePredictor, Prompt, VOSPredictor, VOSStream
from stmemory.formats import export, read_davis
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.io.live import LiveSource
from stmemory.io.masks import to_object_masks
from stmemory.sam2 import VideoPredictor
from stmemory.session import ClipReader, ClipSession
from stmemory.types import ClipLike, FrameLike, MaskLike, VideoLike

video = np.zeros((3, 48, 64, 3), np.uint8)
frame = np.zeros((48, 64, 3), np.uint8)
mask = np.zeros((48, 64), np.uint8)
tensor = torch.zeros(3, 48, 64)
image = Image.new("L", (64, 48))
some: NDArray[np.uint8] = frame  # its shape is not known, as that of most arrays
flags: NDArray[np.bool_] = mask > 0


class Pictures:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return tensor


class Foreign:
    def __array__(self) -> NDArray[np.float32]:
        return frame.astype(np.float32)


def frames() -> Iterator[NDArray[np.uint8]]:
    yield some


def calls(
    predictor: VOSPredictor, stream: VOSStream, session: ClipSession, shim: VideoPredictor, ahead: FramePredictor
) -> None:
"""

GOOD = [
    "predictor.track(video, mask)",
    "predictor.track(video, mask > 0)",
    "predictor.track(some, flags)",
    "predictor.track('clip.mp4', 'first.png')",
    "predictor.track(Path('frames'), image)",
    "predictor.track([some, some], tensor)",
    "predictor.track(['0.jpg', '1.jpg'], mask)",
    "predictor.track([image, image], mask.astype(np.float32))",
    "predictor.track(frames(), flags)",
    "predictor.track((to_frame(one) for one in frames()), mask)",
    "predictor.track(Pictures(), mask)",
    "predictor.track(LiveSource(0), mask)",
    "predictor.track(tensor, tensor)",
    "predictor.track(Foreign(), mask)",
    "predictor.track(video.astype(np.uint16), mask, value_range=(0, 65535))",
    "predictor.track_many([video, 'clip.mp4'], [mask, image])",
    "predictor.start(frame, mask)",
    "predictor.start(some, flags)",
    "predictor.start(Foreign(), 'first.png')",
    "predictor.start(tensor, None, allow_empty=True)",
    "stream.step(image)",
    "stream.step(frame, mask)",
    "stream.correct(mask)",
    "stream.correct(absent=[7])",
    "stream.add_objects(image)",
    "stream.last.overlay(frame)",
    "session.give(0, 7, flags)",
    "session.give(0, 7, [[0, 1], [1, 0]])",
    "shim.add_new_mask(shim.init_state('clip.mp4'), 0, 7, flags)",
    "shim.add_new_points_or_box(shim.init_state('clip.mp4'), 0, 7, [[3, 4]], [1], box=np.zeros(4))",
    "session.give_prompts(0, Prompt(7, points=[(3, 4)]))",
    "ClipReader(video).read(0)",
    "ClipReader([image, image]).read(0)",
    "ClipReader(Pictures()).read(0)",
    "to_object_masks(mask, height=48, width=64)",
    "iterate_frames([to_frame(Path('0.png'))])",
    "export(read_davis('masks'), 'out', format='overlay', frames=video)",
    "ahead.predict(video)",
    "ahead.predict(np.zeros((3, 48, 64), np.uint8))",
    "ahead.predict([mask, mask])",
    "ahead.start().step(mask)",
]

WRONG = [
    "predictor.track(mask, video)",
    "predictor.track(mask, [some, some])",
    "predictor.track(flags, frames())",
    "predictor.track(image, 'clip.mp4')",
    "predictor.track(mask, LiveSource(0))",
    "predictor.track(mask, Pictures())",
    "predictor.track(video, None)",
    "predictor.track(7, mask)",
    "predictor.track(b'clip.mp4', mask)",
    "predictor.track_many([mask], [video])",
    "predictor.start(mask, frame)",
    "predictor.start(flags, some)",
    "predictor.start(mask, 'frame.png')",
    "predictor.start(video, mask)",
    "predictor.start(frame, [some])",
    "stream.step(mask)",
    "stream.step(frame, video)",
    "stream.step([frame])",
    "stream.correct(video)",
    "stream.add_objects(None)",
    "stream.last.overlay(mask)",
    "session.give(0, 7, 'mask.png')",
    "session.give(0, 7, frames())",
    "session.give_prompts(0, [Prompt(7, points=[(3, 4)])])",
    "shim.init_state(frames())",
    "ClipReader(frames())",
    "ClipReader(LiveSource(0))",
    "to_object_masks(video, height=48, width=64)",
    "to_frame(mask)",
    "iterate_frames(image)",
    "export(read_davis('masks'), 'out', format='overlay', frames=7)",
    "ahead.predict(image)",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For each call that a type checker refuses, what it says."""
    api = pytest.importorskip("mypy.api")
    calls, folder = [*GOOD, *WRONG], tmp_path_factory.mktemp("types")
    file = folder / "calls.py"
    file.write_text(HEAD + "".join(f"    {call}\n" for call in calls), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(Path(stmemory.__file__).parents[1]))
        patch.chdir(folder)
        said, fault, _ = api.run(["--strict", "--follow-imports=silent", "--no-pretty", str(file)])
    assert not fault
    first, found = HEAD.count("\n") + 1, {}
    for line in said.splitlines():
        place, _, text = line.partition(": error: ")
        if text:
            number = int(place.rsplit(":", 1)[-1])
            assert number >= first, line
            found[calls[number - first]] = text
    return found


@pytest.mark.parametrize("call", GOOD)
def test_a_type_checker_takes_what_the_library_takes(call: str, refused: dict[str, str]) -> None:
    """Every kind of frame, clip and mask passes `mypy --strict`."""
    assert call not in refused, refused[call]


@pytest.mark.parametrize("call", WRONG)
def test_a_type_checker_refuses_a_mask_in_place_of_a_frame(call: str, refused: dict[str, str]) -> None:
    """Arguments that were exchanged, and other kinds, are errors where the types say so.

    A path and a tensor may be a clip and a mask; so may an array whose shape is not known.
    """
    assert call in refused
