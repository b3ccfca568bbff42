"""Python dependencies point one way only, and the oracle stays apart."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lwfm"

# From the ground up; a module imports from lower lines only (or from its own line, one way).
STOREYS = [
    ["errors", "normalization", "pixel_embedding", "_lap", "_ops"],
    ["optim", "block_ops", "statistics", "assignment_ops"],
    ["feature_ops"],
    ["files", "run_log", "blocks", "lap_single", "lap_batch", "lap_sparse"],
    ["lap", "tensor_files", "devices"],
    ["ops", "correlation", "data"],
    ["shots", "maps"],
    ["layer_terms"],
    ["nn"],
    ["explanation", "fewshot_networks", "pretrained"],
    ["backbones", "adapters"],
    ["model"],
    ["published", "comparison", "results", "default_model", "images"],
    ["calibration", "class_labels", "decisions", "estimator"],
    ["support_set"],
    ["classifier_files"],
    ["scoring", "paired", "map_cache", "sharing", "variants"],
    ["evaluation", "learner", "classifier"],
    ["checkpoints", "trainer"],
    ["runs"],
    ["training", "pretraining", "figures", "info", "answers", "picture_index"],
    ["classification", "report", "retrieval"],
    ["timing", "assignment_times", "matching_workload"],
    ["solver_benchmark", "matching_times", "matching_forms"],
    ["device_solver_benchmark", "matching_benchmark"],
    ["benchmark", "experiment_plan", "experiment_table"],
    ["experiment_network"],
    ["experiment"],
    ["cli"],
    ["__main__"],
]
STOREY = {module: number for number, modules in enumerate(STOREYS) for module in modules}
MODULES = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


def imported_modules(module: str) -> set[str]:
    """Return the modules of lwfm that a module (or a folder of modules) imports, anywhere in its text."""
    files = (
        [PACKAGE / f"{module}.py"]
        if (PACKAGE / f"{module}.py").exists()
        else (PACKAGE / module).rglob("*.py")
    )
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lwfm":
                whole = node.module == "lwfm"
                names = [f"lwfm.{alias.name}" for alias in node.names] if whole else [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("lwfm.")}
    return found - {module, "__version__"}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ("__init__", "reference")])
def test_imports_point_down(module: str) -> None:
    assert module in STOREY, f"give lwfm.{module} a storey"
    upward = {name for name in imported_modules(module) if STOREY.get(name, 99) > STOREY[module]}
    assert upward == set()


def test_the_oracle_is_apart() -> None:
    assert imported_modules("reference") == set()
    assert [module for module in MODULES if "reference" in imported_modules(module)] == []
