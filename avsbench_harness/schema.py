"""Base class of validated data: unknown keys and wrong types are errors, and an error is one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from avsbench_harness.errors import UsageError, one_line, suggestion


def _make_scalars_strict(schema: Any) -> None:
    """Set ``strict`` on all numbers and booleans of a core schema."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        for part in schema.values():
            _make_scalars_strict(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _make_scalars_strict(part)


class Schema(BaseModel):
    """A frozen pydantic model that rejects unknown keys and raises :class:`UsageError`.

    Numbers, booleans and text are not converted into each other, and numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make the scalars strict; lists are still accepted for tuples, and text for paths."""
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema

    @classmethod
    def parse(cls, values: object, where: str, what: str = "valid") -> Self:
        """Validate values by name.

        Args:
            values: a mapping.
            where: the file or option that they come from.
            what: completes "WHERE is not ..." if they are no mapping.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"{where} is not {what}: expected a JSON object.")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            # A misspelt key is also a missing one; the misspelling is the more helpful message.
            found = error.errors(include_url=False)
            first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
            location = [str(part) for part in first["loc"]]
            key = one_line(".".join(location), 100)
            if first["type"] == "extra_forbidden":
                hint = suggestion(location[-1], _fields(cls, location[:-1]))
                raise UsageError(f"Unknown key '{key}' in {where}.{hint}") from None
            if first["type"] == "missing":
                raise UsageError(f"{where} lacks the key '{key}'.") from None
            if not key:  # a rule about several keys
                raise UsageError(f"{where}: {_message(first)}.") from None
            value = one_line(repr(first.get("input")), 100)
            raise UsageError(f"{where}: '{key}' is {value}, but {_message(first)}.") from None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Check that all numbers are finite, as in JSON."""
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"it has {value}, which is not a finite number")
    return values


#: Free values by name, as a recipe's ``options``: plain values without infinite numbers and NaN.
PlainValues: TypeAlias = Annotated[dict[str, Any], AfterValidator(_plain)]


def _fields(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The known keys at a location in a schema."""
    for part in location:
        field = schema.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        schema = inner
    return list(schema.model_fields)


def _message(error: Any) -> str:
    """Pydantic's message, as the end of a sentence."""
    text = one_line(str(error["msg"]).removeprefix("Value error, "), 300)
    return text[:1].lower() + text[1:]
