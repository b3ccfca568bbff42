"""Images in class folders, and which of their classes training must not see."""

from __future__ import annotations

import numpy as np
import pytest

from lwfm.metric.data.pictures import Pictures


def pictures(*entries: str) -> Pictures:
    """Build images from `split/class` or `/class`."""
    splits, labels = zip(*(entry.split("/") for entry in entries), strict=True)
    return Pictures((), np.array(labels), np.array(splits))


@pytest.mark.parametrize(
    ("entries", "unseen"),
    [
        (["train/a", "train/b", "test/c", "val/d"], {"c"}),
        (["train/a", "train/b", "val/c", "val/d"], {"c", "d"}),
    ],
    ids=["test", "val"],
)
def test_a_split_of_other_classes_is_unseen(entries: list[str], unseen: set[str]) -> None:
    images = pictures(*entries)
    assert set(images.labels[images.unseen(0)]) == unseen


@pytest.mark.parametrize(
    "entries",
    [
        ["train/a", "train/b", "train/c", "train/d", "test/a", "test/b", "test/c", "test/d"],
        ["train/a", "train/b", "train/c", "test/a", "test/d"],
        ["test/a", "test/b", "test/c", "test/d"],
        ["/a", "/b", "/c", "/d", "/d"],
    ],
    ids=["same-classes", "one-class-in-both", "one-folder", "no-folders"],
)
def test_else_half_of_the_classes_are_unseen_with_all_their_images(entries: list[str]) -> None:
    images = pictures(*entries)
    drawn = []
    for seed in range(8):
        mask = images.unseen(seed)
        assert len(set(images.labels[mask])) == 2
        assert not set(images.labels[mask]) & set(images.labels[~mask])
        np.testing.assert_array_equal(images.unseen(seed), mask)
        drawn.append(frozenset(images.labels[mask]))
    assert len(set(drawn)) > 1
