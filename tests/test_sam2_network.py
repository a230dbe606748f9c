"""Facts about SAM 2's kin as networks to track with: the masks are those of transformers' own session, to the bit.

Needs the extra `sam2`; weights are random, sizes tiny.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from data_sets import CASES, write_data_set
from hub_server import Hub, Repository, hub_of_huggingface
from PIL import Image
from tiny_sam2 import KINDS, Reference, tiny_model
from torch import Tensor

from stmemory.cli import main
from stmemory.errors import MaskError, OptionError, StmemoryError, WeightsError
from stmemory.evaluation.scenes import render_scene
from stmemory.inspection.inspector import inspect
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.memory import MeanFusion
from stmemory.networks.sam2 import PointerMemory, Sam2Network
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt
from stmemory.stream import VOSStream

HEIGHT, WIDTH = 48, 80
CLICK, BOX = Prompt(3, points=[(40, 30), (22, 11)], not_points=[(5, 5)]), Prompt(5, box=(10, 10, 60, 40))
LATE = Prompt(7, points=[(20, 12)], box=(10, 6, 50, 30))
LONG = 24  # frames: more than the 16 whose object pointers the models read


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    """One model of each type, in which an object is always there; the tests leave it as it is."""
    return tiny_model(request.param)


def frames(number: int, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> list[Tensor]:
    """Frames `[3, H, W]` of smooth noise, each a little like the one before."""
    made = torch.Generator().manual_seed(seed)
    noise = torch.rand(number + 4, 3, height // 8, width // 8, generator=made)
    mixed = torch.stack([noise[n : n + 4].mean(0) for n in range(number)])
    return list(torch.nn.functional.interpolate(mixed, (height, width), mode="bilinear").clamp(0, 1))


def a_mask(object_id: int, *, top: int = 8, left: int = 20) -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    mask[top : top + 24, left : left + 36] = object_id
    return mask


def assert_same(stream: VOSStream, ids: list[int], logits: Tensor) -> None:
    """Ids and probabilities are those of logits `[N, H, W]`, to the bit; a pixel has the largest above 0."""
    with_background = torch.cat([torch.zeros(1, *logits.shape[1:]), logits])
    assert tuple(ids) == stream.object_ids
    assert torch.equal(torch.tensor([0, *ids], dtype=torch.int32)[with_background.argmax(0)], stream.last.ids)
    assert torch.equal(with_background.softmax(0), stream.last.probabilities)


def test_clicks_boxes_and_a_late_object_are_those_of_the_session_for_good(model: Any) -> None:
    """With its own options, which are `policy="drop"` and 7 slots, over more frames than the model reads."""
    network = Sam2Network(model)
    reference, clip = Reference(model, network.mean, network.std), frames(LONG)
    stream = VOSPredictor(network).start(clip[0], prompts=[CLICK, BOX])
    assert_same(stream, *reference.step(clip[0], [CLICK, BOX]))
    for number, frame in enumerate(clip[1:], 1):
        late = [LATE] if number == 5 else []
        stream.step(frame, prompts=late)
        assert_same(stream, *reference.step(frame, late))
    assert len({float(p) for p in stream.last.probabilities[1].flatten()}) > 100  # no empty or constant mask


def test_masks_are_those_of_the_session_for_good(model: Any) -> None:
    """Two objects given by masks: in the first frame they are as given, after it as the session finds them."""
    network = Sam2Network(model)
    reference, clip = Reference(model, network.mean, network.std), frames(LONG, seed=1)
    given = {4: a_mask(4) == 4, 9: a_mask(9, top=2, left=50) == 9}
    given[4] &= ~given[9]
    stream = VOSPredictor(network).start(clip[0], sum(mask.int() * number for number, mask in given.items()))
    reference.step(clip[0], masks=given)
    assert all(torch.equal(mask, stream.last.ids == number) for number, mask in given.items())
    for frame in clip[1:]:
        stream.step(frame)
        assert_same(stream, *reference.step(frame))


def test_a_mask_that_enters_late_is_memorised_as_by_the_session() -> None:
    """SAM 2 binarises the masks of all objects in a frame in which one is given; so do we."""
    model = tiny_model()
    network = Sam2Network(model)
    reference, clip = Reference(model, network.mean, network.std), frames(12, seed=2)
    stream = VOSPredictor(network).start(clip[0], prompts=CLICK)
    reference.step(clip[0], [CLICK])
    for number, frame in enumerate(clip[1:], 1):
        stream.step(frame, a_mask(8) if number == 3 else None)
        ids, logits = reference.step(frame, masks={8: a_mask(8) == 8} if number == 3 else None)
        if number != 3:
            assert_same(stream, ids, logits)


@pytest.mark.parametrize("policy", ["least_similar", "A", "D"])
def test_any_policy_is_the_session_until_the_bank_is_full(model: Any, policy: str) -> None:
    """Seven frames fill it; after that the masks are others."""
    network = Sam2Network(model)
    reference, clip = Reference(model, network.mean, network.std), frames(14, seed=3)
    stream = VOSPredictor(network, options=TrackingOptions(policy=policy)).start(clip[0], prompts=BOX)
    reference.step(clip[0], [BOX])
    for number, frame in enumerate(clip[1:], 1):
        stream.step(frame)
        ids, logits = reference.step(frame)
        if number <= 7:
            assert_same(stream, ids, logits)
    assert isinstance(stream.bank.fusion, MeanFusion) and stream.bank.capacity == 7
    assert not torch.equal(torch.cat([torch.zeros(1, HEIGHT, WIDTH), logits]).softmax(0), stream.last.probabilities)


def test_an_object_that_goes_is_the_sessions_and_a_gate_keeps_it_out() -> None:
    """Where the model says that an object is not there, it has no pixel; with the model's own options the frame is
    memorised as the session does it, with a write gate it is not."""
    model = tiny_model(visible=0.0, seed=6)
    network = Sam2Network(model)
    reference, clip = Reference(model, network.mean, network.std), frames(LONG, seed=4)
    own = VOSPredictor(network).start(clip[0], prompts=[CLICK, BOX])
    gated = VOSPredictor(network, options=TrackingOptions(write_gate=0.5)).start(clip[0], prompts=[CLICK, BOX])
    reference.step(clip[0], [CLICK, BOX])
    gone = 0
    for number, frame in enumerate(clip[1:], 1):
        own.step(frame)
        ids, logits = reference.step(frame)
        assert_same(own, ids, logits)
        there = [bool((one > 0).any()) for one in logits]
        assert not any(own.last.present[i] and not seen for i, seen in zip(ids, there, strict=True))
        assert any(there) == any(own.last.present.values())
        assert all(number == own.bank.describe(row)[-1].frame for row in range(2))
        gated.step(frame)
        for row, present in enumerate(gated.last.present.values()):
            assert not present or number == gated.bank.describe(row)[-1].frame
            gone += number != gated.bank.describe(row)[-1].frame
    assert 0 < gone < 2 * (LONG - 1)


def test_bytes_are_the_same_while_a_session_grows() -> None:
    """Five hundred frames; the session of transformers keeps a frame, a mask and a memory of each."""
    model = tiny_model()
    network, clip = Sam2Network(model), frames(20)
    stream = VOSPredictor(network).start(clip[0], prompts=[CLICK, BOX])
    sizes = set()
    for number in range(500):
        stream.step(clip[number % 20])
        if number > 8:
            sizes.add(stream.nbytes)
    assert len(sizes) == 1


def test_a_saved_stream_goes_on_bit_for_bit(model: Any, tmp_path: Path) -> None:
    """Saved after any frame, sent to another process, or never interrupted: the same masks."""
    predictor, clip = VOSPredictor(Sam2Network(model)), frames(20, seed=5)
    whole = predictor.start(clip[0], prompts=[CLICK, BOX])
    for number, frame in enumerate(clip[1:], 1):
        if number in (1, 4, 12):
            whole.save(tmp_path / "stream")
            resumed, sent = predictor.resume(tmp_path / "stream"), pickle.loads(pickle.dumps(whole._state))
            again = VOSStream(predictor.network, predictor.options, sent)
            for one in (resumed, again):
                one.step(frame)
        whole.step(frame)
        if number in (1, 4, 12):
            for one in (resumed, again):
                assert torch.equal(whole.last.probabilities, one.last.probabilities)
                assert one.nbytes == whole.nbytes


def test_videos_at_once_are_as_alone(model: Any) -> None:
    """`track_many` gives each video the masks that it has by itself."""
    predictor = VOSPredictor(Sam2Network(model))
    clips = [frames(4, seed=6), frames(6, seed=7, height=40, width=64)]
    masks = [a_mask(2), a_mask(2)[:40, :64]]
    alone = [[r.probabilities for r in predictor.track(c, m)] for c, m in zip(clips, masks, strict=True)]
    for index, result in predictor.track_many(clips, masks):
        assert torch.equal(alone[index][result.frame_index], result.probabilities)


def test_a_correction_is_pinned_and_an_error_leaves_the_stream(model: Any, tmp_path: Path) -> None:
    """Clicks in the last frame change its mask and are pinned; what cannot be used changes nothing."""
    predictor, clip = VOSPredictor(Sam2Network(model)), frames(6, seed=8)
    stream = predictor.start(clip[0], prompts=BOX)
    for frame in clip[1:4]:
        stream.step(frame)
    stream.save(tmp_path / "before")
    before = (tmp_path / "before").read_bytes()
    for wrong in ({"prompts": Prompt(5, points=[(900, 3)])}, {"mask": a_mask(5), "prompts": CLICK, "absent": [3]}):
        with pytest.raises(MaskError):
            stream.correct(**wrong)
        stream.save(tmp_path / "after")
        assert before == (tmp_path / "after").read_bytes()
    found = stream.last.ids.clone()
    stream.correct(prompts=Prompt(5, points=[(70, 40)], not_points=[(20, 20), (30, 30)]))
    assert not torch.equal(found, stream.last.ids)
    assert [(0, True), (3, True)] == [(slot.frame, slot.pinned) for slot in stream.bank.describe() if slot.pinned]
    stream.correct(a_mask(5), prompts=CLICK)
    assert torch.equal(a_mask(5) == 5, stream.last.ids == 5) and (5, 3) == stream.object_ids
    stream.step(clip[4])
    stream.remove_objects([5])
    assert (3,) == stream.step(clip[5]).object_ids


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_track_and_are_kept(model: Any, dtype: torch.dtype) -> None:
    """The bank holds templates of the model's dtype; masks are not empty."""
    predictor, clip = VOSPredictor(Sam2Network(model), dtype=dtype), frames(4)
    stream = predictor.start(clip[0], a_mask(9), prompts=BOX)
    for frame in clip[1:]:
        stream.step(frame)
    assert dtype == stream.bank.templates.dtype and {5: True, 9: True} == dict(stream.last.present)
    assert torch.float32 == stream.last.probabilities.dtype


def test_objects_that_leave_do_not_change_the_others(model: Any) -> None:
    """After one of two was removed the other has the masks that it would have had alone; but for rounding, since SAM 2
    encodes the memories of all objects in one batch."""
    predictor, clip = VOSPredictor(Sam2Network(model)), frames(8, seed=9)
    two, one = predictor.start(clip[0], prompts=[CLICK, BOX]), predictor.start(clip[0], prompts=BOX)
    two.remove_objects([3])
    for frame in clip[1:]:
        alone, left = one.step(frame), two.step(frame)
        assert torch.equal(alone.ids, left.ids)
        torch.testing.assert_close(alone.probabilities, left.probabilities, atol=1e-4, rtol=0)


def test_another_predictor_prompts_for_a_network_that_takes_masks() -> None:
    """The mask of the prompted frame is SAM 2's; from there the network at hand goes on."""
    sam2 = VOSPredictor(Sam2Network(tiny_model()))
    plain, clip = VOSPredictor.from_pretrained("lite"), frames(3)
    prompted = VOSPredictor.from_pretrained("lite", prompter=sam2)
    expected = sam2.start(clip[0], prompts=BOX).last.ids
    stream, by_mask = prompted.start(clip[0], prompts=BOX), plain.start(clip[0], expected)
    assert torch.equal(expected, stream.last.ids)
    assert torch.equal(by_mask.step(clip[1]).probabilities, stream.step(clip[1]).probabilities)
    assert VOSPredictor.from_pretrained("lite", prompter=plain).prompter is plain.prompter
    with pytest.raises(MaskError, match="add a point"):
        stream.correct(prompts=Prompt(5, not_points=[(40, 20)]))


def test_an_inspector_looks_at_it() -> None:
    """What the slots held and what became of frames is told; of the attention nothing is kept."""
    report = inspect(VOSPredictor(Sam2Network(tiny_model())), frames(9), a_mask(2))
    assert {0, 3, 4, 5, 6, 7, 8} == {slot.frame for slot in report.slots[2].values()}
    assert all(not moment.objects for moment in report.moments.values())


# From folders and from the Hub.


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers saves of a model."""
    path: Path = tmp_path_factory.mktemp("saved") / request.param
    tiny_model(request.param).save_pretrained(path)
    (path / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}))
    return path


def test_a_folder_is_recognised(folder: Path) -> None:
    """By the model type in its config; masks are those of the model that was saved, images prepared as it says."""
    predictor = VOSPredictor.from_pretrained(folder)
    network = Sam2Network(tiny_model(folder.name), settings={"image_mean": [0.1, 0.2, 0.3]})
    assert str(folder) in repr(predictor) and predictor.network.takes_prompts
    one, other = (p.start(frames(1)[0], prompts=BOX).last for p in (predictor, VOSPredictor(network)))
    assert torch.equal(one.probabilities, other.probabilities)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A server that huggingface_hub takes for the Hub, and an empty cache."""
    with hub_of_huggingface(monkeypatch, tmp_path / "cache") as served:
        yield served


def test_a_repository_is_loaded_by_name(hub: Hub, tmp_path: Path) -> None:
    """Its safetensors alone are fetched, of the commit of its config; `revision`, `cache_dir`, `token` and
    `local_files_only` are passed on."""
    first, second = tmp_path / "first", tmp_path / "second"
    tiny_model().save_pretrained(first)
    tiny_model(seed=1).save_pretrained(second)
    repository = hub.repositories["someone/sam"] = Repository(private=True)
    old = repository.commit({f.name: f.read_bytes() for f in first.iterdir()} | {"pytorch_model.bin": b"no"})
    repository.commit({f.name: f.read_bytes() for f in second.iterdir()})
    where: dict[str, Any] = {"cache_dir": tmp_path / "elsewhere", "token": "hf_x"}
    older = VOSPredictor.from_pretrained("someone/sam", revision=old, **where)
    newer = VOSPredictor.from_pretrained("someone/sam", **where)
    cached = VOSPredictor.from_pretrained("someone/sam", local_files_only=True, cache_dir=tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="you may use"):
        VOSPredictor.from_pretrained("someone/sam", cache_dir=tmp_path / "empty")
    for predictor, path in ((older, first), (newer, second), (cached, second)):
        there = VOSPredictor.from_pretrained(path)
        one, other = (p.start(frames(1)[0], prompts=BOX).last for p in (predictor, there))
        assert torch.equal(one.probabilities, other.probabilities)
    assert not any(path.endswith(".bin") for path in hub.asked("GET"))


def damaged(change: Mapping[str, Any]) -> Any:
    """Changes keys of `config.json`."""

    def damage(path: Path) -> None:
        words = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**words, **change}))

    return damage


def without_tensors(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"no")


def without_one(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    del tensors["no_memory_embedding"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "an interrupted download": (cut, "check the folder"),
    "a size that is none": (damaged({"image_size": None}), "check the folder"),
    "a list of types": (damaged({"model_type": ["sam2_video"]}), "got type"),
    "another type": (damaged({"model_type": "bert"}), "got type 'bert'"),
    "an image model": (damaged({"model_type": "sam2"}), "take a video model"),
    "no safetensors": (without_tensors, "its tensors in safetensors"),
    "another size": (damaged({"memory_encoder_output_channels": 32}), "expected a sam2_video model"),
    "a tensor less": (without_one, "got none for no_memory_embedding"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_weights_that_cannot_be_used_are_errors(name: str, tmp_path: Path) -> None:
    """Each names the folder and says what is wrong."""
    tiny_model().save_pretrained(tmp_path / "sam")
    damage, said = DAMAGES[name]
    damage(tmp_path / "sam")
    with pytest.raises(WeightsError, match=said) as error:
        VOSPredictor.from_pretrained(tmp_path / "sam")
    assert str(tmp_path / "sam") in str(error.value)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transformers the weights are recognised, and the error says what to install."""
    tiny_model().save_pretrained(tmp_path / "sam")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r'pip install "stmemory\[sam2\]"'):
        VOSPredictor.from_pretrained(tmp_path / "sam")


OPTIONS = {
    "more slots": (TrackingOptions(memory_size=8), "at most 7"),
    "top k": (TrackingOptions(top_k=20), "reads all memory cells"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_the_model_cannot_are_errors(name: str) -> None:
    """They are refused before a frame is lost."""
    options, said = OPTIONS[name]
    with pytest.raises(OptionError, match=said):
        VOSPredictor(Sam2Network(tiny_model()), options=options).start(frames(1)[0], prompts=BOX)


def test_another_model_is_refused() -> None:
    """The error names the types that can be tracked with."""
    with pytest.raises(OptionError, match="sam2_video"):
        Sam2Network(torch.nn.Linear(2, 2))


PROMPTS = {
    "outside": (Prompt(1, points=[(81, 3)]), "outside the frame"),
    "twice": ([CLICK, CLICK], "several of \\[3\\]"),
    "another kind": ([(3, 4)], "expected Prompt"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_that_cannot_be_used_are_errors(name: str) -> None:
    """Each says what to do."""
    prompts, said = PROMPTS[name]
    with pytest.raises(MaskError, match=said):
        VOSPredictor(Sam2Network(tiny_model())).start(frames(1)[0], prompts=prompts)


@pytest.mark.parametrize("by_click", [False, True])
def test_a_window_shows_what_is_given_where_it_is(by_click: bool) -> None:
    """With a window around a small object, masks and points are seen where they are: a stream of that part of the
    frames alone finds the same, but for the contour, which is drawn from probabilities in place of logits."""
    clip = frames(2, seed=11, height=96, width=160)
    closer = VOSPredictor(Sam2Network(tiny_model()), options=TrackingOptions(zoom=2.0))
    plain = VOSPredictor(Sam2Network(tiny_model()))
    first = torch.zeros(96, 160, dtype=torch.int32)
    first[30:50, 60:90] = 1
    stream = closer.start(clip[0], first)
    window = stream.window
    assert (48, 80, 35) == (window.height, window.width, window.left)
    part = plain.start(window.part(clip[0]), window.part(first))
    if by_click:
        stream.correct(prompts=Prompt(1, points=[(75, 40)]))
        part.correct(prompts=Prompt(1, points=[(75 - window.left, 40 - window.top)]))
    else:
        stream.step(clip[1])
        part.step(stream.window.part(clip[1]))
        assert window == stream.window
    one, other = part.last.ids == 1, window.part(stream.last.ids) == 1
    assert 0.95 < int((one & other).sum()) / int((one | other).sum())


def test_reach_takes_objects_that_enter_late() -> None:
    """An object that was nowhere before keeps all of its regions."""
    clip = frames(3, seed=12)
    options = TrackingOptions(reach=0.2)
    stream = VOSPredictor(Sam2Network(tiny_model()), options=options).start(clip[0], prompts=CLICK)
    stream.step(clip[1], prompts=LATE)
    assert (3, 7) == stream.step(clip[2]).object_ids


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info`, `track`, `evaluate`, `inspect` and `benchmark speed` take such weights by their folder, without a word of
    which network it is."""
    folder, out = tmp_path / "sam", tmp_path / "out"
    tiny_model().save_pretrained(folder)
    clip = list(render_scene(5, height=HEIGHT, width=WIDTH))
    for number, (frame, _) in enumerate(clip):
        path = tmp_path / "clip" / f"{number:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(path)
    write_palette_png(tmp_path / "first.png", clip[0][1])
    weights = ["--weights", str(folder)]
    capsys.readouterr()
    assert 0 == main(["info", str(folder)])
    said = capsys.readouterr()
    assert "sam2_video" in said.out and "MB for one object" in said.out and not said.err
    first = [str(tmp_path / "clip"), "--mask", str(tmp_path / "first.png"), *weights]
    assert 0 == main(["track", *first, "-o", str(out / "track")])
    expected = [r.ids for r in VOSPredictor.from_pretrained(folder).track(tmp_path / "clip", clip[0][1])]
    masks = sorted((out / "track").rglob("0*.png"))
    assert all(torch.equal(ids, read_palette_png(m)) for ids, m in zip(expected, masks[: len(expected)], strict=True))
    assert 0 == main(["inspect", *first, "-o", str(out / "inspect")])
    assert (out / "inspect" / "timeline.png").is_file()
    root = write_data_set(CASES[0], tmp_path / "clips")
    assert 0 == main(["evaluate", str(root), *weights, "-o", str(out / "evaluate")])
    assert json.loads((out / "evaluate" / "report.json").read_text())["options"]["policy"] == "drop"


def test_pointers_of_the_same_frame_count_once() -> None:
    """A frame that is memorised again, or given, replaces what was found in it; other rows keep theirs."""
    pointers = PointerMemory(3)
    for frame in range(4):
        pointers.write(torch.full((2, 1), float(frame)), rows=[0, 1], of=2, frame=frame, position=torch.zeros(2))
    before = copy.deepcopy(pointers.state_dict())
    twin = pointers.shared()
    twin.write(torch.tensor([[9.0]]), rows=[1], of=2, frame=3, position=torch.zeros(2))
    twin.write(torch.tensor([[9.0]]), rows=[0], of=2, frame=3, position=torch.zeros(2), given=True)
    assert {3: 9.0, 2: 2.0} == {frame: float(p) for frame, p in twin.of_row(1).items()}
    assert {2: 2.0, 1: 1.0} == {frame: float(p) for frame, p in twin.of_row(0).items()}
    assert all(torch.equal(before[name], t) for name, t in pointers.state_dict().items())
    with pytest.raises(StmemoryError):
        pointers.load_state_dict({"frames": before["frames"]})
