"""Heads of the study that can be trained agree with the package's, and the study's plan trains them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from benchmarks.studies import training as study_training
from benchmarks.studies.terms import layer_terms
from benchmarks.studies.trained_heads import LearnedWeights, WeightedMatches, weighted_matching
from lwfm._common.tensor_files import read_tensor_file
from lwfm.data import episode_labels
from lwfm.experiments.plan import read_plan
from lwfm.nn import LWFMHead
from tests.experiments.test_experiment import PLAN, write

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LABELS = episode_labels(3, 2)
OPTIONS: dict[str, Any] = {
    "embedding": False,
    "matching_weight": 2.0,
    "top_k": None,
    "layer_reduction": "mean",
}


def maps(sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    support, query = (
        [torch.randn(count, channels, side, side) for channels, side in zip((4, 6), sizes, strict=True)]
        for count in (len(LABELS), 5)
    )
    return support, query


@pytest.mark.parametrize("merge", [False, True], ids=["shots-apart", "shots-merged"])
def test_learned_weights_begin_at_the_mean_and_are_learned(merge: bool) -> None:
    support, query = maps([4, 3])
    options = {"feature_size": [4, 3], "merge_shots": merge, **OPTIONS}
    head = LearnedWeights([4, 6], **options)
    torch.testing.assert_close(
        head(support, LABELS, query), LWFMHead([4, 6], **options)(support, LABELS, query)
    )
    head(support, LABELS, query).logsumexp(1).sum().backward()
    assert head.weights.grad is not None
    assert bool((head.weights.grad != 0).all())
    with torch.no_grad():
        head.weights.copy_(torch.tensor([0.0, 1.0]))
    alone = LWFMHead([6], **{**options, "feature_size": [3]})
    torch.testing.assert_close(
        head.similarities(support, LABELS, query).matching,
        alone.similarities(support[1:], LABELS, query[1:]).matching,
    )


def test_weighted_matches_are_those_of_the_study_and_differentiable() -> None:
    support, query = maps([3, 3])
    head = WeightedMatches([4, 6], feature_size=[3, 3], **OPTIONS)
    terms = [
        layer_terms(str(layer), s, LABELS, q)[f"weighted {layer}"]
        for layer, (s, q) in enumerate(zip(support, query, strict=True))
    ]
    found = head.similarities(support, LABELS, query)
    torch.testing.assert_close(found.matching, 2 * torch.stack(terms).mean(0))
    plain = LWFMHead([4, 6], feature_size=[3, 3], **OPTIONS)
    torch.testing.assert_close(found.base, plain.similarities(support, LABELS, query).base)
    s, q = (torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(weighted_matching, (s, q))


def test_the_study_trains_its_own_heads(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = {"config": "preset.yaml", "model": {"embedding": False}}
    rows = [
        {"name": "paper", "network": "paper"},
        {"name": "learned", "network": "learned-weights"},
        {"name": "learned, another head", "network": "learned-weights", "head": {"top_k": None}},
    ]
    networks = {"paper": PLAN["networks"]["paper"], "learned-weights": learned}
    plan = write(tmp_path / "plan.yaml", {**PLAN, "seeds": [0], "networks": networks, "rows": rows})
    (tmp_path / "preset.yaml").write_text("model: {matching_weight: 0.5}\n")
    monkeypatch.setattr(study_training, "PLAN", plan)
    command = ["study_training", "--root", str(tiny_images), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    study_training.main()
    assert capsys.readouterr().out.count("| learned") == 2
    for name, has_weights in (("paper", False), ("learned-weights", True)):
        (best,) = (tmp_path / "out/networks").glob(f"{name}-*/best.safetensors")
        tensors = read_tensor_file(best, key="lwfm", what="lwfm model")[1]
        assert ("head.weights" in tensors) == has_weights
        assert not has_weights or not torch.equal(tensors["head.weights"], torch.ones(1))


def test_the_plan_of_the_study_is_for_choosing() -> None:
    plan, options = read_plan(study_training.PLAN)
    assert {choice.split for choice in plan.data.values()} == {"val"}
    assert set(study_training.FORMS) <= set(plan.networks)
    ablation = yaml.safe_load((study_training.PLAN.parents[2] / "configs/ablation.yaml").read_text())
    assert plan.train == ablation["train"]
    distinct = {str(each) for each in options.values()}
    assert len(distinct) >= len(options) - 1  # learned-weights begins as fine-1
