"""The HTML, CSS and script of the page besides its controls: images, clicks on a frame, progress, the objects' colours.

Images are embedded in the HTML: written to files, one for each frame, they would fill the server's disk.
"""

from __future__ import annotations

import base64
import io

from clicks import Click
from painting import COLOURS, Picture, draw
from PIL import Image
from shown import Shown, Step

__all__ = ["CLICKS", "CSS", "HEADER", "HOW", "board", "idle", "message", "picture", "progress", "timeline"]

HEADER = """<h1>stmemory</h1>
<p>Track anything through a video of any length, in memory that does not grow.</p>"""

HOW = """Open a video file, or record one with your camera. Click on each object, or paint it in its own colour, on any
frame: it is tracked in the frames that follow.

**If a mask is wrong,** stop, click on missing parts of that frame and beside wrong ones, or paint and erase, and track
again: tracking continues from there. An object that is erased completely is not tracked any further.

No video? There is a rendered clip:"""

# Sends the place of a click in pixels of the frame, and marks it until the mask is there.
CLICKS = """element.addEventListener('click', (event) => {
  const board = event.target.closest('.board');
  if (!board) return;
  const box = board.getBoundingClientRect();
  const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
  const mark = document.createElement('i');
  mark.style.left = `${100 * across}%`;
  mark.style.top = `${100 * down}%`;
  board.append(mark);
  setTimeout(() => mark.remove(), 4000);
  trigger('click', {x: across * Number(board.dataset.width), y: down * Number(board.dataset.height)});
});"""

_CHIPS = "\n".join(
    f"#objects label:nth-of-type({number})::before {{ background: rgb{colour}; }}"
    for number, colour in enumerate(COLOURS, start=1)
)

CSS = f"""
.gradio-container {{ width: 100% !important; max-width: 1320px !important; margin: 0 auto !important; }}
main, .main, .contain {{ width: 100%; }}
#timeline .empty {{ aspect-ratio: auto; padding: 2.5rem; }}
#header h1 {{ font-size: 1.7rem; font-weight: 650; letter-spacing: -0.02em; margin: 0 0 .15rem; }}
#header p {{ margin: 0; opacity: .78; }}
.html-container {{ padding: 0 !important; }}
#video video {{ max-height: 225px; }}
.stage {{ gap: 10px !important; }}
.stage h2 {{ font-size: 1.05rem; font-weight: 620; margin: 0; }}
.stage .hint p {{ color: var(--body-text-color); opacity: .78; font-size: .9rem; margin: 0 0 .5rem; max-width: 40rem; }}
.stage .hint strong {{ color: var(--body-text-color); }}
#objects label::before {{ content: ""; width: .8rem; height: .8rem; border-radius: 3px;
  box-shadow: 0 0 0 1px rgba(0,0,0,.25); }}
{_CHIPS}
#objects .wrap {{ gap: 6px; }}
#objects label {{ padding: 6px 12px; }}
#objects label input {{ position: absolute; opacity: 0; }}
#objects label:has(input:checked) {{ border-color: var(--body-text-color);
  box-shadow: inset 0 0 0 1px var(--body-text-color); }}
#objects label:has(input:focus-visible) {{ outline: 2px solid var(--color-accent); }}
@media (min-width: 700px) {{ .side {{ padding-top: 2.1rem; }} }}
.shot {{ display: block; width: 100%; border-radius: 8px; }}
.board {{ position: relative; cursor: crosshair; user-select: none; }}
.board img {{ -webkit-user-drag: none; }}
.board svg {{ position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; overflow: visible; }}
.board i {{ position: absolute; width: 18px; height: 18px; margin: -9px 0 0 -9px; border-radius: 50%;
  border: 2px solid white; box-shadow: 0 0 0 1px rgba(0,0,0,.6); pointer-events: none;
  animation: fade 1s ease-in-out infinite alternate; }}
@keyframes fade {{ to {{ opacity: .25; }} }}
.empty {{ display: grid; place-items: center; aspect-ratio: 16 / 9; border-radius: 8px; text-align: center;
  padding: 1rem; border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued); }}
.bar {{ height: 6px; border-radius: 3px; background: var(--border-color-primary); overflow: hidden;
  margin: 10px 0 6px; }}
.bar div {{ height: 100%; background: var(--color-accent); }}
.told {{ display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .88rem; color: var(--body-text-color);
  font-variant-numeric: tabular-nums; }}
.told b {{ color: var(--body-text-color); font-weight: 600; }}
.chip {{ display: inline-block; width: .75rem; height: .75rem; border-radius: 3px; margin-right: 5px;
  vertical-align: -1px; box-shadow: 0 0 0 1px rgba(0,0,0,.25); }}
.scroll {{ overflow-x: auto; contain: inline-size; }}
.scroll img {{ display: block; min-width: 860px; max-width: max(100%, 860px); border-radius: 8px; }}
footer {{ display: none !important; }}
"""


def message(words: str) -> str:
    """Words where a picture will be.

    >>> message("nothing yet")
    '<div class="empty">nothing yet</div>'
    """
    return f'<div class="empty">{words}</div>'


def idle() -> str:
    """What stands where the masks will arrive."""
    return message("The masks arrive here, frame by frame.")


def picture(pixels: Picture, words: str) -> str:
    """A picture, uint8 RGB `[H, W, 3]`, with words for those who do not see it."""
    return f'<img class="shot" alt="{words}" src="{_data(Image.fromarray(pixels), "JPEG", quality=85)}">'


def board(shown: Shown) -> str:
    """A frame to click on: what is known of it drawn over it, and a mark at each click."""
    height, width = shown.ids.shape
    words = f"frame {shown.frame}: click on an object"
    drawn = picture(draw(shown.picture, shown.ids), words)
    marks = "".join(_mark(click, size=max(height, width) / 90) for click in shown.clicks)
    return (
        f'<div class="board" data-width="{width}" data-height="{height}">{drawn}'
        f'<svg viewBox="0 0 {width} {height}">{marks}</svg></div>'
    )


def timeline(drawn: Image.Image | None) -> str:
    """The timeline; on a narrow screen it is scrolled sideways."""
    if drawn is None:
        return ""
    return f'<div class="scroll"><img alt="What the memory held over time" src="{_data(drawn, "PNG")}"></div>'


def progress(step: Step, *, speed: float, words: str) -> str:
    """How far tracking is, how fast, how sure, and what it remembers.

    Args:
        step: the last one.
        speed: frames per second.
        words: what is going on.
    """
    share = 100 * (step.frame + 1) / step.frames
    objects = "".join(
        f'<span><span class="chip" style="background: rgb{COLOURS[i - 1]}"></span>object {i}: '
        f"<b>{f'{100 * step.scores[i]:.0f} % sure' if seen else 'not seen'}</b></span>"
        for i, seen in step.present.items()
    )
    return (
        f'<div class="bar"><div style="width: {share:.1f}%"></div></div><div class="told">'
        f'<span id="words"><b>{words}</b></span><span>frame <b id="frame">{step.frame}</b> of {step.frames - 1}</span>'
        f"<span><b>{speed:.1f}</b> frames/s</span><span>memory <b>{step.nbytes / 1e6:.1f} MB</b></span>{objects}</div>"
    )


def _mark(click: Click, *, size: float) -> str:
    """A disc in the object's colour with a plus, or a white one with a minus for what is not the object."""
    colour = f"rgb{COLOURS[click.object_id - 1]}"
    fill, sign = (colour, "white") if click.inside else ("white", colour)
    arms = f"M{-size / 2:.1f} 0H{size / 2:.1f}" + (f"M0 {-size / 2:.1f}V{size / 2:.1f}" if click.inside else "")
    lines = "".join(
        f'<path d="{arms}" stroke="{stroke}" stroke-width="{size * wide:.1f}" stroke-linecap="round"/>'
        for stroke, wide in (("black", 0.5), (sign, 0.28))
    )
    return (
        f'<g class="{"is" if click.inside else "is-not"}" transform="translate({click.x:.1f} {click.y:.1f})">'
        f'<circle r="{size:.1f}" fill="{fill}" stroke="black" stroke-width="{size / 6:.1f}"/>{lines}</g>'
    )


def _data(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
