"""The cases of the benchmark: each is a line of `CASES`.

A case makes a model and the shapes of its batch, at full size or tiny; `contenders` runs it. Sizes
are those of the papers and of the released models. The file is long because each family of models
has a function here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from configs import ar as ar_configs
from configs import imagenet, kinetics, mnist
from configs.released import sizes
from experiments.tasks import ar, autoencode
from perceiver_jax import flops, losses, perceiver, pretrained
from perceiver_jax.build import build
from perceiver_jax.layers import CrossAttention
from perceiver_jax.modalities.audio import Patches
from perceiver_jax.modalities.image import Pixels
from perceiver_jax.modalities.label import Classification
from perceiver_jax.tokens import Tokens, token_sets

BOTH = ("forward", "gradient")
# Sizes that are constants of the port to PyTorch, so a tiny case keeps them.
PORT = {
    "imagenet_learned": {"channels": 256, "position_channels": 256},
    "imagenet_fourier": {"num_bands": 64},
    "imagenet_conv": {"channels": 64, "num_bands": 64},
    "language": {"qk_channels": 256},
    "flow": {"num_bands": 64, "channels": 64},
    "kinetics": {"audio_bands": 192, "video_bands": 32},
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and its batch.

    Attributes:
      model: called as a `Perceiver` is.
      batch: shapes and types by name, with `target [B, K]` if the predictions are logits.
      textbook: forward FLOPs of the whole batch by the textbook formula, see `flops.textbook`.
      num_latents: of the cross-attention.
      num_reads: number of cross-attends.
      released: name of the released model, if it is one: the port to PyTorch has those.
      config: of the experiment; the phase `train` uses its optimizer.
      prepare, loss: of the phase `train`, see `Task`.
      chunks: number of parts in which the phase `autoencode` decodes.
    """

    model: nn.Module
    batch: Mapping[str, jax.ShapeDtypeStruct]
    textbook: float
    num_latents: int
    num_reads: int = 1
    released: pretrained.Released | None = None
    config: ConfigDict | None = None
    prepare: Callable = lambda batch, key: batch
    loss: Callable = losses.softmax_cross_entropy
    chunks: int = 1

    def inputs(self) -> list[Tokens]:
        """The shapes of the sets of input tokens."""
        if "ids" in self.batch:
            batch_size, length = self.batch["ids"].shape
            shape = batch_size, length - 1, self.model.channels
            return [Tokens(content=jax.ShapeDtypeStruct(shape, jnp.float32))]

        def run(batch):
            def read(model, batch):
                return model.input(batch, train=False)

            return self.model.init_with_output(jax.random.key(0), batch, method=read)[0]

        return token_sets(jax.eval_shape(run, dict(self.batch)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
      suite: which `--suite` it belongs to.
      phases: what is timed: `forward`; `gradient` (loss and gradients of all parameters); `train`
        (a step with the optimizer); `autoencode` (all outputs of a clip, in chunks).
      make: `make(batch_size, tiny, dtype) -> Subject`.
      batch_size: default of the command.
      against: the contenders that exist for it beside ours.
    """

    suite: str
    phases: tuple[str, ...]
    make: Callable[[int, bool, str], Subject]
    batch_size: int = 1
    against: tuple[str, ...] = ("dense",)


class Read(nn.Module):
    """Only the first cross-attention of a Perceiver, from inputs to latents."""

    input: nn.Module
    attend: CrossAttention
    num_latents: int
    latent_channels: int

    @nn.compact
    def __call__(self, batch, *, train: bool) -> jax.Array:
        """Returns `[B, num_latents, latent_channels]`."""
        init = nn.initializers.truncated_normal(0.02)
        latents = self.param("latents", init, (self.num_latents, self.latent_channels))
        return self.attend(
            Tokens(content=latents[None]), self.input(batch, train=train), train=train
        )


def image_batch(
    batch_size: int, height: int, width: int, channels: int = 3, num_classes: int | None = None
):
    """Shapes of images, and of their targets."""
    shape = batch_size, height, width, channels
    batch = {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    if num_classes:
        batch["target"] = jax.ShapeDtypeStruct((batch_size, num_classes), jnp.float32)
    return batch


def textbook(model: perceiver.Perceiver, batch: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Forward FLOPs of a whole batch."""
    size = next(iter(batch.values())).shape[0]
    return size * flops.textbook(model, one_of(batch))


def one_of(batch: Any) -> Any:
    """The shapes of a batch of one."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), batch)


def read(height: int, width: int):
    """Only the cross-attention of the ImageNet model, on pixels with Fourier positions."""

    def make(batch_size: int, tiny: bool, dtype: str) -> Subject:
        shape = (height // 32, width // 32) if tiny else (height, width)
        latents, channels, bands = (8, 32, 4) if tiny else (512, 1024, 64)
        kind = jnp.dtype(dtype)
        model = Read(
            Pixels(num_bands=bands, dtype=kind), CrossAttention(dtype=kind), latents, channels
        )
        attention = flops.attention(
            latents, shape[0] * shape[1], channels, 3 + 2 * (2 * bands + 1), None, None
        )
        total = batch_size * (attention + flops.mlp(latents, channels, 1))
        return Subject(model, image_batch(batch_size, *shape), total, latents)

    return make


def config(variant: str, size: int = 224, channels: int = 3, family=imagenet):
    """A classifier of `configs/imagenet.py`, or another file, on square images."""

    def make(batch_size: int, tiny: bool, dtype: str) -> Subject:
        config = family.get_config(f"{variant}:tiny" if tiny else variant)
        config.batch_size = batch_size
        config.model.dtype = dtype
        model = build(config.model.to_dict())
        edge = 16 if tiny else size
        shape = batch_size, edge, edge, channels
        batch = image_batch(*shape, num_classes=config.model.output.num_classes)
        encoder = config.model.encoder
        return Subject(
            model,
            batch,
            textbook(model, batch),
            encoder.num_latents,
            encoder.num_cross_attends,
            config=config,
        )

    return make


def released(name: str, chunks: int = 1, **other_sizes):
    """One of the released models."""

    def make(batch_size: int, tiny: bool, dtype: str) -> Subject:
        values = sizes.get_config(f"{name}:tiny" if tiny else name).to_dict()
        known = pretrained.released(**values | PORT[name] | other_sizes)
        model = build(known.spec | {"dtype": dtype})
        batch = {
            n: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)
            for n, x in known.batch.items()
        }
        if name.startswith("imagenet"):
            shape = (batch_size, known.spec["output"]["num_classes"])
            batch["target"] = jax.ShapeDtypeStruct(shape, jnp.float32)
        return Subject(
            model,
            batch,
            textbook(model, batch),
            values["num_latents"],
            released=known,
            chunks=min(chunks, 4) if tiny else chunks,
        )

    return make


def clip(batch_size: int, tiny: bool, dtype: str) -> Subject:
    """The inputs, outputs and loss of a training step of `configs/kinetics.py`."""
    config = kinetics.get_config("tiny" if tiny else "")
    config.batch_size = batch_size
    config.model.dtype = dtype
    outputs, settings = config.model.output.modalities, config.autoencode
    prepare = functools.partial(
        autoencode.prepare_clips,
        num_classes=outputs.label.num_classes,
        samples_per_patch=outputs.audio.samples_per_patch,
        outputs=settings.train_outputs.to_dict(),
    )
    samples = outputs.audio.num_patches * outputs.audio.samples_per_patch
    batch = {
        "video": jax.ShapeDtypeStruct((batch_size, *outputs.video.shape, 3), jnp.uint8),
        "audio": jax.ShapeDtypeStruct((batch_size, samples), jnp.float32),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    mask = jax.ShapeDtypeStruct((batch_size,), bool)
    model = build(config.model.to_dict())
    prepared = jax.eval_shape(prepare, batch | {"mask": mask}, jax.random.key(0))
    return Subject(
        model,
        batch,
        batch_size * flops.textbook(model, one_of(prepared)),
        config.model.encoder.num_latents,
        config=config,
        prepare=prepare,
        loss=functools.partial(
            autoencode.weighted_loss,
            autoencode.loss_functions(settings.losses),
            settings.loss_weights.to_dict(),
        ),
    )


def sound(samples: int):
    """A classifier of raw sound with the ImageNet model's encoder; each sample is a token."""

    def make(batch_size: int, tiny: bool, dtype: str) -> Subject:
        encoder = imagenet.get_config("fourier:tiny" if tiny else "fourier").model.encoder
        bands, classes = (4, 10) if tiny else (64, 527)  # AudioSet's classes
        kind = jnp.dtype(dtype)
        model = perceiver.Perceiver(
            Patches(samples_per_patch=1, num_bands=bands, dtype=kind),
            perceiver.Encoder(**encoder, dtype=kind),
            perceiver.Decoder(dtype=kind),
            Classification(classes, encoder.latent_channels, dtype=kind),
        )
        batch = {
            "audio": jax.ShapeDtypeStruct((batch_size, 256 if tiny else samples), jnp.float32),
            "target": jax.ShapeDtypeStruct((batch_size, classes), jnp.float32),
        }
        return Subject(model, batch, textbook(model, batch), encoder.num_latents)

    return make


def sequence(length: int):
    """A training step of Perceiver AR with 1,024 latents, of `length` inputs."""

    def make(batch_size: int, tiny: bool, dtype: str) -> Subject:
        config = ar_configs.get_config("copy_131k:tiny" if tiny else "copy_131k")
        config.batch_size = batch_size
        config.model.dtype, config.model.dropout_rate = dtype, 0.0
        total = config.model.max_length if tiny else length
        config.model.max_length = total
        if not tiny:
            config.model.update({"channels": 256, "num_layers": 2})
            config.model.update({"num_cross_attend_heads": 4, "num_self_attend_heads": 4})
        model = build(config.model.to_dict())

        def prepare(batch, key):
            whole = jnp.full((batch_size,), total + 1, jnp.int32)
            batch = batch | {"num_ids": whole, "num_scored": whole}
            return ar.prepare_ids(batch, key, num_latents=model.num_latents)

        batch = {"ids": jax.ShapeDtypeStruct((batch_size, total + 1), jnp.uint16)}
        mask = {"mask": jax.ShapeDtypeStruct((batch_size,), bool)}
        prepared = jax.eval_shape(prepare, batch | mask, jax.random.key(0))
        return Subject(
            model,
            batch,
            batch_size * flops.forward(model, one_of(prepared)),
            model.num_latents,
            config=config,
            prepare=prepare,
            loss=functools.partial(ar.loss, z_loss=config.ar.z_loss),
        )

    return make


# Squares and doubled squares: 2^12 to 2^24 pixels, in single doublings at the end.
SWEEP = ((64, 64), (128, 128), (256, 256), (512, 512), (1024, 1024), (2048, 2048), (2048, 4096),
         (4096, 4096))  # fmt: skip

TORCH = ("dense", "torch", "torch_compile")
REMAT = tuple(f"remat_{policy}" for policy in perceiver.REMAT_POLICIES if policy != "dots")

CASES: Mapping[str, Case] = {
    "cross_attention_224": Case("cross_attention", BOTH, read(224, 224), batch_size=2),
    "imagenet_fourier_b1": Case("imagenet", BOTH, released("imagenet_fourier"), against=TORCH),
    "imagenet_fourier_b4": Case("imagenet", BOTH, released("imagenet_fourier"), 4, TORCH),
    # On 256 pixels nearly all the work is in the latent layers.
    "imagenet_fourier_16x16": Case(
        "latents", BOTH, released("imagenet_fourier", image_size=16), against=(*TORCH, *REMAT)
    ),
    **{
        name: Case("released", BOTH, released(name), against=TORCH)
        for name in ("imagenet_learned", "imagenet_conv", "language")
    },
    # Small products: here passes over memory and the dispatch of each operation count.
    "mnist_pixels": Case(
        "mnist", ("train",), config("pixels", 28, 1, mnist), 64, against=("dense", *REMAT)
    ),
    "perceiver_2021": Case("perceiver", ("train",), config("perceiver"), against=("dense", *REMAT)),
    "flow_368x496": Case("flow", ("forward",), released("flow"), against=TORCH),
    # 128 chunks, as the released notebook has it.
    "kinetics_clip": Case(
        "kinetics",
        ("autoencode",),
        released("kinetics", chunks=128),
        against=("rerun", *TORCH),
    ),
    "kinetics_step": Case("kinetics_train", ("train",), clip),
    "pixels_1m": Case("megapixels", BOTH, config("fourier", size=1024)),
    "pixels_16m": Case("megapixels", BOTH, config("fourier", size=4096)),
    "audio_1m": Case("audio", BOTH, sound(samples=2**20)),
    **{f"ar_{m}": Case("ar", ("train",), sequence(m)) for m in (4096, 16_384, 65_536, 131_072)},
    **{f"sweep_{h}x{w}": Case("sweep", BOTH, read(h, w)) for h, w in SWEEP},
}
SUITES = tuple(dict.fromkeys(case.suite for case in CASES.values()))
CURVES = ("sweep",)  # suites of one model on growing inputs, which are plotted
