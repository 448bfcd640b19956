from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbench_harness.data import maskige
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.loader import ClipDataset, in_order, load, normalise
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, MS3, S4


def square(size: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[:side, :side] = True
    return mask


def test_small_masks_lie_on_top_and_have_small_numbers() -> None:
    index = maskige.paint(np.stack([square(8, 6), square(8, 2), square(8, 4)]))
    assert [index[0, 0], index[3, 3], index[5, 5], index[7, 7]] == [1, 2, 3, 0]


def test_numbers_wrap_after_255() -> None:
    masks = np.zeros((257, 1, 257), np.bool_)
    for rank in range(257):
        masks[rank, 0, rank] = True
    assert maskige.paint(masks)[0, [0, 254, 255, 256]].tolist() == [1, 255, 0, 1]


def test_no_mask_gives_the_grey_of_index_zero() -> None:
    assert maskige.paint(np.zeros((1, 2, 2), np.bool_)).tolist() == [[0, 0], [0, 0]]
    assert maskige.palette()[0].tolist() == [120, 120, 120]
    assert maskige.palette()[149].tolist() == [92, 0, 255]
    assert not maskige.palette()[150:].any()


def test_segments_cover_a_frame_once(real_s4: Path) -> None:
    frame = np.asarray(Image.open(open_dataset(real_s4, S4).clips("test")[0].frames[0]).convert("RGB"))
    masks = maskige.felzenszwalb(frame)
    assert len(masks) > 1
    assert (masks.sum(0) == 1).all()


def test_published_files_are_found_where_the_authors_keep_them(tmp_path: Path) -> None:
    expected = (
        (S4, "s4_data/pre_SAM_mask/{split}/{category}/{id}/{id}_1_mask_color.png"),
        (MS3, "ms3_data/pre_SAM_mask/{id}/{id}.mp4_1_mask_color.png"),
        (AVSS, "pre_SAM_mask/AVSBench_semantic/{subset}/{id}/frames/0_mask_color.png"),
    )
    for task, pattern in expected:
        root = tmp_path / task.name
        write_synthetic(root, task, (1, 0, 0), seed=1, jobs=1)
        dataset = open_dataset(root, task)
        (clip,) = dataset.clips("train")
        facts = {"split": "train", "category": clip.category, "id": clip.id, "subset": clip.subset}
        first = maskige.maskige_files(dataset, clip, "published")[0]
        assert first == dataset.folder / pattern.format(**facts)
    processed = first.parent.parent / "processed_frames" / first.name
    processed.parent.mkdir(parents=True)
    processed.touch()
    assert maskige.maskige_files(dataset, clip, "published")[0] == processed


def test_an_interrupted_call_is_resumed(
    real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    dataset = open_dataset(real_s4, S4)
    clips = dataset.clips("test")
    assert maskige.missing_maskiges(dataset, clips, "felzenszwalb") == 15
    done = []
    assert maskige.make_maskiges(clips[:2], "felzenszwalb", jobs=2, progress=done.append) == 10
    assert done == [1, 1]
    assert maskige.make_maskiges(clips, "felzenszwalb", jobs=1) == 5
    assert maskige.make_maskiges(clips, "felzenszwalb", jobs=1) == 0
    path = maskige.maskige_files(dataset, clips[0], "felzenszwalb")[0]
    colours = {tuple(colour) for colour in maskige.read_maskige(path, 224).reshape(-1, 3)}
    assert len(colours) > 1
    assert colours <= {tuple(colour) for colour in maskige.palette()}
    assert {tuple(colour) for colour in maskige.read_maskige(path, 60).reshape(-1, 3)} <= colours


def test_batches_contain_maskiges(real_s4: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    dataset = open_dataset(real_s4, S4)
    clips = dataset.clips("val")
    maskige.make_maskiges(clips, "felzenszwalb", jobs=1)
    files = {clip.id: maskige.maskige_files(dataset, clip, "felzenszwalb") for clip in clips}
    audio = {clip.id: np.zeros((5, 128), np.float32) for clip in clips}
    (batch,) = load(ClipDataset(FileDecoder(clips, S4, 32, maskiges=files), audio), in_order(2, 2))
    assert batch.maskige is not None
    assert batch.maskige.shape == batch.images.shape
    colours = maskige.read_maskige(files[clips[1].id][4], 32)
    first = normalise(torch.tensor(colours).permute(2, 0, 1)[None])[0]
    assert (batch.maskige[1, 4] == first).all()


def test_missing_files_and_unknown_names_are_reported(real_s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(real_s4, root)
    dataset = open_dataset(root, S4)
    clip = dataset.clips("test")[0]
    with pytest.raises(UsageError, match="Unknown source of maskiges 'publishd'. Did you mean 'published'"):
        maskige.maskige_files(dataset, clip, "publishd")
    with pytest.raises(UsageError, match="Unknown segmenter 'sam'"):
        maskige.make_maskiges([clip], "sam")
    with pytest.raises(MissingDataError, match="`avsb data maskige` makes maskiges"):
        maskige.read_maskige(maskige.maskige_files(dataset, clip, "published")[0], 224)
    clip.frames[0].unlink()
    with pytest.raises(MissingDataError, match="`avsb data check`"):
        maskige.maskige_files(dataset, clip, "felzenszwalb")


# --- Segment Anything -------------------------------------------------------------------------------------


@pytest.fixture
def sam_folder(tmp_path: Path) -> Path:
    """A tiny Segment Anything model with random weights, whose masks pass the stability filter."""
    transformers = pytest.importorskip("transformers", reason="needs transformers (the extra sam)")
    import torch

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 16}
    vision = {
        **size, "output_channels": 16, "num_hidden_layers": 1, "image_size": 64, "patch_size": 16,
        "window_size": 2, "global_attn_indexes": [0], "num_pos_feats": 8,
    }  # fmt: skip
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {**size, "num_hidden_layers": 1, "iou_head_hidden_dim": 16}
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    model = transformers.SamModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "iou_prediction" not in name:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        model.mask_decoder.iou_prediction_head.proj_out.bias.fill_(2.0)
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(300.0)
    folder = tmp_path / "sam-tiny"
    model.save_pretrained(folder)
    transformers.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_segment_anything_model_makes_maskiges(
    avsb, sam_folder: Path, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsbench_harness.data.sam import Sam

    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = tmp_path / "data"
    write_synthetic(root, S4, (1, 1, 1), seed=1, jobs=1)
    dataset = open_dataset(root, S4)
    (clip,) = dataset.clips("val")
    for path in clip.frames:  # random weights give a mask for nearly every point; small ones are quick
        Image.open(path).resize((48, 40)).save(path)
    frame = np.asarray(Image.open(clip.frames[0]).convert("RGB"))
    sam = Sam(sam_folder, "cpu")
    masks = sam(frame)
    assert masks.shape[1:] == frame.shape[:2]
    assert masks.any(axis=(1, 2)).all()
    assert not masks.all()

    command = ("data", "maskige", root, "--task", "s4", "--split", "val", "--segmenter", "sam")
    made = avsb(*command, "--weights", sam_folder, "--device", "cpu", "--json").json
    assert made["source"] == sam.name
    assert made["made"] == 5
    assert avsb(*command, "--weights", sam_folder, "--json").json["made"] == 0
    path = maskige.maskige_files(dataset, clip, sam.name)[0]
    expected = maskige.palette()[maskige.paint(masks)]
    assert (np.asarray(Image.open(path).convert("RGB")) == expected).all()

    # The other splits have none.
    run = ("run", "--method", tiny, "--data", root, "--out", tmp_path, "--device", "cpu")
    for options in (["--dry-run"], []):
        missing = avsb(*run, *options, "--set", f"maskige={sam.name}", "--set", "iterations=1")
        assert missing.code == 4
        assert "5 maskiges of the train split are missing" in missing.err
        assert "--task s4 --segmenter sam --weights FOLDER` makes them" in missing.err

    # Other weights are another source.
    (sam_folder / "config.json").write_text((sam_folder / "config.json").read_text() + " ")
    assert Sam(sam_folder, "cpu").name != sam.name


@pytest.mark.slow
def test_frames_without_a_mask_have_one_empty_mask(sam_folder: Path) -> None:
    import torch
    import transformers

    from avsbench_harness.data.sam import Sam

    model = transformers.SamModel.from_pretrained(sam_folder)
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias.fill_(-2.0)
    model.save_pretrained(sam_folder)
    masks = Sam(sam_folder, "cpu")(np.full((40, 60, 3), 128, np.uint8))
    assert masks.shape == (1, 40, 60)
    assert not masks.any()


def test_without_transformers_the_extra_is_named(
    real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsbench_harness.data.sam import Sam

    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r'`pip install "avsbench-harness\[sam\]"` installs it\.$'):
        Sam(tmp_path)


def test_what_is_no_segment_anything_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers (the extra sam)")
    from avsbench_harness.data.sam import Sam

    with pytest.raises(MissingDataError, match=r"no \.safetensors file"):
        Sam(tmp_path / "absent")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="contains no Segment Anything model"):
        Sam(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="contains no Segment Anything model"):
        Sam(tmp_path)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--segmenter", "sam"), 2, "--segmenter sam needs --weights FOLDER"),
        (("--segmenter", "sam", "--weights", "x", "--jobs", "2"), 2, "--jobs has no effect"),
        (("--segmenter", "sam", "--weights", "absent"), 4, "no .safetensors file"),
        (("--weights", "x"), 2, "have no effect on the segmenter felzenszwalb"),
        (("--segmenter", "sma"), 2, "Unknown segmenter 'sma'. Did you mean 'sam'?"),
    ],
)
def test_options_of_segmenters(
    avsb, real_s4: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = avsb("data", "maskige", real_s4, "--task", "s4", *options)
    assert result.code == code
    assert message in result.err


def test_sources_of_recipes(real_s4: Path) -> None:
    dataset = open_dataset(real_s4, S4)
    maskige.check_source("sam-0123456789ab")
    with pytest.raises(UsageError, match="name the model as `avsb data maskige --segmenter sam`"):
        maskige.check_source("sam")
    with pytest.raises(UsageError, match="Unknown source of maskiges 'sam-0123'"):
        maskige.check_source("sam-0123")
    assert maskige.maskige_command(dataset, "felzenszwalb") == f"avsb data maskige {real_s4} --task s4"
