"""Every field of every config is declared, and a wrong value ends in one line that names it."""

import importlib
import math
import pathlib
import types
import typing

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

import experiments
from configs import bounce, digits, flow
from experiments import check_config, run
from perceiver_jax.build import build
from perceiver_jax.config_types import (
    ConfigError,
    DType,
    Range,
    allows,
    check_fields,
    declared_fields,
)
from perceiver_jax.train.optimizer import SCHEDULES
from perceiver_jax.train.stop import explain

FILES = [p.stem for p in sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))]
MODULES = {name: importlib.import_module(f"configs.{name}") for name in FILES}
CONFIGS = {
    f"{name}:{variant}": module.get_config(f"{variant}:tiny")
    for name, module in MODULES.items()
    for variant in getattr(module, "VARIANTS", ())
}


def numeric_fields(config: ConfigDict) -> list[str]:
    """Flat names of all fields that hold numbers, or None in a number's place."""
    flat = ConfigDict(config.to_dict()).items()
    found = []

    def walk(items, prefix):
        for key, value in items:
            if isinstance(value, ConfigDict):
                walk(value.items(), f"{prefix}{key}.")
            elif value is None or isinstance(value, int | float) or is_numbers(value):
                found.append(f"{prefix}{key}")

    walk(flat, "")
    return found


def is_numbers(value) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, int | float) for v in value)


# Each field once, in the first config that has it: the declarations are the same.
FIELDS = {}
for name, config in CONFIGS.items():
    for field in numeric_fields(config):
        section = field.rpartition(".")[0]
        kind = config.to_dict()
        for key in section.split(".") if section else ():
            kind = kind[key]
        FIELDS.setdefault((field, str(kind.get("module", "")), str(kind.get("name", ""))), name)
FIELDS = [(name, field) for (field, *_), name in FIELDS.items()]


def with_value(name: str, field: str, value) -> ConfigDict:
    """A copy of a tiny config with another value, of whatever type."""
    values = CONFIGS[name].to_dict()
    *path, last = field.split(".")
    section = values
    for key in path:
        section = section[key]
    section[last] = value
    return ConfigDict(values, convert_dict=True)


def refusal(config: ConfigDict) -> str:
    """What a command would print of the config's error; '' where it is accepted."""
    try:
        check_config(config)
    except Exception as error:
        text, exit_code = explain(error)
        assert exit_code == 1
        return text
    return ""


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes(name):
    file, _, variant = name.partition(":")
    assert refusal(CONFIGS[name]) == ""
    assert refusal(MODULES[file].get_config(variant)) == ""


WRONG = (math.nan, math.inf, -math.inf, -1e300, 10**40, "many", (1, "2"), True)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=lambda value: value)
def test_a_number_that_no_field_takes_is_one_line_with_the_field(name, field):
    for value in WRONG:
        if value is True and is_switch(name, field):
            continue
        said = refusal(with_value(name, field, value))
        last = field.rpartition(".")[2]
        assert said, f"{field}={value!r} was accepted"
        assert "\n" not in said and last in said, said


def is_switch(name: str, field: str) -> bool:
    section = CONFIGS[name].to_dict()
    for key in field.split("."):
        section = section[key]
    return isinstance(section, bool)


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.none(),
    st.text(max_size=3),
    st.tuples(st.integers(-2, 40), st.integers(-2, 40)),
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(FIELDS), NUMBERS)
def test_any_value_is_accepted_or_refused_in_one_line(place, value):
    name, field = place
    said = refusal(with_value(name, field, value))
    assert "\n" not in said
    if isinstance(value, float) and not math.isfinite(value):
        assert said
    if isinstance(value, int | float) and value < 0 and not may_be_negative(field):
        assert said, f"{field}={value!r} was accepted"


def may_be_negative(field: str) -> bool:
    return field.rpartition(".")[2] in {"vertical", "mean", "disparity"}


SMALL = {
    "digits:standard": digits.get_config("tiny"),
    "bounce:standard": bounce.get_config("tiny"),
    "flow:synthetic": flow.get_config("synthetic:tiny"),
}


@pytest.fixture(scope="module")
def examples():
    """A prepared example of each, as shapes."""
    found = {}
    for name, config in SMALL.items():
        task = experiments.make_task(config)
        found[name] = jax.eval_shape(lambda b, task=task: task.prepare(b, None), task.example)
    return found


MODEL_FIELDS = [
    (name, field)
    for name, config in SMALL.items()
    for field in numeric_fields(config)
    if field.startswith("model.")
]


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(MODEL_FIELDS), st.sampled_from([0, 1, 2, 3, 5, 8, 64, 0.0, 0.25, None]))
def test_what_is_accepted_builds_a_model_or_says_one_line(examples, place, value):
    name, field = place
    config = with_value(name, field, value)
    if refusal(config):
        return
    model = build(config.model.to_dict())
    try:
        jax.eval_shape(lambda: model.init(jax.random.key(0), zeros(examples[name]), train=False))
    except Exception as error:
        said, _ = explain(error)
        assert "\n" not in said, said


def zeros(shapes):
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_has_a_declared_range(name):
    """Where a config holds a number outside of the model, the type of its field has a range."""
    config = CONFIGS[name].to_dict()
    hints = typing.get_type_hints(
        experiments.find_task(config["experiment"]).Config, include_extras=True
    )
    hints["optimizer"] = typing.get_type_hints(hints["optimizer"], include_extras=True) | {
        "schedule": declared_fields(SCHEDULES[config["optimizer"]["schedule"]["name"]])[0]
    }
    undeclared = []

    def walk(hint, value, where):
        if typing.is_typeddict(hint):
            hint, _ = declared_fields(hint)
        if isinstance(hint, dict):
            for key, part in value.items():
                walk(hint.get(key), part, f"{where}.{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            limits = typing.get_args(hint)[1:]
            if not any(isinstance(limit, Range) for limit in limits):
                undeclared.append(where)

    sections = {key: value for key, value in config.items() if key != "model"}
    del sections["data"]["source_options"], sections["data"]["train_source_options"]
    sections["optimizer"]["schedule"].pop("name")
    for key, value in sections.items():
        if isinstance(value, dict | int | float):
            walk(hints[key], value, key)
    assert undeclared == []


def test_a_wrong_module_field_raises_before_any_parameter():
    spec = CONFIGS["digits:standard"].model.to_dict()
    for value, message in (
        ({"num_latents": 0}, r"config\.model\.encoder\.num_latents=0 is not allowed"),
        ({"num_blocks": 3, "num_cross_attends": 2}, "num_blocks=3 must divide by num_cross_att"),
        ({"num_self_attend_heads": 5}, "latent_channels=32 must divide by num_self_attend_heads=5"),
        ({"remat": "some"}, "write 'none' or 'dots' or 'full'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(spec | {"encoder": spec["encoder"] | value})


def test_types_say_what_they_allow():
    assert allows(DType, "bfloat16") and not allows(DType, "bf16")
    assert allows(int | None, None) and not allows(int, True)
    assert allows(tuple[int, ...], [1, 2]) and not allows(tuple[int, int], (1,))
    with pytest.raises(ConfigError, match=r"x\.length is missing: write a whole number"):
        check_fields(needed, {}, "x")


def needed(*, length: int):
    del length


CASES = {
    "log_every": -5,
    "steps": -1,
    "accumulate": 0,
    "model.encoder.num_latents": 0,
    "model.encoder.dropout_rate": 1.5,
    "model.input.num_bands": -2,
    "model.dtype": "float99",
    "optimizer.learning_rate": -1.0,
    "optimizer.schedule.warmup_steps": 3,
    "data.label_smoothing": 1.0,
    "checkpoint_every": -1,
    "parallel.mode": "vmap",
    "experiment": "nothing",
}


@pytest.mark.parametrize("field", CASES)
def test_the_command_refuses_before_data_and_workdir(field, monkeypatch, tmp_path, capsys):
    flags = types.SimpleNamespace(
        coordinator=None,
        num_processes=None,
        process_id=None,
        distributed=False,
        peer_timeout=100,
        mode="train",
        profile="",
        workdir=str(tmp_path / "x"),
        config=with_value("digits:standard", field, CASES[field]),
    )
    monkeypatch.setattr(run.flags, "FLAGS", flags)
    monkeypatch.setattr(run.distributed, "join", lambda *args, **options: None)
    monkeypatch.setattr(run.command, "keep_programs", lambda folder: None)
    monkeypatch.setattr(run, "make_task", lambda config: pytest.fail("data were opened"))
    with pytest.raises(SystemExit) as stopped:
        run.main(["run"])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 1
    assert f"config.{field}={CASES[field]!r}" in said and "\n" not in said
    assert not (tmp_path / "x").exists()
