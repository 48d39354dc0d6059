"""A batch is a function of (seed, step), whoever reads it and however many share it."""

import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from perceiver_jax.data import describe, eval_batches, parse, pipeline, train_batches
from perceiver_jax.datasets import Arrays

LINE = parse("pad_crop(2) | flip | keep('image', 'label')")
PLAIN = parse("keep('label')")


@pytest.fixture
def source():
    """50 different images; labels 0..49 name them."""
    image = np.random.default_rng(0).integers(1, 256, (50, 6, 5, 3), dtype=np.uint8)
    return Arrays({"image": image, "label": np.arange(50, dtype=np.int32)}, name="made[up]")


def take(batches, count):
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def train(source, count, line=LINE, **kwargs):
    kwargs = {"batch_size": 8, "seed": 3, "readers": "threads:1"} | kwargs
    return take(train_batches(source, line, **kwargs), count)


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys()
        for field in a:
            assert a[field].dtype == b[field].dtype
            np.testing.assert_array_equal(a[field], b[field])


# --- Training --------------------------------------------------------------------------------


def test_contents(source):
    (batch,) = train(source, 1)
    assert batch["image"].shape == (8, 6, 5, 3)
    assert batch["image"].dtype == np.uint8
    assert (batch["label"].shape, batch["label"].dtype) == ((8,), np.int32)
    np.testing.assert_array_equal(batch["mask"], np.ones(8, bool))


def test_every_epoch_is_another_permutation(source):
    labels = np.concatenate([b["label"] for b in train(source, 25, PLAIN)]).reshape(4, 50)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(50), (4, 1)))
    assert len({tuple(epoch) for epoch in labels}) == 4
    assert not (labels[0] == np.arange(50)).all()


def test_batches_flow_across_the_end_of_an_epoch(source):
    """50 examples are 6 1/4 batches of 8: the 7th spans two epochs."""
    batches = train(source, 7, PLAIN)
    labels = np.concatenate([b["label"] for b in batches])
    assert len(batches[6]["label"]) == 8
    assert set(labels[:50]) == set(range(50))
    assert len(set(labels[50:])) == 6


def test_transforms_differ_by_epoch(source):
    """With one image 50 times, a batch of 50 shows the transforms alone."""
    constant = Arrays({"image": source.arrays["image"][[7] * 50]})
    line = parse("pad_crop(2) | keep('image')")
    epochs = [batch["image"] for batch in train(constant, 4, line, batch_size=50)]
    same = [(a == b).all(axis=(1, 2, 3)).mean() for a, b in itertools.pairwise(epochs)]
    assert max(same) < 0.3  # by chance 1 in 25


def test_the_seed_sets_the_order_and_the_transforms(source):
    first, again, other = train(source, 7), train(source, 7), train(source, 7, seed=4)
    assert_same(first, again)
    order = [np.concatenate([b["label"] for b in x]) for x in (first, other)]
    assert not (order[0] == order[1]).all()
    constant = Arrays({"image": source.arrays["image"][[7] * 50]})
    line = parse("pad_crop(2) | keep('image')")
    (a,), (b,) = (train(constant, 1, line, seed=seed) for seed in (3, 4))
    assert not (a["image"] == b["image"]).all()


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_processes_share_the_same_global_batch(source, process_count):
    want = train(source, 9)
    parts = [
        train(source, 9, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    joined = [
        {field: np.concatenate([part[field] for part in step]) for field in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, want)


@pytest.mark.parametrize("start_step", [1, 5, 6, 7, 131])
@pytest.mark.parametrize("process_count", [1, 2])
def test_resuming_is_arithmetic(source, start_step, process_count):
    """Within an epoch (1), at, before and after its end (5, 6, 7) and many epochs later."""
    place = {"process_index": process_count - 1, "process_count": process_count}
    want = train(source, start_step + 3, **place)[start_step:]
    assert_same(train(source, 3, start_step=start_step, **place), want)


@pytest.mark.parametrize(("start_step", "process_count"), [(0, 1), (2, 1), (1, 2)])
def test_transforms_know_how_far_training_is(source, start_step, process_count):
    """By the position, which is that of the row in the global batch, wherever reading begins."""
    line = parse("grow(8, 24) | keep('severity')")
    parts = [
        train(source, 3, line, start_step=start_step, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    got = [np.concatenate([p["severity"] for p in batches]) for batches in zip(*parts, strict=True)]
    position = 8 * start_step + np.arange(24)
    np.testing.assert_allclose(np.concatenate(got), np.clip((position - 8) / 16, 0, 1))


@pytest.mark.parametrize("readers", ["threads:0", "threads:3"])
def test_threads_change_nothing(source, readers):
    assert_same(train(source, 9, readers=readers), train(source, 9))


def test_workers_change_nothing_and_leave_quietly(tmp_path):
    """In a script of its own: worker processes, no parsed flags, and nothing closed by hand."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import itertools
            import numpy as np
            from perceiver_jax.datasets import Arrays
            from perceiver_jax.data import eval_batches, parse, train_batches

            def main():
                image = np.arange(50 * 3000).reshape(50, 60, 50, 1).astype(np.uint8)
                source = Arrays({"image": image, "label": np.arange(50)})
                line = parse("pad_crop(2) | flip | keep('image', 'label')")
                kwargs = dict(batch_size=8, seed=3, start_step=4)
                iterators = [
                    train_batches(source, line, **kwargs, readers=readers)
                    for readers in ("threads:1", "workers:2")
                ]
                for a, b in itertools.islice(zip(*iterators), 7):
                    for field in ("image", "label", "mask"):
                        np.testing.assert_array_equal(a[field], b[field])
                a, b = (
                    list(eval_batches(source, line, batch_size=12, readers=readers))
                    for readers in ("threads:1", "workers:2")
                )
                assert len(a) == len(b) == 5
                for x, y in zip(a, b):
                    np.testing.assert_array_equal(x["image"], y["image"])
                print("same")
                return iterators

            if __name__ == "__main__":
                still_open = main()
        """)
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "same\n"
    assert "Traceback" not in run.stderr


def test_reading_happens_in_the_background_unless_told_otherwise(source):
    import threading

    seen = set()

    class Watched:
        def __len__(self):
            return 50

        def __getitem__(self, index):
            seen.add(threading.current_thread())
            return {"label": np.int32(index)}

    train(Watched(), 3, PLAIN, readers="threads:0")
    assert seen == {threading.current_thread()}
    seen.clear()
    train(Watched(), 30, PLAIN, readers="threads:2")
    assert threading.current_thread() not in seen
    assert len(seen) == 2


def test_many_records_are_asked_for_at_once():
    class Batched:
        def __len__(self):
            return 50

        def __getitem__(self, index):
            raise AssertionError("one at a time")

        def __getitems__(self, indices):
            return [{"label": np.int32(i)} for i in indices]

    assert train(Batched(), 1, PLAIN)[0]["label"].shape == (8,)


def test_close_ends_the_iterator(source):
    batches = train_batches(source, PLAIN, batch_size=8, seed=0, readers="threads:1")
    next(batches)
    assert batches.close.atexit  # a script that forgets it is closed before modules go
    batches.close()
    batches.close()
    assert list(batches) == []


def test_partners_are_other_examples_of_the_same_order(source):
    """Twice the examples a step, each once, whoever shares the batch and wherever it begins."""
    batches = train(source, 4, PLAIN, partners=True)
    assert {f: x.shape for f, x in batches[0].items()} == dict.fromkeys(
        ("label", "partner_label", "mask"), (8,)
    )
    order = np.concatenate([b["label"] for b in train(source, 8, PLAIN)])
    both = [np.stack([b["label"], b["partner_label"]], axis=1).reshape(-1) for b in batches]
    np.testing.assert_array_equal(np.concatenate(both), order)
    parts = [
        train(source, 4, PLAIN, partners=True, process_index=i, process_count=2) for i in (0, 1)
    ]
    joined = [
        {field: np.concatenate([part[field] for part in step]) for field in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, batches)
    assert_same(train(source, 2, PLAIN, partners=True, start_step=2), batches[2:])


# --- Evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [8, 16, 52, 64])
def test_evaluation_sees_every_example_once_in_order(source, batch_size, process_count):
    parts = [
        list(
            eval_batches(
                source,
                PLAIN,
                batch_size=batch_size,
                process_index=index,
                process_count=process_count,
            )
        )
        for index in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-50 // batch_size)}
    labels, mask = (
        np.concatenate([part[field] for step in zip(*parts, strict=True) for part in step])
        for field in ("label", "mask")
    )
    assert labels.shape == mask.shape == (-(-50 // batch_size) * batch_size,)
    assert mask.sum() == 50
    np.testing.assert_array_equal(labels[mask], np.arange(50))
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < 50)


@pytest.mark.parametrize(("batch_size", "process_count"), [(1, 2), (7, 4), (52, 8)])
def test_evaluation_batches_need_not_divide_over_processes(source, batch_size, process_count):
    """Each process has as many rows of the same shape; copies of a batch's last row are masked."""
    place = {"batch_size": batch_size, "process_count": process_count}
    parts = [
        list(eval_batches(source, LINE, **place, process_index=i)) for i in range(process_count)
    ]
    whole = list(eval_batches(source, LINE, batch_size=batch_size))
    rows = -(-batch_size // process_count)
    for step, expected in zip(zip(*parts, strict=True), whole, strict=True):
        assert {len(part["mask"]) for part in step} == {rows}
        joined = {field: np.concatenate([part[field] for part in step]) for field in expected}
        assert not joined["mask"][batch_size:].any()
        assert (joined["label"][batch_size:] == expected["label"][-1]).all()
        assert_same([{field: x[:batch_size] for field, x in joined.items()}], [expected])


def test_evaluation_repeats_its_random_transforms(source):
    first, again = (list(eval_batches(source, LINE, batch_size=20)) for _ in range(2))
    assert_same(first, again)


# --- Errors, description, choice of readers --------------------------------------------------


def test_errors(source):
    with pytest.raises(ValueError, match=r"batch_size 8 is global and .* 3"):
        train_batches(source, LINE, batch_size=8, seed=0, process_count=3)
    empty = Arrays({"label": np.zeros(0)}, name="mnist[train:0]")
    for batches in (
        lambda: train_batches(empty, PLAIN, batch_size=8, seed=0),
        lambda: eval_batches(empty, PLAIN, batch_size=8),
    ):
        with pytest.raises(ValueError, match=r"mnist\[train:0\] is empty"):
            batches()
    for readers in ("threads", "workers:0", "process:2"):
        with pytest.raises(ValueError, match=f"'threads:4' or 'workers:4', got '{readers}'"):
            train_batches(source, LINE, batch_size=8, seed=0, readers=readers)


def test_images_of_many_sizes_are_named(source):
    class Ragged:
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return {"image": np.zeros((index + 1, 4, 3), np.uint8)}

    with pytest.raises(ValueError, match="'image' differs in shape within a batch"):
        train(Ragged(), 1, parse("keep('image')"))


def test_an_error_in_a_transform_reaches_the_caller(source):
    with pytest.raises(ValueError, match="keep: no"):
        train(source, 1, parse("keep('nothing')"), readers="threads:2")


def test_describe(source):
    assert describe(source, LINE, batch_size=8, seed=3) == (
        "made[up] 50 examples | shuffle(seed 3) | pad_crop(2) | flip | keep('image', 'label')"
        " | batch(8)"
    )
    assert "shuffle" not in describe(source, LINE, batch_size=8)


def test_readers_by_default(source, monkeypatch):
    """One thread for arrays; a thread for each core that decodes; the batches stay the same."""
    monkeypatch.setattr(pipeline, "cores", lambda: 3)
    assert pipeline.automatic_readers(source) == "threads:1"
    want = train(source, 3)
    assert_same(train(source, 3, readers="auto"), want)
    source.in_memory = False
    assert pipeline.automatic_readers(source) == "threads:3"
    monkeypatch.setattr(pipeline, "cores", lambda: 224)  # a batch for each would fill the memory
    assert pipeline.automatic_readers(source) == "threads:64"
    monkeypatch.setattr(pipeline, "cores", lambda: 3)
    assert_same(train(source, 3, readers="auto"), want)
