"""Interactive figures: controls above a picture that is drawn anew with every move, and stays where none work."""

from __future__ import annotations

import inspect
import statistics
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from course_utils._validation import check_in_range, check_one_of

if TYPE_CHECKING:  # as in `plotting`: matplotlib costs a third of a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Explorer", "canvas", "explorer", "labelled", "log", "play"]

# Above this a slider that draws while it moves lags behind the hand.
QUICK = 0.1  # seconds

_MANTISSAS = {1: (1,), 2: (1, 3), 3: (1, 2, 5)}
_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Control:
    """What a control lets choose, apart from any widget; `explorer` makes it of the short forms.

    Attributes:
        kind: ``"switch"``, ``"range"``, ``"choice"``, ``"log"`` or ``"play"``.
        options: label → value of what can be chosen; of a range ``min``, ``max`` and ``step``, of a play control also
            ``interval``.
        label: the words beside it; empty for the parameter's name.
    """

    kind: str
    options: tuple[tuple[str, Any], ...] = ()
    label: str = ""

    def __getitem__(self, name: str) -> Any:
        return dict(self.options)[name]


def log(low: float, high: float, *, per_decade: int = 3) -> Control:
    """Return a slider over round numbers that grow by factors, such as 0.01, 0.02, 0.05 and 0.1.

    Args:
        low: the smallest value, above 0.
        high: the largest.
        per_decade: 1 for the powers of ten, 2 for 1 and 3 of each, 3 for 1, 2 and 5.

    Raises:
        ValueError: an end is not above 0, or no round number lies between them.
    """
    if not 0 < low <= high:
        raise ValueError(f"a logarithmic range must go from low to high above 0, got ({low}, {high})")
    mantissas = _MANTISSAS[check_one_of(per_decade, "per_decade", _MANTISSAS)]
    first, last = Decimal(repr(float(low))).adjusted(), Decimal(repr(float(high))).adjusted()
    values = [float(f"{mantissa}e{decade}") for decade in range(first, last + 1) for mantissa in mantissas]
    values = [value for value in values if low <= value <= high]
    if not values:
        raise ValueError(f"no round number lies between {low:g} and {high:g}")
    return Control("log", tuple((f"{value:g}", value) for value in values))


def play(last: int, *, step: int = 1, interval: int = 150) -> Control:
    """Return a slider from 0 to ``last`` with buttons that move it on, for what evolves from frame to frame.

    It goes back to 0 when another control changes, and plays by itself from there: the run begins anew.

    Args:
        last: where it ends, at least 1.
        step: how far a frame goes.
        interval: milliseconds from one frame to the next; where a frame takes longer to draw, some are left out.
    """
    return Control("play", (("min", 0), ("max", last), ("step", step), ("interval", interval)))


def labelled(control: Any, label: str) -> Control:
    """Return a control (any of the forms that `explorer` takes) with words of its own, a unit for example."""
    return replace(_control("control", control), label=label)


def canvas(
    width: float, height: float, *, left: float = 0.75, right: float = 0.25, bottom: float = 0.55, top: float = 0.4
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes and fixed margins; it is drawn in half the time of one that is laid out.

    Args:
        width: of the figure, in inches.
        height: likewise.
        left: the margin for the y axis, in inches.
        right: where `course_utils.plotting.label_line_ends` writes.
        bottom: for the x axis.
        top: for the title.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(width, height), layout="none", FigureClass=_fixed_figure())
    share = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(share)


def explorer(draw: Callable[..., object], /, **controls: Any) -> None:
    """Show a figure with controls, one for a parameter of the function that draws it.

    In a notebook with ipywidgets every move draws anew; the output also carries the first picture, for those who only
    read: GitHub, a site, a notebook that was not run. Without widgets that picture is all. A slider draws while it
    moves if a drawing takes less than a tenth of a second, otherwise when it is let go.

    Args:
        draw: draws one figure and shows it with `course_utils.plotting.show`. Its defaults are where the controls
            stand at first; a parameter without one starts in the middle of a range or with the first choice.
        **controls: parameter → ``(min, max)`` or ``(min, max, step)`` for a slider, whole numbers if all of them are; a
            list of choices or of ``(label, value)`` pairs; a ``bool`` for a check box; `log`, `play`, `labelled`.

    Raises:
        TypeError: ``draw`` has no such parameter, another parameter has neither control nor default, or a control has
            none of the forms.
        ValueError: a range is empty, or a default lies outside its control.

    For a function ``draw(degree, penalty, noise)``::

        explorer(draw, degree=(0, 15), penalty=log(1e-8, 100), noise=[("none", 0.0), ("much", 1.0)])
    """
    settings = _settings(draw, controls)
    if _can_control():
        Explorer(draw, settings).show()
    else:
        draw(**{name: first for name, (_, first) in settings.items()})


class Explorer:
    """The controls, the place of the picture, and what happens at a move; made by `explorer`.

    Args:
        draw: draws and shows one figure.
        settings: parameter → its control and the value that it has at first.

    Attributes:
        controls: parameter → its widget; the ``value`` of one with choices is the label of the chosen one.
        output: the widget that holds the picture.
        widget: all of it.
        seconds: how long the last few drawings took.
    """

    def __init__(self, draw: Callable[..., object], settings: Mapping[str, tuple[Control, Any]]) -> None:
        import ipywidgets

        self.draw, self.settings = draw, settings
        self.controls: dict[str, Any] = {}
        self.output = ipywidgets.Output()
        self.seconds: deque[float] = deque(maxlen=5)
        self._players: dict[str, Any] = {}
        self._held = False
        width = 2 + max(len(_label(name, control)) for name, (control, _) in settings.items()) if settings else 0
        rows = []
        for name, (control, first) in settings.items():
            widget, row = self._make(name, control, first, f"{width}ch")
            widget.observe(self._moved, names="value")
            self.controls[name] = widget
            rows.append(row)
        self.widget = ipywidgets.VBox([*rows, self.output])

    @property
    def values(self) -> dict[str, Any]:
        """What the controls say, by parameter."""
        return {
            name: control[self.controls[name].value] if control.kind in ("choice", "log") else self.controls[name].value
            for name, (control, _) in self.settings.items()
        }

    def show(self) -> None:
        """Draw the first picture and show it, as the controls for those who have them, else as it is.

        Raises:
            Exception: whatever the drawing raises; nothing is shown then.
        """
        from IPython.display import display
        from IPython.utils.capture import capture_output

        with capture_output(stdout=False, stderr=False) as captured:
            self._draw()
        pictures = [(output.data, output.metadata or {}) for output in captured.outputs]
        data, metadata = next((shown for shown in pictures if "image/png" in shown[0]), ({}, {}))
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        # All in one output: front ends take the richest form they know, and put the widget before the image
        # (JupyterLab by its rank, VS Code by its order of types; ipympl's canvas does the same, in Colab too).
        bundle = {"text/plain": "An interactive figure.", **data, "application/vnd.jupyter.widget-view+json": view}
        display(bundle, metadata=metadata, raw=True)
        with self.output:
            for data, metadata in pictures:
                display(data, metadata=metadata, raw=True)
        self._set_pace()

    def _make(self, name: str, control: Control, first: Any, label_width: str) -> tuple[Any, Any]:
        """Return the widget that has the value, and what is shown of it."""
        import ipywidgets

        label = _label(name, control)
        look = {
            "description": label,
            # ipywidgets 8 writes "null" there otherwise; 7 shows the description by itself.
            **({"tooltip": label} if "tooltip" in ipywidgets.IntSlider.class_trait_names() else {}),
            "style": {"description_width": label_width},
            "layout": {"width": "min(100%, 32em)"},
        }
        if control.kind == "switch":
            return (widget := ipywidgets.Checkbox(value=first, **(look | {"style": {}}))), widget
        if control.kind in ("choice", "log"):
            make = ipywidgets.Dropdown if control.kind == "choice" else ipywidgets.SelectionSlider
            # The widget knows the labels alone: to ipywidgets the value None means that nothing is chosen.
            labels = [label for label, _ in control.options]
            place = [value for _, value in control.options].index(first)
            return (widget := make(options=labels, value=labels[place], **look)), widget
        limits = {"min": control["min"], "max": control["max"], "step": control["step"], "value": first}
        whole = all(isinstance(number, int) for number in limits.values())
        digits = "d" if whole else f".{_decimals(control['step'])}f"
        slider = (ipywidgets.IntSlider if whole else ipywidgets.FloatSlider)(readout_format=digits, **limits, **look)
        if control.kind == "range":
            return slider, slider
        player = ipywidgets.Play(interval=control["interval"], show_repeat=False, **limits)
        self._players[name] = player
        # Linked in the front end, so that a frame does not travel to the kernel and back to move the slider.
        ipywidgets.jslink((player, "value"), (slider, "value"))
        return slider, ipywidgets.HBox([slider, player])

    def _moved(self, change: Mapping[str, Any]) -> None:
        """Draw for the new value, in the picture's place."""
        if self._held:
            return
        moved = next(name for name, widget in self.controls.items() if widget is change["owner"])
        if moved not in self._players:
            self._begin_anew()
        from IPython.display import clear_output

        with self.output:
            clear_output(wait=True)  # the old picture stays until the new one is there: no flicker
            try:
                self._draw()
            except Exception as error:
                print(_sentence(error, self.draw, self.values))
        self._set_pace()

    def _begin_anew(self) -> None:
        """Send what plays back to its first frame, without drawing on the way."""
        self._held = True
        try:
            for name, player in self._players.items():
                for widget in (player, self.controls[name]):
                    widget.value = player.min
                # ipywidgets 7 calls it _playing.
                setattr(player, "playing" if player.has_trait("playing") else "_playing", True)
        finally:
            self._held = False

    def _draw(self) -> None:
        import matplotlib.pyplot as plt

        before, begin = set(plt.get_fignums()), time.perf_counter()
        try:
            self.draw(**self.values)
        except Exception:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)  # half a figure, which the next cell would show
            raise
        self.seconds.append(time.perf_counter() - begin)

    def _set_pace(self) -> None:
        """Let sliders draw while they move exactly if drawing is quick."""
        quick = bool(self.seconds) and statistics.median(self.seconds) < QUICK
        for widget in self.controls.values():
            if widget.has_trait("continuous_update"):
                widget.continuous_update = quick


@cache
def _fixed_figure() -> type[Figure]:
    from matplotlib.figure import Figure

    class FixedFigure(Figure):
        """Saves its whole area: to find out what sticks out of it, matplotlib would draw everything twice."""

        def savefig(self, fname: Any, **options: Any) -> None:
            super().savefig(fname, **(options | {"bbox_inches": None}))

    return FixedFigure


def _can_control() -> bool:
    """Return whether there are widgets and a notebook to put them; IPython in a terminal has no place for them."""
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _settings(draw: Callable[..., object], controls: Mapping[str, Any]) -> dict[str, tuple[Control, Any]]:
    """Return each parameter's control and first value, in the order of the controls."""
    parameters = inspect.signature(draw).parameters
    catches_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {name: p.default for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    title = getattr(draw, "__name__", "draw")
    for name in controls:
        if name not in named and not catches_all:
            raise TypeError(f"{title} has no parameter {name!r}; it has {', '.join(named) or 'none'}")
    for name, default in named.items():
        if name not in controls and default is _MISSING:
            raise TypeError(f"{title} needs a control for its parameter {name!r}, which has no default")
    made = {name: _control(name, given) for name, given in controls.items()}
    return {name: (control, _first(name, control, named.get(name, _MISSING))) for name, control in made.items()}


def _control(name: str, given: Any) -> Control:
    """Return the control that one of the short forms stands for."""
    if isinstance(given, Control):
        return given
    if isinstance(given, bool):
        return Control("switch", (("on", given),))
    if isinstance(given, tuple) and len(given) in (2, 3) and all(_is_number(number) for number in given):
        return _range(name, *given)
    if isinstance(given, list) and given:
        pairs = all(isinstance(choice, tuple) and len(choice) == 2 and isinstance(choice[0], str) for choice in given)
        choices = tuple(given if pairs else ((str(choice), choice) for choice in given))
        if len(dict(choices)) < len(choices):
            raise ValueError(f"the choices of {name} must have different labels, got {given!r}")
        return Control("choice", choices)
    raise TypeError(f"{name} must be a range such as (1, 10), a list, a bool, log(…) or play(…), got {given!r}")


def _range(name: str, low: float, high: float, step: float | None = None) -> Control:
    whole = all(isinstance(number, int) for number in (low, high, step or 0))
    if low >= high or (step is not None and step <= 0):
        raise ValueError(f"{name} must be a range from low to high in steps above 0, got {(low, high, step)}")
    # Whole numbers go by ones; others, without a step, in about a hundred steps of a round size.
    chosen = step if step is not None else 1 if whole else float(f"{(high - low) / 100:.0e}")
    return Control("range", (("min", low), ("max", high), ("step", chosen)))


def _first(name: str, control: Control, default: Any) -> Any:
    """Return the value a control starts with: the parameter's default if it has one."""
    if control.kind == "switch":
        return control["on"] if default is _MISSING else bool(default)
    if control.kind in ("choice", "log"):
        values = [value for _, value in control.options]
        return check_one_of(values[0] if default is _MISSING else default, f"{name}, by its default,", values)
    low, high = control["min"], control["max"]
    if default is not _MISSING:
        check_in_range(default, f"{name}, by its default,", low, high, closed="[]")
        return default
    if control.kind == "play":
        return low
    return low + round((high - low) / 2 / control["step"]) * control["step"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decimals(step: float) -> int:
    exponent = Decimal(repr(float(step))).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _label(name: str, control: Control) -> str:
    return control.label or name.replace("_", " ")


def _sentence(error: Exception, draw: Callable[..., object], values: Mapping[str, Any]) -> str:
    """Say what went wrong, for which values, and where in the function that draws."""
    code = getattr(draw, "__code__", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    place = f", line {lines[-1] - code.co_firstlineno + 1} of {code.co_name}" if code and lines else ""
    setting = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    return f"No picture for {setting}: {type(error).__name__}: {error}{place}"
