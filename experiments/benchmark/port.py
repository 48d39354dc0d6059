"""The contender `torch`: the port of the released models in `transformers`, with random weights.

It has our sizes, shapes and loss, and the approximate GELU. `torch_compile` runs it through
`torch.compile`. bfloat16 uses `torch.autocast`: parameters stay float32, as ours do.
"""

import time
from collections.abc import Callable

from experiments.benchmark.cases import Subject
from experiments.benchmark.contenders import (
    chunk_indices,
    dense_bytes,
    make_subject,
    require_memory,
    sizes_of,
)
from experiments.benchmark.worker import Job, Program
from perceiver_jax.machine import cores
from perceiver_jax.pretrained import huggingface


def libraries():
    """Returns (torch, transformers).

    Raises:
      ImportError: one is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{error}: the contender `torch` needs both: pip install torch transformers"
        ) from error
    return torch, transformers


def port(job: Job) -> Program:
    """PyTorch without a compiler."""
    return build(job, compiled=False)


def compiled_port(job: Job) -> Program:
    """PyTorch with `torch.compile`."""
    return build(job, compiled=True)


def build(job: Job, *, compiled: bool) -> Program:
    """The port at the case's sizes."""
    torch, transformers = libraries()
    subject = make_subject(job)
    require_memory(dense_bytes(subject, job), "the port")
    cuda = torch.cuda.is_available()
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    sizes = transformers.PerceiverConfig.from_dict(huggingface.config(subject.released))
    model = getattr(transformers, huggingface.ARCHITECTURES[subject.released.name])(sizes)
    model = model.eval().to("cuda" if cuda else "cpu")
    answer = forward(torch, model, subject)
    begin = time.perf_counter()
    if compiled:
        answer = torch.compile(answer)
    run = phase(torch, model, answer, job)
    if compiled:
        run()
    return Program(
        run,
        sizes_of(subject, job)
        | {
            "compile_seconds": time.perf_counter() - begin if compiled else 0.0,
            "software": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "device": torch.cuda.get_device_name() if cuda else "cpu",
        },
        lambda: torch.cuda.max_memory_allocated() if cuda else None,
    )


def forward(torch, model, subject: Subject) -> Callable:
    """A function without arguments that returns the port's predictions of a batch of noise."""
    shapes = {name: x.shape for name, x in subject.batch.items() if name != "target"}

    def noise(name):
        return torch.randn(shapes[name], device=model.device)

    if "image" in shapes:
        image = noise("image").permute(0, 3, 1, 2).contiguous()
        return lambda: model(image).logits
    if "text" in shapes:
        text = torch.zeros(shapes["text"], dtype=torch.long, device=model.device)
        mask = torch.ones_like(text)
        return lambda: model(text, attention_mask=mask).logits
    if "video" in shapes:
        clip = {
            "image": noise("video").permute(0, 1, 4, 2, 3).contiguous(),
            "audio": noise("audio")[..., None],
            "label": torch.zeros(shapes["label"][0], model.config.num_labels, device=model.device),
        }
        port_names = {"video": "image", "audio": "audio"}
        chunks = [
            {new: torch.from_numpy(part[name]).to(model.device) for name, new in port_names.items()}
            for part in chunk_indices(subject)
        ]
        return lambda: [answer_chunk(model, clip, chunk) for chunk in chunks]

    frames = noise("frames")

    def flow():  # the port wants the 3 x 3 patches of each frame
        batch, count, height, width, channels = frames.shape
        pixels = frames.permute(0, 1, 4, 2, 3).reshape(-1, channels, height, width)
        patches = torch.nn.functional.unfold(pixels, 3, padding=1)
        return model(patches.reshape(batch, count, -1, height, width)).logits

    return flow


def answer_chunk(model, clip: dict, chunk: dict) -> dict:
    """Decodes a chunk of a clip's outputs; the port encodes the clip again for each chunk."""
    answers = model(clip, subsampled_output_points=chunk | {"label": None}).logits
    return {name: x.float().cpu() for name, x in answers.items()}


def phase(torch, model, answer: Callable, job: Job) -> Callable[[], None]:
    """A function that does the job's work and waits for it."""
    cuda = model.device.type == "cuda"

    def wait():
        if cuda:
            torch.cuda.synchronize()

    def cast():
        low = job.dtype == "bfloat16"
        return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=low)

    def run_forward():
        with torch.inference_mode(), cast():
            answer()
        wait()

    def run_gradient():
        with cast():
            logits = answer()
        if logits.ndim == 2:
            target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
            loss = torch.nn.functional.cross_entropy(logits.float(), target)
        else:
            loss = logits.float().square().mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        wait()

    return run_gradient if job.phase == "gradient" else run_forward


def matmul(job: Job) -> Program:
    """As `contenders.matmul`, in PyTorch."""
    torch, _ = libraries()
    torch.set_num_threads(cores())
    size = 256 if job.tiny else 4096
    x = torch.ones((size, size), dtype=getattr(torch, job.dtype))

    def run():
        x @ x

    return Program(run, {"executed_flops": 2.0 * size**3, "device": "cpu"})
