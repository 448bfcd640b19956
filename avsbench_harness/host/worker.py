"""Scoring of one submission in a process of its own, with limits of memory and time.

The process reads a request (JSON) from standard input and writes the result (JSON) to standard output. It
limits itself before it imports the scorer, and the caller kills it when its time is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avsbench_harness.errors import AvsbError, SubmissionError, one_line

#: Seconds that a process gets beyond its time limit, in which it ends by itself.
GRACE = 5

#: Longest result, bytes.
_MAX_RESULT = 1 << 20


@dataclass(frozen=True)
class Request:
    """A scoring.

    Attributes:
        submission, solution: the files.
        protocol, metrics: what is scored.
        accepted: fingerprints that the submission may carry: those of all versions of the ground truth.
        memory: address space, MB.
        seconds: time.
    """

    submission: str
    solution: str
    protocol: str
    metrics: tuple[str, ...]
    accepted: tuple[str, ...]
    memory: int
    seconds: int


@dataclass(frozen=True)
class Result:
    """The result: scores of both parts, or the fault of the submission.

    Attributes:
        public, private: metrics, 95 % intervals and number of clips of each part.
        fault: why the submission is invalid, empty if it is valid.
    """

    public: dict[str, Any]
    private: dict[str, Any]
    fault: str = ""


def score_isolated(request: Request) -> Result:
    """Score a submission in a process of its own.

    Raises:
        AvsbError: the process failed in a way that is not the submission's fault, or reached a limit.
    """
    command = [sys.executable, "-m", "avsbench_harness.host.worker"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        output, errors = process.communicate(json.dumps(asdict(request)).encode(), request.seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise AvsbError(f"The scoring took more than {request.seconds} seconds.") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0 or len(output) > _MAX_RESULT:
        lines = errors.decode(errors="replace").strip().splitlines()
        last = one_line(lines[-1], 200) if lines else f"exit code {process.returncode}"
        if "MemoryError" in last or "Unable to allocate" in last:
            last = f"it needed more than {request.memory} MB of memory"
        raise AvsbError(f"The scoring failed: {last}.")
    return Result(**json.loads(output))


def score(request: Request) -> Result:
    """Score a submission in this process."""
    from dataclasses import replace

    from avsbench_harness.scoring import score_submission
    from avsbench_harness.submission import check_submission, read_solution, read_submission

    path = Path(request.submission)
    faults = check_submission(path)
    if faults:
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        return Result({}, {}, f"{faults[0]}{more}")
    with read_solution(Path(request.solution)) as solution, read_submission(path) as submission:
        if submission.header.solution in request.accepted:
            submission.header = replace(submission.header, solution=solution.fingerprint)
        parts = {}
        for part in ("public", "private"):
            try:
                scores = score_submission(submission, solution, request.protocol, part=part, workers=1)
            except SubmissionError as error:
                return Result({}, {}, str(error).removeprefix(f"{path}: "))
            found = scores.to_json()
            parts[part] = {
                "n": found["n"],
                "metrics": {name: found["metrics"][name] for name in request.metrics},
                "intervals": {name: found["intervals"].get(name) for name in request.metrics},
            }
        parts["public"]["method"] = one_line(submission.header.method, 100)
    return Result(parts["public"], parts["private"])


def _limit(request: Request) -> None:
    """Limit memory, time and files of this process, and lower its priority."""
    try:
        import resource
    except ImportError:  # not on Windows; the caller still limits the time
        return
    bounds = {
        resource.RLIMIT_AS: request.memory * 1_000_000,
        resource.RLIMIT_CPU: request.seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    with suppress(OSError):
        os.nice(10)


def main() -> None:
    """Answer the request on standard input."""
    values = json.loads(sys.stdin.buffer.read())
    request = Request(
        **{**values, "metrics": tuple(values["metrics"]), "accepted": tuple(values["accepted"])}
    )
    _limit(request)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    json.dump(asdict(score(request)), sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()
