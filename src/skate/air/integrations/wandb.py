"""``WandbLoggerCallback``, where Ray has it."""

from skate.tune.logger import WandbLoggerCallback

__all__ = ["WandbLoggerCallback"]
