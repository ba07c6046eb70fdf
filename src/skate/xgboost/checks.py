"""Checks of what ``train`` and ``predict`` are given, before anything starts."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from skate.xgboost.amounts import whole
from skate.xgboost.library import xgboost
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.tune import TuneReportCallback

#: How names of environment variables begin that ``xgboost_ray`` looks for.
_FOREIGN = "RXGB_"


def environment() -> None:
    """Warn of settings of ``xgboost_ray`` that do nothing here."""
    found = sorted(name for name in os.environ if name.startswith(_FOREIGN))
    if found:
        warnings.warn(
            f"{', '.join(found)}: these environment variables are settings of xgboost_ray and do"
            " nothing here; what they are for is in RayParams, such as"
            ' placement_options={"strategy": "SPREAD"}, or not necessary: actors that died are'
            " replaced at once, and what can never be reserved is an error",
            stacklevel=3,
        )


def matrix(value: object, name: str) -> None:
    """Refuse what is no ``RayDMatrix``.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, RayDMatrix):
        raise TypeError(
            f"{name} must be a skate.xgboost.RayDMatrix, not {type(value).__module__}."
            f"{type(value).__name__}: wrap the data as RayDMatrix(x, y)"
        )


def training(
    params: object,
    dtrain: RayDMatrix,
    num_boost_round: object,
    evals: object,
    obj: object,
    early_stopping_rounds: object,
    verbose_eval: object,
    callbacks: object,
) -> None:
    """Check the arguments of ``train``.

    Raises:
        TypeError, ValueError: with the name of the argument that is wrong.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a dict, not {params!r}")
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"the names in params must be strings, not {name!r}")
    matrix(dtrain, "dtrain")
    whole(num_boost_round, "num_boost_round", 0)
    if early_stopping_rounds is not None:
        whole(early_stopping_rounds, "early_stopping_rounds", 1)
        if not evals:
            raise ValueError("early_stopping_rounds needs something to look at: pass evals")
    if verbose_eval is not None and not isinstance(verbose_eval, bool):
        whole(verbose_eval, "verbose_eval", 0)
    if not dtrain.has_label and obj is None:
        raise ValueError("dtrain has no label: RayDMatrix(data, label)")
    _evals(evals, dtrain)
    _callbacks(callbacks)


def _evals(evals: object, dtrain: RayDMatrix) -> None:
    if evals is None:
        return
    if not isinstance(evals, Sequence) or not all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], str) for item in evals
    ):
        raise TypeError("evals must be a list of (RayDMatrix, name)")
    seen: set[str] = set()
    for data, name in evals:
        matrix(data, f"the evaluation set {name!r}")
        if "-" in name:
            # XGBoost joins names of data and metric with it.
            raise ValueError(f"the name of an evaluation set cannot have a '-': {name!r}")
        if ":" in name or any(map(str.isspace, name)):
            # It hands scores on as text.
            raise ValueError(
                f"the name of an evaluation set cannot have a ':' or a space: {name!r}"
            )
        if name in seen:
            raise ValueError(f"two evaluation sets are called {name!r}")
        seen.add(name)
        if not data.has_label:
            raise ValueError(f"the evaluation set {name!r} has no label")
        if data.num_col() != dtrain.num_col():
            raise ValueError(
                f"the evaluation set {name!r} has {data.num_col()} feature columns, but dtrain has"
                f" {dtrain.num_col()}"
            )


def _callbacks(callbacks: object) -> None:
    if callbacks is None:
        return
    if not isinstance(callbacks, Sequence):
        raise TypeError("callbacks must be a list")
    xgboost()
    from xgboost.callback import TrainingCallback

    # Who has made one of its callbacks has imported it.
    integration = sys.modules.get("skate.tune.integration.xgboost")
    for callback in callbacks:
        if integration and isinstance(callback, integration.TuneReportCheckpointCallback):
            raise TypeError(
                "skate.tune.integration.xgboost is for trials that train in their own process, and"
                " reports nothing from training actors: use TuneReportCheckpointCallback of"
                " skate.xgboost.tune, or none, as all scores are reported anyway"
            )
        if not isinstance(callback, TrainingCallback | TuneReportCallback):
            raise TypeError(
                "callbacks must be instances of xgboost.callback.TrainingCallback, not"
                f" {callback!r}"
            )


def received(results: object, name: str) -> None:
    """Refuse what cannot receive results: they are there only when the training is over.

    Raises:
        TypeError: it is no dict.
    """
    if results is not None and not isinstance(results, MutableMapping):
        raise TypeError(f"{name} must be a dict that receives them, not {results!r}")


def updates(params: Mapping[str, Any], elastic: bool) -> bool:
    """Say whether the training updates the trees of a model instead of adding some.

    Raises:
        ValueError: it is elastic, too.
    """
    if params.get("process_type") != "update":
        return False
    if elastic:
        raise ValueError(
            "process_type='update' and elastic_training do not go together: a training that updates"
            " trees cannot go on from a checkpoint"
        )
    return True


def threads(params: Mapping[str, Any], of_actor: int) -> int:
    """Return with how many threads an actor trains: no more than it has CPUs.

    Raises:
        ValueError: ``nthread`` is no number.
    """
    try:
        asked = int(params.get("nthread") or params.get("n_jobs") or 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"nthread must be a whole number: {error}") from error
    return min(asked, of_actor) if asked > 0 else of_actor


def print_period(verbose_eval: bool | int | None) -> int:
    """Return from how many rounds one is printed; 0: none."""
    return int(verbose_eval or 0)


def model_bytes(model: Any) -> bytes | None:
    """Return a model that a user passes, in any of its forms, as bytes.

    Raises:
        TypeError: it is no model.
        ValueError: no bytes.
        XGBoostError: a file that does not exist or holds no model.
    """
    if model is None:
        return None
    if isinstance(model, bytes | bytearray):
        if not model:
            # Of which XGBoost ends the process.
            raise ValueError("the bytes of a model are empty")
        return bytes(model)
    library = xgboost()
    if isinstance(model, str | os.PathLike):
        model = library.Booster(model_file=os.fspath(model))
    elif not isinstance(model, library.Booster):
        # The estimators of xgboost.
        get_booster = getattr(model, "get_booster", None)
        if get_booster is None:
            raise TypeError(f"a model is a Booster, a file or bytes, not {model!r}")
        model = get_booster()
    return bytes(model.save_raw("ubj"))
