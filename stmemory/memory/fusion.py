"""Fusion of one template into another: the paper's fusion cell (eq. 3-10) and a mean without parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError, ShapeError
from stmemory.lazy import by_name
from stmemory.memory.attention import attend_in_blocks
from stmemory.memory.checks import check_floats

__all__ = ["Fusion", "FusionCell", "MeanFusion", "feature_alignment", "part_of_the_way"]

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


class Fusion(Protocol):
    """Anything that merges the template of a slot that goes into the template of a slot that stays."""

    def __call__(self, source: Tensor, target: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Merge P pairs.

        Args:
            source: `[P, C, *S]`, the templates that go, X_i. Where templates have extents, see `MemoryBank.write`,
                those of source and target may be of different sizes.
            target: `[P, C, *S]`, the templates that stay, X_j.
            sizes: `[P, 2]` int64, how many frames went into each source and target so far; None counts one each.

        Returns:
            The updated templates, shaped as `target`.
        """
        ...


def feature_alignment(guide: Tensor, template: Tensor, *, scale: float = 1.0) -> Tensor:
    """FAM, eq. 3: Softmax(X_t X_i^T) X_i, every position of the guide rebuilt from the template.

    Args:
        guide: `[P, C, *S]`, X_t.
        template: `[P, C, *S]`, X_i; its S may be another one.
        scale: factor on the products before the softmax; 1 is the paper's equation.

    Returns:
        `[P, C, *S]`, the template laid out as the guide is. No n by n matrix is held.

    >>> feature_alignment(torch.zeros(1, 2, 4), torch.ones(1, 2, 4)).shape
    torch.Size([1, 2, 4])
    """
    query = guide.flatten(2).transpose(1, 2).contiguous()  # [P, n, C]; the fused kernel wants C innermost
    source = template.flatten(2).transpose(1, 2).contiguous()
    free = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    known = guide.dtype == template.dtype and guide.dtype in (torch.float32, torch.bfloat16)
    if free and guide.device.type == "cpu" and known and len(guide):
        parts = [
            attend_in_blocks(q.float() * scale, s.float(), s.t().contiguous())
            for q, s in zip(query, source, strict=True)
        ]
        aligned = torch.stack(parts).to(guide.dtype)
    else:
        query, source = query[:, None], source[:, None]
        aligned = nn.functional.scaled_dot_product_attention(query, source, source, scale=scale)[:, 0]
    return aligned.transpose(1, 2).reshape(guide.shape)


class FusionCell(nn.Module):
    """The fusion cell of section 3.2: filter the template that goes, then update the one that stays (eq. 3-10).

    The paper leaves the networks f, h and g open. Here each is one convolution over the two templates side by side, or,
    with a bottleneck, a 1x1 convolution to that many channels, ReLU, and the convolution. h starts with a negative
    bias, so an untrained cell barely moves its target.

    Args:
        channels: C.
        spatial_dims: how many dimensions `*S` has: 1 (tokens), 2 (maps) or 3 (volumes).
        kernel_size: size of f, h and g, odd.
        bottleneck: channels between the two convolutions, or None for one convolution.
        scale: factor on the products in eq. 3; 1 is the paper's equation.

    Raises:
        OptionError: an argument is out of its range.

    >>> cell = FusionCell(8)
    >>> cell(torch.zeros(3, 8, 4, 5), torch.zeros(3, 8, 4, 5)).shape
    torch.Size([3, 8, 4, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int = 2,
        kernel_size: int = 3,
        bottleneck: int | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        narrowest = channels if bottleneck is None else min(channels, bottleneck)
        odd = kernel_size >= 1 and kernel_size % 2 == 1
        if spatial_dims not in _CONVOLUTIONS or not odd or narrowest < 1 or not math.isfinite(scale):
            raise OptionError(
                "FusionCell: expected channels >= 1, spatial_dims 1, 2 or 3, an odd kernel_size and bottleneck >= 1 "
                f"or None, a finite scale, got {channels}, {spatial_dims}, {kernel_size}, {bottleneck}, {scale}"
            )
        self.channels, self.spatial_dims, self.scale = channels, spatial_dims, scale
        self.kernel_size, self.bottleneck = kernel_size, bottleneck
        self.f = _two_to_one(channels, spatial_dims, kernel_size, bottleneck)
        self.h = _two_to_one(channels, spatial_dims, kernel_size, bottleneck)
        self.g = _two_to_one(channels, spatial_dims, kernel_size, bottleneck)
        last = self.h[-1]
        if isinstance(last.bias, Tensor):
            nn.init.constant_(last.bias, -3.0)  # z near 0.05: the paper's own weights are unknown, identity is safe

    def config(self) -> dict[str, int | float | None]:
        """The arguments that make a cell of this shape, by name."""
        names = ("channels", "spatial_dims", "kernel_size", "bottleneck", "scale")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_pretrained(cls, name: str | Path | None = None) -> FusionCell:
        """A trained cell, in eval mode, float32, on the CPU: that of a network, or one that was saved alone.

        Args:
            name: name of weights, see `stmemory.weights.load_part`; None is the bundled network's.

        Raises:
            WeightsError: there are no such weights, they are damaged, or hold no fusion cell.
        """
        cell: FusionCell = by_name("stmemory.weights", "load_part")(FusionCell, name)
        return cell

    def save_pretrained(self, folder: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Write the cell alone to a folder that `from_pretrained` reads; see `stmemory.weights.save_part`.

        Args:
            folder: made if it is not there.
            about: licence, data and measured figures, see `stmemory.weights.card`.

        Raises:
            WeightsError: a weight is NaN or infinite, or nothing can be written there.
        """
        by_name("stmemory.weights", "save_part")(self, folder, about=about)

    @torch.no_grad()
    def start_near_identity(self, update: float = 0.05) -> None:
        """Set h, in place, so that z of eq. 8 is `update` at every position, whatever the templates and however large.

        A fresh cell has z near 0.05 for templates of unit variance only. Training can begin from 0.05; of far less it
        learns slowly, but a cell that is not trained at all then leaves a memory as it is.

        Args:
            update: above 0 and below 1; n fusions move a template 1 - (1 - update)^n of the way.

        Raises:
            OptionError: `update` is out of its range.

        >>> cell, template = FusionCell(8), torch.full((1, 8, 4, 5), 100.0)
        >>> cell.start_near_identity(1e-6)
        >>> bool((cell(-template, template) - template).abs().max() < 1e-3)
        True
        """
        if not 0 < update < 1:
            raise OptionError(
                "start_near_identity: expected update above 0 and "
                f"below 1, got {update}; 0.05 to train from, 1e-6 to use"
            )
        last = self.h[-1]
        for name, value in (("weight", 0.0), ("bias", math.log(update / (1 - update)))):
            parameter = getattr(last, name)
            if isinstance(parameter, Tensor):
                nn.init.constant_(parameter, value)

    def check(self, source: Tensor, target: Tensor) -> None:
        """Refuse templates that do not fit each other or this cell. A bank asks at its first write, long before it
        fuses.

        Raises:
            ShapeError: says what the cell takes.
        """
        for name, template in (("source", source), ("target", target)):
            check_floats(f"FusionCell: {name}", template, f"[P, {self.channels}, *S]")
        fit = source.shape[:2] == target.shape[:2] and source.dim() == target.dim() == 2 + self.spatial_dims
        if not fit or source.shape[1] != self.channels:
            raise ShapeError(
                f"FusionCell: expected source and target [P, {self.channels}, *S] with {self.spatial_dims} spatial "
                f"dimensions, got {tuple(source.shape)} and {tuple(target.shape)}; spatial_dims=1 is for tokens, 2 for "
                "maps, 3 for volumes"
            )

    def forward(self, source: Tensor, target: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Merge P pairs; see `Fusion`. `sizes` is not used.

        Raises:
            ShapeError: the templates do not fit each other or this cell.
        """
        self.check(source, target)
        aligned = feature_alignment(source, target, scale=self.scale)  # eq. 4
        keep = torch.sigmoid(self.f(torch.cat([source, aligned], 1)))  # eq. 5, r
        filtered = keep * source  # eq. 6
        aligned = feature_alignment(target, filtered, scale=self.scale)  # eq. 7
        both = torch.cat([aligned, target], 1)
        update = torch.sigmoid(self.h(both))  # eq. 8, z
        candidate = torch.tanh(self.g(both))  # eq. 9, n
        return (1 - update) * target + update * candidate  # eq. 10


class MeanFusion:
    """The mean of both templates, position by position, weighted by how many frames went into each. Learns nothing.

    It is computed of halves, and in float32 at least: the sum of two large values in half precision is infinite.
    """

    def __call__(self, source: Tensor, target: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Merge P pairs; see `Fusion`.

        Raises:
            ShapeError: source and target are of different sizes: there is no position by position.
        """
        if source.shape != target.shape:
            raise ShapeError(
                f"MeanFusion: expected source and target of one shape, got {tuple(source.shape)} and "
                f"{tuple(target.shape)}; templates with extents of different sizes need a FusionCell"
            )
        wide = torch.promote_types(
            source.dtype, torch.float32
        )  # half precision cannot count to 65,520, nor hold a sum of large values
        into, gone = target.to(wide) / 2, source.to(wide) / 2  # halves: bfloat16 ends where float32 ends
        if sizes is None:
            return (gone + into).to(source.dtype)
        counts = sizes.to(wide)
        share = counts[:, 0] / counts.sum(1).clamp_min(1)  # [P]
        return (2 * torch.lerp(into, gone, share.view(-1, *[1] * (source.dim() - 1)))).to(source.dtype)


def part_of_the_way(target: Tensor, fused: Tensor, share: Tensor) -> Tensor:
    """Targets `[P, C, *S]` moved to their fused templates as far as `share [P]` says, 0 to 1.

    >>> part_of_the_way(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([0.25])).item()
    0.25
    """
    share = share.view(-1, *[1] * (target.dim() - 1)).to(target.dtype)
    wide = torch.promote_types(target.dtype, torch.float32)  # in half precision a difference may be infinite
    return (target.to(wide) + share.to(wide) * (fused.to(wide) - target.to(wide))).to(target.dtype)


def _two_to_one(channels: int, spatial_dims: int, kernel_size: int, bottleneck: int | None) -> nn.Sequential:
    """`[P, 2C, *S]` to `[P, C, *S]`."""
    convolution = _CONVOLUTIONS[spatial_dims]
    middle = 2 * channels if bottleneck is None else bottleneck
    last = convolution(middle, channels, kernel_size, padding=kernel_size // 2)
    nn.init.normal_(last.weight, std=1 / math.sqrt(middle * kernel_size**spatial_dims))
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    if bottleneck is None:
        return nn.Sequential(last)
    return nn.Sequential(convolution(2 * channels, bottleneck, 1), nn.ReLU(), last)
