"""Detection of objects by torchvision's FCOS on a fixed trunk, and its average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts, check_positive, check_seed
from lwfm.data.user_images import to_rgb
from lwfm.errors import UserError
from lwfm.metric.data.boxes import class_count
from lwfm.metric.detection_network import (
    BODY,
    TORCHVISION,
    build_detector,
    detection_loss,
    load_detector,
    read_detector,
    trunk_maps,
)
from lwfm.metric.module import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.data.boxes import BoxedImage


_CACHE_BYTES = 2**30
"""Memory for maps of the fixed trunk, in half precision; those of further images are computed again."""
_VIEWS = 8
"""Random variations of each image, drawn once so that the trunk need not be applied in every epoch."""
_COLORS, _SCALES, _MOVE, _SMALLEST = (0.3, 0.2, 0.2), (0.7, 1.4), 0.2, 3
"""Of variations: brightness, contrast and saturation; scales; largest move; smallest side of a box kept."""
_CLIP = 5.0
SIZE, EPOCHS = 416, 20
"""Of a detector by default: longer side of the images in pixels, and epochs."""


class Boxes(NamedTuple):
    """Detections: boxes [N, 4] (left, top, right, bottom in pixels), scores [N], classes [N]; best first."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]


class BoxDetector:
    """FCOS of torchvision: a feature pyramid and heads are trained, the trunk is fixed.

    An instance is a callable ``detect(image) -> Boxes``.

    Parameters
    ----------
    classes : int
        Number of classes of objects.
    trunk : str
        A backbone with ImageNet weights: ``auto`` or ``timm:NAME`` with layers of strides 8, 16 and 32.
        ``fcos_resnet50_fpn`` is torchvision's detector with random weights, for :meth:`from_file`.
    image_size : int
        Longer side in pixels to which images are brought, a multiple of 32.
    epochs, batch_size, learning_rate : int, int, float
        Of AdamW with one cycle of the rate. Images are flipped, scaled, moved and recolored at random.
    threshold : float
        Smallest score of a detection.
    seed : int
        Of weights, order and variations.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> BoxDetector(classes=1, image_size=64).seed
    0
    """

    def __init__(
        self,
        classes: int = 1,
        trunk: str = "auto",
        image_size: int = SIZE,
        epochs: int = EPOCHS,
        batch_size: int = 4,
        learning_rate: float = 2e-3,
        threshold: float = 0.4,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        check_counts(classes=classes, image_size=image_size, epochs=epochs, batch_size=batch_size)
        if image_size % 32:
            raise UserError(f"image_size must be a multiple of 32, not {image_size}")
        check_positive(learning_rate=learning_rate)
        check_between(0, 1, threshold=threshold)
        check_seed(seed)
        self.options: dict[str, Any] = {
            "classes": classes,
            "trunk": trunk,
            "image_size": image_size,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "threshold": threshold,
            "seed": seed,
            "accelerator": accelerator,
        }
        self.seed, self.image_size = seed, image_size
        with seeded(seed):
            self.network = build_detector(classes, trunk, image_size)

    @classmethod
    def from_file(cls, path: Path, *, classes: int | None = None, **options: Any) -> BoxDetector:
        """Build torchvision's ``fcos_resnet50_fpn`` with the weights of a file.

        Parameters
        ----------
        path : Path
            Its state dictionary: a ``.safetensors`` file, or one written by ``torch.save``.
        classes : int, optional
            Number of classes, as the file has by default. With another number the last layer of the classes
            has random weights, to be trained.
        **options
            Further parameters of the class, but for `trunk`.

        Raises
        ------
        UserError
            A file that cannot be read, or whose tensors do not fit, naming the first.
        """
        tensors, own = read_detector(path)
        detector = cls(own if classes is None else classes, TORCHVISION, **options)
        load_detector(detector.network, tensors, str(path), same_classes=classes in (None, own))
        return detector

    def fit(self, images: Sequence[BoxedImage]) -> Self:
        """Train on images with boxes; UserError for a class beyond `classes`, and images without any box."""
        classes, batch_size = self.options["classes"], self.options["batch_size"]
        if not images or not sum(len(each.boxes) for each in images):
            raise UserError("there is no box to learn from")
        if (count := class_count(images)) > classes:
            raise UserError(f"the boxes have class {count - 1}, the detector {classes} classes from 0")
        device = choose_device(self.options["accelerator"])
        self.network.to(device)
        trained = [each for each in self.network.parameters() if each.requires_grad]
        epochs = self.options["epochs"]
        with seeded(self.seed) as random:
            rate = self.options["learning_rate"]
            optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-2)
            steps = epochs * -(-len(images) // batch_size)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
            views = _cached(lambda number, _: self._view(images[number], number, device))
            orders = [(epoch, random.permutation(len(images))) for epoch in range(epochs)]
            batches = [
                [(int(row), epoch % _VIEWS) for row in order[at : at + batch_size]]
                for epoch, order in orders
                for at in range(0, len(order), batch_size)
            ]
            for batch in progress(batches, "training the detector", "step"):
                chosen = [views(*each) for each in batch]
                maps = [
                    torch.stack(each).to(device).float()
                    for each in zip(*(view.maps for view in chosen), strict=True)
                ]
                targets = [
                    {"boxes": view.boxes.to(device), "labels": view.codes.to(device)} for view in chosen
                ]
                loss = detection_loss(self.network, maps, targets, self.image_size)
                if not torch.isfinite(loss):
                    raise UserError("training diverged: try a smaller learning rate of the detector")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's types
                torch.nn.utils.clip_grad_norm_(trained, _CLIP)
                optimizer.step()
                schedule.step()
        self.network.cpu()
        return self

    def _view(self, image: BoxedImage, number: int, device: torch.device) -> _View:
        """Vary an image at random, and compute what the fixed trunk makes of it."""
        pixels, scale = self._pixels(image.image, number)
        varied, boxes, codes = self._varied(
            pixels,
            BoundingBoxes(torch.as_tensor(image.boxes) * scale, format="XYXY", canvas_size=pixels.shape[1:]),
            torch.as_tensor(image.codes),
        )
        maps = [each[0].half().cpu() for each in trunk_maps(self.network, varied.to(device))]
        return _View(maps, boxes.as_subclass(Tensor), codes)

    def _varied(
        self, pixels: Tensor, boxes: BoundingBoxes, codes: Tensor
    ) -> tuple[Tensor, BoundingBoxes, Tensor]:
        """Flip, scale, move and recolor a square image with its boxes and their classes at random."""
        change = v2.Compose(
            [
                v2.ColorJitter(*_COLORS),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomAffine(
                    0,
                    translate=(_MOVE, _MOVE),
                    scale=_SCALES,
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill=self.network.transform.image_mean,
                ),
                v2.ClampBoundingBoxes(clamping_mode="hard"),
                v2.SanitizeBoundingBoxes(min_size=_SMALLEST),
            ]
        )
        found = change({"image": Image(pixels), "boxes": boxes, "labels": codes})
        return found["image"].as_subclass(Tensor), found["boxes"], found["labels"]

    @torch.inference_mode()
    def __call__(self, image: Any, threshold: float | None = None) -> Boxes:
        """Find the objects in a path, PIL image, array or tensor, with scores above a threshold."""
        opened = to_rgb(image, 0)
        pixels, scale = self._pixels(opened, 0)
        device = choose_device(self.options["accelerator"])
        found = self.network.to(device)([pixels.to(device)])[0]
        self.network.cpu()
        boxes = clip_boxes_to_image(found["boxes"].cpu() / scale, (opened.height, opened.width)).numpy()
        kept = found["scores"].cpu().numpy() >= (
            self.options["threshold"] if threshold is None else threshold
        )
        kept &= (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Boxes(boxes[kept], found["scores"].cpu().numpy()[kept], found["labels"].cpu().numpy()[kept])

    def _pixels(self, image: Any, number: int) -> tuple[Tensor, float]:
        """Return an image as a square [3, S, S] in 0..1, the mean of the trunk beside it, and its scale."""
        opened = to_rgb(image, number)
        scale = self.image_size / max(opened.size)
        small = opened.resize((max(1, round(opened.width * scale)), max(1, round(opened.height * scale))))
        square = torch.tensor(self.network.transform.image_mean)[:, None, None].repeat(
            1, *[self.image_size] * 2
        )
        square[:, : small.height, : small.width] = v2.functional.to_dtype(
            v2.functional.pil_to_tensor(small), torch.float32, scale=True
        )
        return square, scale

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, but for those of a trunk that is pretrained."""
        return {
            name: tensor
            for name, tensor in self.network.state_dict().items()
            if not self._has_pretrained(name)
        }

    def _has_pretrained(self, name: str) -> bool:
        return self.options["trunk"] != TORCHVISION and name.startswith(BODY)

    @classmethod
    def restored(cls, options: dict[str, Any], tensors: dict[str, Tensor]) -> BoxDetector:
        """Build a detector from its options and :meth:`tensors`."""
        detector = cls(**options)
        missing, unexpected = detector.network.load_state_dict(tensors, strict=False)
        wrong = [*unexpected, *(name for name in missing if not detector._has_pretrained(name))]
        if wrong:
            raise ValueError(f"the detector's tensor {wrong[0]} does not fit")
        return detector


class AveragePrecision(NamedTuple):
    """Average precision: the mean over the classes, and that of each class."""

    mean: float
    classes: dict[int, float]


def average_precision(
    found: Sequence[Boxes], images: Sequence[BoxedImage], overlap: float = 0.5
) -> AveragePrecision:
    """Compute the average precision of detected boxes.

    Needs the extra ``lwfm[leaves]``.

    Parameters
    ----------
    found : sequence of Boxes
        Detections of each image, those with low scores too.
    images : sequence of BoxedImage
        The true boxes and classes; classes without any box are left out.
    overlap : float
        Least intersection over union of a detected box with the true one.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_thresholds=[overlap], class_metrics=True)
    for each, image in zip(found, images, strict=True):
        metric.update(
            [
                {
                    "boxes": torch.as_tensor(each.boxes),
                    "scores": torch.as_tensor(each.scores),
                    "labels": torch.as_tensor(each.codes),
                }
            ],
            [{"boxes": torch.as_tensor(image.boxes), "labels": torch.as_tensor(image.codes)}],
        )
    result = metric.compute()
    codes, values = result["classes"].reshape(-1).tolist(), result["map_per_class"].reshape(-1).tolist()
    classes = {int(code): float(value) for code, value in zip(codes, values, strict=True) if value >= 0}
    return AveragePrecision(sum(classes.values()) / max(1, len(classes)), classes)


class _View(NamedTuple):
    """A varied image: maps of the trunk in half precision, boxes [N, 4] and classes [N], on the CPU."""

    maps: list[Tensor]
    boxes: Tensor
    codes: Tensor


def _cached(compute: Callable[[int, int], _View]) -> Callable[[int, int], _View]:
    """Return a function that keeps what it computes, as long as there is memory for it."""
    kept: dict[tuple[int, int], _View] = {}
    free = _CACHE_BYTES

    def view(number: int, variation: int) -> _View:
        nonlocal free
        if (number, variation) in kept:
            return kept[number, variation]
        computed = compute(number, variation)
        size = sum(each.nbytes for each in computed.maps)
        if size <= free:
            kept[number, variation], free = computed, free - size
        return computed

    return view
