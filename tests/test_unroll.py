"""Facts about clips that run through the memory in segments: truncated backpropagation through time."""

from __future__ import annotations

import dataclasses
import gc

import pytest
import torch
from torch import Tensor

from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.read import ReadCache
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.unroll import (
    Unrolled,
    Unroller,
    UnrollOptions,
    aggregate_logits,
    score_loss,
    segmentation_loss,
    unroll,
)

OPTIONS = UnrollOptions(capacity=3, share=0.5, own_masks=0.7)


def _network() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(dataclasses.replace(NetworkConfig.of("lite"), appearance_channels=8)).eval()


def _clips(frames: int, *, clips: int = 2) -> tuple[Tensor, Tensor]:
    """Noise with a rectangle that moves down by a pixel a frame, and in the first clip a second, still one."""
    pixels = torch.rand(clips, frames, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(clips, frames, 32, 32, dtype=torch.int64)
    for t in range(frames):
        ids[:, t, 4 + t : 16 + t, 4:20] = 1
    ids[0, :, 2:30, 24:30] = 2
    return pixels, ids


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _whole_clip(network: SegmentationNetwork, frames: Tensor, ids: Tensor, generator: torch.Generator) -> Unrolled:
    """The unroll without segments, in one loop: all frames are encoded first, and a frame is written as soon as it is
    read."""
    clips, time = frames.shape[:2]
    objects = int(ids.max())
    truth = ids[:, :, None] == torch.arange(1, objects + 1)[None, :, None, None][:, None]  # [V, T, N, H, W]
    rows = truth[:, 0].flatten(2).any(2).flatten().nonzero().squeeze(1)
    video = rows // objects
    encoded = network.encode_query(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    bank, cache, sums = network.new_bank(OPTIONS.capacity, policy=OPTIONS.policy), ReadCache(), DiscriminativeMemory()
    losses, seen, scored = [], [], []
    last = torch.zeros(0)
    for t in range(time):
        features = encoded.of_rows(torch.arange(clips) * time + t)
        masks = truth[:, t].flatten(0, 1)[rows].float()
        if t > 0:
            recalled = network.recall(features, bank, video, cache)
            total = torch.zeros(clips, 32, 32).index_add(0, video, last)
            cues = network.cues(features, sums, (last, (total[video] - last).clamp(0, 1)), video)
            logits = network.decode(recalled, features, video, cues)
            scored.append(score_loss(cues[:, 0], torch.nn.functional.avg_pool2d(masks[:, None], 8)[:, 0]))
            scores = aggregate_logits(logits, rows, clips=clips, objects=objects)
            losses.append(segmentation_loss(scores, ids[:, t], share=OPTIONS.share))
            seen.append(scores.softmax(1).detach())
            if float(torch.rand((), generator=generator)) < OPTIONS.own_masks:
                masks = scores.softmax(1)[:, 1:].flatten(0, 1)[rows]
        last = masks.detach()
        if t < time - 1:
            total = torch.zeros(clips, 32, 32).index_add(0, video, masks)
            others = (total[video] - masks).clamp(0, 1)
            template = network.encode_memory(features, masks, others, video)
            bank.write(template, frame=t, pinned=t == 0)
            network.learn(sums, features, masks, others, video, frame=t, given=t == 0)
    cross_entropy, dice = (torch.stack(list(each)).mean() for each in zip(*losses, strict=True))
    return Unrolled(cross_entropy, dice, torch.stack(seen, 1), torch.stack(scored).mean())


def _gradients(network: SegmentationNetwork) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def test_a_segment_as_long_as_the_clip_is_the_whole_clip() -> None:
    """Losses, probabilities and gradients equal those of a plain loop over the clip, bit for bit."""
    network, (frames, ids) = _network(), _clips(6)
    expected = _whole_clip(network, frames, ids, _generator())
    torch.autograd.backward(expected.cross_entropy + expected.dice + expected.scores)
    gradients = _gradients(network)

    result = unroll(network, frames, ids, options=OPTIONS, generator=_generator())
    torch.autograd.backward(result.cross_entropy + result.dice + result.scores)

    assert torch.equal(expected.cross_entropy, result.cross_entropy)
    assert torch.equal(expected.dice, result.dice)
    torch.testing.assert_close(expected.scores, result.scores)
    assert torch.equal(expected.probabilities, result.probabilities)
    again = _gradients(network)
    assert gradients.keys() == again.keys()
    assert [] == [name for name in gradients if not torch.equal(gradients[name], again[name])]


@pytest.mark.parametrize("lengths", [(4, 4), (3, 3, 2), (7, 1), (2, 2, 2, 2)], ids=str)
def test_segments_see_what_the_whole_clip_sees(lengths: tuple[int, ...]) -> None:
    """The bank is carried across segments: predictions are those of the clip in one piece, however it is cut."""
    network, (frames, ids) = _network(), _clips(8)
    expected = unroll(network, frames, ids, options=OPTIONS, generator=_generator())
    unroller = Unroller(network, options=OPTIONS, generator=_generator())
    parts = [unroller.advance(f, i) for f, i in zip(frames.split(lengths, 1), ids.split(lengths, 1), strict=True)]

    torch.testing.assert_close(
        expected.probabilities, torch.cat([part.probabilities for part in parts], 1), atol=1e-5, rtol=1e-4
    )
    mean = sum(part.cross_entropy.detach() * part.length for part in parts) / 7
    torch.testing.assert_close(expected.cross_entropy.detach(), mean)
    assert 8 == unroller.time
    assert [7, 7, 7] == [sum(slot.frames_inside for slot in unroller.bank.describe(row)) for row in range(3)]


def test_gradients_of_the_first_segment_are_those_of_a_clip_cut_there() -> None:
    """What comes later does not reach back."""
    network, (frames, ids) = _network(), _clips(8)
    cut = unroll(network, frames[:, :5], ids[:, :5], options=OPTIONS, generator=_generator())
    torch.autograd.backward(cut.cross_entropy + cut.dice)
    expected = _gradients(network)

    unroller = Unroller(network, options=OPTIONS, generator=_generator())
    first = unroller.advance(frames[:, :5], ids[:, :5])
    torch.autograd.backward(first.cross_entropy + first.dice)
    got = _gradients(network)

    assert [] == [name for name in expected if not torch.equal(expected[name], got[name])]
    second = unroller.advance(frames[:, 5:], ids[:, 5:])
    torch.autograd.backward(second.cross_entropy + second.dice)  # raises if it reached the graph that is freed
    untouched = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert [] == untouched, "the second segment alone trains every part"


def test_gradients_of_a_later_segment_stop_at_its_beginning() -> None:
    """Two frames after the cut, the gradient is that of the same frames with the memory given as constants."""
    network, (frames, ids) = _network(), _clips(6)
    frames.requires_grad_()
    unroller = Unroller(network, options=OPTIONS, generator=_generator())
    unroller.advance(frames[:, :4], ids[:, :4])
    assert not any(t.requires_grad for t in unroller.bank.contents().values())
    second = unroller.advance(frames[:, 4:], ids[:, 4:])
    torch.autograd.backward(second.cross_entropy + second.dice)

    assert frames.grad is not None
    assert 0.0 == float(frames.grad[:, :4].abs().sum())
    assert float(frames.grad[:, 4:].abs().sum()) > 0


def test_a_later_segment_trains_the_key_head_on_all_that_is_remembered() -> None:
    """Its first keys are those of all slots in use, as its first values are, not of the new template alone."""
    network, (frames, ids) = _network(), _clips(6)
    unroller = Unroller(network, options=OPTIONS, generator=_generator())
    unroller.advance(frames[:, :4], ids[:, :4])
    seen: list[int] = []
    network.read.key.register_forward_hook(lambda head, inputs, keys: seen.append(len(keys)))
    unroller.advance(frames[:, 4:], ids[:, 4:])

    assert 9 == int(unroller.bank.count.sum()) == seen[0], "three objects with three slots each"


def _held_elements() -> int:
    """Elements of all float tensors that are alive."""
    gc.collect()
    kinds = (Tensor, torch.nn.Parameter)  # and not what a compiler keeps of the graphs of other tests
    tensors = [o for o in gc.get_objects() if type(o) in kinds and o.is_floating_point()]
    return sum({t.untyped_storage().data_ptr(): t.numel() for t in tensors}.values())


def test_what_is_held_between_segments_does_not_grow() -> None:
    """After each segment as much is alive as after the one before, since no graph is carried on."""
    network, (frames, ids) = _network(), _clips(20)
    unroller = Unroller(network, options=OPTIONS, generator=_generator())
    held = []
    for start in range(0, 20, 4):
        result = unroller.advance(frames[:, start : start + 4], ids[:, start : start + 4])
        torch.autograd.backward(result.cross_entropy + result.dice)
        del result
        held.append(_held_elements())

    assert [held[1]] * 4 == held[1:]
