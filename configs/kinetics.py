"""Kinetics-700-2020 through Perceiver IO's autoencoder: video, sound and label in one array.

| variant      | loss weight of the label | video PSNR | audio PSNR | label top-1 |
|--------------|--------------------------|------------|------------|-------------|
| `autoencode` | 1e-4                     | 24.37      | 26.97      | 10.2 %      |
| `label`      | 1                        | 20.7       | not stated | 45 %        |

Each also with `:tiny`. The figures are the paper's (Perceiver IO, section 4.3, Tables 4 and 17; its
"88x"); we have not run this to the end. 19,858,855 parameters. The forward pass takes 260 GFLOP
with the outputs that training asks for and 7,470 with all (the paper: 310 and 6,850). Fewer latents
compress more (video and audio PSNR, top-1):

    --config.model.encoder.num_latents=392      "176x": 24.27, 25.33, 8.6 %
    --config.model.encoder.num_latents=196      "352x": 23.21, 14.15, 11.5 %

"88x" counts the padded channels of the tokens. It assumes 480 sound tokens; text and released model
have 1,920, which gives 91x. Counted in the values themselves it is 6.1x. The run prints both.

Data: local video files, and PyAV to decode them. The message without `data_dir` says how to list
them.

    pip install -e '.[video]'
    python -m experiments.run --config=configs/kinetics.py --workdir=runs/kinetics \\
        --config.data.data_dir=/data/kinetics      # with train.csv, validate.csv and the files

To evaluate the released weights with the label hidden, `validate.csv` alone is enough:

    python -m experiments.run --config=configs/kinetics.py --workdir=runs/released \\
        --config.data.data_dir=/data/kinetics --config.data.train_split= --mode=eval \\
        --config.start.weights=kinetics

Reconstruct a missing modality, sound from video: --config.autoencode.eval_hidden="('label',
'audio')". In training, --config.model.input.mask_rates.audio=0.5 hides half the sound tokens and
drop_rates.audio=0.2 hides all sound in a fifth of the clips.

Recipe (section 4.3, app. I): 16 frames of 224x224 at 25 a second, 30,720 samples at 48 kHz, batch
1024, rate 1e-3, L1 losses. Training decodes 512 pixels, 512 patches of sound and the label of each
clip, and hides the label of half the clips. The paper does not state optimizer, schedule, length,
weight decay and augmentation; ours are Perceiver IO's for ImageNet. Nor does it state the peak of
PSNR (ours is 1) or how it is averaged (ours: over clips).
"""

from ml_collections import ConfigDict

from configs import clips, common
from configs.released import sizes
from perceiver_jax import pretrained

VARIANTS = ("autoencode", "label")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    fields = sizes.get_config("kinetics:tiny" if tiny else "kinetics").to_dict()
    spec = pretrained.released(**fields).spec
    size = fields["image_size"]
    config = common.base(batch_size=1024, steps=150_000)
    config.experiment = "autoencode"
    config.eval_every = 5000
    config.data = clips.data(fields["num_frames"], size, "'label', 'readable'")
    config.data.source_options.samples_per_second = fields["samples_per_frame"] * (
        clips.FRAMES_PER_SECOND
    )
    config.data.train_source_options.clips_per_row = 1 if tiny else 15  # 0.64 s each
    config.model = {
        **spec,
        "encoder": common.encoder(**spec["encoder"]),
        "decoder": common.decoder(query_residual=False),
    }
    # Fractions hidden in training: of the tokens, and of the examples with all their tokens.
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
            "train_outputs": {"video": 512, "audio": 512},  # decoded per example and step
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
    if name == "label":
        config.autoencode.loss_weights.label = 1.0
    return common.shrink(config) if tiny else config
