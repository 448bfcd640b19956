"""A site of two short runs, a failed run and a record with malicious text."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.engine.spec_hash import spec_hash
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.records import record_failure
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.launch.resolve_solution import data_of
from avsbench_harness.leaderboard.site import build_site
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.record import read_record


@pytest.fixture(scope="session")
def site(tiny: str, real_s4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; one of the runs has predictions under a second audio condition."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVSB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        request = Request(
            method=tiny, backbone="r50", data=real_s4, preset="smoke", out=out, device="cpu", workers=0
        )
        for seed, width in ((0, 8), (0, 2)):
            run = plan(dataclasses.replace(request, seed=seed, assignments=[f"options.width={width}"]))
            execute(run)
        clean = out / "submissions" / f"{run.id}.npz"
        _darken(clean, clean.with_name(f"{run.id}-swapped.npz"))
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


def _darken(clean: Path, target: Path) -> None:
    """Write a submission whose masks are empty."""
    with np.load(clean) as arrays:
        np.savez_compressed(
            target, **{name: array if name == "header" else array * 0 for name, array in arrays.items()}
        )
