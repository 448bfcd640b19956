"""Base class of validated data: unknown keys are errors, and an error is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from avsbench_harness.errors import UsageError, suggestion


class Schema(BaseModel):
    """A frozen pydantic model that rejects unknown keys and raises :class:`UsageError`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate ``values``; ``where`` names the file or option that they come from."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            # A misspelt key is also a missing one; the misspelling is the more helpful message.
            found = error.errors(include_url=False)
            first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
            location = [str(part) for part in first["loc"]]
            key = ".".join(location)
            if first["type"] == "extra_forbidden":
                hint = suggestion(location[-1], _fields(cls, location[:-1]))
                raise UsageError(f"Unknown key '{key}' in {where}.{hint}") from None
            if first["type"] == "missing":
                raise UsageError(f"{where} lacks the key '{key}'.") from None
            raise UsageError(
                f"{where}: '{key}' is {first.get('input')!r}, but {_lower(first['msg'])}."
            ) from None


def _fields(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The known keys at a location in a schema."""
    for part in location:
        field = schema.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        schema = inner
    return list(schema.model_fields)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
