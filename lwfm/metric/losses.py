"""Losses that pytorch-metric-learning does not have, with its signature ``loss(embeddings, labels)``.

Those of several labels take distances [B, C] to the prototypes of C labels in place of embeddings
(:class:`OfPrototypes` joins them with a head), and labels [B, C]: 1 positive, 0 negative, -1 not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pytorch_metric_learning.losses import ContrastiveLoss, NTXentLoss
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

Level = Literal["both", "image", "disease"]


class SquaredContrastiveLoss(ContrastiveLoss):  # type: ignore[misc]  # the library has no types
    """Contrastive loss of squares, ``D^2 / 2`` of positive and ``[margin - D]+^2 / 2`` of negative pairs.

    The library's own loss has neither square. Its options, such as `distance` and `reducer`, are those of
    this class too.

    Parameters
    ----------
    margin : float
        Distance beyond which negative pairs have no loss.

    Examples
    --------
    >>> import torch
    >>> loss = SquaredContrastiveLoss(margin=1.0)
    >>> loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])).item()
    0.5
    """

    def __init__(self, margin: float = 1.0, **options: object) -> None:
        super().__init__(pos_margin=0, neg_margin=margin, **options)

    def pos_calc(self, pos_pair_dist: Tensor, margin: float) -> Tensor:
        """Compute the losses of positive pairs from their distances."""
        return (pos_pair_dist - margin).clamp(min=0) ** 2 / 2

    def neg_calc(self, neg_pair_dist: Tensor, margin: float) -> Tensor:
        """Compute the losses of negative pairs from their distances."""
        return (margin - neg_pair_dist).clamp(min=0) ** 2 / 2


class LinearCrossEntropy(nn.Module):
    """Cross-entropy of a linear classifier on the embeddings.

    Parameters
    ----------
    dim : int
        Of the embeddings.
    classes : int
        Number of classes.
    scale : float
        By which embeddings are multiplied; those of length 1 need about 16 to be told apart early.

    Examples
    --------
    >>> import torch
    >>> LinearCrossEntropy(4, 3)(torch.zeros(2, 4), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    def __init__(self, dim: int, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.classifier, self.scale = nn.Linear(dim, classes), scale

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Sequence[Tensor] | None = None,  # noqa: ARG002 - the library's signature
    ) -> Tensor:
        """Compute the mean loss of embeddings [B, dim] with labels [B]."""
        return F.cross_entropy(self.classifier(self.scale * embeddings), labels)


class Mined(nn.Module):
    """A loss of pytorch-metric-learning on what a miner finds.

    Parameters
    ----------
    loss, miner : nn.Module
        Of the library.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of embeddings [B, dim] and labels [B]."""
        found: Tensor = self.loss(embeddings, labels, self.miner(embeddings, labels))
        return found


class OfPrototypes(nn.Module):
    """A loss of distances, as one of embeddings.

    Parameters
    ----------
    head : nn.Module
        Embeddings [B, dim] to distances [B, C], such as :class:`lwfm.metric.heads.PrototypeHead`.
    loss : nn.Module
        Distances and labels [B, C] to a scalar.
    """

    def __init__(self, head: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.head, self.loss = head, loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of embeddings [B, dim] and labels [B, C]."""
        loss: Tensor = self.loss(self.head(embeddings), labels)
        return loss


class WeightedFocusedEuclideanLoss(nn.Module):
    """Contrastive loss of images and labels, balanced within each image and focused on hard pairs.

    With d the distance of an image and a label on unit vectors, h = d / 2, and P positive and N negative
    known labels of the image: ``sum_P a+ h^gamma d^2 + sum_N a- (1 - h)^gamma [margin - d]+^2``, divided by
    the sum of the weights a; ``a+ = N / (P + N)``, ``a- = max(P, 1) / (P + N)``. The mean over images. A
    *reading*: the published abstract names the weighted and focused Euclidean loss, not its terms. Gamma 0
    without balance is the contrastive loss, to the bit.

    Parameters
    ----------
    gamma : float
        At least 0; larger values focus on far positive and near negative labels.
    margin : float
        Distance beyond which negative labels have no loss, above 0 and at most 2.
    balanced : bool
        Whether a is as above, else 1.

    Examples
    --------
    >>> loss = WeightedFocusedEuclideanLoss(gamma=0, balanced=False)
    >>> loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[1, 0]])).item()
    0.25
    """

    def __init__(self, gamma: float = 2.0, margin: float = 1.0, *, balanced: bool = True) -> None:
        super().__init__()
        self.gamma, self.margin, self.balanced = gamma, margin, balanced

    def forward(self, distances: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss of distances [B, C] from 0 to 2 with labels [B, C]."""
        positive, negative = labels == 1, labels == 0
        weights = (positive | negative).to(distances.dtype)
        if self.balanced:
            positives, negatives = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)
            share = torch.where(positive, negatives, positives.clamp(min=1))
            weights = weights * share / (positives + negatives).clamp(min=1)
        half = (distances / 2).clamp(1e-6, 1 - 1e-6)  # powers below 1 have no gradient at 0
        near = half**self.gamma * distances**2
        far = (1 - half) ** self.gamma * (self.margin - distances).clamp(min=0) ** 2
        terms = weights * torch.where(positive, near, far)
        return (terms.sum(1) / weights.sum(1).clamp(min=1e-6)).mean()


class DualWeightedMetricLoss(nn.Module):
    """Contrastive loss of images and labels, weighted within each image and over the labels.

    With d the distance of an image and a label: for each image the sum over its positive labels of
    ``softmax(d / t) d^2``, and over its negative ones of ``softmax(-d / t) [margin - d]+^2``: far positive
    and near negative labels weigh most. For each label c the mean of ``d^2`` over its positive and of
    ``[margin - d]+^2`` over its negative images, with a weight in proportion to ``n_c^-power``, n_c being its
    number of images in the training data; weights have mean 1. The loss is the sum of the means over images
    and over labels. A *reading*: the published abstract names the two levels of weights, not their terms.

    Parameters
    ----------
    counts : sequence of int or Tensor
        n_c [C]; labels without any image count as with one.
    temperature : float
        t, above 0; infinity weighs all labels of an image alike.
    power : float
        At least 0; 0 weighs all labels alike.
    margin : float
        Distance beyond which negative labels have no loss.
    level : {"both", "image", "disease"}
        Which of the two parts; "both" is their sum.

    Examples
    --------
    >>> loss = DualWeightedMetricLoss([1, 1], temperature=float("inf"), power=0)
    >>> loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[1, 0]])).item()
    0.75
    """

    weights: Tensor

    def __init__(
        self,
        counts: Sequence[int] | Tensor,
        temperature: float = 1.0,
        power: float = 0.5,
        margin: float = 1.0,
        level: Level = "both",
    ) -> None:
        super().__init__()
        self.temperature, self.margin, self.level = temperature, margin, level
        weights = torch.as_tensor(counts).double().clamp(min=1) ** -power
        self.register_buffer("weights", weights / weights.mean())

    def forward(self, distances: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of distances [B, C] with labels [B, C]."""
        positive, negative = labels == 1, labels == 0
        near, far = distances**2, (self.margin - distances).clamp(min=0) ** 2
        loss = distances.new_zeros(())
        if self.level != "disease":
            scaled = distances / self.temperature
            hard = _shares(scaled, positive) * near + _shares(-scaled, negative) * far
            loss = loss + hard.sum(1).mean()
        if self.level != "image":
            means = _column_means(near, positive) + _column_means(far, negative)
            loss = loss + (self.weights.to(means.dtype) * means).mean()
        return loss


def _shares(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the softmax of the chosen values of each row [B, C]; 0 elsewhere, and in rows without any."""
    lowest = torch.finfo(values.dtype).min
    return values.masked_fill(~chosen, lowest).softmax(1) * chosen


def _column_means(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean [C] of the chosen values of each column [B, C]; 0 where there are none."""
    return (values * chosen).sum(0) / chosen.sum(0).clamp(min=1)


class LabelRankingLoss(nn.Module):
    """Ranking loss ``[margin + cos(negative) - cos(positive)]+`` over the pairs of labels of each image [1]_.

    The mean over the pairs of an image, and over images that have a pair.

    Parameters
    ----------
    margin : float
        By which positive labels must be nearer.

    References
    ----------
    .. [1] N. Hayat, H. Lashen, F. Shamout, "Multi-Label Generalized Zero Shot Learning for the Classification
       of Disease in Chest Radiographs", MLHC 2021. Read in the authors' code, which sums over pairs.

    Examples
    --------
    >>> LabelRankingLoss(0.5)(torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[1, 0, 0]])).item()
    0.5
    """

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, distances: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of distances [B, C] on unit vectors with labels [B, C]."""
        cosines = 1 - distances**2 / 2
        pairs = (labels == 1)[:, :, None] & (labels == 0)[:, None]
        terms = (self.margin + cosines[:, None] - cosines[:, :, None]).clamp(min=0) * pairs
        counts = pairs.sum((1, 2))
        return (terms.sum((1, 2)) / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


class LabelCrossEntropy(nn.Module):
    """Binary cross-entropy of logits ``offset_c - scale d`` of distances d, both learned.

    Parameters
    ----------
    labels : int
        C.

    Examples
    --------
    >>> LabelCrossEntropy(3)(torch.zeros(2, 3), torch.tensor([[1, 0, -1], [0, 0, 0]])).shape
    torch.Size([])
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(labels))

    def forward(self, distances: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean over the known ones of labels [B, C]."""
        known = labels >= 0
        logits = self.offset - self.log_scale.exp() * distances
        target = labels.clamp(min=0).to(logits.dtype)
        terms = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (terms * known).sum() / known.sum().clamp(min=1)


class NormalTriplet(nn.Module):
    """Triplet loss ``[D(a, p)^2 - D(a, n)^2 + m]+`` of normal anchors and positives and faulty negatives.

    Faults of different kinds are not drawn together, only away from what is normal. The mean is over all
    triplets of a batch; it is 0 where a batch has fewer than two normal rows or no fault.

    Parameters
    ----------
    margin : float
        The m.

    Examples
    --------
    >>> loss = NormalTriplet(1.0)
    >>> loss(torch.tensor([[0.0], [0.0], [0.5]]), torch.tensor([0, 0, 1])).item()
    0.75
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of embeddings [B, dim] with labels [B], 0 for normal."""
        normal, faulty = embeddings[labels == 0], embeddings[labels != 0]
        if len(normal) < 2 or not len(faulty):
            return embeddings.sum() * 0
        positive = (normal[:, None] - normal).square().sum(2)
        negative = (normal[:, None] - faulty).square().sum(2)
        losses = (positive[:, :, None] - negative[:, None] + self.margin).clamp(min=0)
        pairs = ~torch.eye(len(normal), dtype=torch.bool, device=embeddings.device)
        return losses[pairs].mean()


class JointLoss(nn.Module):
    """Reconstruction error of normal rows plus a weighted loss of all embeddings.

    Parameters
    ----------
    dim : int
        The rows [B, dim + C] begin with the embedding; C errors of channels follow.
    loss : nn.Module
        ``loss(embeddings, labels)``, label 0 being normal.
    weight : float
        Of that loss; 0 trains the autoencoder alone.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 2.0], [9.0, 50.0]])  # an embedding of one value, and one channel
    >>> JointLoss(1, NormalTriplet(), weight=0.0)(rows, torch.tensor([0, 1])).item()
    2.0
    """

    def __init__(self, dim: int, loss: nn.Module, *, weight: float = 1.0) -> None:
        super().__init__()
        self.dim, self.loss, self.weight = dim, loss, weight

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of rows [B, dim + C] with labels [B]."""
        normal = labels == 0
        errors = (rows[:, self.dim :].mean(1) * normal).sum() / normal.sum().clamp(min=1)
        return errors + self.weight * self.loss(rows[:, : self.dim], labels) if self.weight else errors


class AttentionTransferLoss(nn.Module):
    """Squared difference of the attention maps of a student and of its teacher, summed over stages [1]_.

    The attention map of a stage is the mean over channels of its squared activations, at length 1 over the
    positions: ``beta sum_stages mean (Q_S / |Q_S| - Q_T / |Q_T|)^2``. No gradient enters the teacher.

    Parameters
    ----------
    beta : float
        Weight.

    References
    ----------
    .. [1] S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention", ICLR 2017.

    Examples
    --------
    >>> maps = torch.rand(2, 8, 3, 3)
    >>> AttentionTransferLoss()([maps], [2 * maps]).item() < 1e-8
    True
    """

    def __init__(self, beta: float = 1000.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss of the maps [B, C, H, W] of each stage; channels may differ, positions not."""
        stages = [
            (attention_map(ours) - attention_map(theirs.detach())).square().mean()
            for ours, theirs in zip(student, teacher, strict=True)
        ]
        return self.beta * torch.stack(stages).sum()


def attention_map(maps: Tensor) -> Tensor:
    """Return the mean over channels of squared maps [B, C, H, W], at length 1: [B, H * W].

    Examples
    --------
    >>> attention_map(torch.full((2, 8, 2, 2), 3.0))
    tensor([[0.5000, 0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000, 0.5000]])
    """
    return F.normalize(maps.square().mean(1).flatten(1), dim=1)


class TwoViewsLoss(nn.Module):
    """NT-Xent of a batch of two views: the embeddings [2 B, dim] of B images, and again of them.

    Parameters
    ----------
    temperature : float
        By which cosines are divided.

    Examples
    --------
    >>> TwoViewsLoss()(torch.rand(8, 4), torch.arange(4)).shape
    torch.Size([])
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.loss = NTXentLoss(temperature)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss; the labels [B] are not used."""
        views = torch.arange(len(labels), device=embeddings.device).repeat(2)
        found: Tensor = self.loss(embeddings, views)
        return found


class FeatureMatchingLoss(nn.Module):
    """Loss of a separation: features of one part like those of references, and limits of both in frequency.

    ``|f(c) - mean f(b)|^2 + a1 |highpass v|^2 + a2 |lowpass c|^2 + a3 |c|^2`` for parts c (kept) and v (the
    rest) and references b. The encoder f is not trained. Powers are means over Hann-weighted windows.

    Parameters
    ----------
    encoder : nn.Module
        f, waveforms [B, W] to features [B, dim].
    references : Tensor
        [R, dim] features of the references.
    low, high : float
        Cycles a sample: below `low` c should have no power, above `high` v.
    matching, a1, a2, a3 : float
        Weights of the terms.

    Examples
    --------
    >>> parts = torch.stack([torch.ones(4, 32), torch.zeros(4, 32)], dim=1)
    >>> loss = FeatureMatchingLoss(nn.Identity(), torch.ones(1, 32), low=0.1, high=0.2)
    >>> bool(loss(parts, torch.zeros(4)) > 0), bool(loss(parts.flip(1), torch.zeros(4)) > 0.9)
    (True, True)
    """

    def __init__(
        self,
        encoder: nn.Module,
        references: Tensor,
        *,
        low: float,
        high: float,
        matching: float = 1.0,
        a1: float = 1.0,
        a2: float = 1.0,
        a3: float = 0.0,
    ) -> None:
        super().__init__()
        self._frozen = (encoder.eval().requires_grad_(False),)  # no submodule: nothing may set its mode
        self.low, self.high = low, high
        self.matching, self.a1, self.a2, self.a3 = matching, a1, a2, a3
        self.register_buffer("target", references.mean(0))

    def forward(self, parts: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the loss of parts [B, 2, W]; labels are not used."""
        del labels
        window = torch.hann_window(parts.shape[-1], periodic=False, device=parts.device)
        power = torch.fft.rfft(parts * window).abs().square() / (parts.shape[-1] * window.square().sum() / 2)
        frequency = torch.fft.rfftfreq(parts.shape[-1], device=parts.device)
        fast = power[:, 1, frequency > self.high].sum(1).mean()
        slow = power[:, 0, frequency < self.low].sum(1).mean()
        loss: Tensor = self.a1 * fast + self.a2 * slow + self.a3 * parts[:, 0].square().mean()
        if self.matching:
            target = self.get_buffer("target")
            features = self._frozen[0].to(parts.device)(parts[:, 0])
            loss = loss + self.matching * (features - target).square().sum(1).mean()
        return loss
