"""Checks of the exercises of lesson 03: batch normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from course_utils.homework.engine.compare import brief
from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.verdict import Verdict
from course_utils.reproducibility import make_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES", "check_batch_of_three", "check_batchnorm2d", "check_centre_backward", "check_fold_forward",
    "check_layernorm_backward", "check_quick_and_quiet", "check_update_running",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "3.1 A batch of three",
    "3.2 BatchNorm for pictures",
    "3.3 Running statistics",
    "3.4 Quick and quiet",
    "3.5 Backward through the mean",
    "3.6 Fold the other way",
    "3.7 LayerNorm, backward",
)


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def check_batch_of_three(answer: Any) -> Verdict:
    """Judge what BatchNorm makes of the third of the values 0, 0 and 6000, a number."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=2**0.5,
        rtol=5e-3,
        right="Yes, and with 6 in place of 6000 it would be the same: in a batch of n no value gets beyond √(n − 1).",
        hint="this is not it: write down the mean, the three deviations from it, and the mean of their squares",
        mistakes=[
            (2 / 3**0.5, "the variance of a batch divides by n; you divided by n − 1"),
            (-(2**0.5), "the third value lies above the mean: what does that say about the sign?"),
            (1, "±1 holds for a batch of two; with three values the mean lies nearer to the pair"),
            (4000, "you subtracted the mean and left the standard deviation out"),
            (6000, "this is the value as it came in: neither mean nor standard deviation has been used"),
            (3 / 2**0.5, "you divided by the standard deviation, but did not subtract the mean first"),
            (4000 / 8e6, "you divided by the variance; BatchNorm divides by its square root"),
            (0, "zero is what the batch's mean becomes, and the third value does not lie there"),
            (-(0.5**0.5), "this is what the two zeros become; the question is about the third value"),
        ],
    )


def _norm2d(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    *,
    axes: tuple[int, ...] = (0, 2, 3),
    correction: int = 0,
    root: str = "around both",
    last_axis: bool = False,
    affine: bool = True,
) -> Tensor:
    var = x.var(dim=axes, correction=correction, keepdim=True)
    roots = {"around both": var + eps, "no eps": var, "fixed eps": var + 1e-5}
    std = {"around one": var.sqrt() + eps, "none": var + eps}.get(root, roots.get(root, var).sqrt())
    x_hat = (x - x.mean(dim=axes, keepdim=True)) / std
    shape = (-1,) if last_axis else (1, -1, 1, 1)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape) if affine else x_hat


def check_batchnorm2d(student: Any) -> Verdict:
    """Check ``batchnorm2d(x, gamma, beta, eps)``, training mode, for x of shape (n, channels, height, width)."""
    generator, cases = make_generator(3), []
    # As many channels as pixels in a row, so that γ along the wrong axis gives a wrong value and not only an error.
    for shape, eps in (((5, 4, 3, 4), 1e-5), ((2, 3, 3, 3), 0.1), ((8, 2, 1, 2), 1e-3), ((1, 3, 2, 3), 0.5)):
        x = 0.5 * _draw(generator, *shape) + 2 * _draw(generator, shape[1], 1, 1)
        cases.append((x, _draw(generator, shape[1]), _draw(generator, shape[1]), eps))
    constant = cases[2][0].clone()
    constant[:, 0] = 3.0
    cases.append((constant, *cases[2][1:]))
    says: dict[str, dict[str, Any]] = {
        "you divided by the number of values minus one: normalization takes the biased variance": {"correction": 1},
        "each picture gets its own mean: that is InstanceNorm; the samples belong together": {"axes": (2, 3)},
        "you averaged over the samples only: the pixels of a channel share their mean": {"axes": (0,)},
        "all channels share one mean: that is LayerNorm": {"axes": (1, 2, 3)},
        "one mean for everything: which axis must keep statistics of its own?": {"axes": (0, 1, 2, 3)},
        "ε stands outside the root: it is added to the variance": {"root": "around one"},
        "you divided by the variance: the square root is missing": {"root": "none"},
        "ε is missing: a channel without variance gives NaN": {"root": "no eps"},
        "the argument eps is not used": {"root": "fixed eps"},
        "γ and β run along the width, the last axis: they belong to the channels": {"last_axis": True},
        "γ and β are not used": {"affine": False},
    }
    return judge(
        student,
        exercise=EXERCISES[1],
        reference=lambda x, gamma, beta, eps: functional.batch_norm(x, None, None, gamma, beta, training=True, eps=eps),
        cases=cases,
        right="Right: it equals torch's. One mean a channel, over samples and pixels, also for a batch of one picture.",
        mistakes=[Mistake(sentence, partial(_norm2d, **options)) for sentence, options in says.items()],
    )


def _torch_running(mean: Tensor, var: Tensor, x: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    mean, var = mean.clone(), var.clone()
    functional.batch_norm(x, mean, var, training=True, momentum=momentum)
    return mean, var


def _running(
    mean: Tensor,
    var: Tensor,
    x: Tensor,
    momentum: float,
    *,
    correction: int = 1,
    old: str = "1 - momentum",
    power: float = 1.0,
    around: str = "batch",
) -> tuple[Tensor, Tensor]:
    keep = {"1 - momentum": 1 - momentum, "momentum": momentum, "1": 1.0}[old]
    new = 1 - momentum if old == "momentum" else momentum
    batch_var = x.var(dim=0, correction=correction)
    new_mean = keep * mean + new * x.mean(dim=0)
    if around == "running":
        batch_var = ((x - new_mean) ** 2).sum(dim=0) / (len(x) - 1)
    return new_mean, (keep * var**power + new * batch_var**power) ** (1 / power)


def check_update_running(student: Any) -> Verdict:
    """Check ``update_running(running_mean, running_var, x, momentum)`` for x of shape (n, features)."""
    generator, cases = make_generator(4), []
    for n, features, momentum in ((6, 3, 0.1), (2, 4, 0.3), (30, 1, 0.01), (5, 2, 1.0)):
        x = 2 * _draw(generator, n, features) + 5
        cases.append((_draw(generator, features), _draw(generator, features).abs() + 0.5, x, momentum))
    return judge(
        student,
        exercise=EXERCISES[2],
        reference=_torch_running,
        cases=cases,
        names=("running mean", "running variance"),
        right="Right: both buffers are torch's, to the last digit that counts.",
        mistakes=[
            Mistake(
                "the running variance takes the batch's unbiased variance (divided by n − 1); only the output uses the "
                "biased one",
                partial(_running, correction=0),
            ),
            Mistake(
                "`momentum` stands at the old value; in torch it is the share of the new batch",
                partial(_running, old="momentum"),
            ),
            Mistake(
                "`momentum` stands at the old value, and the variance is the biased one: two things to look at",
                partial(_running, old="momentum", correction=0),
            ),
            Mistake(
                "the old value keeps its full weight: the two weights must add up to 1", partial(_running, old="1")
            ),
            Mistake("you averaged standard deviations; torch averages variances", partial(_running, power=0.5)),
            Mistake(
                "the batch's variance is taken around the running mean: it belongs around the batch's own mean",
                partial(_running, around="running"),
            ),
            Mistake(
                "only the batch counts, the old values are forgotten: that is momentum = 1",
                lambda mean, var, x, momentum: (x.mean(dim=0), x.var(dim=0)),
            ),
            Mistake(
                "the two results are swapped: first the mean, then the variance",
                lambda *arguments: _torch_running(*arguments)[::-1],
            ),
        ],
    )


_GOAL_BATCHES, _GOAL_SHARE = 20, 0.99


def _progress_of_running_mean(momentum: float) -> list[float]:
    """Which share of the way from 0 to the true mean the running mean has made after each of 60 batches."""
    running_mean, running_var = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    batch, shares = torch.tensor([[4.0], [6.0]], dtype=torch.float64), []
    for _ in range(60):
        functional.batch_norm(batch, running_mean, running_var, training=True, momentum=momentum)
        shares.append(running_mean.item() / 5)
    return shares


def check_quick_and_quiet(momentum: Any) -> Verdict:
    """Judge a momentum that brings the running mean to 99% within 20 batches, and is no larger than that takes."""
    exercise = EXERCISES[3]
    if momentum is None or not_attempted(momentum):
        return Verdict(exercise, "todo", "not attempted yet")

    def wrong(message: str) -> Verdict:
        return Verdict(exercise, "wrong", message, got=brief(momentum))

    if isinstance(momentum, bool) or not isinstance(momentum, Real):
        return wrong("the answer is one number, a momentum")
    value = float(momentum)
    if not 0 < value <= 1:
        return wrong("a momentum lies between 0 and 1: it is the share of the new batch")
    shares = _progress_of_running_mean(value)
    arrival = next((batch for batch, share in enumerate(shares, start=1) if share >= _GOAL_SHARE), 61)
    flipped = next((b for b, s in enumerate(_progress_of_running_mean(1 - value), 1) if s >= _GOAL_SHARE), 61)
    if flipped == _GOAL_BATCHES:
        return wrong("this is the share of the *old* value; torch's momentum is the share of the new batch")
    if arrival > _GOAL_BATCHES:
        return wrong(f"too slow: after {_GOAL_BATCHES} batches it has made {shares[_GOAL_BATCHES - 1]:.1%} of the way")
    if arrival < _GOAL_BATCHES:
        return wrong(f"in time, but already with batch {arrival}: a smaller momentum would still do, and be quieter")
    right = f"Yes: there after {_GOAL_BATCHES} batches, and no noisier than that takes. Torch's 0.1 takes 44."
    return Verdict(exercise, "right", right, figure=partial(_draw_arrival, value))


def _draw_arrival(momentum: float) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    fig, ax = plt.subplots(figsize=(7, 2.8))
    for index, value in enumerate((0.1, momentum, 0.6)):
        noise = (value / (2 - value)) ** 0.5
        label = f"momentum {value:g}, noise {noise:.2f}"
        ax.plot(range(61), [0.0, *_progress_of_running_mean(value)], label=label, color=style(index)["color"])
    ax.axvline(_GOAL_BATCHES, color="0.5", linestyle=":", linewidth=1)
    ax.set(xlabel="batches", ylabel="share of the way", xlim=(0, 50), title="Noise: in units of one batch's")
    ax.legend(loc="lower right")
    return fig, (
        "The running mean's way to the true mean: with momentum 0.1 it takes 44 batches, with yours 20 (dotted), with "
        "0.6 six; the noise that remains grows with the momentum."
    )


def _through_centring(grad_out: Tensor) -> Tensor:
    x = torch.zeros_like(grad_out, requires_grad=True)
    return torch.autograd.grad(x - x.mean(dim=0), x, grad_out)[0]


def check_centre_backward(student: Any) -> Verdict:
    """Check ``centre_backward(grad_out)``: the gradient by x where out = x − mean of x over the batch."""
    generator = make_generator(5)
    cases = [(_draw(generator, *shape) + 1,) for shape in ((5, 3), (2, 2), (7, 7), (1, 4))]
    says: dict[str, Callable[[Tensor], Tensor]] = {
        "only the direct way: a nudge of x also moves the mean, and with it every row": lambda g: g * 1.0,
        "the mean over the features: each was centred over the batch": lambda g: g - g.mean(dim=1, keepdim=True),
        "one mean for all features: each was centred by itself": lambda g: g - g.mean(),
        "the sum over the batch: x enters the mean with the factor 1/n": lambda g: g - g.sum(dim=0),
        "the way through the mean has the wrong sign: the mean is subtracted": lambda g: g + g.mean(dim=0),
        "only the way through the mean: the direct way is missing": lambda g: -g.mean(dim=0).expand_as(g),
        "each row's own output is not enough: the mean moves all rows": lambda g: g * (1 - 1 / len(g)),
    }
    return judge(
        student,
        exercise=EXERCISES[4],
        reference=_through_centring,
        cases=cases,
        right="Right, and a batch of one gets no gradient at all: it is its own mean.",
        mistakes=[Mistake(sentence, answer) for sentence, answer in says.items()],
    )


def _probe_fold(
    weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The affine map found by asking: its values at 0 and at the unit vectors."""

    def both(x: Tensor) -> Tensor:
        return functional.linear(
            functional.batch_norm(x, mean, var, gamma, beta, training=False, eps=eps), weight, bias
        )

    at_zero = both(torch.zeros(1, len(mean), dtype=mean.dtype))
    return (both(torch.eye(len(mean), dtype=mean.dtype)) - at_zero).T, at_zero[0]


def _fold(
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    *,
    wrong: str,
) -> tuple[Tensor, Tensor]:
    added = 0.0 if wrong == "no eps" else eps
    scale = gamma / (var + added) if wrong == "no root" else gamma / (var + added).sqrt()
    shift = {"unscaled mean": beta - mean, "no mean": beta, "sign": beta + scale * mean}.get(wrong, beta - scale * mean)
    new_weight = weight * (scale[:, None] if wrong == "rows" else scale)
    if wrong == "as behind":  # the lesson's formula, for a BatchNorm that follows the layer
        return weight * scale[:, None], (bias - mean) * scale + beta
    start = 0.0 if wrong == "no bias" else bias
    carried = {"not carried": shift, "scaled twice": new_weight @ shift}.get(wrong, weight @ shift)
    return (new_weight.T if wrong == "transposed" else new_weight), start + carried


def check_fold_forward(student: Any) -> Verdict:
    """Check ``fold_forward(weight, bias, gamma, beta, mean, var, eps)``: BatchNorm into the layer behind it."""
    generator, cases = make_generator(6), []
    for size, eps in ((4, 1e-5), (3, 0.2), (1, 1e-3), (6, 1e-5)):  # square: rows and columns can be mixed up
        weight, (bias, gamma, beta, mean) = _draw(generator, size, size), _draw(generator, 4, size)
        cases.append((weight, bias, gamma, beta, mean, _draw(generator, size) ** 2 + 0.05, eps))
    says = {
        "as behind": "this is the lesson's formula, for a BatchNorm that follows the layer: here it comes before, so "
        "each *input* has its scale",
        "rows": "the rows of the weight are scaled; a row belongs to an output, and BatchNorm scaled the inputs",
        "not carried": "the shift goes straight into the bias: on its way it passes through the weight",
        "scaled twice": "the shift is scaled twice: it already contains s when it meets the *old* weight",
        "no mean": "the running mean is missing in the new bias",
        "unscaled mean": "the mean enters the bias unscaled: it was subtracted before the scaling",
        "sign": "the mean is subtracted, not added",
        "no bias": "the layer's own bias is lost",
        "no root": "divide by the standard deviation: a square root is missing",
        "no eps": "ε is missing under the root",
        "transposed": "the new weight is transposed: its shape is (out, in), like the old one's",
    }
    return judge(
        student,
        exercise=EXERCISES[5],
        reference=_probe_fold,
        cases=cases,
        names=("weight", "bias"),
        right="Right: a BatchNorm *after* the ReLU can be folded too, into the layer behind it.",
        mistakes=[Mistake(sentence, partial(_fold, wrong=name)) for name, sentence in says.items()],
    )


def _layernorm_by_autograd(grad_out: Tensor, x: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), gamma.clone().requires_grad_(), torch.zeros_like(gamma).requires_grad_()]
    out = functional.layer_norm(leaves[0], gamma.shape, leaves[1], leaves[2], eps)
    return torch.autograd.grad(out, leaves, grad_out)


def _layernorm_backward(
    grad_out: Tensor, x: Tensor, gamma: Tensor, eps: float, *, wrong: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = 0 if wrong == "batch statistics" else 1
    axis = 0 if wrong in ("batch statistics", "batch axis") else 1
    correction = 1 if wrong == "unbiased" else 0
    std = (x.var(dim=statistics, correction=correction, keepdim=True) + eps).sqrt()
    x_hat = (x - x.mean(dim=statistics, keepdim=True)) / std
    g = grad_out if wrong in ("gamma outside", "no gamma") else grad_out * gamma
    through_mean, through_var = g.mean(dim=axis, keepdim=True), x_hat * (g * x_hat).mean(dim=axis, keepdim=True)
    inner = {"direct": g, "no variance": g - through_mean, "no mean": g - through_var}
    grad_x = inner.get(wrong, g - through_mean - through_var) / std
    if wrong == "no std":
        grad_x = grad_x * std
    summed = 1 if wrong == "summed over features" else 0
    grad_gamma, grad_beta = (grad_out * x_hat).sum(dim=summed), grad_out.sum(dim=summed)
    if wrong == "means":
        grad_gamma, grad_beta = grad_gamma / len(x), grad_beta / len(x)
    return (gamma * grad_x if wrong == "gamma outside" else grad_x), grad_gamma, grad_beta


def check_layernorm_backward(student: Any) -> Verdict:
    """Check ``layernorm_backward(grad_out, x, gamma, eps)``, which gives the gradients by x, γ and β."""
    generator, cases = make_generator(7), []
    for n, features, eps in ((4, 5, 1e-5), (3, 3, 0.1), (2, 8, 1e-5), (6, 2, 1e-2)):
        grad_out, x = _draw(generator, 2, n, features)
        cases.append((grad_out, 2 * x + 1, _draw(generator, features), eps))
    says = {
        "gamma outside": "γ stands outside the means. In BatchNorm it may, since it is the same for all that share a "
        "mean; here it differs within one",
        "no gamma": "the gradient must pass γ before it reaches the standardized values",
        "batch statistics": "this is BatchNorm: LayerNorm's mean and variance run over the features of one sample",
        "batch axis": "forward over the features, but the backward means run over the batch",
        "direct": "only the direct way: mean and variance of the sample move too",
        "no variance": "the way through the variance is missing",
        "no mean": "the way through the mean is missing",
        "no std": "the division by the standard deviation is missing",
        "unbiased": "the variance divides by the number of features, not by one less",
        "summed over features": "γ and β have one number a feature: sum their gradients over the samples",
        "means": "the gradients of γ and β are sums over the samples, not means",
    }
    return judge(
        student,
        exercise=EXERCISES[6],
        reference=_layernorm_by_autograd,
        cases=cases,
        names=("gradient by x", "gradient by γ", "gradient by β"),
        right="Right: all three equal autograd's. Same three ways as in BatchNorm, along the other axis.",
        mistakes=[Mistake(sentence, partial(_layernorm_backward, wrong=name)) for name, sentence in says.items()],
    )
