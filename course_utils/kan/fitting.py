"""Fit a network to all data at once: L-BFGS and Levenberg–Marquardt, over a ladder of grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._notebook import progress_bar
from course_utils._validation import check_int, check_non_negative
from course_utils.kan.grid import check_samples, set_grid_size, update_grid
from course_utils.kan.levenberg_marquardt import LevenbergMarquardt
from course_utils.kan.network import KANBase, layers_of

__all__ = ["KANHistory", "fit_lbfgs", "fit_lm"]

Penalty: TypeAlias = Callable[[KANBase, Tensor], Tensor]
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_RECORD_EVERY = 10  # iterations of L-BFGS; each record costs a forward pass and one backward
_SETTLE = 20  # steps of a stage before the grids are moved a second time
_WARMUP_LR = 0.03


@dataclass
class KANHistory:
    """What a fit measured, one entry a record; entry 0 is from before the first step.

    Attributes:
        step: iterations done so far.
        grid_size: of the stage, which is the largest of the layers' grids.
        loss: on the training data, without penalty; the mean squared error unless another ``loss_fn`` was given.
        val_loss: the same on the validation data; empty without these.
        penalty: what was added to the loss; empty without a penalty.
        stopped_by: why the fit ended: ``"max_steps"``, ``"tolerance"`` (nothing more was gained),
            ``"interrupted"``, or ``"non-finite loss at step …"``.
        restored: the record whose parameters and grids the model was left with.
    """

    step: list[int] = field(default_factory=list)
    grid_size: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    stopped_by: str | None = None
    restored: int | None = None

    def __len__(self) -> int:
        return len(self.loss)


def fit_lbfgs(
    model: KANBase,
    x: Tensor,
    y: Tensor,
    *,
    val: tuple[Tensor, Tensor] | None = None,
    grids: Sequence[int] | None = (3, 6, 12, 24, 48),
    steps: int = 400,
    warmup: int = 100,
    tolerance: float = 1e-3,
    loss_fn: LossFunction | None = None,
    penalty: Penalty | None = None,
    progress: bool = True,
) -> KANHistory:
    """Fit by L-BFGS on all samples at once, stage by stage on finer and finer grids, in place.

    A coarse grid finds the shape, where a fine one would have many ways to go wrong; each stage then starts from the
    same function on more intervals (see `kan.extend_grid`). Before a stage, and again after its first 20 iterations,
    when the hidden values have moved most, the grids are laid anew over the values that reach them (see
    `kan.update_grid`).

    The model ends with the best parameters, and the grids that belong to them: by ``val_loss``, or without ``val``
    by the loss with its penalty. KeyboardInterrupt (the stop button) ends the fit with them too. A loss that is not
    finite counts as a very bad one in the line search, which then tries shorter steps; if it stays so, the fit ends
    and says so in the history.

    Args:
        model: the network.
        x: (n, widths[0]), finite, of the model's dtype; float64 reaches much smaller errors.
        y: (n, widths[-1]), the targets; with a ``loss_fn`` whatever this takes, of length n.
        val: validation data, like ``(x, y)``.
        grids: intervals of each stage, growing, and fewer than samples. A model whose grids are finer than the first
            is put on that one: of use for a fresh model, while a trained one is better continued from its own size.
            ``None`` is one stage that leaves the grids as they are, in size and place.
        steps: iterations a stage, at least 1.
        warmup: steps of Adam before all others, at least 0; they are taken back if they do not lower the loss. From
            a random start L-BFGS goes far along the steepest direction, and 5 of 16 networks of widths [2, 1, 1] ended
            in a bad minimum; after 100 steps that are of one size for all parameters none did.
        tolerance: a stage ends when 10 iterations lower the loss by less than this share of it, at least 0.
        loss_fn: of ``(outputs, targets)``, a scalar; by default the mean squared error.
        penalty: of ``(model, x)``, a scalar added to what is minimized, such as `kan.sparsity_penalty`.
        progress: whether to show a bar.

    Raises:
        TypeError, ValueError: an argument is out of range, or shapes, dtypes or values do not fit the model.
    """
    check_int(steps, "steps", minimum=1)
    check_int(warmup, "warmup", minimum=0)
    check_non_negative(tolerance, "tolerance")
    run = _Run(model, x, y, val=val, grids=grids, loss_fn=loss_fn, penalty=penalty)
    with progress_bar(warmup + steps * len(run.stages), "step", shown=progress) as bar:
        run.climb(_lbfgs, steps, tolerance, bar, warmup=warmup)
    return run.history


def fit_lm(
    model: KANBase,
    x: Tensor,
    y: Tensor,
    *,
    val: tuple[Tensor, Tensor] | None = None,
    grids: Sequence[int] | None = None,
    max_steps: int = 100,
    warmup: int = 0,
    tolerance: float = 1e-4,
    progress: bool = True,
) -> KANHistory:
    """Fit by Levenberg–Marquardt to the least mean squared error, in place.

    Each step solves for all parameters at once (module ``kan.levenberg_marquardt``): with a few hundred of them this
    takes far fewer steps than gradients do, and less time; with many thousands it is out of reach. Removed edges stay
    so, and the constants of known functions are fitted too. A step to where the loss is larger or not finite is never
    taken. The best parameters are kept, as in `fit_lbfgs`.

    Args:
        model: the network.
        x: (n, widths[0]), finite, of the model's dtype; float64 reaches much smaller errors.
        y: (n, widths[-1]), the targets.
        val: validation data, like ``(x, y)``.
        grids: intervals of each stage, as in `fit_lbfgs`; ``None`` leaves the grids as they are.
        max_steps: at most so many steps a stage, at least 1.
        warmup: steps of Adam before all others, as in `fit_lbfgs`; seldom needed.
        tolerance: a stage ends when three steps in a row lower the loss by less than this share of it, at least 0.
        progress: whether to show a bar.

    Raises:
        TypeError, ValueError: an argument is out of range, or shapes, dtypes or values do not fit the model; or it
            has more than 10,000 parameters.
    """
    check_int(max_steps, "max_steps", minimum=1)
    check_int(warmup, "warmup", minimum=0)
    check_non_negative(tolerance, "tolerance")
    run = _Run(model, x, y, val=val, grids=grids)
    with progress_bar(warmup + max_steps * len(run.stages), "step", shown=progress) as bar:
        run.climb(_levenberg_marquardt, max_steps, tolerance, bar, warmup=warmup)
    return run.history


Method: TypeAlias = "Callable[[_Run, int, float, Any], str]"


class _Run:
    """One call of a fit: its data, what it measured, and the best parameters so far."""

    def __init__(
        self,
        model: KANBase,
        x: Tensor,
        y: Tensor,
        *,
        val: tuple[Tensor, Tensor] | None,
        grids: Sequence[int] | None,
        loss_fn: LossFunction | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        self.model, self.x, self.y, self.val = model, x, y, val
        self.stages = _stages(grids)
        check_samples(model, x, grid_size=max((stage for stage in self.stages if stage is not None), default=0))
        _check_targets(model, x, y, "y", any_shape=loss_fn is not None)
        if val is not None:
            check_samples(model, val[0], grid_size=0, name="val's x")
            _check_targets(model, *val, "val's y", any_shape=loss_fn is not None)
        self.loss_fn = F.mse_loss if loss_fn is None else loss_fn
        self.penalty = penalty
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.history = KANHistory()
        self.steps = 0
        self.best_value = math.inf
        self.best = _Snapshot(model)

    def climb(self, method: Method, steps: int, tolerance: float, bar: Any, *, warmup: int = 0) -> None:
        """Go through all stages, and leave the model with its best parameters."""
        history = self.history
        try:
            if not math.isfinite(self.record()):
                history.stopped_by = "non-finite loss at step 0"
                return
            for number, stage in enumerate(self.stages):
                if stage is not None:
                    set_grid_size(self.model, stage)
                    update_grid(self.model, self.x)
                if number == 0 and warmup:
                    self.warm_up(warmup, bar)
                if stage is None:
                    ended = method(self, steps, tolerance, bar)
                else:
                    ended = method(self, min(_SETTLE, steps), tolerance, bar)
                    if not ended.startswith("non-finite") and steps > _SETTLE:
                        update_grid(self.model, self.x)
                        ended = method(self, steps - _SETTLE, tolerance, bar)
                history.stopped_by = ended
                if ended.startswith("non-finite"):
                    break
        except KeyboardInterrupt:
            history.stopped_by = "interrupted"
        finally:
            self.best.restore(self.model)

    def warm_up(self, steps: int, bar: Any) -> None:
        """Take steps of Adam, moving the grids as the values move; take them back if the loss is no lower."""
        before, start = _Snapshot(self.model), self.record()
        optimizer = torch.optim.Adam(self.parameters, lr=_WARMUP_LR)
        for step in range(steps):
            if step % _SETTLE == 0 and self.stages[0] is not None:
                update_grid(self.model, self.x)
            optimizer.zero_grad()
            loss = self.objective()
            if not bool(loss.isfinite()):
                before.restore(self.model)
                return
            loss.backward()
            optimizer.step()
            self.show(bar, 1)
        if self.stages[0] is not None:
            update_grid(self.model, self.x)
        if not self.record() < start:
            before.restore(self.model)

    def objective(self) -> Tensor:
        """Return what is minimized, with its graph."""
        with torch.enable_grad():
            loss = self.loss_fn(self.model(self.x), self.y)
            return loss if self.penalty is None else loss + self.penalty(self.model, self.x)

    @torch.no_grad()
    def record(self) -> float:
        """Measure, keep the parameters if they are the best so far, and return the loss with its penalty."""
        history, model = self.history, self.model
        loss = float(self.loss_fn(model(self.x), self.y))
        penalty = 0.0 if self.penalty is None else float(self.penalty(model, self.x))
        history.step.append(self.steps)
        history.grid_size.append(max(layer.grid_size for layer in layers_of(model)))
        history.loss.append(loss)
        value = loss + penalty
        if self.penalty is not None:
            history.penalty.append(penalty)
        if self.val is not None:
            value = float(self.loss_fn(model(self.val[0]), self.val[1]))
            history.val_loss.append(value)
        if value < self.best_value and math.isfinite(loss + penalty):
            self.best_value, history.restored = value, len(history) - 1
            self.best = _Snapshot(model)
        return loss + penalty

    def show(self, bar: Any, steps: int) -> None:
        """Count ``steps`` more of them, on the bar too."""
        self.steps += steps
        shown = {"grid": self.history.grid_size[-1], "loss": f"{self.history.loss[-1]:.3g}"}
        if self.val is not None:
            shown["val_loss"] = f"{self.history.val_loss[-1]:.3g}"
        bar.set_postfix(shown, refresh=False)
        bar.update(steps)


class _Snapshot:
    """A copy of all parameters, and of the grids they belong to."""

    def __init__(self, model: KANBase) -> None:
        self.sizes = [layer.grid_size for layer in layers_of(model)]
        self.values = {name: value.detach().clone() for name, value in _entries(model).items()}

    @torch.no_grad()
    def restore(self, model: KANBase) -> None:
        for name, entry in _entries(model).items():
            if entry.shape == self.values[name].shape:
                entry.copy_(self.values[name])
            else:  # the grid was refined since
                entry.data = self.values[name].clone()
            entry.grad = None
        for layer, size in zip(layers_of(model), self.sizes, strict=True):
            layer.grid_size = size


def _entries(model: KANBase) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _lbfgs(run: _Run, steps: int, tolerance: float, bar: Any) -> str:
    """Run at most ``steps`` iterations on the grids as they are, and return why it ended."""
    parameters = run.parameters
    value = run.record()
    if not math.isfinite(value):
        return f"non-finite loss at step {run.steps}"
    # torch's L-BFGS forgets curvatures below 1e-10: a loss that starts at 1,000 stays clear of that.
    factor = 1e3 / max(abs(value), 1e-30)

    def closure() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = factor * run.objective()
        loss.backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if bool(loss.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients):
            return loss.detach()
        # A large number instead of infinity: the line search computes with it, and then tries shorter steps.
        for parameter in parameters:
            parameter.grad = None
        return torch.full_like(loss.detach(), 1e9)

    optimizer = _make_optimizer(parameters)
    done, fresh = 0, True
    while done < steps:
        count = min(_RECORD_EVERY, steps - done)
        optimizer.param_groups[0]["max_iter"] = count
        optimizer.param_groups[0]["max_eval"] = 4 * count
        optimizer.step(closure)
        done += count
        run.show(bar, count)
        before, value = value, run.record()
        if not math.isfinite(value):
            return f"non-finite loss at step {run.steps}"
        if before - value > tolerance * abs(before):
            fresh = False
        elif fresh:
            return "tolerance"
        else:  # perhaps the memory of past steps is what misleads
            optimizer, fresh = _make_optimizer(parameters), True
    return "max_steps"


def _make_optimizer(parameters: list[torch.nn.Parameter]) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        parameters, history_size=50, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )


def _levenberg_marquardt(run: _Run, steps: int, tolerance: float, bar: Any) -> str:
    """Take at most ``steps`` steps on the grids as they are, and return why it ended."""
    solver, small = LevenbergMarquardt(run.model, run.x, run.y), 0
    if not math.isfinite(solver.loss):
        return f"non-finite loss at step {run.steps}"
    for _ in range(steps):
        before = solver.loss
        if not solver.step():
            return "tolerance"
        run.record()
        run.show(bar, 1)
        small = small + 1 if before - solver.loss <= tolerance * before else 0
        if small == 3 or solver.loss == 0:
            return "tolerance"
    return "max_steps"


def _stages(grids: Sequence[int] | None) -> list[int | None]:
    """Return the grid sizes to go through; None stands for those that the model has."""
    if grids is None:
        return [None]
    sizes = [check_int(size, f"grids[{index}]", minimum=1) for index, size in enumerate(grids)]
    if not sizes or sizes != sorted(set(sizes)):
        raise ValueError(f"grids must be at least one size, each larger than the one before, got {list(grids)}")
    return list(sizes)


def _check_targets(model: KANBase, x: Tensor, y: Tensor, name: str, *, any_shape: bool) -> None:
    """Raise unless the targets fit the inputs and the model."""
    if not any_shape:
        expected = (len(x), model.widths[-1])
        if y.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {tuple(y.shape)}")
        if y.dtype != x.dtype:
            raise TypeError(f"{name} must be {x.dtype} like the inputs, got {y.dtype}")
    elif len(y) != len(x):
        raise ValueError(f"{name} must have length {len(x)} like the inputs, got {len(y)}")
    if not bool(y.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {y[~y.isfinite()][0].item()}")
