"""Pictures of Kolmogorov-Arnold networks: the whole network, one edge, and a spline to play with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._validation import check_int
from course_utils.kan.bsplines import b_spline_basis, centres
from course_utils.kan.layer import KANLayer
from course_utils.kan.network import KANBase
from course_utils.kan.pruning import edge_importance
from course_utils.plotting import COLORS, label_line_ends, sequence_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

__all__ = ["explore_spline", "plot", "plot_edge"]

# The network's figure is laid out in inches.
_MAX_WIDTH, _MIN_WIDTH = 10.0, 3.6
_BOX, _PITCH, _GAP = 0.82, 0.94, 0.62  # side of a curve's box, distance of two, room between boxes and nodes
_ONE_ROW = 10  # boxes that fit side by side
_FAINTEST = 0.1  # opacity of an edge without importance; less is not seen at all


@torch.no_grad()
def plot(
    model: KANBase,
    x: Tensor,
    *,
    names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    max_edges: int = 40,
) -> Figure:
    """Draw the network from the inputs (below) to the outputs (above), each edge with its learned curve.

    A curve is drawn over the range its input takes on the samples, and scaled to its box. The more important an edge
    (see `edge_importance`), the darker. Removed edges and hidden nodes without edges are absent; known functions are
    orange and bear their names.

    Args:
        model: the network.
        x: (batch, widths[0]), at least two rows, finite: the samples that ranges and importance are measured on.
        names: of the inputs; by default x₁, x₂, …
        output_names: of the outputs; by default y₁, y₂, …
        max_edges: of a layer with more edges only so many are drawn, the most important ones; the figure says how many
            are left out.

    Raises:
        TypeError, ValueError: a list of names has the wrong length, ``max_edges`` is below 1, or see
            `edge_importance`.

    Source: the arrangement of Liu et al. 2024, arXiv:2404.19756, figure 2.4.
    """
    import matplotlib.pyplot as plt

    check_int(max_edges, "max_edges", minimum=1)
    input_labels = _labels(names, "names", model.widths[0], "x")
    output_labels = _labels(output_names, "output_names", model.widths[-1], "y")
    drawn, left_out = _choose(model, x, max_edges)
    nodes = _nodes_to_draw(model, drawn, max_edges)

    widest = max(*map(len, drawn), *(0.7 * len(layer) for layer in nodes), _MIN_WIDTH / _PITCH)
    width = min(widest * _PITCH, _MAX_WIDTH)
    boxes = [_boxes(len(edges), width) for edges in drawn]
    heights = [height + 2 * _GAP for _, height, _ in boxes]
    bottom, top = 0.55, 0.45 + 0.22 * len(left_out)
    total = sum(heights)
    figure = plt.figure(figsize=(width, total + bottom + top), layout=_fixed_layout())
    ax = figure.add_axes((0, 0, 1, 1), label="network")
    ax.set(xlim=(0, width), ylim=(-bottom, total + top))
    ax.set_axis_off()

    floor = 0.0
    for index, edges in enumerate(drawn):
        lower, upper = _places(nodes[index], width), _places(nodes[index + 1], width)
        side, filled, centres_ = boxes[index]
        for edge, (across, height) in zip(edges, centres_, strict=True):
            ends = ((lower[edge.j], floor), (upper[edge.i], floor + heights[index]))
            levels = (floor + _GAP, floor + _GAP + filled)
            _draw_edge(ax, edge, (across, floor + _GAP + height, side), levels, ends)
        floor += heights[index]
        used = {edge.j for edge in edges} | (set() if index == 0 else {edge.i for edge in drawn[index - 1]})
        _draw_nodes(ax, lower, floor - heights[index], used)
    _draw_nodes(ax, _places(nodes[-1], width), total, {edge.i for edge in drawn[-1]})
    _name_nodes(ax, _places(nodes[0], width), -0.17, input_labels, "top", {edge.j for edge in drawn[0]})
    _name_nodes(ax, _places(nodes[-1], width), total + 0.15, output_labels, "bottom", {edge.i for edge in drawn[-1]})
    if left_out:
        note = "not drawn: " + ",\n".join(left_out)
        ax.text(width - 0.1, total + top - 0.08, note, ha="right", va="top", fontsize=10, color=COLORS["grey"])
    return figure


@torch.no_grad()
def plot_edge(model: KANBase, x: Tensor, layer: int, i: int, j: int) -> Figure:
    """Draw one edge's function, with its spline and its base apart, its knots, and where the samples lie.

    Outside the grid, where the spline goes on linearly, the ground is grey. Marks at the lower end are the values that
    the samples take there (at most 500 of them).

    Args:
        model: the network.
        x: (batch, widths[0]), at least one row.
        layer: number of the layer, from 0.
        i: number of the node that the edge enters, from 0.
        j: number of the node that it leaves.

    Raises:
        TypeError: a number is not an integer.
        ValueError: there is no such layer or node, the edge was removed, or ``x`` has another shape, no rows or leads
            to a value that is not finite.
    """
    import matplotlib.pyplot as plt

    check_int(layer, "layer", minimum=0, maximum=len(model.layers) - 1)
    chosen = _layer(model, layer)
    check_int(i, "i", minimum=0, maximum=chosen.out_features - 1)
    check_int(j, "j", minimum=0, maximum=chosen.in_features - 1)
    if x.ndim != 2 or x.shape[1] != model.widths[0] or len(x) == 0:
        raise ValueError(f"x must have shape (batch >= 1, {model.widths[0]}), got {tuple(x.shape)}")
    if not chosen.active_edges[i, j]:
        raise ValueError(f"edge ({i}, {j}) of layer {layer} was removed, there is nothing to draw")
    known = _name(chosen, i, j)
    values = model.activations(x)[layer][:, j]
    if not values.isfinite().all():
        raise ValueError(f"node {j} before layer {layer} has values that are not finite on these samples")
    low, step = chosen.grid_low[j].item(), chosen.grid_step[j].item()
    high = low + step * chosen.grid_size
    seen = values if known else torch.cat([values, values.new_tensor([low, high])])
    margin = 0.08 * (seen.max() - seen.min()).item() or 0.5
    left, right = seen.min().item() - margin, seen.max().item() + margin
    places = torch.linspace(left, right, 400, dtype=x.dtype, device=x.device)
    total = _edge_values(chosen, places, i, j)

    figure, ax = plt.subplots(figsize=(7.0, 3.8))
    if known:
        ax.plot(_array(places), _array(total), color=COLORS["orange"], label=known)
    else:
        for start, end in ((left, low), (high, right)):
            ax.axvspan(start, end, color="#EFEFEF", linewidth=0, zorder=0)
        ax.plot(_array(places), _array(total), color=COLORS["blue"], linewidth=2.6, label="edge")
        if chosen.base_weight is not None:
            base = F.silu(places) * chosen.base_weight[i, j]
            ax.plot(_array(places), _array(total - base), color=COLORS["green"], linestyle="--", label="spline")
            ax.plot(_array(places), _array(base), color=COLORS["orange"], linestyle=":", label="base")
        for knot in range(chosen.grid_size + 1):
            ax.axvline(low + step * knot, color=COLORS["grey"], linewidth=0.8, alpha=0.55, zorder=1)
    rug, place = _array(values[:: -(-len(values) // 500)]), ax.get_xaxis_transform()
    ax.plot(rug, np.full(len(rug), 0.025), "|", color=COLORS["black"], alpha=0.35, ms=9, transform=place)
    source = f"input {j}" if layer == 0 else f"node {j} after layer {layer - 1}"
    target = f"output {i}" if layer == len(model.layers) - 1 else f"node {i}"
    ax.set(xlim=(left, right), xlabel=f"value of {source} (marks: samples)", ylabel=f"contribution to {target}")
    ax.set_title(f"Layer {layer}, edge {j} → {i}")
    ax.grid(axis="x", visible=False)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom - 0.08 * (top - bottom), top)  # room for the marks
    label_line_ends(ax)
    return figure


def explore_spline(*, grid_size: int = 5, degree: int = 3, coefficients: Sequence[float] | None = None) -> Any:
    """Move the coefficients of a B-spline and watch the curve: one slider a spline.

    Args:
        grid_size: intervals of the grid, at least 1.
        degree: of the spline, at least 1.
        coefficients: where the sliders stand at first, grid_size + degree numbers between −2 and 2.

    Returns:
        A widget to be shown by the notebook; without ipywidgets the figure as it is at first.

    Raises:
        TypeError, ValueError: a size is out of range, there are too many or too few coefficients, or one lies outside.
    """
    n_basis = check_int(grid_size, "grid_size", minimum=1) + check_int(degree, "degree", minimum=1)
    default = ([0.0, 1.0, -0.5, -1.0, 1.5, 0.5, 0.0, 1.0] * n_basis)[:n_basis]
    values = [float(value) for value in (default if coefficients is None else coefficients)]
    if len(values) != n_basis or not all(-2 <= value <= 2 for value in values):
        raise ValueError(f"coefficients must be {n_basis} numbers from -2 to 2, got {coefficients}")
    picture = _SplinePicture(grid_size, degree, values)
    try:
        import ipywidgets as widgets
    except ImportError:
        return picture.figure
    image = widgets.Image(value=picture.png(), format="png")
    sliders = [
        widgets.FloatSlider(value=value, min=-2, max=2, step=0.1, description=f"c{index}")
        for index, value in enumerate(values)
    ]

    def redraw(_: object) -> None:
        picture.move([slider.value for slider in sliders])
        image.value = picture.png()

    for slider in sliders:
        slider.observe(redraw, names="value")
    return widgets.HBox([image, widgets.VBox(sliders)])


class _SplinePicture:
    """A figure of a spline and its terms whose lines move, which is much faster than a new figure."""

    def __init__(self, grid_size: int, degree: int, coefficients: Sequence[float]) -> None:
        import matplotlib.pyplot as plt

        s = torch.linspace(0, grid_size, 40 * grid_size + 1, dtype=torch.float64)
        self._basis = _array(b_spline_basis(s[:, None], grid_size, degree)[:, :, 0])
        self.figure = plt.figure(figsize=(6.4, 3.8), layout=_fixed_layout())
        plt.close(self.figure)  # pyplot must not show it a second time; it can still be drawn
        ax = self.figure.add_axes((0.11, 0.15, 0.86, 0.75))
        colors = sequence_colors(self._basis.shape[1])
        self._terms = [
            ax.plot(s, term, color=color, linewidth=1.2)[0] for term, color in zip(self._basis.T, colors, strict=True)
        ]
        (self._sum,) = ax.plot(s, s, color=COLORS["blue"], linewidth=2.8)
        peaks = _array(centres(grid_size, degree))
        self._shown = np.flatnonzero((peaks >= 0) & (peaks <= grid_size))
        (self._dots,) = ax.plot(
            peaks[self._shown], self._shown * 0.0, "o", color=COLORS["orange"], clip_on=False, zorder=5
        )
        ax.set(xlim=(0, grid_size), ylim=(-2.1, 2.1), xticks=range(grid_size + 1))
        ax.set(xlabel="x, in grid intervals", ylabel="spline")
        ax.set_title("Σ cᵢBᵢ(x) (thick) and its terms; dots: the cᵢ", fontsize=11)
        self.move(coefficients)

    def move(self, coefficients: Sequence[float]) -> None:
        """Set the coefficients."""
        terms = self._basis * np.asarray(coefficients)
        for line, term in zip(self._terms, terms.T, strict=True):
            line.set_ydata(term)
        self._sum.set_ydata(terms.sum(axis=1))
        self._dots.set_ydata(np.asarray(coefficients)[self._shown])

    def png(self) -> bytes:
        """Draw it."""
        image = io.BytesIO()
        self.figure.savefig(image, format="png", dpi=90, pil_kwargs={"compress_level": 1})
        return image.getvalue()


@dataclass(frozen=True)
class _Edge:  # to be drawn
    i: int
    j: int
    importance: float
    name: str | None
    curve: Any  # (points,)


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()


def _fixed_layout() -> LayoutEngine:
    """Return a layout engine that moves nothing: ``layout="none"`` becomes the theme's again when a figure is saved."""
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    return PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=False)


def _layer(model: KANBase, index: int) -> KANLayer:
    layer: KANLayer = model.layers[index]  # type: ignore[assignment]  # torch types the items of a ModuleList as Module
    return layer


def _labels(names: Sequence[str] | None, what: str, n: int, letter: str) -> list[str]:
    if names is None:
        return [f"${letter}$"] if n == 1 else [f"${letter}_{{{index}}}$" for index in range(1, n + 1)]
    if isinstance(names, str) or len(names) != n:
        raise ValueError(f"{what} must be a list of {n} names, got {names!r}")
    return [str(name) for name in names]


def _choose(model: KANBase, x: Tensor, max_edges: int) -> tuple[list[list[_Edge]], list[str]]:
    """Return the edges to draw of each layer, by input and then by output node, and what is left out, in words."""
    chosen, left_out = [], []
    for index, (score, values) in enumerate(zip(edge_importance(model, x), model.activations(x), strict=False)):
        layer = _layer(model, index)
        places = [(i, j) for i, j in layer.active_edges.nonzero().tolist()]
        strongest = sorted(places, key=lambda place: -score[place].item())[:max_edges]
        if len(places) > max_edges:
            left_out.append(f"{len(places) - max_edges} of {len(places)} edges in layer {index}")
        edges = []
        for i, j in sorted(strongest, key=lambda place: place[::-1]):
            low, high = values[:, j].min().item(), values[:, j].max().item()
            curve = _edge_values(layer, torch.linspace(low, high, 80, dtype=x.dtype, device=x.device), i, j)
            edges.append(_Edge(i, j, score[i, j].item(), _name(layer, i, j), _array(curve)))
        chosen.append(edges)
    return chosen, left_out


def _name(layer: KANLayer, i: int, j: int) -> str | None:
    """Return the name of the edge's function if that is known."""
    key = f"{i},{j}"
    return str(layer.symbolic_edges[key].name) if key in layer.symbolic_edges else None


def _nodes_to_draw(model: KANBase, drawn: list[list[_Edge]], max_nodes: int) -> list[list[int]]:
    """Return which nodes appear: hidden ones with edges, all inputs and outputs unless they are too many."""
    nodes = []
    for index, width in enumerate(model.widths):
        used = {edge.j for edge in drawn[index]} if index < len(drawn) else set()
        used |= {edge.i for edge in drawn[index - 1]} if index > 0 else set()
        hidden = 0 < index < len(drawn)
        nodes.append(sorted(used) if hidden or width > max_nodes else list(range(width)))
    return nodes


def _edge_values(layer: KANLayer, places: Tensor, i: int, j: int) -> Tensor:
    """Return φ_ij at the places, (points,)."""
    if _name(layer, i, j) is not None:
        known: Tensor = layer.symbolic_edges[f"{i},{j}"](places)
        return known
    s = (places - layer.grid_low[j]) / layer.grid_step[j]
    values = b_spline_basis(s[:, None], layer.grid_size, layer.degree)[:, :, 0] @ layer.coefficients[i, :, j]
    return values if layer.base_weight is None else values + layer.base_weight[i, j] * F.silu(places)


def _boxes(n: int, width: float) -> tuple[float, float, list[tuple[float, float]]]:
    """Return the side of a layer's boxes, the height they fill, and the centres (x, height over the lowest edge).

    More than ten stand in two rows, each box of one row between two of the other, and so narrow that lines pass.
    """
    rows = 1 if n <= _ONE_ROW else 2
    step = min(width / (n + rows - 1), 1.8)
    side = min(_BOX, step * (0.87 if rows == 1 else 1.24))
    first = width / 2 - step * (n - 1) / 2
    row_height = side + 0.12
    centres_ = [(first + step * k, side / 2 + row_height * (k % rows)) for k in range(n)]
    return side, row_height * (rows - 1) + side, centres_


def _places(nodes: list[int], width: float) -> dict[int, float]:
    """Return where the nodes stand, node -> x."""
    pitch = min(width / max(len(nodes), 1), 2.4)
    first = width / 2 - pitch * (len(nodes) - 1) / 2
    return {node: first + pitch * place for place, node in enumerate(nodes)}


def _draw_edge(
    ax: Axes,
    edge: _Edge,
    box: tuple[float, float, float],
    levels: tuple[float, float],
    ends: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    """Draw the line from node to node, the box (centre and side) on it, the curve and the function's name.

    Between the two levels, where the layer's boxes are, the line is upright.
    """
    from matplotlib.patches import Rectangle

    color = COLORS["blue"] if edge.name is None else COLORS["orange"]
    alpha = max(edge.importance, _FAINTEST)
    x, y, side = box
    half = side / 2
    for (node, node_level), level, end in zip(ends, levels, (y - half, y + half), strict=True):
        ax.plot([node, x, x], [node_level, level, end], color=COLORS["grey"], linewidth=1.3, alpha=alpha, zorder=1)
    ax.add_patch(Rectangle((x - half, y - half), side, side, facecolor="white", edgecolor="none", zorder=2))
    frame = Rectangle((x - half, y - half), side, side, fill=False, edgecolor=COLORS["black"], alpha=alpha, zorder=3)
    ax.add_patch(frame)
    room = 0.80 if edge.name is None else 0.56  # the name stands above the curve
    low, high = float(np.min(edge.curve)), float(np.max(edge.curve))
    flat = high - low <= 1e-9 * max(abs(low), abs(high), 1e-300)
    height = 0.5 if flat else (edge.curve - low) / (high - low)
    across = x + side * np.linspace(-0.4, 0.4, len(edge.curve))
    up = np.broadcast_to(y - half + side * (0.1 + room * height), across.shape)
    ax.plot(across, up, color=color, linewidth=2.2, alpha=alpha, zorder=4, gid="curve")
    if edge.name is not None:
        size = 11 if side > 0.7 else 9
        ax.text(x, y + half - 0.03, edge.name, ha="center", va="top", fontsize=size, color=color, zorder=5)


def _draw_nodes(ax: Axes, places: dict[int, float], height: float, used: set[int]) -> None:
    for node, x in places.items():
        color = COLORS["black"] if node in used else "white"
        ax.plot([x], [height], "o", ms=8, color=color, markeredgecolor=COLORS["black"], zorder=6, gid="node")


def _name_nodes(ax: Axes, places: dict[int, float], height: float, names: list[str], side: str, used: set[int]) -> None:
    """Write the names of inputs or outputs, upright if they are many; grey for those without edges."""
    xs = list(places.values())
    pitch = xs[1] - xs[0] if len(xs) > 1 else np.inf
    longest = max(len(names[node].strip("$")) for node in places) * 0.12
    size, angle = 13 if longest < pitch else 9, 0 if longest < 1.4 * pitch else 90
    for node, x in places.items():
        color = COLORS["black"] if node in used else COLORS["grey"]
        ax.text(x, height, names[node], ha="center", va=side, fontsize=size, rotation=angle, color=color)
