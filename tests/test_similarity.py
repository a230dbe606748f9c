"""Facts about how alike two templates are, eq. 1-2."""

from __future__ import annotations

import pytest
import references
import torch
from allocations import allocations

from stmemory.errors import ShapeError
from stmemory.memory import similarities, similarity

SHAPES = [(1, 1, (1,)), (3, 2, (5,)), (2, 4, (2, 3)), (5, 3, (2, 1, 2))]


@pytest.mark.parametrize(("channels", "slots", "size"), SHAPES, ids=str)
def test_both_directions_equal_the_loops(channels: int, slots: int, size: tuple[int, ...]) -> None:
    """`similarities` is eq. 1 from one to many and from many to one, whatever the shape."""
    one, many = torch.randn(2, channels, *size), torch.randn(2, slots, channels, *size)
    forth, back = similarities(one, many)
    expected_forth = [[references.similarity(one[p], many[p, k]) for k in range(slots)] for p in range(2)]
    expected_back = [[references.similarity(many[p, k], one[p]) for k in range(slots)] for p in range(2)]
    torch.testing.assert_close(torch.tensor(expected_forth), forth, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(expected_back), back, atol=1e-6, rtol=0)


def test_one_pair_equals_the_loops() -> None:
    """`similarity` is eq. 1 of each pair."""
    source, target = torch.randn(3, 4, 2, 3), torch.randn(3, 4, 2, 3)
    expected = torch.tensor([references.similarity(source[p], target[p]) for p in range(3)])
    torch.testing.assert_close(expected, similarity(source, target), atol=1e-6, rtol=0)


def test_many_to_one_is_not_symmetric() -> None:
    """A template of one feature is wholly found in one of two, of which only half is found in it."""
    both = torch.eye(2)[None]  # [1, C, n]
    first = both[..., :1].expand(1, 2, 2)
    assert (1.0, 0.5) == (similarity(first, both).item(), similarity(both, first).item())


@pytest.mark.parametrize("working_elements", [1, 12, 20, 36, 1000])
def test_blocks_do_not_change_the_result(working_elements: int) -> None:
    """However few cosines are held at a time, the result is the same."""
    one, many = torch.randn(2, 3, 2, 3), torch.randn(2, 4, 3, 2, 3)
    for expected, actual in zip(
        similarities(one, many), similarities(one, many, working_elements=working_elements), strict=True
    ):
        torch.testing.assert_close(expected, actual)


def test_working_memory_keeps_its_bound() -> None:
    """No allocation is larger than the bound or the inputs, where all cosines at once would be 64 times the bound."""
    one, many = torch.randn(1, 2, 512), torch.randn(1, 3, 2, 512)
    largest = max(allocations(lambda: similarities(one, many, working_elements=8 * 512)))
    assert 0 < largest <= max(4 * 8 * 512, 4 * many.numel()) < 4 * 512 * 512 / 60


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_length_does_not_matter(factor: float) -> None:
    """Eq. 2 divides by both lengths."""
    source, target = torch.randn(1, 4, 6), torch.randn(1, 4, 6)
    torch.testing.assert_close(similarity(source, target), similarity(source * factor, target))


def test_a_template_is_wholly_like_itself() -> None:
    """S(X, X) is 1."""
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(torch.ones(3), similarity(x, x))


def test_features_of_length_zero_have_cosine_zero() -> None:
    """An empty template is neither like nor unlike, and gives no NaN, nor does its gradient."""
    empty = torch.zeros(1, 3, 4, requires_grad=True)
    result = similarity(empty, torch.randn(1, 3, 4))
    result.sum().backward()
    assert [0.0] == result.tolist()
    assert empty.grad is not None and bool(empty.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype: torch.dtype) -> None:
    """Templates in half precision are compared as their float32 selves, inside autocast too."""
    source, target = torch.randn(2, 4, 6).to(dtype), torch.randn(2, 4, 6).to(dtype)
    expected = similarity(source.float(), target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = similarity(source, target)
    assert torch.float32 == actual.dtype
    torch.testing.assert_close(expected, actual, atol=0, rtol=0)


def test_no_pairs_give_no_similarities() -> None:
    """Empty in, empty out."""
    forth, back = similarities(torch.zeros(0, 3, 4), torch.zeros(0, 2, 3, 4))
    assert (0, 2) == forth.shape == back.shape


def test_gradients_are_those_of_eq_1() -> None:
    """The analytic gradient equals the numeric one."""
    pair = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: similarity(x[0], x[1]), (pair,))


@pytest.mark.parametrize(
    ("one", "many"),
    [((1, 3, 4), (1, 2, 3, 5)), ((1, 3, 4), (2, 2, 3, 4)), ((1, 3, 4), (1, 2, 4, 4)), ((1, 3), (1, 2, 3))],
    ids=["cells", "pairs", "channels", "no cells"],
)
def test_shapes_that_do_not_fit_are_refused(one: tuple[int, ...], many: tuple[int, ...]) -> None:
    """Both shapes are in the message."""
    with pytest.raises(ShapeError, match=r"expected \[P, C, \*S\] and \[P, K, C, \*S\], got"):
        similarities(torch.zeros(one), torch.zeros(many))


def test_two_templates_of_different_shape_are_refused() -> None:
    """One pair needs one shape."""
    with pytest.raises(ShapeError, match=r"one shape .* got \(1, 3, 4\) and \(1, 3, 5\)"):
        similarity(torch.zeros(1, 3, 4), torch.zeros(1, 3, 5))
