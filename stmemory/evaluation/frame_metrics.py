"""MSE, MAE, SSIM and PSNR of predicted frames, as the tables of video prediction have them.

Published figures differ in what they sum over, in whether predictions are clipped to [0, 1], and in the range that SSIM
takes for granted; `FrameProtocol` names these conventions, so that only figures of one convention are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from stmemory.errors import OptionError, ShapeError

__all__ = ["FRAME_PROTOCOLS", "FrameProtocol", "FrameScores", "frame_mae", "frame_mse", "psnr", "score_frames", "ssim"]

_WINDOW = 7


@dataclass(frozen=True)
class FrameProtocol:
    """Conventions of a published table.

    Attributes:
        clip_mse: MSE is taken of predictions clipped to [0, 1].
        clip_mae: MAE is.
        mse_unit: the table has MSE divided by this.
        mae_unit: the table has MAE divided by this.
        ssim_range: data range of the SSIM of the table: 2 where the range of float images was left to scikit-image.
    """

    clip_mse: bool = False
    clip_mae: bool = False
    mse_unit: float = 1.0
    mae_unit: float = 1.0
    ssim_range: float = 1.0


# "mim" is the code of MIM (CVPR 2019) for Human3.6M, whose scale the tables of that line and the paper's own Table 5
# have;
# "openstl" the code of OpenSTL up to scikit-image 0.19, for Moving MNIST, KTH and its own Human3.6M.
FRAME_PROTOCOLS: Mapping[str, FrameProtocol] = {
    "plain": FrameProtocol(),
    "openstl": FrameProtocol(ssim_range=2.0),
    "mim": FrameProtocol(clip_mse=True, mse_unit=10.0, mae_unit=100.0, ssim_range=2.0),
}


@dataclass(frozen=True)
class FrameScores:
    """Means over all frames of all clips.

    Attributes:
        mse: squared error summed over C, H, W, in the protocol's unit.
        mae: absolute error summed over C, H, W, in the protocol's unit.
        ssim: SSIM of clipped predictions, with the protocol's data range.
        psnr: mean of the PSNR of each clipped frame, in dB.
        mse_per_value: squared error per value, in no unit, not clipped: comparable between sizes.
    """

    mse: float
    mae: float
    ssim: float
    psnr: float
    mse_per_value: float


def score_frames(predicted: Tensor, truth: Tensor, protocol: FrameProtocol | str = "plain") -> FrameScores:
    """All measures of a set of frames.

    Args:
        predicted: [..., C, H, W], meant to lie in [0, 1].
        truth: the same shape, in [0, 1].
        protocol: conventions, or the name of them in `FRAME_PROTOCOLS`.

    Raises:
        ShapeError: the two differ in shape, or have no frames, or frames are smaller than 7 x 7.
        OptionError: there are no conventions of that name.

    >>> import torch
    >>> score_frames(torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8), "mim").mse
    6.4
    """
    if isinstance(protocol, str):
        if protocol not in FRAME_PROTOCOLS:
            raise OptionError(f"protocol: expected one of {', '.join(FRAME_PROTOCOLS)}, got {protocol!r}")
        protocol = FRAME_PROTOCOLS[protocol]
    clipped = predicted.clamp(0, 1)
    return FrameScores(
        mse=float(frame_mse(predicted, truth, clip=protocol.clip_mse).mean()) / protocol.mse_unit,
        mae=float(frame_mae(predicted, truth, clip=protocol.clip_mae).mean()) / protocol.mae_unit,
        ssim=float(ssim(clipped, truth, data_range=protocol.ssim_range).mean()),
        psnr=float(psnr(clipped, truth).mean()),
        mse_per_value=float(frame_mse(predicted, truth).mean()) / truth.shape[-3:].numel(),
    )


def frame_mse(predicted: Tensor, truth: Tensor, *, clip: bool = False) -> Tensor:
    """Squared error of each frame, summed over channels and pixels.

    Args:
        predicted: [..., C, H, W].
        truth: the same shape.
        clip: clip the prediction to [0, 1] first.

    Returns:
        float64 [...]; a table's figure is the mean.

    Raises:
        ShapeError: the two differ in shape, or have no frames.

    >>> import torch
    >>> frame_mse(torch.full((1, 2, 2), 2.0), torch.zeros(1, 2, 2)).item()
    16.0
    """
    return _error(predicted, truth, clip=clip).square().sum((-3, -2, -1))


def frame_mae(predicted: Tensor, truth: Tensor, *, clip: bool = False) -> Tensor:
    """Absolute error of each frame, summed over channels and pixels.

    Args:
        predicted: [..., C, H, W].
        truth: the same shape.
        clip: clip the prediction to [0, 1] first.

    Returns:
        float64 [...]; a table's figure is the mean.

    Raises:
        ShapeError: the two differ in shape, or have no frames.

    >>> import torch
    >>> frame_mae(torch.full((1, 2, 2), 2.0), torch.zeros(1, 2, 2), clip=True).item()
    4.0
    """
    return _error(predicted, truth, clip=clip).abs().sum((-3, -2, -1))


def psnr(predicted: Tensor, truth: Tensor, *, most: float = 100.0) -> Tensor:
    """Peak signal-to-noise ratio of each frame, for values in [0, 1].

    Args:
        predicted: [..., C, H, W].
        truth: the same shape.
        most: dB of a frame without error, which would be infinite and carry every mean away.

    Returns:
        float64 [...], dB; a table's figure is the mean of these, not that of the mean error.

    Raises:
        ShapeError: the two differ in shape, or have no frames.

    >>> import torch
    >>> round(psnr(torch.full((1, 2, 2), 0.1), torch.zeros(1, 2, 2)).item(), 6)
    20.0
    """
    predicted, truth = _pair(predicted, truth)
    return (-10 * (predicted - truth).square().mean((-3, -2, -1)).log10()).clamp(max=most)


def ssim(predicted: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity of each frame: windows of 7 x 7 of equal weight, sample covariance, K1 = 0.01, K2 = 0.03.

    Equal to `skimage.metrics.structural_similarity(..., channel_axis=0)` of float64 images. Source: Wang et al., "Image
    Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.

    Args:
        predicted: [..., C, H, W]; clip it to [0, 1] as tables do.
        truth: the same shape.
        data_range: distance of the least and the greatest value. 1 is right for frames in [0, 1]; 2 is what
            scikit-image assumed for float images, and what the tables of MIM, PhyDNet, SimVP and OpenSTL therefore
            have.

    Returns:
        float64 [...], mean over the windows that lie inside, and over channels.

    Raises:
        ShapeError: the two differ in shape, or frames are smaller than 7 x 7.
        OptionError: the range is not positive.

    >>> import torch
    >>> ssim(torch.eye(9)[None], torch.eye(9)[None]).item()
    1.0
    """
    predicted, truth = _pair(predicted, truth)
    if data_range <= 0:
        raise OptionError(f"data_range: expected a positive number, got {data_range}; pass 1 for frames in [0, 1]")
    if min(truth.shape[-2:]) < _WINDOW:
        raise ShapeError(
            f"frames: expected {_WINDOW} x {_WINDOW} or larger for SSIM, got {tuple(truth.shape)}; enlarge them first"
        )
    flat = [frames.reshape(-1, 1, *frames.shape[-2:]) for frames in (predicted, truth)]

    def mean(frames: Tensor) -> Tensor:
        """Mean of each window: [M, 1, H, W] -> [M, 1, H-6, W-6]."""
        return F.avg_pool2d(frames, _WINDOW, stride=1)

    first, second = mean(flat[0]), mean(flat[1])
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    first_variance = unbiased * (mean(flat[0].square()) - first.square())
    second_variance = unbiased * (mean(flat[1].square()) - second.square())
    covariance = unbiased * (mean(flat[0] * flat[1]) - first * second)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    likeness = (2 * first * second + c1) * (2 * covariance + c2)
    likeness = likeness / ((first.square() + second.square() + c1) * (first_variance + second_variance + c2))
    return likeness.mean((-3, -2, -1)).view(truth.shape[:-2]).mean(-1)


def _error(predicted: Tensor, truth: Tensor, *, clip: bool) -> Tensor:
    """How far a prediction is off at each value, float64 [..., C, H, W]."""
    predicted, truth = _pair(predicted, truth)
    return (predicted.clamp(0, 1) if clip else predicted) - truth


def _pair(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 [..., C, H, W] of one shape, with frames in them."""
    if predicted.shape != truth.shape or truth.ndim < 3 or truth.numel() == 0:
        raise ShapeError(
            "frames: expected predicted and truth [..., C, H, W] of one shape, with frames in it, got "
            f"{tuple(predicted.shape)} and {tuple(truth.shape)}; cut both to the frames that were predicted"
        )
    if not (predicted.is_floating_point() and truth.is_floating_point()):
        raise ShapeError(
            f"frames: expected floats in [0, 1], got {predicted.dtype} and {truth.dtype}; divide bytes by 255 first"
        )
    return predicted.double(), truth.double()
