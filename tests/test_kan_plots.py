"""Pictures of networks and edges: what is drawn, where, and what is said about the rest."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from course_utils.kan import KAN
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import SymbolicEdge
from course_utils.kan.plots import explore_spline, plot, plot_edge
from course_utils.kan.pruning import edge_importance
from course_utils.plotting import COLORS, use_theme


@pytest.fixture(autouse=True)
def theme() -> Iterator[None]:
    with mpl.rc_context():
        use_theme()
        yield
    plt.close("all")


def network(*widths: int, **options: Any) -> KAN:
    return KAN(widths, generator=torch.Generator().manual_seed(3), dtype=torch.float64, **options)


def samples(n: int, width: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def layer(model: KAN, index: int) -> KANLayer:
    found = list(model.layers)[index]
    assert isinstance(found, KANLayer)
    return found


def make_symbolic(model: KAN, index: int, i: int, j: int, name: str = "sin") -> None:
    edge = SymbolicEdge(name, (3.0, 0.1, 2.0, 1.0), dtype=torch.float64)
    layer(model, index).edge_mask[i, j] = 0
    layer(model, index).symbolic_edges[f"{i},{j}"] = edge


def marked(ax: Axes, gid: str) -> list[Line2D]:
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def points(line: Line2D) -> tuple[Any, Any]:
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def frames(ax: Axes) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle) and not patch.get_fill()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def same_color(line: Line2D, name: str) -> bool:
    return bool(np.allclose(to_rgb(line.get_color()), to_rgb(COLORS[name])))


# --------------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("widths", [(2, 5, 1), (4, 5, 3), (2, 1, 1), (6, 3, 2, 1), (1, 1), (1, 40)])
def test_every_edge_has_a_box_and_they_do_not_overlap(widths: tuple[int, ...]) -> None:
    model, x = network(*widths), samples(20, widths[0])
    figure = plot(model, x)
    (ax,) = figure.axes
    boxes = [(*frame.get_xy(), frame.get_width()) for frame in frames(ax)]

    assert len(marked(ax, "curve")) == len(boxes) == sum(a * b for a, b in itertools.pairwise(widths))
    assert len(marked(ax, "node")) == sum(widths)
    width, height = figure.get_size_inches()
    assert width <= 10
    assert ax.get_xlim() == (0, width)
    assert ax.get_ylim()[1] - ax.get_ylim()[0] == pytest.approx(height)  # units are inches
    for (x1, y1, side1), (x2, y2, side2) in itertools.combinations(boxes, 2):
        assert abs(x1 - x2) >= min(side1, side2) or abs(y1 - y2) >= min(side1, side2)
    for left, bottom, side in boxes:
        assert 0 <= left < left + side <= width
        assert 0.3 <= side <= 1
        assert bottom > 0
    for curve in marked(ax, "curve"):
        inside = [
            (left, bottom, side)
            for left, bottom, side in boxes
            if left < points(curve)[0].min()
            and points(curve)[0].max() < left + side
            and bottom < points(curve)[1].min()
            and points(curve)[1].max() < bottom + side
        ]
        assert len(inside) == 1
    for _ in range(2):  # without a warning from a layout engine, which the first save may bring back
        figure.savefig(io.BytesIO(), format="png", dpi=20)


def test_curves_are_the_edges_over_the_range_of_the_samples_and_as_opaque_as_important() -> None:
    model, x = network(2, 3, 1), samples(50, 2)
    (ax,) = plot(model, x).axes
    curves = marked(ax, "curve")
    importance = edge_importance(model, x)
    expected = []
    for index, values in enumerate(model.activations(x)[:-1]):
        low, high = values.min(dim=0).values, values.max(dim=0).values
        grid = low + torch.linspace(0, 1, len(points(curves[0])[0]), dtype=torch.float64)[:, None] * (high - low)
        shapes = layer(model, index).edge_functions(grid).detach().numpy()
        for j in range(values.shape[1]):
            expected += [(shapes[:, i, j], importance[index][i, j].item()) for i in range(shapes.shape[1])]

    assert len({round(float(importance_), 3) for _, importance_ in expected}) > 4
    for curve, (shape, strength) in zip(curves, expected, strict=True):
        drawn = points(curve)[1]
        np.testing.assert_allclose(
            (drawn - drawn.min()) / np.ptp(drawn), (shape - shape.min()) / np.ptp(shape), atol=1e-9
        )
        assert curve.get_alpha() == pytest.approx(max(strength, 0.1))
        assert same_color(curve, "blue")


def test_lines_lead_from_the_right_node_through_the_box_to_the_right_node() -> None:
    model, x = network(3, 4, 2), samples(20, 3)
    (ax,) = plot(model, x).axes
    nodes = {(round(float(px[0]), 6), round(float(py[0]), 6)) for px, py in map(points, marked(ax, "node"))}
    heights = sorted({y for _, y in nodes})
    assert [sum(y == height for _, y in nodes) for height in heights] == [3, 4, 2]
    lines = [points(line) for line in ax.get_lines() if same_color(line, "grey")]
    down, up = lines[::2], lines[1::2]
    pairs = set()
    for (below_x, below_y), (above_x, above_y) in zip(down, up, strict=True):
        start, end = (below_x[0], below_y[0]), (above_x[0], above_y[0])
        assert {tuple(np.round(start, 6)), tuple(np.round(end, 6))} <= nodes
        assert start[1] < below_y[-1] < above_y[-1] < end[1]
        assert below_x[-1] == above_x[-1]
        pairs.add((*np.round(start, 6), *np.round(end, 6)))
    assert len(pairs) == 3 * 4 + 4 * 2
    first = sorted(x for x, y in nodes if y == heights[0])
    # Boxes stand in the order of their inputs.
    assert [line[0][0] for line in down[:12]] == pytest.approx(list(np.repeat(first, 4)), abs=1e-5)


def test_removed_edges_and_nodes_are_absent_and_unused_inputs_hollow() -> None:
    model, x = network(3, 3, 1), samples(20, 3)
    layer(model, 0).edge_mask[:, 1] = 0
    layer(model, 0).edge_mask[2] = 0
    layer(model, 1).edge_mask[0, 2] = 0
    figure = plot(model, x, names=["a", "b", "c"], output_names=["out"])
    (ax,) = figure.axes

    assert len(marked(ax, "curve")) == 4 + 2
    colors = [np.allclose(to_rgb(node.get_color()), 1) for node in marked(ax, "node")]
    assert colors == [False, True, False, False, False, False]
    assert texts(figure) == ["a", "b", "c", "out"]
    named = {text.get_text(): text for text in ax.texts}
    assert named["b"].get_color() == COLORS["grey"]
    assert named["a"].get_color() == named["out"].get_color() == COLORS["black"]
    assert named["a"].get_position()[1] < 0 < named["out"].get_position()[1]


def test_known_functions_are_orange_and_named() -> None:
    model, x = network(2, 1, 1), samples(20, 2)
    make_symbolic(model, 0, 0, 1)
    make_symbolic(model, 1, 0, 0, "x^2")
    figure = plot(model, x)
    curves = marked(figure.axes[0], "curve")

    assert [same_color(curve, "orange") for curve in curves] == [False, True, True]
    assert {"sin", "x^2"} < set(texts(figure))
    edge = layer(model, 0).symbolic_edges["0,1"]
    shape = edge(torch.linspace(x[:, 1].min(), x[:, 1].max(), len(points(curves[1])[0]), dtype=torch.float64))
    drawn = points(curves[1])[1]
    assert np.corrcoef(drawn, shape.detach().numpy())[0, 1] == pytest.approx(1)
    for name in ("sin", "x^2"):  # above its curve
        (text,) = (text for text in figure.axes[0].texts if text.get_text() == name)
        curve = curves[1] if name == "sin" else curves[2]
        assert text.get_position()[1] - 0.2 > points(curve)[1].max()


def test_a_flat_curve_is_a_line_in_the_middle() -> None:
    model, x = network(2, 1, base=None), samples(20, 2)
    with torch.no_grad():
        layer(model, 0).coefficients[0, :, 1] = 5.0
    (ax,) = plot(model, x).axes
    heights = points(marked(ax, "curve")[1])[1]
    assert np.ptp(heights) < 1e-9
    box = frames(ax)[1]
    assert box.get_y() + 0.4 * box.get_height() <= heights[0] <= box.get_y() + 0.6 * box.get_height()


def test_wide_networks_show_the_most_important_edges_and_say_so() -> None:
    model, x = network(50, 8, 2), samples(20, 50)
    figure = plot(model, x)
    (ax,) = figure.axes
    assert len(marked(ax, "curve")) == 40 + 16
    assert texts(figure)[-1] == "not drawn: 360 of 400 edges in layer 0"
    shown = [curve.get_alpha() or 0.0 for curve in marked(ax, "curve")][:40]
    strongest = edge_importance(model, x)[0].flatten().sort(descending=True).values[:40]
    assert sorted(shown, reverse=True) == pytest.approx(strongest.clamp(min=0.1).tolist())
    assert sum(text.get_rotation() == 90 for text in ax.texts) == len(texts(figure)) - 3  # the inputs, upright

    few = plot(network(2, 3, 2), samples(20, 2), max_edges=2)
    assert texts(few)[-1] == "not drawn: 4 of 6 edges in layer 0,\n4 of 6 edges in layer 1"
    assert len(marked(few.axes[0], "curve")) == 4


def test_default_names() -> None:
    assert texts(plot(network(2, 1), samples(9, 2))) == ["$x_{1}$", "$x_{2}$", "$y$"]
    assert texts(plot(network(1, 2), samples(9, 1))) == ["$x$", "$y_{1}$", "$y_{2}$"]


def test_plot_refuses_bad_arguments() -> None:
    model, x = network(2, 1), samples(9, 2)
    with pytest.raises(ValueError, match=r"names must be a list of 2 names, got \['x'\]"):
        plot(model, x, names=["x"])
    with pytest.raises(ValueError, match="output_names must be a list of 1 names, got 'y'"):
        plot(model, x, output_names="y")
    with pytest.raises(ValueError, match="max_edges must be at least 1, got 0"):
        plot(model, x, max_edges=0)
    with pytest.raises(ValueError, match=r"got \(1, 2\)"):
        plot(model, x[:1])


# ------------------------------------------------------------------------------------------------------------ one edge


def by_label(ax: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in ax.get_lines() if not str(line.get_label()).startswith("_")}


def test_plot_edge_shows_spline_base_knots_samples_and_the_outside() -> None:
    model, x = network(2, 3, 1, grid_size=4), samples(1200, 2)
    values = model.activations(x)[1][:, 2].detach().numpy()
    (ax,) = plot_edge(model, x, 1, 0, 2).axes
    lines = by_label(ax)
    assert list(lines) == ["edge", "spline", "base"]
    places, total = points(lines["edge"])
    inputs = torch.zeros(len(places), 3, dtype=torch.float64)
    inputs[:, 2] = torch.from_numpy(places)
    expected = layer(model, 1).edge_functions(inputs)[:, 0, 2].detach()
    np.testing.assert_allclose(total, expected, atol=1e-12)
    weight = layer(model, 1).base_weight
    assert weight is not None
    np.testing.assert_allclose(points(lines["base"])[1], F.silu(inputs[:, 2]) * weight[0, 2].item(), atol=1e-12)
    np.testing.assert_allclose(points(lines["spline"])[1] + points(lines["base"])[1], total, atol=1e-12)
    assert places.min() < min(-1, values.min())
    assert places.max() > max(1, values.max())

    knots = [points(line)[0][0] for line in ax.get_lines() if len(points(line)[0]) == 2]
    assert knots == pytest.approx([-1, -0.5, 0, 0.5, 1])
    (rug,) = [line for line in ax.get_lines() if line.get_marker() == "|"]
    assert len(points(rug)[0]) == 400  # every third
    assert set(np.round(points(rug)[0], 9)) <= set(np.round(values, 9))
    shaded = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches)  # type: ignore[attr-defined]
    assert shaded == [pytest.approx((places.min(), -1)), pytest.approx((1, places.max()))]
    assert ax.get_xlabel() == "value of node 2 after layer 0 (marks: samples)"
    assert ax.get_ylabel() == "contribution to output 0"
    assert ax.get_title(loc="left") == "Layer 1, edge 2 → 0"
    bottom, top = ax.get_ylim()
    assert min(points(line)[1].min() for line in lines.values()) > bottom + 0.1 * (top - bottom)  # above the marks


def test_plot_edge_without_base_and_of_a_known_function() -> None:
    model, x = network(2, 2, 1, base=None), samples(40, 2)
    (ax,) = plot_edge(model, x, 0, 1, 0).axes
    assert list(by_label(ax)) == ["edge"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("value of input 0 (marks: samples)", "contribution to node 1")

    make_symbolic(model, 0, 1, 0)
    (ax,) = plot_edge(model, x, 0, 1, 0).axes
    (line,) = by_label(ax).values()
    places, values = points(line)
    assert line.get_label() == "sin"
    np.testing.assert_allclose(values, 2 * np.sin(3 * places + 0.1) + 1, atol=1e-12)
    assert places.min() < x[:, 0].min() < x[:, 0].max() < places.max()
    assert not ax.patches
    x[:, 0] = 0.3
    assert plot_edge(model, x, 0, 1, 0).axes[0].get_xlim() == pytest.approx((-0.2, 0.8))


def test_plot_edge_refuses_bad_arguments() -> None:
    model, x = network(2, 3, 1), samples(9, 2)
    layer(model, 0).edge_mask[2, 1] = 0
    with pytest.raises(ValueError, match=r"edge \(2, 1\) of layer 0 was removed"):
        plot_edge(model, x, 0, 2, 1)
    for arguments, message in (
        ((2, 0, 0), "layer must be at most 1, got 2"),
        ((0, 3, 0), "i must be at most 2, got 3"),
        ((0, 0, 2), "j must be at most 1, got 2"),
        ((-1, 0, 0), "layer must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_edge(model, x, *arguments)
    with pytest.raises(ValueError, match=r"\(batch >= 1, 2\), got \(0, 2\)"):
        plot_edge(model, x[:0], 0, 0, 0)
    x[2, 1] = float("nan")
    with pytest.raises(ValueError, match="node 1 before layer 0 has values that are not finite"):
        plot_edge(model, x, 0, 0, 1)


# ------------------------------------------------------------------------------------------------------- spline to try


def static(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Axes:
    """The figure that stands in where there are no widgets."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    figure = explore_spline(**options)
    assert isinstance(figure, Figure)
    return figure.axes[0]


@pytest.mark.parametrize(("grid_size", "degree"), [(5, 3), (4, 2), (3, 1)])
def test_spline_is_the_sum_of_its_terms(monkeypatch: pytest.MonkeyPatch, grid_size: int, degree: int) -> None:
    coefficients = np.linspace(-2, 2, grid_size + degree)
    ax = static(monkeypatch, grid_size=grid_size, degree=degree, coefficients=list(coefficients))
    *terms, total, dots = ax.get_lines()
    assert len(terms) == grid_size + degree
    np.testing.assert_allclose(sum(points(term)[1] for term in terms), points(total)[1], atol=1e-12)
    model = network(1, 1, grid_size=grid_size, degree=degree, base=None, grid_range=(0, grid_size))
    with torch.no_grad():
        layer(model, 0).coefficients[0, :, 0] = torch.from_numpy(coefficients)
    x = torch.from_numpy(points(total)[0])[:, None]
    np.testing.assert_allclose(points(total)[1], model(x)[:, 0].detach(), atol=1e-12)
    # Evenly spaced coefficients make a straight line, and each stands at its spline's maximum, on the line.
    np.testing.assert_allclose(points(dots)[1], np.interp(points(dots)[0], *points(total)), atol=1e-9)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x, in grid intervals", "spline")
    assert not plt.get_fignums()  # or the notebook would show it twice


def test_moving_a_slider_changes_the_picture_and_nothing_else() -> None:
    pytest.importorskip("ipywidgets")
    box = explore_spline(grid_size=3, degree=2, coefficients=[0, 1, 0, -1, 0.5])
    image, controls = box.children
    sliders = controls.children
    assert [slider.value for slider in sliders] == [0, 1, 0, -1, 0.5]
    assert [slider.description for slider in sliders] == ["c0", "c1", "c2", "c3", "c4"]
    before = bytes(image.value)
    assert before.startswith(b"\x89PNG")
    sliders[2].value = 1.5
    assert bytes(image.value) != before
    sliders[2].value = 0
    assert bytes(image.value) == before
    assert len(explore_spline().children[1].children) == 8


def test_explore_spline_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"coefficients must be 8 numbers from -2 to 2, got \[1.0\]"):
        explore_spline(coefficients=[1.0])
    with pytest.raises(ValueError, match=r"coefficients must be 2 numbers from -2 to 2, got \[0, 2.5\]"):
        explore_spline(grid_size=1, degree=1, coefficients=[0, 2.5])
    with pytest.raises(ValueError, match="grid_size must be at least 1, got 0"):
        explore_spline(grid_size=0)
    with pytest.raises(ValueError, match="degree must be at least 1, got 0"):
        explore_spline(degree=0)
