"""Inputs of the operators on features, shared by several tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lwfm.nn import ClassShots
from lwfm.ops._expressions import cosine_blocks

DIMS = (6, 5)
CPU = torch.device("cpu")


def leaf(
    *shape: int, device: torch.device = CPU, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values.to(device, dtype).requires_grad_()


def maps_in(layout: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return maps of 3 images as leaves: one tensor, or one per layer."""
    if layout == "per-layer":
        return [leaf(3, C_l, 2, 4, device=device, dtype=dtype, seed=C_l) for C_l in DIMS]
    one = leaf(3, sum(DIMS), 2, 4, device=device, dtype=dtype)
    if layout == "channels-last":
        one = one.detach().to(memory_format=torch.channels_last).requires_grad_()
    return [one]


def terms_inputs(
    device: torch.device, dtype: torch.dtype = torch.float64, C: int = 37
) -> tuple[list[Tensor], ClassShots]:
    labels = torch.tensor([1, 0, 2, 1, 1, 1], device=device)
    shapes = [(4, 6, 3), (4, 6, 3), (6, 3, C), (4, 3, C)]  # of a, b, s, q
    leaves = [leaf(*shape, device=device, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes)]
    return leaves, ClassShots(labels, 6)


def operators(gradient: bool, device: torch.device, dtype: torch.dtype) -> dict[Any, tuple[Any, ...]]:
    """Return each operator with arguments, and its backward with those of a forward pass."""
    maps = [x.detach() for x in maps_in("per-layer", device, dtype)]
    outputs = torch.ops.lwfm.centered_positions.default(maps, list(DIMS), True)
    s = leaf(3, 4, 5, device=device, dtype=dtype).detach()
    q = leaf(2, 6, 5, device=device, dtype=dtype, seed=1).detach()
    cosines = cosine_blocks(s, q)
    similarity, assignment, matched = torch.ops.lwfm.feature_matching.default(*cosines, s, q, 2)
    inputs, shots = terms_inputs(device, dtype)
    detached = [x.detach() for x in inputs]
    terms = torch.ops.lwfm.class_terms.default(*detached, shots.order, shots.begin)
    backward = {
        torch.ops.lwfm.centered_positions_backward.default: (outputs, outputs[:2], [2, 2], True),
        torch.ops.lwfm.feature_matching_backward.default: (similarity, s, q, assignment, matched, 2),
        torch.ops.lwfm.class_terms_backward.default: (*terms, *detached, shots.order, shots.begin),
    }
    if gradient:
        maps, (s, q), detached = ([x.clone().requires_grad_() for x in y] for y in (maps, (s, q), detached))
    return {
        torch.ops.lwfm.centered_positions.default: (maps, list(DIMS), True),
        torch.ops.lwfm.feature_matching.default: (*cosines, s, q, 2),
        torch.ops.lwfm.class_terms.default: (*detached, shots.order, shots.begin),
        **({} if gradient else backward),
    }
