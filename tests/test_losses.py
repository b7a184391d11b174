"""Robust losses against torch's, by gradients, and by what they do with an outlier."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils.losses import huber_loss, minkowski_loss
from course_utils.reproducibility import make_generator
from course_utils.training import fit

Loss = Callable[..., Tensor]
every_loss = pytest.mark.parametrize("loss", [huber_loss, minkowski_loss])
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def sample(*shape: int) -> tuple[Tensor, Tensor]:
    generator = make_generator(0)
    outputs = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return outputs, torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- Oracle ---------------------------------------------------------------------------------------------------------


@every_reduction
@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5, 100.0])
def test_huber_equals_torchs(delta: float, reduction: str) -> None:
    outputs, targets = sample(40, 3)
    outputs[0, 0] = targets[0, 0] + delta  # where the pieces meet
    ours, torchs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    actual = huber_loss(ours, targets, delta=delta, reduction=reduction)
    expected = nn.HuberLoss(delta=delta, reduction=reduction)(torchs, targets)
    torch.testing.assert_close(actual, expected)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, torchs.grad)


@every_reduction
@pytest.mark.parametrize(("power", "oracle"), [(2.0, nn.MSELoss), (1.0, nn.L1Loss)])
def test_minkowski_equals_torchs_at_both_ends(power: float, oracle: type[Any], reduction: str) -> None:
    outputs, targets = sample(40, 3)
    outputs[0, 0] = targets[0, 0]
    ours, torchs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    actual = minkowski_loss(ours, targets, power=power, reduction=reduction)
    expected = oracle(reduction=reduction)(torchs, targets)
    torch.testing.assert_close(actual, expected)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, torchs.grad)


@given(
    r=st.floats(-50, 50).filter(lambda r: abs(r) > 1e-3),
    power=st.floats(1.0, 4.0),
    target=st.floats(-10, 10),
)
@settings(deadline=None, max_examples=50)
def test_minkowski_is_its_formula(r: float, power: float, target: float) -> None:
    outputs = torch.tensor([target + r], dtype=torch.float64, requires_grad=True)
    loss = minkowski_loss(outputs, torch.tensor([target], dtype=torch.float64), power=power)
    loss.backward()
    r = outputs.item() - target
    assert loss.item() == pytest.approx(abs(r) ** power)
    assert outputs.grad is not None
    assert outputs.grad.item() == pytest.approx(power * abs(r) ** (power - 1) * math.copysign(1, r))


def test_defaults_are_the_documented_ones() -> None:
    outputs, targets = torch.tensor([0.5, 4.0]), torch.tensor([0.0, 0.0])
    assert huber_loss(outputs, targets).item() == pytest.approx((0.125 + 3.5) / 2)
    assert minkowski_loss(outputs, targets).item() == pytest.approx((0.5**1.5 + 8) / 2)


# --- Gradients ------------------------------------------------------------------------------------------------------


@every_reduction
@pytest.mark.parametrize(
    "loss",
    [
        *(functools.partial(huber_loss, delta=delta) for delta in (0.3, 1.0)),
        *(functools.partial(minkowski_loss, power=power) for power in (1.0, 1.2, 1.5, 2.0, 3.0)),
    ],
)
def test_gradients_towards_outputs_and_targets(loss: Loss, reduction: str) -> None:
    outputs, targets = sample(7, 2)
    inputs = (outputs.requires_grad_(), targets.requires_grad_())
    assert torch.autograd.gradcheck(functools.partial(loss, reduction=reduction), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "loss",
    [huber_loss, *(functools.partial(minkowski_loss, power=power) for power in (1.0, 1.01, 1.5, 2.0, 3.0))],
)
def test_gradient_at_a_perfect_fit_is_zero(loss: Loss, dtype: torch.dtype) -> None:
    outputs = torch.zeros(4, 1, dtype=dtype, requires_grad=True)
    value = loss(outputs, torch.zeros(4, 1, dtype=dtype))
    value.backward()
    assert value.item() == 0
    assert outputs.grad is not None
    assert torch.equal(outputs.grad, torch.zeros(4, 1, dtype=dtype))


def test_no_sample_pulls_harder_than_delta() -> None:
    outputs = torch.tensor([1e30, -1e30, 0.2], requires_grad=True)
    huber_loss(outputs, torch.zeros(3), delta=0.5, reduction="sum").backward()
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, torch.tensor([0.5, -0.5, 0.2]))


# --- Behaviour ------------------------------------------------------------------------------------------------------


def best_constant(loss: Loss, targets: Tensor) -> float:
    """The constant output with the smallest loss, on a fine grid."""
    grid = torch.linspace(-5, 30, 7001, dtype=torch.float64)
    losses = torch.stack([loss(value.expand_as(targets), targets) for value in grid])
    return float(grid[losses.argmin()])


def test_an_outlier_moves_the_robust_optimum_less() -> None:
    targets = torch.tensor([0.0, 0.1, 0.2, 0.3, 100.0], dtype=torch.float64)
    squared = best_constant(functools.partial(minkowski_loss, power=2.0), targets)
    between = best_constant(functools.partial(minkowski_loss, power=1.5), targets)
    absolute = best_constant(functools.partial(minkowski_loss, power=1.0), targets)
    huber = best_constant(functools.partial(huber_loss, delta=0.2), targets)
    assert squared == pytest.approx(targets.mean().item(), abs=0.01)
    assert absolute == pytest.approx(targets.median().item(), abs=0.01)
    assert absolute < between < squared / 2
    assert abs(huber - 0.2) < 0.1


@pytest.mark.parametrize("loss", [huber_loss, functools.partial(minkowski_loss, power=1.2)])
def test_fit_takes_it_and_a_line_survives_planted_outliers(loss: Loss) -> None:
    x = torch.linspace(-1, 1, 60)[:, None]
    targets = 2 * x
    targets[50:56] -= 30.0

    def slope(loss_fn: Loss) -> float:
        model = nn.Linear(1, 1)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        fit(model, (x, targets), loss_fn=loss_fn, optimizer=optimizer, max_epochs=300, batch_size=60, seed=0)
        return model.weight.item()

    assert slope(nn.MSELoss()) < -3
    assert slope(loss) > 1


# --- Errors ---------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(1, 1), torch.zeros(1, 3)])
def test_shapes_must_be_equal(loss: Loss, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must have the same shape, got \(3, 1\) and \("):
        loss(torch.zeros(3, 1), targets)


@every_loss
def test_outputs_must_be_floating_point(loss: Loss) -> None:
    with pytest.raises(TypeError, match=r"outputs must be floating-point, got torch.int64 of shape \(3,\)"):
        loss(torch.arange(3), torch.zeros(3))


@every_loss
def test_unknown_reduction_is_shown(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"reduction must be one of 'mean', 'sum', 'none', got 'max'"):
        loss(torch.zeros(3), torch.zeros(3), reduction="max")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: huber_loss(z, z, delta=0.0), r"delta must be in \(0, inf\), got 0.0"),
        (lambda z: huber_loss(z, z, delta=math.inf), r"delta must be in \(0, inf\), got inf"),
        (lambda z: minkowski_loss(z, z, power=0.9), r"power must be in \[1, inf\), got 0.9"),
        (lambda z: minkowski_loss(z, z, power=math.inf), r"power must be in \[1, inf\), got inf"),
    ],
)
def test_bad_parameters_are_shown(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(3))
