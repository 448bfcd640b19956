"""AVS-Mini: a small benchmark of real recordings and drawn objects, composed in the official layouts.

The media (recordings of ESC-10 and drawings of seven emoji sets) are part of the package, with their licences
in ``media/sounds.csv`` and ``media/pictures.csv``. Objects of different kinds move over photographs and
textures, and only some of them sound. Which ones is drawn independently of the picture, so that only the
recording reveals it. Recordings, drawings and photographs of a split occur in no other split.

:mod:`media` lists the media, :mod:`sprites` and :mod:`scene` render the pictures, :mod:`sound` mixes the
recordings, :mod:`write` writes a benchmark. The same composer works on other cut-outs and recordings, see
:mod:`collect`.
"""

from __future__ import annotations

from avsbench_harness.data.mini.write import VERSION, write_mini

__all__ = ["VERSION", "write_mini"]
