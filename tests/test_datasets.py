"""The data are what their cards say, and damaged files say so."""

import dataclasses
import gzip
import hashlib
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pooch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import integrate
from sklearn import datasets as sklearn_datasets

from course_utils import datasets
from course_utils.datasets import ImageData, load_boston_housing, load_fashion_mnist, loading, read_idx, read_statlib

BOSTON_SHA256 = (
    "832e894115c56dd24ec63848d4a3d9bd921d268d0be1bee2a8f4ee5ea318f5f7"  # of scikit-learn 1.1.3's CSV, parsed
)
OFFICIAL = Path("/usr/share/datasets/fashion-mnist")
needs_official_files = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: NDArray[Any]) -> bytes:
    header = struct.pack(">HBB", 0, IDX_CODES[array.dtype.str[1:]], array.ndim)
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return header + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_image_folder(folder: Path, n_train: int = 20, n_test: int = 10, *, compressed: bool = True) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", n_train), ("t10k", n_test)):
        files = {
            f"{part}-images-idx3-ubyte": rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            f"{part}-labels-idx1-ubyte": (np.arange(count) % 10).astype(np.uint8),
        }
        for name, array in files.items():
            content = idx_bytes(array)
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def load_script(relative_path: str) -> ModuleType:
    path = datasets.data_dir() / relative_path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- Where the data lies --------------------------------------------------------------------------------------------


def test_data_dir_prefers_the_installed_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "data", tmp_path / "course_utils" / "_data"):
        folder.mkdir(parents=True)
        (folder / "SHA256SUMS").touch()
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "course_utils" / "datasets" / "loading.py"))
    assert datasets.data_dir() == tmp_path / "course_utils" / "_data"


def test_data_dir_refuses_an_unrelated_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "course_utils" / "datasets" / "loading.py"))
    with pytest.raises(FileNotFoundError, match="reinstall"):
        datasets.data_dir()


# --- Boston ---------------------------------------------------------------------------------------------------------


def test_boston_equals_the_published_table_bit_for_bit() -> None:
    data = load_boston_housing(include_b=True)
    table = np.column_stack([data.features.to_numpy(), data.target.to_numpy()]).astype("<f8")
    assert table.shape == (506, 14)
    assert hashlib.sha256(table.tobytes()).hexdigest() == BOSTON_SHA256


def test_boston_leaves_b_out_by_default() -> None:
    without, with_b = load_boston_housing(), load_boston_housing(include_b=True)
    assert without.feature_names == [name for name in with_b.feature_names if name != "B"]
    assert len(with_b.feature_names) == 13
    assert "B" not in without.units
    pd.testing.assert_series_equal(without.target, with_b.target)


def test_boston_has_a_meaning_and_a_unit_for_every_column() -> None:
    data = load_boston_housing()
    assert data.target_name == "MEDV"
    assert list(data.units) == list(data.meanings) == [*data.feature_names, "MEDV"]
    assert (data.features.dtypes == "float64").all()


def test_boston_script_refuses_another_csv(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("1,2\n")
    with pytest.raises(ValueError, match="must have sha256"):
        load_script("boston_housing/make_boston.py").statlib_text(other)


def boston_text() -> str:
    return (datasets.data_dir() / "boston_housing" / "boston.txt").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.rstrip().rsplit("\n", 1)[0], "two lines a record, got 1033 lines"),
        (lambda text: "<html>gone</html>", "two lines a record, got 1 lines"),
        (lambda text: text.replace("  396.90   4.98  24.00", "  396.90   4.98"), r"line 24: expected 3 finite numbers"),
        (lambda text: text.replace("6.5750", "6,5750", 1), r"line 23: expected 11 finite numbers, got ' 0.00632"),
        (lambda text: text.replace("6.5750", "nan", 1), r"line 23: expected 11 finite numbers"),
    ],
    ids=["half a record", "web page", "missing value", "decimal comma", "nan"],
)
def test_statlib_reader_names_file_and_line(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    path = tmp_path / "boston.txt"
    path.write_text(damage(boston_text()))
    with pytest.raises(ValueError, match=message) as caught:
        read_statlib(path, [f"c{index}" for index in range(14)])
    assert str(path) in str(caught.value)


# --- IDX ------------------------------------------------------------------------------------------------------------

idx_arrays = st.sampled_from(sorted(IDX_CODES)).flatmap(
    lambda code: (
        hnp.arrays(np.dtype(code), hnp.array_shapes(max_dims=4, min_side=0, max_side=4), elements={"allow_nan": False})
        if code.startswith("f")
        else hnp.arrays(np.dtype(code), hnp.array_shapes(max_dims=4, min_side=0, max_side=4))
    )
)


@settings(deadline=None)
@given(array=idx_arrays, compressed=st.booleans())
def test_idx_round_trip(tmp_path_factory: pytest.TempPathFactory, array: NDArray[Any], compressed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))
    result = read_idx(path)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.flags.writeable
    np.testing.assert_array_equal(result, array, strict=True)


VALID = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4))
VALID_GZIP = gzip.compress(VALID)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not an IDX file: .* got nothing"),
        (VALID[:10], r"truncated: a header for 2 axes has 12 bytes, got 10"),
        (VALID[:-1], r"truncated: its header announces shape \(3, 4\), 12 bytes of data, got 11"),
        (VALID + b"\0", r"trailing bytes: its header announces shape \(3, 4\), 12 bytes of data, got 13"),
        (b"\1" + VALID[1:], r"not an IDX file: .* got 01 00 08 02"),
        (b"\0\0\x08\0", r"not an IDX file: .* got 00 00 08 00"),
        (b"\0\0\x07" + VALID[3:], r"not an IDX file: .* types 08, .* got 00 00 07 02"),
        (VALID_GZIP[:-9], "truncated or corrupt gzip file"),
        (VALID_GZIP[:-8] + b"\0\0\0\0" + VALID_GZIP[-4:], "truncated or corrupt gzip file: CRC check failed"),
    ],
)
def test_damaged_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "damaged-idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


# --- Fashion-MNIST --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subset() -> ImageData:
    return load_fashion_mnist()


def test_subset_has_the_announced_shapes_and_types(subset: ImageData) -> None:
    assert subset.train_images.shape == (10_000, 28, 28)
    assert subset.test_images.shape == (2_000, 28, 28)
    assert subset.train_images.dtype == subset.test_images.dtype == np.uint8
    assert subset.train_labels.dtype == subset.test_labels.dtype == np.int64
    assert len(subset.class_names) == 10
    assert repr(subset) == "ImageData(10000 training and 2000 test images, 28×28, 10 classes)"


def test_every_block_of_ten_subset_images_holds_each_class_once(subset: ImageData) -> None:
    for labels in (subset.train_labels, subset.test_labels):
        blocks = labels.reshape(-1, 10)
        np.testing.assert_array_equal(np.sort(blocks, axis=1), np.tile(np.arange(10), (len(blocks), 1)))
        assert len(np.unique(blocks, axis=0)) > 0.99 * len(blocks)  # and no order within a block prevails


def test_no_subset_image_occurs_twice(subset: ImageData) -> None:
    images = np.concatenate([subset.train_images, subset.test_images])
    assert len({image.tobytes() for image in images}) == 12_000


@needs_official_files
def test_subset_script_reproduces_the_bundled_arrays() -> None:
    arrays = load_script("fashion_mnist/make_subset.py").subset_arrays(OFFICIAL)
    with np.load(datasets.data_dir() / "fashion_mnist" / "fashion_mnist_subset.npz", allow_pickle=False) as bundled:
        assert sorted(bundled.files) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(bundled[name], array, strict=True, err_msg=name)


@needs_official_files
def test_all_70000_official_images_are_read_and_hold_the_subset(subset: ImageData) -> None:
    full = load_fashion_mnist(subset=False, source=OFFICIAL)
    assert full.train_images.shape == (60_000, 28, 28)
    assert full.test_images.shape == (10_000, 28, 28)
    assert np.bincount(full.train_labels).tolist() == [6_000] * 10
    assert np.bincount(full.test_labels).tolist() == [1_000] * 10
    assert full.train_images.mean() / 255 == pytest.approx(0.2860406, abs=1e-7)  # published: 0.2860
    with np.load(datasets.data_dir() / "fashion_mnist" / "fashion_mnist_subset.npz", allow_pickle=False) as bundled:
        for part in ("train", "test"):
            rows = bundled[f"{part}_rows"]
            np.testing.assert_array_equal(getattr(full, f"{part}_images")[rows], getattr(subset, f"{part}_images"))
            np.testing.assert_array_equal(getattr(full, f"{part}_labels")[rows], getattr(subset, f"{part}_labels"))


@needs_official_files
@pytest.mark.parametrize("name", sorted(loading._FASHION_MNIST_SHA256))
def test_the_demanded_checksum_is_that_of_the_official_file(name: str) -> None:
    # Debian recompressed nothing: it only dropped the name and the time from the gzip header. Put back, they give the
    # official file, byte for byte. The times were found by comparison with the authors' MD5 sums.
    time = 1_504_176_606 if name.startswith("train") else 1_504_176_627
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + name.encode() + b"\0"
    official = header + (OFFICIAL / f"{name}.gz").read_bytes()[10:]
    assert hashlib.sha256(official).hexdigest() == loading._FASHION_MNIST_SHA256[name]


@pytest.mark.parametrize("compressed", [True, False])
def test_folder_of_idx_files_is_read_compressed_or_not(tmp_path: Path, compressed: bool) -> None:
    write_image_folder(tmp_path, compressed=compressed)
    data = load_fashion_mnist(subset=False, source=tmp_path)
    assert data.train_images.shape == (20, 28, 28)
    assert data.test_labels.tolist() == list(range(10))
    assert data.train_labels.dtype == np.int64


def test_folder_with_a_missing_file_names_it(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte"):
        load_fashion_mnist(subset=False, source=tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(19, np.uint8), r"got \(20, 28, 28\) uint8 and \(19,\) uint8"),
        ("train-labels-idx1-ubyte", np.full(20, 10, np.uint8), r"labels below 10, got .* and \(20,\) uint8 up to 10"),
        ("train-labels-idx1-ubyte", np.zeros(20, np.int32), r"uint8.*, got .* and \(20,\) int32"),
        ("train-images-idx3-ubyte", np.zeros((20, 27, 28), np.uint8), r"\(n, 28, 28\) images.*, got \(20, 27, 28\)"),
        ("train-images-idx3-ubyte", np.zeros((20, 28, 28), np.float32), r"uint8.*, got \(20, 28, 28\) float32"),
    ],
    ids=["count", "label", "label type", "image size", "image type"],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, name: str, array: NDArray[Any], message: str
) -> None:
    write_image_folder(tmp_path)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(ValueError, match=message) as caught:
        load_fashion_mnist(subset=False, source=tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, 1000])
def test_damaged_subset_file_is_named(tmp_path: Path, keep: int) -> None:
    content = (datasets.data_dir() / "fashion_mnist" / "fashion_mnist_subset.npz").read_bytes()
    path = tmp_path / "fashion_mnist_subset.npz"
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"fashion_mnist_subset\.npz is damaged"):
        loading._read_subset(path)


# --- Tensors --------------------------------------------------------------------------------------------------------


def test_tensors_have_the_types_and_shapes_that_fit_takes(subset: ImageData) -> None:
    splits = subset.tensors(n_train=60, n_val=20, n_test=30)
    for (inputs, targets), size in zip(splits, (60, 20, 30), strict=True):
        assert inputs.shape == (size, 784)
        assert inputs.dtype == torch.float32
        assert targets.shape == (size,)
        assert targets.dtype == torch.int64
    images, _ = subset.tensors(n_train=60, flatten=False).train
    assert images.shape == (60, 1, 28, 28)
    torch.testing.assert_close(images.flatten(1), subset.tensors(n_train=60).train[0], rtol=0, atol=0)


def test_tensors_take_everything_by_default(subset: ImageData) -> None:
    splits = subset.tensors(standardize=False)
    assert [len(targets) for _, targets in splits] == [10_000, 0, 2_000]
    taken = {row.numpy().tobytes() for row in (splits.train[0] * 255).round().byte()}
    assert taken == {image.tobytes() for image in subset.train_images}


@settings(deadline=None)
@given(
    n_train=st.integers(1, 60).map(lambda blocks: 10 * blocks),
    n_val=st.integers(0, 40).map(lambda blocks: 10 * blocks),
    seed=st.integers(0, 2**32),
)
def test_parts_are_balanced_and_disjoint(n_train: int, n_val: int, seed: int) -> None:
    small = numbered_images(1_000)
    splits = small.tensors(n_train=n_train, n_val=n_val, seed=seed, standardize=False)
    numbers = [set(image_numbers(inputs)) for inputs, _ in splits[:2]]
    assert len(numbers[0]) == n_train
    assert numbers[1] == set(range(1_000 - n_val, 1_000))
    assert not numbers[0] & numbers[1]
    for _, targets in splits[:2]:
        assert len(set(torch.bincount(targets, minlength=10).tolist())) == 1


def numbered_images(count: int) -> ImageData:
    """Images whose first two pixels spell their row number, labelled by its last digit."""
    rows = np.arange(count)
    images = np.zeros((count, 1, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = rows // 256, rows % 256
    return ImageData(images, rows % 10, images[:10], rows[:10] % 10, tuple("abcdefghij"))


def image_numbers(inputs: torch.Tensor) -> list[int]:
    pixels = (inputs * 255).round().long()
    return [int(number) for number in pixels[:, 0] * 256 + pixels[:, 1]]


def test_images_keep_their_labels_and_none_is_lost() -> None:
    splits = numbered_images(1_003).tensors(n_val=7, standardize=False)
    for inputs, targets in splits:
        assert targets.tolist() == [number % 10 for number in image_numbers(inputs)]
    assert sorted(image_numbers(splits.train[0])) == list(range(996))  # those that fill no block are not lost


def test_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    images = numbered_images(1_000)
    first, again, other = (
        image_numbers(images.tensors(n_train=100, seed=seed, standardize=False).train[0]) for seed in (1, 1, 2)
    )
    larger = image_numbers(images.tensors(n_train=200, seed=1, standardize=False).train[0])
    assert first == again == larger[:100]
    assert set(first) != set(other)


def test_standardization_is_measured_on_the_training_part_alone(subset: ImageData) -> None:
    raw = subset.tensors(n_train=500, n_val=100, n_test=100, standardize=False)
    scaled = subset.tensors(n_train=500, n_val=100, n_test=100)
    pixels = raw.train[0].double()
    mean, std = pixels.mean(), pixels.std(correction=0)
    assert 0 <= pixels.min() < pixels.max() <= 1
    for before, after in zip(raw, scaled, strict=True):
        torch.testing.assert_close(after[0].double(), (before[0].double() - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_train": 8_001, "n_val": 2_000}, "at most 10000 together, got 8001 and 2000"),
        ({"n_train": 0}, "n_train, at least 1, .* got 0 and 0"),
        ({"n_val": 10_000}, "at most 10000 together, got 0 and 10000"),
        ({"n_test": 2_001}, "n_test must be at most 2000, got 2001"),
    ],
)
def test_sizes_beyond_the_data_are_refused(subset: ImageData, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subset.tensors(n_train=sizes.get("n_train"), n_val=sizes.get("n_val", 0), n_test=sizes.get("n_test"))


def test_constant_images_cannot_be_standardized() -> None:
    black = dataclasses.replace(numbered_images(10), train_images=np.zeros((10, 1, 2), np.uint8))
    with pytest.raises(ValueError, match="every training pixel is 0"):
        black.tensors()


def test_tensors_do_not_share_memory_with_the_data(subset: ImageData) -> None:
    splits = numbered_images(20).tensors(n_val=10)
    before = splits.val[1].clone()
    splits.val[1].add_(1)
    assert numbered_images(20).tensors(n_val=10).val[1].tolist() == before.tolist()
    images = numbered_images(20)
    images.tensors().test[1].add_(1)
    assert images.test_labels.tolist() == list(range(10))


# --- Downloads, without a network -----------------------------------------------------------------------------------

Serve = Callable[[str, BinaryIO], object]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    return folder / "mlp-course"


@pytest.fixture
def serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Serve], list[str]]:
    """Replace pooch's HTTP downloader by a function (url, open file); the list of requested addresses is returned."""

    def install(answer: Serve) -> list[str]:
        requested: list[str] = []

        def downloader(url: str, output_file: str, pooch: object) -> None:
            requested.append(url)
            with open(output_file, "wb") as file:
                answer(url, file)

        monkeypatch.setattr(pooch, "HTTPDownloader", lambda **options: downloader)
        return requested

    return install


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def offline(url: str, file: BinaryIO) -> None:
    raise ConnectionError("no route to host")


@pytest.mark.parametrize(("subset", "source"), [(False, "bundled"), (True, "download"), (True, OFFICIAL)])
def test_a_source_without_what_is_asked_for_is_refused(
    serve: Callable[[Serve], list[str]], subset: bool, source: str | Path
) -> None:
    requested = serve(offline)
    with pytest.raises(ValueError, match=rf"got subset={subset} and source='{source}'; subset=False takes"):
        load_fashion_mnist(subset=subset, source=source)
    assert requested == []


def test_offline_error_names_the_bundled_alternative(serve: Callable[[Serve], list[str]], cache: Path) -> None:
    requested = serve(offline)
    with pytest.raises(OSError, match=r"load_fashion_mnist\(\) needs no network") as caught:
        load_fashion_mnist(subset=False)
    assert len(requested) == 2  # both hosts were tried, for the first file
    assert all(url in str(caught.value) for url in requested)
    assert "no route to host" in str(caught.value)
    assert files_in(cache) == []


def test_wrong_checksum_is_refused_and_leaves_no_file(serve: Callable[[Serve], list[str]], cache: Path) -> None:
    serve(lambda url, file: file.write(b"<html>log in</html>"))
    with pytest.raises(OSError, match=r"(?s)train-images-idx3-ubyte\.gz could not be downloaded.*hash"):
        load_fashion_mnist(subset=False)
    assert files_in(cache) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_broken_download_leaves_no_half_file(
    serve: Callable[[Serve], list[str]], cache: Path, error: type[BaseException]
) -> None:
    def break_off(url: str, file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    serve(break_off)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        load_fashion_mnist(subset=False)
    assert files_in(cache) == []


def test_second_host_serves_when_the_first_is_down_and_the_cache_after_that(
    serve: Callable[[Serve], list[str]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path)
    contents = {name: (tmp_path / f"{name}.gz").read_bytes() for name in loading._FASHION_MNIST_SHA256}
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(loading, "_FASHION_MNIST_SHA256", checksums)
    first_host = loading._FASHION_MNIST_HOSTS[0]

    def answer(url: str, file: BinaryIO) -> None:
        if url.startswith(first_host):
            raise ConnectionError("down")
        file.write(contents[url.rsplit("/", 1)[1].removesuffix(".gz")])

    requested = serve(answer)
    data = load_fashion_mnist(subset=False)
    assert len(requested) == 8
    np.testing.assert_array_equal(
        data.train_images, load_fashion_mnist(subset=False, source=tmp_path).train_images, strict=True
    )
    load_fashion_mnist(subset=False)
    assert len(requested) == 8
    assert len(files_in(cache)) == 4


def test_statlib_original_is_accepted_when_its_numbers_agree(serve: Callable[[Serve], list[str]], cache: Path) -> None:
    header = "\n" * 22  # the original's prose differs from ours
    body = boston_text().split("\n", 22)[22]
    requested = serve(lambda url, file: file.write((header + body).encode()))
    data = load_boston_housing(source="statlib")
    pd.testing.assert_frame_equal(data.features, load_boston_housing().features)
    assert requested == ["https://lib.stat.cmu.edu/datasets/boston"]
    assert files_in(cache) == ["boston.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: boston_text().replace("24.00", "24.10", 1), "differs from the bundled one"),
        (lambda: boston_text().rsplit("\n", 3)[0], r"\(505, 14\), differs from the bundled one, \(506, 14\)"),
        (lambda: "<html>moved</html>", "two lines a record"),
    ],
    ids=["changed value", "lost record", "web page"],
)
def test_statlib_original_that_differs_is_refused_and_not_kept(
    serve: Callable[[Serve], list[str]], cache: Path, content: Callable[[], str], message: str
) -> None:
    serve(lambda url, file: file.write(content().encode()))
    with pytest.raises(ValueError, match=message):
        load_boston_housing(source="statlib")
    assert files_in(cache) == []


# --- Synthetic sets -------------------------------------------------------------------------------------------------

Tensors = tuple[torch.Tensor, torch.Tensor]
GENERATORS: dict[str, Callable[..., Tensors]] = {
    "xor": lambda n, **options: datasets.make_xor(n, noise_std=0.1, **options),
    "projectile": datasets.make_projectile,
    "two_moons": datasets.make_two_moons,
    "circles": datasets.make_circles,
    "spirals": datasets.make_spirals,
}
every_generator = pytest.mark.parametrize("name", GENERATORS)


@every_generator
def test_generator_returns_the_types_and_shapes_it_documents(name: str) -> None:
    inputs, targets = GENERATORS[name](25, seed=0)
    assert inputs.dtype == torch.float32
    assert inputs.shape == (25, 2)
    if name == "projectile":
        assert targets.dtype == torch.float32
        assert targets.shape == (25, 1)
    else:
        assert targets.dtype == torch.int64
        assert targets.shape == (25,)


@every_generator
def test_generator_depends_on_its_seed_alone(name: str) -> None:
    make = GENERATORS[name]
    first = make(50, seed=3)
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the state is the point
    again = make(50, seed=3)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(old, new) for old, new in zip(numpy_state, after, strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], make(50, seed=4)[0])


@pytest.mark.parametrize("name", ["two_moons", "circles", "spirals"])
@settings(deadline=None)
@given(n_samples=st.integers(2, 60))
def test_classes_are_balanced_and_mixed(name: str, n_samples: int) -> None:
    counts = torch.bincount(GENERATORS[name](n_samples, seed=1)[1], minlength=2)
    assert counts.sum() == n_samples
    assert counts[1] - counts[0] in (0, 1)
    _, large = GENERATORS[name](1_000, seed=1)
    assert 0.3 < large[:100].double().mean() < 0.7


def test_xor_without_a_size_is_the_truth_table() -> None:
    inputs, targets = datasets.make_xor()
    assert inputs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert targets.tolist() == [0, 1, 1, 0]


def test_xor_noise_spreads_around_the_corners() -> None:
    inputs, targets = datasets.make_xor(4_000, noise_std=0.1, seed=0)
    bits = inputs.round()
    assert ((bits[:, 0] != bits[:, 1]).long() == targets).all()
    assert (inputs - bits).std() == pytest.approx(0.1, rel=0.05)


def test_projectile_obeys_its_law_and_newtons() -> None:
    inputs, distance = datasets.make_projectile(200, speed_range=(2.0, 4.0), height_range=(1.0, 9.0))
    speed, height = inputs[:, :1], inputs[:, 1:]
    torch.testing.assert_close(distance, 0.45 * speed * height.sqrt())
    torch.testing.assert_close(distance, speed * (2 * height / 9.81).sqrt(), rtol=0.01, atol=0)
    assert 2 <= speed.min() < speed.max() <= 4
    assert 1 <= height.min() < height.max() <= 9


def flight(speed: float, height: float, drag: float) -> float:
    """Where scipy lets the stone land."""
    gravity = 2 / 0.45**2

    def rates(_: float, state: NDArray[np.float64]) -> list[float]:
        right, down = state[2:]
        slowing = drag * np.hypot(right, down)
        return [right, down, -slowing * right, gravity - slowing * down]

    def ground(_: float, state: NDArray[np.float64]) -> float:
        return float(state[1]) - height

    ground.terminal = True  # type: ignore[attr-defined]
    start = [0.0, 0.0, speed, 0.0]
    solution = integrate.solve_ivp(rates, (0, 1e3), start, events=ground, rtol=1e-9, atol=1e-12)
    return float(solution.y[0, -1])


@pytest.mark.parametrize("drag", [0.006, 0.13, 1.0])
@pytest.mark.parametrize("speed_range", [(1.0, 20.0), (100.0, 300.0)])
def test_projectile_in_air_lands_where_scipy_says(drag: float, speed_range: tuple[float, float]) -> None:
    inputs, distance = datasets.make_projectile(6, drag=drag, speed_range=speed_range, seed=2)
    expected = [[flight(speed, height, drag)] for speed, height in inputs.double().tolist()]
    torch.testing.assert_close(distance.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_projectile_noise_is_that_of_the_measurement() -> None:
    inputs, distance = datasets.make_projectile(2_000, drag=0.01, noise_std=0.5, seed=1)
    clean_inputs, clean = datasets.make_projectile(2_000, drag=0.01, seed=1)
    assert torch.equal(inputs, clean_inputs)
    assert (distance - clean).std() == pytest.approx(0.5, rel=0.05)
    assert (distance - clean).mean() == pytest.approx(0, abs=0.05)


def sorted_rows(points: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    rows = np.column_stack([labels, points]).astype(np.float32).round(5) + np.float32(0.0)  # no negative zeros
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("n_samples", [2, 7, 100])
def test_two_moons_without_noise_are_scikit_learns(n_samples: int) -> None:
    inputs, targets = datasets.make_two_moons(n_samples, noise_std=0.0)
    expected = sklearn_datasets.make_moons(n_samples, shuffle=False)
    np.testing.assert_allclose(sorted_rows(inputs.numpy(), targets.numpy()), sorted_rows(*expected), atol=2e-5)


@pytest.mark.parametrize("n_samples", [2, 7, 100])
def test_circles_without_noise_are_scikit_learns(n_samples: int) -> None:
    inputs, targets = datasets.make_circles(n_samples, factor=0.3, noise_std=0.0)
    expected = sklearn_datasets.make_circles(n_samples, factor=0.3, shuffle=False)
    np.testing.assert_allclose(sorted_rows(inputs.numpy(), targets.numpy()), sorted_rows(*expected), atol=2e-5)


@pytest.mark.parametrize(("n_arms", "n_turns"), [(2, 1.0), (3, 0.75), (5, 2.0)])
def test_spiral_points_lie_on_the_arm_of_their_class(n_arms: int, n_turns: float) -> None:
    inputs, targets = datasets.make_spirals(200, n_arms=n_arms, n_turns=n_turns, noise_std=0.0)
    points = inputs.double()
    radius = points.norm(dim=1)
    turns = torch.atan2(points[:, 1], points[:, 0]) / (2 * torch.pi)
    arm = (turns - n_turns * radius) * n_arms
    distance_in_arms = (arm - targets + n_arms / 2) % n_arms - n_arms / 2
    assert distance_in_arms.abs().max() < 1e-3
    assert torch.bincount(targets).tolist() == torch.bincount(torch.arange(200) % n_arms).flip(0).tolist()
    assert radius.max() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.make_projectile(5, height_range=(-1, 2)), r"height_range\[0\] must be in \[0, inf\), got -1"),
        (lambda: datasets.make_projectile(5, drag=-0.1), r"drag must be in \[0, 1\], got -0.1"),
        (lambda: datasets.make_spirals(2, n_arms=3), "n_samples must be at least 3, got 2"),
        (lambda: datasets.make_two_moons(1), "n_samples must be at least 2, got 1"),
    ],
)
def test_bad_generator_arguments_are_shown(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
