"""``TrialContext``: where a trial runs, for its function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skate.tune.resources import PlacementGroupFactory


class TrialContext:
    """Where a trial's function runs."""

    def __init__(
        self,
        trial_id: str,
        trial_dir: str | None,
        experiment: str,
        name: str | None = None,
        resources: PlacementGroupFactory | None = None,
    ) -> None:
        self._trial_id = trial_id
        self._name = trial_id if name is None else name
        self._trial_dir = trial_dir
        self._experiment = experiment
        self._resources = resources

    def get_trial_id(self) -> str:
        """Return the id of the trial."""
        return self._trial_id

    def get_trial_name(self) -> str:
        """Return the name of the trial: its id, unless the run gives names."""
        return self._name

    def get_trial_dir(self) -> str | None:
        """Return the folder with the trial's files; None if the run keeps none."""
        return self._trial_dir

    def get_trial_resources(self) -> PlacementGroupFactory | None:
        """Return what the trial was given to run with."""
        return self._resources

    def get_experiment_name(self) -> str:
        """Return the name of the run."""
        return self._experiment

    # A trial is one process here.  Functions written for several ask all the same.

    def get_world_size(self) -> int:
        """Return 1: how many processes train together."""
        return 1

    def get_world_rank(self) -> int:
        """Return 0: which of them this one is."""
        return 0

    def get_local_world_size(self) -> int:
        """Return 1: how many of them are on this machine."""
        return 1

    def get_local_rank(self) -> int:
        """Return 0: which of those this one is."""
        return 0

    def get_node_rank(self) -> int:
        """Return 0: which of their machines this one is."""
        return 0


#: Ray's name for it.
TuneContext = TrialContext
