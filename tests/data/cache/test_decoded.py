"""Decoded clips: the same pixels as from files, whatever happens to the cache."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.cache.decoded import DecodedClips
from avsbench_harness.data.cache.eviction import RESERVE
from avsbench_harness.data.cache.store import RECORD_SIZE
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.epochs import Epochs
from avsbench_harness.data.loader import ClipDataset, load
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.errors import MissingDataError
from avsbench_harness.recipe.augment import Augment
from avsbench_harness.tasks import AVSS, S4

Messages = Callable[[], list[str]]

EVERYTHING = Augment.parse(
    {"flip": 0.5, "affine": {"rotation": 20}, "scale": {"factors": [0.5, 2.0]}, "jitter": {}}, "here"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def clips(real_s4: Path):
    return open_dataset(real_s4, S4).clips("train")


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Messages:
    """Messages logged so far."""
    caplog.set_level("INFO", logger="avsbench_harness")
    return lambda: caplog.messages


def same(one, two) -> bool:
    masks = torch.equal(one.images, two.images) and torch.equal(one.masks, two.masks)
    if one.maskige is None or two.maskige is None:
        return masks and one.maskige is two.maskige
    return masks and torch.equal(one.maskige, two.maskige)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make decoding fail."""

    def read(self, index: int):
        raise AssertionError(f"clip {index} is decoded again")

    monkeypatch.setattr(FileDecoder, "read", read)


@pytest.mark.parametrize("fit", ["squeeze", "crop", "pad"])
@pytest.mark.parametrize("maskige", [False, True])
def test_cached_pixels_are_those_of_the_files(tmp_path: Path, monkeypatch, fit: str, maskige: bool) -> None:
    """Clips of 5 and 10 frames, of one wide shape and one tall, bit for bit."""
    write_synthetic(tmp_path / "avss", AVSS, (0, 0, 6), seed=2, jobs=1)
    clips = open_dataset(tmp_path / "avss", AVSS).clips("test")
    assert {len(clip.frames) for clip in clips} == {5, 10}
    for number, clip in enumerate(clips[:2]):
        for path in clip.frames:
            sides = (90, 60) if number else (50, 100)
            with Image.open(path) as image:
                image.resize(sides).save(path)
    maskiges = {clip.id: clip.frames for clip in clips} if maskige else None
    files = FileDecoder(clips, AVSS, 48, fit, maskiges)
    expected = [files.read(index) for index in range(6)]
    contents = [files.content(index) for index in range(6)]
    assert (len(set(contents)) > 1) == (fit == "pad")
    kept = DecodedClips(files)
    assert kept.fill()[0] == 6
    refuse(monkeypatch)
    again = DecodedClips(files)
    for index in range(6):
        assert same(kept.read(index), expected[index])
        assert same(again.read(index), expected[index])
        assert again.content(index) == contents[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_batches_are_the_same_with_and_without_cache(clips, workers: int) -> None:
    audio = {clip.id: np.zeros((5, 128), np.float32) for clip in clips}
    decoder = FileDecoder(clips, S4, 64, "pad")
    decoded = DecodedClips(decoder)
    plain, cached = (ClipDataset(source, audio, augment=EVERYTHING, seed=3) for source in (decoder, decoded))
    epochs = Epochs(len(clips), 2, seed=3)
    for epoch in range(2):  # the first fills the cache, the second reads it
        order = [epochs.batch(step) for step in range(epochs.start(epoch), epochs.start(epoch + 1))]
        for one, two in zip(load(plain, order), load(cached, order, workers=workers), strict=True):
            assert torch.equal(one.images, two.images)
            assert one.masks is not None
            assert torch.equal(one.masks, two.masks)
    assert decoded.missing() == []


def test_pixels_that_were_read_may_be_changed(clips) -> None:
    kept = DecodedClips(FileDecoder(clips, S4, 32))
    first = kept.read(0)
    kept.read(0).images.zero_()
    assert same(kept.read(0), first)


@pytest.mark.parametrize("file", ["data.bin", "index.bin"])
def test_a_flipped_bit_is_found_and_repaired(
    clips, folder: Path, messages: Messages, monkeypatch, file
) -> None:
    decoder = FileDecoder(clips, S4, 32)
    DecodedClips(decoder).fill(jobs=1)  # in the order of the clips
    (path,) = folder.rglob(file)
    content = bytearray(path.read_bytes())
    place = len(content) // len(clips) + 2  # inside the second clip's array, or its record
    content[place] ^= 4
    path.write_bytes(content)
    kept = DecodedClips(decoder)
    for index in range(len(clips)):
        assert same(kept.read(index), decoder.read(index))
    assert len(messages()) == 1
    where = f"Clip {clips[1].id} in" if file == "data.bin" else "Record 1 of"
    assert messages()[0].startswith(where)
    assert " is damaged; it" in messages()[0]
    refuse(monkeypatch)
    repaired = DecodedClips(decoder)
    for index in range(len(clips)):
        assert same(repaired.read(index), kept.read(index))


@pytest.mark.parametrize("place", range(RECORD_SIZE))
def test_every_byte_of_a_record_is_checked(clips, folder: Path, messages: Messages, place: int) -> None:
    decoder = FileDecoder(clips[:1], S4, 32)
    DecodedClips(decoder).fill()
    (path,) = folder.rglob("index.bin")
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
    assert same(DecodedClips(decoder).read(0), decoder.read(0))
    assert same(DecodedClips(decoder).read(0), decoder.read(0))


def test_a_truncated_file_is_filled_again(clips, folder: Path) -> None:
    decoder = FileDecoder(clips, S4, 32)
    DecodedClips(decoder).fill()
    (path,) = folder.rglob("data.bin")
    path.write_bytes(path.read_bytes()[:-1000])
    kept = DecodedClips(decoder)
    assert kept.fill()[0] == 1
    assert all(same(kept.read(index), decoder.read(index)) for index in range(len(clips)))


KILLED = """
import os, sys
from pathlib import Path
from avsbench_harness.data.cache.decoded import DecodedClips
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.tasks import S4
read = FileDecoder.read
def dies(self, index):
    if index == 2: os._exit(9)
    return read(self, index)
FileDecoder.read = dies
clips = open_dataset(Path(sys.argv[1]), S4).clips("train")
DecodedClips(FileDecoder(clips, S4, 32)).fill(jobs=1)
"""


@pytest.mark.slow
def test_a_killed_build_is_resumed(clips, real_s4: Path, monkeypatch) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(real_s4)], check=False).returncode == 9
    decoder = FileDecoder(clips, S4, 32)
    expected = [decoder.read(index) for index in range(len(clips))]
    decoded: list[int] = []
    real = FileDecoder.read
    monkeypatch.setattr(FileDecoder, "read", lambda self, index: decoded.append(index) or real(self, index))
    kept = DecodedClips(decoder)
    steps: list[int] = []
    kept.fill(steps.append)
    assert sorted(decoded) == list(range(2, len(clips)))
    assert sum(steps) == len(clips)
    refuse(monkeypatch)
    assert all(same(kept.read(index), expected[index]) for index in range(len(clips)))


def test_concurrent_fills_decode_each_clip_once(clips, monkeypatch) -> None:
    decoder = FileDecoder(clips, S4, 32)
    decoded: list[int] = []
    real = FileDecoder.read
    monkeypatch.setattr(FileDecoder, "read", lambda self, index: decoded.append(index) or real(self, index))
    both = [DecodedClips(decoder) for _ in range(2)]
    threads = [threading.Thread(target=kept.fill) for kept in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == list(range(len(clips)))


def change_frame(root: Path) -> None:
    path = next(iter(sorted(root.rglob("visual_frames/train/**/*.png"))))
    found = path.stat()
    content = path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))


def move(root: Path) -> None:
    (root / "Single-source").rename(root.parent / "aside")
    root.rmdir()
    root.mkdir()
    (root.parent / "aside").rename(root / "Single-source")


@pytest.mark.parametrize(("change", "other"), [(change_frame, True), (move, False)])
def test_files_that_changed_are_decoded_again(
    tmp_path: Path, real_s4: Path, change: Callable[[Path], None], other: bool
) -> None:
    root = tmp_path / "data"
    shutil.copytree(real_s4, root)
    (root / "README.md").unlink()
    (root / "LICENSE.DAVIS-BSD.txt").unlink()

    def key(**how) -> str:
        return FileDecoder(open_dataset(root, S4).clips("train"), S4, **{"size": 32, **how}).key()

    before = key()
    change(root)
    assert (key() != before) == other
    clips = open_dataset(root, S4).clips("train")
    maskiges = {clip.id: clip.frames for clip in clips}
    assert len({key(), key(size=33), key(fit="pad"), key(fit="crop"), key(maskiges=maskiges)}) == 5


def test_a_missing_file_is_named_and_its_clip_is_not_cached(tmp_path: Path, real_s4: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(real_s4, root)
    clips = open_dataset(root, S4).clips("train")
    clips[1].frames[3].unlink()
    kept = DecodedClips(FileDecoder(clips, S4, 32))
    with pytest.raises(MissingDataError, match=clips[1].frames[3].name):
        kept.fill(jobs=1)
    assert 1 in kept.missing()


def test_a_full_disk_is_logged_once_and_clips_are_decoded_from_files(
    clips, messages: Messages, monkeypatch
) -> None:
    decoder = FileDecoder(clips, S4, 32)
    kept = DecodedClips(decoder)
    both = threading.Barrier(2, timeout=60)

    def write(key: str, array: object) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # two threads fail at the same time
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.store, "store", write)
    assert kept.fill(jobs=2) == (len(clips), 0)
    assert all(same(kept.read(index), decoder.read(index)) for index in range(len(clips)))
    assert len(messages()) == 1
    assert "No space left on device" in messages()[0]


def test_too_little_room_is_reported_before_filling(clips, monkeypatch) -> None:
    kept = DecodedClips(FileDecoder(clips, S4, 32))
    assert kept.make_room() is None
    wanted = len(clips) * 5 * 4 * 32 * 32
    usage = shutil.disk_usage("/")._replace(free=RESERVE + wanted - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "free disk space, set AVSB_CACHE_LIMIT to more GB, or set AVSB_CACHE_DIR" in str(kept.make_room())
    kept.read(0)  # a cached clip needs no room
    assert kept.make_room() is None


def test_pickles_do_not_contain_pixels(clips) -> None:
    kept = DecodedClips(FileDecoder(clips, S4, 64))
    kept.fill()
    kept.read(0)
    sent = pickle.dumps(kept)
    assert len(sent) < 20_000
    assert same(pickle.loads(sent).read(1), kept.read(1))


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from avsbench_harness.data.cache.decoded import DecodedClips
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.loader import ClipDataset, in_order, load
from avsbench_harness.tasks import S4
clips = open_dataset(Path(sys.argv[1]), S4).clips("train")
clips = [clips[index % len(clips)] for index in range(int(sys.argv[2]))]
audio = {clip.id: np.zeros((5, 128), np.float32) for clip in clips}
decoded = DecodedClips(FileDecoder(clips, S4, 224))
decoded.fill()
dataset = ClipDataset(decoded, audio)
own = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(max(own() for batch in load(dataset, in_order(len(clips), 4))))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_number_of_clips(real_s4: Path) -> None:
    """Without the file's own pages, which the system drops when it needs room; a clip has 1 MB.

    Both counts are past those at which the loader's queues and the allocator's pools are still filling.
    """
    peaks = []
    for count in (64, 256):
        command = [sys.executable, "-c", MEMORY, str(real_s4), str(count)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] - peaks[0] < 96 * 1024, peaks  # KiB, half of what the clips between them have
