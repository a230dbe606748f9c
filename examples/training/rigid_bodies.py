"""Rigid bodies to render: meshes whose texture differs from side to side.

Cars, animals, people, parcels and turned vessels are generated here; the 1,000 random shapes come with pybullet (zlib
licence). All stand upright with +z up and +x ahead; the largest extent is 1.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

__all__ = ["Body", "Mesh", "Photos", "draw_body"]

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # of the texture: left, top, right, bottom in 0..1

SIDE = 512  # of a texture, pixels
KINDS = {"car": 0.34, "animal": 0.14, "person": 0.12, "parcel": 0.12, "vessel": 0.12, "shape": 0.16}


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles, with a normal and a place in the texture for each corner.

    Attributes:
        points: [V, 3].
        faces: int [F, 3], anticlockwise seen from outside.
        normals: [V, 3], of length 1.
        places: [V, 2] in 0..1, from the texture's top left.
    """

    points: Floats
    faces: NDArray[np.int64]
    normals: Floats
    places: Floats


@dataclass(frozen=True, eq=False)
class Body:
    """A mesh, its texture and what it is."""

    mesh: Mesh
    texture: Image.Image
    kind: str


class Photos:
    """Photographs of a folder, drawn evenly by the folder that they lie in.

    Args:
        root: searched for `images` and `backgrounds` at any depth; what has a number for a name may be a frame of a
            video, and is left out.
    """

    def __init__(self, root: Path) -> None:
        files = sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".webp"))
        groups: dict[Path, list[Path]] = {}
        for path in files:
            inside = path.relative_to(root).parts[:-1]
            if ("backgrounds" in inside or inside[-1:] == ("images",)) and not path.stem.isdecimal():
                groups.setdefault(path.parent, []).append(path)
        if not groups:
            raise SystemExit(f"{root}: expected photos in folders called images or backgrounds, got none")
        self._groups = list(groups.values())
        self._weights = np.sqrt([len(group) for group in self._groups])

    def draw(self, rng: Generator) -> Image.Image:
        """One of them."""
        group = self._groups[int(rng.choice(len(self._groups), p=self._weights / self._weights.sum()))]
        with Image.open(group[int(rng.integers(len(group)))]) as image:
            return image.convert("RGB")

    def patch(self, rng: Generator, width: int, height: int) -> Image.Image:
        """A piece of one of them, 30 to 100 % of its shorter side."""
        image = self.draw(rng)
        side = min(image.size) * rng.uniform(0.3, 1.0)
        left, top = (rng.uniform(0, length - side) for length in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def draw_body(rng: Generator, photos: Photos, shapes: Path, *, kind: str | None = None) -> Body:
    """Make a body.

    Args:
        rng: the only source of chance.
        photos: what it is textured with.
        shapes: `random_urdfs` of pybullet_data.
        kind: one of `KINDS`; drawn when it is not given.
    """
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "car":
        mesh, texture = _car(rng, photos)
    elif kind in ("animal", "person"):
        mesh, texture = _living(rng, photos, upright=kind == "person")
    elif kind == "parcel":
        mesh, texture = _parcel(rng, photos)
    elif kind == "vessel":
        mesh, texture = _vessel(rng, photos)
    else:
        mesh, texture = _shape(rng, photos, shapes)
    low, high = mesh.points.min(0), mesh.points.max(0)
    points = (mesh.points - (low + high) / 2) / float((high - low).max())
    return Body(Mesh(points, mesh.faces, mesh.normals, mesh.places), texture, kind)


def _grid(points: Floats, box: Box, inside: Floats, *, flat: bool = False) -> Mesh:
    """A surface from a grid of points [n, m, 3], seen from the side that a point inside it is not on."""
    rows, columns = points.shape[:2]
    flat_points = points.reshape(-1, 3)
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))])
    corners = flat_points[faces]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if float((outward * (corners.mean(1) - inside)).sum()) < 0:
        faces, corners, outward = faces[:, ::-1], corners[:, ::-1], -outward
    u, v = np.meshgrid(np.linspace(box[0], box[2], rows), np.linspace(box[1], box[3], columns), indexing="ij")
    places = np.stack([u, v], -1).reshape(-1, 2)
    if flat:
        normals = np.repeat(_unit(outward), 3, 0)
        return Mesh(
            corners.reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3), normals, places[faces].reshape(-1, 2)
        )
    return Mesh(flat_points, faces, _smooth(flat_points, faces, outward), places)


def _smooth(points: Floats, faces: NDArray[np.int64], outward: Floats) -> Floats:
    """Normals that points at the same place share."""
    _, same = np.unique(np.round(points, 5), axis=0, return_inverse=True)
    total = np.zeros((int(same.max()) + 1, 3))
    for corner in range(3):
        np.add.at(total, same.ravel()[faces[:, corner]], outward)
    return _unit(total)[same.ravel()]


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _joined(meshes: Sequence[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.places for mesh in meshes]),
    )


def _turned(profile: Floats, box: Box, *, sides: int = 24) -> Mesh:
    """A profile of (radius, height) [n, 2] turned about the z axis."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    radius, height = profile[None, :, 0], np.broadcast_to(profile[None, :, 1], (sides + 1, len(profile)))
    points = np.stack([radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None], height], -1)
    points[-1] = points[0]
    return _grid(points, box, points.mean((0, 1)))


def _limb(start: Floats, end: Floats, radii: tuple[float, float], box: Box) -> Mesh:
    """A rounded rod between two points."""
    along = end - start
    length = float(np.linalg.norm(along))
    turns = np.linspace(0, np.pi / 2, 5)
    profile = np.concatenate(
        [
            np.stack([radii[0] * np.sin(turns), -radii[0] * np.cos(turns)], -1),
            np.stack([radii[1] * np.cos(turns), length + radii[1] * np.sin(turns)], -1),
        ]
    )
    mesh = _turned(profile, box, sides=14)
    z = along / length
    x = _unit(np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z))
    axes = np.stack([x, np.cross(z, x), z])
    return Mesh(mesh.points @ axes + start, mesh.faces, mesh.normals @ axes, mesh.places)


def _ball(centre: Floats, radii: Floats, box: Box) -> Mesh:
    """An ellipsoid; the middle of its texture looks ahead."""
    turn, rise = np.meshgrid(np.linspace(np.pi, -np.pi, 21), np.linspace(np.pi / 2, -np.pi / 2, 13), indexing="ij")
    points = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], -1)
    points[-1] = points[0]
    return _grid(points * radii + centre, box, centre)


def _paint(rng: Generator, *, vivid: float = 0.6) -> Colour:
    """A colour of cars and clothes: many are grey."""
    saturation = rng.uniform(0.4, 0.95) if rng.random() < vivid else rng.uniform(0, 0.15)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.15, 0.95))
    return int(255 * red), int(255 * green), int(255 * blue)


def _tinted(photo: Image.Image, colour: Colour, share: float) -> Image.Image:
    """The photo's light and dark in a colour."""
    return Image.blend(photo, Image.new("RGB", photo.size, colour), share)


# The roof's height over the length, rear to front, as shares of the length and of the height; and the share of the
# height where windows begin.
_CARS: dict[str, tuple[tuple[tuple[float, float], ...], float]] = {
    "sedan": (
        ((0, 0.6), (0.15, 0.68), (0.28, 0.98), (0.42, 1.0), (0.56, 0.98), (0.73, 0.66), (0.95, 0.55), (1, 0.42)),
        0.64,
    ),
    "hatchback": (
        ((0, 0.6), (0.06, 0.75), (0.16, 0.98), (0.4, 1.0), (0.55, 0.97), (0.74, 0.68), (0.95, 0.56), (1, 0.42)),
        0.64,
    ),
    "coupe": (
        ((0, 0.62), (0.1, 0.7), (0.38, 0.98), (0.48, 1.0), (0.56, 0.96), (0.7, 0.7), (0.94, 0.56), (1, 0.4)),
        0.68,
    ),
    "van": (((0, 0.9), (0.03, 1.0), (0.4, 1.0), (0.68, 1.0), (0.74, 0.97), (0.86, 0.62), (0.97, 0.5), (1, 0.4)), 0.58),
    "bus": (((0, 0.95), (0.02, 1.0), (0.5, 1.0), (0.95, 1.0), (0.98, 0.95), (1, 0.6), (1, 0.6), (1, 0.5)), 0.5),
    "pickup": (
        ((0, 0.58), (0.38, 0.58), (0.4, 0.6), (0.44, 0.98), (0.6, 1.0), (0.74, 0.66), (0.96, 0.58), (1, 0.45)),
        0.62,
    ),
}
_ROUND = np.array(
    [0.0, 0.08, 0.16, 0.34, 0.44, 0.5, 0.56, 0.66, 0.84, 0.92, 1.0]
)  # places around a car, from below by its left side
_BODY = 0.8  # share of the texture that the body has; the wheels have the rest


def _car(rng: Generator, photos: Photos) -> tuple[Mesh, Image.Image]:
    """A car, a van or a bus: a shell with painted windows, and four wheels."""
    line, belt = _CARS[str(rng.choice(list(_CARS), p=[0.28, 0.22, 0.22, 0.12, 0.06, 0.1]))]
    wide, high, ground = rng.uniform(0.19, 0.23), rng.uniform(0.27, 0.36), rng.uniform(0.035, 0.06)
    if belt < 0.6:
        high *= 1.25
    knots = np.array(line)
    at = np.linspace(0, 1, 40)
    top = ground + (high - ground) * np.interp(at, knots[:, 0], knots[:, 1] + rng.uniform(-0.015, 0.015, len(knots)))
    waist = np.minimum(top, ground + (high - ground) * belt)
    width = wide * (1 - 0.16 * np.abs(2 * at - 1) ** 4)
    inset = rng.uniform(0.74, 0.9)
    roof = width * np.where(top > waist + 1e-3, inset, 0.9)
    sill = np.full_like(at, ground + 0.05 * high)
    zero, low = np.zeros_like(at), np.full_like(at, ground)
    half = [
        (zero, low),
        (0.85 * width, low),
        (width, sill),
        (1.02 * width, waist),
        (roof, top - 0.002),
        (zero, top + 0.012),
    ]
    ring = half + [(-y, z) for y, z in half[-2::-1]]
    points = np.stack([np.stack([at - 0.5, y, z], -1) for y, z in ring], 1)  # [40, 11, 3]
    ends = [np.repeat(points[end].mean(0, keepdims=True), 11, 0) for end in (0, -1)]
    points = np.concatenate([ends[0][None], points, ends[1][None]])
    shell = _grid(points, (0, 0, 1, _BODY), np.array([0, 0, (ground + high) / 2]))
    along = np.concatenate([[0.0], 0.06 + 0.88 * at, [1.0]])  # the ends get a part of their own
    shell = Mesh(
        shell.points,
        shell.faces,
        shell.normals,
        np.stack(np.meshgrid(along, _ROUND * _BODY, indexing="ij"), -1).reshape(-1, 2),
    )
    radius, thick = rng.uniform(0.068, 0.085), 0.05
    tyre = np.array([[0, 0.4], [0.62, 0.45], [0.66, 0.5], [0.95, 0.5], [1, 0.4], [1, -0.5], [0, -0.5]]) * [
        radius,
        thick,
    ]
    parts = [shell]
    for x in (-0.3 + rng.uniform(-0.03, 0.03), 0.3 + rng.uniform(-0.03, 0.03)):
        for side in (1, -1):
            wheel = _turned(tyre, (0, _BODY + 0.01, 1, 1))
            turn = np.array([[1.0, 0, 0], [0, 0, side], [0, -side, 0]]).T
            centre = np.array([x, side * (wide - 0.012), radius])
            parts.append(Mesh(wheel.points @ turn.T + centre, wheel.faces, wheel.normals @ turn.T, wheel.places))
    return _joined(parts), _livery(rng, photos, knots, belt)


def _livery(rng: Generator, photos: Photos, knots: Floats, belt: float) -> Image.Image:
    """The paint of a car: windows, lamps, doors, shadows below, and on some stripes and pictures, other ones on each
    side."""
    colour, second = _paint(rng), _paint(rng)
    image = _tinted(photos.patch(rng, SIDE, SIDE), colour, rng.uniform(0.8, 0.95))
    draw = ImageDraw.Draw(image)

    def box(left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        corners = [SIDE * (0.06 + 0.88 * left), SIDE * _BODY * top, SIDE * (0.06 + 0.88 * right), SIDE * _BODY * bottom]
        draw.rectangle(corners, fill=fill)

    for mirrored in (False, True):
        if rng.random() < 0.4:  # a stripe
            middle, thick = rng.uniform(0.2, 0.3), rng.uniform(0.01, 0.04)
            box(
                -0.1,
                *((1 - middle - thick, 1.1, 1 - middle + thick) if mirrored else (middle - thick, 1.1, middle + thick)),
                second,
            )
        for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):  # pictures on the door
            left, high = rng.uniform(0.1, 0.75), rng.uniform(0.06, 0.16)
            patch = photos.patch(rng, int(SIDE * rng.uniform(0.08, 0.25)), int(SIDE * _BODY * high))
            top = 1 - 0.33 if mirrored else 0.33 - high
            image.paste(patch, (int(SIDE * left), int(SIDE * _BODY * top)))
    if rng.random() < 0.3:  # along the roof
        box(-0.1, 0.48, 1.1, 0.52, second)
    glass = tuple(int(rng.uniform(10, 60)) for _ in range(3))
    cabin = [x for x, height in knots if height > belt + 0.1]
    rear, front = min(cabin), max(cabin)
    for top, bottom in ((0.345, 0.43), (0.57, 0.655)):
        panes = np.linspace(rear - 0.04, front + 0.05, int(rng.integers(3, 5)))
        for one, other in itertools.pairwise(panes):
            box(one + 0.006, top, other - 0.006, bottom, glass)
    slopes = [(rear - 0.12, rear - 0.01), (front + 0.01, front + 0.14)]
    for left, right in slopes:
        box(max(left, -0.05), 0.45, min(right, 1.03), 0.55, glass)
    dark = tuple(value // 3 for value in colour)
    for place in (rear + 0.02, (rear + front) / 2, front + 0.06):
        for top, bottom in ((0.18, 0.34), (0.66, 0.82)):
            box(place, top, place + 0.003, bottom, dark)
    box(-0.1, 0.0, 1.1, 0.13, (25, 25, 28))
    box(-0.1, 0.87, 1.1, 1.0, (25, 25, 28))
    for left, right, lamp in ((-0.035, 0.02, (170, 15, 15)), (0.98, 1.035, (240, 240, 215))):
        for top in (0.25, 0.68):
            box(left, top, right, top + 0.07, lamp)
    box(1.01, 0.4, 1.06, 0.6, (30, 30, 30))
    draw.rectangle([0, SIDE * _BODY, SIDE, SIDE], fill=(28, 28, 30))
    metal, spokes = int(rng.uniform(90, 220)), int(rng.integers(4, 9))
    for spoke in range(spokes):
        left = SIDE * spoke / spokes
        draw.rectangle(
            [left, SIDE * _BODY, left + SIDE * 0.55 / spokes, SIDE * (_BODY + 0.04)], fill=(metal, metal, metal)
        )
    return image


# Where the parts of animals and people have their texture.
_TRUNK, _HEAD, _LEGS, _ARMS = (
    (0.01, 0.01, 0.6, 0.6),
    (0.62, 0.01, 0.99, 0.37),
    (0.01, 0.62, 0.6, 0.99),
    (0.62, 0.4, 0.99, 0.99),
)


def _living(rng: Generator, photos: Photos, *, upright: bool) -> tuple[Mesh, Image.Image]:
    """An animal on four legs, or somebody upright, frozen in a step."""
    stride = rng.uniform(-0.12, 0.12, 4)
    if upright:
        build = rng.uniform(0.8, 1.25)
        trunk, shoulder = np.array([0.0, 0, 0.62]), 0.77
        parts = [_ball(trunk, np.array([0.075, 0.115, 0.2]) * [build, build, 1], _TRUNK)]
        parts.append(_limb(np.array([0.0, 0, 0.44]), np.array([0.0, 0, 0.52]), (0.1 * build, 0.09 * build), _LEGS))
        parts.append(_ball(np.array([0.01, 0, 0.91]), np.array([0.065, 0.055, 0.08]), _HEAD))
        for side, swing in ((1, stride[0]), (-1, -stride[0])):
            hip, knee, foot = (
                [0, 0.055 * side, 0.46],
                [swing + 0.03, 0.06 * side, 0.26],
                [1.6 * swing, 0.06 * side, 0.04],
            )
            parts.append(_limb(np.array(hip), np.array(knee), (0.06 * build, 0.048 * build), _LEGS))
            parts.append(_limb(np.array(knee), np.array(foot), (0.048 * build, 0.035), _LEGS))
            parts.append(_limb(np.array(foot), np.array(foot) + [0.09, 0, -0.01], (0.035, 0.028), _HEAD))
            out = rng.uniform(0.02, 0.16)
            elbow = np.array([-swing, (0.13 + out) * side * build, 0.6])
            parts.append(_limb(np.array([0, 0.12 * side * build, shoulder]), elbow, (0.042, 0.035), _ARMS))
            parts.append(
                _limb(elbow, elbow + [rng.uniform(0, 0.16), 0, rng.uniform(-0.17, 0.05)], (0.033, 0.025), _HEAD)
            )
    else:
        length, leg, neck = rng.uniform(0.45, 0.62), rng.uniform(0.18, 0.42), rng.uniform(0.08, 0.34)
        thick = rng.uniform(0.1, 0.17)
        back = leg + thick
        parts = [_ball(np.array([0, 0, back]), np.array([length * 0.6, thick * 0.85, thick]), _TRUNK)]
        chest, head = (
            np.array([length * 0.42, 0, back + 0.02]),
            np.array([length * 0.42 + 0.6 * neck, 0.06 * rng.normal(), back + neck]),
        )
        parts.append(_limb(chest, head, (thick * 0.75, thick * 0.45), _TRUNK))
        parts.append(_ball(head + [0.05, 0, 0.0], np.array([0.13, 0.07, 0.075]), _HEAD))
        for side in (1, -1):
            ear = head + [-0.01, 0.05 * side, 0.06]
            parts.append(_limb(ear, ear + [-0.02, 0.02 * side, 0.06], (0.025, 0.01), _ARMS))
            for x, swing in ((length * 0.42, stride[0] * side), (-length * 0.42, stride[1] * side)):
                hip, foot = np.array([x, 0.07 * side, back - 0.3 * thick]), np.array([x + swing, 0.075 * side, 0.03])
                parts.append(_limb(hip, foot, (0.06, 0.028), _LEGS))
        tail = np.array([-length * 0.56, 0, back + 0.03])
        parts.append(_limb(tail, tail + [-0.18, 0.1 * rng.normal(), rng.uniform(-0.15, 0.15)], (0.03, 0.015), _ARMS))
    image = Image.new("RGB", (SIDE, SIDE))
    fur = _paint(rng, vivid=0.3)
    for box in (_TRUNK, _HEAD, _LEGS, _ARMS):
        left, top, right, bottom = (int(SIDE * edge) for edge in box)
        colour = _paint(rng) if upright else fur
        patch = _tinted(photos.patch(rng, right - left + 8, bottom - top + 8), colour, rng.uniform(0.2, 0.75))
        image.paste(patch, (left - 4, top - 4))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = (SIDE * edge for edge in _HEAD)
    if upright:
        skin = colorsys.hsv_to_rgb(rng.uniform(0.03, 0.09), rng.uniform(0.25, 0.6), rng.uniform(0.35, 0.95))
        image.paste(
            _tinted(
                photos.patch(rng, int(right - left), int(bottom - top)),
                (int(255 * skin[0]), int(255 * skin[1]), int(255 * skin[2])),
                0.85,
            ),
            (int(left), int(top)),
        )
        hair = tuple(int(value) for value in rng.uniform(10, 120, 3))
        draw.rectangle([left, top, right, top + 0.35 * (bottom - top)], fill=hair)
        draw.rectangle([left, top, left + 0.28 * (right - left), top + 0.7 * (bottom - top)], fill=hair)
        draw.rectangle([right - 0.28 * (right - left), top, right, top + 0.7 * (bottom - top)], fill=hair)
    for x in (0.42, 0.58):
        at, height = left + x * (right - left), top + 0.45 * (bottom - top)
        draw.ellipse([at - 6, height - 5, at + 6, height + 5], fill=(15, 12, 10))
    return _joined(parts), image


def _parcel(rng: Generator, photos: Photos) -> tuple[Mesh, Image.Image]:
    """A box with another picture on each of its six sides."""
    size = rng.uniform(0.35, 1.0, 3)
    image = Image.new("RGB", (SIDE, SIDE))
    third, parts = SIDE // 3, []
    colour, share = _paint(rng), rng.uniform(0, 0.7)
    for number in range(6):
        axis, sign = number // 2, 1 - 2 * (number % 2)
        one, other = np.meshgrid([-0.5, 0.5], [0.5, -0.5], indexing="ij")
        points = np.zeros((2, 2, 3))
        points[..., axis], points[..., (axis + 1) % 3], points[..., (axis + 2) % 3] = 0.5 * sign, one, other
        if axis == 1:  # keep the pictures of the sides upright
            points = points[:, :, [0, 1, 2]].transpose(1, 0, 2)[::-1]
        column, row = number % 3, number // 3
        box = (
            (column * third + 3) / SIDE,
            (row * third + 3) / SIDE,
            ((column + 1) * third - 3) / SIDE,
            ((row + 1) * third - 3) / SIDE,
        )
        parts.append(_grid(points * size, box, np.zeros(3), flat=True))
        image.paste(_tinted(photos.patch(rng, third, third), colour, share), (column * third, row * third))
    return _joined(parts), image


def _vessel(rng: Generator, photos: Photos) -> tuple[Mesh, Image.Image]:
    """A vase, a bottle, a lamp: a random profile turned, with a photo around it and another on a patch."""
    count = int(rng.integers(4, 8))
    knots = np.linspace(0, 1, count)
    heights = np.linspace(0, 1, 24)
    radius = np.interp(heights, knots, rng.uniform(0.12, 0.42, count))
    radius = np.convolve(np.pad(radius, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    profile = np.concatenate([[[0, 0]], np.stack([radius, heights], -1), [[0, 1]]])
    image = _tinted(photos.patch(rng, SIDE, SIDE), _paint(rng), rng.uniform(0, 0.7))
    if rng.random() < 0.7:  # a label on one side
        image.paste(
            photos.patch(rng, SIDE // 3, SIDE // 3), (int(rng.integers(SIDE // 2)), int(rng.integers(SIDE // 2)))
        )
    mesh = _turned(profile, (0, 0.99, 1, 0.01))
    return Mesh(mesh.points * [1, rng.uniform(0.5, 1), 1], mesh.faces, mesh.normals, mesh.places), image


def _shape(rng: Generator, photos: Photos, shapes: Path) -> tuple[Mesh, Image.Image]:
    """One of pybullet's random shapes, a photo wrapped around it; flat or smooth."""
    number = f"{int(rng.integers(1000)):03d}"
    points, faces = [], []
    for line in (shapes / number / f"{number}.obj").read_text(encoding="utf-8").splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            points.append([float(value) for value in rest[:3]])
        elif word == "f":
            faces.append([int(value.split("/")[0]) - 1 for value in rest[:3]])
    corners = np.array(points)[np.array(faces)]  # [F, 3, 3]
    corners -= (corners.min((0, 1)) + corners.max((0, 1))) / 2
    flat = corners.reshape(-1, 3)
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    order = np.arange(len(flat)).reshape(-1, 3)
    normals = _smooth(flat, order, outward) if rng.random() < 0.5 else np.repeat(_unit(outward), 3, 0)
    middle = flat.max(0)
    turn = np.arctan2(corners[..., 1], corners[..., 0])
    turn = np.where(
        turn - turn[:, :1] > np.pi, turn - 2 * np.pi, np.where(turn - turn[:, :1] < -np.pi, turn + 2 * np.pi, turn)
    )
    u = np.abs(((turn / np.pi + rng.uniform(-1, 1)) / 2) % 2 - 1)  # there and back, so that there is no seam
    v = 0.5 - corners[..., 2] / (2.1 * middle[2])
    image = ImageEnhance.Color(_tinted(photos.patch(rng, SIDE, SIDE), _paint(rng), rng.uniform(0, 0.6))).enhance(
        rng.uniform(0.8, 1.6)
    )
    return Mesh(flat, order, normals, np.stack([u, v], -1).reshape(-1, 2)), image
