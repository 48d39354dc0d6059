"""The models of the lab: four of equal cost, and what study `change` makes of them."""

from ml_collections import ConfigDict

from configs import common
from perceiver_jax import baselines

MODELS = ("pixels", "stem", "resnet", "vit")
LEARNED = "learned"  # pixels with learned positions


def model(name: str, num_classes: int) -> ConfigDict:
    """Returns the `model` section of one of `MODELS`: 2.6 to 3 MFLOP for an image of 16x16x3."""
    if name in ("pixels", "stem"):
        stem = name == "stem"
        return ConfigDict(
            {
                "dtype": "float32",
                "input": common.conv_stem(channels=32, num_bands=3)
                if stem
                else common.pixels(num_bands=6),
                "encoder": common.encoder(
                    num_latents=16,
                    latent_channels=48,
                    num_blocks=1,
                    num_self_attends_per_block=3 if stem else 2,
                    num_cross_attend_heads=4,
                    num_self_attend_heads=4,
                    cross_attend_qk_channels=32,
                    cross_attend_v_channels=32,
                    remat="none",
                ),
                "decoder": common.decoder(),
                "output": common.classification(num_classes=num_classes, query_channels=48),
            }
        )
    fields = {"widths": (11, 22, 44), "blocks": (1, 1, 1)}
    if name == "vit":
        fields = {"patch": 4, "width": 48, "depth": 3, "num_heads": 4, "pool": "mean"}
    module = {"resnet": baselines.ResNet, "vit": baselines.ViT}[name]
    return ConfigDict(
        {
            "dtype": "float32",
            "module": f"baselines.{module.__name__}",
            **common.defaults(module),
            **fields,
            "output": common.section("label.PooledClassification", num_classes=num_classes),
        }
    )


def changed(name: str, setting: str) -> ConfigDict:
    """Returns the `model` section of a cell of study `change`; see `configs/lab_change.py`.

    Two eyes, 24x24 each: 12 to 13 MFLOP, 23 to 25 where they are apart. An image of 16x16 and a
    sound: `resnet` gets a second trunk, `pixels` one more kind of tokens.
    """
    if setting in ("raw", "permuted", "wrong_places", "image", "sound", "sound_below"):
        found = model("pixels" if name == LEARNED else name, 10)
        if name == LEARNED:
            fields = {"channels": 8, "position_channels": 16}
            found.input = common.section("image.LearnedPositions", **fields)
        if setting == "sound" and name == "pixels":
            found.input = common.section("audio.Spectrogram")
        return found
    if setting == "image_and_sound":
        return with_sound(name)
    if name == "pixels":
        found = model(name, 10)
        separate = setting.startswith("separate_eyes")
        found.input = common.section(
            "stereo.SeparateEyes" if separate else "stereo.StackedEyes",
            **{"channels": 32, "patch": (1, 7), "num_bands": 12},
            eyes="left" if setting == "one_eye" else "both",
        )
        found.encoder.num_latents = 32
        found.encoder.latent_init_scale = 1.0  # latents that attend to different places at once
        return found
    found = model(name, 10)
    found.update({"widths": (15, 30, 60)} if name == "resnet" else {"width": 64})
    return found


def with_sound(name: str) -> ConfigDict:
    """Returns the `model` section of `pixels` or `resnet` for an image and a sound."""
    found = model(name, 10)
    if name == "resnet":
        found.module = "baselines.ResNetWithSound"
        with found.unlocked():
            own = {**common.defaults(baselines.ResNetWithSound), "sound_widths": (11, 22, 44)}
            found.update({key: value for key, value in own.items() if key not in found})
        return found
    parts = {"audio": common.section("audio.Spectrogram"), "image": found.input}
    rates = {"audio": 0.0, "image": 0.0}
    with found.unlocked():
        found.input = common.section(
            "multimodal.Inputs", modalities=parts, mask_rates=rates, drop_rates=rates
        )
    return found
