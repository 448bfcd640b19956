"""Leaderboard tables as CSV and LaTeX."""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from avsbench_harness.ablation.definition import get_ablation
from avsbench_harness.ablation.export import to_markdown
from avsbench_harness.ablation.tables import measured_tables
from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.files import sha256_json
from avsbench_harness.leaderboard.export import to_csv, to_latex
from avsbench_harness.leaderboard.markdown import render
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import read_results

from ..results.records import score_clips


def test_csv_and_latex(tmp_path: Path) -> None:
    score_clips(tmp_path, "a", 1, method="a_b&c")
    made = build_tables(read_results(tmp_path).records, read_results(tmp_path))
    frame = pd.read_csv(io.StringIO(to_csv(made)))
    assert list(frame["metric"]) == ["J", "F"]
    assert frame["mean"][0] == pytest.approx(39 / 40)
    latex = to_latex(made)
    assert r"1 & a\_b\&c (released) & pvt & full (preset not available here) & 97.5 & 98.9 \\" in latex
    assert latex.count(r"\begin{tabular}{rlllrr}") == 1


def test_text_of_others_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    for number, name in enumerate(("=HYPERLINK(1)", "+1", "-1", "@SUM", "plain-2")):
        score_clips(tmp_path, f"r{number}", 1, method=name)
    found = read_results(tmp_path)
    frame = pd.read_csv(io.StringIO(to_csv(build_tables(found.records, found))))
    assert set(frame["method"]) == {"'=HYPERLINK(1)", "'+1", "'-1", "'@SUM", "plain-2"}


#: Values of wrong types, out of range, or with characters that steer a terminal or a page.
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 1e308, "", "x", "\x1b[31m\x07", "<script>alert(1)</script>", "../../x",
    "a\n\n# x", "|a|", "[a](javascript:x)", "\u202e", "A" * 5000, "nan", [], {}, [None], {"": None},
    {"a": {"b": [1, {}]}}, "smoke", "paper", "avss", "=1+1",
)  # fmt: skip


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*path, key)
        yield from places(inside, *path, key)


def forged(values: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A record with one value replaced, whose fields and id agree with its spec."""
    made = copy.deepcopy(values)
    top = draw.choice([*made, "spec", "spec", "spec"])
    *path, last = draw.choice([path for path in places(made) if path[0] == top])
    place: Any = made
    for key in path:
        place = place[key]
    place[last] = draw.choice(HOSTILE)
    if isinstance(made["spec"], dict):
        shared = ("method", "variant", "backbone", "task", "preset", "seed")
        made |= {name: made["spec"].get(name) for name in shared}
        with suppress(AttributeError):  # parts of the spec that are no mappings have no hash
            made["spec_hash"] = spec_hash(made["spec"])
        made["run_id"] = f"x-{str(made['spec_hash'])[:10]}"
    return made


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_forged_values_never_stop_a_table(data: Path, tmp_path: Path, count: int) -> None:
    """Records with wrong values are refused or shown; the genuine ones are always shown."""
    draw = random.Random(count)
    genuine, *others = sorted((data / "records").glob("s4-*.json"))
    for _ in range(0, count, 5):
        results = tmp_path / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        for source in (genuine, *(draw.choice(others) for _ in range(5))):
            values = json.loads(source.read_text())
            values = values if source is genuine else forged(values, draw)
            name = source.stem if source is genuine else f"x-{sha256_json(values)[:10]}"
            if isinstance(values["spec_hash"], str) and values["spec_hash"].isalnum():
                name = source.stem if source is genuine else f"x-{values['spec_hash'][:10]}"
            (results / f"{name}.json").write_text(json.dumps(values))
            table = source.with_suffix(".clips.csv")
            if table.is_file():
                shutil.copy(table, results / f"{name}.clips.csv")
        found = read_results(results)
        assert genuine.stem in {record.run_id for record in found.records}
        tables = build_tables(found.records, found)
        pages = [render(found), to_csv(tables), to_latex(tables)]
        for method, ablation in map(get_ablation, ("combo/table6", "avsegformer/table2a")):
            made = measured_tables(method, ablation, found.records, results)
            pages.append(to_markdown("x", ablation, made))
        for page in pages:
            assert all(mark.isprintable() or mark == "\n" for mark in page)
            assert "\n# x" not in page
