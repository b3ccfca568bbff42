"""The base of systems that answer with several labels a row, by the distances to their prototypes."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm._common.ranges import check_at_least, check_between, check_counts, check_positive
from lwfm.errors import UserError
from lwfm.metric.decisions import PlattScaling
from lwfm.metric.encoders import ConvEncoder2d
from lwfm.metric.estimator import MetricEstimator
from lwfm.metric.losses import OfPrototypes
from lwfm.metric.module import MetricModule, weighted_batches
from lwfm.metric.scores import defined_mean, label_aurocs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lwfm.metric.module import Indices

    Values = npt.NDArray[np.float64]

_SHIFT = 3


class PrototypeNetwork(nn.Module):
    """An encoder of images, and the head that its embeddings are compared by.

    Parameters
    ----------
    trunk : nn.Module
        Images [B, 1, H, W] to embeddings [B, dim].
    head : nn.Module
        Embeddings to distances [B, C].
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        """Compute the embeddings [B, dim]."""
        embeddings: Tensor = self.trunk(images)
        return embeddings


class MultiLabelEstimator(MetricEstimator):
    """Several labels of an image by the distances of its embedding to one prototype a label.

    Targets are indicators [N, C]: 1, 0, or -1 where it is not known. A share of the groups (patients) is
    held out from training: on it the probabilities are calibrated (Platt), and grids are searched.

    A subclass has the attributes below beside those of :class:`MetricEstimator`, and defines
    :meth:`_head` and :meth:`_loss`.

    Attributes
    ----------
    classes_ : ndarray
        Names [C] of the labels.
    held_out_auc_ : float
        Mean AUROC of the rows held out.
    """

    labels: Sequence[str] | None
    trunk: str
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    held_out: float

    @abstractmethod
    def _head(self) -> tuple[nn.Module, int]:
        """Build the head for `classes_`, and return the dimension of the embeddings that it needs."""

    @abstractmethod
    def _loss(self) -> nn.Module:
        """Build the loss of distances and labels [B, C]."""

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_counts(steps=self.steps, batch_size=self.batch_size)
        check_at_least(2, batch_size=self.batch_size)  # batch normalization
        check_positive(learning_rate=self.learning_rate)
        check_between(0, float("inf"), weight_decay=self.weight_decay)
        check_between(0.05, 0.5, held_out=self.held_out)

    def _check_labels(self, labels: npt.NDArray[Any], rows: int) -> None:
        if labels.ndim != 2 or len(labels) != rows or labels.shape[1] < 2:
            raise UserError(
                f"{rows} rows need targets [{rows}, C] of at least two labels, one column each, not "
                f"{list(labels.shape)}"
            )
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (-1, 0, 1)).all():
            raise UserError("targets must be 0 or 1 for each label, or -1 where it is not known")

    def _coded(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indices]:
        codes = labels.astype(np.int64)
        names = [str(i) for i in range(codes.shape[1])] if self.labels is None else list(self.labels)
        if len(names) != codes.shape[1] or len(set(names)) != len(names):
            raise UserError(f"targets have {codes.shape[1]} columns: give as many different names as labels")
        if not (codes == 1).any():
            raise UserError("no row has a label: there is nothing to learn")
        return np.array(names), codes

    def _encoder(self, shape: tuple[int, ...]) -> PrototypeNetwork:
        if len(shape) != 3 or shape[0] != 1 or min(shape[1:]) < 16:
            raise UserError(
                f"images must be gray, an array [N, 1, H, W] of at least 16 x 16 pixels, not {['N', *shape]}"
            )
        head, dim = self._head()
        return PrototypeNetwork(self._trunk(dim), head)

    def _trunk(self, dim: int) -> nn.Module:
        if self.trunk == "small":
            return ConvEncoder2d(dim)
        import timm

        if not timm.is_model(self.trunk):
            raise UserError(f"trunk must be small or the name of a model of timm, not {self.trunk!r}")
        trunk: nn.Module = timm.create_model(self.trunk, in_chans=1, num_classes=dim)
        return trunk

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        del classes
        assert isinstance(encoder, PrototypeNetwork)  # noqa: S101 - what _encoder built
        return MetricModule(
            encoder,
            OfPrototypes(encoder.head, self._loss()),
            optimizer=partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay),
            schedule=partial(
                torch.optim.lr_scheduler.OneCycleLR, max_lr=self.learning_rate, total_steps=self.steps
            ),
            augment=varied,
        )

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        usable = np.asarray((codes >= 0).any(1), dtype=np.float64)
        usable[self._references(codes, groups, random)] = 0
        if not usable.any():
            raise UserError("no row is left to train on")
        return weighted_batches(usable, self.batch_size, self.steps, random)

    def _references(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        """Choose the rows that are held out: whole groups; no row that trains is among them."""
        del random  # the same rows are chosen twice
        grouped = np.arange(len(codes)) if (groups == groups[0]).all() else groups
        if len(np.unique(grouped)) < 3:
            raise UserError("at least three rows, of as many patients, are needed: some are held out")
        split = GroupShuffleSplit(1, test_size=self.held_out, random_state=self.seed)
        _, held = next(split.split(codes, groups=grouped))
        return np.asarray(held[(codes[held] >= 0).any(1)], dtype=np.int64)

    def _decide_by(self, references: npt.NDArray[np.float32], codes: Indices) -> None:
        """Calibrate on the embeddings [H, dim] and codes [H, C] of the rows held out."""
        self.held_ = references, codes
        values = self._values(references)[:, : codes.shape[1]]
        known = [codes[:, i] >= 0 for i in range(codes.shape[1])]
        each = [
            label_aurocs(codes[rows, i : i + 1] > 0, values[rows, i : i + 1])[0]
            for i, rows in enumerate(known)
        ]
        self.held_out_auc_ = defined_mean(np.array(each))
        self.calibration_ = PlattScaling().fit(values, codes)

    def _deciding(self) -> tuple[npt.NDArray[np.float32], Indices]:
        return self.held_

    @torch.inference_mode()
    def _values(self, embeddings: npt.NDArray[np.float32]) -> Values:
        """Return minus the distances [N, C] of embeddings to the prototypes."""
        head = self.encoder_.head
        assert isinstance(head, nn.Module)  # noqa: S101 - for the types
        parts = torch.split(torch.as_tensor(embeddings), 65536)
        return -torch.cat([head(part) for part in parts]).double().numpy()

    def decision_function(self, X: Any) -> Values:
        """Return minus the distance [N, C] of each image to each label: larger is likelier."""
        return self._values(self.transform(X))

    def predict_proba(self, X: Any) -> Values:
        """Return the calibrated probability [N, C] of each label; rows do not sum to 1."""
        return self.calibration_.probabilities(self.decision_function(X))

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Return indicators [N, C]: 1 where a label is likelier than it is among the rows held out.

        That is where sensitivity plus specificity is largest, if the probabilities are right. A row may have
        no label.
        """
        return self.calibration_.above_share(self.predict_proba(X)).astype(np.int64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the mean AUROC over the labels that some rows have and others have not."""
        del sample_weight
        return defined_mean(label_aurocs(np.asarray(y) > 0, self.decision_function(X)))


def varied(images: Tensor) -> Tensor:
    """Shift images [B, 1, H, W] by up to three pixels, edges repeated, and add noise; no mirror images."""
    count, device = len(images), images.device
    height, width = images.shape[2:]
    shift = torch.randint(0, 2 * _SHIFT + 1, (2, count, 1), device=device)
    rows = (torch.arange(height, device=device) + shift[0])[:, :, None]
    columns = (torch.arange(width, device=device) + shift[1])[:, None]
    padded = F.pad(images, (_SHIFT,) * 4, mode="replicate")[:, 0]
    moved = padded[torch.arange(count, device=device)[:, None, None], rows, columns][:, None]
    noise = 0.05 * moved.std() * torch.rand(count, 1, 1, 1, device=device)
    return moved + noise * torch.randn_like(moved)
