"""Cut data into batches, and turn data that cannot be trained on into errors that say what to change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.data import DataLoader

__all__ = [
    "Data",
    "LossFunction",
    "check_data",
    "check_loss",
    "counted_labels",
    "is_classification",
    "iterate_batches",
    "loss_share",
]

Data: TypeAlias = "tuple[Tensor, Tensor] | DataLoader[Any]"
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Losses that compare element by element, for which torch would broadcast (batch, 1) against (batch,) to a matrix.
_ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)
_ELEMENTWISE_FUNCTIONS = (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
)


def is_classification(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether the targets are class indices, so that an accuracy can be counted.

    Args:
        outputs: of the model, ``(batch, ...)``.
        targets: of the batch; classes are integers of shape ``(batch,)`` for outputs ``(batch, n_classes)``, or with
            further dimensions in both.
    """
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return False
    return outputs.ndim > 1 and outputs.shape[1] > 1 and targets.shape == outputs.shape[:1] + outputs.shape[2:]


def counted_labels(loss_fn: LossFunction, targets: Tensor) -> Tensor | None:
    """Return which labels a loss counts, of the targets' shape, or ``None`` where it counts all.

    Torch's losses of classes leave out the label ``ignore_index``.
    """
    function, settings = _taken_apart(loss_fn)
    if not _judges_classes(function, targets):
        return None
    counted = targets != settings.get("ignore_index", getattr(function, "ignore_index", -100))
    return None if bool(counted.all()) else counted


def loss_share(loss_fn: LossFunction, targets: Tensor, counted: Tensor | None) -> float:
    """Return by how much a batch's mean loss counts in the mean over an epoch.

    It is the number of samples, less those whose label the loss ignores; with class weights the sum of the labels'
    weights, by which torch divides. So an epoch's mean does not depend on how its samples are dealt to batches.

    Args:
        loss_fn: the loss.
        targets: of the batch.
        counted: from `counted_labels`.
    """
    function, settings = _taken_apart(loss_fn)
    labels = targets if counted is None else targets[counted]
    weight = settings.get("weight", getattr(function, "weight", None))
    if weight is not None and _judges_classes(function, targets):
        return float(weight[labels].sum())
    return labels.numel() / targets[0].numel()


def _judges_classes(function: Any, targets: Tensor) -> bool:
    known = isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss) or function in (F.cross_entropy, F.nll_loss)
    return known and not targets.is_floating_point()


def _taken_apart(loss_fn: LossFunction) -> tuple[Any, dict[str, Any]]:
    """A loss, and what a ``functools.partial`` around it, as ``partial(F.cross_entropy, weight=w)``, sets."""
    return getattr(loss_fn, "func", loss_fn), getattr(loss_fn, "keywords", {})


def iterate_batches(
    data: Data,
    batch_size: int,
    device: torch.device,
    *,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(inputs, targets)`` of one pass over the data, on the device; the last batch may be shorter.

    Args:
        data: tensors of shapes ``(n, ...)`` and ``(n, ...)``, or a DataLoader, which batches and shuffles itself.
        batch_size: rows of one batch cut from tensors.
        device: where the batches are needed; they are moved one at a time.
        shuffle: whether to go through tensors in a random order, drawn anew by each call.
        generator: draws that order, on the CPU whatever the device, so that the order is the same on all.
    """
    if isinstance(data, DataLoader):
        for inputs, targets in data:
            yield inputs.to(device), targets.to(device)
        return
    inputs, targets = data
    if not shuffle:
        for start in range(0, len(inputs), batch_size):
            rows = slice(start, start + batch_size)
            yield inputs[rows].to(device), targets[rows].to(device)
        return
    order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    # Selecting batch by batch costs 2% of a small network's epoch more than permuting all rows at once, and spares a
    # second copy of the data. Nor are the batches views that start at any address: on those, matrix products may
    # round differently.
    for index in order.split(batch_size):
        yield inputs.index_select(0, index).to(device), targets.index_select(0, index).to(device)


def check_data(data: Data, name: str, model: nn.Module, *, batch_size: int | None = None) -> None:
    """Raise if the data cannot be cut into batches, or not be fed to the model.

    Args:
        data: what the caller passed as training or validation data.
        name: the argument's name, for the message.
        model: whose parameters' dtype floating-point inputs must have.
        batch_size: rows of a training batch; ``None`` for data that is only evaluated.

    Raises:
        TypeError: neither a pair of tensors nor a DataLoader, or inputs of a dtype that the model does not take.
        ValueError: no data, inputs and targets of different lengths, or a last training batch of one row where the
            model has an ``nn.BatchNorm1d``.
    """
    if isinstance(data, DataLoader):
        _check_loader_not_empty(data, name)
        if batch_size is not None:
            _check_last_batch_of_loader(data, model)
        return
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)):
        parts = data if isinstance(data, tuple | list) else [data]
        raise TypeError(
            f"{name} must be a pair of tensors (inputs, targets) or a DataLoader, got "
            f"{type(data).__name__} of {', '.join(type(part).__name__ for part in parts) or 'nothing'}"
        )
    inputs, targets = data
    if inputs.ndim == 0 or targets.ndim == 0:
        raise ValueError(f"{name} must have a batch dimension, got {_shape(inputs)} and {_shape(targets)}")
    if len(inputs) != len(targets):
        raise ValueError(f"{name} needs as many targets as inputs, got {len(inputs)} inputs, {len(targets)} targets")
    if len(inputs) == 0:
        raise ValueError(f"{name} is empty: inputs of shape {_shape(inputs)}")
    _check_input_dtype(inputs, name, model)
    if batch_size is not None:
        _check_last_batch(inputs, batch_size, model)


def _check_last_batch(inputs: Tensor, batch_size: int, model: nn.Module) -> None:
    """Raise if an epoch would end with a batch of one row that BatchNorm cannot take; torch says so an epoch later."""
    if (len(inputs) - 1) % batch_size == 0 and not _takes_one_row(model, inputs[:1]):
        raise ValueError(
            f"the last batch of an epoch would hold one row, of which BatchNorm has no variance: {len(inputs)} rows "
            f"in batches of batch_size={batch_size}; take another batch_size or leave a row out"
        )


def _check_last_batch_of_loader(loader: DataLoader[Any], model: nn.Module) -> None:
    """Do the same for a DataLoader that cuts a data set of known length into batches."""
    size = loader.batch_size
    if size is None or loader.drop_last or not hasattr(loader.dataset, "__len__"):
        return
    n_rows = len(loader.dataset)
    if n_rows % size != 1 % size or not _has_batchnorm(model):
        return  # before a row is asked for: that may cost something, or draw
    if not _takes_one_row(model, loader.collate_fn([loader.dataset[0]])[0]):
        raise ValueError(
            f"the last batch of an epoch would hold one row, of which BatchNorm has no variance: {n_rows} rows in "
            f"batches of {size}; give the DataLoader drop_last=True or another batch_size"
        )


def _has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for module in model.modules())


def _takes_one_row(model: nn.Module, row: Tensor) -> bool:
    """Whether a model in training takes a batch of one row, tried on a copy; only BatchNorm does not."""
    if not _has_batchnorm(model):
        return True
    twin = copy.deepcopy(getattr(model, "_orig_mod", model)).train()
    device = next((parameter.device for parameter in twin.parameters()), row.device)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            twin(row.to(device))
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    return True


def _check_loader_not_empty(loader: DataLoader[Any], name: str) -> None:
    try:
        batches = len(loader)
    except TypeError:  # over an iterable dataset, which does not know its length
        return
    if batches == 0:
        raise ValueError(f"{name} is empty: its DataLoader has no batches")


def _check_input_dtype(inputs: Tensor, name: str, model: nn.Module) -> None:
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules()):
        return  # such a model looks rows up by integers
    wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype)
    if inputs.dtype != wanted:
        raise TypeError(
            f"{name} inputs must be {wanted} as the model's parameters are, got {inputs.dtype}; "
            f"convert them once with inputs.to({wanted})"
        )


def check_loss(loss_fn: LossFunction, outputs: Tensor, targets: Tensor, name: str) -> None:
    """Raise if a well-known loss would fail obscurely on these, or average over the wrong thing in silence.

    Other losses pass: what they expect is theirs to say.

    Args:
        loss_fn: a loss module or function of torch, or anything else.
        outputs: of the model, ``(batch, ...)``.
        targets: of the batch, ``(batch, ...)``.
        name: where the batch comes from, for the message.

    Raises:
        TypeError: class indices that are not ``int64``, or numbers to regress on that are integers.
        ValueError: shapes that do not belong together.
    """
    function, settings = _taken_apart(loss_fn)
    loss_name = getattr(function, "__name__", type(function).__name__)
    if settings.get("reduction", getattr(function, "reduction", "")) == "sum":
        raise ValueError(
            f"{loss_name} has reduction='sum', whose size follows the batch's; take the mean, and scale the learning "
            "rate by the batch size if the steps shall stay as they were"
        )
    if isinstance(function, nn.CrossEntropyLoss) or function is F.cross_entropy:
        _check_classes(loss_name, outputs, targets, name)
        if function is loss_fn:  # a partial may set an ignore_index of its own
            _check_class_range(outputs.shape[1], targets, name, ignored=getattr(function, "ignore_index", -100))
    elif isinstance(function, _ELEMENTWISE) or function in _ELEMENTWISE_FUNCTIONS:
        _check_elementwise(loss_name, outputs, targets, name)


def _check_classes(loss_name: str, outputs: Tensor, targets: Tensor, name: str) -> None:
    if targets.shape == outputs.shape and targets.is_floating_point():
        return  # probabilities of the classes
    if outputs.ndim < 2:
        raise ValueError(
            f"{loss_name} needs outputs of shape (batch, n_classes), got {_shape(outputs)} from the model on {name}"
        )
    wanted = (outputs.shape[0], *outputs.shape[2:])
    if targets.shape != wanted:
        raise ValueError(
            f"{loss_name} needs class indices of shape {wanted} for outputs {_shape(outputs)}, "
            f"got {name} targets of shape {_shape(targets)}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(
            f"{loss_name} needs class indices of dtype torch.int64, got {name} targets of {targets.dtype} and shape "
            f"{_shape(targets)}; convert them with targets.long()"
        )


def _check_class_range(n_classes: int, targets: Tensor, name: str, *, ignored: int) -> None:
    if targets.is_floating_point():
        return
    classes = targets[targets != ignored]
    if bool(((classes < 0) | (classes >= n_classes)).any()):
        raise ValueError(
            f"{name} targets must be classes in [0, {n_classes}), as the model has {n_classes} outputs, "
            f"got classes from {int(classes.min())} to {int(classes.max())}"
        )


def _check_elementwise(loss_name: str, outputs: Tensor, targets: Tensor, name: str) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{loss_name} compares element by element, but on {name} the model's outputs have shape {_shape(outputs)} "
            f"and the targets {_shape(targets)}; reshape one of them, e.g. targets.unsqueeze(1) or outputs.squeeze(1)"
        )
    if not targets.is_floating_point():
        raise TypeError(f"{loss_name} needs floating-point targets, got {name} targets of {targets.dtype}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
