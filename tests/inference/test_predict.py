"""The predict command, from files to files, without any download."""

import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import golden_models
import numpy as np
import pytest
from absl import flags
from clip_files import write_clip
from safetensors import numpy
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
        values = flags.FlagValues()
        values.append_flag_values(flags.FLAGS)  # those of libraries
        predict.define_flags(values)
        with monkeypatch.context() as patch:
            patch.setattr(flags, "FLAGS", values)
            patch.setattr(sys, "argv", command)
            values(command)
            predict.main(command[:1])
        return capsys.readouterr()

    return run


@pytest.fixture
def refusal(run, capsys):
    """Runs the command, which must end with exit code 1, and returns what it said."""

    def run_to_end(*args, **options):
        with pytest.raises(SystemExit) as stopped:
            run(*args, **options)
        assert stopped.value.code == 1
        return capsys.readouterr().err.removesuffix("\n")

    return run_to_end


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
    shown, sound = files.read_video(
        tmp_path / "out" / "clip.mp4", 32, frames_per_second=25, samples_per_second=1600
    )
    assert shown.shape == expected.video.shape
    assert np.abs(shown.mean((1, 2)) - expected.video.mean((1, 2))).max() < 5
    assert len(sound) == 512
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [[r["class"] for r in clip] for clip in records] == expected.labels.classes.tolist()
    assert len(records) == 2
    assert "8/8 chunks" in done.err


def test_sound_is_read_from_the_video(run, tmp_path):
    write_clip(tmp_path / "a.mp4", 40)
    done = run("kinetics", tmp_path / "out", f"--input={tmp_path / 'a.mp4'}", "--chunk_size=4000")
    video, audio = files.read_video(
        tmp_path / "a.mp4", 32, frames_per_second=25, samples_per_second=1600
    )
    assert np.abs(audio[:256]).max() > 0.1  # the tone
    net = inference.random_weights(tiny("kinetics"), seed=1)
    expected = inference.autoencode(*net, video[:4], audio[:256], chunk_size=4000)
    heard, _ = files.read_wav(tmp_path / "out" / "audio.wav")
    np.testing.assert_allclose(heard, expected.audio, atol=1e-3)
    assert "silence" not in done.out


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("flow", ["--input=a.png"], "an input of this model has 2, first image and second image"),
        ("imagenet_conv", ["--input=missing.png"], "missing.png does not exist"),
        (
            "flow",
            ["--input=a.png", "--model=kinetics"],
            "--model=kinetics, but --config is of flow",
        ),
    ],
)
def test_errors_are_one_line(refusal, name, args, message, tmp_path):
    assert re.fullmatch(f"ValueError: .*{re.escape(message)}.*", refusal(name, tmp_path, *args))


def weights_of(name, tmp_path):
    """A Hugging Face folder of the tiny model, and its model.safetensors."""
    folder = pretrained.save_huggingface(tiny(name), model(name)[1], tmp_path / "weights")
    return folder, folder / "model.safetensors"


def test_classes_have_the_names_that_come_with_the_weights(run, refusal, tmp_path):
    image = str(tmp_path / "a.png")
    files.write_image(image, pixels(40, 50))
    folder, _ = weights_of("imagenet_fourier", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): f"kind {i}" for i in range(1000)}
    (folder / "config.json").write_text(json.dumps(config))
    args = ("imagenet_fourier", tmp_path / "out", f"--input={image}")
    run(*args, source=folder)
    (records,) = json.loads((tmp_path / "out" / "predictions.json").read_text()).values()
    assert [r["name"] for r in records] == [f"kind {r['class']}" for r in records]
    labels = tmp_path / "labels.txt"
    labels.write_text("kind 0\n")
    said = refusal(*args, f"--labels={labels}", source=folder)
    assert "labels.txt has 1 lines, the model 1000 classes" in said
    labels.write_text("kind 0\n \n" * 500)
    said = refusal(*args, f"--labels={labels}", source=folder)
    assert "labels.txt, line 2 is blank: write one name a line" in said


def test_what_is_wrong_with_a_file_is_told(refusal, tmp_path):
    """A malicious pickle, a truncated file, one of another model, one with a key renamed."""
    _, whole = weights_of("imagenet_fourier", tmp_path)
    proof, content = tmp_path / "proof", whole.read_bytes()

    def said(source):
        return refusal("imagenet_fourier", tmp_path / "out", "--input=a.png", source=source)

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {proof}",)

    path = tmp_path / "malicious.pystate"
    path.write_bytes(pickle.dumps({"params": Malicious()}))
    assert said(path) == (
        f"RefusedError: {path} is refused and nothing of it was run: it asks for posix.system, "
        "which is neither a NumPy array nor a dict"
    )
    assert not proof.exists()

    path = tmp_path / "truncated.safetensors"
    path.write_bytes(content[: len(content) // 2])
    assert re.fullmatch(
        rf"ValueError: {path} cannot be read \(.*\): truncated or not safetensors; fetch it again",
        said(path),
    )

    path = golden_models.write_official("flow", tmp_path / "flow.pystate")
    message = said(path)
    assert message.startswith(
        f"ValueError: {path} is not 'imagenet_fourier' at this size. Its names are those of 'flow'."
    )
    assert "\n  unexpected: image_preprocessor/patches_linear/b (64,)" in message

    tensors = numpy.load(content)
    tensors["perceiver.embeddings.latent"] = tensors.pop("perceiver.embeddings.latents")
    path = tmp_path / "renamed.safetensors"
    numpy.save_file(tensors, path)
    assert said(path).startswith(
        f"ValueError: {path} is not 'imagenet_fourier' at this size.\n"
        "  missing: perceiver.embeddings.latents (8, 32)\n"
        "  unexpected: perceiver.embeddings.latent (8, 32)\n"
    )


def test_an_ascii_terminal_does_not_lose_the_result(tmp_path):
    """Results are written first; what the terminal cannot show is printed as escapes."""
    command = [
        *(sys.executable, "-m", "experiments.predict", "--model=language", "--random_weights"),
        *("--config=configs/released/sizes.py:language:tiny", f"--output={tmp_path / 'out'}"),
        "--input=Zoë über 中文 [MASK*2]",
    ]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Zo\\xeb \\xfcber \\u4e2d\\u6587" in done.stdout
    assert "Zoë über 中文" in (tmp_path / "out" / "filled.txt").read_text(encoding="utf-8")


def test_a_result_is_on_disk_before_anything_is_printed(run, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise UnicodeEncodeError("ascii", "ë", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr("builtins.print", fail)
    monkeypatch.setattr(predict, "bar", lambda unit: lambda done, total: None)
    with pytest.raises(UnicodeEncodeError):  # of the message about the error
        run("language", tmp_path / "out", "--input=Hello, [MASK*5].")
    assert (tmp_path / "out" / "filled.txt").exists()


@pytest.mark.parametrize("marker", ["[MASK*0]", "[MASK*9999999999999]"])
def test_a_marker_out_of_range_is_one_line(refusal, marker, tmp_path):
    said = refusal("language", tmp_path, f"--input=a{marker}")
    assert re.fullmatch(rf"ValueError: {re.escape(marker)} must hide .* 128", said.splitlines()[-1])


def test_home_is_expanded_in_paths(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("\ufeffHello, [MASK*5].\n", encoding="utf-8")
    run("language", "~/out", "--input=~/a.txt")
    assert (tmp_path / "out" / "filled.txt").read_text(encoding="utf-8").startswith("Hello, ")


def test_a_misspelt_size_is_named(run, tmp_path):
    with pytest.raises(AttributeError, match='Did you mean "height"'):
        run("flow", tmp_path, "--input=a.png", "--config.heigth=3")


def test_help_tells_how():
    command = [sys.executable, "-m", "experiments.predict", "--help"]
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert "--model=runs/rds --input=left.png,right.png" in done.stdout
    assert "--[no]native_size" in done.stdout
