"""Facts about the memory bank: what it stores, what goes, and that it never grows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import references
import torch
from allocations import allocations
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError, WeightsError
from stmemory.memory import (
    BankView,
    Decision,
    FusionCell,
    LearnedPolicy,
    MeanFusion,
    MemoryBank,
    SlotInfo,
    SpaceTimeRead,
    load_bank,
    policy_names,
    save_bank,
    similarities,
    similarity,
)
from stmemory.memory import slots as slots_module

RULES = [name for name in policy_names() if name != "learned"]


def constant(value: float, rows: int = 1) -> Tensor:
    """Templates `[rows, 1, 2]` that hold one number, to tell them apart."""
    return torch.full((rows, 1, 2), float(value))


def numbers(bank: MemoryBank, row: int = 0) -> list[float]:
    """What `constant` templates a row holds, oldest first."""
    return [float(bank.templates.detach()[row, info.slot, 0, 0]) for info in bank.describe(row)]


def filled(capacity: int = 3, policy: str = "drop", writes: int | None = None, **options: object) -> MemoryBank:
    """A bank of one row into which constants 0, 1, ... were written, the first one pinned."""
    bank = MemoryBank(capacity, policy=policy, **options)
    for frame in range(capacity if writes is None else writes):
        bank.write(constant(frame), frame=frame, pinned=frame == 0)
    return bank


# Filling and fusing.


def test_a_bank_fills_slot_by_slot() -> None:
    """Until it is full, a bank keeps every template as it came, and its shapes are those of the full bank."""
    bank = MemoryBank(4)
    templates = torch.randn(4, 2, 3, 5)
    for step in range(4):
        bank.write(templates[step][:, :, :], frame=step)
        assert [step + 1, step + 1] == bank.count.tolist()
        assert (2, 4, 3, 5) == bank.templates.shape
    assert torch.equal(templates.transpose(0, 1), bank.templates)
    assert [[3, 2, 1, 0]] * 2 == bank.age.tolist()
    assert not bank.pinned.any()


def test_an_empty_bank_has_no_shapes() -> None:
    """Before the first write there are no rows and no bytes, and asking for tensors says to write first."""
    bank = MemoryBank(3)
    assert (0, 0, {}) == (bank.rows, bank.nbytes, bank.contents())
    for ask in (lambda: bank.templates, lambda: bank.count, lambda: bank.similarity(), lambda: bank.add_rows(1)):
        with pytest.raises(BankError, match=r"call write\(\) first"):
            ask()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("oldest", [0, 1.5, 2.0, 4]),  # 1 goes, into 2 and 3
        ("newest", [0, 2.0, 2.5, 4]),  # 3 goes, into 1 and 2
        ("drop", [0, 2, 3, 4]),
        ("input_to_memory", [0, 2.5, 3.0, 3.5]),  # 4 goes into all, and is not kept
    ],
)
def test_a_full_bank_distils_as_its_rule_says(policy: str, expected: list[float]) -> None:
    """The fifth template goes into a bank of four that is pinned at 0; MeanFusion makes the distilled ones visible."""
    bank = filled(4, policy)
    bank.write(constant(4), frame=4)
    assert expected == numbers(bank)


@pytest.mark.parametrize(("policy", "expected"), [("least_similar", [3, 1.5, 4]), ("most_similar", [3, 2, 4])])
def test_pairs_are_chosen_by_similarity(policy: str, expected: list[float]) -> None:
    """C distils the older of the two that are least alike, D of the two that are most alike."""
    angles = torch.tensor([0.0, 0.3, 1.5])  # 0 and 2 are least alike, 0 and 1 most
    bank = MemoryBank(3, policy=policy)
    for angle in angles:
        bank.write(torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1))
    bank.write(torch.ones(1, 2, 1))
    source, target = (0, 2) if policy == "least_similar" else (0, 1)
    into = bank.templates[0, target, :, 0]
    merged = (torch.stack([angles.cos(), angles.sin()], 1)[[source, target]]).mean(0)
    torch.testing.assert_close(merged, into)
    torch.testing.assert_close(torch.ones(2), bank.templates[0, source, :, 0])


def rows_of(
    name: str, fuse: Callable[..., Tensor], bank: MemoryBank, templates: Tensor
) -> list[references.PaperMemory]:
    """Write to three rows that enter at steps 0, 0 and 7, of which the second often has no template; the same
    slowly."""
    slow = [references.PaperMemory(bank.capacity, name, fuse) for _ in range(3)]
    for step in range(20):
        if step == 7:
            bank.add_rows(1)
        rows = [row for row in range(3) if (row != 2 or step >= 7) and (row != 1 or step % 3 == 0)]
        first = [row for row in rows if not slow[row].templates]
        for group, pinned in ((first, True), ([row for row in rows if row not in first], False)):
            if group:
                whole = bank.rows == 0 or group == list(range(bank.rows))
                bank.write(templates[step, group], rows=None if whole else group, frame=step, pinned=pinned)
        for row in rows:
            slow[row].write(templates[step, row])
    return slow


@pytest.mark.parametrize("fusion", ["cell", "mean"])
@pytest.mark.parametrize("name", RULES)
def test_a_bank_equals_the_paper_after_20_writes(name: str, fusion: str) -> None:
    """Rows that fill differently end with the templates of section 3.2, simulated with Python lists and loops."""
    cell = FusionCell(2, kernel_size=1, scale=1.0).double()
    for weight in cell.parameters():
        nn.init.normal_(weight, std=0.5)

    def fuse(source: Tensor, target: Tensor, sources: int, targets: int) -> Tensor:
        if fusion == "cell":
            return references.fusion(cell, source, target)
        return (sources * source + targets * target) / (sources + targets)

    bank = MemoryBank(4, policy=name, fusion=cell if fusion == "cell" else MeanFusion())
    with torch.no_grad():
        slow = rows_of(name, fuse, bank, torch.randn(20, 3, 2, 2, 1, dtype=torch.float64))
    for row in range(3):
        slots = bank.describe(row)
        assert slow[row].sizes == [info.frames_inside for info in slots]
        actual = bank.templates[row, [info.slot for info in slots]]
        torch.testing.assert_close(torch.stack(slow[row].templates), actual, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", policy_names())
def test_no_policy_exceeds_the_capacity(policy: str) -> None:
    """After any writes, to any rows, pinned or provisional, a row has at most K templates, and the pinned ones
    unchanged."""
    bank = MemoryBank(3, policy=policy)
    first = torch.randn(2, 2, 3)
    bank.write(first, pinned=True)
    for step in range(25):
        rows = [[0], [1], [0, 1]][step % 3]
        bank.write(torch.randn(len(rows), 2, 3), rows=rows, frame=step, provisional=step % 4 == 1)
        assert int(bank.count.max()) <= 3 and (2, 3, 2, 3) == bank.templates.shape
        assert torch.equal(first, bank.templates[:, 0].detach())
        assert len(set(bank.age[0][bank.valid[0]].tolist())) == int(bank.count[0])
    assert [3, 3] == bank.count.tolist()


# Pins, provisional templates, drops.


def test_pinning_every_slot_is_an_error() -> None:
    """The last slot cannot be pinned, and the refused write changes nothing."""
    bank = filled(3)
    bank.write(constant(9), pinned=True)
    before = {name: t.clone() for name, t in bank.contents().items()}
    with pytest.raises(BankError, match="would pin all 3 slots of a row"):
        bank.write(constant(10), pinned=True)
    assert all(torch.equal(before[name], t) for name, t in bank.contents().items())


@pytest.mark.parametrize("policy", policy_names())
def test_a_pinned_template_is_stored_by_every_policy(policy: str) -> None:
    """A correction on a full row is kept unchanged, even where the policy stores no new template."""
    bank = filled(3, policy)
    bank.write(constant(7), frame=7, pinned=True)
    bank.write(constant(8), frame=8)
    assert [0, 7] == [info.frame for info in bank.describe() if info.pinned]
    assert {0.0, 7.0} <= set(numbers(bank))


def test_an_unpinned_slot_goes_like_any_other() -> None:
    """After `unpin` the first template is the oldest that can go."""
    bank = filled(3)
    bank.unpin(0)
    bank.write(constant(3), frame=3)
    assert [1, 2, 3] == numbers(bank)


def test_a_provisional_template_gives_way_to_the_next() -> None:
    """The newest slot follows the video while only every third frame is committed."""
    bank = filled(4, writes=1)
    seen = []
    for frame in range(1, 11):
        bank.write(constant(frame), frame=frame, provisional=frame % 3 != 0)
        seen.append(numbers(bank))
    assert [0, 1] == seen[0]
    assert [0, 3, 4] == seen[3]
    assert [0, 6, 9, 10] == seen[9]
    assert [3, 2, 1, 0] == [info.age for info in filled(4).describe()]


def test_a_provisional_template_can_be_pinned_over() -> None:
    """A correction takes the place of the provisional template of the same frame."""
    bank = filled(4, writes=2)
    bank.write(constant(2), provisional=True)
    bank.write(constant(7), pinned=True)
    bank.write(constant(3))
    assert [0, 1, 7, 3] == numbers(bank)


def test_dropping_a_provisional_template_ends_it() -> None:
    """After its drop, the next write overwrites nothing."""
    bank = filled(4, writes=2)
    bank.write(constant(2), provisional=True)
    bank.drop(2)
    bank.write(constant(3))
    assert [0, 1, 3] == numbers(bank)


def test_dropping_another_slot_keeps_the_newest_provisional() -> None:
    """Only the drop of the provisional slot itself ends it."""
    bank = filled(4, writes=3)
    bank.write(constant(3), provisional=True)
    bank.drop(1)
    bank.write(constant(4))
    assert [0, 2, 4] == numbers(bank)


def test_pinned_and_provisional_exclude_each_other() -> None:
    """A pinned slot cannot be overwritten."""
    with pytest.raises(OptionError, match="pinned or provisional, got both"):
        MemoryBank(3).write(constant(0), pinned=True, provisional=True)


def test_a_dropped_slot_is_free_again() -> None:
    """`drop` forgets pinned templates too, and the next one takes the slot without a decision."""
    bank = filled(3)
    bank.drop(0)
    assert [1, 2] == numbers(bank) and not bank.templates[0, 0].any() and not bank.pinned[0, 0]
    bank.write(constant(5), frame=5)
    assert [1, 2, 5] == numbers(bank)
    assert SlotInfo(slot=0, frame=5, age=0, pinned=False, frames_inside=1, fused_frames=()) == bank.describe()[-1]


@pytest.mark.parametrize("operation", ["drop", "unpin"])
@pytest.mark.parametrize(("slot", "row"), [(2, 0), (3, 0), (-1, 0), (0, 1), (0, -1)])
def test_only_slots_in_use_can_be_dropped_or_unpinned(operation: str, slot: int, row: int) -> None:
    """An empty slot, or one that does not exist, is refused."""
    bank = filled(3, writes=2)
    with pytest.raises(BankError, match=f"got slot {slot} of row {row}"):
        getattr(bank, operation)(slot, row=row)


# Rows.


@pytest.mark.parametrize("rows", [[2, 0], torch.tensor([2, 0])], ids=["list", "tensor"])
def test_a_write_touches_its_rows_only(rows: list[int] | Tensor) -> None:
    """Templates go to the rows named, in the order named; the others keep all their tensors."""
    bank = MemoryBank(3)
    bank.write(torch.randn(3, 1, 2))
    before = bank.fork()
    bank.write(torch.cat([constant(5), constant(6)]), rows=rows)
    assert [2, 1, 2] == bank.count.tolist()
    assert (6.0, 5.0) == (numbers(bank, 0)[-1], numbers(bank, 2)[-1])
    for name, tensor in bank.contents().items():
        assert torch.equal(before.contents()[name][1], tensor[1])


def test_added_rows_are_empty_and_fill_on_their_own() -> None:
    """Objects that enter later start with no template, and the older rows are as before."""
    bank = filled(3)
    before = numbers(bank)
    bank.add_rows(2)
    assert [3, 0, 0] == bank.count.tolist()
    assert [] == bank.describe(2)
    bank.write(constant(8), rows=[2], pinned=True)
    assert (before, [], [8]) == (numbers(bank, 0), numbers(bank, 1), numbers(bank, 2))
    bank.add_rows(0)
    assert 3 == bank.rows


def test_removed_rows_free_their_bytes() -> None:
    """The rows that stay move up, with all that they hold, and a row costs the same whenever it is there."""
    bank = filled(3)
    alone = bank.nbytes
    bank.add_rows(2)
    bank.write(torch.cat([constant(5), constant(6)]), rows=[1, 2])
    assert 3 * alone == bank.nbytes
    bank.remove_rows([0, 1])
    assert ([6], alone) == (numbers(bank), bank.nbytes)
    bank.remove_rows([0])
    assert (0, 0) == (bank.rows, bank.nbytes)


def test_a_bank_of_no_rows_takes_rows_again() -> None:
    """When the last object left, the next one may come."""
    bank = filled(3)
    bank.remove_rows([0])
    bank.add_rows(1)
    bank.write(constant(4), rows=[0], pinned=True)
    assert [4] == numbers(bank)


@pytest.mark.parametrize("rows", [[1], [-1], [0, 5]])
def test_rows_that_do_not_exist_cannot_be_removed(rows: list[int]) -> None:
    """The error names them, and nothing is removed."""
    bank = filled(3)
    with pytest.raises(BankError, match=r"rows in 0..0"):
        bank.remove_rows(rows)
    assert 1 == bank.rows


def test_a_negative_number_of_rows_is_refused() -> None:
    """Rows are removed by `remove_rows`."""
    with pytest.raises(BankError, match="a number >= 0"):
        filled(3).add_rows(-1)


@pytest.mark.parametrize("row", [1, -1])
def test_rows_that_do_not_exist_cannot_be_described(row: int) -> None:
    """The error names the rows that there are."""
    with pytest.raises(BankError, match=rf"a row in 0..0, got {row}"):
        filled(3).describe(row)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((1, 2, 4), None),
        ((2, 2, 5), None),
        ((2, 3, 4), None),
        ((2, 2, 2, 2), None),
        ((2, 2, 4), [0]),
        ((2, 2, 4), [0, 0]),
        ((2, 2, 4), [0, 2]),
        ((1, 2, 4), [-1]),
    ],
    ids=str,
)
def test_templates_that_do_not_fit_are_refused(shape: tuple[int, ...], rows: list[int] | None) -> None:
    """Another size, another number of rows, a row twice or out of range: an error with the shape, and nothing
    written."""
    bank = MemoryBank(3)
    bank.write(torch.zeros(2, 2, 4))
    with pytest.raises(ShapeError, match=r"expected a template \[R, 2, 4\] for R different rows of 0..1, got"):
        bank.write(torch.ones(shape), rows=rows)
    assert [1, 1] == bank.count.tolist()


def test_the_first_write_makes_the_rows() -> None:
    """Before it there are no rows to name, and a template needs cells."""
    with pytest.raises(ShapeError, match="the first write makes the rows"):
        MemoryBank(3).write(torch.zeros(1, 2, 4), rows=[1])
    with pytest.raises(ShapeError, match=r"expected a template \[R, C, \*S\]"):
        MemoryBank(3).write(torch.zeros(1, 2))


@pytest.mark.parametrize("capacity", [1, 0, -3])
def test_a_bank_needs_two_slots(capacity: int) -> None:
    """With one slot nothing could be distilled."""
    with pytest.raises(OptionError, match="2 slots or more"):
        MemoryBank(capacity)


def test_templates_take_the_banks_own_precision() -> None:
    """A bank in half precision stays so, whatever it is given later, and float32 features may be written to it."""
    bank = MemoryBank(3, policy="A", fusion=FusionCell(2, spatial_dims=1).half())
    for _ in range(5):
        bank.write(torch.randn(1, 2, 4).half() if bank.rows == 0 else torch.randn(1, 2, 4))
    assert torch.float16 == bank.templates.dtype and bool(bank.templates.isfinite().all())


@pytest.mark.parametrize("size", [(6,), (2, 3), (2, 1, 2)], ids=["tokens", "maps", "volumes"])
def test_spatial_dims_are_free(size: tuple[int, ...]) -> None:
    """Tokens, maps and volumes are stored and fused alike."""
    bank = MemoryBank(3, fusion=FusionCell(2, spatial_dims=len(size)))
    with torch.no_grad():
        for _ in range(5):
            bank.write(torch.randn(2, 2, *size))
    assert (2, 3, 2, *size) == bank.templates.shape


@pytest.mark.parametrize(
    ("cell", "size"),
    [(FusionCell(2), (2, 6)), (FusionCell(2, spatial_dims=1), (2, 3, 3)), (FusionCell(4), (2, 3, 3))],
    ids=["tokens to a cell for maps", "maps to a cell for tokens", "channels"],
)
def test_a_fusion_cell_that_does_not_fit_is_refused_at_the_first_write(cell: FusionCell, size: tuple[int, ...]) -> None:
    """Not when the bank is full, K frames later; and the bank is as empty as before."""
    bank = MemoryBank(5, fusion=cell)
    with pytest.raises(ShapeError, match="spatial_dims=1 is for tokens, 2 for maps, 3 for volumes"):
        bank.write(torch.zeros(1, *size))
    assert 0 == bank.rows


# What is known of it.


def test_describe_tells_what_went_in() -> None:
    """Per slot, oldest first: its own frame, its age, and the frames that were distilled into it."""
    bank = filled(3, "oldest", writes=5)
    expected = [
        SlotInfo(slot=0, frame=0, age=4, pinned=True, frames_inside=1, fused_frames=()),
        SlotInfo(slot=2, frame=3, age=1, pinned=False, frames_inside=3, fused_frames=(1, 2)),
        SlotInfo(slot=1, frame=4, age=0, pinned=False, frames_inside=1, fused_frames=()),
    ]
    actual = sorted(bank.describe(), key=lambda info: -info.age)
    assert [dataclasses.replace(e, slot=a.slot) for e, a in zip(expected, actual, strict=True)] == actual


@pytest.mark.parametrize("policy", RULES)
def test_counts_of_fused_frames_stay_finite(policy: str) -> None:
    """After 300 writes under every rule the sizes are positive and the means lie between what was written."""
    bank = MemoryBank(4, policy=policy)
    with torch.inference_mode():
        for frame in range(300):
            bank.write(torch.full((1, 3, 2, 2), 1.0 + frame % 2), frame=frame, pinned=frame == 0)
    assert all(slot.frames_inside >= 1 for slot in bank.describe())
    assert bool(((bank.templates >= 1) & (bank.templates <= 2)).all())


def test_the_log_of_fused_frames_is_bounded() -> None:
    """After 100 frames into every slot, the last eight are told, and all are counted."""
    bank = filled(2, "input_to_memory")
    for frame in range(2, 102):
        bank.write(constant(frame), frame=frame)
    info = bank.describe()[1]
    assert (101, tuple(range(94, 102))) == (info.frames_inside, info.fused_frames)


def test_ages_of_a_dropped_row_stay_in_order() -> None:
    """Age, not position, orders the slots: after drops and writes they read oldest first."""
    bank = filled(4)
    bank.drop(1)
    bank.drop(2)
    for number in (7, 8, 9):
        bank.write(constant(number), frame=number)
    assert [0, 7, 8, 9] == numbers(bank)


@pytest.mark.parametrize("keyed", [False, True], ids=["templates", "keys"])
def test_bytes_are_a_formula_and_constant(keyed: bool) -> None:
    """Over 300 writes the bank's bytes are those of its templates, keys, pairs and 18 numbers a slot, to the byte."""
    rows, slots, channels, key_channels, cells = 2, 3, 4, 3, 6
    bank = MemoryBank(slots, key=nn.Conv2d(channels, key_channels, 1) if keyed else None)
    floats = slots * (channels + key_channels * keyed) * cells
    expected = rows * (4 * floats + slots * slots * (4 + 8) + slots * (8 * (4 + 4 + 8) + 2) + 1)
    with torch.inference_mode():
        for frame in range(300):
            bank.write(torch.randn(rows, channels, 2, 3), frame=frame, pinned=frame == 0)
            assert expected == bank.nbytes


@pytest.mark.parametrize("policy", policy_names())
def test_a_full_bank_stays_where_it_is_in_inference_mode(policy: str) -> None:
    """In inference mode no write moves a tensor, and what a write allocates it frees: zero bytes net over three."""
    key = nn.Conv2d(2, 3, 1)
    bank = MemoryBank(3, policy=policy, fusion=FusionCell(2), key=key)
    with torch.inference_mode():
        for frame in range(4):
            bank.write(torch.randn(2, 2, 3, 3), frame=frame, pinned=frame == 0)
        places = {name: tensor.data_ptr() for name, tensor in bank.contents().items()}
        template = torch.randn(2, 2, 3, 3)

        def write() -> None:
            for frame in range(3):
                bank.write(template, frame=frame)

        write()
        used = allocations(write)
    assert used and 0 == sum(used)
    assert places == {name: tensor.data_ptr() for name, tensor in bank.contents().items()}


def test_a_bank_filled_with_grad_goes_on_without() -> None:
    """A bank may be filled in any grad mode and written to in any other."""
    bank = MemoryBank(3, fusion=FusionCell(2, spatial_dims=1))
    modes = [torch.enable_grad, torch.no_grad, torch.inference_mode]
    for turn in range(12):
        with modes[turn % 3]():
            bank.write(torch.randn(1, 2, 4), frame=turn, pinned=turn == 0)
    assert 3 == int(bank.count) and bool(bank.templates.isfinite().all())


# Similarities are kept.


@pytest.mark.parametrize("keyed", [False, True], ids=["templates", "keys"])
def test_kept_similarities_equal_fresh_ones(keyed: bool) -> None:
    """After 40 writes, drops and added rows, every kept similarity is that of eq. 1 of the two slots as they are."""
    bank = MemoryBank(4, key=nn.Conv1d(3, 2, 1) if keyed else None)
    with torch.no_grad():
        for step in range(40):
            if step == 11:
                bank.add_rows(1)
            bank.write(torch.randn(bank.rows or 2, 3, 5), pinned=step == 0)
            if step in (5, 23):
                bank.drop(step % 4, row=1)
            if step == 30:
                bank.remove_rows([0])
        kept = bank.similarity()
    for row in range(2):
        for i in range(4):
            for j in range(4):
                if bank.valid[row, i] and bank.valid[row, j]:
                    expected = similarity(bank.keys[row, i][None], bank.keys[row, j][None])[0]
                    torch.testing.assert_close(expected, kept[row, i, j])


@pytest.mark.parametrize("capacity", [4, 9])
def test_a_write_compares_a_number_of_pairs_linear_in_k(capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a full row compares two slots with those that can move, not all with all, and no pair twice; a rule
    without none."""
    pairs: list[int] = []

    def counting(one: Tensor, many: Tensor, *, cells: None) -> tuple[Tensor, Tensor]:
        pairs.append(many.shape[0] * many.shape[1])
        return similarities(one, many, cells=cells)

    monkeypatch.setattr(slots_module, "similarities", counting)
    with_all = 2 * (capacity - 1) - 1
    for policy, expected in (
        ("least_similar", with_all - 2),
        ("most_similar", with_all - 2),
        ("learned", with_all),
        ("drop", 0),
    ):
        bank = MemoryBank(capacity, policy=policy)
        for number in range(capacity + 1):
            bank.write(torch.randn(1, 2, 3), pinned=number == 0)
        for _ in range(5):
            pairs.clear()
            bank.write(torch.randn(1, 2, 3))
            assert expected == sum(pairs)


def test_equal_similarity_is_not_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking again, with nothing written, computes nothing, and neither do rows that move."""
    bank = filled(3)
    bank.add_rows(1)
    bank.similarity()
    monkeypatch.setattr(slots_module, "similarities", lambda one, many: pytest.fail("compared again"))
    expected = bank.similarity()
    bank.remove_rows([1])
    assert torch.equal(expected[:1], bank.similarity())


# Gradients.


def test_gradients_flow_through_write_fuse_and_read() -> None:
    """Over an unroll of five frames with three slots, analytic and numeric gradients agree, to templates and all
    weights."""
    cell, key, value = FusionCell(2, kernel_size=1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    read = SpaceTimeRead(key, value).double()
    cell.double()
    weights = (*cell.parameters(), *read.parameters())
    query = torch.randn(1, 2, 2, 2, dtype=torch.float64)

    def unroll(templates: Tensor, *_: Tensor) -> Tensor:
        bank = MemoryBank(3, policy="C", fusion=cell, key=read.key)
        for frame in range(5):
            bank.write(templates[frame], frame=frame, pinned=frame == 0)
        recalled: Tensor = read(query, bank)
        return recalled

    templates = torch.randn(5, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unroll, (templates, *weights))
    unroll(templates).square().sum().backward()
    assert templates.grad is not None
    assert all(bool(frame.any()) for frame in templates.grad)  # what was distilled is still felt
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in cell.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learned_policy_learns_from_what_is_recalled(dtype: torch.dtype) -> None:
    """From the templates of a bank a gradient reaches both scorers of the policy, in any precision."""
    policy = LearnedPolicy(seed=2)
    bank = MemoryBank(4, policy=policy, fusion=FusionCell(2, spatial_dims=1).to(dtype))
    for frame in range(6):
        bank.write(torch.randn(2, 2, 3, dtype=dtype), frame=frame, pinned=frame == 0)
    (bank.templates * torch.randn(4, 1, 1, dtype=dtype)).sum().backward()
    for scorer in (policy.remove_score, policy.into_score):
        assert scorer[0].weight.grad is not None and bool(scorer[0].weight.grad.any())


def test_gradients_of_a_soft_choice_are_those_of_the_formula() -> None:
    """To `remove` and `into` flow the gradients of: the slot that goes times its weight, fused, and the new one times
    it."""
    remove = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    into = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)

    class Fixed:
        name, uses_similarity = "fixed", False

        def decide(self, view: BankView) -> Decision:
            return Decision(remove, into)

    templates, weights = torch.randn(4, 1, 2, 3), torch.randn(3, 2, 3)
    bank = MemoryBank(3, policy=Fixed())
    for frame in range(4):
        bank.write(templates[frame], frame=frame, pinned=frame == 0)
    actual = torch.autograd.grad((bank.templates[0] * weights).sum(), (remove, into))
    first, source, target, new = templates[:, 0]
    fused = target + into[0, 2] * ((remove[0, 1] * source + target) / 2 - target)
    stored = torch.stack([first * (1 - remove[0, 0]), new * remove[0, 1], fused * (1 - remove[0, 2])])
    for expected, found in zip(torch.autograd.grad((stored * weights).sum(), (remove, into)), actual, strict=True):
        torch.testing.assert_close(expected, found)


def test_a_learned_choice_changes_no_number() -> None:
    """Straight-through: a bank holds within rounding the same numbers whether or not the draw carries a gradient."""
    banks = []
    templates = torch.randn(8, 2, 2, 3)
    for grad in (True, False):
        policy = LearnedPolicy(seed=5)
        policy.load_state_dict(banks[0].policy.state_dict() if banks else policy.state_dict())
        banks.append(MemoryBank(4, policy=policy))
        with torch.set_grad_enabled(grad):
            for frame in range(8):
                banks[-1].write(templates[frame], frame=frame, pinned=frame == 0)
    assert banks[0].templates.requires_grad and not banks[1].templates.requires_grad
    torch.testing.assert_close(banks[1].templates, banks[0].templates.detach())


def test_detach_cuts_the_graph() -> None:
    """After `detach` the numbers stay, and no gradient reaches what was written before."""
    bank = MemoryBank(3, policy="A")
    before = torch.randn(1, 2, 3, requires_grad=True)
    after = torch.randn(1, 2, 3, requires_grad=True)
    bank.write(before)
    kept = bank.templates
    bank.detach()
    assert not bank.templates.requires_grad and torch.equal(kept, bank.templates)
    for _ in range(4):
        bank.write(after)
    bank.templates.sum().backward()
    assert before.grad is None and after.grad is not None


def test_rekeying_gives_cut_keys_their_graph_back() -> None:
    """After `detach` and `rekey` keys and versions are what they were, and the key's weights learn from every slot in
    use."""
    head = torch.nn.Conv1d(2, 4, 1)
    bank = MemoryBank(4, key=head)
    for frame in range(3):
        bank.write(torch.randn(2, 2, 5), frame=frame)
    keys, version, factor = bank.keys.detach(), bank.version.clone(), torch.randn(2, 4, 4, 5)
    bank.detach()
    assert not bank.keys.requires_grad
    bank.rekey()
    (bank.keys * factor).sum().backward()

    torch.testing.assert_close(keys, bank.keys.detach())
    assert torch.equal(version, bank.version)
    # of a key w x + b, the derivative of sum(f (w x + b)) by w is the sum of f x over slots in use and cells
    expected = torch.einsum("bkon,bkcn->oc", factor[:, :3], bank.templates[:, :3])
    torch.testing.assert_close(expected, head.weight.grad[:, :, 0] if head.weight.grad is not None else None)


def test_rekeying_without_a_key_or_a_template_does_nothing() -> None:
    """Neither is an error: a bank may be empty, or compare templates themselves."""
    for bank in (MemoryBank(3), MemoryBank(3, key=torch.nn.Conv1d(2, 4, 1)), filled(3)):
        before = {name: t.clone() for name, t in bank.contents().items()}
        bank.rekey()
        assert all(torch.equal(before[name], t) for name, t in bank.contents().items())


def test_a_write_without_grad_leaves_the_graph_whole() -> None:
    """Under `no_grad` a template is written without a gradient; those beside it keep theirs."""
    first, second = (torch.randn(1, 2, 3, requires_grad=True) for _ in range(2))
    bank = MemoryBank(3)
    bank.write(first)
    loss = bank.templates.square().sum()
    with torch.no_grad():
        bank.write(second)
    (loss + bank.templates.sum()).backward()
    torch.testing.assert_close(2 * first.detach() + 1, first.grad)
    assert second.grad is None
    assert torch.equal(second.detach(), bank.templates[:, 1].detach())


# Copies, states and files.


def same(one: MemoryBank, other: MemoryBank) -> bool:
    """Whether two banks remember the same, to the bit."""
    first, second = one.contents(), other.contents()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "inference"])
def test_a_fork_goes_its_own_way(grad: bool) -> None:
    """Neither bank sees what the other is given, and both go on as one would."""
    with torch.inference_mode(not grad):
        bank, alone = MemoryBank(3, policy="C"), MemoryBank(3, policy="C")
        templates = torch.randn(9, 2, 2, 3)
        for frame in range(5):
            bank.write(templates[frame], frame=frame)
            alone.write(templates[frame], frame=frame)
        twin = bank.fork()
        assert same(bank, twin)
        for frame in range(5, 9):
            twin.write(-templates[frame], frame=frame)
            twin.similarity()
            bank.write(templates[frame], frame=frame)
            alone.write(templates[frame], frame=frame)
        bank.similarity(), alone.similarity()
        assert same(alone, bank) and not same(bank, twin)


def test_an_empty_bank_can_be_forked() -> None:
    """A fork of nothing is nothing, and can be written to."""
    twin = MemoryBank(3, policy="B").fork()
    twin.write(constant(1))
    assert ("newest", [1]) == (twin.policy.name, numbers(twin))


@pytest.mark.parametrize("way", ["state", "file"])
@pytest.mark.parametrize("policy", RULES)
def test_a_loaded_bank_goes_on_where_the_saved_one_stopped(policy: str, way: str, tmp_path: Path) -> None:
    """Saved in the middle and loaded elsewhere, the rest of the video leaves the same bank, bit for bit."""
    cell, key = FusionCell(2, spatial_dims=1), nn.Conv1d(2, 3, 1)
    templates = torch.randn(12, 2, 2, 4)
    bank, twin = (MemoryBank(3, policy=policy, fusion=cell, key=key) for _ in range(2))
    with torch.inference_mode():
        for frame in range(6):
            bank.write(templates[frame], frame=frame, pinned=frame == 0, provisional=frame % 2 == 1)
        if way == "state":
            twin.load_contents(bank.contents())
        else:
            save_bank(bank, tmp_path / "bank.safetensors")
            load_bank(twin, tmp_path / "bank.safetensors")
        assert same(bank, twin)
        for frame in range(6, 12):
            for each in (bank, twin):
                each.write(templates[frame], frame=frame, provisional=frame % 2 == 1)
                each.similarity()
        assert same(bank, twin)
        assert bank.describe(1) == twin.describe(1)


def test_loading_copies() -> None:
    """What a bank was loaded from is not what it writes to."""
    bank, twin = filled(3), MemoryBank(3, policy="drop")
    with torch.no_grad():
        twin.load_contents(bank.contents())
        twin.write(constant(9))
    assert [0, 1, 2] == numbers(bank)


def test_an_interrupted_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank's file is replaced whole or not at all."""
    path = tmp_path / "bank.safetensors"
    save_bank(filled(3), path)
    before = path.read_bytes()

    def stops_midway(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stops_midway)
    with pytest.raises(KeyboardInterrupt):
        save_bank(filled(2), path)
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_an_empty_bank_can_be_saved_and_loaded(tmp_path: Path) -> None:
    """A bank that holds nothing comes back as one."""
    save_bank(MemoryBank(3), tmp_path / "empty.safetensors")
    bank = filled(3)
    load_bank(bank, tmp_path / "empty.safetensors")
    assert 0 == bank.rows


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: MemoryBank(4), r"1 rows and 4 slots, got \(1, 3"),
        (lambda: MemoryBank(3, key=nn.Identity()), r"missing \['keys'\], unexpected \[\]"),
    ],
    ids=["capacity", "keys"],
)
def test_states_of_another_kind_of_bank_are_refused(other: Callable[[], MemoryBank], message: str) -> None:
    """Capacity and keys must be those that the state was saved with; the error says what differs."""
    with pytest.raises(BankError, match=message):
        other().load_contents(filled(3).contents())


def test_states_with_other_names_or_sizes_are_refused() -> None:
    """A name too few, one too many, or tensors of different rows: nothing is loaded."""
    good = filled(3).contents()
    bank = filled(3)
    bank.write(constant(5))
    for bad, message in (
        ({name: t for name, t in good.items() if name != "age"}, r"missing \['age'\], unexpected \[\]"),
        (good | {"extra": good["age"]}, r"missing \[\], unexpected \['extra'\]"),
        (good | {"age": good["age"].repeat(2, 1)}, r"expected age of 1 rows and 3 slots, got \(2, 3\)"),
        (good | {"provisional": good["provisional"].repeat(2)}, "expected provisional of 1 rows"),
    ):
        with pytest.raises(BankError, match=message):
            bank.load_contents(bad)
    assert [0, 2, 5] == numbers(bank)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _about(**changes: str) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        known = {"format": "stmemory.bank", "version": "1"} | changes
        save_file(load_file(path), str(path), metadata=known)

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncate, "expected a bank written by save_bank"),
        (lambda path: path.write_bytes(b""), "expected a bank written by save_bank"),
        (lambda path: path.write_bytes(b"not a bank at all"), "expected a bank written by save_bank"),
        (lambda path: path.unlink(), "expected a bank written by save_bank"),
        (lambda path: (path.unlink(), path.mkdir()), "expected a bank written by save_bank"),
        (_about(format="other"), "got other version 1"),
        (_about(version="3"), "version 2 or older.* got stmemory.bank version 3; update stmemory"),
        (_about(version="new"), "version new"),
        (_about(version=""), "version unknown"),
        (lambda path: save_file(load_file(path), str(path)), "got another file version unknown"),
    ],
    ids=["truncated", "empty", "text", "missing", "folder", "format", "newer", "odd", "none", "foreign"],
)
def test_files_that_are_no_bank_are_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """A truncated, foreign, missing or newer file is a WeightsError that says what came, and the bank stays as it
    was."""
    path = tmp_path / "bank.safetensors"
    save_bank(filled(3), path)
    spoil(path)
    bank = filled(3, writes=2)
    with pytest.raises(WeightsError, match=message):
        load_bank(bank, path)
    assert [0, 1] == numbers(bank)


def test_a_bank_that_is_reset_is_as_it_was_made() -> None:
    """It takes templates of any shape and as many rows as come, remembers nothing, and no cache of before holds."""
    bank, new = MemoryBank(3), MemoryBank(3)
    for frame in range(5):
        bank.write(torch.rand(2, 8, 3, 3), frame=frame)
    before = bank.identity
    bank.reset()
    assert (0, 0, {}) == (bank.rows, bank.nbytes, bank.contents())
    assert before is not bank.identity
    for one in (bank, new):
        for frame in range(5):
            one.write(torch.full((1, 4, 2, 2), float(frame + 1)), frame=frame)
    assert new.describe() == bank.describe()
    assert torch.equal(new.templates, bank.templates)
