"""The contract between the orchestrator and whatever proposes configurations."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle

from skate.tune.mode import check_mode
from skate.tune.search import space as spaces

#: Returned by ``suggest`` when there will be no further configuration.
FINISHED = "FINISHED"

#: One name, or several of a searcher with several objectives.
Names: TypeAlias = str | list[str]


class Searcher(ABC):
    """Proposes configurations and learns from results.

    All methods are called from one thread, the one that runs the experiment.  Each trial id is
    passed to ``suggest`` once (again only after ``None``), then any number of times to
    ``on_trial_result``, and exactly once to ``on_trial_complete``.

    ``metric`` and ``mode`` ("min" or "max") may be None until the first result arrived: then
    ``set_search_properties`` is called a second time, before the first ``on_trial_result``.  Both
    may be lists of the same length, for several objectives; then the first of them is what the run
    itself goes by (tables, schedulers, the best trial), and the run does not change them.

    The state of a searcher is all of it but the space, which the run brings again: a new one that
    is given the same properties and ``set_state`` (or ``restore``), in whichever order, goes on as
    the first would have.

    Args:
        metric: what to optimize; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.

    Raises:
        TypeError, ValueError: ``metric`` and ``mode`` do not go together.
    """

    FINISHED = FINISHED
    #: Whether it goes by what the run optimizes.
    needs_metric: bool = True
    #: Attributes that are no state: what the constructor and the run bring again.
    _NO_STATE: tuple[str, ...] = ()
    #: File name of ``save_to_dir``.
    CKPT_FILE_TMPL = "searcher-state-{}.pkl"

    def __init__(self, metric: Names | None = None, mode: Names | None = None) -> None:
        check_objective(metric, mode)
        self._metric = metric
        self._mode = mode

    @property
    def metric(self) -> Names | None:
        """What to optimize."""
        return self._metric

    @metric.setter
    def metric(self, metric: Names | None) -> None:
        self._metric = metric

    @property
    def mode(self) -> Names | None:
        """Whether less or more of it is better."""
        return self._mode

    @mode.setter
    def mode(self, mode: Names | None) -> None:
        self._mode = mode

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Learn what to optimize and over which space.

        Returns:
            False if the searcher keeps a space of its own and cannot take ``config``.
        """
        self.learn_objective(metric, mode)
        return not spaces.has_variables(config)

    def learn_objective(self, metric: str | None, mode: str | None) -> None:
        """Take the run's metric and mode, unless the searcher has several of its own."""
        if isinstance(self._metric, list):
            return
        self._metric = metric if metric is not None else self._metric
        self._mode = mode if mode is not None else self._mode

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say whether the searcher itself will hand out at most ``max_concurrent`` at a time."""
        return False

    @property
    def is_endless(self) -> bool:
        """Whether it is known that ``suggest`` returns ``FINISHED`` only after ``num_samples``."""
        return False

    def total(self, num_samples: int) -> int | None:
        """Return how many trials ``num_samples`` stands for; -1 stands for no limit (None)."""
        return None if num_samples == -1 else num_samples

    @abstractmethod
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a configuration, ``FINISHED``, or None for "ask again after the next result"."""

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:  # noqa: B027
        """Learn from an intermediate result.  Optional."""

    @abstractmethod
    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn how a trial ended: once, also of one that has another try in a resumed run.

        ``result`` is its last one, None if there is none; it may lack the metric, or have NaN for
        it.  ``result["early_stopped"]`` is true if a scheduler ended the trial: it was not the best
        the configuration could do.
        """

    def on_pause(self, trial_id: str) -> None:  # noqa: B027
        """A scheduler has paused the trial.  Optional."""

    def on_unpause(self, trial_id: str) -> None:  # noqa: B027
        """A paused trial goes on.  Optional."""

    # ---------------------------------------------------------------- what is known already

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Learn from an evaluation that was made elsewhere.  Optional.

        Args:
            parameters: the configuration.
            value: its metric (a list, for several).
            error: whether it failed.
            pruned: whether it was ended early.
            intermediate_values: the metric after each step.

        Raises:
            NotImplementedError: the searcher learns only from trials that it proposed.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot learn from other evaluations")

    def add_evaluated_trials(self, trials_or_analysis: Any, metric: str) -> None:
        """Learn from the trials of an earlier run.

        Args:
            trials_or_analysis: a trial, a list of trials, or what has ``trials`` (the result of
                ``tune.run``).
            metric: what they reported.

        Raises:
            NotImplementedError: the searcher learns only from trials that it proposed.
        """
        trials = getattr(trials_or_analysis, "trials", trials_or_analysis)
        known = False
        for trial in trials if isinstance(trials, (list, tuple)) else [trials]:
            value = trial.last_result.get(metric)
            if value is not None:
                self.add_evaluated_point(
                    trial.config,
                    value,
                    error=trial.status == trial.ERROR,
                    pruned=trial.early_stopped,
                )
                known = True
        if not known:
            warnings.warn(f"none of the trials reported {metric!r}", stacklevel=2)

    # ---------------------------------------------------------------- saving

    def get_state(self) -> dict[str, Any]:
        """Return everything that is to be remembered, to be pickled before the next call."""
        return {name: value for name, value in self.__dict__.items() if name not in self._NO_STATE}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` of another process returned."""
        self.__dict__.update(state)

    def save(self, checkpoint_path: str | os.PathLike[str]) -> None:
        """Write the state into a file; it is there as a whole or not at all."""
        content = cloudpickle.dumps((type(self).__name__, self.get_state()))
        path = Path(checkpoint_path)
        half = path.with_name(f".{path.name}.{os.getpid()}")
        half.write_bytes(content)
        half.replace(path)

    def restore(self, checkpoint_path: str | os.PathLike[str]) -> None:
        """Go on from what ``save`` has written.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: another kind of searcher has written it.
        """
        kind, state = cloudpickle.loads(Path(checkpoint_path).read_bytes())
        if kind != type(self).__name__:
            raise ValueError(
                f"{checkpoint_path} has the state of a {kind}, this is a {type(self).__name__}"
            )
        self.set_state(state)

    def save_to_dir(
        self, checkpoint_dir: str | os.PathLike[str], session_str: str = "default"
    ) -> None:
        """Write the state into a folder."""
        self.save(Path(checkpoint_dir) / self.CKPT_FILE_TMPL.format(session_str))

    def restore_from_dir(self, checkpoint_dir: str | os.PathLike[str]) -> None:
        """Go on from the newest state in a folder.

        Raises:
            FileNotFoundError: there is none.
        """
        found = list(Path(checkpoint_dir).glob(self.CKPT_FILE_TMPL.format("*")))
        if not found:
            raise FileNotFoundError(f"no searcher has saved its state in {checkpoint_dir}")
        self.restore(max(found, key=lambda path: path.stat().st_mtime))


def check_objective(metric: Any, mode: Any) -> None:
    """Check what a searcher optimizes.

    Raises:
        TypeError: a metric is no name.
        ValueError: a mode is neither "min" nor "max", or there are not as many of both.
    """
    for one in mode if isinstance(mode, list) else [mode]:
        check_mode(one)
    for one in metric if isinstance(metric, list) else [metric]:
        if one is not None and not isinstance(one, str):
            raise TypeError(f"metric has to be a name or a list of names, got {metric!r}")
    if isinstance(metric, list) or isinstance(mode, list):
        lengths = [len(given) if isinstance(given, list) else None for given in (metric, mode)]
        if lengths[0] != lengths[1] or not lengths[0]:
            raise ValueError(
                "several objectives want a list of metrics and a list of as many modes, got"
                f" metric={metric!r}, mode={mode!r}"
            )


def as_list(names: Names | None) -> list[str]:
    """Return metrics or modes as a list; empty if there are none yet."""
    if names is None:
        return []
    return names if isinstance(names, list) else [names]


def finite(value: object) -> float | None:
    """Return ``value`` as a number that can be compared; None if it is none."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        return None
    return number if math.isfinite(number) else None


def leading_objective(searcher: Searcher, named: str | None) -> tuple[str | None, str | None]:
    """Return the one metric and mode of a searcher that its run goes by.

    Args:
        named: the metric that the user wants the run to go by, if any.

    With several objectives it is the first, or the one that was named; nothing if that is none of
    them.
    """
    metric, mode = searcher.metric, searcher.mode
    if isinstance(metric, list) and isinstance(mode, list):
        wanted = metric[0] if named is None else named
        return (wanted, mode[metric.index(wanted)]) if wanted in metric else (None, None)
    assert not isinstance(metric, list)
    assert not isinstance(mode, list)
    return metric, mode
