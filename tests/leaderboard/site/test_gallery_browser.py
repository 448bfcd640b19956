"""The gallery in headless Chromium: order, overlays, conditions, sound, lazy loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from avsbench_harness.results.record import read_record

pytestmark = pytest.mark.browser

#: Colours of opaque pixels of a canvas, as a set of "r g b".
COLOURS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200) found.add([data[i], data[i + 1], data[i + 2]].join(" "));
  }
  return [...found];
}"""
#: Lists the positions and files of recordings that are played.
RECORD = """() => {
  const own = Audio.prototype.play;
  window.played = [];
  Audio.prototype.play = function () {
    window.played.push([this.currentTime, this.src]);
    return own.call(this);
  };
}"""
#: Puts clips out of each other's view.
FAR_APART = """addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = ".clip { margin-bottom: 3000px !important; }";
  document.head.append(style);
});"""
TRUTH, PREDICTION = "255 214 10", "0 150 255"


@pytest.fixture
def gallery(site: Path) -> Path:
    (page,) = (site / "clips").glob("*.html")
    return page


def tables(site: Path) -> list[pd.DataFrame]:
    """The per-clip tables of the two runs and of the record with their scores."""
    results = site.parent / "results"
    records = [read_record(path) for path in results.glob("s4-tiny-*.json")]
    done = [record.run_id for record in records if record.status == "done"]
    return [pd.read_csv(results / f"{name}.clips.csv").set_index("clip") for name in sorted(done)]


def order(page: Any) -> list[str]:
    return [str(text).split()[0] for text in page.locator(".clip h2").all_inner_texts()]


def test_order_by_score_and_disagreement(site: Path, gallery: Path, open_page: Callable[..., Any]) -> None:
    one, two = tables(site)
    page = open_page(gallery)
    page.wait_for_selector(".strip canvas")
    boxes = page.locator("[name=run]")
    assert boxes.count() == 2
    for box in boxes.all():
        box.check()
    page.get_by_label("Sort by").select_option("disagreement")
    difference = (one["J"] - two["J"]).abs()
    assert [difference[clip] for clip in order(page)] == sorted(difference, reverse=True)
    mean = (one["J"] + two["J"]) / 2
    page.get_by_label("Sort by").select_option("best")
    assert [mean[clip] for clip in order(page)] == sorted(mean, reverse=True)
    page.get_by_label("Sort by").select_option("worst")
    assert [mean[clip] for clip in order(page)] == sorted(mean)
    assert "sort=worst" in page.url
    again = open_page(gallery, "#" + page.url.partition("#")[2])
    assert order(again) == order(page)
    assert again.locator("[name=run]:checked").count() == 2
    again.get_by_label("Search").fill(order(page)[0])
    assert again.locator(".clip").count() == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_overlays(gallery: Path, open_page: Callable[..., Any], width: int) -> None:
    page = open_page(gallery, width=width)
    canvas = page.locator(".strip canvas").first
    canvas.wait_for()

    def colours() -> set[str]:
        page.wait_for_timeout(150)
        return set(page.locator(".strip canvas").first.evaluate(COLOURS))

    assert TRUTH in colours()
    page.get_by_label("ground truth").uncheck()
    assert TRUTH not in colours()
    page.get_by_label("ground truth").check()
    page.get_by_label("error map").check()
    assert colours() & {TRUTH, PREDICTION}
    assert "missed" in page.locator("#legend").inner_text()
    page.get_by_label("fill").check()
    page.get_by_label("prediction").uncheck()
    assert PREDICTION not in colours()
    frame, drawn = page.locator(".frames img").first.bounding_box(), canvas.bounding_box()
    assert frame is not None
    assert drawn == frame  # the overlay covers the frames
    assert frame["width"] / frame["height"] == pytest.approx(5, rel=0.01)
    wave = page.locator(".wave").first.bounding_box()
    assert (wave["x"], wave["width"]) == (frame["x"], frame["width"])
    assert wave["y"] == pytest.approx(frame["y"] + frame["height"], abs=1)


def test_conditions_are_side_by_side(gallery: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(gallery)
    page.wait_for_selector(".strip canvas")
    for box in page.locator("[name=run]").all():
        box.check()
    page.wait_for_function("document.querySelector('.clip .strips').children.length === 3")
    headings = page.locator(".clip").first.locator("h3").all_inner_texts()
    assert sum("swapped" in text for text in headings) == 1
    page.get_by_label("Audio").select_option("clean")
    page.wait_for_function("document.querySelector('.clip .strips').children.length === 2")


def test_a_click_on_a_second_plays_it(gallery: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(gallery)
    page.evaluate(RECORD)
    button = page.get_by_role("button", name="Play second 3").first
    button.click()
    page.wait_for_function("window.played.length === 1")
    second, source = page.evaluate("window.played[0]")
    assert second == 2
    assert source.endswith(".mp3")
    page.wait_for_function("document.querySelectorAll('.playing').length === 1")
    page.wait_for_function("document.querySelectorAll('.playing').length === 0")  # after one second
    assert page.get_by_role("button", name="Play second 5").count() >= 1


def test_clips_load_when_they_come_into_view(gallery: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(gallery, script=FAR_APART)
    page.locator(".strip canvas").first.wait_for()
    total = page.locator(".clip").count()
    filled = page.locator(".clip[data-filled]").count()
    assert filled < total
    page.locator(".clip").last.scroll_into_view_if_needed()
    page.locator(".clip").last.locator("canvas").wait_for()
    assert page.locator(".frames img").first.get_attribute("loading") == "lazy"
