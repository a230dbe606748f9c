"""How alike two templates are: eq. 1-2 of the paper, blocked over positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stmemory.errors import ShapeError
from stmemory.memory.attention import products

__all__ = ["similarities", "similarity"]

WORKING_ELEMENTS = 1 << 19  # float32 products held at once: 2 MiB, what a core's cache holds


def similarity(source: Tensor, target: Tensor, *, working_elements: int = WORKING_ELEMENTS) -> Tensor:
    """S(X_i, X_j) of eq. 1: the mean over the source's positions of the best cosine (eq. 2) in the target.

    Many to one, so not symmetric. A position whose feature is zero has cosine 0 with everything.

    Args:
        source: `[P, C, *S]`, the templates (or their keys) X_i of P pairs.
        target: `[P, C, *S]`, the X_j.
        working_elements: see `similarities`.

    Returns:
        `[P]` in [-1, 1], float32 (float64 for float64 templates).

    Raises:
        ShapeError: the shapes differ.

    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # two positions, orthogonal
    >>> similarity(x, x[..., :1].expand(1, 2, 2))
    tensor([0.5000])
    """
    if source.shape != target.shape:
        raise ShapeError(
            f"similarity: expected two templates of one shape [P, C, *S], got {tuple(source.shape)} and "
            f"{tuple(target.shape)}; resize or re-encode one of them"
        )
    return similarities(source, target[:, None], working_elements=working_elements)[0][:, 0]


def similarities(
    one: Tensor,
    many: Tensor,
    *,
    cells: tuple[Tensor, Tensor] | None = None,
    working_elements: int = WORKING_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Eq. 1 between one template and K others, in both directions from one product of their positions.

    Args:
        one: `[P, C, *S]`.
        many: `[P, K, C, *S]`.
        cells: bool `[P, *S]` and `[P, K, *S]`, the positions that are part of each template, at least one of each; None
            means all. Has no effect within `torch.compile`.
        working_elements: at most this many cosines are held at a time (or the `n` of a single position where that is
            more, n = cells of S): `O(n)`, not `O(n^2)`, whatever P and K. Beside them stands one copy of the inputs.

    Returns:
        Two tensors `[P, K]`, float32 (float64 for float64 templates): S(one, many_k) and S(many_k, one).

    Raises:
        ShapeError: the shapes do not fit.

    >>> a, b = torch.eye(3).reshape(1, 3, 3), torch.ones(1, 2, 3, 3)
    >>> [s.shape for s in similarities(a, b)]
    [torch.Size([1, 2]), torch.Size([1, 2])]
    """
    if one.dim() < 3 or many.dim() != one.dim() + 1 or one.shape[1:] != many.shape[2:] or one.shape[0] != many.shape[0]:
        raise ShapeError(
            f"similarities: expected [P, C, *S] and [P, K, C, *S], got {tuple(one.shape)} and {tuple(many.shape)}; "
            "give both the same P, C and S"
        )
    pairs, slots = many.shape[:2]
    if pairs * slots == 0:
        nothing = torch.zeros(pairs, slots, dtype=torch.float32, device=one.device)
        return nothing, nothing.clone()
    with torch.autocast(one.device.type, enabled=False):  # a difference of 1e-3 decides which template goes
        return _compare(one, many, None if torch.compiler.is_compiling() else cells, working_elements)


def _compare(
    one: Tensor, many: Tensor, cells: tuple[Tensor, Tensor] | None, working_elements: int
) -> tuple[Tensor, Tensor]:
    pairs, slots = many.shape[:2]
    left = _unit(one.flatten(2)).transpose(1, 2).contiguous()  # [P, n, C]
    right = _unit(many.flatten(3)).transpose(2, 3).contiguous()  # [P, K, n, C]
    both = []
    for p in range(pairs):
        ours = left[p] if cells is None else left[p][cells[0][p].flatten()]
        for k in range(slots):
            theirs = right[p, k] if cells is None else right[p, k][cells[1][p, k].flatten()]
            both.append(_best_cosines(ours, theirs, working_elements))
    forth, back = (torch.stack(means).view(pairs, slots) for means in zip(*both, strict=True))
    return forth, back


def _best_cosines(left: Tensor, right: Tensor, working_elements: int) -> tuple[Tensor, Tensor]:
    """Means over the positions of unit features `[n, C]` of the best cosine in `[m, C]`, and the other way round."""
    step = max(1, min(len(left), working_elements // max(1, len(right))))
    best_of_left, best_of_right = [], right.new_full((len(right),), -math.inf)
    for start in range(0, len(left), step):
        cosine = products(left[start : start + step], right)  # [step, m], eq. 2
        best_of_left.append(cosine.amax(1))
        best_of_right = torch.maximum(best_of_right, cosine.amax(0))
    return torch.cat(best_of_left).mean(), best_of_right.mean()


def _unit(features: Tensor) -> Tensor:
    """Float32 features `[..., C, n]` of length one over C; zero stays zero."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    square = features.square().sum(-2, keepdim=True)  # vector_norm along C is several times slower on the CPU
    return features / square.clamp_min(1e-24).sqrt()
