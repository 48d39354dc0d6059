"""Video and sound in one array: Perceiver IO's autoencoder, Perceiver's labels; small ones.

| variant          | loss weight of the label | video PSNR | audio PSNR | label top-1 |
|------------------|--------------------------|------------|------------|-------------|
| `kinetics`       | 1e-4                     | 24.37      | 26.97      | 10.2 %      |
| `kinetics_label` | 1                        | 20.7       | not stated | 45 %        |

| variant        | sound                       | mAP: both | audio alone | video alone |
|----------------|-----------------------------|-----------|-------------|-------------|
| `audioset_raw` | 480 patches of 128 samples  | 43.5      | 38.3        | 25.8        |
| `audioset_mel` | 4,800 of a mel spectrogram  | 44.2      | 38.4        | 25.8        |

`bounce` and `av_digits`, at the end, train on a CPU in minutes. Each also with `:tiny`.

All figures are the papers', who trained sound and video alone apart; we have not run this to the
end. Kinetics-700-2020 (Perceiver IO, section 4.3, Tables 4 and 17; its "88x"): 19,858,855
parameters; forward 260 GFLOP with the outputs that training asks for, 7,470 with all (the paper:
310 and 6,850). With fewer latents, as fields:

    --config.model.encoder.num_latents=392      "176x": 24.27, 25.33, 8.6 %
    --config.model.encoder.num_latents=196      "352x": 23.21, 14.15, 11.5 %

"88x" counts the padded channels of the tokens (of 480 sound tokens, where text and released model
have 1,920: 91x); of the values themselves it is 6.1x. Both are printed at the start.

Data: local video files, see the message when `data_dir` is not set, and PyAV:

    pip install 'perceiver_jax[video]'
    python -m experiments.run --config=configs/multimodal.py:kinetics --workdir=runs/kinetics \\
        --config.data.data_dir=/data/kinetics      # with train.csv, validate.csv and the files

The released weights, evaluated with the label hidden; `validate.csv` alone is needed:

    python -m experiments.run --config=configs/multimodal.py:kinetics --workdir=runs/released \\
        --config.data.data_dir=/data/kinetics --config.data.train_split= --mode=eval \\
        --config.start.weights=kinetics

Reconstruction of a missing modality, sound from sight: --config.autoencode.eval_hidden="('label',
'audio')"; --config.model.input.mask_rates.audio=0.5 hides half the sound tokens in training,
drop_rates.audio=0.2 all of them in a fifth of the clips.

Recipe (section 4.3, app. I): 16 frames of 224x224 at 25 a second, 30,720 samples at 48 kHz, batch
1024, rate 1e-3, L1 losses; 512 pixels, 512 patches of sound and the label of each clip are decoded
in training; the label is hidden from half the clips. Optimizer, schedule, length, weight decay and
augmentation are not stated: ours are Perceiver IO's for ImageNet. Of PSNR neither the peak (ours
is 1) nor the averaging (ours is over clips) is stated.

AudioSet (Perceiver 2021, section 4.2, Table 3): labels of clips, evaluated with one of them hidden:

    python -m experiments.run --config=configs/multimodal.py:audioset_raw --workdir=runs/audioset \\
        --config.data.data_dir=/data/audioset   # its CSV with the column `labels`, classes.txt
    python -m experiments.run --config=configs/multimodal.py:audioset_raw --workdir=runs/audio \\
        --config.data.data_dir=/data/audioset --mode=eval --config.start.weights=runs/audioset \\
        --config.tagging.eval_hidden="('video',)"

109,049,745 parameters, 177 GFLOP a clip (mel: 194). 32 frames of 224x224 at 25 a second in blocks
of 2x8x8, 61,440 samples; 100 epochs; two cross-attends, each with eight layers of its own; video
dropped from 30 % of the clips (worth 3.3 to 3.8 mAP) and the mel spectrogram from 10 %, without
SpecAugment (44.2; with it and the video alone dropped 43.2); sigmoid cross-entropy; 16 clips of
each file averaged in evaluation. 487 channels (Perceiver IO, Table 5) are 384 of a block, 4 of
padding, so 16 bands an axis. Not stated, hence ours: batch, LAMB's rate and steps (those of
ImageNet), the layout of the spectrogram (60 windows of 80 bands), its and the patches' bands, and
what is averaged (probabilities). Left out: colour augmentation, of which nothing more is said. The
mAP of the paper's first version was too high (app. F): scores and labels had been transposed.

`bounce`, generated (see `data/bounce.py`): the autoencoder on clips of 8 frames of 16x16 with
1,280 samples. Sound or video is dropped from a fifth of the examples each, so that one model also
brings either back from the other; squared error on the video. Nothing to download:

    python -m experiments.run --config=configs/multimodal.py:bounce --workdir=runs/bounce
    python -m experiments.run --config=configs/multimodal.py:bounce --workdir=runs/from_sight \\
        --mode=eval --config.start.weights=runs/bounce \\
        --config.autoencode.eval_hidden="('label', 'audio')"   # sound from sight
    python -m experiments.plot --workdir=runs/bounce           # with an mp4

`av_digits`: the digit of an MNIST image and a spoken one together, from TFDS `mnist` and
`spoken_digit`; the speakers of the test are not heard in training, whose sounds are varied in speed
and tone so that it hears more than four people. Modality dropout 0.3:

    python -m experiments.run --config=configs/multimodal.py:av_digits --workdir=runs/av_digits
    python -m experiments.run --config=configs/multimodal.py:av_digits --workdir=runs/image_only \\
        --mode=eval --config.start.weights=runs/av_digits \\
        --config.audiovisual.eval_hidden="('audio',)"
    python -m experiments.plot --workdir=runs/av_digits        # guesses of each alone, attention

To choose anything, hold out a training speaker: --config.data.train_split='train[:50000]'
--config.data.eval_split='train[58000:]' --config.data.source_options.speakers="('george',)"
--config.data.train_source_options.speakers="('jackson', 'nicolas', 'yweweler')".

Expected of these two: see experiments/results/README.md.
"""

from ml_collections import ConfigDict

from configs import common
from configs.released import sizes
from perceiver_jax import pretrained

VARIANTS = ("kinetics", "kinetics_label", "audioset_raw", "audioset_mel", "bounce", "av_digits")
FRAMES_PER_SECOND, SAMPLES_PER_SECOND = 25, 48_000


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    if name in ("bounce", "av_digits"):
        config = bounce() if name == "bounce" else av_digits()
    else:
        config = (audioset if name.startswith("audioset") else kinetics)(name, tiny)
    if tiny and name == "bounce":
        config.data.eval_split = "test[:8]"
    return common.shrink(config) if tiny else config


def kinetics(name: str, tiny: bool) -> ConfigDict:
    """The released model, or a tiny one like it."""
    fields = sizes.get_config("kinetics:tiny" if tiny else "kinetics").to_dict()
    spec = pretrained.released(**fields).spec
    size = fields["image_size"]
    config = common.base(batch_size=1024, steps=150_000)
    config.experiment = "autoencode"
    config.eval_every = 5000
    config.data = clips(fields["num_frames"], size, "'label', 'readable'")
    config.data.source_options.samples_per_second = fields["samples_per_frame"] * FRAMES_PER_SECOND
    config.data.train_source_options.clips_per_row = 1 if tiny else 15  # 0.64 s each
    config.model = {
        **spec,
        "encoder": common.encoder(**spec["encoder"]),
        "decoder": common.decoder(query_residual=False),
    }
    # Hidden in training: of the tokens, and of the examples all tokens.
    config.model.input.mask_rates = {"audio": 0.0, "label": 0.5, "video": 0.0}
    config.model.input.drop_rates = {"audio": 0.0, "label": 0.0, "video": 0.0}
    config.autoencode = ConfigDict(
        {
            "losses": {  # functions of losses.py
                "video": "mean_absolute_error",
                "audio": "mean_absolute_error",
                "label": "softmax_cross_entropy",
            },
            "loss_weights": {"video": 0.03, "audio": 1.0, "label": 1e-4},
            "train_outputs": {"video": 512, "audio": 512},  # decoded of each example in a step
            "eval_hidden": ("label",),  # modalities that the model does not see
            "eval_chunk_size": 6272,  # outputs decoded at a time
        }
    )
    config.optimizer = common.optimizer(
        "lamb",
        1e-3,
        {"name": "constant_cosine", "constant_fraction": 0.5, "end_value": 0.0},
        reference_batch_size=1024,
    )
    if name == "kinetics_label":
        config.autoencode.loss_weights.label = 1.0
    return config


def audioset(name: str, tiny: bool) -> ConfigDict:
    """The first Perceiver on AudioSet, or a tiny one like it."""
    frames, size = (4, 32) if tiny else (32, 224)
    mel = name == "audioset_mel"
    config = common.base(batch_size=1024, steps=0)
    config.steps = 100 * 1_700_000 // config.get_ref("batch_size")  # 100 epochs of the files
    config.experiment = "tagging"
    config.data = clips(frames, size, "'labels', 'row', 'readable'")
    config.data.source_options.clips_per_row = 2 if tiny else 16
    config.data.mean, config.data.std = (127.5,) * 3, (127.5,) * 3
    config.tagging = ConfigDict({"eval_hidden": ()})  # modalities that the model does not see
    if mel:
        sound = {
            "module": "audio.MelSpectrogram",
            "samples_per_second": SAMPLES_PER_SECOND,
            "num_mels": 80,
            "window": 1920,
            "hop": 1008,
            "floor": 1e-3,
        }
    else:
        sound = {"module": "audio.Patches", "samples_per_patch": 128}
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "multimodal.Inputs",
            "modalities": {
                "audio": {**sound, "num_bands": 64, "max_resolution": ()},
                "video": {
                    "module": "video.Blocks",
                    "block": (2, 8, 8),
                    "num_bands": 16,
                    "max_resolution": (),
                },
            },
            "mask_rates": {"audio": 0.0, "video": 0.0},
            "drop_rates": {"audio": 0.1 if mel else 0.0, "video": 0.3},
            "min_padding": 4,
        },
        "encoder": common.encoder(
            num_cross_attends=2, num_blocks=2, num_self_attends_per_block=8, share_weights=False
        ),
        "decoder": {"module": "MeanPool"},
        "output": {"module": "label.PooledClassification", "num_classes": 527},
    }
    config.optimizer = common.optimizer(
        "lamb",
        4e-3,
        {"name": "steps", "boundaries": (0.7, 0.85, 0.95), "factor": 0.1},
        reference_batch_size=1024,
    )
    return config


def clips(num_frames: int, size: int, fields: str) -> ConfigDict:
    """The `data` section of local video files; in training a readable one stands in."""
    keep = f"resize({size}) | keep('video', 'audio', {fields})"
    section = common.reading(
        "clips",
        train=f"inception_crop({size}) | flip | {keep}",
        evaluate=f"central_crop({size}, border=0) | {keep}",
        eval_split="validate",
    )
    section.eval_batch_size = 8
    section.source_options = {
        "num_frames": num_frames,
        "frames_per_second": FRAMES_PER_SECOND,
        "samples_per_second": SAMPLES_PER_SECOND,
        "short_side": size * 8 // 7,
        "clips_per_row": 1,
        "row_seconds": 10.0,
    }
    section.train_source_options = {"clips_per_row": 16, "replace": True}
    return section


def bounce() -> ConfigDict:
    """Bouncing shapes at a size for one CPU core."""
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
    sound = {"samples_per_patch": 16, "num_bands": patches // 2, "max_resolution": ()}
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "multimodal.Inputs",
            "modalities": {
                "audio": {"module": "audio.Patches", **sound},
                "label": {"module": "label.OneHot", "num_classes": classes},
                "video": {
                    "module": "video.Blocks",
                    "block": (1, 4, 4),
                    "num_bands": 4,
                    "max_resolution": (),
                },
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
                "audio": {"module": "audio.Samples", "num_patches": patches, **sound},
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
            # Of a video that is black for the most part the median, which the absolute error asks
            # for, is black: training stays there for long.
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
    return config


def av_digits() -> ConfigDict:
    """Written and spoken digits at a size for one CPU core."""
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
                "audio": {
                    "module": "audio.Spectrogram",
                    "window": 256,
                    "hop": 128,
                    "floor": 1e-3,
                    "num_bands": 16,
                    "max_resolution": (),
                },
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
    return config
