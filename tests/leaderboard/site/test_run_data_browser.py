"""The comparison page in headless Chromium: differences, intervals, recipes, clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avsbench_harness.results.paired_bootstrap import paired_difference, read_clip_sums
from avsbench_harness.results.record import read_records

pytestmark = pytest.mark.browser


def test_differences_are_those_of_the_paired_bootstrap(site: Path, open_page: Callable[..., Any]) -> None:
    results = site.parent / "results"
    done = [one for one in read_records(results) if one.status == "done" and one.method == "tiny"]
    page = open_page(site / "compare.html")
    page.get_by_role("button", name="Clear").click()
    assert "Choose at least two runs." in page.locator("#comparison").inner_text()
    for record in done:
        page.locator("#run-list label", has_text=record.run_id).locator("input").check()
    base, other = (read_clip_sums(results / f"{record.run_id}.json", "object/1") for record in done)
    for metric in ("J", "F"):
        expected = paired_difference([other], [base], metric)
        assert expected is not None
        assert expected.interval is not None
        row = page.locator("tr.main", has=page.get_by_role("rowheader", name=metric, exact=True))
        shown = row.locator(".spread").inner_text()
        low, high = (f"{100 * end:+.1f}" for end in expected.interval)
        assert shown == f"{100 * expected.value:+.1f} ({low} to {high})"
    recipe = page.locator("section.card", has=page.get_by_role("heading", name="Recipe")).inner_text()
    assert "options.width" in recipe
    assert "optimizer.lr" not in recipe  # equal in both runs
    assert page.locator(".pairs circle").count() == len(base.clips)


@pytest.mark.parametrize("width", [390, 1280])
def test_clips_side_by_side_and_the_address(site: Path, open_page: Callable[..., Any], width: int) -> None:
    page = open_page(site / "compare.html", width=width)
    page.locator("#run-list input").first.wait_for()
    page.get_by_role("button", name="Clear").click()
    for box in page.locator("#run-list label", has_text="s4-tiny").locator("input").all():
        box.check()
    page.locator(".clip").first.scroll_into_view_if_needed()
    page.locator(".clip canvas").first.wait_for()
    page.wait_for_function("document.querySelector('.clip .strips').children.length === 2")
    again = open_page(site / "compare.html", "#" + page.url.partition("#")[2], width=width)
    assert again.locator("#run-list input:checked").count() == 2
    again.locator(".clip").first.scroll_into_view_if_needed()
    again.locator(".clip canvas").first.wait_for()
    again.get_by_label("Search").fill("no such run")
    assert again.locator("#run-list label:visible").count() == 0
