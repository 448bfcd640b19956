"""The package's structure: layers, cycles, sizes, and tests that mirror modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avsbench_harness"
METHODS = ROOT / "methods"
TESTS = ROOT / "tests"

#: Modules and sub-packages in layers: each imports only from those before it.
LAYERS = [
    "errors", "files", "jit", "schema", "tasks", "run_names", "safe_pickle", "distributed", "console",
    "recipe", "data", "video", "weights", "nn", "method", "submission", "scoring", "robustness", "tracking",
    "engine", "results", "bench", "analysis", "leaderboard", "ablation", "launch", "host",
    "cli",
]  # fmt: skip

#: The package's interface to users, which imports from anywhere.
INTERFACES = {"__init__", "__main__", "testing"}

#: Folders of tests that belong to no module: of whole runs, speed, documents, and plugins.
UNMIRRORED = {"benchmarks", "documents", "end_to_end", "fixtures"}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

SOURCES = sorted([*PACKAGE.rglob("*.py"), *METHODS.rglob("*.py")])


def name_of(path: Path) -> str:
    """The dotted name of a module; methods ship as ``avsbench_methods``."""
    base = "avsbench_methods" if path.is_relative_to(METHODS) else "avsbench_harness"
    parts = path.relative_to(METHODS if base == "avsbench_methods" else PACKAGE).with_suffix("").parts
    return ".".join((base, *(part for part in parts if part != "__init__")))


MODULES = {name_of(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """The project's modules that a module imports anywhere, lazily or for types alone included."""
    name = name_of(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                if f"{base}.{alias.name}" in MODULES:
                    yield f"{base}.{alias.name}"
                elif base in MODULES:
                    yield base


def layer(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def test_every_module_has_a_layer() -> None:
    found = {layer(name) for name in MODULES if name.startswith("avsbench_harness")}
    assert found - INTERFACES == set(LAYERS)


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("avsbench_harness")])
def test_imports_point_to_earlier_layers(name: str) -> None:
    own = layer(name)
    for imported in imports(MODULES[name]):
        assert not imported.startswith("avsbench_methods"), f"{name} imports a method"
        if own in INTERFACES or layer(imported) == own or imported == "avsbench_harness":
            continue
        assert LAYERS.index(layer(imported)) < LAYERS.index(own), f"{name} imports {imported}"


def test_there_is_no_import_cycle() -> None:
    graph = {name: {found for found in imports(path) if found != name} for name, path in MODULES.items()}
    # The package itself is imported for its version alone; it imports its names when they are first used.
    graph["avsbench_harness"] = set()
    while leaves := [name for name, targets in graph.items() if not targets]:
        for leaf in leaves:
            del graph[leaf]
        for targets in graph.values():
            targets.difference_update(leaves)
    assert not graph, f"cycles among {sorted(graph)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_tests_mirror_modules(path: Path) -> None:
    """``tests/a/test_b.py`` or ``tests/a/test_b_aspect.py`` tests ``a/b.py`` or the package ``a/b``."""
    parts = path.relative_to(TESTS).with_suffix("").parts
    if parts[0] in UNMIRRORED or path == Path(__file__):
        return
    base = METHODS if parts[0] == "methods" else PACKAGE
    folder = base.joinpath(*(parts[1:-1] if parts[0] == "methods" else parts[:-1]))
    words = parts[-1].removeprefix("test_").split("_")
    candidates = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    assert any(
        (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file() for name in candidates
    ), f"{path.relative_to(ROOT)} mirrors no module in {folder.relative_to(ROOT)}"


def test_methods_are_independent_of_each_other() -> None:
    folders = [folder for folder in METHODS.iterdir() if (folder / "__init__.py").is_file()]
    assert folders
    for folder in folders:
        for path in folder.rglob("*.py"):
            for imported in imports(path):
                if imported.startswith("avsbench_methods."):
                    assert imported.split(".")[1] == folder.name, f"{path} imports {imported}"


def test_the_harness_names_no_method() -> None:
    names = [folder.name for folder in METHODS.iterdir() if (folder / "__init__.py").is_file()]
    for path in PACKAGE.rglob("*.py"):
        if layer(name_of(path)) in ("cli", "scoring"):  # examples; protocols that carry a method's name
            continue
        strings = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not {*strings} & {*names}, f"{path} names a method in its code"


def test_every_package_is_in_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {name_of(init) for init in [*PACKAGE.rglob("__init__.py"), *METHODS.rglob("__init__.py")]}
    assert set(listed) == found
