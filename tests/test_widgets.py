"""Interactive figures: what a move does, what stays where there are no widgets, and what is refused."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import inspect
import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils import plotting, widgets
from course_utils.authoring.build import normalize
from course_utils.widgets import Explorer, canvas, explorer, labelled, log, play

VIEW = "application/vnd.jupyter.widget-view+json"


def line(depth: int = 3, lr: float = 0.1, norm: str | None = None) -> None:
    """Draw a line; seven is refused after half the work."""
    figure, ax = canvas(4, 2)
    if depth == 7:
        raise ValueError("seven layers are not allowed")
    ax.plot([0, depth], [0, lr])
    plotting.show(figure, alt=f"A line to {depth} and {lr}, norm {norm}.")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """IPython as a notebook's kernel has it, but for the kernel: what is displayed can be captured."""
    pytest.importorskip("ipywidgets")
    from IPython.core.interactiveshell import InteractiveShell

    had_one = InteractiveShell.initialized()
    yield InteractiveShell.instance(history_length=0, history_load_length=0)
    if not had_one:
        InteractiveShell.clear_instance()


class Shown:
    """An explorer, and everything that it has displayed since it was made or last asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, draw: Any, **controls: Any) -> None:
        from IPython.utils.capture import capture_output

        made: list[Explorer] = []
        show = Explorer.show

        def remember(explorer: Explorer) -> None:
            made.append(explorer)
            show(explorer)

        monkeypatch.setattr(Explorer, "show", remember)
        monkeypatch.setattr(widgets, "_can_control", lambda: True)
        with capture_output() as captured:
            explorer(draw, **controls)
        (self.explorer,) = made
        self.first = [(output.data, output.metadata) for output in captured.outputs]

    def move(self, **values: Any) -> tuple[list[str], str]:
        """Move controls as a hand would; return the figures' texts and what was printed."""
        from IPython.utils.capture import capture_output

        with capture_output() as captured:
            for name, value in values.items():
                control = self.explorer.settings[name][0]
                labels = [label for label, choice in control.options if choice == value]
                self.explorer.controls[name].value = labels[0] if control.kind in ("choice", "log") else value
        texts = [output.data["text/plain"].removeprefix("Figure: ") for output in captured.outputs]
        return texts, captured.stdout.replace("\033[2K\r", "").strip()  # how a terminal clears the line


@pytest.fixture
def shown(shell: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda draw, **controls: Shown(monkeypatch, draw, **controls)


# ------------------------------------------------------------------------------------------------------------- moving


def test_a_move_draws_anew_with_all_values(shown: Any) -> None:
    picture = shown(line, depth=(1, 10), lr=log(0.01, 1), norm=[("BatchNorm", "batch"), ("without", None)])
    assert picture.explorer.values == {"depth": 3, "lr": 0.1, "norm": None}
    assert picture.move(depth=5)[0] == ["A line to 5 and 0.1, norm None."]
    assert picture.move(norm="batch")[0] == ["A line to 5 and 0.1, norm batch."]
    assert picture.move(lr=0.05)[0] == ["A line to 5 and 0.05, norm batch."]
    assert picture.move(norm=None)[0] == ["A line to 5 and 0.05, norm None."]
    assert picture.explorer.controls["norm"].value == "without", "no empty field, as ipywidgets shows for None"
    assert not plt.get_fignums()


def test_output_carries_the_controls_and_the_first_picture(shown: Any) -> None:
    picture = shown(line, depth=(1, 10))
    (data, metadata), *republished = picture.first
    assert data[VIEW]["model_id"] == picture.explorer.widget.model_id
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "Figure: A line to 3 and 0.1, norm None."
    assert metadata["image/png"] == {"alt": "A line to 3 and 0.1, norm None.", "width": 400}
    # The same picture, not a second drawing of it, goes to the place that the moves draw in.
    assert [output["image/png"] for output, _ in republished] == [data["image/png"]]
    assert len(picture.explorer.seconds) == 1


def test_built_notebook_keeps_the_picture_and_drops_the_view(shown: Any) -> None:
    import nbformat.v4 as v4

    (data, metadata), _ = shown(line, depth=(1, 10)).first
    alone = v4.new_output("display_data", data={VIEW: {"model_id": "f00"}, "text/plain": "VBox(children=())"})
    image = base64.b64encode(data["image/png"]).decode()
    both = v4.new_output("display_data", data=data | {"image/png": image}, metadata=metadata)
    notebook = v4.new_notebook(cells=[v4.new_code_cell("explore()", outputs=[both, alone])])
    normalize(notebook)
    both, alone = notebook.cells[0].outputs
    assert set(both.data) == {"image/png", "text/plain"}
    assert both.data["text/plain"] == "Figure: A line to 3 and 0.1, norm None."
    assert both.metadata["image/png"]["alt"] == "A line to 3 and 0.1, norm None."
    assert alone.data == {"text/plain": "An interactive control stands here: run this cell to use it."}


def test_the_old_picture_stays_until_the_new_one_is_there(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    waits: list[bool] = []
    picture = shown(line, depth=(1, 10))
    monkeypatch.setattr(IPython.display, "clear_output", lambda wait=False: waits.append(wait))
    picture.move(depth=4)
    assert waits == [True]


@pytest.mark.parametrize(("cost", "expected"), [(0.02, True), (0.5, False)])
def test_sliders_draw_while_they_move_exactly_if_drawing_is_quick(
    shown: Any, monkeypatch: pytest.MonkeyPatch, cost: float, expected: bool
) -> None:
    clock = [100.0]

    def tick() -> float:
        clock[0] += cost  # asked before and after the drawing
        return clock[0]

    monkeypatch.setattr("course_utils.widgets.time.perf_counter", tick)
    picture = shown(line, depth=(1, 10), lr=log(0.01, 1), norm=[None, "batch"])
    assert picture.explorer.controls["depth"].continuous_update is expected
    assert picture.explorer.controls["lr"].continuous_update is expected
    # One drawing of another speed changes nothing.
    picture.move(depth=4)
    picture.explorer.seconds.append(3.0 if expected else 0.001)
    picture.explorer._set_pace()
    assert picture.explorer.controls["depth"].continuous_update is expected


def test_wrong_input_is_answered_by_a_sentence_and_the_next_move_draws_again(shown: Any) -> None:
    picture = shown(line, depth=(1, 10), lr=(0.0, 1.0))
    figures, printed = picture.move(depth=7)
    assert figures == []
    where = inspect.getsourcelines(line)[0].index('        raise ValueError("seven layers are not allowed")\n') + 1
    assert printed == (
        f"No picture for depth = 7, lr = 0.1: ValueError: seven layers are not allowed, line {where} of line"
    )
    assert not plt.get_fignums(), "the next cell would show half a figure"
    assert len(picture.explorer.seconds) == 1, "a failure says nothing about the time a drawing takes"
    assert picture.move(depth=8)[0] == ["A line to 8 and 0.1, norm None."]


def test_an_error_in_the_first_drawing_is_the_cells_own(shown: Any) -> None:
    def broken(depth: int = 7) -> None:
        line(depth)

    with pytest.raises(ValueError, match="seven layers"):
        shown(broken, depth=(1, 10))
    assert not plt.get_fignums()


# ------------------------------------------------------------------------------------------------------------ playing


def frames(speed: int = 1, frame: int = 4) -> None:
    """Draw one frame of what evolves."""
    figure, _ = canvas(3, 2)
    plotting.show(figure, alt=f"Frame {frame} at the speed of {speed}.")


def test_playing_goes_on_and_another_control_begins_anew(shown: Any) -> None:
    picture = shown(frames, speed=(1, 5), frame=play(20, step=2, interval=80))
    slider, player = picture.explorer.controls["frame"], picture.explorer._players["frame"]
    assert (player.min, player.max, player.value, player.interval) == (0, 20, 4, 80)
    assert (slider.min, slider.max, slider.value) == (0, 20, 4)
    assert (slider.step, player.step) == (2, 2)
    playing = "playing" if player.has_trait("playing") else "_playing"
    assert not getattr(player, playing)
    assert picture.move(frame=5)[0] == ["Frame 5 at the speed of 1."]
    assert not getattr(player, playing), "a hand on the slider does not start it"
    assert len(picture.explorer.seconds) == 2
    assert picture.move(speed=3)[0] == ["Frame 0 at the speed of 3."]
    assert len(picture.explorer.seconds) == 3, "one drawing, not one of each control"
    assert (slider.value, player.value) == (0, 0)
    assert getattr(player, playing)


def test_buttons_and_slider_are_linked_in_the_front_end(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    linked: list[Any] = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: linked.append(ends))
    picture = shown(frames, frame=play(9))
    slider, player = picture.explorer.controls["frame"], picture.explorer._players["frame"]
    assert linked == [((player, "value"), (slider, "value"))]
    (row, output) = picture.explorer.widget.children
    assert row.children == (slider, player)
    assert output is picture.explorer.output


# ------------------------------------------------------------------------------------------------- controls and values


def made(draw: Any = lambda **_: None, **controls: Any) -> dict[str, Any]:
    pytest.importorskip("ipywidgets")
    return Explorer(draw, widgets._settings(draw, controls)).controls


def test_short_forms_become_the_widgets_one_expects(shell: Any) -> None:
    built = made(
        a=(1, 9), b=(0.0, 1.0, 0.25), c=["x", "y"], d=True, e=log(0.01, 1, per_decade=1), f=play(5), g=(0, 1.5)
    )
    kinds = [type(widget).__name__ for widget in built.values()]
    assert kinds == ["IntSlider", "FloatSlider", "Dropdown", "Checkbox", "SelectionSlider", "IntSlider", "FloatSlider"]
    assert [widget.value for widget in built.values()] == [5, 0.5, "x", True, "0.01", 0, 0.75]
    assert (built["b"].step, built["b"].readout_format) == (0.25, ".2f")
    assert (built["g"].step, built["g"].readout_format) == (0.01, ".2f")
    assert (built["a"].step, built["a"].readout_format) == (1, "d")
    assert built["e"].options == ("0.01", "0.1", "1")


def test_first_values_are_the_defaults_of_the_function(shell: Any) -> None:
    def draw(a: int = 2, *, b: float = 0.3, c: str = "y", d: bool = False, e: float = 0.05, f: int = 3) -> None:
        """Never called."""

    built = made(draw, a=(1, 9), b=(0.0, 1.0), c=["x", "y"], d=True, e=log(0.01, 1), f=play(5))
    assert [widget.value for widget in built.values()] == [2, 0.3, "y", False, "0.05", 3]


def test_controls_are_labelled_with_words(shell: Any) -> None:
    built = made(hidden_units=(1, 9), lr=labelled((0.0, 1.0), "learning rate [1/step]"), on=labelled(False, "use it"))
    assert [widget.description for widget in built.values()] == ["hidden units", "learning rate [1/step]", "use it"]
    if built["lr"].has_trait("tooltip"):
        assert built["lr"].tooltip == "learning rate [1/step]"
    assert {widget.style.description_width for name, widget in built.items() if name != "on"} == {"24ch"}


@given(low=st.floats(1e-9, 1e9), factor=st.floats(1, 1e9), per_decade=st.sampled_from([1, 2, 3]))
def test_log_values_are_round_rising_and_inside(low: float, factor: float, per_decade: int) -> None:
    high = low * factor
    try:
        values = np.array([value for _, value in log(low, high, per_decade=per_decade).options])
    except ValueError as error:
        assert "no round number" in str(error)  # noqa: PT017
        assert factor < 10.001
        return
    assert ((low <= values) & (values <= high)).all()
    assert (np.diff(values) > 0).all()
    assert {f"{value:e}"[0] for value in values} <= {1: set("1"), 2: set("13"), 3: set("125")}[per_decade]
    assert len(values) >= per_decade * int(np.log10(factor) - 1e-9)


def test_log_values_are_exact_decimals() -> None:
    assert [value for _, value in log(0.001, 0.1).options] == [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]
    assert [label for label, _ in log(1e-8, 1e-6, per_decade=2).options] == [
        "1e-08",
        "3e-08",
        "1e-07",
        "3e-07",
        "1e-06",
    ]


# ------------------------------------------------------------------------------------------------ where none can work


def test_without_ipywidgets_the_first_picture_is_drawn_once(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.utils.capture import capture_output

    shell.kernel = object()
    try:
        assert widgets._can_control()
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
        with capture_output() as captured:
            explorer(line, depth=(1, 10), lr=log(0.01, 1))
    finally:
        del shell.kernel
    assert [output.data["text/plain"] for output in captured.outputs] == ["Figure: A line to 3 and 0.1, norm None."]
    assert VIEW not in captured.outputs[0].data


def test_in_a_terminal_the_words_are_printed_once(shell: Any) -> None:
    assert not widgets._can_control(), "IPython, but no kernel"
    drawn: list[dict[str, Any]] = []
    explorer(lambda **values: drawn.append(values), depth=(1, 9), scheme=["He", "Glorot"], on=False)
    assert drawn == [{"depth": 5, "scheme": "He", "on": False}]


def test_outside_ipython_the_words_are_printed_once() -> None:
    text = io.StringIO()
    with redirect_stdout(text):
        explorer(line, depth=(1, 10))
    assert text.getvalue() == "A line to 3 and 0.1, norm None.\n"


# --------------------------------------------------------------------------------------------------------------- canvas


def test_canvas_has_its_margins_in_inches_and_is_saved_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(plotting, "show_png", lambda image, alt, width: sent.append(image))
    figure, ax = canvas(5, 2, left=1, right=0.5, bottom=0.4, top=0.2)
    np.testing.assert_allclose(ax.get_position().bounds, [0.2, 0.2, 0.7, 0.7])
    with plt.rc_context({"figure.constrained_layout.use": True}):
        assert canvas(5, 2)[0].get_layout_engine() is None
    ax.set_ylabel("a label")
    plotting.show(figure, "An empty pair of axes with a label.", dpi=100)
    assert plt.imread(io.BytesIO(sent[0])).shape[:2] == (200, 500)
    plt.close("all")


# ------------------------------------------------------------------------------------------------------------- refusals


def needs(depth: int, lr: float = 0.1) -> None:
    """A parameter without default."""


@pytest.mark.parametrize(
    ("draw", "controls", "kind", "message"),
    [
        (line, {"width": (1, 9)}, TypeError, "line has no parameter 'width'; it has depth, lr, norm"),
        (needs, {"lr": (0.0, 1.0)}, TypeError, "needs needs a control for its parameter 'depth', which has no default"),
        (line, {"depth": "3"}, TypeError, "depth must be a range such as (1, 10), a list, a bool"),
        (line, {"depth": (1, 2, 3, 4)}, TypeError, "play(…), got (1, 2, 3, 4)"),
        (line, {"depth": []}, TypeError, "play(…), got []"),
        (line, {"depth": (True, False)}, TypeError, "play(…), got (True, False)"),
        (line, {"norm": ["None", None]}, ValueError, "norm must have different labels, got ['None', None]"),
        (line, {"depth": (9, 1)}, ValueError, "depth must be a range from low to high in steps above 0, got (9, 1"),
        (line, {"depth": (1, 9, -1)}, ValueError, "in steps above 0, got (1, 9, -1)"),
        (line, {"depth": (4, 9)}, ValueError, "depth, by its default, must be in [4, 9], got 3"),
        (line, {"norm": ["batch", "no"]}, ValueError, "norm, by its default, must be one of 'batch', 'no', got None"),
        (line, {"lr": log(0.2, 1)}, ValueError, "lr, by its default, must be one of 0.2, 0.5, 1.0, got 0.1"),
    ],
)  # fmt: skip
def test_error_names_the_control_and_what_is_allowed(
    draw: Any, controls: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        explorer(draw, **controls)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log(0, 1), "from low to high above 0, got (0, 1)"),
        (lambda: log(5, 2), "from low to high above 0, got (5, 2)"),
        (lambda: log(1, 10, per_decade=4), "per_decade must be one of 1, 2, 3, got 4"),
        (lambda: log(0.6, 0.9), "no round number lies between 0.6 and 0.9"),
        (lambda: labelled((2, 1), "x"), "control must be a range from low to high in steps above 0, got (2, 1, None)"),
    ],
)
def test_error_of_a_control_shows_the_value(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
