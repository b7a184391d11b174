"""A headless Chromium for the tests of this folder, and what is kept when one of them fails.

The fixtures: ``driver`` (one Chromium for the whole session), ``window`` (the size of the page), ``shoot`` and
``screenshots`` (pictures in ``build/browser``), ``console_errors`` (what the page has complained of).
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
DESKTOP = (1280, 900)

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    # Nothing outside this machine has an address: a page that wants the network is seen in the console's errors.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
)

# The console's lines by browser session, since the current test began: the driver hands each line over only once.
_CONSOLE: dict[str, list[dict[str, Any]]] = {}


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, headless and without a network; a failure, not a skip, where it or its driver is missing."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        missing = "chromedriver" if browser else f"a browser ({', '.join(_BROWSERS)})"
        pytest.fail(
            f"{missing} is not on the PATH. These tests need a browser and its driver: on Debian "
            "`apt-get install chromium chromium-driver`; Google's Chrome with its chromedriver does too.",
            pytrace=False,
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, selenium does not look for a driver to download.
    chrome = webdriver.Chrome(options=options, service=Service(executable_path=chromedriver))
    try:
        chrome.set_script_timeout(60)
        chrome.set_page_load_timeout(60)
        resize(chrome, *DESKTOP)
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def window(driver: webdriver.Chrome) -> Iterator[Callable[[int, int], None]]:
    """``window(390, 844)`` makes the page that large, in CSS pixels; after the test it is as `DESKTOP` says again."""
    yield partial(resize, driver)
    resize(driver, *DESKTOP)


@pytest.fixture(autouse=True)
def _fresh_page(request: pytest.FixtureRequest) -> None:
    """Give each test the desktop's size and an empty console."""
    if "driver" in request.fixturenames:
        driver = request.getfixturevalue("driver")
        resize(driver, *DESKTOP)
        forget_console(driver)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder of the pictures and measurements, kept by CI: ``build/browser``."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS


@pytest.fixture
def shoot(driver: webdriver.Chrome, screenshots: Path) -> Callable[..., Path]:
    """``shoot("site-front")`` keeps a picture of what is in view; with ``whole=True``, of the whole page."""

    def save(name: str, *, whole: bool = False) -> Path:
        picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path = screenshots / f"{name}.png"
        path.write_bytes(base64.b64decode(picture["data"]))
        return path

    return save


@pytest.fixture
def console_errors() -> Callable[[webdriver.Chrome], list[str]]:
    """``console_errors(driver)``: the severe lines of the console since the test began. Nothing is left out."""

    def severe(driver: webdriver.Chrome) -> list[str]:
        return [str(line["message"]) for line in read_console(driver) if line["level"] == "SEVERE"]

    return severe


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page a size; a real window has a least width, far above a telephone's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def read_console(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """Return all lines of the browser's console since the current test began: ``level``, ``message``, ``timestamp``."""
    lines = _CONSOLE.setdefault(str(driver.session_id), [])
    get_log: Any = driver.get_log  # without types in selenium
    lines.extend(get_log("browser"))
    return lines


def forget_console(driver: webdriver.Chrome) -> None:
    """Let the console begin anew."""
    read_console(driver).clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep a picture and the console of every test that fails with a browser open."""
    report = yield
    driver = getattr(item, "funcargs", {}).get("driver")
    if report.failed and report.when != "teardown" and driver is not None:
        name = "FAILED-" + re.sub(r"\W+", "-", item.name).strip("-")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        try:
            driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
            console = "\n".join(json.dumps(line) for line in read_console(driver))
        except WebDriverException as error:  # the browser itself may be what failed
            console = f"the browser does not answer: {error}"
        (SCREENSHOTS / f"{name}.console.txt").write_text(f"{console}\n", encoding="utf-8")
        report.sections.append(("Kept", f"{SCREENSHOTS / name}.png and .console.txt"))
    return report
