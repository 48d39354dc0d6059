"""Files to arrays and back: images, fields (a value for each pixel), video, sound and meshes."""

from perceiver_jax.files.fields import (
    read_flo,
    read_kitti_disparity,
    read_kitti_flow,
    read_mask,
    read_pfm,
    read_scaled_disparity,
    read_sintel_disparity,
    write_flo,
    write_kitti_disparity,
    write_kitti_flow,
    write_pfm,
)
from perceiver_jax.files.image import decode_image, existing, natural_order, read_image, write_image
from perceiver_jax.files.mesh import Mesh, read_mesh, sample_surface
from perceiver_jax.files.sound import read_wav, write_wav
from perceiver_jax.files.video import read_clip, read_video, video_seconds, write_mp4

__all__ = [
    "Mesh",
    "decode_image",
    "existing",
    "natural_order",
    "read_clip",
    "read_flo",
    "read_image",
    "read_kitti_disparity",
    "read_kitti_flow",
    "read_mask",
    "read_mesh",
    "read_pfm",
    "read_scaled_disparity",
    "read_sintel_disparity",
    "read_video",
    "read_wav",
    "sample_surface",
    "video_seconds",
    "write_flo",
    "write_image",
    "write_kitti_disparity",
    "write_kitti_flow",
    "write_mp4",
    "write_pfm",
    "write_wav",
]
