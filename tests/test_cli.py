"""``avsb`` as a whole: help texts, versions, errors and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "", "run", "train", "predict", "score", "compare", "leaderboard", "bench", "doctor",
    "methods", "methods show", "methods new", "data",
    "data check", "data info", "data synth", "data maskige", "data propagate",
    "data cache", "data solution", "cache", "cache info", "cache clear", "submit", "submit check", "weights",
    "weights add", "weights import", "weights list", "sweep", "reproduce",
    "ablate", "ablate list", "ablate run", "ablate table", "plot",
    "plot thresholds", "plot ablation", "plot clips",
    "results", "results validate", "results schema", "inspect", "inspect tokens",
]  # fmt: skip

#: Commands that only hold others.
GROUPS = ("methods", "data", "cache", "submit", "weights", "results", "inspect", "ablate", "plot")


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

    inner = [command for group in GROUPS for command in listed(group)]
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
