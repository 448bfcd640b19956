"""Pretrains the compact audio encoder to tell the ten kinds of AVS-Mini apart.

    python benchmarks/pretrain_audio.py --out pretrained

Recordings of the training split (folds 1 to 3 of ESC-10) are used for training, those of the validation split
to choose the epoch, and those of the test split once, for the accuracy in the record. Augmentation: shift in
time, gain, masked bands and times, and mixtures of two recordings with both labels, at up to 12 dB. Seconds
whose level is more than 20 dB below the loudest second of their recording are left out. Writes
``compact-esc10.safetensors`` and ``compact-esc10.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from avsbench_harness.data.audio.logmel import EXAMPLE_FRAMES, HOP, log_mel_examples
from avsbench_harness.data.mini.media import Media, Recording, mini_media
from avsbench_harness.data.mini.sound import AUDIBLE, samples_of
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.tasks import Split

STEP = EXAMPLE_FRAMES * HOP
# Level of the loudest second before augmentation, tenths of dBFS.
LEVEL = -210


class Examples:
    """The recordings of a split at a common level, with the label of each.

    Args:
        media: the media.
        split: the split.
        kinds: names of the classes, in their order.
    """

    def __init__(self, media: Media, split: Split, kinds: list[str]) -> None:
        self.recordings: list[Recording] = list(media.recordings[split])
        self.labels = [kinds.index(recording.kind) for recording in self.recordings]
        self.waves = [
            samples_of(one.path) / 32768 * 10 ** ((LEVEL - one.loudest) / 200) for one in self.recordings
        ]

    def __len__(self) -> int:
        return len(self.recordings)

    def clean(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The log-mel examples (n,1,96,64) of a recording, and whether each is audible."""
        log_mels = log_mel_examples(self.waves[index])
        return log_mels, audible(self.waves[index], len(log_mels))


def audible(wave: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Whether each example's level is within 20 dB of the level of the loudest second."""
    power = np.array([np.mean(wave[i * STEP : (i + 1) * STEP] ** 2) for i in range(count)])
    level = 10 * np.log10(np.maximum(power, 1e-18))
    return np.greater_equal(level, (LEVEL - AUDIBLE) / 10)


def augmented(
    data: Examples, rng: np.random.Generator, kinds: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One epoch of examples (n,1,96,64) and targets (n,kinds)."""
    inputs, targets = [], []
    for index in range(len(data)):
        wave = np.roll(data.waves[index], rng.integers(len(data.waves[index])))
        target = np.zeros((5, kinds), np.float32)
        target[audible(wave, 5), data.labels[index]] = 1
        if rng.random() < 0.5:
            other = int(rng.integers(len(data)))
            second = np.roll(data.waves[other], rng.integers(len(wave)))
            mixed = np.zeros((5, kinds), np.float32)
            mixed[audible(second, 5), data.labels[other]] = 1
            wave = wave + second * 10 ** (rng.uniform(-12, 12) / 20)
            target = np.maximum(target, mixed)
        wave = wave * 10 ** (rng.uniform(-12, 6) / 20)
        log_mels = log_mel_examples(wave)[:5]
        for example in log_mels:
            low, start = rng.integers(0, 64 - 8), rng.integers(0, EXAMPLE_FRAMES - 16)
            if rng.random() < 0.5:
                example[:, :, low : low + rng.integers(1, 9)] = math.log(0.01)
            if rng.random() < 0.5:
                example[:, start : start + rng.integers(1, 17)] = math.log(0.01)
        keep = target.any(axis=1)
        inputs.append(log_mels[keep])
        targets.append(target[keep])
    return np.concatenate(inputs), np.concatenate(targets)


def accuracy(network: nn.Module, data: Examples) -> tuple[float, float]:
    """Share of recordings (mean over the audible seconds), and of audible seconds, that are right."""
    network.eval()
    clips, seconds = [], []
    with torch.no_grad():
        for index in range(len(data)):
            log_mels, on = data.clean(index)
            logits: Tensor = network(torch.from_numpy(log_mels[on]))
            seconds += (logits.argmax(1) == data.labels[index]).tolist()
            clips.append(int(logits.sigmoid().mean(0).argmax()) == data.labels[index])
    network.train()
    return float(np.mean(clips)), float(np.mean(seconds))


def train(epochs: int, seed: int, rate: float) -> tuple[nn.Module, dict[str, Any]]:
    """Train encoder and classifier; returns the encoder of the best epoch, and the record."""
    torch.manual_seed(seed)
    rng, media = np.random.default_rng(seed), mini_media()
    kinds = media.kinds("train")
    data: dict[Split, Examples] = {split: Examples(media, split, kinds) for split in ("train", "val", "test")}
    encoder = CompactAudioEncoder()
    network = nn.Sequential(encoder, nn.Dropout(0.3), nn.Linear(128, len(kinds)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    best: tuple[float, int, dict[str, Tensor]] = (-1.0, 0, {})
    started = time.process_time()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        inputs, targets = augmented(data["train"], rng, len(kinds))
        order = rng.permutation(len(inputs))
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            logits = network(torch.from_numpy(inputs[rows]))
            loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        clips, seconds = accuracy(network, data["val"])
        print(
            f"epoch {epoch}: loss {loss.item():.3f}, val clips {clips:.3f}, seconds {seconds:.3f}", flush=True
        )
        if clips + seconds > best[0] and epoch >= epochs // 2:
            best = clips + seconds, epoch, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(best[2])
    result = {split: accuracy(network, data[split]) for split in data}
    record = {
        "kinds": kinds,
        "recordings": {split: len(data[split]) for split in data},
        "epochs": epochs,
        "epoch": best[1],
        "seed": seed,
        "lr": rate,
        "accuracy": {
            split: {"clips": round(clips, 4), "seconds": round(seconds, 4)}
            for split, (clips, seconds) in result.items()
        },
        "cpu_seconds": round(time.process_time() - started),
        "torch": torch.__version__.split("+")[0],
    }
    return encoder, record


def main() -> None:
    """Parse the options, train, and write the weights and the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the record")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    encoder, record = train(arguments.epochs, arguments.seed, arguments.lr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    save_file(state, arguments.out / "compact-esc10.safetensors")
    (arguments.out / "compact-esc10.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["accuracy"]))


if __name__ == "__main__":
    main()
