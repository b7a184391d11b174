"""Monitors against hand-made numbers, their clean-up, and `diagnose` on networks whose illness is known."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

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
from course_utils.monitoring.monitors import update_ratio

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


def test_oracle_update_ratio_and_its_limits_at_zero_weights() -> None:
    assert update_ratio(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(0.1)
    assert update_ratio(torch.zeros(2), torch.ones(2)) == math.inf
    assert update_ratio(torch.zeros(2), torch.zeros(2)) == 0.0


def test_error_messages_of_the_pure_functions_show_the_value() -> None:
    with pytest.raises(ValueError, match=r"\(batch, units\), got \(3,\)"):
        dead_fraction(torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(0, 4\)"):
        saturated_fraction(torch.zeros(0, 4), 0, 1)
    with pytest.raises(ValueError, match="low=1 and high=0"):
        saturated_fraction(torch.zeros(1, 1), 1, 0)
    with pytest.raises(ValueError, match="tol must be in"):
        saturated_fraction(torch.zeros(1, 1), 0, 1, tol=-0.1)
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        update_ratio(torch.zeros(2), torch.zeros(3))


# --- GradientMonitor ------------------------------------------------------------------------------------------------


def test_oracle_gradient_norms_are_those_before_clipping() -> None:
    model = small_net()
    with GradientMonitor(model) as monitor:
        gradients = train(model, 4, clip=1e-3)
    assert monitor.layers == ["0", "2", "4"]
    assert monitor.steps == [1, 2, 3, 4]
    norms = torch.tensor([[g.norm() for g in step] for step in gradients])
    torch.testing.assert_close(monitor.values("norm"), norms)
    rms = torch.tensor([[g.square().mean().sqrt() for g in step] for step in gradients])
    torch.testing.assert_close(monitor.values("rms"), rms)


def test_behaviour_every_third_step_is_recorded() -> None:
    model = small_net()
    with GradientMonitor(model, every=3) as monitor:
        gradients = train(model, 7)
    assert monitor.steps == [3, 6]
    torch.testing.assert_close(monitor.values()[1, 0], gradients[5][0].norm())


def test_behaviour_monitoring_changes_no_training_result() -> None:
    model = small_net()
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    train(twin, 5)
    torch.manual_seed(1)
    with GradientMonitor(model), ActivationMonitor(model), WeightMonitor(model):
        train(model, 5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


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


def test_behaviour_two_backward_passes_after_one_forward_are_two_steps() -> None:
    model = small_net()
    with GradientMonitor(model) as monitor:
        loss = LOSS(model(torch.randn(8, 5)), torch.zeros(8, dtype=torch.long))
        loss.backward(retain_graph=True)
        loss.backward()
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
    with GradientMonitor(model) as monitor:
        train(model, 1)
    assert monitor.layers == ["2", "4"]


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
            expected.append([update_ratio(b, a) for b, a in zip(before, after, strict=True)])
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


@pytest.mark.parametrize("kind", MONITORS)
def test_behaviour_close_without_a_with_block_and_twice(kind: Any) -> None:
    model = small_net()
    monitor = kind(model)
    train(model, 1)
    monitor.close()
    monitor.close()
    assert hooks_on(model) == 0
    assert len(monitor.latest()) > 0


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
        with pytest.raises(RuntimeError, match="nothing to plot"):
            monitor.plot()
    with pytest.raises(RuntimeError, match="closed already"), monitor:
        pass
    assert hooks_on(model) == 0


def test_error_message_when_all_weights_are_frozen() -> None:
    with pytest.raises(ValueError, match="the weights of 0, 2, 4 are frozen"):
        GradientMonitor(small_net().requires_grad_(False))


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
        over_depth = monitor.plot_profile(quantity, n_steps=3)
        assert [line.get_label() for line in over_depth.get_lines()] == ["step 1", "step 3", "step 6"]
        over_depth.figure.canvas.draw()


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


def test_behaviour_ten_sigmoid_layers_vanish_toward_the_input() -> None:
    diagnosis = diagnose(make_net(nn.Sigmoid), make_batch(), LOSS)
    assert [layer.verdict for layer in diagnosis.layers] == ["vanishing"] * 7 + ["healthy"] * 4
    assert diagnosis.worst is diagnosis.layers[0]
    assert 1e-10 < diagnosis.worst.value < 1e-7
    assert "ReLU with He" in diagnosis.worst.advice


def test_behaviour_ten_relu_layers_with_torchs_default_init_vanish() -> None:
    diagnosis = diagnose(make_net(), make_batch(), LOSS)
    assert diagnosis.worst.verdict == "vanishing"
    assert [layer.verdict for layer in diagnosis.layers[:5]] == ["vanishing"] * 5


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


@pytest.mark.parametrize("depth", [2, 10])
def test_behaviour_large_weights_saturate_tanh(depth: int) -> None:
    assert verdicts(make_net(nn.Tanh, depth=depth, init=normal(1.0)))[:-1] == ["saturated"] * depth


def test_behaviour_sigmoid_saturates_at_its_own_asymptotes() -> None:
    assert verdicts(make_net(nn.Sigmoid, depth=2, init=normal(1.0)))[0] == "saturated"


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


def test_behaviour_diagnose_leaves_no_trace() -> None:
    model = nn.Sequential(
        nn.Linear(5, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 3),
    )
    model.eval()
    model[5].train()
    batch = make_batch(16, 5, 3)
    LOSS(model(batch[0]), batch[1]).backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    with GradientMonitor(model) as monitor, torch.no_grad():
        first = str(diagnose(model, batch, LOSS))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
    assert monitor.steps == []
    assert hooks_on(model) == 0
    assert str(diagnose(model, batch, LOSS)) == first


def test_behaviour_diagnose_cleans_up_after_a_loss_that_raises() -> None:
    model = make_net(norm=True, depth=1, sizes=(5, 4, 3)).eval()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="size"):
        diagnose(model, (torch.randn(8, 5), torch.zeros(8, 7)), lambda y, t: (y - t).sum())
    assert hooks_on(model) == 0
    assert not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


# --- find_nonfinite -------------------------------------------------------------------------------------------------


class _Root(nn.Module):
    """√|x|: finite at 0, where its derivative is not."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.abs().clamp(min=0).sqrt()


def _with_root() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), _Root(), nn.Linear(4, 2))
    return model, torch.zeros(2, 3)


def test_behaviour_find_nonfinite_names_the_place() -> None:
    batch = make_batch(8, 5, 3)
    assert find_nonfinite(small_net(), batch, LOSS) is None
    assert find_nonfinite(small_net(), (batch[0] / 0, batch[1]), LOSS) == NonFinite("inputs", "inputs")

    overflowing = small_net()
    with torch.no_grad():
        linear(overflowing, 2).weight.fill_(3e38)
        linear(overflowing, 0).bias.fill_(9.0)
    assert find_nonfinite(overflowing, batch, LOSS) == NonFinite("2", "output")

    assert find_nonfinite(small_net(), batch, lambda y, t: (0 * y).log().sum()) == NonFinite("loss", "loss")

    model, zeros = _with_root()
    found = find_nonfinite(model, (zeros, None), lambda y, t: y.sum())
    assert found == NonFinite("1", "gradient")
    assert "backward pass through 1" in str(found)


def test_oracle_detect_anomaly_agrees_that_the_backward_pass_is_bad() -> None:
    model, zeros = _with_root()
    with torch.autograd.set_detect_anomaly(True):
        assert find_nonfinite(model, (zeros, None), lambda y, t: y.sum()) is not None  # does not raise itself
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
