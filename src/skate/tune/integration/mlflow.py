"""``MLflowLoggerCallback``, where Ray Tune had it in 2022."""

from skate.tune.logger import MLflowLoggerCallback

__all__ = ["MLflowLoggerCallback"]
