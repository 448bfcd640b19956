"""``avsb`` as a whole: help texts, versions, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avsbench_harness.cli.common import print_json

COMMANDS = [
    "", "demo", "run", "train", "predict", "score", "compare", "leaderboard", "bench", "doctor",
    "methods", "methods show", "methods new", "data",
    "data check", "data info", "data synth", "data mini", "data compose", "data maskige",
    "data propagate", "data baselines", "robustness",
    "data cache", "data solution", "cache", "cache info", "cache clear", "submit", "submit check", "weights",
    "weights add", "weights import", "weights list", "sweep", "reproduce",
    "ablate", "ablate list", "ablate run", "ablate table", "plot",
    "plot thresholds", "plot ablation", "plot clips", "plot robustness", "plot curves", "segment",
    "results", "results validate", "results schema", "inspect", "inspect gradients",
    "inspect attention", "inspect tokens", "hub", "hub push", "hub pull", "export",
    "runs", "runs list", "runs show", "runs diff", "runs path", "runs rm", "runs watch",
    "challenge", "challenge init", "challenge team", "challenge team add", "challenge team rename",
    "challenge team token", "challenge team list", "challenge bundle", "challenge bundle participants",
    "challenge bundle codabench", "challenge submit", "challenge ingest", "challenge board",
    "challenge reveal", "challenge rescore", "challenge audit", "challenge log", "challenge serve",
]  # fmt: skip

#: Commands that only hold others.
GROUPS = (
    "methods", "data", "cache", "submit", "weights", "results", "inspect", "ablate", "plot", "challenge",
    "challenge team", "challenge bundle", "hub", "runs",
)  # fmt: skip


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("", *GROUPS)])
def test_every_command_has_examples_and_json(avsb, command: str) -> None:
    result = avsb(*command.split(), "--help")
    assert result.code == 0
    assert "Examples:\n" in result.out
    assert f"  avsb {command}" in result.out
    assert "--json" in result.out or command == "results schema"  # which prints nothing else


def test_the_list_of_commands_is_complete(avsb) -> None:
    def listed(*group: str) -> list[str]:
        section = avsb(*group, "--help").out.split("Commands:\n")[1]
        return [" ".join([*group, line.split()[0]]) for line in section.splitlines() if line[2:3].strip()]

    inner = [command for group in GROUPS for command in listed(*group.split())]
    assert {*listed(), *inner} == set(COMMANDS) - {""}


def test_help_imports_no_heavy_package() -> None:
    script = (
        "import sys\n"
        "from avsbench_harness import cli\n"
        "for arguments in sys.argv[1:]:\n"
        "    sys.argv = ['avsb', *arguments.split(), '--help']\n"
        "    try: cli.main()\n"
        "    except SystemExit as stop: assert stop.code == 0, arguments\n"
        "heavy = {'torch', 'numpy', 'pandas', 'timm', 'numba', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, *COMMANDS], check=True, stdout=subprocess.DEVNULL)


def test_version(avsb) -> None:
    from avsbench_harness import __version__

    assert avsb("--version").out == f"avsb {__version__}\n"


def test_brackets_in_help_are_not_markup(avsb) -> None:
    assert "avsb [OPTIONS] COMMAND [ARGS]" in avsb("--help").out


def test_a_mistyped_command_or_option_is_a_usage_error(avsb) -> None:
    command = avsb("leaderbord")
    assert command.code == 2
    assert "leaderboard" in command.err
    option = avsb("run", "--metod", "x")
    assert option.code == 2
    assert "--method" in option.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--method", "avsegforner"], 2, "Did you mean 'avsegformer'"),
        (["run", "--method", "avsegformer", "--set", "epoch=1"], 2, "Did you mean 'epochs'"),
        (["run", "--method", "avsegformer", "--data", "nowhere"], 4, "nowhere"),
        (["leaderboard", "--results", "nowhere"], 4, "no folder nowhere"),
        (["data", "check"], 4, "AVSB_DATA_DIR"),
        (["data", "synth", "--task", "s4", "--clips", "1,2", "--out", "x"], 2, "TRAIN,VAL,TEST"),
        (["weights", "add", "vggish", "none.pth"], 2, r"none.pth"),
        (["score", "none.npz"], 4, "none.npz"),
        (["methods", "avsegforme"], 2, "Did you mean 'avsegformer'"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    avsb, tmp_path: Path, monkeypatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = avsb(*arguments)
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    as_json = avsb(*arguments, "--json")
    assert as_json.code == code
    assert as_json.json["exit_code"] == code
    assert message in as_json.json["error"]
    assert list(tmp_path.iterdir()) == []


def test_python_m_runs_avsb() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "avsbench_harness", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("avsb ")


def test_errors_of_files_are_one_sentence(avsb, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    """A file in place of the output folder, in every command that writes one."""
    file = tmp_path / "file"
    file.write_text("x")
    common = ["--method", tiny, "--data", real_s4, "--preset", "smoke", "--device", "cpu", "--out", file]
    commands = [
        ["run", *common],
        ["train", *common],
        ["sweep", *common[:-4], "--out", file],
        ["methods", "new", "mine", "--out", file],
        ["data", "synth", "--task", "s4", "--clips", "1,1,1", "--out", file / "set"],
    ]
    for command in commands:
        result = avsb(*command)
        assert result.code == 1, (command, result.err)
        assert str(file) in result.err.splitlines()[-1]
        assert "Traceback" not in result.err
        assert file.read_text() == "x"
    result = avsb("run", *common, "--json")
    assert result.json["exit_code"] == 1
    assert str(file) in result.json["error"]


def test_usage_errors_are_json_on_request(avsb) -> None:
    for arguments in (["run", "--methd", "x"], ["run"], ["nothing"], ["run", "--method", "x", "--seed", "a"]):
        result = avsb(*arguments, "--json")
        assert result.code == 2
        assert result.json["exit_code"] == 2
        assert result.json["error"]


@pytest.mark.parametrize("arguments", ["methods", "methods tpavi", "ablate list", "run --help", "doctor"])
def test_an_ascii_terminal_is_enough(arguments: str) -> None:
    """Help, tables and JSON on a terminal without Unicode."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}
    for extra in ([], ["--json"]) if arguments != "run --help" else ([],):
        done = subprocess.run(
            [sys.executable, "-m", "avsbench_harness", *arguments.split(), *extra],
            env=environment, capture_output=True, check=False,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.stdout.isascii()
        if extra:
            json.loads(done.stdout)


def test_an_error_with_text_beyond_ascii_on_an_ascii_terminal(tmp_path: Path) -> None:
    for encoding in ("ascii", "utf-8"):
        for extra in ([], ["--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "avsbench_harness", "run", "--method", "m\u00e9th\udc80de", *extra],
                env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 2
            assert b"Traceback" not in done.stderr
            if extra:
                assert "m\u00e9th" in json.loads(done.stdout.decode("utf-8"))["error"]


def test_json_output_has_no_characters_that_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a\x9b31m": ["\x1b]0;x\x07", "\u202e", "\u2028", "\U000e0001", "é\n\t", "\ud800"]}
    print_json(value)
    text = capsys.readouterr().out
    assert all(mark.isprintable() or mark == "\n" for mark in text)
    assert json.loads(text) == value
    assert "é" in text
