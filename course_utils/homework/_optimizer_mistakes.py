"""Steps of optimizers beside torch's, and the mistakes students make in them; for `homework.optimizer_workshop`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.homework.engine.judge import Mistake

__all__ = [
    "Ride",
    "TorchStep",
    "adam_mistakes",
    "adamw_mistakes",
    "drive",
    "drive_class",
    "make_ride",
    "nesterov_mistakes",
]

_State = dict[str, Any]


@dataclass(frozen=True)
class Ride:
    """Gradients for two parameters that do not depend on where these are, so that a mistake cannot blow up."""

    starts: Tensor  # (2, 4)
    gradients: Tensor  # (steps, 2, 4)
    options: dict[str, Any]


class TorchStep:
    """Torch's optimizer in the place of a student's step function."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        self.make = make


def make_ride(seed: int, n_steps: int, scale: float, **options: Any) -> Ride:
    """Draw a ride with gradients of about the size ``scale``."""
    rng = np.random.default_rng(seed)
    starts, drift = torch.tensor(rng.normal(size=(2, 2, 4)))
    gradients = scale * (drift + torch.tensor(rng.normal(size=(n_steps, 2, 4))))
    gradients[:, 1, 2] = 0.0  # a weight behind a dead unit
    return Ride(starts, gradients, options)


def drive(step: Any, ride: Ride) -> Any:
    """Return where the weights were after each step of a function, (steps, 8)."""
    if isinstance(step, TorchStep):
        return drive_class(step.make, ride)[:, :8]
    thetas: list[Any] = list(ride.starts.clone())
    states: list[_State] = [{} for _ in thetas]
    path = []
    for gradients in ride.gradients:
        for place, gradient in enumerate(gradients):
            thetas[place] = step(thetas[place], gradient.clone(), states[place], **ride.options)
            if not isinstance(thetas[place], Tensor) or thetas[place].shape != gradient.shape:
                return thetas[place]  # what is wrong with it, the comparison says
        path.append(torch.cat([theta.detach() for theta in thetas]))
    return torch.stack(path)


def drive_class(make: Any, ride: Ride) -> Tensor:
    """Do the same with a class as torch's, with a third parameter that gets no gradient; halve ``lr`` on the way."""
    parameters = [nn.Parameter(start.clone()) for start in [*ride.starts, ride.starts[0]]]
    options = dict(ride.options)
    new_lr = options.pop("new_lr", None)
    optimizer = make(iter(parameters), **options)
    path = []
    for number, gradients in enumerate(ride.gradients):
        if new_lr is not None and number == len(ride.gradients) // 2:
            _set_lr(optimizer, new_lr)
        optimizer.zero_grad()
        for parameter, gradient in zip(parameters, gradients, strict=False):
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
        optimizer.step()
        path.append(torch.cat([parameter.detach().clone() for parameter in parameters]))
    return torch.stack(path)


def _set_lr(optimizer: Any, lr: float) -> None:
    if isinstance(optimizer, torch.optim.Optimizer):
        for group in optimizer.param_groups:
            group["lr"] = lr
    else:
        optimizer.lr = lr


def _nesterov(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
    b = state["b"] = momentum * state.get("b", 0.0) + g
    return theta - lr * (g + momentum * b)


def nesterov_mistakes() -> list[Mistake]:
    """Return the mistakes of Nesterov's step, as functions."""
    shared: _State = {}

    def plain(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        state["b"] = momentum * state.get("b", 0.0) + g
        return theta - lr * state["b"]

    def dampened(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        b = state["b"] = momentum * state.get("b", 0.0) + (1 - momentum) * g
        return theta - lr * (g + momentum * b)

    def dampened_later(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        b = state["b"] = momentum * state["b"] + (1 - momentum) * g if "b" in state else g
        return theta - lr * (g + momentum * b)

    def no_memory(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        return theta - lr * (g + momentum * g)

    def whole_buffer(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        b = state["b"] = momentum * state.get("b", 0.0) + g
        return theta - lr * (g + b)

    def in_the_buffer(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        b = state["b"] = momentum * state.get("b", 0.0) + g
        state["b"] = g + momentum * b
        return theta - lr * state["b"]

    def uphill(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        return 2 * theta - _nesterov(theta, g, state, lr=lr, momentum=momentum)

    def no_lr(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        return _nesterov(theta, g, state, lr=1.0, momentum=momentum)

    def one_buffer(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        return _nesterov(theta, g, shared, lr=lr, momentum=momentum)

    def only_the_step(theta: Tensor, g: Tensor, state: _State, *, lr: float, momentum: float) -> Any:
        return theta - _nesterov(theta, g, state, lr=lr, momentum=momentum)

    return [
        Mistake("this is plain momentum: Nesterov looks one momentum step ahead of the new buffer", plain),
        Mistake("the buffer adds the gradient itself; you dampen it by 1 − momentum", dampened),
        Mistake(
            "after its first step the buffer dampens the gradient by 1 − momentum; it adds it whole", dampened_later
        ),
        Mistake("nothing is remembered between the steps: does the new buffer reach `state`?", no_memory),
        Mistake("the look-ahead counts the buffer once too often: what is its factor?", whole_buffer),
        Mistake("the look-ahead belongs to this step alone; you stored it in the buffer", in_the_buffer),
        Mistake("it climbs: the sign of the step is flipped", uphill),
        Mistake("the step does not depend on `lr`", no_lr),
        Mistake("two parameters share one buffer: keep it in the `state` you are given", one_buffer),
        Mistake("it returns the step; the new weights are expected", only_the_step),
    ]


def _adam(**twist: Any) -> Callable[..., Tensor]:
    """Return Adam's step with one thing done otherwise."""

    def step(theta: Tensor, g: Tensor, state: _State, *, lr: float, betas: tuple[float, float], eps: float) -> Any:
        state = twist.get("state", state)
        one, two = betas[::-1] if twist.get("swapped") else betas
        state["t"] = state.get("t", 0) + (0 if twist.get("stuck") and state else 1)
        t = state["t"] + twist.get("late", 0)
        m = twist.get("m", lambda old: one * old + (1 - one) * g)(state.get("m", torch.zeros_like(g)))
        square = g.abs() if twist.get("absolute") else g**2
        fresh = square if twist.get("sum") else (1 - two) * square
        v = two * state.get("v", torch.zeros_like(g)) + fresh
        corrected_m = m if twist.get("raw_m") else m / (1 - one**t)
        corrected_v = v if twist.get("raw_v") else v / (1 - two**t)
        state["m"], state["v"] = (corrected_m, corrected_v) if twist.get("stored") else (m, v)
        scale = _scale(corrected_v, eps, twist.get("root", "outside"))
        move = (1.0 if twist.get("no_lr") else lr) * corrected_m / scale
        return theta + move if twist.get("uphill") else theta - move

    return step


def _scale(v: Tensor, eps: float, root: str) -> Any:
    if root == "inside":
        return (v + eps).sqrt()
    if root == "none":
        return v + eps
    return v.sqrt() + (0.0 if root == "no eps" else eps)


def adam_mistakes() -> list[Mistake]:
    """Return the mistakes of Adam's step, as functions."""
    return [
        Mistake("neither mean is corrected for its start at 0: mind the first steps", _adam(raw_m=1, raw_v=1)),
        Mistake("the mean of the squares is not corrected for its start at 0", _adam(raw_v=True)),
        Mistake("the mean of the gradients is not corrected for its start at 0", _adam(raw_m=True)),
        Mistake("ε stands under the root; it is added to the root", _adam(root="inside")),
        Mistake("there is no ε: a weight whose gradient is 0 is divided by 0", _adam(root="no eps")),
        Mistake("the square root is missing: you divide by the mean square itself", _adam(root="none")),
        Mistake("t starts at 0, where the correction divides by 0: the first step is number 1", _adam(late=-1)),
        Mistake("t runs ahead by one: the first step is number 1", _adam(late=1)),
        Mistake("t stays at 1: does `state` count the steps?", _adam(stuck=True)),
        Mistake("the two betas are swapped", _adam(swapped=True)),
        Mistake("the second mean is one of |g|; it is one of g²", _adam(absolute=True)),
        Mistake("the squares are added up whole: the new one has the weight 1 − β₂", _adam(sum=True)),
        Mistake("you store the corrected means; the next step needs them as they were", _adam(stored=True)),
        Mistake("it climbs: the sign of the step is flipped", _adam(uphill=True)),
        Mistake("the step does not depend on `lr`", _adam(no_lr=True)),
        Mistake("two parameters share one state: keep it in the `state` you are given", _adam(state={})),
    ]  # fmt: skip


class _AdamW:
    """AdamW with one thing done otherwise, by the name of the mistake."""

    mistake = ""

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        self.params, self.lr, self.fixed_lr = list(params), lr, lr
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.t = 0
        self.states: list[_State] = [{} for _ in self.params]

    def zero_grad(self) -> None:
        for parameter in self.params:
            if self.mistake != "keeps gradients":
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.t += 1
        for parameter, own in zip(self.params, self.states, strict=True):
            if parameter.grad is None and self.mistake != "decays frozen":
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            self._update(parameter, gradient, self.states[0] if self.mistake == "one state" else own)

    def _update(self, parameter: Tensor, g: Tensor, state: _State) -> None:
        lr = self.fixed_lr if self.mistake == "fixed lr" else self.lr
        decay, (one, two) = self.weight_decay, self.betas
        before = parameter.clone()
        if self.mistake == "penalty":
            g = g + decay * parameter
        t = state["t"] = self.t if self.mistake != "one state" else state.get("t", 0) + 1
        if self.mistake == "counts parameters":
            t = self.t = self.t + 1
        m = state["m"] = one * state.get("m", 0.0) + (1 - one) * g
        v = state["v"] = two * state.get("v", 0.0) + (1 - two) * g**2
        if self.mistake != "no correction":
            m, v = m / (1 - one**t), v / (1 - two**t)
        parameter -= lr * m / ((v + self.eps).sqrt() if self.mistake == "inside" else v.sqrt() + self.eps)
        if self.mistake not in ("penalty", "no decay"):
            factor = decay if self.mistake == "no lr" else lr * decay
            factor = -factor if self.mistake == "growth" else factor
            parameter -= factor * (parameter if self.mistake == "afterwards" else before)


def _adamw_mistake(says: str, name: str) -> Mistake:
    return Mistake(says, type("AdamWMistaken", (_AdamW,), {"mistake": name}))


class _Idle(_AdamW):
    def step(self) -> None:
        pass


def adamw_mistakes() -> list[Mistake]:
    """Return the mistakes of AdamW, as classes."""
    return [
        _adamw_mistake("the decay goes through the gradient, where √v̂ rescales it: that is Adam's", "penalty"),
        _adamw_mistake("the weights do not decay", "no decay"),
        _adamw_mistake("the decay is not multiplied by `lr`", "no lr"),
        _adamw_mistake("the decay makes the weights grow: mind its sign", "growth"),
        _adamw_mistake("the weights decay after the step; the factor acts on what they were before", "afterwards"),
        _adamw_mistake("neither mean is corrected for its start at 0", "no correction"),
        _adamw_mistake("ε stands under the root; it is added to the root", "inside"),
        _adamw_mistake("t counts parameters; it counts steps", "counts parameters"),
        _adamw_mistake("all parameters share one state: each needs means of its own", "one state"),
        _adamw_mistake("`zero_grad` leaves the old gradients, so that they add up", "keeps gradients"),
        _adamw_mistake("a parameter without gradient moves too: leave it alone", "decays frozen"),
        _adamw_mistake("a later change of `self.lr`, as a schedule makes it, has no effect", "fixed lr"),
        Mistake("the parameters never move: write into the tensors themselves", _Idle),
    ]  # fmt: skip
