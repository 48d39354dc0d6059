"""Converts an official list of Kinetics or AudioSet into the list that `clips` reads.

    python -m experiments.convert_lists --list=kinetics700_2020/train.csv --split=train \\
        --data_dir=/data/kinetics
    python -m experiments.convert_lists --list=balanced_train_segments.csv --split=train \\
        --indices=class_labels_indices.csv --data_dir=/data/audioset --named_by_id=whole

It looks for the video files anywhere below `--data_dir`. Into that folder it writes SPLIT.csv and,
where there is none yet, classes.txt. A listed clip without a file is left out, and the command says
how many are. A file named by id and times, such as `dQw4w9WgXcQ_000010_000020.mp4`, holds the
listed segment alone. `--named_by_id` says what a file named by the id alone holds.

Classes are numbered as in classes.txt, if that is there: a class that it lacks is an error. Else
AudioSet's are numbered by `--indices`, and those of Kinetics by the alphabet. A list with another
number of classes than Kinetics has (400, 600, 700) is refused, because its numbers would not be
those of the full set: write classes.txt yourself, or set `--subset` for classes of your own.

Lists: Kinetics has the columns label, youtube_id, time_start, time_end, split. AudioSet's have
comments (`#`) and YTID, start_seconds, end_seconds, positive_labels.
"""

import contextlib
import csv
import io
import os

from absl import flags

from experiments import command
from perceiver_jax.datasets import clip_lists, official_lists
from perceiver_jax.files.paths import user_path

SETS = (400, 600, 700)  # classes of Kinetics


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("list", None, "The official CSV file.", **where)
    flags.DEFINE_string("split", None, "Name of the list to write: SPLIT.csv.", **where)
    flags.DEFINE_string("data_dir", None, "Folder of the video files and lists.", **where)
    text = "AudioSet's class_labels_indices.csv; without it the list is of Kinetics."
    flags.DEFINE_string("indices", "", text, **where)
    text = "What a file named by the id alone holds."
    flags.DEFINE_enum("named_by_id", "", ["", "whole", "segment"], text, **where)
    flags.DEFINE_bool("subset", False, "Number the classes of this list alone.", **where)
    flags.DEFINE_bool("overwrite", False, "Replace a SPLIT.csv that is there.", **where)
    flags.mark_flags_as_required(["list", "split", "data_dir"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    folder, listed = user_path(chosen.data_dir), user_path(chosen.list)
    if not folder.is_dir():
        raise FileNotFoundError(f"--data_dir={chosen.data_dir} is no folder")
    output = folder / f"{chosen.split}.csv"
    if output.exists() and (output.samefile(listed) or not chosen.overwrite):
        raise ValueError(f"{output} is there: choose another --split, or --overwrite if it is old")
    if chosen.indices:
        names = official_lists.read_indices(user_path(chosen.indices))
        segments = official_lists.read_audioset(listed, names)
        complete = list(names.values())
    else:
        segments = official_lists.read_kinetics(listed)
        complete = []
    if not segments:
        raise ValueError(f"{listed} lists no clip")
    classes = number_classes(folder, listed, segments, complete, subset=chosen.subset)
    found = official_lists.find_files(folder, segments, named_by_id=chosen.named_by_id)
    missing = [s.video for s, file in zip(segments, found, strict=True) if not file]
    if len(missing) == len(segments):
        raise FileNotFoundError(
            f"none of the {len(segments):,} clips of {listed} is below {folder}, for example "
            f"{missing[0]}"
        )
    files = {output: as_list(segments, found, "labels" if chosen.indices else "label")}
    if not (folder / "classes.txt").exists():
        files = {folder / "classes.txt": "".join(f"{name}\n" for name in classes)} | files
    write_all(files)
    print(f"{len(missing):,} of {len(segments):,} listed clips are missing", end="")
    print(f", for example {', '.join(missing[:3])}" if missing else "")
    for path in files:
        print(f"wrote {path}")


def number_classes(folder, listed, segments, complete, *, subset: bool) -> list[str]:
    """The classes' names by number.

    Raises:
      ValueError: the numbers would not be those of the full set, or of the classes.txt there.
    """
    file = folder / "classes.txt"
    used = {name for segment in segments for name in segment.labels}
    if file.exists():
        classes, _ = clip_lists.read_classes(folder, ())
        for segment in segments:
            if unknown := set(segment.labels) - set(classes):
                raise ValueError(
                    f"{listed}, line {segment.line}: {min(unknown)!r} is no class of {file}, which "
                    "numbers the classes: correct or remove it"
                )
        if complete and classes != complete:
            raise ValueError(f"{file} numbers the classes otherwise than --indices: remove one")
        return classes
    if not complete and not subset and len(used) not in SETS:
        raise ValueError(
            f"{listed} names {len(used)} classes, Kinetics has {SETS}: their numbers would not be "
            f"those of the full set. Write all names into {file}, one a line, or set --subset to "
            "number these alone"
        )
    return complete or sorted(used)


def as_list(segments, found, field: str) -> str:
    """The text of a list of those clips that have files."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "start", field])
    for segment, file in zip(segments, found, strict=True):
        if file:
            table.writerow([file.path, f"{file.start:g}", ";".join(segment.labels)])
    return text.getvalue()


def write_all(files) -> None:
    """Writes all files or none: first beside their places, then into them."""
    temporary = {path.with_name(f".{path.name}.{os.getpid()}.tmp"): path for path in files}
    try:
        for place, path in temporary.items():
            place.write_text(files[path], encoding="utf-8")
        for place, path in temporary.items():
            place.replace(path)
    finally:
        for place in temporary:
            with contextlib.suppress(OSError):
                place.unlink()


if __name__ == "__main__":
    command.run(main, define_flags)
