"""Facts about one video's stream: what comes back of given masks, objects that come and go, corrections, the write
gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, bank_of, boxes, clip, new_predictor, same, state_of, tiny_network, tiny_predictor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.postprocess import remove_false_positives
from stmemory.prompts import Prompt
from stmemory.stream import VOSStream

FRAMES = clip(12)


def stack(*ids: int) -> np.ndarray:
    """The objects of `boxes` as booleans `[N, H, W]`."""
    mask = boxes(*ids)
    return np.stack([mask == i for i in ids])


@pytest.mark.parametrize(
    ("mask", "ids"),
    [
        (boxes(3, 9), (3, 9)),
        (boxes(70000, 5, 12), (5, 12, 70000)),
        (torch.from_numpy(boxes(3, 9)), (3, 9)),
        (stack(1, 2), (1, 2)),
        (stack(1, 2).astype(np.float32), (1, 2)),
        (boxes(1) == 1, (1,)),
        (Image.fromarray(boxes(200, 201).astype(np.uint8)), (200, 201)),
    ],
    ids=["id map", "sparse ids", "tensor", "stack", "soft stack", "boolean", "PIL"],
)
def test_given_masks_come_back_exactly(mask: object, ids: tuple[int, ...]) -> None:
    """In the first frame and in a later one the result is the mask, under the user's own ids."""
    expected = boxes(*ids) if ids != (5, 12, 70000) else boxes(70000, 5, 12)
    for start in (mask, boxes(8)):
        stream = tiny_predictor().start(FRAMES[0], start)
        result = stream.last if start is mask else stream.step(FRAMES[1], mask)
        given = torch.isin(result.ids, torch.tensor(ids, dtype=torch.int32))
        assert (expected * (expected > 0)).tolist() == (result.ids * given).tolist()
        assert {1.0} == {result.scores[i] for i in ids} and all(result.present[i] for i in ids)


@pytest.mark.parametrize("short_side", [None, 32], ids=["own size", "resized"])
def test_given_masks_come_back_exactly_at_any_working_size(short_side: int | None) -> None:
    """A mask of single pixels comes back as it was given even where the network works at another size."""
    frames = clip(2, 80, 100)
    mask = (np.arange(80)[:, None] + np.arange(100)) % 3
    stream = tiny_predictor(short_side=short_side).start(frames[0], mask)
    assert mask.tolist() == stream.last.ids.tolist()
    stream.step(frames[1], mask)
    corner = np.zeros((80, 100), int)
    corner[:3, :3] = 4
    expected = np.where(corner > 0, corner, mask)
    assert expected.tolist() == stream.correct(corner).ids.tolist()  # what was given before is still exact


def test_soft_masks_come_back_as_they_are() -> None:
    """The probabilities of a soft map are those given, and the background has the rest."""
    soft = torch.rand(1, HEIGHT, WIDTH)
    last = tiny_predictor().start(FRAMES[0], soft).last
    torch.testing.assert_close(torch.cat([1 - soft, soft]), last.probabilities)


def test_void_says_nothing() -> None:
    """Where a later mask is void, what was found stays; elsewhere the mask counts."""
    plain, voided = (tiny_predictor().start(FRAMES[0], boxes(3, 9)) for _ in range(2))
    found = plain.step(FRAMES[1])
    mask = boxes(3, 9).astype(np.uint8)
    mask[:, 20:40] = 255
    result = voided.step(FRAMES[1], mask)
    assert torch.equal(found.probabilities[:, :, 20:40], result.probabilities[:, :, 20:40])
    known = mask != 255
    assert mask[known].tolist() == result.ids.numpy()[known].tolist()
    assert (3, 9) == result.object_ids


def test_background_in_a_later_mask_says_nothing_about_others() -> None:
    """A mask that names object 3 alone leaves object 9 where it was found, as far as 3 is not there."""
    plain, told = (tiny_predictor().start(FRAMES[0], boxes(3, 9)) for _ in range(2))
    found, result = plain.step(FRAMES[1]), told.step(FRAMES[1], boxes(3))
    elsewhere = torch.from_numpy(boxes(3) != 3)
    assert bool((found.ids == 9).any())
    torch.testing.assert_close(found.probabilities[2][elsewhere], result.probabilities[2][elsewhere])
    assert boxes(3).tolist() == (result.ids * (result.ids == 3)).tolist()


def test_results_are_distributions_of_the_users_ids() -> None:
    """Over a clip probabilities sum to 1, ids are their argmax, scores and presence agree with them."""
    stream = tiny_predictor().start(FRAMES[0], boxes(40, 7))
    for index, frame in enumerate(FRAMES[1:], 1):
        result = stream.step(frame)
        assert (index, index, (7, 40)) == (result.frame_index, stream.frame_index, result.object_ids)
        torch.testing.assert_close(torch.ones(HEIGHT, WIDTH), result.probabilities.sum(0))
        assert torch.equal(torch.tensor([0, 7, 40]).int()[result.probabilities.argmax(0)], result.ids)
        for row, object_id in enumerate(result.object_ids):
            own = result.probabilities[1 + row][result.ids == object_id]
            assert result.present[object_id] == (len(own) > 0)
            assert pytest.approx(float(own.mean()) if len(own) else 0.0) == result.scores[object_id]
        assert result is stream.last


def test_objects_enter_at_any_step() -> None:
    """Objects that enter with a mask, and with `add_objects`, are tracked from then on, in rows of their own."""
    stream = tiny_predictor().start(FRAMES[0], boxes(9))
    stream.step(FRAMES[1])
    assert (9, 3, 5) == stream.step(FRAMES[2], boxes(3, 5)).object_ids
    result = stream.add_objects(boxes(1000))
    assert (2, (9, 3, 5, 1000)) == (result.frame_index, result.object_ids)
    assert boxes(1000).tolist() == (result.ids * (result.ids == 1000)).tolist()
    result = stream.step(FRAMES[3])
    assert (9, 3, 5, 1000) == result.object_ids == tuple(result.scores)
    assert [[0, 1, 2, 3], [2, 3], [2, 3], [2, 3]] == [[s.frame for s in slots] for slots in stream.describe().values()]


def test_a_video_may_begin_without_objects_left() -> None:
    """After all objects were removed the stream goes on, everything is background, and objects may enter again."""
    stream = tiny_predictor().start(FRAMES[0], boxes(3))
    stream.remove_objects([3])
    result = stream.step(FRAMES[1])
    assert ((), 0, (1, HEIGHT, WIDTH)) == (result.object_ids, int(result.ids.max()), tuple(result.probabilities.shape))
    assert boxes(4).tolist() == stream.step(FRAMES[2], boxes(4)).ids.tolist()
    assert (4,) == stream.step(FRAMES[3]).object_ids


def test_a_removed_object_leaves_the_last_result() -> None:
    """`last` knows it no longer, its pixels go to the others or the background, and the rest is as it was."""
    stream = tiny_predictor().start(FRAMES[0], boxes(3, 9))
    before = stream.step(FRAMES[1])
    stream.remove_objects([3])
    assert ((9,), {9}) == (stream.last.object_ids, set(stream.last.scores))
    assert torch.equal(before.probabilities[2], stream.last.probabilities[1])
    torch.testing.assert_close(torch.ones(HEIGHT, WIDTH), stream.last.probabilities.sum(0))
    assert (3, 9) == before.object_ids and bool((before.ids == 3).any())  # what was handed out stays as it was


def test_removing_an_object_twenty_objects_away_is_like_never_having_had_it() -> None:
    """Objects do not see each other's memory: the others' templates are as if it had never been looked at again."""
    stream = tiny_predictor().start(FRAMES[0], boxes(*range(1, 9)))
    stream.step(FRAMES[1])
    stream.remove_objects([2, 5])
    assert (1, 3, 4, 6, 7, 8) == stream.object_ids == stream.step(FRAMES[2]).object_ids
    assert 6 == stream.bank.rows


def test_a_correction_replaces_what_was_found() -> None:
    """It comes back exactly, keeps the frame's index, is memorised pinned, and changes the frames after it."""
    plain, corrected = (tiny_predictor().start(FRAMES[0], boxes(3)) for _ in range(2))
    for stream in (plain, corrected):
        stream.step(FRAMES[1])
    handed_out = corrected.last
    before = handed_out.ids.clone()
    result = corrected.correct(boxes(3))
    assert (1, boxes(3).tolist()) == (result.frame_index, result.ids.tolist())
    assert torch.equal(before, handed_out.ids)
    assert [(0, True), (1, True)] == [(slot.frame, slot.pinned) for slot in corrected.describe()[3]]
    assert [(0, True), (1, False)] == [(slot.frame, slot.pinned) for slot in plain.describe()[3]]
    assert not torch.equal(plain.step(FRAMES[2]).probabilities, corrected.step(FRAMES[2]).probabilities)


def test_correcting_is_like_having_known() -> None:
    """While slots are free, `correct` after a step leaves the memory that a step with the mask leaves."""
    told, corrected = (tiny_predictor().start(FRAMES[0], boxes(3)) for _ in range(2))
    told.step(FRAMES[1], boxes(3))
    corrected.step(FRAMES[1])
    corrected.correct(boxes(3))
    for name in ("templates", "keys", "valid", "pinned", "frame"):
        torch.testing.assert_close(bank_of(told)[name], bank_of(corrected)[name])
    torch.testing.assert_close(told.step(FRAMES[2]).probabilities, corrected.step(FRAMES[2]).probabilities)


def test_the_first_frame_can_be_corrected() -> None:
    """The corrected template takes the first one's place, pinned, and the wrong one is forgotten."""
    wrong, right = (tiny_predictor(zoom=1).start(FRAMES[0], mask) for mask in (boxes(3, 3), boxes(3)))
    wrong.correct(boxes(3))
    assert [(0, True)] == [(slot.frame, slot.pinned) for slot in wrong.describe()[3]]
    torch.testing.assert_close(right.bank.templates, wrong.bank.templates)


def test_a_frame_without_the_object_is_not_memorised() -> None:
    """An object that is not seen writes nothing, whatever the gate."""
    predictor = new_predictor()
    predictor.network.decoder.end.bias.fill_(-1000.0)
    stream = predictor.start(FRAMES[0], boxes(3))
    before = bank_of(stream)
    for frame in FRAMES[1:4]:
        assert {3: False} == stream.step(frame).present
    assert same(before, bank_of(stream))


def test_the_write_gate_keeps_uncertain_frames_out() -> None:
    """Exactly the frames whose score reaches the gate are memorised; the gate stands between the clip's scores."""
    free = tiny_predictor(memory_size=12).start(FRAMES[0], boxes(3))
    scores = [free.step(frame).scores[3] for frame in FRAMES[1:]]
    gated = tiny_predictor(memory_size=12, write_gate=sorted(scores)[5]).start(FRAMES[0], boxes(3))
    memorised = [0]
    for index, frame in enumerate(FRAMES[1:], 1):
        if gated.step(frame).scores[3] >= gated.options.write_gate:
            memorised.append(index)
    assert memorised == [slot.frame for slot in gated.describe()[3]]
    assert 1 < len(memorised) < 12


def test_false_positives_far_away_are_removed() -> None:
    """What a stream with a reach finds is what one without finds, less the regions that are too far from the last
    place."""
    near, free = tiny_predictor(reach=0.05, margin=None), tiny_predictor(margin=None)
    place = np.full((HEIGHT, WIDTH), 3)
    place[:, : WIDTH // 2] = 0
    removed = 0
    for frame in FRAMES[1:5]:
        found = free.start(FRAMES[0], place).step(frame).ids == 3
        expected = remove_false_positives(found, torch.from_numpy(place == 3), reach=2)
        result = near.start(FRAMES[0], place).step(frame)
        assert torch.equal(expected, result.ids == 3)
        torch.testing.assert_close(torch.ones(HEIGHT, WIDTH), result.probabilities.sum(0))
        removed += int((found & ~expected).sum())
    assert removed > 50


def test_a_new_stream_knows_nothing() -> None:
    """Before the first frame there is no result, nothing to save, and no index."""
    stream = VOSStream(tiny_predictor().network, TrackingOptions())
    assert (-1, (), {}) == (stream.frame_index, stream.object_ids, stream.describe())
    with pytest.raises(FrameError, match=r"step\(frame, mask\)"):
        _ = stream.last


def test_more_than_200_objects_are_refused() -> None:
    """By masks and by prompts, of a new frame and of the last one; the stream goes on with those that it has."""
    few, more = (np.zeros((HEIGHT, WIDTH), int) for _ in range(2))
    few.flat[:8], more.flat[8:201] = np.arange(1, 9), np.arange(9, 202)
    stream = tiny_predictor().start(FRAMES[0], few)
    prompts = [Prompt(object_id, points=[(1, 1)]) for object_id in range(9, 202)]
    with pytest.raises(MaskError, match="mask: expected at most 200 objects in all, got 201"):
        stream.add_objects(more)
    with pytest.raises(MaskError, match="mask: expected at most 200 objects in all, got 201"):
        stream.step(FRAMES[1], more)
    with pytest.raises(MaskError, match="prompts: expected at most 200 objects in all, got 201"):
        stream.correct(prompts=prompts)
    assert tuple(range(1, 9)) == stream.step(FRAMES[1]).object_ids


def test_twenty_objects_have_twenty_templates() -> None:
    """Objects are memorised 16 at a time; each of 20 has a template of its own, with the frame's key that all share."""
    many = tiny_predictor(zoom=1).start(FRAMES[0], boxes(*range(1, 21)))
    alone = tiny_predictor(zoom=1).start(FRAMES[0], np.where(boxes(*range(1, 21)) == 18, 18, 0))
    assert 20 == many.bank.rows and many.bank.pinned[:, 0].all()
    key = many.network.config.template_channels - many.network.config.key_channels
    torch.testing.assert_close(
        alone.bank.templates[0, 0, key:], many.bank.templates[17, 0, key:]
    )  # the frame's own key
    others = [torch.equal(many.bank.templates[0, 0], many.bank.templates[row, 0]) for row in range(1, 20)]
    assert not any(others)


def test_many_objects_need_the_working_memory_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 objects no more than 4 templates and the sums of no more than 16 are made at a time, and all are made."""
    made: dict[str, list[int]] = {"template": [], "memorise_beside": []}

    def watch(name: str) -> None:
        call = getattr(SegmentationNetwork, name)

        def counted(
            self: object, features: object, found: object, rows: list[int], *rest: object, **more: object
        ) -> object:
            made[name].append(len(rows))
            return call(self, features, found, rows, *rest, **more)

        monkeypatch.setattr(SegmentationNetwork, name, counted)

    for name in made:
        watch(name)
    tiny_predictor(zoom=1).start(FRAMES[0], boxes(*range(1, 21)))
    assert {"template": [4] * 5, "memorise_beside": [16, 4]} == made


def test_an_absent_object_leaves_the_last_frame_and_stays_an_object() -> None:
    """Its pixels, its place and what this frame wrote of it go; its older templates, its id and all of the others
    stay."""
    stream = tiny_predictor().start(FRAMES[0], boxes(3, 9))
    for frame in FRAMES[1:4]:
        found = stream.step(frame)
    assert found.present[3]
    before, others = stream.describe(), bank_of(stream)["templates"][1]
    result = stream.correct(absent=[3])

    assert (3, 9) == result.object_ids == stream.object_ids and result is stream.last
    assert (False, 0.0) == (result.present[3], result.scores[3]) and not bool((result.ids == 3).any())
    assert torch.equal(found.probabilities[2], result.probabilities[2]) and not bool(result.probabilities[1].any())
    torch.testing.assert_close(torch.ones(HEIGHT, WIDTH), result.probabilities.sum(0))
    assert [slot for slot in before[3] if slot.frame != 3] == stream.describe()[3] != before[3]
    assert before[9] == stream.describe()[9] and torch.equal(others, bank_of(stream)["templates"][1])
    assert (3, 9) == stream.step(FRAMES[4]).object_ids


def test_an_absent_object_is_looked_for_everywhere() -> None:
    """After an absence no region is too far from the object's last place, since it has none."""
    near = tiny_predictor(reach=0.02).start(FRAMES[0], boxes(3, 9))
    near.step(FRAMES[1])
    far = tiny_predictor(reach=None).start(FRAMES[0], boxes(3, 9))
    far.step(FRAMES[1])
    kept = [stream.step(FRAMES[2], write=False).ids == 3 for stream in (near, far)]
    assert not torch.equal(*kept)
    near, far = (tiny_predictor(reach=reach).start(FRAMES[0], boxes(3)) for reach in (0.02, None))
    for stream in (near, far):
        stream.step(FRAMES[1], write=False)
        stream.correct(absent=[3])
    assert torch.equal(near.step(FRAMES[2]).ids, far.step(FRAMES[2]).ids)


def test_one_call_corrects_one_object_and_takes_another_out() -> None:
    """A mask and `absent` together give the mask exactly and no pixel of the other."""
    stream = tiny_predictor().start(FRAMES[0], boxes(3, 9))
    stream.step(FRAMES[1])
    result = stream.correct(boxes(3, 9) * (boxes(3, 9) == 9), absent={3})
    assert (boxes(3, 9) * (boxes(3, 9) == 9)).tolist() == result.ids.tolist()


ABSENT = {
    "nothing": ({}, "mark an object with its id"),
    "empty": ({"mask": boxes(3) * 0}, "got neither"),
    "unknown": ({"absent": [4]}, "only an object that is tracked"),
    "other kind": ({"absent": ["3", 9]}, "expected ids of"),
    "no list": ({"absent": 3}, "a list of one"),
    "text": ({"absent": "3"}, "a list of one"),
    "both": ({"mask": boxes(3, 9), "absent": [3]}, "in the mask and in absent"),
    "just entered": ({"absent": [12]}, "remove_objects"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_an_absence_that_cannot_be_leaves_the_stream_as_it_was(name: str, tmp_path: Path) -> None:
    """Each is refused with what to do, and nothing has changed."""
    arguments, told = ABSENT[name]
    stream = tiny_predictor().start(FRAMES[0], boxes(3, 9))
    stream.step(FRAMES[1], boxes(12))
    before = state_of(stream, tmp_path)
    with pytest.raises(MaskError, match=told):
        stream.correct(**arguments)
    assert before == state_of(stream, tmp_path)


@pytest.mark.parametrize("top_k", [None, 3], ids=str)
def test_a_stream_of_its_own_reads_as_its_options_say(top_k: int | None, tmp_path: Path) -> None:
    """A stream made with a network that reads otherwise finds, bit for bit, what a predictor with its options finds;
    the network is left as it is, and other streams of it too."""
    expected = tiny_predictor(top_k=top_k).start(FRAMES[0], boxes(3, 9))
    network = tiny_predictor(top_k=None if top_k else 5).network
    before, other = network.read.top_k, VOSStream(network, tiny_predictor().options)
    stream = VOSStream(network, tiny_predictor(top_k=top_k).options)
    for index, frame in enumerate(FRAMES[:4]):
        found = stream.step(frame, None if index else boxes(3, 9))
        other.step(frame, None if index else boxes(3, 9))
        wanted = expected.step(frame) if index else expected.last
        assert torch.equal(wanted.probabilities, found.probabilities)
    assert state_of(expected, tmp_path) == state_of(stream, tmp_path)
    assert (before, top_k) == (network.read.top_k, stream.network.read.top_k)
    if top_k is not None:
        assert not torch.equal(found.probabilities, other.last.probabilities)
    assert all(one is same for one, same in zip(network.parameters(), stream.network.parameters(), strict=True))


def test_a_network_in_training_mode_is_refused(tmp_path: Path) -> None:
    """When a stream is made and at every step; in eval mode again the stream goes on from where it was."""
    network, options = tiny_network(), tiny_predictor(top_k=3).options
    with pytest.raises(OptionError, match=r"training mode.*network\.eval"):
        VOSStream(network.train(), options)
    stream = VOSStream(network.eval(), options)
    stream.step(FRAMES[0], boxes(3))
    before = state_of(stream, tmp_path)
    network.train()
    for call in (lambda: stream.step(FRAMES[1]), lambda: stream.correct(boxes(3)), lambda: stream.remove_objects([3])):
        with pytest.raises(OptionError, match="training mode"):
            call()
    network.eval()
    assert before == state_of(stream, tmp_path)
    assert 1 == stream.step(FRAMES[1]).frame_index


def test_corrections_are_pinned_as_far_as_two_slots_stay_free() -> None:
    """Of four slots two are pinned: the first template, and the latest correction in place of the one before; of three
    slots the first template alone."""
    for slots, expected in ((4, [[0], [0, 1], [0, 2], [0, 3]]), (3, [[0], [0], [0], [0]])):
        stream, pinned = tiny_predictor(memory_size=slots).start(FRAMES[0], boxes(3)), []
        for frame in FRAMES[1:5]:
            pinned.append([slot.frame for slot in stream.describe()[3] if slot.pinned])
            stream.step(frame, boxes(3))
        assert expected == pinned
