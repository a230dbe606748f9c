"""A clip of any kind, as RGB frames of floats `[3, H, W]` in [0, 1], and the size at which a network sees them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from stmemory.errors import FrameError, OptionError, ShapeError
from stmemory.io.images import count_images, image_to_rgb, is_image_path, iterate_images
from stmemory.io.video import count_video_frames, iterate_video
from stmemory.types import FrameLike, VideoLike

__all__ = [
    "WorkingSize",
    "check_unmoved",
    "count_frames",
    "fit",
    "iterate_frames",
    "next_frame",
    "resize",
    "restore",
    "size_of_next",
    "to_frame",
]

SOURCES = "a path, a list, generator or data set of images, an array [T, H, W, 3] or a tensor [T, 3, H, W]"
# Resizing and half precision leave values a rounding error outside [0, 1]; these are clamped, not refused.
SLACK = 1e-3
# Number types of which float32 holds every value.
EXACT = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32)
ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__", "asnumpy")
# What such an object raises where it cannot be an array here, on a device of its own for example.
NOT_AN_ARRAY = (TypeError, ValueError, RuntimeError, BufferError, AttributeError, NotImplementedError)


def to_frame(image: FrameLike, *, channels: str = "rgb", value_range: tuple[float, float] | None = None) -> Tensor:
    """Turn one image of any kind into a frame.

    Args:
        image: an array `[H, W, 3]` or a tensor `[3, H, W]`, RGB, uint8 or float in [0, 1]; what becomes an array by
            `__array__`, `__array_interface__`, DLPack or `asnumpy()`, channels last; a PIL image of any 8-bit mode
            (converted by `.convert("RGB")`: grey is repeated, transparency dropped; EXIF orientation is left as it is);
            or the path of an image file (its EXIF orientation is applied).
        channels: order of the colours in arrays and tensors: `"rgb"`, or `"bgr"` as OpenCV has them. Images and files
            know their own.
        value_range: values of black and of white in arrays and tensors, such as `(0, 65535)`; None: uint8, or floats
            in [0, 1].

    Returns:
        float32 `[3, H, W]` in [0, 1], on the tensor's device, else on the CPU. Never shares memory with `image`. Floats
        up to 0.001 outside [0, 1] are clamped.

    Raises:
        ShapeError: another kind, shape or number type, grey or RGBA arrays among them.
        FrameError: values that are not finite or outside [0, 1], or a file that cannot be read.
        OptionError: `channels` is neither of the two, or `value_range` is not two finite numbers, the lower first.

    >>> to_frame(np.full((2, 4, 3), 255, np.uint8)).shape
    torch.Size([3, 2, 4])
    >>> round(to_frame(np.full((2, 4, 3), 1000, np.uint16), value_range=(0, 4000)).max().item(), 3)
    0.25
    """
    return _to_frame(image, "frame", _checked_channels(channels), _checked_range(value_range))


def iterate_frames(
    source: VideoLike, *, channels: str = "rgb", damaged: str = "error", value_range: tuple[float, float] | None = None
) -> Iterator[Tensor]:
    """Read a clip of any kind, one frame at a time.

    Args:
        source: a path of a video or the address of a stream as text (needs the extra `video`), of a folder of images
            (natural order), of an image with one or more pages (GIF, APNG, WebP, TIFF) or of a `.npy` with uint8 `[T,
            H, W, 3]`; a list, tuple, generator or other iterable of what `to_frame` takes; an array `[T, H, W, 3]`, of
            dask, zarr, h5py and the like too, of which one frame is computed at a time; a tensor `[T, 3, H, W]`; or
            what has a length and gives an image by its number, such as a `torch.utils.data.Dataset` or decord's
            `VideoReader`. It is checked when this is called; no frame is read twice, and none is kept.
        channels: order of the colours in arrays and tensors: `"rgb"`, or `"bgr"` as OpenCV has them. Images and files
            know their own.
        damaged: treatment of a damaged video: `"error"`, or `"skip"`; see `iterate_video`.
        value_range: values of black and of white in arrays and tensors, such as `(0, 65535)`; None: uint8, or floats
            in [0, 1].

    Returns:
        Frames: float32 `[3, H, W]` in [0, 1], all of one size. What the source itself raises comes through unchanged.

    Raises:
        ShapeError: the source or one of its frames is of another kind or shape.
        FrameError: it is empty (for a generator, at the first `next`), missing or damaged, a frame has values that are
            not finite or outside [0, 1], or the size changes.
        OptionError: `channels` or `damaged` is neither of its two, or `value_range` is not two finite numbers, the
            lower first.

    >>> [frame.shape for frame in iterate_frames(np.zeros((2, 4, 6, 3), np.uint8))]
    [torch.Size([3, 4, 6]), torch.Size([3, 4, 6])]
    """
    channels, limits = _checked_channels(channels), _checked_range(value_range)
    if isinstance(source, (str, os.PathLike)):
        return _checked(iterate_images(source) if is_image_path(source) else iterate_video(source, damaged=damaged))
    if not isinstance(source, (np.ndarray, Tensor, Sequence)) and _is_array_like(source):
        source = source if hasattr(source, "shape") and _is_indexed(source) else _as_array("frames", source)
    if isinstance(source, (np.ndarray, Tensor)) or (_is_array_like(source) and hasattr(source, "shape")):
        _check_layout("frames", source, clip=True)
        return _checked(_by_number(source), channels, limits)
    if isinstance(source, (Mapping, bytes)) or not (isinstance(source, Iterable) or _is_indexed(source)):
        raise ShapeError(f"frames: expected {SOURCES}, got {type(source).__name__}; one image is a clip as [image]")
    if isinstance(source, Sequence) and len(source) == 0:
        raise FrameError("frames: expected at least one frame, got none; check where they come from")
    return _checked(iter(source) if isinstance(source, Iterable) else _by_number(source), channels, limits)


def count_frames(source: VideoLike) -> int | None:
    """Say how many frames a clip has, where that can be known without reading it; for progress bars.

    Args:
        source: any source that `iterate_frames` takes.

    Returns:
        The number of frames (for a video, what its header states), or `None` where it is not known.

    Raises:
        FrameError: nothing is at the path, or it cannot be opened.

    >>> count_frames([1, 2, 3]), count_frames(iter([1, 2, 3]))
    (3, None)
    """
    if isinstance(source, (str, os.PathLike)):
        return count_images(source) if is_image_path(source) else count_video_frames(source)
    return len(source) if isinstance(source, Sized) else None


@dataclass(frozen=True)
class WorkingSize:
    """A frame's own size, the size that it is resized to, and that size padded to the stride. All in pixels.

    Attributes:
        frame_height: H of the user's frames.
        frame_width: W of the user's frames.
        height: H after resizing.
        width: W after resizing.
        padded_height: `height` rounded up to the stride.
        padded_width: `width` rounded up to the stride.

    Raises:
        OptionError: a size is below 1, or the sizes contradict each other.
    """

    frame_height: int
    frame_width: int
    height: int
    width: int
    padded_height: int
    padded_width: int

    def __post_init__(self) -> None:
        own = min(self.frame_height, self.frame_width)
        if own < 1 or not (1 <= self.height <= self.padded_height and 1 <= self.width <= self.padded_width):
            raise OptionError(
                f"expected sizes of at least 1 and a resized size within the padded one, got {self}; use WorkingSize.of"
            )

    @classmethod
    def of(
        cls, frame_height: int, frame_width: int, short_side: int | None, stride: int, *, enlarge: float = 1.0
    ) -> WorkingSize:
        """Choose the working size of a clip.

        Args:
            frame_height: H of its frames.
            frame_width: W of its frames.
            short_side: frames whose shorter side is longer than this are shrunk to it, in proportion. `None` never
                resizes.
            stride: pixels per feature cell; both sides are padded to a multiple of it.
            enlarge: frames whose shorter side is shorter than `short_side` are enlarged to it, but at most by this
                factor; 1 leaves them as they are.

        Returns:
            The working size.

        Raises:
            OptionError: a number is below 1.

        >>> WorkingSize.of(1080, 1920, 480, 16)
        WorkingSize(frame_height=1080, frame_width=1920, height=480, width=853, padded_height=480, padded_width=864)
        """
        if min(frame_height, frame_width, stride) < 1 or (short_side is not None and short_side < 1):
            raise OptionError(
                f"working size: expected sizes of at least 1 pixel, got frame {frame_height} x {frame_width}, "
                f"short_side {short_side}, stride {stride}"
            )
        shorter = min(frame_height, frame_width)
        if not 1 <= enlarge < math.inf:
            raise OptionError(
                f"enlarge: expected a factor of 1 or more, got {enlarge}; 1 leaves small frames as they are"
            )
        scale = 1.0 if short_side is None else min(enlarge, short_side / shorter)
        height, width = max(1, round(frame_height * scale)), max(1, round(frame_width * scale))
        return cls(
            frame_height, frame_width, height, width, -(-height // stride) * stride, -(-width // stride) * stride
        )


def fit(pixels: Tensor, size: WorkingSize) -> Tensor:
    """Bring frames or soft maps to the working size: bilinear resizing, antialiased where it shrinks, then zeros at the
    right and bottom.

    Args:
        pixels: float `[*, c, H, W]` at the frame's own size; any leading dimensions, or none.
        size: the working size.

    Returns:
        `[*, c, H', W']` at the padded size.

    Raises:
        ShapeError: the last two dimensions are not the frame's size, or the values are not floats.

    >>> fit(torch.ones(3, 30, 40), WorkingSize.of(30, 40, 15, 16)).shape
    torch.Size([3, 16, 32])
    """
    own = (size.frame_height, size.frame_width)
    _check_maps(pixels, own, "fit", "make another WorkingSize for frames of another size")
    pixels = resize(pixels, size.height, size.width)
    return F.pad(pixels, (0, size.padded_width - size.width, 0, size.padded_height - size.height))


def restore(maps: Tensor, size: WorkingSize) -> Tensor:
    """Bring maps from the working size back to the frame's own: the padding is cropped, the rest resized bilinearly.

    Args:
        maps: float `[*, c, H', W']` at the padded size; any leading dimensions, or none.
        size: the working size.

    Returns:
        `[*, c, H, W]` at the frame's own size.

    Raises:
        ShapeError: the last two dimensions are not the padded size, or the values are not floats.

    >>> restore(torch.ones(2, 16, 32), WorkingSize.of(30, 40, 15, 16)).shape
    torch.Size([2, 30, 40])
    """
    _check_maps(maps, (size.padded_height, size.padded_width), "restore", "pass maps with the padding that fit() gave")
    return resize(maps[..., : size.height, : size.width], size.frame_height, size.frame_width)


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps float `[*, H, W]` at another size, bilinearly, antialiased where it shrinks; copies nothing where the size
    is the same."""
    if tuple(maps.shape[-2:]) == (height, width):
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    shrinks = height < maps.shape[-2] or width < maps.shape[-1]
    resized = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.reshape(*maps.shape[:-2], height, width)


def _check_maps(maps: Tensor, expected: tuple[int, int], name: str, hint: str) -> None:
    if not maps.is_floating_point() or maps.ndim < 2 or tuple(maps.shape[-2:]) != expected:
        raise ShapeError(
            f"{name}: expected floats, last sizes {expected}, got {maps.dtype} {tuple(maps.shape)}; {hint}"
        )


def _checked_channels(channels: str) -> str:
    if channels not in ("rgb", "bgr"):
        raise OptionError(f"channels: expected 'rgb', or 'bgr' as OpenCV has them, got {channels!r}")
    return channels


def _checked_range(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    if limits is None:
        return None
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError) as error:
        raise OptionError(f"value_range: expected two numbers, got {limits!r}; of 16 bits it is (0, 65535)") from error
    if not -math.inf < low < high < math.inf:
        raise OptionError(
            "value_range: expected two finite numbers, black and "
            f"then white, got {limits!r}; of 16 bits it is (0, 65535)"
        )
    return low, high


def _is_array_like(source: object) -> bool:
    return not isinstance(source, Image.Image) and any(hasattr(source, protocol) for protocol in ARRAY_PROTOCOLS)


def _is_indexed(source: object) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _by_number(source: Any) -> Iterator[object]:
    """What lies at 0, 1, ... up to the length, which not every data set ends by IndexError."""
    try:
        count = len(source)
    except (TypeError, ValueError) as error:
        raise FrameError(
            f"frames: expected a length, got {type(source).__name__} "
            f"without one: {error}; state it, or pass a generator"
        ) from error
    if count == 0:
        raise FrameError("frames: expected at least one frame, got none; check where they come from")
    return (source[index] for index in range(count))


def _as_array(name: str, value: Any) -> NDArray[np.generic] | Tensor:
    """What offers itself as an array, channels last; on another device a tensor, channels first."""
    fault = ""
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        try:
            return np.asarray(value)
        except NOT_AN_ARRAY as error:
            fault = str(error)
    if hasattr(value, "__dlpack__"):
        try:
            tensor = from_dlpack(value)
        except NOT_AN_ARRAY as error:
            fault = str(error)
        else:
            return tensor.movedim(-1, -3) if tensor.dim() >= 3 else tensor
    raise ShapeError(
        f"{name}: expected what can be an array, got {type(value).__name__}, "
        f"which cannot: {fault}; convert it to numpy or torch"
    )


def _checked(
    images: Iterator[object], channels: str = "rgb", limits: tuple[float, float] | None = None
) -> Iterator[Tensor]:
    index, shape = -1, torch.Size()
    for index, image in enumerate(images):  # what the source raises is not caught
        frame = _to_frame(image, f"frame {index}", channels, limits)
        shape = shape or frame.shape
        if frame.shape != shape:
            raise FrameError(
                f"frame {index}: expected the size of the frames before it, {shape[1]} x {shape[2]} (H x W), got "
                f"{frame.shape[1]} x {frame.shape[2]}; resize it, or track it as another clip"
            )
        yield frame
    if index < 0:
        raise FrameError("frames: expected at least one frame, got none; check where they come from")


def _to_frame(image: object, name: str, channels: str = "rgb", limits: tuple[float, float] | None = None) -> Tensor:
    if isinstance(image, (str, os.PathLike)):
        if not is_image_path(image) or Path(image).is_dir():
            raise FrameError(
                f"{name}: expected an image file, got {os.fspath(image)!r}; a clip goes to iterate_frames()"
            )
        image, channels, limits = next(iterate_images(image)), "rgb", None
    if isinstance(image, Image.Image):
        image, channels, limits = image_to_rgb(image), "rgb", None
    if not isinstance(image, (np.ndarray, Tensor)) and _is_array_like(image):
        image = _as_array(name, image)
    if isinstance(image, np.ndarray):
        _check_layout(name, image, clip=False)
        if image.dtype != np.uint8 and image.dtype.kind not in ("f" if limits is None else "iuf"):
            raise _wrong_numbers(name, str(image.dtype))
        exact = limits is None or image.dtype.itemsize <= 2 or image.dtype == np.float32
        dtype = np.uint8 if image.dtype == np.uint8 else np.float32 if exact else np.float64
        # a copy, since torch warns of read-only arrays and refuses negative strides and foreign byte orders
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), dtype=dtype, order="C"))
    elif isinstance(image, Tensor):
        _check_layout(name, image, clip=False)
        numbers = image.is_floating_point() or (
            limits is not None and image.dtype != torch.bool and not image.is_complex()
        )
        if image.dtype != torch.uint8 and not numbers:
            raise _wrong_numbers(name, str(image.dtype))
        pixels = image
    else:
        kind = type(image).__name__
        hint = (
            "; of pairs of an image and a label take the images, (item[0] for item in data)"
            if isinstance(image, (tuple, list))
            else ""
        )
        raise ShapeError(
            f"{name}: expected an array [H, W, 3], a tensor [3, H, W], a PIL image or a path, got {kind}{hint}"
        )
    pixels = pixels.flip(0) if channels == "bgr" else pixels
    if limits is not None:
        return _ranged(name, pixels, limits)
    if pixels.dtype == torch.uint8:
        return pixels.to(torch.float32) / 255
    pixels = pixels.to(torch.float32)
    _check_range(name, pixels)
    return pixels.clamp(0, 1)


def _ranged(name: str, pixels: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    values = pixels.to(torch.float32 if pixels.dtype in EXACT else torch.float64)
    scaled = values.sub(low).div(high - low).to(torch.float32)
    lowest, highest = (value.item() for value in torch.aminmax(scaled))
    if not (lowest >= -SLACK and highest <= 1 + SLACK):  # true for NaN
        came = [value.item() for value in torch.aminmax(values)]
        raise FrameError(
            f"{name}: expected finite values in [{low:g}, {high:g}], got "
            f"[{came[0]:g}, {came[1]:g}]; state the range that they have"
        )
    return scaled.clamp(0, 1)


def _check_layout(name: str, value: Any, *, clip: bool) -> None:
    axis, wanted = (-3, "a tensor [T, 3, H, W]") if isinstance(value, Tensor) else (-1, "an array [T, H, W, 3]")
    wanted = wanted if clip else wanted.replace("T, ", "")
    shape = tuple(value.shape)
    image = shape[1:] if clip else shape
    if len(image) == 3 and image[axis] == 3 and 0 not in image:
        return
    if clip and len(shape) == 3:
        hint = "one image is a clip of one frame as image[None]; grey frames need their value three times"
    elif not clip and len(shape) == 4:
        hint = "a clip goes to iterate_frames(), one of its frames is clip[t]"
    elif len(image) == 3 and image[-4 - axis] == 3:
        hint = "move the channels: np.moveaxis(array, -3, -1) or tensor.movedim(-1, -3)"
    elif len(image) == 2 or (len(image) == 3 and image[axis] == 1):
        hint = "repeat a grey image three times: np.stack([grey] * 3, axis=-1) or grey.expand(3, -1, -1)"
    elif len(image) == 3 and image[axis] == 4:
        hint = "drop the alpha channel: array[..., :3] or tensor[..., :3, :, :]"
    else:
        hint = "pass RGB images with at least one pixel"
    raise ShapeError(f"{name}: expected {wanted}, got shape {shape}; {hint}")


def _wrong_numbers(name: str, dtype: str) -> ShapeError:
    hint = (
        "convert with .astype('uint8') or .to(torch.uint8) if it holds 0..255, or state what is black and white: "
        "value_range=(0, 65535) of 16 bits, (0, 4095) of 12"
    )
    return ShapeError(f"{name}: expected uint8, or floats in [0, 1], got {dtype}; {hint}")


def _check_range(name: str, pixels: Tensor) -> None:
    lowest, highest = (value.item() for value in torch.aminmax(pixels))
    if lowest >= -SLACK and highest <= 1 + SLACK:  # false for NaN
        return
    finite = pixels[pixels.isfinite()]
    bad = pixels.numel() - finite.numel()
    if bad:
        others = f", others in [{finite.min():g}, {finite.max():g}]" if len(finite) else ""
        raise FrameError(
            f"{name}: expected finite values in [0, 1], got {bad} NaN or infinite{others}; check their maker"
        )
    hint = (
        "pass uint8, or divide by 255"
        if lowest >= 0
        else "undo what shifted them: (x + 1) / 2 where they are in [-1, 1], x * std + mean where normalised"
    )
    raise FrameError(f"{name}: expected floats in [0, 1], got [{lowest:g}, {highest:g}]; {hint}")


def next_frame(
    image: Tensor, before: WorkingSize | None, *, index: int, short_side: int | None, stride: int, like: Tensor
) -> tuple[Tensor, WorkingSize]:
    """Fit a frame to the size that a video is worked at.

    Args:
        image: float `[C, H, W]`.
        before: the video's size; None for its first frame, which settles it.
        index: index of the frame, for messages.
        short_side: see `WorkingSize.of`.
        stride: stride of the network.
        like: a tensor with the device and the dtype of the network.

    Returns:
        `[1, C, H', W']` at the padded working size, and that size.

    Raises:
        FrameError: its size is not that of the frames before.

    >>> import torch
    >>> next_frame(torch.zeros(3, 30, 40), None, index=0, short_side=None, stride=16, like=torch.zeros(1))[0].shape
    torch.Size([1, 3, 32, 48])
    """
    size = size_of_next(
        image, before, index=index, choose=lambda height, width: WorkingSize.of(height, width, short_side, stride)
    )
    return fit(image.to(like.device), size)[None].to(like.dtype), size


def size_of_next(
    image: Tensor, before: WorkingSize | None, *, index: int, choose: Callable[[int, int], WorkingSize]
) -> WorkingSize:
    """The size that a video is worked at.

    Args:
        image: its next frame, float `[C, H, W]`.
        before: see `next_frame`.
        index: see there.
        choose: the size of frames of some height and width, asked for the first frame alone.

    Raises:
        FrameError: the frame's size is not that of the frames before.
    """
    height, width = image.shape[1:]
    size = before or choose(height, width)
    if (height, width) != (size.frame_height, size.frame_width):
        raise FrameError(
            f"frame {index}: expected the size of the frames before, {size.frame_height} x {size.frame_width} "
            f"(H x W), got {height} x {width}; resize it, or start another stream"
        )
    return size


def check_unmoved(now: Tensor, then: Tensor) -> None:
    """Refuse a network that is elsewhere, or of another dtype, than when a stream began.

    Args:
        now: a weight of the stream's network.
        then: empty, of the device and the dtype of its weights when the stream began.

    Raises:
        OptionError: it was moved or cast since.
    """
    if (now.device, now.dtype) != (then.device, then.dtype):
        raise OptionError(
            f"expected the network as it was when the stream began, {then.dtype} on {then.device}, got {now.dtype} on "
            f"{now.device}; move it back, or make a predictor with device= and dtype=, and start a stream of that one"
        )
