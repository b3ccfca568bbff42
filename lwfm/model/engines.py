"""Engines that compute the maps of images: torch, or ONNX Runtime on the exported network.

Letters: B images, H and W their height and width, C channels, F side of a map, l a layer.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from contextlib import nullcontext, suppress
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lwfm._common.devices import torch_threads
from lwfm._common.digests import digest_arrays
from lwfm._common.onnx_runtime import CPU_PROVIDER
from lwfm.data.decode_ahead import WAITING_BATCHES, in_threads
from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.data.transforms import normalized_pixels
from lwfm.errors import UserError
from lwfm.model.onnx_export import (
    TOLERANCE,
    DifferentOutputsError,
    PixelNetwork,
    check_exporter,
    export_network,
    network_fingerprint,
    output_names,
    relative_difference,
)
from lwfm.model.onnx_session import OnnxNetwork, check_providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from lwfm.model.network import LWFM

ENGINES = ("auto", "torch", "onnxruntime")

WORTH_EXPORTING = 2000
"""Images from which on ``auto`` exports a network, which takes about ten seconds, once."""

_CACHE_BYTES = 2**25
_LARGEST_BATCH = 64

_EXPORTING = threading.Lock()
"""The exporter is not made for several threads, and what one has written the others open."""

_KEPT = 16
"""Exported networks in the user's cache: the least recently used ones are removed."""


def parse_engine(engine: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of an engine and ONNX Runtime's providers, in the order of preference.

    Raises
    ------
    UserError
        For another engine.

    Examples
    --------
    >>> parse_engine("auto")
    ('auto', ('CPUExecutionProvider',))
    >>> parse_engine("onnxruntime:CUDAExecutionProvider")
    ('onnxruntime', ('CUDAExecutionProvider', 'CPUExecutionProvider'))
    """
    name, _, listed = str(engine).partition(":")
    providers = tuple(filter(None, listed.split(",")))
    if name not in ENGINES or (listed and name != "onnxruntime"):
        raise UserError(
            "engine must be auto, torch, onnxruntime, or onnxruntime:PROVIDER,... with execution providers "
            f"of ONNX Runtime, not {engine!r}"
        )
    return name, (*(each for each in providers if each != CPU_PROVIDER), CPU_PROVIDER)


class Encoder:
    """Compute the maps of images by a network and an engine.

    Parameters
    ----------
    network : LWFM
        In evaluation mode. Its device may change, and its weights too: it is then exported again.
    engine : str
        ``torch``; ``onnxruntime``, perhaps with providers (see :func:`parse_engine`); or ``auto``: ONNX
        Runtime where it is installed, the network is on the CPU, and it has been exported before or is asked
        for at least :data:`WORTH_EXPORTING` images; else torch.
    normalization : Normalization, optional
        Of the images, if not the network's own (or ImageNet's where it has none).

    Notes
    -----
    An exported network is kept in the user's cache (:func:`cache_folder`), under a name that depends on all
    that its outputs depend on, and compared with torch on a batch whenever it is opened. One that is damaged
    is written again. If the outputs of a new one differ by more than
    :data:`~lwfm.model.onnx_export.TOLERANCE`, a warning says so and torch is used.
    """

    def __init__(
        self, network: LWFM, engine: str = "auto", normalization: Normalization | None = None
    ) -> None:
        self.engine, self.network = engine, network
        with torch.inference_mode(False):  # else the weights could not be trained any more
            network.backbone.to(memory_format=torch.channels_last)  # as the images: a fifth faster on a CPU
        self.normalization = normalization or network.normalization or IMAGENET
        self._name, self._providers = parse_engine(engine)
        self._announced = self._seen = 0
        self._weights = -1
        self._forget()

    def _forget(self) -> None:
        self._exported: OnnxNetwork | None = None
        self._path: Path | None = None
        self._chosen = self._name == "torch"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out of a copy and a pickle: it is opened again."""
        return {**vars(self), "_exported": None, "_chosen": self._name == "torch"}

    @functools.cached_property
    def batch_size(self) -> int:
        """Images that pass the network together fastest: 64 on a GPU, on a CPU by a rule that was measured.

        There the largest map inside the network, of all images together, fills 32 MB, the last cache of many
        processors: 13 images of 160 x 160 in EfficientNet-Lite0, 18 of 84 x 84 in conv4, 64 in a ResNet-18.
        Larger batches made conv4 half as fast, smaller ones a ResNet-18, whose weights are read for each.
        """
        if next(self.network.parameters()).device.type != "cpu":
            return _LARGEST_BATCH
        return min(max(_CACHE_BYTES // _largest_map(self.network), 1), _LARGEST_BATCH)

    def expect(self, images: int = 0) -> None:
        """Announce images before the first batch of them: ``auto`` then need not wait to see as many.

        Only here is it noticed that weights have changed.
        """
        self._announced += images
        if self._weights != (weights := _weights_version(self.network)):
            self._weights = weights
            self._forget()

    @property
    def threads(self) -> int:
        """Batches that :meth:`stream` computes side by side."""
        exported = self._choose()
        return 1 if exported is None else exported.threads

    def beside(self) -> AbstractContextManager[None]:
        """Return a context for what torch computes of a stream's batches while later ones are encoded.

        Beside ONNX Runtime torch has half its threads in it: they wait actively for each next operator, and
        take the processors from the threads that encode.
        """
        exported = self._exported
        if exported is None or exported.threads == 1:
            return nullcontext()
        return torch_threads(exported.threads // 2)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps [B, C_l, F_l, F_l] of every layer of one batch; see :meth:`stream`."""
        return next(self.stream([pixels]))

    def stream(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Compute the maps [B, C_l, F_l, F_l] of every layer, batch by batch, on the network's device.

        Parameters
        ----------
        batches : iterable of Tensor
            [B, H, W, 3] uint8, RGB, of the network's image size, on the CPU. With ONNX Runtime they are
            computed side by side, by as many threads as torch has, and a few more are read ahead.
        """
        batches = iter(batches)
        for pixels in batches:
            exported, device = self._choose(), next(self.network.parameters()).device
            if exported is None:
                self._seen += len(pixels)
                yield self.network.encode(normalized_pixels(pixels.to(device), self.normalization))
                continue
            names = output_names(self.network)[: len(self.network.backbone.layers)]
            for computed in in_threads(
                functools.partial(exported, outputs=names),
                chain([pixels], batches),
                ahead=exported.threads + WAITING_BATCHES,
                threads=exported.threads,
            ):
                yield tuple(maps.to(device) for maps in computed)

    def _choose(self) -> OnnxNetwork | None:
        """Return the exported network if it is to be used, None for torch."""
        if self._weights == -1:
            self.expect()
        if self._chosen:
            return self._exported
        device = next(self.network.parameters()).device
        if self._name == "auto" and (device.type != "cpu" or not has_exporter()):
            self._chosen = True
            return None
        try:
            self._path = self._path or exported_path(self.network, self.normalization)
            few = max(self._announced, self._seen) < WORTH_EXPORTING
            if self._name == "auto" and few and not self._path.is_file():
                return None
            self._chosen = True
            self._exported = open_exported(self.network, self.normalization, self._path, self._providers)
        except UserError as error:
            if self._name != "auto" and not isinstance(error, DifferentOutputsError):
                raise
            warnings.warn(f"the engine is torch: {error}", stacklevel=2)
        return self._exported


@torch.inference_mode()
def _largest_map(network: LWFM) -> int:
    """Return the bytes of the largest output of a module of the backbone, for one image."""
    sizes = [1]

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    modules = list(network.backbone.body.modules())
    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        side = network.config.image_size
        network.backbone(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def has_exporter() -> bool:
    """Return whether the packages of the extra `fast` are installed."""
    return all(find_spec(package) is not None for package in ("onnxruntime", "onnxscript"))


def _weights_version(network: LWFM) -> int:
    """Return a number that changes when a weight is changed in place or replaced."""
    tensors = (*network.parameters(), *network.buffers())
    return hash(tuple((id(x), 0 if x.is_inference() else x._version) for x in tensors))


def cache_folder() -> Path:
    """Return the folder of exported networks, ``onnx`` in LWFM_CACHE or, by default, in ~/.cache/lwfm."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("LWFM_CACHE") or users / "lwfm") / "onnx"


def exported_path(network: LWFM, normalization: Normalization) -> Path:
    """Return the file of a network in the cache, named by all that its outputs depend on.

    UserError where packages of the extra `fast` are missing.
    """
    check_exporter()
    packages = ("lwfm", "torch", "onnxscript", "onnxruntime")
    described = {
        "network": network_fingerprint(network),
        "normalization": asdict(normalization),
        "versions": {package: version(package) for package in packages},
    }
    return cache_folder() / f"{digest_arrays(described, {})[:32]}.onnx"


def open_exported(
    network: LWFM, normalization: Normalization, path: Path, providers: Sequence[str] = (CPU_PROVIDER,)
) -> OnnxNetwork:
    """Open an exported network that computes what torch computes; write it first if it is missing or damaged.

    Raises
    ------
    UserError
        When a package or a provider is missing, or the network cannot be exported or written; a
        :class:`~lwfm.model.onnx_export.DifferentOutputsError` when its outputs differ from torch's.
    """
    check_providers(providers)
    with _EXPORTING:
        return _open_exported(network, normalization, path, providers)


def _open_exported(
    network: LWFM, normalization: Normalization, path: Path, providers: Sequence[str]
) -> OnnxNetwork:
    """Open or write an exported network; one thread at a time."""
    graph = PixelNetwork(network, normalization)
    if path.is_file():
        with suppress(UserError):  # damaged, or removed meanwhile by another process
            found = OnnxNetwork(path, providers)
            if relative_difference(found, graph) <= TOLERANCE:
                with suppress(OSError):  # of another user
                    path.touch()
                return found
    export_network(network, path, normalization)
    _remove_least_used(path.parent)
    exported = OnnxNetwork(path, providers)
    if (difference := relative_difference(exported, graph)) > TOLERANCE:
        raise DifferentOutputsError(
            f"{network.config.backbone} by {providers[0]} differs from torch by {difference:.1e} of the norm "
            "of an output"
        )
    return exported


def _remove_least_used(folder: Path) -> None:
    """Remove all exported networks but those that were opened last."""
    with suppress(OSError):  # another process removes them too
        files = sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_KEPT]:
            file.unlink(missing_ok=True)
