"""Writes a run's model for other programs. It needs the workdir, and not the data.

    python -m experiments.export --workdir=runs/mine --output=exported/mine --to=safetensors

`--to` is one of

    safetensors  config.json and model.safetensors: `pj.load("exported/mine")` loads it, and so does
                 every command that takes a model. Any run.
    huggingface  config.json, with the classes' names, and model.safetensors for the Perceiver
                 classes of `transformers`. Runs whose model one of these classes has; the error
                 names what it lacks.
    stablehlo    model.stablehlo, variables.npz, interface.json and answer.py: a program that
                 answers batches of any size with jax alone, on the `--platforms`. Runs that score
                 images, pairs or clips.

The parameters are those of the newest checkpoint, averaged where the run has `optimizer.ema`. The
output is a new folder, and is there only when it is whole.
"""

from collections.abc import Sequence

from absl import flags, logging
from etils import epath

from experiments import ask, command
from experiments.export import program
from perceiver_jax import loading, pretrained
from perceiver_jax.files.paths import new_folder, user_path
from perceiver_jax.train.workdir import load_config

FORMATS = ("huggingface", "safetensors", "stablehlo")


def export(workdir: str, output: str, to: str, *, platforms: Sequence[str] = ("cpu",)) -> list[str]:
    """Writes the folder `output` in one of `FORMATS`; returns what its user should know.

    Raises:
      FileNotFoundError: `workdir` is not a run's, or holds no checkpoint.
      ValueError: `output` is there already, or the format has no such model.
    """
    run = epath.Path(workdir).expanduser()
    config = load_config(run)
    with new_folder(output) as folder:
        if to == "safetensors":
            _, variables = loading.load(workdir)
            loading.save(folder, config, variables)
            return [f"pj.load({output!r}) loads it."]
        if to == "stablehlo":
            asked = ask(config)
            program.check_scores(config, asked)
            _, variables = loading.load(workdir)
            return program.save(folder, config, asked, variables, platforms)
        asked = ask(config) if "num_classes" in config.model.get("output", {}) else None
        image = asked.example.get("image") if asked else None
        size = None if image is None else image.shape[0]
        released = pretrained.counterpart(config.model.to_dict(), image_size=size)
        _, variables = loading.load(workdir)
        names = asked.names if asked else None
        pretrained.save_huggingface(released, variables, folder, names=names)
        return pretrained.port_notes(released)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Folder of a run.", required=True, **where)
    flags.DEFINE_string("output", None, "Folder to write, not there yet.", required=True, **where)
    flags.DEFINE_enum("to", None, FORMATS, "The format, see above.", required=True, **where)
    text = "For stablehlo: where the program can run."
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], text, **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    logging.set_verbosity(logging.WARNING)
    chosen = flags.FLAGS
    notes = export(chosen.workdir, chosen.output, chosen.to, platforms=chosen.platforms)
    output = user_path(chosen.output)
    print(*(f"wrote {path}" for path in sorted(output.iterdir())), *notes, sep="\n")


if __name__ == "__main__":
    command.run(main, define_flags)
