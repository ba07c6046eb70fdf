"""Where ``Repeater`` was found in 2022."""

from skate.tune.search.repeater import TRIAL_INDEX, Repeater

__all__ = ["TRIAL_INDEX", "Repeater"]
