"""Modules: the LWFM-SPM head and its parts, ready to stand behind any backbone."""

from __future__ import annotations

from lwfm.nn.baseline import global_features, nearest_class_mean
from lwfm.nn.embedding import PixelEmbedding
from lwfm.nn.head import EpisodeSimilarities, LayerReduction, LWFMHead, SemanticPixelMatching

__all__ = [
    "EpisodeSimilarities",
    "LWFMHead",
    "LayerReduction",
    "PixelEmbedding",
    "SemanticPixelMatching",
    "global_features",
    "nearest_class_mean",
]
