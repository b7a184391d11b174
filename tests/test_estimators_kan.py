"""What `KANRegressor` and `KANClassifier` add to the other estimators: members that are KANs, grids among the data."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from course_utils.estimators import KANClassifier, KANRegressor
from course_utils.estimators._base import Problem
from course_utils.estimators.kan import KANEnsemble
from course_utils.kan import KAN, KANLayer

TINY: dict[str, Any] = {"n_members": 2, "hidden_features": (4,), "grid_size": 3, "lr": 0.03, "max_epochs": 2}


def numbers(n: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, 5.0 + 3.0 * X[:, 0] - 2.0 * X[:, 1] + 0.1 * rng.normal(size=n)


# ------------------------------------------------------------------------------------------------------------ members


def test_output_is_that_of_each_kan() -> None:
    generator = torch.Generator().manual_seed(0)
    kans = [KAN([2, 3, 2], generator=generator, dtype=torch.float64) for _ in range(3)]
    module = KANEnsemble(kans)
    inputs = torch.randn(5, 2, dtype=torch.float64)

    assert (module.n_members, module.fold_index) == (3, [0, 1, 2])
    for number, kan in enumerate(kans):
        torch.testing.assert_close(module(inputs)[:, number], kan(inputs))
    assert module.owners.keys() == dict(module.named_parameters()).keys()
    assert module.owners["members.2.layers.1.coefficients"] == slice(2, 3)


def test_prediction_is_the_mean_over_the_members_kans() -> None:
    X, y = numbers()
    model = KANRegressor(random_state=0, **TINY | {"n_members": 3}).fit(X, y)
    inputs = torch.from_numpy(model.preprocessor_.transform(X))
    members = cast(KANEnsemble, model.module_).members
    with torch.no_grad():
        outputs = torch.stack([kan(inputs)[:, 0] for kan in members])

    assert [kan.widths for kan in members] == [(3, 4, 1)] * 3
    assert not torch.equal(outputs[0], outputs[1])
    np.testing.assert_allclose(model.predict(X), y.mean() + y.std() * outputs.mean(dim=0).numpy())


def test_network_is_what_the_hyperparameters_say() -> None:
    options = TINY | {"hidden_features": (5, 2), "grid_size": 4, "degree": 2, "base": None, "n_members": 1}
    model = KANRegressor(**options).fit(*numbers())
    (kan,) = cast(KANEnsemble, model.module_).members
    layers = [cast(KANLayer, layer) for layer in kan.layers]

    assert kan.widths == (3, 5, 2, 1)
    assert [(layer.grid_size, layer.degree) for layer in layers] == [(4, 2)] * 3
    assert all(layer.base_weight is None for layer in layers)


def test_inputs_are_a_level_each_but_the_rare_ones_and_outputs_a_class_each() -> None:
    frame = pd.DataFrame({"level": ["a"] * 20 + ["b"] * 5 + ["c"] * 4 + ["d"]})
    rows = np.arange(30.0)
    models = [KANRegressor(**TINY).fit(frame, rows), KANClassifier(**TINY).fit(rows[:, None], rows % 3)]

    assert [cast(KANEnsemble, model.module_).members[0].widths for model in models] == [(3, 4, 1), (1, 4, 3)]


def test_learns_a_curve_that_no_line_follows() -> None:
    x = np.linspace(-3, 3, 200)[:, None]
    y = np.cos(2 * x[:, 0])

    assert KANRegressor(random_state=0, **TINY | {"max_epochs": 60}).fit(x, y).score(x, y) > 0.95


# -------------------------------------------------------------------------------------------------------------- grids


def input_grids(model: KANRegressor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left and right ends of the first member's grids of inputs."""
    layer = cast(KANLayer, cast(KANEnsemble, model.module_).members[0].layers[0])
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


def test_initial_weights_come_from_the_problems_seed() -> None:
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    problems = [Problem(rows, rows[:, :1], torch.ones(20), 2, (), 1, seed) for seed in (0, 0, 1)]
    first, again, other = (next(KANRegressor()._make_module(p).parameters()) for p in problems)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
