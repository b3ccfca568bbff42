"""The study's expressions say what the head computes, and its data split leaks no class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.studies.heads import average, largest, plus, rows_of
from benchmarks.studies.hold_out_classes import hold_out_classes
from benchmarks.studies.terms import Terms, View, episode_terms
from lwfm.data import episode_labels
from lwfm.nn import LWFMHead

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

DEEP: list[View] = [(7, 3), (8, 3)]
FINE: list[View] = [(6, 4), (7, 3), (8, 3)]
DIMS = {6: 6, 7: 8, 8: 8}
LABELS = episode_labels(4, 3)


@pytest.fixture(scope="module")
def maps() -> tuple[dict[View, Tensor], dict[View, Tensor]]:
    torch.manual_seed(0)
    support, query = (
        {(layer, side): torch.randn(count, DIMS[layer], side, side) for layer, side in FINE}
        for count in (len(LABELS), 5)
    )
    return support, query


@pytest.fixture(scope="module")
def terms(maps: tuple[dict[View, Tensor], dict[View, Tensor]]) -> Terms:
    support, query = maps
    return episode_terms([DEEP, FINE], support, LABELS, query)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("all", {"top_k": None}),
        ("top 1", {"top_k": 1}),
        ("top 3", {"top_k": 3}),
        ("merged", {"top_k": None, "merge_shots": True}),
        ("merged top 3", {"top_k": 3, "merge_shots": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_forms_that_the_head_has_are_the_head_s(
    maps: tuple[dict[View, Tensor], dict[View, Tensor]],
    terms: Terms,
    form: str,
    options: dict[str, Any],
    reduction: Any,
) -> None:
    support, query = maps
    head = LWFMHead(
        [DIMS[layer] for layer, _ in FINE],
        feature_size=[side for _, side in FINE],
        embedding=False,
        matching_weight=1.0,
        layer_reduction=reduction,
        **options,
    )
    expected = head.eval().similarities(list(support.values()), LABELS, list(query.values()))
    score = {"mean": average, "max": largest}[reduction](form, FINE)
    if form == "merged top 3" or reduction == "mean" or options.get("merge_shots"):
        torch.testing.assert_close(score(terms), expected.matching)
    else:  # the head takes the largest for each shot, the study for each class
        assert bool((score(terms) <= expected.matching + 1e-6).all())
    torch.testing.assert_close(terms["lwe 6@4 7@3 8@3 t=5"], expected.base)


def test_every_row_can_be_scored(terms: Terms) -> None:
    rows = rows_of(DEEP, FINE)
    assert {tuple(score(terms).shape) for score in rows.values()} == {(5, 4)}
    both = plus("ncm 7@3 8@3", 2.0, average("merged", FINE))
    expected = terms["ncm 7@3 8@3"] + 2 * average("merged", FINE)(terms)
    torch.testing.assert_close(both(terms), expected)


def test_held_out_classes_are_disjoint_and_complete(tmp_path: Path) -> None:
    for part, classes in (("train", "abcdefghi"), ("val", "xyz")):
        for name in classes:
            (tmp_path / "source" / part / name).mkdir(parents=True)
            (tmp_path / "source" / part / name / "1.jpg").touch()
    for _ in range(2):  # again is no mistake
        assert hold_out_classes(tmp_path / "source", tmp_path / "target") == {"train": 7, "val": 2, "test": 3}
    parts = {
        part: {x.name for x in (tmp_path / "target" / part).iterdir()} for part in ("train", "val", "test")
    }
    assert parts == {"train": set("abcefgi"), "val": set("dh"), "test": set("xyz")}
    assert (tmp_path / "target/val/d/1.jpg").is_file()
