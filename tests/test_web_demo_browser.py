"""Facts about the web demo's page, seen in a real browser. Skipped where gradio, Playwright or a Chromium is missing.

Pictures of the page go to the folder that the variable `PICTURES` names, if it is set.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray

from stmemory.io.palette import read_palette_png
from stmemory.io.video import iterate_video

pytest.importorskip("gradio", reason="needs what examples/web_demo/requirements.txt lists")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
PATIENCE = 120_000  # ms
WIDE, NARROW = (1280, 900), (390, 844)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the path")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a running demo, and the folder that it puts its own into."""
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    log = (folder / "log").open("w")
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "web_demo" / "app.py"), "--port", str(port)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}, stdout=log, stderr=log,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            with urlopen(address, timeout=5):
                break
        except OSError:
            assert running.poll() is None, (folder / "log").read_text()
            signal.sigtimedwait([], 0.2)
    yield address, folder
    running.send_signal(signal.SIGINT)
    running.wait(60)
    log.close()
    assert [] == list(folder.glob("stmemory-demo-*")), "the server left its folder"
    assert "Traceback" not in (folder / "log").read_text()


Open = Callable[[tuple[int, int]], Any]


@pytest.fixture
def open_page(server: tuple[str, Path]) -> Iterator[Open]:
    """Opens the page in a browser window of some size; makes sure that nothing was asked of another host."""
    address, asked = server[0], list[str]()
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def opened(size: tuple[int, int]) -> Any:
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address, wait_until="domcontentloaded")
            page.wait_for_selector("#open-demo")
            return page

        yield opened
        browser.close()
    local = (address, "data:", "blob:", "http://localhost")
    assert [] == [url for url in asked if not url.startswith(local)]


def frame_of(page: Any) -> int:
    """The frame that tracking is at; -1 before any."""
    shown = page.locator("#frame")
    return int(shown.inner_text()) if shown.count() else -1


def wait_until(page: Any, script: str) -> None:
    """Wait until something is so in the page."""
    page.wait_for_function(script, timeout=PATIENCE)


def paint(page: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the brush over the canvas, from and to places in pixels of the clip's frames of 640 x 360, which are drawn
    16 : 9 in the middle."""
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas canvas").first.bounding_box()
    zoom = float(page.locator("#canvas .zoom-number span").inner_text().rstrip("%")) / 100
    left, top = box["x"] + (box["width"] - 640 * zoom) / 2, box["y"] + (box["height"] - 360 * zoom) / 2
    page.mouse.move(left + begin[0] * zoom, top + begin[1] * zoom)
    page.mouse.down()
    page.mouse.move(left + end[0] * zoom, top + end[1] * zoom, steps=20)
    page.mouse.up()
    page.wait_for_timeout(300)


def picture(page: Any, name: str) -> None:
    """Keep a picture of the whole page, if wanted."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}_{page.viewport_size['width']}.png", full_page=True)


def downloaded(page: Any, name: str, folder: Path) -> Path:
    """The file behind a button, in a folder."""
    with page.expect_download() as coming:
        page.click(f"#{name}")
    path = folder / coming.value.suggested_filename
    coming.value.save_as(path)
    return path


def masks_of(page: Any, folder: Path) -> Callable[[int], NDArray[np.integer]]:
    """Download the masks and unpack them in a folder: ids `[H, W]` by the frame's number."""
    with zipfile.ZipFile(downloaded(page, "masks", folder)) as archive:
        archive.extractall(folder)
    return lambda frame: read_palette_png(folder / "masks" / f"{frame:05d}.png").numpy()


def test_a_person_paints_tracks_corrects_and_takes_home(open_page: Open, tmp_path: Path) -> None:
    """Paint of two objects becomes masks while it runs; stopped, corrected and gone on with, they come as PNGs and as a
    film."""
    page = open_page(WIDE)
    picture(page, "0_empty")
    page.click("#open-demo")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.wait_for_timeout(1500)  # the canvas draws its frame
    for y in range(200, 250, 9):
        paint(page, (92, y), (164, y))
    page.locator("#objects label").nth(1).click()
    page.wait_for_timeout(700)
    for y in (60, 70, 80):
        paint(page, (320, y), (440, y))
    picture(page, "1_painted")

    page.click("#track")
    wait_until(page, "Number(document.querySelector('#frame')?.innerText) >= 6")
    picture(page, "2_tracking")
    page.click("#stop")
    wait_until(page, "document.querySelector('#words')?.innerText === 'stopped'")
    stopped = frame_of(page)
    assert 6 <= stopped < 47
    page.wait_for_timeout(1500)
    page.locator("#objects label").nth(2).click()
    page.wait_for_timeout(700)
    paint(page, (560, 200), (560, 260))  # the post is a third object from here on
    picture(page, "3_corrected")
    page.click("#track")
    wait_until(page, "document.querySelector('#words')?.innerText === 'done'")
    page.wait_for_timeout(1500)
    picture(page, "4_done")

    page.click("#make")
    page.wait_for_selector("#masks", state="visible")
    page.wait_for_timeout(1500)
    picture(page, "5_files")
    masks, film = masks_of(page, tmp_path), downloaded(page, "film", tmp_path)
    ids = [masks(frame) for frame in range(48)]

    assert {(360, 640)} == {mask.shape for mask in ids}
    assert [0, 1, 2] == np.unique(ids[0]).tolist()
    assert [1, 2] == [ids[0][225, 128], ids[0][70, 380]]
    assert 3 not in np.concatenate(ids[:stopped])
    assert 3 == ids[stopped][230, 560]
    assert 48 == len([frame for frame in iterate_video(film) if frame.shape == (360, 640, 3)])
    assert page.locator("#timeline img").count() == 1


def shown_mask(page: Any) -> Callable[[float, float], bool]:
    """Says of a place in the frame that is clicked on, in pixels of the clip's frames of 640 x 360, whether the page
    shows it tinted in red: the colour of object 1."""
    red = page.evaluate(
        """async () => {
          const image = document.querySelector('#pointer img'), canvas = document.createElement('canvas');
          await image.decode();
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const drawing = canvas.getContext('2d');
          drawing.drawImage(image, 0, 0);
          return [image.naturalWidth, Array.from(drawing.getImageData(0, 0, canvas.width, canvas.height).data)];
        }"""
    )
    pixels = np.array(red[1], np.int32).reshape(-1, red[0], 4)
    factor = red[0] / 640
    return lambda x, y: bool(
        pixels[int(y * factor), int(x * factor), 0] > pixels[int(y * factor), int(x * factor), 1] + 60
    )


def click(page: Any, x: float, y: float) -> None:
    """Click on a place in the frame, in pixels of the clip's frames of 640 x 360, and wait for the answer."""
    changes(page, lambda: press(page, x, y))


def press(page: Any, x: float, y: float) -> None:
    """Click there, and wait for nothing."""
    shown = page.locator("#pointer img")
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    page.mouse.click(box["x"] + x / 640 * box["width"], box["y"] + y / 360 * box["height"])


def changes(page: Any, work: Callable[[], None]) -> None:
    """Do something, and wait until the frame that is clicked on is drawn anew."""
    page.evaluate("document.querySelector('#pointer .board').dataset.old = 'yes'")
    work()
    wait_until(page, "document.querySelector('#pointer .board:not([data-old])') !== null")


def test_a_click_gives_a_mask_that_is_tracked(open_page: Open, tmp_path: Path) -> None:
    """A click on the ball of the demo clip shows its mask at once, a click beside it removes, both can be taken back;
    paint goes on from there, and what is seen is what is tracked."""
    page = open_page(WIDE)
    page.click("#open-demo")
    wait_until(page, "document.querySelector('#track').disabled === false")
    ways = page.locator("#how label")
    ways.nth(0).click()
    page.locator("#pointer img").wait_for(state="visible")
    assert page.locator("#back").is_disabled()
    assert not shown_mask(page)(122, 250)
    picture(page, "7_before_the_click")

    click(page, 128, 225)
    assert shown_mask(page)(122, 250)
    assert page.locator("#pointer .is").count() == 1
    picture(page, "8_clicked")
    ways.nth(1).click()
    page.wait_for_timeout(500)
    click(page, 60, 150)
    assert not shown_mask(page)(60, 150)
    assert shown_mask(page)(122, 250)
    assert [1, 1] == [page.locator(f"#pointer .{kind}").count() for kind in ("is", "is-not")]
    picture(page, "8_clicked_beside")
    changes(page, lambda: page.click("#back"))
    changes(page, lambda: page.click("#back"))
    assert not shown_mask(page)(122, 250)
    assert page.locator("#back").is_disabled()

    ways.nth(0).click()
    page.wait_for_timeout(500)
    click(page, 128, 225)
    page.locator("#objects label").nth(1).click()
    page.wait_for_timeout(500)
    click(page, 380, 70)
    picture(page, "9_two_objects")
    page.locator("#objects label").nth(2).click()
    ways.nth(2).click()
    page.locator("#canvas canvas").first.wait_for(state="visible")
    page.wait_for_timeout(2500)  # the canvas draws its frame
    paint(page, (560, 200), (560, 260))
    picture(page, "10_painted_too")
    ways.nth(0).click()
    page.locator("#pointer img").wait_for(state="visible")
    wait_until(page, "document.querySelector('#pointer .board:not([data-old])') !== null")
    picture(page, "11_clicks_again")
    page.click("#track")
    wait_until(page, "Number(document.querySelector('#frame')?.innerText) >= 3")
    page.click("#stop")
    wait_until(page, "document.querySelector('#words')?.innerText === 'stopped'")
    picture(page, "12_tracked")
    page.click("#make")
    ids = masks_of(page, tmp_path)(0)

    assert [0, 1, 2, 3] == np.unique(ids).tolist()
    assert [1, 2, 3] == [ids[225, 128], ids[70, 380], ids[230, 560]]


def test_quick_clicks_and_clicks_of_nothing(open_page: Open) -> None:
    """Two clicks at once are both taken; one beside an object that is not there is a sentence, and removes nothing."""
    page = open_page(WIDE)
    page.click("#open-demo")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.locator("#how label").nth(1).click()
    page.locator("#pointer img").wait_for(state="visible")
    press(page, 128, 225)
    words = page.locator(".toast-wrap, [data-testid=toast-body]").first
    words.wait_for()
    assert "click on it first" in words.inner_text()
    page.locator("#how label").nth(0).click()
    page.wait_for_timeout(500)
    press(page, 128, 225)
    press(page, 110, 215)
    wait_until(page, "document.querySelectorAll('#pointer .is').length === 2")

    assert 'File "' not in page.inner_text("body")


def test_what_is_erased_is_not_there(open_page: Open, tmp_path: Path) -> None:
    """Found paint can be erased: what is left is the mask of the frame at which it stopped."""
    page = open_page(WIDE)
    page.click("#open-painted")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.wait_for_timeout(1500)
    page.click("#track")
    wait_until(page, "Number(document.querySelector('#frame')?.innerText) >= 2")
    page.click("#stop")
    wait_until(page, "document.querySelector('#words')?.innerText === 'stopped'")
    stopped = frame_of(page)
    page.wait_for_timeout(1500)
    page.click("#canvas button[title=Erase]")
    paint(page, (60, 222), (240, 222))
    picture(page, "3_erased")
    page.click("#track")
    wait_until(page, f"Number(document.querySelector('#frame')?.innerText) >= {stopped + 1}")
    page.click("#stop")
    wait_until(page, "document.querySelector('#words')?.innerText === 'stopped'")
    page.click("#make")
    masks = masks_of(page, tmp_path)
    before, then = masks(stopped - 1), masks(stopped)

    assert 1 in before[222]
    assert 1 not in then[222]
    assert 1 in then


def test_tracking_begins_on_the_frame_that_was_painted(open_page: Open, tmp_path: Path) -> None:
    """The slider leads to any frame; paint on frame 40 is tracked from there to the end."""
    page = open_page(WIDE)
    page.click("#open-demo")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.wait_for_timeout(1500)
    number = page.locator("#frames input[type=number]")
    number.fill("40")
    number.press("Tab")
    page.wait_for_timeout(4000)
    paint(page, (300, 250), (380, 250))
    picture(page, "6_frame_40")
    page.click("#track")
    wait_until(page, "document.querySelector('#words')?.innerText === 'done'")

    assert 47 == frame_of(page)
    assert "object 1" in page.inner_text("#told")
    page.click("#make")
    with zipfile.ZipFile(downloaded(page, "masks", tmp_path)) as archive:
        assert [f"masks/{frame:05d}.png" for frame in range(40, 48)] == archive.namelist()


def test_errors_are_sentences(open_page: Open) -> None:
    """Tracking without paint says what to do, and shows no inner workings."""
    page = open_page(WIDE)
    page.click("#open-demo")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.wait_for_timeout(1500)
    page.click("#track")
    words = page.locator(".toast-wrap, [data-testid=toast-body]").first
    words.wait_for()

    assert "choose an object and paint it" in words.inner_text()
    assert "Traceback" not in page.inner_text("body")
    assert 'File "' not in page.inner_text("body")


def test_a_narrow_screen_shows_everything(open_page: Open) -> None:
    """On a telephone nothing is wider than the screen, a click gives a mask, and a painted clip is tracked."""
    page = open_page(NARROW)
    picture(page, "0_empty")
    page.click("#open-painted")
    wait_until(page, "document.querySelector('#track').disabled === false")
    page.wait_for_timeout(1500)
    page.locator("#how label").nth(0).click()
    page.locator("#pointer img").wait_for(state="visible")
    page.locator("#objects label").nth(2).click()
    page.wait_for_timeout(500)
    click(page, 380, 215)
    picture(page, "2_clicked")
    page.click("#track")
    wait_until(page, "Number(document.querySelector('#frame')?.innerText) >= 4")
    page.click("#stop")
    wait_until(page, "document.querySelector('#words')?.innerText === 'stopped'")
    page.wait_for_timeout(1500)
    picture(page, "3_stopped")

    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]


def test_folders_of_people_who_left_are_removed(open_page: Open, server: tuple[str, Path]) -> None:
    """Two people have folders of their own, and each goes when its page is closed."""

    def folders() -> int:
        return len(list(server[1].glob("stmemory-demo-*/session-*")))

    pages = [open_page(WIDE), open_page(WIDE)]
    before = folders()
    for page in pages:
        page.click("#open-demo")
        wait_until(page, "document.querySelector('#track').disabled === false")
    after = folders()
    for page in pages:
        page.close()
    for _ in range(300):
        if folders() <= before:
            break
        signal.sigtimedwait([], 0.2)

    assert before + 2 == after
    assert folders() <= before
