"""Checks of the exercises of lesson 05: optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from course_utils import schedules
from course_utils.homework.engine.compare import brief
from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.verdict import Verdict
from course_utils.reproducibility import make_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES", "check_adamw_step", "check_find_beta", "check_first_step", "check_largest_rate",
    "check_largest_stable_rate", "check_sgd_step", "check_warmup_cosine",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "5.1 The largest stable rate",
    "5.2 RMSprop's first step",
    "5.3 Momentum and Nesterov",
    "5.4 One step of AdamW",
    "5.5 Warm-up, then cosine",
    "5.6 How much momentum?",
    "5.7 Steepness without a matrix",
)


def check_largest_rate(answer: Any) -> Verdict:
    """Judge below which rate gradient descent converges on 4·w₁² + 100·w₂², a number."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=0.01,
        right="Yes: 2/L. Above it each step along the steepest direction lands further out than it started.",
        hint="this is not it: what does one step make of w₂, and when is that no longer smaller in size?",
        mistakes=[
            (0.02, "the curvature is the *second derivative*, and that of 100·w² is not 100"),
            (0.005, "this is 1/L, which lands at the minimum along the steepest direction; how much more is stable?"),
            (0.25, "this is what the flattest direction would allow; the steepest one decides"),
            (
                0.5,
                "the flattest direction, and its coefficient in place of the second derivative: two things to look at",
            ),
            (0.125, "this is 1 over the curvature of the flattest direction; the steepest one decides"),
            (2 / 208, "2/(L + μ) is the *best* rate; the question is for the largest stable one"),
            (25, "this is the condition number: it says how slow, not how far a step may go"),
            (200, "this is the largest curvature; the rate is bounded by something over it"),
        ],
    )


def check_first_step(answer: Any) -> Verdict:
    """Judge the length of RMSprop's first step: lr 0.01, α = 0.99, gradient −5, v = 0 before; a number."""
    return judge_answer(
        answer,
        exercise=EXERCISES[1],
        expected=0.1,
        right="Yes: ten times the learning rate, whatever the gradient. It is Adam's correction that is missing here.",
        hint="this is not it: compute v after the first gradient, then its root",
        mistakes=[
            (0.01, "this would be Adam, which corrects for the start at 0, or a v that takes the whole first g²"),
            (0.05, "this is plain SGD: the division by √v is missing"),
            (0.2, "you divided by v, not by its root"),
            (-0.1, "a length is asked for; and against which sign does the step go?"),
            (0.001, "you multiplied by √(1 − α), but it stands in the denominator"),
            (0.5, "the gradient's size cancels: it stands above and, in the root, below"),
            (1.0, "the share of the new gradient stands under a root"),
            (0.0, "v is 0 *before* the step; the first gradient enters it before the division"),
        ],
    )


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _torch_sgd(w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool) -> tuple[Tensor, Tensor]:
    parameter = w.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=beta, nesterov=nesterov)
    optimizer.state[parameter]["momentum_buffer"] = m.clone()
    parameter.grad = g.clone()
    optimizer.step()
    return parameter.detach(), optimizer.state[parameter]["momentum_buffer"]


def _sgd(
    w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool, *, wrong: str
) -> tuple[Tensor, Tensor]:
    share = {"running mean": 1 - beta, "dampened by lr": lr}.get(wrong, 1.0)
    new = beta * g + m if wrong == "beta on g" else beta * m + share * g
    ahead = {"never ahead": False, "always ahead": True}.get(wrong, nesterov)
    scaled = lr * g if wrong == "dampened by lr" else g
    step = scaled + beta * new if ahead else new
    if ahead and wrong in ("ahead without g", "ahead without beta", "ahead of old"):
        step = {"ahead without g": beta * new, "ahead without beta": g + new}.get(wrong, new + beta * new)
    if wrong == "old m":
        step = new if nesterov else m
    length = 1.0 if wrong == "dampened by lr" else lr
    w = w + length * step if wrong == "uphill" else w - length * step
    return (new, w) if wrong == "swapped" else (w, step if wrong == "keeps the step" else new)


def check_sgd_step(student: Any) -> Verdict:
    """Check ``sgd_step(w, g, m, lr, beta, nesterov)``, which gives the new w and m, in torch's convention."""
    generator = make_generator(3)
    kinds = ((3, 0.1, 0.9, False), (4, 0.02, 0.5, True), (1, 0.3, 0.8, True), (2, 0.1, 0.3, False))
    cases = [(*_draw(generator, 3, size), lr, beta, nesterov) for size, lr, beta, nesterov in kinds]
    says = {
        "running mean": "this is the running-mean convention with (1 − β)·g; torch adds the whole gradient",
        "dampened by lr": "the learning rate belongs to the step, not into m: a schedule would scale old gradients too",
        "beta on g": "β stands at the gradient: it is the share of the *old* m that is kept",
        "never ahead": "with `nesterov=True` it makes the plain step of momentum",
        "always ahead": "it looks ahead also with `nesterov=False`",
        "ahead without g": "Nesterov's step has two parts: β times the new m, and the gradient",
        "ahead without beta": "in Nesterov's step the new m is weighted by β",
        "ahead of old": "Nesterov's step adds the *gradient* to β·m, not m itself",
        "old m": "the step is made with the old m: update it first",
        "uphill": "the step goes uphill",
        "swapped": "the results are swapped: first w, then m",
        "keeps the step": "Nesterov's step is not the new m: m stays βm + g",
    }
    return judge(
        student,
        exercise=EXERCISES[2],
        reference=_torch_sgd,
        cases=cases,
        names=("w", "m"),
        right="Right: both equal torch's SGD. Nesterov costs one more addition, and no second gradient.",
        mistakes=[Mistake(sentence, partial(_sgd, wrong=name)) for name, sentence in says.items()],
    )


def _torch_adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, betas: tuple[float, float], eps: float, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    parameter = w.clone().requires_grad_()
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=decay)
    state = {"step": torch.tensor(float(t - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[parameter] = state
    parameter.grad = g.clone()
    optimizer.step()
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def _adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, betas: tuple[float, float], eps: float, decay: float,
    *, wrong: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b1, b2 = betas[::-1] if wrong == "betas swapped" else betas
    g = g + decay * w if wrong == "L2" else g
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g.abs() if wrong == "not squared" else g**2)
    late = {"t from 0": t - 1, "t + 1": t + 1}.get(wrong, t)
    c1, c2 = 1 - b1 ** max(late, 1), 1 - b2 ** max(late, 1)
    c1 = 1.0 if wrong in ("no correction", "m uncorrected") else c1
    c2 = 1.0 if wrong in ("no correction", "v uncorrected") else c2
    bottom = (v / c2 + eps).sqrt() if wrong == "eps inside" else (v / c2).sqrt() + eps
    bottom = {"no root": v / c2 + eps, "no eps": (v / c2).sqrt()}.get(wrong, bottom)
    shrink = {"L2": 1.0, "no decay": 1.0, "decay without lr": 1 - decay, "grows": 1 + lr * decay}
    factor = shrink.get(wrong, 1 - lr * decay)
    step = lr * (m / c1) / bottom
    new = factor * (w - step) if wrong == "decay last" else factor * w + (step if wrong == "uphill" else -step)
    return (new, m / c1, v / c2) if wrong == "kept corrected" else (new, m, v)


def check_adamw_step(student: Any) -> Verdict:
    """Check ``adamw_step(w, g, m, v, t, lr, betas, eps, weight_decay)``, which gives the new w, m and v."""
    generator, cases = make_generator(4), []
    kinds = ((3, 1, 0.1, (0.9, 0.999), 1e-8, 0.1), (4, 7, 0.02, (0.8, 0.95), 0.1, 0.5),
             (1, 2, 0.3, (0.5, 0.9), 1e-2, 0.0), (2, 300, 0.05, (0.9, 0.99), 1e-8, 0.2))  # fmt: skip
    for size, t, lr, betas, eps, decay in kinds:
        w, g, m = _draw(generator, 3, size)
        m, v = (0 * m, 0 * m) if t == 1 else (m, _draw(generator, size) ** 2)
        cases.append((w, g, m, v, t, lr, betas, eps, decay))
    frozen = (torch.ones(2).double(), *(torch.zeros(3, 2).double()), 1, 0.1, (0.9, 0.999), 1e-8, 0.1)
    cases.append(frozen)  # a weight without any gradient yet
    says = {
        "no correction": "m and v are not corrected for their start at 0",
        "m uncorrected": "m is not corrected for its start at 0, only v is",
        "v uncorrected": "v is not corrected for its start at 0, only m is",
        "t + 1": "the correction is one step ahead: `t` counts from 1 already",
        "t from 0": "the correction is one step behind: in the first step `t` is 1",
        "kept corrected": "the corrected values are for this step only: return m and v as they are without correction",
        "L2": "the decay passes through the gradient: that is Adam with L2. AdamW shrinks the weight apart from it",
        "no decay": "the weights are not shrunk: `weight_decay` is not used",
        "decay without lr": "the decay is multiplied by the learning rate too: a schedule must reach it",
        "decay last": "the step is shrunk as well: shrink the weight first, then step",
        "grows": "the decay makes the weights grow",
        "betas swapped": "β₁ and β₂ have changed places",
        "not squared": "v is a mean of *squared* gradients",
        "eps inside": "ε stands inside the root: it is added to √v",
        "no eps": "ε is missing: a weight without gradient gives 0/0",
        "no root": "the step divides by the root of v",
        "uphill": "the step goes uphill",
    }
    return judge(
        student,
        exercise=EXERCISES[3],
        reference=_torch_adamw,
        cases=cases,
        names=("w", "m", "v"),
        right="Right: all three equal torch's AdamW, from the first step to the 300th.",
        mistakes=[Mistake(sentence, partial(_adamw, wrong=name)) for name, sentence in says.items()],
    )


def _twin_schedule(step: int, n_warmup: int, n_steps: int, start: float) -> float:
    after = schedules.cosine_decay(n_steps - n_warmup)
    return schedules.linear_warmup(n_warmup, start=start, then=after)(step) if n_warmup else after(step)


def _schedule(step: int, n_warmup: int, n_steps: int, start: float, *, wrong: str) -> float:
    if step < n_warmup:
        begin = 0.0 if wrong == "from 0" else start
        share = (step + 1) / n_warmup if wrong == "early" else step / n_warmup
        return 1.0 if wrong == "no warm-up" else begin + (1 - begin) * share
    share = (step - n_warmup) / (n_steps - n_warmup)
    share = {"from the start": step / n_steps, "too long": (step - n_warmup) / n_steps}.get(wrong, share)
    share = share if wrong == "rises again" else min(share, 1.0)
    angle = {"whole period": 2 * math.pi * share, "quarter": math.pi / 2 * share}.get(wrong, math.pi * share)
    fall = {"not halved": math.cos(angle), "linear": 1 - share, "quarter": math.cos(angle)}
    return fall.get(wrong, (1 - math.cos(angle)) / 2 if wrong == "upside down" else (1 + math.cos(angle)) / 2)


_STEPS = range(24)


def check_warmup_cosine(student: Any) -> Verdict:
    """Check ``warmup_cosine(step, n_warmup, n_steps, start)``, the factor on the learning rate."""
    says = {
        "from 0": "the warm-up begins at `start`, not at 0",
        "early": "the warm-up is one step early: at step 0 the factor is `start`, at step `n_warmup` it is 1",
        "no warm-up": "there is no warm-up",
        "from the start": "the cosine begins at step 0: where the warm-up ends, it must begin at 1",
        "too long": "the cosine has only `n_steps − n_warmup` steps: it must be at 0 at `n_steps`",
        "rises again": "after `n_steps` it rises again: it should stay at 0",
        "whole period": "the cosine goes through a whole period: half of one falls from 1 to −1",
        "quarter": "this is a quarter of a period: the flat end at the bottom is missing",
        "not halved": "a cosine falls to −1; the factor should fall to 0",
        "linear": "this falls in a straight line; a cosine is asked for",
        "upside down": "the cosine is upside down",
    }
    return judge(
        student,
        exercise=EXERCISES[4],
        reference=_twin_schedule,
        cases=[(5, 20, 0.1), (4, 16, 0.0), (1, 12, 0.5), (0, 20, 0.1)],
        call=lambda function, *arguments: tuple(function(step, *arguments) for step in _STEPS),
        names=[f"the factor at step {step}" for step in _STEPS],
        right="Right: it equals `linear_warmup(…, then=cosine_decay(…))`, also without a warm-up and after the end.",
        mistakes=[Mistake(sentence, partial(_schedule, wrong=name)) for name, sentence in says.items()],
        figure=_draw_schedule,
    )


def _draw_schedule() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    fig, ax = plt.subplots(figsize=(7, 2.6))
    for index, (name, n_warmup) in enumerate({"no warm-up": 0, "10 steps": 10, "40 steps": 40}.items()):
        factors = [_twin_schedule(step, n_warmup, 100, 0.1) for step in range(101)]
        ax.plot(factors, label=name, color=style(index)["color"])
    ax.set(xlabel="step", ylabel="factor on lr", title="All end at step 100")
    ax.legend()
    return (
        fig,
        "Three schedules over 100 steps: without warm-up, with 10 and with 40 steps; all fall to 0 along a cosine.",
    )


def _steps_needed(betas: Sequence[float]) -> list[int]:
    """Steps of torch's momentum, lr 1/L, on curvatures 1 and 100, until the gap stays below 1e-6 of the first one."""
    curvature, beta = np.array([1.0, 100.0]), np.array(betas)[:, None]
    w, m = np.ones((len(beta), 2)), np.zeros((len(beta), 2))
    last, first = np.zeros(len(beta), dtype=int), 101.0
    for step in range(1, 3001):
        m = beta * m + curvature * w
        w = w - 0.01 * m
        last[w**2 @ curvature >= 1e-6 * first] = step
    return [int(step) + 1 for step in last]


def check_find_beta(beta: Any) -> Verdict:
    """Judge a momentum that needs nearly the fewest steps in a ravine with κ = 100 at the rate 1/L."""
    exercise = EXERCISES[5]
    if beta is None or not_attempted(beta):
        return Verdict(exercise, "todo", "not attempted yet")

    def wrong(message: str) -> Verdict:
        return Verdict(exercise, "wrong", message, got=brief(beta))

    if isinstance(beta, bool) or not isinstance(beta, Real):
        return wrong("the answer is one number, the share of m that is kept")
    value = float(beta)
    if not 0 <= value < 1:
        return wrong("β lies between 0 and 1, without 1: at 1 nothing would ever slow the ball down")
    tried = [index / 100 for index in range(99)]
    *needed, steps = _steps_needed([*tried, value])
    best = int(np.argmin(needed))
    if steps <= 1.1 * needed[best]:
        right = f"Yes: {steps} steps, where plain gradient descent takes {needed[0]}. The usual 0.9 is not best here."
        return Verdict(exercise, "right", right, figure=partial(_draw_beta, tried, needed, value, steps))
    if value < tried[best]:
        return wrong(f"{steps} steps: too little momentum, the flat direction still creeps")
    return wrong(f"{steps} steps: too much momentum, the weights swing back and forth for long")


def _draw_beta(tried: Sequence[float], needed: Sequence[int], value: float, steps: int) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.plot(tried, needed, color=style(0)["color"])
    ax.plot(value, steps, "o", color=style(1)["color"], markersize=9)
    ax.set(xlabel="β", ylabel="steps", yscale="log", title="Condition number 100, learning rate 1/L")
    return fig, (
        "Steps needed against the momentum: they fall from 458 without it to about 70 near 0.8 (dot: yours) and rise "
        "steeply towards 1."
    )


def _bowl(matrix: Tensor, minimum: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda w: matrix @ (w - minimum)


def _curvatures(gradient: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """All curvatures of a quadratic bowl, ascending, from its gradients at 0 and at the unit vectors."""
    at_zero = gradient(torch.zeros_like(w))
    hessian = torch.stack([gradient(unit) - at_zero for unit in torch.eye(len(w), dtype=w.dtype)])
    curvatures: Tensor = torch.linalg.eigvalsh(hessian)
    return curvatures


def _power_iteration(gradient: Callable[[Tensor], Tensor], w: Tensor, *, wrong: str) -> float:
    v, change = w / w.norm(), w
    for _ in range(1 if wrong == "one round" else 400):
        change = gradient(v) if wrong == "offset" else gradient(w + v) - gradient(w)
        v = change / change.norm()
    return 2 / float(change.norm())


def check_largest_stable_rate(student: Any) -> Verdict:
    """Check ``largest_stable_rate(gradient, w)``: 2/L of a quadratic bowl, from calls of its gradient alone."""
    generator, cases = make_generator(7), []
    for spectrum in ([1.0, 3.0, 10.0], [0.5], [2.0, 2.0], [0.01, 1.0, 30.0, 80.0, 100.0]):
        size = len(spectrum)
        q = torch.linalg.qr(_draw(generator, size, size)).Q
        matrix = q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ q.T
        cases.append((_bowl(matrix, 5 * _draw(generator, size)), _draw(generator, size)))
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "this is 1/L, the safe rate; twice as much is still stable": lambda c: 1 / c[-1],
        "this is L itself: the rate is 2 over it": lambda c: c[-1],
        "the flattest direction does not limit the rate; the steepest one does": lambda c: 2 / c[0],
        "2/(L + μ) is the best rate, not the largest stable one": lambda c: 2 / (c[0] + c[-1]),
        "this is 2 over the *sum* of all curvatures: safe, but too small": lambda c: 2 / c.sum(),
        "this is 2 over the *mean* curvature: the steepest direction would diverge": lambda c: 2 / c.mean(),
        "the largest curvature enters as its root or square: one round multiplies by L once": lambda c: 2 / c[-1] ** 2,
    }
    mistakes = [Mistake(says, lambda g, w, rate=rate: float(rate(_curvatures(g, w)))) for says, rate in known.items()]
    return judge(
        student,
        exercise=EXERCISES[6],
        reference=lambda gradient, w: float(2 / _curvatures(gradient, w)[-1]),
        cases=cases,
        rtol=1e-3,
        right="Right, and it takes two gradients a round: this works for a network too, where no Hessian would fit.",
        mistakes=[
            *mistakes,
            Mistake(
                "the minimum is not at 0, so gradient(v) contains a constant: take a difference of two gradients",
                partial(_power_iteration, wrong="offset"),
            ),
            Mistake(
                "one round is not enough: repeat until the direction settles",
                partial(_power_iteration, wrong="one round"),
            ),
        ],
    )
