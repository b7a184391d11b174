"""Train several models in one: a loss of each row for each member, early stopping member by member."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_utils.training import Callback
from course_utils.training.callbacks import TrainState

__all__ = ["HeldOut", "MemberEarlyStopping", "MemberLoss", "RowLosses", "split_members"]

RowLosses = Callable[[Tensor, Tensor], Tensor]
_ROWS_AT_A_TIME = 1024


class MemberLoss:
    """The mean over the members of each one's loss, one value a row, as `training.fit` takes it with weights.

    A row that is held out from a member has NaN for its targets there, and counts for the others alone. So that
    members count alike, whatever was held out from them, their losses are multiplied by a factor each.

    Args:
        row_losses: of outputs (batch, n_members, out_features) and targets (batch, n_members, n_targets); returns
            (batch, n_members).
        factors: (n_members,).
    """

    def __init__(self, row_losses: RowLosses, factors: Tensor) -> None:
        self.row_losses = row_losses
        self.factors = factors

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return (batch,); outputs are (batch, n_members, out_features), targets (batch, n_members, n_targets)."""
        shown = ~targets[..., 0].isnan()
        losses = self.row_losses(split_members(outputs), targets.nan_to_num())
        return (losses * shown * self.factors.to(losses)).mean(dim=1)


def split_members(outputs: Tensor) -> Tensor:
    """Return (batch, n_members, out_features) of a network that may be a single one, (batch, out_features)."""
    return outputs if outputs.ndim == 3 else outputs[:, None]


@dataclass
class HeldOut:
    """What the members are judged by after every epoch.

    Attributes:
        inputs: (n, n_columns).
        targets: (n, n_targets).
        weights: (n, n_members), at least 0, with sum 1 for each member.
        row_losses: see `MemberLoss`.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    row_losses: RowLosses

    @torch.no_grad()
    def member_losses(self, model: nn.Module) -> Tensor:
        """Return each member's weighted mean loss in evaluation mode, (n_members,), on the CPU."""
        device = next(model.parameters()).device
        model.eval()  # `training.fit` turns the training mode on again
        sums = torch.zeros(self.weights.shape[1])
        tensors = (self.inputs, self.targets, self.weights)
        for batch in zip(*(tensor.split(_ROWS_AT_A_TIME) for tensor in tensors), strict=True):
            inputs, targets, weights = (tensor.to(device) for tensor in batch)
            outputs = split_members(model(inputs))
            losses = self.row_losses(outputs, targets[:, None].expand(-1, outputs.shape[1], -1))
            sums += (losses * weights).sum(dim=0).cpu()
        return sums


class MemberEarlyStopping(Callback):
    """Keep every member's best weights, put them back at the end, stop when the members no longer get better.

    Args:
        held_out: whose losses, taken after every epoch, say which epoch is best for a member.
        patience: epochs without a new lowest mean over the members after which to stop; ``None``: go on to the end.
        owners: for every parameter, by name, whose weights it holds along its first dimension: a slice of the members.
            ``None`` for a network that is one member.

    Attributes:
        best_losses: (n_members,), the lowest validation loss so far.
        best_epochs: (n_members,), the epoch it is from; 0 before the first.
        mean_losses: the mean over the members, epoch by epoch.
    """

    def __init__(self, held_out: HeldOut, *, patience: int | None, owners: Mapping[str, slice] | None) -> None:
        self.held_out = held_out
        self.patience = patience
        self.owners = owners
        n_members = held_out.weights.shape[1]
        self.best_losses = torch.full((n_members,), torch.inf)
        self.best_epochs = torch.zeros(n_members, dtype=torch.int64)
        self.mean_losses: list[float] = []
        self._best_mean = math.inf
        self._best_mean_epoch = 0
        self._weights: dict[str, Tensor] = {}

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep the weights of the members that are better than ever."""
        losses = self.held_out.member_losses(state.model)
        better = losses < self.best_losses
        if better.any():
            self._keep(state, better)
            self.best_losses = torch.where(better, losses, self.best_losses)
            self.best_epochs = torch.where(better, state.epoch, self.best_epochs)
        mean = float(losses.mean())
        self.mean_losses.append(mean)
        state.metrics["val_loss"] = mean  # for the progress bar
        if mean < self._best_mean:
            self._best_mean = mean
            self._best_mean_epoch = state.epoch
        waited = state.epoch - self._best_mean_epoch
        if self.patience is not None and waited >= self.patience:
            state.stop(f"early stopping (validation loss no better for {waited} epochs)")

    def _keep(self, state: TrainState, better: Tensor) -> None:
        entries = {name: entry.detach() for name, entry in state.model.state_dict().items()}
        if self.owners is not None and self._weights and not better.all():
            changed = {
                name: torch.where(_along_first(better[members], entries[name]), entries[name], self._weights[name])
                for name, members in self.owners.items()
                if better[members].any()
            }
            self._weights = self._weights | changed  # in one assignment: an interrupt finds the old ones or the new
        else:
            self._weights = {name: entry.clone() for name, entry in entries.items()}

    def on_train_end(self, state: TrainState) -> None:
        """Put the best weights back."""
        if self._weights:
            state.model.load_state_dict(self._weights)


def _along_first(mask: Tensor, entry: Tensor) -> Tensor:
    return mask.to(entry.device).reshape(-1, *[1] * (entry.ndim - 1))
