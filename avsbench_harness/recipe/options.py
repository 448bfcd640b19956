"""Build options of a method: parsing, defaults per variant, and options without effect. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from avsbench_harness.errors import UsageError
from avsbench_harness.schema import Schema
from avsbench_harness.tasks import Task

#: Names of options, and why they have no effect; the reason completes "The option NAME has no effect ...".
Unused = tuple[Iterable[str], str]


class BuildOptions(Schema):
    """Base class of a method's build options: one field per option, with its default and description.

    A subclass sets ``method`` and adds its fields. The defaults of the fields are those of the method's first
    variant; ``variant_defaults`` has what other variants change.
    """

    #: The method's name, for messages.
    method: ClassVar[str]
    #: Defaults of a variant in place of those of the fields.
    variant_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    pretrained: bool | Path = Field(False, description="ImageNet weights for the backbone, or their file")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth of the backbone; None: the method's default"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any], task: Task, variant: str) -> Self:
        """Return the options of a network: the given ones, and defaults of the variant for the others.

        Raises:
            UsageError: an option is unknown, out of range, contradicts another, or has no effect.
        """
        parsed = cls._parsed(options, task, variant)
        parsed.check(task)
        for name, reason in parsed._without_effect(options, task):
            raise UsageError(f"The option {name} has no effect {reason}; leave it out.")
        return parsed

    @classmethod
    def without_effect(cls, options: Mapping[str, Any], task: Task, variant: str) -> list[str]:
        """Return the names of given options that have no effect; none if the options are invalid."""
        try:
            parsed = cls._parsed(options, task, variant)
        except UsageError:
            return []
        return [name for name, _ in parsed._without_effect(options, task)]

    @classmethod
    def _parsed(cls, options: Mapping[str, Any], task: Task, variant: str) -> Self:
        """Return the given options and the defaults for the others, without checks against each other."""
        values = {**cls.defaults(options, task, variant), **options}
        return cls.parse(values, f"the options of {cls.method}").completed(task)

    def _without_effect(self, given: Mapping[str, Any], task: Task) -> Iterator[tuple[str, str]]:
        """Yield the names of given options without effect, and the reasons."""
        for names, reason in self.unused(task):
            yield from ((name, reason) for name in names if name in given)

    @classmethod
    def defaults(cls, options: Mapping[str, Any], task: Task, variant: str) -> Mapping[str, Any]:
        """Return the defaults in place of those of the fields, by default ``variant_defaults``."""
        return cls.variant_defaults.get(variant, {})

    def completed(self, task: Task) -> Self:
        """Return the options with values for fields that are ``None`` because they depend on others."""
        return self

    def check(self, task: Task) -> None:
        """Raise a ``UsageError`` if options contradict each other or do not fit the task."""

    def unused(self, task: Task) -> Iterable[Unused]:
        """Yield the options that have no effect with the others, which may therefore not be given."""
        return ()
