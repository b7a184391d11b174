"""The MLP: structure, counts, errors."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_utils.models import ACTIVATIONS, MLP, count_parameters


def test_parameter_counts_of_the_decks() -> None:
    assert count_parameters(MLP(50, [100, 100], 10)) == 16_210
    assert count_parameters(MLP(784, [100, 100], 10)) == 89_610
    slide = nn.Sequential(nn.Linear(784, 32), nn.Linear(32, 10))
    assert count_parameters(slide) == 25_450
    # As printed, the slide's hidden layer has no bias: ten parameters fewer than its formula says.
    assert count_parameters(nn.Sequential(nn.Linear(784, 32), nn.Linear(32, 10, bias=False))) == 25_440


@settings(max_examples=30)
@given(
    in_features=st.integers(1, 20),
    hidden=st.lists(st.integers(1, 20), max_size=4),
    out_features=st.integers(1, 5),
    bias=st.booleans(),
)
def test_count_equals_the_formula(in_features: int, hidden: list[int], out_features: int, bias: bool) -> None:
    widths = [in_features, *hidden, out_features]
    formula = sum(n * m + m * bias for n, m in pairwise(widths))
    model = MLP(in_features, hidden, out_features, bias=bias)
    assert count_parameters(model) == formula
    assert model(torch.randn(3, in_features)).shape == (3, out_features)


def test_frozen_parameters_count_on_request_and_buffers_never() -> None:
    model = MLP(4, [3], 2, norm="batch")
    model[0].weight.requires_grad_(False)
    assert count_parameters(model, trainable_only=False) - count_parameters(model) == 12
    assert count_parameters(model, trainable_only=False) == 4 * 3 + 3 + 2 * 3 + 3 * 2 + 2


@pytest.mark.parametrize(
    ("position", "order"),
    [
        ("before", ["Linear", "BatchNorm1d", "Tanh", "Dropout", "Linear"]),
        ("after", ["Linear", "Tanh", "BatchNorm1d", "Dropout", "Linear"]),
    ],
)
def test_order_of_the_modules(position: str, order: list[str]) -> None:
    model = MLP(2, [3], 1, activation="tanh", norm="batch", norm_position=position, dropout=0.1)
    assert [type(module).__name__ for module in model] == order
    assert next(iter(dict(model.named_children()))) == "linear1"


def test_forward_equals_the_matrix_formula() -> None:
    model = MLP(5, [4], 3, activation="tanh").double()
    inputs = torch.randn(7, 5, dtype=torch.float64)
    w1, b1, w2, b2 = [p.detach() for p in model.parameters()]
    expected = torch.tanh(inputs @ w1.T + b1) @ w2.T + b2
    torch.testing.assert_close(model(inputs).detach(), expected)


def test_slices_share_modules_and_copies_do_not() -> None:
    model = MLP(5, [4, 4], 3)
    head = model[:2]
    assert type(head) is nn.Sequential
    assert head[0] is model[0]
    twin = copy.deepcopy(model)
    assert twin[0].weight is not model[0].weight
    torch.testing.assert_close(twin(torch.ones(1, 5)), model(torch.ones(1, 5)))


def test_init_uses_the_generator_and_leaves_the_global_stream_of_the_scheme_alone() -> None:
    weights = [
        MLP(6, [5], 2, init="kaiming_normal", generator=torch.Generator().manual_seed(1))[0].weight for _ in range(2)
    ]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains_and_initializes(activation: str) -> None:
    model = MLP(3, [4, 4], 1, activation=activation, init="kaiming_normal")
    model(torch.randn(5, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_solves_xor() -> None:
    torch.manual_seed(0)
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    model = MLP(2, [8], 1, activation="tanh")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(inputs), targets).backward()
        optimizer.step()
    assert ((model(inputs) > 0).float() == targets).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_features": [4, 0]}, r"hidden_features\[1\] must be at least 1, got 0"),
        ({"activation": "swish"}, "activation must be one of .*'silu', got 'swish'"),
        ({"norm": "bach"}, "norm must be one of 'batch', 'layer', got 'bach'"),
        ({"norm_position": "around"}, "norm_position must be one of 'before', 'after', got 'around'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"init": "he"}, "scheme must be one of .* got 'he'"),
    ],
)
def test_errors_show_the_value(arguments: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"in_features": 3, "hidden_features": [4], "out_features": 1}
    with pytest.raises(ValueError, match=message):
        MLP(**(defaults | arguments))


def test_wrong_types_are_named() -> None:
    with pytest.raises(TypeError, match=r"hidden_features must be a sequence of widths such as \[64, 64\], got 64"):
        MLP(3, 64, 1)  # type: ignore[arg-type]


def test_wrong_inputs_are_named() -> None:
    model = MLP(784, [4], 10)
    with pytest.raises(ValueError, match=r"\(batch, 784\), got \(2, 28, 28\)"):
        model(torch.zeros(2, 28, 28))
