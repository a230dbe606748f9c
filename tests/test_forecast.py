"""`stmemory predict`, end to end with tiny weights: what it writes, says and exits with, and the pictures that it
draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import clip, tiny_prediction_network

from stmemory.cli import main
from stmemory.errors import OptionError
from stmemory.evaluation.frame_metrics import score_frames
from stmemory.jobs.forecast import OWN, PREDICTED, ForecastJob, Row, animation, demo_clip, run_forecast, strip
from stmemory.memory import LearnedPolicy
from stmemory.options import PredictionOptions
from stmemory.prediction.predictor import FramePredictor
from stmemory.weights.tensors import save_policy


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with tiny weights."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_prediction_network().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clip of twelve grey frames, 16 x 20, in a file."""
    np.save(tmp_path / "clip.npy", clip(12, 16, 20)[..., 0])
    return tmp_path / "clip.npy"


def names(folder: Path) -> list[str]:
    """Of all files below, in order, without the parts of files that never became whole."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_predicted_frames_are_written(
    weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each as a PNG named by its number, equal to what the predictor gives; an animation and a strip beside them, and
    nothing else."""
    out = tmp_path / "out"
    assert 0 == main(["predict", str(source), "--steps", "3", "-o", str(out), "--weights", weights])
    assert [
        "forecast.json",
        "frames/00012.png",
        "frames/00013.png",
        "frames/00014.png",
        "prediction.gif",
        "strip.png",
    ] == names(out)
    for prediction in FramePredictor.from_pretrained(weights).predict(source, steps=3):
        with Image.open(out / "frames" / f"{prediction.frame_index:05d}.png") as image:
            assert np.array_equal(prediction.picture()[:, :, 0], np.array(image))
    with Image.open(out / "prediction.gif") as image:
        assert (15, 200, 0) == (image.n_frames, image.info["duration"], image.info["loop"])
    said = capsys.readouterr().out
    assert "clip.npy: watched 12 frames of 20 x 16, cpu; predicted 3 more" in said and "MSE" not in said


def test_frames_held_back_are_compared(
    weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network never sees them; what is printed are the scores of the predictions, and of a copy of the last frame
    seen."""
    assert 0 == main(["predict", str(source), "--hide", "4", "-o", str(tmp_path / "out"), "--weights", weights])
    frames = torch.from_numpy(np.load(source))[:, None].float() / 255
    predicted = torch.stack([p.pixels for p in FramePredictor.from_pretrained(weights).predict(frames[:8], steps=4)])
    said = capsys.readouterr().out.splitlines()
    for label, found in (("predicted", predicted), ("copy of the last frame", frames[7].expand(4, -1, -1, -1))):
        scores = score_frames(found, frames[8:])
        expected = [f"{scores.mse:.2f}", f"{scores.mae:.2f}", f"{scores.ssim:.3f}", f"{scores.psnr:.2f}"]
        assert [expected] == [line.removeprefix(label).split() for line in said if line.startswith(f"{label} ")]
    assert [f"frames/{number:05d}.png" for number in range(8, 12)] == names(tmp_path / "out")[1:5]


@pytest.mark.parametrize(
    "changes", [[], ["--policy", "A", "--memory-size", "2"], ["--freeze-memory"], ["--short-side", "8"]], ids=str
)
def test_options_reach_the_predictor(changes: list[str], weights: str, source: Path, tmp_path: Path) -> None:
    """What is written is what a predictor with those options gives."""
    assert 0 == main(
        ["predict", str(source), "--steps", "4", "-o", str(tmp_path / "out"), "--weights", weights, *changes]
    )
    values: dict[str, object] = {
        "--policy": {"policy": "A", "memory_size": 2},
        "--freeze-memory": {"write_predictions": False},
        "--short-side": {"short_side": 8},
    }
    options = PredictionOptions(**(values[changes[0]] if changes else {}))
    expected = [
        p.picture()[:, :, 0] for p in FramePredictor.from_pretrained(weights, options=options).predict(source, steps=4)
    ]
    with Image.open(tmp_path / "out" / "frames" / "00015.png") as image:
        assert np.array_equal(expected[-1], np.array(image))


@pytest.mark.slow
def test_the_demo_makes_its_own_clip(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six pictures in a cycle, another clip for another seed; the frames after are known, so they are compared."""
    for seed in ("0", "1"):
        assert 0 == main(
            ["predict", "--demo", "--seed", seed, "--steps", "3", "-o", str(tmp_path / seed), "--weights", weights]
        )
    assert "six pictures in a cycle: watched 10 frames of 16 x 16" in capsys.readouterr().out
    assert (tmp_path / "0" / "strip.png").read_bytes() != (tmp_path / "1" / "strip.png").read_bytes()
    assert (5, 1, 64, 64) == tuple(demo_clip(side=64, frames=5).shape)


def test_an_earlier_run_is_replaced_only_if_asked(
    weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --force nothing is changed; with it its frames go, and what else lies there stays."""
    out = tmp_path / "out"
    run = ["predict", str(source), "-o", str(out), "--weights", weights]
    assert 0 == main([*run, "--steps", "5"])
    (out / "frames" / "notes.txt").write_text("mine")
    before = names(out)
    assert 2 == main([*run, "--steps", "2"])
    assert "--force" in capsys.readouterr().err and before == names(out)
    assert 0 == main([*run, "--steps", "2", "--force"])
    assert [
        "forecast.json",
        "frames/00012.png",
        "frames/00013.png",
        "frames/notes.txt",
        "prediction.gif",
        "strip.png",
    ] == names(out)


@pytest.mark.parametrize(
    "record",
    [None, "{", "[]", '{"format": "stmemory.forecast 1", "frames": ["../../precious.png", 3, "00000.png/x"]}'],
)
def test_frames_of_no_run_are_never_deleted(
    record: str | None, weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the record does not say a run wrote stays, asked for or not, and so does what lies elsewhere."""
    (tmp_path / "precious.png").write_text("years of work")
    (tmp_path / "out" / "frames").mkdir(parents=True)
    (tmp_path / "out" / "frames" / "00040.png").write_text("mine")
    if record is not None:
        (tmp_path / "out" / "forecast.json").write_text(record)
    assert 2 == main(
        ["predict", str(source), "--steps", "1", "--force", "-o", str(tmp_path / "out"), "--weights", weights]
    )
    assert "00040.png: expected only frames of the run before" in capsys.readouterr().err
    (tmp_path / "out" / "frames" / "00040.png").unlink()
    assert 0 == main(
        ["predict", str(source), "--steps", "1", "--force", "-o", str(tmp_path / "out"), "--weights", weights]
    )

    assert "years of work" == (tmp_path / "precious.png").read_text()


def test_no_frame_is_written_through_a_link(
    weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of frames that is a link to elsewhere is left as it is."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "00012.png").write_text("years of work")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "frames").symlink_to(tmp_path / "photos")
    assert 2 == main(
        ["predict", str(source), "--steps", "1", "--force", "-o", str(tmp_path / "out"), "--weights", weights]
    )

    assert "expected a place below" in capsys.readouterr().err
    assert ["years of work"] == [file.read_text() for file in (tmp_path / "photos").iterdir()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4"),
        (["CLIP", "--hide", "12"], "more frames than the 12"),
        (["CLIP", "--hide", "-1"], "hide"),
        (["CLIP", "--steps", "0"], "steps"),
        (["CLIP", "--rate", "0"], "rate"),
        (["CLIP", "--policy", "best"], "policy"),
        (["CLIP", "--policy", "CLIP"], "clip.npy: expected"),
        (["CLIP", "--device", "nowhere"], "device"),
        (["CLIP", "--weights", "lite"], "for VOSPredictor"),
        (["FOLDER/one.npy"], "array[None]"),
        (["FOLDER/first.npy"], "transpose(0, 2, 3, 1)"),
        (["FOLDER/many.npy"], "array[:, 0]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_write_nothing(
    arguments: list[str], said: str, weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, a word about what is wrong, and no folder."""
    for name, shape in (("one", (8, 8)), ("first", (4, 3, 8, 8)), ("many", (4, 5, 8, 8))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.uint8))
    run = [str(source) if word == "CLIP" else word.replace("FOLDER", str(tmp_path)) for word in arguments]
    assert 2 == main(["predict", "--weights", weights, *run, "-o", str(tmp_path / "out")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_frames_that_are_far_too_large_are_told(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with what helps; not when it is followed."""
    np.save(tmp_path / "large.npy", clip(2, 40, 50))
    run = [
        "predict",
        str(tmp_path / "large.npy"),
        "--steps",
        "1",
        "--force",
        "-o",
        str(tmp_path / "out"),
        "--weights",
        weights,
    ]
    assert 0 == main(run)
    assert 1 == capsys.readouterr().err.count("--short-side 16")
    assert 0 == main([*run, "--short-side", "16"])
    assert "--short-side" not in capsys.readouterr().err


def test_an_interruption_leaves_nothing_half_written(
    weights: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While predicting nothing is written at all; while writing, what is there is whole."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("stmemory.prediction.stream.FrameStream.foresee", interrupted)
        assert 1 == main(["predict", str(source), "-o", str(out), "--weights", weights])
    assert not out.exists()
    monkeypatch.setattr("stmemory.jobs.forecast.strip", interrupted)
    assert 1 == main(["predict", str(source), "--steps", "1", "-o", str(out), "--weights", weights])
    assert ["forecast.json", "frames/00012.png", "prediction.gif"] == names(out)


def test_memory_is_reported_as_it_is(source: Path, tmp_path: Path) -> None:
    """The bytes after the first and the last frame are equal, and those of the stream."""
    predictor = FramePredictor(tiny_prediction_network())
    forecast = run_forecast(predictor, source, ForecastJob(tmp_path / "out", steps=2))
    stream = predictor.start()
    stream.step(np.load(source)[0])
    assert (stream.nbytes, stream.nbytes) == forecast.memory_bytes


def test_a_learned_policy_comes_from_its_file(weights: str, source: Path, tmp_path: Path) -> None:
    """What is written is what a predictor with that policy gives, and not what one with another gives."""
    policies = [LearnedPolicy(seed=seed) for seed in (1, 2)]
    save_policy(policies[0], tmp_path / "mine.safetensors")
    run = [
        "predict",
        str(source),
        "--steps",
        "4",
        "-o",
        str(tmp_path / "out"),
        "--weights",
        weights,
        "--memory-size",
        "3",
    ]
    assert 0 == main([*run, "--policy", str(tmp_path / "mine.safetensors")])
    with Image.open(tmp_path / "out" / "frames" / "00015.png") as image:
        written = np.array(image)
    predictors = [
        FramePredictor.from_pretrained(weights, options=PredictionOptions(memory_size=3, policy=policy))
        for policy in policies
    ]
    expected = [[p.picture()[:, :, 0] for p in predictor.predict(source, steps=4)][-1] for predictor in predictors]
    assert [True, False] == [np.array_equal(one, written) for one in expected]


def test_small_frames_held_back_are_told(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who asks for a comparison hears why there is none."""
    np.save(tmp_path / "small.npy", clip(4, 5, 9)[..., 0])
    assert 0 == main(
        ["predict", str(tmp_path / "small.npy"), "--hide", "3", "-o", str(tmp_path / "out"), "--weights", weights]
    )
    said = capsys.readouterr()
    assert "watched 1 frame of" in said.out and "9 x 5 are too small for SSIM" in said.err


def test_frames_too_small_for_ssim_are_not_scored(tmp_path: Path) -> None:
    """Everything else is as ever."""
    forecast = run_forecast(
        FramePredictor(tiny_prediction_network()), clip(4, 5, 9), ForecastJob(tmp_path / "out", steps=2, hide=2)
    )
    assert (2, None) == (forecast.compared, forecast.scores) and (tmp_path / "out" / "strip.png").exists()


def row(label: str, values: list[int], *, predicted: bool = False) -> Row:
    """Pictures of 4 x 6, each of one grey."""
    return Row(
        label, [np.full((4, 6, 3), value, np.uint8) for value in values], range(len(values)), predicted=predicted
    )


def test_an_animation_shows_what_was_seen_and_then_what_was_predicted() -> None:
    """In frames of their colours; with what came on the left, whose last picture stays."""
    seen, ahead, came = row("seen", [10, 20]), row("predicted", [30, 40], predicted=True), row("truth", [50])
    alone = animation(seen, ahead, side=6)
    assert [(10, OWN), (20, OWN), (30, PREDICTED), (40, PREDICTED)] == [
        (i.getpixel((5, 5))[0], i.getpixel((0, 0))) for i in alone
    ]
    beside = animation(seen, ahead, came, side=6)
    assert [(10, 10), (20, 20), (50, 30), (50, 40)] == [(i.getpixel((5, 5))[0], i.getpixel((25, 5))[0]) for i in beside]
    assert [(OWN, OWN)] * 2 + [(OWN, PREDICTED)] * 2 == [(i.getpixel((0, 0)), i.getpixel((20, 0))) for i in beside]


def test_long_forecasts_fit_in_their_pictures() -> None:
    """At most fifty frames of each kind in an animation, and ten columns in a strip; large pictures are shrunk, small
    ones enlarged."""
    seen, ahead = row("seen", [1] * 80), row("predicted", [2] * 70, predicted=True)
    assert 100 == len(animation(seen, ahead))
    assert strip(row("seen", [1] * 10), row("predicted", [2] * 10, predicted=True)).size == strip(seen, ahead).size
    large = Row("seen", [np.zeros((300, 400, 3), np.uint8)], [0])
    assert (200, 152) == animation(large, large)[0].size
    for empty in (Row("seen", [], []),):
        with pytest.raises(OptionError, match="expected a frame"):
            strip(empty, ahead)


def test_info_tells_of_weights_that_predict(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Kind, the frames that they are made for, and the bytes of a video."""
    assert 0 == main(["info", weights])
    said = capsys.readouterr().out
    assert all(
        text in said
        for text in ("prediction network", "16 x 16, grey", "for one video of such frames, whatever its length")
    )


def test_progress_tells_of_frames_that_are_watched_and_of_those_that_are_predicted(tmp_path: Path) -> None:
    """Both are counted one by one; on a slow clip the way ahead takes as long as the way there."""
    watched: list[int] = []
    predicted: list[int] = []
    job = ForecastJob(tmp_path / "out", steps=3)
    predictor = FramePredictor(tiny_prediction_network())
    run_forecast(
        predictor,
        clip(4, 16, 16),
        job,
        on_frame=lambda done, height, width: watched.append(done),
        on_prediction=predicted.append,
    )
    assert ([1, 2, 3, 4], [1, 2, 3]) == (watched, predicted)


def test_predict_shows_how_far_it_is_without_a_terminal(
    weights: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `track` does: whole lines, at the latest when all is predicted."""
    assert 0 == main(["predict", str(source), "-o", str(tmp_path / "out"), "--weights", weights, "--steps", "3"])
    assert "predict 3/3 frames" in capsys.readouterr().err
