"""``MLflowLoggerCallback`` and ``setup_mlflow``, where Ray has them."""

from skate.tune.integration.mlflow import MLflowLoggerCallback, setup_mlflow

__all__ = ["MLflowLoggerCallback", "setup_mlflow"]
