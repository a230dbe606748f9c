"""Points and boxes with SAM 2's networks: under the names of its own predictor, on the command line, and as a prompter.

Needs the extra `sam2`; weights are random, sizes tiny.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_sam2_network import BOX, CLICK, HEIGHT, LATE, WIDTH, a_mask, frames
from tiny_sam2 import KINDS, Reference, tiny_model
from torch import Tensor

from stmemory.cli import main
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.networks.sam2 import Sam2Network
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt
from stmemory.sam2 import VideoPredictor
from stmemory.session import ClipSession

CLIP = frames(10)


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest) -> Sam2Network:
    """One of each model type, in which an object is always there."""
    return Sam2Network(tiny_model(request.param))


def ids_of(logits: Tensor, numbers: list[int]) -> list[list[int]]:
    """A pixel has the object with the largest of logits `[N, H, W]`, if that is above 0."""
    values, places = logits.max(0)
    return torch.where(values > 0, torch.tensor(numbers)[places], 0).tolist()


def said(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a script of SAM 2 says it."""
    points, labels = [*prompt.points, *prompt.not_points], [1] * len(prompt.points) + [0] * len(prompt.not_points)
    arguments: dict[str, Any] = {} if prompt.box is None else {"box": np.array(prompt.box, np.float32)}
    if points:
        arguments |= {"points": np.array(points, np.float32), "labels": np.array(labels, np.int32)}
    return arguments


def test_a_script_with_points_gets_the_masks_of_the_session(network: Sam2Network) -> None:
    """Several objects by points and boxes, and one that enters late, frame by frame as transformers' own session."""
    video = VideoPredictor(VOSPredictor(network))
    state = video.init_state(torch.stack(CLIP))
    for frame_idx, prompt in ((0, CLICK), (0, BOX), (4, LATE)):
        video.add_new_points_or_box(state, frame_idx, prompt.object_id, **said(prompt))
    reference = Reference(network.model, network.mean, network.std)
    outputs = list(video.propagate_in_video(state))
    assert len(CLIP) == len(outputs)
    for frame, (frame_idx, obj_ids, logits) in zip(CLIP, outputs, strict=True):
        ids, expected = reference.step(frame, {0: [CLICK, BOX], 4: [LATE]}.get(frame_idx, []))
        assert [3, 5, 7] == obj_ids and ids_of(expected, ids) == ids_of(logits[:, 0], obj_ids)


def test_the_logits_of_one_object_are_the_models(network: Sam2Network) -> None:
    """At once when it is clicked, and in every frame; as far as float32 keeps them as probabilities."""
    video = VideoPredictor(VOSPredictor(network))
    state = video.init_state(torch.stack(CLIP))
    reference = Reference(network.model, network.mean, network.std)
    _, _, logits = video.add_new_points_or_box(state, 0, "it", **said(CLICK))
    for frame, output in zip(CLIP, video.propagate_in_video(state), strict=True):
        _, expected = reference.step(frame, [CLICK] if output[0] == 0 else [])
        if output[0] == 0:
            assert torch.equal(logits, output[2])
        assert expected.abs().max() < 12 and torch.allclose(expected, output[2][:, 0], atol=1e-2)
        assert expected.std() > 0.01


def test_points_added_to_earlier_ones_are_all_points(network: Sam2Network) -> None:
    """With `clear_old_points=False` the answer is that to all of them, in [0, 1] as in pixels."""
    video = VideoPredictor(VOSPredictor(network))
    state = video.init_state(torch.stack(CLIP[:2]))
    video.add_new_points_or_box(state, 0, 3, [[40, 30]], [1])
    video.add_new_points_or_box(state, 0, 3, [[22, 11]], [1], clear_old_points=False)
    _, _, first = video.add_new_points_or_box(state, 0, 3, [[5, 5]], [0], clear_old_points=False)
    shares = np.array([[40, 30], [22, 11], [5, 5]]) / [WIDTH, HEIGHT]
    other = video.init_state(torch.stack(CLIP[:2]))
    _, _, second = video.add_new_points_or_box(other, 0, 3, shares, [1, 1, 0], normalize_coords=False)
    expected = VOSPredictor(network).start(CLIP[0], prompts=CLICK).last.ids > 0
    assert torch.equal(expected, first[0, 0] > 0) and torch.allclose(first, second, atol=1e-3)


def test_a_click_on_a_tracked_frame_is_answered_from_memory() -> None:
    """After propagation a click is a correction of what was found, not a new beginning; the next frame goes on from
    it."""
    network = Sam2Network(tiny_model())
    video = VideoPredictor(VOSPredictor(network))
    state = video.init_state(torch.stack(CLIP))
    video.add_new_mask(state, 0, 1, a_mask(1))
    list(video.propagate_in_video(state))
    click = Prompt(1, [(40, 30)], [(60, 10)])
    _, _, logits = video.add_new_points_or_box(state, 5, 1, **said(click))
    stream = VOSPredictor(network).start(CLIP[0], a_mask(1))
    for frame in CLIP[1:6]:
        stream.step(frame)
    assert torch.equal(stream.correct(prompts=click).ids > 0, logits[0, 0] > 0)
    alone = VOSPredictor(network).start(CLIP[5], prompts=click).last
    assert not torch.equal(alone.ids > 0, logits[0, 0] > 0)
    _, _, logits = next(video.propagate_in_video(state, start_frame_idx=6))
    assert torch.equal(stream.step(CLIP[6]).ids > 0, logits[0, 0] > 0)


def test_one_click_beside_the_object_corrects_a_tracked_frame(network: Sam2Network) -> None:
    """As in SAM 2's own example: a single point that is not of the object."""
    video = VideoPredictor(VOSPredictor(network))
    state = video.init_state(torch.stack(CLIP))
    video.add_new_points_or_box(state, 0, 2, **said(CLICK))
    found = {frame_idx: logits for frame_idx, _, logits in video.propagate_in_video(state)}
    _, _, logits = video.add_new_points_or_box(state, 5, 2, points=[[40, 24]], labels=[0])
    stream = VOSPredictor(network).start(CLIP[0], prompts=Prompt(1, CLICK.points, CLICK.not_points))
    for frame in CLIP[1:6]:
        stream.step(frame)
    assert torch.equal(stream.correct(prompts=Prompt(1, not_points=[(40, 24)])).ids > 0, logits[0, 0] > 0)
    assert not torch.equal(found[5], logits)


def test_a_session_mixes_masks_and_prompts(network: Sam2Network) -> None:
    """In one frame and in several, as a stream that gets each at its frame."""
    session = ClipSession(VOSPredictor(network), torch.stack(CLIP))
    session.give(1, 9, a_mask(9) > 0)
    session.give_prompts(1, BOX)
    session.give_prompts(3, CLICK)
    stream = VOSPredictor(network).start(CLIP[1], a_mask(9), prompts=BOX)
    for t in range(2, 6):
        result, found = stream.step(CLIP[t], prompts=CLICK if t == 3 else None), session.segment(t)
        assert found is not None and torch.equal(result.ids, found.ids) and result.object_ids == found.object_ids


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder as transformers saves it."""
    tiny_model().save_pretrained(tmp_path / "sam")
    return tmp_path / "sam"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The frames as images."""
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(CLIP):
        pixels = frame.mul(255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "clip" / f"{number:05d}.png")
    return tmp_path / "clip"


CLICKED = ["--point", "3:40,30", "--point=3:22,11", "--not-point", "3:5,5"]
FLAGS = [*CLICKED, "--box", "5:10,10,60,40"]


def masks(folder: Path) -> list[list[list[int]]]:
    return [read_palette_png(path).tolist() for path in sorted((folder / "masks").iterdir())]


def test_the_command_line_tracks_from_points_and_boxes(
    weights: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `track` with the same prompts, in the first frame and later, beside a mask; what was understood is said."""
    write_palette_png(tmp_path / "first.png", a_mask(9, top=0, left=0))
    track = ["track", str(clip), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    late = ["--point", "4:7:20,12", "--box", "4:7:10,6,50,30", "--mask", str(tmp_path / "first.png")]
    assert 0 == main([*track, *FLAGS, *late]), capsys.readouterr()
    said = capsys.readouterr().out
    assert (
        "prompts at frame 0: 2 objects: 3 (3 points), 5 (a box); prompts at frame 4: 1 object: 7 (1 point and" in said
    )
    read = [np.asarray(Image.open(path)) for path in sorted(clip.iterdir())]
    stream = VOSPredictor.from_pretrained(weights).start(read[0], a_mask(9, top=0, left=0), prompts=[CLICK, BOX])
    expected = [stream.last.ids.tolist()]
    expected += [stream.step(read[t], prompts=LATE if t == 4 else None).ids.tolist() for t in range(1, len(read))]
    assert expected == masks(tmp_path / "out")


def test_a_stopped_run_goes_on_with_its_own_prompts_alone(
    weights: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other points are refused and named; the same ones end as in one go."""
    track = ["track", str(clip), "--weights", str(weights)]
    assert 0 == main([*track, *FLAGS, "-o", str(tmp_path / "whole")])
    part = [*track, "-o", str(tmp_path / "out")]
    assert 0 == main([*part, *FLAGS, "--frames", "4"])
    capsys.readouterr()
    assert 2 == main([*part, *FLAGS, "--point", "5:30,30", "--resume"])
    assert "cannot resume another job: object 5 was" in capsys.readouterr().err
    assert 0 == main([*part, *FLAGS, "--resume"])
    assert masks(tmp_path / "whole") == masks(tmp_path / "out")


def test_a_prompter_gives_clicks_to_weights_that_take_masks_alone(weights: Path, clip: Path, tmp_path: Path) -> None:
    """The first mask is the prompter's, and the weights at hand track it."""
    track = ["track", str(clip), "-o", str(tmp_path / "out"), "--prompter", str(weights), "--frames", "2"]
    assert 0 == main([*track, *CLICKED])
    first = np.asarray(Image.open(clip / "00000.png"))
    made = VOSPredictor.from_pretrained(weights).start(first, prompts=CLICK).last.ids
    second = np.asarray(Image.open(clip / "00001.png"))
    results = list(VOSPredictor.from_pretrained().track([first, second], made))
    assert [result.ids.tolist() for result in results] == masks(tmp_path / "out")
    assert 0 < int((made == 3).sum()) < HEIGHT * WIDTH


def test_inspection_begins_at_a_click(weights: Path, clip: Path, tmp_path: Path) -> None:
    """`--point ID:X,Y` says where an object is, `--pixel X,Y` what is looked at, as `--point X,Y` does."""
    arguments = ["inspect", str(clip), "-o", str(tmp_path / "out"), "--prompter", str(weights), "--at", "2"]
    assert 0 == main([*arguments, *CLICKED, "--pixel", "7,8", "--point", "9,10", "--frames", "3"])
    told = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert ["3"] == list(told["objects"])
    assert {(7, 8), (9, 10)} == {tuple(read["point"]) for read in told["attention"] if read["point"]}
