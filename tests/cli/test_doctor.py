"""``avsb doctor``."""

from __future__ import annotations


def test_doctor_and_weights_list(avsb) -> None:
    facts = avsb("doctor", "--json")
    assert facts.code == 0
    assert facts.json["methods"]["avsegformer"] == "from avsbench-harness"
    assert avsb("doctor").code == 0
    assert avsb("weights", "list", "--json").code == 0
