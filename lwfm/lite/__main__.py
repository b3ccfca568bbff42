"""``python -m lwfm.lite``: `lwfm classify` without torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm.classifier.answers import Answers, check_suffix
from lwfm.classifier.image_files import find_examples
from lwfm.data.layouts.folders import find_images
from lwfm.errors import UserError
from lwfm.lite.classifier import FewShotClassifier

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lwfm.lite",
        description="Name the class of images from a folder of examples for each class, without torch.",
        epilog="The network is written on any machine with torch: lwfm export auto --out model.onnx",
    )
    support = (
        "a folder that holds a folder of examples for each class, named as the class; or a classifier that "
        "FewShotClassifier.save wrote"
    )
    below = "answer unknown where the most probable class has a lower probability, 0 to 1"
    queries = "images to classify, and folders of such images"
    views = (
        "learn from seven further views of each example too, mirrored and enlarged: for heads with a "
        "regression, as that of auto; by default true. Turn it off where sides or places tell the classes "
        "apart"
    )
    parser.add_argument("support", type=Path, help=support)
    parser.add_argument("queries", type=Path, nargs="+", help=queries)
    parser.add_argument("--model", type=Path, required=True, help="the network, a file of lwfm export")
    parser.add_argument("--unknown_below", type=float, metavar="P", help=below)
    parser.add_argument("--unknown_label", metavar="NAME", help="what to answer then")
    parser.add_argument("--views", choices=("true", "false"), help=views)
    parser.add_argument("--out", type=Path, help="write the answers to this .csv or .json file as well")
    parser.add_argument("--threads", type=int, help="by default one for each processor")
    return parser.parse_args(arguments)


def classify(options: argparse.Namespace) -> Answers:
    """Classify what the command line names."""
    check_suffix(options.out)
    settings = {name: getattr(options, name) for name in ("unknown_below", "unknown_label")}
    given = {name: value for name, value in settings.items() if value is not None}
    images = find_images(options.queries)
    if options.support.is_file():
        if options.views is not None:
            raise UserError(f"--views is for a folder of examples, and {options.support} is a classifier")
        classifier = FewShotClassifier.load(options.support, options.model, threads=options.threads)
        classifier.set_params(**given)
    else:
        examples = find_examples(options.support, "stop")
        views = options.views != "false"
        classifier = FewShotClassifier(options.model, threads=options.threads, views=views, **given)
        classifier.fit(examples, [path.parent.name for path in examples])
    return Answers(
        tuple(images),
        tuple(classifier.decide(images)),
        classifier.network_.name,
        len(classifier.examples_.names),
        classifier.calibrated_on_,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 2 the user's mistake."""
    options = parse(arguments)
    try:
        answers = classify(options)
        print(answers)
        if options.out is not None:
            answers.write(options.out)
    except UserError as error:
        print(f"lwfm: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
