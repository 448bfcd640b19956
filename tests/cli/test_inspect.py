"""``avsb inspect tokens``, with quantized tokens and with separated sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

METHOD = str(Path(__file__).parents[2] / "methods" / "qdformer")
SMALL = {
    "options.dim": 32, "options.heads": 4, "options.ffn_dim": 32, "options.encoder_layers": 1,
    "options.decoder_layers": 1, "options.tokens": 2, "iterations": 1, "image_size": 64,
    "select.mode": "last",
}  # fmt: skip
QUANTIZED = {"options.codebook_size": 4, "options.semantic_layers": 1}
SEPARATED = {"options.decomposition": "none", "audio.separator": "hpss"}


def train(avsb, root: Path, out: Path, *, command: str = "train", method: str = METHOD, **more: object):
    values = {**SMALL, **more} if method == METHOD else more
    sets = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    common = ("--method", method, "--backbone", "resnet10t", "--data", root, "--out", out, "--device", "cpu")
    return avsb(command, *common, "--preset", "smoke", *sets)


@pytest.fixture
def run(avsb, real_s4: Path, tmp_path: Path) -> Path:
    result = train(avsb, real_s4, tmp_path, **QUANTIZED)
    assert result.code == 0, result.err
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_tokens_of_a_run(avsb, run: Path, real_s4: Path) -> None:
    common = ("inspect", "tokens", run.name, "--out", run.parents[1], "--method", METHOD, "--data", real_s4)
    shown = avsb(*common)
    assert shown.code == 0, shown.err
    plot = run / "tokens-test-pca.png"
    assert str(plot) in shown.out.replace("\n", "")
    assert plot.read_bytes().startswith(b"\x89PNG")
    values = avsb("inspect", "tokens", run, *common[3:], "--plot", run / "mine.png", "--json").json
    assert (run / "mine.png").is_file()
    assert values["run"] == run.name
    assert len(values["points"]) % 2 == 0
    point = values["points"][0]
    assert point["classes"]
    assert not point["several"]
    assert point["token"] == 0


def test_invalid_runs_are_usage_errors(avsb, run: Path, real_s4: Path, tiny: str, tmp_path: Path) -> None:
    common = ("--out", run.parents[1], "--method", METHOD, "--data", real_s4)
    assert "Unknown run" in avsb("inspect", "tokens", "no-such-run", *common).err
    other = avsb("inspect", "tokens", run.name, "--out", run.parents[1], "--method", tiny)
    assert other.code == 2
    assert "is a run of qdformer, not of tiny" in other.err
    spec = run / "spec.json"
    values = json.loads(spec.read_text())
    spec.write_text(json.dumps({**values, "data": {**values["data"], "fingerprint": "0"}}))
    assert "The run was not trained on" in avsb("inspect", "tokens", run.name, *common).err


def test_a_model_without_audio_tokens_is_a_usage_error(
    avsb, real_s4: Path, tiny: str, tmp_path: Path
) -> None:
    assert train(avsb, real_s4, tmp_path, method=tiny).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    result = avsb("inspect", "tokens", folder, "--method", tiny, "--data", real_s4)
    assert result.code == 2
    assert "tiny has no audio tokens" in result.err


def test_separated_sources_reach_the_model(avsb, real_s4: Path, tmp_path: Path) -> None:
    result = train(avsb, real_s4, tmp_path, command="run", **SEPARATED)
    assert result.code == 0, result.err
    (folder,) = (tmp_path / "runs").iterdir()
    values = avsb("inspect", "tokens", folder, "--method", METHOD, "--data", real_s4, "--json").json
    assert {point["token"] for point in values["points"]} == {0, 1}  # one for each of the two sources


def test_a_separator_without_effect_is_refused(avsb, real_s4: Path, tiny: str, tmp_path: Path) -> None:
    result = train(avsb, real_s4, tmp_path, method=tiny, **{"audio.separator": "nmf"})
    assert result.code == 2
    assert "tiny takes no separated sources" in result.err
    unknown = train(avsb, real_s4, tmp_path, **{**SEPARATED, "audio.separator": "hps"})
    assert "Did you mean 'hpss'" in unknown.err


def health(avsb, command: str, root: Path, out: Path, *options: object, method: str = METHOD):
    sets = [
        word
        for name, value in {**SMALL, **QUANTIZED, "options.unquantized_steps": 0, "iterations": 2}.items()
        for word in ("--set", f"{name}={value}")
    ]
    run = ("--method", method, "--backbone", "resnet10t", "--data", root, "--out", out, "--device", "cpu")
    return avsb("inspect", command, *run, "--preset", "smoke", *(sets if method == METHOD else ()), *options)


def test_health_of_a_training(avsb, real_s4: Path, tmp_path: Path) -> None:
    page = tmp_path / "health.md"
    values = health(avsb, "gradients", real_s4, tmp_path, "--markdown", page, "--json").json
    assert list(values["steps"]) == ["1", "2"]
    assert "clip_perplexity" in values["steps"]["1"]["diagnostics"]
    modules = {module["name"]: module for module in values["modules"]}
    assert modules["backbone.body.layer1"]["steps"]["1"]["gradient_norm"] > 0
    assert sum(module["steps"]["1"]["share"] for module in modules.values()) == pytest.approx(1)
    assert values["attention"]
    text = page.read_text()
    assert "| backbone.body.layer1 |" in text
    assert "## Attention entropy" in text
    assert text.count("\n- ") == len(values["warnings"])
    assert not (tmp_path / "runs").exists()


def test_attention_of_a_training(avsb, real_s4: Path, tmp_path: Path) -> None:
    result = health(avsb, "attention", real_s4, tmp_path)
    assert result.code == 0, result.err
    assert "Attention entropy" in result.out
    assert "clip_perplexity" in result.out
    assert "Modules" not in result.out


def test_warnings_are_printed(avsb, real_s4: Path, tiny: str, tmp_path: Path) -> None:
    result = health(avsb, "gradients", real_s4, tmp_path, "--set", "optimizer.lr=1.0", method=tiny)
    assert result.code == 0, result.err
    assert "warning: gate has an update-to-weight ratio of" in result.out
