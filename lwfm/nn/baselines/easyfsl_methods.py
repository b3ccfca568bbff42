"""Methods of easyfsl that take features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lwfm.nn.baselines.baseline import Baseline

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists

EasyFSLName = Literal[
    "PrototypicalNetworks",
    "SimpleShot",
    "Finetune",
    "BDCSPN",
    "LaplacianShot",
    "PTMAP",
    "TIM",
    "TransductiveFinetuning",
]
"""Classes of :mod:`easyfsl.methods`; those after ``Finetune`` are transductive."""


@dataclass(frozen=True)
class EasyFSL(Baseline):
    """Scores of a method of easyfsl on the L2-normalized means of an image's positions.

    Transductive methods see all queries of an episode at once, and most expect as many of each class.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.
    method : str
        See :data:`EasyFSLName`; with the options that easyfsl gives it.

    Raises
    ------
    ImportError
        Without easyfsl, when an episode is scored.
    ValueError
        For fewer queries than a method needs.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import EasyFSL
    >>> images = torch.eye(2).view(2, 1, 2)
    >>> scores = EasyFSL(method="SimpleShot")(images, [0, 1], images[:1])
    >>> bool(scores[0, 0] > scores[0, 1])
    True
    """

    method: EasyFSLName = "SimpleShot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in get_args(EasyFSLName):
            raise ValueError(f"method must be one of {', '.join(get_args(EasyFSLName))}, got {self.method!r}")

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        import easyfsl.methods

        if not len(query):
            return query.new_zeros(0, classes.way)
        kind: Any = getattr(easyfsl.methods, self.method)
        with torch.inference_mode(False), torch.enable_grad():  # some train their prototypes
            labels = torch.tensor(classes.labels, device=query.device)
            features = [x.mean(1).float().clone().detach() for x in (support, query)]
            classifier = kind(feature_normalization=2.0)
            classifier.process_support_set(features[0], labels)
            try:
                scores: Tensor = classifier(features[1])
            except RuntimeError as error:
                raise ValueError(f"{self.method} cannot score {len(query)} queries: {error}") from error
        return scores.detach().to(query)
