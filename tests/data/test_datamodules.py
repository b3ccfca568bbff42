"""The data module under Lightning: same batches with any number of workers and after a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import pytest
import torch

from lwfm.data import EpisodeDataModule, episode_labels, evaluation_transform
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {
    "way": 3,
    "queries": 2,
    "episodes": 3,
    "validation_episodes": 2,
    "auxiliary_batch": 4,
    "image_size": 24,
}


class Recorder(lightning.LightningModule):
    """Keeps the sum of every batch it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.train_sums: list[tuple[float, float]] = []
        self.validation_sums: list[float] = []

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        self.train_sums.append((batch["episode"][0].sum().item(), batch["auxiliary"][0].sum().item()))
        return self.weight.sum()

    def validation_step(self, batch: Any) -> None:
        self.validation_sums.append(batch[0].sum().item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, epochs: int, *, resume: Path | None = None, **options: Any) -> tuple[Recorder, Path]:
    recorder = Recorder()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(recorder, datamodule=EpisodeDataModule(**{**SMALL, **options}), ckpt_path=resume)
    checkpoint = folder / f"{epochs}.ckpt"
    trainer.save_checkpoint(checkpoint)
    return recorder, checkpoint


def test_a_training_batch() -> None:
    data = EpisodeDataModule(**SMALL, seed=1)
    data.setup("fit")
    assert data.num_classes == len(data.classes) == 248
    assert data.fingerprint == data.train_images.fingerprint
    batches = [batch for batch, _, _ in iter(data.train_dataloader())]
    assert len(batches) == 3
    images, labels = batches[1]["episode"]
    assert images.shape == (9, 3, 24, 24)
    assert images.dtype == torch.float32
    assert labels.tolist() == data.train_images.labels[data.train_sampler.episode(1)].tolist()
    classes = labels[:3]
    assert torch.equal(labels, classes[episode_labels(3, 3)])
    images, labels = batches[1]["auxiliary"]
    assert images.shape == (4, 3, 24, 24)
    assert labels.shape == (4,)


def test_validation_episodes_are_fixed_and_have_their_own_shape() -> None:
    data = EpisodeDataModule(**SMALL, validation_way=4, validation_shot=2, validation_queries=1)
    data.setup("validate")
    assert [len(episode) for episode in data.plan.episodes] == [12, 12]
    assert data.plan.indices == sorted({index for episode in data.plan.episodes for index in episode})
    first, again = list(data.val_dataloader()), list(data.val_dataloader())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    labels = torch.cat([labels for _, labels in first])  # every image once, in the plan's order
    assert labels.tolist() == data.validation_images.labels[data.plan.indices].tolist()


@pytest.mark.parametrize("workers", [0, 2], ids=["in-process", "two-workers"])
def test_several_episodes_a_step_are_the_same_ones(workers: int) -> None:
    """Images and labels to the bit, their augmentation included."""
    one = EpisodeDataModule(**{**SMALL, "episodes": 4})
    two = EpisodeDataModule(**{**SMALL, "episodes": 4, "per_step": 2, "workers": workers})
    for module in (one, two):
        module.first_epoch = 3
        module.setup("fit")
    single, joined = ([batch for batch, *_ in module.train_dataloader()] for module in (one, two))
    assert len(joined) == 2
    for number, batch in enumerate(joined):
        for part, values in batch.items():
            parts = [each[part] for each in single[2 * number : 2 * number + 2]]
            for value, expected in zip(values, zip(*parts, strict=True), strict=True):
                assert torch.equal(value, torch.cat(expected))


def test_no_auxiliary_batch() -> None:
    data = EpisodeDataModule(**{**SMALL, "auxiliary_batch": 0})
    data.setup("fit")
    batch, _, _ = next(iter(data.train_dataloader()))
    assert set(batch) == {"episode"}


def test_normalization_of_pretrained_weights_is_used_everywhere() -> None:
    zeros = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    data = EpisodeDataModule(**SMALL, normalization=zeros)
    assert data.normalization == zeros
    images, _ = next(iter(data.val_dataloader()))
    assert images.min() >= 0
    assert images.max() <= 1
    own = EpisodeDataModule(**SMALL)
    assert own.normalization == own.train_images.normalization
    assert evaluation_transform(normalization=own.normalization) is not None


def test_workers_and_resume_change_nothing(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path, 2)
    with_workers, _ = fit(tmp_path, 2, workers=2)
    assert len(set(whole.train_sums)) == 6  # the second epoch has other episodes
    assert with_workers.train_sums == whole.train_sums
    assert with_workers.validation_sums == whole.validation_sums
    half = len(whole.validation_sums) // 2
    assert whole.validation_sums[:half] == whole.validation_sums[half:]  # the validation episodes stay
    first, checkpoint = fit(tmp_path, 1)
    second, _ = fit(tmp_path, 2, resume=checkpoint)
    assert first.train_sums + second.train_sums == whole.train_sums
    other, _ = fit(tmp_path, 1, seed=1)
    assert not set(other.train_sums) & set(whole.train_sums)


def test_a_resume_on_other_classes_stops() -> None:
    data = EpisodeDataModule(**SMALL)
    state = data.state_dict()
    with pytest.warns(UserWarning, match="the resumed run had seed 5, now it is 0"):
        data.load_state_dict({**state, "seed": 5})
    with pytest.raises(UserError, match="trained on 2 classes, the data has others"):
        data.load_state_dict({**state, "classes": ["a", "b"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"queries": 15}, "class 'admission-tickets' has 6 images.*takes 16", id="training"),
        pytest.param({"validation_queries": 9}, "class 'aerial-tramway' has 6 images", id="validation"),
        pytest.param({"validation_way": 61}, "only 60", id="way"),
        pytest.param({"auxiliary_batch": -1}, "auxiliary_batch must be at least 0", id="auxiliary"),
        pytest.param({"per_step": 0}, "per_step must be at least 1", id="per-step"),
        pytest.param({"per_step": 2}, "episodes must be a multiple of per_step=2, got 3", id="steps"),
        pytest.param({"workers": -1}, "workers must be at least 0", id="workers"),
        pytest.param({"image_size": 0}, "image_size must be at least 1", id="image-size"),
        pytest.param({"seed": -1}, "seed must be at least 0", id="seed"),
        pytest.param({"data": "folder"}, "--data folder needs --root", id="root"),
    ],
)
def test_mistakes_are_found_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpisodeDataModule(**{**SMALL, **options}).setup("fit")
