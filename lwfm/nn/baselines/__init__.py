"""Baselines: other ways to compare the same maps, one file each, for `lwfm evaluate --heads` and for code."""

from __future__ import annotations

from lwfm.nn.baselines.baseline import Baseline, Centre, centered
from lwfm.nn.baselines.class_means import ClassMeans, global_features, nearest_class_mean
from lwfm.nn.baselines.earth_movers_distance import EarthMoversDistance
from lwfm.nn.baselines.easyfsl_methods import EasyFSL
from lwfm.nn.baselines.feature_reconstruction import FeatureReconstruction
from lwfm.nn.baselines.local_descriptors import LocalDescriptors
from lwfm.nn.baselines.logistic_regression import LogisticRegression
from lwfm.nn.baselines.paired_positions import PairedPositions

BASELINES: dict[str, type[Baseline]] = {
    "class_means": ClassMeans,
    "logistic_regression": LogisticRegression,
    "local_descriptors": LocalDescriptors,
    "paired_positions": PairedPositions,
    "feature_reconstruction": FeatureReconstruction,
    "earth_movers_distance": EarthMoversDistance,
    "easyfsl": EasyFSL,
}
"""Baselines by the names that `lwfm evaluate --heads` takes."""

__all__ = [
    "BASELINES",
    "Baseline",
    "Centre",
    "ClassMeans",
    "EarthMoversDistance",
    "EasyFSL",
    "FeatureReconstruction",
    "LocalDescriptors",
    "LogisticRegression",
    "PairedPositions",
    "centered",
    "global_features",
    "nearest_class_mean",
]
