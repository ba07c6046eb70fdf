"""The estimators of XGBoost, trained on several actors.

They are those of ``xgboost.sklearn`` with two steps of ``fit`` exchanged: what it makes of the
data, and what it trains with.  Everything else, checks and attributes included, is XGBoost's own.
Predictions are made in this process, or by actors where ``ray_params`` or a ``RayDMatrix`` is
passed.
"""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skate.xgboost import library, prediction
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.params import RayParams
from skate.xgboost.params import ray_params as as_ray_params
from skate.xgboost.training import train

library.xgboost()

from xgboost import sklearn as plain  # noqa: E402  # one that is missing has our own error first
from xgboost.core import _deprecate_positional_args  # noqa: E402

__all__ = [
    "RayXGBClassifier",
    "RayXGBRFClassifier",
    "RayXGBRFRegressor",
    "RayXGBRanker",
    "RayXGBRegressor",
]

#: Arguments of ``fit`` in XGBoost before 2.1, and so in ``xgboost_ray``.
_MOVED = ("eval_metric", "early_stopping_rounds", "callbacks")


@dataclass(frozen=True, slots=True)
class _Fit:
    """One call of ``fit``, and what it does for XGBoost's code.

    Attributes:
        estimator: whose it is.
        distribution: how the training is distributed.
        matrix_options: arguments of ``RayDMatrix`` that go before those of ``fit``.
    """

    estimator: Any
    distribution: RayParams
    matrix_options: Mapping[str, Any]

    def with_code_of(self, fit: Any) -> Callable[..., Any]:
        """Return a ``fit`` of XGBoost that works with matrices of ours, and trains with ``train``.

        It is the same function in a module that differs in these two names: neither the module that
        all others use nor any version of its code is changed or repeated here.
        """
        exchanged = {"train": self.train, "_wrap_evaluation_matrices": self.matrices}
        made = types.FunctionType(
            fit.__code__,
            {**vars(plain), **exchanged},
            fit.__name__,
            fit.__defaults__,
            fit.__closure__,
        )
        made.__kwdefaults__ = fit.__kwdefaults__
        return made

    def train(
        self, params: Mapping[str, Any], dtrain: RayDMatrix, *rounds: Any, **options: Any
    ) -> Any:
        """Train; the number of jobs says how many actors there are, not how many threads."""
        own = {name: value for name, value in params.items() if name not in ("n_jobs", "nthread")}
        if getattr(self.estimator, "n_classes_", 3) <= 2:
            # Who trains on a ``RayDMatrix`` has to say it, and XGBoost counts one for two.
            own.pop("num_class", None)
        results: dict[str, Any] = {}
        self.estimator.additional_results_ = results
        return train(
            own,
            dtrain,
            *rounds,
            **options,
            additional_results=results,
            ray_params=self.distribution,
        )

    def matrices(self, *, X: Any, **given: Any) -> tuple[Any, list[tuple[Any, str]]]:  # noqa: N803  # scikit-learn's name
        """Return the training matrix, and those to score with their names."""
        eval_set = given["eval_set"] or ()
        if not isinstance(X, RayDMatrix):
            if any(isinstance(part, RayDMatrix) for pair in eval_set for part in pair):
                raise TypeError(
                    "eval_set has a RayDMatrix, but X is none: pass both in the same way"
                )
            given["create_dmatrix"] = self._create(given["create_dmatrix"])
            made: tuple[Any, list[tuple[Any, str]]] = plain._wrap_evaluation_matrices(X=X, **given)
            return made
        if not all(
            len(pair) == 2 and isinstance(pair[0], RayDMatrix) and isinstance(pair[1], str)
            for pair in eval_set
        ):
            raise TypeError("if X is a RayDMatrix, eval_set is a list of (RayDMatrix, name)")
        return X, [(matrix, name) for matrix, name in eval_set]

    def _create(self, original: Any) -> Callable[..., RayDMatrix]:
        ranks = original == getattr(self.estimator, "_create_ltr_dmatrix", None)

        def create(*, ref: Any, **given: Any) -> RayDMatrix:
            if ranks:
                given["data"], given["qid"] = plain._get_qid(given["data"], given["qid"])
                if given.get("group") is None and given["qid"] is None:
                    raise ValueError(
                        "a ranker needs the query groups: fit(..., qid=...) or group=..."
                    )
            return RayDMatrix(**{**_arguments(given), **self.matrix_options})

        return create


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


def _taking_ours(method: Callable[..., Any], original: Any) -> Callable[..., Any]:
    """Give a method the name and signature of XGBoost's, and our arguments beside."""
    # scikit-learn looks the arguments up: sample weights, for instance.
    signature = inspect.signature(inspect.unwrap(original))
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in ("ray_params", "ray_dmatrix_params", "_remote")
    ]
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions have it
        parameters=[*signature.parameters.values(), *extra]
    )
    method.__name__ = original.__name__
    return method


def _fit(original: Any, before: Callable[[Any], None] | None = None) -> Callable[..., Any]:
    """Return a method ``fit`` that takes what XGBoost's takes, and ours."""

    def fit(
        self: Any,
        X: Any,  # noqa: N803  # scikit-learn's name
        y: Any = None,
        *args: Any,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        **more: Any,
    ) -> Any:
        """Fit as in ``xgboost.sklearn``.

        Args:
            X: as there, or a ``RayDMatrix``, which has labels, weights and so on of its own;
                ``eval_set`` is a list of pairs (``RayDMatrix``, name) then, and a classifier
                has to be made with ``num_class=``.
            ray_params: how the training is distributed; goes before that of the constructor.
            ray_dmatrix_params: further arguments of the ``RayDMatrix`` that is made of ``X``.
            _remote: of no meaning; for scripts that pass it to ``xgboost_ray``.
        """
        for name in _MOVED:
            if name in more:
                raise TypeError(
                    f"fit() has no argument {name!r}: since XGBoost 2.1 it belongs to the"
                    f" constructor, {type(self).__name__}({name}=...)"
                )
        if before is not None:
            before(self)
        if isinstance(X, RayDMatrix):
            y = _labels_for(self, y, more)
        one = _Fit(self, self._distribution(ray_params), ray_dmatrix_params or {})
        return one.with_code_of(inspect.unwrap(original))(self, X, y, *args, **more)

    return _taking_ours(fit, original)


def _labels_for(estimator: Any, y: Any, more: Mapping[str, Any]) -> Any:
    """Return what stands for the labels of a ``RayDMatrix``: XGBoost counts the classes in it."""
    import numpy as np

    given = {"y": y, **{name: more.get(name) for name in ("sample_weight", "base_margin", "qid")}}
    ignored = [name for name, value in given.items() if value is not None]
    if ignored:
        warnings.warn(
            f"X is a RayDMatrix, which has all that belongs to its rows: {', '.join(ignored)}"
            " is ignored",
            stacklevel=3,
        )
    if not isinstance(estimator, plain.XGBClassifier):
        return None
    classes = estimator.get_xgb_params().get("num_class")
    if not classes:
        raise ValueError(
            "how many classes a RayDMatrix has is not known before it is read:"
            f" {type(estimator).__name__}(num_class=...)"
        )
    return np.arange(classes)


@dataclass(frozen=True, slots=True)
class _Question:
    """What ``predict`` of XGBoost hands on as its data, where actors are going to answer."""

    matrix: RayDMatrix
    distribution: RayParams


class _Answers(plain.XGBModel):
    """Behind XGBoost's estimators: what their ``predict`` calls for raw predictions."""

    @_deprecate_positional_args
    def predict(
        self,
        X: Any,  # noqa: N803  # scikit-learn's name
        *,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> Any:
        """Predict here, or by actors."""
        options: dict[str, Any] = {
            "output_margin": output_margin,
            "validate_features": validate_features,
        }
        if not isinstance(X, _Question):
            return super().predict(
                X, **options, base_margin=base_margin, iteration_range=iteration_range
            )
        # The margin is in the matrix.
        options["iteration_range"] = self._get_iteration_range(iteration_range)
        return prediction.predict(self.get_booster(), X.matrix, X.distribution, **options)


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

    def _distribution(self, given: RayParams | Mapping[str, Any] | None) -> RayParams:
        chosen = as_ray_params(self.ray_params if given is None else given)
        jobs: Any = getattr(self, "n_jobs", None)
        if chosen.num_actors or not jobs or jobs < 0:
            return chosen
        return RayParams(**{**vars(chosen), "num_actors": int(jobs)})

    def _question(
        self, data: Any, base_margin: Any, ray_params: Any, options: Mapping[str, Any] | None
    ) -> Any:
        """Return what XGBoost's code is to predict for."""
        if not isinstance(data, RayDMatrix):
            if ray_params is None and options is None:
                return data
            if isinstance(self, plain.XGBRanker):
                data, _ = plain._get_qid(data, None)
            given = {
                "data": data,
                "base_margin": base_margin,
                **{name: getattr(self, name) for name in _OF_MATRICES},
            }
            data = RayDMatrix(**{**_arguments(given), **(options or {})})
        return _Question(data, self._distribution(ray_params))


#: Parameters of estimators that are arguments of matrices.
_OF_MATRICES: Sequence[str] = ("missing", "feature_types", "enable_categorical")


def _predict(original: Any) -> Callable[..., Any]:
    """Return a method that predicts as XGBoost's does, and takes our arguments beside."""

    def predict(
        self: Any,
        X: Any,  # noqa: N803  # scikit-learn's name
        *args: Any,
        base_margin: Any = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        **more: Any,
    ) -> Any:
        """Predict as in ``xgboost.sklearn``.

        Args:
            X: as there, or a ``RayDMatrix``, for whose rows actors predict.
            ray_params: how the prediction is distributed.  Without it, it is made in this process.
            ray_dmatrix_params: further arguments of the ``RayDMatrix`` that is made of ``X``.
            _remote: of no meaning; for scripts that pass it to ``xgboost_ray``.
        """
        question = self._question(X, base_margin, ray_params, ray_dmatrix_params)
        return original(self, question, *args, base_margin=base_margin, **more)

    return _taking_ours(predict, original)


def _check_forest(estimator: Any) -> None:
    plain._check_rf_callback(estimator.early_stopping_rounds, estimator.callbacks)


# XGBoost's ``predict`` decides on classes, and asks the class behind it for the raw predictions.
class RayXGBRegressor(_Distributed, plain.XGBRegressor, _Answers):
    """``xgboost.XGBRegressor``."""

    fit = _fit(plain.XGBModel.fit)
    predict = _predict(_Answers.predict)


class RayXGBClassifier(_Distributed, plain.XGBClassifier, _Answers):
    """``xgboost.XGBClassifier``."""

    fit = _fit(plain.XGBClassifier.fit)
    predict = _predict(plain.XGBClassifier.predict)
    predict_proba = _predict(plain.XGBClassifier.predict_proba)


class RayXGBRFRegressor(_Distributed, plain.XGBRFRegressor, _Answers):
    """``xgboost.XGBRFRegressor``."""

    fit = _fit(plain.XGBModel.fit, _check_forest)
    predict = _predict(_Answers.predict)


class RayXGBRFClassifier(_Distributed, plain.XGBRFClassifier, _Answers):
    """``xgboost.XGBRFClassifier``."""

    fit = _fit(plain.XGBClassifier.fit, _check_forest)
    predict = _predict(plain.XGBClassifier.predict)
    predict_proba = _predict(plain.XGBClassifier.predict_proba)


class RayXGBRanker(_Distributed, plain.XGBRanker, _Answers):
    """``xgboost.XGBRanker``."""

    fit = _fit(plain.XGBRanker.fit)
    predict = _predict(plain.XGBRanker.predict)
