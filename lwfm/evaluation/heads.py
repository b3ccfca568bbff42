"""Variants of a network's head, and baselines, on the same maps and episodes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from lwfm.errors import UserError
from lwfm.evaluation.methods import BaselineOnMaps, HeadOnMaps
from lwfm.model import LWFM, ModelConfig, build_head
from lwfm.model.backbones import map_sizes
from lwfm.nn import LayerReduction  # noqa: TC001 - read by the command line
from lwfm.nn.baselines import BASELINES, Baseline, Centre, EasyFSL, LogisticRegression
from lwfm.nn.baselines.easyfsl_methods import EasyFSLName  # noqa: TC001 - read by the command line
from lwfm.nn.baselines.paired_positions import Pairing  # noqa: TC001 - read by the command line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lwfm.evaluation.methods import Method
    from lwfm.nn import LWFMHead

BaselineName = Literal[
    "class_means",
    "logistic_regression",
    "local_descriptors",
    "paired_positions",
    "feature_reconstruction",
    "earth_movers_distance",
    "easyfsl",
]


class HeadOptions(TypedDict, total=False):
    """Options of a variant of the head; the others are the network's (:class:`lwfm.model.ModelConfig`).

    With a ``baseline``, options of that: `layers`, one `feature_size`, and the parameters of its class in
    :mod:`lwfm.nn.baselines`.

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
    baseline : str
        class_means, logistic_regression, local_descriptors, paired_positions, feature_reconstruction,
        earth_movers_distance or easyfsl in place of a head.
    centre : str
        What is subtracted from positions: channels, the mean over the channels of each; task, then also the
        mean of the episode's support positions; episode, that of support images and queries. Of a
        baseline also none.
    regression_weight : float
        Weight of a ridge regression on mean and spread of each image's positions; 0 leaves it out.
    views : bool
        Whether further views of the support images (mirrored, enlarged) are learned from too: by the
        regression of a head, by a baseline as further shots.
    neighbors : int
        Of local_descriptors.
    pairing : str
        Of paired_positions: query, both or one_to_one.
    ridge : float
        Of feature_reconstruction.
    inverse_penalty : float
        Of logistic_regression.
    method : str
        Of easyfsl: the class of its method.
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
    baseline: BaselineName
    centre: Centre
    regression_weight: float
    views: bool
    neighbors: int
    pairing: Pairing
    ridge: float
    inverse_penalty: float
    method: EasyFSLName


_NEEDED = ((LogisticRegression, "sklearn", "report"), (EasyFSL, "easyfsl", "adapters"))
_OF_BASELINES = {field.name for each in BASELINES.values() for field in fields(each)}
_OF_HEADS = [name for name in HeadOptions.__annotations__ if name in ModelConfig.__dataclass_fields__]


@dataclass(frozen=True)
class HeadSet:
    """Heads, and a network that computes the maps for all of them.

    Attributes
    ----------
    encoder : LWFM
        Computes every layer that any head compares, at each feature size that one uses.
    own : HeadOnMaps
        Head of the network.
    others : dict of str to Method
        Variants and baselines by name.
    """

    encoder: LWFM
    own: HeadOnMaps
    others: dict[str, Method]

    @property
    def views(self) -> bool:
        """Whether any head needs further views of the images."""
        return any(method.views for method in self.others.values())


def make_heads(network: LWFM, options: Mapping[str, HeadOptions]) -> HeadSet:
    """Build variants of the head of ``network`` that share its backbone and its learned parameters.

    Baselines read the maps of the same backbone.

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
    >>> finer = {"layers": [2, 4], "feature_size": [4, 2], "embedding": False}
    >>> dn4 = {"baseline": "local_descriptors", "neighbors": 1}
    >>> heads = make_heads(network, {"finer": finer, "DN4": dn4})
    >>> heads.encoder.backbone.layers, heads.encoder.backbone.feature_size, heads.others["finer"].places
    ((2, 3, 4, 4), (4, 3, 2, 3), (0, 2))
    >>> heads.others["DN4"].baseline
    LocalDescriptors(centre='none', neighbors=1)
    """
    own = network.backbone
    read = {"": (own.layers, own.feature_size)}
    configs: dict[str, ModelConfig] = {}
    for name, each in options.items():
        configs[name] = _configure(network, name, each)
        layers = _layers(network, configs[name])
        read[name] = layers, map_sizes(configs[name].feature_size, len(layers))
    maps = sorted({each for layers, sizes in read.values() for each in zip(layers, sizes, strict=True)})
    encoder = _encoder(network, maps)
    places = {
        name: tuple(maps.index(each) for each in zip(layers, sizes, strict=True))
        for name, (layers, sizes) in read.items()
    }
    others: dict[str, Method] = {}
    for name, config in configs.items():
        if baseline := _baseline(name, options[name]):
            others[name] = BaselineOnMaps(baseline, places[name], name, views=_views(name, options[name]))
        else:
            head = _build(network, encoder, name, config)
            others[name] = HeadOnMaps(head, places[name], name, views=_views(name, options[name], head))
    return HeadSet(encoder, HeadOnMaps(network.head, places[""]), others)


def _views(name: str, options: HeadOptions, head: LWFMHead | None = None) -> bool:
    """Return whether a variant learns from views; UserError where it cannot, or for another value."""
    views = options.get("views", False)
    if not isinstance(views, bool):
        raise UserError(f"head {name}: views must be true or false, not {views!r}")
    if views and head is not None and head.regression_weight == 0:
        raise UserError(f"head {name}: only a regression learns from views: set regression_weight")
    return views


def _configure(network: LWFM, name: str, options: HeadOptions) -> ModelConfig:
    """Return the configuration of a variant; UserError for options that cannot work."""
    baseline = _baseline(name, options)
    known = _OF_HEADS if baseline is None else ["layers", "feature_size"]
    if baseline is None and (unknown := sorted(set(options) - {*known, "views"})):
        hint = " without a baseline" if unknown[0] in _OF_BASELINES else ""
        raise UserError(f"head {name}: unknown option {unknown[0]}{hint}; a head can set {', '.join(known)}")
    own = network.backbone.layers
    plain: dict[str, Any] = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in options.items()
        if option in known
    }
    if baseline is not None:
        plain["embedding"] = False  # it learns nothing
    config = replace(network.config, **plain)
    layers = _layers(network, config)
    if not layers or list(layers) != sorted(layers) or not 0 <= layers[0] <= layers[-1] <= own[-1]:
        raise UserError(
            f"head {name}: layers must ascend and end at most with the network's last, {own[-1]}, "
            f"not {list(layers)}"
        )
    try:
        sizes = map_sizes(config.feature_size, len(layers))
    except UserError as error:
        raise UserError(f"head {name}: {error}") from error
    if len(set(zip(layers, sizes, strict=True))) < len(layers):
        raise UserError(f"head {name}: layers are repeated only with another feature_size")
    if baseline is not None and len(set(sizes)) > 1:
        raise UserError(f"head {name}: a baseline compares layers of one feature_size, not {list(sizes)}")
    unlearned = [layer for layer in layers if layer not in own or not network.head.embeddings]
    if config.embedding and config.matching_weight > 0 and unlearned:
        raise UserError(
            f"head {name}: the network has no learned embedding of layer {unlearned[0]}: "
            "set embedding to false"
        )
    return config


def _baseline(name: str, options: HeadOptions) -> Baseline | None:
    """Build the baseline of an entry, if it is one; UserError for options that it does not have."""
    if "baseline" not in options:
        return None
    kind = BASELINES.get(str(options["baseline"]))
    if kind is None:
        raise UserError(f"head {name}: baseline must be one of {', '.join(BASELINES)}")
    of_kind = [field.name for field in fields(kind)]
    given: dict[str, Any] = {
        option: value
        for option, value in options.items()
        if option not in ("baseline", "layers", "feature_size", "views")
    }
    if unknown := sorted(set(given) - set(of_kind)):
        known = ", ".join(["layers", "feature_size", *of_kind])
        raise UserError(f"head {name}: {options['baseline']} has no option {unknown[0]}; it has {known}")
    for needing, module, extra in _NEEDED:
        if kind is needing and find_spec(module) is None:
            raise UserError(f"head {name}: {options['baseline']} needs {module}: pip install 'lwfm[{extra}]'")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise UserError(f"head {name}: {error}") from error


def _layers(network: LWFM, config: ModelConfig) -> tuple[int, ...]:
    return network.backbone.layers if config.layers is None else config.layers


def _encoder(network: LWFM, maps: Sequence[tuple[int, int]]) -> LWFM:
    """Return a network with the backbone of ``network`` and maps of these layers and sides.

    Each side is pooled from the layer's own map, so that no head's result depends on the others.
    """
    layers, sizes = zip(*maps, strict=True)
    if (layers, sizes) == (network.backbone.layers, network.backbone.feature_size):
        return network
    config = replace(  # without what its head would need of all of these maps
        network.config, layers=layers, feature_size=sizes, weights="none", embedding=False, top_k=1
    )
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
    if config.matching_weight > 0 and head.embeddings:
        # Of the same layer and side; of another side of the layer where there is none.
        learned = list(zip(own, network.backbone.feature_size, strict=True))
        maps = zip(layers, map_sizes(config.feature_size, len(layers)), strict=True)
        for embedding, each in zip(head.embeddings, maps, strict=True):
            place = learned.index(each) if each in learned else own.index(each[0])
            embedding.load_state_dict(network.head.embeddings[place].state_dict())
    return head.eval().to(next(network.parameters()).device)
