"""DETR-style set matching: predicted boxes to target boxes by one batched assignment.

A detector that predicts a set (DETR, N. Carion and others, ECCV 2020) is trained on the assignment of least
cost between its N predictions and the targets of each image. The usual matcher moves the costs to the host
and calls SciPy for one image after the other; here one call of ``lwfm.ops.linear_assignment`` does it.

Run ``python examples/set_matching.py`` to see that both agree, and how long each takes.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from lwfm.ops import linear_assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Target = dict[str, Tensor]
"""``labels`` [T] int64 and ``boxes`` [T, 4]: center x, center y, width and height, all in 0..1."""

CLASS, L1, GIOU = 1.0, 5.0, 2.0  # weights of the three terms, as in DETR


@torch.no_grad()
def matching_costs(logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> Tensor:
    """Compute the costs of every (target, prediction) of each image, targets padded to the longest list.

    Parameters
    ----------
    logits : Tensor
        [B, N, classes].
    boxes : Tensor
        [B, N, 4].
    targets : sequence of dict
        B of them, at most N boxes each.

    Returns
    -------
    Tensor
        [B, T, N]. Rows of padding are zero: indifferent to every prediction, they take what the real targets
        leave over and change nothing about those, as long as T is at most N.
    """
    longest = max(len(target["labels"]) for target in targets)
    costs = boxes.new_zeros(len(boxes), longest, boxes.shape[1])
    for cost, scores, predicted, target in zip(costs, logits.softmax(-1), boxes, targets, strict=True):
        corners = [box_convert(x, "cxcywh", "xyxy") for x in (target["boxes"], predicted)]
        cost[: len(target["labels"])] = (
            -CLASS * scores[:, target["labels"]].T
            + L1 * torch.cdist(target["boxes"], predicted, p=1)
            - GIOU * generalized_box_iou(*corners)
        )
    return costs


def match(costs: Tensor, targets: Sequence[Target]) -> list[tuple[Tensor, Tensor]]:
    """Assign all images at once; return for each the indices of predictions and of their targets."""
    columns = linear_assignment(costs)  # [B, T]
    return [
        (columns[index, : len(target["labels"])], torch.arange(len(target["labels"]), device=costs.device))
        for index, target in enumerate(targets)
    ]


def match_by_loop(costs: Tensor, targets: Sequence[Target]) -> list[tuple[Tensor, Tensor]]:
    """Assign image by image with SciPy, as the usual matcher does."""
    found = []
    for cost, target in zip(costs.cpu(), targets, strict=True):
        rows, columns = linear_sum_assignment(cost[: len(target["labels"])])
        found.append((torch.as_tensor(columns), torch.as_tensor(rows)))
    return found


def random_images(
    batch: int, predictions: int, most_targets: int, *, classes: int = 91, seed: int = 0
) -> tuple[Tensor, Tensor, list[Target]]:
    """Draw predictions, and 1 to ``most_targets`` targets for each image."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, most_targets + 1, (batch,), generator=generator).tolist()
    targets = [
        {
            "labels": torch.randint(classes, (count,), generator=generator),
            "boxes": 0.1 + 0.4 * torch.rand(count, 4, generator=generator),
        }
        for count in counts
    ]
    logits = torch.randn(batch, predictions, classes, generator=generator)
    return logits, 0.1 + 0.4 * torch.rand(batch, predictions, 4, generator=generator), targets


def milliseconds(call: Callable[[], object], repeats: int = 20) -> float:
    """Return the median wall time of a call in milliseconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1000 * sorted(times)[repeats // 2]


def main() -> None:
    """Compare both matchers on three sizes of detectors."""
    print(f"{'images':>8} {'predictions':>11} {'targets':>8}   SciPy loop   linear_assignment")
    for batch, predictions, most_targets in ((16, 100, 20), (16, 300, 60), (64, 900, 100)):
        logits, boxes, targets = random_images(batch, predictions, most_targets)
        costs = matching_costs(logits, boxes, targets)
        pairs = zip(match(costs, targets), match_by_loop(costs, targets), strict=True)
        for index, ((ours, _), (theirs, rows)) in enumerate(pairs):
            totals = [costs[index, rows, columns].double().sum() for columns in (ours, theirs)]
            torch.testing.assert_close(totals[0], totals[1])
        loop, batched = (milliseconds(partial(each, costs, targets)) for each in (match_by_loop, match))
        print(f"{batch:>8} {predictions:>11} {f'1-{most_targets}':>8} {loop:>9.2f} ms {batched:>16.2f} ms")


if __name__ == "__main__":
    main()
