"""The digit of an MNIST image and a spoken one together.

Data: TFDS `mnist` and `spoken_digit`. The speakers of the test are not heard in training, whose
sounds vary in speed and tone so that four speakers are enough. Each modality is dropped from 30 %
of the examples, so that one model also classifies either alone. Minutes on a CPU:

    python -m experiments.run --config=configs/av_digits.py --workdir=runs/av_digits
    python -m experiments.run --config=configs/av_digits.py --workdir=runs/image_only \\
        --mode=eval --config.start.weights=runs/av_digits \\
        --config.audiovisual.eval_hidden="('audio',)"
    python -m experiments.plot --workdir=runs/av_digits        # each alone, attention

To choose anything, hold out a training speaker: --config.data.train_split='train[:50000]'
--config.data.eval_split='train[58000:]' --config.data.source_options.speakers="('george',)"
--config.data.train_source_options.speakers="('jackson', 'nicolas', 'yweweler')".

Expected: see experiments/results/README.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("standard",)


def get_config(variant: str = ""):
    _, tiny = common.parse(variant, VARIANTS)
    config = common.base(batch_size=64, steps=1500)
    config.experiment = "audiovisual"
    config.data = common.data(
        "av_digits",
        train="decode | affine(8, 0.08, 1.5) | vary_speed(0.3) | vary_tone(20) | "
        "add_noise(10, 40) | keep('image', 'audio', 'label')",
        evaluate="decode | keep('image', 'audio', 'label')",
    )
    del config.data.mix_alpha
    config.data.mean, config.data.std = (33.3,), (78.6,)
    config.data.label_smoothing = 0.1
    config.data.source_options = {"num_samples": 5120, "speakers": ("lucas", "theo")}
    config.data.train_source_options = {"speakers": ("george", "jackson", "nicolas", "yweweler")}
    config.audiovisual = ConfigDict({"eval_hidden": ()})  # modalities that the model does not see
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "multimodal.Inputs",
            "modalities": {
                "audio": common.section("audio.Spectrogram"),
                "image": common.conv_stem(channels=32, num_bands=4),
            },
            "mask_rates": {"audio": 0.0, "image": 0.0},
            "drop_rates": {"audio": 0.3, "image": 0.3},
            "min_padding": 4,
        },
        "encoder": common.encoder(
            num_latents=16,
            latent_channels=64,
            num_blocks=1,
            num_self_attends_per_block=2,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            cross_attend_qk_channels=64,
            dropout_rate=0.1,
        ),
        "decoder": common.decoder(),
        "output": common.classification(num_classes=10, query_channels=64),
    }
    config.optimizer = common.adamw(2e-3, warmup_steps=200)
    return common.shrink(config) if tiny else config
