"""Turn a raw table into numbers, with everything that is learned learned from the training rows.

`make_preprocessor` puts scikit-learn's transformers together; ``fit`` sees the training part alone, ``transform``
treats whatever comes later by what was learned there.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from course_utils._validation import check_in_range, check_int, check_one_of

__all__ = ["cardinalities", "make_preprocessor"]

_NUMERIC = ("standard", "quantile", "passthrough")
_CATEGORICAL = ("onehot", "ordinal")
_MISSING = "(missing)"


def make_preprocessor(
    X: Any,
    *,
    numeric: str = "standard",
    categorical: str = "onehot",
    min_frequency: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> ColumnTransformer:
    """Return an unfitted transformer that fits a table like X; of X it reads the columns' types, no value.

    The result is a dense float64 array: the numeric columns in their order, one 0/1 column for every numeric one that
    had missing values in training, then the categorical ones.

    - Numbers and booleans are numeric. A missing value becomes the training median (0 in a column that is missing
      throughout). A column that is constant in training becomes 0, also where it later is not: nothing was learned
      about it.
    - Text, objects and pandas categories are categorical. Missing is a level of its own, "(missing)". Levels are
      compared as text, an integral number without decimals: 1, 1.0 and "1" are one level.

    Args:
        X: (n, n_columns) DataFrame, or a NumPy array or nested list of numbers.
        numeric: ``"standard"``, mean 0 and standard deviation 1; ``"quantile"``, the normal distribution by ranks,
            from one quantile per 30 rows, but at least 10 and at most 1000; ``"passthrough"``, no scaling.
        categorical: ``"onehot"``, one 0/1 column a level, all 0 for a level that training did not have (or, with
            ``min_frequency``, that of the rare levels, if there are any); ``"ordinal"``, one column of codes, 1 to c
            for the levels of the training part and 0 for any other.
        min_frequency: levels rarer than this, in rows or (below 1) as a share of them, are merged into one; so is
            missing.
        random_state: draws the 100,000 rows from which ``"quantile"`` learns if there are more.

    Returns:
        A ``ColumnTransformer`` for tables with the same columns: found by name if all names are text, else by position.

    Raises:
        TypeError: a column holds dates, times, complex numbers or other things that are neither of the two.
        ValueError: X has not two dimensions or no column, a name stands twice, or an option is none of these.

    Source: the quantile rule is that of Gorishniy et al. 2021, arXiv:2106.11959. Differs: no noise against ties.
    """
    check_one_of(numeric, "numeric", _NUMERIC)
    check_one_of(categorical, "categorical", _CATEGORICAL)
    if isinstance(min_frequency, numbers.Integral):
        check_int(min_frequency, "min_frequency", minimum=1)
    elif min_frequency is not None:
        check_in_range(min_frequency, "min_frequency", 0.0, 1.0, closed="()")
    of_numbers, of_levels = _split_columns(X)
    to_float = ("to_float", FunctionTransformer(_to_float, feature_names_out="one-to-one"))
    blocks: list[tuple[str, Pipeline, list[Any]]] = []
    if of_numbers:
        # An empty column must stay: a model counts its inputs before it sees the values.
        impute = ("impute", SimpleImputer(strategy="median", keep_empty_features=True))
        scale = [] if numeric == "passthrough" else [("scale", _Scaler(numeric, random_state))]
        blocks.append(("numeric", Pipeline([to_float, impute, *scale]), of_numbers))
        # Beside the values, not behind them: an indicator is 0 or 1 and needs no scaling.
        indicator = MissingIndicator(features="missing-only", sparse=False, error_on_new=False)
        blocks.append(("missing", Pipeline([to_float, ("indicate", indicator)]), of_numbers))
    if of_levels:
        to_levels = ("to_levels", FunctionTransformer(_to_levels, feature_names_out="one-to-one"))
        encode: list[tuple[str, Any]]
        if categorical == "onehot":
            rule = "infrequent_if_exist"  # all zeros where no level is rare
            encode = [("encode", OneHotEncoder(handle_unknown=rule, sparse_output=False, min_frequency=min_frequency))]
        else:
            encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, min_frequency=min_frequency)
            encode = [("encode", encoder), ("from_one", FunctionTransformer(_add_one, feature_names_out="one-to-one"))]
        blocks.append(("categorical", Pipeline([to_levels, *encode]), of_levels))
    return ColumnTransformer(blocks, sparse_threshold=0.0, verbose_feature_names_out=False)


def cardinalities(preprocessor: ColumnTransformer) -> tuple[int, ...]:
    """Return how many codes each ordinal column can have, 0 for unknown levels included.

    They are the last ``len(cardinalities(preprocessor))`` columns of the result.

    Args:
        preprocessor: what `make_preprocessor` returned, fitted.

    Returns:
        One number a categorical column; ``()`` with ``categorical="onehot"`` or without such columns.

    Raises:
        TypeError: it was not made here.
        sklearn.exceptions.NotFittedError: it has not been fitted.
    """
    if not isinstance(preprocessor, ColumnTransformer):
        raise TypeError(f"preprocessor must be what make_preprocessor returns, got {type(preprocessor).__name__}")
    check_is_fitted(preprocessor)
    pipeline = preprocessor.named_transformers_.get("categorical")
    encoder = pipeline["encode"] if isinstance(pipeline, Pipeline) else None
    if not isinstance(encoder, OrdinalEncoder):
        return ()
    rare = getattr(encoder, "infrequent_categories_", [None] * len(encoder.categories_))
    # All rare levels together have one code.
    merged = [0 if levels is None else len(levels) - 1 for levels in rare]
    return tuple(1 + len(levels) - fewer for levels, fewer in zip(encoder.categories_, merged, strict=True))


class _Scaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Scale every column, with settings that suit the number of rows, and silence those that do not vary."""

    def __init__(self, kind: str, random_state: int | np.random.RandomState | None = None) -> None:
        self.kind = kind
        self.random_state = random_state

    def fit(self, X: NDArray[np.float64], y: Any = None) -> _Scaler:
        """Learn from (n, n_columns) without missing values."""
        n_rows, self.n_features_in_ = X.shape
        self.varies_ = X.max(axis=0) > X.min(axis=0)
        if self.kind == "standard":
            self.scaler_ = StandardScaler()
        else:
            # With a quantile for every row the ranks of a small sample are learned by heart.
            n_quantiles = min(n_rows, max(10, min(n_rows // 30, 1000)))
            self.scaler_ = QuantileTransformer(
                n_quantiles=n_quantiles, output_distribution="normal", subsample=100_000, random_state=self.random_state
            )
        self.scaler_.fit(X)
        return self

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale (n, n_columns)."""
        check_is_fitted(self)
        return np.where(self.varies_, self.scaler_.transform(X), 0.0)


def _split_columns(X: Any) -> tuple[list[Any], list[Any]]:
    """Return names (or else positions) of the numeric and of the categorical columns."""
    if not isinstance(X, pd.DataFrame):
        shape = np.shape(X)
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"X must be a DataFrame or an array (n, n_columns) with a column, got shape {shape}")
        return list(range(shape[1])), []
    if X.shape[1] == 0:
        raise ValueError(f"X must have a column, got shape {X.shape}")
    if not X.columns.is_unique:
        raise ValueError(f"column names must be distinct, got more than one {list(X.columns[X.columns.duplicated()])}")
    by_name = all(isinstance(name, str) for name in X.columns)
    of_numbers: list[Any] = []
    of_levels: list[Any] = []
    for position, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True)):
        key = name if by_name else position
        if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):  # booleans count
            of_numbers.append(key)
        elif isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or pd.api.types.is_object_dtype(dtype):
            of_levels.append(key)
        else:
            raise TypeError(
                f"column {name!r} holds {dtype}; make numbers of it (a date: its year, month, or days since another), "
                "or text if its values are categories"
            )
    return of_numbers, of_levels


def _to_float(table: Any) -> NDArray[np.float64]:
    if isinstance(table, pd.DataFrame):  # column by column: booleans and pandas' own integers have no common type
        columns = [column.to_numpy(dtype=np.float64, na_value=np.nan) for _, column in table.items()]
        return np.column_stack(columns)
    return np.asarray(table, dtype=np.float64)


def _to_levels(table: Any) -> NDArray[np.object_]:
    """Return the levels as text."""
    result = np.empty(table.shape, dtype=object)
    for position, (name, column) in enumerate(pd.DataFrame(table).items()):
        try:
            codes, uniques = pd.factorize(column)
        except TypeError as error:
            raise TypeError(f"column {name!r} holds values that are no categories: {error}") from error
        # A word for missing, since None and NaN do not survive every table between here and the encoder.
        levels = np.array([*map(_as_text, uniques), _MISSING], dtype=object)
        result[:, position] = levels[codes]  # the code of a missing value is -1: the last
    return result


def _as_text(level: Any) -> str:
    # A column of numbers turns from integers to floats as soon as one is missing; its levels stay the same.
    is_number = isinstance(level, int | float | np.integer | np.floating) and not isinstance(level, bool)
    if is_number and float(level).is_integer():
        return str(int(level))
    return str(level)


def _add_one(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    return codes + 1
