from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avsbench_harness.data.avsbench import writer as layout_writer
from avsbench_harness.data.avsbench.check import check_dataset
from avsbench_harness.data.synth import write as writer
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.data.synth.kinds import S4_CATEGORIES
from avsbench_harness.data.synth.scene import Scene
from avsbench_harness.errors import AvsbError, UsageError
from avsbench_harness.tasks import AVSS, CLASSES, MS3, S4, TASKS

SEED = 11  # of the fixture ``benchmarks``
LABELS = ("labels_rgb", "labels_semantic")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def samples(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (16000, 2)
        data = file.readframes(file.getnframes())
        return np.frombuffer(data, dtype="<i2").reshape(-1, file.getnchannels())


def test_s4_layout(benchmarks: dict[str, Path]) -> None:
    root = benchmarks["s4"]
    rows = table(root / "Single-source/s4_meta_data.csv")
    assert [row["split"] for row in rows] == ["train"] * 3 + ["val"] + ["test"] * 2
    expected = {"SYNTHETIC.md", "synthetic.json", "Single-source/s4_meta_data.csv"}
    for row in rows:
        place = f"{row['split']}/{row['category']}"
        data, name = "Single-source/s4_data", row["name"]
        expected |= {f"{data}/visual_frames/{place}/{name}/{name}_{k}.png" for k in range(1, 6)}
        annotated = 1 if row["split"] == "train" else 5
        expected |= {f"{data}/gt_masks/{place}/{name}/{name}_{k}.png" for k in range(1, annotated + 1)}
        expected.add(f"{data}/audio_wav/{place}/{name}.wav")
    assert set(files(root)) == expected


def test_ms3_layout(benchmarks: dict[str, Path]) -> None:
    root = benchmarks["ms3"]
    rows = table(root / "Multi-sources/ms3_meta_data.csv")
    expected = {"SYNTHETIC.md", "synthetic.json", "Multi-sources/ms3_meta_data.csv"}
    for row in rows:
        data, name, split = "Multi-sources/ms3_data", row["video_id"], row["split"]
        expected |= {f"{data}/visual_frames/{name}/{name}.mp4_{k}.png" for k in range(1, 6)}
        expected |= {f"{data}/gt_masks/{split}/{name}/{name}_{k}.png" for k in range(1, 6)}
        expected.add(f"{data}/audio_wav/{split}/{name}.wav")
    assert len(rows) == 4
    assert set(files(root)) == expected


def test_avss_layout(benchmarks: dict[str, Path]) -> None:
    root = benchmarks["avss"]
    home = "AVSBench_semantic"
    rows = table(root / home / "metadata.csv")
    assert [row["label"] for row in rows] == ["v1s", "v2", "v1m", "v2", "v1s", "v1s"]
    expected = {"SYNTHETIC.md", "synthetic.json", f"{home}/metadata.csv", f"{home}/label2idx.json"}
    for row in rows:
        seconds = 10 if row["label"] == "v2" else 5
        uid = row["vid"] if row["label"] == "v1m" else f"{row['vid']}_0_{seconds}000"
        assert row["uid"] == uid
        place = f"{home}/{row['label']}/{uid}"
        annotated = 1 if (row["label"], row["split"]) == ("v1s", "train") else seconds
        expected |= {f"{place}/frames/{k}.jpg" for k in range(seconds)}
        expected |= {f"{place}/{kind}/{k}.png" for k in range(annotated) for kind in LABELS}
        expected.add(f"{place}/audio.wav")
        assert samples(root / place / "audio.wav").shape == (seconds * 16000, 1)
    assert set(files(root)) == expected


def test_label2idx_is_that_of_the_benchmark(benchmarks: dict[str, Path]) -> None:
    numbers = json.loads((benchmarks["avss"] / "AVSBench_semantic/label2idx.json").read_text())
    assert numbers == {name: CLASSES.index(name) + 1 for name in CLASSES}
    assert (numbers["background"], numbers["woman"]) == (1, 71)


def test_avss_labels_are_the_classes_of_the_table(benchmarks: dict[str, Path]) -> None:
    home = benchmarks["avss"] / "AVSBench_semantic"
    for row in table(home / "metadata.csv"):
        named = {CLASSES.index(name) for name in row["a_obj"].split("_")}
        seen: set[int] = set()
        for path in (home / row["label"] / row["uid"] / "labels_semantic").iterdir():
            labels = pixels(path)
            assert labels.shape == (224, 224)
            seen |= set(np.unique(labels).tolist())
            # Class 1 is (128,0,0), class 2 (0,128,0), class 8 (64,0,0): bits 0, 1 and 2, 3, 4 and 5 ...
            colours = pixels(path.parent.parent / "labels_rgb" / path.name)
            for channel in range(3):
                bits = (labels >> channel & 1) * 128 + (labels >> channel + 3 & 1) * 64
                assert (colours[..., channel] & 0b11000000 == bits).all()
        assert seen - {0} <= named
        if not (row["label"] == "v1s" and row["split"] == "train"):
            assert seen - {0} == named


@pytest.mark.parametrize("task", TASKS)
def test_the_data_check_finds_no_fault(benchmarks: dict[str, Path], task: str) -> None:
    report = check_dataset(benchmarks[task], [TASKS[task]])
    assert report.faults == []
    assert all(one.synthetic for one in report.tasks)


def test_files_decode_to_the_scene(benchmarks: dict[str, Path]) -> None:
    data = benchmarks["s4"] / "Single-source/s4_data"
    for row in table(benchmarks["s4"] / "Single-source/s4_meta_data.csv"):
        name, split, category = row["name"], row["split"], row["category"]
        scene = Scene(writer.S4_STYLE, split, int(name[-6:]), SEED, 23)
        assert [S4_CATEGORIES[kind.index] for kind in scene.sounding] == [category]
        place = f"{split}/{category}"
        np.testing.assert_array_equal(
            samples(data / f"audio_wav/{place}/{name}.wav"), scene.sound.samples, strict=True
        )
        for path in (data / f"visual_frames/{place}/{name}").iterdir():
            np.testing.assert_array_equal(pixels(path), scene.picture.frames[int(path.stem[-1]) - 1])
        for path in (data / f"gt_masks/{place}/{name}").iterdir():
            mask = pixels(path)
            np.testing.assert_array_equal(mask == 255, scene.classes()[int(path.stem[-1]) - 1] > 0)
            assert set(np.unique(mask)) <= {0, 255}


def test_the_data_are_marked_as_synthetic(benchmarks: dict[str, Path]) -> None:
    for name, kinds in (("s4", 23), ("ms3", 23), ("avss", 70)):
        record = json.loads((benchmarks[name] / "synthetic.json").read_text())
        clips = {"s4": (3, 1, 2), "ms3": (2, 1, 1), "avss": (4, 1, 1)}[name]
        assert record == {
            "format": 1,
            "version": writer.VERSION,
            "task": name,
            "seed": SEED,
            "clips": dict(zip(("train", "val", "test"), clips, strict=True)),
            "kinds": kinds,
            "synthetic": True,
        }
        assert "synthetic" in (benchmarks[name] / "SYNTHETIC.md").read_text()


#: CRC-32 over the decoded frames, masks and samples of the fixture's files. They may change only together
#: with ``VERSION``; a machine that gets others breaks the promise of the same bits everywhere.
CHECKSUMS: dict[str, dict[str, int]] = {
    "s4": {"audio": 0xDD41477C, "masks": 0x01FE540B, "frames": 0xD866A72A},
    "ms3": {"audio": 0xCE6A624E, "masks": 0x4EBEBC34, "frames": 0xA2227436},
    "avss": {"audio": 0x488FA606, "masks": 0x058A42EC},
}
#: The same over the frames of the second training clip of AVSS before they are compressed.
AVSS_FRAMES = 0x6DEA3E8E


def checksums(root: Path) -> dict[str, int]:
    """CRC-32 per kind of file, over the decoded contents, in the order of their names."""
    sums: dict[str, int] = {}
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        if path.suffix == ".wav":
            kind, content = "audio", samples(path).astype("<i2").tobytes()
        elif path.suffix == ".png":
            kind = "frames" if "visual_frames" in path.parts else "masks"
            content = pixels(path).tobytes()
        else:  # the pixels of a JPEG are a matter of its decoder
            continue
        sums[kind] = zlib.crc32(content, sums.get(kind, 0))
    return sums


@pytest.mark.parametrize("task", TASKS)
def test_the_data_are_bitwise_equal_on_every_machine(benchmarks: dict[str, Path], task: str) -> None:
    assert checksums(benchmarks[task]) == CHECKSUMS[task]


def test_avss_frames_are_bitwise_equal_before_compression() -> None:
    frames = Scene(writer.AVSS_STYLES["v2"], "train", 1, SEED, 70).picture.frames
    assert zlib.crc32(frames.tobytes()) == AVSS_FRAMES


def test_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    for jobs in (1, 2):
        write_synthetic(tmp_path / str(jobs), MS3, (4, 1, 1), 5, jobs=jobs)
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_the_seed_determines_the_clips_and_more_clips_are_appended(tmp_path: Path) -> None:
    for name, clips, seed in (("few", (1, 1, 0), 5), ("more", (3, 1, 1), 5), ("other", (1, 1, 0), 6)):
        write_synthetic(tmp_path / name, MS3, clips, seed, jobs=1)
    few, more, other = (
        {name: data for name, data in files(tmp_path / folder).items() if "ms3_data" in name}
        for folder in ("few", "more", "other")
    )
    assert few.items() < more.items()
    assert few.keys() == other.keys()
    recordings = [name for name in few if name.endswith(".wav")]
    assert all(few[name] != other[name] for name in recordings)
    frames = [name for name in few if "visual_frames" in name]
    assert all(few[name] != other[name] for name in frames)


def test_kinds_limits_the_kinds(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "out", S4, (8, 0, 0), 1, kinds=2, jobs=1)
    rows = table(tmp_path / "out/Single-source/s4_meta_data.csv")
    assert {row["category"] for row in rows} == set(S4_CATEGORIES[:2])
    assert json.loads((tmp_path / "out/synthetic.json").read_text())["kinds"] == 2


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_synthetic(tmp_path / "out", S4, (1, 1, 1), 1, jobs=1, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_synthetic(tmp_path, S4, (1, 0, 0), 1)
    with pytest.raises(UsageError, match="not an empty folder"):
        write_synthetic(tmp_path / "notes.txt", S4, (1, 0, 0), 1)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_synthetic(tmp_path / "out", S4, (1, 0, 0), 1, jobs=1)
    assert (tmp_path / "out/synthetic.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupt_leaves_nothing(tmp_path: Path, jobs: int) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "out", S4, (12, 0, 0), 1, jobs=jobs, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout_writer, "_write_wav", full)
    with pytest.raises(AvsbError, match=r"Cannot write .*No space left on device"):
        write_synthetic(tmp_path / "out", S4, (2, 0, 0), 1, jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": (0, 0, 0)}, "three numbers"),
        ({"clips": (4, -1, 1)}, "three numbers"),
        ({"clips": (4, 1)}, "three numbers"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"kinds": 1}, "between 2 and 23"),
        ({"kinds": 24}, "between 2 and 23"),
        ({"task": AVSS, "kinds": 71}, "between 2 and 70"),
        ({"jobs": 0}, "at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arguments = {"task": S4, "clips": (1, 0, 0), "seed": 0, **change}
    with pytest.raises(UsageError, match=message):
        write_synthetic(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


SCRIPT = """
import signal
import sys
from pathlib import Path
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.tasks import S4

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    tell = lambda done, total: print(done, flush=True)
    write_synthetic(Path(sys.argv[1]), S4, (4000, 0, 0), 1, jobs=2, progress=tell)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_stopped_writer_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C removes partial results; after kill -9 only the hidden temporary folder is left."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, script, out],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the group that Ctrl-C reaches
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first clips are written
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.kill()
        process.stdout.read()  # ends when the last worker has closed it
    assert not out.exists()
    assert process.returncode == -number
    left = [path.name for path in tmp_path.iterdir() if path != script]
    assert len(left) == (number is signal.SIGKILL)
    deadline = time.monotonic() + 20
    while members_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members_of(process.pid) == []


def members_of(session: int) -> list[int]:
    """Running processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found
