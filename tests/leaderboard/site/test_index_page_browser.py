"""The leaderboard in headless Chromium: tabs, sorting, filters, state in the address, details, scatter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def values(page: Any, key: str, body: str = "measured") -> list[float]:
    cells = page.locator(f".panel:not([data-inactive]) tbody.{body} tr.row:not([hidden]) [data-key={key}]")
    texts = [cell.get_attribute("data-sort") for cell in cells.all()]
    return [float(text) for text in texts if text]


def heading(page: Any, name: str) -> Any:
    return page.locator(f".panel:not([data-inactive]) thead th[data-key={name}]")


def shown(page: Any) -> int:
    return int(page.locator(".panel:not([data-inactive]) .board tr.row:not([hidden])").count())


@pytest.mark.parametrize("width", [390, 1280])
def test_sorting_by_mouse_and_keyboard(site: Path, open_page: Callable[..., Any], width: int) -> None:
    page = open_page(site / "index.html", width=width)
    assert heading(page, "rank").get_attribute("aria-sort") == "ascending"
    first = values(page, "F")
    assert len(first) == 3
    heading(page, "F").get_by_role("button").click()
    assert heading(page, "F").get_attribute("aria-sort") == "descending"
    assert heading(page, "rank").get_attribute("aria-sort") is None
    assert values(page, "F") == sorted(first, reverse=True)
    heading(page, "F").get_by_role("button").press("Enter")
    assert heading(page, "F").get_attribute("aria-sort") == "ascending"
    assert values(page, "F") == sorted(first)
    assert "sort=F%3Aasc" in page.url
    mark = heading(page, "F").locator(".mark")
    assert mark.is_visible()
    assert page.evaluate("e => getComputedStyle(e, '::after').content", mark.element_handle()) == '"▲"'


def test_reported_rows_stay_below_measured_rows(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    kinds = page.locator(".panel:not([data-inactive]) .board tr.row")
    for order in (1, 2):
        heading(page, "J").get_by_role("button").click()
        found = [row.get_attribute("data-kind") for row in kinds.all()]
        assert found == ["measured"] * 3 + ["reported"] * (len(found) - 3), order
        assert values(page, "J", "reported") == sorted(values(page, "J", "reported"), reverse=order == 1)
    assert not values(page, "rank", "reported")
    assert page.locator("tbody.reported .rank").first.inner_text() == "rep."


@pytest.mark.parametrize("width", [390, 1280])
def test_filters_and_their_state_in_the_address(
    site: Path, open_page: Callable[..., Any], width: int
) -> None:
    page = open_page(site / "index.html", width=width)
    panel = page.locator(".panel:not([data-inactive])")
    total = shown(page)
    panel.get_by_label("Rows").select_option("measured")
    assert shown(page) == 3
    panel.get_by_label("Rows").select_option("reported")
    assert shown(page) == total - 3
    panel.get_by_label("Backbone").select_option("pvt")
    some = shown(page)
    assert 0 < some < total - 3
    panel.get_by_label("Search").fill("QDFormer PVT-v2-Base")  # a source of TPAVI's row
    assert shown(page) == 1
    assert panel.locator(".shown").inner_text() == f"1 of {total} rows"
    address = page.url
    assert "backbone=pvt" in address
    again = open_page(site / "index.html", "#" + address.partition("#")[2], width=width)
    assert shown(again) == 1
    assert again.locator(".panel:not([data-inactive])").get_by_label("Backbone").input_value() == "pvt"
    panel.get_by_label("Search").fill("nothing of this name")
    assert panel.locator(".empty").is_visible()
    panel.get_by_role("button", name="Reset").click()
    page.wait_for_function("!location.hash.includes('backbone')")
    assert shown(page) == total
    hostile = open_page(site / "index.html", '#tab=<x>&sort=".a&backbone=%22%5D&kind=%00')
    assert shown(hostile) == total


def test_tabs_by_mouse_and_keyboard(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    tabs = page.get_by_role("tab")
    names = [tab.get_attribute("aria-label") for tab in tabs.all()]
    assert {"AVSBench, MS3", "AVSBench, AVSS"} <= set(names)
    page.get_by_role("tab", name="AVSBench, AVSS").click()
    assert "mIoU" in heading(page, "mIoU").inner_text()
    assert 53.4 in values(page, "mIoU", "reported")  # QDFormer, Table 1
    page.keyboard.press("ArrowLeft")
    selected = page.locator('[role=tab][aria-selected="true"]')
    assert selected.get_attribute("aria-label") == "AVSBench, MS3"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "AVSBench, MS3"
    again = open_page(site / "index.html", "#" + page.url.partition("#")[2])
    assert again.locator('[role=tab][aria-selected="true"]').get_attribute("aria-label") == "AVSBench, MS3"


def test_rows_unfold_their_sources_and_runs(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    button = page.get_by_role("button", name="Sources of LVS with r50")
    detail = page.locator(f"#{button.get_attribute('aria-controls')}")
    assert not detail.is_visible()
    button.focus()
    page.keyboard.press("Enter")
    assert detail.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    for text in ("AVSegFormer, Table 1", "CATR, Table 1", "COMBO, Table 1", "QDFormer, Table 1", "51.9"):
        assert text in detail.inner_text(), text
    heading(page, "method").get_by_role("button").click()  # the details stay below their row
    assert page.evaluate("e => e.previousElementSibling.textContent.includes('LVS')", detail.element_handle())
    page.locator("tbody.measured .unfold").first.click()
    assert "GMACs" in page.locator("tbody.measured .detail.open").inner_text()


def test_scatter_follows_axis_and_filters(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    panel = page.locator(".panel:not([data-inactive])")
    points = panel.locator(".scatter a")
    assert points.count() == 3
    panel.get_by_label("Horizontal axis").select_option("speed")
    assert "training clips per second" in panel.locator(".scatter").inner_text()
    assert "x=speed" in page.url
    panel.get_by_label("Search").fill("alert(1)")
    assert points.count() == 1
    label = points.first.get_attribute("aria-label")
    assert label is not None
    assert label.startswith("<script>alert(1)</script>")
    points.first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*.html")


def test_failed_runs_have_their_reason(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    assert "out of <b>memory</b>" in page.locator(".failed").first.inner_text()
