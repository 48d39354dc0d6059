"""A plan as text for people and as a row of a table."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.plan import reading, work
from experiments.plan.chips import GIB, Chip, Roofline, roofline
from experiments.plan.program import Step

KEY = ("config", "topology", "batch", "settings")  # identify a row


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step on a slice.

    Attributes:
      config: file and variant.
      settings: overrides, as on the command line.
      topology: the slice.
      chip: its generation.
      batch, steps: of the whole run.
      step: the compiled step; None if it does not fit.
      source: of the data.
      note: if it does not fit, the compiler's message and the advice.
    """

    config: str
    settings: str
    topology: str
    chip: Chip
    batch: int
    steps: int
    step: Step | None
    note: str = ""
    source: str = ""

    @property
    def roofline(self) -> Roofline:
        """The least time of one step."""
        sent = sum(kind.sent for kind in self.step.traffic.collectives.values())
        return roofline(
            self.chip,
            flops=self.step.executed,
            memory_bytes=self.step.traffic.memory_bytes,
            sent_bytes=sent,
        )

    @property
    def estimate(self) -> work.Estimate | None:
        """The time of one step, one instruction after the other; None if no instruction has one."""
        found = work.estimate(self.step.operations, self.chip)
        return found if found.seconds else None

    @property
    def chips(self) -> int:
        """The number of chips of the slice."""
        return self.step.devices // self.chip.devices

    @property
    def hours(self) -> float:
        """The least hours of the whole run."""
        return self.roofline.seconds * self.steps / 3600


def heading(config: str, settings: str, fields: ConfigDict) -> str:
    """The line above a report."""
    section = fields.model.get("encoder", fields.model)
    remat = f"remat {section.remat!r}, " if "remat" in section else ""
    return (
        f"{config} {settings}".strip() + f": batch {fields.batch_size}, {fields.model.dtype}, "
        f"{remat}accumulate {fields.accumulate}"
    )


def text(plan: Plan) -> str:
    """The report."""
    step, memory, limits = plan.step, plan.step.memory, plan.roofline
    device = "chip" if plan.chip.devices == 1 else "core, half a chip"
    hbm = plan.chip.hbm_bytes / plan.chip.devices
    parts = {
        "parameters": memory.parameters,
        "optimizer state": memory.optimizer,
        "batch": memory.batch,
        "temporaries": memory.temporaries,
    }
    lines = [
        f"fits {plan.topology}: {plan.chips} chips, {step.devices} JAX devices",
        "",
        f"memory of each device (a {device} with {hbm / GIB:.1f} GiB)",
        *(f"  {name:18}{size / GIB:8.3f} GiB" for name, size in parts.items()),
        f"  {'peak':18}{memory.peak / GIB:8.3f} GiB",
        f"  {'reserved':18}{memory.reserved / GIB:8.3f} GiB, with code and what does not pack",
        "",
        "collectives of each device in a step",
        *(
            f"  {name:18}{kind.count:8,} of {kind.bytes / 1e6:,.1f} MB together, "
            f"{kind.sent / 1e6:,.1f} MB sent"
            for name, kind in step.traffic.collectives.items()
        ),
        *(["  none"] if not step.traffic.collectives else []),
        *(
            [f"  ({counted(step.traffic.unknown_loops)} of unknown length: counted as one trip)"]
            if step.traffic.unknown_loops
            else []
        ),
        "",
        "arithmetic of a step",
        f"  executed          {step.executed / 1e12:8.2f} TFLOP on each device, "
        f"{step.executed * step.devices / 1e12:,.1f} on all",
        f"  textbook          {step.textbook / 1e12 / step.devices:8.2f} TFLOP on each device "
        "(three times the forward pass)",
        "",
        "ESTIMATED, at the published peaks and with everything else free: a real step is slower",
        f"  compute {limits.compute * 1e3:9.1f} ms    memory {limits.memory * 1e3:9.1f} ms "
        f"({step.traffic.memory_bytes / 1e9:,.0f} GB)    links {limits.links * 1e3:9.1f} ms",
        f"  step    {limits.seconds * 1e3:9.1f} ms, bound by {limits.bound}: "
        f"{plan.batch / limits.seconds:,.0f} examples a second, "
        f"{utilization(plan, limits.seconds):.0%} of the peak in textbook FLOPs",
        f"  run     {plan.hours:9.1f} hours for {plan.steps:,} steps, "
        f"{plan.hours * plan.chips:,.0f} chip-hours",
        *one_after_the_other(plan),
        f"compiled in {step.seconds:.0f} s",
    ]
    return "\n".join(lines)


def one_after_the_other(plan: Plan) -> list[str]:
    """The estimate that a real step is nearer to, and what the hosts must read for it."""
    found = plan.estimate
    seconds = found.seconds if found else plan.roofline.seconds
    read = f"input: {reading.line(plan.source, plan.step.hosts, plan.batch / seconds)}"
    if not found:
        return ["", read]
    ways = (
        "the compiler's count of cycles"
        if plan.chip.tells_cycles
        else "rates that good kernels reach"
    )
    left_out = f"{found.unknown:,} without an estimate" if found.unknown else "all estimated"
    return [
        "",
        f"ESTIMATED, one instruction after the other by {ways}: nearer to a real step",
        f"  products {found.products * 1e3:.1f} ms ({found.products / found.seconds:.0%})    only "
        f"moving data {found.moving * 1e3:.1f} ms    rest {found.rest * 1e3:.1f} ms",
        *kernels(found, plan.chip),
        f"  step    {found.seconds * 1e3:9.1f} ms: {plan.batch / found.seconds:,.0f} examples a "
        f"second, {utilization(plan, found.seconds):.0%} of the peak in textbook FLOPs "
        f"({utilization(plan, plan.roofline.seconds):.0%} at the bound)",
        f"  {found.launches:,} instructions run, {left_out}",
        read,
    ]


def kernels(found: work.Estimate, chip: Chip) -> list[str]:
    """The line of the Pallas kernels of attention, if any runs."""
    if not found.kernels:
        return []
    source = "products at the peak, the rest as the compiler counts on v5e"
    if not chip.tells_cycles:
        source = "the instructions of their machine code"
    return [
        f"  attention kernels {found.kernels * 1e3:.1f} ms "
        f"({found.kernels / found.seconds:.0%}): {source}; not measured"
    ]


def counted(loops: int) -> str:
    """`1 loop`, `2 loops`."""
    return f"{loops} loop" + "s" * (loops != 1)


def utilization(plan: Plan, seconds: float) -> float:
    """Textbook FLOPs per second if a step takes so long, as a fraction of the peak."""
    return plan.step.textbook / seconds / (plan.chips * plan.chip.flops)


def row(plan: Plan) -> dict[str, Any]:
    """The plan as a line of the table."""
    key = {
        "config": plan.config,
        "topology": plan.topology,
        "batch": plan.batch,
        "settings": plan.settings,
    }
    if plan.step is None:
        return key | {"fits": "no", "note": plan.note}
    memory, limits = plan.step.memory, plan.roofline
    gib = {
        "peak": memory.peak,
        "reserved": memory.reserved,
        "parameters": memory.parameters,
        "optimizer": memory.optimizer,
        "batch": memory.batch,
        "temporaries": memory.temporaries,
    }
    collectives = plan.step.traffic.collectives.items()
    return (
        key
        | {"fits": "yes", "chips": plan.chips, "devices": plan.step.devices}
        | {f"{name}_gib": f"{size / GIB:.3f}" for name, size in gib.items()}
        | {
            "collectives": "; ".join(
                f"{kind} {c.count} x, {c.bytes / 1e6:.1f} MB" for kind, c in collectives
            ),
            "executed_tflop": f"{plan.step.executed / 1e12:.3f}",
            "textbook_tflop": f"{plan.step.textbook / plan.step.devices / 1e12:.3f}",
            "estimated_compute_ms": f"{limits.compute * 1e3:.1f}",
            "estimated_memory_ms": f"{limits.memory * 1e3:.1f}",
            "estimated_links_ms": f"{limits.links * 1e3:.1f}",
        }
        | instructions(plan)
        | {
            "steps": plan.steps,
            "estimated_hours": f"{plan.hours:.1f}",
            "estimated_chip_hours": f"{plan.hours * plan.chips:.0f}",
            "compile_seconds": f"{plan.step.seconds:.0f}",
            "note": plan.note,
        }
    )


def instructions(plan: Plan) -> dict[str, str]:
    """The columns of the estimate, one instruction after the other."""
    found = plan.estimate
    if not found:
        return {}
    parts = {"step": found.seconds, "products": found.products, "moving": found.moving}
    parts |= {"kernels": found.kernels} if found.kernels else {}
    return {f"instructions_{name}_ms": f"{value * 1e3:.1f}" for name, value in parts.items()} | {
        "instructions_utilization": f"{utilization(plan, found.seconds):.3f}"
    }


def write(path: pathlib.Path, new: dict[str, Any]) -> None:
    """Writes a row into a CSV file; replaces an earlier row with the same `KEY`."""
    rows = command.read_table(path)
    new = {name: str(value) for name, value in new.items()}
    same = [i for i, r in enumerate(rows) if all(r[name] == new[name] for name in KEY)]
    rows = [r for i, r in enumerate(rows) if i not in same]
    rows.insert(same[0] if same else len(rows), new)
    path.parent.mkdir(parents=True, exist_ok=True)
    command.write_table(path, rows)
