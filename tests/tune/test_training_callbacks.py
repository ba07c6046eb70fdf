"""Callbacks for neural networks, in trials, against the libraries where they are installed."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skate import train, tune
from skate.tune.integration._training import TrainingReport, hooks

pytestmark = [pytest.mark.usefixtures("inline"), pytest.mark.timeout(200)]

EPOCHS = 3


def run(function: Callable[[dict[str, Any]], None], **options: Any) -> tune.Trial:
    (trial,) = tune.run(function, config=options.pop("config", {}), verbose=0, **options).trials
    return trial


# ------------------------------------------------------------------------------- in common


def test_what_is_not_logged_yet_is_left_out_with_one_warning(tmp_path: Path) -> None:
    def function(config: dict[str, Any]) -> None:
        report = TrainingReport({"loss": "val_loss", "acc": "val_acc"})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report.send({"train_loss": 1.0})
            report.send({"val_loss": 2.0})
            report.send({"val_loss": 3.0, "val_acc": 0.5}, "model", lambda p: Path(p).touch())
        (tmp_path / "warnings").write_text("\n".join(str(each.message) for each in caught))

    trial = run(function)
    assert trial.history.column("loss") == [2.0, 3.0]
    assert trial.last_result["acc"] == 0.5
    lines = (tmp_path / "warnings").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["'val_loss'", "'val_acc'"]
    assert "has logged: train_loss" in lines[0]
    assert trial.checkpoint is not None
    assert (Path(trial.checkpoint.path or "") / "model").exists()


def test_names_of_hooks() -> None:
    known = ["on_begin", "on_end"]
    assert hooks("end", known) == ["end"]
    assert hooks(["end", "begin"], known) == ["end", "begin"]
    with pytest.raises(ValueError, match="there is no hook 'on_end', only: begin, end"):
        hooks("on_end", known)


@pytest.mark.parametrize(
    ("module", "hidden", "package"),
    [
        ("keras", ["keras.callbacks"], "keras"),
        ("pytorch_lightning", ["lightning.pytorch", "pytorch_lightning"], "lightning"),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, hidden: list[str], package: str
) -> None:
    import importlib

    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    full = f"skate.tune.integration.{module}"
    monkeypatch.delitem(sys.modules, full, raising=False)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        importlib.import_module(full)


def test_the_names_of_train() -> None:
    def function(config: dict[str, Any]) -> None:
        context = train.get_context()
        assert isinstance(context, train.TrainContext)
        shape = context.get_world_size(), context.get_world_rank(), context.get_node_rank()
        local = context.get_local_world_size(), context.get_local_rank()
        before = train.get_checkpoint()
        assert before is None
        train.report(
            {"loss": 1.0, "shape": [*shape, *local]},
            checkpoint=train.Checkpoint.from_dict({"a": 1}),
        )

    assert run(function).last_result["shape"] == [1, 0, 0, 1, 0]
    assert train.RunConfig is tune.RunConfig
    assert train.SyncConfig is tune.SyncConfig


# ------------------------------------------------------------------------------- Lightning


def lightning_trial(
    seen: Path, fails: bool = False, **options: Any
) -> Callable[[dict[str, Any]], None]:
    pytest.importorskip("torch")
    pytest.importorskip("pytorch_lightning")

    def function(config: dict[str, Any]) -> None:
        import pytorch_lightning as lightning
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        from skate.tune.integration.pytorch_lightning import TuneReportCheckpointCallback

        class Line(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.line = nn.Linear(1, 1)

            def loss(self, batch: Any) -> Any:
                return nn.functional.mse_loss(self.line(batch[0]), batch[1])

            def training_step(self, batch: Any, index: int) -> Any:
                loss = self.loss(batch)
                self.log("train_loss", loss)
                return loss

            def validation_step(self, batch: Any, index: int) -> None:
                self.log("val_loss", self.loss(batch))

            def on_train_epoch_start(self) -> None:
                with seen.open("a") as file:
                    file.write(f"{self.current_epoch}\n")
                if fails and self.current_epoch == 2 and checkpoint is None:
                    raise ValueError("once")

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        torch.manual_seed(0)
        x = torch.linspace(-1, 1, 32)[:, None]
        rows = DataLoader(TensorDataset(x, 2 * x + 1), batch_size=8)
        trainer = lightning.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[TuneReportCheckpointCallback({"loss": "val_loss"}, **options)],
        )
        checkpoint = tune.get_checkpoint()
        path = None if checkpoint is None else f"{checkpoint.path}/checkpoint"
        trainer.fit(Line(), rows, rows, ckpt_path=path)

    return function


@pytest.mark.filterwarnings("ignore")
def test_lightning_reports_with_checkpoints_and_goes_on_from_one(tmp_path: Path) -> None:
    trial = run(lightning_trial(tmp_path / "seen", fails=True), max_failures=1)
    losses = trial.history.column("loss")
    assert len(losses) == EPOCHS
    assert losses[0] > losses[1] > losses[2]
    assert (tmp_path / "seen").read_text().split() == ["0", "1", "2", "2"]
    assert trial.checkpoint is not None
    import torch

    saved = torch.load(f"{trial.checkpoint.path}/checkpoint", weights_only=False)
    assert (saved["epoch"], "line.weight" in saved["state_dict"]) == (EPOCHS - 1, True)


@pytest.mark.filterwarnings("ignore")
def test_lightning_at_chosen_hooks_without_checkpoints(tmp_path: Path) -> None:
    options = {"on": ["validation_end", "train_end"], "save_checkpoints": False}
    trial = run(lightning_trial(tmp_path / "seen", **options))
    assert trial.iterations == EPOCHS + 1
    assert trial.checkpoint is None
    from skate.tune.integration.pytorch_lightning import TuneReportCallback

    with pytest.raises(ValueError, match="there is no hook 'validation_ends', only: after"):
        TuneReportCallback(on="validation_ends")


# ------------------------------------------------------------------------------- Keras


def keras_trial(kind: str, **options: Any) -> Callable[[dict[str, Any]], None]:
    pytest.importorskip("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    pytest.importorskip("keras")

    def function(config: dict[str, Any]) -> None:
        import keras
        import numpy as np

        from skate.tune.integration import keras as callbacks

        keras.utils.set_random_seed(0)
        x = np.linspace(-1, 1, 32)[:, None]
        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(0.1), "mse")
        else:
            model = callbacks.TuneReportCheckpointCallback.get_model(checkpoint)
        report = getattr(callbacks, kind)(**options)
        model.fit(x, 2 * x + 1, epochs=EPOCHS, validation_split=0.25, verbose=0, callbacks=[report])
        if config.get("fails") and checkpoint is None:
            raise ValueError("once")

    return function


@pytest.mark.filterwarnings("ignore")
def test_keras_reports_with_checkpoints_and_goes_on_from_one() -> None:
    trial = run(
        keras_trial("TuneReportCheckpointCallback", metrics={"loss": "val_loss"}, frequency=2),
        config={"fails": True},
        max_failures=1,
    )
    # The checkpoint came with the second epoch; after it there are as many again.
    losses = trial.history.column("loss")
    assert len(losses) == 2 + EPOCHS
    assert losses == sorted(losses, reverse=True)
    assert trial.checkpoint is not None
    assert trial.checkpoint.reports == 4
    assert (Path(trial.checkpoint.path or "") / "model.keras").exists()


@pytest.mark.filterwarnings("ignore")
def test_keras_at_chosen_hooks() -> None:
    trial = run(keras_trial("TuneReportCallback"))
    assert trial.iterations == EPOCHS
    assert {"loss", "val_loss"} <= set(trial.history.columns)
    assert trial.checkpoint is None
    trial = run(
        keras_trial(
            "TuneReportCheckpointCallback", report_metrics_on="epoch_end", checkpoint_on="train_end"
        )
    )
    assert trial.iterations == EPOCHS + 1
    assert trial.checkpoint is not None
    assert trial.checkpoint.reports == EPOCHS + 1
    from skate.tune.integration.keras import TuneReportCheckpointCallback

    with pytest.raises(ValueError, match="there is no hook 'epochs', only: batch_begin"):
        TuneReportCheckpointCallback(on="epochs")
    with pytest.raises(ValueError, match="frequency has to be at least 1"):
        TuneReportCheckpointCallback(frequency=0)
