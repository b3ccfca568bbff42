"""`lwfm app`: options are checked before the page is started, and what it starts from is learned."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from lwfm import FewShotClassifier
from lwfm.app.command import HOST, add_folder, serve
from lwfm.cli import main
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.app import Session


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unknown_below", "2"], "unknown_below must be a number from 0 to 1"),
        (["--port", "70000"], "port must be a number from 1 to 65535"),
        (
            ["--classifier", "c.safetensors", "--support", "s"],
            "a classifier has its own examples and network",
        ),
        (["--classifier", "c.safetensors", "--model", "resnet18"], "its own examples and network"),
        (["--classifier", "missing.safetensors"], "there is no file missing.safetensors"),
        (["--model", "missing.safetensors"], "no model file missing.safetensors"),
    ],
    ids=["unknown-below", "port", "two-starts", "two-networks", "no-classifier", "no-model"],
)
def test_bad_options_are_named(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_examples_is_learned(
    empty: Session, by_class: dict[str, list[Path]], tmp_path: Path
) -> None:
    for name in ("class-0", "class-1"):
        (tmp_path / "examples" / name).mkdir(parents=True)
        for path in by_class[name][:3]:
            shutil.copy(path, tmp_path / "examples" / name)
    add_folder(empty, tmp_path / "examples")
    paths = [path for name in ("class-0", "class-1") for path in by_class[name][:3]]
    labels = [path.parent.name for path in paths]
    queries = by_class["class-0"][3:] + by_class["class-1"][3:]
    fitted = FewShotClassifier(empty.network, progress=False).fit(paths, labels)
    assert empty.classifier.predict(queries).tolist() == fitted.predict(queries).tolist()


def test_a_port_in_use_is_named(empty: Session) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"port {port} is used by another program"),
            serve(empty, port=port),
        ):
            pass


def test_the_page_is_reached_from_this_machine_alone(empty: Session) -> None:
    pytest.importorskip("gradio")
    with serve(empty) as address:
        assert address.startswith(f"http://{HOST}:")
        port = int(address.rstrip("/").rpartition(":")[2])
        found = socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)
        for other in {str(each[4][0]) for each in found}:
            with socket.socket() as client:
                assert other.startswith("127.") or client.connect_ex((other, port)) != 0
