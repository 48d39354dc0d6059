"""Plans: what a program moves, its memory, the least time it takes, what fits, and what is said.

All of it without a TPU's compiler, but for the tests marked `tpu`: `pytest -m tpu`, with the extra
`tpu` installed.
"""

import dataclasses
import importlib
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from absl import flags
from jax.sharding import PartitionSpec as P
from train import toy

from configs import digits, lab
from experiments.plan import __main__ as command
from experiments.plan import chips, hlo, program, reading, report, search, work
from perceiver_jax.train import sharding

# As XLA writes it, less what is not read: a loop of 5 trips around one of 3, which the compiler
# noted; an all-reduce in the inner one; arrays in the on-chip memory, marked S(1).
PROGRAM = pathlib.Path(__file__).with_name("golden").joinpath("loops.hlo").read_text("utf-8")


def test_a_config_with_microbatches_has_a_blank_task_of_one_example():
    config = digits.get_config("tiny")
    config.accumulate = 2
    task, example = program.blank_task(config)
    assert example["mask"].shape == (1,) == task.example["mask"].shape


def test_a_blank_task_of_several_labels():
    config = importlib.import_module("configs.audioset").get_config("raw:tiny")
    _, example = program.blank_task(config)
    assert example["labels"].shape == (1, 1) and example["row"].shape == (1,)


@pytest.mark.parametrize(
    ("name", "steps", "classes"),
    [
        ("robustness:imagenet9_scratch", 180_000 * 110 // 1024, 9),
        ("robustness:imagenet9_scratch.conv", 180_000 * 110 // 1024, 9),
        ("robustness:waterbirds.learned", 4795 * 20 // 128, 2),
        ("imagenet:fourier_1pct", None, 1000),
        ("imagenet:conv_10pct", None, 1000),
    ],
)
def test_the_lab_at_paper_scale_can_be_planned(name, steps, classes):
    """Of the whole models, without their data: they are traced, nothing is compiled."""
    file, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    task, example = program.blank_task(config)
    assert example["image"].shape == (1, 224, 224, 3)
    assert config.steps == (steps or importlib.import_module("configs.imagenet").get_config().steps)

    def run():
        batch = task.prepare(example, None)
        return task.model.init_with_output(jax.random.key(0), batch, train=False)[0]

    assert jax.eval_shape(run).shape == (1, classes)


def test_collectives_count_as_often_as_their_loops_run():
    found = hlo.traffic(PROGRAM)
    loops = 5 * 3  # the outer loop counts from 2 to 7
    ring = 3 / 4  # of the 4 devices along 'a'
    assert found.collectives == {
        "all-gather": hlo.Collective(1, 4096, 4096 * 7 / 8),
        "all-reduce": hlo.Collective(loops, loops * 4096, loops * 4096 * 2 * ring),
    }
    assert found.unknown_loops == 0


def test_memory_counts_slices_of_operands_and_not_what_stays_on_the_chip():
    gather, half, wide = 512 + 4096, 2 * 2048, 2048 + 4096
    row = 4096 + 4  # of the stack, and its number; written on the chip
    reduction = 2 * 4096
    comparisons = 5 * (4 + 4 + 1) + 15 * 1
    expected = gather + half + wide + 5 * row + 15 * reduction + comparisons
    assert hlo.traffic(PROGRAM).memory_bytes == expected


IN_PLACE = """\
%fused (a: f32[8,1024], b: f32[1,1024], i: s32[]) -> f32[8,1024] {
  %a = f32[8,1024]{1,0} parameter(0)
  %b = f32[1,1024]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %updated = f32[8,1024]{1,0} dynamic-update-slice(%a, %b, %i, %zero)
}

%keep (k: f32[8,1024]) -> f32[8,1024] {
  ROOT %k = f32[8,1024]{1,0} parameter(0)
}

%negate (n: f32[8,1024]) -> f32[8,1024] {
  %n = f32[8,1024]{1,0} parameter(0)
  ROOT %negated = f32[8,1024]{1,0} negate(%n)
}

ENTRY %main (x: f32[8,1024], y: f32[1,1024], j: s32[]) -> f32[8,1024] {
  %x = f32[8,1024]{1,0} parameter(0)
  %y = f32[1,1024]{1,0} parameter(1)
  %j = s32[] parameter(2)
  %put = f32[8,1024]{1,0} fusion(%x, %y, %j), kind=kLoop, calls=%fused
  ROOT %r = f32[8,1024]{1,0} conditional(%j, %put, %put), branch_computations={%keep, %negate}
}
"""


def test_a_row_put_into_an_array_moves_the_row_and_a_branch_counts_as_the_longest():
    put = 4096 + 4096 + 4  # the row read and written, and its number
    negate = 2 * 8 * 4096
    assert hlo.traffic(IN_PLACE).memory_bytes == put + negate


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    found = hlo.traffic(PROGRAM.replace("known_trip_count", "unknown"))
    assert found.unknown_loops == 1
    assert found.collectives["all-reduce"].count == 5


@pytest.mark.parametrize(
    "text, devices",
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, x", 4),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[1,8]<=[4,2]T(1,0), x", 8),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("replica_groups={}", 0),
        ("source_target_pairs={{0,1}}", 0),
    ],
)
def test_group_sizes(text, devices):
    assert hlo.group_size(text) == devices


KINDS = """
%product (p: bf16[8,16], q: bf16[16,4]) -> f32[8,4] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = bf16[16,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%row (p.1: f32[5,8], i: s32[]) -> f32[8,1] {
  %p.1 = f32[5,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %slice = f32[1,8]{1,0} dynamic-slice(%p.1, %next), dynamic_slice_sizes={1,8}
  ROOT %turned = f32[8,1]{1,0} transpose(%slice), dimensions={1,0}
}

%body (s: (s32[], f32[5,8], bf16[8,16], bf16[16,4])) -> (s32[], f32[5,8], bf16[8,16], bf16[16,4]) {
  %s = (s32[], f32[5,8], bf16[8,16], bf16[16,4]) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %x = f32[5,8]{1,0} get-tuple-element(%s), index=1
  %a = bf16[8,16]{1,0} get-tuple-element(%s), index=2
  %b = bf16[16,4]{1,0} get-tuple-element(%s), index=3
  %f.1 = f32[8,4]{1,0} fusion(%a, %b), kind=kOutput, calls=%product, config={"estimated_cycles":"300"}
  %f.2 = f32[8,1]{1,0} fusion(%x, %n), kind=kLoop, calls=%row, config={"estimated_cycles":"20"}
  %e = f32[8,4]{1,0} exponential(%f.1), config={"estimated_cycles":"7"}
  %c = f32[8,4]{0,1} copy(%e)
  ROOT %t = (s32[], f32[5,8], bf16[8,16], bf16[16,4]) tuple(%n, %x, %a, %b)
}

%condition (s.1: (s32[], f32[5,8], bf16[8,16], bf16[16,4])) -> pred[] {
  %s.1 = (s32[], f32[5,8], bf16[8,16], bf16[16,4]) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (z: (s32[], f32[5,8], bf16[8,16], bf16[16,4])) -> (s32[], f32[5,8], bf16[8,16], bf16[16,4]) {
  %z = (s32[], f32[5,8], bf16[8,16], bf16[16,4]) parameter(0)
  ROOT %w = (s32[], f32[5,8], bf16[8,16], bf16[16,4]) while(%z), condition=%condition, body=%body, c={"known_trip_count":{"n":"5"}}
}
"""  # noqa: E501


def test_instructions_are_timed_by_what_they_do():
    found = work.operations(KINDS)
    kinds = ["products", "moving", "rest", "moving"]
    assert [(o.kind, o.times, o.cycles) for o in found] == [
        (kind, 5, cycles) for kind, cycles in zip(kinds, (300, 20, 7, None), strict=True)
    ]
    assert [o.flops for o in found] == [2 * 8 * 16 * 4, 0, 0, 0]
    v5e = work.estimate(found, chips.CHIPS["v5e"])
    assert v5e == work.Estimate(*(pytest.approx(5 * n / 1.5e9) for n in (300, 20, 7)), 20, 5)
    h100 = work.estimate(found, chips.CHIPS["h100"])  # all as short as a launch
    assert (h100.unknown, h100.moving) == (0, pytest.approx(2 * 5 * work.LAUNCH))


# Calls of the Fourier classifier's kernel as JAX writes them, less what is not read: forward, with
# its config over several lines, and backward, with numbers of 64 bits as XLA's JSON has them.
KERNELS = """
ENTRY %main (x: bf16[16,16,50176], y: bf16[8,96,896]) -> f32[16,512,128] {
  %x = bf16[16,16,50176]{2,1,0} parameter(0)
  %y = bf16[8,96,896]{2,1,0} parameter(1)
  %pallas_call.9 = (f32[16,512,128]{2,1,0}, f32[16,512,896]{2,1,0}) custom-call(%x, %y), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={}}, metadata={op_name="jit(total)/jvp(forward_block)/pallas_call" stack_frame_id=35}, backend_config={"custom_call_config": {"body": "TUzvUg==", "cost_estimate": {
"bytes_accessed":278478848,
"flops":276220084224,
"remote_bytes_transferred":0,
"transcendentals":411041792
}, "serialization_format": 1, "needs_layout_passes": true}}
  %pallas_call.15 = (f32[16,512,896]{2,1,0}, f32[16,16,50176]{2,1,0}) custom-call(%x, %y), custom_call_target="tpu_custom_call", metadata={op_name="jit(total)/transpose(jvp(backward_block))/pallas_call" stack_frame_id=4}, backend_config={"custom_call_config":{"body":"TUzvUg==","cost_estimate":{"flops":"460366807040","transcendentals":"411041792","bytes_accessed":"400000000"},"serialization_format":"1"}}
  ROOT %other = f32[16,512,128]{2,1,0} custom-call(%x), custom_call_target="tpu_custom_call", metadata={op_name="jit(total)/pallas_call"}, backend_config={}
}
"""  # noqa: E501


# Splash attention's calls as XLA writes them, less what is not read.
SPLASH = """
ENTRY %main (m: s8[1,1,1], q: bf16[16,8,512,128], l: f32[16,8,8,512]) -> bf16[16,8,512,128] {
  %m = s8[1,1,1]{2,1,0} parameter(0)
  %q = bf16[16,8,512,128]{3,2,1,0} parameter(1)
  %l = f32[16,8,8,512]{3,2,1,0} parameter(2)
  %f = (f32[16,512,128]{2,1,0}, bf16[16,8,512,128]{3,2,1,0}) custom-call(%m, %m, %q, %q, %q), custom_call_target="tpu_custom_call", metadata={op_name="jit(loss)/vmap(static_sparsity_splash)/jit(_splash_attention)/splash_mha_fwd_residuals/pallas_call"}
  ROOT %b = bf16[16,8,512,128]{3,2,1,0} custom-call(%m, %m, %q, %q, %q, /*index=5*/%l, %q, %l), custom_call_target="tpu_custom_call", metadata={op_name="transpose(jvp(splash_mha_dkv_no_residuals))/pallas_call"}
}
"""  # noqa: E501


def test_splash_attention_takes_the_cycles_that_the_compiler_made_for_it():
    v5e, blocks = chips.CHIPS["v5e"], 16 * 8
    for operation, bundles in zip(work.operations(SPLASH), (1946, 2884), strict=True):
        seconds = work.estimate([operation], v5e).kernels
        assert seconds == pytest.approx(blocks * bundles / v5e.clock, rel=0.05)
    long = SPLASH.replace("16,8,512,128", "16,8,2048,128")  # in blocks of 1,024
    for operation, bundles in zip(work.operations(long), (19762, 41160), strict=True):
        seconds = work.estimate([operation], v5e).kernels
        assert seconds == pytest.approx(blocks * bundles / v5e.clock, rel=0.12)


def test_the_kernel_takes_the_cycles_that_the_compiler_made_for_it():
    forward, backward, other = work.operations(KERNELS)
    assert (forward.kind, forward.flops, forward.moved) == ("kernels", 276220084224, 278478848)
    weights, v5e = 411041792, chips.CHIPS["v5e"]
    for call, cycles in ((forward, 7.2), (backward, 10.7)):  # per 1,024 weights, see the docs
        found = work.estimate([call], v5e)
        assert found.kernels == pytest.approx(cycles * weights / 1024 / v5e.clock, rel=0.01)
        assert (found.seconds, found.unknown) == (found.kernels, 0)
    core = work.estimate([forward], chips.CHIPS["v3"]).kernels  # half the chip's peak
    assert core == pytest.approx(forward.flops / 61.5e12 + forward.cycles / 0.94e9)
    slow = dataclasses.replace(forward, moved=8.19e9)
    assert work.estimate([slow], v5e).kernels == pytest.approx(0.01)
    assert (other.kind, work.estimate([other], v5e).unknown) == ("rest", 1)  # states no cost


def test_clocks_follow_from_peaks():
    units = {"v2": 2, "v3": 4, "v4": 8, "v5e": 4, "v5p": 8, "v6e": 16}  # of 128x128 multipliers
    for name, count in units.items():
        chip = chips.CHIPS[name]
        assert chip.clock == pytest.approx(chip.flops / (2 * 128 * 128 * count), rel=0.01)


def test_what_hosts_must_read():
    line = reading.line("blank:imagenet2012", 16, 16_000)
    assert line.startswith("each of 16 hosts must read 1,000 examples a second: 1.5 cores at the")
    assert "17 ms of CPU each of experiments/results/clips.csv" in reading.line("clips", 1, 10)
    assert "the host must read" in reading.line("clips", 1, 10)
    assert "each of experiments/results/reading.csv" in reading.line("autoflow", 1, 10)
    assert "'mine:Data' is in no table" in reading.line("mine:Data", 1, 10)


def test_gpus_take_a_plugin(monkeypatch):
    monkeypatch.setattr(chips, "has_cuda", lambda: False)
    with pytest.raises(chips.NoCompiler, match=r"pip install -e '.\[plan_gpu\]'"):
        chips.slice_devices("h100:8")
    monkeypatch.setattr(chips, "has_cuda", lambda: True)

    def describe(**options):
        assert options["topology"] == "1x1x8" and "core_count: 132" in options["target_config"]
        return types.SimpleNamespace(devices=range(8))

    monkeypatch.setattr(chips.topologies, "get_topology_desc", describe)
    monkeypatch.setattr(chips, "answer_for_the_gpu", lambda: None)
    assert len(chips.slice_devices("h100:8")) == 8


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="not the text of a compiled program"):
        hlo.traffic("module @jit_f { }")


def test_a_program_for_eight_devices():
    """Of this machine: a product whose sum goes over all devices, five times."""
    mesh = sharding.make_mesh(digits.get_config("").parallel)

    def loop(x, w):
        return jax.lax.scan(lambda w, _: (jax.numpy.tanh(x.T @ (x @ w)), None), w, None, length=5)

    shardings = [jax.sharding.NamedSharding(mesh, spec) for spec in (P("data"), P())]
    shapes = jax.ShapeDtypeStruct((64, 16), "float32"), jax.ShapeDtypeStruct((16, 4), "float32")
    compiled = jax.jit(loop, in_shardings=shardings).lower(*shapes).compile()
    found = hlo.traffic(compiled.as_text())
    assert found.collectives == {"all-reduce": hlo.Collective(5, 5 * 256, 5 * 256 * 2 * 7 / 8)}
    assert found.unknown_loops == 0
    assert found.memory_bytes > 5 * (64 / 8) * 16 * 4  # x, in each trip


def test_a_step_of_eight_devices():
    """Memory by what it is of, and FLOPs with the layers' loop unrolled."""
    config = toy.make_config(batch_size=16)
    task = toy.make_task()
    step = program.compile_task(task, toy.examples(1, 0), config, jax.devices())
    layer, ends = 8 * 8 + 8 + 2 * 8, 6 * 8 + 8 + 8 * 2 + 2
    parameters = 4 * (3 * layer + ends)
    assert step.memory.parameters == parameters
    assert 2 * parameters <= step.memory.optimizer <= 2 * parameters + 8  # and a counter
    assert step.memory.batch == 2 * (6 * 4 + 4 + 1)  # 2 of 16 rows on each
    assert step.memory.peak >= 3 * parameters + step.memory.batch
    assert step.memory.reserved >= step.memory.peak
    assert step.memory.temporaries == step.memory.peak - 3 * parameters - (
        step.memory.optimizer - 2 * parameters + step.memory.batch
    )
    # Forward and weight gradients of all products; input gradients of all but the first.
    rows, first, rest = 16 / 8, 2 * 6 * 8, 2 * (3 * 8 * 8 + 8 * 2)
    assert step.executed == rows * (2 * first + 3 * rest)
    assert step.textbook == 3 * task.flops_per_example * 16
    assert step.traffic.collectives["all-reduce"].bytes >= parameters


def test_pmap_has_no_plan():
    config = toy.make_config(parallel__mode="pmap")
    with pytest.raises(ValueError, match=r"config\.parallel\.mode='pmap' is not compiled ahead"):
        program.compile_task(toy.make_task(), toy.examples(1, 0), config, jax.devices())


@pytest.mark.parametrize(
    "words",
    [
        "Ran out of memory in memory space hbm. Used 44.94G of 15.75G hbm. Exceeded hbm by 29.19G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (44.94G) exceeds "
        "available HBM (15.75G).",
    ],
)
def test_out_of_memory_is_read_from_the_compilers_words(words):
    error = program.out_of_memory(f"RESOURCE_EXHAUSTED: {words}\n  1. 20.0G of ...")
    assert (error.used, error.limit) == (44.94 * 2**30, 15.75 * 2**30)
    assert str(error) == words
    assert program.out_of_memory("RESOURCE_EXHAUSTED: words\nmore 3G of 2G").used is None


def test_the_roofline_is_the_longest_of_three():
    limits = chips.roofline(chips.CHIPS["v5e"], flops=197e10, memory_bytes=819e8, sent_bytes=2e9)
    assert limits == chips.Roofline(compute=0.01, memory=0.1, links=0.01)
    assert (limits.seconds, limits.bound) == (0.1, "memory")
    core = chips.roofline(chips.CHIPS["v3"], flops=123e10, memory_bytes=0, sent_bytes=0)
    assert (core.compute, core.bound) == (0.02, "compute")  # a device is half a chip


@pytest.mark.parametrize(
    "name", ["v9:2x2", "v5e", "v5e:64", "v5e:0x4", "cpu", "h100:2x4", "h100:9"]
)
def test_an_unknown_slice_is_told_what_there_is(name):
    with pytest.raises(
        ValueError, match=rf"--topology='{name}' is no slice of TPUs.* v5e:1x1, 2x2.*h100"
    ):
        chips.slice_devices(name)


@pytest.mark.parametrize(
    "said, kind, message",
    [
        (
            "JAX TPU support not installed; ...",
            chips.NoCompiler,
            r"pip install -e '.\[tpu",
        ),
        (
            "INVALID_ARGUMENT: odd sides\nat ...",
            ValueError,
            r"no such slice \(INVALID.* odd sides\)",
        ),
    ],
)
def test_what_the_compiler_refuses_is_told(monkeypatch, said, kind, message):
    def refuse(**options):
        assert options["chip_config_name"] == "megacore"
        raise RuntimeError(said)

    monkeypatch.setattr(chips.topologies, "get_topology_desc", refuse)
    with pytest.raises(kind, match=message):
        chips.slice_devices("v4:2x2x1")


STEP = program.Step(
    devices=8,
    memory=program.Memory(
        peak=3 * 2**30, reserved=4 * 2**30, parameters=2**28, optimizer=2**29, batch=2**20
    ),
    traffic=hlo.Traffic({"all-reduce": hlo.Collective(6, 10**9, 1.75e9)}, 2 * 10**9, 1),
    executed=1.97e12,
    textbook=8 * 0.985e12,
    seconds=12.0,
    operations=[
        work.Operation("products", 1000, 18_000, 0.0, 0),
        work.Operation("moving", 1000, 12_000, 0.0, 0),
        work.Operation("rest", 7, None, 0.0, 0),
    ],
    hosts=2,
)


@pytest.fixture
def small(monkeypatch):
    """A config, whose plans go to 8 devices of this machine; what is compiled is given."""
    monkeypatch.setattr(chips, "slice_devices", lambda name: jax.devices())
    config = digits.get_config("tiny")
    config.batch_size, config.steps, config.model.encoder.remat = 64, 3600, "none"

    def planned(compile_step):
        for module in (command, search):
            monkeypatch.setattr(module, "compile_step", compile_step)
        return command.plan(
            config, "v5e:2x4", name="configs/digits.py:tiny", settings="--x=1", search=True
        )

    return planned


def test_a_plan_that_fits(small, capsys):
    plan = small(lambda config, devices: STEP)
    text = capsys.readouterr().out
    for line in (
        "configs/digits.py:tiny --x=1: batch 64, float32, remat 'none', accumulate 1",
        "fits v5e:2x4: 8 chips",
        "parameters           0.250 GiB",
        "optimizer state      0.500 GiB",
        "temporaries          2.249 GiB",
        "peak                 3.000 GiB",
        "all-reduce               6 of 1,000.0 MB together, 1,750.0 MB sent",
        "1 loop of unknown length",
        "executed              1.97 TFLOP on each device, 15.8 on all",
        "ESTIMATED",
        "compute      10.0 ms    memory       2.4 ms (2 GB)    links       8.8 ms",
        "bound by compute: 6,400 examples a second, 50% of the peak",
        "0.0 hours for 3,600 steps, 0 chip-hours",
        "products 12.0 ms (60%)    only moving data 8.0 ms    rest 0.0 ms",
        "20.0 ms: 3,200 examples a second, 25% of the peak in textbook FLOPs (50% at the bound)",
        "2,007 instructions run, 7 without an estimate",
        "each of 2 hosts must read 1,600 examples a second; config.data.source='digits' is in no",
    ):
        assert line in text, text
    row = report.row(plan)
    assert "kernel" not in text and "instructions_kernels_ms" not in row
    assert row["fits"] == "yes" and row["peak_gib"] == "3.000" and row["note"] == ""
    assert row["collectives"] == "all-reduce 6 x, 1000.0 MB"
    assert (row["estimated_compute_ms"], row["estimated_links_ms"]) == ("10.0", "8.8")
    assert (row["instructions_step_ms"], row["instructions_moving_ms"]) == ("20.0", "8.0")
    assert row["instructions_utilization"] == "0.250"


def test_the_kernel_has_its_own_line(small, capsys):
    kernel = work.Operation("kernels", 1, 3_000_000, 1.97e11, 1)  # 1 ms of products and 2 ms
    plan = small(lambda *_: dataclasses.replace(STEP, operations=[*STEP.operations, kernel]))
    text = capsys.readouterr().out
    assert "\n  attention kernels 3.0 ms (13%): products at the peak, the rest " in text
    assert "23.0 ms: 2,783 examples a second" in text and "7 without an estimate" in text
    assert report.row(plan)["instructions_kernels_ms"] == "3.0"


def test_what_would_fit_is_found_and_named(small, capsys):
    tried = []

    def compile_step(config, devices):
        tried.append((config.model.encoder.remat, config.accumulate))
        if config.accumulate < 4:
            raise program.OutOfMemory("Used 30G of 16G", 30.0, 16.0)
        return STEP

    plan = small(compile_step)
    assert tried == [("none", 1), ("full", 1), ("full", 2), ("full", 4)]
    assert plan.step is None
    advice = "fits with --config.model.encoder.remat=full --config.accumulate=4"
    assert plan.note == f"Used 30G of 16G; {advice}"
    text = capsys.readouterr().out
    assert "does NOT fit v5e:2x4: Used 30G of 16G" in text and advice in text
    assert "peak                 3.000 GiB" in text  # of what fits
    assert report.row(plan) == {
        "config": "configs/digits.py:tiny",
        "topology": "v5e:2x4",
        "batch": 64,
        "settings": "--x=1",
        "fits": "no",
        "note": plan.note,
    }


def test_nothing_fits(small, capsys):
    tried = []

    def compile_step(config, devices):
        tried.append((config.accumulate, config.parallel.shard_params_above))
        raise program.OutOfMemory("Used 90G of 16G", 90.0, 16.0)

    assert small(compile_step).step is None
    # 8 rows on each device: 90 / 16 needs 8 microbatches at least, and there are no more.
    assert tried == [(1, 0), (1, 0), (8, 0), (8, search.SHARD_ABOVE)]
    assert "take a larger slice" in capsys.readouterr().out


def test_a_baseline_has_no_encoder_to_compute_again():
    config = lab.get_config("sea.resnet.uncorrelated")
    assert report.heading("lab.py", "", config) == "lab.py: batch 32, float32, accumulate 1"
    assert all("accumulate" in fields for fields in search.remedies(config, 32, 2.0))
    config = lab.get_config("sea.pixels.uncorrelated")
    assert "remat 'none'" in report.heading("lab.py", "", config)
    assert next(search.remedies(config, 32, 2.0)) == {"model.encoder.remat": "full"}


def test_a_row_takes_the_place_of_the_earlier_one(tmp_path):
    path = tmp_path / "made" / "plan.csv"
    rows = [
        {"config": c, "topology": "v5e:2x2", "batch": 8, "settings": "", "fits": f}
        for c, f in (("a", "no"), ("b", "yes"), ("a", "yes"))
    ]
    for row in rows:
        report.write(path, row | ({"note": "new"} if row is rows[2] else {}))
    assert path.read_text().splitlines() == [
        "config,topology,batch,settings,fits,note",
        "a,v5e:2x2,8,,yes,new",
        "b,v5e:2x2,8,,yes,",
    ]


def test_the_command_line(monkeypatch, tmp_path, capsys):
    """Flags to a plan and back: the batch with what follows from it, the row, the exit code."""
    seen = []

    def compile_step(config, devices):
        seen.append((config.batch_size, config.steps, config.model.dtype, len(devices)))
        raise program.OutOfMemory("Used 30G of 16G", 30.0, 16.0)

    monkeypatch.setattr(command, "compile_step", compile_step)
    monkeypatch.setattr(chips, "slice_devices", lambda name: jax.devices())
    monkeypatch.setattr(jax.config, "update", lambda *setting: None)
    csv = tmp_path / "plan.csv"
    arguments = [
        "plan", "--config=configs/imagenet.py:conv", "--config.model.dtype=bfloat16",
        "--topology=v5e:2x4", "--batch=512", f"--output={csv}", "--nosearch",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    values = flags.FlagValues()
    command.define_flags(values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(SystemExit) as stopped:
        command.main(values(arguments))
    assert stopped.value.code == command.DOES_NOT_FIT
    assert seen == [(512, 1_281_167 * 110 // 512, "bfloat16", 8)]
    assert (
        "configs/imagenet.py:conv,v5e:2x4,512,--config.model.dtype=bfloat16,no" in csv.read_text()
    )
    assert "not searched" in csv.read_text()


# The papers' configs, each with a slice that its batch fits. Minutes each.
SLICES = {
    "imagenet:fourier": ("v5e:8x8", {"model.encoder.remat": "full"}),
    "imagenet:learned": ("v5e:8x8", {}),
    "imagenet:conv": ("v5e:8x8", {}),
    "imagenet:perceiver": ("v5e:8x8", {}),
    "flow:autoflow_recipe": ("v5e:8x8", {}),
    "kinetics:autoencode": ("v5e:8x8", {}),
    "language:bytes": ("v5e:8x8", {}),
}


@pytest.mark.tpu
@pytest.mark.parametrize("name", SLICES)
def test_the_papers_configs_fit(name):
    topology, settings = SLICES[name]
    try:
        devices = chips.slice_devices(topology)
    except chips.NoCompiler as error:
        pytest.skip(str(error))
    file, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    config.model.dtype = "bfloat16"
    config.update_from_flattened_dict(settings)
    step = program.compile_step(config.copy_and_resolve_references(), devices)
    chip, _ = chips.read_topology(topology)
    assert step.memory.peak < chip.hbm_bytes / chip.devices
    if name == "imagenet:fourier":  # it keeps the inputs of 48 layers, 0.8 GiB, and little else
        assert step.memory.peak < 3 * 2**30
        assert step.traffic.collectives["all-reduce"].count <= 4
        kernels = [o.times for o in step.operations if o.kind == "kernels"]
        assert sorted(kernels) == [1, 1, 48, 48, 48]  # splash attention runs forward twice
    assert np.isfinite(step.executed) and step.traffic.collectives["all-reduce"].count
