"""Draws what a run has learned. It needs the workdir, and the data of the evaluation.

    python -m experiments.plot --workdir=runs/digits      # or gs://bucket/run

Which pictures it writes to <workdir>/plots depends on the experiment:

    training.png       every logged metric over the steps
    predictions.png    evaluation examples with predictions
    attention_*.png    attention of the latents, over the input image; one file per cross-attend
    reconstructions.png, clips.mp4    clips above their reconstructions, with sound; also from the
                       video alone and from the sound alone
    probabilities.png  labels predicted from all modalities and from each alone
    attention_mass.png share of the latents' attention for each modality; also
                       attention_mass_table.csv
    psychometric.png   stereograms: error against interocular correlation, and controls; also
                       psychometric_table.csv
"""

import csv
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags, logging
from etils import epath

from configs import common
from experiments import command, make_task
from perceiver_jax import plots
from perceiver_jax.files import video
from perceiver_jax.train import checkpoint, compilation
from perceiver_jax.train.log import read_metrics, warn
from perceiver_jax.train.start import build
from perceiver_jax.train.workdir import METRICS, load_config


def draw(workdir: str | os.PathLike[str], *, num_examples: int) -> list[epath.Path]:
    """Writes the pictures of a run and returns their paths.

    Raises:
      FileNotFoundError: `workdir` is not a run's, or holds no checkpoint.
    """
    workdir = epath.Path(workdir).expanduser()
    config = load_config(workdir)
    config.parallel = common.parallel()  # plots are computed on one device
    task = make_task(config)
    target = build(task, config, jax.devices()[:1]).target
    weights, _ = checkpoint.restore_weights(workdir, target, warn=warn)
    variables = {"params": weights["params"], **weights["model_state"]}
    records = read_metrics(workdir / METRICS)
    figures = {"training": plots.training_curves(records)} if records else {}
    figures |= task.plots(variables, num_examples)
    return write(workdir / "plots", figures)


def write(folder: epath.Path, figures: Mapping[str, Any]) -> list[epath.Path]:
    """Writes figures as PNG, clips as mp4 and tables, lists of dicts, as CSV; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tempfile.TemporaryDirectory() as directory:  # libraries write to local disks only
        for name, figure in figures.items():
            file = write_local(pathlib.Path(directory) / name, figure)
            paths.append(folder / file.name)
            paths[-1].write_bytes(file.read_bytes())
    return paths


def write_local(path: pathlib.Path, figure: Any) -> pathlib.Path:
    """Writes one of them to `path` with the ending of its kind; returns the path."""
    if isinstance(figure, plots.Clip):
        path = path.with_suffix(".mp4")
        video.write_mp4(path, **figure._asdict())
    elif isinstance(figure, list):
        path = path.with_suffix(".csv")
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, figure[0])
            table.writeheader()
            table.writerows(figure)
    else:
        path = path.with_suffix(".png")
        figure.savefig(path, dpi=150)
    return path


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of a run.", required=True, flag_values=values)
    flags.DEFINE_integer("examples", 24, "How many predictions to draw.", 1, flag_values=values)
    command.define_cache(values)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    logging.set_verbosity(logging.WARNING)
    command.keep_programs(compilation.beside(flags.FLAGS.workdir))
    for path in draw(flags.FLAGS.workdir, num_examples=flags.FLAGS.examples):
        print(path)


if __name__ == "__main__":
    command.run(main, define_flags)
