"""Predicts with a run of your own, with a released model, or with one of its kind.

    python -m experiments.predict --model=runs/mine --input=photos --output=predictions
    python -m experiments.predict --model=runs/rds --input=left.png,right.png --output=predictions
    python -m experiments.predict --model=imagenet_conv --input=cat.jpg --input='dogs/*.jpg' \\
        --output=predictions
    python -m experiments.predict --model=language --output=predictions \\
        --input='This is an incomplete sentence where some words are[MASK*9]'
    python -m experiments.predict --model=kinetics --input=clip.mp4 --output=predictions
    python -m experiments.predict --model=runs/ar --input='def main(' --output=predictions

--input is a file, a folder (files at any depth) or a pattern, and may repeat. What cannot be read
or does not fit is left out with a message, and the exit code is then 1. Where one input is two
files, write FILE,FILE, or two folders or patterns, whose files of one name belong together; two
--input are such a pair too. The results are written to the folder `--output` and printed:

    images       predictions.json: the likeliest classes of each, or its tags. One file each; two
                 for pairs of views (left,right) and for an image with a sound (image,sound.wav).
    videos       tags: predictions.json, the mean over clips of each file, as in the evaluation.
    questions    predictions.json: the answers to all questions of the run about a text, or about
                 two, written 'A[SEP]B'.
    meshes       predictions.json, of points drawn from a mesh, or of an .npy file of points [n, 3].
    texts        filled.txt, a line for each text or .txt file. [MASK] hides a byte, [MASK*9] nine.
    flow         flow.flo and flow.png (hue: direction, saturation: length, full at 24 pixels).
    disparity    disparity.pfm and disparity.png, of the left image.
    autoencoder  clip.mp4, audio.wav and predictions.json (pip install -e '.[video]') of the first
                 --max_clips clips. An input is a video file, or a folder of the images of one,
                 and with VIDEO,SOUND.wav the sound that starts with it; else its own sound.

    sequences    runs of configs/ar.py go on with each text or .txt file for --length bytes, or to
                 its end, --samples times: predictions.json. They complete images of which the first
                 --keep of the rows are given: completed.png, completions.png. attention.png is
                 what the latents read of the first. --temperature=0 takes the likeliest; --top_k,
                 --top_p and --seed say how bytes are drawn. --fast: see docs/generation.md.

The files of several pairs, images or videos are in folders with the name of the (first) file.

--model is the workdir of a run, a released name, a Hugging Face id such as
deepmind/vision-perceiver-fourier (fetched once and cached), or an address, a file or a folder with
weights. A run reads files as its own evaluation does (`config.data.eval`), with the average of its
weights if it has one, and needs none of its data. Released models predict from the central 7/8 of
an image, or with --native_size from all of it at its own size (not with learned positions), and
from videos at --frame_rate.

Compiled programs are kept in the user's cache, or in --compilation_cache=FOLDER ('none' keeps
none), so the second prediction starts sooner.

Classes have the names that a run has saved or its data have, those in the id2label of a Hugging
Face config.json, or for official ImageNet weights WordNet ids (n02123045). --labels=FILE gives
other names, one a line.

--random_weights needs no weights: an untrained model, whose predictions mean nothing (its flow is
zero). For other sizes than the released ones:

    python -m experiments.predict --model=flow --random_weights \\
        --config=configs/released/sizes.py:flow:tiny --config.height=40 --input=...
"""

import sys
import time
from collections.abc import Sequence

from absl import flags, logging
from etils import epath
from ml_collections import config_flags

from experiments import answers, ask, check_config, command, inputs
from experiments.answers import Load
from experiments.tasks import released as released_models
from experiments.tasks.ask import Clip, Field, Questions, Scores, Text, Writer
from perceiver_jax import inference, pretrained
from perceiver_jax.config_types import ConfigError
from perceiver_jax.files.paths import read_text, user_path
from perceiver_jax.loading import load
from perceiver_jax.pretrained.download import cache_directory
from perceiver_jax.train import compilation
from perceiver_jax.train.log import duration
from perceiver_jax.train.workdir import CHECKPOINTS, CONFIG, is_workdir, load_config

Asked = Scores | Text | Questions | Field | Clip | Writer
# What a run's own config says.
RELEASED_ONLY = (
    *("config", "random_weights", "seed", "conv_kernel"),
    *("native_size", "min_overlap", "frame_rate"),
)
WRITERS_ONLY = ("length", "keep", "samples", "temperature", "top_k", "top_p", "fast")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("model", None, "A workdir, a released name or weights.", **where)
    text = "What to predict for, see above; may repeat."
    flags.DEFINE_multi_string("input", None, text, **where)
    flags.DEFINE_string("output", None, "Folder of the results, made if not there.", **where)
    config_flags.DEFINE_config_file("config", None, "Other sizes, see above.", **where)
    flags.DEFINE_bool("random_weights", False, "Use an untrained model.", **where)
    text = "Of the random weights, or of what is written."
    flags.DEFINE_integer("seed", 0, text, 0, 2**31 - 1, **where)
    text = "See `pretrained.load`: Hugging Face imagenet_conv."
    flags.DEFINE_enum("conv_kernel", None, ["OIHW", "OIWH"], text, **where)
    text = "Text file of class names, one a line, instead of those the weights know."
    flags.DEFINE_string("labels", None, text, **where)
    text = "How many inputs the model gets at once."
    flags.DEFINE_integer("batch_size", 8, text, 1, **where)
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
    define_writing(values)
    command.define_cache(values)
    flags.mark_flags_as_required(["model", "input", "output"], **where)


def define_writing(values: flags.FlagValues) -> None:
    """Defines the flags of models that write."""
    where = {"flag_values": values}
    flags.DEFINE_integer("length", 256, "Texts: how many bytes to write.", 1, **where)
    text = "Images: the share of the rows that is given."
    flags.DEFINE_float("keep", 0.5, text, 0, 1, **where)
    text = "How often to go on with each prompt."
    flags.DEFINE_integer("samples", 1, text, 1, **where)
    text = "Divides the logits; 0 takes the likeliest."
    flags.DEFINE_float("temperature", 1.0, text, 0, 1e6, **where)
    text = "Draw from so many of the likeliest; 0: from all."
    flags.DEFINE_integer("top_k", 0, text, 0, **where)
    text = "Draw from the likeliest that together have this probability."
    flags.DEFINE_float("top_p", 1.0, text, 1e-6, 1, **where)
    text = "Predict from N / 2 + 1 to N latents instead of always N."
    flags.DEFINE_bool("fast", False, text, **where)


def check_writing(asked: Asked) -> None:
    """Raises ValueError for flags of models that write, where the model has no use for them."""
    unused, kind = WRITERS_ONLY, "this model does not write"
    if isinstance(asked, Writer):
        unused, kind = ("keep",), "this model writes texts"
        if asked.shape is not None:
            unused, kind = ("length",), "this model completes images"
    if given := [f"--{name}" for name in unused if flags.FLAGS[name].present]:
        raise ValueError(f"{kind}: leave out {' and '.join(given)}")


def ask_run(workdir: epath.Path) -> tuple[Asked, Load, int | None, Sequence[str] | None]:
    """How the model of a run answers, its weights when called for, and its classes.

    Raises:
      ConfigError: its config is not one of this version.
      ValueError: flags that say what the run says.
    """
    chosen = flags.FLAGS
    config = load_config(workdir)
    try:
        check_config(config)
    except ValueError as error:
        raise ConfigError(
            f"{workdir / CONFIG} is not of this version, which refuses it: {error}"
        ) from error
    asked = ask(config)
    own = ("seed",) if isinstance(asked, Writer) else ()
    if given := [f"--{x}" for x in RELEASED_ONLY if x not in own and chosen[x].present]:
        raise ValueError(
            f"{workdir} is a run, whose own evaluation says how to predict: leave out "
            f"{' and '.join(given)}"
        )
    outputs = config.model.to_dict().get("output", {})
    num_classes = outputs.get("modalities", {"label": outputs})["label"].get("num_classes")
    return asked, lambda: load(workdir)[1], num_classes, getattr(asked, "names", None)


def ask_released() -> tuple[Asked, Load, int | None, Sequence[str] | None]:
    """How the released model, or one of its kind, that the flags name answers, and its classes."""
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
    if chosen.random_weights:
        released = released or pretrained.released(chosen.model)
        model, variables = inference.random_weights(released, chosen.seed)
    else:
        model, variables = load(chosen.model, model=released, conv_kernel=chosen.conv_kernel)
    asked = released_models.ask(
        model,
        variables,
        native_size=chosen.native_size,
        min_overlap=chosen.min_overlap,
        frame_rate=chosen.frame_rate,
    )
    label = getattr(model.output, "modalities", {"label": model.output}).get("label")
    num_classes, names = getattr(label, "num_classes", None), None
    if num_classes and not chosen.random_weights and not chosen.labels:
        names = pretrained.class_names(chosen.model, num_classes)
    return asked, lambda: variables, num_classes, names


def bar(unit: str):
    """Shows progress on stderr: one line rewritten in a terminal, else a line for each tenth."""
    start, said = time.monotonic(), -1
    terminal = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        nonlocal said
        if not terminal and done < total and done * 10 // total == said:
            return
        said = done * 10 // total
        spent = time.monotonic() - start
        left = f"{duration(spent / done * (total - done))} left" if done else "compiling"
        filled = 24 * done // total
        line = f"[{'#' * filled}{'.' * (24 - filled)}] {done}/{total} {unit} | {left}"
        ending = "\n" if done == total or not terminal else ""
        print(f"\r{line:<70}" if terminal else line, end=ending, file=sys.stderr, flush=True)

    return show


def names_of_labels(num_classes: int | None) -> list[str]:
    """The names in the file of --labels, which must be those of all classes."""
    file = flags.FLAGS.labels
    names = read_text(file).splitlines()
    if "" in map(str.strip, names):
        number = [name.strip() for name in names].index("") + 1
        raise ValueError(f"--labels={file}, line {number} is blank: write one name a line")
    if len(names) != num_classes:
        classes = f"{num_classes} classes" if num_classes else "none"
        raise ValueError(f"--labels={file} has {len(names)} lines, the model {classes}")
    return names


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without Unicode shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.WARNING)
    command.keep_programs(cache_directory() / compilation.FOLDER)
    chosen = flags.FLAGS
    if not chosen.output:
        raise ValueError("--output is empty: write a folder")
    output, workdir = user_path(chosen.output), epath.Path(chosen.model).expanduser()
    inputs.check_output(output)
    if is_workdir(workdir) or (workdir / CHECKPOINTS).is_dir():
        asked, load_variables, num_classes, names = ask_run(workdir)
    else:
        asked, load_variables, num_classes, names = ask_released()
    check_writing(asked)
    settings = answers.Settings(
        output=output,
        top=chosen.top,
        batch_size=chosen.batch_size,
        chunk_size=chosen.chunk_size,
        max_clips=chosen.max_clips,
        bar=bar,
        names=names_of_labels(num_classes) if chosen.labels else names,
        writing=answers.Writing(
            chosen.length,
            chosen.keep,
            chosen.samples,
            inference.Sampling(chosen.temperature, chosen.top_k, chosen.top_p),
            chosen.seed,
            not chosen.fast,
        ),
    )

    def prepare():  # once the inputs are found
        variables = load_variables()
        answers.make(output)
        return variables

    answer = answers.ANSWERS[type(asked)]
    paths, text, left_out, count = answer(asked, prepare, chosen.input, settings)
    print(*text, *(f"wrote {path}" for path in paths), sep="\n")
    for name, reason in left_out.items():
        print(f"left out: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
    if left_out:
        print(f"{len(left_out)} of {count} inputs were left out", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command.run(main, define_flags)
