"""The definition of a competition: ``challenge.yaml``, one validated file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from avsbench_harness.errors import UsageError
from avsbench_harness.files import write_text
from avsbench_harness.recipe.yaml_reader import read_yaml
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import get_task

#: Name of the definition in the folder of a competition.
FILE = "challenge.yaml"

#: Number of submissions of a team that count if teams select them.
SELECTED = 2

#: Keys that cannot change once the competition is open.
FROZEN = ("task", "split", "parts")

#: Keys that are not published: they would reveal which clips are private, or where the data lie.
HIDDEN = ("parts", "data")


def utc(text: str) -> datetime:
    """Parse an ISO 8601 time; without a zone it is UTC.

    Raises:
        ValueError: the text is not a time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("it is not a time such as 2027-03-01T12:00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """A time as ISO 8601 in UTC with microseconds, ``2027-03-01T12:00:00.000000Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("it is not a time such as 2027-03-01T12:00:00Z")
    return utc(value)


Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(iso)]
Text = Annotated[str, Field(max_length=20_000)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\A[^\x00-\x1f\x7f]+\z")]
FieldName = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_]{0,39}\z")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Phase(Schema):
    """A period in which submissions are accepted; the end is exclusive."""

    name: Name
    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the phase '{self.name}' ends before it starts")
        return self


class Parts(Schema):
    """The private clips: a fraction drawn with a seed, or a list.

    Attributes:
        private: fraction of the clips whose scores are private.
        seed: random seed of the draw.
        clips: ids of the private clips, instead of a draw.
    """

    private: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    clips: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.private is None) == (not self.clips):
            raise ValueError("parts needs either the fraction 'private' or the list 'clips'")
        return self

    @property
    def choice(self) -> float | tuple[str, ...]:
        """The fraction, or the private clips."""
        return self.clips or self.private or 0.0


class Limits(Schema):
    """Limits of submissions and of their scoring.

    Attributes:
        per_day: accepted submissions of a team per day (UTC).
        total: accepted submissions of a team in all.
        megabytes: size of a submission file, MB (10^6 bytes).
        memory: memory of the scoring process, MB of address space.
        seconds: time of the scoring process.
    """

    per_day: Count = 5
    total: Count = 100
    megabytes: Count = 500
    memory: Annotated[int, Field(ge=512, le=1_000_000)] = 4096
    seconds: Count = 600


class TeamRules(Schema):
    """Rules of teams: whether a contact is required, and whether a team may be renamed."""

    contact: bool = True
    rename: bool = True


class Definition(Schema):
    """A competition.

    Attributes:
        title: shown on all pages.
        description, rules: Markdown.
        task, split: of the submissions.
        data: AVSBench folder, ``mini`` or ``synthetic``.
        protocol: protocol of the scores.
        metrics: metrics of the boards; the first one ranks.
        higher_is_better: direction of the first metric.
        ties: ``interval``: a row shares the rank of the first row of that rank if its score lies in that
            row's 95 % interval; ``date``: of equal scores the earlier submission is ranked first.
        parts: public and private clips.
        phases: in order, without overlap.
        limits: of submissions.
        counts: the submission that counts: ``best`` public score, ``last``, or up to two ``selected`` ones.
        teams: rules of teams.
        required: names of fields that each submission must have, such as paper, code, external_data.
        late: ``refuse``, or ``unranked``: late submissions are scored but not ranked.
    """

    title: Name
    description: Text = ""
    rules: Text = ""
    task: str
    split: Literal["val", "test"] = "test"
    data: str
    protocol: str
    metrics: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10)]
    higher_is_better: bool = True
    ties: Literal["interval", "date"] = "interval"
    parts: Parts
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=20)]
    limits: Limits = Limits()
    counts: Literal["best", "last", "selected"] = "best"
    teams: TeamRules = TeamRules()
    required: Annotated[tuple[FieldName, ...], Field(max_length=10)] = ()
    late: Literal["refuse", "unranked"] = "refuse"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            get_task(self.task)
        except UsageError as error:
            raise ValueError(str(error).rstrip(".")) from None
        for first, second in zip(self.phases, self.phases[1:], strict=False):
            if second.start < first.end:
                raise ValueError(f"the phase '{second.name}' starts before '{first.name}' has ended")
        for name, values in (("metrics", self.metrics), ("required", self.required)):
            if len(set(values)) < len(values):
                raise ValueError(f"'{name}' lists a name twice")
        return self

    @property
    def end(self) -> datetime:
        """The end of the last phase."""
        return self.phases[-1].end

    def phase_at(self, moment: datetime) -> Phase | None:
        """The phase at a time, or ``None``."""
        return next((phase for phase in self.phases if phase.start <= moment < phase.end), None)

    def published(self) -> dict[str, Any]:
        """JSON values without what would reveal the private clips."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in HIDDEN}


def read_definition(folder: Path) -> Definition:
    """Read ``challenge.yaml`` of a folder.

    Raises:
        UsageError: there is none, or it is not valid; the message names the key.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"There is no {path}; create a competition with `avsb challenge init {folder}`.")
    return Definition.parse(read_yaml(path), str(path), "the definition of a competition")


def write_definition(folder: Path, definition: Definition) -> Path:
    """Write ``challenge.yaml`` and return its path."""
    path = folder / FILE
    values = definition.model_dump(mode="json", exclude_none=True)
    head = "# A competition of avsb challenge; docs/hosting.md describes the keys. Times are UTC.\n"
    write_text(path, head + yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))
    return path


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def check_metrics(task: str, protocol: str, metrics: Iterable[str]) -> None:
    """Refuse unknown protocols and metrics, and a first metric without an interval.

    Raises:
        UsageError: the message names the known ones.
    """
    from avsbench_harness.errors import unknown
    from avsbench_harness.scoring import get_protocol

    chosen = get_protocol(task, protocol)
    if chosen.needs_scores:
        raise UsageError(f"Protocol '{protocol}' {chosen.needs_scores}, so it cannot rank a competition.")
    if chosen.side is not None:
        raise UsageError(f"Protocol '{protocol}' needs predictions at {chosen.side} pixels; choose another.")
    for metric in metrics:
        if metric not in chosen.main:
            raise unknown(f"metric of {protocol}", metric, chosen.main)
