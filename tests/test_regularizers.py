"""Penalties against torch's weight decay and autograd, smoothing against torch's cross-entropy."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils.layers import BatchNorm1d
from course_utils.regularizers import (
    ActivityPenalty,
    decay_groups,
    l1_penalty,
    l2_penalty,
    smooth_labels,
    soft_threshold_,
)
from course_utils.reproducibility import make_generator
from course_utils.training import fit

ALL = ("kernel", "bias", "norm")


def network(seed: int = 0, norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Sequential:
    """In float64; no parameter at its initial value."""
    model = nn.Sequential(nn.Linear(3, 4), norm(4), nn.ReLU(), nn.Linear(4, 2)).double()
    generator = make_generator(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def data(seed: int = 0, n: int = 12) -> tuple[Tensor, Tensor]:
    generator = make_generator(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 2


# ---------------------------------------------------------------------------------------------------------- penalties


@given(seed=st.integers(0, 10_000), lam=st.floats(0, 10), kinds=st.sets(st.sampled_from(ALL), min_size=1))
@settings(max_examples=30, deadline=None)
def test_penalties_are_the_sums_their_formulas_say_over_the_kinds_asked_for(
    seed: int, lam: float, kinds: set[str]
) -> None:
    model = network(seed)
    names = {"kernel": ["0.weight", "3.weight"], "bias": ["0.bias", "3.bias"], "norm": ["1.weight", "1.bias"]}
    chosen = [model.get_parameter(name) for kind in kinds for name in names[kind]]
    values = torch.cat([parameter.flatten() for parameter in chosen])

    torch.testing.assert_close(l1_penalty(model, lam, kinds=tuple(kinds)), lam * values.abs().sum())
    torch.testing.assert_close(l2_penalty(model, lam, kinds=tuple(kinds)), lam * (values**2).sum())


def test_by_default_only_kernels_are_penalized() -> None:
    model = network()
    kernels = torch.cat([model[0].weight.flatten(), model[3].weight.flatten()])  # type: ignore[operator]
    torch.testing.assert_close(l1_penalty(model, 0.3), 0.3 * kernels.abs().sum())
    torch.testing.assert_close(l2_penalty(model, 0.3), 0.3 * kernels.square().sum())


def test_gradients_are_lam_times_sign_and_two_lam_times_weight() -> None:
    weight = (model := network())[0].weight
    (l1,) = torch.autograd.grad(l1_penalty(model, 0.3), weight)  # type: ignore[arg-type]
    (l2,) = torch.autograd.grad(l2_penalty(model, 0.3), weight)  # type: ignore[arg-type]
    torch.testing.assert_close(l1, 0.3 * weight.sign())  # type: ignore[operator]
    torch.testing.assert_close(l2, 0.6 * weight)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {"lr": 0.05}),
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
        (torch.optim.Adam, {"lr": 0.01}),
    ],
)
def test_l2_penalty_follows_weight_decay_of_twice_lam(optimizer: Any, options: dict[str, float]) -> None:
    lam, (x, y), trained = 0.01, data(), []
    for penalized in (True, False):
        model = network()
        stepper = optimizer(model.parameters(), weight_decay=0.0 if penalized else 2 * lam, **options)
        for _ in range(100):
            stepper.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (loss + l2_penalty(model, lam, kinds=ALL) if penalized else loss).backward()
            stepper.step()
        trained.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(*trained, rtol=1e-12, atol=1e-12)


def test_shared_parameter_counts_once() -> None:
    layer = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.weight = layer.weight
    torch.testing.assert_close(l2_penalty(nn.Sequential(layer, layer, other), 1.0), (layer.weight**2).sum())


def test_computed_weights_count_with_what_they_are_computed_from_and_stay_as_they_are() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    original = layer.get_parameter("parametrizations.weight.original")
    torch.testing.assert_close(l2_penalty(layer, 1.0), original.square().sum())
    assert decay_groups(layer, 0.1)[0]["params"] == [original]
    torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)


def test_fit_takes_and_records_a_penalty() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    history = fit(
        model,
        data(),
        loss_fn=nn.functional.cross_entropy,
        optimizer=optimizer,
        max_epochs=1,
        penalty=functools.partial(l1_penalty, lam=0.1),
    )
    assert history["penalty"][0] == pytest.approx(l1_penalty(network(), 0.1).item(), rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- activity


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_activity_penalty_is_the_batch_mean_of_the_summed_activations(norm: str) -> None:
    model, (x, _) = network(), data()
    with ActivityPenalty(model, 0.5, layers=[model[2], model[3]], norm=norm) as penalty:
        model(x + 1)  # an earlier pass is forgotten
        model(x)
        actual = penalty(model)
    hidden = model[:3](x)
    outputs = torch.cat([hidden, model[3](hidden)], dim=1)
    expected = 0.5 * (outputs.abs() if norm == "l1" else outputs**2).sum(dim=1).mean()
    torch.testing.assert_close(actual, expected)
    actual.backward()
    assert model[0].weight.grad is not None


def test_activity_penalty_shrinks_activations_in_fit_and_leaves_no_hooks() -> None:
    sizes = []
    for lam in (0.0, 1.0):
        model, train = network(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with ActivityPenalty(model, lam, layers=[model[2]]) as penalty:
            fit(
                model,
                train,
                val=train,
                loss_fn=nn.functional.cross_entropy,
                optimizer=optimizer,
                max_epochs=20,
                penalty=penalty,
                seed=0,
            )
        assert not model._forward_pre_hooks
        assert not model[2]._forward_hooks
        sizes.append(model[:3](train[0]).abs().mean().item())
    assert sizes[1] < 0.5 * sizes[0]


def test_activity_penalty_wants_a_training_pass() -> None:
    model = network()
    with ActivityPenalty(model, 1.0, layers=[model[2]]) as penalty:
        model.eval()(data()[0])
        with pytest.raises(RuntimeError, match="no activations recorded"):
            penalty(model)


def test_activity_penalty_of_one_pass_is_given_once() -> None:
    model = network()
    with ActivityPenalty(model, 1.0, layers=[model[2]]) as penalty:
        model(data()[0])
        penalty(model)
        with pytest.raises(RuntimeError, match="no activations recorded"):
            penalty(model)


# ----------------------------------------------------------------------------------------------------------- proximal


@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=8), amount=st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_soft_threshold_equals_softshrink(values: list[float], amount: float) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    expected = nn.functional.softshrink(tensor, amount)
    soft_threshold_(tensor, amount)
    torch.testing.assert_close(tensor, expected)


def test_soft_threshold_reaches_every_parameter_and_gives_exact_zeros() -> None:
    model = network()
    soft_threshold_(model.parameters(), 100.0)
    assert all(not parameter.any() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm1d, nn.LayerNorm])
def test_only_kernels_decay(norm: type[nn.Module]) -> None:
    model = network(norm=norm)
    model[3].bias.requires_grad_(False)
    decayed, rest = decay_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight), id(model[3].weight)]
    assert [id(p) for p in rest["params"]] == [id(model[0].bias), id(model[1].weight), id(model[1].bias)]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    torch.optim.AdamW([decayed, rest], lr=0.1)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_norm_over_two_axes_does_not_decay(norm: Any) -> None:
    assert decay_groups(norm((2, 3)), 0.1)[0]["params"] == []


def test_scale_of_a_module_without_weight_does_not_decay() -> None:
    module = nn.Module()
    module.register_parameter("scale", nn.Parameter(torch.ones(3)))
    decayed, rest = decay_groups(module, 0.1)
    assert decayed["params"] == []
    assert rest["params"][0] is module.scale


# ---------------------------------------------------------------------------------------------------------- smoothing


@given(seed=st.integers(0, 10_000), n_classes=st.integers(1, 6), eps=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_smoothed_labels_sum_to_one_and_give_torchs_loss(seed: int, n_classes: int, eps: float) -> None:
    generator = make_generator(seed)
    logits = torch.randn(5, n_classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(n_classes, (5,), generator=generator)
    soft = smooth_labels(targets, n_classes, eps, dtype=torch.float64)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(5).double())
    actual = nn.functional.cross_entropy(logits, soft)
    expected = nn.functional.cross_entropy(logits, targets, label_smoothing=eps)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- errors

LABELS = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"lam must be in \[0, inf\), got -1", lambda: l1_penalty(network(), -1)),
        (ValueError, "kinds must be one of .* got 'weights'", lambda: l2_penalty(network(), 1, kinds=("weights",))),
        (ValueError, "ReLU has no parameter", lambda: l2_penalty(nn.ReLU(), 1)),
        (ValueError, "lam must be", lambda: ActivityPenalty(nn.ReLU(), -1, layers=[nn.ReLU()])),
        (ValueError, "norm must be .* got 'l3'", lambda: ActivityPenalty(nn.ReLU(), 1, layers=[], norm="l3")),
        (ValueError, "amount must be .* got -0.1", lambda: soft_threshold_(torch.ones(1), -0.1)),
        (ValueError, r"eps must be in \[0, 1\], got 1.5", lambda: smooth_labels(LABELS, 3, 1.5)),
        (TypeError, "got torch.float32", lambda: smooth_labels(LABELS.float(), 3, 0.1)),
    ],
)
def test_bad_argument_is_shown_with_what_is_allowed(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call()
