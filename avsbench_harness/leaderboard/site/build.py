"""Build the site from a results folder.

Tables and scores come from the records. Training logs, submissions and the data set add curves and clips; a
page names each of these inputs that is not available.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avsbench_harness.files import atomic_write, sha256_json
from avsbench_harness.leaderboard.site.ablation_page import AblationTable, ablation_values
from avsbench_harness.leaderboard.site.gallery import Member, gallery_page, write_galleries
from avsbench_harness.leaderboard.site.index_page import index_values
from avsbench_harness.leaderboard.site.metrics import GLOSSARY
from avsbench_harness.leaderboard.site.pages import Pages, page_name, run_key
from avsbench_harness.leaderboard.site.run_data import run_data, run_summary
from avsbench_harness.leaderboard.site.run_inputs import FindData, RunInputs
from avsbench_harness.leaderboard.site.run_page import run_values
from avsbench_harness.leaderboard.tables import build_tables
from avsbench_harness.results.folder import Results
from avsbench_harness.results.record import Record, clips_file

logger = logging.getLogger(__name__)


def build_site(
    results: Results,
    site: Path,
    find_data: FindData = lambda record: None,
    ablations: Sequence[AblationTable] = (),
) -> Path:
    """Write the pages that changed; return the index page.

    A run page names its inputs by a hash, and is kept while its inputs are the same. Pages of runs that have
    no valid record any more are removed.

    Args:
        results: content of the folder with the records. Training logs are read from ``runs/`` next to it,
            predictions from ``submissions/``.
        site: folder to write.
        find_data: finds the data set of a record, for the galleries.
        ablations: ablation tables.
    """
    pages = Pages(site)
    pages.write_static()
    members = [Member(record, RunInputs.find(record, results, find_data)) for record in results.records]
    notes = write_galleries(pages, members)
    in_gallery = {run_id for run_id, note in notes.items() if not note}
    for member in members:
        _write_run(pages, member, notes.get(member.record.run_id, ""), member.record.run_id in in_gallery)
    done = [member.record for member in members if member.record.scores]
    pages.write_data(Path("data") / "runs.js", "receiveRuns", [run_summary(record) for record in done])
    pages.render(Path("compare.html"), "compare.html", title="Compare runs")
    pages.render(Path("glossary.html"), "glossary.html", title="Metrics", glossary=GLOSSARY)
    pages.render(
        Path("ablations.html"), "ablations.html", title="Ablations", **ablation_values(list(ablations))
    )
    galleries = {
        record.data.solution or "": gallery_page(record.data.solution or "").as_posix()
        for record in done
        if record.run_id in in_gallery
    }
    values = index_values(build_tables(results.records, results), results, galleries)
    pages.remove_others()
    pages.render(Path("index.html"), "index.html", title="Leaderboard", size=_size(site), **values)
    logger.info(f"The site has {_size(site)}.")
    return site / "index.html"


def _write_run(pages: Pages, member: Member, note: str, in_gallery: bool) -> None:
    """Write the page and the data of one run, and copies of its record and its per-clip table."""
    record, inputs = member.record, member.inputs
    key, path = run_key(record), Path("runs") / page_name(record)
    gallery = gallery_page(record.data.solution or "") if in_gallery else None
    digest = sha256_json([pages.version, inputs.digest, note, in_gallery])
    data = Path("data") / f"{key}.js"
    copies = _copies(record, inputs.results.folder)
    if pages.is_current(path, digest) and (not record.scores or (pages.site / data).is_file()):
        pages.written.update({data, *(target for target, _ in copies)})
        return
    for target, source in copies:
        pages.written.add(target)
        with atomic_write(pages.site / target) as file:
            file.write(source.read_bytes())
    if record.scores:
        name = gallery.stem if gallery else ""
        pages.write_data(data, "receiveRun", run_data(record, inputs, name))
    values: dict[str, Any] = run_values(record, inputs)
    values["missing"] += [note] if note else []
    pages.render(
        path,
        "run.html",
        title=record.run_id,
        inputs=digest,
        key=key,
        copies=[target.as_posix() for target, _ in copies],
        gallery=gallery.as_posix() if gallery else "",
        **values,
    )


def _copies(record: Record, folder: Path) -> list[tuple[Path, Path]]:
    """Copies of a run's record and per-clip table in the site, with the files."""
    source, key = folder / f"{record.run_id}.json", run_key(record)
    files = [(Path("data") / f"{key}.json", source), (Path("data") / f"{key}.csv", clips_file(source))]
    return [(target, path) for target, path in files if path.is_file()]


def _size(site: Path) -> str:
    """Number and total size of the site's files, without the index page, which states it."""
    sizes = [
        path.stat().st_size for path in site.rglob("*") if path.is_file() and path != site / "index.html"
    ]
    return f"{len(sizes) + 1} files, {sum(sizes) / 2**20:.1f} MiB"
