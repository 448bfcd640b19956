"""Trackio's local store, read back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from avsbench_harness.engine.run import Run
from avsbench_harness.tracking.json_log import read_log


@pytest.mark.parametrize(("stops", "seed"), [((), 0), ((4,), 1)])
def test_the_store_has_the_values_of_the_log_once(
    tracked: Callable[..., Run], stops: tuple[int, ...], seed: int, capsys
) -> None:
    run = tracked("trackio", *stops, seed=seed)
    assert capsys.readouterr().out == ""  # stdout is the command's own
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    names = [record["name"] for record in SQLiteStorage.get_run_records("avsbench")]
    assert names.count(run.id) == 1
    rows = SQLiteStorage.get_logs("avsbench", run.id)
    lines = read_log(run.folder / "log.jsonl")
    trained = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in trained] == [1, 2, 3, 4, 5]
    steps = [line for line in lines if "loss" in line]
    for name in ("loss", "bce", "lr", "gradient_norm"):
        assert [row[f"train/{name}"] for row in trained] == [line[name] for line in steps]
    validated = [row for row in rows if "val/J" in row]
    assert [(row["step"], row["val/J"]) for row in validated] == [
        (line["step"], line["val"]["J"]) for line in lines if "val" in line
    ]
    clip = run.dataset.clips("val")[0].id
    with Image.open(MEDIA_DIR / validated[0][f"val/{clip}"]["file_path"]) as image:
        assert image.size == (5 * 112, 112)
    config = SQLiteStorage.get_run_config("avsbench", run.id)
    assert config["recipe"]["optimizer"]["lr"] == 0.01
