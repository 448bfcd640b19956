"""The measurement of QDFormer's codebook learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from avsbench_methods.qdformer import codebook_study
from avsbench_methods.qdformer.codebook_study import measure
from scipy.stats import entropy

from avsbench_harness.analysis.tokens import audio_tokens
from avsbench_harness.engine import predict
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.errors import UsageError
from avsbench_harness.launch.grid import read_grid
from avsbench_harness.launch.sweep import cells
from avsbench_harness.results.record import read_record
from avsbench_harness.scoring import score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.weights.tensors import load_tensors

GRID = """
method: qdformer
backbone: test_resnet
data: {data}
preset: smoke
set: {{image_size: 64, iterations: 3, select.mode: last, options.dim: 32, options.heads: 4,
  options.ffn_dim: 32, options.encoder_layers: 1, options.semantic_layers: 1, options.decoder_layers: 1,
  options.codebook_size: 8, options.unquantized_steps: 1, options.score_threshold: 0.005}}
rows: [{{name: small, set: {{options.tokens: {tokens}}}}}]
"""


def test_measures(
    real_s4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(data=real_s4, tokens=2))
    codebook_study.main([str(grid), "--out", str(tmp_path)])
    assert "| small | 1 |" in capsys.readouterr().out
    run = cells(read_grid(grid), tmp_path, "cpu")[0].run
    assert run is not None
    measured = measure(run)
    # The record's score is from the submission.
    assert measured["J"] == pytest.approx(read_record(run.record_file).scores[0].metrics["J"], abs=1e-6)

    tokens = np.stack([clip.tokens for clip in audio_tokens(run, "test")]).reshape(-1, 32)
    codes = load_tensors(run.weights_file)["model.quantizer.codebook"].numpy()
    used = np.linalg.norm(tokens[:, None] - codes[None], axis=2).argmin(axis=1)
    _, counts = np.unique(used, return_counts=True)
    assert measured["codes of clips"] == len(counts)
    assert measured["clip perplexity"] == pytest.approx(np.exp(entropy(counts)), rel=1e-5)
    assert 1 <= measured["frame perplexity"] <= 8
    assert 0 <= measured["frames on clip codes"] <= 1

    # The submission with the audio of the next clip.
    real = predict.audio_inputs

    def shifted(run, split):
        audio, ids = real(run, split), [clip.id for clip in run.dataset.clips(split)]
        return {own: audio[ids[(place + 1) % len(ids)]] for place, own in enumerate(ids)}

    monkeypatch.setattr(predict, "audio_inputs", shifted)
    path = run.method.predict(run, "test")
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "test")) as solution:
        swapped = score_submission(submission, solution).metrics["J"]
    assert measured["J swapped"] == pytest.approx(swapped, abs=1e-6)
    assert measured["J swapped"] != measured["J"]


def test_an_invalid_grid_is_a_usage_error(real_s4: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID.format(data=real_s4, tokens=0))
    with pytest.raises(UsageError, match="tokens"):
        codebook_study.main([str(tmp_path / "grid.yaml"), "--out", str(tmp_path)])
