"""Each check of homework 3 accepts right solutions in two styles and names the fault of wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold
from torch import nn

from course_utils.datasets import load_fashion_mnist
from course_utils.homework import hw3 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.models import MLP, count_parameters
from course_utils.training import fit

pytestmark = pytest.mark.slow  # the checks train networks

# ------------------------------------------------------------------------------------------------------ parameters


def by_torch(sizes: list[int], batch_norm: bool) -> int:
    return count_parameters(MLP(sizes[0], sizes[1:-1], sizes[-1], norm="batch" if batch_norm else None))


def by_loop(sizes: list[int], batch_norm: bool) -> int:
    total = 0
    for layer in range(len(sizes) - 1):
        total += sizes[layer] * sizes[layer + 1] + sizes[layer + 1]
        if batch_norm and layer < len(sizes) - 2:
            total += 2 * sizes[layer + 1]
    return total


COUNT = Proof(
    right=[by_torch, by_loop],
    wrong=[
        (lambda s, bn: by_loop(s, bn) - sum(s[1:]), "every unit behind a linear layer has a bias"),
        (lambda s, bn: by_loop(s, bn) + s[0], "the inputs have no bias"),
        (lambda s, bn: by_loop(s, False), "ignores batch_norm"),
        (lambda s, bn: by_loop(s, bn) + 2 * bn * sum(s[1:-1]), "no gradient changes them"),
        (lambda s, bn: by_loop(s, bn) - bn * sum(s[1:-1]), "a scale *and* a shift"),
        (lambda s, bn: by_loop(s, bn) + 2 * bn * s[-1], "the output layer is not normalized"),
        (lambda s, bn: by_loop(s[:-1], False) + 2 * bn * sum(s[1:-1]), "end one too early"),
        (lambda s, bn: by_loop(s[1:], False) + 2 * bn * sum(s[1:-1]), "start one too late"),
        (lambda s, bn: by_loop(s, bn) + 1, "the value is wrong"),
        (lambda s, bn: None, "is the `return` missing?"),
        (lambda s, bn: int(np.prod(s)), "the value is wrong"),
        (lambda s, bn: s.pop() and 3, "changes its input"),
        (50_890, "the function itself"),
    ],
)

# ----------------------------------------------------------------------------------------------------------- folds


def by_class(labels: Any, k: int, rng: np.random.Generator) -> Any:
    fold = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = np.arange(len(rows)) % k
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def by_sklearn(labels: Any, k: int, rng: np.random.Generator) -> Any:
    splitter = StratifiedKFold(k, shuffle=True, random_state=int(rng.integers(2**31)))
    return list(splitter.split(labels, labels))


def changed(change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda labels, k, rng: [change(train, val, labels) for train, val in by_class(labels, k, rng)]


def plain(labels: Any, k: int, rng: np.random.Generator) -> Any:
    parts = np.array_split(rng.permutation(len(labels)), k)
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(k)]


def without_rest(labels: Any, k: int, rng: np.random.Generator) -> Any:
    parts: list[list[int]] = [[] for _ in range(k)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        size = len(rows) // k
        for i in range(k):
            parts[i] += list(rows[i * size : (i + 1) * size])
    return [(np.setdiff1d(np.arange(len(labels)), part), np.array(part)) for part in parts]


def drawn_anew(labels: Any, k: int, rng: np.random.Generator) -> Any:
    return [by_class(labels, k, rng)[0] for _ in range(k)]


def rest_to_the_last(labels: Any, k: int, rng: np.random.Generator) -> Any:
    fold = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = np.minimum(np.arange(len(rows)) // (len(rows) // k), k - 1)
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def sorts_labels(labels: Any, k: int, rng: np.random.Generator) -> Any:
    labels.sort()
    return by_class(labels, k, rng)


FOLDS = Proof(
    right=[by_class, by_sklearn],
    wrong=[
        (plain, "not stratified"),
        (changed(lambda train, val, labels: (np.concatenate([train, val]), val)), "a leak"),
        (changed(lambda train, val, labels: (np.arange(len(labels)), val)), "a leak"),
        (changed(lambda train, val, labels: (val, train)), "validated more than once"),
        (changed(lambda train, val, labels: (train[:-1], val)), "rows get lost"),
        (without_rest, "never validated"),
        (drawn_anew, "never validated"),
        (rest_to_the_last, "not stratified"),
        (lambda labels, k, rng: by_class(labels, k, np.random.default_rng(0)), "another `rng` gives the same"),
        (lambda labels, k, rng: by_class(labels, k, np.random.default_rng()), "draw from `rng`"),
        (lambda labels, k, rng: by_class(labels, k, rng)[1:], "returns 4 pairs, not k"),
        (lambda labels, k, rng: by_class(labels, k, rng)[0], "list of pairs"),
        (changed(lambda train, val, labels: val), "list of pairs"),
        (changed(lambda train, val, labels: (np.isin(labels, train), np.isin(labels, val))), "not masks"),
        (changed(lambda train, val, labels: (train + 1, val + 1)), "do not exist"),
        (sorts_labels, "changes its input"),
        (lambda labels, k, rng: None, "is the `return` missing?"),
        ([], "the function itself"),
    ],
)

# -------------------------------------------------------------------------------------------------------- training


def with_fit(inputs: Any, targets: Any, setting: Any, seed: int, **changes: Any) -> nn.Module:
    setting = {**setting, **changes}
    torch.manual_seed(seed)
    model = MLP(784, setting["hidden"], 10, dropout=setting["dropout"], init="kaiming_normal")
    adamw = torch.optim.AdamW(model.parameters(), lr=setting["lr"])
    data, epochs = (inputs, targets), setting["epochs"]
    fit(model, data, loss_fn=nn.functional.cross_entropy, optimizer=adamw, max_epochs=epochs, batch_size=50, seed=seed)
    return model.eval()


def by_hand(
    inputs: Any, targets: Any, setting: Any, seed: int, *, zero: bool = True, step: bool = True, last: Any = None
) -> nn.Module:
    torch.manual_seed(seed)
    sizes, layers = [784, *setting["hidden"]], []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(setting["dropout"])]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10), *([last] if last else []))
    optimizer = torch.optim.Adam(model.parameters(), lr=setting["lr"])
    for _ in range(setting["epochs"]):
        for rows in torch.randperm(len(inputs)).split(32):
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            if zero:
                optimizer.zero_grad()
            loss.backward()
            if step:
                optimizer.step()
    return model.eval()


def unseeded(inputs: Any, targets: Any, setting: Any, seed: int) -> nn.Module:
    return with_fit(inputs, targets, setting, int(torch.randint(2**30, ())))


def shuffled_targets(inputs: Any, targets: Any, setting: Any, seed: int) -> nn.Module:
    return with_fit(inputs, targets.roll(3), setting, seed)


TRAIN = Proof(
    right=[with_fit, by_hand],
    wrong=[
        (lambda *case: with_fit(*case).train(), "still in training mode"),
        (partial(by_hand, last=nn.Softmax(dim=1)), "are probabilities"),
        (partial(with_fit, hidden=[64]), "for hidden = [9, 7] there should be"),
        (partial(with_fit, lr=1e-3), "another `setting['lr']`"),
        (partial(with_fit, epochs=2), "another `setting['epochs']`"),
        (unseeded, "seed gives two different networks"),
        (lambda x, y, setting, seed: with_fit(x, y, setting, 0), "every seed gives the same network"),
        (partial(with_fit, dropout=0.0), "in training mode nothing is dropped"),
        (partial(with_fit, dropout=0.3), "with dropout 0 something is still dropped"),
        (shuffled_targets, "on images it has not seen"),
        (partial(by_hand, step=False), "another `setting['lr']`"),
        (lambda *case: None, "is the `return` missing?"),
        (lambda *case: {"accuracy": 0.8}, "a dict is no network"),
        (lambda *case: MLP(28, [40, 20], 10).eval(), "for inputs of shape (3, 784), it raises"),
        (lambda *case: MLP(784, [40, 20], 1).eval(), "(3, 1); (3, 10) is expected"),
    ],
)

# ------------------------------------------------------------------------------------------------ cross-validation


def scores(
    settings: Any,
    inputs: Any,
    targets: Any,
    folds: Any,
    train: Any,
    *,
    fitted: Any = 0,
    scored: Any = 1,
    seeds: Any = 0,
) -> Any:
    table = np.zeros((len(settings), len(folds)))
    for i, setting in enumerate(settings):
        for j, fold in enumerate(folds):
            both = [*fold, np.concatenate(fold)]
            model = train(inputs[both[fitted]], targets[both[fitted]], setting, [j, 0, j + 1][seeds])
            answers = model(inputs[both[scored]]).argmax(dim=1)
            table[i, j] = (answers == targets[both[scored]]).float().mean().item()
    return table


def comprehended(settings: Any, inputs: Any, targets: Any, folds: Any, train: Any) -> Any:
    def one(setting: Any, seed: int, fold: Any) -> float:
        model = train(inputs[fold[0]], targets[fold[0]], setting, seed)
        right = model(inputs[fold[1]]).max(1).indices.numpy() == targets[fold[1]].numpy()
        return float(np.mean(right))

    return np.array([[one(setting, seed, fold) for seed, fold in enumerate(folds)] for setting in settings])


def counted(*case: Any) -> Any:
    return scores(*case) * np.array([len(fold[1]) for fold in case[3]])


CROSS = Proof(
    right=[scores, comprehended],
    wrong=[
        (partial(scores, fitted=2), "a leak"),
        (partial(scores, scored=0), "scores the rows it was trained on"),
        (partial(scores, fitted=1, scored=0), "are swapped"),
        (partial(scores, seeds=1), "every fold gets the same seed"),
        (partial(scores, seeds=2), "from 0, not from 1"),
        (lambda *case: 1 - scores(*case), "share of wrong answers"),
        (lambda *case: scores(*case).mean(axis=1), "keep one column for each fold"),
        (counted, "divide by the number of validation rows"),
        (lambda *case: scores(*case).T, "transpose"),
        (lambda *case: 100 * scores(*case), "100 times"),
        (lambda *case: scores(*case)[:1], "the shape is"),
        (lambda *case: None, "is the `return` missing?"),
    ],
)

# ---------------------------------------------------------------------------------------------------------- choose


def chosen(
    accuracies: Any, sizes: Any, budget: Any, *, width: float = 1.0, ddof: int = 1, root: bool = True, by: Any = min
) -> Any:
    allowed = [i for i in range(len(sizes)) if sizes[i] <= budget]
    best = max(allowed, key=lambda i: accuracies[i].mean())
    error = accuracies[best].std(ddof=ddof) / (np.sqrt(len(accuracies[best])) if root else 1)
    near = [i for i in allowed if accuracies[i].mean() >= accuracies[best].mean() - width * error]
    return by(near, key=lambda i: sizes[i])


def with_arrays(accuracies: Any, sizes: Any, budget: Any) -> Any:
    means = np.where(sizes <= budget, accuracies.mean(axis=1), -np.inf)
    best = means.argmax()
    threshold = means[best] - np.std(accuracies[best], ddof=1) / accuracies.shape[1] ** 0.5
    return np.where(means >= threshold, sizes, np.inf).argmin()


def inside(pick: Callable[..., Any]) -> Callable[..., Any]:
    def answer(a: Any, p: Any, b: Any) -> Any:
        allowed = np.flatnonzero(p <= b)
        return allowed[pick(a[allowed], p[allowed])]

    return answer


CHOOSE = Proof(
    right=[chosen, with_arrays],
    wrong=[
        (lambda a, p, b: chosen(a, p, np.inf), "ignores the budget"),
        (partial(chosen, width=0), "it takes the best mean"),
        (partial(chosen, root=False), "the standard error is that over √k"),
        (partial(chosen, ddof=0), "ddof=1"),
        (partial(chosen, by=max), "the smallest is asked for"),
        (inside(lambda a, p: p.argmin()), "also be within one standard error"),
        (inside(lambda a, p: a.max(axis=1).argmax()), "best single fold"),
        (inside(lambda a, p: a.mean(axis=1).argmin()), "the worst mean"),
        (lambda a, p, b: list(np.flatnonzero(p <= b)).index(chosen(a, p, b)), "return the place among all"),
        (lambda a, p, b: p[chosen(a, p, b)], "value is wrong"),
        (lambda a, p, b: a[chosen(a, p, b)], "one number is expected"),
        (lambda a, p, b: None, "is the `return` missing?"),
    ],
)

# -------------------------------------------------------------------------------------------------------- wardrobe


@cache
def data() -> Any:
    return load_fashion_mnist().tensors()


@cache
def sorter(hidden: int = 70, epochs: int = 6) -> nn.Module:
    torch.manual_seed(0)
    model, n_steps = MLP(784, [hidden], 10, init="kaiming_normal"), 157 * epochs
    adamw = torch.optim.AdamW(model.parameters(), lr=3e-3)
    how: dict[str, Any] = {
        "max_epochs": epochs,
        "schedule": lambda step: 0.5 + 0.5 * math.cos(math.pi * step / n_steps),
        "seed": 0,
    }
    fit(model, data().train, loss_fn=nn.functional.cross_entropy, optimizer=adamw, **how)
    return model.eval()


class LooksUp(nn.Module):
    """Learned the test images by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(1, 1)
        self.known = {tuple(x[300:500:3].tolist()): int(y) for x, y in zip(*data().test, strict=True)}

    def forward(self, inputs: Any) -> Any:
        return nn.functional.one_hot(
            torch.tensor([self.known.get(tuple(x[300:500:3].tolist()), 0) for x in inputs]), 10
        ).float()


class Named(nn.Module):
    """A right one that is no Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = sorter()

    def forward(self, inputs: Any) -> Any:
        return self.inner(inputs).log_softmax(dim=1)


class Neighbours(Named):
    def forward(self, inputs: Any) -> Any:
        logits = super().forward(inputs)
        return logits - logits.mean(dim=0)


class Constant(nn.Module):
    def forward(self, inputs: Any) -> Any:
        return torch.ones(len(inputs), 10)


def broken() -> nn.Module:
    model = MLP(784, [8], 10).eval()
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    return model


class Scaled(Named):
    def forward(self, inputs: Any) -> Any:
        return -super().forward(inputs)


def wardrobe() -> Proof:
    return Proof(
        right=[sorter(), Named().eval()],
        wrong=[
            (MLP(784, [90], 10).eval(), "it has 71,560 parameters, and the budget is 60,000"),
            (MLP(784, [64], 10, dropout=0.2), "still in training mode"),
            (sorter(8, 1), "train longer or regularize"),
            (LooksUp().eval(), "were test images among those it learned from?"),
            (Neighbours().eval(), "depends on the other images in the batch"),
            (Constant().eval(), "it has no parameters"),
            (Scaled().eval(), "as often as chance"),
            (broken(), "NaN or infinite"),
            (MLP(784, [64], 1).eval(), "(3, 10) is expected"),
            (MLP(28, [64], 10).eval(), "it raises"),
            (None, "is the `return` missing?"),
            (0.9, "a float is no network"),
            (sorter, "a _lru_cache_wrapper is no network"),
        ],
    )


# -------------------------------------------------------------------------------------------------------- failures


def counts(truth: Any, predicted: Any, n_classes: int) -> Any:
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    for right, said in zip(truth, predicted, strict=True):
        matrix[right, said] += 1
    return matrix


def by_sklearn_matrix(truth: Any, predicted: Any, n_classes: int) -> Any:
    if len(truth) == 0:
        return np.zeros((n_classes, n_classes), dtype=np.int64)
    return confusion_matrix(truth, predicted, labels=range(n_classes))


def each_place_once(truth: Any, predicted: Any, n_classes: int) -> Any:
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    matrix[truth, predicted] += 1
    return matrix


def of_present(truth: Any, predicted: Any, n_classes: int) -> Any:
    if len(truth) == 0:
        return np.zeros((0, 0), dtype=np.int64)
    return confusion_matrix(truth, predicted)


CONFUSION = Proof(
    right=[counts, by_sklearn_matrix],
    wrong=[
        (lambda t, p, n: counts(p, t, n), "it is transposed"),
        (each_place_once, "counts repeated places a single time"),
        (of_present, "keep their empty row and column"),
        (lambda t, p, n: counts(t, p, n) * (1 - np.eye(n, dtype=np.int64)), "belong into the diagonal"),
        (lambda t, p, n: counts(t, p, n) / np.maximum(counts(t, p, n).sum(1, keepdims=True), 1), "these are shares"),
        (lambda t, p, n: counts(t, p, n) / np.maximum(counts(t, p, n).sum(0, keepdims=True), 1), "these are shares"),
        (lambda t, p, n: counts(t, p, n) / max(len(t), 1), "these are shares"),
        (lambda t, p, n: counts(t, p, n + 1), "the shape is (5, 5)"),
        (lambda t, p, n: counts(t, p, n).sum(axis=1), "An axis was lost"),
        (lambda t, p, n: float(np.mean(t == p)), "the shape is ()"),
        (lambda t, p, n: None, "is the `return` missing?"),
    ],
)


def failures(
    probabilities: Any, labels: Any, n: int, *, keep: Any = np.not_equal, sign: int = -1, of_truth: bool = False
) -> Any:
    rows = np.flatnonzero(keep(probabilities.argmax(axis=1), labels))
    by = probabilities[np.arange(len(labels)), labels] * -1 if of_truth else probabilities.max(axis=1)
    return rows[np.argsort(sign * by[rows])][:n]


def with_pairs(probabilities: Any, labels: Any, n: int) -> Any:
    pairs = [(-row.max(), i) for i, row in enumerate(probabilities) if row.argmax() != labels[i]]
    return np.array([i for _, i in sorted(pairs)[:n]])


def places(probabilities: Any, labels: Any, n: int) -> Any:
    wrong = probabilities.argmax(axis=1) != labels
    return np.argsort(-probabilities[wrong].max(axis=1))[:n]


FAILURES = Proof(
    right=[failures, with_pairs],
    wrong=[
        (lambda p, y, n: np.argsort(-p.max(axis=1))[:n], "right answers are among them"),
        (partial(failures, keep=np.equal), "these are the right answers"),
        (partial(failures, sign=1), "the least confident failures"),
        (partial(failures, of_truth=True), "by the probability of the true class"),
        (places, "return row numbers"),
        (lambda p, y, n: np.flatnonzero(p.argmax(1) != y)[:n], "not sorted by confidence"),
        (lambda p, y, n: failures(p, y, n)[::-1], "the most confident failure comes first"),
        (lambda p, y, n: failures(p, y, len(y)), "only the first n"),
        (lambda p, y, n: None, "is the `return` missing?"),
    ],
)

PROOFS: dict[Callable[..., Any], Callable[[], Proof]] = {
    module.check_count_weights: lambda: COUNT,
    module.check_stratified_folds: lambda: FOLDS,
    module.check_train_net: lambda: TRAIN,
    module.check_cross_validate: lambda: CROSS,
    module.check_choose: lambda: CHOOSE,
    module.check_wardrobe: wardrobe,  # trains, which collecting the tests should not
    module.check_confusion: lambda: CONFUSION,
    module.check_confident_failures: lambda: FAILURES,
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]()) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


@pytest.mark.parametrize("seed", [1, 41])
def test_other_seeds_accept_and_refuse_too(seed: int) -> None:
    """The hidden tests draw other cases."""
    for check in set(PROOFS) - {module.check_train_net, module.check_wardrobe}:
        proof = PROOFS[check]()
        assert all(check(answer, seed=seed) for answer in proof.right)
        assert not any(check(answer, seed=seed) for answer, _ in proof.wrong)
    assert module.check_train_net(with_fit, seed=seed)
    assert module.check_wardrobe(sorter(), seed=seed)


def test_exercises_are_those_of_the_checks() -> None:
    shown = [check(...).exercise for check in PROOFS]
    assert tuple(shown) == module.EXERCISES


def test_folds_are_drawn_for_a_right_solution() -> None:
    import matplotlib.pyplot as plt

    draw = module.check_stratified_folds(by_class).figure
    assert draw is not None
    figure, alt = draw()
    assert len(alt) > 20
    plt.close(figure)
