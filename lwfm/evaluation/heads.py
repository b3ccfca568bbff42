"""Variants of a network's head, with other options, on the same maps and episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from lwfm.errors import UserError
from lwfm.evaluation.methods import HeadOnMaps
from lwfm.model import LWFM, ModelConfig, build_head
from lwfm.model.backbones import map_sizes
from lwfm.nn import LayerReduction  # noqa: TC001 - read by the command line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lwfm.nn import LWFMHead


class HeadOptions(TypedDict, total=False):
    """Options of a variant of the head; the others are the network's (:class:`lwfm.model.ModelConfig`).

    Attributes
    ----------
    layers : list of int
        Layers to compare: any of the backbone, up to the network's last. Layers that the network was not
        trained to compare have no learned embedding.
    feature_size : int or list of int
        Side F of its maps.
    embedding : bool
        Whether matched positions are compared after the learned embedding.
    matching_weight : float
        Weight of the matching term; 0 leaves it out.
    attention_temperature : float, optional
        Of layer-wise embedding; null leaves it out.
    temperature : float
        Divides the similarities.
    top_k : int, optional
        Matched pairs averaged; null for all.
    layer_reduction : str
        max or mean over the layers' matched similarities.
    merge_shots : bool
        Whether a query is matched with all shots of a class at once.
    """

    layers: list[int]
    feature_size: int | list[int]
    embedding: bool
    matching_weight: float
    attention_temperature: float | None
    temperature: float
    top_k: int | None
    layer_reduction: LayerReduction
    merge_shots: bool


@dataclass(frozen=True)
class HeadSet:
    """Heads, and a network that computes the maps for all of them.

    Attributes
    ----------
    encoder : LWFM
        Computes every layer that any head compares, at the largest feature size that any head uses.
    own : HeadOnMaps
        Head of the network.
    others : dict of str to HeadOnMaps
        Variants by name.
    """

    encoder: LWFM
    own: HeadOnMaps
    others: dict[str, HeadOnMaps]


def make_heads(network: LWFM, options: Mapping[str, HeadOptions]) -> HeadSet:
    """Build variants of the head of ``network`` that share its backbone and its learned parameters.

    Parameters
    ----------
    network : LWFM
        In evaluation mode; left unchanged.
    options : dict of str to HeadOptions
        Name of each variant, and the options that differ.

    Raises
    ------
    UserError
        For impossible options (naming the variant), or a layer after the network's last.

    Examples
    --------
    >>> network = LWFM(ModelConfig(backbone="conv4", image_size=32)).eval()
    >>> heads = make_heads(network, {"finer": {"layers": [2, 4], "feature_size": [4, 2], "embedding": False}})
    >>> heads.encoder.backbone.layers, heads.encoder.backbone.feature_size, heads.others["finer"].places
    ((2, 3, 4), (4, 3, 3), (0, 2))
    """
    own = network.backbone
    read = {"": (own.layers, own.feature_size)}
    configs: dict[str, ModelConfig] = {}
    for name, each in options.items():
        configs[name] = _configure(network, name, each)
        layers = _layers(network, configs[name])
        read[name] = layers, map_sizes(configs[name].feature_size, len(layers))
    finest: dict[int, int] = {}
    for layers, sizes in read.values():
        for layer, size in zip(layers, sizes, strict=True):
            finest[layer] = max(size, finest.get(layer, 1))
    encoder = _encoder(network, dict(sorted(finest.items())))
    places = {
        name: tuple(encoder.backbone.layers.index(layer) for layer in layers)
        for name, (layers, _) in read.items()
    }
    others = {
        name: HeadOnMaps(_build(network, encoder, name, config), places[name], read[name][1], name)
        for name, config in configs.items()
    }
    return HeadSet(encoder, HeadOnMaps(network.head, places[""], own.feature_size), others)


def _configure(network: LWFM, name: str, options: HeadOptions) -> ModelConfig:
    """Return the configuration of a variant; UserError for options that cannot work."""
    known = HeadOptions.__annotations__
    if unknown := sorted(set(options) - set(known)):
        raise UserError(f"head {name}: unknown option {unknown[0]}; a head can set {', '.join(known)}")
    own = network.backbone.layers
    plain: dict[str, Any] = {
        option: tuple(value) if isinstance(value, list) else value for option, value in options.items()
    }
    config = replace(network.config, **plain)
    layers = _layers(network, config)
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] <= own[-1]:
        raise UserError(
            f"head {name}: layers must ascend and end at most with the network's last, {own[-1]}, "
            f"not {list(layers)}"
        )
    try:
        map_sizes(config.feature_size, len(layers))
    except UserError as error:
        raise UserError(f"head {name}: {error}") from error
    unlearned = [layer for layer in layers if layer not in own or not network.head.embeddings]
    if config.embedding and config.matching_weight > 0 and unlearned:
        raise UserError(
            f"head {name}: the network has no learned embedding of layer {unlearned[0]}: "
            "set embedding to false"
        )
    return config


def _layers(network: LWFM, config: ModelConfig) -> tuple[int, ...]:
    return network.backbone.layers if config.layers is None else config.layers


def _encoder(network: LWFM, finest: Mapping[int, int]) -> LWFM:
    """Return a network with the backbone of ``network`` and maps of these layers and sides."""
    layers, sizes = tuple(finest), tuple(finest.values())
    if (layers, sizes) == (network.backbone.layers, network.backbone.feature_size):
        return network
    config = replace(network.config, layers=layers, feature_size=sizes, weights="none")
    encoder = LWFM(config, normalization=network.normalization)
    encoder.backbone.load_state_dict(network.backbone.state_dict())  # both end at the same layer
    return encoder.eval().to(next(network.parameters()).device)


def _build(network: LWFM, encoder: LWFM, name: str, config: ModelConfig) -> LWFMHead:
    """Build the head of a variant with the learned embeddings."""
    own = network.backbone.layers
    layers = _layers(network, config)
    dims = dict(zip(encoder.backbone.layers, encoder.backbone.layer_dims, strict=True))
    try:
        head = build_head(config, [dims[layer] for layer in layers])
    except ValueError as error:
        raise UserError(f"head {name}: {error}") from error
    if config.matching_weight > 0:
        for embedding, layer in zip(head.embeddings, layers, strict=False):  # none where embedding is off
            embedding.load_state_dict(network.head.embeddings[own.index(layer)].state_dict())
    return head.eval().to(next(network.parameters()).device)
