"""Training material: images, cut-outs and videos packed into one file, and read from it."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stmemory.errors import OptionError, StmemoryError
from stmemory.io.files import out_file
from stmemory.io.images import UNREADABLE, natural_order, opened_image, read_picture, shrunk
from stmemory.io.untrusted import whole
from stmemory.training.data.masks import IdMask, VideoMasks
from stmemory.weights.tensors import read_tensor_file, write_tensor_file

__all__ = ["FORMAT", "KINDS", "Item", "Material", "PackReport", "Photo", "Pictures", "pack"]

FORMAT = "stmemory.material 2"  # 1 had neither its name in the file nor a digest
KINDS = ("photo", "cutout", "background", "video")

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_LAYOUT = (
    "images/NAME with masks/NAME.png (ids 1 to N; one video if the names are 0 to n - 1), cutouts/NAME (with alpha), "
    "or backgrounds/NAME (without masks)"
)
_OPAQUE = 8  # alpha at or below this counts as empty when a cut-out is cropped to what is seen
# fewer images with numbers are as likely different objects; from how many on one turns in clips, `cutting` says
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
    """One image to pack; `series` joins frames of one video or views of one object."""

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
    """Write all images below `root` into one safetensors file of compressed images.

    Args:
        root: the tree of training material; see the top of this file for its layout.
        out: the file to write; its folder is made if missing.
        max_side: photos, videos and backgrounds are shrunk to this longer side, pixels.
        cutout_side: cut-outs are cropped to what is seen and shrunk to this longer side, pixels.
        quality: quality of the WebP compression, 1..95.
        drawn: names of folders whose images are drawn or rendered, not photographed.

    Returns:
        Counts by kind and the files that were skipped, each with the reason. Bad files never stop the packing.

    Raises:
        OptionError: `root` is not a folder, holds nothing usable, `out` cannot be a file, no images lie in a folder
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
    """All images below root in a fixed order; a photo without a mask file is added to `skipped`."""
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
    """An RGBA image, turned as its EXIF orientation says."""
    with opened_image(path) as opened:
        if "A" not in opened.getbands() and "transparency" not in opened.info:
            raise ValueError("a cut-out has no alpha channel; save it as RGBA")
        return ImageOps.exif_transpose(opened).convert("RGBA")


def _cropped(picture: Image.Image) -> Image.Image:
    """An RGBA image without its empty margins."""
    box = picture.getchannel("A").point([0 if level <= _OPAQUE else 255 for level in range(256)]).getbbox()
    if box is None:
        raise ValueError("a cut-out is empty: alpha is 0 everywhere")
    return picture.crop(box)


def _save(picture: Image.Image, kind: str, **options: int | bool) -> bytes:
    """The image as compressed bytes of the given Pillow format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Item:
    """One packed image, not decoded.

    Attributes:
        index: its place in the material.
        kind: "photo", "cutout", "background" or "video" (one frame of one).
        drawn: clip art, emoji or a render, not a photograph.
        series: number of the video or of the turning object it is part of, or -1.
        name: path below the packed tree, for messages and credits.
    """

    index: int
    kind: str
    drawn: bool
    series: int
    name: str

    @property
    def natural(self) -> bool:
        """A photograph, or cut out of one."""
        return not self.drawn

    @property
    def source(self) -> str:
        """The folder it came from, without the last `images` or `cutouts`."""
        parts = Path(self.name).parts[:-1]
        return "/".join(parts[:-1] if parts and parts[-1] in ("images", "cutouts") else parts)


@dataclass(frozen=True, eq=False)
class Photo:
    """An image with instances.

    Attributes:
        pixels: uint8 [3, H, W], RGB.
        ids: uint8 [H, W], 0 = background, 1..N = instances.
    """

    pixels: Tensor
    ids: Tensor


class Pictures(Protocol):
    """What clips are made of: images of known kinds, decoded on demand. `Material` is packed, `FolderPictures` are
    files."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All images, not decoded."""
        ...

    def photo(self, index: int) -> Photo:
        """Decode a photo or a video frame with its mask."""
        ...

    def pixels(self, index: int) -> Tensor:
        """Decode a photo, video frame or background without its mask: uint8 [3, H, W]."""
        ...

    def cutout(self, index: int) -> Tensor:
        """Decode a cut-out: uint8 [4, H, W], RGB and straight alpha."""
        ...


class Material:
    """All images of a packed file, decoded one at a time on demand.

    Holds no open file and no decoder state, so processes can share it.
    """

    def __init__(self, blobs: Tensor, offsets: Tensor, items: tuple[Item, ...]) -> None:
        """Use `Material.load`.

        Args:
            blobs: uint8 [bytes], image and mask of each item one after the other.
            offsets: int64 [2 * items + 1], where each blob begins.
            items: what the blobs are.
        """
        self.items = items
        self._blobs = blobs.numpy()
        self._offsets = offsets.tolist()

    @classmethod
    def load(cls, path: str | Path) -> Material:
        """Read a file written by `pack` into memory.

        Raises:
            OptionError: there is no such file, it was not written by `pack`, or it is damaged by as little as one bit.
                Files of earlier versions have no digest, and load unless their parts do not fit each other.
        """
        try:
            file = read_tensor_file(path, "material for training")
            if file.about and not (file.whole and file.about.get("format") == FORMAT):
                raise OptionError(
                    "expected its digest, got a file without; it is "
                    "damaged, or of a later version: pack the pictures again"
                )
            tensors = file.tensors
            table, names = tensors["table"].tolist(), bytes(tensors["names"].numpy()).decode().split("\n")
            items = tuple(
                Item(index, KINDS[whole(kind, what="kind", most=len(KINDS) - 1)], bool(drawn), series, name)
                for index, ((kind, drawn, series), name) in enumerate(zip(table, names, strict=True))
            )
            blobs, offsets = tensors["blobs"], tensors["offsets"]
            if blobs.dtype != torch.uint8 or offsets.shape != (2 * len(items) + 1,) or offsets.is_floating_point():
                raise OptionError(
                    "blobs, offsets: expected bytes, and whole numbers for "
                    f"{len(items)} pictures, got {blobs.dtype}, {tuple(offsets.shape)}"
                )
            if int(offsets[0]) < 0 or int(offsets[-1]) > len(blobs) or bool((offsets.diff() < 0).any()):
                raise OptionError("offsets: expected rising numbers within the file, got others")
            return cls(blobs, offsets, items)
        except (StmemoryError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(
                f"path: expected a file written by stmemory.training.pack, got {str(path)!r} ({error})"
            ) from error

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all images, of their names and of what they are: the same for the same material, wherever its
        file lies."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.kind} {item.drawn:d} {item.series} {item.name}\n".encode())
        digest.update(np.array(self._offsets, dtype="<i8").tobytes())
        digest.update(self._blobs.data)
        return digest.hexdigest()

    def photo(self, index: int) -> Photo:
        """Decode a photo or a video frame: pixels uint8 [3, H, W] and ids uint8 [H, W]."""
        self._expect(index, "photo", "video")
        with Image.open(io.BytesIO(self._blob(2 * index + 1))) as opened:
            ids = torch.from_numpy(np.array(opened))
        return Photo(pixels=self.pixels(index), ids=ids)

    def pixels(self, index: int) -> Tensor:
        """Decode a photo, video frame or background without its mask: uint8 [3, H, W]."""
        self._expect(index, "photo", "video", "background")
        return self._decode(index, "RGB")

    def cutout(self, index: int) -> Tensor:
        """Decode a cut-out: uint8 [4, H, W], RGB and straight (not premultiplied) alpha."""
        self._expect(index, "cutout")
        return self._decode(index, "RGBA")

    def _decode(self, index: int, mode: str) -> Tensor:
        with Image.open(io.BytesIO(self._blob(2 * index))) as opened:
            values = np.array(opened.convert(mode))
        return torch.from_numpy(values).permute(2, 0, 1).contiguous()

    def _blob(self, number: int) -> bytes:
        return self._blobs[self._offsets[number] : self._offsets[number + 1]].tobytes()

    def _expect(self, index: int, *kinds: str) -> None:
        if not 0 <= index < len(self.items):
            raise OptionError(f"index: expected 0..{len(self.items) - 1}, got {index}")
        if self.items[index].kind not in kinds:
            raise OptionError(f"index: expected an item of kind {' or '.join(kinds)}, got {self.items[index]}")
