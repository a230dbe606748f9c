"""What a bank is given that it cannot use: told at once, in the library's own errors, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory import BankView, Decision, FusionCell, MeanFusion, MemoryBank
from stmemory.memory.policy import LeastSimilar, update_policy
from stmemory.options import PredictionOptions, TrackingOptions


def full_bank(**parts: object) -> MemoryBank:
    """Three slots in use, the first of which is pinned."""
    bank = MemoryBank(3, **parts)
    for frame in range(3):
        with torch.no_grad():
            bank.write(
                torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(frame)), frame=frame, pinned=frame == 0
            )
    return bank


def contents(bank: MemoryBank) -> dict[str, list[object]]:
    return {name: tensor.tolist() for name, tensor in bank.contents().items()}


TEMPLATE = torch.rand(2, 4, 5)


def spoilt(value: float) -> Tensor:
    """A template of which one value is another."""
    template = TEMPLATE.clone()
    template[1, 2, 3] = value
    return template


BAD_WRITES: dict[str, tuple[Callable[[MemoryBank], None], type[Exception], str]] = {
    "NaN": (lambda bank: bank.write(spoilt(float("nan"))), BankError, "finite template"),
    "infinity": (lambda bank: bank.write(spoilt(-float("inf"))), BankError, "finite template"),
    "NaN to be pinned": (
        lambda bank: bank.write(spoilt(float("nan")), pinned=True),
        BankError,
        "finite template|would pin",
    ),
    "NaN of one row": (lambda bank: bank.write(spoilt(float("nan"))[1:], rows=[1]), BankError, "finite template"),
    "infinite in float32": (lambda bank: bank.write(spoilt(1.0).double() * 1e300), BankError, "finite template"),
    "whole numbers": (lambda bank: bank.write(torch.ones(2, 4, 5, dtype=torch.int64)), ShapeError, "floats"),
    "flags": (lambda bank: bank.write(torch.ones(2, 4, 5, dtype=torch.bool)), ShapeError, "floats"),
    "complex": (lambda bank: bank.write(torch.ones(2, 4, 5, dtype=torch.complex64)), ShapeError, "floats"),
    "float8": (lambda bank: bank.write(TEMPLATE.to(torch.float8_e4m3fn)), ShapeError, "floats"),
    "no content": (lambda bank: bank.write(torch.empty(2, 4, 5, device="meta")), ShapeError, "meta"),
    "an array": (lambda bank: bank.write(np.ones((2, 4, 5), np.float32)), ShapeError, "ndarray"),
    "None": (lambda bank: bank.write(None), ShapeError, "NoneType"),
    "rows that are no numbers": (lambda bank: bank.write(TEMPLATE, rows=["a", "b"]), ShapeError, "rows"),
    "rows between rows": (lambda bank: bank.write(TEMPLATE, rows=[0.5, 1.5]), ShapeError, "rows"),
    "a mask of rows": (lambda bank: bank.write(TEMPLATE, rows=torch.tensor([True, True])), ShapeError, "nonzero"),
    "a frame that is no number": (lambda bank: bank.write(TEMPLATE, frame="7"), OptionError, "frame"),
    "a frame between frames": (lambda bank: bank.write(TEMPLATE, frame=1.5), OptionError, "frame"),
    "a frame beyond counting": (lambda bank: bank.write(TEMPLATE, frame=10**30), OptionError, "frame"),
}


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "inference"])
@pytest.mark.parametrize("case", BAD_WRITES)
def test_bad_writes_are_errors_and_change_nothing(case: str, grad: bool) -> None:
    """An empty bank stays empty, and a full one holds what it held."""
    write, kind, words = BAD_WRITES[case]
    with torch.enable_grad() if grad else torch.inference_mode():
        for bank in (MemoryBank(3), full_bank()):
            before = contents(bank)
            if bank.rows or case not in ("NaN of one row", "infinite in float32"):
                with pytest.raises(kind, match=words):
                    write(bank)
            assert before == contents(bank)


def test_templates_with_a_gradient_may_be_anything() -> None:
    """In training NaN goes on to the loss, where a step that is lost is noticed."""
    bank = full_bank()
    bank.write(spoilt(float("nan")).requires_grad_())
    assert bool(bank.templates.isnan().any())


class Answers:
    """A policy that gives the same answer to all."""

    name, uses_similarity = "mine", False

    def __init__(self, remove: object, into: object) -> None:
        self.decision = Decision(remove, into)

    def decide(self, view: BankView) -> Decision:
        return self.decision


def rows_of(*slots: float) -> Tensor:
    return torch.tensor([slots, slots], dtype=torch.float32)


BAD_DECISIONS = {
    "removes the pinned": (rows_of(1, 0, 0), rows_of(0, 1, 0)),
    "changes the pinned": (rows_of(0, 1, 0), rows_of(1, 0, 0)),
    "removes two": (rows_of(0, 1, 1), rows_of(0, 0, 0)),
    "removes a half": (rows_of(0, 0.5, 0), rows_of(0, 0, 1)),
    "removes less than nothing": (rows_of(0, -1, 0), rows_of(0, 0, 1)),
    "moves beyond": (rows_of(0, 1, 0), rows_of(0, 0, 1.5)),
    "moves away": (rows_of(0, 1, 0), rows_of(0, 0, -0.5)),
    "is NaN": (rows_of(0, float("nan"), 0), rows_of(0, 0, 1)),
    "moves by NaN": (rows_of(0, 1, 0), rows_of(0, 0, float("nan"))),
    "is of one row": (rows_of(0, 1, 0)[:1], rows_of(0, 0, 1)[:1]),
    "is the index of a slot": (torch.tensor([1, 1]), torch.tensor([2, 2])),
    "is a list": ([[0, 1, 0]] * 2, [[0, 0, 1]] * 2),
}


@pytest.mark.parametrize("case", BAD_DECISIONS)
def test_decisions_that_cannot_be_done_are_errors(case: str) -> None:
    """The error names the policy, and the bank holds what it held."""
    bank = full_bank(policy=Answers(*BAD_DECISIONS[case]))
    before = contents(bank)
    with torch.inference_mode(), pytest.raises(OptionError, match="policy 'mine'"):
        bank.write(TEMPLATE)
    assert before == contents(bank)


def test_a_decision_of_flags_will_do() -> None:
    """A policy may answer with bool tensors."""
    bank = full_bank(policy=Answers(rows_of(0, 1, 0).bool(), rows_of(0, 0, 1).bool()))
    bank.write(TEMPLATE, frame=7)
    assert [0, 2, 7] == sorted(slot.frame for slot in bank.describe())


class NoDecision(Answers):
    def decide(self, view: BankView) -> Decision:
        return None


def test_a_policy_without_an_answer_is_an_error() -> None:
    """One that forgets to return is told."""
    with pytest.raises(OptionError, match="NoneType"):
        full_bank(policy=NoDecision(0, 0)).write(TEMPLATE)


@pytest.mark.parametrize(
    "make",
    [
        update_policy,
        lambda policy: MemoryBank(3, policy=policy),
        lambda p: TrackingOptions(policy=p),
        lambda p: PredictionOptions(policy=p),
    ],
    ids=["registry", "bank", "tracking", "prediction"],
)
def test_a_policy_given_as_a_class_is_an_error(make: Callable[[object], object]) -> None:
    """The error says how to make an object of it."""
    with pytest.raises(OptionError, match=r"LeastSimilar\(\)"):
        make(LeastSimilar)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"fusion": MeanFusion}, r"MeanFusion\(\.\.\.\)"),
        ({"fusion": "mean"}, "fusion"),
        ({"key": nn.Identity}, r"Identity\(\.\.\.\)"),
        ({"capacity": 2.5}, "whole number"),
        ({"capacity": "5"}, "whole number"),
        ({"capacity": 1}, "2 slots or more"),
    ],
    ids=str,
)
def test_parts_that_are_none_are_errors(parts: dict[str, object], words: str) -> None:
    """A class in the place of an object, or another kind of thing, is told when the bank is made."""
    with pytest.raises(OptionError, match=words):
        MemoryBank(**{"capacity": 3, **parts})


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"fusion": lambda source, target, sizes: target[:, :2]}, OptionError),
        ({"fusion": lambda source, target, sizes: None}, OptionError),
        ({"fusion": lambda source, target, sizes: target * float("nan")}, BankError),
        ({"fusion": lambda source, target, sizes: target / 0}, BankError),
    ],
    ids=["narrow", "nothing", "NaN", "infinity"],
)
def test_a_fusion_that_makes_no_template_is_an_error(parts: dict[str, object], kind: type[Exception]) -> None:
    """What it makes is looked at before it is stored."""
    bank = full_bank(**parts)
    before = contents(bank)
    with torch.inference_mode(), pytest.raises(kind, match="fusion"):
        bank.write(TEMPLATE)
    assert before == contents(bank)


@pytest.mark.parametrize(
    "key", [lambda template: None, lambda template: template[:1], lambda template: template.mean()]
)
def test_a_key_that_makes_no_keys_is_an_error(key: Callable[[Tensor], object]) -> None:
    """It is told at the first write."""
    with pytest.raises(OptionError, match="key"):
        MemoryBank(3, key=key).write(TEMPLATE)


def test_a_write_that_fails_in_its_last_part_is_undone() -> None:
    """A key that runs out of memory after the template was stored leaves the bank as it was."""
    calls = [None] * 4

    def key(template: Tensor) -> Tensor:
        if not calls:
            raise RuntimeError("out of memory")
        calls.pop()
        return template

    bank = full_bank(key=key)
    before, version = contents(bank), bank.version.tolist()
    with torch.no_grad(), pytest.raises(RuntimeError, match="out of memory"):
        bank.write(TEMPLATE)
    assert (before, version) == (contents(bank), bank.version.tolist())


# The mean, and shares of a fusion, in half precision.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [None, torch.tensor([[1, 2]])], ids=["alike", "sizes"])
def test_the_mean_of_large_values_is_finite(dtype: torch.dtype, sizes: Tensor | None) -> None:
    """Values near the end of half precision, of one sign and of both, have the mean that float64 gives, rounded."""
    most = torch.finfo(dtype).max
    for one, other in ((most, most), (most, -most), (0.75 * most, most)):
        source, target = (torch.full((1, 2, 3), value, dtype=dtype) for value in (one, other))
        share = 0.5 if sizes is None else 1 / 3
        expected = (source.double() * share + target.double() * (1 - share)).to(dtype)
        found = MeanFusion()(source, target, sizes)
        assert dtype == found.dtype and bool(found.isfinite().all())
        torch.testing.assert_close(expected, found)


def test_a_share_of_a_large_step_is_finite() -> None:
    """Half of the way from one end of float16 to the other is 0."""
    most = torch.finfo(torch.float16).max
    bank = MemoryBank(
        2, policy=Answers(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])), fusion=lambda s, t, n: -t
    )
    for _ in range(3):
        bank.write(torch.full((1, 2, 3), most, dtype=torch.float16))
    assert {0.0, most} == set(bank.templates.flatten().tolist())


def test_a_fusion_cell_still_checks_at_the_first_write() -> None:
    """A template of another width is told then."""
    with pytest.raises(ShapeError, match="FusionCell"):
        MemoryBank(3, fusion=FusionCell(8)).write(torch.rand(1, 4, 3, 3))
