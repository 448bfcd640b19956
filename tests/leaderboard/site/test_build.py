"""The static HTML site: links, escaping, reproducibility and missing inputs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.leaderboard.site import build_site, page_name
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.record import read_record
from avsbench_harness.tasks import get_task

from ...results.records import score_clips
from .pages import links


def test_links_are_local_and_exist(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) == 4 + 4 + 1  # fixed pages, runs, gallery
    for page in pages:
        for link in links(page):
            if link == "data:," or link.startswith("#"):
                continue
            assert not re.match(r"[a-z]+:|//", link), f"{page.name} links to another host: {link}"
            path = page.parent / link.partition("#")[0]
            assert path.is_file(), f"{page.name} has the broken link {link}"
    code = "".join(path.read_text() for path in [*site.glob("*.js"), site / "site.css"])
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import|innerHTML|fetch\(|eval", code)


def test_text_of_records_is_escaped(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert "<script>alert" not in index
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in index
    assert "n/a (failed: out of &lt;b&gt;memory&lt;/b&gt;)" in index
    for data in site.rglob("*.js"):
        assert "<script" not in data.read_text().lower(), data
    assert any("\\u003cscript>alert(1)" in path.read_text() for path in (site / "data").glob("*.js"))


def test_refused_files_are_listed(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert "<h2>Refused files</h2>" in index
    assert "<li>refused.json: unreadable: Unknown key &#39;&lt;b&gt;&#39; in refused.json." in index


def test_control_characters_and_long_texts_are_neutralised(site: Path) -> None:
    for page in (site / "index.html", *(site / "runs").glob("*.html"), *site.rglob("*.js")):
        text = page.read_text()
        assert "\x1b" not in text
        assert "\\u001b" not in text
        assert "x" * 20_001 not in text


def test_run_pages_list_the_changes_to_the_preset(tmp_path: Path) -> None:
    made = score_clips(tmp_path, "a", 1, spec={"recipe": {"optimizer": {"lr": 0.02}, "batch_size": 3}})
    site = tmp_path / "site"
    index = build_site(read_results(tmp_path), site).read_text()
    assert "full (changed: batch_size=3, optimizer.lr=0.02)" in index
    page = (site / "runs" / page_name(made)).read_text()
    assert "<li><code>optimizer.lr=0.02</code></li>" in page


def test_only_changed_pages_are_written(tmp_path: Path) -> None:
    one, two = (score_clips(tmp_path, name, 1, seed=seed) for seed, name in enumerate("ab"))
    site = tmp_path / "site"
    build_site(read_results(tmp_path), site)
    files = {path: path.stat().st_ino for path in site.rglob("*") if path.is_file()}
    build_site(read_results(tmp_path), site)
    assert {path: path.stat().st_ino for path in files} == files

    (tmp_path / f"{two.run_id}.json").write_text("{}")
    data = next((site / "data").glob(f"{page_name(one)[:16]}.js"))
    data.unlink()
    (site / "runs" / "mine.html").write_text("kept")
    build_site(read_results(tmp_path), site)
    assert data.is_file()
    assert not list(site.glob(f"*/{page_name(two)[:16]}.*"))
    assert (site / "runs" / page_name(one)).is_file()
    assert (site / "runs" / "mine.html").is_file()
    assert "lacks the key" in (site / "index.html").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 3, "lo', None),
        ("[" * 100_000, None),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), None),
        ('{"loss": 1}', "the training log is damaged"),
        ('{"step": 1, "loss": [1, 2]}', "the training log is damaged"),
        ('{"step": 1, "val": 3}', "the training log is damaged"),
    ],
)
def test_damaged_training_logs(tmp_path: Path, line: str, message: str | None) -> None:
    results = tmp_path / "results"
    made = score_clips(results, "a", 1)
    log = tmp_path / "runs" / made.run_id / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(f'{{"step": 1, "loss": 0.5}}\n{line}\n', encoding="latin-1")
    build_site(read_results(results), tmp_path / "site")
    page = (tmp_path / "site" / "runs" / page_name(made)).read_text()
    assert ("Loss and its mean" in page) == (message is None)
    assert message is None or message in page


def test_run_page_has_charts_and_links(site: Path) -> None:
    records = [read_record(path) for path in (site.parent / "results").glob("s4-tiny-*.json")]
    done = next(record for record in records if record.status == "done")
    page = (site / "runs" / page_name(done)).read_text()
    for words in (
        "Loss and its mean",
        "J on the validation split",
        "Learning rate of the schedule",
        "J per clip",
        "F over the 255 thresholds",
        "best threshold of every clip (F)",
        ">Clips</a>",
        "Record (JSON)",
        "Scores per clip (CSV)",
    ):
        assert words in page, words
    copy = site / "data" / f"{page_name(done)[:16]}.json"
    assert copy.read_bytes() == (site.parent / "results" / f"{done.run_id}.json").read_bytes()
    failed = next(record for record in records if record.status == "failed")
    assert "n/a (failed: out of &lt;b&gt;" in (site / "runs" / page_name(failed)).read_text()


def test_missing_inputs_are_named(site: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(site.parent / "results", results)
    build_site(read_results(results), tmp_path / "site")
    pages = [page.read_text() for page in (tmp_path / "site" / "runs").glob("*.html")]
    assert sum("n/a: training curves (the training log is not available)" in page for page in pages) == 3
    assert sum("n/a: threshold curve (the submission" in page for page in pages) == 3
    assert sum("n/a: clips (the submission" in page for page in pages) == 3


def test_pages_are_reproducible(site: Path, tmp_path: Path, real_s4: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(site.parent / "results", results)
    shutil.copytree(site.parent / "submissions", tmp_path / "submissions")
    dataset = open_dataset(real_s4, get_task("s4"))
    for folder in ("one", "two"):
        build_site(read_results(results), tmp_path / folder, lambda record: dataset)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert any(path.suffix == ".mp3" for path in files)
    assert any(path.suffix == ".webp" for path in files)
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_number_of_classes_is_not_a_percentage(data: Path, tmp_path: Path) -> None:
    build_site(read_results(data / "records"), tmp_path / "site")
    record = read_record(next((data / "records").glob("avss-combo*s0*.json")))
    page = (tmp_path / "site" / "runs" / page_name(record)).read_text(encoding="utf-8")
    assert '<td class="num">5 classes</td>' in page
    assert "<h2>IoU per class</h2>" in page


def test_plots_from_the_command_line(avsb, tmp_path: Path, site: Path, real_s4: Path) -> None:
    submission = next((site.parent / "submissions").glob("s4-tiny-*.npz"))
    clip = open_dataset(real_s4, get_task("s4")).clips("test")[0].id
    data = ("--data", real_s4)
    curve, image = tmp_path / "curve.pdf", tmp_path / "clip.png"
    assert avsb("plot", "thresholds", submission, "--out", curve, *data).code == 0
    assert avsb("plot", "clips", submission, "--clip", clip, "--out", image, *data).code == 0
    assert curve.read_bytes().startswith(b"%PDF")
    assert image.read_bytes().startswith(b"\x89PNG")
    run = next((site.parent / "runs").glob("s4-tiny-*"))
    assert avsb("plot", "curves", run, "--out", tmp_path / "log.svg").code == 0
    none = avsb("plot", "curves", tmp_path, "--out", tmp_path / "none.svg")
    assert none.code == 4
    assert "There is no training log" in none.err
    none = avsb("plot", "robustness", "--results", site.parent / "results", "--out", tmp_path / "r.pdf")
    assert none.code == 4
    assert "create them with `avsb robustness`" in none.err
    wrong = avsb("plot", "clips", submission, "--clip", "none", "--out", image, *data)
    assert wrong.code == 2
    assert "Unknown clip" in wrong.err
