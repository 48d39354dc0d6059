"""Reads from a compiled program's text what it moves: collectives, and bytes of main memory.

XLA's own cost analysis counts the body of a loop once. Here an instruction counts as often as it
runs: the number of a loop's trips follows from its condition or the compiler's note. A loop without
either (a general while) counts as one trip and is reported in `Traffic.unknown_loops`. The file is
long because it holds a parser of HLO.
"""

import collections
import dataclasses
import functools
import math
import re

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "collective-broadcast",
)
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "token": 0}

# Instructions that move no data themselves.
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "iota",
}

_SHAPE = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_CONTINUED = re.compile(r'\n(?="|\}[^\n])')  # inside the config of a custom call
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")


@dataclasses.dataclass
class Instruction:
    """One line: `name = shape opcode(operands), rest`."""

    name: str
    shape: str
    opcode: str
    operands: list[str]
    inside: str  # of the parentheses
    rest: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The computation that `name=` refers to."""
        found = re.search(rf"\b{name}=%?([\w.-]+)", self.rest)
        return found[1] if found else None


@dataclasses.dataclass
class Collective:
    """One kind of collective over the whole program: how many run, and the bytes of their results.

    `sent` is what each device sends for them by a ring over its group, the least there is.
    """

    count: int = 0
    bytes: int = 0
    sent: float = 0.0


@dataclasses.dataclass
class Traffic:
    """What one run of a program moves, on each device.

    Attributes:
      collectives: by kind.
      memory_bytes: read from and written to main memory (HBM), by every instruction that is not
        inside a fusion; arrays that the compiler placed in the on-chip memory do not count.
      unknown_loops: how many loops were counted as one trip.
    """

    collectives: dict[str, Collective]
    memory_bytes: int
    unknown_loops: int


@dataclasses.dataclass
class Run:
    """An instruction that is no loop or call, and how often it runs.

    Attributes:
      moved: bytes of main memory, each time.
      beside: the instructions of its computation by name.
    """

    instruction: Instruction
    times: int
    moved: int
    beside: dict[str, Instruction]


def dimensions(shape: str) -> list[int]:
    """The sides of the first array of a shape."""
    found = _SHAPE.search(shape)
    return [int(d) for d in found[2].split(",") if d] if found else []


def size(shape: str, *, main_memory: bool = False) -> int:
    """Bytes of a shape, or of all shapes of a tuple; `main_memory` leaves on-chip ones out."""
    total = 0
    for kind, dimensions, layout in _SHAPE.findall(shape):
        if main_memory and "S(" in layout:  # a memory space other than the main one
            continue
        count = math.prod(int(d) for d in dimensions.split(",") if d)
        bits = BITS.get(kind) if kind in BITS else int(re.search(r"\d+", kind)[0])
        total += count * bits // 8
    return total


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a program's text by name, and the name of the one that is run.

    Raises:
      ValueError: the text is of no HLO module.
    """
    computations, entry, current = {}, None, None
    text = _CONTINUED.sub("", text)
    for line in text.splitlines():
        if line[:1] not in {" ", "}", ""} and (match := _COMPUTATION.match(line)):
            current = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(match[2], match[3], root=bool(match[1])))
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return computations, entry


def _instruction(name: str, text: str, *, root: bool) -> Instruction:
    shape_end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    shape, text = text[:shape_end], text[shape_end:].lstrip()
    opcode, _, text = text.partition("(")
    inside = text[: _closing("(" + text) - 1]
    operands = re.findall(r"%([\w.-]+)", inside)
    return Instruction(name, shape, opcode, operands, inside, text[len(inside) + 1 :], root)


def _closing(text: str) -> int:
    """Where the parenthesis closes that `text` begins with."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"unbalanced: {text[:80]}")


def runs(text: str) -> tuple[list[Run], dict[str, list[Instruction]], int]:
    """What a program runs, loops unrolled; its computations; and how many loops count as one trip.

    Of a conditional's branches, the one that moves most.
    """
    computations, entry = parse(text)
    unknown = 0

    @functools.cache
    def by_name(computation):
        return {i.name: i for i in computations[computation]}

    def walk(computation, times):
        nonlocal unknown
        found = []
        for instruction in computations[computation]:
            opcode = instruction.opcode
            if opcode == "while":
                condition, body = (instruction.attribute(n) for n in ("condition", "body"))
                trips = trip_count(instruction, computations[condition], by_name(computation))
                unknown += trips is None
                trips = 1 if trips is None else trips
                found += walk(condition, times * trips) + walk(body, times * trips)
            elif opcode == "conditional":
                branches = re.findall(r"%([\w.-]+)", _braces(instruction.rest))
                names = [instruction.attribute(f"{b}_computation") for b in ("true", "false")]
                walked = [walk(b, times) for b in [*branches, *filter(None, names)]]
                found += max(walked, key=lambda of: sum(run.times * run.moved for run in of))
            elif opcode in {"call", "async-start"}:
                called = instruction.attribute("to_apply") or instruction.attribute("calls")
                found += walk(called, times)
            elif opcode not in FREE and not opcode.endswith(("-done", "-update")):
                moved = _moved(instruction, by_name(computation), computations)
                found.append(Run(instruction, times, moved, by_name(computation)))
        return found

    return walk(entry, 1), computations, unknown


def traffic(text: str) -> Traffic:
    """Reads a compiled program's text (`compiled.as_text()`)."""
    found, _, unknown = runs(text)
    collectives = collections.defaultdict(Collective)
    for run in found:
        kind = run.instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            _count(collectives[kind], run.instruction, run.times)
    memory_bytes = sum(run.times * run.moved for run in found)
    return Traffic(dict(sorted(collectives.items())), memory_bytes, unknown)


def _braces(rest: str) -> str:
    match = re.search(r"branch_computations=\{([^}]*)\}", rest)
    return match[1] if match else ""


def _count(total: Collective, instruction: Instruction, times: int) -> None:
    """Adds one collective. The shape of an asynchronous one is (operand, result)."""
    shape = instruction.shape
    if instruction.opcode.endswith("-start") and not instruction.opcode.startswith("all-reduce"):
        shape = _last(shape)
    result, devices = size(shape), group_size(instruction.rest)
    total.count += times
    total.bytes += times * result
    ring = (devices - 1) / devices if devices else 1.0
    factor = {"all-reduce": 2 * ring, "all-gather": ring, "all-to-all": ring}
    factor["reduce-scatter"] = devices * ring if devices else 1.0
    total.sent += times * result * factor.get(instruction.opcode.removesuffix("-start"), 1.0)


def _last(shape: str) -> str:
    """The result part of `((operands), results, contexts...)` or `(operand, result, ...)`."""
    if not shape.startswith("("):
        return shape
    parts, depth, start = [], 0, 1
    for place, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            parts.append(shape[start:place].strip())
            start = place + 1
    return parts[1] if len(parts) > 1 else parts[0]


def group_size(rest: str) -> int:
    """How many devices take part in a collective; 0 if the text does not tell.

    Groups are written as a list `{{0,1},{2,3}}`, as `[groups,devices]<=[...]`, or by the axes of a
    mesh: `mesh['a'=4,'b'=2] {'b'}`.
    """
    groups = re.search(r"replica_groups=(\{\{[^}]*\}|\[[\d,]+\]|mesh\[[^\]]*\] ?\{[^}]*\})", rest)
    if not groups:
        return 0
    text = groups[1]
    if text.startswith("{{"):
        return text.count(",") + 1
    if text.startswith("["):
        return int(text[1:-1].split(",")[-1])
    axes, chosen = text.split("]")
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", chosen))


def trip_count(
    loop: Instruction, condition: list[Instruction], outer: dict[str, Instruction]
) -> int | None:
    """How often a loop runs: as the compiler notes, or counted from 0 up to a constant."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if noted:
        return int(noted[1])
    instructions = {i.name: i for i in condition}
    root = next(i for i in condition if i.root)
    compared = [instructions.get(name) for name in root.operands]
    if root.opcode == "compare" and "direction=LT" in root.rest and len(compared) == 2:
        counter, limit = compared
        if counter and limit and counter.opcode == "get-tuple-element" and _is_number(limit):
            index = int(re.search(r"index=(\d+)", counter.rest)[1])
            return int(limit.inside) - _start(loop, index, outer)
    return None


def _is_number(instruction: Instruction) -> bool:
    return instruction.opcode == "constant" and instruction.inside.lstrip("-").isdigit()


def _start(loop: Instruction, index: int, outer: dict[str, Instruction]) -> int:
    """The counter's first value, 0 where it is not a plain constant."""
    value = outer.get(loop.operands[0])
    if value is not None and value.opcode == "tuple":
        value = outer.get(value.operands[index])
        while value is not None and value.opcode in {"copy", "bitcast"}:
            value = outer.get(value.operands[0])
        if value is not None and _is_number(value):
            return int(value.inside)
    return 0


def _moved(instruction: Instruction, names: dict, computations: dict) -> int:
    """Bytes that one instruction reads from and writes to main memory."""
    bytes_of = functools.partial(size, main_memory=True)
    operands = [names[o].shape if o in names else "" for o in instruction.operands]
    opcode = instruction.opcode.removesuffix("-start")
    if instruction.opcode in {"dynamic-slice", "slice", "gather"}:
        return 2 * bytes_of(instruction.shape)
    if opcode == "dynamic-update-slice":  # in place
        return 2 * bytes_of(operands[1])
    if instruction.opcode == "slice-start":  # ((operand), result, context)
        result = _last(instruction.shape)
        return size(result) + bytes_of(result)
    if instruction.opcode.endswith("-start"):  # (result, operand, context) or (operand, result)
        return bytes_of(instruction.shape)
    if opcode == "fusion":
        fused = computations[instruction.attribute("calls")]
        return _fused(fused, operands, instruction.shape, computations)
    return sum(map(bytes_of, operands)) + bytes_of(instruction.shape)


def _fused(fused: list[Instruction], operands: list[str], result: str, computations: dict) -> int:
    """Bytes that a fusion reads and writes, where it may slice operands or write in place."""
    bytes_of = functools.partial(size, main_memory=True)
    total, in_place = 0, 0
    for i in fused:
        if i.opcode != "parameter" or not bytes_of(operands[int(i.inside)]):
            continue
        outside = operands[int(i.inside)]
        uses = _uses(i.name, fused, computations)
        kinds = {kind for kind, _ in uses}
        if kinds == {"dynamic-slice"}:
            total += sum(moved for _, moved in uses)
        elif kinds == {"dynamic-update-slice"}:
            total += sum(moved for _, moved in uses)
            in_place += size(outside)
        else:
            total += bytes_of(outside)
    return total + max(bytes_of(result) - in_place, 0)


def _uses(name: str, fused: list[Instruction], computations: dict) -> list[tuple[str, int]]:
    """How a value is used, through reshapes and inner fusions: (opcode, bytes moved).

    Bytes are known if it is sliced or updated in place; else they are 0.
    """
    found = []
    for user in fused:
        for place in (n for n, operand in enumerate(user.operands) if operand == name):
            if user.opcode == "bitcast":
                found += _uses(user.name, fused, computations)
            elif user.opcode == "fusion":
                inner = computations[user.attribute("calls")]
                (parameter,) = (
                    i.name for i in inner if i.opcode == "parameter" and int(i.inside) == place
                )
                found += _uses(parameter, inner, computations)
            elif place == 0 and user.opcode in {"dynamic-slice", "slice"}:
                found.append(("dynamic-slice", size(user.shape)))
            elif place == 0 and user.opcode == "dynamic-update-slice":
                update = next(i for i in fused if i.name == user.operands[1])
                found.append(("dynamic-update-slice", size(update.shape)))
            else:
                found.append(("", 0))
    return found
