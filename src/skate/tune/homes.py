"""Where trials run: their actors, and the placement groups of those that want several bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import skate
from skate.tune.class_runs import Saving
from skate.tune.resources import PlacementGroupFactory, actor_options
from skate.tune.trial_actor import TrialActor
from skate.tune.trial_folder import FolderUse
from skate.util.placement_group import placement_group, remove_placement_group
from skate.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@dataclass(slots=True, eq=False)
class Home:
    """An actor, and the placement group that it lives in, if its trials want one."""

    actor: Any
    resources: PlacementGroupFactory
    group: Any = None


class Homes:
    """Makes homes, and keeps those that are free for the next trial.

    Args:
        trainable: ref of what trials run.
        saving: when a class is asked for checkpoints; None for functions.
        reuse: whether a process may run one trial after another.
        folder_use: what trials do with their folders.
    """

    def __init__(
        self, trainable: Any, saving: Saving | None, reuse: bool, folder_use: FolderUse
    ) -> None:
        self._trainable = trainable
        self._saving = saving
        self._reuse = reuse
        self._folder_use = folder_use
        self._actor_class = skate.remote(TrialActor)
        self._idle: list[Home] = []
        self._free_groups: list[tuple[PlacementGroupFactory, Any]] = []
        self._groups: list[Any] = []

    # ---------------------------------------------------------------- finding

    def idle(self, resources: PlacementGroupFactory) -> Home | None:
        """Return a free home that gives ``resources``, None if there is none."""
        for position in range(len(self._idle) - 1, -1, -1):
            if self._idle[position].resources == resources:
                return self._idle.pop(position)
        return None

    def group(self, resources: PlacementGroupFactory) -> Any:
        """Return a placement group for ``resources``, which may have to be waited for."""
        for position, (shape, group) in enumerate(self._free_groups):
            if shape == resources:
                del self._free_groups[position]
                return group
        group = placement_group(resources.placed_bundles, strategy=resources.strategy)
        self._groups.append(group)
        return group

    def make(self, resources: PlacementGroupFactory, group: Any = None) -> Home:
        """Return a new home, in ``group`` if there is one."""
        options = actor_options(resources.head)
        if group is not None:
            # A process that needs nothing belongs to no bundle in particular.
            index = 0 if any(resources.head.values()) else -1
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, index, placement_group_capture_child_tasks=True
            )
        actor = self._actor_class.options(**options).remote(
            self._trainable, self._saving, resources, self._folder_use
        )
        return Home(actor, resources, group)

    # ---------------------------------------------------------------- giving back

    def keep(self, home: Home) -> bool:
        """Keep a home for the next trial; say whether homes are reused at all."""
        if self._reuse:
            self._idle.append(home)
        return self._reuse

    def take_others(self, resources: PlacementGroupFactory) -> list[Home]:
        """Return the free homes that give something else: what they hold may be needed."""
        others = [home for home in self._idle if home.resources != resources]
        self._idle = [home for home in self._idle if home.resources == resources]
        for shape, group in [free for free in self._free_groups if free[0] != resources]:
            self._free_groups.remove((shape, group))
            self.remove_group(group)
        return others

    def take_idle(self) -> list[Home]:
        """Return all free homes."""
        idle, self._idle = self._idle, []
        return idle

    def destroy(self, home: Home, keep_group: bool) -> None:
        """End the actor; its placement group may serve the next one."""
        skate.kill(home.actor)
        if home.group is not None:
            if keep_group:
                self._free_groups.append((home.resources, home.group))
            else:
                self.remove_group(home.group)

    def remove_group(self, group: Any) -> None:
        """Give back what a placement group holds."""
        self._groups.remove(group)
        remove_placement_group(group)

    def remove_groups(self) -> None:
        """Give back what all placement groups hold; nothing runs in them any more."""
        for group in list(self._groups):
            self.remove_group(group)
        self._free_groups.clear()
