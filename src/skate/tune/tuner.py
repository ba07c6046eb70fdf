"""``Tuner``: today's entrance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.tune.config import RunConfig, TuneConfig
from skate.tune.experiment import execute
from skate.tune.result_grid import ResultGrid
from skate.tune.trainable import Function, check


class Tuner:
    """Evaluates a function on configurations from a search space.

    Args:
        trainable: a function of one configuration that calls ``tune.report``, or returns or yields
            results.
        param_space: a dict, perhaps nested, with domains such as ``tune.uniform(0, 1)`` in it.
        tune_config: how to search.
        run_config: where results go and what is shown.

    Raises:
        TypeError: the trainable is no function of one configuration.
    """

    def __init__(
        self,
        trainable: Function,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
    ) -> None:
        check(trainable)
        if tune_config is not None and not isinstance(tune_config, TuneConfig):
            raise TypeError(f"tune_config wants a TuneConfig, got {tune_config!r}")
        if run_config is not None and not isinstance(run_config, RunConfig):
            raise TypeError(f"run_config wants a RunConfig, got {run_config!r}")
        self._trainable = trainable
        self._param_space = param_space
        self._tune_config = tune_config or TuneConfig()
        self._run_config = run_config or RunConfig()

    def fit(self) -> ResultGrid:
        """Run all trials.  Trials that fail are in the result; Ctrl-C ends the run early.

        Raises:
            TypeError, ValueError: a setting makes no sense; no trial has started.
            MetricError: trials do not report what the run is about.
        """
        return ResultGrid(
            execute(self._trainable, self._param_space, self._tune_config, self._run_config)
        )
