"""challenge.yaml: reading, writing, messages, and what is published."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.host.definition import check_metrics, read_definition, utc, write_definition


def test_a_definition_survives_its_file(redefine, tmp_path: Path) -> None:
    for changes in ({}, {"parts": {"clips": ["a", "b"]}, "counts": "selected", "late": "unranked"}):
        definition = redefine(**changes)
        write_definition(tmp_path, definition)
        assert read_definition(tmp_path) == definition


def test_private_clips_and_paths_are_not_published(redefine, avs_data) -> None:
    published = redefine().published()
    assert "parts" not in published
    assert str(avs_data) not in str(published)
    assert "seed" not in str(published)


def test_times_are_utc() -> None:
    assert utc("2027-03-01T12:00:00+02:00") == datetime(2027, 3, 1, 10, tzinfo=UTC)
    assert utc("2027-03-01") == datetime(2027, 3, 1, tzinfo=UTC)


def test_phases_exclude_their_end(redefine) -> None:
    definition = redefine()
    assert definition.phase_at(utc("2027-03-10T23:59:59.999999")).name == "development"
    assert definition.phase_at(utc("2027-03-11")).name == "final"
    assert definition.phase_at(utc("2027-03-21")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "Unknown key 'titel'.* Did you mean 'title'"),
        ({"title": "a\nb"}, "'title'"),
        ({"task": "s5"}, "unknown task 's5'"),
        ({"parts": {}}, "needs either the fraction"),
        ({"parts": {"private": 0.5, "clips": ["a"]}}, "needs either the fraction"),
        ({"parts": {"private": 1.0}}, "'parts.private'"),
        ({"phases": []}, "'phases'"),
        ({"phases": [{"name": "x", "start": "2027-01-02", "end": "2027-01-01"}]}, "ends before it starts"),
        (
            {
                "phases": [
                    {"name": "x", "start": "2027-01-01", "end": "2027-02-01"},
                    {"name": "y", "start": "2027-01-31", "end": "2027-03-01"},
                ]
            },
            "'y' starts before 'x' has ended",
        ),
        ({"phases": [{"name": "x", "start": "soon", "end": "2027-01-01"}]}, "not a time such as"),
        ({"limits": {"per_day": 0}}, "'limits.per_day'"),
        ({"limits": {"per_day": "3"}}, "'limits.per_day'"),
        ({"counts": "worst"}, "'counts'"),
        ({"required": ["Paper URL"]}, "required"),
        ({"metrics": ["J", "J"]}, "lists a name twice"),
    ],
)
def test_faults_name_the_key(redefine, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        redefine(**changes)


def test_metrics_belong_to_the_protocol() -> None:
    check_metrics("ms3", "object/1", ["J", "F"])
    with pytest.raises(UsageError, match="Unknown metric of object/1 'mIoU'"):
        check_metrics("ms3", "object/1", ["mIoU"])
    with pytest.raises(UsageError, match="Unknown protocol"):
        check_metrics("ms3", "object/9", ["J"])
    with pytest.raises(UsageError, match="cannot rank"):
        check_metrics("ms3", "combo", ["J"])


def test_a_missing_definition_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="avsb challenge init"):
        read_definition(tmp_path)
