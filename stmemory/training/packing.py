"""Packing: a tree of training pictures into one safetensors file. Reads the tree by layout; makes no clips.

Layout, at any depth of the tree:

    */images/NAME + */masks/NAME.png   photos with instance masks (palette or grey PNG, 0 = background, 1..N =
    instances,
                                       255 = void);
                                       a folder whose names are the numbers 0..n-1 is one video, frame by frame
    */cutouts/NAME                     pictures with alpha; PREFIX_0 .. PREFIX_n are one object seen from n + 1 sides
    */backgrounds/**/NAME              pictures without masks
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from stmemory.errors import OptionError
from stmemory.files import out_file
from stmemory.images import UNREADABLE, natural_order, opened_image
from stmemory.tensor_file import write_tensor_file
from stmemory.training.mask_readers import IdMask, VideoMasks
from stmemory.training.picture_files import read_picture, shrunk

__all__ = ["FORMAT", "KINDS", "PackReport", "pack"]

FORMAT = "stmemory.material 2"  # 1 had neither its name in the file nor a digest
KINDS = ("photo", "cutout", "background", "video")

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_LAYOUT = "images/NAME with masks/NAME.png (ids 1 to N; one video if the names are 0 to n - 1), cutouts/NAME (with alpha), or backgrounds/NAME (without masks)"
_OPAQUE = 8  # alpha at or below this counts as empty when a cut-out is cropped to what is seen
# fewer pictures with numbers are as likely different objects; from how many on one turns in clips, `cutting` says
_MIN_VIEWS = 4


@dataclass(frozen=True)
class PackReport:
    """What went into a packed file.

    Attributes:
        counts: items of each kind (a video counts once per frame).
        nbytes: size of the written file, bytes.
        skipped: one line for each file that could not be used: its path and why.
    """

    counts: dict[str, int]
    nbytes: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """One picture to pack; `series` joins frames of one video or views of one object."""

    kind: str
    picture: Path
    mask: Path | None
    series: str
    video: VideoMasks | None = None


@dataclass(frozen=True)
class _Packed:
    """An entry as it goes into the file.

    Attributes:
        entry: what it was made of.
        name: its path below the tree.
        size: width and height.
        picture: compressed.
        mask: compressed; empty without one.
        has_object: whether the mask holds one.
    """

    entry: _Entry
    name: str
    size: tuple[int, int]
    picture: bytes
    mask: bytes = b""
    has_object: bool = True


def pack(
    root: str | Path,
    out: str | Path,
    *,
    max_side: int = 300,
    cutout_side: int = 128,
    quality: int = 68,
    drawn: Sequence[str] = (),
) -> PackReport:
    """Write all pictures below `root` into one safetensors file of compressed pictures.

    Args:
        root: the tree of training material; see the top of this file for its layout.
        out: the file to write; its folder is made if missing.
        max_side: photos, videos and backgrounds are shrunk to this longer side, pixels.
        cutout_side: cut-outs are cropped to what is seen and shrunk to this longer side, pixels.
        quality: of the WebP compression, 1..95.
        drawn: names of folders whose pictures are drawn or rendered, not photographed.

    Returns:
        Counts by kind and the files that were skipped, each with the reason. Bad files never stop the packing.

    Raises:
        OptionError: `root` is not a folder, holds nothing usable, `out` cannot be a file, no pictures lie in a folder
            of `drawn`, or an option is out of range.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "backgrounds").mkdir()
        >>> Image.new("RGB", (40, 30), "teal").save(folder / "backgrounds" / "wall.png")
        >>> pack(folder, folder / "packed.safetensors").counts["background"]
        1
    """
    root, out = Path(root), out_file(out)
    if not root.is_dir():
        raise OptionError(f"root: expected a folder of training material, got {str(root)!r}; check the path")
    if min(max_side, cutout_side) < 16 or not 1 <= quality <= 95:
        raise OptionError(
            "max_side, cutout_side, quality: expected sides of at least 16 and a quality of 1..95, "
            f"got {max_side}, {cutout_side}, {quality}"
        )
    sides = {kind: cutout_side if kind == "cutout" else max_side for kind in KINDS}
    skipped: list[str] = []
    packed: list[_Packed] = []
    entries = list(_entries(root, skipped))
    _check_drawn(drawn, root, entries)
    for entry in entries:
        name = entry.picture.relative_to(root).as_posix()
        try:
            packed.append(_encode(entry, name, side=sides[entry.kind], quality=quality))
        except UNREADABLE as error:  # a ValueError of ours among them
            skipped.append(f"{name}: {error}")
    packed = _usable(packed, skipped)
    if not packed:
        raise OptionError(
            f"root: expected pictures below {str(root)!r}, at any depth, as {_LAYOUT}; got "
            + (f"{len(skipped)} of no use: {'; '.join(skipped[:3])}" if skipped else "none of them")
        )
    numbers = {
        series: number
        for number, series in enumerate(dict.fromkeys(each.entry.series for each in packed if each.entry.series))
    }
    rows = [
        [
            KINDS.index(each.entry.kind),
            int(bool(set(Path(each.name).parts[:-1]) & set(drawn))),
            numbers.get(each.entry.series, -1),
        ]
        for each in packed
    ]
    blobs = [blob for each in packed for blob in (each.picture, each.mask)]
    sizes = np.array([0] + [len(blob) for blob in blobs])
    tensors = {
        "blobs": torch.from_numpy(np.frombuffer(b"".join(blobs), dtype=np.uint8).copy()),
        "offsets": torch.from_numpy(sizes.cumsum()),
        "table": torch.tensor(rows, dtype=torch.int32),
        "names": torch.from_numpy(
            np.frombuffer("\n".join(each.name for each in packed).encode(), dtype=np.uint8).copy()
        ),
    }
    write_tensor_file(out, tensors, {"format": FORMAT})
    counts = {kind: sum(row[0] == index for row in rows) for index, kind in enumerate(KINDS)}
    return PackReport(counts=counts, nbytes=out.stat().st_size, skipped=tuple(skipped))


def _entries(root: Path, skipped: list[str]) -> Iterator[_Entry]:
    """All pictures below root in a fixed order; a photo without a mask file is added to `skipped`."""
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        found = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        files = sorted(
            found, key=lambda path: natural_order(path.name)
        )  # the order of a series is that of its frames or sides
        parts = folder.relative_to(root).parts
        if folder.name == "images" and (folder.parent / "masks").is_dir():
            stems = [path.stem for path in files]
            is_video = (
                len(files) > 1
                and all(s.isdigit() for s in stems)
                and sorted(map(int, stems)) == list(range(len(files)))
            )
            stray = (mask for mask in sorted((folder.parent / "masks").glob("*.png")) if mask.stem not in set(stems))
            skipped += (f"{mask.relative_to(root).as_posix()}: no picture in images/" for mask in stray)
            masks = {path: folder.parent / "masks" / f"{path.stem}.png" for path in files}
            together = VideoMasks(tuple(masks.values())) if is_video else None
            for path, mask in masks.items():
                if mask.is_file():
                    yield _Entry(
                        "video" if is_video else "photo", path, mask, str(folder) if is_video else "", together
                    )
                else:
                    skipped.append(f"{path.relative_to(root).as_posix()}: no mask {mask.name} in masks/")
        elif folder.name == "cutouts":
            series = _views(files)
            for path in files:
                yield _Entry("cutout", path, None, series.get(path, ""))
        elif "backgrounds" in parts:
            for path in files:
                yield _Entry("background", path, None, "")


def _check_drawn(drawn: Sequence[str], root: Path, entries: Sequence[_Entry]) -> None:
    folders = {part for entry in entries for part in entry.picture.relative_to(root).parts[:-1]}
    for name in drawn:
        if entries and name not in folders:
            raise OptionError(
                f"drawn: expected the name of a folder with pictures below {str(root)!r}, without any /, got {name!r}; "
                f"there are {', '.join(sorted(folders)[:20])}"
            )


def _views(files: Sequence[Path]) -> dict[Path, str]:
    """Series of files PREFIX_0 .. PREFIX_n: file -> name of its series; other files are left out."""
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in files:
        match = re.fullmatch(r"(.+)_(\d+)", path.stem)
        if match:
            groups[match[1]][int(match[2])] = path
    return {
        path: str(path.parent / prefix)
        for prefix, views in groups.items()
        if len(views) >= _MIN_VIEWS and sorted(views) == list(range(len(views)))
        for path in views.values()
    }


def _usable(packed: Sequence[_Packed], skipped: list[str]) -> list[_Packed]:
    """What clips can be made of; the rest is added to `skipped`.

    Frames of a video are of the size that most of them have. The object may be hidden in some of them, not in all.
    """
    frames: dict[str, list[_Packed]] = defaultdict(list)
    for each in packed:
        if each.entry.kind == "video":
            frames[each.entry.series].append(each)
    sizes = {series: Counter(each.size for each in found).most_common(1)[0][0] for series, found in frames.items()}
    shown = {
        series
        for series, found in frames.items()
        if any(each.has_object and each.size == sizes[series] for each in found)
    }
    usable = []
    for each in packed:
        series = each.entry.series
        if each.entry.kind != "video" or (series in shown and each.size == sizes[series]):
            usable.append(each)
        elif each.size != sizes[series]:
            expected, size = (f"{width}x{height}" for width, height in (sizes[series], each.size))
            skipped.append(f"{each.name}: is {size} when it is shrunk, most frames of this video {expected}")
        else:
            skipped.append(f"{each.name}: no frame of this video holds an object")
    return usable


def _encode(entry: _Entry, name: str, *, side: int, quality: int) -> _Packed:
    """The entry, compressed; ValueError when unusable."""
    if entry.kind == "cutout":
        cutout = shrunk(_cropped(_read_cutout(entry.picture)), side, Image.Resampling.LANCZOS)
        return _Packed(entry, name, cutout.size, _save(cutout, "WEBP", quality=quality, alpha_quality=80, method=4))
    picture = read_picture(entry.picture)
    small = shrunk(picture, side, Image.Resampling.LANCZOS)
    compressed = _save(small, "WEBP", quality=quality, method=4)
    if entry.mask is None:
        return _Packed(entry, name, small.size, compressed)
    ids = IdMask(entry.mask, entry.video).read(picture.width, picture.height)
    if ids.shape != (picture.height, picture.width):
        raise ValueError(
            f"mask {entry.mask.name} is {ids.shape[1]}x{ids.shape[0]}, its picture {picture.width}x{picture.height}"
        )
    mask = np.asarray(Image.fromarray(ids).resize(small.size, Image.Resampling.NEAREST))
    if not mask.any() and entry.kind != "video":
        raise ValueError(f"mask {entry.mask.name} holds no object")
    return _Packed(
        entry, name, small.size, compressed, _save(Image.fromarray(mask), "PNG", optimize=True), bool(mask.any())
    )


def _read_cutout(path: Path) -> Image.Image:
    """An RGBA picture, turned as its EXIF orientation says."""
    with opened_image(path) as opened:
        if "A" not in opened.getbands() and "transparency" not in opened.info:
            raise ValueError("a cut-out has no alpha channel; save it as RGBA")
        return ImageOps.exif_transpose(opened).convert("RGBA")


def _cropped(picture: Image.Image) -> Image.Image:
    """An RGBA picture without its empty margins."""
    box = picture.getchannel("A").point([0 if level <= _OPAQUE else 255 for level in range(256)]).getbbox()
    if box is None:
        raise ValueError("a cut-out is empty: alpha is 0 everywhere")
    return picture.crop(box)


def _save(picture: Image.Image, kind: str, **options: int | bool) -> bytes:
    """The picture as compressed bytes of the given Pillow format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
