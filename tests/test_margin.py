"""Facts about margins: an object is looked for around its last place, and so much of a frame is memorised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import same, state_of, tiny_network, tiny_predictor
from torch import Tensor

from stmemory import OptionError, TrackingOptions, VOSPredictor
from stmemory.evaluation import render_scene
from stmemory.io.frames import WorkingSize
from stmemory.memory.discriminative import ridge_sums
from stmemory.networks.config import NetworkConfig
from stmemory.networks.parts import Part
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.postprocess import object_scores, soft_aggregate, soft_aggregate_logits, winners
from stmemory.window import Window

HEIGHT, WIDTH = 96, 160


def squares(*places: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame with a square of 16 px at each place, in colours of their own, and its ids."""
    frame, ids = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (top, left) in enumerate(places, 1):
        frame[top : top + 16, left : left + 16] = [(230, 40, 40), (40, 40, 230)][number - 1]
        ids[top : top + 16, left : left + 16] = number
    return frame, ids


def lite(**options: object) -> VOSPredictor:
    """The bundled network over whole frames of this size."""
    return VOSPredictor.from_pretrained(options=TrackingOptions(**{"zoom": 1.0, "enlarge": 1.0, **options}))


def test_a_part_is_the_cells_of_a_mask_and_a_margin() -> None:
    """Cells that a mask touches with a half or more, widened on each side as far as the frame goes; none of an empty
    mask."""
    mask = torch.zeros(96, 160)
    mask[15:17, 40] = 0.5
    mask[90, 150] = 0.4
    assert Part(0, 4, 1, 5) == Part.around(mask, 0)  # 2 x 1 cells, and as many as make it 4 x 4
    assert Part(0, 4, 0, 8) == Part.around(mask, 2)
    assert Part(0, 6, 0, 10) == Part.around(mask, 3) == Part.around(mask, 99) == Part.whole(mask)
    sizes = set()
    large = torch.zeros(480, 864)
    for side in range(16, 480, 16):
        large[:side, :side] = 1
        part = Part.around(large, 1)
        assert part is not None
        assert part.bottom >= min(30, side // 16 + 1)
        assert part.right >= min(54, side // 16 + 1)
        sizes.add((part.bottom - part.top, part.right - part.left))
    assert len(sizes) < 12
    assert Part.around(torch.full((32, 32), 0.49), 1) is None
    large = torch.zeros(480, 864)
    large[200:220, 30:60] = 1
    inside = Part.around(large, 1, leaving=True)
    assert inside == Part.around(large, 1) != Part.whole(large)
    large[200:220, 10:60] = 1  # it touches a cell at the edge
    assert Part.around(large, 1, leaving=True) == Part.whole(large) != Part.around(large, 1)
    assert (0, 64, 0, 80) == Part(0, 4, 0, 5).box


def test_features_of_a_part_are_those_cells() -> None:
    """All maps of a frame's features are cut at the same place."""
    features = tiny_network().encode_query(torch.rand(1, 3, 96, 160))
    part = Part(1, 4, 2, 7)
    cut = part.features(features)
    assert torch.equal(cut.frame, features.frame[..., 16:64, 32:112])
    assert torch.equal(cut.stride4, features.stride4[..., 4:16, 8:28])
    assert features.appearance is not None
    assert cut.appearance is not None
    assert torch.equal(cut.appearance, features.appearance[..., 2:8, 4:14])
    for name in ("key", "value", "stride16"):
        assert torch.equal(getattr(cut, name), getattr(features, name)[..., 1:4, 2:7])


@pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
@pytest.mark.parametrize("objects", [0, 1, 2, 7])
def test_logits_are_aggregated_as_probabilities_are(objects: int, scale: float) -> None:
    """What comes of logits is what STM's aggregation makes of their probabilities in float64; outside of its box an
    object is nowhere, and inside all is as with logits that say so."""
    logits = scale * torch.randn(objects, 13, 17)
    found = soft_aggregate_logits(logits)
    torch.testing.assert_close(found, soft_aggregate(logits.double().sigmoid()).float(), atol=1e-6, rtol=0)
    boxes = [(n, 13 - n % 3, 2 * (n % 4), 9 + n) for n in range(objects)]
    outside = torch.ones_like(logits, dtype=torch.bool)
    for number, (top, bottom, left, right) in enumerate(boxes):
        outside[number, top:bottom, left:right] = False
    inside = soft_aggregate_logits(logits, boxes)
    expected = soft_aggregate(logits.double().masked_fill(outside, -40.0).sigmoid()).float()
    torch.testing.assert_close(inside, expected, atol=1e-6, rtol=0)
    assert not inside[1:][outside].any()
    winner = winners(inside)
    assert torch.equal(winner, winners(inside, boxes))
    for one, other in zip(object_scores(inside, winner), object_scores(inside, winner, boxes), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("frame", "short", "window"),
    [
        ((96, 160), None, (0, 0, 96, 160)),
        ((90, 150), None, (0, 0, 90, 150)),
        ((90, 150), None, (20, 31, 60, 100)),
        ((240, 400), 96, (0, 0, 240, 400)),
        ((240, 400), 96, (77, 50, 120, 200)),
    ],
    ids=["as it is", "padded", "closer", "shrunk", "both"],
)
def test_boxes_in_a_frame_hold_what_is_put_back(
    frame: tuple[int, int], short: int | None, window: tuple[int, int, int, int]
) -> None:
    """Whatever lies in a box of the working size lies in the box of the frame after it was put back."""
    size, look = WorkingSize.of(*frame, short, 16), Window(*window)
    for box in ((0, 16, 0, 16), (16, 48, 32, 96), (32, 96, 64, 160), (0, size.padded_height, 0, size.padded_width)):
        top, bottom, left, right = box
        maps = torch.zeros(2, size.padded_height, size.padded_width)
        maps[1, top:bottom, left:right] = 1
        full = look.put_back(maps, size)
        ((above, below, before, after),) = look.boxes_in_frame([box], size)
        assert float(full[1].sum()) > 0
        full[1, above:below, before:after] = 0
        assert not full[1].any()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_sums_of_many_objects_share_what_they_can(rows: int) -> None:
    """Without grad the products of a frame are computed once for its objects: the sums stay what they are, for masks
    that overlap softly and for frames of several videos."""
    features = torch.randn(2, 6, 12, 20)
    video = torch.arange(rows) % 2
    masks = torch.zeros(rows, 12, 20)
    for row in range(rows):
        masks[row, 2 * row : 2 * row + 3, 3 * row : 3 * row + 4] = torch.rand(3, 4)
    total = torch.stack([masks[video == frame].sum(0) for frame in range(2)])[video]
    masks = masks / total.clamp_min(1)
    others = (total / total.clamp_min(1) - masks).clamp(0, 1)
    with torch.enable_grad():
        expected = ridge_sums(features, masks, others, video, rivals=0.7)
    with torch.no_grad():
        found = ridge_sums(features, masks, others, video, rivals=0.7)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_far_object_costs_a_near_one_nothing() -> None:
    """With a margin only the surroundings of an object are looked at and memorised; what was given is memorised
    whole."""
    predictor = lite(margin=0.2)
    first, ids = squares((32, 32))
    stream = predictor.start(first, ids)
    for shift in range(1, 5):
        frame, _ = squares((32, 32 + 2 * shift))
        result = stream.step(frame)
        assert result.present[1]
    extents = {info.frame: stream.bank.extent[0, info.slot].tolist() for info in stream.bank.describe(0)}
    assert [[0, 6], [0, 10]] == extents.pop(0)
    for extent in extents.values():  # 1 cell around those of the square, 1 to 3 each way, and as many as make it 4 n
        (top, bottom), (left, right) = extent
        assert bottom - top in (4, 6)
        assert right - left in (4, 8)
    assert not any(stream.bank.cells[0, slot.slot].all() for slot in stream.bank.describe(0)[1:])


def test_an_object_that_jumps_is_found_again() -> None:
    """What is not near its last place any more is looked for everywhere, in the same frame."""
    first, ids = squares((32, 16))
    far, truth = squares((48, 128))
    found = {}
    for margin in (0.2, None):
        stream = lite(margin=margin, reach=None).start(first, ids)
        found[margin] = stream.step(far).ids.numpy()
    overlap = (found[0.2] == 1) & (truth == 1)
    assert overlap.sum() > 0.5 * (truth == 1).sum()
    assert ((found[None] == 1) & (truth == 1)).sum() > 0.5 * (truth == 1).sum()


def test_a_large_margin_is_none() -> None:
    """Where all of a frame is within the margin, masks are those of whole frames."""
    frames = [frame for frame, _ in render_scene(4, height=HEIGHT, width=WIDTH, seed=1)]
    _, ids = next(render_scene(1, height=HEIGHT, width=WIDTH, seed=1))
    streams = [lite(margin=margin).start(frames[0], ids) for margin in (20.0, None)]
    for frame in frames[1:]:
        near, whole = (stream.step(frame) for stream in streams)
        assert torch.equal(near.ids, whole.ids)
        torch.testing.assert_close(near.probabilities, whole.probabilities, atol=1e-4, rtol=0)


def test_a_stream_with_a_margin_is_saved_and_goes_on(tmp_path: Path) -> None:
    """Bit for bit, with extents in its bank, whichever frame it was saved after; its bytes stay the same."""
    predictor = lite(margin=0.2, memory_every=1)
    clip = [squares((24 + 2 * t, 24 + 3 * t), (56, 120 - 4 * t)) for t in range(9)]
    whole = predictor.start(*clip[0])
    sizes, results = set(), []
    for frame, _ in clip[1:]:
        results.append(whole.step(frame))
        sizes.add(whole.nbytes)
    assert whole.bank.has_extents
    assert len(sizes) == 1
    for saved_after in (1, 5):
        stream = predictor.start(*clip[0])
        for frame, _ in clip[1 : saved_after + 1]:
            stream.step(frame)
        stream.save(tmp_path / "stream")
        again = predictor.resume(tmp_path / "stream")
        for (frame, _), expected in zip(clip[saved_after + 1 :], results[saved_after:], strict=True):
            result = again.step(frame)
            assert torch.equal(result.probabilities, expected.probabilities)
        assert state_of(again, tmp_path) == state_of(whole, tmp_path)
        assert same({n: t.clone() for n, t in again.bank.contents().items()}, dict(whole.bank.contents()))


def test_margins_are_the_networks_own_where_none_is_chosen() -> None:
    """`lite` has one; a network of another paper looks at whole frames, unless it is told to."""
    assert 0.2 == VOSPredictor.from_pretrained().options.margin
    other = SegmentationNetwork(NetworkConfig(**{**vars(tiny_network().config), "appearance_channels": 0})).eval()
    assert VOSPredictor(other).options.margin is None
    assert 0.1 == VOSPredictor(other, options=TrackingOptions(margin=0.1)).options.margin
    with pytest.raises(OptionError, match="expected margin as a number, 0 or more, or None"):
        TrackingOptions(margin=-0.1)


def test_a_network_with_another_margin_shares_its_weights() -> None:
    """The copy is the same module but for the margin."""
    network = tiny_network()
    near = network.with_margin(0.1)
    assert near is not network
    assert near.with_margin(0.1) is near
    assert [p.data_ptr() for p in near.parameters()] == [p.data_ptr() for p in network.parameters()]
    assert network.margin is None
    one: Tensor = tiny_predictor(margin=0.1).network.encode_query(torch.zeros(1, 3, 32, 32)).key
    assert one.shape[0] == 1
