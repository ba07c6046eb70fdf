"""``OptunaSearch``: the searcher contract on top of Optuna's ask and tell."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skate.tune.search import space as spaces
from skate.tune.search.optuna.convert import suggest, to_optuna
from skate.tune.search.points import Points
from skate.tune.search.searcher import Searcher

if TYPE_CHECKING:
    import optuna


class OptunaSearch(Searcher):
    """Search with Optuna.

    Trials that a scheduler ended early are told to Optuna as pruned, with the last value they
    reached: they rank behind every trial that ran to its end instead of being compared with it.

    Source of the default sampler: Bergstra et al., "Algorithms for hyper-parameter optimization",
    NeurIPS 2011.

    Args:
        space: the search space, if it is not given to ``tune.run``: a dict of Skate's domains, a
            dict of Optuna's distributions, or a function that calls ``trial.suggest_*`` ("define
            by run") and may return a dict of constants.
        metric: what to optimize; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        points_to_evaluate: configurations (or parts of them) to try first.
        sampler: any Optuna sampler; the default is ``TPESampler(constant_liar=True, seed=seed)``,
            which knows that several trials run at a time.
        study_name: name of the study in ``storage``.
        storage: an Optuna storage; the default keeps the study in memory.
        seed: the same seed and the same results give the same suggestions.

    Raises:
        ImportError: Optuna is not installed.
    """

    def __init__(
        self,
        space: Mapping[str, Any] | Callable[[optuna.trial.Trial], Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        *,
        study_name: str | None = None,
        storage: optuna.storages.BaseStorage | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(metric, mode)
        self._optuna = _import_optuna()
        if seed is None:
            # Drawn from the global generator, so that `random.seed(0)` in a script is honoured.
            seed = random.getrandbits(31)
        self._rng = random.Random(seed)
        self._sampler = sampler if sampler is not None else self._default_sampler(seed)
        self._study_name = study_name
        self._storage = storage
        self._points = Points(points_to_evaluate)
        self._own_space = space
        self._space: Mapping[str, Any] = {}
        self._function: Callable[[optuna.trial.Trial], Any] | None = None
        self._distributions: dict[str, Any] = {}
        self._take(space)
        self._study: optuna.study.Study | None = None
        self._sign = 1.0
        self._asked: dict[str, optuna.trial.Trial] = {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Learn the objective, and the space unless the searcher brought one."""
        self.metric = metric
        self.mode = mode
        if self._study is not None and mode == "max":
            directions = self._study.directions
            # The study began before the mode was known, and minimizes.
            self._sign = -1.0 if directions[0].name == "MINIMIZE" else 1.0
        if not config:
            return True
        if spaces.grids(config):
            name = next(iter(spaces.grids(config)))
            raise ValueError(
                f"{name}: Optuna cannot enumerate a grid_search; use tune.choice, or"
                " search_alg='random'"
            )
        if self._own_space is not None:
            # The configuration of the run may add constants, nothing to draw.
            return not spaces.has_variables(config)
        self._take(config)
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask Optuna for a configuration."""
        study = self._started()
        if self._function is not None:
            trial = study.ask()
            constants = self._function(trial) or {}
            config = {**constants, **_nest(trial.params)}
        elif self._distributions:
            trial = study.ask(self._distributions)
            config = _nest(trial.params)
        else:
            trial = study.ask()
            config = spaces.resolve(
                self._space, lambda name, domain: suggest(trial, name, domain, self._rng)
            )
        self._asked[trial_id] = trial
        return config

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the value of a trial, or that it failed or was ended early."""
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return
        study = self._started()
        state = self._optuna.trial.TrialState
        value = self._value(result)
        if error or value is None:
            study.tell(trial, state=state.FAIL)
            return
        if result is not None and result.get("early_stopped"):
            trial.report(value, step=int(result.get("training_iteration", 1)))
            study.tell(trial, state=state.PRUNED)
            return
        study.tell(trial, value)

    @property
    def study(self) -> optuna.study.Study:
        """The study that is asked and told."""
        return self._started()

    def _take(self, space: Mapping[str, Any] | Callable[[Any], Any] | None) -> None:
        if space is None:
            return
        if callable(space):
            self._function = space
            return
        spaces.validate(space)
        base = self._optuna.distributions.BaseDistribution
        if space and all(isinstance(node, base) for node in space.values()):
            self._distributions = dict(space)
            return
        self._points.check(space)
        self._space = space

    def _value(self, result: Mapping[str, Any] | None) -> float | None:
        """Return the value to tell; None if there is none that can be compared."""
        value = None if result is None or self.metric is None else result.get(self.metric)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return self._sign * value

    def _default_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # The option is called experimental by the versions that warn; without it concurrent
            # trials are drawn from one and the same spot.
            warnings.simplefilter("ignore")
            sampler: optuna.samplers.BaseSampler = self._optuna.samplers.TPESampler(
                constant_liar=True, seed=seed
            )
        return sampler

    def _started(self) -> optuna.study.Study:
        if self._study is None:
            logging = self._optuna.logging
            verbosity = logging.get_verbosity()
            logging.set_verbosity(logging.WARNING)  # "A new study created in memory" is no news
            try:
                self._study = self._optuna.create_study(
                    storage=self._storage,
                    sampler=self._sampler,
                    study_name=self._study_name,
                    direction="maximize" if self.mode == "max" else "minimize",
                    load_if_exists=True,
                )
            finally:
                logging.set_verbosity(verbosity)
            domains = spaces.domains(self._space, conditional=True)
            while (point := self._points.next()) is not None:
                self._study.enqueue_trial(
                    {name: to_optuna(domains.get(name), value) for name, value in point.items()}
                )
        return self._study


def _nest(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters called ``"model/lr"`` as nested dicts."""
    config: dict[str, Any] = {}
    for name, value in params.items():
        holder = config
        *above, last = name.split("/")
        for key in above:
            holder = holder.setdefault(key, {})
        holder[last] = value
    return config


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "search_alg='optuna' needs Optuna, which is not installed: pip install 'skate[tune]'"
        ) from error
    return optuna
