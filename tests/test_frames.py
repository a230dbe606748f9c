"""Facts about frames of any kind, image and video files, and the working size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import FrameError, OptionError, ShapeError
from stmemory.io.frames import WorkingSize, count_frames, fit, iterate_frames, restore, to_frame
from stmemory.io.images import image_files
from stmemory.io.video import OverlayWriter, frame_rate, iterate_video, write_video

CLIP = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)  # [T, H, W, 3]
PIXELS = CLIP[0]
FRAME = torch.from_numpy(PIXELS.astype(np.float32) / 255).permute(2, 0, 1)


def smooth_clip(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    """Draw pictures whose grey grows from picture to picture, with noise so that packets have some length."""
    noise = np.random.default_rng(1).integers(0, 60, (count, height, width, 3))
    return [(noise[index] + 3 * index).astype(np.uint8) for index in range(count)]


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS[:, ::-1].copy()[:, ::-1],
        PIXELS / 255,
        (PIXELS / 255).astype(">f4"),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        FRAME,
        FRAME.double(),
        Image.fromarray(PIXELS),
    ],
    ids=["uint8", "reversed memory", "float64", "big-endian", "uint8 tensor", "tensor", "float64 tensor", "PIL"],
)
def test_one_image_of_any_kind_becomes_the_same_frame(image: object) -> None:
    """All kinds of the same pixels give one float32 frame, which is the caller's to change."""
    frame = to_frame(image)
    torch.testing.assert_close(frame, FRAME)
    assert torch.float32 == frame.dtype
    frame.zero_()
    assert float(FRAME.sum()) > 0 and int(PIXELS.sum()) > 0


def test_read_only_arrays_are_taken() -> None:
    """An array that may not be written gives a frame, and no warning."""
    pixels = PIXELS.copy()
    pixels.flags.writeable = False
    torch.testing.assert_close(to_frame(pixels), FRAME)


def test_pil_images_of_other_modes_are_converted() -> None:
    """Grey is repeated, transparency dropped, palettes are looked up, as `.convert("RGB")` does."""
    grey = Image.fromarray(PIXELS[..., 0])
    assert torch.equal(FRAME[:1].expand(3, -1, -1), to_frame(grey))
    assert torch.equal(FRAME, to_frame(Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))))
    palette = Image.fromarray(PIXELS).quantize(4)
    palette.info["transparency"] = b"\x00\xff"
    assert (3, 4, 6) == tuple(to_frame(palette).shape)


def test_rounding_errors_are_clamped() -> None:
    """Floats a rounding error outside [0, 1] become 0 and 1."""
    frame = to_frame(torch.tensor([-1e-4, 1 + 1e-4]).expand(3, 1, 2))
    assert [[0.0, 1.0]] == frame[0].tolist()


def spoiled(value: float) -> NDArray[np.float32]:
    """Put one wrong value into a float image."""
    pixels: NDArray[np.float32] = (PIXELS / 255).astype(np.float32)
    pixels[1, 2, 0] = value
    return pixels


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (PIXELS[..., 0], ShapeError, r"\[H, W, 3\], got shape \(4, 6\); repeat a grey"),
        (PIXELS[..., :1], ShapeError, "repeat a grey"),
        (np.zeros((4, 6, 4), np.uint8), ShapeError, "alpha"),
        (torch.zeros(4, 4, 6), ShapeError, "alpha"),
        (torch.zeros(4, 6, 3), ShapeError, r"tensor \[3, H, W\].*movedim\(-1, -3\)"),
        (np.zeros((3, 4, 6)), ShapeError, "moveaxis"),
        (CLIP, ShapeError, "iterate_frames"),
        (np.zeros((0, 6, 3)), ShapeError, "at least one pixel"),
        (PIXELS.astype(np.int64), ShapeError, "got int64.*uint8"),
        (torch.zeros(3, 4, 6, dtype=torch.bool), ShapeError, "got torch.bool"),
        (7, ShapeError, "got int"),
        (spoiled(np.nan), FrameError, "got 1 NaN or infinite"),
        (spoiled(-np.inf), FrameError, "got 1 NaN or infinite"),
        (spoiled(1.5), FrameError, r"got \[0.*, 1.5\].*uint8, or divide by 255"),
        (spoiled(-0.5), FrameError, r"got \[-0.5, "),
        (PIXELS.astype(np.float32), FrameError, "divide by 255"),
        (PIXELS.astype(np.float32) / 127.5 - 1, FrameError, r"got \[-.*; undo what shifted them: \(x \+ 1\) / 2"),
        (Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200), FrameError, "I;16"),
        ("missing.png", FrameError, "'missing.png'"),
        (Path(__file__).parent, FrameError, "expected an image file"),
    ],
    ids=[
        "grey",
        "one channel",
        "RGBA",
        "RGBA tensor",
        "HWC tensor",
        "CHW array",
        "clip",
        "no pixels",
        "int64",
        "bool",
        "int",
    ]
    + ["NaN", "inf", "above 1", "below 0", "0..255", "-1..1", "16-bit PIL", "no file", "folder"],
)
def test_wrong_images_are_errors_that_say_why(image: object, error: type[Exception], message: str) -> None:
    """What is no RGB image is refused, with what came and what to do; in a clip, with its index."""
    with pytest.raises(error, match=message):
        to_frame(image)
    frames = iterate_frames([PIXELS, image])
    next(frames)
    with pytest.raises(error):
        next(frames)
    if not isinstance(image, (str, Path, Image.Image)):
        with pytest.raises(error, match="^frame 1: "):
            list(iterate_frames([PIXELS, image]))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (CLIP, 3),
        (torch.from_numpy(CLIP).permute(0, 3, 1, 2), 3),
        (list(CLIP), 3),
        (tuple(Image.fromarray(pixels) for pixels in CLIP), 3),
        ((pixels for pixels in CLIP), None),
    ],
    ids=["array", "tensor", "list", "PIL", "generator"],
)
def test_a_clip_of_any_kind_gives_the_same_frames(source: object, count: int | None) -> None:
    """Arrays, tensors, lists and generators of the same pixels give the same frames."""
    assert count == count_frames(source)
    expected = torch.from_numpy(CLIP.astype(np.float32) / 255).permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.stack(list(iterate_frames(source))), expected)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], FrameError, "at least one frame"),
        (CLIP[:0], FrameError, "at least one frame"),
        (torch.zeros(0, 3, 4, 6), FrameError, "at least one frame"),
        (PIXELS, ShapeError, r"array \[T, H, W, 3\], got shape \(4, 6, 3\); .*image\[None\]"),
        (torch.zeros(2, 4, 6, 3), ShapeError, "movedim"),
        (CLIP.transpose(0, 3, 1, 2), ShapeError, "moveaxis"),
        (np.zeros((2, 4, 6, 4)), ShapeError, "alpha"),
        (np.zeros((2, 4, 6, 1)), ShapeError, "grey"),
        (Image.fromarray(PIXELS), ShapeError, r"got Image; one image is a clip as \[image\]"),
        ({"a": PIXELS}, ShapeError, "got dict"),
        (None, ShapeError, "got NoneType"),
        ("missing.mp4", FrameError, "'missing.mp4'"),
    ],
    ids=[
        "list",
        "array",
        "tensor",
        "image",
        "HWC tensor",
        "CHW array",
        "RGBA",
        "grey",
        "PIL",
        "dict",
        "None",
        "no file",
    ],
)
def test_wrong_clips_are_errors_when_called(source: object, error: type[Exception], message: str) -> None:
    """The argument is checked by the call, before any next()."""
    with pytest.raises(error, match=message):
        iterate_frames(source)


def test_an_empty_generator_is_an_error_at_the_first_next() -> None:
    """A generator without frames is not a clip."""
    frames = iterate_frames(iter(()))
    with pytest.raises(FrameError, match="at least one frame"):
        next(frames)


def test_a_change_of_size_names_the_frame_and_both_sizes() -> None:
    """The frames before the change are given; then it is an error."""
    frames = iterate_frames([PIXELS, PIXELS[:3]])
    next(frames)
    with pytest.raises(FrameError, match=r"frame 1: .* 4 x 6 \(H x W\), got 3 x 6"):
        next(frames)


def test_what_a_generator_raises_comes_through() -> None:
    """Its own exception, the same object, after the frames before it; and it is only asked for one frame at a time."""
    error, asked = KeyError("mine"), []

    def source() -> Iterator[NDArray[np.uint8]]:
        for index in range(2):
            asked.append(index)
            yield PIXELS
        raise error

    frames = iterate_frames(source())
    assert [] == asked
    next(frames)
    assert [0] == asked
    next(frames)
    with pytest.raises(KeyError) as caught:
        next(frames)
    assert error is caught.value


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    """9 comes before 10; hidden files, other files and folders are passed over."""
    for name, grey in (("f10.PNG", 10), ("f9.png", 9), ("f1_2.bmp", 2), ("f1_10.bmp", 3), (".f0.png", 99)):
        Image.new("RGB", (4, 3), (grey, grey, grey)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "sub.png").mkdir()
    assert [2, 3, 9, 10] == [round(float(frame[0, 0, 0]) * 255) for frame in iterate_frames(str(tmp_path))]
    assert 4 == count_frames(tmp_path)


def test_masks_beside_frames_are_no_frames(tmp_path: Path) -> None:
    """PNGs with the names of JPEGs are left out, however many there are; other kinds of frames may lie side by side."""
    for name in ("0.jpg", "1.jpeg", "2.JPG", "3.png"):
        Image.new("RGB", (8, 6), (int(name[0]) * 60,) * 3).save(tmp_path / name)
    for name in ("0.png", "2.png"):
        Image.new("P", (8, 6)).save(tmp_path / name)
    assert [0, 60, 120, 180] == [round(float(frame.mean()) * 255) for frame in iterate_frames(tmp_path)]
    assert 4 == count_frames(tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_a_mask_of_another_name_beside_frames_is_refused(mode: str, tmp_path: Path) -> None:
    """A palette or grey image among JPEGs is named, with what to do; alone left out it is no obstacle."""
    Image.new("RGB", (8, 6)).save(tmp_path / "0.jpg")
    Image.new(mode, (8, 6)).save(tmp_path / "mask.png")
    with pytest.raises(FrameError, match="1 JPEGs and 1 others.*mask.png looks like a mask"):
        iterate_frames(tmp_path)
    assert [tmp_path / "0.jpg"] == image_files(tmp_path, without=[tmp_path / "mask.png"])


def test_named_masks_are_no_frames(tmp_path: Path) -> None:
    """Any number of them is left out; where nothing else is there, the error says so."""
    names = ("0.png", "1.png", "late.png", "mask.png")
    for name in names:
        Image.new("L", (8, 6)).save(tmp_path / name)
    masks = [tmp_path / "mask.png", tmp_path / ".." / tmp_path.name / "late.png"]
    assert ["0.png", "1.png"] == [file.name for file in image_files(tmp_path, without=masks)]
    with pytest.raises(FrameError, match="nothing but the masks that were named"):
        image_files(tmp_path, without=[tmp_path / name for name in names])


def test_a_damaged_image_in_a_folder_is_named(tmp_path: Path) -> None:
    """An empty folder is an error at once; a damaged file when its turn comes, with its name."""
    with pytest.raises(FrameError, match="one without any"):
        iterate_frames(tmp_path)
    Image.fromarray(np.tile(PIXELS, (9, 9, 1))).save(tmp_path / "0.png")
    whole = (tmp_path / "0.png").read_bytes()
    for name, data in (("1.png", whole[: len(whole) // 2]), ("1.png", b"no image")):
        (tmp_path / name).write_bytes(data)
        frames = iterate_frames(tmp_path)
        next(frames)
        with pytest.raises(FrameError, match="1.png"):
            next(frames)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_multi_page_images_are_clips(tmp_path: Path, suffix: str) -> None:
    """Each page is a frame, in order."""
    greys = [10, 90, 200]
    pages = [Image.new("RGB", (8, 6), (grey, grey, grey)) for grey in greys]
    path = tmp_path / f"a.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert 3 == count_frames(path)
    assert greys == pytest.approx([float(frame[0, 3, 4]) * 255 for frame in iterate_frames(path)], abs=2)


def test_orientation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    """A file whose EXIF says that it lies on its side is turned upright, as one image and as a clip."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    expected = torch.rot90(FRAME, -1, (1, 2))
    assert torch.equal(expected, to_frame(tmp_path / "a.png"))
    assert torch.equal(expected, next(iterate_frames(tmp_path)))


def test_a_video_is_read_and_written(tmp_path: Path) -> None:
    """What is written comes back, nearly, at its rate; an odd size is padded by one pixel."""
    pytest.importorskip("av")
    path = tmp_path / "new" / "a.mp4"
    pictures = smooth_clip(5, height=31, width=47)
    assert 5 == write_video(path, iter(pictures), rate=12.5)
    assert (5, 12.5) == (count_frames(path), frame_rate(path))
    frames = list(iterate_frames(path))
    assert [(3, 32, 48)] * 5 == [tuple(frame.shape) for frame in frames]
    for picture, frame in zip(pictures, frames, strict=True):
        assert float(picture.mean()) == pytest.approx(float(frame.mean()) * 255, abs=4)


def encode(path: Path, codec: str, *, options: dict[str, str] | None = None) -> None:
    """Write 40 frames with PyAV itself."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        generator = np.random.default_rng(0)
        for _ in range(40):
            picture = generator.integers(0, 128, (48, 64, 3), dtype=np.uint8)
            picture[:8, :8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("b.mp4", "mpeg4", {"movflags": "faststart"}),
        ("c.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("d.mkv", "libx264", {}),
        ("e.avi", "mpeg4", {}),
    ],
    ids=["mp4", "mp4 mpeg4", "fragmented", "mkv", "avi"],
)
def test_a_truncated_video_gives_its_frames_and_then_an_error(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """The frames before the break come first; the error says how many they were. The whole file has no error."""
    path = tmp_path / name
    encode(path, codec, options=options)
    assert 40 == len(list(iterate_frames(path)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    read = 0
    with pytest.raises(FrameError, match=r"broke after \d+ frames") as caught:
        for _ in iterate_frames(path):
            read += 1
    assert 0 < read < 40
    assert f"broke after {read} frames" in str(caught.value)


def test_a_video_without_its_index_is_an_error_at_once(tmp_path: Path) -> None:
    """An MP4 whose end, and so whose index, is missing, and a file that is no video, cannot be opened."""
    path = tmp_path / "a.mp4"
    encode(path, "libx264")
    for data in (path.read_bytes()[:2000], b"no video", b""):
        path.write_bytes(data)
        with pytest.raises(FrameError, match="not a video that PyAV can read"):
            iterate_frames(path)


def test_a_damaged_video_is_an_error(tmp_path: Path) -> None:
    """Damage in the middle is not concealed."""
    path = tmp_path / "a.mp4"
    encode(path, "libx264")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(bytes(data))
    with pytest.raises(FrameError, match="broke after"):
        list(iterate_frames(path))


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing a video name the package; images need no PyAV."""
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(FrameError, match='pip install "av>=12"'):
        iterate_frames(tmp_path / "a.mp4")
    with pytest.raises(FrameError, match='pip install "av>=12"'):
        OverlayWriter(tmp_path / "b.mp4")
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert torch.equal(FRAME, next(iterate_frames(tmp_path / "a.png")))


def test_a_writer_that_is_interrupted_leaves_a_video(tmp_path: Path) -> None:
    """After an error in the block, what was written can be read; nothing written, no file."""
    pytest.importorskip("av")
    with pytest.raises(KeyboardInterrupt), OverlayWriter(tmp_path / "a.mp4") as writer:
        for picture in smooth_clip(4):
            writer.write(picture)
        raise KeyboardInterrupt
    assert 4 == len(list(iterate_video(tmp_path / "a.mp4")))
    with OverlayWriter(tmp_path / "b.mp4"):
        pass
    assert not (tmp_path / "b.mp4").exists()


def test_a_writer_refuses_what_is_no_picture(tmp_path: Path) -> None:
    """Floats, another size, a closed file and a rate of 0 are errors that say what came."""
    pytest.importorskip("av")
    pictures = smooth_clip(2)
    with pytest.raises(OptionError, match="got 0"):
        OverlayWriter(tmp_path / "a.mp4", rate=0)
    with OverlayWriter(tmp_path / "a.mp4") as writer:
        writer.write(pictures[0])
        with pytest.raises(FrameError, match=r"image 1: .*\(32, 48, 3\), got \(30, 48, 3\)"):
            writer.write(pictures[1][:30])
        wrong: Any = pictures[1] / 255
        with pytest.raises(FrameError, match="image 1: .*float64"):
            writer.write(wrong)
    with pytest.raises(FrameError, match="closed"):
        writer.write(pictures[1])


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (1080, 1920, 480, (480, 853, 480, 864)),
        (1920, 1080, 480, (853, 480, 864, 480)),
        (100, 33, 480, (100, 33, 112, 48)),
        (1080, 1920, None, (1080, 1920, 1088, 1920)),
        (1, 1, 480, (1, 1, 16, 16)),
    ],
    ids=["shrunk", "portrait", "small", "never", "one pixel"],
)
def test_working_size(height: int, width: int, short_side: int | None, expected: tuple[int, ...]) -> None:
    """The shorter side is shrunk, and not enlarged by default; both are padded to the stride."""
    size = WorkingSize.of(height, width, short_side, 16)
    assert WorkingSize(height, width, *expected) == size


@pytest.mark.parametrize(
    ("height", "width", "enlarge", "expected"),
    [
        (240, 432, 2.0, (480, 864, 480, 864)),
        (160, 240, 2.0, (320, 480, 320, 480)),
        (360, 640, 2.0, (480, 853, 480, 864)),
        (480, 854, 2.0, (480, 854, 480, 864)),
        (1080, 1920, 2.0, (480, 853, 480, 864)),
        (240, 432, 1.0, (240, 432, 240, 432)),
    ],
    ids=["twice", "at most twice", "to the target", "at the target", "shrunk", "off"],
)
def test_small_frames_are_enlarged(height: int, width: int, enlarge: float, expected: tuple[int, ...]) -> None:
    """Frames below `short_side` are enlarged to it, but at most by the factor; larger ones are shrunk as without it."""
    assert WorkingSize(height, width, *expected) == WorkingSize.of(height, width, 480, 16, enlarge=enlarge)


def test_an_enlarged_frame_comes_back() -> None:
    """A map that is fitted to an enlarged working size and restored is nearly itself: both ways are resized
    smoothly."""
    ramp = torch.linspace(0, 1, 40).expand(1, 30, 40)
    size = WorkingSize.of(30, 40, 60, 16, enlarge=2)
    assert (1, 64, 80) == tuple(fit(ramp, size).shape)
    torch.testing.assert_close(ramp[..., 2:-2], restore(fit(ramp, size), size)[..., 2:-2], atol=1e-3, rtol=0)


def test_wrong_working_sizes_are_errors() -> None:
    """Sizes below 1 and sizes that contradict each other are refused."""
    with pytest.raises(OptionError, match="short_side 0"):
        WorkingSize.of(10, 10, 0, 16)
    with pytest.raises(OptionError, match="frame 0 x 10"):
        WorkingSize.of(0, 10, None, 16)
    with pytest.raises(OptionError, match=r"WorkingSize\.of"):
        WorkingSize(10, 10, 20, 10, 16, 16)
    with pytest.raises(OptionError, match="enlarge"):
        WorkingSize.of(10, 10, 20, 16, enlarge=0.5)


def test_fit_and_restore_are_exact_without_resizing() -> None:
    """Padding is zeros at the right and bottom, and cropped again."""
    size = WorkingSize.of(4, 6, None, 16)
    fitted = fit(FRAME, size)
    assert (3, 16, 16) == tuple(fitted.shape)
    assert torch.equal(FRAME, fitted[:, :4, :6])
    assert 0 == fitted[:, 4:].abs().sum() + fitted[:, :, 6:].abs().sum()
    assert torch.equal(FRAME, restore(fitted, size))


@pytest.mark.parametrize("leading", [(), (3,), (2, 5)], ids=["[H,W]", "[c,H,W]", "[*,c,H,W]"])
def test_fit_and_restore_keep_a_slope(leading: tuple[int, ...]) -> None:
    """A linear slope survives shrinking by half and coming back, away from the border; leading dimensions are kept."""
    slope = (torch.arange(40.0) / 40).expand(*leading, 60, 40)
    size = WorkingSize.of(60, 40, 20, 16)
    fitted = fit(slope, size)
    assert (*leading, 32, 32) == tuple(fitted.shape)
    back: Tensor = restore(fitted, size)
    assert slope.shape == back.shape
    torch.testing.assert_close(back[..., 4:-4], slope[..., 4:-4], rtol=0, atol=1e-3)


def test_shrinking_averages_fine_patterns() -> None:
    """A chessboard of single pixels becomes grey, not black or white: shrinking is antialiased."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float()
    shrunk = fit(board, WorkingSize.of(64, 64, 16, 16))
    torch.testing.assert_close(shrunk[2:-2, 2:-2], torch.full((12, 12), 0.5), rtol=0, atol=0.02)


def test_maps_of_another_size_are_errors() -> None:
    """fit wants the frame's size, restore the padded one; both want floats."""
    size = WorkingSize.of(30, 40, 15, 16)
    with pytest.raises(ShapeError, match=r"fit: .*\(30, 40\), got .*\(3, 40, 30\)"):
        fit(torch.zeros(3, 40, 30), size)
    with pytest.raises(ShapeError, match=r"restore: .*\(16, 32\), got .*\(3, 15, 20\)"):
        restore(torch.zeros(3, 15, 20), size)
    with pytest.raises(ShapeError, match="torch.bool"):
        fit(torch.zeros(30, 40, dtype=torch.bool), size)


@pytest.mark.parametrize("kind", ["array", "float array", "tensor", "list"])
def test_bgr_frames_become_the_frames_that_they_are(kind: str) -> None:
    """With `channels="bgr"` an array or tensor of reversed channels is the frame of the RGB one, and is left as it
    is."""
    rgb = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    before = bgr.copy()
    clips = {
        "array": bgr,
        "float array": bgr / np.float32(255),
        "tensor": torch.from_numpy(bgr).movedim(-1, 1),
        "list": list(bgr),
    }
    for expected, found in zip(iterate_frames(rgb), iterate_frames(clips[kind], channels="bgr"), strict=True):
        torch.testing.assert_close(expected, found)
    torch.testing.assert_close(to_frame(rgb[0]), to_frame(clips[kind][0], channels="bgr"))
    assert (before == bgr).all()


def test_images_and_files_know_their_own_channels(tmp_path: Path) -> None:
    """A PIL image and a file are RGB, whatever is said of arrays; another order is refused."""
    image = Image.new("RGB", (6, 4), (250, 20, 3))
    image.save(tmp_path / "0.png")
    expected = to_frame(image)
    for one in (image, tmp_path / "0.png"):
        assert torch.equal(expected, to_frame(one, channels="bgr"))
    assert torch.equal(expected, next(iterate_frames(tmp_path, channels="bgr")))
    for call in (lambda: to_frame(image, channels="BGR"), lambda: iterate_frames([image], channels="rgba")):
        with pytest.raises(OptionError, match="channels"):
            call()
