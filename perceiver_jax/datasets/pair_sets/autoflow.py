"""AutoFlow (Sun et al. 2021, arXiv 2104.14544): 40,000 public pairs, with the flow forward only."""

from collections.abc import Iterator

from perceiver_jax.datasets.pair_sets.layout import Path, Set, read_flo
from perceiver_jax.datasets.pairs import Pair


def _autoflow(root: Path, split: str) -> Iterator[Pair]:
    del split
    for flow in sorted(root.glob("static_40k_png_*_of_4/*/forward.flo")):
        frames = [flow.with_name(name) for name in ("im0.png", "im1.png")]
        yield Pair(*frames, read_flo, (flow,))


SETS = {
    "autoflow": Set(
        _autoflow,
        ("train",),
        "static_40k_png_1_of_4/<pair>/{im0.png,im1.png,forward.flo} (and 2_of_4 to 4_of_4)",
        "autoflow-google.github.io",
        channels=2,
    )
}
