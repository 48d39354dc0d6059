"""The optimizers: one golden step, the per-layer trust ratio, schedules, masks, every switch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from perceiver_jax.train.optimizer import decay_mask, make_optimizer, scale_by_layer_trust_ratio


def random_tree(shapes, seed):
    rng = np.random.default_rng(seed)
    return {
        name: random_tree(shape, seed + 1)
        if isinstance(shape, dict)
        else rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_golden_lamb_steps():
    """Two LAMB steps written out in numpy, in float64."""
    config = toy.make_config(optimizer__learning_rate=0.01, optimizer__clip_norm=1.0)
    optimizer, _ = make_optimizer(config)
    shapes = {"dense": {"kernel": (4, 3), "bias": (3,)}, "norm": {"scale": (4,)}}
    params = random_tree(shapes, 0)
    state = optimizer.init(params)
    flat = toy.arrays(params)
    m = {name: np.zeros_like(x, np.float64) for name, x in flat.items()}
    v = {name: np.zeros_like(x, np.float64) for name, x in flat.items()}
    expected = {name: x.astype(np.float64) for name, x in flat.items()}
    for step in (1, 2):
        grads = random_tree(shapes, 10 * step)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        flat_grads = toy.arrays(grads)
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in flat_grads.values()))
        assert norm > 1.0
        for name, gradient in flat_grads.items():
            g = gradient / norm  # clipped to 1.0
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            adam = (m[name] / (1 - 0.9**step)) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-6)
            decay = 0.0 if "bias" in name or "norm" in name else 0.1
            u = adam + decay * expected[name]
            trust = np.linalg.norm(expected[name]) / np.linalg.norm(u)
            expected[name] = expected[name] - 0.01 * trust * u
    for name, value in toy.arrays(params).items():
        np.testing.assert_allclose(
            value,
            expected[name],
            rtol=2e-5,
            err_msg=f"{name}: LAMB no longer does what the papers' recipe says (clip, Adam with "
            "bias correction, decay, trust ratio, learning rate, in this order). Every published "
            "learning rate depends on it: a deliberate change needs new results.",
        )


def test_trust_ratio_of_a_stacked_tree_is_that_of_its_layers():
    shapes = {"dense": {"kernel": (5, 3), "bias": (3,)}, "scale": ()}
    layers = [random_tree(shapes, seed) for seed in range(4)]
    layer_updates = [random_tree(shapes, 100 + seed) for seed in range(4)]
    layers[1]["dense"]["bias"][:] = 0  # a zero norm must not spill over to the other layers
    layer_updates[2]["dense"]["kernel"][:] = 0
    stack = lambda trees: jax.tree.map(lambda *x: np.stack(x), *trees)  # noqa: E731
    params = {"encoder": {"layers": stack(layers)}, "head": layers[0]}
    updates = {"encoder": {"layers": stack(layer_updates)}, "head": layer_updates[0]}
    ours = scale_by_layer_trust_ratio()
    ours, _ = ours.update(updates, ours.init(params), params)
    theirs = optax.scale_by_trust_ratio()
    flat_params = {"encoder": layers, "head": layers[0]}
    theirs, _ = theirs.update(
        {"encoder": layer_updates, "head": layer_updates[0]}, theirs.init(flat_params), flat_params
    )
    expected = {"encoder": {"layers": stack(theirs["encoder"])}, "head": theirs["head"]}
    toy.assert_equal(ours, expected, rtol=1e-6)

    whole, _ = optax.scale_by_trust_ratio().update(updates, optax.EmptyState(), params)
    difference = np.abs(
        whole["encoder"]["layers"]["dense"]["kernel"]
        - stack([t["dense"]["kernel"] for t in theirs["encoder"]])
    )
    assert difference.max() > 1e-2, "one ratio for all layers should differ, or this tests nothing"


def test_trust_ratio_is_per_layer_in_the_real_model_tree():
    task = toy.make_task()
    batch = toy.examples(4, 0)
    params = task.model.init(jax.random.key(0), batch, train=False)["params"]
    assert params["layers"]["dense"]["kernel"].shape == (3, 8, 8)
    params["layers"]["dense"]["kernel"] *= jnp.array([1.0, 10.0, 100.0])[:, None, None]
    transform = scale_by_layer_trust_ratio()
    updates, _ = transform.update(params, transform.init(params), params)
    toy.assert_equal(updates, params, rtol=1e-6)  # every ratio is |x| / |x|
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = transform.update(ones, transform.init(params), params)
    first, second, third = (float(x[0, 0]) for x in updates["layers"]["dense"]["kernel"])
    assert 5 < second / first < 20 and 50 < third / first < 200


CONSTANT_COSINE = {
    "name": "constant_cosine",
    "warmup_steps": 0,
    "constant_fraction": 0.5,
    "end_value": 0.0,
}
STEPS = {"name": "steps", "warmup_steps": 0, "boundaries": (0.7, 0.85, 0.95), "factor": 0.1}


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ({"name": "constant", "warmup_steps": 0}, {0: 1, 1000: 1}),
        ({"name": "constant", "warmup_steps": 100}, {0: 0, 50: 0.5, 100: 1, 1000: 1}),
        ({"name": "cosine", "warmup_steps": 0, "end_value": 0.0}, {0: 1, 500: 0.5, 1000: 0}),
        (
            {"name": "cosine", "warmup_steps": 200, "end_value": 0.1},
            {0: 0, 100: 0.5, 200: 1, 600: 0.55, 1000: 0.1, 2000: 0.1},
        ),
        (CONSTANT_COSINE, {0: 1, 500: 1, 750: 0.5, 1000: 0}),
        (STEPS, {0: 1, 699: 1, 700: 0.1, 849: 0.1, 850: 0.01, 950: 0.001, 1000: 0.001}),
    ],
)
def test_schedule_at_its_knots(schedule, values):
    config = toy.make_config(steps=1000, optimizer__schedule=schedule)
    config.optimizer.learning_rate, config.optimizer.reference_batch_size = 3.0, 8  # batch is 16
    _, learning_rate = make_optimizer(config)
    for step, value in values.items():
        assert float(learning_rate(step)) == pytest.approx(6.0 * value, abs=1e-6), step


def test_schedule_names_the_fields_it_takes():
    config = toy.make_config(optimizer__schedule={"name": "steps", "warmup_steps": 0, "drop": 2})
    with pytest.raises(ValueError, match=r"missing \['boundaries', 'factor'\], unexpected.*drop"):
        make_optimizer(config)
    config.optimizer.schedule.name = "linear"
    with pytest.raises(ValueError, match="'linear'; choose from"):
        make_optimizer(config)
    config.optimizer.name = "sgd"
    with pytest.raises(ValueError, match="'sgd'; write 'lamb' or 'adamw'"):
        make_optimizer(config)


def test_decay_mask():
    params = {"layers": {"norm": {"scale": 0}, "dense": {"kernel": 0, "bias": 0}}, "latents": 0}
    assert decay_mask(params, ("bias$", "(^|/)norm/", "batchnorm")) == {
        "layers": {"norm": {"scale": False}, "dense": {"kernel": True, "bias": False}},
        "latents": True,
    }
    assert all(jax.tree.leaves(decay_mask(params, ())))
    with pytest.raises(ValueError, match=r"(?s)matches none.*layers/dense/kernel"):
        decay_mask(params, ("biases",), check=True)


SWITCHES = {
    "optimizer__name": "adamw",
    "optimizer__learning_rate": 0.01,
    "optimizer__reference_batch_size": 4,
    "optimizer__b1": 0.5,
    "optimizer__b2": 0.9,
    "optimizer__eps": 0.1,
    "optimizer__weight_decay": 0.0,
    "optimizer__no_decay": (),
    "optimizer__clip_norm": 0.1,
    "optimizer__multipliers": (("kernel", 0.5),),
    "optimizer__schedule": {"name": "constant", "warmup_steps": 6},
}


def test_every_field_has_a_switch():
    """But the average, which is the step's, see test_multipliers.py."""
    assert {name.split("__")[1] for name in SWITCHES} == set(toy.make_config().optimizer) - {"ema"}


@pytest.mark.parametrize("switch", SWITCHES)
def test_switch_changes_the_parameters(switch):
    def two_steps(**changes):
        optimizer, _ = make_optimizer(toy.make_config(**changes))
        shapes = {"dense": {"kernel": (4, 3), "bias": (3,)}}
        params = random_tree(shapes, 0)
        state = optimizer.init(params)
        for step in range(2):
            updates, state = optimizer.update(random_tree(shapes, step + 5), state, params)
            params = optax.apply_updates(params, updates)
        return params["dense"]["kernel"], params["dense"]["bias"]

    plain, changed = two_steps(), two_steps(**{switch: SWITCHES[switch]})
    which = 1 if switch == "optimizer__no_decay" else 0  # the bias is what is now decayed
    assert np.abs(plain[which] - changed[which]).max() > 1e-4
