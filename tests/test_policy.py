"""Facts about the update policies, on hand-drawn matrices."""

from __future__ import annotations

import pytest
import references
import torch
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.memory import (
    BankView,
    Decision,
    Drop,
    InputToMemory,
    LearnedPolicy,
    LeastSimilar,
    MemoryBank,
    MostSimilar,
    Newest,
    Oldest,
    UpdatePolicy,
    policy_names,
    update_policy,
)
from stmemory.memory.policy import with_a_free_slot

RULES = ("oldest", "newest", "least_similar", "most_similar", "drop", "input_to_memory")

# Slot 1 is the oldest and pinned; the others, oldest first, are 3, 0, 4, 2.
AGE = [[2, 5, 0, 4, 1]]
PINNED = [[False, True, False, False, False]]
# S(X_i, X_j) in row i. Traps: the pinned slot and the pairs younger to older hold the extremes.
SIMILARITY = [
    [1.0, -0.9, 0.1, -0.8, 0.8],  # 0 older than 4, 2
    [0.9, 1.0, -0.9, 0.9, -0.9],  # pinned
    [0.9, 0.95, 1.0, -0.7, 0.95],  # the newest
    [0.5, 0.95, 0.6, 1.0, 0.2],  # the oldest that can move
    [0.97, -0.9, 0.4, 0.96, 1.0],  # 4 older than 2
]


def view(
    similarity: object = SIMILARITY, age: object = AGE, pinned: object = PINNED, dtype: torch.dtype = torch.float32
) -> BankView:
    ages = torch.tensor(age)
    return BankView(
        torch.as_tensor(similarity, dtype=dtype).reshape(*ages.shape, -1),
        ages,
        torch.ones_like(ages).bool(),
        torch.tensor(pinned),
    )


def drawn_view(rows: int, slots: int) -> BankView:
    """Any similarities, ages in any order, any pins that leave at least one slot movable."""
    pinned = torch.rand(rows, slots) < 0.4
    pinned[torch.arange(rows), torch.randint(slots, (rows,))] = False
    age = torch.stack([torch.randperm(slots) for _ in range(rows)]) * 3
    return BankView(torch.rand(rows, slots, slots) * 2 - 1, age, torch.ones(rows, slots).bool(), pinned)


def answer(decision: Decision, row: int = 0) -> tuple[list[int], list[int]]:
    """Slots that go, slots that are changed."""
    assert set(decision.remove.unique().tolist()) | set(decision.into.unique().tolist()) <= {0.0, 1.0}
    return decision.remove[row].nonzero().flatten().tolist(), decision.into[row].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("policy", "remove", "into"),
    [
        (Oldest(), [3], [0, 2, 4]),
        (Newest(), [2], [0, 3, 4]),
        (LeastSimilar(), [0], [2]),
        (MostSimilar(), [0], [4]),
        (Drop(), [3], []),
        (InputToMemory(), [], [0, 2, 3, 4]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rule_on_a_hand_drawn_matrix(policy: UpdatePolicy, remove: list[int], into: list[int]) -> None:
    """Each rule goes by age, not position, lets only older go into younger, and leaves the pinned slot alone."""
    assert (remove, into) == answer(policy.decide(view()))


@pytest.mark.parametrize("policy", [LeastSimilar(), MostSimilar()], ids=lambda p: p.name)
def test_ties_go_to_the_oldest_pair(policy: UpdatePolicy) -> None:
    """Among pairs that are equally alike, the oldest i is taken, then the oldest j."""
    assert ([3], [0]) == answer(policy.decide(view([[0.5] * 5] * 5)))


@pytest.mark.parametrize("policy", [LeastSimilar(), MostSimilar()], ids=lambda p: p.name)
def test_without_pins_the_oldest_takes_part(policy: UpdatePolicy) -> None:
    """A pair that holds the oldest slot may be chosen where nothing is pinned."""
    expected = {"least_similar": ([1], [2]), "most_similar": ([1], [0])}[policy.name]  # ties of -0.9 and 0.9
    similarity = [[0.0] * 5, [0.9, 1.0, -0.9, 0.0, 0.0], *[[0.0] * 5] * 3]
    assert expected == answer(policy.decide(view(similarity, pinned=[[False] * 5])))


@pytest.mark.parametrize("name", RULES)
def test_rules_equal_the_paper_on_drawn_matrices(name: str) -> None:
    """For any similarities, ages and pins, every row's decision is that of section 3.2, read literally."""
    drawn = drawn_view(60, 5)
    decision = update_policy(name).decide(drawn)
    for row in range(60):
        ages, movable = drawn.age[row].tolist(), drawn.movable[row].tolist()
        slots = sorted((k for k in range(5) if movable[k]), key=lambda k: -ages[k])
        scores = drawn.similarity[row].tolist()
        i, into = references.rule(name, lambda a, b, scores=scores: scores[a][b], slots)
        assert ([] if i is None else [i], sorted(into)) == answer(decision, row)


@pytest.mark.parametrize("name", policy_names())
def test_a_single_movable_slot_goes_and_is_lost(name: str) -> None:
    """With all others pinned there is nothing to distil into; I2M changes it and stores nothing."""
    pinned = [[True, True, True, False, True]]
    expected = ([], [3]) if name == "input_to_memory" else ([3], [])
    policy = update_policy(name)
    if isinstance(policy, LearnedPolicy):
        policy.eval()
    assert expected == answer(policy.decide(view(pinned=pinned)))


def test_a_slot_is_freed_for_templates_that_must_be_stored() -> None:
    """Where no slot goes the oldest does, lost; where one goes nothing changes."""
    assert ([3], []) == answer(with_a_free_slot(InputToMemory().decide(view()), view()))
    assert ([0], [2]) == answer(with_a_free_slot(LeastSimilar().decide(view()), view()))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("A", "oldest"),
        ("B", "newest"),
        ("C", "least_similar"),
        ("D", "most_similar"),
        ("I2M", "input_to_memory"),
        ("c", "least_similar"),
        *[(name, name) for name in policy_names()],
    ],
)
def test_names_and_letters(given: str, name: str) -> None:
    """A policy is known by its name and by the paper's letter, in the registry and in a bank."""
    assert name == update_policy(given).name == MemoryBank(3, policy=given).policy.name


def test_every_rule_has_a_name() -> None:
    """The registry knows the six rules and the learned policy."""
    assert (*RULES, "learned") == policy_names()


@pytest.mark.parametrize("given", ["E", "", "Oldest", "e"])
def test_an_unknown_name_lists_the_known_ones(given: str) -> None:
    """The error names what was asked for and all that there is."""
    with pytest.raises(OptionError) as error:
        update_policy(given)
    assert all(name in str(error.value) for name in (*policy_names(), "A, B, C, D, I2M", repr(given)))


def test_an_object_comes_back_as_it_is() -> None:
    """Any object with name, uses_similarity and decide is a policy; nothing else is."""

    class Mine:
        name, uses_similarity = "mine", False

        def decide(self, view: BankView) -> Decision:
            return Drop().decide(view)

    policy = Mine()
    assert policy is update_policy(policy)
    with pytest.raises(OptionError, match=r"name, uses_similarity and decide\(view\), got object"):
        update_policy(object())


def test_least_similar_is_the_default() -> None:
    """The paper's choice is rule C."""
    assert "least_similar" == MemoryBank(5).policy.name


# The learned policy.


def test_learned_eval_is_the_argmax_and_repeats_itself() -> None:
    """In eval mode the slot with the best score goes, always, and nothing random is drawn."""
    policy, drawn = LearnedPolicy().eval(), drawn_view(40, 5)
    first, noise = policy.decide(drawn), torch.random.get_rng_state()
    second = policy.decide(drawn)
    assert torch.equal(first.remove, second.remove) and torch.equal(first.into, second.into)
    assert torch.equal(noise, torch.random.get_rng_state())
    assert not first.remove.requires_grad


def test_learned_draws_are_one_hot_with_gradients() -> None:
    """In training mode both draws are one-hot within rounding, apart, and reach every parameter with a gradient."""
    policy, drawn = LearnedPolicy(), drawn_view(40, 5)
    drawn.pinned[:, 1:3] = False
    decision = policy.decide(drawn)
    for draw in (decision.remove, decision.into):
        torch.testing.assert_close(
            torch.nn.functional.one_hot(draw.argmax(1), 5).float(), draw.detach(), atol=1e-6, rtol=0
        )
    assert not (decision.remove.argmax(1) == decision.into.argmax(1)).any()
    (decision.remove * torch.randn(5)).sum().backward(retain_graph=True)
    silent = [
        n for n, p in policy.remove_score.named_parameters() if p.grad is None or not (p.grad.any() or n == "2.bias")
    ]
    (decision.into * torch.randn(5)).sum().backward()
    silent += [
        n for n, p in policy.into_score.named_parameters() if p.grad is None or not (p.grad.any() or n == "2.bias")
    ]
    assert [] == silent  # the last bias moves all scores alike, so softmax does not see it


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_learned_never_touches_a_pinned_slot(training: bool) -> None:
    """Over 300 drawn rows neither draw falls on a pinned slot, and no gradient would move one there."""
    policy = LearnedPolicy(temperature=5.0).train(training)
    drawn = drawn_view(300, 4)
    decision = policy.decide(drawn)
    assert 0.0 == float((decision.remove.abs() + decision.into.abs()).detach()[drawn.pinned].max())


def test_learned_noise_is_seeded() -> None:
    """The same seed gives the same draws, `seed()` starts anew, and another seed gives others."""
    drawn = drawn_view(50, 5)

    def draws(policy: LearnedPolicy) -> list[list[int]]:
        policy.load_state_dict(weights)
        return [policy.decide(drawn).remove.argmax(1).tolist() for _ in range(2)]

    one, other = LearnedPolicy(seed=3), LearnedPolicy(seed=4)
    weights = one.state_dict()
    expected = draws(one)
    assert expected[0] != expected[1]
    assert expected != draws(other)
    one.seed(3)
    assert expected == draws(one)
    assert expected == draws(LearnedPolicy(seed=3))


def test_learned_by_name_is_always_the_same() -> None:
    """The weights are drawn from the seed alone, whatever torch's own generator has drawn before."""
    one = update_policy("learned")
    torch.rand(5)
    other = update_policy("learned")
    assert isinstance(one, LearnedPolicy) and isinstance(other, LearnedPolicy)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.remove_score[0].weight, LearnedPolicy(seed=1).remove_score[0].weight)


def test_learned_draws_follow_the_scores() -> None:
    """With Gumbel noise at any temperature, a slot is drawn as often as the softmax of its score says, within 3 %."""
    policy = LearnedPolicy(temperature=0.3)
    score = torch.tensor([0.5, -0.5, 0.0, 1.5])
    many = score.expand(20_000, 4)
    drawn = policy._draw(many, torch.tensor([True, True, False, True]).expand_as(many)).detach()
    expected = score.masked_fill(torch.tensor([False, False, True, False]), -torch.inf).softmax(0)
    torch.testing.assert_close(expected, drawn.mean(0), atol=0.03, rtol=0)


def test_learned_temperature_softens_the_gradient() -> None:
    """At a low temperature the draw hardly depends on the scores, at 1 it does."""

    def slope(temperature: float) -> float:
        policy, drawn = LearnedPolicy(temperature=temperature, seed=1), view()
        torch.manual_seed(7)
        for weight in policy.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        (policy.decide(drawn).remove * torch.arange(5.0)).sum().backward()
        last: Tensor = policy.remove_score[2].weight
        assert last.grad is not None
        return float(last.grad.norm())

    assert slope(0.02) < 0.01 * slope(1.0)


def test_learned_draws_are_exact_under_autocast() -> None:
    """Mixed precision does not reach the policy: over a thousand draws each choice is exactly one-hot, and as without
    it."""
    plain, mixed, seen = LearnedPolicy(seed=1), LearnedPolicy(seed=1), view()
    for _ in range(1000):
        expected = plain.decide(seen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            decision = mixed.decide(seen)
        assert torch.equal(expected.remove, decision.remove) and torch.equal(expected.into, decision.into)
        assert {0.0, 1.0} >= set(decision.remove.flatten().tolist())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_learned_refuses_a_temperature_that_is_not_positive(temperature: float) -> None:
    """A temperature of zero or less, or none, divides by nothing."""
    with pytest.raises(OptionError, match="temperature above 0"):
        LearnedPolicy(temperature=temperature)
