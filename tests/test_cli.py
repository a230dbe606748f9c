"""The command line, end to end with the bundled weights on small frames: what it writes, says, and exits with."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stmemory.cli import main
from stmemory.cli.output import Progress
from stmemory.errors import OptionError, ShapeError, StmemoryError
from stmemory.evaluation import region_similarity, render_scene
from stmemory.io.drawing import Tile, contact_sheet, draw_outline
from stmemory.io.files import out_folder
from stmemory.io.frames import WorkingSize
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.io.video import write_video
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.info import object_bytes, versions
from stmemory.jobs.track import Stop, run_job
from stmemory.networks.config import NetworkConfig
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.weights.devices import usable_device

FRAMES, HEIGHT, WIDTH = 100, 64, 96  # so many that a signal comes before the end
SHORT = ("--memory-size", "3", "--policy", "A")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip in the folder layout of DAVIS: `beach/JPEGImages`, `beach/Annotations`."""
    root = tmp_path_factory.mktemp("root")
    (root / "beach" / "JPEGImages").mkdir(parents=True)
    for index, (frame, ids) in enumerate(render_scene(FRAMES, height=HEIGHT, width=WIDTH)):
        Image.fromarray(frame).save(root / "beach" / "JPEGImages" / f"{index:05d}.png")
        write_palette_png(root / "beach" / "Annotations" / f"{index:05d}.png", ids)
    return root


@pytest.fixture
def track(root: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that track the clip into `tmp_path / out`."""

    def arguments(*more: str, out: str = "out") -> list[str]:
        clip = root / "beach"
        mask = clip / "Annotations" / "00000.png"
        given = [] if "--mask" in more else ["--mask", str(mask)]
        return ["track", str(clip / "JPEGImages"), *given, "-o", str(tmp_path / out), *SHORT, *more]

    return arguments


def masks(folder: Path) -> dict[str, bytes]:
    """The masks' files, by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / "masks").glob("*.png"))}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("notes", "got the file"),
        ("notes/deep/out", "lies in the file"),
        ("report.json", "name the folder"),
        ("new/table.CSV", "name the folder"),
    ],
    ids=["file", "below-a-file", "json", "csv"],
)
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str, told: str) -> None:
    """A file, a place below one, and a new folder with the name of a report or a table."""
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OptionError, match=told):
        out_folder(tmp_path / name)
    assert ["notes"] == [path.name for path in tmp_path.iterdir()]


def test_an_output_may_be_new_or_there_already(tmp_path: Path) -> None:
    """A folder that is there keeps its name, whatever it is."""
    (tmp_path / "old.json").mkdir()
    for place in (tmp_path / "old.json", tmp_path / "new" / "out", tmp_path / "v1.2"):
        assert place == out_folder(str(place))


def test_track_writes_a_palette_png_a_frame(track: Callable[..., list[str]], root: Path, tmp_path: Path) -> None:
    """The masks have the frames' names and the clip's ids, and lie where the objects are."""
    assert 0 == main(track("--frames", "6"))
    assert [f"{index:05d}.png" for index in range(6)] == list(masks(tmp_path / "out"))
    found = read_palette_png(tmp_path / "out" / "masks" / "00003.png").numpy()
    truth = read_palette_png(root / "beach" / "Annotations" / "00003.png").numpy()

    with Image.open(tmp_path / "out" / "masks" / "00003.png") as image:
        assert "P" == image.mode
    assert region_similarity(found == 1, truth == 1) > 0.5


def test_track_says_what_it_understood(
    track: Callable[..., list[str]], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line tells the clip's length and size, the objects and the void; another that a limit was the user's."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:10, :10], ids[20:40, 20:40], ids[50:, :] = 1, 4, 255
    write_palette_png(tmp_path / "first.png", ids)
    assert 0 == main(track("--mask", str(tmp_path / "first.png"), "--frames", "2"))
    understood, *_, last = capsys.readouterr().out.splitlines()

    expected = (
        f"JPEGImages: 2 of {FRAMES} frames of {WIDTH} x {HEIGHT}, cpu; first.png: 2 objects: 1 (100 px), 4 (400 px)"
    )
    assert f"{expected}; 255 is void: {14 * WIDTH:,} px ignored" == understood
    assert "stopped after 2 frames as asked; --resume goes on" == last
    assert 0 == main(track("--mask", str(tmp_path / "first.png"), "--frames", "3", "--resume"))
    assert 3 == len(masks(tmp_path / "out"))


def test_a_mask_among_the_frames_is_told(
    track: Callable[..., list[str]], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask in the source folder is passed over, and the line says so."""
    (tmp_path / "clip").mkdir()
    for kind, name in (("JPEGImages", "00000.png"), ("JPEGImages", "00001.png"), ("Annotations", "first.png")):
        source = root / "beach" / kind / ("00000.png" if name == "first.png" else name)
        (tmp_path / "clip" / name).write_bytes(source.read_bytes())
    arguments = track("--mask", str(tmp_path / "clip" / "first.png"))
    arguments[1] = str(tmp_path / "clip")
    assert 0 == main(arguments)

    assert "clip: 2 frames" in (said := capsys.readouterr().out)
    assert "first.png lies among the frames and is not one of them" in said
    assert ["00000.png", "00001.png"] == list(masks(tmp_path / "out"))


def test_track_reads_videos_and_draws_overlays(track: Callable[..., list[str]], root: Path, tmp_path: Path) -> None:
    """A video file gives numbered masks and, on demand, an overlay."""
    write_video(tmp_path / "clip.mp4", (frame for frame, _ in render_scene(4, height=HEIGHT, width=WIDTH)))
    arguments = track("--overlay")
    arguments[1] = str(tmp_path / "clip.mp4")

    assert 0 == main(arguments)
    assert ["00000.png", "00001.png", "00002.png", "00003.png"] == list(masks(tmp_path / "out"))
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 0


def test_options_reach_the_tracking(track: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag sets the option of its name."""
    seen: list[TrackingOptions] = []

    def spy(name: object, *, options: TrackingOptions, **where: object) -> VOSPredictor:
        seen.append(options)
        raise OptionError("enough")

    monkeypatch.setattr(VOSPredictor, "from_pretrained", spy)
    flags = "--memory-every 2 --short-side none --top-k 9 --write-gate 0.25 --reach none"
    main(track(*flags.split()))
    main(["demo"])
    given = TrackingOptions(
        memory_size=3, policy="A", memory_every=2, short_side=None, top_k=9, write_gate=0.25, reach=None
    )

    assert [given, TrackingOptions()] == seen


@pytest.mark.slow
@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-C", "SIGTERM"])
def test_an_interrupted_run_resumes_to_the_same_masks(
    track: Callable[..., list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    """A signal leaves masks and a state, exits with 130, and --resume ends with the masks of one go, byte for byte."""
    run = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "stmemory", *track()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    began = time.monotonic()
    while (
        not (tmp_path / "out" / "masks" / "00002.png").exists() and run.poll() is None and time.monotonic() - began < 60
    ):
        time.sleep(0.005)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)

    assert 130 == run.returncode
    assert "stopping after this frame and saving; press ctrl-C again" in said
    assert "--resume" in said and "Traceback" not in said
    assert 3 <= len(masks(tmp_path / "out")) < FRAMES
    assert (tmp_path / "out" / "state.safetensors").exists()
    assert [0, 0] == [main(track("--resume")), main(track(out="whole"))]
    assert masks(tmp_path / "whole") == masks(tmp_path / "out")
    assert {"job.json", "masks"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_a_frame_that_cannot_be_used_is_reported(
    track: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip that breaks in the middle exits with 1 and says where, after the masks before it."""
    (tmp_path / "clip").mkdir()
    for index, (frame, _) in enumerate(render_scene(3, height=HEIGHT, width=WIDTH)):
        Image.fromarray(frame if index < 2 else frame[:32]).save(tmp_path / "clip" / f"{index}.png")
    arguments = track()
    arguments[1] = str(tmp_path / "clip")

    assert 1 == main(arguments)
    assert ["0.png", "1.png"] == list(masks(tmp_path / "out"))
    said = capsys.readouterr().err
    assert "frame 2" in said and "2.png" in said
    assert "the same command with --resume" not in said


def bad_track(*changes: str) -> Callable[[list[str], Path], list[str]]:
    """Replace or append arguments; `TMP` stands for the test's folder."""

    def change(arguments: list[str], folder: Path) -> list[str]:
        return [*arguments, *(text.replace("TMP", str(folder)) for text in changes)]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (bad_track("--policy", "best"), "update policy"),
        (bad_track("--memory-size", "1"), "memory_size"),
        (bad_track("--write-gate", "7"), "write_gate"),
        (bad_track("--frames", "0"), "frames"),
        (bad_track("--device", "abacus"), "device"),
        (bad_track("--weights", "no-such"), "weights"),
        (bad_track("--mask", "TMP/none.png"), "none.png"),
        (bad_track("--mask", "TMP/small.png"), "size"),
        (bad_track("--mask", "TMP/empty.png"), "object"),
        (bad_track("--resume"), "nothing to resume"),
        (bad_track("-o", "TMP/small.png"), "expected a folder"),
        (lambda arguments, folder: ["track", str(folder / "none.mp4"), *arguments[2:]], "none.mp4"),
        (lambda arguments, folder: ["evaluate", str(folder)], "CLIP/JPEGImages"),
        (lambda arguments, folder: ["demo", "-o", str(folder / "demo"), "--frames", "2"], "frames"),
        (lambda arguments, folder: ["demo", "-o", str(folder / "demo"), "--height", "8"], "height"),
        (lambda arguments, folder: ["benchmark", "growth", "-o", str(folder / "g"), "--frames", "1"], "frames"),
        (
            lambda arguments, folder: ["benchmark", "growth", "-o", str(folder / "g.json"), "--frames", "8"],
            "name of a folder",
        ),
        (
            lambda arguments, folder: ["benchmark", "growth", "-o", str(folder / "small.png"), "--frames", "8"],
            "got the file",
        ),
        (lambda arguments, folder: ["benchmark", "speed", "-o", str(folder), "--rounds", "1"], "expected a file"),
        (
            lambda arguments, folder: ["benchmark", "speed", "-o", str(folder / "small.png" / "s.json")],
            "small.png' is a file",
        ),
        (lambda arguments, folder: ["info", "no-such"], "no-such"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_bad_arguments(
    track: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str], Path], Sequence[str]],
    told: str,
) -> None:
    """Bad arguments exit with 2 and one line that says what was wrong, and leave nothing behind."""
    write_palette_png(tmp_path / "small.png", np.ones((8, 8), np.uint8))
    write_palette_png(tmp_path / "empty.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    code = main(change(track(), tmp_path))
    said = capsys.readouterr().err

    assert 2 == code
    assert said.startswith("stmemory: ") and told in said
    assert ["empty.png", "small.png"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["fly"], ["track"], ["demo", "--frames", "many"], ["benchmark"]], ids=str)
def test_arguments_that_cannot_be_parsed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command exits with 2 and shows the usage."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert 2 == caught.value.code
    assert "usage: stmemory" in capsys.readouterr().err


def test_numbers_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that takes a number or none says so."""
    for flag, told in (("--top-k", "a whole number or none, got 'abc'"), ("--reach", "a number or none, got 'abc'")):
        with pytest.raises(SystemExit):
            main(["demo", flag, "abc"])
        assert told in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version says the version that info says, and exits with 0."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert (0, f"stmemory {versions()['stmemory']}\n") == (caught.value.code, capsys.readouterr().out)


def test_a_file_that_is_no_video_is_told(
    track: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What PyAV cannot open is said to be no video."""
    (tmp_path / "fake.mp4").write_text("no video")
    arguments = track()
    arguments[1] = str(tmp_path / "fake.mp4")

    assert 2 == main(arguments)
    assert "fake.mp4: not a video that PyAV can read" in capsys.readouterr().err


def test_a_resumed_run_needs_its_own_options(
    track: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state is refused under other options, which are named; without --resume the way on is named."""
    clip, mask = Path(track()[1]), Path(track()[3])
    predictor = VOSPredictor.from_pretrained(options=TrackingOptions(memory_size=3, policy="A"))
    run_job(predictor, TrackJob(clip, mask, tmp_path / "out"), stop=Stop(wanted=True))

    assert 2 == main(track("--resume", "--memory-size", "4"))
    assert "memory_size" in capsys.readouterr().err
    assert 2 == main(track())
    assert "--resume" in capsys.readouterr().err
    assert 0 == main(track("--resume", "--frames", "3"))


def test_demo_leaves_something_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo writes clip, first mask, video and contact sheet, and prints scores, one speed, and bytes that stayed
    equal."""
    assert 0 == main(["demo", "-o", str(tmp_path), "--frames", "5", "--height", "64", "--width", "96"])
    said, progress = capsys.readouterr()

    assert {"clip.mp4", "contact_sheet.png", "first.png", "overlay.mp4"} == {path.name for path in tmp_path.iterdir()}
    assert 1 == (said + progress).count("frames/s")
    assert all(
        text in said for text in ("J ", "F ", "frames/s", "equal after every frame", str(tmp_path / "overlay.mp4"))
    )
    assert "NOT" not in said


@pytest.mark.parametrize("width", ["96", "95"], ids=["even", "odd"])
def test_what_the_demo_leaves_can_be_tracked(tmp_path: Path, width: str) -> None:
    """The clip and the first mask that the demo leaves fit each other, also where the film has to be padded."""
    assert 0 == main(["demo", "-o", str(tmp_path), "--frames", "3", "--height", "63", "--width", width])
    results = list(VOSPredictor.from_pretrained().track(tmp_path / "clip.mp4", tmp_path / "first.png"))

    assert 3 == len(results)
    assert (5, 6) == results[0].object_ids


def test_demo_without_pyav_writes_a_webp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAV the demo writes animations of as many pictures."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 0 == main(["demo", "-o", str(tmp_path), "--frames", "4", "--height", "64", "--width", "96"])
    for name in ("clip.webp", "overlay.webp"):
        with Image.open(tmp_path / name) as image:
            assert (4, (96, 64)) == (image.n_frames, image.size)


def test_info_tells_of_the_bundled_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """Versions, devices, parameters and the bytes of an object are told."""
    assert 0 == main(["info"])
    said = capsys.readouterr().out

    assert all(
        text in said
        for text in ("stmemory", "torch", "cpu", "lite", "parameters", "for one object at 480p", "Apache-2.0", "J&F")
    )


def test_object_bytes_are_what_a_stream_takes() -> None:
    """The bytes that are worked out from shapes are those of a stream's bank and cache."""
    predictor = VOSPredictor.from_pretrained(options=TrackingOptions(enlarge=1))
    mask = np.zeros((50, 70), np.uint8)
    mask[10:40, 20:50] = 1
    stream = predictor.start(np.full((50, 70, 3), 99, np.uint8), mask)
    stream.step(np.full((50, 70, 3), 99, np.uint8))
    kept = stream.last.ids.numel() * 4 + stream.last.probabilities.numel() * 4 + (2 * 3 + 2) * 64 * 80 * 4 + 64 * 80

    assert object_bytes(NetworkConfig.of("lite"), WorkingSize.of(50, 70, 480, 16)) == stream.nbytes - kept


def test_evaluate_scores_clips_and_names_those_it_skipped(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip that cannot be read is named and skipped, exit code 1; the others are scored and reported."""
    for clip, count in (("beach", 5), ("broken", 3)):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / clip / kind).mkdir(parents=True)
            for index in range(count):
                source = root / "beach" / kind / f"{index:05d}.png"
                (tmp_path / clip / kind / source.name).write_bytes(source.read_bytes())
    assert 0 == main(["evaluate", str(tmp_path), "beach", "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert ["beach"] == [clip["name"] for clip in report["clips"]]
    assert 5 == report["options"]["memory_size"]
    (tmp_path / "broken" / "JPEGImages" / "00001.png").write_bytes(b"not an image")
    capsys.readouterr()

    assert 1 == main(["evaluate", str(tmp_path)])
    said = capsys.readouterr()
    assert "skipped broken" in said.err
    assert "beach" in said.out and "mean over objects" in said.out


def test_an_unknown_device_is_an_option_error() -> None:
    """A device that is not there is told with those that are."""
    with pytest.raises(OptionError, match="cpu"):
        usable_device("cuda:99")


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("live", "due_after"), [(True, 0.1), (False, 10.0)], ids=["terminal", "file"])
def test_progress_is_told_now_and_then(live: bool, due_after: float) -> None:
    """A line is due a tenth of a second (or ten seconds) after the last one, and at the end."""
    clock = Clock()
    progress = Progress(100, live=live, clock=clock)
    lines = []
    for done, now in enumerate((0.0, 1.0, 1.0 + due_after / 2, 1.0 + due_after * 1.1)):
        clock.now = now
        lines.append(progress.line(done) is not None)

    assert [False, True, False, True] == lines
    assert progress.line(100) is not None


def test_progress_counts_from_where_it_began() -> None:
    """Frames done before a resumed run do not count as speed."""
    clock = Clock()
    progress = Progress(None, live=False, label="track", clock=clock)
    progress.line(1000)
    clock.now = 20.0

    assert "track 1010 frames, 0.5 frames/s\n" == progress.line(1010)


def test_a_contact_sheet_needs_tiles() -> None:
    """Nothing to show is an error."""
    with pytest.raises(OptionError, match="one tile"):
        contact_sheet([], title="none")


def test_an_outline_needs_ids_of_the_same_size() -> None:
    """Ids of another size are refused rather than drawn somewhere."""
    with pytest.raises(ShapeError, match="same frame"):
        draw_outline(np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4), np.uint8))


def test_a_contact_sheet_shows_its_tiles() -> None:
    """Each picture is on the sheet, in its place."""
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    tiles = [Tile(np.full((40, 80, 3), colour, np.uint8), "") for colour in colours]
    sheet = contact_sheet(tiles, title="", columns=2, tile_width=80)

    assert colours[:2] == [
        sheet.getpixel((36 + 40 + 98 * place, sheet.height - 36 - 30 - 20 - 88)) for place in range(2)
    ]
    assert colours[2] == sheet.getpixel((36 + 40, sheet.height - 36 - 30 - 20))


def test_every_error_kind_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of the library, of the system and ctrl-C end in one line each, without a traceback."""
    codes = []
    for error in (StmemoryError("ours"), OSError("disk full"), KeyboardInterrupt()):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("stmemory.jobs.info.versions", fail)
        codes.append(main(["info"]))

    assert [2, 1, 130] == codes
    last = "stmemory: interrupted; what was saved before stays"
    assert ["stmemory: ours", "stmemory: disk full", last] == capsys.readouterr().err.splitlines()


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`stmemory info | head` says nothing of a broken pipe."""
    command = "from stmemory.cli import main; raise SystemExit(main(['info']))"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert (1, b"") == (process.returncode, said)
