"""How long a program takes by what it does: products, moving data, the rest.

A bound (`chips.roofline`) has everything at its peak at the same time. Here one instruction follows
the other. For TPUs the time of each is what the compiler says, `estimated_cycles`, which is
pessimistic about movement. For GPUs, whose compiler does not tell, it is the longest of arithmetic,
memory and a launch, at rates that good kernels reach; a call of cuDNN counts without its FLOPs.

Compilers do not count the cycles of a Pallas kernel. Those of `perceiver_jax.attention.kernel`, and
JAX's splash attention, take the longer of what they move and what they compute: their products at
the peak, then `BESIDE`. On a GPU the instructions of the former are counted, `INSTRUCTIONS`.
"""

import dataclasses
import math
import re

from experiments.plan import hlo
from experiments.plan.chips import Chip
from perceiver_jax.attention.library import choose_block
from perceiver_jax.attention.platforms import GPU_PROCESSORS

# A fusion of these alone, and of arithmetic with single numbers, only moves data.
MOVES = {
    "broadcast",
    "concatenate",
    "copy",
    "copy-start",
    "dynamic-slice",
    "dynamic-update-slice",
    "gather",
    "pad",
    "reshape",
    "reverse",
    "slice",
    "slice-start",
    "transpose",
}
PRODUCTS = {"convolution", "dot"}
LIBRARY_PRODUCTS = re.compile(r'custom_call_target="__(cublas|cudnn)')

# Of a GPU: the share of the peaks that large products and copies reach, and seconds of a launch.
ARITHMETIC, MEMORY, LAUNCH = 0.7, 0.85, 3e-6

# Cycles beside the products: per 1,024 weights, and per block. These are bundles that the compiler
# made for v5e in bfloat16; nothing was measured on a TPU, and other chips and shapes are taken as
# alike. Of the kernel of cross-attention: what makes up the 7.2 and 10.7 cycles of its inner loops
# for the Fourier classifier (docs/performance.md). Of splash attention: fitted to blocks of 512
# with heads of 128 (7.6 and 11.3 cycles) or 32 channels (7.7 and 11.5), of 256 with heads of 32 and
# 160 (17.5 and 21.2), and of 128 with heads of 64 (34 and 36). Forward, `LATER` is for the further
# blocks of keys of the same queries: 2,048 latents take 5.2 in blocks of 512, 4.8 in larger ones.
BESIDE = {
    "forward_block": (7.2 - 5.25, 0),
    "backward_block": (10.7 - 8.7, 0),
    "splash_mha_fwd": (1.75, 480),
    "splash_mha_dkv": (0, 420),
}
LATER = 0.4
# Of the kernel of cross-attention on an H100: instructions that a warp issues for a block of 64
# queries and 32 columns, in the machine code that the compiler made. A multiprocessor issues four
# in a cycle, one of each of a block's four warps.
INSTRUCTIONS = {"forward_program": 419, "backward_program": 415, "token_program": 679}
BLOCK = 64 * 32
MATRIX_UNIT = 128  # channels: heads of splash attention take as long as the next multiple
MOST_LATENTS = 1024  # of a block of splash attention; with 512, as on v4, it takes a tenth longer


@dataclasses.dataclass(frozen=True)
class Operation:
    """Instructions that run `times` times; FLOPs, bytes and cycles (None: not said) of each time.

    `kind` is 'products', 'moving', 'rest' or 'kernels', whose cycles are those beside the products.
    """

    kind: str
    times: int
    cycles: int | None
    flops: float
    moved: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one run of a program on a device, one instruction after the other.

    Attributes:
      products: of instructions with a matrix product or convolution.
      moving: of those that only copy, slice, pad or broadcast.
      rest: of all others.
      launches, unknown: how many instructions run; how many of them have no estimate.
      kernels: of the Pallas kernels of attention.
    """

    products: float
    moving: float
    rest: float
    launches: int
    unknown: int
    kernels: float = 0.0

    @property
    def seconds(self) -> float:
        """All together."""
        return self.products + self.moving + self.rest + self.kernels


def operations(text: str) -> list[Operation]:
    """What a compiled program (`compiled.as_text()`) runs."""
    runs, computations, _ = hlo.runs(text)
    found = []
    for run in runs:
        if kernel := _kernel(run):
            found.append(kernel)
            continue
        inside = list(_inside(run.instruction, run.beside, computations))
        cycles = re.search(r'"estimated_cycles":"(\d+)"', run.instruction.rest)
        flops = sum(_flops(i, beside) for i, beside in inside if i.opcode == "dot")
        kind = _kind([i for i, _ in inside])
        found.append(
            Operation(kind, run.times, int(cycles[1]) if cycles else None, flops, run.moved)
        )
    return found


def estimate(found: list[Operation], chip: Chip) -> Estimate:
    """The time of all operations on a device of a chip."""
    seconds, unknown = {"products": 0.0, "moving": 0.0, "rest": 0.0, "kernels": 0.0}, 0
    for each in found:
        if each.kind == "kernels":
            issued, read = (1.0, 1.0) if chip.tells_cycles else (ARITHMETIC, MEMORY)  # of the peaks
            compute = each.flops * chip.devices / chip.flops + each.cycles / chip.clock
            memory = each.moved * chip.devices / chip.hbm_rate
            one = max(compute / issued, memory / read)
        elif chip.tells_cycles:
            unknown += each.times * (each.cycles is None)
            one = (each.cycles or 0) / chip.clock
        else:
            memory = each.moved / (MEMORY * chip.hbm_rate)
            one = max(each.flops / (ARITHMETIC * chip.flops), memory, LAUNCH)
        seconds[each.kind] += each.times * one
    return Estimate(**seconds, launches=sum(each.times for each in found), unknown=unknown)


def _kernel(run: hlo.Run) -> Operation | None:
    """A call of a Pallas kernel that `BESIDE` or `INSTRUCTIONS` knows."""
    text = run.instruction.rest
    program = re.search(rf'op_name="[^"]*\b({"|".join(INSTRUCTIONS)})', text)
    if "__gpu$xla.gpu.triton" in text and program:
        return Operation("kernels", run.times, _issued(run, program[1]), 0.0, run.moved)
    name = re.search(rf'op_name="[^"]*\b({"|".join(BESIDE)})', text)
    if "tpu_custom_call" not in text or not name:
        return None
    found = (_splash if name[1].startswith("splash") else _stated)(run, name[1])
    if not found:
        return None
    flops, cycles, moved = found
    return Operation("kernels", run.times, round(cycles), flops, moved)


def _issued(run: hlo.Run, program: str) -> int:
    """Cycles of a kernel on a GPU, from its tokens `[b, C, O, X]` and products `[b, O, N]`."""
    operands = run.instruction.rest.partition("operand_layout_constraints=")[2]
    arrays = [hlo.dimensions(shape) for shape in re.findall(r"\w+\[[\d,]*\]", operands)]
    (_, _, rows, columns), (_, _, queries) = arrays[0], arrays[3]
    weights = hlo.dimensions(run.instruction.shape)[0] * rows * columns * queries
    return round(INSTRUCTIONS[program] * weights / BLOCK / GPU_PROCESSORS)


def _stated(run: hlo.Run, name: str) -> tuple[float, float, int] | None:
    """FLOPs, further cycles and bytes, from what the kernel of cross-attention states."""
    cost = re.search(r'"cost_estimate": ?\{([^}]*)\}', run.instruction.rest)
    if not cost:
        return None
    stated = {name: int(n) for name, n in re.findall(r'"(\w+)": ?"?(\d+)', cost[1])}
    cycles = BESIDE[name][0] * stated["transcendentals"] / 1024
    return stated["flops"], cycles, stated["bytes_accessed"]


def _splash(run: hlo.Run, name: str) -> tuple[float, float, int] | None:
    """FLOPs, further cycles and bytes of splash attention, from its heads `[B, H, N, K or V]`.

    It states nothing. Forward there are two products, backward five, three of them K deep.
    """
    arrays = [hlo.dimensions(run.beside[operand].shape) for operand in run.instruction.operands]
    heads = [shape for shape in arrays if len(shape) == 4][:3]  # query, key, value
    if len(heads) < 3:
        return None
    (batch, number, count, width), _, (*_, depth) = heads
    width, depth = (math.ceil(size / MATRIX_UNIT) * MATRIX_UNIT for size in (width, depth))
    weights = batch * number * count**2
    forward = name.endswith("fwd")
    products = width + depth if forward else 3 * width + 2 * depth
    block = choose_block(count, MOST_LATENTS)
    blocks = batch * number * (count // block) * (1 if forward else count // block)
    by_weight, by_block = BESIDE[name]
    first = blocks * block**2
    cycles = by_block * blocks + (by_weight * first + LATER * (weights - first)) / 1024
    return 2.0 * weights * products, cycles, run.moved


def _inside(instruction, beside, computations):
    """The instruction itself, or those that it fuses, each with those beside it."""
    if instruction.opcode != "fusion":
        yield instruction, beside
        return
    fused = computations[instruction.attribute("calls")]
    names = {i.name: i for i in fused}
    for each in fused:
        yield from _inside(each, names, computations)


def _kind(inside: list[hlo.Instruction]) -> str:
    if any(i.opcode in PRODUCTS or LIBRARY_PRODUCTS.search(i.rest) for i in inside):
        return "products"
    numbers = (i for i in inside if i.opcode not in hlo.FREE | MOVES)
    return "rest" if any(math.prod(hlo.dimensions(i.shape)) > 1 for i in numbers) else "moving"


def _flops(dot: hlo.Instruction, beside: dict[str, hlo.Instruction]) -> float:
    left = hlo.dimensions(beside[dot.operands[0]].shape)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.rest)[1]
    depth = math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * math.prod(hlo.dimensions(dot.shape)) * depth
