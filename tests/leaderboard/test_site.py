"""The static HTML site, and plots from the command line."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.records import record_failure
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.launch.resolve_solution import data_of
from avsbench_harness.leaderboard.site import build_site, page_name
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.record import read_record
from avsbench_harness.tasks import get_task

from ..results.records import score_clips

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Links(HTMLParser):
    """The links and resources of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "value") and value]


def links(path: Path) -> list[str]:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


@pytest.fixture(scope="module")
def site(tiny: str, real_s4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of two short runs, a failed run and a record with malicious text."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVSB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        request = Request(
            method=tiny, backbone="r50", data=real_s4, preset="smoke", out=out, device="cpu", workers=0
        )
        for seed, width in ((0, 8), (0, 2)):
            run = plan(dataclasses.replace(request, seed=seed, assignments=[f"options.width={width}"]))
            execute(run)
        record_failure(plan(dataclasses.replace(request, seed=7)), "out of <b>memory</b>")
        source = read_record(run.record_file)
        assert source.spec is not None
        method = "<script>alert(1)</script>|\n\x1b[31m" + "x" * 30_000
        spec = {**source.spec, "method": method}
        digest = spec_hash(spec)
        name = f"evil-{digest[:10]}"
        evil = source.model_copy(update={
            "run_id": name, "method": method, "spec": spec, "spec_hash": digest,
            "created": f"{source.created[:4]}-01-01T00:00:00Z",
        })  # fmt: skip
        (out / "results" / f"{name}.json").write_text(evil.model_dump_json())
        shutil.copy(run.record_file.with_suffix(".clips.csv"), out / "results" / f"{name}.clips.csv")
        (out / "results" / "refused.json").write_text('{"<b>": 1}')
        build_site(read_results(out / "results"), out / "site", lambda record: data_of(record, real_s4))
    return out / "site"


def test_links_are_local_and_exist(site: Path) -> None:
    pages = [*site.glob("*.html"), *(site / "runs").glob("*.html")]
    assert len(pages) == 2 + 4
    for page in pages:
        for link in links(page):
            assert not re.match(r"[a-z]+:|//", link), f"{page.name} links to another host: {link}"
            base = site if link.startswith("runs/") else page.parent
            assert (base / link).is_file(), f"{page.name} has the broken link {link}"
    assert not re.search(
        r"https?:|url\(|@import", (site / "site.css").read_text() + (site / "site.js").read_text()
    )


def test_text_of_records_is_escaped(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert "<script>alert" not in index
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in index
    assert "n/a (failed: out of &lt;b&gt;memory&lt;/b&gt;)" in index


def test_refused_files_are_listed(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert "<h1>Refused files</h1>" in index
    assert "<li>refused.json: unreadable: Unknown key &#39;&lt;b&gt;&#39; in refused.json." in index


def test_control_characters_and_long_texts_are_neutralised(site: Path) -> None:
    for page in (site / "index.html", *(site / "runs").glob("*.html")):
        text = page.read_text()
        assert "\x1b" not in text
        assert "x" * 20_001 not in text
    assert "x" * 401 not in (site / "index.html").read_text()


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
    page = site / "runs" / page_name(one)
    plot = next(page.parent / link for link in links(page) if link.endswith(".png"))
    plot.unlink()
    build_site(read_results(tmp_path), site)
    assert plot.is_file()
    assert not (site / "runs" / page_name(two)).exists()
    assert (site / "runs" / page_name(one)).is_file()
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
    assert ("Loss and validation" in page) == (message is None)
    assert message is None or message in page


def test_run_page_has_plots_and_clips(site: Path) -> None:
    records = [read_record(path) for path in (site.parent / "results").glob("s4-tiny-*.json")]
    done = next(record for record in records if record.status == "done")
    page = (site / "runs" / page_name(done)).read_text()
    for words in ("Loss and validation", "J per clip", "F over the 255 thresholds", "best: ", "worst: ",
                  "median: ", "disagreement: ", "<audio"):  # fmt: skip
        assert words in page, words
    failed = next(record for record in records if record.status == "failed")
    assert "n/a (failed: out of &lt;b&gt;" in (site / "runs" / page_name(failed)).read_text()


def test_missing_inputs_are_named(site: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(site.parent / "results", results)
    build_site(read_results(results), tmp_path / "site")
    pages = [page.read_text() for page in (tmp_path / "site" / "runs").glob("*.html")]
    assert sum("n/a: training curves (the training log is not available)" in page for page in pages) == 3
    assert sum("n/a: threshold curve and clips" in page for page in pages) == 3


def test_pages_are_reproducible(site: Path, tmp_path: Path, real_s4: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(site.parent / "results", results)
    for folder in ("one", "two"):
        build_site(read_results(results), tmp_path / folder)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


SCRIPT = """
<script>
addEventListener("load", async () => {
  const frame = document.createElement("iframe");
  const report = {};
  const load = (page) => new Promise((done) => { frame.onload = done; frame.src = page; });
  document.body.append(frame);
  await load("index.html");
  const table = frame.contentDocument.querySelector("table.sortable");
  const head = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("J "));
  const values = () => [...table.tBodies[0].rows].map((row) => row.cells[head]?.dataset.sort)
    .filter((value) => value !== undefined).map(parseFloat);
  table.tHead.rows[0].cells[head].click();
  report.up = values();
  table.tHead.rows[0].cells[head].click();
  report.down = values();
  const dates = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("date"));
  const date = (row) => row.cells[dates]?.textContent;
  table.tHead.rows[0].cells[dates].click();
  report.dates = [...table.tBodies[0].rows].map(date).filter((text) => text !== undefined);
  const choice = frame.contentDocument.getElementById("backbone");
  choice.value = "r50";
  choice.dispatchEvent(new Event("change"));
  const rows = [...frame.contentDocument.querySelectorAll("tr[data-backbone]")];
  report.hidden = rows.filter((row) => row.hidden).length;
  await load("RUN");
  const images = [...frame.contentDocument.images];
  report.images = images.length;
  report.loaded = images.filter((image) => image.naturalWidth > 0).length;
  await load("compare.html");
  const sides = [...frame.contentDocument.querySelectorAll("iframe")];
  report.sides = sides.map((side) => side.src.split("/").pop());
  document.title = "done";
  document.body.innerHTML = "<pre id=report>" + JSON.stringify(report) + "</pre>";
});
</script><body></body>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian package chromium)")
def test_sorting_filter_and_images_in_a_browser(site: Path, tmp_path: Path) -> None:
    import json

    records = [read_record(path) for path in (site.parent / "results").glob("s4-tiny-*.json")]
    done = next(record for record in records if record.status == "done")
    (site / "driver.html").write_text("<!doctype html>" + SCRIPT.replace("RUN", f"runs/{page_name(done)}"))
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom",
        (site / "driver.html").as_uri(),
    ]  # fmt: skip
    try:
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        (site / "driver.html").unlink()
    found = re.search(r'<pre id="report">(.*?)</pre>', page)
    assert found, page[-2000:]
    report = json.loads(found[1])
    assert len(report["up"]) == 3
    assert report["up"] == sorted(report["up"])
    assert report["down"] == report["up"][::-1]
    assert report["dates"] == sorted(report["dates"])
    assert report["dates"][0].endswith("-01-01")
    assert report["hidden"] > 0  # reported rows with other backbones
    assert report["images"] > 6
    assert report["loaded"] == report["images"]
    assert len(report["sides"]) == 2
    assert all(side.endswith(".html") for side in report["sides"])


def test_number_of_classes_is_not_a_percentage(data: Path, tmp_path: Path) -> None:
    build_site(read_results(data / "records"), tmp_path / "site")
    page = (
        tmp_path
        / "site"
        / "runs"
        / page_name(read_record(next((data / "records").glob("avss-combo*s0*.json"))))
    )
    assert "<td>classes_seen</td><td>5 classes</td>" in page.read_text(encoding="utf-8")


def test_plots_from_the_command_line(avsb, tmp_path: Path, site: Path, real_s4: Path) -> None:
    submission = next((site.parent / "submissions").glob("s4-tiny-*.npz"))
    clip = open_dataset(real_s4, get_task("s4")).clips("test")[0].id
    data = ("--data", real_s4)
    curve, image = tmp_path / "curve.pdf", tmp_path / "clip.png"
    assert avsb("plot", "thresholds", submission, "--out", curve, *data).code == 0
    assert avsb("plot", "clips", submission, "--clip", clip, "--out", image, *data).code == 0
    assert curve.read_bytes().startswith(b"%PDF")
    assert image.read_bytes().startswith(b"\x89PNG")
    wrong = avsb("plot", "clips", submission, "--clip", "none", "--out", image, *data)
    assert wrong.code == 2
    assert "Unknown clip" in wrong.err
