"""Facts about extents: templates that are a part of what a bank has room for, and the equations on that part."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import references
import torch
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory import (
    FusionCell,
    MemoryBank,
    SpaceTimeRead,
    load_bank,
    memory_tokens,
    policy_names,
    save_bank,
    similarities,
    space_time_read,
)
from stmemory.memory.attention import products
from stmemory.memory.extents import inside
from stmemory.memory.undo import Undo

RULES = [name for name in policy_names() if name != "learned"]
SHAPE = (3, 4)
EXTENTS = [[[0, 3], [0, 4]], [[0, 2], [1, 3]], [[2, 3], [3, 4]], [[1, 3], [0, 3]], [[0, 1], [0, 4]]]


def cell_of(channels: int) -> FusionCell:
    """A cell in float64 whose gates are far from shut."""
    cell = FusionCell(channels).double()
    for weight in cell.parameters():
        nn.init.normal_(weight, std=0.5)
    return cell.requires_grad_(False)


def part(template: Tensor, extent: list[list[int]]) -> Tensor:
    """What of `[C, 3, 4]` an extent has."""
    (top, bottom), (left, right) = extent
    return template[:, top:bottom, left:right]


def extents_of(steps: int, rows: int, seed: int = 0) -> list[list[list[list[int]]]]:
    """For each step and row one of `EXTENTS`."""
    numbers = torch.randint(len(EXTENTS), (steps, rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[EXTENTS[number] for number in step] for step in numbers]


@pytest.mark.parametrize("name", RULES)
def test_a_bank_with_extents_equals_the_paper(name: str) -> None:
    """After each of 14 writes every slot holds what the paper's equations make of templates of those very sizes, and
    nothing beside."""
    cell = cell_of(2)

    def fuse(source: Tensor, target: Tensor, sources: int, targets: int) -> Tensor:
        return references.fusion(cell, source, target)

    bank, slow = MemoryBank(4, policy=name, fusion=cell), [references.PaperMemory(4, name, fuse) for _ in range(2)]
    templates, extents = torch.randn(14, 2, 2, *SHAPE, dtype=torch.float64), extents_of(14, 2)
    for step in range(14):
        bank.write(templates[step], frame=step, pinned=step == 0, extent=torch.tensor(extents[step]))
        for row in range(2):
            slow[row].write(part(templates[step, row], extents[step][row]))
            held = bank.describe(row)
            assert len(held) == len(slow[row].templates)
            for slot, expected in zip(held, slow[row].templates, strict=True):
                found = bank.templates[row, slot.slot]
                extent = bank.extent[row, slot.slot]
                torch.testing.assert_close(part(found, extent.tolist()), expected)
                assert not found[:, ~inside(extent, SHAPE)].any()
                assert torch.equal(bank.cells[row, slot.slot], inside(extent, SHAPE))


@pytest.mark.parametrize("grad", [False, True], ids=["blocks", "kernel"])
@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_a_read_sees_the_extents_alone(affinity: str, top_k: int | None, grad: bool) -> None:
    """Eq. 13 over the positions of each template, whatever lies beside; of one row as of all."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 2, 5, generator=generator).double()
    read = SpaceTimeRead(nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1), affinity=affinity, top_k=top_k).double()
    read.requires_grad_(False)
    bank, extents = MemoryBank(3, fusion=cell_of(3), key=read.key), extents_of(3, 2, seed=1)
    for step in range(3):
        template = torch.randn(2, 3, *SHAPE, generator=generator).double()
        bank.write(template, frame=step, extent=torch.tensor(extents[step]))
    with torch.set_grad_enabled(grad):
        found = read(query[..., None], bank)[..., 0]
    for row in range(2):
        slots = []
        for slot in bank.describe(row):
            template = part(bank.templates[row, slot.slot], bank.extent[row, slot.slot].tolist())[None]
            slots.append((read.key(template)[0].flatten(1), read.value(template)[0].flatten(1)))

        def score(one: Tensor, other: Tensor) -> Tensor:
            return (one @ other if affinity == "dot" else -(one - other).square().sum()) / math.sqrt(2)

        torch.testing.assert_close(found[row], references.read(query[0], slots, score, top_k))
        with torch.set_grad_enabled(grad):
            alone = read(query[..., None], bank, row=row)[..., 0]
        torch.testing.assert_close(alone[0], found[row])


def test_similarity_is_of_the_extents() -> None:
    """Eq. 1 both ways between templates of different sizes, and as a bank keeps it."""
    one, many = torch.randn(1, 3, *SHAPE), torch.randn(1, 4, 3, *SHAPE)
    cells = inside(torch.tensor(EXTENTS[1])[None], SHAPE), inside(torch.tensor(EXTENTS[1:])[None], SHAPE)
    forth, back = similarities(one, many, cells=cells)
    bank = MemoryBank(5, fusion=cell_of(3).float())
    bank.write(one, extent=torch.tensor([EXTENTS[1]]))
    for k, extent in enumerate(EXTENTS[1:]):
        ours, theirs = part(one[0], EXTENTS[1]), part(many[0, k], extent)
        assert float(forth[0, k]) == pytest.approx(references.similarity(ours, theirs), abs=1e-5)
        assert float(back[0, k]) == pytest.approx(references.similarity(theirs, ours), abs=1e-5)
        bank.write(many[:, k], extent=torch.tensor([extent]))
    torch.testing.assert_close(bank.similarity()[0, 0, 1:], forth[0])
    torch.testing.assert_close(bank.similarity()[0, 1:, 0], back[0])
    torch.testing.assert_close(bank.similarity()[0].diagonal(), torch.ones(5))


def test_whole_extents_change_nothing() -> None:
    """Extents that are all of it give the bits that no extents give."""
    plain, with_extents = (MemoryBank(3, fusion=copy.deepcopy(cell)) for cell in [cell_of(2).float()] * 2)
    for frame in range(6):
        template = torch.randn(1, 2, *SHAPE)
        plain.write(template, frame=frame, pinned=frame == 0)
        with_extents.write(template, frame=frame, pinned=frame == 0, extent=torch.tensor([EXTENTS[0]]))
    assert plain.contents().keys() == with_extents.contents().keys()
    for name, tensor in plain.contents().items():
        assert torch.equal(tensor, with_extents.contents()[name]), name


@pytest.mark.parametrize(
    "extent",
    [
        [[[0, 3], [0, 5]]],
        [[[-1, 3], [0, 4]]],
        [[[2, 2], [0, 4]]],
        [[[3, 1], [0, 4]]],
        [[[0, 3]]],
        [[0, 3], [0, 4]],
        [[[0.0, 3.0], [0.0, 4.0]]],
        [[[False, True], [False, True]]],
        [[[0, 3], [0, 4]], [[0, 3], [0, 4]]],
    ],
    ids=["outside", "below", "empty", "turned", "dims", "rows", "floats", "flags", "more"],
)
def test_extents_that_do_not_fit_are_refused(extent: list[object]) -> None:
    """The error says what fits, and the bank is as it was."""
    bank = MemoryBank(3, fusion=cell_of(2).float())
    bank.write(torch.randn(1, 2, *SHAPE))
    before = {name: tensor.clone() for name, tensor in bank.contents().items()}
    with pytest.raises(ShapeError, match=r"expected extents as whole numbers \[1, 2, 2\], each 0 <= first < end"):
        bank.write(torch.randn(1, 2, *SHAPE), extent=torch.tensor(extent))
    assert all(torch.equal(tensor, before[name]) for name, tensor in bank.contents().items())


def test_what_cannot_have_extents_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of templates of different sizes has no positions to compare, and a graph no sizes that depend on
    values."""
    whole = torch.tensor([EXTENTS[0]])
    with pytest.raises(OptionError, match="with MeanFusion, got extents"):
        MemoryBank(3).write(torch.randn(1, 2, *SHAPE), extent=whole)
    plain, parted = (MemoryBank(3, fusion=cell_of(2).float()) for _ in range(2))
    parted.write(torch.randn(1, 2, *SHAPE), extent=torch.tensor([EXTENTS[1]]))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(OptionError, match=r"no extents, .* within torch\.compile"):
        plain.write(torch.randn(1, 2, *SHAPE), extent=whole)
    with pytest.raises(OptionError, match=r"no extents, .* within torch\.compile"):
        parted.write(torch.randn(1, 2, *SHAPE))


def test_what_is_undone_has_its_extents_again() -> None:
    """A larger step that fails puts back whether there are extents, and a refused write makes none."""
    bank, undo = MemoryBank(3, fusion=cell_of(2).float()), Undo()
    bank.write(torch.randn(1, 2, *SHAPE), extent=torch.tensor([EXTENTS[1]]))
    bank.note_changes(undo)
    bank.reset()
    undo.put_back()
    bank.note_changes(None)
    assert bank.has_extents
    assert 4 == bank.cells.sum()
    plain = MemoryBank(3, fusion=cell_of(2).float())
    plain.write(torch.randn(1, 2, *SHAPE))
    with pytest.raises(BankError, match="finite"):
        plain.write(torch.full((1, 2, *SHAPE), math.nan), extent=torch.tensor([EXTENTS[1]]))
    assert not plain.has_extents


def test_what_lies_outside_of_an_extent_does_not_count() -> None:
    """Not even NaN, which is stored as 0 with all else there."""
    bank, template = MemoryBank(3, fusion=cell_of(2).float()), torch.randn(1, 2, *SHAPE)
    template[..., 3] = math.nan
    bank.write(template, extent=torch.tensor([EXTENTS[3]]))
    assert torch.equal(part(bank.templates[0, 0], EXTENTS[3]), part(template[0], EXTENTS[3]))
    assert not bank.templates[0, 0, :, ~inside(torch.tensor(EXTENTS[3]), SHAPE)].any()


def test_bytes_do_not_depend_on_extents() -> None:
    """A bank of small templates takes the bytes of one of large ones, after any number of writes."""
    sizes = set()
    for extent in EXTENTS:
        bank = MemoryBank(3, fusion=cell_of(2).float())
        with torch.inference_mode():
            for frame in range(12):
                bank.write(torch.randn(1, 2, *SHAPE), frame=frame, extent=torch.tensor([extent]))
                sizes.add(bank.nbytes)
    assert len(sizes) == 1


def test_extents_are_saved_moved_and_added(tmp_path: Path) -> None:
    """A file, a fork, a copy and rows that come and go keep extents; contents of before are whole."""
    cell = cell_of(2).float()
    bank = MemoryBank(3, fusion=cell)
    for frame in range(4):
        bank.write(torch.randn(2, 2, *SHAPE), frame=frame, extent=torch.tensor(extents_of(4, 2)[frame]))
    save_bank(bank, tmp_path / "bank.safetensors")
    loaded = MemoryBank(3, fusion=cell)
    load_bank(loaded, tmp_path / "bank.safetensors")
    template, extent = torch.randn(2, 2, *SHAPE), torch.tensor(extents_of(4, 2, seed=5)[0])
    others = [loaded, bank.fork(), copy.deepcopy(bank)]
    for one in (bank, *others):
        one.write(template, frame=9, extent=extent)
    for other in others:
        assert other.has_extents
        for name, tensor in bank.contents().items():
            assert torch.equal(tensor, other.contents()[name]), name
    bank.add_rows(1)
    assert bank.extent[2].tolist() == [EXTENTS[0]] * 3
    bank.remove_rows([0])
    assert torch.equal(bank.extent[0], loaded.extent[1])
    old = {name: tensor for name, tensor in bank.contents().items() if name != "extent"}
    bank.load_contents(old)
    assert not bank.has_extents
    assert bank.extent.tolist() == [[EXTENTS[0]] * 3] * 2


@pytest.mark.parametrize(
    "change",
    [lambda t: t + 5, lambda t: t.flip(-1), lambda t: t[:, :, :1], lambda t: t.float()],
    ids=["outside", "turned", "dims", "floats"],
)
def test_damaged_extents_are_refused(change: Callable[[Tensor], Tensor]) -> None:
    """Contents whose extents are not in their templates are no contents of a bank."""
    bank = MemoryBank(3, fusion=cell_of(2).float())
    bank.write(torch.randn(1, 2, *SHAPE))
    contents = bank.contents()
    with pytest.raises(BankError):
        bank.load_contents({**contents, "extent": change(contents["extent"])})


def test_tokens_leave_out_what_is_not_part_of_a_template() -> None:
    """The padding mask for a transformer hides all positions outside of the extents."""
    bank = MemoryBank(3, fusion=cell_of(2).float())
    bank.write(torch.randn(1, 2, *SHAPE), extent=torch.tensor([EXTENTS[1]]))
    _, empty = memory_tokens(bank)
    assert (~empty).sum() == 4
    assert torch.equal(~empty.view(3, *SHAPE)[0], inside(torch.tensor(EXTENTS[1]), SHAPE))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (300, 65, 211)], ids=str)
def test_products_are_those_of_the_rows(shape: tuple[int, int, int]) -> None:
    """By whatever library, in either layout."""
    n, channels, m = shape
    left, right = torch.randn(n, channels), torch.randn(m, channels)
    expected = (left.double() @ right.double().t()).float()
    with torch.no_grad():
        for one, other in itertools.product((left, left.t().contiguous().t()), (right, right.t().contiguous().t())):
            torch.testing.assert_close(products(one, other), expected, atol=1e-4, rtol=1e-4)
    with torch.enable_grad():
        left.requires_grad_()
        assert products(left, right).requires_grad


def test_a_mask_of_cells_is_a_mask_of_slots_where_all_of_them_count() -> None:
    """`space_time_read` gives the same for slots in use and for all of their cells."""
    query, keys, values = torch.randn(2, 3, 5), torch.randn(2, 4, 3, 6), torch.randn(2, 4, 7, 6)
    valid = torch.tensor([[True, False, True, True], [True, True, False, False]])
    with torch.no_grad():
        expected = space_time_read(query, keys, values, valid)
        assert torch.equal(expected, space_time_read(query, keys, values, valid[:, :, None].expand(2, 4, 6)))
