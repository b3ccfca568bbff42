"""Label vectors from any source, and distances to their prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lwfm.errors import UserError
from lwfm.metric import PrototypeHead, label_vectors

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
VECTORS = 5 + RANDOM.normal(size=(4, 12)).astype(np.float32)
NAMES = ["Mass", "Edema", "Pleural_Thickening", "Hernia"]


def test_prototypes_keep_the_distances_of_centered_vectors() -> None:
    head = PrototypeHead(VECTORS)
    centered = VECTORS - VECTORS.mean(0)
    unit = torch.as_tensor(centered / np.linalg.norm(centered, axis=1, keepdims=True))
    assert head.dim == 3
    torch.testing.assert_close(
        torch.cdist(head.prototypes, head.prototypes), torch.cdist(unit, unit), atol=1e-5, rtol=1e-4
    )
    assert not list(head.parameters())


def test_centering_separates_parallel_vectors() -> None:
    plain = torch.pdist(PrototypeHead(VECTORS, centered=False).prototypes)
    assert plain.max() < 0.5
    assert torch.pdist(PrototypeHead(VECTORS).prototypes).min() > 1


def test_a_common_axis_lets_an_image_be_far_from_all_labels() -> None:
    without, head = PrototypeHead(VECTORS), PrototypeHead(VECTORS, common=1.0)
    assert head.dim == without.dim + 1
    torch.testing.assert_close(head.prototypes[:, -1], torch.full((4,), 0.5**0.5))
    away = torch.zeros(1, head.dim)
    away[0, -1] = -1
    assert head(away).min() > 1.8
    directions = torch.randn(2000, without.dim, generator=torch.Generator().manual_seed(0))
    assert without(directions).min(1).values.max() < 1.5
    head.add(torch.as_tensor(VECTORS[:1]))
    torch.testing.assert_close(head.prototypes[4], head.prototypes[0])


def test_added_labels_are_where_they_would_have_been() -> None:
    head = PrototypeHead(VECTORS)
    head.add(torch.as_tensor(VECTORS[:1]))
    torch.testing.assert_close(head.prototypes[4], head.prototypes[0])
    assert head(torch.randn(2, head.dim)).shape == (2, 5)


def test_distances_are_on_unit_vectors_and_have_gradients() -> None:
    head = PrototypeHead(learned=(3, 4)).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(head(x), head(3 * x))
    assert torch.autograd.gradcheck(head, (x,))
    at_prototype = head.prototypes.detach().clone().requires_grad_()
    head(at_prototype).sum().backward()
    assert at_prototype.grad is not None
    assert torch.isfinite(at_prototype.grad).all()


def test_a_head_needs_one_source() -> None:
    for vectors, learned in ((None, None), (VECTORS, (3, 4))):
        with pytest.raises(UserError, match="needs label vectors, or the number"):
            PrototypeHead(vectors, learned=learned)


def write_vectors(folder: Path, table: Any, names: list[str]) -> Path:
    np.save(folder / "vectors.npy", table, allow_pickle=True)
    (folder / "vectors.txt").write_text("\n".join(names) + "\n")
    return folder / "vectors.npy"


def test_vectors_are_found_by_name(tmp_path: Path) -> None:
    path = write_vectors(tmp_path, VECTORS, NAMES)
    np.testing.assert_array_equal(label_vectors(path, ["Hernia", "Mass"]), VECTORS[[3, 0]])
    np.testing.assert_array_equal(label_vectors(dict(zip(NAMES, VECTORS, strict=True)), NAMES), VECTORS)


def test_an_encoder_reads_words() -> None:
    seen: list[str] = []

    def encode(sentences: list[str]) -> list[list[float]]:
        seen.extend(sentences)
        return [[float(len(each)), 1.0] for each in sentences]

    assert label_vectors(encode, NAMES).shape == (4, 2)
    assert seen[2] == "Pleural Thickening"


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        (VECTORS[:3], NAMES, "has shape .3, 12., but .* names 4 labels"),
        (VECTORS[0], NAMES, "has shape .12."),
        (VECTORS, ["a", "b", "c", "d"], "no vector for Mass, Edema, .*; there are a, b, c, d"),
        (np.full_like(VECTORS, np.nan), NAMES, "NaN or infinite"),
        (np.ones_like(VECTORS), NAMES, "all label vectors are equal"),
        (np.array([{}] * 4), NAMES, "cannot read the label vectors"),
    ],
    ids=["rows", "flat", "names", "nan", "equal", "pickle"],
)
def test_damaged_vectors_are_refused(tmp_path: Path, table: Any, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_vectors(write_vectors(tmp_path, table, names), NAMES)


def test_missing_and_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*vectors.npy: label vectors are"):
        label_vectors(tmp_path / "vectors.npy", NAMES)
    path = write_vectors(tmp_path, VECTORS, NAMES)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UserError, match="cannot read the label vectors"):
        label_vectors(path, NAMES)
    path.with_suffix(".txt").unlink()
    with pytest.raises(UserError, match=r"there is no file .*vectors.txt"):
        label_vectors(path, NAMES)


def test_an_encoder_of_a_wrong_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"the sentence encoder: 4 labels need vectors \[4, V\]"):
        label_vectors(lambda sentences: [1.0] * len(sentences), NAMES)
    with pytest.raises(UserError, match="did not yield one vector of numbers"):
        label_vectors(lambda sentences: ["x"] * len(sentences), NAMES)
