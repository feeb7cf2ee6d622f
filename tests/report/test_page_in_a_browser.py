"""Pages in a real browser: phone and desktop, light and dark, without a network; what a click does; accessibility."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.report.page.write import write_report
from tests.conftest import make_dataset
from tests.report.test_page import NET, named

playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with the dev extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe comes with the dev extra")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP = 1280


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with augmentation, on classes of which one has a long name."""
    run = tmp_path_factory.mktemp("browser") / "run"
    splits = named(("a plain name", "b" * 60, "<i>c</i>"))
    splits = replace(splits, test=replace(make_dataset(300), class_names=splits.train.class_names))
    augment = engine.AugmentConfig(horizontal_flip=True)
    engine.fit(NET, splits, epochs=2, augment=augment, run_dir=run, verbose=False)
    return write_report(run, splits=splits)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; skips where there is none."""
    if BROWSER is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


def open_page(browser: Any, path: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """(the page, opened without a network; what its console says and what it asks for from elsewhere)."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(390, "dark", id="phone, dark"),
        pytest.param(1280, "light", id="desktop, light"),
        pytest.param(390, "light", id="phone, light", marks=pytest.mark.long),
        pytest.param(1280, "dark", id="desktop, dark", marks=pytest.mark.long),
    ],
)
def test_page_fits_and_is_accessible(browser: Any, page_path: Path, width: int, scheme: str):
    page, said = open_page(browser, page_path, width, scheme)
    assert said == []
    assert page.evaluate("!document.querySelector('#model details').open") == (width == 390)
    page.locator("nav a[href='#model']").click()
    assert page.evaluate("document.querySelector('#model details').open")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.context.close()


def test_click_on_a_heading_sorts_and_on_a_number_shows_pictures(browser: Any, page_path: Path):
    page, said = open_page(browser, page_path, DESKTOP)
    table = page.locator("#class-by-class table")
    for turn in (True, False):
        table.get_by_role("button", name="precision", exact=True).click()
        shown = [float(text) for text in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
        assert shown == sorted(shown, reverse=turn)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == ("descending" if turn else "ascending")
    number = page.locator("#confusion-matrix td button").first
    count = int(number.inner_text())
    number.click()
    assert page.locator("#opened img").count() == min(count, 12)
    assert page.evaluate("[...document.querySelectorAll('#opened img')].every(image => image.naturalWidth > 0)")
    assert page.locator("#opened h3").inner_text() == number.get_attribute("aria-label")
    number.click()
    assert page.locator("#opened img").count() == 0
    assert said == []
    page.context.close()


def test_policy_stops_a_script_that_is_not_the_pages_own(browser: Any, page_path: Path, tmp_path: Path):
    other = tmp_path / "other.html"
    planted = '<script>document.title = "planted"</script><img src="x" onerror="document.title = 2">'
    other.write_text(page_path.read_text("utf-8").replace("</main>", f"{planted}</main>"), encoding="utf-8")
    page, said = open_page(browser, other, DESKTOP)
    assert page.title() == "fit"
    assert any("Content Security Policy" in text for text in said)
    page.context.close()
