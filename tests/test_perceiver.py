"""The architecture: published sizes and costs, and the properties that define it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imagenet
from perceiver_jax import flops
from perceiver_jax.attention import cost
from perceiver_jax.build import build
from perceiver_jax.layers import CrossAttention, SelfAttention
from perceiver_jax.perceiver import Encoder
from perceiver_jax.position import Fourier, Table
from perceiver_jax.tokens import Tokens

SIZES = {"num_latents": 5, "latent_channels": 16, "num_self_attend_heads": 4}


def encode(encoder, tokens, *, variables=None, **kwargs):
    variables = variables or encoder.init(jax.random.key(0), tokens, train=False)
    return encoder.apply(variables, tokens, **{"train": False} | kwargs), variables


def random_tokens(b=2, m=12, c=3, position=None, mask=None, seed=0):
    content = jax.random.normal(jax.random.key(seed), (b, m, c))
    return Tokens(content=content, position=position or Fourier((3, 4), 2), mask=mask)


def imagenet_model(variant):
    model = build(imagenet.get_config(variant).model.to_dict())
    image = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, 224, 224, 3))}, train=False)
    )
    return model, image, variables


@pytest.mark.parametrize(
    ("variant", "parameters", "gflop"),
    [
        ("fourier", 48_440_627, 406.1),  # Perceiver IO Table 7: 48.4M, 407B
        ("permuted", 48_440_627, 406.1),
        ("learned", 62_255_848, 478.0),  # 62.3M; the table repeats 407B for wider tokens
        ("conv", 48_646_522, 369.4),  # 48.6M, 369B
        ("perceiver", 44_912_254, 706.3),  # 2021 Table 6: 44.9M, 707.2B
        ("b_finetune", 213_082_618, 334.6),  # 212M; 213B are those of 12 layers and 261 channels
        ("b_conv_finetune", 212_375_930, 231.9),  # 212M; 176B are those of 12 layers
    ],
)
def test_published_sizes(variant, parameters, gflop):
    model, image, variables = imagenet_model(variant)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == parameters
    assert flops.textbook(model, image) / 1e9 == pytest.approx(gflop, abs=0.05)


@pytest.mark.parametrize(("variant", "gflop"), [("b_finetune", 213), ("b_conv_finetune", 176)])
def test_the_printed_gflop_of_configuration_b_are_those_of_12_layers(variant, gflop):
    """And, for Fourier positions, of RGB without the projection; parameters fit 16 layers."""
    model = imagenet.get_config(variant).model.to_dict()
    model["encoder"]["num_self_attends_per_block"] = 12
    if variant == "b_finetune":
        model["input"] = imagenet.get_config("fourier").model.input.to_dict()
    image = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
    assert flops.textbook(build(model), image) / 1e9 == pytest.approx(gflop, abs=0.5)


def test_published_size_without_sharing():
    """2021, Table 7: 326.2M parameters, the same 707.2 GFLOP."""
    config = imagenet.get_config("perceiver")
    config.model.encoder.share_weights = False
    model = build(config.model.to_dict())
    batch = {"image": jnp.zeros((1, 224, 224, 3))}
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 326_241_856


def test_the_papers_404_gflop_are_the_encoder_alone():
    assert flops.encoder(Encoder(), 224 * 224, 261) / 1e9 == pytest.approx(404.0, abs=0.05)
    added = flops.encoder(Encoder(num_cross_attends=2), 224 * 224, 261)
    assert (added - flops.encoder(Encoder(), 224 * 224, 261)) / 1e9 == pytest.approx(43.2, abs=0.05)


@pytest.mark.parametrize("variant", ["fourier", "learned", "conv", "perceiver"])
def test_textbook_flops_are_those_of_the_dense_program(variant):
    model, image, variables = imagenet_model(variant)

    def run(variables, batch):
        return model.apply(variables, batch, train=False)

    with cost.forced("dense"):
        assert flops.executed(run, variables, image) == flops.textbook(model, image)
    saved = {"fourier": 26e9, "learned": 50e9, "conv": 3e9, "perceiver": 300e9}[variant]
    assert flops.executed(run, variables, image) < flops.textbook(model, image) - saved


def test_executed_flops_follow_the_operation():
    x = jnp.ones((4, 8, 8, 6))
    kernel = jnp.ones((3, 3, 3, 10))

    def grouped(x):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    assert flops.executed(grouped, x) == 2 * 4 * 8 * 8 * 10 * 9 * 3
    w = jnp.ones((7, 7))

    def looped(w):
        return jax.lax.scan(lambda c, _: (c @ w, None), w, None, length=5)[0]

    assert flops.executed(looped, w) == 5 * 2 * 7**3
    with pytest.raises(ValueError, match="size 1"):
        flops.textbook(None, {"image": jnp.ones((2, 1))})


@pytest.mark.parametrize("position", [Fourier((3, 4), 2), Table(jnp.eye(12))])
def test_the_order_of_tokens_does_not_matter(position):
    encoder = Encoder(**SIZES, num_blocks=2, num_cross_attends=2, num_self_attends_per_block=1)
    tokens = random_tokens(position=position, mask=jnp.arange(24).reshape(2, 12) % 5 > 0)
    latents, variables = encode(encoder, tokens)
    order = np.random.default_rng(0).permutation(12)
    permuted, _ = encode(encoder, tokens.take(jnp.asarray(order)), variables=variables)
    np.testing.assert_allclose(permuted, latents, atol=1e-5)
    moved = Tokens(tokens.content[:, order], tokens.position, tokens.mask)  # content alone
    assert not np.allclose(encode(encoder, moved, variables=variables)[0], latents, atol=1e-3)


def test_a_masked_token_is_an_absent_token():
    encoder = Encoder(**SIZES, num_blocks=2, num_self_attends_per_block=1)
    tokens = random_tokens(mask=jnp.arange(12)[None] < jnp.array([[12], [7]]))
    latents, variables = encode(encoder, tokens)
    shorter = random_tokens().take(jnp.arange(7))
    np.testing.assert_allclose(
        encode(encoder, shorter, variables=variables)[0][1], latents[1], atol=1e-5
    )


def test_latents_only_depend_on_their_own_example():
    encoder = Encoder(**SIZES, num_blocks=1, num_self_attends_per_block=1)
    tokens = random_tokens()
    variables = encode(encoder, tokens)[1]
    grad = jax.grad(
        lambda c: jnp.sum(encode(encoder, tokens.replace(content=c), variables=variables)[0][0])
    )(tokens.content)
    assert np.any(grad[0])
    assert not np.any(grad[1])


@pytest.mark.parametrize("reads", [1, 2, 4])
@pytest.mark.parametrize("share", [True, False])
def test_blocks_and_sharing(reads, share):
    """The stacked, scanned program equals a plain loop over the same weights."""
    encoder = Encoder(
        **SIZES,
        num_blocks=4,
        num_cross_attends=reads,
        num_self_attends_per_block=2,
        share_weights=share,
    )
    tokens = random_tokens()
    latents, variables = encode(encoder, tokens)
    params = variables["params"]
    names = {"latents", "cross_attend", "blocks"}
    if share:
        names |= {"cross_attend_1"} if reads > 1 else set()
    else:
        names |= {f"{n}_{i}" for n in ("cross_attend", "blocks") for i in range(1, reads)}
    assert set(params) == names

    z = params["latents"][None]
    read, layer = CrossAttention(), SelfAttention(num_heads=4)
    for i in range(reads):
        cross = "cross_attend" if i == 0 else f"cross_attend_{1 if share else i}"
        z = read.apply({"params": params[cross]}, Tokens(content=z), tokens, train=False)
        stack = params["blocks" if share or i == 0 else f"blocks_{i}"]["layers"]
        depth = jax.tree.leaves(stack)[0].shape[0]
        assert depth == (2 if share else 2 * 4 // reads)
        for _ in range(4 // reads if share else 1):
            for j in range(depth):
                one = jax.tree.map(lambda x, j=j: x[j], stack)
                z = layer.apply({"params": one}, z, train=False)
    np.testing.assert_allclose(latents, z, atol=1e-5)


def test_stacked_layers_start_different():
    encoder = Encoder(**SIZES, num_blocks=2, num_self_attends_per_block=3)
    kernel = encode(encoder, random_tokens())[1]["params"]["blocks"]["layers"]["mlp"]["out"]
    assert len(np.unique(np.asarray(kernel["kernel"])[:, 0, 0])) == 3


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_memory_not_numbers(remat):
    tokens = random_tokens()

    def gradient(policy):
        encoder = Encoder(
            **SIZES, num_blocks=2, num_self_attends_per_block=2, dropout_rate=0.3, remat=policy
        )
        variables = encode(encoder, tokens)[1]
        key = {"dropout": jax.random.key(3)}

        def loss(v):
            return jnp.sum(encoder.apply(v, tokens, train=True, rngs=key) ** 2)

        text = str(jax.make_jaxpr(jax.grad(loss))(variables))
        return jax.jit(jax.grad(loss))(variables), text.count("erf") + text.count("tanh")

    plain, tanhs = gradient("none")
    rematted, more_tanhs = gradient(remat)
    assert more_tanhs > tanhs  # the activation is computed again in the backward pass
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(rematted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_dropout_differs_between_layers_and_repeats():
    encoder = Encoder(**SIZES, num_blocks=2, num_self_attends_per_block=2, dropout_rate=0.5)
    tokens = random_tokens()
    variables = encode(encoder, tokens)[1]

    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return encoder.apply(variables, tokens, train=True, rngs=rngs)

    assert not np.allclose(run(0), run(1))
    np.testing.assert_array_equal(run(0), run(0))


def test_bad_fields_are_named():
    with pytest.raises(ValueError, match=r"num_blocks=3 must divide by num_cross_attends=2"):
        encode(Encoder(**SIZES, num_blocks=3, num_cross_attends=2), random_tokens())
    with pytest.raises(ValueError, match=r"remat='some' is not one of"):
        encode(Encoder(**SIZES, remat="some"), random_tokens())
    spec = imagenet.get_config("fourier:tiny").model.to_dict()
    for section, path in (
        ("input", "image.Pixel"),
        ("input", "imag.Pixels"),
        ("input", "imag:Pixels"),
        ("decoder", "X"),
    ):
        wrong = spec | {section: spec[section] | {"module": path}}
        with pytest.raises(ValueError, match=rf"model\.{section}\.module='{path}' does not exist"):
            build(wrong)
    with pytest.raises(TypeError, match="num_latent"):
        build(spec | {"encoder": {"num_latent": 3}})


@pytest.mark.parametrize("variant", ["fourier", "learned", "conv", "perceiver"])
def test_jit_is_eager_and_gradients_reach_every_parameter(variant):
    config = imagenet.get_config(f"{variant}:tiny")
    model = build(config.model.to_dict())
    batch = {"image": jax.random.normal(jax.random.key(0), (2, 32, 32, 3))}
    init = functools.partial(model.init, train=False)
    variables = jax.jit(init)(jax.random.key(1), batch)

    def run(variables, batch):
        return model.apply(variables, batch, train=False)

    eager = run(variables, batch)
    assert eager.shape == (2, 1000) and eager.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(run)(variables, batch), eager, atol=1e-5)
    params = variables.pop("params")
    params["output"]["logits"]["kernel"] += 0.01  # zero at the start of the 2021 head
    grads = jax.jit(jax.grad(lambda p: jnp.sum(run(variables | {"params": p}, batch) ** 3)))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        # A constant added to every key cancels in the softmax; all else must matter.
        assert name.endswith("key/bias") or np.any(grad), name


def test_attention_weights_can_be_looked_at():
    model = build(imagenet.get_config("fourier:tiny").model.to_dict())
    batch = {"image": jax.random.normal(jax.random.key(0), (2, 32, 32, 3))}
    variables = model.init(jax.random.key(1), batch, train=False)
    assert set(variables) == {"params"}
    _, seen = model.apply(variables, batch, train=False, mutable=["intermediates"])
    (weights,) = seen["intermediates"]["encoder"]["cross_attend"]["attention"]["weights"]
    assert weights.shape == (2, 1, 8, 1024)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
