"""JupyterLab on copies of the notebooks, and a notebook page driven as a student does it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.remote.webelement import WebElement

_FLAGS = (
    "--no-browser",
    "--IdentityProvider.token=''",
    "--ServerApp.disable_check_xsrf=True",
    "--ServerApp.port_retries=0",
    "--LabApp.expose_app_in_browser=True",  # the tests ask the notebook's model which cells have run
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
)

# What would ask, or look on the network for news. The rest is as a student finds it.
_SETTINGS: dict[str, dict[str, object]] = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/extensionmanager-extension/plugin": {"enabled": False},
}

# Cells of the open notebook, by index; `panel` is what JupyterLab shows in front.
_PANEL = "const app = window.jupyterapp, panel = app.shell.currentWidget, book = panel.content;"


@contextmanager
def serve(notebooks: Sequence[Path], folder: Path) -> Iterator[str]:
    """Run `jupyter lab` on copies of the notebooks in ``folder`` and yield its address.

    Settings, workspaces, keys and run-time files stay in ``folder`` too: neither the repository nor the user's own
    JupyterLab is touched.

    Args:
        notebooks: files to copy; their names must differ.
        folder: empty; the server's log is ``jupyter.log`` in it.

    Raises:
        RuntimeError: the server does not answer; with its log.
    """
    root = folder / "notebooks"
    root.mkdir(parents=True)
    for notebook in notebooks:
        shutil.copy(notebook, root)
    for name, settings in _SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(folder / place) for name, place in own.items()}
    port = _free_port()
    command = [sys.executable, "-m", "jupyter", "lab", *_FLAGS, f"--port={port}", f"--ServerApp.root_dir={root}"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    log = folder / "jupyter.log"
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_for_answer(server, f"{address}/api/status", log)
            yield address
        finally:
            _end(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_answer(server: subprocess.Popen[bytes], address: str, log: Path, seconds: float = 60) -> None:
    # Not through a proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with opener.open(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    state = "does not answer" if server.poll() is None else f"ended with {server.returncode}"
    raise RuntimeError(f"jupyter lab {state}:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """Interrupt politely, so that the server ends its kernels (they have process groups of their own); then kill."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=10)


class Notebook:
    """One notebook, open in JupyterLab.

    Args:
        driver: the browser.
        address: of the server.
        name: of the notebook, without the ending.

    Raises:
        TimeoutError: the notebook or its kernel does not come up within two minutes.
    """

    def __init__(self, driver: webdriver.Chrome, address: str, name: str) -> None:
        self.driver, self.address, self.name = driver, address, name
        driver.get(f"{address}/lab/tree/{name}.ipynb?reset")  # and not what was open before
        self.wait(
            "const app = window.jupyterapp, panel = app?.shell.currentWidget;"
            "return panel?.content?.widgets?.length && panel.sessionContext.session?.kernel?.status === 'idle'",
            120,
            "the notebook and its kernel",
            panel="",
        )

    def js(self, script: str, *args: object, panel: str = _PANEL) -> Any:
        """Return what JavaScript says; in it ``app`` is JupyterLab, ``panel`` its front tab, ``book`` the notebook."""
        return self.driver.execute_script(panel + script, *args)

    def wait(self, script: str, seconds: float, what: str, *args: object, panel: str = _PANEL) -> Any:
        """Ask until the answer is true, and return it.

        Raises:
            TimeoutError: it is not after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not (answer := self.js(script, *args, panel=panel)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: still waiting after {seconds:g} s for {what}")
            time.sleep(0.05)
        return answer

    def command(self, command: str) -> None:
        """Do what a menu of JupyterLab does, without waiting for the end."""
        self.js("app.commands.execute(arguments[0])", command)

    def clear_outputs(self) -> None:
        """Take away what the file came with, so that nothing old can pass for a result."""
        self.command("notebook:clear-all-cell-outputs")
        self.wait(
            "return book.widgets.every(cell => !cell.model.outputs?.length && !cell.model.executionCount)",
            30,
            "the outputs to be cleared",
        )

    def run_all(self, seconds: float) -> None:
        """Run all cells and wait until the kernel has nothing left to do: all are done, or one raised.

        Raises:
            TimeoutError: it is still busy after so many seconds, with the cell it is busy with.
        """
        self.command("notebook:run-all-cells")
        # The command's own promise ends too early. A cell that waits or runs has a star for its number.
        stars = "book.widgets.flatMap((cell, i) => cell.promptNode?.textContent.includes('*') ? [i] : [])"
        self.wait(f"return {stars}.length", 30, "the first cell to start")
        try:
            self.wait(f"return panel.sessionContext.session.kernel.status === 'idle' && !{stars}.length", seconds, "")
        except TimeoutError:
            raise TimeoutError(
                f"{self.name}: not done after {seconds:g} s; cells {self.js(f'return {stars}')}"
            ) from None

    def cells(self) -> list[dict[str, Any]]:
        """Return all cells: ``index, type, source, count`` (of the execution), ``outputs`` (without their data)."""
        cells: list[dict[str, Any]] = self.js(
            """return book.widgets.map((cell, index) => ({
                index, type: cell.model.type, source: cell.model.sharedModel.source,
                count: cell.model.executionCount ?? null,
                outputs: (cell.model.outputs?.toJSON() ?? []).map(({output_type, name, text, ename, evalue, data}) => ({
                    type: output_type, name, text: [text ?? ''].flat().join('').slice(0, 500), ename, evalue,
                    mimes: Object.keys(data ?? {}),
                })),
            }))"""
        )
        return cells

    def code(self) -> list[dict[str, Any]]:
        """Return the code cells with something in them; JupyterLab does not number the others."""
        return [cell for cell in self.cells() if cell["type"] == "code" and cell["source"].strip()]

    def find(self, selector: str, index: int | None = None) -> list[WebElement]:
        """Return elements of the notebook's cells, or of one cell's outputs, in their order."""
        found: list[WebElement] = self.js(
            "const place = arguments[1] === null ? book.node : book.widgets[arguments[1]].outputArea.node;"
            "return [...place.querySelectorAll(arguments[0])]",
            selector,
            index,
        )
        return found

    def scroll_to(self, element: WebElement) -> None:
        """Bring an element to the top of the view. Far cells get their height only when they come near, so twice."""
        for _ in range(2):
            self.js(
                "arguments[0].style.scrollMarginTop = '24px'; arguments[0].scrollIntoView({block: 'start'})", element
            )
            time.sleep(0.3)

    def scroll_through(self) -> None:
        """Go past every cell, as a reader does; JupyterLab puts off what was never in view."""
        for index in range(len(self.cells())):
            self.js("book.widgets[arguments[0]].node.scrollIntoView()", index)
        self.wait("return book.widgets.every(cell => cell.node.isConnected)", 60, "all cells to be in the page")

    def enter(self, index: int) -> None:
        """Select a cell and give it the keyboard, in command mode."""
        self.js("book.activeCellIndex = arguments[0]; book.mode = 'command'; book.activate()", index)

    def watch_pictures(self) -> None:
        """Count from now on the different pictures that each cell shows."""
        self.js(
            """window.courseSeen = book.widgets.map(cell => {
                const seen = new Set(), place = cell.outputArea?.node;
                const look = () => place.querySelectorAll('img').forEach(image => seen.add(image.src));
                if (place) new MutationObserver(look).observe(place, {subtree: true, childList: true});
                return seen;
            })"""
        )

    def pictures_seen(self, index: int) -> int:
        """Return how many different pictures a cell has shown since `watch_pictures`."""
        return int(self.js("return window.courseSeen[arguments[0]].size", index))

    def cells_that_say(self, words: str) -> list[int]:
        """Return the cells with an output whose plain text begins so; a figure has "Figure: " and its description."""
        found: list[int] = self.js(
            """const [words] = arguments, text = output => [output.data?.['text/plain'] ?? ''].flat().join('');
            const says = cell => (cell.model.outputs?.toJSON() ?? []).some(output => text(output).startsWith(words));
            return book.widgets.flatMap((cell, i) => says(cell) ? [i] : [])""",
            words,
        )
        return found

    def time_to_new_picture(self, index: int, act: Callable[[], None], seconds: float = 30) -> float | None:
        """Act, and return the milliseconds from the last key to another picture in a cell's output; None without one.

        Args:
            index: the cell.
            act: sends keys to the page.
            seconds: how long to wait for the picture.
        """
        self.js(
            """const place = book.widgets[arguments[0]].outputArea.node;
            const shown = () => [...place.querySelectorAll('img')].map(image => image.src).join(' ');
            const before = shown(), watch = window.courseWatch = {pressed: null, drawn: null};
            const press = () => { watch.pressed = performance.now() };
            for (const event of ['keydown', 'change']) document.addEventListener(event, press, {capture: true});
            const observer = new MutationObserver(() => {
                if (watch.pressed === null || !shown() || shown() === before) return;
                watch.drawn = performance.now();
                observer.disconnect();
                for (const event of ['keydown', 'change']) document.removeEventListener(event, press, {capture: true});
            });
            observer.observe(place, {subtree: true, childList: true, attributeFilter: ['src']});""",
            index,
        )
        act()
        try:
            taken = self.wait(
                "const watch = window.courseWatch; return watch.drawn !== null && [watch.drawn - watch.pressed]",
                seconds,
                "another picture",
            )
        except TimeoutError:
            return None
        return float(taken[0])

    def wait_until_still(self, index: int, seconds: float = 60) -> None:
        """Wait until a cell's pictures have not changed for a second, so that the next change has one cause."""
        shown = (
            "return [...book.widgets[arguments[0]].outputArea.node.querySelectorAll('img')].map(i => i.src).join(' ')"
        )
        deadline, last, since = time.monotonic() + seconds, None, time.monotonic()
        while time.monotonic() < deadline:
            if (now := self.js(shown, index)) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > 1:
                return
            time.sleep(0.1)

    def close(self) -> None:
        """End the kernel, which otherwise keeps its memory while the next notebook runs."""
        self.driver.set_script_timeout(30)
        self.driver.execute_async_script(_PANEL + "panel.sessionContext.shutdown().finally(arguments[0])")
