# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Homework 5. Traditional ML or MLP?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw5_traditional_or_mlp.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw5_traditional_or_mlp.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw5_traditional_or_mlp.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw5_traditional_or_mlp.ipynb)
#
# Two colleagues, one table, and a bet for a year of coffee. "Neural networks win everything", says one. "Not on tables",
# says the other, and shows a benchmark. "One split, one seed", says the first, and shows another. You are the referee.
# You may not know better than they do; but you know how to ask the data so that the answer holds, and when the answer is
# that nobody can tell.
#
# This is the homework of deck `000_467c1bb93614480d`: compare an MLP of your own design with traditional machine
# learning on a table of your choice, tune both, and conclude.
#
# ## What you will practise
#
# - **cleaning** a table without looking at the answer,
# - **preparing** numbers and categories from training rows only,
# - **designing** an MLP for a table, and **tuning** it and its rivals with equal care,
# - **comparing** them by paired differences on identical splits, with an interval that knows that splits overlap,
# - **concluding** what the interval allows, and no more.
#
# **Prerequisites:** lessons 04, 06 and 07. **Time:** 5 hours; the tasks about 150 minutes, your own table 60, the report
# 90 minutes.

# %% [markdown]
# ## Points and rules
#
# | task | what | points |
# |---|---|---|
# | 5.1 ★★ | clean the table | 3 |
# | 5.2 ★★★ | prepare without a leak | 3 |
# | 5.3 ★★ | an MLP of your own | 3 |
# | 5.4 ★★ | tune several combinations | 3 |
# | 5.5 ★★ | a paired comparison | 2 |
# | 5.6 ★ | conclude | 1 |
# | report | with your own table | 5 |
# | | together | 20 |
#
# - Write your code where `raise NotImplementedError` stands; delete that line.
# - The cell below each task checks it. It answers in a sentence, as often as you like, and costs nothing. Do not change
#   those cells: grading runs them again, and the same checks on other data.
# - A function must not change the tables or arrays it is given. Later tasks use your earlier functions.

# %%
# In Colab and on Kaggle this installs the course's package; elsewhere it does nothing.
import os
import sys
from importlib.util import find_spec

if ("google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ) and find_spec("course_utils") is None:
    from IPython import get_ipython

    package = "mlp-course-utils[lessons] @ git+https://github.com/mlp-course/mlp-course"
    get_ipython().run_line_magic("pip", f"install -q '{package}'")

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from course_utils import plotting, preprocessing
from course_utils.homework import hw5, progress, require
from course_utils.homework.hw5 import (
    MISSING,
    check_clean,
    check_conclude,
    check_fit_predict_mlp,
    check_paired_interval,
    check_prepare,
    check_tune,
    messy_diabetes,
)
from course_utils.models import MLP
from course_utils.plotting import plot_dots, show
from course_utils.reproducibility import set_up
from course_utils.training import fit

set_up(seed=0)
plotting.use_theme()


def needs(*names):
    """Say so if an earlier cell has not brought these yet."""
    if missing := [name for name in names if name not in globals()]:
        raise NotImplementedError(f"solve the tasks above first: {', '.join(missing)} comes from there")


# %% [markdown]
# ## Your table
#
# Bring any CSV file with a number to predict and some hundred rows or more, which was not used in class: set `CSV` to
# its path or address and `TARGET` to the column's name in lower case. Solve the tasks with the default first.
#
# The default is the diabetes study that scikit-learn bundles: ten measurements of 442 patients, and how far the disease has
# progressed a year later. The measurements are real. The faults (gaps in five spellings, rows entered twice, blanks,
# upper case) were planted for this homework. Everything is read as text, because that is what a CSV file holds.

# %%
CSV = None
TARGET = "progression"

table = messy_diabetes() if CSV is None else pd.read_csv(CSV, dtype=str, keep_default_na=False)
print(table.shape, [*table.columns])
table.head(4)

# %% [markdown]
# ## Task 5.1 ★★ Clean the table (40 min, 3 points)
#
# Return a new table, with these repairs in this order:
#
# 1. Names of columns: no blanks around them, lower case.
# 2. Values: no blanks around them, lower case. A value that is then one of `MISSING` becomes missing (`np.nan`).
# 3. A column whose values are all numbers, apart from gaps, becomes float64. The others stay text (dtype object).
# 4. Rows that are now equal in all columns: keep the first. Rows without a target: drop. Number the rest 0, 1, 2, …
#
# And no more: nothing is filled in, since a filler computed here would have seen the test rows. No row goes because of the
# *value* of its target, since that would make every model look better than it is.

# %%
print("missing is written as", MISSING)


# %% solution="clean"
def clean(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """table: (n, columns), all text; target: its column's repaired name. Return the clean table, (m, columns)."""
    ### BEGIN SOLUTION
    result = table.copy()
    result.columns = [name.strip().lower() for name in result.columns]
    for name in result.columns:
        values = result[name].astype(object).str.strip().str.lower()
        values = values.mask(values.isin(MISSING), np.nan)
        numbers = pd.to_numeric(values, errors="coerce")
        only_numbers = (numbers.isna() == values.isna()).all()
        result[name] = numbers.astype(float) if only_numbers else values
    return result.drop_duplicates().dropna(subset=[target]).reset_index(drop=True)
    ### END SOLUTION


# %% test="clean" points=3
require(check_clean(clean))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_clean, clean)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Why must copies be looked for *last*? Because "Bern", "bern " and "BERN" are equal only after the repair.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Copy; rename the columns; for each column `.str.strip().str.lower()`, `.mask(values.isin(MISSING), np.nan)`,
# `pd.to_numeric(values, errors="coerce")`, and take the numbers if they are missing only where the values are. Then
# `drop_duplicates`, `dropna(subset=[target])`, `reset_index(drop=True)`.
#
# </details>

# %%
usable = clean(table, TARGET)
print(len(table), "rows came,", len(usable), "are usable")
print(preprocessing.find_duplicates(usable))
preprocessing.missing_report(usable).query("n_missing > 0")

# %% [markdown]
# ## Task 5.2 ★★★ Prepare without a leak (40 min, 3 points)
#
# Models want numbers without gaps. `prepare` takes the features of the training rows and of the test rows and returns two
# float64 arrays. All that is learned, is learned from the **training rows**:
#
# - Numeric columns come first, in their order. Gaps get the training *median*. Then subtract the mean and divide by the
#   standard deviation (`ddof=0`) of the training column, *its gaps filled*. A column that is constant there becomes 0.
# - Then the text columns, in their order: for each level that occurs in training, in sorted order, a column of 0 and 1.
#   A gap, or a level that training did not have, is 0 in all of them.


# %% solution="prepare"
def prepare(train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """train: (n, columns), test: (m, columns), float64 or text. Return (n, features) and (m, features)."""
    ### BEGIN SOLUTION
    parts = ([], [])
    numeric = [name for name in train.columns if train[name].dtype == np.float64]
    for name in numeric:
        median = train[name].median()
        filled = train[name].fillna(median)
        mean, std = filled.mean(), filled.std(ddof=0)
        for rows, blocks in zip((train, test), parts, strict=True):
            centred = rows[name].fillna(median) - mean
            blocks.append(centred / std if std > 0 else 0 * centred)
    for name in train.columns.difference(numeric, sort=False):
        for level in sorted(train[name].dropna().unique()):
            for rows, blocks in zip((train, test), parts, strict=True):
                blocks.append((rows[name] == level).astype(float))
    return np.column_stack(parts[0]), np.column_stack(parts[1])
    ### END SOLUTION


# %% test="prepare" points=3
require(check_prepare(prepare))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_prepare, prepare)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write down what is learned: a median, a mean, a standard deviation, a list of levels. None of them may come from `test`.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# One list of columns for each part. For a numeric column: `median`, then the filled training column, its mean
# and `std(ddof=0)`, applied to both parts. For a text column: `for level in sorted(train[name].dropna().unique())` append
# `(rows[name] == level).astype(float)`. At the end `np.column_stack`.
#
# </details>
#
# ## Task 5.3 ★★ An MLP of your own (40 min, 3 points)
#
# The design is yours: activation, optimizer, regularization. It gets prepared arrays and predicts in the target's **own
# unit**, whatever that is, so standardize the target by its *training* mean and standard deviation, and undo that at the
# end. `hidden`, `lr` and `epochs` must do what they say, and the same `seed` must give the same predictions. The check
# lets it learn a curved table, where its RMSE on unseen rows must be at most 0.7 times that of linear regression.


# %% solution="fit_predict_mlp"
def fit_predict_mlp(
    X_train: np.ndarray, y_train: np.ndarray, X_test: np.ndarray, *, hidden: tuple, lr: float, epochs: int, seed: int
) -> np.ndarray:
    """X_train: (n, features), y_train: (n,), X_test: (m, features). Return predictions, (m,)."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    mean, std = y_train.mean(), y_train.std()
    inputs, new = (torch.tensor(part, dtype=torch.float32) for part in (X_train, X_test))
    target = torch.tensor((y_train - mean) / std, dtype=torch.float32)[:, None]
    model = MLP(inputs.shape[1], hidden, 1, init="kaiming_normal")
    adamw = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    fit(model, (inputs, target), loss_fn=F.mse_loss, optimizer=adamw, max_epochs=epochs, batch_size=32, seed=seed)
    with torch.no_grad():
        return model.eval()(new).numpy()[:, 0].astype(float) * std + mean
    ### END SOLUTION


# %% test="fit_predict_mlp" points=3
require(check_fit_predict_mlp(fit_predict_mlp))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_fit_predict_mlp, fit_predict_mlp)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Outputs have the shape (batch, 1). If the target has (batch,), the difference broadcasts to (batch, batch), without an
# error.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Seed; float32 tensors; `target = ((y_train - mean) / std)[:, None]`; an `MLP(features, hidden, 1)`; Adam or AdamW;
# `fit` with `F.mse_loss`; in `eval()` and `no_grad()` predict, take column 0, multiply by `std` and add `mean`.
#
# </details>
#
# ## Task 5.4 ★★ Tune several combinations (30 min, 3 points)
#
# The MLP's rivals come in the same form: `fit_predict(X_train, y_train, X_test, **setting)`, with `X` as tables, and with
# `prepare` inside, so that each split prepares anew.


# %%
def mlp(X_train, y_train, X_test, **setting):
    train, test = prepare(X_train, X_test)
    return fit_predict_mlp(train, y_train, test, **setting, seed=0)


def ridge(X_train, y_train, X_test, *, alpha):
    train, test = prepare(X_train, X_test)
    return Ridge(alpha).fit(train, y_train).predict(test)


def forest(X_train, y_train, X_test, *, min_samples_leaf):
    train, test = prepare(X_train, X_test)
    model = RandomForestRegressor(50, min_samples_leaf=min_samples_leaf, max_features=0.5, random_state=0)
    return model.fit(train, y_train).predict(test)


# %% [markdown]
# `tune` tries each setting on each fold: it learns from the fold's training rows, predicts its validation rows, and notes
# the RMSE, the root of the mean squared error. Folds hold row *numbers*, so choose with `X.iloc[rows]`. Return the
# place of the setting whose RMSE is lowest on average, and all RMSEs.


# %% solution="tune"
def tune(fit_predict, settings: list, X: pd.DataFrame, y: np.ndarray, folds: list) -> tuple[int, np.ndarray]:
    """X: (n, columns), y: (n,), folds: k pairs of row numbers. Return (best, errors), errors (settings, k)."""
    ### BEGIN SOLUTION
    errors = np.zeros((len(settings), len(folds)))
    for i, setting in enumerate(settings):
        for j, (rows, held_out) in enumerate(folds):
            predicted = fit_predict(X.iloc[rows], y[rows], X.iloc[held_out], **setting)
            errors[i, j] = np.sqrt(np.mean((y[held_out] - predicted) ** 2))
    return int(errors.mean(axis=1).argmin()), errors
    ### END SOLUTION


# %% test="tune" points=3
require(check_tune(tune))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_tune, tune)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two loops around one call of `fit_predict`. Which rows does it learn from, and for which does it answer?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `predicted` for `X.iloc[held_out]`; root of the mean of the squared difference goes to `errors[i, j]`; at the end
# `int(errors.mean(axis=1).argmin()), errors`.
#
# </details>
#
# ### The match
#
# Ten outer splits: five folds, drawn twice. In each, every family tunes on the outer *training* rows alone, by three inner
# folds, and only its winner predicts the outer test rows. So the tuning is part of what is measured, and no family
# profits from having more settings. **Predict** before you run it: who wins, and by how many units of the target?


# %%
def k_fold(n_rows, k, seed):
    parts = np.array_split(np.random.default_rng(seed).permutation(n_rows), k)
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(k)]


GRIDS = {
    "ridge": (ridge, [{"alpha": alpha} for alpha in (1.0, 10.0, 100.0)]),
    "forest": (forest, [{"min_samples_leaf": leaf} for leaf in (3, 10)]),
    "MLP": (mlp, [{"hidden": hidden, "lr": 3e-3, "epochs": epochs} for hidden, epochs in
                  [((32,), 10), ((32,), 30), ((64, 32), 10)]]),
}  # fmt: skip
needs("usable")
X, y = usable.drop(columns=TARGET), usable[TARGET].to_numpy()
outer = [split for repeat in range(2) for split in k_fold(len(y), 5, seed=repeat)]

# %%
needs("outer")
errors, choices = {name: [] for name in GRIDS}, {name: [] for name in GRIDS}
for rows, test_rows in outer:
    inner = k_fold(len(rows), 3, seed=0)
    for name, (fit_predict, settings) in GRIDS.items():
        best, _ = tune(fit_predict, settings, X.iloc[rows], y[rows], inner)
        _, error = tune(fit_predict, [settings[best]], X, y, [(rows, test_rows)])
        errors[name].append(error[0, 0])
        choices[name].append(best)
errors = pd.DataFrame(errors)
print("chosen settings, by split:", choices)
errors.describe().loc[["mean", "std", "min", "max"]].round(1)

# %%
needs("errors")
fig, ax = plt.subplots(figsize=(7.5, 2.2))
plot_dots(ax, {name: errors[name] for name in errors}, xlabel=f"RMSE of {TARGET} on ten outer test parts", means=".1f")
show(
    fig,
    alt="RMSE of ridge, forest and MLP on ten outer test parts, one dot each. The three clouds overlap widely: each spreads "
    "over 7 to 12 units, while the means lie within 4.",
)

# %% [markdown]
# **Read the figure.** The dots of one model spread wider than the means of the three differ. But a split that is easy for
# one is often easy for all. That is why one looks at *differences on the same split*.
#
# ## Task 5.5 ★★ A paired comparison (25 min, 2 points)
#
# $a_j$ and $b_j$ are the errors of two models on split $j$ of $k$, $d_j=a_j-b_j$. The training parts overlap, so the $d_j$ are
# correlated and the plain t interval is too narrow. The *corrected resampled t interval* (Nadeau & Bengio 2003, lesson 06)
# enlarges it:
#
# $$\bar d \pm t_{0.975,\,k-1}\sqrt{\left(\frac1k+\frac{n_\text{test}}{n_\text{train}}\right)s^2},\qquad
# s^2=\frac1{k-1}\sum_j (d_j-\bar d)^2$$


# %% solution="paired_interval"
def paired_interval(a: np.ndarray, b: np.ndarray, n_train: int, n_test: int) -> tuple[float, float, float]:
    """a, b: (k,) errors on the same splits. Return (mean, low, high) of a − b, the corrected 95% interval."""
    ### BEGIN SOLUTION
    difference = a - b
    k = len(difference)
    error = np.sqrt((1 / k + n_test / n_train) * difference.var(ddof=1))
    half = stats.t.ppf(0.975, k - 1) * error
    return difference.mean(), difference.mean() - half, difference.mean() + half
    ### END SOLUTION


# %% test="paired_interval" points=2
require(check_paired_interval(paired_interval))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_paired_interval, paired_interval)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Everything happens with the differences; `a` and `b` themselves are not needed after the first line.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `d = a - b`; `error = np.sqrt((1 / k + n_test / n_train) * d.var(ddof=1))`; `stats.t.ppf(0.975, k - 1)`.
#
# </details>
#
# ## Task 5.6 ★ Conclude (15 min, 1 point)
#
# Before you look at the interval, fix a *margin*: a difference so small that nobody would change the model for it. Then
# there are four answers for the interval of (error of the first − error of the second), and they are asked in this order:
#
# | interval | answer |
# |---|---|
# | lies within the margin, $-m<\text{low}$ and $\text{high}<m$ | `"no relevant difference"` |
# | else: lies below 0 | `"first better"` |
# | else: lies above 0 | `"second better"` |
# | else | `"undecided"` |


# %% solution="conclude"
def conclude(low: float, high: float, margin: float) -> str:
    """Return one of the four answers."""
    ### BEGIN SOLUTION
    if -margin < low and high < margin:
        return "no relevant difference"
    if high < 0:
        return "first better"
    return "second better" if low > 0 else "undecided"
    ### END SOLUTION


# %% test="conclude" points=1
require(check_conclude(conclude))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_conclude, conclude)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# "Undecided" and "no relevant difference" are not the same: the first is a lack of data, the second is a result.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Four lines of `if` in the order of the table.
#
# </details>
#
# ### Your verdict
#
# The margin here: 2 units of the target. The MLP meets both rivals, which makes two comparisons, so each 95% interval
# promises a little less than it says. With more rivals adjust for it (lesson 06: Holm).

# %%
needs("outer", "errors")
MARGIN = 2.0
n_train, n_test = (round(np.mean([len(split[part]) for split in outer])) for part in (0, 1))
rows = []
for rival in ("ridge", "forest"):
    mean, low, high = paired_interval(errors["MLP"].to_numpy(), errors[rival].to_numpy(), n_train, n_test)
    rows.append((f"MLP − {rival}", mean, low, high, conclude(low, high, MARGIN)))
verdicts = pd.DataFrame(rows, columns=["difference of RMSE", "mean", "low", "high", "verdict"])
verdicts.round(2)

# %%
needs("verdicts")
fig, ax = plt.subplots(figsize=(7.5, 2))
ax.axvspan(-MARGIN, MARGIN, color="0.85", label="margin")
for place, row in verdicts.iterrows():
    ax.plot([row["low"], row["high"]], [place, place], color=plotting.style(place)["color"], linewidth=3)
    ax.plot(row["mean"], place, "o", color=plotting.style(place)["color"])
ax.axvline(0, color="black", linewidth=1)
ax.set(yticks=[0, 1], ylim=(-0.6, 1.6), xlabel="difference of RMSE; left of 0 the MLP is better")
ax.set_yticklabels(verdicts["difference of RMSE"])
ax.legend()
show(
    fig,
    alt="Corrected 95% intervals of the MLP's RMSE minus that of ridge and of the forest, with 0 and the margin of 2 units.",
)

# %% [markdown]
# **Read the figure.** What can you tell your colleagues, and what not? One table of 440 patients speaks for tables like
# it. Lesson 07 compares on several. Now put in *your* table, at the top, and run everything again; widen the grids, add
# a rival. For classes instead of numbers three things change: folds are stratified, the loss is cross-entropy, and the
# error is the share of wrong answers.

# %% [markdown] answer="report" points=5
# ## Report (5 points)
#
# Replace the questions by your text, about **your own** table. Numbers with their intervals; nothing that you did not measure.
#
# 1. **Question and data.** What is a row, what is the target, where is the table from, and may it be used?
# 2. **Faults.** What did you find and repair? What did you leave, and why?
# 3. **Design of the MLP.** Layers, activation, optimizer, regularization, and what you tried in vain.
# 4. **Tuning.** Which combinations for each family, chosen how? Did all families get equal care?
# 5. **Result.** Errors of all models, paired differences with corrected intervals, your margin and its reason.
# 6. **Design aspects.** Time to train, effort to tune, explanations, what happens with gaps and new categories.
# 7. **Recommendation.** MLP or traditional ML for a table like yours? What would change your mind?
#
# *To hand it in:* run `jupyter nbconvert --to html hw5_traditional_or_mlp.ipynb` in a terminal (in Colab with `!` before
# it) and open the page in a browser. Its *Print… → Save as PDF* makes the PDF.

# %%
progress(hw5)
