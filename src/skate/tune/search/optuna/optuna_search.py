"""``OptunaSearch``: the searcher contract on top of Optuna's ask and tell."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from skate.tune.search import space as spaces
from skate.tune.search.functions import seeded
from skate.tune.search.points import Points
from skate.tune.search.searcher import FINISHED, Names, Searcher, as_list, finite

if TYPE_CHECKING:
    import optuna

    from skate.tune.search.optuna.spaces import Space

#: Name of the study in a storage, unless the user names it.  Runs with the same storage go on with
#: the same study.
_STUDY_NAME = "optuna"


class OptunaSearch(Searcher):
    """Search with Optuna.

    Trials that a scheduler ended early are told to Optuna as pruned, with the last value they
    reached: they rank behind every trial that ran to its end instead of being compared with it.
    (Optuna knows no pruning with several objectives: there they count as they are.)  So are trials
    that diverged: whose last value is NaN or infinite.  Trials that failed or reported nothing are
    told as failed, which says nothing about their configuration.

    Source of the default sampler: Bergstra et al., "Algorithms for hyper-parameter optimization",
    NeurIPS 2011; with several objectives Ozaki et al., "Multiobjective tree-structured Parzen
    estimator for computationally expensive optimization problems", GECCO 2020.

    Args:
        space: the search space, if it is not given to ``tune.run``: a dict of Skate's domains, a
            dict of Optuna's distributions, or a function that calls ``trial.suggest_*`` ("define
            by run") and may return a dict of constants.  Parameters called "model/lr" are nested.
        metric: what to optimize; defaults to the run's.  A list, for several objectives.
        mode: "min" or "max"; defaults to the run's.  A list as long as ``metric``.
        points_to_evaluate: configurations (or parts of them) to try first.
        sampler: any Optuna sampler; the default is ``TPESampler(constant_liar=True, seed=seed)``,
            which knows that several trials run at a time.
        study_name: name of the study in ``storage``.
        storage: an Optuna storage, or the URL of one; the default keeps the study in memory.
            What a storage already knows is used.  It gets the intermediate results as well.
        seed: the same seed and the same results give the same suggestions.  A sampler of yours has
            a seed of its own.
        evaluated_rewards: the metric of each of ``points_to_evaluate``, where it is known already:
            they are not tried, but learned from.

    Raises:
        ImportError: Optuna is not installed.
        TypeError, ValueError: the arguments make no sense.
    """

    _NO_STATE = ("_space", "_brought_space")

    def __init__(
        self,
        space: Mapping[str, Any] | Callable[[optuna.trial.Trial], Any] | None = None,
        metric: Names | None = None,
        mode: Names | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        study_name: str | None = None,
        storage: optuna.storages.BaseStorage | str | None = None,
        seed: int | None = None,
        evaluated_rewards: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(metric, mode)
        library = _import_optuna()
        if sampler is not None and not isinstance(sampler, library.samplers.BaseSampler):
            raise TypeError(f"sampler wants a sampler of Optuna, got {sampler!r}")
        if not isinstance(storage, (library.storages.BaseStorage, str, type(None))):
            raise TypeError(f"storage wants a storage of Optuna or its URL, got {storage!r}")
        self._seeded = seed is not None
        if seed is None:
            # Drawn from the global generator, so that `random.seed(0)` in a script is honoured.
            seed = random.getrandbits(31)
        self._rng = random.Random(seed)
        self._sampler = sampler if sampler is not None else _default_sampler(seed)
        self._study_name = study_name
        self._storage = storage
        self._points = Points(points_to_evaluate, evaluated_rewards)
        self._brought_space = space is not None
        self._space: Space | None = None
        if space is not None:
            self._take(space)
        self._study: optuna.study.Study | None = None
        self._asked: dict[str, optuna.trial.Trial] = {}
        #: The last step of each trial that the user's storage has.
        self._reported: dict[str, int] = {}
        self._suggested = 0
        #: How many trials there are to be; known of samplers that enumerate.
        self._limit: float = math.inf

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Learn the objective, and the space unless the searcher brought one."""
        self.learn_objective(metric, mode)
        if not config:
            return True
        if self._brought_space:
            # The configuration of the run may add constants, nothing to draw.
            return not spaces.has_variables(config)
        self._take(config)
        return True

    @property
    def is_endless(self) -> bool:
        """Whether the sampler does not enumerate."""
        samplers = _import_optuna().samplers
        return not isinstance(self._sampler, (samplers.GridSampler, samplers.BruteForceSampler))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask Optuna for a configuration."""
        if self._suggested >= self._limit:
            return FINISHED
        study = self.study
        space = self._space
        if space is None:
            self._asked[trial_id] = study.ask()
            return {}
        point = None if self._points.rewards else self._points.take()
        if point is not None:
            study.enqueue_trial(space.params(point))
        trial, configuration = space.ask(study, point or {})
        try:
            with seeded(self._rng) if self._seeded and space.calls_functions else nullcontext():
                config = configuration()
        except BaseException:
            # Otherwise Optuna would reckon with its result for ever.
            study.tell(trial, state=_import_optuna().trial.TrialState.FAIL)
            raise
        self._asked[trial_id] = trial
        self._suggested += 1
        if isinstance(study.sampler, _import_optuna().samplers.GridSampler):
            self._limit = _grid_size(study, trial)
        return config

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Write intermediate results into the user's storage, where there is one to look at."""
        # The study in memory needs none of them: only the last one counts, and it grows with each.
        trial = self._asked.get(trial_id)
        if self._storage is None or trial is None or isinstance(self.metric, list):
            return
        values = self._values(result)
        step = int(result.get("training_iteration", 1))
        # A trial that goes on from a checkpoint makes some of its results again; a study has room
        # for one value per step.
        if values is not None and step > self._reported.get(trial_id, 0):
            self._reported[trial_id] = step
            self._report(trial, values[0], step)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the value of a trial, or that it failed or was ended early."""
        trial = self._asked.pop(trial_id, None)
        self._reported.pop(trial_id, None)
        if trial is None:
            return
        state = _import_optuna().trial.TrialState
        values = None if error else self._values(result)
        if values is None:
            diverged = not error and self._diverged(result)
            self._tell(trial, state=state.PRUNED if diverged else state.FAIL)
        elif result is not None and result.get("early_stopped") and len(values) == 1:
            if self._storage is None:
                self._report(trial, values[0], int(result.get("training_iteration", 1)))
            self._tell(trial, state=state.PRUNED)
        else:
            self._tell(trial, values=values)

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Learn from an evaluation that was made elsewhere.

        Raises:
            ValueError: the searcher does not know its space or its mode yet, or the configuration
                is none of the space.
            TypeError: the space is a define-by-run function.
        """
        if self._space is None:
            raise ValueError("OptunaSearch has no search space yet; give it one: space=...")
        if self.mode is None:
            raise ValueError("OptunaSearch has no mode yet; give it one: mode='min' or 'max'")
        params = self._space.find(parameters)
        self._add(self.study, params, value, error, pruned, intermediate_values or ())

    @property
    def study(self) -> optuna.study.Study:
        """The study that is asked and told.

        If the mode was not known when it began, or it was found in a storage, it may minimize what
        is to be maximized: then it has the values with their signs turned.
        """
        if self._study is None:
            self._study = self._started()
            for point, reward in zip(self._points.all(), self._points.rewards, strict=False):
                if self.mode is None:
                    raise ValueError(
                        "evaluated_rewards wants to know what is better; give mode='min' or 'max'"
                    )
                assert self._space is not None
                self._add(self._study, self._space.params(point), reward)
        return self._study

    # ---------------------------------------------------------------- inside

    def _take(self, space: Any) -> None:
        from skate.tune.search.optuna.spaces import as_space

        self._space = as_space(space)
        self._space.check(self._points)
        if self._points.rewards:
            _ = self._space.distributions  # a space without them is refused now

    def _signs(self, study: optuna.study.Study) -> list[float]:
        """Return what to multiply values with for the study to search in the right direction."""
        modes = as_list(self.mode) or ["min"]
        maximized = [direction.name == "MAXIMIZE" for direction in study.directions]
        if len(maximized) != len(modes):
            raise ValueError(
                f"the study in the storage has {len(maximized)} objectives, mode={self.mode!r} has"
                f" {len(modes)}; use another study_name"
            )
        pairs = zip(modes, maximized, strict=True)
        return [1.0 if (mode == "max") == most else -1.0 for mode, most in pairs]

    def _values(self, result: Mapping[str, Any] | None) -> list[float] | None:
        """Return the values to tell; None if there are none that can be compared."""
        if result is None or self.metric is None:
            return None
        values = [finite(result.get(metric)) for metric in as_list(self.metric)]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return [sign * v for sign, v in zip(self._signs(self.study), known, strict=True)]

    def _diverged(self, result: Mapping[str, Any] | None) -> bool:
        """Say whether a result has a number, but none that can be compared."""
        if result is None or not isinstance(self.metric, str):
            return False
        value = result.get(self.metric)
        return isinstance(value, (int, float)) and finite(value) is None

    # A storage of the user may be ahead of a searcher that was restored: the run died after a trial
    # had been told and before the searcher was saved.  What is told already stays as it is.

    def _report(self, trial: optuna.trial.Trial, value: float, step: int) -> None:
        with suppress(RuntimeError):  # what Optuna raises for a trial that has been told
            trial.report(value, step=step)

    def _tell(self, trial: optuna.trial.Trial, **outcome: Any) -> None:
        study = self.study
        try:
            study.tell(trial, skip_if_finished=True, **outcome)
        except RuntimeError:
            # Samplers that enumerate ask for the end when a result leaves nothing to try, by a way
            # that Optuna opens to its own loop only.  The result has been recorded by then.
            if not study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                raise
            self._limit = self._suggested

    def _add(
        self,
        study: optuna.study.Study,
        params: dict[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] = (),
    ) -> None:
        assert self._space is not None
        distributions = self._space.distributions
        trials = _import_optuna().trial
        state = trials.TrialState.COMPLETE
        if error or pruned:
            state = trials.TrialState.FAIL if error else trials.TrialState.PRUNED
        signs = self._signs(study)
        values = value if isinstance(value, (list, tuple)) else [value]
        told = [sign * float(one) for sign, one in zip(signs, values, strict=True)]
        steps = enumerate(intermediate_values, 1)
        study.add_trial(
            trials.create_trial(
                state=state,
                values=None if error else told,
                params=params,
                distributions={name: distributions[name] for name in params},
                intermediate_values={step: signs[0] * one for step, one in steps},
            )
        )

    def _started(self) -> optuna.study.Study:
        library = _import_optuna()
        modes = as_list(self.mode) or ["min"]
        verbosity = library.logging.get_verbosity()
        library.logging.set_verbosity(library.logging.WARNING)  # that a study began is no news
        try:
            study: optuna.study.Study = library.create_study(
                storage=self._storage,
                sampler=self._sampler,
                pruner=library.pruners.NopPruner(),  # schedulers are Tune's
                study_name=self._study_name or (None if self._storage is None else _STUDY_NAME),
                directions=["maximize" if mode == "max" else "minimize" for mode in modes],
                load_if_exists=True,
            )
        finally:
            library.logging.set_verbosity(verbosity)
        self._signs(study)  # a study of the storage that has other objectives is refused now
        return study


def _grid_size(study: optuna.study.Study, trial: optuna.trial.Trial) -> float:
    """Return how many trials there are to be of a ``GridSampler``: it leaves its grid there."""
    kept = study.get_trials(deepcopy=False)[trial.number]
    grid = kept.system_attrs.get("search_space")  # a trial of a given point has none
    return math.inf if grid is None else math.prod(len(values) for values in grid.values())


def _default_sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # The option is called experimental by the versions that warn; without it concurrent trials
        # are drawn from one and the same spot.
        warnings.simplefilter("ignore")
        sampler: optuna.samplers.BaseSampler = _import_optuna().samplers.TPESampler(
            constant_liar=True, seed=seed
        )
    return sampler


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "search_alg='optuna' needs Optuna, which is not installed: pip install 'skate[tune]'"
        ) from error
    return optuna
