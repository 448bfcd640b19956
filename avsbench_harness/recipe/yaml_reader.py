"""Bounded reading of YAML: plain values of the JSON types, as in YAML 1.2. Imports no torch.

YAML files may come from strangers. A file is limited in size and depth. Everything that PyYAML would convert
or expand silently is an error or stays text: keys given twice, aliases, tags, merge keys, octal and
sexagesimal numbers, dates, and ``yes``, ``no``, ``on`` and ``off``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from avsbench_harness.errors import UsageError, one_line

#: Limits of a YAML file: bytes, levels of nesting, and characters of a number.
MAX_BYTES = 128 * 1024
MAX_DEPTH = 20
MAX_DIGITS = 40

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and tags, with YAML 1.2's scalars, and with limits."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node; refuse aliases, anchors, tags and deep nesting."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ConstructorError(None, None, "anchors and aliases are not supported", event.start_mark)
        if event.tag is not None:
            raise ConstructorError(None, None, "tags are not supported", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise ConstructorError(None, None, "it is nested too deeply", event.start_mark)
        self.depth += 1
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; keys are text and unique."""
        found: set[str] = set()
        for key, _ in node.value:
            if not (isinstance(key, ScalarNode) and key.tag == "tag:yaml.org,2002:str"):
                raise ConstructorError(None, None, "a key must be text", key.start_mark)
            if key.value in found:
                raise ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            found.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        """Construct a scalar; refuse control characters and lone surrogates."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and _CONTROL.search(value):
            raise ConstructorError(None, None, "text must not have control characters", node.start_mark)
        return value


_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", rf"[-+]?(?:0|[1-9][0-9]{{0,{MAX_DIGITS}}})", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:0|[1-9][0-9]{0,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}",
        re.compile(rf"(?:{_pattern})\Z"),
        ["" if character == "\0" else character for character in _first],
    )


def parse_yaml(text: str) -> Any:
    """Parse YAML text into plain values.

    Raises:
        ValueError: the text is not valid, or has something that is not supported; one line.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise ValueError(one_line(error.problem or error, 200) + where) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(one_line(error, 200)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with plain values; anything else is a ``UsageError``."""
    try:
        with path.open("rb") as file:
            values = parse_yaml(file.read(MAX_BYTES + 1).decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {one_line(error)}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold keys and values, not {type(values).__name__}.")
    return values
