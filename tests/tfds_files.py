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
        values = feature.bytes_list if isinstance(value, bytes) else feature.int64_list
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


def write_texts(directory, splits):
    """The C4 of splits = {name: [text]}, which TFDS opens from its files alone."""
    folder = directory / "c4" / "en" / "3.1.0"
    folder.mkdir(parents=True)
    infos = []
    for split, texts in splits.items():
        path = folder / f"c4-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for text in texts:
            example = tf_example_pb2.Example()
            example.features.feature["text"].bytes_list.value.append(text.encode())
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(texts))]
        infos.append({"name": split, "shardLengths": lengths, "filepathTemplate": template})
    info = {"name": "c4", "version": "3.1.0", "configName": "en", "fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"splits": infos}))
    package = "tensorflow_datasets.core.features"
    text = {"pythonClassName": f"{package}.text_feature.Text", "text": {}}
    features = {"pythonClassName": f"{package}.features_dict.FeaturesDict"}
    features["featuresDict"] = {"features": {"text": text}}
    (folder / "features.json").write_text(json.dumps(features))
