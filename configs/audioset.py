"""AudioSet by the Perceivers: several labels of a clip, from video and sound in one array.

| variant  | model            | sound                      | mAP: both | audio alone | video alone |
|----------|------------------|----------------------------|-----------|-------------|-------------|
| `raw`    | Perceiver (2021) | 480 patches of 128 samples | 43.5      | 38.3        | 25.8        |
| `mel`    | Perceiver (2021) | 4,800 of a mel spectrogram | 44.2      | 38.4        | 25.8        |
| `io_raw` | Perceiver IO     | 480 patches of 128 samples | 43.3      |             |             |
| `io_mel` | Perceiver IO     | 4,800 of a mel spectrogram | 44.9      |             |             |

Each also with `:tiny`. The figures are the papers' (Perceiver 2021, section 4.2, Table 3, which
trained sound and video alone as separate models; Perceiver IO, Table 10); we have not run this to
the end.

| variant  | parameters  | the paper | GFLOP a clip | the paper |
|----------|-------------|-----------|--------------|-----------|
| `raw`    | 109,049,745 |           | 177.3        |           |
| `mel`    | 109,049,743 |           | 194.1        |           |
| `io_raw` | 24,923,436  | 25.0 M    | 52.7         | 52.9      |
| `io_mel` | 86,569,258  | 88.2 M    | 129.3        | 129.5     |

Train, then evaluate with one modality hidden:

    pip install -e '.[video]'
    python -m experiments.run --config=configs/audioset.py:raw --workdir=runs/audioset \\
        --config.data.data_dir=/data/audioset   # its CSV with the column `labels`, classes.txt
    python -m experiments.run --config=configs/audioset.py:raw --workdir=runs/audio \\
        --config.data.data_dir=/data/audioset --mode=eval --config.start.weights=runs/audioset \\
        --config.tagging.eval_hidden="('video',)"

`python -m experiments.convert_lists --help` says how the official lists become ours.

Recipe: 32 frames of 224x224 at 25 a second in blocks of 2x8x8, 61,440 samples; 100 epochs; sigmoid
cross-entropy; evaluation averages 16 clips of each file. The Perceiver has two cross-attends, each
with eight layers of its own; Perceiver IO one with twelve, 512 latents of 512 channels (`io_mel`:
1,024) and one query. Training zeroes the video of 30 % of the clips, whose positions stay (worth
3.3 to 3.8 mAP), and the mel spectrogram of 10 %, without SpecAugment (44.2; with SpecAugment and
only video dropped 43.2). `model.input.dropped="mask_token"` puts a learned token in their place.
487 channels (Perceiver IO, Table 5) are 384 of a block and 4 of padding, which leaves 16 bands an
axis.

The papers do not state batch, LAMB's rate and steps (ours: those of ImageNet), the layout of the
spectrogram (ours: 60 windows of 80 bands), the bands of spectrogram and patches, the width of
Perceiver IO's query (ours: 1,024), whether it drops modalities (ours: as above), and what is
averaged (ours: probabilities). They mention colour augmentation without details; we leave it out.
The mAP of the first paper's first version was too high (app. F): scores and labels were transposed.
"""

from ml_collections import ConfigDict

from configs import clips, common

VARIANTS = ("raw", "mel", "io_raw", "io_mel")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    frames, size = (4, 32) if tiny else (32, 224)
    mel, perceiver_io = name.endswith("mel"), name.startswith("io")
    config = common.base(batch_size=1024, steps=0)
    config.steps = 100 * 1_700_000 // config.get_ref("batch_size")  # 100 epochs of the files
    config.experiment = "tagging"
    config.data = clips.data(frames, size, "'labels', 'row', 'readable'")
    config.data.source_options.clips_per_row = 2 if tiny else 16
    config.data.mean, config.data.std = (127.5,) * 3, (127.5,) * 3
    config.tagging = ConfigDict({"eval_hidden": ()})  # modalities that the model does not see
    if mel:
        sound = common.section("audio.MelSpectrogram", samples_per_second=clips.SAMPLES_PER_SECOND)
    else:
        sound = common.section("audio.Patches", samples_per_patch=128, num_bands=64)
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "multimodal.Inputs",
            "modalities": {
                "audio": sound,
                "video": common.section("video.Blocks", block=(2, 8, 8), num_bands=16),
            },
            "mask_rates": {"audio": 0.0, "video": 0.0},
            "drop_rates": {"audio": 0.1 if mel else 0.0, "video": 0.3},
            "dropped": "zeros",
            "min_padding": 4,
        },
        "encoder": common.encoder(
            num_cross_attends=2, num_blocks=2, num_self_attends_per_block=8, share_weights=False
        ),
        "decoder": {"module": "MeanPool"},
        "output": {"module": "label.PooledClassification", "num_classes": 527},
    }
    if perceiver_io:
        config.model.encoder = common.encoder(
            latent_channels=1024 if mel else 512, num_blocks=1, num_self_attends_per_block=12
        )
        config.model.decoder = common.decoder()
        config.model.output = common.classification(527, query_channels=1024)
    config.optimizer = common.optimizer(
        "lamb",
        4e-3,
        {"name": "steps", "boundaries": (0.7, 0.85, 0.95), "factor": 0.1},
        reference_batch_size=1024,
    )
    return common.shrink(config) if tiny else config
