"""One label of an image and a sound: a config to a `Task`. Composition only.

One trained model is evaluated with both, or with the modalities of `eval_hidden` masked.
"""

import functools

import jax
from ml_collections import ConfigDict

from experiments.tasks.ask import (
    Scores,
    class_names,
    evaluation_line,
    normalized,
    read_pixels,
    require_shapes,
)
from experiments.tasks.autoencode import (
    Hidden,
    check_modalities,
    classify_alone,
    describe_hidden,
    draw_mass,
    hide,
)
from experiments.tasks.data import Labelled, open_data
from experiments.tasks.image import prepare_images
from perceiver_jax import losses, metrics, plots
from perceiver_jax.build import build
from perceiver_jax.datasets.generated import av_digits
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Config(loop.Config):
    """The fields of the config."""

    data: Labelled
    audiovisual: Hidden


def check_sizes(config: Config) -> None:
    """Raises ConfigError where a modality is named that the model does not have."""
    check_modalities(config, "audiovisual", config["audiovisual"])


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the data's headers."""
    data, hidden = config.data, config.audiovisual.eval_hidden
    spec = config.model.to_dict()
    num_classes = spec["output"]["num_classes"]
    task_data = open_data(config, num_classes=num_classes)
    model = build(spec)
    prepare = functools.partial(
        prepare_images,
        num_classes=num_classes,
        mean=data.mean,
        std=data.std,
        label_smoothing=data.label_smoothing,
        mix_alpha=0.0,  # a mixed image would not match its sound
    )
    return task_data.task(
        model,
        prepare,
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.top_accuracy(1)},
        predict=functools.partial(hide(spec, hidden).apply, train=False),
        plots=functools.partial(draw, spec, prepare, task_data),
        about=(describe_hidden(hidden),),
    )


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers an image and a sound; needs no data."""
    data, spec = config.data, config.model.to_dict()
    prepare, example = evaluation_line(config, "image", "audio")
    model = hide(spec, config.audiovisual.eval_hidden)

    def read(paths, part=0):
        image, sound = paths
        given = {
            "image": read_pixels(image, len(data.mean)),
            "audio": av_digits.read_sound(sound, len(example["audio"])),
        }
        return require_shapes(prepare(given), example, data.eval)

    def logits(variables, batch):
        return model.apply(variables, normalized(config, "image", batch), train=False)

    return Scores(
        kinds=("image", "sound"),
        read=read,
        example=example,
        logits=logits,
        names=class_names(config, spec["output"]["num_classes"]),
    )


def draw(spec, prepare, task_data, variables, num_examples):
    """Plots predictions of the first evaluation examples from all modalities and from each alone,
    and the latents' attention by modality."""
    batch = task_data.first_examples(min(num_examples, 8))
    probabilities = classify_alone(spec, prepare, jax.nn.softmax, variables, batch)
    figure = plots.label_probabilities(batch["image"], probabilities, batch["label"])
    return {"probabilities": figure} | draw_mass(hide(spec, ()), prepare, variables, batch)
