"""Names of the update policies. The only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from stmemory.errors import OptionError
from stmemory.memory.learned import LearnedPolicy
from stmemory.memory.policy import Drop, InputToMemory, LeastSimilar, MostSimilar, Newest, Oldest, UpdatePolicy

__all__ = ["is_policy", "policy_names", "update_policy"]

_POLICIES: dict[str, Callable[[], UpdatePolicy]] = {
    "oldest": Oldest,
    "newest": Newest,
    "least_similar": LeastSimilar,
    "most_similar": MostSimilar,
    "drop": Drop,
    "input_to_memory": InputToMemory,
    "learned": LearnedPolicy,
}
_LETTERS = {"A": "oldest", "B": "newest", "C": "least_similar", "D": "most_similar", "I2M": "input_to_memory"}


def policy_names() -> tuple[str, ...]:
    """The names that `update_policy` knows, without the paper's letters.

    >>> "least_similar" in policy_names()
    True
    """
    return tuple(_POLICIES)


def is_policy(name: str) -> bool:
    """Whether `update_policy` knows that name or letter.

    >>> is_policy("i2m"), is_policy("mine.safetensors")
    (True, False)
    """
    return _LETTERS.get(name.upper(), name) in _POLICIES


def update_policy(policy: str | UpdatePolicy) -> UpdatePolicy:
    """A policy by its name or the paper's letter, in either case; an object that already is one comes back as it is.

    Raises:
        OptionError: there is no such name, or the object is not an `UpdatePolicy`, as a class of such is not.

    >>> update_policy("C").name, update_policy("i2m").name
    ('least_similar', 'input_to_memory')
    """
    if isinstance(policy, str):
        if not is_policy(policy):
            raise OptionError(
                f"update policy: expected one of {', '.join(_POLICIES)} (or {', '.join(_LETTERS)}), got {policy!r}"
            )
        return _POLICIES[_LETTERS.get(policy.upper(), policy)]()
    if isinstance(policy, type):
        raise OptionError(
            f"update policy: expected a name or an object, got the class {policy.__name__}; write {policy.__name__}()"
        )
    if not isinstance(policy, UpdatePolicy) or not isinstance(policy.name, str) or not callable(policy.decide):
        raise OptionError(
            "update policy: expected a name or an object with name, uses_similarity and decide(view), got "
            f"{type(policy).__name__}"
        )
    return policy
