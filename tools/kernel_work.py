"""What every CUDA kernel has to do, counted by hand from its source.

Letters: S support images, Q queries, P positions of both, C channels, K shots of a class. Instructions are
rough counts of what a warp issues for one turn of a loop; chains follow the loops whose turns wait.
"""

from __future__ import annotations

from typing import NamedTuple

from assignment_steps import Steps, count_steps
from kernel_model import Phase, Work

WARP, WARPS_OF_PAIRS = 32, 4
UNROLLED = 4  # turns of a loop whose reads are under way together
TRUE, FALSE = "true", "false"


class Layer(NamedTuple):
    """One layer of an episode."""

    S: int = 25
    Q: int = 75
    P: int = 9
    C: int = 512
    way: int = 5

    @property
    def pairs(self) -> int:
        """Q S."""
        return self.S * self.Q

    @property
    def shots(self) -> int:
        """K."""
        return self.S // self.way


def reads_along(channels: int) -> float:
    """Count reads of memory that wait for each other where a warp runs along a vector."""
    return -(-channels // (WARP * UNROLLED))


def warp_cosine(channels: int) -> Phase:
    """Sum the products of two vectors over the lanes of a warp."""
    return Phase(channels / WARP * 6 + 20, steps=20, shuffles=5, memory=reads_along(channels))


def softmax_lines(P: int, threads: int, *, backward: bool = False) -> list[Phase]:
    """Layer-wise embedding of a pair: a line a thread, each with three passes and the weights across."""
    turns, warps = -(-2 * P // threads), threads / WARP
    passes = 3 + 2  # of the softmax; of the weights, with exponentials
    if backward:
        passes += 7
    one = Phase(passes * P * 9, steps=passes * P * 2 + 60, shared=passes * P / UNROLLED)
    reached = Phase(P * 5, steps=P, shared=P / UNROLLED, barriers=4)
    return [one.repeated(turns, warps), reached.repeated(-(-P // threads), warps)]


def assignment_of_warp(n: int) -> Phase:
    """One problem of at most 32 columns, which stands in shared memory."""
    steps = count_steps(n, of_warp=True)
    looks = steps.reductions + steps.scans
    return Phase(
        instructions=15 * n + 55 * looks + 35 * steps.scans + 15 * steps.flips,
        doubles=5 * n + 5 * steps.reductions + 9 * steps.scans,
        steps=4 * n + 25 * looks,
        shared=n / UNROLLED + looks + steps.scans,
        shuffles=3 * looks + steps.scans + 2 * steps.flips,
        double_steps=n + 2 * steps.reductions + 5 * steps.scans,
    )


def assignment_of_team(n: int, threads: int) -> Phase:
    """One problem of more columns: each look at a row is a turn of all threads, and minima over them."""
    steps = count_steps(n, of_warp=False)
    turns, warps, minimum = -(-n // threads), threads / WARP, 4 if threads == WARP else 8
    look = Phase(
        50 * turns + 70, 7 * turns, steps=20 * turns + 40, shared=3 * turns, shuffles=minimum,
        barriers=threads > WARP, double_steps=5 * turns,
    )  # fmt: skip
    reduction = Phase(70, 2, steps=40, shared=2, shuffles=minimum, barriers=3, double_steps=3)
    counted = look.repeated(steps.reductions + steps.scans + n / UNROLLED, warps)
    extra = reduction.repeated(steps.reductions, warps)
    walked = Phase(shared=3 * steps.flips + 2 * steps.scans, memory=turns * _rows_from_memory(n, steps))
    return Phase(*(sum(column) for column in zip(counted, extra, walked, strict=True)))


def _rows_from_memory(n: int, steps: Steps) -> float:
    """Count looks that wait for memory in every turn: for what a problem has beyond 32 KB of cache."""
    beyond = max(0.0, 1 - 32768 / (4 * n * n))
    return beyond * (steps.reductions + steps.scans)


def of_pairs(
    title: str, kernel: str, layer: Layer, *, numbers: int, scratch: int, flops: int,
    phases: list[Phase],
) -> Work:  # fmt: skip
    """Work of a kernel with a warp for each pair up to 32 positions of both, else with a block."""
    of_warp = 2 * layer.P <= 64
    warps = WARPS_OF_PAIRS if of_warp else 1
    threads = 128 if of_warp else min(256, -(-2 * layer.P // 32) * 32)
    phases = [p._replace(instructions=p.instructions * warps, doubles=p.doubles * warps) for p in phases]
    return Work(
        title, kernel, grid=-(-layer.pairs // warps), threads=threads,
        bytes_moved=4 * numbers * layer.pairs, flops=layer.pairs * flops,
        phases=[Phase(40, steps=20, memory=2, shared=2, barriers=1), *phases],
        dynamic_shared=4 * scratch * warps,
    )  # fmt: skip


def correlation(layer: Layer, *, large: bool = False, embedded: bool = True) -> Work:
    """All pairs of a layer in one kernel: products of a tile, then its pairs, a warp each."""
    S, Q, P, C, _ = layer
    size, micro, warps = (64, 4, 8) if large else (32, 2, 8)
    fits = size // P
    tiles, rounds = -(-S // fits) * -(-Q // fits), -(-fits * fits // warps)
    loads = 2 * 16 * size / 256
    multiply = 16 * (2 * micro / 4 + micro * micro) if large else 16 * (2 + micro * micro)
    step = Phase(loads * 12 + multiply + 20, memory=1, shared=2, barriers=1, steps=20)
    cosines = warp_cosine(C) if embedded else Phase(4, shared=2)
    phases = [
        Phase(steps=40, memory=1),
        step.repeated(C / 16, warps),
        *(phase.repeated(rounds, warps) for phase in softmax_lines(P, WARP)),
        assignment_of_warp(P).repeated(rounds, warps),
        cosines.repeated(rounds * P, warps),
    ]
    return Work(
        f"correlation, {S} x {Q} images, P = {P}, C = {C}, tiles of {size}",
        f"correlate<Tile<float, {size}, {micro}>, float>",
        grid=tiles, threads=256,
        bytes_moved=4 * 2 * (S + Q) * P * C + 4 * S * Q * (3 * P + 1) + 8 * S * Q * P,
        flops=2 * S * Q * P * P * C + 2 * S * Q * P * 3 * C, phases=phases,
    )  # fmt: skip


def positions(layer: Layer, layers: int = 2) -> list[Work]:
    """Center the queries' maps of all layers, and pass gradients back: a warp for each position."""
    rows, channels = layer.Q * layer.P, layers * layer.C
    reads = 2 * layers * reads_along(layer.C)
    works = []
    for title, kernel, tensors in (
        ("centered positions", "center_positions<float>", 2),
        ("centered positions, backward", "center_positions_backward<float>", 3),
    ):
        phase = Phase(channels / WARP * 20, memory=reads, shuffles=5 * (1 + layers), steps=60)
        works.append(
            Work(title, kernel, -(-rows // 8), 256, 4 * tensors * rows * channels,
                 4 * rows * channels, [phase.repeated(1, 8)])
        )  # fmt: skip
    return works


def rows_of(count: float, *, of_list: float = 1) -> Phase:
    """Weighted rows, one after the other, four channels a thread; ``of_list``: reads to find a row."""
    return Phase(4 * (20 + 14 * count), memory=of_list + count, shared=count, barriers=2, steps=4 * count)


def class_terms(layer: Layer) -> list[Work]:
    """Compute the base term of every query and class, and its gradients; a block of 128 threads each."""
    S, Q, P, C, way = layer
    K, turns = layer.shots, -(-C // 512)
    listed = 2 + K  # a class is read image by image
    features, weights = 4 * (S + Q) * P * C, 4 * 2 * S * Q * P
    means = [rows_of(K * P, of_list=3).repeated(turns, 1), rows_of(P, of_list=K).repeated(turns, 1)]
    along = warp_cosine(C).repeated(-(-(K + 1) * P // 4), 4)
    mean_bytes = 4 * 2 * Q * way * C
    start = Phase(100, memory=listed)
    flops = 2 * Q * (S + way) * P * C

    def work(title: str, kernel: str, grid: int, moved: int, operations: int, *phases: Phase) -> Work:
        return Work(title, kernel, grid, 128, moved, operations, [start, *phases])

    return [
        work("class terms", "class_terms<float>", Q * way, features + weights, flops,
             *means, Phase(120, shuffles=15, barriers=6)),
        work("class terms: features of the classifier", "class_features<float>", Q, features + weights,
             2 * Q * P * C, Phase(60 * way, memory=(way - 1) * listed + way), rows_of(P).repeated(turns, 1)),
        work("class terms, backward: means and weights", "class_terms_backward<float>", Q * way,
             features + 2 * weights + mean_bytes, 2 * flops, *means, along),
        work("class terms, backward: queries", "class_query_gradient<float>", Q * P,
             mean_bytes + features, 2 * Q * P * way * C, rows_of(way, of_list=listed + 1)),
        work("class terms, backward: support", "class_support_gradient<float>", S * P,
             mean_bytes + features, 2 * Q * S * P * C, rows_of(Q, of_list=2)),
    ]  # fmt: skip


def feature_matching(layer: Layer, top_k: int = 1) -> list[Work]:
    """Match positions and compare their embedded features; backward, a block for each position."""
    S, Q, P, C, _ = layer
    block, scratch = P * P, 3 * P + 2 * P + P * (P | 1)
    cosines = warp_cosine(C)
    rank = Phase(8 * P, steps=4 * P, shared=2 * P / UNROLLED, barriers=3)
    share = Phase(15 * P, steps=6 * P, shared=P, barriers=2)
    features = 4 * (S + Q) * P * C
    works = [
        Work("inverse norms of the queries", "invert_norms<float>", -(-Q * P // 8), 256,
             4 * Q * P * C, 2 * Q * P * C, [cosines.repeated(1, 8)]),
        of_pairs("feature matching", "match<float, FeatureMatchingArguments<float> >",
                 layer, numbers=block + 2 * P + 4 * P + 1, scratch=scratch, flops=2 * P * C,
                 phases=[assignment_of_warp(P), cosines.repeated(P, 1), rank])
        if P <= WARP else
        of_pairs("comparison of matched features",
                 f"compare<float, {FALSE}, FeatureMatchingArguments<float> >", layer,
                 numbers=4 * P + 1, scratch=4 * P, flops=2 * P * C,
                 phases=[cosines.repeated(P / 4, 4), rank]),
        of_pairs("feature matching, backward: shares",
                 f"share_similarity<float, {TRUE if P <= WARP else FALSE}>", layer, numbers=6 * P + 1,
                 scratch=5 * P, flops=P, phases=[rank, share]),
    ]  # fmt: skip
    for side, images, others, kind in (("support", S, Q, TRUE), ("queries", Q, S, FALSE)):
        selected = others * top_k / P
        rows = Phase(4 * (12 * others + 14 * selected), memory=5 + selected, shared=others, barriers=4)
        works.append(
            Work(f"feature matching, backward: {side}", f"feature_gradient<float, {kind}>",
                 images * P, 128, 2 * features, int(2 * images * P * selected * C), [rows])
        )  # fmt: skip
    return works


def pair_kernels(layer: Layer) -> list[Work]:
    """Kernels on the blocks of all pairs: weights, matching by the same features, and their gradients."""
    P = layer.P
    of_warp = TRUE if 2 * P <= 64 else FALSE
    threads = WARP if 2 * P <= 64 else min(256, -(-2 * P // 32) * 32)
    block, scales, numbers = P * P, 2 * P, 2 * P + P * (P | 1)
    weights = 9 * P + numbers
    rank = Phase(8 * P, steps=4 * P, shared=2 * P / UNROLLED, barriers=3)
    backward = [*softmax_lines(P, threads, backward=True), Phase(20 * P, steps=10 * P, shared=P)]
    works = [
        of_pairs("embedding weights", f"weigh<float, {of_warp}, {TRUE}>", layer,
                 numbers=block + scales + 3 * P, scratch=weights, flops=2 * 25 * block,
                 phases=softmax_lines(P, threads)),
        of_pairs("embedding weights, backward", f"weigh_backward<float, {of_warp}, {TRUE}>", layer,
                 numbers=2 * block + 2 * scales + 3 * P, scratch=weights + 8 * P, flops=2 * 70 * block,
                 phases=backward),
        of_pairs("pixel matching, backward", f"compare_backward<float, {of_warp}>",
                 layer, numbers=block + 2 * scales + 4 * P + 1, scratch=5 * P, flops=4 * block,
                 phases=[rank, Phase(20 * block / WARP, steps=block / WARP * 4)]),
    ]  # fmt: skip
    if P <= WARP:
        works.insert(2, of_pairs(
            "pixel matching", "match<float, PixelMatchingArguments<float> >",
            layer, numbers=block + scales + 6 * P + 1, scratch=3 * P + numbers, flops=20 * block,
            phases=[assignment_of_warp(P), rank]))  # fmt: skip
    else:
        works.insert(2, of_pairs(
            "costs of pixel matching", "find_costs<float>", layer,
            numbers=2 * block + scales, scratch=0, flops=3 * block,
            phases=[Phase(block / WARP * 20, memory=block / threads / UNROLLED)]))  # fmt: skip
    return works


def assignments(n: int, count: int) -> Work:
    """Solve a batch of assignment problems, with the kernel that their size gets."""
    moved, flops = 4 * count * n * n + 8 * count * n, count * 4 * n * n
    if n <= WARP:
        copy = Phase(n * n / WARP * 10, memory=2, shared=1)
        solve = assignment_of_warp(n).repeated(1, 4)
        name, threads, per_block, shared = "solve_in_lanes<float, 4>", 128, 4, 4 * 4 * n * n
        phases = [copy.repeated(1, 4), solve]
    elif n <= 128:
        name, threads, per_block, shared = "solve_in_warps<float, 4>", 128, 4, 4 * 40 * n
        phases = [assignment_of_team(n, WARP)]
        phases = [p._replace(instructions=4 * p.instructions, doubles=4 * p.doubles) for p in phases]
    else:
        threads = min(512, max(128, -(-n // 4 // 32) * 32))
        name, per_block, shared = "solve_in_blocks<float>", 1, 40 * n
        phases = [assignment_of_team(n, threads)]
    title = f"{count} assignments of {n} x {n}"
    return Work(title, name, -(-count // per_block), threads, moved, flops, phases, shared)
