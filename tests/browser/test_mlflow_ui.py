"""The MLflow UI, in a real headless Chromium, on the runs of a small grid."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.bench.run_tools import bench, query, start, write_grid
from tests.server.process import free_port

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs chromium and chromedriver on PATH"),
]

GRID = """
name: watched
description: What the browser test looks at.
methods: [robult, constant]
datasets: [digits]
label_ratios: [0.05]
seeds: 1
train: {epochs: 5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui")
    write_grid(folder, GRID)
    run = bench("run", "grid.yaml", cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Address of a `bench ui` on the folder's store."""
    port = free_port()
    process = start("ui", "--port", str(port), cwd=folder)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while True:
        try:
            urlopen(address, timeout=2)
            break
        except (URLError, OSError):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the UI did not come up"
            time.sleep(0.3)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1600,1000", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def run_id(folder: Path, key: str, value: str) -> str:
    rows = query(folder, f"SELECT run_uuid FROM tags WHERE key = '{key}' AND value = '{value}'")
    return str(rows[0][0])


def experiment_id(folder: Path) -> str:
    return str(query(folder, "SELECT experiment_id FROM experiments WHERE name = 'watched'")[0][0])


def text_with(browser: webdriver.Chrome, *words: str, timeout_s: float = 60) -> str:
    """The page's text once it holds all of `words`."""

    def seen(driver: webdriver.Chrome) -> str | None:
        text = driver.find_element(By.TAG_NAME, "body").text
        return text if all(word in text for word in words) else None

    try:
        return str(WebDriverWait(browser, timeout_s).until(seen))
    except Exception as error:
        body = browser.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"the page lacks {words}; it says: {body[:2000]}") from error


def shoot(browser: webdriver.Chrome, folder: Path, name: str) -> None:
    """Keep a screenshot beside the store, for a person to look at."""
    assert browser.save_screenshot(str(folder / f"{name}.png"))


def unfold(browser: webdriver.Chrome, run_name: str, child: str) -> None:
    """Press the [+] in front of a run until its child is there; the UI remembers what was unfolded before."""
    path = f"//*[normalize-space(text())={run_name!r}]/ancestor::div[@role='gridcell'][1]//button"
    text_with(browser, run_name)
    for _ in range(3):
        try:
            text_with(browser, child, timeout_s=5)
        except AssertionError:
            browser.execute_script("arguments[0].click()", browser.find_element(By.XPATH, path))
        else:
            return
    text_with(browser, child)


def test_grid_training_and_cell_runs_unfold_from_one_another(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs")
    text_with(browser, "watched", "grid watched")
    unfold(browser, "grid watched", "robult / digits / 0.05 / 0")
    text_with(browser, "constant / digits / 0.05 / 0")
    unfold(browser, "robult / digits / 0.05 / 0", "upper+lower")
    shoot(browser, folder, "runs")


def test_runs_are_found_by_their_tags(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    browser.get("about:blank")  # or the page would keep the rows it has while the new search runs
    search = "tags.stage%20%3D%20'cell'%20and%20tags.method%20%3D%20'robult'"
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs?searchFilter={search}")
    text = text_with(browser, "robult / digits / 0.05 / 0")
    assert "constant / digits" not in text
    unfold(browser, "robult / digits / 0.05 / 0", "upper+lower")
    shoot(browser, folder, "cells")


def test_a_training_run_shows_parameters_and_curves(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    run = run_id(folder, "mlflow.runName", "robult / digits / 0.05 / 0")
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs/{run}")
    assert "Duration\n-" not in text_with(browser, "method.tau", "train/loss", "training_id", "Duration")
    shoot(browser, folder, "training")
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs/{run}/model-metrics")
    # Every section is named; the charts of the first alone are drawn, two rows of them.
    text_with(browser, "cost", "diagnose", "gradient", "train", "valid", "step_ms", "train_s")
    shoot(browser, folder, "curves")


def test_a_cell_run_shows_its_test_metrics(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    run = query(
        folder,
        "SELECT a.run_uuid FROM tags a JOIN tags b ON a.run_uuid = b.run_uuid "
        "WHERE a.key = 'modalities' AND a.value = 'upper+lower' AND b.key = 'method' AND b.value = 'robult'",
    )[0][0]
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs/{run}")
    text_with(browser, "last/acc", "best/acc", "modalities")
    shoot(browser, folder, "cell")


def test_the_grid_run_keeps_its_yaml(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    run = run_id(folder, "stage", "grid")
    browser.get(f"{url}/#/experiments/{experiment_id(folder)}/runs/{run}/artifacts/grid.yaml")
    text_with(browser, "grid.yaml", "What the browser test looks at.")
    shoot(browser, folder, "grid")
