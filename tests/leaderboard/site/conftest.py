"""A site of two short runs, a failed run and a record with malicious text, and a browser to open it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from ...conftest import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; tests that use it are marked ``browser``."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page from the file system; errors of scripts and requests to other hosts fail the test."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def call(
        path: Path, fragment: str = "", *, width: int = 1280, scheme: Any = "light", script: str = ""
    ) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.add_init_script(script)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:200]}"))
        page.on("request", lambda request: _check_local(request.url, faults))
        page.goto(path.as_uri() + fragment)
        return page

    yield call
    for context in contexts:
        context.close()
    assert not faults


def _check_local(url: str, faults: list[str]) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        faults.append(f"request to another host: {url[:200]}")
