"""MSE, MAE, SSIM and PSNR of frames, beside slow references and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stmemory.errors import OptionError, ShapeError
from stmemory.evaluation.frame_metrics import FrameProtocol, frame_mae, frame_mse, psnr, score_frames, ssim

# skimage.metrics.structural_similarity(*waves(channels), data_range=data_range, channel_axis=0), scikit-image 0.26.0,
# numpy 2.4.6
GOLDEN = {
    (1, 1.0): 0.4867107836933641,
    (1, 2.0): 0.5006883394005422,
    (3, 1.0): 0.5295214587707987,
    (3, 2.0): 0.5397472056030085,
}


def waves(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Two patterns, float64 [C, 20, 24] in [0, 1], from formulas."""
    y, x = np.mgrid[:20, :24]
    first = np.stack([0.5 + 0.5 * np.sin(0.4 * (c + 1) * x + 0.3 * y) for c in range(channels)])
    second = np.stack(
        [0.5 + 0.4 * np.sin(0.4 * (c + 1) * x + 0.3 * y + 0.5) * np.cos(0.1 * y) for c in range(channels)]
    )
    return first, second


def drawn() -> tuple[Tensor, Tensor]:
    """Noise beyond [0, 1] and a truth within, float32 [2, 3, 2, 11, 9]."""
    return torch.randn(2, 3, 2, 11, 9), torch.rand(2, 3, 2, 11, 9)


def slow_ssim(first: np.ndarray, second: np.ndarray, data_range: float) -> float:
    """Wang et al. 2004, eq. 13, window by window; [H, W]."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for top in range(first.shape[0] - 6):
        for left in range(first.shape[1] - 6):
            a = [float(first[top + i, left + j]) for i in range(7) for j in range(7)]
            b = [float(second[top + i, left + j]) for i in range(7) for j in range(7)]
            mean_a, mean_b = sum(a) / 49, sum(b) / 49
            variance_a = sum((value - mean_a) ** 2 for value in a) / 48
            variance_b = sum((value - mean_b) ** 2 for value in b) / 48
            covariance = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True)) / 48
            above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
            values.append(above / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
    return sum(values) / len(values)


class TestSums:
    @pytest.mark.parametrize("clip", [False, True], ids=["as-is", "clipped"])
    def test_errors_are_summed_over_a_frame(self, clip: bool) -> None:
        """MSE and MAE of each frame are sums over its channels and pixels, of clipped predictions where asked for."""
        predicted, truth = drawn()
        squares, sizes = frame_mse(predicted, truth, clip=clip), frame_mae(predicted, truth, clip=clip)

        assert ((2, 3), torch.float64) == (tuple(squares.shape), squares.dtype)
        for b, t in np.ndindex(2, 3):
            square = size = 0.0
            for place in np.ndindex(2, 11, 9):
                value = float(predicted[b, t][place])
                error = (min(max(value, 0.0), 1.0) if clip else value) - float(truth[b, t][place])
                square, size = square + error**2, size + abs(error)
            assert square == pytest.approx(squares[b, t].item(), rel=1e-12)
            assert size == pytest.approx(sizes[b, t].item(), rel=1e-12)


class TestPsnr:
    def test_is_taken_of_each_frame(self) -> None:
        """10 log10 (1 / mean square) of each frame; that of no error is 100 dB and not infinite."""
        predicted, truth = drawn()
        predicted[0, 0] = truth[0, 0]
        found = psnr(predicted, truth)

        assert 100 == found[0, 0].item()
        error = (predicted[1, 2].double() - truth[1, 2].double()).square().mean().item()
        assert 10 * math.log10(1 / error) == pytest.approx(found[1, 2].item(), rel=1e-12)


class TestSsim:
    @pytest.mark.parametrize("data_range", [1.0, 2.0], ids=["right", "legacy"])
    def test_is_the_slow_reference(self, data_range: float) -> None:
        """Every frame has the mean over windows and channels of the paper's formula."""
        predicted, truth = drawn()
        found = ssim(predicted, truth, data_range=data_range)

        for b, t in ((0, 0), (1, 2)):
            channels = [slow_ssim(predicted[b, t, c].numpy(), truth[b, t, c].numpy(), data_range) for c in range(2)]
            assert sum(channels) / 2 == pytest.approx(found[b, t].item(), abs=1e-9)

    @pytest.mark.parametrize(("channels", "data_range"), GOLDEN)
    def test_is_that_of_scikit_image_0_26(self, channels: int, data_range: float) -> None:
        """Stored values of scikit-image are met to 1e-6."""
        first, second = (torch.from_numpy(frame) for frame in waves(channels))

        assert GOLDEN[channels, data_range] == pytest.approx(
            ssim(first, second, data_range=data_range).item(), abs=1e-6
        )

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("data_range", [1.0, 2.0])
    def test_is_that_of_scikit_image(self, channels: int, data_range: float) -> None:
        """Where scikit-image is at hand, frames of noise agree to 1e-6."""
        metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
        dice = np.random.default_rng(3)
        truth = dice.random((channels, 32, 40))
        predicted = np.clip(truth + dice.normal(0, 0.2, truth.shape), 0, 1)
        expected = metrics.structural_similarity(predicted, truth, data_range=data_range, channel_axis=0)

        found = ssim(torch.from_numpy(predicted), torch.from_numpy(truth), data_range=data_range).item()
        assert expected == pytest.approx(found, abs=1e-6)

    def test_flat_frames(self) -> None:
        """Equal frames without any contrast are wholly alike."""
        assert 1 == ssim(torch.zeros(1, 7, 7), torch.zeros(1, 7, 7)).item()


class TestProtocols:
    def test_scales(self) -> None:
        """MIM clips for MSE and not for MAE, and divides by 10 and 100; OpenSTL does neither; both have the legacy
        SSIM."""
        predicted, truth = drawn()
        plain, openstl, mim = (score_frames(predicted, truth, name) for name in ("plain", "openstl", "mim"))

        assert frame_mse(predicted, truth).mean().item() == plain.mse == openstl.mse
        assert frame_mse(predicted, truth, clip=True).mean().item() / 10 == mim.mse
        assert frame_mae(predicted, truth).mean().item() / 100 == mim.mae
        assert plain.mae == openstl.mae == pytest.approx(100 * mim.mae)
        assert (
            ssim(predicted.clamp(0, 1), truth, data_range=2.0).mean().item() == mim.ssim == openstl.ssim != plain.ssim
        )
        assert psnr(predicted.clamp(0, 1), truth).mean().item() == plain.psnr
        assert (
            plain.mse / (2 * 11 * 9)
            == plain.mse_per_value
            == score_frames(predicted, truth, FrameProtocol()).mse_per_value
        )


FRAME = torch.rand(1, 8, 8)
BAD = {
    "shape": (lambda: frame_mse(FRAME, FRAME[None]), ShapeError, r"got \(1, 8, 8\) and \(1, 1, 8, 8\)"),
    "flat": (lambda: frame_mae(FRAME[0], FRAME[0]), ShapeError, "C, H, W"),
    "empty": (lambda: psnr(FRAME[None][:0], FRAME[None][:0]), ShapeError, "with frames in it"),
    "bytes": (lambda: frame_mse(FRAME.byte(), FRAME.byte()), ShapeError, "divide bytes by 255"),
    "small": (lambda: ssim(FRAME[..., :6], FRAME[..., :6]), ShapeError, "7 x 7 or larger"),
    "range": (lambda: ssim(FRAME, FRAME, data_range=0), OptionError, "positive"),
    "protocol": (lambda: score_frames(FRAME, FRAME, "b"), OptionError, "expected one of plain, openstl, mim, got 'b'"),
}


@pytest.mark.parametrize(("measure", "error", "says"), BAD.values(), ids=BAD)
def test_bad_input(measure, error: type[Exception], says: str) -> None:
    """Frames that cannot be compared are refused with what came."""
    with pytest.raises(error, match=says):
        measure()
