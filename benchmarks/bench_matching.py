"""The head beside its products, its tensor expressions and the published form, on the CPU.

    python -m benchmarks.bench_matching --threads 2
    python -m benchmarks.bench_matching --cases 5x5xF3 --rounds 9

``lwfm bench matching`` measures the same without the published form. Every form gives the same logits and
the same gradients before it is timed.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.naive_head import NaiveHead
from lwfm.matching_benchmark import measure, peak_bytes
from lwfm.matching_workload import CASES, DIMS, FORMS, QUERIES, Case, Form, with_parameters

NAIVE_BYTES = 8 * 2**30  # beyond this much for the expanded pairs the published form is left out


def all_forms() -> dict[str, Form]:
    return {**FORMS, "naive": lambda head, size: with_parameters(NaiveHead, head, size)}


def forms_of(case: Case) -> dict[str, Form]:
    expanded = 16 * case.way * QUERIES * case.way * case.shot * case.size**2 * sum(DIMS) * 4
    return all_forms() if expanded < NAIVE_BYTES else FORMS


def peak_of(case: Case, name: str, backward: bool, threads: int) -> int:
    return peak_bytes(case, all_forms()[name], backward, threads)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the head's forms; see the file's docstring.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--no-memory", action="store_true", help="skip the memory of each form")
    options = parser.parse_args()
    for name in options.cases:
        peak = None if options.no_memory else peak_of
        print(
            measure([CASES[name]], forms_of, threads=options.threads, rounds=options.rounds, peak=peak),
            flush=True,
        )


if __name__ == "__main__":
    main()
