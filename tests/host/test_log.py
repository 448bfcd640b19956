"""The hash chain, written out with hashlib."""

from __future__ import annotations

import hashlib

from avsbench_harness.host.log import START, commitment, export, next_entry, parse_export, verify


def entries() -> list:
    first = next_entry(0, START, "team", "2027-03-01T00:00:00.000000Z", {"team": 1, "name": "Ä"})
    return [
        first,
        next_entry(1, first.digest, "renamed", "2027-03-02T00:00:00.000000Z", {"team": 1, "name": "B"}),
    ]


def test_digests_follow_from_the_text() -> None:
    first, second = entries()
    text = '{"kind":"team","name":"\\u00c4","seq":1,"team":1,"time":"2027-03-01T00:00:00.000000Z"}'
    assert first.text == text
    assert first.digest == hashlib.sha256(f"{'0' * 64}\n{text}".encode()).hexdigest()
    assert second.digest == hashlib.sha256(f"{first.digest}\n{second.text}".encode()).hexdigest()


def test_removed_and_reordered_entries_are_found() -> None:
    first, second = entries()
    assert verify([first, second]) == []
    assert verify([second])
    assert verify([second, first])
    assert verify([first, first])


def test_the_export_is_read_back() -> None:
    assert parse_export(export(entries())) == entries()
    assert verify(parse_export("x\n" + export(entries())))


def test_a_commitment_hides_and_binds() -> None:
    scores = {"J": 0.5}
    expected = hashlib.sha256(b'["ab",{"J":0.5}]').hexdigest()
    assert commitment("ab", scores) == expected
    assert commitment("ac", scores) != expected
