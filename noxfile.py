"""Checks of the project. All sessions use the environment that nox itself is installed in:

pip install -c constraints.txt -e ".[dev]" && nox
"""

from __future__ import annotations

import importlib.util
import shutil

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "docs", "tests", "browser"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and spelling."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package and the methods, in strict mode."""
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests and, if they pass, the slow ones."""
    # One process per core and one thread per process: small networks gain nothing from more threads.
    threads = {"OMP_NUM_THREADS": "1"}
    for marker in ("not slow and not gpu and not browser", "slow and not gpu"):
        session.run("pytest", "-n", "auto", "-m", marker, *session.posargs, env=threads)


@nox.session
def browser(session: nox.Session) -> None:
    """The tests of the HTML site in headless Chromium; does nothing without Chromium or playwright."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.log("Chromium is not installed (Debian package chromium): nothing to run.")
        return
    if importlib.util.find_spec("playwright") is None:
        session.log('playwright is not installed (pip install -e ".[browser]"): nothing to run.')
        return
    session.run("pytest", "tests/leaderboard/site", "-m", "browser", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in docs/_build; a broken link is an error."""
    session.run("sphinx-build", "-b", "html", "-W", "--keep-going", "-q", "docs", "docs/_build/html")


@nox.session
def compiled(session: nox.Session) -> None:
    """All methods with ``torch.compile`` and the inductor backend; takes 15 minutes."""
    session.run(
        "pytest",
        "tests/testing",
        "-k",
        "compiled",
        "--timeout=1800",
        *session.posargs,
        env={"AVSB_TEST_COMPILER": "inductor"},
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory, as ratios measured in the same run; run it on an idle machine."""
    session.run("pytest", "tests/benchmarks", "-m", "not gpu", "-s", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need CUDA, then ``avsb bench`` on CUDA; does nothing if CUDA is not available."""
    import torch

    if not torch.cuda.is_available():
        session.log("CUDA is not available: nothing to run.")
        return
    session.run("pytest", "-m", "gpu", "-s", *session.posargs)
    session.run("avsb", "bench", "--device", "cuda", "--backbone", "r50,pvt")
