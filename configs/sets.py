"""Sets of entities: the entity encoder of StarCraft II, and two questions with known answers.

| variant     | question                                               | parameters | accuracy |
|-------------|--------------------------------------------------------|------------|----------|
| `nearest`   | each of 8 to 16 entities names its nearest other one   | 107,008    | 98.7 %   |
| `count`     | how many of 8 kinds are among 8 to 16 entities         | 103,433    | 100.0 %  |
| `starcraft` | the published size: one of 512 entities is selected    | 23,834,752 | not run  |

Each also with `:tiny`. The sets are made when they are read, so no data are needed:

    python -m experiments.run --config=configs/sets.py:nearest --workdir=runs/nearest
    python -m experiments.plot --workdir=runs/nearest

Seed 0, 2,000 test sets, 75 and 40 CPU seconds of steps on a core shared with six other processes
(Python 3.11, jax 0.10.2; experiments/results/sets.csv). Chance is 9.1 % and 12.5 %. `nearest` says
little about the encoder: the product of two entities' outputs can hold their distance, and the
picture shows the same attention for every entity. `count` needs the latents: the answer is the mean
of what entities say, and no entity knows by itself which others have its kind.

`starcraft` follows Perceiver IO (Jaegle et al. 2022) app. B and Table 6: 512 entities of 256
features, projected to 128 channels, 32 latents, 3 layers, otherwise as on ImageNet; queries are the
entities; an embedding of 256 channels for each and one of the set. The agent that reads them, and
its data, are not public. Generated sets of these shapes stand for the data, and which entity is
nearest to the middle of all is the question. Batch, optimizer and rate are ours and untuned. An
example takes 1.95 GFLOP; the paper prints 0.93 billion. Its 3.3 billion for the transformer in this
place are multiplications and additions counted apart (3 layers: 3.2), as ours are.
"""

from configs import common

VARIANTS = ("nearest", "count", "starcraft")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = {"nearest": nearest, "count": count, "starcraft": starcraft}[name](tiny)
    return common.shrink(config) if tiny else config


def nearest(tiny: bool):
    """Each entity names the nearest other one."""
    config = base("nearest", (4, 6) if tiny else (8, 16), "named", tiny)
    config.model = small(common.section("entities.Pointers", channels=32))
    return config


def count(tiny: bool):
    """How many kinds are among the entities."""
    config = base("count", (4, 6) if tiny else (8, 16), "label", tiny)
    config.steps = 1500
    config.model = small(common.section("entities.PerSet", num_outputs=9))
    return config


def starcraft(tiny: bool):
    """The encoder of App. B."""
    config = base("middle", (4, 8) if tiny else (128, 512), "label", tiny)
    config.batch_size = 256
    config.data.source_options.noise_channels = 0 if tiny else 246
    config.model = {
        "dtype": "float32",
        "input": common.section("entities.Entities", channels=128),
        "encoder": common.encoder(num_latents=32, num_blocks=1, num_self_attends_per_block=3),
        "decoder": common.decoder(),
        "output": common.section("entities.Selection", channels=256),
    }
    config.optimizer = common.optimizer("lamb", 1e-3, {"name": "constant"})
    return config


def base(question: str, num_entities: tuple[int, int], answer: str, tiny: bool):
    """A config without model, for sets that are made when they are read."""
    config = common.base(batch_size=64, steps=3000)
    config.experiment = "sets"
    config.eval_every = 500
    line = f"keep('entities', 'entities_mask', {answer!r})"
    config.data = common.reading("entities", train=line, evaluate=line)
    config.data.eval_split = "test[:16]" if tiny else "test[:2000]"
    config.data.readers = "threads:1"
    config.data.source_options = {
        "question": question,
        "num_entities": num_entities,
        "num_kinds": 8,
        "noise_channels": 0,
        "seed": 0,
    }
    config.optimizer = common.adamw(2e-3, warmup_steps=100, b2=0.999, weight_decay=0.01)
    return config


def small(output):
    """The model of both questions."""
    return {
        "dtype": "float32",
        "input": common.section("entities.Entities", channels=64),
        "encoder": common.encoder(
            num_latents=16,
            latent_channels=64,
            num_blocks=1,
            num_self_attends_per_block=2,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            cross_attend_qk_channels=64,
            cross_attend_v_channels=64,
            remat="none",
        ),
        "decoder": common.decoder(num_heads=4),
        "output": output,
    }
