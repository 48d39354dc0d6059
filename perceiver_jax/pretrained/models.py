"""The six released Perceiver IO models, as specs for `build.build` at any size.

| name               | parameters  | task                                     | published          |
|--------------------|-------------|------------------------------------------|--------------------|
| `imagenet_learned` | 62,255,848  | ImageNet, learned positions              | 72.7 top-1         |
| `imagenet_fourier` | 48,440,627  | ImageNet, Fourier positions              | 79.0 top-1         |
| `imagenet_conv`    | 48,646,522  | ImageNet, convolutional stem             | 82.1 top-1         |
| `language`         | 201,108,230 | masked bytes                             | GLUE 81.0          |
| `flow`             | 41,057,134  | optical flow                             | Sintel 1.81 / 2.42 |
| `kinetics`         | 19,858,855  | video + sound + label autoencoding       | 24.37 / 26.97 dB   |

Where the code and the paper differ, the sizes are the code's and so the released weights'.
The file is longer than others because it spells out the six models, one function each.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from perceiver_jax import perceiver
from perceiver_jax.build import build
from perceiver_jax.config_types import (
    Bands,
    Channels,
    Pixels,
    Range,
    Size,
    check,
    check_known,
    declared_fields,
)


@dataclasses.dataclass(frozen=True)
class Released:
    """One of the six architectures at some size.

    Attributes:
      name: of the model.
      spec: for `build.build`.
      batch: what a prepared batch of one example holds: arrays' shapes and types by name.
    """

    name: str
    spec: Mapping[str, Any]
    batch: Mapping[str, jax.ShapeDtypeStruct]

    def build(self) -> perceiver.Perceiver:
        """The model."""
        return build(self.spec)

    @functools.cached_property
    def shapes(self) -> Any:
        """The variables' shapes and types: those of `init`, computed without any array."""
        model = self.build()

        def init():
            batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(self.batch))
            return model.init(jax.random.key(0), batch, train=False)

        return jax.eval_shape(init)


def released(name: str, *, section: str = "sizes", **sizes) -> Released:
    """One of the six by name; `sizes` are arguments of the function of that name in this file.

    Raises:
      ConfigError: a size of the `section` is unknown, or its value not allowed.
    """
    if name not in MODELS:
        raise ValueError(f"no released model {name!r}; there are {sorted(MODELS)}")
    hints = declared_fields(MODELS[name])[0] | declared_fields(perceiver.Encoder)[0]
    hints.pop("encoder")  # the function's other arguments: the encoder's fields
    check_known(hints, sizes, section)
    for key, value in sizes.items():
        check(hints[key], value, f"{section}.{key}")
    return MODELS[name](**sizes)


def described(spec: Mapping[str, Any], batch: Mapping[str, jax.ShapeDtypeStruct]) -> Released:
    """The one of the six that a config's `model` section describes, at its sizes.

    Args:
      spec: as for `build.build`; its `input` and `output` modules say which model it is.
      batch: arrays' shapes and types of a prepared batch.

    Raises:
      ValueError: none of them has these modules.
    """
    modules = {name: modules_of(name) for name in MODELS}
    wanted = (spec["input"]["module"], spec["output"]["module"])
    for name, ends in modules.items():
        if ends == wanted:
            return Released(name, spec, batch)
    lines = "\n  ".join(f"{name}: {ends[0]}, {ends[1]}" for name, ends in modules.items())
    raise ValueError(
        f"config.model, from {wanted[0]} to {wanted[1]}, is none of the released models, so their "
        f"weights do not fit:\n  {lines}\nconfig.start.fresh=('output',) starts from all of theirs "
        "but the output"
    )


def modules_of(name: str) -> tuple[str, str]:
    """The modules of a released model's input and output, as a config names them."""
    spec = MODELS[name]().spec
    return spec["input"]["module"], spec["output"]["module"]


def _imagenet(kind, module, image_size, num_classes, residual, encoder) -> Released:
    encoder = {"num_blocks": 8, "num_self_attends_per_block": 6} | encoder
    channels = encoder.get("latent_channels", 1024)
    return Released(
        f"imagenet_{kind}",
        {
            "dtype": "float32",
            "input": module,
            "encoder": encoder,
            "decoder": {"module": "Decoder", "query_residual": residual},
            "output": {
                "module": "label.Classification",
                "num_classes": num_classes,
                "query_channels": channels,
            },
        },
        {"image": _float(image_size, image_size, 3)},
    )


def imagenet_learned(
    *,
    image_size: Pixels = 224,
    num_classes: Size = 1000,
    channels: Channels = 256,
    position_channels: Channels = 256,
    **encoder,
) -> Released:
    """Learned positions. As in the released notebook, no query is added to the output."""
    module = {
        "module": "image.LearnedPositions",
        "channels": channels,
        "position_channels": position_channels,
    }
    return _imagenet("learned", module, image_size, num_classes, False, encoder)


def imagenet_fourier(
    *, image_size: Pixels = 224, num_classes: Size = 1000, num_bands: Bands = 64, **encoder
) -> Released:
    """Fourier positions; at any image size their bands are those of 224 pixels."""
    module = {
        "module": "image.Pixels",
        "num_bands": num_bands,
        "max_resolution": (image_size, image_size),
    }
    return _imagenet("fourier", module, image_size, num_classes, True, encoder)


def imagenet_conv(
    *,
    image_size: Annotated[int, Range(4, 2**16)] = 224,
    num_classes: Size = 1000,
    channels: Channels = 64,
    num_bands: Bands = 64,
    **encoder,
) -> Released:
    """Convolution, batch norm, max-pool: 56 x 56 tokens."""
    module = {
        "module": "image.ConvStem",
        "channels": channels,
        "num_bands": num_bands,
        "max_resolution": (image_size // 4, image_size // 4),
    }
    return _imagenet("conv", module, image_size, num_classes, True, encoder)


def language(
    *,
    length: Size = 2048,
    channels: Channels = 768,
    qk_channels: Channels = 256,
    num_heads: Channels = 8,
    **encoder,
) -> Released:
    """Bytes in, logits of the bytes out."""
    encoder = {
        "num_latents": 256,
        "latent_channels": 1280,
        "num_blocks": 1,
        "num_self_attends_per_block": 26,
        "num_cross_attend_heads": num_heads,
        "num_self_attend_heads": num_heads,
    } | encoder
    encoder |= {
        "cross_attend_qk_channels": qk_channels,
        "cross_attend_v_channels": encoder["latent_channels"],
        "self_attend_qk_channels": qk_channels,
        "self_attend_v_channels": encoder["latent_channels"],
    }
    return Released(
        "language",
        {
            "dtype": "float32",
            "embedding": {"module": "text.Embedding", "channels": channels},
            "input": {"module": "text.Bytes", "max_length": length},
            "encoder": encoder,
            "decoder": {
                "module": "Decoder",
                "num_heads": num_heads,
                "qk_channels": qk_channels,
                "v_channels": channels,
                "query_residual": False,
            },
            "output": {
                "module": "text.TiedLogits",
                "max_length": length,
                "query_channels": channels,
            },
        },
        {
            "text": jax.ShapeDtypeStruct((1, length), jnp.int32),
            "text_mask": jax.ShapeDtypeStruct((1, length), jnp.bool_),
        },
    )


def flow(
    *,
    height: Pixels = 368,
    width: Pixels = 496,
    channels: Channels = 64,
    num_bands: Bands = 64,
    **encoder,
) -> Released:
    """Two frames in, displacements in pixels out."""
    encoder = {
        "num_latents": 2048,
        "latent_channels": 512,
        "num_blocks": 1,
        "num_self_attends_per_block": 24,
        "num_self_attend_heads": 16,
    } | encoder
    shape = (height, width)
    return Released(
        "flow",
        {
            "dtype": "float32",
            "input": {
                "module": "flow.FramePair",
                "channels": channels,
                "num_bands": num_bands,
                "max_resolution": shape,
            },
            "encoder": encoder,
            "decoder": {"module": "Decoder", "query_residual": False},
            "output": {"module": "flow.Flow", "shape": shape},
        },
        {"frames": _float(2, *shape, 3)},
    )


def kinetics(
    *,
    num_frames: Pixels = 16,
    image_size: Annotated[int, Range(4, 2**16)] = 224,
    samples_per_frame: Size = 1920,
    samples_per_patch: Size = 16,
    num_classes: Size = 700,
    audio_bands: Bands = 192,
    video_bands: Bands = 32,
    label_query_channels: Channels = 1024,
    output_channels: Channels = 512,
    **encoder,
) -> Released:
    """Video, sound and label in and out; the input label is always masked."""
    encoder = {
        "num_latents": 784,
        "latent_channels": 512,
        "num_blocks": 1,
        "num_self_attends_per_block": 8,
    } | encoder
    samples = num_frames * samples_per_frame
    video_shape = (num_frames, image_size, image_size)
    audio = {
        "samples_per_patch": samples_per_patch,
        "num_bands": audio_bands,
        "max_resolution": (samples,),
    }
    video = {
        "num_bands": video_bands,
        "max_resolution": (num_frames, image_size // 4, image_size // 4),
    }
    label = {"module": "label.Classification", "num_classes": num_classes}
    return Released(
        "kinetics",
        {
            "dtype": "float32",
            "input": {
                "module": "multimodal.Inputs",
                "modalities": {
                    "audio": {"module": "audio.Patches", **audio},
                    "label": {"module": "label.OneHot", "num_classes": num_classes},
                    "video": {"module": "video.Blocks", **video},
                },
                "mask_rates": {"label": 1.0},
                "min_padding": 4,
            },
            "encoder": encoder,
            "decoder": {"module": "Decoder", "query_residual": False},
            "output": {
                "module": "multimodal.Outputs",
                "modalities": {
                    "audio": {
                        "module": "audio.Samples",
                        "num_patches": samples // samples_per_patch,
                        **audio,
                    },
                    "label": label | {"query_channels": label_query_channels},
                    "video": {"module": "video.Pixels", "shape": video_shape, **video},
                },
                "channels": output_channels,
                "min_padding": 2,
            },
        },
        {
            "audio": _float(samples),
            "label": jax.ShapeDtypeStruct((1,), jnp.int32),
            "video": _float(*video_shape, 3),
        },
    )


def _float(*shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


MODELS: Mapping[str, Callable[..., Released]] = {
    function.__name__: function
    for function in (
        imagenet_learned,
        imagenet_fourier,
        imagenet_conv,
        language,
        flow,
        kinetics,
    )
}

_TINY_ENCODER = {"num_latents": 8, "latent_channels": 32, "num_self_attends_per_block": 2}
TINY: Mapping[str, Mapping[str, int]] = {  # sizes for `released` that a CPU runs in seconds
    "imagenet_learned": {"image_size": 32, "channels": 16, "position_channels": 16} | _TINY_ENCODER,
    "imagenet_fourier": {"image_size": 32, "num_bands": 6} | _TINY_ENCODER,
    "imagenet_conv": {"image_size": 32, "num_bands": 6} | _TINY_ENCODER,
    "language": {"length": 128, "channels": 32, "qk_channels": 16} | _TINY_ENCODER,
    "flow": {"height": 32, "width": 48, "channels": 16, "num_bands": 6} | _TINY_ENCODER,
    "kinetics": {
        "num_frames": 4,
        "image_size": 32,
        "samples_per_frame": 64,
        "num_classes": 10,
        "audio_bands": 8,
        "video_bands": 6,
        "label_query_channels": 40,
        "output_channels": 24,
        **_TINY_ENCODER,
    },
}
