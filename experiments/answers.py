"""What `experiments.predict` does with each kind of model, from files to files.

Each function takes a record of `tasks.ask`, which says how a model answers files, for a released
model as for a run; writes its results; and returns `Answers`.

One file, because the kinds share how results are named, described and written.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import inputs
from experiments.tasks.ask import Clip, Field, Questions, Scores, Text, Writer
from experiments.tasks.writing import draw_reading
from perceiver_jax import files, inference, plots
from perceiver_jax.data.checks import EXPECTED
from perceiver_jax.data.sequence_transforms import decode
from perceiver_jax.inference import tiles
from perceiver_jax.inference.batches import Results, predict_each
from perceiver_jax.inference.clips import clip_lengths
from perceiver_jax.inference.programs import silent
from perceiver_jax.inference.text import fill, hide, likeliest
from perceiver_jax.modalities import text as text_modality

Load = Callable[[], Any]  # the variables of a model


class Writing(NamedTuple):
    """The flags of models that write; see `predict.define_flags`."""

    length: int
    keep: float
    samples: int
    sampling: inference.Sampling
    seed: int
    exact: bool


class Settings(NamedTuple):
    """The flags that any model takes; see `predict.define_flags`."""

    output: pathlib.Path
    top: int
    batch_size: int
    chunk_size: int
    max_clips: int
    bar: Callable[[str], Callable[[int, int], None]]  # shows progress, in such units
    names: Sequence[str] | None  # of the classes
    writing: Writing


class Answers(NamedTuple):
    """The files written, lines to print, why inputs were left out, by name, and of how many."""

    paths: list[pathlib.Path]
    text: list[str]
    left_out: dict[str, str]
    count: int


def score(asked: Scores, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """The likeliest classes or tags of each input: predictions.json."""
    found, parts = inputs.find_inputs(values, asked.kinds), asked.parts
    names = [",".join(paths) for paths in found]
    predict = jax.jit(lambda variables, batch: asked.activation(asked.logits(variables, batch)))
    results = predict_each(
        lambda index: asked.read(found[index // parts], index % parts),
        functools.partial(predict, load()),
        len(found) * parts,
        blank=asked.example,
        batch_size=settings.batch_size if asked.fixed_size else 1,
        progress=settings.bar("clips" if parts > 1 else f"{asked.kinds[0].split()[-1]}s"),
    )
    left_out = named_reasons(results, names, parts)
    records = {}
    for number, name in enumerate(names):
        if name not in left_out:
            chances = np.mean(results.rows[number * parts : (number + 1) * parts], axis=0)
            best = np.argsort(-chances, kind="stable")[: settings.top]
            records[name] = describe(best, chances[best], settings.names)
    path = write_json(settings.output / "predictions.json", records)
    text = [line for name, record in records.items() for line in lines(name, record)]
    return Answers([path], text, left_out, len(found))


def fill_masks(asked: Text, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """Texts with their hidden bytes filled in, one a line: filled.txt."""
    texts, length = inputs.find_texts(values), asked.model.output.max_length
    variables, hidden = load(), {}

    def read(index):
        ids, spans = hide(texts[index][1], max_length=length)
        padded, mask = text_modality.pad(ids, length)
        hidden[index] = ids, spans
        return {"text": padded, "text_mask": mask}

    predict = jax.jit(lambda v, batch: likeliest(asked.model.apply(v, batch, train=False)))
    results = predict_each(
        read,
        functools.partial(predict, variables),
        len(texts),
        blank=dict(zip(("text", "text_mask"), text_modality.pad([], length), strict=True)),
        batch_size=settings.batch_size,
        progress=settings.bar("texts"),
    )
    left_out = named_reasons(results, [name for name, _ in texts])
    filled = [fill(*hidden[i], results.rows[i]) for i in range(len(texts)) if i in hidden]
    path = make(settings.output) / "filled.txt"
    path.write_text("".join(f"{result.text}\n" for result in filled), encoding="utf-8")
    text = []
    for result in filled:
        text += [result.text, " ".join(("  filled in:", *map(repr, result.fills)))]
    return Answers([path], text, left_out, len(texts))


def reply(asked: Questions, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """The answers to all questions about each text that have as many texts: predictions.json."""
    texts, count = inputs.find_texts(values), len(asked.classes)
    parts = [[part.strip() for part in text.split("[SEP]")] for _, text in texts]
    predict = jax.jit(asked.answer)
    results = predict_each(
        lambda index: asked.read(parts[index // count], index % count),
        functools.partial(predict, load()),
        len(texts) * count,
        blank=asked.example,
        batch_size=settings.batch_size,
        progress=settings.bar("answers"),
    )
    records, left_out, text = {}, {}, []
    for number, (name, _) in enumerate(texts):
        records[name] = {}
        rows = results.rows[number * count : (number + 1) * count]
        for row, (question, classes) in zip(rows, asked.classes.items(), strict=True):
            if row is None:
                continue
            if classes:
                best = np.argsort(-row["probability"][: len(classes)], kind="stable")
                best = best[: settings.top]
                found = describe(best, row["probability"][best], classes)
                text += lines(f"{name} | {question}", found)
            else:
                found = {"number": float(row["number"])}
                text.append(f"{name} | {question}: {found['number']:.3g}")
            records[name][question] = found
        if not records[name]:
            del records[name]
            left_out[name] = results.unreadable[number * count]
    check_any(left_out, len(texts))
    path = write_json(settings.output / "predictions.json", records)
    return Answers([path], text, left_out, len(texts))


def estimate(asked: Field, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """Optical flow, or the disparity of the left view, of each pair: flow.flo or disparity.pfm."""
    found = inputs.find_inputs(values, asked.kinds)
    folders = inputs.output_folders(found, settings.output)
    variables, flow = load(), asked.model.output.quantity == "flow"
    infer = inference.optical_flow if flow else inference.disparity

    def answer(paths, output, show):
        frames, (height, width) = asked.read(paths)
        window = {"min_overlap": asked.min_overlap, "progress": show}
        field = infer(asked.model, variables, *frames, **window)
        if asked.shrink > 1:
            field = np.asarray(tiles.enlarge(field[None], asked.shrink)[0])
        field = field[:height, :width]
        make(output)
        if flow:
            written = [output / "flow.flo", output / "flow.png"]
            files.write_flo(written[0], field)
            picture, what = plots.flow_colours(field), "displacement"
        else:
            written = [output / "disparity.pfm", output / "disparity.png"]
            files.write_pfm(written[0], field)
            low, high = float(field.min()), float(field.max())
            picture = plots.disparity_colours(field, low=low, high=max(high, low + 1e-6))
            what = "absolute disparity"
        files.write_image(written[1], picture)
        lengths = np.linalg.norm(field, axis=-1)
        return written, [f"{what}: mean {lengths.mean():.2f}, largest {lengths.max():.2f} pixels"]

    return one_by_one(found, folders, answer, settings, parts="tiles", whole="pairs")


def autoencode(asked: Clip, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """Encodes and decodes each video and its sound: clip.mp4, audio.wav, predictions.json."""
    found = inputs.find_inputs(values, ("video", "sound"), needed=1)
    folders = inputs.output_folders(found, settings.output)
    variables, (frames, _) = load(), clip_lengths(asked.model)
    rates = {
        "frames_per_second": asked.frames_per_second,
        "samples_per_second": asked.samples_per_second,
    }

    def answer(paths, output, show):
        clip = inference.autoencode(
            asked.model,
            variables,
            *asked.read(paths, settings.max_clips),
            k=settings.top,
            chunk_size=settings.chunk_size,
            progress=show,
        )
        make(output)
        written = [output / name for name in ("clip.mp4", "audio.wav", "predictions.json")]
        files.write_mp4(written[0], clip.video, clip.audio, **rates)
        files.write_wav(written[1], clip.audio, asked.samples_per_second)
        records = [describe(*row, settings.names) for row in zip(*clip.labels, strict=True)]
        write_json(written[2], records)
        text = []
        for i, record in enumerate(records):
            text += lines(f"clip {i}: frames {i * frames} to {(i + 1) * frames - 1}", record)
        return written, text

    return one_by_one(found, folders, answer, settings, parts="chunks", whole="videos")


def write_texts(asked: Writer, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """What follows each text: predictions.json, and what the model read of the first."""
    texts = [("", "")] if list(values) == [""] else inputs.find_texts(values)
    prompts, left_out = {}, {}
    for name, text in texts:
        try:
            prompts[name] = asked.read(text)
        except EXPECTED as error:
            left_out[name] = str(error)
    check_any(left_out, len(texts))
    variables, samples = load(), settings.writing.samples
    repeated = [prompt for prompt in prompts.values() for _ in range(samples)]
    made, said = write_ids(
        asked, variables, repeated, settings.writing.length, settings, settings.bar("bytes")
    )
    records, text, new = {}, [], iter(made)
    for name, prompt in prompts.items():
        records[name] = [decode(next(new)).decode(errors="replace") for _ in range(samples)]
        shown = decode(prompt).decode(errors="replace")
        text += [f"{shown}{continuation}" for continuation in records[name]]
    paths = [write_json(settings.output / "predictions.json", records)]
    if len(made[0]):
        ids = np.concatenate([repeated[0], made[0]])
        dropped = max(len(ids) - asked.model.max_length - 1, 0)
        first = max(len(repeated[0]) - dropped, 1)
        figure = draw_reading(asked.model, variables, ids[dropped:], first)
        paths.append(write_figure(settings.output / "attention.png", figure))
    return Answers(paths, [*text, said], left_out, len(texts))


def complete_images(
    asked: Writer, load: Load, values: Sequence[str], settings: Settings
) -> Answers:
    """Images of which the first rows are given: completed.png, and what the model read of it."""
    found = inputs.find_inputs(values, ("image",))
    folders = inputs.output_folders(found, settings.output)
    variables, writing, shape = load(), settings.writing, asked.shape

    def answer(paths, output, show):
        ids = asked.read(paths[0])
        kept = min(round(writing.keep * shape[0]), shape[0] - 1) * shape[1] * shape[2]
        prompts = [ids[: 1 + kept]] * writing.samples
        made, said = write_ids(asked, variables, prompts, ids.size - 1 - kept, settings, show)
        images = [
            np.frombuffer(decode(np.concatenate([ids[: 1 + kept], new])), np.uint8).reshape(shape)
            for new in made
        ]
        make(output)
        written = []
        for number, image in enumerate(images, 1):
            name = f"completed_{number}.png" if writing.samples > 1 else "completed.png"
            written.append(output / name)
            files.write_image(written[-1], image[..., 0] if shape[-1] == 1 else image)
        original = np.frombuffer(decode(ids), np.uint8).reshape(shape)
        figure = plots.completions([original], [kept], [np.stack(images)])
        written.append(write_figure(output / "completions.png", figure))
        whole = np.concatenate([ids[: 1 + kept], made[0]])
        figure = draw_reading(asked.model, variables, whole, 1 + kept, shape)
        written.append(write_figure(output / "attention.png", figure))
        return written, [said]

    return one_by_one(found, folders, answer, settings, parts="values", whole="images")


def write(asked: Writer, load: Load, values: Sequence[str], settings: Settings) -> Answers:
    """What follows each prompt: `write_texts` or `complete_images`."""
    answer = write_texts if asked.shape is None else complete_images
    return answer(asked, load, values, settings)


def write_ids(
    asked: Writer,
    variables: Any,
    prompts: Sequence[np.ndarray],
    length: int,
    settings: Settings,
    show: Callable[[int, int], None],
) -> tuple[list[np.ndarray], str]:
    """The new ids of each prompt, written in batches, and a line that says how many in a second."""
    writing, made, seconds = settings.writing, [], 0.0
    longest, most = max(map(len, prompts)), asked.model.max_length
    if longest > most:
        left = longest - most
        print(f"a prompt has {longest} ids; its first {left} are not read", file=sys.stderr)
        prompts = [prompt[-most:] for prompt in prompts]
    parts = [
        prompts[i : i + settings.batch_size] for i in range(0, len(prompts), settings.batch_size)
    ]
    for number, part in enumerate(parts):
        found = inference.generate(
            asked.model,
            variables,
            part,
            length=length,
            sampling=writing.sampling,
            seed=writing.seed + number * settings.batch_size,
            exact=writing.exact,
            allowed=asked.allowed,
            end=asked.end,
            progress=lambda done, total, n=number: show(n * total + done, len(parts) * total),
        )
        made += found.ids
        seconds += sum(map(len, found.ids)) / max(found.ids_per_second, 1e-9)
    rate = sum(map(len, made)) / max(seconds, 1e-9)
    way = "exact" if writing.exact else "fast"
    return made, f"{rate:.0f} ids a second, {way}"


def one_by_one(
    found: Sequence[tuple[str, ...]],
    folders: Sequence[pathlib.Path],
    answer: Callable[..., tuple[list[pathlib.Path], list[str]]],
    settings: Settings,
    *,
    parts: str,
    whole: str,
) -> Answers:
    """Answers inputs whose results are files.

    Args:
      found: the files of each input.
      folders: where the results of each go.
      answer: `answer(paths, folder, show)` writes the results of one and returns what it wrote and
        says; `show` is called with the parts that are done.
      settings: of the command.
      parts, whole: what a bar counts, of one input or of several.
    """
    if len(found) == 1:
        return Answers(*answer(found[0], folders[0], settings.bar(parts)), {}, 1)
    written, text, left_out = [], [], {}
    show = settings.bar(whole)
    show(0, len(found))
    for number, (paths, folder) in enumerate(zip(found, folders, strict=True)):
        name = ",".join(paths)
        try:
            new, said = answer(paths, folder, silent)
        except EXPECTED as error:
            left_out[name] = str(error)
        else:
            written += new
            text += [name, *(f"  {line}" for line in said)]
        show(number + 1, len(found))
    check_any(left_out, len(found))
    return Answers(written, text, left_out, len(found))


def named_reasons(results: Results, names: Sequence[str], parts: int = 1) -> dict[str, str]:
    """Why inputs were left out, by name; the reason itself is an error where all of them were."""
    left_out = {}
    for index in sorted(results.unreadable):
        left_out.setdefault(names[index // parts], results.unreadable[index])
    check_any(left_out, len(names))
    return left_out


def check_any(left_out: dict[str, str], count: int) -> None:
    """Raises ValueError where no input could be answered."""
    if len(left_out) == count:
        reason = next(iter(left_out.values()))
        raise ValueError(reason if count == 1 else f"none of {count} inputs can be read: {reason}")


def describe(
    classes: np.ndarray, chances: np.ndarray, names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The likeliest classes of one example as records."""
    return [
        {"class": int(k), "probability": float(p)} | ({"name": names[k]} if names else {})
        for k, p in zip(classes, chances, strict=True)
    ]


def lines(title: str, records: list[dict]) -> list[str]:
    """The classes of one example, to print."""
    names = (record.get("name", f"class {record['class']}") for record in records)
    chances = (record["probability"] for record in records)
    return [title, *(f"  {p:6.1%}  {name}" for p, name in zip(chances, names, strict=True))]


def make(folder: pathlib.Path) -> pathlib.Path:
    """The folder, made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_figure(path: pathlib.Path, figure: Any) -> pathlib.Path:
    """Writes it, and makes the folder; returns the path."""
    make(path.parent)
    figure.savefig(path, dpi=150)
    return path


def write_json(path: pathlib.Path, content: Any) -> pathlib.Path:
    """Writes it, and makes the folder; returns the path."""
    make(path.parent)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


ANSWERS = {
    Scores: score,
    Text: fill_masks,
    Questions: reply,
    Field: estimate,
    Clip: autoencode,
    Writer: write,
}
