"""A race between optimizers on a tiny problem, and the rules students break; for `homework.optimizer_workshop`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.homework.engine.judge import Mistake

__all__ = ["ENTRANTS", "hold_race", "make_race", "race_mistakes"]


class _Moody(nn.Module):
    """Halves its input while training, so that a validation in the wrong mode shows."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x if self.training else x


def _stage(seed: int) -> dict[str, Any]:
    """Return what a race needs: models and batches that follow from a seed, a loss, and validation data."""
    rng = np.random.default_rng(seed)
    truth = torch.tensor(rng.normal(size=(3, 1)))
    x_val = torch.tensor(rng.normal(size=(20, 3)))

    def make_model(seed: int) -> nn.Module:
        start = torch.tensor(np.random.default_rng([seed, 1]).normal(size=(1, 3)))
        linear = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        linear.weight.data = start
        return nn.Sequential(linear, _Moody())

    def make_batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([seed, 2])
        for _ in range(3):
            x = torch.tensor(rng.normal(size=(4, 3)))
            yield x, x @ truth + 0.3 * torch.tensor(rng.normal(size=(4, 1)))

    loss_fn = nn.functional.mse_loss
    return {"make_model": make_model, "make_batches": make_batches, "loss_fn": loss_fn, "val": (x_val, x_val @ truth)}


ENTRANTS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "slow": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "fast": lambda parameters: torch.optim.SGD(parameters, lr=4.0),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.2),
}


def hold_race(race: Any, entrants: list[str], seeds: list[int], stage: int) -> Any:
    """Call a race with these entrants and seeds on the problem number ``stage``."""
    return race({name: ENTRANTS[name] for name in entrants}, list(seeds), **_stage(stage))


def make_race(**twist: Any) -> Callable[..., Any]:
    """Return a fair race, or one with a rule broken."""

    def race(
        entrants: dict[str, Any], seeds: Sequence[int], *, make_model: Any, make_batches: Any, loss_fn: Any, val: Any
    ) -> Any:
        result = np.zeros((len(entrants), len(seeds)))
        for column, seed in enumerate(seeds):
            model, batches = make_model(seeds[0] if twist.get("one_start") else seed), make_batches(seed)
            for row, make_optimizer in enumerate(entrants.values()):
                if not twist.get("one_model"):
                    model = make_model(seeds[0] if twist.get("one_start") else seed)
                if not twist.get("used_up"):
                    chosen = seeds[0] if twist.get("one_order") else seed + row * twist.get("own_order", 0)
                    batches = make_batches(chosen)
                result[row, column] = _lap(model, make_optimizer, batches, loss_fn, val, twist)
        return result

    return race


def _lap(model: Any, make_optimizer: Any, batches: Any, loss_fn: Any, val: Any, twist: dict[str, Any]) -> float:
    def validate() -> float:
        if not twist.get("mode"):
            model.eval()
        with torch.no_grad():
            return float(loss_fn(model(val[0]), val[1]))

    watch = "before" in twist or "best" in twist
    optimizer = make_optimizer(model.parameters())
    seen, loss = [validate()] if watch else [], torch.zeros(())
    for x, y in batches:
        model.train()
        optimizer = make_optimizer(model.parameters()) if twist.get("anew") else optimizer
        loss = loss_fn(model(x), y)
        if not twist.get("add_up"):
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch:
            seen.append(validate())
        if twist.get("one_batch"):
            break
    if twist.get("train_loss"):
        return loss.item()
    if watch:
        return seen[0] if "before" in twist else min(seen)
    return validate()


def race_mistakes() -> list[Mistake]:
    """Return the broken rules, as races."""
    return [
        Mistake("each entrant goes on where the last one stopped: make a new model for each", make_race(one_model=1)),
        Mistake("the first entrant uses the batches up: make them anew for each", make_race(used_up=1)),
        Mistake("the gradients of all batches add up: is zero_grad called?", make_race(add_up=1)),
        Mistake("all seeds begin with the same weights", make_race(one_start=1)),
        Mistake("all seeds see the batches in the same order", make_race(one_order=1)),
        Mistake("the entrants of a seed see different batches: then luck decides", make_race(own_order=1)),
        Mistake("the model is still in training mode when it is validated", make_race(mode=1)),
        Mistake("that is the training loss of the last batch; the loss on `val` is asked for", make_race(train_loss=1)),
        Mistake("you take the best loss on the way: choosing by `val` flatters the noisy ones", make_race(best=1)),
        Mistake("you validate before the training", make_race(before=1)),
        Mistake("only the first batch is used: is the `return` inside the loop?", make_race(one_batch=1)),
        Mistake("the optimizer is made anew for each batch, so that it forgets its state", make_race(anew=1)),
    ]  # fmt: skip
