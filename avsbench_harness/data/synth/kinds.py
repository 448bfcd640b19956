"""The 70 kinds of objects: their appearance and their timbre.

Shape, texture, hue and timbre cycle through their lists at different strides, so that no two kinds share
shape and texture, or timbre and register, and neighbouring kinds differ in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from avsbench_harness.tasks import CLASSES

#: The categories of S4 in the order of its table; kind ``k`` is written to the folder of the k-th.
S4_CATEGORIES: tuple[str, ...] = (
    "helicopter", "mynah_bird_singing", "typing_on_computer_keyboard", "playing_violin",
    "playing_glockenspiel", "playing_piano", "lions_roaring", "baby_laughter", "male_speech", "lawn_mowing",
    "playing_ukulele", "playing_tabla", "driving_buses", "cap_gun_shooting", "chainsawing_trees",
    "playing_acoustic_guitar", "cat_meowing", "female_singing", "ambulance_siren", "dog_barking",
    "horse_clip-clop", "coyote_howling", "race_car",
)  # fmt: skip

SHAPES: tuple[str, ...] = (
    "disk", "star", "square", "heart", "ring", "arrow", "leaf", "cross", "drop", "gear", "triangle",
    "crescent", "flower", "bowtie",
)  # fmt: skip
TEXTURES: tuple[str, ...] = (
    "plain", "stripes", "dots", "rings", "checker", "zigzag", "sectors", "blotches", "grid", "speckle",
    "bricks",
)  # fmt: skip
TIMBRES: tuple[str, ...] = (
    "organ", "bursts", "siren", "clicks", "vowel", "hiss", "pluck", "chirp", "motor", "bell", "tremolo",
    "warble",
)  # fmt: skip

#: Unit of hues: 1536ths of the colour circle.
HUES = 1536


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        index: index, from 0; its class in AVSS is one more.
        shape: name of the outline, see :mod:`shapes`.
        texture: name of the texture, see :mod:`textures`.
        hue: mean hue in 1536ths of the colour circle; instances differ from it by at most 100.
        timbre: name of the timbre, see :mod:`sounds`.
        register: 0 to 5, the pitch range within that timbre.
    """

    index: int
    shape: str
    texture: str
    hue: int
    timbre: str
    register: int


def _kind(index: int) -> Kind:
    return Kind(
        index=index,
        shape=SHAPES[index % len(SHAPES)],
        texture=TEXTURES[4 * index % len(TEXTURES)],
        hue=949 * index % HUES,  # golden section of the circle: neighbours differ strongly
        timbre=TIMBRES[index % len(TIMBRES)],
        register=index // len(TIMBRES),
    )


KINDS: tuple[Kind, ...] = tuple(_kind(index) for index in range(len(CLASSES) - 1))
