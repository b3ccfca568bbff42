"""Batches of linear assignment problems on torch tensors: :func:`lwfm.ops.linear_assignment`."""

from __future__ import annotations

import threading
from typing import cast

import torch
from torch import Tensor

from lwfm import _ops  # importing the module registers the operators


def linear_assignment(cost: Tensor, maximize: bool = False, *, check: bool = False) -> Tensor:
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
    check : bool
        For CUDA tensors: wait for the result and raise for a problem that cannot be solved. By default a
        call does not wait for the device, and such a problem is marked by -1 in all its rows. Ignored
        on the CPU, where every call raises, and while ``torch.compile`` traces.

    Returns
    -------
    Tensor [..., N]
        int64, on the device of ``cost``: the column of each row, and -1 for a row without one (there
        are ``N - M`` of those if ``N > M``). It carries no gradient.

    Raises
    ------
    TypeError
        ``maximize`` is neither True nor False.
    ValueError
        ``cost`` has fewer than two dimensions or a complex or 8-bit floating dtype; an entry is NaN or an
        infinity of the wrong sign, or a problem has no complete assignment (the message names the first such
        problem by its index in the batch). The latter two for CUDA tensors only with ``check``.

    Notes
    -----
    The problems of a batch are shared among torch's threads (``torch.set_num_threads``). Ties
    are broken deterministically, whatever the number of threads; on a CUDA device as on the CPU up to 32
    columns, above not always in the same way. See
    :func:`lwfm.lap.linear_sum_assignment` for the algorithm and its references. Ctrl-C ends a call for CPU
    tensors, however long it is; not within compiled code.

    CUDA tensors are solved by kernels on the current stream: a warp for each problem of up to 128 columns, a
    block for each larger one. A call allocates through torch and never waits, so it can be captured in a
    CUDA graph. 64-bit integers, and every dtype where ``lwfm info`` says that no kernels were built, are
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
    """
    if maximize not in (True, False):
        raise TypeError(f"maximize must be True or False, got {maximize!r}")
    if cost.dtype.is_floating_point and cost.dtype.itemsize == 1:
        raise ValueError(f"linear_assignment: cost is {cost.dtype}, convert it to float32: cost.float()")
    assignment = _call_operator(cost, maximize)
    if check and cost.is_cuda and not torch.compiler.is_compiling():
        _raise_for_unsolved(cost, maximize, assignment)
    return assignment


def _call_operator(cost: Tensor, maximize: bool) -> Tensor:
    """Call the operator so that Ctrl-C ends it: signals are handled on the main thread of eager code."""
    operator = torch.ops.lwfm.linear_assignment.default
    if torch.compiler.is_compiling() or threading.current_thread() is not threading.main_thread():
        return cast("Tensor", operator(cost, maximize))
    return cast("Tensor", _ops.call_interruptibly(operator, cost, maximize))


def _raise_for_unsolved(cost: Tensor, maximize: bool, assignment: Tensor) -> None:
    """Solve a batch again on the host if a problem in it was marked as unsolved: that raises."""
    assigned = (assignment >= 0).sum(-1)
    if bool((assigned < min(cost.shape[-2:])).any()):
        _call_operator(cost.cpu(), maximize)


def _linear_assignment_fake(cost: Tensor, maximize: bool = False) -> Tensor:  # noqa: ARG001
    if cost.dim() < 2:
        raise ValueError("linear_assignment: cost must be [..., N, M]")
    return cost.new_empty(cost.shape[:-1], dtype=torch.int64)


def _linear_assignment_vmap(
    _info: object, in_dims: tuple[int | None, ...], cost: Tensor, maximize: bool = False
) -> tuple[Tensor, int]:
    batch_dim = in_dims[0] or 0  # the cost is the only tensor, so it is the one that is batched
    return linear_assignment(cost.movedim(batch_dim, 0), maximize), 0


torch.library.register_fake("lwfm::linear_assignment", _linear_assignment_fake)
torch.library.register_vmap("lwfm::linear_assignment", _linear_assignment_vmap)
