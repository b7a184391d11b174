"""Schedules against torch's schedulers, their shapes by property, and their errors."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from course_utils import schedules
from course_utils.reproducibility import make_generator
from course_utils.schedules import Schedule
from course_utils.training import fit

STEPS = st.integers(min_value=1, max_value=200)
SHARES = st.floats(min_value=0.0, max_value=1.0)
N = 40


def _factors(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], lr: float, n_steps: int) -> list[float]:
    """The learning rates a scheduler of torch sets before each step, over the peak ``lr``."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"] / lr)
        optimizer.step()
        scheduler.step()
    return rates


TWINS: dict[str, tuple[Schedule, Callable[[Any], lr_scheduler.LRScheduler]]] = {
    "step": (schedules.step_decay(7, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 7, gamma=0.5)),
    "exponential": (schedules.exponential_decay(0.93), lambda o: lr_scheduler.ExponentialLR(o, 0.93)),
    "linear": (schedules.linear_decay(25, final=0.2), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, 25)),
    "polynomial": (schedules.polynomial_decay(25, power=3.0), lambda o: lr_scheduler.PolynomialLR(o, 25, power=3.0)),
    "cosine": (schedules.cosine_decay(N, final=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.03)),
    "warm-up": (schedules.linear_warmup(9, start=0.25), lambda o: lr_scheduler.LinearLR(o, 0.25, 1.0, 9)),
    "one-cycle": (
        schedules.one_cycle(N + 1, warm_up=0.4),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=N + 1, pct_start=0.4, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_factors_are_those_of_torchs_scheduler(name: str) -> None:
    ours, theirs = TWINS[name]
    assert [ours(step) for step in range(N)] == pytest.approx(_factors(theirs, 0.3, N), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", TWINS)
def test_lambda_lr_takes_a_schedule(name: str) -> None:
    ours, _ = TWINS[name]
    factors = _factors(lambda optimizer: lr_scheduler.LambdaLR(optimizer, ours), 0.3, N)
    assert factors == pytest.approx([ours(step) for step in range(N)])


def test_inverse_decay_equals_its_formula_and_halves_after_one_over_rate() -> None:
    schedule = schedules.inverse_decay(0.05)
    assert [schedule(step) for step in range(N)] == pytest.approx([1 / (1 + 0.05 * step) for step in range(N)])
    assert schedule(20) == pytest.approx(0.5)


def test_what_is_not_given_takes_the_value_the_signature_promises() -> None:
    assert schedules.step_decay(3)(3) == pytest.approx(0.1)
    assert schedules.polynomial_decay(4)(1) == pytest.approx(0.75**2)
    assert schedules.linear_warmup(5)(0) == pytest.approx(0.1)
    ours = [schedules.one_cycle(N)(step) for step in range(N)]
    theirs = _factors(lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=N), 0.3, N - 1)
    assert ours[:-1] == pytest.approx(theirs, rel=1e-9)
    assert ours[-1] == pytest.approx(1 / 250_000)


@given(n_steps=STEPS, final=SHARES, power=st.floats(min_value=0.1, max_value=5.0), gamma=st.floats(0.01, 1.0))
def test_decays_start_at_one_stay_in_range_and_never_rise(
    n_steps: int, final: float, power: float, gamma: float
) -> None:
    decays = [
        schedules.linear_decay(n_steps, final=final),
        schedules.polynomial_decay(n_steps, power=power, final=final),
        schedules.cosine_decay(n_steps, final=final),
        schedules.step_decay(n_steps, gamma=gamma),
        schedules.exponential_decay(gamma),
        schedules.inverse_decay(gamma),
    ]
    for index, decay in enumerate(decays):
        factors = [decay(step) for step in range(n_steps + 5)]
        assert factors[0] == pytest.approx(1.0)
        assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in factors)
        assert all(later <= sooner + 1e-12 for sooner, later in itertools.pairwise(factors))
        if index < 3:
            assert factors[n_steps:] == pytest.approx([final] * 5)


@given(n_steps=STEPS, start=SHARES)
def test_warm_up_rises_to_one_and_then_follows_the_other_from_its_step_0(n_steps: int, start: float) -> None:
    schedule = schedules.linear_warmup(n_steps, start=start, then=schedules.cosine_decay(30))
    rising = [schedule(step) for step in range(n_steps + 1)]
    assert rising[0] == pytest.approx(start)
    assert rising == sorted(rising)
    assert [schedule(n_steps + step) for step in range(40)] == [schedules.cosine_decay(30)(step) for step in range(40)]


@given(n_steps=st.integers(2, 200), warm_up=st.floats(0.01, 0.99), start=st.floats(0.01, 1.0), final=SHARES)
def test_one_cycle_rises_once_then_falls_to_final_and_stays(
    n_steps: int, warm_up: float, start: float, final: float
) -> None:
    schedule = schedules.one_cycle(n_steps, warm_up=warm_up, start=start, final=final)
    factors = [schedule(step) for step in range(n_steps + 3)]
    top = factors.index(max(factors))
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in factors)
    assert factors[:top] == sorted(factors[:top])
    assert all(later <= sooner + 1e-12 for sooner, later in itertools.pairwise(factors[top:]))
    assert factors[n_steps - 1 :] == pytest.approx([final] * 4)


def _one_cycle_of_torch(n_steps: int, warm_up: float) -> list[float]:
    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.3, total_steps=n_steps, pct_start=warm_up, cycle_momentum=False
        )

    return _factors(make, 0.3, n_steps)


@pytest.mark.parametrize(
    ("n_steps", "warm_up"),
    [
        *[(2, 0.51), (2, 0.9), (2, 0.999), (3, 0.34), (3, 0.5), (4, 0.3), (5, 0.201), (5, 0.9), (10, 0.11), (10, 0.95)],
        *[(41, 0.025), (41, 0.3), (100, 0.0101), (100, 0.5), (100, 0.999)],
    ],
)
def test_one_cycle_follows_torch_wherever_the_warm_up_exceeds_one_step(n_steps: int, warm_up: float) -> None:
    assert warm_up * n_steps > 1.0
    schedule = schedules.one_cycle(n_steps, warm_up=warm_up)
    theirs = _one_cycle_of_torch(n_steps, warm_up)
    assert [schedule(step) for step in range(n_steps)] == pytest.approx(theirs, rel=1e-9, abs=1e-12)


SHORT_WARM_UPS = [(2, 1e-9), (2, 0.25), (2, 0.5), (3, 0.1), (4, 0.25), (5, 0.1), (5, 0.2), (10, 0.1), (41, 0.01)]


@pytest.mark.parametrize(("n_steps", "warm_up"), SHORT_WARM_UPS)
def test_one_cycle_whose_warm_up_is_under_a_step_falls_from_the_peak(n_steps: int, warm_up: float) -> None:
    ours, fall = schedules.one_cycle(n_steps, warm_up=warm_up), schedules.cosine_decay(n_steps - 1, final=1 / 250_000)
    assert ours(0) == 1.0
    assert [ours(step) for step in range(n_steps + 2)] == pytest.approx([fall(step) for step in range(n_steps + 2)])


@pytest.mark.parametrize(("n_steps", "warm_up"), SHORT_WARM_UPS)
def test_torchs_own_one_cycle_misses_its_peak_there_or_fails(n_steps: int, warm_up: float) -> None:
    """The reason for differing; should torch change this, the docstring has to follow."""
    if warm_up * n_steps == 1.0:
        with pytest.raises(ZeroDivisionError):
            _one_cycle_of_torch(n_steps, warm_up)
        return
    factors = _one_cycle_of_torch(n_steps, warm_up)
    assert max(factors) == factors[0] < 0.9999
    assert factors[-1] == pytest.approx(1 / 250_000)
    if (n_steps, warm_up) == (2, 1e-9):
        assert factors[0] == pytest.approx(0.5, abs=1e-5)


def test_fit_applies_the_factor_from_step_0_on() -> None:
    model = nn.Linear(2, 1)
    data = (torch.randn(8, 2, generator=make_generator(0)), torch.zeros(8, 1))
    seen: list[float] = []

    def record(step: int) -> float:
        seen.append(schedules.linear_decay(4)(step))
        return seen[-1]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(
            model,
            data,
            loss_fn=nn.functional.mse_loss,
            optimizer=optimizer,
            max_epochs=2,
            batch_size=4,
            schedule=record,
            seed=0,
        )
    assert seen[:4] == pytest.approx([1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.step_decay(0), "every must be at least 1, got 0"),
        (lambda: schedules.step_decay(3, gamma=1.5), r"gamma must be in \(0, 1\], got 1.5"),
        (lambda: schedules.exponential_decay(0.0), r"gamma must be in \(0, 1\], got 0.0"),
        (lambda: schedules.inverse_decay(-1.0), r"rate must be in .* got -1.0"),
        (lambda: schedules.linear_decay(10, final=2.0), r"final must be in \[0, 1\], got 2.0"),
        (lambda: schedules.polynomial_decay(10, power=0.0), r"power must be in .* got 0.0"),
        (lambda: schedules.cosine_decay(0), "n_steps must be at least 1, got 0"),
        (lambda: schedules.linear_warmup(5, start=-0.1), r"start must be in \[0, 1\], got -0.1"),
        (lambda: schedules.one_cycle(1), "n_steps must be at least 2, got 1"),
        (lambda: schedules.one_cycle(10, warm_up=1.0), r"warm_up must be in \(0, 1\), got 1.0"),
    ],
)
def test_bad_values_are_named_with_their_range(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_that_are_no_integers_and_what_is_no_schedule_are_refused() -> None:
    with pytest.raises(TypeError, match=r"n_steps must be an integer, got 2.5"):
        schedules.cosine_decay(2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"then must be a schedule, a function of the step, got 0.5"):
        schedules.linear_warmup(5, then=0.5)  # type: ignore[arg-type]
