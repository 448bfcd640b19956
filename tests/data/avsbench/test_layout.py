"""Clips of the official layouts: all paths, accepted roots, and fingerprints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.avsbench.tree import found_tasks, found_tree
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import AVSS, MS3, S4, SPLITS, TASKS


def named_files(dataset):
    clips = [clip for split in SPLITS for clip in dataset.clips(split)]
    files = [f for c in clips for f in (*c.frames, *c.masks, c.audio, c.logmel) if f is not None]
    assert len(files) == len(set(files))
    return set(files)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_clips_name_exactly_the_files_of_the_layout(tree, task):
    getattr(tree, task.name)()
    assert named_files(open_dataset(tree.root, task)) == tree.files


def test_s4_clip(tree):
    top = tree.s4()
    dataset = open_dataset(tree.root, S4)
    assert [clip.id for clip in dataset.clips("train")] == ["-_wznbUu3DY", "_d9u2CymIxc"]  # the table's order
    clip = dataset.clips("train")[0]
    data = top / "s4_data"
    assert clip.frames[0] == data / "visual_frames/train/helicopter/-_wznbUu3DY/-_wznbUu3DY_1.png"
    assert clip.masks == (data / "gt_masks/train/helicopter/-_wznbUu3DY/-_wznbUu3DY_1.png", *(None,) * 4)
    assert clip.audio == data / "audio_wav/train/helicopter/-_wznbUu3DY.wav"
    assert (clip.logmel, clip.category, clip.subset) == (None, "helicopter", "s4")
    assert all(None not in clip.masks for split in ("val", "test") for clip in dataset.clips(split))


def test_ms3_clip(tree):
    data = tree.ms3() / "ms3_data"
    (clip,) = open_dataset(tree.root, MS3).clips("train")
    assert clip.frames[4] == data / "visual_frames/jlhuZfcw61w/jlhuZfcw61w.mp4_5.png"  # no split folder
    assert clip.masks[4] == data / "gt_masks/train/jlhuZfcw61w/jlhuZfcw61w_5.png"
    assert clip.audio == data / "audio_wav/train/jlhuZfcw61w.wav"
    assert (clip.category, clip.subset, None in clip.masks) == ("", "ms3", False)


def test_avss_clips(tree):
    top = tree.avss()
    dataset = open_dataset(tree.root, AVSS)
    single, multi, new = dataset.clips("train")
    assert (single.id, single.subset, single.category) == ("-_wznbUu3DY_0_5000", "v1s", "helicopter")
    assert single.frames[0] == top / "v1s/-_wznbUu3DY_0_5000/frames/0.jpg"
    assert single.masks == (top / "v1s/-_wznbUu3DY_0_5000/labels_rgb/0.png", None, None, None, None)
    assert (multi.subset, multi.category, len(multi.frames)) == ("v1m", "background", 5)
    assert (new.id, new.subset, len(new.frames)) == ("_-apT0tfo6U_60000_70000", "v2", 10)
    assert new.masks[9] == top / "v2/_-apT0tfo6U_60000_70000/labels_rgb/9.png"
    assert new.audio == top / "v2/_-apT0tfo6U_60000_70000/audio.wav"
    (odd,) = dataset.clips("test")
    assert (odd.category, None in odd.masks) == ("h orse", False)


def test_avss_with_index_masks_and_flac(tree):
    top = tree.avss(labels="labels_semantic")
    for wav in top.rglob("audio.wav"):
        wav.rename(wav.with_suffix(".flac"))
    for split in SPLITS:
        for clip in open_dataset(tree.root, AVSS).clips(split):
            assert clip.audio.is_file()
            assert all(
                mask.parent.name == "labels_semantic" and mask.is_file() for mask in clip.masks if mask
            )


@pytest.mark.parametrize(
    ("task", "folder", "given"),
    [
        (S4, "Single-source", "Single-source"),
        (S4, "AVSBench_object/Single-source", "."),
        (S4, "AVSBench_object/Single-source", "AVSBench_object"),
        (MS3, "Multi-sources", "Multi-sources"),
        (MS3, "AVSBench_object/Multi-sources", "."),
        (AVSS, "AVSBench_semantic", "AVSBench_semantic"),
        (AVSS, "AVSS", "."),
        (AVSS, "avs_released", "."),
        (AVSS, "my copy", "my copy"),
    ],
)
def test_roots_of_other_codes(tree, task, folder, given):
    getattr(tree, task.name)(folder)
    dataset = open_dataset(tree.root / given, task)
    assert dataset.folder == tree.root / folder
    assert named_files(dataset) == tree.files
    assert found_tasks(tree.root / given) == [task]


@pytest.mark.parametrize("place", ["AVSBench_semantic", "AVSS", ".", "Single-source"])
@pytest.mark.parametrize("given", [".", "Single-source"])
def test_tables_are_rebuilt_from_metadata(tree, meta, place, given):
    (tree.s4() / "s4_meta_data.csv").unlink()
    (tree.root / place).mkdir(exist_ok=True)
    shutil.copy(meta / "metadata.csv", tree.root / place)
    dataset = open_dataset(tree.root / given, S4)
    assert dataset.table == tree.root / place / "metadata.csv"
    assert dataset.counts() == S4.clips
    assert dataset.name == "avsbench"
    clip = next(clip for clip in dataset.clips("train") if clip.id == "-_wznbUu3DY")
    assert clip.frames[0].is_file()  # the category is the folder's
    # The table alone is no AVSS data.
    assert found_tasks(tree.root) == [S4]


def test_ms3_table_is_rebuilt_from_avss_beside_it(tree):
    (tree.ms3() / "ms3_meta_data.csv").unlink()
    tree.avss()
    assert [clip.id for clip in open_dataset(tree.root, MS3).clips("train")] == ["_19NVGk6Zt8_0"]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_missing_data_prints_the_expected_tree(tree, task, tmp_path):
    marks = {"s4": "<name>_<1..5>.png", "ms3": "<id>.mp4_<1..5>.png", "avss": "frames/<0..4 or 9>.jpg"}
    for root, complaint in ((tmp_path / "nowhere", "There is no folder"), (tree.root, "contains no")):
        with pytest.raises(MissingDataError) as caught:
            open_dataset(root, task)
        message = str(caught.value)
        assert message.startswith((f"There is no folder {root}", f"{root} contains no {task.title}"))
        assert complaint in message
        assert marks[task.name] in message
        assert "AVSB_DATA_DIR" in message


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_missing_table_prints_the_expected_tree(tree, task):
    top = getattr(tree, task.name)()
    (table,) = top.glob("*.csv")
    table.unlink()
    with pytest.raises(MissingDataError, match=rf"has no table {table.name}\.\nPass the folder"):
        open_dataset(tree.root, task)


def test_recordings_of_any_format_and_log_mels(tree):
    top = tree.s4()
    sounds, logmels = top / "s4_data/audio_wav", top / "s4_data/audio_log_mel"
    train = sounds / "train/helicopter/-_wznbUu3DY.wav"
    train.rename(train.with_suffix(".ogg"))
    for name in ("train/helicopter/-_wznbUu3DY", "val/helicopter/0yQFLuXBbTo"):
        tree.stray(logmels / f"{name}.pkl")
    (sounds / "val/helicopter/0yQFLuXBbTo.wav").unlink()
    (sounds / "test/horse_clip-clop/-9u2CymIx_c.wav").unlink()
    dataset = open_dataset(tree.root, S4)

    both = dataset.clips("train")[0]
    assert (both.audio.suffix, both.logmel) == (".ogg", logmels / "train/helicopter/-_wznbUu3DY.pkl")
    (only_logmel,) = dataset.clips("val")
    assert (only_logmel.audio, only_logmel.logmel) == (None, logmels / "val/helicopter/0yQFLuXBbTo.pkl")
    (neither,) = dataset.clips("test")  # the official name, for whoever reports it missing
    assert (neither.audio, neither.logmel) == (sounds / "test/horse_clip-clop/-9u2CymIx_c.wav", None)


@pytest.mark.parametrize("marker", ["synthetic.json", "SYNTHETIC.md"])
@pytest.mark.parametrize("place", [".", "Single-source"])
@pytest.mark.parametrize("given", [".", "Single-source"])
def test_synthetic_data_are_recognised_by_their_marker(tree, marker, place, given):
    tree.s4()
    assert not open_dataset(tree.root / given, S4).synthetic
    assert open_dataset(tree.root / given, S4).name == "custom"
    (tree.root / place / marker).write_text("{}")
    assert open_dataset(tree.root / given, S4).synthetic
    assert open_dataset(tree.root / given, S4).name == "synthetic"


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_fingerprint_does_not_depend_on_the_location(tree, task, tmp_path, monkeypatch):
    top = getattr(tree, task.name)()
    dataset = open_dataset(tree.root, task)
    before = dataset.fingerprint()
    assert len(before) == 64
    assert set(before) <= set("0123456789abcdef")
    assert open_dataset(top, task).fingerprint() == before
    monkeypatch.chdir(top)
    assert open_dataset(Path(), task).fingerprint() == before
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tree.root, tmp_path / "elsewhere")
    assert open_dataset(Path("elsewhere"), task).fingerprint() == before
    (top / "readme.txt").write_text("files that no clip names do not count")
    assert dataset.fingerprint() == before


def _drop_row(table):
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))


def _swap_rows(table):
    header, first, second, *rest = table.read_text().splitlines()
    table.write_text("\n".join([header, second, first, *rest]))


@pytest.mark.parametrize("change", [_drop_row, _swap_rows])
def test_fingerprint_depends_on_the_table(tree, change):
    top = tree.s4()
    before = open_dataset(tree.root, S4).fingerprint()
    change(top / "s4_meta_data.csv")
    assert open_dataset(tree.root, S4).fingerprint() != before


def test_fingerprint_depends_on_every_file_and_only_in_its_split(tree):
    tree.ms3()
    dataset = open_dataset(tree.root, MS3)
    before = dataset.fingerprints()
    fingerprints = {dataset.fingerprint()}
    for path in tree.files:
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        fingerprints.add(dataset.fingerprint())
        path.write_bytes(content)
    assert len(fingerprints) == len(tree.files) + 1

    (clip,) = dataset.clips("test")
    clip.masks[2].unlink()
    after = dataset.fingerprints()
    assert [split for split in SPLITS if before[split] != after[split]] == ["test"]


def test_clip_lists_need_no_access_to_the_files(tree, meta, monkeypatch):
    """11,356 clips are listed from the table and a few folder listings, without access to their files."""
    top = tree.root / "AVSBench_semantic"
    (top / "v1s" / "__GOGlHL23s_4000_9000" / "labels_rgb").mkdir(parents=True)
    shutil.copy(meta / "metadata.csv", top)
    dataset = open_dataset(tree.root, AVSS)
    calls = []
    monkeypatch.setattr("os.stat", lambda *args, **kwargs: calls.append(args))
    clips = dataset.clips("val")
    assert len(clips) == 1304
    assert len({clip.id for clip in clips}) == 1304
    assert not calls


def test_found_tree_shows_one_example(tree):
    lines = found_tree(tree.s4(rows=[(f"clip{n}", 0, "dog_barking", "test") for n in range(6)]))
    assert lines[:2] == ["Single-source/", "  s4_data/"]
    frames = lines.index("    visual_frames/")
    assert lines[frames:] == [
        "    visual_frames/",
        "      test/",
        "        dog_barking/",
        "          clip0/",
        "            clip0_1.png",
        "            ... 4 more",
        "          ... 5 more",
        "  s4_meta_data.csv",
    ]
    top = tree.avss()
    assert [line for line in found_tree(top) if line.startswith("      ")][:4] == [
        "      audio.wav",
        "      frames/",
        "        0.jpg",
        "        ... 4 more",
    ]
    for number in range(12):
        (top / f"extra_{number:02}").mkdir()
    assert found_tree(top)[-3:] == ["  extra_06/", "  extra_07/", "  ... 8 more"]


def test_found_tree_of_a_folder_that_cannot_be_listed(tree):
    assert found_tree(tree.root / "nowhere") == [
        "nowhere/",
        "  (cannot be listed: No such file or directory)",
    ]
