"""PointNet: sizes of the paper; order and padding change nothing, also not its batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import points
from perceiver_jax import flops
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError


def section(**fields):
    output = {"module": "label.PooledClassification", "num_classes": 40}
    return {"module": "pointnet.PointNet", "dtype": "float32", "output": output, **fields}


def shapes(count, **fields):
    x = {"points": jax.ShapeDtypeStruct((1, count, 3), jnp.float32)}
    return x | {"points_mask": jax.ShapeDtypeStruct((1, count), bool)} | fields


def test_published_size():
    """Table 6: 0.8M parameters, 148M products for 1,024 points."""
    model = build(section())
    found = jax.eval_shape(lambda b: model.init(jax.random.key(0), b, train=False), shapes(1024))
    assert sum(x.size for x in jax.tree.leaves(found["params"])) == 817_512
    assert flops.forward(model, shapes(1024)) == pytest.approx(2 * 148e6, rel=0.03)


def test_as_many_flops_as_the_perceiver():
    sizes = []
    for name in ("furniture", "furniture_pointnet"):
        spec = points.get_config(name).model.to_dict()
        spec["output"]["num_classes"] = 11
        sizes.append(flops.forward(build(spec), shapes(512)))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_order_and_padding_change_nothing():
    model = build(section(widths=(8, 16), pooled_widths=(8,), channels=("normal",)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 9, 6)).astype(np.float32)
    batch = {"points": x[..., :3], "normal": x[..., 3:]}
    batch["points_mask"] = np.arange(9)[None] < np.array([[9], [5], [8], [9], [6], [7]])
    variables = model.init(jax.random.key(0), batch, train=False)
    kernel = rng.normal(size=variables["params"]["output"]["logits"]["kernel"].shape)
    variables["params"]["output"]["logits"]["kernel"] = kernel.astype(np.float32)

    @jax.jit
    def run(batch):  # in training, so that padding would change the statistics
        kinds = ["batch_stats"]
        keys = {"dropout": jax.random.key(0)}
        found, stats = model.apply(variables, batch, train=True, mutable=kinds, rngs=keys)
        return found, stats, model.apply(variables, batch, train=False)

    def close(a, b):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), a, b)

    found, order = run(batch), rng.permutation(9)
    assert np.abs(found[2]).max() > 0.1
    close(run({name: x[:, order] for name, x in batch.items()}), found)
    padded = {name: x.copy() for name, x in batch.items()}
    padded["points"][1, 5:] = 50
    close(run(padded), found)
    padded["points"][1, 4] = 50  # a point that is there
    assert np.abs(run(padded)[2] - found[2])[1].max() > 0.1


def test_wrong_fields_are_named():
    with pytest.raises(ConfigError, match=r"config\.model\.widths=\(0,\) is not allowed"):
        build(section(widths=(0,)))
