"""The theme of every figure, and functions from plain arrays to matplotlib Axes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from course_utils._validation import check_int

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
    "plot_seeds",
    "sequence_colors",
    "show",
    "show_png",
    "style",
    "use_theme",
]

# Okabe & Ito's palette, ordered so that the first entries differ most in lightness too (grey print, colour blindness).
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
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

# The grammar of learning curves: training solid blue, validation dashed orange.
TRAIN: dict[str, Any] = {"color": COLORS["blue"], "linestyle": "-"}
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
    """Return colour and marker of the ``index``-th variant in a comparison (from 0, at most 8 of them)."""
    check_int(index, "index", minimum=0, maximum=len(_MARKERS) - 1)
    return {"color": list(COLORS.values())[index], "marker": _MARKERS[index]}


def sequence_colors(n: int) -> list[tuple[float, float, float, float]]:
    """Return ``n`` RGBA colours from dark to light for ordered things (layers, learning rates, epochs)."""
    import matplotlib as mpl

    check_int(n, "n", minimum=1)
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
    try:
        from IPython.display import display
    except ImportError:  # a plain Python session: the words are what can be shown
        print(alt)
        return
    metadata: dict[str, object] = {"alt": alt} if width is None else {"alt": alt, "width": width}
    data = {"image/png": image, "text/plain": f"Figure: {alt}"}
    display(data, raw=True, metadata={"image/png": metadata})


def label_line_ends(ax: Axes, *, min_gap: float = 0.06, fontsize: float = 10.0) -> None:
    """Write each labelled line's label beside its last point, in its colour, instead of a legend.

    Labels that would overlap are pushed apart.

    Args:
        ax: its lines with a label (not starting with ``_``) are labelled; call it after the limits are set.
        min_gap: smallest distance between two labels, as a share of the axis height.
        fontsize: in points.
    """
    ends = []
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
            color=color,
            va="center",
            fontsize=fontsize,
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights apart to at least ``gap``, as little as a few sweeps manage."""
    positions = list(heights)
    for _ in range(100):
        moved = False
        for low in range(len(positions) - 1):
            overlap = gap - (positions[low + 1] - positions[low])
            if overlap > 1e-9:
                positions[low] -= overlap / 2
                positions[low + 1] += overlap / 2
                moved = True
        if not moved:
            break
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
