"""The order of the house: a folder imports only from those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "avsbench_harness"
METHODS = Path(__file__).parents[1] / "methods"

#: Modules and folders in the order in which data flows; the first ones serve all.
ORDER = [
    "errors", "files", "jit", "schema", "tasks", "data", "nn", "method", "submission", "scoring", "engine",
    "results", "launch", "cli",
]  # fmt: skip

#: The package's face, and what tests of methods use.
OUTSIDE = {"__init__", "__main__", "method_suite", "testing"}

#: Method.train and Method.predict are the engine's loops by default; the import is inside them.
EXCEPTIONS = {("method", "engine")}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_one_way(path: Path) -> None:
    here = part(path)
    if here in OUTSIDE:
        return
    for name in imported(path):
        assert not name.startswith("avsbench_methods"), f"{path} names a method"
        place = name.removeprefix("avsbench_harness.").split(".")[0]
        if not name.startswith("avsbench_harness.") or place in {here, "__version__"}:
            continue
        if (here, place) in EXCEPTIONS:
            continue
        assert place in ORDER, f"{name} has no place in the order of the house"
        assert ORDER.index(place) < ORDER.index(here), f"{path} imports {name}, which comes after it"


def test_every_part_has_its_place() -> None:
    parts = {part(path) for path in PACKAGE.rglob("*.py")} - OUTSIDE
    assert parts == set(ORDER)


def test_methods_know_nothing_of_each_other() -> None:
    folders = [folder for folder in METHODS.iterdir() if (folder / "__init__.py").is_file()]
    assert folders
    for folder in folders:
        for path in folder.rglob("*.py"):
            for name in imported(path):
                if name.startswith("avsbench_methods."):
                    assert name.split(".")[1] == folder.name, f"{path} imports {name}"


def test_the_harness_names_no_method() -> None:
    names = [folder.name for folder in METHODS.iterdir() if (folder / "__init__.py").is_file()]
    for path in PACKAGE.rglob("*.py"):
        if part(path) in ("cli", "scoring"):  # examples; protocols that carry a method's name
            continue
        text = path.read_text(encoding="utf-8")
        strings = [
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not {*strings} & {*names}, f"{path} names a method in its code"


def test_every_package_is_in_the_wheel() -> None:
    import tomllib

    root = PACKAGE.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(init.parent.relative_to(root).parts) for init in PACKAGE.rglob("__init__.py")} | {
        ".".join(("avsbench_methods", *init.parent.relative_to(METHODS).parts))
        for init in METHODS.rglob("__init__.py")
    }
    assert set(listed) == found
