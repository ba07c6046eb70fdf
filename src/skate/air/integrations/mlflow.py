"""``MLflowLoggerCallback``, where Ray has it."""

from skate.tune.logger import MLflowLoggerCallback

__all__ = ["MLflowLoggerCallback"]
