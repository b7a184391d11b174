"""Write boston.txt in StatLib's layout from the CSV file that scikit-learn shipped until 1.1.

    python data/boston_housing/make_boston.py sklearn/datasets/data/boston_house_prices.csv

The CSV is in the wheel of scikit-learn 1.1.3. The layout is the one of http://lib.stat.cmu.edu/datasets/boston: 22
header lines, then two physical lines a record in fixed-width fields. The header's wording is the course's own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

CSV_SHA256 = "d98212636026544fc9b9c0f372e5f819872e6fa6fa757ab025efdda22180f2d6"
HEADER = """\
 Boston house prices: 506 census tracts of the Boston area in 1970, 14 columns.
 Table compiled for Harrison & Rubinfeld (1978), Hedonic housing prices and the
 demand for clean air, J. Environ. Econ. Manage. 5, 81-102. Numbers as kept by
 StatLib; this header is the course's. Each record takes two lines: 11 values,
 then 3. Column B derives from race and MEDV stops at 50: see README.md.

 Columns in order:
 CRIM     crime rate per capita of the town (scale undocumented)
 ZN       % of the town's residential land zoned for lots over 25,000 sq. ft
 INDUS    % of the town's land in non-retail business
 CHAS     1 where the tract touches the Charles River, else 0
 NOX      nitrogen oxides in the air, parts per 10 million
 RM       mean number of rooms per dwelling
 AGE      % of owner-occupied homes built before 1940
 DIS      weighted distance to five employment centres
 RAD      index of access to the radial highways
 TAX      property tax, $ per $10,000 of full value
 PTRATIO  pupils per teacher in the town
 B        1000 (Bk - 0.63)^2, Bk the share of Black residents of the town
 LSTAT    % of the population that the authors class as lower status
 MEDV     median value of owner-occupied homes, $1000

"""
# One field a column; the line breaks where StatLib's does.
FIRST_LINE = "{:8.5f}{:7.2f}{:8.3f}{:3.0f}{:8.4f}{:8.4f}{:7.2f}{:8.4f}{:4.0f}{:7.1f}{:7.2f}\n"
SECOND_LINE = "{:8.2f}{:7.2f}{:7.2f}\n"


def statlib_text(csv_path: Path) -> str:
    """Return the whole text of boston.txt.

    Raises:
        ValueError: the CSV is not scikit-learn's, or a number does not survive its field's width.
    """
    content = csv_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != CSV_SHA256:
        raise ValueError(f"{csv_path} must have sha256 {CSV_SHA256}, got {found}")
    rows = csv.reader(content.decode("ascii").splitlines()[2:])  # below the sizes and the names
    return HEADER + "".join(_record([float(word) for word in row]) for row in rows)


def _record(values: list[float]) -> str:
    text = FIRST_LINE.format(*values[:11]) + SECOND_LINE.format(*values[11:])
    if [float(word) for word in text.split()] != values:
        raise ValueError(f"the fields of the StatLib layout are too narrow for {values}")
    return text


def main() -> None:
    """Write the file beside this script, or where ``--output`` says."""
    parser = argparse.ArgumentParser(description="Write boston.txt from scikit-learn's CSV file.")
    parser.add_argument("csv_path", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("boston.txt"))
    arguments = parser.parse_args()
    arguments.output.write_bytes(statlib_text(arguments.csv_path).encode("ascii"))


if __name__ == "__main__":
    main()
