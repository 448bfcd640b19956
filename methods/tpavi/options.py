"""What can be changed about the network, and what the variants are: sets of defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

Stage = Annotated[int, Field(ge=1, le=4)]

#: What the paper describes, where it differs from the released code (sections "Cross-modal fusion", "Decoder"
#: and "Objective function"; the extension to avss changes none of it).
PAPER: dict[str, Any] = {
    "window": None,  # N = T x h x w: all frames of the clip
    "inplace_relu": False,  # Z_i itself, in the decoder and in the matching loss
    "padding_in_norms": False,  # clips have no padding there
    "audio_bias": True,  # one linear layer for every task
    "avm_distance": "kl",
    "avm_normalise": False,
    "avm_hard_mask": False,  # M_i is the prediction, average-pooled to the level
    "avm_pool": "probabilities",
    "avm_sum": False,
    "avm_level_sum": True,  # L_AVM is a sum over the n stages
    "vv_reads_audio": False,
}


class Options(Schema):
    """Build options of TPAVI; the defaults are the released configuration.

    Where ``None`` is a default, the release decides by task; :meth:`of` puts its choice in.
    """

    dim: PositiveInt = Field(256, multiple_of=8, description="channels of the four levels; the head has 1/8")
    window: PositiveInt | None = Field(
        5, description="frames of a clip that see each other; None: all (released code: always 5)"
    )
    fusion: Literal["tpavi", "add", "none"] = Field(
        "tpavi",
        description="how a level hears: the interaction, its frame's sound added (A+V), or not at all",
    )
    fusion_stages: tuple[Stage, ...] = Field(
        (1, 2, 3, 4), min_length=1, description="levels that hear, 1 the finest"
    )
    inplace_relu: bool = Field(
        True, description="skips, and the features that the loss sees, went through the decoder's first ReLU"
    )
    padding_in_norms: bool = Field(
        True, description="in training, batch norms see frames that do not exist (released: as zero images)"
    )
    audio_bias: bool | None = Field(None, description="in the sound's projection; released: not for avss")
    avm: Literal["none", "av", "vv"] | None = Field(
        None,
        description="matching loss: masked pixels with their sound (av), or with those of the frame that "
        "sounds most alike (vv); released: none for s4, av for ms3 and avss",
    )
    avm_weight: NonNegativeFloat = Field(0.5, allow_inf_nan=False, description="weight of the matching loss")
    avm_stages: tuple[Stage, ...] = Field((1, 2, 3, 4), min_length=1, description="levels it looks at")
    avm_distance: Literal["kl", "euclidean", "cosine"] | None = Field(
        None, description="between features; released: cosine for s4, kl for ms3 and avss"
    )
    avm_normalise: bool | None = Field(
        None, description="features to length 1 before; released: for s4 only, as train.sh leaves it out"
    )
    avm_hard_mask: bool | None = Field(
        None,
        description="threshold the pooled mask and average over its area, not over the map; released: for s4",
    )
    avm_pool: Literal["logits", "probabilities"] | None = Field(
        None, description="what is pooled to a level's size; released: probabilities for s4, logits for ms3"
    )
    avm_sum: bool | None = Field(
        None, description="sum over the batch's frames, not their mean; released: for ms3 with kl"
    )
    avm_level_sum: bool = Field(False, description="sum over the levels, not their mean (released: mean)")
    vv_reads_audio: bool | None = Field(
        None, description="vv compares with the sound and ignores the frame it picked; released: avss with kl"
    )
    vv_self_distance: NonNegativeFloat = Field(
        10.0, description="added to a frame's distance from itself (released: too little if not normalised)"
    )
    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth; None: 0.1 for pvt as released, else timm's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task, variant: str = "released") -> Self:
        """A variant's options, with the given ones in place of its defaults.

        What neither says, such as whether the task has a matching loss, is as released for the task.

        Raises:
            UsageError: one is unknown, out of range, or without effect.
        """
        defaults = PAPER if variant == "paper" else {}
        parsed = cls.parse({**defaults, **options}, "the options of tpavi")
        released = _released(task, parsed.avm_distance)
        if parsed.fusion == "none":
            released["avm"] = "none"  # there is no projected sound to match
        chosen = parsed.model_copy(
            update={name: value for name, value in released.items() if getattr(parsed, name) is None}
        )
        for name in sorted(options):
            reason = chosen._idle(name, task)
            if reason:
                raise UsageError(f"The option {name} has no effect {reason}; leave it out.")
        chosen._check_stages()
        return chosen

    def _check_stages(self) -> None:
        """Refuse a matching loss at levels that have no projected sound."""
        if self.avm == "none":
            return
        if self.fusion == "none":
            raise UsageError(f"The option avm is '{self.avm}', but with fusion: none no level has a sound.")
        deaf = sorted(set(self.avm_stages) - set(self.fusion_stages))
        if deaf:
            raise UsageError(
                f"The option avm_stages has level {deaf[0]}, which hears nothing: it is not in fusion_stages."
            )

    def _idle(self, name: str, task: Task) -> str:
        """Why an option has no effect, or nothing."""
        if name in ("window", "audio_bias", "fusion_stages") and self.fusion == "none":
            return "with fusion: none"
        if name == "window" and self.fusion == "add":
            return "with fusion: add, where a frame hears itself alone"
        if name.startswith(("avm_", "vv_")) and self.avm == "none":
            return "without a matching loss (avm: none)"
        if name.startswith("vv_") and self.avm != "vv":
            return f"with avm: {self.avm}"
        if name == "avm_pool" and task.semantic:
            return f"on {task.name}, whose mask is the most likely class"
        return ""


def _released(task: Task, distance: str | None) -> dict[str, Any]:
    """For what is left open: what the released code and its train.sh do; s4's matching loss is off there."""
    single = task.name == "s4"
    distance = distance or ("cosine" if single else "kl")
    return {
        "audio_bias": not task.semantic,
        "avm": "none" if single else "av",
        "avm_distance": distance,
        "avm_normalise": single,
        "avm_hard_mask": single,
        "avm_pool": "probabilities" if single else "logits",
        "avm_sum": distance == "kl" and not task.semantic,
        "vv_reads_audio": distance == "kl" and task.semantic,
    }
