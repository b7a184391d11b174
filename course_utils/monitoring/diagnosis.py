"""Judge each layer of a network, healthy or in which way ill, by one forward and backward pass."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from course_utils.monitoring.hooks import (
    SATURATION_TOL,
    Call,
    asymptotes,
    by_unit,
    dead_share,
    inner_modules,
    is_activation,
    saturated_share,
    trace,
    unwrap,
    weights_of,
)
from course_utils.monitoring.nonfinite import NonFinite, first_nonfinite

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Diagnosis", "LayerVerdict", "diagnose"]

# Limits of the gradient reach (see `diagnose`), each halfway (on a log scale) between networks that train and networks
# that do not, the same on random data and on Fashion-MNIST. Lowest that trains: 2.4e-3 (tanh, ten layers, torch's
# default initialization); highest that stalls: 2e-4 (ReLU, likewise). Highest that trains: 6.4 (ReLU with BatchNorm,
# ten layers); lowest that overflows: 25 (ReLU, ten layers, N(0, 0.2²)).
VANISHING_BELOW = 1e-3
EXPLODING_ABOVE = 12.0
# ReLU with He initialization, thirty layers deep, has up to 0.4 dead units in a batch and trains.
DEAD_ABOVE = 0.6
# A sigmoid layer that learns well has up to 0.68 (on pixels); tanh with weights from N(0, 1) has 0.82 and stalls.
SATURATED_ABOVE = 0.75

# Worst first: a verdict further up makes those below it meaningless for the same layer.
_VERDICTS = ("NaN", "dead", "saturated", "exploding", "vanishing", "healthy")
_COLORS = {"NaN": "black", "dead": "purple", "saturated": "amber", "exploding": "orange", "vanishing": "sky"}
_MARKERS = {"NaN": "X", "dead": "s", "saturated": "D", "exploding": "^", "vanishing": "v", "healthy": "o"}


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict on one layer.

    Attributes:
        name: the layer, as in ``model.named_modules()``.
        verdict: ``"healthy"``, ``"vanishing"``, ``"exploding"``, ``"dead"``, ``"saturated"`` or ``"NaN"``.
        measure: which number decided: ``"gradient_reach"``, ``"dead"``, ``"saturated"``, ``"nonfinite"`` (the share of
            entries of weight, output and gradients that are not finite); ``"frozen"`` or ``"no_error"`` where there
            is no gradient to judge.
        value: that number.
        threshold: the limit that it crossed, or for a healthy layer the one it keeps from below.
        advice: what to try, in a few words; empty for a healthy layer.
        numbers: everything measured of the layer, by name; NaN where it does not apply.
    """

    name: str
    verdict: str
    measure: str
    value: float
    threshold: float
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def reading(self) -> str:
        """The deciding number in words."""
        words = {
            "gradient_reach": f"gradient is {_short(self.value)} × the output error",
            "dead": f"{self.value:.0%} of the units give 0 for every sample",
            "saturated": f"{self.value:.0%} of the activations sit at an asymptote",
            "nonfinite": f"{self.value:.0%} of its numbers are NaN or infinite",
            "frozen": "its weight and all before it are frozen",
            "no_error": "no error at the output, nothing to learn",
        }
        return words[self.measure]


def _short(number: float) -> str:
    return f"{number:.0f}" if 10 <= number < 10_000 else f"{number:.2g}"


@dataclass(frozen=True)
class Diagnosis:
    """The verdicts on all layers, in the order of execution. Prints as aligned text, shows as a table in a notebook.

    Attributes:
        layers: one verdict per layer.
        loss: the loss on the batch.
        first_nonfinite: where NaN or infinity begins, if anywhere.
    """

    layers: list[LayerVerdict]
    loss: float
    first_nonfinite: NonFinite | None = None

    @property
    def healthy(self) -> bool:
        """Whether every layer is healthy and everything is finite."""
        return self.first_nonfinite is None and all(layer.verdict == "healthy" for layer in self.layers)

    @property
    def worst(self) -> LayerVerdict:
        """The layer to look at first, of the gravest verdict, and of those the one farthest from its limit."""
        gravest = min(self.layers, key=lambda layer: _VERDICTS.index(layer.verdict)).verdict
        candidates = [layer for layer in self.layers if layer.verdict == gravest]
        if gravest == "NaN" and self.first_nonfinite is not None:
            begins = self.first_nonfinite.name or "model"
            return next((layer for layer in candidates if layer.name == begins), candidates[0])
        low_is_bad = gravest in ("vanishing", "healthy")
        # min and max take the first of equals, which is the one nearest to the input.
        return (min if low_is_bad else max)(candidates, key=lambda layer: layer.value)

    @property
    def summary(self) -> str:
        """The diagnosis in a sentence."""
        counts = Counter(layer.verdict for layer in self.layers)
        if self.first_nonfinite is not None:
            return f"NaN: {self.first_nonfinite}."
        if self.healthy:
            return f"All {len(self.layers)} layers are healthy."
        found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _VERDICTS[:-1] if counts[verdict])
        return f"{len(self.layers)} layers, {found}; look at {self.worst.name} first."

    def __str__(self) -> str:
        cells = [("layer", "verdict", "measured", "what to try")]
        cells += [(layer.name, layer.verdict, layer.reading, layer.advice) for layer in self.layers]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in cells]
        return "\n".join([self.summary, "", *(line.rstrip() for line in lines)])

    __repr__ = __str__

    def to_frame(self) -> pd.DataFrame:
        """Return a table, one row per layer: verdict, deciding number, limit, advice, then all numbers measured."""
        import pandas as pd

        rows = [
            {"verdict": v.verdict, "measure": v.measure, "value": v.value, "threshold": v.threshold, "advice": v.advice}
            | v.numbers
            for v in self.layers
        ]
        return pd.DataFrame(rows, index=pd.Index([v.name for v in self.layers], name="layer"))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(v.name)}</td><td><b>{v.verdict}</b></td><td>{html.escape(v.reading)}</td>"
            f"<td>{html.escape(v.advice)}</td></tr>"
            for v in self.layers
        )
        head = "<tr><th>layer</th><th>verdict</th><th>measured</th><th>what to try</th></tr>"
        return f"<p>{html.escape(self.summary)}</p><table>{head}{rows}</table>"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient reach over depth with the healthy range shaded; markers show the verdicts.

        Args:
            ax: where to draw; ``None`` makes a new figure.
        """
        import matplotlib.pyplot as plt

        from course_utils.plotting import COLORS

        if ax is None:
            ax = plt.subplots()[1]
        depth = range(1, len(self.layers) + 1)
        reach = torch.tensor([layer.numbers["gradient_reach"] for layer in self.layers], dtype=torch.float64)
        # A reach of 0 or NaN has no place on a log axis; it is drawn at the edge, and its marker tells which it is.
        shown = reach.nan_to_num(nan=1e-12, posinf=1e12).clamp(1e-12, 1e12).tolist()
        ax.axhspan(VANISHING_BELOW, EXPLODING_ABOVE, color=COLORS["green"], alpha=0.12, linewidth=0)
        ax.plot(depth, shown, color=COLORS["grey"], linewidth=1.0)
        for verdict in _VERDICTS:
            points = [(x, y) for x, y, v in zip(depth, shown, self.layers, strict=True) if v.verdict == verdict]
            if points:
                color = COLORS[_COLORS.get(verdict, "green")]
                ax.scatter(*zip(*points, strict=True), color=color, marker=_MARKERS[verdict], label=verdict, zorder=3)
        ax.set_yscale("log")
        ax.set_xticks(depth, [layer.name for layer in self.layers], rotation=45, ha="right")
        ax.set(ylabel="gradient / output error")
        ax.legend(loc="best")
        return ax


def diagnose(model: nn.Module, batch: Sequence[Any], loss_fn: Callable[[Any, Any], Tensor]) -> Diagnosis:
    """Run one forward and backward pass on a batch, and judge every layer that it calls.

    The number that tells vanishing from exploding is the *gradient reach* of a layer, ::

        reach = ‖∂L/∂z‖ / ‖∂L/∂z_out‖ · RMS(x)

    with x what enters the layer, z what leaves it and z_out what leaves the last layer, over the whole batch. For a
    linear layer it is the size of one sample's weight gradient (which is ∂L/∂z xᵀ), per unit of error at the output
    and per input. Unlike the norm of the batch's gradient it does not shrink as the loss does or as samples cancel, so
    a trained network is not taken for a vanishing one; and it sees the whole network shrink at once, where the ratio
    of first to last layer stays near 1. It is about 1 for healthy networks, from 0.003 to 6.

    A layer is a module with a weight of at least two axes, also one that is computed (weight norm, spectral norm), or
    with several (recurrent layers, attention); dead and saturated units are those of the activation *module* that
    follows it. What functions compute is invisible to hooks: functional activations, and the gates of an LSTM or GRU.
    The last layer is not judged for saturation: a sure classifier saturates its output by right.

    The pass runs in training mode (BatchNorm uses the batch) and leaves no trace: gradients, modes, buffers and random
    numbers are as before. A compiled model runs uncompiled in it.

    Args:
        model: any module that maps ``inputs`` to what ``loss_fn`` takes.
        batch: ``(inputs, targets)``; at least 2 samples, better 64 and more (a unit is called dead only if it is 0 for
            all of them), with inputs scaled as in training.
        loss_fn: ``loss_fn(outputs, targets)`` returns a scalar tensor.

    Raises:
        TypeError: ``batch`` is not a pair of inputs and targets.
        ValueError: under 2 samples, no layer in the model, no gradient from the loss, or a model that is scripted,
            spread over devices by ``DataParallel``, or has lazy layers that saw no batch yet.
    """
    inputs, targets = _check_batch(batch)
    layers = {module for _, module in inner_modules(unwrap(model)) if weights_of(module)}
    if not layers:
        raise ValueError("model has no layer to judge: no module owns a weight matrix")
    passed = trace(model, inputs, targets, loss_fn)
    groups = _group(passed.calls, layers)
    if not groups:
        raise ValueError("the forward pass called none of the model's layers")
    bad = first_nonfinite(passed)
    error = next((_norm(group[0].gradients) for group in reversed(groups) if group[0].gradients), 0.0)
    verdicts = [
        _judge(group, _measure(group, error), is_last=group is groups[-1], error=error, bad=bad) for group in groups
    ]
    return Diagnosis(verdicts, float(cast(Tensor, passed.loss)), bad)


def _check_batch(batch: Sequence[Any]) -> tuple[Tensor, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        found = f"a tensor of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else repr(type(batch).__name__)
        raise TypeError(f"batch must be a pair (inputs, targets) whose inputs are a tensor, got {found}")
    inputs, targets = batch
    if inputs.ndim == 0 or len(inputs) < 2:
        raise ValueError(f"batch must hold at least 2 samples, got inputs of shape {tuple(inputs.shape)}")
    return inputs, targets


def _group(calls: list[Call], layers: Collection[nn.Module]) -> list[list[Call]]:
    """Cut the calls into layers: each begins with a weight layer and runs to the next; a repeated one counts last."""
    groups: dict[nn.Module, list[Call]] = {}
    current: list[Call] = []
    for call in calls:
        if call.module in layers and call.outputs:
            groups.pop(call.module, None)
            current = groups[call.module] = []
        current.append(call)
    return list(groups.values())


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the root of the sum of all squares; NaN if there is nothing to add."""
    # In double precision on the CPU: squares of an exploding float32 gradient would overflow.
    norms = [float(torch.linalg.vector_norm(tensor.detach().cpu().double())) for tensor in tensors]
    return math.hypot(*norms) if norms else math.nan


def _is_trained(layer: Call) -> bool:
    return any(parameter.requires_grad for weight in weights_of(layer.module) for parameter in weight.parameters)


def _measure(group: list[Call], error: float) -> dict[str, float]:
    layer, weights = group[0], weights_of(group[0].module)
    # Integers choose rows of an embedding, whose gradients are then those of the output.
    entering = 1.0 if layer.inputs is None else _norm([layer.inputs]) / math.sqrt(layer.inputs.numel())
    # A trainable layer without a gradient was detached from the loss: nothing reaches it.
    arriving = 0.0 if not layer.gradients and _is_trained(layer) else _norm(layer.gradients)
    held = {id(parameter) for weight in weights for parameter in weight.parameters}
    gradients = [g for name, g in layer.parameter_gradients.items() if id(layer.parameters[name]) in held]
    gradient_norm = _norm(gradients)
    weight_norm = _norm([weight.value() for weight in weights])
    activation = next((call for call in group[1:] if is_activation(call.module) and call.outputs), None)
    leaving = by_unit((activation or layer).outputs[0].detach())
    bounds = asymptotes(activation.module) if activation else None
    tensors = [*layer.outputs, *layer.gradients, *layer.parameters.values(), *layer.parameter_gradients.values()]
    finite = torch.cat([tensor.detach().isfinite().flatten() for tensor in tensors])
    return {
        "gradient_reach": arriving / error * entering if error else math.nan,
        "gradient_norm": gradient_norm,
        "gradient_to_weight": gradient_norm / weight_norm if weight_norm else math.inf,
        "dead": float(dead_share(leaving)) if activation else math.nan,
        "saturated": float(saturated_share(leaving, *bounds, SATURATION_TOL)) if bounds else math.nan,
        "activation_mean": float(leaving.mean()),
        "activation_std": float(leaving.std(correction=0)),
        "nonfinite": 1.0 - float(finite.float().mean()),
    }


def _judge(
    group: list[Call], numbers: dict[str, float], *, is_last: bool, error: float, bad: NonFinite | None
) -> LayerVerdict:
    layer = group[0]

    def verdict(kind: str, measure: str, threshold: float, advice: str = "") -> LayerVerdict:
        value = numbers.get(measure, math.nan)
        return LayerVerdict(layer.name or "model", kind, measure, value, threshold, advice, numbers)

    reach = numbers["gradient_reach"]
    if bad is not None and numbers["nonfinite"] > 0:
        begins_here = bad.name in [call.name for call in group]
        return verdict("NaN", "nonfinite", 0.0, _CURES["NaN"] if begins_here else f"follows from {bad.name or 'model'}")
    if numbers["dead"] > DEAD_ABOVE:
        return verdict("dead", "dead", DEAD_ABOVE, _CURES["dead"])
    if numbers["saturated"] > SATURATED_ABOVE and not is_last:
        return verdict("saturated", "saturated", SATURATED_ABOVE, _CURES["saturated"])
    if error == 0:
        return verdict("healthy", "no_error", math.nan)
    if not layer.gradients and not _is_trained(layer):
        return verdict("healthy", "frozen", math.nan)
    if reach > EXPLODING_ABOVE:
        return verdict("exploding", "gradient_reach", EXPLODING_ABOVE, _CURES["exploding"])
    if reach < VANISHING_BELOW:
        return verdict("vanishing", "gradient_reach", VANISHING_BELOW, _cure_vanishing(group, reach))
    return verdict("healthy", "gradient_reach", VANISHING_BELOW)


_CURES = {
    "NaN": "check the inputs; reload finite weights; then a smaller lr or gradient clipping",
    "dead": "biases at 0 and He initialization; a smaller lr; or ELU",
    "saturated": "smaller weights (Glorot initialization), standardized inputs, or BatchNorm before the activation",
    "exploding": "He or Glorot initialization, standardized inputs, or BatchNorm; clip the gradient meanwhile",
}


def _cure_vanishing(group: list[Call], reach: float) -> str:
    if reach == 0:
        return "nothing gets through: look for a dead layer or a detach() on the way"
    kinds = {type(call.module) for call in group}
    if nn.Sigmoid in kinds:
        return "ReLU with He initialization, or BatchNorm before the sigmoid"
    return f"{'Glorot' if nn.Tanh in kinds else 'He'} initialization, or BatchNorm"
