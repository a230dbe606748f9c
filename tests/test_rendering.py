"""Facts about plans of clips and who renders them: the same pixels wherever that is done, and nothing that waits for a
device.

`data/clips.safetensors` holds clips as they were before drawing and rendering were parted. After a change that is meant
to change clips, write it anew with `cd tests && python -c "import test_rendering; test_rendering.write_golden()"`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from pictures import TINY, MadePictures, pack_tiny
from safetensors.torch import load_file, save_file

from stmemory.errors import OptionError
from stmemory.training import loader as feed_module
from stmemory.training.__main__ import main
from stmemory.training.config import TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.loader import Batch, Feed, Parcel, load, render_batch, rendered, time_clips, with_tensors
from stmemory.training.loop import Trainer
from stmemory.training.synthesis import render as photometric
from stmemory.training.synthesis.clips import ClipConfig, ClipSource, render_clip
from stmemory.training.synthesis.render import ClipPlan, Film, Look, develop, ids_at

GOLDEN = Path(__file__).parent / "data" / "clips.safetensors"
CPU = torch.device("cpu")
OFTEN = ClipConfig(
    size=32, frames=4, gap=2, video=0.3, warp=0.5, lookalike=0.5, event=0.5, blur=0.5, grey=0.2, reverse=0.3
)


def source(config: ClipConfig = OFTEN) -> ClipSource:
    """Clips in which all that can happen happens often."""
    return ClipSource(MadePictures(), config, 11)


def golden() -> dict[str, torch.Tensor]:
    """Eight clips of 3 frames at 24 px."""
    clips = [source(dataclasses.replace(OFTEN, size=24, frames=3)).clip(index) for index in range(8)]
    return {"frames": torch.stack([clip.frames for clip in clips]), "ids": torch.stack([clip.ids for clip in clips])}


def write_golden() -> None:
    """Keep what they are now."""
    save_file(golden(), GOLDEN)


@pytest.fixture(scope="module")
def plans() -> list[ClipPlan]:
    """Sixteen plans, videos and photos among them."""
    return [source().draw(index) for index in range(16)]


def test_a_seed_means_the_clips_that_it_always_meant() -> None:
    """Clips of a seed and number are those of earlier versions: pixels within 1 of 255, ids alike up to rounding on
    other machines."""
    expected, actual = load_file(GOLDEN), golden()
    assert int((expected["frames"].int() - actual["frames"].int()).abs().max()) <= 1
    assert float((expected["ids"] != actual["ids"]).float().mean()) < 1e-3


def test_plans_have_all_kinds_of_things_in_them(plans: list[ClipPlan]) -> None:
    """The plans below are not all alike: films and photos, turning, tinted and blurred layers, noise, and time that
    runs backwards."""
    scenes, looks = [plan.scene for plan in plans], [plan.look for plan in plans]
    layers = [layer for scene in scenes for layer in scene.layers]
    assert {True, False} == {isinstance(scene.base, Film) for scene in scenes} == {scene.reversed for scene in scenes}
    assert {True, False} == {layer.order is None for layer in layers} == {layer.cutout.tint is None for layer in layers}
    assert {True, False} == {layer.placement.steps > 1 for layer in layers} == {look.noise > 0 for look in looks}
    assert {True, False} == {look.taps is None for look in looks} == {look.gamma is None for look in looks}


def test_what_was_decided_by_one_frame_is_what_all_frames_show(plans: list[ClipPlan]) -> None:
    """The ids of each frame alone, from masks alone, are those of the whole scene."""
    for plan in plans:
        scene = dataclasses.replace(plan.scene, reversed=False)
        same = dataclasses.replace(plan, scene=scene, table=torch.arange(256, dtype=torch.uint8))
        assert torch.equal(develop(same)[1], torch.stack([ids_at(scene, time) for time in range(4)]))


def test_a_plan_is_whole_after_a_journey(plans: list[ClipPlan]) -> None:
    """Packed into one block and opened again, a plan gives the same clip; an empty tensor and other types survive
    too."""
    for plan in plans:
        expected, actual = render_clip(plan), render_clip(Parcel.of(plan).opened(CPU))
        assert torch.equal(expected.frames, actual.frames) and torch.equal(expected.ids, actual.ids)
        assert (expected.name, expected.skipped) == (actual.name, actual.skipped)
    some = (
        torch.zeros(0, 3),
        torch.ones(3, dtype=torch.uint8),
        torch.tensor(2.5, dtype=torch.float64),
        torch.tensor([7]),
    )
    for before, after in zip(some, Parcel.of(some).opened(CPU), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)


def test_a_plan_is_small_beside_its_clip() -> None:
    """At 352 px a worker sends less than half of the bytes of the clip."""
    config = ClipConfig(size=352, frames=12)
    parcels = [Parcel.of(source(config).draw(index)) for index in range(8)]
    assert sum(parcel.block.numel() for parcel in parcels) < 0.5 * 8 * 12 * 4 * 352**2


def test_rendering_makes_no_tensor_off_its_device(plans: list[ClipPlan]) -> None:
    """Whatever the default device is, all that rendering makes is where the plan is: a tensor elsewhere would have no
    values."""
    for plan in plans:
        expected = render_clip(plan)
        with torch.device("meta"):
            actual = render_clip(plan)
        assert torch.equal(expected.frames, actual.frames) and torch.equal(expected.ids, actual.ids)


def test_rendering_never_asks_its_device_for_a_number(plans: list[ClipPlan], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering works on a device that has no values at all, so on a GPU it is queued without waiting; a CPU tensor
    would be refused."""
    monkeypatch.setattr(
        photometric, "_noise", lambda like, seed: torch.zeros_like(like)
    )  # there is no generator for that device
    for plan in plans[:8]:
        clip = render_clip(with_tensors(plan, lambda tensor: tensor.to("meta")))
        assert ("meta", "meta") == (clip.frames.device.type, clip.ids.device.type)
        assert ((4, 3, 32, 32), (4, 32, 32)) == (tuple(clip.frames.shape), tuple(clip.ids.shape))


def test_noise_has_the_strength_that_was_drawn() -> None:
    """Noise of a look spreads around the frames by its standard deviation, in steps of 8 bits, and is that of its
    seed."""
    look = Look(torch.ones(2, 3), noise=6.0, noise_seed=3)
    noisy = photometric.degrade(torch.full((2, 3, 64, 64), 0.5), look)
    assert pytest.approx(6.0, rel=0.05) == float(noisy.float().std())
    assert torch.equal(noisy, photometric.degrade(torch.full((2, 3, 64, 64), 0.5), look))


def batches(feed: Feed, *, ahead: bool) -> Iterator[Batch]:
    """A feed's batches, rendered here."""
    return rendered([Parcel.of(feed.draw(item)) for item in range(len(feed))], CPU, ahead=ahead)


@pytest.mark.parametrize("ahead", [False, True], ids=["when-asked-for", "in-a-thread"])
def test_batches_are_the_same_whoever_renders_them(ahead: bool) -> None:
    """Batches that are rendered where training goes on are those of the workers, in their order; none is lost at the
    end."""
    feed = Feed(source(), (3, 6), batch=2, part=range(2))
    for expected, actual in zip(load(feed, workers=0), batches(feed, ahead=ahead), strict=True):
        assert torch.equal(expected.frames, actual.frames) and torch.equal(expected.ids, actual.ids)


def test_plans_come_from_worker_processes() -> None:
    """What a worker process drew is rendered here, to the clips of this process."""
    feed = Feed(source(), (0, 2), batch=2, part=range(2))
    for item, batch in enumerate(load(feed, workers=1, device=CPU)):
        assert torch.equal(render_batch(feed.draw(item)).frames, batch.frames)


def test_errors_of_the_rendering_thread_reach_the_caller() -> None:
    """What goes wrong ahead of a step is raised when its batch is asked for, after those before it; and leaving early
    ends the thread."""

    def rendering() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("render")]

    def breaks() -> Iterator[Parcel[tuple[ClipPlan, ...]]]:
        yield Parcel.of((source().draw(0),))
        raise OptionError("broken")

    arriving = rendered(breaks(), CPU, ahead=True)
    assert 1 == len(next(arriving).frames)
    with pytest.raises(OptionError, match="broken"):
        next(arriving)
    assert [] == rendering()
    unfinished = rendered([Parcel.of((source().draw(0),))] * 3, CPU, ahead=True)
    next(unfinished)
    assert isinstance(unfinished, Generator) and 1 == len(rendering())
    unfinished.close()
    assert [] == rendering()


def test_the_rendering_thread_is_on_the_device_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU that is current is a thread's own affair, so the thread begins with that of its stream."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device))
    stream = SimpleNamespace(device=torch.device("cuda:1"))
    with feed_module._render_thread(cast(torch.cuda.Stream, stream)) as thread:
        thread.submit(int).result()

    assert [torch.device("cuda:1")] == chosen


def test_a_run_is_the_same_whoever_renders(tmp_path: Path) -> None:
    """On the CPU, training and validation on clips of the device end with the weights of those of the workers, bit for
    bit."""
    material = Material.load(pack_tiny(tmp_path / "pictures"))
    ends = []
    for render in ("workers", "device"):
        config = dataclasses.replace(TINY, render=render, validate_every=2, validation_clips=1)
        trainer = Trainer(config, material, tmp_path / render, workers=0)
        records = list(trainer.run(log_every=1, strip_every=2, until=2))
        ends.append((trainer.average.state_dict(), [{**record, "seconds": 0} for record in records]))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(weight, ends[1][0][name]) for name, weight in ends[0][0].items())


def test_times_of_clips_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`clips --time` says how many clips a second are drawn and rendered; no clips, or an unknown renderer, are
    errors."""
    path = pack_tiny(tmp_path / "pictures")
    (tmp_path / "config.json").write_text(TINY.to_json())
    arguments = [str(tmp_path / "config.json"), str(path), str(tmp_path / "clips.png"), "--number", "1", "--time", "2"]
    assert 0 == main(["clips", *arguments])
    told = capsys.readouterr().out
    assert "drawing:" in told and "rendering:" in told and "clips/s on cpu" in told
    with pytest.raises(OptionError, match="1 or more"):
        time_clips(source(), 0, CPU)
    with pytest.raises(OptionError, match="render: expected auto or device or workers, got 'gpu'"):
        TrainingConfig.from_json('{"render": "gpu"}')
