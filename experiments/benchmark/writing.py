"""How many ids a second a Perceiver AR writes: by whole passes, exactly and fast, by turns.

    python -m experiments.benchmark.writing --output=experiments/results/writing.csv

The models are untrained, of --sizes M:N:layers:width. Each turn writes --ids new ids behind a
prompt of 3/4 M, so no window fills up. A whole pass computes the keys and values of all inputs, and
all latents, for each id.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import command
from perceiver_jax import inference
from perceiver_jax.ar import PerceiverAR
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train.workdir import git_commit

SIZES = ("256:64:3:128", "1024:64:3:128", "1024:256:6:256", "8192:256:6:256")


def make(size: str) -> tuple[PerceiverAR, dict]:
    """An untrained model of M:N:layers:width, with its variables."""
    parts = size.split(":")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--sizes={size} is not M:N:layers:width, such as 1024:64:3:128")
    length, latents, layers, width = map(int, parts)
    model = PerceiverAR(
        max_length=length,
        num_latents=latents,
        num_layers=layers,
        channels=width,
        num_cross_attend_heads=4,
        num_self_attend_heads=4,
        positions="rotary",
        remat="none",
    )
    batch = {"ids": jnp.zeros((1, length), jnp.int32), "length": jnp.array([length])}
    init = jax.jit(functools.partial(model.init, train=False))
    return model, init(jax.random.key(0), batch)


@functools.partial(jax.jit, static_argnums=0)
def likeliest(model: PerceiverAR, variables: dict, ids: jax.Array, length: jax.Array) -> jax.Array:
    """The likeliest next id of each sequence, by a whole pass."""
    return jnp.argmax(model.apply(variables, ids, length, method="logits")[:, -1], axis=-1)


def by_passes(model: PerceiverAR, variables: dict, prompt: np.ndarray, count: int) -> float:
    """Ids a second where each is a whole pass."""
    ids = np.zeros((1, model.max_length), np.int32)
    ids[0, : len(prompt)] = prompt
    jax.block_until_ready(likeliest(model, variables, ids, np.array([len(prompt)])))
    start = time.monotonic()
    for place in range(len(prompt), len(prompt) + count):
        ids[0, place] = likeliest(model, variables, ids, np.array([place]))[0]
    return count / (time.monotonic() - start)


def measure(size: str, turns: int, count: int) -> dict[str, float]:
    """The median of the turns, in ids a second."""
    model, variables = make(size)
    prompt = np.random.default_rng(0).integers(3, model.num_ids, 3 * model.max_length // 4)
    count = min(count, model.max_length - len(prompt))

    def generate(exact):
        found = inference.generate(model, variables, [prompt], length=count, exact=exact)
        return found.ids_per_second

    rates = {"whole passes": [], "exact": [], "fast": []}
    for _ in range(turns):
        rates["whole passes"].append(by_passes(model, variables, prompt, min(count, 16)))
        rates["exact"].append(generate(True))
        rates["fast"].append(generate(False))
    return {name: statistics.median(values) for name, values in rates.items()}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_list("sizes", ",".join(SIZES), "M:N:layers:width of each model.", **where)
    flags.DEFINE_integer("turns", 3, "How often each way is measured.", 1, **where)
    flags.DEFINE_integer("ids", 128, "How many ids a turn writes.", 1, **where)
    flags.DEFINE_string("output", "", "A CSV file for the rows.", **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen, rows = flags.FLAGS, []
    for size in chosen.sizes:
        rates = measure(size, chosen.turns, chosen.ids)
        names = dict(zip(("M", "N", "layers", "width"), size.split(":"), strict=True))
        for way, rate in rates.items():
            where = {"device": hardware(), "commit": git_commit()[:10]}
            rows.append(names | {"way": way, "ids_per_second": round(rate, 1)} | where)
            print(f"{size:<18}{way:<14}{rate:9.1f} ids a second", flush=True)
    if chosen.output:
        command.write_table(user_path(chosen.output), rows)


if __name__ == "__main__":
    command.run(main, define_flags)
