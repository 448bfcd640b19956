"""AVSegFormer learns from the sound: on synthetic clips it beats every prediction that does not listen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.layout import open_dataset
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.engine import predict as engine
from avsbench_harness.engine.solutions import solution_file
from avsbench_harness.launch.one import execute
from avsbench_harness.launch.plan import Request, plan
from avsbench_harness.scoring import score_object
from avsbench_harness.submission import read_solution, read_submission
from avsbench_harness.tasks import S4

#: A small AVSegFormer: the layout of the released one, an eighth of its width.
SMALL = {
    "queries": 16, "dim": 64, "encoder_layers": 1, "decoder_layers": 2, "generator_layers": 1, "ffn_dim": 128,
    "mask_mlp_dim": 64, "mask_channels": 32, "dropout": 0.0,
}  # fmt: skip
RECIPE = {
    "image_size": 64, "batch_size": 8, "epochs": 6, "optimizer.lr": 1.0e-3, "clip_norm": 1.0,
    "augment.flip": 0.5, "validation.every": 6, "validation.first": 6,
}  # fmt: skip


@pytest.mark.slow
def test_audio_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    write_synthetic(root, S4, (96, 8, 32), seed=0, kinds=2)
    assignments = [f"options.{name}={value}" for name, value in SMALL.items()]
    assignments += [f"{name}={value}" for name, value in RECIPE.items()]
    run = plan(
        Request(
            method="avsegformer",
            backbone="resnet10t",
            data=root,
            preset="smoke",
            assignments=assignments,
            out=tmp_path,
            device="cpu",
        )
    )
    record = execute(run)
    assert record.data.synthetic
    learned = record.scores[0].metrics

    permuted = score_with_foreign_audio(run, monkeypatch)
    with read_solution(solution_file(open_dataset(root, S4), "test")) as solution:
        masks = np.stack([truth for _, truth in solution])
    nothing = score_object(np.zeros_like(masks), masks).metrics
    everything = score_object(np.full_like(masks, 255), masks).metrics
    print({"learned": learned, "permuted": permuted, "nothing": nothing["J"], "everything": everything["J"]})

    for name in ("J", "F"):
        assert learned[name] > nothing[name] + 0.3
        assert learned[name] > everything[name] + 0.3
        assert learned[name] > permuted[name] + 0.15


def score_with_foreign_audio(run, monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """The scores of the same weights when every clip is given the next one's recording."""
    real = engine.audio_inputs

    def shifted(run, split):
        audio = real(run, split)
        ids = [clip.id for clip in run.dataset.clips(split)]
        return {clip_id: audio[other] for clip_id, other in zip(ids, ids[1:] + ids[:1], strict=True)}

    monkeypatch.setattr(engine, "audio_inputs", shifted)
    path = run.method.predict(run, "test")
    with read_submission(path) as submission, read_solution(solution_file(run.dataset, "test")) as solution:
        from avsbench_harness.scoring import score_submission

        return score_submission(submission, solution).metrics
