"""The demonstration: methods that train briefly on AVS-Mini, scored with their own and with swapped audio."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.data.avsbench.layout import Dataset
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import UsageError
from avsbench_harness.files import write_json
from avsbench_harness.launch.datasets import generated_dataset
from avsbench_harness.launch.defaults import MINI, MINI_BACKBONE
from avsbench_harness.launch.execute import execute
from avsbench_harness.launch.preflight import check_output
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.launch.robustness import measure_robustness
from avsbench_harness.leaderboard.markdown import write_page
from avsbench_harness.leaderboard.site import build_site
from avsbench_harness.results.folder import read_results
from avsbench_harness.results.record import Record
from avsbench_harness.results.robustness import RobustnessRecord
from avsbench_harness.robustness.baselines import baseline_scores
from avsbench_harness.robustness.conditions import SWAPPED
from avsbench_harness.scoring import Scores
from avsbench_harness.submission import read_solution
from avsbench_harness.tasks import MS3, get_task

logger = logging.getLogger(__name__)

#: The task: several objects per clip, of which some sound.
TASK = MS3

#: File in the folder of a demonstration; other folders that are not empty are refused.
MARKER = "demo.json"


@dataclass(frozen=True)
class DemoRun:
    """A method of the demonstration.

    Attributes:
        record: the record of its run.
        robustness: its scores with clean and with swapped audio.
    """

    record: Record
    robustness: RobustnessRecord


@dataclass(frozen=True)
class DemoResult:
    """Measurements of a demonstration, and the paths of its pages.

    Attributes:
        runs: the methods, in their order.
        baselines: canonical scores of the trivial predictions, see :mod:`.robustness.baselines`.
        leaderboard: the Markdown page.
        site: the index page of the HTML site.
        seconds: wall-clock time since the plan.
    """

    runs: Sequence[DemoRun]
    baselines: Mapping[str, Scores]
    leaderboard: Path
    site: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The values as JSON, with the paths as text."""
        return {
            "runs": [
                {name: getattr(one, name).model_dump(mode="json") for name in ("record", "robustness")}
                for one in self.runs
            ],
            "baselines": {name: scores.to_json() for name, scores in self.baselines.items()},
            "leaderboard": str(self.leaderboard),
            "site": str(self.site),
            "seconds": round(self.seconds, 1),
        }


def run_demo(recipes: Mapping[str, Mapping[str, int]], out: Path, device: str | None = None) -> DemoResult:
    """Train methods at preset ``mini`` on AVS-Mini, score them, and write the leaderboard and the site.

    AVS-Mini is composed in the cache if it is not there. Finished work is not repeated, and interrupted work
    is resumed.

    Args:
        recipes: the methods, each with its changes to the preset.
        out: folder for ``runs/``, ``submissions/``, ``results/`` and ``site/``.
        device: ``cpu``, ``cuda``, ``cuda:N``; defaults to CUDA if available.

    Raises:
        UsageError: ``out`` has content, which is not that of a demonstration.
        MissingDataError: the weights of the backbone are not installed; nothing has been composed.
        Interrupted: a signal was received; the state is saved.
    """
    started = time.monotonic()
    runs = plan_demo(recipes, out, device)
    write_json(out / MARKER, {"format": 1, "command": "avsb demo", "runs": [run.id for run in runs]})
    steps = len(runs) + 1
    done = []
    for number, run in enumerate(runs, start=1):
        logger.info(f"Step {number} of {steps}: {run.spec.method} (epochs: {run.spec.recipe.epochs}).")
        done.append(DemoRun(execute(run), measure_robustness(run, "test", [SWAPPED])))
    logger.info(f"Step {steps} of {steps}: leaderboard and site.")
    dataset = runs[0].dataset
    with read_solution(solution_file(dataset, "test")) as truth:
        baselines = baseline_scores(dataset, "test", truth)
    results = read_results(out / "results")
    known = {run.id: run.dataset for run in runs}
    site = build_site(results, out / "site", lambda record: known.get(record.run_id))
    return DemoResult(done, baselines, write_page(results), site, time.monotonic() - started)


def plan_demo(recipes: Mapping[str, Mapping[str, int]], out: Path, device: str | None = None) -> list[Run]:
    """Plan the runs of a demonstration, see :func:`run_demo`; composes AVS-Mini, and writes nothing else."""
    if out.exists() and not (out / MARKER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            f"{out} exists and was not written by `avsb demo`; pass another folder with --out, or remove it."
        )
    check_output(out)

    @functools.cache  # instead of open_data, which prefers a folder mini in the working directory
    def opened(task: str, data: Path | None, singles: bool) -> tuple[Dataset, str]:
        dataset = generated_dataset(MINI, get_task(task))
        return dataset, dataset.fingerprint()

    requests = (
        Request(
            method,
            MINI_BACKBONE,
            TASK.name,
            data=Path(MINI),
            preset=MINI,
            assignments=tuple(f"{key}={value}" for key, value in changes.items()),
            out=out,
            device=device,
        )
        for method, changes in recipes.items()
    )
    return [plan(request, opened=opened) for request in requests]
