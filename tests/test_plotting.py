"""Figures: the theme, labels that do not collide, alternative text."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from course_utils import plotting


@pytest.fixture
def ax() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def relative_luminance(color: str) -> float:
    """WCAG 2.1's relative luminance of a hex colour."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_train_and_validation_differ_in_colour_and_in_dash() -> None:
    assert plotting.TRAIN["color"] != plotting.VAL["color"]
    assert plotting.TRAIN["linestyle"] != plotting.VAL["linestyle"]
    # Graphics need 3:1 against the page (WCAG 1.4.11).
    for line in (plotting.TRAIN, plotting.VAL):
        assert 1.05 / (relative_luminance(line["color"]) + 0.05) >= 3


def test_variants_differ_in_colour_and_marker() -> None:
    styles = [plotting.style(index) for index in range(8)]
    assert len({s["color"] for s in styles}) == len({s["marker"] for s in styles}) == 8


def test_theme_changes_only_matplotlib_settings(ax: Axes) -> None:
    with mpl.rc_context():
        plotting.use_theme()
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["figure.facecolor"] == "white"


@given(heights=st.lists(st.floats(0, 1), max_size=8))
def test_spread_keeps_order_and_distance(heights: list[float]) -> None:
    spread = plotting._spread(sorted(heights), 0.06)
    assert all(b - a >= 0.06 - 1e-3 for a, b in pairwise(spread))
    assert all(height <= 1 for height in spread)


def test_line_ends_are_labelled_in_the_lines_colour(ax: Axes) -> None:
    ax.plot([0, 1], [0, 1.0], color="#0072B2", label="one")
    ax.plot([0, 1, 2], [0, 1.0, np.nan], color="#D55E00", label="two")
    ax.plot([0, 1], [0, 0.5], label="_hidden")
    plotting.label_line_ends(ax)
    assert [(text.get_text(), to_hex(text.get_color())) for text in ax.texts] == [
        ("one", "#0072b2"),
        ("two", "#c15500"),
    ]
    gap = abs(ax.texts[0].xyann[1] - ax.texts[1].xyann[1])  # type: ignore[attr-defined]
    assert gap >= 0.06 - 1e-9


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_label_in_any_colour_has_contrast_aa_and_keeps_its_hue(channels: tuple[int, int, int]) -> None:
    given = "#{:02x}{:02x}{:02x}".format(*channels)
    red, green, blue = plotting._readable(given)
    readable = to_hex((red, green, blue))
    assert 1.05 / (relative_luminance(readable) + 0.05) >= 4.5
    if 1.05 / (relative_luminance(given) + 0.05) >= 4.6:
        assert readable == given
    order = sorted(range(3), key=lambda i: channels[i])
    darkened = [int(readable[i : i + 2], 16) for i in (1, 3, 5)]
    assert darkened[order[0]] <= darkened[order[1]] <= darkened[order[2]]


def test_seeds_are_drawn_as_mean_and_range(ax: Axes) -> None:
    plotting.plot_seeds(ax, [1, 2, 3], [[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]], label="runs")
    assert np.asarray(ax.get_lines()[0].get_ydata()).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"runs must have shape \(seeds, 2\), got \(1, 3\)"):
        plotting.plot_seeds(ax, [1, 2], [[1.0, 2.0, 3.0]])


def test_depth_profile_has_log_axis_and_labels(ax: Axes) -> None:
    plotting.plot_depth_profile(ax, {"sigmoid": [1e-6, 1e-3, 1.0], "ReLU": [[1, 1, 1], [2, 2, 2]]}, ylabel="norm")
    assert ax.get_yscale() == "log"
    assert {text.get_text() for text in ax.texts} == {"sigmoid", "ReLU"}


def test_plain_log_axis_writes_plain_numbers(ax: Axes) -> None:
    ax.plot([0, 1], [0.3, 60])
    plotting._plain_log_axis(ax)
    ax.figure.canvas.draw()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert {"0.5", "1", "2", "50"} <= set(labels)


def test_dots_show_every_seed_and_the_mean(ax: Axes) -> None:
    nan = float("nan")
    plotting.plot_dots(ax, {"a": [1.0, 3.0], "b": [2.0, nan], "c": [nan, nan]}, xlabel="accuracy")
    assert [len(np.asarray(line.get_xdata())) for line in ax.get_lines()] == [2, 1, 0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in ax.texts] == ["2.00", "2.00"]


def test_small_multiples_share_their_axes_and_hide_empty_ones() -> None:
    figure = plotting.small_multiples(
        {"a": [[1.0, 2.0], [3.0]], "b": [[4.0]]}, xlabel="step", ylabel="loss", log=True, ylim=(0.5, 8), reference=2.3
    )
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", ""]
    assert not figure.axes[2].axison
    assert figure.axes[1].get_ylim() == (0.5, 8)
    assert [len(ax.get_lines()) for ax in figure.axes[:2]] == [3, 2]
    plt.close(figure)


def test_show_sends_png_with_alt_text(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    def display(data: dict[str, Any], *, raw: bool, metadata: dict[str, Any]) -> None:
        sent.append(data | {"metadata": metadata})

    monkeypatch.setattr(plotting, "notebook_display", lambda: display)
    figure, _ = plt.subplots()
    plotting.show(figure, "An empty pair of axes,\n    drawn to test the alternative text.")
    assert sent[0]["image/png"].startswith(b"\x89PNG")
    assert sent[0]["metadata"]["image/png"]["alt"] == "An empty pair of axes, drawn to test the alternative text."
    assert sent[0]["text/plain"].endswith("alternative text.")
    assert not plt.fignum_exists(figure.number)


def test_outside_a_notebook_the_words_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    figure, _ = plt.subplots()
    plotting.show(figure, "An empty pair of axes.")
    assert capsys.readouterr().out == "An empty pair of axes.\n"


def test_show_refuses_a_text_that_says_nothing() -> None:
    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="alt must describe the figure in a sentence, got 'plot'"):
        plotting.show(figure, "plot")
    plt.close(figure)


def test_sequence_colours_run_from_dark_to_light() -> None:
    brightness = [sum(color[:3]) for color in plotting.sequence_colors(6)]
    assert brightness == sorted(brightness)
