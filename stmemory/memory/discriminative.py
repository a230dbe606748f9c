"""The discriminative read: one linear classifier an object, solved in closed form over all that was memorised of it.

The space-time read (eq. 13) asks which remembered cell looks like this one. A part of the object that was never seen
has none. This read asks what separates the object from everything else: a ridge regression of its masks on the features
of the frames, as in the target models of the paper's references [22] (Robinson et al. 2020) and [2] (Bhat et al. 2020).
It is not part of the paper.

A ridge regression needs of any number of frames only two sums, X'CX and X'Cy. They are additive, so they take the same
bytes after one frame and after a million.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.attention import in_few_sizes, products
from stmemory.memory.packing import Packed, packed, unpacked

__all__ = [
    "DiscriminativeMemory",
    "DiscriminativeRead",
    "counted_cells",
    "ridge_solution",
    "ridge_sums",
    "rival_scores",
]

_KINDS = ("given", "found")
_MOST_FRAMES = 1 << 31  # that are counted
_RIM = 2  # cells at the edge of a frame: what lies beyond it makes them look like each other, and like no object
_LEAST = 1e-6  # weight, variance or pivot that counts as something
_LEAST_MASK = 1e-3  # of a cell: with less of it the object is not there
_ALIKE = 1e-3  # of a weight: what differs by less is the same


class DiscriminativeMemory:
    """The sums of a ridge regression for each of B rows, whatever the length of the video. A row is one object of one
    video.

    Two sums a row: the mean over the frames whose mask was given, and an exponential mean over the frames whose mask
    was found. With D features, a sum is `[D + 1, D + 2]`: X'CX of the features and a constant 1, and X'Cy as its last
    column. Beside each stands what it was before the last frame, so that a frame that is corrected counts once, as it
    is in the end.

    >>> memory = DiscriminativeMemory()
    >>> for frame in range(10):
    ...     memory.write(torch.rand(2, 5, 6), frame=frame, given=frame == 0)
    >>> memory.rows, memory.nbytes
    (2, 1024)
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}  # see _allocate
        self._solved: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor] | None = None  # see solved

    def __getstate__(self) -> dict[str, Packed]:
        return {"tensors": packed(self._tensors)}

    def __setstate__(self, state: dict[str, Packed]) -> None:
        self._tensors, self._solved = unpacked(state["tensors"]), None

    @property
    def rows(self) -> int:
        """B; 0 before the first write."""
        return len(self._tensors["given"]) if self._tensors else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all sums and counts; constant from the first write on while the rows are the same. What `solved`
        keeps, D + 1 numbers a row, does not count."""
        return sum(t.numel() * t.element_size() for t in self._tensors.values())

    def write(
        self,
        sums: Tensor,
        *,
        rows: Sequence[int] | None = None,
        frame: int = 0,
        given: bool = False,
        rate: Tensor | float = 0.1,
    ) -> None:
        """Add the sums of one frame; those of the same frame, if it is the last one, are taken back first.

        Args:
            sums: `[R, D + 1, D + 2]`, of `ridge_sums`.
            rows: the R rows they belong to, each once; None means all, in order. The first write makes the rows.
            frame: index of the frame.
            given: whether the masks were given; else they were found.
            rate: share of the new frame in the exponential mean of found frames, in [0, 1].

        Raises:
            ShapeError: the sums do not fit.
        """
        if not self._tensors:
            self._allocate(sums)
        expected = self._tensors["given"].shape[1:]
        index = torch.arange(self.rows) if rows is None else torch.as_tensor(list(rows), dtype=torch.int64)
        inside = bool(((index >= 0) & (index < self.rows)).all()) and len(set(index.tolist())) == len(index)
        if not inside or len(index) != len(sums) or sums.shape[1:] != expected:
            raise ShapeError(
                f"write: expected sums [R, {', '.join(map(str, expected))}] for R different rows of "
                f"0..{self.rows - 1}, got {tuple(sums.shape)} for rows {index.tolist()}; see ridge_sums()"
            )
        index = index.to(sums.device)
        for kind in _KINDS:
            self._take_back(kind, index, frame)
        kind = "given" if given else "found"
        before, count = self._tensors[kind][index], self._tensors[f"{kind}_count"][index]
        share = 1 / (count + 1) if given else torch.where(count == 0, 1.0, torch.as_tensor(rate, device=sums.device))
        self._put(f"{kind}_before", index, before)
        self._put(kind, index, torch.lerp(before, sums, share.to(sums.dtype)[:, None, None]))
        self._put(f"{kind}_count", index, (count + 1).clamp_max(_MOST_FRAMES))
        self._put(f"{kind}_frame", index, torch.full_like(count, frame))

    def forget(self, frame: int, *, rows: Sequence[int]) -> None:
        """Take back what rows know of their last frame, if it is this one; before the first write there is nothing to
        forget."""
        if self._tensors:
            index = torch.as_tensor(list(rows), dtype=torch.int64, device=self._tensors["given"].device)
            for kind in _KINDS:
                self._take_back(kind, index, frame)

    def sums(self, given_share: Tensor | float) -> Tensor:
        """`[B, D + 1, D + 2]`: given and found frames together; what a row has of one kind alone counts whole.

        Args:
            given_share: weight of the given frames where there are found ones too, in [0, 1].

        Raises:
            BankError: nothing was written yet.
        """
        if not self._tensors:
            raise BankError(
                "discriminative read: expected a memory with sums of some frame, got an empty one; write() first"
            )
        given, found = self._tensors["given"], self._tensors["found"]
        share = torch.as_tensor(given_share, dtype=given.dtype, device=given.device).expand(self.rows)
        share = torch.where(self._tensors["found_count"] == 0, torch.ones_like(share), share)
        share = torch.where(self._tensors["given_count"] == 0, torch.zeros_like(share), share)
        return torch.lerp(found, given, share[:, None, None])

    def solved(self, given_share: Tensor, ridge: Tensor) -> Tensor:
        """`ridge_solution` of `sums`, kept until something is written: all is written out of place, so the same tensors
        hold the same sums. With grad, or of parameters that learn, it is solved each time.

        Args:
            given_share: logit of the share of the given frames.
            ridge: logarithm of lambda.
        """
        of, parameters = (*self._tensors.values(), given_share, ridge), (given_share, ridge)
        # inference tensors have no version, so nothing says whether they were written to
        kept = not torch.is_grad_enabled() and not any(p.requires_grad or p.is_inference() for p in parameters)
        versions = tuple(p._version for p in parameters) if kept else ()  # loading weights writes in place
        if kept and self._solved is not None:
            before, known, solution = self._solved
            if versions == known and len(of) == len(before) and all(a is b for a, b in zip(of, before, strict=True)):
                return solution
        found = ridge_solution(self.sums(given_share.float().sigmoid()), ridge.float().exp())
        self._solved = (of, versions, found) if kept else None
        return found

    def add_rows(self, number: int) -> None:
        """Append empty rows: objects that enter later."""
        if number < 0 or not self._tensors:
            raise BankError(
                f"add_rows: expected a number >= 0 and a memory that was written to, got {number}; call write() first"
            )
        self._tensors = {name: torch.cat([t, t.new_zeros(number, *t.shape[1:])]) for name, t in self._tensors.items()}

    def remove_rows(self, rows: Sequence[int]) -> None:
        """Forget whole rows and free their bytes; the rows after them move up.

        Raises:
            BankError: there is no such row.
        """
        if unknown := [row for row in rows if not 0 <= row < self.rows]:
            raise BankError(f"remove_rows: expected rows in 0..{self.rows - 1}, got {unknown}")
        kept = [row for row in range(self.rows) if row not in set(rows)]
        self._tensors = {name: t[kept] for name, t in self._tensors.items()}

    def detach(self) -> None:
        """Cut the graph: what is held stays, gradients stop here."""
        self._tensors = {name: t.detach() for name, t in self._tensors.items()}

    def shared(self) -> DiscriminativeMemory:
        """A memory that holds what this one holds now, and shares its bytes: nothing is ever written in place."""
        twin = DiscriminativeMemory()
        twin._tensors, twin._solved = dict(self._tensors), self._solved
        return twin

    def fork(self) -> DiscriminativeMemory:
        """A memory that goes its own way from here on."""
        twin = DiscriminativeMemory()
        twin.load_state_dict(self._tensors)
        return twin

    def state_dict(self) -> dict[str, Tensor]:
        """All that is held, by name; copies nothing. Empty before the first write."""
        return dict(self._tensors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hold a copy of what `state_dict()` gave.

        Raises:
            BankError: names are missing or unexpected, or sizes do not fit each other.
        """
        probe = DiscriminativeMemory()
        probe._allocate(torch.zeros(1, 2, 3))
        if state and set(state) != set(probe._tensors):
            unexpected, missing = sorted(set(state) - set(probe._tensors)), sorted(set(probe._tensors) - set(state))
            raise BankError(
                f"load_state_dict: missing {missing}, unexpected {unexpected}; "
                "these are not the sums of a discriminative read"
            )
        if state and any(len(t) != len(state["given"]) for t in state.values()):
            raise BankError(
                "load_state_dict: expected sums and counts of as many rows each, got others; the state is damaged"
            )
        self._tensors = {name: t.clone() for name, t in state.items()}

    def _allocate(self, sums: Tensor) -> None:
        if sums.dim() != 3 or sums.shape[2] != sums.shape[1] + 1:
            raise ShapeError(f"write: expected sums [R, D + 1, D + 2], got {tuple(sums.shape)}; see ridge_sums()")
        for kind in _KINDS:
            for name in (kind, f"{kind}_before"):  # [B, D + 1, D + 2]
                self._tensors[name] = sums.detach().new_zeros(sums.shape)
            for name in (f"{kind}_count", f"{kind}_frame"):  # [B]
                self._tensors[name] = torch.zeros(len(sums), dtype=torch.int64, device=sums.device)

    def _take_back(self, kind: str, index: Tensor, frame: int) -> None:
        """Forget what the rows `[R]` know of this frame, if it is the last of its kind that they know of."""
        count = self._tensors[f"{kind}_count"][index]
        again = (count > 0) & (self._tensors[f"{kind}_frame"][index] == frame)
        if bool(again.any()):
            rows = index[again]
            self._put(kind, rows, self._tensors[f"{kind}_before"][rows])
            self._put(f"{kind}_count", rows, count[again] - 1)

    def _put(self, name: str, index: Tensor, value: Tensor) -> None:
        self._solved = None  # which would keep the sums of before from being freed
        self._tensors[name] = self._tensors[name].index_put((index,), value)


class DiscriminativeRead(nn.Module):
    """Scores of objects from their classifiers; what the regression depends on is learned with the network.

    Args:
        ridge: lambda, in units of the features' mean variance.
        given_share: weight of the given frames beside the found ones, in (0, 1).
        rate: share of a new frame in the mean of the found ones, in (0, 1).
        rivals: how much more a background cell counts where another object claims it, 0 or more.

    Raises:
        OptionError: a value is out of its range.

    >>> read, memory = DiscriminativeRead(), DiscriminativeMemory()
    >>> features, mask, video = torch.rand(1, 4, 6, 6), torch.zeros(2, 6, 6), torch.zeros(2, dtype=torch.int64)
    >>> mask[0, :3], mask[1, 4:] = 1, 1
    >>> read.memorise(memory, features, mask, mask.flip(0), video, given=True)
    >>> read(features, memory, video).shape
    torch.Size([2, 6, 6])
    """

    def __init__(
        self, *, ridge: float = 0.01, given_share: float = 0.5, rate: float = 0.1, rivals: float = 1.0
    ) -> None:
        super().__init__()
        if not (ridge > 0 and 0 < given_share < 1 and 0 < rate < 1 and rivals > 0):
            raise OptionError(
                "DiscriminativeRead: expected ridge and rivals above 0, given_share and rate between 0 and 1, got "
                f"{ridge}, {rivals}, {given_share} and {rate}"
            )
        self.log_ridge = nn.Parameter(torch.tensor(math.log(ridge)))
        self.log_rivals = nn.Parameter(torch.tensor(math.log(rivals)))
        self.given_logit = nn.Parameter(torch.tensor(math.log(given_share / (1 - given_share))))
        self.rate_logit = nn.Parameter(torch.tensor(math.log(rate / (1 - rate))))

    def memorise(
        self,
        memory: DiscriminativeMemory,
        features: Tensor,
        mask: Tensor,
        others: Tensor,
        video: Tensor,
        *,
        rows: Sequence[int] | None = None,
        frame: int = 0,
        given: bool = False,
    ) -> None:
        """Add what a frame says of objects; of which cells, see `counted_cells`.

        Args:
            memory: where to.
            features: `[V, D, *S]`, of V frames.
            mask: `[R, *S]` in [0, 1], each row's object at the features' size.
            others: `[R, *S]` in [0, 1], all other objects of the same frame.
            video: `[R]` int64, each row's frame.
            rows: see `DiscriminativeMemory.write`.
            frame: see there.
            given: see there.
        """
        mask = mask * (mask >= _LEAST_MASK)
        sums = ridge_sums(
            features, mask, others, video, rivals=self.log_rivals.float().exp(), counts=counted_cells(mask)
        )
        memory.write(sums, rows=rows, frame=frame, given=given, rate=self.rate_logit.float().sigmoid())

    def classifiers(self, memory: DiscriminativeMemory) -> Tensor:
        """`[B, D + 1]` float32: weights of the features, then the constant."""
        return memory.solved(self.given_logit, self.log_ridge)

    def forward(self, features: Tensor, memory: DiscriminativeMemory, video: Tensor) -> Tensor:
        """How much each cell looks like each object: about 1 on it, about 0 elsewhere.

        Args:
            features: `[V, D, *S]`, of V frames.
            memory: memory of B rows.
            video: `[B]` int64, each row's frame.

        Returns:
            `[B, *S]` float32.
        """
        weights = self.classifiers(memory)  # [B, D + 1]
        cells = features.float().flatten(2)  # [V, D, n]
        own = _of_rows(cells, video)
        with torch.autocast(features.device.type, enabled=False):
            scores = torch.baddbmm(weights[:, -1:, None], weights[:, None, :-1], own)  # [B, 1, n]
        return scores.view(len(video), *features.shape[2:])


def ridge_sums(
    features: Tensor,
    mask: Tensor,
    others: Tensor,
    video: Tensor,
    *,
    rivals: Tensor | float = 1.0,
    counts: Tensor | None = None,
) -> Tensor:
    """X'CX and X'Cy of one frame for each object: X are the cells' features and a constant 1, y is the mask.

    C weighs the cells: object and background get one half each, whatever their sizes, and within the background a cell
    counts `1 + rivals` times as much where another object claims it.

    Args:
        features: `[V, D, *S]`, of V frames.
        mask: `[R, *S]` in [0, 1].
        others: `[R, *S]` in [0, 1].
        video: `[R]` int64, each row's frame.
        rivals: 0 or more.
        counts: `[R, *S]`, how much each cell counts besides, see `counted_cells`; None counts all alike.

    Returns:
        `[R, D + 1, D + 2]` float32; the last column is X'Cy.

    Raises:
        ShapeError: the shapes do not fit.

    >>> ridge_sums(torch.rand(1, 4, 9), torch.ones(2, 9), torch.zeros(2, 9), torch.zeros(2).long()).shape
    torch.Size([2, 5, 6])
    """
    if (
        features.dim() < 3
        or mask.shape != others.shape
        or mask.shape[1:] != features.shape[2:]
        or len(video) != len(mask)
    ):
        raise ShapeError(
            "ridge_sums: expected features [V, D, *S], mask and others [R, *S] and video [R], got "
            f"{tuple(features.shape)}, {tuple(mask.shape)}, {tuple(others.shape)} and {tuple(video.shape)}"
        )
    cells = features.float().flatten(2)
    cells = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)  # [V, D + 1, n]
    y = mask.float().flatten(1)  # [R, n]
    counts = torch.ones_like(y) if counts is None else counts.float().flatten(1)
    others = others.float().flatten(1)
    rest = counts * (1 - y) * (1 + rivals * others)
    weight = 0.5 * _shares(counts * y) + 0.5 * _shares(rest)
    with torch.autocast(features.device.type, enabled=False):
        if cells.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            about = counts * (1 + rivals * (others + y)) * 0.5 / rest.sum(1, keepdim=True).clamp_min(_LEAST)
            return _sums_of_many(cells, (weight, about), y, video)
        own = _of_rows(cells, video)
        weighed = own * weight[:, None]  # [R, D + 1, n]
        return torch.cat([weighed @ own.transpose(1, 2), weighed @ y[:, :, None]], 2)


def _sums_of_many(cells: Tensor, weights: tuple[Tensor, Tensor], y: Tensor, video: Tensor) -> Tensor:
    """The sums of cells `[V, D + 1, n]` for rows with masks `[R, n]`, row after row.

    Args:
        cells: see above.
        weights: `[R, n]`, of the cells; and what they are about, where the row's object is not: this is the same for
            all rows of a frame up to a factor. So the products of all cells are computed once a frame, and for each row
            those of the cells that weigh something else, by more than a thousandth.
        y: the masks.
        video: `[R]`, each row's frame.
    """
    rows, sums = video.tolist(), []
    shared: dict[int, tuple[Tensor, Tensor]] = {}  # for each frame weights `[n]`, and the products with them
    for row, frame in enumerate(rows):
        own, weight, about = cells[frame], *(kind[row] for kind in weights)
        if frame not in shared and rows.count(frame) > 1:
            shared[frame] = about, products(own * about, own)
        if frame in shared:
            base, gram = shared[frame]
            factor = about.sum() / base.sum().clamp_min(_LEAST)
            more = weight - factor * base
            at = ((more.abs() > _ALIKE * factor * base) | (y[row] > 0)).nonzero()[:, 0]
            if 2 * len(at) < len(more):
                part = own[:, at]
                target = (part * weight[at]) @ y[row, at][:, None]
                less = products(in_few_sizes(part * more[at]), in_few_sizes(part))
                sums.append(torch.cat([factor * gram + less, target], 1))
                continue
        weighed = own * weight
        sums.append(torch.cat([products(weighed, own), weighed @ y[row][:, None]], 1))
    return torch.stack(sums) if sums else cells.new_zeros(0, cells.shape[1], cells.shape[1] + 1)


def ridge_solution(sums: Tensor, ridge: Tensor | float) -> Tensor:
    """The weights w that minimise the weighted squared error of Xw against y, plus `ridge` v |w|^2.

    v is the mean variance of the features, so `ridge` has no unit; the constant's weight is not shrunk. Solved in
    float64.

    Args:
        sums: `[B, D + 1, D + 2]`, see `ridge_sums`.
        ridge: above 0.

    Returns:
        `[B, D + 1]` float32, the constant's weight last.

    >>> x = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    >>> sums = ridge_sums(x, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.zeros(1, 4), torch.zeros(1).long())
    >>> ridge_solution(sums, 1e-6).mul(10).round().tolist()
    [[4.0, -1.0]]
    """
    device = sums.device
    exact = sums.cpu().double() if device.type == "mps" else sums.double()  # which has no float64
    gram, target = exact[..., :-1], exact[..., -1:]
    total = gram[:, -1, -1].clamp_min(_LEAST)  # [B]
    diagonal = gram.diagonal(dim1=1, dim2=2)[:, :-1]
    variance = (diagonal / total[:, None] - (gram[:, :-1, -1] / total[:, None]).square()).clamp_min(0).mean(1) * total
    penalty = torch.as_tensor(ridge, device=exact.device).double() * variance + _LEAST
    shrunk = torch.tensor([1.0] * (exact.shape[1] - 1) + [_LEAST], dtype=torch.float32).to(exact)
    factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(penalty[:, None] * shrunk))
    return torch.cholesky_solve(target, factor).squeeze(2).float().to(device)


def counted_cells(mask: Tensor) -> Tensor:
    """Which cells teach what an object looks like: not those at the frame's edge, where all looks alike to the network.

    An object that enters there would have the edge for its mark, and whatever lies at the edge later would be taken for
    it.

    Args:
        mask: `[R, *S]` in [0, 1].

    Returns:
        `[R, *S]`, 1 for the cells that count, 0 for the two outermost; for an object that leaves less than one cell of
        itself or of the background inside, all count.

    >>> counted_cells(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])).tolist()
    [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    mask = mask.float()
    inside = mask.new_zeros(mask.shape[1:])
    inside[tuple(slice(_RIM, max(_RIM, side - _RIM)) for side in inside.shape)] = 1
    least = torch.minimum((inside * mask).flatten(1).sum(1), (inside * (1 - mask)).flatten(1).sum(1))
    return torch.where((least >= 1).view(-1, *[1] * inside.dim()), inside, torch.ones_like(inside))


def rival_scores(scores: Tensor, video: Tensor) -> Tensor:
    """For each row the best score of the other rows of its video, at least 0: what an object alone has everywhere.

    Args:
        scores: `[B, *S]`.
        video: `[B]` int64.

    Returns:
        `[B, *S]`.

    >>> rival_scores(torch.tensor([[0.2], [0.9], [0.7]]), torch.tensor([0, 0, 1])).flatten().tolist()
    [0.8999999761581421, 0.20000000298023224, 0.0]
    """
    best = torch.zeros_like(scores)
    for one in set(video.tolist()):
        rows = (video == one).nonzero().squeeze(1)
        if len(rows) < 2:
            continue
        top, where = scores[rows].topk(2, dim=0)
        number = torch.arange(len(rows), device=scores.device).view(-1, *[1] * (scores.dim() - 1))
        best = best.index_put((rows,), torch.where(where[:1] == number, top[1:], top[:1]).clamp_min(0))
    return best


def _shares(weights: Tensor) -> Tensor:
    """Weights `[R, n]` as shares of their sums."""
    return weights / weights.sum(1, keepdim=True).clamp_min(_LEAST)


def _of_rows(cells: Tensor, video: Tensor) -> Tensor:
    """`cells [V, D, n]` at `video [B]`, as `[B, D, n]`; those of a single frame are not copied."""
    return cells.expand(len(video), -1, -1) if len(cells) == 1 else cells[video]
