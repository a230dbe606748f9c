"""Options that commands share, and their types."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stmemory.evaluation.clips import Clip
    from stmemory.memory.policy import UpdatePolicy
    from stmemory.options import TrackingOptions
    from stmemory.predictor import VOSPredictor

__all__ = [
    "Arguments",
    "Commands",
    "add_compute_options",
    "add_data_set_options",
    "add_scene_options",
    "add_weights_options",
    "chosen_clips",
    "chosen_options",
    "chosen_policy",
    "chosen_predictor",
    "number_or_none",
    "one_or_more",
    "tracking_options",
    "whole_or_none",
    "zero_or_more",
]

DTYPES = ("float32", "bfloat16", "float16")
MOST_THREADS = 1024


class Arguments(Protocol):
    """Where arguments are added: a parser, or a group of one, which has no public name."""

    def add_argument(self, name: str, *, metavar: str | None = None, help: str | None = None) -> object:
        """Add an argument."""


class Commands(Protocol):
    """Where a command adds itself: what `ArgumentParser.add_subparsers` gives, which has no public name."""

    def add_parser(
        self, name: str, *, parents: Sequence[argparse.ArgumentParser] = (), help: str | None = None
    ) -> argparse.ArgumentParser:
        """Add a command of that name."""


def tracking_options() -> argparse.ArgumentParser:
    """How to track, as a parent of a command's own parser; see `chosen_predictor`."""
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group(
        "how to track", "defaults are those of the bundled weights; weights of others may have their own"
    )
    add_weights_options(group, default="lite")
    for flag, kind, meaning in (
        ("--memory-size", int, "slots of each object (default: 5)"),
        (
            "--policy",
            str,
            "update policy: name, the paper's letter, or the file of a learned one (default: least_similar)",
        ),
        ("--memory-every", int, "commit every n-th frame to memory (default: 3; the paper has 1)"),
        ("--short-side", whole_or_none, "px that larger frames are shrunk to; none never resizes (default: 480)"),
        (
            "--enlarge",
            float,
            "largest factor by which smaller frames are enlarged, up to --short-side (default: 3 from 120 px, else 1)",
        ),
        (
            "--zoom",
            float,
            "how much more closely than in the frame objects are looked at, at most, while all are seen (default: 2)",
        ),
        ("--top-k", whole_or_none, "read from so many memory cells only (default: none, all)"),
        ("--write-gate", float, "least score of what is memorised, 0 to 1 (default: 0.5)"),
        (
            "--reach",
            number_or_none,
            "share of the short side beyond which regions are false; none keeps all (default: 0.2)",
        ),
    ):
        group.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=meaning)
    return common


def add_weights_options(group: Arguments, *, default: str) -> None:
    """Which weights, and where to compute."""
    group.add_argument(
        "--weights",
        metavar="NAME",
        help=f"bundled name, folder, or owner/name on the Hugging Face Hub (default: {default})",
    )
    group.add_argument("--revision", help="branch, tag or commit, for weights on the Hub")
    group.add_argument("--device", help="such as cuda (default: cpu)")


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """How to compute, beside the device; see `chosen_predictor`."""
    group = parser.add_argument_group("how to compute")
    group.add_argument(
        "--threads",
        dest="compute_threads",
        type=int,
        metavar="N",
        help="of torch, on the CPU (default: torch's own choice, one a core)",
    )
    group.add_argument(
        "--dtype", dest="compute_dtype", choices=DTYPES, help="what the network computes in (default: float32)"
    )


def chosen_predictor(arguments: argparse.Namespace) -> VOSPredictor:
    """The predictor that `tracking_options` and `add_compute_options` describe; sets the number of threads where one is
    given.

    Raises:
        OptionError: an option is out of its range.
    """
    import torch

    from stmemory.errors import OptionError
    from stmemory.predictor import VOSPredictor
    from stmemory.weights.devices import usable_device

    device, threads, name = (
        usable_device(arguments.device),
        getattr(arguments, "compute_threads", None),
        getattr(arguments, "compute_dtype", None),
    )
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionError(
            f"threads: expected 1 to {MOST_THREADS}, got {threads}; the number of cores is the most that helps"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, None: None}
    return VOSPredictor.from_pretrained(
        arguments.weights,
        options=chosen_options(arguments),
        device=device,
        dtype=dtypes[name],
        revision=arguments.revision,
    )


def chosen_options(arguments: argparse.Namespace) -> TrackingOptions:
    """How to track, of what `tracking_options` describe."""
    from stmemory.options import TrackingOptions

    names = ("memory_size", "policy", "memory_every", "short_side", "enlarge", "zoom", "top_k", "write_gate", "reach")
    # what was not given keeps the default that TrackingOptions states
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    if "policy" in given:
        given["policy"] = chosen_policy(given["policy"])
    return TrackingOptions(**given)


def chosen_policy(text: str) -> str | UpdatePolicy:
    """The update policy that `--policy` names: a name as it is; what is no name but a file or a folder is a learned
    policy.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.

    >>> chosen_policy("oldest")
    'oldest'
    """
    from stmemory.memory.policy import is_policy
    from stmemory.weights.tensors import load_policy

    return load_policy(text) if not is_policy(text) and (text.endswith(".safetensors") or Path(text).exists()) else text


def add_data_set_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Clips with true masks: a folder of one's own, or a data set; see `chosen_clips`."""
    parser.add_argument("what", metavar=name, help="a folder of clips; or a data set, such as davis2017, with --root")
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="names of clips (default: all)")
    group = parser.add_argument_group("data sets")
    group.add_argument("--root", type=Path, help="folder into which the data set was unpacked")
    group.add_argument("--split", help="such as val (the default), train, test-dev")
    group.add_argument("--resolution", help="subfolder of the DAVIS layout (default: 480p)")
    group.add_argument("--all-frames", action="store_true", help="YouTube-VOS at full frame rate, not every 5th frame")


def chosen_clips(arguments: argparse.Namespace) -> list[Clip]:
    """The clips that `add_data_set_options` describe."""
    from stmemory.errors import OptionError
    from stmemory.evaluation.clips import find_clips
    from stmemory.evaluation.datasets import DATA_SETS, find_data_set

    names, what = arguments.clips or None, arguments.what
    if arguments.root is None:
        if what in DATA_SETS:
            raise OptionError(
                f"{what}: expected --root with the folder of the data set, got none; for a folder of that name write "
                f"./{what}"
            )
        if arguments.split is not None or arguments.all_frames:
            raise OptionError(
                f"--split, --all-frames: expected a data set ({', '.join(DATA_SETS)}) with --root, got the folder "
                f"{what!r}"
            )
        if not Path(what).exists():
            raise OptionError(
                f"{what}: expected a folder of clips, or with --root one of {', '.join(DATA_SETS)}, got neither; "
                "check the spelling"
            )
        return find_clips(what, names=names, resolution=arguments.resolution)
    return find_data_set(
        what,
        arguments.root,
        split=arguments.split,
        names=names,
        resolution=arguments.resolution,
        all_frames=arguments.all_frames,
    )


def add_scene_options(parser: argparse.ArgumentParser, *, frames: int, height: int, width: int) -> None:
    """Length, size and seed of a rendered clip."""
    for name, default, meaning in (
        ("frames", frames, "frames of the rendered clip"),
        ("height", height, "px"),
        ("width", width, "px"),
        ("seed", 0, "of its scenery"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")


def whole_or_none(text: str) -> int | None:
    """A whole number, or None for the word none."""
    try:
        return None if text.lower() == "none" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number or none, got {text!r}") from error


def number_or_none(text: str) -> float | None:
    """A number, or None for the word none."""
    try:
        return None if text.lower() == "none" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number or none, got {text!r}") from error


def zero_or_more(text: str) -> int:
    """A whole number from 0 on.

    Raises:
        ArgumentTypeError: it is something else.

    >>> zero_or_more("0")
    0
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def one_or_more(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        ArgumentTypeError: it is something else.

    >>> one_or_more("2")
    2
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)
