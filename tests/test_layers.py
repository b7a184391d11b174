"""Batch normalization and dropout against torch, finite differences and the algebra of folding."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils.layers import BatchNorm1d, Dropout, batchnorm_backward, batchnorm_forward, dropout, fold_batchnorm
from course_utils.models import MLP
from course_utils.reproducibility import make_generator

SIZES = {"batch": st.integers(2, 9), "features": st.integers(1, 6), "seed": st.integers(0, 10_000)}
OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-5, 1e-3, 0.5]),
        "momentum": st.sampled_from([None, 0.0, 0.1, 0.7, 1.0]),
        "affine": st.booleans(),
        "track_running_stats": st.booleans(),
    }
)


def assert_close(actual: Tensor | None, expected: Tensor | None) -> None:
    if actual is None or expected is None:
        assert actual is expected
    else:
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def randn(*shape: int, generator: torch.Generator, requires_grad: bool = False) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)


def twins(num_features: int, generator: torch.Generator, **options: object) -> tuple[BatchNorm1d, nn.BatchNorm1d]:
    """Ours and torch's in float64, with the same parameters, none of them at its initial value."""
    ours = BatchNorm1d(num_features, **options).double()  # type: ignore[arg-type]
    torchs = nn.BatchNorm1d(num_features, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.copy_(randn(num_features, generator=generator))
    ours.load_state_dict(torchs.state_dict())
    return ours, torchs


def pass_through(layer: nn.Module, x: Tensor, grad_out: Tensor) -> list[Tensor]:
    """Output and all gradients of one pass."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    return [out, *torch.autograd.grad(out, [leaf, *layer.parameters()], grad_out)]


# ------------------------------------------------------------------------------------------------- plain functions


@given(**SIZES, eps=st.sampled_from([1e-5, 1e-2]))
@settings(max_examples=40, deadline=None)
def test_functions_equal_torch_and_its_autograd(batch: int, features: int, seed: int, eps: float) -> None:
    generator = make_generator(seed)
    x = 3 * randn(batch, features, generator=generator) + 5
    gamma, beta = (randn(features, generator=generator) for _ in range(2))
    grad_out = randn(batch, features, generator=generator)

    out, cache = batchnorm_forward(x, gamma, beta, eps)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, gamma, beta)]
    expected = nn.functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True, eps=eps)

    assert_close(out, expected)
    for ours, torchs in zip(
        batchnorm_backward(grad_out, cache), torch.autograd.grad(expected, leaves, grad_out), strict=True
    ):
        assert_close(ours, torchs)


@given(**SIZES, scale=st.floats(0.1, 100.0), shift=st.floats(-50.0, 50.0))
@settings(max_examples=30, deadline=None)
def test_output_ignores_scale_and_shift_of_the_input(
    batch: int, features: int, seed: int, scale: float, shift: float
) -> None:
    x = randn(batch, features, generator=make_generator(seed))
    one, zero = torch.ones(features).double(), torch.zeros(features).double()
    expected, _ = batchnorm_forward(x, one, zero, eps=0.0)
    actual, _ = batchnorm_forward(scale * x + shift, one, zero, eps=0.0)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)  # features that hardly vary cancel digits


# -------------------------------------------------------------------------------------------------------- the layer


@given(**SIZES, options=OPTIONS, length=st.sampled_from([None, 1, 3]))
@settings(max_examples=120, deadline=None)
def test_layer_equals_torch_over_several_steps_in_both_modes(
    batch: int, features: int, seed: int, options: dict[str, object], length: int | None
) -> None:
    generator = make_generator(seed)
    ours, torchs = twins(features, generator, **options)
    shape = (batch, features) if length is None else (batch, features, length)

    for training in (True, True, False, True, False):
        ours.train(training)
        torchs.train(training)
        x, grad_out = 2 * randn(*shape, generator=generator) + 1, randn(*shape, generator=generator)
        pairs = zip(pass_through(ours, x, grad_out), pass_through(torchs, x, grad_out), strict=True)
        for actual, expected in pairs:
            assert_close(actual, expected)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert_close(getattr(ours, name), getattr(torchs, name))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2)])
def test_gradients_pass_gradcheck(shape: tuple[int, ...], mode: str) -> None:
    generator = make_generator(0)
    layer, _ = twins(3, generator, momentum=0.0)  # the running averages must not move between evaluations
    getattr(layer, mode)()
    inputs = [randn(*shape, generator=generator, requires_grad=True), *layer.parameters()]
    names = ("weight", "bias")

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(function, inputs)


def test_second_derivative_is_refused_instead_of_wrong() -> None:
    x = randn(4, 2, generator=make_generator(0), requires_grad=True)
    (grad,) = torch.autograd.grad(BatchNorm1d(2).double()(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_state_dict_travels_to_torch_and_back(options: dict[str, object]) -> None:
    generator = make_generator(0)
    ours, torchs = twins(3, generator, **options)
    ours(randn(5, 3, generator=generator))
    torchs.load_state_dict(ours.state_dict())
    back = BatchNorm1d(3, **options).double()  # type: ignore[arg-type]
    back.load_state_dict(torchs.state_dict())

    assert list(ours.state_dict()) == list(nn.BatchNorm1d(3, **options).state_dict())  # type: ignore[arg-type]
    for name, tensor in ours.state_dict().items():
        assert_close(back.state_dict()[name], tensor)
        assert tensor.dtype == torchs.state_dict()[name].dtype


def test_evaluation_mode_treats_each_sample_alone_and_learns_nothing() -> None:
    generator = make_generator(0)
    layer, _ = twins(3, generator)
    layer(randn(8, 3, generator=generator))
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    x = randn(5, 3, generator=generator)
    assert_close(torch.cat([layer(x[i : i + 1]) for i in range(5)]), layer(x))
    assert layer(x[:0]).shape == (0, 3)
    for name, tensor in layer.state_dict().items():
        assert_close(tensor, before[name])


def test_layer_can_be_pickled_and_shows_its_arguments() -> None:
    layer = pickle.loads(pickle.dumps(BatchNorm1d(3, momentum=None)))
    expected = "BatchNorm1d(3, eps=1e-05, momentum=None, affine=True, track_running_stats=True)"
    assert repr(layer) == expected


# ---------------------------------------------------------------------------------------------------------- folding


def with_statistics(model: nn.Sequential, width: int, seed: int = 0) -> nn.Sequential:
    """The model in float64 after three batches in training mode, every normalization off its initial values."""
    generator = make_generator(seed)
    model.double().train()
    for module in model.modules():
        if isinstance(module, BatchNorm1d | nn.BatchNorm1d) and module.weight is not None and module.bias is not None:
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    for _ in range(3):
        model(2 * randn(16, width, generator=generator) + 1)
    return model


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, BatchNorm1d | nn.BatchNorm1d) for module in model.modules())


@pytest.mark.parametrize("norm", [BatchNorm1d, nn.BatchNorm1d])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_keeps_the_outputs(norm: Callable[..., nn.Module], affine: bool, bias: bool) -> None:
    mlp = MLP(4, [7, 5], 3, bias=bias, norm=lambda width: norm(width, affine=affine))
    model = with_statistics(mlp, 4)
    stored = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()

    folded = fold_batchnorm(model)

    x = 3 * randn(10, 4, generator=make_generator(9))
    assert_close(folded(x), model.eval()(x))
    assert norms_in(folded) == 0
    assert not folded.training
    assert norms_in(model) == 2
    for name, tensor in model.state_dict().items():
        assert_close(tensor, stored[name])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_folding_leaves_alone_what_it_cannot_fold() -> None:
    model = with_statistics(
        nn.Sequential(
            nn.Linear(4, 4),
            nn.ReLU(),
            BatchNorm1d(4),  # after the activation
            nn.Linear(4, 4),
            BatchNorm1d(4, track_running_stats=False),  # no fixed numbers
            nn.Linear(4, 4),
            nn.BatchNorm1d(4),
            BatchNorm1d(4),  # what precedes it is not linear
        ),
        4,
    ).eval()
    folded = fold_batchnorm(model)
    x = randn(6, 4, generator=make_generator(3))
    assert_close(folded(x), model(x))
    assert [index for index, module in enumerate(folded) if isinstance(module, nn.Identity)] == [6]


def test_folding_reaches_nested_sequentials_and_respects_shared_layers() -> None:
    shared = nn.Linear(4, 4)
    inner = nn.Sequential(shared, BatchNorm1d(4), nn.Tanh())
    model = with_statistics(nn.Sequential(inner, shared, nn.Tanh(), inner), 4).eval()
    folded = fold_batchnorm(model)
    x = randn(6, 4, generator=make_generator(3))
    assert_close(folded(x), model(x))
    assert norms_in(folded) == 0


# ---------------------------------------------------------------------------------------------------------- dropout


@given(seed=st.integers(0, 10_000), p=st.floats(0, 1), shape=st.sampled_from([(7,), (4, 5), (2, 3, 4)]))
@settings(max_examples=60, deadline=None)
def test_dropout_equals_torch_given_the_same_mask(seed: int, p: float, shape: tuple[int, ...]) -> None:
    generator = make_generator(seed)
    x, grad_out = randn(*shape, generator=generator, requires_grad=True), randn(*shape, generator=generator)
    outs = []
    for function in (dropout, nn.functional.dropout):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outs.append(function(x, p, training=True))
    assert torch.equal(outs[0], outs[1])
    grads = [torch.autograd.grad(out, x, grad_out)[0] for out in outs]
    assert torch.equal(grads[0], grads[1])
    if p < 1:
        torch.testing.assert_close(grads[0], (outs[0] != 0) * grad_out / (1 - p))


@given(seed=st.integers(0, 10_000), p=st.floats(0, 0.9))
@settings(max_examples=25, deadline=None)
def test_dropout_keeps_the_expectation_and_drops_the_share_p(seed: int, p: float) -> None:
    out = dropout(torch.ones(20_000), p, training=True, generator=make_generator(seed))
    five_sigma = 5 * (p * (1 - p) / 20_000) ** 0.5
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=five_sigma + 1e-6)
    assert out.mean().item() == pytest.approx(1, abs=five_sigma / (1 - p) + 1e-5)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - p)))


def test_dropout_is_the_identity_in_evaluation_mode_and_draws_nothing() -> None:
    x, state = torch.ones(3, 4), torch.get_rng_state()
    assert Dropout(0.9).eval()(x) is x
    assert dropout(x, 0.9, training=False) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_of_probability_one_leaves_zeros_and_of_zero_everything() -> None:
    x = torch.ones(3, requires_grad=True)
    assert Dropout(1.0)(x).tolist() == [0, 0, 0]
    assert torch.autograd.grad(Dropout(1.0)(x).sum(), x)[0].tolist() == [0, 0, 0]
    assert Dropout(0.0)(x) is x


def test_dropout_layer_draws_from_its_generator_and_shows_p() -> None:
    layers = [Dropout(0.3, generator=make_generator(seed)) for seed in (1, 1, 2)]
    state = torch.get_rng_state()
    first, again, other = (layer(torch.ones(50)) for layer in layers)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(layers[0]) == "Dropout(p=0.3)"
    assert repr(Dropout()) == "Dropout(p=0.5)"


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"p must be in \[0, 1\], got 1.5", lambda: Dropout(1.5)),
        (ValueError, r"p must be in \[0, 1\], got -0.1", lambda: dropout(torch.ones(2), -0.1, training=False)),
    ],
)
def test_bad_argument_of_dropout_is_shown(error: type[Exception], message: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"at least 2 .* got x of shape \(1, 4\)", lambda: BatchNorm1d(4)(torch.zeros(1, 4))),
        (ValueError, r"\(batch, 4\) .* got \(3, 5\)", lambda: BatchNorm1d(4)(torch.zeros(3, 5))),
        (ValueError, r"got \(4,\)", lambda: BatchNorm1d(4)(torch.zeros(4))),
        (ValueError, r"got \(2, 4, 3, 3\)", lambda: BatchNorm1d(4)(torch.zeros(2, 4, 3, 3))),
        (ValueError, r"got \(2, 3, 4\)", lambda: BatchNorm1d(4)(torch.zeros(2, 3, 4))),
        (ValueError, r"x must have shape \(batch, features\), got \(2, 3, 4\)", lambda: call_forward(2, 3, 4)),
        (ValueError, r"at least 2 .* got x of shape \(1, 3\)", lambda: call_forward(1, 3)),
        (ValueError, r"gamma must have shape \(4,\) .* got \(3,\)", lambda: call_forward(2, 4)),
        (ValueError, r"beta must have shape \(3,\) .* got \(2,\)", lambda: call_forward(2, 3, beta=torch.zeros(2))),
        (ValueError, "nothing to fold", lambda: fold_batchnorm(MLP(4, [5], 3, norm="batch", norm_position="after"))),
        (ValueError, "nothing to fold", lambda: fold_batchnorm(MLP(4, [5], 3))),
    ],
)
def test_bad_input_is_named_with_its_value(error: type[Exception], message: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=message):
        call()


def call_forward(*shape: int, beta: Tensor | None = None) -> object:
    return batchnorm_forward(torch.zeros(*shape), torch.ones(3), torch.zeros(3) if beta is None else beta)


def test_failed_call_leaves_the_running_statistics_alone() -> None:
    layer = BatchNorm1d(4)
    with pytest.raises(ValueError, match="at least 2"):
        layer(torch.zeros(1, 4))
    assert layer.state_dict()["num_batches_tracked"] == 0
