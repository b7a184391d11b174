"""How long a move of each explorer takes, in the kernel of its lesson, beside an empty figure of the same size.

Time of the processor, not of the clock, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import ast
import math
import statistics
import tempfile
from pathlib import Path

from benchlib import Row

SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "source"
# A laid-out figure with nothing in it is what any interactive figure costs at least, unless it takes care.
BOUND = 1.5

# Runs before the lesson: remembers the explorers as they are shown, and the size of what they draw.
REMEMBER = """
import course_utils.widgets, matplotlib.figure
def wrapped(cls, name, before):
    original = getattr(cls, name)
    def method(self, *args, **kwargs):
        before(self)
        return original(self, *args, **kwargs)
    setattr(cls, name, method)
explorers, sizes = [], []
wrapped(course_utils.widgets.Explorer, "show", explorers.append)
wrapped(matplotlib.figure.Figure, "savefig", lambda figure: sizes.append(tuple(figure.get_size_inches())))
"""

# Runs behind the last explorer: moves every control to the ends and between, and what plays from frame to frame.
MEASURE = """
import time
import matplotlib.pyplot as plt
from IPython.utils.capture import capture_output
def places(widget, plays):
    if hasattr(widget, "options"):
        last = len(widget.options) - 1
        return [widget.options[i] for i in sorted({0, last // 3, 2 * last // 3, last})]
    if not hasattr(widget, "min"):
        return [False, True]
    span = round((widget.max - widget.min) / widget.step)
    steps = range(min(9, span + 1)) if plays else sorted({0, span // 3, 2 * span // 3, span})
    return [widget.min + widget.step * step for step in steps]
def timed(action):
    begin = time.process_time()
    action()
    return time.process_time() - begin
def empty(size):
    figure, _ = plt.subplots(figsize=size)
    course_utils.plotting.show(figure, alt="An empty figure, drawn to compare with.")
def noting_errors(draw, errors):
    def drawn(**values):
        try:
            draw(**values)
        except Exception as error:
            errors.append(error)
            raise
    return drawn
found = []
for explorer in explorers:
    moves, errors, name_of_draw = [], [], explorer.draw.__name__
    explorer.draw = noting_errors(explorer.draw, errors)
    for name, widget in explorer.controls.items():
        for value in places(widget, name in explorer._players):
            if widget.value != value:
                moves.append(timed(lambda: setattr(widget, "value", value)))
    with capture_output():
        empties = [timed(lambda: empty(sizes[-1])) for _ in range(6)][1:]
    found.append((name_of_draw, moves, empties, len(errors)))
print(found)
"""


def run() -> list[Row]:
    """Return one row an explorer: the median move over the median empty figure."""
    return [row for source in sorted(SOURCES.glob("[0-9]*.py")) for row in measure(source)]


def measure(source: Path) -> list[Row]:
    """Run one lesson up to its last explorer, and time the moves of all of them."""
    import jupytext
    import nbformat.v4
    from nbclient import NotebookClient

    notebook = jupytext.read(source, fmt="py:percent")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    while code and "explorer(" not in code[-1].source:
        code.pop()
    if not code:
        return []
    notebook.cells = [nbformat.v4.new_code_cell(REMEMBER), *code, nbformat.v4.new_code_cell(MEASURE)]
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    printed = "".join(output.text for output in notebook.cells[-1].outputs if output.output_type == "stream")
    return [row(f"{source.stem}: {name}", *numbers) for name, *numbers in ast.literal_eval(printed)]


def row(name: str, moves: list[float], empties: list[float], failed: int) -> Row:
    """Compare one explorer's moves with its empty figures; one that has shown an error breaks the bound."""
    milliseconds = [1000 * seconds for seconds in moves]
    note = f"{statistics.median(milliseconds):.0f} ms a move, at worst {max(milliseconds):.0f} ms ({len(moves)} moves)"
    ratio = statistics.median(moves) / statistics.median(empties)
    return Row(name, math.inf if failed else ratio, BOUND, f"{note}; {failed} errors" if failed else note)
