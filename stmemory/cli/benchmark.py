"""The commands benchmark and benchmark ablation."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.cli.options import (
    DTYPES,
    Commands,
    add_data_set_options,
    add_scene_options,
    chosen_clips,
    chosen_dtype,
    chosen_options,
    chosen_predictor,
    tracking_options,
)
from stmemory.cli.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    complain,
    end_line,
    progress_on_stderr,
    say_at_once,
    score_heads,
    score_line,
)
from stmemory.io.files import out_folder

if TYPE_CHECKING:
    from stmemory.evaluation.ablation import Row, RowResult
    from stmemory.evaluation.growth import GrowthReport, Slope
    from stmemory.evaluation.workers import News
    from stmemory.jobs.track import Stop
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.predictor import VOSPredictor

__all__ = ["add_ablation", "add_benchmark"]


def add_ablation(commands: Commands) -> None:
    """Offer the command."""
    ablation = commands.add_parser(
        "ablation", parents=[tracking_options()], help="J, F and bytes of each way to keep the memory"
    )
    add_data_set_options(ablation, "FOLDER_OR_DATA_SET")
    ablation.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder: ablation.md, ablation.json, a folder for each row",
    )
    ablation.add_argument(
        "--rules",
        nargs="+",
        metavar="RULE",
        help="policies by name or letter, or matching, without the discriminative read (default: A B C D drop I2M "
        "learned matching)",
    )
    ablation.add_argument(
        "--learned",
        type=Path,
        metavar="FILE",
        help="policy.safetensors, or its folder, for the rule learned; left out without",
    )
    ablation.add_argument(
        "--growing",
        type=int,
        default=5,
        metavar="N",
        help="the reference keeps every N-th frame for ever; 0 for none (default: 5)",
    )
    ablation.add_argument(
        "--rule-weights",
        nargs="+",
        default=[],
        metavar="RULE=WEIGHTS",
        help="other weights of some rules, such as those trained under them",
    )
    ablation.add_argument("--frames", type=int, metavar="N", help="only the first frames of each clip")
    begin = ablation.add_mutually_exclusive_group()
    begin.add_argument(
        "--resume",
        action="store_true",
        help="go on with what is in OUT; finished clips of a rule stay, rules may be added",
    )
    begin.add_argument("--force", action="store_true", help="begin again, deleting what an earlier run wrote")
    ablation.set_defaults(run=_ablation)


def _ablation(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError
    from stmemory.evaluation.ablation import (
        MATCHING,
        RULES,
        ablation_rows,
        ablation_table,
        run_ablation,
        shortened,
        write_ablation,
    )
    from stmemory.evaluation.report import current_circumstances
    from stmemory.weights.devices import usable_device
    from stmemory.weights.hub import Where
    from stmemory.weights.pretrained import network_info
    from stmemory.weights.tensors import load_policy

    if hasattr(arguments, "policy"):
        raise OptionError(
            f"--policy: expected none, since each row has its own, got {arguments.policy!r}; choose rows with --rules"
        )
    out = out_folder(arguments.out).resolve()
    if arguments.learned is None and any(rule.lower() == "learned" for rule in arguments.rules or ()):
        raise OptionError(
            "--rules learned: expected --learned FILE with a trained policy, got none; untrained it means nothing"
        )
    device, options = usable_device(arguments.device), chosen_options(arguments)
    where: Where = {} if arguments.revision is None else {"revision": arguments.revision}
    default = (
        RULES if network_info(arguments.weights, where=where).config.appearance_channels == 0 else (*RULES, MATCHING)
    )
    rows = ablation_rows(
        options,
        rules=arguments.rules or default,
        learned=None if arguments.learned is None else load_policy(arguments.learned),
        growing=arguments.growing,
        weights=arguments.weights,
        weights_by_rule=_by_rule(arguments.rule_weights),
    )
    rows = tuple(replace(row, revision=arguments.revision) if row.weights == arguments.weights else row for row in rows)
    clips = chosen_clips(arguments)
    if arguments.frames is not None:
        clips = [shortened(clip, arguments.frames) for clip in clips]
    about = {
        "source": str(arguments.root or arguments.what),
        "data set": arguments.what if arguments.root else Path(arguments.what).resolve().name,
        "split": arguments.split,
        "frames": arguments.frames,
    }
    circumstances = current_circumstances(device=device, resolution=options.short_side)
    reporter = _Reporter()

    def keep(results: tuple[RowResult, ...]) -> None:
        write_ablation(out, results, circumstances, extra=about)
        reporter.row(results[-1])

    try:
        results = run_ablation(
            rows,
            clips,
            out,
            device=device,
            about=about,
            resume=arguments.resume,
            force=arguments.force,
            on_begin=reporter.begin,
            on_news=reporter.update,
            on_row=keep,
        )
    except KeyboardInterrupt:
        end_line()
        complain(f"stopped; clips that are finished are in {out}, and the same command with --resume goes on")
        return INTERRUPTED
    print()
    print(ablation_table(results, circumstances, extra=about), end="")
    print(f"table: {out / 'ablation.md'}, report: {out / 'ablation.json'}")
    if arguments.learned is None and not arguments.rules:
        complain("the rule learned was left out: it needs --learned FILE")
    skipped = sum(len(result.skipped) for result in results)
    if skipped:
        complain(f"{skipped} clips of rows were skipped, so those rows do not compare with the others")
    return FAILED if skipped else DONE


class _Reporter:
    """Says what happens: a line for each row, and progress below it."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str], int] = {}

    def begin(self, frames: int) -> None:
        """Say what is left."""
        print(score_heads(speed=True), flush=True)
        self._show = progress_on_stderr(frames or None, "ablation")
        if frames:
            self._show(0)

    def update(self, row: Row, news: News) -> None:
        """Say what is new."""
        self._done[row.name, news.clip] = news.frames
        self._show(sum(self._done.values()))
        if news.error is not None:
            end_line()
            complain(f"{row.name}: skipped {news.clip}: {news.error}")

    def row(self, result: RowResult) -> None:
        """Say the means of a row."""
        from stmemory.evaluation.protocol import summarise

        end_line()
        mean = summarise(result.results)
        print(score_line(result.row.name, mean.objects, mean.region, mean.boundary, mean.frames_per_second), flush=True)


def _by_rule(given: list[str]) -> dict[str, str]:
    """`A=FOLDER B=FOLDER` by rule."""
    from stmemory.errors import OptionError

    found = dict[str, str]()
    for text in given:
        rule, _, weights = text.partition("=")
        if not (rule and weights) or rule in found:
            raise OptionError(f"--rule-weights: expected RULE=WEIGHTS, each rule once, as in A=weights/a, got {text!r}")
        found[rule] = weights
    return found


OBJECTS = 2  # of a rendered clip
FEW = 200  # frames below which caches and clocks that settle look like growth


def add_benchmark(commands: Commands) -> None:
    """Offer the command."""
    benchmarks = commands.add_parser("benchmark", help="measure this machine").add_subparsers(
        required=True, metavar="WHAT"
    )
    shared = [tracking_options()]
    growth = benchmarks.add_parser(
        "growth", parents=shared, help="whether memory or time per frame grow in a long video"
    )
    growth.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="folder: growth.json, growth.csv, growth.png"
    )
    growth.add_argument(
        "--growing",
        type=_none_or_more,
        default=5,
        metavar="N",
        help="beside it a memory that keeps every N-th frame; 0 for none (default: 5)",
    )
    growth.add_argument(
        "--limit-mb", type=_above_zero, default=500, help="where that one ends, MB of its bank (default: %(default)s)"
    )
    growth.add_argument(
        "--limit-slower", type=_above_zero, default=5, help="or times our time per frame (default: %(default)s)"
    )
    add_scene_options(growth, frames=1000, height=240, width=432)
    growth.set_defaults(run=_growth)
    speed = benchmarks.add_parser("speed", parents=shared, help="where the time of a step goes")
    speed.add_argument("-o", "--out", type=Path, metavar="OUT.json", help="report")
    speed.add_argument("--compare", type=Path, metavar="OTHER.json", help="report of another run, to print ratios")
    speed.add_argument("--objects", type=int, nargs="+", default=[1, 3, 10], metavar="N", help="(default: 1 3 10)")
    speed.add_argument(
        "--slots", type=int, nargs="+", metavar="K", help="memory sizes (default: that of --memory-size)"
    )
    speed.add_argument("--rules", nargs="+", metavar="POLICY", help="policies (default: that of --policy)")
    speed.add_argument(
        "--sizes", type=_size, nargs="+", default=[(854, 480)], metavar="WxH", help="of frames (default: 854x480)"
    )
    speed.add_argument("--rounds", type=int, default=11, help="steps of each case (default: %(default)s)")
    speed.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="(default: %(default)s)")
    speed.set_defaults(run=_speed)
    passes = benchmarks.add_parser(
        "passes", parents=shared, help="frames of several videos in one pass of the network, or one by one"
    )
    passes.add_argument(
        "--videos", type=_above_zero_whole, nargs="+", default=[2, 4], metavar="V", help="(default: 2 4)"
    )
    passes.add_argument(
        "--sizes", type=_size, nargs="+", default=[(854, 480)], metavar="WxH", help="of frames (default: 854x480)"
    )
    passes.add_argument("--rounds", type=_above_zero_whole, default=7, help="of each (default: %(default)s)")
    passes.set_defaults(run=_passes)
    prompts = benchmarks.add_parser(
        "prompts", parents=shared, help="J of what boxes and clicks give, in the first frames of clips"
    )
    add_data_set_options(prompts, "CLIPS")
    prompts.add_argument("--prompter", metavar="NAME", help="weights of SAM 2 that answer (default: those that track)")
    prompts.set_defaults(run=_prompts)
    add_ablation(benchmarks)


def _prompts(arguments: argparse.Namespace) -> int:
    from stmemory.evaluation.prompts import measure_prompts
    from stmemory.evaluation.report import current_circumstances

    predictor, columns = chosen_predictor(arguments), ("as_drawn", "box", "click", "clicks")
    about = current_circumstances(device=predictor.device, resolution=predictor.options.short_side, seed=None)
    print(f"{about.device}, {about.threads} threads, torch {about.torch}; J of the first frames")
    print(f"{'clip':<20}{'object':>8}{'the box itself':>16}{'box':>8}{'click':>8}{'3 clicks':>10}")
    scores = []
    for clip in chosen_clips(arguments):
        for score in measure_prompts(predictor, [clip]):
            scores.append([100 * getattr(score, column) for column in columns])
            print(f"{score.clip:<20}{score.object_id:>8}" + _row(scores[-1]), flush=True)
    print(f"{'mean':<20}{len(scores):>8}" + _row([sum(column) / len(scores) for column in zip(*scores, strict=True)]))
    return DONE


def _row(values: Sequence[float]) -> str:
    return "".join(f"{value:>{width}.1f}" for value, width in zip(values, (16, 8, 8, 10), strict=True))


def _growth(arguments: argparse.Namespace) -> int:
    import numpy as np

    from stmemory.evaluation.growing import GrowingPredictor
    from stmemory.evaluation.growth import BankBytes, GrowthLimit, soak, soak_growing, write_growth
    from stmemory.evaluation.report import current_circumstances
    from stmemory.jobs.track import stop_on_signals

    out = out_folder(arguments.out)
    predictor = _predictor(arguments)
    options, size = predictor.options, (arguments.height, arguments.width)
    formula = BankBytes.of(
        _own_network(predictor).config, rows=OBJECTS, slots=options.memory_size, cells=_cells(predictor, size)
    )
    circumstances = current_circumstances(device=predictor.device, resolution=options.short_side, seed=arguments.seed)
    extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "frame_size": list(size)}
    extra |= {"bank_formula": str(formula)}
    with stop_on_signals(_say_stopping) as stop:
        show = _stopper(arguments.frames, "ours", stop)
        ours = soak(predictor, frames=arguments.frames, size=size, seed=arguments.seed, on_step=show)
        end_line()
        runs = {f"{options.memory_size} slots (ours)": ours}
        # Before the other run, in which a machine may run out of memory.
        write_growth(out, runs, circumstances, extra=extra | {"interrupted": stop.wanted})
        if arguments.growing and not stop.wanted:
            limit = GrowthLimit(int(1e6 * arguments.limit_mb), arguments.limit_slower * float(np.median(ours.seconds)))
            growing = GrowingPredictor(predictor, every=arguments.growing)
            show = _stopper(arguments.frames, "growing", stop)
            found = soak_growing(growing, limit, frames=arguments.frames, size=size, seed=arguments.seed, on_step=show)
            end_line()
            runs[f"{_every(arguments.growing)} kept (STM)"] = found
            write_growth(out, runs, circumstances, extra=extra | {"interrupted": stop.wanted})
    print(f"{ours.frames} frames of {size[1]} x {size[0]}, {OBJECTS} objects")
    as_said = ours.bank_is_constant and formula.total == ours.last_bank_bytes
    print(f"our bank by formula: {formula} bytes; {'' if as_said else 'NOT '}equal at every frame")
    for name, report in runs.items():
        for line in _said(name, report):
            print(line)
    machine = f"{circumstances.device}, {circumstances.threads} threads, torch {circumstances.torch}"
    title = f"{size[1]} x {size[0]}, {OBJECTS} objects, {machine}"
    drawn = _drawn(out / "growth.png", runs, title)
    print(f"report: {out / 'growth.json'}, growth.csv{', growth.png' * drawn}")
    if ours.frames < FEW:
        print(f"slopes from so few frames mean little: take {FEW} or more")
    if stop.wanted:
        complain(
            f"stopped after {list(runs.values())[-1].frames} frames of {list(runs)[-1]}; what was measured is written"
        )
    return FAILED if not as_said else INTERRUPTED if stop.wanted else DONE


def _said(name: str, report: GrowthReport) -> Iterator[str]:
    memory, seconds = report.process_slope, report.seconds_slope
    half = report.seconds[report.frames // 2 :]
    milliseconds = 1000 * sorted(half)[len(half) // 2]
    yield f"{name}: {report.frames} frames, {milliseconds:.1f} ms a frame (median of the second half)"
    yield f"  memory bank: {report.first_bank_bytes:,} bytes after the first, {report.last_bank_bytes:,} after the last"
    kibibytes = memory.per_thousand / 1024, memory.standard_error / 1024
    yield f"  process: {kibibytes[0]:+.1f} +- {kibibytes[1]:.1f} KiB per 1,000 frames: {_verdict(memory)}"
    rise, error = 1000 * seconds.per_thousand, 1000 * seconds.standard_error
    yield f"  time: {rise:+.3f} +- {error:.3f} ms per frame per 1,000 frames: {_verdict(seconds)}"


def _verdict(slope: Slope) -> str:
    if math.isnan(slope.standard_error):
        return "too few frames to tell"
    return "no slope, within two standard errors" if slope.is_zero else "a slope, by more than two standard errors"


def _every(number: int) -> str:
    """Every frame, every 2nd frame, every 11th frame."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return "every frame" if number == 1 else f"every {number}{ending} frame"


def _drawn(path: Path, runs: Mapping[str, GrowthReport], title: str) -> bool:
    """Draw the figure; say so where that cannot be."""
    from stmemory.errors import OptionError
    from stmemory.evaluation.growth import draw_growth

    try:
        draw_growth(path, runs, title=title)
    except OptionError as error:
        complain(str(error))
        return False
    return True


def _predictor(arguments: argparse.Namespace) -> VOSPredictor:
    """The chosen one; where nothing else is said, frames are worked at in the very size that is measured."""
    arguments.enlarge = getattr(arguments, "enlarge", 1.0)
    return chosen_predictor(arguments)


def _own_network(predictor: VOSPredictor) -> SegmentationNetwork:
    """The network, of whose parts something is to be said.

    Raises:
        OptionError: it is of another library.
    """
    from stmemory.errors import OptionError
    from stmemory.networks.segmentation import SegmentationNetwork

    if not isinstance(predictor.network, SegmentationNetwork):
        raise OptionError(
            f"weights: expected a network of stmemory, whose parts are measured here, got {predictor.network.name}; "
            "`stmemory benchmark speed` measures any"
        )
    return predictor.network


def _cells(predictor: VOSPredictor, size: tuple[int, int]) -> int:
    """h w at the working size."""
    from stmemory.io.frames import WorkingSize

    stride = _own_network(predictor).stride
    working = WorkingSize.of(*size, predictor.options.short_side, stride, enlarge=predictor.options.factor(*size))
    return working.padded_height * working.padded_width // stride**2


def _speed(arguments: argparse.Namespace) -> int:

    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.speed import (
        SpeedCase,
        compare_speed,
        describe_speed,
        measure_speed,
        read_speed,
        speed_document,
        write_speed,
    )
    from stmemory.jobs.track import stop_on_signals

    out = None if arguments.out is None else _out_file(arguments.out)
    other = None if arguments.compare is None else read_speed(arguments.compare)  # before the time that measuring takes
    predictor = _predictor(arguments)
    options = predictor.options
    asked = [
        SpeedCase(objects=objects, memory_size=slots, policy=rule, height=height, width=width)
        for width, height in arguments.sizes
        for slots in arguments.slots or [options.memory_size]
        for rule in arguments.rules or [str(options.as_dict()["policy"])]
        for objects in arguments.objects
    ]
    cases = list(dict.fromkeys(asked))  # one that was given twice would be measured twice and printed once
    dtype = chosen_dtype(arguments.dtype)
    with stop_on_signals(_say_stopping) as stop:
        show = _stopper(arguments.rounds * len(cases), "measure", stop)
        report = measure_speed(
            predictor, cases, rounds=arguments.rounds, dtype=dtype, on_round=lambda done: show(done * len(cases))
        )
    end_line()
    rounds = len(report.rates)
    circumstances = current_circumstances(device=predictor.device, resolution=options.short_side, seed=0)
    extra = {
        "weights": str(arguments.weights or "lite"),
        "options": options.as_dict(),
        "rounds": rounds,
        "interrupted": stop.wanted,
    }
    document = speed_document(report, circumstances, extra=extra)
    for line in describe_speed(document):
        print(line)
    if other is not None:
        for line in compare_speed(document, other):
            print(line)
    if out is not None:
        write_speed(out, document)
        print(f"report: {out}")
    if stop.wanted:
        complain(f"stopped after {rounds} of {arguments.rounds} rounds; these are their figures")
    memorised = all(speed.memorised == speed.case.objects for speed in report.cases)
    return FAILED if not memorised else INTERRUPTED if stop.wanted else DONE


def _passes(arguments: argparse.Namespace) -> int:
    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.speed import measure_passes
    from stmemory.io.frames import WorkingSize

    predictor = _predictor(arguments)
    network, side = _own_network(predictor), predictor.options.short_side
    about = current_circumstances(device=predictor.device, resolution=side, seed=0)
    print(f"{about.device}, {about.threads} threads, torch {about.torch}; ms, medians of {arguments.rounds}")
    print(f"{'frame':>12}{'part':>10}{'videos':>8}{'one pass':>10}{'one by one':>12}{'ratio':>8}")
    for width, height in arguments.sizes:
        size = WorkingSize.of(height, width, side, network.stride)
        pixels = {"height": size.padded_height, "width": size.padded_width}
        for speed in measure_passes(network, arguments.videos, rounds=arguments.rounds, **pixels):
            times = f"{1000 * speed.together:>10.1f}{1000 * speed.apart:>12.1f}{speed.together / speed.apart:>8.2f}"
            print(f"{f'{width} x {height}':>12}{speed.part:>10}{speed.videos:>8}{times}")
    return DONE


def _stopper(total: int, part: str, stop: Stop) -> Callable[[int], bool]:
    """Tell progress, and answer whether to stop."""
    show = progress_on_stderr(total, part)

    def show_and_ask(done: int) -> bool:
        show(done)
        return stop.wanted

    return show_and_ask


def _say_stopping() -> None:
    """Answer the first ctrl-C."""
    say_at_once("stopping soon and writing what was measured; press ctrl-C again to quit at once")


def _out_file(path: Path) -> Path:
    """A file that can be written, checked before the time that measuring takes."""
    from stmemory.errors import OptionError

    if path.is_dir():
        raise OptionError(
            f"-o: expected a file for the report, got the folder {str(path)!r}; write {path / 'speed.json'}"
        )
    if files := [place for place in path.parents if place.exists() and not place.is_dir()]:
        raise OptionError(
            f"-o: expected a file in a folder, got {str(path)!r}, and {str(files[0])!r} is a file; choose another place"
        )
    return path


def _none_or_more(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _above_zero_whole(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)


def _above_zero(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def _size(text: str) -> tuple[int, int]:
    """Width and height."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected a size such as 854x480, got {text!r}")
    return int(width), int(height)
