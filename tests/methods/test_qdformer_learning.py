"""QDFormer learns from the sound: with other clips' sounds the same weights do worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine import predict as engine
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.launch.one import execute
from avsbench_harness.launch.plan import Request, plan
from avsbench_harness.scoring import score_object, score_submission
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import MS3

METHOD = str(Path(__file__).parents[2] / "methods" / "qdformer")
#: The layout of the paper's network, a quarter of its width, two layers where it has four.
SMALL = {
    "dim": 64, "heads": 4, "ffn_dim": 128, "encoder_layers": 1, "semantic_layers": 1, "decoder_layers": 2,
    "codebook_size": 16, "dropout": 0.0,
}  # fmt: skip
RECIPE = {
    "image_size": 64, "batch_size": 8, "epochs": 16, "clip_norm": 1.0, "augment.flip": 0.5,
    "optimizer.lr": 1.0e-3, "optimizer.backbone_lr_scale": 1.0,
    "validation.every": 16, "validation.first": 16,
}  # fmt: skip
#: How much J falls at least when every clip is given another one's sound. It is 0.046 here; where all sounds
#: get the same codes, as with ``codebook_init: normal`` in such a short training, it is exactly 0.
MARGIN = 0.02
#: How much better J is at least than that of predicting nothing, or everything.
BETTER = 0.15
SEED = 0


@pytest.mark.slow
def test_permuting_the_sounds_lowers_j(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    write_synthetic(root, MS3, (96, 8, 32), seed=SEED, kinds=2)
    assignments = [f"options.{name}={value}" for name, value in SMALL.items()]
    assignments += [f"{name}={value}" for name, value in RECIPE.items()]
    run = plan(
        Request(
            method=METHOD,
            backbone="resnet10t",
            task="ms3",
            data=root,
            preset="smoke",
            assignments=assignments,
            seed=SEED,
            out=tmp_path,
            device="cpu",
        )
    )
    learned = execute(run).scores[0].metrics
    with read_solution(solution_file(run.dataset, "test")) as solution:
        masks = np.stack([truth for _, truth in solution])
    nothing = score_object(np.zeros_like(masks), masks).metrics
    everything = score_object(np.full_like(masks, 255), masks).metrics

    real = engine.audio_inputs

    def permuted(run, split):
        audio = real(run, split)
        ids = [clip.id for clip in run.dataset.clips(split)]
        return {clip_id: audio[other] for clip_id, other in zip(ids, ids[1:] + ids[:1], strict=True)}

    monkeypatch.setattr(engine, "audio_inputs", permuted)
    path = run.method.predict(run, "test")
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "test")) as solution:
        deaf = score_submission(submission, solution).metrics
    print(
        {"seed": SEED, "learned": learned, "permuted": deaf, "nothing": nothing["J"], "all": everything["J"]}
    )
    assert learned["J"] > deaf["J"] + MARGIN, f"seed {SEED}: {learned['J']} against {deaf['J']}"
    assert learned["J"] > max(nothing["J"], everything["J"]) + BETTER, f"seed {SEED}"
