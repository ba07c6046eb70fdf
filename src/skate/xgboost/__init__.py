"""Distributed XGBoost: training actors, one model.

    from skate.xgboost import RayDMatrix, RayParams, train

    model = train(
        {"objective": "binary:logistic"},
        RayDMatrix(x, y),
        num_boost_round=50,
        ray_params=RayParams(num_actors=2),
    )

The model is an ordinary ``xgboost.Booster``.  The names are those of ``xgboost_ray``.  XGBoost
itself is imported when something is trained or predicted: ``pip install 'skate[xgboost]'``.
"""

from typing import TYPE_CHECKING, Any

from skate._version import __version__
from skate.xgboost.data.places import RayFileType
from skate.xgboost.data.sharding import RayShardingMode
from skate.xgboost.errors import (
    ActorFailure,
    RayXGBoostTrainingError,
    TrainingFailedError,
    XGBoostNotInstalledError,
)
from skate.xgboost.matrix import (
    Data,
    RayDeviceQuantileDMatrix,
    RayDMatrix,
    RayQuantileDMatrix,
    combine_data,
)
from skate.xgboost.params import RayParams
from skate.xgboost.prediction import predict
from skate.xgboost.training import train

if TYPE_CHECKING:
    from skate.xgboost.sklearn import (
        RayXGBClassifier,
        RayXGBRanker,
        RayXGBRegressor,
        RayXGBRFClassifier,
        RayXGBRFRegressor,
    )

__all__ = [
    "ActorFailure",
    "Data",
    "RayDMatrix",
    "RayDeviceQuantileDMatrix",
    "RayFileType",
    "RayParams",
    "RayQuantileDMatrix",
    "RayShardingMode",
    "RayXGBClassifier",
    "RayXGBRFClassifier",
    "RayXGBRFRegressor",
    "RayXGBRanker",
    "RayXGBRegressor",
    "RayXGBoostTrainingError",
    "TrainingFailedError",
    "XGBoostNotInstalledError",
    "__version__",
    "combine_data",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    # The estimators import XGBoost and scikit-learn, which takes a second.
    if name.startswith("RayXGB") and name in __all__:
        from skate.xgboost import sklearn

        return getattr(sklearn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
