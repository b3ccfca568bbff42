"""The head as a CUDA graph: episodes of one shape, without the time that launches take on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from lwfm.ops._implementation import has_kernels
from lwfm.ops.class_lists import class_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lwfm.nn.head import LWFMHead
    from lwfm.nn.map_layout import Maps
    from lwfm.ops.class_lists import ClassLists

Output = Tensor | tuple[Tensor, ...]


def graphed(
    head: LWFMHead, support: Maps, support_labels: Sequence[int] | Tensor | ClassLists, query: Maps
) -> GraphedHead:
    """Capture a head as a CUDA graph, forward and backward, for episodes like the given one.

    A small episode takes the GPU less time than the host takes to launch its kernels. A graph launches all of
    them at once. Gradients are captured where they are enabled and a map or parameter requires them; inside
    ``torch.no_grad()`` the forward pass alone.

    Parameters
    ----------
    head : LWFMHead
        On a CUDA device. It is captured as it is: its mode (training or evaluation) and options. Parameters
        may change in place, as optimizers and ``load_state_dict`` change them, but not be replaced.
    support : Tensor or sequence of Tensor
        [S, C, F, F], or one [S, C_l, F_l, F_l] per layer, on the same device; the values do not matter.
    support_labels : sequence of int, Tensor or ClassLists
        [S] integers 0..way-1, the same for every episode.
    query : Tensor or sequence of Tensor
        [Q, C, F, F] or per layer.

    Returns
    -------
    GraphedHead
        Is called as the head, with maps of the same shapes and dtypes. A backward pass belongs to the last
        call, so none may come between the two, and gradients of parameters must be set to None before
        the next one, as ``optimizer.zero_grad()`` does.

    Raises
    ------
    ValueError
        For maps that are not on a CUDA device, and whatever the head refuses.
    RuntimeError
        If the head runs without kernels: it waits for the device then.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead, graphed
    >>> if torch.cuda.is_available():
    ...     head = LWFMHead([64, 128]).cuda().eval()
    ...     support, query = torch.rand(10, 192, 3, 3).cuda(), torch.rand(15, 192, 3, 3).cuda()
    ...     labels = [0, 1] * 5
    ...     with torch.no_grad():
    ...         fast = graphed(head, support, labels, query)
    ...         assert torch.allclose(fast(support, labels, query), head(support, labels, query))
    """
    maps = _tensors(support, query)
    device = maps[0].device
    if device.type != "cuda":
        raise ValueError(f"a CUDA graph needs maps on a CUDA device, but they are on {device}")
    if not has_kernels(*maps, operator="episodes"):
        raise RuntimeError("a head without CUDA kernels waits for the device, which no graph can capture")
    return GraphedHead(head, support, class_lists(support_labels, len(_tensors(support)[0]), device), query)


def _tensors(*sides: Maps) -> list[Tensor]:
    return [x for side in sides for x in ([side] if isinstance(side, Tensor) else side)]


class _Episode(nn.Module):
    """The head as a function of tensors alone."""

    def __init__(self, head: LWFMHead, classes: ClassLists, support: Maps, query: Maps) -> None:
        super().__init__()
        self.head = head
        self.classes = classes
        self.of_support = len(_tensors(support))
        self.joined = isinstance(support, Tensor), isinstance(query, Tensor)

    def forward(self, *maps: Tensor) -> Output:
        """Split the tensors into support images and queries, and compare them."""
        sides = maps[: self.of_support], maps[self.of_support :]
        support, query = (
            side[0] if joined else side for side, joined in zip(sides, self.joined, strict=True)
        )
        output: Output = self.head(support, self.classes, query)
        return output


class GraphedHead:
    """A captured head; built by :func:`graphed`."""

    def __init__(self, head: LWFMHead, support: Maps, classes: ClassLists, query: Maps) -> None:
        self.head = head
        self.classes = classes
        self._training = head.training
        # The graph reads the memory of these, and a call overwrites it.
        maps = [x.detach().clone().requires_grad_(x.requires_grad) for x in _tensors(support, query)]
        self._kinds = [_kind(x) for x in maps]
        self._require = [x.requires_grad for x in maps]
        self._with_gradients = self._needs_gradients(maps)
        episode = _Episode(head, classes, support, query)
        self._replay = cast(
            "Callable[..., Output]",
            torch.cuda.make_graphed_callables(episode, tuple(maps), allow_unused_input=True),
        )

    def __call__(
        self, support: Maps, support_labels: Sequence[int] | Tensor | ClassLists, query: Maps
    ) -> Output:
        """Classify the queries of an episode; see :meth:`LWFMHead.forward`.

        Raises
        ------
        ValueError
            For maps of another shape, dtype or device than the captured ones, that require gradients where
            those did not or the other way round, or other labels.
        RuntimeError
            If the head is in another mode, or gradients are needed that were not captured.
        """
        maps = _tensors(support, query)
        self._check(maps)
        if support_labels is not self.classes:
            given = class_lists(support_labels, len(self.classes), self.classes.device)
            if given.labels != self.classes.labels:
                raise ValueError(
                    f"the graph was captured for the labels {list(self.classes.labels)}, "
                    f"got {list(given.labels)}: capture one for each"
                )
        output = self._replay(*maps)
        # The next call overwrites what the graph has written.
        return output.clone() if isinstance(output, Tensor) else tuple(x.clone() for x in output)

    def _check(self, maps: list[Tensor]) -> None:
        kinds = [_kind(x) for x in maps]
        if kinds != self._kinds:
            wanted, given = (", ".join(x) for x in (self._kinds, kinds))
            raise ValueError(f"the graph was captured for maps {wanted}, got {given}: capture one for each")
        if self.head.training != self._training:
            mode = "training" if self._training else "evaluation"
            raise RuntimeError(f"the graph was captured in {mode} mode, and the head is in the other now")
        if not self._with_gradients and self._needs_gradients(maps):
            raise RuntimeError(
                "the graph was captured without gradients: call it inside torch.no_grad(), or capture it "
                "where they are enabled"
            )
        if torch.is_grad_enabled() and [x.requires_grad for x in maps] != self._require:
            raise ValueError("other maps require a gradient than those the graph was captured for")

    def _needs_gradients(self, maps: list[Tensor]) -> bool:
        return torch.is_grad_enabled() and any(x.requires_grad for x in (*maps, *self.head.parameters()))


def _kind(x: Tensor) -> str:
    """Describe what a graph cannot change of a tensor."""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device}"
