"""The JavaScript of examples/onnx encodes images in a browser as ONNX Runtime does here."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lwfm.model import LWFM, ModelConfig
from lwfm.model.onnx_export import export_network
from lwfm.model.onnx_session import OnnxNetwork
from tests.helpers.browser import headless_browser, needs_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parent.parent
SIDE = 32
PAGE = """<!doctype html><body>
<script type="importmap">{"imports": {"onnxruntime-web/wasm": "./ort/ort.wasm.bundle.min.mjs"}}</script>
<script type="module">
import { encode } from "./encode.mjs";
const images = await (await fetch("./images.json")).json();
const canvases = images.map((pixels) => {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const data = new ImageData(SIDE, SIDE);
  pixels.forEach((value, i) => { data.data[4 * Math.floor(i / 3) + (i % 3)] = value; });
  for (let i = 3; i < data.data.length; i += 4) data.data[i] = 255;
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
});
let found;
try {
  const outputs = await encode("./model.onnx", canvases, SIDE);
  found = Object.fromEntries(Object.entries(outputs).map(([name, x]) => [name, [x.dims, [...x.data]]]));
} catch (error) {
  found = { error: String(error) };
}
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script>""".replace("SIDE", str(SIDE))


def onnxruntime_web() -> Path | None:
    """Find the npm package among those that are installed globally or in NODE_PATH."""
    folders = list(filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    if npm := shutil.which("npm"):
        root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False)
        folders.append(root.stdout.strip())
    found = (Path(folder) / "onnxruntime-web" / "dist" for folder in folders)
    return next((folder for folder in found if folder.is_dir()), None)


WEB_RUNTIME = onnxruntime_web() or Path("onnxruntime-web")
needs_web_runtime = pytest.mark.skipif(
    not WEB_RUNTIME.is_dir(), reason="needs the npm package: npm install -g onnxruntime-web"
)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files, modules of JavaScript and WebAssembly as what they are, without a log."""

    extensions_map = {  # noqa: RUF012 - the name and kind are the library's
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Drop the message."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The folder of the test, on a port of this machine."""
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@needs_browser
@needs_web_runtime
def test_a_browser_computes_the_same_outputs(tmp_path: Path, address: str) -> None:
    torch.manual_seed(0)
    network = LWFM(ModelConfig(backbone="conv4", image_size=SIDE)).eval()
    export_network(network, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    (tmp_path / "images.json").write_text(json.dumps(images.reshape(3, -1).tolist()))
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "ort").symlink_to(WEB_RUNTIME)
    shutil.copy(ROOT / "examples/onnx/encode.mjs", tmp_path)
    exported = OnnxNetwork(tmp_path / "model.onnx")
    expected = dict(zip(exported.outputs, exported(torch.from_numpy(images), exported.outputs), strict=True))
    with headless_browser(size=(400, 300)) as browser:
        browser.get(f"{address}/page.html")
        support = pytest.importorskip("selenium.webdriver.support.ui")
        element = support.WebDriverWait(browser, 60).until(
            lambda page: page.find_element("id", "result"), "the page shows no result"
        )
        found = json.loads(element.get_attribute("textContent"))
    assert "error" not in found, found["error"]
    assert found.keys() == expected.keys()
    for name, (shape, values) in found.items():
        torch.testing.assert_close(
            torch.tensor(values).reshape(shape), expected[name], rtol=1e-4, atol=1e-5, msg=name
        )
