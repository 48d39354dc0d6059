"""What is written is what whole forward passes predict, exactly and fast."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calling import call

from experiments.tasks.writing import draw_reading
from perceiver_jax.ar import PerceiverAR
from perceiver_jax.inference import Sampling, generate
from perceiver_jax.inference.generation import advance, read_inputs, refill
from perceiver_jax.inference.sampling import draw
from perceiver_jax.maps import attention_maps

M, N, V = 13, 4, 11
POSITIONS = {
    "sinusoidal": {"positions": "sinusoidal"},
    "learned": {"positions": "learned", "position_shape": (5, 3)},
    "rotary": {"positions": "rotary"},
}
IDS = np.random.default_rng(0).integers(0, V, (3, 40))
LENGTHS = np.array([6, 1, 3])  # one long enough for all latents, one of a start alone


@functools.cache
def made(positions):
    model = PerceiverAR(
        num_ids=V,
        max_length=M,
        num_latents=N,
        num_layers=2,
        channels=8,
        input_channels=12,
        num_cross_attend_heads=2,
        num_self_attend_heads=2,
        remat="none",
        **POSITIONS[positions],
    )
    batch = {"ids": jnp.zeros((1, M), jnp.int32), "length": jnp.array([M])}
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda x: rng.normal(0, 0.6, x.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def plain(model, num_latents, variables, ids, length):
    """The logits behind each sequence, by a whole forward pass."""
    call = functools.partial(model.apply, variables, method="logits")
    return call(ids, length, num_latents=num_latents)[:, -1]


@pytest.mark.parametrize(
    ("exact", "positions"), [(True, "learned"), *((False, kind) for kind in POSITIONS)]
)
def test_logits_are_those_of_a_forward_pass(exact, positions):
    """At every id; the fast way with 3 or 4 latents, before and after each refilling."""
    model, variables = made(positions)
    ids, lengths, slot = IDS[:, :M], LENGTHS, N // 2
    step = jax.jit(advance, static_argnums=(0, 1))
    memory = read_inputs(model, variables, jnp.where(np.arange(M) < lengths[:, None] - 1, ids, 0))
    memory = refill(model, exact, variables, memory, ids, lengths - 1)
    seen = []
    while lengths.max() <= M:
        if not exact and slot == N:
            memory, slot = refill(model, exact, variables, memory.inputs, ids, lengths - 1), N // 2
        last = ids[np.arange(3), lengths - 1]
        memory, logits = step(model, exact, variables, memory, last, lengths - 1, slot)
        number = N if exact else slot + 1
        expected = plain(model, number, variables, ids, lengths)
        np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
        seen, lengths, slot = [*seen, number], lengths + 1, slot + 1
    assert seen == ([4] * 8 if exact else [3, 4] * 4)


def expected_ids(model, variables, prompts, length, exact, seed):
    """Ids drawn from whole forward passes; a full window loses its first quarter."""
    rows, slot = [list(prompt)[-M:] for prompt in prompts], N // 2
    for step in range(length):
        full = [len(row) > M for row in rows]
        rows = [row[-10:] if f else row for row, f in zip(rows, full, strict=True)]
        slot = N // 2 if slot == N or any(full) else slot
        ids = np.stack([np.pad(row, (0, M - len(row))) for row in rows])
        lengths = np.array([len(row) for row in rows])
        logits = plain(model, N if exact else slot + 1, variables, ids, lengths)
        keys = [
            jax.random.fold_in(jax.random.key(seed + i), len(prompt) + step)
            for i, prompt in enumerate(prompts)
        ]
        new = np.asarray(one(logits, Sampling(), jnp.stack(keys)))
        for row, x in zip(rows, new, strict=True):
            row.append(int(x))
        slot += 1
        yield new


one = jax.jit(draw)


@pytest.mark.parametrize("exact", [True, False])
def test_ids_are_those_of_forward_passes_beyond_the_context(exact):
    model, variables = made("rotary")
    prompts = [row[:n] for row, n in zip(IDS, (16, 1, 3), strict=True)]  # the first is cut
    with pytest.warns(UserWarning, match="of 16 ids of a prompt the last 13 are read"):
        found = generate(model, variables, prompts, length=40, seed=2, exact=exact).ids
    expected = np.stack(list(expected_ids(model, variables, prompts, 40, exact, 2)), axis=1)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > V // 2


def test_seeds_ends_masks_and_progress():
    model, variables = made("rotary")
    run = functools.partial(generate, model, variables, length=40)
    prompts, shown = [IDS[0, :5], IDS[1, :2]], []
    first = run(prompts, seed=3, progress=lambda *x: shown.append(x))
    assert shown[0] == (0, 40) and shown[-1] == (40, 40) and first.ids_per_second > 0
    again = run(prompts, seed=3)
    alone = run(prompts[1:], seed=4)
    np.testing.assert_array_equal(first.ids, again.ids)
    np.testing.assert_array_equal(first.ids[1], alone.ids[0])
    assert not np.array_equal(first.ids[0], run(prompts, seed=5).ids[0])
    end = int(first.ids[0][7])
    ended = run(prompts, seed=3, end=end).ids
    for whole, part in zip(first.ids, ended, strict=True):
        count = list(whole).index(end) if end in whole else 40
        np.testing.assert_array_equal(part, whole[:count])
    allowed = np.zeros((2, V), bool)
    allowed[0, 2:4] = allowed[1, 7:] = True
    (ids,) = run(prompts[:1], seed=1, allowed=allowed).ids
    assert set(ids[1::2]) <= {2, 3} and set(ids[::2]) <= {7, 8, 9, 10}  # the prompt has 5 ids


def test_what_is_drawn_is_what_the_latents_read():
    model, variables = made("rotary")
    ids = IDS[0, :10]
    figure = draw_reading(model, variables, ids, 6)
    maps = attention_maps(model, variables, {"ids": ids[None, :9], "length": jnp.array([9])})
    expected = maps["cross_attend"]["input"][0].mean(axis=0)  # of the four last places
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected, atol=1e-5)


def test_draws_have_the_chances_they_should():
    chances = np.array([0.1, 0.4, 0.2, 0.3])
    keys = jax.random.split(jax.random.key(0), 4000)
    logits = jnp.log(jnp.broadcast_to(jnp.asarray(chances), (4000, 4)))

    def shares(**settings):
        ids = jax.jit(draw)(logits, Sampling(**settings), keys)
        return np.bincount(ids, minlength=4) / 4000

    def near(found, expected):
        np.testing.assert_allclose(found, expected / np.sum(expected), atol=0.03)

    near(shares(temperature=1.0, top_k=0, top_p=1.0), chances)
    near(shares(temperature=0.5, top_k=0, top_p=1.0), chances**2)
    near(shares(temperature=1.0, top_k=2, top_p=1.0), chances * [0, 1, 0, 1])
    near(shares(temperature=1.0, top_k=0, top_p=0.75), chances * [0, 1, 1, 1])
    near(shares(temperature=1.0, top_k=0, top_p=0.7), chances * [0, 1, 0, 1])
    near(shares(temperature=1.0, top_k=0, top_p=1e-6), np.array([0, 1, 0, 0]))
    near(shares(temperature=0.0, top_k=0, top_p=1.0), np.array([0, 1, 0, 0]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": []}, "there is no prompt"),
        ({"prompts": [[1, 11]]}, "prompt 0 holds 11; ids go from 0 to 10"),
        ({"length": 0}, "length=0 is below 1"),
        ({"sampling": Sampling(temperature=-1.0)}, "temperature=-1.0 must be 0 or above"),
        ({"sampling": Sampling(top_k=-1)}, "top_k=-1 must be 0"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p=0.0 must be above 0"),
        ({"allowed": np.zeros(V, bool)}, "with an id in each row"),
    ],
)
def test_bad_arguments_are_named(fields, message):
    model, variables = made("rotary")
    with pytest.raises(ValueError, match=message):
        generate(model, variables, **{"prompts": [[1]], "length": 3} | fields)


def test_the_benchmark_measures_all_three_ways(monkeypatch, capsys, tmp_path):
    flags = ("--sizes=8:2:1:8", "--turns=1", "--ids=2", f"--output={tmp_path}/rows.csv")
    tools = {"monkeypatch": monkeypatch, "capsys": capsys}
    code, out, _ = call("experiments.benchmark.writing", *flags, **tools)
    assert code == 0 and out.count("ids a second") == 3
    assert (tmp_path / "rows.csv").read_text().count("\n") == 4
    code, _, err = call("experiments.benchmark.writing", "--sizes=8:2", **tools)
    assert code == 1 and "--sizes=8:2 is not M:N:layers:width" in err
