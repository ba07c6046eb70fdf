"""Where ``xgboost_ray`` has the functions, for scripts that import them from there."""

from skate.xgboost.errors import RayXGBoostTrainingError
from skate.xgboost.params import RayParams
from skate.xgboost.prediction import predict
from skate.xgboost.training import train

__all__ = ["RayParams", "RayXGBoostTrainingError", "predict", "train"]
