"""Random search and grid search, built in."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skate.tune.search import space as spaces
from skate.tune.search.points import Points
from skate.tune.search.sample import Domain
from skate.tune.search.searcher import FINISHED, Searcher


class BasicVariantGenerator(Searcher):
    """Draws every trial independently; grids are expanded into all their combinations.

    ``num_samples`` passes are made over the grids; parameters that are no grid are drawn anew for
    each trial (Bergstra & Bengio, "Random search for hyper-parameter optimization", JMLR 2012).

    Args:
        points_to_evaluate: configurations (or parts of them, the rest is drawn) to try first.
        max_concurrent: how many trials may run at a time; 0 for as many as fit.
        random_state: seed.  The same seed gives the same configurations.
    """

    def __init__(
        self,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        max_concurrent: int = 0,
        random_state: int | None = None,
    ) -> None:
        super().__init__()
        # Drawn from the global generator, so that `random.seed(0)` in a script is honoured.
        seed = random.getrandbits(64) if random_state is None else random_state
        self._rng = random.Random(seed)
        self._points = Points(points_to_evaluate)
        self._max_concurrent = max_concurrent
        self._live: set[str] = set()
        self._space: Mapping[str, Any] = {}
        self._grid: Iterator[dict[str, Any]] = iter(())
        self._remaining = 1.0

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take the space; the objective makes no difference to random search."""
        super().set_search_properties(metric, mode, config, **spec)
        if config:
            spaces.validate(config)
            self._points.check(config)
            self._space = config
        return True

    def total(self, num_samples: int) -> int | None:
        """Return ``num_samples`` times the size of the grid."""
        size = math.prod(len(values) for values in spaces.grids(self._space).values())
        self._remaining = math.inf if num_samples == -1 else num_samples * size
        return None if num_samples == -1 else num_samples * size

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Draw a configuration."""
        if self._max_concurrent and len(self._live) >= self._max_concurrent:
            return None
        if self._remaining <= 0:
            return FINISHED
        self._remaining -= 1
        point = self._points.next()
        grid_point = next(self._grid, None)
        if grid_point is None:
            self._grid = spaces.grid_points(self._space)
            grid_point = next(self._grid)
        fixed = point or {}
        grid_point = {name: fixed.get(name, value) for name, value in grid_point.items()}

        def draw(name: str, domain: Domain) -> Any:
            return fixed[name] if name in fixed else domain.sample(self._rng)

        self._live.add(trial_id)
        return spaces.resolve(self._space, draw, grid_point)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room for the next trial."""
        self._live.discard(trial_id)
