"""Slow references, written from the paper's text: loops over positions, one equation a function. Imports nothing of
stmemory.

One object of one video at a time: templates are `[C, *S]` tensors, and the memory is a Python list, oldest first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def cosine(x: Tensor, y: Tensor) -> float:
    """Eq. 2, of two features `[C]`; 0 where one has no direction."""
    product = sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))
    length = math.sqrt(sum(a * a for a in x.tolist())) * math.sqrt(sum(b * b for b in y.tolist()))
    return product / length if length else 0.0


def similarity(source: Tensor, target: Tensor) -> float:
    """Eq. 1, of two templates."""
    source, target = source.flatten(1), target.flatten(1)
    positions, others = range(source.shape[1]), range(target.shape[1])
    return sum(max(cosine(source[:, p], target[:, q]) for q in others) for p in positions) / len(positions)


def softmax(scores: list[Tensor]) -> list[Tensor]:
    """Of a list of scalars, safe for any size."""
    top = max(float(s.detach()) for s in scores)
    powers = [(s - top).exp() for s in scores]
    total = torch.stack(powers).sum()
    return [p / total for p in powers]


def feature_alignment(guide: Tensor, template: Tensor, scale: float = 1.0) -> Tensor:
    """Eq. 3: each position of the guide is a softmax mean of the template's positions."""
    one, other = guide.flatten(1), template.flatten(1)
    columns = []
    for p in range(one.shape[1]):
        weights = softmax([scale * (one[:, p] * other[:, q]).sum() for q in range(other.shape[1])])
        columns.append(sum(w * other[:, q] for q, w in enumerate(weights)))
    return torch.stack(columns, 1).view(guide.shape)


def convolution(features: Tensor, layer: nn.Module) -> Tensor:
    """A convolution with its bias, zero padded to keep the size: `[Cin, *S]` to `[Cout, *S]`."""
    size, kernel = features.shape[1:], layer.weight.shape[2:]
    out = torch.zeros(len(layer.weight), *size, dtype=features.dtype)
    for position in itertools.product(*map(range, size)):
        total = layer.bias.clone()
        for tap in itertools.product(*map(range, kernel)):
            place = tuple(p + t - k // 2 for p, t, k in zip(position, tap, kernel, strict=True))
            if all(0 <= x < s for x, s in zip(place, size, strict=True)):
                total = total + layer.weight[(slice(None), slice(None), *tap)] @ features[(slice(None), *place)]
        out[(slice(None), *position)] = total
    return out


def network(features: Tensor, layers: nn.Sequential) -> Tensor:
    """f, g or h: one convolution, or two with ReLU between."""
    for layer in layers:
        features = features.clamp(min=0) if isinstance(layer, nn.ReLU) else convolution(features, layer)
    return features


def fusion(cell: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """Eq. 4 to 10, of one pair of templates."""
    aligned = feature_alignment(source, target, cell.scale)  # eq. 4
    r = torch.sigmoid(network(torch.cat([source, aligned]), cell.f))  # eq. 5
    filtered = r * source  # eq. 6
    aligned = feature_alignment(target, filtered, cell.scale)  # eq. 7
    z = torch.sigmoid(network(torch.cat([aligned, target]), cell.h))  # eq. 8
    n = torch.tanh(network(torch.cat([aligned, target]), cell.g))  # eq. 9
    return (1 - z) * target + z * n  # eq. 10


def read(
    query: Tensor,
    slots: list[tuple[Tensor, Tensor]],
    affinity: Callable[[Tensor, Tensor], Tensor],
    top_k: int | None = None,
) -> Tensor:
    """Eq. 13 without the query's own value: query `[Ck, m]`, (key `[Ck, n]`, value `[Cv, n]`) of each slot, to `[Cv,
    m]`."""
    cells = [(key[:, j], value[:, j]) for key, value in slots for j in range(key.shape[1])]
    columns = []
    for i in range(query.shape[1]):
        scored = sorted(
            ((affinity(query[:, i], key), value) for key, value in cells), key=lambda pair: -float(pair[0].detach())
        )
        scored = scored[:top_k]
        weights = softmax([score for score, _ in scored])
        columns.append(sum(w * value for w, (_, value) in zip(weights, scored, strict=True)))
    return torch.stack(columns, 1)


def rule(name: str, score: Callable[[int, int], float], slots: list[int]) -> tuple[int | None, list[int]]:
    """Section 3.2: the i that goes and the J that it is distilled into, of the movable slots, given oldest first."""
    if name == "oldest":  # A
        return slots[0], slots[1:]
    if name == "newest":  # B
        return slots[-1], slots[:-1]
    if name == "drop":
        return slots[0], []
    if name == "input_to_memory":  # eq. 11
        return None, slots
    pairs = list(itertools.combinations(slots, 2))  # i before j, so i is the older
    if not pairs:
        return slots[0], []
    i, j = (min if name == "least_similar" else max)(pairs, key=lambda pair: score(*pair))  # C, D
    return i, [j]


class PaperMemory:
    """Section 3.2 for one object: at most K templates, oldest first, the first of them the ground truth."""

    def __init__(self, capacity: int, name: str, fuse: Callable[[Tensor, Tensor, int, int], Tensor]) -> None:
        self.capacity, self.name, self.fuse = capacity, name, fuse
        self.templates: list[Tensor] = []
        self.sizes: list[int] = []

    def write(self, template: Tensor) -> None:
        """Add a template; distil and remove another where the memory is full (eq. 12, or eq. 11)."""
        if len(self.templates) == self.capacity:
            movable = list(range(1, self.capacity))
            i, into = rule(self.name, lambda a, b: similarity(self.templates[a], self.templates[b]), movable)
            source, size = (template, 1) if i is None else (self.templates[i], self.sizes[i])
            for j in into:
                self.templates[j] = self.fuse(source, self.templates[j], size, self.sizes[j])
                self.sizes[j] += size
            if i is None:
                return
            del self.templates[i], self.sizes[i]
        self.templates.append(template)
        self.sizes.append(1)
