"""`Trainer`: steps, validation, checkpoints, and the end of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from stmemory.memory.policy import LearnedPolicy
from stmemory.networks.lite import LiteAppearance, LiteQueryEncoder
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.data.sources import Sources
from stmemory.training.distributed import World
from stmemory.training.learner import Learner
from stmemory.training.loader import Batch, Feed, Parcel, load
from stmemory.training.run_state import (
    Journal,
    expect_own_config,
    expect_same,
    find_start,
    read_state,
    write_config,
    write_state,
)
from stmemory.training.schedule import Plateau, Window, hard_share, learning_rate, repeatable
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
        learner: of the run.
        clips: other ones than those of the training.
        phase: whose memory and segments to use.
        device: where to render the clips; None is the CPU.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import ClipPlan, Film, Scene
    >>> from stmemory.training.config import TrainingConfig
    >>> class Still:
    ...     def draw(self, index):
    ...         film = Film(torch.full((2, 3, 32, 32), index, dtype=torch.uint8), torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         return ClipPlan(Scene(film, (), 32, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
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
_NEEDS = ("network", "average", "optimiser", "generator", "step")  # of a state, to go on from it


class Trainer:
    """One run: what it learns, and where in the schedule it is.

    Args:
        config: what to do.
        material: what to make clips of, with the folders that the configuration names; None for these alone.
        out: folder for `state.pt` (to resume from), `log.jsonl`, `config.json`, and what `Journal` leaves.
        device: where to train.
        workers: processes that make clips.
        world: the processes that train together; None is this one alone.

    Raises:
        OptionError: there is nothing to make clips of, or a folder of the configuration cannot be used.
    """

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
        torch.manual_seed(config.seed)
        self.config, self.out, self.workers, self.world = config, out, workers, world or World()
        self.device = torch.device(device)
        self.sources = Sources(config, material)
        self._material = "" if material is None else material.fingerprint
        self.learner = Learner(config, self.device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self._window = Window("cross_entropy", "dice", "scores", "norm")
        self._plateau = Plateau()
        self._skipped: tuple[str, ...] | None = ()  # files that were of no use so far; None where a state does not say
        self._stopping = False

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

    @property
    def lost(self) -> int:
        """How many of the last steps in a row changed no weight."""
        return self._window.lost

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Start from these weights of a network, strictly."""
        self.learner.adopt(weights)

    def start_from(self, where: str | Path) -> None:
        """Begin with the averaged weights of another run, those of its learned policy among them if both have one.

        Args:
            where: the run's `state.pt`; or weights to track with, see `stmemory.weights.pretrained.find_checkpoint`, and the
                policy beside them.

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

    def stop(self) -> None:
        """Let `run` end after the step that it is in, with its state saved; before the first step, let it do none."""
        self._stopping = True

    def resume(self) -> bool:
        """Go on from `state.pt` if there is one; whether there was.

        Raises:
            OptionError: it was written by a run with another configuration or with other material; or there is none
                yet, but the `config.json` of another run or of exported weights.
            WeightsError: it is damaged, or something else.
        """
        path = self.out / "state.pt"
        if not path.exists():
            expect_own_config(self.out, self.config)
            return False
        state = read_state(path, needs=_NEEDS)
        if "config" in state:
            written = TrainingConfig.from_json(state["config"])
            advice = f"go on with that of {self.out / 'config.json'}, or train into another folder, with --init to start from these weights"
            expect_same(path, "configuration that this run", written, self.config, advice=advice)
        if "material" in state:
            advice = "go on with the packed file that it began with, or train into another folder, with --init to start from these weights"
            expect_same(path, "material that this run", state["material"], self._material, advice=advice)
        self.learner.load_state_dict(state)
        self.generator.set_state(state["generator"])
        self.step = int(state["step"])
        self._window.load_state_dict(state.get("window", {}))
        seen = {
            "phase": self.config.phase_at(max(0, self.step - 1))[0],
            **state.get("plateau", {}),
        }  # once without its phase
        self._plateau = Plateau(float(seen.get("best", math.inf)), int(seen.get("drops", 0)), int(seen["phase"]))
        self._skipped = tuple(state["skipped"]) if "skipped" in state else None
        return True

    def save(self) -> None:
        """Write `state.pt`, whole or not at all."""
        if not self.world.first:
            return
        state = {
            **self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "window": self._window.state_dict(),
            "plateau": dataclasses.asdict(self._plateau),
            "config": self.config.to_json(),
            "material": self._material,
        }
        if self._skipped is not None:
            state["skipped"] = list(self._skipped)
        write_state(self.out / "state.pt", state)

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
            strip_every: steps between two pictures of a clip and its prediction; 0 draws none.
            tensorboard: write for TensorBoard too.
            until: step to end at.
        """
        journal = (
            Journal(self.out, step=self.step, skipped=self._skipped, tensorboard=tensorboard)
            if self.world.first
            else None
        )
        if journal is not None:
            write_config(self.out, self.config)
            journal.skip(self.sources.skipped)
        save_every = save_every or self.config.save_every
        pending: list[str] = []  # files that were of no use, of this process, that the first one does not know of
        last = self.config.steps if until is None else min(until, self.config.steps)
        while self.step < last and not self.world.any(self._stopping, self.device):
            number, phase = self.config.phase_at(self.step)
            of_phase = sum(p.steps for p in self.config.phases[: number + 1])
            end = min(last, of_phase)
            feed = Feed(
                self.sources.clips(phase), (self.step, end), batch=phase.batch, part=self.world.part(phase.batch)
            )
            since = perf_counter()
            for batch in load(feed, workers=self.workers, device=self._rendering, pin=self.device.type == "cuda"):
                draws, rate = strip_every > 0 and (self.step + 1) % strip_every == 0, self.rate()
                losses, predicted = self.train_step(batch, phase, predict=draws)
                self._window.add(losses, seconds=perf_counter() - since)
                pending += batch.skipped
                stopping = self.world.any(self._stopping, self.device)
                saves = self.step % save_every == 0 or self.step == end or stopping
                record: dict[str, float] = {}
                if (
                    self.step % log_every == 0 or self.step == of_phase
                ):  # not at `until`: the log of an interrupted run is that of a whole one
                    record = {"step": self.step, "phase": number, "rate": rate, **self._window.record()}
                if self.config.validate_every and self.step % self.config.validate_every == 0:
                    found = self._validate(number, phase)
                    record, pending = (
                        {"step": self.step, **record, "validation": found.error},
                        [*pending, *found.skipped],
                    )
                if record or saves:  # other steps need not wait for each other to tell of bad files
                    bad, pending = self.world.gather(pending), []
                    if journal is not None:
                        known, self._skipped = journal.skip(bad), journal.skipped
                        if record:
                            record["skipped"] = known
                            journal.write(record)
                if journal is not None and predicted is not None:
                    journal.strip(
                        self.step,
                        Clip(batch.frames[0].cpu(), batch.ids[0].cpu(), ""),
                        Clip(batch.frames[0].cpu(), predicted, ""),
                    )
                if saves:
                    self.save()
                if record:
                    yield record
                if stopping:
                    self._stopping = True  # another process may have been told, and this one not
                    break
                since = perf_counter()
        if journal is not None:
            journal.close()

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

    def _validate(self, number: int, phase: Phase) -> Validation:
        """Measure the averaged weights now; an error that does not fall lowers the rate of the schedule "plateau"."""
        clips = self.sources.clips(phase, validation=True)
        own = validate(self.learner, clips, phase, device=self._rendering) if self.world.first else Validation(0.0)
        error = (
            float(self.world.mean(torch.tensor([own.error], device=self.device))) * self.world.size
        )  # that of the first, for all
        self._plateau = self._plateau.after(error, number)
        return dataclasses.replace(own, error=error)
