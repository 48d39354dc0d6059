"""A niche architecture starts again when the input changes; a generic one does not."""

import functools
from collections.abc import Sequence

from experiments.lab.claims.common import CHANCE, CLEAR, GATE, MODELS, NEAR, SMALL, gate, series
from experiments.lab.rows import Row, Series, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy", {"model": "pixels"})
RAW, PERMUTED, WRONG_PLACES = "raw", "permuted", "wrong_places"
LEARNED = "learned"  # pixels with learned positions
EYES, SEPARATE, BESIDE = "two_eyes", "separate_eyes", "side_by_side"
ONE_EYE, LEFT_TWICE = "one_eye", "left_twice"
BOTH, BELOW, IMAGE, SOUND = "image_and_sound", "sound_below", "image", "sound"


def accuracy(study: Study, model: str, setting: str) -> Series:
    """After a change, or before it."""
    return series(study, "accuracy", model=model, setting=setting)


def loss(study: Study, model: str, after: str, before: str = RAW) -> Series:
    """What a change costs."""
    return accuracy(study, model, before) - accuracy(study, model, after)


def _same(study: Study, *, model: str, after: str) -> Sequence[Test]:
    label = f"{model}: accuracy lost from {RAW} to {after}"
    return [Test(label, loss(study, model, after), "within", SMALL)]


def _niche(study: Study, *, model: str) -> Sequence[Test]:
    more = loss(study, model, WRONG_PLACES) - loss(study, "pixels", PERMUTED)
    label = f"accuracy lost by {model} to wrong places, less that lost by pixels to permuted ones"
    return [Test(label, more, "above", SMALL)]


def _learned(study: Study, *, models: Sequence[str]) -> Sequence[Test]:
    """No gate: there is no shortcut here, and a model may be worse before the change."""
    return [
        Test(f"learned: {model} before the change, above chance",
             accuracy(study, model, RAW) - CHANCE["change"], "above", CLEAR)
        for model in models
    ]  # fmt: skip


def _permuted_controls(study: Study) -> Sequence[Test]:
    largest = series(study, "logits_difference", model="pixels", setting=PERMUTED)
    label = "same function: largest difference of a logit, pixels permuted after their positions"
    lost = Test(f"no neighbourhoods: accuracy lost by {LEARNED} positions, permuted",
                loss(study, LEARNED, PERMUTED), "within", SMALL)  # fmt: skip
    return [*_learned(study, models=("pixels",)), Test(label, largest, "below", 1e-4), lost]


def _eyes(study: Study, *, setting: str, disparity: str) -> Sequence[Test]:
    generic = accuracy(study, "pixels", setting + disparity)
    niche = accuracy(study, "resnet", BESIDE + disparity)
    label = f"{setting.replace('_', ' ')}: pixels less resnet on both eyes side by side"
    return [Test(label, generic - niche, "above", SMALL)]


def _one_eye_controls(study: Study) -> Sequence[Test]:
    return [
        Test(f"{name}: accuracy of {model}, off chance",
             accuracy(study, model, setting) - CHANCE["change"], "within", NEAR)
        for model in ("pixels", "resnet")
        for name, setting in (("one eye alone", ONE_EYE), ("left eye twice", LEFT_TWICE))
    ]  # fmt: skip


def _eyes_controls(study: Study, *, disparity: str) -> Sequence[Test]:
    seen = EYES + disparity
    best = max((s.mean for m in MODELS if (s := accuracy(study, m, seen).interval)), default=1.0)
    label = "gate: pixels, two eyes"
    gate = Test(label, accuracy(study, "pixels", seen) / best, "above", GATE)
    return [*_one_eye_controls(study), gate]


def _sound(study: Study) -> Sequence[Test]:
    def of(model, setting):
        return accuracy(study, model, setting)

    return [
        Test("pixels: image and sound less image alone", of("pixels", BOTH) - of("pixels", IMAGE),
             "above", 0.0),
        Test("image and sound: pixels less resnet on the spectrogram below the picture",
             of("pixels", BOTH) - of("resnet", BELOW), "above", -SMALL),
    ]  # fmt: skip


def _sound_controls(study: Study) -> Sequence[Test]:
    both, sound = accuracy(study, "pixels", BOTH), accuracy(study, "pixels", SOUND)
    return [Test("sound alone: it does not tell all, pixels on both less on sound", both - sound,
                 "above", 0.0)]  # fmt: skip


def _surgery(study: Study) -> Sequence[Test]:
    return [
        Test(f"{setting}: share of parameters that are new or of another shape outside of input "
             "and output, resnet less pixels",
             series(study, "surgery_share", model="resnet", setting=setting)
             - series(study, "surgery_share", model="pixels", setting=setting), "above", 0.0)
        for setting in (EYES, BOTH)
    ]  # fmt: skip


CLAIMS = [
    Claim(
        "change.permuted.pixels",
        "A generic architecture loses nothing when pixels are permuted with their positions: "
        "within 2 points.",
        functools.partial(_same, model="pixels", after=PERMUTED),
        _permuted_controls,
    ),
    Claim(
        "change.wrong_places.learned",
        "With learned positions even wrong places cost nothing: within 2 points.",
        functools.partial(_same, model=LEARNED, after=WRONG_PLACES),
        functools.partial(_learned, models=(LEARNED,)),
    ),
    *(
        Claim(
            f"change.niche.{model}",
            f"{model} is a niche: permuted pixels cost it more than 2 points more than pixels.",
            functools.partial(_niche, model=model),
            functools.partial(_learned, models=(model, "pixels")),
        )
        for model in ("stem", "resnet", "vit")
    ),
    *(
        Claim(
            f"change.eyes{disparity}",
            f"A second eye needs nothing new, at a disparity of {disparity[1:] or 2}: pixels is "
            "more than 2 points above a ResNet that sees both eyes in one picture. (Stacking both "
            "eyes in channels is one line for a ResNet too.)",
            functools.partial(_eyes, setting=EYES, disparity=disparity),
            functools.partial(_eyes_controls, disparity=disparity),
        )
        for disparity in ("", "_6")
    ),
    *(
        Claim(
            f"change.separate{disparity}",
            "A second eye is no more than further tokens with a learned code, at a disparity of "
            f"{disparity[1:] or 2}: so pixels is more than 2 points above a ResNet that sees both "
            "eyes in one picture.",
            functools.partial(_eyes, setting=SEPARATE, disparity=disparity),
            _one_eye_controls,
        )
        for disparity in ("", "_6")
    ),
    Claim(
        "change.sound",
        "Sound needs nothing new: pixels gains from it, and is at most 2 points below a ResNet "
        "with the spectrogram below its picture.",
        _sound,
        _sound_controls,
    ),
    Claim(
        "change.surgery",
        "Counted by program, pixels needs less surgery than resnet for a second eye and for sound.",
        _surgery,
        functools.partial(_learned, models=("pixels",)),
    ),
]  # fmt: skip


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """That its model learns before any change, and the gate, which decides nothing here."""
    gates = [gate(study, "accuracy", model=row["model"], setting=RAW, best=RAW)]
    return [*gates, *_learned(study, models=(row["model"],))]
