"""Look at the data, turn a raw table into numbers, augment."""

from course_utils.preprocessing.augmentation import add_noise, mixup, random_rotate, random_shift, rotate, shift
from course_utils.preprocessing.cleaning import (
    Duplicates,
    find_duplicates,
    missing_report,
    multivariate_outliers,
    univariate_outliers,
)
from course_utils.preprocessing.columns import cardinalities, make_preprocessor

__all__ = [
    "Duplicates",
    "add_noise",
    "cardinalities",
    "find_duplicates",
    "make_preprocessor",
    "missing_report",
    "mixup",
    "multivariate_outliers",
    "random_rotate",
    "random_shift",
    "rotate",
    "shift",
    "univariate_outliers",
]
