"""Read the bundled data, download the full sets, generate synthetic ones.

The bundled sets load in milliseconds and need no network. Every set has a card, ``data/<set>/README.md``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from course_utils._validation import check_int, check_one_of
from course_utils.datasets.idx import read_idx
from course_utils.datasets.statlib import read_statlib

__all__ = [
    "FASHION_MNIST_CLASSES",
    "ImageData",
    "Splits",
    "TabularData",
    "data_dir",
    "load_boston_housing",
    "load_fashion_mnist",
]

TensorPair: TypeAlias = tuple[torch.Tensor, torch.Tensor]

#: Label → name of the garment.
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
# The authors' host, then their repository. The first has no TLS; the checksums protect either way.
_FASHION_MNIST_HOSTS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_STATLIB_URLS = ("https://lib.stat.cmu.edu/datasets/boston", "http://lib.stat.cmu.edu/datasets/boston")

# Column: (meaning, unit), in StatLib's order; the last is the target.
_BOSTON_COLUMNS = {
    "CRIM": ("crime rate of the town", "per capita, scale undocumented"),
    "ZN": ("residential land zoned for lots over 25,000 sq. ft", "% of the town's"),
    "INDUS": ("land in non-retail business", "% of the town's"),
    "CHAS": ("tract touches the Charles River", "0 or 1"),
    "NOX": ("nitrogen oxides in the air", "parts per 10 million"),
    "RM": ("mean number of rooms per dwelling", "rooms"),
    "AGE": ("owner-occupied homes built before 1940", "%"),
    "DIS": ("weighted distance to five employment centres", "undocumented"),
    "RAD": ("index of access to the radial highways", "index, 1 to 24"),
    "TAX": ("property tax", "$ per $10,000 of full value"),
    "PTRATIO": ("pupils per teacher in the town", "ratio"),
    "B": ("1000 (Bk - 0.63)², Bk the share of Black residents of the town", "none"),
    "LSTAT": ("population that the authors class as lower status", "%"),
    "MEDV": ("median value of owner-occupied homes", "$1000 of 1970"),
}


@dataclass(frozen=True, eq=False)
class TabularData:
    """A table ready for a regression lesson.

    Attributes:
        features: (n, n_features), float64.
        target: (n,), float64, named.
        description: one sentence on what a row and the target are.
        meanings: column name → what it measures, target included.
        units: column name → unit, target included.
    """

    features: pd.DataFrame
    target: pd.Series[float]
    description: str
    meanings: Mapping[str, str]
    units: Mapping[str, str]

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""
        return list(self.features.columns)

    @property
    def target_name(self) -> str:
        """Name of the target."""
        return str(self.target.name)


class Splits(NamedTuple):
    """Training, validation and test part, each a pair (inputs float32, targets int64)."""

    train: TensorPair
    val: TensorPair
    test: TensorPair


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Grey-scale images with labels, as stored.

    Attributes:
        train_images: (n_train, height, width), uint8, 0 is background.
        train_labels: (n_train,), int64.
        test_images: (n_test, height, width), uint8.
        test_labels: (n_test,), int64.
        class_names: label → name.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        height, width = self.train_images.shape[1:]
        return (
            f"ImageData({len(self.train_labels)} training and {len(self.test_labels)} test images, "
            f"{height}×{width}, {len(self.class_names)} classes)"
        )

    def tensors(
        self,
        *,
        n_train: int | None = None,
        n_val: int = 0,
        n_test: int | None = None,
        flatten: bool = True,
        standardize: bool = True,
        seed: int = 0,
    ) -> Splits:
        """Return what a network trains on: scaled float32 images and int64 labels, in three disjoint parts.

        The bundled subset is stored in blocks of one image per class, and blocks are what is drawn here; so with
        sizes that are multiples of ten every part has equally many images of each class. The official files are
        in random order: there the classes balance only on average.

        Args:
            n_train: training images to draw; ``None`` takes all that validation leaves.
            n_val: validation images, the last ones of the training file whatever the seed.
            n_test: test images, the first ones; ``None`` takes all.
            flatten: inputs (n, height·width) if true, else (n, 1, height, width).
            standardize: subtract one mean and divide by one standard deviation, measured over all pixels of the
                drawn training part alone; if false, inputs lie in [0, 1].
            seed: which training images are drawn, and in which order; a larger ``n_train`` extends the same draw.

        Returns:
            ``train, val, test``, each ``(inputs, targets)``; a part of 0 images has tensors of length 0.

        Raises:
            ValueError: a size exceeds what there is, or the training part has zero standard deviation.
        """
        n_test = len(self.test_labels) if n_test is None else n_test
        check_int(n_test, "n_test", minimum=0, maximum=len(self.test_labels))
        n_rest = len(self.train_labels) - n_val
        n_train = n_rest if n_train is None else n_train
        if n_val < 0 or not 1 <= n_train <= n_rest:
            raise ValueError(
                f"n_train, at least 1, and n_val must be at most {len(self.train_labels)} together, "
                f"got {n_train} and {n_val}"
            )
        drawn = _shuffled_blocks(n_rest, len(self.class_names), np.random.default_rng(seed))[:n_train]
        images = [self.train_images[drawn], self.train_images[n_rest:], self.test_images[:n_test]]
        labels = [self.train_labels[drawn], self.train_labels[n_rest:], self.test_labels[:n_test]]
        inputs = [_unit_range(part, flatten) for part in images]
        if standardize:
            inputs = _standardized(inputs)
        parts = [(torch.from_numpy(x), torch.from_numpy(y.copy())) for x, y in zip(inputs, labels, strict=True)]
        return Splits(*parts)


def _shuffled_blocks(n_rows: int, block_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the row numbers with whole blocks shuffled, the rows of an incomplete last block at the end."""
    n_blocks = n_rows // block_size
    rows = rng.permutation(n_blocks)[:, None] * block_size + np.arange(block_size)
    return np.concatenate([rows.ravel(), np.arange(n_blocks * block_size, n_rows)])


def _unit_range(images: NDArray[np.uint8], flatten: bool) -> NDArray[np.float32]:
    n_images, height, width = images.shape
    shape = (n_images, height * width) if flatten else (n_images, 1, height, width)
    return np.divide(images, 255, dtype=np.float32).reshape(shape)


def _standardized(inputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Scale every part by mean and standard deviation of the first."""
    # Sums of millions of pixels need float64; the result stays float32.
    mean = np.float32(inputs[0].mean(dtype=np.float64))
    std = np.float32(inputs[0].std(dtype=np.float64))
    if std == 0:
        raise ValueError(f"cannot standardize: every training pixel is {mean:g}")
    return [(part - mean) / std for part in inputs]


def data_dir() -> Path:
    """Return the folder of the bundled data: inside the installed package, or ``data/`` of a clone.

    Raises:
        FileNotFoundError: neither exists.
    """
    package = Path(__file__).parents[1]
    candidates = [package / "_data", package.parent / "data"]
    for candidate in candidates:
        # The list of checksums tells ours from an unrelated folder called data beside an installed package.
        if (candidate / "SHA256SUMS").is_file():
            return candidate
    raise FileNotFoundError(f"the course's data is in none of {', '.join(map(str, candidates))}; reinstall it")


def load_boston_housing(*, include_b: bool = False, source: str = "bundled") -> TabularData:
    """Load the Boston housing table: 506 census tracts in 1970, 13 features (12 without B), target MEDV.

    Known problems, which a lesson must not pass over (the card has more):

    - B is a parabola in the share of Black residents: it encodes race, on the premise that segregation raises prices,
      and the share cannot be recovered uniquely. scikit-learn withdrew the whole set for it in version 1.2. Left out
      by default.
    - MEDV is capped: 16 tracts stand at exactly 50.
    - Eight MEDV values were transcribed wrongly (Gilley & Pace 1996). They are kept, so that results compare.

    Args:
        include_b: keep the column B, to show what it does.
        source: ``"bundled"``, or ``"statlib"`` to download the original (cached) and compare it with the bundled table.

    Raises:
        OSError: the download failed.
        ValueError: the downloaded table differs from the bundled one.

    Source: Harrison & Rubinfeld 1978, doi:10.1016/0095-0696(78)90006-2; http://lib.stat.cmu.edu/datasets/boston.
    """
    check_one_of(source, "source", ("bundled", "statlib"))
    table = read_statlib(data_dir() / "boston_housing" / "boston.txt", tuple(_BOSTON_COLUMNS))
    if source == "statlib":
        table = _download_boston(expected=table)
    target = table.pop("MEDV")
    columns = {name: _BOSTON_COLUMNS[name] for name in _BOSTON_COLUMNS if include_b or name != "B"}
    return TabularData(
        features=table if include_b else table.drop(columns="B"),
        target=target,
        description="One row per census tract of the Boston area in 1970; the target is the tract's median home value.",
        meanings={name: meaning for name, (meaning, _) in columns.items()},
        units={name: unit for name, (_, unit) in columns.items()},
    )


def _download_boston(expected: pd.DataFrame) -> pd.DataFrame:
    path = _download("boston.txt", _STATLIB_URLS, None, progress=False, bundled="load_boston_housing()")
    # StatLib publishes no checksum, and a changed header would be harmless: the numbers are what must agree.
    try:
        table = read_statlib(path, tuple(_BOSTON_COLUMNS))
        if not table.equals(expected):
            raise ValueError(f"the table from StatLib, {table.shape}, differs from the bundled one, {expected.shape}")
    except ValueError:
        path.unlink()  # or pooch would serve it from its cache for ever
        raise
    return table


def load_fashion_mnist(
    *, subset: bool = True, source: str | PathLike[str] | None = None, progress: bool = True
) -> ImageData:
    """Load Fashion-MNIST: 28×28 grey-scale photographs of clothing in 10 classes.

    Args:
        subset: the bundled, class-balanced 10,000 training and 2,000 test images; if false, all 60,000 and 10,000.
        source: where the images come from: ``"bundled"``, for the subset alone; ``"download"``, for the four official
            files, fetched once (31 MB, checked by SHA-256, cached per user); or a folder that holds these,
            gzip-compressed or not. By default the subset is the bundled one and the full set a download.
        progress: show a bar per file while downloading.

    Raises:
        OSError: the download failed, or a file is missing.
        ValueError: a file is damaged or the files do not belong together; or the source does not have what is asked
            for: the full set is not bundled, the subset nowhere else.

    Source: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747; MIT licence.
    """
    if source is None:
        source = "bundled" if subset else "download"
    if subset != (source == "bundled"):
        raise ValueError(
            f"the bundled set is the subset, and other sources have the full set: got subset={subset} and "
            f"source={str(source)!r}; subset=False takes source='download' or a folder"
        )
    if subset:
        return _read_subset(data_dir() / "fashion_mnist" / "fashion_mnist_subset.npz")
    if source != "download":
        return _read_idx_files({name: _find_idx(Path(source), name) for name in _FASHION_MNIST_SHA256})
    paths = {}
    for name, sha256 in _FASHION_MNIST_SHA256.items():
        urls = [f"{host}{name}.gz" for host in _FASHION_MNIST_HOSTS]
        paths[name] = _download(f"{name}.gz", urls, sha256, progress=progress, bundled="load_fashion_mnist()")
    return _read_idx_files(paths)


def _read_subset(path: Path) -> ImageData:
    try:
        # Opened here, because np.load forgets to close a file that turns out not to be a zip archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return ImageData(
                train_images=arrays["train_images"],
                train_labels=arrays["train_labels"].astype(np.int64),
                test_images=arrays["test_images"],
                test_labels=arrays["test_labels"].astype(np.int64),
                class_names=FASHION_MNIST_CLASSES,
            )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from the repository") from error


def _find_idx(folder: Path, name: str) -> Path:
    compressed = folder / f"{name}.gz"
    return compressed if compressed.is_file() else folder / name


def _read_idx_files(paths: Mapping[str, Path]) -> ImageData:
    train_images, train_labels = _read_pair(paths["train-images-idx3-ubyte"], paths["train-labels-idx1-ubyte"])
    test_images, test_labels = _read_pair(paths["t10k-images-idx3-ubyte"], paths["t10k-labels-idx1-ubyte"])
    return ImageData(train_images, train_labels, test_images, test_labels, FASHION_MNIST_CLASSES)


def _read_pair(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    are_images = images.dtype == np.uint8 and images.shape[1:] == (28, 28)
    are_labels = labels.dtype == np.uint8 and labels.ndim == 1 and not np.any(labels >= len(FASHION_MNIST_CLASSES))
    if not are_images or not are_labels or len(images) != len(labels):
        raise ValueError(
            f"{images_path} and {labels_path} must hold uint8, (n, 28, 28) images and (n,) labels below "
            f"{len(FASHION_MNIST_CLASSES)}, got {images.shape} {images.dtype} and {labels.shape} {labels.dtype} "
            f"up to {labels.max(initial=0)}"
        )
    return images, labels.astype(np.int64)


def _download(file_name: str, urls: Sequence[str], sha256: str | None, *, progress: bool, bundled: str) -> Path:
    """Return the file from the user's cache, fetched from the first of ``urls`` that delivers it intact.

    Pooch writes to a temporary file and moves it into the cache once its checksum agrees, so that neither a broken
    connection nor an interrupt leaves half a file.
    """
    import pooch

    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16)
    failures = []
    for url in urls:
        try:
            path = pooch.retrieve(
                url, known_hash=sha256, fname=file_name, path=pooch.os_cache("mlp-course"), downloader=downloader
            )
            return Path(path)
        except (OSError, ValueError) as error:  # no connection or no disk; a wrong checksum
            failures.append(f"{url}: {error}")
    raise OSError("\n  ".join([f"{file_name} could not be downloaded; {bundled} needs no network.", *failures]))
