"""The commands of ``lwfm``: the function of each, its line of help, and how its result is printed.

The functions are named, not imported, so that the list is there at once. Options, their types and defaults,
and their help come from the function's signature and docstring.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lwfm.cli.reports import print_on_first_process, print_pretraining, print_training

if TYPE_CHECKING:
    from collections.abc import Callable


class Positional(NamedTuple):
    """A positional argument that takes any number of values: nargs is ? or +, as in argparse."""

    name: str
    nargs: str
    type: Callable[[str], Any]
    help: str


class Command(NamedTuple):
    """A command: the function that does it, its line of help, and how its result is reported."""

    function: str
    summary: str
    report: Callable[[Any], None] = print
    last_argument: Positional | None = None
    """The last positional argument, where its number of values is not one."""
    short_options: tuple[str, ...] = ()
    """Parameters of one letter that are also options with one dash."""
    named_only: bool = False
    """Whether all arguments are named options, which a file and a preset can set."""
    optional_values: tuple[tuple[str, str], ...] = ()
    """Options whose value may be omitted, and the value that is taken then."""

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, name = self.function.split(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "lwfm.training.pretraining:pretrain",
        "pretrain a network from scratch, by ordinary classification, for lwfm train",
        print_pretraining,
        named_only=True,
    ),
    "train": Command(
        "lwfm.training.training:train", "train LWFM-SPM on a data set", print_training, named_only=True
    ),
    "evaluate": Command(
        "lwfm.evaluation.evaluation:evaluate",
        "measure few-shot accuracy on unseen classes",
        print_on_first_process,
        named_only=True,
    ),
    "experiment": Command(
        "lwfm.experiments.run:experiment",
        "train and evaluate every row of a table; resumes",
    ),
    "compare": Command(
        "lwfm.evaluation.comparison:compare",
        "test whether two results on the same episodes differ",
    ),
    "data": Command(
        "lwfm.data.inspection:inspect_data",
        "show which data set a folder holds and what is wrong with it",
    ),
    "classify": Command(
        "lwfm.classifier.command:classify",
        "name the class of your own images from a few examples of each class",
        last_argument=Positional("queries", "+", Path, "Images to classify, and folders of such images."),
    ),
    "app": Command(
        "lwfm.app.command:app", "teach a classifier in the browser and try it, on a page of this machine"
    ),
    "import": Command(
        "lwfm.model.import_published:import_checkpoint",
        "turn a checkpoint of the published code into a model file",
    ),
    "export": Command(
        "lwfm.classifier.export:export", "write a network as an ONNX file, for programs without torch"
    ),
    "index": Command(
        "lwfm.retrieval.index:build_index", "index the images of a folder, to search among them"
    ),
    "search": Command(
        "lwfm.retrieval.search:search_index",
        "find the indexed images that are most similar to one",
        short_options=("k",),
        optional_values=(("show", "similar.png"),),
    ),
    "report": Command("lwfm.report.page:report", "show a result of evaluate as one HTML page, with images"),
    "match": Command("lwfm.figures.matches:match", "draw how two images match, position by position"),
    "demo": Command(
        "lwfm.cli.demo:demo", "show on the bundled images what the method does, in about a minute"
    ),
    "presets": Command(
        "lwfm.cli.presets:presets",
        "list the configurations that the package brings, or print one",
        last_argument=Positional("name", "?", str, "The preset to print; by default all are listed."),
    ),
    "metric list": Command(
        "lwfm.metric.command:list_systems", "list the systems of deep metric learning and the data they read"
    ),
    "metric evaluate": Command(
        "lwfm.metric.command:evaluate_system", "measure such a system beside its baselines and ablations"
    ),
    "metric fit": Command("lwfm.metric.command:fit_system", "fit such a system on labeled data"),
    "metric predict": Command(
        "lwfm.metric.command:predict_with",
        "apply a fitted system to data without labels",
        last_argument=Positional("inputs", "+", Path, "The data, of the kind that the system reads."),
    ),
    "bench assignment": Command(
        "lwfm.bench.command:bench_assignment", "time the assignment solver beside others"
    ),
    "bench transport": Command(
        "lwfm.bench.command:bench_transport", "time the transport solver beside POT's"
    ),
    "bench matching": Command(
        "lwfm.bench.command:bench_matching", "time the head beside its own matrix products"
    ),
    "info": Command("lwfm.cli.info:info", "show version, build, threads: what to put into a bug report"),
}
