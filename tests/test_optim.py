"""Optimizers against torch.optim: the same trajectories, errors and states, and training that works with each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils import optim, training

torch.set_num_threads(1)

STEPS = 100
NAMES = ["SGD", "Rprop", "Adagrad", "RMSprop", "Adadelta", "Adam", "NAdam", "AdamW"]
Params = list[Tensor]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    # torch keeps NAdam's product of momenta in the default dtype, whatever the parameters' is.
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def ours(name: str, params: Any, **options: Any) -> torch.optim.Optimizer:
    made = getattr(optim, name)(params, **options)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def theirs(name: str, params: Any, **options: Any) -> torch.optim.Optimizer:
    made = getattr(torch.optim, name)(params, **options)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def make_params(seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (3,), ()]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def noisy_loss(params: Params, step: int, seed: int) -> Tensor:
    """A new random batch at every step, and a gradient that keeps changing.

    A loss whose gradient becomes constant (Huber's, climbing) makes the centered variance of RMSprop a difference of
    equal numbers: torch's own steps are rounding noise then, and nothing can follow them to 1e-10.
    """
    generator = torch.Generator().manual_seed(1000 * seed + step)
    inputs, targets = torch.randn(5, 4, generator=generator), torch.randn(5, 3, generator=generator)
    weight, bias, scale = params
    return nn.functional.mse_loss(inputs @ weight + bias + scale, targets)


def run(optimizer: torch.optim.Optimizer, params: Params, steps: range, seed: int) -> list[Params]:
    trajectory = []
    for step in steps:
        optimizer.zero_grad()
        noisy_loss(params, step, seed).backward()
        optimizer.step()
        trajectory.append([parameter.detach().clone() for parameter in params])
    return trajectory


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def rate(largest: float) -> st.SearchStrategy[float]:
    return st.floats(0.0, largest, allow_subnormal=False)


SHARE = st.floats(0.0, 0.99, allow_subnormal=False)
DECAY = st.sampled_from([0.0, 0.01, 0.3])
EPS = st.sampled_from([1e-10, 1e-8, 1e-3])
BETAS = st.tuples(SHARE, st.floats(0.5, 0.999))


@st.composite
def sgd_options(draw: st.DrawFn) -> dict[str, Any]:
    nesterov = draw(st.booleans())
    momentum = draw(st.floats(0.1, 0.99) if nesterov else SHARE)
    dampening = 0.0 if nesterov else draw(SHARE)
    return {
        "lr": draw(rate(0.1)), "momentum": momentum, "dampening": dampening, "nesterov": nesterov,
        "weight_decay": draw(DECAY), "maximize": draw(st.booleans()),
    }  # fmt: skip


OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "SGD": sgd_options(),
    "Rprop": st.fixed_dictionaries({
        "lr": st.floats(1e-4, 0.1), "etas": st.tuples(st.floats(0.1, 0.9), st.floats(1.01, 1.5)),
        "step_sizes": st.tuples(st.floats(1e-6, 1e-3), st.floats(1e-2, 1.0)), "maximize": st.booleans(),
    }),
    "Adagrad": st.fixed_dictionaries({
        "lr": rate(0.5), "lr_decay": rate(0.1), "weight_decay": DECAY, "initial_accumulator_value": rate(1.0),
        "eps": EPS, "maximize": st.booleans(),
    }),
    "RMSprop": st.fixed_dictionaries({
        # A short memory makes the centered variance a difference of nearly equal numbers: rounding decides.
        "lr": rate(0.05), "alpha": st.floats(0.6, 0.999), "eps": EPS, "weight_decay": DECAY,
        "momentum": st.sampled_from([0.0, 0.5, 0.9]), "centered": st.booleans(), "maximize": st.booleans(),
    }),
    "Adadelta": st.fixed_dictionaries({
        "lr": rate(1.0), "rho": st.floats(0.0, 0.999), "eps": st.sampled_from([1e-8, 1e-6, 1e-3]),
        "weight_decay": DECAY, "maximize": st.booleans(),
    }),
    "Adam": st.fixed_dictionaries({
        "lr": rate(0.1), "betas": BETAS, "eps": EPS, "weight_decay": DECAY, "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    }),
    "NAdam": st.fixed_dictionaries({
        "lr": rate(0.1), "betas": BETAS, "eps": EPS, "weight_decay": DECAY, "momentum_decay": rate(0.1),
        "decoupled_weight_decay": st.booleans(), "maximize": st.booleans(),
    }),
    "AdamW": st.fixed_dictionaries({
        "lr": rate(0.1), "betas": BETAS, "eps": EPS, "weight_decay": DECAY, "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    }),
}  # fmt: skip

# One demanding set of options for each, where a test needs no search.
FULL: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    "Rprop": {"lr": 0.02, "etas": (0.4, 1.3), "step_sizes": (1e-4, 0.2)},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.2},
    "RMSprop": {"lr": 0.01, "alpha": 0.9, "centered": True, "momentum": 0.8, "weight_decay": 0.1},
    "Adadelta": {"rho": 0.8, "weight_decay": 0.1},
    "Adam": {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "amsgrad": True},
    "NAdam": {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "decoupled_weight_decay": True},
    "AdamW": {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "amsgrad": True},
}


@pytest.mark.parametrize("name", NAMES)
def test_trajectory_equals_torch_under_random_options(name: str) -> None:
    @settings(max_examples=15, deadline=None)
    @given(options=OPTIONS[name], seed=st.integers(0, 999))
    def check(options: dict[str, Any], seed: int) -> None:
        mine, reference = make_params(seed), make_params(seed)
        actual = run(ours(name, mine, **options), mine, range(STEPS), seed)
        assert_same(actual, run(theirs(name, reference, **options), reference, range(STEPS), seed))

    check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("full", [False, True])
def test_trajectory_equals_torch_by_default_and_with_everything_on(name: str, full: bool) -> None:
    options = FULL[name] if full else {}
    mine, reference = make_params(1), make_params(1)
    actual = run(ours(name, mine, **options), mine, range(STEPS), 1)
    assert_same(actual, run(theirs(name, reference, **options), reference, range(STEPS), 1))
    assert not torch.equal(actual[-1][0], make_params(1)[0])


@pytest.mark.parametrize("name", NAMES)
def test_defaults_equal_torch(name: str) -> None:
    mine, reference = ours(name, make_params(0)).defaults, theirs(name, make_params(0)).defaults
    assert mine == {option: reference[option] for option in mine}


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_options_of_their_own_and_may_change_them_between_steps(name: str) -> None:
    results = []
    for make in (ours, theirs):
        weight, bias, scale = params = make_params(2)
        groups = [{"params": [weight], "lr": 0.003}, {"params": [bias, scale], "maximize": True}]
        optimizer = make(name, groups, **FULL[name])
        assert [group["lr"] for group in optimizer.param_groups] == [0.003, FULL[name].get("lr", 1.0)]
        first = run(optimizer, params, range(20), 2)
        optimizer.param_groups[0]["lr"] = 0.001
        results.append(first + run(optimizer, params, range(20, STEPS), 2))
    assert_same(*results)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("saved_by", [ours, theirs])
def test_state_dict_continues_a_run_in_the_middle(name: str, saved_by: Callable[..., torch.optim.Optimizer]) -> None:
    params = make_params(4)
    optimizer = saved_by(name, params, **FULL[name])
    run(optimizer, params, range(50), 4)
    saved = copy.deepcopy(optimizer.state_dict())
    copies = [parameter.detach().clone().requires_grad_() for parameter in params]
    resumed = ours(name, copies)  # the options too come from the saved state
    resumed.load_state_dict(saved)
    expected, actual = run(optimizer, params, range(50, STEPS), 4), run(resumed, copies, range(50, STEPS), 4)
    if saved_by is ours:
        torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0)
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("name", NAMES)
def test_saved_state_does_not_change_as_the_run_goes_on(name: str) -> None:
    params = make_params(5)
    optimizer = ours(name, params, **FULL[name])
    run(optimizer, params, range(10), 5)
    saved = {index: dict(entries) for index, entries in optimizer.state_dict()["state"].items()}
    frozen = copy.deepcopy(saved)
    run(optimizer, params, range(10, 20), 5)
    torch.testing.assert_close(saved, frozen, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_left_as_it_is_and_zeroing_it_in_place_is_harmless(name: str) -> None:
    results = []
    for set_to_none in (True, False):
        params = make_params(6)
        optimizer = ours(name, params, **{**FULL[name], "weight_decay": 0.0} if name != "Rprop" else FULL[name])
        for step in range(10):
            optimizer.zero_grad(set_to_none=set_to_none)
            noisy_loss(params, step, 6).backward()
            before = [parameter.grad.clone() for parameter in params if parameter.grad is not None]
            optimizer.step()
            assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True) if p.grad is not None)
        results.append([parameter.detach() for parameter in params])
    torch.testing.assert_close(*results, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_gradient_stay_and_get_no_state(name: str) -> None:
    used, unused = make_params(7)[:2]
    start = unused.detach().clone()
    optimizer = ours(name, [used, unused], **FULL[name])
    for _ in range(3):
        optimizer.zero_grad()
        used.square().sum().backward()
        optimizer.step()
    assert torch.equal(unused, start)
    assert set(optimizer.state) == {used} or set(optimizer.state) == set()


@pytest.mark.parametrize("name", NAMES)
def test_step_calls_the_closure_once_with_gradients_on_and_returns_its_loss(name: str) -> None:
    plain, closed = make_params(8), make_params(8)
    reference, optimizer, losses = ours(name, plain, **FULL[name]), ours(name, closed, **FULL[name]), []

    def closure() -> float:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = noisy_loss(closed, 0, 8)
        loss.backward()
        losses.append(loss.item())
        return loss.item()

    with torch.no_grad():
        assert optimizer.step(closure) == losses[0]
    assert len(losses) == 1
    run(reference, plain, range(1), 8)
    torch.testing.assert_close(closed, plain, rtol=0.0, atol=0.0)
    # Looked at as a plain callable: torch's types say that step() returns nothing.
    step: Callable[[], object] = optimizer.step
    assert step() is None


BAD = [
    *[(name, {"lr": lr}) for name, lr in itertools.product(NAMES, [-0.1, -1])],
    *[(name, {"weight_decay": -0.5}) for name in NAMES if name != "Rprop"],
    *[(name, {"eps": -1e-3}) for name in NAMES if name not in ("SGD", "Rprop")],
    *[(name, {"betas": b}) for name in ("Adam", "NAdam", "AdamW") for b in [(1.0, 0.9), (0.9, 1.5), (-0.1, 0.9)]],
    ("SGD", {"momentum": -0.9}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.25}),
    ("Rprop", {"etas": (1.25, 1.5)}),
    ("Rprop", {"etas": (0.0, 1.5)}),
    ("Rprop", {"etas": (0.5, 0.75)}),
    ("Adagrad", {"lr_decay": -0.5}),
    ("Adagrad", {"initial_accumulator_value": -0.5}),
    ("RMSprop", {"alpha": -0.5}),
    ("RMSprop", {"momentum": -0.5}),
    ("Adadelta", {"rho": 1.5}),
    ("Adadelta", {"rho": -0.5}),
    ("NAdam", {"momentum_decay": -0.5}),
    *[(name, {"lr": torch.tensor([0.1, 0.2])}) for name in NAMES],
    *[(name, {"lr": "fast"}) for name in NAMES],
    *[(name, {"lr": None}) for name in NAMES],
    *[(name, {"speed": 1.0}) for name in NAMES],
]


@pytest.mark.parametrize(("name", "options"), BAD)
def test_bad_options_raise_what_torch_raises_with_the_value(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r".+") as expected:
        theirs(name, make_params(0), **options)
    with pytest.raises(expected.type) as raised:
        ours(name, make_params(0), **options)
    option, value = list(options.items())[-1]
    assert option in str(raised.value) or "nesterov" in str(raised.value)
    shown = [value] if not isinstance(value, tuple) else list(value)
    if expected.type is ValueError and isinstance(value, float | tuple):
        assert any(str(number) in str(raised.value) for number in shown)


@pytest.mark.parametrize("params", [[], [torch.zeros(2, requires_grad=True) * 2], torch.zeros(2)])
def test_bad_parameters_raise_what_torch_raises(params: Any) -> None:
    with pytest.raises(Exception, match=r".+") as expected:
        torch.optim.Adam(params)
    with pytest.raises(expected.type):
        optim.Adam(params)


@pytest.mark.parametrize("name", NAMES)
def test_lr_may_be_a_tensor_of_one_number(name: str) -> None:
    assert ours(name, make_params(0), lr=torch.tensor([0.25])).param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("name", NAMES)
def test_sparse_and_complex_gradients_are_refused(name: str) -> None:
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([1.0]), (3,), check_invariants=True)
    with pytest.raises(
        RuntimeError, match=rf"{name} needs dense real gradients, got torch.sparse_coo of torch.float64"
    ):
        ours(name, [weight]).step()
    phase = torch.zeros(3, dtype=torch.complex128, requires_grad=True)
    phase.grad = torch.ones_like(phase)
    with pytest.raises(RuntimeError, match=r"got torch.strided of torch.complex128"):
        ours(name, [phase]).step()


def test_centered_rmsprop_stays_finite_where_rounding_makes_the_variance_negative() -> None:
    params = [torch.zeros(1000, requires_grad=True)]
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    optimizer = optim.RMSprop(params, alpha=0.1, centered=True)
    for _ in range(50):
        params[0].grad = gradient
        optimizer.step()
    assert torch.isfinite(params[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_states_and_parameters_keep_single_precision(name: str) -> None:
    weight = torch.ones(3, dtype=torch.float32, requires_grad=True)
    optimizer = ours(name, [weight], **FULL[name])
    for _ in range(2):
        weight.grad = torch.full((3,), 0.5, dtype=torch.float32)
        optimizer.step()
    tensors = [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]
    assert {tensor.dtype for tensor in [weight, *tensors]} == {torch.float32}


LEARNING_RATES = {"SGD": 0.5, "Adagrad": 0.1, "Adadelta": 10.0}


@pytest.mark.parametrize("name", NAMES)
def test_fit_overfits_a_tiny_batch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(8, 4, generator=generator), torch.arange(8) % 3
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = ours(name, model.parameters(), lr=LEARNING_RATES.get(name, 0.01))
    history = training.fit(
        model, (inputs, targets), loss_fn=nn.CrossEntropyLoss(), optimizer=optimizer, max_epochs=200, batch_size=8,
        schedule=lambda step: min(1.0, (step + 1) / 5), seed=0,
    )  # fmt: skip
    assert history["accuracy"][-1] == 1.0
    assert history["loss"][-1] < 0.1 < history["loss"][0]
