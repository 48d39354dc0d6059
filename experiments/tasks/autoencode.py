"""Autoencoding of video, sound and label: a config to a `Task`. Composition only.

Training decodes some outputs of each example, drawn again in every step. Evaluation decodes all
outputs, in chunks, and may hide some modalities of the input. The file is long because the plots
and counts of this task are here too.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import (
    Clip,
    class_names,
    clip_reading,
    evaluation_line,
    read_clips,
    require_shapes,
)
from experiments.tasks.data import Data, open_data
from perceiver_jax import flops, losses, maps, metrics, perceiver, plots
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError, Count, NonNegative, Size
from perceiver_jax.inference import clips
from perceiver_jax.tokens import token_sets
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task

METRICS = {
    "psnr_video": ("video", metrics.psnr),
    "psnr_audio": ("audio", metrics.psnr),
    "accuracy": ("label", metrics.top_accuracy(1)),
}


class Hidden(TypedDict):
    """A section with what evaluation hides from the model."""

    eval_hidden: tuple[str, ...]  # modalities


class Autoencode(Hidden):
    """The fields of `config.autoencode`, by modality where there are several."""

    losses: Mapping[str, str]  # functions of losses.py
    loss_weights: Mapping[str, NonNegative]
    train_outputs: Mapping[str, Size]  # decoded per example and training step
    eval_chunk_size: Count  # outputs decoded at a time


class Config(loop.Config):
    """The fields of the config."""

    data: Data
    autoencode: Autoencode


def check_sizes(config: Config) -> None:
    """Raises ConfigError where a modality or loss is named that does not exist."""
    section = config["autoencode"]
    check_modalities(config, "autoencode", section)
    loss_functions(section["losses"])


def check_modalities(config: Mapping[str, Any], name: str, section: Mapping[str, Any]) -> None:
    """Raises ConfigError where `config.NAME` names a modality that the model does not have."""
    known = sorted(config["model"]["input"].get("modalities", ()))
    for field, value in section.items():
        if isinstance(value, Mapping | tuple) and (unknown := sorted(set(value) - set(known))):
            raise ConfigError(f"config.{name}.{field} names {unknown}: choose from {known}")


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the lists of the data and one example."""
    settings = config.autoencode
    spec = config.model.to_dict()
    model = build(spec)
    num_classes = spec["output"]["modalities"]["label"]["num_classes"]
    task_data = open_data(config, num_classes=num_classes)
    field = "config.model.output.modalities.label.num_classes"
    require_classes(task_data.eval_source, num_classes, field)
    prepare = functools.partial(
        prepare_clips,
        num_classes=num_classes,
        samples_per_patch=spec["output"]["modalities"]["audio"]["samples_per_patch"],
        outputs=settings.train_outputs.to_dict(),
    )
    example = task_data.first_examples(1)
    training = jax.eval_shape(prepare, example, jax.random.key(0))
    evaluation = jax.eval_shape(lambda batch: prepare(batch, None), example)
    models = {case: hide(spec, names) for case, names in views(spec, settings.eval_hidden).items()}
    predicts = {
        case: functools.partial(reconstruct, shown, settings.eval_chunk_size)
        for case, shown in models.items()
    }
    size, whole = flops.textbook(model, training), flops.textbook(model, evaluation)
    padded, raw = compression(model, evaluation)
    return task_data.sized_task(
        model,
        prepare,
        example,
        size,
        loss=functools.partial(
            weighted_loss, loss_functions(settings.losses), settings.loss_weights.to_dict()
        ),
        metrics={name: functools.partial(measure, *which) for name, which in METRICS.items()},
        predict=predicts[""],
        plots=functools.partial(
            draw,
            models[""],
            predicts,
            prepare,
            task_data,
            config.data.source_options.frames_per_second,
        ),
        about=(
            describe_hidden(settings.eval_hidden),
            f"{size / 1e9:.3g} GFLOP per example, {whole / 1e9:.3g} with all outputs (forward, "
            "textbook)",
            f"compression {padded:.1f}x of the tokens' channels with padding (the paper's way of "
            f"counting), {raw:.2f}x of the values themselves",
        ),
    )


def ask(config: ConfigDict) -> Clip:
    """How the model of a run answers a video and its sound; needs no data."""
    data, spec = config.data, config.model.to_dict()
    prepare, example = evaluation_line(config, "video", "audio")
    reading = clip_reading(config)
    size, rate = reading["short_side"], reading["frames_per_second"]
    samples_per_second = reading["samples_per_second"]
    frames, samples = len(example["video"]), len(example["audio"])

    def read(paths, max_clips):
        video, audio = read_clips(
            paths,
            size,
            frames=frames,
            samples=samples,
            frames_per_second=rate,
            samples_per_second=samples_per_second,
            max_clips=max_clips,
            square=False,
        )
        count = len(video) // frames
        clips = [
            require_shapes(prepare({"video": piece, "audio": sound}), example, data.eval)
            for piece, sound in zip(np.split(video, count), np.split(audio, count), strict=True)
        ]
        return tuple(np.concatenate([x[name] for x in clips]) for name in ("video", "audio"))

    return Clip(
        model=hide(spec, {*config.autoencode.eval_hidden, "label"}),
        read=read,
        frames_per_second=rate,
        samples_per_second=samples_per_second,
        names=class_names(config, spec["output"]["modalities"]["label"]["num_classes"]),
    )


def describe_hidden(names: tuple[str, ...]) -> str:
    """The line of a task's description that names what the evaluation hides."""
    return f"eval: hidden from the model: {', '.join(names) or 'nothing'}"


def require_classes(source, num_classes: int, field: str) -> None:
    """Refuses data of more classes than the model's, which `field` of the config sets."""
    found = len(getattr(source, "classes", ()))
    if found > num_classes:
        raise ValueError(f"{source!r} has {found} classes, but {field}={num_classes}")


def prepare_clips(batch, key, *, num_classes, samples_per_patch, outputs):
    """uint8 `video`, `audio`, `label` -> float `video` in [0, 1] and `target`, on the device.

    In training (with a `key`) also `indices`: for each example, the pixels and patches of sound to
    decode, `outputs` of each, drawn with replacement; `target` holds only these. The mask leaves
    out examples that are not `readable`.
    """
    video = batch["video"].astype(jnp.float32) / 255
    target = {
        "video": video,
        "audio": batch["audio"],
        "label": jax.nn.one_hot(batch["label"], num_classes),
    }
    batch = batch | {"video": video, "target": target}
    if "readable" in batch:
        batch["mask"] = batch["mask"] & batch["readable"]
    if key is None:
        return batch
    size = video.shape[0]
    places = {
        "video": video.reshape(size, -1, video.shape[-1]),  # [B, T H W, C]
        "audio": batch["audio"].reshape(size, -1, samples_per_patch),  # [B, patches, samples]
    }
    indices = {"label": None}
    for stream, (name, values) in enumerate(places.items()):
        shape = (size, outputs[name])
        chosen = jax.random.randint(
            jax.random.fold_in(key, stream), shape, 0, values.shape[1], jnp.int32
        )
        indices[name] = chosen
        target[name] = jnp.take_along_axis(values, chosen[..., None], axis=1)
    target["audio"] = target["audio"].reshape(size, -1)
    return batch | {"indices": indices}


def loss_functions(names):
    """The functions of `losses` by the modality that each is for."""
    for modality, name in names.items():
        if not hasattr(losses, name):
            raise ValueError(
                f"config.autoencode.losses.{modality}={name!r} is not in perceiver_jax/losses.py"
            )
    return {modality: getattr(losses, name) for modality, name in names.items()}


def weighted_loss(functions, weights, prediction, batch):
    """The weighted sum of the modalities' losses, `[B]`."""
    return sum(
        weight * measure(name, functions[name], prediction, batch)
        for name, weight in weights.items()
    )


def measure(name, function, prediction, batch):
    """A loss or metric of one modality."""
    return function(prediction[name], batch | {"target": batch["target"][name]})


def hide(spec, names) -> perceiver.Perceiver:
    """The model with the same parameters that does not see some modalities."""
    inputs = spec["input"]
    field = "drop_rates" if inputs.get("dropped") == "zeros" else "mask_rates"
    rates = inputs[field] | dict.fromkeys(names, 1.0)
    return build(spec | {"input": inputs | {field: rates}})


def classify_alone(spec, prepare, activation, variables, batch) -> dict[str, np.ndarray]:
    """`activation` of the logits from all modalities, and from each of them alone."""
    names = sorted(spec["input"]["modalities"])
    hidden = {"all": ()} | {f"{n} alone": tuple(m for m in names if m != n) for n in names}
    models = {title: hide(spec, others) for title, others in hidden.items()}

    @jax.jit
    def run(variables, batch):
        batch = prepare(batch, None)
        logits = {n: m.apply(variables, batch, train=False) for n, m in models.items()}
        return jax.tree.map(activation, logits)

    return jax.tree.map(np.asarray, run(variables, batch))


def views(spec, hidden) -> dict[str, tuple[str, ...]]:
    """Hidden modalities by name: "" as evaluated, then each remaining one in addition."""
    seen = [name for name in sorted(spec["input"]["modalities"]) if name not in hidden]
    besides = seen if len(seen) > 1 else []
    return {"": tuple(hidden)} | {f"_without_{name}": (*hidden, name) for name in besides}


def reconstruct(model, chunk_size, variables, batch):
    """All outputs by modality: encoded once, decoded in chunks."""
    tokens, latents = model.apply(variables, batch, train=False, method="encode")

    def decode(indices):
        return model.apply(
            variables, tokens, latents, train=False, indices=indices, method="decode"
        )

    return clips.decode_clips(decode, model.output, chunk_size)


def draw(model, predicts, prepare, task_data, frames_per_second, variables, num_examples):
    """Plots at most four clips of the evaluation: the latents' attention by modality, and the clips
    above their reconstructions, as evaluated and with one more modality hidden.
    """
    batch = task_data.first_examples(min(num_examples, 4))
    figures = draw_mass(model, prepare, variables, batch)
    names = dict(enumerate(getattr(task_data.eval_source, "classes", ())))
    for case, predict in predicts.items():
        decoded = jax.jit(lambda v, b, predict=predict: predict(v, prepare(b, None)))(
            variables, batch
        )
        figure, clip = draw_clips(batch, decoded, names, frames_per_second)
        figures |= {f"reconstructions{case}": figure, f"clips{case}": clip}
    return figures


def draw_clips(batch, decoded, names, frames_per_second):
    """Clips above their reconstructions: a figure, and a video with sound."""
    guesses = np.argmax(decoded["label"], axis=-1)
    titles = [
        f"{names.get(int(label), label)}, taken for {names.get(int(guess), guess)}"
        for label, guess in zip(batch["label"], guesses, strict=True)
    ]
    video = (np.clip(decoded["video"], 0, 1) * 255).round().astype(np.uint8)
    audio = np.clip(decoded["audio"], -1, 1)
    seen = plots.comparison(batch["video"], video, audio, frames_per_second)
    figure = plots.reconstructions(
        batch["video"],
        video,
        batch["audio"],
        audio,
        np.asarray(jax.nn.softmax(decoded["label"])),
        titles,
        samples_per_second=seen.samples_per_second,
    )
    return figure, seen


def draw_mass(model, prepare, variables, batch):
    """Each latent's attention by modality: a figure and a table."""

    @jax.jit
    def run(variables, batch):
        # One example at a time: the weights of all its tokens are an array.
        examples = jax.tree.map(lambda x: x[:, None], batch)
        found = jax.lax.map(lambda e: attention_mass(model, variables, prepare(e, None)), examples)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), found)

    mass, shares = jax.tree.map(np.asarray, run(variables, batch))
    rows = [
        {"cross_attend": name, "latent": latent} | {n: x[latent].item() for n, x in parts.items()}
        for name, parts in mass.items()
        for latent in range(model.encoder.num_latents)
    ]
    shares = {name: share.item() for name, share in shares.items()}
    rows.append({"cross_attend": "", "latent": "share of all tokens"} | shares)
    return {"attention_mass": plots.attention_mass(mass, shares), "attention_mass_table": rows}


def attention_mass(model, variables, batch):
    """The sum of each latent's attention weights over each modality's tokens.

    Returns:
      (by cross-attend and modality `[N]`, the mean over heads and examples; by modality its share
      of the tokens, which uniform attention would give).
    """
    (tokens, _), seen = model.apply(
        variables, batch, train=False, method="encode", mutable=["intermediates"]
    )
    mass = {}
    for name, inner in seen["intermediates"]["encoder"].items():
        parts = maps.split_by_modality(inner["attention"]["weights"][-1], tokens)
        # From [B, H, N, *grid] over the places of a modality, then over heads and examples.
        sums = {n: jnp.sum(x.reshape(*x.shape[:3], -1), axis=-1) for n, x in parts.items()}
        mass[name] = {n: jnp.mean(x, axis=(0, 1)) for n, x in sums.items()}
    counts = {name: part.num_tokens for name, part in tokens.items()}
    return mass, {name: count / sum(counts.values()) for name, count in counts.items()}


def compression(model, batch) -> tuple[float, float]:
    """Numbers of the input for each number of the latents, counted in two ways, for one example.

    First, all channels of all tokens, with positions and padding: the "88x" of Perceiver IO's
    Table 5 (with 480 sound tokens, where the text and the released model have 1,920). Second, only
    the pixels, samples and classes.
    """

    def read(batch):
        return model.init_with_output(
            jax.random.key(0), batch, method=lambda m, b: m.input(b, train=False)
        )[0]

    tokens = token_sets(jax.eval_shape(read, batch))
    latents = model.encoder.num_latents * model.encoder.latent_channels
    padded = sum(part.num_tokens * part.width for part in tokens)
    values = sum(np.prod(x.shape[1:]) for x in batch["target"].values())
    return padded / latents, values / latents
