"""Matrix products, and attention made of them, by what is fastest on the CPU."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

__all__ = ["attend_in_blocks", "in_few_sizes", "multiplies_bfloat16", "products"]

# Of rows and of columns there is a multiple: the library prepares itself for every size, and keeps that.
_ROWS, _COLUMNS = 128, 512
_SCORES = 1 << 20  # held at once: 4 MiB
_LEAST = -80.0  # below this exp() is negligible beside 1, and denormals are a hundred times as slow


def products(left: Tensor, right: Tensor) -> Tensor:
    """The products of every row of `left [n, C]` with every row of `right [m, C]`, `[n, m]`.

    Float32 on the CPU without grad is left to oneDNN, which torch uses for convolutions: on AMD processors it reaches
    twice the rate of MKL, which torch uses for matrix products, and on others the same.

    >>> products(torch.ones(2, 3), torch.ones(1, 3)).tolist()
    [[3.0], [3.0]]
    """
    exact = left.dtype == right.dtype == torch.float32 and left.device.type == right.device.type == "cpu"
    free = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if not (exact and free and left.numel() and right.numel() and _has_onednn()):
        return left @ right.t()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(_in_few_rows(left), _in_few_rows(right), None, "none", [], "")
    return out[: len(left), : len(right)]


def in_few_sizes(maps: Tensor) -> Tensor:
    """`[C, n]` with zeros at the end, so that `products` over its columns come in few sizes.

    >>> in_few_sizes(torch.ones(2, 600)).shape
    torch.Size([2, 1024])
    """
    more = -maps.shape[1] % _COLUMNS
    return nn.functional.pad(maps, (0, more)) if more else maps


def attend_in_blocks(queries: Tensor, memory: Tensor, contents: Tensor) -> Tensor:
    """Softmax of the products of `queries [m, C]` and `memory [n, C]` over the memory, and the mean of its contents
    `[Cv, n]` with that: `[m, Cv]`. Not for gradients.

    Blocked over queries, in the dtype of the queries, float32 or wider; on the CPU faster than the fused kernel, which
    needs memory and contents of one width. Contents may be in half precision. Where the processor multiplies bfloat16,
    the weights of a mean of bfloat16 are rounded to it, and so is the sum, before it is divided by that of the weights.

    >>> attend_in_blocks(torch.zeros(1, 2), torch.ones(3, 2), torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[2.0]]
    """
    if contents.dtype != torch.bfloat16 or not multiplies_bfloat16():
        contents = contents.to(queries.dtype)
    found = queries.new_empty(len(queries), len(contents))
    step = max(1, _SCORES // max(1, len(memory)))
    step -= step % _ROWS if step > _ROWS else 0
    for start in range(0, len(queries), step):
        scores = products(queries[start : start + step], memory)
        scores.sub_(scores.amax(1, keepdim=True)).clamp_(min=_LEAST).exp_()
        weights = scores.to(contents.dtype)
        whole = weights.sum(1, keepdim=True, dtype=queries.dtype)
        torch.div(products(weights, contents), whole, out=found[start : start + step])
    return found


def _in_few_rows(rows: Tensor) -> Tensor:
    """`[n, C]` with rows of zeros at the end; itself, where there are enough."""
    more = -len(rows) % _ROWS
    return (nn.functional.pad(rows, (0, 0, 0, more)) if more else rows).contiguous()


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor.

    >>> multiplies_bfloat16() in (False, True)
    True
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


@functools.cache
def _has_onednn() -> bool:
    """Whether this build of torch has oneDNN's linear layer, and it does what it should."""
    try:
        one = torch.ones(2, 3, device="cpu", dtype=torch.float32)
        found = torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "")
        return bool(found.tolist() == [[3.0, 3.0], [3.0, 3.0]])
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
