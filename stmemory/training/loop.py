"""`Trainer`: the training of a segmentation network, and its validation."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stmemory.io.run_folder import expect_same
from stmemory.memory.policy import LearnedPolicy
from stmemory.networks.lite import LiteAppearance, LiteQueryEncoder
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.data.sources import Sources
from stmemory.training.distributed import World
from stmemory.training.learner import Learner
from stmemory.training.loader import Batch, Feed, Parcel, load
from stmemory.training.run import Run, Step
from stmemory.training.run_state import Journal, expect_own_config, find_start, write_config
from stmemory.training.schedule import Plateau, hard_share, learning_rate, repeatable
from stmemory.training.synthesis.clips import Clip, Clips, render_clip
from stmemory.training.unroll import Unroller, UnrollOptions

__all__ = ["Trainer", "Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """What came of it.

    Attributes:
        error: mean Dice loss, in [0, 1].
        skipped: one line for each file that could not be used for its clips.
    """

    error: float
    skipped: tuple[str, ...] = ()


def validate(learner: Learner, clips: Clips, phase: Phase, *, device: torch.device | None = None) -> Validation:
    """Measure the averaged weights, with their own masks fed back.

    Args:
        learner: learner of the run.
        clips: other ones than those of the training.
        phase: whose memory and segments to use.
        device: device that renders the clips; None is the CPU.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import ClipPlan, Film, Scene
    >>> from stmemory.training.config import TrainingConfig
    >>> class Still:
    ...     def draw(self, index):
    ...         frames = torch.full((2, 3, 32, 32), index, dtype=torch.uint8)
    ...         scene = Scene(Film(frames, torch.ones(2, 32, 32, dtype=torch.uint8)), (), 32, "made")
    ...         return ClipPlan(scene, torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> learner = Learner(TrainingConfig(validation_clips=1), torch.device("cpu"))
    >>> 0 < validate(learner, Still(), Phase(size=32, frames=2)).error < 1
    True
    """
    policy = learner.policy_average
    if isinstance(policy, LearnedPolicy):
        policy.eval()
    options = UnrollOptions(phase.capacity, policy, own_masks=1.0, memory_every=phase.memory_every)
    total = 0.0
    skipped: list[str] = []
    learner.average.eval()
    with torch.no_grad():
        for index in range(learner.config.validation_clips):
            clip = render_clip(Parcel.of(clips.draw(index)).opened(device or torch.device("cpu")))
            skipped += clip.skipped
            unroller = Unroller(learner.average, options=options, generator=torch.Generator().manual_seed(index))
            length = len(clip.frames)
            for start in range(0, length, phase.segment or length):
                part = slice(start, start + (phase.segment or length))
                pixels = clip.frames[None, part].to(learner.device).float() / 255
                result = unroller.advance(pixels, clip.ids[None, part].to(learner.device).long())
                total += float(result.dice) * result.length / (length - 1)
    return Validation(total / learner.config.validation_clips, tuple(skipped))


_FIRST_CLIPS, _FIRST_CELLS = 64, 500  # whose features the discriminative read begins with, and cells of each


class Trainer(Run):
    """The training of one network.

    Args:
        config: configuration of the run.
        material: what to make clips of, with the folders that the configuration names; None for these alone.
        out: folder for `state.pt` (to resume from), `log.jsonl`, `config.json`, and what `Journal` leaves.
        device: device to train on.
        workers: processes that make clips.
        world: the processes that train together; None is this one alone.

    Raises:
        OptionError: there is nothing to make clips of, or a folder of the configuration cannot be used.
    """

    needs = ("network", "average", "optimiser", "generator", "step")

    def __init__(
        self,
        config: TrainingConfig,
        material: Material | None,
        out: Path,
        *,
        device: str = "cpu",
        workers: int = 1,
        world: World | None = None,
    ) -> None:
        super().__init__(out, ("cross_entropy", "dice", "scores", "norm"), device=torch.device(device), world=world)
        torch.manual_seed(config.seed)
        self.config, self.workers = config, workers
        self.sources = Sources(config, material)
        self._material = "" if material is None else material.fingerprint
        self.learner = Learner(config, self.device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self._plateau = Plateau()

    @property
    def network(self) -> SegmentationNetwork:
        """The one that is trained."""
        return self.learner.network

    @property
    def _rendering(self) -> torch.device | None:
        """The device that makes the pixels of clips; None leaves them to those who draw."""
        wanted = self.config.render == "device" or (self.config.render == "auto" and self.device.type == "cuda")
        return self.device if wanted else None

    @property
    def average(self) -> SegmentationNetwork:
        """The moving average of it: what is exported."""
        return self.learner.average

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Start from these weights of a network, strictly."""
        self.learner.adopt(weights)

    def start_from(self, where: str | Path) -> None:
        """Begin with the averaged weights of another run, those of its learned policy among them if both have one.

        Args:
            where: the run's `state.pt`; or weights to track with, see `stmemory.weights.pretrained.find_checkpoint`,
                and the policy beside them.

        Raises:
            WeightsError: there is no such file and there are no such weights, or they are of another preset.
        """
        found = find_start(where, self.config)
        begun = self.network.state_dict()
        self.adopt({**begun, **found.network})
        if set(begun) - set(found.network):
            self.adopt({**begun, **found.network, **self._begin_scores()})
        self.learner.adopt_policy(found.policy)

    def _begin_scores(self) -> dict[str, Tensor]:
        """First weights of the projection that the discriminative read compares: principal components of the first
        clips' features."""
        encoder = self.network.query_encoder
        if not isinstance(encoder, LiteQueryEncoder) or encoder.appearance is None:
            return {}
        clips, samples = self.sources.clips(self.config.phases[0]), []
        with torch.no_grad():
            for index in range(_FIRST_CLIPS):
                frame = clips.clip(index).frames[:1].to(self.device).float() / 255
                cells = LiteAppearance.stacked(*encoder.trunk(frame))[0].flatten(1).t()
                samples.append(cells[:: max(1, len(cells) // _FIRST_CELLS)])
        encoder.appearance.start_from(torch.cat(samples))
        return {f"query_encoder.appearance.{name}": t for name, t in encoder.appearance.state_dict().items()}

    def _expect_free(self) -> None:
        expect_own_config(self.out, self.config)

    def _restore(self, state: Mapping[str, Any], path: Path) -> None:
        other = "train into another folder, where start_from(STATE) begins with these weights"
        if "config" in state:
            written, advice = TrainingConfig.from_json(state["config"]), f"go on with {self.out / 'config.json'}"
            expect_same(path, "run", written.decisive(), self.config.decisive(), advice=f"{advice}, or {other}")
        if "material" in state:
            old, new = ({"material": digest} for digest in (state["material"], self._material))
            expect_same(path, "run", old, new, advice=f"go on with the file that it began with, or {other}")
        self.learner.load_state_dict(dict(state))
        self.generator.set_state(state["generator"])
        phase = self.config.phase_at(max(0, int(state["step"]) - 1))[0]
        seen = {"phase": phase, **state.get("plateau", {})}  # once without its phase
        self._plateau = Plateau(float(seen.get("best", math.inf)), int(seen.get("drops", 0)), int(seen["phase"]))
        self._skipped = tuple(state["skipped"]) if "skipped" in state else None

    def _learned(self) -> dict[str, Any]:
        return {
            **self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "plateau": dataclasses.asdict(self._plateau),
            "config": self.config.to_json(),
            "material": self._material,
            **({} if self._skipped is None else {"skipped": list(self._skipped)}),
        }

    def run(
        self,
        *,
        save_every: int = 0,
        log_every: int = 10,
        strip_every: int = 0,
        tensorboard: bool = False,
        until: int | None = None,
    ) -> Iterator[dict[str, float]]:
        """Train to the end of the schedule, to a step, or until `stop`, after which it takes a new trainer; yields what
        it logs.

        Args:
            save_every: steps between two states; 0 for as many as the configuration says.
            log_every: steps that a line of the log is the mean of; fewer at the end of a phase.
            strip_every: steps between two images of a clip and its prediction; 0 draws none.
            tensorboard: write for TensorBoard too.
            until: step to end at.
        """
        journal = None
        if self.world.first:
            journal = Journal(self.out, step=self.step, skipped=self._skipped, tensorboard=tensorboard)
            write_config(self.out, self.config)
            journal.skip(self.sources.skipped)
        last = self.config.steps if until is None else min(until, self.config.steps)
        steps = self._steps(last, strip_every)
        return self._follow(
            steps, journal, last=last, log_every=log_every, save_every=save_every or self.config.save_every
        )

    def _steps(self, last: int, strip_every: int) -> Iterator[Step]:
        """Do the steps, one after another."""
        while self.step < last:
            number, phase = self.config.phase_at(self.step)
            of_phase = sum(p.steps for p in self.config.phases[: number + 1])
            clips, end = self.sources.clips(phase), min(last, of_phase)
            feed = Feed(clips, (self.step, end), batch=phase.batch, part=self.world.part(phase.batch))
            for batch in load(feed, workers=self.workers, device=self._rendering, pin=self.device.type == "cuda"):
                draws, rate = strip_every > 0 and (self.step + 1) % strip_every == 0, self.rate()
                losses, predicted = self.train_step(batch, phase, predict=draws)
                validates = self.config.validate_every and self.step % self.config.validate_every == 0
                strip = None
                if predicted is not None:
                    strip = (
                        Clip(batch.frames[0].cpu(), batch.ids[0].cpu(), ""),
                        Clip(batch.frames[0].cpu(), predicted, ""),
                    )
                yield Step(
                    losses,
                    {"phase": number, "rate": rate},
                    of_phase,
                    batch.skipped,
                    strip,
                    functools.partial(self._validate, number, phase) if validates else None,
                )

    def train_step(
        self, batch: Batch, phase: Phase, *, predict: bool = False
    ) -> tuple[dict[str, float], Tensor | None]:
        """One optimiser step: the losses, and if asked what was predicted of the first clip, uint8 `[T, H, W]`, frame 0
        as given.

        A step whose gradients are not finite changes no weight; it answers `lost` in the place of losses.
        """
        config, length, batch = self.config, batch.frames.shape[1], batch.to(self.device)
        self.learner.prepare(phase, self.step, rate=self.rate())
        options = UnrollOptions(
            phase.capacity,
            self.learner.policy,
            hard_share(config, self.step),
            config.own_masks,
            phase.memory_every,
            config.damage,
            length,
            config.matching_factor > 0,
            config.zoom,
        )
        weigh = self.world.object_weights if self.world.size > 1 else None
        unroller = Unroller(self.learner.network, options=options, generator=self.generator, weigh=weigh)
        sums, predicted = torch.zeros(3, device=self.device), [batch.ids[0, :1].cpu()] if predict else []
        for start in range(0, length, phase.segment or length):
            part = slice(start, start + (phase.segment or length))
            pixels = batch.frames[:, part].float() / 255
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
                result = unroller.advance(pixels, batch.ids[:, part].long())
            weight = result.length / (length - 1)  # so that segments add up to the mean over the clip
            loss = (result.cross_entropy + result.dice + config.score_weight * result.scores) * weight
            if loss.requires_grad:  # not where a policy is learned alone, and decided nothing yet
                with repeatable(self.device):
                    torch.autograd.backward(loss)
            sums += torch.stack([result.cross_entropy.detach(), result.dice.detach(), result.scores.detach()]) * weight
            if predict:
                predicted.append(result.ids(0).cpu())
        self.world.average_gradients(self.learner.parameters())
        norm = self.learner.update(self.step)
        self.step += 1
        cross_entropy, dice, scores = self.world.mean(sums).tolist()
        losses = {"cross_entropy": cross_entropy, "dice": dice, "scores": scores, "norm": norm}
        return losses if math.isfinite(norm) else {"lost": 1.0}, torch.cat(predicted) if predict else None

    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.config, self.step, drops=self._plateau.drops)

    def _validate(self, number: int, phase: Phase) -> tuple[float, tuple[str, ...]]:
        """Measure the averaged weights now; an error that does not fall lowers the rate of the schedule "plateau"."""
        clips = self.sources.clips(phase, validation=True)
        own = validate(self.learner, clips, phase, device=self._rendering) if self.world.first else Validation(0.0)
        error = (
            float(self.world.mean(torch.tensor([own.error], device=self.device))) * self.world.size
        )  # that of the first, for all
        self._plateau = self._plateau.after(error, number)
        return error, own.skipped
