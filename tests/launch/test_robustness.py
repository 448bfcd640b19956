"""Finished runs under swapped audio."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.mini import write_mini
from avsbench_harness.engine import predict as prediction
from avsbench_harness.engine.inputs import audio_inputs
from avsbench_harness.engine.load_weights import load_weights_strict
from avsbench_harness.engine.predict_conditions import predict_conditions
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.launch.execute import execute, train_or_load
from avsbench_harness.launch.robustness import finished_runs, measure_robustness
from avsbench_harness.method import Method
from avsbench_harness.nn.model import Model
from avsbench_harness.results.robustness_faults import robustness_faults
from avsbench_harness.submission import read_submission
from avsbench_harness.tasks import AVSS, S4, Split
from avsbench_harness.weights.tensors import load_tensors, save_tensors

QUICK = ("epochs=1",)


def masks(path: Path) -> dict[str, np.ndarray]:
    with read_submission(path) as submission:
        return dict(submission)


def with_two_birds(real_s4: Path, folder: Path) -> Path:
    """The small real set with the test categories whale, bird and bird."""
    root = Path(shutil.copytree(real_s4, folder))
    data = root / "Single-source" / "s4_data"
    for kind in ("visual_frames", "gt_masks", "audio_wav"):
        for path in (data / kind / "test" / "trumpet").iterdir():
            path.rename(data / kind / "test" / "bird" / path.name)
    table = root / "Single-source" / "s4_meta_data.csv"
    table.write_text(table.read_text().replace("trumpet,test", "bird,test"))
    return root


def gate_closed(run: Run) -> None:
    """Remove the audio from the tiny network: the weights of its gate become 0."""
    state = dict(load_tensors(run.weights_file))
    (name,) = [name for name in state if name.endswith("gate.weight")]
    state[name] = state[name] * 0
    save_tensors(run.weights_file, state)


def gate_opened(run: Run) -> None:
    """Make the audio decisive: one half of the channels adds to the mask, the other half subtracts, and the
    gate selects one half by the sign of the embeddings' first principal component."""
    state = dict(load_tensors(run.weights_file))
    system = build_system(run, pretrained=False).eval()
    load_weights_strict(system, state)
    assert system.encoder is not None
    examples = torch.from_numpy(np.concatenate([*audio_inputs(run, "test").values()]))
    with torch.no_grad():
        embeddings = system.encoder(examples)
    centre = embeddings.mean(0)
    direction = torch.linalg.svd(embeddings - centre)[2][0]
    direction = 100 * direction / ((embeddings - centre) @ direction).std()
    sign = torch.tensor([-1.0, 1.0] * 4)
    values = {
        "gate.weight": sign[:, None] * direction,
        "gate.bias": -sign * (direction @ centre),
        "head.weight": sign[None, :, None, None].repeat(1, 1, 3, 3),
        "head.bias": torch.zeros(1),
    }
    for name in state:
        for end in values:
            if name.endswith(end):
                state[name] = values[end]
    save_tensors(run.weights_file, state)


def test_the_audio_alone_is_that_of_the_pair(planned, tmp_path: Path) -> None:
    """The same masks as in a copy of the data in which the recordings were exchanged."""
    run = planned(tmp_path, *QUICK)
    train_or_load(run)
    gate_opened(run)
    record = measure_robustness(run, "test", ["swapped"])
    with (tmp_path / "results" / "robustness" / f"{run.id}.clips.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["condition"] == "swapped"]
    sources = {row["clip"]: row["source"] for row in rows}
    assert len(set(sources.values())) == 3
    assert all(clip != source for clip, source in sources.items())
    exchanged = Path(shutil.copytree(run.dataset.root, tmp_path / "exchanged"))
    own = {clip.id: clip.audio for clip in run.dataset.clips("test")}
    for clip in open_dataset(exchanged, S4).clips("test"):
        assert clip.audio is not None
        shutil.copy(own[sources[clip.id]], clip.audio)
    other = replace(run, dataset=open_dataset(exchanged, S4), out=tmp_path / "other")
    shutil.copytree(run.folder, other.folder)
    expected = masks(prediction.predict(other, "test"))
    found = masks(tmp_path / "submissions" / f"{run.id}-swapped.npz")
    clean = masks(tmp_path / "submissions" / f"{run.id}.npz")
    assert set(found) == set(expected)
    for clip in found:
        np.testing.assert_array_equal(found[clip], expected[clip])
    overlap = [
        np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1
                 for a, b in zip(clean[clip] >= 128, found[clip] >= 128, strict=True)])
        for clip in found
    ]  # fmt: skip
    assert record.conditions[1].sensitivity == pytest.approx(1 - np.mean(overlap), abs=1e-12)
    assert record.conditions[1].sensitivity > 0
    gain = record.conditions[1].gain
    assert gain is not None
    scores = [entry.score.metrics["J"] for entry in record.conditions]
    assert gain["J"].value == scores[0] - scores[1] != 0


def test_a_model_without_audio_has_no_gain_and_no_sensitivity(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, *QUICK)
    train_or_load(run)
    gate_closed(run)
    record = measure_robustness(run, "test", ["all"])
    clean, *others = record.conditions
    assert len(others) == 10
    for other in others:
        assert other.sensitivity == 0
        assert other.gain is not None
        assert {name: one.value for name, one in other.gain.items()} == {"J": 0, "F": 0}
        assert other.gain["J"].interval == (0, 0)
        assert clean.score == other.score
    assert set(record.unavailable) == {"shifted@1", "shifted@2"}
    assert record.snr is not None
    assert record.snr.values == [clean.score.metrics["J"]] * 6
    assert record.snr.area.value == pytest.approx(clean.score.metrics["J"], abs=1e-12)
    assert list(robustness_faults(tmp_path / "results" / "robustness" / f"{run.id}.json")) == []


def test_only_what_is_missing_is_predicted(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path, *QUICK)
    execute(run)
    predicted: list[str] = []
    real = predict_conditions

    def predict(run: Run, split: Split, names: Sequence[str]) -> dict[str, Path]:
        predicted.extend(names)
        return real(run, split, names)

    monkeypatch.setattr("avsbench_harness.launch.robustness.predict_conditions", predict)
    first = measure_robustness(run, "test", ["swapped"])
    assert predicted == ["swapped"]
    assert measure_robustness(run, "test", ["swapped"]) == first
    assert predicted == ["swapped"]
    path = tmp_path / "results" / "robustness" / f"{run.id}.json"
    path.unlink()
    measure_robustness(run, "test", ["swapped"])
    assert predicted == ["swapped"]
    path.unlink()
    swapped = tmp_path / "submissions" / f"{run.id}-swapped.npz"
    shutil.copy(tmp_path / "submissions" / f"{run.id}.npz", swapped)  # of another condition
    assert measure_robustness(run, "test", ["swapped"]) == first
    assert predicted == ["swapped", "swapped"]
    with read_submission(swapped) as submission:
        assert submission.header.run == f"{run.id}-swapped"
        assert submission.header.note.startswith("audio: swapped, pairs ")
    extended = measure_robustness(run, "test", ["silence", "noise-pink"])
    assert predicted == ["swapped", "swapped", "silence", "noise-pink"]
    assert [entry.condition for entry in extended.conditions] == ["clean", "silence", "noise-pink", "swapped"]
    assert extended.condition("swapped") == first.condition("swapped")
    assert measure_robustness(run, "test", ["silence"]) == extended
    assert list(robustness_faults(path)) == []


def test_maps_of_the_backbone_come_from_the_cache(planned, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    frozen = ("backbone.freeze_epochs=all", "backbone.freeze_norm=true", "options.width=4")
    run = planned(tmp_path, *QUICK, *frozen, "backbone.cache=true")
    execute(run)
    computed: list[int] = []
    real = Model.maps

    def maps(self: Model, batch, frames: Tensor, source: str = "images") -> list[Tensor]:
        if source not in batch.features:
            computed.append(int(frames.sum()))
        return real(self, batch, frames, source)

    monkeypatch.setattr(Model, "maps", maps)
    monkeypatch.setattr("avsbench_harness.engine.cache_features._fill", None)
    measure_robustness(run, "test")
    assert not computed


def test_clips_without_a_pair_are_left_out_of_all_conditions(planned, real_s4: Path, tmp_path: Path) -> None:
    run = planned(tmp_path, *QUICK, data=with_two_birds(real_s4, tmp_path / "data"))
    train_or_load(run)
    record = measure_robustness(run, "test", ["swapped", "silence", "mixed@0"])
    (left,) = record.left_out
    assert left in ("dog_03", "drift_03")
    assert [entry.score.clips for entry in record.conditions] == [2, 2, 2, 2]
    assert len(masks(tmp_path / "submissions" / f"{run.id}.npz")) == 3
    assert set(masks(tmp_path / "submissions" / f"{run.id}-swapped.npz")) == {
        "swan_03", *({"dog_03", "drift_03"} - {left}),
    }  # fmt: skip
    assert list(robustness_faults(tmp_path / "results" / "robustness" / f"{run.id}.json")) == []


@pytest.mark.slow
def test_avss_with_clips_of_two_lengths(planned, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mini(root, [AVSS], (4, 2, 6), seed=5, jobs=1)
    run = planned(tmp_path, *QUICK, data=root, task="avss")
    train_or_load(run)
    record = measure_robustness(run, "test", ["all"])
    assert len(record.conditions) == 13
    swapped = record.condition("swapped")
    assert swapped is not None
    assert set(swapped.gain or ()) == {"mIoU", "F"}
    path = tmp_path / "results" / "robustness" / f"{run.id}.json"
    assert list(robustness_faults(path)) == []
    clean = audio_inputs(run, "test")
    other = audio_inputs(replace(run, condition="swapped"), "test")
    lengths = {clip.id: len(clip.frames) for clip in run.dataset.clips("test")}
    with path.with_suffix(".clips.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["condition"] == "swapped":
                assert lengths[row["clip"]] == lengths[row["source"]]
                np.testing.assert_array_equal(other[row["clip"]], clean[row["source"]])


def test_other_splits_have_a_record_of_their_own(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, *QUICK)
    train_or_load(run)
    assert measure_robustness(run, "val").name == f"{run.id}-val"
    assert sorted(path.name for path in tmp_path.glob("submissions/*")) == sorted(
        f"{run.id}-val{suffix}.npz"
        for suffix in ("", "-silence", "-noise-white", "-noise-pink", "-swapped", "-mixed@10", "-mixed@0",
                       "-mixed@-10")
    )  # fmt: skip
    assert (tmp_path / "results" / "robustness" / f"{run.id}-val.json").is_file()


def test_a_method_that_ignores_the_condition_is_refused(planned, tmp_path: Path, monkeypatch) -> None:
    run = planned(tmp_path, *QUICK)
    train_or_load(run)
    own = type("Own", (type(run.method),), {"predict": lambda self, run, split: prediction.predict(
        replace(run, condition="clean"), split)})  # fmt: skip
    assert isinstance(own(), Method)
    with pytest.raises(AvsbError, match=r"has not written the predictions under the condition 'swapped'"):
        measure_robustness(replace(run, method=own()), "test", ["swapped"])


def test_a_changed_record_is_an_error(planned, tmp_path: Path) -> None:
    run = planned(tmp_path, *QUICK)
    train_or_load(run)
    measure_robustness(run, "test", ["swapped"])
    path = tmp_path / "results" / "robustness" / f"{run.id}.json"
    values = json.loads(path.read_text())
    values["conditions"][1]["gain"]["J"]["value"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"is not valid \(swapped: the gain of J is 0.5, .* remove it"):
        measure_robustness(run, "test")


def test_runs_are_selected_by_id_and_pattern(tmp_path: Path) -> None:
    for name in ("s4-one", "s4-two", "ms3-one", "unfinished"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "unfinished":
            (tmp_path / "runs" / name / "training.json").touch()
    assert finished_runs(["all"], tmp_path) == ["ms3-one", "s4-one", "s4-two"]
    assert finished_runs(["s4-*", "s4-one"], tmp_path) == ["s4-one", "s4-two"]
    with pytest.raises(UsageError, match="Unknown finished run 'unfinished'"):
        finished_runs(["s4-one", "unfinished"], tmp_path)
    with pytest.raises(MissingDataError, match="There are no finished runs in"):
        finished_runs(["all"], tmp_path / "runs")
