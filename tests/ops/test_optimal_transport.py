"""lwfm.ops.optimal_transport and transport_cost: the oracle's totals, exact marginals, gradients."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lwfm import reference
from lwfm._common.devices import torch_threads
from lwfm.ops import linear_assignment, optimal_transport, transport_cost
from tests.helpers.interruption import alarms, check_ctrl_c_ends, needs_timers

SHAPES = [(1, 1), (1, 6), (6, 1), (4, 4), (5, 9), (9, 5), (25, 25), (30, 47)]


def problems(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Costs of any sign [..., N, M] and weights [..., N] and [..., M] that sum to 1."""
    generator = torch.Generator().manual_seed(seed)
    *batch, n, m = shape
    cost = torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.3
    weights = [torch.rand(*batch, size, generator=generator, dtype=torch.float64) for size in (n, m)]
    rows, columns = (x / x.sum(-1, keepdim=True) for x in weights)
    return cost.to(dtype), rows.to(dtype), columns.to(dtype)


def deep_emd(batch: int, n: int, channels: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine costs of rectified features and cross-reference weights, as DeepEMD makes them."""
    generator = torch.Generator().manual_seed(1)
    s, q = torch.randn(2, batch, n, channels, generator=generator, dtype=torch.float64).relu()
    weights = [((x * y.mean(1, keepdim=True)).sum(-1).relu() + 1e-3) for x, y in ((s, q), (q, s))]
    rows, columns = (n * x / x.sum(-1, keepdim=True) for x in weights)
    s, q = (x - x.mean(1, keepdim=True) for x in (s, q))
    return 1 - torch.cosine_similarity(s[:, :, None], q[:, None], dim=-1), rows, columns


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_totals_are_those_of_linear_programming(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    arguments = problems(4, *shape, dtype=dtype)
    expected = reference.transport_cost(*(x.double() for x in arguments))
    plan = optimal_transport(*(x.to(device) for x in arguments))
    assert (plan.dtype, plan.device.type) == (dtype, device.type)
    total = (plan.cpu().double() * arguments[0].double()).sum((-1, -2))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(total, expected, rtol=tolerance, atol=tolerance)


def test_plans_are_those_of_pot() -> None:
    ot = pytest.importorskip("ot")
    cost, rows, columns = deep_emd(50, 25)
    expected = [ot.emd(*(x.numpy() for x in problem)) for problem in zip(rows, columns, cost, strict=True)]
    plan = optimal_transport(cost, rows, columns)
    np.testing.assert_allclose(plan.numpy(), np.stack(expected), atol=1e-12)
    totals = (plan * cost).sum((-1, -2)).numpy()
    np.testing.assert_allclose(totals, (np.stack(expected) * cost.numpy()).sum((-1, -2)), rtol=1e-12)


numbers = {
    "real": st.floats(0, 1, width=32),
    "small_integer": st.integers(0, 3).map(float),
    "of_all_sizes": st.integers(-12, 6).map(lambda exponent: 10.0**exponent),
}


@st.composite
def small_problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    n, m = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    cost = draw(st.lists(draw(st.sampled_from(list(numbers.values()))), min_size=n * m, max_size=n * m))
    weight = draw(st.sampled_from(list(numbers.values())))
    rows, columns = (
        torch.tensor(draw(st.lists(weight, min_size=size, max_size=size)), dtype=torch.float64)
        for size in (n, m)
    )
    if rows.sum() == 0 or columns.sum() == 0:
        rows, columns = torch.zeros_like(rows), torch.zeros_like(columns)
    else:
        columns = columns * (rows.sum() / columns.sum())
    return torch.tensor(cost, dtype=torch.float64).reshape(n, m), rows, columns


def test_the_oracle_solves_problems_of_tiny_weights() -> None:
    rows = torch.tensor([1.0] * 5 + [1e-7] * 2, dtype=torch.float64)
    columns = torch.tensor([1.0] * 6 + [1e-7], dtype=torch.float64)
    columns *= rows.sum() / columns.sum()
    assert float(reference.transport_cost(torch.ones(7, 7).double(), rows, columns)) == pytest.approx(5)


@settings(max_examples=150, deadline=None)
@given(small_problems())
def test_plans_are_feasible_sparse_and_optimal(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    cost, rows, columns = problem
    plan, u, v = optimal_transport(*problem, return_duals=True)
    scale = float(rows.sum())
    assert (plan >= 0).all()
    assert int((plan > 0).sum()) <= sum(cost.shape) - 1
    torch.testing.assert_close(plan.sum(-1), rows, rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(plan.sum(-2), columns, rtol=0, atol=1e-9 * scale)
    total = float((plan * cost).sum())
    rounding = 1e-9 * scale * float(cost.abs().max())
    assert (u[:, None] + v <= cost + 1e-12 * (u.abs()[:, None] + v.abs() + cost.abs())).all()
    assert abs(float((u * rows).sum() + (v * columns).sum()) - total) <= rounding
    # HiGHS takes coefficients below 1e-9 for zero, and violates constraints by up to 1e-7.
    expected = float(reference.transport_cost(*problem))
    assert total <= expected + 1e-6 * max(scale, 1.0) * float(cost.abs().max())


@pytest.mark.parametrize("n", [1, 4, 25, 60])
def test_equal_weights_make_an_assignment(device: torch.device, n: int) -> None:
    cost = problems(5, n, n)[0].to(device)
    weights = torch.full((n,), 1 / n, dtype=torch.float64, device=device)
    expected = torch.nn.functional.one_hot(linear_assignment(cost), n) / n
    torch.testing.assert_close(optimal_transport(cost, weights, weights), expected.double())


def test_lines_without_weight_get_nothing(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(3, 6, 7))
    rows[:, 2], columns[:, 5] = 0, 0
    rows, columns = (x / x.sum(-1, keepdim=True) for x in (rows, columns))
    plan = optimal_transport(cost, rows, columns)
    assert (plan[:, 2] == 0).all()
    assert (plan[:, :, 5] == 0).all()
    zero = optimal_transport(cost, 0 * rows, 0 * columns)
    assert (zero == 0).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_empty_problems(device: torch.device, shape: tuple[int, int]) -> None:
    cost, rows, columns = (x.to(device) for x in problems(2, *shape))
    plan, u, v = optimal_transport(cost, 0 * rows, 0 * columns, return_duals=True)
    assert plan.shape == (2, *shape)
    assert (u == 0).all()
    assert (v == 0).all()
    assert (transport_cost(cost, 0 * rows, 0 * columns) == 0).all()


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (2, 0)], ids=str)
def test_any_number_of_batch_dimensions(device: torch.device, batch: tuple[int, ...]) -> None:
    arguments = [x.to(device) for x in problems(*batch, 4, 5)]
    plan = optimal_transport(*arguments)
    assert plan.shape == (*batch, 4, 5)
    flat = optimal_transport(*(x.reshape(-1, *x.shape[len(batch) :]) for x in arguments))
    assert torch.equal(plan.reshape(-1, 4, 5), flat)


def test_batch_dimensions_are_broadcast(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(3, 2, 4, 5))
    expected = optimal_transport(
        cost, rows[:, :1].expand(3, 2, 4), columns[0, 0].expand(3, 2, 5), return_duals=True
    )
    actual = optimal_transport(cost, rows[:, :1], columns[0, 0], return_duals=True)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_any_strides_are_read(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(3, 6, 7))
    expected = optimal_transport(cost, rows, columns)
    spread = [torch.stack([x, -x], -1)[..., 0] for x in (cost.mT.contiguous().mT, rows, columns)]
    assert torch.equal(optimal_transport(*spread), expected)
    tall = optimal_transport(cost.mT, columns, rows)
    torch.testing.assert_close(tall.mT, expected)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.float16, torch.float16, torch.float16), torch.float32),
        ((torch.bfloat16, torch.float32, torch.float32), torch.float32),
        ((torch.float32, torch.float64, torch.float32), torch.float64),
    ],
    ids=["half", "autocast", "double_weights"],
)
def test_dtypes_are_promoted(
    device: torch.device, dtypes: tuple[torch.dtype, ...], expected: torch.dtype
) -> None:
    cost = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    arguments = [
        x.to(device, dtype)
        for x, dtype in zip((cost, torch.tensor([0.5, 1.5]), torch.tensor([1.0, 1.0])), dtypes, strict=True)
    ]
    plan = optimal_transport(*arguments)
    assert plan.dtype == expected
    assert plan.tolist() == [[0.5, 0.0], [0.5, 1.0]]


def test_float32_sums_may_differ_by_their_rounding(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(20, 40, 30, dtype=torch.float32))
    columns = columns * (1 + 5e-6)
    plan = optimal_transport(cost, rows, columns)
    torch.testing.assert_close(plan.sum(-1), rows)
    torch.testing.assert_close(plan.sum(-2), columns * (rows.sum(-1) / columns.sum(-1))[:, None])


@pytest.mark.parametrize(
    ("name", "index", "bad", "message"),
    [
        ("cost", (1, 2, 3, 0), math.nan, r"cost\[1, 2, 3, 0\] is nan: costs must be finite"),
        ("cost", (1, 2, 3, 0), math.inf, r"cost\[1, 2, 3, 0\] is inf: costs must be finite"),
        (
            "rows",
            (1, 0, 3),
            -0.25,
            r"row_weights\[1, 0, 3\] is -0.25: weights must be finite",
        ),
        ("columns", (0, 2, 4), math.nan, r"column_weights\[0, 2, 4\] is nan: weights must be"),
        (
            "rows",
            (1, 1, 0),
            7.0,
            r"row_weights\[1, 1\] sums to 7.* and column_weights\[1, 1\] to 1: ",
        ),
    ],
    ids=["nan_cost", "infinite_cost", "negative_weight", "nan_weight", "sums"],
)
def test_bad_numbers_are_named(
    device: torch.device, name: str, index: tuple[int, ...], bad: float, message: str
) -> None:
    tensors = dict(zip(("cost", "rows", "columns"), problems(2, 3, 4, 5), strict=True))
    tensors[name][index] = bad
    with pytest.raises(ValueError, match=message):
        optimal_transport(*(x.to(device) for x in tensors.values()))


COST, ROWS, COLUMNS = problems(2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (COST, COLUMNS, ROWS),
            ValueError,
            r"needs row_weights \[\.\.\., 3\] and column_weights \[\.",
        ),
        ((COST[0, 0], ROWS, COLUMNS), ValueError, "cost needs 2 or more dimensions"),
        ((COST, ROWS[0, 0], COLUMNS), ValueError, "row_weights needs 1 or more dimensions"),
        ((COST, ROWS.expand(3, 2, 3), COLUMNS.expand(5, 2, 4)), ValueError, "batch dimensions do not broad"),
        ((COST.long(), ROWS, COLUMNS), TypeError, "cost must be float16, bfloat16, float32 or float64"),
        ((COST, ROWS.to(torch.complex64), COLUMNS), TypeError, "row_weights must be .* got torch.complex64"),
        ((COST, ROWS, COLUMNS.to("meta")), ValueError, "column_weights is on meta, but cost is on cpu"),
    ],
    ids=["swapped", "scalar_cost", "scalar_weights", "batch", "integers", "complex", "devices"],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: tuple[Tensor, ...], error: type[Exception], message: str
) -> None:
    for function in (optimal_transport, transport_cost):
        with pytest.raises(error, match=message):
            function(*arguments)


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="return_duals must be True or False, got 2"):
        optimal_transport(COST, ROWS, COLUMNS, return_duals=2)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((COST, ROWS[0], COLUMNS), "of one dtype"),
        ((COST, ROWS.float(), COLUMNS), "of one dtype"),
        ((COST.half(), ROWS.half(), COLUMNS.half()), "float32 or float64"),
        ((COST[0, 0], ROWS, COLUMNS), r"cost must be \[\.\.\., N, M\]"),
    ],
    ids=["batch", "dtypes", "half", "rank"],
)
def test_the_operator_checks_direct_calls(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.lwfm.optimal_transport(*arguments)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_answers_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    arguments = problems(500, 6, 8)
    expected = [optimal_transport(*(x[b] for x in arguments)) for b in range(500)]
    with torch_threads(threads):
        plan = optimal_transport(*arguments)
    assert torch.equal(plan, torch.stack(expected))


def test_gradients_of_the_cost(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(2, 3, 4, 5))
    cost.requires_grad_()
    assert torch.autograd.gradcheck(lambda cost: transport_cost(cost, rows, columns), (cost,))
    assert torch.autograd.gradgradcheck(lambda cost: transport_cost(cost, rows, columns), (cost,))
    (slope,) = torch.autograd.grad(transport_cost(cost, rows, columns).sum(), cost)
    assert torch.equal(slope, optimal_transport(cost, rows, columns))


def test_gradients_of_weights(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(2, 3, 4, 5))
    leaves = [x.log().requires_grad_() for x in (rows, columns)]

    def total(*logits: Tensor) -> Tensor:
        return transport_cost(cost, *(x.softmax(-1) for x in logits))

    assert torch.autograd.gradcheck(total, leaves)


def test_plans_and_duals_carry_no_gradient(device: torch.device) -> None:
    arguments = [x.to(device).requires_grad_() for x in problems(2, 3, 4)]
    for answer in (
        optimal_transport(*arguments, return_duals=True),
        torch.ops.lwfm.optimal_transport(*arguments),
    ):
        assert not any(x.requires_grad for x in answer)


def test_registration_passes_opcheck(device: torch.device, dtype: torch.dtype) -> None:
    for shape in [(3, 4), (2, 3, 3), (2, 2, 4, 3)]:
        for requires_grad in (False, True):
            arguments = tuple(
                x.to(device).requires_grad_(requires_grad) for x in problems(*shape, dtype=dtype)
            )
            torch.library.opcheck(torch.ops.lwfm.optimal_transport.default, arguments)


def test_compiles_without_a_graph_break(device: torch.device) -> None:
    compiled = torch.compile(transport_cost, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 5):
        cost, rows, columns = (x.to(device) for x in problems(batch, 4, 6))
        cost.requires_grad_()
        total = compiled(cost, rows, columns)
        torch.testing.assert_close(total, transport_cost(cost, rows, columns))
        total.sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(cost.grad, optimal_transport(cost, rows, columns))


def test_vmap_is_a_batch_dimension(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(4, 2, 3, 6))
    expected = optimal_transport(cost, rows, columns)
    for dim in (0, 1):
        mapped = torch.vmap(optimal_transport, in_dims=(dim, 0, -1))
        assert torch.equal(mapped(cost.movedim(0, dim), rows, columns.movedim(0, -1)), expected)
    shared = torch.vmap(optimal_transport, in_dims=(0, None, None))(cost[:, 0], rows[0, 0], columns[0, 0])
    assert torch.equal(shared, optimal_transport(cost[:, 0], rows[0, 0], columns[0, 0]))


def test_torch_func_takes_the_gradient(device: torch.device) -> None:
    cost, rows, columns = (x.to(device) for x in problems(3, 4))
    slope = torch.func.grad(transport_cost)(cost, rows, columns)
    assert torch.equal(slope, optimal_transport(cost, rows, columns))


def test_meta_tensors_have_the_shapes_of_the_answer() -> None:
    arguments = [x.to("meta") for x in (COST, ROWS, COLUMNS)]
    plan, u, v = optimal_transport(*arguments, return_duals=True)
    assert (plan.shape, u.shape, v.shape) == ((2, 3, 4), (2, 3), (2, 4))
    assert transport_cost(*arguments).shape == (2,)


@needs_timers
@pytest.mark.parametrize("shape", [(1, 2500, 2500), (20000, 40, 40)], ids=["one_large", "many"])
def test_calls_end_soon_after_ctrl_c(shape: tuple[int, ...]) -> None:
    arguments = problems(*shape)
    check_ctrl_c_ends(lambda: optimal_transport(*arguments))


@needs_timers
def test_any_exception_of_a_handler_arrives() -> None:
    def fail(*_: object) -> None:
        raise OSError("the handler's own")

    arguments = problems(20000, 40, 40)
    with pytest.raises(OSError, match="the handler's own"), alarms(fail, 0.1):
        optimal_transport(*arguments)
    assert signal.getsignal(signal.SIGALRM) is not fail


def test_forward_mode_derivatives() -> None:
    cost = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    arguments = cost, torch.tensor([1.0, 2.0, 1.0]).double(), torch.tensor([1.5, 2.5]).double()
    for number in range(3):
        forward = torch.func.jacfwd(transport_cost, argnums=number)(*arguments)
        torch.testing.assert_close(forward, torch.func.grad(transport_cost, argnums=number)(*arguments))
        assert forward.abs().sum() > 0
