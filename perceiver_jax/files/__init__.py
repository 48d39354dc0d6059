"""Files to arrays and back: images, fields (a value for each pixel), video and sound."""

from perceiver_jax.files.fields import read_flo, write_flo
from perceiver_jax.files.image import read_image, write_image
from perceiver_jax.files.media import read_video, read_wav, write_gif, write_wav

__all__ = [
    "read_flo",
    "read_image",
    "read_video",
    "read_wav",
    "write_flo",
    "write_gif",
    "write_image",
    "write_wav",
]
