"""Does pretraining pay? Fine-tuning on few labels against training from scratch.

    python -m experiments.transfer --study=digits --workdir=runs/transfer \\
        --output=experiments/results
    python -m experiments.transfer --study=glosses --workdir=runs/wordnet --data_dir=dict \\
        --output=experiments/results
    python -m experiments.transfer --study=tasks --workdir=runs/wordnet --data_dir=dict \\
        --output=experiments/results

    digits     10, 30 or 100 labelled images, from MNIST, which must be prepared: tfds build mnist
               --file_format=array_record (pip install -e '.[prepare]'). `scratch`: from initial
               values; `whole`: the pretrained model with a new output; `frozen`: its decoder and a
               new output alone; `neighbour`: the class of the nearest of these images.
    glosses    1 %, 10 % and 100 % of the labels of WordNet's nouns, after masked pretraining on all
               glosses, beside logistic regression. `configs/wordnet.py` says how to get WordNet.
    tasks      WordNet's nouns and verbs: one model with two queries, and two models.

Each run is a folder of the workdir, so the command resumes. It writes transfer.csv, or
transfer_STUDY.csv, after each run, and at its end, but for `tasks`, a figure of the same name with
95 % intervals over the seeds (Student's t).
"""

from absl import flags

from experiments import command
from experiments.transfer import digits, glosses
from experiments.transfer.table import draw
from perceiver_jax.files.paths import user_path
from perceiver_jax.train import compilation

# The name of the table, the rows and the figure.
STUDIES = {
    "digits": ("transfer", digits.rows_of, digits.CURVE),
    "glosses": ("transfer_glosses", glosses.rows_of, glosses.CURVE),
    "tasks": ("transfer_tasks", glosses.tasks_of, None),
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_enum("study", "digits", [*STUDIES], "Which comparison.", **where)
    flags.DEFINE_string("workdir", None, "Folder of the runs.", **where)
    flags.DEFINE_string("output", ".", "Folder of the table and the figure.", **where)
    flags.DEFINE_string("data_dir", "", "Of TFDS, '' is its own default; or WordNet's.", **where)
    flags.DEFINE_integer("seeds", 3, "How many seeds, from 0.", 1, **where)
    flags.DEFINE_bool("tiny", False, "Two steps a run: it runs.", **where)
    command.define_cache(values)
    flags.mark_flags_as_required(["workdir"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    workdir, output = user_path(chosen.workdir), user_path(chosen.output)
    command.keep_programs(workdir / compilation.FOLDER)
    name, rows_of, curve = STUDIES[chosen.study]
    rows = []
    try:
        for row in rows_of(workdir, chosen.data_dir, range(chosen.seeds), tiny=chosen.tiny):
            rows.append(row)
            command.write_table(output / f"{name}.csv", rows)
    finally:  # an interrupted study shows what is there
        if rows and curve:
            draw(rows, curve).savefig(output / f"{name}.png", dpi=150)
    print(*sorted(output.glob(f"{name}.*")), sep="\n")


if __name__ == "__main__":
    command.run(main, define_flags)
