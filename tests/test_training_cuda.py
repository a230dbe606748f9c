"""Facts about training on a GPU: the pixels are those of the CPU, nothing waits that need not, a run learns and goes
on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from pictures import TINY, MadePictures, pack_tiny

from stmemory.training.data.material import Material
from stmemory.training.loader import Batch, Feed, Parcel, load, render_batch, rendered
from stmemory.training.loop import Trainer
from stmemory.training.synthesis.clips import ClipConfig, ClipSource, render_clip
from stmemory.training.synthesis.render import ClipPlan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

GPU = torch.device("cuda")
OFTEN = ClipConfig(
    size=64, frames=4, gap=2, video=0.3, warp=0.5, lookalike=0.5, event=0.5, blur=0.5, grey=0.2, reverse=0.3
)


def source() -> ClipSource:
    """Clips in which all that can happen happens often."""
    return ClipSource(MadePictures(), OFTEN, 11)


def on_gpu(plans: tuple[ClipPlan, ...]) -> tuple[ClipPlan, ...]:
    """The same plans, there."""
    return Parcel.of(plans).opened(GPU)


def test_a_gpu_renders_what_a_cpu_renders() -> None:
    """Without noise, whose values are each generator's own, colours are within 2 of 255 and ids alike, but for some at
    borders."""
    for index in range(12):
        plan = source().draw(index)
        plan = dataclasses.replace(plan, look=dataclasses.replace(plan.look, noise=0.0))
        expected, actual = render_clip(plan), render_clip(on_gpu((plan,))[0])

        assert "cuda" == actual.frames.device.type == actual.ids.device.type
        assert float(((expected.frames.int() - actual.frames.cpu().int()).abs() > 2).float().mean()) < 0.01
        assert float((expected.ids != actual.ids.cpu()).float().mean()) < 0.01


def test_rendering_does_not_wait_for_the_gpu() -> None:
    """All of it is queued: torch sees no operation that would wait."""
    plans = on_gpu(tuple(source().draw(index) for index in range(6)))
    render_batch(plans)  # what is set up once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        render_batch(plans)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_is_rendered_ahead_under_load_is_what_is_rendered_when_asked_for() -> None:
    """Batches that a thread makes on a stream of its own are whole when the caller's stream, full of other work, reads
    them."""
    feed = Feed(source(), (0, 6), batch=2, part=range(2))
    load_of_work = torch.randn(2048, 2048, device=GPU)

    def copies(*, ahead: bool) -> list[Batch]:
        kept = []
        for batch in rendered([Parcel.of(feed.draw(item)) for item in range(6)], GPU, ahead=ahead):
            for _ in range(20):
                torch.mm(load_of_work, load_of_work)
            kept.append(dataclasses.replace(batch, frames=batch.frames.clone(), ids=batch.ids.clone()))
        torch.cuda.synchronize()
        return kept

    for expected, actual in zip(copies(ahead=False), copies(ahead=True), strict=True):
        assert torch.equal(expected.frames, actual.frames) and torch.equal(expected.ids, actual.ids)


def test_clips_of_the_workers_are_fetched_from_pinned_memory() -> None:
    """A batch is pinned on its way, and whole on the GPU."""
    feed = Feed(source(), (0, 2), batch=1, part=range(1))
    for item, batch in enumerate(load(feed, workers=1, pin=True)):
        assert batch.frames.is_pinned() and batch.ids.is_pinned()
        assert torch.equal(feed[item].frames, batch.to(GPU).frames.cpu())


@pytest.mark.parametrize("render", ["device", "workers"])
def test_a_run_learns_on_a_gpu_and_goes_on(render: str, tmp_path: Path) -> None:
    """Two steps in bfloat16 move the weights, and a run that resumes ends the schedule, with Adam's counters where they
    do not wait."""
    material, config = Material.load(pack_tiny(tmp_path / "pictures")), dataclasses.replace(TINY, render=render)
    first = Trainer(config, material, tmp_path / "run", device="cuda", workers=0)
    before = {name: value.clone() for name, value in first.network.state_dict().items()}
    records = list(first.run(log_every=1, until=2))
    assert any(not torch.equal(value, before[name]) for name, value in first.network.state_dict().items())
    again = Trainer(config, material, tmp_path / "run", device="cuda", workers=0)
    assert again.resume()
    counters = {state["step"].device.type for state in again.learner.optimiser.state.values()}
    records += again.run(log_every=1, strip_every=1)

    assert {"cpu"} == counters
    assert {"cuda"} == {parameter.device.type for parameter in again.network.parameters()}
    assert [1, 2, 3, 4] == [record["step"] for record in records]
    assert all(math.isfinite(value) for record in records for value in record.values()) and not any(
        record["lost"] for record in records
    )
