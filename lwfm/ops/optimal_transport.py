"""Exact optimal transport on torch tensors: :func:`optimal_transport` and :func:`transport_cost`."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from lwfm.ops._checks import as_flag
from lwfm.ops._interruption import call_interruptibly
from lwfm.ops._register import register_without_gradient


@overload
def optimal_transport(
    cost: Tensor, row_weights: Tensor, column_weights: Tensor, *, return_duals: Literal[False] = False
) -> Tensor: ...
@overload
def optimal_transport(
    cost: Tensor, row_weights: Tensor, column_weights: Tensor, *, return_duals: Literal[True]
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def optimal_transport(
    cost: Tensor, row_weights: Tensor, column_weights: Tensor, *, return_duals: bool
) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...


def optimal_transport(
    cost: Tensor, row_weights: Tensor, column_weights: Tensor, *, return_duals: bool = False
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Solve a batch of transport problems exactly.

    Each plan is the cheapest way to move the row weights to the column weights: the smallest total of
    ``cost * plan`` over all plans that are not negative, whose rows sum to ``row_weights`` and whose columns
    sum to ``column_weights``.

    Parameters
    ----------
    cost : Tensor [..., N, M]
        Cost of moving a unit from row ``i`` to column ``j``: floating point, finite, of any sign and strides.
    row_weights : Tensor [..., N]
        What the rows have: floating point, finite, not negative.
    column_weights : Tensor [..., M]
        What the columns get. The sums of both sides must agree up to 1e-5 of them; the columns are then
        scaled to the sum of the rows.
    return_duals : bool
        Also return the dual variables.

    Returns
    -------
    plan : Tensor [..., N, M]
        In the promoted dtype of the arguments, at least float32, and on their device. At most ``N + M - 1``
        entries are positive. It carries no gradient; :func:`transport_cost` does.
    u, v : Tensor [..., N], Tensor [..., M]
        With ``return_duals``: float64, without gradient. ``u[..., i] + v[..., j] <= cost[..., i, j]``, with
        equality where the plan is positive, up to rounding. They prove that the plan is optimal: its total is
        ``(u * row_weights).sum(-1) + (v * column_weights).sum(-1)``. A number may be added to ``u`` and
        subtracted from ``v``.

    Raises
    ------
    TypeError
        A tensor is not of a floating dtype, or ``return_duals`` is neither True nor False.
    ValueError
        The shapes do not fit or the devices differ; a cost is not finite, a weight is negative or not finite,
        or the sums of a problem's weights differ (the message names the first such problem by its index in
        the batch).

    Notes
    -----
    The batch dimensions of the arguments are broadcast. Everything is computed in float64, whatever the
    dtype: weights are met up to some 1e-15 of their sum, and entries of the plan below that are zero. The
    problems of a batch are shared among torch's threads (``torch.set_num_threads``); the answer does not
    depend on their number. Where several plans are optimal, one of them is chosen. Ctrl-C ends a call, not
    within compiled code.

    CUDA tensors are solved on the host: one transfer each way, for which the call waits.

    The primal simplex method on spanning trees [1]_. Equal weights on both sides make an assignment, for
    which :func:`linear_assignment` is several times faster.

    References
    ----------
    .. [1] G. B. Dantzig, "Application of the simplex method to a transportation problem", in: Activity
       Analysis of Production and Allocation (1951), 359-373.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import optimal_transport
    >>> cost = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 3.0]])
    >>> optimal_transport(cost, torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.5, 2.5]))
    tensor([[0.5000, 0.5000],
            [0.0000, 2.0000],
            [1.0000, 0.0000]])
    """
    return_duals = as_flag(return_duals, "return_duals")
    tensors = _broadcast(cost, row_weights, column_weights)
    answer = call_interruptibly(
        torch.ops.lwfm.optimal_transport.default, *(tensor.detach() for tensor in tensors)
    )
    return answer if return_duals else answer[0]  # type: ignore[no-any-return]


def transport_cost(cost: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
    """Compute the smallest totals of a batch of transport problems: the earth mover's distance.

    Parameters
    ----------
    cost, row_weights, column_weights : Tensor
        As for :func:`optimal_transport`.

    Returns
    -------
    Tensor [...]
        ``(cost * plan).sum((-1, -2))`` with the plan of :func:`optimal_transport`, in its dtype. The gradient
        with respect to ``cost`` is the plan; with respect to weights it is the dual variables, centered on
        either side, because only changes that keep both sums equal have a derivative. Where several plans or
        duals are optimal, it is one of the subgradients. Second derivatives are zero.

    Raises
    ------
    TypeError, ValueError
        As for :func:`optimal_transport`.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import transport_cost
    >>> cost = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 3.0]], requires_grad=True)
    >>> total = transport_cost(cost, torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.5, 2.5]))
    >>> total.backward()
    >>> total.item(), cost.grad.tolist()
    (3.5, [[0.5, 0.5], [0.0, 2.0], [1.0, 0.0]])
    """
    plan, u, v = optimal_transport(cost, row_weights, column_weights, return_duals=True)
    total = (cost * plan).sum((-1, -2))
    for weights, duals in ((row_weights, u), (column_weights, v)):
        # Adds zero, with the duals as its derivative, in forward mode too.
        slope = (duals - duals.mean(-1, keepdim=True)).to(total.dtype)
        total = total + (slope * (weights - weights.detach())).sum(-1)
    return total


def _broadcast(cost: Tensor, row_weights: Tensor, column_weights: Tensor) -> list[Tensor]:
    """Return the arguments in one dtype, float32 or float64, with the batch dimensions of all of them."""
    named = {"cost": (cost, 2), "row_weights": (row_weights, 1), "column_weights": (column_weights, 1)}
    dtype = torch.float32
    for name, (tensor, dims) in named.items():
        if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}: "
                f"convert it, for example by {name}.float()"
            )
        if tensor.device != cost.device:
            raise ValueError(f"{name} is on {tensor.device}, but cost is on {cost.device}")
        if tensor.dim() < dims:
            raise ValueError(f"{name} needs {dims} or more dimensions, got shape {list(tensor.shape)}")
        dtype = torch.promote_types(dtype, tensor.dtype)
    N, M = cost.shape[-2:]
    if row_weights.shape[-1] != N or column_weights.shape[-1] != M:
        raise ValueError(
            f"cost [..., N, M] of shape {list(cost.shape)} needs row_weights [..., {N}] and column_weights "
            f"[..., {M}], got shapes {list(row_weights.shape)} and {list(column_weights.shape)}"
        )
    batches = [tensor.shape[: tensor.dim() - dims] for tensor, dims in named.values()]
    try:
        batch = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, (tensor, _) in named.items())
        raise ValueError(f"the batch dimensions do not broadcast: {shapes}") from None
    return [
        tensor.to(dtype).expand(*batch, *tensor.shape[tensor.dim() - dims :])
        for tensor, dims in named.values()
    ]


def _fake(cost: Tensor, row_weights: Tensor, column_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, v = (
        weights.new_empty(weights.shape, dtype=torch.float64) for weights in (row_weights, column_weights)
    )
    return cost.new_empty(cost.shape), u, v


def _vmap(_info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> Any:
    """Move the mapped dimension of each tensor to the front, or add one of size 1 there to broadcast."""
    stacked = [
        x.unsqueeze(0) if dim is None else x.movedim(dim, 0) for x, dim in zip(tensors, in_dims, strict=True)
    ]
    return optimal_transport(*stacked, return_duals=True), (0, 0, 0)


torch.library.register_fake("lwfm::optimal_transport", _fake)
torch.library.register_vmap("lwfm::optimal_transport", _vmap)
register_without_gradient("optimal_transport")
