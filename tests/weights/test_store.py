from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder, build_audio_encoder
from avsbench_harness.nn.pretrained import add_weights
from avsbench_harness.weights import backbone_names, store
from avsbench_harness.weights.pretrained import pretrained_weights
from avsbench_harness.weights.state_files import check_published_hash, read_state


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """A weights file of the compact audio encoder."""
    torch.manual_seed(0)
    file = tmp_path / "compact.pth"
    torch.save(CompactAudioEncoder().state_dict(), file)
    return file


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _named_after_hash(file: Path, digits: str) -> Path:
    return Path(shutil.copy(file, file.with_name(f"vggish-{digits}.pth")))


def test_an_empty_store():
    assert store.entries() == []
    assert store.find("vggish") is None


def test_added_files_are_found_under_their_hash(compact: Path, tmp_path: Path):
    entry = add_weights("compact", compact)
    assert (entry.name, entry.file, entry.size) == ("compact", "compact.pth", compact.stat().st_size)
    assert entry.sha256 == _sha256(compact)
    assert store.entries() == [entry]
    stored = store.find("compact")
    assert stored == tmp_path / "cache" / "weights" / f"{entry.sha256}.pth"
    assert stored.read_bytes() == compact.read_bytes()


def test_a_later_file_replaces_the_entry_and_keeps_the_earlier_file(compact: Path, tmp_path: Path):
    first = add_weights("compact", compact)
    save_file(CompactAudioEncoder().state_dict(), tmp_path / "new.safetensors")
    second = add_weights("compact", tmp_path / "new.safetensors")
    assert store.entries() == [second]
    assert store.find("compact") == second.path
    assert second.path.suffix == ".safetensors"
    assert first.path.is_file()  # a run may still use it


def test_backbones_by_alias_and_by_timm_name(tmp_path: Path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    entry = add_weights("resnet18", tmp_path / "resnet18.pth")
    assert entry.name == "resnet18.a1_in1k"  # timm's default tag
    assert store.find("resnet18") == store.find("resnet18.a1_in1k") == entry.path
    assert store.find("resnet18.tv_in1k") is None


def test_r50_accepts_the_weights_of_torchvision_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other weights of the same network, such as timm's default, are refused unless declared as custom."""
    file = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), file)
    with pytest.raises(UsageError, match=rf"begins with {_sha256(file)[:8]}, not with 19c8e357 or 0676ba61"):
        add_weights("r50", file)
    with pytest.raises(UsageError, match="does not have the weights of 'resnet50.tv_in1k'"):
        add_weights("resnet50.tv_in1k", file)
    assert store.find("r50") is None
    with pytest.raises(MissingDataError, match="no others are used instead"):
        pretrained_weights("r50")

    assert add_weights("resnet50", file).name == "resnet50.a1_in1k"
    assert store.find("r50") is None  # no fallback to another tag
    own = add_weights("r50", file, custom=True)
    assert own.source == "avsb weights add resnet50.tv_in1k resnet50.pth --custom"
    path, spec = pretrained_weights("r50")
    assert (path, spec.name, spec.sha256) == (own.path, "resnet50", _sha256(file))  # without the tag

    monkeypatch.setitem(backbone_names.KNOWN_FILES, "resnet50.tv_in1k", ("19c8e357", _sha256(file)[:8]))
    known = add_weights("r50", file)
    assert "--custom" not in known.source
    assert pretrained_weights("r50")[1].name == "resnet50.tv_in1k"


def test_a_deleted_file_is_not_found(compact: Path):
    entry = add_weights("compact", compact)
    entry.path.unlink()
    assert store.find("compact") is None
    assert add_weights("compact", compact).path.stat().st_size == entry.size
    assert store.find("compact") == entry.path


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped with its old time"])
def test_a_damaged_file_is_refused_until_it_is_added_again(compact: Path, damage: str, known: bool):
    entry = add_weights("compact", compact)
    if known:
        assert store.find("compact") == entry.path
    before = entry.path.stat()
    if damage == "cut":
        os.truncate(entry.path, 100)
    else:
        content = bytearray(entry.path.read_bytes())
        content[len(content) // 2] ^= 1
        entry.path.write_bytes(content)
        if "time" in damage:
            os.utime(entry.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(
            MissingDataError, match=r"compact.*damaged.*`avsb weights add compact compact\.pth`"
        ):
            store.find("compact")
    add_weights("compact", compact)
    assert store.find("compact") == entry.path


def test_an_unchanged_file_is_hashed_once(compact: Path, monkeypatch: pytest.MonkeyPatch):
    entry = add_weights("compact", compact)
    store.find("compact")
    monkeypatch.setattr(store, "sha256_file", None)
    assert store.find("compact") == entry.path


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_damaged_list_of_verified_files_is_replaced(compact: Path, content: str):
    entry = add_weights("compact", compact)
    stamps = entry.path.with_name("verified.json")
    stamps.write_text(content)
    assert store.find("compact") == entry.path
    assert entry.path.name in json.loads(stamps.read_text())


def test_a_cache_that_cannot_be_written_is_verified_too(compact: Path, monkeypatch: pytest.MonkeyPatch):
    entry = add_weights("compact", compact)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_json", full)
    assert store.find("compact") == entry.path
    entry.path.write_bytes(bytes(entry.size))
    with pytest.raises(MissingDataError, match="damaged"):
        store.find("compact")


FAULTS = {
    "nan": (lambda value: value * float("nan"), r"not all values are numbers: \d+ not finite"),
    "infinite": (lambda value: value + float("inf"), "not finite"),
    "too large": (lambda value: value.double() + 1e300, "not finite"),
    "integer": (lambda value: (100 * value).to(torch.int32), r"\d+ not floating-point \(.* int32"),
    "quantised": (lambda value: (100 * value).to(torch.int8), "Quantised weights are not read"),
    "bool": (lambda value: value > 0, r"not floating-point \(.* bool"),
    "complex": (
        lambda value: value.to(torch.complex64),
        r"not floating-point|does not hold|only named tensors",
    ),
    "meta": (lambda value: value.to("meta"), r"does not hold|only named tensors"),
}


@pytest.mark.parametrize(
    ("fault", "suffix"),
    [(fault, suffix) for fault in FAULTS for suffix in (".pth", ".safetensors")][:-1],  # no meta tensors
)
@pytest.mark.parametrize("model", ["compact", "resnet18"])
def test_values_that_no_network_can_have_are_refused(tmp_path: Path, model: str, fault: str, suffix: str):
    change, message = FAULTS[fault]
    network = CompactAudioEncoder() if model == "compact" else timm.create_model(model)
    state = {
        name: change(value) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    with pytest.raises(UsageError, match=message) as caught:
        add_weights(model, file)
    assert str(file) in str(caught.value)
    assert store.entries() == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_converted(tmp_path: Path, dtype: torch.dtype):
    state = {name: value.to(dtype) for name, value in CompactAudioEncoder().state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    add_weights("compact", tmp_path / "weights.safetensors")
    found = build_audio_encoder("compact", store.find("compact")).state_dict()
    assert all(torch.equal(value, state[name].float()) for name, value in found.items())


def test_hash_digits_in_the_name_must_match(compact: Path):
    good = _named_after_hash(compact, _sha256(compact)[:8])
    bad = _named_after_hash(compact, "10086976")
    assert add_weights("compact", good).file == good.name
    with pytest.raises(UsageError, match=r"vggish-10086976\.pth is not the published file.*SHA-256 10086976"):
        add_weights("compact", bad)
    assert [entry.file for entry in store.entries()] == [good.name]


@pytest.mark.parametrize("name", ["weights.pth", "resnet-50.pth", "epoch-00000012x.pth", "net-ABCDEF01.pth"])
def test_names_without_hash_digits_are_not_checked(compact: Path, name: str):
    check_published_hash(Path(shutil.copy(compact, compact.with_name(name))))


def test_files_that_do_not_fit_are_refused_and_leave_nothing(compact: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"compact\.pth: These weights do not fit 'vggish'"):
        add_weights("vggish", compact)
    with pytest.raises(UsageError, match=r"compact\.pth: These weights do not fit 'resnet18'"):
        add_weights("resnet18", compact)
    with pytest.raises(UsageError, match="There is no weights file"):
        add_weights("vggish", tmp_path / "absent.pth")
    with pytest.raises(UsageError, match=r"Unknown model 'vgish'.* mean 'vggish'"):
        add_weights("vgish", compact)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_index_is_named(compact: Path, tmp_path: Path):
    add_weights("compact", compact)
    index = tmp_path / "cache" / "weights" / "index.json"
    assert set(json.loads(index.read_text())) == {"compact"}
    for content in ("{", "[]", '{"compact": {"sha": 1}}', '{"compact": 3}'):
        index.write_text(content)
        with pytest.raises(UsageError, match=r"index\.json"):
            store.entries()


# --- reading weights files --------------------------------------------------------------------------------

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def _same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"model": {f"module.{name}": tensor for name, tensor in STATE.items()}},
    ],
)
def test_wrappers_are_removed(tmp_path: Path, content: dict[str, Any]):
    torch.save(content, tmp_path / "weights.pth")
    assert _same(read_state(tmp_path / "weights.pth"))


def test_older_torch_files_and_safetensors(tmp_path: Path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "new.safetensors")
    assert _same(read_state(tmp_path / "old.pth"))
    assert _same(read_state(tmp_path / "new.safetensors"))


class _Evil:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_could_run_code_are_refused(tmp_path: Path, zipped: bool):
    file, victim = tmp_path / "evil.pth", tmp_path / "victim"
    torch.save({"a": _Evil(victim)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"evil\.pth asks for the global '\w+\.mkdir'"):
        read_state(file)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", b""),
        ("a.pth", b"hello"),
        ("a.pth", b"PK\x03\x04"),
        ("a.safetensors", b"hello"),
        ("a.safetensors", b""),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        UsageError, match=f"{name} is (empty|not a weights file|not a whole|a damaged zip).*[Ff]etch it again"
    ):
        read_state(tmp_path / name)


@pytest.mark.parametrize("value", [torch.zeros(3), {}, [1], {"a": 1}, {1: torch.zeros(1)}])
def test_files_without_a_state_dict_are_refused(tmp_path: Path, value: Any):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"a\.pth does not hold a state dict"):
        read_state(tmp_path / "a.pth")


# --- published weights ------------------------------------------------------------------------------------


def _converted(folder: Path, number: int) -> dict[str, Any]:
    file = folder / f"converted-{number}.safetensors"
    save_file({"a": torch.full((2,), float(number))}, file)
    return {
        "converted": file, "method": "some", "variant": "released", "task": "s4", "backbone": "r50",
        "file": f"S4_{number}.pth", "source_sha256": hashlib.sha256(bytes([number])).hexdigest(),
    }  # fmt: skip


def test_published_weights_are_listed_with_encoders(compact: Path, tmp_path: Path):
    encoder = add_weights("compact", compact)
    facts = _converted(tmp_path, 1)
    entry = store.add_published(**facts)
    assert entry.name == f"some-released-s4-r50-{facts['source_sha256'][:8]}"
    assert entry.path.suffix == ".safetensors"
    assert _sha256(entry.path) == entry.sha256 != entry.source_sha256
    assert store.published() == [entry]
    assert store.entries() == [encoder, entry]
    assert store.find("compact") == encoder.path
    assert store.add_published(**facts) == entry
    entry.path.unlink()
    assert store.add_published(**facts).path.is_file()


def test_simultaneous_additions_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count = 6
    read = store.entries

    def slowly() -> list[store.Entry]:
        known = read()
        time.sleep(0.03)  # long enough for the others to read the same index
        return known

    monkeypatch.setattr(store, "entries", slowly)
    with ThreadPoolExecutor(count) as pool:
        facts = [_converted(tmp_path, number) for number in range(count)]
        list(pool.map(lambda values: store.add_published(**values), facts))
    assert {entry.file for entry in read()} == {f"S4_{number}.pth" for number in range(count)}
