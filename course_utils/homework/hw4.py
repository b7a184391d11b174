"""Checks of homework 4: optimizers and a schedule beside torch's, a race, and what its result says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from course_utils import schedules
from course_utils.homework._optimizer_mistakes import (
    Ride,
    TorchStep,
    adam_mistakes,
    adamw_mistakes,
    drive,
    drive_class,
    make_ride,
    nesterov_mistakes,
)
from course_utils.homework._race import ENTRANTS, hold_race, make_race, race_mistakes
from course_utils.homework.engine.judge import Mistake, judge, judge_conditions
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "Stepper",
    "check_adam_step",
    "check_adamw",
    "check_nesterov_step",
    "check_paired_interval",
    "check_race",
    "check_warmup_cosine",
]

EXERCISES = (
    "H4.1 Nesterov's momentum",
    "H4.2 Adam",
    "H4.3 AdamW, a class",
    "H4.4 A schedule",
    "H4.5 A fair race",
    "H4.6 Who won?",
)


class Stepper:
    """An optimizer from a student's step function.

    Args:
        params: the parameters; may be an iterator.
        step: as `check_nesterov_step` or `check_adam_step` takes it.
        options: of the step, such as ``lr``.
    """

    def __init__(self, params: Iterable[Tensor], step: Callable[..., Tensor], **options: Any) -> None:
        self._turns: list[tuple[Tensor, dict[str, Any]]] = [(parameter, {}) for parameter in params]
        self._step, self._options = step, options

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter, _ in self._turns:
            parameter.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for parameter, state in self._turns:
            if parameter.grad is not None:
                moved = self._step(parameter.detach(), parameter.grad, state, **self._options)
                parameter.data.copy_(moved)


def _leaves_its_arguments(verdict: Verdict, step: Any, ride: Ride) -> Verdict:
    """Refuse a right step function that writes into the weights or the gradient it is given."""
    if not verdict:
        return verdict
    theta, gradient = ride.starts[0].clone(), ride.gradients[0, 0].clone()
    run(lambda: step(theta, gradient, {}, **ride.options), quiet=True)
    conditions = [
        (torch.equal(theta, ride.starts[0]), "it changes `theta` in place: return a new tensor"),
        (torch.equal(gradient, ride.gradients[0, 0]), "it changes `gradient` in place, which its owner may still need"),
    ]
    refused = judge_conditions(verdict.exercise, conditions, right=verdict.message)
    return Verdict(verdict.exercise, "right", verdict.message, figure=verdict.figure) if refused else refused


# ------------------------------------------------------------------------------------------------------- Nesterov


def check_nesterov_step(step: Any, *, seed: int = 0) -> Verdict:
    """Check ``step(theta, gradient, state, *, lr, momentum)`` against ``torch.optim.SGD(nesterov=True)``."""
    rides = [
        make_ride(10 * seed + 1, 25, 1.0, lr=0.1, momentum=0.9),
        make_ride(10 * seed + 2, 20, 10.0, lr=0.003, momentum=0.5),
        make_ride(10 * seed + 3, 5, 1.0, lr=0.05, momentum=0.0),
    ]
    torchs: Any = TorchStep(lambda p, **options: torch.optim.SGD(p, nesterov=options["momentum"] > 0, **options))
    verdict = judge(
        step,
        exercise=EXERCISES[0],
        reference=torchs,
        cases=[(ride,) for ride in rides],
        call=drive,
        mistakes=nesterov_mistakes(),
        right="25 steps with two parameters, as torch's SGD with nesterov=True does them.",
        rtol=1e-8,
        atol=1e-10,
        figure=_look_ahead_figure,
    )
    return _leaves_its_arguments(verdict, step, rides[0])


def _look_ahead_figure() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    curvature = torch.tensor([1.0, 30.0], dtype=torch.float64)
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for number, name in enumerate(("momentum", "Nesterov")):
        theta, b, path = torch.tensor([-4.0, 1.0], dtype=torch.float64), torch.zeros(2), []
        for _ in range(40):
            path.append(theta)
            g = curvature * theta
            b = 0.9 * b + g
            theta = theta - 0.02 * (g + 0.9 * b if name == "Nesterov" else b)
        ax.plot(*torch.stack(path).T, label=name, markersize=3, **style(number))
    ax.set(xlabel="flat direction", ylabel="steep direction", title="The first 40 steps in a narrow valley")
    ax.legend()
    alt = (
        "Two paths into a narrow valley: that of momentum swings across it again and again, Nesterov's soon follows it."
    )
    return fig, alt


# ----------------------------------------------------------------------------------------------------------- Adam


def check_adam_step(step: Any, *, seed: int = 0) -> Verdict:
    """Check ``step(theta, gradient, state, *, lr, betas, eps)`` against ``torch.optim.Adam``."""
    rides = [
        make_ride(10 * seed + 4, 25, 1.0, lr=0.1, betas=(0.9, 0.99), eps=1e-8),
        make_ride(10 * seed + 5, 20, 1e-3, lr=0.02, betas=(0.8, 0.95), eps=1e-3),  # where ε shows
        make_ride(10 * seed + 6, 40, 1e3, lr=0.5, betas=(0.5, 0.999), eps=1e-4),
    ]
    torchs: Any = TorchStep(torch.optim.Adam)
    verdict = judge(
        step,
        exercise=EXERCISES[1],
        reference=torchs,
        cases=[(ride,) for ride in rides],
        call=drive,
        mistakes=adam_mistakes(),
        right="40 steps with two parameters, with gradients from thousandths to thousands, as torch's Adam does them.",
        rtol=1e-8,
        atol=1e-10,
    )
    return _leaves_its_arguments(verdict, step, rides[0])


# ---------------------------------------------------------------------------------------------------------- AdamW


def check_adamw(optimizer: Any, *, seed: int = 0) -> Verdict:
    """Check a class with ``__init__(params, lr, betas, eps, weight_decay)``, ``zero_grad()`` and ``step()``.

    The rate is its attribute ``lr``, which a schedule changes on the way. The reference is ``torch.optim.AdamW``.
    """
    common: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.3}
    rides = [
        make_ride(10 * seed + 7, 20, 1.0, lr=0.1, **common),
        make_ride(10 * seed + 8, 20, 1e-3, lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=1.0),
        make_ride(10 * seed + 9, 20, 10.0, lr=0.2, new_lr=0.05, **common),
    ]
    return judge(
        optimizer,
        exercise=EXERCISES[2],
        reference=torch.optim.AdamW,
        cases=[(ride,) for ride in rides],
        call=drive_class,
        mistakes=adamw_mistakes(),
        right="As torch's AdamW: with two parameters, a frozen one, and a rate that changes on the way.",
        rtol=1e-8,
        atol=1e-10,
    )


# ------------------------------------------------------------------------------------------------------- schedule


def _warmup_cosine(step: int, *, n_steps: int, warmup: int, start: float, final: float) -> float:
    cosine = schedules.cosine_decay(n_steps - warmup, final=final)
    return schedules.linear_warmup(warmup, start=start, then=cosine)(step) if warmup else cosine(step)


def _factors(schedule: Any, n_steps: int, warmup: int, start: float, final: float) -> Any:
    """Return the factor of every step and of some beyond the end, (n_steps + 4,)."""
    options = {"n_steps": n_steps, "warmup": warmup, "start": start, "final": final}
    values = [schedule(step, **options) for step in range(n_steps + 4)]
    odd = next((value for value in values if not isinstance(value, int | float | np.number)), None)
    return odd if any(value is odd for value in values) else np.array(values, dtype=float)


def _otherwise(
    *, angle: float = np.pi, over: str = "rest", after: bool = True, first: str = "start", shift: int = 0,
    low: str = "final", stay: bool = True, shape: str = "cosine"
) -> Callable[..., float]:  # fmt: skip
    """Return the schedule with one thing done otherwise."""

    def schedule(step: int, *, n_steps: int, warmup: int, start: float, final: float) -> float:
        begin, end = (0.0 if first == "zero" else start), (0.0 if low == "zero" else final)
        if step < warmup and after:
            return begin + (1 - begin) * (step + shift) / warmup
        length = n_steps if over == "all" else n_steps - warmup
        share = (step - (0 if over == "late" else warmup)) / length
        share = min(share, 1.0) if stay else share
        curve = 1 - share if shape == "line" else (1 + np.cos(angle * share)) / 2
        if shape == "rising":
            curve = 1 - curve
        return end + (1.0 if low == "lifted" else 1 - end) * curve

    return schedule


def check_warmup_cosine(schedule: Any, *, seed: int = 0) -> Verdict:
    """Check ``schedule(step, *, n_steps, warmup, start, final)``, the factor on the learning rate."""
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(30, 60)), int(rng.integers(3, 12))) for _ in range(2)]
    return judge(
        schedule,
        exercise=EXERCISES[3],
        reference=_warmup_cosine,
        cases=[(*sizes[0], 0.1, 0.0), (*sizes[1], 0.25, 0.05), (20, 1, 0.5, 0.1), (25, 0, 0.1, 0.2)],
        call=_factors,
        mistakes=[
            Mistake("the cosine's argument lacks π: half a cosine ends at −1", _otherwise(angle=1.0)),
            Mistake("that is not half a wave: it falls from 1 to `final`", _otherwise(angle=2 * np.pi)),
            Mistake("that is not half a wave: it falls from 1 to `final`", _otherwise(angle=np.pi / 2)),
            Mistake("the cosine has n_steps − warmup steps; yours is longer", _otherwise(over="all")),
            Mistake("the cosine ran during the warm-up: it begins at 1 when that ends", _otherwise(over="late")),
            Mistake("there is no warm-up", _otherwise(after=False)),
            Mistake("the warm-up begins at 0, not at `start`", _otherwise(first="zero")),
            Mistake("the warm-up is one step ahead: step 0 has the factor `start`", _otherwise(shift=1)),
            Mistake("it falls to 0, not to `final`", _otherwise(low="zero")),
            Mistake("`final` is added on top: the highest factor is 1", _otherwise(low="lifted")),
            Mistake("after n_steps the cosine rises again: the factor stays `final`", _otherwise(stay=False)),
            Mistake("after the warm-up it is a straight line; half a cosine is asked for", _otherwise(shape="line")),
            Mistake("the cosine rises: it is upside down", _otherwise(shape="rising")),
        ],
        right="Up in a straight line, down along half a cosine, and `final` from there on.",
        rtol=1e-9,
        atol=1e-12,
        figure=_schedule_figure,
    )  # fmt: skip


def _schedule_figure() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import TRAIN

    fig, ax = plt.subplots(figsize=(7, 2.4))
    values = [_warmup_cosine(step, n_steps=100, warmup=10, start=0.1, final=0.05) for step in range(110)]
    ax.plot(values, **TRAIN)
    ax.set(xlabel="step", ylabel="factor on lr", title="10 steps up, 90 down")
    return (
        fig,
        "The factor rises in a line from 0.1 to 1 in 10 steps, falls along half a cosine to 0.05, and stays there.",
    )


# ----------------------------------------------------------------------------------------------------------- race


def check_race(race: Any, *, seed: int = 0) -> Verdict:
    """Check ``race(entrants, seeds, *, make_model, make_batches, loss_fn, val)``: (entrants, seeds), validation losses.

    ``entrants`` maps names to functions from parameters to an optimizer; ``make_batches(seed)`` can be read once.
    """
    names = list(ENTRANTS)
    return judge(
        race,
        exercise=EXERCISES[4],
        reference=make_race(),
        cases=[(names, [3, 1], 2 * seed), (names[::-2], [5], 2 * seed + 1), (names[2:], [9], seed)],
        call=hold_race,
        mistakes=race_mistakes(),
        right="Same start and same batches for every entrant of a seed, and one number each at the end.",
        rtol=1e-6,
        atol=1e-9,
    )


# ------------------------------------------------------------------------------------------------------- interval


def _paired(a: Any, b: Any, level: float) -> tuple[float, float, float]:
    from scipy import stats

    low, high = stats.ttest_rel(a, b).confidence_interval(level)
    return float(np.mean(a - b)), float(low), float(high)


def _but(
    *, paired: bool = True, ddof: int = 1, quantile: str = "t", root: bool = True, lost: int = 1, sign: int = 1
) -> Callable[..., tuple[float, float, float]]:
    def interval(a: Any, b: Any, level: float) -> tuple[float, float, float]:
        from scipy import stats

        n, mean = len(a), sign * float(np.mean(a - b))
        spread = np.std(a - b, ddof=ddof) if paired else np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))
        share = level if quantile == "one-sided" else (1 + level) / 2
        factor = stats.norm.ppf(share) if quantile == "normal" else stats.t.ppf(share, n - lost)
        half = float((1.0 if quantile == "none" else factor) * spread / (np.sqrt(n) if root else 1.0))
        return mean, mean - half, mean + half

    return interval


def check_paired_interval(interval: Any, *, seed: int = 0) -> Verdict:
    """Check ``interval(a, b, level)``: mean of a − b, and its confidence interval by Student's t over the pairs."""
    rng = np.random.default_rng(seed)
    cases = []
    for n, level in ((5, 0.95), (8, 0.9), (2, 0.95), (20, 0.99)):
        luck = rng.normal(size=n)
        cases.append((1 + luck + 0.2 * rng.normal(size=n), 0.8 + luck + 0.2 * rng.normal(size=n), level))
    return judge(
        interval,
        exercise=EXERCISES[5],
        reference=_paired,
        cases=cases,
        names=("mean", "low", "high"),
        mistakes=[
            Mistake("the pairs are lost: take the difference of each seed first", _but(paired=False)),
            Mistake("the variance divides by n; that of a sample divides by n − 1", _but(ddof=0)),
            Mistake("that is the normal quantile: with few seeds Student's t is wider", _but(quantile="normal")),
            Mistake("the two ends share what is left out: mind which quantile", _but(quantile="one-sided")),
            Mistake("the quantile is missing: that is one standard error to each side", _but(quantile="none")),
            Mistake("that is the spread of single differences: the mean of n has less, by √n", _but(root=False)),
            Mistake("t has n − 1 degrees of freedom", _but(lost=0)),
            Mistake("that is b − a; a − b is asked for", _but(sign=-1)),
        ],
        right="As scipy's paired t test has it.",
        rtol=1e-7,
        atol=1e-10,
    )  # fmt: skip
