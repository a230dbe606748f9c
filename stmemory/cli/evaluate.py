"""The commands evaluate and score."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from stmemory.cli.options import (
    DTYPES,
    Commands,
    add_data_set_options,
    chosen_clips,
    chosen_options,
    tracking_options,
)
from stmemory.cli.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    complain,
    end_line,
    progress_on_stderr,
    score_heads,
    score_line,
)
from stmemory.io.files import out_folder

if TYPE_CHECKING:
    from stmemory.evaluation.clips import Clip
    from stmemory.evaluation.protocol import ClipResult
    from stmemory.evaluation.run import Evaluation, Outcome
    from stmemory.evaluation.run_folder import RunFolder
    from stmemory.evaluation.workers import News

__all__ = ["add_evaluate", "add_score"]


def add_evaluate(commands: Commands) -> None:
    """Offer the command."""
    evaluate = commands.add_parser(
        "evaluate", parents=[tracking_options()], help="run over clips with true masks, and score them"
    )
    add_data_set_options(evaluate, "FOLDER_OR_DATA_SET")
    evaluate.add_argument(
        "-o", "--out", type=Path, help="folder for masks, tables, report and page (default: scores are only printed)"
    )
    evaluate.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes (default: one for each device); --device takes several, as in cuda:0,cuda:1",
    )
    evaluate.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of torch in each process, on the CPU; equal ones give equal bits (default: all, shared out)",
    )
    evaluate.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="what the network computes in (default: %(default)s)"
    )
    evaluate.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread over a Ray cluster: its address, auto, or local for one on this machine",
    )
    begin = evaluate.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on with the run in OUT; clips that are finished stay")
    begin.add_argument("--force", action="store_true", help="begin again, deleting what an earlier run wrote")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError
    from stmemory.evaluation.run import Evaluation, run_evaluation
    from stmemory.evaluation.run_folder import RunFolder
    from stmemory.evaluation.workers import Setup
    from stmemory.weights.pretrained import bundled_names

    if arguments.out is None and (arguments.resume or arguments.force or arguments.ray):
        raise OptionError("--resume, --force, --ray: expected -o OUT with them, got none")
    if arguments.out is not None:
        out_folder(arguments.out)
    weights = arguments.weights
    if weights and weights not in bundled_names() and Path(weights).is_dir():
        weights = str(Path(weights).resolve())  # the place as other processes and machines find it
    devices = tuple(name.strip() for name in (arguments.device or "cpu").split(","))
    evaluation = Evaluation(
        tuple(chosen_clips(arguments)),
        Setup(
            weights,
            chosen_options(arguments),
            threads=arguments.threads,
            revision=arguments.revision,
            dtype=arguments.dtype,
        ),
        about=_about(arguments),
        devices=devices,
        jobs=arguments.jobs,
        ray=arguments.ray,
    )
    with ExitStack() as stack:
        out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "out"
        folder, reporter = RunFolder(out.resolve()), _Reporter(evaluation)
        stack.enter_context(_terminated_as_interrupted())
        try:
            outcome = run_evaluation(
                evaluation,
                folder,
                resume=arguments.resume,
                force=arguments.force,
                on_begin=reporter.begin,
                on_news=reporter.update,
            )
        except KeyboardInterrupt:
            end_line()
            more = "; the same command with --resume goes on" if arguments.out is not None else ""
            kept = {clip.name for clip in evaluation.clips}.intersection(
                folder.finished
            )  # the news of the last may not have come
            complain(f"stopped with {len(kept)} of {len(evaluation.clips)} clips finished{more}")
            return INTERRUPTED
        reporter.sum_up(outcome)
        if arguments.out is not None:
            _write_more(evaluation, folder, outcome)
    if outcome.skipped:
        complain(f"{len(outcome.skipped)} of {len(evaluation.clips)} clips were skipped")
    return FAILED if outcome.skipped else DONE


class _Reporter:
    """Says what happens: a row for each clip, and progress below it."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._frames = {clip.name: 0 for clip in evaluation.clips}
        self._show: Callable[[int], None] | None = None

    def begin(self, results: tuple[ClipResult, ...], frames: int) -> None:
        """Say what is there already."""
        print(score_heads(speed=True))
        for result in results:
            self._row(result)
        self._show = progress_on_stderr(frames, "evaluate") if frames else None
        if self._show is not None:
            self._show(0)

    def update(self, news: News) -> None:
        """Say what is new."""
        if self._show is not None and self._frames[news.clip] != news.frames:
            self._frames[news.clip] = news.frames
            self._show(sum(self._frames.values()))
        if news.last:
            end_line()
        if news.result is not None:
            self._row(news.result)
        if news.error is not None:
            complain(f"skipped {news.clip}: {news.error}")

    def sum_up(self, outcome: Outcome) -> None:
        """Say the means."""
        from stmemory.evaluation.protocol import summarise

        mean = summarise(outcome.results)
        print(
            score_line("mean over objects", mean.objects, mean.region, mean.boundary, mean.frames_per_second),
            flush=True,
        )

    def _row(self, result: ClipResult) -> None:
        print(
            score_line(result.name, len(result.objects), result.region, result.boundary, result.frames_per_second),
            flush=True,
        )


def _write_more(evaluation: Evaluation, folder: RunFolder, outcome: Outcome) -> None:
    """The page of plots, and the file for a server."""
    from stmemory.evaluation.datasets import DATA_SETS
    from stmemory.evaluation.page import write_page

    print(f"masks, tables and report: {folder.path}")
    clips = [clip for clip in evaluation.clips if clip.name not in outcome.skipped]
    scored = any(result.objects for result in outcome.results)
    if scored and importlib.util.find_spec("matplotlib"):
        print(f"page: {write_page(folder, clips, outcome.results, outcome.circumstances)}")
    elif scored:
        print('no page of plots: it needs matplotlib: pip install "stmemory[plot]"')
    name = str(evaluation.about.get("data set", ""))
    if clips and clips[0].held_out:
        file = folder.write_submission(clips, DATA_SETS[name].zip_folder)
        print(f"for the server: {file}")


def _about(arguments: argparse.Namespace) -> dict[str, object]:
    """Which clips they are, for the record."""
    from stmemory.evaluation.datasets import DATA_SETS

    if arguments.root is None:
        return {"source": arguments.what, "data set": "folder", "resolution": arguments.resolution}
    return {
        "source": str(arguments.root),
        "data set": arguments.what,
        "split": arguments.split or DATA_SETS[arguments.what].splits[0],
        "resolution": arguments.resolution or ("480p" if arguments.what.startswith("davis") else None),
        "all frames": arguments.all_frames,
    }


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the run as ctrl-C does, other processes included."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def add_score(commands: Commands) -> None:
    """Offer the command."""
    score = commands.add_parser("score", help="score folders of predicted masks against true ones; runs no model")
    score.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="holds CLIP/00000.png ..., or is the OUT of an evaluation; or 00000.png ... of one clip, or the OUT of "
        "track",
    )
    add_data_set_options(score, "TRUTH")
    group = score.add_argument_group(
        "true masks without frames", "TRUTH holds 00000.png ... of one clip, or CLIP/00000.png ..."
    )
    group.add_argument(
        "--every-frame",
        action="store_true",
        help="count the first frame of each object, which a tracker is given, and the last one, too",
    )
    score.add_argument(
        "--matched-only",
        action="store_true",
        help="leave out true masks without a prediction, instead of skipping the clip",
    )
    score.add_argument("-o", "--out", type=Path, help="folder for CSV tables like those of the DAVIS toolkit")
    score.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError, StmemoryError
    from stmemory.evaluation.mask_folders import (
        find_mask_clips,
        is_mask_root,
        pair_masks,
        predictions_of,
        predictions_of_one,
        score_clip,
    )
    from stmemory.evaluation.protocol import summarise
    from stmemory.evaluation.report import write_tables

    if not arguments.predictions.is_dir():
        raise OptionError(
            f"PREDICTIONS: expected a folder with a folder of masks for each clip, got {str(arguments.predictions)!r}"
        )
    if arguments.out is not None:
        out_folder(arguments.out)
    of_data_set = any((arguments.root, arguments.split, arguments.resolution, arguments.all_frames))
    bare = not of_data_set and is_mask_root(arguments.what)
    if arguments.every_frame and not bare:
        raise OptionError(
            "--every-frame: expected a folder of true masks without frames, got clips with frames, whose data "
            "set says what counts; leave it out"
        )
    clips = (
        find_mask_clips(arguments.what, names=arguments.clips or None, every_frame=arguments.every_frame)
        if bare
        else chosen_clips(arguments)
    )
    results, skipped = list["ClipResult"](), 0
    print(score_heads())
    for clip in clips:
        folder = (predictions_of_one if bare and len(clips) == 1 else predictions_of)(arguments.predictions, clip)
        said = ""
        try:
            if folder is None:
                raise OptionError(
                    f"{arguments.predictions}: expected a folder {clip.name} with its masks, got none; name the "
                    "clips to score"
                )
            pairs = pair_masks(folder, clip)
            said = f"  {clip.name}: {pairs}" if bare or (arguments.matched_only and pairs.missing) else ""
            result = score_clip(folder, clip, matched_only=arguments.matched_only)
        except StmemoryError as error:
            skipped += 1
            if said:
                print(said, flush=True)
            complain(f"skipped {clip.name}: {error}")
            continue
        results.append(result)
        print(score_line(clip.name, len(result.objects), result.region, result.boundary), flush=True)
        if said:
            print(f"{said}; {result.frames} frame{'s' * (result.frames != 1)} counted", flush=True)
        if bare and (never := [str(scores.object_id) for scores in result.objects if scores.region.mean == 0]):
            complain(
                f"{clip.name}: no pixel of object {', '.join(never)} was found; do the predictions have other ids "
                "than the truth?"
            )
    mean = summarise(results)
    print(score_line("mean over objects", mean.objects, mean.region, mean.boundary))
    if bare and (unknown := _without_truth(arguments.predictions, clips, all_of_them=not arguments.clips)):
        print(f"no true masks for {', '.join(unknown)}")
    if arguments.out is not None:
        tables = write_tables(arguments.out, results)
        print(f"tables: {', '.join(str(path) for path in tables)}")
    if skipped:
        complain(f"{skipped} of {skipped + len(results)} clips were skipped")
    return FAILED if skipped else DONE


def _without_truth(predictions: Path, clips: list[Clip], *, all_of_them: bool) -> list[str]:
    """Folders of predictions that are of none of the clips."""
    from stmemory.evaluation.mask_folders import is_mask_root

    root = predictions / "Annotations" if (predictions / "Annotations").is_dir() else predictions
    if len(clips) == 1 or not all_of_them:
        return []
    known = {clip.name for clip in clips}
    return sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and folder.name not in known and is_mask_root(folder)
    )
