"""Masked language modelling on bytes, without a tokenizer: Perceiver IO's UTF-8 model; a small one.

| variant     | model                       | trained on                                           |
|-------------|-----------------------------|------------------------------------------------------|
| `bytes`     | the released one            | C4 for 70 % and Wikipedia for 30 %, as in the paper  |
| `documents` | the same                    | documents of one TFDS set, by default C4             |
| `files`     | the same                    | local text files, as one stream of bytes             |
| `small`     | 652,294 parameters, for CPU | the sources of Python's own standard library         |

Each also with `:tiny`. Perceiver IO (Jaegle et al. 2022), section 4.1, Tables 1 and 12, app. F:
201,108,230 parameters, 113 GFLOP (counted here: 121) for 2,048 bytes; GLUE 81.0 after fine-tuning.
Its training code was never released, and we have not run this to the end.

    python -m experiments.run --config=configs/language.py:bytes --workdir=runs/bytes \\
        --config.data.data_dir=/data/tfds   # with c4/en and wikipedia/20230601.en: docs/data.md
    python -m experiments.run --config=configs/language.py:documents --workdir=runs/documents \\
        --config.data.data_dir=/data/tfds          # which `tfds build c4/en` has made
    python -m experiments.run --config=configs/language.py:files --workdir=runs/files \\
        --config.data.data_dir=/data/texts         # with train/*.txt and test/*.txt

`documents` reads any TFDS set with a text, `pg19` for one with
--config.data.source_options.field=book_text and --config.data.source_options.join=1. The released
weights, evaluated on texts of yours:

    python -m experiments.run --config=configs/language.py:files --workdir=runs/released \\
        --config.data.data_dir=/data/texts --config.data.train_split= --mode=eval \\
        --config.start.weights=language

Recipe, as stated: 15 % of the words hidden, whole; ten documents joined, then cut to 2,048 bytes;
500,000 steps of 2,048; LAMB at 1.25e-3, 1,000 steps of warm-up (which hurts on ImageNet, app. A.1),
then a cosine; weight decay 0.01; C4 for 70 % of the tokens and Wikipedia for 30 %. Ours: these are
shares of windows, which ten documents nearly always fill; the evaluation reads C4 alone; the cosine
ends at zero; gradients clipped to norm 10 and no decay of biases and norms, as on ImageNet; a
hidden word takes the space before it along, and every byte of it becomes MASK; the loss is the mean
over a sequence's hidden bytes. Metrics: their accuracy, and bits per byte of them.

`small`: nothing to download; the modules whose names begin with s to z are held out. With Python
3.11 it ends at 4.17 bits per hidden byte, where the frequencies of bytes give 5.27 and those by the
word's length and the place in it, which need no context, 4.42: see experiments/results/README.md.
`filled.csv` among the plots shows what was hidden and what the model says.

    python -m experiments.run --config=configs/language.py:small --workdir=runs/small
    python -m experiments.plot --workdir=runs/small
"""

import sysconfig

from configs import common
from configs.released import sizes
from perceiver_jax import pretrained

VARIANTS = ("bytes", "documents", "files", "small")
JOINED = {"field": "text", "join": 10}


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = small() if name == "small" else paper(name, tiny)
    if tiny and name == "small":
        config.data.eval_split = "this.py"
    return common.shrink(config) if tiny else config


def paper(name: str, tiny: bool):
    """The released model, or a tiny one like it."""
    fields = sizes.get_config("language:tiny" if tiny else "language").to_dict()
    spec = pretrained.released(**fields).spec
    config = common.base(batch_size=2048, steps=500_000)
    config.experiment = "language"
    config.eval_every = 5000
    config.data = reading("c4/en", fields["length"], eval_split="validation")
    config.data.source_options = JOINED
    if name == "bytes":
        config.data.source = "mixture"
        config.data.source_options = {
            "parts": {
                "c4": {"source": "c4/en", "options": JOINED},
                "wikipedia": {
                    "source": "wikipedia/20230601.en",
                    "options": JOINED,
                    "splits": {"validation": ""},  # it has none
                },
            }
        }
        config.data.train_source_options = {"shares": {"c4": 0.7, "wikipedia": 0.3}}
    if name == "files":
        config.data.source, config.data.train_split = "texts", "train/*.txt"
        config.data.eval_split = "test/*.txt"
        config.data.source_options = {"length": fields["length"]}
    config.model = {
        **spec,
        "encoder": common.encoder(**spec["encoder"]),
        "decoder": common.decoder(**spec["decoder"]),
    }
    config.optimizer = common.optimizer(
        "lamb",
        1.25e-3,
        {"name": "cosine", "warmup_steps": 1000, "end_value": 0.0},
        reference_batch_size=2048,
        weight_decay=0.01,
    )
    return config


def small():
    """A size for one CPU core, on the sources of Python's own standard library."""
    length, channels = 64, 128
    config = common.base(batch_size=32, steps=6000)
    config.experiment = "language"
    config.data = reading("texts", length, train_split="[!s-z]*.py", eval_split="[s-z]*.py")
    config.data.data_dir = sysconfig.get_path("stdlib")
    config.data.source_options = {"length": length}
    encoder = common.encoder(
        num_latents=32,
        latent_channels=channels,
        num_blocks=1,
        num_self_attends_per_block=4,
        num_cross_attend_heads=4,
        num_self_attend_heads=4,
        latent_init_scale=1.0,  # latents that look at different places from the start
        remat="none",
    )
    config.model = {
        "dtype": "float32",
        "embedding": {"module": "text.Embedding", "channels": channels, "init_scale": 0.1},
        "input": {"module": "text.Bytes", "max_length": length, "position_init_scale": 0.1},
        "encoder": encoder,
        "decoder": common.decoder(num_heads=4, query_residual=False),
        "output": {
            "module": "text.TiedLogits",
            "max_length": length,
            "query_channels": channels,
            "query_init_scale": 1.0,
        },
    }
    config.optimizer = common.adamw(2e-3, warmup_steps=200)
    return config


def reading(source: str, length: int, **splits):
    """Windows of `length` bytes, and 15 % of their words hidden."""
    line = "hide_words(0.15) | keep('text', 'text_mask', 'hidden')"
    return common.reading(
        source,
        train=f"random_window({length}) | {line}",
        evaluate=f"first_window({length}) | {line}",
        **splits,
    )
