"""Turn a raw table into numbers, with everything that is learned learned from the training rows.

`make_preprocessor` puts scikit-learn's transformers together; ``fit`` sees the training part alone, ``transform``
treats whatever comes later by what was learned there. `as_frame`, `numeric_columns`, `to_numbers` and `to_levels` read
tables of any origin, so that nothing behind them has to know more than two kinds of columns.
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

from course_utils._validation import check_one_of

__all__ = ["as_frame", "cardinalities", "make_preprocessor", "numeric_columns", "to_levels", "to_numbers"]

_NUMERIC = ("standard", "quantile", "passthrough")
_CATEGORICAL = ("onehot", "ordinal")
_MISSING = "(missing)"
# In the words of `pandas.api.types.infer_dtype`.
_NO_INPUT = {"complex", "date", "datetime", "datetime64", "period", "time", "timedelta", "timedelta64"}


def make_preprocessor(
    X: Any,
    *,
    numeric: str = "standard",
    categorical: str = "onehot",
    min_frequency: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> ColumnTransformer:
    """Return an unfitted transformer that fits a table like X; of X it reads the columns' types alone.

    The result is a dense float64 array: the numeric columns in their order, one 0/1 column for every numeric one that
    had missing values in training, then the categorical ones.

    - Numbers and booleans are numeric, in whatever type they come; so is a column of objects if all of them are
      numbers. A missing value becomes the training median (0 in a column that is missing throughout). A column that is
      constant in training becomes 0, also where it later is not: nothing was learned about it.
    - Text, pandas categories and all other objects are categorical. Missing is a level of its own, "(missing)". Levels
      are compared as text, an integral number without decimals: 1, 1.0 and "1" are one level.

    Args:
        X: (n, n_columns) DataFrame of pandas or polars, or a NumPy array or nested list of numbers.
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
        ValueError: X has not two dimensions or no column, a name stands twice, or an option is none of these
            (``min_frequency``: from ``fit``).

    Source: the quantile rule is that of Gorishniy et al. 2021, arXiv:2106.11959. Differs: no noise against ties.
    """
    check_one_of(numeric, "numeric", _NUMERIC)
    check_one_of(categorical, "categorical", _CATEGORICAL)
    of_numbers, of_levels = _split_columns(X)
    to_float = ("to_float", FunctionTransformer(to_numbers, feature_names_out="one-to-one"))
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
        to_text = ("to_text", FunctionTransformer(to_levels, feature_names_out="one-to-one"))
        encode: list[tuple[str, Any]]
        if categorical == "onehot":
            rule = "infrequent_if_exist"  # all zeros where no level is rare
            encode = [("encode", OneHotEncoder(handle_unknown=rule, sparse_output=False, min_frequency=min_frequency))]
        else:
            encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, min_frequency=min_frequency)
            encode = [("encode", encoder), ("from_one", FunctionTransformer(_add_one, feature_names_out="one-to-one"))]
        blocks.append(("categorical", Pipeline([to_text, *encode]), of_levels))
    # Whatever scikit-learn's global ``transform_output`` says holds for the result, not between the steps.
    steps = [(name, pipeline.set_output(transform="default"), columns) for name, pipeline, columns in blocks]
    return ColumnTransformer(steps, sparse_threshold=0.0, verbose_feature_names_out=False)


def cardinalities(preprocessor: ColumnTransformer) -> tuple[int, ...]:
    """Return how many codes each ordinal column can have, 0 for unknown levels included.

    They are the last ``len(cardinalities(preprocessor))`` columns of the result.

    Args:
        preprocessor: what `make_preprocessor` returned, fitted.

    Returns:
        One number a categorical column; ``()`` with ``categorical="onehot"`` or without such columns.

    Raises:
        sklearn.exceptions.NotFittedError: it has not been fitted.
    """
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

    def fit(self, X: Any, y: Any = None) -> _Scaler:
        """Learn from (n, n_columns) without missing values."""
        X = np.asarray(X)  # a DataFrame after ``set_output``
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
        self.scaler_.set_output(transform="default").fit(X)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Scale (n, n_columns)."""
        return np.where(self.varies_, self.scaler_.transform(np.asarray(X)), 0.0)


def _split_columns(X: Any) -> tuple[list[Any], list[Any]]:
    """Return names (or else positions) of the numeric and of the categorical columns."""
    table = as_frame(X)
    shape = np.shape(table)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"X must be a DataFrame or an array (n, n_columns) with a column, got shape {shape}")
    if not isinstance(table, pd.DataFrame):
        return list(range(shape[1])), []
    if not table.columns.is_unique:
        twice = list(table.columns[table.columns.duplicated()])
        raise ValueError(f"column names must be distinct, got more than one {twice}")
    by_name = all(isinstance(name, str) for name in table.columns)
    keys = list(table.columns) if by_name else list(range(shape[1]))
    numeric = numeric_columns(table)
    return [keys[i] for i in numeric], [keys[i] for i in range(shape[1]) if i not in numeric]


def as_frame(X: Any) -> Any:
    """Return a DataFrame of polars or a table of pyarrow as one of pandas, and anything else as it is."""
    if hasattr(X, "get_columns"):  # polars
        return pd.DataFrame({column.name: column.to_numpy() for column in X.get_columns()})
    return X.to_pandas() if hasattr(X, "column_names") else X  # pyarrow


def numeric_columns(table: pd.DataFrame) -> list[int]:
    """Return the positions of the columns that hold numbers or booleans, in whatever type; the others hold levels.

    Raises:
        TypeError: a column holds dates, times or complex numbers.
    """
    return [index for index, (name, column) in enumerate(table.items()) if _is_numeric(name, column)]


def _is_numeric(name: Any, column: pd.Series[Any]) -> bool:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return False
    kind = getattr(dtype, "kind", "O")  # pandas' own types have one too
    if kind not in "mMc" and (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)):
        return True
    values = column.astype(object).dropna()
    inferred = pd.api.types.infer_dtype(values)
    if kind in "mMc" or inferred in _NO_INPUT:
        held = inferred if str(dtype) == "object" else dtype
        raise TypeError(
            f"column {name!r} holds {held}; make numbers of it (a date: its year, month, or days since another), "
            "or text if its values are categories"
        )
    return len(values) > 0 and all(isinstance(value, numbers.Number | np.bool_) for value in values)


def to_numbers(table: Any) -> NDArray[np.float64]:
    """Return a table's numbers, (n, n_columns), with NaN for whatever it has for a missing one.

    Raises:
        TypeError: a column holds dates, times, complex numbers or other objects.
        ValueError: a column holds text that is no number.
    """
    table = as_frame(table)
    if isinstance(table, pd.DataFrame):
        numeric_columns(table)  # dates would become nanoseconds
        columns = [column.to_numpy(dtype=np.float64, na_value=np.nan) for _, column in table.items()]
        return np.column_stack(columns) if columns else np.empty(table.shape)
    array = np.asarray(table)
    if array.dtype == object:
        array = np.where(pd.isna(array), np.nan, array)
    return array.astype(np.float64)


def to_levels(table: Any) -> NDArray[np.object_]:
    """Return a table's levels as text, (n, n_columns), with "(missing)" for whatever it has for a missing one.

    Raises:
        TypeError: a column holds dates, times, complex numbers or values that cannot be told apart, as lists.
    """
    table = as_frame(table)
    table = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)
    numeric_columns(table)  # of dates nothing was learned
    result = np.empty(table.shape, dtype=object)
    for position, (name, column) in enumerate(table.items()):
        try:
            codes, uniques = pd.factorize(column)
        except (TypeError, NotImplementedError) as error:
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
