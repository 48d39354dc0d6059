"""Writes a prepared TFDS dataset byte for byte, without TensorFlow."""

import io
import json

import numpy as np
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2


def write_tfds(directory, name, version, splits, **options):
    """Images with labels: splits = {name: [(image, image format, label)]}."""
    records = {
        split: [
            {"image": encoded(image, kind), "label": label, "file_name": f"{split}_{i}".encode()}
            for i, (image, kind, label) in enumerate(examples)
        ]
        for split, examples in splits.items()
    }
    return write_records(directory, name, version, records, **options)


def write_records(directory, name, version, splits, *, shards=1, file_format="array_record"):
    """Writes the files of `tfds build`: splits = {name: [{feature: bytes, int or ints}]}."""
    name, _, config = name.partition("/")
    folder = directory / name / config / version
    folder.mkdir(parents=True)
    infos = []
    for split, examples in splits.items():
        parts = np.array_split(np.arange(len(examples)), shards)
        for shard, numbers in enumerate(parts):
            path = folder / f"{name}-{split}.{file_format}-{shard:05}-of-{shards:05}"
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for number in numbers:
                writer.write(serialized(examples[number]))
            writer.close()
        infos.append(
            {
                "name": split,
                "shardLengths": [str(len(numbers)) for numbers in parts],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": infos}
    if config:
        info["configName"] = config
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def encoded(image, kind):
    """An image file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def serialized(features):
    """A tf.train.Example."""
    example = tf_example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        kinds = {bytes: feature.bytes_list, float: feature.float_list}
        values = kinds.get(type(value), feature.int64_list)
        values.value.extend(value if isinstance(value, list) else [value])
    return example.SerializeToString()


def write_smallnorb(directory, count=12):
    """Toys seen by two cameras; returns the examples of both splits."""
    rng = np.random.default_rng(0)
    splits = {
        split: [
            {
                "image": encoded(rng.integers(0, 256, (96, 96), np.uint8), "PNG"),
                "image2": encoded(rng.integers(0, 256, (96, 96), np.uint8), "PNG"),
                "label_category": i % 5,
                "instance": i % 10,
                "label_elevation": i % 9,
                "label_azimuth": i % 18,
                "label_lighting": i % 6,
            }
            for i in range(count)
        ]
        for split in ("train", "test")
    }
    write_records(directory, "smallnorb", "2.0.0", splits)
    return splits


def write_cityscapes(directory, size=(20, 30), count=3):
    """Pairs with 16-bit maps, smaller than the real 1024 x 2048; returns the splits' arrays."""
    rng, written, splits = np.random.default_rng(0), {}, {}
    for split in ("train", "validation"):
        written[split] = [
            {
                "image_left": rng.integers(0, 256, (*size, 3), np.uint8),
                "image_right": rng.integers(0, 256, (*size, 3), np.uint8),
                "disparity_map": rng.integers(0, 1000, size).astype(np.uint16) * (i + 1),
            }
            for i in range(count)
        ]
        splits[split] = [
            {name: encoded(image, "PNG") for name, image in example.items()}
            | {"image_id": f"{split}_{i}".encode()}
            for i, example in enumerate(written[split])
        ]
    write_records(directory, "cityscapes/stereo_disparity", "1.0.0", splits)
    return written


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def write_spoken_digits(directory, speakers=SPEAKERS, takes=2):
    """Every recording has a constant level of its own: 100 digit + 10 speaker + take, in samples
    of which the first is the peak, -1000."""
    folder = directory / "spoken_digit" / "1.0.9"
    folder.mkdir(parents=True)
    path = folder / "spoken_digit-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for digit in range(10):
        for speaker in speakers:
            for take in range(takes):
                level = 100 * digit + 10 * speakers.index(speaker) + take
                example = tf_example_pb2.Example()
                feature = example.features.feature
                feature["audio"].int64_list.value.extend([-1000] + [level] * (20 + take))
                feature["label"].int64_list.value.append(digit)
                name = f"{digit}_{speaker}_{take}.wav"
                feature["audio/filename"].bytes_list.value.append(name.encode())
                writer.write(example.SerializeToString())
    writer.close()
    (folder / "dataset_info.json").write_text(json.dumps({"name": "spoken_digit"}))


def write_texts(directory, splits, name="c4/en", version="3.1.0", field="text"):
    """The C4 of splits = {name: [text]}, which TFDS opens from its files alone; or another set."""
    records = {split: [{field: text.encode()} for text in texts] for split, texts in splits.items()}
    folder = write_records(directory, name, version, records)
    write_features(folder, {field: TEXT})


FEATURES = "tensorflow_datasets.core.features"
TEXT = {"pythonClassName": f"{FEATURES}.text_feature.Text", "text": {}}


def number(dtype):
    """The description of one number."""
    return {
        "pythonClassName": f"{FEATURES}.scalar.Scalar",
        "tensor": {"shape": {}, "dtype": dtype, "encoding": "none"},
    }


def write_features(folder, features, classes=()):
    """The description of fields by which TFDS opens files without the code that made them."""
    features = dict(features)
    if classes:
        kind = {"numClasses": str(len(classes))}
        python = f"{FEATURES}.class_label_feature.ClassLabel"
        features["label"] = {"pythonClassName": python, "classLabel": kind}
        (folder / "label.labels.txt").write_text("".join(f"{name}\n" for name in classes))
    python = f"{FEATURES}.features_dict.FeaturesDict"
    whole = {"pythonClassName": python, "featuresDict": {"features": features}}
    (folder / "features.json").write_text(json.dumps(whole))


def write_glue(directory, questions, splits=None, count=12):
    """TFDS `glue`: questions = {name: (classes, fields)}, as `configs.glue.QUESTIONS` begins.

    An example's texts say its split, number and field; its label is the number modulo the classes,
    a quarter of it without classes, and -1 in the test.
    """
    default = ("train", "validation", "test")
    parts = ("validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    for name, (classes, fields, *_) in questions.items():
        found = splits or (("train", *parts) if name == "mnli" else default)

        def example(split, i, classes=classes, fields=fields):
            texts = {field: f"{split} {i} {field}".encode() for field in fields}
            label = i % len(classes) if classes else i % 21 / 4
            label = -1 if split.startswith("test") else label
            return {**texts, "label": label if classes else float(label), "idx": i}

        records = {split: [example(split, i) for i in range(count)] for split in found}
        folder = write_records(directory, f"glue/{name}", "2.0.0", records)
        described = {**dict.fromkeys(fields, TEXT), "idx": number("int32")}
        described |= {} if classes else {"label": number("float32")}
        write_features(folder, described, classes)
