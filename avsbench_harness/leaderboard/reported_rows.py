"""Reported values as rows of one task: one row per result of a method, with every paper that prints it.

Papers cite the same result with different backbones and roundings. Values of one method with the same setting
are one row if they have the same backbone, or the same values to one decimal in all metrics that both print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from avsbench_harness.results.reported import ReportedValue


@dataclass(frozen=True)
class Source:
    """A row of a paper's table, as printed.

    Attributes:
        values: (metric as printed, value in percent).
        canonical: metric of the canonical protocol -> value in percent.
    """

    paper: str
    table: str
    row: str
    backbone: str
    setting: str
    protocol: str
    values: tuple[tuple[str, float], ...]
    canonical: dict[str, float]

    @property
    def text(self) -> str:
        """The printed values."""
        return ", ".join(f"{metric} {value:g}" for metric, value in self.values)


@dataclass(frozen=True)
class ReportedRow:
    """One reported result of a method.

    Attributes:
        backbone: the backbone of the first source.
        backbones: all backbones that the sources print.
        setting: further distinction from other rows, empty if there is none.
        values: metric -> value in percent: that of the method's own paper, else the most frequent one.
        differ: metrics whose values differ by more than 0.1 between the sources.
        sources: the method's own paper first.
    """

    method: str
    backbone: str
    backbones: tuple[str, ...]
    setting: str
    values: dict[str, float]
    differ: tuple[str, ...]
    sources: tuple[Source, ...]

    @property
    def second_hand(self) -> bool:
        """Whether no source was checked against the paper of the method."""
        return all(source.protocol.startswith("second hand") for source in self.sources)


def reported_rows(task: str, values: Iterable[ReportedValue]) -> list[ReportedRow]:
    """The values of the papers' main tables, sorted by method, backbone and setting.

    Args:
        task: name of the task.
        values: reported values; those of other tasks and tables are ignored.
    """
    groups: dict[tuple[str, str], list[Source]] = {}
    for (method, *_), members in _printed_rows(task, values).items():
        source = _source(members)
        groups.setdefault((method, source.setting), []).append(source)
    rows = [
        _row(method, setting, joined)
        for (method, setting), sources in groups.items()
        for joined in _join(sources)
    ]
    return sorted(rows, key=lambda row: (row.method.lower(), row.backbone, row.setting))


def _printed_rows(
    task: str, values: Iterable[ReportedValue]
) -> dict[tuple[str, str, str, str, str], list[ReportedValue]]:
    """The values by method, backbone, paper, table and row."""
    found: dict[tuple[str, str, str, str, str], list[ReportedValue]] = {}
    for value in values:
        if value.main and value.task == task:
            key = (value.method, value.backbone or "", value.paper, value.table, value.row)
            found.setdefault(key, []).append(value)
    return found


def _source(members: list[ReportedValue]) -> Source:
    first = members[0]
    return Source(
        paper=first.paper,
        table=first.table,
        row=first.row,
        backbone=first.backbone or "n/a",
        setting=first.setting or "",
        protocol=", ".join(sorted({value.protocol or "unknown" for value in members})),
        values=tuple((value.metric, value.value) for value in members),
        canonical={value.canonical_metric: value.value for value in members if value.canonical_metric},
    )


def _join(sources: list[Source]) -> list[list[Source]]:
    """Groups of sources that print the same result."""
    groups: list[list[Source]] = []
    for source in sources:
        same = [group for group in groups if any(_same(source, other) for other in group)]
        joined = [member for group in same for member in group] + [source]
        groups = [group for group in groups if group not in same] + [joined]
    return groups


def _same(one: Source, other: Source) -> bool:
    shared = set(one.canonical) & set(other.canonical)
    equal = bool(shared) and all(
        round(one.canonical[name], 1) == round(other.canonical[name], 1) for name in shared
    )
    return one.backbone == other.backbone or equal


def _row(method: str, setting: str, sources: list[Source]) -> ReportedRow:
    ordered = sorted(sources, key=lambda one: (one.paper.lower() != method.lower(), one.paper, one.table))
    values, differ = {}, []
    for metric in dict.fromkeys(name for source in ordered for name in source.canonical):
        printed = [source.canonical[metric] for source in ordered if metric in source.canonical]
        own = [
            source.canonical[metric]
            for source in ordered
            if source.paper.lower() == method.lower() and metric in source.canonical
        ]
        values[metric] = own[0] if own else Counter(printed).most_common(1)[0][0]
        if max(printed) - min(printed) > 0.1:
            differ.append(metric)
    backbones = tuple(dict.fromkeys(source.backbone for source in ordered))
    return ReportedRow(method, backbones[0], backbones, setting, values, tuple(differ), tuple(ordered))
