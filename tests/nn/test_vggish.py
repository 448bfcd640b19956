from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbench_harness.errors import UsageError
from avsbench_harness.nn import audio_encoder
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder, build_audio_encoder
from avsbench_harness.nn.vggish import PcaQuantizer, VGGish
from avsbench_harness.testing.seeded import seeded_input, seeded_state
from avsbench_harness.weights import store


@pytest.fixture(scope="module")
def shapes(data: Path) -> dict[str, list[int]]:
    return json.loads((data / "vggish" / "vggish.keys.json").read_text())


@pytest.fixture(scope="module")
def golden(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "vggish" / "vggish_net.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def skeleton() -> VGGish:
    """The whole network on the meta device: it has 72 million weights."""
    with torch.device("meta"):
        return VGGish(postprocess=True).eval()


def test_names_and_shapes_match_the_published_ones(skeleton, shapes):
    assert {name: list(tensor.shape) for name, tensor in skeleton.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == 72_141_184


@pytest.mark.parametrize("seed", [1, 2])
def test_embeddings_match_the_published_ones(skeleton, shapes, golden, seed):
    skeleton.load_state_dict(seeded_state(seed, shapes), assign=True)
    log_mel = seeded_input(seed, "logmel", (5, 1, 96, 64))
    with torch.inference_mode():
        embeddings = skeleton.embeddings(skeleton.features(log_mel).permute(0, 2, 3, 1).flatten(1))
        quantised = skeleton(log_mel)
        components = skeleton.pproc.project(embeddings)
    expected = golden[f"seed{seed}_embedding"]
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-5 * expected.max())
    np.testing.assert_allclose(components, golden[f"seed{seed}_pca"], atol=1e-5)
    np.testing.assert_allclose(quantised, golden[f"seed{seed}_post"], atol=1)  # a tie may round either way
    assert (np.asarray(quantised) == golden[f"seed{seed}_post"]).mean() > 0.99


def test_quantised_embeddings_of_one_example_keep_their_batch_axis():
    codes = PcaQuantizer()(torch.full((1, 128), 9.0))
    assert codes.shape == (1, 128)
    assert (codes == 255).all()


def test_initialisation_preserves_the_signal():
    torch.manual_seed(0)
    log_mel = torch.randn(3, 1, 96, 64) * 1.5 - 2
    with torch.inference_mode():
        embeddings = VGGish()(log_mel)
    assert embeddings.shape == (3, 128)
    assert (embeddings >= 0).all()
    assert embeddings.std() > 0.5  # PyTorch's default initialisation gives less than 0.01
    assert embeddings.std(dim=0).mean() > 0.05


# --- the compact encoder ----------------------------------------------------------------------------------


def _compact(seed: int = 0) -> CompactAudioEncoder:
    torch.manual_seed(seed)
    return CompactAudioEncoder()


def test_compact_encoder_is_small_non_negative_and_independent_of_the_batch():
    encoder = _compact()
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 1_000_000
    log_mel = torch.randn(6, 1, 96, 64) - 2
    embeddings = encoder(log_mel)
    assert embeddings.shape == (6, 128)
    assert (embeddings >= 0).all()
    torch.testing.assert_close(embeddings[2:3], encoder(log_mel[2:3]), atol=1e-5, rtol=1e-5)


def test_compact_encoder_learns_frequency_bands_from_scratch():
    """Classify silent examples with one of four loud bands after 30 steps."""
    encoder = _compact()
    head = torch.nn.Linear(128, 4)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-4)
    random = torch.Generator().manual_seed(1)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = torch.randint(4, (count,), generator=random)
        log_mel = torch.randn(count, 1, 96, 64, generator=random) * 0.5 - 4
        for example, kind in zip(log_mel, kinds, strict=True):
            start = int(torch.randint(80, (), generator=random))
            example[0, start : start + 16, 16 * kind : 16 * kind + 8] += 3
        return log_mel, kinds

    for _ in range(30):
        log_mel, kinds = draw(16)
        loss = torch.nn.functional.cross_entropy(head(encoder(log_mel)), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    log_mel, kinds = draw(32)
    assert (head(encoder(log_mel)).argmax(1) == kinds).float().mean() > 0.9


# --- by name ----------------------------------------------------------------------------------------------


def test_unknown_names_suggest_the_most_similar():
    with pytest.raises(UsageError, match=r"audio encoder 'vgish'.* mean 'vggish'"):
        build_audio_encoder("vgish")


def test_weights_from_a_file(tmp_path: Path):
    trained = _compact(seed=5)
    file = tmp_path / "compact.pth"
    torch.save(trained.state_dict(), file)
    loaded = build_audio_encoder("compact", file)
    log_mel = torch.randn(2, 1, 96, 64)
    torch.testing.assert_close(loaded(log_mel), trained(log_mel), atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_vggish_from_a_published_file_with_pca(tmp_path: Path, shapes):
    state = seeded_state(1, shapes)
    torch.save(state, tmp_path / "vggish.pth")
    loaded = build_audio_encoder("vggish", tmp_path / "vggish.pth").state_dict()
    assert loaded.keys() == {name for name in shapes if not name.startswith("pproc")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_weights_of_another_encoder_are_recognised(tmp_path: Path):
    file = tmp_path / "weights.pth"
    torch.save(_compact().state_dict(), file)
    with pytest.raises(
        UsageError, match=r"weights\.pth: These weights do not fit 'vggish': 'features\.0\.weight'"
    ):
        build_audio_encoder("vggish", file)
    torch.save({"pca_eigen_vectors": torch.eye(128), "pca_means": torch.zeros(128, 1)}, file)
    with pytest.raises(UsageError, match="look like the PCA parameters of VGGish without its network"):
        build_audio_encoder("vggish", file)


def test_the_store_knows_all_encoders():
    assert tuple(audio_encoder._ENCODERS) == store.AUDIO_ENCODERS
