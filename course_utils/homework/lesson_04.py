"""Checks of the exercises of lesson 04: bias, variance, and the remedies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from course_utils import regularizers
from course_utils.homework.engine.compare import brief
from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.verdict import Verdict
from course_utils.reproducibility import make_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES", "check_decompose", "check_dropout_penalty", "check_find_the_penalty", "check_ridge",
    "check_smooth_labels", "check_stop_early", "check_survivor",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "4.1 A survivor of dropout",
    "4.2 Bias², variance, noise",
    "4.3 Ridge that spares the intercept",
    "4.4 Find the penalty",
    "4.5 Stop early",
    "4.6 Smooth labels",
    "4.7 Dropout's hidden penalty",
)
_TRIED = np.arange(-6, 2.001, 0.1)  # exponents of the penalty


def check_survivor(answer: Any) -> Verdict:
    """Judge what an activation of 2.0 becomes if it survives torch's dropout with p = 0.75, a number."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=8.0,
        right="Yes: a quarter survives, and each survivor counts for four, so that the mean stays.",
        hint="this is not it: what must a survivor be, so that the mean over many draws is 2?",
        mistakes=[
            (2.0, "without a correction the mean over many draws falls: the dropped ones give nothing"),
            (2 / 0.75, "you divided by p, as if p were the share that is kept; torch's p is the share that is dropped"),
            (0.5, "this is the correction at evaluation time of the original dropout; torch corrects in training"),
            (1.5, "you multiplied by p: then the mean would not be 2"),
            (0.0, "zero is what the dropped ones become; this one survived"),
            (4.0, "this is the factor for a survivor, not the activation after it"),
        ],
    )


def _enumerated(fits: Any, truth: Any, noise_var: float) -> tuple[float, float, float]:
    """Bias², variance and error, the last over all pairs of a fit and two noise values instead of from the formula."""
    bias2 = sum((fits[:, j].mean() - truth[j]) ** 2 for j in range(len(truth))) / len(truth)
    variance = sum(((fits[:, j] - fits[:, j].mean()) ** 2).mean() for j in range(len(truth))) / len(truth)
    sides = [np.mean((truth + sign * noise_var**0.5 - fits) ** 2) for sign in (1, -1)]
    return bias2, variance, float(np.mean(sides))


def _decomposition(fits: Any, truth: Any, noise_var: float, *, wrong: str) -> tuple[Any, Any, Any]:
    mean = fits.mean(axis=0)
    bias2 = {
        "not squared": np.mean(mean - truth),
        "square of the mean": np.mean(mean - truth) ** 2,
        "each fit": np.mean((fits - truth) ** 2),
        "absolute": np.mean(np.abs(mean - truth)),
        "sums": np.sum((mean - truth) ** 2),
    }.get(wrong, np.mean((mean - truth) ** 2))
    variance = {
        "other axis": fits.var(axis=1).mean(),
        "unbiased": fits.var(axis=0, ddof=1).mean(),
        "all": fits.var(),
        "std": fits.std(axis=0).mean(),
        "sums": fits.var(axis=0).sum(),
    }.get(wrong, fits.var(axis=0).mean())
    noise = {"no noise": 0.0, "squared noise": noise_var**2, "root of noise": noise_var**0.5}.get(wrong, noise_var)
    return bias2, variance, bias2 + variance + noise


def check_decompose(student: Any) -> Verdict:
    """Check ``decompose(fits, truth, noise_var)`` for fits of shape (training sets, points)."""
    rng, cases = np.random.default_rng(4), []
    for sets, points, noise_var in ((6, 4, 0.5), (2, 3, 2.0), (5, 5, 0.0), (40, 1, 1.5)):
        truth = rng.normal(size=points)
        cases.append((truth + 0.7 * rng.normal(size=points) + rng.normal(size=(sets, points)), truth, noise_var))
    says = {
        "each fit": "the bias asks for the *mean* fit; the distance of each single fit contains the variance too",
        "square of the mean": "square at each point first, then average: biases of opposite sign must not cancel",
        "not squared": "the first part is the bias *squared*",
        "absolute": "the first part is a mean of squares, not of absolute values",
        "other axis": "the variance runs over the training sets (axis 0), not over the points",
        "unbiased": "divide by the number of training sets, not by one less: only then do the parts add up",
        "all": "the variance over everything contains how the truth varies from point to point",
        "std": "you averaged standard deviations; the parts are squares",
        "sums": "take means over the points, not sums",
        "no noise": "the error of new data contains the noise as well",
        "squared noise": "`noise_var` is a variance already: don't square it",
        "root of noise": "the error is a sum of squares: `noise_var` itself belongs in it, not its root",
    }
    return judge(
        student,
        exercise=EXERCISES[1],
        reference=_enumerated,
        cases=cases,
        names=("bias²", "variance", "error"),
        right="Right: and the sum equals the error measured apart from it.",
        mistakes=[Mistake(sentence, partial(_decomposition, wrong=name)) for name, sentence in says.items()],
    )


def _ridge_by_rows(x: Any, y: Any, penalty: float) -> tuple[Any, float]:
    """Ridge as least squares with extra rows √λ·I for the weights and none for the intercept."""
    d = x.shape[1]
    rows = np.vstack([np.column_stack([x, np.ones(len(x))]), penalty**0.5 * np.eye(d, d + 1)])
    solution = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(d)]), rcond=None)[0]
    return solution[:d], float(solution[d])


def _ridge(x: Any, y: Any, penalty: float, *, wrong: str) -> tuple[Any, Any]:
    if wrong == "intercept penalized":
        rows = np.column_stack([x, np.ones(len(x))])
        solution = np.linalg.solve(rows.T @ rows + penalty * np.eye(rows.shape[1]), rows.T @ y)
        return solution[:-1], solution[-1]
    x_mean, y_mean = (0.0, 0.0) if wrong == "not centred" else (x.mean(axis=0), y.mean())
    amount = {"n": len(x) * penalty, "half": penalty / 2, "square": penalty**2, "none": 0.0, "double": 2 * penalty}
    gram = (x - x_mean).T @ (x - x_mean) + amount.get(wrong, penalty) * np.eye(x.shape[1])
    w = np.linalg.pinv(gram) @ (x - x_mean).T @ (y - y_mean)
    if wrong == "sign":
        return w, y_mean + x_mean @ w
    return w, 0.0 if wrong == "not centred" else y_mean - (0.0 if wrong == "mean of y" else x_mean @ w)


def check_ridge(student: Any) -> Verdict:
    """Check ``ridge(x, y, penalty)``, which gives the weights and the intercept; the intercept is not penalized."""
    rng, cases = np.random.default_rng(5), []
    for n, d, penalty in ((12, 3, 0.5), (6, 2, 3.0), (4, 6, 0.2), (9, 1, 0.0)):
        x = rng.normal(size=(n, d)) + 1.5
        cases.append((x, x @ rng.normal(size=d) + 4 + 0.3 * rng.normal(size=n), penalty))
    says = {
        "intercept penalized": "the intercept is penalized too: it should follow the data's level freely",
        "not centred": "there is no intercept: the fit is forced through the origin",
        "mean of y": "the intercept is not the mean of y alone: the features have a mean as well",
        "sign": "a sign in the intercept: the line must pass through the mean of x and the mean of y",
        "n": "the penalty is multiplied by n: the loss is a *sum* of squares here, not a mean",
        "half": "the penalty is halved: it is λ‖w‖², without ½",
        "double": "the penalty is doubled: the factor 2 of the derivative stands in both terms and cancels",
        "square": "the penalty enters squared: under extra rows it would need a root, in XᵀX + λI it does not",
        "none": "the penalty has no effect: where does λ stand?",
    }
    return judge(
        student,
        exercise=EXERCISES[2],
        reference=_ridge_by_rows,
        cases=cases,
        names=("w", "b"),
        rtol=1e-6,
        right="Right, also with more features than samples, where no λ = 0 would be unique.",
        mistakes=[Mistake(sentence, partial(_ridge, wrong=name)) for name, sentence in says.items()],
        figure=_draw_ridge,
    )


def _draw_ridge() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3))
    x[:, 1] = x[:, 0] + 0.02 * rng.normal(size=15)
    y, penalties = 2 * x[:, 0] - x[:, 2] + 0.5 * rng.normal(size=15), np.logspace(-4, 3, 60)
    paths = np.array([_ridge_by_rows(x, y, penalty)[0] for penalty in penalties])
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for index, name in enumerate(("w₁ (true: 2)", "w₂, nearly the same feature (0)", "w₃ (−1)")):
        ax.plot(penalties, paths[:, index], label=name, color=style(index)["color"])
    ax.set(xscale="log", xlabel="λ", ylabel="weight", title="Ridge shares the weight between twins")
    ax.legend(loc="upper right")
    return fig, (
        "Weights against the penalty: without one the wrong one of two nearly equal features gets the weight, from "
        "about 0.1 on they share it, and for large penalties all three shrink to 0."
    )


@cache
def _degree_11() -> tuple[Any, ...]:
    """The lesson's 200 draws of 12 noisy points of x² + 3x + 3, and degree 11: SVD, targets, grid."""
    draws = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-2, 2, 12)
        draws.append((x, x**2 + 3 * x + 3 + rng.standard_normal(12)))
    x, y = np.array(draws).swapaxes(0, 1)
    u, s, vt = np.linalg.svd((x[..., None] / 2) ** np.arange(12), full_matrices=False)
    grid = np.linspace(-2, 2, 101)
    return np.einsum("bij,bi->bj", u, y), s, vt, (grid[:, None] / 2) ** np.arange(12), grid**2 + 3 * grid + 3


def _median_risk(log10_penalty: float) -> float:
    """Return the median over 200 draws of 12 points of the risk of degree 11 with penalty 10^…, as in the lesson."""
    targets, s, vt, powers, truth = _degree_11()
    weights = np.einsum("bj,bjk->bk", targets * s / (s**2 + 10.0**log10_penalty), vt)
    return float(np.median(np.mean((weights @ powers.T - truth) ** 2, axis=1)))


def check_find_the_penalty(log10_penalty: Any) -> Verdict:
    """Judge the exponent of the penalty at which degree 11 has nearly its smallest risk on 12 points."""
    exercise = EXERCISES[3]
    if log10_penalty is None or not_attempted(log10_penalty):
        return Verdict(exercise, "todo", "not attempted yet")

    def wrong(message: str) -> Verdict:
        return Verdict(exercise, "wrong", message, got=brief(log10_penalty))

    if isinstance(log10_penalty, bool) or not isinstance(log10_penalty, Real):
        return wrong("the answer is one number, the exponent of ten")
    value = float(log10_penalty)
    if not -12 <= value <= 12:
        return wrong("an exponent of ten between −12 and 12 is expected")
    risks = [_median_risk(exponent) for exponent in _TRIED]
    best, risk = min(risks), _median_risk(value)
    if risk <= 1.1 * best:
        right = f"Yes: a median risk of {risk:.2f}, with twelve coefficients for twelve points."
        return Verdict(exercise, "right", right, figure=partial(_draw_risks, risks, value, risk))
    if value > 0 and _median_risk(np.log10(value)) <= 1.1 * best:
        return wrong(f"you gave λ itself; the answer is its exponent: with {value:g} the penalty is {10**value:.3g}")
    if value < _TRIED[int(np.argmin(risks))]:
        return wrong(f"the median risk is {risk:.3g}: too little penalty, the fit still follows the noise (variance)")
    return wrong(f"the median risk is {risk:.3g}: too much penalty, the fit no longer follows the truth (bias)")


def _draw_risks(risks: Sequence[float], value: float, risk: float) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    fig, ax = plt.subplots(figsize=(7, 2.8))
    ax.plot(10.0**_TRIED, risks, color=style(0)["color"])
    ax.plot(10.0**value, risk, "o", color=style(1)["color"], markersize=9)
    ax.set(xscale="log", yscale="log", xlabel="λ", ylabel="median risk [y²]", title="Degree 11, 12 points")
    return fig, (
        "Median risk of degree 11 against the penalty: it falls from about 200 by more than two powers of ten to a "
        "minimum near your value (dot), and rises again when the penalty flattens the fit."
    )


def _stop_early(losses: Sequence[float], patience: int, *, wrong: str = "") -> tuple[Any, Any]:
    best, best_epoch, waited, last = float("inf"), 0, 0, len(losses)
    for epoch, loss in enumerate(losses, start=1):
        if loss <= best if wrong == "ties" else loss < best:
            best, best_epoch = loss, epoch
            waited = waited if wrong == "no reset" else 0
        elif wrong == "neighbours" and loss < losses[epoch - 2]:
            waited = 0
        else:
            waited += 1
            if waited >= max(patience + {"one late": 1, "one early": -1}.get(wrong, 0), 1):
                last = epoch
                break
    if wrong == "best of all":
        best_epoch = int(np.argmin(losses)) + 1
    results: dict[str, tuple[Any, Any]] = {
        "from zero": (best_epoch - 1, last - 1),
        "last": (last, last),
        "loss": (best, last),
        "swapped": (last, best_epoch),
    }
    return results.get(wrong, (best_epoch, last))


def check_stop_early(student: Any) -> Verdict:
    """Check ``stop_early(losses, patience)``, which gives the best epoch and the last one that is run, from 1."""
    cases = [
        ([1.0, 0.8, 0.9, 0.7, 0.75, 0.8, 0.85, 0.6], 3),
        ([1.0, 0.9, 0.8], 2),  # never stops
        ([1.0, 0.5, 0.5, 0.5, 0.5, 0.5], 2),  # a tie is no improvement
        ([0.5, 0.6, 0.7, 0.1, 0.05], 2),  # what would have come later is not known
        ([1.0, 1.2, 1.1, 1.15, 0.9, 0.8], 3),  # below its neighbour is not below the best
        ([0.9, 0.7, 0.8, 0.6, 0.7], 1),
        ([2.0], 5),
    ]
    says = {
        "best of all": "it looks at epochs after the stop: those are never run",
        "no reset": "the waiting does not begin anew with each better epoch",
        "ties": "an equal loss is no improvement",
        "neighbours": "compare with the best loss so far, not with the epoch before",
        "one late": "it waits one epoch too long: after `patience` epochs without improvement it is over",
        "one early": "it stops one epoch too early: `patience` epochs without improvement are allowed",
        "from zero": "epochs count from 1 here",
        "last": "the first result is the *best* epoch, whose weights are kept, not the last",
        "loss": "the first result is the number of the best epoch, not its loss",
        "swapped": "the results are swapped: first the best epoch, then the last",
    }
    return judge(
        student,
        exercise=EXERCISES[4],
        reference=_stop_early,
        cases=cases,
        names=("best epoch", "last epoch"),
        right="Right: ties, late minima and runs that never stop included.",
        mistakes=[Mistake(sentence, partial(_stop_early, wrong=name)) for name, sentence in says.items()],
    )


def _smoothed(labels: Tensor, n_classes: int, eps: float, *, wrong: str) -> Tensor:
    hard = torch.nn.functional.one_hot(labels, n_classes).float()
    others = max(n_classes - 1, 1)
    return {
        "shared by the others": (1 - eps) * hard + eps / others * (1 - hard),
        "right one short": (1 - eps) * hard + eps / n_classes * (1 - hard),
        "not shrunk": hard + eps / n_classes,
        "not divided": (1 - eps) * hard + eps,
        "only shrunk": (1 - eps) * hard,
        "hard": hard,
        "swapped": eps * hard + (1 - eps) / n_classes,
        "others only": hard + eps / n_classes * (1 - hard),
        "by samples": (1 - eps) * hard + eps / len(labels),
    }[wrong]


def check_smooth_labels(student: Any) -> Verdict:
    """Check ``smooth_labels(labels, n_classes, eps)``, which gives float32 targets of shape (n, n_classes)."""
    generator, kinds = make_generator(6), ((6, 4, 0.1), (3, 10, 0.3), (5, 2, 0.05), (1, 3, 0.0))
    cases = [(torch.randint(n_classes, (n,), generator=generator), n_classes, eps) for n, n_classes, eps in kinds]
    says = {
        "shared by the others": "ε is spread over all classes, the right one included, not over the others alone",
        "right one short": "the rows sum to less than 1: the right class gets its share of ε back",
        "not shrunk": "the rows sum to more than 1: the right class gives ε away first",
        "others only": "the rows sum to more than 1: what the others get must come from the right class",
        "not divided": "each class gets all of ε: it is divided by the number of classes",
        "only shrunk": "the right class gave ε away, and nobody got it",
        "hard": "these are the hard targets: ε is not used",
        "swapped": "ε and 1 − ε have changed places",
        "by samples": "ε is divided by the number of samples: the classes share it",
    }
    return judge(
        student,
        exercise=EXERCISES[5],
        reference=lambda labels, n_classes, eps: regularizers.smooth_labels(labels, n_classes, eps),
        cases=cases,
        atol=1e-6,
        right="Right: each row sums to 1, and cross-entropy with them is torch's `label_smoothing`.",
        mistakes=[Mistake(sentence, partial(_smoothed, wrong=name)) for name, sentence in says.items()],
    )


def _over_all_masks(x: Any, w: Any, p: float) -> float:
    """The expected extra loss, by going through all masks of a row, with a target for which it must not matter."""
    y, expected = np.linspace(-1, 2, len(x)), 0.0
    for mask in itertools.product((0, 1), repeat=len(w)):
        chance = float(np.prod([1 - p if kept else p for kept in mask]))
        expected += chance * float(np.mean((y - (x * np.array(mask) / (1 - p)) @ w) ** 2))
    return expected - float(np.mean((y - x @ w) ** 2))


def _extra(x: Any, w: Any, p: float, *, wrong: str) -> float:
    factors = {"mask alone": p * (1 - p), "upside down": (1 - p) / max(p, 1e-9), "p": p, "too many": p / (1 - p) ** 2}
    squares = x**2 * w**2
    size = {
        "no inputs": np.sum(w**2),
        "rows summed": squares.sum(),
        "features averaged": squares.mean(),
        "square of the mean": np.sum(x.mean(axis=0) ** 2 * w**2),
        "together": np.mean((x @ w) ** 2),
        "not squared": np.mean(x**2 @ np.abs(w)),
    }
    return float(factors.get(wrong, p / (1 - p)) * size.get(wrong, squares.sum() / len(x)))


def check_dropout_penalty(student: Any) -> Verdict:
    """Check ``dropout_penalty(x, w, p)``: by how much dropout on x raises the expected squared loss of x @ w."""
    rng = np.random.default_rng(7)
    sizes = ((5, 3, 0.5), (3, 4, 0.2), (6, 2, 0.9), (4, 1, 0.0))
    says = {
        "mask alone": "this is the variance of the mask alone: inverted dropout scales the survivors too",
        "upside down": "the odds are upside down: what should happen for p = 0?",
        "p": "the factor is not p alone: work out the variance of mask / (1 − p)",
        "too many": "the factor has one 1/(1 − p) too many",
        "no inputs": "the size of the inputs is missing: it is no plain L2",
        "rows summed": "sum over the features, but take the mean over the rows",
        "features averaged": "over the features it is a sum: each mask adds its own variance",
        "square of the mean": "the mean of the squares is needed, not the square of the mean",
        "together": "square each product by itself: the masks of two features are independent",
        "not squared": "the weights must enter squared",
    }
    return judge(
        student,
        exercise=EXERCISES[6],
        reference=_over_all_masks,
        cases=[(rng.normal(size=(n, d)) + 0.5, rng.normal(size=d), p) for n, d, p in sizes],
        right="Right for every target: dropout on a linear neuron's inputs *is* an L2 penalty, weighted by the data.",
        mistakes=[Mistake(sentence, partial(_extra, wrong=name)) for name, sentence in says.items()],
    )
