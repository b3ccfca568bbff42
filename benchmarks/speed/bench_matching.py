"""The head beside its products, its tensor expressions and the published form.

    python -m benchmarks.speed.bench_matching --threads 2
    python -m benchmarks.speed.bench_matching --cases 20x5xF5 --queries 2
    python -m benchmarks.speed.bench_matching --device cuda --cases 5x5xF3 --rounds 9 [--tf32]
    pytest benchmarks/speed/bench_matching.py -k 5x5xF3 --benchmark-group-by=group

``lwfm bench matching`` measures the head beside its products and its tensor expressions. This adds
expressions on einsum and cdist, the published form, and on a GPU compiled expressions and a CUDA graph.
Logits and gradients of all forms are compared before anything is timed.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

import pytest
import torch

from benchmarks.published_head import NaiveHead
from benchmarks.speed.head_forms import CUDA_FORMS, EXPRESSIONS
from lwfm.bench.command import DeviceName
from lwfm.bench.head import checked_step, measure, peak_bytes
from lwfm.bench.head_cases import CASES, DIMS, FORMS, Case, expected_of, with_parameters
from lwfm.bench.head_table import PASSES
from lwfm.bench.timing import benchmark_device

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from lwfm.bench.head_cases import Form

NAIVE_BYTES = 8 * 2**30  # beyond this much for the expanded pairs the published form is left out
NAIVE = "naive"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def all_forms(device: str) -> dict[str, Form]:
    """Return every form of a device by name."""
    forms = {**FORMS, **EXPRESSIONS, NAIVE: lambda head, size: with_parameters(NaiveHead, head, size)}
    return {**forms, **CUDA_FORMS} if device == "cuda" else forms


def forms_of(case: Case, device: str) -> dict[str, Form]:
    forms = all_forms(device)
    expanded = 16 * case.way * case.queries * case.way * case.shot * case.size**2 * sum(DIMS) * 4
    if expanded >= NAIVE_BYTES:
        del forms[NAIVE]
    return forms


def peak_of(case: Case, name: str, backward: bool, threads: int) -> int:
    return peak_bytes(case, all_forms("cpu")[name], backward, threads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", list(all_forms("cuda")))
@pytest.mark.parametrize("backward", [False, True], ids=PASSES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_form(benchmark: BenchmarkFixture, case: Case, backward: bool, form: str, device: str) -> None:
    forms = forms_of(case, device)
    if form not in forms:
        pytest.skip("takes too much memory" if form == NAIVE else "for a GPU")
    place = torch.device(device)
    call = checked_step(case, form, forms[form], place, backward=backward, expected=expected_of(case))

    def step_and_wait() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"{case}, {PASSES[backward]}, {device}"
    benchmark(step_and_wait)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the head's forms; see the file's docstring.")
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--forms", nargs="+", help=f"products and head, and these of: {', '.join(all_forms('cuda'))}"
    )
    parser.add_argument("--queries", type=int, default=15, help="of each class; fewer for the published form")
    parser.add_argument("--tf32", action="store_true", help="let products on CUDA round to TF32")
    parser.add_argument("--no-memory", action="store_true", help="skip the memory of each form")
    options = parser.parse_args()
    device = benchmark_device(options.device)
    if options.tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    wanted = set(options.forms or all_forms(device.type)) | {"products", "head"}
    for name in options.cases:
        result = measure(
            [CASES[name]._replace(queries=options.queries)],
            lambda case: {name: form for name, form in forms_of(case, device.type).items() if name in wanted},
            threads=options.threads,
            rounds=options.rounds,
            peak=None if options.no_memory else peak_of,
            device=device,
        )
        print(result, flush=True)


if __name__ == "__main__":
    main()
