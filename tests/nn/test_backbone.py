from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from avsbench_harness.data.batch import IMAGENET_MEAN, IMAGENET_STD
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.nn.backbone import Backbone, build_backbone
from avsbench_harness.nn.pretrained import add_weights
from avsbench_harness.weights.backbone_names import ALIASES, resolve
from avsbench_harness.weights.pretrained import find_pretrained
from avsbench_harness.weights.state_files import read_state
from avsbench_harness.weights.timm_names import fit_state, skeleton


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty store and an empty download cache, and an error on any network connection."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", connect)


def _maps(backbone: Backbone, height: int, width: int) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone.eval()(torch.randn(1, 3, height, width))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("r50", (256, 512, 1024, 2048)),
        ("swin_t", (96, 192, 384, 768)),
        ("pvt_v2_b0", (32, 64, 160, 256)),  # the smallest variant of pvt
        ("resnet18", (64, 128, 256, 512)),
        ("convnext_atto", (40, 80, 160, 320)),
        ("mobilenetv3_small_050", (8, 16, 24, 288)),
    ],
)
def test_four_maps_at_the_four_strides(name: str, channels: tuple[int, ...]):
    backbone = build_backbone(name)
    assert backbone.channels == channels
    assert backbone.strides == (4, 8, 16, 32)
    for height, width in ((64, 96), (128, 128)):
        maps = _maps(backbone, height, width)
        assert [tuple(features.shape) for features in maps] == [
            (1, size, height // stride, width // stride)
            for size, stride in zip(channels, backbone.strides, strict=True)
        ]
        assert all(features.std() > 0 for features in maps)


def test_aliases():
    assert resolve("r50") == resolve("resnet50.tv_in1k") == "resnet50.tv_in1k"
    assert resolve("pvt") == "pvt_v2_b5.in1k"
    assert resolve("swin_t") == "swin_tiny_patch4_window7_224.ms_in1k"
    assert all(resolve(full) == full for full in ALIASES.values())  # as timm names them
    assert resolve("resnet50") == "resnet50.a1_in1k"  # timm's own default
    assert skeleton("pvt_v2_b5", features_only=True).feature_info.channels() == [64, 128, 320, 512]


def test_swin_maps_are_channels_first():
    """The maps are timm's, transposed; at 96 x 96 shapes alone would not show a wrong axis."""
    backbone = build_backbone("swin_t").eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        for ours, theirs in zip(backbone(images), backbone.body(images), strict=True):
            torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2), atol=0, rtol=0)


def test_images_are_converted_to_the_models_normalisation():
    name = "tf_efficientnet_lite0"  # mean and deviation 0.5 instead of ImageNet's
    backbone = build_backbone(name).eval()
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        ours, unchanged, theirs = (
            maps[0] / maps[0].std()
            for maps in (
                backbone((pixels - mean) / std),
                backbone.body((pixels - mean) / std),
                backbone.body((pixels - 0.5) / 0.5),
            )
        )
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert (unchanged - theirs).abs().max() > 0.1
    assert all(key.startswith("body.") for key in backbone.state_dict())
    assert build_backbone("resnet18").scale is None


def test_state_dict_names_are_timms_with_the_prefix_body():
    names = build_backbone("pvt_v2_b0").state_dict()
    assert "body.stages_0.blocks.0.attn.q.weight" in names
    assert all(name.startswith("body.") for name in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("restnet50", "Unknown backbone 'restnet50'. Did you mean 'resnet50'?"),
        ("swint", "Unknown backbone 'swint'. Did you mean 'swin_t'?"),
        ("qqqq", "Unknown backbone 'qqqq'. Known: lite0, pvt, r50, swin_t."),
        ("resnet50.tv_in2k", "Unknown weights of resnet50 'tv_in2k'. Did you mean 'tv_in1k'?"),
    ],
)
def test_unknown_names_suggest_the_most_similar(name: str, message: str):
    with pytest.raises(UsageError) as caught:
        build_backbone(name)
    assert str(caught.value) == message


def test_models_without_the_four_strides_are_refused():
    with pytest.raises(UsageError, match="has maps at strides 16, 16, 16; 4, 8, 16 and 32 are needed"):
        build_backbone("vit_tiny_patch16_224")


def test_drop_path_rate():
    def rates(backbone: Backbone) -> list[float]:
        return [module.drop_prob for module in backbone.modules() if type(module).__name__ == "DropPath"]

    assert max(rates(build_backbone("pvt_v2_b0", drop_path_rate=0.25))) == pytest.approx(0.25)
    assert not any(rates(build_backbone("pvt_v2_b0", drop_path_rate=0.0)))
    with pytest.raises(UsageError, match="'vgg11' has no stochastic depth"):
        build_backbone("vgg11", drop_path_rate=0.1)


def test_equal_seeds_give_equal_weights():
    def draw() -> torch.Tensor:
        torch.manual_seed(4)
        build_backbone("convnext_atto")
        return torch.rand(3)

    torch.testing.assert_close(draw(), draw(), atol=0, rtol=0)


# --- weights ----------------------------------------------------------------------------------------------


def _classifier_file(name: str, path: Path) -> dict[str, torch.Tensor]:
    """The weights of timm's whole classifier, as a file of timm's hub pages."""
    torch.manual_seed(9)
    state = timm.create_model(name).state_dict()
    save_file(state, path)
    return state


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "swin_t", "convnext_atto"])
def test_features_match_the_loaded_classifier(name: str, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    _classifier_file(resolve(name), file)
    classifier = timm.create_model(resolve(name)).eval()
    classifier.load_state_dict({**classifier.state_dict(), **read_state(file)})
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        last = build_backbone(name, pretrained=file).eval()(images)[-1]
        features = classifier.forward_intermediates(images, intermediates_only=True, norm=False)[-1]
    torch.testing.assert_close(last, features, atol=1e-5, rtol=1e-5)


def test_torchvision_names_without_batch_counters(tmp_path: Path):
    from torchvision.models import resnet50

    state = {name: tensor for name, tensor in resnet50().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "resnet50.pth")
    body = build_backbone("r50", pretrained=tmp_path / "resnet50.pth").body.state_dict()
    assert torch.equal(body["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])
    assert {name for name in state if name not in body} == {"fc.weight", "fc.bias"}


def test_r50_has_the_feature_maps_of_torchvision(tmp_path: Path):
    """With the same weights, as in the methods that were published with torchvision's network."""
    from torchvision.models import resnet50
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(3)
    theirs = resnet50().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    ours = build_backbone("r50", pretrained=tmp_path / "resnet50.pth").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        layers = create_feature_extractor(theirs, ["layer1", "layer2", "layer3", "layer4"])(images)
        for one, two in zip(ours(images), layers.values(), strict=True):
            torch.testing.assert_close(one, two, atol=0, rtol=0)


def test_original_pvt_names():
    """The names of whai362/PVT: stages counted from 1, patch embeddings and norms outside the stages."""
    state = timm.create_model("pvt_v2_b0").state_dict()
    official = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "stages":
            stage = int(parts[1]) + 1
            renamed = {"blocks": f"block{stage}", "norm": f"norm{stage}", "downsample": f"patch_embed{stage}"}
            name = ".".join([renamed[parts[2]], *parts[3:]]).replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
        else:
            name = name.replace("patch_embed.", "patch_embed1.")
        official[name] = tensor
    assert "block2.1.mlp.dwconv.dwconv.weight" in official
    assert "patch_embed3.proj.weight" in official
    fitted = fit_state("pvt_v2_b0", official)
    assert torch.equal(
        fitted["stages_1.blocks.1.mlp.dwconv.weight"], state["stages.1.blocks.1.mlp.dwconv.weight"]
    )
    assert torch.equal(fitted["stages_2.downsample.proj.weight"], state["stages.2.downsample.proj.weight"])
    assert fitted.keys() == build_backbone("pvt_v2_b0").body.state_dict().keys()


def test_original_swin_names():
    """The names of microsoft/Swin-Transformer: a stage's downsampling belongs to the stage before it."""
    state = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    official = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            name = ".".join(["layers", str(int(parts[1]) - 1), *parts[2:]])
        official[name.replace("head.fc.", "head.")] = tensor
    official["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    fitted = fit_state("swin_tiny_patch4_window7_224", official)
    assert torch.equal(fitted["layers_1.downsample.norm.weight"], state["layers.1.downsample.norm.weight"])
    assert torch.equal(fitted["layers_3.blocks.1.mlp.fc2.bias"], state["layers.3.blocks.1.mlp.fc2.bias"])


def _without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: _without(state, "layer2.0.conv1.weight"), "it lacks 'layer2.0.conv1.weight'"),
        (lambda state: {**state, "layer5.0.bias": torch.zeros(1)}, "it has 'layer5.0.bias'"),
        (
            lambda state: {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"its 'conv1.weight' is \(64, 1, 7, 7\)",
        ),
    ],
)
def test_missing_unknown_and_misshapen_entries_are_refused(change, message: str):
    state = timm.create_model("resnet18").state_dict()
    assert fit_state("resnet18", state)
    with pytest.raises(UsageError, match=f"do not fit 'resnet18': {message}"):
        fit_state("resnet18", change(state))


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("resnet18", "a ResNet of basic blocks"),
        ("resnet26", "a ResNet of bottleneck blocks"),
        ("swin_tiny_patch4_window7_224", "a Swin Transformer"),
        ("convnext_atto", "a ConvNeXt"),
        ("vit_tiny_patch16_224", "a Vision Transformer"),
    ],
)
def test_weights_of_another_model_are_recognised(name: str, looks: str):
    with pytest.raises(UsageError, match=f"do not fit 'pvt_v2_b0'.* They look like {looks}"):
        fit_state("pvt_v2_b0", timm.create_model(name).state_dict())


def test_a_whole_segmentation_model_is_recognised():
    state = {f"encoder_backbone.{name}": x for name, x in timm.create_model("resnet18").state_dict().items()}
    with pytest.raises(UsageError, match="a whole segmentation model, not its backbone"):
        fit_state("resnet18", state)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("r50", "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors"),
        ("r50", "timm resnet50.tv_in1k, SHA-256 19c8e357... or 0676ba61... or 5d061a3c..."),
        ("pvt", "https://huggingface.co/timm/pvt_v2_b5.in1k/resolve/main/model.safetensors"),
        ("resnet50.tv_in1k", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    ],
)
def test_missing_weights_name_the_file_to_download(name: str, page: str):
    with pytest.raises(MissingDataError) as caught:
        build_backbone(name, pretrained=True)
    assert page in str(caught.value)
    assert f"avsb weights add {name} model.safetensors" in str(caught.value)


def test_pretrained_weights_come_from_the_store_then_the_download_cache(tmp_path: Path):
    snapshot = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    state = _classifier_file("resnet18", snapshot / "model.safetensors")
    assert find_pretrained("resnet18") == snapshot / "model.safetensors"
    body = build_backbone("resnet18", pretrained=True).body.state_dict()
    assert torch.equal(body["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])

    own = {name: tensor + 1 for name, tensor in state.items()}
    torch.save(own, tmp_path / "own.pth")
    entry = add_weights("resnet18", tmp_path / "own.pth")
    assert find_pretrained("resnet18") == entry.path
    body = build_backbone("resnet18", pretrained=True).body.state_dict()
    assert torch.equal(body["layer1.0.conv1.weight"], own["layer1.0.conv1.weight"])


def test_an_invalid_file_is_named_and_nothing_is_loaded(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        UsageError, match=r"other\.pth: These weights do not fit 'resnet18'.*an unknown network \(a"
    ):
        build_backbone("resnet18", pretrained=tmp_path / "other.pth")


def test_timm_models_that_cannot_be_built_on_the_meta_device(monkeypatch: pytest.MonkeyPatch):
    """Older timm reads numbers while it builds: a real model is built, and the random state is kept."""
    real = timm.create_model

    def create(name: str, **options: object) -> torch.nn.Module:
        if torch.empty(0).device.type == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    skeleton.cache_clear()
    torch.manual_seed(1)
    model = skeleton("resnet18")
    after = torch.rand(1)
    skeleton.cache_clear()
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
