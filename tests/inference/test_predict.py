"""The predict command, from files to files, without any download."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from small_models import model, tiny

from experiments import predict
from perceiver_jax import files, inference, plots, pretrained

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command with a model's tiny sizes; random weights unless `source` holds some."""

    def run(name, output, *args, source=None):
        command = [
            *("predict", f"--model={source or name}", f"--output={output}"),
            f"--config={ROOT}/configs/released/sizes.py:{name}:tiny",
            *(() if source else ("--random_weights", "--seed=1")),
            *args,
        ]
        monkeypatch.setattr(sys, "argv", command)
        with flagsaver.flagsaver():
            flags.FLAGS(command)
            predict.main(command[:1])
        return capsys.readouterr()

    return run


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_images(run, tmp_path):
    path = str(tmp_path / "a.png")
    files.write_image(path, pixels(40, 50))
    names = tmp_path / "names.txt"
    names.write_text("".join(f"kind {i}\n" for i in range(1000)))
    done = run(
        "imagenet_fourier", tmp_path / "out", f"--input={path}", f"--labels={names}", "--top=2"
    )
    net = inference.random_weights(tiny("imagenet_fourier"), seed=1)
    expected = inference.classify(*net, [pixels(40, 50)], k=2)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())[path]
    assert [r["class"] for r in records] == expected.classes[0].tolist()
    assert [r["name"] for r in records] == [f"kind {c}" for c in expected.classes[0]]
    assert f"kind {records[0]['class']}" in done.out
    assert "1/1 images" in done.err


def test_text(run, tmp_path):
    done = run("language", tmp_path / "out", "--input=Hello, [MASK*5].")
    net = inference.random_weights(tiny("language"), seed=1)
    expected = inference.fill_masks(*net, "Hello, [MASK*5].").text
    assert (tmp_path / "out" / "filled.txt").read_text(encoding="utf-8") == expected + "\n"
    assert expected in done.out


def test_flow_with_weights_from_a_folder(run, tmp_path):
    """At a size of its own (`--config.height`), with the weights of a Hugging Face folder."""
    net = model("flow", height=24)
    source = pretrained.save_huggingface(tiny("flow", height=24), net[1], tmp_path / "weights")
    first, second = pixels(30, 60), pixels(30, 60)[::-1]
    for name, image in (("a", first), ("b", np.ascontiguousarray(second))):
        files.write_image(tmp_path / f"{name}.png", image)
    args = [f"--input={tmp_path / name}.png" for name in "ab"]
    settings = ["--config.height=24", "--min_overlap=8"]
    done = run("flow", tmp_path / "out", *args, *settings, source=source)
    expected = inference.optical_flow(*net, first, second, min_overlap=8)
    result = files.read_flo(tmp_path / "out" / "flow.flo")
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())
    picture = files.read_image(tmp_path / "out" / "flow.png")
    np.testing.assert_array_equal(picture, plots.flow_colours(result))
    assert "4/4 tiles" in done.err


def test_video_and_sound(run, tmp_path):
    (tmp_path / "clip").mkdir()
    video = pixels(9, 32, 32)
    for i, frame in enumerate(video):
        files.write_image(tmp_path / "clip" / f"{i}.png", frame)
    sound = np.random.default_rng(0).uniform(-1, 1, 600)
    files.write_wav(tmp_path / "a.wav", sound, 1600)
    args = [f"--input={tmp_path / name}" for name in ("clip", "a.wav")]
    done = run("kinetics", tmp_path / "out", *args, "--max_clips=0", "--chunk_size=4000")
    net = inference.random_weights(tiny("kinetics"), seed=1)
    given, _ = files.read_wav(tmp_path / "a.wav")
    expected = inference.autoencode(*net, video[:8], given[:512])
    audio, rate = files.read_wav(tmp_path / "out" / "audio.wav")
    np.testing.assert_allclose(audio, expected.audio, atol=1e-3)
    assert rate == 1600
    assert (tmp_path / "out" / "video.gif").read_bytes().startswith(b"GIF89a")
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [[r["class"] for r in clip] for clip in records] == expected.labels.classes.tolist()
    assert len(records) == 2
    assert "8/8 chunks" in done.err


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("flow", ["--input=a.png"], "optical flow needs two images"),
        ("imagenet_conv", ["--input=missing.png"], "missing.png does not exist"),
        (
            "flow",
            ["--input=a.png", "--model=kinetics"],
            "--model=kinetics, but --config is of flow",
        ),
    ],
)
def test_errors_are_one_line(run, name, args, message, tmp_path):
    with pytest.raises(SystemExit, match=f"^ValueError: .*{re.escape(message)}.*$"):
        run(name, tmp_path, *args)


def test_a_misspelt_size_is_named(run, tmp_path):
    with pytest.raises(AttributeError, match='Did you mean "height"'):
        run("flow", tmp_path, "--input=a.png", "--config.heigth=3")


def test_help_tells_how():
    command = [sys.executable, "-m", "experiments.predict", "--help"]
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert "--model=flow --input=first.png --input=second.png" in done.stdout
    assert "--[no]native_size" in done.stdout
