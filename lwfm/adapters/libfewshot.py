"""A mixin for the metric models of LibFewShot, which is no installable package.

Place this beside LibFewShot's other metric models, as ``core/model/metric/lwfm_spm.py``, and name the
class in ``core/model/metric/__init__.py``::

    from lwfm.adapters.libfewshot import SemanticPixelMixin
    from .metric_model import MetricModel


    class LWFMSPM(SemanticPixelMixin, MetricModel):
        pass

and in the configuration ``classifier: {name: LWFMSPM, kwargs: {dim: 640, feature_size: 5}}``, with a backbone
that does not flatten its maps.

https://github.com/RL-VIG/LibFewShot
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lwfm.nn import LWFMHead

if TYPE_CHECKING:
    from collections.abc import Callable


class SemanticPixelMixin:
    """``set_forward`` and ``set_forward_loss`` of LibFewShot's ``MetricModel`` by LWFM-SPM.

    Of the class it is mixed with it uses ``emb_func``, ``device``, ``way_num``, ``shot_num``, ``query_num``
    and ``split_by_episode``.

    Parameters
    ----------
    dim : int
        C, channels of the backbone's map.
    feature_size : int
        F, its height and width.
    embedding, matching_weight, attention_temperature, temperature, top_k
        As in :class:`lwfm.nn.LWFMHead`.
    **kwargs
        Of LibFewShot's model.
    """

    way_num: int
    emb_func: Callable[[Tensor], Tensor]
    device: torch.device
    split_by_episode: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]

    def __init__(
        self,
        dim: int,
        feature_size: int,
        *,
        embedding: bool = True,
        matching_weight: float = 0.25,
        attention_temperature: float = 5.0,
        temperature: float = 0.2,
        top_k: int | None = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head = LWFMHead(
            [dim],
            feature_size=feature_size,
            embedding=embedding,
            matching_weight=matching_weight,
            attention_temperature=attention_temperature,
            temperature=temperature,
            top_k=top_k,
        )

    def set_forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """Classify the queries of a batch of episodes.

        Parameters
        ----------
        batch : (Tensor, Tensor)
            Images [episodes * way * (shot + query), 3, H, W], class by class, and their global labels,
            which are not used.

        Returns
        -------
        Tensor, float
            Logits [episodes * way * query, way] and the accuracy in percent.
        """
        logits, targets = self._classify(batch)
        return logits, _accuracy(logits, targets)

    def set_forward_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float, Tensor]:
        """Classify, and give the cross entropy as well: logits, accuracy in percent, loss."""
        logits, targets = self._classify(batch)
        return logits, _accuracy(logits, targets), F.cross_entropy(logits, targets)

    def _classify(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        maps = self.emb_func(batch[0].to(self.device))
        if maps.ndim != 4:
            raise ValueError(
                f"the backbone must give maps [B, C, F, F], not {list(maps.shape)}: set is_flatten to False"
            )
        # Their numbers are split instead of the maps, which are so encoded where they are.
        numbers = torch.arange(len(maps), device=maps.device).view(-1, 1, 1, 1)
        support, query, support_target, query_target = self.split_by_episode(numbers, mode=2)
        support, query = support.flatten(1), query.flatten(1)  # [episodes, way * shot or way * query]
        labels = support_target.view(len(support), -1)[0]  # those of every episode
        compared = self.head.compare_episodes(self.head.encode(maps), support, query, labels)
        return self.head.logits(compared).flatten(0, 1), query_target.reshape(-1)


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return 100 * float((logits.argmax(-1) == targets).double().mean())
