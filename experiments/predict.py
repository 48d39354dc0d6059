"""Predicts with a released model, or with one of its kind at another size.

    python -m experiments.predict --model=imagenet_conv --input=cat.jpg --input=dog.jpg \\
        --output=predictions
    python -m experiments.predict --model=language --output=predictions \\
        --input='This is an incomplete sentence where some words are[MASK*9]'
    python -m experiments.predict --model=flow --input=first.png --input=second.png \\
        --output=predictions
    python -m experiments.predict --model=kinetics --input=clip.mp4 --output=predictions

The results are written to the folder `--output` and printed:

    imagenet_*   predictions.json: the likeliest classes of each image. --native_size predicts from
                 whole images at their own size (not with learned positions).
    language     filled.txt. [MASK] hides one byte, [MASK*9] nine; the input may be a .txt file.
    flow         flow.flo and flow.png (hue: direction, saturation: length, full at 24 pixels).
    kinetics     clip.mp4, audio.wav and predictions.json (pip install -e '.[video]').
                 The video is a file, resampled to --frame_rate, or a folder of images. The sound is
                 the file's, resampled too, or that of a second --input, a .wav, which
                 starts with the video and is cut to it (released: 1,920 samples a frame).

Classes have the names in the id2label of a Hugging Face config.json, or for official ImageNet
weights WordNet ids (n02123045). --labels=FILE gives other names, one a line.

Compiled programs are kept in the user's cache, or in --compilation_cache=FOLDER ('none' keeps
none), so the second prediction starts sooner.

--model is a released name or a Hugging Face id such as deepmind/vision-perceiver-fourier (fetched
once and cached), or an address, a file or a folder with weights. --random_weights needs none: an
untrained model, whose predictions mean nothing (its flow is zero). For other sizes than the
released ones:

    python -m experiments.predict --model=flow --random_weights \\
        --config=configs/released/sizes.py:flow:tiny --config.height=40 --input=...
"""

# One file, because the four kinds of models share their flags, files and progress.

import json
import pathlib
import sys
import time

import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import command
from perceiver_jax import files, inference, plots, pretrained
from perceiver_jax.files.paths import read_text, user_path
from perceiver_jax.inference import clips
from perceiver_jax.pretrained.download import cache_directory
from perceiver_jax.train import compilation
from perceiver_jax.train.log import duration


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("model", None, "A released name, or weights; see above.", **where)
    text = "What to predict for, see above; may repeat."
    flags.DEFINE_multi_string("input", None, text, **where)
    flags.DEFINE_string("output", None, "Folder of the results, made if not there.", **where)
    config_flags.DEFINE_config_file("config", None, "Other sizes, see above.", **where)
    flags.DEFINE_bool("random_weights", False, "Use an untrained model.", **where)
    flags.DEFINE_integer("seed", 0, "Of the random weights.", 0, **where)
    text = "See `pretrained.load`: Hugging Face imagenet_conv."
    flags.DEFINE_enum("conv_kernel", None, ["OIHW", "OIWH"], text, **where)
    text = "Text file of class names, one a line, instead of those the weights know."
    flags.DEFINE_string("labels", None, text, **where)
    flags.DEFINE_integer("top", 5, "How many classes to name.", 1, **where)
    flags.DEFINE_bool("native_size", False, "Images: neither crop nor resize.", **where)
    text = "Flow: pixels that tiles share at least."
    flags.DEFINE_integer("min_overlap", 20, text, 0, **where)
    text = "Video: queries decoded at a time; fewer need less memory."
    flags.DEFINE_integer("chunk_size", 8192, text, 1, **where)
    text = "Video: clips of the model's length (16 frames); 0: all."
    flags.DEFINE_integer("max_clips", 1, text, 0, **where)
    text = "Video: frames per second that the model gets."
    flags.DEFINE_float("frame_rate", 25.0, text, **where)
    flags.register_validator(
        "frame_rate", lambda x: 1 <= x <= 1000, "write a number from 1 to 1000", **where
    )
    command.define_cache(values)
    flags.mark_flags_as_required(["model", "input", "output"], **where)


def load_model():
    """Loads the (model, variables) that the flags name."""
    chosen, released = flags.FLAGS, None
    if chosen.config is not None:
        sizes = chosen.config.to_dict()
        if not isinstance(sizes.get("name"), str):
            raise ValueError(
                "config.name is missing: --config takes the sizes of a released model, such as "
                "configs/released/sizes.py:flow"
            )
        released = pretrained.released(section="config", **sizes)
        if chosen.model in pretrained.MODELS and chosen.model != released.name:
            raise ValueError(f"--model={chosen.model}, but --config is of {released.name}")
    if not chosen.random_weights:
        return pretrained.load(chosen.model, model=released, conv_kernel=chosen.conv_kernel)
    released = released or pretrained.released(chosen.model)
    return inference.random_weights(released, chosen.seed)


def bar(unit: str):
    """Shows progress on stderr: one line rewritten in a terminal, else a line for each tenth."""
    start = time.monotonic()
    terminal = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if not terminal and done < total and done * 10 // total == (done - 1) * 10 // total:
            return
        spent = time.monotonic() - start
        left = f"{duration(spent / done * (total - done))} left" if done else "compiling"
        filled = 24 * done // total
        line = f"[{'#' * filled}{'.' * (24 - filled)}] {done}/{total} {unit} | {left}"
        ending = "\n" if done == total or not terminal else ""
        print(f"\r{line:<70}" if terminal else line, end=ending, file=sys.stderr, flush=True)

    return show


def class_names(model) -> list[str] | None:
    """Returns the classes' names, of --labels or of the weights; None if there are none."""
    output = getattr(model.output, "modalities", {"label": model.output}).get("label")
    num_classes = getattr(output, "num_classes", None)
    if num_classes is None:
        return None
    file = flags.FLAGS.labels
    if file:
        names = read_text(file).splitlines()
        if "" in map(str.strip, names):
            number = [name.strip() for name in names].index("") + 1
            raise ValueError(f"--labels={file}, line {number} is blank: write one name a line")
        if len(names) != num_classes:
            raise ValueError(
                f"--labels={file} has {len(names)} lines, the model {num_classes} classes"
            )
        return names
    if flags.FLAGS.random_weights:
        return None
    return pretrained.class_names(flags.FLAGS.model, num_classes)


def describe(labels: inference.TopK, names: list[str] | None) -> list[list[dict]]:
    """Turns the classes of each example into records."""
    return [
        [
            {"class": int(c), "probability": float(p)} | ({"name": names[c]} if names else {})
            for c, p in zip(classes, chances, strict=True)
        ]
        for classes, chances in zip(*labels, strict=True)
    ]


def lines(title: str, records: list[dict]) -> list[str]:
    """The classes of one example, to print."""
    names = (record.get("name", f"class {record['class']}") for record in records)
    chances = (record["probability"] for record in records)
    return [title, *(f"  {p:6.1%}  {name}" for p, name in zip(chances, names, strict=True))]


def write_json(path: pathlib.Path, content) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def classify(model, variables, inputs, output, names) -> tuple[list[pathlib.Path], list[str]]:
    """Classifies images."""
    images = [files.read_image(path) for path in inputs]
    labels = inference.classify(
        model,
        variables,
        images,
        k=flags.FLAGS.top,
        native_size=flags.FLAGS.native_size,
        progress=bar("images"),
    )
    records = dict(zip(inputs, describe(labels, names), strict=True))
    write_json(output / "predictions.json", records)
    text = [line for path, record in records.items() for line in lines(path, record)]
    return [output / "predictions.json"], text


def fill_masks(model, variables, inputs, output, names) -> tuple[list[pathlib.Path], list[str]]:
    """Fills in hidden bytes; `inputs` are texts or .txt files."""
    texts = [read_text(x).removesuffix("\n") if x.endswith(".txt") else x for x in inputs]
    results = []
    show = bar("texts")
    show(0, len(texts))
    for i, text in enumerate(texts):
        results.append(inference.fill_masks(model, variables, text))
        show(i + 1, len(texts))
    path = output / "filled.txt"
    path.write_text("".join(f"{result.text}\n" for result in results), encoding="utf-8")
    text = []
    for result in results:
        text += [result.text, " ".join(("  filled in:", *map(repr, result.fills)))]
    return [path], text


def optical_flow(model, variables, inputs, output, names) -> tuple[list[pathlib.Path], list[str]]:
    """Estimates the displacement from the first image to the second."""
    if len(inputs) != 2:
        raise ValueError(f"optical flow needs two images, --input twice; got {len(inputs)}")
    flow = inference.optical_flow(
        model,
        variables,
        *map(files.read_image, inputs),
        min_overlap=flags.FLAGS.min_overlap,
        progress=bar("tiles"),
    )
    files.write_flo(output / "flow.flo", flow)
    files.write_image(output / "flow.png", plots.flow_colours(flow))
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    text = f"displacement: mean {lengths.mean():.2f}, largest {lengths.max():.2f} pixels"
    return [output / "flow.flo", output / "flow.png"], [text]


def autoencode(model, variables, inputs, output, names) -> tuple[list[pathlib.Path], list[str]]:
    """Encodes and decodes a video and its sound."""
    if len(inputs) > 2:
        raise ValueError(f"a video and its sound, --input twice; got {len(inputs)}")
    frames, samples = clips.clip_lengths(model)
    size = model.output.modalities["video"].shape[1]
    rate = flags.FLAGS.frame_rate
    sample_rate = round(rate * samples / frames)
    video, audio = files.read_video(
        inputs[0],
        size,
        frames_per_second=rate,
        samples_per_second=sample_rate,
        max_frames=frames * flags.FLAGS.max_clips if flags.FLAGS.max_clips else None,
    )
    count = len(video) // frames
    if not count:
        raise ValueError(f"{inputs[0]} has {len(video)} frames, the model needs {frames}")
    if len(inputs) == 2:
        audio, given_rate = files.read_wav(inputs[1])
        if len(audio) < count * samples:
            raise ValueError(
                f"{inputs[1]} has {len(audio)} samples; {count * frames} frames need "
                f"{count * samples} ({samples // frames} each)"
            )
        if given_rate != sample_rate:
            print(
                f"note: at {rate:g} frames/s the model reads {sample_rate} samples/s, {inputs[1]} "
                f"has {given_rate}: sound and video drift apart"
            )
    elif audio is None:
        print("no sound given: silence")
        audio = np.zeros(count * samples, np.float32)
    clip = inference.autoencode(
        model,
        variables,
        video[: count * frames],
        audio[: count * samples],
        k=flags.FLAGS.top,
        chunk_size=flags.FLAGS.chunk_size,
        progress=bar("chunks"),
    )
    paths = [output / name for name in ("clip.mp4", "audio.wav", "predictions.json")]
    files.write_mp4(
        paths[0], clip.video, clip.audio, frames_per_second=rate, samples_per_second=sample_rate
    )
    files.write_wav(paths[1], clip.audio, sample_rate)
    records = describe(clip.labels, names)
    write_json(paths[2], records)
    text = []
    for i, record in enumerate(records):
        text += lines(f"clip {i}: frames {i * frames} to {(i + 1) * frames - 1}", record)
    return paths, text


TASKS = {
    "TiedLogits": fill_masks,
    "Flow": optical_flow,
    "Outputs": autoencode,
    "Classification": classify,
}


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without Unicode shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    command.keep_programs(cache_directory() / compilation.FOLDER)
    model, variables = load_model()
    names = class_names(model)
    task = TASKS[type(model.output).__name__]
    output = user_path(flags.FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    paths, text = task(model, variables, flags.FLAGS.input, output, names)
    print(*text, *(f"wrote {path}" for path in paths), sep="\n")


if __name__ == "__main__":
    command.run(main, define_flags)
