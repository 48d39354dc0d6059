"""WordNet's glosses, on a CPU: what masked pretraining is worth, and two tasks in one model.

| variant    | what                                                                      |
|------------|---------------------------------------------------------------------------|
| `nouns`    | to which of 26 lexicographer files does a noun's gloss belong? from scratch |
| `words`    | a hidden word of a gloss, one of 2,048: pretraining without labels        |
| `pretrain` | masked bytes of all 117,659 glosses, the pretraining of the paper         |
| `finetune` | `nouns` from the weights of `words`                                       |
| `verbs`    | the question about verbs, of which there are 15 files                     |
| `both`     | nouns and verbs with one model, a query for each                          |
| `pairs`    | is a noun's gloss that of another's hypernym, of a sister, or unrelated?   |

Each also with `:tiny`. The database is 6 MB, compressed:

    curl -O https://wordnetcode.princeton.edu/3.0/WNdb-3.0.tar.gz && tar -xf WNdb-3.0.tar.gz
    python -m experiments.run --config=configs/wordnet.py:words --config.data.data_dir=dict \\
        --workdir=runs/wordnet/words
    python -m experiments.run --config=configs/wordnet.py:finetune --config.data.data_dir=dict \\
        --workdir=runs/wordnet/finetune
    python -m experiments.run --config=configs/wordnet.py:nouns --config.data.data_dir=dict \\
        --workdir=runs/wordnet/nouns

With fewer labels: --config.data.train_source_options.share=0.01; `draw` says which.
Eight tenths of the labelled glosses are trained on; one is the validation set, and
--config.data.eval_split=test the last one. `words` and `pretrain` read the texts of all ten, so
their own evaluation is on glosses that they have trained on.

`words` takes 20 minutes of a CPU core (0.55 s a step of 256), `pretrain` 15 (0.18 s a step of 64;
32 bytes of a gloss are asked for, which holds nearly all hidden ones). A run of `words` tells what
stands in the place of `_`: experiments.predict --input='tropical _ with large white flowers' says
shrub, herb, tree. The questions are our own, and so are the recipes; there is no paper to compare
with.

`experiments.transfer --study=glosses` compares them on the test glosses, three seeds. With 1 %,
10 % and 100 % of the labels, and 200, 400 and 1,000 steps, `nouns` has 35.9, 49.8 and 60.3 % from
scratch; 40.3, 53.5 and 62.1 % from `words`; 31.9, 44.7 and 52.6 % from `pretrain`. So hidden words
pay where labels are few, and hidden bytes do not. Logistic regression of TF-IDF has 48.3, 69.6 and
81.4 %. See experiments/results/README.md, also for `both`.

`pairs` from scratch has 41.8 % of the test pairs after 1,000 steps (commit bf6b206, seed 0, 2.5
minutes of a core), where chance is 33.3 %; 42 % of the pairs are cut.
"""

from configs import common
from perceiver_jax.datasets.wordnet_files import FILES
from perceiver_jax.datasets.wordnet_relations import RELATIONS
from perceiver_jax.datasets.wordnet_vocabulary import WORDS

VARIANTS = ("nouns", "words", "pretrain", "finetune", "verbs", "both", "pairs")
LENGTH, CHANNELS = 160, 128  # 95 % of the glosses are not longer
# Batch size, steps, steps between evaluations, and learning rate; of the others the last row.
TRAINING = {
    "words": (256, 2200, 1100, 2e-3),  # what is learned in batches of 64 transferred less
    "pretrain": (64, 5000, 2500, 2e-3),
    "": (64, 3000, 1000, 1e-3),
}


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    batch_size, steps, every, learning_rate = TRAINING.get(name, TRAINING[""])
    config = common.base(batch_size=batch_size, steps=steps)
    config.eval_every = config.checkpoint_every = every
    config.model = {
        "dtype": "float32",
        "embedding": {"module": "text.Embedding", "channels": CHANNELS, "init_scale": 0.1},
        "input": {
            "module": "text.Bytes",
            "max_length": LENGTH,
            "position_init_scale": 0.1,
            "window": 7,
        },
        "encoder": common.encoder(
            num_latents=32,
            latent_channels=CHANNELS,
            num_blocks=1,
            num_self_attends_per_block=4,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            latent_init_scale=1.0,  # latents that look at different places from the start
            remat="none",
        ),
        "decoder": common.decoder(num_heads=4, query_residual=False),
    }
    if name == "pretrain":
        pretrain(config)
    elif name == "words":
        guess(config)
    elif name == "pairs":
        relate(config, subtree=6 if tiny else 500)
    else:
        speech = {"verbs": ("verb",), "both": ("noun", "verb")}.get(name, ("noun",))
        classify(config, speech)
    config.optimizer = common.adamw(learning_rate, warmup_steps=200)
    if tiny:
        return common.shrink(config)
    if name == "finetune":
        config.start.weights = "runs/wordnet/words"
        config.start.fresh = ("^output/",)
    return config


def pretrain(config) -> None:
    """The fields of the masked model."""
    config.experiment = "language"
    kept = "'text', 'text_mask', 'hidden'"
    config.data = common.reading(
        "wordnet",
        train=f"random_window({LENGTH}) | hide_words(0.15) | query_hidden(32) "
        f"| keep({kept}, 'indices')",
        evaluate=f"first_window({LENGTH}) | hide_words(0.15) | keep({kept})",
        train_split="all",
        eval_split="validation",
    )
    config.data.source_options = {"speech": ("noun", "verb", "adj", "adv")}
    config.model.output = {
        "module": "text.TiedLogits",
        "max_length": LENGTH,
        "query_channels": CHANNELS,
        "query_init_scale": 1.0,
    }


def guess(config) -> None:
    """The fields of the question about a hidden word; four fifths of the glosses are not cut."""
    config.experiment = "text_tasks"
    line = "hide_one | join_texts(96, 'text') | keep('text', 'text_mask', 'marks', 'cut', 'label')"
    config.data = common.reading(
        "wordnet", train=line, evaluate=line, train_split="all", eval_split="validation"
    )
    config.data.source_options = {"question": "word", "speech": ("noun", "verb", "adj", "adv")}
    ask(config, {"word": WORDS})


def classify(config, speech: tuple[str, ...]) -> None:
    """The fields of the question about parts of speech: one task each."""
    config.experiment = "text_tasks"
    kept = "'text', 'text_mask', 'marks', 'cut', 'label'"
    kept += ", 'task', 'part'" if len(speech) > 1 else ""
    line = f"join_texts({LENGTH}, 'text') | keep({kept})"
    config.data = common.reading("wordnet", train=line, evaluate=line, eval_split="validation")
    if len(speech) > 1:
        config.data.source = "mixture"
        parts = {s: {"source": "wordnet", "options": {"speech": (s,)}} for s in speech}
        config.data.source_options = {"parts": parts}
    else:
        config.data.source_options = {"speech": speech}
        config.data.train_source_options = {"share": 1.0, "draw": 0}
    ask(config, {s: tuple(f"{s}.{name}" for name in FILES[s].values()) for s in speech})


def relate(config, *, subtree: int) -> None:
    """The fields of the question about pairs of nouns."""
    config.experiment = "text_tasks"
    line = f"join_texts({LENGTH}, 'first', 'second')"
    line += " | keep('text', 'text_mask', 'marks', 'cut', 'label')"
    config.data = common.reading("wordnet", train=line, evaluate=line, eval_split="validation")
    config.data.source_options = {"question": "relation", "speech": ("noun",), "subtree": subtree}
    config.data.train_source_options = {"share": 1.0, "draw": 0}
    ask(config, {"relation": RELATIONS})


def ask(config, classes: dict[str, tuple[str, ...]]) -> None:
    """The fields of the answers: the names of the classes of each task."""
    config.text_tasks = {
        "classes": classes,
        "number_range": (0.0, 1.0),  # no task asks for a number
    }
    config.model.output = common.section(
        "label.Answers",
        tasks={task: len(names) for task, names in classes.items()},
        query_channels=CHANNELS,
        query_init_scale=1.0,
    )
