"""Population Based Bandits: PBT whose exploration learns what pays when."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

from skate.tune.schedulers.explore import Explore
from skate.tune.schedulers.pbt import Member, PopulationBasedTraining
from skate.tune.schedulers.trial_scheduler import Controller
from skate.tune.search.sample import Float
from skate.tune.search.space import join
from skate.tune.trial import Trial

#: Scores beyond that teach the bandit nothing: their squares are no numbers.
LARGEST = 1e100


class PB2(PopulationBasedTraining):
    """Population Based Training for small populations.

    Who takes over whom is decided as in ``PopulationBasedTraining``.  What the copy goes on with is
    not a random change but the proposal of a bandit: a Gaussian process over time, score and
    configuration models how fast the score grows, older observations fade, and of all
    configurations within bounds the one with the largest upper confidence bound is taken.  What the
    other trials try at the moment counts as known, so that trials do not all try the same.

    Source: Parker-Holder et al., "Provably efficient online hyperparameter optimization with
    population-based bandits", NeurIPS 2020.

    Args:
        time_attr: the field of a result that measures how far a trial is; it has to grow.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        perturbation_interval: how far trials go from one judgement to the next, in units of
            ``time_attr``.
        hyperparam_bounds: by name the least and the largest value, or a dict of those for a nested
            configuration.  A parameter that is an integer in the configuration stays one.  What
            the run's space lacks is drawn uniformly.
        quantile_fraction, log_config, require_attrs, synch, custom_explore_fn: as for
            ``PopulationBasedTraining``.

    Raises:
        ImportError: NumPy is missing.
        TypeError, ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        hyperparam_bounds: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
        custom_explore_fn: Explore | None = None,
    ) -> None:
        try:
            import numpy  # noqa: F401
        except ImportError as error:
            raise ImportError("PB2 needs NumPy: pip install 'skate[tune]'") from error
        if not hyperparam_bounds:
            raise ValueError(
                "PB2 has nothing to change; say what, and between which bounds:"
                " hyperparam_bounds={'lr': [1e-4, 1e-1]}"
            )
        super().__init__(
            time_attr,
            metric,
            mode,
            perturbation_interval,
            hyperparam_mutations=_as_domains(hyperparam_bounds),
            quantile_fraction=quantile_fraction,
            resample_probability=0.0,
            custom_explore_fn=custom_explore_fn,
            log_config=log_config,
            require_attrs=require_attrs,
            synch=synch,
        )
        self.hyperparam_bounds = copy.deepcopy(dict(hyperparam_bounds))
        self._bounds = dict(_paths(self.hyperparam_mutations))
        #: Rows: time and score where a stretch of training began, its configuration, growth.
        self._observations: list[list[float]] = []
        #: Time and score where the present stretch of each trial began.
        self._begin: dict[str, tuple[float, float]] = {}

    def on_judged(
        self, trial: Trial, member: Member, time: float, result: Mapping[str, object]
    ) -> None:
        """Learn how fast the score has grown with the configuration of the trial."""
        score = self.score(result)
        assert score is not None
        begin = self._begin.pop(trial.trial_id, None)
        if not abs(score) <= LARGEST:
            return
        if begin is not None and time > begin[0]:
            growth = (score - begin[1]) / (time - begin[0])
            self._observations.append([*begin, *self._values(trial.config), growth])
        self._begin[trial.trial_id] = (time, score)

    def new_config(self, controller: Controller, trial: Trial, source: Trial) -> dict[str, Any]:
        """Return what the bandit proposes; a random draw as long as it knows nothing."""
        import numpy as np

        from skate.tune.schedulers.time_varying_bandit import WINDOW, propose

        bounds = np.array([[b.lower, b.upper] for b in self._bounds.values()], float).T
        rng = np.random.default_rng(self._random.getrandbits(64))
        begin = self._begin.get(source.trial_id)
        del self._observations[:-WINDOW]
        if self._observations and begin is not None:
            table = np.array(self._observations)
            others = [
                self._values(other.config)
                for other in controller.live_trials
                if other.trial_id != trial.trial_id
            ]
            drawn = propose(
                table[:, :-1], table[:, -1], np.array(others), np.array(begin), bounds, rng
            )
        else:
            drawn = rng.uniform(bounds[0], bounds[1])
        if begin is None:
            self._begin.pop(trial.trial_id, None)
        else:
            self._begin[trial.trial_id] = begin
        config = copy.deepcopy(source.config)
        for (path, domain), value in zip(self._bounds.items(), drawn, strict=True):
            holder = config
            for key in path[:-1]:
                holder = holder[key]
            if isinstance(holder[path[-1]], int):
                inside = min(max(round(float(value)), math.ceil(domain.lower)), domain.upper)
                holder[path[-1]] = int(inside)
            else:
                holder[path[-1]] = float(value)
        return config

    def _values(self, config: Mapping[str, Any]) -> list[float]:
        values = []
        for path in self._bounds:
            value: Any = config
            for key in path:
                value = value[key]
            values.append(float(value))
        return values


def _as_domains(bounds: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    domains: dict[str, Any] = {}
    for key, pair in bounds.items():
        path = join(name, key)
        if isinstance(pair, Mapping):
            domains[key] = _as_domains(pair, path)
            continue
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError(
                f"hyperparam_bounds[{path!r}] wants two numbers, [least, largest], got {pair!r}"
            )
        lower, upper = pair
        if not lower < upper:
            raise ValueError(
                f"hyperparam_bounds[{path!r}]: the least value has to be below the largest,"
                f" got {pair!r}"
            )
        domains[key] = Float(float(lower), float(upper))
    return domains


def _paths(
    domains: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Float]]:
    for key, below in domains.items():
        if isinstance(below, Float):
            yield (*above, key), below
        else:
            yield from _paths(below, (*above, key))
