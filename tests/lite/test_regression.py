"""The regression on arrays: equal to the head's, with more images than statistics or fewer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lwfm.lite.encoded import encode_maps
from lwfm.lite.regression import regression_scores
from lwfm.nn import ClassLists, LWFMHead
from lwfm.nn import regression as of_torch


@pytest.mark.parametrize("shots", [3, 20], ids=["of-images", "of-statistics"])
@pytest.mark.parametrize("dims", [(6, 4), (8,)], ids=["two-layers", "one-layer"])
def test_equals_the_head_s(shots: int, dims: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    labels = [0, 1, 2, 2] * shots
    maps = [torch.rand(len(labels) + 5, C, 3, 3) for C in dims]
    images = LWFMHead(dims, feature_size=3, embedding=False).encode(maps)
    expected = of_torch.regression_scores(images, ClassLists(labels), None, "task")
    arrays = encode_maps([x.numpy() for x in maps], together=True)
    support, query = arrays[: len(labels)], arrays[len(labels) :]
    scores = regression_scores(support, np.array(labels), query)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-5)
