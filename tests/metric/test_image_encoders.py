"""Encoders of images: stages, mask branch, trunks and augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from lwfm.errors import UserError
from lwfm.metric import TissueRetriever
from lwfm.metric.image_encoders import (
    SE_RESNETS,
    MixedAttention,
    MixedAttentionResNet,
    Turned,
    check_trunk,
    read_inputs,
    start_from,
    trunk_network,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("trunk", ["maps", *SE_RESNETS])
def test_every_part_of_an_encoder_learns(trunk: str) -> None:
    torch.manual_seed(0)
    channels = 16 if trunk == "maps" else 3
    encoder = MixedAttentionResNet(trunk, channels)
    features = encoder(torch.rand(4, channels, 32, 32))
    assert features.shape == (4, encoder.width)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_mask_weighs_each_channel_and_position() -> None:
    torch.manual_seed(0)
    attention, maps = MixedAttention(8).eval(), torch.randn(2, 8, 3, 3)
    mask = attention.mask(maps)
    assert mask.shape == maps.shape
    assert mask.min() > 0
    assert mask.max() < 1
    assert mask.flatten(1).std(dim=1).min() > 0
    assert torch.equal(attention(maps), maps * mask)


def test_without_the_mask_nothing_else_changes() -> None:
    with_mask, without = (MixedAttentionResNet("maps", 16, mask=mask) for mask in (True, False))
    left = {name for name in with_mask.state_dict() if not name.startswith("mask.")}
    assert left == set(without.state_dict())
    assert isinstance(without.mask, nn.Identity)


def test_weights_of_timms_network_fit(tmp_path: Path) -> None:
    tensors = timm.create_model("seresnet50").state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    encoder = MixedAttentionResNet("se_resnet50", 3, weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(encoder.state_dict()["upper.0.conv1.weight"], tensors["layer4.0.conv1.weight"])


def test_a_model_needs_its_file_of_weights_no_more(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    network = MixedAttentionResNet("se_resnet14", 3, mask=False)
    names = {"lower.5": "layer1", "lower.6": "layer2", "lower.7": "layer3", "upper": "layer4"}
    tensors = {}
    for name, tensor in network.state_dict().items():
        part = next((old for old in names if name.startswith(old)), None)
        stem = {"lower.1": "conv1", "lower.2": "bn1"}
        part = part or next(old for old in stem if name.startswith(old))
        tensors[name.replace(part, {**names, **stem}[part], 1)] = tensor.contiguous()
    safetensors.torch.save_file(tensors, file)
    options: dict[str, Any] = {"trunk": "se_resnet14", "image_size": 32, "steps": 1, "accelerator": "cpu"}
    retriever = TissueRetriever(weights=str(file), dim=8, images_per_class=2, **options)
    retriever.fit(torch.rand(4, 3, 32, 32), ["a", "a", "b", "b"]).save(tmp_path / "m.safetensors")
    file.unlink()
    assert TissueRetriever.load(tmp_path / "m.safetensors").classes_.tolist() == ["a", "b"]


def test_weights_start_the_stages_alone() -> None:
    torch.manual_seed(0)
    encoder = MixedAttentionResNet("se_resnet14", 3)
    before = {name: each.clone() for name, each in encoder.state_dict().items()}
    start_from("none", encoder, "se_resnet14")
    assert all(torch.equal(each, before[name]) for name, each in encoder.state_dict().items())


def test_weights_of_a_fixed_trunk_are_refused() -> None:
    with pytest.raises(UserError, match="weights are for the trunks se_resnet50"):
        check_trunk("auto", 64, "w.safetensors")


def test_turns_keep_the_pixels() -> None:
    torch.manual_seed(0)
    batch = torch.rand(32, 2, 5, 5)
    turned = Turned(shift=0)(batch)
    assert torch.equal(turned.flatten(2).sort().values, batch.flatten(2).sort().values)
    assert (
        len({tuple(image.flatten().tolist()) for image in Turned(0)(batch[:1].expand(64, -1, -1, -1))}) == 8
    )


def test_shifts_are_those_of_whole_images() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).repeat(64, 1, 1, 1)
    rows = Turned(0.1)(ramp)[:, 0]
    down, across = (rows.diff(dim=dim)[:, 4:11, 4:11].abs().mean((1, 2)) for dim in (1, 2))
    torch.testing.assert_close(down + across, torch.ones(64), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("trunk", "size"), [(3, 64), ("auto", 48), ("auto", 0)], ids=["type", "side", "zero"]
)
def test_wrong_trunks_are_refused(trunk: str, size: int) -> None:
    with pytest.raises(UserError, match=r"trunk must be|image_size must be"):
        check_trunk(trunk, size, "none")


def test_trunks_read_pixels_or_maps(tiny_images: Path) -> None:
    paths = sorted((tiny_images / "val").glob("*/*.png"))[:3]
    pixels = read_inputs("se_resnet14", 32, paths, "cpu")
    assert pixels.shape == (3, 3, 32, 32)
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert read_inputs("auto", 32, paths, "cpu").shape == (3, 112, 2, 2)
    assert trunk_network("auto", 64).config.feature_size == (4, 2)
