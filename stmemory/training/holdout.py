"""Hold-outs: parts pictures into those to train on and those to validate on. Opens no file but to see that one can be
used.

Which ones are held out depends on names, and on which can be read: it is the same in every process, and after an
interruption.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from torch import Tensor

from stmemory.errors import FrameError, MaskError
from stmemory.training.material import Item, Photo, Pictures

__all__ = ["Subset", "held_out", "without"]

_ONE_IN = 20
_OBJECTS = ("photo", "cutout", "video")  # kinds that clips can track something of


class Subset:
    """Some of the pictures of a material or folder, numbered anew; see `Pictures`.

    Args:
        pictures: all of them.
        items: those that are wanted.
    """

    def __init__(self, pictures: Pictures, items: Iterable[Item]) -> None:
        kept = tuple(items)
        self._pictures, self._indices = pictures, tuple(item.index for item in kept)
        self.items = tuple(replace(item, index=index) for index, item in enumerate(kept))

    def photo(self, index: int) -> Photo:
        """See `Pictures.photo`."""
        return self._pictures.photo(self._indices[index])

    def pixels(self, index: int) -> Tensor:
        """See `Pictures.pixels`."""
        return self._pictures.pixels(self._indices[index])

    def cutout(self, index: int) -> Tensor:
        """See `Pictures.cutout`."""
        return self._pictures.cutout(self._indices[index])


def held_out(pictures: Pictures) -> tuple[Pictures, Pictures | None]:
    """Hold about one in twenty out, at least one and never all of a kind; frames of a video and sides of an object stay
    together.

    The first that is held out can be used, or validation of a small folder would depend on the luck of one picture.

    Args:
        pictures: all of them.

    Returns:
        What is left to train on, and what is held out: None when there are not two pictures or videos with objects.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     for number in range(40):
    ...         Image.new("RGBA", (4, 4), "red").save(Path(folder) / "cutouts" / f"{number}.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     training, validation = held_out(Material.load(Path(folder) / "packed.safetensors"))
    >>> len(training.items), [item.name for item in validation.items]
    (38, ['cutouts/9.png', 'cutouts/32.png'])
    """
    first_of: dict[int, str] = {}
    groups: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in pictures.items:
        name = first_of.setdefault(item.series, item.name) if item.series >= 0 else item.name
        groups[item.kind][name].append(item)
    objects = {name: items for kind in _OBJECTS for name, items in groups[kind].items()}
    if len(objects) < 2:
        return pictures, None
    if all(len(groups[kind]) < 2 for kind in _OBJECTS):  # as one video and one cut-out
        groups = {"any": objects}
    held: set[int] = set()
    for named in groups.values():
        by_chance = sorted(named, key=lambda name: sha256(name.encode()).digest())
        count = max(1, round(len(named) / _ONE_IN)) if len(named) > 1 else 0
        if count:
            first = next((name for name in by_chance if _usable(pictures, named[name][0])), by_chance[0])
            by_chance.insert(0, by_chance.pop(by_chance.index(first)))
        held |= {item.index for name in by_chance[:count] for item in named[name]}
    return (
        Subset(pictures, (item for item in pictures.items if item.index not in held)),
        Subset(pictures, (item for item in pictures.items if item.index in held)),
    )


def _usable(pictures: Pictures, item: Item) -> bool:
    """Whether a picture can be read, with the mask that it needs."""
    read = {"cutout": pictures.cutout, "background": pictures.pixels}.get(item.kind, pictures.photo)
    try:
        read(item.index)
    except (FrameError, MaskError):
        return False
    return True


def without(pictures: Pictures, others: Pictures) -> Pictures:
    """The pictures whose names are not among those of others of the same folder.

    Args:
        pictures: some of a folder.
        others: some of it too.

    >>> from stmemory.training.material import Material
    >>> import torch
    >>> one, two = (Item(index, "photo", False, -1, f"images/{index}.jpg") for index in range(2))
    >>> both, second = (Material(torch.zeros(0), torch.zeros(0), items) for items in ((one, two), (two,)))
    >>> [item.name for item in without(both, second).items]
    ['images/0.jpg']
    """
    names = {item.name for item in others.items}
    return Subset(pictures, (item for item in pictures.items if item.name not in names))
