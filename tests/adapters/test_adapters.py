"""Other libraries' own code computes the same with the adapters as this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

import lwfm.reference
from lwfm.adapters.libfewshot import SemanticPixelMixin
from lwfm.adapters.published import HungarianMatcher
from lwfm.data import ImageDataset, evaluation_transform, open_images
from lwfm.model import LWFM, ModelConfig
from lwfm.nn import LWFMHead, SemanticPixelMatching
from tests.helpers.episodes import GOLDEN_NAMES, golden_case

if TYPE_CHECKING:
    from collections.abc import Callable


class TestPublishedMatcher:
    """The published code's HungarianMatcher."""

    @pytest.mark.parametrize("name", [name for name in GOLDEN_NAMES if name != "matching_off"])
    def test_published_weights_give_the_published_logits(self, name: str) -> None:
        case = golden_case(name)
        settings, labels, query = case.settings, case.labels, case.tensors["query"]
        matchers = [HungarianMatcher(dim, settings["learnable"]) for dim in settings["dims"]]
        for layer, matcher in enumerate(matchers):
            names = {"linear.0.weight": f"embed{layer}_w1", "linear.2.weight": f"embed{layer}_w2"}
            matcher.load_state_dict({ours: case.tensors[n] for ours, n in names.items() if n in case.tensors})
        oracle = case.head(lwfm.reference.LWFMHead).eval()
        assert isinstance(oracle, lwfm.reference.LWFMHead)
        best = []
        for matcher, s, q in zip(
            matchers, oracle.positions(case.tensors["support"]), oracle.positions(query), strict=True
        ):
            S, Q = len(s), len(q)
            matched = matcher(s.repeat(Q, 1, 1), q.repeat_interleave(S, dim=0))
            best.append(F.cosine_similarity(matched[0], matched[1], dim=-1).max(-1).values.view(Q, S))
        spm = settings["matcher_prob"] * torch.stack(best).max(0).values  # [Q, S]
        spm = torch.stack([spm[:, labels == label].mean(1) for label in range(settings["way"])], dim=1)
        oracle.matching_weight = 0.0
        base = oracle(case.tensors["support"], labels, query)
        torch.testing.assert_close(
            base + spm / settings["temperature"], case.tensors["logits"], atol=1e-5, rtol=0
        )

    @pytest.mark.parametrize("learnable", [True, False], ids=["embedded", "plain"])
    @pytest.mark.parametrize(("P", "M"), [(9, 9), (4, 9), (9, 4)], ids=["square", "wide", "tall"])
    def test_it_does_what_a_loop_over_scipy_does(self, learnable: bool, P: int, M: int) -> None:
        torch.manual_seed(0)
        support = torch.rand(12, P, 16, dtype=torch.float64, requires_grad=True)
        query = torch.rand(12, M, 16, dtype=torch.float64, requires_grad=True)
        matcher = HungarianMatcher(16, learnable).double()
        results = matcher(support, query)
        cost = 1 - F.cosine_similarity(support.unsqueeze(2), query.unsqueeze(1), dim=-1)
        for index, matrix in enumerate(cost.detach().numpy()):
            rows, columns = linear_sum_assignment(matrix)
            for result, positions in (
                (results[0], support[index, rows]),
                (results[1], query[index, columns]),
            ):
                expected = positions + nn.Sequential(*matcher.linear)(positions) if learnable else positions
                torch.testing.assert_close(result[index], expected)
        (results[0] * results[1]).sum().backward()
        assert support.grad is not None
        assert query.grad is not None
        assert int((support.grad.abs().sum(-1) > 0).sum()) == 12 * min(P, M)

    def test_a_seed_gives_the_published_initial_weights(self) -> None:
        torch.manual_seed(3)
        ours = HungarianMatcher(8, learnable_matcher=True)
        torch.manual_seed(3)
        theirs = [nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False)]
        for index, layer in zip((0, 2), theirs, strict=True):
            assert torch.equal(ours.state_dict()[f"linear.{index}.weight"], layer.weight)


class LabeledImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The bundled test images with `get_labels`, as easyfsl's sampler wants them."""

    def __init__(self) -> None:
        self.images = open_images("emoji", split="test")
        transform = evaluation_transform(image_size=32, normalization=self.images.normalization)
        self.dataset = ImageDataset(self.images, transform)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.dataset[index]

    def get_labels(self) -> list[int]:
        return [int(label) for label in self.images.labels]


class TestEasyFSL:
    """easyfsl's TaskSampler and evaluation."""

    @pytest.fixture
    def model(self, monkeypatch: pytest.MonkeyPatch) -> LWFM:
        # easyfsl 1.5 hands torch's Sampler an argument that torch has since dropped.
        monkeypatch.setattr(torch.utils.data.Sampler, "__init__", lambda *_, **__: None)
        torch.manual_seed(0)
        return LWFM(ModelConfig(backbone="conv4", image_size=32, feature_size=2)).eval()

    @pytest.mark.parametrize("shot", [1, 2])
    def test_its_evaluation_counts_what_the_model_answers(self, model: LWFM, shot: int) -> None:
        pytest.importorskip("easyfsl")
        import random

        from easyfsl.samplers import TaskSampler
        from easyfsl.utils import evaluate

        from lwfm.adapters.easyfsl import LWFMClassifier

        dataset = LabeledImages()
        sampler: Any = TaskSampler(dataset, n_way=5, n_shot=shot, n_query=3, n_tasks=4)
        loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn
        )
        classifier = LWFMClassifier(model.backbone, model.head)
        assert not classifier.is_transductive()
        random.seed(1)
        accuracy = evaluate(classifier, loader, device="cpu", use_tqdm=False)
        random.seed(1)
        correct = []
        with torch.no_grad():
            for support, support_labels, query, query_labels, _ in loader:
                logits = model(support, support_labels, query)
                correct.append((logits.argmax(1) == query_labels).double())
                classifier.process_support_set(support, support_labels)
                torch.testing.assert_close(classifier(query), logits)
        assert accuracy == pytest.approx(float(torch.cat(correct).mean()))
        assert accuracy > 0.3  # chance is 0.2

    def test_softmax_and_training_mode(self, model: LWFM) -> None:
        pytest.importorskip("easyfsl")
        from lwfm.adapters.easyfsl import LWFMClassifier

        head = LWFMHead(model.backbone.layer_dims, feature_size=2, num_classes=7)
        classifier = LWFMClassifier(model.backbone, head, use_softmax=True).train()
        classifier.process_support_set(torch.rand(4, 3, 32, 32), torch.tensor([1, 0, 1, 0]))
        scores = classifier(torch.rand(3, 3, 32, 32))
        torch.testing.assert_close(scores.sum(1), torch.ones(3))
        scores[:, 0].sum().backward()
        assert all(parameter.grad is not None for parameter in head.embeddings.parameters())


class TestMetricLearning:
    """pytorch-metric-learning's losses and AccuracyCalculator."""

    @pytest.fixture
    def maps(self) -> tuple[Tensor, Tensor]:
        """Maps [20, 6, 2, 2] of 4 classes of 5, each class a prototype whose positions are shuffled."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(20) % 4
        prototypes = torch.randn(4, 6, 4, generator=generator)
        shuffled = [prototypes[label][:, torch.randperm(4, generator=generator)] for label in labels.tolist()]
        noise = 0.3 * torch.randn(20, 6, 4, generator=generator)
        return (torch.stack(shuffled) + noise).view(20, 6, 2, 2), labels

    @pytest.mark.parametrize("embedding", [True, False], ids=["embedded", "plain"])
    @pytest.mark.parametrize("top_k", [1, None])
    def test_matrix_and_pairs_agree_with_the_module(
        self, maps: tuple[Tensor, Tensor], embedding: bool, top_k: int | None
    ) -> None:
        pytest.importorskip("pytorch_metric_learning")
        from lwfm.adapters.metric_learning import SemanticPixelSimilarity

        matching = SemanticPixelMatching(6, embedding=embedding, top_k=top_k)
        distance = SemanticPixelSimilarity(matching)
        assert distance.is_inverted
        matrix = distance(maps[0][:7], maps[0])
        torch.testing.assert_close(matrix, matching(maps[0], maps[0][:7]))
        torch.testing.assert_close(distance.pairwise_distance(maps[0][:7], maps[0][7:14]), matrix.diagonal(7))
        with pytest.raises(ValueError, match=r"\[B, C, F, F\]"):
            distance(maps[0].flatten(1))

    def test_its_losses_train_the_matching(self, maps: tuple[Tensor, Tensor]) -> None:
        pytest.importorskip("pytorch_metric_learning")
        from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss

        from lwfm.adapters.metric_learning import SemanticPixelSimilarity

        matching = SemanticPixelMatching(6, top_k=None)
        for loss in (
            ContrastiveLoss(pos_margin=1, neg_margin=0, distance=SemanticPixelSimilarity(matching)),
            TripletMarginLoss(margin=2, distance=SemanticPixelSimilarity(matching)),
        ):
            matching.zero_grad()
            loss(*maps).backward()
            assert all(float(p.grad.abs().sum()) > 0 for p in matching.parameters() if p.grad is not None)
            assert any(p.grad is not None for p in matching.parameters())

    @pytest.mark.parametrize("candidates", [19, 10], ids=["all", "nearest-10"])
    def test_its_calculator_ranks_by_matching(self, maps: tuple[Tensor, Tensor], candidates: int) -> None:
        pytest.importorskip("pytorch_metric_learning")
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        from pytorch_metric_learning.utils.inference import CustomKNN

        from lwfm.adapters.metric_learning import SemanticPixelKNN, SemanticPixelSimilarity

        distance = SemanticPixelSimilarity(SemanticPixelMatching(6, embedding=False, top_k=None))
        ours = SemanticPixelKNN(distance, candidates=candidates, batch_size=3)
        metrics = ("precision_at_1", "mean_average_precision_at_r")
        results = [
            AccuracyCalculator(include=metrics, k=4, knn_func=knn, device=torch.device("cpu")).get_accuracy(
                *maps
            )
            for knn in (ours, CustomKNN(distance))
        ]
        assert results[0]["precision_at_1"] == 1.0
        if candidates == 19:
            assert results[0] == pytest.approx(results[1])
        similarities, indices = ours(maps[0], 4, maps[0], ref_includes_query=True)
        assert not bool((indices == torch.arange(20)[:, None]).any())
        torch.testing.assert_close(similarities, distance(maps[0]).gather(1, indices))
        with pytest.raises(ValueError, match="k=30"):
            ours(maps[0], 30, maps[0])


class DocumentedMetricModel(nn.Module):
    """LibFewShot's MetricModel as its sources describe it: attributes from keywords, episodes class-major."""

    def __init__(self, init_type: str = "normal", **kwargs: Any) -> None:
        super().__init__()
        self.init_type = init_type
        for name, value in kwargs.items():
            setattr(self, name, value)

    def split_by_episode(self, features: Tensor, mode: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert mode == 2
        way, shot, query = (int(getattr(self, name)) for name in ("way_num", "shot_num", "query_num"))
        x = features.view(-1, way, shot + query, *features.shape[1:])
        targets = torch.arange(way).view(1, way, 1).expand(len(x), way, shot + query)
        return (
            x[:, :, :shot].flatten(1, 2),
            x[:, :, shot:].flatten(1, 2),
            targets[:, :, :shot].reshape(-1),
            targets[:, :, shot:].reshape(-1),
        )


class MixedModel(SemanticPixelMixin, DocumentedMetricModel):
    """What a user writes into LibFewShot."""


class TestLibFewShot:
    """The documented interface of MetricModel."""

    @staticmethod
    def build(emb_func: Callable[[Tensor], Tensor], **head: Any) -> MixedModel:
        sizes: dict[str, Any] = {"way_num": 3, "shot_num": 2, "query_num": 4}
        return MixedModel(dim=8, feature_size=3, emb_func=emb_func, device="cpu", **{**sizes, **head})

    def test_every_episode_of_a_batch_is_classified(self) -> None:
        torch.manual_seed(0)
        model = self.build(nn.Identity(), top_k=None, matching_weight=1.0).eval()
        maps = torch.rand(2 * 3 * 6, 8, 3, 3)
        logits, accuracy = model.set_forward((maps, torch.zeros(36)))
        again, same, loss = model.set_forward_loss((maps, torch.zeros(36)))
        assert torch.equal(again, logits)
        assert same == accuracy
        targets = torch.arange(3).repeat_interleave(4)
        by_class = maps.view(2, 3, 6, 8, 3, 3)
        expected = torch.cat(
            [
                model.head(
                    x[:, :2].flatten(0, 1), torch.arange(3).repeat_interleave(2), x[:, 2:].flatten(0, 1)
                )
                for x in by_class
            ]
        )
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(loss, F.cross_entropy(expected, targets.repeat(2)))
        assert accuracy == pytest.approx(
            100 * float((expected.argmax(1) == targets.repeat(2)).double().mean())
        )
        torch.autograd.backward(loss)
        assert all(parameter.grad is not None for parameter in model.head.parameters())

    def test_flat_features_are_refused(self) -> None:
        with pytest.raises(ValueError, match="is_flatten"):
            self.build(nn.Flatten()).set_forward((torch.rand(18, 8, 3, 3), torch.zeros(18)))
