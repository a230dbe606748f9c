"""`stmemory benchmark ablation`: J, F and bytes of each way to keep the memory, on clips with true masks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import (
    Commands,
    add_data_set_options,
    chosen_clips,
    chosen_options,
    tracking_options,
)
from stmemory.commands.words import DONE, FAILED, complain, end_line, score_heads, score_line, teller
from stmemory.files import out_folder

if TYPE_CHECKING:
    from stmemory.evaluation.ablation import RowResult
    from stmemory.evaluation.ablation_rows import Row
    from stmemory.evaluation.worker import News

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
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
    begin.add_argument("--force", action="store_true", help="begin anew, deleting what an earlier run wrote")
    ablation.set_defaults(run=_ablation)


def _ablation(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError
    from stmemory.evaluation.ablation import run_ablation
    from stmemory.evaluation.ablation_report import ablation_table, write_ablation
    from stmemory.evaluation.ablation_rows import MATCHING, RULES, ablation_rows, shortened
    from stmemory.evaluation.report import current_circumstances
    from stmemory.hub import Where
    from stmemory.inventory import usable_device
    from stmemory.memory.policy_file import load_policy
    from stmemory.weights import network_info

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
    teller = _Teller()

    def keep(results: tuple[RowResult, ...]) -> None:
        write_ablation(out, results, circumstances, extra=about)
        teller.row(results[-1])

    try:
        results = run_ablation(
            rows,
            clips,
            out,
            device=device,
            about=about,
            resume=arguments.resume,
            force=arguments.force,
            on_begin=teller.begin,
            on_news=teller.hear,
            on_row=keep,
        )
    except KeyboardInterrupt:
        end_line()
        complain(f"stopped; clips that are finished are in {out}, and the same command with --resume goes on")
        return FAILED
    print()
    print(ablation_table(results, circumstances, extra=about), end="")
    print(f"table: {out / 'ablation.md'}, report: {out / 'ablation.json'}")
    if arguments.learned is None and not arguments.rules:
        complain("the rule learned was left out: it needs --learned FILE")
    skipped = sum(len(result.skipped) for result in results)
    if skipped:
        complain(f"{skipped} clips of rows were skipped, so those rows do not compare with the others")
    return FAILED if skipped else DONE


class _Teller:
    """Says what happens: a line for each row, and progress below it."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str], int] = {}

    def begin(self, frames: int) -> None:
        """Say what is left."""
        print(score_heads(speed=True), flush=True)
        self._tell = teller(frames or None, "ablation")
        if frames:
            self._tell(0)

    def hear(self, row: Row, news: News) -> None:
        """Say what is new."""
        self._done[row.name, news.clip] = news.frames
        self._tell(sum(self._done.values()))
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
