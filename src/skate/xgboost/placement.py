"""Where the actors of a training run, and what each of them asks the cluster for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.util.placement_group import (
    PlacementGroup,
    placement_group,
    remove_placement_group,
)
from skate.util.scheduling_strategies import PlacementGroupSchedulingStrategy


class Placement:
    """The resources of all actors, reserved together.

    A training gets either all that it needs or nothing.  If each actor asked for its own, two
    trainings might end up with half of their actors each, and wait for the other half for ever.  An
    actor that is replaced finds its place reserved.

    Args:
        each: what each actor asks for, by name.
        num_actors: how many there are.
        options: of the placement group.
        reserve: whether to make one: not for a single actor, nor in the group of a trial.
    """

    def __init__(
        self,
        each: Mapping[str, float],
        num_actors: int,
        options: Mapping[str, Any],
        *,
        reserve: bool,
    ) -> None:
        self._each = dict(each)
        self._group: PlacementGroup | None = None
        if reserve and num_actors > 1 and self._each:
            self._group = placement_group([self._each] * num_actors, **options)

    def amounts(self) -> dict[str, float]:
        """Return what an actor asks for."""
        return self._each

    def options(self, rank: int) -> dict[str, Any]:
        """Return how it is to be scheduled."""
        if self._group is None:
            return {}
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
        return {"scheduling_strategy": strategy}

    def give_back(self) -> None:
        """Give everything back, once the actors have ended."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None
