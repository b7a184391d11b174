"""Penalties on weights and activations, the proximal L1 step, decay groups and label smoothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from course_utils._validation import check_in_range, check_non_negative, check_one_of

__all__ = ["ActivityPenalty", "decay_groups", "l1_penalty", "l2_penalty", "smooth_labels", "soft_threshold_"]

_KINDS = ("kernel", "bias", "norm")


def l1_penalty(model: nn.Module, lam: float, *, kinds: Sequence[str] = ("kernel",)) -> Tensor:
    """Return lam·Σ|w|, a scalar whose gradient is lam·sign(w).

    For `training.fit` fix the strength first: ``penalty=functools.partial(l1_penalty, lam=1e-4)``.

    Args:
        model: whose parameters are penalized; one that is used twice counts once.
        lam: the strength, at least 0.
        kinds: any of ``"kernel"`` (weight matrices), ``"bias"`` and ``"norm"`` (scale and shift of normalization).

    Raises:
        TypeError: ``lam`` is not a number.
        ValueError: ``lam`` is negative, a kind is unknown, or the model has no parameter of these kinds.
    """
    return _penalty(model, lam, kinds, torch.abs)


def l2_penalty(model: nn.Module, lam: float, *, kinds: Sequence[str] = ("kernel",)) -> Tensor:
    """Return lam·Σw², a scalar whose gradient is 2·lam·w: the *squared* norm, without a factor ½.

    Torch's ``weight_decay`` adds weight_decay·w to the gradient, so ``weight_decay=2 * lam`` is the same in
    every optimizer that adds it there (SGD, with momentum too, and Adam). AdamW's is not: it bypasses the gradient.

    Args:
        model: whose parameters are penalized; one that is used twice counts once.
        lam: the strength, at least 0.
        kinds: see `l1_penalty`; torch's ``weight_decay`` on ``model.parameters()`` decays all three.

    Raises:
        TypeError, ValueError: see `l1_penalty`.
    """
    return _penalty(model, lam, kinds, torch.square)


class ActivityPenalty:
    """A penalty on what layers put out instead of on their weights: lam·Σ|a| or lam·Σa², averaged over the batch.

    A context manager, callable as `training.fit` wants it::

        with ActivityPenalty(model, 1e-3, layers=[model[1]]) as penalty:
            fit(model, train, penalty=penalty, ...)

    It looks at the model's last forward pass in training mode. Because of the average over the samples, lam means the
    same at every batch size.

    Args:
        model: whose forward pass is watched.
        lam: the strength, at least 0.
        layers: the modules inside the model whose outputs, of shapes (batch, ...), are penalized.
        norm: ``"l1"`` for Σ|a|, ``"l2"`` for Σa².

    Raises:
        TypeError: ``lam`` is not a number.
        ValueError: ``lam`` is negative or ``norm`` is unknown.
    """

    def __init__(self, model: nn.Module, lam: float, *, layers: Iterable[nn.Module], norm: str = "l1") -> None:
        self.model = model
        self.lam = check_non_negative(lam, "lam")
        self.norm = check_one_of(norm, "norm", ("l1", "l2"))
        self.layers = list(layers)
        self._sums: list[Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> ActivityPenalty:
        self._handles = [self.model.register_forward_pre_hook(self._forget)]
        self._handles += [layer.register_forward_hook(self._record) for layer in self.layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._sums = [], []

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the penalty of the last forward pass, a scalar.

        Raises:
            RuntimeError: there was no forward pass in training mode since the last call.
        """
        if not self._sums:
            raise RuntimeError(
                "no activations recorded: inside the with block, run the model, not compiled, in training mode first"
            )
        total, self._sums = torch.stack(self._sums).sum(), []
        return self.lam * total

    def _forget(self, *_: Any) -> None:
        self._sums = []

    def _record(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training:
            size = output.abs() if self.norm == "l1" else output.square()
            self._sums.append(size.sum() / len(output))


@torch.no_grad()
def soft_threshold_(parameters: Tensor | Iterable[Tensor], amount: float) -> None:
    """Move every value towards 0 by ``amount``, in place, and set to exactly 0 what would cross it.

    This is the proximal step of amount·Σ|w|: done after each optimizer step with ``amount=lr * lam``, in place of
    `l1_penalty`, it gives weights that *are* 0, where the gradient of |w| only makes them jump around it.

    Args:
        parameters: a tensor, or several.
        amount: at least 0.

    Raises:
        TypeError, ValueError: ``amount`` is not a finite number of at least 0.

    Source: Daubechies, Defrise & De Mol 2004 (ISTA).
    """
    check_non_negative(amount, "amount")
    for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
        parameter.copy_(parameter.sign() * (parameter.abs() - amount).clamp(min=0))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups for an optimizer: kernels, which decay, and biases and normalization, which do not.

    Decaying a bias does not make the function smoother, and a scale of 0 would switch a normalized feature off.
    Parameters that are not trained are left out.

    Args:
        model: whose parameters are grouped.
        weight_decay: of the first group, at least 0; in torch's convention (see `l2_penalty`).
    """
    trained = [(parameter, kind) for parameter, kind in _parameters_with_kind(model) if parameter.requires_grad]
    return [
        {"params": [parameter for parameter, kind in trained if kind == "kernel"], "weight_decay": weight_decay},
        {"params": [parameter for parameter, kind in trained if kind != "kernel"], "weight_decay": 0.0},
    ]


def smooth_labels(targets: Tensor, n_classes: int, eps: float, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return soft targets: 1 − eps + eps/n_classes for the true class, eps/n_classes for each other.

    Args:
        targets: (...), integer classes from 0 to n_classes − 1.
        n_classes: at least 1.
        eps: the share spread evenly over *all* classes, the true one included, in [0, 1].
        dtype: of the result; by default torch's default.

    Returns:
        Probabilities, (..., n_classes), that sum to 1; ``F.cross_entropy`` takes them as targets.

    Raises:
        TypeError: the targets are not integers.
        ValueError: ``eps`` is out of range.
        RuntimeError: a target is no class.

    Source: Szegedy et al. 2016, section 7; the convention of ``F.cross_entropy(label_smoothing=eps)``.
    """
    check_in_range(eps, "eps", 0.0, 1.0, closed="[]")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must hold integer classes, got {targets.dtype}")
    one_hot = nn.functional.one_hot(targets.long(), n_classes).to(dtype or torch.get_default_dtype())
    return (1 - eps) * one_hot + eps / n_classes


def _penalty(model: nn.Module, lam: float, kinds: Sequence[str], size: Callable[[Tensor], Tensor]) -> Tensor:
    check_non_negative(lam, "lam")
    for kind in kinds:
        check_one_of(kind, "kinds", _KINDS)
    sums = [size(parameter).sum() for parameter, kind in _parameters_with_kind(model) if kind in kinds]
    if not sums:
        raise ValueError(f"{type(model).__name__} has no parameter to penalize of kinds {tuple(kinds)!r}")
    return lam * torch.stack(sums).sum()


def _parameters_with_kind(model: nn.Module) -> list[tuple[nn.Parameter, str]]:
    """Every parameter once, shared ones too, with what it is to its module."""
    found: dict[int, tuple[nn.Parameter, str]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), (parameter, _kind(module, name, parameter)))
    return list(found.values())


def _kind(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    # A weight that is a vector scales features, whoever's normalization it is; a layer norm's may have more axes.
    # Not getattr: a weight under spectral norm would take a step of its power iteration.
    weight = module._parameters.get("weight")
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) or (weight is not None and weight.ndim < 2):
        return "norm"
    return "bias" if "bias" in name else "kernel" if parameter.ndim >= 2 else "norm"
