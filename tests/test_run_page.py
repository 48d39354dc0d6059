"""The page of a run holds all of it, fetches nothing, and says what was run and where it fails."""

import html.parser
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs import digits
from experiments import make_task
from experiments.report import origin, run_page, shown
from experiments.report.mistakes import Baseline, Examined, Mistake, examine
from perceiver_jax import plots
from perceiver_jax.train.workdir import as_json

NO_SOURCE = {"data": {"source_options": {}}}


class Reader(html.parser.HTMLParser):
    """Checks that a page is well formed and needs nothing else."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.media, self.text = [], set(), [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if "href" in found:
            self.links.append(found["href"])
        if "src" in found:
            assert found["src"].startswith("data:"), found["src"][:60]
            assert found.get("alt") or found.get("aria-label"), tag
            self.media.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert {link for link in reader.links if link[1:] not in reader.ids} == set()
    assert "://" not in re.sub(r'data:[^"]*', "", text)
    return reader


def config(**fields):
    found = digits.get_config()
    found.update_from_flattened_dict(fields)
    return as_json(found)


def logits(*values):
    return np.array(values, np.float32)


def document(path, **fields):
    """A page with a figure of each kind, and of files that need not exist."""
    grey = np.zeros((4, 4, 1), np.uint8)
    worst = [Mistake(3.2, {"image": grey, "label": np.int32(0)}, logits(0, 2))]
    bars = Figure()
    bars.add_subplot().bar([0, 1], [1, 2])
    photograph = plots.prediction_grid(grey[None], logits(0, 1)[None], np.array([1]), None)
    figures = {
        "predictions": photograph,
        "attention_mass": bars,
        "clips": plots.Clip(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(4), 1.0, 4),
        "filled": [{"example": 0, "hidden": "a<b>", "loss": 0.25}],
    }
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    records = [{"step": s, "kind": "train", "loss": 1 / s, "l2_grads": 1.0} for s in (1, 2, 3)]
    records.append({"step": 3, "kind": "eval", "loss": 0.5, "accuracy": 0.75})
    baselines = {"accuracy": [Baseline(0.5, "always the commonest class, 1")]}
    return run_page.make(
        config(steps=7, **fields),
        workdir="runs/two words",
        records=records,
        result=None,
        figures=figures,
        files=dict.fromkeys(figures, path),
        examined=Examined(9, worst, baselines),
        names=("cat", "dog"),
        description=("a line of the task",),
    )


def test_a_page_holds_everything(tmp_path):
    text = document(tmp_path / "clip.mp4")
    reader = read(text)
    assert reader.media.count("video") == 1
    assert reader.media.count("img") == 3 + 2 + 1  # curves, figures, a mistake
    said = " ".join(reader.text)
    command = ["python -m experiments.run", "--config=configs/digits.py",
               "'--workdir=runs/two words'", "--config.steps=7"]  # fmt: skip
    assert " \\\n    ".join(command) in said
    for words in ("2000", "a<b>", "Not finished; step 3.", "0.5  always the commonest class, dog",
                  "guess dog 88%", "truth cat", "loss 3.2", "Evaluation: 0.5 at step 3",
                  "The share of each latent's attention", "a line of the task"):  # fmt: skip
        assert words in said, words
    assert text.count('class="plot"') == 4, "photographs are not inverted on a dark page"


def test_the_origin_of_a_config():
    changed = config(**{"model.encoder.num_latents": 5, "data.mean": (1.0,)})
    changed["model"]["input"]["permutation_seed"] = 0
    found = origin.find(changed)
    assert found.file == "configs/digits.py:permuted"
    assert [x.field for x in found.differences] == ["data.mean", "model.encoder.num_latents"]
    settings = found.command("x").split(" \\\n    ")[3:]
    assert settings == ["'--config.data.mean=(1.0,)'", "--config.model.encoder.num_latents=5"]
    tiny = as_json(digits.get_config("mnist:tiny"))
    assert origin.find(tiny) == ("configs/digits.py:mnist:tiny", [])
    assert origin.find({"experiment": "image", "steps": 3, "mine": list(range(9))}) is None


def test_the_worst_examples_and_what_needs_no_model():
    options = {"eval_batch_size": 100, "train_split": ""}
    made = digits.get_config("tiny")
    made.data.update(options)
    task = make_task(made)
    prepared = task.prepare(task.example, None)
    shapes = jax.eval_shape(lambda b: task.model.init(jax.random.key(0), b, train=False), prepared)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    found = examine(task, variables, most=150, keep=3)
    assert found.count == 200  # whole batches
    batches = task.eval_data()
    batch = jax.tree.map(lambda *x: np.concatenate(x), next(batches), next(batches))
    logits = task.model.apply(variables, task.prepare(batch, None), train=False)
    losses = np.asarray(task.loss(logits, task.prepare(batch, None)))
    order = np.argsort(-losses)[:3]
    np.testing.assert_allclose([m.loss for m in found.worst], losses[order], rtol=1e-4)
    np.testing.assert_array_equal(found.worst[0].example["image"], batch["image"][order[0]])
    counts = np.bincount(batch["label"])
    chance, commonest = found.baselines["accuracy"]
    assert chance == (0.1, "chance, 10 classes")
    assert commonest == (counts.max() / 200, f"always the commonest class, {counts.argmax()}")
    np.testing.assert_allclose(found.baselines["loss"][0].value, np.log(10), rtol=1e-5)


def clip(**fields):
    return {"video": np.zeros((3, 4, 4, 3), np.uint8), "audio": np.zeros(30, np.float32), **fields}


def text_example():
    hidden = np.zeros(8, bool)
    hidden[2:4] = True
    answer = np.zeros((8, 262), np.float32)
    answer[:, 6 + ord("x")] = 1
    return {"text": np.frombuffer(b"ab cd ef", np.uint8), "hidden": hidden}, answer


FIELD = np.ones((4, 6, 2), np.float32)
PAIR = {"frames": np.zeros((2, 4, 6, 3), np.uint8), "valid": np.ones((4, 6), bool)}


@pytest.mark.parametrize(
    "given, prediction, media, words",
    [
        (PAIR | {"label": np.int32(1)}, logits(1, 0), ["img"] * 2, "guess a 73%; truth b; loss 1"),
        (PAIR | {"field": FIELD}, 0 * FIELD, ["img"] * 3, "mean error 1.41 px; loss 1"),
        (PAIR | {"field": FIELD[..., :1], "size": np.array([3, 4])}, FIELD[..., :1], ["img"] * 3,
         "mean error 0 px; loss 1"),
        (*text_example(), [], "text ab__d ef; guess xx; truth  c; loss 1"),
        ({"text": np.frombuffer(b"a pen", np.uint8), "label": np.int32(1)}, logits(1, 0), [],
         "text a pen; guess a 73%; truth b; loss 1"),
        (clip(label=np.int32(0)),
         {"video": np.zeros((3, 4, 4, 3)), "audio": np.zeros(30), "label": logits(0, 1)},
         ["img"] * 2 + ["audio"] * 2, "guess b 73%; truth a; loss 1"),
        (clip(labels=np.array([0, 1])), logits(2, 1), ["img", "audio"], "guess a, b; truth b"),
        ({"points": np.eye(3), "label": np.int32(1)}, logits(1, 0), ["img"], "guess a 73%"),
        ({"named": np.array([1, 0, -1])}, np.eye(3)[[1, 2, 0]], [], "1 of 2 entities right"),
    ],
)  # fmt: skip
def test_examples_of_every_modality_are_shown(given, prediction, media, words):
    text = shown.example(Mistake(1.0, given, prediction), ("a", "b"), NO_SOURCE)
    reader = read(text)
    assert reader.media == media
    assert words in "; ".join(reader.text)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_the_page_without_sideways_scrolling(tmp_path):
    """At a telephone's width; a click on a column's head sorts."""
    probe = (
        "<script>addEventListener('load', () => {"
        "document.querySelector('th button').click();"
        "document.title = [document.documentElement.scrollWidth <= innerWidth,"
        "[...document.images].every(i => i.complete && i.naturalWidth > 0),"
        "document.querySelector('tbody td').textContent].join('|') })</script></body>"
    )
    page = tmp_path / "index.html"
    page.write_text(document(tmp_path / "clip.mp4").replace("</body>", probe))
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=390,844",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{page}",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert re.search(r"<title>(.*)</title>", done.stdout)[1] == "true|true|accuracy"
