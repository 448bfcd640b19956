"""A whole competition: three teams, twelve submissions, boards, reveal, rescoring, audit."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.host import board as boards
from avsbench_harness.host import inbox
from avsbench_harness.host.audit import audit, audit_export
from avsbench_harness.host.board import challenge_board, moved_rows, private_board, public_board, reveal
from avsbench_harness.host.challenge import Challenge
from avsbench_harness.host.definition import write_definition
from avsbench_harness.host.inbox import ingest, submit
from avsbench_harness.host.log import (
    START,
    Entry,
    canonical,
    chain,
    commitment,
    export,
    parse_export,
    verify,
)  # fmt: skip
from avsbench_harness.host.pages import write_board
from avsbench_harness.host.scoring_queue import score_pending
from avsbench_harness.submission import read_solution, read_submission, write_solution

pytestmark = pytest.mark.usefixtures("in_process")


def mean_iou(path: Path, truth: dict[str, np.ndarray]) -> float:
    """J of object/1 of binary masks, written out: the mean over clips of the mean over frames."""
    values = []
    with read_submission(path) as submission:
        for clip, masks in truth.items():
            predicted, true = submission.read(clip) >= 128, masks > 0
            frames = []
            for b, g in zip(predicted, true, strict=True):
                union = (b | g).sum()
                frames.append((b & g).sum() / union if g.any() else (~b).mean())
            values.append(np.mean(frames))
    return float(np.mean(values))


def receipt(one, ticket: str) -> dict:
    return json.loads((one.challenge.receipts / f"{ticket}.json").read_text())


def test_every_submission_has_its_receipt(played) -> None:
    one, tickets, files = played
    found = {name: receipt(one, ticket) for name, ticket in tickets.items()}
    reasons = {
        "malformed": ("invalid", "not a complete zip"),
        "duplicate": ("refused", "same as that of submission 1"),
        "replayed": ("refused", "token is not valid"),
        "replayed again": ("refused", "token is not valid"),
        "copy": ("refused", "Another team has submitted the same file"),
        "over the limit": ("refused", "its 2 submissions of this day"),
        "field missing": ("refused", "'paper' is required"),
        "late": ("refused", "ended at 2027-03-21 00:00 UTC"),
    }
    for name, (status, reason) in reasons.items():
        assert found[name]["status"] == status, name
        assert reason in found[name]["reason"], name
    for name in ("a1", "a2", "b1", "c1"):
        values = found[f"scored {name}"]
        assert values["status"] == "scored"
        assert values["public"]["n"] == 4
        assert values["public"]["metrics"]["J"] == pytest.approx(
            mean_iou(files[name], one.truth_of("public"))
        )
        assert "private" not in json.dumps(values)
    assert found["scored c1"]["phase"] == "final"
    assert len(list(one.challenge.receipts.iterdir())) == len(tickets) == 12
    assert list(one.challenge.inbox.iterdir()) == []
    # Files of refused submissions are not kept.
    kept = {path.stem for path in one.challenge.files.iterdir()}
    assert kept == {
        tickets[name] for name in ("scored a1", "malformed", "scored b1", "scored a2", "scored c1")
    }


def test_boards_before_and_after_the_reveal(played) -> None:
    one, _, files = played
    public = challenge_board(one.challenge)
    assert [row.team for row in public.rows] == ["Alpha", "Beta", "Gamma"]
    assert [row.rank for row in public.rows] == [1, 2, 3]
    assert [row.submissions for row in public.rows] == [2, 1, 1]
    with pytest.raises(UsageError, match="not published yet"):
        challenge_board(one.challenge, "private")
    one.clock.set(20)
    with pytest.raises(UsageError, match="--early"):
        reveal(one.challenge)
    one.clock.set(22)
    board = reveal(one.challenge)
    assert [(row.team, row.rank, row.public_rank, row.change) for row in board.rows] == [
        ("Beta", 1, 2, 1),
        ("Gamma", 2, 3, 1),
        ("Alpha", 3, 1, -2),
    ]
    for row, name in zip(board.rows, ("b1", "c1", "a2"), strict=True):
        assert row.metrics["J"] == pytest.approx(mean_iou(files[name], one.truth_of("private")))
        low, high = row.intervals["J"]
        assert low <= row.metrics["J"] <= high
    with pytest.raises(UsageError, match="was published at 2027-03-22"):
        reveal(one.challenge)
    assert challenge_board(one.challenge, "private") == board
    # The log opens the commitments that it made before.
    snapshot = one.challenge.snapshot()
    for number, opened in snapshot.revealed["opened"].items():
        expected = snapshot.submissions[int(number)].commitments[1]
        assert commitment(opened["nonce"], opened["scores"]) == expected


def numbers_of(values: dict[int, tuple[str, dict]]) -> set[str]:
    """Private scores as texts may show them."""
    found = set()
    for _, scores in values.values():
        for value in scores["metrics"].values():
            found |= {f"{value:.6f}"[:-1], f"{value:.4f}", f"{100 * value:.2f}"}
    return found


def test_private_scores_are_readable_nowhere_before_the_reveal(played, tmp_path: Path) -> None:
    one, _, _ = played
    write_board(one.challenge, one.folder / "site")
    (one.folder / "log.jsonl").write_text(export(one.challenge.entries()))
    secret = numbers_of(one.challenge.private_scores(1))
    assert len(secret) > 20
    public = one.challenge.snapshot().submissions.values()
    shown = {f"{v:.4f}" for s in public for part in s.scores.values() for v in part["metrics"].values()}
    assert not secret & shown  # else the search below would find public scores
    files = [path for path in one.folder.rglob("*") if path.is_file() and "private" not in path.parts]
    assert {path.name for path in files} >= {"index.html", "board.json", "log.jsonl", "challenge.yaml"}
    for path in files:
        text = path.read_text()
        assert not [number for number in secret if re.search(rf"(?<![0-9]){re.escape(number)}", text)], path
        # Tokens and contacts stay with the host, and hashes of tokens too.
        assert "avsb_" not in text
        assert "example.org" not in text
    one.clock.set(22)
    reveal(one.challenge)
    write_board(one.challenge, one.folder / "site")
    text = (one.folder / "site" / "board.json").read_text()
    assert [number for number in secret if number in text]  # the search finds what is published


def test_titles_of_strangers_are_escaped(played) -> None:
    one, _, _ = played
    write_board(one.challenge, one.folder / "site")
    page = (one.folder / "site" / "index.html").read_text()
    assert "AVS &lt;2027&gt;" in page
    assert "<script" not in page


def test_rescoring_keeps_both_versions_and_names_the_moved_rows(played, tmp_path: Path) -> None:
    one, _, _ = played
    before = challenge_board(one.challenge)
    assert one.challenge.add_version(one.challenge.solution_of(1), "nothing") is None
    # Fix the labels of one public clip: its objects are in the rows that Alpha predicts as background.
    fixed = tmp_path / "fixed.npz"
    with read_solution(one.challenge.solution_of(1)) as truth:
        public = next(clip for clip, facts in truth.clips.items() if not facts.private)
        private = [clip for clip, facts in truth.clips.items() if facts.private]

        def masks(clip: str) -> np.ndarray:
            value = truth.read(clip)
            if clip == public:
                value = np.zeros_like(value)
                value[:, 205:] = 1
            return value

        clips = [(clip, masks(clip), facts.subset) for clip, facts in truth.clips.items()]
        write_solution(fixed, "ms3", "test", clips, private=private)
    version = one.challenge.add_version(fixed, "masks of one clip fixed")
    assert version is not None
    assert version.number == 2
    # The old version is shown until the new one is complete.
    next(score_pending(one.challenge))
    assert challenge_board(one.challenge).version == 1
    assert challenge_board(one.challenge) == before
    assert len(list(score_pending(one.challenge))) == 3
    snapshot, definition = one.challenge.snapshot(), one.challenge.definition
    after = public_board(definition, snapshot)
    assert after.version == 2
    assert public_board(definition, snapshot, 1) == before
    moved = moved_rows(before, after)
    assert {row["team"] for row in moved} == {"Alpha", "Beta", "Gamma"}
    assert all(row["after"] < row["before"] for row in moved)
    # Private clips have not changed.
    first, second = one.challenge.private_scores(1), one.challenge.private_scores(2)
    assert {key: value[1] for key, value in first.items()} == {key: value[1] for key, value in second.items()}
    other = tmp_path / "other.npz"
    write_solution(other, "ms3", "test", clips, private=private[1:])
    with pytest.raises(UsageError, match="other private clips"):
        one.challenge.add_version(other, "")
    assert audit(one.challenge, sample=100).faults == []


def test_another_metric_is_a_version(played, redefine) -> None:
    one, _, _ = played
    write_definition(one.folder, redefine(metrics=["F", "J"]))
    with Challenge(one.folder, clock=one.clock) as challenge:
        assert challenge_board(challenge).metrics == ("J", "F")  # until it is rescored
        assert challenge.add_version(challenge.solution_of(1), "F ranks") is not None
        list(score_pending(challenge))
        assert challenge_board(challenge).metrics == ("F", "J")
        assert challenge.snapshot().definition["metrics"] == ["F", "J"]


def test_frozen_keys_cannot_change(played, redefine) -> None:
    one, _, _ = played
    write_definition(one.folder, redefine(parts={"private": 0.25, "seed": 11}))
    with pytest.raises(UsageError, match="cannot change once the competition is open"):
        Challenge(one.folder)
    end = [{"name": "development", "start": "2027-03-01", "end": "2027-04-01"}]
    write_definition(one.folder, redefine(phases=end))
    with Challenge(one.folder, clock=one.clock) as challenge:  # a longer phase is recorded in the log
        assert challenge.entries()[-1].values["kind"] == "definition"


def change_log(one, seq: int, column: str, change) -> None:
    """Change the database as someone with access to its file can."""
    with sqlite3.connect(one.challenge.private / "state.sqlite") as raw:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(f"UPDATE log SET {column} = 'x' WHERE seq = ?", (seq,))
        raw.execute("DROP TRIGGER log_no_update")
        (value,) = raw.execute(f"SELECT {column} FROM log WHERE seq = ?", (seq,)).fetchone()
        raw.execute(f"UPDATE log SET {column} = ? WHERE seq = ?", (change(value), seq))


def test_audit(played) -> None:
    one, _, _ = played
    result = audit(one.challenge, sample=100)
    assert result.faults == []
    assert [number for number, _ in result.recomputed] == [1, 3, 4, 5]
    change_log(one, 7, "entry", lambda text: text[:-3] + ("0" if text[-3] != "0" else "1") + text[-2:])
    faults = audit(one.challenge).faults
    assert faults
    assert all("log entry 7" in fault for fault in faults)


def test_any_changed_byte_of_the_exported_log_is_found(played, tmp_path: Path) -> None:
    one, _, _ = played
    path = tmp_path / "log.jsonl"
    text = export(one.challenge.entries())
    path.write_text(text)
    assert audit_export(path).faults == []
    assert parse_export(text) == one.challenge.entries()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(text) - 1, 200):  # the last byte is the final line feed
        changed = bytearray(text.encode())
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        assert audit_export(path).faults, f"byte {place}: {text[place - 20 : place + 20]!r}"


def test_audit_finds_changed_files_scores_and_a_replaced_log(played, monkeypatch) -> None:
    one, tickets, files = played
    stored = one.challenge.file_of(tickets["scored b1"])
    content = stored.read_bytes()
    stored.write_bytes(files["a1"].read_bytes())
    faults = audit(one.challenge, sample=100).faults
    assert any("submission 3" in fault and "not the file that was received" in fault for fault in faults)
    assert any("recomputed scores differ" in fault for fault in faults)
    stored.write_bytes(content)
    with sqlite3.connect(one.challenge.private / "state.sqlite") as raw:
        raw.execute(
            "UPDATE private_scores SET scores = replace(scores, '\"n\":4', '\"n\":5') WHERE submission = 4"
        )
    assert any(
        "submission 4" in fault and "commitment" in fault for fault in audit(one.challenge, sample=0).faults
    )
    # A log that was rewritten as a whole has an intact chain, but receipts know the old one.
    rewritten: list[Entry] = []
    for entry in one.challenge.entries():
        values = entry.values
        if values["kind"] == "scored" and values["submission"] == 1:
            values["public"]["metrics"]["J"] = 0.999
        text = canonical(values)
        previous = rewritten[-1].digest if rewritten else START
        rewritten.append(Entry(entry.seq, text, chain(previous, text)))
    assert verify(rewritten) == []
    monkeypatch.setattr(one.challenge, "entries", lambda: rewritten)
    found = audit(one.challenge, sample=0).faults
    assert any("does not match the log" in fault for fault in found), found


def test_selected_submissions_count(played, redefine) -> None:
    one, _, _ = played
    write_definition(one.folder, redefine(counts="selected"))
    with Challenge(one.folder, clock=one.clock) as challenge:
        one.clock.set(3)
        assert challenge_board(challenge).rows[0].submission == 4  # without a selection, the best
        challenge.select(1, 1)
        assert {row.team: row.submission for row in challenge_board(challenge).rows}["Alpha"] == 1
        with pytest.raises(UsageError, match="no submission 3 of this team"):
            challenge.select(1, 3)
        challenge.select(1, 4)
        assert {row.team: row.submission for row in challenge_board(challenge).rows}["Alpha"] == 4
        snapshot = challenge.snapshot()
        board = private_board(challenge.definition, snapshot, challenge.private_scores(1))
        assert {row.team: row.submission for row in board.rows}["Alpha"] == 4  # 0.42 > 0.31 of the clips
        challenge.select(1, 4, selected=False)
        assert challenge.snapshot().selected[1] == (1,)
        one.clock.set(22)
        with pytest.raises(UsageError, match="cannot change any more"):
            challenge.select(1, 1)


def test_the_last_submission_counts(played, redefine) -> None:
    one, _, _ = played
    snapshot = one.challenge.snapshot()
    board = public_board(redefine(counts="last"), snapshot)
    assert {row.team: row.submission for row in board.rows} == {"Alpha": 4, "Beta": 3, "Gamma": 5}


def test_late_submissions_may_be_scored_without_a_rank(played, redefine, monkeypatch) -> None:
    one, _, files = played
    write_definition(one.folder, redefine(late="unranked"))
    moment = one.clock.set(25)
    monkeypatch.setattr(inbox, "arrival_time", lambda folder: moment)
    with Challenge(one.folder, clock=one.clock) as challenge:
        ticket = submit(challenge.inbox, files["a3"], "Alpha", one.tokens["Alpha"], {"paper": "none"})
        (late,) = ingest(challenge).scored
        assert (late.ticket, late.late, late.status) == (ticket, True, "scored")
        assert {row.team: row.submission for row in challenge_board(challenge).rows}["Alpha"] == 4
        assert boards.counted(challenge.definition, challenge.snapshot(), 1, challenge.snapshot().versions[0])
