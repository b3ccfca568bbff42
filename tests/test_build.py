"""Build invariants: permitted includes and symbols, contents of the source distribution, one version."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
OUTSIDE = re.compile(r"^(torch|ATen|c10|Python\.h|pybind11|cuda|cub|thrust)")


def includes(folder: str) -> list[tuple[str, str]]:
    """Return (file, included header) for every source of a folder of csrc."""
    files = [
        path for path in (ROOT / "csrc" / folder).rglob("*") if path.suffix in {".h", ".cpp", ".cuh", ".cu"}
    ]
    assert files, f"csrc/{folder} is empty"
    return [(path.name, header) for path in files for header in INCLUDE.findall(path.read_text())]


def test_core_includes_nothing_from_outside() -> None:
    foreign = [
        (name, header)
        for name, header in includes("core")
        if OUTSIDE.match(header)
        or "/"
        in header.removeprefix("core/assignment/")
        .removeprefix("core/simd/")
        .removeprefix("core/matching/")
        .removeprefix("core/transport/")
        .removeprefix("core/")
    ]
    assert foreign == []


def test_numpy_module_includes_no_torch() -> None:
    foreign = [
        (name, header) for name, header in includes("python") if header.startswith(("torch", "ATen", "c10"))
    ]
    assert foreign == []


def test_torch_is_reached_through_its_stable_interface_only() -> None:
    torch_headers = {header for _, header in includes("ops") if header.startswith(("torch", "ATen", "c10"))}
    assert torch_headers
    assert all(header.startswith(("torch/csrc/stable/", "torch/headeronly/")) for header in torch_headers)


@pytest.mark.parametrize(
    "statement", ["import lwfm", "import lwfm.lap", "from lwfm import lap; lap.simd_level()"]
)
def test_the_numpy_module_does_not_load_torch(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_operators_load_no_more_of_torch_than_torch_does() -> None:
    code = (
        "import sys, torch; before = 'sympy' in sys.modules; "
        "import lwfm.ops, lwfm.nn; sys.exit(('sympy' in sys.modules) != before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_is_written_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("setup.py", "CMakeLists.txt", "lwfm/__init__.py"):
        assert version not in (ROOT / name).read_text()


def test_the_source_distribution_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["sdist", "--formats", "tar", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = [*ROOT.glob("*.py"), ROOT / "CMakeLists.txt"]
    needed += [path for folder in ("cmake", "csrc", "lwfm") for path in (ROOT / folder).rglob("*.*")]
    names = {path.relative_to(ROOT).as_posix() for path in needed if path.suffix not in {".so", ".pyc"}}
    assert names - packed - {"conftest.py"} == set()


def test_operators_need_no_symbol_outside_torchs_stable_interface() -> None:
    specification = importlib.util.find_spec("lwfm._ops")
    assert specification is not None
    assert specification.origin is not None
    command = ["nm", "-D", "-u", specification.origin]
    listing = subprocess.run(command, check=True, capture_output=True, text=True)
    symbols = [line.split()[-1] for line in listing.stdout.splitlines()]
    assert any(symbol.startswith("aoti_torch_") for symbol in symbols)
    assert [
        s for s in symbols if s.startswith(("_ZN3c10", "_ZNK3c10", "_ZN2at", "_ZNK2at", "_ZN5torch"))
    ] == []
    assert b"libtorch_python" not in Path(specification.origin).read_bytes()
