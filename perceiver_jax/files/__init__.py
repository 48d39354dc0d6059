"""Files to arrays and back: images, fields (a value for each pixel), video and sound."""

from perceiver_jax.files.fields import read_flo, write_flo
from perceiver_jax.files.image import read_image, write_image
from perceiver_jax.files.media import read_clip, read_video, read_wav, write_mp4, write_wav

__all__ = [
    "read_clip",
    "read_flo",
    "read_image",
    "read_video",
    "read_wav",
    "write_flo",
    "write_image",
    "write_mp4",
    "write_wav",
]
