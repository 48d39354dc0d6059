"""`python -m experiments.run` of the toy task, read by the real pipeline; started by tests.

    python run_flags.py --config=run_flags.py --workdir=... --config.steps=...

In the environment: `DELAY`, seconds that each batch takes; `FAILS=i:n`, process i fails at batch n;
`FILLS=n:file`, a file that fills its disk up at batch n; `WIDTH`, of the network.
"""

import contextlib
import dataclasses
import os
import sys
import time
import types

import jax
import toy

from perceiver_jax.data import pipeline, transforms
from perceiver_jax.train import sharding

KEEP = transforms.parse("keep('point', 'label')")


class Points:
    """A source of the toy's examples."""

    def __init__(self, count, key):
        data = toy.examples(count, key)
        self.examples = [{n: data[n][i] for n in ("point", "label")} for i in range(count)]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def get_config():
    return toy.make_config(steps=24, eval_every=6, checkpoint_every=4)


def make_task(config):
    part, parts = sharding.reader(sharding.make_mesh(config.parallel, None))
    common = {
        "batch_size": config.batch_size,
        "readers": "threads:0",
        "process_index": part,
        "process_count": parts,
    }
    who, _, failing = os.environ.get("FAILS", "-1:-1").partition(":")
    filling, _, filler = os.environ.get("FILLS", "-1:").partition(":")

    def train_data(start):
        points = Points(50, [0])
        batches = pipeline.train_batches(points, KEEP, start_step=start, seed=config.seed, **common)
        for number, batch in enumerate(batches, start=start):
            if (jax.process_index(), number) == (int(who), int(failing)):
                raise ValueError(f"batch {number} of process {who} is bad")
            if number == int(filling):
                fill_up(filler)
            time.sleep(float(os.environ.get("DELAY", "0")))
            yield batch

    def eval_data():
        points = Points(toy.EVAL_EXAMPLES, [999])
        return pipeline.eval_batches(points, KEEP, **common | {"batch_size": 7})  # divides by none

    width = int(os.environ.get("WIDTH", "8"))
    task = toy.make_task(dropout=0.2, noise=0.1, batch_norm=True, width=width)
    return dataclasses.replace(task, train_data=train_data, eval_data=eval_data)


def fill_up(filler):
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


if __name__ == "__main__":
    from experiments import command, run

    sys.modules["experiments.tasks.toy"] = types.SimpleNamespace(make_task=make_task)
    command.run(run.main, run.define_flags)
