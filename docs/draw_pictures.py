"""Draws the figures of "How it works" with the library: `python docs/draw_pictures.py`, a minute on two cores.

`policies.png` shows the decision of each update policy for the same full row, and `alignment.jpg` eq. 3 on pixels.
`recall.jpg` shows a frame of the demo clip rebuilt from patches of the frames in the slots, by the read of the bundled
network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stmemory import VOSPredictor
from stmemory.evaluation.scenes import render_scene
from stmemory.io.drawing import FAINT, INK, MARGIN, colour_of_frame, font, page, text_on
from stmemory.memory import feature_alignment, space_time_read, update_policy
from stmemory.memory.policy import BankView

RULES = ("oldest", "newest", "least_similar", "most_similar", "drop", "input_to_memory")
LETTERS = {"oldest": "A", "newest": "B", "least_similar": "C", "most_similar": "D", "input_to_memory": "I2M"}
FRAMES = (0, 3, 9, 12, 21)  # the frames of the five slots of the drawn row; the first is pinned
# Invented S(X_i, X_j) between them: frames 9 and 12 are very similar, 3 and 21 least similar.
SIMILARITY = (
    (1.0, 0.9, 0.7, 0.7, 0.5),
    (0.9, 1.0, 0.6, 0.6, 0.2),
    (0.7, 0.6, 1.0, 0.95, 0.5),
    (0.7, 0.6, 0.95, 1.0, 0.6),
    (0.5, 0.2, 0.5, 0.6, 1.0),
)
RED = (190, 40, 30)
AT = 36  # the frame that is recalled

Picture = NDArray[np.uint8]  # [H, W, 3] RGB


def draw_policies() -> Image.Image:
    """A line for each rule: a full row, the slot that is removed (a cross), and those it is fused into (arrows)."""
    view = BankView(
        similarity=torch.tensor(SIMILARITY)[None],
        age=torch.tensor([[4, 3, 2, 1, 0]]),
        valid=torch.ones(1, 5, dtype=torch.bool),
        pinned=torch.tensor([[True, False, False, False, False]]),
    )
    notes = (
        "A full row, a new template comes. Slots by the frame they hold; frame 0 is pinned.",
        "Frames 9 and 12 are most alike, 3 and 21 least.",
    )
    image, pen, top = page(960, 118 * len(RULES), "Which slot goes, and what it is distilled into", notes)
    for line, name in enumerate(RULES):
        decision = update_policy(name).decide(view)
        y = top + 118 * line
        pen.text((MARGIN, y + 44), f"{LETTERS[name]}  {name}" if name in LETTERS else name, INK, font=font(19))
        lefts = [280 + 104 * slot for slot in range(5)]
        for slot, left in enumerate(lefts):
            colour = colour_of_frame(FRAMES[slot] / FRAMES[-1])
            pen.rounded_rectangle((left, y + 34, left + 72, y + 80), 7, colour)
            pen.text((left + 36, y + 57), str(FRAMES[slot]), text_on(colour), font=font(22), anchor="mm")
            if view.pinned[0, slot]:
                pen.text((left + 36, y + 92), "pinned", FAINT, font=font(13), anchor="mm")
        new = 860
        pen.rounded_rectangle((new, y + 34, new + 72, y + 80), 7, outline=INK, width=2)
        pen.text((new + 36, y + 57), "new", INK, font=font(20), anchor="mm")
        goes = int(decision.remove[0].argmax()) if bool(decision.remove.any()) else None
        source = new if goes is None else lefts[goes]
        for slot in decision.into[0].nonzero()[:, 0].tolist():
            high = y + 30 - 3 * abs(source - lefts[slot]) // 104
            x0, x1 = source + 36, lefts[slot] + 36
            pen.line((x0, y + 34, x0, high, x1, high, x1, y + 32), RED, width=2)
            pen.polygon([(x1 - 5, y + 25), (x1 + 5, y + 25), (x1, y + 33)], RED)
        if goes is not None:
            left = lefts[goes]
            for a, b in ((left, left + 72), (left + 72, left)):
                pen.line((a, y + 34, (2 * a + b) / 3, y + 49), RED, width=4)
                pen.line((a, y + 80, (2 * a + b) / 3, y + 65), RED, width=4)
            pen.line((new + 36, y + 80, new + 36, y + 106, left + 36, y + 106, left + 36, y + 86), INK, width=2)
            pen.polygon([(left + 31, y + 91), (left + 41, y + 91), (left + 36, y + 83)], INK)
    return image


def draw_alignment(guide: Picture, template: Picture) -> Image.Image:
    """Eq. 3 on patches of 8 x 8 pixels: the template in the layout of the guide."""
    sharp = 24.0  # patches differ less than features do
    feature = [_unit(_patches(p, 8)) for p in (guide, template)]
    content = _patches(template, 8)
    both = torch.cat([feature[1], content], 1)  # the part that is compared, and the part that is moved
    rows = feature_alignment(torch.cat([feature[0], torch.zeros_like(content)], 1), both, scale=sharp)
    # feature_alignment compares all channels; the guide's zeros leave only the first half to be compared
    rebuilt = _picture(rows[:, content.shape[1] :], 8)
    return _side_by_side(
        (guide, template, rebuilt),
        ("the guide, X_t", "the template, X_i", "FAM(X_t, X_i): the template in the guide's layout"),
        "Feature alignment, eq. 3, of pixels",
    )


def draw_recall(clip: list[Picture], first: NDArray[np.uint8]) -> Image.Image:
    """A frame, the frames in memory, and the frame as recalled from them: eq. 13 with patches of pixels as values."""
    predictor = VOSPredictor.from_pretrained()
    stream = predictor.start(clip[0], first)
    for frame in clip[1:AT]:
        stream.step(frame)
    row = 0  # the row of the ball
    held = stream.bank.describe(row)
    with torch.inference_mode():
        pixels = _pixels(clip[AT])
        query = predictor.network.encode_query(_padded(pixels)).key
        keys = stream.bank.keys[row : row + 1, [info.slot for info in held]]
        values = torch.stack([F.pixel_unshuffle(_padded(_pixels(clip[info.frame])), 16)[0] for info in held])[None]
        recalled = space_time_read(
            query.flatten(2), keys.flatten(3), values.flatten(3), torch.ones(1, len(held)).bool(), affinity="l2"
        )
    rebuilt = F.pixel_shuffle(recalled.view(1, -1, *query.shape[2:]), 16)[0, :, : clip[0].shape[0], : clip[0].shape[1]]
    pictures = [clip[AT], _array(rebuilt), *(clip[info.frame] for info in held)]
    names = [f"frame {AT}", "recalled from memory", *(f"slot {n}: frame {info.frame}" for n, info in enumerate(held))]
    return _side_by_side(tuple(pictures), tuple(names), "The space-time read, eq. 13, of pixels")


def _pixels(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def _array(pixels: Tensor) -> Picture:
    return (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _padded(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % 16, 0, -height % 16), mode="replicate")


def _patches(picture: Picture, side: int) -> Tensor:
    return F.pixel_unshuffle(_pixels(picture), side)


def _picture(patches: Tensor, side: int) -> Picture:
    return _array(F.pixel_shuffle(patches, side)[0])


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features - features.mean(1, keepdim=True), dim=1)


def _side_by_side(
    pictures: tuple[Picture, ...], names: tuple[str, ...], title: str, *, columns: int = 3
) -> Image.Image:
    wide = (960 - 2 * MARGIN - 14 * (columns - 1)) // columns
    tall = wide * pictures[0].shape[0] // pictures[0].shape[1]
    lines = -(-len(pictures) // columns)
    image, pen, top = page(960, lines * (tall + 34), title)
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left, y = MARGIN + number % columns * (wide + 14), top + number // columns * (tall + 34)
        image.paste(Image.fromarray(picture).resize((wide, tall), Image.Resampling.LANCZOS), (left, y))
        pen.text((left, y + tall + 5), name, INK, font=font(16))
    return image


def main() -> None:
    """Draw all three figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "pages" / "images")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    frames, ids = zip(*render_scene(AT + 1, height=352, width=640, seed=0), strict=True)
    draw_policies().save(out / "policies.png", optimize=True)
    draw_alignment(frames[AT], frames[0]).save(out / "alignment.jpg", quality=85)
    draw_recall(list(frames), ids[0]).save(out / "recall.jpg", quality=85)


if __name__ == "__main__":
    main()
