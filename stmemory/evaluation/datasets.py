"""Data sets: where their files lie, which clips a split has, which frames count, and what their servers want.

davis2016, davis2017   ROOT/JPEGImages/480p/CLIP, ROOT/Annotations/480p/CLIP, ROOT/ImageSets/2017/val.txt
youtube2018, youtube2019   ROOT/valid/JPEGImages/CLIP, ROOT/valid/Annotations/CLIP, ROOT/valid/meta.json;
                           with all frames: ROOT/valid_all_frames/JPEGImages/CLIP
longtime               ROOT/long_video/JPEGImages/CLIP, ROOT/long_video/Annotations/CLIP
lvos1, lvos2           ROOT/val/JPEGImages/CLIP, ROOT/val/Annotations/CLIP, ROOT/val/val_meta.json
mose                   ROOT/valid/JPEGImages/CLIP, ROOT/valid/Annotations/CLIP
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip, open_clip
from stmemory.io.untrusted import checked_name, read_json, shown, whole

__all__ = ["DATA_SETS", "DataSet", "find_data_set"]


@dataclass(frozen=True)
class DataSet:
    """A data set and its protocol.

    Attributes:
        name: as commands take it.
        title: as people write it.
        splits: names of its splits, the usual one first.
        server: splits whose truth is kept by a server; here they have the first masks only.
        zip_folder: folder that the server wants inside the zip; empty for none.
        find: the clips of a split: `(root, split, resolution, all_frames)`.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    server: tuple[str, ...]
    zip_folder: str
    find: Callable[[Path, str, str, bool], list[Clip]]


def find_data_set(
    name: str,
    root: str | Path,
    *,
    split: str | None = None,
    names: Sequence[str] | None = None,
    resolution: str | None = None,
    all_frames: bool = False,
) -> list[Clip]:
    """Clips of a data set's split, by name.

    A clip that the data set lists and that lacks its files is among them, and has no frames.

    Args:
        name: of the data set, a key of `DATA_SETS`.
        root: folder into which it was unpacked.
        split: the usual one by default.
        names: the clips wanted, in the order wanted; all by default.
        resolution: subfolder of the DAVIS layout, 480p by default.
        all_frames: YouTube-VOS at its full frame rate, in place of every 5th frame.

    Raises:
        OptionError: there is no such data set or split, files of it are not where they should be, or a clip that was
            named is not of the split.

    >>> find_data_set("davis2017", "no/such/folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/folder: expected the clips of DAVIS 2017 val in JPEGImages/480p, got no such
    folder; pass the folder that it was unpacked into
    """
    if name not in DATA_SETS:
        raise OptionError(f"data set: expected one of {', '.join(DATA_SETS)}, got {name!r}")
    data_set = DATA_SETS[name]
    chosen = split or data_set.splits[0]
    if chosen not in data_set.splits:
        raise OptionError(f"split: expected one of {', '.join(data_set.splits)} of {data_set.title}, got {chosen!r}")
    if all_frames and not name.startswith("youtube"):
        raise OptionError(
            f"all_frames: expected youtube2018 or youtube2019, which have more frames than annotations, got {name}"
        )
    if resolution is not None and not name.startswith("davis"):
        raise OptionError(
            f"resolution: expected davis2016 or davis2017, whose frames lie in one folder for each, got {name}; leave "
            "it out"
        )
    found = data_set.find(Path(root), chosen, resolution or "480p", all_frames)
    clips = {clip.name: dataclasses.replace(clip, held_out=chosen in data_set.server) for clip in found}
    missing = [clip for clip in names or () if clip not in clips]
    if missing:
        raise OptionError(
            f"names: expected clips of {data_set.title} {chosen} ({', '.join(clips)}), got {', '.join(missing)}"
        )
    return [clips[clip] for clip in (clips if names is None else names)]


def _davis(year: str) -> Callable[[Path, str, str, bool], list[Clip]]:
    """DAVIS: a list of names for each split; in 2016 all objects are one."""

    def find(root: Path, split: str, resolution: str, all_frames: bool) -> list[Clip]:
        frames = _folder(root, [Path("JPEGImages") / resolution], f"DAVIS {year} {split}")
        lists = [Path("ImageSets") / year / f"{split}.txt", Path("ImageSets") / resolution / f"{split}.txt"]
        # the list of 2016 has a line for each frame: /JPEGImages/480p/CLIP/00000.jpg /Annotations/480p/CLIP/00000.png
        file = _file(root, lists)
        lines = [line.split() for line in _text(file).splitlines()]
        names = sorted({_name(Path(line[0]).parent.name or line[0], file) for line in lines if line})
        return [
            dataclasses.replace(
                open_clip(name, frames=frames / name, annotations=root / "Annotations" / resolution / name),
                merge_objects=year == "2016",
                ignore_void=False,
            )
            for name in names
        ]

    return find


def _youtube(root: Path, split: str, resolution: str, all_frames: bool) -> list[Clip]:
    """YouTube-VOS: objects enter and count where `meta.json` lists them."""
    folder = "valid" if split == "val" else split
    full = [Path(f"{folder}_all_frames") / "JPEGImages", Path("all_frames") / f"{folder}_all_frames" / "JPEGImages"]
    frames = _folder(root, full if all_frames else [Path(folder) / "JPEGImages"], f"YouTube-VOS {split}")
    videos = _videos(_file(root, [Path(folder) / "meta.json"]))
    clips = []
    for name, objects in sorted(videos.items()):
        clip = open_clip(name, frames=frames / name, annotations=root / folder / "Annotations" / name)
        clip = _listed(clip, {key: _strings(entry, "frames") for key, entry in objects.items()})
        clips.append(dataclasses.replace(clip, asked=frozenset(itertools.chain(*(clip.listed or {}).values()))))
    return clips


def _long_time(root: Path, split: str, resolution: str, all_frames: bool) -> list[Clip]:
    """Long-Time Video: a few annotations in a long clip; x3 is each video played forth, back and forth."""
    folder = "long_video" if split == "x1" else "long_video_x3"
    return _plain(root, [Path(folder)] + [Path()] * (split == "x1"), f"Long-Time Video {split}")


def _lvos(root: Path, split: str, resolution: str, all_frames: bool) -> list[Clip]:
    """LVOS: objects count between the first and the last frame that the list names, the first included, the last
    not."""
    folders = [Path("val"), Path("valid")] if split == "val" else [Path(split)]
    parent = _folder(root, [folder / "JPEGImages" for folder in folders], f"LVOS {split}").parent
    file = _file(parent, [Path(f"{split}_meta.json"), Path(f"{parent.name}_meta.json"), Path("meta.json")])
    clips = []
    for name, objects in sorted(_videos(file).items()):
        clip = open_clip(name, frames=parent / "JPEGImages" / name, annotations=parent / "Annotations" / name)
        numbered = [(path.stem, _number(path.stem)) for path in clip.annotation_paths if path is not None]
        spans = {key: _span(entry, file) for key, entry in objects.items()}
        listed = {
            key: [stem for stem, number in numbered if first <= number < end] for key, (first, end) in spans.items()
        }
        clips.append(dataclasses.replace(_listed(clip, listed), count_given=True))
    return clips


def _mose(root: Path, split: str, resolution: str, all_frames: bool) -> list[Clip]:
    """MOSE: the layout of DAVIS without a resolution; the truth of valid and test is kept."""
    return _plain(root, [Path("valid" if split == "val" else split)], f"MOSE {split}")


DATA_SETS: Mapping[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet("davis2016", "DAVIS 2016", ("val", "train"), (), "", _davis("2016")),
        DataSet("davis2017", "DAVIS 2017", ("val", "train", "test-dev"), ("test-dev",), "", _davis("2017")),
        DataSet("youtube2018", "YouTube-VOS 2018", ("val", "train", "test"), ("val", "test"), "Annotations", _youtube),
        DataSet("youtube2019", "YouTube-VOS 2019", ("val", "train", "test"), ("val", "test"), "Annotations", _youtube),
        DataSet("longtime", "Long-Time Video", ("x1", "x3"), (), "", _long_time),
        DataSet("lvos1", "LVOS v1", ("val", "train", "test"), ("test",), "", _lvos),
        DataSet("lvos2", "LVOS v2", ("val", "train", "test"), ("test",), "", _lvos),
        DataSet("mose", "MOSE", ("val", "train", "test"), ("val", "test"), "", _mose),
    )
}


def _plain(root: Path, parents: Sequence[Path], what: str) -> list[Clip]:
    """Clips of `JPEGImages/CLIP` and `Annotations/CLIP`, whichever of the two a clip has."""
    frames = _folder(root, [parent / "JPEGImages" for parent in parents], what)
    annotations = frames.parent / "Annotations"
    names = {
        path.name for folder in (frames, annotations) if folder.is_dir() for path in folder.iterdir() if path.is_dir()
    }
    return [open_clip(name, frames=frames / name, annotations=annotations / name) for name in sorted(names)]


def _listed(clip: Clip, frames: Mapping[str, Iterable[str]]) -> Clip:
    """The clip whose objects count in the frames of those names."""
    places = {path.stem: index for index, path in enumerate(clip.frame_paths)}
    listed = {
        int(key): tuple(sorted(places[stem] for stem in stems if stem in places)) for key, stems in frames.items()
    }
    return dataclasses.replace(clip, listed={key: indexes for key, indexes in listed.items() if indexes})


def _folder(root: Path, places: Sequence[Path], what: str) -> Path:
    """The first of the places that is there."""
    for place in places:
        if (root / place).is_dir():
            return root / place
    wanted = " or ".join(place.as_posix() for place in places)
    raise OptionError(
        f"{root}: expected the clips of {what} in {wanted}, got no such folder; pass the folder that it was "
        "unpacked into"
    )


def _file(root: Path, places: Sequence[Path]) -> Path:
    """The first of the files that is there."""
    for place in places:
        if (root / place).is_file():
            return root / place
    raise OptionError(
        f"{root}: expected the file {' or '.join(place.as_posix() for place in places)}, got none; unpack it there"
    )


def _videos(file: Path) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    """For each video its objects, as a `meta.json` has them."""
    try:
        document = read_json(file)
        videos = {str(name): dict(video["objects"]) for name, video in document["videos"].items()}
        _ = [whole(key, what=f"{name}: the id of an object") for name, objects in videos.items() for key in objects]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            f'{file}: expected {{"videos": {{NAME: {{"objects": {{ID: ...}}}}}}}}, got '
            f"{f'no {error}' if isinstance(error, KeyError) else error}; download it again"
        ) from error
    return {_name(name, file): objects for name, objects in videos.items()}


def _strings(entry: Mapping[str, object], key: str) -> list[str]:
    values = entry.get(key) if isinstance(entry, dict) else None
    return [str(value) for value in values] if isinstance(values, list) else []


def _span(entry: Mapping[str, object], file: Path) -> tuple[int, int]:
    """Numbers of an object's first frame and of its last."""
    span = entry.get("frame_range") if isinstance(entry, dict) else None
    try:
        return (
            (whole(span["start"], what="start"), whole(span["end"], what="end")) if isinstance(span, dict) else (0, 0)
        )
    except (KeyError, ValueError) as error:
        raise OptionError(
            f"{file}: expected frame_range with start and end, got {shown(span)}: {error}; download it again"
        ) from error


def _number(stem: str) -> int:
    """A frame's number; -1 where its name is none."""
    return int(stem) if stem.isascii() and stem.isdigit() else -1


def _name(name: str, file: Path) -> str:
    """A clip's name in a list; folders of results are called by it."""
    return checked_name(name, what=f"{file}: a clip", ending="_worst.png")


def _text(file: Path) -> str:
    """The text of a list."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{file}: expected a list of clips as text in UTF-8, got: {error}; save it again") from error
