"""Clips of folders: Moving MNIST's file, KTH, Human3.6M by both protocols, on small folders with the names of the real
ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stmemory.errors import FrameError, OptionError
from stmemory.prediction.datasets import KTH_ACTIONS, Human36mMim, Human36mOpenStl, Kth, MovingMnistFile, resize
from stmemory.prediction.synthetic import batch


def picture(path: Path, value: int, *, height: int = 24, width: int = 32) -> None:
    """A grey of this value on the left of the middle, and yellow on its right."""
    pixels = np.full((height, width, 3), (200, 200, 170), np.uint8)
    pixels[:, : width // 2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def slow_linear(picture: np.ndarray, size: int) -> np.ndarray:
    """Each new pixel is the mean of the four old ones around its centre, by their distance; [H, W]."""
    height, width = picture.shape
    found = np.zeros((size, size))
    for y, x in np.ndindex(size, size):
        row, column = (y + 0.5) * height / size - 0.5, (x + 0.5) * width / size - 0.5
        for j in (int(np.floor(row)), int(np.floor(row)) + 1):
            for i in (int(np.floor(column)), int(np.floor(column)) + 1):
                weight = (1 - abs(row - j)) * (1 - abs(column - i))
                found[y, x] += weight * picture[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
    return found


@pytest.mark.parametrize("size", [5, 12, 30])
def test_resizing_takes_four_samples_and_does_not_smooth(size: int) -> None:
    """Frames are resized as OpenCV's linear mode does, smaller as well as larger."""
    frame = torch.rand(1, 1, 24, 13)

    assert np.allclose(slow_linear(frame[0, 0].numpy(), size), resize(frame, size)[0, 0].numpy(), atol=1e-6)


class TestMovingMnistFile:
    def test_clips_are_those_of_the_file(self, tmp_path: Path) -> None:
        """Clip n is [:, n] of the file, in [0, 1]."""
        stored = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), np.uint8)
        np.save(tmp_path / "mnist_test_seq.npy", stored)
        clips = MovingMnistFile(tmp_path / "mnist_test_seq.npy")

        assert (3, 20, (1, 64, 64)) == (len(clips), clips.frames, clips.size)
        assert np.array_equal(
            stored.transpose(1, 0, 2, 3)[:, :, None], (batch(clips, range(3)) * 255).round().byte().numpy()
        )
        for number in (-1, 3):
            with pytest.raises(OptionError, match="expected a number in 0..2"):
                clips.clip(number)

    BAD = {
        "clips-first": (np.zeros((3, 20, 4, 4), np.uint8), r"T = 20, got uint8 \(3, 20, 4, 4\); transpose it"),
        "floats": (np.zeros((20, 3, 4, 4), np.float32), "got float32"),
        "three": (np.zeros((20, 4, 4), np.uint8), "got uint8"),
        "none": (np.zeros((20, 0, 4, 4), np.uint8), "got uint8"),
    }

    @pytest.mark.parametrize(("stored", "says"), BAD.values(), ids=BAD)
    def test_other_layouts(self, tmp_path: Path, stored: np.ndarray, says: str) -> None:
        """A file of something else is refused with what it holds."""
        np.save(tmp_path / "a.npy", stored)
        with pytest.raises(FrameError, match=says):
            MovingMnistFile(tmp_path / "a.npy")

    def test_no_npy_file(self, tmp_path: Path) -> None:
        """A file that is missing, empty, text or an archive is refused by name."""
        (tmp_path / "empty.npy").touch()
        (tmp_path / "text.npy").write_text("frames")
        np.savez(tmp_path / "archive.npz", frames=np.zeros(3))
        for name in ("none.npy", "empty.npy", "text.npy", "archive.npz"):
            with pytest.raises(FrameError, match=f"{name}: expected an npy file of clips"):
                MovingMnistFile(tmp_path / name)


def kth(root: Path, videos: dict[str, list[int]]) -> Path:
    """A folder with the six actions and the frames of some videos; a frame's value is its number."""
    for action in KTH_ACTIONS:
        (root / action).mkdir()
    for name, numbers in videos.items():
        for number in numbers:
            picture(root / name.split("_")[1] / name / f"image_{number:04d}.jpg", number)
    return root


def first_values(clips: Kth | Human36mMim) -> list[list[int]]:
    """The value at the left edge of each frame of each clip, in 255ths, in the first channel."""
    return [(clips.clip(index)[:, 0, 0, 0] * 255).round().int().tolist() for index in range(len(clips))]


class TestKth:
    def test_clips_are_cut_from_the_end(self, tmp_path: Path) -> None:
        """Slow actions have clips side by side, fast ones every 3 frames; no clip reaches over missing frames or
        videos."""
        root = kth(
            tmp_path,
            {
                "person01_boxing_d1_uncomp": [*range(1, 12), *range(20, 26)],
                "person16_jogging_d4_uncomp": [*range(1, 12)],
                "person17_boxing_d1_uncomp": [*range(30, 37)],
                "person25_running_d2_uncomp": [*range(1, 5)],
            },
        )
        slow, fast = [[4, 5, 6, 7], [8, 9, 10, 11], [22, 23, 24, 25]], [[2, 3, 4, 5], [5, 6, 7, 8], [8, 9, 10, 11]]

        assert [*slow, *fast] == first_values(Kth(root, split="train", frames=4, size=8))
        assert [[33, 34, 35, 36]] == first_values(Kth(root, split="test", frames=4, size=8, actions=["boxing"]))
        assert 2 == len(Kth(root, split="test", frames=4))

    def test_frames_are_the_resized_first_channel(self, tmp_path: Path) -> None:
        """A frame is 1 x 128 x 128 in [0, 1], by default, of linear weights."""
        clips = Kth(kth(tmp_path, {"person02_walking_d1_uncomp": [1, 2, 3]}), frames=3)
        (name,) = (path for path in tmp_path.rglob("image_0002.jpg"))
        expected = slow_linear(np.asarray(Image.open(name).convert("RGB"))[..., 0].astype(float), 128) / 255

        assert (3, (1, 128, 128)) == (clips.frames, clips.size)
        assert np.allclose(expected, clips.clip(0)[1, 0].numpy(), atol=1e-6)

    def test_bad_folders(self, tmp_path: Path) -> None:
        """What is missing is named: the folder of an action, frames, the number in a frame's name, clips that are long
        enough."""
        with pytest.raises(FrameError, match="boxing: expected a folder of videos .* got no such folder"):
            Kth(tmp_path)
        with pytest.raises(FrameError, match="expected clips of 30 frames of the test persons"):
            Kth(kth(tmp_path, {"person17_boxing_d1_uncomp": [1, 2, 3]}), split="test")
        (tmp_path / "boxing" / "person18_boxing_d1_uncomp").mkdir()
        with pytest.raises(FrameError, match="person18_boxing_d1_uncomp: expected frames as image_0001.jpg, got none"):
            Kth(tmp_path, split="test")
        picture(tmp_path / "boxing" / "person18_boxing_d1_uncomp" / "image1.jpg", 1)
        with pytest.raises(FrameError, match="image1.jpg: expected a name as image_0001.jpg"):
            Kth(tmp_path, split="test")

    def test_bad_frames(self, tmp_path: Path) -> None:
        """A frame of another size, a damaged one and one that went away are named when the clip is asked for."""
        root = kth(tmp_path, {f"person0{person}_boxing_d1_uncomp": [1, 2, 3] for person in (1, 2, 3)})
        clips = Kth(root, frames=3)
        files = [root / "boxing" / f"person0{person}_boxing_d1_uncomp" / "image_0002.jpg" for person in (1, 2, 3)]
        picture(files[0], 2, width=30)
        files[1].write_bytes(files[1].read_bytes()[:200])
        files[2].unlink()
        says = ("expected 32 x 24 like the first frame of its clip, got 30 x 24", "cannot be read", "no such file")
        for index, words in enumerate(says):
            with pytest.raises(FrameError, match=f"person0{index + 1}.*image_0002.jpg: .*{words}"):
                clips.clip(index)

    BAD = {
        "split": ({"split": "val"}, "expected 'train' or 'test', got 'val'"),
        "action": ({"actions": ["sleeping"]}, "expected some of boxing, .* got 'sleeping'"),
        "frames": ({"frames": 2}, "frames: expected 3 or more"),
        "size": ({"size": 0}, "size: expected 1 or more"),
    }

    @pytest.mark.parametrize(("options", "says"), BAD.values(), ids=BAD)
    def test_bad_options(self, tmp_path: Path, options: dict, says: str) -> None:
        """What the protocol does not have is refused by name."""
        with pytest.raises(OptionError, match=says):
            Kth(tmp_path, **options)


def human(root: Path, images: dict[str, list[int]], **size: int) -> Path:
    """Images of Human3.6M; the value is a tenth of the frame's number."""
    for name, numbers in images.items():
        for number in numbers:
            picture(root / f"{name}_{number:06d}.jpg", number // 10 + 20, **size)
    return root


def slow_mim(numbers: list[int], frames: int, stride: int) -> list[list[int]]:
    """Section by section, for one video that others follow: every so many images, with two images from frame to
    frame."""
    clips = []
    for first in range(0, len(numbers) - 2 * (frames - 1), stride):
        clip = numbers[first : first + 2 * frames - 1 : 2]
        if clip == list(range(clip[0], clip[0] + 10 * frames, 10)):
            clips.append(clip)
    return clips


class TestHuman36mMim:
    ONE, GAP = [*range(1, 200, 5)], [*range(1, 100, 5), *range(121, 300, 5)]

    def test_clips(self, tmp_path: Path) -> None:
        """Walking of the split's subjects alone: every 10th or 5th image begins a clip of every second, whole and of
        one video."""
        root = human(
            tmp_path,
            {
                "S1_Walking.54138969": self.ONE,
                "S1_Walking_1.54138969": self.GAP,
                "S1_WalkDog.54138969": self.ONE,
                "S9_Walking.55011271": self.ONE,
                "sub/S11_Walking.55011271": self.GAP,
                "S11_Eating.55011271": self.ONE,
            },
        )
        train, test = (Human36mMim(root, split=split, frames=4, size=8) for split in ("train", "test"))

        def values(clips: list[list[int]]) -> list[list[int]]:
            return [[number // 10 + 20 for number in clip] for clip in clips]

        # The public loader wants one image more behind the last clip of all; the sets here have it.
        assert values([*slow_mim(self.ONE, 4, 10), *slow_mim(self.GAP, 4, 10)]) == first_values(train)
        # In the order of names, S11 comes before S9.
        assert values([*slow_mim(self.GAP, 4, 5), *slow_mim(self.ONE, 4, 5)]) == first_values(test)

    def test_the_last_clip_of_all_needs_an_image_behind_it(self, tmp_path: Path) -> None:
        """Of 7 images 4 frames could be cut, but the public loader wants 8."""
        with pytest.raises(FrameError, match="got 7 images of Walking and no 7 in a row"):
            Human36mMim(human(tmp_path, {"S1_Walking.1": [*range(1, 36, 5)]}), frames=4, size=8)

        assert 1 == len(Human36mMim(human(tmp_path, {"S1_Walking.1": [36]}), frames=4, size=8))

    def test_frames_are_the_middle_half(self, tmp_path: Path) -> None:
        """Rows and columns from a quarter to three quarters, resized to bytes, in the order red, green, blue."""
        root = human(tmp_path, {"S5_Walking.54138969": [1]}, height=42, width=40)
        picture(root / "S5_Walking.54138969_000006.jpg", 0, height=42, width=40)
        pixels = np.asarray(Image.open(root / "S5_Walking.54138969_000001.jpg").convert("RGB"))
        middle = pixels[10:31, 10:30].astype(float)
        expected = np.stack([slow_linear(middle[..., channel], 10) for channel in range(3)])

        found = Human36mMim(root, frames=1, size=10).clip(0)[0] * 255
        assert np.abs(expected - found.numpy()).max() <= 0.5001
        assert found[0, 0, 9] > found[2, 0, 9] + 20  # blue is last

    def test_bad_folders(self, tmp_path: Path) -> None:
        """No folder, no images of the split, and images that were reduced before, are refused with what is expected."""
        with pytest.raises(FrameError, match="got no such folder"):
            Human36mMim(tmp_path / "none")
        with pytest.raises(FrameError, match="of S9, S11, got none"):
            Human36mMim(human(tmp_path, {"S1_Walking.1": [*range(1, 100, 5)]}), split="test")
        with pytest.raises(FrameError, match="middle half is 128 x 128 or larger, got 32 x 24"):
            Human36mMim(tmp_path).clip(0)
        (tmp_path / "S1_Walking.1_000011.jpg").unlink()
        with pytest.raises(FrameError, match="no 15 in a row"):
            Human36mMim(tmp_path)


class TestHuman36mOpenStl:
    def test_clips_are_those_of_the_list(self, tmp_path: Path) -> None:
        """A clip has every fifth frame from the one that its line names, whatever subject, action and end the line
        has."""
        human(tmp_path / "images", {"S1_Eating_2.54138969": [*range(1, 100, 5)], "S9_Walking.1": [*range(6, 100, 5)]})
        (tmp_path / "test.txt").write_text("images/S1_Eating_2.54138969_,26,96\nimages/S9_Walking.1_,6,76\n\n")
        clips = Human36mOpenStl(tmp_path, split="test", size=24)
        found = [(clips.clip(index)[:, 2, 12, 0] * 255).round().int().tolist() for index in range(2)]  # red is last

        assert (2, 8, (3, 24, 24)) == (len(clips), clips.frames, clips.size)
        assert [[number // 10 + 20 for number in range(first, first + 40, 5)] for first in (26, 6)] == found

    def test_frames_are_whole_and_begin_with_blue(self, tmp_path: Path) -> None:
        """An image of the size that is wanted comes as it is, its channels turned round; another is resized and stays
        in [0, 1]."""
        human(tmp_path / "images", {"S1_Posing.2": [1]}, height=24, width=24)
        (tmp_path / "train.txt").write_text("images/S1_Posing.2_,1,71\n")
        pixels = np.asarray(Image.open(tmp_path / "images" / "S1_Posing.2_000001.jpg").convert("RGB"))
        found = Human36mOpenStl(tmp_path, frames=1, size=24).clip(0)[0]
        smaller = Human36mOpenStl(tmp_path, frames=1, size=9).clip(0)[0]

        assert np.array_equal(pixels.transpose(2, 0, 1)[::-1], (found * 255).round().byte().numpy())
        assert ((3, 9, 9), True) == (tuple(smaller.shape), bool((smaller >= 0).all() and (smaller <= 1).all()))

    def test_bad_lists_and_missing_images(self, tmp_path: Path) -> None:
        """No list, an empty one, a line of something else, and an image that is not there, are named."""
        file = tmp_path / "train.txt"
        with pytest.raises(FrameError, match="train.txt: expected OpenSTL's list"):
            Human36mOpenStl(tmp_path)
        bad = {"\n": "got an empty one", "images/S1_,1\nimages/S1_\n": "line 2: expected a clip as .* got 'images/S1_'"}
        for text, says in bad.items():
            file.write_text(text)
            with pytest.raises(FrameError, match=says):
                Human36mOpenStl(tmp_path)
        file.write_text("images/S1_Walking.1_,1,71\n")
        human(tmp_path / "images", {"S1_Walking.1": [1, 6, 16]})
        with pytest.raises(FrameError, match="S1_Walking.1_000011.jpg: expected a frame of a clip, got no such file"):
            Human36mOpenStl(tmp_path).clip(0)
