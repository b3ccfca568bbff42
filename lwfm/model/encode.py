"""Images in whatever form a user has them: paths, PIL images, arrays or tensors."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image

from lwfm.data import evaluation_transform, open_image, upright_rgb
from lwfm.data.decoding import decoding_problem
from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    from lwfm.model.network import LWFM

    ImageLike = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | torch.Tensor

AnyImage = TypeVar("AnyImage", bound="ImageLike")

_FORMS = "a path, a PIL image, an array [H, W, 3] or a tensor [3, H, W]"


def check_collection(images: Iterable[AnyImage]) -> Iterable[AnyImage]:
    """Return ``images`` if it is several of them; UserError when it is a single one, or no collection."""
    single = isinstance(images, (str, os.PathLike, Image.Image))
    if isinstance(images, (np.ndarray, torch.Tensor)):
        single = images.ndim in (2, 3)
    if single:
        raise UserError("images must be a collection of images; put a single one into a list: [image]")
    if not hasattr(images, "__iter__"):
        raise UserError(f"images must be a collection, each {_FORMS}; got {type(images).__name__}")
    return images


def to_image(image: ImageLike, index: int) -> Image.Image:
    """Bring one image into an upright RGB image.

    Parameters
    ----------
    image : path, PIL image, array or tensor
        Arrays are [H, W], [H, W, 1] or [H, W, 3], tensors [H, W], [1, H, W] or [3, H, W]; integers are
        uint8, floats lie in 0..1 and are rounded to 8 bits, as a file would hold them.
    index : int
        Its place in the user's collection, for messages.

    Raises
    ------
    UserError
        For a file that cannot be read (naming it), or another type, shape, dtype or range (naming the index).

    Examples
    --------
    >>> to_image(np.zeros((4, 6), np.uint8), 0).size
    (6, 4)
    """
    if isinstance(image, (str, os.PathLike)):
        return open_image(image)
    if isinstance(image, Image.Image):
        try:
            return upright_rgb(image)
        except Exception as error:  # an image opened lazily may turn out to be damaged only now
            raise UserError(f"image {index} cannot be decoded: {decoding_problem(error)}") from error
    if isinstance(image, torch.Tensor):
        channels_last = image.detach().cpu().movedim(0, -1) if image.ndim == 3 else image.detach().cpu()
        pixels = channels_last.float().numpy() if image.is_floating_point() else channels_last.numpy()
        return _from_pixels(pixels, f"image {index} is a tensor {list(image.shape)} of {image.dtype}")
    if isinstance(image, np.ndarray):
        return _from_pixels(image, f"image {index} is an array {list(image.shape)} of {image.dtype}")
    raise UserError(f"image {index} is a {type(image).__name__}; an image is {_FORMS}")


def _from_pixels(pixels: npt.NDArray[Any], what: str) -> Image.Image:
    """Make an image of [H, W], [H, W, 1] or [H, W, 3]; ``what`` begins the message of an error."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or pixels.size == 0:
        raise UserError(f"{what}; an image is {_FORMS}")
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # NaN fails this too
            raise UserError(f"{what} with values from {low:g} to {high:g}; floats must lie in 0..1")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f"{what}; an image is uint8, or floats in 0..1")
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def image_batches(
    model: LWFM,
    images: Iterable[ImageLike],
    batch_size: int,
    *,
    unreadable: Callable[[int, UserError], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Prepare images as the model wants them, a batch [B, 3, H, W] at a time, decoded by several threads.

    Never more than one batch of ``images`` is held, so that they may be a stream. ``unreadable`` is told the
    index of an image that cannot be read, and why; if it returns, the image is left out.
    """
    transform = evaluation_transform(
        image_size=model.config.image_size, normalization=model.normalization or IMAGENET
    )

    def prepare(pair: tuple[int, ImageLike]) -> torch.Tensor | UserError:
        try:
            return transform(to_image(pair[1], pair[0]))
        except UserError as error:
            if unreadable is None:
                raise
            return error

    numbered = enumerate(images)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(numbered, batch_size)):
            prepared: list[torch.Tensor] = []
            for (index, _), result in zip(batch, pool.map(prepare, batch), strict=True):
                if isinstance(result, torch.Tensor):
                    prepared.append(result)
                elif unreadable is not None:
                    unreadable(index, result)
            if prepared:
                yield torch.stack(prepared)


@torch.inference_mode()
def encode_images(
    model: LWFM,
    images: Iterable[ImageLike],
    batch_size: int,
    *,
    together: int = 1,
    unreadable: Callable[[int, UserError], None] | None = None,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Compute the maps [B, C_l, F_l, F_l] of every layer on the model's device.

    ``batch_size`` images pass the network at once; as many batches are joined as make up ``together``.
    Unreadable images: see :func:`image_batches`.
    """
    device = next(model.parameters()).device
    waiting: list[tuple[torch.Tensor, ...]] = []
    for batch in image_batches(model, images, batch_size, unreadable=unreadable):
        waiting.append(model.encode(batch.to(device, memory_format=torch.channels_last)))
        if len(waiting) * batch_size >= together:
            yield tuple(torch.cat(layer) for layer in zip(*waiting, strict=True))
            waiting = []
    if waiting:
        yield tuple(torch.cat(layer) for layer in zip(*waiting, strict=True))
