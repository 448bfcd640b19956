"""A synthetic audio-visual benchmark, written in the official layouts.

Objects of several kinds move over textured backgrounds; each kind has its own shape, texture and timbre,
and only some of the visible ones sound. Which ones is drawn apart from the picture, so that a model that
does not listen can only guess. For trying the harness out without AVSBench; a score made on it says nothing
about AVSBench.

:mod:`kinds` lists the kinds, :mod:`scene` plans a clip, :mod:`shapes`, :mod:`textures` and :mod:`sounds`
render it, :mod:`write` puts a benchmark on disk. :mod:`draws` holds what makes all of it the same on every
machine: integers, tables of rounded sines, and random numbers from the raw stream of a Philox generator.
"""

from __future__ import annotations

from avsbench_harness.data.synth.write import VERSION, write_synthetic

__all__ = ["VERSION", "write_synthetic"]
