"""The Markdown page, also byte by byte for the records in ``tests/fixtures/records``."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.leaderboard.export import to_json
from avsbench_harness.leaderboard.markdown import (
    REPORTED,
    render,
    stale_pages,
    to_markdown,
    write_leaderboard,
)
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import Results, read_results
from avsbench_harness.results.paired_bootstrap import PairedDifference
from avsbench_harness.results.record import CostEntry, TrainingEntry

from ..results.records import make_record, score_clips


def lines(page: str, start: str) -> list[str]:
    """The lines of the measured results that start with ``start``."""
    return [line for line in page.split(REPORTED)[0].splitlines() if line.startswith(start)]


def test_rows_are_ranked_and_linked_to_their_records() -> None:
    page = to_markdown([make_record("a", 0.7, method="catr"), make_record("b", 0.8)])
    rows = [line for line in lines(page, "| ") if "](" in line]
    assert rows == [
        "| 1 | combo (released) | pvt | full | 80.0 (79.0-81.0) | 90.0 | "
        "J 84.7, F 91.9 (COMBO Table 1) | 1 | n/a | n/a | n/a | n/a | 2026-01-02 | [s0](b.json) |",
        "| 2 | catr (released) | pvt | full | 70.0 (69.0-71.0) | 90.0 | "
        "J 81.4, F 89.6 (CATR Table 1); J 84.4, F 91.3 (CATR Table 1, supplementary labels); "
        "J 81.4, F 89.6 (COMBO Table 1) | 1 | n/a | n/a | n/a | n/a | 2026-01-02 | [s0](a.json) |",
    ]
    assert "Protocol `object/1`, ground truth `ffffffffffff`" in page


def test_seeds_form_one_row_with_mean_and_standard_deviation() -> None:
    page = to_markdown([make_record(f"r{seed}", 0.7 + 0.1 * seed, seed=seed) for seed in range(3)])
    (row,) = lines(page, "| 1 | combo")
    assert "| 80.0 ± 10.0 | 90.0 ± 0.0 |" in row
    assert "| 3 | n/a" in row
    assert "[s0](r0.json) [s1](r1.json) [s2](r2.json)" in row


def test_tables_by_ground_truth_protocol_task_and_synthetic_data() -> None:
    made = [
        make_record("a", 0.7),
        make_record("b", 0.7, data={"solution": "e" * 64}),
        make_record("c", 0.7, task="ms3"),
        make_record("d", 0.7, data={"synthetic": True, "name": "synthetic"}),
        make_record(
            "e", None, task="avss", protocol="semantic/1", metrics={"mIoU": 0.3, "F": 0.4, "mIoU_object": 0.2}
        ),
    ]
    page = to_markdown(made)
    assert len(lines(page, "## ")) == 5
    assert page.index("(semantic)") < page.index("# Synthetic benchmarks") < page.index(": synthetic, test")
    assert [table["synthetic"] for table in to_json(build_tables(made))] == [False] * 4 + [True]


def test_avs_mini_has_a_section_of_its_own() -> None:
    made = [
        make_record("a", 0.7),
        make_record("b", 0.6, data={"name": "AVS-Mini v1"}),
        make_record("c", 0.5, data={"name": "AVS-Mini v1 variant", "solution": "e" * 64}),
        make_record("d", 0.7, data={"synthetic": True, "name": "synthetic"}),
    ]
    page = to_markdown(made)
    heading = page.index("# AVS-Mini: real recordings, composed pictures\n\nAVS-Mini has recordings")
    assert page.index(": avsbench, test") < heading < page.index(": AVS-Mini v1, test")
    assert page.index(": AVS-Mini v1 variant, test") < page.index("# Synthetic benchmarks")
    assert "# AVS-Mini" not in to_markdown(made[:1])


def test_audio_gains_have_a_column_if_a_run_has_one() -> None:
    made = [make_record(f"r{seed}", 0.7, seed=seed) for seed in range(2)]
    made += [make_record("one", 0.6, method="catr"), make_record("none", 0.5, method="tpavi")]
    gains = {
        "r0": PairedDifference(0.1, (0.05, 0.15)),
        "r1": PairedDifference(0.2, None),
        "one": PairedDifference(-0.01, (-0.02, 0.005)),
    }
    page = to_markdown(made, Results(Path(), tuple(made), gains=gains))
    assert "| F | audio gain (J) | reported |" in page
    two, one, none = (line.split(" | ")[6] for line in lines(page, "| ") if "](" in line)
    assert (two, one) == ("15.0 ± 7.1", "-1.0 (-2.0 to 0.5)")
    assert none == "n/a (run avsb robustness)"
    assert "audio gain (J)" not in to_markdown(made)


def test_rows_with_missing_fields_are_shown() -> None:
    page = to_markdown(
        [make_record("a", None, variant=None, backbone=None, seed=None, spec=None, preset=None)]
    )
    (row,) = lines(page, "| 1 | combo")
    assert "| n/a (not stated) | submitted | n/a (not defined on this split) | 90.0 |" in row
    assert "[record](a.json)" in row


def test_text_of_records_is_escaped_in_cells() -> None:
    page = to_markdown([make_record("a", 0.5, method="x|y<script>", backbone="a\nb")])
    (row,) = lines(page, "| 1 | x")
    assert row.startswith(r"| 1 | x\|y\<script\> (released) | a b |")


def test_every_field_of_a_record_is_escaped() -> None:
    data = {"split": "te\n|st", "solution": "`<b>`"}
    evil = make_record("r.json) | <i>\n](x", 0.5, created="<b>|\n2026", data=data)
    page = to_markdown([evil]).split(REPORTED)[0]
    assert "te \\|st" in page
    assert "[s0](r.json%29%20%7C%20%3Ci%3E%0A%5D%28x.json)" in page
    assert "<b>" not in page.replace("\\<b\\>", "")
    assert "<i>" not in page


def test_control_characters_and_links_are_neutralised() -> None:
    method = "a\x1b]8;;evil\x07\u202e\u2028 http://evil www.evil me@evil " + "x" * 1000
    (row,) = lines(to_markdown([make_record("../../a", 0.5, method=method)]), "| 1 | a")
    assert row.isprintable()
    assert len(row) < 1000
    assert r"http\://evil www\.evil me\@evil" in row
    assert "](..%2F..%2Fa.json)" in row


def test_refused_files_are_listed_and_the_rest_is_shown(tmp_path: Path) -> None:
    made = score_clips(tmp_path, "a", 1)
    before = render(read_results(tmp_path))
    (tmp_path / "x|y.json").write_text('{"\x1b": NaN}')
    after = render(read_results(tmp_path))
    assert f"({made.run_id}.json)" in after
    assert set(before.splitlines()) < set(after.splitlines())
    assert r"- x\|y.json: unreadable: x\|y.json is not valid JSON" in after


def test_empty_page(tmp_path: Path) -> None:
    assert "create one with `avsb run`" in write_leaderboard(tmp_path).read_text()


def test_failed_runs_are_in_the_table_of_their_data() -> None:
    data = {"fingerprint": "d" * 64}
    failed = make_record(
        "b", None, method="catr", status="failed", reason="no <memory>", scores=[],
        data={**data, "solution": None},
    )  # fmt: skip
    page = to_markdown([make_record("a", 0.5, data=data), failed])
    (row,) = lines(page, "| n/a | catr")
    assert r"n/a (failed: no \<memory\>)" in row
    assert "Failed runs" not in page


def test_private_clips_and_optional_columns(tmp_path: Path) -> None:
    made = make_record("a", 0.5)
    private = made.scores[0].model_copy(update={"part": "private", "metrics": {"J": 0.4, "F": 0.3}})
    davis = made.scores[0].model_copy(update={"protocol": "davis", "metrics": {"J&F": 0.61}})
    page = to_markdown([made.model_copy(update={"scores": [*made.scores, private, davis]})])
    assert len(lines(page, "## ")) == 2
    assert "test, private clips" in page
    assert "| J&F (davis) |" in page
    assert "| 61.0 |" in page


def test_cost_and_speed_of_the_newest_run_are_shown() -> None:
    training = TrainingEntry(
        steps=1, selected_step=1, validations=[], seconds=1, weights_sha256="0", clips_per_second=3.25,
        memory_gib=1.04,
    )  # fmt: skip
    page = to_markdown(
        [make_record("a", 0.5, training=training, cost=CostEntry(parameters=7_500_000, gmacs=12.34))]
    )
    assert "| 1 | 7.5 | 12.3 | 3.25 | 1.0 |" in page


def test_a_page_is_stale_when_the_records_change(tmp_path: Path) -> None:
    assert stale_pages(tmp_path) == ["LEADERBOARD.md"]
    write_leaderboard(tmp_path)
    assert stale_pages(tmp_path) == []
    score_clips(tmp_path, "a", 1)
    assert stale_pages(tmp_path) == ["LEADERBOARD.md"]
    write_leaderboard(tmp_path)
    assert write_leaderboard(tmp_path).read_text() == render(read_results(tmp_path))


def test_one_backbone(tmp_path: Path) -> None:
    one = score_clips(tmp_path, "a", 1, backbone="pvt")
    two = score_clips(tmp_path, "b", 1, backbone="r50")
    page = render(read_results(tmp_path), "r50")
    assert f"({two.run_id}.json)" in page
    assert f"({one.run_id}.json)" not in page
    assert "| combo | r50 | 81.7 | 90.1 |" in page
    assert "| combo | pvt |" not in page
    with pytest.raises(UsageError, match=r"Unknown backbone of the records 'r5'. Did you mean 'r50'"):
        render(read_results(tmp_path), "r5")


def test_the_committed_page_is_up_to_date() -> None:
    folder = Path(__file__).parents[2] / "results"
    assert (folder / "LEADERBOARD.md").read_text(encoding="utf-8") == render(read_results(folder))


def test_golden_page(data: Path) -> None:
    assert render(read_results(data / "records")) == (data / "records" / "LEADERBOARD.md").read_text(
        encoding="utf-8"
    )


def test_the_order_of_records_does_not_matter(data: Path) -> None:
    results = read_results(data / "records")
    assert to_markdown(results.records[::-1], results) == to_markdown(results.records, results)
