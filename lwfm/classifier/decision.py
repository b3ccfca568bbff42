"""Prediction for one image: label, probabilities, most similar support image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Decision:
    """Prediction for one image, with the most similar support image.

    Attributes
    ----------
    label : object
        The most probable class, or the label of unknown images.
    best, runner_up : object
        The most probable class, even if its probability was too low, and the second one.
    probability, runner_up_probability : float
        Of these two, in 0..1.
    support : int
        Index, in the order of fitting, of the most similar support image of the class ``best``.
    support_name : str
        Its path, or ``image N`` where it was given otherwise.
    """

    label: Any
    best: Any
    probability: float
    runner_up: Any
    runner_up_probability: float
    support: int
    support_name: str

    @classmethod
    def build(
        cls,
        probabilities: npt.NDArray[np.float64],
        classes: npt.NDArray[Any],
        support: tuple[int, str],
        *,
        unknown_below: float,
        unknown_label: str | int | None,
    ) -> Decision:
        """Build the prediction from the probabilities [way] of one image.

        Parameters
        ----------
        probabilities : ndarray
            [way], way at least 2.
        classes : ndarray
            [way], their labels.
        support : tuple of int and str
            Index and name of the most similar support image.
        unknown_below : float
            Below this probability the answer is ``unknown_label``.
        unknown_label : str or int, optional
            Label of images of no class.
        """
        indices = (-probabilities).argsort(kind="stable")[:2]
        values = probabilities[indices]
        best, runner_up = (classes[index].item() for index in indices)
        return cls(
            label=best if float(values[0]) >= unknown_below else unknown_label,
            best=best,
            probability=float(values[0]),
            runner_up=runner_up,
            runner_up_probability=float(values[1]),
            support=support[0],
            support_name=support[1],
        )
