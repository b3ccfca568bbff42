"""lwfm.ops.linear_assignment: the answers of lwfm.lap, and autograd, vmap and compile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lwfm import lap
from lwfm._common.devices import torch_threads
from lwfm.ops import linear_assignment
from lwfm.ops.linear_assignment import _faster_on_host

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(3, 3), (9, 9), (4, 7), (7, 4), (1, 5), (5, 1), (30, 30)]
# One for each kernel: a lane to a column, several columns to a lane, a block, a block with a workspace.
GPU_SHAPES = [(9, 9), (32, 17), (50, 60), (128, 100), (150, 150), (3, 2000)]


def random_costs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_numpy_face(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int], maximize: bool
) -> None:
    costs = random_costs(40, *shape).to(dtype)
    cols = linear_assignment(costs.to(device), maximize)
    assert cols.dtype == torch.int64
    assert cols.device.type == device.type
    np.testing.assert_array_equal(cols.cpu().numpy(), lap.solve_batch(costs.numpy(), maximize)[0])


@pytest.mark.parametrize(
    "other",
    [
        torch.bool,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.uint16,
        torch.int32,
        torch.uint32,
        torch.int64,
        torch.uint64,
        torch.float16,
        torch.bfloat16,
    ],
    ids=str,
)
def test_every_real_dtype_is_solved(device: torch.device, other: torch.dtype) -> None:
    permutation = torch.tensor([2, 0, 3, 1])
    cost = (1 - torch.eye(4)[permutation]).to(other).to(device)
    assert linear_assignment(cost).tolist() == permutation.tolist()


@pytest.mark.parametrize("batch", [(), (1,), (6,), (2, 3), (2, 0), (0,)], ids=str)
def test_any_number_of_batch_dimensions(device: torch.device, batch: tuple[int, ...]) -> None:
    costs = random_costs(*batch, 4, 5)
    cols = linear_assignment(costs.to(device)).cpu()
    assert cols.shape == (*batch, 4)
    expected = lap.solve_batch(costs.reshape(-1, 4, 5).numpy())[0]
    np.testing.assert_array_equal(cols.reshape(-1, 4).numpy(), expected.reshape(-1, 4))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)], ids=str)
def test_empty_problems(device: torch.device, shape: tuple[int, int]) -> None:
    cols = linear_assignment(torch.empty(3, *shape, device=device))
    assert cols.shape == (3, shape[0])
    assert (cols == -1).all()


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda c: c.transpose(-1, -2), id="transposed"),
        pytest.param(lambda c: c[:, ::2, ::3, 1:], id="sliced"),
        pytest.param(lambda c: c.permute(3, 1, 0, 2), id="permuted"),
        pytest.param(lambda c: c[0, 0].expand(5, 2, -1, -1), id="expanded"),
    ],
)
def test_any_strides_are_read_in_place(
    device: torch.device, view: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    costs = view(random_costs(3, 4, 6, 7).to(device))
    assert torch.equal(linear_assignment(costs), linear_assignment(costs.contiguous()))


@pytest.mark.parametrize("shape", [(2700, 2100), (300, 2600)], ids=str)
def test_one_large_problem_is_shared_among_threads(shape: tuple[int, int]) -> None:
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    with torch_threads(2):
        cols = linear_assignment(costs)
    np.testing.assert_array_equal(cols.numpy(), lap.solve_batch(costs[None].numpy(), n_threads=1)[0][0])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_answers_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    costs = torch.randint(0, 4, (3000, 6, 8), generator=torch.Generator().manual_seed(1)).float()
    with torch_threads(threads):
        cols = linear_assignment(costs)
    np.testing.assert_array_equal(cols.numpy(), lap.solve_batch(costs.numpy(), n_threads=1)[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (float("nan"), r"invalid numeric entries: cost\[1, 2, 3, 0\] is nan"),
        (float("-inf"), r"invalid numeric entries: cost\[1, 2, 3, 0\] is -inf"),
        (float("inf"), r"infeasible: .* cost\[1, 2\] "),
    ],
    ids=["nan", "-inf", "infeasible"],
)
def test_the_first_bad_problem_is_named_by_its_multi_index(
    device: torch.device, bad: float, message: str
) -> None:
    costs = random_costs(2, 3, 4, 4)
    costs[1, 2, 3, :] = bad
    with pytest.raises(ValueError, match=message):
        linear_assignment(costs.to(device), check=True)


@pytest.mark.gpu
@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("size", [4, 40, 140])
def test_without_a_check_unsolved_problems_are_marked(bad: float, size: int) -> None:
    costs = random_costs(2, 3, size, size)
    expected = linear_assignment(costs)
    costs[1, 2, 3, :] = bad
    expected[1, 2] = -1
    assert torch.equal(linear_assignment(costs.cuda()).cpu(), expected)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.rand(3), r"must be \[\.\.\., N, M\]"),
        (torch.tensor(1.0), r"must be \[\.\.\., N, M\]"),
        (torch.rand(2, 2).to(torch.complex64), "must be a floating-point, integer or bool tensor"),
        (torch.rand(2, 2).to(torch.float8_e5m2), r"cost is torch.float8_e5m2, convert it to float32"),
    ],
    ids=["vector", "scalar", "complex", "float8"],
)
def test_wrong_inputs_are_refused(cost: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_assignment(cost)


@pytest.mark.parametrize("maximize", [None, "no", 2], ids=str)
def test_maximize_is_true_or_false(maximize: Any) -> None:
    with pytest.raises(TypeError, match=f"maximize must be True or False, got {maximize!r}"):
        linear_assignment(torch.eye(3), maximize)


def test_registration_passes_opcheck(device: torch.device, dtype: torch.dtype) -> None:
    for shape in [(3, 3), (2, 3, 4), (2, 2, 4, 3)]:
        for requires_grad in (False, True):
            cost = random_costs(*shape).to(device, dtype).requires_grad_(requires_grad)
            torch.library.opcheck(torch.ops.lwfm.linear_assignment.default, (cost,))
            torch.library.opcheck(torch.ops.lwfm.linear_assignment.default, (cost, True))


def test_carries_no_gradient(device: torch.device) -> None:
    cost = random_costs(3, 3).to(device).requires_grad_()
    assert not linear_assignment(cost).requires_grad


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    def matched_cost(cost: torch.Tensor) -> torch.Tensor:
        return cost.gather(-1, linear_assignment(cost).unsqueeze(-1)).sum()

    compiled = torch.compile(matched_cost, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 5):
        cost = random_costs(batch, 6, 6).to(device).requires_grad_()
        compiled(cost).backward()  # type: ignore[no-untyped-call]
        assert cost.grad is not None
        assert cost.grad.sum().item() == 6 * batch
        torch.testing.assert_close(compiled(cost), matched_cost(cost))


def test_vmap_is_a_batch_dimension(device: torch.device) -> None:
    costs = random_costs(4, 5, 3, 6).to(device)
    for dim in (0, 1, -1):
        moved = costs.movedim(0, dim)
        assert torch.equal(torch.vmap(linear_assignment, in_dims=dim)(moved), linear_assignment(costs))


@pytest.mark.gpu
@pytest.mark.parametrize("costs", ["uniform", "integers"])
@pytest.mark.parametrize("shape", GPU_SHAPES, ids=str)
def test_the_device_finds_what_the_host_finds(shape: tuple[int, int], costs: str, dtype: torch.dtype) -> None:
    cost = random_costs(37, *shape).to(dtype)
    if costs == "integers":
        cost = (3 * cost).round()
    host, device = linear_assignment(cost), linear_assignment(cost.cuda()).cpu()
    if costs == "uniform" or max(shape) <= 32:
        assert torch.equal(device, host)
    totals = [
        cost.gather(-1, cols.clamp(min=0).unsqueeze(-1)).squeeze(-1).where(cols >= 0, 0).double().sum(-1)
        for cols in (host, device)
    ]
    torch.testing.assert_close(totals[1], totals[0])
    assert torch.equal((device >= 0).sum(-1), (host >= 0).sum(-1))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", GPU_SHAPES, ids=str)
def test_kernels_run_on_the_current_stream(shape: tuple[int, int]) -> None:
    cost = random_costs(50, *shape)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        # A kernel on another stream would read what is not there yet.
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
        cols = linear_assignment(cost.pin_memory().cuda(non_blocking=True))
    stream.synchronize()
    assert torch.equal(cols.cpu(), linear_assignment(cost))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", GPU_SHAPES, ids=str)
def test_can_be_captured_in_a_graph(shape: tuple[int, int]) -> None:
    cost = random_costs(20, *shape)
    static = cost.cuda()
    linear_assignment(static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        cols = linear_assignment(static)
    for seed in (1, 2):
        cost = random_costs(20, *shape, seed=seed)
        static.copy_(cost)
        graph.replay()
        assert torch.equal(cols.cpu(), linear_assignment(cost))


@pytest.mark.gpu
def test_waits_for_nothing() -> None:
    cost = random_costs(30, 9, 9).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        linear_assignment(cost)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("shape", "host"),
    [
        ((600, 600), True),
        ((2, 40, 512), True),
        ((3, 600, 600), False),
        ((1, 511, 511), False),
        ((0, 600, 600), False),
    ],
    ids=str,
)
def test_few_large_problems_of_a_device_are_solved_on_the_host(shape: tuple[int, ...], host: bool) -> None:
    assert _faster_on_host(shape) == host


@pytest.mark.gpu
def test_the_host_answers_on_the_device() -> None:
    cost = random_costs(2, 40, 512)
    assert torch.equal(linear_assignment(cost.cuda(), check=True).cpu(), linear_assignment(cost))
    found = linear_assignment(cost.cuda(), return_duals=True, check=True)
    expected = linear_assignment(cost, return_duals=True)
    for one, other in zip(found, expected, strict=True):
        assert one.is_cuda
        assert torch.equal(one.cpu(), other)
    cost[1, 3, 5] = math.nan
    with pytest.raises(ValueError, match=r"1, 3, 5"):
        linear_assignment(cost.cuda(), check=True)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_every_device_solves_its_own_tensors() -> None:
    cost = random_costs(30, 9, 9)
    for index in (1, 0):
        cols = linear_assignment(cost.to(f"cuda:{index}"))
        assert cols.device.index == index
        assert torch.equal(cols.cpu(), linear_assignment(cost))


@pytest.mark.gpu
@pytest.mark.slow
def test_offsets_go_beyond_31_bits() -> None:
    count = (2**31 + 2**20) // 81
    cost = torch.rand(count, 9, 9, device="cuda", dtype=torch.float32)
    cols = linear_assignment(cost)[-1000:].cpu()
    assert torch.equal(cols, linear_assignment(cost[-1000:].cpu()))
