"""Clips of rigid bodies that turn, fall, roll and pass in front of one another, with exact masks: material for
training.

    pip install pybullet
    python examples/training/rigid_clips.py --material PHOTOS --clips 120 --seed 0 -o OUT

OUT has the layout `davis` of DAVIS, as a source of `stmemory.training`. Existing clips are kept, so an interrupted run
can be continued. A clip depends only on (seed, number) and the photos. The emphasis is on large bodies that turn a new
side to the camera: cars that drift, cameras that orbit, things that tumble. The licences of the photos apply to OUT;
the shapes are generated here, except those of pybullet (zlib licence).
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet
import pybullet_data
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from rigid_bodies import Body, Floats, Photos, draw_body
from rigid_views import Backdrop, Camera, Light, World

from stmemory.io.palette import write_palette_png

FRAMES, WIDTH, HEIGHT = 24, 448, 256
SCENES = {"drift": 0.4, "orbit": 0.25, "spin": 0.15, "tumble": 0.2}
# Where in a pixel the samples of a frame lie, no two in a line: their mean is a picture without jagged edges, and
# blurred by motion.
ASIDE = tuple(((number + 0.5) / 6 - 0.5, (place + 0.5) / 6 - 0.5) for number, place in enumerate((2, 5, 0, 3, 1, 4)))
SHAPES = Path(pybullet_data.getDataPath()) / "random_urdfs"


@dataclass(eq=False)
class Actor:
    """A body and where it is at each moment.

    Attributes:
        body: what it is.
        size: its largest extent.
        label: its id in the masks; 0 for what is not to be tracked.
        places: [M, 3], of its middle.
        turns: [M, 3], roll, pitch and yaw in radians; or [M, 4], quaternions.
    """

    body: Body
    size: float
    label: int
    places: Floats
    turns: Floats

    @property
    def stand(self) -> float:
        """Height of its middle when it stands on the ground."""
        return -self.size * float(self.body.mesh.points[:, 2].min())


@dataclass(frozen=True, eq=False)
class Shots:
    """The cameras of a clip, one for each moment, and what is behind."""

    cameras: Sequence[Camera]
    backdrop: Backdrop
    light: Light
    ground: bool


class Director:
    """Draws one scene.

    Args:
        rng: the only source of chance.
        photos: for textures and backdrops.
        moments: [M], time in 0..1 of each moment that is drawn.
    """

    def __init__(self, rng: Generator, photos: Photos, moments: Floats) -> None:
        self.rng, self.photos, self.moments = rng, photos, moments
        self.kind = str(rng.choice(list(SCENES), p=list(SCENES.values())))
        self.actors: list[Actor] = []

    def ease(self, *, least: float = 0.3) -> Floats:
        """From 0 to 1 at a speed that changes: [M]."""
        fine = np.linspace(0, 1, 400)
        speed = np.interp(fine, np.linspace(0, 1, 6), self.rng.uniform(least, 2 - least, 6))
        way = np.cumsum(speed) - speed[0]
        return np.interp(self.moments, fine, way / way[-1])

    def wander(self, size: float) -> Floats:
        """About 0, never far from it: [M]."""
        waves = [(self.rng.uniform(0.3, 2.5), self.rng.uniform(0, 2 * np.pi), self.rng.normal() / 2) for _ in range(3)]
        return size * sum(share * np.sin(2 * np.pi * often * self.moments + phase) for often, phase, share in waves)

    def body(self, *kinds: str) -> Body:
        """A body of one of these kinds, or of any."""
        kind = str(self.rng.choice(kinds)) if kinds else None
        return draw_body(self.rng, self.photos, SHAPES, kind=kind)

    def scene(self, world: World) -> Shots:
        """Draw everything."""
        rng = self.rng
        ground = self.kind != "spin" and (self.kind == "tumble" or rng.random() < 0.75)
        total = rng.choice([-1, 1]) * math.radians(
            rng.uniform(70, 360)
        )  # by which the star turns as the camera sees it
        share = {"drift": rng.uniform(0, 0.3), "orbit": 1.0, "spin": 0.0, "tumble": rng.uniform(-0.5, 0.5)}[self.kind]
        star = self.tumble(world) if self.kind == "tumble" else self.star(self.kind, (1 - share) * total)
        if (self.kind == "drift" and rng.random() < 0.5) or rng.random() < 0.35:
            self.lookalike(star)
        cameras = self.cameras(star, -share * total, ground)
        if rng.random() < 0.5:
            self.passer(star, cameras, ground)
        if ground:
            self.clutter(star)
        ahead = cameras[0].axes[2]
        pitch = math.asin(float(ahead[2]))
        return Shots(cameras, Backdrop(rng, self.photos, ground=ground, pitch=pitch), Light.draw(rng), ground)

    def star(self, kind: str, turn: float) -> Actor:
        """The one that the camera follows."""
        rng, count = self.rng, len(self.moments)
        body = self.body(*(("car",) * 4 + ("animal", "person") if kind == "drift" else ()))
        star = Actor(body, 1.0, 1, np.zeros((count, 3)), np.zeros((count, 3)))
        yaw = rng.uniform(0, 2 * np.pi) + turn * self.ease(least=0.15)
        star.turns[:, 2] = yaw
        star.places[:, 2] = star.stand
        if kind == "drift":  # it goes where it looks, but for the angle of the drift
            slip = math.radians(rng.uniform(-60, 60)) * self.ease()
            way = np.gradient(self.ease()) * rng.uniform(0.5, 7)
            star.places[:, 0], star.places[:, 1] = (
                np.cumsum(way * np.cos(yaw - slip)),
                np.cumsum(way * np.sin(yaw - slip)),
            )
            star.turns[:, 0], star.turns[:, 1] = self.wander(0.04), self.wander(0.03)
        elif kind == "spin":
            star.turns[:, 0], star.turns[:, 1] = (rng.normal() * 0.3 + self.wander(0.35) for _ in range(2))
        self.actors.append(star)
        return star

    def lookalike(self, star: Actor) -> None:
        """The same body again, beside it, behind it, or on its trail."""
        rng = self.rng
        late = int(rng.uniform(0, 0.3) * len(self.moments))
        places = np.concatenate([np.repeat(star.places[:1], late, 0), star.places[: len(star.places) - late]])
        away, turn = rng.uniform(0.8, 1.7), rng.uniform(0, 2 * np.pi)
        places = places + [away * math.cos(turn), away * math.sin(turn), 0]
        places[:, 0], places[:, 1] = places[:, 0] + self.wander(0.3), places[:, 1] + self.wander(0.3)
        if star.turns.shape[1] == 4:
            places[:, 2] = star.stand
        turns = np.zeros((len(places), 3))
        yaw = star.turns[:, 2] if star.turns.shape[1] == 3 else np.zeros(len(places))
        turns[:, 2] = yaw * rng.uniform(0.4, 1.2) + rng.uniform(-1.5, 1.5)
        self.actors.append(Actor(star.body, star.size * rng.uniform(0.85, 1.1), len(self.actors) + 1, places, turns))

    def passer(self, star: Actor, cameras: Sequence[Camera], ground: bool) -> None:
        """Somebody or something that goes between the camera and the star."""
        rng = self.rng
        passer = Actor(
            self.body(),
            rng.uniform(0.3, 0.8),
            len(self.actors) + 1,
            np.zeros((len(cameras), 3)),
            np.zeros((len(cameras), 3)),
        )
        near, when = rng.uniform(0.4, 0.75), rng.uniform(0.2, 0.8)
        across = rng.choice([-1, 1]) * rng.uniform(1.5, 5) * (self.ease() - when)
        for number, camera in enumerate(cameras):
            right = camera.axes[0]
            away = near * float(np.linalg.norm(star.places[number] - camera.eye))
            wide = away * math.tan(camera.field / 2)
            passer.places[number] = (
                camera.eye + near * (star.places[number] - camera.eye) + right * across[number] * wide * 1.3
            )
            if ground:
                passer.places[number, 2] = passer.stand
            heading = right * np.sign(across[-1] - across[0])
            passer.turns[number, 2] = math.atan2(heading[1], heading[0])
        passer.turns[:, 2] += rng.normal() * 0.4 + self.wander(0.5)
        self.actors.append(passer)

    def clutter(self, star: Actor) -> None:
        """Things that stand around."""
        rng = self.rng
        for _ in range(int(rng.integers(0, 6))):
            turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 5)
            centre = star.places[int(rng.integers(len(star.places)))]
            thing = Actor(
                self.body(),
                rng.uniform(0.3, 1.2),
                0,
                np.zeros((len(self.moments), 3)),
                np.zeros((len(self.moments), 3)),
            )
            if rng.random() < 0.4:
                thing.label = max(actor.label for actor in self.actors) + 1
            thing.places[:] = [centre[0] + away * math.cos(turn), centre[1] + away * math.sin(turn), thing.stand]
            thing.turns[:, 2] = rng.uniform(0, 2 * np.pi)
            self.actors.append(thing)

    def tumble(self, world: World) -> Actor:
        """Two to five bodies are thrown, fall and roll, by the laws of physics."""
        rng = self.rng
        floor = pybullet.createCollisionShape(pybullet.GEOM_PLANE)
        pybullet.changeDynamics(
            pybullet.createMultiBody(0, floor),
            -1,
            lateralFriction=rng.uniform(0.3, 1),
            restitution=rng.uniform(0.2, 0.8),
        )
        pybullet.setGravity(0, 0, -rng.uniform(3, 10))
        thrown = []
        for label in range(1, int(rng.integers(2, 6)) + 1):
            actor = Actor(
                self.body(), 1.0 if label == 1 else rng.uniform(0.4, 1.0), label, np.zeros((0, 3)), np.zeros((0, 4))
            )
            number = world.add(actor.body, actor.size, mass=actor.size**3)
            turn = pybullet.getQuaternionFromEuler(rng.uniform(-np.pi, np.pi, 3).tolist())
            place = [*rng.uniform(-1.3, 1.3, 2), rng.uniform(0.6, 2.2)] if label > 1 else [0, 0, rng.uniform(0.6, 1.5)]
            pybullet.resetBasePositionAndOrientation(number, place, turn)
            pybullet.resetBaseVelocity(
                number, [*rng.uniform(-2, 2, 2), rng.uniform(-2, 2)], rng.uniform(-6, 6, 3).tolist()
            )
            pybullet.changeDynamics(
                number, -1, lateralFriction=0.7, restitution=rng.uniform(0.2, 0.8), rollingFriction=0.01
            )
            thrown.append((number, actor))
        lasts, states = rng.uniform(1.0, 2.2), []
        for _ in range(int(480 * lasts) + 2):
            pybullet.setTimeStep(1 / 480)
            pybullet.stepSimulation()
            states.append(
                [
                    [*place, *turn]
                    for place, turn in (pybullet.getBasePositionAndOrientation(number) for number, _ in thrown)
                ]
            )
        at = np.round(self.moments * 480 * lasts).astype(int)
        for (_, actor), track in zip(thrown, np.array(states)[at].transpose(1, 0, 2), strict=True):
            actor.places, actor.turns = track[:, :3].copy(), track[:, 3:].copy()
            self.actors.append(actor)
        return self.actors[0]

    def cameras(self, star: Actor, turn: float, ground: bool) -> list[Camera]:
        """They keep the star in the frame, at 20 to 60 % of its height, in a change of size by up to three."""
        rng, count = self.rng, len(self.moments)
        extent = star.size * np.ptp(star.body.mesh.points, axis=0)
        tall = max(
            float(extent[2]),
            0.5 * float(extent[:2].max()),
            0.8 * float(extent.max()) if self.kind in ("tumble", "spin") else 0,
        )
        ratio = math.exp(rng.choice([-1, 1]) * rng.uniform(math.log(1.2), math.log(3)))
        first = rng.uniform(0.32, 0.75)
        last = min(max(first * ratio, 0.22), 0.85)
        shown = first * (last / first) ** self.ease()  # of the frame's height
        smooth = max(1, count // 6)
        middle = np.stack(
            [
                np.convolve(
                    np.pad(star.places[:, axis], smooth, mode="edge"),
                    np.ones(2 * smooth + 1) / (2 * smooth + 1),
                    "valid",
                )
                for axis in range(3)
            ],
            -1,
        )
        middle = middle + (star.places - middle) * rng.uniform(0, 1)  # a camera that lags
        middle = middle + np.stack([self.wander(0.12) * tall / shown for _ in range(3)], -1) * [1, 1, 0.4]
        rise = math.radians(rng.uniform(2, 16) if rng.random() < 0.65 else rng.uniform(16, 45)) + self.wander(0.04)
        around = rng.uniform(0, 2 * np.pi) + turn * self.ease(least=0.15) + self.wander(0.04)
        toward = np.stack([np.cos(around) * np.cos(rise), np.sin(around) * np.cos(rise), np.sin(rise)], -1)
        field = np.full(count, math.radians(rng.uniform(22, 60)))
        away = tall / (2 * np.tan(field / 2) * shown)
        eyes = middle + away[:, None] * toward
        if self.kind == "drift" and rng.random() < 0.5:  # it stands and pans, and the lens does the rest
            way = middle - middle.mean(0)
            eyes = np.repeat(
                (middle.mean(0) + toward[0] * (3.0 + 1.2 * float(np.linalg.norm(way, axis=1).max())))[None], count, 0
            )
            away = np.linalg.norm(eyes - middle, axis=1)
            field = np.clip(2 * np.arctan(tall / (2 * away * shown)), math.radians(8), math.radians(80))
        shake = rng.choice([0, 0.003, 0.01]) * away
        eyes = eyes + np.stack([self.wander(1) * shake for _ in range(3)], -1)
        if ground:
            eyes[:, 2] = np.maximum(eyes[:, 2], 0.12)
        roll = self.wander(0.05) * (rng.random() < 0.5)
        return [
            Camera(eyes[number], middle[number], float(roll[number]), float(field[number])) for number in range(count)
        ]


def make_clip(seed: int, number: int, photos: Photos) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """One clip: frames [T, H, W, 3], ids [T, H, W], and what is seen."""
    rng = np.random.default_rng([seed, number])
    shutter = 0.0 if rng.random() < 0.3 else rng.uniform(0.1, 0.6)  # share of the time between frames that it is open
    moments = (np.arange(FRAMES)[:, None] + shutter * (np.arange(len(ASIDE)) + 0.5) / len(ASIDE)).ravel() / FRAMES
    director = Director(rng, photos, moments)
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as falling:
        shots = director.scene(falling)
    frames, ids = [], []
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
        numbers = [world.add(actor.body, actor.size) for actor in director.actors]
        labels = np.zeros(max(numbers) + 2, np.int64)
        labels[numbers] = [actor.label for actor in director.actors]  # the last stays 0, for -1
        for time in range(FRAMES):
            total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
            votes = np.zeros((int(labels.max()) + 1, HEIGHT, WIDTH), np.uint8)
            for sample, aside in enumerate(ASIDE):
                moment = time * len(ASIDE) + sample
                camera = shots.cameras[moment]
                for body, actor in zip(numbers, director.actors, strict=True):
                    turn = actor.turns[moment].tolist()
                    pybullet.resetBasePositionAndOrientation(
                        body,
                        actor.places[moment].tolist(),
                        turn if len(turn) == 4 else pybullet.getQuaternionFromEuler(turn),
                    )
                if sample == 0:
                    shadow = world.shadow(shots.light, director.actors[0].places[moment], 3.5) if shots.ground else None
                if sample == 0 or shutter:
                    behind = shots.backdrop.draw(camera, WIDTH, HEIGHT, shadow)
                colours, seen = world.draw(camera, WIDTH, HEIGHT, shots.light, aside=aside)
                total += np.where((seen >= 0)[..., None], colours / np.float32(255), behind)
                found = labels[seen]
                for label in range(len(votes)):
                    votes[label] += found == label
            frames.append(total / len(ASIDE))
            ids.append(votes.argmax(0))
    return _developed(rng, frames), np.stack(ids).astype(np.uint8), director.kind


def _developed(rng: Generator, frames: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Exposure that changes, a tint, a contrast, noise."""
    gain, drift, tint = rng.uniform(0.75, 1.2), rng.normal(0, 0.05), rng.uniform(0.92, 1.08, 3).astype(np.float32)
    curve, grain = np.float32(rng.uniform(0.8, 1.25)), np.float32(rng.uniform(0.5, 5))
    developed = []
    for time, frame in enumerate(frames):
        lit = frame * (tint * np.float32(gain * (1 + drift * (2 * time / len(frames) - 1))))
        noise = grain * rng.standard_normal(frame.shape, np.float32)
        developed.append((255 * lit.clip(0, 1) ** curve + noise).round().clip(0, 255).astype(np.uint8))
    return np.stack(developed)


def _write(seed: int, number: int, material: Path, out: Path) -> str:
    """Make a clip and write it; the masks' folder appears last, so a clip that has one is whole."""
    name = f"rigid{seed:03d}_{number:04d}"
    pictures, masks = out / "JPEGImages" / "480p" / name, out / "Annotations" / "480p" / name
    if masks.is_dir():
        return f"{name} is there"
    frames, ids, kind = make_clip(seed, number, Photos(material))
    part = masks.with_name(f".{name}")
    shutil.rmtree(part, ignore_errors=True)
    for folder in (pictures, part):
        folder.mkdir(parents=True, exist_ok=True)
    for time, (frame, mask) in enumerate(zip(frames, ids, strict=True)):
        Image.fromarray(frame).save(pictures / f"{time:05d}.jpg", quality=90)
        write_palette_png(part / f"{time:05d}.png", mask)
    part.rename(masks)
    return f"{name} {kind}, {int(ids.max())} objects"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing of a folder of clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--material", type=Path, required=True, help="a folder of photos, in folders called images or backgrounds"
    )
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="processes")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    work = [
        (options.seed, number, options.material, options.out)
        for number in range(options.first, options.first + options.clips)
    ]
    if options.jobs == 1:
        for each in work:
            print(_write(*each), flush=True)
        return
    with ProcessPoolExecutor(options.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for line in pool.map(_write, *zip(*work, strict=True)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
