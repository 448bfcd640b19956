"""All pages in headless Chromium: layout, contrast, names for screen readers, and no foreign request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
CONTRAST, NAMES = ((HERE / name).read_text(encoding="utf-8") for name in ("contrast.js", "names.js"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_are_readable(site: Path, open_page: Callable[..., Any], width: int, scheme: str) -> None:
    pages = [*site.glob("*.html"), *(site / "runs").glob("*.html"), *(site / "clips").glob("*.html")]
    assert len(pages) == 9
    for path in pages:
        page = open_page(path, width=width, scheme=scheme)
        if path.parent.name == "clips":
            page.locator(".strip canvas").first.wait_for()
        elif path.name == "compare.html":
            page.locator("#comparison h2").first.wait_for()
        for button in page.locator(".unfold:visible").all()[:3]:
            button.click()
        assert page.evaluate(CONTRAST) == [], path.name
        assert page.evaluate(NAMES) == [], path.name
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0, f"{path.name} is too wide"
        page.close()


def test_the_colour_scheme_can_be_switched(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(site / "index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.get_by_role("button", name="Colour scheme: light; switch").click()
    assert page.evaluate(colour) != before
    page.get_by_role("button", name="Colour scheme: dark; switch").click()
    assert page.evaluate(colour) == before
