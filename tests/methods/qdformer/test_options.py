"""QDFormer: options and recipes."""

from __future__ import annotations

from typing import Any

import pytest
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.qdformer.options import Options

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import resolve
from avsbench_harness.tasks import AVSS, MS3, S4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decomposition": "none", "recombination": True}, "recombination has no effect without"),
        ({"decomposition": "none", "semantic_layers": 3}, "semantic_layers"),
        ({"decomposition": "continuous", "codebook_size": 8}, "codebook_size"),
        ({"recombination": False, "filter_tokens": "continuous"}, "filter_tokens"),
        ({"calibration": False, "shared_prototypes": True}, "shared_prototypes"),
        ({"calibration": False, "local_init": "global"}, "local_init has no effect without calibration"),
        ({"calibration": "local"}, "calibration"),
        ({"decomposition": "none", "prototypes": "positions"}, "prototypes has no effect"),
        ({"decomposition": "continuous", "codebook_update": "ema"}, "codebook_update"),
        ({"literal": True, "ema_decay": 0.9}, "ema_decay has no effect without codebook_update ema"),
        ({"codebook_update": "ema", "codebook_lr_scale": 50.0}, "without codebook_update loss"),
        ({"decomposition": "continuous", "recombination": False}, "reach nothing"),
        ({"dim": 96, "heads": 7}, "does not divide"),
        ({"dim": 40}, "multiple of 32"),
        ({"tokens": 0}, "tokens"),
        ({"codebook": 5}, "Did you mean 'codebook_size'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options.of(options, S4, "paper")


def test_literal_changes_the_defaults_of_the_codebook_learning() -> None:
    literal, default = Options.of({"literal": True}, S4, "paper"), Options.of({}, S4, "paper")
    assert {
        name: (getattr(literal, name), getattr(default, name))
        for name in Options.model_fields
        if getattr(literal, name) != getattr(default, name)
    } == {
        "literal": (True, False),
        "local_init": ("random", "global"),
        "codebook_update": ("loss", "ema"),
        "codebook_init": ("all_tokens", "kmeans"),
        "unquantized_steps": (0, 100),
        "revive_dead_codes": (False, True),
        "audio_dropout": (0.1, 0.0),
    }
    assert Options.of({"literal": True, "codebook_init": "kmeans"}, S4, "paper").codebook_init == "kmeans"


def test_the_papers_values_are_the_defaults() -> None:
    options = Options.of({}, S4, "paper")
    assert (options.codebook_size, options.tokens) == (128, 5)
    assert (options.decomposition, options.recombination, options.calibration) == ("quantized", True, True)
    for task, epochs, milestone in ((S4, 13, 11), (MS3, 13, 11), (AVSS, 16, 14)):
        recipe = resolve(QDFormer(), task, "r50")
        assert (recipe.epochs, recipe.batch_size, recipe.schedule.milestones) == (epochs, 4, [milestone])
        assert (recipe.schedule.name, recipe.schedule.gamma) == ("step", 0.1)
        optimizer = recipe.optimizer
        assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-4, 5e-4)
        assert optimizer.backbone_lr_scale == 0.5
        assert recipe.protocols == (["confusion"] if task.semantic else ["davis"])
