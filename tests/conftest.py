"""Every test sees 8 devices, simulated on the CPU, and implicit rank promotion is an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
