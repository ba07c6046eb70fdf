"""Which checkpoints are kept, and when the others are deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import skate
from skate import tune
from skate.tune.checkpoint import PackedCheckpoint
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.storage import LocalStorage
from skate.tune.trial import Trial, TrialCheckpoint

pytestmark = pytest.mark.usefixtures("inline")


class Harness:
    def __init__(self, folder: Path, config: tune.CheckpointConfig) -> None:
        self.folder = folder
        self.keeper = CheckpointKeeper(config, LocalStorage(folder))
        self.trial = Trial("t", {}, {})

    def report(self, loss: float) -> None:
        ref = skate.put(PackedCheckpoint({"loss": str(loss).encode()}))
        self.trial.checkpoint = TrialCheckpoint(ref, metrics={"loss": loss})
        self.keeper.add(self.trial, self.trial.checkpoint)

    def state(self, write: Callable[[], None] = lambda: None) -> None:
        names = frozenset(each.name for each in self.keeper.kept("t"))
        self.keeper.write_state(write, names)

    def found(self) -> list[str]:
        self.keeper.close()
        return sorted((path / "loss").read_text() for path in self.folder.glob("t/checkpoint_*"))


def test_the_best_stay_and_the_newest(tmp_path: Path) -> None:
    config = tune.CheckpointConfig(
        num_to_keep=3, checkpoint_score_attribute="loss", checkpoint_score_order="min"
    )
    harness = Harness(tmp_path, config)
    for loss in (5.0, 1.0, float("nan"), 2.0, 4.0, 3.0, 9.0):
        harness.report(loss)
    assert harness.found() == ["1.0", "2.0", "9.0"]


def test_what_the_state_names_stays_until_another_state_is_there(tmp_path: Path) -> None:
    harness = Harness(tmp_path, tune.CheckpointConfig(num_to_keep=1))
    harness.report(1.0)
    harness.state()
    harness.report(2.0)
    harness.report(3.0)
    assert harness.found() == ["1.0", "3.0"]

    def full() -> None:
        raise tune.StorageError("cannot write the state", "state")

    harness.state(full)
    assert harness.found() == ["1.0", "3.0"]
    harness.state()
    assert harness.found() == ["3.0"]
    assert [str(error) for error in harness.keeper.take_errors()] == ["cannot write the state"]


def test_one_that_cannot_be_written_is_kept_in_memory_while_it_is_the_newest(
    tmp_path: Path,
) -> None:
    harness = Harness(tmp_path / "file", tune.CheckpointConfig())
    (tmp_path / "file").write_text("in the way")
    harness.report(1.0)
    assert harness.found() == []
    harness.report(2.0)
    assert harness.found() == []
    newest = harness.trial.checkpoint
    assert harness.keeper.kept("t") == [newest]
    assert newest is not None
    assert newest.source is newest.ref is not None
    (tmp_path / "file").unlink()
    harness.keeper.trial_ended(harness.trial)
    assert harness.found() == ["2.0"]
    assert newest.ref is None
    assert len(harness.keeper.take_errors()) == 2
