"""scikit-learn's own checks, grids among the data, members, weights, early stopping, tables as people have them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import estimator_checks_generator

from course_utils.estimators import KANClassifier, KANRegressor
from course_utils.estimators._base import Problem
from course_utils.estimators.kan import KANEnsemble
from course_utils.kan import KAN, KANLayer

# Enough to learn what the checks ask for, no more.
QUICK: dict[str, Any] = {"n_members": 2, "hidden_features": (4,), "grid_size": 3, "lr": 0.03, "max_epochs": 12}
TINY = QUICK | {"max_epochs": 2}

Estimator = KANRegressor | KANClassifier


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CHECKS = [
    pytest.param(estimator, check, id=f"{kind.__name__}-{getattr(check, 'func', check).__name__}")
    for kind in (KANRegressor, KANClassifier)
    for estimator, check in estimator_checks_generator(kind(**QUICK))
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_checks(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)


def numbers(n: int = 60, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, 5.0 + 3.0 * X[:, 0] - 2.0 * X[:, 1] + 0.1 * rng.normal(size=n)


def mixed(n: int = 80, seed: int = 0) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Numbers with gaps, text, a category with a level that never occurs; the target depends on the colour."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], n)
    frame = pd.DataFrame(
        {
            "length": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "colour": colour,
            "grade": pd.Categorical(rng.choice(["a", "b"], n), categories=["a", "b", "never"]),
            "count": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "flag": rng.random(n) < 0.5,
            "note": [None if missing else "x" for missing in rng.random(n) < 0.2],
        }
    )
    frame.loc[0, "count"] = pd.NA
    return frame, np.where(colour == "red", 2.0, -1.0) + 0.1 * rng.normal(size=n)


# ------------------------------------------------------------------------------------------------------------ members


def test_output_is_that_of_each_kan() -> None:
    generator = torch.Generator().manual_seed(0)
    kans = [KAN([2, 3, 2], generator=generator, dtype=torch.float64) for _ in range(3)]
    module = KANEnsemble(kans)
    same, own = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 3, 2, dtype=torch.float64)

    assert (module.n_members, module.places) == (3, [0, 1, 2])
    for place, kan in enumerate(kans):
        torch.testing.assert_close(module(same)[:, place], kan(same))
        torch.testing.assert_close(module(own)[:, place], kan(own[:, place]))
    owners = module.parameter_owners()
    assert owners.keys() == dict(module.named_parameters()).keys()
    assert owners["members.2.layers.1.coefficients"] == slice(2, 3)


def test_prediction_is_the_mean_over_the_members_kans() -> None:
    X, y = numbers()
    model = KANRegressor(random_state=0, **TINY | {"n_members": 3}).fit(X, y)
    inputs = torch.from_numpy(model.preprocessor_.transform(X))
    with torch.no_grad():
        outputs = torch.stack([kan(inputs)[:, 0] for kan in model.module_.members])

    assert [kan.widths for kan in model.module_.members] == [(3, 4, 1)] * 3
    assert not torch.equal(outputs[0], outputs[1])
    np.testing.assert_allclose(model.predict(X), y.mean() + y.std() * outputs.mean(dim=0).numpy())


def test_members_differ_and_hold_out_different_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[torch.Tensor] = []
    real = KANRegressor._weigh_members

    def spy(self: KANRegressor, module: Any, problem: Any, rows: torch.Tensor) -> torch.Tensor:
        held.append(rows)
        return real(self, module, problem, rows)

    monkeypatch.setattr(KANRegressor, "_weigh_members", spy)
    KANRegressor(random_state=0, **TINY | {"n_members": 4, "validation_fraction": 0.25}).fit(*numbers(80))

    (rows,) = held
    assert (rows.sum(dim=1) == 1).all()  # four members, four folds: every row is held out once


def test_network_is_what_the_hyperparameters_say() -> None:
    options = TINY | {"hidden_features": (5, 2), "grid_size": 4, "degree": 2, "base": None, "n_members": 1}
    model = KANRegressor(**options).fit(*numbers())
    (kan,) = model.module_.members
    layers = [cast(KANLayer, layer) for layer in kan.layers]

    assert kan.widths == (3, 5, 2, 1)
    assert [(layer.grid_size, layer.degree) for layer in layers] == [(4, 2)] * 3
    assert all(layer.base_weight is None for layer in layers)


# -------------------------------------------------------------------------------------------------------------- grids


def input_grids(model: Estimator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left and right ends of the first member's grids of inputs."""
    layer = cast(KANLayer, model.module_.members[0].layers[0])
    return layer.grid_low.numpy(), (layer.grid_low + layer.grid_size * layer.grid_step).numpy()


def test_input_grids_go_from_quantile_to_quantile() -> None:
    rng = np.random.default_rng(0)
    X = np.c_[rng.exponential(size=500), 100.0 + rng.normal(size=500)]
    model = KANRegressor(**TINY | {"numeric_scaling": "passthrough"}).fit(X, X[:, 0])
    low, high = input_grids(model)

    np.testing.assert_allclose(low, np.quantile(X, 0.01, axis=0), rtol=1e-5)
    np.testing.assert_allclose(high, np.quantile(X, 0.99, axis=0), rtol=1e-5)


def test_grid_of_a_column_with_nearly_or_only_one_value() -> None:
    X = np.zeros((300, 3))
    X[0, 0], X[:, 1], X[:, 2] = 1.0, 7.0, np.arange(300) % 2
    model = KANRegressor(**TINY | {"numeric_scaling": "passthrough"}).fit(X, np.arange(300.0))
    low, high = input_grids(model)

    np.testing.assert_allclose(low, [0.0, 6.0, 0.0])
    np.testing.assert_allclose(high, [1.0, 8.0, 1.0])


def test_hidden_grids_hold_the_initial_values_of_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    real = KANRegressor._make_module

    def spy(self: KANRegressor, problem: Any) -> KANEnsemble:
        module = real(self, problem)
        kan = module.members[1]
        last = cast(KANLayer, kan.layers[1])
        made.extend([kan.activations(problem.inputs)[1].detach(), last.grid_low.clone(), last.grid_step.clone()])
        return module

    monkeypatch.setattr(KANRegressor, "_make_module", spy)
    KANRegressor(**TINY).fit(*numbers(400))
    values, low, step = made

    torch.testing.assert_close(low, values.mean(dim=0) - 3 * values.std(dim=0, correction=0))
    torch.testing.assert_close(low + 3 * step, values.mean(dim=0) + 3 * values.std(dim=0, correction=0))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_few_rows(n: int) -> None:
    X, y = numbers(n)

    for batch_size in (1, 4):
        model = KANRegressor(**TINY | {"batch_size": batch_size}).fit(X, y)
        assert np.isfinite(model.predict(X)).all()
    if n > 1:
        labels = np.array(["a"] + ["b"] * (n - 1))
        assert set(KANClassifier(**TINY).fit(X, labels).predict(X)) <= {"a", "b"}


def test_columns_that_say_nothing() -> None:
    X, y = numbers()
    X[:, 0], X[:, 1] = 1.0, np.nan
    frame = pd.DataFrame({"constant": "same", "empty": None, "number": X[:, 2]})

    for table in (X[:, :2], frame[["constant", "empty"]], frame):
        assert np.isfinite(KANRegressor(**TINY).fit(table, y).predict(table)).all()


def test_far_from_the_data_the_prediction_stays_finite() -> None:
    X, y = numbers()
    wild = X.copy()
    wild[0, 0] = 1e300
    model = KANRegressor(**TINY | {"numeric_scaling": "quantile"}).fit(wild, y)
    tame = KANRegressor(**TINY).fit(X, y)

    assert np.isfinite(model.predict(wild)).all()
    assert np.isfinite(model.predict(np.full((1, 3), -1e300))).all()
    assert np.isfinite(tame.predict(np.full((1, 3), -1e6))).all()


# ------------------------------------------------------------------------------------------------------------- tables


def test_learns_from_a_mixed_table() -> None:
    frame, y = mixed(160)
    before = frame.copy(deep=True)
    model = KANRegressor(random_state=0, **QUICK | {"max_epochs": 25}).fit(frame[:120], y[:120])

    pd.testing.assert_frame_equal(frame, before)
    assert model.score(frame[120:], y[120:]) > 0.7  # from the colour alone 1.0 is possible, without it 0
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 6


def test_learns_a_curve_that_no_line_follows() -> None:
    x = np.linspace(-3, 3, 200)[:, None]
    y = np.cos(2 * x[:, 0])

    assert KANRegressor(random_state=0, **QUICK | {"max_epochs": 60}).fit(x, y).score(x, y) > 0.95


def test_unseen_levels_and_new_gaps_are_predicted() -> None:
    frame, y = mixed()
    strange = frame[:3].assign(
        colour="ultraviolet", grade=pd.Series([None, "never", "z"], dtype=object), length=np.nan, flag=True
    )

    assert np.isfinite(KANRegressor(**TINY).fit(frame, y).predict(strange)).all()


def test_many_levels_become_few_inputs() -> None:
    frame = pd.DataFrame(
        {"id": [f"id {i}" for i in range(3000)], "postcode": np.repeat([f"p {i}" for i in range(500)], 6)}
    )
    model = KANRegressor(**TINY | {"max_epochs": 1}).fit(frame, np.arange(3000.0))

    # All ids are rare: one level. Of the postcodes the 255 that fit and the rest as one.
    assert model.module_.members[0].widths == (257, 4, 1)


def test_levels_rarer_than_five_rows_are_one() -> None:
    frame = pd.DataFrame({"level": ["a"] * 20 + ["b"] * 5 + ["c"] * 4 + ["d"]})
    model = KANRegressor(**TINY).fit(frame, np.arange(30.0))

    assert model.module_.members[0].widths[0] == 3


def test_several_outputs() -> None:
    X, y = numbers()
    Y = np.c_[y, 100.0 - 50.0 * X[:, 2]]
    model = KANRegressor(random_state=0, **QUICK | {"max_epochs": 40}).fit(X, Y)

    assert model.predict(X).shape == (60, 2)
    assert model.score(X, Y) > 0.9


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7, 9]])
def test_labels_of_any_kind(labels: list[Any]) -> None:
    X, y = numbers()
    target = np.array(labels)[np.digitize(y, np.quantile(y, np.arange(1, len(labels)) / len(labels)))]
    model = KANClassifier(random_state=0, **QUICK | {"max_epochs": 25}).fit(X, target)

    assert model.classes_.tolist() == sorted(labels)
    assert model.module_.members[0].widths[-1] == len(labels)
    assert model.score(X, target) > 0.8
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)


def test_wrong_tables_meet_scikit_learns_words() -> None:
    frame, y = mixed()
    model = KANRegressor(**TINY).fit(frame, y)

    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        model.predict(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="yet now missing:\n- colour"):
        model.predict(frame.drop(columns="colour"))
    X, y = numbers()
    expected = "X has 2 features, but KANRegressor is expecting 3 features as input"
    with pytest.raises(ValueError, match=expected):
        KANRegressor(**TINY).fit(X, y).predict(X[:, :2])
    with pytest.raises(NotFittedError, match="This KANClassifier instance is not fitted yet"):
        KANClassifier().predict_proba([[1.0]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_members": 0}, "n_members must be at least 1, got 0"),
        ({"hidden_features": (0,)}, r"hidden_features\[0\] must be at least 1, got 0"),
        ({"grid_size": 0}, "grid_size must be at least 1, got 0"),
        ({"degree": 0}, "degree must be at least 1, got 0"),
        ({"base": "relu"}, "base must be one of 'silu', None, got 'relu'"),
        ({"numeric_scaling": "x"}, "numeric must be one of"),
        ({"lr": -1.0}, r"lr must be in \(0, inf\), got -1.0"),
        ({"weight_decay": -1.0}, r"weight_decay must be in \[0, inf\), got -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \(0, 1\), got 1.0"),
    ],
)
def test_hyperparameter_out_of_range(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        KANRegressor(**TINY | options).fit(*numbers())


# ----------------------------------------------------------------------------------------------------------- training


def test_weights_count_copies_in_mixed_tables() -> None:
    frame, y = mixed(40)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    copies = np.random.default_rng(1).permutation(np.repeat(np.arange(40), weights))
    weighted = KANRegressor(random_state=0, **TINY).fit(frame, y, weights)
    repeated = KANRegressor(random_state=0, **TINY).fit(frame.iloc[copies], y[copies])

    np.testing.assert_array_equal(weighted.predict(frame), repeated.predict(frame))


def test_best_epoch_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On noise the first epochs are the best. The weights must be those of a run that ends there."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    monkeypatch.setattr(KANRegressor, "_make_schedule", lambda self, n_steps: None)
    options = QUICK | {"random_state": 0}
    whole = KANRegressor(**options | {"max_epochs": 30}).fit(X, y)

    assert whole.best_epochs_.max() < whole.n_iter_
    for member, epoch in enumerate(whole.best_epochs_):
        short = KANRegressor(**options | {"max_epochs": int(epoch)}).fit(X, y)
        assert short.best_epochs_[member] == epoch
        for entry, ended in zip(
            whole.module_.members[member].parameters(), short.module_.members[member].parameters(), strict=True
        ):
            torch.testing.assert_close(entry, ended)


def test_patience_ends_the_training() -> None:
    rng = np.random.default_rng(0)
    model = KANRegressor(random_state=0, patience=3, **QUICK | {"n_members": 1, "max_epochs": 60})
    model.fit(rng.normal(size=(60, 5)), rng.normal(size=60))

    assert model.n_iter_ == model.best_epochs_.max() + 3 < 60
    assert "early stopping" in str(model.history_.stopped_by)


def test_interrupted_training_leaves_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = numbers()
    steps = 0
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = KANRegressor(random_state=0, **QUICK | {"batch_size": 16}).fit(X, y)

    assert 1 <= model.best_epochs_.max() <= model.n_iter_ < 12
    assert model.predict(X).shape == (60,)


def test_weight_decay_shrinks_every_weight() -> None:
    norms = []
    for weight_decay in (0.0, 5.0):
        model = KANRegressor(random_state=0, **QUICK | {"weight_decay": weight_decay}).fit(*numbers())
        norms.append([p.detach().norm().item() for p in model.module_.parameters()])

    assert (np.array(norms[1]) < np.array(norms[0])).all()


def test_optimizer_is_what_the_hyperparameters_say() -> None:
    (group,) = KANRegressor(lr=0.25, weight_decay=0.5)._make_optimizer(KANEnsemble([KAN([2, 1])] * 2)).param_groups

    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.25, 0.5, (0.9, 0.99))


def test_initial_weights_come_from_the_problems_seed() -> None:
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    problems = [Problem(rows, rows[:, :1], torch.ones(20), 2, (), 1, seed) for seed in (0, 0, 1)]
    first, again, other = (next(KANRegressor()._make_module(p).parameters()) for p in problems)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_defaults_suit_a_table_of_any_scale() -> None:
    X, y = numbers(150)
    model = KANRegressor(random_state=0, max_epochs=40).fit(1e4 * X[:100], y[:100])

    assert model.score(1e4 * X[100:], y[100:]) > 0.95  # after 160 steps
    assert len(model.module_.members) == 8
    np.testing.assert_allclose(model.preprocessor_.transform(1e4 * X[:100]).std(axis=0), 1.0)
    quantile = KANRegressor(numeric_scaling="quantile")._make_preprocessor(X, 7)
    assert quantile.transformers[0][1]["scale"].random_state == 7


def test_random_state_fixes_everything_and_nothing_global_is_touched() -> None:
    X, y = numbers()
    first = KANRegressor(random_state=3, **TINY).fit(X, y).predict(X)
    torch.manual_seed(99)
    stream = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is the point
    again = KANRegressor(random_state=3, **TINY).fit(X, y).predict(X)

    np.testing.assert_array_equal(again, first)
    assert torch.equal(torch.get_rng_state(), stream[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), stream[1])  # noqa: NPY002
    assert (KANRegressor(random_state=4, **TINY).fit(X, y).predict(X) != first).any()


def test_copies_of_an_estimator() -> None:
    frame, y = mixed()
    model = KANClassifier(random_state=0, **TINY).fit(frame, y > 0)

    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(frame), model.predict_proba(frame))
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "module_")
    search = GridSearchCV(KANRegressor(random_state=0, **TINY), {"grid_size": [2, 4]}, cv=2).fit(frame, y)
    assert search.best_params_["grid_size"] in (2, 4)


def test_automatic_sizes() -> None:
    model = KANRegressor()

    assert [model._batch_size(n) for n in (1, 100, 506, 1024, 2048, 100_000)] == [32, 32, 32, 64, 128, 256]
    assert [model._max_epochs(n) for n in (1, 13, 200, 5000)] == [1500, 115, 10, 10]
    for n_classes, max_epochs in ((2, 15), (3, 30)):
        classifier = KANClassifier()
        classifier.classes_ = np.arange(n_classes)
        assert classifier._max_epochs(100) == max_epochs
    factor = model._make_schedule(1000)
    assert factor(0) == pytest.approx(0.02)
    assert factor(24) == pytest.approx(0.5, abs=0.01)
    assert factor(500) == pytest.approx(0.5)
    assert factor(999) == pytest.approx(0.0, abs=1e-5)
