"""Facts about the discriminative read: a ridge regression of each object's masks, over sums that do not grow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.discriminative import (
    DiscriminativeMemory,
    DiscriminativeRead,
    ridge_solution,
    ridge_sums,
    rival_scores,
)

CHANNELS, SIDE = 5, 6


def _drawn(frames: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of T frames `[T, D, 6, 6]`, masks `[T, R, 6, 6]` that do not overlap, and of each row what the others
    claim."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, CHANNELS, SIDE, SIDE, generator=generator)
    shares = torch.rand(frames, rows + 1, SIDE, SIDE, generator=generator).pow(4)
    masks = shares[:, 1:] / shares.sum(1, keepdim=True)
    return features, masks, masks.sum(1, keepdim=True) - masks


def _weights(mask: NDArray[np.float64], others: NDArray[np.float64], rivals: float) -> NDArray[np.float64]:
    """The weight of each cell, from the docstring of `ridge_sums`: one half for the object, one half for the rest.

    Of 6 x 6 cells only the 2 x 2 in the middle count, unless less than a cell of object or background lies there.
    """
    found = np.zeros(len(mask))
    counted = [i for i in range(len(mask)) if {i // SIDE, i % SIDE} <= {2, 3}]
    if not 1 <= sum(mask[counted]) <= len(counted) - 1:
        counted = list(range(len(mask)))
    rest = {i: (1 - mask[i]) * (1 + rivals * others[i]) for i in counted}
    for i in counted:
        found[i] = 0.5 * mask[i] / sum(mask[counted]) + 0.5 * rest[i] / sum(rest.values())
    return found


def _slow(
    frames: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]],
    ridge: float,
    rivals: float,
) -> NDArray[np.float64]:
    """The minimiser of the sum over frames and cells of share * weight * (x.w + w0 - y)^2 + ridge v |w|^2, by least
    squares.

    Each frame is cells `[n, D]`, mask `[n]`, others `[n]` and its share; v is the mean over features of their weighted
    variance.
    """
    rows, targets, weighs = [], [], []
    for cells, mask, others, share in frames:
        rows.append(np.concatenate([cells, np.ones((len(cells), 1))], 1))
        targets.append(mask)
        weighs.append(share * _weights(mask, others, rivals))
    x, y, c = np.concatenate(rows), np.concatenate(targets), np.concatenate(weighs)
    mean = (c[:, None] * x[:, :-1]).sum(0) / c.sum()
    variance = ((c[:, None] * (x[:, :-1] - mean) ** 2).sum(0)).mean()
    penalty = np.sqrt(ridge * variance + 1e-6) * np.eye(x.shape[1])[:-1]
    root = np.sqrt(c)[:, None]
    solution = np.linalg.lstsq(
        np.concatenate([x * root, penalty]), np.concatenate([y * root[:, 0], np.zeros(len(penalty))]), rcond=None
    )
    return np.asarray(solution[0])


def _flat(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().flatten(-2).numpy()


@pytest.mark.parametrize("rivals", [1.0, 4.0])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_classifiers_are_the_least_squares_solution(ridge: float, rivals: float) -> None:
    """Over given and found frames with the shares that the memory says, the classifier is the minimiser written out."""
    rate, given_share = 0.2, 0.6
    read = DiscriminativeRead(ridge=ridge, given_share=given_share, rate=rate, rivals=rivals)
    memory, video = DiscriminativeMemory(), torch.zeros(2, dtype=torch.int64)
    features, masks, others = _drawn(5, 2)
    for frame in range(5):
        read.memorise(
            memory, features[frame : frame + 1], masks[frame], others[frame], video, frame=frame, given=frame in (0, 3)
        )
    shares = {0: given_share / 2, 3: given_share / 2}  # two given frames count alike
    shares |= {
        1: (1 - given_share) * (1 - rate) ** 2,
        2: (1 - given_share) * rate * (1 - rate),
        4: (1 - given_share) * rate,
    }
    actual = read.classifiers(memory)
    for row in range(2):
        each = [(_flat(features[t]).T, _flat(masks[t, row]), _flat(others[t, row]), shares[t]) for t in sorted(shares)]
        torch.testing.assert_close(
            torch.from_numpy(_slow(each, ridge, rivals)).float(), actual[row], atol=2e-5, rtol=1e-4
        )
        expected = torch.einsum("d,dhw->hw", actual[row, :-1], features[2]) + actual[row, -1]
        torch.testing.assert_close(expected, read(features[2:3], memory, video)[row])


def test_what_lies_at_the_edge_teaches_nothing() -> None:
    """Features of the two outermost cells change no sum; those further inside do. An object that lies there alone has
    all cells."""
    read, video = DiscriminativeRead(), torch.zeros(1, dtype=torch.int64)
    features, middle, corner = torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    middle[0, 3:5, 3:5], corner[0, 0, :] = 1, 1
    for place, mask, same in (((1, 4), middle, True), ((2, 4), middle, False), ((1, 4), corner, False)):
        changed = features.clone()
        changed[0, :, place[0], place[1]] += 1
        sums = []
        for picture in (features, changed):
            memory = DiscriminativeMemory()
            read.memorise(memory, picture, mask, torch.zeros_like(mask), video, given=True)
            sums.append(memory.state_dict()["given"])
        assert same == torch.equal(*sums), (place, same)


def test_sums_of_frames_are_additive() -> None:
    """The sums of two frames, averaged, are those of both frames as one; that is why their size does not depend on the
    video."""
    features, masks, others = _drawn(2, 1)
    one = torch.zeros(1, dtype=torch.int64)
    masks[1], others[1] = masks[0], others[0]  # so that the halves weigh the same
    apart = [ridge_sums(features[t : t + 1], masks[t], others[t], one) for t in range(2)]
    sheets = (torch.cat([tensor[0], tensor[1]], -1) for tensor in (masks, others))
    together = ridge_sums(torch.cat([features[:1], features[1:]], -1), *sheets, one)
    torch.testing.assert_close(torch.stack(apart).mean(0), together)


def test_rows_take_the_features_of_their_own_frame() -> None:
    """Objects of several videos at once have the sums and scores that each has alone."""
    features, masks, others = _drawn(3, 2)
    video = torch.tensor([2, 0, 1, 2])
    mask, rest = masks[video, torch.tensor([0, 1, 0, 1])], others[video, torch.tensor([0, 1, 0, 1])]
    together = ridge_sums(features, mask, rest, video)
    memory, read = DiscriminativeMemory(), DiscriminativeRead()
    memory.write(together, given=True)
    for row in range(4):
        own = features[video[row] : video[row] + 1]
        alone = ridge_sums(own, mask[row : row + 1], rest[row : row + 1], torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(together[row : row + 1], alone)
        single = DiscriminativeMemory()
        single.write(alone, given=True)
        torch.testing.assert_close(
            read(features, memory, video)[row : row + 1], read(own, single, torch.zeros(1, dtype=torch.int64))
        )


@pytest.mark.parametrize("kind", ["given", "found"])
def test_a_frame_that_is_written_again_counts_once(kind: str) -> None:
    """Whether its masks were given or found before, a frame whose masks are given now leaves what it would have left
    alone."""
    sums = torch.rand(3, 2, CHANNELS + 1, CHANNELS + 2)
    once, again = DiscriminativeMemory(), DiscriminativeMemory()
    for memory in (once, again):
        memory.write(sums[0], frame=0, given=True)
    again.write(sums[1], frame=4, given=kind == "given")
    for memory in (once, again):
        memory.write(sums[2], frame=4, given=True)
    torch.testing.assert_close(once.sums(0.5), again.sums(0.5))


def test_the_last_frame_can_be_forgotten() -> None:
    """A row forgets its last frame, found or given; other rows, earlier frames and an empty memory stay as they are."""
    sums = torch.rand(3, 2, CHANNELS + 1, CHANNELS + 2)
    for given in (True, False):
        memory, expected = DiscriminativeMemory(), DiscriminativeMemory()
        for each in (memory, expected):
            each.write(sums[0], frame=0, given=True)
            each.write(sums[1], frame=1)
        memory.write(sums[2], frame=2, given=given)
        expected.write(sums[2, 1:], rows=[1], frame=2, given=given)
        memory.forget(1, rows=[0, 1] if given else [])
        expected.forget(1, rows=[0, 1] if given else [])
        memory.forget(2, rows=[0])
        assert torch.equal(expected.sums(0.5), memory.sums(0.5))
    DiscriminativeMemory().forget(0, rows=[0])


def test_what_a_row_has_of_one_kind_alone_counts_whole() -> None:
    """A row without found frames has its given ones, whatever their share, and the other way round."""
    sums = torch.rand(2, CHANNELS + 1, CHANNELS + 2)
    memory = DiscriminativeMemory()
    memory.write(sums, given=True)
    torch.testing.assert_close(sums, memory.sums(0.3))
    memory = DiscriminativeMemory()
    memory.write(sums)
    torch.testing.assert_close(sums, memory.sums(0.3))


def test_bytes_are_constant() -> None:
    """From the first write on, a thousand frames more take no byte."""
    memory, sums = DiscriminativeMemory(), torch.rand(2, CHANNELS + 1, CHANNELS + 2)
    memory.write(sums, given=True)
    before = memory.nbytes
    for frame in range(1, 1000):
        memory.write(sums, frame=frame, given=frame % 100 == 0)
    assert before == memory.nbytes == 4 * sums.numel() * 4 + 4 * 2 * 8


def test_rows_come_and_go() -> None:
    """A row that is added is empty and learns by itself; one that is removed takes its bytes along, and the others
    stay."""
    memory, sums = DiscriminativeMemory(), torch.rand(3, CHANNELS + 1, CHANNELS + 2)
    memory.write(sums[:2], given=True)
    memory.add_rows(1)
    assert 3 == memory.rows
    memory.write(sums[2:], rows=[2], frame=7, given=True)
    memory.remove_rows([0])
    torch.testing.assert_close(sums[1:], memory.sums(0.5))
    with pytest.raises(BankError, match="row"):
        memory.remove_rows([2])


def test_a_state_goes_and_comes_back() -> None:
    """`load_state_dict` takes what `state_dict` gave, as a copy; `fork` is both in one."""
    memory, sums = DiscriminativeMemory(), torch.rand(2, CHANNELS + 1, CHANNELS + 2)
    memory.write(sums, given=True)
    memory.write(sums + 1, frame=1)
    twin, other = memory.fork(), DiscriminativeMemory()
    other.load_state_dict(memory.state_dict())
    memory.write(sums * 3, frame=2)
    assert torch.equal(twin.sums(0.5), other.sums(0.5)) and not torch.equal(twin.sums(0.5), memory.sums(0.5))
    for one in (twin, other):
        one.write(sums * 3, frame=2)
        assert torch.equal(one.sums(0.5), memory.sums(0.5))


def test_states_that_do_not_fit_are_refused() -> None:
    """Names and numbers of rows are checked; an empty state is that of a memory before its first write."""
    memory = DiscriminativeMemory()
    memory.write(torch.rand(2, 3, 4))
    state = memory.state_dict()
    with pytest.raises(BankError, match="missing"):
        DiscriminativeMemory().load_state_dict({"given": state["given"]})
    with pytest.raises(BankError, match="rows"):
        DiscriminativeMemory().load_state_dict(state | {"given_count": torch.zeros(3, dtype=torch.int64)})
    memory.load_state_dict({})
    assert 0 == memory.rows


@pytest.mark.parametrize(
    "call",
    [
        lambda: ridge_sums(torch.rand(1, 4, 9), torch.rand(2, 8), torch.rand(2, 8), torch.zeros(2).long()),
        lambda: ridge_sums(torch.rand(1, 4, 9), torch.rand(2, 9), torch.rand(2, 9), torch.zeros(3).long()),
        lambda: DiscriminativeMemory().write(torch.rand(2, 4, 4)),
        lambda: _written().write(torch.rand(1, 4, 5), rows=[2]),
        lambda: _written().write(torch.rand(2, 4, 5), rows=[1, 1]),
        lambda: _written().write(torch.rand(2, 5, 6)),
    ],
    ids=["cells", "video", "square", "row", "twice", "channels"],
)
def test_shapes_that_do_not_fit_are_refused(call: object) -> None:
    """The error says what was expected."""
    assert callable(call)
    with pytest.raises(ShapeError, match="expected"):
        call()


def _written() -> DiscriminativeMemory:
    memory = DiscriminativeMemory()
    memory.write(torch.rand(2, 4, 5))
    return memory


@pytest.mark.parametrize("option", ["ridge", "given_share", "rate", "rivals"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    """Each has a range."""
    with pytest.raises(OptionError, match="DiscriminativeRead"):
        DiscriminativeRead(**{option: value})


def test_an_empty_memory_is_named() -> None:
    """A read before the first write is an error of the library's own."""
    with pytest.raises(BankError, match="write"):
        DiscriminativeRead()(torch.rand(1, 4, 3, 3), DiscriminativeMemory(), torch.zeros(1, dtype=torch.int64))


def test_classifiers_are_kept_until_something_changes() -> None:
    """A second read solves nothing; a write, other weights and grad do, and gradients reach the features."""
    memory, read = DiscriminativeMemory(), DiscriminativeRead().requires_grad_(False)
    features, (mask,), (others,) = _drawn(1, 2)
    features.requires_grad_()
    video = torch.zeros(2, dtype=torch.int64)

    def solved() -> Tensor:
        fresh = DiscriminativeMemory()
        fresh.load_state_dict(memory.state_dict())
        return read.classifiers(fresh)

    read.memorise(memory, features, mask, others, video, given=True)
    with torch.no_grad():
        first = read.classifiers(memory)
        assert read.classifiers(memory) is first
    assert read.classifiers(memory).requires_grad
    with torch.no_grad():
        read.load_state_dict(DiscriminativeRead(ridge=10.0).state_dict())
        assert torch.equal(read.classifiers(memory), solved())
        assert not torch.equal(read.classifiers(memory), first)
        read.memorise(memory, features, mask.flip(0), others, video, frame=1)
        assert torch.equal(read.classifiers(memory), solved())


def test_rivals_are_the_best_of_the_others() -> None:
    """For each row the largest score of the other rows of its video, at least 0; ties and lonely rows included."""
    scores, video = torch.randn(7, 4, 5), torch.tensor([0, 1, 0, 0, 2, 1, 0])
    scores[3] = scores[2]
    expected = torch.zeros_like(scores)
    for row in range(7):
        for other in range(7):
            if other != row and video[other] == video[row]:
                expected[row] = torch.maximum(expected[row], scores[other])
    assert torch.equal(expected, rival_scores(scores, video))


def test_gradients_are_those_of_finite_differences() -> None:
    """The closed form is differentiable: features, masks and all four numbers learn."""
    features, masks, others = _drawn(1, 2)
    video = torch.zeros(2, dtype=torch.int64)

    def loss(scale: Tensor) -> Tensor:
        sums = ridge_sums(features * scale[0], masks[0] * scale[1], others[0], video, rivals=scale[2])
        return ridge_solution(sums, scale[3]).square().sum()

    at = torch.tensor([1.0, 0.9, 1.5, 0.1], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at), at)
    step = 1e-2
    for number in range(4):
        shift = torch.zeros(4)
        shift[number] = step
        expected = (loss(at.detach() + shift) - loss(at.detach() - shift)) / (2 * step)
        torch.testing.assert_close(expected, gradient[number], atol=2e-2, rtol=2e-2)


def test_few_cells_and_flat_features_stay_finite() -> None:
    """Fewer cells than features, features without any variance, a mask that is empty or full: scores and gradients are
    finite."""
    read = DiscriminativeRead()
    for features, mask in (
        (torch.randn(1, 64, 2, 2), torch.rand(1, 2, 2)),
        (torch.zeros(1, 8, 4, 4), torch.rand(1, 4, 4)),
        (torch.randn(1, 8, 4, 4), torch.zeros(1, 4, 4)),
        (torch.randn(1, 8, 4, 4), torch.ones(1, 4, 4)),
    ):
        features.requires_grad_()
        memory, one = DiscriminativeMemory(), torch.zeros(1, dtype=torch.int64)
        read.memorise(memory, features, mask, torch.zeros_like(mask), one, given=True)
        scores = read(features, memory, one)
        scores.square().sum().backward()
        assert features.grad is not None
        assert bool(scores.isfinite().all()) and bool(features.grad.isfinite().all())
