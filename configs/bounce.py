"""Bouncing shapes that one sees and hears, generated: a small video and sound autoencoder.

Clips of 8 frames of 16x16 with 1,280 samples (see `datasets/generated/bounce.py`); squared error on
the video. Sound and video are each dropped from a fifth of the examples, so that one model also
reconstructs either from the other. Nothing to download, minutes on a CPU:

    python -m experiments.run --config=configs/bounce.py --workdir=runs/bounce
    python -m experiments.run --config=configs/bounce.py --workdir=runs/from_video \\
        --mode=eval --config.start.weights=runs/bounce \\
        --config.autoencode.eval_hidden="('label', 'audio')"   # sound from video
    python -m experiments.plot --workdir=runs/bounce           # with an mp4

Expected: see experiments/results/README.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("standard",)


def get_config(variant: str = ""):
    _, tiny = common.parse(variant, VARIANTS)
    frames, size, samples_per_frame, classes = 8, 16, 160, 4
    patches = frames * samples_per_frame // 16
    config = common.base(batch_size=16, steps=2500)
    config.experiment = "autoencode"
    config.data = common.reading(
        "bounce",
        train="keep('video', 'audio', 'label')",
        evaluate="keep('video', 'audio', 'label')",
        eval_split="test[:512]",
    )
    config.data.source_options = {
        "num_frames": frames,
        "size": (size, size),
        "frames_per_second": 20,
        "samples_per_frame": samples_per_frame,
    }
    bands = patches // 2
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "multimodal.Inputs",
            "modalities": {
                "audio": common.section("audio.Patches", num_bands=bands),
                "label": {"module": "label.OneHot", "num_classes": classes},
                "video": common.section("video.Blocks", num_bands=4),
            },
            "mask_rates": {"audio": 0.0, "label": 0.0, "video": 0.0},
            "drop_rates": {"audio": 0.2, "label": 0.5, "video": 0.2},
            "min_padding": 4,
        },
        "encoder": common.encoder(
            num_latents=32,
            latent_channels=128,
            num_blocks=1,
            num_self_attends_per_block=3,
            num_self_attend_heads=4,
            cross_attend_qk_channels=128,
        ),
        "decoder": common.decoder(num_heads=4, qk_channels=128, v_channels=128, widening=2),
        "output": {
            "module": "multimodal.Outputs",
            "modalities": {
                "audio": common.section("audio.Samples", num_patches=patches, num_bands=bands),
                "label": {
                    "module": "label.Classification",
                    "num_classes": classes,
                    "query_channels": 64,
                },
                "video": {
                    "module": "video.Pixels",
                    "shape": (frames, size, size),
                    "num_bands": 8,
                    "max_resolution": (),
                },
            },
            "channels": 128,
            "min_padding": 2,
        },
    }
    config.autoencode = ConfigDict(
        {
            # The absolute error is lowest at the median, and most pixels are black: training
            # would predict black for long.
            "losses": {
                "video": "mean_squared_error",
                "audio": "mean_absolute_error",
                "label": "softmax_cross_entropy",
            },
            "loss_weights": {"video": 3.0, "audio": 1.0, "label": 0.03},
            "train_outputs": {"video": 256, "audio": 40},
            "eval_hidden": ("label",),
            "eval_chunk_size": 2048,
        }
    )
    config.optimizer = common.adamw(2e-3, warmup_steps=100, weight_decay=0.01)
    if tiny:
        config.data.eval_split = "test[:8]"
    return common.shrink(config) if tiny else config
