"""GLUE: what its configs read, ask and score; files in TFDS's format stand for the data."""

import ast
import functools
import importlib.util
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tfds_files import write_glue

from configs import glue, wordnet
from experiments import ask, check_config, make_task
from experiments.tasks.judge import Judge
from perceiver_jax import pretrained
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import checks
from perceiver_jax.modalities import label, text
from perceiver_jax.tokens import Tokens


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    write_glue(folder, glue.QUESTIONS)
    return str(folder)


def config_of(variant, data_dir):
    config = glue.get_config(f"{variant}:tiny")
    config.data.data_dir = data_dir
    return config.lock()


@pytest.fixture(scope="module")
def multitask(data_dir):
    return make_task(config_of("multitask", data_dir))


def test_label_orders_are_those_of_tfds():
    """Read from TFDS's code, which needs TensorFlow to be imported."""
    (folder,) = importlib.util.find_spec("tensorflow_datasets").submodule_search_locations
    tree = ast.parse((pathlib.Path(folder) / "text" / "glue.py").read_text())
    constants = {
        node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)
    }
    base = {w.arg: w.value for w in constants.get("_MNLI_BASE_KWARGS", ast.Dict()).keywords}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "GlueConfig":
            words = {w.arg: w.value for w in node.keywords}
            words = base | words if None in words else words
            classes = ast.literal_eval(words.get("label_classes", ast.Tuple([])))
            fields = ast.literal_eval(words["text_features"])
            found[ast.literal_eval(words["name"])] = (tuple(classes or ()), tuple(fields))
    for name, question in glue.QUESTIONS.items():
        assert (question.classes, question.fields) == found[name], name
    assert glue.QUESTIONS["wnli"].classes == glue.QUESTIONS["rte"].classes[::-1]


def test_labels_in_another_order_are_refused(data_dir):
    """A config of RTE on the data of WNLI."""
    config = config_of("rte", data_dir)
    config.data.source = "glue/wnli"
    with pytest.raises(ConfigError, match=r"classes\.rte=.*labels of glue/wnli.*'not_entailment',"):
        make_task(config)


@pytest.mark.parametrize(
    ("variant", "split"), [("cola", "test"), ("stsb", "test"), ("mnli", "test")]
)
def test_a_test_split_without_labels_is_refused_by_name(variant, split, data_dir):
    config = config_of(variant, data_dir)
    config.data.eval_split = split
    source = "mixture" if variant == "mnli" else f"glue/{variant}"
    with pytest.raises(checks.BadExample, match=rf"{source}\[test\].*labels of this split are not"):
        make_task(config)


def test_a_task_without_data_is_told_by_name(tmp_path):
    write_glue(tmp_path, {name: q for name, q in glue.QUESTIONS.items() if name != "qnli"})
    # Whether TFDS can describe the set without its files depends on what else is installed.
    message = r"(?s)glue/qnli.*tfds build glue/qnli"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_task(config_of("multitask", str(tmp_path)))


def second_task(config):
    config.text_tasks.classes.wnli = ("not_entailment", "entailment")
    config.model.output.tasks.wnli = 2


CHANGES = {
    r"output\.tasks=.*'rte': 3.*write the number": lambda c: c.model.output.tasks.update(rte=3),
    r"number_range=\(1\.0, 1\.0\)": lambda c: c.text_tasks.update(number_range=(1.0, 1.0)),
    r"num_tasks=7: write 0, or 8": lambda c: c.model.input.update(num_tasks=7),
    r"shares has a part 'sst'": lambda c: c.data.train_source_options.shares.update(sst=1.0),
    r"parts has the tasks": lambda c: c.data.source_options.parts.rte.update(task="qnli"),
    r"parts\.rte: .* no field 'parts'": lambda c: c.data.source_options.parts.rte.update(
        options={"parts": 1}
    ),
    r"read them as a 'mixture'": second_task,
}


@pytest.mark.parametrize("message", CHANGES)
def test_tasks_that_disagree_are_told_before_data_are_opened(message):
    config = glue.get_config("rte:tiny" if "read" in message else "multitask:tiny")
    with config.unlocked():
        CHANGES[message](config)
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_fake_data_stand_for_a_mixture():
    config = wordnet.get_config("both:tiny")
    config.data.source = "blank:mixture"
    task = make_task(config)
    assert task.example["text"].shape == (1, 160) and not task.whole_metrics


def test_a_hidden_word_is_asked_for_by_an_underscore():
    questions = ask(wordnet.get_config("words:tiny"))
    text = questions.read(["a small _ that barks"], 0)["text"].tobytes()
    assert text.strip(b"\0") == b"a small _ that barks" and len(questions.classes["word"]) == 2048
    with pytest.raises(ValueError, match="write `_` in the text"):
        questions.read(["a small dog"], 0)


def test_the_recipe_is_that_of_the_paper():
    config = glue.get_config("rte")
    assert config.steps == 10 * 2490 // 32
    config.batch_size = 16
    assert config.steps == 10 * 2490 // 16
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("lamb", 2e-5, 0.01)
    assert optimizer.schedule.to_dict() == {"name": "constant", "warmup_steps": 200}
    assert (config.start.weights, config.start.fresh) == ("language", ("^output/",))


@pytest.mark.parametrize(
    ("variant", "size"), [("rte", 200_128_002), ("stsb", 200_127_233), ("multitask", 204_278_288)]
)
def test_all_but_the_output_is_that_of_the_released_model(variant, size):
    """So its weights fit, and `config.start.fresh` names all that does not."""
    config, released = glue.get_config(variant), pretrained.released("language")
    batch = released.batch | {"indices": jax.ShapeDtypeStruct((1, 1), jnp.int32)}
    model = build(config.model.to_dict())
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, batch)["params"]
    ours, theirs = (
        {name: x.shape for name, x in flatten_dict(tree, sep="/").items()}
        for tree in (shapes, released.shapes["params"])
    )
    (fresh,) = config.start.fresh
    common = {name for name in ours if not re.search(fresh, name)}
    assert common == {name for name in theirs if not re.search(fresh, name)}
    assert all(ours[name] == theirs[name] for name in common)
    assert sum(map(math.prod, ours.values())) == size


def test_ids_are_marked_as_by_the_tokenizer_of_hugging_face(data_dir):
    task = make_task(config_of("rte", data_dir))
    batch = task.prepare(next(task.eval_data()), None)
    first, second = (text.encode(f"validation 3 sentence{i}") for i in (1, 2))
    expected = [text.CLS, *first, text.SEP, *second, text.SEP]
    ids = np.asarray(batch["text"][3])
    assert ids[: len(expected)].tolist() == expected and not ids[len(expected) :].any()
    assert batch["text_mask"][3].sum() == len(expected)
    assert (batch["indices"].shape, int(batch["label"][3])) == ((8, 1), 1)


TASKS = {"stars": 1, "kind": 3, "fits": 2}
TOKENS = Tokens(content=jnp.zeros((4, 5, 8)))


def test_each_example_is_answered_by_its_own_task():
    """Its query and MLP: those of other tasks change nothing, its own do."""
    output = label.Answers(TASKS, query_channels=8)
    asked, decoded = jnp.array([[1], [0], [2], [1]]), jnp.ones((4, 1, 8))  # fits, kind, stars

    def answer(module, decoded):
        query = module.queries(TOKENS, indices=asked).dense(jnp.float32)  # [4, 1, 8]
        return module(decoded + query, indices=asked)

    params = output.init(jax.random.key(0), decoded, method=answer)["params"]
    assert jax.tree.map(jnp.shape, params)["query"] == (3, 8)
    before = np.asarray(output.apply({"params": params}, decoded, method=answer))[:, 0]
    np.testing.assert_array_equal(
        before == label.NEVER, np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]])
    )
    more = jax.tree.map(lambda x: x + 1.0, params)
    for change in (
        {"query": params["query"].at[1].add(1.0)},
        {"hidden_kind": more["hidden_kind"]},
        {"logits_kind": more["logits_kind"]},
    ):
        after = np.asarray(output.apply({"params": params | change}, decoded, method=answer))[:, 0]
        np.testing.assert_array_equal((before != after).any(axis=1), [True, False, False, True])
    with pytest.raises(ValueError, match=r"say which of the tasks \['fits', 'kind', 'stars'\]"):
        output.apply({"params": params}, TOKENS, method="queries")


def test_one_query_for_all_tasks_is_told_apart_by_a_token():
    output = label.Answers(TASKS, query_channels=8, shared_query=True)
    variables = {"params": {"query": jnp.ones((1, 8))}}
    queries = output.apply(variables, TOKENS, jnp.array([[0], [2], [1], [0]]), method="queries")
    assert queries.num_tokens == 1 and queries.content is None
    batch = {
        "text": jnp.tile(jnp.array([[text.CLS, 70, 80, text.SEP]]), (3, 1)),
        "text_mask": jnp.ones((3, 4), bool),
        "task": jnp.array([0, 1, 0]),
    }
    module = text.Bytes(text.Embedding(channels=8), max_length=4, num_tasks=2)
    tokens, _ = module.init_with_output(jax.random.key(0), batch, train=False)
    same = np.array(tokens.content[0] == tokens.content[1]).all(axis=1)
    assert same.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(tokens.content[0], tokens.content[2])


def test_scores_of_each_part_and_the_average(multitask):
    """Perfect answers: 1 everywhere; MNLI's parts are apart."""
    rows = [multitask.prepare(batch, None) for batch in multitask.eval_data()]
    judge = Judge([not glue.QUESTIONS[t].classes for t in sorted(glue.MULTITASK)], 0, 5)
    collected = []
    for batch in rows:
        truth = np.asarray(batch["label"], np.float32)
        logits = 9.0 * jax.nn.one_hot(truth.astype(int), 3)
        is_number = np.asarray(judge.asks_number(batch))
        logits = jnp.where(is_number[:, None], jnp.asarray(truth / 5)[:, None], logits)
        assert np.allclose(judge.loss(logits[:, None], batch), 0, atol=1e-3)
        total, count = judge.accuracy(logits[:, None], batch)
        assert total == count == (batch["mask"] & ~is_number).sum()
        part = judge.collect(logits[:, None], batch)
        collected.append({k: np.asarray(x)[batch["mask"]] for k, x in part.items()})
    whole = {key: np.concatenate([c[key] for c in collected]) for key in collected[0]}
    assert len(whole["label"]) == 9 * 12
    found = {name: metric(whole) for name, metric in multitask.whole_metrics.items()}
    assert found["glue_average"] == pytest.approx(1)
    assert {name for name, value in found.items() if not np.isclose(value, 1)} == set()
    assert {"mnli_matched_accuracy", "cola_matthews", "stsb_spearman", "mrpc_f1"} <= set(found)
    whole["prediction"] = np.where(whole["part"] == 1, -1.0, whole["prediction"])
    found = {name: metric(whole) for name, metric in multitask.whole_metrics.items()}
    assert (found["mnli_matched_accuracy"], found["mnli_mismatched_accuracy"]) == (0, 1)
    assert found["glue_average"] == pytest.approx(1 - 1 / 16)


def test_a_shorter_window_gives_the_same_answer(data_dir):
    """Padding is masked, and positions are the first rows of the table."""
    logits = []
    for length in (128, 64):
        config = config_of("rte", data_dir)
        with config.unlocked():
            config.data.eval = config.data.train = config.data.eval.replace("128", str(length))
        task = make_task(config)
        batch = task.prepare(next(task.eval_data()), None)
        assert batch["text"].shape == (8, length)
        model = task.model
        if not logits:
            variables = jax.jit(lambda b, m=model: m.init(jax.random.key(0), b, train=False))(batch)
        logits.append(jax.jit(lambda v, b, m=model: m.apply(v, b, train=False))(variables, batch))
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.slow
def test_a_shorter_window_gives_the_same_answer_at_full_size():
    """2,048 bytes against 256, the released model with the output of RTE."""
    model = build(glue.get_config("rte").model.to_dict())
    ids = np.random.default_rng(0).integers(text.NUM_RESERVED, text.NUM_IDS, (2, 2048))
    mask = np.arange(2048) < np.array([[256], [100]])
    batch = {"text": np.where(mask, ids, text.PAD), "text_mask": mask}
    short = {name: values[:, :256] for name, values in batch.items()}
    variables = jax.jit(lambda b: model.init(jax.random.key(0), b, train=False))(short)
    apply = jax.jit(lambda v, b: model.apply(v, b, train=False))
    long, short = (np.asarray(apply(variables, b)) for b in (batch, short))
    assert np.abs(long[0] - long[1]).max() > 1e-3  # the texts make a difference
    np.testing.assert_allclose(long, short, atol=1e-4 * np.abs(long).max())
