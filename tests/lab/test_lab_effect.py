"""Trained cells decide a claim: with the effect it holds, without it fails."""

import dataclasses

import pytest

from configs import lab
from experiments.lab import claims, rows, runner, verdict

SEEDS = 3


@pytest.mark.slow
def test_the_verdict_changes_when_the_effect_is_removed(tmp_path, monkeypatch, one_device):
    """Removed: cells of rho 0.95 are trained with grounds that tell nothing, on other seeds."""
    make = runner.cell_config

    def short(variant, **options):
        config = make(variant, **options)
        config.steps, config.optimizer.schedule.warmup_steps = 150, 20
        config.data.source_options.per_condition = 300
        return config

    monkeypatch.setattr(runner, "cell_config", short)
    colour, none = "sea.stem.colour.rho95", "sea.stem.uncorrelated"
    jobs = [
        runner.Job(variant, seed, f"{variant}/{seed}")
        for variant, seeds in ((colour, SEEDS), (none, 2 * SEEDS))
        for seed in range(seeds)
    ]
    lone = runner.Runner(tmp_path, jobs)
    lone.chosen["sea", "stem"] = 2e-3
    lone.run()
    table = rows.read(tmp_path / "lab_sea.csv")
    claim = next(c for c in claims.CLAIMS["sea"] if c.name == "sea.colour.stem")

    def evidence(found):
        (study,) = rows.studies(found)
        return [test.verdict for test in verdict.judge(claim, study).evidence]

    kept = [row for row in table if row["seed"] < SEEDS]
    assert evidence(kept) == ["holds"]
    cell = dataclasses.asdict(lab.CELLS[colour]) | {"cell": lab.CELLS[colour].name}
    without = [row | cell | {"seed": row["seed"] - SEEDS} for row in table if row["seed"] >= SEEDS]
    real = [row for row in kept if row["cell"] == lab.CELLS[none].name]
    assert evidence([*real, *without]) == ["fails"]
