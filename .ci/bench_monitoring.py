"""What watching costs: training of a 784-100×10-10 ReLU network at batch 64 with and without monitors.

One thread, all variants side by side in one process: every round trains each variant for a few steps, in an order that
turns from round to round, and the ratio is the median over rounds of (variant / unmonitored in the same round), so that
other load on the machine hits both alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.models import MLP
from course_utils.monitoring import ActivationMonitor, GradientMonitor, WeightMonitor

# name, measured ratio, the bound it must keep (infinite: shown for context), a note
Row = tuple[str, float, float, str]

STEPS = 10
ROUNDS = 150
HISTOGRAM_ROUNDS = 4  # they are so slow that a few rounds tell
BATCH_SIZE = 64
CONTEXT = float("inf")

Monitor = Callable[[nn.Module], AbstractContextManager[Any]]

VARIANTS: dict[str, tuple[Monitor, float]] = {
    "GradientMonitor, every step": (lambda model: GradientMonitor(model), 1.15),
    "GradientMonitor, every tenth step": (lambda model: GradientMonitor(model, every=10), 1.03),
    "ActivationMonitor, every step": (lambda model: ActivationMonitor(model), CONTEXT),
    "ActivationMonitor, every tenth step": (lambda model: ActivationMonitor(model, every=10), CONTEXT),
    "WeightMonitor, every step": (lambda model: WeightMonitor(model), CONTEXT),
    "WeightMonitor, every tenth step": (lambda model: WeightMonitor(model, every=10), CONTEXT),
}


class Trainer:
    """One network that goes on training; each variant gets its own, all from the same start."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        torch.manual_seed(0)
        self.model = MLP(784, [100] * 10, 10, init="kaiming_normal")
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.inputs, self.targets = inputs, targets
        self.loss_fn = nn.CrossEntropyLoss()

    def train(self, after_backward: Callable[[], None] = lambda: None) -> None:
        """Train for `STEPS` steps."""
        for inputs, targets in zip(self.inputs, self.targets, strict=True):
            self.optimizer.zero_grad()
            self.loss_fn(self.model(inputs), targets).backward()
            after_backward()
            self.optimizer.step()


def run() -> list[Row]:
    """Measure all variants; about 20 seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        inputs = torch.randn(STEPS, BATCH_SIZE, 784)
        targets = torch.randint(0, 10, (STEPS, BATCH_SIZE))
        return [*_monitors(inputs, targets), _histograms(inputs, targets)]
    finally:
        torch.set_num_threads(threads)


def _monitors(inputs: Tensor, targets: Tensor) -> list[Row]:
    monitors: dict[str, Monitor] = {"": lambda model: nullcontext()}
    monitors |= {name: make for name, (make, _) in VARIANTS.items()}
    trainers = {name: Trainer(inputs, targets) for name in monitors}
    names = list(monitors)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(-2, ROUNDS):  # two rounds to warm up
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            monitor = monitors[name](trainers[name].model)  # hangs its hooks, which a training does once
            start = time.perf_counter()
            with monitor:
                trainers[name].train()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - start)
    plain = seconds.pop("")
    note = f"unmonitored step {statistics.median(plain) / STEPS * 1e6:.0f} µs, {ROUNDS} rounds of {STEPS} steps"
    return [(name, _median_ratio(seconds[name], plain), VARIANTS[name][1], note) for name in seconds]


def _histograms(inputs: Tensor, targets: Tensor) -> Row:
    from torch.utils.tensorboard import SummaryWriter

    watched, plain = Trainer(inputs, targets), Trainer(inputs, targets)
    ratios = []
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:

        def write() -> None:
            for name, parameter in watched.model.named_parameters():
                writer.add_histogram(name, parameter)
                writer.add_histogram(f"{name}.grad", parameter.grad)

        for _ in range(HISTOGRAM_ROUNDS):
            start = time.perf_counter()
            watched.train(write)
            middle = time.perf_counter()
            plain.train()
            ratios.append((middle - start) / (time.perf_counter() - middle))
    return ("TensorBoard histograms, every step", statistics.median(ratios), CONTEXT, "weights and gradients, context")


def _median_ratio(watched: list[float], plain: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(watched, plain, strict=True))


if __name__ == "__main__":
    for name, ratio, bound, note in run():
        verdict = "context" if bound == CONTEXT else f"{'ok' if ratio <= bound else 'TOO SLOW'}, bound {bound}"
        print(f"{name:38s} {ratio:7.3f}×  ({verdict}; {note})")
