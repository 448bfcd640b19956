"""A new method's folder from the template: a small working network, its recipes, model card and test."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path

from avsbench_harness.errors import UsageError
from avsbench_harness.files import write_text
from avsbench_harness.method import methods

#: The template, a package whose names are replaced.
TEMPLATE = Path(__file__).parent / "method_template"
#: The test of the new method; it is not part of the template package, which tests do not import.
TEST = '''"""The tests that every method passes."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.method import from_folder
from avsbench_harness.testing.method_suite import MethodSuite


class TestMyMethod(MethodSuite):
    method = from_folder(Path(__file__).parent)
    options = {"dim": 8}
'''


def new_method(name: str, out: Path) -> list[Path]:
    """Write the folder of a new method and return its files.

    Args:
        name: the method's name: lower-case letters, digits and underscores.
        out: the folder in which the method's folder is created.

    Raises:
        UsageError: the name is not valid or belongs to an installed method, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' is not a valid name: use lower-case letters, digits and underscores, starting with a "
            "letter."
        )
    installed = methods()
    aliases = {alias for entry in installed.values() if entry.method for alias in entry.method.aliases}
    if name in installed or name in aliases:
        raise UsageError(f"A method '{name}' is already installed; choose another name.")
    folder = out / name
    if folder.exists():
        raise UsageError(f"{folder} already exists; choose another name or folder.")
    texts = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir() if path.is_file()}
    texts[f"test_{name}.py"] = TEST
    class_name = "".join(word.capitalize() for word in name.split("_"))
    folder.mkdir(parents=True)
    try:
        for file, text in texts.items():
            write_text(folder / file, text.replace("MyMethod", class_name).replace("my_method", name))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [folder / file for file in sorted(texts)]
