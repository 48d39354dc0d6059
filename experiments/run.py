"""Trains or evaluates what a config describes.

    python -m experiments.run --config=configs/digits.py --workdir=runs/digits
    python -m experiments.run --config=configs/imagenet.py:fourier --workdir=runs/fourier \\
        --config.data.data_dir=/data/tfds --config.batch_size=256
    python -m experiments.run --config=... --workdir=... --mode=eval
    python -m experiments.run --config=configs/imagenet.py:fourier --workdir=runs/released \\
        --mode=eval --config.start.weights=imagenet_fourier --config.data.train_split=

A config is a file and an optional variant (`configs/imagenet.py:conv`, `...:conv:tiny`). Its
docstring says what it reproduces, how long it takes and what to expect. The command line sets any
field, for example `--config.model.encoder.num_latents=256`. A field that does not exist, or a value
of another type, is an error.

After any interruption run the same command again: the run continues from its last checkpoint and
ends as if it had not been interrupted. A workdir belongs to one config (only `parallel` may change)
and to one run at a time. It may be in a bucket: `--workdir=gs://bucket/folder`
(`pip install -e '.[gcs]'`).

Several processes, each with its own devices, form one run. Give each the same command and
`--coordinator=HOST:PORT --num_processes=N --process_id=0` (1, 2, ...), where HOST:PORT is a free
port on the machine of process 0. `srun` and `mpirun` (Open MPI) need none of these flags; a Cloud
TPU slice of several machines needs `--distributed`. All processes must see the same workdir. A
signal to one process stops all of them after they save the same step. If a process is lost, the
others end within `--peer_timeout` seconds. Then run all of them again, in the same or another
number.

`--profile=100:110` traces the ten steps after step 100 into WORKDIR/profile. View the trace with
`tensorboard --logdir=WORKDIR/profile` (and tensorboard-plugin-profile) or at ui.perfetto.dev. For
all other steps, metrics.jsonl has the shares of time spent on input, device and host.

The workdir holds config.json, metrics.jsonl, checkpoints/, and at the end result.json.

Exit codes: 0, finished. 69 or 134 (SIGABRT), another process of the run was lost: run all again.
70, a loss or norm was not finite: the last good checkpoint is kept. 75, stopped by SIGTERM or
Ctrl-C after saving: run it again. 1, any other error.
"""

import functools
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import check_config, make_task
from perceiver_jax.train import distributed, loop, profile, sharding
from perceiver_jax.train.stop import explain


def define_flags() -> None:
    """Only for the command: other commands have flags of the same names."""
    config_flags.DEFINE_config_file("config", None, "File and variant, see above.")
    flags.DEFINE_string("workdir", None, "Folder of this run, made if it is not there.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.")
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
    flags.DEFINE_bool("distributed", False, "Find these three in the environment.")
    flags.DEFINE_integer(
        "peer_timeout", 100, "Seconds without a sign of life after which a process counts as lost."
    )
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
    flags.DEFINE_string("profile", "", "START:STOP, steps of a training to trace.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}: settings are --config.name=value")
    # What goes wrong is raised and told once, below; libraries would tell it in pages before.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = ignore_late_callbacks
    config = flags.FLAGS.config
    run = loop.evaluate
    try:
        distributed.join(
            flags.FLAGS.coordinator,
            flags.FLAGS.num_processes,
            flags.FLAGS.process_id,
            detect=flags.FLAGS.distributed,
            timeout=flags.FLAGS.peer_timeout,
        )
        if flags.FLAGS.mode == "train":
            run = functools.partial(loop.train, profile=profile.parse_span(flags.FLAGS.profile))
        check_config(config)
        layout = sharding.make_layout(config.parallel)
        sharding.check_batch_size(config.batch_size, layout, accumulate=config.accumulate)
        run(make_task(config), config, flags.FLAGS.workdir)
    except Exception as error:
        text, exit_code = explain(error)
        print(text, file=sys.stderr)
        sys.exit(exit_code)


def parse_flags(argv):
    """Parses as absl does, but says in one line what is wrong; exit code 1."""
    try:
        rest = flags.FLAGS(argv)
        _ = flags.FLAGS.config  # where the file is not there, its first use says so
        return rest
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = error
        while isinstance(what, AttributeError | KeyError) and what.args:  # one in the other
            what = what.args[0]
        if what is not error:
            sys.exit(f"no such field of the config: {what}")
        # The last line of a config file's traceback is its error.
        sys.exit(f"{type(error).__name__}: {str(error).strip().splitlines()[-1].strip()}")


def ignore_late_callbacks(unraisable):
    """Leaves out what TensorStore still wants to say to an event loop that ended by an error."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    define_flags()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
