"""Logistic regression on mean features, by scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from lwfm.nn.baselines.baseline import Baseline, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists


@dataclass(frozen=True)
class LogisticRegression(Baseline):
    """Logarithm of the probability of each class by a logistic regression of the support images.

    Features are the L2-normalized means of an image's positions. Computed on the CPU.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.
    inverse_penalty : float
        ``C`` of :class:`sklearn.linear_model.LogisticRegression`, positive.

    Raises
    ------
    ImportError
        Without scikit-learn, when an episode is scored.

    References
    ----------
    Tian et al., "Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?", ECCV 2020.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import LogisticRegression
    >>> scores = LogisticRegression()(torch.eye(2).view(2, 1, 2), [0, 1], torch.eye(2)[:1].view(1, 1, 2))
    >>> bool(scores[0, 0] > scores[0, 1])
    True
    """

    inverse_penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(inverse_penalty=self.inverse_penalty)

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression as Regression

        if classes.way == 1 or not len(query):  # nothing to regress, or to answer
            return query.new_zeros(len(query), classes.way)
        s, q = (F.normalize(x.mean(1), dim=-1).double().cpu().numpy() for x in (support, query))
        regression = Regression(C=self.inverse_penalty, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(s, classes.labels)
        return torch.as_tensor(regression.predict_log_proba(q)).to(query)
