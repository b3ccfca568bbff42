"""Training: what it leaves behind, that it resumes exactly, and that it refuses clearly."""

from __future__ import annotations

import csv
import math
import signal
import threading
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from torch.nn import functional as F
from torch.profiler import profile

from lwfm._common import files
from lwfm.data import EpisodeDataModule
from lwfm.errors import UserError
from lwfm.figures import curves_figure
from lwfm.model import LWFM, load_model
from lwfm.nn import ClassLists
from lwfm.training import OptimConfig, TrainingSummary, checkpoints
from lwfm.training.checkpoints import AtomicCheckpointIO
from lwfm.training.modules import LWFMModule
from tests.helpers.tiny_training import EPISODES, MODEL, train_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A run of three epochs."""
    return train_tiny(tmp_path_factory.mktemp("finished"), tiny_images, epochs=3)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(path, weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def test_run_leaves_model_checkpoint_and_logs(finished: TrainingSummary) -> None:
    assert (finished.epochs, finished.steps) == (3, 12)
    assert load_model(finished.best).classes == tuple(f"train-{label}" for label in range(6))
    with (finished.logs / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [float(row["val_accuracy"]) for row in rows if row["val_accuracy"]]
    assert len(logged) == 3
    assert max(logged) == pytest.approx(finished.val_accuracy)
    assert logged.index(max(logged)) == finished.best_epoch
    assert all(row["val_nearest_class_mean"] for row in rows if row["val_accuracy"])
    assert any(name.name.startswith("events.out") for name in finished.logs.iterdir())


def test_best_model_reaches_its_validation_accuracy(finished: TrainingSummary, tiny_images: Path) -> None:
    """The exported model, evaluated apart from training on the same episodes, gives the logged number."""
    from lwfm.data import EpisodeDataModule, images_needed
    from lwfm.evaluation.cached_maps import compute_maps
    from lwfm.evaluation.episodes import accuracy_of, run_episodes

    data = EpisodeDataModule(
        "folder", tiny_images, way=3, shot=1, queries=2, validation_episodes=EPISODES.validation
    )
    drawn = list(data.validation_sampler)
    model = load_model(finished.best)
    maps = compute_maps(model, data.validation_images, images_needed(drawn))
    shape = EPISODES.way, EPISODES.shot
    answers = run_episodes(model.head, maps, {shape: drawn})[shape]
    assert accuracy_of(answers["lwfm"], EPISODES.way).item() == pytest.approx(finished.val_accuracy)


@pytest.mark.parametrize("workers", [0, 2], ids=["in-process", "two-workers"])
def test_resumed_run_equals_uninterrupted(
    finished: TrainingSummary,
    tiny_images: Path,
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = LWFMModule.training_step

    def stop_in_second_epoch(self: LWFMModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("the machine went down")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LWFMModule, "training_step", stop_in_second_epoch)
    with pytest.raises(RuntimeError, match="went down"):
        train_tiny(tmp_path, tiny_images, epochs=3)
    monkeypatch.undo()
    summary = train_tiny(tmp_path, tiny_images, epochs=3, resume=True, workers=workers)
    assert (summary.epochs, summary.steps) == (3, 12)
    assert (summary.val_accuracy, summary.best_epoch) == (finished.val_accuracy, finished.best_epoch)
    expected = _weights(finished.last)
    for name, tensor in _weights(summary.last).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    assert summary.logs.name == "version_1"  # those of the first start are kept


def test_optimizer_and_schedule_are_the_published_ones(finished: TrainingSummary) -> None:
    checkpoint = torch.load(finished.last, weights_only=True)
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, True)
    assert group["initial_lr"] == 0.01
    assert group["lr"] == pytest.approx(0.01 * 0.05)  # after the milestone


def test_loss_has_three_parts(tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        name: torch.tensor(value)
        for name, value in (("episode_loss", 2.0), ("query_loss", 3.0), ("auxiliary_loss", 5.0))
    }
    losses: list[float] = []

    def known(self: LWFMModule, maps: Any, labels: Any, auxiliary_labels: Any) -> dict[str, torch.Tensor]:
        assert len(labels) == 3 * (1 + 2)
        assert len(auxiliary_labels) == 8
        grown = 0.0 * sum(parameter.sum() for parameter in self.parameters())
        return {name: value + grown for name, value in parts.items()}

    def note(self: LWFMModule, batch: Any, step: int, values: dict[str, list[torch.Tensor]]) -> None:
        assert list(values) == ["the feature maps", "the loss"]
        losses.append(values["the loss"][0].item())

    monkeypatch.setattr(LWFMModule, "_losses", known)
    monkeypatch.setattr(LWFMModule, "_stop_unless_finite", note)
    train_tiny(tmp_path, tiny_images, epochs=1, optim=OptimConfig(episode_weight=0.5))
    assert losses == pytest.approx([0.5 * 2 + 3 + 5] * 4)


def _two_batches(root: Path) -> tuple[EpisodeDataModule, list[dict[str, Any]]]:
    shape: dict[str, Any] = {"way": 3, "shot": 2, "queries": 2, "episodes": 2, "validation_episodes": 2}
    data = EpisodeDataModule("folder", root, **shape, auxiliary_batch=8, image_size=24)
    data.setup("fit")
    return data, [batch for batch, *_ in data.train_dataloader()]


def _module(data: EpisodeDataModule, per_step: int = 1) -> LWFMModule:
    torch.manual_seed(0)
    return LWFMModule(
        MODEL, OptimConfig(), data.classes, data.normalization,
        way=3, shot=2, per_step=per_step, steps=1, seed=0, validation=data.plan,
    )  # fmt: skip


def test_the_loss_of_two_episodes_is_the_mean_of_their_losses(tiny_images: Path) -> None:
    data, batches = _two_batches(tiny_images)
    one, both = _module(data), _module(data, per_step=2)
    for module in (one, both):
        module.model.backbone.eval()  # else batch normalization sees other images together

    def losses(module: LWFMModule, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        maps = module.model.encode(torch.cat([batch["episode"][0], batch["auxiliary"][0]]))
        return module._losses(maps, batch["episode"][1], batch["auxiliary"][1])

    joined = {
        part: [torch.cat(pair) for pair in zip(*(batch[part] for batch in batches), strict=True)]
        for part in batches[0]
    }
    several = losses(both, joined)
    single = [losses(one, batch) for batch in batches]
    for name, value in several.items():
        expected = torch.stack([each[name] for each in single]).mean()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5), name
    parts = ("episode_loss", "query_loss", "auxiliary_loss")
    torch.autograd.backward([several[name] for name in parts])
    torch.autograd.backward([each[name] / 2 for each in single for name in parts])
    for x, y in zip(both.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-6)


def test_the_step_is_that_of_the_head(tiny_images: Path) -> None:
    """Logits and class logits of one episode, from maps that the head encodes and labels that it sorts."""
    data, batches = _two_batches(tiny_images)
    module = _module(data)
    (images, labels), (others, their_labels) = batches[0]["episode"], batches[0]["auxiliary"]
    maps = [layer.detach() for layer in module.model.encode(torch.cat([images, others]))]
    losses = module._losses(maps, labels, their_labels)
    head = module.model.head
    logits, class_logits = head([x[:6] for x in maps], [0, 1, 2] * 2, [x[6:12] for x in maps])
    expected = {
        "episode_loss": F.cross_entropy(logits, torch.arange(6) % 3),
        "query_loss": F.cross_entropy(class_logits, labels[6:]),
        "auxiliary_loss": F.cross_entropy(head.classify([x[12:] for x in maps]), their_labels),
        "train_accuracy": (logits.argmax(1) == torch.arange(6) % 3).float().mean(),
    }
    assert losses == expected


@pytest.mark.gpu
@pytest.mark.parametrize("per_step", [1, 2])
def test_losses_of_the_second_step_do_not_wait_for_the_device(tiny_images: Path, per_step: int) -> None:
    data, batches = _two_batches(tiny_images)
    module = _module(data, per_step).cuda()
    parts = {
        name: [torch.cat([each[name][n] for each in batches[:per_step]]).cuda() for n in (0, 1)]
        for name in ("episode", "auxiliary")
    }

    def step() -> None:
        maps = module.model.encode(torch.cat([images for images, _ in parts.values()]))
        losses = module._losses(maps, parts["episode"][1], parts["auxiliary"][1])
        torch.autograd.backward([value for name, value in losses.items() if name.endswith("loss")])

    step()  # which makes the lists
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_list_of_labels_is_made_again_in_the_second_step(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    class Counted(ClassLists):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(1)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("lwfm.training.modules.ClassLists", Counted)
    train_tiny(tmp_path, tiny_images, epochs=2)
    assert len(made) == 1


def test_a_run_of_several_episodes_a_step_resumes_exactly(tiny_images: Path, tmp_path: Path) -> None:
    episodes = replace(EPISODES, per_step=2)
    whole = train_tiny(tmp_path / "whole", tiny_images, episodes=episodes)
    assert whole.steps == 2 * 2
    options = torch.load(whole.last, weights_only=True)["hyper_parameters"]
    assert options["episodes"]["per_step"] == 2
    train_tiny(tmp_path / "parts", tiny_images, episodes=episodes, epochs=1)
    with pytest.warns(UserWarning, match="epochs: it was 1 and is now 2"):
        resumed = train_tiny(tmp_path / "parts", tiny_images, episodes=episodes, resume=True)
    assert resumed.steps == whole.steps
    for name, tensor in _weights(resumed.last).items():
        torch.testing.assert_close(tensor, _weights(whole.last)[name], rtol=0, atol=0)


def test_folder_of_a_run_is_not_overwritten(finished: TrainingSummary, tiny_images: Path) -> None:
    before = finished.best.read_bytes()
    with pytest.raises(UserError, match=r"already holds a run \(best\.safetensors, last\.ckpt, logs\)"):
        train_tiny(finished.best.parent, tiny_images)
    assert finished.best.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True], ids=["anew", "resumed"])
def test_a_model_without_checkpoint_is_not_overwritten(
    resume: bool, tiny_images: Path, tmp_path: Path
) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"a model")
    message = (
        r"holds best\.safetensors, but there is no last\.ckpt to resume from; remove those files to start"
    )
    with pytest.raises(UserError, match=message):
        train_tiny(tmp_path, tiny_images, resume=resume)
    assert (tmp_path / "best.safetensors").read_bytes() == b"a model"


def test_nothing_to_resume(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to resume: .*last\.ckpt is missing"):
        train_tiny(tmp_path, tiny_images, resume=True)


def test_a_run_stopped_in_its_first_epoch_starts_anew(tiny_images: Path, tmp_path: Path) -> None:
    (tmp_path / "logs" / "version_0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"nothing to resume: .* start anew, without --resume"):
        train_tiny(tmp_path, tiny_images, resume=True)
    with pytest.warns(UserWarning, match="only the logs of a run stopped in its first epoch: .* starts anew"):
        summary = train_tiny(tmp_path, tiny_images, epochs=1)
    assert (summary.epochs, summary.logs.name) == (1, "version_1")


def test_a_batch_larger_than_the_training_set_is_refused(tiny_images: Path, tmp_path: Path) -> None:
    episodes = replace(EPISODES, auxiliary_batch=100_000)
    with pytest.raises(UserError, match=r"auxiliary_batch 100000 is more than the \d+ training images"):
        train_tiny(tmp_path, tiny_images, episodes=episodes)


def test_a_progress_bar_is_for_terminals(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny(tmp_path, tiny_images, epochs=1, progress=True)
    assert capsys.readouterr().out == ""


def test_the_curves_of_one_epoch_are_seen(finished: TrainingSummary, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,val_accuracy\n4,0,0.5\n")
    assert [line.get_marker() for line in curves_figure(tmp_path).axes[1].lines] == ["o"]
    assert {line.get_marker() for line in curves_figure(finished.logs).axes[1].lines} == {"None"}


def test_resume_from_a_damaged_or_unsafe_checkpoint(tiny_images: Path, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*last\.ckpt"):
        train_tiny(tmp_path, tiny_images, resume=True)
    torch.save({"state_dict": threading.Lock}, tmp_path / "last.ckpt")  # an object, not a tensor
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*last\.ckpt"):
        train_tiny(tmp_path, tiny_images, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"max_time": 0.0}, "max_time must be a positive number of minutes"),
        ({"episodes": replace(EPISODES, auxiliary_batch=0)}, "auxiliary_batch must be at least 1"),
        ({"episodes": replace(EPISODES, queries=9)}, "class .* has 6 images"),
        ({"episodes": replace(EPISODES, way=6)}, "need at least 6 classes, but there are only 5"),
    ],
    ids=["epochs", "max-time", "auxiliary", "queries", "way"],
)
def test_options_that_cannot_work(
    tiny_images: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train_tiny(tmp_path / "run", tiny_images, **options)
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("lr", -1.0), ("clip_norm", math.nan), ("decay", -0.1), ("milestones", (1.5,))]
)
def test_optimizer_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"optim\.{option} must"):
        OptimConfig(**{option: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="torch finds no CUDA device"):
        train_tiny(tmp_path, tiny_images, accelerator="gpu")


def test_divergence_stops_and_is_located(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"diverged: .* at epoch \d, step \d\. Try a smaller learning rate than 1e\+30"
    ):
        train_tiny(tmp_path, tiny_images, optim=OptimConfig(lr=1e30, clip_norm=1e30))


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (math.nan, "the feature maps"),
        (math.inf, "the feature maps"),
        (1e30, "the squared norms of the feature maps"),
    ],
    ids=["nan", "infinite", "overflow"],
)
def test_maps_that_the_operators_refuse_are_a_divergence(
    factor: float, what: str, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = LWFM.encode
    monkeypatch.setattr(
        LWFM, "encode", lambda model, images: [factor * layer for layer in encode(model, images)]
    )
    with pytest.raises(UserError, match=f"diverged: {what} became NaN or infinite at epoch 0, step 0"):
        train_tiny(tmp_path, tiny_images)


@pytest.mark.parametrize(
    ("map_value", "loss", "what"),
    [(1.0, 1.0, None), (1.0, math.nan, "the loss"), (math.inf, math.nan, "the feature maps")],
    ids=["finite", "loss", "maps"],
)
def test_maps_and_loss_are_checked_in_one_wait(
    map_value: float, loss: float, what: str | None, tmp_path: Path
) -> None:
    trainer = SimpleNamespace(default_root_dir=str(tmp_path))
    module: Any = SimpleNamespace(trainer=trainer, current_epoch=1, seed=0, optim=OptimConfig())
    maps = [torch.ones(2, 3, 4, 4), torch.full((2, 5, 2, 2), map_value)]
    values = {"the feature maps": maps, "the loss": [torch.tensor(loss)]}
    stopped = pytest.raises(UserError, match=f"diverged: {what} became") if what else nullcontext()
    with profile() as profiled, stopped:
        LWFMModule._stop_unless_finite(module, {}, 3, values)
    # Reading a value of a tensor waits for the device, where there is one.
    reads = [event for event in profiled.events() or () if event.name == "aten::_local_scalar_dense"]
    assert what or len(reads) == 1


def test_time_limit_ends_with_a_validation(tiny_images: Path, tmp_path: Path) -> None:
    summary = train_tiny(tmp_path, tiny_images, epochs=10_000, max_time=1 / 60)
    assert summary.epochs < 10_000
    assert 0 <= summary.val_accuracy <= 1
    rate = torch.load(summary.last, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.01 * 0.05)  # the schedule follows the clock when that is what ends the run
    resumed = train_tiny(tmp_path, tiny_images, epochs=summary.epochs + 2, resume=True)
    assert resumed.epochs == summary.epochs + 2


def test_the_schedule_follows_the_clock_of_the_first_process() -> None:
    limit = Timer(timedelta(seconds=100))
    limit.load_state_dict({"time_elapsed": {"train": 25.0}})
    sent = []

    def broadcast(own: float) -> float:  # as on another process: rank 0 is further
        sent.append(own)
        return 0.5

    trainer = SimpleNamespace(callbacks=[limit], strategy=SimpleNamespace(broadcast=broadcast))
    module: Any = SimpleNamespace(trainer=trainer)
    assert LWFMModule._elapsed_fraction(module) == 0.5
    assert sent == [0.25]


def test_ctrl_c_says_where_to_resume(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = LWFMModule.training_step

    def press(self: LWFMModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LWFMModule, "training_step", press)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"last\.ckpt is whole: run again with --resume true"):
        train_tiny(tmp_path, tiny_images)
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


@pytest.mark.parametrize(
    "stop", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_interrupted_checkpoint_leaves_the_old_one(
    tmp_path: Path, stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"epoch": 1, "weight": torch.ones(3)}, path)

    def half_written(file: Path, data: bytes) -> int:
        with file.open("wb") as handle:
            handle.write(data[: len(data) // 2])
        raise stop

    monkeypatch.setattr("pathlib.Path.write_bytes", half_written)
    expected = UserError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        writer.save_checkpoint({"epoch": 2, "weight": torch.zeros(3)}, path)
    assert writer.load_checkpoint(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_during_a_run_keeps_the_epoch_before(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_bytes_atomically
    calls: list[Path] = []

    def full_at_second(path: Path, data: bytes) -> None:
        calls.append(path)
        write(path / "impossible" if len(calls) == 2 else path, data)

    monkeypatch.setattr(checkpoints, "write_bytes_atomically", full_at_second)
    with pytest.raises(UserError, match="cannot write"):
        train_tiny(tmp_path, tiny_images)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0
    monkeypatch.undo()
    assert train_tiny(tmp_path, tiny_images, resume=True).epochs == 2


def test_learning_rate_by_fraction_of_the_run() -> None:
    optim = OptimConfig(decay=0.1, milestones=(0.5, 0.75))
    factors = [optim.factor(step / 4) for step in range(5)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert math.isclose(OptimConfig().factor(0.99), 0.05)
