"""The training loop: clips in, checkpoints and a log out. Resumes exactly where it stopped. Builds no layers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.networks.config import NetworkConfig
from stmemory.networks.layers import use_channels_last
from stmemory.networks.lite import LiteTrunk
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.clips import ClipConfig, ClipSource
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.material import Material
from stmemory.training.unroll import UnrollOptions, Unroller

__all__ = ["Trainer"]


class Trainer:
    """One run: a network, its average, its optimiser, and where in the schedule they are.

    Args:
        config: what to do.
        material: what to make clips of.
        out: folder for `state.pt` (to resume from), `log.jsonl` and `config.json`.
        device: where to train.
        workers: processes that make clips.
    """

    def __init__(
        self, config: TrainingConfig, material: Material, out: Path, *, device: str = "cpu", workers: int = 1
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.material, self.out, self.workers = config, material, out, workers
        self.device = torch.device(device)
        self.network = self._new_network()
        self.average = self._new_network().requires_grad_(False)
        self.adopt(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self._groups(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Start from these weights, strictly."""
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def resume(self) -> bool:
        """Go on from `state.pt` if there is one; whether there was.

        Raises:
            OptionError: it was written by a run with another configuration.
        """
        path = self.out / "state.pt"
        if not path.exists():
            return False
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if "config" in state and TrainingConfig.from_json(state["config"]) != self.config:
            raise OptionError(
                f"{path}: expected the configuration that this run began with, {self.out / 'config.json'}, got another; "
                "train into another folder, with --init to start from these weights"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step = int(state["step"])
        return True

    def save(self) -> None:
        """Write `state.pt`, atomically."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "config": self.config.to_json(),
        }
        with whole_file(self.out / "state.pt") as part:
            torch.save(state, part)

    def run(self, *, save_every: int = 100, log_every: int = 10, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train to the end of the schedule, or to a step; yields (and appends to the log) means over `log_every` steps."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "config.json").write_text(self.config.to_json())
        last = self.config.steps if until is None else min(until, self.config.steps)
        while self.step < last:
            number, phase = self.config.phase_at(self.step)
            end = min(last, sum(p.steps for p in self.config.phases[: number + 1]))
            sums, since = {"cross_entropy": 0.0, "dice": 0.0, "norm": 0.0}, time.perf_counter()
            for frames, ids in self._clips(number, phase, end):
                for name, value in self.train_step(frames, ids, phase).items():
                    sums[name] += value / log_every
                if self.step % log_every == 0:
                    seconds = (time.perf_counter() - since) / log_every
                    record = {"step": self.step, "phase": number, "rate": self.rate(), "seconds": seconds, **sums}
                    with (self.out / "log.jsonl").open("a") as log:
                        log.write(json.dumps(record) + "\n")
                    yield record
                    sums, since = dict.fromkeys(sums, 0.0), time.perf_counter()
                if self.step % save_every == 0 or self.step == end:
                    self.save()

    def train_step(self, frames: Tensor, ids: Tensor, phase: Phase) -> dict[str, float]:
        """One optimiser step on `frames [V, T, 3, H, W]` uint8 and `ids [V, T, H, W]` uint8; the losses."""
        config = self.config
        self._prepare(phase)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group["factor"]
        share = 1 - 0.75 * min(1.0, self.step / max(1, config.bootstrap_steps))
        options = UnrollOptions(phase.capacity, config.policy, share, config.own_masks)
        unroller = Unroller(self.network, options=options, generator=self.generator)
        self.optimiser.zero_grad(set_to_none=True)
        length = frames.shape[1]
        sums = torch.zeros(2, device=self.device)
        for start in range(0, length, phase.segment or length):
            part = slice(start, start + (phase.segment or length))
            pixels = frames[:, part].to(self.device).float() / 255
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                result = unroller.advance(pixels, ids[:, part].to(self.device).long())
            weight = result.length / (length - 1)  # so that segments add up to the mean over the clip
            torch.autograd.backward((result.cross_entropy + result.dice) * weight)
            sums += torch.stack([result.cross_entropy.detach(), result.dice.detach()]) * weight
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        if bool(norm.isfinite()):
            self.optimiser.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return {
            "cross_entropy": float(sums[0]),
            "dice": float(sums[1]),
            "norm": float(norm.detach()),
        }

    def rate(self) -> float:
        """The learning rate of the next step: linear warm-up, then a cosine."""
        config = self.config
        if self.step < config.warmup:
            return config.learning_rate * (self.step + 1) / config.warmup
        done = (self.step - config.warmup) / max(1, config.steps - config.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return config.learning_rate * (config.final_factor + (1 - config.final_factor) * cosine)

    def _new_network(self) -> SegmentationNetwork:
        network = SegmentationNetwork(NetworkConfig.of(self.config.preset)).to(self.device)
        use_channels_last(network)
        return network

    def _prepare(self, phase: Phase) -> None:
        """Training mode, but for what a phase keeps fixed."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # the statistics of ImageNet are better than those of a few clips
        trunk = getattr(self.network.query_encoder, "trunk", None)
        if isinstance(trunk, LiteTrunk):
            for number, part in enumerate((trunk.stem, *trunk.stages)):
                part.requires_grad_(number >= phase.frozen)

    def _groups(self) -> list[dict[str, Any]]:
        trunk = [p for name, p in self.network.named_parameters() if ".trunk." in name or ".backbone." in name]
        known = {id(p) for p in trunk}
        rest = [p for p in self.network.parameters() if id(p) not in known]
        return [{"params": trunk, "factor": self.config.trunk_factor}, {"params": rest, "factor": 1.0}]

    def _clips(self, number: int, phase: Phase, end: int) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of the steps from here to `end`; which clips a step sees depends on its number alone."""
        data: dict[str, Any] = {**self.config.data, "size": phase.size, "frames": phase.frames, "gap": phase.gap}
        source = ClipSource(self.material, ClipConfig(**data, max_objects=phase.max_objects), self.config.seed)
        steps = _Steps(source, self.step, end, phase.batch)
        return DataLoader(
            steps,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=_one_thread,
        )


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    """The batches of steps `first..end`."""

    def __init__(self, source: ClipSource, first: int, end: int, batch: int) -> None:
        self.source, self.first, self.end, self.batch = source, first, end, batch

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        if not 0 <= item < len(self):
            raise IndexError(item)
        start = (self.first + item) * self.batch
        return self.source.batch(range(start, start + self.batch))


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
