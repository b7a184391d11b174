"""The training loop: `fit`, and the state of one run of it."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from course_utils._validation import check_int, check_one_of, check_positive
from course_utils.monitoring.nonfinite import NonFinite, find_nonfinite
from course_utils.reproducibility import make_generator
from course_utils.training.batches import (
    Data,
    LossFunction,
    check_data,
    check_loss,
    counted_labels,
    is_classification,
    iterate_batches,
    loss_share,
)
from course_utils.training.callbacks import BestWeights, Callback, ModelCheckpoint, TrainState, as_callback
from course_utils.training.checkpoints import check_same_entries, load_entries, plain_names, read_checkpoint
from course_utils.training.history import History
from course_utils.training.measuring import Meter, device_of, measure, modes_put_back
from course_utils.training.nonfinite import NonFiniteLossError

__all__ = ["fit"]

Schedule: TypeAlias = "Callable[[int], float] | LRScheduler"


def fit(
    model: nn.Module,
    train: Data,
    *,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    sample_weight: Tensor | None = None,
    val: Data | None = None,
    max_epochs: int,
    batch_size: int = 64,
    shuffle: bool = True,
    callbacks: Sequence[Callback | Callable[[TrainState], object]] = (),
    penalty: Callable[[nn.Module], Tensor] | None = None,
    clip_norm: float | None = None,
    schedule: Schedule | None = None,
    eval_train: bool = False,
    on_nonfinite: str = "raise",
    seed: int | None = None,
    device: torch.device | str | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> History:
    """Train the model, and return what was measured.

    An epoch is one pass over ``train`` in training mode, then one over ``val`` in evaluation mode. ``loss`` is the
    mean over the epoch's samples *while* the weights change and dropout acts; ``val_loss`` is measured after it and
    without dropout, and can therefore be the better of the two. ``eval_train=True`` measures the training data under
    the same conditions as the validation data. Accuracies are recorded when the targets are integers.

    With a ``seed``, the result is the same to the last bit on the same machine whatever was drawn before, and the
    caller's random stream is left as it was. The order of the samples has a generator of its own, so that two models
    with the same seed see the same batches though one of them draws dropout masks.

    The model ends with the last weights, unless an `EarlyStopping` restores better ones. KeyboardInterrupt (the stop
    button) returns the history so far with the best weights so far, by ``val_loss``, or ``loss`` if nothing is
    validated; within the first epoch the weights stay as they are. The modules' training flags and the optimizer's
    learning rates are put back to what they were.

    Args:
        model: maps ``(batch, ...)`` inputs to outputs that ``loss_fn`` takes.
        train: tensors ``(inputs, targets)`` of shapes ``(n, ...)`` each, or a DataLoader of such pairs.
        loss_fn: of ``(outputs, targets)``; returns the batch's mean as a scalar.
        optimizer: over the model's parameters.
        sample_weight: (n,), at least 0 and not all 0, of training data that are tensors; only their ratios count.
            ``loss_fn`` then returns one loss a sample, ``(batch,)``, as torch's losses do with ``reduction="none"``.
        val: validation data, like ``train``.
        max_epochs: at which to end, at least 1; after a resume those before it count too.
        batch_size: samples an optimizer step, at least 1; a DataLoader has its own.
        shuffle: whether tensors are gone through in a new order every epoch; a DataLoader decides by itself.
        callbacks: see `Callback`; a plain function is called with the `TrainState` after every epoch.
        penalty: of the model, a scalar added to what is minimized. It is recorded as ``penalty`` and kept out of
            ``loss``, so that this remains comparable with ``val_loss``.
        clip_norm: the largest norm, above 0, that the gradient of all parameters together may have; a longer one is
            scaled down to it.
        schedule: a function from the step, from 0 over all epochs, to the factor on the optimizer's learning rates,
            as ``LambdaLR`` takes it; or a scheduler of torch, stepped after every epoch (``ReduceLROnPlateau``
            by ``val_loss``, or ``loss``).
        eval_train: whether to record ``eval_loss`` and ``eval_accuracy``; costs a forward pass over ``train``.
        on_nonfinite: what to do when the loss is NaN or infinite: ``"raise"``, or ``"stop"`` and say so in
            ``history.stopped_by``. Either way the model gets its best weights back, or those from before
            training if no epoch was finished; the optimizer's state is not restored.
        seed: at least 0; without one, torch's global generator shuffles.
        device: to which the model is moved; by default it stays where it is. Batches follow it.
        resume_from: a file of `ModelCheckpoint` to go on from. Called with the arguments of the interrupted run, the
            weights and the history come out as if it had never stopped.

    Returns:
        The history; ``loss``, ``val_loss`` and so on are its keys.

    Raises:
        TypeError, ValueError: an argument is out of range, or data, model, loss and monitors do not fit together.
        FileNotFoundError: ``resume_from`` does not exist.
        NonFiniteLossError: the loss or a weight became NaN or infinite.
    """
    check_int(max_epochs, "max_epochs", minimum=1)
    check_int(batch_size, "batch_size", minimum=1)
    check_one_of(on_nonfinite, "on_nonfinite", ("raise", "stop"))
    if clip_norm is not None:
        check_positive(clip_norm, "clip_norm")
    if schedule is not None and not (isinstance(schedule, LRScheduler) or callable(schedule)):
        raise TypeError(f"schedule must be a function of the step or a scheduler of torch, got {schedule!r}")
    if isinstance(schedule, LRScheduler) and schedule.optimizer is not optimizer:
        raise ValueError("schedule was built for another optimizer than the one given")
    _check_optimizer(optimizer, model)
    check_data(train, "train", model, batch_size=batch_size)
    if sample_weight is not None:
        _check_weights(sample_weight, train)
    if val is not None:
        check_data(val, "val", model)
    if device is not None:
        model.to(device)
    run = _Run(
        model=model,
        train_data=train,
        val_data=val,
        loss_fn=loss_fn,
        optimizer=optimizer,
        max_epochs=max_epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        callbacks=[as_callback(callback) for callback in callbacks],
        penalty=penalty,
        clip_norm=clip_norm,
        schedule=schedule,
        eval_train=eval_train,
        sample_weight=None if sample_weight is None else sample_weight / sample_weight.mean(),
        order=None if seed is None else make_generator(seed),
    )
    with _own_random_stream(seed, run.device), modes_put_back(model), _learning_rates_put_back(run):
        if resume_from is not None:
            run.resume(resume_from)
        try:
            run.train()
        except NonFiniteLossError:
            if on_nonfinite == "raise":
                raise
    return run.state.history


@dataclass
class _Run:
    """One call of `fit`: its arguments, and where it stands."""

    model: nn.Module
    train_data: Data
    val_data: Data | None
    loss_fn: LossFunction
    optimizer: torch.optim.Optimizer
    max_epochs: int
    batch_size: int
    shuffle: bool
    callbacks: list[Callback]
    penalty: Callable[[nn.Module], Tensor] | None
    clip_norm: float | None
    schedule: Schedule | None
    eval_train: bool
    sample_weight: Tensor | None
    order: torch.Generator | None

    def __post_init__(self) -> None:
        self.device = device_of(self.model)
        self.initial_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.best = BestWeights("loss" if self.val_data is None else "val_loss")
        if not any(is_lazy(parameter) for parameter in self.model.parameters()):
            self.best.keep(self.model, epoch=0, value=None)
        self.state = TrainState(self.model, self.optimizer, History(), self.max_epochs, self.make_checkpoint)
        self.first_step_checked = False
        self.step_callbacks = [c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end]
        # Checkpoints come last: they record what the other callbacks made of the epoch.
        self.epoch_callbacks = sorted(self.callbacks, key=lambda c: isinstance(c, ModelCheckpoint))

    def train(self) -> None:
        """Train to the end, whichever it is, and leave model, history and callbacks in order."""
        state = self.state
        try:
            for callback in self.callbacks:
                callback.on_train_begin(state)
            while state.epoch < self.max_epochs and state.stop_reason is None:
                self.train_and_measure_epoch()
            state.history.stopped_by = state.stop_reason or "max_epochs"
        except KeyboardInterrupt:
            state.history.stopped_by = "interrupted"
            if self.best.epoch:
                self.best.restore(state)
        finally:
            self.end_callbacks()

    def end_callbacks(self) -> None:
        for callback in self.callbacks:
            try:
                callback.on_train_end(self.state)
            except KeyboardInterrupt:  # the others still have to restore weights and close what they opened
                self.state.history.stopped_by = "interrupted"

    def train_and_measure_epoch(self) -> None:
        state, begin = self.state, time.perf_counter()
        state.epoch += 1
        metrics = self.train_epoch()
        if self.eval_train:
            metrics |= {f"eval_{name}": value for name, value in self.measure(self.train_data, "train").items()}
        if self.val_data is not None:
            metrics |= {f"val_{name}": value for name, value in self.measure(self.val_data, "val").items()}
        metrics["lr"] = float(self.optimizer.param_groups[0]["lr"])
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(metrics[self.best.monitor])
        elif isinstance(self.schedule, LRScheduler):
            self.schedule.step()
        state.metrics = metrics
        state.history.append(metrics, seconds=time.perf_counter() - begin)
        self.best.update(state)
        for callback in self.epoch_callbacks:
            callback.on_epoch_end(state)

    def train_epoch(self) -> dict[str, float]:
        """Go through the training data once, and return the running means."""
        state, meter, step = self.state, Meter(), 0
        self.model.train()
        data, weights = self.train_data, self.sample_weight
        if weights is not None:
            inputs, all_targets = data
            data = inputs, torch.arange(len(inputs))  # so that weights find their rows
        batches = iterate_batches(data, self.batch_size, self.device, shuffle=self.shuffle, generator=self.order)
        for step, (inputs, targets) in enumerate(batches, start=1):
            of_batch = None
            if weights is not None:
                rows = targets.cpu()
                targets, of_batch = all_targets[rows].to(self.device), weights[rows].to(self.device)
            if callable(self.schedule):
                self.set_learning_rates(self.schedule(state.step))
            self.optimizer.zero_grad()
            outputs = self.model(inputs)
            if not self.first_step_checked:
                self.check_first_step(outputs, targets)
            counted = counted_labels(self.loss_fn, targets)
            share = loss_share(self.loss_fn, targets, counted)
            if not share:  # every label is ignored: the mean over nothing is NaN, and there is nothing to learn
                continue
            losses = self.loss_fn(outputs, targets)
            loss = _scalar(losses if of_batch is None else _weighted_mean(losses, of_batch))
            penalty = None if self.penalty is None else self.penalty(self.model)
            # Reading the value makes a GPU's step wait; in return a bad loss is caught before it spoils the weights.
            state.loss, penalty_value = loss.item(), 0.0 if penalty is None else penalty.item()
            state.history.step_loss.append(state.loss)
            if not math.isfinite(state.loss + penalty_value):
                culprit = find_nonfinite(self.model, inputs) or NonFinite("loss", "loss")
                raise self.failure(step, _what_happened(state.loss, penalty_value), culprit)
            (loss if penalty is None else loss + penalty).backward()
            norm = self.gradient_norm()
            if not math.isfinite(norm.item()):
                culprit = find_nonfinite(self.model, inputs, targets, self.mean_loss) or NonFinite("loss", "gradient")
                raise self.failure(step, "The gradient became NaN or infinite, though the loss is finite,", culprit)
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_norm, norm)
            self.optimizer.step()
            state.step += 1
            meter.add(state.loss, outputs, targets, penalty_value, share=share, counted=counted)
            for callback in self.step_callbacks:
                callback.on_step_end(state)
            if state.stop_reason is not None:
                break
        metrics = meter.means()
        self.check_weights(step)
        return metrics if self.penalty is None else metrics | {"penalty": meter.penalty / meter.samples}

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient of all parameters together; sparse ones are left out."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return nn.utils.get_total_norm([gradient for gradient in gradients if not gradient.is_sparse])

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the batch's loss as one number, also where `fit` asked for one a sample."""
        return self.loss_fn(outputs, targets).mean()

    def set_learning_rates(self, factor: float) -> None:
        for group, initial_lr in zip(self.optimizer.param_groups, self.initial_lrs, strict=True):
            group["lr"] = initial_lr * factor

    def check_first_step(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise if loss, targets and monitors do not fit together; once a run is enough."""
        self.first_step_checked = True
        check_loss(self.loss_fn, outputs, targets, "train")
        measured = ["loss", "accuracy"] if is_classification(outputs, targets) else ["loss"]
        recorded = [*measured, "lr"]
        recorded += [f"eval_{name}" for name in measured] if self.eval_train else []
        recorded += [f"val_{name}" for name in measured] if self.val_data is not None else []
        recorded += ["penalty"] if self.penalty is not None else []
        for callback in self.callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor is not None:
                check_one_of(monitor, f"{type(callback).__name__}'s monitor", recorded)

    def check_weights(self, step: int) -> None:
        """Raise if the epoch's last step spoiled the weights: no loss follows in which that would show."""
        culprit = find_nonfinite(self.model)
        if culprit is not None:
            raise self.failure(step, "The update made the weights non-finite", culprit)

    def failure(self, step: int, happened: str, culprit: NonFinite) -> NonFiniteLossError:
        """Put the best weights back, and return the error to raise."""
        state, where = self.state, f"at epoch {self.state.epoch}, step {step}"
        state.history.stopped_by = f"non-finite loss {where} ({culprit.what})"
        parts = [f"{happened} {where}.", f"The first non-finite values are in {culprit.what}."]
        if self.best.restore(state):
            whose = f"of epoch {self.best.epoch}, the best so far," if self.best.epoch else "from before training"
            parts.append(f"The weights {whose} are back in the model.")
        return NonFiniteLossError(
            " ".join([*parts, culprit.cure]), history=state.history, epoch=state.epoch, step=step, layer=culprit.layer
        )

    def measure(self, data: Data, name: str) -> dict[str, float]:
        return measure(self.model, data, self.loss_fn, max(self.batch_size, 1024), self.device, name=name)

    def make_checkpoint(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, but the arguments of `fit`."""
        schedule = self.schedule.state_dict() if isinstance(self.schedule, LRScheduler) else None
        return {
            "model": plain_names(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": type(self.optimizer).__name__,
            "schedule": schedule,
            "random": {name: generator.get_state() for name, generator in self.generators().items()},
            "history": self.state.history.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self.named_callbacks().items()},
            "best": self.best.state_dict(),
            "epoch": self.state.epoch,
            "step": self.state.step,
        }

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take over what `make_checkpoint` returned.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of a run with another model or optimizer.
        """
        content, name = read_checkpoint(path), os.fspath(path)
        stored = plain_names(content["model"])
        check_same_entries(stored, plain_names(self.model.state_dict()), str(name))
        if content["optimizer_name"] != type(self.optimizer).__name__:
            raise ValueError(
                f"{name!r} was written with the optimizer {content['optimizer_name']}, "
                f"got {type(self.optimizer).__name__}"
            )
        load_entries(self.model, stored)
        self.optimizer.load_state_dict(content["optimizer"])
        if isinstance(self.schedule, LRScheduler) and content["schedule"] is not None:
            self.schedule.load_state_dict(content["schedule"])
        for key, generator in self.generators().items():
            if key in content["random"]:
                generator.set_state(content["random"][key])
        for key, callback in self.named_callbacks().items():
            if key in content["callbacks"]:
                callback.load_state_dict(content["callbacks"][key])
        self.state.history.load_state_dict(content["history"])
        self.best.load_state_dict(content["best"])
        self.state.epoch, self.state.step = content["epoch"], content["step"]

    def generators(self) -> dict[str, torch.Generator]:
        """Return the random generators that the run draws from, by a name for the checkpoint."""
        generators = {"cpu": torch.default_generator}
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            generators["cuda"] = torch.cuda.default_generators[index]
        loader_generator = getattr(self.train_data, "generator", None)
        for name, generator in (("order", self.order), ("loader", loader_generator)):
            if generator is not None:
                generators[name] = generator
        return generators

    def named_callbacks(self) -> dict[str, Callback]:
        """Return the callbacks by class and count, so that one more in a resumed run does not shift the others."""
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            kind = type(callback).__name__
            named[f"{kind} {sum(name.startswith(f'{kind} ') for name in named)}"] = callback
        return named


def _what_happened(loss: float, penalty: float) -> str:
    return f"The penalty became {penalty}" if math.isfinite(loss) else f"The loss became {loss}"


def _scalar(loss: object) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ValueError(f"loss_fn must return a scalar tensor, the mean over the batch, got {got}")
    return loss


def _weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    if losses.shape != weights.shape:  # torch would broadcast: a mean to every row, (batch, 1) to a matrix
        raise ValueError(
            f"with sample_weight, loss_fn must return one loss a sample, of shape {tuple(weights.shape)}, as with "
            f"reduction='none'; got {tuple(losses.shape)}"
        )
    return (losses * weights).mean()


def _check_weights(weights: Tensor, train: Data) -> None:
    if isinstance(train, DataLoader) or weights.shape != train[1].shape[:1]:
        raise ValueError(f"sample_weight must hold a weight for each of train's rows, got {tuple(weights.shape)}")
    if not (weights.isfinite().all() and weights.min() >= 0 and weights.max() > 0):
        low, high = float(weights.min()), float(weights.max())
        raise ValueError(f"sample_weight must be finite, at least 0 and not all 0, got weights from {low} to {high}")


def _check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("optimizer holds none of the model's parameters; build it from model.parameters()")


@contextmanager
def _own_random_stream(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from freshly seeded global generators inside, and put them back after; no-op without a seed."""
    if seed is None:
        yield
        return
    gpus = [device] if device.type == "cuda" else []
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global stream is meant
    python_state = random.getstate()
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which reseeds GPUs that are not forked too
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        # A Dataset may draw from these.
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the global stream is meant
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002 - the global stream is meant
            random.setstate(python_state)


@contextmanager
def _learning_rates_put_back(run: _Run) -> Iterator[None]:
    """Put the rates back to what they were, so that a second `fit` does not start from a decayed rate."""
    try:
        yield
    finally:
        run.set_learning_rates(1.0)
