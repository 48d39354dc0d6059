"""The `data` section of local video files with sound, which Kinetics and AudioSet share."""

from ml_collections import ConfigDict

from configs import common

FRAMES_PER_SECOND, SAMPLES_PER_SECOND = 25, 48_000


def data(num_frames: int, size: int, fields: str) -> ConfigDict:
    """Returns the section.

    Args:
      num_frames: of a clip.
      size: height and width of its frames in pixels.
      fields: what the tasks need beside video and audio, as in `keep`.
    """
    keep = f"resize({size}) | keep('video', 'audio', {fields})"
    section = common.reading(
        "clips",
        train=f"inception_crop({size}) | flip | {keep}",
        evaluate=f"central_crop({size}, border=0) | {keep}",
        eval_split="validate",
    )
    section.eval_batch_size = 8
    section.source_options = {
        "num_frames": num_frames,
        "frames_per_second": FRAMES_PER_SECOND,
        "samples_per_second": SAMPLES_PER_SECOND,
        "short_side": size,  # so that evaluation resizes once, while it reads
        "clips_per_row": 1,
        "row_seconds": 10.0,
    }
    section.train_source_options = {
        "short_side": size * 8 // 7,
        "clips_per_row": 16,
        "replace": True,  # an unreadable file by a readable one
    }
    return section
