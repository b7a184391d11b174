"""The default table of homework 5, with faults, and the checks of the tasks that turn a table into numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes

from course_utils.homework.engine.judge import Mistake, judge, not_attempted
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict

__all__ = ["EXERCISES", "MISSING", "check_clean", "check_prepare", "messy_diabetes"]

EXERCISES = (
    "H5.1 Clean the table",
    "H5.2 Prepare without a leak",
    "H5.3 An MLP of your own",
    "H5.4 Tune several combinations",
    "H5.5 A paired comparison",
    "H5.6 Conclude",
)

_NAMES = {"bmi": " BMI", "bp": "Bp ", "progression": "Progression "}
MISSING = ("", "?", "n/a", "na", "-999")


def messy_diabetes(*, seed: int = 0) -> pd.DataFrame:
    """Return 442 patients of the diabetes study as a careless export, every value a text.

    The measurements are those that scikit-learn bundles (Efron, Hastie, Johnstone & Tibshirani 2004, "Least angle
    regression"); the target ``progression`` is a measure of the disease a year later. The faults were planted here:
    missing values in several spellings, also of the target, rows entered twice, blanks and upper case.

    Args:
        seed: of the faults.
    """
    rng = np.random.default_rng(seed)
    table = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    table["sex"] = table["sex"].map({1.0: "Group one", 2.0: "group two"})
    text: pd.DataFrame = table.astype(str)
    for name in ("bmi", "bp", "s3", "s6", "sex"):
        rows = rng.choice(len(text), 15, replace=False)
        text.loc[rows, name] = rng.choice(["", " ?", "N/A", "na ", "-999"], len(rows))
    text.loc[rng.choice(len(text), 8, replace=False), "progression"] = "n/a"
    rows = rng.choice(len(text), 60, replace=False)
    text.loc[rows, "sex"] = " " + text.loc[rows, "sex"].str.upper() + " "
    copies = text.iloc[rng.choice(len(text), 20, replace=False)].copy()
    copies["sex"] = copies["sex"].str.lower() + " "
    text = pd.concat([text, copies]).sample(frac=1, random_state=seed).reset_index(drop=True)
    text.columns = pd.Index([_NAMES.get(name, name) for name in text.columns])
    return text


def check_clean(clean: Any, *, seed: int = 0) -> Verdict:
    """Judge ``clean(table, target) -> DataFrame``."""
    exercise = EXERCISES[0]
    if not_attempted(clean):
        return Verdict(exercise, "todo", "not attempted yet")
    if not callable(clean):
        return Verdict(exercise, "wrong", "the check takes the function itself, without calling it")
    cases, expected, mistakes = _cleaning_cases(seed)
    answers = []
    for number, (table, target) in enumerate(cases):
        handed = table.copy(deep=True)
        outcome = run(clean, handed, target, seconds=20, quiet=number > 0)
        if outcome.todo:
            return Verdict(exercise, "todo", "not attempted yet")
        if outcome.failure:
            return Verdict(exercise, "wrong", outcome.failure)
        if not handed.equals(table) or list(handed.columns) != list(table.columns):
            return Verdict(exercise, "wrong", "it changes the table that it was given: work on a copy")
        answers.append(outcome.value)
    faults = [_table_fault(right, got) for right, got in zip(expected, answers, strict=True)]
    if not any(faults):
        return Verdict(exercise, "right", f"Right: {len(cases[2][0])} rows came, {len(expected[2])} are usable.")
    for says, made in mistakes:
        if not any(_table_fault(wrong, got) for wrong, got in zip(made, answers, strict=True)):
            return Verdict(exercise, "wrong", says)
    return Verdict(exercise, "wrong", next(filter(None, faults)))


@lru_cache(maxsize=2)
def _cleaning_cases(
    seed: int,
) -> tuple[list[tuple[pd.DataFrame, str]], list[pd.DataFrame], list[tuple[str, list[pd.DataFrame]]]]:
    """What is cleaned, how it is cleaned rightly, and how with each mistake."""
    cases = [(_small_table(seed), "y"), (_small_table(seed + 1), "y"), (messy_diabetes(seed=seed), "progression")]
    mistakes = [(says, [_clean(*case, **options) for case in cases]) for says, options in _CLEANING_MISTAKES]
    return cases, [_clean(*case) for case in cases], mistakes


def _clean(
    table: pd.DataFrame, target: str, *, strip: bool = True, lower: bool = True, codes: Sequence[str] = MISSING,
    missing_case: bool = True, numbers: bool = True, drop_copies: str = "after", drop_target: bool = True,
    fill: str = "", drop_missing: bool = False, reset: bool = True, outliers: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Clean as the task says, or with the mistakes that the options name."""
    result = table.copy()
    result.columns = pd.Index([str(name).strip().lower() for name in result.columns])
    if drop_copies == "before":
        result = result.drop_duplicates()
    for name in result.columns:
        column = result[name].astype(object)
        values = column.str.strip() if strip else column
        is_missing = (values.str.lower() if missing_case else values).isin(codes)
        values = (values.str.lower() if lower else values).mask(is_missing, np.nan)
        as_numbers = pd.to_numeric(values, errors="coerce")
        whole = bool((as_numbers.notna() | is_missing).all())
        result[name] = as_numbers.astype(float) if whole and numbers else values
    if drop_copies == "after":
        result = result.drop_duplicates()
    if drop_target:
        result = result[result[target].notna()]
    if drop_missing:
        result = result.dropna()
    if outliers:
        low, high = result[target].quantile([0.05, 0.95])
        result = result[result[target].between(low, high)]
    for name in result.columns if fill else ():
        if result[name].dtype.kind == "f":
            result[name] = result[name].fillna(0.0 if fill == "zero" else result[name].agg(fill))
    return result.reset_index(drop=True) if reset else result


_CLEANING_MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("it keeps rows without a target: nobody can learn from them, and a filled-in target is made up",
     {"drop_target": False}),
    ("it fills gaps with the mean of the column, test rows included: leave them, the next task fills them",
     {"fill": "mean"}),
    ("it fills gaps with the median of the column, test rows included: leave them, the next task fills them",
     {"fill": "median"}),
    ("it fills gaps with 0, which is a measurement nobody made: leave them missing", {"fill": "zero"}),
    ("it drops every row with a gap: only a missing target costs the row", {"drop_missing": True}),
    ("it keeps rows that were entered twice: copies on both sides of a split are a leak", {"drop_copies": ""}),
    ("it looks for copies before the values are repaired, and misses those that differ in blanks, case or the spelling "
     "of missing", {"drop_copies": "before"}),
    ("it leaves -999 in: that is a code for missing, no measurement", {"codes": MISSING[:-1]}),
    ("it leaves the index with holes: number the rows 0, 1, 2, …", {"reset": False}),
    ("it throws rows away because of the value of their target: a model then looks better than it is",
     {"outliers": True}),
    ("the spellings of missing count in upper case too, such as N/A", {"missing_case": False}),
    ("texts are not in lower case: 'Group one' and 'group one' are one category", {"lower": False}),
    ("blanks around the values are left: 'a' and 'a ' are one category", {"strip": False}),
    ("numbers are still text: a column whose values are all numbers becomes float64", {"numbers": False}),
]  # fmt: skip


def _small_table(seed: int) -> pd.DataFrame:
    """Every fault on purpose, among values drawn from the seed."""
    rng = np.random.default_rng(seed)
    numbers = [f"{value:.2f}" for value in rng.normal(50, 9, 24)]
    table = pd.DataFrame({
        " Age": numbers[:12],
        "Town ": ["Bern", "bern ", " BERN", "Chur", "chur", "CHUR ", "bern", "Chur", "Chur", "bern", "n/a", "N/A "],
        "size": rng.permutation([*(f" {value:.1f}" for value in rng.normal(1.7, 0.1, 8)), "?", "-999", "", "NA"]),
        "Y": [*numbers[12:22], "-999", "N/a"],
    })  # fmt: skip
    copies = table.iloc[[0, 3]].copy()
    copies["Town "] = copies["Town "].str.upper() + " "
    return pd.concat([table, table.iloc[[5]], copies, table.iloc[[1]]]).sample(frac=1, random_state=seed)


def _table_fault(right: pd.DataFrame, got: Any) -> str:
    """Return how a table differs from the right one, in a sentence; nothing if it does not."""
    if got is None:
        return "it returns None: is the `return` missing?"
    if not isinstance(got, pd.DataFrame):
        return f"it returns a {type(got).__name__}; a DataFrame is expected"
    if list(got.columns) != list(right.columns):
        return f"the columns are {list(got.columns)}; stripped and in lower case they are {list(right.columns)}"
    if len(got) != len(right):
        return f"{len(got)} rows are left where {len(right)} should be: which rows does the task drop, and when?"
    for name in right.columns:
        is_float = right[name].dtype == np.float64
        if is_float and got[name].dtype != np.float64:
            return f"column {name!r} holds numbers and has dtype {got[name].dtype}; float64 is expected"
        if not np.array_equal(got[name].isna(), right[name].isna()):
            return f"in column {name!r}, {int(got[name].isna().sum())} values are missing and should be others or more"
        left, other = right[name].dropna().tolist(), got[name].dropna().tolist()
        if left != other and not (is_float and np.allclose(left, other)):
            return f"column {name!r} has other values than the repaired ones, or they stand in another order"
    return "" if list(got.index) == list(range(len(got))) else "the index should be 0, 1, 2, …"


def check_prepare(prepare: Any, *, seed: int = 0) -> Verdict:
    """Judge ``prepare(train, test) -> (train_values, test_values)``."""
    mistakes = [
        Mistake("a leak: mean, standard deviation or median come from training and test rows together",
                lambda a, b: _prepare(a, b, scale_from="both", fill_from="both")),
        Mistake("a leak: gaps are filled with the median of all rows; only training rows may be asked",
                lambda a, b: _prepare(a, b, fill_from="both")),
        Mistake("a leak: mean and standard deviation come from training and test rows together",
                lambda a, b: _prepare(a, b, scale_from="both")),
        Mistake("the test rows are scaled by their own mean and standard deviation: use the training rows'",
                lambda a, b: _prepare(a, b, scale_from="own")),
        Mistake("gaps are filled with the mean: take the training median",
                lambda a, b: _prepare(a, b, middle=np.nanmean)),
        Mistake("gaps are filled with 0 before scaling: take the training median",
                lambda a, b: _prepare(a, b, middle=lambda x: 0.0)),
        Mistake("the standard deviation divides by n here, ddof=0", lambda a, b: _prepare(a, b, ddof=1)),
        Mistake("it divides by the variance: take its square root", lambda a, b: _prepare(a, b, power=2)),
        Mistake("mean and standard deviation are those of the column before its gaps are filled: fill first",
                lambda a, b: _prepare(a, b, fill_first=False)),
        Mistake("the levels of text columns come from training and test rows: take those of the training rows",
                lambda a, b: _prepare(a, b, levels_from="both")),
        Mistake("the first level is left out: give every level a column", lambda a, b: _prepare(a, b, drop_first=True)),
    ]  # fmt: skip
    cases = [_two_tables(seed + number, *sizes) for number, sizes in enumerate([(20, 9), (12, 5), (31, 8)])]
    verdict = judge(
        prepare,
        exercise=EXERCISES[1],
        reference=_prepare,
        cases=cases,
        mistakes=mistakes,
        names=("train_values", "test_values"),
        right="Right: whatever is learned, is learned from the training rows.",
    )
    if verdict:
        train, test = copy.deepcopy(cases[0])
        prepare(train, test)
        if not (train.equals(cases[0][0]) and test.equals(cases[0][1])):
            return Verdict(EXERCISES[1], "wrong", "it changes the tables that it was given: work on copies")
    return verdict


def _prepare(
    train: pd.DataFrame, test: pd.DataFrame, *, scale_from: str = "train", fill_from: str = "train",
    levels_from: str = "train", middle: Callable[..., Any] = np.nanmedian, ddof: int = 0, power: int = 1,
    fill_first: bool = True, drop_first: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Prepare as the task says, or with the mistakes that the options name."""
    both = pd.concat([train, test])
    numeric = [name for name in train.columns if train[name].dtype.kind == "f"]
    blocks: list[tuple[Any, Any]] = []
    for name in numeric:
        fill = middle((both if fill_from == "both" else train)[name].to_numpy())
        filled = [part[name].fillna(fill).to_numpy() for part in (train, test, both)]
        learned = filled if fill_first else [part[name].to_numpy() for part in (train, test, both)]
        sources = {"train": (0, 0), "both": (2, 2), "own": (0, 1)}[scale_from]
        columns = []
        for part, source in zip(filled[:2], sources, strict=True):
            mean, std = np.nanmean(learned[source]), np.nanstd(learned[source], ddof=ddof) ** power
            columns.append((part[:, None] - mean) / std if std > 0 else np.zeros((len(part), 1)))
        blocks.append((columns[0], columns[1]))
    for name in train.columns.difference(numeric, sort=False):
        levels = sorted((both if levels_from == "both" else train)[name].dropna().unique())[int(drop_first) :]
        codes = [(part[name].to_numpy()[:, None] == np.array(levels, dtype=object)) * 1.0 for part in (train, test)]
        blocks.append((codes[0], codes[1]))
    return np.hstack([first for first, _ in blocks]), np.hstack([second for _, second in blocks])


def _two_tables(seed: int, n_train: int, n_test: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    table = pd.DataFrame({
        "town": pd.Series(rng.permutation(np.resize(["bern", "chur", "thun"], n)), dtype=object),
        "size": rng.gamma(2.0, 30.0, n),
        "always": np.full(n, 3.0),
        "age": rng.normal(50, 9, n),
        "kind": pd.Series(np.resize(["a", "b"], n), dtype=object),
    })  # fmt: skip
    table.loc[rng.choice(n_train, 3, replace=False), "size"] = np.nan
    table.loc[[1, n - 1], "town"] = np.nan
    table.loc[n - 3, "size"] = np.nan
    table.loc[n - 3, "town"] = "aarau"
    table.loc[n - 2, "always"] = 4.0
    return table.iloc[:n_train], table.iloc[n_train:]
