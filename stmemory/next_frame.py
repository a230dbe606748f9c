"""A video's next frame, as its network takes it: of the size of those before, padded. What all streams share of their
input."""

from __future__ import annotations

from torch import Tensor, nn

from stmemory.errors import FrameError, OptionError
from stmemory.frames import WorkingSize, fit

__all__ = ["check_unmoved", "next_frame", "size_of_next"]


def next_frame(
    image: Tensor, before: WorkingSize | None, *, index: int, short_side: int | None, stride: int, like: Tensor
) -> tuple[Tensor, WorkingSize]:
    """Fit a frame to the size that a video is worked at.

    Args:
        image: float `[C, H, W]`.
        before: the video's size; None for its first frame, which settles it.
        index: of the frame, for messages.
        short_side: see `WorkingSize.of`.
        stride: of the network.
        like: what has the device and the dtype of the network.

    Returns:
        `[1, C, H', W']` at the padded working size, and that size.

    Raises:
        FrameError: its size is not that of the frames before.

    >>> import torch
    >>> next_frame(torch.zeros(3, 30, 40), None, index=0, short_side=None, stride=16, like=torch.zeros(1))[0].shape
    torch.Size([1, 3, 32, 48])
    """
    size = size_of_next(image, before, index=index, short_side=short_side, stride=stride)
    return fit(image.to(like.device), size)[None].to(like.dtype), size


def size_of_next(
    image: Tensor, before: WorkingSize | None, *, index: int, short_side: int | None, stride: int, enlarge: float = 1.0
) -> WorkingSize:
    """The size that a video is worked at.

    Args:
        image: its next frame, float `[C, H, W]`.
        before: see `next_frame`.
        index: see there.
        short_side: see `WorkingSize.of`.
        stride: of the network.
        enlarge: see `WorkingSize.of`.

    Raises:
        FrameError: the frame's size is not that of the frames before.
    """
    height, width = image.shape[1:]
    size = before or WorkingSize.of(height, width, short_side, stride, enlarge=enlarge)
    if (height, width) != (size.frame_height, size.frame_width):
        raise FrameError(
            f"frame {index}: expected the size of the frames before, {size.frame_height} x {size.frame_width} "
            f"(H x W), got {height} x {width}; resize it, or start another stream"
        )
    return size


def check_unmoved(network: nn.Module, then: Tensor) -> None:
    """Refuse a network that is elsewhere, or of another dtype, than when a stream began.

    Args:
        network: of the stream.
        then: empty, of the device and the dtype of its weights when the stream began.

    Raises:
        OptionError: it was moved or cast since.
    """
    now = next(network.parameters())
    if (now.device, now.dtype) != (then.device, then.dtype):
        raise OptionError(
            f"expected the network as it was when the stream began, {then.dtype} on {then.device}, got {now.dtype} on "
            f"{now.device}; move it back, or "
            "make a predictor with device= and dtype=, and start a stream of that one"
        )
