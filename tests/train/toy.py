"""A task small enough to train in a test: separate two classes of points with a scanned MLP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from perceiver_jax import mesh
from perceiver_jax.dropout import SPLIT, Dropout
from perceiver_jax.train import sharding
from perceiver_jax.train.task import Task

FEATURES = 6
EVAL_EXAMPLES = 37  # not a multiple of any batch size used: the last batch is ragged


class Layer(nn.Module):
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        h = nn.LayerNorm(name="norm")(x)
        h = nn.tanh(nn.Dense(self.width, name="dense")(h))
        return x + Dropout(self.dropout)(h, train=train), None


class Net(nn.Module):
    width: int = 8
    depth: int = 3
    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, batch, train):
        # No bias before batch norm: its gradient is zero but for rounding, which Adam blows up.
        x = nn.Dense(self.width, use_bias=not self.batch_norm, name="input")(batch["point"])
        if self.batch_norm:
            axis = mesh.batch_axis()
            norm = nn.BatchNorm(axis_name=axis, momentum=0.5, name="batchnorm")
            x = norm(x, use_running_average=not train)
        stack = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs=SPLIT | {"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        x, _ = stack(self.width, self.dropout, name="layers")(x, train)
        return nn.Dense(2, name="head")(x)


def examples(count, key):
    """Points and their labels, from the sign of a fixed linear function."""
    rng = np.random.default_rng(key)
    point = rng.normal(size=(count, FEATURES)).astype(np.float32)
    label = (point @ np.arange(1, FEATURES + 1) > 0).astype(np.int32)
    return {"point": point, "label": label, "mask": np.ones(count, bool)}


class Batches:
    """Batch `step` is a function of (seed, step); counts how often it was closed."""

    closed = 0

    def __init__(self, batch_size, start, *, seed=0, poison=None):
        self.batch_size, self.step, self.seed, self.poison = batch_size, start, seed, poison

    def __iter__(self):
        return self

    def __next__(self):
        batch = examples(self.batch_size, [self.seed, self.step])
        self.step += 1
        if self.step == self.poison:  # the batch of the step that becomes step `poison`
            batch["point"][0, 0] = np.nan
        return batch

    def close(self):
        Batches.closed += 1


def eval_batches(batch_size=16, count=EVAL_EXAMPLES):
    data = examples(count, [999])
    for begin in range(0, count, batch_size):
        part = {name: value[begin : begin + batch_size] for name, value in data.items()}
        pad = batch_size - len(part["mask"])
        yield {
            n: np.concatenate([v, np.zeros((pad, *v.shape[1:]), v.dtype)]) for n, v in part.items()
        }


def cross_entropy(prediction, batch):
    log_p = nn.log_softmax(prediction)
    return -jnp.take_along_axis(log_p, batch["label"][:, None], axis=1)[:, 0]


def accuracy(prediction, batch):
    right = (jnp.argmax(prediction, axis=-1) == batch["label"]) & batch["mask"]
    return jnp.sum(right), jnp.sum(batch["mask"])


def jitter(noise):
    def prepare(batch, key):
        if key is None or not noise:
            return batch
        point = batch["point"]
        return batch | {"point": point + noise * jax.random.normal(key, point.shape)}

    return prepare


def make_task(*, batch_size=16, seed=0, poison=None, noise=0.0, eval_batch_size=16, **net):
    return Task(
        model=Net(**net),
        example=examples(1, 0),
        train_data=lambda start: Batches(batch_size, start, seed=seed, poison=poison),
        eval_data=lambda: eval_batches(eval_batch_size),
        prepare=jitter(noise),
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        flops_per_example=1e3,
        description=("toy",),
    )


def make_config(**changes):
    """The whole config of a short run; `changes` by dotted name, `optimizer__b1` for a dot."""
    config = ConfigDict(
        {
            "experiment": "toy",
            "seed": 0,
            "batch_size": 16,
            "steps": 8,
            "accumulate": 1,
            "optimizer": {
                "name": "lamb",
                "learning_rate": 0.05,
                "reference_batch_size": 0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-6,
                "weight_decay": 0.1,
                "no_decay": ("bias$", "norm"),
                "clip_norm": 10.0,
                "multipliers": (),
                "ema": 0.0,
                "schedule": {"name": "constant", "warmup_steps": 0},
            },
            "eval_every": 4,
            "log_every": 1,
            "checkpoint_every": 2,
            "checkpoints_kept": 3,
            "tensorboard": False,
            "start": {
                "run": "",
                "weights": "",
                "conv_kernel": "",
                "fresh": (),
                "resize_positions": False,
            },
            "parallel": {
                "mode": "jit",
                "model": 1,
                "shard_params_above": 0,
                "shard_inputs": False,
                "latents": "batch",
            },
        }
    )
    for name, value in changes.items():
        *path, last = name.split("__")
        section = config
        for part in path:
            section = section[part]
        with section.ignore_type():
            section[last] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def make_layout(devices=None, **parallel):
    """Devices along 'data', or as `parallel` says."""
    changes = {f"parallel__{name}": value for name, value in parallel.items()}
    return sharding.make_layout(make_config(**changes).parallel, devices)


def with_model(task, **fields):
    return dataclasses.replace(task, model=task.model.clone(**fields))


def arrays(tree):
    """Host copies of every leaf, by path; a random key as its data."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): np.array(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        for path, x in named
    }


def assert_equal(one, other, *, rtol=0.0, atol=0.0):
    """Bit-equal unless a tolerance is given; names the leaf that is not."""
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=atol, err_msg=name)
