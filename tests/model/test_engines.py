"""Engines: equal maps, the choice of `auto`, the cache of exported networks and what may be wrong with it."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch

from lwfm._common.devices import torch_threads
from lwfm.data.decode_ahead import WAITING_BATCHES
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig
from lwfm.model import engines as module
from lwfm.model.engines import Encoder, exported_path, open_exported
from lwfm.model.onnx_session import OnnxNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = Normalization(mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))
needs_runtime = pytest.mark.skipif(not module.has_exporter(), reason="needs the extra lwfm[fast]")


@pytest.fixture(scope="module")
def network() -> LWFM:
    torch.manual_seed(0)
    return LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1, embedding=False)).eval()


@pytest.fixture(scope="module")
def exported(network: LWFM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's file, as it would be in the cache."""
    path: Path = tmp_path_factory.mktemp("exported") / "network.onnx"
    open_exported(network, OWN, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("LWFM_CACHE", str(tmp_path))
    return tmp_path / "onnx"


@pytest.fixture
def filled(network: LWFM, exported: Path, cache: Path) -> Path:
    """The network's file in the cache."""
    cache.mkdir()
    path = exported_path(network, OWN)
    path.write_bytes(exported.read_bytes())
    return path


@pytest.fixture
def exports(exported: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are exported from now on, without torch's exporter, which takes seconds."""
    written: list[Path] = []

    def export_network(_network: LWFM, path: Path, _normalization: Normalization) -> float:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exported.read_bytes())
        written.append(path)
        return 0.0

    monkeypatch.setattr(module, "export_network", export_network)
    return written


def pixels(count: int = 5) -> torch.Tensor:
    return torch.randint(256, (count, 24, 24, 3), dtype=torch.uint8)


def uses_runtime(encoder: Encoder) -> bool:
    return encoder._exported is not None


@needs_runtime
def test_the_engines_compute_the_same_maps(network: LWFM, filled: Path) -> None:
    images = pixels()
    with torch.inference_mode():
        expected = Encoder(network, "torch", OWN)(images)
    encoder = Encoder(network, "onnxruntime", OWN)
    for one, other in zip(encoder(images), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert uses_runtime(encoder)
    assert list(filled.parent.iterdir()) == [filled]


@needs_runtime
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_keeps_its_order(
    network: LWFM, engine: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    batches = [pixels(count) for count in (5, 1, 8, 2, 4, 3) * 3]
    encoder = Encoder(network, engine, OWN)
    assert encoder.threads == (threads if engine == "onnxruntime" else 1)
    ahead = threads + WAITING_BATCHES if engine == "onnxruntime" else 0
    read = 0

    def counted() -> Iterator[torch.Tensor]:
        nonlocal read
        for batch in batches:
            read += 1
            yield batch

    with torch.inference_mode():
        for number, maps in enumerate(encoder.stream(counted())):
            assert number < read <= number + 1 + ahead
            torch.testing.assert_close(maps[0], encoder(batches[number])[0])
    assert number == len(batches) - 1


@needs_runtime
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("engine", "expected"), [("torch", 2), ("onnxruntime", 1)])
def test_torch_has_half_its_threads_beside_onnxruntime(network: LWFM, engine: str, expected: int) -> None:
    with torch_threads(2):
        encoder = Encoder(network, engine, OWN)
        encoder(pixels())
        with encoder.beside():
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2


@needs_runtime
class TestAuto:
    """`auto` takes ONNX Runtime where that costs nothing or pays."""

    @pytest.mark.usefixtures("cache")
    def test_few_images_are_left_to_torch(
        self, network: LWFM, exports: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "WORTH_EXPORTING", 20)
        encoder = Encoder(network, "auto", OWN)
        for _ in range(4):
            encoder(pixels(5))
            assert not uses_runtime(encoder)
        assert not exports
        encoder(pixels(5))  # the 21st image, of a stream whose length nobody knew
        assert uses_runtime(encoder)
        assert exports == [exported_path(network, OWN)]

    @pytest.mark.usefixtures("cache", "exports")
    def test_a_long_stream_changes_over(self, network: LWFM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "WORTH_EXPORTING", 20)
        encoder = Encoder(network, "auto", OWN)
        sizes = [len(maps[0]) for maps in encoder.stream(pixels(count) for count in (9, 9, 9, 5))]
        assert sizes == [9, 9, 9, 5]
        assert uses_runtime(encoder)

    @pytest.mark.usefixtures("cache")
    def test_many_announced_images_are_worth_it(self, network: LWFM, exports: list[Path]) -> None:
        encoder = Encoder(network, "auto", OWN)
        encoder.expect(module.WORTH_EXPORTING)
        encoder(pixels())
        assert uses_runtime(encoder)
        encoder(pixels())
        assert len(exports) == 1

    @pytest.mark.usefixtures("filled")
    def test_an_exported_network_is_taken_at_once(self, network: LWFM) -> None:
        encoder = Encoder(network, "auto", OWN)
        encoder(pixels(1))
        assert uses_runtime(encoder)

    @pytest.mark.usefixtures("filled")
    def test_without_the_package_it_is_torch(self, network: LWFM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "find_spec", lambda _: None)
        encoder = Encoder(network, "auto", OWN)
        encoder.expect(10**6)
        encoder(pixels())
        assert not uses_runtime(encoder)

    def test_a_cache_that_cannot_be_written_is_a_warning(
        self, network: LWFM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("LWFM_CACHE", str(tmp_path / "file"))

        def refuse(*_: object) -> float:
            raise UserError(f"cannot write {tmp_path / 'file'}")

        monkeypatch.setattr(module, "export_network", refuse)
        encoder = Encoder(network, "auto", OWN)
        encoder.expect(10**6)
        with pytest.warns(UserWarning, match="the engine is torch: cannot write"):
            encoder(pixels())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoder(pixels())  # said once
        with pytest.raises(UserError, match="cannot write"):
            Encoder(network, "onnxruntime", OWN)(pixels())


@needs_runtime
@pytest.mark.parametrize("damage", ["empty", "cut", "other weights"])
def test_a_damaged_file_is_written_again(
    network: LWFM, filled: Path, exports: list[Path], exported: Path, damage: str
) -> None:
    content = exported.read_bytes()
    model = importlib.import_module("onnx").load_from_string(content)
    kernel = next(each for each in model.graph.initializer if len(each.dims) == 4)
    kernel.raw_data = kernel.raw_data[::-1]
    damaged = {"empty": b"", "cut": content[:-1000], "other weights": model.SerializeToString()}
    filled.write_bytes(damaged[damage])
    encoder = Encoder(network, "onnxruntime", OWN)
    encoder(pixels())
    assert exports == [filled]
    assert uses_runtime(encoder)
    assert filled.read_bytes() == content


@needs_runtime
def test_other_maps_than_torch_s_are_a_warning_and_torch(
    network: LWFM, filled: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "relative_difference", lambda *_: 2e-3)
    encoder = Encoder(network, "onnxruntime", OWN)
    with pytest.warns(
        UserWarning, match=r"the engine is torch: conv4 by CPU.* differs from torch by 2\.0e-03"
    ):
        encoder(pixels())
    assert not uses_runtime(encoder)


@needs_runtime
def test_weights_that_change_are_noticed(network: LWFM, cache: Path, exports: list[Path]) -> None:
    changing = copy.deepcopy(network)
    encoder = Encoder(changing, "onnxruntime", OWN)
    encoder(pixels())
    with torch.no_grad():
        next(changing.parameters()).mul_(2)
    encoder.expect(5)
    with pytest.warns(UserWarning, match="differs from torch"):  # what is exported here are the old weights
        encoder(pixels())
    assert len(exports) == len(set(exports)) == 2


@needs_runtime
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])  # noqa: S301
def test_copies_open_the_network_again(network: LWFM, filled: Path, copied: object) -> None:
    encoder = Encoder(network, "onnxruntime", OWN)
    images = pixels()
    expected = encoder(images)
    assert callable(copied)
    again = copied(encoder)
    assert torch.equal(again(images)[0], expected[0])
    assert uses_runtime(again)


@needs_runtime
def test_several_at_once_use_one_cache(network: LWFM, cache: Path, exports: list[Path]) -> None:
    images = pixels()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Encoder(network, "onnxruntime", OWN)(images)[0], range(4)))
    assert all(torch.equal(each, found[0]) for each in found)
    assert [file.name for file in cache.iterdir()] == [exported_path(network, OWN).name]


@needs_runtime
def test_the_least_used_files_are_removed(network: LWFM, cache: Path, exports: list[Path]) -> None:
    cache.mkdir()
    for number in range(module._KEPT + 3):
        (cache / f"{number:02d}.onnx").touch()
    open_exported(network, OWN, exported_path(network, OWN))
    names = {file.name for file in cache.iterdir()}
    assert len(names) == module._KEPT
    assert exported_path(network, OWN).name in names


@needs_runtime
def test_an_unknown_provider_is_an_error(network: LWFM, filled: Path) -> None:
    with pytest.raises(UserError, match="no provider NoProvider, only"):
        Encoder(network, "onnxruntime:NoProvider", OWN)(pixels())


@needs_runtime
def test_providers_are_passed_to_onnx_runtime(network: LWFM, filled: Path) -> None:
    encoder = Encoder(network, "onnxruntime:CPUExecutionProvider", OWN)
    encoder(pixels())
    assert isinstance(encoder._exported, OnnxNetwork)
    assert encoder._exported.session.get_providers() == ["CPUExecutionProvider"]
    assert module.parse_engine("onnxruntime:OpenVINOExecutionProvider")[1] == (
        "OpenVINOExecutionProvider",
        "CPUExecutionProvider",
    )


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_names_the_extra(
    network: LWFM, cache: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install 'lwfm\[fast\]'"):
        Encoder(network, "onnxruntime", OWN)(pixels())


@pytest.mark.parametrize(
    ("backbone", "image_size", "expected"),
    [("conv4", 84, 18), ("conv4", 168, 4), ("conv4", 24, 64), ("resnet18", 84, 64)],
)
def test_batches_fit_the_cache(backbone: str, image_size: int, expected: int) -> None:
    network = LWFM(ModelConfig(backbone=backbone, image_size=image_size, embedding=False)).eval()
    assert Encoder(network).batch_size == expected
    assert not network.backbone.body._forward_hooks


def test_weights_are_in_channels_last_and_may_be_loaded() -> None:
    network = LWFM(ModelConfig(backbone="conv4", image_size=32))
    with torch.inference_mode():
        Encoder(network)
    assert not any(weight.is_inference() for weight in network.parameters())
    kernels = [weight for weight in network.backbone.parameters() if weight.ndim == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    restored = LWFM(network.config)
    restored.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network.eval().encode(images)[0], restored.eval().encode(images)[0])
