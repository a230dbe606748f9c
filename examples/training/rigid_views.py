"""Renders rigid bodies with pybullet's software renderer: a backdrop of photos and a ground with shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pybullet
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rigid_bodies import Body, Floats, Photos
from torch import Tensor

__all__ = ["Backdrop", "Camera", "Light", "World"]

Singles = NDArray[np.float32]

SHADOW = 320  # pixels of a shadow's side


@dataclass(frozen=True, eq=False)
class Camera:
    """Where it stands, what it looks at, how it is rolled (radians) and how much it sees from top to bottom
    (radians)."""

    eye: Floats
    target: Floats
    roll: float
    field: float

    @property
    def axes(self) -> Floats:
        """Right, up and ahead: [3, 3]."""
        ahead = (self.target - self.eye) / np.linalg.norm(self.target - self.eye)
        right = np.cross(ahead, [0.0, 0.0, 1.0])
        right /= max(float(np.linalg.norm(right)), 1e-9)
        up = np.cross(right, ahead)
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return np.stack([cos * right + sin * up, cos * up - sin * right, ahead])

    def rays(self, width: int, height: int) -> Floats:
        """Directions through the middles of pixels, one pixel ahead: [H, W, 3]."""
        side = 2 * math.tan(self.field / 2) / height
        x = (np.arange(width) + 0.5 - width / 2) * side
        y = (height / 2 - 0.5 - np.arange(height)) * side
        right, up, ahead = self.axes
        rays: Floats = ahead + x[None, :, None] * right + y[:, None, None] * up
        return rays


@dataclass(frozen=True, eq=False)
class Light:
    """Where it comes from [3], and how much of it comes from everywhere, from there, and is reflected."""

    direction: Floats
    ambient: float
    diffuse: float
    specular: float

    @classmethod
    def draw(cls, rng: Generator) -> Light:
        """A sun that stands 35 to 80 degrees high."""
        turn, rise = rng.uniform(0, 2 * np.pi), math.radians(rng.uniform(35, 80))
        direction = np.array([math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise)])
        ambient = rng.uniform(0.4, 0.7)
        return cls(direction, ambient, rng.uniform(0.95, 1.15) - ambient, rng.uniform(0, 0.25))


class Backdrop:
    """A photo all around, there and back, and with `ground` another one to stand on.

    Args:
        rng: the only source of chance.
        photos: where they are drawn from.
        ground: whether there is a ground, at height 0.
        pitch: of the first camera, radians; without a ground the photo's middle is there.
    """

    def __init__(self, rng: Generator, photos: Photos, *, ground: bool, pitch: float = 0.0) -> None:
        photo = photos.draw(rng)
        photo = photo.resize((640, round(640 * photo.height / photo.width)), Image.Resampling.LANCZOS)
        if rng.random() < 0.6:  # out of focus
            photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))
        self._wide = math.radians(rng.uniform(50, 95))
        self._high = self._wide * photo.height / photo.width
        self._photo = _tensor(photo)
        self._turn, self._pitch = rng.uniform(0, 2 * np.pi), -0.2 * self._high if ground else pitch
        self._ground: list[Tensor] = []
        if ground:
            # The calmest of a few: most ground is.
            finest = min((_tensor(photos.patch(rng, 512, 512)) for _ in range(4)), key=lambda patch: float(patch.std()))
            if rng.random() < 0.6:  # asphalt and lawn rather than a picture
                grey = finest.mean((1, 2), keepdim=True)
                finest = (grey + (finest - grey) * rng.uniform(0.25, 0.6)).clamp(0, 1)
            self._ground = [finest, F.avg_pool2d(finest, 4), F.avg_pool2d(finest, 16)]
            self._tile, self._far = rng.uniform(1.5, 5), rng.uniform(12, 30)
            self._dark = rng.uniform(0.35, 0.7)

    def draw(self, camera: Camera, width: int, height: int, shadow: Shadow | None) -> Singles:
        """What the camera sees behind the bodies: [H, W, 3] in 0..1."""
        rays = camera.rays(width, height).astype(np.float32)
        turn = np.arctan2(rays[..., 1], rays[..., 0]) + self._turn
        rise = np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1])) - self._pitch
        # A whole number of photos goes around, so that there is no seam.
        count = max(2, 2 * round(np.pi / self._wide))
        seen = _sampled(self._photo, _mirrored(turn * count / (2 * np.pi)), _mirrored(0.5 - rise / self._high))
        if not self._ground:
            return seen
        down = np.maximum(-rays[..., 2], 1e-6)
        ahead = np.minimum(camera.eye[2] / down, 1e4)
        x, y = (camera.eye[axis] + ahead * rays[..., axis] for axis in (0, 1))
        length = np.linalg.norm(rays, axis=-1)
        pixel = (
            2 * math.tan(camera.field / 2) / height * ahead * np.sqrt(length / down) / self._tile * 512
        )  # texels a pixel
        level = np.clip(np.log(np.maximum(pixel, 1)) / np.log(4), 0, 2)[..., None]
        u, v = _mirrored(x / self._tile), _mirrored(y / self._tile)
        floor = sum(
            np.maximum(0, 1 - np.abs(level - number)) * _sampled(picture, u, v)
            for number, picture in enumerate(self._ground)
        )
        if shadow is not None:
            floor = floor * (1 - self._dark * shadow.at(x, y)[..., None])
        near = np.clip((1.3 * self._far - ahead * length) / (0.6 * self._far), 0, 1)[..., None]
        near = np.where(rays[..., 2:] < 0, near * near * (3 - 2 * near), 0)
        return np.asarray(near * floor + (1 - near) * seen)


class Shadow:
    """Which places of the ground the light does not reach, seen from the light: soft, [S, S]."""

    def __init__(self, covered: NDArray[np.bool_], matrix: Floats) -> None:
        mask = torch.from_numpy(covered)[None].float()
        self._mask = F.avg_pool2d(F.avg_pool2d(mask, 5, 1, 2), 3, 1, 1)
        self._matrix = matrix

    def at(self, x: Singles, y: Singles) -> Singles:
        """How dark the ground is, [H, W] in 0..1."""
        row = [
            self._matrix[number, 0] * x + self._matrix[number, 1] * y + self._matrix[number, 3] for number in (0, 1, 3)
        ]
        return _sampled(self._mask, 0.5 + row[0] / row[2] / 2, 0.5 - row[1] / row[2] / 2, outside="zeros")[..., 0]


class World:
    """Bodies in pybullet, to be used in a `with`; it computes falls too.

    Args:
        folder: where textures are written for pybullet to read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reach: list[float] = []

    def __enter__(self) -> World:
        self.client = pybullet.connect(pybullet.DIRECT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pybullet.disconnect(self.client)

    def add(self, body: Body, size: float, *, mass: float = 0.0) -> int:
        """Put a body in; the number that it has from now on."""
        mesh = body.mesh
        file = self._folder / f"{len(self._reach)}.png"
        body.texture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file, compress_level=1)
        shape = pybullet.createVisualShape(
            pybullet.GEOM_MESH,
            vertices=(size * mesh.points).tolist(),
            indices=mesh.faces.ravel().tolist(),
            uvs=mesh.places.tolist(),
            normals=mesh.normals.tolist(),
            rgbaColor=[1, 1, 1, 1],
        )
        hull = -1
        if mass:
            every = mesh.points[:: max(1, len(mesh.points) // 200)]
            hull = pybullet.createCollisionShape(pybullet.GEOM_MESH, vertices=(size * every).tolist())
        number = int(pybullet.createMultiBody(mass, hull, shape))
        pybullet.changeVisualShape(number, -1, textureUniqueId=pybullet.loadTexture(str(file)))
        self._reach.append(size)
        return number

    def draw(
        self, camera: Camera, width: int, height: int, light: Light, *, aside: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Colours [H, W, 3] and numbers [H, W] of the bodies, -1 where there is none; seen from `aside` of pixels'
        middles."""
        up = camera.axes[1]
        view = pybullet.computeViewMatrix(camera.eye.tolist(), camera.target.tolist(), up.tolist())
        lens = pybullet.computeProjectionMatrixFOV(math.degrees(camera.field), width / height, 0.05, 100)
        lens = [*lens[:8], lens[8] + 2 * aside[0] / width, lens[9] + 2 * aside[1] / height, *lens[10:]]
        _, _, colours, _, numbers = pybullet.getCameraImage(
            width,
            height,
            view,
            lens,
            lightDirection=light.direction.tolist(),
            lightDistance=20,
            shadow=0,
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.diffuse,
            lightSpecularCoeff=light.specular,
            renderer=pybullet.ER_TINY_RENDERER,
        )
        return np.asarray(colours, np.uint8).reshape(height, width, 4)[..., :3], np.asarray(numbers).reshape(
            height, width
        )

    def shadow(self, light: Light, centre: Floats, reach: float) -> Shadow:
        """The shadows of all bodies on the ground around a place."""
        ground = np.array([centre[0], centre[1], 0.0])
        view = pybullet.computeViewMatrix((ground + 40 * light.direction).tolist(), ground.tolist(), [0.0, 0.0, 1.0])
        lens = pybullet.computeProjectionMatrixFOV(math.degrees(2 * math.atan(reach / 40)), 1, 1, 100)
        _, _, _, _, numbers = pybullet.getCameraImage(
            SHADOW, SHADOW, view, lens, shadow=0, renderer=pybullet.ER_TINY_RENDERER
        )
        matrix = np.array(lens).reshape(4, 4).T @ np.array(view).reshape(4, 4).T
        return Shadow(np.asarray(numbers).reshape(SHADOW, SHADOW) >= 0, matrix)


def _mirrored(value: Singles) -> Singles:
    """There and back: 0..1 for any number."""
    return 1 - np.abs(value % 2 - 1)


def _sampled(picture: Tensor, u: Singles, v: Singles, *, outside: str = "border") -> Singles:
    """A picture [C, h, w] at places in 0..1: [H, W, C]."""
    places = torch.from_numpy(np.stack([2 * u - 1, 2 * v - 1], -1).astype(np.float32))[None]
    found = F.grid_sample(picture[None], places, mode="bilinear", padding_mode=outside, align_corners=False)
    return np.asarray(found[0].permute(1, 2, 0).numpy())


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
