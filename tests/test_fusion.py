"""Facts about distilling one template into another, eq. 3-10."""

from __future__ import annotations

import pytest
import references
import torch
from torch import Tensor, nn

from stmemory.errors import OptionError, ShapeError
from stmemory.memory import FusionCell, MeanFusion, feature_alignment

SIZES = {1: (5,), 2: (2, 3), 3: (2, 1, 2)}


def cell_of(channels: int, **options: object) -> FusionCell:
    """A cell in float64 whose gates are far from shut."""
    cell = FusionCell(channels, **options).double()  # type of each option as FusionCell's own
    for weight in cell.parameters():
        nn.init.normal_(weight, std=0.5)
    return cell


def drawn(pairs: int, channels: int, *size: int) -> tuple[Tensor, Tensor]:
    source, target = torch.randn(2, pairs, channels, *size, dtype=torch.float64)
    return source, target


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_alignment_equals_the_loops(spatial_dims: int, scale: float) -> None:
    """FAM is eq. 3: every position of the guide is rebuilt from the template."""
    guide, template = drawn(2, 3, *SIZES[spatial_dims])
    expected = torch.stack([references.feature_alignment(guide[p], template[p], scale) for p in range(2)])
    torch.testing.assert_close(expected, feature_alignment(guide, template, scale=scale))


@pytest.mark.parametrize("grad", [False, True])
def test_alignment_in_bfloat16_is_that_of_float32_rounded(grad: bool) -> None:
    """Templates in bfloat16 are aligned with sums in float32, whichever kernel does it."""
    guide, template = torch.randn(2, 5, 7).bfloat16(), torch.randn(2, 5, 9).bfloat16()
    pairs = zip(guide.float(), template.float(), strict=True)
    expected = torch.stack([references.feature_alignment(one, other, 0.5) for one, other in pairs])
    with torch.set_grad_enabled(grad):
        aligned = feature_alignment(guide, template, scale=0.5)
    assert aligned.dtype == torch.bfloat16
    torch.testing.assert_close(expected, aligned.float(), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("factor", [1.0, 100.0, 1e4])
def test_alignment_is_safe_for_large_products(factor: float) -> None:
    """A template of large features is rebuilt from its own positions without overflow."""
    aligned = feature_alignment(torch.randn(1, 8, 3, 3) * factor, torch.randn(1, 8, 3, 3) * factor)
    assert bool(aligned.isfinite().all())


@pytest.mark.parametrize("bottleneck", [None, 3], ids=["direct", "bottleneck"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_cell_equals_the_loops(spatial_dims: int, kernel_size: int, bottleneck: int | None) -> None:
    """The cell is eq. 4 to 10 for every dimension, kernel size and bottleneck."""
    cell = cell_of(2, spatial_dims=spatial_dims, kernel_size=kernel_size, bottleneck=bottleneck, scale=0.7)
    source, target = drawn(2, 2, *SIZES[spatial_dims])
    with torch.no_grad():
        expected = torch.stack([references.fusion(cell, source[p], target[p]) for p in range(2)])
        actual = cell(source, target)
    assert float((expected - target).abs().max()) > 0.1
    torch.testing.assert_close(expected, actual)


def test_scale_is_the_papers_unless_told() -> None:
    """Eq. 3 has no factor on its products."""
    assert 1.0 == FusionCell(4).scale


@pytest.mark.parametrize("bottleneck", [None, 16], ids=["direct", "bottleneck"])
def test_an_untrained_cell_barely_moves_its_target(bottleneck: int | None) -> None:
    """Of templates with unit variance, an untrained cell moves a target by less than 10 % of its norm; measured: 5 to
    8.3 %."""
    source, target = torch.randn(4, 64, 6, 6), torch.randn(4, 64, 6, 6)
    with torch.no_grad():
        moved = (FusionCell(64, bottleneck=bottleneck)(source, target) - target).norm() / target.norm()
    assert 0.03 < float(moved) < 0.10


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("update", [1e-6, 0.05, 0.5])
@pytest.mark.parametrize("bottleneck", [None, 16], ids=["direct", "bottleneck"])
def test_a_cell_starts_as_near_identity_as_told(bottleneck: int | None, update: float, size: float) -> None:
    """Every position moves that far towards a candidate in [-1, 1], whatever the templates; the equations stay those of
    the paper."""
    cell = FusionCell(32, bottleneck=bottleneck).double()
    cell.start_near_identity(update)
    source, target = (size * t for t in drawn(2, 32, 4, 4))
    with torch.no_grad():
        actual = cell(source, target)
        expected = torch.stack([references.fusion(cell, source[p], target[p]) for p in range(2)])
    torch.testing.assert_close(expected, actual)
    candidate = target + (actual - target) / update
    assert 1 + 1e-6 > float(candidate.abs().max())
    assert 1e-6 < float((actual - target).abs().max()) / update


def test_a_fresh_cell_is_near_identity_for_unit_variance_only() -> None:
    """Of templates sixteen times as large, a fresh cell moves its target by more than a quarter; measured over eight
    seeds: 43 to 53 %."""
    source, target = 16 * torch.randn(2, 4, 64, 6, 6)
    with torch.no_grad():
        moved = (FusionCell(64, bottleneck=16)(source, target) - target).norm() / target.norm()
    assert 0.25 < float(moved)


def test_a_cell_that_starts_near_identity_learns() -> None:
    """The gate's weights begin at zero and get a gradient at the first step."""
    cell = FusionCell(8, bottleneck=4)
    cell.start_near_identity()
    torch.autograd.backward(cell(torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)).square().sum())
    assert 0.0 == float(cell.h[-1].weight.detach().abs().max())
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in cell.h[-1].parameters())


@pytest.mark.parametrize("update", [0.0, 1.0, -1.0, float("nan")])
def test_a_start_out_of_range_is_refused(update: float) -> None:
    """An update gate lies between 0 and 1."""
    with pytest.raises(OptionError, match="above 0 and below 1"):
        FusionCell(4).start_near_identity(update)


@pytest.mark.parametrize("bottleneck", [None, 3], ids=["direct", "bottleneck"])
def test_gradients_of_the_cell(bottleneck: int | None) -> None:
    """The analytic gradients to source, target and every parameter equal the numeric ones."""
    cell = cell_of(2, bottleneck=bottleneck)
    source, target = (t.requires_grad_() for t in drawn(1, 2, 2, 2))
    weights = tuple(cell.parameters())

    def run(source: Tensor, target: Tensor, *_: Tensor) -> Tensor:
        fused: Tensor = cell(source, target)
        return fused

    assert torch.autograd.gradcheck(run, (source, target, *weights))


def test_pairs_do_not_see_each_other() -> None:
    """A pair is merged alike whatever else is in the batch."""
    cell = cell_of(2)
    source, target = drawn(3, 2, 2, 3)
    torch.testing.assert_close(cell(source, target)[1:2], cell(source[1:2], target[1:2]))


@pytest.mark.parametrize(
    "options",
    [
        {"spatial_dims": 4},
        {"spatial_dims": 0},
        {"kernel_size": 2},
        {"kernel_size": -1},
        {"channels": 0},
        {"bottleneck": 0},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    """The error says what a cell needs."""
    with pytest.raises(
        OptionError, match="channels >= 1, spatial_dims 1, 2 or 3, an odd kernel_size and bottleneck >= 1"
    ):
        FusionCell(**{"channels": 4, **options})


@pytest.mark.parametrize(
    ("source", "target"),
    [((2, 4, 3, 3), (1, 4, 3, 3)), ((1, 3, 3, 3), (1, 3, 3, 3)), ((1, 4, 3), (1, 4, 3))],
    ids=["pairs", "channels", "dims"],
)
def test_templates_that_do_not_fit_are_refused(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    """The error names the cell's own channels and both shapes."""
    with pytest.raises(ShapeError, match=r"\[P, 4, \*S\] with 2 spatial dimensions, got"):
        FusionCell(4)(torch.zeros(source), torch.zeros(target))


@pytest.mark.parametrize(
    ("sizes", "share"), [(None, 0.5), ([1, 1], 0.5), ([1, 3], 0.25), ([6, 2], 0.75)], ids=["none", "even", "new", "old"]
)
def test_mean_fusion_weighs_by_frames(sizes: list[int] | None, share: float) -> None:
    """A template of many frames moves less than one of few."""
    source, target = drawn(1, 2, 2, 3)
    expected = share * source + (1 - share) * target
    torch.testing.assert_close(expected, MeanFusion()(source, target, None if sizes is None else torch.tensor([sizes])))


def test_mean_fusion_of_all_frames_is_their_mean() -> None:
    """Fused one after the other, in float64, ten templates end as their plain mean."""
    frames = torch.randn(10, 1, 2, 3, dtype=torch.float64)
    mean = frames[0]
    for count in range(1, 10):
        mean = MeanFusion()(mean, frames[count], torch.tensor([[count, 1]]))
    torch.testing.assert_close(frames.mean(0), mean, atol=1e-14, rtol=0)


def test_mean_fusion_counts_far_in_half_precision() -> None:
    """A hundred thousand frames are more than half precision can count, and are counted."""
    ones, zeros = torch.ones(1, 1, 2).half(), torch.zeros(1, 1, 2).half()
    fused = MeanFusion()(ones, zeros, torch.tensor([[100_000, 100_000]]))
    torch.testing.assert_close(torch.full((1, 1, 2), 0.5).half(), fused)
