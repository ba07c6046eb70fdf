"""``WandbLoggerCallback`` and ``setup_wandb``, where Ray has them."""

from skate.tune.integration.wandb import WandbLoggerCallback, setup_wandb

__all__ = ["WandbLoggerCallback", "setup_wandb"]
