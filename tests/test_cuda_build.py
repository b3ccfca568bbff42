"""Decisions of setup_cuda.py: whether CUDA kernels are built, for which GPUs, with which commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import setup_cuda
from lwfm import _ops
from lwfm.cli.info import info
from setup_cuda import CudaError, Toolkit

ROOT = Path(__file__).parent.parent
TOOLKIT = Toolkit(Path("nvcc"), Path("lib"), (13, 0), (75, 80, 86, 90, 100, 120))

# What a whole toolkit's nvcc prints.
FAKE_NVCC = """#!/bin/sh
case "$1" in
  --version) echo 'Cuda compilation tools, release 12.4, V12.4.131';;
  --dryrun) echo '#$ _HERE_={root}/bin' >&2; echo '#$ TOP={root}/bin/..' >&2;;
  --list-gpu-arch) echo compute_50; echo compute_90;;
esac
"""


@pytest.mark.parametrize(
    ("wish", "torch_cuda", "toolkit", "builds", "reason"),
    [
        ("", "13.0", TOOLKIT, True, "both of CUDA 13"),
        ("1", "13.2", TOOLKIT, True, "both of CUDA 13"),
        ("0", "13.0", TOOLKIT, False, "LWFM_CUDA=0"),
        ("", None, TOOLKIT, False, "CPU-only build"),
        ("", "13.0", None, False, "no nvcc"),
        ("", "12.8", TOOLKIT, False, "nvcc is of CUDA 13.0, but torch is for CUDA 12.8"),
    ],
)
def test_kernels_are_built_where_torch_and_nvcc_agree(
    wish: str, torch_cuda: str | None, toolkit: Toolkit | None, builds: bool, reason: str
) -> None:
    decision = setup_cuda.decide({"LWFM_CUDA": wish}, torch_cuda, toolkit)
    assert (decision.toolkit is not None) == builds
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("wish", "torch_cuda", "toolkit", "message"),
    [
        ("1", None, TOOLKIT, "CPU-only build"),
        ("1", "13.0", None, "no nvcc"),
        ("1", "12.8", TOOLKIT, "but torch is for CUDA 12.8"),
        ("yes", "13.0", TOOLKIT, "must be 0 .* or 1"),
    ],
)
def test_a_wish_that_cannot_be_met_is_an_error(
    wish: str, torch_cuda: str | None, toolkit: Toolkit | None, message: str
) -> None:
    with pytest.raises(CudaError, match=message):
        setup_cuda.decide({"LWFM_CUDA": wish}, torch_cuda, toolkit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.6", ([86], [])),
        ("9.0+PTX", ([90], [90])),
        ("8.0;7.5, 9.0+PTX", ([75, 80, 90], [90])),
        ("12.0 10.0+PTX 10.0", ([100, 120], [100])),
    ],
)
def test_architecture_lists_are_read_as_torch_does(text: str, expected: tuple[list[int], list[int]]) -> None:
    assert setup_cuda.parse_architectures(text, TOOLKIT.architectures) == expected
    chosen = setup_cuda.choose_architectures({"TORCH_CUDA_ARCH_LIST": text}, TOOLKIT, [(8, 9)])
    assert (chosen.machine, chosen.virtual, chosen.reason) == (*expected, "TORCH_CUDA_ARCH_LIST")


@pytest.mark.parametrize("text", ["Ampere", "8", "8.6+ptx", "5.0", "8.9"])
def test_unknown_architectures_are_refused(text: str) -> None:
    with pytest.raises(CudaError, match=re.escape(text)):
        setup_cuda.parse_architectures(text, TOOLKIT.architectures)


OLDER = Toolkit(Path("nvcc"), Path("lib"), (12, 4), (50, 75, 80, 86, 89, 90))


@pytest.mark.parametrize(
    ("toolkit", "gpus", "machine", "virtual", "reason"),
    [
        pytest.param(TOOLKIT, [], [75, 80, 90, 100, 120], [120], "torch saw no GPU", id="no GPU"),
        pytest.param(OLDER, [], [75, 80, 90], [90], "torch saw no GPU", id="no GPU, older nvcc"),
        pytest.param(TOOLKIT, [(8, 6)], [86], [86], "the GPU of the building machine", id="one GPU"),
        pytest.param(TOOLKIT, [(9, 0), (8, 0), (9, 0)], [80, 90], [90], "the GPU of", id="several GPUs"),
        pytest.param(OLDER, [(12, 0)], [75, 80, 90], [90], "does not know", id="GPU newer than nvcc"),
        pytest.param(OLDER, [(5, 0)], [75, 80, 90], [90], "does not know", id="GPU older than lwfm's list"),
    ],
)
def test_default_architectures(
    toolkit: Toolkit,
    gpus: list[tuple[int, int]],
    machine: list[int],
    virtual: list[int],
    reason: str,
) -> None:
    chosen = setup_cuda.choose_architectures({"TORCH_CUDA_ARCH_LIST": " "}, toolkit, gpus)
    assert (chosen.machine, chosen.virtual) == (machine, virtual)
    assert reason in chosen.reason


def test_kernels_are_compiled_for_the_chosen_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    chosen = setup_cuda.choose_architectures({}, TOOLKIT, [(8, 6)])
    compilations = setup_cuda.kernel_compilations(TOOLKIT, chosen, {"PATH": ""})
    assert {compilation.source for compilation in compilations} == {
        path.relative_to(ROOT) for path in ROOT.glob("csrc/cuda/**/*.cu")
    }
    for compilation in compilations:
        assert [flag for flag in compilation.command if "gencode" in flag] == [
            "-gencode=arch=compute_86,code=sm_86",
            "-gencode=arch=compute_86,code=compute_86",
        ]
    assert setup_cuda.describe(TOOLKIT, chosen) == (
        "sm_86 compute_86 (nvcc 13.0; the GPU of the building machine)"
    )


def install(root: Path) -> Path:
    """Lay out a toolkit in a folder; return its nvcc."""
    (root / "bin").mkdir(parents=True)
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(FAKE_NVCC.format(root=root))
    nvcc.chmod(0o755)
    (root / "lib64").mkdir()
    (root / "lib64" / "libcudart_static.a").touch()
    return nvcc


def test_the_toolkit_is_found_behind_a_script_on_the_path(tmp_path: Path) -> None:
    root = tmp_path / "cuda-12.4"
    nvcc = install(root)
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    toolkit = setup_cuda.find_toolkit({"PATH": str(wrapper.parent)})
    assert toolkit == Toolkit(wrapper, root / "lib64", (12, 4), (50, 90))


def test_cuda_home_comes_before_the_path(tmp_path: Path) -> None:
    first, second = install(tmp_path / "first"), install(tmp_path / "second")
    environment = {"CUDA_HOME": str(first.parent.parent), "PATH": str(second.parent)}
    toolkit = setup_cuda.find_toolkit(environment)
    assert toolkit is not None
    assert toolkit.nvcc == first


def test_a_toolkit_without_its_library_is_not_taken(tmp_path: Path) -> None:
    nvcc = install(tmp_path)
    (tmp_path / "lib64" / "libcudart_static.a").unlink()
    assert setup_cuda.inspect_nvcc(nvcc) is None
    assert setup_cuda.inspect_nvcc(tmp_path / "absent") is None


def test_info_says_what_was_built() -> None:
    assert info().cuda_kernels == _ops.cuda_kernels
    assert re.match(r"sm_\d+ .*\(nvcc \d+\.\d+; .+\)|not built: ", _ops.cuda_kernels)


def test_info_survives_a_gpu_whose_driver_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_index: int) -> str:
        raise RuntimeError("the NVIDIA driver is too old")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    assert info().cuda_devices == "none"
