"""The page: `python app.py`, then open http://127.0.0.1:7860. Wires controls to a session; everything else is done
elsewhere."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

try:
    import gradio as gr
except ImportError:
    raise SystemExit(
        "gradio is missing: pip install -r examples/web_demo/requirements.txt, into an environment of its own"
    ) from None
import page
from clicks import place_of
from painting import COLOURS, layer_of_ids
from session import Session
from sessions import Sessions
from shown import Shown

from stmemory import StmemoryError, TrackingOptions, VOSPredictor
from stmemory.evaluation.scenes import render_scene
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.io.video import OverlayWriter

DEMO = {"frames": 48, "height": 360, "width": 640}
TIMELINE_SECONDS = 3.0  # between two drawings of the timeline while frames are tracked
NO_TIMELINE = "It is drawn while something is tracked."
ON, BESIDE, PAINT = "Click on it", "Click beside it", "Paint"
NAMES = [f"{number}" for number in range(1, len(COLOURS) + 1)]


def brush(number: int = 0) -> gr.Brush:
    """The brush of an object."""
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in COLOURS]
    return gr.Brush(colors=colours, default_color=colours[number], color_mode="fixed", default_size=14)


def readable(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show what stmemory raises as a message in the page."""

    @functools.wraps(work)
    def done(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except StmemoryError as error:
            raise said(error) from None

    return done


def readable_steps(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for a generator."""

    @functools.wraps(work)
    def done(*arguments: Any) -> Iterator[Any]:
        try:
            yield from work(*arguments)
        except StmemoryError as error:
            raise said(error) from None

    return done


def said(error: StmemoryError) -> gr.Error:
    """A message for the page, without the server's folders."""
    words = str(error).replace(os.environ["GRADIO_TEMP_DIR"] + os.sep, "")
    return gr.Error(words, duration=None, print_exception=False)


def editor(shown: Shown) -> dict[str, Any]:
    """What the editor is given: a frame, and one layer of paint over it."""
    return {"background": shown.picture, "layers": [layer_of_ids(shown.ids)], "composite": None}


def views(how: str, shown: Shown) -> list[Any]:
    """The frame in the editor, or the one for clicks and the button that takes one back; the rest is left alone."""
    if how == PAINT:
        return [editor(shown), gr.skip(), gr.skip()]
    return [gr.skip(), page.board(shown), gr.Button(interactive=shown.can_undo)]


def build(sessions: Sessions, root: Path) -> gr.Blocks:
    """Make the page.

    Args:
        sessions: of all who open it.
        root: folder of what all share.
    """
    demo_lock = threading.Lock()

    def mine(request: gr.Request) -> Session:
        return sessions.of(str(request.session_hash))

    def demo_clip() -> Path:
        path = root / "beach.mp4"
        with demo_lock:
            if not path.exists():
                with OverlayWriter(root / "beach.part.mp4", rate=12) as writer:
                    for frame, (picture, ids) in enumerate(render_scene(**DEMO)):
                        writer.write(picture)
                        if frame == 0:
                            write_palette_png(root / "beach.png", ids)
                os.replace(root / "beach.part.mp4", path)
        return path

    threading.Thread(target=demo_clip, daemon=True).start()  # rendered while the first person still looks at the page

    def opened(session: Session, how: str, shown: Shown) -> list[Any]:
        slider = gr.Slider(0, max(1, session.clip.frames - 1), value=shown.frame, interactive=session.clip.frames > 1)
        return [
            slider,
            *views(how, shown),
            page.idle(),
            "",
            page.message(NO_TIMELINE),
            gr.Button(interactive=True),
            *hidden(),
        ]

    def hidden() -> list[Any]:
        return [gr.DownloadButton(visible=False), gr.DownloadButton(visible=False), gr.Video(visible=False)]

    @readable
    def open_clip(path: str | None, how: str, request: gr.Request) -> list[Any]:
        session = mine(request)
        return opened(session, how, session.open(path or ""))

    @readable
    def open_demo(how: str, request: gr.Request) -> list[Any]:
        session, path = mine(request), demo_clip()
        return [str(path), *opened(session, how, session.open(path))]

    @readable
    def paint_demo(how: str, request: gr.Request) -> list[Any]:
        session, path = mine(request), demo_clip()
        session.open(path)
        session.give(0, read_palette_png(root / "beach.png").numpy().astype("uint8"), [1, 2])
        return [str(path), *opened(session, how, session.show(0))]

    def keep(session: Session, how: str, painted: dict[str, Any] | None) -> None:
        if how == PAINT and painted is not None and painted["background"] is not None:
            session.paint(painted["layers"], painted["background"])

    @readable
    def go_to(index: float, how: str, painted: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        session = mine(request)
        keep(session, how, painted)
        return views(how, session.show(int(index)))

    @readable
    def switch(how: str, before: str, painted: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        """Between painting and clicking, with what was done so far."""
        session, by_hand = mine(request), how == PAINT
        keep(session, before, painted)
        seen = [gr.skip()] * 3 if session.empty or by_hand == (before == PAINT) else views(how, session.shown)
        return [gr.Column(visible=by_hand), gr.Column(visible=not by_hand), *seen, how]

    @readable
    def click(number: int, how: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        shown = mine(request).click(number + 1, place_of(event._data), inside=how != BESIDE)
        return views(ON, shown)[1:]

    @readable
    def take_back(request: gr.Request) -> list[Any]:
        return views(ON, mine(request).undo())[1:]

    def locked(running: bool) -> list[Any]:
        idle = not running
        return [
            gr.Button(interactive=idle),
            gr.Button(interactive=running),
            gr.Slider(interactive=idle),
            gr.Button(interactive=idle),
        ]

    @readable_steps
    def track(how: str, painted: dict[str, Any] | None, request: gr.Request) -> Iterator[list[Any]]:
        session = mine(request)
        keep(session, how, painted)
        steps = session.track()
        step, began, drawn_at, count = None, time.monotonic(), time.monotonic(), 0
        yield [gr.skip(), gr.skip(), gr.skip(), *hidden(), *locked(True)]
        for step in steps:
            count, now = count + 1, time.monotonic()
            due = now - drawn_at > TIMELINE_SECONDS
            drawn_at = now if due else drawn_at
            told = page.progress(step, speed=count / max(now - began, 1e-3), words="tracking")
            picture = page.picture(step.picture, f"frame {step.frame}")
            yield [picture, told, page.timeline(session.timeline()) if due else gr.skip(), *([gr.skip()] * 7)]
        if step is not None:
            words = "done" if step.frame + 1 >= step.frames else "stopped"
            told = page.progress(step, speed=count / max(time.monotonic() - began, 1e-3), words=words)
            yield [gr.skip(), told, page.timeline(session.timeline()), *hidden(), *locked(False)]

    @readable
    def show_last(how: str, request: gr.Request) -> list[Any]:
        """The frame that tracking ended at, with what was found, ready for a correction."""
        session = mine(request)
        if session.position is None:
            return [gr.skip()] * 4
        slider = gr.Slider(value=session.position, maximum=max(1, session.clip.frames - 1))
        return [slider, *views(how, session.show(session.position))]

    def unlock() -> list[Any]:
        return [gr.Button(interactive=True), gr.Button(interactive=False), gr.Slider(interactive=True)]

    def stop(request: gr.Request) -> None:
        mine(request).stop()

    @readable_steps
    def prepare(request: gr.Request) -> Iterator[list[Any]]:
        session = mine(request)
        masks = session.zip_masks()
        began = 0.0
        for count in session.overlay():
            if time.monotonic() - began > 0.3:
                began = time.monotonic()
                yield [gr.Button(f"Drawing frame {count - 1} ...", interactive=False), *([gr.skip()] * 3)]
        film = str(session.overlay_path)
        yield [
            gr.Button("Make the files", interactive=True), gr.DownloadButton(value=str(masks), visible=True),
            gr.DownloadButton(value=film, visible=True), gr.Video(value=film, visible=True),
        ]  # fmt: skip

    def leave(request: gr.Request) -> None:
        sessions.close(str(request.session_hash))

    with gr.Blocks(title="stmemory", delete_cache=(600, 7200)) as demo:
        gr.HTML(page.HEADER, elem_id="header", padding=False)
        with gr.Row():
            with gr.Column(elem_classes="stage", min_width=320):
                gr.Markdown("## 1. Open a clip")
                video = gr.Video(
                    sources=["upload", "webcam"], label="A file, or recorded now", elem_id="video", buttons=[]
                )
            with gr.Column(elem_classes="stage side", min_width=320):
                gr.Markdown(page.HOW, elem_classes="hint")
                with gr.Row():
                    demo_button = gr.Button("Open the demo clip", elem_id="open-demo", min_width=140)
                    painted_button = gr.Button("Open it, already painted", elem_id="open-painted", min_width=140)
        with gr.Row():
            with gr.Column(elem_classes="stage", min_width=320):
                gr.Markdown("## 2. Show the objects")
                gr.Markdown(
                    "Choose an object, then click on it, or paint all of it, on any frame. Click beside it where too "
                    "much was found.",
                    elem_classes="hint",
                )
                objects = gr.Radio(NAMES, value="1", type="index", label="Object", elem_id="objects")
                way = gr.Radio([ON, BESIDE, PAINT], value=PAINT, label="How", elem_id="how")
                before = gr.State(PAINT)
                slider = gr.Slider(0, 1, value=0, step=1, label="Frame", interactive=False, elem_id="frames")
                with gr.Column() as painting:
                    canvas = gr.ImageEditor(
                        type="numpy", format="png", image_mode="RGBA", sources=(), transforms=(), layers=False,
                        buttons=[], brush=brush(), eraser=gr.Eraser(default_size=14), canvas_size=(640, 360),
                        show_label=False, elem_id="canvas", placeholder="Open a clip first",
                    )  # fmt: skip
                with gr.Column(visible=False) as clicking:
                    pointer = gr.HTML(
                        page.message("Open a clip first"), js_on_load=page.CLICKS, elem_id="pointer", padding=False
                    )
                    back = gr.Button("Take the last click back", interactive=False, elem_id="back")
            with gr.Column(elem_classes="stage", min_width=320):
                gr.Markdown("## 3. Track")
                with gr.Row():
                    track_button = gr.Button(
                        "Track", variant="primary", interactive=False, elem_id="track", min_width=120
                    )
                    stop_button = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=120)
                live = gr.HTML(page.idle(), elem_id="live", padding=False)
                told = gr.HTML("", elem_id="told", padding=False)
                gr.Markdown("## 4. Take it home")
                make = gr.Button("Make the files", elem_id="make", interactive=False)
                with gr.Row():
                    masks = gr.DownloadButton("Masks (zip)", visible=False, elem_id="masks", min_width=120)
                    film = gr.DownloadButton("Overlay (mp4)", visible=False, elem_id="film", min_width=120)
                watch = gr.Video(visible=False, label="Overlay", elem_id="watch", buttons=[])
        with gr.Column(elem_classes="stage"):
            gr.Markdown("## What the memory held")
            gr.Markdown("A fixed number of slots for each object, however long the clip is.", elem_classes="hint")
            line = gr.HTML(page.message(NO_TIMELINE), elem_id="timeline", padding=False)

        made = [masks, film, watch]
        view = [canvas, pointer, back]
        begin = [slider, *view, live, told, line, track_button, *made]
        video.upload(open_clip, [video, way], begin, concurrency_limit=None)
        video.stop_recording(open_clip, [video, way], begin, concurrency_limit=None)
        demo_button.click(open_demo, way, [video, *begin], concurrency_limit=None)
        painted_button.click(paint_demo, way, [video, *begin], concurrency_limit=None)
        way.change(
            switch, [way, before, canvas], [painting, clicking, *view, before], concurrency_limit=None,
            show_progress="hidden",
        )  # fmt: skip
        pointer.click(
            click, [objects, way], [pointer, back], concurrency_limit=None, show_progress="hidden",
            trigger_mode="always_last",
        )  # fmt: skip
        back.click(take_back, None, [pointer, back], concurrency_limit=None, show_progress="hidden")
        objects.change(
            lambda number: gr.ImageEditor(brush=brush(number)), objects, canvas, queue=False, show_progress="hidden"
        )
        slider.release(go_to, [slider, way, canvas], view, concurrency_limit=None, show_progress="hidden")
        run = track_button.click(
            track, [way, canvas], [live, told, line, *made, track_button, stop_button, slider, make],
            concurrency_limit=None, show_progress="hidden",
        )  # fmt: skip
        run.failure(unlock, None, [track_button, stop_button, slider], queue=False)
        # Not the run's own last step: gradio sends that twice, and the editor would lay the paint on twice.
        run.success(show_last, way, [slider, *view], concurrency_limit=None, show_progress="hidden")
        stop_button.click(stop, None, None, queue=False)
        make.click(prepare, None, [make, *made], concurrency_limit=None, show_progress="hidden")
        demo.unload(leave)
    return demo


def main() -> None:
    """Serve the page until ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others on the network in (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--share", action="store_true", help="also open a public link through gradio's servers")
    parser.add_argument("--people", type=int, default=8, help="at a time (default: %(default)s)")
    parser.add_argument(
        "--megabytes", type=int, default=200, help="of a file that is uploaded, at most (default: %(default)s)"
    )
    parser.add_argument("--weights", help="a bundled name, a folder, or a repository on the Hub (default: bundled)")
    parser.add_argument(
        "--prompter", help="weights that answer clicks, a folder or a repository of SAM 2 (default: those that track)"
    )
    parser.add_argument("--device", help="default: cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    predictor = VOSPredictor.from_pretrained(
        arguments.weights, device=arguments.device, options=TrackingOptions(), prompter=arguments.prompter
    )
    with tempfile.TemporaryDirectory(prefix="stmemory-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio's copies go when ours do
        sessions = Sessions(predictor, Path(folder), most=arguments.people)
        demo = build(sessions, Path(folder))
        try:
            demo.launch(
                server_name=arguments.host, server_port=arguments.port, share=arguments.share, css=page.CSS,
                theme=gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]),
                allowed_paths=[folder], footer_links=[], max_file_size=arguments.megabytes * 2**20,
            )  # fmt: skip
        finally:
            sessions.close_all()


if __name__ == "__main__":
    main()
