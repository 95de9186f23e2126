"""The report's page in a real browser: it asks for nothing, fits any width, and its tables sort and filter."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from report_runs import DENSE, dense_result, make_collection
from workplace import Workplace, git

from slurmkit.report.html import inline_svg

BROWSER = shutil.which("chromium")
REQUIRED = bool(os.environ.get("SLURMKIT_REQUIRE_BROWSER"))
pytestmark = [
    pytest.mark.skipif(BROWSER is None and not REQUIRED, reason="needs a browser: install Debian's package chromium"),
    pytest.mark.xdist_group("page"),  # one browser, and one report with all its figures
    pytest.mark.timeout(600),
]

CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (text) => {
    const [r, g, b] = rgb(text).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  const poor = [];
  const texts = "h1, h2, h3, p, a, dt, dd, code, td, button, figcaption, label";
  for (const element of document.querySelectorAll(texts)) {
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push([element.tagName, element.textContent.slice(0, 30), ratio]);
  }
  return poor;
}"""
"""Texts with less than 4.5:1 against what is behind them (WCAG 2.2, 1.4.3)."""


@dataclass
class Shown:
    """A page in the browser, and what it said and asked for."""

    page: Any
    folder: Path
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the command writes, with every figure."""
    root = tmp_path_factory.mktemp("page")
    git(root, "init", "-q")
    make_collection(root, DENSE, dense_result)
    drawing = Workplace(root).start("report", "dense")
    _, told = drawing.communicate()  # however long it takes
    assert drawing.returncode == 0, told
    return root / "reports" / "dense"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert BROWSER is not None, "SLURMKIT_REQUIRE_BROWSER is set, and there is no chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=0)
        yield started
        started.close()


@pytest.fixture
def shown(browser: Any, folder: Path) -> Iterator[Shown]:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    context.set_default_timeout(0)  # a test's own limit is the end of it
    shown = Shown(context.new_page(), folder)
    shown.page.on("console", lambda message: shown.said.append(message.text))
    shown.page.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.page.on("request", lambda request: shown.asked.append(request.url))
    shown.page.goto((folder / "report.html").as_uri())
    yield shown
    context.close()


def test_a_page_says_nothing_and_asks_for_nothing(shown: Shown) -> None:
    shown.page.wait_for_load_state("networkidle")
    assert shown.said == []
    assert shown.asked == [(shown.folder / "report.html").as_uri()]


def test_every_figure_is_drawn_with_a_text_for_those_who_cannot_see_it(shown: Shown) -> None:
    sizes = shown.page.eval_on_selector_all("figure svg", "all => all.map((e) => e.getBoundingClientRect().height)")
    assert len(sizes) == 9
    assert min(sizes) > 60
    alts = shown.page.eval_on_selector_all("figure svg", "all => all.map((e) => e.getAttribute('aria-label'))")
    assert all("cells" in alt or "matched pairs" in alt for alt in alts)


def test_no_id_stands_twice_so_that_no_drawing_borrows_from_another(shown: Shown) -> None:
    ids = shown.page.eval_on_selector_all("[id]", "all => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_files_of_figures_lie_where_the_page_links_to(shown: Shown) -> None:
    links = shown.page.eval_on_selector_all(".files a", "all => all.map((e) => e.getAttribute('href'))")
    assert len(links) == 9 * 4
    assert [link for link in links if not (shown.folder / link).stat().st_size] == []


def test_a_table_sorts_by_its_numbers_both_ways_and_what_has_none_comes_last(shown: Shown) -> None:
    table = shown.page.locator("table", has=shown.page.get_by_role("button", name="done")).first
    header = table.get_by_role("button", name="router_probe_accuracy")
    place = table.locator("th").all_inner_texts().index("router_probe_accuracy") + 1

    def column() -> list[str]:
        return table.locator(f"tbody td:nth-child({place})").all_inner_texts()

    header.click()
    values = [float(text.split()[0]) for text in column() if text != "-"]
    assert values == sorted(values)
    assert column()[-5:] == ["-"] * 5
    header.click()
    assert [float(text.split()[0]) for text in column() if text != "-"] == sorted(values, reverse=True)
    assert column()[-5:] == ["-"] * 5
    assert header.locator("..").get_attribute("aria-sort") == "descending"


def test_a_table_is_filtered_by_words(shown: Shown) -> None:
    label = shown.page.locator(".filter").last
    label.locator("input").fill("grid_path 0.1")
    assert label.locator("output").inner_text() == "3 of 24"
    label.locator("input").fill("")
    assert label.locator("output").inner_text() == "24 of 24"


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_width_and_can_be_read_in_light_and_dark(shown: Shown, width: int, scheme: str) -> None:
    shown.page.set_viewport_size({"width": width, "height": 900})
    shown.page.emulate_media(color_scheme=scheme)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.page.evaluate(CONTRAST) == []


def test_the_button_turns_light_to_dark_and_the_drawings_with_it(shown: Shown) -> None:
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    before = shown.page.evaluate("getComputedStyle(document.body).backgroundColor"), shown.page.evaluate(ink)
    shown.page.locator("#theme").click()
    after = shown.page.evaluate("getComputedStyle(document.body).backgroundColor"), shown.page.evaluate(ink)
    assert before[0] == "rgb(255, 255, 255)"
    assert after[0] != before[0]


def test_on_paper_it_is_black_on_white_and_no_wider(shown: Shown) -> None:
    shown.page.emulate_media(media="print", color_scheme="dark")
    shown.page.set_viewport_size({"width": 760, "height": 1000})  # A4 less its margins
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not shown.page.locator("nav").is_visible()
    assert shown.page.pdf(format="A4").startswith(b"%PDF")


def test_the_page_is_small(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 1_500_000


def test_what_axes_say_is_not_rounded_with_their_coordinates() -> None:
    drawn = '<g id="a"><path d="M 1.23456 2"/><text>0.9875</text></g>'
    svg = f'<?xml?><svg width="9pt" viewBox="0 0 9.12345 9" x="1">{drawn}</svg>'
    inline = inline_svg(svg, "an alt")
    assert "0.9875" in inline
    assert "M 1.23 2" in inline
    assert re.search(r'aria-label="an alt"', inline)
