"""The report page, opened as a file in a real headless Chromium: sorting, filters, views, colours, no requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from analysis.report import Sources, write_report
from analysis.sections.base import Links
from tests.analysis.frames import realistic
from tests.browser.test_mlflow_ui import BROWSER, DRIVER

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs chromium and chromedriver on PATH"),
]

SETS = {"cmu_mosi": (("text", "audio", "vision"), {"mae": False, "acc": True})}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    frame = realistic(sets=SETS)
    links = Sources(links=Links("http://127.0.0.1:5000", "1"))
    write_report(frame, folder, title="looked at", checkpoint="last", context={}, sources=links)
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
