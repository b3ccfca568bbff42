"""Episodes sharded over processes have the results of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from torch import distributed

from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.distributed import Share, shared_work
from lwfm.model import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
OPTIONS = ["--model.backbone", "conv4", "--model.image_size", "24", "--model.feature_size", "1",
           "--data", "folder", "--queries", "3", "--episodes", "7", "--accelerator", "cpu"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True], ids=["encoded", "stored-maps"])
def test_two_processes_equal_one(tiny_images: Path, tmp_path: Path, stored: bool) -> None:
    out = tmp_path / "shared.json"
    options = [*OPTIONS, "--root", str(tiny_images), "--out", str(out)]
    if stored:
        options += ["--maps", str(tmp_path / "maps")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "lwfm", "evaluate", *options]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nearest_class_mean") == 1  # one process speaks
    alone = evaluate(data="folder", root=tiny_images, model=MODEL, queries=3, episodes=7, accelerator="cpu")
    shared = json.loads(out.read_text())
    assert shared["machine"]["processes"] == 2
    for method, expected in zip(shared["methods"], alone.methods, strict=True):
        assert method["episode_accuracy"] == list(expected.episode_accuracy)
        assert method["confusion"] == expected.confusion


def test_one_process_keeps_everything() -> None:
    answers = {"lwfm": torch.arange(6).view(3, 2)}
    assert Share().gather(answers) is answers
    assert Share().shard([1, 2, 3]) == [1, 2, 3]


def test_other_processes_wait_long_for_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour, torch's default, is less than encoding a large split takes."""
    group: dict[str, timedelta] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda _, **options: group.update(options))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "destroy_process_group", group.clear)
    with shared_work() as share:
        assert share == Share(1, 2)
        assert group["timeout"] >= timedelta(days=1)
    assert not group, "left at the end"


def test_more_processes_than_episodes_are_refused() -> None:
    with pytest.raises(UserError, match="4 processes cannot share 3 episodes"):
        Share(0, 4).shard([1, 2, 3])
