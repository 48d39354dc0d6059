"""Draws what a run has learned. It needs the workdir, and the data of the evaluation.

Of an evaluation (`--mode=eval`) it draws what the weights do that were evaluated.

    python -m experiments.plot --workdir=runs/digits      # or gs://bucket/run

Which pictures it writes to <workdir>/plots depends on the experiment:

    training.png       every logged metric over the steps
    predictions.png    evaluation examples with predictions
    attention_*.png    attention of the latents, over the input image, or in point clouds from three
                       sides; one file per cross-attend. Of sets: what each entity attends to
    confusion.png      point clouds: how often each class is called which
    reconstructions.png, clips.mp4    clips above their reconstructions, with sound; also from the
                       video alone and from the sound alone
    probabilities.png  labels predicted from all modalities and from each alone
    attention_mass.png share of the latents' attention for each modality; also
                       attention_mass_table.csv
    psychometric.png   stereograms: error against interocular correlation, and controls; also
                       psychometric_table.csv
    matching_table.csv disparities: errors beside those of block matching and OpenCV's matchers
    index.html         the page of the run, one file that opens anywhere: the command, the result
                       beside its baselines, all of the above, and the worst mistakes
"""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict

from configs import common
from experiments import command, make_task
from experiments.report import run_page
from experiments.report.mistakes import examine
from perceiver_jax import plots
from perceiver_jax.files import video
from perceiver_jax.train import checkpoint, compilation
from perceiver_jax.train.log import read_metrics, warn
from perceiver_jax.train.start import Program, build, restore_weights
from perceiver_jax.train.workdir import (
    CHECKPOINTS,
    METRICS,
    RESULT,
    as_json,
    load_config,
    write_atomically,
)

WORST = 12  # mistakes on the page


def draw(
    workdir: str | os.PathLike[str], *, num_examples: int, num_examined: int = 0
) -> list[epath.Path]:
    """Writes the pictures of a run and its page; returns their paths.

    Args:
      workdir: of the run.
      num_examples: how many predictions to draw.
      num_examined: among how many evaluation examples the worst are looked for; 0: none.

    Raises:
      FileNotFoundError: `workdir` is not a run's, or holds no checkpoint.
    """
    workdir = epath.Path(workdir).expanduser()
    config = load_config(workdir)
    saved = as_json(config)
    config.parallel = common.parallel()  # plots are computed on one device
    task = make_task(config)
    weights = read_weights(workdir, config, build(task, config, jax.devices()[:1]))
    variables = {"params": weights["params"], **weights["model_state"]}
    records = read_metrics(workdir / METRICS)
    figures = {"training": plots.training_curves(records)} if records else {}
    figures |= task.plots(variables, num_examples)
    paths = write(workdir / "plots", figures)
    files = dict(zip(figures, paths, strict=True))
    figures.pop("training", None)  # the page has a plot for each curve
    document = run_page.make(
        saved,
        workdir=os.fspath(workdir),
        records=records,
        result=read_result(workdir),
        figures=figures,
        files=files,
        examined=examine(task, variables, most=num_examined, keep=WORST) if num_examined else None,
        names=task.classes,
        description=task.description,
    )
    paths.append(workdir / "plots" / "index.html")
    write_atomically(paths[-1], document)
    return paths


def read_weights(workdir: epath.Path, config: ConfigDict, program: Program) -> dict[str, Any]:
    """The weights of a run, or those that an evaluation began with."""
    if not (workdir / CHECKPOINTS).exists() and config.start.weights:
        return restore_weights(config.start.weights, config, program)[0]
    return checkpoint.restore_weights(workdir, program.target, warn=warn)[0]


def read_result(workdir: epath.Path) -> dict[str, Any] | None:
    """The result of a finished run."""
    path = workdir / RESULT
    return json.loads(path.read_text()) if path.exists() else None


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
        command.write_table(path, figure)
    else:
        path = path.with_suffix(".png")
        figure.savefig(path, dpi=150)
    return path


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of a run.", required=True, flag_values=values)
    flags.DEFINE_integer("examples", 24, "How many predictions to draw.", 1, flag_values=values)
    text = "Among how many evaluation examples the worst are looked for; 0 is none."
    flags.DEFINE_integer("examined", 2000, text, 0, flag_values=values)
    command.define_cache(values)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    logging.set_verbosity(logging.WARNING)
    command.keep_programs(compilation.beside(flags.FLAGS.workdir))
    chosen = flags.FLAGS
    for path in draw(chosen.workdir, num_examples=chosen.examples, num_examined=chosen.examined):
        print(path)


if __name__ == "__main__":
    command.run(main, define_flags)
