"""The report page, opened as a file in a real headless Chromium and gone through section by section.

Figures have their place and no text is cut off; tables sort and filter; views and colours switch; nothing is loaded.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from analysis.report import Sources, write_report
from analysis.sections.base import KeptGroup, Links
from tests.analysis.frames import realistic
from tests.analysis.test_report import weighted
from tests.bench.run_tools import bench, write_grid
from tests.browser.test_mlflow_ui import BROWSER, DRIVER

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs chromium and chromedriver on PATH"),
]

METHODS = ("robult", "gmc", "raml", "actionmae", "etmc", "unimodal", "constant")
VIEWS = ("pix", "fou", "fac", "zer", "kar", "mor")
MOSI = {"cmu_mosi": (("text", "audio", "vision"), {"mae": False, "acc": True})}
SETS = {
    "digits": (("upper", "lower"), {"acc": True}), "handwritten": (VIEWS, {"acc": True, "ua": True}),
    "synthetic": (("m1", "m2"), {"mae": False}),
}  # fmt: skip
SECTIONS = ("overview", "results", "curves", "papers", "ranking", "weights", "cost")

GRID = """
name: looked-at
methods: [robult, gmc, raml, unimodal, etmc, concat, constant]
datasets:
  - digits
  - synthetic: {label: views, n_modalities: 6, uniqueness: 0, n_train: 300, n_valid: 100, n_test: 100}
  - synthetic: {label: pairs, n_modalities: 2, uniqueness: 1, n_train: 300, n_valid: 100, n_test: 100}
label_ratios: [0.05, 0.5]
corruptions: [{gaussian: {upper: [0.5, 1.0]}}, {gaussian: {m1: [0.5, 1.0]}}]
seeds: 2
train: {epochs: 2}
save: [embeddings, predictions, pseudo_labels, weights]
"""


def trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """What each training took."""
    own = frame.drop_duplicates("training_id")[["dataset", "label_ratio", "method", "seed", "training_id"]]
    return own.assign(run_id=own["training_id"], **{"cost/train_s": 1.5, "cost/parameters": 1000.0})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six methods on sets like digits, handwritten (63 subsets), synthetic, and one of the papers' own."""
    folder = tmp_path_factory.mktemp("report")
    one_ratio = realistic(METHODS, sets=SETS, ratios=(0.05,), checkpoints=("last",))
    frame = pd.concat([realistic(METHODS, sets=MOSI, checkpoints=("last",)), one_ratio], ignore_index=True)
    arrays = [replace(weighted("raml"), dataset="digits")]
    sources = Sources(
        links=Links("http://127.0.0.1:5000", "1"), trainings=trainings(frame),
        kept=[KeptGroup("digits", 0.05, lambda: (arrays, []))],
    )  # fmt: skip
    write_report(frame, folder, title="looked at", checkpoint="last", context={}, sources=sources)
    return folder / "index.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, page: Path) -> Iterator[webdriver.Chrome]:
    """The page, freshly opened; whatever a test does, it asks for nothing and makes no errors."""
    for log in ("browser", "performance"):
        chromium.get_log(log)
    chromium.get(page.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []
    asked = [url for url in map(_requested, chromium.get_log("performance")) if url]
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def _requested(entry: Any) -> str:
    message = json.loads(entry["message"])["message"]
    return str(message["params"]["request"]["url"]) if message["method"] == "Network.requestWillBeSent" else ""


def table_of(browser: webdriver.Chrome, caption: str) -> WebElement:
    return browser.find_element(By.XPATH, f"//table[caption[contains(., '{caption}')]]")


def column(table: WebElement, at: int) -> list[str]:
    script = "return [...arguments[0].tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[arguments[1]].innerText)"
    return [str(text) for text in table.parent.execute_script(script, table, at)]


def press(table: WebElement, heading: str) -> WebElement:
    """Press a column's heading from the keyboard."""
    button = table.find_element(By.XPATH, f".//th[normalize-space(.)='{heading}']/button")
    button.send_keys(Keys.ENTER)
    return button.find_element(By.XPATH, "..")


OUTSIDE = """
const lost = [];
for (const svg of document.querySelectorAll(".paper svg")) {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("g[id*='text_']")) {
    const own = text.getBoundingClientRect();
    const out = own.left < frame.left - 1 || own.top < frame.top - 1 || own.right > frame.right + 1
      || own.bottom > frame.bottom + 1;
    if (own.width && out) lost.push(svg.getAttribute("aria-label").slice(0, 80));
  }
}
return [...new Set(lost)];
"""
"""The figures of which a text lies partly outside."""


def look_through(browser: webdriver.Chrome, sections: Sequence[str]) -> None:
    """Every section in order, every view of it, every figure in its place and whole."""
    assert [h2.get_attribute("id") for h2 in browser.find_elements(By.CSS_SELECTOR, "main h2")] == list(sections)
    for name in sections:
        section = browser.find_element(By.XPATH, f"//section[h2[@id='{name}']]")
        browser.execute_script("arguments[0].scrollIntoView()", section)
        assert section.is_displayed()
        for label in section.find_elements(By.CSS_SELECTOR, "fieldset.views > label"):
            browser.execute_script("arguments[0].click()", label)
            sizes = browser.execute_script(
                "return [...arguments[0].querySelectorAll('.paper')].filter(x => x.offsetParent)"
                ".map(x => [x.firstElementChild.getBoundingClientRect().width, x.clientWidth])", section
            )  # fmt: skip
            assert all(0 < width <= room + 1 for width, room in sizes), name
            assert browser.execute_script(OUTSIDE) == []
        for table in section.find_elements(By.CSS_SELECTOR, "table"):
            assert table.find_elements(By.CSS_SELECTOR, "tbody tr"), table.text
    assert browser.execute_script(OUTSIDE) == []


def test_every_section_has_its_figures_whole(browser: webdriver.Chrome) -> None:
    look_through(browser, SECTIONS)


def test_63_subsets_are_few_rows_first_and_all_on_request(browser: webdriver.Chrome) -> None:
    views = browser.find_element(By.XPATH, "//fieldset[legend='View of handwritten: acc']")
    few, every = views.find_elements(By.XPATH, "./div//table")
    assert column(few, 1) == [
        *VIEWS, "2 of 6, mean of 15", "3 of 6, mean of 20", "4 of 6, mean of 15", "5 of 6, mean of 6",
        "+".join(VIEWS), "all, mean of 63",
    ]  # fmt: skip
    assert few.is_displayed()
    views.find_element(By.XPATH, "./label[2]").click()
    assert every.is_displayed()
    assert not few.is_displayed()
    assert len(column(every, 1)) == 63
    assert browser.find_elements(By.XPATH, "//p[contains(., 'handwritten: ua')]/a[contains(@href, '.csv')]")


@pytest.mark.slow
def test_the_report_of_a_real_grid_is_looked_through(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    write_grid(tmp_path, GRID)
    for words in (("run", "grid.yaml"), ("report", "looked-at")):
        told = bench(*words, cwd=tmp_path, timeout=900)
        assert told.returncode == 0, told.stderr
    chromium.get((tmp_path / "reports/looked-at/index.html").as_uri())
    of_arrays = ("representations", "weights", "pseudo-labels", "proximity")
    look_through(chromium, ("overview", "results", "curves", "ranking", *of_arrays, "cost"))


def test_a_heading_sorts_up_down_and_back(browser: webdriver.Chrome) -> None:
    table = table_of(browser, "cmu_mosi: mae")
    before = column(table, 2)
    th = press(table, "robult")
    assert th.get_attribute("aria-sort") == "ascending"
    means = [float(text.split(" ")[0]) for text in column(table, 2)]
    assert means == sorted(means)
    assert column(table, 2) != before
    assert press(table, "robult").get_attribute("aria-sort") == "descending"
    means = [float(text.split(" ")[0]) for text in column(table, 2)]
    assert means == sorted(means, reverse=True)
    assert press(table, "gmc").get_attribute("aria-sort") == "ascending"
    assert th.get_attribute("aria-sort") == "none"
    press(table, "gmc")
    assert press(table, "gmc").get_attribute("aria-sort") == "none"
    assert column(table, 2) == before


def test_a_filter_keeps_the_rows_with_all_its_words(browser: webdriver.Chrome) -> None:
    table = table_of(browser, "cmu_mosi: mae")
    field = browser.find_element(By.CSS_SELECTOR, f"input[data-filter='{table.get_attribute('id')}']")
    field.send_keys("50% text+")
    assert column(table, 1) == ["text+audio", "text+vision", "text+audio+vision"]
    told = field.find_element(By.XPATH, "../following-sibling::*[@aria-live]")
    assert told.text == "3 of 14 rows"
    field.clear()
    field.send_keys("x", Keys.BACKSPACE)
    assert len(column(table, 1)) == 14


def test_views_switch_from_the_keyboard(browser: webdriver.Chrome) -> None:
    views = browser.find_element(By.XPATH, "//fieldset[legend='View of Robult, Table 1']")
    first, second, third = views.find_elements(By.XPATH, "./div")
    assert (first.is_displayed(), second.is_displayed(), third.is_displayed()) == (True, False, False)
    views.find_element(By.XPATH, "./input[1]").send_keys(Keys.ARROW_RIGHT)
    assert (first.is_displayed(), second.is_displayed(), third.is_displayed()) == (False, True, False)
    assert "paper" in second.text
    views.find_element(By.XPATH, "./label[3]").click()
    assert r"\begin{tabular}" in third.text


def test_colours_switch_and_stay_readable(browser: webdriver.Chrome) -> None:
    contrast = """
    const rgb = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const linear = (x) => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
    const light = (c) => { const l = rgb(c).map(x => linear(x / 255));
                           return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
    const page = light(getComputedStyle(document.body).backgroundColor);
    return ["p.note", "td a", "th", "nav a", "figcaption"].map((name) => {
      const own = light(getComputedStyle(document.querySelector(name)).color);
      return (Math.max(own, page) + .05) / (Math.min(own, page) + .05); });
    """
    button = browser.find_element(By.ID, "theme")
    seen = set()
    for _ in range(2):
        seen.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert min(browser.execute_script(contrast)) > 4.5
        button.click()
    assert len(seen) == 2


@pytest.mark.parametrize("width", [1600, 800, 400])
def test_nothing_is_wider_than_the_window(browser: webdriver.Chrome, width: int) -> None:
    browser.set_window_size(width, 900)
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0
    browser.set_window_size(1280, 1000)


def test_the_first_stop_of_the_keyboard_leads_to_the_results(browser: webdriver.Chrome) -> None:
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "Skip to the results"
    first.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#main")


def test_downloads_lie_beside_the_page(browser: webdriver.Chrome, page: Path) -> None:
    links = [link.get_dom_attribute("href") for link in browser.find_elements(By.CSS_SELECTOR, "a[download]")]
    assert {str(link).rpartition(".")[2] for link in links} == {"csv", "tex", "png", "svg"}
    assert all((page.parent / str(link)).is_file() for link in links)
