"""The project's checks. All sessions use the environment that nox itself was installed into:

pip install -c constraints.txt -e ".[dev]" && nox
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "bench"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and that everything is formatted."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package and the methods, strictly."""
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests, and if they pass the slow ones."""
    # One process a core and one thread a process: small networks gain nothing from more threads.
    together = {"env": {"OMP_NUM_THREADS": "1"}}
    for marker in ("not slow and not gpu", "slow and not gpu"):
        session.run(
            "pytest", "-n", "auto", "--ignore=tests/benchmarks", "-m", marker, *session.posargs, **together
        )


@nox.session
def compiled(session: nox.Session) -> None:
    """Every method with the code that ``torch.compile`` generates; takes a quarter of an hour."""
    session.run(
        "pytest",
        "tests/methods/test_suite.py",
        "-k",
        "test_compiled",
        "--timeout=1800",
        *session.posargs,
        env={"AVSB_TEST_COMPILER": "inductor"},
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory as ratios within one run; prints figures, judges nothing but the stated ratios."""
    session.run("pytest", "tests/benchmarks", "-m", "not gpu", "-s", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need CUDA, then what methods cost there; succeeds with a word where there is none."""
    import torch

    if not torch.cuda.is_available():
        session.log("no CUDA: nothing to run")
        return
    session.run("pytest", "-m", "gpu", "-s", *session.posargs)
    session.run("avsb", "bench", "--device", "cuda", "--backbone", "r50,pvt")
