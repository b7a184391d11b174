"""Every data set has a card, and the card's figures are those of the data."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from course_utils import datasets
from course_utils.datasets import FASHION_MNIST_CLASSES, load_boston_housing, load_fashion_mnist, loading

ROOT = datasets.data_dir()
FOLDERS = sorted(path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__")
HEADINGS = [
    "Source", "Citation", "Licence", "Shape", "Columns", "Target", "Known problems", "Split", "Checksum",
]  # fmt: skip


def read_card(name: str) -> str:
    return (ROOT / name / "README.md").read_text(encoding="utf-8")


def table_under(card: str, heading: str) -> list[list[str]]:
    """The body cells of the table in a card's section, row by row."""
    section = re.split(r"^## ", card, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading + "\n"))
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_checksums_hold() -> None:
    lines = (ROOT / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    assert lines
    for line in lines:
        expected, name = line.split("  ")
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == expected, name


def test_every_data_file_has_a_checksum() -> None:
    listed = {line.split("  ")[1] for line in (ROOT / "SHA256SUMS").read_text(encoding="ascii").splitlines()}
    about_data = {"README.md", "LICENSE.txt"}
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and path.name not in about_data
    }
    assert listed == files


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_has_a_card_with_all_headings(folder: Path) -> None:
    assert re.findall(r"^## (.+)$", read_card(folder.name), flags=re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_index_links_to_every_card(folder: Path) -> None:
    assert f"({folder.name}/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_index_lists_every_generator() -> None:
    index = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(make_\w+)` \|", index, flags=re.MULTILINE))
    assert listed == {name for name in datasets.__all__ if name.startswith("make_")}


def test_boston_card_describes_the_columns_as_the_loader_does() -> None:
    data = load_boston_housing(include_b=True)
    table = data.features.assign(MEDV=data.target)
    rows = table_under(read_card("boston_housing"), "Columns")
    assert [row[0] for row in rows] == list(table.columns)
    for name, meaning, unit, low, high in rows:
        assert meaning == data.meanings[name]
        assert unit == data.units[name]
        assert (float(low), float(high)) == (table[name].min(), table[name].max()), name


def test_boston_card_gives_the_true_figures() -> None:
    data = load_boston_housing(include_b=True)
    table = data.features.assign(MEDV=data.target)
    card = read_card("boston_housing")
    assert f"{len(table)} rows, {table.shape[1]} columns, no missing values, no duplicate rows" in card
    assert not table.isna().to_numpy().any()
    assert not table.duplicated().any()
    assert f"{(data.target == 50).sum()} rows stand at exactly 50" in card
    assert f"Mean {data.target.mean():.2f}, standard deviation {data.target.std():.2f}" in card
    assert f"CRIM reaches {table['CRIM'].max():.2f}" in card
    parsed = table.to_numpy().astype("<f8").tobytes()
    assert f"`{hashlib.sha256(parsed).hexdigest()}`" in card


def test_fashion_card_gives_the_true_class_counts() -> None:
    data = load_fashion_mnist()
    rows = table_under(read_card("fashion_mnist"), "Target")
    assert [(int(label), name) for label, name, _, _ in rows] == list(enumerate(FASHION_MNIST_CLASSES))
    assert [int(row[2]) for row in rows] == np.bincount(data.train_labels).tolist()
    assert [int(row[3]) for row in rows] == np.bincount(data.test_labels).tolist()


def test_fashion_card_describes_the_arrays_of_the_file() -> None:
    rows = table_under(read_card("fashion_mnist"), "Columns")
    with np.load(ROOT / "fashion_mnist" / "fashion_mnist_subset.npz", allow_pickle=False) as arrays:
        found = {name: (" × ".join(map(str, arrays[name].shape)), str(arrays[name].dtype)) for name in arrays.files}
    assert {name: (shape, dtype) for name, shape, dtype, _ in rows} == found


def test_fashion_card_gives_the_true_figures() -> None:
    data = load_fashion_mnist()
    card = " ".join(read_card("fashion_mnist").split())
    pixels = data.train_images / 255
    counts = f"{len(data.train_images):,} training and {len(data.test_images):,} test images of 28×28"
    assert counts in card
    assert f"training images {pixels.mean():.4f}, standard deviation {pixels.std():.4f}, " in card


def test_fashion_card_lists_the_checksums_that_the_download_demands() -> None:
    rows = table_under(read_card("fashion_mnist"), "Checksum")
    demanded = {f"{name}.gz": f"`{sha256}`" for name, sha256 in loading._FASHION_MNIST_SHA256.items()}
    assert [(name, sha256) for name, sha256 in rows] == list(demanded.items())
