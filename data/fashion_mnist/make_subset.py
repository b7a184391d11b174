"""Write fashion_mnist_subset.npz, a class-balanced part of Fashion-MNIST, from the four official IDX files.

    python data/fashion_mnist/make_subset.py FOLDER

Debian's package dataset-fashion-mnist puts the files into /usr/share/datasets/fashion-mnist. No random numbers: which
images are taken, and in which order, follows from the SHA-256 of their pixels. That mixes as well as a shuffle does,
and unlike a seeded generator gives the same result with every version of NumPy.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from course_utils.datasets import load_fashion_mnist

TRAIN_PER_CLASS = 1000
TEST_PER_CLASS = 200


def balanced_order(images: NDArray[np.uint8], labels: NDArray[np.int64], n_per_class: int) -> NDArray[np.int64]:
    """Return row numbers such that every block of ten rows holds one image of each class.

    Block k holds, of every class, the image whose digest comes k-th. So every prefix of 10·k rows is balanced. Within a
    block the digests read backwards decide, which gives no class a fixed place (read forwards they would, for a while:
    the digests of a block all begin alike).
    """
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    forwards, backwards = np.array(digests), np.array([digest[::-1] for digest in digests])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[np.argsort(forwards[rows])][:n_per_class])
    blocks = np.stack(chosen, axis=1)
    return np.concatenate([block[np.argsort(backwards[block])] for block in blocks])


def subset_arrays(folder: Path) -> dict[str, Any]:
    """Return the arrays of the file: images, labels, and each image's row in the official files."""
    full = load_fashion_mnist(subset=False, source=folder)
    train = balanced_order(full.train_images, full.train_labels, TRAIN_PER_CLASS)
    test = balanced_order(full.test_images, full.test_labels, TEST_PER_CLASS)
    return {
        "train_images": full.train_images[train],
        "train_labels": full.train_labels[train].astype(np.uint8),
        "train_rows": train.astype(np.uint16),
        "test_images": full.test_images[test],
        "test_labels": full.test_labels[test].astype(np.uint8),
        "test_rows": test.astype(np.uint16),
    }


def main() -> None:
    """Write the file beside this script, or where ``--output`` says."""
    parser = argparse.ArgumentParser(description="Write the bundled subset of Fashion-MNIST.")
    parser.add_argument("folder", type=Path, help="where the four IDX files are")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("fashion_mnist_subset.npz"))
    arguments = parser.parse_args()
    np.savez_compressed(arguments.output, **subset_arrays(arguments.folder))


if __name__ == "__main__":
    main()
