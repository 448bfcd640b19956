"""A synthetic audio-visual benchmark, written in the official layouts.

Objects of several kinds move over textured backgrounds. Each kind has its own shape, texture and timbre, and
only some of the visible objects sound. These are drawn independently of the picture, so that a model that
ignores the audio can only guess. The benchmark serves to try the harness without AVSBench; its scores are not
comparable with scores on AVSBench.

:mod:`kinds` defines the kinds, :mod:`scene` plans a clip, :mod:`shapes`, :mod:`textures` and :mod:`sounds`
render it, :mod:`write` writes a benchmark to disk. :mod:`draws` makes the data bitwise reproducible on every
machine: integers, tables of rounded sines, and random numbers from the raw stream of a Philox generator.
"""

from __future__ import annotations

from avsbench_harness.data.synth.write import VERSION, write_synthetic

__all__ = ["VERSION", "write_synthetic"]
