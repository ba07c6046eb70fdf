"""Distributed training inside Tune trials: who pays for the actors, and what is reported."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import skate
from skate.util._scores import Metrics, ScoreChoice
from skate.util.placement_group import get_current_placement_group
from skate.xgboost import library
from skate.xgboost.messages import Checkpoint, Scores
from skate.xgboost.params import ActorPlan
from skate.xgboost.placement import Placement

#: The model in a checkpoint of a trial, as ``xgboost.Booster(model_file=...)`` reads it.
MODEL_FILE = "model.ubj"
#: What else a training needs to go on.
STATE_FILE = "training.pickle"


class TuneReportCallback:
    """Chooses what a training inside a trial reports; pass it to ``train(callbacks=[...])``.

    Without it every score is reported after each round, as ``{"eval-logloss": 0.1, ...}``.

    Args:
        metrics: what to report: names (``"eval-logloss"``), or a dict from the name in the report
            to the name of the score.  None: all scores; ``[]``: nothing.
        frequency: report after every so many rounds.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        frequency: int = 1,
    ) -> None:
        if frequency < 1:
            raise ValueError(f"frequency must be at least 1, but is {frequency!r}")
        self._frequency = frequency
        self._choice = ScoreChoice(metrics, "TuneReportCallback", "none (train without evals)")

    def chosen(self, rounds: int, scores: Scores) -> dict[str, Any]:
        """Return what is to be reported after ``rounds`` rounds.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        if rounds % self._frequency or self._choice.is_empty:
            return {}
        flat = {
            f"{data}-{metric}": score
            for data, metrics in scores.items()
            for metric, score in metrics.items()
        }
        return self._choice.of(flat)


class TuneReportCheckpointCallback(TuneReportCallback):
    """As in ``xgboost_ray``: reports every round, and says what the model's file is called.

    Checkpoints are reported in any case, as often as ``RayParams.checkpoint_frequency`` says and at
    the end: a trial that is started again goes on from them.

    Args:
        metrics: as in ``TuneReportCallback``.
        filename: the file of a checkpoint that has the model; its ending says in which format.
        frequency: of no meaning, as is ``checkpoint_at_end``; for scripts that pass it.
        checkpoint_at_end: see ``frequency``.
        results_postprocessing_fn: gets the scores as a dict and returns the dict to report.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        filename: str = MODEL_FILE,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Callable[[dict[str, float]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(metrics)
        self.filename = os.fspath(filename)
        if os.path.basename(self.filename) != self.filename or not self.filename:
            raise ValueError(f"filename must be the name of a file, without a folder: {filename!r}")
        self._postprocess = results_postprocessing_fn

    def chosen(self, rounds: int, scores: Scores) -> dict[str, Any]:
        """Return what is to be reported after a round."""
        found = super().chosen(rounds, scores)
        return found if self._postprocess is None or not found else self._postprocess(found)

    @classmethod
    def get_model(cls, checkpoint: Any, filename: str = MODEL_FILE) -> Any:
        """Return the model of a checkpoint of a trial, as a ``Booster``.

        Raises:
            XGBoostError: there is none in a file of this name.
        """
        with checkpoint.as_directory() as folder:
            return load_model(Path(folder) / filename)


def load_model(model_path: str | os.PathLike[str]) -> Any:
    """Return the model in a file, as a ``Booster``.

    Raises:
        XGBoostError: there is no such file, or no model in it.
    """
    return library.xgboost().Booster(model_file=os.fspath(model_path))


class TrialReports:
    """What a training says to the trial around it, and has said before the trial was restarted.

    Args:
        callbacks: which choose what is reported.
    """

    def __init__(self, callbacks: Sequence[TuneReportCallback]) -> None:
        self._callbacks = callbacks

    def __call__(self, rounds: int, scores: Scores, checkpoint: Checkpoint | None) -> None:
        """Report a round, and the checkpoint made after it."""
        from skate import tune

        chosen: dict[str, Any] = {}
        for callback in self._callbacks:
            chosen.update(callback.chosen(rounds, scores))
        if not chosen:
            return
        if checkpoint is None:
            tune.report(chosen)
            return
        with tempfile.TemporaryDirectory() as folder:
            for name in self._file_names():
                if name == MODEL_FILE:
                    (Path(folder) / name).write_bytes(checkpoint.model)
                else:
                    booster = library.xgboost().Booster(model_file=bytearray(checkpoint.model))
                    booster.save_model(Path(folder) / name)
            (Path(folder) / STATE_FILE).write_bytes(pickle.dumps(checkpoint))
            tune.report(chosen, checkpoint=tune.Checkpoint(folder))

    def _file_names(self) -> set[str]:
        named = [each for each in self._callbacks if isinstance(each, TuneReportCheckpointCallback)]
        return {each.filename for each in named} or {MODEL_FILE}

    def restored(self) -> Checkpoint | None:
        """Return the checkpoint that the trial goes on from, if it is one of a training."""
        from skate import tune

        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            path = Path(folder) / STATE_FILE
            if not path.exists():
                return None
            state: Checkpoint = pickle.loads(path.read_bytes())
            return state


def in_trial() -> bool:
    """Say whether the calling code runs inside a Tune trial."""
    # A process that runs trials has imported Tune.
    module = sys.modules.get("skate.tune")
    return module is not None and bool(module.is_session_enabled())


def split(callbacks: Sequence[Any], inside: bool) -> tuple[TrialReports | None, list[Any]]:
    """Return who reports rounds (None outside of trials), and the callbacks for the actors."""
    reporting = [item for item in callbacks if isinstance(item, TuneReportCallback)]
    others = [item for item in callbacks if not isinstance(item, TuneReportCallback)]
    if not inside:
        return None, others
    return TrialReports(reporting or [TuneReportCallback()]), others


def placement(plan: ActorPlan, options: Mapping[str, Any]) -> Placement:
    """Reserve what the actors of a training have to ask the cluster for.

    In the placement group of a trial all is there already, in bundles of one actor each.
    """
    reserved = to_reserve(plan)
    own = {name: plan.amounts[name] for name in reserved}
    there = in_trial() and _bundles_for(plan) >= plan.num_actors
    return Placement(own, plan.num_actors, options, reserve=not there)


def _bundles_for(plan: ActorPlan) -> int:
    """Return how many bundles of the placement group around this trial have room for an actor."""
    group = get_current_placement_group()
    if group is None:
        return 0
    return sum(
        all(bundle.get(name, 0) >= amount for name, amount in plan.amounts.items())
        for bundle in group.bundle_specs
    )


def to_reserve(plan: ActorPlan) -> dict[str, float]:
    """Return what all actors together have to ask the cluster for, by name.

    A trial only waits while its actors train, so it lends them what it holds itself.  If they
    asked for CPUs of their own, trials could hold all there are and wait for each other's.
    """
    total = plan.total()
    if not in_trial():
        return total
    held = skate.get_runtime_context().get_assigned_resources()
    for name, amount in total.items():
        if 0 < held.get(name, 0) < amount:
            warnings.warn(
                f"{plan.num_actors} training actors share the {held[name]:g} {name} of their trial;"
                " for resources of their own pass"
                " resources_per_trial=ray_params.get_tune_resources() to tune.run",
                stacklevel=3,
            )
    return {name: amount for name, amount in total.items() if not held.get(name)}
