"""Settings that make no sense are told by name, before a trial starts or a folder is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skate import tune


def train(config: dict[str, Any]) -> None:
    tune.report(loss=1.0)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("max_failures", "x", TypeError, "max_failures wants an integer"),
        ("max_failures", 1.5, TypeError, "max_failures wants an integer"),
        ("max_failures", -2, ValueError, "max_failures has to be at least -1"),
        ("time_budget_s", float("nan"), ValueError, "time_budget_s has to be a number"),
        ("callbacks", 7, TypeError, "callbacks wants a list"),
        ("callbacks", "all", TypeError, "callbacks wants a list"),
        ("callbacks", [train], TypeError, "callbacks wants objects derived from tune.Callback"),
        ("checkpoint_config", {"num_to_keep": 1}, TypeError, "checkpoint_config wants a Checkp"),
        ("sync_config", 7, TypeError, "sync_config wants a SyncConfig"),
        ("keep_checkpoints_num", "2", TypeError, "num_to_keep wants an integer"),
        ("keep_checkpoints_num", 1.5, TypeError, "num_to_keep wants an integer"),
        ("keep_checkpoints_num", 0, ValueError, "num_to_keep has to be at least 1"),
        ("checkpoint_score_attr", 7, TypeError, "checkpoint_score_attribute wants the name"),
        ("checkpoint_freq", "x", TypeError, "checkpoint_frequency wants an integer"),
        ("seed", 1.5, TypeError, "wants an integer"),
        ("trial_name_creator", 7, TypeError, "trial_name_creator wants a function"),
        ("trial_dirname_creator", "x", TypeError, "trial_dirname_creator wants a function"),
        ("restore", "", TypeError, "restore wants a checkpoint"),
        ("export_formats", 7, TypeError, "export_formats wants a list"),
        ("resume_config", 7, TypeError, "resume_config wants a ResumeConfig"),
        ("storage_path", "nope://x", tune.StorageError, "nope"),
    ],
)
def test_what_makes_no_sense(
    tmp_path: Path, name: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tune.run(train, **{"name": "run", "storage_path": tmp_path, name: value})
    assert not list(tmp_path.iterdir())


def test_parts_of_a_run_config(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="failure_config wants a FailureConfig"):
        tune.RunConfig(failure_config=3)  # type: ignore[arg-type]
    assert tune.RunConfig(failure_config=None).failure_config == tune.FailureConfig()  # type: ignore[arg-type]
    assert tune.CheckpointConfig(checkpoint_frequency=None).checkpoint_frequency == 0
