from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.launch.grid import read_grid
from avsbench_harness.launch.slurm import read_resources
from avsbench_harness.method import from_folder
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.recipe.yaml_reader import MAX_BYTES, parse_yaml, read_yaml
from avsbench_harness.tasks import TASKS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1e3),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("-12", -12),
        ("0", 0),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("'1'", "1"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "012",
        "0o14",
        "0x1f",
        "0b1",
        "1:30",
        "1_000",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "2001-01-01",
        "=",
        "9" * 50,
    ],
)
def test_what_yaml_1_1_converts_stays_text(text: str) -> None:
    assert parse_yaml(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must hold keys and values"),
        ("a: [", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "tags are not supported"),
        ("a: !!int '012'\n", "tags are not supported"),
        ("a: 1\nb: 2\na: 3\n", r"the key 'a' is given twice \(line 3, column 1\)"),
        ("a: {b: 1, 'b': 2}\n", "the key 'b' is given twice"),
        ("a: &x [1]\nb: *x\n", "anchors and aliases are not supported"),
        ("a: &x {<<: *x}\n", "anchors and aliases are not supported"),
        ("a: *x\n", "anchors and aliases are not supported"),
        ("1: a\n", "a key must be text"),
        ("? [a]\n: b\n", "a key must be text"),
        ("true: a\n", "a key must be text"),
        ('a: "\\ud800"\n', "control characters"),
        ('a: "\\e[2J"\n', "control characters"),
        ('a: "\\UFFFFFFFF"\n', "cannot be read as YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1\n", "cannot be read as YAML"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("? " * 5000, "nested too deeply"),
        ("{a: " * 5000, "nested too deeply"),
        ("a: " + "x" * MAX_BYTES, "more than 128 KiB"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_bad_files_are_refused_quickly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(UsageError, match=message) as caught:
        read_yaml(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read as YAML"):
        read_yaml(tmp_path)
    with pytest.raises(UsageError, match="more than 128 KiB"):
        read_yaml(Path("/dev/zero"))


def test_a_large_file_within_the_limit_is_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: [" + "1," * (MAX_BYTES // 2 - 10) + "1]\n")
    start = time.perf_counter()
    assert len(read_yaml(path)["a"]) == MAX_BYTES // 2 - 9
    assert time.perf_counter() - start < 20


RECIPE = """\
epochs: 3
image_size: 64
optimizer: {lr: 1e-4, betas: [0.9, 0.99], name: adamw}
schedule:
  name: step
  milestones: [1, 2]
augment: {flip: 0.5, affine: {rotation: 10, scale: [0.5, 1.5]}, jitter: null}
options: {width: 4, dropout: 0.1}
protocols: []
source: "a \\u00e9 'text'"
"""
GRID = """\
method: [tpavi, combo]
backbone: r50
seeds: 0..2
preset: smoke
set: {optimizer.lr: 1e-3}
rows:
  - {name: one, set: {epochs: 2}}
  - name: two
"""
RESOURCES = "partition: gpu\ngpus: 1\ncpus: 8\nmemory: 32GB\ntime: 24h\nsetup: [module load cuda]\n"
PIECES = (
    "&a ", "*a", "<<: *a", "!!int ", "!x ", "[", "]", "{", "}", ": ", "- ", "? ", "\n", "\t", '"', "'",
    "|\n ", ">\n ", "012", "0x1", "1:30", "yes", "no", ".nan", "-.inf", "1e999", "9" * 6000, "null", "true",
    "~", "#", "%", "---\n", "...\n", "\\ud800", "\x1b", "\u2028", "\ufeff", "[" * 2000, "- " * 900,
    "epochs: 1\n", "set: ", "x" * 3000,
)  # fmt: skip


def _mutated(text: str, random_: random.Random) -> bytes:
    """Text with one to three random edits."""
    for _ in range(random_.randint(1, 3)):
        start = random_.randrange(len(text) + 1)
        end = min(len(text), start + random_.choice((0, 0, 1, 5, 30)))
        lines = text.splitlines(keepends=True)
        piece = random_.choice(
            (random_.choice(PIECES), chr(random_.randrange(256)), random_.choice(lines or ["a"]))
        )
        text = text[:start] + piece + text[end:]
    raw = bytearray(text.encode("utf-8", errors="surrogatepass"))
    if random_.random() < 0.1 and raw:
        raw[random_.randrange(len(raw))] = random_.randrange(256)
    return bytes(raw)


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(tiny: str, tmp_path: Path) -> None:
    """2,000 mutated recipes, grids and resources each: a value, or one sentence within seconds."""
    seed = int(os.environ.get("AVSB_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    method = from_folder(Path(tiny))
    readers: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
        ("recipe", RECIPE, lambda path: resolve(method, TASKS["s4"], "r50", file=path)),
        ("grid", GRID, read_grid),
        ("resources", RESOURCES, read_resources),
    )
    for name, text, read in readers:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        read(path)  # the text before mutation is valid
        random_, slowest = random.Random(f"{name} {seed}"), 0.0
        messages: list[str] = []
        for number in range(2000):
            path.write_bytes(_mutated(text, random_))
            start = time.perf_counter()
            try:
                read(path)
            except UsageError as error:
                messages.append(str(error))
            except Exception as error:
                pytest.fail(f"{name} {number} of seed {seed}: {type(error).__name__}: {error}")
            slowest = max(slowest, time.perf_counter() - start)
        print(f"{name}: seed {seed}, 2000 tried, {len(messages)} refused, 0 crashed, slowest {slowest:.2f} s")
        assert len(messages) > 500
        assert not [message for message in messages if "\n" in message or len(message) > 1000]
        assert slowest < 5
