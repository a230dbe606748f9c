"""What a memory bank and its parts accept; everything else is an error that says what was expected."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from stmemory.errors import OptionError, ShapeError
from stmemory.memory.policy import BankView, Decision

__all__ = [
    "check_decision",
    "check_floats",
    "check_frame",
    "check_fused",
    "check_key",
    "check_part",
    "check_template",
    "checked_rows",
]

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ONE_HOT = 1e-2  # how far the 0 and 1 of a policy's choice may be off
_LAST_FRAME = 1 << 62


def check_floats(what: str, tensor: object, shape: str) -> None:
    """Refuse what is not a tensor of floats.

    Args:
        what: names it in the message, such as "write: a template".
        tensor: what came.
        shape: shape that was expected, in letters.

    Raises:
        ShapeError: it is something else.
    """
    if not isinstance(tensor, Tensor):
        raise ShapeError(
            f"{what}: expected a torch.Tensor {shape}, got "
            f"{type(tensor).__name__}; torch.as_tensor() makes one of an array"
        )
    if tensor.dtype not in _FLOATS:
        raise ShapeError(f"{what}: expected floats {shape}, got {tensor.dtype}; convert it with .float()")


def check_template(template: object) -> None:
    """Refuse what is not a tensor of floats `[R, C, *S]`.

    Raises:
        ShapeError: it is something else.
    """
    check_floats("write: template", template, "[R, C, *S]")
    if isinstance(template, Tensor) and template.is_meta:
        raise ShapeError("write: expected a template with values, got one on the meta device; move it with .to(device)")
    if isinstance(template, Tensor) and template.dim() < 3:
        raise ShapeError(
            f"write: expected a template [R, C, *S], got {tuple(template.shape)}; give vectors as [R, C, 1]"
        )


def check_frame(frame: object) -> None:
    """Refuse what is not the index of a frame.

    Raises:
        OptionError: it is something else.
    """
    try:
        fits = isinstance(frame, SupportsIndex) and -_LAST_FRAME <= operator.index(frame) <= _LAST_FRAME
    except TypeError:  # a tensor of another kind
        fits = False
    if not fits:
        raise OptionError(
            f"write: expected the index of a frame, a whole number, got {frame!r}; 0 will do where there are no frames"
        )


def checked_rows(rows: Sequence[int] | Tensor | None) -> Tensor | None:
    """The rows that a user named, int64 `[R]` on their own device.

    Raises:
        ShapeError: they are not whole numbers.
    """
    if rows is None:
        return None
    if isinstance(rows, Tensor):
        if rows.dim() == 1 and not rows.is_floating_point() and not rows.is_complex() and rows.dtype != torch.bool:
            return rows.to(torch.int64)
        came = f"{rows.dtype} {tuple(rows.shape)}"
        raise ShapeError(f"write: expected rows as whole numbers [R], got {came}; a mask becomes rows with .nonzero()")
    try:
        return torch.tensor([operator.index(row) for row in rows], dtype=torch.int64)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ShapeError(f"write: expected rows as whole numbers, got {rows!r}; such as rows=[0, 2]") from error


def check_part(name: str, part: object) -> None:
    """Refuse a part of a bank that cannot be called, such as a class in the place of its object.

    Raises:
        OptionError: it cannot be called.
    """
    if part is not None and (isinstance(part, type) or not callable(part)):
        came = (
            f"the class {part.__name__}; write {part.__name__}(...)" if isinstance(part, type) else type(part).__name__
        )
        raise OptionError(f"MemoryBank: expected as {name} an object that can be called, got {came}")


def check_key(key: object, template: Tensor) -> Tensor:
    """The keys that a key head made of templates `[P, C, *S]`.

    Raises:
        OptionError: they are not `[P, Ck, *S]`.
    """
    if not isinstance(key, Tensor) or key.dim() < 3 or len(key) != len(template) or not key.is_floating_point():
        came = tuple(key.shape) if isinstance(key, Tensor) else type(key).__name__
        raise OptionError(
            "MemoryBank: expected key to make [P, Ck, *S] of templates "
            f"{tuple(template.shape)}, got {came}; correct the key"
        )
    return key


def check_fused(fused: object, target: Tensor) -> Tensor:
    """The templates that a fusion made for targets `[P, C, *S]`.

    Raises:
        OptionError: they are of another shape.
    """
    if not isinstance(fused, Tensor) or fused.shape != target.shape or not fused.is_floating_point():
        came = tuple(fused.shape) if isinstance(fused, Tensor) else type(fused).__name__
        raise OptionError(
            f"MemoryBank: expected the fusion to make templates {tuple(target.shape)}, got {came}; correct the fusion"
        )
    return fused


def check_decision(decision: object, view: BankView, policy: str) -> tuple[Decision, Tensor]:
    """A policy's decision, and whether it cannot be done, bool `[]`: that flag may be on a device that is better not
    waited for.

    Raises:
        OptionError: it is not a decision, or its tensors are of another shape or place.
    """
    expected = tuple(view.age.shape)
    if not isinstance(decision, Decision):
        raise OptionError(f"policy {policy!r}: expected decide(view) to give a Decision, got {type(decision).__name__}")
    for name, answer in (("remove", decision.remove), ("into", decision.into)):
        if (
            not isinstance(answer, Tensor)
            or tuple(answer.shape) != expected
            or answer.device != view.age.device
            or answer.is_complex()
        ):
            came = (
                f"{answer.dtype} {tuple(answer.shape)} on {answer.device}"
                if isinstance(answer, Tensor)
                else type(answer).__name__
            )
            raise OptionError(
                f"policy {policy!r}: expected {name} as floats {expected} on {view.age.device}, got {came}"
            )
    remove, into = decision.remove.detach().float(), decision.into.detach().float()
    one_hot = (
        ((remove - remove.round()).abs() <= _ONE_HOT).all()
        & (remove >= -_ONE_HOT).all()
        & (remove.round().sum(1) <= 1).all()
    )
    shares = ((into >= 0) & (into <= 1)).all()
    spared = (view.movable | ((remove == 0) & (into == 0))).all()
    return decision, ~(one_hot & shares & spared)
