"""Progress bars count items, also where a loop goes through batches of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lwfm._common import progress

if TYPE_CHECKING:
    import pytest


def test_a_bar_of_batches_counts_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[_Bar] = []

    class _Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": False, "delay": 0})
            bars.append(self)

    monkeypatch.setattr(progress, "tqdm", _Bar)
    counts = [bars[0].n for _ in progress.batched_progress([[1, 2], [3], [4, 5]], "x", "y", total=5)]
    assert (counts, bars[0].n, bars[0].total) == ([0, 2, 3], 5, 5)
