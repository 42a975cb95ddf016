"""The page of a run in a real browser: no console error, no request, nothing wider than a phone, whatever the names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import HOSTILE_NAMES, made_run
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from trainer.report.compare import compare, read_runs
from trainer.report.compare_page import comparison_page
from trainer.report.write import write_report

PHONE, DESKTOP = 375, 1280

CASES: dict[str, dict[str, Any]] = {
    "2-classes": {"class_names": ["cat", "dog"]},
    "5-classes": {"class_names": ["daisy", "dandelion", "roses", "sunflowers", "tulips"]},
    "1000-classes": {"class_names": [f"class {number}" for number in range(1000)], "examples": 5000},
    "hostile": {"class_names": HOSTILE_NAMES, "config": {"data": f"folder:/{HOSTILE_NAMES[0]}"}},
    "interrupted": {"class_names": ["cat", "dog"], "interrupted": True},
    "just-begun": {"class_names": ["cat", "dog"], "interrupted": True, "steps": 0},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("Chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    options = Options()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_page_load_timeout(30)
    yield started
    started.quit()


@pytest.fixture(scope="module", params=CASES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = made_run(tmp_path_factory.mktemp(request.param) / "run", **CASES[request.param])
    return Path(write_report(run, run, "2026-11-22"))


def _requests(browser: webdriver.Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_browser_shows_it_without_an_error_a_request_or_a_sideways_scroll(
    browser: webdriver.Chrome, page: Path, width: int
) -> None:
    _check_shown(browser, page, width)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_browser_shows_a_comparison_likewise(browser: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    name = f"learning_rate=0.001,backbone={'very-' * 20}long"
    classes = [*HOSTILE_NAMES, "cat"]
    settings: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2},
        {"freeze": HOSTILE_NAMES[0], "init_from": "/" + "b" * 300},
    ]
    runs = [
        made_run(tmp_path / f"{name}-{number}", classes, seed=number, config=config, interrupted=number == 2)
        for number, config in enumerate(settings)
    ]
    file = tmp_path / "compare.html"
    file.write_text(comparison_page(compare(read_runs([run.path for run in runs])), "2026-11-22"), encoding="utf-8")
    _check_shown(browser, file, width)
    dots = browser.execute_script(
        "return [...document.querySelectorAll('circle')].map(c => c.getBoundingClientRect().x)"
    )
    assert len(dots) == 2 and 0 < min(dots) <= max(dots) < width


def _check_shown(browser: webdriver.Chrome, page: Path, width: int) -> None:
    """Fails unless the page is shown without an error, a request, a script, or a need to scroll sideways."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert _requests(browser) == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert "broken" not in browser.title and browser.find_elements(By.TAG_NAME, "script") == []
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    # The letters of a chart stay readable.
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert all(size >= 6 for size in sizes if size)


def test_both_themes_have_colors_of_their_own(browser: webdriver.Chrome, page: Path) -> None:
    seen = set()
    for theme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.get(page.as_uri())
        seen.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        ink = browser.execute_script(
            "const t = document.querySelector('svg text'); return t && getComputedStyle(t).fill"
        )
        assert ink is None or ink != "rgb(0, 0, 0)"
    assert len(seen) == 2


def test_it_is_small_and_has_its_charts_and_numbers_beside_it(page: Path) -> None:
    assert page.stat().st_size < 3_000_000
    numbers = json.loads((page.parent / "report.json").read_text())
    charts = sorted(path.stem for path in (page.parent / "plots").glob("*.png"))
    assert "class-sizes" in charts and "time" in charts
    assert (numbers["judgement"]["split"] == "test") == (numbers["state"] == "done")
    assert sum(entry["count"] for entry in numbers["judgement"]["confusion"]) in (400, 5000)
