from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from avsbench_harness.errors import UsageError
from avsbench_harness.weights.strict import RenameRules, load_renamed, pvt_v2_name, unused_entries
from avsbench_harness.weights.timm_names import skeleton

rename = RenameRules((r"^audio\.", None), (r"^fc\.", "1."), (r"^conv\.", "0."))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def state() -> dict[str, Tensor]:
    return {
        "conv.weight": torch.ones(2, 3, 1, 1),
        "conv.bias": torch.full((2,), 2.0),
        "fc.weight": torch.full((2,), 3.0),
        "fc.bias": torch.full((2,), 4.0),
        "fc.running_mean": torch.full((2,), 5.0),
        "fc.running_var": torch.full((2,), 6.0),
        "audio.weight": torch.zeros(7),
    }


def test_rules_apply_in_order_until_one_drops_the_entry() -> None:
    rules = RenameRules(
        (r"^stage([1-4])\.", lambda match: f"levels.{int(match[1]) - 1}."),
        (r"\.unused\.", None),
        (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    )
    assert rules("module.stage2.in_proj_weight") == "levels.1.in_proj.weight"
    assert rules("stage1.unused.weight") is None
    assert rules("other") == "other"


def test_a_state_dict_is_loaded_under_new_names_without_trailing_axes_of_one() -> None:
    net = network()
    load_renamed(net, state(), rename, what="the test")
    assert unused_entries(net) == ("audio.weight",)
    assert net[0].weight.tolist() == [[1.0] * 3] * 2
    assert net[1].running_var.tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv.bias": None}, r"the test: 1 missing \(0\.bias\)"),
        ({"other": torch.zeros(1)}, r"1 unknown \(other\)"),
        ({"1.weight": torch.zeros(2)}, r"1 unknown \(1\.weight\)"),
        (
            {"conv.weight": torch.zeros(2, 4)},
            r"1 of the wrong shape \(conv\.weight \(2, 4\) instead of \(2, 3\)\)",
        ),
        ({"conv.weight": torch.zeros(2, 3, 3, 3)}, r"wrong shape"),
        ({"conv.bias": "text"}, r"conv\.bias \(str\) instead of \(2,\)"),
        ({f"x{i}": torch.zeros(1) for i in range(5)}, r"5 unknown \(x0, x1, x2 and 2 more\)"),
    ],
)
def test_misfits_are_named_and_nothing_is_loaded(change: dict[str, object], message: str) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    changed = {name: value for name, value in {**state(), **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        load_renamed(net, changed, rename, what="the test")
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_pvt_names_match_timms_feature_extractor() -> None:
    wanted = set(skeleton("pvt_v2_b0", features_only=True, out_indices=(0, 1, 2, 3)).state_dict())
    original = {
        "patch_embed1.proj.weight": "patch_embed.proj.weight",
        "patch_embed3.norm.bias": "stages_2.downsample.norm.bias",
        "block1.0.attn.sr.weight": "stages_0.blocks.0.attn.sr.weight",
        "block4.1.mlp.dwconv.dwconv.bias": "stages_3.blocks.1.mlp.dwconv.bias",
        "block2.1.norm2.weight": "stages_1.blocks.1.norm2.weight",
        "norm4.weight": "stages_3.norm.weight",
    }
    for name, ours in original.items():
        assert pvt_v2_name(name) == ours
        assert ours in wanted


def test_values_that_are_not_finite_are_refused() -> None:
    module = torch.nn.Linear(2, 1)
    before = module.weight.clone()
    state = {"weight": torch.tensor([[1.0, float("nan")]]), "bias": torch.zeros(1)}
    with pytest.raises(UsageError, match=r"not all values are numbers: 1 not finite \(weight\)"):
        load_renamed(module, state, lambda name: name, what="a line")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool])
def test_numbers_of_other_types_are_refused(dtype: torch.dtype) -> None:
    module = torch.nn.Linear(2, 1)
    state = {"weight": torch.ones(1, 2).to(dtype), "bias": torch.zeros(1)}
    with pytest.raises(UsageError, match=r"has the wrong type: 1 not floating-point \(weight"):
        load_renamed(module, state, lambda name: name, what="a line")


def test_a_counter_that_is_not_finite_is_refused() -> None:
    module = torch.nn.BatchNorm1d(1)
    state = {**module.state_dict(), "num_batches_tracked": torch.tensor(float("nan"))}
    with pytest.raises(UsageError, match=r"1 not finite \(num_batches_tracked\)"):
        load_renamed(module, state, lambda name: name, what="a norm")
