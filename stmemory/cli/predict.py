"""`stmemory predict`: the frames after a clip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.cli.options import Commands, add_weights_options, chosen_policy, whole_or_none
from stmemory.cli.output import DONE, complain, end_line, progress_on_stderr
from stmemory.io.files import out_folder

if TYPE_CHECKING:
    from stmemory.prediction.predictor import FramePredictor

__all__ = ["add_predict"]

DEMO_SEEN = 10  # frames of the demo's clip before those that are predicted


def add_predict(commands: Commands) -> None:
    """Offer the command."""
    predict = commands.add_parser("predict", help="predict the frames after a clip")
    clip = predict.add_mutually_exclusive_group(required=True)
    clip.add_argument(
        "clip",
        nargs="?",
        type=Path,
        metavar="CLIP",
        help="video, folder of pictures, GIF, or .npy with [T, H, W] or [T, H, W, 3]",
    )
    clip.add_argument(
        "--demo",
        action="store_true",
        help="take a clip of six pictures in a cycle, made on the spot; needs no connection",
    )
    predict.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="folder: frames/, prediction.gif, strip.png"
    )
    predict.add_argument("--steps", type=int, metavar="N", help="frames to predict (default: those held back, else 10)")
    predict.add_argument(
        "--hide",
        type=int,
        metavar="N",
        help="hold back the last N frames of the clip, and compare (default: 0; for --demo all steps)",
    )
    predict.add_argument(
        "--rate", type=float, default=5.0, help="frames a second of the animation (default: %(default)s)"
    )
    predict.add_argument("--seed", type=int, default=0, help="of the clip of --demo (default: %(default)s)")
    predict.add_argument("--force", action="store_true", help="replace the predicted frames of an earlier run")
    group = predict.add_argument_group("how to predict")
    add_weights_options(group, default="mini")
    group.add_argument("--memory-size", type=int, default=argparse.SUPPRESS, help="slots of the video (default: 16)")
    group.add_argument(
        "--policy",
        default=argparse.SUPPRESS,
        help="update policy: name, the paper's letter, or the file of a learned one (default: most_similar)",
    )
    group.add_argument(
        "--short-side",
        type=whole_or_none,
        default=argparse.SUPPRESS,
        help="px that larger frames are shrunk to (default: none)",
    )
    group.add_argument("--freeze-memory", action="store_true", help="do not memorise predictions on the way ahead")
    predict.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from stmemory.jobs.forecast import ForecastJob, demo_clip, run_forecast

    steps = arguments.steps if arguments.steps is not None else max(arguments.hide or 0, 0) or 10
    hide = arguments.hide if arguments.hide is not None else steps if arguments.demo else 0
    job = ForecastJob(out_folder(arguments.out), steps=steps, hide=hide, rate=arguments.rate, force=arguments.force)
    predictor = _chosen_predictor(arguments)
    side = predictor.network.config.image_side
    clip = demo_clip(side=side, frames=DEMO_SEEN + hide, seed=arguments.seed) if arguments.demo else arguments.clip

    def show(done: int, height: int, width: int) -> None:
        working = min(height, width, predictor.options.short_side or height)
        if done == 1 and working > 2 * side:
            complain(
                f"frames of {width} x {height} for weights made for {side} x {side}: expect poor predictions, and time "
                f"that grows with the square of the pixels; --short-side {side} shrinks them for the network"
            )
        watched(done - 1)

    def show_ahead(done: int) -> None:
        end_line(done == 1)
        predicted(done)

    watched, predicted = progress_on_stderr(None, "watch"), progress_on_stderr(steps, "predict")
    forecast = run_forecast(predictor, clip, job, on_frame=show, on_prediction=show_ahead)
    end_line()
    height, width = forecast.size
    first, last = forecast.memory_bytes
    name = "six pictures in a cycle" if arguments.demo else arguments.clip.resolve().name
    print(
        f"{name}: watched {forecast.seen} frame{'s' * (forecast.seen != 1)} of {width} x {height}, "
        f"{predictor.device}; predicted {forecast.predicted} more"
    )
    print(f"memory {first / 1e6:.2f} MB after the first frame, {last / 1e6:.2f} MB after the last")
    print(f"{job.frames}\n{job.animation}\n{job.strip}")
    if forecast.scores is not None and forecast.copy_scores is not None:
        print(f"{f'{forecast.compared} frames held back':<24}{'MSE':>10}{'MAE':>10}{'SSIM':>8}{'PSNR':>8}")
        for label, scores in (("predicted", forecast.scores), ("copy of the last frame", forecast.copy_scores)):
            print(f"{label:<24}{scores.mse:>10.2f}{scores.mae:>10.2f}{scores.ssim:>8.3f}{scores.psnr:>8.2f}")
    elif forecast.compared:
        complain(f"frames of {width} x {height} are too small for SSIM, which needs 7 x 7: nothing was compared")
    return DONE


def _chosen_predictor(arguments: argparse.Namespace) -> FramePredictor:
    from stmemory.options import PredictionOptions
    from stmemory.prediction.predictor import FramePredictor
    from stmemory.weights.devices import usable_device

    given = {
        name: getattr(arguments, name) for name in ("memory_size", "policy", "short_side") if hasattr(arguments, name)
    }
    if "policy" in given:
        given["policy"] = chosen_policy(given["policy"])
    options = PredictionOptions(**given, write_predictions=not arguments.freeze_memory)
    device = usable_device(arguments.device)
    return FramePredictor.from_pretrained(
        arguments.weights, options=options, device=device, revision=arguments.revision
    )
