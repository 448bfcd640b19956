"""The committed health reports cover every method."""

from __future__ import annotations

from pathlib import Path

import avsbench_harness as avsb

DOCS = Path(__file__).parents[2] / "docs"


def test_every_method_has_a_report_that_the_overview_names() -> None:
    overview = (DOCS / "training-health.md").read_text(encoding="utf-8")
    for name in avsb.methods():
        page = (DOCS / "training-health" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# Training health: {name}\n")
        assert f"(training-health/{name}.md)" in overview
        warnings = page.split("## Warnings\n")[1].count("\n- ")
        assert f"| [{name}](training-health/{name}.md) | {warnings} |" in overview
