"""Audio conditions: the recordings with which a trained model predicts the clips of a split.

A condition changes the audio alone; frames, weights and the audio front end are those of ``clean``. A new
condition is one more entry of :data:`CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsbench_harness.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avsbench_harness.data.avsbench.layout import Dataset
    from avsbench_harness.robustness.pairs import Pairs
    from avsbench_harness.tasks import Split

#: The condition in which every clip has its own recording.
CLEAN = "clean"
#: The condition in which every clip has the recording of another clip, see :mod:`.pairs`.
SWAPPED = "swapped"


def _swap_pairs(dataset: Dataset, split: Split) -> Pairs:
    from avsbench_harness.robustness.pairs import swap_pairs  # imports images, which specs do not need

    return swap_pairs(dataset, split)


@dataclass(frozen=True)
class Condition:
    """An audio condition.

    Attributes:
        name: name in files and records.
        pairs: the clips of a split and the clips whose recordings they get; ``None``: their own.
    """

    name: str
    pairs: Callable[[Dataset, Split], Pairs] | None = None


#: All conditions by name.
CONDITIONS = {condition.name: condition for condition in (Condition(CLEAN), Condition(SWAPPED, _swap_pairs))}


def get_condition(name: str) -> Condition:
    """Return the condition of that name; an unknown one is a ``UsageError``."""
    if name not in CONDITIONS:
        raise unknown("audio condition", name, CONDITIONS)
    return CONDITIONS[name]


def condition_note(name: str, dataset: Dataset, split: Split) -> str:
    """Return a remark for the header of a submission that names the pairs; empty for ``clean``."""
    condition = get_condition(name)
    if condition.pairs is None:
        return ""
    return f"audio: {name}, pairs {condition.pairs(dataset, split).fingerprint[:16]}"


def condition_audio(
    name: str, dataset: Dataset, split: Split, clean: Mapping[str, NDArray[np.float32]]
) -> Mapping[str, NDArray[np.float32]]:
    """Return the audio inputs of a split under a condition, without the clips that it leaves out.

    Args:
        name: name of the condition.
        dataset: the data set.
        split: the split.
        clean: per clip id the audio inputs under ``clean``.

    Raises:
        UsageError: the condition leaves out all clips.
    """
    condition = get_condition(name)
    if condition.pairs is None:
        return clean
    sources = condition.pairs(dataset, split).sources
    if not sources:
        raise UsageError(
            f"No two clips of the {split} split of {dataset.root} have different kinds of sounds, so that no "
            "recordings can be swapped."
        )
    return _OtherAudio(clean, sources)


class _OtherAudio(Mapping[str, "NDArray[np.float32]"]):
    """The audio inputs of other clips, by clip id; read when they are accessed.

    Only clips of the same number of frames are paired, so that padded frames are those of the clip itself.
    """

    def __init__(self, audio: Mapping[str, NDArray[np.float32]], sources: Mapping[str, str]) -> None:
        self._audio, self._sources = audio, sources

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        return self._audio[self._sources[clip]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
