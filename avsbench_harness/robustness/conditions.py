"""Audio conditions: the recordings with which a trained model predicts the clips of a split.

A condition changes the audio alone; frames, weights and the audio front end are those of ``clean``. A new
condition is one more entry of :data:`CONDITIONS`.

=================  =====================================================================================
clean              the clip's own recording
silence            zeros
noise-white        noise with the power of the clip's recording, seeded by the clip's id
noise-pink         the same with power per frequency proportional to 1 / f
swapped            the recording of another clip without a common kind of sound, see :mod:`.pairs`
mixed@SNR          y = s + n sqrt(P_s / (P_n 10^(SNR/10))): the swapped recording n added, SNR in dB
shifted@SECONDS    the clip's own recording, delayed; its end moves to the start (ms3 and avss)
=================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsbench_harness.errors import UsageError, unknown
from avsbench_harness.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avsbench_harness.data.audio.changes import Change, ChangeKind
    from avsbench_harness.data.avsbench.layout import Dataset
    from avsbench_harness.robustness.pairs import Pairs
    from avsbench_harness.tasks import Split

#: The condition in which every clip has its own recording.
CLEAN = "clean"
#: The condition in which every clip has the recording of another clip, see :mod:`.pairs`.
SWAPPED = "swapped"
#: Signal-to-noise ratios of the mixtures, dB, and delays of the shifts, seconds.
SNRS, DELAYS = (20, 10, 5, 0, -5, -10), (1, 2)


def _swap_pairs(dataset: Dataset, split: Split) -> Pairs:
    from avsbench_harness.robustness.pairs import swap_pairs  # imports images, which specs do not need

    return swap_pairs(dataset, split)


@dataclass(frozen=True)
class Condition:
    """An audio condition.

    Attributes:
        name: name in files and records.
        pairs: the clips of a split and the clips whose recordings they get or are mixed with; ``None``:
            their own.
        kind: change of the recordings, see :class:`.data.audio.changes.Change`; ``None``: as they are.
        amount: of the change.
        tasks: names of the tasks that it is meant for.
    """

    name: str
    pairs: Callable[[Dataset, Split], Pairs] | None = None
    kind: ChangeKind | None = None
    amount: int = 0
    tasks: tuple[str, ...] = tuple(TASKS)

    @property
    def negative(self) -> bool:
        """Whether nothing of the clip's own sound remains."""
        return self.kind in ("silence", "white", "pink") or self.name == SWAPPED

    @property
    def snr(self) -> int | None:
        """Signal-to-noise ratio of a mixture, dB."""
        return self.amount if self.kind == "mixed" else None

    def change(self, dataset: Dataset, split: Split) -> Change | None:
        """Return the change of the split's recordings, ``None`` if they are used as they are."""
        from avsbench_harness.data.audio.changes import Change

        if self.kind is None:
            return None
        if self.pairs is None:
            return Change(self.kind, self.amount)
        clips = {clip.id: clip for clip in dataset.clips(split)}
        sources = self.pairs(dataset, split).sources
        return Change(self.kind, self.amount, {clip: clips[source] for clip, source in sources.items()})


#: All conditions by name.
CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition(CLEAN),
        Condition("silence", kind="silence"),
        Condition("noise-white", kind="white"),
        Condition("noise-pink", kind="pink"),
        Condition(SWAPPED, _swap_pairs),
        *(Condition(f"mixed@{snr}", _swap_pairs, "mixed", snr) for snr in SNRS),
        *(Condition(f"shifted@{s}", None, "shifted", s, ("ms3", "avss")) for s in DELAYS),
    )
}

#: The conditions that are measured by default.
DEFAULT_CONDITIONS = (
    CLEAN, "silence", "noise-white", "noise-pink", SWAPPED, "mixed@10", "mixed@0", "mixed@-10",
)  # fmt: skip

#: Selects all conditions.
ALL = "all"


def get_condition(name: str) -> Condition:
    """Return the condition of that name; an unknown one is a ``UsageError``."""
    if name not in CONDITIONS:
        raise unknown("audio condition", name, CONDITIONS)
    return CONDITIONS[name]


def choose_conditions(names: Sequence[str]) -> tuple[str, ...]:
    """Return known conditions in the order of :data:`CONDITIONS`, ``clean`` included.

    Args:
        names: names of conditions, or ``all``; none: the default ones.

    Raises:
        UsageError: a name is unknown.
    """
    if ALL in names:
        return tuple(CONDITIONS)
    chosen = {CLEAN, *(get_condition(name).name for name in names or DEFAULT_CONDITIONS)}
    return tuple(name for name in CONDITIONS if name in chosen)


def unavailable(name: str, dataset: Dataset, split: Split) -> str | None:
    """Return the reason why a split cannot be predicted under a condition, ``None`` if it can."""
    condition = get_condition(name)
    if dataset.task.name not in condition.tasks:
        return f"it is not meant for {dataset.task.name}, whose objects sound all the time"
    if condition.pairs is not None and not condition.pairs(dataset, split).sources:
        return "no two clips have different kinds of sounds, so that no recordings can be swapped"
    clips = dataset.clips(split)
    without = [clip.id for clip in clips if clip.audio is None]
    if without and condition.kind not in (None, "silence"):
        return f"{len(without)} of {len(clips)} clips have a log-mel pickle, but no recording to change"
    return None


def check_available(name: str, dataset: Dataset, split: Split) -> None:
    """Raise a ``UsageError`` if a split cannot be predicted under a condition."""
    reason = unavailable(name, dataset, split)
    if reason is not None:
        raise UsageError(
            f"The {split} split of {dataset.root} cannot be predicted under the condition '{name}': {reason}."
        )


def condition_note(name: str, dataset: Dataset, split: Split) -> str:
    """Return a remark for the header of a submission on pairs and version; empty for ``clean``."""
    from avsbench_harness.data.audio.changes import CHANGE_VERSION

    condition = get_condition(name)
    if condition.name == CLEAN:
        return ""
    note = f"audio: {name}"
    if condition.pairs is not None:
        note += f", pairs {condition.pairs(dataset, split).fingerprint[:16]}"
    return note if condition.kind is None else f"{note}, version {CHANGE_VERSION}"


def condition_audio(
    name: str, dataset: Dataset, split: Split, own: Mapping[str, NDArray[np.float32]]
) -> Mapping[str, NDArray[np.float32]]:
    """Return the audio inputs of a split under a condition, without the clips that it leaves out.

    Args:
        name: name of the condition.
        dataset: the data set.
        split: the split.
        own: per clip id the audio inputs from the clip's own recording, changed if the condition changes it.

    Raises:
        UsageError: the condition is not available.
    """
    check_available(name, dataset, split)
    condition = get_condition(name)
    if condition.pairs is None:
        return own
    sources = condition.pairs(dataset, split).sources
    if condition.kind is not None:  # the change has added the other recordings
        sources = {clip: clip for clip in sources}
    return _OtherAudio(own, sources)


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
