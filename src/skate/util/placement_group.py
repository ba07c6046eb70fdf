"""Placement groups: resources reserved together."""

import sys
import types
from typing import Any

from skate.api.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

__all__ = [
    "PlacementGroup",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]


class _CallableModule(types.ModuleType):
    # In Ray ``util.placement_group`` is this function and this module.  Importing the module makes
    # it the attribute of its package, so it has to do the function's work as well.
    def __call__(self, *args: Any, **kwargs: Any) -> PlacementGroup:
        return placement_group(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
