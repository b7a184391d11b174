"""Monitors against hand-made numbers, their clean-up, and `diagnose` on networks whose illness is known."""

from __future__ import annotations

import copy
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from course_utils.monitoring import (
    ActivationMonitor,
    Diagnosis,
    GradientMonitor,
    NonFinite,
    WeightMonitor,
    dead_fraction,
    diagnose,
    find_nonfinite,
    saturated_fraction,
)

mpl.use("agg")
LOSS = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def close_figures() -> Iterator[None]:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def make_net(
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    depth: int = 10,
    init: Callable[[Tensor], Any] | None = None,
    norm: bool = False,
    bias: float | None = None,
    sizes: tuple[int, int, int] = (784, 100, 10),
) -> nn.Sequential:
    fan_in, width, out = sizes
    modules: list[nn.Module] = []
    for _ in range(depth):
        modules.append(nn.Linear(fan_in, width))
        modules += [nn.BatchNorm1d(width)] if norm else []
        modules.append(activation())
        fan_in = width
    model = nn.Sequential(*modules, nn.Linear(fan_in, out))
    for layer in model:
        if isinstance(layer, nn.Linear):
            if init is not None:
                init(layer.weight)
                nn.init.zeros_(layer.bias)
            if bias is not None and layer is not model[-1]:
                nn.init.constant_(layer.bias, bias)
    return model


def linear(model: nn.Sequential, index: int) -> nn.Linear:
    layer = model[index]
    assert isinstance(layer, nn.Linear)
    return layer


def small_net() -> nn.Sequential:
    return make_net(nn.Tanh, depth=2, sizes=(5, 4, 3))


def make_batch(samples: int = 256, features: int = 784, classes: int = 10) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, features), torch.randint(0, classes, (samples,))


def he(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def normal(std: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: nn.init.normal_(weight, 0.0, std)


def train(model: nn.Module, steps: int, *, lr: float = 0.1, clip: float | None = None) -> list[list[Tensor]]:
    """Train on fresh small batches and return the weight gradients of every step as they were before clipping."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    seen = []
    for _ in range(steps):
        inputs, targets = make_batch(8, 5, 3)
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        gradients = [p.grad for p in model.parameters() if p.ndim == 2]
        seen.append([g.clone() for g in gradients if g is not None])
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return seen


def hooks_on(model: nn.Module) -> int:
    on_modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    on_weights = sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())
    return on_modules + on_weights


def global_optimizer_hooks() -> int:
    from torch.optim import optimizer

    return len(optimizer._global_optimizer_pre_hooks) + len(optimizer._global_optimizer_post_hooks)


# --- the pure functions ---------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.booleans(), min_size=1, max_size=8))
def test_property_dead_fraction_is_the_share_of_zeroed_columns(samples: int, dead: list[bool]) -> None:
    activations = torch.rand(samples, len(dead)) + 0.1
    activations[:, torch.tensor(dead)] = 0.0
    assert dead_fraction(activations) == pytest.approx(sum(dead) / len(dead))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0, 0.5))
def test_property_saturated_fraction_counts_what_is_near_an_asymptote(values: list[float], tol: float) -> None:
    activations = torch.tensor([values], dtype=torch.float64)
    near = sum(value <= -1.0 + tol or value >= 1.0 - tol for value in values)
    assert saturated_fraction(activations, -1.0, 1.0, tol) == pytest.approx(near / len(values))


def test_property_a_unit_alive_for_one_sample_is_not_dead() -> None:
    activations = torch.zeros(10, 2)
    activations[7, 1] = 1e-30
    assert dead_fraction(activations) == 0.5


def test_error_messages_of_the_pure_functions_show_the_value() -> None:
    with pytest.raises(ValueError, match=r"\(batch, units\), got \(3,\)"):
        dead_fraction(torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(0, 4\)"):
        saturated_fraction(torch.zeros(0, 4), 0, 1)
    with pytest.raises(ValueError, match="low=1, high=0"):
        saturated_fraction(torch.zeros(1, 1), 1, 0)
    with pytest.raises(ValueError, match=r"tol=-0\.1"):
        saturated_fraction(torch.zeros(1, 1), 0, 1, tol=-0.1)


# --- GradientMonitor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_oracle_gradient_norms_are_those_before_clipping(every: int) -> None:
    model = small_net()
    with GradientMonitor(model, every=every) as monitor:
        gradients = train(model, 7, clip=1e-3)[every - 1 :: every]
    assert monitor.layers == ["0", "2", "4"]
    assert monitor.steps == list(range(every, 8, every))
    norms = torch.tensor([[g.norm() for g in step] for step in gradients])
    torch.testing.assert_close(monitor.values("norm"), norms)
    rms = torch.tensor([[g.square().mean().sqrt() for g in step] for step in gradients])
    torch.testing.assert_close(monitor.values("rms"), rms)


def test_behaviour_accumulation_with_every_k_records_the_sum() -> None:
    model = small_net()
    with GradientMonitor(model, every=2) as monitor:
        for _ in range(2):
            inputs, targets = make_batch(8, 5, 3)
            LOSS(model(inputs), targets).backward()
    weight = linear(model, 0).weight
    assert weight.grad is not None
    assert monitor.steps == [2]
    torch.testing.assert_close(monitor.values()[0, 0], weight.grad.norm())
    model.zero_grad()
    with GradientMonitor(model) as monitor:
        loss = LOSS(model(torch.randn(8, 5)), torch.zeros(8, dtype=torch.long))
        loss.backward(retain_graph=True)
        loss.backward()  # a second step, without a forward pass of its own
    torch.testing.assert_close(monitor.values()[1], 2 * monitor.values()[0])


class _Branches(nn.Module):
    """Each call uses one of two branches; the trunk is used by both, ``unused`` by none, and the head is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 4)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.trunk.weight

    def forward(self, inputs: Tensor, *, left: bool = True) -> Tensor:
        hidden = self.trunk(inputs)
        output: Tensor = self.tied(self.left(hidden) if left else self.right(hidden))
        return output


def test_behaviour_unused_and_shared_weights_keep_steps_apart() -> None:
    model = _Branches()
    with GradientMonitor(model) as monitor:
        for left in (True, False, True):
            model.zero_grad()
            model(torch.randn(3, 4), left=left).sum().backward()
    assert monitor.layers == ["trunk", "left", "right", "unused"]
    reached = monitor.values().isfinite().tolist()
    assert reached == [[True, True, False, False], [True, False, True, False], [True, True, False, False]]
    assert monitor.first_nonfinite is None
    assert model.trunk.weight.grad is not None
    torch.testing.assert_close(monitor.values()[2, 0], model.trunk.weight.grad.norm())


def test_behaviour_frozen_layers_are_left_out() -> None:
    model = small_net()
    model[0].requires_grad_(False)
    assert GradientMonitor(model).layers == ["2", "4"]
    with pytest.raises(ValueError, match="the weights of 0, 2, 4 are frozen"):
        GradientMonitor(small_net().requires_grad_(False))


def test_behaviour_a_nonfinite_gradient_is_recorded_with_step_and_layer() -> None:
    model = small_net()
    with GradientMonitor(model) as monitor:
        train(model, 2)
        assert monitor.first_nonfinite is None
        with torch.no_grad():
            linear(model, 2).bias[0] = torch.inf
            linear(model, 4).weight.mul_(torch.nan)
        train(model, 1)
    assert monitor.first_nonfinite == (3, "4")
    assert math.isnan(monitor.latest()["0"])


def test_behaviour_an_interrupted_backward_pass_does_not_spoil_the_next() -> None:
    model = small_net()

    def fail(_: Tensor) -> None:
        raise FloatingPointError

    with GradientMonitor(model) as monitor:
        hook = linear(model, 0).weight.register_hook(fail)
        with pytest.raises(FloatingPointError):
            LOSS(model(torch.randn(8, 5)), torch.zeros(8, dtype=torch.long)).backward()
        hook.remove()
        gradients = train(model, 1)
    assert monitor.steps == [1, 2]
    torch.testing.assert_close(monitor.values()[1], torch.stack([g.norm() for g in gradients[0]]))


# --- ActivationMonitor and WeightMonitor ----------------------------------------------------------------------------


def test_oracle_activation_statistics_match_an_own_forward_pass() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    with torch.no_grad():
        linear(model, 0).bias[:2] = -50.0
        linear(model, 2).weight.mul_(20)
    inputs = torch.randn(32, 5)
    with ActivationMonitor(model) as monitor, torch.no_grad():
        model(inputs)
    relu = model[1](model[0](inputs)).detach()
    tanh = model[3](model[2](relu)).detach()
    assert monitor.layers == ["1", "3"]
    assert monitor.latest("mean") == pytest.approx({"1": relu.mean().item(), "3": tanh.mean().item()}, rel=1e-5)
    assert monitor.latest("std")["3"] == pytest.approx(tanh.std(correction=0).item(), rel=1e-5)
    assert monitor.latest("dead")["1"] == pytest.approx(dead_fraction(relu))
    assert monitor.latest("dead")["1"] >= 2 / 6
    assert monitor.latest("saturated")["3"] == pytest.approx(saturated_fraction(tanh, -1, 1))
    assert 0 < monitor.latest("saturated")["3"] < 1
    assert math.isnan(monitor.latest("saturated")["1"])


def test_behaviour_validation_passes_do_not_mix_into_training_records() -> None:
    model = small_net()
    inputs = torch.randn(8, 5)
    with ActivationMonitor(model) as training, ActivationMonitor(model, mode="eval", every=2) as validation:
        for _ in range(3):
            model.train()
            model(inputs)
            model.eval()
            model(inputs + 1)
    assert training.steps == [1, 2, 3]
    assert validation.steps == [2]
    assert training.latest() != validation.latest()
    assert not model.training


class _Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(5, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.act(self.second(self.act(self.first(inputs))))
        return output


def test_behaviour_a_reused_activation_is_listed_once_per_call() -> None:
    model = _Reused()
    with ActivationMonitor(model) as monitor:
        model(torch.randn(8, 5))
    assert monitor.layers == ["act", "act (2)"]


def test_behaviour_own_activations_count_and_norms_and_dropout_do_not() -> None:
    class SigLU(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * torch.sigmoid(inputs)

    class BatchNorm1d(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs

    model = nn.Sequential(nn.Linear(5, 4), BatchNorm1d(), SigLU(), nn.Dropout(0.5), nn.Linear(4, 4), nn.PReLU())
    with ActivationMonitor(model) as monitor:
        model(torch.randn(8, 5))
    assert monitor.layers == ["2", "5"]


def test_property_weights_of_zero_have_an_infinite_ratio_once_they_move() -> None:
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with WeightMonitor(model) as monitor:
        for gradient in (0.0, 1.0):
            model.weight.grad = torch.full((2, 2), gradient)
            optimizer.step()
    assert monitor.values()[:, 0].tolist() == [0.0, math.inf]


def test_oracle_update_ratio_from_copied_weights() -> None:
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    expected = []
    with WeightMonitor(model, every=2) as monitor:
        for _ in range(4):
            LOSS(model(torch.randn(8, 5)), torch.zeros(8, dtype=torch.long)).backward()
            before = [p.detach().clone() for p in model.parameters() if p.ndim == 2]
            optimizer.step()
            other.step()  # an optimizer of another model is no step of ours
            after = [p.detach().clone() for p in model.parameters() if p.ndim == 2]
            expected.append([float((a - b).norm() / b.norm()) for b, a in zip(before, after, strict=True)])
    assert monitor.steps == [2, 4]
    torch.testing.assert_close(monitor.values(), torch.tensor([expected[1], expected[3]]))
    torch.testing.assert_close(monitor.values("norm")[-1], torch.stack([a.norm() for a in after]))


# --- what all monitors share ----------------------------------------------------------------------------------------

MONITORS = [GradientMonitor, ActivationMonitor, WeightMonitor]


@pytest.mark.parametrize("kind", MONITORS)
def test_behaviour_no_hook_remains_even_when_the_body_raises(kind: Any) -> None:
    model = small_net()
    before = global_optimizer_hooks()
    monitor = kind(model)
    assert hooks_on(model) + global_optimizer_hooks() > before

    def train_and_stop() -> None:
        with monitor:
            train(model, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_stop()
    assert hooks_on(model) == 0
    assert global_optimizer_hooks() == before
    assert monitor.steps == [1]
    train(model, 1)
    assert monitor.steps == [1]
    without_a_block = kind(model)
    train(model, 1)
    without_a_block.close()
    without_a_block.close()
    assert hooks_on(model) == 0
    assert len(without_a_block.latest()) > 0


@pytest.mark.parametrize("kind", MONITORS)
def test_error_messages_of_monitors(kind: Any) -> None:
    model = small_net()
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        kind(model, every=0)
    with pytest.raises(ValueError, match="model has no"):
        kind(nn.Identity())
    with kind(model) as monitor:
        with pytest.raises(RuntimeError, match="open already"), monitor:
            pass
        with pytest.raises(ValueError, match="quantity must be one of"):
            monitor.values("colour")
        with pytest.raises(RuntimeError, match=r"nothing recorded yet: .*every=1"):
            monitor.latest()
        with pytest.raises(RuntimeError, match="nothing recorded"):
            monitor.plot()
    with pytest.raises(RuntimeError, match="closed already"), monitor:
        pass
    assert hooks_on(model) == 0


@pytest.mark.usefixtures("close_figures")
@pytest.mark.parametrize("kind", MONITORS)
def test_behaviour_table_and_pictures(kind: Any) -> None:
    model = small_net()
    with kind(model) as monitor:
        train(model, 6)
    for quantity in monitor.quantities:
        frame = monitor.to_frame(quantity)
        assert list(frame.columns) == monitor.layers
        assert list(frame.index) == monitor.steps
        assert frame.index.name == "step"
        over_steps = monitor.plot(quantity)
        assert len(over_steps.get_lines()) == len(monitor.layers)
        assert {text.get_text() for text in over_steps.texts} <= set(monitor.layers)
        assert all(0 <= text.get_position()[1] <= 1 for text in over_steps.texts)
        over_steps.figure.canvas.draw()


@pytest.mark.parametrize("kind", MONITORS)
def test_oracle_tensorboard_file_holds_the_same_numbers(kind: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = small_net()
    with kind(model, every=2, log_dir=tmp_path) as monitor:
        train(model, 4)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for quantity in monitor.quantities:
        for column, layer in enumerate(monitor.layers):
            scalars = events.Scalars(f"{monitor.tag}_{quantity}/{layer}")
            assert [scalar.step for scalar in scalars] == [2, 4]
            written = torch.tensor([scalar.value for scalar in scalars])
            torch.testing.assert_close(written, monitor.values(quantity)[:, column], equal_nan=True)


@pytest.mark.slow
def test_behaviour_the_import_draws_in_nothing_heavy() -> None:
    heavy = "{'pandas', 'matplotlib', 'tensorboard', 'IPython'}"
    code = f"import sys, course_utils.monitoring; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- diagnose: networks whose illness is known ----------------------------------------------------------------------


def verdicts(model: nn.Module, samples: int = 256) -> list[str]:
    return [layer.verdict for layer in diagnose(model, make_batch(samples), LOSS).layers]


def test_behaviour_ten_sigmoid_or_relu_layers_with_torchs_default_init_vanish_toward_the_input() -> None:
    assert verdicts(make_net())[:5] == ["vanishing"] * 5
    diagnosis = diagnose(make_net(nn.Sigmoid), make_batch(), LOSS)
    assert [layer.verdict for layer in diagnosis.layers] == ["vanishing"] * 7 + ["healthy"] * 4
    assert diagnosis.worst is diagnosis.layers[0]
    assert 1e-10 < diagnosis.worst.value < 1e-7
    assert "ReLU with He" in diagnosis.worst.advice


def test_behaviour_a_network_that_shrinks_evenly_vanishes_although_its_gradient_ratio_is_flat() -> None:
    diagnosis = diagnose(make_net(nn.Tanh, init=normal(0.01)), make_batch(), LOSS)
    table = diagnosis.to_frame()
    assert set(table["verdict"]) == {"vanishing"}
    assert 0.1 < table["gradient_norm"].iloc[1] / table["gradient_norm"].iloc[-1] < 10


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "tanh, Glorot, 10": lambda: make_net(nn.Tanh, init=nn.init.xavier_normal_),
    "tanh, default, 10": lambda: make_net(nn.Tanh),
    "ReLU, He, 10": lambda: make_net(init=he),
    "ReLU, He, 30": lambda: make_net(init=he, depth=30),
    "ReLU, default, 5": lambda: make_net(depth=5),
    "sigmoid, 2": lambda: make_net(nn.Sigmoid, depth=2),
    "tanh, 2": lambda: make_net(nn.Tanh, depth=2),
    "ReLU, 2": lambda: make_net(depth=2),
    "GELU, 2": lambda: make_net(nn.GELU, depth=2),
    "ReLU, BatchNorm, 10": lambda: make_net(norm=True),
    "ReLU, BatchNorm, N(0, 1), 10": lambda: make_net(norm=True, init=normal(1.0)),
    "sigmoid, BatchNorm, 10": lambda: make_net(nn.Sigmoid, norm=True),
    "linear": lambda: nn.Linear(784, 10),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_behaviour_healthy_networks_are_found_healthy(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    diagnosis = diagnose(HEALTHY[name](), make_batch(64), LOSS)
    assert diagnosis.healthy, str(diagnosis)
    assert "healthy" in diagnosis.summary


@pytest.mark.parametrize(("std", "low", "high"), [(0.2, 20, 500), (1.0, 1e7, 1e11)])
def test_behaviour_too_large_weights_explode(std: float, low: float, high: float) -> None:
    diagnosis = diagnose(make_net(init=normal(std)), make_batch(), LOSS)
    assert {layer.verdict for layer in diagnosis.layers} == {"exploding"}
    assert low < diagnosis.worst.value < high


def test_behaviour_bias_of_minus_three_kills_relus() -> None:
    diagnosis = diagnose(make_net(depth=2, bias=-3.0), make_batch(), LOSS)
    assert [layer.verdict for layer in diagnosis.layers] == ["dead", "dead", "vanishing"]
    assert diagnosis.worst.value == 1.0
    assert "nothing gets through" in diagnosis.layers[-1].advice


@pytest.mark.parametrize(("activation", "depth"), [(nn.Tanh, 2), (nn.Tanh, 10), (nn.Sigmoid, 1)])
def test_behaviour_large_weights_saturate(activation: Callable[[], nn.Module], depth: int) -> None:
    assert verdicts(make_net(activation, depth=depth, init=normal(1.0)))[:-1] == ["saturated"] * depth


def test_behaviour_a_sure_classifier_may_saturate_its_output() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    with torch.no_grad():
        linear(model, 2).weight.mul_(90)
    inputs = torch.randn(64, 5)
    diagnosis = diagnose(model, (inputs, torch.ones(64, 1)), nn.functional.mse_loss)
    assert diagnosis.layers[1].numbers["saturated"] > 0.75
    assert [layer.verdict for layer in diagnosis.layers][1] != "saturated"


def test_behaviour_a_nan_weight_is_named() -> None:
    model = make_net()
    with torch.no_grad():
        linear(model, 4).weight[3, 3] = torch.nan
    diagnosis = diagnose(model, make_batch(), LOSS)
    assert {layer.verdict for layer in diagnosis.layers} == {"NaN"}
    assert diagnosis.worst.name == "4"
    assert diagnosis.first_nonfinite == NonFinite("4", "weight")
    assert diagnosis.layers[0].advice == "follows from 4"
    assert not diagnosis.healthy


def test_behaviour_a_trained_network_with_tiny_gradients_is_healthy() -> None:
    model = make_net(depth=2, sizes=(5, 32, 3))
    inputs = torch.randn(64, 5)
    targets = inputs[:, :3].argmax(dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(600):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), targets)
        loss.backward()
        optimizer.step()
    diagnosis = diagnose(model, (inputs, targets), LOSS)
    assert diagnosis.loss < 1e-3
    assert diagnosis.layers[0].numbers["gradient_norm"] < 1e-3
    assert diagnosis.healthy, str(diagnosis)


def test_behaviour_the_scale_of_loss_and_targets_changes_no_verdict() -> None:
    model = make_net(depth=2, sizes=(13, 64, 1))
    inputs = torch.randn(128, 13)
    prices = 22 + 9 * torch.randn(128, 1)
    assert diagnose(model, (inputs, prices), nn.functional.mse_loss).healthy
    assert diagnose(model, (inputs, prices), lambda y, t: 1e-8 * nn.functional.mse_loss(y, t)).healthy


def test_behaviour_a_perfect_fit_has_nothing_to_learn_and_is_healthy() -> None:
    model = make_net(depth=2, sizes=(5, 8, 1))
    inputs = torch.randn(16, 5)
    model.eval()
    diagnosis = diagnose(model, (inputs, model(inputs).detach()), nn.functional.mse_loss)
    assert diagnosis.healthy
    assert diagnosis.layers[0].measure == "no_error"


def test_behaviour_frozen_and_detached_layers() -> None:
    model = make_net(depth=2, sizes=(5, 8, 3))
    model[0].requires_grad_(False)
    diagnosis = diagnose(model, make_batch(64, 5, 3), LOSS)
    assert diagnosis.layers[0].measure == "frozen"
    assert diagnosis.healthy

    class Detach(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.detach()

    cut = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Detach(), nn.Linear(8, 3))
    first, last = diagnose(cut, make_batch(64, 5, 3), LOSS).layers
    assert (first.verdict, first.value) == ("vanishing", 0.0)
    assert last.verdict == "healthy"


def test_behaviour_in_place_activations_and_reused_modules_are_measured_alike() -> None:
    model = make_net(init=he, depth=3)
    in_place = copy.deepcopy(model)
    for module in in_place:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    batch = make_batch()
    ours, theirs = (diagnose(m, batch, LOSS).to_frame() for m in (model, in_place))
    assert (ours["gradient_reach"] / theirs["gradient_reach"]).sub(1).abs().max() < 1e-5
    assert (ours["dead"].dropna() == theirs["dead"].dropna()).all()


def test_oracle_gradient_reach_is_the_size_of_one_samples_weight_gradient() -> None:
    model = small_net()
    inputs, targets = make_batch(2, 5, 3)
    inputs, targets = inputs[:1].repeat(2, 1), targets[:1].repeat(2)  # two equal samples: nothing cancels
    layer = diagnose(model, (inputs, targets), LOSS).layers[0]
    outputs = model(inputs).detach().requires_grad_()
    (error,) = torch.autograd.grad(LOSS(outputs, targets), outputs)
    expected = layer.numbers["gradient_norm"] / (error[0].norm().item() * 2 * math.sqrt(5))
    assert layer.value == pytest.approx(expected, rel=1e-5)


# --- wrapped modules ------------------------------------------------------------------------------------------------


class _Recurrent(nn.Module):
    """Classifies by the last hidden state, which is not the recurrent layer's first output."""

    def __init__(self, kind: Callable[..., nn.RNNBase], *, packed: bool = False) -> None:
        super().__init__()
        self.rnn = kind(5, 4, batch_first=True)
        self.act, self.head = nn.ReLU(), nn.Linear(4, 3)
        self.packed = packed

    def forward(self, inputs: Tensor) -> Tensor:
        sequence: Any = inputs.unsqueeze(1).expand(-1, 3, -1)
        if self.packed:
            lengths = torch.full((len(inputs),), 3)
            sequence = nn.utils.rnn.pack_padded_sequence(sequence, lengths, batch_first=True)
        _, state = self.rnn(sequence)
        last = state[0] if isinstance(state, tuple) else state
        output: Tensor = self.head(self.act(last[-1]))
        return output


class _Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(5, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        state = self.cell(inputs)
        output: Tensor = self.head(self.cell(inputs, state)[0])
        return output


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(5, 1, batch_first=True)
        self.act, self.head = nn.ReLU(), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        sequence = inputs.unsqueeze(1).expand(-1, 3, -1)
        output: Tensor = self.head(self.act(self.attention(query=sequence, key=sequence, value=sequence)[0].mean(1)))
        return output


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head, self.act = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3), nn.ReLU()
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(self.act(self.second(self.act(self.first(inputs)))))
        return output


class _Argmax(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.argmax(dim=1)


def _with_layer(wrap: Callable[[nn.Linear], nn.Module]) -> nn.Sequential:
    return nn.Sequential(wrap(nn.Linear(5, 8)), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def _with_hidden_weight(wrap: Callable[..., nn.Module]) -> nn.Module:
    model = _Recurrent(nn.LSTM)
    wrap(model.rnn, "weight_hh_l0")
    return model


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _halved(layer: nn.Linear) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", _Halved())


def _pruned(layer: nn.Linear) -> nn.Module:
    pruned: nn.Module = prune.l1_unstructured(layer, "weight", 0.3)
    return pruned


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "none": lambda: _with_layer(lambda layer: layer),
    "weight norm": lambda: _with_layer(parametrizations.weight_norm),
    "spectral norm": lambda: _with_layer(parametrizations.spectral_norm),
    "own parametrization": lambda: _with_layer(_halved),
    "parametrized without bias": lambda: _with_layer(
        lambda layer: parametrizations.weight_norm(nn.Linear(5, 8, bias=False))
    ),
    "older weight norm": lambda: _with_layer(nn.utils.weight_norm),
    "older spectral norm": lambda: _with_layer(nn.utils.spectral_norm),
    "pruned": lambda: _with_layer(_pruned),
    "LSTM": lambda: _Recurrent(nn.LSTM),
    "GRU, packed": lambda: _Recurrent(nn.GRU, packed=True),
    "RNN": lambda: _Recurrent(nn.RNN),
    "LSTM cell": _Cell,
    "LSTM, weight norm": lambda: _with_hidden_weight(parametrizations.weight_norm),
    "LSTM, spectral norm": lambda: _with_hidden_weight(parametrizations.spectral_norm),
    "attention": _Attention,
    "tied": _Tied,
    "data parallel": lambda: nn.DataParallel(small_net()),
    "embedding": lambda: nn.Sequential(_Argmax(), nn.Embedding(5, 4, sparse=True), nn.ReLU(), nn.Linear(4, 3)),
}


def traces(model: nn.Module) -> dict[str, Any]:
    """Everything that a look at a model might change, to be compared."""
    tensors = [*model.parameters(), *model.buffers()]
    gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
    return {
        "values": [tensor.detach().numpy().tobytes() for tensor in tensors],
        "versions": [tensor._version for tensor in model.parameters()],
        "gradients": [gradient.numpy().tobytes() for gradient in gradients],
        "attributes": [{name: id(value) for name, value in vars(m).items()} for m in model.modules()],
        "buffers": [{name: id(buffer) for name, buffer in m._buffers.items()} for m in model.modules()],
        "hooks": hooks_on(model),
        "random": (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())),  # noqa: NPY002
    }


# torch warns of its older wrappers, and of parts of its own that its compiler uses.
_OLD_WRAPPERS = pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).* is deprecated:FutureWarning")
_COMPILER = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning")


@_OLD_WRAPPERS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", WRAPPED)
def test_behaviour_a_look_at_a_wrapped_module_leaves_no_trace(name: str, training: bool) -> None:
    model = WRAPPED[name]()
    inputs, targets = make_batch(8, 5, 3)
    LOSS(model(inputs), targets).backward()
    model.train(training)
    before = traces(model)
    with torch.no_grad():
        diagnosis = diagnose(model, (inputs, targets), LOSS)
        assert find_nonfinite(model, inputs, targets, LOSS) is None
        assert find_nonfinite(model, inputs) is None
        assert find_nonfinite(model) is None
    with pytest.raises(RuntimeError, match="size"):
        diagnose(model, (inputs, torch.zeros(8, 7)), lambda y, t: (y - t).sum())
    assert traces(model) == before
    assert all(layer.verdict != "NaN" and math.isfinite(layer.value) for layer in diagnosis.layers)


def watched(model: nn.Module, called: nn.Module, steps: int = 3) -> list[Any]:
    """Train with all monitors on ``model``, whose forward pass goes through ``called``, and return these."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ActivationMonitor(model) as activations, GradientMonitor(model) as gradients, WeightMonitor(model) as weights:
        for _ in range(steps):
            optimizer.zero_grad()
            inputs, targets = make_batch(8, 5, 3)
            LOSS(called(inputs), targets).backward()
            optimizer.step()
    return [activations, gradients, weights]


@_OLD_WRAPPERS
@pytest.mark.parametrize("name", WRAPPED)
def test_behaviour_monitors_see_wrapped_modules_and_change_no_result(name: str) -> None:
    model, twin = WRAPPED[name](), WRAPPED[name]()
    twin.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    train(twin, 3)
    torch.manual_seed(1)
    hooks = hooks_on(model)
    for monitor in watched(model, model):
        assert monitor.steps == [1, 2, 3]
        assert monitor.values().isfinite().all()
        assert (monitor.values() > 0).all()
    assert hooks_on(model) == hooks
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@_COMPILER
@pytest.mark.parametrize("how", ["new", "run before", "in place", "around", "a part"])
@pytest.mark.parametrize("name", ["plain", "weight norm", "spectral norm", "LSTM", "tied"])
def test_behaviour_compiled_models_are_watched_uncompiled_and_then_run_compiled(name: str, how: str) -> None:
    torch.compiler.reset()
    graphs_run: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            graphs_run.append(1)
            return graph.forward(*arguments)

        return run

    plain = (WRAPPED | {"plain": small_net})[name]()
    compiled: Any = plain
    if how == "in place":
        plain.compile(backend=backend)
    elif how == "a part":
        part: Any = torch.compile(plain, backend=backend)
        compiled = nn.Sequential(nn.Linear(5, 5), part)
    else:
        compiled = torch.compile(plain, backend=backend)
    model = plain if how == "around" else compiled
    inputs, targets = make_batch(8, 5, 3)
    if how != "new":
        LOSS(compiled(inputs), targets).backward()
    before = traces(model)
    graphs_run.clear()
    layers = [layer.name for layer in diagnose(model, (inputs, targets), LOSS).layers]
    assert find_nonfinite(model, inputs, targets, LOSS) is None
    assert traces(model) == before
    assert "_orig_mod" not in " ".join(layers)
    for monitor in watched(model, compiled):
        assert monitor.steps == [1, 2, 3]
        assert not any("_orig_mod" in layer for layer in monitor.layers)
    assert graphs_run == []
    activations, *_ = watched(model, compiled, steps=0)
    compiled(inputs)
    assert graphs_run or how == "in place"  # where torch itself may leave a Sequential as it is
    assert activations.steps == []


def test_behaviour_an_embedding_that_shortens_its_vectors_keeps_them() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=0.1), nn.Linear(4, 3))
    before = copy.deepcopy(model.state_dict())
    diagnose(model, (torch.arange(5), torch.zeros(5, dtype=torch.long)), LOSS)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_behaviour_names_of_layers_with_several_weights() -> None:
    assert GradientMonitor(_Recurrent(nn.LSTM)).layers == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head"]
    assert GradientMonitor(nn.GRU(2, 2)).layers == ["weight_ih_l0", "weight_hh_l0"]
    assert GradientMonitor(_Attention()).layers == ["attention.in_proj_weight", "attention.out_proj", "head"]
    model = _Tied()
    assert WeightMonitor(model).layers == ["first", "head"]
    assert [layer.name for layer in diagnose(model, make_batch(8, 5, 3), LOSS).layers] == ["first", "second", "head"]


def test_oracle_numbers_of_computed_weights_and_recurrent_outputs() -> None:
    layer = parametrizations.weight_norm(nn.Linear(5, 4))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with GradientMonitor(layer) as gradients, WeightMonitor(layer) as weights:
        layer(torch.randn(8, 5)).square().sum().backward()
        before = layer.weight.detach().clone()
        optimizer.step()
    scale, direction = layer.parametrizations.weight.parameters()
    assert scale.grad is not None
    assert direction.grad is not None
    together = torch.cat([scale.grad.flatten(), direction.grad.flatten()])
    assert gradients.latest() == pytest.approx({"model": together.norm().item()})
    assert gradients.latest("rms") == pytest.approx({"model": together.square().mean().sqrt().item()})
    moved = (layer.weight - before).norm() / before.norm()
    assert weights.latest() == pytest.approx({"model": moved.item()})
    assert weights.latest("norm") == pytest.approx({"model": layer.weight.norm().item()})

    rnn = nn.RNN(5, 4, batch_first=True)
    inputs = 9 * torch.randn(8, 3, 5)
    with ActivationMonitor(rnn) as monitor:
        output, _ = rnn(inputs)
    assert monitor.latest("mean") == pytest.approx({"model": output.mean().item()})
    assert monitor.latest("saturated") == pytest.approx({"model": saturated_fraction(output.flatten(1), -1, 1)})


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_behaviour_what_cannot_be_seen_is_said() -> None:
    spread = nn.DataParallel(small_net())
    spread.device_ids = [0, 1]
    for look in (ActivationMonitor, lambda model: diagnose(model, make_batch(8, 5, 3), LOSS)):
        with pytest.raises(ValueError, match=r"copies of its modules on 2 devices.*look at model\.module"):
            look(spread)
    scripted = torch.jit.trace(small_net(), torch.zeros(1, 5))
    with pytest.raises(ValueError, match="TorchScript does not call hooks"):
        diagnose(scripted, make_batch(8, 5, 3), LOSS)
    with pytest.raises(ValueError, match=r"LazyLinear.* has no weights before its first batch"):
        GradientMonitor(nn.Sequential(nn.LazyLinear(3)))

    class Beside(nn.Module):
        """Computes its activation by a function, and only seems to use its module."""

        def __init__(self) -> None:
            super().__init__()
            self.act, self.linear = nn.ReLU(), nn.Linear(5, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.relu(self.linear(inputs))

    model = Beside()
    with ActivationMonitor(model) as monitor:
        model(torch.randn(8, 5))
    with pytest.raises(RuntimeError, match="in 1 passes the model called none of its activation modules"):
        monitor.latest()


def test_behaviour_a_diagnosis_inside_a_training_is_no_pass_of_it() -> None:
    model = small_net()
    with ActivationMonitor(model) as monitor:
        train(model, 1)
        diagnose(model, make_batch(8, 5, 3), LOSS)
        train(model, 1)
    assert monitor.steps == [1, 2]


# --- find_nonfinite -------------------------------------------------------------------------------------------------


class _Root(nn.Module):
    """√|x|: finite at 0, where its derivative is not."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.abs().clamp(min=0).sqrt()


def _with_root() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), _Root(), nn.Linear(4, 2))
    return model, torch.zeros(2, 3)


def test_behaviour_find_nonfinite_names_the_place() -> None:
    inputs, targets = make_batch(8, 5, 3)
    assert find_nonfinite(small_net(), inputs / 0, targets, LOSS) == NonFinite("inputs", "inputs")

    overflowing = small_net()
    with torch.no_grad():
        linear(overflowing, 2).weight.fill_(3e38)
        linear(overflowing, 0).bias.fill_(9.0)
    found = find_nonfinite(overflowing, inputs)
    assert found == find_nonfinite(overflowing, inputs, targets, LOSS) == NonFinite("2", "output")
    assert found is not None
    assert (found.layer, found.what.split(" (")[0]) == ("2", "the output of layer '2'")

    found = find_nonfinite(small_net(), inputs, targets, lambda y, t: (0 * y).log().sum())
    assert found == NonFinite("loss", "loss")
    # The square root of 0: a finite loss, whose gradient is not.
    found = find_nonfinite(small_net(), inputs, targets, lambda y, t: (y - y).abs().sum().sqrt())
    assert found == NonFinite("loss", "gradient")
    assert found is not None
    assert found.layer is None
    assert "gradient" in str(found)

    model, zeros = _with_root()
    found = find_nonfinite(model, zeros, None, lambda y, t: y.sum())
    assert found == NonFinite("1", "gradient")
    assert "the gradient that comes back through layer '1'" in str(found)


@_OLD_WRAPPERS
@pytest.mark.parametrize("name", WRAPPED)
def test_behaviour_a_bad_weight_of_a_wrapped_module_is_found_with_and_without_a_pass(name: str) -> None:
    model = WRAPPED[name]()
    parameter_name, parameter = list(model.named_parameters())[1 if name == "tied" else 0]
    with torch.no_grad():
        parameter.fill_(torch.inf)
    inputs, _ = make_batch(8, 5, 3)
    for found in (find_nonfinite(model), find_nonfinite(model, inputs)):
        assert found is not None
        assert found.where == "weight"
        assert parameter_name.startswith(found.name)
        assert f"the {parameter_name.removeprefix(found.name + '.')} of " in found.what


def test_behaviour_a_block_is_blamed_for_what_it_computes_itself() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.log(0 * self.linear(inputs))

    found = find_nonfinite(nn.Sequential(Block(), nn.Linear(5, 3)), torch.randn(8, 5))
    assert found == NonFinite("0", "output")
    assert found is not None
    assert found.what == "the output of block '0' (Block)"


def test_oracle_detect_anomaly_agrees_that_the_backward_pass_is_bad() -> None:
    model, zeros = _with_root()
    with torch.autograd.set_detect_anomaly(True):
        assert find_nonfinite(model, zeros, None, lambda y, t: y.sum()) is not None  # does not raise itself
        # Anomaly mode warns with the forward call's traceback before it raises; that warning is its report.
        with pytest.warns(UserWarning, match="Error detected"), pytest.raises(RuntimeError, match="nan"):
            model(zeros).sum().backward()


# --- how a diagnosis is shown ---------------------------------------------------------------------------------------


def test_behaviour_text_is_aligned_and_speaks_plainly() -> None:
    lines = str(diagnose(make_net(nn.Sigmoid), make_batch(), LOSS)).splitlines()
    assert lines[0] == "11 layers, 7 vanishing; look at 0 first."
    assert all(line.startswith("gradient is ", 18) for line in lines[3:])
    assert lines[3].endswith("ReLU with He initialization, or BatchNorm before the sigmoid")


@pytest.mark.usefixtures("close_figures")
def test_behaviour_table_html_and_picture() -> None:
    sick = make_net(depth=2, bias=-3.0)
    with torch.no_grad():
        linear(sick, 4).bias[0] = torch.nan
    for model in (sick, make_net(nn.Sigmoid), make_net(depth=2, bias=-3.0)):
        diagnosis: Diagnosis = diagnose(model, make_batch(64), LOSS)
        assert list(diagnosis.to_frame().index) == [layer.name for layer in diagnosis.layers]
        page = diagnosis._repr_html_()
        assert page.count("<tr>") == 1 + len(diagnosis.layers)
        ax = diagnosis.plot()
        assert {text.get_text() for text in ax.get_legend().get_texts()} == {v.verdict for v in diagnosis.layers}  # type: ignore[union-attr]
        ax.figure.canvas.draw()


def test_error_messages_of_diagnose() -> None:
    model = small_net()
    inputs, targets = make_batch(8, 5, 3)
    with pytest.raises(TypeError, match=r"pair \(inputs, targets\).*tensor of shape \(8, 5\)"):
        diagnose(model, inputs, LOSS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 'tuple'"):
        diagnose(model, (inputs, targets, targets), LOSS)
    with pytest.raises(ValueError, match=r"at least 2 samples, got inputs of shape \(1, 5\)"):
        diagnose(model, (inputs[:1], targets[:1]), LOSS)
    with pytest.raises(ValueError, match="no layer to judge"):
        diagnose(nn.ReLU(), (inputs, targets), LOSS)
    with pytest.raises(ValueError, match=r"one number, got shape \(8,\)"):
        diagnose(model, (inputs, targets), nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(ValueError, match="no gradient flows"):
        diagnose(model.requires_grad_(False), (inputs, targets), LOSS)
