"""Modules: the LWFM-SPM head and its parts, for any backbone."""

from __future__ import annotations

from lwfm.nn.baselines import global_features, nearest_class_mean
from lwfm.nn.embedding import PixelEmbedding
from lwfm.nn.graphed import GraphedHead, graphed
from lwfm.nn.head import EpisodeSimilarities, LayerReduction, LWFMHead
from lwfm.nn.matching import SemanticPixelMatching
from lwfm.nn.task_centering import HeadCentre
from lwfm.ops.class_lists import ClassLists
from lwfm.ops.encode_maps import EncodedMaps

__all__ = [
    "ClassLists",
    "EncodedMaps",
    "EpisodeSimilarities",
    "GraphedHead",
    "HeadCentre",
    "LWFMHead",
    "LayerReduction",
    "PixelEmbedding",
    "SemanticPixelMatching",
    "global_features",
    "graphed",
    "nearest_class_mean",
]
