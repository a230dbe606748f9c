"""How alike two templates are: eq. 1-2 of the paper, blocked over positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stmemory.errors import ShapeError

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


def similarities(one: Tensor, many: Tensor, *, working_elements: int = WORKING_ELEMENTS) -> tuple[Tensor, Tensor]:
    """Eq. 1 between one template and K others, in both directions from one product of their positions.

    Args:
        one: `[P, C, *S]`.
        many: `[P, K, C, *S]`.
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
        return _compare(one, many, working_elements)


def _compare(one: Tensor, many: Tensor, working_elements: int) -> tuple[Tensor, Tensor]:
    pairs, slots = many.shape[:2]
    left = _unit(one.flatten(2)).transpose(1, 2)  # [P, n, C]
    right = _unit(many.flatten(3))  # [P, K, C, n]
    cells = left.shape[1]
    step = max(1, min(cells, working_elements // max(1, cells)))
    forth, back = [], []
    for p in range(pairs):
        for k in range(slots):
            best_of_left, best_of_right = [], right.new_full((cells,), -math.inf)
            for start in range(0, cells, step):
                cosine = left[p, start : start + step] @ right[p, k]  # [step, n], eq. 2
                best_of_left.append(cosine.amax(1))
                best_of_right = torch.maximum(best_of_right, cosine.amax(0))
            forth.append(torch.cat(best_of_left).mean())
            back.append(best_of_right.mean())
    return torch.stack(forth).view(pairs, slots), torch.stack(back).view(pairs, slots)


def _unit(features: Tensor) -> Tensor:
    """Float32 features `[..., C, n]` of length one over C; zero stays zero."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    square = features.square().sum(-2, keepdim=True)  # vector_norm along C is several times slower on the CPU
    return features / square.clamp_min(1e-24).sqrt()
