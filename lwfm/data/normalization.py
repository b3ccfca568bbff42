"""Channel statistics by which images are normalized."""

from __future__ import annotations

from dataclasses import dataclass

from lwfm.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each color channel, for pixel values in 0..1.

    An image ``x`` of values in 0..1 enters the backbone as ``(x - mean) / std``; UserError where std is not
    positive.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(each > 0 for each in self.std):
            raise UserError(f"the standard deviations of a normalization must be positive, not {self.std}")


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The statistics that torchvision's pretrained networks were trained with."""
