"""Random search and grid search, built in."""

from __future__ import annotations

import math
import operator
import random
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from skate.tune.search import space as spaces
from skate.tune.search.functions import seeded
from skate.tune.search.points import Points
from skate.tune.search.sample import Domain
from skate.tune.search.searcher import FINISHED, Searcher


class BasicVariantGenerator(Searcher):
    """Draws every trial independently; grids are expanded into all their combinations.

    ``num_samples`` passes are made over the grids; parameters that are no grid are drawn anew for
    each trial (Bergstra & Bengio, "Random search for hyper-parameter optimization", JMLR 2012).

    Args:
        points_to_evaluate: configurations (or parts of them, the rest is drawn) to try first.  Each
            takes the place of one pass: grids that it does not set are still expanded.
        max_concurrent: how many trials may run at a time; 0 for as many as fit.
        constant_grid_search: draw what is no grid once per pass instead of once per trial.
        random_state: seed, or a generator of NumPy that gives one.  The same seed gives the same
            configurations, also where ``sample_from`` functions draw from the global generators of
            ``random`` and NumPy.
    """

    needs_metric = False
    _NO_STATE = ("_space", "_grid_size", "_calls_functions")

    def __init__(
        self,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        max_concurrent: int = 0,
        constant_grid_search: bool = False,
        random_state: Any = None,
    ) -> None:
        super().__init__()
        if max_concurrent < 0:
            raise ValueError(f"max_concurrent has to be at least 0, got {max_concurrent}")
        self._seeded = random_state is not None
        self._rng = random.Random(_seed(random_state))
        self._points = Points(points_to_evaluate)
        self._max_concurrent = max_concurrent
        self._constant_grid_search = constant_grid_search
        self._live: set[str] = set()
        self._space: Mapping[str, Any] = {}
        self._grid_size = 1
        self._calls_functions = False
        #: What was drawn for the current pass, if it is to stay for all of it.
        self._constants: dict[str, Any] = {}
        self._handed_out = 0
        self._num_samples = 1

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take the space; the objective makes no difference to random search."""
        self.learn_objective(metric, mode)
        if config:
            spaces.validate(config)
            self._points.check(config)
            if self._points.outside:
                warnings.warn("; ".join(self._points.outside), stacklevel=2)
            self._space = config
            self._grid_size = spaces.grid_size(config)
            self._calls_functions = spaces.has_functions(config)
        return True

    @property
    def is_endless(self) -> bool:
        """Yes."""
        return True

    def total(self, num_samples: int) -> int | None:
        """Return ``num_samples`` times the size of the grid; points that set grids count less."""
        self._num_samples = num_samples
        if num_samples == -1:
            return None
        points = [spaces.grid_size(self._space, point) for point in self._points.all()]
        passes = max(0, num_samples - len(points))
        return sum(points) + passes * self._grid_size

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Draw a configuration."""
        if self._max_concurrent and len(self._live) >= self._max_concurrent:
            return None
        position = self._position()
        if position is None:
            return FINISHED
        fixed, index = position
        if index == 0:
            self._constants.clear()
        point = spaces.grid_point(self._space, index, fixed)
        with seeded(self._rng) if self._seeded and self._calls_functions else nullcontext():
            config = spaces.resolve(self._space, self._draw, point, fixed)
        self._handed_out += 1
        self._live.add(trial_id)
        return config

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room for the next trial."""
        self._live.discard(trial_id)

    def _position(self) -> tuple[Mapping[str, Any], int] | None:
        """Return what the next trial is made from: a point, and where on the grid it is."""
        index = self._handed_out
        points = self._points.all()
        for point in points:
            size = spaces.grid_size(self._space, point)
            if index < size:
                return point, index
            index -= size
        size = self._grid_size
        limit = math.inf if self._num_samples == -1 else self._num_samples - len(points)
        return ({}, index % size) if index // size < limit else None

    def _draw(self, name: str, domain: Domain) -> Any:
        if not self._constant_grid_search:
            return domain.sample(self._rng)
        if name not in self._constants:
            self._constants[name] = domain.sample(self._rng)
        return self._constants[name]


def _seed(random_state: Any) -> int:
    """Return a seed for what the user gave, which may be one or a generator of NumPy.

    Raises:
        TypeError: it is neither.
    """
    if random_state is None:
        # From the global generator, so that `random.seed(0)` in a script is honoured.
        return random.getrandbits(64)
    draw = getattr(random_state, "integers", None) or getattr(random_state, "randint", None)
    try:
        return operator.index(random_state if draw is None else draw(2**31 - 1))
    except TypeError:
        raise TypeError(f"random_state wants an integer, got {random_state!r}") from None
