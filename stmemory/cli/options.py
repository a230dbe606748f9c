"""Options that commands share, and their types."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from stmemory.evaluation.clips import Clip
    from stmemory.memory.policy import UpdatePolicy
    from stmemory.options import TrackingOptions
    from stmemory.predictor import VOSPredictor
    from stmemory.prompts import Prompt

__all__ = [
    "Arguments",
    "Commands",
    "Place",
    "add_compute_options",
    "add_data_set_options",
    "add_prompt_options",
    "add_scene_options",
    "add_weights_options",
    "chosen_clips",
    "chosen_dtype",
    "chosen_options",
    "chosen_policy",
    "chosen_predictor",
    "chosen_prompts",
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
        (
            "--margin",
            number_or_none,
            "share of the short side around an object's last place in which it is looked for and memorised; none "
            "looks at all of every frame (default: 0.2)",
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
        "--dtype",
        dest="compute_dtype",
        choices=(*DTYPES, "auto"),
        help="what the network computes in (default: float32); auto: bfloat16 on processors that are faster with it",
    )


_PROMPTS = {"--point": "ID:X,Y", "--not-point": "ID:X,Y", "--box": "ID:X0,Y0,X1,Y1"}


@dataclass(frozen=True)
class Place:
    """A point or a box of an object in a frame.

    Attributes:
        frame: the frame's number, from 0.
        object_id: None is of no object: a pixel alone.
        numbers: x and y, or left, top, right and bottom, px.
    """

    frame: int
    object_id: int | None
    numbers: tuple[float, ...]


def add_prompt_options(parser: argparse.ArgumentParser, *, frames: bool) -> None:
    """Points and boxes of objects; see `chosen_prompts`.

    Args:
        parser: of the command.
        frames: whether prompts of later frames are taken; where they are not, `--point X,Y` is a pixel alone.
    """
    group = parser.add_argument_group("objects by points and boxes in px, each repeatable")
    later = "; with FRAME: in a later one, counted from 0" if frames else ""
    for flag, meaning in (
        ("--point", f"a pixel of the object ID in the first frame{later}"),
        ("--not-point", "a pixel that is not of the object"),
        ("--box", "a box around the object: left, top, right and bottom"),
    ):
        form = f"{'[FRAME:]' * frames}{_PROMPTS[flag]}"
        kind = partial(_place, flag, frames=frames)
        group.add_argument(flag, type=kind, action="append", default=[], metavar=form, help=meaning)
    group.add_argument(
        "--prompter",
        metavar="NAME",
        help="folder or owner/name of SAM 2's weights, which make the masks of points and boxes (default: lite makes "
        "them itself; others need it)",
    )


def chosen_prompts(arguments: argparse.Namespace) -> dict[int, tuple[Prompt, ...]]:
    """The prompts that `add_prompt_options` describe, by the frame's number: all that is said of an object in a frame
    is one prompt.

    Raises:
        OptionError: two boxes are of one object, or a prompter has no prompts.
        MaskError: an id or a box cannot be used.
    """
    from stmemory.errors import OptionError
    from stmemory.prompts import Prompt

    said: dict[tuple[int, int], tuple[list[tuple[float, ...]], ...]] = {}
    for number, places in enumerate((arguments.point, arguments.not_point, arguments.box)):
        for place in places:
            if place.object_id is not None:
                parts = said.setdefault((place.frame, place.object_id), ([], [], []))
                parts[number].append(place.numbers)
    if arguments.prompter is not None and not said:
        raise OptionError("--prompter: expected with --point or --box, got it without; add one, or leave it out")
    found: dict[int, tuple[Prompt, ...]] = {}
    for (frame, object_id), (points, not_points, boxes) in sorted(said.items()):
        if len(boxes) > 1:
            raise OptionError(f"--box: expected one of an object in a frame, got {len(boxes)} of object {object_id}")
        box = next(((x0, y0, x1, y1) for x0, y0, x1, y1 in boxes), None)
        prompt = Prompt(
            object_id, points=[(x, y) for x, y in points], not_points=[(x, y) for x, y in not_points], box=box
        )
        found[frame] = (*found.get(frame, ()), prompt)
    return found


def _place(flag: str, text: str, *, frames: bool) -> Place:
    """A text such as `12:7:320,180`, where the frame may be left out.

    Raises:
        ArgumentTypeError: it is malformed.

    >>> _place("--point", "7:320,180", frames=True)
    Place(frame=0, object_id=7, numbers=(320.0, 180.0))
    """
    form = _PROMPTS[flag]
    number, more = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)", form.count(",")
    found = re.fullmatch(rf"(?:(?:([0-9]{{1,9}}):)?([0-9]{{1,10}}):)?({number}(?:, *{number}){{{more}}})", text)
    frame, object_id, numbers = found.groups() if found else (None, None, None)
    bare = object_id is None and (frames or flag != "--point")
    if numbers is None or bare or (frame is not None and not frames):
        example = "7:320,180" if more == 1 else "7:300,150,360,210"
        later = f", or FRAME:{form} of a later frame" if frames else ""
        raise argparse.ArgumentTypeError(f"expected {form}, such as {example}{later}, got {text!r}")
    where = tuple(float(part) for part in numbers.split(","))
    return Place(int(frame or 0), None if object_id is None else int(object_id), where)


def chosen_dtype(name: str | None) -> torch.dtype | Literal["auto"] | None:
    """What `--dtype` names, as `VOSPredictor` takes it."""
    import torch

    if name is None or name == "auto":
        return "auto" if name else None
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def chosen_predictor(arguments: argparse.Namespace) -> VOSPredictor:
    """The predictor that `tracking_options`, `add_compute_options` and `add_prompt_options` describe; sets the number
    of threads where one is given.

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
    return VOSPredictor.from_pretrained(
        arguments.weights,
        options=chosen_options(arguments),
        device=device,
        dtype=chosen_dtype(name),
        prompter=getattr(arguments, "prompter", None),
        revision=arguments.revision,
    )


def chosen_options(arguments: argparse.Namespace) -> TrackingOptions:
    """How to track, of what `tracking_options` describe."""
    from stmemory.options import TrackingOptions

    names = (field.name for field in dataclasses.fields(TrackingOptions))
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
