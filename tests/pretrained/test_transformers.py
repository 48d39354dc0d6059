"""The port in `transformers` loads our exports and computes the same, its known differences aside.

Needs torch and transformers (`pip install torch transformers`); skipped without them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import pretrained
from perceiver_jax.pretrained import huggingface

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"num_latents": 6, "latent_channels": 32, "num_self_attends_per_block": 2}
HEADS = {"num_self_attend_heads": 4}
# Bands, padding and the query/key width of language are constants of the port.
SIZES = {
    "imagenet_learned": SMALL | HEADS | {"image_size": 16, "num_classes": 5, "num_blocks": 2},
    "imagenet_fourier": SMALL | HEADS | {"num_classes": 5, "num_blocks": 2},
    "imagenet_conv": SMALL | HEADS | {"num_classes": 5, "num_blocks": 2},
    "language": SMALL | {"length": 24, "channels": 16},
    "flow": SMALL | HEADS | {"height": 8, "width": 12},
    "kinetics": SMALL
    | HEADS
    | {
        "num_frames": 2,
        "image_size": 16,
        "samples_per_frame": 64,
        "num_classes": 5,
        "label_query_channels": 40,
        "output_channels": 24,
    },
}


def random(shapes, seed=0):
    """Random variables in which nothing is zero, about as large as trained ones."""
    generator = np.random.default_rng(seed)

    def draw(path, x):
        values = generator.normal(size=x.shape) / np.sqrt(x.shape[-2] if len(x.shape) > 1 else 4)
        name = jax.tree_util.keystr(path)
        if "var" in name or "scale" in name:
            values = np.abs(values) + 0.5
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def theirs(name, model, batch):
    """The port's answer, its differences from the official function accounted for."""
    batch = {key: torch.from_numpy(np.array(x)) for key, x in batch.items()}
    with torch.no_grad():
        if name == "imagenet_learned":  # it adds the query to the answer
            block = model.perceiver.decoder.decoder.decoding_cross_attention
            block.attention.use_query_residual = False
        if name == "imagenet_conv":  # it pads 3 + 3 pixels, and pools without padding
            same_padding(model.perceiver.input_preprocessor.convnet)
        if name.startswith("imagenet"):
            return {"": model(batch["image"].permute(0, 3, 1, 2)).logits}
        if name == "language":
            return {"": model(batch["text"].long(), attention_mask=batch["text_mask"]).logits}
        if name == "flow":  # it leaves out the factor 20
            return {"": 20 * model(official_patches(batch["frames"])).logits}
        video, audio = batch["video"].permute(0, 1, 4, 2, 3), batch["audio"][..., None]
        inputs = {"image": video, "audio": audio, "label": torch.zeros(len(video), 5)}
        points = {"image": torch.arange(4, 500, 9), "audio": torch.arange(1, 8), "label": None}
        result = model(inputs, subsampled_output_points=points).logits
        return {{"image": "video"}.get(key, key): x for key, x in result.items()}


def same_padding(net):
    """The official stem's padding: (2, 3) before the convolution, (0, 1) before pooling."""
    conv, pool = net.conv, net.max_pool
    conv.zero_pad_2d = torch.nn.ZeroPad2d((2, 3, 2, 3))
    net.max_pool = torch.nn.Sequential(torch.nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), pool)


def official_patches(frames):
    """`[B, 2, H, W, 3]` -> `[B, 2, 27, H, W]`: its model wants the 3x3 patches."""
    batch, _, height, width, _ = frames.shape
    x = torch.nn.functional.pad(frames, (0, 0, 1, 1, 1, 1))
    parts = [x[:, :, r : r + height, c : c + width] for r in range(3) for c in range(3)]
    return torch.cat(parts, dim=-1).permute(0, 1, 4, 2, 3).reshape(batch, 2, 27, height, width)


@pytest.mark.parametrize("name", SIZES)
def test_export_loads_and_agrees(name, tmp_path):
    released = pretrained.released(name, **SIZES[name])
    variables = random(released.shapes)
    directory = pretrained.save_huggingface(released, variables, tmp_path / "exported")
    cls = getattr(transformers, huggingface.ARCHITECTURES[name])
    port, info = cls.from_pretrained(directory, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    port.eval()

    # Back, live and from the file that transformers writes: bit by bit.
    port.save_pretrained(tmp_path / "theirs")
    for source in (port.state_dict(), tmp_path / "theirs"):
        _, back = pretrained.load(source, model=released, conv_kernel="OIHW")
        jax.tree.map(np.testing.assert_array_equal, back, variables)

    generator = np.random.default_rng(1)
    batch = {
        key: generator.normal(size=(2, *x.shape[1:])).astype(np.float32)
        for key, x in released.batch.items()
    }
    if name == "language":
        batch["text"] = generator.integers(0, 262, (2, 24)).astype(np.int32)
        batch["text_mask"] = np.arange(24)[None] < np.array([[24], [15]])
    kwargs = {}
    if name == "kinetics":
        batch["label"] = np.full(2, -1)
        kwargs["indices"] = {
            "video": jnp.arange(4, 500, 9),
            "audio": jnp.arange(1, 8),
            "label": None,
        }
    ours = released.build().apply(variables, batch, train=False, **kwargs)
    ours = ours if isinstance(ours, dict) else {"": ours}
    valid = batch["text_mask"] if name == "language" else ...  # it answers masked queries too
    for key, x in theirs(name, port, batch).items():
        expected, result = x.numpy()[valid], np.asarray(ours[key])[valid]
        tolerance = 2e-5 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance, err_msg=key)
