"""Initialization schemes against torch.nn.init: formulas exactly, draws in distribution."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from course_utils import init
from course_utils.reproducibility import make_generator

FANS = st.integers(min_value=1, max_value=5000)


@given(fan_in=FANS, fan_out=FANS)
def test_formulas_equal_the_papers(fan_in: int, fan_out: int) -> None:
    assert init.xavier_std(fan_in, fan_out) == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=1e-12)
    assert init.kaiming_std(fan_in) == pytest.approx(math.sqrt(2 / fan_in), rel=1e-12)
    assert init.lecun_std(fan_in) == pytest.approx(math.sqrt(1 / fan_in), rel=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu"])
def test_gain_equals_torch(activation: str) -> None:
    assert init.gain(activation) == pytest.approx(nn.init.calculate_gain(activation), rel=1e-12)  # type: ignore[arg-type]


TORCH_TWINS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "xavier_uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    "xavier_normal": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "kaiming_uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    "kaiming_normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "lecun_uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g),
    "lecun_normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g),
    "torch_default": lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g),
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "normal": lambda w, g: nn.init.normal_(w, std=0.01, generator=g),
}


@pytest.mark.parametrize("scheme", TORCH_TWINS)
def test_draws_are_those_of_torch_with_the_same_generator(scheme: str) -> None:
    layer = nn.Linear(37, 23)
    init.init_weights(layer, scheme, generator=make_generator(3))
    expected = TORCH_TWINS[scheme](torch.empty(23, 37), make_generator(3))
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scheme", [scheme for scheme in init.SCHEMES if scheme != "constant"])
def test_sampled_std_and_shape_follow_the_formula(scheme: str) -> None:
    layer = nn.Linear(300, 200)
    init.init_weights(layer, scheme, generator=make_generator(0))
    weight = layer.weight.detach().flatten()
    expected = init.scheme_std(scheme, 300, 200)
    assert float(weight.std()) == pytest.approx(expected, rel=0.02)  # 60,000 draws: ±0.3% at one sigma
    # Kolmogorov–Smirnov against the named distribution; p > 1e-4 with this fixed seed.
    if scheme.endswith("uniform") or scheme == "torch_default":
        half_width = math.sqrt(3) * expected
        assert stats.kstest(weight.numpy(), stats.uniform(-half_width, 2 * half_width).cdf).pvalue > 1e-4
    elif scheme.endswith("normal"):
        assert stats.kstest(weight.numpy(), stats.norm(0, expected).cdf).pvalue > 1e-4


def test_torch_default_is_what_a_fresh_linear_layer_has() -> None:
    torch.manual_seed(0)
    fresh = nn.Linear(400, 300)
    bound = 1 / math.sqrt(400)
    assert bound * 0.999 < float(fresh.weight.detach().abs().max()) <= bound
    assert float(fresh.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    init.init_weights(fresh, "torch_default", generator=make_generator(1))
    assert 0 < float(fresh.bias.detach().abs().max()) <= bound


@settings(max_examples=20)
@given(scheme=st.sampled_from(init.SCHEMES), seed=st.integers(0, 2**31))
def test_same_generator_same_weights_and_zero_biases(scheme: str, seed: int) -> None:
    def weights() -> list[Tensor]:
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2, bias=False))
        init.init_weights(model, scheme, generator=make_generator(seed))
        return [p.detach() for p in model.parameters()]

    first, second = weights(), weights()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    if scheme != "torch_default":
        assert not first[1].any()


def test_activation_gain_scales_the_weights() -> None:
    assert init.scheme_std("xavier_normal", 50, 50, activation="tanh") == pytest.approx(5 / 3 * math.sqrt(1 / 50))
    assert init.scheme_std("kaiming_normal", 50, 50, activation="sigmoid") == pytest.approx(math.sqrt(1 / 50))
    assert init.scheme_std("lecun_normal", 50, 50, activation="tanh") == pytest.approx(math.sqrt(1 / 50))


def test_constant_fills_with_the_value() -> None:
    layer = nn.Linear(3, 2)
    init.init_weights(layer, "constant", value=0.25)
    assert (layer.weight == 0.25).all()


# ------------------------------------------------------------------------------------------------------------- LSUV

BATCH = torch.randn(64, 6, generator=make_generator(0))


class Silent(nn.Module):
    """Puts out zeros, like a layer of dead units."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 0 * inputs


def deep(activation: Callable[[], nn.Module] = nn.ReLU, depth: int = 4) -> nn.Sequential:
    blocks = [module for _ in range(depth) for module in (nn.Linear(6, 6), activation())]
    return nn.Sequential(*blocks, nn.Linear(6, 2))


def output_stds(model: nn.Sequential, inputs: Tensor) -> list[float]:
    stds = []
    for module in model:
        inputs = module(inputs).detach()
        if isinstance(module, nn.Linear):
            stds.append(float(inputs.std(correction=0)))
    return stds


@settings(max_examples=25, deadline=None)
@given(
    activation=st.sampled_from([nn.Identity, nn.Sigmoid, nn.Tanh, nn.SELU, nn.GELU, nn.SiLU]),
    depth=st.integers(1, 12),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_lsuv_gives_every_layer_unit_output_std(
    activation: Callable[[], nn.Module], depth: int, scale: float, seed: int
) -> None:
    model = init.lsuv(deep(activation, depth).double(), scale * BATCH.double(), generator=make_generator(seed))
    assert isinstance(model, nn.Sequential)
    assert output_stds(model, scale * BATCH.double()) == pytest.approx([1.0] * (depth + 1), rel=0.01)


def test_lsuv_weights_stay_orthogonal_up_to_one_factor_and_biases_zero() -> None:
    for layer in init.lsuv(deep(), BATCH, generator=make_generator(1)).modules():
        if isinstance(layer, nn.Linear):
            singular_values = torch.linalg.svdvals(layer.weight.detach())
            torch.testing.assert_close(singular_values, singular_values.mean().expand_as(singular_values))
            assert not layer.bias.detach().any()


def test_lsuv_equals_the_algorithm_done_by_hand() -> None:
    ours = init.lsuv(deep(nn.Tanh), BATCH, tol=1e-9, max_iterations=1, generator=make_generator(2))
    expected = init.init_weights(deep(nn.Tanh), "orthogonal", generator=make_generator(2))
    hidden = BATCH
    for module in expected.children():
        if isinstance(module, nn.Linear):
            module.weight.data /= (hidden @ module.weight.data.T).std(correction=0)
        hidden = module(hidden).detach()
    for a, b in zip(ours.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_lsuv_leaves_a_layer_within_tolerance_alone() -> None:
    layer = nn.Linear(6, 6)
    init.lsuv(layer, BATCH, tol=1e3, generator=make_generator(3))
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(6))


def test_lsuv_follows_the_order_of_execution_not_of_definition() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(5, 3), nn.Linear(6, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(inputs)))  # type: ignore[no-any-return]

    model = init.lsuv(Backwards(), BATCH, generator=make_generator(0))
    assert float(model(BATCH).detach().std(correction=0)) == pytest.approx(1, rel=0.01)


def test_lsuv_scales_a_shared_layer_once() -> None:
    shared = nn.Linear(6, 6)
    model = init.lsuv(nn.Sequential(shared, nn.ReLU(), shared), BATCH, generator=make_generator(0))
    assert output_stds(nn.Sequential(shared), BATCH) == pytest.approx([1.0], rel=0.01)
    assert output_stds(model, BATCH)[1] < 0.99  # type: ignore[arg-type]


def test_lsuv_leaves_mode_statistics_and_hooks_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)).train()
    model[2].eval()
    init.lsuv(model, BATCH, generator=make_generator(0))
    assert [module.training for module in model] == [True, True, False, True]
    assert torch.equal(model.get_buffer("1.running_mean"), torch.zeros(6))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        init.lsuv(model, BATCH[:, :5])
    assert [module.training for module in model] == [True, True, False, True]
    assert not any(module._forward_pre_hooks for module in model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.init_weights(nn.Linear(2, 2), "he"), r"scheme must be one of 'xavier_uniform'.* got 'he'"),
        (lambda: init.init_weights(nn.ReLU(), "normal"), "no nn.Linear layer.*ReLU"),
        (
            lambda: init.init_weights(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "normal"),
            r"the weights of \['0'\] are computed",
        ),
        (lambda: init.gain("swish"), "activation must be one of.* got 'swish'"),
        (lambda: init.lsuv(nn.ReLU(), BATCH), "no nn.Linear layer.*ReLU"),
        (lambda: init.lsuv(deep(), torch.ones(8, 6)), "differ between samples, got 8 times the same one"),
        (lambda: init.lsuv(deep(), BATCH * math.nan), "output of layer 0 must have a finite std above 0.*got nan"),
        (lambda: init.lsuv(nn.Sequential(Silent(), nn.Linear(6, 2)), BATCH), "layer 1 must have.*above 0.*got 0"),
    ],
)
def test_errors_show_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
