"""Facts about prompts: what a point or a box may be, and that a prompter's masks are taken as given masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import boxes, clip, new_predictor, state_of, tiny_network
from torch import Tensor

from stmemory.errors import MaskError, OptionError
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt, ready_prompts

FRAMES = clip(5)
HEIGHT, WIDTH = FRAMES.shape[1:3]


class Boxes:
    """A prompter that takes a box for the object, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, dict[int, Tensor]]] = []

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        self.asked.append((frame, dict(last)))
        made = torch.zeros(len(prompts), *frame.shape[1:])
        for mask, prompt in zip(made, prompts, strict=True):
            if prompt.box is not None:
                left, top, right, bottom = (int(side) for side in prompt.box)
                mask[top:bottom, left:right] = 1
        return made


def predictor(prompter: Boxes | None = None) -> VOSPredictor:
    return VOSPredictor(tiny_network(), options=TrackingOptions(memory_size=3, zoom=1.0), prompter=prompter)


def of_box(prompt: Prompt) -> Tensor:
    """The id mask of a box."""
    return Boxes().masks(torch.zeros(3, HEIGHT, WIDTH), [prompt], {})[0].int() * prompt.object_id


WRONG: dict[str, tuple[Any, str]] = {
    "no id": (lambda: Prompt(0, points=[(1, 1)]), "object_id from 1"),
    "a text for an id": (lambda: Prompt("3", points=[(1, 1)]), "object_id from 1"),  # type: ignore[arg-type]
    "nothing": (lambda: Prompt(3), "a point of the object or a box"),
    "what it is not": (
        lambda: ready_prompts(Prompt(3, not_points=[(1, 1)]), height=9, width=9, found=[4]),
        "does not say where it is",
    ),
    "one number": (lambda: Prompt(3, points=[4]), r"points as \[\(x, y\)"),  # type: ignore[list-item]
    "not finite": (lambda: Prompt(3, points=[(float("nan"), 1)]), "finite"),
    "no area": (lambda: Prompt(3, box=(4, 4, 4, 9)), "x0 < x1"),
    "corners exchanged": (lambda: Prompt(3, box=(9, 9, 4, 4)), "x0 < x1"),
    "three sides": (lambda: Prompt(3, box=(1, 2, 3)), "x0, y0, x1, y1"),  # type: ignore[arg-type]
    "outside": (lambda: ready_prompts(Prompt(3, [(7, 2)]), height=4, width=6), "outside the frame"),
    "a box that reaches out": (lambda: ready_prompts(Prompt(3, box=(0, 0, 9, 3)), height=4, width=6), "outside"),
    "twice": (lambda: ready_prompts([Prompt(3, [(1, 1)])] * 2, height=4, width=6), r"several of \[3\]"),
    "a text": (lambda: ready_prompts("3:1,1", height=4, width=6), "expected Prompt"),  # type: ignore[arg-type]
    "a pair": (lambda: ready_prompts([(3, 4)], height=4, width=6), "expected Prompt"),  # type: ignore[list-item]
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_prompt_is_refused(name: str) -> None:
    """Each says what was expected."""
    make, said = WRONG[name]
    with pytest.raises(MaskError, match=said):
        make()


def test_a_prompters_masks_are_given_masks() -> None:
    """In the first frame, in a later one and as a correction; beside a mask of another object too."""
    prompter = Boxes()
    first, late, moved = (
        Prompt(i, box=box) for i, box in ((4, (2, 2, 14, 9)), (9, (20, 8, 30, 20)), (4, (5, 5, 15, 12)))
    )
    prompted = predictor(prompter).start(FRAMES[0], boxes(2), prompts=first)
    masked = predictor().start(FRAMES[0], torch.where(of_box(first) > 0, of_box(first), torch.as_tensor(boxes(2))))
    assert masked.object_ids == prompted.object_ids == (2, 4)
    prompted.step(FRAMES[1], prompts=late)
    masked.step(FRAMES[1], of_box(late))
    prompted.correct(prompts=[moved])
    masked.correct(of_box(moved))
    for frame in FRAMES[2:]:
        prompted.step(frame)
        masked.step(frame)
        assert torch.equal(masked.last.ids, prompted.last.ids)
    assert [{}, {}, {4}] == [set(last) or {} for _, last in prompter.asked]
    assert all((3, HEIGHT, WIDTH) == tuple(frame.shape) for frame, _ in prompter.asked)
    assert torch.equal(torch.as_tensor(FRAMES[1]).permute(2, 0, 1) / 255, prompter.asked[1][0])


def test_a_given_mask_stays_as_it_was_given() -> None:
    """A prompted object of a smaller id gets what is left of its pixels."""
    prompt = Prompt(2, box=(0, 0, WIDTH, HEIGHT))
    result = predictor(Boxes()).start(FRAMES[0], boxes(5), prompts=prompt).last
    assert torch.equal(torch.as_tensor(boxes(5)) == 5, result.ids == 5)
    assert bool(((result.ids == 2) | (result.ids == 5)).all())


def test_ids_of_numpy_are_ids() -> None:
    """Such as those of `numpy.unique` of a mask."""
    assert Prompt(3, points=[(1, 1)]) == Prompt(np.int64(3), points=[(1, 1)])


def test_an_object_that_was_lost_is_prompted_back() -> None:
    """What was not found in the frame is not passed on as found."""
    prompter = Boxes()
    stream = predictor(prompter).start(FRAMES[0], boxes(4))
    stream.step(FRAMES[1])
    stream.correct(absent=[4]) if stream.last.present[4] else None
    stream.correct(prompts=Prompt(4, box=(2, 2, 14, 9)))
    assert {} == prompter.asked[-1][1] and stream.last.present[4]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"mask": boxes(4), "prompts": Prompt(4, box=(2, 2, 9, 9))}, "in the mask too"),
    "outside": ({"prompts": Prompt(4, box=(0, 0, 9, 999))}, "outside the frame"),
    "nothing found": ({"prompts": Prompt(4, points=[(3, 3)])}, "nothing was found of"),
    "new while looking": ({"prompts": Prompt(7, box=(2, 2, 9, 9)), "write": False}, "must be memorised"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_prompt_leaves_the_stream_as_it_was(name: str, tmp_path: Path) -> None:
    """Each says why; the next frame is taken as if nothing had been asked."""
    arguments, said = REFUSED[name]
    stream = predictor(Boxes()).start(FRAMES[0], boxes(4))
    before = state_of(stream, tmp_path)
    with pytest.raises(MaskError, match=said):
        stream.step(FRAMES[1], **arguments)
    assert before == state_of(stream, tmp_path)


def test_a_video_begins_with_something() -> None:
    """Neither a mask nor a prompt is an error that names both."""
    with pytest.raises(MaskError, match="prompts=Prompt"):
        predictor(Boxes()).start(FRAMES[0])
    tracked = list(predictor(Boxes()).track(FRAMES, prompts=Prompt(4, box=(2, 2, 14, 9))))
    assert len(FRAMES) == len(tracked) and (4,) == tracked[-1].object_ids


def test_what_is_no_prompter_is_refused() -> None:
    """A predictor of a network that takes masks alone, and other objects."""
    with pytest.raises(OptionError, match="takes masks alone"):
        VOSPredictor(tiny_network(), prompter=new_predictor(scored=False))
    with pytest.raises(OptionError, match="expected a predictor or a Prompter"):
        VOSPredictor(tiny_network(), prompter="sam2")  # type: ignore[arg-type]
