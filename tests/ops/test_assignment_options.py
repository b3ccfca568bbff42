"""lwfm.ops.linear_assignment with a cost limit and with duals: the answers of lwfm.lap."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lwfm import lap, reference
from lwfm.ops import linear_assignment

if TYPE_CHECKING:
    from collections.abc import Callable

# A lane to a column, several columns to a lane, a block, a block with a workspace; with and without a limit.
SHAPES = [(3, 3), (9, 9), (4, 7), (7, 4), (16, 16), (17, 30), (30, 30), (40, 70), (90, 60), (3, 1800)]
with_duals = functools.partial(linear_assignment, return_duals=True)


def random_costs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.4


def total(cost: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
    chosen = cost.double().gather(-1, cols.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen.where(cols >= 0, 0.0).sum(-1)


@pytest.mark.parametrize("limit", [None, 0.15, -0.1], ids=["unlimited", "limit", "negative_limit"])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_numpy_face(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int], maximize: bool, limit: float | None
) -> None:
    costs = random_costs(7, *shape).to(dtype)
    expected = lap.solve_batch(costs.numpy(), maximize, cost_limit=limit, return_duals=True)
    cols = linear_assignment(costs.to(device), maximize, cost_limit=limit)
    answer = linear_assignment(costs.to(device), maximize, cost_limit=limit, return_duals=True)
    assert torch.equal(answer[0], cols)
    assert [x.dtype for x in answer] == [torch.int64, torch.float64, torch.float64]
    assert {x.device.type for x in answer} == {device.type}
    cols, u, v = (x.cpu() for x in answer)
    np.testing.assert_array_equal(cols.numpy(), expected[0])
    if device.type == "cpu":
        np.testing.assert_array_equal(u.numpy(), expected[2])
        np.testing.assert_array_equal(v.numpy(), expected[3])
    # Duals prove the total.
    sign = -1.0 if maximize else 1.0
    assert (sign * (u[..., :, None] + v[..., None, :] - costs) <= 1e-12).all()
    unmatched = shape[0] + shape[1] - 2 * (cols >= 0).sum(-1).double()
    proven = u.sum(-1) + v.sum(-1) - (unmatched * limit / 2 if limit is not None else 0)
    torch.testing.assert_close(proven, total(costs, cols))


@pytest.mark.parametrize("limit", [math.inf, 0.3, 0.0, -0.2])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (5, 8), (8, 5)], ids=str)
def test_a_limit_means_what_it_means_in_the_reference(
    device: torch.device, shape: tuple[int, int], maximize: bool, limit: float
) -> None:
    costs = random_costs(20, *shape, seed=1)
    expected = reference.linear_assignment(costs, maximize, cost_limit=limit)
    actual = linear_assignment(costs.to(device), maximize, cost_limit=limit).cpu()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    "other",
    [
        torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32,
        torch.int64, torch.uint64, torch.float16, torch.bfloat16,
    ],
    ids=str,
)  # fmt: skip
def test_every_real_dtype_is_solved(device: torch.device, other: torch.dtype) -> None:
    permutation = torch.tensor([2, 0, 3, 1])
    cost = (1 - torch.eye(4)[permutation]).to(other).to(device)
    cols, u, v = linear_assignment(cost, cost_limit=0.5, return_duals=True)
    assert cols.tolist() == permutation.tolist()
    assert u.sum().item() + v.sum().item() == 0.0


def test_limits_of_large_integers_are_exact(device: torch.device) -> None:
    cost = torch.tensor([[2**60 + 1, 2**60 + 9], [2**60 + 5, 2**60 + 2]], device=device)
    assert linear_assignment(cost, cost_limit=2**60).tolist() == [-1, -1]
    assert linear_assignment(cost, maximize=True, cost_limit=2**60).tolist() == [1, 0]


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (2, 0), (0,)], ids=str)
def test_any_number_of_batch_dimensions(device: torch.device, batch: tuple[int, ...]) -> None:
    costs = random_costs(*batch, 4, 5).to(device)
    cols, u, v = linear_assignment(costs, cost_limit=0.1, return_duals=True)
    assert (cols.shape, u.shape, v.shape) == ((*batch, 4), (*batch, 4), (*batch, 5))
    flat = linear_assignment(costs.reshape(-1, 4, 5), cost_limit=0.1, return_duals=True)
    for actual, expected in zip((cols, u, v), flat, strict=True):
        assert torch.equal(actual.reshape(expected.shape), expected)


@pytest.mark.parametrize("limit", [None, 3.0])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)], ids=str)
def test_empty_problems(device: torch.device, shape: tuple[int, int], limit: float | None) -> None:
    cost = torch.empty(3, *shape, device=device)
    cols, u, v = linear_assignment(cost, cost_limit=limit, return_duals=True)
    assert (cols == -1).all()
    assert (u == (limit or 0.0) / 2).all()
    assert (v == (limit or 0.0) / 2).all()
    assert (u.shape, v.shape) == ((3, shape[0]), (3, shape[1]))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda c: c.transpose(-1, -2), id="transposed"),
        pytest.param(lambda c: c[:, ::2, ::3, 1:], id="sliced"),
        pytest.param(lambda c: c.permute(3, 1, 0, 2), id="permuted"),
        pytest.param(lambda c: c[0, 0].expand(5, 2, -1, -1), id="expanded"),
    ],
)
def test_any_strides_are_read(device: torch.device, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    costs = view(random_costs(3, 4, 6, 7).to(device))
    answer = linear_assignment(costs, cost_limit=0.2, return_duals=True)
    plain = linear_assignment(costs.contiguous(), cost_limit=0.2, return_duals=True)
    assert all(torch.equal(a, b) for a, b in zip(answer, plain, strict=True))


def test_a_limit_makes_every_problem_feasible(device: torch.device) -> None:
    costs = torch.full((2, 3, 3), math.inf)
    costs[1, 0, 2] = 1.0
    cols = linear_assignment(costs.to(device), cost_limit=1.5, check=True)
    assert cols.tolist() == [[-1, -1, -1], [2, -1, -1]]


def test_a_limit_does_not_overflow(device: torch.device) -> None:
    costs = torch.tensor([[-1.7e308, 1.7e308], [1.7e308, 1.6e308]], dtype=torch.float64, device=device)
    assert linear_assignment(costs, cost_limit=1.65e308).tolist() == [0, 1]
    assert linear_assignment(costs, cost_limit=1.5e308).tolist() == [0, -1]


@pytest.mark.parametrize("duals", [False, True], ids=["cols", "duals"])
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_bad_entry_is_named(device: torch.device, bad: float, limit: float | None, duals: bool) -> None:
    costs = random_costs(2, 3, 4, 4)
    costs[1, 2, 3, 0] = bad
    with pytest.raises(ValueError, match=rf"invalid numeric entries: cost\[1, 2, 3, 0\] is {bad}"):
        linear_assignment(costs.to(device), cost_limit=limit, return_duals=duals, check=True)


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("size", [4, 40, 140])
def test_without_a_check_unsolved_problems_have_no_duals(size: int, limit: float | None) -> None:
    costs = random_costs(2, 3, size, size)
    expected = linear_assignment(costs, cost_limit=limit)
    costs[1, 2, 3, 1] = math.nan
    expected[1, 2] = -1
    cols, u, v = linear_assignment(costs.cuda(), cost_limit=limit, return_duals=True)
    assert torch.equal(cols.cpu(), expected)
    for duals in (u, v):
        solved = ~duals.isnan()
        assert solved.sum() == solved.numel() - size
        assert not solved[1, 2].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cost_limit": 10**400}, TypeError, "cost_limit must be a number that float64 can hold"),
        ({"cost_limit": [1]}, TypeError, "cost_limit must be a number"),
        ({"maximize": torch.ones(2)}, TypeError, "maximize must be True or False"),
        ({"cost_limit": math.nan}, ValueError, "cost_limit must be a finite number"),
        ({"cost_limit": -math.inf}, ValueError, "cost_limit must be a finite number"),
        (
            {"cost_limit": "1"},
            TypeError,
            "cost_limit must be a number that float64 can hold, or None for no limit, got '1'",
        ),
        (
            {"cost_limit": True},
            TypeError,
            "cost_limit must be a number that float64 can hold, or None for no limit, got True",
        ),
        ({"return_duals": None}, TypeError, "return_duals must be True or False, got None"),
    ],
    ids=["beyond-float64", "list", "several-flags", "nan", "-inf", "string", "flag", "no-flag"],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear_assignment(torch.eye(3), **options)
    if error is ValueError:
        with pytest.raises(ValueError, match=message):
            torch.ops.lwfm.linear_assignment(torch.eye(3), False, options["cost_limit"])


@pytest.mark.parametrize("limit", [None, 0.3])
def test_registration_passes_opcheck(device: torch.device, dtype: torch.dtype, limit: float | None) -> None:
    for shape in [(3, 3), (2, 3, 4), (2, 2, 4, 3)]:
        for requires_grad in (False, True):
            cost = random_costs(*shape).to(device, dtype).requires_grad_(requires_grad)
            torch.library.opcheck(torch.ops.lwfm.linear_assignment.default, (cost, True, limit))
            torch.library.opcheck(torch.ops.lwfm.linear_assignment_duals.default, (cost, False, limit))


def test_duals_carry_no_gradient(device: torch.device) -> None:
    cost = random_costs(3, 3).to(device).requires_grad_()
    for answer in (with_duals(cost), torch.ops.lwfm.linear_assignment_duals(cost)):
        assert not any(x.requires_grad for x in answer)


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    def solve(cost: torch.Tensor) -> torch.Tensor:
        cols, u, v = linear_assignment(2 * cost, cost_limit=0.5, return_duals=True)
        return cols.sum() + u.sum() + v.sum()

    compiled = torch.compile(solve, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 5):
        cost = random_costs(batch, 6, 7).to(device)
        torch.testing.assert_close(compiled(cost), solve(cost))


def test_vmap_is_a_batch_dimension(device: torch.device) -> None:
    costs = random_costs(4, 5, 3, 6).to(device)
    solve = functools.partial(linear_assignment, cost_limit=0.1, return_duals=True)
    for dim in (0, 1, -1):
        answer = torch.vmap(solve, in_dims=dim)(costs.movedim(0, dim))
        assert all(torch.equal(a, b) for a, b in zip(answer, solve(costs), strict=True))


def test_meta_tensors_have_the_shapes_of_the_answer() -> None:
    cost = torch.empty(2, 3, 4, device="meta")
    cols, u, v = with_duals(cost)
    assert (cols.shape, u.shape, v.shape) == ((2, 3), (2, 3), (2, 4))
    assert {x.device.type for x in (cols, u, v)} == {"meta"}
