"""Every cheaper order of computation against the textbook formula: values and gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_jax import flops, layers, position
from perceiver_jax.attention import blockwise, cost, cross, factored, folding
from perceiver_jax.attention.cost import ContractionOrder
from perceiver_jax.attention.self_attention import EPSILON
from perceiver_jax.layers import CrossAttention, SelfAttention
from perceiver_jax.position import Fourier, Table
from perceiver_jax.tokens import Tokens

ORDERS = [ContractionOrder(a, b) for a in ("project", "absorb") for b in ("project", "absorb")]
GRIDS = {"1 axis": (12,), "2 axes": (3, 4), "3 axes": (2, 3, 2)}
KINDS = [*GRIDS, "some of a grid", "table", "content", "places"]


@pytest.fixture(autouse=True, scope="module")
def a_long_axis():
    """The one of 12 points is long enough to be told in runs, and columns are few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position, "MAX_DENSE_POINTS", 11)
        patch.setattr(blockwise, "MIN_COLUMNS", 2)
        yield


def random(rng, *shape, scale=1.0):
    return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)


def make_tokens(rng, kind, *, batch=2, channels=3, padded=False, masked=False):
    """12 tokens of every kind, or 7."""
    count = 7 if kind == "some of a grid" else 12
    position = None
    if kind in GRIDS:
        position = Fourier(GRIDS[kind], 3)
    elif kind == "table":
        position = Table(random(rng, count, 4))
    elif kind == "places":
        position = Fourier((3, 4), 3)
    elif kind == "some of a grid":
        position = Fourier((3, 4), 3, indices=jnp.asarray(rng.permutation(12)[:count]))
    return Tokens(
        content=None if kind == "places" else random(rng, batch, count, channels),
        position=position,
        mask=jnp.asarray(rng.random((batch, count)) < 0.6) if masked else None,
        padding=random(rng, 2) if padded else None,
    )


def split_arrays(tree):
    """(the float arrays of a tree, a function that puts others in their places)."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def rebuild(new):
        placed = dict(zip(floats, new, strict=True))
        return structure.unflatten([placed.get(i, x) for i, x in enumerate(leaves)])

    return [leaves[i] for i in floats], rebuild


def random_variables(rng, block, *tokens, scale=1.0):
    """Parameters in which nothing is zero, as large as initialised ones; none is initialised."""
    init = functools.partial(block.init, train=False)

    def draw(path, x):
        if path[-1].key == "kernel":
            return random(rng, *x.shape, scale=scale * x.shape[0] ** -0.5)
        return scale * (path[-1].key == "scale") + random(rng, *x.shape, scale=0.1)

    shapes = jax.eval_shape(init, jax.random.key(0), *tokens)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def assert_agrees(
    block, queries, inputs, order=None, *, chunk_bytes=None, scale=1.0, seed=0, head=()
):
    """Values, and gradients of every parameter and input, are those of the dense formula."""
    rng = np.random.default_rng(seed)
    variables = random_variables(rng, block, queries, inputs, scale=scale)
    arrays, rebuild = split_arrays((variables, queries, inputs, head))

    def run(arrays):
        variables, queries, inputs, head = rebuild(arrays)
        return block.apply(variables, queries, inputs, train=False, head=head)

    weights = random(rng, *jax.eval_shape(run, arrays).shape)

    def weighted(arrays):
        found = run(arrays)
        return jnp.sum(found * weights), found

    def both(arrays):
        results = []
        for way in ("dense", order):
            with cost.forced(way, chunk_bytes=chunk_bytes):
                results.append(jax.grad(weighted, has_aux=True)(arrays))
        return results

    (dense_grads, dense), (grads, ours) = jax.jit(both)(arrays)
    np.testing.assert_allclose(ours, dense, atol=2e-5 * np.abs(dense).max())
    largest = max(np.abs(g).max() for g in dense_grads)
    for got, want in zip(grads, dense_grads, strict=True):
        # A key bias moves nothing: its gradient is zero up to the rounding of the others.
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max() + 2e-6 * largest)


def chunk_bytes_of(block, count, batch, tokens):
    """A chunk of so many tokens."""
    return 4 * block.num_heads * count * batch * tokens


def check_reading(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    padded, heads = draw(st.booleans()), draw(st.sampled_from([1, 2]))
    inputs = make_tokens(
        rng, draw(st.sampled_from(KINDS)), padded=padded, masked=draw(st.booleans())
    )
    if draw(st.booleans()):  # two modalities in one softmax
        width = inputs.width - 2 * padded
        inputs = {"a": inputs, "b": make_tokens(rng, "content", channels=width, padded=padded)}
    queries = Tokens(content=random(rng, draw(st.sampled_from([1, 2])), 3, 5))
    block = CrossAttention(num_heads=heads, qk_channels=4, v_channels=6)
    order = draw(st.sampled_from([None, *ORDERS]))
    size = draw(st.sampled_from([1, 3, 5, 100]))  # tokens of both examples in a chunk
    scale = draw(st.sampled_from([1.0, 1.5]))  # logits are its fourth power
    assert_agrees(
        block,
        queries,
        inputs,
        order,
        chunk_bytes=chunk_bytes_of(block, 3, 2, size),
        scale=scale,
    )


def check_answering(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    queries = make_tokens(
        rng,
        draw(st.sampled_from(KINDS)),
        batch=draw(st.sampled_from([1, 2])),
        padded=draw(st.booleans()),
        masked=draw(st.booleans()),
    )
    latents = Tokens(content=random(rng, 2, 3, 5))
    block = CrossAttention(
        num_heads=draw(st.sampled_from([1, 2])),
        qk_channels=4,
        v_channels=6,
        query_residual=draw(st.booleans()),
    )
    order = draw(st.sampled_from([None, *ORDERS]))
    size = draw(st.sampled_from([1, 5, 100]))
    widths = [queries.width, *draw(st.sampled_from([[], [2], [6, 2], [2, 6], [40]]))]
    head = make_head(rng, widths)
    budget = chunk_bytes_of(block, 3, 2, size)
    assert_agrees(block, queries, latents, order, chunk_bytes=budget, head=head)


@pytest.mark.parametrize("check", [check_reading, check_answering])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_both_are_the_textbook_formula(check, data):
    check(data.draw)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_reading, check_answering])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_both_are_the_textbook_formula_in_many_cases(check, data):
    check(data.draw)


def make_head(rng, widths):
    return tuple(
        folding.Linear(random(rng, *pair, scale=pair[0] ** -0.5), random(rng, pair[1]))
        for pair in itertools.pairwise(widths)
    )


@pytest.mark.parametrize(
    ("widths", "of_few", "of_many"),
    [
        ((16, 2), True, True),
        ((16, 12), False, True),
        ((16, 24, 2), True, True),
        ((16, 2, 24), False, False),
    ],
)
def test_a_head_is_folded_where_that_multiplies_less(widths, of_few, of_many):
    """By what the program then does, on either side of the number of answers where it turns."""
    block = CrossAttention(widening=2)
    head = make_head(np.random.default_rng(0), widths)
    latents = Tokens(content=jnp.zeros((1, 4, 8)))

    def costs(rows):
        """(chosen, folded always, never folded), and what was chosen."""
        queries = Tokens(content=jnp.zeros((1, rows, 16)))
        found = []
        for choice in (cost.is_head_fused, lambda *_: True, lambda *_: False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(layers, "is_head_fused", choice)
                run = functools.partial(block.init_with_output, jax.random.key(0), train=False)
                found.append(flops.executed(functools.partial(run, head=head), queries, latents))
        return found, cost.is_head_fused(rows, 32, widths)

    choices = {}
    for rows in (5, 8, 12, 16, 24, 32, 48, 64, 4096):
        (chosen, always, never), choices[rows] = costs(rows)
        assert chosen == min(always, never)
    assert (choices[5], choices[4096]) == (of_few, of_many)


def test_nothing_as_wide_as_the_queries_is_kept_for_all_of_them():
    """With a head the memory for a query more, with gradients, is not that of its channels."""
    block, width = CrossAttention(query_residual=False), 256
    head = make_head(np.random.default_rng(0), (width, 2))
    latents = Tokens(content=jnp.zeros((1, 16, 32)))

    def temporaries(rows, head):
        queries = Tokens(position=Fourier((rows, 64), 63))  # 254 channels
        queries = queries.replace(padding=jnp.zeros(2))
        variables = jax.eval_shape(
            functools.partial(block.init, train=False), jax.random.key(0), queries, latents
        )

        def loss(variables):
            answers = block.apply(variables, queries, latents, train=False, head=head)
            return jnp.mean(jnp.square(answers))

        return jax.jit(jax.grad(loss)).lower(variables).compile().memory_analysis()

    def by_query(head):
        with cost.forced(chunk_bytes=4 * 16 * 256):
            few, many = (temporaries(rows, head).temp_size_in_bytes for rows in (128, 256))
        return (many - few) / (128 * 64)

    assert by_query(head) < 4 * 16
    assert by_query(()) > 4 * width


@pytest.mark.parametrize("kind", ["2 axes", "table"])
def test_extreme_logits(kind):
    """Of some hundreds, against float64: no worse than the dense formula in float32."""
    rng = np.random.default_rng(0)
    tokens = make_tokens(rng, kind)
    norm = folding.Norm(jnp.ones(tokens.width), jnp.zeros(tokens.width))
    kernels = [random(rng, tokens.width, size) for size in (4, 6)]
    biases = [random(rng, size) for size in (4, 6)]
    query = 100 * random(rng, 1, 1, 3, 4)
    key, value = (
        folding.fold_norm(norm, folding.Linear(*pair), 1)
        for pair in zip(kernels, biases, strict=True)
    )

    def formula(dtype):
        x = np.asarray(tokens.dense(jnp.float32)).astype(dtype)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + dtype(EPSILON))
        k, v = (
            x @ np.asarray(w).astype(dtype) + np.asarray(b).astype(dtype)
            for w, b in zip(kernels, biases, strict=True)
        )
        logits = np.einsum("nk,bmk->bnm", np.asarray(query[0, 0]).astype(dtype), k)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return (weights / weights.sum(-1, keepdims=True)) @ v, np.abs(logits).max()

    truth, largest = formula(np.float64)
    assert largest > 300
    allowed = 1e-6 * largest + 2 * np.abs(formula(np.float32)[0] - truth).max()
    with cost.forced(ContractionOrder("absorb", "absorb"), chunk_bytes=4 * 3 * 2 * 4):
        ours = cross.encode(query, [tokens], key, value, jnp.float32)
    np.testing.assert_allclose(ours[:, 0], truth, atol=allowed)


def test_positions_alone_are_read_by_examples_in_turn():
    rng = np.random.default_rng(0)
    block, queries = CrossAttention(qk_channels=4), Tokens(content=random(rng, 2, 3, 5))
    inputs = Tokens(position=Fourier((3, 4), 3))
    assert_agrees(
        block, queries, inputs, ContractionOrder("absorb", "project"), chunk_bytes=4 * 3 * 4
    )


@pytest.mark.parametrize("case", ["constant", "one token", "all masked", "large"])
def test_odd_inputs(case):
    rng = np.random.default_rng(0)
    inputs = make_tokens(rng, "2 axes")
    if case == "constant":
        inputs = Tokens(content=jnp.full((2, 12, 4), 0.7))
    if case == "one token":
        inputs = Tokens(content=random(rng, 2, 1, 4), position=Fourier((1, 1), 3))
    if case == "all masked":
        inputs = inputs.replace(mask=jnp.zeros((2, 12), bool).at[1, 3].set(True))
    if case == "large":
        inputs = inputs.replace(content=100 + 30 * inputs.content)
    block = CrossAttention(num_heads=1)
    queries = Tokens(content=random(rng, 1, 3, 5))
    chunk = None if case == "one token" else chunk_bytes_of(block, 3, 2, 4)
    assert_agrees(block, queries, inputs, ContractionOrder("absorb", "absorb"), chunk_bytes=chunk)


def test_statistics_by_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        tokens = make_tokens(rng, kind, padded=True)
        if tokens.content is not None:  # far from zero: no difference of large numbers
            tokens = tokens.replace(content=tokens.content + 300)
        dense = np.asarray(tokens.dense(jnp.float32), np.float64)
        expected = 1 / np.sqrt(dense.var(axis=-1) + EPSILON)
        data = factored.token_data(tokens, jnp.float32)
        data = factored.with_table(tokens, data, jnp.float32)
        found = factored.inverse_deviation(tokens, data, factored.padding_row(tokens))
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def half_result(order, dtype, tokens):
    """(gradients, result) in `dtype`, with so many tokens in a chunk."""
    rng = np.random.default_rng(0)
    inputs = Tokens(content=random(rng, 2, 400, 3), position=Fourier((20, 20), 16))
    queries = Tokens(content=random(rng, 1, 8, 32))
    block = CrossAttention(dtype=dtype)

    def loss(variables):
        found = block.apply(variables, queries, inputs, train=False).astype(jnp.float32)
        return jnp.sum(jnp.sin(found)), found

    with cost.forced(order, chunk_bytes=4 * 2 * 8 * tokens):
        variables = random_variables(rng, block, queries, inputs)
        return jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(variables))


@pytest.fixture(scope="module")
def truth_and_half():
    """The dense formula in float32 and in bfloat16."""
    return [half_result("dense", dtype, 400) for dtype in (jnp.float32, jnp.bfloat16)]


@pytest.mark.parametrize(
    ("tokens", "move"),  # in a chunk: all, five rows, one, a half
    [*((n, "absorb") for n in (400, 100, 20, 10)), (400, "project"), (10, "project")],
)
def test_bfloat16_is_as_near_the_truth_as_the_dense_formula(truth_and_half, tokens, move):
    truth, dense = truth_and_half

    def error(result):
        """Root of the sum of squares: of the gradients, of the result. Seeds scatter by 5 %."""
        off = jax.tree.map(np.subtract, result, truth)
        return [np.sqrt(sum(np.sum(x * x) for x in jax.tree.leaves(part))) for part in off]

    ours = half_result(ContractionOrder(move, move), jnp.bfloat16, tokens)
    for own, other, times in zip(error(ours), error(dense), (1.2, 1.1), strict=True):
        assert own <= times * other


def test_a_folded_head_in_bfloat16_is_as_near_the_truth():
    def program(order, dtype):
        def run(variables, queries, latents, head):
            block = CrossAttention(dtype=dtype)
            with cost.forced(order):
                found = block.apply(variables, queries, latents, train=False, head=head)
            return found.astype(jnp.float32)

        return jax.jit(run)

    truth = program("dense", jnp.float32)
    ours, dense = (program(order, jnp.bfloat16) for order in (None, "dense"))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        queries = Tokens(content=random(rng, 2, 400, 32), position=Fourier((20, 20), 16))
        latents = Tokens(content=random(rng, 2, 8, 64))
        head = make_head(rng, (queries.width, 48, 2))
        assert cost.is_head_fused(800, queries.width, (queries.width, 48, 2))
        arrays = (random_variables(rng, CrossAttention(), queries, latents), queries, latents, head)

        def error(run, arrays=arrays):
            return np.sqrt(np.mean(np.square(run(*arrays) - truth(*arrays))))

        assert error(ours) <= 1.05 * error(dense)


def test_dropout_is_between_the_last_layer_and_the_head():
    rng = np.random.default_rng(0)
    queries, latents = make_tokens(rng, "2 axes"), Tokens(content=random(rng, 2, 3, 5))
    block, head = CrossAttention(dropout_rate=0.5), make_head(rng, (queries.width, 2))
    variables = block.init(jax.random.key(0), queries, latents, train=False)

    def run(head):
        rngs = {"dropout": jax.random.key(1)}
        return block.apply(variables, queries, latents, train=True, rngs=rngs, head=head)

    expected = layers.apply_head(head, run(()), jnp.float32)
    np.testing.assert_allclose(run(head), expected, atol=1e-5)


def test_weights_and_dropped_weights_use_the_formula():
    rng = np.random.default_rng(0)
    inputs, queries = make_tokens(rng, "2 axes"), Tokens(content=random(rng, 1, 3, 5))
    block = CrossAttention(attention_dropout_rate=0.5)
    variables = block.init(jax.random.key(0), queries, inputs, train=False)
    _, seen = block.apply(variables, queries, inputs, train=False, mutable=["intermediates"])
    (weights,) = seen["intermediates"]["attention"]["weights"]
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 1, 3)), rtol=1e-5)

    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return block.apply(variables, queries, inputs, train=True, rngs=rngs)

    assert not np.allclose(run(0), run(1))


def wide_arrays(function, *args, size, made_by=None):
    """Shapes of all intermediate arrays of at least `size` numbers, or those of one primitive."""
    found = set()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if made_by in (None, equation.primitive.name):
                found.update(v.aval.shape for v in equation.outvars if v.aval.size >= size)
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                    walk(getattr(value, "jaxpr", value))

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return found


@pytest.mark.parametrize("order", ["dense", None])
@pytest.mark.parametrize("shape", [(32, 32), (32 * 32,)])
def test_no_array_as_wide_as_the_tokens_is_made(order, shape):
    """Neither forwards nor backwards, nor one of all positions of a long axis."""
    rng = np.random.default_rng(0)
    inputs = Tokens(content=random(rng, 1, 32 * 32, 3), position=Fourier(shape, 16))
    queries = Tokens(content=random(rng, 1, 8, 16))
    block = CrossAttention()

    def init():
        return block.init(jax.random.key(0), queries, inputs, train=False)

    def loss(variables):
        return jnp.sum(block.apply(variables, queries, inputs, train=False))

    with cost.forced(order, chunk_bytes=4 * 8 * 32 * 4):
        wide = wide_arrays(
            jax.grad(loss), jax.eval_shape(init), size=inputs.num_tokens * inputs.position.width
        )
    assert bool(wide) == (order == "dense"), wide


@pytest.mark.parametrize(
    ("tokens", "dtype", "examples", "columns"),
    [
        (64, jnp.float32, 2, {32}),
        (32, jnp.float32, 1, {32}),
        (12, jnp.float32, 1, {11, 10}),
        (64, jnp.bfloat16, 4, {16}),
        (6, jnp.bfloat16, 2, {3, 2}),
    ],
)
def test_examples_and_columns_take_turns_where_a_row_is_too_long(tokens, dtype, examples, columns):
    """Of 4 examples, 12 queries of 2 heads and rows of 32, so many weights exist at a time."""
    rng = np.random.default_rng(0)
    inputs = Tokens(content=random(rng, 4, 3 * 32, 3), position=Fourier((3, 32), 2))
    queries = Tokens(content=random(rng, 1, 12, 16))
    block, order = (
        CrossAttention(2, qk_channels=8, dtype=dtype),
        ContractionOrder("absorb", "absorb"),
    )
    chunk_bytes = 4 * 2 * 12 * tokens
    if dtype == jnp.float32 and (examples > 1 or len(columns) > 1):
        assert_agrees(block, queries, inputs, order, chunk_bytes=chunk_bytes)

    def loss(variables):
        return jnp.sum(block.apply(variables, queries, inputs, train=False))

    with cost.forced(order, chunk_bytes=chunk_bytes):
        variables = jax.eval_shape(
            lambda: block.init(jax.random.key(0), queries, inputs, train=False)
        )
        made = wide_arrays(jax.grad(loss), variables, size=1, made_by="exp")
    weights = {shape for shape in made if len(shape) == 4 and shape[1:3] == (2, 12)}
    assert weights == {(examples, 2, 12, n) for n in columns}


def test_memory_does_not_grow_with_the_number_of_tokens():
    def temporaries(side, order):
        tokens = Tokens(content=jnp.zeros((1, side * side, 3)), position=Fourier((side, side), 8))
        queries = Tokens(content=jnp.zeros((1, 32, 16)))
        block = CrossAttention()
        with cost.forced(order, chunk_bytes=2**16):
            variables = jax.eval_shape(
                lambda: block.init(jax.random.key(0), queries, tokens, train=False)
            )

            def loss(variables, content):
                inputs = tokens.replace(content=content)
                return jnp.sum(block.apply(variables, queries, inputs, train=False))

            program = jax.jit(jax.grad(loss)).lower(variables, tokens.content).compile()
        return program.memory_analysis().temp_size_in_bytes

    small, large = temporaries(64, None), temporaries(128, None)
    assert large < 1.3 * small, (small, large)  # of four times the tokens
    assert 8 * large < temporaries(128, "dense")


sizes = st.tuples(*[st.integers(1, 40)] * 6)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["table", "content"]), sizes, st.sampled_from([1, 2, 4]))
def test_the_chosen_order_multiplies_least(kind, shape, heads):
    """Counted in the program, for shapes on both sides of every boundary."""
    batch, count, queries, channels, qk, v = shape
    tokens = Tokens(
        content=jnp.zeros((batch, count, channels)),
        position=Table(jnp.zeros((count, 5))) if kind == "table" else None,
    )
    width = tokens.width
    query = jnp.zeros((1, heads, queries, qk))
    key = folding.FoldedNorm(jnp.zeros((width, heads, qk)), jnp.zeros((heads, qk)))
    value = folding.FoldedNorm(jnp.zeros((width, heads, v)), jnp.zeros((heads, v)))

    def run():
        return cross.encode(query, [tokens], key, value, jnp.float32)

    def work(order):
        with cost.forced(order, chunk_bytes=2**30):
            return flops.executed(run)

    # The normalizer is one channel more where values are moved: not counted as a choice.
    slack = 2 * batch * heads * queries * count + 2 * width * heads * (qk + v) * 2
    assert work(None) <= min(map(work, ORDERS)) + slack


def test_chunks_cover_every_token_once():
    for units in range(1, 30):
        for tokens in (1, 3, 7, 10**6):
            parts = blockwise.split_tokens({"content": jnp.zeros((1, units))}, 1, tokens)
            covered = [
                list(range(p.start + i * p.size, p.start + (i + 1) * p.size))
                for p in parts
                for i in range(p.count)
            ]
            assert [n for part in covered for n in part] == list(range(units))
            assert max(map(len, covered)) <= tokens


def test_dense_is_the_definition_of_every_attention(monkeypatch):
    """Also of self-attention, which otherwise is `self_attend`."""
    layer, x = SelfAttention(num_heads=2), jnp.ones((1, 3, 4))
    variables = layer.init(jax.random.key(0), x, train=False)

    def refuse(*args):
        raise AssertionError("not the definition")

    monkeypatch.setattr(layers.attention, "self_attend", refuse)
    with cost.forced("dense"):
        layer.apply(variables, x, train=False)
    with pytest.raises(AssertionError, match="not the definition"):
        layer.apply(variables, x, train=False)


def test_forced_ends_with_its_block():
    with cost.forced("dense"):
        assert cost.dense_forced()
    assert not cost.dense_forced()
