from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import avsbench_harness as avsb
from avsbench_harness import method as plugins
from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.tasks import AVSS, S4


def installed(monkeypatch: pytest.MonkeyPatch, points: Iterable[tuple[str, str]]) -> None:
    """Pretend that these entry points are installed."""
    found = [EntryPoint(name, value, plugins.GROUP) for name, value in points]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)


class One(plugins.Method):
    name, aliases, paper = "one", ("uno",), "One et al."
    variants, tasks, backbones = ("released", "paper"), ("s4",), ("r50",)

    def network(self):
        raise AssertionError("not built here")


class Two(One):
    name, aliases = "two", ("uno",)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """This module under a name that an entry point can import."""
    monkeypatch.setitem(sys.modules, "plugins_of_this_test", sys.modules[__name__])
    return "plugins_of_this_test"


def test_the_methods_that_ship_are_found_as_entry_points() -> None:
    assert avsb.methods()["avsegformer"].require().name == "avsegformer"


def test_a_broken_plugin_is_listed_with_its_reason(monkeypatch, here) -> None:
    installed(
        monkeypatch, [("one", f"{here}:One"), ("bad", "no_such_module:X"), ("odd", f"{here}:installed")]
    )
    entries = plugins.methods()
    assert entries["one"].method is not None
    assert "No module named 'no_such_module'" in (entries["bad"].error or "")
    assert "not a subclass" in (entries["odd"].error or "")
    with pytest.raises(AvsbError, match="Method 'bad' from .* cannot be loaded: ModuleNotFoundError"):
        plugins.get_method("bad")


def test_names_are_unique(monkeypatch, here) -> None:
    installed(monkeypatch, [("one", f"{here}:One"), ("one", f"{here}:Two")])
    with pytest.raises(UsageError, match="Two plugins are called 'one'"):
        plugins.methods()
    installed(monkeypatch, [("one", f"{here}:One"), ("two", f"{here}:Two")])
    with pytest.raises(UsageError, match="'uno' is claimed by both 'one' and 'two'"):
        plugins.methods()
    installed(monkeypatch, [("one", f"{here}:One"), ("one", f"{here}:One")])  # installed twice: no matter
    assert list(plugins.methods()) == ["one"]


def test_aliases_and_suggestions(monkeypatch, here) -> None:
    installed(monkeypatch, [("one", f"{here}:One")])
    assert plugins.get_method("UNO").name == "one"
    with pytest.raises(UsageError, match="Unknown method 'oen'. Did you mean 'one'"):
        plugins.get_method("oen")


def test_task_and_variant_are_checked(monkeypatch, here) -> None:
    installed(monkeypatch, [("one", f"{here}:One")])
    with pytest.raises(UsageError, match="one has no model for avss; it supports s4"):
        avsb.build("one", task="avss", backbone="r50")
    with pytest.raises(UsageError, match="Unknown variant of one 'papr'. Did you mean 'paper'"):
        avsb.build("one", task="s4", backbone="r50", variant="papr")


def test_a_folder_is_a_method(tiny: str) -> None:
    model = avsb.build(tiny, task="s4", backbone="r50", width=4)
    assert not any(part.training for part in model.modules())
    batch = Batch(torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 2, 128))
    assert model.predict(batch).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (None, UsageError, r"has no __init__\.py"),
        ("", UsageError, "must define one subclass of Method, it defines 0"),
        ("import no_such_module\n", AvsbError, "cannot be imported: ModuleNotFoundError"),
        ("import sys; sys.exit(0)\n", AvsbError, r"cannot be imported: SystemExit: 0\.$"),
        ("raise GeneratorExit\n", AvsbError, "cannot be imported: GeneratorExit"),
        (
            "raise ValueError('two\\nlines\\x1b[31m')\n",
            AvsbError,
            "cannot be imported: ValueError: two lines",
        ),
    ],
)
def test_folders_that_are_no_method(tmp_path: Path, code: str | None, error: type, message: str) -> None:
    if code is not None:
        (tmp_path / "__init__.py").write_text(code)
    with pytest.raises(error, match=message):
        plugins.get_method(str(tmp_path))


def test_listing_methods_does_not_import_torch() -> None:
    script = """
        import sys, avsbench_harness as avsb
        assert avsb.methods()
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_build_checks_task_and_variant_and_defaults_to_the_first_variant(tiny: str) -> None:
    method = plugins.get_method(tiny)
    model = method.build(S4, "r50", width=4)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape
        for name, value in method.build(S4, "r50", variant="released", width=4).state_dict().items()
    }
    with pytest.raises(UsageError, match="Unknown variant of tiny 'relaesed'. Did you mean 'released'"):
        method.build(S4, "r50", variant="relaesed")
    with pytest.raises(UsageError, match="one has no model for avss; it supports s4"):
        One().build(AVSS, "r50")


def test_a_plugin_without_network_and_build_is_an_error(tiny: str) -> None:
    class Three(type(plugins.get_method(tiny))):
        network = plugins.Method.network

    with pytest.raises(NotImplementedError, match="Three implements neither network nor build"):
        Three().build(S4, "r50")


def test_a_folder_named_like_an_unknown_method_is_suggested(tiny: str, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(tiny, tmp_path / "plug")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="for the folder of that name pass ./plug"):
        plugins.get_method("plug")
    assert plugins.get_method("./plug").name == "tiny"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('    variants = ("released",)\n', "", "cannot be used: TypeError: Tiny does not set 'variants'"),
        ('    name = "tiny"\n', "    def __init__(self): raise ValueError('no')\n", "ValueError: no"),
        ('    name = "tiny"\n', "    def __init__(self): raise SystemExit(0)\n", "SystemExit: 0"),
        (
            'name = "tiny"',
            'name = "../../tiny"',
            r"name of Tiny must be up to 60 of .*, not '\.\./\.\./tiny'",
        ),
        ('name = "tiny"', 'name = "My Method!"', "name of Tiny must be up to 60 of"),
        ('name = "tiny"', "name = 7", "name of Tiny must be up to 60 of"),
        ('variants = ("released",)', 'variants = "released"', "variants of Tiny must be a tuple of text"),
        ('variants = ("released",)', "variants = (None,)", "variants of Tiny must be a tuple of text"),
        ('tasks = ("s4", "ms3", "avss")', 'tasks = ("s4", "s9")', "tasks of Tiny names 's9'; there are s4"),
        ('tasks = ("s4", "ms3", "avss")', "tasks = 5", "tasks of Tiny must be a tuple of text, not 5"),
    ],
)
def test_an_unusable_plugin_is_one_sentence(
    tiny: str, tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    code = (folder / "__init__.py").read_text()
    assert old in code
    (folder / "__init__.py").write_text(code.replace(old, new))
    with pytest.raises(AvsbError, match=message):
        plugins.from_folder(folder)
