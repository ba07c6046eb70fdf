"""The three ways to write a search space for Optuna, behind one contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from skate.tune.search import space as spaces
from skate.tune.search.optuna.convert import distribution, from_optuna, to_optuna
from skate.tune.search.points import Points, named_values
from skate.tune.search.sample import Categorical, Domain, Function

if TYPE_CHECKING:
    import optuna


class Space(ABC):
    """Makes configurations of what Optuna suggests, and the other way round."""

    #: Whether functions of the user are called, which may draw from global generators.
    calls_functions = False

    @abstractmethod
    def check(self, points: Points) -> None:
        """Check points of the user against the space.

        Raises:
            ValueError: one is none of this space.
        """

    @abstractmethod
    def ask(
        self, study: optuna.study.Study, point: Mapping[str, Any]
    ) -> tuple[optuna.trial.Trial, Callable[[], dict[str, Any]]]:
        """Return a new trial, and what makes its configuration.

        Args:
            point: the values that are given, by name; what Optuna knows of has been enqueued.
        """

    def params(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a point, by name, as Optuna speaks of them."""
        return dict(point)

    @property
    @abstractmethod
    def distributions(self) -> Mapping[str, optuna.distributions.BaseDistribution]:
        """What Optuna models, by name.

        Raises:
            TypeError: the space is a function: that shows in each trial only.
        """

    @abstractmethod
    def find(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters, as Optuna speaks of them, in a configuration with constants.

        Raises:
            ValueError: it is none of this space.
        """


class DomainSpace(Space):
    """A dict of Skate's domains."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        spaces.validate(space)
        for name in spaces.grids(space):
            raise ValueError(
                f"{name}: Optuna cannot enumerate a grid_search; use tune.choice, or"
                " search_alg='random'"
            )
        self.space = space
        self.domains = {
            name: domain
            for name, domain in spaces.domains(space, conditional=True).items()
            if not isinstance(domain, Function)
        }
        self.calls_functions = spaces.has_functions(space)
        self._distributions = {name: distribution(d) for name, d in self.domains.items()}

    @property
    def distributions(self) -> Mapping[str, optuna.distributions.BaseDistribution]:
        """What stands for each domain."""
        return self._distributions

    def check(self, points: Points) -> None:
        """Check names and bounds."""
        points.check(self.space)
        if points.outside:
            raise ValueError(f"{points.outside[0]}; Optuna cannot be told of it")

    def ask(
        self, study: optuna.study.Study, point: Mapping[str, Any]
    ) -> tuple[optuna.trial.Trial, Callable[[], dict[str, Any]]]:
        """Suggest parameter by parameter, those of categories only if they were chosen."""
        trial = study.ask()
        # What Optuna models is asked of it also where it is given: it is to learn from it.
        fixed = {name: value for name, value in point.items() if name not in self.domains}

        def draw(name: str, domain: Domain) -> Any:
            modelled = self.distributions.get(name)
            if modelled is None:  # a function of the user has returned it just now
                modelled = distribution(domain)
            value = from_optuna(domain, _suggest(trial, name, modelled))
            # What is given is meant as it is written, not as it comes back from a quantile or step.
            given = name in point and not isinstance(domain, Categorical)
            return point[name] if given else value

        return trial, lambda: spaces.resolve(self.space, draw, fixed=fixed)

    def params(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what Optuna has no notion of: values in the place of functions."""
        return {
            name: to_optuna(self.domains[name], value)
            for name, value in point.items()
            if name in self.domains
        }

    def find(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Look where the domains stand."""
        return self.params(named_values(self.space, config))


class DistributionSpace(Space):
    """A dict, perhaps nested, of Optuna's distributions, perhaps with constants beside them."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        from optuna.distributions import BaseDistribution

        flat = spaces.flatten(space)
        self._distributions = {
            name: node for name, node in flat.items() if isinstance(node, BaseDistribution)
        }
        rest = {name: node for name, node in flat.items() if name not in self._distributions}
        for name, node in rest.items():
            if spaces.has_variables(node):
                raise TypeError(
                    f"{name}: the search space of OptunaSearch has domains of Skate and"
                    " distributions of Optuna; write all of it in one way"
                )
        self.constants = _nest(rest)

    @property
    def distributions(self) -> Mapping[str, optuna.distributions.BaseDistribution]:
        """What the user gave."""
        return self._distributions

    def check(self, points: Points) -> None:
        """Check names."""
        points.accept(self.distributions)

    def ask(
        self, study: optuna.study.Study, point: Mapping[str, Any]
    ) -> tuple[optuna.trial.Trial, Callable[[], dict[str, Any]]]:
        """Suggest all of them at once."""
        trial = study.ask(dict(self.distributions))
        return trial, lambda: spaces.merged(self.constants, _nest(trial.params))

    def find(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Leave the constants out."""
        flat = spaces.flatten(config)
        return {name: value for name, value in flat.items() if name in self._distributions}


class FunctionSpace(Space):
    """A function that calls ``trial.suggest_*`` ("define by run")."""

    calls_functions = True

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    @property
    def distributions(self) -> Mapping[str, optuna.distributions.BaseDistribution]:
        """Not known."""
        raise TypeError(
            "evaluations from elsewhere need a search space whose distributions are known, not a"
            " define-by-run function; write it with tune.uniform and the like"
        )

    def find(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Take all of it."""
        return spaces.flatten(config)

    def check(self, points: Points) -> None:
        """Take all points: which parameters there are shows in each trial only."""
        points.accept(None)

    def ask(
        self, study: optuna.study.Study, point: Mapping[str, Any]
    ) -> tuple[optuna.trial.Trial, Callable[[], dict[str, Any]]]:
        """Have the function suggest."""
        trial = study.ask()
        return trial, lambda: self._define(trial)

    def _define(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        try:
            returned = self.function(trial)
        except Exception as error:
            error.add_note("raised by the define-by-run function of OptunaSearch")
            raise
        if returned is None:
            return _nest(trial.params)
        if not isinstance(returned, Mapping) or not all(isinstance(key, str) for key in returned):
            raise TypeError(
                "the define-by-run function of OptunaSearch has to return None or a dict of"
                f" constants with text as keys, got {returned!r:.100}"
            )
        return spaces.merged(_nest(trial.params), returned)


def as_space(space: Any) -> Space:
    """Return the kind of space that ``space`` is.

    Raises:
        TypeError, ValueError: it is none, or there is something wrong with it.
    """
    from optuna.distributions import BaseDistribution

    if callable(space):
        return FunctionSpace(space)
    if isinstance(space, Mapping):
        leaves = spaces.flatten(space).values()
        if any(isinstance(leaf, BaseDistribution) for leaf in leaves):
            return DistributionSpace(space)
    return DomainSpace(space)


def _suggest(
    trial: optuna.trial.Trial, name: str, modelled: optuna.distributions.BaseDistribution
) -> Any:
    from optuna import distributions as kinds

    if isinstance(modelled, kinds.FloatDistribution):
        return trial.suggest_float(
            name, modelled.low, modelled.high, log=modelled.log, step=modelled.step
        )
    if isinstance(modelled, kinds.IntDistribution):
        return trial.suggest_int(
            name, modelled.low, modelled.high, log=modelled.log, step=modelled.step
        )
    assert isinstance(modelled, kinds.CategoricalDistribution)
    return trial.suggest_categorical(name, modelled.choices)


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
