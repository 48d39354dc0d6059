"""Our models are the official ones: outputs and the gradient of every parameter agree."""

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import pretrained
from perceiver_jax.attention import cost, platforms
from perceiver_jax.pretrained import convert


@pytest.mark.parametrize(
    ("name", "forced"),
    [
        *((name, None) for name in golden_models.FILES),
        *(
            pytest.param(name, kernel, marks=pytest.mark.slow)
            for name in ("imagenet_fourier", "flow", "kinetics")
            for kernel in ("kernel", "gpu_kernel")
        ),
    ],
)
def test_outputs_and_gradients(name, forced, tmp_path, monkeypatch):
    """With "kernel" all is as on a TPU, interpreted: both kernels, and the stack of latents.

    With "gpu_kernel" as on an H100, but for cuDNN.
    """
    if forced:
        monkeypatch.setattr(platforms, "is_one_loop", lambda: True)
    if forced == "kernel":
        monkeypatch.setattr(platforms, "attends_by", lambda *_: "splash")
    golden, released = golden_models.vectors(name), golden_models.released(name)
    path = golden_models.write_official(name, tmp_path / "weights.pystate")
    model, variables = pretrained.load(path, model=released)
    batch, kwargs = golden_models.inputs(name)
    cotangents = {key: jnp.asarray(x) for key, x in golden["cotangent"].items()}

    @jax.jit
    def run(params):
        prediction = model.apply(variables | {"params": params}, batch, train=False, **kwargs)
        result = golden_models.outputs(name, prediction)
        return sum(jnp.sum(cotangents[key] * result[key]) for key in cotangents), result

    with jax.default_matmul_precision("highest"), cost.forced(forced):
        grads, result = jax.grad(run, has_aux=True)(variables["params"])
    assert set(result) == set(golden["output"])
    for key, expected in golden["output"].items():
        largest = np.abs(expected).max()
        np.testing.assert_allclose(result[key], expected, rtol=0, atol=2e-5 * largest, err_msg=key)

    grads = convert.to_tensors(variables | {"params": grads}, released, "haiku")
    everything = max(np.abs(x).max() for x in golden["grads"].values())
    for key, expected in golden["grads"].items():
        largest = np.abs(expected).max()
        tolerance = 1e-4 * largest
        if key.endswith("attention/linear_1/b"):  # keys: what all have in common cancels
            tolerance = 2e-6 * everything
        np.testing.assert_allclose(grads[key], expected, rtol=0, atol=tolerance, err_msg=key)
