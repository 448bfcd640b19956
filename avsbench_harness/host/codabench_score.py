"""The scoring program of a Codabench bundle: scores a submission with ``avsb score``.

Usage: ``python3 score.py INPUT OUTPUT``. INPUT has ``ref/`` (``solution.npz`` and ``part.json``) and ``res/``
with one submission (``.npz``); OUTPUT gets ``scores.json``. It needs the package avsbench-harness alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Score the submission; the exit code is that of ``avsb score``."""
    source, output = Path(arguments[0]), Path(arguments[1])
    task = json.loads((source / "ref" / "part.json").read_text(encoding="utf-8"))
    found = sorted(path for path in (source / "res").rglob("*.npz") if path.is_file())
    if len(found) != 1:
        print(f"The zip must hold one submission (.npz), not {len(found)}.", file=sys.stderr)
        return 3
    command = [
        sys.executable, "-m", "avsbench_harness", "score", str(found[0]),
        "--solution", str(source / "ref" / "solution.npz"), "--protocol", task["protocol"],
        "--part", task["part"], "--no-record", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        try:
            message = json.loads(done.stdout)["error"]
        except (ValueError, KeyError):
            message = (done.stderr.strip().splitlines() or ["the scoring failed"])[-1]
        print(message, file=sys.stderr)
        return done.returncode
    metrics = json.loads(done.stdout)["metrics"]
    scores = {name: metrics[name] for name in task["metrics"] if metrics[name] is not None}
    output.mkdir(parents=True, exist_ok=True)
    (output / "scores.json").write_text(json.dumps(scores) + "\n", encoding="utf-8")
    print(f"scored {task['part']} clips: {', '.join(scores)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
