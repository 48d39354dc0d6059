"""Measures the speed of the ImageNet input pipeline beside `tf.data`, or of reading clips.

    python -m experiments.benchmark.data --examples=4000 --output=bench_data.csv
    python -m experiments.benchmark.data --clips=100 --output=clips.csv

Both pipelines read the same 400 x 500 JPEGs of quality 90 from disk in random order: ours from a
TFDS folder of ArrayRecords, tf.data from TFRecords. The images are random textures with the 1/f
spectrum of natural images, about 120 kB each. Both pipelines take an Inception crop, flip it,
resize it bicubically to uint8 224 x 224, and batch. Each row runs in its own process, after a
warm-up. One more row adds RandAugment to ours. Without TensorFlow its row is left out.

With --clips, the command reads one epoch of `configs/kinetics.py` from that many mp4 files with
sound (3 s of 256 x 340 pixels, four clips each) and one damaged file. `lost` counts clips of intact
files that the epoch did not deliver; `stand_ins` counts clips that replaced those of the damaged
file.
"""

# One file, so that both pipelines read the same generated files.

import concurrent.futures
import contextlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import cv2
import numpy as np
from absl import flags

from configs import kinetics
from experiments import command
from perceiver_jax import files
from perceiver_jax.data import parse, train_batches
from perceiver_jax.datasets import load
from perceiver_jax.datasets.generated import bounce
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import cores

PLAIN = "decode | inception_crop(224) | flip | resize(224) | keep('image', 'label')"
AUGMENTED = PLAIN.replace("flip |", "flip | randaugment(4, 5) |")
SHARDS = 8


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_integer("examples", 4000, "Images to time in each row.", 1, **where)
    flags.DEFINE_integer("images", 1000, "Distinct images to write.", SHARDS, **where)
    flags.DEFINE_integer("batch_size", 64, "Images in a batch.", 1, **where)
    flags.DEFINE_integer("repeats", 3, "Times each row is run; the best counts.", 1, **where)
    text = "Video files to read an epoch of, and nothing else."
    flags.DEFINE_integer("clips", 0, text, 0, **where)
    flags.DEFINE_string("output", "", "CSV file to write, if any.", **where)


def texture(rng: np.random.Generator, height: int = 400, width: int = 500) -> np.ndarray:
    """A random uint8 image [H, W, 3] whose amplitudes fall as 1 / frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = 1 / np.maximum(frequency, 1 / width)
    shape = (3, *amplitude.shape)
    planes = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(shape)), s=(height, width))
    mixed = np.einsum("chw,cd->hwd", planes, [[0.3, 0, 0], [1, 1, 1], [0, 0, 0.3]])
    return np.clip(mixed / mixed.std() * 50 + 120, 0, 255).astype(np.uint8)


def write_images(directory: str, count: int) -> float:
    """Writes `count` examples as `tfds build` does; returns the mean JPEG's bytes."""
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    folder = pathlib.Path(directory, "imagenet2012", "5.1.0")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lengths, sizes = [], []
    for shard in range(SHARDS):
        suffix = f"{shard:05}-of-{SHARDS:05}"
        path = str(folder / f"imagenet2012-train.array_record-{suffix}")
        writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
        numbers = range(shard, count, SHARDS)
        for number in numbers:
            jpeg = cv2.imencode(".jpg", texture(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            example = tf_example_pb2.Example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(jpeg.tobytes())
            feature["label"].int64_list.value.append(number % 1000)
            feature["file_name"].bytes_list.value.append(b"%d.JPEG" % number)
            writer.write(example.SerializeToString())
            sizes.append(len(jpeg))
        writer.close()
        lengths.append(str(len(numbers)))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "shardLengths": lengths, "filepathTemplate": template}
    info = {"name": "imagenet2012", "version": "5.1.0", "fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(json.dumps({**info, "splits": [split]}))
    return float(np.mean(sizes))


def ours(directory: str, readers: str, line: str, batch_size: int) -> Iterator[int]:
    """Yields the number of images in each batch."""
    source = load("imagenet2012", "train", data_dir=directory)
    batches = train_batches(source, parse(line), batch_size=batch_size, seed=0, readers=readers)
    with contextlib.closing(batches):
        for batch in batches:
            yield len(batch["image"])


def tf_data(directory: str, readers: str, line: str, batch_size: int) -> Iterator[int]:
    """The same with `tf.data`, all its own choices left automatic."""
    del readers, line
    import tensorflow as tf

    files = write_tfrecords(directory)

    def prepare(record):
        features = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        example = tf.io.parse_single_example(record, features)
        start, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(example["image"]),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([start[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(example["image"], window, channels=3)
        image = tf.image.random_flip_left_right(image)
        image = tf.image.resize(image, (224, 224), "bicubic")
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return {"image": image, "label": tf.cast(example["label"], tf.int32)}

    records = tf.data.Dataset.from_tensor_slices(files).repeat()
    records = records.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
    examples = records.shuffle(1000).map(
        prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
    )
    batches = examples.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    for batch in batches.as_numpy_iterator():
        yield len(batch["image"])


def write_tfrecords(directory: str) -> list[str]:
    """Copies the ArrayRecords' examples into TFRecords, once."""
    import tensorflow as tf
    from array_record.python import array_record_data_source

    paths = []
    for path in sorted(map(str, pathlib.Path(directory).rglob("*.array_record-*"))):
        paths.append(path.replace("array_record", "tfrecord"))
        if not os.path.exists(paths[-1]):
            with tf.io.TFRecordWriter(paths[-1]) as writer:
                for record in array_record_data_source.ArrayRecordDataSource(path):
                    writer.write(record)
    return paths


def measure(pipeline, arguments, count: int) -> tuple[float, float]:
    """Images per second of `pipeline(*arguments)` and CPU microseconds per image; steady state.

    Args:
      count: how many images are timed at least.
    """
    counts = pipeline(*arguments)
    with contextlib.closing(counts):
        for _ in itertools.islice(counts, 20):
            pass
        start, cpu_start, images = time.perf_counter(), cpu_seconds(), 0
        while images < count:
            images += next(counts)
        elapsed, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    return images / elapsed, cpu / images * 1e6


def write_clips(directory: str, count: int) -> None:
    """Writes `count` files of bouncing shapes and a damaged one, as `Clips` wants them."""
    shapes = bounce.Bounce(75, (256, 340), 25, 1920, speed=(0.1, 0.6))
    lines = ["path,start,label"]
    for i in range(count + 1):
        clip = shapes(np.random.default_rng(i))
        path = pathlib.Path(directory, f"{i}.mp4")
        files.write_mp4(path, clip["video"], clip["audio"], frames_per_second=25)
        lines.append(f"{path.name},0,{i}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    pathlib.Path(directory, "train.csv").write_text("\n".join(lines))


def epoch(directory: str, readers: str) -> dict[str, int | float]:
    """Reads every clip of the folder once, and says how fast and what became of them."""
    data = kinetics.get_config().data
    per_file, batch_size = 4, 4
    options = data.source_options.to_dict() | data.train_source_options.to_dict()
    source = load(
        "clips", "train", data_dir=directory, options=options | {"clips_per_row": per_file}
    )
    start, cpu_start = time.perf_counter(), cpu_seconds()
    batches = train_batches(
        source, parse(data.train), batch_size=batch_size, seed=0, readers=readers
    )
    with contextlib.closing(batches):
        read = [next(batches)["label"] for _ in range(len(source) // batch_size)]
        elapsed, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    *good, damaged = np.bincount(np.concatenate(read), minlength=len(source.paths))
    return {
        "readers": readers,
        "cores": cores(),
        "files": len(source.paths),
        "clips": len(source),
        "lost": int(np.maximum(per_file - np.array(good), 0).sum()),
        "of_the_damaged": int(damaged),
        "stand_ins": int(np.maximum(np.array(good) - per_file, 0).sum()),
        "clips_per_second": round(len(source) / elapsed, 2),
        "cpu_ms_per_clip": round(1000 * cpu / len(source)),
    }


def bench_clips(count: int, output: pathlib.Path | None) -> None:
    """The mode --clips."""
    number = cores()
    with tempfile.TemporaryDirectory() as directory:
        print(f"writing {count + 1} files ...", flush=True)
        write_clips(directory, count)
        kinds = (f"threads:{number}", f"workers:{number}")
        rows = [in_fresh_process(epoch, directory, readers) for readers in kinds]
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ")
    if output:
        command.write_table(output, rows)


def cpu_seconds() -> float:
    """Spent so far by this process and by its running children."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def in_fresh_process(function, *arguments):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@command.one_line_errors
def main(argv: list[str]) -> None:
    """The command."""
    del argv
    chosen = flags.FLAGS
    output = user_path(chosen.output) if chosen.output else None
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    if chosen.clips:
        bench_clips(chosen.clips, output)
        return
    number = cores()
    threads, workers = f"threads:{number}", f"workers:{number}"
    rows = [
        ("perceiver_jax", ours, (threads, PLAIN)),
        ("perceiver_jax", ours, (workers, PLAIN)),
        ("perceiver_jax + RandAugment(4, 5)", ours, (threads, AUGMENTED)),
        ("perceiver_jax + RandAugment(4, 5)", ours, (workers, AUGMENTED)),
    ]
    if importlib.util.find_spec("tensorflow"):
        rows.insert(0, ("tf.data", tf_data, ("autotune", PLAIN)))
    else:
        print("no tf.data row: TensorFlow is missing (pip install -e '.[prepare]')")
    with tempfile.TemporaryDirectory() as directory:
        print(f"writing {chosen.images} JPEGs ...", flush=True)
        size = in_fresh_process(write_images, directory, chosen.images)
        print(f"{size / 1e3:.0f} kB each, {number} cores, batches of {chosen.batch_size}")
        # Round by round, so that a disturbance of the machine does not fall on one row alone.
        runs = {row: [] for row in rows}
        for _ in range(chosen.repeats):
            for row in rows:
                _, pipeline, (readers, line) = row
                given = (directory, readers, line, chosen.batch_size)
                arguments = (pipeline, given, chosen.examples)
                runs[row].append(in_fresh_process(measure, *arguments))
    print(f"{'pipeline':<36}{'readers':<12}{'images/s':>9}{'CPU us/image':>14}   all images/s")
    results = []
    for (name, _, (readers, _)), measured in runs.items():
        rate, cpu = max(rate for rate, _ in measured), min(cpu for _, cpu in measured)
        each = " ".join(f"{rate:.0f}" for rate, _ in measured)
        print(f"{name:<36}{readers:<12}{rate:>9.0f}{cpu:>14.0f}   {each}")
        head = "pipeline readers cores jpeg_bytes images_per_second cpu_us_per_image all_runs"
        row = (name, readers, number, round(size), round(rate), round(cpu), each)
        results.append(dict(zip(head.split(), row, strict=True)))
    if output:
        command.write_table(output, results)


if __name__ == "__main__":
    command.run(main, define_flags)
