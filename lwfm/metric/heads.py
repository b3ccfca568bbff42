"""Heads: labels as vectors and the distances of embeddings to them; necks before embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm._common.text import listed
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    Source = str | os.PathLike[str] | Mapping[str, Any] | Callable[[list[str]], Any]


class PrototypeHead(nn.Module):
    """Distances of embeddings to one prototype a label, all on the unit sphere.

    Prototypes are the label vectors less their mean, in the coordinates of their span (which keeps their
    distances), at length 1. Uncentered vectors of a language model are nearly parallel, and cannot be told
    apart. Without vectors the prototypes are learned.

    Parameters
    ----------
    vectors : ndarray, optional
        [C, V] label vectors. They stay as they are in training.
    learned : (int, int), optional
        (C, dim) of prototypes to learn, in place of `vectors`.
    centered : bool
        Whether the mean is subtracted.
    common : float
        Of label vectors: one more coordinate, equal for all prototypes, in units of the length of the others.
        Without it an image cannot be far from all labels, because centered vectors point everywhere.

    Examples
    --------
    >>> head = PrototypeHead(np.array([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]]))
    >>> head.dim, head(torch.ones(1, head.dim)).shape
    (1, torch.Size([1, 2]))
    """

    prototypes: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(
        self,
        vectors: npt.NDArray[Any] | None = None,
        *,
        learned: tuple[int, int] | None = None,
        centered: bool = True,
        common: float = 0.0,
    ) -> None:
        super().__init__()
        self.common = common
        if (vectors is None) == (learned is None):
            raise UserError("a head needs label vectors, or the number and dimension of learned prototypes")
        if learned is not None:
            self.prototypes = nn.Parameter(F.normalize(torch.randn(learned), dim=1))
            return
        table = torch.as_tensor(np.asarray(vectors, dtype=np.float64))
        mean = table.mean(0) if centered else torch.zeros_like(table[0])
        _, values, rows = torch.linalg.svd(table - mean, full_matrices=False)
        rank = int((values > 1e-6 * values[0]).sum())
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", rows[:rank].float())
        self.register_buffer("prototypes", self.project(table.float()))

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self.prototypes.shape[1]

    def project(self, vectors: Tensor) -> Tensor:
        """Return the prototypes [K, dim] of further label vectors [K, V]."""
        own = F.normalize((vectors - self.mean) @ self.basis.T, dim=1)
        if self.common == 0:
            return own
        return F.normalize(F.pad(own, (0, 1), value=self.common), dim=1)

    def add(self, vectors: Tensor) -> None:
        """Append the prototypes of further label vectors [K, V]."""
        self.prototypes = torch.cat([self.prototypes, self.project(vectors)])

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute the distances [B, C], from 0 to 2, of embeddings [B, dim] of any length."""
        unit = F.normalize(embeddings, dim=1), F.normalize(self.prototypes, dim=1)
        return torch.cdist(*unit, compute_mode="donot_use_mm_for_euclid_dist")


class LinearHead(nn.Linear):
    """Negative logits of a linear classifier, in place of distances: the baseline.

    Examples
    --------
    >>> LinearHead(4, 3)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute the negative logits [B, C] of embeddings [B, dim]."""
        return -super().forward(embeddings)


class BNNeck(nn.Module):
    """Batch normalization without a trained shift between features and embeddings [1]_.

    The triplet loss acts before it, cross-entropy and the cosine of a search after it.

    Parameters
    ----------
    dim : int
        Of the features.

    References
    ----------
    .. [1] H. Luo and others, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPR
       workshops 2019.

    Examples
    --------
    >>> import torch
    >>> BNNeck(4)(torch.rand(2, 4)).shape
    torch.Size([2, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        self.norm.bias.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return normalized features [B, dim]."""
        normalized: Tensor = self.norm(features)
        return normalized


class BNNeckLoss(nn.Module):
    """Sum of a loss of features before a neck, and of cross-entropy after it.

    Parameters
    ----------
    neck : BNNeck
        Trained along.
    before : nn.Module, optional
        ``before(features, labels)``, such as a triplet loss; None for cross-entropy alone.
    classes : int
        Number of classes; 0 for the loss before the neck alone.
    smoothing : float
        Of the labels, for cross-entropy.

    Examples
    --------
    >>> import torch
    >>> BNNeckLoss(BNNeck(4), None, 3)(torch.rand(6, 4), torch.arange(6) % 3).shape
    torch.Size([])
    """

    def __init__(
        self, neck: BNNeck, before: nn.Module | None, classes: int, *, smoothing: float = 0.1
    ) -> None:
        super().__init__()
        self.neck, self.before, self.smoothing = neck, before, smoothing
        dim = neck.norm.num_features
        self.classifier = nn.Linear(dim, classes, bias=False) if classes else None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of features [B, dim] with labels [B]."""
        embeddings = self.neck(features)  # also without a classifier: its statistics are those of training
        loss = features.new_zeros(())
        if self.classifier is not None:
            logits = self.classifier(embeddings)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return loss if self.before is None else loss + self.before(features, labels)


def label_vectors(source: Source, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the vectors [C, V] of labels, from a file, a mapping or a sentence encoder.

    Parameters
    ----------
    source : path, mapping or callable
        A .npy file [K, V] with a .txt file of the same name beside it that has the label of each row, one a
        line; vectors by label; or any encoder ``encode(list of sentences) -> [C, V]``, to which underscores
        are shown as spaces.
    names : sequence of str
        The labels.

    Raises
    ------
    UserError
        For a file that is missing or damaged, a label without vector, vectors of a wrong shape, and values
        that are not finite.

    Examples
    --------
    >>> label_vectors(lambda sentences: [[len(each), 1] for each in sentences], ["Mass", "Edema"])
    array([[4., 1.],
           [5., 1.]], dtype=float32)
    """
    if isinstance(source, Mapping):
        origin, known = "the label vectors", dict(source)
    elif callable(source):
        found = source([name.replace("_", " ") for name in names])
        return _checked("the sentence encoder", found, len(names))
    else:
        path = Path(source)
        origin, known = str(path), _read_vectors(path)
    if missing := [name for name in names if name not in known]:
        raise UserError(f"{origin}: no vector for {listed(missing, 5)}; there are {listed(list(known), 20)}")
    return _checked(origin, [known[name] for name in names], len(names))


def _read_vectors(path: Path) -> dict[str, Any]:
    """Read vectors by label from a .npy file and the .txt file beside it."""
    listing = path.with_suffix(".txt")
    for file in (path, listing):
        if not file.is_file():
            raise UserError(
                f"there is no file {file}: label vectors are a .npy file [K, V], with the K labels in a "
                ".txt file of the same name, one a line"
            )
    try:
        table = np.load(path, allow_pickle=False)
        names = listing.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read the label vectors {path}: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if not isinstance(table, np.ndarray) or table.ndim != 2 or len(table) != len(names):
        shape = list(getattr(table, "shape", ()))
        raise UserError(f"{path} has shape {shape}, but {listing} names {len(names)} labels")
    return dict(zip(names, table, strict=True))


def _checked(origin: str, vectors: Any, count: int) -> npt.NDArray[np.float32]:
    try:
        table = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{origin} did not yield one vector of numbers a label: {error}") from error
    if table.ndim != 2 or len(table) != count:
        raise UserError(f"{origin}: {count} labels need vectors [{count}, V], not {list(table.shape)}")
    if not np.isfinite(table).all():
        raise UserError(f"{origin}: the label vectors hold NaN or infinite values")
    if count > 1 and (np.ptp(table, axis=0) == 0).all():
        raise UserError(f"{origin}: all label vectors are equal, so that no label can be told from another")
    return table
