from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avsbench_harness.errors import UsageError
from avsbench_harness.weights.tensors import MAX_HEADER, load_tensors, meta_state_dict, save_tensors


def test_shared_memory_is_written_twice(tmp_path: Path) -> None:
    tensor = torch.arange(6.0)
    save_tensors(tmp_path / "a.safetensors", {"whole": tensor, "same": tensor, "half": tensor[:3]})
    loaded = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(loaded["half"], tensor[:3])
    assert torch.equal(loaded["same"], loaded["whole"])


def test_names_and_shapes_are_read_without_the_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 3), "b": torch.ones(())}, tmp_path / "a.safetensors")
    state = meta_state_dict(tmp_path / "a.safetensors")
    assert {name: tuple(value.shape) for name, value in state.items()} == {"a": (2, 3), "b": ()}
    assert all(value.is_meta for value in state.values())


def headed(header: object) -> bytes:
    """A safetensors file without data."""
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded


@pytest.mark.parametrize("read", [load_tensors, meta_state_dict])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff" * 40, "its header is too long"),
        ((MAX_HEADER + 1).to_bytes(8, "little") + b" " * MAX_HEADER, "its header is too long"),
        ((99).to_bytes(8, "little") + b"{}", ""),
        (headed({"w": {"dtype": "F\x1b[2J", "shape": [0], "data_offsets": [0, 0]}}), ""),
        (headed({"\x1b[2J": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "not printable"),
        (headed({"w": {"dtype": "F32", "shape": [1] * 40 + [0], "data_offsets": [0, 0]}}), "32 axes"),
        (headed({"w" * 301: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "too long"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, read, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"broken\.safetensors is not a whole .* \(.*{reason}") as caught:
        read(path)
    assert str(caught.value).isprintable()
