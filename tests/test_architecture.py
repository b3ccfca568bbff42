"""Imports point one way: each package of lwfm imports only packages in lower layers, the oracle none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lwfm

PACKAGE = Path(__file__).parent.parent / "lwfm"

# package: the packages below it that it may import
BELOW = {
    "errors": set(),
    "_common": {"errors"},
    "presets": {"errors"},
    "lap": {"_lap", "errors"},
    "ops": {"_ops"},
    "nn": {"_common", "ops"},
    "adapters": {"nn", "ops"},
    "data": {"errors", "_common"},
    "model": {"errors", "_common", "ops", "nn", "data"},
    "figures": {"errors", "_common", "nn", "data", "model"},
    "evaluation": {"errors", "_common", "nn", "data", "model"},
    "bench": {"errors", "_common", "lap", "ops", "nn", "figures"},
    "classifier": {"errors", "_common", "nn", "data", "model", "figures"},
    "retrieval": {"errors", "_common", "nn", "data", "model", "figures"},
    "app": {"errors", "_common", "data", "model", "figures", "classifier"},
    "lite": {"_lap", "lap", "errors", "_common", "data", "classifier"},
    "training": {"errors", "_common", "nn", "data", "model", "evaluation"},
    "experiments": {"errors", "_common", "presets", "data", "model", "evaluation", "training"},
    "metric": {"errors", "_common", "nn", "adapters", "data", "model", "evaluation", "figures", "training"},
    "report": {"errors", "_common", "nn", "data", "model", "evaluation", "figures", "classifier"},
    "reference": set(),
}
ABOVE = ("__init__", "__main__", "cli")  # may import every package; only __main__ imports cli
PACKAGES = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


def imported_packages(package: str) -> set[str]:
    """Return the packages of lwfm that a package (or module) imports, under TYPE_CHECKING too."""
    module = PACKAGE / f"{package}.py"
    found: set[str] = set()
    for file in [module] if module.exists() else (PACKAGE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lwfm":
                whole = node.module == "lwfm"
                names = [f"lwfm.{alias.name}" for alias in node.names] if whole else [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("lwfm.")}
    return found - {package, "__version__"}


@pytest.mark.parametrize("package", [name for name in PACKAGES if name not in ABOVE])
def test_imports_point_down(package: str) -> None:
    assert package in BELOW, f"add lwfm.{package} to the table"
    assert imported_packages(package) - BELOW[package] == set()


def test_the_table_is_in_order_and_flat() -> None:
    floor = {"_lap": 0, "_ops": 0}
    for package, below in BELOW.items():
        floor[package] = 1 + max((floor[name] for name in below), default=0)  # KeyError: not below
    assert max(floor.values()) <= 7  # and the command line is the eighth


def test_only_the_entry_point_imports_the_command_line() -> None:
    assert [name for name in PACKAGES if "cli" in imported_packages(name)] == ["__main__"]


def test_the_oracle_is_apart() -> None:
    assert [name for name in PACKAGES if "reference" in imported_packages(name)] == []


@pytest.mark.parametrize("name", lwfm.__all__)
def test_every_listed_name_loads(name: str) -> None:
    assert getattr(lwfm, name) is not None
