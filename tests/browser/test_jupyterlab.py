"""The lessons and a homework in JupyterLab, as a student meets them. ``LESSONS="01 08"`` limits the lessons."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from ._lab import Notebook, serve
from .conftest import forget_console, read_console

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
HOMEWORK = NOTEBOOKS / "homework" / "hw1_backpropagation.ipynb"
SECONDS = 600  # for a whole lesson: about one minute on a free machine

LIVE = "Figure: Learning curves so far"  # how the live plot's description begins

# What a control of `ipywidgets` is made of in the page.
SLIDER = ".jupyter-widgets .noUi-handle, .jupyter-widgets input[type=range]"
DROPDOWN = ".jupyter-widgets select"
SWITCH = ".jupyter-widgets input[type=checkbox]"


def chosen_lessons() -> list[str]:
    """All lessons, or those whose numbers ``LESSONS`` holds."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    numbers = os.environ.get("LESSONS", "").split()
    if unknown := set(numbers) - {name[:2] for name in names}:
        raise ValueError(f'LESSONS must hold numbers such as "01 08", got {", ".join(sorted(unknown))}')
    return [name for name in names if not numbers or name[:2] in numbers]


@dataclass
class Lesson:
    """A lesson that has run from top to bottom in the browser."""

    notebook: Notebook
    complaints: list[str]  # the console's, from opening to the end of the run

    @property
    def number(self) -> str:
        return self.notebook.name[:2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, screenshots: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lab")
    with serve([*sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), HOMEWORK], folder) as address:
        yield address
    shutil.copy(folder / "jupyter.log", screenshots)


@pytest.fixture(scope="module", params=chosen_lessons())
def lesson(
    request: pytest.FixtureRequest, driver: webdriver.Chrome, server: str, screenshots: Path
) -> Iterator[Lesson]:
    """Open a lesson, clear it, Run All, look at every cell."""
    forget_console(driver)
    notebook = Notebook(driver, server, request.param)
    driver.save_screenshot(str(screenshots / f"{request.param[:2]}-top.png"))
    notebook.clear_outputs()
    notebook.watch_pictures()
    begin = time.monotonic()
    notebook.run_all(SECONDS)
    remember(screenshots, notebook.name[:2], seconds=round(time.monotonic() - begin, 1))
    notebook.scroll_through()
    yield Lesson(notebook, [line["message"] for line in read_console(driver) if line["level"] == "SEVERE"])
    notebook.close()


@pytest.fixture
def quiet_console(driver: webdriver.Chrome, console_errors: Callable[[webdriver.Chrome], list[str]]) -> Iterator[None]:
    """Whatever the test does, the browser has nothing to complain of."""
    yield
    assert console_errors(driver) == []


def remember(folder: Path, number: str, **measured: object) -> None:
    """Add measurements of a lesson to ``jupyterlab.json``, which is looked at, never asserted."""
    path = folder / "jupyterlab.json"
    kept: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept.setdefault(number, {}).update(measured)
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def press(driver: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def test_every_cell_ran_and_none_complained(lesson: Lesson) -> None:
    cells = lesson.notebook.code()
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    flaws = [
        f"cell {cell['index']}: {output['ename'] or 'stderr'}: {output['evalue'] or output['text']}"
        for cell in cells
        for output in cell["outputs"]
        if output["type"] == "error" or (output["name"] == "stderr" and output["text"].strip())
    ]
    # What a widget's own output area holds is in the page only.
    hidden = ("error", "stderr")
    flaws += [
        f"in a widget: {element.text[:300]}"
        for kind in hidden
        for element in lesson.notebook.find(f'.jupyter-widgets [data-mime-type="application/vnd.jupyter.{kind}"]')
    ]
    assert flaws == []


def test_the_console_is_quiet(lesson: Lesson) -> None:
    assert lesson.complaints == []


def test_every_picture_is_described(lesson: Lesson) -> None:
    undescribed: list[str] = lesson.notebook.js(
        """return book.widgets.flatMap((cell, i) => [...cell.node.querySelectorAll('img')]
            .filter(image => !image.alt.trim()).map(image => `cell ${i}: ${image.outerHTML.slice(0, 60)}`))"""
    )
    assert undescribed == []


def test_no_output_is_wider_than_its_cell(lesson: Lesson) -> None:
    """At 1280 pixels with the side bar open: what is wider hides behind a scroll bar."""
    wide: list[str] = lesson.notebook.js(
        """const outputs = cell => [...(cell.outputArea?.node.querySelectorAll('.jp-OutputArea-output') ?? [])];
        const excess = output => output.scrollWidth - output.clientWidth;
        return book.widgets.flatMap((cell, i) => outputs(cell).filter(output => excess(output) > 1)
            .map(output => `cell ${i}: ${excess(output)} pixels too wide: ${output.innerText.slice(0, 60)}`))"""
    )
    assert wide == []


def test_live_plots_are_drawn_while_training(
    lesson: Lesson, driver: webdriver.Chrome, shoot: Callable[..., Path], quiet_console: None
) -> None:
    notebook = lesson.notebook
    live = notebook.cells_that_say(LIVE)
    assert live or not any("LiveLossPlot(" in cell["source"] for cell in notebook.code()), "the plot does not show"
    for index in live:
        notebook.scroll_to(notebook.find("img", index)[0])
        shoot(f"{lesson.number}-live-{index}")
    still = [index for index in live if notebook.pictures_seen(index) < 2]
    assert still == [], "these cells drew one picture, at the end"


def test_widgets_answer_to_the_keyboard(
    lesson: Lesson, driver: webdriver.Chrome, shoot: Callable[..., Path], screenshots: Path, quiet_console: None
) -> None:
    notebook = lesson.notebook
    cells = [
        cell["index"] for cell in notebook.code() if notebook.find(f"{SLIDER}, {DROPDOWN}, {SWITCH}", cell["index"])
    ]
    assert cells, "the lesson has no widget"
    milliseconds: dict[str, float | None] = {}
    for index in cells:
        assert notebook.find("img", index), f"the widget of cell {index} shows no picture"
        notebook.scroll_to(notebook.find(".jupyter-widgets", index)[0])
        shoot(f"{lesson.number}-widget-{index}-before")
        for kind, move in ((SLIDER, push_slider), (DROPDOWN, choose_another), (SWITCH, toggle)):
            for order, control in enumerate(notebook.find(kind, index)):
                name = f"cell {index}, {len(milliseconds) + 1}: {label(notebook, control)}"
                milliseconds[name] = move(notebook, index, kind, order)
        notebook.scroll_to(notebook.find(".jupyter-widgets", index)[0])
        shoot(f"{lesson.number}-widget-{index}-after")
    remember(screenshots, lesson.number, widgets=milliseconds)
    assert [name for name, taken in milliseconds.items() if taken is None] == [], (
        "moved, but the picture stayed the same"
    )
    failures = notebook.find(
        ".jupyter-widgets [data-mime-type='application/vnd.jupyter.stderr'], .jupyter-widgets-error"
    )
    assert [failure.text for failure in failures] == []


def label(notebook: Notebook, control: WebElement) -> str:
    """The words beside a control."""
    box = "arguments[0].closest('.widget-inline-hbox, .widget-hbox, .jupyter-widgets')"
    return str(notebook.js(f"return {box}?.querySelector('label, .widget-label')?.textContent || 'control'", control))


def reach(notebook: Notebook, index: int, kind: str, order: int) -> None:
    """Go from the cell to one of its controls by Tab alone."""
    notebook.enter(index)
    for _ in range(60):
        press(notebook.driver, Keys.TAB)
        if notebook.js(
            "return [...book.widgets[arguments[0]].outputArea.node.querySelectorAll(arguments[1])][arguments[2]]"
            " === document.activeElement",
            index,
            kind,
            order,
        ):
            return
    pytest.fail(f"cell {index}: Tab does not reach control {order} of {kind}")


def push_slider(notebook: Notebook, index: int, kind: str, order: int) -> float | None:
    """One step to the right, or to the left at the end; milliseconds to another picture, or None."""
    reach(notebook, index, kind, order)
    notebook.wait_until_still(index)
    state = "const a = arguments[0]; return [a.ariaValueNow ?? a.value, a.ariaValueMax ?? a.max]"
    now, most = notebook.js(state, notebook.find(kind, index)[order])
    key = Keys.ARROW_LEFT if float(now) >= float(most) else Keys.ARROW_RIGHT
    return notebook.time_to_new_picture(index, lambda: press(notebook.driver, key))


def choose_another(notebook: Notebook, index: int, kind: str, order: int) -> float | None:
    """Open the list with Space, one down (or up), Enter; JupyterLab keeps the arrows for itself while it is closed."""
    reach(notebook, index, kind, order)
    notebook.wait_until_still(index)
    last = notebook.js(
        "const a = arguments[0]; return a.selectedIndex === a.length - 1", notebook.find(kind, index)[order]
    )
    arrow = Keys.ARROW_UP if last else Keys.ARROW_DOWN
    return notebook.time_to_new_picture(index, lambda: press(notebook.driver, Keys.SPACE, arrow, Keys.ENTER))


def toggle(notebook: Notebook, index: int, kind: str, order: int) -> float | None:
    reach(notebook, index, kind, order)
    notebook.wait_until_still(index)
    return notebook.time_to_new_picture(index, lambda: press(notebook.driver, Keys.SPACE))


def test_the_table_of_contents_leads_to_each_heading(
    lesson: Lesson, driver: webdriver.Chrome, shoot: Callable[..., Path], quiet_console: None
) -> None:
    notebook = lesson.notebook
    notebook.command("toc:show-panel")
    headings: list[str] = notebook.js(
        "return [...book.node.querySelectorAll('.jp-MarkdownCell :is(h1, h2, h3, h4)')].map(h => h.textContent)"
    )
    headings = [plain(heading) for heading in headings]
    assert len(headings) >= 8
    items = "[...document.querySelectorAll('.jp-TableOfContents .jp-tocItem-content')].filter(e => e.offsetParent)"
    notebook.wait(f"return {items}.length >= arguments[0]", 10, "the table of contents", len(headings))
    listed = [plain(text) for text in notebook.js(f"return {items}.map(item => item.textContent)")]
    assert listed == headings
    for position in (len(headings) // 2, len(headings) - 1, 0):
        notebook.js(f"return {items}[arguments[0]]", position).click()
        notebook.wait(
            """const heading = [...book.node.querySelectorAll('.jp-MarkdownCell :is(h1, h2, h3, h4)')][arguments[0]];
            const place = heading.getBoundingClientRect(), view = book.node.getBoundingClientRect();
            return place.top >= view.top - 1 && place.bottom <= view.bottom""",
            10,
            f"the heading {headings[position]!r} to come into view",
            position,
        )
        if position == len(headings) // 2:
            shoot(f"{lesson.number}-contents")


def plain(heading: str) -> str:
    """A heading without the sign that links to it, and without the marks of formulas and code."""
    return re.sub(r"[`$*_\\¶\s]+", " ", heading).strip()


def test_a_student_solves_a_homework_task(
    driver: webdriver.Chrome,
    server: str,
    shoot: Callable[..., Path],
    quiet_console: None,
) -> None:
    notebook = Notebook(driver, server, HOMEWORK.stem)
    notebook.run_all(120)
    cells = notebook.code()
    stop = next(cell for cell in cells if any(output["type"] == "error" for output in cell["outputs"]))
    error = next(output for output in stop["outputs"] if output["type"] == "error")
    assert error["ename"] == "NotImplementedError"
    assert "not attempted yet" in error["evalue"]
    assert [cell["index"] for cell in cells if cell["count"] is None] == [
        cell["index"] for cell in cells if cell["index"] > stop["index"]
    ]
    notebook.scroll_to(notebook.js("return book.widgets[arguments[0]].node", stop["index"]))
    shoot("homework-stub")

    task = next(cell["index"] for cell in cells if cell["source"].startswith("def relu_backward("))
    notebook.scroll_to(notebook.js("return book.widgets[arguments[0]].node", task))
    lines = "[...book.widgets[arguments[0]].node.querySelectorAll('.cm-line')]"
    notebook.js(f"return {lines}.find(line => line.innerText.includes('raise NotImplementedError'))", task).click()
    press(driver, Keys.END)
    ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.HOME).key_up(Keys.SHIFT).perform()
    press(driver, "return grad_out * (x > 0)")
    for _ in range(2):  # the task, then its check, which becomes the selected cell by then
        ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    check = task + 1
    notebook.wait("return book.widgets[arguments[0]].model.executionCount", 60, "the check", check)
    outputs: Any = notebook.find(".jp-OutputArea-output", check)
    shoot("homework-solved")
    assert [cell["source"].splitlines()[-1] for cell in notebook.code() if cell["index"] == task] == [
        "    return grad_out * (x > 0)"
    ]
    assert any("✔" in output.text for output in outputs), [output.text for output in outputs]
    notebook.close()
