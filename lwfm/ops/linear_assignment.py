"""Batches of linear assignment problems on torch tensors: :func:`lwfm.ops.linear_assignment`."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import torch
from torch import Tensor

from lwfm.ops._checks import as_flag
from lwfm.ops._interruption import call_interruptibly
from lwfm.ops._register import register_without_gradient

_LARGE, _FEW = 512, 2
"""Up to so many CUDA problems of so many columns are solved faster on the host.

A block solves a problem of 1024 columns in 29.7 ms on an H100, the host one in 11.6 ms with both transfers;
blocks work side by side, so that three problems take the device no longer than one.
"""


@overload
def linear_assignment(
    cost: Tensor,
    maximize: bool = False,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[False] = False,
    check: bool = False,
) -> Tensor: ...
@overload
def linear_assignment(
    cost: Tensor,
    maximize: bool = False,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[True],
    check: bool = False,
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def linear_assignment(
    cost: Tensor,
    maximize: bool = False,
    *,
    cost_limit: float | None = None,
    return_duals: bool,
    check: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...


def linear_assignment(
    cost: Tensor,
    maximize: bool = False,
    *,
    cost_limit: float | None = None,
    return_duals: bool = False,
    check: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Solve a batch of linear assignment problems exactly.

    Parameters
    ----------
    cost : Tensor [..., N, M]
        Cost of assigning column ``j`` to row ``i``; floating-point, integer or bool, of any strides.
        ``+inf`` forbids a pair (``-inf`` when maximizing). float16 and bfloat16 are read as float32;
        sums and dual variables are float64 for every dtype. Integers are exact as long as the entries
        of one problem span less than 2^53.
    maximize : bool
        Maximize the total instead of minimizing it.
    cost_limit : float, optional
        Make a pair only if it pays: each row and column left unmatched costs half the limit (earns half of
        it, when maximizing), optimized jointly with the pairs, so no pair that costs the limit or more is
        made. Such a problem is never infeasible.
    return_duals : bool
        Also return the dual variables.
    check : bool
        For CUDA tensors: wait for the result and raise for a problem that cannot be solved; one or two
        problems of 512 columns and more are then solved on the host, where that is faster. By default
        a call does not wait for the device, and such a problem is marked by -1 in all its rows. Ignored
        on the CPU, where every call raises, and while ``torch.compile`` traces.

    Returns
    -------
    cols : Tensor [..., N]
        int64, on the device of ``cost``: the column of each row, and -1 for a row without one (there
        are ``N - M`` of those if ``N > M``, and others with a cost limit). It carries no gradient.
    u, v : Tensor [..., N], Tensor [..., M]
        With ``return_duals``: float64, on the device of ``cost``; they carry no gradient.
        ``u[..., i] + v[..., j] <= cost[..., i, j]`` (``>=`` when maximizing), with equality on the pairs, up
        to rounding. Duals of the longer side are at most 0 (at least, when maximizing) and 0 where
        unmatched. With a cost limit, duals of both sides are at most half of it (at least), and equal it
        where unmatched. The sum of all duals (with a limit: less half of it for every unmatched row and
        column) is the total, which proves that it is optimal.

    Raises
    ------
    TypeError
        ``maximize`` or ``return_duals`` is neither True nor False, or ``cost_limit`` is no number.
    ValueError
        ``cost_limit`` is NaN or ``-inf``; ``cost`` has fewer than two dimensions or a complex or 8-bit
        floating dtype; an entry is NaN or an infinity of the wrong sign, or a problem has no complete
        assignment (the message names the first such problem by its index in the batch). The latter two for
        CUDA tensors only with ``check``.

    Notes
    -----
    The problems of a batch are shared among torch's threads (``torch.set_num_threads``). Ties
    are broken deterministically, whatever the number of threads; on a CUDA device as on the CPU up to 32
    columns, above not always in the same way. See
    :func:`lwfm.lap.linear_sum_assignment` for the algorithm and its references. Ctrl-C ends a call for CPU
    tensors, however long it is; not within compiled code.

    CUDA tensors are solved by kernels on the current stream: a warp for each problem of up to 128 columns, a
    block for each larger one. A call allocates through torch and never waits, so it can be captured in a
    CUDA graph. A cost limit adds a column for each row of the shorter side. A problem that is marked as
    unsolved has duals of NaN; with a cost limit, -1 in all rows may also be the answer.
    64-bit integers, and every dtype where ``lwfm info`` says that no kernels were built, are
    solved on the host instead: one transfer each way, and errors as on the CPU.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import linear_assignment
    >>> cost = torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
    >>> linear_assignment(cost)
    tensor([1, 0, 2])
    >>> linear_assignment(torch.stack([cost, -cost]), maximize=True)
    tensor([[0, 2, 1],
            [1, 0, 2]])
    >>> linear_assignment(cost, cost_limit=2)  # only pairs that cost less than 2
    tensor([-1,  1, -1])
    >>> cols, u, v = linear_assignment(cost, return_duals=True)
    >>> float(u.sum() + v.sum())  # the total
    5.0
    """
    maximize, return_duals = as_flag(maximize, "maximize"), as_flag(return_duals, "return_duals")
    limit = _as_limit(cost_limit)
    if cost.dtype.is_floating_point and cost.dtype.itemsize == 1:
        raise ValueError(f"linear_assignment: cost is {cost.dtype}, convert it to float32: cost.float()")
    check = check and cost.is_cuda and not torch.compiler.is_compiling()
    if check and _faster_on_host(cost.shape):
        answer = _call(cost.cpu(), maximize, limit, return_duals)
        return tuple(x.to(cost.device) for x in answer) if return_duals else answer.to(cost.device)
    answer = _call(cost, maximize, limit, return_duals)
    if check:
        _raise_for_unsolved(cost, maximize, limit, answer[0] if return_duals else answer)
    return answer  # type: ignore[no-any-return]


def _call(cost: Tensor, maximize: bool, limit: float | None, return_duals: bool) -> Any:
    """Call the operator, with duals or without."""
    if not return_duals:
        return call_interruptibly(torch.ops.lwfm.linear_assignment.default, cost, maximize, limit)
    operator = torch.ops.lwfm.linear_assignment_duals.default
    return call_interruptibly(operator, cost.detach(), maximize, limit)


def _faster_on_host(shape: tuple[int, ...]) -> bool:
    """Return whether CUDA problems of a shape are solved faster on the host, with both transfers."""
    return len(shape) >= 2 and max(shape[-2:]) >= _LARGE and 0 < math.prod(shape[:-2]) <= _FEW


def _raise_for_unsolved(cost: Tensor, maximize: bool, limit: float | None, cols: Tensor) -> None:
    """Solve a batch again on the host if a problem in it could not be solved: that raises."""
    if limit is None:
        unsolved = ((cols >= 0).sum(-1) < min(cost.shape[-2:])).any()
    elif cost.is_floating_point():
        unsolved = (cost.isnan() | (cost == (math.inf if maximize else -math.inf))).any()
    else:
        return
    if bool(unsolved):
        linear_assignment(cost.cpu(), maximize, cost_limit=limit)


def _as_limit(cost_limit: float | None) -> float | None:
    """Return a finite cost limit, or None for none."""
    if cost_limit is None:
        return None
    try:
        if isinstance(cost_limit, (str, bytes, bool)):
            raise TypeError  # noqa: TRY301 - as float does for other types
        limit = float(cost_limit)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(
            f"cost_limit must be a number that float64 can hold, or None for no limit, got {cost_limit!r}"
        ) from None
    if math.isnan(limit) or limit == -math.inf:
        raise ValueError(f"cost_limit must be a finite number, or None or inf for no limit, got {cost_limit}")
    return None if limit == math.inf else limit


def _fake(cost: Tensor, maximize: bool = False, cost_limit: float | None = None) -> Tensor:  # noqa: ARG001
    if cost.dim() < 2:
        raise ValueError("linear_assignment: cost must be [..., N, M]")
    return cost.new_empty(cost.shape[:-1], dtype=torch.int64)


def _duals_fake(
    cost: Tensor, maximize: bool = False, cost_limit: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    u = cost.new_empty(cost.shape[:-1], dtype=torch.float64)
    v = cost.new_empty((*cost.shape[:-2], cost.shape[-1]), dtype=torch.float64)
    return _fake(cost, maximize, cost_limit), u, v


def _vmap(
    _info: object,
    in_dims: tuple[int | None, ...],
    cost: Tensor,
    maximize: bool = False,
    cost_limit: float | None = None,
) -> tuple[Tensor, int]:
    batch_dim = in_dims[0] or 0  # the cost is the only tensor, so it is the one that is batched
    return linear_assignment(cost.movedim(batch_dim, 0), maximize, cost_limit=cost_limit), 0


def _duals_vmap(
    _info: object,
    in_dims: tuple[int | None, ...],
    cost: Tensor,
    maximize: bool = False,
    cost_limit: float | None = None,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, int, int]]:
    stacked = cost.movedim(in_dims[0] or 0, 0)
    answer = linear_assignment(stacked, maximize, cost_limit=cost_limit, return_duals=True)
    return answer, (0, 0, 0)


torch.library.register_fake("lwfm::linear_assignment", _fake)
torch.library.register_vmap("lwfm::linear_assignment", _vmap)
torch.library.register_fake("lwfm::linear_assignment_duals", _duals_fake)
torch.library.register_vmap("lwfm::linear_assignment_duals", _duals_vmap)
register_without_gradient("linear_assignment_duals")
