"""The contenders of the benchmark in JAX: each makes a `Program` of a `Job`. `port` has PyTorch's.

ours    the library, which chooses the contraction order itself
dense   the same with the textbook formula for every attention
rerun   the whole model for each chunk of outputs, where `ours` encodes once
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.cases import CASES, Subject
from experiments.benchmark.worker import Job, Program, SkipError, free_memory
from perceiver_jax import flops, losses
from perceiver_jax.attention import cost
from perceiver_jax.modalities.multimodal import Outputs
from perceiver_jax.train import optimizer, state, step
from perceiver_jax.train.task import Task


def ours(job: Job, **encoder) -> Program:
    """The library; `encoder` overrides fields of the encoder."""
    subject = make_subject(job)
    if encoder:
        model = subject.model.clone(encoder=subject.model.encoder.clone(**encoder))
        subject = dataclasses.replace(subject, model=model)
    return build(subject, job)


def dense(job: Job) -> Program:
    """Every attention by the textbook formula; skipped if it cannot fit into memory."""
    subject = make_subject(job)
    require_memory(dense_bytes(subject, job), "the dense formula")
    with cost.forced("dense"):
        return build(subject, job)


def rerun(job: Job) -> Program:
    """Decodes as the released notebook does: encodes again for each chunk."""
    return build(make_subject(job), job, again=True)


def make_subject(job: Job) -> Subject:
    """The job's model and shapes."""
    case = CASES[job.case]
    return case.make(job.batch_size or case.batch_size, job.tiny, job.dtype)


def dense_bytes(subject: Subject, job: Job) -> int:
    """Estimates the bytes of the dense formula's temporaries, without compiling it.

    A token counts `4 C` numbers (itself, normed, key and value) and `2 N` float32 numbers (logits
    and weights of N latents). With gradients this doubles, for each cross-attend. (XLA's
    temporaries at 224 x 224 pixels are 0.6 and 0.9 times the estimate.)
    """
    sets = subject.inputs()
    batch_size = next(iter(subject.batch.values())).shape[0]
    size = jnp.dtype(job.dtype).itemsize
    once = batch_size * sum(
        s.num_tokens * (4 * s.width * size + 2 * subject.num_latents * 4) for s in sets
    )
    return once if job.phase in ("forward", "autoencode") else 2 * subject.num_reads * once


def require_memory(needed: int, what: str) -> None:
    """Raises SkipError if `needed` exceeds the free memory."""
    stats = jax.local_devices()[0].memory_stats()
    free = stats["bytes_limit"] if stats and "bytes_limit" in stats else free_memory()
    if needed > 0.9 * free:
        raise SkipError(f"{what} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def sizes_of(subject: Subject, job: Job) -> dict:
    """The facts that all contenders share. A backward pass counts as two forward passes."""
    passes = 3 if job.phase in ("gradient", "train") else 1
    return {
        "inputs": sum(s.num_tokens for s in subject.inputs()),
        "batch_size": next(iter(subject.batch.values())).shape[0],
        "textbook_flops": passes * subject.textbook,
    }


class Costs:
    """Compiles functions and adds up their costs."""

    def __init__(self):
        self.compile_seconds = 0.0
        self.temporaries = 0
        self.executed = 0.0

    def compile(self, function: Callable, *arguments, calls: int = 1, donate=()) -> Callable:
        """Compiles for these arguments (arrays or shapes); counted as called `calls` times a run.

        Raises:
          SkipError: the program needs more memory than there is; it is not run.
        """
        begin = time.perf_counter()
        compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        self.compile_seconds += time.perf_counter() - begin
        self.executed += calls * flops.executed(function, *arguments)
        memory = compiled.memory_analysis()
        if memory is not None:
            self.temporaries = max(self.temporaries, memory.temp_size_in_bytes)
            needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
            require_memory(needed, "the compiled program")
        return compiled


def build(subject: Subject, job: Job, *, again: bool = False) -> Program:
    """Compiles the job's phase of the model, with random weights and a random batch."""
    batch = random_batch(subject)
    costs = Costs()
    if job.phase == "train":
        run = train(subject, batch, costs)
    else:
        init = functools.partial(subject.model.init, train=False)
        variables = initialize(init, jax.random.key(0), batch)
        phases = {
            "forward": forward,
            "gradient": gradient,
            "autoencode": functools.partial(autoencode, again=again),
        }
        run = phases[job.phase](subject, variables, batch, costs)
    device = jax.local_devices()[0]
    return Program(
        run,
        sizes_of(subject, job)
        | {
            "compile_seconds": costs.compile_seconds,
            "temporaries_bytes": costs.temporaries,
            "executed_flops": costs.executed,
            "software": f"jax {jax.__version__}",
            "device": device.device_kind,
        },
        lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"),
    )


def initialize(function: Callable, *arguments) -> Any:
    """Makes random weights, by one compiled program that is not measured."""
    return jax.jit(function)(*arguments)


def random_batch(subject: Subject) -> dict[str, jax.Array]:
    """Makes a batch: normal noise, integers 0, full masks, the first class as `target`."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, x in subject.batch.items():
        if name == "target":
            batch[name] = jax.nn.one_hot(np.zeros(x.shape[0], np.int32), x.shape[1])
        elif jnp.issubdtype(x.dtype, jnp.floating):
            batch[name] = jnp.asarray(rng.standard_normal(x.shape, np.float32))
        else:
            batch[name] = jnp.full(x.shape, x.dtype == bool, x.dtype)
    return batch


def forward(subject, variables, batch, costs) -> Callable[[], Any]:
    def apply(variables, batch):
        return subject.model.apply(variables, batch, train=False)

    compiled = costs.compile(apply, variables, batch)
    return lambda: jax.block_until_ready(compiled(variables, batch))


def mean_loss(prediction, batch) -> jax.Array:
    """Cross-entropy if there is a target, else the mean square of all predictions."""
    if "target" in batch:
        return jnp.mean(losses.softmax_cross_entropy(prediction, batch))
    return sum(jnp.mean(jnp.square(x)) for x in jax.tree.leaves(prediction))


def gradient(subject, variables, batch, costs) -> Callable[[], Any]:
    def loss(params, rest, batch):
        return mean_loss(subject.model.apply({"params": params, **rest}, batch, train=False), batch)

    params = variables["params"]
    rest = {name: x for name, x in variables.items() if name != "params"}
    compiled = costs.compile(jax.value_and_grad(loss), params, rest, batch)
    return lambda: jax.block_until_ready(compiled(params, rest, batch))


def train(subject, batch, costs) -> Callable[[], Any]:
    """The library's own step, with the experiment's optimizer."""
    task = Task(
        model=subject.model,
        example=batch,
        train_data=lambda start_step: iter(()),
        eval_data=lambda: iter(()),
        prepare=subject.prepare,
        loss=subject.loss,
        metrics={},
        flops_per_example=subject.textbook,
    )
    transform, schedule = optimizer.make_optimizer(subject.config)
    batch = batch | {"mask": jnp.ones(len(next(iter(batch.values()))), bool)}
    current = initialize(lambda batch: state.create(task, transform, 0), batch)
    function = step.make_train_step(task, transform, schedule, accumulate=1)
    compiled = costs.compile(function, current, batch, donate=0)

    def run():
        nonlocal current
        current, metrics = compiled(current, batch)
        jax.block_until_ready((current, metrics))

    return run


def chunk_indices(subject: Subject) -> list[dict[str, Any]]:
    """The pixels and the patches of sound that each chunk of a clip's outputs holds, by modality.

    Chunks are of equal length, so that one program is compiled: the last may repeat some.
    """
    outputs = subject.model.output
    assert isinstance(outputs, Outputs)
    counts = {
        "video": int(np.prod(outputs.modalities["video"].shape)),
        "audio": outputs.modalities["audio"].num_patches,
    }
    parts = []
    for chunk in range(subject.chunks):
        parts.append({"label": None})
        for name, count in counts.items():
            size = -(-count // subject.chunks)
            start = min(chunk * size, count - size)
            parts[-1][name] = np.arange(start, start + size)
    return parts


def autoencode(subject, variables, batch, costs, *, again: bool) -> Callable[[], Any]:
    """All outputs of a clip in chunks of pixels and of sound, the label in each as well.

    A run returns the predictions of every chunk. With `again` it encodes the clip for each chunk.
    """

    def encode(variables, batch):
        return subject.model.apply(variables, batch, train=False, method="encode")

    def decode(variables, tokens, latents, indices):
        return subject.model.apply(
            variables, tokens, latents, train=False, indices=indices, method="decode"
        )

    def everything(variables, batch, indices):
        return subject.model.apply(variables, batch, train=False, indices=indices)

    parts = chunk_indices(subject)
    if again:
        whole = costs.compile(everything, variables, batch, parts[0], calls=subject.chunks)

        return lambda: [jax.device_get(whole(variables, batch, part)) for part in parts]

    encoded = jax.eval_shape(encode, variables, batch)
    encoder = costs.compile(encode, variables, batch)
    decoder = costs.compile(decode, variables, *encoded, parts[0], calls=subject.chunks)

    def run():
        tokens, latents = encoder(variables, batch)
        return [jax.device_get(decoder(variables, tokens, latents, part)) for part in parts]

    return run


def matmul(job: Job) -> Program:
    """A square matrix product, which measures this machine's peak rate."""
    size = 256 if job.tiny else 4096
    x = jnp.ones((size, size), job.dtype)
    costs = Costs()
    compiled = costs.compile(jnp.matmul, x, x)
    device = jax.local_devices()[0].device_kind
    return Program(
        lambda: jax.block_until_ready(compiled(x, x)),
        {"executed_flops": costs.executed, "device": device},
    )
