"""Detection of objects by torchvision's FCOS on a fixed pretrained trunk."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.transforms.v2 import functional

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts, check_positive, check_seed
from lwfm.data.normalization import IMAGENET
from lwfm.data.user_images import to_rgb
from lwfm.errors import UserError
from lwfm.metric.module import seeded
from lwfm.model.default import build_network, default_config, pretrained_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.data.boxes import BoxedImage

_LEVELS, _CHANNELS, _STRIDES = 3, 64, (8, 16, 32)


class Boxes(NamedTuple):
    """Detections: boxes [N, 4] (left, top, right, bottom in pixels), scores [N], classes [N]; best first."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]


class BoxDetector:
    """FCOS of torchvision: a feature pyramid and heads are trained, the trunk is pretrained and fixed.

    An instance is a callable ``detect(image) -> Boxes``.

    Parameters
    ----------
    classes : int
        Number of classes of objects.
    trunk : str
        A backbone with ImageNet weights: ``auto`` or ``timm:NAME`` with layers of strides 8, 16 and 32.
    image_size : int
        Longer side in pixels to which images are brought, a multiple of 32.
    epochs, batch_size, learning_rate : int, int, float
        Of AdamW with one cycle of the rate.
    threshold : float
        Smallest score of a detection.
    seed : int
        Of weights, order and flips.
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
        image_size: int = 256,
        epochs: int = 10,
        batch_size: int = 4,
        learning_rate: float = 2e-3,
        threshold: float = 0.3,
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
            self.network = _build(classes, trunk, image_size, threshold).eval()

    def fit(self, images: Sequence[BoxedImage]) -> Self:
        """Train on images with boxes; UserError for a class beyond `classes`, and images without any box."""
        classes, batch_size = self.options["classes"], self.options["batch_size"]
        if not images or not sum(len(each.boxes) for each in images):
            raise UserError("there is no box to learn from")
        if (largest := max(int(each.codes.max(initial=0)) for each in images)) >= classes:
            raise UserError(f"the boxes have class {largest}, the detector {classes} classes from 0")
        device = choose_device(self.options["accelerator"])
        pixels = [self._pixels(each.image, number) for number, each in enumerate(images)]
        steps = self.options["epochs"] * -(-len(images) // batch_size)
        trained = [each for each in self.network.parameters() if each.requires_grad]
        with seeded(self.seed) as random:
            rate = self.options["learning_rate"]
            optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-2)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
            self.network.to(device).train()
            orders = [random.permutation(len(images)) for _ in range(self.options["epochs"])]
            batches = [
                order[at : at + batch_size] for order in orders for at in range(0, len(order), batch_size)
            ]
            for batch in progress(batches, "training the detector", "step"):
                flips = random.integers(0, 2, (len(batch), 2)).astype(bool)
                pairs = [
                    _flipped(*pixels[int(row)], images[int(row)], (bool(across), bool(down)))
                    for row, (across, down) in zip(batch, flips, strict=True)
                ]
                losses = self.network(
                    [each.to(device) for each, _ in pairs],
                    [{name: tensor.to(device) for name, tensor in each.items()} for _, each in pairs],
                )
                loss = sum(losses.values())
                if not torch.isfinite(loss):
                    raise UserError("training diverged: try a smaller learning rate of the detector")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        self.network.cpu().eval()
        return self

    @torch.inference_mode()
    def __call__(self, image: Any) -> Boxes:
        """Find the objects in a path, PIL image, array or tensor."""
        pixels, scale = self._pixels(image, 0)
        device = choose_device(self.options["accelerator"])
        found = self.network.to(device)([pixels.to(device)])[0]
        self.network.cpu()
        boxes = (found["boxes"].cpu() / scale).numpy()
        return Boxes(boxes, found["scores"].cpu().numpy(), found["labels"].cpu().numpy())

    def _pixels(self, image: Any, number: int) -> tuple[Tensor, float]:
        """Return an image as [3, H, W] in 0..1 with the longer side as asked for, and its scale."""
        opened = to_rgb(image, number)
        scale = self.image_size / max(opened.size)
        small = opened.resize((max(1, round(opened.width * scale)), max(1, round(opened.height * scale))))
        return functional.to_dtype(functional.pil_to_tensor(small), torch.float32, scale=True), scale

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained weights; those of the trunk are pretrained."""
        return {
            name: tensor
            for name, tensor in self.network.state_dict().items()
            if not name.startswith("backbone.trunk.")
        }

    @classmethod
    def restored(cls, options: dict[str, Any], tensors: dict[str, Tensor]) -> BoxDetector:
        """Build a detector from its options and :meth:`tensors`."""
        detector = cls(**options)
        missing, unexpected = detector.network.load_state_dict(tensors, strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.startswith("backbone.trunk."))]
        if wrong:
            raise ValueError(f"the detector's tensor {wrong[0]} does not fit")
        return detector


def average_precision(found: Sequence[Boxes], images: Sequence[BoxedImage]) -> float:
    """Compute the mean over the classes of the average precision of boxes that overlap by at least one half.

    Needs the extra ``lwfm[leaves]``.

    Parameters
    ----------
    found : sequence of Boxes
        Detections of each image.
    images : sequence of BoxedImage
        The true boxes and classes.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_thresholds=[0.5])
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
    return max(0.0, float(metric.compute()["map_50"]))


def _flipped(
    pixels: Tensor, scale: float, image: BoxedImage, flips: tuple[bool, bool]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Flip an image and its boxes across, down, or both."""
    boxes = torch.as_tensor(image.boxes) * scale
    for flip, low, axis in zip(flips, (0, 1), (2, 1), strict=True):
        if flip:
            pixels = pixels.flip(axis)
            side = pixels.shape[axis]
            first, last = side - boxes[:, low + 2], side - boxes[:, low]
            boxes = boxes.clone()
            boxes[:, low], boxes[:, low + 2] = first, last
    return pixels, {"boxes": boxes, "labels": torch.as_tensor(image.codes)}


class _Pyramid(nn.Module):
    """Feature pyramid on three layers of a fixed trunk."""

    def __init__(self, trunk: str, image_size: int) -> None:
        super().__init__()
        config = default_config() if trunk == "auto" else pretrained_config(trunk)
        sizes = tuple(image_size // stride for stride in _STRIDES)
        network = build_network(replace(config, layers=(2, 3, 4), feature_size=sizes, image_size=image_size))
        normalization = network.normalization or IMAGENET
        self.mean, self.std = list(normalization.mean), list(normalization.std)
        self.trunk = network.backbone.body.requires_grad_(False).eval()
        self.pyramid = FeaturePyramidNetwork(list(network.backbone.layer_dims), _CHANNELS)
        self.out_channels = _CHANNELS

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.trunk.eval()  # its statistics stay those of pretraining
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        with torch.no_grad():
            maps = self.trunk(images)
        layers = maps.values() if isinstance(maps, dict) else maps
        named = OrderedDict((str(number), layer) for number, layer in enumerate(layers))
        found: OrderedDict[str, Tensor] = self.pyramid(named)
        return found


def _build(classes: int, trunk: str, image_size: int, threshold: float) -> Any:
    backbone = _Pyramid(trunk, image_size)
    anchors = AnchorGenerator(tuple((stride,) for stride in _STRIDES), ((1.0,),) * _LEVELS)
    return FCOS(
        backbone,
        classes,
        min_size=image_size,
        max_size=image_size,
        image_mean=backbone.mean,
        image_std=backbone.std,
        anchor_generator=anchors,
        head=FCOSHead(_CHANNELS, 1, classes, num_convs=2),
        score_thresh=threshold,
        size_divisible=32,
    )
