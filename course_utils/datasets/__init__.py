"""Read the bundled data, download the full sets, generate synthetic ones.

The bundled sets load in milliseconds and need no network. Every set has a card, ``data/<set>/README.md``.
"""

from course_utils.datasets.idx import read_idx
from course_utils.datasets.loading import (
    FASHION_MNIST_CLASSES,
    ImageData,
    Splits,
    TabularData,
    data_dir,
    load_boston_housing,
    load_fashion_mnist,
)
from course_utils.datasets.statlib import read_statlib
from course_utils.datasets.synthetic import (
    make_circles,
    make_projectile,
    make_spirals,
    make_two_moons,
    make_xor,
)

__all__ = [
    "FASHION_MNIST_CLASSES",
    "ImageData",
    "Splits",
    "TabularData",
    "data_dir",
    "load_boston_housing",
    "load_fashion_mnist",
    "make_circles",
    "make_projectile",
    "make_spirals",
    "make_two_moons",
    "make_xor",
    "read_idx",
    "read_statlib",
]
