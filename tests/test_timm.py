"""Baselines against timm's models of the same sizes: the same weights give the same logits.

`pip install timm` is not among the extras, because it needs torch; without it these are skipped.
"""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from perceiver_jax.build import build

RESNET_50 = {"widths": (64, 128, 256, 512), "blocks": (3, 4, 6, 3), "bottleneck": 4, "stem": 7}
PARTS = {  # of a batch norm: the collection and the name of each array
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}

LINEAR = {"weight": "kernel", "bias": "bias"}


def resnet(state):
    """Variables of `baselines.ResNet` from the arrays of timm's, by their names."""
    flat = {}
    for name, value in state.items():
        *place, part = name.split(".")
        if part == "num_batches_tracked":
            continue
        if place == ["fc"]:
            flat["params", "output", "logits", LINEAR[part]] = value.T
            continue
        ours = "stem"
        if len(place) > 1:
            stage, block, layer = place[:3]
            number = layer.removeprefix("conv").removeprefix("bn")
            what = "shortcut" if layer == "downsample" else int(number) - 1
            ours = f"stage_{int(stage.removeprefix('layer')) - 1}_block_{block}_{what}"
        if value.ndim == 4:
            flat["params", f"{ours}_conv", "kernel"] = value.transpose(2, 3, 1, 0)
        else:
            collection, array = PARTS[part]
            flat[collection, f"{ours}_norm", array] = value
    return unflatten_dict(flat)


def vit(state, heads):
    """Variables of `baselines.ViT` likewise."""
    flat = {("token",): state["cls_token"], ("positions",): state["pos_embed"]}
    flat["patches", "kernel"] = state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    flat["patches", "bias"] = state["patch_embed.proj.bias"]
    flat["output", "logits", "kernel"] = state["head.weight"].T
    flat["output", "logits", "bias"] = state["head.bias"]

    def norm(ours, theirs):
        flat[ours, "scale"] = state[f"{theirs}.weight"]
        flat[ours, "bias"] = state[f"{theirs}.bias"]

    def dense(ours, theirs):
        flat[ours, "kernel"] = state[f"{theirs}.weight"].T
        flat[ours, "bias"] = state[f"{theirs}.bias"]

    norm("norm", "norm")
    for i in range(1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))):
        theirs, ours = f"blocks.{i}", f"layer_{i}"
        norm(f"{ours}_norm_attention", f"{theirs}.norm1")
        norm(f"{ours}_norm_mlp", f"{theirs}.norm2")
        dense(f"{ours}_hidden", f"{theirs}.mlp.fc1")
        dense(f"{ours}_out", f"{theirs}.mlp.fc2")
        kernels = np.split(state[f"{theirs}.attn.qkv.weight"], 3)
        biases = np.split(state[f"{theirs}.attn.qkv.bias"], 3)
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            width = kernel.shape[-1]
            place = (f"{ours}_attention", name)
            flat[*place, "kernel"] = kernel.T.reshape(width, heads, width // heads)
            flat[*place, "bias"] = bias.reshape(heads, -1)
        kernel = state[f"{theirs}.attn.proj.weight"].T
        flat[f"{ours}_attention", "out", "kernel"] = kernel.reshape(heads, -1, kernel.shape[-1])
        flat[f"{ours}_attention", "out", "bias"] = state[f"{theirs}.attn.proj.bias"]
    return {"params": unflatten_dict(flat)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours", "size", "convert"),
    [
        ("resnet50", {"module": "baselines.ResNet", **RESNET_50}, 64, resnet),
        ("vit_base_patch16_224", {"module": "baselines.ViT"}, 224, lambda s: vit(s, heads=12)),
    ],
)
def test_logits_are_those_of_timm(theirs, ours, size, convert):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    torch.manual_seed(0)
    other = timm.create_model(theirs, pretrained=False).eval()
    with torch.no_grad():  # nothing keeps its first value: no scale of 1, no mean of 0
        for name, value in other.state_dict().items():
            if value.is_floating_point():
                noise = 0.02 * torch.randn_like(value)
                value.add_(noise.abs() if name.endswith("running_var") else noise)
    state = {name: value.numpy() for name, value in other.state_dict().items()}
    image = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = other(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()

    output = {"module": "label.PooledClassification", "num_classes": 1000}
    model = build({"dtype": "float32", "output": output, **ours})
    variables, batch = convert(state), {"image": image}
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    assert {k: v.shape for k, v in flatten_dict(shapes).items()} == {
        k: v.shape for k, v in flatten_dict(variables).items()
    }
    found = np.asarray(jax.jit(lambda v, b: model.apply(v, b, train=False))(variables, batch))
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())
