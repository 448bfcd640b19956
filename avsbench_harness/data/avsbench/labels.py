"""Comparison of the classes in a clip's masks with those that ``metadata.csv`` lists (``a_obj``).

Two mistakes give masks that can be read but hold wrong classes: labels that are counted from 1, as in
AVSBench-semantic's ``label2idx.json``, and colours in the order blue, green, red.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from avsbench_harness.data.masks import swap_channels
from avsbench_harness.tasks import CLASSES

#: What ``a_obj`` contains besides names of classes: nothing visible sounds.
_OFF_SCREEN = "off-the-screen"
#: A misspelled name in one row of the real table.
_MISSPELLED = {"h orse": "horse"}


def listed_classes(category: str) -> frozenset[int] | None:
    """The classes of an ``a_obj`` such as ``man_violin``; ``None`` if it has a name of no class."""
    names = [_MISSPELLED.get(name, name) for name in category.split("_")]
    if any(name not in CLASSES and name != _OFF_SCREEN for name in names):
        return None
    return frozenset(CLASSES.index(name) for name in names if name != _OFF_SCREEN)


def explain_classes(found: Iterable[int], category: str, *, colours: bool = True) -> tuple[str, bool] | None:
    """Compare the classes in a clip's masks with the listed ones.

    Args:
        found: the classes in the masks, background included.
        category: the clip's ``a_obj``.
        colours: whether the masks hold colours instead of labels.

    Returns:
        ``None`` if all classes are listed. Else the end of a sentence, and whether the classes are the listed
        ones after one of the two mistakes, so that the masks are certainly wrong.
    """
    listed = listed_classes(category)
    found = set(found)
    if listed is None or found - {0} <= listed:
        return None

    def agree(change: Callable[[int], int]) -> bool:
        changed = {change(label) for label in found} - {0}
        return min(changed, default=0) >= 0 and changed <= listed

    if 0 not in found and agree(lambda label: label - 1):
        return (
            f"holds labels counted from 1 ({_names(found)} for {category}); subtract 1 from all labels",
            True,
        )
    if colours and agree(swap_channels):
        reason = "holds colours with red and blue swapped"
        return f"{reason} ({_names(found)} for {category}); write the masks as RGB, not BGR", True
    return f"holds the classes {_names(found - listed)}, but metadata.csv lists {category}", False


def _names(classes: Iterable[int]) -> str:
    return ", ".join(CLASSES[label] for label in sorted(classes) if label)
