"""MLflow within trials; and ``MLflowLoggerCallback``, where Ray Tune had it in 2022."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skate.tune.logger import MLflowLoggerCallback
from skate.tune.logger.mlflow import params_of
from skate.tune.session import get_context, is_session_enabled, when_trial_ends

if TYPE_CHECKING:
    import mlflow

__all__ = ["MLflowLoggerCallback", "setup_mlflow"]


def setup_mlflow(
    config: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    experiment_id: str | None = None,
    experiment_name: str | None = None,
    tracking_token: str | None = None,
    artifact_location: str | None = None,
    run_name: str | None = None,
    create_experiment_if_not_exists: bool = False,
    tags: Mapping[str, Any] | None = None,
    rank_zero_only: bool = True,
) -> ModuleType:
    """Begin a run of MLflow in the process of a trial, and return the module ``mlflow``.

        def train(config):
            mlflow = setup_mlflow(config, tracking_uri="http://localhost:5000")
            mlflow.log_metric("loss", 0.1)

    The run ends with the function of the trial, as FINISHED or FAILED.  Outside of trials it is an
    ordinary run, which the caller ends.

    Args:
        config: is logged as the parameters of the run, nested ones by path.
        tracking_uri: of the server or folder; what MLflow is set to, if None.
        registry_uri: of the model registry, if it is elsewhere.
        experiment_id: of the experiment; if there is none with this id, its name decides.
        experiment_name: of the experiment.  If neither is given, it is called like the run of Tune,
            and made if it is not there.
        tracking_token: for the server, by HTTP.
        artifact_location: where an experiment that is made has its files.
        run_name: the name of the trial if None.
        create_experiment_if_not_exists: whether an experiment that was named is made.
        tags: of the run.
        rank_zero_only: means nothing: trials are one process.

    Raises:
        ImportError: MLflow is not installed; its client comes with ``skate[mlflow]``.
        ValueError: there is no such experiment; or none is named, outside of a trial.
        mlflow.exceptions.MlflowException: the server does not answer, or does not allow it.
    """
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("setup_mlflow needs MLflow: pip install 'skate[mlflow]'") from error
    context = get_context() if is_session_enabled() else None
    if tracking_token:
        os.environ["MLFLOW_TRACKING_TOKEN"] = tracking_token
    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    if registry_uri is not None:
        mlflow.set_registry_uri(registry_uri)
    if experiment_id is None and experiment_name is None:
        if context is None:
            raise ValueError("setup_mlflow wants experiment_name=... outside of trials")
        experiment_name = context.get_experiment_name()
        create_experiment_if_not_exists = True
    found = _experiment_id(
        experiment_id, experiment_name, create_experiment_if_not_exists, artifact_location
    )
    if context is not None:
        run_name = run_name or context.get_trial_name()
    run = mlflow.start_run(
        experiment_id=found, run_name=run_name, tags=dict(tags) if tags is not None else None
    )
    when_trial_ends(lambda error: _end(mlflow, run, error))
    params = params_of(config or {})
    if params:
        mlflow.log_params(params)
    return mlflow


def _experiment_id(
    wanted: str | None, name: str | None, make: bool, artifact_location: str | None
) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    if wanted is not None:
        try:
            return str(mlflow.get_experiment(wanted).experiment_id)
        except MlflowException:
            if name is None:
                raise ValueError(f"MLflow has no experiment with the id {wanted!r}") from None
    assert name is not None
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None and make:
        try:
            return mlflow.create_experiment(name, artifact_location)
        except MlflowException:
            # Another trial was faster.
            experiment = mlflow.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment is None:
        raise ValueError(
            f"MLflow has no experiment {name!r}; create_experiment_if_not_exists=True makes it"
        )
    return str(experiment.experiment_id)


def _end(module: Any, run: mlflow.ActiveRun, error: BaseException | None) -> None:
    active = module.active_run()
    # The function may have ended it itself.
    if active is not None and active.info.run_id == run.info.run_id:
        module.end_run("FINISHED" if error is None else "FAILED")
