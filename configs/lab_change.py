"""Study `change` of `configs/lab.py`: what a model makes of another input, and what has to change.

| change | settings                                             | data                            |
|--------|------------------------------------------------------|---------------------------------|
| pixels | `raw`, `permuted`, `wrong_places`                    | CIFAR-10 at 16x16, 8,000 images |
| eyes   | `one_eye`, `left_twice`, `two_eyes`, `separate_eyes` | digits cut out in depth, 24x24, |
|        | `side_by_side`; the last three also with `_6`        | disparity 2; 6                  |
| sound  | `image`, `sound`, `image_and_sound`, `sound_below`   | MNIST at 16x16, TFDS            |
|        |                                                      | `spoken_digit`                  |

`permuted` is no training: pixels change places after they have their positions, and the weights of
`raw` are evaluated so. In `two_eyes` a token, or a pixel, holds both eyes; in `separate_eyes` each
eye has tokens of its own, with a learned code that says whose they are. In `side_by_side` and
`sound_below` a baseline sees one larger picture, and none of its modules changes. The learning rate
of a model is that of `raw` throughout.
"""

from ml_collections import ConfigDict

from configs import common, pairs
from configs.lab_models import changed

PERMUTATION = 0  # seed of the wrong places of all pixels
IMAGES = 8000
BOTH_EYES = ("two_eyes", "separate_eyes", "side_by_side")
EYES = ("one_eye", "left_twice", *BOTH_EYES, *(f"{name}_6" for name in BOTH_EYES))
SOUND = ("image", "sound", "image_and_sound", "sound_below")
EVALUATED = {"permuted": "raw"}  # settings that are no training, and whose weights they take
BEFORE = {
    **dict.fromkeys(("permuted", "wrong_places"), "raw"),
    **dict.fromkeys(EYES[1:], "one_eye"),
    **dict.fromkeys(SOUND[1:], "image"),
}

# Models by setting.
MODELS = {
    "raw": ("pixels", "learned", "stem", "resnet", "vit"),
    "permuted": ("pixels", "learned"),
    "wrong_places": ("pixels", "learned", "stem", "resnet", "vit"),
    "two_eyes": ("pixels", "resnet", "vit"),
    "one_eye": ("pixels", "resnet", "vit"),
    "left_twice": ("pixels", "resnet"),
    "separate_eyes": ("pixels",),
    "side_by_side": ("resnet", "vit"),
    "two_eyes_6": ("pixels", "resnet", "vit"),
    "separate_eyes_6": ("pixels",),
    "side_by_side_6": ("resnet", "vit"),
    "image": ("pixels", "resnet", "vit"),
    "sound": ("pixels", "resnet"),
    "image_and_sound": ("pixels", "resnet"),
    "sound_below": ("resnet", "vit"),
}


def fill(config: ConfigDict, model: str, setting: str) -> None:
    """Writes what a cell has of its own into a config."""
    config.steps, config.batch_size = 2000, 32
    if setting in EYES:
        config.steps, config.batch_size = 500, 64
        config.optimizer = pairs.small_optimizer(warmup_steps=100)
    elif setting in SOUND:
        config.steps = 1500
    config.model = changed(model, setting)
    if setting == "permuted":
        config.model.input.permutation_seed = PERMUTATION
    config.data = data(model, setting, config.get_ref("seed"))


def photographs(n: int, seed, *, wrong_places: bool) -> ConfigDict:
    """Returns the `data` section of CIFAR-10 at 16x16, mirrored in training; tested by `centre`."""
    places = f"wrong_places({PERMUTATION}) | " if wrong_places else ""
    section = common.data(
        "centre",
        train=f"flip | {places}keep('image', 'label')",
        evaluate=f"{places}keep('image', 'label', 'ground', 'condition')",
        train_split=f"train[:{n}]",
    )
    section.in_memory = True
    section.mean, section.std = (127.5,) * 3, (64.0,) * 3
    options = {"seed": seed, "images": "cifar10", "size": (16, 16), "per_condition": 2000}
    section.source_options = ConfigDict(options | {"seen": n})
    return section


def data(model: str, setting: str, seed) -> ConfigDict:
    """Returns the `data` section of a cell."""
    if setting in EYES:
        return eyes(model, setting, seed)
    if setting in SOUND:
        return sound(model, setting, seed)
    return photographs(IMAGES, seed, wrong_places=setting == "wrong_places")


def eyes(model: str, setting: str, seed) -> ConfigDict:
    """Returns the `data` section of digits cut out in depth; one eye alone sees noise."""
    line = "keep('frames', 'label')"
    if setting == "left_twice":
        line = f"left_twice | {line}"
    elif model != "pixels" and setting not in ("two_eyes", "two_eyes_6"):
        picture = "left_view" if setting == "one_eye" else "side_by_side"
        line = f"{picture} | keep('image', 'label')"
    section = common.data("depth_digits", train=line, evaluate=line, eval_split="test[:2000]")
    section.mean = section.std = (127.5,) * 3
    disparity = 6 if setting.endswith("_6") else 2
    options = {"seed": seed, "size": (24, 24), "disparity": (0, disparity), "shift": 2}
    section.source_options = ConfigDict(options | {"pattern": "dots", "images": "digits"})
    return section


def sound(model: str, setting: str, seed) -> ConfigDict:
    """Returns the `data` section of MNIST with spoken digits; the test's speakers are new."""
    picture, kept = "", "keep('image', 'label')"
    if setting == "sound_below":
        picture = "spectrogram_below(16) | "
    elif setting == "image_and_sound" or (setting, model) == ("sound", "pixels"):
        kept = "keep('image', 'audio', 'label')"
    elif setting == "sound":
        picture = "spectrogram_image(16, 16) | "
    vary = "affine(8, 0.08, 1.5) | vary_speed(0.3) | vary_tone(20) | add_noise(10, 40)"
    section = common.data(
        "av_digits",
        train=f"decode | {vary} | resize_area(16) | {picture}{kept}",
        evaluate=f"decode | resize_area(16) | {picture}{kept}",
        eval_split="test[:4000]",
    )
    section.mean, section.std = (33.3,), (78.6,)
    options = {"seed": seed, "num_samples": 5120, "speakers": ("lucas", "theo")}
    section.source_options = ConfigDict(options)
    speakers = ("george", "jackson", "nicolas", "yweweler")
    section.train_source_options = ConfigDict({"speakers": speakers})
    return section
