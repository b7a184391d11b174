"""Batch normalization and dropout from scratch, and folding a normalization into the layer before it."""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from course_utils._validation import check_in_range

__all__ = [
    "BatchNorm1d",
    "BatchNormCache",
    "Dropout",
    "batchnorm_backward",
    "batchnorm_forward",
    "dropout",
    "fold_batchnorm",
]


class BatchNormCache(NamedTuple):
    """What the forward pass keeps: for the backward pass the first three, for running statistics the others.

    Attributes:
        x_hat: (batch, features), the standardized input.
        inv_std: (features,), 1/√(var + eps).
        gamma: (features,), the scale.
        mean: (features,), mean of the batch.
        var: (features,), variance of the batch, divided by the batch size (biased).
    """

    x_hat: Tensor
    inv_std: Tensor
    gamma: Tensor
    mean: Tensor
    var: Tensor


def batchnorm_forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> tuple[Tensor, BatchNormCache]:
    """Standardize every feature over the batch, then scale and shift: gamma·(x − mean)/√(var + eps) + beta.

    Args:
        x: (batch, features), floating-point, a batch of at least 2.
        gamma: (features,), the scale.
        beta: (features,), the shift.
        eps: added to the variance, so that a constant feature becomes 0 and not NaN.

    Returns:
        The output, (batch, features), and what `batchnorm_backward` needs.

    Raises:
        ValueError: a shape does not fit, or the batch has fewer than two samples.

    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    if x.ndim != 2:
        raise ValueError(f"x must have shape (batch, features), got {tuple(x.shape)}")
    _check_two_samples(x)
    for name, vector in {"gamma": gamma, "beta": beta}.items():
        if vector.shape != x.shape[1:]:
            shapes = f"({x.shape[1]},) for x of shape {tuple(x.shape)}, got {tuple(vector.shape)}"
            raise ValueError(f"{name} must have shape {shapes}")
    mean = x.mean(dim=0)
    var = x.var(dim=0, correction=0)
    inv_std = 1 / torch.sqrt(var + eps)
    x_hat = (x - mean) * inv_std
    return gamma * x_hat + beta, BatchNormCache(x_hat, inv_std, gamma, mean, var)


def batchnorm_backward(grad_out: Tensor, cache: BatchNormCache) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the loss by the input, by gamma and by beta.

    With g the gradient by the standardized input x̂: (1/σ)·[g − mean(g) − x̂·mean(g·x̂)], means over the batch. The
    two means are how every sample reaches the others, through the batch's mean and through its variance.

    Args:
        grad_out: (batch, features), gradient of the loss by the output.
        cache: from `batchnorm_forward`.

    Returns:
        Gradients of shapes (batch, features), (features,), (features,).

    Source: Ioffe & Szegedy 2015, section 3, simplified.
    """
    grad_gamma = (grad_out * cache.x_hat).sum(dim=0)
    grad_beta = grad_out.sum(dim=0)
    g = grad_out * cache.gamma
    grad_x = cache.inv_std * (g - g.mean(dim=0) - cache.x_hat * (g * cache.x_hat).mean(dim=0))
    return grad_x, grad_gamma, grad_beta


class _BatchNorm(torch.autograd.Function):
    """Hands `batchnorm_backward` to autograd; also returns the batch's mean and variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        out, cache = batchnorm_forward(x, gamma, beta, eps)
        ctx.save_for_backward(*cache)
        ctx.mark_non_differentiable(cache.mean, cache.var)
        return out, cache.mean, cache.var

    @staticmethod
    @once_differentiable  # x̂ is saved as a number: a second derivative through it would be silently wrong
    def backward(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *batchnorm_backward(grad_out, BatchNormCache(*ctx.saved_tensors)), None


def _batchnorm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    out, mean, var = _BatchNorm.apply(x, gamma, beta, eps)  # type: ignore[no-untyped-call]  # torch's apply
    return out, mean, var


class BatchNorm1d(nn.Module):
    """Batch normalization with torch's arguments, buffers and state dict, trained by `batchnorm_backward`.

    In training mode a feature is standardized by mean and variance of the batch, in evaluation mode by running
    averages of them; without running averages, by those of the batch in both modes.

    Args:
        num_features: width of the input, at least 1.
        eps: added to the variance, at least 0.
        momentum: weight of the *new* batch in the running averages, in [0, 1]; ``None`` averages all batches alike.
        affine: whether to learn a scale ``weight`` and a shift ``bias`` (gamma and beta in formulas).
        track_running_stats: whether to keep the buffers ``running_mean``, ``running_var`` (unbiased: divided by
            batch size − 1) and ``num_batches_tracked``.

    Source: Ioffe & Szegedy 2015; ``torch.nn.BatchNorm1d``, whose results it equals. Differs: it has no second
    derivative, no ``device`` or ``dtype`` argument, and no unbatched input.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", torch.ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def extra_repr(self) -> str:
        """Return the arguments, as ``print(model)`` shows them."""
        return (
            f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized input; in training mode also update the running statistics.

        Args:
            x: (batch, num_features), or (batch, num_features, length), where batch and length are averaged over.

        Raises:
            ValueError: ``x`` has another shape, or the batch's statistics are asked of a single value per feature.
        """
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            width = self.num_features
            raise ValueError(f"x must have shape (batch, {width}) or (batch, {width}, length), got {tuple(x.shape)}")
        if x.ndim == 2:
            return self._normalize(x)
        rows = x.transpose(1, 2).flatten(0, 1)  # every position of every sample is a row
        return self._normalize(rows).reshape(len(x), x.shape[2], self.num_features).transpose(1, 2)

    def _normalize(self, x: Tensor) -> Tensor:
        gamma = x.new_ones(self.num_features) if self.weight is None else self.weight
        beta = x.new_zeros(self.num_features) if self.bias is None else self.bias
        if not self.training and self.running_mean is not None and self.running_var is not None:
            x_hat = (x - self.running_mean) / torch.sqrt(self.running_var + self.eps)
            return gamma * x_hat + beta
        out, mean, var = _batchnorm(x, gamma, beta, self.eps)
        if self.training:
            self._update_running_statistics(mean, var, n_samples=len(x))
        return out

    def _update_running_statistics(self, mean: Tensor, var: Tensor, n_samples: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = var * n_samples / (n_samples - 1)
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (unbiased - self.running_var)


def dropout(x: Tensor, p: float, *, training: bool, generator: torch.Generator | None = None) -> Tensor:
    """Set each value to 0 with probability p and divide the others by 1 − p; outside training return ``x`` itself.

    The division keeps every expected value what it was, so that nothing has to be rescaled at evaluation ("inverted"
    dropout). The gradient by the input is multiplied by the same mask, 0 or 1/(1 − p).

    Args:
        x: any shape, floating-point.
        p: probability of being *dropped*, as in torch, in [0, 1]; at 1 everything becomes 0.
        training: whether to drop.
        generator: draws the mask, on the device of ``x``; by default torch's global one, which gives on the CPU
            the mask of ``F.dropout``.

    Raises:
        ValueError: ``p`` lies outside [0, 1].

    Source: Srivastava et al. 2014, section 10 (the scaling while training).
    """
    check_in_range(p, "p", 0.0, 1.0, closed="[]")
    if not training or p == 0:
        return x
    kept = torch.empty_like(x).bernoulli_(1 - p, generator=generator)
    return x * (kept if p == 1 else kept / (1 - p))


class Dropout(nn.Module):
    """`dropout` as a layer: random in training mode, the identity in evaluation mode.

    Args:
        p: probability of being dropped, in [0, 1].
        generator: draws the masks; by default torch's global one.

    Raises:
        TypeError, ValueError: ``p`` is no number in [0, 1].
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.p = check_in_range(p, "p", 0.0, 1.0, closed="[]")
        self.generator = generator

    def extra_repr(self) -> str:
        """Return the argument, as ``print(model)`` shows it."""
        return f"p={self.p:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with dropped values in training mode, else the input; shapes (...) both."""
        return dropout(x, self.p, training=self.training, generator=self.generator)


@torch.no_grad()
def fold_batchnorm(model: nn.Sequential) -> nn.Sequential:
    """Return a copy in evaluation mode whose BatchNorm layers are folded into the linear layers before them.

    In evaluation mode BatchNorm is an affine map with fixed numbers, and an affine map after ``nn.Linear`` is again
    one: its rows are scaled by s = gamma/√(running_var + eps), its bias b becomes (b − running_mean)·s + beta. The
    outputs for inputs of shape (batch, features) stay the same up to rounding. The place of a folded BatchNorm is
    taken by ``nn.Identity``, so that names and positions of the other layers stay.

    Folded is each BatchNorm1d, torch's or ours, that directly follows an ``nn.Linear`` in a Sequential; Sequentials
    inside the model are searched too. Left as they are: BatchNorm after an activation or anything else that is
    not ``nn.Linear``, and BatchNorm without running statistics, which has no fixed numbers.

    Args:
        model: a Sequential, such as `models.MLP`; it is not changed.

    Raises:
        ValueError: there is nothing to fold.
    """
    folded = copy.deepcopy(model).eval()  # a spectral norm would otherwise move on as its weight is read
    n_folded = 0
    for sequence in folded.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for index, (linear, norm) in enumerate(itertools.pairwise(list(sequence))):
            if isinstance(linear, nn.Linear) and _has_fixed_statistics(norm):
                sequence[index] = _merge(linear, norm)
                sequence[index + 1] = nn.Identity()
                n_folded += 1
    if n_folded == 0:
        raise ValueError("nothing to fold: no BatchNorm1d with running statistics directly follows an nn.Linear")
    return folded


def _has_fixed_statistics(module: nn.Module | None) -> bool:
    return isinstance(module, BatchNorm1d | nn.BatchNorm1d) and module.running_mean is not None


def _merge(linear: nn.Linear, norm: Any) -> nn.Linear:
    """Return a new layer that does both; a new one, since the old may stand at a second place in the model."""
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean * scale
    if linear.bias is not None:
        bias = bias + linear.bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    # A plain nn.Linear(...) would draw weights, and with that shift everyone's random stream.
    merged: nn.Linear = nn.utils.skip_init(
        nn.Linear, linear.in_features, linear.out_features, device=bias.device, dtype=bias.dtype
    )
    merged.weight.copy_(linear.weight * scale[:, None])
    merged.bias.copy_(bias)
    return merged


def _check_two_samples(x: Tensor) -> None:
    if len(x) < 2:
        raise ValueError(
            f"batch statistics need at least 2 values per feature, got x of shape {tuple(x.shape)}; "
            "for a single sample call model.eval(), in training drop an incomplete last batch"
        )
