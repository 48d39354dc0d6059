"""Draws what a run has learned, from its workdir alone.

    python -m experiments.plot --workdir=runs/digits

Writes to <workdir>/plots, as far as the experiment has them:

    training.png       every logged metric over the steps
    predictions.png    evaluation examples with predictions
    attention_*.png    where the latents look, over the input image; one file per cross-attend
    reconstructions.png, clips.mp4    clips above what the model made of them, with its sound
    probabilities.png  labels guessed from all modalities and from each alone
    psychometric.png   of stereograms: error against interocular correlation, and controls; also
                       psychometric_table.csv
"""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from absl import app, flags, logging

from configs import common
from experiments import make_task
from perceiver_jax import plots
from perceiver_jax.files import media
from perceiver_jax.train import checkpoint
from perceiver_jax.train.log import read_metrics, warn
from perceiver_jax.train.start import build
from perceiver_jax.train.workdir import METRICS, load_config

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
EXAMPLES = flags.DEFINE_integer("examples", 24, "How many predictions to draw.", lower_bound=1)


def draw(workdir: str | pathlib.Path, *, num_examples: int) -> list[pathlib.Path]:
    """Writes the pictures of a run and returns their paths.

    Raises:
      FileNotFoundError: `workdir` is not a run's, or holds no checkpoint.
    """
    workdir = pathlib.Path(workdir)
    config = load_config(workdir)
    config.parallel = common.parallel()  # one device draws, whatever has trained
    task = make_task(config)
    target = build(task, config, jax.devices()[:1]).target
    weights, _ = checkpoint.restore_weights(workdir, target, warn=warn)
    variables = {"params": weights["params"], **weights["model_state"]}
    records = read_metrics(workdir / METRICS)
    figures = {"training": plots.training_curves(records)} if records else {}
    figures |= task.plots(variables, num_examples)
    return write(workdir / "plots", figures)


def write(folder: pathlib.Path, figures: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes figures as PNG and tables, lists of dicts, as CSV; returns the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        if isinstance(figure, plots.Clip):
            paths.append(folder / f"{name}.mp4")
            media.write_mp4(paths[-1], **figure._asdict())
        elif isinstance(figure, list):
            paths.append(folder / f"{name}.csv")
            with paths[-1].open("w", newline="") as file:
                table = csv.DictWriter(file, figure[0])
                table.writeheader()
                table.writerows(figure)
        else:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=150)
    return paths


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    for path in draw(WORKDIR.value, num_examples=EXAMPLES.value):
        print(path)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
