"""Published weights: read in every format, renamed and stored; a file that does not fit is recognised."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.import_weights import candidates, import_weights
from avsbench_harness.method import get_method
from avsbench_harness.tasks import get_task
from avsbench_harness.weights import store
from avsbench_harness.weights.meta import on_meta
from avsbench_harness.weights.published import Likeness, recognise

from .publishing import constants, golden_keys, publishing_method

CASES = [
    ("avsegformer", "released", "r50", "avsegformer/r50_s4", "s4"),
    ("avsegformer", "released", "pvt", "avsegformer/pvt_s4", "ms3"),
    ("avsegformer", "arxiv", "r50", "avsegformer/r50_s4", "s4"),
    ("catr", "released", "pvt", "catr/pvt", "s4"),
    ("combo", "released", "r50", "combo/r50_s4", "s4"),
    ("combo", "released", "pvt", "combo/pvt_s4", "ms3"),
    ("tpavi", "released", "r50", "tpavi/r50_s4", "ms3"),
    ("tpavi", "released", "pvt", "tpavi/pvt_s4", "s4"),
]

#: What authors put around their state dicts, by the kind of file.
FORMATS = ["bare", "model", "module", "state_dict", "numpy", "safetensors", "detectron2"]


@pytest.fixture
def publishing(tiny: str, tmp_path: Path) -> str:
    """The folder of a method with published weights, whose key prefix is ``net.``."""
    return publishing_method(tiny, tmp_path / "publishing")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, which is removed after it: whole networks are large."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path)


def publish(state: dict[str, Tensor], kind: str, folder: Path) -> Path:
    """The state dict as a file of that kind."""
    file = folder / f"{kind}.pth"
    state = {name: value.contiguous() for name, value in state.items()}
    arrays = {name: value.numpy() for name, value in state.items()}
    if kind == "safetensors":
        file = file.with_suffix(".safetensors")
        save_file(state, file)
    elif kind == "detectron2":
        file = file.with_suffix(".pkl")
        content = {"model": arrays, "__author__": "the authors", "matching_heuristics": True}
        file.write_bytes(pickle.dumps(content, 2))
    else:
        wrapped: dict[str, Any] = {
            "bare": state,
            "model": {"model": state, "iteration": 90_000, "optimizer": {"state": {}}},
            "module": {f"module.{name}": value for name, value in state.items()},
            "state_dict": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
            "numpy": {"model": arrays, "best": np.float64(0.5)},
        }
        torch.save(wrapped[kind], file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(("method", "variant", "backbone", "keys", "task"), CASES)
def test_published_names_of_every_method(
    data: Path,
    tmp_path: Path,
    own_cache: Path,
    method: str,
    variant: str,
    backbone: str,
    keys: str,
    task: str,
) -> None:
    state = {**constants(golden_keys(data, keys)), "vggish.features.0.weight": torch.ones(64, 1, 3, 3)}
    if variant == "arxiv":  # the first public code of AVSegFormer
        state = {name: value for name, value in state.items() if ".query_generator." not in name}
    if method == "combo":
        state["audio_backbone.features.0.weight"] = state.pop("vggish.features.0.weight")
    file = publish(state, "model", tmp_path)
    found = import_weights(method, file, task=task, backbone=backbone, variant=variant)
    entry = found.entry
    assert (entry.method, entry.variant, entry.task, entry.backbone) == (method, variant, task, backbone)
    assert (entry.file, entry.source_sha256) == (file.name, sha256_file(file))
    assert any("features.0" in name for name in found.unused)
    plugin = get_method(method)
    model = on_meta(lambda: plugin.build(get_task(task), backbone, variant=variant))
    stored = load_file(entry.path)
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    used = [value for name, value in state.items() if name not in found.unused and value.is_floating_point()]
    expected = sorted(float(value.flatten()[0]) for value in used)
    assert sorted(float(v.flatten()[0]) for v in stored.values() if v.is_floating_point()) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_authors(publishing: str, tmp_path: Path, own_cache: Path, kind: str) -> None:
    network = get_method(publishing).build(get_task("s4"), "r50", variant="released")
    own = {
        name: torch.randn(value.shape, generator=torch.Generator().manual_seed(index))
        if value.is_floating_point()
        else torch.tensor(3)
        for index, (name, value) in enumerate(network.state_dict().items())
    }
    state = {f"net.{name}": value for name, value in own.items()} | {"audio.weight": torch.zeros(3)}
    found = import_weights(publishing, publish(state, kind, tmp_path), task="s4", backbone="r50")
    assert [name.removeprefix("module.") for name in found.unused] == ["audio.weight"]
    stored = load_file(found.entry.path)
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], own[name]) for name in own)


def test_counters_that_old_files_lack_are_zero(publishing: str, tmp_path: Path, own_cache: Path) -> None:
    network = get_method(publishing).build(get_task("s4"), "r50", variant="released")
    state = {f"net.{n}": v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    found = import_weights(publishing, publish(state, "bare", tmp_path), task="s4", backbone="r50")
    assert load_file(found.entry.path)["backbone.1.num_batches_tracked"].item() == 0


def test_weights_that_are_not_finite_are_refused(publishing: str, tmp_path: Path, own_cache: Path) -> None:
    network = get_method(publishing).build(get_task("s4"), "r50", variant="released")
    state = {f"net.{name}": value.clone() for name, value in network.state_dict().items()}
    state[next(iter(state))].view(-1)[0] = float("nan")
    file = publish(state, "bare", tmp_path)
    with pytest.raises(UsageError, match=rf"^{file}: .* 1 not finite .*diverged"):
        import_weights(publishing, file, task="s4", backbone="r50")
    assert store.entries() == []


@pytest.mark.slow
def test_a_file_for_another_task_is_recognised(data: Path, tmp_path: Path, own_cache: Path) -> None:
    keys = {**golden_keys(data, "avsegformer/r50_s4"), "head.fc.4.weight": (71, 32, 1, 1)}
    file = publish(constants(keys), "module", tmp_path)
    with pytest.raises(
        UsageError, match=r"wrong shape.* looks like avsegformer \(released\) for avss with r50\.$"
    ):
        import_weights("avsegformer", file, task="s4", backbone="r50")
    assert store.entries() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "looks"),
    [
        ("avsegformer/pvt_s4", Likeness("avsegformer", "released", "pvt", ("s4", "ms3"), 1.0)),
        ("catr/pvt", Likeness("catr", "released", "pvt", ("s4",), 1.0)),
        ("combo/r50_s4", Likeness("combo", "released", "r50", ("s4", "ms3"), 1.0)),
        ("tpavi/pvt_s4", Likeness("tpavi", "released", "pvt", ("s4", "ms3"), 1.0)),
    ],
)
def test_every_published_model_is_recognised(data: Path, keys: str, looks: Likeness) -> None:
    found = recognise(constants(golden_keys(data, keys)), candidates())
    assert found is not None
    assert replace(found, tasks=looks.tasks) == looks
    assert set(looks.tasks) <= set(found.tasks)


@pytest.mark.slow
def test_a_file_for_another_method_or_backbone_is_recognised(
    data: Path, tmp_path: Path, own_cache: Path
) -> None:
    file = publish(constants(golden_keys(data, "avsegformer/r50_s4")), "bare", tmp_path)
    looks = r"looks like avsegformer \(released\) for s4 or ms3 with r50\.$"
    with pytest.raises(UsageError, match=rf"fit tpavi for s4 with r50: .*{looks}"):
        import_weights("tpavi", file, task="s4", backbone="r50")
    with pytest.raises(UsageError, match=rf"fit avsegformer for s4 with pvt: .*{looks}"):
        import_weights("avsegformer", file, task="s4", backbone="pvt")
    with pytest.raises(UsageError, match=rf"no published weights with the backbone swin_t.*{looks}"):
        import_weights("avsegformer", file, task="s4", backbone="swin_t")


@pytest.mark.slow
def test_a_file_for_another_variant_is_recognised(data: Path, tmp_path: Path, own_cache: Path) -> None:
    keys = golden_keys(data, "avsegformer/r50_s4")
    first = {name: shape for name, shape in keys.items() if ".query_generator." not in name}
    file = publish(constants(first), "bare", tmp_path)
    with pytest.raises(
        UsageError, match=r"85 missing.*looks like avsegformer \(arxiv\) for s4 or ms3 with r50\.$"
    ):
        import_weights("avsegformer", file, task="s4", backbone="r50")


@pytest.mark.slow
def test_a_file_is_recognised_if_the_requested_network_does_not_exist(
    data: Path, tmp_path: Path, own_cache: Path
) -> None:
    file = publish(constants(golden_keys(data, "catr/pvt")), "bare", tmp_path)
    looks = r"looks like catr \(released\) for s4 or ms3 with pvt\.$"
    with pytest.raises(UsageError, match=rf"cannot do avss.*{looks}"):
        import_weights("catr", file, task="avss", backbone="pvt", variant="released")
    with pytest.raises(UsageError, match=rf"Unknown backbone 'pvtv2'.*{looks}"):
        import_weights("catr", file, task="s4", backbone="pvtv2")


@pytest.mark.slow
def test_a_missing_entry_lowers_the_share_that_fits(data: Path, tmp_path: Path, own_cache: Path) -> None:
    keys = golden_keys(data, "catr/pvt")
    del keys["encoder_backbone.patch_embed1.proj.weight"]
    with pytest.raises(UsageError, match=r"1 missing.* \(99% of the entries fit\)\.$"):
        import_weights("catr", publish(constants(keys), "bare", tmp_path), task="s4", backbone="pvt")


@pytest.mark.slow
def test_files_that_fit_no_method_entirely(data: Path, tmp_path: Path, own_cache: Path) -> None:
    keys = golden_keys(data, "tpavi/r50_s4")
    cut = dict(list(keys.items())[5:])
    with pytest.raises(
        UsageError, match=r"looks like tpavi \(released\) for s4 or ms3 with r50 \(99% of the entries fit\)"
    ):
        import_weights("tpavi", publish(constants(cut), "bare", tmp_path), task="s4", backbone="r50")
    other = {"cls_token": (1, 1, 4), "blocks.0.norm.weight": (4,)}
    with pytest.raises(
        UsageError,
        match=r"fits no published weights of the installed methods; it looks like a Vision Transformer\.$",
    ):
        import_weights("tpavi", publish(constants(other), "bare", tmp_path), task="s4", backbone="r50")


@pytest.mark.slow
def test_requests_that_are_refused(tmp_path: Path, own_cache: Path, tiny: str) -> None:
    file = publish({"a": torch.ones(1)}, "bare", tmp_path)
    with pytest.raises(UsageError, match="cannot do avss"):
        import_weights("catr", file, task="avss", backbone="pvt", variant="released")
    with pytest.raises(UsageError, match="Unknown variant of catr 'released2'"):
        import_weights("catr", file, task="s4", backbone="pvt", variant="released2")
    with pytest.raises(UsageError, match="no weights file"):
        import_weights("catr", tmp_path / "none.pth", task="s4", backbone="pvt")
