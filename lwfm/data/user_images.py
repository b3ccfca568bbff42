"""Images that a user gives: paths, PIL images, arrays or tensors. Nothing here loads torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
from PIL import Image

from lwfm.data.center_crop import CenterCrop
from lwfm.data.decode_ahead import in_threads, pixel_batches
from lwfm.data.decoding import decoding_problem, deep_brightness, open_image, upright_rgb
from lwfm.data.white_levels import Brightest, WhiteLevels, choose_white, eight_bits, find_brightest
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt
    import torch

    ImageLike = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | torch.Tensor

AnyImage = TypeVar("AnyImage", bound="ImageLike")

_FORMS = "a path, a PIL image, an array [H, W, 3] or a tensor [3, H, W]"

NO_WHITE = WhiteLevels()
"""Of a set without images of more than 8 bits: floats lie in 0..1 then, and integers are uint8."""


def is_tensor(image: object) -> TypeGuard[torch.Tensor]:
    """Return whether an image is a tensor: where one is given, torch is loaded already."""
    loaded = sys.modules.get("torch")
    return loaded is not None and isinstance(image, loaded.Tensor)


def check_collection(images: Iterable[AnyImage]) -> Iterable[AnyImage]:
    """Return ``images`` if it is several of them in an order; UserError when it is anything else."""
    single = isinstance(images, (str, os.PathLike, Image.Image))
    if isinstance(images, np.ndarray) or is_tensor(images):
        single = images.ndim in (2, 3)
        channels = images.shape[0 if is_tensor(images) else -1] if single else 0
        if images.ndim == 3 and channels not in (1, 3):
            axis = "images[:, None]" if is_tensor(images) else "images[..., None]"
            raise UserError(
                f"images are {list(images.shape)}: for a stack of gray images add the axis of the channels, "
                f"{axis}"
            )
    if single:
        raise UserError("images must be a collection of images; put a single one into a list: [image]")
    if not hasattr(images, "__iter__"):
        raise UserError(f"images must be a collection, each {_FORMS}; got {type(images).__name__}")
    if isinstance(images, (Set, Mapping)) or hasattr(images, "columns"):  # pandas and the like
        advice = "give the column of the paths" if hasattr(images, "columns") else "give a list"
        raise UserError(f"images are a {type(images).__name__}, not a sequence of images: {advice}")
    return images


def white_levels(images: Iterable[ImageLike]) -> WhiteLevels:
    """Choose the white levels of a set of images, ignoring those that cannot be read.

    Images of 8 bits are not decoded.
    """
    return choose_white(found for image in images if (found := _brightest(image)))


def _brightest(image: ImageLike) -> Brightest | None:
    """Find the largest value of an image of more than 8 bits; None for 8 bits or a damaged file."""
    with suppress(Exception):  # decoders of damaged files may raise anything
        if isinstance(image, Image.Image):
            return deep_brightness(image)
        if isinstance(image, (str, os.PathLike)):
            with Image.open(image) as opened:
                return deep_brightness(opened)
        pixels = _pixels(image)
        return None if pixels.dtype == np.uint8 else find_brightest(pixels)
    return None


def to_rgb(
    image: ImageLike, index: int, white: WhiteLevels = NO_WHITE, *, shorter: int | None = None
) -> Image.Image:
    """Convert one image to an upright RGB image of 8 bits.

    Parameters
    ----------
    image : path, PIL image, array or tensor
        Arrays are [H, W], [H, W, 1] or [H, W, 3], tensors [H, W], [1, H, W] or [3, H, W], of any integers or
        floats; they are rounded to 8 bits, as a file would hold them.
    index : int
        Its index in the user's collection, for messages.
    white : WhiteLevels
        Of the set that it belongs to, see :func:`white_levels`.
    shorter : int, optional
        Files may be decoded at a smaller size with no side shorter than this.

    Raises
    ------
    UserError
        For a file that cannot be read (naming it), or another type, shape, dtype or range (naming the index).

    Examples
    --------
    >>> to_rgb(np.zeros((4, 6), np.uint8), 0).size
    (6, 4)
    """
    if isinstance(image, (str, os.PathLike)):
        return open_image(image, white, shorter=shorter)
    if isinstance(image, Image.Image):
        try:
            return upright_rgb(image, white)
        except Exception as error:  # an image opened lazily may turn out to be damaged only now
            raise UserError(f"image {index} cannot be decoded: {decoding_problem(error)}") from error
    if isinstance(image, np.ndarray) or is_tensor(image):
        kind = "a tensor" if is_tensor(image) else "an array"
        what = f"image {index} is {kind} {list(image.shape)} of {image.dtype}"
        return _from_pixels(_pixels(image), what, white)
    raise UserError(f"image {index} is a {type(image).__name__}; an image is {_FORMS}")


def _pixels(image: npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[Any]:
    """Return an array, or a tensor as an array with the channels last; bfloat16 as float32."""
    if not is_tensor(image):
        return np.asarray(image)
    channels_last = image.detach().cpu().movedim(0, -1) if image.ndim == 3 else image.detach().cpu()
    return channels_last.float().numpy() if image.is_floating_point() else channels_last.numpy()


def _from_pixels(pixels: npt.NDArray[Any], what: str, white: WhiteLevels) -> Image.Image:
    """Make an image of [H, W], [H, W, 1] or [H, W, 3]; ``what`` begins the message of an error."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or pixels.size == 0:
        raise UserError(f"{what}; an image is {_FORMS}")
    try:
        pixels = eight_bits(pixels, white)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def pixels_of(
    images: Iterable[ImageLike],
    image_size: int,
    batch_size: int,
    *,
    threads: int,
    white: WhiteLevels = NO_WHITE,
    unreadable: Callable[[int, UserError], None] | None = None,
    views: bool = False,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the pixels [B, H, W, 3] of images of any form, cropped to H = W = ``image_size``.

    Threads decode the next batch while one is used; no more of ``images`` is held, so that they may be a
    stream. ``unreadable`` is told the index of an image that cannot be read, and why; if it returns, the
    image is left out. Large JPEG files are decoded at a smaller size, at least twice that of the image before
    it is cropped. With ``views`` each image is followed by its
    :meth:`~lwfm.data.center_crop.CenterCrop.views`.
    """
    crop = CenterCrop(image_size)

    def prepare(pair: tuple[int, ImageLike]) -> list[npt.NDArray[np.uint8]] | tuple[int, UserError]:
        try:
            image = to_rgb(pair[1], pair[0], white, shorter=2 * crop.resized)
            return crop.pixels(image, views=views)
        except UserError as error:
            if unreadable is None:
                raise
            return pair[0], error

    def readable() -> Iterator[npt.NDArray[np.uint8]]:
        for result in in_threads(prepare, enumerate(images), ahead=batch_size, threads=threads):
            if isinstance(result, list):
                yield from result
            elif unreadable is not None:
                unreadable(*result)

    return pixel_batches(readable(), batch_size)
