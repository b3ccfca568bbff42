"""Import of published checkpoints: the same weights under this package's names; errors for other files."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision

from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.model import load_model
from lwfm.model.import_published import import_checkpoint
from tests.cli.test_cli import run

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 7


def published(network: str = "resnet18", *, learnable: bool = True) -> dict[str, torch.Tensor]:
    """A state dictionary with the published code's module names under DataParallel."""
    torch.manual_seed(0)
    resnet = torchvision.models.get_model(network)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in resnet.state_dict().items():
        if name.startswith("fc."):
            continue
        block = "" if name.startswith("layer") else "initial_block."
        state[f"module.feature_extractor.{block}{name}"] = tensor
    for layer in range(2 if learnable else 0):
        state[f"module.matchers.{layer}.linear.0.weight"] = torch.randn(256, 512)
        state[f"module.matchers.{layer}.linear.2.weight"] = torch.randn(512, 256)
    state["module.fc.weight"], state["module.fc.bias"] = torch.randn(CLASSES, 1024), torch.randn(CLASSES)
    return state


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save({"params": state, "epoch": 4}, path / "max_acc.pth")
    return path / "max_acc.pth"


def test_every_weight_arrives_where_it_belongs(tmp_path: Path) -> None:
    state = published()
    out = import_checkpoint(save(tmp_path, state), out=tmp_path / "model.safetensors", matching_weight=1.0)
    model = load_model(out)
    assert (model.config.backbone, model.config.layers) == ("resnet18", (7, 8))
    assert (model.config.matching_weight, model.config.embedding) == (1.0, True)
    assert model.classes == tuple(f"{number:03d}" for number in range(CLASSES))
    assert model.normalization == IMAGENET
    ours = model.state_dict()
    assert len(ours) == len(state)
    for layer in (0, 1):
        for index in (0, 2):
            torch.testing.assert_close(
                ours[f"head.embeddings.{layer}.{index}.weight"],
                state[f"module.matchers.{layer}.linear.{index}.weight"],
            )
    torch.testing.assert_close(ours["head.classifier.bias"], state["module.fc.bias"])


def test_the_maps_are_those_of_the_published_blocks(tmp_path: Path) -> None:
    """Blocks 7 and 8 of the same ResNet-18, written out by hand."""
    state = published()
    model = load_model(import_checkpoint(save(tmp_path, state), out=tmp_path / "model.safetensors"))
    resnet = torchvision.models.resnet18()
    plain = {name.removeprefix("module.feature_extractor."): tensor for name, tensor in state.items()}
    plain = {name.removeprefix("initial_block."): tensor for name, tensor in plain.items()}
    resnet.load_state_dict({**resnet.state_dict(), **{n: t for n, t in plain.items() if "module" not in n}})
    resnet.eval()
    images = torch.randn(2, 3, 84, 84).to(memory_format=torch.channels_last)
    with torch.no_grad():
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
        x = resnet.layer3(resnet.layer2(resnet.layer1(x)))
        seventh = resnet.layer4[0](x)
        expected = [seventh, resnet.layer4[1](seventh)]
        maps = model.encode(images)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, torch.nn.functional.adaptive_avg_pool2d(theirs, 3))


@pytest.mark.parametrize(
    ("network", "learnable", "layers"),
    [("resnet18", False, (7, 8)), ("resnet34", True, (15, 16))],
    ids=["without-embedding", "resnet34"],
)
def test_variants_are_recognized(network: str, learnable: bool, layers: Any, tmp_path: Path) -> None:
    checkpoint = save(tmp_path, published(network, learnable=learnable))
    model = load_model(import_checkpoint(checkpoint, out=tmp_path / "m.safetensors", layers=layers))
    assert model.config.backbone == network
    assert model.config.embedding is learnable


def test_blocks_after_the_last_layer_are_left_out(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in published(learnable=False).items() if "fc" not in name}
    state["module.fc.weight"], state["module.fc.bias"] = torch.randn(4, 512), torch.randn(4)
    checkpoint = save(tmp_path, state)
    model = load_model(import_checkpoint(checkpoint, out=tmp_path / "m.safetensors", layers=(5, 6)))
    assert not any("layer4" in name for name in model.state_dict())


def _without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in published().items() if key != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (_without("module.fc.weight"), r"has no tensor fc\.weight"),
        (
            _without("module.feature_extractor.layer4.1.bn2.weight"),
            r"no parameter 'backbone\.body\.layer4\.1\.bn2",
        ),
        (_without("module.matchers.1.linear.2.weight"), r"no parameter 'head\.embeddings\.1\.2\.weight'"),
        ({**published(), "module.encoder.x": torch.zeros(1)}, r"it has a tensor 'encoder\.x'"),
        (
            {**published(), "module.fc.weight": torch.zeros(7, 512)},
            r"'head\.classifier\.weight' is .*\[7, 512\]",
        ),
        (
            {**published(), "module.matchers.2.linear.0.weight": torch.zeros(1)},
            r"'head\.embeddings\.2\.0\.weight' has no place",
        ),
    ],
    ids=["no-classifier", "no-block", "half-an-embedding", "foreign", "other-layers", "third-matcher"],
)
def test_other_networks_are_refused_by_name(
    state: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        import_checkpoint(save(tmp_path, state), out=tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_nothing_but_tensors_is_read(tmp_path: Path) -> None:
    torch.save({"params": {"module.fc.weight": threading.Lock}}, tmp_path / "max_acc.pth")
    with pytest.raises(UserError, match="not a torch file of tensors alone"):
        import_checkpoint(tmp_path / "max_acc.pth", out=tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        import_checkpoint(tmp_path / "max_acc.pth", out=tmp_path / "model.pth")


def test_imported_on_the_command_line_and_evaluated(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.safetensors"
    outcome = run(capsys, "import", save(tmp_path, published()), "--out", out, "--image_size", "48")
    assert outcome.status == 0, outcome.err
    assert str(out) in outcome.out
    result = evaluate(
        checkpoint=out, data="folder", root=tiny_images, queries=2, episodes=2, accelerator="cpu"
    )
    assert result.model["config"]["image_size"] == 48
