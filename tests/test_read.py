"""Facts about the space-time read, eq. 13."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import references
import torch
from allocations import allocations
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory import FusionCell, MemoryBank, ReadCache, SpaceTimeRead, space_time_read

ROWS, SLOTS, KEYS, VALUES, CELLS, QUERIES = 3, 4, 5, 6, 7, 8
DIFFERENTLY_FULL = torch.tensor([[True, True, True, True], [False, True, False, False], [True, False, False, True]])
# Without grad the CPU reads in blocks, with grad by the fused kernel.
GRAD = pytest.mark.parametrize("grad", [False, True], ids=["without grad", "with grad"])


class Spy(nn.Module):
    """A 1x1 head that counts the templates that it is given."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.head, self.seen = nn.Conv2d(channels, out, 1), 0

    def forward(self, templates: Tensor) -> Tensor:
        self.seen += len(templates)
        out: Tensor = self.head(templates)
        return out

    def count(self) -> int:
        """How many since the last time."""
        seen, self.seen = self.seen, 0
        return seen


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(ROWS, KEYS, QUERIES, dtype=dtype),
        torch.randn(ROWS, SLOTS, KEYS, CELLS, dtype=dtype),
        torch.randn(ROWS, SLOTS, VALUES, CELLS, dtype=dtype),
    )


def affinity_of(name: str, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The product of eq. 13, or the squared distance, position by position."""
    if name == "dot":
        return lambda q, k: scale * (q * k).sum()
    return lambda q, k: -scale * ((q - k) ** 2).sum()


def slowly(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    valid: Tensor,
    affinity: Callable[[Tensor, Tensor], Tensor],
    top_k: int | None,
) -> Tensor:
    """The loops of eq. 13 for every row, over its slots in use."""
    rows = []
    for b in range(len(keys)):
        slots = [(keys[b, k], values[b, k]) for k in range(keys.shape[1]) if valid[b, k]]
        rows.append(references.read(query[b if len(query) > 1 else 0], slots, affinity, top_k))
    return torch.stack(rows)


@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 10, SLOTS * CELLS, 1000])
@pytest.mark.parametrize("scale", [None, 1.0], ids=["scaled", "eq13"])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
@GRAD
def test_read_equals_the_loops(grad: bool, affinity: str, scale: float | None, top_k: int | None) -> None:
    """Over rows that are differently full, the read is eq. 13; L2 is the direct distance; top_k keeps the best
    cells."""
    query, keys, values = drawn()
    expected = slowly(query, keys, values, DIFFERENTLY_FULL, affinity_of(affinity, scale or 1 / math.sqrt(KEYS)), top_k)
    with torch.set_grad_enabled(grad):
        actual = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity, scale=scale, top_k=top_k)
    torch.testing.assert_close(expected, actual)


@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_one_query_serves_all_rows(affinity: str) -> None:
    """A query of one row is read by every row's memory."""
    query, keys, values = drawn()
    expected = space_time_read(query[:1].expand(ROWS, -1, -1), keys, values, DIFFERENTLY_FULL, affinity=affinity)
    torch.testing.assert_close(expected, space_time_read(query[:1], keys, values, DIFFERENTLY_FULL, affinity=affinity))


@pytest.mark.parametrize("top_k", [None, 4])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
@GRAD
def test_slots_that_hold_nothing_are_not_read(grad: bool, affinity: str, top_k: int | None) -> None:
    """Whatever lies in an empty slot, what is recalled stays the same to the bit."""
    query, keys, values = drawn()
    with torch.set_grad_enabled(grad):
        expected = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity, top_k=top_k)
        keys[~DIFFERENTLY_FULL], values[~DIFFERENTLY_FULL] = 1e6, 1e6
        actual = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity, top_k=top_k)
    assert torch.equal(expected, actual)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
@pytest.mark.parametrize("factor", [1.0, 10.0, 1e2, 1e3, 1e4])
@GRAD
def test_extreme_scores_give_no_nan(grad: bool, factor: float, affinity: str, top_k: int | None) -> None:
    """Keys of any length, so scores from 1 to beyond 1e8 of either sign, recall a mean of values, with finite
    gradients."""
    query, keys, values = drawn(torch.float32)
    query, keys = (query * factor).requires_grad_(grad), keys * factor
    with torch.set_grad_enabled(grad):
        recalled = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity, top_k=top_k)
    if grad:
        recalled.sum().backward()
        assert query.grad is not None and bool(query.grad.isfinite().all())
    recalled = recalled.detach()
    assert bool(recalled.isfinite().all()) and float(recalled.abs().max()) <= float(values.abs().max()) * 1.001


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("score", [-1e4, -1.0, 1.0, 1e4])
@GRAD
def test_equal_scores_of_any_size_give_the_mean(grad: bool, score: float, top_k: int | None) -> None:
    """Where all scores are alike, even very negative, all values weigh alike."""
    query, keys, values = drawn(torch.float32)
    query, keys = torch.full_like(query, score), torch.full_like(keys, 1 / KEYS)
    values = torch.ones_like(values) * 3
    with torch.set_grad_enabled(grad):
        recalled = space_time_read(query, keys, values, DIFFERENTLY_FULL, scale=1.0, top_k=top_k)
    torch.testing.assert_close(torch.full_like(recalled, 3.0), recalled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
@GRAD
def test_half_precision_is_read_in_float32(grad: bool, affinity: str, dtype: torch.dtype) -> None:
    """Half precision in, the float32 result rounded to half precision out, inside autocast too.

    In bfloat16 without grad the weights are rounded as well: beside that, an error of the same share of what the
    values' sizes come to.
    """
    query, keys, values = (t.to(dtype) for t in drawn(torch.float32))
    exact = query.float(), keys.float()
    expected, sizes = (
        space_time_read(*exact, v.float(), DIFFERENTLY_FULL, affinity=affinity) for v in (values, values.abs())
    )
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        actual = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity)
    assert dtype == actual.dtype
    eps = torch.finfo(dtype).eps
    weights = 0 if grad or dtype == torch.float16 else eps / 2 * sizes
    assert bool(((expected - actual.float()).abs() <= eps * expected.abs() + weights).all())


@GRAD
@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_no_matrix_of_all_pairs_is_held(affinity: str, grad: bool) -> None:
    """With grad and without, nothing is allocated that is as large as the K n by m scores of one row."""
    slots, cells = 4, 1600
    query, keys, values = torch.randn(1, 16, cells), torch.randn(1, slots, 16, cells), torch.randn(1, slots, 16, cells)
    valid = torch.ones(1, slots).bool()
    scores = 4 * slots * cells * cells
    with torch.set_grad_enabled(grad):
        largest = max(allocations(lambda: space_time_read(query, keys, values, valid, affinity=affinity)))
    assert 0 < largest < scores / 4
    everything = max(allocations(lambda: space_time_read(query, keys, values, valid, affinity=affinity, top_k=3)))
    assert scores == everything  # the measure sees such a matrix where there is one


@pytest.mark.parametrize("scores", [1, 60, 10**6], ids=["one query cell at a time", "two", "all"])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_blocks_equal_the_fused_kernel(affinity: str, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without grad the CPU reads in blocks of query cells; whatever their size, that is what the fused kernel gives."""
    monkeypatch.setattr(sys.modules["stmemory.memory.attention"], "_SCORES", scores)
    query, keys, values = drawn(torch.float32)
    expected = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity)
    with torch.no_grad():
        actual = space_time_read(query, keys, values, DIFFERENTLY_FULL, affinity=affinity)
    torch.testing.assert_close(expected, actual)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_rows_that_hold_nothing_are_read_alike(rows: int) -> None:
    """No rows, and rows without a slot in use, come out of the blocks as they come out of the fused kernel."""
    query, keys, values = drawn(torch.float32)
    valid = torch.zeros(rows, SLOTS, dtype=torch.bool)
    expected = space_time_read(query[:1], keys[:rows], values[:rows], valid)
    with torch.no_grad():
        torch.testing.assert_close(expected, space_time_read(query[:1], keys[:rows], values[:rows], valid))


@pytest.mark.parametrize("top_k", [None, 3])
@GRAD
def test_no_query_cells_recall_nothing(grad: bool, top_k: int | None) -> None:
    """Without a query cell what is recalled has none either."""
    query, keys, values = drawn(torch.float32)
    with torch.set_grad_enabled(grad):
        recalled = space_time_read(query[..., :0], keys, values, DIFFERENTLY_FULL, top_k=top_k)
    assert (ROWS, VALUES, 0) == recalled.shape


@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_weights_that_are_next_to_nothing_are_no_denormals(affinity: str) -> None:
    """Without grad too, scores that lie hundreds apart recall the best cell alone, to the last bits."""
    query, keys, values = drawn(torch.float32)
    expected = space_time_read(query * 50, keys * 50, values, DIFFERENTLY_FULL, affinity=affinity)
    with torch.inference_mode():
        actual = space_time_read(query * 50, keys * 50, values, DIFFERENTLY_FULL, affinity=affinity)
    torch.testing.assert_close(expected, actual)


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_gradients_are_those_of_eq_13(affinity: str, top_k: int | None) -> None:
    """The analytic gradients to query, keys and values equal the numeric ones."""
    inputs = (torch.randn(1, 2, 3), torch.randn(2, 2, 2, 3), torch.randn(2, 2, 2, 3))
    valid = torch.tensor([[True, True], [False, True]])
    assert torch.autograd.gradcheck(
        lambda q, k, v: space_time_read(q, k, v, valid, affinity=affinity, top_k=top_k),
        [t.double().requires_grad_() for t in inputs],
    )


def bank_and_read(*, shared: bool, size: tuple[int, int] = (2, 3)) -> tuple[MemoryBank, SpaceTimeRead, Spy, Spy]:
    """A bank of two rows with three slots, its reader, and the spying key and value heads."""
    key, value = Spy(4, 3), Spy(4, 5)
    bank = MemoryBank(3, key=key if shared else None, policy="C" if shared else "A")
    bank.write(torch.randn(2, 4, *size), pinned=True)
    return bank, SpaceTimeRead(key, value), key, value


@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_module_reads_a_bank_as_eq_13(affinity: str) -> None:
    """The heads make keys and values of the slots in use, and the result has the query's own layout."""
    bank, read, key, value = bank_and_read(shared=False)
    read.affinity = affinity
    bank.write(torch.randn(1, 4, 2, 3), rows=[1])
    query = torch.randn(2, 3, 4, 2)
    recalled = read(query, bank)
    keys, values = (head.head(bank.templates.flatten(0, 1)).view(2, 3, -1, 6) for head in (key, value))
    expected = slowly(query.flatten(2), keys, values, bank.valid, affinity_of(affinity, 1 / math.sqrt(3)), None)
    torch.testing.assert_close(expected.view(2, 5, 4, 2), recalled)


@pytest.mark.parametrize(
    ("head", "size"),
    [(nn.Conv1d, (6,)), (nn.Conv2d, (2, 3)), (nn.Conv3d, (2, 1, 3))],
    ids=["tokens", "maps", "volumes"],
)
def test_module_reads_templates_of_any_dims(head: type[nn.Conv1d], size: tuple[int, ...]) -> None:
    """Tokens, maps and volumes are written, fused and read by eq. 13, with the cache and without."""
    read = SpaceTimeRead(head(4, 3, 1), head(4, 5, 1))
    bank, cache = MemoryBank(3, fusion=FusionCell(4, spatial_dims=len(size)), key=read.key), ReadCache()
    with torch.no_grad():
        for _ in range(5):
            bank.write(torch.randn(2, 4, *size))
            read(torch.randn(1, 3, *size), bank, cache)
        query = torch.randn(2, 3, *size)
        recalled = read(query, bank, cache)
        values = torch.stack([read.value(bank.templates[:, k]) for k in range(3)], 1).flatten(3)
        expected = slowly(
            query.flatten(2), bank.keys.flatten(3), values, bank.valid, affinity_of("dot", 1 / math.sqrt(3)), None
        )
    torch.testing.assert_close(expected.view(2, 5, *size), recalled)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "inference"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_cache_computes_only_what_changed(shared: bool, grad: bool) -> None:
    """The value head sees a template once: when it is new or was changed; the key head likewise, or not at all if
    shared."""
    with torch.inference_mode(not grad):
        bank, read, key, value = bank_and_read(shared=shared)
        cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
        seen = []
        for _ in range(6):
            value.count(), key.count()
            recalled = read(query, bank, cache)
            seen.append((value.count(), key.count()))
            torch.testing.assert_close(read(query, bank), recalled)
            assert torch.equal(recalled, read(query, bank, cache))
            bank.write(torch.randn(2, 4, 2, 3))
    # Two rows: one new template each while there is room, then also the one that was distilled into.
    expected = [2, 2, 2, 4, 4, 4]
    assert [(n, 0 if shared else n) for n in expected] == seen


def test_cache_follows_rows_that_change_hands() -> None:
    """After a row was removed and another added, or a state loaded, nothing of the old rows is read from the cache."""
    bank, read, _, _ = bank_and_read(shared=False)
    cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
    saved = bank.fork()
    bank.write(torch.randn(2, 4, 2, 3))
    read(query, bank, cache)
    bank.remove_rows([0])
    bank.add_rows(1)
    bank.write(torch.randn(1, 4, 2, 3), rows=[1])
    torch.testing.assert_close(read(query, bank), read(query, bank, cache))
    saved.write(torch.randn(2, 4, 2, 3))
    bank.load_contents(saved.contents())
    torch.testing.assert_close(read(query, bank), read(query, bank, cache))
    torch.testing.assert_close(read(query, saved), read(query, saved, cache))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_a_saved_cache_goes_on_without_computing(shared: bool) -> None:
    """Loaded beside a loaded bank, a cache gives the same bits, asks no head for what it knows, and is a copy."""
    bank, read, key, value = bank_and_read(shared=shared)
    cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
    with torch.inference_mode():
        bank.write(torch.randn(2, 4, 2, 3))
        expected = read(query, bank, cache)
        twin, copy = MemoryBank(3, policy=bank.policy, key=bank.key), ReadCache()
        twin.load_contents(bank.contents())
        copy.load_state_dict(cache.state_dict(bank), twin)
        value.count(), key.count()
        assert torch.equal(expected, read(query, twin, copy))
        assert (0, 0) == (value.count(), key.count())
        for _ in range(3):
            twin.write(torch.randn(2, 4, 2, 3))
        torch.testing.assert_close(read(query, twin), read(query, twin, copy))
        assert torch.equal(expected, read(query, bank, cache))


def test_a_cache_of_rows_that_went_saves_nothing() -> None:
    """After rows changed hands a cache is out of date, so its state is empty, and loading that begins anew."""
    bank, read, _, _ = bank_and_read(shared=False)
    cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
    assert {} == cache.state_dict(bank)
    read(query, bank, cache)
    assert {"keys", "values", "seen"} == set(cache.state_dict(bank))
    bank.remove_rows([0])
    assert {} == cache.state_dict(bank)
    cache.load_state_dict({}, bank)
    torch.testing.assert_close(read(query, bank), read(query, bank, cache))


def test_cache_has_a_constant_size() -> None:
    """Reading after 20 writes takes the bytes of values, own keys and versions, and no more."""
    bank, read, _, _ = bank_and_read(shared=False)
    cache = ReadCache()
    assert 0 == cache.nbytes
    with torch.inference_mode():
        for _ in range(20):
            bank.write(torch.randn(2, 4, 2, 3))
            read(torch.randn(1, 3, 2, 3), bank, cache)
            assert 2 * 3 * (4 * (5 + 3) * 6 + 8) == cache.nbytes


def test_cache_keeps_the_graph_until_detached() -> None:
    """A cached value carries the gradient to the head that made it, until `detach` cuts it."""
    bank, read, _, value = bank_and_read(shared=False)
    cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
    read(query, bank, cache)
    read(query, bank, cache).sum().backward()
    assert value.head.weight.grad is not None and bool(value.head.weight.grad.any())
    cache.detach()
    assert not read(query, bank, cache).requires_grad


def test_a_read_without_grad_leaves_the_graph_whole() -> None:
    """A validation read in the middle of training neither breaks the backward pass nor changes its gradient."""
    gradients = []
    for interrupted in (False, True):
        torch.manual_seed(1)
        bank, read, _, value = bank_and_read(shared=False)
        cache, query = ReadCache(), torch.randn(1, 3, 2, 3)
        loss = read(query, bank, cache).square().sum()
        extra = torch.randn(2, 4, 2, 3)
        if interrupted:
            with torch.no_grad():
                bank.write(extra)
                read(query, bank, cache)
        loss.backward()
        gradients.append(value.head.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_bank_that_holds_nothing_cannot_be_read() -> None:
    """Before the first write, and after the last drop, the error says to write first."""
    _, read, _, _ = bank_and_read(shared=False)
    with pytest.raises(BankError, match=r"call write\(\) first"):
        read(torch.randn(1, 3, 2, 3), MemoryBank(3))
    bank = MemoryBank(3)
    bank.write(torch.randn(1, 4, 2, 3))
    bank.drop(0)
    with pytest.raises(BankError, match=r"write\(\) first"):
        read(torch.randn(1, 3, 2, 3), bank)


@pytest.mark.parametrize("row", [-1, 2], ids=["below", "beyond"])
def test_a_row_that_is_not_there_cannot_be_read(row: int) -> None:
    """The error says which rows there are."""
    _, read, _, _ = bank_and_read(shared=False)
    bank = MemoryBank(3)
    bank.write(torch.randn(2, 4, 2, 3))
    with pytest.raises(BankError, match=r"expected a row in 0\.\.1"):
        read(torch.randn(1, 3, 2, 3), bank, row=row)


@pytest.mark.parametrize("top_k", [None, 2])
def test_a_row_that_holds_nothing_recalls_something_finite(top_k: int | None) -> None:
    """A row that was added and not yet written to gives no NaN, and does not disturb the others."""
    bank, read, _, _ = bank_and_read(shared=False)
    read.top_k, query = top_k, torch.randn(1, 3, 2, 3)
    expected = read(query, bank)
    bank.add_rows(1)
    recalled = read(query, bank)
    torch.testing.assert_close(expected, recalled[:2])
    assert bool(recalled.isfinite().all())


@pytest.mark.parametrize("options", [{"affinity": "cosine"}, {"top_k": 0}, {"top_k": -1}], ids=str)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    """Affinities are named; top_k is at least 1."""
    with pytest.raises(OptionError, match=r"affinity in \('dot', 'l2'\) and top_k >= 1 or None"):
        SpaceTimeRead(nn.Identity(), nn.Identity(), **options)


@pytest.mark.parametrize(
    "change",
    [
        {"query": (2, 5, 8)},
        {"query": (3, 4, 8)},
        {"values": (3, 4, 6, 6)},
        {"values": (3, 3, 6, 7)},
        {"keys": (3, 4, 35)},
        {"valid": (3, 3)},
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, tuple[int, ...]]) -> None:
    """The error lists all four shapes."""
    shapes = {"query": (3, 5, 8), "keys": (3, 4, 5, 7), "values": (3, 4, 6, 7), "valid": (3, 4)} | change
    query, keys, values, valid = (torch.ones(shape) for shape in shapes.values())
    with pytest.raises(ShapeError, match=r"expected query \[B or 1, Ck, m\], keys \[B, K, Ck, n\]"):
        space_time_read(query, keys, values, valid.bool())
