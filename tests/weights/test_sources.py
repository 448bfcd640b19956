"""Runs with given weights: predicting without training, and training that starts from them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import build_system
from avsbench_harness.errors import AvsbError, Busy, MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import execute, train_or_load
from avsbench_harness.launch.import_weights import import_weights
from avsbench_harness.launch.records import notes
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.nn.pretrained import add_weights
from avsbench_harness.submission import read_submission
from avsbench_harness.tasks import AVSS
from avsbench_harness.weights import store

from .publishing import publishing_method


def request(method: str, data: Path, out: Path, *assignments: str, **changes) -> Request:
    return Request(
        **{"method": method, "backbone": "r50", "data": data, "out": out, "device": "cpu", "workers": 0,
           "assignments": assignments, **changes}
    )  # fmt: skip


def masks(submission: Path) -> dict[str, np.ndarray]:
    with read_submission(submission) as opened:
        return dict(opened)


@pytest.fixture
def publishing(tiny: str, tmp_path: Path) -> str:
    """The folder of a method with published weights, whose key prefix is ``net.``."""
    return publishing_method(tiny, tmp_path / "publishing")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def finished(tiny: str, real_s4: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the tiny method with a trained audio encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVSB_CACHE_DIR", str(cache))
        run = plan(request(tiny, real_s4, tmp_path_factory.mktemp("finished"), "epochs=1"))
        execute(run)
    return run


@pytest.fixture
def trained(finished: Run, tmp_path: Path) -> Run:
    """That run in the test's own folder."""
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    return replace(finished, out=tmp_path)


def add_compact(tmp_path: Path) -> None:
    torch.manual_seed(7)
    torch.save(CompactAudioEncoder().state_dict(), tmp_path / "compact.pth")
    add_weights("compact", tmp_path / "compact.pth")


# --- predicting without training --------------------------------------------------------------------------


def test_published_weights_score_as_the_model_that_they_are_of(
    publishing: str, real_s4: Path, tmp_path: Path, own_cache: Path
) -> None:
    frozen = ("audio.freeze=true", "epochs=1")
    add_compact(tmp_path)
    ours = plan(request(publishing, real_s4, tmp_path / "ours", *frozen))
    record = execute(ours)
    state = {f"net.{n.removeprefix('model.')}": v for n, v in load_file(ours.weights_file).items()}
    file = tmp_path / "S4_published.pth"
    torch.save({"model": {**state, "audio.weight": torch.zeros(2)}}, file)
    entry = import_weights(publishing, file, task="s4", backbone="r50").entry

    theirs = plan(request(publishing, real_s4, tmp_path / "theirs", weights=entry.name))
    assert theirs.id != ours.id
    found = execute(theirs)
    assert found.scores == record.scores
    one, two = masks(ours.submission_file("test")), masks(theirs.submission_file("test"))
    assert all(np.array_equal(one[clip], two[clip]) for clip in one)
    assert found.spec is not None
    digest = sha256_file(file)
    assert found.spec["weights"] == {"sha256": digest, "file": file.name, "published": True}
    assert found.spec["audio"]["weights"] == store.entries()[0].sha256
    note = f"Published weights, S4_published.pth (SHA-256 {digest}), not trained here."
    assert found.notes == [note]
    assert found.training is not None
    assert found.training.steps == 0
    assert execute(theirs) == found

    # By a prefix of the id, and by the authors' file; the file's name has no influence.
    renamed = file.rename(tmp_path / "other.pth")
    for asked in (entry.name.rsplit("-", 1)[0], str(renamed), str(entry.path)):
        assert plan(request(publishing, real_s4, tmp_path, weights=asked)).id == theirs.id
    with pytest.raises(
        UsageError, match=r"holds weights of tiny \(released\) for s4 with r50, not .* for ms3"
    ):
        plan(request(publishing, real_s4, tmp_path, task="ms3", weights=entry.name))
    whole, fresh = (
        entry.path.read_bytes(),
        plan(request(publishing, real_s4, tmp_path / "fresh", weights=entry.name)),
    )
    entry.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MissingDataError, match=r"are damaged: .*`avsb weights import tiny \S+\.pth .*`"):
        plan(request(publishing, real_s4, tmp_path, weights=entry.name))
    with pytest.raises(AvsbError, match="has changed since the run was planned, or is damaged"):
        train_or_load(fresh)
    assert import_weights(publishing, renamed, task="s4", backbone="r50").entry.path.read_bytes() == whole
    entry.path.unlink()
    with pytest.raises(
        MissingDataError, match=r"are missing; `avsb weights import tiny \S+ .*` stores them again"
    ):
        plan(request(publishing, real_s4, tmp_path, weights=entry.name))


def test_weights_without_audio_encoder_need_one_from_the_store(
    publishing: str, real_s4: Path, tmp_path: Path, own_cache: Path, trained
) -> None:
    own = {n.removeprefix("model."): v for n, v in load_file(trained.weights_file).items() if "model." in n}
    torch.save({f"net.{name}": value for name, value in own.items()}, tmp_path / "S4.pth")
    with pytest.raises(UsageError, match=r"`avsb weights import METHOD .*S4\.pth --task T --backbone B`"):
        plan(request(publishing, real_s4, tmp_path, weights=str(tmp_path / "S4.pth")))
    import_weights(publishing, tmp_path / "S4.pth", task="s4", backbone="r50")
    for encoder in ("compact", "vggish"):
        with pytest.raises(MissingDataError, match=rf"`avsb weights add {encoder} FILE` adds them"):
            plan(
                request(
                    publishing,
                    real_s4,
                    tmp_path,
                    f"audio.encoder={encoder}",
                    weights=str(tmp_path / "S4.pth"),
                )
            )


def test_a_run_predicts_with_the_weights_of_another(
    trained, tiny: str, real_s4: Path, tmp_path: Path
) -> None:
    asked = {trained.id, str(trained.folder), str(trained.weights_file)}
    runs = [plan(request(tiny, real_s4, tmp_path, "epochs=1", weights=one)) for one in sorted(asked)]
    assert len({run.id for run in runs}) == 1
    assert runs[0].id != trained.id
    record = execute(runs[0])
    assert record.notes == [
        f"Weights of another run, {trained.id}/weights.safetensors (SHA-256 "
        f"{sha256_file(trained.weights_file)}), not trained here."
    ]
    one, two = masks(trained.submission_file("test")), masks(runs[0].submission_file("test"))
    assert all(np.array_equal(one[clip], two[clip]) for clip in one)
    away = tmp_path / "moved.safetensors"
    away.write_bytes(trained.weights_file.read_bytes())
    assert plan(request(tiny, real_s4, tmp_path, "epochs=1", weights=str(away))).id == runs[0].id


def test_weights_that_change_after_planning_are_refused(
    trained: Run, tiny: str, real_s4: Path, tmp_path: Path
) -> None:
    run = plan(request(tiny, real_s4, tmp_path, "epochs=1", weights=trained.id))
    run.folder.mkdir()
    with FileLock(run.folder / ".lock"), pytest.raises(Busy, match="Another process works on"):
        train_or_load(run)
    trained.weights_file.write_bytes(trained.weights_file.read_bytes() + b" ")
    with pytest.raises(AvsbError, match="has changed since the run was planned"):
        train_or_load(run)
    assert not run.weights_file.exists()


def test_the_preset_is_that_of_the_run_with_the_weights(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    run = plan(request(tiny, real_s4, tmp_path, preset="smoke"))
    execute(run)
    assert plan(request(tiny, real_s4, tmp_path, weights=run.id)).spec.preset == "smoke"


@pytest.mark.parametrize(
    ("changes", "assignments", "error", "message"),
    [
        ({"weights": "nothing"}, (), UsageError, "Unknown weights or run 'nothing'"),
        ({"weights": "empty"}, (), MissingDataError, "that run is not trained yet"),
        ({"weights": "broken.safetensors"}, (), UsageError, "is not a whole safetensors file"),
        ({"weights": "RUN", "init": "RUN"}, (), UsageError, "pass one of them"),
        ({"weights": "RUN", "pretrained": True}, (), UsageError, "--pretrained has no effect"),
        ({"init": "RUN", "pretrained": True}, (), UsageError, "--pretrained has no effect"),
        (
            {"weights": "RUN", "backbone": "swin_t"},
            (),
            UsageError,
            "for s4 with r50, not of .* with swin_t",
        ),
        ({"init": "RUN", "backbone": "swin_t"}, (), UsageError, "for s4 with r50, not of .* with swin_t"),
        (
            {"weights": "RUN"},
            ("options.width=4",),
            UsageError,
            "do not fit the run's network: 9 of another",
        ),
        (
            {"init": "RUN"},
            ("options.width=4",),
            UsageError,
            r"\(backbone\.0\.weight \(8, 3, 3, 3\) instead of",
        ),
        ({"init": "RUN"}, ("init_skip=[hed]",), UsageError, "names 'hed', but no entry of the network"),
        ({}, ("init_skip=[head]",), UsageError, "init_skip has no effect without --init"),
        ({"init": "RUN"}, ("audio.encoder=vggish",), UsageError, "do not fit the run's network"),
    ],
)
def test_misfits_are_reported_before_anything_is_computed(
    trained: Run, tiny: str, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict,
    assignments: tuple[str, ...], error: type[AvsbError], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.safetensors").write_bytes(b"no tensors")
    known = {"RUN": trained.id}
    changes = {name: known.get(value, value) for name, value in changes.items()}
    with pytest.raises(error, match=message):
        plan(request(tiny, real_s4, tmp_path, *assignments, **changes))


# --- training from other weights --------------------------------------------------------------------------


def test_training_starts_from_another_runs_weights(trained, tiny: str, real_s4: Path, tmp_path: Path) -> None:
    run = plan(request(tiny, real_s4, tmp_path, "epochs=1", "batch_size=1", init=trained.id))
    scratch = plan(request(tiny, real_s4, tmp_path, "epochs=1", "batch_size=1"))
    assert run.spec.init is not None
    assert run.spec.init.sha256 == sha256_file(trained.weights_file)
    assert run.id != scratch.id
    source, start = load_file(trained.weights_file), build_system(run, pretrained=True).state_dict()
    assert start.keys() == source.keys()
    assert all(torch.equal(start[name], source[name]) for name in source)
    record = execute(run)
    text = f"Training started from weights of another run, {trained.id}/weights.safetensors (SHA-256 "
    assert any(note.startswith(text) for note in record.notes)
    assert not any("random weights" in note for note in record.notes)
    assert record.training is not None
    assert record.training.steps == 4


def test_entries_in_init_skip_keep_their_initial_values(
    trained, tiny: str, real_s4: Path, tmp_path: Path
) -> None:
    run = plan(request(tiny, real_s4, tmp_path, "init_skip=[head.]", seed=3, init=trained.id))
    fresh = build_system(run, pretrained=False).state_dict()
    start, source = build_system(run, pretrained=True).state_dict(), load_file(trained.weights_file)
    for name in source:
        assert torch.equal(start[name], (fresh if name.startswith("model.head.") else source)[name])
    assert not torch.equal(fresh["model.head.weight"], source["model.head.weight"])
    assert any(note.endswith(", except for head..") for note in notes(run.spec))


def test_other_tasks_start_from_it_without_class_heads(trained, tiny: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "avss", AVSS, (1, 1, 1), seed=0, jobs=1)
    asked = request(tiny, tmp_path / "avss", tmp_path, task="avss", init=trained.id)
    with pytest.raises(
        UsageError,
        match=r"2 of another shape \(head\.weight \(1, 8, 3, 3\) instead of \(71, 8, .*init_skip leaves",
    ):
        plan(asked)
    changed = Request(**{**vars(asked), "assignments": ("init_skip=[head]",)})
    start = build_system(plan(changed), pretrained=True).state_dict()
    assert torch.equal(start["model.gate.weight"], load_file(trained.weights_file)["model.gate.weight"])


def test_training_starts_from_published_weights(
    publishing: str, real_s4: Path, tmp_path: Path, own_cache: Path
) -> None:
    add_compact(tmp_path)
    scratch = plan(request(publishing, real_s4, tmp_path, "audio.freeze=true"))
    own = {
        n.removeprefix("model."): v + 1
        for n, v in build_system(scratch, pretrained=False).state_dict().items()
    }
    save_file({f"net.{name}": value for name, value in own.items()}, tmp_path / "S4.safetensors")
    entry = import_weights(publishing, tmp_path / "S4.safetensors", task="s4", backbone="r50").entry
    run = plan(request(publishing, real_s4, tmp_path, "audio.freeze=true", init=entry.name))
    start = build_system(run, pretrained=True).state_dict()
    assert all(torch.equal(start[f"model.{name}"], value) for name, value in own.items())
    assert "from published weights, S4.safetensors" in " ".join(notes(run.spec))


def test_a_trained_encoder_is_not_discarded(
    trained, tiny: str, real_s4: Path, tmp_path: Path, own_cache: Path
) -> None:
    add_compact(tmp_path)
    with pytest.raises(UsageError, match="come with an audio encoder that was trained with them"):
        plan(request(tiny, real_s4, tmp_path, "audio.freeze=true", init=trained.id))


def test_the_hash_covers_all_but_names_and_sources(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    from avsbench_harness.files import sha256_json

    spec = plan(request(tiny, real_s4, tmp_path)).spec
    values = spec.model_dump(mode="json", exclude={"recipe": {"source", "keep", "early_stopping"}})
    assert values["weights"] is None
    assert values["init"] is None
    assert spec.hash == sha256_json(values)


# --- protocols besides the canonical one -------------------------------------------------------------------


def test_protocols_of_the_recipe_are_recorded_with_the_canonical_one(
    avsb, tiny: str, real_s4: Path, tmp_path: Path
) -> None:
    extra = ("epochs=1", "protocols=[davis, confusion, object/1]")
    run = plan(request(tiny, real_s4, tmp_path, *extra))
    record = execute(run)
    assert [entry.protocol for entry in record.scores] == ["object/1", "davis", "confusion"]
    plain = execute(plan(request(tiny, real_s4, tmp_path, "epochs=1")))
    assert record.scores[0] == plain.scores[0]
    run.record_file.unlink()
    assert avsb("score", run.submission_file("test"), "--out", tmp_path).code == 0
    again = json.loads(run.record_file.read_text())
    assert again["scores"] == record.model_dump(mode="json")["scores"]


@pytest.mark.parametrize(
    ("names", "task", "message"),
    [
        ("[davs]", "s4", "Unknown protocol for s4 'davs'. Did you mean 'davis'"),
        ("[davis]", "avss", "names the protocol 'davis', which does not score avss"),
        ("[combo]", "s4", "names the protocol 'combo', which needs the two class scores"),
    ],
)
def test_protocols_that_cannot_score_the_task_are_refused(
    tiny: str, real_s4: Path, tmp_path: Path, names: str, task: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(request(tiny, real_s4, tmp_path, f"protocols={names}", task=task))
