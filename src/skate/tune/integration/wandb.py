"""``WandbLoggerCallback``, where Ray Tune had it in 2022."""

from skate.tune.logger import WandbLoggerCallback

__all__ = ["WandbLoggerCallback"]
