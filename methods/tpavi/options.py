"""Build options of TPAVI, and the defaults of each variant. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.options import BuildOptions, Unused
from avsbench_harness.tasks import Task

Stage = Annotated[int, Field(ge=1, le=4)]

#: Defaults of the paper that differ from the released code (sections "Cross-modal fusion", "Decoder" and
#: "Objective function"; the extension to avss changes none of them).
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


class Options(BuildOptions):
    """Build options of TPAVI; the defaults are the released configuration.

    Options with the default ``None`` depend on the task in the released code; :meth:`completed` sets them.
    """

    method = "tpavi"
    variant_defaults: ClassVar = {"paper": PAPER}

    dim: PositiveInt = Field(256, multiple_of=8, description="channels of the four levels; the head has 1/8")
    window: PositiveInt | None = Field(
        5, description="frames of a clip that attend to each other; None: all (released code: always 5)"
    )
    fusion: Literal["tpavi", "add", "none"] = Field(
        "tpavi",
        description="audio fusion of a level: the interaction, addition of the frame's audio (A+V), or none",
    )
    fusion_stages: tuple[Stage, ...] = Field(
        (1, 2, 3, 4), min_length=1, description="levels with audio fusion, 1 the finest"
    )
    inplace_relu: bool = Field(
        True, description="skip connections and the matching loss use features after the decoder's first ReLU"
    )
    padding_in_norms: bool = Field(
        True, description="padded frames count in batch norms in training (released: as zero images)"
    )
    audio_bias: bool | None = Field(None, description="bias of the audio projection; released: not for avss")
    avm: Literal["none", "av", "vv"] | None = Field(
        None,
        description="matching loss: masked pixels with their audio (av), or with those of the frame with "
        "the most similar audio (vv); released: none for s4, av for ms3 and avss",
    )
    avm_weight: NonNegativeFloat = Field(0.5, allow_inf_nan=False, description="weight of the matching loss")
    avm_stages: tuple[Stage, ...] = Field(
        (1, 2, 3, 4), min_length=1, description="levels of the matching loss"
    )
    avm_distance: Literal["kl", "euclidean", "cosine"] | None = Field(
        None, description="between features; released: cosine for s4, kl for ms3 and avss"
    )
    avm_normalise: bool | None = Field(
        None, description="normalise features to length 1; released: for s4 only, as train.sh leaves it out"
    )
    avm_hard_mask: bool | None = Field(
        None,
        description="threshold the pooled mask and average over its area, not over the map; released: for s4",
    )
    avm_pool: Literal["logits", "probabilities"] | None = Field(
        None,
        description="input of the pooling to a level's size; released: probabilities for s4, logits for ms3",
    )
    avm_sum: bool | None = Field(
        None, description="sum over the batch's frames instead of the mean; released: for ms3 with kl"
    )
    avm_level_sum: bool = Field(False, description="sum over the levels instead of the mean (released: mean)")
    vv_reads_audio: bool | None = Field(
        None, description="vv compares with the audio and ignores the chosen frame; released: avss with kl"
    )
    vv_self_distance: NonNegativeFloat = Field(
        10.0, description="added to a frame's distance from itself (released: too little if not normalised)"
    )

    def completed(self, task: Task) -> Self:
        """Return the options with the released choice for the task in place of ``None``."""
        released = _released(task, self.avm_distance)
        if self.fusion == "none":
            released["avm"] = "none"  # there is no projected audio to match
        return self.model_copy(
            update={name: value for name, value in released.items() if getattr(self, name) is None}
        )

    def check(self, task: Task) -> None:
        """Refuse a matching loss at levels without projected audio."""
        if self.avm == "none":
            return
        if self.fusion == "none":
            raise UsageError(f"The option avm is '{self.avm}', but with fusion: none no level has audio.")
        without = sorted(set(self.avm_stages) - set(self.fusion_stages))
        if without:
            raise UsageError(
                f"The option avm_stages has level {without[0]}, which has no audio: "
                "it is not in fusion_stages."
            )

    def unused(self, task: Task) -> Iterator[Unused]:
        """Yield options without effect, and the reason."""
        matching = [name for name in type(self).model_fields if name.startswith(("avm_", "vv_"))]
        if self.fusion == "none":
            yield ("window", "audio_bias", "fusion_stages"), "with fusion: none"
        if self.fusion == "add":
            yield ("window",), "with fusion: add, which adds a frame's own audio only"
        if self.avm == "none":
            yield matching, "without a matching loss (avm: none)"
        if self.avm != "vv":
            yield (name for name in matching if name.startswith("vv_")), f"with avm: {self.avm}"
        if task.semantic:
            yield ("avm_pool",), f"on {task.name}, whose mask is the most likely class"


def _released(task: Task, distance: str | None) -> dict[str, Any]:
    """Return the task's defaults in the released code and its train.sh, which has no matching loss for s4."""
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
