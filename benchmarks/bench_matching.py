"""The fused head beside its tensor expressions and the published form, on the CPU.

    python -m benchmarks.bench_matching --threads 2
    python -m benchmarks.bench_matching --cases 5x5xF3 --rounds 9

Every form gives the same logits and the same gradients before it is timed. Forms take turns, so that what
else the machine does falls on all of them; reported is the median. ``products`` are the matrix products of
the head alone, as ``torch.matmul`` does them: correlations of the maps and of the embedded maps, the
embedding, and where there is a backward pass twice those. Memory is the growth of the process's peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor, nn

import lwfm.nn
from benchmarks.naive_head import NaiveHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# way, shot, F; 15 queries per class, layers [512, 512]
CASES = {f"{way}x{shot}xF{size}": (way, shot, size) for way, shot, size in (
    (5, 1, 3), (5, 5, 3), (20, 5, 3), (5, 5, 5), (5, 1, 7), (5, 1, 10), (5, 1, 14)
)}  # fmt: skip
DIMS = (512, 512)
NAIVE_BYTES = 8 * 2**30  # beyond this much for the expanded pairs the published form is left out


@contextmanager
def tensor_expressions() -> Iterator[None]:
    """Make the head take the path of other devices than the CPU."""
    with mock.patch("lwfm.blocks.is_fused", return_value=False):
        yield


class ExpressionHead(lwfm.nn.LWFMHead):
    """The head through its tensor expressions."""

    def forward(self, *arguments: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        with tensor_expressions():
            return super().forward(*arguments)


class Products(nn.Module):
    """The matrix products that the head cannot do without."""

    def __init__(self, head: lwfm.nn.LWFMHead) -> None:
        super().__init__()
        self.weights = nn.ParameterList(list(head.embeddings.parameters()))

    def forward(self, support: Tensor, _labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        maps = [x.flatten(2).transpose(1, 2).contiguous() for x in (support, query)]
        cut = [torch.split_with_sizes(x, list(DIMS), dim=-1) for x in maps]
        sums = []
        for layer, (s, q) in enumerate(zip(*cut, strict=True)):
            s, q = s.reshape(-1, s.shape[-1]), q.reshape(-1, q.shape[-1])
            w1, w2 = self.weights[2 * layer], self.weights[2 * layer + 1]
            embedded = [x @ w1.T @ w2.T for x in (s, q)]
            sums += [(s @ q.T).sum(), (embedded[0] @ embedded[1].T).sum()]
        return torch.stack(sums), sums[0]


def make_case(name: str, form: str) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    """Build one form of the head and an episode; equal for equal ``name``."""
    way, shot, size = CASES[name]
    torch.manual_seed(0)
    support = torch.rand(way * shot, sum(DIMS), size, size).relu_().requires_grad_()
    query = torch.rand(way * 15, sum(DIMS), size, size).relu_().requires_grad_()
    fused = lwfm.nn.LWFMHead(DIMS, feature_size=size, num_classes=64)
    head: nn.Module = fused
    if form in ("expressions", "naive"):
        kind = ExpressionHead if form == "expressions" else NaiveHead
        head = kind(DIMS, feature_size=size, num_classes=64)
        head.load_state_dict(fused.state_dict())
    elif form == "products":
        head = Products(fused)
    return head, (support, torch.arange(way * shot) % way, query)


def step(head: nn.Module, episode: tuple[Tensor, Tensor, Tensor], *, backward: bool) -> list[Tensor]:
    """One forward pass in training mode, and the gradients of all inputs and parameters."""
    if not backward:
        with torch.no_grad():
            return list(head(*episode))
    outputs = list(head(*episode))
    loss = outputs[0].square().mean() + outputs[1].square().mean()
    return outputs + list(torch.autograd.grad(loss, [episode[0], episode[2], *head.parameters()]))


def check_agreement(name: str, forms: list[str]) -> None:
    """Raise unless all forms give the same logits and gradients."""
    expected = step(*make_case(name, "fused"), backward=True)
    for form in forms:
        if form in ("expressions", "naive"):
            for actual, value in zip(step(*make_case(name, form), backward=True), expected, strict=True):
                error = float((actual.detach() - value.detach()).norm() / value.detach().norm())
                if not error < 1e-3:
                    raise SystemExit(f"{name}: {form} and fused differ by {error:.1e}, relatively")


def peak_bytes(name: str, form: str, backward: bool, threads: int) -> int:
    """Growth of the peak memory by one step; call it in a process of its own."""
    torch.set_num_threads(threads)
    head, episode = make_case(name, form)
    small = torch.rand(64, 64, requires_grad=True)  # loads the libraries behind products and autograd
    torch.autograd.backward((small @ small).sum())
    before = peak_of_process()
    step(head, episode, backward=backward)
    return peak_of_process() - before


def peak_of_process() -> int:
    """Bytes of memory that this process has had at most (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def in_fresh_process(function: Callable[..., int], *arguments: object) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def median_times(name: str, forms: list[str], *, backward: bool, rounds: int) -> dict[str, float]:
    """Seconds of a step for each form, which take turns; slow forms take fewer."""
    cases = {form: make_case(name, form) for form in forms}
    times: dict[str, list[float]] = {form: [] for form in forms}
    for number in range(rounds + 1):
        for form in forms:
            if times[form] and times[form][-1] > 1 and number > 2:
                continue
            start = time.perf_counter()
            step(*cases[form], backward=backward)
            times[form].append(time.perf_counter() - start)
    return {form: statistics.median(values[1:]) for form, values in times.items()}


def forms_for(name: str) -> list[str]:
    way, shot, size = CASES[name]
    expanded = 12 * way * 15 * way * shot * size**2 * sum(DIMS) * 4
    return ["products", "fused", "expressions", *(["naive"] if expanded < NAIVE_BYTES else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the head's forms; see the file's docstring.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--no-memory", action="store_true", help="skip the memory of each form")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, layers {list(DIMS)}, 15 queries per class, median of {options.rounds}")
    print(f"{'case':>10} {'pass':>16} {'form':>12} {'ms':>9} {'/ fused':>8} {'/ products':>10} {'MB':>8}")
    for name in options.cases:
        forms = forms_for(name)
        check_agreement(name, forms)
        for backward in (False, True):
            times = median_times(name, forms, backward=backward, rounds=options.rounds)
            for form in forms:
                memory = "-"
                if not options.no_memory:
                    peak = in_fresh_process(peak_bytes, name, form, backward, options.threads)
                    memory = f"{peak / 1e6:.0f}"
                print(
                    f"{name:>10} {'forward+backward' if backward else 'forward':>16} {form:>12} "
                    f"{1e3 * times[form]:9.2f} {times[form] / times['fused']:8.2f} "
                    f"{times[form] / times['products']:10.2f} {memory:>8}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
