"""``avsb challenge`` from the definition to the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra host")

from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.host import audit, scoring_queue, worker
from avsbench_harness.tasks import MS3


@pytest.fixture(scope="module")
def avs_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "data"
    write_synthetic(root, MS3, (1, 1, 6), 1, jobs=1)
    return root


@pytest.fixture
def folder(avsb, avs_data: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(scoring_queue, "score_isolated", worker.score)
    monkeypatch.setattr(audit, "score_isolated", worker.score)
    made = avsb(
        "challenge", "init", tmp_path / "c", "--title", "T", "--task", "ms3", "--data", avs_data, "--json"
    )
    assert made.code == 0, made.err
    assert "parts" not in made.json
    return tmp_path / "c"


def test_a_competition_from_the_command_line(avsb, folder: Path, tmp_path: Path, monkeypatch) -> None:
    at = ("--challenge", folder)
    added = avsb("challenge", "team", "add", "Alpha", "--contact", "a@x", *at, "--json")
    token = added.json["token"]
    assert avsb("challenge", "bundle", "participants", "--out", tmp_path / "p", *at).code == 0
    monkeypatch.setenv("AVSB_CHALLENGE_TOKEN", token)
    sample = tmp_path / "p" / "sample_submission.npz"
    handed = avsb("challenge", "submit", sample, "--team", "Alpha", "--inbox", folder / "inbox", "--json")
    (receipt,) = avsb("challenge", "ingest", *at, "--json").json
    assert receipt["ticket"] == handed.json["ticket"]
    assert receipt["status"] == "scored"
    board = avsb("challenge", "board", *at, "--json").json
    assert [row["team"] for row in board["rows"]] == ["Alpha"]
    assert board["rows"][0]["metrics"] == receipt["public"]["metrics"]
    shown = avsb("challenge", "board", *at, "--html", tmp_path / "site").out
    assert f"{receipt['public']['metrics']['J']:.4f}" in shown
    early = avsb("challenge", "board", "--part", "private", *at)
    assert early.code == 2
    assert "avsb challenge reveal" in early.err
    assert avsb("challenge", "reveal", *at).code == 2
    assert avsb("challenge", "rescore", *at).code == 2
    assert avsb("challenge", "reveal", "--early", *at, "--json").json["rows"][0]["change"] == 0
    assert avsb("challenge", "audit", *at, "--json").json["faults"] == []
    assert avsb("challenge", "log", "--out", tmp_path / "log.jsonl", *at).code == 0
    assert token not in (tmp_path / "log.jsonl").read_text()
    assert avsb("challenge", "audit", "--log", tmp_path / "log.jsonl").code == 0
    content = bytearray((tmp_path / "log.jsonl").read_bytes())
    content[200] ^= 1
    (tmp_path / "log.jsonl").write_bytes(content)
    assert avsb("challenge", "audit", "--log", tmp_path / "log.jsonl").code == 1
    assert avsb("challenge", "team", "rename", "Alpha", "Omega", *at).code == 0
    assert avsb("challenge", "team", "list", *at, "--json").json == [{"team": "Omega", "submissions": 1}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["team", "add", "Alpha"], "requires a contact"),
        (["team", "rename", "Nobody", "X"], "no team 'Nobody'"),
        (["submit", "x.npz", "--team", "A", "--field", "paper"], "NAME=TEXT"),
        (["submit", "x.npz", "--team", "A"], "AVSB_CHALLENGE_TOKEN"),
        (["init", ".", "--title", "T"], "exists already"),
        (["init", "other", "--title", "T", "--metrics", "Q"], "Unknown metric"),
        (["init", "other", "--title", "T", "--start", "soon"], "--start or --end"),
        (["init", "other"], "--title is required"),
        (["board", "--part", "half"], "no board 'half'"),
        (["ingest", "--database", "nonsense"], "URL of the database"),
        (["board", "--challenge", "nowhere"], "avsb challenge init nowhere"),
    ],
)
def test_errors(avsb, folder: Path, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AVSB_CHALLENGE_TOKEN", raising=False)
    result = avsb("challenge", *arguments)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_listed_private_clip_must_exist(avsb, folder: Path) -> None:
    path = folder / "challenge.yaml"
    text = path.read_text()
    head, _, rest = text.partition("parts:\n")
    rest = rest[rest.index("phases:") :]
    path.write_text(f"{head}parts:\n  clips: [no-such-clip]\n{rest}")
    result = avsb("challenge", "team", "add", "A", "--contact", "x", "--challenge", folder)
    assert result.code == 2
    assert "'no-such-clip' is not in the test split" in result.err
