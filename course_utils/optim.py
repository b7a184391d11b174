"""Optimizers from scratch: torch's arguments and trajectories, one formula a class.

In every formula θ is the parameter, t the step from 1 on, and g the gradient (its negative under ``maximize``).
Products, roots and quotients are elementwise, and every state starts at 0 unless it says otherwise.

Options shared by the classes, named and ordered as torch's; a number out of range raises ``ValueError`` with its value.
Differs: infinite values are refused too.

- ``params``: tensors, or groups of them, dicts that may override any option.
- ``lr``: learning rate, at least 0.
- ``weight_decay``: factor λ of the penalty λ/2·‖θ‖², whose gradient is λθ; at least 0.
- ``eps``: keeps a quotient finite; at least 0.
- ``maximize``: whether to climb.

The loop goes over the parameters one by one, and each new state is a new tensor: clarity beats speed here. torch's own
classes fuse these operations and work in place; train anything large with those. What speeds them up (``foreach, fused,
capturable, differentiable``) is therefore no argument here. States have torch's names: what ``state_dict()`` of
``torch.optim.Adam`` returns can be loaded into `Adam`, and likewise for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_utils._validation import check_in_range

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "NAdam", "RMSprop", "Rprop"]

_NON_NEGATIVE = (0.0, math.inf, "[)")
# Option → range and whether its ends belong to it; of a pair one for each.
_RANGES: dict[str, list[tuple[float, float, str]]] = {
    "lr": [_NON_NEGATIVE],
    "momentum": [_NON_NEGATIVE],
    "weight_decay": [_NON_NEGATIVE],
    "eps": [_NON_NEGATIVE],
    "alpha": [_NON_NEGATIVE],
    "lr_decay": [_NON_NEGATIVE],
    "initial_accumulator_value": [_NON_NEGATIVE],
    "momentum_decay": [_NON_NEGATIVE],
    "rho": [(0.0, 1.0, "[]")],
    "betas": [(0.0, 1.0, "[)"), (0.0, 1.0, "[)")],
    "etas": [(0.0, 1.0, "()"), (1.0, math.inf, "()")],
}


def _check_option(name: str, value: Any) -> Any:
    if name not in _RANGES:
        return value
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
    ranges = _RANGES[name]
    parts = [value] if len(ranges) == 1 else value
    checked = []
    for index, (part, (low, high, closed)) in enumerate(zip(parts, ranges, strict=True)):
        label = name if len(ranges) == 1 else f"{name}[{index}]"
        checked.append(check_in_range(part, label, low, high, closed=closed))
    return checked[0] if len(ranges) == 1 else tuple(checked)


class _Optimizer(torch.optim.Optimizer):
    """Hold the loop over the parameters, so that a subclass is only its formula (`_update`)."""

    def __init__(self, params: ParamsT, **options: Any) -> None:
        super().__init__(params, {name: _check_option(name, value) for name, value in options.items()})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient by one step.

        Args:
            closure: recomputes the loss and its gradients; called once, before the step.

        Returns:
            What ``closure`` returned, else None.

        Raises:
            RuntimeError: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._check_gradient(parameter.grad)
                        gradient = -parameter.grad if group["maximize"] else parameter.grad
                        self._update(parameter, gradient, self.state[parameter], group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change ``parameter`` in place, leave in ``state`` what the next step needs; keep ``gradient``."""
        raise NotImplementedError

    def _check_gradient(self, gradient: Tensor) -> None:
        if gradient.layout != torch.strided or gradient.is_complex():
            raise RuntimeError(
                f"{type(self).__name__} needs dense real gradients, got {gradient.layout} of {gradient.dtype}"
            )


class SGD(_Optimizer):
    """Gradient descent, with momentum if asked for.

    ::

        g ← g + weight_decay·θ
        b ← momentum·b + (1 − dampening)·g      (b = g at the first step)
        g ← g + momentum·b if nesterov else b
        θ ← θ − lr·g

    Source: Polyak 1964 (momentum); Nesterov 1983 in the form of Sutskever et al. 2013. Differs, as torch does: they
    carry the velocity −lr·b, so that a changed ``lr`` acts on new gradients alone; here it acts on all of b.

    Args:
        momentum: share of the buffer that is kept, at least 0.
        dampening: share of the new gradient that is left out of the buffer, though not at the first step.
        nesterov: whether to look ahead by one momentum step.

    Raises:
        ValueError: an option is out of range, or ``nesterov`` without momentum or with dampening.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(f"nesterov needs momentum > 0 and dampening = 0, got {momentum!r} and {dampening!r}")
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        gradient = gradient + group["weight_decay"] * parameter
        if momentum != 0:
            buffer = state.get("momentum_buffer")
            buffer = gradient if buffer is None else momentum * buffer + (1 - group["dampening"]) * gradient
            state["momentum_buffer"] = buffer
            gradient = gradient + momentum * buffer if group["nesterov"] else buffer
        parameter.sub_(group["lr"] * gradient)


class Rprop(_Optimizer):
    """Resilient propagation: only the gradient's sign counts, and every weight has a step size of its own.

    ::

        s ← clip(s·η, step_sizes)   η = etas[1] where g·g_prev > 0, etas[0] where it is < 0, else 1;  s = lr at first
        g ← 0 where g·g_prev < 0
        θ ← θ − s·sign(g);  g_prev ← g

    Meant for the gradient of all the data: minibatch noise flips signs, and shrinks steps that were right.

    Source: Riedmiller & Braun 1993, in the variant iRprop− of Igel & Hüsken 2000, as torch does: after a change of
    sign the weight waits for one step; the original takes the last step back.

    Args:
        lr: the first step size, at least 0; later changes of it (a schedule) do nothing.
        etas: factors that shrink, in (0, 1), and grow, above 1, the step sizes.
        step_sizes: the smallest and the largest step size.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        shrink, grow = group["etas"]
        smallest, largest = group["step_sizes"]
        agreement = gradient * state.get("prev", 0.0)
        factor = torch.ones_like(gradient).masked_fill(agreement > 0, grow).masked_fill(agreement < 0, shrink)
        step_size = (state.get("step_size", group["lr"]) * factor).clamp(smallest, largest)
        gradient = gradient.masked_fill(agreement < 0, 0.0)
        parameter.sub_(step_size * gradient.sign())
        state["prev"], state["step_size"] = gradient, step_size


class Adagrad(_Optimizer):
    """Divide by the root of the sum of all squared gradients so far: rare features keep large steps.

    ::

        g ← g + weight_decay·θ
        s ← s + g²      (s = initial_accumulator_value at first)
        θ ← θ − lr / (1 + (t − 1)·lr_decay) · g / (√s + eps)

    Source: Duchi, Hazan & Singer 2011, the diagonal form. Differs: ``eps`` and ``lr_decay`` are torch's. A group may
    override ``initial_accumulator_value``, which torch ignores.

    Args:
        lr_decay: how fast ``lr`` falls over the steps besides, at least 0.
        initial_accumulator_value: at which the sum of squares starts, at least 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        step = state["step"] = int(state.get("step", 0)) + 1
        gradient = gradient + group["weight_decay"] * parameter
        total = state["sum"] = state.get("sum", group["initial_accumulator_value"]) + gradient**2
        lr = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        parameter.sub_(lr * gradient / (total.sqrt() + group["eps"]))


class RMSprop(_Optimizer):
    """Divide by the root of a running mean of the squared gradients: Adagrad that forgets.

    ::

        g ← g + weight_decay·θ
        v ← alpha·v + (1 − alpha)·g²
        a ← alpha·a + (1 − alpha)·g;  v̂ = v − a² if centered else v
        b ← momentum·b + g / (√v̂ + eps)
        θ ← θ − lr·b

    Source: Tieleman & Hinton 2012 (lecture 6e); centered: Graves 2013, eqs. 38-45, who has eps under the root.
    Differs: where rounding makes v − a² negative it counts as 0; torch's weight becomes NaN.

    Args:
        alpha: share of the running means that is kept, at least 0. Above 1 makes no sense, but torch takes it.
        momentum: share of the buffer of steps that is kept, at least 0.
        centered: whether to divide by the standard deviation instead of the root mean square.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        alpha, momentum = group["alpha"], group["momentum"]
        gradient, zero = gradient.add(parameter, alpha=group["weight_decay"]), torch.zeros_like(gradient)
        spread = state["square_avg"] = (alpha * state.get("square_avg", zero)).addcmul(
            gradient, gradient, value=1 - alpha
        )
        if group["centered"]:
            mean = state["grad_avg"] = torch.lerp(state.get("grad_avg", zero), gradient, 1 - alpha)
            spread = spread.addcmul(mean, mean, value=-1).clamp(min=0.0)
        scale = spread.sqrt() + group["eps"]
        if momentum > 0:
            buffer = state["momentum_buffer"] = (momentum * state.get("momentum_buffer", zero)).addcdiv(gradient, scale)
            parameter.add_(buffer, alpha=-group["lr"])
        else:
            parameter.addcdiv_(gradient, scale, value=-group["lr"])


class Adadelta(_Optimizer):
    """Scale the step by the size of recent steps over that of recent gradients: its units are those of θ.

    ::

        g ← g + weight_decay·θ
        v ← rho·v + (1 − rho)·g²
        Δ = g · √(u + eps) / √(v + eps)
        u ← rho·u + (1 − rho)·Δ²
        θ ← θ − lr·Δ

    Source: Zeiler 2012, algorithm 1. Differs: ``lr`` is torch's; the paper has none, which is ``lr=1``.

    Args:
        lr: factor on the step, at least 0.
        rho: share of the running means that is kept, in [0, 1].
        eps: keeps the quotient finite and starts the movement, at least 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rho, eps = group["rho"], group["eps"]
        gradient = gradient + group["weight_decay"] * parameter
        square_avg = state["square_avg"] = rho * state.get("square_avg", 0.0) + (1 - rho) * gradient**2
        acc_delta = state.get("acc_delta", torch.zeros_like(gradient))
        delta = gradient * (acc_delta + eps).sqrt() / (square_avg + eps).sqrt()
        state["acc_delta"] = rho * acc_delta + (1 - rho) * delta**2
        parameter.sub_(group["lr"] * delta)


class Adam(_Optimizer):
    """Momentum over RMSprop's scale, both freed from the bias of their start at 0.

    ::

        g ← g + weight_decay·θ
        m ← β₁·m + (1 − β₁)·g;   m̂ = m / (1 − β₁ᵗ)
        v ← β₂·v + (1 − β₂)·g²;  v̂ = v / (1 − β₂ᵗ)
        θ ← θ − lr·m̂ / (√v̂ + eps)

    With ``amsgrad``, v̂ is made of the largest v so far. Source: Kingma & Ba 2015, algorithm 1; Reddi et al. 2018
    (amsgrad; differs, as torch does: they correct no bias). Integer ``betas`` may be given; torch wants floats.

    Args:
        betas: shares of the two running means that are kept, each in [0, 1).
        weight_decay: factor λ of the penalty λ/2·‖θ‖², at least 0; its gradient is rescaled like the rest.
        amsgrad: whether the scale may only grow.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        self._adam_step(parameter, gradient + group["weight_decay"] * parameter, state, group)

    def _adam_step(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        step = state["step"] = int(state.get("step", 0)) + 1
        mean = state["exp_avg"] = beta1 * state.get("exp_avg", 0.0) + (1 - beta1) * gradient
        square = state["exp_avg_sq"] = beta2 * state.get("exp_avg_sq", 0.0) + (1 - beta2) * gradient**2
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"] = torch.maximum(state.get("max_exp_avg_sq", square), square)
        mean_hat, square_hat = mean / (1 - beta1**step), square / (1 - beta2**step)
        parameter.sub_(group["lr"] * mean_hat / (square_hat.sqrt() + group["eps"]))


class AdamW(Adam):
    """Adam whose weight decay goes past the rescaling: θ ← (1 − lr·weight_decay)·θ, then Adam's step without decay.

    Source: Loshchilov & Hutter 2019, algorithm 2. Differs, as torch does: their decay is not multiplied by ``lr``, only
    by the schedule's factor. The arguments are those of `Adam`; ``weight_decay`` is 0.01 unless given.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        self._adam_step(parameter, gradient, state, group)


class NAdam(_Optimizer):
    """Adam with Nesterov's look ahead: the step mixes in the new gradient as the next momentum step would.

    ::

        g ← g + weight_decay·θ      (decoupled_weight_decay: θ ← (1 − lr·weight_decay)·θ instead)
        μₜ = β₁·(1 − ½·0.96^(t·momentum_decay));  Πₜ = μ₁·…·μₜ
        m ← β₁·m + (1 − β₁)·g
        v ← β₂·v + (1 − β₂)·g²;  v̂ = v / (1 − β₂ᵗ)
        θ ← θ − lr·((1 − μₜ)·g / (1 − Πₜ) + μₜ₊₁·m / (1 − Πₜ₊₁)) / (√v̂ + eps)

    Source: Dozat 2016, algorithm 2. Differs, as torch does: m decays by β₁, not by μₜ. Π is kept in double precision;
    torch keeps it in the default dtype.

    Args:
        betas: shares of the two running means that are kept, each in [0, 1).
        momentum_decay: how fast μ rises from about β₁/2 to β₁, at least 0.
        decoupled_weight_decay: whether the decay goes past the rescaling, as in `AdamW`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["momentum_decay"]
        step = state["step"] = int(state.get("step", 0)) + 1
        if group["decoupled_weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        else:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * decay)) for t in (step, step + 1))
        product = state["mu_product"] = float(state.get("mu_product", 1.0)) * mu
        zero = torch.zeros_like(gradient)
        mean = state["exp_avg"] = torch.lerp(state.get("exp_avg", zero), gradient, 1 - beta1)
        square = state["exp_avg_sq"] = (beta2 * state.get("exp_avg_sq", zero)).addcmul(
            gradient, gradient, value=1 - beta2
        )
        scale = (square / (1 - beta2**step)).sqrt() + group["eps"]
        parameter.addcdiv_(gradient, scale, value=-lr * (1 - mu) / (1 - product))
        parameter.addcdiv_(mean, scale, value=-lr * mu_next / (1 - product * mu_next))
