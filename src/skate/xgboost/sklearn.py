"""The estimators of XGBoost, trained on several actors.

They are those of ``xgboost.sklearn`` with two steps of ``fit`` exchanged: what it makes of the
data, and what it trains with.  Everything else, checks and attributes included, is XGBoost's own.
Predictions are made in this process; ``skate.xgboost.predict`` distributes them.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from skate.xgboost import library
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.params import RayParams
from skate.xgboost.params import ray_params as as_ray_params
from skate.xgboost.training import train

library.xgboost()

from xgboost import sklearn as plain  # noqa: E402  # one that is missing has our own error first

__all__ = [
    "RayXGBClassifier",
    "RayXGBRFClassifier",
    "RayXGBRFRegressor",
    "RayXGBRanker",
    "RayXGBRegressor",
]


class _Matrix(RayDMatrix):
    """Data of an estimator, which knows how its training is distributed."""

    distribution: RayParams
    additional_results: dict[str, Any]


def _train(params: Mapping[str, Any], dtrain: _Matrix, *rounds: Any, **options: Any) -> Any:
    # The number of jobs says how many actors there are, not how many threads each has.
    own = {name: value for name, value in params.items() if name not in ("n_jobs", "nthread")}
    return train(
        own,
        dtrain,
        *rounds,
        **options,
        additional_results=dtrain.additional_results,
        ray_params=dtrain.distribution,
    )


def _distributed(fit: Any) -> Any:
    """Return a ``fit`` of XGBoost that trains with ``_train``.

    It is the same function in a module that differs in this one name: neither the module that all
    others use nor any version of its code is changed or repeated here.
    """
    original = inspect.unwrap(fit)
    made = types.FunctionType(
        original.__code__,
        {**vars(plain), "train": _train},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    made.__kwdefaults__ = original.__kwdefaults__
    return made


def _with_ray_params(fit: Callable[..., Any], original: Any) -> Callable[..., Any]:
    """Return a method ``fit`` that takes what XGBoost's takes, and ``ray_params``."""

    def distributed(
        self: Any, *args: Any, ray_params: RayParams | Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """Fit as in ``xgboost.sklearn``; ``ray_params`` goes before that of the constructor."""
        self._fit_ray_params = ray_params
        try:
            return fit(self, *args, **more)
        finally:
            del self._fit_ray_params

    # scikit-learn looks the arguments up: sample weights, for instance.
    signature = inspect.signature(inspect.unwrap(original))
    extra = inspect.Parameter("ray_params", inspect.Parameter.KEYWORD_ONLY, default=None)
    distributed.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions have it
        parameters=[*signature.parameters.values(), extra]
    )
    distributed.__name__ = "fit"
    return distributed


class _Distributed:
    """What is different in all of them.

    Args:
        ray_params: how the training is distributed; ``n_jobs`` is the number of actors if this
            does not say it, and 1 if that is not given either: one actor with all CPUs.
        options: parameters of XGBoost's estimator.
    """

    def __init__(
        self, *, ray_params: RayParams | Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.ray_params = ray_params

    def _wrapper_params(self) -> set[str]:
        names: set[str] = super()._wrapper_params()  # type: ignore[misc]  # XGBoost's, below us
        return names | {"ray_params"}

    def _create_dmatrix(self, ref: Any, **given: Any) -> _Matrix:
        matrix = _Matrix(**_arguments(given))
        matrix.distribution = self._distribution()
        self.additional_results_: dict[str, Any] = {}
        matrix.additional_results = self.additional_results_
        return matrix

    def _distribution(self) -> RayParams:
        given = getattr(self, "_fit_ray_params", None)
        chosen = as_ray_params(self.ray_params if given is None else given)
        jobs: Any = getattr(self, "n_jobs", None)
        if chosen.num_actors or not jobs or jobs < 0:
            return chosen
        return RayParams(**{**vars(chosen), "num_actors": int(jobs)})


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``RayDMatrix`` for those of ``xgboost.DMatrix``."""
    import numpy as np

    arguments = {name: value for name, value in given.items() if value is not None}
    group = arguments.pop("group", None)
    if group is not None:
        arguments["qid"] = np.repeat(np.arange(len(group)), group)
    data = arguments["data"]
    module = type(data).__module__.partition(".")[0]
    if module == "scipy":
        arguments["data"] = data.tocsr()
    elif module == "sklearn" or not hasattr(data, "shape"):
        arguments["data"] = np.asarray(data)
    return arguments


_fit_model = _distributed(plain.XGBModel.fit)
_fit_classifier = _distributed(plain.XGBClassifier.fit)


def _fit_forest(fit: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: Any, *args: Any, **more: Any) -> Any:
        plain._check_rf_callback(self.early_stopping_rounds, self.callbacks)
        return fit(self, *args, **more)

    return checked


class RayXGBRegressor(_Distributed, plain.XGBRegressor):  # type: ignore[misc]  # untyped bases
    """``xgboost.XGBRegressor``."""

    fit = _with_ray_params(_fit_model, plain.XGBModel.fit)


class RayXGBClassifier(_Distributed, plain.XGBClassifier):  # type: ignore[misc]  # untyped bases
    """``xgboost.XGBClassifier``."""

    fit = _with_ray_params(_fit_classifier, plain.XGBClassifier.fit)


class RayXGBRFRegressor(_Distributed, plain.XGBRFRegressor):  # type: ignore[misc]  # untyped bases
    """``xgboost.XGBRFRegressor``."""

    fit = _with_ray_params(_fit_forest(_fit_model), plain.XGBRFRegressor.fit)


class RayXGBRFClassifier(_Distributed, plain.XGBRFClassifier):  # type: ignore[misc]  # untyped bases
    """``xgboost.XGBRFClassifier``."""

    fit = _with_ray_params(_fit_forest(_fit_classifier), plain.XGBRFClassifier.fit)


class RayXGBRanker(_Distributed, plain.XGBRanker):  # type: ignore[misc]  # untyped bases
    """``xgboost.XGBRanker``."""

    def _create_ltr_dmatrix(self, ref: Any, data: Any, qid: Any, **given: Any) -> Any:
        data, qid = plain._get_qid(data, qid)
        if given.get("group") is None and qid is None:
            raise ValueError("a ranker needs the query groups: fit(..., qid=...) or group=...")
        return self._create_dmatrix(ref, data=data, qid=qid, **given)

    fit = _with_ray_params(_distributed(plain.XGBRanker.fit), plain.XGBRanker.fit)
