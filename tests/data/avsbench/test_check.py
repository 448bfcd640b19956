"""The data check: a complete tree has no fault, and all faults are found and named."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from rich.console import Console

from avsbench_harness.data.avsbench.check import check_dataset
from avsbench_harness.data.avsbench.labels import listed_classes
from avsbench_harness.data.avsbench.report import Count, Fault, render_report
from avsbench_harness.data.masks import PALETTE
from avsbench_harness.tasks import AVSS, MS3, S4, SPLITS, TASKS

AVSS_ROWS = [  # of the table in conftest
    ("__GOGlHL23s", "__GOGlHL23s_4000_9000", 0, 4, "bird", "val", "v1s"),
    ("-_wznbUu3DY", "-_wznbUu3DY_0_5000", 0, 0, "helicopter", "train", "v1s"),
    ("zVfLHhs9uv8", "zVfLHhs9uv8_3000_8000", 0, 3, "h orse", "test", "v1s"),
    ("_19NVGk6Zt8_0", "_19NVGk6Zt8_0", 0, 0, "background", "train", "v1m"),
    ("_-apT0tfo6U", "_-apT0tfo6U_60000_70000", 0, 60, "girl_off-the-screen", "train", "v2"),
]
CLIPS = {  # of the tables in conftest
    "s4": {"train": 2, "val": 1, "test": 1},
    "ms3": {"train": 1, "val": 1, "test": 1},
    "avss": {"train": 3, "val": 1, "test": 1},
}


@pytest.fixture(params=list(TASKS))
def whole(request, tree):
    """A whole synthetic set of each task in turn."""
    getattr(tree, request.param)()
    tree.synthetic(request.param, CLIPS[request.param])
    return tree


def page(report, limit=20):
    console = Console(file=io.StringIO(), width=200)
    console.print(render_report(report, limit))
    return console.file.getvalue()


def found(report):
    return {(fault.kind, fault.path) for fault in report.faults}


def test_whole_set_is_clean(whole):
    report = check_dataset(whole.root)
    assert report.faults == []
    assert report.ok
    assert not report.missing
    (task,) = report.tasks
    assert task.synthetic
    assert "is complete" in page(report)
    assert "SYNTHETIC" in page(report)
    files = sum(
        counts.frames.found + counts.masks.found + counts.audio.found for counts in task.counts.values()
    )
    assert files == len(whole.files)


def test_counts_are_files_present_of_files_named(tree):
    tree.s4()
    tree.synthetic("s4", [2, 1, 1])
    next(path for path in tree.files if path.name == "0yQFLuXBbTo_3.png" and "gt_masks" in str(path)).unlink()
    report = check_dataset(tree.root, [S4])
    train, val = report.counts["s4"]["train"], report.counts["s4"]["val"]
    assert (train.clips, train.frames, train.masks, train.audio) == (
        Count(2, 2), Count(10, 10), Count(2, 2), Count(2, 2),
    )  # fmt: skip
    assert (val.frames, val.masks) == (Count(5, 5), Count(4, 5))
    assert "4 of 5" in page(report)


def test_real_data_are_compared_with_the_official_numbers(tree):
    tree.ms3()
    report = check_dataset(tree.root, [MS3])
    table = "Multi-sources/ms3_meta_data.csv"
    assert report.faults == [
        Fault("ms3", "count", table, f"names 1 {split} clips; there should be {number}")
        for split, number in (("train", 296), ("val", 64), ("test", 64))
    ]
    assert report.missing
    assert report.counts["ms3"]["train"].clips == Count(1, 296)


def test_synthetic_set_that_lost_a_row(tree):
    table = tree.s4() / "s4_meta_data.csv"
    tree.synthetic("s4", CLIPS["s4"])
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    message = "names 0 test clips; there should be 1"
    assert check_dataset(tree.root).faults == [
        Fault("s4", "count", "Single-source/s4_meta_data.csv", message)
    ]


def test_synthetic_set_that_does_not_say_its_numbers(tree):
    tree.s4()
    tree.synthetic("avss", CLIPS["avss"])  # of another task in the same root
    assert check_dataset(tree.root, [S4]).ok
    (tree.root / "synthetic.json").unlink()
    (tree.root / "SYNTHETIC.md").write_text("synthetic")
    report = check_dataset(tree.root, [S4])
    assert report.ok
    assert report.counts["s4"]["train"].clips == Count(2, None)
    tree.synthetic("s4", {"train": 2})
    (fault,) = check_dataset(tree.root, [S4]).faults
    message = 'has no "clips" with a number for each of train, val, test'
    assert fault == Fault("s4", "table", "synthetic.json", message)
    (tree.root / "synthetic.json").write_text("{")
    (fault,) = check_dataset(tree.root, [S4]).faults
    assert fault == Fault("s4", "table", "synthetic.json", "is not valid JSON")


def test_every_missing_file_is_named(whole):
    for path in whole.files:
        path.unlink()
    report = check_dataset(whole.root)
    expected = {("missing", path.relative_to(whole.root).as_posix()) for path in whole.files}
    assert found(report) == expected
    assert len(report.faults) == len(expected)
    assert {fault.message for fault in report.faults} == {"is not there"}
    assert report.missing
    assert all(counts.frames.found == 0 for counts in report.tasks[0].counts.values())


CUT = r"cannot be read as an image \(.*\); fetch it again"
MUTATIONS = {
    "frame/deleted": ("missing", "is not there", lambda p: p.unlink()),
    "frame/truncated": ("unreadable", CUT, lambda p: p.write_bytes(p.read_bytes()[:-30])),
    "frame/no image": ("unreadable", CUT, lambda p: p.write_text("moved")),
    "frame/small": (
        "size",
        "has 112x224 pixels instead of 224x224",
        lambda p: Image.new("RGB", (112, 224)).save(p),
    ),
    "mask/deleted": ("missing", "is not there", lambda p: p.unlink()),
    "mask/truncated": ("unreadable", CUT, lambda p: p.write_bytes(p.read_bytes()[:-30])),
    "mask/small": ("size", "has 10x20 pixels instead of 224x224", lambda p: Image.new("L", (10, 20)).save(p)),
    "mask/grey": (
        "colour",
        r"has the value 90 \(50176 px\), but an object mask has only 0 and 255",
        lambda p: Image.new("L", (224, 224), 90).save(p),
    ),
    "audio/deleted": ("missing", "is not there", lambda p: p.unlink()),
    "audio/no recording": (
        "unreadable",
        r"cannot be read as wav, flac or ogg \(Format not recognised\.\)",
        lambda p: p.write_text("no"),
    ),
    "audio/empty": (
        "unreadable",
        "has no samples; fetch or extract the recording again",
        lambda p: soundfile.write(p, np.zeros((0, 1)), 16000),
    ),
    "audio/NaN": (
        "unreadable",
        "has samples that are NaN or infinite; extract the recording again",
        lambda p: soundfile.write(p, np.full(80_000, np.nan), 16000, subtype="FLOAT"),
    ),
    "audio/half-written": (
        "audio",
        "ends before the length that its header declares; copy or extract it again",
        lambda p: p.write_bytes(p.read_bytes()[:100_000]),
    ),
    "audio/square wave": (
        "audio",
        r"has 100% of its samples at the peak, as a recording clipped to a square wave; extract it again, .*",
        lambda p: soundfile.write(p, 9e3 * np.sin(np.arange(80_000) / 9 + 0.1), 16000, subtype="FLOAT"),
    ),
}
FILES = {
    "frame": "Single-source/s4_data/visual_frames/val/helicopter/0yQFLuXBbTo/0yQFLuXBbTo_2.png",
    "mask": "Single-source/s4_data/gt_masks/val/helicopter/0yQFLuXBbTo/0yQFLuXBbTo_4.png",
    "audio": "Single-source/s4_data/audio_wav/val/helicopter/0yQFLuXBbTo.wav",
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_fault_alone(tree, name):
    tree.s4()
    tree.synthetic("s4", CLIPS["s4"])
    kind, message, mutate = MUTATIONS[name]
    path = FILES[name.split("/")[0]]
    mutate(tree.root / path)
    report = check_dataset(tree.root)
    (fault,) = report.faults
    assert (fault.task, fault.kind, fault.path) == ("s4", kind, path)
    assert re.fullmatch(message, fault.message), fault.message
    assert str(tree.root) not in fault.message
    assert not report.ok
    assert report.missing == (kind == "missing")
    assert path in page(report)


def test_no_fault_hides_another(tree):
    """All at once, in two tasks, the last files included."""
    s4, avss = tree.s4(), tree.avss()
    tree.synthetic("s4", CLIPS["s4"], "Single-source")
    tree.synthetic("avss", CLIPS["avss"], "AVSBench_semantic")
    names = {
        "frame": s4 / "s4_data/visual_frames/test/horse_clip-clop/-9u2CymIx_c/-9u2CymIx_c_5.png",
        "audio": s4 / "s4_data/audio_wav/train/helicopter/-_wznbUu3DY.wav",
        "size": avss / "v2/_-apT0tfo6U_60000_70000/labels_rgb/3.png",
        "colour": avss / "v2/_-apT0tfo6U_60000_70000/labels_rgb/9.png",
        "unreadable": avss / "v1s/zVfLHhs9uv8_3000_8000/frames/0.jpg",
    }
    names["frame"].unlink()
    names["audio"].write_bytes(b"RIFF")
    Image.new("RGB", (48, 31)).save(names["size"])
    Image.new("RGB", (50, 32), (1, 2, 3)).save(names["colour"])  # two faults in one file
    names["unreadable"].write_bytes(b"")
    report = check_dataset(tree.root)
    relative = {key: path.relative_to(tree.root).as_posix() for key, path in names.items()}
    assert found(report) == {
        ("missing", relative["frame"]),
        ("unreadable", relative["audio"]),
        ("size", relative["size"]),
        ("size", relative["colour"]),
        ("colour", relative["colour"]),
        ("unreadable", relative["unreadable"]),
    }
    messages = {(fault.kind, fault.path): fault.message for fault in report.faults}
    assert messages["size", relative["size"]] == "has 48x31 pixels instead of 48x32"
    assert "colour (1, 2, 3) (1600 px)" in messages["colour", relative["colour"]]


def test_semantic_index_beyond_the_classes(tree):
    tree.avss(labels="labels_semantic")
    tree.synthetic("avss", CLIPS["avss"])
    path = "AVSBench_semantic/v1m/_19NVGk6Zt8_0/labels_semantic/4.png"
    Image.new("L", (48, 32), 71).save(tree.root / path)
    (fault,) = check_dataset(tree.root).faults
    assert fault == Fault("avss", "colour", path, "has the value 71 (1536 px), but classes are 0 to 70")


def test_zero_one_masks_are_a_note_not_a_fault(tree):
    tree.ms3()
    tree.synthetic("ms3", CLIPS["ms3"])
    for path in tree.files:
        if "gt_masks" in path.parts:
            Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    report = check_dataset(tree.root)
    assert report.ok
    assert report.tasks[0].notes[0].startswith("15 masks have the values 0 and 1")
    assert "Note: 15 masks" in page(report)


def test_a_log_mel_pickle_replaces_a_recording(tree):
    top = tree.ms3()
    tree.synthetic("ms3", CLIPS["ms3"])
    (top / "ms3_data/audio_wav/val/xv7eM6-UmkY_36.wav").unlink()
    path = top / "ms3_data/audio_log_mel/val/xv7eM6-UmkY_36.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(torch.rand(5, 1, 96, 64)))
    report = check_dataset(tree.root)
    assert report.ok
    assert report.counts["ms3"]["val"].audio == Count(1, 1)
    path.write_bytes(pickle.dumps(torch.rand(5, 1, 96, 64) - 9))
    (fault,) = check_dataset(tree.root).faults
    assert (fault.kind, fault.path) == ("unreadable", path.relative_to(tree.root).as_posix())
    assert fault.message.startswith("was made by another front end than VGGish's")


@pytest.mark.parametrize("seconds", [1, 60])
def test_recordings_of_another_length_are_a_warning(tree, seconds):
    tree.s4()
    tree.synthetic("s4", CLIPS["s4"])
    soundfile.write(tree.root / FILES["audio"], np.zeros(seconds * 16000), 16000)
    report = check_dataset(tree.root)
    assert report.ok
    message = f"lasts {seconds}.0 s, but its clip 5 s"
    assert report.warnings == [Fault("s4", "audio", FILES["audio"], message)]
    assert message in page(report)
    assert report.to_json()["tasks"][0]["warnings"][0]["message"] == message


def rewrite_labels(tree, change):
    """Replace the labels of all masks by change(classes that metadata.csv lists, (32,48) shape of object)."""
    inside = np.zeros((32, 48), bool)
    inside[5:20, 7:30] = True
    for row in AVSS_ROWS:
        listed = sorted(listed_classes(row[4]))
        for path in (tree.root / "AVSBench_semantic" / row[6] / row[1] / "labels_rgb").glob("*.png"):
            Image.fromarray(change(inside * np.uint8(listed[-1]))).save(path)


@pytest.mark.parametrize(
    ("change", "message", "clips"),
    [
        (
            lambda labels: labels + np.uint8(1),
            r"holds labels counted from 1 \(accordion.* for .*\); subtract 1 from all labels",
            5,
        ),
        (lambda labels: PALETTE[labels + np.uint8(1)], r"holds labels counted from 1 .*", 5),
        (
            lambda labels: PALETTE[labels][..., ::-1].copy(),
            r"holds colours with red and blue swapped .*; write the masks as RGB, not BGR",
            3,  # the colour of birds is symmetric, and one clip has none
        ),
    ],
)
def test_labels_that_contradict_the_table_are_faults_of_their_clips(tree, change, message, clips):
    tree.avss()
    tree.synthetic("avss", CLIPS["avss"])
    rewrite_labels(tree, lambda labels: labels)
    assert check_dataset(tree.root).warnings == []
    rewrite_labels(tree, change)
    faults = check_dataset(tree.root).faults
    assert {fault.kind for fault in faults} == {"classes"}
    assert "AVSBench_semantic/v2/_-apT0tfo6U_60000_70000/labels_rgb" in {fault.path for fault in faults}
    assert len(faults) == clips
    for fault in faults:
        assert re.fullmatch(message, fault.message), fault.message


def test_other_classes_than_listed_are_a_warning(tree):
    tree.avss()
    tree.synthetic("avss", CLIPS["avss"])
    report = check_dataset(tree.root)
    assert report.ok
    assert report.warnings[0].message == "holds the classes guitar, but metadata.csv lists helicopter"


def test_a_split_without_objects_is_a_fault(tree):
    tree.s4()
    tree.synthetic("s4", CLIPS["s4"])
    for path in tree.files:
        if "gt_masks" in path.parts and "val" in path.parts:
            Image.new("L", (224, 224)).save(path)
    (fault,) = check_dataset(tree.root).faults
    message = "names 1 val clips, whose masks have no object; fetch the masks again"
    assert fault == Fault("s4", "empty", "Single-source/s4_meta_data.csv", message)


def test_good_data_fit_on_a_screen(tree):
    for task, counts in CLIPS.items():
        folder = getattr(tree, task)()
        tree.synthetic(task, counts, folder.name)
    report = check_dataset(tree.root)
    assert report.ok
    assert len(page(report).splitlines()) <= 24


def test_a_malformed_table_is_a_fault_and_other_tasks_are_checked(tree):
    (tree.s4() / "s4_meta_data.csv").write_text("name,start,category,split\n../../etc,0,dog,train\n")
    tree.ms3()
    tree.synthetic("ms3", CLIPS["ms3"], "Multi-sources")
    report = check_dataset(tree.root)
    (fault,) = report.faults
    assert (fault.task, fault.kind, fault.path) == ("s4", "table", "Single-source/s4_meta_data.csv")
    assert fault.message.startswith("has in line 2 the name '../../etc', which cannot be")
    assert report.counts["ms3"]["test"].frames == Count(5, 5)
    assert report.counts["s4"] == {}


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_found_shows_all_expected_trees(tree, exists):
    if exists:
        (tree.root / "Single_source").mkdir()  # mistyped
    else:
        shutil.rmtree(tree.root)
    report = check_dataset(tree.root)
    assert [(fault.task, fault.kind, fault.path) for fault in report.faults] == [
        (name, "missing", ".") for name in TASKS
    ]
    assert report.missing
    text = page(report)
    for mark in ("s4_meta_data.csv", "<id>.mp4_<1..5>.png", "<v1s, v1m, v2>/<uid>/"):
        assert mark in text
    assert ("Single_source/" in text) == exists


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_missing_table_is_a_fault(tree, task):
    (table,) = getattr(tree, task.name)().glob("*.csv")
    table.unlink()
    (fault,) = check_dataset(tree.root).faults
    assert (fault.kind, fault.path) == ("missing", table.relative_to(tree.root).as_posix())
    assert fault.message.startswith("is not there")


def test_a_requested_task_that_is_missing(tree):
    tree.s4()
    tree.synthetic("s4", CLIPS["s4"])
    assert check_dataset(tree.root).ok
    report = check_dataset(tree.root, [S4, AVSS])
    assert [(fault.task, fault.kind) for fault in report.faults] == [("avss", "missing")]


def test_rebuilt_table_above_the_root_is_named(tree):
    top = tree.s4()
    (top / "s4_meta_data.csv").unlink()
    tree.avss()
    report = check_dataset(top)
    assert {fault.path for fault in report.faults if fault.kind == "count"} == {
        "../AVSBench_semantic/metadata.csv"
    }


def test_progress_counts_every_clip(tree):
    tree.s4()
    tree.ms3()
    calls = []
    check_dataset(tree.root, progress=lambda done, total: calls.append((done, total)), workers=2)
    assert calls == [(done, 7) for done in range(1, 8)]


def test_interrupt_ends_the_check_at_once(tree):
    tree.s4()
    calls = []

    def interrupt(done, total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(tree.root, progress=interrupt, workers=1)
    assert calls == [1]


def test_report_is_the_same_with_any_number_of_threads(whole):
    for path in sorted(whole.files)[::3]:
        path.write_bytes(b"")
    assert check_dataset(whole.root, workers=1) == check_dataset(whole.root, workers=4)


def test_json_holds_every_fault_and_count(tree):
    tree.ms3()
    for path in tree.files:
        path.unlink()
    report = check_dataset(tree.root)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (value["ok"], value["missing"], value["root"]) == (False, True, str(tree.root))
    (task,) = value["tasks"]
    assert len(task["faults"]) == len(tree.files) + 3
    assert task["faults"][0].keys() == {"task", "kind", "path", "message"}
    assert task["counts"]["train"]["clips"] == {"found": 1, "expected": 296}
    assert set(task["counts"]) == set(SPLITS)
    assert task["folder"] == str(tree.root / "Multi-sources")


def test_text_lists_the_first_faults_and_counts_the_others(tree):
    tree.ms3()
    tree.synthetic("ms3", CLIPS["ms3"])
    for path in tree.files:
        path.unlink()
    report = check_dataset(tree.root)
    text = page(report, limit=4)
    assert text.count("is not there") == 4
    assert f"... and {len(tree.files) - 4} more faults" in text
    assert f"has {len(tree.files)} faults" in text


def test_text_prints_names_without_markup(tree):
    """Brackets in names are not markup, and the found tree is shown beside the expected one."""
    folder = tree.root / "[bold]odd[/red]" / "Multi-sources"
    folder.mkdir(parents=True)
    (folder / "ms3_data").mkdir()
    report = check_dataset(folder.parent)
    text = page(report)
    assert f"{folder.parent} has 1 fault." in text
    assert "[bold]odd[/red]" in text
    row = next(line for line in text.splitlines() if "ms3_meta_data.csv" in line)
    assert "ms3_data/" in row
