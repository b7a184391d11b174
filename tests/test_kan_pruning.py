"""The sparsity penalty against the expanded edges, importance against its definition, pruning against retyped masks."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_utils.kan import KAN
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import SymbolicEdge
from course_utils.kan.network import KANBase
from course_utils.kan.pruning import (
    PruneReport,
    edge_importance,
    node_importance,
    output_and_penalty,
    prune,
    sparsity_penalty,
)


def network(*widths: int, seed: int = 0, **options: object) -> KAN:
    generator = torch.Generator().manual_seed(seed)
    return KAN(widths, generator=generator, dtype=torch.float64, **options)  # type: ignore[arg-type]


def samples(n: int, width: int, seed: int = 1) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers(model: KANBase) -> list[KANLayer]:
    return [layer for layer in model.modules() if isinstance(layer, KANLayer)]


def make_symbolic(model: KANBase, layer: int, i: int, j: int, name: str = "sin") -> SymbolicEdge:
    edge = SymbolicEdge(name, (1.3, 0.2, -0.7, 5.0), dtype=torch.float64)
    layers(model)[layer].edge_mask[i, j] = 0
    layers(model)[layer].symbolic_edges[f"{i},{j}"] = edge
    return edge


def spreads(model: KANBase, x: Tensor) -> list[Tensor]:
    """The definition: all edges' values, then their standard deviations."""
    inputs = model.activations(x)[:-1]
    values = [layer.edge_functions(value) for layer, value in zip(layers(model), inputs, strict=True)]
    return [value.var(dim=0, correction=0).clamp(min=1e-300).sqrt() for value in values]


def expanded_penalty(model: KANBase, x: Tensor, l1: float, entropy: float) -> Tensor:
    total = x.new_zeros(())
    for spread in spreads(model, x):
        share = spread / spread.sum()
        total = total + l1 * spread.sum() - entropy * (share * share.clamp(min=1e-300).log()).sum()
    return total


def mixed_network() -> KAN:
    """Removed edges in every layer, and symbolic ones in the first two."""
    model = network(3, 4, 3, 2)
    layers(model)[0].edge_mask[1, 2] = 0
    layers(model)[1].edge_mask[0] = torch.tensor([0, 1, 1, 0])
    layers(model)[2].edge_mask[1, 1] = 0
    make_symbolic(model, 0, 0, 1)
    make_symbolic(model, 0, 0, 2, "x^2")
    make_symbolic(model, 1, 2, 3)
    return model


# ------------------------------------------------------------------------------------------------------------- penalty


@pytest.mark.parametrize(("l1", "entropy"), [(1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("make", [mixed_network, partial(network, 3, 4, 2, base=None), partial(network, 3, 2)])
def test_penalty_and_its_gradients_are_those_of_the_expanded_edges(
    make: partial[KAN], l1: float, entropy: float
) -> None:
    model, x = make(), samples(40, 3).requires_grad_()
    inputs = [x, *model.parameters()]

    ours = sparsity_penalty(model, x, l1=l1, entropy=entropy)
    expected = expanded_penalty(model, x, l1, entropy)

    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    mine = torch.autograd.grad(ours, inputs, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(expected, inputs, allow_unused=True, materialize_grads=True)
    assert any(grad.abs().max() > 1e-3 for grad in mine)
    for ours_, theirs_ in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-9, atol=1e-11)


def test_penalty_gradcheck_through_two_layers() -> None:
    model, x = network(2, 3, 2, grid_size=3), samples(7, 2).requires_grad_()
    make_symbolic(model, 1, 1, 1)
    values = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}

    class Penalty(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return sparsity_penalty(self.model, x, l1=0.7, entropy=0.4)

    def penalty(x: Tensor, *parameters: Tensor) -> Tensor:
        named = {f"model.{name}": value for name, value in zip(values, parameters, strict=True)}
        result: Tensor = torch.func.functional_call(Penalty(), named, (x,))
        return result

    assert torch.autograd.gradcheck(penalty, (x, *values.values()))


def test_output_and_penalty_are_the_two_apart() -> None:
    model, x = mixed_network(), samples(20, 3)
    output, penalty = output_and_penalty(model, x, l1=0.3, entropy=0.6)

    torch.testing.assert_close(output, model(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(penalty, sparsity_penalty(model, x, l1=0.3, entropy=0.6), rtol=0, atol=0)
    without_base = network(3, 4, 2, base=None)
    torch.testing.assert_close(output_and_penalty(without_base, x)[0], without_base(x), rtol=1e-12, atol=1e-12)


def test_penalty_ignores_constants_and_copies_of_the_batch() -> None:
    model, x = network(2, 3), samples(15, 2)
    before = sparsity_penalty(model, x)
    with torch.no_grad():
        layers(model)[0].coefficients[1] += 7.0  # the splines sum to 1

    torch.testing.assert_close(sparsity_penalty(model, x), before, rtol=1e-10, atol=0)
    torch.testing.assert_close(sparsity_penalty(model, torch.cat([x, x])), before, rtol=1e-10, atol=0)


def test_defaults_weigh_both_terms_alike() -> None:
    model, x = network(2, 3, 1), samples(15, 2)
    torch.testing.assert_close(sparsity_penalty(model, x), expanded_penalty(model, x, 1.0, 1.0))
    torch.testing.assert_close(output_and_penalty(model, x)[1], expanded_penalty(model, x, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_edges_cost_nothing_and_get_no_gradient(dtype: torch.dtype) -> None:
    model = network(2, 2, 1).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    penalty = sparsity_penalty(model, samples(9, 2).to(dtype))
    penalty.backward()

    assert penalty.item() == 0
    assert penalty.dtype == dtype
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
    assert sparsity_penalty(model, samples(1, 2).to(dtype)).item() == 0


def test_removed_edges_get_no_gradient_and_nan_is_not_hidden() -> None:
    model, x = network(2, 3, 1), samples(9, 2)
    layers(model)[0].edge_mask[1, 0] = 0
    sparsity_penalty(model, x).backward()
    gradient = layers(model)[0].coefficients.grad
    assert gradient is not None
    assert not gradient[1, :, 0].any()
    assert gradient[1, :, 1].any()

    x[3, 1] = float("nan")
    assert sparsity_penalty(model, x).isnan()
    assert sparsity_penalty(model, x, entropy=0.0).isnan()


def test_penalty_refuses_bad_arguments() -> None:
    model, x = network(2, 1), samples(5, 2)
    with pytest.raises(ValueError, match=r"l1 must be in \[0, inf\), got -1"):
        sparsity_penalty(model, x, l1=-1)
    with pytest.raises(ValueError, match=r"entropy must be in \[0, inf\), got nan"):
        sparsity_penalty(model, x, entropy=float("nan"))
    with pytest.raises(ValueError, match=r"x must have shape \(batch >= 1, 2\), got \(5, 1\)"):
        sparsity_penalty(model, x[:, :1])
    with pytest.raises(ValueError, match=r"\(batch >= 1, 2\), got \(0, 2\)"):
        output_and_penalty(model, x[:0])


# ---------------------------------------------------------------------------------------------------------- importance


def by_definition(model: KANBase, x: Tensor) -> list[Tensor]:
    node = [1.0] * model.widths[-1]
    scores: list[Tensor] = []
    for spread in reversed(spreads(model, x)):
        score = torch.zeros_like(spread)
        for i in range(len(spread)):
            for j in range(spread.shape[1]):
                score[i, j] = node[i] * spread[i, j] / max(spread[i].max().item(), 1e-100)
        node = [score[:, j].max().item() for j in range(score.shape[1])]
        scores.insert(0, score)
    return scores


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    base=st.sampled_from(["silu", None]),
    seed=st.integers(0, 99),
)
def test_importance_is_its_definition(widths: list[int], base: str | None, seed: int) -> None:
    model, x = network(*widths, seed=seed, base=base), samples(25, widths[0])
    scores, nodes = edge_importance(model, x), node_importance(model, x)

    for score, expected in zip(scores, by_definition(model, x), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-6, atol=1e-9)
        assert not score.requires_grad
    assert [len(node) for node in nodes] == widths
    assert (nodes[-1] == 1).all()
    for node, score in zip(nodes, scores, strict=False):
        torch.testing.assert_close(node, score.max(dim=0).values)


def test_importance_of_removed_and_symbolic_edges() -> None:
    model, x = mixed_network(), samples(25, 3)
    for score, expected in zip(edge_importance(model, x), by_definition(model, x), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-6, atol=1e-9)
    assert edge_importance(model, x)[0][1, 2] == 0
    assert edge_importance(model, x)[0][0, 1] > 0.1


def test_importance_does_not_depend_on_the_scale_of_nodes() -> None:
    model, x = network(2, 3, 2), samples(25, 2)
    before = edge_importance(model, x)
    with torch.no_grad():
        layers(model)[1].coefficients[0] *= 1000
        layers(model)[1].base_weight[0] *= 1000  # type: ignore[index]

    for ours, expected in zip(edge_importance(model, x), before, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_edge_has_no_importance_whatever_its_height(dtype: torch.dtype) -> None:
    model = network(2, 2).to(dtype)
    with torch.no_grad():
        layers(model)[0].coefficients[0] = 1000.0
        layers(model)[0].base_weight[0] = 0  # type: ignore[index]
    x = samples(30, 2).to(dtype)
    assert not edge_importance(model, x)[0][0].any()
    assert edge_importance(model, x)[0][1].max() == 1
    x[:, 1] = 3.0  # and so has a constant input
    assert edge_importance(model, x)[0][1, 1] == 0
    constant = make_symbolic(model, 0, 0, 0)
    with torch.no_grad():
        constant.affine[2] = 1e-12
    assert edge_importance(model.to(dtype), x)[0][0, 0] == 0


def test_importance_refuses_bad_samples() -> None:
    model, x = network(2, 2, 1), samples(5, 2)
    with pytest.raises(ValueError, match=r"\(batch >= 2, 2\), got \(1, 2\)"):
        edge_importance(model, x[:1])
    with pytest.raises(ValueError, match=r"\(batch >= 2, 2\), got \(2,\)"):
        node_importance(model, x[0])
    bad = x.clone()
    bad[3, 1] = float("inf")
    for call in (edge_importance, node_importance, prune):
        with pytest.raises(ValueError, match=r"x must be finite, got inf in row 3, input 1"):
            call(model, bad)
    with torch.no_grad():
        layers(model)[1].coefficients[0, 2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"edge \(0, 1\) in layer 1 are not finite"):
        edge_importance(model, x)


# ------------------------------------------------------------------------------------------------------------- pruning


def weaken(model: KANBase, layer: int, i: int, j: int, factor: float = 1e-3) -> None:
    """Make an edge nearly flat."""
    edge = layers(model)[layer]
    with torch.no_grad():
        edge.coefficients[i, :, j] *= factor
        edge.base_weight[i, j] *= factor  # type: ignore[index]


def state(model: KANBase) -> dict[str, Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


def test_prune_removes_what_is_weak_and_nothing_else() -> None:
    model, x = network(2, 2, 1), samples(60, 2)
    weaken(model, 0, 1, 0)
    before = state(model)
    report = prune(model, x, keep_means=False)

    assert report.edges == (((1, 0),), ())
    assert report.nodes == ((), (), ())
    assert report.edges_left == (3, 2)
    assert report.nodes_left == (2, 2, 1)
    assert report.threshold == 0.03
    assert layers(model)[0].edge_mask.tolist() == [[1, 1], [0, 1]]
    after = state(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["layers.0.edge_mask"]
    assert prune(model, x, keep_means=False).edges == ((), ())  # once is enough


def test_prune_takes_nodes_and_their_other_edges() -> None:
    model, x = network(3, 3, 2, 1), samples(60, 3)
    for i in range(2):
        weaken(model, 1, i, 2)  # nothing leaves hidden node 2
    for i in range(3):
        weaken(model, 0, i, 1)  # input 1 is not used
    weaken(model, 2, 0, 0, 1e-4)  # nothing leaves node 0 of the second hidden layer
    report = prune(model, x, threshold=0.01)

    assert report.nodes == ((1,), (2,), (0,), ())
    assert set(report.edges[0]) == {(2, 0), (2, 1), (2, 2), (0, 1), (1, 1)}
    assert set(report.edges[1]) == {(0, 0), (0, 1), (0, 2), (1, 2)}
    assert report.edges[2] == ((0, 0),)
    assert report.edges_left == (4, 2, 1)
    assert report.nodes_left == (2, 2, 1, 1)
    for layer, edges in zip(layers(model), report.edges, strict=True):
        assert {(i, j) for i, j in (layer.edge_mask == 0).nonzero().tolist()} == set(edges)
    assert str(report) == (
        "pruned below 0.01: 10 of 17 edges, 2 hidden nodes\n"
        "  layer 0: 5 edges went, 4 left\n"
        "  layer 1: 4 edges went, 2 left\n"
        "  layer 2: 1 edges went, 1 left\n"
        "  inputs not used any more: 1\n"
        "  nodes gone after layer 0: 2\n"
        "  nodes gone after layer 1: 0\n"
        "  nodes left: [2, 2, 1, 1]"
    )


def test_a_node_without_inputs_or_outputs_goes_at_any_threshold_and_so_do_chains() -> None:
    model, x = network(2, 2, 2, 2, 1), samples(60, 2)
    layers(model)[3].edge_mask[0, 1] = 0  # by hand: the last hidden node 1 has no output
    layers(model)[2].edge_mask[0, 1] = 0  # and node 1 before it fed that one alone
    report = prune(model, x, threshold=0)

    assert report.nodes == ((), (), (1,), (1,), ())
    assert report.edges == ((), ((1, 0), (1, 1)), ((1, 0), (1, 1)), ())

    forward = network(2, 2, 2, 2, 1)
    layers(forward)[0].edge_mask[1] = 0  # the same from the front: nothing enters
    layers(forward)[1].edge_mask[1, 0] = 0
    report = prune(forward, x, threshold=0)
    assert report.nodes == ((), (1,), (1,), (), ())
    assert report.edges == ((), ((0, 1), (1, 1)), ((0, 1), (1, 1)), ())


def test_the_mean_of_removed_edges_moves_to_the_strongest_that_stays() -> None:
    model, x = network(3, 2, 1), samples(200, 3)
    for layer, i, j in ((0, 0, 1), (0, 1, 0), (0, 1, 2)):
        weaken(model, layer, i, j, 1e-6)
        with torch.no_grad():
            layers(model)[layer].coefficients[i, :, j] += 0.3  # a constant that the penalty would not see
    before, lossy = model(x), copy.deepcopy(model)
    coefficients = layers(model)[0].coefficients.detach().clone()
    strongest = edge_importance(model, x)[0][0].argmax()
    prune(model, x, threshold=1e-4)
    prune(lossy, x, threshold=1e-4, keep_means=False)

    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-4)
    assert (lossy(x) - before).abs().max() > 0.1
    change = (layers(model)[0].coefficients - coefficients)[0]
    torch.testing.assert_close(change[:, int(strongest)], torch.full_like(change[:, 0], 0.3), rtol=1e-4, atol=0)
    assert not change[:, [j for j in range(3) if j != int(strongest)]].any()


@pytest.mark.parametrize("base", ["silu", None])
def test_the_mean_of_what_a_layer_puts_out_stays_even_if_much_is_removed(base: str | None) -> None:
    model, x = network(4, 3, base=base), samples(50, 4)
    make_symbolic(model, 0, 1, 2)
    before = model(x).mean(dim=0)
    report = prune(model, x, threshold=0.99)

    assert report.edges_left == (3,)
    torch.testing.assert_close(model(x).mean(dim=0), before, rtol=1e-10, atol=1e-12)


def test_prune_deletes_weak_symbolic_edges_and_moves_means_to_strong_ones() -> None:
    model, x = network(2, 2, base=None), samples(100, 2)
    weak, strong = make_symbolic(model, 0, 0, 0), make_symbolic(model, 0, 1, 1)
    with torch.no_grad():
        weak.affine[2] = 1e-6
        layers(model)[0].coefficients[1, :, 0] = 2.0
    before = model(x)
    report = prune(model, x)

    assert report.edges == (((0, 0), (1, 0)),)
    assert list(layers(model)[0].symbolic_edges) == ["1,1"]
    assert layers(model)[0].edge_mask.tolist() == [[0, 1], [0, 0]]
    torch.testing.assert_close(strong.affine, torch.tensor([1.3, 0.2, -0.7, 7.0], dtype=torch.float64))
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.floats(0, 0.99))
def test_every_output_keeps_a_path_and_no_node_hangs_loose(seed: int, threshold: float) -> None:
    model, x = network(3, 4, 3, 2, seed=seed), samples(30, 3, seed)
    scores = edge_importance(model, x)
    report = prune(model, x, threshold=threshold)

    masks = [layer.edge_mask.bool() for layer in layers(model)]
    for mask, score in zip(masks, scores, strict=True):
        assert torch.equal(mask, score >= threshold)
    assert masks[-1].any(dim=1).all()
    for into, out in pairwise(masks):
        assert torch.equal(into.any(dim=1), out.any(dim=0))
    assert report.edges_left == tuple(int(mask.sum()) for mask in masks)
    assert model(x).isfinite().all()


def test_prune_raises_before_it_changes_anything() -> None:
    model, x = network(2, 3, 2), samples(30, 2)
    with torch.no_grad():
        layers(model)[1].coefficients[1] = 1.0
        layers(model)[1].base_weight[1] = 0  # type: ignore[index]
    before = state(model)
    with pytest.raises(ValueError, match=r"threshold 0.03 would leave nothing of output 1, whose .* at most 0 "):
        prune(model, x)
    with pytest.raises(ValueError, match="would leave nothing of output 0"):
        prune(model, x[:1].expand(5, 2))
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\), got"):
            prune(model, x, threshold=bad)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert isinstance(prune(model, x, threshold=0), PruneReport)


def test_the_penalty_makes_a_network_that_prunes_to_its_formula() -> None:
    x = torch.rand(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    y = (torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2 + 0 * x[:, 2:]) / 2
    model = network(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        output, penalty = output_and_penalty(model, x, l1=1e-3, entropy=1e-3)
        loss = (output - y).square().mean() + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    report = prune(model, x)
    assert report.edges == (((0, 2),),)
    assert report.nodes[0] == (2,)
    assert (model(x) - y).square().mean().sqrt() < 0.03
