"""Compiles a config's training step for TPUs or GPUs that are not there: does it fit?

    python -m experiments.plan --config=configs/imagenet.py:fourier --topology=v5e:8x8 \\
        --config.model.dtype=bfloat16
    python -m experiments.plan --config=configs/imagenet.py:fourier --topology=v3:8x8 --batch=512 \\
        --config.model.dtype=bfloat16 --config.model.encoder.remat=full

It needs neither a TPU nor the data, only the compiler: `pip install -e '.[tpu]'` (about 1.3
GB, Linux). It takes one to five minutes. The config and its `--config.name=value` are those of
`experiments.run`, and the program is the one that a run on that slice would compile.

It prints whether the step fits, the peak memory of each device, the data sent over the links, the
arithmetic, and two estimates of the time. The first is a bound: the longest of arithmetic, main
memory and links at their published peak rates. The second adds up all instructions, by the
compiler's own count of cycles, and says how much of that are products and how much only moves data.
A real step is nearer to the second. The last line says what each host must read for it, beside what
reading was measured to cost.

GPUs: h100:1 ... h100:8, one host (`pip install -e '.[plan_gpu]'`, Linux). Their compiler counts no
cycles, so each instruction takes the longest of arithmetic, memory and a launch. Kernels are not
tuned without a GPU.

A slice is a generation and its sides in chips: v2, v3 (2x2 ... 16x16; each core is a JAX device),
v4, v5p (2x2x1 ... 4x4x4), v5e, v6e (1x1, 2x2 ... 16x16).

Exit codes: 0, it fits. 3, it does not fit: the command searches for settings that do and names them
(not with --search=false). 1, any other error.
"""

import functools
import sys

import jax
from absl import flags
from ml_collections import config_flags

from experiments import command
from experiments.plan import chips, report
from experiments.plan.program import OutOfMemory, compile_step
from experiments.plan.search import flags_of, what_fits
from perceiver_jax.files.paths import user_path

DOES_NOT_FIT = 3


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    config_flags.DEFINE_config_file("config", None, "File and variant.", **where)
    flags.DEFINE_string("topology", None, "The slice, for example v5e:8x8.", **where)
    flags.DEFINE_integer("batch", 0, "config.batch_size, if another; the steps follow.", 0, **where)
    flags.DEFINE_bool("search", True, "Whether to look for what fits where this does not.", **where)
    flags.DEFINE_string("output", "", "A CSV file that gets the plan as a row.", **where)
    flags.mark_flags_as_required(["config", "topology"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    jax.config.update("jax_platforms", "cpu")  # the host compiles for the described devices
    chosen = flags.FLAGS
    config, flag = chosen.config, chosen["config"]
    if chosen.batch:
        config.batch_size = chosen.batch
    result = plan(
        config.copy_and_resolve_references(),
        chosen.topology,
        name=config_flags.get_config_filename(flag),
        settings=flags_of(config_flags.get_override_values(flag)),
        search=chosen.search,
    )
    if chosen.output:
        report.write(user_path(chosen.output), report.row(result))
    sys.exit(0 if result.step else DOES_NOT_FIT)


def plan(config, topology: str, *, name: str, settings: str, search: bool) -> report.Plan:
    """Compiles the step, prints the report, and returns it."""
    chip, _ = chips.read_topology(topology)
    devices = chips.slice_devices(topology)
    print(report.heading(name, settings, config), flush=True)
    made = functools.partial(
        report.Plan,
        name,
        settings,
        topology,
        chip,
        config.batch_size,
        config.steps,
        source=config.data.source,
    )
    try:
        result = made(compile_step(config, devices))
        print(report.text(result))
        return result
    except OutOfMemory as error:
        print(f"does NOT fit {topology}: {error}", flush=True)
        reason = str(error)
        found = what_fits(config, devices, error) if search else None
    advice = "not searched for what would"
    if found:
        fields, step = found
        advice = f"fits with {flags_of(fields)}"
        print(f"{advice}\n\n{report.text(made(step))}")
    elif search:
        advice = "nothing that was tried fits: take a larger slice, a smaller model or input"
        print(advice)
    return made(None, note=f"{reason}; {advice}")


if __name__ == "__main__":
    command.run(main, define_flags)
