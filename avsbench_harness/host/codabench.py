"""A Codabench competition bundle: ``competition.yaml`` (version 2), pages, programs and data in one zip.

Keys: docs.codabench.org, "Competition YAML Structure". The phases of the competition share one task that
scores the public clips. A last phase, to which the platform migrates the submissions, scores the private
ones.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import yaml
from PIL import Image, ImageDraw

from avsbench_harness.files import atomic_write, write_json, write_text
from avsbench_harness.host import codabench_score
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import Definition
from avsbench_harness.host.texts import format_text, quick_start, rules_text
from avsbench_harness.submission import read_solution

#: Command of the scoring program, with the folders of the platform's container.
COMMAND = "python3 /app/program/score.py /app/input /app/output"

_RULES = {"best": "Force_Best", "last": "Force_Last", "selected": "Add_And_Delete_Multiple"}
_PRIVATE = "Private leaderboard"
_DATE = "%Y-%m-%d %H:%M:%S"


def write_codabench(challenge: Challenge, out: Path, docker_image: str) -> None:
    """Write the bundle as a zip.

    Args:
        challenge: the competition.
        out: the zip file.
        docker_image: an image with Python and avsbench-harness, in which the platform scores.
    """
    definition = challenge.definition
    newest = challenge.snapshot().versions[-1].number
    solution = challenge.solution_of(newest)
    with read_solution(solution) as truth:
        fingerprint, clips = truth.fingerprint, len(truth.shapes)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_text(
            root / "competition.yaml",
            yaml.safe_dump(competition(definition, docker_image), sort_keys=False, allow_unicode=True),
        )
        _logo(root / "logo.png")
        pages = {
            "overview.md": quick_start(definition, fingerprint),
            "format.md": format_text(definition, fingerprint, clips),
            "rules.md": rules_text(definition),
        }
        for name, text in pages.items():
            write_text(root / "pages" / name, text)
        program = Path(codabench_score.__file__).read_text(encoding="utf-8")
        write_text(root / "scoring_program" / "score.py", program)
        write_text(root / "scoring_program" / "metadata.yaml", f"command: {COMMAND}\n")
        for part in ("public", "private"):
            folder = root / f"reference_{part}"
            folder.mkdir()
            shutil.copyfile(solution, folder / "solution.npz")
            values = {"part": part, "protocol": definition.protocol, "metrics": list(definition.metrics)}
            write_json(folder / "part.json", values)
        for name in ("starting_kit", "sample"):
            (root / name).mkdir()
            shutil.copyfile(challenge.sample, root / name / "sample_submission.npz")
        for name in ("format.md", "rules.md"):
            write_text(root / "starting_kit" / name, pages[name])
        with atomic_write(out) as file:
            _zip(root, file)


def competition(definition: Definition, docker_image: str) -> dict[str, Any]:
    """The content of ``competition.yaml``."""
    return {
        "version": 2,
        "title": definition.title,
        "description": definition.description.strip() or definition.title,
        "image": "logo.png",
        "terms": "pages/rules.md",
        "docker_image": docker_image,
        "registration_auto_approve": False,
        "make_programs_available": True,
        "make_input_data_available": False,
        "enable_detailed_results": False,
        "pages": [
            {"title": "Overview", "file": "pages/overview.md"},
            {"title": "Format", "file": "pages/format.md"},
            {"title": "Rules", "file": "pages/rules.md"},
        ],
        "tasks": [
            {
                "index": index,
                "name": f"{definition.title}: {part} clips",
                "description": f"Scores of the {part} clips.",
                "reference_data": f"reference_{part}",
                "scoring_program": "scoring_program",
            }
            for index, part in enumerate(("public", "private"))
        ],
        "solutions": [{"index": 0, "path": "sample", "tasks": [0, 1]}],
        "phases": _phases(definition),
        "fact_sheet": {
            name: {
                "key": name,
                "type": "text",
                "title": name,
                "selection": "",
                "is_required": "true",
                "is_on_leaderboard": "false",
            }
            for name in definition.required
        },
        "leaderboards": [
            {
                "title": "Results",
                "key": "main",
                "submission_rule": _RULES[definition.counts],
                "columns": [_column(definition, index) for index in range(len(definition.metrics))],
            }
        ],
    }


def _phases(definition: Definition) -> list[dict[str, Any]]:
    limits = definition.limits
    common = {
        "max_submissions_per_day": limits.per_day,
        "max_submissions": limits.total,
        "execution_time_limit": limits.seconds,
        "hide_output": False,
        "hide_prediction_output": True,
        "hide_score_output": True,
        "accepts_only_result_submissions": True,
        "starting_kit": "starting_kit",
    }
    phases = [
        {
            "index": index,
            "name": phase.name,
            "description": f"Scores of the public clips, until {phase.end:%Y-%m-%d %H:%M} UTC.",
            "start": phase.start.strftime(_DATE),
            "end": phase.end.strftime(_DATE),
            **common,
            "tasks": [0],
        }
        for index, phase in enumerate(definition.phases)
    ]
    phases.append(
        {
            "index": len(phases),
            "name": _PRIVATE,
            "description": "Scores of the private clips of the submissions of the last phase.",
            "start": (definition.end + timedelta(seconds=1)).strftime(_DATE),
            "auto_migrate_to_this_phase": True,
            **common,
            "max_submissions_per_day": 1,
            "max_submissions": 1,
            "tasks": [1],
        }
    )
    return phases


def _column(definition: Definition, index: int) -> dict[str, Any]:
    metric = definition.metrics[index]
    return {
        "title": metric,
        "key": metric,
        "index": index,
        "sorting": "desc" if definition.higher_is_better or index else "asc",
        "precision": 4,
        "hidden": False,
    }


def _logo(path: Path) -> None:
    image = Image.new("RGB", (256, 256), (31, 58, 77))
    draw = ImageDraw.Draw(image)
    for index, height in enumerate((60, 130, 200, 90, 160)):
        left = 38 + 40 * index
        draw.rectangle((left, 128 - height // 2, left + 20, 128 + height // 2), fill=(255, 255, 255))
    image.save(path)


def _zip(root: Path, file: IO[bytes]) -> None:
    """Write all files of a folder as a zip; equal content gives equal bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix())
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
