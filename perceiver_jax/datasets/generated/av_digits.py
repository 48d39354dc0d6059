"""Written and spoken digits in pairs of one label: MNIST images with TFDS `spoken_digit` sounds.

Images are of the split, sounds of `speakers`: give training and evaluation different ones, each in
its own options, to hear in the test whom nobody trained on (3,000 recordings, 6 speakers: george,
jackson, lucas, nicolas, theo, yweweler; 50 of each digit).
"""

import dataclasses
import functools
import os

import numpy as np
from scipy import signal

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.generated.source import check_generated, configured, require_range
from perceiver_jax.datasets.tfds import Tfds
from perceiver_jax.files.paths import user_path
from perceiver_jax.files.sound import read_wav

SPLITS = ("train", "test")
RATE = 8000  # samples per second


@dataclasses.dataclass(frozen=True)
class Options:
    """What `AvDigits` can be asked for.

    Attributes:
      num_samples: of `audio`, `RATE` per second; 95 % of the recordings are shorter than 5,300.
      speakers: who is heard; () is everyone.
    """

    num_samples: int = 5120
    speakers: tuple[str, ...] = ()

    def __post_init__(self):
        require_range("num_samples", self.num_samples, 1, 100_000, whole=True)


class AvDigits:
    """Image `index` of MNIST with a random recording of its digit, always the same one.

    An example is `image` (encoded, [28, 28, 1]), `audio` float32 [num_samples] with its peak at 1,
    silence before and after a short recording, a part of a long one, and `label` int32.
    """

    in_memory = False

    def __init__(self, split: str, data_dir: str, seed: int, options: Options):
        name = split.partition("[")[0]
        if name not in SPLITS:
            raise ValueError(f"av_digits has the splits {list(SPLITS)} and parts, not {split!r}")
        self.name, self.seed, self.part = f"av_digits[{split}]", seed, SPLITS.index(name)
        self.num_samples = options.num_samples
        self.images = Tfds("mnist", split, data_dir)
        recordings = spoken_digits(data_dir)
        everyone = {speaker for _, speaker, _ in recordings}
        wanted = set(options.speakers) or everyone
        if unknown := sorted(wanted - everyone):
            raise ValueError(
                f"source_options.speakers: no recording of {unknown}, only of {sorted(everyone)}"
            )
        self.sounds = [
            [sound for label, speaker, sound in recordings if label == digit and speaker in wanted]
            for digit in range(10)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        example = self.images[index]
        rng = np.random.default_rng((self.seed, self.part, index))
        sounds = self.sounds[int(example["label"])]
        audio = _placed(rng, sounds[int(rng.integers(len(sounds)))], self.num_samples)
        return {"image": example["image"], "audio": audio, "label": example["label"]}

    def __repr__(self) -> str:
        return self.name


def spec(*, num_samples: int = Options.num_samples, **_) -> Example:
    """An example of zeros."""
    audio = np.zeros(num_samples, np.float32)
    return {"image": fake.encoded((28, 28, 1)), "audio": audio, "label": np.int32(0)}


check_options = functools.partial(check_generated, Options)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> AvDigits:
    """The source `av_digits`; `options` are those of `Options`, `data_dir` is TFDS's."""
    return AvDigits(split, data_dir, seed, configured(Options, options))


def spoken_digits(data_dir: str = "") -> list[tuple[int, str, np.ndarray]]:
    """All recordings of TFDS `spoken_digit` as (digit, speaker, int16 [n] at 8,000 per second).

    The files are read here because TFDS's own audio feature imports TensorFlow.

    Raises:
      FileNotFoundError: the dataset is not prepared; says how to.
    """
    import tensorflow_datasets as tfds  # slow to import
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

    folder = user_path(data_dir or tfds.core.constants.DATA_DIR) / "spoken_digit"
    paths = sorted(map(str, folder.glob("*/spoken_digit-train.array_record*")))
    if not paths:
        raise FileNotFoundError(
            f"spoken_digit is not prepared: no array_record file of it below {folder}. Prepare it "
            "once:\n  pip install -e '.[prepare]'\n  tfds build spoken_digit "
            "--file_format=array_record" + (f" --data_dir={data_dir}" if data_dir else "")
        )
    recordings = []
    records = ArrayRecordDataSource(paths)
    for record in records.__getitems__(range(len(records))):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        # Named digit_speaker_take.wav.
        _, speaker, _ = feature["audio/filename"].bytes_list.value[0].decode().split("_")
        sound = np.array(feature["audio"].int64_list.value)
        sound = np.clip(sound, -(2**15), 2**15 - 1).astype(np.int16)
        recordings.append((int(feature["label"].int64_list.value[0]), speaker, sound))
    return recordings


def read_sound(path: str | os.PathLike, num_samples: int) -> np.ndarray:
    """A WAV file as the sound of an example: its middle, or in the middle of silence, its peak 1.

    Raises:
      ValueError: it cannot be read.
    """
    sound, rate = read_wav(path)
    if rate != RATE:
        sound = signal.resample_poly(sound, RATE, rate).astype(np.float32)
    sound = sound / np.float32(np.abs(sound).max() or 1)
    room = num_samples - len(sound)
    if room < 0:
        return sound[-room // 2 :][:num_samples]
    return np.pad(sound, (room // 2, room - room // 2))


def _placed(rng: np.random.Generator, sound: np.ndarray, num_samples: int) -> np.ndarray:
    """Anywhere in silence, or a part from anywhere: float32 [num_samples], its peak at 1."""
    sound = sound / np.float32(max(np.abs(sound.astype(np.int32)).max(), 1))
    room = num_samples - len(sound)
    start = int(rng.integers(abs(room) + 1))
    if room < 0:
        return sound[start : start + num_samples]
    return np.pad(sound, (start, room - start))
