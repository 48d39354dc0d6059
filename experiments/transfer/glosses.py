"""WordNet's glosses: masked pretraining against none, and two tasks in one model or in two.

`glosses`: `configs/wordnet.py:words` and `:pretrain` once each, on the texts of all glosses. Then
1 %, 10 % and 100 % of the nouns' training glosses, other ones for each seed, train
`configs/wordnet.py:nouns` for the same number of steps from the weights of the first (`masked
words`), of the second (`masked bytes`), and from none (`scratch`). Beside them stand logistic
regression of the numbers of bytes (`bytes`) and of TF-IDF of words (`tfidf`), both of scikit-learn
on the same glosses, and the class that is most frequent (`majority`).

`tasks`: from the weights of `words`, nouns and verbs with a model each (`two models`) and with one
model and two queries (`one model`), which sees half as many examples of each.

All are evaluated on the same test glosses.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from configs import wordnet
from experiments.transfer.table import Curve, Row, keep, run
from perceiver_jax.datasets.wordnet import Subjects
from perceiver_jax.train.workdir import git_commit

STEPS = {0.01: 200, 0.1: 400, 1.0: 1000}  # by the share of the labels
# By method, the variant of `configs/wordnet.py` that pretrains it.
METHODS = {"scratch": "", "masked words": "words", "masked bytes": "pretrain"}
BASELINES: Mapping[str, Callable[[], Pipeline]] = {
    "tfidf": lambda: make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000)
    ),
    "bytes": lambda: make_pipeline(
        CountVectorizer(analyzer="char", lowercase=False, dtype=np.float32),
        StandardScaler(with_mean=False),
        LogisticRegression(max_iter=1000),
    ),
    "majority": lambda: make_pipeline(DummyClassifier()),
}
CURVE = Curve(
    column="share",
    title="share of the labels",
    ticks={share: f"{share:.0%}" for share in STEPS},
    styles={
        "masked words": "C0o-",
        "masked bytes": "C4D-",
        "scratch": "C1s-",
        "tfidf": "C2^--",
        "bytes": "C3v--",
        "majority": "k:",
    },
)


def pretrained(variant: str, workdir: pathlib.Path, data_dir: str, *, tiny: bool) -> str:
    """Trains a masked model, one for all seeds, unless it is there, and returns its folder."""
    config = wordnet.get_config(f"{variant}:tiny" if tiny else variant)
    config.data.data_dir = data_dir
    run(config, workdir / variant)
    return str(workdir / variant)


def tuning(
    variant: str, steps: int, seed: int, weights: str, data_dir: str, *, tiny: bool
) -> ConfigDict:
    """The config of a run of `configs/wordnet.py`, evaluated on the test glosses at its end."""
    config = wordnet.get_config(f"{variant}:tiny" if tiny else variant)
    config.seed, config.data.data_dir = seed, data_dir
    config.data.eval_split, config.eval_every = "test", 0
    if not tiny:
        config.steps = config.checkpoint_every = steps
        config.optimizer.schedule.warmup_steps = steps // 10
    if weights:
        config.start.weights, config.start.fresh = weights, ("^output/",)
    return config


def rows_of(
    workdir: pathlib.Path, data_dir: str, seeds: Sequence[int], *, tiny: bool = False
) -> Iterator[Row]:
    """Trains what is not there yet, and yields a row for each method, share and seed."""
    weights = {
        variant: pretrained(variant, workdir, data_dir, tiny=tiny) if variant else ""
        for variant in METHODS.values()
    }
    test = Subjects("test", data_dir)
    for seed in seeds:
        for share, steps in STEPS.items():
            draw = {"share": share, "draw": seed if share < 1 else 0}
            train = Subjects("train", data_dir, **draw)
            row = {"share": share, "labels": len(train), "seed": seed}
            for method, build in BASELINES.items():
                path = workdir / f"{method}_{share:g}_{draw['draw']}.json"
                result = keep(path, functools.partial(fit, build(), train, test))
                yield {"method": method, **row, "steps": "", **result}
            for method, variant in METHODS.items():
                config = tuning("nouns", steps, seed, weights[variant], data_dir, tiny=tiny)
                config.data.train_source_options = draw
                result = run(config, workdir / f"{variant or method}_{share:g}_{seed}")
                names = ("accuracy", "seconds", "commit")
                row |= {"steps": config.steps} | {name: result[name] for name in names}
                yield {"method": method, **row}


def fit(model: Pipeline, train: Subjects, test: Subjects) -> dict[str, Any]:
    """Accuracy of a model of scikit-learn; texts are read as one character a byte."""
    texts, asked = ([text.decode("latin-1") for text in data.texts] for data in (train, test))
    begin = time.perf_counter()
    model.fit(texts, train.labels)
    seconds = round(time.perf_counter() - begin, 1)
    accuracy = float(np.mean(model.predict(asked) == test.labels))
    return {"accuracy": accuracy, "seconds": seconds, "commit": git_commit()}


def tasks_of(
    workdir: pathlib.Path, data_dir: str, seeds: Sequence[int], *, tiny: bool = False
) -> Iterator[Row]:
    """Trains what is not there yet, and yields a row for each model and seed."""
    weights, steps = pretrained("words", workdir, data_dir, tiny=tiny), STEPS[1.0]
    for seed in seeds:
        for variant in ("both", "nouns", "verbs"):
            config = tuning(variant, steps, seed, weights, data_dir, tiny=tiny)
            both = variant == "both"
            if both:
                config.data.train_source_options = {"shares": {"noun": 0.5, "verb": 0.5}}
            name = "words_1" if variant == "nouns" else variant  # as of `rows_of`
            result = run(config, workdir / f"{name}_{seed}")
            found = {s: result[f"{s}_accuracy"] for s in ("noun", "verb")} if both else {
                variant.removesuffix("s"): result["accuracy"]
            }  # fmt: skip
            for task, accuracy in found.items():
                yield {
                    "method": "one model" if both else "two models",
                    "task": task,
                    "seed": seed,
                    "steps": config.steps,
                    "accuracy": accuracy,
                    **{name: result[name] for name in ("seconds", "commit")},
                }
