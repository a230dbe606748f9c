"""Devices: which there are, and moving modules to them."""

from __future__ import annotations

import torch
from torch import nn

from stmemory.errors import OptionError

__all__ = ["devices", "fast_dtype", "place", "place_to_compute", "usable_device"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def devices() -> tuple[str, ...]:
    """What `device` can be here, with the names that the system gives.

    >>> devices()[0].startswith("cpu")
    True
    """
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        found += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def usable_device(name: str | None) -> torch.device:
    """Find a device by its name.

    Args:
        name: such as `"cpu"` or `"cuda:1"`; None is the CPU.

    Raises:
        OptionError: there is no such device here.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # which of them depends on how torch was built
        reason = str(error).splitlines()[0]
        raise OptionError(f"device: expected one of {'; '.join(devices())}, got {name!r}: {reason}") from error
    return device


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 on a CPU with instructions for it (AVX512-BF16, AMX), else float32, also where torch is too old to say
    (before 2.10). What that costs `lite` is in docs/pages/benchmarks.md; of other networks it was not measured.

    >>> fast_dtype("meta")
    torch.float32
    """
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if str(device).startswith("cpu") and has_bfloat16 else torch.float32


def place(module: nn.Module, *, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a module; None leaves it where and what it is.

    Raises:
        OptionError: the device is not there, or the dtype is no float.

    >>> place(nn.Linear(1, 1), device="cpu", dtype=torch.bfloat16)
    """
    if dtype is not None and dtype not in _DTYPES:  # of float8 alone torch can compute nothing
        raise OptionError(
            f"dtype: expected torch.float32, torch.bfloat16, torch.float16 or torch.float64, got {dtype!r}; choose "
            'one of them, or "auto" for a VOSPredictor'
        )
    try:
        module.to(device=None if device is None else torch.device(device), dtype=dtype)
    except (AssertionError, RuntimeError, TypeError) as error:  # torch without CUDA asserts
        raise OptionError(
            f"device: expected one that torch can use here, such as 'cpu', got {device!r}: {error}"
        ) from error


def place_to_compute(module: nn.Module, *, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a module that is to compute; None leaves it where and what it is.

    Raises:
        OptionError: the device is not there or holds shapes alone, or the dtype is no float.

    >>> place_to_compute(nn.Linear(1, 1), device="cpu", dtype=torch.bfloat16)
    """
    place(module, device=device, dtype=dtype)
    if any(parameter.is_meta for parameter in module.parameters()):
        raise OptionError("device: expected one that computes, such as 'cpu', got 'meta', which holds shapes alone")
