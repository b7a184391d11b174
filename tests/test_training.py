"""`fit` against loops by hand, its record, its callbacks, and what it says when something does not fit."""

from __future__ import annotations

import copy
import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset, TensorDataset

from course_utils import plotting
from course_utils.training import (
    Callback,
    EarlyStopping,
    History,
    LiveLossPlot,
    ModelCheckpoint,
    NonFiniteLossError,
    ProgressBar,
    TrainState,
    evaluate,
    fit,
)

torch.set_num_threads(1)

ROWS = 50
MSE = nn.MSELoss()
Pair = tuple[Tensor, Tensor]


def regression(rows: int = ROWS, seed: int = 0) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 3, generator=generator)
    return inputs, inputs.sin().sum(dim=1, keepdim=True) + 0.3 * torch.randn(rows, 1, generator=generator)


def classification(rows: int = ROWS, seed: int = 0) -> Pair:
    inputs, targets = regression(rows, seed)
    return inputs, (targets.squeeze(1) > 0).long()


def network(out_features: int = 1, *, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Linear(3, 8)]
    layers += [nn.BatchNorm1d(8)] if norm else []
    layers += [nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, out_features)]
    return nn.Sequential(*layers)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def adam(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def fit_mse(model: nn.Module, train: Any = None, **arguments: Any) -> History:
    defaults: dict[str, Any] = {"loss_fn": MSE, "max_epochs": 3, "batch_size": 16, "seed": 0}
    if "optimizer" not in arguments:
        defaults["optimizer"] = sgd(model)
    return fit(model, regression() if train is None else train, **(defaults | arguments))


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    for (name, ours), (_, theirs) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


class InterruptAt(Callback):
    """Presses the stop button after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


# --- oracle: the loop by hand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_weights_and_losses_equal_those_of_a_loop_by_hand_to_the_last_bit(
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], clip_norm: float | None
) -> None:
    (inputs, targets), (val_inputs, val_targets) = regression(), regression(20, seed=1)
    ours, theirs = network(norm=True), network(norm=True)
    history = fit_mse(
        ours, (inputs, targets), val=(val_inputs, val_targets), optimizer=make_optimizer(ours), clip_norm=clip_norm
    )

    optimizer, order = make_optimizer(theirs), torch.Generator().manual_seed(0)
    losses, val_losses, step_losses = [], [], []
    for _ in range(3):
        theirs.train()
        permutation, total = torch.randperm(ROWS, generator=order), 0.0
        for start in range(0, ROWS, 16):
            index = permutation[start : start + 16]
            optimizer.zero_grad()
            loss = MSE(theirs(inputs[index]), targets[index])
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
            optimizer.step()
            total += loss.item() * len(index)
            step_losses.append(loss.item())
        losses.append(total / ROWS)
        theirs.eval()
        with torch.no_grad():
            val_losses.append(MSE(theirs(val_inputs), val_targets).item())

    assert_same_weights(ours, theirs)
    assert history["loss"] == losses
    assert history["val_loss"] == val_losses
    assert history.step_loss == step_losses


def test_a_schedule_function_acts_as_lambda_lr_does() -> None:
    inputs, targets = regression()

    def factor(step: int) -> float:
        return 1.0 / (1 + step)

    ours, theirs = network(), network()
    our_optimizer, optimizer = sgd(ours), sgd(theirs)
    history = fit_mse(ours, (inputs, targets), optimizer=our_optimizer, schedule=factor, shuffle=False)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(3):
        for rows in torch.arange(ROWS).split(16):
            optimizer.zero_grad()
            MSE(theirs(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            scheduler.step()
    assert_same_weights(ours, theirs)
    assert history["lr"] == pytest.approx([0.1 / 4, 0.1 / 8, 0.1 / 12])
    assert our_optimizer.param_groups[0]["lr"] == 0.1, "the optimizer's learning rate is put back"


def test_a_scheduler_of_torch_steps_once_an_epoch() -> None:
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    history = fit_mse(model, optimizer=optimizer, schedule=scheduler, max_epochs=5)
    assert history["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_reduce_on_plateau_gets_the_validation_loss() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # so that nothing improves
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.01)
    history = fit_mse(model, optimizer=optimizer, schedule=plateau, val=regression(20, 1))
    assert plateau.best == history["val_loss"][0]
    assert history["lr"] == pytest.approx([1e-6, 1e-6, 1e-7])


def test_a_loader_that_does_not_shuffle_gives_what_the_tensors_give() -> None:
    data = classification()
    ours, theirs = network(2), network(2)
    loader = DataLoader(TensorDataset(*data), batch_size=16)
    common: dict[str, Any] = {"loss_fn": nn.CrossEntropyLoss(), "max_epochs": 3, "seed": 0}
    from_tensors = fit(ours, data, val=data, optimizer=adam(ours), batch_size=16, shuffle=False, **common)
    from_loader = fit(theirs, loader, val=loader, optimizer=adam(theirs), **common)
    assert_same_weights(ours, theirs)
    assert from_loader["loss"] == from_tensors["loss"]
    assert from_loader["val_accuracy"] == from_tensors["val_accuracy"]
    assert from_loader["val_loss"] == pytest.approx(from_tensors["val_loss"])  # other batch sizes, other rounding


def test_the_penalty_is_minimized_but_kept_out_of_the_loss() -> None:
    def squares(model: nn.Module) -> Tensor:
        return 0.5 * 0.01 * torch.stack([p.square().sum() for p in model.parameters()]).sum()

    ours, theirs = network(), network()
    history = fit_mse(ours, optimizer=torch.optim.SGD(ours.parameters(), lr=0.1), penalty=squares)
    fit_mse(theirs, optimizer=torch.optim.SGD(theirs.parameters(), lr=0.1, weight_decay=0.01))
    torch.testing.assert_close(weights_of(ours), weights_of(theirs))
    first_loss = fit_mse(network(), max_epochs=1).step_loss[0]
    assert history.step_loss[0] == first_loss
    assert history["penalty"][0] > 0


def test_evaluate_means_over_samples_in_evaluation_mode_and_puts_modes_back() -> None:
    inputs, targets = classification(33)
    model = network(2, dropout=0.5, norm=True)
    model[2].eval()  # a part that someone froze
    loss_fn = nn.CrossEntropyLoss()
    fit(model, (inputs, targets), loss_fn=loss_fn, optimizer=sgd(model), max_epochs=1)
    state = torch.get_rng_state()
    measured = evaluate(model, (inputs, targets), loss_fn=loss_fn, batch_size=10)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=7, shuffle=True)
    assert evaluate(model, loader, loss_fn=loss_fn) == pytest.approx(measured)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model[2].training
    model.eval()
    outputs = model(inputs)
    assert measured["loss"] == pytest.approx(loss_fn(outputs, targets).item(), rel=1e-5)
    assert measured["accuracy"] == pytest.approx((outputs.argmax(1) == targets).double().mean().item())


# --- reproducibility -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    ours, theirs, others = network(dropout=0.3), network(dropout=0.3), network(dropout=0.3)
    first = fit_mse(ours, seed=5)
    torch.rand(7)
    second = fit_mse(theirs, seed=5, val=DataLoader(TensorDataset(*regression()), batch_size=9, shuffle=True))
    assert_same_weights(ours, theirs)
    assert first["loss"] == second["loss"]
    fit_mse(others, seed=6)
    assert not torch.equal(weights_of(ours), weights_of(others))


def test_a_seed_leaves_the_callers_random_stream_alone() -> None:
    state = torch.get_rng_state()
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.1))
    torch.set_rng_state(state)
    fit_mse(model, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_torchs_global_generator_decides() -> None:
    ours, theirs = network(dropout=0.3), network(dropout=0.3)
    for model in (ours, theirs):
        torch.manual_seed(3)
        fit_mse(model, seed=None)
    assert_same_weights(ours, theirs)


def test_models_with_and_without_dropout_see_the_same_batches() -> None:
    class Recorder(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.seen: list[Tensor] = []

        def forward(self, inputs: Tensor) -> Tensor:
            self.seen.append(inputs)
            output: Tensor = self.inner(inputs)
            return output

    plain, dropped = Recorder(network()), Recorder(network(dropout=0.5))
    for model in (plain, dropped):
        fit_mse(model)
    assert torch.equal(torch.cat(plain.seen), torch.cat(dropped.seen))


# --- behaviour -------------------------------------------------------------------------------------------------------


def test_overfits_one_batch() -> None:
    model = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    history = fit_mse(model, regression(8), optimizer=adam(model, 0.02), max_epochs=400, batch_size=8)
    assert history["loss"][-1] < 1e-4


def test_solves_xor() -> None:
    inputs = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    targets = torch.tensor([0, 1, 1, 0])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    history = fit(
        model, (inputs, targets), loss_fn=F.cross_entropy, optimizer=adam(model, 0.05), max_epochs=200, batch_size=4
    )
    assert history["accuracy"][-1] == 1.0
    assert model(inputs).argmax(1).tolist() == targets.tolist()


def test_eval_train_measures_the_training_data_without_dropout() -> None:
    model = network(dropout=0.9)
    train = regression()
    history = fit_mse(model, train, eval_train=True)
    assert history["eval_loss"][-1] == evaluate(model, train, loss_fn=MSE)["loss"]
    assert history["eval_loss"][-1] < history["loss"][-1]


def test_training_flags_are_put_back_and_batchnorm_trains_in_training_mode() -> None:
    model = network(norm=True)
    model.eval()
    fit_mse(model, val=regression(20, 1))
    assert not any(module.training for module in model.modules())
    assert model.state_dict()["1.num_batches_tracked"].item() == 3 * math.ceil(ROWS / 16)


def test_a_lazy_model_and_a_compiled_model_train() -> None:
    lazy = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(1))
    assert len(fit_mse(lazy, val=regression(20, 1), callbacks=[EarlyStopping()])) == 3
    ours, plain = network(), network()
    compiled = torch.compile(ours, backend="eager")
    assert isinstance(compiled, nn.Module)
    fit_mse(compiled, val=regression(20, 1))
    fit_mse(plain)
    assert_same_weights(ours, plain)


def test_integer_targets_of_a_count_model_have_no_accuracy() -> None:
    inputs, classes = classification()
    model = network()
    history = fit(
        model,
        (inputs, classes),
        loss_fn=lambda outputs, counts: F.poisson_nll_loss(outputs.squeeze(1), counts),
        optimizer=adam(model),
        max_epochs=1,
    )
    assert "accuracy" not in history


def test_the_batches_follow_the_models_device() -> None:
    model = network()
    fit_mse(model, device="cpu")
    assert all(parameter.device == torch.device("cpu") for parameter in model.parameters())


# --- history ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    max_epochs=st.integers(1, 4),
    with_val=st.booleans(),
    classes=st.booleans(),
)
def test_history_has_one_value_an_epoch_and_one_loss_a_step(
    rows: int, batch_size: int, max_epochs: int, with_val: bool, classes: bool
) -> None:
    data = classification(rows) if classes else regression(rows)
    model = network(2 if classes else 1)
    history = fit(
        model,
        data,
        val=data if with_val else None,
        loss_fn=nn.CrossEntropyLoss() if classes else MSE,
        optimizer=adam(model),
        max_epochs=max_epochs,
        batch_size=batch_size,
        seed=0,
    )
    names = ["loss", "accuracy"] if classes else ["loss"]
    names += [f"val_{name}" for name in names] if with_val else []
    assert history.keys() == [*names, "lr"]
    assert len(history) == len(history.epochs) == len(history.seconds) == max_epochs
    assert all(len(history[name]) == max_epochs for name in history)
    steps = math.ceil(rows / batch_size)
    assert len(history.step_loss) == max_epochs * steps
    sizes = [min(batch_size, rows - start) for start in range(0, rows, batch_size)]
    means = [
        sum(loss * size for loss, size in zip(history.step_loss[k : k + steps], sizes, strict=True)) / rows
        for k in range(0, max_epochs * steps, steps)
    ]
    assert history["loss"] == pytest.approx(means)
    assert history.stopped_by == "max_epochs"


def some_history(epochs: int = 30) -> History:
    history = History()
    for epoch in range(epochs):
        history.append({"loss": 1.0 / (epoch + 1), "val_loss": 1 + (epoch - 12.0) ** 2, "lr": 0.1}, seconds=1.5)
    return history


def test_history_equality_sees_metrics_but_not_time() -> None:
    first, second = some_history(), some_history()
    second._rows[0] = (second._rows[0][0], 99.0)
    assert first == second
    first.append({"loss": math.nan, "val_loss": 0.0, "lr": 0.1})
    second.append({"loss": float("nan"), "val_loss": 0.0, "lr": 0.1})
    assert first == second
    second.step_loss.append(1.0)
    assert first != second
    assert first != 3


def test_history_finds_the_best_epoch_by_validation_loss_and_skips_nan() -> None:
    history = some_history()
    assert history.best_epoch == 13
    assert history.find_best("loss") == 30
    ragged = History()
    assert ragged.best_epoch is None
    for accuracy in (math.nan, 0.5, 0.7, 0.7):
        ragged.append({"loss": math.nan, "accuracy": accuracy})
    assert ragged.find_best("accuracy") == 3
    assert ragged.best_epoch is None
    assert "4 epochs" in str(ragged)


def test_history_prints_as_an_aligned_table_that_elides_the_middle() -> None:
    lines = str(some_history()).splitlines()
    assert lines[0].split() == ["epoch", "loss", "val_loss", "lr"]
    assert len(lines) == 1 + 4 + 1 + 4 + 1
    assert len({len(line) for line in lines[:-1]}) == 1
    assert [line.split()[0] for line in lines[1:10]] == ["1", "2", "3", "4", "⋮", "27", "28", "29", "30"]
    assert lines[-1] == "30 epochs, best val_loss 1 at epoch 13"
    assert len(str(some_history(9)).splitlines()) == 11
    assert "no finished epoch" in str(History())
    assert "<table" in some_history()._repr_html_()
    assert "best val_loss 1 at epoch 13" in some_history()._repr_html_()
    assert "no finished epoch" in History()._repr_html_()


def test_history_exports_to_pandas_from_epoch_one() -> None:
    frame = some_history(3).to_frame()
    assert list(frame.columns) == ["loss", "val_loss", "lr"]
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame.loc[3, "loss"] == pytest.approx(1 / 3)


def test_history_refuses_other_metrics_and_names_those_it_has() -> None:
    history = some_history(2)
    with pytest.raises(ValueError, match=r"must have the metrics \['loss', 'val_loss', 'lr'\], got \['loss'\]"):
        history.append({"loss": 1.0})
    with pytest.raises(KeyError, match="no metric 'acc'; recorded: loss, val_loss, lr"):
        history["acc"]


def test_history_plots_training_solid_validation_dashed_and_the_best_epoch() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ax = some_history().plot()
    training_line, validation_line, best = ax.get_lines()
    assert (training_line.get_color(), training_line.get_linestyle()) == (plotting.TRAIN["color"], "-")
    assert (validation_line.get_color(), validation_line.get_linestyle()) == (plotting.VAL["color"], "--")
    assert np.asarray(best.get_xydata()).tolist() == [[13.0, 1.0]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights["training"] < 0.1 < 0.9 < heights["validation"], "a line's name stands where the line ends"
    own = plt.figure().add_subplot()
    assert some_history().plot(own, metric="lr") is own
    with pytest.raises(KeyError, match="no metric 'accuracy'"):
        some_history().plot(metric="accuracy")
    plt.close("all")


# --- early stopping --------------------------------------------------------------------------------------------------


class Overwrite(Callback):
    """Pretends that the epochs came out with these validation losses."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_epoch_end(self, state: TrainState) -> None:
        state.metrics["val_loss"] = self.values[state.epoch - 1]


def test_early_stopping_waits_its_patience_and_restores_the_best_weights() -> None:
    model, snapshots = network(), []
    history = fit_mse(
        model,
        val=regression(20, 1),
        max_epochs=10,
        callbacks=[
            Overwrite([math.nan, 3.0, 4.0, math.nan, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
            EarlyStopping(patience=3),
            lambda state: snapshots.append(weights_of(state.model)),
        ],
    )
    assert len(history) == 5
    assert torch.equal(weights_of(model), snapshots[1])
    assert not torch.equal(weights_of(model), snapshots[-1])
    assert history.restored_epoch == 2
    assert history.stopped_by == "early stopping (val_loss no better for 3 epochs)"


@pytest.mark.parametrize(("min_delta", "epochs"), [(0.0, 6), (0.5, 3)])
def test_early_stopping_counts_only_improvements_above_min_delta(min_delta: float, epochs: int) -> None:
    callbacks = [Overwrite([5.0, 4.9, 4.8, 4.7, 4.6, 4.5]), EarlyStopping(patience=2, min_delta=min_delta)]
    assert len(fit_mse(network(), val=regression(20, 1), max_epochs=6, callbacks=callbacks)) == epochs


def test_early_stopping_wants_accuracies_to_rise() -> None:
    model, data = network(2), classification(200)
    stopper = EarlyStopping("val_accuracy", patience=4)
    history = fit(
        model, data, val=data, loss_fn=F.cross_entropy, optimizer=sgd(model, 0.5), max_epochs=60, callbacks=[stopper]
    )
    assert stopper.best.value == max(history["val_accuracy"]) > history["val_accuracy"][0]
    assert evaluate(model, data, loss_fn=F.cross_entropy)["accuracy"] == stopper.best.value


def test_early_stopping_restores_the_best_also_at_max_epochs_and_can_leave_the_last() -> None:
    values = [1.0, 2.0, 3.0]
    restored, last, plain = network(), network(), network()
    for model, restore_best in ((restored, True), (last, False)):
        callbacks = [Overwrite(values), EarlyStopping(restore_best=restore_best)]
        fit_mse(model, val=regression(20, 1), callbacks=callbacks)
    fit_mse(plain)
    assert_same_weights(last, plain)
    once = network()
    fit_mse(once, max_epochs=1)
    assert_same_weights(restored, once)


def test_early_stopping_begins_anew_in_a_second_run() -> None:
    stopper = EarlyStopping(patience=1)
    for _ in range(2):
        history = fit_mse(network(), val=regression(20, 1), callbacks=[Overwrite([1.0, 2.0, 3.0]), stopper])
        assert len(history) == 2


# --- interrupts ------------------------------------------------------------------------------------------------------

STEPS = math.ceil(ROWS / 16)


def test_an_interrupt_in_a_later_epoch_returns_the_history_and_the_best_weights() -> None:
    model, expected = network(), network()
    whole = fit_mse(expected, val=regression(20, 1), max_epochs=2)
    history = fit_mse(model, val=regression(20, 1), max_epochs=9, callbacks=[InterruptAt(2 * STEPS + 1)])
    assert history.stopped_by == "interrupted"
    assert history["val_loss"] == whole["val_loss"]
    assert len(history.step_loss) == 2 * STEPS + 1
    assert history["val_loss"][0] > history["val_loss"][1], "the second epoch is the best, or the test shows nothing"
    assert history.restored_epoch == 2
    assert_same_weights(model, expected)


def test_an_interrupt_in_the_first_epoch_keeps_the_weights_reached() -> None:
    model, expected = network(), network()
    history = fit_mse(model, callbacks=[InterruptAt(STEPS)])
    fit_mse(expected, max_epochs=1)
    assert len(history) == 0
    assert history.restored_epoch is None
    assert_same_weights(model, expected)


@pytest.mark.parametrize("moment", ["on_train_begin", "on_epoch_end", "on_train_end"])
def test_an_interrupt_in_any_callback_ends_the_run_in_order(moment: str) -> None:
    class Interrupt(Callback):
        pass

    class Closes(Callback):
        closed = False

        def on_train_end(self, state: TrainState) -> None:
            self.closed = True

    def press(self: Callback, state: TrainState) -> None:
        raise KeyboardInterrupt

    setattr(Interrupt, moment, press)
    other = Closes()
    history = fit_mse(network(), callbacks=[Interrupt(), other])
    assert history.stopped_by == "interrupted"
    assert len(history) == {"on_train_begin": 0, "on_epoch_end": 1, "on_train_end": 3}[moment]
    assert other.closed


def test_a_callback_can_stop_the_run_within_an_epoch() -> None:
    class StopAtStep(Callback):
        def on_step_end(self, state: TrainState) -> None:
            if state.step == STEPS + 2:
                state.stop("enough steps")

    history = fit_mse(network(), callbacks=[StopAtStep()])
    assert history.stopped_by == "enough steps"
    assert len(history.step_loss) == STEPS + 2
    assert len(history) == 2


def test_gradients_are_there_at_the_step_end_and_the_state_knows_the_step() -> None:
    seen: list[tuple[int, int, float]] = []

    class Look(Callback):
        def on_step_end(self, state: TrainState) -> None:
            assert all(parameter.grad is not None for parameter in state.model.parameters())
            seen.append((state.epoch, state.step, state.loss))

    history = fit_mse(network(), callbacks=[Look()], max_epochs=2)
    assert [(epoch, step) for epoch, step, _ in seen] == [(1 + k // STEPS, k + 1) for k in range(2 * STEPS)]
    assert [loss for _, _, loss in seen] == history.step_loss


def test_an_error_in_a_callback_still_ends_the_others_and_reaches_the_caller() -> None:
    ended: list[str] = []

    class Ends(Callback):
        def on_train_end(self, state: TrainState) -> None:
            ended.append("yes")

    def fails(state: TrainState) -> None:
        raise OSError("disk full")

    model = network().eval()
    with pytest.raises(OSError, match="disk full"):
        fit_mse(model, callbacks=[fails, Ends()])
    assert ended == ["yes"]
    assert not model.training


# --- non-finite losses -----------------------------------------------------------------------------------------------


class Detonate(nn.Module):
    """Passes its input on, until the chosen call in training mode makes it infinite."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call, self.calls = call, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += self.training
        return inputs * (math.inf if self.training and self.calls >= self.call else 1.0)


def test_a_nan_loss_names_epoch_step_and_the_first_layer_and_restores_the_best_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), Detonate(2 * STEPS + 3)), nn.Linear(4, 1))
    expected = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), Detonate(10**9)), nn.Linear(4, 1))
    expected.load_state_dict(model.state_dict())
    with pytest.raises(NonFiniteLossError) as caught:
        fit_mse(model, max_epochs=5)
    fit_mse(expected, max_epochs=2)
    error = caught.value
    assert (error.epoch, error.step, error.layer) == (3, 3, "1.1")
    assert re.fullmatch(
        r"The loss became (nan|inf) at epoch 3, step 3\. The first non-finite values are in the output of layer '1\.1' "
        r"\(Detonate\(\)\)\. The weights of epoch 2, the best so far, are back in the model\. Try a smaller .*",
        str(error),
    )
    assert len(error.history) == 2
    assert not math.isfinite(error.history.step_loss[-1])
    assert_same_weights(model, expected)
    assert not any(module._forward_hooks for module in model.modules())


def test_an_exploding_run_stops_quietly_on_request_with_the_initial_weights_back() -> None:
    model = nn.Sequential(*[layer for _ in range(10) for layer in (nn.Linear(3, 3), nn.ReLU())], nn.Linear(3, 1))
    before = weights_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e15)
    history = fit_mse(model, optimizer=optimizer, on_nonfinite="stop")
    assert history.stopped_by is not None
    assert history.stopped_by.startswith("non-finite loss at epoch 1, step ")
    assert history.restored_epoch == 0
    assert str(history).endswith("; initial weights restored")
    assert len(history) == 0
    assert torch.equal(weights_of(model), before)


def test_a_bad_weight_is_named_rather_than_the_output_it_spoils() -> None:
    class SpoilWeight(Callback):
        def on_step_end(self, state: TrainState) -> None:
            if state.step == STEPS + 1:
                with torch.no_grad():
                    next(iter(state.model.get_submodule("3").parameters()))[0, 0] = math.nan

    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step 2\..*the weight of layer '3' \(Linear\(in_features=8"):
        fit_mse(network(), callbacks=[SpoilWeight()])


def test_weights_spoiled_by_the_very_last_step_are_found() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    with pytest.raises(NonFiniteLossError, match=r"update made the weights non-finite at epoch 1, step 1\..*layer '0'"):
        fit_mse(
            model,
            loss_fn=lambda outputs, targets: 1e10 * MSE(outputs, targets),
            optimizer=optimizer,
            batch_size=ROWS,
            max_epochs=1,
        )
    assert torch.equal(weights_of(model), weights_of(network()))


def test_nan_in_inputs_targets_or_penalty_is_told_apart() -> None:
    inputs, targets = regression()
    with pytest.raises(NonFiniteLossError, match=r"in the inputs of this batch\..*Clean the data") as caught:
        fit_mse(network(), (inputs.clone().fill_(math.nan), targets))
    assert caught.value.layer is None
    with pytest.raises(NonFiniteLossError, match=r"the loss itself; all layers' outputs .*Check the targets"):
        fit_mse(network(), (inputs, targets.clone().fill_(math.inf)))
    with pytest.raises(NonFiniteLossError, match="The penalty became inf at epoch 1, step 1"):
        fit_mse(network(), penalty=lambda model: torch.tensor(math.inf))


# --- checkpoints -----------------------------------------------------------------------------------------------------


WAITS_FROM_EPOCH_THREE = [5.0, 4.0, 4.5, 4.6, 4.7, 4.8, 4.9]


def everything(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path, **more: Any) -> History:
    arguments: dict[str, Any] = {
        "val": regression(20, 1),
        "optimizer": optimizer,
        "max_epochs": 7,
        "clip_norm": 1.0,
        # The third epoch is one of waiting, which the checkpoint must know though its callback stands first.
        "callbacks": [Overwrite(WAITS_FROM_EPOCH_THREE), ModelCheckpoint(path), EarlyStopping(patience=3)],
    }
    return fit_mse(model, **(arguments | more))


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("scheduled", ["no", "function", "torch"])
@pytest.mark.parametrize("seed", [3, None])
def test_a_resumed_run_equals_one_that_never_stopped(
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], scheduled: str, seed: int | None, tmp_path: Path
) -> None:
    def run(path: Path, **more: Any) -> tuple[nn.Module, History]:
        model = network(dropout=0.3, norm=True)
        optimizer = make_optimizer(model)
        if scheduled == "function":
            more["schedule"] = lambda step: 1.0 / (1 + 0.1 * step)
        if scheduled == "torch":
            more["schedule"] = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
        torch.manual_seed(11)
        return model, everything(model, optimizer, path, seed=seed, **more)

    whole_model, whole = run(tmp_path / "whole.pt")
    checkpoint, stopper = ModelCheckpoint(tmp_path / "part.pt"), EarlyStopping(patience=3)
    interrupted = [Overwrite(WAITS_FROM_EPOCH_THREE), checkpoint, stopper, InterruptAt(3 * STEPS + 2)]
    _, part = run(tmp_path / "part.pt", callbacks=interrupted)
    assert part.stopped_by == "interrupted"
    torch.rand(5)
    model, resumed = run(tmp_path / "part.pt", resume_from=tmp_path / "part.pt")
    assert resumed == whole
    assert resumed.stopped_by == whole.stopped_by
    assert resumed.restored_epoch == whole.restored_epoch
    assert_same_weights(model, whole_model)


def test_an_interrupt_after_a_resume_goes_back_to_the_best_weights_from_before_it(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    expected = network()
    fit_mse(expected, val=regression(20, 1), max_epochs=2, callbacks=[ModelCheckpoint(path)])
    model = network()
    interrupt = InterruptAt(2 * STEPS + 1)
    history = fit_mse(model, val=regression(20, 1), max_epochs=9, resume_from=path, callbacks=[interrupt])
    assert (history.stopped_by, history.restored_epoch, len(history)) == ("interrupted", 2, 2)
    assert_same_weights(model, expected)


def test_a_resumed_run_with_a_shuffling_loader_equals_one_that_never_stopped(tmp_path: Path) -> None:
    def run(**more: Any) -> tuple[nn.Module, History]:
        model = network(dropout=0.3)
        dataset = TensorDataset(*regression())
        loader = DataLoader(dataset, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(2))
        return model, fit_mse(model, loader, **({"max_epochs": 4} | more))

    whole_model, whole = run()
    run(max_epochs=2, callbacks=[ModelCheckpoint(tmp_path / "run.pt")])
    model, resumed = run(resume_from=tmp_path / "run.pt")
    assert resumed == whole
    assert_same_weights(model, whole_model)


def test_resuming_a_run_whose_patience_is_spent_returns_it_and_more_patience_goes_on(tmp_path: Path) -> None:
    path, values = tmp_path / "run.pt", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    def run(patience: int, **more: Any) -> tuple[nn.Module, History]:
        model = network()
        callbacks = [Overwrite(values), EarlyStopping(patience=patience), ModelCheckpoint(path)]
        return model, everything(model, sgd(model), path, callbacks=callbacks, **more)

    first_model, first = run(2)
    assert len(first) == 3
    again_model, again = run(2, resume_from=path)
    assert again == first
    assert again.stopped_by == first.stopped_by
    assert_same_weights(first_model, again_model)
    assert len(run(4, resume_from=path)[1]) == 5


def test_a_checkpoint_holds_only_tensors_and_plain_containers_and_its_model_loads(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "run.pt"
    model, other = network(), network(dropout=0.1)
    everything(model, adam(model), path, callbacks=[ModelCheckpoint(path)])
    content = torch.load(path, weights_only=True)
    assert other.load_state_dict(content["model"])
    assert_same_weights(model, other)
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def test_save_best_only_keeps_the_best_epochs_file(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    values = [3.0, 1.0, 2.0, 1.5, 4.0, 5.0, 6.0]
    everything(
        model := network(), sgd(model), path, callbacks=[Overwrite(values), ModelCheckpoint(path, save_best_only=True)]
    )
    assert torch.load(path, weights_only=True)["epoch"] == 2


def test_a_crash_while_writing_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    everything(model := network(), sgd(model), path, max_epochs=1)
    before = path.read_bytes()

    def crash(content: object, file: Path) -> None:
        file.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", crash)
    history = everything(model := network(), sgd(model), path)
    assert history.stopped_by == "interrupted"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    everything(model := network(), sgd(model), path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*none\.pt"):
        fit_mse(network(), resume_from=tmp_path / "none.pt")
    wider = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Dropout(), nn.Linear(9, 1))
    with pytest.raises(ValueError, match=r"another model: '0\.weight' is \(8, 3\) there, \(9, 3\) in the model"):
        fit_mse(wider, resume_from=path)
    with pytest.raises(ValueError, match=r"'3\.weight' is \(1, 8\) there, nothing of that name in the model"):
        fit_mse(network(norm=True), resume_from=path)
    with pytest.raises(ValueError, match="written with the optimizer SGD, got Adam"):
        fit_mse(model, optimizer=adam(model), resume_from=path)
    whole = path.read_bytes()
    for broken in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            fit_mse(network(), resume_from=path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="was not written by ModelCheckpoint"):
        fit_mse(network(), resume_from=path)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_fit_is_silent_and_the_bar_writes_to_standard_output_only(capfd: pytest.CaptureFixture[str]) -> None:
    fit_mse(network())
    assert capfd.readouterr() == ("", "")
    unhurried: list[object] = [lambda state: time.sleep(0.11), ProgressBar()]  # it redraws ten times a second at most
    fit_mse(network(), val=regression(20, 1), callbacks=unhurried)
    shown = capfd.readouterr()
    assert "3/3" in shown.out
    assert "val_loss=" in shown.out
    assert shown.err == ""


def test_the_live_plot_prints_text_outside_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    fit_mse(network(), val=regression(20, 1), max_epochs=5, callbacks=[LiveLossPlot(every=2)])
    shown = capsys.readouterr()
    assert shown.out.count("validation") == 3, "after epochs 2 and 4, and at the end"
    assert shown.err == ""


def test_the_live_plot_draws_a_panel_a_metric_in_the_courses_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    import livelossplot.plot_losses
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    figures: list[Any] = []
    monkeypatch.setattr(livelossplot.plot_losses, "get_mode", lambda: "notebook")
    monkeypatch.setattr("livelossplot.outputs.matplotlib_plot.clear_output", lambda wait: None)
    monkeypatch.setattr(plotting, "show", lambda figure, alt: figures.append(figure))
    data, model = classification(), network(2)
    with mpl.rc_context():
        plotting.use_theme()
        fit(
            model,
            data,
            val=data,
            loss_fn=F.cross_entropy,
            optimizer=sgd(model),
            max_epochs=2,
            callbacks=[LiveLossPlot(every=2)],
        )
        fit_mse(network(), max_epochs=2, callbacks=[LiveLossPlot(every=2)])
        with_accuracy, only_loss = figures
        panels = {ax.get_ylabel(): ax for ax in with_accuracy.axes}
        assert set(panels) == {"loss", "accuracy"}
        for ax in panels.values():
            assert [line.get_color() for line in ax.get_lines()] == [plotting.TRAIN["color"], plotting.VAL["color"]]
            assert ax.get_lines()[0].get_xdata().tolist() == [1, 2]
        assert [ax.get_visible() for ax in only_loss.axes] == [True, False]
        with_accuracy.canvas.draw()
    plt.close("all")


@pytest.mark.slow
def test_importing_training_loads_no_plotting_or_progress_packages() -> None:
    heavy = ["matplotlib", "pandas", "tqdm", "livelossplot", "IPython", "seaborn"]
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import course_utils.training; "
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- error messages --------------------------------------------------------------------------------------------------

INPUTS, TARGETS = regression(6)
CLASSES = torch.tensor([0, 1, 0, 1, 1, 0])
CROSS_ENTROPY = nn.CrossEntropyLoss()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((INPUTS, TARGETS[:5]), "train needs as many targets as inputs, got 6 inputs, 5 targets"),
        ((INPUTS[:0], TARGETS[:0]), r"train is empty: inputs of shape \(0, 3\)"),
        ((INPUTS, torch.tensor(1.0)), r"train must have a batch dimension, got \(6, 3\) and \(\)"),
        ((INPUTS.numpy(), TARGETS), "pair of tensors .* or a DataLoader, got tuple of ndarray, Tensor"),
        (INPUTS, "pair of tensors .* or a DataLoader, got Tensor of Tensor"),
        ((INPUTS.double(), TARGETS), "train inputs must be torch.float32 as .*, got torch.float64"),
        ((INPUTS.byte(), TARGETS), "train inputs must be torch.float32 as .*, got torch.uint8"),
        (DataLoader(TensorDataset(INPUTS[:3]), batch_size=4, drop_last=True), "train is empty: its DataLoader has no"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(train: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit_mse(network(), train)


@pytest.mark.parametrize(
    ("loss_fn", "targets", "out_features", "message"),
    [
        (MSE, TARGETS.squeeze(1), 1, r"MSELoss compares .* outputs have shape \(6, 1\) and the targets \(6,\)"),
        (F.mse_loss, TARGETS.squeeze(1), 1, r"mse_loss compares .* \(6, 1\) and the targets \(6,\)"),
        (MSE, CLASSES.unsqueeze(1), 1, "MSELoss needs floating-point targets, got train targets of torch.int64"),
        (CROSS_ENTROPY, CLASSES.float(), 2, r"dtype torch.int64, got train targets of torch.float32 and shape \(6,\)"),
        (F.cross_entropy, CLASSES.int(), 2, "dtype torch.int64, got train targets of torch.int32"),
        (CROSS_ENTROPY, CLASSES.unsqueeze(1), 2, r"class indices of shape \(6,\) for outputs \(6, 2\), .* \(6, 1\)"),
        (CROSS_ENTROPY, CLASSES + 1, 2, r"classes in \[0, 2\), .* got classes from 1 to 2"),
        (lambda outputs, targets: (outputs - targets) ** 2, TARGETS, 1, r"scalar tensor, .* of shape \(6, 1\)"),
        (lambda outputs, targets: 0.5, TARGETS, 1, "scalar tensor, .* got 0.5"),
    ],
)
def test_a_loss_and_targets_that_do_not_fit_are_refused_before_torch_misreads_them(
    loss_fn: Any, targets: Tensor, out_features: int, message: str
) -> None:
    model = network(out_features)
    before = weights_of(model)
    with pytest.raises((TypeError, ValueError), match=message):
        fit_mse(model, (INPUTS, targets), loss_fn=loss_fn)
    assert torch.equal(weights_of(model), before)


def test_losses_with_shapes_of_their_own_pass() -> None:
    model = network(2)
    fit_mse(model, (INPUTS, F.one_hot(CLASSES).float()), loss_fn=CROSS_ENTROPY)
    fit_mse(model, (INPUTS, torch.tensor([0, 1, -100, 1, 1, 0])), loss_fn=CROSS_ENTROPY)
    fit_mse(model, (INPUTS, torch.tensor([0, 1, 9, 1, 1, 0])), loss_fn=nn.CrossEntropyLoss(ignore_index=9))
    fit_mse(network(1), (INPUTS, TARGETS.squeeze(1)), loss_fn=lambda outputs, y: MSE(outputs.squeeze(1), y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"max_epochs": 2.5}, "max_epochs must be an integer, got 2.5"),
        ({"clip_norm": 0.0}, r"clip_norm must be in \(0, inf\), got 0.0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be one of 'raise', 'stop', got 'ignore'"),
        ({"schedule": 0.1}, "schedule must be a function of the step or a scheduler of torch, got 0.1"),
        ({"callbacks": [3]}, "callbacks must be Callback objects or functions of the state, got 3"),
        ({"callbacks": [EarlyStopping]}, "callbacks must be Callback objects .* got <class"),
        ({"callbacks": [EarlyStopping()]}, "EarlyStopping's monitor must be one of 'loss', 'lr', got 'val_loss'"),
        ({"callbacks": [ModelCheckpoint("never", monitor="acc")]}, "ModelCheckpoint's monitor must be .* got 'acc'"),
        ({"val": (INPUTS, TARGETS[:5])}, "val needs as many targets as inputs"),
        ({"val": (INPUTS, TARGETS.squeeze(1))}, r"on val the model's outputs have shape \(6, 1\)"),
        ({"optimizer": sgd(network())}, "optimizer holds none of the model's parameters"),
    ],
)
def test_arguments_out_of_range_are_refused_with_their_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit_mse(network(), (INPUTS, TARGETS), **arguments)


def test_a_scheduler_of_another_optimizer_is_refused() -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(sgd(network()), step_size=1)
    with pytest.raises(ValueError, match="built for another optimizer"):
        fit_mse(network(), schedule=scheduler)


def test_arguments_of_callbacks_are_checked() -> None:
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="min_delta must be in"):
        EarlyStopping(min_delta=-1.0)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        LiveLossPlot(every=0)


def test_evaluate_refuses_what_fit_refuses() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(network(), (INPUTS, TARGETS), loss_fn=MSE, batch_size=0)
    with pytest.raises(ValueError, match=r"on data the model's outputs have shape \(6, 1\)"):
        evaluate(network(), (INPUTS, TARGETS.squeeze(1)), loss_fn=MSE)


@pytest.mark.parametrize("n_rows", [1, 9, 65])
def test_a_last_batch_of_one_row_is_refused_before_training_if_the_model_has_batchnorm(n_rows: int) -> None:
    torch.manual_seed(0)
    data = torch.randn(n_rows, 3), torch.zeros(n_rows, dtype=torch.int64)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    options: dict[str, Any] = {"loss_fn": nn.functional.cross_entropy, "max_epochs": 1, "batch_size": 8}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"would hold one row.*{n_rows} rows in batches of batch_size=8"):
        fit(model, data, optimizer=optimizer, **options)
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert len(fit(plain, data, optimizer=torch.optim.SGD(plain.parameters(), lr=0.1), **options)) == 1


# ------------------------------------------------------------------------- losses, loaders and resumes that users met


def classifier() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(50, 4)
    return nn.Linear(4, 3), inputs, torch.arange(50) % 3


@pytest.mark.parametrize("batch_size", [1, 7, 50])
@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5])),
        partial(F.cross_entropy, weight=torch.tensor([1.0, 5.0, 0.5]), label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=1),
        F.cross_entropy,
    ],
)
def test_oracle_the_mean_loss_does_not_depend_on_the_batches(loss_fn: Any, batch_size: int) -> None:
    model, inputs, targets = classifier()
    targets[10:20] = getattr(loss_fn, "ignore_index", -100)
    found = evaluate(model, (inputs, targets), loss_fn=loss_fn, batch_size=batch_size)
    assert found["loss"] == pytest.approx(loss_fn(model(inputs), targets).item(), rel=1e-5)
    counted = targets != getattr(loss_fn, "ignore_index", -100)
    right = (model(inputs).argmax(1) == targets)[counted].float().mean().item()
    assert found["accuracy"] == pytest.approx(right)


def test_a_batch_without_a_label_is_no_step_and_a_sum_is_refused() -> None:
    model, inputs, targets = classifier()
    targets[:10] = -100
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    history = fit(
        model, (inputs, targets), loss_fn=F.cross_entropy, optimizer=sgd, max_epochs=1, batch_size=10, shuffle=False
    )
    assert math.isfinite(history["loss"][0])
    with pytest.raises(ValueError, match="reduction='sum'"):
        evaluate(model, (inputs, targets), loss_fn=nn.CrossEntropyLoss(reduction="sum"))


@pytest.mark.parametrize("kind", ["flat", "pictures", "loader"])
def test_a_last_batch_of_one_is_refused_before_a_weight_has_changed(kind: str) -> None:
    inputs, targets = torch.randn(129, 4, 4), torch.randint(0, 3, (129,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    train: Any = {
        "flat": (inputs.flatten(1), targets),
        "pictures": (inputs, targets),
        "loader": DataLoader(TensorDataset(inputs, targets), 64),
    }[kind]
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="of which BatchNorm has no variance: 129 rows"):
        fit(model, train, loss_fn=F.cross_entropy, optimizer=sgd, max_epochs=1)
    torch.testing.assert_close(model.state_dict(), before)


@pytest.mark.parametrize("scheduler", ["StepLR", "ExponentialLR", "OneCycleLR", "ReduceLROnPlateau"])
def test_rates_are_put_back_after_any_scheduler(scheduler: str) -> None:
    model, inputs, targets = classifier()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"StepLR": (1,), "ExponentialLR": (0.5,), "OneCycleLR": (1.0, 10), "ReduceLROnPlateau": ()}[scheduler]
    schedule = getattr(torch.optim.lr_scheduler, scheduler)(sgd, *settings)
    before = sgd.param_groups[0]["lr"]
    fit(model, (inputs, targets), loss_fn=F.cross_entropy, optimizer=sgd, max_epochs=3, schedule=schedule)
    assert sgd.param_groups[0]["lr"] == before


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_of_nan_is_found_before_it_spoils_the_weights(clip_norm: float | None) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:  # finite, but the root has no slope at 0
        return (outputs - targets).square().mean() + (outputs - outputs).abs().sum().sqrt()

    model, inputs = nn.Linear(4, 1), torch.randn(64, 4)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(NonFiniteLossError, match="The gradient became NaN or infinite") as raised:
        fit(model, (inputs, inputs[:, :1]), loss_fn=loss, optimizer=sgd, max_epochs=1, clip_norm=clip_norm)
    assert raised.value.step == 1
    assert model.weight.isfinite().all()


def test_a_dataset_that_draws_with_numpy_or_python_follows_the_seed() -> None:
    class Noisy(Dataset[Any]):
        def __len__(self) -> int:
            return 32

        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            noise = np.random.randn(2)  # noqa: NPY002 - what users write
            return torch.tensor([*noise, random.random()], dtype=torch.float32), torch.zeros(1)

    def run() -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        return fit(model, DataLoader(Noisy(), 16), loss_fn=nn.MSELoss(), optimizer=sgd, max_epochs=1, seed=5)["loss"]

    first = run()
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    assert run() == first
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == python_state


def test_checkpoints_move_between_compiled_and_plain_models(tmp_path: Path) -> None:
    def make(compiled: bool) -> Any:
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        return torch.compile(model, backend="eager") if compiled else model

    _, inputs, targets = classifier()
    for compiled in (True, False):
        path = tmp_path / f"{compiled}.pt"
        for max_epochs, model, rest in (
            (1, make(compiled), {"callbacks": [ModelCheckpoint(path)]}),
            (2, make(not compiled), {"resume_from": path, "callbacks": [EarlyStopping()]}),
        ):
            sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            options: dict[str, Any] = {"loss_fn": F.cross_entropy, "optimizer": sgd, "val": (inputs, targets), **rest}
            history = fit(model, (inputs, targets), max_epochs=max_epochs, seed=0, **options)
        assert len(history) == 2


def weighted_epoch(loss_fn: Any, weights: Tensor | None) -> Any:
    model, inputs, classes = classifier()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"loss_fn": loss_fn, "optimizer": sgd, "sample_weight": weights}
    history = fit(model, (inputs, classes), max_epochs=1, batch_size=10, seed=0, **options)
    return history, model.get_parameter("weight").detach()


def test_oracle_weights_are_those_of_a_loop_by_hand() -> None:
    single = partial(F.cross_entropy, reduction="none")
    weights = torch.arange(50.0)
    history, found = weighted_epoch(single, weights)

    model, inputs, targets = classifier()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    total = 0.0
    for rows in order.split(10):
        loss = (single(model(inputs[rows]), targets[rows]) * weights[rows] / weights.mean()).mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        total += loss.item() / 5
    torch.testing.assert_close(found, model.get_parameter("weight").detach())
    assert history["loss"][0] == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(weighted_epoch(single, torch.ones(50))[1], weighted_epoch(F.cross_entropy, None)[1])


@pytest.mark.parametrize(
    ("loss_fn", "weights", "message"),
    [
        (F.cross_entropy, torch.ones(50), r"one loss a sample, of shape \(10,\).*got \(\)"),
        (F.cross_entropy, torch.ones(49), r"a weight for each of train's rows, got \(49,\)"),
        (F.cross_entropy, -torch.ones(50), "at least 0 and not all 0, got weights from -1.0 to -1.0"),
        (F.cross_entropy, torch.zeros(50), "not all 0, got weights from 0.0 to 0.0"),
        (F.cross_entropy, torch.full((50,), math.nan), "must be finite"),
    ],
)
def test_bad_weights_are_shown_and_a_mean_is_not_weighted(loss_fn: Any, weights: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_epoch(loss_fn, weights)
