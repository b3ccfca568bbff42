"""A classifier for easyfsl: its samplers and its evaluation run LWFM-SPM.

https://github.com/sicara/easy-few-shot-learning
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyfsl.methods import FewShotClassifier

from lwfm.nn import ClassLists

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lwfm.nn import LWFMHead


class LWFMClassifier(FewShotClassifier):  # type: ignore[misc]  # the library has no types
    """LWFM-SPM as one of easyfsl's methods.

    Parameters
    ----------
    backbone : torch.nn.Module
        From images [B, 3, H, W] to maps: one tensor [B, C, F, F], or one [B, C_l, F_l, F_l] per layer; for
        example :func:`lwfm.model.backbones.build_backbone`.
    head : LWFMHead
        Compares the maps.
    use_softmax : bool
        Return probabilities instead of logits.

    Examples
    --------
    >>> import torch
    >>> from lwfm.model import LWFM, ModelConfig
    >>> model = LWFM(ModelConfig(backbone="conv4", image_size=32)).eval()
    >>> classifier = LWFMClassifier(model.backbone, model.head).eval()
    >>> classifier.process_support_set(torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]))
    >>> classifier(torch.rand(3, 3, 32, 32)).shape
    torch.Size([3, 2])
    """

    def __init__(self, backbone: nn.Module, head: LWFMHead, *, use_softmax: bool = False) -> None:
        super().__init__(backbone, use_softmax=use_softmax)
        self.head = head

    def process_support_set(self, support_images: Tensor, support_labels: Tensor) -> None:
        """Encode the support images and sort them by class, once for all queries.

        Parameters
        ----------
        support_images : Tensor
            [S, 3, H, W].
        support_labels : Tensor
            [S] int64 in 0..way-1, in any order.
        """
        self.support = self.head.encode(self.backbone(support_images))
        self.classes = ClassLists(support_labels, len(self.support), device=self.support.device)

    def forward(self, query_images: Tensor) -> Tensor:
        """Compute logits [Q, way] of query images [Q, 3, H, W], or probabilities with ``use_softmax``."""
        query = self.head.encode(self.backbone(query_images))
        scores = self.head.logits(self.head.compare(self.support, self.classes, query))
        return scores.softmax(-1) if self.use_softmax else scores

    @staticmethod
    def is_transductive() -> bool:
        """Return False: each query is classified by itself."""
        return False
