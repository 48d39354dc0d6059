"""Pictures: arrays in, a matplotlib figure out. Nothing here reads files or runs a model."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib import mlab
from matplotlib.figure import Figure

RIGHT, WRONG = "#1a7f37", "#c62828"


def training_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel per metric over steps: every logged training value, its running mean, evaluations.

    Args:
      records: lines of `metrics.jsonl`: `step`, `kind` ("train" or "eval") and numbers (None where
        a value was not finite).
    """
    skip = {"step", "kind", "seconds"}
    names = list(dict.fromkeys(n for record in records for n in record if n not in skip))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        for kind in ("train", "eval"):
            points = [(r["step"], r[name]) for r in records if r["kind"] == kind and name in r]
            points = [p for p in points if p[1] is not None]
            if not points:
                continue
            steps, values = np.array(points).T
            if kind == "eval":
                axes.plot(steps, values, "o-", color="#d2691e", ms=4, label="evaluation")
                axes.annotate(
                    f"{values[-1]:.4g}", (steps[-1], values[-1]), (-4, 6), ha="right",
                    textcoords="offset points", fontsize=8, color="#d2691e",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
                )  # fmt: skip
            else:
                axes.plot(steps, values, color="#1f77b4", alpha=0.3, lw=1)
                axes.plot(steps, running_mean(values), color="#1f77b4", lw=1.5, label="training")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.margins(y=0.15)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=7)
    return figure


def running_mean(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Mean over a centred window of `share` of the series, shorter at both ends."""
    half = int(len(values) * share / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def prediction_grid(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
) -> Figure:
    """Images with their predicted class and its probability; red, with the truth, where wrong.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      logits: `[B, K]`.
      labels: `[B]`.
      names: of the classes; their numbers if None.
    """
    names = names or [str(k) for k in range(logits.shape[1])]
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    width = 1.4
    height = width * images.shape[1] / images.shape[2] + 0.25  # with the title
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for i, (image, chance, label) in enumerate(zip(images, chances, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        show_image(axes, image)
        best = int(chance.argmax())
        text = f"{names[best]} {chance[best]:.0%}"
        text += "" if best == label else f"\nis {names[label]}"
        axes.set_title(text, fontsize=8, color=RIGHT if best == label else WRONG)
    return figure


def attention_maps(images: np.ndarray, maps: np.ndarray, max_latents: int = 8) -> Figure:
    """Where latents look: one row per image, the image first, then single latents, then their mean.

    Each map is scaled to its own largest weight. The latents shown are those whose maps differ
    most between the places they look at: the most focused ones, the same for every image.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      maps: attention weights of N latents `[B, N, h, w]`; each map sums to 1.
      max_latents: how many to show.
    """
    focus = maps.max(axis=(2, 3)).mean(axis=0)  # [N]
    chosen = np.sort(np.argsort(-focus, kind="stable")[:max_latents])
    columns = len(chosen) + 2
    height = 1.25 * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(1.3 * columns, height * len(images) + 0.3), layout="constrained")
    for row, (image, weights) in enumerate(zip(images, maps, strict=True)):
        panels = [("image", None), *((f"latent {n}", weights[n]) for n in chosen)]
        panels.append(("mean of all", weights.mean(axis=0)))
        for column, (title, weight) in enumerate(panels):
            axes = figure.add_subplot(len(images), columns, row * columns + column + 1)
            if weight is None:
                show_image(axes, image)
            else:
                show_image(axes, image, alpha=0.25)
                extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
                axes.imshow(weight, cmap="magma", alpha=0.8, vmin=0, extent=extent)
            if row == 0:
                axes.set_title(title, fontsize=8)
    return figure


class Clip(NamedTuple):
    """A video with sound, to be written to a file.

    Attributes:
      video: uint8 `[T, H, W, 3]`.
      audio: `[S]` in [-1, 1].
    """

    video: np.ndarray
    audio: np.ndarray
    frames_per_second: float
    samples_per_second: int


def comparison(
    video: np.ndarray,
    decoded_video: np.ndarray,
    decoded_audio: np.ndarray,
    frames_per_second: float,
) -> Clip:
    """Clip after clip, the true video above the decoded one, with the decoded sound.

    Args:
      video, decoded_video: uint8 `[B, T, H, W, 3]`; shown 160 pixels high or more.
      decoded_audio: `[B, S]` in [-1, 1].
    """
    both = np.concatenate([video, decoded_video], axis=2)  # [B, T, 2 H, W, 3]
    scale = 2 * max(1, 80 // video.shape[2])  # even, as video files want it
    both = both.repeat(scale, axis=2).repeat(scale, axis=3)
    rate = round(decoded_audio.shape[1] * frames_per_second / video.shape[1])
    return Clip(both.reshape(-1, *both.shape[2:]), decoded_audio.ravel(), frames_per_second, rate)


def reconstructions(
    video: np.ndarray,
    decoded_video: np.ndarray,
    audio: np.ndarray,
    decoded_audio: np.ndarray,
    probabilities: np.ndarray,
    titles: Sequence[str],
    *,
    samples_per_second: float,
) -> Figure:
    """Clips above what a model made of them: frames evenly spaced in time, sound, label.

    The sound is drawn as a wave and as a spectrogram; the five most probable labels as bars.

    Args:
      video, decoded_video: uint8 `[B, T, H, W, 1 or 3]`.
      audio, decoded_audio: `[B, S]` in [-1, 1].
      probabilities: of the labels `[B, K]`.
      titles: of the clips.
    """
    frames = np.unique(np.linspace(0, video.shape[1] - 1, 4).round().astype(int))
    columns = len(frames) + 6  # wave, spectrogram and label are as wide as two frames each
    figure = Figure(figsize=(1.6 * columns, 3.4 * len(video)), layout="constrained")
    grid = figure.add_gridspec(2 * len(video), columns)
    for b, title in enumerate(titles):
        rows = (("clip", video, audio), ("decoded", decoded_video, decoded_audio))
        for i, (kind, pictures, sounds) in enumerate(rows):
            for column, t in enumerate(frames):
                axes = figure.add_subplot(grid[2 * b + i, column])
                show_image(axes, pictures[b, t])
                label = f"{title}\n" * (i == 0 and column == 0) + f"{kind}, frame {t}"
                axes.set_title(label, fontsize=8, loc="left")
            axes = figure.add_subplot(grid[2 * b + i, -6:-4])
            axes.plot(sounds[b], lw=0.5, color="#1f77b4" if i == 0 else "#d2691e")
            axes.set_ylim(-1, 1)
            axes.set_title(f"{kind}, sound", fontsize=8, loc="left")
            axes.tick_params(labelsize=7)
            axes = figure.add_subplot(grid[2 * b + i, -4:-2])
            _draw_spectrogram(axes, sounds[b], samples_per_second)
            axes.set_title(f"{kind}, Hz over seconds", fontsize=8, loc="left")
        axes = figure.add_subplot(grid[2 * b : 2 * b + 2, -2:])
        best = np.argsort(-probabilities[b], kind="stable")[:5]
        axes.barh([str(k) for k in best], probabilities[b, best], color="#d2691e")
        axes.invert_yaxis()  # the most probable on top
        axes.set_xlim(0, 1)
        axes.set_title("label", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
    return figure


def _draw_spectrogram(axes, sound: np.ndarray, rate: float) -> None:
    """Power in decibels, from -80 to -20, of windows of 40 ms."""
    window = int(np.clip(rate / 25, 8, len(sound)))
    power, hertz, seconds = mlab.specgram(sound, NFFT=window, Fs=rate, noverlap=window // 2)
    extent = (seconds[0], seconds[-1], hertz[0], hertz[-1])
    decibels = 10 * np.log10(power + 1e-12)
    axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=-20)
    axes.tick_params(labelsize=7)


def label_probabilities(
    images: np.ndarray, probabilities: Mapping[str, np.ndarray], labels: np.ndarray
) -> Figure:
    """A row per image: the image, and bars of the labels' probabilities by who guessed.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      probabilities: title to `[B, K]`.
      labels: `[B]`; the bar of the true one is green, the others are red.
    """
    columns = 1 + len(probabilities)
    figure = Figure(figsize=(2 * columns, 1.3 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image, label, b in zip(grid, images, labels, range(len(images)), strict=True):
        show_image(row[0], image)
        for axes, (title, chances) in zip(row[1:], probabilities.items(), strict=True):
            places = np.arange(chances.shape[1])
            axes.bar(places, chances[b], color=np.where(places == label, RIGHT, WRONG))
            axes.set_ylim(0, 1)
            axes.tick_params(labelsize=6)
            if b == 0:
                axes.set_title(title, fontsize=8)
    return figure


def attention_mass(
    mass: Mapping[str, Mapping[str, np.ndarray]], shares: Mapping[str, float]
) -> Figure:
    """How each latent shares its attention out: a panel for each cross-attend, a bar per latent.

    Latents are in the order of what they give to the last modality. Dashed: the bars of latents
    that look at all tokens alike.

    Args:
      mass: cross-attend to modality to `[N]`; the modalities of a latent sum to 1.
      shares: modality to its share of all tokens.
    """
    figure = Figure(figsize=(8, 2.6 * len(mass)), layout="constrained")
    for panel, (read, parts) in zip(
        np.ravel(figure.subplots(len(mass), squeeze=False)), mass.items(), strict=True
    ):
        order = np.argsort(parts[list(parts)[-1]], kind="stable")
        bottom, line = np.zeros(len(order)), 0.0
        for number, (name, values) in enumerate(parts.items()):
            label = f"{name}: {values.mean():.1%}, of the tokens {shares[name]:.1%}"
            panel.bar(range(len(order)), values[order], 1, bottom, color=f"C{number}", label=label)
            bottom, line = bottom + values[order], line + shares[name]
            panel.axhline(line, color="black", ls="--", lw=0.8)
        panel.set_xlim(-0.5, len(order) - 0.5)
        panel.set_ylim(0, 1)
        panel.set_title(f"{read}: attention by modality, latents in order", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_image(axes, image: np.ndarray, **style) -> None:
    """Draws one uint8 image `[H, W, 1 or 3]` without axes."""
    grey = image.shape[-1] == 1
    style |= {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
    axes.imshow(image[..., 0] if grey else image, **style)
    axes.set_axis_off()


def cost_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Time and memory against the number of inputs, both axes logarithmic.

    A panel for each phase's time and one for its temporaries; a curve for each contender. Where a
    contender has no figure because it was refused or failed, a cross at the top says so.

    Args:
      rows: of a benchmark: `inputs`, `phase`, `contender`, and where it ran `median_seconds` and
        `temporaries_bytes`.
    """
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    inputs = {row["case"]: row["inputs"] for row in rows if row.get("inputs")}
    kinds = {"median_seconds": "seconds", "temporaries_bytes": "temporaries, bytes"}
    figure = Figure(figsize=(4.2 * len(phases), 6.4), layout="constrained")
    for i, (field, label) in enumerate(kinds.items()):
        for j, phase in enumerate(phases):
            axes = figure.add_subplot(len(kinds), len(phases), i * len(phases) + j + 1)
            for number, contender in enumerate(contenders):
                mine = [r for r in rows if (r["phase"], r["contender"]) == (phase, contender)]
                points = sorted((r["inputs"], r[field]) for r in mine if r.get(field))
                colour = f"C{number}"
                if points:
                    axes.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=contender)
                absent = [inputs[r["case"]] for r in mine
                          if "median_seconds" not in r and r["case"] in inputs]  # fmt: skip
                if absent and points:
                    heights = [0.97 - 0.05 * number] * len(absent)
                    axes.plot(absent, heights, "x", color=colour, label=f"{contender}: no figure",
                              transform=axes.get_xaxis_transform())  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_title(phase, fontsize=10)
            axes.set_xlabel("inputs", fontsize=8)
            axes.set_ylabel(label, fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=7)
    return figure


def flow_colours(flow: np.ndarray, *, full_colour: float = 24.0) -> np.ndarray:
    """A picture of a flow: hue is its direction (red: right), saturation its length.

    Args:
      flow: `[H, W, 2]`, right and down.
      full_colour: pixels of displacement at and above which the colour is full; 0 is white.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    angle = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi)
    hue = np.minimum(angle / (2 * np.pi) * 180, 179)  # OpenCV's half degrees
    saturation = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / full_colour * 255, 0, 255)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def field_grid(
    frames: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    prediction: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    occluded: Sequence[np.ndarray] | None = None,
) -> Figure:
    """Flow or disparity, one row per pair: images, truth, prediction, error, occlusion, the key.

    Truth and prediction of a row have one scale, which its key shows: the colour wheel of
    `flow_colours` with its radius in pixels, or a bar of disparities. Where nothing is known the
    truth and the error are grey.

    Args:
      frames: uint8 `[2, H, W, 3]` of each pair; sizes may differ between pairs.
      truth, prediction: `[H, W, 2]` or `[H, W, 1]`.
      valid: bool `[H, W]`, where the truth is known.
      occluded: bool `[H, W]`, or None where nothing is known of it.
    """
    flow = truth[0].shape[-1] == 2
    names = ("first", "second") if flow else ("left", "right")
    names = [*names, "truth", "prediction", "error", *["occluded"] * (occluded is not None), "key"]
    aspect = np.mean([x.shape[1] / x.shape[2] for x in frames])
    figure = Figure(
        figsize=(2.4 * len(names), (2.4 * aspect + 0.3) * len(frames) + 0.2), layout="constrained"
    )
    grid = figure.subplots(len(frames), len(names), squeeze=False)
    for row, axes in enumerate(grid):
        known = valid[row]
        lengths = np.linalg.norm(truth[row], axis=-1)[known]
        largest = max(float(np.percentile(lengths, 99)) if lengths.size else 0.0, 1.0)
        lowest = 0.0 if flow or not known.any() else min(float(truth[row][known].min()), 0.0)
        if flow:
            paint = functools.partial(flow_colours, full_colour=largest)
        else:
            paint = functools.partial(disparity_colours, low=lowest, high=largest)
        error = np.linalg.norm(prediction[row] - truth[row], axis=-1)
        panels = dict(zip(names, frames[row], strict=False))
        panels["truth"] = _grey_out(paint(truth[row]), known)
        panels["prediction"] = paint(prediction[row])
        panels["error"] = _grey_out(
            disparity_colours(error[..., None], low=0.0, high=largest), known
        )
        if occluded is not None:
            panels["occluded"] = _grey_out(np.uint8(255 * occluded[row])[..., None], known)
        for axis, (name, panel) in zip(axes, panels.items(), strict=False):
            show_image(axis, panel)
            mean = f" {error[known].mean():.2f} px" if name == "error" and known.any() else ""
            axis.set_title(name + mean, fontsize=9)
        if flow:
            _draw_wheel(axes[-1], largest)
        else:
            _draw_bar(axes[-1], lowest, largest)
    return figure


def psychometric_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Error against interocular correlation, and beside it the controls, which have none.

    Args:
      rows: `condition`, `correlation` (a control's is ''), and errors in pixels: `model`,
        `block_matching`, `sgbm`, `constant`; `slope` of the answers over the truth, written on the
        bars.
    """
    curve = [row for row in rows if row["correlation"] != ""]
    controls = [row for row in rows if row["correlation"] == ""]
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    styles = {"model": "C0o-", "block_matching": "C1s--", "sgbm": "C2^--", "constant": "k:"}
    for kind, style in styles.items():
        points = [(row["correlation"], row[kind]) for row in curve]
        left.plot(*zip(*points, strict=True), style, ms=4, label=kind.replace("_", " "))
    left.set_xlabel("interocular correlation", fontsize=9)
    left.set_ylabel("mean absolute error, px", fontsize=9)
    left.legend(fontsize=8)
    places = np.arange(len(controls))
    for shift, kind, colour in ((-0.2, "model", "C0"), (0.2, "block_matching", "C1")):
        heights = [row[kind] for row in controls]
        right.bar(places + shift, heights, 0.4, color=colour)
    for place, row in zip(places, controls, strict=True):
        right.plot([place - 0.45, place + 0.45], [row["constant"]] * 2, "k:")
        right.text(place - 0.2, row["model"], f"{row['slope']:.2f}", ha="center", va="bottom",
                   fontsize=7)  # fmt: skip
    right.set_xticks(places, [row["condition"] for row in controls], rotation=30, ha="right")
    right.set_title("controls; above the model's bar: its slope over the truth", fontsize=9)
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure


def disparity_colours(disparity: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """`[H, W, 1]` from `low` (dark) to `high` (bright) -> uint8 `[H, W, 3]`."""
    grey = np.clip((disparity[..., 0] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def _grey_out(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known[..., None], picture, 128).astype(np.uint8)


def _draw_wheel(axes, radius: float) -> None:
    """The colours of all flows up to `radius` pixels, each at its own place around the centre."""
    side = np.linspace(-radius, radius, 101)
    flow = np.stack(np.meshgrid(side, side), axis=-1)  # x to the right, y down, like an image
    inside = np.linalg.norm(flow, axis=-1) <= radius
    wheel = np.where(inside[..., None], flow_colours(flow, full_colour=radius), 255)
    show_image(axes, wheel.astype(np.uint8))
    axes.set_title(f"radius {radius:.3g} px", fontsize=9)


def _draw_bar(axes, low: float, high: float) -> None:
    """The colours of all disparities, from the bottom up."""
    column = np.linspace(high, low, 101)[:, None, None] * np.ones((1, 12, 1))
    show_image(axes, disparity_colours(column, low=low, high=high))
    axes.set_title(f"{low:.3g} to {high:.3g} px", fontsize=9)
