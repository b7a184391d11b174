"""The cost of an epoch under `fit`, against a loop by hand and against other trainers.

20,000 rows of 8 numbers, batches of 128, an 8-64-64-1 network, plain SGD, one CPU thread; a validation set and
accuracies are left out, so that all do the same work.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from benchlib import Row, median_ratio, time_in_turn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.training import fit

ROWS, FEATURES, BATCH, EPOCHS, LR = 20_000, 8, 128, 4, 0.01


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def _by_fit(inputs: Tensor, targets: Tensor) -> None:
    model = _network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    fit(
        model,
        (inputs, targets),
        loss_fn=nn.MSELoss(),
        optimizer=optimizer,
        max_epochs=EPOCHS,
        batch_size=BATCH,
        seed=0,
    )


def _by_hand(inputs: Tensor, targets: Tensor) -> None:
    model, loss_fn = _network(), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(EPOCHS):
        total = 0.0
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), BATCH):
            index = order[start : start + BATCH]
            optimizer.zero_grad()
            loss = loss_fn(model(inputs[index]), targets[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)


def _by_loader(inputs: Tensor, targets: Tensor) -> None:
    model, loss_fn = _network(), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True)
    for _ in range(EPOCHS):
        total = 0.0
        for batch_inputs, batch_targets in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(batch_inputs), batch_targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch_inputs)


def _by_skorch(inputs: Tensor, targets: Tensor) -> None:
    from skorch import NeuralNetRegressor

    net = NeuralNetRegressor(
        _network(),
        max_epochs=EPOCHS,
        batch_size=BATCH,
        lr=LR,
        optimizer=torch.optim.SGD,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    net.fit(inputs, targets)


def _by_lightning(inputs: Tensor, targets: Tensor) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.loss_fn = _network(), nn.MSELoss()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss: Tensor = self.loss_fn(self.network(batch[0]), batch[1])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on worker processes, which rows in memory do not want
        trainer.fit(Module(), DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True))


def run() -> list[Row]:
    """Time all five in turn, on one thread; those that are not installed are left out."""
    torch.set_num_threads(1)
    inputs = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    targets = inputs.sin().sum(dim=1, keepdim=True)
    trainers: dict[str, tuple[Callable[[Tensor, Tensor], None], float]] = {
        "a loop by hand": (_by_hand, 1.05),
        "a DataLoader loop": (_by_loader, 0.55),
    }
    for package, trainer, bound in (("skorch", _by_skorch, 0.45), ("lightning", _by_lightning, 0.36)):
        try:
            __import__(package)
        except ImportError:
            print(f"{package} is not installed: pip install -e .[bench]")
        else:
            trainers[package] = (trainer, bound)
    rivals = {"fit": _by_fit} | {name: trainer for name, (trainer, _) in trainers.items()}
    calls = {name: lambda rival=rival: rival(inputs, targets) for name, rival in rivals.items()}
    seconds = time_in_turn(calls, rounds=11)
    per_epoch = {name: sorted(times)[len(times) // 2] / EPOCHS * 1000 for name, times in seconds.items()}
    return [
        Row(f"fit / {name}", median_ratio(seconds, "fit", name), bound, f"{per_epoch['fit']:.1f} and {ms:.1f} ms")
        for name, (_, bound) in trainers.items()
        for ms in [per_epoch[name]]
    ]
