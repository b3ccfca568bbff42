"""The epsilons of docs/mathematics.md are those of the expressions, the kernels and the oracle."""

from __future__ import annotations

import re
from pathlib import Path

import lwfm.reference
from lwfm.ops import _expressions, embedding_weights

ROOT = Path(__file__).parent.parent.parent


def test_documented_epsilons_are_used_everywhere() -> None:
    page = (ROOT / "docs" / "mathematics.md").read_text()
    documented = {
        name: float(f"1e{exponent}")
        for exponent, name in re.findall(
            r"^\| .* \| \$10\^\{(-\d+)\}\$ \| .*`(\w+_EPS)` \|$", page, re.MULTILINE
        )
    }
    assert sorted(documented) == ["CORRELATION_EPS", "COSINE_EPS", "STANDARDIZE_EPS"]
    for module in (_expressions, embedding_weights, lwfm.reference):
        used = {name: value for name, value in vars(module).items() if name.endswith("_EPS")}
        assert used
        assert used.items() <= documented.items()
    header = (ROOT / "csrc" / "core" / "matching" / "constants.h").read_text()
    kernels = {name: float(value) for value, name in re.findall(r" = (\S+);\s+// (\w+_EPS):", header)}
    assert kernels == documented
