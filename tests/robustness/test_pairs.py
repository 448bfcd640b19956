"""Swap pairs, compared with an exhaustive search."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.clip import Clip
from avsbench_harness.data.mini.media import class_index, mini_media
from avsbench_harness.data.mini.scene import Scene
from avsbench_harness.data.mini.sound import draw_voices
from avsbench_harness.data.mini.write import _STYLES, _SUBSETS, CLIPS
from avsbench_harness.data.synth.draws import Draws
from avsbench_harness.robustness.pairs import (
    LISTS,
    Candidate,
    Pairs,
    assign,
    list_file,
    make_pairs,
    sounding_kinds,
    swap_pairs,
    write_list,
)
from avsbench_harness.tasks import AVSS, MS3, S4, SPLITS, TASKS


def candidates(*clips: tuple[str, str, int]) -> list[Candidate]:
    return [Candidate(name, frozenset(kinds.split()), frames) for name, kinds, frames in clips]


MIXED = candidates(
    ("e", "dog", 5), ("a", "dog cat", 5), ("c", "bird", 5), ("b", "cat", 5), ("d", "", 5), ("f", "bird", 5)
)


def search(clips: list[Candidate], name: str, seed: int) -> dict[str, str]:
    """The permitted permutation with the least sum of costs."""
    ids = sorted(clip.id for clip in clips)
    by_id = {clip.id: clip for clip in clips}
    cost = {}
    for one in ids:
        stream = hashlib.shake_256(f"{name}/{seed}/{one}".encode()).digest(4 * len(ids))
        for place, two in enumerate(ids):
            cost[one, two] = int.from_bytes(stream[4 * place : 4 * place + 4], "little")
    permitted = [
        order
        for order in itertools.permutations(ids)
        if all(
            one != two and not by_id[one].kinds & by_id[two].kinds
            for one, two in zip(ids, order, strict=True)
        )
    ]
    best = min(permitted, key=lambda order: sum(cost[pair] for pair in zip(ids, order, strict=True)))
    return dict(zip(ids, best, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_the_assignment_is_the_cheapest_of_all(seed: int) -> None:
    found = assign(MIXED, "s4/test", seed)
    assert found.sources == search(MIXED, "s4/test", seed)
    assert found.left_out == ()


def test_the_pairs_never_change() -> None:
    """Written down once: other versions and machines must give the same pairs."""
    found = assign(MIXED, "s4/test")
    assert found.sources == {"a": "d", "b": "e", "c": "a", "d": "f", "e": "c", "f": "b"}
    text = '[["a","d"],["b","e"],["c","a"],["d","f"],["e","c"],["f","b"]]'
    assert found.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_order_has_no_effect_but_seed_and_name_have() -> None:
    clips = candidates(*((f"clip{index}", f"kind{index}", 5) for index in range(20)))
    first = assign(clips, "ms3/test")
    assert assign(clips[::-1], "ms3/test") == first
    assert assign(clips, "ms3/test", 1) != first
    assert assign(clips, "ms3/val") != first


def test_clips_of_another_length_are_no_pairs() -> None:
    found = assign(candidates(("a", "dog", 5), ("b", "cat", 10), ("c", "bird", 10), ("d", "cow", 5)), "x")
    assert found.sources == {"a": "d", "d": "a", "b": "c", "c": "b"}


def test_each_recording_is_used_once_and_the_rest_is_left_out() -> None:
    """Three dogs and one cat: one dog gets the cat's recording, the cat that of a dog."""
    found = assign(candidates(("a", "dog", 5), ("b", "dog", 5), ("c", "dog", 5), ("d", "cat", 5)), "x")
    assert len(found.sources) == 2
    assert found.sources["d"] in "abc"
    assert [clip for clip, source in found.sources.items() if source == "d"] == [
        clip for clip in "abc" if clip not in found.left_out
    ]
    alike = assign(candidates(("a", "dog", 5), ("b", "dog cat", 5)), "x")
    assert (alike.sources, alike.left_out) == ({}, ("a", "b"))
    assert assign([], "x").left_out == ()


def clip(category: str) -> Clip:
    return Clip("id", (Path("1.png"),), (None,), None, None, category, "s4")


def test_kinds_come_from_the_tables(real_s4: Path) -> None:
    single = open_dataset(real_s4, S4)
    assert [sounding_kinds(single, "test", one) for one in single.clips("test")] == [
        {"whale"},
        {"bird"},
        {"trumpet"},
    ]
    assert sounding_kinds(single, "test", clip("")) == frozenset()


@pytest.mark.parametrize(
    ("category", "kinds"),
    [
        ("man_violin", {"man", "violin"}),
        ("h orse", {"horse"}),
        ("man_off-the-screen", {"man"}),
        ("off-the-screen", set()),
        ("gramophone_man", {"gramophone", "man"}),
    ],
)
def test_kinds_of_avss_are_the_listed_classes(composed: Path, category: str, kinds: set[str]) -> None:
    dataset = replace(open_dataset(composed, AVSS), composed=None)
    assert sounding_kinds(dataset, "test", clip(category)) == kinds


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_pairs_of_composed_data_have_no_common_sound(composed: Path, task) -> None:
    dataset = open_dataset(composed, task)
    clips = {clip.id: clip for clip in dataset.clips("test")}
    kinds = {}
    for path in (composed / "objects" / task.name / "test").glob("*.json"):
        facts = json.loads(path.read_text())
        (name,) = [name for name in clips if name.split("_")[0] == path.stem]
        kinds[name] = {facts["objects"][sound["object"]]["kind"] for sound in facts["sounds"]}
    found = swap_pairs(dataset, "test")
    assert {*found.sources, *found.left_out} == set(clips)
    assert len(found.sources) >= 4
    assert len(set(found.sources.values())) == len(found.sources)
    for one, two in found.sources.items():
        assert not kinds[one] & kinds[two]
        assert len(clips[one].frames) == len(clips[two].frames)
        assert one != two


def test_ms3_without_categories_pairs_any_clips(composed: Path) -> None:
    dataset = replace(open_dataset(composed, MS3), composed=None)
    found = swap_pairs(dataset, "test")
    assert sorted(found.sources.values()) == sorted(found.sources) == [c.id for c in dataset.clips("test")]
    assert found.left_out == ()


def mini_candidates(task: str, split: str) -> list[Candidate]:
    """The clips of AVS-Mini as they are planned, without composing them."""
    media, found = mini_media(), []
    for index in range(dict(zip(SPLITS, CLIPS, strict=True))[split]):
        subset = _SUBSETS[index % len(_SUBSETS)] if task == "avss" else ""
        style = _STYLES[subset or task]

        def draws(part: str, style=style, index: int = index) -> Draws:
            return Draws(0, f"mini/{style.name}/{split}/{part}", index)

        kinds = [one.kind for one in Scene(style, media, split, draws("plan"), draws("paint")).objects]
        named = [class_index(kind) is not None or not style.classes for kind in kinds]
        voices = draw_voices(style, kinds, named, media, split, draws("sound"))
        name = f"mix{split[:2]}{index:06d}"
        if task == "avss" and subset != "v1m":
            name += f"_0_{1000 * style.seconds}"
        found.append(Candidate(name, frozenset(kinds[voice.object] for voice in voices), style.seconds))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_the_committed_lists_follow_from_the_rule(task: str, split: str) -> None:
    clips = mini_candidates(task, split)
    with (LISTS / f"avs-mini-v1-{task}-{split}.csv").open(newline="") as file:
        listed = {row["clip"]: row["source"] for row in csv.DictReader(file)}
    assert listed == assign(clips, f"{task}/{split}").sources
    kinds = {clip.id: clip.kinds for clip in clips}
    assert set(listed) == set(kinds) == set(listed.values())
    assert not any(kinds[clip] & kinds[source] for clip, source in listed.items())


def test_a_committed_list_is_read(composed: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("avsbench_harness.robustness.pairs.LISTS", tmp_path)
    dataset = open_dataset(composed, S4)
    computed = make_pairs(dataset, "test")
    one, two, *_ = sorted(computed.sources)
    listed = list_file(dataset, "test")
    assert listed == tmp_path / "avs-mini-v1-variant-s4-test.csv"
    write_list(listed, Pairs({two: one, one: two}, ()))
    assert listed.read_text() == f"clip,source\n{one},{two}\n{two},{one}\n"
    found = swap_pairs(dataset, "test")
    assert found.sources == {one: two, two: one}
    assert {*found.left_out, one, two} == {clip.id for clip in dataset.clips("test")}
    assert swap_pairs(dataset, "test", seed=1) == make_pairs(dataset, "test", 1)
    monkeypatch.setattr("avsbench_harness.robustness.pairs._read_list", lambda path: {"another": one})
    assert swap_pairs(dataset, "test") == computed
