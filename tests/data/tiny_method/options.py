"""Build options of the tests' method."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from avsbench_harness.schema import Schema


class Options(Schema):
    """What can be changed about the network."""

    width: PositiveInt = Field(8, description="channels")
    dropout: float = Field(0.2, ge=0, lt=1)
    poison_step: int = Field(0, description="the training step, from 1, whose loss is not a number")
    pretrained: bool | Path = False
    drop_path_rate: float | None = None
