"""Rows as the lab writes them, with effects of a wanted size."""

import csv
import math

MODELS, CUES = ("pixels", "stem", "resnet", "vit"), ("colour", "texture")
NOISE = (0.0, 0.01, -0.01, 0.004, -0.004)  # by seed


def row(study, cell, seed, **columns):
    return {
        "study": study, "cell": cell, "seed": seed, "model": "", "cue": "", "rho": None, "n": None,
        "setting": "base", "status": "ok", "steps": 1500.0, "flops": 2.8e6, "parameters": 5e4,
        "learning_rate": 2e-3, "seconds": 60.0, "command": f"train {cell} {seed}",
        "commit": "c0ffee", "config_hash": cell, "hardware": "1 x cpu",
    } | columns  # fmt: skip


def sea(seeds=5, effect=True, models=MODELS):
    """Study `sea`: where `effect`, all take the colour, and all but pixels the texture."""
    rows = []
    for seed in range(seeds):
        for model in models:
            rows += _sea_of(model, seed, NOISE[seed], effect)
    return rows


def _sea_of(model, seed, noise, effect):
    def cell(name, conflict, aligned=0.95, ground=0.1, **columns):
        return row("sea", f"{model}.{name}", seed, model=model, **columns) | {
            "accuracy": 0.5, "accuracy_aligned": aligned + noise,
            "accuracy_conflict": conflict + noise / 2, "gap": aligned - conflict + noise / 2,
            "accuracy_object_only": conflict, "accuracy_ground_only": ground,
            "accuracy_uncorrelated": conflict, "ground_choice": 0.9 - conflict, "reliance": 0.5,
            "worst_class_conflict": 0.0, "worst_class_conflict_null": conflict / 2,
            "accuracy_conflict_3": conflict,
        }  # fmt: skip

    rows = [
        cell("uncorrelated", 0.95, rho=0.1),
        cell("labels_shuffled", 0.1, aligned=0.1, rho=0.1, setting="labels_shuffled"),
    ]
    for cue in CUES:
        sees = cue == "colour" or model != "pixels"
        for rho in (0.9, 0.95, 0.99, 1.0):
            conflict = {0.9: 0.4, 0.95: 0.2, 0.99: 0.1, 1.0: 0.01}[rho] if sees and effect else 0.95
            conflict = 0.01 if rho == 1.0 else conflict
            rows.append(cell(f"{cue}.rho{rho * 100:.0f}", conflict, cue=cue, rho=rho))
        learnable = 0.99 if sees else 0.12
        rows.append(cell(f"{cue}.grounds_only", 0.1, ground=learnable, cue=cue, rho=1.0,
                         setting="grounds_only"))  # fmt: skip
        permuted = 0.2 if cue == "colour" and effect else 0.95
        rows.append(cell(f"{cue}.grounds_permuted", permuted, cue=cue, rho=0.95,
                         setting="grounds_permuted"))  # fmt: skip
        if cue == "texture":
            rows.append(cell(f"{cue}.grounds_scattered", 0.95, cue=cue, rho=0.95,
                             setting="grounds_scattered"))  # fmt: skip
    return rows


def conv(seeds=3, saves=4.0, wrong=0.0):
    """Study `conv`: stem and resnet need `saves` times fewer examples than pixels."""
    rows = []
    for seed in range(seeds):
        for model in MODELS:
            for n in (500, 2000, 8000):
                factor = saves if model in ("stem", "resnet") else 1.0
                for setting in ("base", "wrong_places", "shuffled_stem")[
                    : 3 if model == "stem" else 2
                ]:
                    times = factor if setting == "base" else 1.0
                    points = 0.05 * math.log2(n * times) - 0.1 + NOISE[seed] / 5
                    points += wrong * (setting == "wrong_places" and model != "pixels")
                    rows.append(row(
                        "conv", f"{model}.{setting}.{n}", seed, model=model, n=float(n),
                        setting=setting, accuracy=points, accuracy_training=0.99,
                        ship_by_sea=0.4 + NOISE[seed], bg_gap=0.25 + NOISE[seed],
                        accuracy_mixed_same=0.4, accuracy_mixed_rand=0.15,
                    ))  # fmt: skip
    return rows


def write(folder, rows):
    """Tables `lab_STUDY.csv` in a folder."""
    for study in {r["study"] for r in rows}:
        mine = [r for r in rows if r["study"] == study]
        columns = list(dict.fromkeys(name for r in mine for name in r))
        with (folder / f"lab_{study}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows({k: "" if v is None else v for k, v in r.items()} for r in mine)
