"""Inputs of the operators on features, shared by several tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lwfm.nn import ClassLists
from lwfm.ops._expressions import cosine_blocks

DIMS = (6, 5)
CPU = torch.device("cpu")


def leaf(
    *shape: int, device: torch.device = CPU, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values.to(device, dtype).requires_grad_()


def detached(arguments: Any) -> Any:
    """Return arguments whose tensors, in lists too, are copies that need no gradient."""
    return with_gradients(arguments, of=False)


def with_gradients(arguments: Any, *, of: bool = True) -> Any:
    """Return arguments whose floating tensors, in lists too, are copies that need gradients."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(with_gradients(x, of=of) for x in arguments)
    if isinstance(arguments, Tensor) and arguments.is_floating_point():
        return arguments.detach().clone().requires_grad_(of)
    return arguments


def encoding_arguments(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    """Arguments of ``lwfm::encode_maps``: two batches, two layers of their own resolution, an embedding."""
    maps = [
        leaf(n, C_l, F_l, F_l, device=device, dtype=dtype, seed=n * C_l)
        for n in (3, 4)
        for C_l, F_l in zip(DIMS, (2, 3), strict=True)
    ]
    shapes = [shape for C_l in DIMS for shape in ((C_l // 2, C_l), (C_l, C_l // 2))]
    weights = [leaf(*shape, device=device, dtype=dtype, seed=k) for k, shape in enumerate(shapes)]
    arguments: tuple[Any, ...] = detached((maps, list(DIMS), False, False, weights, True))
    return arguments


def episode_arguments(device: torch.device, dtype: torch.dtype, *, listed: bool = True) -> tuple[Any, ...]:
    """Arguments of ``lwfm::episodes`` on the images of :func:`encoding_arguments`."""
    outputs = torch.ops.lwfm.encode_maps.default(*encoding_arguments(device, dtype))
    encoded = [[x.detach() for x in outputs[2 * k : 2 * k + 2]] for k in range(5)]
    classes = ClassLists([1, 0, 1], device=device)
    lists = [torch.tensor(x, device=device) for x in ([[0, 1, 6], [2, 2, 5]], [[3, 4], [5, 1]])]
    options = (2.0, 2, False, False, True, True)
    return (*encoded, *(lists if listed else (None, None)), classes.order, classes.begin, *options)


def operators(gradient: bool, device: torch.device, dtype: torch.dtype) -> dict[Any, tuple[Any, ...]]:
    """Return each operator with arguments, and its backward with those of a forward pass."""
    ops = torch.ops.lwfm
    s = leaf(3, 4, 5, device=device, dtype=dtype).detach()
    q = leaf(2, 6, 5, device=device, dtype=dtype, seed=1).detach()
    cosines = cosine_blocks(s, q)
    matched = ops.feature_matching.default(*cosines, s, q, 2)
    maps, dims, joined, together, weights, _ = encoding = encoding_arguments(device, dtype)
    encoded, episodes = ops.encode_maps.default(*encoding), episode_arguments(device, dtype)
    compared = ops.episodes.default(*episodes)
    L = len(dims)
    positions = encoded[:L]
    heights = [x.shape[2] for x in maps[:L]]
    backward = {
        ops.feature_matching_backward.default: (matched[0], s, q, *matched[1:], 2),
        ops.encode_maps_backward.default: (
            [*positions, *positions], positions, weights, encoded[5 * L : 6 * L], encoded[6 * L :], [3, 4],
            heights, joined, together,
        ),
        ops.episodes_backward.default: (compared[:3], *episodes[:9], compared[3:], *episodes[9:-1]),
    }  # fmt: skip
    forward = {
        ops.feature_matching.default: (*cosines, s, q, 2),
        ops.semantic_pixel_matching.default: (s, q, s.clone(), q.clone(), 2),
        ops.encode_maps.default: encoding,
        ops.episodes.default: episodes,
    }
    if not gradient:
        return {**forward, **backward}
    return {
        ops.feature_matching.default: (*cosines, *with_gradients((s, q)), 2),
        ops.semantic_pixel_matching.default: (s, q, *with_gradients((s, q)), 2),
        ops.encode_maps.default: with_gradients(encoding),
        ops.episodes.default: (
            with_gradients(episodes[0]), *episodes[1:3], with_gradients(episodes[3]), *episodes[4:]
        ),
    }  # fmt: skip
