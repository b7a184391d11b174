"""Networks for tables against torch's own modules, explicit weights, and the papers' formulas written out."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from course_utils import models
from course_utils.models import count_parameters
from course_utils.reproducibility import make_generator
from course_utils.tabular import (
    EnsembleLinear,
    EnsembleMLP,
    FeatureTokenizer,
    FTTransformer,
    MultiheadSelfAttention,
    PiecewiseLinearEncoding,
    TabularMLP,
    TabularResNet,
    compute_bins,
)
from course_utils.tabular._inputs import ColumnEncoder
from course_utils.training import fit

N_NUMERIC, CARDINALITIES = 3, (4, 2)

Make = Callable[..., nn.Module]
SMALL: dict[str, Make] = {
    "mlp": lambda *a, **k: TabularMLP(*a, **{"hidden_features": (16,), **k}),
    "resnet": lambda *a, **k: TabularResNet(*a, **{"n_blocks": 2, "d_block": 8, "dropout": 0.0, **k}),
    "transformer": lambda *a, **k: FTTransformer(
        *a,
        **{"n_blocks": 2, "d_token": 8, "n_heads": 2, "attention_dropout": 0.0, "ffn_dropout": 0.0, **k},
    ),
    "ensemble": lambda *a, **k: EnsembleMLP(*a, **{"n_members": 3, "hidden_features": (16,), **k}),
}
every_model = pytest.mark.parametrize("make", SMALL.values(), ids=list(SMALL))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=make_generator(seed), dtype=torch.float64)


def table(n: int, seed: int = 0, n_numeric: int = N_NUMERIC, cardinalities: tuple[int, ...] = CARDINALITIES) -> Tensor:
    """(n, n_numeric + n_categorical): numbers, then codes."""
    generator = make_generator(seed)
    numbers = torch.randn(n, n_numeric, generator=generator, dtype=torch.float64)
    codes = [torch.randint(c, (n, 1), generator=generator).double() for c in cardinalities]
    return torch.cat([numbers, *codes], dim=1)


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter a random value: those that start at 0 or 1 would hide a term or a factor."""
    generator = make_generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def opened(model: nn.Module) -> Any:
    """The model itself; a type checker cannot know the types of its submodules."""
    return model


def overwrite(target: Tensor, source: Tensor) -> None:
    with torch.no_grad():
        target.copy_(source)


# ------------------------------------------------------------------------------------------------------------- bins


def test_quantile_edges_equal_numpys_and_coinciding_ones_count_once() -> None:
    continuous, few = randn(101), (torch.arange(101) % 3).double()
    edges = compute_bins(torch.stack([continuous, few], dim=1), 7)
    np.testing.assert_allclose(edges[0], np.quantile(continuous.numpy(), np.linspace(0, 1, 8)), rtol=1e-12)
    assert edges[1].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("value", "expected"), [(0.25, [0.25, 1.25]), (-3.0, [-3.0, 0.0]), (1e20, [1e20, 2e20])])
def test_constant_column_gets_one_bin_from_its_value_on(value: float, expected: list[float]) -> None:
    x = torch.full((5, 1), value, dtype=torch.float64)
    bins = compute_bins(x, 4)
    assert bins[0].tolist() == expected
    assert PiecewiseLinearEncoding(bins)(x).eq(0).all()


def test_edges_keep_the_dtype_and_carry_no_gradient_and_no_columns_have_none() -> None:
    for dtype in (torch.float32, torch.float64):
        (edges,) = compute_bins(randn(20, 1).to(dtype).requires_grad_(), 1)
        assert (edges.dtype, edges.requires_grad, len(edges)) == (dtype, False, 2)
    assert compute_bins(torch.zeros(5, 0), 4) == []


def test_more_rows_than_torchs_quantile_takes() -> None:
    (edges,) = compute_bins(torch.arange(2**24 + 2, dtype=torch.float32)[:, None], 2)
    torch.testing.assert_close(edges, torch.tensor([0.0, 2**23, 2**24]), rtol=1e-6, atol=0)


def test_wrong_input_of_compute_bins() -> None:
    with pytest.raises(ValueError, match="n_bins must be at least 1, got 0"):
        compute_bins(torch.zeros(3, 1), 0)
    with pytest.raises(ValueError, match="finite, got -inf in column 1; impute"):
        compute_bins(torch.tensor([[0.0, 1.0], [0.0, -torch.inf]]), 2)


# --------------------------------------------------------------------------------------------- piecewise-linear code


def code_by_definition(value: float, edges: list[float]) -> np.ndarray:
    """Equation 1 of Gorishniy et al. 2022, case by case."""
    n_bins = len(edges) - 1
    code = np.empty(n_bins)
    for t in range(1, n_bins + 1):
        if value < edges[t - 1] and t > 1:
            code[t - 1] = 0.0
        elif value >= edges[t] and t < n_bins:
            code[t - 1] = 1.0
        else:
            code[t - 1] = (value - edges[t - 1]) / (edges[t] - edges[t - 1])
    return code


eighths = st.integers(-80, 80).map(lambda k: k / 8)  # exact, and often on an edge
edge_lists = st.lists(eighths, min_size=2, max_size=7, unique=True).map(sorted)


@given(bins=st.lists(edge_lists, min_size=1, max_size=4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_encoding_equals_its_definition(bins: list[list[float]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[eighths] * len(bins)), min_size=1, max_size=5))
    encoding = PiecewiseLinearEncoding([torch.tensor(edges, dtype=torch.float64) for edges in bins])
    expected = np.zeros((len(rows), len(bins), max(map(len, bins)) - 1))
    for i, row in enumerate(rows):
        for j, (value, edges) in enumerate(zip(row, bins, strict=True)):
            expected[i, j, : len(edges) - 1] = code_by_definition(value, edges)
    np.testing.assert_array_equal(encoding(torch.tensor(rows, dtype=torch.float64)), expected)


EDGES = torch.tensor([-2.0, 0.3, 0.7, 5.1], dtype=torch.float64)


def test_linear_layer_on_the_code_interpolates_between_edges() -> None:
    heights = randn(4)
    x = torch.linspace(-2, 5.1, 50, dtype=torch.float64)
    function = PiecewiseLinearEncoding([EDGES])(x[:, None])[:, 0] @ heights.diff() + heights[0]
    np.testing.assert_allclose(function, np.interp(x, EDGES, heights), atol=1e-12)


def test_encoding_keeps_the_inputs_dtype_and_moves_with_the_module() -> None:
    encoding = PiecewiseLinearEncoding([EDGES, EDGES[:2]])
    assert encoding(torch.zeros(1, 2)).dtype == torch.float32
    assert encoding.float().left.dtype == torch.float32
    assert encoding.n_bins == (3, 1)


def test_encoding_passes_the_gradient_check() -> None:
    x = torch.tensor([[-3.0, 0.1], [0.5, 2.0], [6.0, 9.0]]).double().requires_grad_()
    assert torch.autograd.gradcheck(PiecewiseLinearEncoding([EDGES, EDGES[:2]]), x)


def test_encoding_of_another_width() -> None:
    for shape in [(4, 2), (4,), (4, 1, 1)]:
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 1\), got \(4"):
            PiecewiseLinearEncoding([EDGES])(torch.zeros(shape))


# ---------------------------------------------------------------------------------------------------------- columns


def test_encoder_is_numbers_then_one_hot_without_code_zero() -> None:
    inputs = table(20)
    expected = torch.cat(
        [inputs[:, :3], one_hot(inputs[:, 3].long(), 4)[:, 1:], one_hot(inputs[:, 4].long(), 2)[:, 1:]], 1
    )
    encoder = ColumnEncoder(3, (4, 2))
    assert torch.equal(encoder(inputs), expected)
    assert encoder.out_features == expected.shape[1] == 7


def test_encoder_with_bins() -> None:
    inputs, bins = table(20), [EDGES, EDGES[:2], EDGES]
    codes = ColumnEncoder(3, (4, 2), bins=bins).double()(inputs)
    close(codes[:, :9], PiecewiseLinearEncoding(bins)(inputs[:, :3]).flatten(1))
    assert torch.equal(codes[:, 9:], ColumnEncoder(3, (4, 2))(inputs)[:, 3:])


@every_model
@pytest.mark.parametrize(("n_numeric", "cardinalities"), [(2, ()), (0, (3, 1))])
def test_every_model_takes_columns_of_one_kind_only(make: Make, n_numeric: int, cardinalities: tuple[int, ...]) -> None:
    model = make(n_numeric, cardinalities, 2).double()
    output = model(table(5, n_numeric=n_numeric, cardinalities=cardinalities))
    assert output.shape in {(5, 2), (5, 3, 2)}


@every_model
def test_a_network_whose_columns_say_nothing_still_predicts(make: Make) -> None:
    output = make(0, (1,), 2, generator=make_generator(0))(torch.zeros(5, 1))
    assert output.isfinite().all()
    torch.testing.assert_close(output, output[:1].expand_as(output))


@every_model
def test_wrong_inputs(make: Make) -> None:
    model = make(3, (4, 2), 1)
    inputs = table(5).float()
    with pytest.raises(ValueError, match=r"shape \(batch, 5\) for 3 numeric and 2 categorical columns, got \(5, 4\)"):
        model(inputs[:, :4])
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        model(inputs[0])
    for code in (4.0, -1.0, 0.5, float("nan")):
        wrong = inputs.clone()
        wrong[2, 3] = code
        where = r"in categorical column 0 \(column 3 of the inputs\), row 2"
        with pytest.raises(ValueError, match=rf"an integer in \[0, 4\), got {code:g} {where}"):
            model(wrong)
    wrong = inputs.clone()
    wrong[4, 4] = 2.0
    with pytest.raises(ValueError, match=r"in \[0, 2\), got 2 in categorical column 1 \(column 4"):
        model(wrong)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (TabularMLP, {"activation": "rele"}, "activation must be one of 'identity', .*, got 'rele'"),
        (TabularMLP, {"hidden_features": (3, 0)}, r"hidden_features\[1\] must be at least 1, got 0"),
        (TabularResNet, {"n_blocks": -1}, "n_blocks must be at least 0, got -1"),
        (FTTransformer, {"n_blocks": 0}, "n_blocks must be at least 1, got 0"),
        (FTTransformer, {"d_token": 10, "n_heads": 4}, "n_heads must divide d_token, got n_heads=4 and d_token=10"),
        (EnsembleMLP, {"activation": "rele"}, "activation must be one of"),
    ],
)
def test_wrong_hyperparameters(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(2, (), 1, **options)


# -------------------------------------------------------------------------------------------------- MLP and ResNet


def test_mlp_is_an_mlp_on_the_encoded_columns() -> None:
    model = TabularMLP(3, (4, 2), 2, hidden_features=(6, 5), activation="tanh").double()
    plain = models.MLP(7, [6, 5], 2, activation="tanh").double()
    plain.load_state_dict(model.layers.state_dict())
    inputs = table(9)
    close(model(inputs), plain(ColumnEncoder(3, (4, 2))(inputs)))


def test_defaults_of_the_mlp() -> None:
    assert count_parameters(TabularMLP(3, (4,), 1)) == count_parameters(models.MLP(6, [256, 256], 1))
    assert dropouts(TabularMLP(1, (), 1)) == [0.0, 0.0]
    assert isinstance(opened(TabularMLP(1, (), 1)).layers.activation1, nn.ReLU)


def test_activation_may_be_a_function_called_for_each_layer() -> None:
    model: Any = TabularMLP(1, (), 1, hidden_features=(2, 2), activation=nn.PReLU)
    assert model.layers.activation1 is not model.layers.activation2


@pytest.mark.parametrize("training", [True, False])
def test_resnet_equals_the_papers_formula(training: bool) -> None:
    model: Any = TabularResNet(3, (4, 2), 2, n_blocks=2, d_block=4, dropout=0.0).double()
    randomize(model)
    model(table(30, seed=1))  # running statistics away from 0 and 1
    model.train(training)

    def norm(x: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.BatchNorm1d)
        mean, var = (x.mean(0), x.var(0, correction=0)) if training else (layer.running_mean, layer.running_var)
        assert mean is not None
        assert var is not None
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias

    inputs = table(9)
    x = model.input(ColumnEncoder(3, (4, 2))(inputs))
    for block in model.blocks:
        assert block.linear1.out_features == 8
        x = x + block.linear2(block.linear1(norm(x, block.norm)).relu())
    expected = model.output.linear(norm(x, model.output.norm).relu())
    close(model(inputs), expected)


def test_defaults_of_the_resnet() -> None:
    model: Any = TabularResNet(3, (), 1)
    assert [(block.linear1.in_features, block.linear1.out_features) for block in model.blocks] == [(192, 384)] * 2
    assert dropouts(model) == [0.2] * 2
    assert TabularResNet(2, (), 1, n_blocks=0)(torch.zeros(3, 2)).shape == (3, 1)


def dropouts(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (TabularMLP, {"dropout": 0.5}),
        (EnsembleMLP, {"dropout": 0.5}),
        (TabularResNet, {"dropout": 0.5}),
        (FTTransformer, {"attention_dropout": 0.5, "ffn_dropout": 0.0}),
        (FTTransformer, {"attention_dropout": 0.0, "ffn_dropout": 0.5}),
    ],
)
def test_dropout_acts_in_training_and_only_there(make: Make, options: dict[str, Any]) -> None:
    model = make(3, (4, 2), 1, **options)
    inputs = table(8).float()
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


# --------------------------------------------------------------------------------------------------- FT-Transformer


def test_tokens_are_the_papers_formula() -> None:
    tokenizer = FeatureTokenizer(3, (4, 2), 5).double()
    randomize(tokenizer)
    inputs = table(6)
    tokens = tokenizer(inputs)
    assert tokens.shape == (6, 6, 5)
    tables = tokenizer.table.split([4, 2])
    for i in range(6):
        close(tokens[i, 0], tokenizer.cls)
        for j in range(3):
            close(tokens[i, 1 + j], inputs[i, j] * tokenizer.weight[j] + tokenizer.bias[j])
        for j in range(2):
            close(tokens[i, 4 + j], tables[j][int(inputs[i, 3 + j])] + tokenizer.bias[3 + j])


def test_a_category_never_seen_starts_out_saying_nothing() -> None:
    tokenizer = FeatureTokenizer(0, (3, 2), 4)
    assert tokenizer.table.eq(0).all(dim=1).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("n_heads", [1, 2, 3])
def test_attention_equals_torchs(n_heads: int) -> None:
    ours = MultiheadSelfAttention(6, n_heads).double()
    randomize(ours)
    torchs = nn.MultiheadAttention(6, n_heads, batch_first=True).double()
    overwrite(torchs.in_proj_weight, ours.query_key_value.weight)
    overwrite(torchs.in_proj_bias, ours.query_key_value.bias)
    torchs.out_proj.load_state_dict(ours.output.state_dict())
    tokens = randn(4, 5, 6)
    expected, expected_weights = torchs(tokens, tokens, tokens, average_attn_weights=False)
    out, weights = ours(tokens)
    close(out, expected)
    close(weights, expected_weights)
    first, first_weights = ours(tokens, n_queries=2)
    close(first, expected[:, :2])
    close(first_weights, expected_weights[:, :, :2])


def transformer(**options: Any) -> FTTransformer:
    model = FTTransformer(3, (4, 2), 2, **{"n_blocks": 3, "d_token": 8, "n_heads": 2, **options})
    randomize(model.double())
    return model.eval()


def test_transformer_equals_the_papers_formula() -> None:
    model: Any = transformer()
    inputs = table(7)
    tokens = model.tokenizer(inputs)
    for index, block in enumerate(model.blocks):
        attention, feed_forward = block.attention, block.feed_forward
        torchs = nn.MultiheadAttention(8, 2, batch_first=True).double()
        overwrite(torchs.in_proj_weight, attention.query_key_value.weight)
        overwrite(torchs.in_proj_bias, attention.query_key_value.bias)
        torchs.out_proj.load_state_dict(attention.output.state_dict())
        normed = tokens if index == 0 else block.norm1(tokens)  # the very first norm is left out
        tokens = tokens + torchs(normed, normed, normed, need_weights=False)[0]
        value, gate = feed_forward[0](block.norm2(tokens)).split([10, 10], dim=2)
        tokens = tokens + feed_forward[3](value * gate.relu())
    norm, _, last = model.output
    close(model(inputs), last(norm(tokens[:, 0]).relu()))
    assert all(isinstance(block.norm1, nn.LayerNorm) for block in list(model.blocks)[1:])


def test_order_of_the_columns_means_nothing() -> None:
    model, inputs = transformer(), table(7)
    numeric, categorical = [2, 0, 1], [1, 0]
    permuted = FTTransformer(3, (2, 4), 2, n_blocks=3, d_token=8, n_heads=2).double().eval()
    state = model.state_dict()
    state["tokenizer.weight"] = state["tokenizer.weight"][numeric]
    state["tokenizer.bias"] = state["tokenizer.bias"][[2, 0, 1, 4, 3]]
    state["tokenizer.table"] = torch.cat([state["tokenizer.table"][4:], state["tokenizer.table"][:4]])
    state["tokenizer.offset"] = torch.tensor([0, 2])
    permuted.load_state_dict(state)
    order = numeric + [3 + j for j in categorical]
    close(permuted(inputs[:, order]), model(inputs))
    tokens = [0] + [1 + j for j in order]  # [CLS] stays first
    close(permuted.attention_maps(inputs[:, order]), model.attention_maps(inputs)[..., tokens, :][..., tokens])


def test_attention_maps() -> None:
    model: Any = transformer(attention_dropout=0.5)
    inputs = table(7)
    model.train()
    model.blocks[0].eval()
    seen: list[Tensor] = []
    maps = model.attention_maps(inputs)
    assert maps.shape == (3, 7, 2, 6, 6)
    assert not maps.requires_grad
    close(maps.sum(dim=-1), torch.ones(3, 7, 2, 6).double())
    assert [block.training for block in model.blocks] == [False, True, True]  # modes stay as they were
    model.eval()
    for block in model.blocks:
        block.attention.register_forward_hook(lambda _module, _args, output: seen.append(output[1]))
    model(inputs)
    close(maps[0], seen[0])
    close(maps[1], seen[1])
    close(maps[2, :, :, :1], seen[2])  # after the last block only [CLS] is computed


def test_defaults_of_the_transformer_are_the_papers() -> None:
    model: Any = FTTransformer(3, (4,), 1)
    assert (len(model.blocks), model.tokenizer.cls.shape[0], model.blocks[0].attention.n_heads) == (3, 192, 8)
    assert model.blocks[0].feed_forward[3].in_features == 256
    assert dropouts(model) == [0.2, 0.1] * 3
    assert model.blocks[0].attention.output.bias.eq(0).all()
    assert model.blocks[0].attention.query_key_value.bias.eq(0).all()


# --------------------------------------------------------------------------------------------------------- ensembles


def members_of(model: EnsembleMLP, width: int, hidden: list[int], out: int) -> list[models.MLP]:
    """Plain MLPs with the ensemble's weights."""
    members = []
    for i in range(model.n_members):
        member = models.MLP(width, hidden, out, activation="tanh").double()
        for name, layer in model.layers.named_children():
            if isinstance(layer, EnsembleLinear):
                plain = opened(member.get_submodule(name))
                overwrite(plain.weight, layer.weight[i].T)
                overwrite(plain.bias, layer.bias[i])
        members.append(member)
    return members


@pytest.mark.parametrize("bins", [None, [EDGES, EDGES[:2], EDGES]], ids=["numbers", "bins"])
def test_ensemble_equals_separate_mlps(bins: list[Tensor] | None) -> None:
    model = EnsembleMLP(3, (4, 2), 2, n_members=3, hidden_features=(6, 5), activation="tanh", bins=bins).double()
    randomize(model)
    encoder = ColumnEncoder(3, (4, 2), bins=bins)
    inputs = table(9)
    outputs = model(inputs)
    assert outputs.shape == (9, 3, 2)
    for i, member in enumerate(members_of(model, encoder.out_features, [6, 5], 2)):
        close(outputs[:, i], member(encoder(inputs)))


def test_defaults_of_the_ensemble() -> None:
    model: Any = EnsembleMLP(3, (), 1)
    assert (model.n_members, model.layers.linear2.weight.shape) == (16, (16, 256, 256))
    assert isinstance(model.layers.activation1, nn.ReLU)
    assert dropouts(model) == [0.0, 0.0]


def test_members_drop_different_activations() -> None:
    model: Any = EnsembleMLP(3, (), 1, n_members=2, hidden_features=(50,), dropout=0.5)
    hidden: list[Tensor] = []
    model.layers.dropout1.register_forward_hook(lambda _module, _args, output: hidden.append(output.eq(0)))
    model.layers.activation1 = nn.Softplus()  # never 0 by itself
    model(torch.zeros(4, 3))
    assert not torch.equal(hidden[0][0], hidden[0][1])


# ---------------------------------------------------------------------------------------------------- what all must do


def test_weights_follow_torchs_default_law() -> None:
    expected = 1 / 10  # 1/√fan_in
    single = opened(TabularMLP(100, (), 1, hidden_features=(80,))).layers.linear1
    batched = opened(EnsembleMLP(100, (), 1, hidden_features=(80,))).layers.linear1
    tokenizer = FeatureTokenizer(30, (30,), 100)
    tensors = [single.weight, single.bias, batched.weight, batched.bias]
    for tensor in [*tensors, tokenizer.weight, tokenizer.bias, tokenizer.table[1:], tokenizer.cls]:
        assert float(tensor.detach().abs().max()) == pytest.approx(expected, rel=0.1)
        assert float(tensor.detach().abs().max()) <= expected
        assert float(tensor.detach().std()) == pytest.approx(expected / 3**0.5, rel=0.3)


@every_model
def test_gradients_by_weights_and_numbers_pass_the_gradient_check(make: Make) -> None:
    model = make(2, (3,), 1, activation="tanh") if make in CAN_BE_SMOOTH else make(2, (3,), 1)
    randomize(model.double(), seed=3)
    inputs = table(4, n_numeric=2, cardinalities=(3,))
    numbers, codes = inputs[:, :2].requires_grad_(), inputs[:, 2:].detach()
    names, parameters = zip(*model.named_parameters(), strict=True)

    def forward(numbers: Tensor, *parameters: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(
            model, dict(zip(names, parameters, strict=True)), (torch.cat([numbers, codes], dim=1),)
        )
        return output

    assert torch.autograd.gradcheck(forward, (numbers, *parameters), fast_mode=True)


CAN_BE_SMOOTH = [SMALL["mlp"], SMALL["ensemble"]]


@every_model
def test_every_model_overfits_a_small_batch(make: Make) -> None:
    inputs = table(16).float()
    # Needs numbers, categories, and a product of both.
    target = inputs[:, :1] * inputs[:, 4:] + (inputs[:, 3:4] == 2) - 0.5 * inputs[:, 1:2]
    model = make(3, (4, 2), 1, generator=make_generator(0))
    targets = target[:, None].expand(-1, 3, -1) if isinstance(model, EnsembleMLP) else target
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    history = fit(
        model, (inputs, targets), loss_fn=mse_loss, optimizer=optimizer, max_epochs=150, batch_size=16, seed=0
    )
    assert history["loss"][0] > 0.3
    assert history["loss"][-1] < 0.01


@every_model
def test_generator_decides_the_weights_and_nothing_else_is_drawn(make: Make) -> None:
    before = torch.get_rng_state()
    first, again, other = (make(3, (4, 2), 1, generator=make_generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    with torch.random.fork_rng():  # without one torch's global stream decides
        torch.manual_seed(1)
        globally = make(3, (4, 2), 1).state_dict()
    assert all(torch.equal(value, globally[name]) for name, value in first.items())


@every_model
def test_copies_compute_the_same(make: Make) -> None:
    model, inputs = make(3, (4, 2), 1).eval(), table(5).float()
    other = make(3, (4, 2), 1).eval()
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(twin(inputs), model(inputs))


@every_model
def test_unknown_category_is_code_zero_and_finite(make: Make) -> None:
    model = make(3, (4, 2), 1).eval()
    assert model(torch.zeros(2, 5)).isfinite().all()
