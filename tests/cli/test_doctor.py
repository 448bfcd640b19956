"""``avsb doctor``."""

from __future__ import annotations


def test_doctor_and_weights_list(avsb) -> None:
    facts = avsb("doctor", "--json")
    assert facts.code == 0
    assert facts.json["methods"]["avsegformer"] == "from avsbench-harness"
    assert avsb("doctor").code == 0
    assert avsb("weights", "list", "--json").code == 0


def test_doctor_shows_that_the_data_root_is_missing(avsb, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_DATA_DIR", str(tmp_path / "gone"))
    facts = avsb("doctor", "--json")
    assert facts.code == 0
    assert facts.json["data"].startswith(
        f"The data folder {tmp_path / 'gone'} (AVSB_DATA_DIR) does not exist"
    )
