"""Baselines: each equals its definition, image by image and position by position."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import lwfm.reference
from lwfm.nn import global_features, nearest_class_mean
from lwfm.nn.baselines import (
    BASELINES,
    ClassMeans,
    EarthMoversDistance,
    EasyFSL,
    FeatureReconstruction,
    LocalDescriptors,
    LogisticRegression,
    PairedPositions,
    centered,
)
from lwfm.nn.baselines.easyfsl_methods import EasyFSLName

if TYPE_CHECKING:
    from lwfm.nn.baselines import Centre
    from lwfm.nn.baselines.paired_positions import Pairing

LABELS = [1, 0, 2, 1, 1]
WAY = 3
CENTRES = ["none", "channels", "task", "episode"]


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def episode(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(len(LABELS), 4, 6, dtype=request.param), torch.rand(3, 4, 6, dtype=request.param)


def of_class(support: Tensor, label: int) -> Tensor:
    return support[[n for n, each in enumerate(LABELS) if each == label]]


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def check(actual: Tensor, expected: Any, like: Tensor) -> None:
    assert actual.dtype == like.dtype
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=like.dtype), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("centre", CENTRES)
def test_centers(episode: tuple[Tensor, Tensor], centre: Centre) -> None:
    support, query = episode
    s, q = centered(support, query, centre)
    if centre == "none":
        assert s is support
        assert q is query
        return
    channels = torch.cat([support, query])
    channels = channels - channels.mean(-1, keepdim=True)
    counted = {"channels": 0, "task": len(support), "episode": len(channels)}[centre]
    mean = channels[:counted].flatten(0, 1).mean(0) if counted else torch.zeros_like(channels[0, 0])
    torch.testing.assert_close(torch.cat([s, q]), channels - mean)


def test_class_means(episode: tuple[Tensor, Tensor]) -> None:
    support, query = episode
    maps = [x.transpose(1, 2).reshape(len(x), 6, 2, 2) for x in episode]
    torch.testing.assert_close(
        ClassMeans()(support, LABELS, query), nearest_class_mean([maps[0]], LABELS, [maps[1]])
    )
    s, q = centered(support, query, "task")
    expected = [
        [
            cosine(row, of_class(torch.nn.functional.normalize(s.mean(1), dim=-1), c).mean(0))
            for c in range(WAY)
        ]
        for row in q.mean(1)
    ]
    check(ClassMeans(centre="task")(support, LABELS, query), expected, support)
    assert global_features([maps[0]]).shape == (len(LABELS), 6)


@pytest.mark.parametrize("neighbors", [1, 3, 100])
def test_local_descriptors(episode: tuple[Tensor, Tensor], neighbors: int) -> None:
    support, query = episode
    expected = [
        [
            np.mean(
                [
                    np.mean(sorted(cosine(x, y) for y in of_class(support, c).flatten(0, 1))[-neighbors:])
                    for x in image
                ]
            )
            for c in range(WAY)
        ]
        for image in query
    ]
    check(LocalDescriptors(neighbors=neighbors)(support, LABELS, query), expected, support)


@pytest.mark.parametrize("pairing", ["query", "both", "one_to_one"])
def test_paired_positions(episode: tuple[Tensor, Tensor], pairing: Pairing) -> None:
    def similarity(x: Tensor, y: Tensor) -> float:
        cosines = np.array([[cosine(one, other) for other in y] for one in x])
        if pairing == "one_to_one":
            return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
        nearest = cosines.max(1).mean()
        return float(nearest if pairing == "query" else (nearest + cosines.max(0).mean()) / 2)

    support, query = episode
    expected = [
        [np.mean([similarity(x, y) for y in of_class(support, c)]) for c in range(WAY)] for x in query
    ]
    check(PairedPositions(pairing=pairing)(support, LABELS, query), expected, support)


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_feature_reconstruction(episode: tuple[Tensor, Tensor], ridge: float) -> None:
    support, query = (x.double().numpy() for x in episode)
    scale = np.sqrt((support**2).mean())
    expected = []
    for image, c in itertools.product(query / scale, range(WAY)):
        rows = of_class(torch.from_numpy(support / scale), c).flatten(0, 1).numpy()
        penalty = np.sqrt(ridge * len(rows) / 6) * np.eye(len(rows))  # ridge regression as least squares
        stacked = np.concatenate([rows.T, penalty])
        weights = np.linalg.lstsq(stacked, np.concatenate([image.T, np.zeros((len(rows), 4))]), rcond=None)[0]
        expected.append(-((weights.T @ rows - image) ** 2).mean())
    actual = FeatureReconstruction(ridge=ridge)(episode[0], LABELS, episode[1])
    check(actual, np.reshape(expected, (3, WAY)), episode[0])


def test_logistic_regression_finds_separable_classes() -> None:
    torch.manual_seed(0)
    means = torch.randn(WAY, 1, 6)
    support = means[LABELS] + 0.05 * torch.randn(len(LABELS), 4, 6)
    query = means[[2, 0, 1]] + 0.05 * torch.randn(3, 4, 6)
    scores = LogisticRegression(inverse_penalty=10.0)(support, LABELS, query)
    assert scores.argmax(1).tolist() == [2, 0, 1]
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    assert LogisticRegression()(support, [0] * 5, query).tolist() == [[0.0]] * 3


def test_earth_movers_distance(episode: tuple[Tensor, Tensor]) -> None:
    def weights(x: Tensor, other: Tensor) -> Tensor:
        products = (x @ other.mean(0)).clamp_min(0)
        products = products + (1e-3 * products.max()).clamp_min(1e-30)  # alike where none is positive
        return products / products.sum()

    def similarity(x: Tensor, y: Tensor) -> float:
        cosines = torch.tensor([[cosine(one, other) for other in y] for one in x], dtype=torch.float64)
        plan = lwfm.reference.optimal_transport(1 - cosines, weights(x, y).double(), weights(y, x).double())
        return float((plan * cosines).sum())

    support, query = centered(*episode, "channels")
    expected = [
        [np.mean([similarity(x, y) for y in of_class(support, c)]) for c in range(WAY)] for x in query
    ]
    check(EarthMoversDistance(centre="channels")(episode[0], LABELS, episode[1]), expected, support)


@pytest.mark.parametrize("method", get_args(EasyFSLName))
@pytest.mark.parametrize("inference", [True, False], ids=["inference-mode", "no-mode"])
def test_easyfsl_finds_separable_classes(method: EasyFSLName, inference: bool) -> None:
    torch.manual_seed(0)
    means = torch.rand(WAY, 1, 6)
    support = means[LABELS] + 0.01 * torch.rand(len(LABELS), 4, 6)
    query = means[[2, 0, 1, 1, 0, 2]] + 0.01 * torch.rand(6, 4, 6)
    with torch.inference_mode(inference):
        scores = EasyFSL(method=method)(support, LABELS, query)
    assert scores.shape == (6, WAY)
    assert scores.argmax(1).tolist() == [2, 0, 1, 1, 0, 2]


@pytest.mark.parametrize("name", BASELINES)
def test_queries_and_order_of_the_support_images_do_not_matter(
    name: str, episode: tuple[Tensor, Tensor]
) -> None:
    support, query = episode
    baseline = BASELINES[name](centre="task")
    scores = baseline(support, LABELS, query)
    assert baseline(support, LABELS, query[:0]).shape == (0, WAY)
    order = torch.randperm(len(LABELS), generator=torch.manual_seed(1))
    shuffled = baseline(support[order], [LABELS[n] for n in order], query[1:])
    torch.testing.assert_close(shuffled, scores[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_floating_dtype_is_scored(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    support, query = torch.rand(4, 4, 6).to(dtype), torch.rand(5, 4, 6).to(dtype)
    scores = BASELINES[name]()(support, [0, 1, 0, 1], query)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert scores.isfinite().all()


def test_too_few_queries_are_named() -> None:
    with pytest.raises(ValueError, match="LaplacianShot cannot score 1 queries"):
        EasyFSL(method="LaplacianShot")(torch.rand(4, 4, 6), [0, 1, 0, 1], torch.rand(1, 4, 6))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("support", "query", "message"),
    [
        (torch.rand(2, 4), torch.rand(1, 4, 6), r"support must be floating positions .*got \[2, 4\]"),
        (torch.rand(2, 4, 6), torch.ones(1, 4, 6).long(), "query must be floating positions"),
        (torch.rand(2, 4, 6), torch.rand(1, 3, 6), "the same positions, channels and dtype"),
        (torch.rand(2, 4, 6), torch.rand(1, 4, 6).double(), "the same positions, channels and dtype"),
        (torch.rand(3, 4, 6), torch.rand(1, 4, 6), "3 support images need as many labels, got 2"),
    ],
    ids=["shape", "integers", "positions", "dtype", "labels"],
)
def test_wrong_episodes_are_refused(name: str, support: Tensor, query: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BASELINES[name]()(support, [0, 1], query)


@pytest.mark.parametrize(
    ("baseline", "options"),
    [
        (ClassMeans, {"centre": "middle"}),
        (LocalDescriptors, {"neighbors": 0}),
        (LocalDescriptors, {"neighbors": 2.5}),
        (PairedPositions, {"pairing": "none"}),
        (FeatureReconstruction, {"ridge": 0.0}),
        (FeatureReconstruction, {"ridge": "2"}),
        (LogisticRegression, {"inverse_penalty": float("nan")}),
        (EasyFSL, {"method": "FEAT"}),
    ],
)
def test_wrong_options_are_refused(baseline: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        baseline(**options)
