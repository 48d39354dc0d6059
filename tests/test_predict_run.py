"""`experiments.predict` of runs of one's own: what it writes is what their evaluation computes."""

import json
import shutil

import jax
import numpy as np
import pytest
from calling import call
from clip_files import write_clips, write_tagged_clips
from etils import epath
from image_files import write_folder, write_image
from point_files import write_princeton
from scipy.io import wavfile
from tfds_files import write_glue, write_spoken_digits, write_tfds

from configs import (
    ar,
    audioset,
    av_digits,
    bounce,
    digits,
    flow,
    folder,
    glue,
    kinetics,
    language,
    points,
    stereo,
)
from experiments import make_task
from experiments.tasks import ask, autoencode
from experiments.tasks.autoencode import hide
from perceiver_jax import files, inference
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import sequence_transforms, transforms
from perceiver_jax.datasets import registry
from perceiver_jax.inference.text import fill_masks
from perceiver_jax.modalities import text
from perceiver_jax.train import checkpoint
from perceiver_jax.train.state import TrainState, prepared_example
from perceiver_jax.train.workdir import CHECKPOINTS, CONFIG, as_json, make_ours


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """Runs the command on W/run, in which W is the test's folder, and writes to W/out."""

    def run(*args, model="W/run", output="W/out"):
        flags = [f"--model={model}", f"--output={output}", *args]
        flags = [flag.replace("W/", f"{tmp_path}/") for flag in flags]
        return call("experiments.predict", *flags, monkeypatch=monkeypatch, capsys=capsys)

    return run


def write_run(config, folder, *, ema=False):
    """A workdir with random weights, none zero: (task, variables that it evaluates)."""
    task = make_task(config)
    shapes = jax.eval_shape(
        lambda: task.model.init(jax.random.key(0), prepared_example(task), train=False)
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jax.numpy.asarray(rng.normal(0, 0.3, x.shape)), shapes)
    variables = jax.tree.map(lambda x: x.astype(np.float32), variables)
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    state = TrainState(
        step=jax.numpy.int32(2),
        params=jax.tree.map(lambda x: x + 1, params) if ema else params,
        model_state=rest,
        opt_state={"count": jax.numpy.int32(0)},
        key=jax.random.key(0),
        ema=params if ema else None,
    )
    make_ours(epath.Path(folder) / CONFIG, as_json(config))
    with checkpoint.open_manager(epath.Path(folder) / CHECKPOINTS, keep=1) as manager:
        checkpoint.save(manager, state, {})
    return task, variables


def evaluated(task, variables, batch):
    """The prediction of an evaluation for a batch as the pipeline gives it."""
    predict = task.predict or (lambda v, b: task.model.apply(v, b, train=False))
    return jax.device_get(jax.jit(lambda v, b: predict(v, task.prepare(b, None)))(variables, batch))


def close(records, chances):
    """Whether records hold the likeliest classes of probabilities."""
    best = np.argsort(-chances, kind="stable")[: len(records)]
    np.testing.assert_allclose(
        [record["probability"] for record in records], chances[best], rtol=1e-4
    )
    assert [record["class"] for record in records] == best.tolist()


def softmax(logits):
    return np.asarray(jax.nn.softmax(logits))


def sigmoid(logits):
    return np.asarray(jax.nn.sigmoid(logits))


def predictions(tmp_path):
    return json.loads((tmp_path / "out/predictions.json").read_text())


def test_images_of_a_folder(predict, tmp_path):
    """With averaged weights; in batches, of which the last is filled up; some do not fit."""
    config = digits.get_config("tiny").lock()
    task, variables = write_run(config, tmp_path / "run", ema=True)
    batch = next(task.eval_data())
    (tmp_path / "in/more").mkdir(parents=True)
    names = ["in/0.png", "in/1.png", "in/2.png", "in/10.png", "in/more/3.png"]
    for image, name in zip(batch["image"], names, strict=False):
        files.write_image(tmp_path / name, image[..., 0])
    (tmp_path / "in/bad.png").write_bytes(b"no image")
    write_image(tmp_path / "in/large.png", size=(12, 16))
    code, out, err = predict("--input=W/in", "--batch_size=2", "--top=3")
    records, chances = predictions(tmp_path), softmax(evaluated(task, variables, batch))
    assert list(records) == [f"{tmp_path}/{name}" for name in names]
    for record, own in zip(records.values(), chances, strict=False):
        close(record, own)
    assert code == 1 and f"left out: {tmp_path}/in/bad.png is no readable image" in err
    size = "large.png: image 12 x 16 x 1 where the run takes 8 x 8 x 1: config.data.eval"
    assert size in err and err.endswith("2 of 7 inputs were left out")
    assert "7/7 images" in err and f"wrote {tmp_path}/out/predictions.json" in out

    code, _, err = predict("--input=W/in/?.png", "--input=W/in/10.png")
    assert code == 0 and list(predictions(tmp_path)) == [f"{tmp_path}/{n}" for n in names[:4]]
    for wrong, said in (
        (["--input=W/in/x*.png"], f"no file matches --input={tmp_path}/in/x*.png"),
        (["--input=W/none.png"], f"{tmp_path}/none.png does not exist"),
        (["--input=W/run/checkpoints"], "is a folder without image (.png"),
        (["--input=W/in/0.png", "--input=W/in/0.png"], "0.png twice"),
        (["--input="], "--input is empty"),
        (["--input=W/in/0.png,W/in/1.png"], "is one file; --input may repeat"),
        (["--input=W/in/bad.png"], "bad.png is no readable image"),
        (["--input=W/in/bad.png", "--input=W/in/large.png"], "none of 2 inputs can be read"),
        (["--input=W/in/0.png", "--native_size", "--seed=1"], "leave out --seed and --native_size"),
        (["--input=W/in/0.png", "--labels=W/in/0.png"], "0.png is not UTF-8"),
    ):
        code, _, err = predict(*wrong)
        assert code == 1 and said in err and "Traceback" not in err, err
    code, _, err = predict("--input=W/in/0.png", output="W/in/0.png/out")
    assert code == 1 and f"{tmp_path}/in/0.png is a file, not a folder" in err


def test_a_run_without_a_checkpoint_or_of_an_older_config(predict, tmp_path):
    config = digits.get_config("tiny")
    make_ours(epath.Path(tmp_path) / "run" / CONFIG, as_json(config))
    write_image(tmp_path / "a.png", size=(8, 8))
    code, _, err = predict("--input=W/a.png")
    assert code == 1 and f"FileNotFoundError: no weights in {tmp_path}/run" in err
    with config.unlocked():
        del config.data.readers
    (tmp_path / "run" / CONFIG).unlink()
    make_ours(epath.Path(tmp_path) / "run" / CONFIG, as_json(config))
    code, _, err = predict("--input=W/a.png")
    assert code == 1 and "\n" not in err
    assert f"{tmp_path}/run/config.json is not of this version, which refuses it: " in err
    assert "config.data.readers is missing" in err
    assert not (tmp_path / "out").exists()
    (tmp_path / "run" / CONFIG).unlink()
    (tmp_path / "run" / CHECKPOINTS).mkdir()
    code, _, err = predict("--input=W/a.png")
    assert code == 1 and "run is not the workdir of a run: it has no config.json" in err


@pytest.mark.parametrize("variant", ["small", "tags"])
def test_classes_and_tags_have_the_names_of_the_run(variant, predict, tmp_path):
    write_folder(tmp_path / "pets")
    config = folder.get_config(f"{variant}:tiny")
    config.data.source, config.data.data_dir = "folder", str(tmp_path / "pets")
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    source = registry.load(
        "folder",
        "val",
        data_dir=config.data.data_dir,
        options={"lists": ("train", "val"), "multi_label": variant == "tags"},
    )
    path = source.paths[4]
    shutil.copy(tmp_path / "pets" / path, tmp_path / "a.png")
    shutil.rmtree(tmp_path / "pets")
    code, _, _ = predict("--input=W/a.png")
    (records,) = predictions(tmp_path).values()
    logits = evaluated(task, variables, batch)[4]
    close(records, (sigmoid if variant == "tags" else softmax)(logits))
    assert code == 0 and [r["name"] for r in records] == [
        ("cat", "dog", "eel")[r["class"]] for r in records
    ]


def test_pairs_of_views(predict, tmp_path):
    """Two folders whose files of one name are pairs, and `FILE,FILE`."""
    config = stereo.get_config("depth_digits:tiny").lock()
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    for side, eye in enumerate(("left", "right")):
        (tmp_path / eye).mkdir()
        for i in range(3):
            files.write_image(tmp_path / eye / f"{i}.png", batch["frames"][i, side])
    chances = softmax(evaluated(task, variables, batch))
    pairs = [f"{tmp_path}/left/{i}.png,{tmp_path}/right/{i}.png" for i in range(3)]
    for args in (["--input=W/left,W/right"], ["--input=W/left", "--input=W/right"]):
        assert predict(*args)[0] == 0
        assert list(predictions(tmp_path)) == pairs
        for record, own in zip(predictions(tmp_path).values(), chances, strict=False):
            close(record, own)
    assert predict("--input=W/left/1.png,W/right/1.png")[0] == 0
    close(predictions(tmp_path)[pairs[1]], chances[1])
    (tmp_path / "right/2.png").unlink()
    code, _, err = predict("--input=W/left,W/right")
    assert code == 1 and f"no file is named as '{tmp_path}/left/2.png'" in err
    code, _, err = predict("--input=W/left/1.png")
    assert code == 1 and "has 2, left image and right image: --input=FILE,FILE" in err


@pytest.mark.parametrize(("module", "variant"), [(stereo, "rds:tiny"), (flow, "synthetic:tiny")])
def test_flow_and_disparity(module, variant, predict, tmp_path):
    """Images larger and smaller than the model's window, as the evaluation pads and tiles them."""
    config = module.get_config(variant)
    config.data.eval = "pad_pair(20, 30) | keep('frames', 'field', 'valid', 'occluded', 'size')"
    task, variables = write_run(config, tmp_path / "run")
    line = transforms.parse(config.data.eval)
    sizes, examples = {"a": (14, 20), "b": (10, 16)}, []
    for seed, (name, size) in enumerate(sizes.items()):
        for number in (1, 2):
            write_image(tmp_path / f"{number}/{name}.png", 10 * seed + number, size)
        frames = np.stack([files.read_image(tmp_path / f"{k}/{name}.png") for k in (1, 2)])
        known = np.ones(size, bool)
        field = np.zeros((*size, task.example["field"].shape[-1]), np.float32)
        example = {"frames": frames, "field": field, "valid": known, "occluded": known}
        examples.append(line(example, None) | {"mask": np.bool_(True)})
    batch = {name: np.stack([x[name] for x in examples]) for name in examples[0]}
    expected = evaluated(task, variables, batch)
    code, _, err = predict("--input=W/1,W/2")
    assert code == 0 and "2/2 pairs" in err
    for (name, (height, width)), whole in zip(sizes.items(), expected, strict=True):
        out = tmp_path / "out" / name
        if module is flow:
            field = files.read_flo(out / "flow.flo")
        else:
            field = files.read_pfm(out / "disparity.pfm")
        own = whole[:height, :width]
        np.testing.assert_allclose(field, own, atol=1e-5 * np.abs(own).max())
        picture = out / ("flow.png" if module is flow else "disparity.png")
        assert files.read_image(picture).shape == (height, width, 3)
    (tmp_path / "2/c").mkdir()
    (tmp_path / "2/a.png").rename(tmp_path / "2/c/a.png")
    code, _, err = predict("--input=W/1/a.png,W/2/c/a.png", "--input=W/2/c/a.png,W/1/b.png")
    assert code == 1 and "a.png have one name, 'a': rename one" in err


def test_masked_texts(predict, tmp_path):
    config = language.get_config("small:tiny")
    task, variables = write_run(config, tmp_path / "run")
    texts = ["def [MASK*4](self)", "import [MASK]s", "[MASK*9]"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text(texts[1] + "\n")
    args = [f"--input={texts[0]}", "--input=W/in", f"--input={texts[2]}", "--input=no marker"]
    code, _, err = predict(*args, "--batch_size=2")
    lines = (tmp_path / "out/filled.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [fill_masks(task.model, variables, x).text for x in texts]
    assert code == 1 and "left out: no marker: nothing to fill in: write [MASK]" in err


def test_texts_go_on(predict, tmp_path):
    """As `generate` writes them; in batches, several times each, with an end."""
    config = ar.get_config("copy:tiny").lock()
    _, variables = write_run(config, tmp_path / "run")
    model = build(config.model.to_dict())
    (tmp_path / "long.txt").write_text("abcdefgh" * 5)
    flags = ("--length=6", "--samples=2", "--batch_size=3", "--seed=7", "--top_k=9")
    code, out, err = predict("--input=wörd", "--input=W/long.txt", *flags)
    assert code == 0 and "a prompt has 41 ids; its first 9 are not read" in err
    records = predictions(tmp_path)
    assert list(records) == ["wörd", f"{tmp_path}/long.txt"]
    prompt = np.concatenate(
        [[sequence_transforms.SOS], sequence_transforms.encode("wörd".encode())]
    )
    allowed = np.arange(259) >= 1
    allowed[2] = False
    made = inference.generate(
        model,
        variables,
        [prompt] * 2,
        length=6,
        sampling=inference.Sampling(top_k=9),
        seed=7,
        allowed=allowed,
        end=1,
    )
    texts = [sequence_transforms.decode(ids).decode(errors="replace") for ids in made.ids]
    assert records["wörd"] == texts and texts[0] != texts[1]
    assert f"wörd{texts[0]}" in out and out.splitlines()[-3].endswith("ids a second, exact")
    assert (tmp_path / "out/attention.png").is_file()
    code, out, _ = predict("--input=", "--length=1", "--temperature=0", "--fast")
    assert code == 0 and "ids a second, fast" in out  # from the start alone
    code, _, err = predict("--input=a", "--keep=0.5")
    assert code == 1 and err.endswith("this model writes texts: leave out --keep")


def test_images_are_completed(predict, tmp_path):
    config = ar.get_config("digits:tiny").lock()
    task, variables = write_run(config, tmp_path / "run")
    image = registry.load("digits", "test")[0]["image"]
    files.write_image(tmp_path / "digit.png", image[..., 0])
    code, out, _ = predict("--input=W/digit.png", "--keep=0.75", "--samples=2")
    first, second = (files.read_image(tmp_path / f"out/completed_{i}.png")[..., :1] for i in (1, 2))
    np.testing.assert_array_equal(first[:6], image[:6])
    assert first.shape == (8, 8, 1) and not np.array_equal(first[6:], second[6:])
    assert code == 0 and "completions.png" in out and "attention.png" in out
    code, _, err = predict("--input=W/digit.png", "--length=3")
    assert code == 1 and err.endswith("this model completes images: leave out --length")
    figures = task.plots(variables, 1)
    assert len(figures["attention_cross_attend"].axes) == 8 and len(figures["next"]) == 1


def test_clips_are_autoencoded(predict, tmp_path):
    config = bounce.get_config("tiny").lock()
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    for i in range(2):
        (tmp_path / f"{i}").mkdir()
        for number, frame in enumerate(batch["video"][i]):
            files.write_image(tmp_path / f"{i}/{number}.png", frame)
        wavfile.write(tmp_path / f"{i}.wav", 3200, batch["audio"][i])
    expected = evaluated(task, variables, batch)
    code, _, _ = predict("--input=W/0,W/0.wav", "--input=W/1,W/1.wav")
    assert code == 0
    for i in range(2):
        sound, rate = files.read_wav(tmp_path / f"out/{i}/audio.wav")
        heard = np.clip(expected["audio"][i], -1, 1)
        np.testing.assert_allclose(sound, heard, atol=1e-4)
        assert rate == 3200 and (tmp_path / f"out/{i}/clip.mp4").exists()
        (records,) = json.loads((tmp_path / f"out/{i}/predictions.json").read_text())
        close(records, softmax(expected["label"][i]))
        assert len(records) == 4
    code, _, err = predict("--input=W/0")
    assert code == 0 and f"{tmp_path}/0 has no sound: silence" in err
    model = hide(config.model.to_dict(), ("label",))
    silent = inference.autoencode(model, variables, batch["video"][0], np.zeros(1280, np.float32))
    heard, _ = files.read_wav(tmp_path / "out/audio.wav")
    np.testing.assert_allclose(heard, silent.audio, atol=1e-4)


def test_tags_of_videos_are_the_mean_over_clips(predict, tmp_path):
    write_tagged_clips(tmp_path / "data", damaged=[1])
    config = audioset.get_config("raw:tiny")
    config.data.data_dir = str(tmp_path / "data")
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    (tmp_path / "videos").mkdir()
    for i in range(3):
        shutil.copy(tmp_path / f"data/{i}.mp4", tmp_path / "videos")
    code, _, err = predict("--input=W/videos")
    chances = sigmoid(evaluated(task, variables, batch)).reshape(4, 2, -1).mean(axis=1)
    records = predictions(tmp_path)
    assert list(records) == [f"{tmp_path}/videos/{i}.mp4" for i in (0, 2)]
    close(records[f"{tmp_path}/videos/0.mp4"], chances[0])
    close(records[f"{tmp_path}/videos/2.mp4"], chances[2])
    assert records[f"{tmp_path}/videos/2.mp4"][0]["name"].startswith(("class ", *"abcd"))
    assert code == 1 and "1.mp4 is damaged, or no video file" in err


def test_an_image_and_a_sound(predict, tmp_path):
    rng = np.random.default_rng(0)
    mnist = [(rng.integers(0, 256, (28, 28, 1), np.uint8), "PNG", i % 10) for i in range(12)]
    write_tfds(tmp_path / "tfds", "mnist", "3.0.1", {"train": mnist, "test": mnist})
    write_spoken_digits(tmp_path / "tfds")
    config = av_digits.get_config("tiny")
    config.data.data_dir = str(tmp_path / "tfds")
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    shutil.rmtree(tmp_path / "tfds")
    for i in range(3):
        files.write_image(tmp_path / f"{i}.png", batch["image"][i, ..., 0])
        wavfile.write(tmp_path / f"{i}.wav", 8000, batch["audio"][i])
    code, _, err = predict("--input=W/*.png,W/*.wav")
    assert code == 0, err
    chances = softmax(evaluated(task, variables, batch))
    for record, own in zip(predictions(tmp_path).values(), chances, strict=False):
        close(record, own)
    wavfile.write(tmp_path / "long.wav", 16000, np.zeros(16000 * 2, np.float32))
    assert predict("--input=W/0.png,W/long.wav")[0] == 0
    code, _, err = predict("--input=W/0.png,W/1.png")
    assert code == 1 and "1.png is no readable WAV file" in err


@pytest.mark.parametrize("variant", ["stsb", "multitask"])
def test_questions_about_texts(variant, predict, tmp_path):
    write_glue(tmp_path / "tfds", glue.QUESTIONS)
    config = glue.get_config(f"{variant}:tiny")
    config.data.data_dir = str(tmp_path / "tfds")
    task, variables = write_run(config, tmp_path / "run")
    batches = task.eval_data()
    while True:  # of all questions some are about one text
        batch = next(batches)
        ids = np.asarray(task.prepare(batch, None)["text"])[1]
        ends = np.flatnonzero(ids == text.SEP)
        if len(ends) == 2:
            break
    batches.close()
    pair = " [SEP] ".join(text.decode(part) for part in np.split(ids, ends)[:2])
    args = [f"--input={pair}"] + ["--input=one text"] * (variant != "multitask")
    code, _, err = predict(*args)
    assert code == (variant != "multitask"), err
    if code:
        assert "is about 2 texts, not 1: write --input='A[SEP]B'" in err
    (answers,) = predictions(tmp_path).values()
    logits = evaluated(task, variables, batch)[1, 0]
    if variant == "stsb":
        np.testing.assert_allclose(answers["stsb"]["number"], 5 * logits[0], rtol=1e-4)
    else:
        pairs = ["mnli", "mrpc", "qnli", "qqp", "rte", "stsb"]
        assert sorted(answers) == pairs and "number" in answers["stsb"]
        assert answers["rte"][0]["name"] in glue.QUESTIONS["rte"].classes
        question = sorted(config.text_tasks.classes)[batch["task"][1]]
        if question != "stsb":
            close(answers[question], softmax(logits)[: len(answers[question])])


def test_meshes_and_clouds(predict, tmp_path):
    write_princeton(tmp_path / "shapes")
    config = points.get_config("furniture:tiny")
    config.data.data_dir, config.data.in_memory = str(tmp_path / "shapes"), False
    task, variables = write_run(config, tmp_path / "run")
    batch = next(task.eval_data())
    shutil.copy(tmp_path / "shapes/bathtub/test/bathtub_0000.off", tmp_path / "a.off")
    np.save(tmp_path / "b.npy", batch["points"][3])
    np.save(tmp_path / "c.npy", np.zeros(3))
    shutil.rmtree(tmp_path / "shapes")
    code, _, err = predict("--input=W/?.off", "--input=W/?.npy")
    first, second = predictions(tmp_path).values()
    chances = softmax(evaluated(task, variables, batch))
    close(first, chances[0])
    close(second, chances[3])
    assert first[0]["name"] in ("bathtub", "night_stand")
    assert code == 1 and "c.npy is float64 [3], not points [n, 3]" in err


def test_a_video_is_read_as_the_source_of_a_run_reads_it(tmp_path):
    """Kinetics: the first clips of a file, with its sound."""
    write_clips(tmp_path, count=1)
    config = kinetics.get_config("tiny")
    config.data.data_dir = str(tmp_path)
    asked = autoencode.ask(config)
    video, audio = asked.read([str(tmp_path / "0.mp4")], 2)
    assert len(video) == 8 and len(audio) == 2 * 256 and asked.names[0] == "kind 0"
    options = config.data.source_options.to_dict()
    example = registry.load("clips", "validate", data_dir=str(tmp_path), options=options)[0]
    expected = transforms.parse(config.data.eval)(example, None)
    np.testing.assert_array_equal(video[:4], expected["video"])
    np.testing.assert_allclose(audio[:256], expected["audio"], atol=1e-6)
    with pytest.raises(ValueError, match=r"none\.mp4 does not exist"):
        asked.read([str(tmp_path / "none.mp4")], 1)


def test_a_source_of_one_s_own_does_not_say_how_clips_are_made():
    config = bounce.get_config("tiny")
    config.data.source = "mine:load"
    with pytest.raises(ConfigError, match=r"config.data.source='mine:load' does not say how"):
        ask.clip_reading(config)
