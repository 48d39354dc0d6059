"""Package metadata. Tool settings live in pyproject.toml."""

import pathlib

import setuptools

setuptools.setup(
    name="perceiver_jax",
    version="0.1.0",
    description="Perceiver and Perceiver IO in JAX and Flax: one architecture, any modality.",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    packages=setuptools.find_packages(include=["perceiver_jax*"]),
    install_requires=[
        "absl-py>=2.1,<3",
        "array_record>=0.8,<0.9",
        "chex>=0.1.90,<0.2",
        "etils[epath]>=1.9.1,<2",
        "flax>=0.12,<0.13",
        "grain>=0.2.18,<0.3",
        "importlib_resources>=6,<8",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10,<0.13",
        "matplotlib>=3.9,<4",
        "ml-collections>=1.1,<2",
        "numpy>=2,<3",
        "opencv-python-headless>=4.11,<6",
        "optax>=0.2.5,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "pillow>=11,<14",
        "pooch[progress]>=1.8.2,<2",
        "pyarrow>=18,<27",
        "scikit-learn>=1.5,<2",
        "scipy>=1.13,<2",
        "tensorflow-datasets>=4.9.10,<5",
    ],
    extras_require={
        "test": [
            "av>=18,<20",
            "flatbuffers>=24.3,<26",
            "h5py>=3.12,<4",
            "hypothesis>=6.100,<7",
            "import-linter>=2.17,<3",
            "ipykernel>=6.29,<8",
            "nbclient>=0.10,<0.12",
            "nbformat>=5.10,<6",
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "ruff==0.17.6",
            "safetensors>=0.5,<1",
            "setuptools>=75",
            "trimesh>=4.6,<6",
        ],
        "pretrained": ["safetensors>=0.5,<1"],
        "export": ["flatbuffers>=24.3,<26", "safetensors>=0.5,<1"],
        "video": ["av>=18,<20"],
        "points": ["h5py>=3.12,<4", "trimesh>=4.6,<6"],
        "tensorboard": ["tensorboardX>=2.6,<3"],
        "prepare": ["tensorflow>=2.20,<3"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
        "gcs": ["etils[epath-gcs]>=1.9.1,<2"],
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        # Compiles for a GPU where there is none: the plugin without the libraries that run there.
        "plan_gpu": ["jax-cuda13-plugin>=0.10,<0.13", "jax-cuda13-pjrt>=0.10,<0.13"],
    },
)
