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

Compiled programs are kept in `.jax_cache` beside the workdir, where the next start finds them, or
in `--compilation_cache=FOLDER`, which may be in a bucket; `none` keeps none. The variable
JAX_COMPILATION_CACHE_DIR names another default.

The workdir holds config.json, metrics.jsonl, checkpoints/, and at the end result.json.

Exit codes: 0, finished. 69 or 134 (SIGABRT), another process of the run was lost: run all again.
70, a loss or norm was not finite: the last good checkpoint is kept. 75, stopped by SIGTERM or
Ctrl-C after saving: run it again. 1, any other error.
"""

import functools
import sys

from absl import flags, logging
from ml_collections import config_flags

from experiments import check_config, command, make_task
from perceiver_jax.train import compilation, distributed, loop, profile, sharding


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    config_flags.DEFINE_config_file("config", None, "File and variant, see above.", **where)
    flags.DEFINE_string("workdir", None, "Folder of this run, made if it is not there.", **where)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.", **where)
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", 1, **where)
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", 0, **where)
    flags.DEFINE_bool("distributed", False, "Find these three in the environment.", **where)
    timeout = "Seconds without a sign of life after which a process counts as lost."
    flags.DEFINE_integer("peer_timeout", 100, timeout, 1, **where)
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.", **where)
    flags.DEFINE_string("profile", "", "START:STOP, steps of a training to trace.", **where)
    command.define_cache(values)
    flags.mark_flags_as_required(["config", "workdir"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    # Errors are printed once, below; libraries would log pages before.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = ignore_late_callbacks
    config = flags.FLAGS.config
    run = loop.evaluate
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
    command.keep_programs(compilation.beside(flags.FLAGS.workdir))
    run(make_task(config), config, flags.FLAGS.workdir)


def ignore_late_callbacks(unraisable):
    """Ignores callbacks of TensorStore to an event loop that an error has closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    command.run(main, define_flags)
