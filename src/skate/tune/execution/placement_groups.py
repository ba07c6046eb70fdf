"""``PlacementGroupFactory``, where Ray Tune has it."""

from skate.tune.resources import PlacementGroupFactory

__all__ = ["PlacementGroupFactory"]
