"""`SelfPrompter`: masks of boxes and clicks by the discriminative read and the decoder of a tracking network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stmemory.errors import OptionError
from stmemory.io.frames import WorkingSize
from stmemory.io.masks import bounding_box
from stmemory.memory.discriminative import ridge_solution, ridge_sums
from stmemory.memory.read import ReadCache
from stmemory.networks.layers import FrameFeatures
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.prompts import Prompt
from stmemory.window import Window, closest, place

__all__ = ["SelfPrompter"]

_ROOM = 1.6  # sides of the window, in sides of the box
_ZOOM = 2.0  # times, at most
_RIDGE = 3.0
_FITS, _DECODES, _FOLDS = 8, 6, 4
_STEEP = 8.0
_LEAST_SHARE = 0.2  # of the box
_DISC = 6.0  # px of the working size around a click that are the object, or not
_CLICKED = 0.25  # short sides: how far from clicks an object is looked for, where nothing else says it


class SelfPrompter:
    """Makes masks of boxes and clicks with the network that tracks; a `Prompter`.

    Args:
        network: with a discriminative read; it is left as it is.
        options: of the tracking: the working size.

    Raises:
        OptionError: the network has no discriminative read.
    """

    def __init__(self, network: SegmentationNetwork, options: TrackingOptions) -> None:
        if not isinstance(network, SegmentationNetwork) or network.discriminate is None:
            raise OptionError(
                "SelfPrompter: expected a network with a discriminative read, such as lite, got one without; give "
                "masks, or prompter=... with weights that take points"
            )
        self.network, self.options = network, options

    @classmethod
    def of(cls, network: object, options: TrackingOptions) -> SelfPrompter | None:
        """The prompter of a network; None where it has no discriminative read."""
        if isinstance(network, SegmentationNetwork) and network.discriminate is not None:
            return cls(network, options)
        return None

    @torch.inference_mode()
    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        """See `Prompter.masks`."""
        return torch.stack(
            [self._mask(frame, one, [p for p in prompts if p is not one], last.get(one.object_id)) for one in prompts]
        )

    def _mask(self, frame: Tensor, prompt: Prompt, others: Sequence[Prompt], last: Tensor | None) -> Tensor:
        """`[H, W]` of one object."""
        height, width = frame.shape[1:]
        device = next(self.network.parameters()).device
        size = self.options.working_size(self.network, height, width)
        rows = torch.arange(height, device=device)[:, None] + 0.5
        columns = torch.arange(width, device=device)[None] + 0.5
        radius = _DISC * height / size.height
        yes, no = frame.new_zeros(height, width, device=device), frame.new_zeros(height, width, device=device)
        for x, y in prompt.points:
            yes[(rows - y).square() + (columns - x).square() <= radius**2] = 1
        for x, y in [*prompt.not_points, *(point for other in others for point in other.points)]:
            no[(rows - y).square() + (columns - x).square() <= radius**2] = 1
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            allowed = ((rows > y0) & (rows < y1) & (columns > x0) & (columns < x1)).float()
            start = allowed
        else:
            nearest = torch.full((height, width), math.inf, device=device)
            for x, y in prompt.points:
                nearest = torch.minimum(nearest, ((rows - y).square() + (columns - x).square()).sqrt())
            start = torch.exp(-(nearest / (_CLICKED * min(height, width))).square() * 4)
            allowed = torch.ones_like(start)
        if last is not None:
            start = last.to(device)
        found = start.gt(0.5) | yes.bool()
        window = _window(found if prompt.box is None else allowed.bool(), size)
        dtype = next(self.network.parameters()).dtype
        features = self.network.encode_query(window.see(frame.to(device), size)[None].to(dtype))
        start, allowed, yes, no = window.see(torch.stack([start, allowed, yes, no]), size)
        allowed = allowed * (1 - no)
        mask = start if last is not None else self._fit(features, start * allowed, allowed, yes)
        mask = self._decode(features, torch.maximum(mask * allowed, yes), allowed, yes)
        own = window.put_back(torch.stack([1 - mask, mask]), size)[1]
        return own.clamp(0, 1).to(frame.device)

    def _fit(self, features: FrameFeatures, start: Tensor, allowed: Tensor, yes: Tensor) -> Tensor:
        """The classifier's answer, `[H', W']`, refitted to itself."""
        appearance = features.appearance
        if appearance is None:
            raise OptionError("SelfPrompter: expected features of the discriminative read")
        cells = appearance[:, : appearance.shape[1] // 2].float()
        y, inside, sure = (F.avg_pool2d(m[None], 8)[0] for m in (start, allowed, yes))
        fold = _folds(inside)
        for _ in range(_FITS):
            scores = _score(cells, y, torch.ones_like(y))
            for number in range(_FOLDS):
                held = fold == number
                if bool(held.any()):
                    scores = torch.where(held, _score(cells, y, (~held).float()), scores)
            one = (scores * y).sum() / y.sum().clamp_min(1e-6)
            other = (scores * (1 - y)).sum() / (1 - y).sum().clamp_min(1e-6)
            limit = (one + other) / 2
            if bool((inside > 0.5).any()) and not bool(inside.min() > 0.5):
                limit = torch.minimum(limit, scores[inside > 0.5].quantile(1 - _LEAST_SHARE))
            y = torch.sigmoid(_STEEP * (scores - limit) / (one - other).clamp_min(0.05)) * inside
            y = torch.maximum(y, sure)
        large: Tensor = F.interpolate(y[None, None], size=start.shape, mode="bilinear", align_corners=False)
        return large[0, 0]

    def _decode(self, features: FrameFeatures, mask: Tensor, allowed: Tensor, yes: Tensor) -> Tensor:
        """The decoder's answer, `[H', W']`, memorised and decoded again."""
        video = torch.zeros(1, dtype=torch.int64, device=mask.device)
        nothing = torch.zeros_like(mask)[None]
        for _ in range(_DECODES):
            own = mask[None].to(features.key.dtype)
            bank = self.network.new_bank(2)
            bank.write(self.network.encode_memory(features, own, nothing.to(own.dtype), video), frame=0, pinned=True)
            sums = self.network.new_beside()
            self.network.learn(sums, features, own, nothing, video, frame=0, given=True)
            recalled = self.network.recall(features, bank, video, ReadCache())
            cues = self.network.cues(features, sums, (own, nothing), video) if features.can_discriminate else None
            logits = self.network.decode(recalled, features, video, cues)[0].float()
            mask = torch.maximum(logits.sigmoid() * allowed, yes)
        return mask


def _score(cells: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """Ridge regression of `y [h, w]` on `cells [1, D, h, w]`, its values there, `[h, w]`."""
    video = torch.zeros(1, dtype=torch.int64, device=y.device)
    weights = ridge_solution(ridge_sums(cells, y[None], torch.zeros_like(y)[None], video, counts=counts[None]), _RIDGE)[
        0
    ]
    return torch.einsum("dhw,d->hw", cells[0], weights[:-1]) + weights[-1]


def _folds(inside: Tensor) -> Tensor:
    """Which of the folds each cell inside is held out with, `[h, w]`; -1 outside."""
    fold = torch.full(inside.shape, -1, device=inside.device)
    rows, columns = torch.nonzero(inside > 0.1, as_tuple=True)
    if len(rows):
        down = (rows - rows.min()) * _FOLDS // (rows.max() - rows.min() + 1)
        across = (columns - columns.min()) * _FOLDS // (columns.max() - columns.min() + 1)
        fold[rows, columns] = (down + 2 * across) % _FOLDS
    return fold


def _window(region: Tensor, size: WorkingSize) -> Window:
    """The window around a region, bool `[H, W]`."""
    box = bounding_box(region)
    if box is None:
        return Window.whole(size)
    factor = max(1.0, min(closest(box, size, room=_ROOM), _ZOOM))
    height, width = max(1, round(size.frame_height / factor)), max(1, round(size.frame_width / factor))
    return place(box, height, width, Window.whole(size), size)
