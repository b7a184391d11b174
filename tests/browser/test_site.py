"""The reading site, as `make site` left it in build/site/html: its links by parsing, its looks in the browser.

One visit a page collects what the tests then judge one by one: the console, the requests, the formulas, the contrast of
every text in the light and in the dark, and the width on a telephone.
"""

from __future__ import annotations

import functools
import http.server
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site" / "html"
TELEPHONE = (390, 844)
PAGES = sorted(
    path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.relative_to(SITE).parts
)
LESSONS = [page for page in PAGES if page.startswith("notebooks/0")]
HOMEWORK = [page for page in PAGES if page.startswith("notebooks/homework/hw")]
SOLVED = [page for page in PAGES if page.startswith("notebooks/homework/solutions/")]
NOTEBOOKS = LESSONS + HOMEWORK + SOLVED
# One page of each kind, for what takes seconds.
KINDS = [
    "index.html",
    "docs/claims.html",
    "docs/glossary.html",
    "docs/errata.html",
    "docs/api/kan.html",
    "search.html",
    *LESSONS[:1],
    *SOLVED[:1],
]

# A colour on its way to another is neither.
_STILL = r"""
const still = document.createElement("style");
still.textContent = "*, *::before, *::after { transition: none !important; animation: none !important }";
document.head.append(still);
"""

# Contrast of every visible text with what is painted behind it: WCAG 2.1, success criterion 1.4.3.
_LOOK = (
    _STILL
    + r"""
const theme = arguments[0];
const root = document.documentElement;
root.dataset.theme = theme;
root.dataset.mode = theme;
document.querySelectorAll("details").forEach((fold) => { fold.open = true; });

const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const known = new Map();
function rgba(text) {
  if (!known.has(text)) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    known.set(text, [r, g, b, a / 255]);
  }
  return known.get(text);
}
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
function luminance(color) {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = color.map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const behind = new Map();
function background(element) {
  if (!element) return [255, 255, 255, 1];
  if (!behind.has(element)) {
    const own = rgba(getComputedStyle(element).backgroundColor);
    behind.set(element, own[3] === 1 ? own : over(own, background(element.parentElement)));
  }
  return behind.get(element);
}

const poor = new Map();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (texts.nextNode()) {
  const text = texts.currentNode.textContent.trim();
  const element = texts.currentNode.parentElement;
  if (!text || element.closest("script, style, noscript, template, mjx-assistive-mml")) continue;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  const box = element.getBoundingClientRect();
  if (box.width < 2 || box.height < 2) continue;
  seen += 1;
  const style = getComputedStyle(element);
  const below = background(element);
  const color = over(rgba(style.color), below);
  const [light, dark] = [luminance(color), luminance(below)].sort((a, b) => b - a);
  const contrast = (light + 0.05) / (dark + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) {
    const where = `${element.tagName.toLowerCase()}.${element.className} in ${element.parentElement.className}`;
    const sentence = `${contrast.toFixed(2)} ${style.color} on ${below.slice(0, 3).map(Math.round)}: ${where}`;
    if (!poor.has(sentence)) poor.set(sentence, text.slice(0, 40));
  }
}
return { seen, poor: [...poor].map(([sentence, text]) => `${sentence}: ${text}`) };
"""
)

_FACTS = r"""
const places = [location.href, ...performance.getEntriesByType("resource").map((entry) => entry.name)];
const article = document.querySelector("article") ?? document.body;
const prose = article.cloneNode(true);
prose.querySelectorAll("pre, code, script, style, mjx-container").forEach((part) => part.remove());
return {
  foreign: places.filter((place) => new URL(place).origin !== location.origin && !/^(data|blob):/.test(place)),
  formulas: document.querySelectorAll("mjx-container").length,
  untypeset: [...document.querySelectorAll(".math")].filter((part) => !part.querySelector("mjx-container")).length,
  errors: [...document.querySelectorAll("mjx-merror, [data-mml-node=merror]")].map((part) => part.textContent),
  raw: prose.textContent.match(/\$\$|\\\(|\\\[|\\begin\{/g) ?? [],
  open: document.querySelectorAll("article details[open]").length,
  folds: document.querySelectorAll("article details").length,
  broken: [...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
};
"""

_WIDE = r"""
const room = document.documentElement.clientWidth;
const wide = [...document.querySelectorAll("body *")].filter((element) => {
  if (element.getBoundingClientRect().right <= room + 1 || !element.checkVisibility()) return false;
  for (let above = element.parentElement; above; above = above.parentElement)
    if (getComputedStyle(above).overflowX !== "visible") return false;
  return true;
});
return {
  page: document.documentElement.scrollWidth, room,
  wide: wide.slice(0, 3).map((part) => `${part.tagName} ${part.className} ${part.textContent.slice(0, 50)}`),
};
"""


@dataclass
class Page:
    """What a page's HTML says: where its links lead, its anchors, its pictures, and its claims by anchor."""

    ids: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    """Reads one page."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._link = ""
        self._claim, self._depth = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        for key in ("id", "name"):
            if (value := named.get(key)) and (key == "id" or tag == "a"):
                self.page.ids.add(value)
        if tag == "img":
            self.page.images.append(named)
        for key in ("href", "src"):
            if target := named.get(key):
                self.page.links.append((tag, target))
        if tag == "div":
            if self._depth:
                self._depth += 1
            elif (named.get("id") or "").startswith("claim-"):
                self._claim, self._depth = str(named["id"]), 1
                self.page.texts[self._claim] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._depth:
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.page.texts[self._claim] += data


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@functools.cache
def _read(page: str) -> Page:
    reader = _Reader()
    reader.feed((SITE / page).read_text(encoding="utf-8"))
    return reader.page


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The site on a local address, for the time of these tests."""
    if not (SITE / "index.html").is_file():
        pytest.fail("there is no build/site/html/index.html: run `make site` first", pytrace=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def visit(driver: Chrome, address: str) -> Callable[[str], None]:
    """``visit("docs/claims.html")`` opens a page and waits until its formulas are set."""

    def open_page(page: str) -> None:
        driver.get(f"{address}/{page}")
        driver.execute_async_script(
            "const done = arguments[0];"
            "Promise.all([window.MathJax?.startup?.promise, document.fonts.ready]).then(() => done(), () => done());"
        )

    return open_page


def test_the_site_has_every_notebook_and_page() -> None:
    sources = sorted((ROOT / "notebooks").glob("*.ipynb"))
    homework = sorted((ROOT / "notebooks" / "homework").rglob("*.ipynb"))
    wanted = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in sources + homework]
    wanted += [f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md") if path.stem != "index"]
    wanted += [
        "index.html",
        "docs/claims.html",
        "CHANGELOG.html",
        "data/README.html",
        "docs/api/index.html",
        "search.html",
    ]
    assert set(wanted) <= set(PAGES)


def test_every_internal_link_and_anchor_leads_somewhere() -> None:
    lost = []
    for page in PAGES:
        for tag, target in _read(page).links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
            path = path / "index.html" if path.is_dir() else path
            name = path.resolve()
            if not name.is_file():
                lost.append(f"{page}: <{tag}> {target}")
            elif tag == "a" and parts.fragment and name.suffix == ".html":
                other = name.relative_to(SITE.resolve()).as_posix()
                if unquote(parts.fragment) not in _read(other).ids:
                    lost.append(f"{page}: no anchor {target}")
    assert not lost, "\n".join(sorted(set(lost))[:30])


def test_nothing_is_loaded_from_another_host() -> None:
    foreign = [
        f"{page}: <{tag}> {target}"
        for page in PAGES
        for tag, target in _read(page).links
        if urlsplit(target).netloc and tag != "a" and not target.startswith("data:")
    ]
    assert not foreign, "\n".join(sorted(set(foreign))[:20])


def test_every_picture_has_a_description() -> None:
    bare = []
    for page in PAGES:
        for image in _read(page).images:
            decorative = any(part in str(image.get("class")) for part in ("logo", "sd-card-img-top"))
            alt = (image.get("alt") or "").strip()
            if (alt == "") != decorative or (not decorative and len(alt) < 4):
                bare.append(f"{page}: {image.get('src')} alt={image.get('alt')!r}")
    assert not bare, "\n".join(bare[:20])


@pytest.mark.parametrize("page", LESSONS + HOMEWORK)
def test_a_notebook_can_be_opened_in_colab(page: str) -> None:
    links = [target for _, target in _read(page).links]
    colab = {target for target in links if target.startswith("https://colab.research.google.com/github/")}
    assert {target.partition("/blob/main/")[2] for target in colab} == {page.replace(".html", ".ipynb")}


def test_each_claim_of_the_table_leads_to_its_measurement() -> None:
    from course_utils.cli import collect_claims

    records = collect_claims(sorted((ROOT / "notebooks").glob("*.ipynb")))
    links = [target for tag, target in _read("docs/claims.html").links if "#claim-" in target]
    assert len(links) == len(records)
    for record, target in zip(records, links, strict=True):
        page, _, anchor = target.partition("#")
        assert page == f"../notebooks/{record['lesson']}.html"
        assert record["statement"] in _read(page.removeprefix("../")).texts[anchor], target


@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_the_browser(
    page: str,
    visit: Callable[[str], None],
    driver: Chrome,
    window: Callable[[int, int], None],
    console_errors: Callable[[Chrome], list[str]],
) -> None:
    """No errors, no other host, formulas set, folds closed, contrast AA twice, nothing wider than a telephone."""
    visit(page)
    facts = driver.execute_script(_FACTS)
    assert facts["foreign"] == []
    assert facts["errors"] == []
    assert facts["untypeset"] == 0
    assert facts["raw"] == []
    assert facts["open"] == 0
    assert facts["broken"] == []
    for theme in ("light", "dark"):
        look = driver.execute_script(_LOOK, theme)
        assert look["seen"] > 10, "hardly any text was seen"
        assert look["poor"] == [], f"contrast below AA in the {theme}"
    window(*TELEPHONE)
    width = driver.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done("
        f"(() => {{ {_WIDE} }})())))"
    )
    assert width["page"] <= width["room"], width["wide"]
    assert console_errors(driver) == []


@pytest.mark.parametrize("page", LESSONS + HOMEWORK)
def test_formulas_are_there(page: str, visit: Callable[[str], None], driver: Chrome) -> None:
    visit(page)
    assert driver.execute_script(_FACTS)["formulas"] > 0


@pytest.mark.parametrize("page", [*LESSONS, *SOLVED])
def test_solutions_open_and_have_code(page: str, visit: Callable[[str], None], driver: Chrome) -> None:
    visit(page)
    folds = driver.find_elements(By.XPATH, "//article//details[summary='Solution']")
    assert len(folds) >= 4
    code = folds[0].find_element(By.TAG_NAME, "pre")
    assert not code.is_displayed()
    folds[0].find_element(By.TAG_NAME, "summary").click()
    assert code.is_displayed()
    assert code.find_elements(By.TAG_NAME, "span"), "not highlighted"


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_one_can_go_on_to_the_next_page(page: str) -> None:
    html = (SITE / page).read_text(encoding="utf-8")
    assert 'class="left-prev"' in html
    assert 'class="right-next"' in html


def test_the_search_finds_batchnorm(visit: Callable[[str], None], driver: Chrome) -> None:
    visit("search.html?q=BatchNorm")
    wait = WebDriverWait(driver, 20)
    wait.until(lambda chrome: chrome.find_elements(By.CSS_SELECTOR, "#search-results li a"))
    found = [link.get_attribute("href") or "" for link in driver.find_elements(By.CSS_SELECTOR, "#search-results li a")]
    assert any("notebooks/03_batchnorm.html" in target for target in found)
    driver.find_element(By.CSS_SELECTOR, "#search-results li a").click()
    wait.until(lambda chrome: "search.html" not in chrome.current_url)
    assert "batchnorm" in driver.find_element(By.TAG_NAME, "article").text.lower()


def test_the_search_opens_from_any_page(visit: Callable[[str], None], driver: Chrome) -> None:
    visit("docs/glossary.html")
    driver.find_element(By.CSS_SELECTOR, ".bd-sidebar-primary .search-button__button").click()
    field_ = driver.find_element(By.CSS_SELECTOR, "#pst-search-dialog input")
    assert field_.is_displayed()
    field_.send_keys("dropout\n")
    WebDriverWait(driver, 20).until(lambda chrome: chrome.find_elements(By.CSS_SELECTOR, "#search-results li a"))


def test_the_claims_can_be_filtered(visit: Callable[[str], None], driver: Chrome) -> None:
    visit("docs/claims.html")
    rows = (
        "return [...document.querySelectorAll('table.claims tbody tr')].filter((row) => row.checkVisibility()).length"
    )
    everything = driver.execute_script(rows)
    driver.find_element(By.ID, "claims-words").send_keys("deck 004")
    some = driver.execute_script(rows)
    assert 0 < some < everything
    assert driver.find_element(By.CSS_SELECTOR, ".claims-filter output").text == f"{some} of {everything}"
    assert len(driver.find_elements(By.CSS_SELECTOR, "article section section")) > sum(
        section.is_displayed() for section in driver.find_elements(By.CSS_SELECTOR, "article section section")
    )


def test_the_contents_open_on_a_telephone(
    visit: Callable[[str], None], driver: Chrome, window: Callable[[int, int], None]
) -> None:
    window(*TELEPHONE)
    visit("index.html")
    link = driver.find_element(By.CSS_SELECTOR, '.bd-sidebar-primary a[href$="03_batchnorm.html"]')
    assert not link.is_displayed()
    driver.find_element(By.CSS_SELECTOR, ".bd-header-article .primary-toggle").click()
    link = driver.find_element(By.CSS_SELECTOR, 'dialog[open] a[href$="03_batchnorm.html"]')
    WebDriverWait(driver, 10).until(lambda _: link.is_displayed())
    driver.execute_script("arguments[0].click()", link)
    WebDriverWait(driver, 20).until(lambda chrome: chrome.current_url.endswith("03_batchnorm.html"))


@pytest.mark.parametrize("page", KINDS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_barrier(page: str, theme: str, visit: Callable[[str], None], driver: Chrome) -> None:
    """The rules of axe-core, an accessibility checker of its own; it sees structure that the tests above do not."""
    visit(page)
    driver.execute_script(_LOOK, theme)
    driver.execute_script(_axe())
    found = driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((result) => done("
        "result.violations.map((rule) => [rule.id, rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 150))])))"
    )
    # Sphinx writes a signature of several lines as a <dl> of <dd> without a <dt>; nothing else may do so.
    found = [rule for rule in found if not (rule[0] == "definition-list" and page.startswith("docs/api/"))]
    assert found == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "telephone"])
def test_pictures_to_look_at(
    size: str,
    theme: str,
    visit: Callable[[str], None],
    driver: Chrome,
    window: Callable[[int, int], None],
    shoot: Callable[..., Path],
) -> None:
    """Not judged here: the front page, the parts of a lesson, and pages of each other kind."""
    if size == "telephone":
        window(*TELEPHONE)
    places = {
        "front": ("index.html", ""),
        "lesson": ("notebooks/03_batchnorm.html", ""),
        "figure": ("notebooks/03_batchnorm.html", ".cell_output img"),
        "claim": ("notebooks/03_batchnorm.html", "[id='claim-1']"),
        "solution": ("notebooks/03_batchnorm.html", "article details"),
        "claims": ("docs/claims.html", ""),
        "glossary": ("docs/glossary.html", ""),
        "api": ("docs/api/kan.html", ""),
    }
    for name, (page, selector) in places.items():
        visit(page)
        driver.execute_script(_STILL)
        driver.execute_script(
            "const root = document.documentElement; root.dataset.theme = root.dataset.mode = arguments[0];"
            "document.querySelectorAll('article details').forEach((fold) => { fold.open = true; });"
            "document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; });"
            "if (arguments[1]) document.querySelector(arguments[1]).scrollIntoView({block: 'center'});",
            theme,
            selector,
        )
        WebDriverWait(driver, 20).until(
            lambda chrome: chrome.execute_script("return [...document.images].every((image) => image.complete)")
        )
        shoot(f"site-{name}-{size}-{theme}")


@functools.cache
def _axe() -> str:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        builder = importlib.import_module("build")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    (script,) = builder.fetch(builder.AXE, ROOT / "build" / "npm")
    return str(script.read_text(encoding="utf-8"))
