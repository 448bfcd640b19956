"""Ablation tables for the HTML site."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.ablation.site_tables import site_tables
from avsbench_harness.leaderboard.site import build_site
from avsbench_harness.results.folder import read_results


def test_measured_tables_are_shown_with_bars(data: Path, tmp_path: Path) -> None:
    """COMBO's Table 6 prints 80.9 (all) and 81.7 (add) on S4 with ResNet-50."""
    results = read_results(data / "records")
    (table,) = site_tables(results)
    assert (table.name, table.source, table.metric) == ("combo/table6", "COMBO, Table 6", "J")
    rows = {row.name: row for row in table.rows}
    assert rows["add"].full
    assert (rows["all"].reported, rows["add"].reported) == (80.9, 81.7)
    assert rows["all"].difference is not None
    build_site(results, tmp_path, ablations=[table])
    page = (tmp_path / "ablations.html").read_text(encoding="utf-8")
    assert page.count('class="difference-bar"') == 1
    assert "Synthetic data." in page
    assert "not significant" in page


def test_without_records_the_page_names_the_command(tmp_path: Path) -> None:
    assert site_tables(read_results(tmp_path)) == []
    build_site(read_results(tmp_path), tmp_path / "site")
    assert "avsb ablate run" in (tmp_path / "site" / "ablations.html").read_text(encoding="utf-8")
