"""Training material in folders: common data sets' layouts, read as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.images import image_files, read_picture, shrunk
from stmemory.io.untrusted import checked_name, checked_path, read_json, whole
from stmemory.training.data.masks import BinaryMask, CocoMask, IdMask, MaskReader, SbdMask, VideoMasks
from stmemory.training.data.material import Item, Photo

__all__ = ["LAYOUTS", "FolderPictures", "Still", "open_folder", "splits_of"]

_LEAST = 16  # pixels of the largest object of a still as it is used; fewer are a slip of the annotator


@dataclass(frozen=True)
class Still:
    """An image with a mask.

    Attributes:
        picture: its file.
        mask: reader of its mask.
        video: name of the video that it is a frame of, or "".
    """

    picture: Path
    mask: MaskReader
    video: str = ""


class FolderPictures:
    """Images on a disk in the place of packed material; see `Pictures`.

    Args:
        root: the folder, which names begin after.
        stills: the images; frames of one video in order.
        skipped: files that cannot be used, a line each.
        notes: further remarks on the folder, a line each.
        max_side: images are shrunk to this longer side when they are read, pixels.

    Raises:
        OptionError: there is no image.
    """

    def __init__(
        self,
        root: Path,
        stills: Sequence[Still],
        *,
        skipped: Sequence[str] = (),
        notes: Sequence[str] = (),
        max_side: int = 640,
    ) -> None:
        if not stills:
            raise OptionError(
                f"{root}: expected pictures with masks, got none; check the layout. Of no use: {list(skipped[:3])}"
            )
        self.skipped, self.notes = tuple(skipped), tuple(notes)
        self._stills, self._max_side = tuple(stills), max_side
        numbers = {
            name: number for number, name in enumerate(dict.fromkeys(still.video for still in stills if still.video))
        }
        self.items = tuple(
            Item(
                index=index,
                kind="video" if still.video else "photo",
                drawn=False,
                series=numbers.get(still.video, -1),
                name=still.picture.relative_to(root).as_posix(),
            )
            for index, still in enumerate(stills)
        )

    def photo(self, index: int) -> Photo:
        """Read an image and its mask: pixels uint8 [3, H, W] and ids uint8 [H, W].

        Raises:
            FrameError: the image cannot be read.
            MaskError: the mask cannot be read, is of another size, or (of a still) holds no object of 16 pixels or more
                once it is shrunk.
        """
        still = self._stills[index]
        image = read_picture(still.picture)
        ids = still.mask.read(image.width, image.height)
        if ids.shape != (image.height, image.width):
            on_its_side = ids.shape == (image.width, image.height)
            raise MaskError(
                f"{still.picture}: expected a mask of the picture's size {image.width}x{image.height}, got "
                f"{ids.shape[1]}x{ids.shape[0]}"
                + ("; draw it on the picture as its EXIF orientation turns it" if on_its_side else "")
            )
        small = shrunk(image, self._max_side, Image.Resampling.BILINEAR)
        if small.size != image.size:
            ids = np.array(Image.fromarray(ids).resize(small.size, Image.Resampling.NEAREST))
        largest = int(np.bincount(ids.ravel(), minlength=2)[1:].max())
        if not still.video and largest < _LEAST:
            raise MaskError(
                f"{still.picture}: expected an object of {_LEAST} pixels or more, the largest has {largest} at "
                f"{small.width}x{small.height}"
            )
        return Photo(pixels=_tensor(small), ids=torch.from_numpy(ids))

    def pixels(self, index: int) -> Tensor:
        """Read an image without its mask: uint8 [3, H, W].

        Raises:
            FrameError: it cannot be read.
        """
        return _tensor(shrunk(read_picture(self._stills[index].picture), self._max_side, Image.Resampling.BILINEAR))

    def cutout(self, index: int) -> Tensor:
        """There are none in folders of images with masks.

        Raises:
            OptionError: always.
        """
        raise OptionError(f"cutout: expected an item of kind cutout, got {self.items[index]}; draw from photo()")


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


_Found = Iterator[Still | str]  # an image, or a line about a file that is of no use
# What is there for each split of a layout that has some.
_SPLITS = {
    "davis": "ImageSets/2017/*.txt",
    "youtube_vos": "*/Annotations",
    "coco": "annotations/instances_*2017.json",
    "sbd": "*.txt",
}


def open_folder(root: str | Path, *, layout: str, split: str = "train") -> FolderPictures:
    """List the images of a folder.

    Args:
        root: the folder.
        layout: one of those above.
        split: "train", "val" or another one that is there, where the layout has splits; see `splits_of`. A folder of
            layout "davis" without `ImageSets` has none, and all of its videos are taken.

    Raises:
        OptionError: the layout is unknown, the split is not there, or there is no image with a mask where it says.

    >>> sorted(LAYOUTS)
    ['clips', 'coco', 'davis', 'ecssd', 'hku_is', 'msra10k', 'sbd', 'stills', 'videos', 'youtube_vos']
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise OptionError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    if not root.is_dir():
        raise OptionError(
            f"{root}: expected the folder of a data set of layout {layout!r}, got no folder; check the path"
        )
    notes = _check_split(root, layout, split)
    try:
        found = list(LAYOUTS[layout](root, split))
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename or root)
        place = missing.relative_to(root) if missing.is_relative_to(root) else missing
        raise OptionError(
            f"{root}: expected a data set of layout {layout!r}, got no {place.as_posix()} in it; "
            f"{_advice(root, layout, split)}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"{root}: expected a data set of layout {layout!r}, got: "
            f"{error!r}; correct it, or take it from its source again"
        ) from error
    stills = [still for still in found if isinstance(still, Still)]
    if not stills:
        lines = "; ".join(str(line) for line in found[:3])
        raise OptionError(
            f"{root}: expected pictures with masks in the layout {layout!r}, got none"
            + (f" ({lines})" if lines else "")
            + f"; {_advice(root, layout, split)}"
        )
    return FolderPictures(
        root, stills, skipped=[f"{root}/{line}" for line in found if isinstance(line, str)], notes=notes
    )


def splits_of(root: str | Path, *, layout: str) -> tuple[str, ...]:
    """Names of the splits that a folder has, sorted; none where its layout has no splits.

    Args:
        root: the folder.
        layout: one of those above.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train.txt", "val.txt"):
    ...         (Path(folder) / name).touch()
    ...     splits_of(folder, layout="sbd"), splits_of(folder, layout="stills")
    (('train', 'val'), ())
    """
    if layout not in _SPLITS:
        return ()
    before, after = _SPLITS[layout].split("*")
    found = (path.relative_to(root).as_posix() for path in Path(root).glob(_SPLITS[layout]))
    return tuple(sorted(path[len(before) : len(path) - len(after)] for path in found))


def _check_split(root: Path, layout: str, split: str) -> tuple[str, ...]:
    """What there is to tell about a folder's splits; an error where the one that is wanted is not there."""
    if layout not in _SPLITS or split in (there := splits_of(root, layout=layout)):
        return ()
    if layout == "davis" and not (root / "ImageSets").is_dir():  # own folders, without splits
        return (f"{root}: no ImageSets in it, so all of its videos are taken, whatever the split",)
    raise OptionError(
        f"{root}: expected {_SPLITS[layout].replace('*', split)} for the split {split!r}, got no such file; "
        + (
            f"the splits that are there: {', '.join(there)}"
            if there
            else f"there is no split at all: {_advice(root, layout, split)}"
        )
    )


def _advice(root: Path, layout: str, split: str) -> str:
    """What to do about a folder that does not have a layout: the first other one that fits it, or to check."""
    for other, find in LAYOUTS.items():
        try:
            if other != layout and any(isinstance(each, Still) for each in find(root, split)):
                return f"it looks like the layout {other!r}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return "check the path and the layout"


def _pairs(
    root: Path, pictures: str, masks: str, read: Callable[[Path], MaskReader], *, video: str = "", sparse: bool = False
) -> _Found:
    """Images and masks of the same name in two folders; `sparse` when it is right that many have no mask."""
    try:
        files = image_files(root / pictures)
    except (FrameError, OSError):
        yield f"{pictures}: no pictures in it"
        return
    there = sorted((root / masks).glob("*.png"))
    if video:
        read = partial(IdMask, video=VideoMasks(tuple(there)))
    for file in files:
        mask = root / masks / f"{file.stem}.png"
        if mask.is_file():
            yield Still(file, read(mask), video)
        elif not sparse:
            yield f"{pictures}/{file.name}: no mask {masks}/{mask.name}"
    stems = {file.stem for file in files}
    yield from (f"{masks}/{mask.name}: no picture in {pictures}" for mask in there if mask.stem not in stems)


def _videos(root: Path, pictures: str, masks: str, names: Iterable[str], *, sparse: bool = False) -> _Found:
    for name in names:
        found = list(_pairs(root, f"{pictures}/{name}", f"{masks}/{name}", IdMask, video=name, sparse=sparse))
        yield from found
        if not found:
            yield f"{pictures}/{name}: no frame has a mask in {masks}/{name}"


def _listed(file: Path) -> list[str]:
    """Names of a list."""
    return [
        checked_name(name, what=f"{file}: a name", ending=".jpg") for name in file.read_text(encoding="utf-8").split()
    ]


def _folders(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if each.is_dir())


def _stills(root: Path, split: str) -> _Found:
    return _pairs(root, "images", "masks", IdMask)


def _own_videos(root: Path, split: str) -> _Found:
    return _videos(root, "images", "masks", _folders(root / "images"))


def _clips(root: Path, split: str) -> _Found:
    for name in _folders(root):
        old = (root / name / "JPEGImages").is_dir()
        pictures, masks = (f"{name}/JPEGImages", f"{name}/Annotations") if old else (f"{name}/images", f"{name}/masks")
        yield from _pairs(root, pictures, masks, IdMask, video=name)


def _davis(root: Path, split: str) -> _Found:
    has_splits = (root / "ImageSets").is_dir()
    listed = root / "ImageSets" / "2017" / f"{split}.txt"
    names = _listed(listed) if has_splits else _folders(root / "JPEGImages" / "480p")
    return _videos(root, "JPEGImages/480p", "Annotations/480p", names)


def _youtube_vos(root: Path, split: str) -> _Found:
    return _videos(
        root, f"{split}/JPEGImages", f"{split}/Annotations", _folders(root / split / "JPEGImages"), sparse=True
    )


def _coco(root: Path, split: str) -> _Found:
    listed = f"annotations/instances_{split}2017.json"
    about: dict[str, Any] = read_json(root / listed)
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in about["annotations"]:
        if each.get("iscrowd"):
            continue
        if isinstance(each.get("segmentation"), list | dict) and each["segmentation"]:
            objects[each["image_id"]].append(each)
        else:
            where = f"{listed}: annotation {each.get('id', '')} of picture {each['image_id']}"
            yield f"{where}: no segmentation, neither polygons nor RLE"
    for image in about["images"]:
        file = root / f"{split}2017" / checked_path(image["file_name"], what=f"{listed}: file_name")
        drawn = objects.get(image["id"], [])
        if not file.is_file():
            yield f"{split}2017/{image['file_name']}: no such picture"
        elif drawn:  # images without objects are no fault
            yield _coco_still(
                file,
                drawn,
                whole(image["width"], what="width", least=1),
                whole(image["height"], what="height", least=1),
            )


def _coco_still(file: Path, drawn: list[dict[str, Any]], width: int, height: int) -> Still | str:
    """An image with its annotations, the largest first: small objects lie on large ones more often than under them."""
    shapes = [
        each["segmentation"] if isinstance(each["segmentation"], dict) else tuple(map(tuple, each["segmentation"]))
        for each in drawn
    ]
    mask = CocoMask(tuple(shapes), width, height, str(file))
    try:
        areas = [float(each["area"]) for each in drawn] if all("area" in each for each in drawn) else mask.areas()
    except MaskError as error:
        return f"{file.parent.name}/{file.name}: {error}"
    by_size = sorted(range(len(shapes)), key=lambda number: -areas[number])
    return Still(file, replace(mask, objects=tuple(shapes[number] for number in by_size)))


def _ecssd(root: Path, split: str) -> _Found:
    return _pairs(root, "images", "ground_truth_mask", BinaryMask)


def _hku_is(root: Path, split: str) -> _Found:
    return _pairs(root, "imgs", "gt", BinaryMask)


def _msra10k(root: Path, split: str) -> _Found:
    for file in sorted((root / "Imgs").glob("*.jpg")):
        mask = file.with_suffix(".png")
        yield Still(file, BinaryMask(mask)) if mask.is_file() else f"Imgs/{file.name}: no mask Imgs/{mask.name}"


def _sbd(root: Path, split: str) -> _Found:
    for name in _listed(root / f"{split}.txt"):
        file, mask = root / "img" / f"{name}.jpg", root / "inst" / f"{name}.mat"
        missing = [path for path in (file, mask) if not path.is_file()]
        yield f"{missing[0].relative_to(root).as_posix()}: no such file" if missing else Still(file, SbdMask(mask))


LAYOUTS: dict[str, Callable[[Path, str], _Found]] = {
    "stills": _stills,
    "videos": _own_videos,
    "clips": _clips,
    "davis": _davis,
    "youtube_vos": _youtube_vos,
    "coco": _coco,
    "ecssd": _ecssd,
    "hku_is": _hku_is,
    "msra10k": _msra10k,
    "sbd": _sbd,
}
