"""The loops that a method trains and predicts with unless it brings its own."""

from __future__ import annotations

from avsbench_harness.engine.predict import predict
from avsbench_harness.engine.train import train
from avsbench_harness.method import Loops

DEFAULT_LOOPS = Loops(train, predict)
