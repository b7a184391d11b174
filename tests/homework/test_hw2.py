"""The checks of homework 2: they accept cures of different kinds, and name what is wrong with the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_utils.homework import hw2 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.homework.hw2 import PATIENTS, make_patient, record_calls, train_station
from course_utils.init import init_weights, lsuv
from course_utils.models import MLP
from course_utils.monitoring import GradientMonitor
from course_utils.monitoring.diagnosis import diagnose
from course_utils.reproducibility import make_generator

pytestmark = pytest.mark.slow  # the checks train networks

Cure = Callable[[Any, Tensor, torch.Generator], Any]


def linears(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Layers this narrow are slower on two threads, and much slower when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------ the gradient profile


def grads(model: nn.Module, inputs: Tensor, kinds: Tensor, *, reduction: str = "mean") -> list[Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), kinds, reduction=reduction).backward()
    return [layer.weight.grad for layer in linears(model) if layer.weight.grad is not None]


def profile_with_monitor(model: nn.Module, inputs: Tensor, kinds: Tensor) -> list[float]:
    model.zero_grad()
    with GradientMonitor(model) as monitor:
        nn.functional.cross_entropy(model(inputs), kinds).backward()
    return list(monitor.latest().values())


def profile_with_autograd(model: nn.Module, inputs: Tensor, kinds: Tensor) -> Any:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    found = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), kinds), matrices)
    return tuple(float(gradient.square().sum().sqrt()) for gradient in found)


def profile_without_clearing(model: nn.Module, inputs: Tensor, kinds: Tensor) -> list[float]:
    with GradientMonitor(model) as monitor:
        nn.functional.cross_entropy(model(inputs), kinds).backward()
    return list(monitor.latest().values())


def profile_with_biases(model: nn.Module, inputs: Tensor, kinds: Tensor) -> list[float]:
    grads(model, inputs, kinds)
    return [float(parameter.grad.norm()) for parameter in model.parameters() if parameter.grad is not None]


PROFILE = Proof(
    right=[profile_with_monitor, profile_with_autograd],
    wrong=[
        (profile_without_clearing, "old gradients are still in `.grad`"),
        (lambda *a: profile_with_monitor(*a)[::-1], "the order is reversed"),
        (lambda *a: [float(g.square().sum()) for g in grads(*a)], "*squares* of the norms"),
        (lambda *a: [float(g.abs().mean()) for g in grads(*a)], "averaged absolute values"),
        (lambda *a: [float(g.abs().max()) for g in grads(*a)], "the largest entry"),
        (profile_with_biases, "there are biases among them"),
        (lambda m, *_: [p.weight.norm().item() for p in linears(m)], "norms of the weights, not of their gradients"),
        (lambda *a: [float(g.norm()) for g in grads(*a, reduction="sum")], "take its mean"),
        (lambda *a: None, "is the `return` missing?"),
        (lambda *a: profile_with_monitor(*a)[0], "it returns a float; 6 values are expected"),
        (lambda *a: profile_with_monitor(*a)[:-1], "it returns 5 values; 6 are expected"),
        (lambda *a: [-value for value in profile_with_monitor(*a)], "the sign is flipped"),
    ],
)

# ------------------------------------------------------------------------------------------------ naming the sickness


def name_by_diagnosis(model: nn.Module, inputs: Tensor, kinds: Tensor) -> str:
    found = diagnose(model, (inputs, kinds), nn.functional.cross_entropy).worst.verdict
    alike = any(bool((layer.weight == layer.weight[0]).all()) for layer in linears(model))
    return "symmetric" if alike else found


def name_by_hand(model: Any, inputs: Tensor, kinds: Tensor) -> str:
    first, last = linears(model)[0].weight, linears(model)[-1].weight
    if first.std(dim=0).max() < 1e-6:
        return "symmetric"
    hidden = model[:2](inputs)
    if (hidden == 0).all(dim=0).float().mean() > 0.6:
        return "dead"
    if hidden.min() < 0 and (hidden.abs() > 0.99).float().mean() > 0.7:
        return "saturated"
    near, far = (
        float(g.norm()) for g in torch.autograd.grad(nn.functional.cross_entropy(model(inputs), kinds), [first, last])
    )
    if far > 20 or near > 20:
        return "exploding"
    return "vanishing" if near < 0.02 * far or near < 1e-3 else "healthy"


def name_by_loss(model: nn.Module, inputs: Tensor, kinds: Tensor) -> str:
    return "exploding" if nn.functional.cross_entropy(model(inputs), kinds) > 5 else "vanishing"


def name_and_cure(model: nn.Module, inputs: Tensor, kinds: Tensor) -> str:
    answer = name_by_diagnosis(model, inputs, kinds)
    init_weights(model, "kaiming_normal", generator=make_generator(0))
    return answer


def swap(one: str, other: str) -> Callable[..., str]:
    table = {one: other, other: one}
    return lambda *a: table.get(name_by_diagnosis(*a), name_by_diagnosis(*a))


def name_without_else(*arguments: Any) -> str | None:
    found = name_by_diagnosis(*arguments)
    return None if found == "healthy" else found


NAMES = Proof(
    right=[name_by_diagnosis, name_by_hand],
    wrong=[
        (lambda *a: diagnose(a[0], a[1:], nn.functional.cross_entropy).worst.verdict, "one unit with another"),
        (lambda *a: "vanishing", "does it get smaller?"),
        (name_by_loss, "does it get smaller?"),
        (swap("exploding", "healthy"), "does it grow?"),
        (swap("dead", "saturated"), "asymptote"),
        (lambda *a: "dead", "0 for *every* sample"),
        (swap("symmetric", "healthy"), "really alike"),
        (name_and_cure, "an examination only looks"),
        (name_without_else, "perhaps in one branch"),
        (lambda *a: diagnose(a[0], a[1:], nn.functional.cross_entropy).worst, "as text"),
        (lambda *a: "vanish", "one of vanishing, exploding, dead"),
        (lambda *a: a[3], "it raises IndexError"),
        ("dead", "the function itself"),
    ],
)

# ------------------------------------------------------------------------------------------------ cures


def draw(scheme: str, **options: Any) -> Cure:
    return lambda model, inputs, generator: init_weights(model, scheme, generator=generator, **options)


def nothing(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return model


def from_global_stream(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return init_weights(model, "xavier_normal")


def frozen(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return init_weights(model, "xavier_normal", generator=generator).requires_grad_(False)


def wider(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return MLP(20, [64] * 5, 4, activation="tanh", init="xavier_normal", generator=generator)


def shallower(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return MLP(20, [32] * 2, 4, activation="tanh", init="xavier_normal", generator=generator)


def another(activation: str, depth: int = 5, norm: str | None = None) -> Cure:
    options: dict[str, Any] = {"activation": activation, "norm": norm, "init": "xavier_normal"}
    return lambda model, inputs, generator: MLP(20, [32] * depth, 4, generator=generator, **options)


def new_by_hand(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    layers: list[nn.Module] = []
    for old in model:
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, old.out_features)
            new.weight.data = torch.randn(new.weight.shape, generator=generator) / old.in_features**0.5
            new.bias.data.zero_()
            layers.append(new)
        else:
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


def louder(factor: float, first_only: bool = False) -> Cure:
    def cure(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            for layer in linears(model)[: 1 if first_only else None]:
                layer.weight *= factor
        return model

    return cure


def changes_the_calls(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    inputs -= inputs.mean(dim=0)
    return model


WHISPERER = Proof(
    right=[draw("xavier_normal"), new_by_hand, lambda m, x, g: lsuv(m, x, generator=g)],
    wrong=[
        (nothing, "still sick: vanishing in layer"),
        (lambda m, x, g: None, "it returns None"),
        (lambda m, x, g: m(x), "it returns a Tensor; a network is expected"),
        (draw("normal", std=0.05), "it hardly learns"),
        (draw("normal", std=0.035), "still sick: vanishing"),
        (draw("normal", std=1.0), "still sick: exploding"),
        (draw("constant"), "the units of a layer are the same"),
        (draw("constant", value=0.0), "the units of a layer are the same"),
        (from_global_stream, "two calls with the same generator"),
        (frozen, "frozen"),
        (wider, "keep their widths"),
        (shallower, "5 layers and activations instead of 11"),
        (another("relu"), "ReLU is new in this network"),
        (another("tanh", norm="batch"), "BatchNorm1d is new in this network"),
        (louder(10.0, first_only=True), "still sick: vanishing"),
        (changes_the_calls, "changes the recorded calls in place"),
        (lambda m, x, g: nn.Flatten(), "the shape is wrong"),
        (lambda m, x, g: nn.Linear(3, 4).double(), "two calls with the same generator"),
        (lambda m, x, g: m.undefined, "it raises AttributeError"),
    ],
)


@torch.no_grad()
def scale_by_formula(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    for layer in linears(model):
        layer.weight *= (2 / layer.in_features) ** 0.5 / layer.weight.std()
    return model


@torch.no_grad()
def scale_by_measuring(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    values = inputs
    for step in model:
        if isinstance(step, nn.Linear):
            step.weight.data = step.weight / step(values).std()
        values = step(values)
    return model


def scaled(factor: Callable[[nn.Linear], Any]) -> Cure:
    def cure(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            for layer in linears(model):
                layer.weight *= factor(layer)
        return model

    return cure


@torch.no_grad()
def clamped(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    for layer in linears(model):
        layer.weight.clamp_(-0.4, 0.4)
    return model


def with_bias(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    model = scale_by_formula(model, inputs, generator)
    model.linear2.bias.data += 0.1
    return model


SHOUTER = Proof(
    right=[scale_by_formula, scale_by_measuring],
    wrong=[
        (nothing, "still sick: exploding"),
        (draw("kaiming_normal"), "lost its pattern"),
        (clamped, "lost its pattern"),
        (scaled(lambda layer: 1 / layer.weight.norm(dim=1, keepdim=True)), "lost its pattern"),
        (scaled(lambda layer: -((2 / layer.in_features) ** 0.5) / layer.weight.std()), "not positive"),
        (scaled(lambda layer: 0.0), "not positive"),
        (scaled(lambda layer: 2 / layer.in_features / layer.weight.std()), "it hardly learns"),
        (scaled(lambda layer: 0.02 / layer.weight.std()), "still sick: vanishing"),
        (scaled(lambda layer: 1 / layer.weight.std()), "still sick: exploding"),
        (louder(0.5, first_only=True), "still sick: exploding"),
        (with_bias, "a bias changed"),
        (another("relu", norm="batch"), "BatchNorm1d is new in this network"),
        (another("tanh"), "Tanh is new in this network"),
        (scaled(lambda layer: float("nan")), "some weights are NaN"),
        (lambda m, x, g: scale_by_formula(m, x, g) and None, "it returns None"),
    ],
)


def biases(value: Any, layers: slice = slice(None)) -> Cure:
    def cure(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            for layer in linears(model)[layers]:
                layer.bias.copy_(value(layer.bias) if callable(value) else torch.full_like(layer.bias, value))
        return model

    return cure


@torch.no_grad()
def centre(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    values = inputs
    for step in model[:-1]:
        if isinstance(step, nn.Linear):
            step.bias.sub_(step(values).mean(dim=0))
        values = step(values)
    return model


def another_activation(kind: type[nn.Module]) -> Cure:
    def cure(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
        return nn.Sequential(*[kind() if isinstance(step, nn.ReLU) else step for step in model])

    return cure


def without_bias(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    for layer in linears(model):
        layer.register_parameter("bias", None)
    return model


SLEEPER = Proof(
    right=[biases(0.0), centre, biases(0.01)],
    wrong=[
        (nothing, "100% of the units still give 0"),
        (biases(lambda bias: bias / 2), "still give 0 for every call"),
        (biases(0.0, slice(0, 1)), "100% of the units still give 0"),
        (biases(0.0, slice(1, None)), "of the units still give 0"),
        (biases(20.0), "a ReLU that never switches"),
        (biases(lambda bias: -bias * 3), "a ReLU that never switches"),
        (draw("kaiming_normal"), "a weight matrix changed"),
        (another_activation(nn.LeakyReLU), "LeakyReLU is new in this network"),
        (another_activation(nn.ELU), "ELU is new in this network"),
        (another("relu", depth=3, norm="batch"), "BatchNorm1d is new in this network"),
        (without_bias, "keep their widths and their biases"),
        (biases(float("nan")), "some weights are NaN"),
        (lambda m, x, g: biases(0.0)(m, x, g).requires_grad_(False), "frozen"),
        (lambda m, x, g: [layer.bias.zero_() for layer in linears(m)], "it raises RuntimeError"),
    ],
)


class Standardize(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std  # type: ignore[operator]


class ByBatch(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - inputs.mean(dim=0)) / (inputs.std(dim=0) + 1e-3)


def standardize(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    std = inputs.std(dim=0)
    return nn.Sequential(Standardize(inputs.mean(dim=0), torch.where(std > 0, std, 1.0)), model)


def batchnorm_in_front(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    return nn.Sequential(nn.BatchNorm1d(20), *model)


def front(make: Callable[[Tensor], nn.Module]) -> Cure:
    return lambda model, inputs, generator: nn.Sequential(make(inputs), *model)


@torch.no_grad()
def folded(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    model.linear1.weight /= inputs.std(dim=0) + 1e-3
    return model


def norm_everywhere(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    inside = [
        part for step in model[:-1] for part in ([step, nn.BatchNorm1d(32)] if isinstance(step, nn.Linear) else [step])
    ]
    return nn.Sequential(standardize(nn.Identity(), inputs, generator), *inside, model[-1])


def bias_of_first(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    model.linear1.bias.data -= 1.0
    return standardize(model, inputs, generator)


def bypassed(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, :4] * self.scale

    return Around()


def to_unit_range(inputs: Tensor) -> nn.Module:
    low, high = inputs.aminmax(dim=0)
    return Standardize(low, high - low + 1e-3)


DAZZLED = Proof(
    right=[standardize, batchnorm_in_front],
    wrong=[
        (nothing, "in the units of the hydrophones"),
        (front(lambda x: Standardize(x.mean(dim=0), x.std(dim=0))), "its standard deviation is 0"),
        (front(lambda x: Standardize(x.mean(), x.std())), "mind the axis"),
        (front(lambda x: Standardize(torch.zeros(20), x.std(dim=0) + 1e-3)), "a channel enters with mean"),
        (front(lambda x: Standardize(x.mean(dim=0), torch.ones(20))), "or deviation"),
        (front(lambda x: Standardize(x.mean(dim=0), x.var(dim=0) + 1e-3)), "a channel enters with"),
        (front(to_unit_range), "a channel enters with"),
        (front(lambda x: nn.LayerNorm(20)), "mind the axis"),
        (front(lambda x: ByBatch()), "depends on the other calls in the batch"),
        (folded, "layer of the network itself changed"),
        (draw("xavier_normal"), "layer of the network itself changed"),
        (bias_of_first, "a bias of the network itself changed"),
        (norm_everywhere, "between the layers, or behind"),
        (bypassed, "nothing passes through them"),
        (lambda m, x, g: (x - x.mean(dim=0)) / x.std(dim=0), "it returns a Tensor"),
        (changes_the_calls, "changes the recorded calls in place"),
    ],
)  # fmt: skip


def noisy(amount: float) -> Cure:
    def cure(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
        with torch.no_grad():
            for layer in linears(model)[:-1]:
                layer.weight += amount * torch.randn(layer.weight.shape, generator=generator)
        return model

    return cure


def random_rows(model: Any, inputs: Tensor, generator: torch.Generator) -> Any:
    with torch.no_grad():
        for layer in linears(model)[:-1]:
            row = torch.randn(layer.in_features, generator=generator) / layer.in_features**0.5
            layer.weight.copy_(row.expand_as(layer.weight))
    return model


TWINS = Proof(
    right=[draw("kaiming_normal"), draw("orthogonal", activation="relu"), noisy(0.3)],
    wrong=[
        (nothing, "are the same, or nearly so"),
        (noisy(1e-3), "are the same, or nearly so"),
        (random_rows, "are the same, or nearly so"),
        (draw("constant", value=0.1), "are the same, or nearly so"),
        (lambda m, x, g: init_weights(m[:1], "kaiming_normal", generator=g) and m, "are the same, or nearly so"),
        (biases(lambda bias: torch.linspace(-0.1, 0.1, len(bias))), "are the same, or nearly so"),
        (draw("normal", std=0.01), "it hardly learns"),
        (draw("normal", std=5.0), "still sick: exploding"),
        (lambda m, x, g: init_weights(m, "kaiming_normal"), "two calls with the same generator"),
        (another("tanh", depth=2), "Tanh is new in this network"),
        (another("relu", depth=3), "7 layers and activations instead of 5"),
        (lambda m, x, g: init_weights(m, "kaiming_normal", generator=g).requires_grad_(False), "frozen"),
        (lambda m, x, g: nn.Sequential(*m[:-1], nn.Dropout(0.5), m[-1]), "Dropout is new in this network"),
    ],
)

PROOFS = {
    module.check_gradient_profile: PROFILE,
    module.check_name_sickness: NAMES,
    module.check_raise_the_whisperer: WHISPERER,
    module.check_quiet_the_shouter: SHOUTER,
    module.check_wake_the_sleeper: SLEEPER,
    module.check_shade_the_dazzled: DAZZLED,
    module.check_tell_the_twins_apart: TWINS,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Any) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))
    assert len(module.EXERCISES) == len(PROOFS)


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_right_solutions_are_right_for_other_seeds(check: Any) -> None:
    assert check(PROOFS[check].right[0], seed=7000)


@pytest.mark.parametrize("name", PATIENTS)
def test_patients_are_sick_and_fixed_by_their_seed(name: str) -> None:
    accuracies = []
    for seed in (0, 1):
        inputs, kinds = record_calls(raw=name == "dazzled", seed=seed)
        model = make_patient(name, seed=seed)
        twin = make_patient(name, seed=seed)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))
        assert name_by_diagnosis(model, inputs, kinds) == PATIENTS[name]
        accuracies.append(train_station(model, inputs, kinds))
    assert max(accuracies) < 0.7


def test_a_linear_network_cannot_tell_the_kinds_apart() -> None:
    inputs, kinds = record_calls(seed=3)
    assert inputs.shape == (512, 20)
    assert train_station(MLP(20, [], 4, init="xavier_normal", generator=make_generator(0)), inputs, kinds) < 0.45


def test_unknown_patient() -> None:
    with pytest.raises(ValueError, match="listener"):
        make_patient("listener")


def test_a_cure_draws_its_figure() -> None:
    import matplotlib.pyplot as plt

    draw_figure = module.check_quiet_the_shouter(scale_by_formula).figure
    assert draw_figure is not None
    figure, alt = draw_figure()
    assert len(figure.axes) == 2
    assert "Left, sick: 6 layers" in alt
    plt.close(figure)


def test_checks_leave_the_global_stream_alone() -> None:
    before = copy.deepcopy(torch.random.get_rng_state())
    for check, proof in PROOFS.items():
        check(proof.right[0])
    assert torch.equal(before, torch.random.get_rng_state())
