"""Train several models in one: a loss with a weight for each row and member, early stopping member by member."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from course_utils._validation import check_int
from course_utils.training import Callback
from course_utils.training.callbacks import TrainState

__all__ = ["MemberEarlyStopping", "MemberLoss", "held_out_rows"]


class MemberLoss:
    """The mean over members of each member's weighted mean loss, as a loss for `training.fit`.

    Targets come packed with the weight of each row for each member, 0 where it is not the member's:
    (batch, n_targets + n_members) where the members see the same rows, (batch, n_members, n_targets + 1) where each
    has its own. A member's weights must have mean 1 over all rows, so that the mean over an epoch's batches is the
    weighted mean. Without gradients, as in validation, the sums of each member are kept for `pop`.

    Args:
        row_losses: of outputs (batch, n_members, out_features) and targets (batch, n_members or 1, n_targets); returns
            (batch, n_members).
        n_members: at least 1.
    """

    def __init__(self, row_losses: Callable[[Tensor, Tensor], Tensor], n_members: int) -> None:
        self.row_losses = row_losses
        self.n_members = n_members
        self._sums = torch.zeros(n_members)
        self._rows = 0

    def __call__(self, outputs: Tensor, packed: Tensor) -> Tensor:
        """Return the scalar loss of a batch; outputs are (batch, n_members, out_features) or (batch, out_features)."""
        members = outputs if outputs.ndim == 3 else outputs[:, None]
        if packed.ndim == 3:
            targets, weights = packed[..., :-1], packed[..., -1]
        else:
            targets, weights = packed[:, None, : -self.n_members], packed[:, -self.n_members :]
        losses = self.row_losses(members, targets) * weights
        if not torch.is_grad_enabled():
            self._sums += losses.sum(dim=0).cpu()
            self._rows += len(losses)
        return losses.mean()

    def pop(self) -> Tensor:
        """Return each member's mean loss since the last call, (n_members,)."""
        means = self._sums / max(self._rows, 1)
        self._sums, self._rows = torch.zeros(self.n_members), 0
        return means


class MemberEarlyStopping(Callback):
    """Keep every member's best weights, put them back at the end, stop when the members no longer get better.

    Args:
        loss: whose validation losses, taken after every epoch, say which epoch is best for a member.
        patience: epochs without a new lowest mean over the members after which to stop, at least 1; ``None``: go on to
            the end.
        owners: for every parameter, by name, whose weights it holds along its first dimension: a slice of the members.
            ``None`` if members share weights; then the epoch with the best mean over members is best for all.

    Attributes:
        best_losses: (n_members,), the lowest validation loss so far.
        best_epochs: (n_members,), the epoch it is from; 0 before the first.
    """

    def __init__(self, loss: MemberLoss, *, patience: int | None, owners: Mapping[str, slice] | None) -> None:
        self.loss = loss
        self.patience = None if patience is None else check_int(patience, "patience", minimum=1)
        self.owners = owners
        self.best_losses = torch.full((loss.n_members,), torch.inf)
        self.best_epochs = torch.zeros(loss.n_members, dtype=torch.int64)
        self._best_mean, self._best_mean_epoch = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep the weights of the members that are better than ever."""
        losses = self.loss.pop()
        if self.owners is None:
            losses = losses.mean().expand_as(losses)
        better = losses < self.best_losses
        if better.any():
            self._keep(state, better)
            self.best_losses = torch.where(better, losses, self.best_losses)
            self.best_epochs = torch.where(better, state.epoch, self.best_epochs)
        mean = float(losses.mean())
        if mean < self._best_mean:
            self._best_mean, self._best_mean_epoch = mean, state.epoch
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


def held_out_rows(held: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return each member's held-out rows and their weights with mean 1, padded to one length with weights of 0.

    Args:
        held: (n, n_members), booleans, at least one true in each column.
        weights: (n,), above 0.

    Returns:
        Rows (n_held, n_members), integers in [0, n), and weights (n_held, n_members).
    """
    counts = held.sum(dim=0)
    # A stable sort brings the held-out rows to the top.
    order = (~held).to(torch.uint8).argsort(dim=0, stable=True)[: int(counts.max())]
    own = torch.where(torch.arange(len(order))[:, None] < counts, weights[order], 0.0)
    return order, own / own.mean(dim=0)
