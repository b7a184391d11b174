"""The theme of every figure, and functions from plain arrays to matplotlib Axes."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from course_utils._notebook import notebook_display

if TYPE_CHECKING:  # matplotlib costs a third of a second; nobody who only trains should pay for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "DIVERGING",
    "SEQUENTIAL",
    "TRAIN",
    "VAL",
    "label_line_ends",
    "plot_depth_profile",
    "plot_dots",
    "plot_seeds",
    "sequence_colors",
    "show",
    "show_png",
    "small_multiples",
    "style",
    "use_theme",
]

#: Name → colour, Okabe & Ito's palette, ordered so that the first entries differ most in lightness too (grey print,
#: colour blindness).
COLORS: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "grey": "#6B6B6B",
    "black": "#222222",
}
#: Name of the colour map for ordered values.
SEQUENTIAL = "viridis"
#: Name of the colour map for signed values; centre it on zero.
DIVERGING = "RdBu_r"

# The grammar of learning curves.
#: Keywords for ``Axes.plot`` of what was measured on training data, solid blue.
TRAIN: dict[str, Any] = {"color": COLORS["blue"], "linestyle": "-"}
#: Keywords for what was measured on validation data, dashed orange.
VAL: dict[str, Any] = {"color": COLORS["orange"], "linestyle": "--"}

# Variants get a colour and a marker, so that none is told from another by colour alone.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def use_theme() -> None:
    """Set the course's look for all figures that follow. Call it once, in the set-up cell."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",  # opaque, so that a dark page does not swallow black labels
            "savefig.facecolor": "white",
            "font.size": 11.0,
            "axes.titlesize": 12.0,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 11.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.7,
            "lines.linewidth": 2.0,
            "lines.markersize": 5.0,
            "legend.frameon": False,
            "image.cmap": SEQUENTIAL,
            "axes.prop_cycle": cycler(color=list(COLORS.values())),
        }
    )


def style(index: int) -> dict[str, Any]:
    """Return colour and marker of a variant in a comparison, as keywords for ``Axes.plot``.

    Args:
        index: its number, from 0 to 7.
    """
    return {"color": list(COLORS.values())[index], "marker": _MARKERS[index]}


def sequence_colors(n: int) -> list[tuple[float, float, float, float]]:
    """Return ``n`` RGBA colours from dark to light for ordered things (layers, learning rates, epochs)."""
    import matplotlib as mpl

    # The lightest tenth of viridis is too pale on white.
    return [tuple(color) for color in mpl.colormaps[SEQUENTIAL](np.linspace(0.0, 0.9, n))]


def show(figure: Figure, alt: str, *, dpi: int = 110) -> None:
    """Show a figure in the notebook with its alternative text, and close it.

    Args:
        figure: what to show.
        alt: a sentence that says what is to be seen, for readers who do not see it.
        dpi: pixels per inch of the image.

    Raises:
        ValueError: the text is too short to describe anything (under 20 characters).
    """
    import matplotlib.pyplot as plt

    image = io.BytesIO()
    # Without the version in its metadata the image stays the same bytes when only matplotlib's release changes.
    figure.savefig(image, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    show_png(image.getvalue(), alt, width=round(figure.get_figwidth() * 100))


def show_png(image: bytes, alt: str, *, width: int | None = None) -> None:
    """Show a ready PNG image in the notebook with its alternative text.

    The text travels as the image's ``alt`` attribute and as the plain-text form of the output, so that a screen
    reader and a terminal both get it.

    Args:
        image: the bytes of a PNG file.
        alt: a sentence that says what is to be seen.
        width: in pixels of the page; ``None`` shows the image at its own size.

    Raises:
        ValueError: the text is too short to describe anything (under 20 characters).
    """
    alt = " ".join(alt.split())
    if len(alt) < 20:
        raise ValueError(f"alt must describe the figure in a sentence, got {alt!r}")
    display = notebook_display()
    if display is None:  # a plain Python session: the words are what can be shown
        print(alt)
        return
    metadata: dict[str, object] = {"alt": alt} if width is None else {"alt": alt, "width": width}
    # JupyterLab writes no `alt` for a PNG, whatever its metadata say, but takes the HTML where there is one.
    size = "" if width is None else f' width="{width}"'
    tag = f'<img alt="{html.escape(alt)}"{size} src="data:image/png;base64,{base64.b64encode(image).decode()}">'
    data = {"text/html": tag, "image/png": image, "text/plain": f"Figure: {alt}"}
    display(data, raw=True, metadata={"image/png": metadata})


def _plain_log_axis(ax: Axes) -> None:
    """Make the y axis logarithmic with ticks in plain numbers: 1, 2, 5, 10, … or powers of ten if they span much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def label_line_ends(ax: Axes, *, min_gap: float = 0.06, fontsize: float = 10.0) -> None:
    """Write each labelled line's label beside its last point, in its colour, instead of a legend.

    Labels that would overlap are pushed apart. A light colour is darkened for its label until text in it has contrast
    AA on white (4.5 : 1, WCAG 2.1).

    Args:
        ax: its lines with a label (not starting with ``_``) are labelled; call it after the limits are set.
        min_gap: smallest distance between two labels, as a share of the axis height.
        fontsize: in points.
    """
    ends = []
    ax.autoscale_view()  # matplotlib postpones it, and the labels' heights depend on the limits
    for line in ax.get_lines():
        label = str(line.get_label())
        xy = np.asarray(line.get_xydata(), dtype=float)
        finite = np.isfinite(xy).all(axis=1)
        if label.startswith("_") or not finite.any():
            continue
        x, y = xy[finite][-1]
        height = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[1]
        ends.append((height, x, y, label, line.get_color()))
    ends.sort(key=lambda end: end[0])
    positions = _spread([min(max(end[0], 0.0), 1.0) for end in ends], min_gap)
    for (_, x, y, label, color), height in zip(ends, positions, strict=True):
        ax.annotate(
            label,
            xy=(x, y),
            xytext=(1.01, height),
            textcoords="axes fraction",
            color=_readable(color),
            va="center",
            fontsize=fontsize,
            annotation_clip=False,
        )


def _readable(color: Any) -> tuple[float, ...]:
    """Return the colour, darkened in linear light if its contrast with white is below 4.5 : 1."""
    from matplotlib.colors import to_rgb

    channels = np.asarray(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    # (1 + 0.05) / (luminance + 0.05) is the contrast; a little more than 4.5, since the picture has only 256 levels.
    linear *= min(1.0, (1.05 / 4.6 - 0.05) / max(luminance, 1e-12))
    return tuple(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).tolist())


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights apart to at least ``gap``, as little as a few sweeps manage, and keep them in [0, 1]."""
    positions = list(heights)
    for _ in range(100):
        for low in range(len(positions) - 1):
            overlap = gap - (positions[low + 1] - positions[low])
            if overlap > 0:
                positions[low] -= overlap / 2
                positions[low + 1] += overlap / 2
    for index in reversed(range(len(positions))):  # down from the top, where the upper ones may have left the axes
        positions[index] = min([positions[index], 1.0, *(p - gap for p in positions[index + 1 : index + 2])])
    return positions


def plot_seeds(ax: Axes, x: ArrayLike, runs: ArrayLike, *, label: str | None = None, **line: Any) -> None:
    """Draw the mean of several seeds as a line and their range as a band around it.

    Args:
        ax: where to draw.
        x: shape (points,).
        runs: shape (seeds, points); NaN marks a run that had ended.
        label: name of the line.
        **line: colour, line style and so on for the line; the band takes its colour.

    Raises:
        ValueError: the shapes do not fit.
    """
    positions, values = np.asarray(x, dtype=float), np.asarray(runs, dtype=float)
    if values.ndim != 2 or values.shape[1:] != positions.shape:
        raise ValueError(f"runs must have shape (seeds, {positions.size}), got {values.shape}")
    alive = np.isfinite(values).any(axis=0)
    positions, values = positions[alive], values[:, alive]
    (drawn,) = ax.plot(positions, np.nanmean(values, axis=0), label=label, **line)
    ax.fill_between(
        positions,
        np.nanmin(values, axis=0),
        np.nanmax(values, axis=0),
        color=drawn.get_color(),
        alpha=0.18,
        linewidth=0,
    )


def plot_dots(ax: Axes, groups: Mapping[str, ArrayLike], *, xlabel: str, means: str = ".2f") -> None:
    """Draw one row per variant and one dot per seed, so that the spread is seen beside the difference.

    Args:
        ax: where to draw; the first variant is on top.
        groups: name → values of shape (seeds,); NaN marks a run that failed and is not drawn.
        xlabel: the quantity, with its unit if it has one.
        means: format of the mean of the runs that did not fail, which stands at the right of each row; empty for none.
    """
    for row, values in enumerate(groups.values()):
        runs = np.asarray(values, dtype=float)
        runs = runs[~np.isnan(runs)]
        ax.plot(runs, np.full(len(runs), row), "o", color=COLORS["blue"], alpha=0.7)
        if means and len(runs):
            text = format(runs.mean(), means)
            ax.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    ax.set(yticks=range(len(groups)), yticklabels=list(groups), xlabel=xlabel, ylim=(len(groups) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)


def small_multiples(
    panels: Mapping[str, Sequence[ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    columns: int = 3,
    log: bool = False,
    ylim: tuple[float, float] | None = None,
    reference: float | None = None,
) -> Figure:
    """Draw one panel per variant and one line per seed, all on the same axes, so that shapes can be compared.

    Args:
        panels: title → one sequence of values per seed; the position is the x axis. They may differ in length.
        xlabel: below the figure.
        ylabel: beside it.
        columns: panels in a row.
        log: a logarithmic y axis.
        ylim: limits of the y axis; values beyond are cut off.
        reference: height of a dotted line in every panel.

    Returns:
        The figure, for `show`.
    """
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9.5, 0.6 + 2.2 * rows), sharex=True, sharey=True, squeeze=False)
    for ax, (title, runs) in zip(axes.flat, panels.items(), strict=False):
        for color, run in zip(sequence_colors(len(runs)), runs, strict=True):
            ax.plot(np.asarray(run), color=color, linewidth=1.1, marker="x" if len(np.asarray(run)) < 10 else None)
        if reference is not None:
            ax.axhline(reference, color=COLORS["grey"], linestyle=":", linewidth=1)
        ax.set_title(title)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    if ylim is not None:
        axes[0, 0].set_ylim(ylim)
    if log:
        _plain_log_axis(axes[0, 0])
    figure.supxlabel(xlabel, fontsize=11)
    figure.supylabel(ylabel, fontsize=11)
    return figure


def plot_depth_profile(ax: Axes, profiles: Mapping[str, ArrayLike], *, ylabel: str, log: bool = True) -> None:
    """Draw one quantity per layer for several variants, each labelled at its end.

    Args:
        ax: where to draw; layer 1 is the one next to the input.
        profiles: name → values of shape (layers,) or (seeds, layers).
        ylabel: the quantity, with its unit if it has one.
        log: a logarithmic axis, as gradients want.
    """
    from matplotlib.ticker import MaxNLocator

    for index, (name, values) in enumerate(profiles.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        plot_seeds(ax, np.arange(1, runs.shape[1] + 1), runs, label=name, **style(index))
    if log:
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="layer (1 is next to the input)", ylabel=ylabel)
    label_line_ends(ax)
